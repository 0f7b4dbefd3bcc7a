//! Mixer and media threads with real sockets on loopback: phones on two media threads meet in a room, one of them moves
//! to another thread meanwhile, and the call goes on relayed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use stickytape::audio::g711;
use stickytape::bridge::command::mix::{Hearing, Join, MixCommand, MixNotice, Mixing, RoomDigits};
use stickytape::bridge::command::{Command, LatchMode, NewLeg, Notice, PortPair, Remote};
use stickytape::clock;
use stickytape::codec::{Codec, Direction, Payload};
use stickytape::id::{LegId, MixerId, RoomId, WorkerId};
use stickytape::rtp::Header;
use stickytape::rtp::view::Outgoing;
use stickytape::runtime::media::{self, Priority};
use stickytape::runtime::mixer;
use stickytape::testing::tones::tone_level;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PATIENCE: Duration = Duration::from_secs(10);
const ROOM: RoomId = RoomId(1);

struct Threads {
    media: Vec<media::Handle>,
    mixer: mixer::Handle,
    notices: mpsc::Receiver<Notice>,
    mixed: mpsc::Receiver<MixNotice>,
}

impl Threads {
    fn start() -> Self {
        let epoch = clock::now();
        let (sender, notices) = mpsc::channel();
        let (mix_sender, mixed) = mpsc::channel();
        let (workers, ends): (Vec<_>, Vec<_>) = media::split_ports(24_500..=24_599, 2)
            .into_iter()
            .enumerate()
            .map(|(n, ports)| {
                let (to_mixer, to_media) = mixer::rings(1 << 20);
                let options = media::Options {
                    worker: WorkerId(n as u8),
                    ports,
                    cooldown: Duration::from_millis(50),
                    batch_interval: Duration::from_millis(1),
                    priority: Priority::Normal,
                    epoch,
                    seed: n as u64,
                };
                (media::Worker { options, taps: vec![], mixers: vec![to_mixer], kernel: None }, to_media)
            })
            .unzip();
        let media = media::spawn(workers, move |_, notice| drop(sender.send(notice))).unwrap();
        let options = mixer::Options { mixer: MixerId(0), priority: Priority::Normal, epoch, max_members: 100 };
        let senders = media.iter().map(media::Handle::sender).collect();
        let mixer = mixer::spawn(options, ends, senders, move |_, notice| drop(mix_sender.send(notice))).unwrap();
        mixer.send(MixCommand::Open { room: ROOM, sample_rate: 8_000, digits: RoomDigits::Pass });
        Self { media, mixer, notices, mixed }
    }

    fn bind(&self, worker: usize) -> PortPair {
        self.media[worker].send(Command::BindPorts { address: LOOPBACK, count: 1 });
        loop {
            if let Notice::PortsBound(pairs) = self.notices.recv_timeout(PATIENCE).expect("ports in time") {
                return pairs[0];
            }
        }
    }

