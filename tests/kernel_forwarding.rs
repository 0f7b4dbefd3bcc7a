//! Forwarding in the kernel over loopback: what the phones hear, what the recorders get, and that nothing goes on that should
//! not. Needs what the feature needs: root, or CAP_BPF and CAP_NET_ADMIN, and Linux 6.6.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command as Program;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use stickytape::bridge::command::{Command, Digit, LatchMode, LegStats, NewLeg, Notice, Playback, PortPair, Remote};
use stickytape::clock;
use stickytape::codec::{Codec, Direction, Payload};
use stickytape::id::{LegId, RecorderId, WorkerId};
use stickytape::net::kernel::Kernel;
use stickytape::rtp::packet::Packet;
use stickytape::runtime::media::{self, Handle, Options, Priority, Worker};
use stickytape::runtime::ring::{self, Frame};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PATIENCE: Duration = Duration::from_secs(10);
/// No packet is under way any more.
const SILENCE: Duration = Duration::from_millis(200);
const EVENT: u8 = 101;

/// Two phones that hear each other through a media thread whose streams the kernel may send on.
struct Call {
    media: Handle,
    ring: ring::Consumer,
    notices: mpsc::Receiver<(WorkerId, Notice)>,
    a: Phone,
    b: Phone,
}

struct Phone {
    leg: LegId,
    socket: UdpSocket,
    anchor: SocketAddr,
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
    len: usize,
}

impl Call {
    fn start(first_port: u16, tapped: bool) -> Self {
        let (sender, notices) = mpsc::channel();
        let (producer, ring) = ring::tap(1 << 22);
        let options = Options {
            worker: WorkerId(0),
            ports: first_port..=first_port + 19,
            cooldown: Duration::from_millis(50),
            batch_interval: Duration::from_millis(1),
            priority: Priority::Normal,
            epoch: clock::now(),
            seed: 1,
        };
        let kernel = Kernel::attach(&["lo".to_owned()]).expect("the kernel takes the program");
        let worker = Worker { options, taps: vec![producer], mixers: vec![], kernel: Some(kernel) };
        let tell = move |worker, notice| drop(sender.send((worker, notice)));
        let media = media::spawn(vec![worker], tell).unwrap().remove(0);
        media.send(Command::BindPorts { address: LOOPBACK, count: 2 });
        let mut pairs = vec![];
        while pairs.len() < 2 {
            if let (_, Notice::PortsBound(bound)) = notices.recv_timeout(PATIENCE).unwrap() {
                pairs.extend(bound);
            }
        }
        let (a, b) = (Phone::new(&media, 1, pairs[0]), Phone::new(&media, 2, pairs[1]));
        let call = Self { media, ring, notices, a, b };
        for leg in [call.a.leg, call.b.leg].into_iter().filter(|_| tapped) {
            call.media.send(Command::Tap { leg, recorders: vec![RecorderId(0)] });
        }
        call.route(Some(call.b.leg));
        call.media.send(Command::Route { from: call.b.leg, to: Some(call.a.leg) });
        call.settle();
        call
    }

    fn route(&self, to: Option<LegId>) {
        self.media.send(Command::Route { from: self.a.leg, to });
    }

    /// Every command before it has been carried out.
    fn settle(&self) {
        self.media.send(Command::Move { leg: self.a.leg, to: WorkerId(0) });
        self.wait(|notice| matches!(notice, Notice::Moved { .. }).then_some(()));
    }

    fn wait<T>(&self, mut pick: impl FnMut(Notice) -> Option<T>) -> T {
        loop {
            let (_, notice) = self.notices.recv_timeout(PATIENCE).expect("a notice in time");
            if let Some(picked) = pick(notice) {
                return picked;
            }
        }
    }

    /// Both talk so many packets, by turns; what each heard.
    fn talk(&mut self, packets: usize) -> [Vec<Packet>; 2] {
        let mut heard = [vec![], vec![]];
        for _ in 0..packets {
            self.a.say(self.a.timestamp as u8);
            heard[1].extend(self.b.hear());
            self.b.say(!self.b.timestamp as u8);
            heard[0].extend(self.a.hear());
        }
        heard
    }

