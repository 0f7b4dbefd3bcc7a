//! What records the subject's calls: a recorder, its writer and its publisher as the server has them, in a temporary
//! folder, and what the server's signalling would tell them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use stickytape::clock;
use stickytape::codec::Payload;
use stickytape::id::{CallUuid, ConnId, LegId, RecorderId, RecordingId};
use stickytape::record::mark::{
    Change, Channel, Conversation, Layout, Mark, Member, Notice, Role, SessionStart, Side, StopCause,
};
use stickytape::runtime::{recorder, ring};

use crate::case::Case;
use crate::subject::payloads;

/// Between two watermarks, as the server has it.
const WATERMARK: Duration = Duration::from_millis(25);

/// A recorder that writes to a temporary folder, without recordings.
pub struct Tape {
    folder: tempfile::TempDir,
    keeper: recorder::Keeper,
    handle: recorder::RecorderHandle,
    begun: mpsc::Receiver<()>,
}

impl Tape {
    pub fn start(epoch: Instant, rings: Vec<ring::Consumer>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = recorder::keeper::Options { directory: folder.path().to_owned(), min_free_space: 1 << 20 };
        let keeper = recorder::keeper::open(options, |_| {}).expect("a keeper");
        let options = recorder::Options { id: RecorderId(0), epoch, buffer: 256 << 20, max_file_size: 4_000 << 20 };
        let (sender, begun) = mpsc::channel();
        let tell = move |_, notice| {
            if let Notice::Begun(_) = notice {
                // Nobody counts those of later recordings.
                let _ = sender.send(());
            }
        };
        let handle = recorder::spawn(options, &keeper, rings, Arc::new(tell)).expect("a recorder");
        Self { folder, keeper, handle, begun }
    }

    /// A recording of each call begins; when this returns all have their files. That many begin at once is not what is
    /// measured.
    pub fn begin(self, case: Case, calls: usize) -> Running {
        let payloads: Arc<[Payload]> = payloads().into();
        for leg in 0..(case.parties() * calls) as u64 {
            let change = Change::Payloads { leg: LegId(leg), payloads: Arc::clone(&payloads) };
            self.handle.mark(Mark { at: clock::now(), change });
        }
        let stop = Arc::new(AtomicBool::new(false));
        let mut signaller = Signaller { case, calls: calls as u64, handle: self.handle, begun: 0 };
        (0..calls).for_each(|_| signaller.start());
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("signaller".into());
        let thread = thread.spawn(move || signaller.run(&stopped)).expect("a thread");
        (0..calls).for_each(|_| self.begun.recv().expect("the recorder lives"));
        Running { folder: self.folder, keeper: self.keeper, thread, stop }
    }
}

/// What tells the recorder when calls begin and end, and the time.
struct Signaller {
    case: Case,
    calls: u64,
    handle: recorder::RecorderHandle,
    /// Recordings; recording n is of call n modulo calls.
    begun: u64,
}

impl Signaller {
    /// Until `stop`: then every recording is stopped.
    fn run(mut self, stop: &AtomicBool) {
        let begin = clock::now();
        while !stop.load(Ordering::Relaxed) {
            if let Some(length) = self.case.recording_length() {
                // One after the other, so that in every moment as many end as in any other.
                let due = ((clock::now() - begin).as_secs_f64() / length.as_secs_f64() * self.calls as f64) as u64;
                while self.begun < self.calls + due {
                    self.stop(self.begun - self.calls);
                    self.start();
                }
            }
            self.handle.watermark(clock::now());
            std::thread::sleep(WATERMARK);
        }
        (self.begun - self.calls..self.begun).for_each(|n| self.stop(n));
        // The recorder waits for late packets before it closes a file.
        for _ in 0..1_500 / WATERMARK.as_millis() {
            self.handle.watermark(clock::now());
            std::thread::sleep(WATERMARK);
        }
        self.handle.shutdown();
    }

    fn stop(&self, n: u64) {
        self.handle
            .mark(Mark { at: clock::now(), change: Change::Stop { id: recording(n), cause: StopCause::Released } });
    }

    fn start(&mut self) {
        let start = session(self.case, self.begun % self.calls, recording(self.begun));
        self.handle.mark(Mark { at: clock::now(), change: Change::Start(Box::new(start)) });
        self.begun += 1;
    }
}

/// The recordings of all calls.
pub struct Running {
    folder: tempfile::TempDir,
    keeper: recorder::Keeper,
    thread: std::thread::JoinHandle<()>,
    stop: Arc<AtomicBool>,
}

impl Running {
    /// Stops all recordings and waits until they are published; what stands on the disk.
    pub fn end(self) -> String {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the signaller");
        self.keeper.shutdown();
        let (files, bytes) = crate::files_below(self.folder.path(), "wav");
        format!(" files {files} MB {}", bytes >> 20)
    }
}

fn recording(n: u64) -> RecordingId {
    RecordingId(uuid::Uuid::from_u128(u128::from(n) + 1))
}

/// The first party left, the others right.
fn session(case: Case, call: u64, id: RecordingId) -> SessionStart {
    let member = |leg, role, channel| Member {
        leg: LegId(leg),
        dn: None,
        uri: "sip:bench".into(),
        role,
        channel,
        holds: false,
        held: false,
        muted: false,
    };
    let parties = case.parties() as u64;
    let left = parties * call;
    let mut members = vec![member(left, Role::Customer, Channel::Left)];
    members.extend((left + 1..left + parties).map(|leg| member(leg, Role::Agent, Channel::Right)));
    let conversation = Conversation {
        conn_id: ConnId(call),
        owner: LegId(left),
        members,
        consult: false,
        early: false,
        unbridged: false,
    };
    SessionStart {
        id,
        start_time: clock::wall(),
        call_uuid: CallUuid(id.0),
        caller_phone_number: String::new(),
        dialed_phone_number: String::new(),
        owner_leg: LegId(left),
        owner_dn: None,
        side: Side::Origination,
        trigger: "default".into(),
        rule: "bench".into(),
        layout: if case.is_mixed() { Layout::Mixed } else { Layout::Stereo },
        sample_rate: 8_000,
        conversation,
    }
}
