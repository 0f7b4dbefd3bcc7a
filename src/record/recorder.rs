//! One recorder's whole state: tracks by leg, sessions by id; packets and marks in, frames and metadata out.
//!
//! The contract of the thread that drives it, in a loop: take `now`; hand in every mark that is queued, then the
//! watermark, then every tapped packet that arrived before `now`; call [`Recorder::commit`] with that `now`. After a
//! backlog, `commit` is called with the arrival of the next packet whenever [`Recorder::next_commit`] is earlier than
//! it, so that a thread that was late gives the same files as one that was not.

use std::time::{Duration, Instant};

use super::mark::{Mark, StopCause};
use super::metadata::{FileKind, Recording};
use super::tap::TapHeader;
use crate::id::{LegId, RecordingId};

/// How long a packet may be later than its place (spec/recording.md §7, W).
pub const WINDOW: Duration = Duration::from_millis(500);

/// Time between two commits of one session.
pub const COMMIT_INTERVAL: Duration = Duration::from_millis(250);

/// What a recorder is made with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The instant from which [`TapHeader::arrival_ns`] counts.
    pub epoch: Instant,
    /// Bytes that no file may pass, its header included (`recording.max-file-size`).
    pub max_file_bytes: u64,
}

/// One file of a session, as it is to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSpec {
    /// Name within the session's folder: `mixed.wav`, `mixed.2.wav`, `supervisor-1.wav` … .
    pub name: String,
    /// What it holds.
    pub kind: FileKind,
    /// Interleaved channels.
    pub channels: u16,
    /// Frames of silence to write before the first frames: a file that begins later than its part.
    pub silent_frames: u64,
}

/// A session's files as they are when it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionFiles {
    /// The session.
    pub id: RecordingId,
    /// Samples per second of every file.
    pub sample_rate: u32,
    /// The files; their positions are the file indices of [`Sink::frames`].
    pub files: Vec<FileSpec>,
}

/// Where a recorder's output goes. Calls for one session come in this order: `begin`; then any of `add_file`, `frames`,
/// `roll`, `metadata`, `committed`; `end` last. All files of a session get the same number of frames between two calls of
/// `committed`. The sink answers for its own failures: it stops a session by a [`Mark`] with
/// [`StopCause::WriteError`] or [`StopCause::DiskFull`] and ignores what still comes for it.
pub trait Sink {
    /// Create the folder, the files with their headers, and the first metadata.
    fn begin(&mut self, files: &SessionFiles, recording: &Recording);
    /// One more file; its index is the next one.
    fn add_file(&mut self, id: RecordingId, file: &FileSpec);
    /// Append whole interleaved frames to a file.
    fn frames(&mut self, id: RecordingId, file: usize, interleaved: &[i16]);
    /// Close every file and go on in these, in the same order: the largest reached `max_file_bytes`.
    fn roll(&mut self, id: RecordingId, files: &[FileSpec]);
    /// Everything of this commit has been handed over: data to the file, then the header.
    fn committed(&mut self, id: RecordingId);
    /// The metadata changed; at most once per commit.
    fn metadata(&mut self, id: RecordingId, recording: &Recording);
    /// Close the files and publish. The metadata is final but for sizes and hashes.
    fn end(&mut self, id: RecordingId, recording: Recording);
}

/// See the module.
#[derive(Debug)]
pub struct Recorder {
    options: Options,
}

impl Recorder {
    /// Without legs and sessions.
    pub fn new(options: Options) -> Self {
        Self { options }
    }

    /// Takes a mark. It takes effect at its own instant, also when that is in the past of packets already handed in.
    pub fn mark(&mut self, _mark: Mark) {}

    /// Every mark before this instant has been handed in. Nothing later than it is committed.
    pub fn watermark(&mut self, _before: Instant) {}

    /// Takes a tapped packet.
    pub fn packet(&mut self, _header: &TapHeader, _payload: &[u8]) {}

    /// A tap ring was full for arrivals in this stretch: what is missing there was dropped by us, not by the network.
    /// `None`: any leg of the ring may be concerned.
    pub fn dropped(&mut self, _leg: Option<LegId>, _from: Instant, _until: Instant) {}

    /// Begins, continues and ends what is due at `now`.
    pub fn commit(&mut self, _now: Instant, _sink: &mut impl Sink) {}

    /// When to call [`Recorder::commit`] again; `None` while there is nothing to record. Marks may make it earlier.
    pub fn next_commit(&self) -> Option<Instant> {
        None
    }

    /// Stops every running session at `at`. Their ends come with the commits of the following [`WINDOW`].
    pub fn stop_all(&mut self, _at: Instant, _cause: StopCause) {}

    /// Sessions that have not ended yet.
    pub fn sessions(&self) -> usize {
        0
    }
}
