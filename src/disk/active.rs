//! A recording while it runs: its open files and its metadata, in `.active/<id>/`.
//!
//! Every WAV plays at any instant, recording.json can be read at any instant, and both after a power cut too, as far as
//! the last sync reached.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Disk;
use super::store::{Error, METADATA, METADATA_NEW, METADATA_SAFE, Store};
use super::wav::{Spec, Writer};
use crate::id::LegId;
use crate::record::metadata::{Gap, GapCause, Recording, RecordingSession, State};
use crate::record::recorder::{FileSpec, SessionFiles};

/// A running session's folder.
pub struct Active {
    store: Arc<Store>,
    dir: PathBuf,
    sample_rate: u32,
    /// In the order of adding; all parts of a file have one place.
    tracks: Vec<Track>,
    /// Files of former parts and their frames.
    closed: Vec<(String, u64)>,
    recording: Recording,
    /// The metadata differs from what is on the disk.
    dirty: bool,
    /// When the metadata on the disk was written.
    written: SyncPoint,
    /// What was replaced by silence because the disk was too slow, in samples of the recording.
    lost: Vec<Range<u64>>,
}

struct Track {
    name: String,
    writer: Writer,
    /// The recording's sample that is this part's first frame.
    start_sample: u64,
}

/// The longest list of [`Active::append_lost`]: beyond it the last stretch grows over what lies between.
const MAX_LOST: usize = 1_000;

impl Active {
    /// Makes the folder, every file with a header, and the metadata. When this returns the recording exists.
    ///
    /// # Errors
    /// The disk's own; what was made is removed again as far as the disk allows.
    pub fn begin(store: Arc<Store>, files: &SessionFiles, recording: Recording) -> Result<Self, Error> {
        let dir = store.active_dir(files.id);
        store.disk().create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        let mut active = Self {
            sample_rate: files.sample_rate,
            tracks: Vec::new(),
            closed: Vec::new(),
            recording,
            dirty: true,
            written: SyncPoint::NEVER,
            lost: Vec::new(),
            dir,
            store,
        };
        let begun = files.files.iter().try_for_each(|file| active.add_file(file)).and_then(|()| active.commit());
        if let Err(error) = begun {
            // What cannot be removed either is found and removed by the next start.
            let _ = active.store.remove_folder(&active.dir);
            return Err(error);
        }
        Ok(active)
    }

    /// Adds a file; its index is the next one.
    ///
    /// # Errors
    /// The disk's own.
    pub fn add_file(&mut self, file: &FileSpec) -> Result<(), Error> {
        let start_sample = self.tracks.first().map_or(0, |t| t.start_sample);
        let track = self.create(file, start_sample)?;
        self.tracks.push(track);
        self.dirty = true;
        Ok(())
    }

    /// Appends frames to the file at `index`. They play after [`Active::commit`].
    ///
    /// # Errors
    /// The disk's own; an index that was never added is ignored.
    pub fn append(&mut self, index: usize, interleaved: &[i16]) -> Result<(), Error> {
        let Some(track) = self.tracks.get_mut(index) else { return Ok(()) };
        track.writer.append(interleaved).map_err(|error| Error::io("write", &self.dir.join(&track.name))(error))
    }

    /// Appends silence in place of frames that there was no room to keep: a gap `dropped-by-us` and a warning.
    ///
    /// # Errors
    /// As [`Active::append`].
    pub fn append_lost(&mut self, index: usize, frames: u64) -> Result<(), Error> {
        let Some(track) = self.tracks.get_mut(index) else { return Ok(()) };
        let from = track.start_sample + track.writer.frames();
        track.writer.append_silence(frames).map_err(Error::io("write", &self.dir.join(&track.name)))?;
        self.note_lost(from..from + frames);
        Ok(())
    }

    /// Closes every file and goes on in these, in the same order.
    ///
    /// # Errors
    /// The disk's own.
    pub fn roll(&mut self, files: &[FileSpec]) -> Result<(), Error> {
        let start_sample = self.tracks.first().map_or(0, |t| t.start_sample + t.writer.frames());
        for track in &mut self.tracks {
            let path = self.dir.join(&track.name);
            track.writer.commit().map_err(Error::io("write", &path))?;
            // Durable before its successor exists: after a power cut only the last part may be short, and no sample of
            // a later one moves.
            track.writer.sync().map_err(Error::io("sync", &path))?;
        }
        let next = files.iter().map(|file| self.create(file, start_sample)).collect::<Result<Vec<_>, _>>()?;
        let former = std::mem::replace(&mut self.tracks, next);
        self.closed.extend(former.into_iter().map(|t| (t.name, t.writer.frames())));
        self.dirty = true;
        Ok(())
    }

    /// What is to be told but lengths of files, which this knows. Written by the next commit.
    pub fn set_metadata(&mut self, recording: Recording) {
        self.recording = recording;
        self.dirty = true;
    }

    /// Headers, then the metadata if it changed.
    ///
    /// # Errors
    /// The disk's own.
    pub fn commit(&mut self) -> Result<(), Error> {
        for track in &mut self.tracks {
            track.writer.commit().map_err(|error| Error::io("write", &self.dir.join(&track.name))(error))?;
        }
        if self.dirty {
            let recording = self.metadata();
            let durable = self.store.syncs().covers(self.written);
            write_running(&self.store, &self.dir, &recording, durable)?;
            self.written = self.store.syncs().now();
            self.dirty = false;
        }
        Ok(())
    }

