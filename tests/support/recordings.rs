//! Recordings for tests of the disk: metadata of two parties, and a session that writes what a recorder would.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use stickytape::disk::active::Active;
use stickytape::disk::store::{Error, Store};
use stickytape::disk::{Disk, wav};
use stickytape::id::{CallUuid, ConnId, LegId, RecordingId};
use stickytape::record::mark::{Role, Side, StopCause};
use stickytape::record::metadata::{
    FileKind, MEDIA_TYPE, MediaFile, Participant, Recording, RecordingSession, Segment, State, time_of_sample,
};
use stickytape::record::recorder::{FileSpec, SessionFiles};
use uuid::Uuid;

pub const RATE: u32 = 8_000;
/// Frames between two commits; few, for a test may live a thousand lives.
pub const STEP: u64 = 250;

pub fn store(disk: impl Disk) -> Arc<Store> {
    Arc::new(Store::new(Arc::new(disk), PathBuf::from("/recordings")))
}

/// Metadata of a session that has begun: two parties, no file yet.
pub fn recording(number: u128, start: &str) -> Recording {
    let start_time: Timestamp = start.parse().unwrap();
    let party = |leg, dn: Option<&str>, role| Participant {
        leg_id: LegId(leg),
        dn: dn.map(str::to_owned),
        uri: format!("sip:{leg}@127.0.0.1"),
        role,
        joined: start_time,
        left: None,
        leave_cause: None,
    };
    Recording {
        id: RecordingId(Uuid::from_u128(number)),
        call_uuid: CallUuid(Uuid::from_u128(number + (1 << 64))),
        caller_phone_number: "+4930123".into(),
        dialed_phone_number: "2001".into(),
        start_time,
        stop_time: None,
        duration_ms: None,
        recording_session: RecordingSession {
            owner_dn: Some("2001".into()),
            owner_leg: LegId(2),
            side: Side::Termination,
            trigger: "dn".into(),
            rule: "DN 2001 says record = true".into(),
            state: State::Recording,
            stop_cause: None,
        },
        participants: vec![party(1, None, Role::Customer), party(2, Some("2001"), Role::Agent)],
        segments: vec![segment(start_time, 0, 0)],
        media_files: Vec::new(),
        media: Vec::new(),
        gaps: Vec::new(),
        masks: Vec::new(),
        events: Vec::new(),
        warnings: Vec::new(),
    }
}

pub fn segment(start_time: Timestamp, from: u64, to: u64) -> Segment {
    Segment {
        start_sample: from,
        end_sample: to,
        start: time_of_sample(start_time, from, RATE),
        end: time_of_sample(start_time, to, RATE),
        conn_id: ConnId(1),
        owner: LegId(2),
        participants: vec![LegId(1), LegId(2)],
        speakers: vec![LegId(1), LegId(2)],
        channels: vec![vec![LegId(1), LegId(2)]],
        paused: false,
        held: false,
        consult: false,
        early: false,
    }
}

/// What the sample at `frame` of the file with this index is: never 0, so that silence is told from sound.
pub fn sample(file: usize, frame: u64) -> i16 {
    ((frame % 20_000) as i16 + 1) * if file == 0 { 1 } else { -1 }
}

/// A session as the recorder drives it: `mixed.wav`, and `supervisor-1.wav` from the beginning.
pub struct Session {
    pub active: Active,
    pub recording: Recording,
    pub frames: u64,
    stems: Vec<(&'static str, FileKind)>,
    part: u32,
    part_start: u64,
}

impl Session {
    pub fn begin(store: &Arc<Store>, recording: Recording) -> Result<Self, Error> {
        let stems = vec![("mixed", FileKind::Mixed), ("supervisor-1", FileKind::Supervisor)];
        let mut session = Parts { stems, part: 1, part_start: 0 };
        let mut recording = recording;
        recording.media_files = session.media_files();
        let files = SessionFiles { id: recording.id, sample_rate: RATE, files: session.specs() };
        let active = Active::begin(store.clone(), &files, recording.clone())?;
        let Parts { stems, part, part_start } = std::mem::take(&mut session);
        Ok(Self { active, recording, frames: 0, stems, part, part_start })
    }

    /// One commit's worth of sound.
    pub fn step(&mut self) -> Result<(), Error> {
        for file in 0..self.stems.len() {
            let sound: Vec<i16> = (self.frames..self.frames + STEP).map(|frame| sample(file, frame)).collect();
            self.active.append(file, &sound)?;
        }
        self.frames += STEP;
        self.active.commit()
    }

    /// Goes on in the next part.
    pub fn roll(&mut self) -> Result<(), Error> {
        let mut parts = Parts { stems: self.stems.clone(), part: self.part + 1, part_start: self.frames };
        self.active.roll(&parts.specs())?;
        (self.part, self.part_start) = (parts.part, parts.part_start);
        self.recording.media_files.extend(parts.media_files());
        self.active.set_metadata(self.recording.clone());
        self.active.commit()
    }

    /// A new segment from here.
    pub fn change(&mut self) {
        let start = self.recording.start_time;
        if let Some(last) = self.recording.segments.last_mut() {
            last.end_sample = self.frames;
            last.end = time_of_sample(start, self.frames, RATE);
        }
        self.recording.segments.push(segment(start, self.frames, self.frames));
        self.active.set_metadata(self.recording.clone());
    }

    pub fn end(mut self, cause: StopCause) -> Result<Recording, Error> {
        let (start, frames) = (self.recording.start_time, self.frames);
        let end = time_of_sample(start, frames, RATE);
        if let Some(last) = self.recording.segments.last_mut() {
            last.end_sample = frames;
            last.end = end;
        }
        for participant in &mut self.recording.participants {
            participant.left = Some(end);
            participant.leave_cause = Some("released".into());
        }
        self.recording.stop_time = Some(end);
        self.recording.duration_ms = Some(frames * 1_000 / u64::from(RATE));
        self.recording.recording_session.state = State::Complete;
        self.recording.recording_session.stop_cause = Some(cause);
        self.active.close(self.recording)
    }
}

#[derive(Default)]
struct Parts {
    stems: Vec<(&'static str, FileKind)>,
    part: u32,
    part_start: u64,
}

impl Parts {
    fn specs(&self) -> Vec<FileSpec> {
        let spec = |&(stem, kind): &(&str, FileKind)| FileSpec {
            name: wav::file_name(stem, self.part),
            kind,
            channels: 1,
            silent_frames: 0,
        };
        self.stems.iter().map(spec).collect()
    }

    fn media_files(&mut self) -> Vec<MediaFile> {
        let file = |&(stem, kind): &(&str, FileKind)| MediaFile {
            file: wav::file_name(stem, self.part),
            part: self.part,
            start_sample: self.part_start,
            kind,
            participant: None,
            media_type: MEDIA_TYPE.into(),
            channels: 1,
            sample_rate: RATE,
            samples: 0,
            size: None,
            sha256: None,
        };
        self.stems.iter().map(file).collect()
    }
}
