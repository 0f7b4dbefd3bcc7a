//! A recorder in virtual time: legs that speak known samples, a network that does what a test says, files in memory.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stickytape::clock;
use stickytape::codec::{Codec, Payload};
use stickytape::id::{CallUuid, ConnId, LegId, RecordingId};
use stickytape::record::mark::{
    Change, Channel, Conversation, Layout, Mark, Member, Role, SessionStart, Side, StopCause,
};
use stickytape::record::metadata::Recording;
use stickytape::record::recorder::{FileSpec, Options, Recorder, SessionFiles, Sink};
use stickytape::record::tap::TapHeader;
use uuid::Uuid;

/// D1 and D2 of the specification.
pub const D1: LegId = LegId(1);
pub const D2: LegId = LegId(2);
pub const D3: LegId = LegId(3);

/// Where t0 of the first session lies: not on any grid.
pub const T0: Duration = Duration::from_nanos(2_003_017_233);

/// A packet on its way to us.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Arrival after the epoch, in ns.
    pub arrival: u64,
    pub header: TapHeader,
    pub payload: Vec<u8>,
}

/// What a session has written.
#[derive(Debug, Default)]
pub struct Written {
    pub specs: Vec<FileSpec>,
    /// Interleaved samples per file, over all parts.
    pub files: Vec<Vec<i16>>,
    /// Frames of each part.
    pub parts: Vec<usize>,
    pub running: Option<Recording>,
    pub ended: Option<Recording>,
    /// Frames at each `committed`.
    pub commits: Vec<usize>,
    part_start: usize,
}

impl Written {
    /// A file's samples.
    pub fn file(&self, name: &str) -> &[i16] {
        let i = self.specs.iter().position(|spec| spec.name == name).unwrap_or_else(|| panic!("no {name}"));
        &self.files[i]
    }

    /// The final metadata.
    pub fn recording(&self) -> &Recording {
        self.ended.as_ref().expect("ended")
    }

    fn frames(&self) -> usize {
        self.files[0].len() / usize::from(self.specs[0].channels)
    }
}

/// Files in memory. It checks the order of calls and the equal length of files.
#[derive(Debug, Default)]
pub struct Memory {
    pub sessions: HashMap<RecordingId, Written>,
    /// Keep no samples: hours of them.
    pub discard: bool,
    /// Told of every block of file 0.
    pub total: usize,
}

impl Sink for Memory {
    fn begin(&mut self, files: &SessionFiles, recording: &Recording) {
        let written = Written {
            specs: files.files.clone(),
            files: files.files.iter().map(|_| Vec::new()).collect(),
            running: Some(recording.clone()),
            ..Written::default()
        };
        assert!(self.sessions.insert(files.id, written).is_none(), "begun twice");
    }

    fn add_file(&mut self, id: RecordingId, file: &FileSpec) {
        let written = self.sessions.get_mut(&id).expect("begun");
        written.specs.push(file.clone());
        written.files.push(vec![0; written.part_start + file.silent_frames as usize]);
    }

    fn frames(&mut self, id: RecordingId, file: usize, interleaved: &[i16]) {
        let written = self.sessions.get_mut(&id).expect("begun");
        assert!(written.ended.is_none());
        self.total += interleaved.len();
        if !self.discard {
            written.files[file].extend_from_slice(interleaved);
        }
    }

    fn roll(&mut self, id: RecordingId, files: &[FileSpec]) {
        let written = self.sessions.get_mut(&id).expect("begun");
        assert_eq!(written.specs.len(), files.len());
        let frames = written.frames();
        written.parts.push(frames - written.part_start);
        written.part_start = frames;
    }

    fn committed(&mut self, id: RecordingId) {
        let written = self.sessions.get_mut(&id).expect("begun");
        let frames = written.frames();
        for (spec, file) in written.specs.iter().zip(&written.files) {
            assert_eq!(file.len() / usize::from(spec.channels), frames, "{} has another length", spec.name);
        }
        written.commits.push(frames);
    }

    fn metadata(&mut self, id: RecordingId, recording: &Recording) {
        self.sessions.get_mut(&id).expect("begun").running = Some(recording.clone());
    }

    fn end(&mut self, id: RecordingId, recording: Recording) {
        let written = self.sessions.get_mut(&id).expect("begun");
        assert!(written.ended.replace(recording).is_none(), "ended twice");
    }
}

