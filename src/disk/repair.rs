//! What a crash left behind is padded, closed and published (spec/recording.md §6). Nothing whole is ever cut.
//!
//! Nothing is marked as repaired before everything it says is durable; cut short itself, it is done again and reaches
//! the same end.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::store::{Error, METADATA, METADATA_NEW, METADATA_SAFE, Store};
use super::wav::{self, Spec};
use crate::id::{CallUuid, ConnId, LegId, RecordingId};
use crate::record::mark::{Side, StopCause};
use crate::record::metadata::{
    FileKind, MEDIA_TYPE, Mask, MaskKind, MediaFile, Recording, RecordingSession, Segment, State, time_of_sample,
};
use crate::record::verify::widened;

/// The rate of a file of which neither metadata nor any header tells.
const ASSUMED_RATE: u32 = 8_000;

impl Store {
    /// Finishes what stands under `.active/<id>`, whichever step it had reached. `None`: nothing of it had ever begun,
    /// and the folder is removed. The caller holds the lock, and the session does not run.
    ///
    /// # Errors
    /// The disk's own; it can be done again.
    pub fn repair(&self, id: RecordingId) -> Result<Option<Recording>, Error> {
        let dir = self.active_dir(id);
        let found = self.last_generation(id)?;
        if let Some(recording) = &found {
            let published = self.published_dir(recording);
            if self.exists(&published)? {
                // Copied from another file system, whole, but the source is still here.
                let recording = self.read_metadata(&published.join(METADATA), id)?;
                self.sync_day(&self.day_dir(&recording))?;
                self.remove_published_source(&recording)?;
                return Ok(Some(recording));
            }
            if self.is_final(recording)? {
                return self.publish(recording.clone()).map(Some);
            }
        }
        let layout = self.layout(&dir, found.as_ref())?;
        if layout.is_empty() || (found.is_none() && layout.values().all(|f| f.frames == 0)) {
            self.remove_folder(&dir)?;
            return Ok(None);
        }
        let recording = match found {
            Some(recording) => recording,
            None => self.rebuilt(id, &layout)?,
        };
        let (cause, warning) = match recording.recording_session.stop_cause {
            Some(cause) => (cause, "the server stopped before this recording was published"),
            None => (StopCause::Crash, "the server stopped while this was recorded"),
        };
        self.close_and_publish(recording, layout, State::Recovered, cause, warning).map(Some)
    }

    /// Publishes what there is of a session that broke off because the disk refused a write. Its writers are dropped.
    ///
    /// # Errors
    /// The disk's own; the next start tries again.
    pub fn publish_failed(&self, mut recording: Recording, cause: StopCause, why: &str) -> Result<Recording, Error> {
        if let Some(published) = self.already_moved(&recording)? {
            return Ok(published);
        }
        let layout = self.layout(&self.active_dir(recording.id), Some(&recording))?;
        // What was to come is not there, and is not made up.
        recording.recording_session.stop_cause = None;
        self.close_and_publish(recording, layout, State::Failed, cause, why)
    }

    fn close_and_publish(
        &self,
        mut recording: Recording,
        layout: Layout,
        state: State,
        cause: StopCause,
        warning: &str,
    ) -> Result<Recording, Error> {
        let dir = self.active_dir(recording.id);
        recording.media_files = self.even_out(&dir, &recording, layout)?;
        recording.warnings.push(warning.to_owned());
        self.end_lost_pause(&dir, &mut recording)?;
        close(&mut recording, state, cause);
        self.publish(recording)
    }

