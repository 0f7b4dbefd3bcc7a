//! The recorder threads, their writers, sync and publisher.
//!
//! ```text
//! marks, tap rings → recorder-N (pure Recorder) → writer-N (files) → publisher (hash, final JSON, rename)
//!                                       keeper: free space every second, a syncfs every second or when publications wait
//! ```
//!
//! A stalled disk stops none of them from reading rings: what `recorder-N` hands to `writer-N` is counted in bytes, and
//! beyond [`Options::buffer`] samples are handed on as their number only. They become silence of the exact length, a
//! row `dropped-by-us` in the metadata, and a warning. A disk that refuses a write ends the recording, never the call.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::clock;
use crate::id::{RecorderId, RecordingId};
use crate::record::mark::{Change, Mark, Notice, StopCause};
use crate::record::recorder::{self, Recorder};
use crate::runtime::ring::{self, Frame};

pub mod keeper;
mod publisher;
mod sink;
pub mod syncing;
mod writer;

pub use keeper::Keeper;
use sink::QueueSink;

/// Where notices go. Called from several threads; must not block.
pub type Notices = Arc<dyn Fn(RecorderId, Notice) + Send + Sync>;

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

/// Time between two passes while something is recorded. It adds to what a kill may lose: with the window, a commit's interval
/// and the watermark's 0.9 s of the second that is allowed. Three packets of a leg at a time find its state in the cache that
/// the kernel's work on the network empties between two passes: a pass every 20 ms costs nearly twice as much per packet.
const PASS: Duration = Duration::from_millis(60);

/// Time between two passes while nothing is recorded; a mark ends it at once.
const IDLE: Duration = Duration::from_millis(100);

/// Empty buffers kept between writer and recorder: some more than sessions commit in one pass.
const MAX_SPARES: usize = 256;

/// Longest time that a stopping recorder waits for its sessions' ends; they come within the reorder window.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A running recorder: its thread and its writer's. Dropping it without [`RecorderHandle::shutdown`] stops the threads as
/// well, but does not wait for them.
pub struct RecorderHandle {
    shared: Arc<Shared>,
    marks: mpsc::Sender<Mark>,
    threads: Vec<JoinHandle<()>>,
}

/// What the handle and the thread see both.
struct Shared {
    options: Options,
    /// Nanoseconds after the epoch.
    watermark: AtomicU64,
    backlog: AtomicUsize,
    stop: AtomicBool,
    /// Bytes of audio between recorder and writer.
    queued: AtomicU64,
    /// The fullest that a tap ring has been since it was asked for, in thousandths.
    ring_permille: AtomicUsize,
}

/// Starts `recorder-N` and `writer-N`. `rings` has one tap per media thread.
///
/// # Errors
/// The operating system refuses a thread.
pub fn spawn(
    options: Options,
    keeper: &Keeper,
    rings: Vec<ring::Consumer>,
    notices: Notices,
) -> io::Result<RecorderHandle> {
    let number = options.id.0;
    let shared = Arc::new(Shared {
        options,
        watermark: AtomicU64::new(0),
        backlog: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        queued: AtomicU64::new(0),
        ring_permille: AtomicUsize::new(0),
    });
    let (marks, inbox) = mpsc::channel();
    let (jobs, work) = mpsc::channel();
    let (broken_in, broken) = mpsc::channel();
    let (spare_in, spare) = mpsc::sync_channel(MAX_SPARES);

    let files = writer::Files::new(keeper, shared.clone(), broken_in, spare_in, notices.clone());
    let writer = std::thread::Builder::new().name(format!("writer-{number}")).spawn(move || files.run(&work))?;

    let sink = QueueSink::new(jobs, shared.clone(), spare, keeper.room_cell(), notices);
    let recorder =
        Recorder::new(recorder::Options { epoch: shared.options.epoch, max_file_bytes: shared.options.max_file_size });
    let passed = shared.options.epoch;
    let thread = Thread { shared: shared.clone(), inbox, rings, recorder, sink, passed, broken };
    let recorder = std::thread::Builder::new().name(format!("recorder-{number}")).spawn(move || thread.run())?;
    Ok(RecorderHandle { shared, marks, threads: vec![recorder, writer] })
}

impl RecorderHandle {
    /// Which one.
    pub fn id(&self) -> RecorderId {
        self.shared.options.id
    }

    /// Sends a mark; never blocks and never drops. Marks of one session go in the order of their instants.
    pub fn mark(&self, mark: Mark) {
        self.shared.backlog.fetch_add(1, Ordering::Relaxed);
        // The thread ends only after `shutdown`, which takes the handle.
        let _ = self.marks.send(mark);
    }

    /// Every mark before `before` has been sent. At least every 50 ms, or commits wait.
    pub fn watermark(&self, before: Instant) {
        let ns = nanoseconds_after(self.shared.options.epoch, before);
        // Release: whoever sees it sees the marks sent before it.
        self.shared.watermark.fetch_max(ns, Ordering::Release);
    }