/// A recorder and its clock.
pub struct Studio {
    pub epoch: Instant,
    /// Time after the epoch, in ns.
    pub now: u64,
    pub recorder: Recorder,
    pub sink: Memory,
    coming: std::collections::VecDeque<Sent>,
    /// How far the watermark lies behind now.
    pub watermark_lag: Duration,
}

pub const MS: u64 = 1_000_000;

impl Studio {
    pub fn new() -> Self {
        Self::with_max_file(1 << 40)
    }

    pub fn with_max_file(max_file_bytes: u64) -> Self {
        let epoch = clock::now();
        Self {
            epoch,
            now: 0,
            recorder: Recorder::new(Options { epoch, max_file_bytes }),
            sink: Memory::default(),
            coming: Default::default(),
            watermark_lag: Duration::from_millis(30),
        }
    }

    pub fn at(&self, after_epoch: Duration) -> Instant {
        self.epoch + after_epoch
    }

    /// Lets time pass in steps of 5 ms.
    pub fn run_until(&mut self, until: Duration) {
        let until = until.as_nanos() as u64;
        while self.now < until {
            self.now = (self.now + 5 * MS).min(until);
            let now = self.epoch + Duration::from_nanos(self.now);
            self.recorder.watermark(now.checked_sub(self.watermark_lag).unwrap_or(self.epoch).max(self.epoch));
            while self.coming.front().is_some_and(|sent| sent.arrival < self.now) {
                let sent = self.coming.pop_front().unwrap();
                self.recorder.packet(&sent.header, &sent.payload);
            }
            if self.recorder.next_commit().is_some_and(|due| due <= now) {
                self.recorder.commit(now, &mut self.sink);
            }
        }
    }

    /// Packets that will arrive.
    pub fn send(&mut self, packets: Vec<Sent>) {
        self.coming.extend(packets);
        self.coming.make_contiguous().sort_by_key(|sent| sent.arrival);
    }

    pub fn mark(&mut self, after_epoch: Duration, change: Change) {
        self.recorder.mark(Mark { at: self.epoch + after_epoch, change });
    }

    /// Makes a leg known with PCMU 0, PCMA 8, L16/16000 96, CN 13, telephone-event 101.
    pub fn leg(&mut self, leg: LegId) {
        self.mark(Duration::ZERO, Change::Payloads { leg, payloads: payloads() });
    }

    pub fn start(&mut self, start: SessionStart) {
        self.mark(T0, Change::Start(Box::new(start)));
    }

    pub fn stop(&mut self, after_epoch: Duration, id: RecordingId, cause: StopCause) {
        self.mark(after_epoch, Change::Stop { id, cause });
    }

    pub fn written(&self, id: RecordingId) -> &Written {
        &self.sink.sessions[&id]
    }
}

pub fn payloads() -> Arc<[Payload]> {
    [
        (0, Codec::pcmu()),
        (8, Codec::pcma()),
        (13, Codec::new("CN", 8_000, 1)),
        (96, Codec::new("L16", 16_000, 1)),
        (97, Codec::new("L16", 8_000, 1)),
        (101, Codec::telephone_event()),
    ]
    .into_iter()
    .map(|(payload_type, codec)| Payload { payload_type, codec })
    .collect::<Vec<_>>()
    .into()
}

pub fn member(leg: LegId, role: Role) -> Member {
    Member {
        leg,
        dn: (role != Role::Customer).then(|| format!("20{leg}")),
        uri: format!("sip:{leg}@localhost"),
        role,
        channel: if leg == D1 { Channel::Left } else { Channel::Right },
        holds: false,
        held: false,
        muted: false,
    }
}

pub fn conversation(members: Vec<Member>) -> Conversation {
    Conversation { conn_id: ConnId(1), owner: D1, members, consult: false, early: false, unbridged: false }
}

/// D1 and D2 talk.
pub fn two() -> Conversation {
    conversation(vec![member(D1, Role::Customer), member(D2, Role::Agent)])
}

pub fn id(n: u128) -> RecordingId {
    RecordingId(Uuid::from_u128(n))
}

pub fn session(layout: Layout, sample_rate: u32, conversation: Conversation) -> SessionStart {
    SessionStart {
        id: id(1),
        start_time: "2026-11-20T09:00:00.000Z".parse().unwrap(),
        call_uuid: CallUuid(Uuid::from_u128(17)),
        caller_phone_number: "100".into(),
        dialed_phone_number: "200".into(),
        owner_leg: D1,
        owner_dn: None,
        side: Side::Origination,
        trigger: "default".into(),
        rule: "the origination side".into(),
        layout,
        sample_rate,
        conversation,
    }
}