    /// Datagrams that the kernel sent on, once they are accounted for.
    fn passed(&self) -> u64 {
        thread::sleep(Duration::from_millis(50));
        self.media.counters().passed.load(Relaxed)
    }

    /// Waits until so many streams are entered.
    fn streams(&self, wanted: u64) {
        let until = clock::now() + PATIENCE;
        let streams = || self.media.counters().shortcuts.load(Relaxed);
        while streams() != wanted {
            assert!(clock::now() < until, "{} streams, not {wanted}", streams());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// What a recorder got of a leg since the last look: sequence numbers and first bytes of the payloads, and their length.
    fn tapped(&mut self, leg: LegId) -> Vec<(u16, u8, usize)> {
        let mut all = vec![];
        thread::sleep(Duration::from_millis(50));
        let read = |frame: Frame<'_>| match frame {
            Frame::Packet(header, payload) if header.leg == leg => {
                all.push((header.sequence, payload[0], payload.len()))
            }
            Frame::Packet(..) => {}
            Frame::Dropped(_) => panic!("the ring is large enough"),
        };
        self.ring.drain(u64::MAX, read);
        all
    }

    fn end(self) -> [LegStats; 2] {
        [self.a.leg, self.b.leg].map(|leg| {
            self.media.send(Command::RemoveLeg(leg));
            self.wait(|notice| match notice {
                Notice::Removed { leg: gone, stats } if gone == leg => Some(stats),
                _ => None,
            })
        })
    }
}

impl Phone {
    fn new(media: &Handle, leg: u64, pair: PortPair) -> Self {
        let socket = UdpSocket::bind((LOOPBACK, 0)).unwrap();
        let leg = LegId(leg);
        let new = NewLeg { leg, port: pair.id, ssrc: 0xabcd, sequence: 65_500, timestamp: 7, cname: "c".into() };
        media.send(Command::AddLeg(Box::new(new)));
        let payloads = vec![
            Payload { payload_type: 0, codec: Codec::pcmu() },
            Payload { payload_type: EVENT, codec: Codec::telephone_event() },
        ];
        let remote = Remote {
            rtp: Some(socket.local_addr().unwrap()),
            rtcp: None,
            rtcp_mux: false,
            receive: payloads.clone(),
            send: payloads,
            direction: Direction::SendRecv,
            ptime_ms: 20,
            latch: LatchMode::Strict,
        };
        media.send(Command::SetRemote { leg, remote: Box::new(remote) });
        Self { leg, socket, anchor: pair.rtp, sequence: 65_000, timestamp: u32::MAX - 9_000, ssrc: 5, len: 160 }
    }

    /// The next packet of its stream.
    fn say(&mut self, byte: u8) {
        let packet = self.packet(0, byte, self.len);
        self.send(&packet);
        self.timestamp = self.timestamp.wrapping_add(160);
    }

    fn packet(&mut self, payload_type: u8, byte: u8, len: usize) -> Packet {
        let (sequence, timestamp, ssrc) = (self.sequence, self.timestamp, self.ssrc);
        self.sequence = self.sequence.wrapping_add(1);
        let payload = vec![byte; len].into();
        Packet { payload_type, marker: false, sequence, timestamp, ssrc, csrc: vec![], payload }
    }

    fn send(&self, packet: &Packet) {
        self.socket.send_to(&packet.write().unwrap(), self.anchor).unwrap();
    }

    fn hear(&self) -> Option<Packet> {
        self.hear_within(PATIENCE)
    }

