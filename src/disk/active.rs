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
use super::wav::{self, Spec, Writer};
use crate::id::{LegId, RecordingId};
use crate::record::metadata::{FileKind, Gap, GapCause, MEDIA_TYPE, MediaFile, Recording};

/// One file of a session, over all its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// Its name without part and ending: `mixed`, `supervisor-1`, `party-2`.
    pub stem: String,
    /// What it holds.
    pub kind: FileKind,
    /// The leg whose voice it is.
    pub participant: Option<LegId>,
    /// 1 or 2; the first file of a session has the most.
    pub channels: u16,
}

/// A running session's folder.
pub struct Active {
    store: Arc<Store>,
    id: RecordingId,
    dir: PathBuf,
    sample_rate: u32,
    frames_per_part: u64,
    tracks: Vec<Track>,
    recording: Recording,
    /// The metadata differs from what is on the disk.
    dirty: bool,
    /// When the metadata on the disk was written.
    written: SyncPoint,
    /// What was replaced by silence because the disk was too slow, in samples of the recording.
    lost: Vec<Range<u64>>,
}

struct Track {
    file: NewFile,
    part: u32,
    /// Frames over all parts.
    frames: u64,
    writer: Writer,
}

/// The longest list of [`Active::lost`]: beyond it the last stretch grows over what lies between.
const MAX_LOST: usize = 1_000;

impl Active {
    /// Makes the folder, every file with a header, and the metadata. When this returns the recording exists.
    ///
    /// # Errors
    /// The disk's own; what was made is removed again as far as the disk allows.
    pub fn begin(
        store: Arc<Store>,
        files: Vec<NewFile>,
        recording: Recording,
        sample_rate: u32,
        max_file_size: u64,
    ) -> Result<Self, Error> {
        let (id, dir) = (recording.id, store.active_dir(recording.id));
        let channels = files.iter().map(|f| f.channels).max().unwrap_or(1);
        store.disk().create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        let mut active = Self {
            id,
            sample_rate,
            frames_per_part: wav::frames_per_part(max_file_size, channels),
            tracks: Vec::new(),
            recording,
            dirty: true,
            written: SyncPoint::NEVER,
            lost: Vec::new(),
            dir,
            store,
        };
        let begun = files.into_iter().try_for_each(|file| active.add_file(file)).and_then(|()| active.commit());
        if let Err(error) = begun {
            // What cannot be removed either is found and removed by the next start.
            let _ = active.store.remove_folder(&active.dir);
            return Err(error);
        }
        Ok(active)
    }

    /// The session.
    pub fn id(&self) -> RecordingId {
        self.id
    }

    /// Adds a file for somebody who joined later: silence from the session's start to where the first file is.
    ///
    /// # Errors
    /// The disk's own.
    pub fn add_file(&mut self, file: NewFile) -> Result<(), Error> {
        let frames = self.frames();
        let mut track = self.new_track(file, 1)?;
        self.silence(&mut track, frames)?;
        self.commit_track(&mut track)?;
        self.tracks.push(track);
        self.dirty = true;
        Ok(())
    }

    /// Frames of the first file over all parts.
    pub fn frames(&self) -> u64 {
        self.tracks.first().map_or(0, |t| t.frames)
    }

    /// Appends frames to the file at `index` (in the order of adding). They play after [`Active::commit`].
    ///
    /// # Errors
    /// The disk's own.
    pub fn append(&mut self, index: usize, mut interleaved: &[i16]) -> Result<(), Error> {
        let Some(mut track) = self.take_track(index) else { return Ok(()) };
        let mut result = Ok(());
        let channels = usize::from(track.file.channels);
        while !interleaved.is_empty() && result.is_ok() {
            result = self.roll_if_full(&mut track).and_then(|room| {
                let samples =
                    interleaved.len().min(usize::try_from(room).unwrap_or(usize::MAX).saturating_mul(channels));
                let (now, later) = interleaved.split_at(samples);
                track.writer.append(now).map_err(Error::io("write", &self.path(&track)))?;
                track.frames += (samples / channels) as u64;
                interleaved = later;
                Ok(())
            });
        }
        self.tracks.insert(index, track);
        result
    }

    /// Appends silence in place of samples that there was no room to keep: a gap `dropped-by-us` and a warning.
    ///
    /// # Errors
    /// The disk's own.
    pub fn append_lost(&mut self, index: usize, frames: u64) -> Result<(), Error> {
        let Some(mut track) = self.take_track(index) else { return Ok(()) };
        let range = track.frames..track.frames + frames;
        let result = self.silence(&mut track, frames);
        self.tracks.insert(index, track);
        self.note_lost(range);
        result
    }

    /// Everything that is to be told, but `mediaFiles`, which this keeps itself. Written by the next commit.
    pub fn set_metadata(&mut self, recording: Recording) {
        self.recording = recording;
        self.dirty = true;
    }