/// One RTP sender: L16 at 8,000 Hz, so that samples come out as they went in.
#[derive(Debug, Clone)]
pub struct Sender {
    pub leg: LegId,
    pub ssrc: u32,
    pub sequence: u16,
    pub timestamp: u32,
    pub payload_type: u8,
    /// Samples per packet at 8,000 Hz.
    pub frame: usize,
}

impl Sender {
    pub fn new(leg: LegId) -> Self {
        Self {
            leg,
            ssrc: 0x1000 + leg.0 as u32,
            sequence: 65_500,
            timestamp: u32::MAX - 7_000,
            payload_type: 97,
            frame: 160,
        }
    }

    /// Packets of `samples`, the first arriving at `from` after the epoch.
    pub fn packets(&mut self, from: Duration, samples: &[i16]) -> Vec<Sent> {
        let mut sent = Vec::new();
        for (i, chunk) in samples.chunks(self.frame).enumerate() {
            let arrival = from.as_nanos() as u64 + (i * self.frame) as u64 * 125_000;
            let payload: Vec<u8> = chunk.iter().flat_map(|sample| sample.to_be_bytes()).collect();
            sent.push(Sent { arrival, header: self.header(arrival, payload.len()), payload });
            self.sequence = self.sequence.wrapping_add(1);
            self.timestamp = self.timestamp.wrapping_add(chunk.len() as u32);
        }
        sent
    }

    pub fn header(&self, arrival: u64, len: usize) -> TapHeader {
        TapHeader {
            leg: self.leg,
            arrival_ns: arrival,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
            sequence: self.sequence,
            len: len as u16,
            payload_type: self.payload_type,
            marker: false,
        }
    }

    /// Time passes without packets.
    pub fn pause(&mut self, samples: u32) {
        self.timestamp = self.timestamp.wrapping_add(samples);
    }
}

/// Lets each packet arrive later by what `delay` (ms, of its number) says.
pub fn delayed(mut packets: Vec<Sent>, mut delay: impl FnMut(usize) -> f64) -> Vec<Sent> {
    for (i, sent) in packets.iter_mut().enumerate() {
        sent.arrival += (delay(i) * 1e6) as u64;
        sent.header.arrival_ns = sent.arrival;
    }
    packets.sort_by_key(|sent| sent.arrival);
    packets
}

/// Lets the packets arrive as from a sender whose clock is `ppm` fast.
pub fn skewed(mut packets: Vec<Sent>, ppm: f64) -> Vec<Sent> {
    let first = packets.first().map_or(0, |sent| sent.arrival);
    for sent in &mut packets {
        sent.arrival = first + ((sent.arrival - first) as f64 / (1.0 + ppm * 1e-6)) as u64;
        sent.header.arrival_ns = sent.arrival;
    }
    packets
}

/// Samples that are never zero and differ from each other nearby.
pub fn speech(seed: i32, len: usize) -> Vec<i16> {
    (0..len as i32).map(|i| (1_000 + (i.wrapping_mul(7_919) + seed * 131).rem_euclid(12_000)) as i16).collect()
}

/// `len` samples of silence with a burst of 100 ms every `every` samples, the first at `first`. Bursts are noise around
/// ±8,000.
pub fn bursts(len: usize, first: usize, every: usize) -> (Vec<i16>, Vec<usize>) {
    let mut samples = vec![0; len];
    let mut onsets = Vec::new();
    let mut at = first;
    while at + 800 <= len {
        onsets.push(at);
        for i in 0..800_i32 {
            samples[at + i as usize] =
                if (i.wrapping_mul(i).wrapping_mul(40_503) >> 7) & 1 == 0 { 8_000 } else { -8_000 };
        }
        at += every;
    }
    (samples, onsets)
}

/// Where sound begins after at least 50 ms of silence.
pub fn onsets(samples: &[i16]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut quiet = 400;
    for (i, sample) in samples.iter().enumerate() {
        if sample.unsigned_abs() > 2_000 {
            if quiet >= 400 {
                found.push(i);
            }
            quiet = 0;
        } else {
            quiet += 1;
        }
    }
    found
}

/// The index in a session's file of what arrives at `after_epoch`.
pub fn sample_at(after_epoch: Duration, rate: u32) -> i64 {
    let ns = after_epoch.as_nanos() as i128 - T0.as_nanos() as i128;
    ((ns * i128::from(rate) + 500_000_000).div_euclid(1_000_000_000)) as i64
}
