//! Between the pure recorder and the writer thread: a queue that never blocks and holds a bounded number of bytes.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};

use super::keeper::RoomCell;
use super::{Notices, Shared};
use crate::disk::floor::Room;
use crate::id::RecordingId;
use crate::record::mark::{Measured, Notice, StopCause};
use crate::record::metadata::Recording;
use crate::record::recorder::{FileSpec, SessionFiles, Sink};

/// Times handed over after which buffers that none of them needed are given up: a second and more.
const IDLE_TURNS: u32 = 200;

/// For the writer thread; in the order of the recorder's calls.
pub(super) enum Job {
    Begin { files: SessionFiles, recording: Box<Recording> },
    AddFile { id: RecordingId, file: FileSpec },
    Roll { id: RecordingId, files: Vec<FileSpec> },
    Commit { id: RecordingId, files: Vec<Samples>, metadata: Option<Box<Recording>> },
    End { id: RecordingId, recording: Box<Recording> },
}

/// What is appended to one file: first silence for what was lost, then samples.
#[derive(Debug, Default)]
pub(super) struct Samples {
    pub(super) lost_frames: u64,
    pub(super) interleaved: Vec<i16>,
}

impl Samples {
    /// What it counts for in the queue.
    pub(super) fn bytes(&self) -> u64 {
        self.interleaved.len() as u64 * 2
    }
}

/// See the module.
pub(super) struct QueueSink {
    jobs: mpsc::Sender<Vec<Job>>,
    /// For the next [`QueueSink::hand_over`]: waking the writer takes longer than most of its jobs.
    pending: Vec<Job>,
    shared: Arc<Shared>,
    spares: Spares,
    room: Arc<RoomCell>,
    notices: Notices,
    sessions: HashMap<RecordingId, Staged>,
    /// Sessions that were not begun for want of room, until the recorder has been told.
    refused: Vec<(RecordingId, StopCause)>,
    was_full: bool,
    /// Sessions to which samples were lost since the log last told of it.
    slow: HashSet<RecordingId>,
}

/// One session's output between two commits.
struct Staged {
    files: Vec<StagedFile>,
    metadata: Option<Box<Recording>>,
}

struct StagedFile {
    channels: u16,
    samples: Samples,
}

impl QueueSink {
    pub(super) fn new(
        jobs: mpsc::Sender<Vec<Job>>,
        shared: Arc<Shared>,
        spare: mpsc::Receiver<Vec<i16>>,
        room: Arc<RoomCell>,
        notices: Notices,
    ) -> Self {
        Self {
            jobs,
            pending: Vec::new(),
            shared,
            spares: Spares { emptied: spare, stack: Vec::new(), idle: 0, turns: 0 },
            room,
            notices,
            sessions: HashMap::new(),
            refused: Vec::new(),
            was_full: false,
            slow: HashSet::new(),
        }
    }

    /// True once when the disk has become too full to go on: every session must be stopped. They have been reported.
    pub(super) fn disk_became_full(&mut self) -> bool {
        let full = self.room.get() == Room::Full;
        let became = full && !self.was_full;
        self.was_full = full;
        if became {
            for &id in self.sessions.keys() {
                self.report(id, "the disk is nearly full");
            }
        }
        became
    }

    /// Sessions that this has refused, to be stopped in the recorder.
    pub(super) fn take_refused(&mut self) -> Vec<(RecordingId, StopCause)> {
        std::mem::take(&mut self.refused)
    }

    /// Gives the writer what has come up since the last time.
    pub(super) fn hand_over(&mut self) {
        if !self.pending.is_empty() {
            // The writer ends when this is dropped, and not before.
            let _ = self.jobs.send(std::mem::take(&mut self.pending));
        }
        self.spares.turn();
    }

    fn report(&self, id: RecordingId, reason: &str) {
        let notice = Notice::Failed { id, cause: StopCause::DiskFull, reason: reason.to_owned() };
        (self.notices)(self.shared.options.id, notice);
    }

    /// Hands over what is staged. Beyond the buffer the samples stay here as their number, unless `always`: then the
    /// number goes, for what follows is about the files as they will be.
    fn flush(&mut self, id: RecordingId, always: bool) {
        let Some(staged) = self.sessions.get_mut(&id) else { return };
        let bytes: u64 = staged.files.iter().map(|f| f.samples.bytes()).sum();
        let queued = self.shared.queued.load(Ordering::Relaxed);
        let fits = queued.saturating_add(bytes) <= self.shared.options.buffer;
        if !fits && bytes > 0 {
            for StagedFile { channels, samples } in &mut staged.files {
                samples.lost_frames += samples.interleaved.len() as u64 / u64::from(*channels);
                samples.interleaved.clear();
            }
            if self.slow.insert(id) {
                tracing::warn!(recording = %id, queued, "the disk is too slow: audio is replaced by silence");
            }
        }
        if !fits && !always {
            return;
        }
        if fits {
            self.slow.remove(&id);
            self.shared.queued.fetch_add(bytes, Ordering::Relaxed);
        }
        let files = staged.files.iter_mut().map(|file| std::mem::take(&mut file.samples));
        let job = Job::Commit { id, files: files.collect(), metadata: staged.metadata.take() };
        self.pending.push(job);
    }
}