    fn phone(&self, worker: usize, leg: u64, hz: f64) -> Phone {
        let pair = self.bind(worker);
        let socket = UdpSocket::bind((LOOPBACK, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let leg = LegId(leg);
        let new = NewLeg { leg, port: pair.id, ssrc: 1, sequence: 1, timestamp: 0, cname: "c".into() };
        self.media[worker].send(Command::AddLeg(Box::new(new)));
        let remote = Remote {
            rtp: Some(socket.local_addr().unwrap()),
            rtcp: None,
            rtcp_mux: false,
            receive: payloads(),
            send: payloads(),
            direction: Direction::SendRecv,
            ptime_ms: 20,
            latch: LatchMode::Strict,
        };
        self.media[worker].send(Command::SetRemote { leg, remote: Box::new(remote) });
        Phone { hz, socket, anchor: pair.rtp, sent: 0, got: vec![] }
    }

    fn join(&self, leg: LegId, worker: usize) {
        let join = Join {
            room: ROOM,
            leg,
            worker: WorkerId(worker as u8),
            hearing: Hearing::MEMBER,
            listens: true,
            receive: payloads(),
            send: payloads(),
        };
        self.mixer.send(MixCommand::Join(Box::new(join)));
        let mixing = Some(Mixing { mixer: MixerId(0), listens: true });
        self.media[worker].send(Command::Mix { leg, mixing });
    }

    fn wait<T>(&self, pick: impl Fn(MixNotice) -> Option<T>) -> T {
        loop {
            if let Some(picked) = pick(self.mixed.recv_timeout(PATIENCE).expect("a notice in time")) {
                return picked;
            }
        }
    }
}

fn payloads() -> Vec<Payload> {
    vec![Payload { payload_type: 0, codec: Codec::pcmu() }]
}

struct Phone {
    hz: f64,
    socket: UdpSocket,
    anchor: SocketAddr,
    sent: u64,
    got: Vec<(Instant, Header, Vec<i16>)>,
}

impl Phone {
    fn say(&mut self) {
        let samples: Vec<i16> = (0..160)
            .map(|i| (self.sent * 160 + i) as f64)
            .map(|position| (6_000.0 * (std::f64::consts::TAU * self.hz * position / 8_000.0).sin()) as i16)
            .collect();
        let (sequence, timestamp) = (self.sent as u16, self.sent as u32 * 160);
        let header = Outgoing { payload_type: 0, marker: false, sequence, timestamp, ssrc: 9 };
        let mut datagram = header.encode().to_vec();
        datagram.resize(172, 0);
        g711::encode_ulaw(&samples, &mut datagram[12..]);
        self.socket.send_to(&datagram, self.anchor).unwrap();
        self.sent += 1;
    }

    fn hear(&mut self) {
        let mut buffer = [0; 2_000];
        while let Ok((len, from)) = self.socket.recv_from(&mut buffer) {
            assert_eq!(from, self.anchor, "sent from the leg's own socket");
            let header = Header::parse(&buffer[..len]).unwrap();
            let mut samples = vec![0; header.payload_len()];
            g711::decode_ulaw(&buffer[header.payload()], &mut samples);
            self.got.push((clock::now(), header, samples));
        }
    }

    fn level(&self, hz: f64) -> f64 {
        let recent: Vec<i16> = self.got.iter().rev().take(20).rev().flat_map(|(.., samples)| samples.clone()).collect();
        tone_level(&recent, 8_000, hz)
    }
}

/// All speak and listen for so many packets.
fn talk(phones: &mut [&mut Phone], packets: u32) {
    let begun = clock::now();
    for n in 0..packets {
        phones.iter_mut().for_each(|phone| phone.say());
        let next = begun + Duration::from_millis(20) * (n + 1);
        while clock::now() < next {
            phones.iter_mut().for_each(|phone| phone.hear());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn assert_hears(phones: &[&mut Phone], table: &[&[usize]], case: &str) {
    for (listener, hears) in table.iter().enumerate() {
        for speaker in 0..phones.len() {
            let level = phones[listener].level(phones[speaker].hz);
            let there = hears.contains(&speaker);
            assert!(
                if there { level > -22.0 } else { level < -55.0 },
                "{case}: {listener} hears {speaker} at {level:.1} dBFS"
            );
        }
    }
}

#[test]
fn phones_on_two_media_threads_meet_in_a_room_and_a_call_comes_out_of_it() {
    let threads = Threads::start();
    let (mut a, mut b) = (threads.phone(0, 1, 307.0), threads.phone(0, 2, 523.0));
    let mut c = threads.phone(1, 3, 743.0);
    let route = || {
        threads.media[0].send(Command::Route { from: LegId(1), to: Some(LegId(2)) });
        threads.media[0].send(Command::Route { from: LegId(2), to: Some(LegId(1)) });
    };
    route();
    talk(&mut [&mut a, &mut b, &mut c], 30);
    assert_hears(&[&mut a, &mut b, &mut c], &[&[1], &[0], &[]], "relayed");
    [(1, 0), (2, 0), (3, 1)].into_iter().for_each(|(leg, worker)| threads.join(LegId(leg), worker));
    talk(&mut [&mut a, &mut b, &mut c], 50);
    assert_hears(&[&mut a, &mut b, &mut c], &[&[1, 2], &[0, 2], &[0, 1]], "mixed");
    // One moves to the other media thread: the mixer follows its packets.
    threads.media[1].send(Command::Move { leg: LegId(3), to: WorkerId(0) });
    talk(&mut [&mut a, &mut b, &mut c], 50);
    assert_hears(&[&mut a, &mut b, &mut c], &[&[1, 2], &[0, 2], &[0, 1]], "moved");
    for leg in 1..=3 {
        threads.mixer.send(MixCommand::Leave { leg: LegId(leg) });
    }
    talk(&mut [&mut a, &mut b, &mut c], 30);
    assert_hears(&[&mut a, &mut b], &[&[1], &[0]], "relayed again");
    let mut left: Vec<LegId> = (0..3)
        .map(|_| threads.wait(|notice| if let MixNotice::Left { leg, .. } = notice { Some(leg) } else { None }))
        .collect();
    left.sort_unstable();
    assert_eq!(left, [1, 2, 3].map(LegId));
    for phone in [&a, &b] {
        let broken = phone.got.windows(2).filter(|w| w[1].1.sequence != w[0].1.sequence.wrapping_add(1)).count();
        assert_eq!(broken, 0, "one run of sequence numbers");
        assert!(phone.got.windows(2).all(|w| w[0].1.ssrc == w[1].1.ssrc));
    }
    threads.mixer.send(MixCommand::Close { room: ROOM });
    threads.wait(|notice| matches!(notice, MixNotice::Closed { .. }).then_some(()));
    let counters = threads.mixer.counters();
    assert!(counters.made.load(Relaxed) >= 270, "{counters:?}");
    assert_eq!(counters.dropped.load(Relaxed), 0);
    let Threads { media, mixer, .. } = threads;
    media.into_iter().for_each(media::Handle::join);
    mixer.join();
}
