//! Media threads with real sockets on loopback: what a phone sends reaches the other phone, the recorder's ring and,
//! when a leg moves, the other thread.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use stickytape::bridge::command::{Command, Digit, LatchMode, LegStats, NewLeg, Notice, Playback, PortPair, Remote};
use stickytape::codec::{Codec, Direction, Payload};
use stickytape::id::{LegId, RecorderId, WorkerId};
use stickytape::rtp::packet::Packet;
use stickytape::runtime::media::{self, Handle, Options, Priority, Worker};
use stickytape::runtime::ring::{self, Frame};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PATIENCE: Duration = Duration::from_secs(10);

/// Media threads with one recorder's ring each.
struct Threads {
    handles: Vec<Handle>,
    rings: Vec<ring::Consumer>,
    notices: mpsc::Receiver<(WorkerId, Notice)>,
}

impl Threads {
    fn start(count: usize, ports: std::ops::RangeInclusive<u16>, batch_interval: Duration) -> Self {
        let (sender, notices) = mpsc::channel();
        let (mut workers, mut rings) = (vec![], vec![]);
        for (n, ports) in media::split_ports(ports, count).into_iter().enumerate() {
            let (producer, consumer) = ring::tap(1 << 20);
            let options = Options {
                worker: WorkerId(n as u8),
                ports,
                cooldown: Duration::from_millis(50),
                batch_interval,
                priority: Priority::Normal,
                epoch: stickytape::clock::now(),
                seed: n as u64,
            };
            workers.push(Worker { options, taps: vec![producer], mixers: vec![], kernel: None });
            rings.push(consumer);
        }
        let handles = media::spawn(workers, move |worker, notice| drop(sender.send((worker, notice)))).unwrap();
        Self { handles, rings, notices }
    }

    /// The next notice that `pick` takes; others are passed over.
    fn wait<T>(&self, mut pick: impl FnMut(WorkerId, Notice) -> Option<T>) -> T {
        loop {
            let (worker, notice) = self.notices.recv_timeout(PATIENCE).expect("a notice in time");
            if let Some(picked) = pick(worker, notice) {
                return picked;
            }
        }
    }

    fn bind(&self, worker: usize, count: usize) -> Vec<PortPair> {
        self.handles[worker].send(Command::BindPorts { address: LOOPBACK, count });
        let mut pairs = vec![];
        while pairs.len() < count {
            pairs.extend(self.wait(|_, notice| match notice {
                Notice::PortsBound(pairs) => Some(pairs),
                Notice::PortsFailed { missing, .. } => panic!("{missing} are missing"),
                _ => None,
            }));
        }
        pairs
    }