impl Sink for QueueSink {
    fn begin(&mut self, files: &SessionFiles, recording: &Recording) {
        if !self.room.get().takes_new() {
            self.refused.push((files.id, StopCause::DiskFull));
            self.report(files.id, "too little free space for a new recording");
            return;
        }
        let staged = files.files.iter().map(StagedFile::new).collect();
        self.sessions.insert(files.id, Staged { files: staged, metadata: None });
        self.pending.push(Job::Begin { files: files.clone(), recording: Box::new(recording.clone()) });
    }

    fn add_file(&mut self, id: RecordingId, file: &FileSpec) {
        self.flush(id, true);
        let Some(staged) = self.sessions.get_mut(&id) else { return };
        staged.files.push(StagedFile::new(file));
        self.pending.push(Job::AddFile { id, file: file.clone() });
    }

    fn frames(&mut self, id: RecordingId, file: usize, interleaved: &[i16]) {
        let Some(staged) = self.sessions.get_mut(&id).and_then(|s| s.files.get_mut(file)) else { return };
        let staged = &mut staged.samples.interleaved;
        if staged.capacity() == 0 {
            // Taken now and not when the last one was handed over: of all sessions few have frames at a time.
            *staged = self.spares.take();
        }
        staged.extend_from_slice(interleaved);
    }

    fn roll(&mut self, id: RecordingId, files: &[FileSpec]) {
        self.flush(id, true);
        let Some(staged) = self.sessions.get_mut(&id) else { return };
        staged.files = files.iter().map(StagedFile::new).collect();
        self.pending.push(Job::Roll { id, files: files.to_vec() });
    }

    fn committed(&mut self, id: RecordingId) {
        self.flush(id, false);
    }

    fn metadata(&mut self, id: RecordingId, recording: &Recording) {
        if let Some(staged) = self.sessions.get_mut(&id) {
            staged.metadata = Some(Box::new(recording.clone()));
        }
    }

    fn measured(&mut self, id: RecordingId, measured: Measured) {
        // What the room for recordings has refused is shown to nobody.
        if self.sessions.contains_key(&id) {
            (self.notices)(self.shared.options.id, Notice::Measured { id, measured });
        }
    }

    fn end(&mut self, id: RecordingId, recording: Recording) {
        self.flush(id, true);
        self.slow.remove(&id);
        if self.sessions.remove(&id).is_some() {
            self.pending.push(Job::End { id, recording: Box::new(recording) });
        }
    }
}

/// Buffers that the writer has emptied; the one that came back last is the first to be used again, so that few are in
/// use and those are warm.
struct Spares {
    emptied: mpsc::Receiver<Vec<i16>>,
    stack: Vec<Vec<i16>>,
    /// The fewest on the stack since some turns ago: so many were not needed.
    idle: usize,
    turns: u32,
}

impl Spares {
    /// An empty buffer, a fresh one when there is none.
    fn take(&mut self) -> Vec<i16> {
        if self.stack.is_empty() {
            self.stack.extend(self.emptied.try_iter());
        }
        let taken = self.stack.pop();
        self.idle = self.idle.min(self.stack.len());
        taken.unwrap_or_default()
    }

    /// After handing over: takes back what the writer has emptied, and gives to the system what was not needed for long.
    fn turn(&mut self) {
        self.stack.extend(self.emptied.try_iter());
        self.turns += 1;
        if self.turns == IDLE_TURNS {
            self.stack.drain(..self.idle.min(self.stack.len()));
            (self.idle, self.turns) = (self.stack.len(), 0);
        }
    }
}

impl StagedFile {
    fn new(file: &FileSpec) -> Self {
        Self { channels: file.channels.max(1), samples: Samples::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_that_came_back_last_is_used_first_and_idle_ones_are_given_up() {
        let (emptied, receiver) = mpsc::channel();
        let mut spares = Spares { emptied: receiver, stack: Vec::new(), idle: 0, turns: 0 };
        assert_eq!(spares.take().capacity(), 0);
        (1..=20).for_each(|n| emptied.send(Vec::with_capacity(100 * n)).unwrap());
        // The first second sees how many there are, the next one how many of them are not needed.
        (0..IDLE_TURNS).for_each(|_| spares.turn());
        assert_eq!(spares.stack.len(), 20);
        for _ in 0..IDLE_TURNS {
            let taken = [spares.take(), spares.take(), spares.take()];
            assert_eq!(taken.each_ref().map(Vec::capacity), [2_000, 1_900, 1_800]);
            taken.into_iter().rev().for_each(|buffer| emptied.send(buffer).unwrap());
            spares.turn();
        }
        assert_eq!(spares.stack.iter().map(Vec::capacity).collect::<Vec<_>>(), [1_800, 1_900, 2_000]);
    }
}
