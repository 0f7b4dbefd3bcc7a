//! A live recorder: its threads, a tap, and callers that send packets in real time.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use stickytape::clock;
use stickytape::codec::{Codec, Payload};
use stickytape::disk::floor::Room;
use stickytape::disk::{Disk, RealDisk};
use stickytape::id::{CallUuid, ConnId, LegId, RecorderId, RecordingId};
use stickytape::record::mark::{
    Change, Channel, Conversation, Layout, Mark, Member, Notice, Role, SessionStart, Side, StopCause,
};
use stickytape::record::tap::TapHeader;
use stickytape::runtime::recorder::{self, Keeper, RecorderHandle, keeper};
use stickytape::runtime::ring;
use uuid::Uuid;

/// Frames of PCMU in a packet of 20 ms.
const FRAME: u32 = 160;
/// What callers say: a sample that no silence has (µ-law of about 4,000).
pub const LOUD: u8 = 0xa0;

pub struct Live {
    pub keeper: Keeper,
    pub recorder: RecorderHandle,
    pub notices: Arc<Mutex<Vec<Notice>>>,
    tap: ring::Producer,
    epoch: Instant,
    calls: Vec<Call>,
    /// Packets sent on each leg so far.
    sent: u64,
    began: Instant,
}

#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub id: RecordingId,
    pub start: Timestamp,
    legs: [LegId; 2],
}

impl Live {
    pub fn start(directory: &Path, min_free_space: u64, buffer: u64) -> Self {
        Self::start_on(Arc::new(RealDisk), directory, min_free_space, buffer)
    }

    pub fn start_on(disk: Arc<dyn Disk>, directory: &Path, min_free_space: u64, buffer: u64) -> Self {
        Self::start_rolling(disk, directory, min_free_space, buffer, 1 << 30)
    }

    pub fn start_rolling(
        disk: Arc<dyn Disk>,
        directory: &Path,
        min_free_space: u64,
        buffer: u64,
        max_file_size: u64,
    ) -> Self {
        let options = keeper::Options { directory: directory.to_owned(), min_free_space };
        let keeper = keeper::open_on(disk, options, |_: Room| {}).unwrap();
        let (tap, ring) = ring::tap(1 << 20);
        let notices = Arc::new(Mutex::new(Vec::new()));
        let heard = notices.clone();
        let epoch = clock::now();
        let options = recorder::Options { id: RecorderId(0), epoch, buffer, max_file_size };
        let note: recorder::Notices = Arc::new(move |_, notice| heard.lock().unwrap().push(notice));
        let recorder = recorder::spawn(options, &keeper, vec![ring], note).unwrap();
        Self { keeper, recorder, notices, tap, epoch, calls: Vec::new(), sent: 0, began: epoch }
    }

    /// Begins a recorded call of two parties.
    pub fn call(&mut self, layout: Layout) -> Call {
        let number = self.calls.len() as u64;
        let legs = [LegId(2 * number + 1), LegId(2 * number + 2)];
        let at = clock::now();
        let start = clock::wall();
        for leg in legs {
            let payloads = [Payload { payload_type: 0, codec: Codec::pcmu() }].into();
            self.recorder.mark(Mark { at, change: Change::Payloads { leg, payloads } });
        }
        let member = |leg, channel| Member {
            leg,
            dn: None,
            uri: "sip:someone@127.0.0.1".into(),
            role: Role::Customer,
            channel,
            holds: false,
            held: false,
            muted: false,
        };
        let id = RecordingId(Uuid::from_u128(rand::random()));
        let session = SessionStart {
            id,
            start_time: start,
            call_uuid: CallUuid(Uuid::from_u128(u128::from(number) + 1)),
            caller_phone_number: "100".into(),
            dialed_phone_number: "200".into(),
            owner_leg: legs[0],
            owner_dn: None,
            side: Side::Origination,
            trigger: "default".into(),
            rule: "default = origination".into(),
            layout,
            sample_rate: 8_000,
            conversation: Conversation {
                conn_id: ConnId(number + 1),
                owner: legs[0],
                members: vec![member(legs[0], Channel::Left), member(legs[1], Channel::Right)],
                consult: false,
                early: false,
                unbridged: false,
            },
        };
        self.recorder.mark(Mark { at, change: Change::Start(Box::new(session)) });
        let call = Call { id, start, legs };
        self.calls.push(call);
        if self.sent == 0 {
            self.began = at;
        }
        call
    }

    /// Every party of every call sends its packets for so long, in real time.
    pub fn speak(&mut self, length: Duration) {
        let packets = (length.as_millis() / 20) as u64;
        for _ in 0..packets {
            let due = self.began + Duration::from_millis(20) * self.sent as u32;
            std::thread::sleep(due.saturating_duration_since(clock::now()));
            let arrival_ns = clock::now().duration_since(self.epoch).as_nanos() as u64;
            for leg in self.calls.iter().flat_map(|call| call.legs) {
                let header = TapHeader {
                    leg,
                    arrival_ns,
                    timestamp: self.sent as u32 * FRAME,
                    ssrc: leg.0 as u32,
                    sequence: self.sent as u16,
                    len: 0,
                    payload_type: 0,
                    marker: self.sent == 0,
                };
                assert!(self.tap.push(header, &[LOUD; FRAME as usize]), "the recorder does not read its ring");
            }
            self.tap.publish();
            self.sent += 1;
            self.recorder.watermark(clock::now());
        }
    }

    pub fn stop(&mut self, call: Call, cause: StopCause) {
        let mark = Mark { at: clock::now(), change: Change::Stop { id: call.id, cause } };
        self.recorder.mark(mark);
        self.recorder.watermark(clock::now());
    }

    pub fn told(&self, wanted: impl Fn(&Notice) -> bool) -> bool {
        self.notices.lock().unwrap().iter().any(wanted)
    }

    /// Waits until something is told; callers are silent meanwhile.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&Notice) -> bool) {
        for _ in 0..500 {
            if self.told(&wanted) {
                return;
            }
            self.recorder.watermark(clock::now());
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("never told: {what}; but {:?}", self.notices.lock().unwrap());
    }

    /// As the server stops.
    pub fn shutdown(self) {
        drop(self.tap);
        self.recorder.shutdown();
        self.keeper.shutdown();
    }
}