    /// Commits for the last time; what it answers is for the publisher.
    ///
    /// # Errors
    /// The disk's own.
    pub fn close(mut self, recording: Recording) -> Result<Recording, Error> {
        // Until it is published it calls itself running, so that a crash in between is told from a whole recording.
        let running = RecordingSession { state: State::Recording, ..recording.recording_session.clone() };
        self.set_metadata(Recording { recording_session: running, ..recording });
        self.commit()?;
        Ok(self.metadata())
    }

    /// The metadata with the files as they are on the disk.
    pub fn metadata(&self) -> Recording {
        let mut recording = self.recording.clone();
        for file in &mut recording.media_files {
            let closed = self.closed.iter().find(|(name, _)| *name == file.file).map(|(_, frames)| *frames);
            let open = || self.tracks.iter().find(|t| t.name == file.file).map(|t| t.writer.frames());
            file.samples = closed.or_else(open).unwrap_or(file.samples);
        }
        if !self.lost.is_empty() {
            let legs: Vec<LegId> = recording.participants.iter().map(|p| p.leg_id).collect();
            let gap = |leg, range: &Range<u64>| Gap {
                leg,
                start_sample: range.start,
                end_sample: range.end,
                cause: GapCause::DroppedByUs,
            };
            recording.gaps.extend(self.lost.iter().flat_map(|range| legs.iter().map(move |&leg| gap(leg, range))));
            let samples: u64 = self.lost.iter().map(|r| r.end - r.start).sum();
            let ms = samples * 1_000 / u64::from(self.sample_rate.max(1));
            recording.warnings.push(format!("the disk was too slow: {ms} ms were replaced by silence"));
        }
        recording
    }

    fn create(&self, file: &FileSpec, start_sample: u64) -> Result<Track, Error> {
        let path = self.dir.join(&file.name);
        let spec = Spec { sample_rate: self.sample_rate, channels: file.channels };
        let mut writer = Writer::create(self.store.disk(), &path, spec).map_err(Error::io("create", &path))?;
        if file.silent_frames > 0 {
            writer.append_silence(file.silent_frames).map_err(Error::io("write", &path))?;
        }
        Ok(Track { name: file.name.clone(), writer, start_sample })
    }

    fn note_lost(&mut self, range: Range<u64>) {
        self.dirty = true;
        // The files of a session lose the same stretch one after the other.
        if self.lost.iter().rev().take(2).any(|r| r.start <= range.start && range.end <= r.end) {
            return;
        }
        let full = self.lost.len() >= MAX_LOST;
        match self.lost.last_mut() {
            Some(last) if range.start <= last.end || full => last.end = last.end.max(range.end),
            _ => self.lost.push(range),
        }
    }
}

/// Replaces recording.json at once. `durable`: what stands there has been synced since it was written; it is kept
/// under a second name then. The new one is not synced here (a sync of its own for each change of each call would stop
/// the writer), so that a power cut within the next second may leave it torn, and repair takes the kept one.
fn write_running(store: &Store, dir: &Path, recording: &Recording, durable: bool) -> Result<(), Error> {
    let (current, new, safe) = (dir.join(METADATA), dir.join(METADATA_NEW), dir.join(METADATA_SAFE));
    let disk = store.disk();
    write_json(disk, &new, recording)?;
    if durable {
        match disk.remove_file(&safe) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("remove", &safe)(e)),
            _ => {}
        }
        // Where the file system has no links there is one generation only.
        let _ = disk.link(&current, &safe);
    }
    disk.replace(&new, &current).map_err(Error::io("replace", &current))
}

/// Writes a metadata file of its own; a sync must make it durable.
pub(super) fn write_json(disk: &dyn Disk, path: &Path, recording: &Recording) -> Result<(), Error> {
    let mut text = serde_json::to_vec_pretty(recording).map_err(|e| Error::io("write", path)(e.into()))?;
    text.push(b'\n');
    let file = disk.create(path).map_err(Error::io("create", path))?;
    file.write_at(&text, 0).map_err(Error::io("write", path))
}

/// Counts the syncs of the whole file system, so that a writer knows whether something it wrote is durable.
#[derive(Debug, Default)]
pub struct Syncs {
    begun: AtomicU64,
    done: AtomicU64,
}

/// An instant on the scale of [`Syncs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncPoint(u64);

impl SyncPoint {
    /// Never covered.
    pub const NEVER: Self = Self(u64::MAX);
}

impl Syncs {
    /// The instant after everything written so far.
    pub fn now(&self) -> SyncPoint {
        SyncPoint(self.begun.load(Ordering::SeqCst))
    }

    /// True when a sync that began after `point` is done.
    pub fn covers(&self, point: SyncPoint) -> bool {
        self.done.load(Ordering::SeqCst) > point.0
    }

    /// Runs a sync. One at a time: the keeper's sync thread is the only caller.
    pub(super) fn run<E>(&self, sync: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let begun = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        sync()?;
        self.done.store(begun, Ordering::SeqCst);
        Ok(())
    }
}