    /// A leg on `worker` with a phone of its own.
    fn phone(&self, worker: usize, leg: u64) -> Phone {
        let pair = self.bind(worker, 1)[0];
        let socket = UdpSocket::bind((LOOPBACK, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let leg = LegId(leg);
        let new = NewLeg { leg, port: pair.id, ssrc: 1, sequence: 1, timestamp: 0, cname: "c".into() };
        self.handles[worker].send(Command::AddLeg(Box::new(new)));
        let payloads = vec![Payload { payload_type: 0, codec: Codec::pcmu() }];
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
        self.handles[worker].send(Command::SetRemote { leg, remote: Box::new(remote) });
        self.handles[worker].send(Command::Tap { leg, recorders: vec![RecorderId(0)] });
        Phone { leg, socket, anchor: pair.rtp, sequence: 0 }
    }

    fn bridge(&self, worker: usize, a: &Phone, b: &Phone) {
        self.handles[worker].send(Command::Route { from: a.leg, to: Some(b.leg) });
        self.handles[worker].send(Command::Route { from: b.leg, to: Some(a.leg) });
        // A move to where it is does nothing but answer: every command before it has been carried out.
        self.handles[worker].send(Command::Move { leg: a.leg, to: WorkerId(worker as u8) });
        self.wait(|_, notice| matches!(notice, Notice::Moved { leg } if leg == a.leg).then_some(()));
    }

    fn removed(&self, leg: LegId) -> LegStats {
        self.wait(|_, notice| match notice {
            Notice::Removed { leg: l, stats } if l == leg => Some(stats),
            _ => None,
        })
    }
}

struct Phone {
    leg: LegId,
    socket: UdpSocket,
    anchor: SocketAddr,
    sequence: u16,
}

impl Phone {
    fn say(&mut self, byte: u8) {
        let (sequence, timestamp) = (self.sequence, 160 * u32::from(self.sequence));
        let payload = vec![byte; 160].into();
        let packet = Packet { payload_type: 0, marker: false, sequence, timestamp, ssrc: 5, csrc: vec![], payload };
        self.socket.send_to(&packet.write().unwrap(), self.anchor).unwrap();
        self.sequence += 1;
    }

    fn hear(&self) -> (Packet, SocketAddr) {
        let mut buffer = [0; 2_000];
        let (len, from) = self.socket.recv_from(&mut buffer).expect("a packet in time");
        (Packet::read(&buffer[..len]).unwrap(), from)
    }
}

#[test]
fn a_call_is_relayed_both_ways_and_tapped() {
    let mut threads = Threads::start(1, 23_000..=23_019, Duration::from_millis(1));
    let (mut a, mut b) = (threads.phone(0, 1), threads.phone(0, 2));
    threads.bridge(0, &a, &b);
    for n in 0..50 {
        a.say(n);
        b.say(100 + n);
        let (heard, from) = b.hear();
        assert_eq!((heard.payload[0], from), (n, b.anchor), "from the port that our description names");
        assert_eq!(a.hear().0.payload[0], 100 + n);
    }
    threads.handles[0].send(Command::RemoveLeg(a.leg));
    let stats = threads.removed(a.leg);
    assert_eq!((stats.received, stats.sent, stats.refused), (50, 50, 0));
    threads.handles.remove(0).join();
    assert_eq!(threads.removed(b.leg).received, 50, "a thread that stops gives its legs back");

    // Copies are made after sending, so the ring is read when the thread has stopped.
    let mut tapped: HashMap<LegId, Vec<(u16, u8)>> = HashMap::new();
    for _ in 0..100 {
        threads.rings[0].pop(|frame| match frame {
            Frame::Packet(header, payload) => {
                assert_eq!((header.ssrc, payload.len()), (5, 160));
                tapped.entry(header.leg).or_default().push((header.sequence, payload[0]));
            }
            Frame::Dropped(_) => panic!("the ring is large enough"),
        });
    }
    assert_eq!(tapped[&a.leg], (0..50).map(|n| (n, n as u8)).collect::<Vec<_>>());
    assert_eq!(tapped[&b.leg], (0..50).map(|n| (n, 100 + n as u8)).collect::<Vec<_>>());
}

#[test]
fn a_busy_thread_that_sleeps_between_passes_loses_nothing() {
    let threads = Threads::start(1, 23_020..=23_039, Duration::from_millis(5));
    let (mut a, b) = (threads.phone(0, 1), threads.phone(0, 2));
    threads.bridge(0, &a, &b);
    for n in 0..2_000_u32 {
        a.say(n as u8);
        if n % 50 == 49 {
            let heard: Vec<_> = (0..50).map(|_| b.hear().0.payload[0]).collect();
            assert_eq!(heard, (n - 49..=n).map(|n| n as u8).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_leg_moves_to_another_thread_with_its_sockets_and_loses_nothing() {
    let threads = Threads::start(2, 23_040..=23_079, Duration::from_millis(1));
    let (mut a, b, mut c) = (threads.phone(0, 1), threads.phone(0, 2), threads.phone(1, 3));
    threads.bridge(0, &a, &b);
    for n in 0..5 {
        a.say(n);
        b.hear();
    }
    threads.handles[0].send(Command::Move { leg: b.leg, to: WorkerId(1) });
    let moved = threads.wait(|worker, notice| match notice {
        Notice::Moved { leg } => Some((worker, leg)),
        _ => None,
    });
    assert_eq!(moved, (WorkerId(1), b.leg));
    threads.bridge(1, &b, &c);
    c.say(200);
    let (heard, from) = b.hear();
    assert_eq!((heard.payload[0], heard.sequence, from), (200, 6, b.anchor), "one stream from one address");

    // A command that was on its way to the old thread follows the leg.
    threads.handles[0].send(Command::RemoveLeg(b.leg));
    let by = threads.wait(|worker, notice| matches!(notice, Notice::Removed { .. }).then_some(worker));
    assert_eq!(by, WorkerId(1));
    // Its pair goes home and can be bound there again after the cool-down.
    std::thread::sleep(Duration::from_millis(200));
    let home: Vec<_> = threads.bind(0, 9).iter().map(|pair| pair.rtp).collect();
    assert!(home.contains(&b.anchor), "{home:?}");
}

/// Talks until told to stop: every packet names its sender and its number.
fn talk(phone: &Phone, stop: Arc<AtomicBool>) -> thread::JoinHandle<u16> {
    let (socket, anchor, name) = (phone.socket.try_clone().unwrap(), phone.anchor, phone.leg.0 as u8);
    thread::spawn(move || {
        let mut sequence = 0_u16;
        while !stop.load(Ordering::Relaxed) {
            let mut payload = vec![name; 160];
            payload[1..3].copy_from_slice(&sequence.to_be_bytes());
            let timestamp = 160 * u32::from(sequence);
            let ssrc = u32::from(name);
            let payload = payload.into();
            let packet = Packet { payload_type: 0, marker: false, sequence, timestamp, ssrc, csrc: vec![], payload };
            socket.send_to(&packet.write().unwrap(), anchor).unwrap();
            sequence += 1;
            thread::sleep(Duration::from_millis(20));
        }
        sequence
    })
}

/// Listens until a second of silence: sender's name, its number, our sequence number.
fn listen(phone: &Phone) -> thread::JoinHandle<Vec<(u8, u16, u16)>> {
    let socket = phone.socket.try_clone().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    thread::spawn(move || {
        let mut heard = vec![];
        let mut buffer = [0; 2_000];
        while let Ok((len, _)) = socket.recv_from(&mut buffer) {
            let packet = Packet::read(&buffer[..len]).unwrap();
            let number = u16::from_be_bytes([packet.payload[1], packet.payload[2]]);
            heard.push((packet.payload[0], number, packet.sequence));
        }
        heard
    })
}

#[test]
fn pairs_that_move_between_threads_while_they_talk_lose_nothing_and_hear_nobody_else() {
    let threads = Threads::start(2, 23_140..=23_199, Duration::from_millis(5));
    let phones: Vec<Phone> = (1..=4).map(|leg| threads.phone(0, leg)).collect();
    threads.bridge(0, &phones[0], &phones[1]);
    threads.bridge(0, &phones[2], &phones[3]);
    let stop = Arc::new(AtomicBool::new(false));
    let listeners: Vec<_> = phones.iter().map(listen).collect();
    let talkers: Vec<_> = phones.iter().map(|phone| talk(phone, stop.clone())).collect();

    let mut at = [0_usize; 2];
    for n in 0..200 {
        let pair = n % 2;
        let (old, new) = (at[pair], 1 - at[pair]);
        at[pair] = new;
        let legs = [phones[2 * pair].leg, phones[2 * pair + 1].leg];
        for leg in legs {
            threads.handles[old].send(Command::Move { leg, to: WorkerId(new as u8) });
        }
        let mut moved = HashSet::new();
        while moved.len() < 2 {
            moved.insert(threads.wait(|worker, notice| match notice {
                Notice::Moved { leg } if legs.contains(&leg) => Some((worker, leg)),
                _ => None,
            }));
        }
        assert!(moved.iter().all(|(worker, _)| *worker == WorkerId(new as u8)));
        threads.handles[new].send(Command::Route { from: legs[0], to: Some(legs[1]) });
        threads.handles[new].send(Command::Route { from: legs[1], to: Some(legs[0]) });
        thread::sleep(Duration::from_millis(n as u64 % 23));
    }
    // The last packets are behind the last move.
    thread::sleep(Duration::from_millis(300));
    stop.store(true, Ordering::Relaxed);
    let sent: Vec<u16> = talkers.into_iter().map(|talker| talker.join().unwrap()).collect();
    let heard: Vec<_> = listeners.into_iter().map(|listener| listener.join().unwrap()).collect();
    for (listener, partner) in [(0, 1), (1, 0), (2, 3), (3, 2)] {
        let name = phones[partner].leg.0 as u8;
        let expected: Vec<_> = (0..sent[partner]).map(|n| (name, n, n + 1)).collect();
        assert!(expected.len() > 100);
        assert_eq!(heard[listener], expected, "what {} hears", phones[listener].leg);
    }
}

/// Four phones of two calls: `staying` and `first` on thread 0, `coming` and `second` on thread 1.
struct Joined {
    staying: Phone,
    first: Phone,
    coming: Phone,
    second: Phone,
}

/// What a talker said is heard exactly once and in order by two listeners together, and by nobody else.
#[track_caller]
fn heard_once(by: [&Vec<(u8, u16, u16)>; 2], talker: &Phone, sent: u16) {
    let name = talker.leg.0 as u8;
    let numbers = |heard: &Vec<(u8, u16, u16)>| -> Vec<u16> {
        heard.iter().filter(|(from, ..)| *from == name).map(|(_, number, _)| *number).collect()
    };
    let parts = by.map(numbers);
    assert!(parts.iter().all(|part| part.len() > 20 && part.is_sorted()), "{name}: each hears it, in order");
    let mut all = parts.concat();
    all.sort_unstable();
    assert_eq!(all, (0..sent).collect::<Vec<_>>(), "{name}");
}

#[test]
fn calls_on_two_threads_that_are_joined_a_thousand_times_lose_nothing_and_reach_no_wrong_peer() {
    let threads = Threads::start(2, 23_240..=23_319, Duration::from_millis(1));
    let sets: Vec<Joined> = (0..5)
        .map(|set| Joined {
            staying: threads.phone(0, 4 * set + 1),
            first: threads.phone(0, 4 * set + 2),
            coming: threads.phone(1, 4 * set + 3),
            second: threads.phone(1, 4 * set + 4),
        })
        .collect();
    for set in &sets {
        threads.bridge(0, &set.staying, &set.first);
        threads.bridge(1, &set.coming, &set.second);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let all = |set: &Joined| {
        [&set.staying, &set.first, &set.coming, &set.second].map(|phone| (listen(phone), talk(phone, stop.clone())))
    };
    let running: Vec<_> = sets.iter().map(all).collect();
    for round in 0..200_usize {
        let (from, to) = if round % 2 == 0 { (1, 0) } else { (0, 1) };
        let worker = WorkerId(to as u8);
        for set in &sets {
            threads.handles[from].send(Command::Move { leg: set.coming.leg, to: worker });
        }
        let mut moved = HashSet::new();
        while moved.len() < sets.len() {
            moved.insert(threads.wait(|worker, notice| match notice {
                Notice::Moved { leg } => Some((worker, leg)),
                _ => None,
            }));
        }
        let route = |worker: usize, from: &Phone, to: Option<&Phone>| {
            threads.handles[worker].send(Command::Route { from: from.leg, to: to.map(|to| to.leg) });
        };
        for set in &sets {
            // Who is left alone is read again, heard by nobody or by who it had before.
            let (left_on, left) = if to == 0 { (1, &set.second) } else { (0, &set.staying) };
            if to == 0 {
                route(left_on, left, None);
                route(0, &set.staying, Some(&set.coming));
                route(0, &set.coming, Some(&set.staying));
            } else {
                route(left_on, left, Some(&set.first));
                route(0, &set.first, Some(&set.staying));
                route(1, &set.coming, Some(&set.second));
                route(1, &set.second, Some(&set.coming));
            }
        }
        thread::sleep(Duration::from_millis(7 + round as u64 % 29));
    }
    thread::sleep(Duration::from_millis(300));
    stop.store(true, Ordering::Relaxed);
    for (set, running) in sets.iter().zip(running) {
        let ended = running.map(|(listener, talker)| (talker.join().unwrap(), listener.join().unwrap()));
        let [(from_staying, at_staying), (_, at_first), (from_coming, at_coming), (_, at_second)] = &ended;
        heard_once([at_staying, at_second], &set.coming, *from_coming);
        heard_once([at_first, at_coming], &set.staying, *from_staying);
        let names = |heard: &Vec<(u8, u16, u16)>| heard.iter().map(|(from, ..)| *from).collect::<HashSet<u8>>();
        let name = |phone: &Phone| phone.leg.0 as u8;
        assert_eq!(names(at_staying), HashSet::from([name(&set.coming), name(&set.first)]));
        assert_eq!(names(at_coming), HashSet::from([name(&set.staying), name(&set.second)]));
        assert_eq!(names(at_first), HashSet::from([name(&set.staying)]));
        assert_eq!(names(at_second), HashSet::from([name(&set.coming)]));
        for heard in [at_staying, at_first, at_coming, at_second] {
            assert!(heard.windows(2).all(|pair| pair[1].2 == pair[0].2.wrapping_add(1)), "one stream each");
        }
    }
}

#[test]
fn a_leg_whose_partner_has_moved_away_is_read_again_after_a_while() {
    let threads = Threads::start(2, 23_200..=23_219, Duration::from_millis(1));
    let (mut a, b) = (threads.phone(0, 1), threads.phone(0, 2));
    threads.bridge(0, &a, &b);
    threads.handles[0].send(Command::Move { leg: b.leg, to: WorkerId(1) });
    threads.wait(|_, notice| matches!(notice, Notice::Moved { .. }).then_some(()));
    (0..9).for_each(|n| a.say(n));
    let heard = threads.wait(|_, notice| match notice {
        Notice::Stats { leg, stats } if leg == a.leg && stats.received > 0 => Some(stats.received),
        _ => None,
    });
    assert_eq!(heard, 9);
}

#[test]
fn ports_are_even_disjoint_between_threads_and_run_out_with_an_answer() {
    let threads = Threads::start(2, 23_081..=23_101, Duration::from_millis(1));
    let mut all: Vec<u16> = [0, 1].iter().flat_map(|n| threads.bind(*n, 5)).map(|pair| pair.rtp.port()).collect();
    all.sort_unstable();
    assert_eq!(all, (23_082..=23_100).step_by(2).collect::<Vec<u16>>());
    threads.handles[0].send(Command::BindPorts { address: LOOPBACK, count: 3 });
    let missing = threads.wait(|_, notice| match notice {
        Notice::PortsFailed { missing, .. } => Some(missing),
        _ => None,
    });
    assert_eq!(missing, 3);
}

#[test]
fn a_pair_that_another_program_holds_is_passed_over() {
    let taken = UdpSocket::bind((LOOPBACK, 23_111)).unwrap();
    let threads = Threads::start(1, 23_110..=23_119, Duration::from_millis(1));
    let bound: Vec<u16> = threads.bind(0, 4).iter().map(|pair| pair.rtp.port()).collect();
    assert_eq!(bound, [23_112, 23_114, 23_116, 23_118]);
    drop(taken);
}

#[test]
fn silence_is_played_every_20_ms_by_the_threads_own_clock() {
    let threads = Threads::start(1, 23_120..=23_129, Duration::from_millis(1));
    let a = threads.phone(0, 1);
    threads.handles[0].send(Command::Play { leg: a.leg, what: Playback::Silence });
    a.hear();
    let begin = stickytape::clock::now();
    (0..25).for_each(|_| assert_eq!(a.hear().0.payload, vec![0xff; 160]));
    let took = stickytape::clock::now() - begin;
    assert!((Duration::from_millis(400)..Duration::from_millis(900)).contains(&took), "{took:?}");
}

#[test]
fn a_digit_is_pressed_towards_a_peer_as_a_tone_of_its_length() {
    let threads = Threads::start(1, 23_220..=23_229, Duration::from_millis(1));
    let a = threads.phone(0, 1);
    let digit = Digit::of_key('5').unwrap();
    threads.handles[0].send(Command::Press { leg: a.leg, digit, length: Duration::from_millis(100) });
    for n in 0..5 {
        let heard = a.hear().0;
        assert_eq!((heard.payload.len(), heard.marker), (160, n == 0));
        assert!(heard.payload.iter().any(|byte| *byte < 0xa0), "sound");
    }
}

#[test]
fn a_leg_without_a_bound_pair_is_refused_with_an_answer() {
    let threads = Threads::start(1, 23_130..=23_139, Duration::from_millis(1));
    let port = stickytape::id::PortId(99);
    let new = NewLeg { leg: LegId(1), port, ssrc: 1, sequence: 1, timestamp: 0, cname: "c".into() };
    threads.handles[0].send(Command::AddLeg(Box::new(new)));
    assert_eq!(threads.removed(LegId(1)), LegStats::default());
}