    /// Headers, then the metadata if it changed.
    ///
    /// # Errors
    /// The disk's own.
    pub fn commit(&mut self) -> Result<(), Error> {
        for index in 0..self.tracks.len() {
            let track = &mut self.tracks[index];
            let name = wav::file_name(&track.file.stem, track.part);
            track.writer.commit().map_err(Error::io("write", &self.dir.join(name)))?;
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
        self.set_metadata(recording);
        self.commit()?;
        Ok(self.metadata())
    }

    /// The metadata with the files as they are on the disk.
    pub fn metadata(&self) -> Recording {
        let mut recording = self.recording.clone();
        recording.media_files = self.tracks.iter().flat_map(|track| self.parts(track)).collect();
        if !self.lost.is_empty() {
            let legs: Vec<LegId> = recording.participants.iter().map(|p| p.leg_id).collect();
            recording.gaps.extend(self.lost.iter().flat_map(|range| {
                legs.iter().map(|&leg| Gap {
                    leg,
                    start_sample: range.start,
                    end_sample: range.end,
                    cause: GapCause::DroppedByUs,
                })
            }));
            let samples: u64 = self.lost.iter().map(|r| r.end - r.start).sum();
            let ms = samples * 1_000 / u64::from(self.sample_rate.max(1));
            recording.warnings.push(format!("the disk was too slow: {ms} ms were replaced by silence"));
        }
        recording
    }

    fn parts<'a>(&'a self, track: &'a Track) -> impl Iterator<Item = MediaFile> + 'a {
        (1..=track.part).map(move |part| {
            let start_sample = u64::from(part - 1) * self.frames_per_part;
            MediaFile {
                file: wav::file_name(&track.file.stem, part),
                part,
                start_sample,
                kind: track.file.kind,
                participant: track.file.participant,
                media_type: MEDIA_TYPE.into(),
                channels: track.file.channels,
                sample_rate: self.sample_rate,
                samples: (track.frames - start_sample).min(self.frames_per_part),
                size: None,
                sha256: None,
            }
        })
    }

    /// Out of the list, so that it and `self` can be used at once; put back where it was.
    fn take_track(&mut self, index: usize) -> Option<Track> {
        (index < self.tracks.len()).then(|| self.tracks.remove(index))
    }

    fn new_track(&self, file: NewFile, part: u32) -> Result<Track, Error> {
        let path = self.dir.join(wav::file_name(&file.stem, part));
        let spec = Spec { sample_rate: self.sample_rate, channels: file.channels };
        let writer = Writer::create(self.store.disk(), &path, spec).map_err(Error::io("create", &path))?;
        Ok(Track { file, part, frames: 0, writer })
    }

    fn path(&self, track: &Track) -> PathBuf {
        self.dir.join(wav::file_name(&track.file.stem, track.part))
    }

    /// Frames that the present part still takes, at least 1.
    fn roll_if_full(&mut self, track: &mut Track) -> Result<u64, Error> {
        if track.writer.frames() >= self.frames_per_part {
            self.commit_track(track)?;
            // Made durable before its successor exists: after a power cut only the last part may be short, and so no
            // sample moves.
            track.writer.sync().map_err(Error::io("sync", &self.path(track)))?;
            let next = self.new_track(track.file.clone(), track.part + 1)?;
            *track = Track { frames: track.frames, ..next };
            self.dirty = true;
        }
        Ok(self.frames_per_part - track.writer.frames())
    }

    fn silence(&mut self, track: &mut Track, mut frames: u64) -> Result<(), Error> {
        while frames > 0 {
            let now = self.roll_if_full(track)?.min(frames);
            track.writer.append_silence(now).map_err(Error::io("write", &self.path(track)))?;
            track.frames += now;
            frames -= now;
        }
        Ok(())
    }

    fn commit_track(&self, track: &mut Track) -> Result<(), Error> {
        track.writer.commit().map_err(Error::io("write", &self.path(track)))
    }

    fn note_lost(&mut self, range: Range<u64>) {
        self.dirty = true;
        let full = self.lost.len() >= MAX_LOST;
        match self.lost.last_mut() {
            Some(last) if range.start <= last.end || full => last.end = last.end.max(range.end),
            _ => self.lost.push(range),
        }
    }
}

/// Replaces recording.json by one rename. `durable`: what stands there has been synced since it was written; it is kept
/// under a second name then. The new one is not synced here (a sync of its own for each change of each call would stop
/// the writer), so that a power cut within the next second may leave it torn, and repair takes the kept one.
fn write_running(store: &Store, dir: &Path, recording: &Recording, durable: bool) -> Result<(), Error> {
    let (current, new, safe) = (dir.join(METADATA), dir.join(METADATA_NEW), dir.join(METADATA_SAFE));
    let disk = store.disk();
    write_json(disk, &new, recording, false)?;
    if durable {
        match disk.remove_file(&safe) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("remove", &safe)(e)),
            _ => {}
        }
        // Where the file system has no links there is one generation only.
        let _ = disk.link(&current, &safe);
    }
    disk.rename(&new, &current).map_err(Error::io("replace", &current))
}

/// Writes a metadata file of its own.
pub(super) fn write_json(disk: &dyn Disk, path: &Path, recording: &Recording, sync: bool) -> Result<(), Error> {
    let mut text = serde_json::to_vec_pretty(recording).map_err(|e| Error::io("write", path)(e.into()))?;
    text.push(b'\n');
    let file = disk.create(path).map_err(Error::io("create", path))?;
    file.write_at(&text, 0).map_err(Error::io("write", path))?;
    if sync {
        file.sync().map_err(Error::io("sync", path))?;
    }
    Ok(())
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