    /// Audio may be ahead of the metadata: what was said after a pause whose end the metadata does not know. There the
    /// pause ended, for in a pause nothing but digital silence is ever written.
    fn end_lost_pause(&self, dir: &Path, recording: &mut Recording) -> Result<(), Error> {
        let Some(last) = recording.segments.last().filter(|last| last.paused) else { return Ok(()) };
        let mut first: Option<u64> = None;
        for file in &recording.media_files {
            let path = dir.join(&file.file);
            let within = last.start_sample.saturating_sub(file.start_sample)..file.samples;
            if within.is_empty() {
                continue;
            }
            let sound = wav::first_sound(self.disk(), &path, within).map_err(|e| Error::io("read", &path)(e))?;
            let sound = sound.map(|frame| file.start_sample + frame);
            first = [first, sound].into_iter().flatten().min();
        }
        let Some(sound) = first else { return Ok(()) };
        let rate = recording.media_files.first().map_or(ASSUMED_RATE, |f| f.sample_rate);
        let resumed = sound.saturating_sub(widened(rate)).max(last.start_sample);
        let time = time_of_sample(recording.start_time, resumed, rate);
        // Nobody knows better who spoke than the segment before the pause.
        let before = recording.segments.iter().rev().find(|s| !s.paused).map(|s| s.speakers.clone());
        let speakers = before.unwrap_or_else(|| last.participants.clone());
        let speakers = speakers.into_iter().filter(|leg| last.participants.contains(leg)).collect();
        let next = Segment { start_sample: resumed, start: time, paused: false, speakers, ..last.clone() };
        match recording.segments.last_mut() {
            Some(last) if last.start_sample < resumed => {
                (last.end_sample, last.end) = (resumed, time);
                recording.segments.push(next);
            }
            Some(last) => *last = next,
            None => {}
        }
        recording.masks.push(Mask { time, kind: MaskKind::Resumed });
        recording.warnings.push("the end of the last pause was lost; it is where sound begins again".into());
        Ok(())
    }