    /// It comes from the port that our description names.
    fn hear_within(&self, patience: Duration) -> Option<Packet> {
        let mut buffer = [0; 2_000];
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let (len, from) = self.socket.recv_from(&mut buffer).ok()?;
        assert_eq!(from, self.anchor);
        Some(Packet::read(&buffer[..len]).unwrap())
    }
}

/// One stream: the numbers of a run that goes on, whoever sent it on.
fn assert_one_stream(heard: &[Packet]) {
    for pair in heard.windows(2) {
        let step = (pair[1].sequence.wrapping_sub(pair[0].sequence), pair[1].timestamp.wrapping_sub(pair[0].timestamp));
        assert_eq!(step, (1, 160), "{:?} after {:?}", pair[1], pair[0]);
        assert_eq!((pair[1].ssrc, pair[1].payload_type), (0xabcd, 0));
    }
}

#[test]
fn a_call_goes_on_in_the_kernel_and_both_phones_and_recorders_get_every_packet() {
    for (tapped, len, ports) in [(true, 160, 24_000), (true, 640, 24_020), (false, 160, 24_040)] {
        let mut call = Call::start(ports, tapped);
        (call.a.len, call.b.len) = (len, len);
        let heard = call.talk(700);
        for (heard, first) in heard.iter().zip([!(u32::MAX - 9_000) as u8, (u32::MAX - 9_000) as u8]) {
            assert_eq!(heard.len(), 700);
            assert_one_stream(heard);
            assert!(heard.iter().all(|packet| packet.payload.iter().all(|byte| *byte == packet.payload[0])));
            assert_eq!((heard[0].payload[0], heard[0].payload.len()), (first, len));
            assert!(heard[0].marker && !heard[1].marker, "the first of a run is marked");
        }
        assert!(call.passed() > 1_300, "all but the first of 1,400, not {}", call.passed());
        let said: Vec<(u16, u8, usize)> = (0..700_u32)
            .map(|n| (65_000_u16.wrapping_add(n as u16), (u32::MAX - 9_000).wrapping_add(160 * n) as u8, len))
            .collect();
        let leg = call.a.leg;
        assert_eq!(call.tapped(leg), if tapped { said } else { vec![] }, "{len} bytes each");
        for stats in call.end() {
            assert_eq!((stats.received, stats.sent, stats.lost, stats.refused), (700, 700, 0, 0));
        }
    }
}

#[test]
fn the_numbers_go_on_when_packets_of_ours_or_of_another_source_come_between() {
    let mut call = Call::start(24_060, false);
    let [_, mut heard] = call.talk(50);
    call.streams(2);
    // A digit of ours: what the peer hears meanwhile is ours, and after it the run goes on.
    let press =
        Command::Press { leg: call.b.leg, digit: Digit::of_key('5').unwrap(), length: Duration::from_millis(100) };
    call.media.send(press);
    call.streams(0);
    let digit = std::iter::from_fn(|| call.b.hear_within(SILENCE)).collect::<Vec<_>>();
    assert!(digit.iter().all(|packet| packet.payload_type == EVENT), "{digit:?}");
    let newest = digit.last().expect("packets of the digit").sequence;
    assert_eq!(digit[0].sequence, heard.last().unwrap().sequence.wrapping_add(1));
    heard = call.talk(50)[1].split_off(0);
    assert_eq!(heard[0].sequence, newest.wrapping_add(1));
    assert_one_stream(&heard);
    call.streams(2);
    // Another source at the same address: its first packet is for us to judge.
    let before = call.passed();
    (call.a.ssrc, call.a.sequence, call.a.timestamp) = (77, 9, 9);
    let again = call.talk(50)[1].split_off(0);
    assert_eq!(again[0].sequence, heard.last().unwrap().sequence.wrapping_add(1));
    assert_one_stream(&again);
    assert!(call.passed() > before + 80, "its stream goes on in the kernel too");
}

#[test]
fn nothing_goes_on_past_a_route_that_has_ended_nor_from_a_stranger() {
    let mut call = Call::start(24_080, true);
    call.talk(50);
    call.streams(2);
    let stranger = UdpSocket::bind((LOOPBACK, 0)).unwrap();
    let packet = call.a.packet(0, 99, 160);
    stranger.send_to(&packet.write().unwrap(), call.a.anchor).unwrap();
    assert_eq!(call.b.hear_within(SILENCE), None);
    call.streams(2);
    call.route(None);
    call.streams(0);
    call.a.say(1);
    assert_eq!(call.b.hear_within(SILENCE), None, "nobody hears it");
    let leg = call.a.leg;
    assert_eq!(call.tapped(leg).last().map(|(_, byte, _)| *byte), Some(1), "and it is recorded");
    call.route(Some(call.b.leg));
    // On hold with music: nothing of the other party comes through it.
    call.talk(30);
    call.streams(2);
    let tone = stickytape::audio::signal::ringback(stickytape::audio::signal::Ringback::Europe);
    call.media.send(Command::Play { leg: call.b.leg, what: Playback::Samples { samples: tone, repeat: true } });
    call.streams(0);
    for _ in 0..20 {
        call.a.say(3);
        let music = call.b.hear().expect("music");
        assert!(music.payload.iter().any(|byte| *byte != 3));
    }
    let [a, _] = call.end();
    assert_eq!((a.lost, a.refused), (1, 1), "the stranger took a number of its own");
}

#[test]
fn what_is_not_plainly_the_next_packet_takes_the_other_way() {
    let mut call = Call::start(24_100, true);
    call.talk(150);
    call.streams(2);
    let before = call.passed();
    // A telephone event keeps the stream where it is.
    let event = Packet { payload: vec![5, 10, 0, 160].into(), ..call.a.packet(EVENT, 0, 4) };
    call.a.send(&event);
    assert_eq!(call.b.hear().unwrap().payload_type, EVENT);
    assert_eq!(call.passed(), before);
    // Reordered and repeated ones go on as they come.
    let [first, second] = [0; 2].map(|_| {
        let packet = call.a.packet(0, 8, 160);
        call.a.timestamp = call.a.timestamp.wrapping_add(160);
        packet
    });
    for packet in [&second, &first, &first] {
        call.a.send(packet);
    }
    let order: Vec<u16> = (0..3).map(|_| call.b.hear().unwrap().sequence).collect();
    assert_eq!(order, [order[0], order[0].wrapping_sub(1), order[0].wrapping_sub(1)]);
    assert_eq!(call.passed(), before + 3);
    // A jump of the clock is judged here: silence that was left out keeps its place.
    call.a.timestamp = call.a.timestamp.wrapping_add(24_000);
    for _ in 0..3 {
        call.a.say(1);
        call.b.hear().unwrap();
    }
    assert_eq!(call.passed(), before + 3);
    call.streams(1);
    assert_one_stream(&call.talk(20)[1]);
    // An IP packet in parts is put together first; a packet with an extension has its bare payload sent on.
    call.streams(2);
    let before = call.passed();
    let mut extended = vec![0x90];
    extended.extend(&call.a.packet(0, 6, 160).write().unwrap()[1..12]);
    extended.extend([0xbe, 0xde, 0, 1, 0, 0, 0, 0]);
    extended.extend([6; 160]);
    call.a.socket.send_to(&extended, call.a.anchor).unwrap();
    assert_eq!(call.b.hear().unwrap().payload.len(), 160);
    assert_eq!(call.passed(), before);
}

#[test]
fn the_program_is_what_clang_makes_of_its_source() {
    let folder = tempfile::tempdir().unwrap();
    let object = folder.path().join("forward.bpf.o");
    let run = |program: &str, arguments: &[&str]| {
        let place = concat!(env!("CARGO_MANIFEST_DIR"), "/src/net/kernel");
        let status = Program::new(program).args(arguments).arg(&object).current_dir(place).status();
        assert!(status.unwrap_or_else(|error| panic!("{program}: {error}")).success());
    };
    let include = format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH);
    run(
        "clang",
        &[
            "-O2",
            "-g",
            "-target",
            "bpf",
            "-mcpu=v3",
            "-fdebug-compilation-dir=.",
            &include,
            "-c",
            "forward.bpf.c",
            "-o",
        ],
    );
    run("llvm-strip", &["-g"]);
    let made = std::fs::read(&object).unwrap();
    assert!(made == include_bytes!("../src/net/kernel/forward.bpf.o"), "build src/net/kernel/forward.bpf.o again");
}
