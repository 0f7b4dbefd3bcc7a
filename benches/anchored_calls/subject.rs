//! The process under measurement: prints its RTP ports, reads the phones' ports, works until its input ends.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use stickytape::bridge::command::mix::{Hearing, Join, MixCommand, Mixing, RoomDigits};
use stickytape::bridge::command::{Command, LatchMode, NewLeg, Notice, PortPair, Remote};
use stickytape::clock;
use stickytape::codec::{Codec, Direction, Payload};
use stickytape::id::{LegId, MixerId, RecorderId, RoomId, WorkerId};
use stickytape::net::kernel::Kernel;
use stickytape::runtime::media::{self, Options, Priority, Worker};
use stickytape::runtime::{mixer, ring};

use crate::case::{self, Case};
use crate::reflector;
use crate::tape::{self, Tape};

/// What a PCMU leg brings into the tap ring, and how long a stall it shall carry: as the server has it.
const LEG_BYTES_PER_SECOND: usize = 50 * 190;
const RING_SECONDS: usize = 10;

/// Receive buffer of a socket that all legs share, in bytes.
const SHARED_BUFFER: usize = 64 << 20;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Runs one case.
pub fn run(case: Case, calls: usize, batch: Duration) {
    say("hello");
    match case {
        Case::Reflector => reflect(2 * calls, calls),
        Case::ReflectorShared => reflect(1, calls),
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

/// With so many sockets for all legs: one for each, or one.
fn reflect(sockets: usize, calls: usize) {
    let socket = || {
        let socket = UdpSocket::bind((LOOPBACK, 0)).expect("a port");
        socket.set_nonblocking(true).expect("a socket");
        socket
    };
    let sockets: Vec<UdpSocket> = (0..sockets).map(|_| socket()).collect();
    if let [shared] = &sockets[..] {
        // As much as all legs' own buffers hold together, or as much as we may have.
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(shared, SHARED_BUFFER);
    }
    let ports = sockets.iter().map(|socket| socket.local_addr().expect("bound").port());
    say_ports(ports.cycle().take(2 * calls));
    let peers = phones();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let moved = scope.spawn(|| match &sockets[..] {
            [one] => reflector::run_shared(one, &peers, &stop),
            all => reflector::run(all, &peers, &stop),
        });
        say("ready");
        wait_for_end();
        stop.store(true, Ordering::Relaxed);
        say(&format!("moved {}", moved.join().expect("the reflector")));
    });
}

fn anchor(case: Case, calls: usize, batch: Duration) {
    let epoch = clock::now();
    let legs = case.parties() * calls;
    let Media { handles, pairs, taps, to_media } = Media::start(case, legs, batch, epoch);
    say_ports(pairs.iter().map(|(_, pair)| pair.rtp.port()));
    let peers = phones();
    let tape = case.is_recorded().then(|| Tape::start(epoch, taps));
    let to = |leg: usize, command| handles[pairs[leg].0].send(command);
    for (n, ((_, pair), peer)) in pairs.iter().zip(&peers).enumerate() {
        let leg = LegId(n as u64);
        let new = NewLeg { leg, port: pair.id, ssrc: n as u32, sequence: 1, timestamp: 1, cname: "bench".into() };
        to(n, Command::AddLeg(Box::new(new)));
        to(n, Command::SetRemote { leg, remote: Box::new(remote(*peer)) });
        to(n, Command::Watch { leg, timeout: Some(Duration::from_secs(60)) });
        if case.is_recorded() {
            to(n, Command::Tap { leg, recorders: vec![RecorderId(0)] });
        }
    }
    let mixer = case.is_conference().then(|| meet(legs as u64, epoch, to_media, &handles[0]));
    if mixer.is_none() {
        let route = |n: usize| to(n, Command::Route { from: LegId(n as u64), to: Some(LegId(n as u64 ^ 1)) });
        (0..legs).for_each(route);
    }
    let tape = tape.map(|tape| tape.begin(case, calls));
    say("ready");
    wait_for_end();
    let sessions = tape.map_or(String::new(), tape::Running::end);
    mixer.into_iter().for_each(mixer::Handle::join);
    say(&format!("{}{sessions}", told(handles)));
}

/// What the media threads counted; they end.
fn told(handles: Vec<media::Handle>) -> String {
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let [mut sent, mut refused, mut unsent, mut untapped, mut passes, mut by_kernel] = [0; 6];
    for handle in handles {
        let counters = handle.counters();
        sent += count(&counters.sent);
        refused += counters.refused.iter().map(count).sum::<u64>();
        unsent += count(&counters.unsent);
        untapped += count(&counters.untapped);
        passes += count(&counters.passes);
        by_kernel += count(&counters.passed);
        handle.join();
    }
    format!("sent {sent} by-kernel {by_kernel} refused {refused} unsent {unsent} untapped {untapped} passes {passes}")
}

/// The media threads, with a port pair for each leg: both legs of a call have theirs in one thread.
struct Media {
    handles: Vec<media::Handle>,
    /// The thread and the pair of each leg.
    pairs: Vec<(usize, PortPair)>,
    /// What the threads hand to a recorder.
    taps: Vec<ring::Consumer>,
    /// A mixer's ends of the first thread's rings.
    to_media: mixer::MediaEnds,
}

impl Media {
    fn start(case: Case, legs: usize, batch: Duration, epoch: Instant) -> Self {
        let threads = case.workers();
        let (to_mixer, to_media) = mixer::rings(legs * LEG_BYTES_PER_SECOND);
        let (mut taps, mut mixers) = (vec![], Some(to_mixer));
        let mut workers = vec![];
        for (n, ports) in media::split_ports(10_000..=32_767, threads).into_iter().enumerate() {
            let (producer, consumer) = ring::tap(legs / threads * LEG_BYTES_PER_SECOND * RING_SECONDS);
            taps.push(consumer);
            let options = Options {
                worker: WorkerId(n as u8),
                ports,
                cooldown: Duration::from_secs(2),
                batch_interval: batch,
                priority: Priority::Realtime,
                epoch,
                seed: 1,
            };
            let kernel = case
                .is_by_kernel()
                .then(|| Kernel::attach(&[case::LOOPBACK.to_owned()]).expect("a kernel that forwards"));
            let mixers = mixers.take().into_iter().collect();
            workers.push(Worker { options, taps: vec![producer], mixers, kernel });
        }
        let (sender, notices) = mpsc::channel();
        let tell = move |worker, notice| drop(sender.send((worker, notice)));
        let handles = media::spawn(workers, tell).expect("media threads");
        let calls_of = |thread: usize| (0..legs / case.parties()).filter(|call| call % threads == thread).count();
        for (thread, handle) in handles.iter().enumerate() {
            handle.send(Command::BindPorts { address: LOOPBACK, count: calls_of(thread) * case.parties() });
        }
        let mut bound: Vec<Vec<PortPair>> = vec![vec![]; threads];
        while bound.iter().map(Vec::len).sum::<usize>() < legs {
            match notices.recv().expect("the media threads live") {
                (WorkerId(worker), Notice::PortsBound(pairs)) => bound[usize::from(worker)].extend(pairs),
                other => panic!("{other:?}"),
            }
        }
        std::thread::spawn(move || notices.into_iter().for_each(drop));
        let thread_of = |leg: usize| leg / case.parties() % threads;
        let pairs = (0..legs).map(|leg| (thread_of(leg), bound[thread_of(leg)].remove(0))).collect();
        Self { handles, pairs, taps, to_media }
    }
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

pub fn payloads() -> Vec<Payload> {
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