    /// Its metadata, as recent as can be read.
    fn last_generation(&self, id: RecordingId) -> Result<Option<Recording>, Error> {
        let dir = self.active_dir(id);
        for name in [METADATA, METADATA_SAFE, METADATA_NEW] {
            let path = dir.join(name);
            if !self.exists(&path)? {
                continue;
            }
            match self.read_metadata(&path, id) {
                Ok(recording) if name == METADATA => return Ok(Some(recording)),
                Ok(mut recording) => {
                    // The next generation calls itself final before what it describes is durable.
                    recording.recording_session.state = State::Recording;
                    recording.warnings.push("the latest metadata was lost; this is the state before it".into());
                    return Ok(Some(recording));
                }
                Err(Error::Metadata { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// True when publishing had come as far as the final metadata.
    fn is_final(&self, recording: &Recording) -> Result<bool, Error> {
        if recording.recording_session.state == State::Recording || recording.media_files.is_empty() {
            return Ok(false);
        }
        let dir = self.active_dir(recording.id);
        for file in &recording.media_files {
            let path = dir.join(&file.file);
            if wav::parse_name(&file.file).is_none() || !self.exists(&path)? {
                return Ok(false);
            }
            let len = self.disk().open_read(&path).and_then(|f| f.len()).map_err(Error::io("read", &path))?;
            if Some(len) != file.size {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Every part of every file that the folder has or the metadata names.
    fn layout(&self, dir: &Path, recording: Option<&Recording>) -> Result<Layout, Error> {
        let mut layout = Layout::new();
        for file in recording.into_iter().flat_map(|r| &r.media_files) {
            let Some((stem, part)) = wav::parse_name(&file.file) else { continue };
            let spec = Spec { sample_rate: file.sample_rate, channels: file.channels.max(1) };
            let found = Part { spec: Some(spec), frames: 0, template: Some(file.clone()) };
            layout.insert((part, stem.to_owned()), found);
        }
        for (stem, part, path) in self.wav_files(dir)? {
            let len = self.disk().open_read(&path).and_then(|f| f.len()).map_err(Error::io("read", &path))?;
            // Another part of the same file tells as well as its own header.
            let known = layout.iter().find(|((_, s), f)| *s == stem && f.spec.is_some()).map(|(_, f)| f.spec);
            let spec = known.flatten().or_else(|| wav::inspect(self.disk(), &path).ok().map(|info| info.spec));
            let entry = layout.entry((part, stem)).or_insert(Part { spec, frames: 0, template: None });
            let assumed = entry.spec.unwrap_or(Spec { sample_rate: ASSUMED_RATE, channels: 1 });
            entry.frames = assumed.frames_in(len);
        }
        Ok(layout)
    }

    /// Gives all files of each part the length of the longest, and makes those that are missing.
    fn even_out(&self, dir: &Path, recording: &Recording, layout: Layout) -> Result<Vec<MediaFile>, Error> {
        let rate = layout.values().find_map(|f| f.spec).map_or(ASSUMED_RATE, |s| s.sample_rate);
        let parts = layout.keys().map(|(part, _)| *part).max().unwrap_or(1);
        // By stem: what its frames are, the first part it is in, and what the metadata said of it.
        let mut stems: BTreeMap<&str, (Spec, u32, Option<MediaFile>)> = BTreeMap::new();
        for ((part, stem), found) in &layout {
            let spec = found.spec.unwrap_or(Spec { sample_rate: rate, channels: 1 });
            let entry = stems.entry(stem).or_insert((spec, *part, None));
            entry.2 = entry.2.take().or_else(|| found.template.clone());
        }
        let mut files = Vec::new();
        let mut start_sample = 0;
        for part in 1..=parts {
            let longest = layout.iter().filter(|((p, _), _)| *p == part).map(|(_, f)| f.frames).max().unwrap_or(0);
            let frames = longest.max(promised_frames(recording, part, parts, start_sample));
            for (stem, (spec, _, template)) in stems.iter().filter(|(_, (_, first, _))| *first <= part) {
                let name = wav::file_name(stem, part);
                let path = dir.join(&name);
                wav::mend(self.disk(), &path, *spec, frames).map_err(Error::io("mend", &path))?;
                files.push(MediaFile {
                    file: name,
                    part,
                    start_sample,
                    kind: template.as_ref().map_or_else(|| kind_of(stem), |t| t.kind),
                    participant: template.as_ref().and_then(|t| t.participant),
                    media_type: MEDIA_TYPE.into(),
                    channels: spec.channels,
                    sample_rate: spec.sample_rate,
                    samples: frames,
                    size: None,
                    sha256: None,
                });
            }
            start_sample += frames;
        }
        // As a running session lists them: file by file.
        files.sort_by_key(|f| (f.kind as u8, wav::parse_name(&f.file).map(|(stem, _)| stem.to_owned()), f.part));
        Ok(files)
    }

    /// What can be told of a recording without metadata.
    fn rebuilt(&self, id: RecordingId, layout: &Layout) -> Result<Recording, Error> {
        let dir = self.active_dir(id);
        let rate = layout.values().find_map(|f| f.spec).map_or(ASSUMED_RATE, |s| s.sample_rate);
        let longest = layout.iter().max_by_key(|(_, f)| f.frames);
        let mut start_time = Timestamp::UNIX_EPOCH;
        if let Some(((part, stem), _)) = longest {
            let path = dir.join(wav::file_name(stem, *part));
            let written = self.disk().modified(&path).map_err(Error::io("read", &path))?;
            let frames: u64 =
                (1..=*part).filter_map(|part| layout.get(&(part, stem.clone())).map(|found| found.frames)).sum();
            let length = SignedDuration::from_millis((frames * 1_000 / u64::from(rate.max(1))) as i64);
            start_time = written.checked_sub(length).unwrap_or(Timestamp::UNIX_EPOCH);
        }
        Ok(Recording {
            id,
            call_uuid: CallUuid(Uuid::nil()),
            caller_phone_number: String::new(),
            dialed_phone_number: String::new(),
            start_time,
            stop_time: None,
            duration_ms: None,
            recording_session: RecordingSession {
                owner_dn: None,
                owner_leg: LegId(0),
                side: Side::Origination,
                trigger: "unknown".into(),
                rule: "unknown: the metadata was lost".into(),
                state: State::Recording,
                stop_cause: None,
            },
            participants: Vec::new(),
            segments: Vec::new(),
            media_files: Vec::new(),
            media: Vec::new(),
            gaps: Vec::new(),
            masks: Vec::new(),
            events: Vec::new(),
            warnings: vec!["the metadata was lost and has been rebuilt from the files".into()],
        })
    }
}

/// By part and stem.
type Layout = BTreeMap<(u32, String), Part>;

/// One part of one file, as found.
struct Part {
    spec: Option<Spec>,
    frames: u64,
    template: Option<MediaFile>,
}

/// How long the metadata says that a part is: up to the next one, or in the last one to where the session was stopped.
fn promised_frames(recording: &Recording, part: u32, parts: u32, start_sample: u64) -> u64 {
    let end = if part < parts {
        recording.media_files.iter().find(|f| f.part == part + 1).map(|f| f.start_sample)
    } else if recording.recording_session.stop_cause.is_some() {
        recording.segments.last().map(|s| s.end_sample)
    } else {
        None
    };
    end.unwrap_or(0).saturating_sub(start_sample)
}

fn kind_of(stem: &str) -> FileKind {
    match stem.split_once('-') {
        Some(("supervisor", _)) => FileKind::Supervisor,
        Some(("party", _)) => FileKind::Party,
        _ => FileKind::Mixed,
    }
}

/// Closes a recording at the end of its files.
fn close(recording: &mut Recording, state: State, cause: StopCause) {
    let total = recording.media_files.iter().map(|f| f.start_sample + f.samples).max().unwrap_or(0);
    let rate = recording.media_files.first().map_or(ASSUMED_RATE, |f| f.sample_rate);
    let start = recording.start_time;
    let end = time_of_sample(start, total, rate);

    close_segments(recording, total, end);
    let cause_name = serde_json::to_value(cause).ok().and_then(|v| v.as_str().map(str::to_owned));
    for participant in recording.participants.iter_mut().filter(|p| p.left.is_none()) {
        participant.left = Some(end.max(participant.joined));
        participant.leave_cause.clone_from(&cause_name);
    }
    // After a power cut the metadata may be ahead of the audio: nothing happened later than the end.
    for participant in &mut recording.participants {
        participant.joined = participant.joined.min(end);
        participant.left = participant.left.map(|left| left.min(end));
    }
    recording.masks.iter_mut().for_each(|mask| mask.time = mask.time.min(end));
    recording.events.iter_mut().for_each(|event| event.time = event.time.min(end));
    recording.gaps.retain(|gap| gap.start_sample < total);
    recording.gaps.iter_mut().for_each(|gap| gap.end_sample = gap.end_sample.min(total));
    recording.stop_time = Some(end);
    recording.duration_ms = Some(total * 1_000 / u64::from(rate.max(1)));
    recording.recording_session.state = state;
    recording.recording_session.stop_cause = Some(cause);
}

/// Makes the segments cover exactly the files. After a power cut the metadata may be ahead of the audio.
fn close_segments(recording: &mut Recording, total: u64, end: Timestamp) {
    let first = recording.segments.first().cloned();
    recording.segments.retain(|segment| segment.start_sample < total);
    if let Some(last) = recording.segments.last_mut() {
        last.end_sample = total;
        last.end = end;
        return;
    }
    let owner = recording.recording_session.owner_leg;
    let segment = first.unwrap_or(Segment {
        start_sample: 0,
        end_sample: 0,
        start: recording.start_time,
        end,
        conn_id: ConnId(0),
        owner,
        participants: vec![owner],
        speakers: Vec::new(),
        channels: Vec::new(),
        paused: false,
        held: false,
        consult: false,
        early: false,
    });
    recording.segments.push(Segment { end_sample: total, end, ..segment });
}
