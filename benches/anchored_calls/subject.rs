//! The process under measurement: prints its RTP ports, reads the phones' ports, works until its input ends.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use stickytape::bridge::command::mix::{Hearing, Join, MixCommand, Mixing, RoomDigits};
use stickytape::bridge::command::{Command, LatchMode, NewLeg, Notice, PortPair, Remote};
use stickytape::clock;
use stickytape::codec::{Codec, Direction, Payload};
use stickytape::id::{CallUuid, ConnId, LegId, MixerId, RecorderId, RecordingId, RoomId, WorkerId};
use stickytape::record::mark::{
    Change, Channel, Conversation, Layout, Mark, Member, Role, SessionStart, Side, StopCause,
};
use stickytape::runtime::media::{self, Options, Priority, Worker};
use stickytape::runtime::{mixer, recorder, ring};

use crate::{Case, reflector};

/// What a PCMU leg brings into the tap ring, and how long a stall it shall carry: as the server has it.
const LEG_BYTES_PER_SECOND: usize = 50 * 190;
const RING_SECONDS: usize = 10;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Runs one case.
pub fn run(case: Case, calls: usize, batch: Duration) {
    say("hello");
    match case {
        Case::Reflector => reflect(calls),
        _ => anchor(case, calls, batch),
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").expect("somebody listens");
    out.flush().expect("somebody listens");
}

fn say_ports(ports: impl Iterator<Item = u16>) {
    say(&ports.map(|port| port.to_string()).collect::<Vec<_>>().join(" "));
}

fn phones() -> Vec<SocketAddr> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("the phones' ports");
    line.split_whitespace().map(|port| SocketAddr::new(LOOPBACK, port.parse().expect("a port"))).collect()
}

fn wait_for_end() {
    let mut rest = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut rest);
}

fn reflect(calls: usize) {
    let socket = || {
        let socket = UdpSocket::bind((LOOPBACK, 0)).expect("a port");
        socket.set_nonblocking(true).expect("a socket");
        socket
    };
    let sockets: Vec<UdpSocket> = (0..2 * calls).map(|_| socket()).collect();
    say_ports(sockets.iter().map(|socket| socket.local_addr().expect("bound").port()));
    let peers = phones();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let moved = scope.spawn(|| reflector::run(&sockets, &peers, &stop));
        say("ready");
        wait_for_end();
        stop.store(true, Ordering::Relaxed);
        say(&format!("moved {}", moved.join().expect("the reflector")));
    });
}

fn anchor(case: Case, calls: usize, batch: Duration) {
    let epoch = clock::now();
    let legs = case.parties() * calls;
    let (producer, consumer) = ring::tap(legs * LEG_BYTES_PER_SECOND * RING_SECONDS);
    let (to_mixer, to_media) = mixer::rings(legs * LEG_BYTES_PER_SECOND);
    let (sender, notices) = mpsc::channel();
    let options = Options {
        worker: WorkerId(0),
        ports: 10_000..=32_767,
        cooldown: Duration::from_secs(2),
        batch_interval: batch,
        priority: Priority::Realtime,
        epoch,
        seed: 1,
    };
    let worker = Worker { options, taps: vec![producer], mixers: vec![to_mixer] };
    let mut handles = media::spawn(vec![worker], move |_, notice| drop(sender.send(notice))).expect("a media thread");
    let handle = handles.remove(0);
    handle.send(Command::BindPorts { address: LOOPBACK, count: legs });
    let mut pairs: Vec<PortPair> = Vec::new();
    while pairs.len() < legs {
        match notices.recv().expect("the media thread lives") {
            Notice::PortsBound(bound) => pairs.extend(bound),
            other => panic!("{other:?}"),
        }
    }
    std::thread::spawn(move || notices.into_iter().for_each(drop));
    say_ports(pairs.iter().map(|pair| pair.rtp.port()));
    let peers = phones();
    let tape = case.is_recorded().then(|| Tape::start(epoch, consumer));
    for (n, (pair, peer)) in pairs.iter().zip(&peers).enumerate() {
        let leg = LegId(n as u64);
        let new = NewLeg { leg, port: pair.id, ssrc: n as u32, sequence: 1, timestamp: 1, cname: "bench".into() };
        handle.send(Command::AddLeg(Box::new(new)));
        handle.send(Command::SetRemote { leg, remote: Box::new(remote(*peer)) });
        handle.send(Command::Watch { leg, timeout: Some(Duration::from_secs(60)) });
        if case.is_recorded() {
            handle.send(Command::Tap { leg, recorders: vec![RecorderId(0)] });
        }
    }
    let mixer = case.is_mixed().then(|| meet(legs as u64, epoch, to_media, &handle));
    if mixer.is_none() {
        let route = |n| handle.send(Command::Route { from: LegId(n), to: Some(LegId(n ^ 1)) });
        (0..legs as u64).for_each(route);
    }
    tape.iter().for_each(|tape| tape.begin(case, calls));
    say("ready");
    wait_for_end();
    let counters = handle.counters();
    let sessions = tape.map_or(String::new(), |tape| tape.end(calls));
    mixer.into_iter().for_each(mixer::Handle::join);
    handle.join();
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    say(&format!(
        "sent {} refused {} unsent {} untapped {} passes {}{sessions}",
        count(&counters.sent),
        counters.refused.iter().map(count).sum::<u64>(),
        count(&counters.unsent),
        count(&counters.untapped),
        count(&counters.passes),
    ));
}