    /// Marks that wait for the thread. Beyond a few thousand it does not keep up: take no new calls.
    pub fn backlog(&self) -> usize {
        self.shared.backlog.load(Ordering::Relaxed)
    }

    /// Bytes of audio that wait for the disk, for metrics.
    pub fn queued_bytes(&self) -> u64 {
        self.shared.queued.load(Ordering::Relaxed)
    }

    /// The fullest that a tap ring has been since this was asked last, in thousandths, for metrics.
    pub fn take_ring_permille(&self) -> usize {
        self.shared.ring_permille.swap(0, Ordering::Relaxed)
    }

    /// Ends the sessions that still run with cause `shutdown`, writes what is in the rings, hands everything to the
    /// publisher, and waits for both threads. Publishing is waited for by [`Keeper::shutdown`], which comes after.
    pub fn shutdown(mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!(recorder = self.shared.options.id.0, "a recorder thread has panicked");
            }
        }
    }
}

impl Drop for RecorderHandle {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
    }
}

fn nanoseconds_after(epoch: Instant, at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(epoch).as_nanos()).unwrap_or(u64::MAX)
}

/// `recorder-N`.
struct Thread {
    shared: Arc<Shared>,
    inbox: mpsc::Receiver<Mark>,
    rings: Vec<ring::Consumer>,
    recorder: Recorder,
    sink: QueueSink,
    /// The instant of the last pass: nothing before it is due any more.
    passed: Instant,
    /// Sessions that the writer gave up.
    broken: mpsc::Receiver<(RecordingId, StopCause)>,
}

impl Thread {
    fn run(mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            let busy = self.recorder.next_commit().is_some();
            if busy {
                std::thread::sleep(PASS);
            } else if let Ok(mark) = self.inbox.recv_timeout(IDLE) {
                self.take_mark(mark);
            }
            self.pass(clock::now(), None);
        }
        self.finish();
    }

    /// One pass: marks, watermark, packets in the order of time, and the commits that are due between them.
    fn pass(&mut self, now: Instant, watermark: Option<Instant>) {
        // The watermark first: the marks that it speaks of are in the inbox when it is seen.
        let seen = Duration::from_nanos(self.shared.watermark.load(Ordering::Acquire));
        while let Ok(mark) = self.inbox.try_recv() {
            self.take_mark(mark);
        }
        self.recorder.watermark(watermark.unwrap_or(self.shared.options.epoch + seen));
        while let Ok((id, cause)) = self.broken.try_recv() {
            self.recorder.mark(Mark { at: now, change: Change::Stop { id, cause } });
        }
        if self.sink.disk_became_full() {
            self.recorder.stop_all(now, StopCause::DiskFull);
        }
        let fullest = self.rings.iter().map(ring::Consumer::fill_permille).max().unwrap_or(0);
        self.shared.ring_permille.fetch_max(fullest, Ordering::Relaxed);
        // A thread that was late commits at the instants at which it would have, so that it gives the same files.
        while let Some(due) = self.recorder.next_commit().filter(|&due| due < now) {
            let at = due.max(self.passed);
            self.take_packets(at);
            self.recorder.commit(at, &mut self.sink);
            self.sink.hand_over();
            if self.recorder.next_commit() == Some(due) {
                break;
            }
        }
        self.passed = now;
        self.take_packets(now);
        self.recorder.commit(now, &mut self.sink);
        self.sink.hand_over();
        for (id, cause) in self.sink.take_refused() {
            self.recorder.mark(Mark { at: now, change: Change::Stop { id, cause } });
        }
    }

    fn take_mark(&mut self, mark: Mark) {
        self.shared.backlog.fetch_sub(1, Ordering::Relaxed);
        self.recorder.mark(mark);
    }

    /// Hands in every packet that arrived until then.
    fn take_packets(&mut self, until: Instant) {
        let epoch = self.shared.options.epoch;
        let until = nanoseconds_after(epoch, until);
        let recorder = &mut self.recorder;
        for ring in &mut self.rings {
            ring.drain(until, |frame| match frame {
                Frame::Packet(header, payload) => recorder.packet(header, payload),
                Frame::Dropped(dropped) => recorder.dropped(
                    Some(dropped.leg),
                    epoch + Duration::from_nanos(dropped.first_ns),
                    epoch + Duration::from_nanos(dropped.last_ns),
                ),
            });
        }
    }

    /// Ends what runs, and with its sink the writer. Nobody sends marks any more, so the watermark is now.
    fn finish(mut self) {
        let stopped = clock::now();
        self.pass(stopped, Some(stopped));
        self.recorder.stop_all(stopped, StopCause::Shutdown);
        while self.recorder.sessions() > 0 {
            let now = clock::now();
            if now.duration_since(stopped) > STOP_LIMIT {
                let sessions = self.recorder.sessions();
                tracing::error!(sessions, "recordings did not end; the next start repairs them");
                break;
            }
            self.pass(now, Some(now));
            std::thread::sleep(PASS);
        }
    }
}