/// Rooms of three, all of whom hear each other.
fn meet(legs: u64, epoch: Instant, to_media: mixer::MediaEnds, media: &media::Handle) -> mixer::Handle {
    let max_members = legs as usize;
    let options = mixer::Options { mixer: MixerId(0), priority: Priority::Realtime, epoch, max_members };
    let mixer = mixer::spawn(options, vec![to_media], vec![media.sender()], |_, _| {}).expect("a mixer thread");
    for leg in 0..legs {
        let room = RoomId(leg / 3);
        if leg % 3 == 0 {
            mixer.send(MixCommand::Open { room, sample_rate: 8_000, digits: RoomDigits::Pass });
        }
        let join = Join {
            room,
            leg: LegId(leg),
            worker: WorkerId(0),
            hearing: Hearing::MEMBER,
            listens: true,
            receive: payloads(),
            send: payloads(),
        };
        mixer.send(MixCommand::Join(Box::new(join)));
        let mixing = Some(Mixing { mixer: MixerId(0), listens: true });
        media.send(Command::Mix { leg: LegId(leg), mixing });
    }
    mixer
}

fn payloads() -> Vec<Payload> {
    vec![
        Payload { payload_type: 0, codec: Codec::pcmu() },
        Payload { payload_type: 101, codec: Codec::telephone_event() },
    ]
}

fn remote(peer: SocketAddr) -> Remote {
    Remote {
        rtp: Some(peer),
        rtcp: None,
        rtcp_mux: false,
        receive: payloads(),
        send: payloads(),
        direction: Direction::SendRecv,
        ptime_ms: 20,
        latch: LatchMode::Strict,
    }
}

/// A recorder that writes to a temporary folder.
struct Tape {
    folder: tempfile::TempDir,
    keeper: recorder::Keeper,
    handle: Arc<recorder::RecorderHandle>,
    stop: Arc<AtomicBool>,
}

impl Tape {
    fn start(epoch: Instant, ring: ring::Consumer) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = recorder::keeper::Options { directory: folder.path().to_owned(), min_free_space: 1 << 20 };
        let keeper = recorder::keeper::open(options, |_| {}).expect("a keeper");
        let options = recorder::Options { id: RecorderId(0), epoch, buffer: 256 << 20, max_file_size: 4_000 << 20 };
        let handle = recorder::spawn(options, &keeper, vec![ring], Arc::new(|_, _| {})).expect("a recorder");
        let handle = Arc::new(handle);
        let stop = Arc::new(AtomicBool::new(false));
        let (marked, stopped) = (Arc::clone(&handle), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                marked.watermark(clock::now());
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self { folder, keeper, handle, stop }
    }

    fn begin(&self, case: Case, calls: usize) {
        let payloads: Arc<[Payload]> = payloads().into();
        let parties = case.parties() as u64;
        for leg in 0..parties * calls as u64 {
            let change = Change::Payloads { leg: LegId(leg), payloads: Arc::clone(&payloads) };
            self.handle.mark(Mark { at: clock::now(), change });
        }
        for call in 0..calls as u64 {
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
            let start = SessionStart {
                id: recording(call),
                start_time: clock::wall(),
                call_uuid: CallUuid(recording(call).0),
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
            };
            self.handle.mark(Mark { at: clock::now(), change: Change::Start(Box::new(start)) });
        }
    }

    /// Stops all sessions and waits until they are published; what stands on the disk.
    fn end(self, calls: usize) -> String {
        for call in 0..calls as u64 {
            let change = Change::Stop { id: recording(call), cause: StopCause::Released };
            self.handle.mark(Mark { at: clock::now(), change });
        }
        std::thread::sleep(Duration::from_millis(1_500));
        self.stop.store(true, Ordering::Relaxed);
        while Arc::strong_count(&self.handle) > 1 {
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Some(handle) = Arc::into_inner(self.handle) {
            handle.shutdown();
        }
        self.keeper.shutdown();
        let (files, bytes) = waves(self.folder.path());
        format!(" files {files} MB {}", bytes >> 20)
    }
}

fn recording(call: u64) -> RecordingId {
    RecordingId(uuid::Uuid::from_u128(u128::from(call) + 1))
}

fn waves(folder: &std::path::Path) -> (usize, u64) {
    let mut all = (0, 0);
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            let (files, bytes) = waves(&path);
            all = (all.0 + files, all.1 + bytes);
        } else if path.extension().is_some_and(|extension| extension == "wav") {
            all = (all.0 + 1, all.1 + entry.metadata().map_or(0, |metadata| metadata.len()));
        }
    }
    all
}
