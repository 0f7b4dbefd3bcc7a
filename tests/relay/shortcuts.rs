//! Streams that something else sends on: what the peer gets, what is counted and what is recorded is as if every packet had
//! come here.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stickytape::bridge::command::{Digit, Playback, Remote};
use stickytape::bridge::relay::{Slot, Tapped};
use stickytape::bridge::shortcut::Shortcut;
use stickytape::codec::Direction;
use stickytape::id::RecorderId;
use stickytape::rtp::Header;
use stickytape::rtp::packet::Packet;
use stickytape::rtp::seq::sequence_ahead;

use crate::{A, B, C, Sent, World, address, remote, voice};

/// What `src/net/kernel/forward.bpf.c` does, and the thread with it.
#[derive(Default)]
struct Kernel {
    entered: Option<(Shortcut, (u16, u32))>,
    forwarded: u32,
    missed: u32,
    copies: Vec<(Instant, Packet)>,
    /// Packets that went on without the relay, in all.
    passed: u32,
}

impl Kernel {
    /// The packet as it goes on; `None`: it comes to the socket.
    fn take(&mut self, from: SocketAddr, packet: &Packet, now: Instant) -> Option<Packet> {
        let (shortcut, newest) = self.entered.as_mut()?;
        if (from, packet.ssrc, packet.payload_type) != (shortcut.from, shortcut.ssrc.0, shortcut.payload_type.0) {
            return None;
        }
        let ahead = sequence_ahead(packet.sequence, newest.0);
        let leap = packet.timestamp.wrapping_sub(newest.1);
        match ahead {
            ..=0 if ahead <= -100 || self.forwarded <= 100 => return None,
            ..=0 => {}
            _ if ahead > 50 || leap > shortcut.longest_leap() => return None,
            _ => *newest = (packet.sequence, packet.timestamp),
        }
        self.forwarded += 1;
        self.missed = 0;
        self.passed += 1;
        self.copies.push((now, packet.clone()));
        Some(Packet {
            payload_type: shortcut.payload_type.1,
            sequence: packet.sequence.wrapping_add(shortcut.sequence_offset),
            timestamp: packet.timestamp.wrapping_add(shortcut.timestamp_offset),
            ssrc: shortcut.ssrc.1,
            ..packet.clone()
        })
    }

    fn drain(&mut self, world: &mut World) -> Vec<Tapped> {
        let slot = world.relay.slot(A).unwrap();
        let went_on = |(at, packet): (Instant, Packet)| {
            let bytes = packet.write().unwrap();
            let header = Header::parse(&bytes[..12]).unwrap();
            world.relay.went_on(slot, A, &header, packet.payload.len(), at)
        };
        self.copies.drain(..).filter_map(went_on).collect()
    }

    fn withdraw(&mut self, world: &mut World) {
        self.entered = None;
        self.drain(world);
    }

    /// After a packet that came to the relay.
    fn look_at(&mut self, world: &mut World, came: &Packet, forwarded: bool) {
        let payload_type = came.payload_type;
        let slot = world.relay.slot(A).unwrap();
        let shortcut = |world: &World, payload_type| world.relay.shortcut(slot, payload_type, world.now());
        match self.entered {
            Some((entered, _)) => {
                let now = shortcut(world, entered.payload_type.0);
                let is_of_it = forwarded && entered.payload_type.0 == payload_type;
                self.missed += u32::from(is_of_it && now.is_some_and(|(_, newest)| newest.0 == came.sequence));
                if self.missed == 3 || now.is_none_or(|(now, _)| now != entered) {
                    self.withdraw(world);
                }
            }
            None if forwarded => {
                (self.entered, self.forwarded, self.missed) = (shortcut(world, payload_type), 0, 0);
            }
            None => {}
        }
    }

    fn say(&mut self, world: &mut World, packet: &Packet) -> Option<Sent> {
        if let Some(packet) = self.take(address(A), packet, world.now()) {
            let (shortcut, _) = self.entered?;
            return Some(Sent { leg: world.leg_of(shortcut.hearer), to: shortcut.to, packet });
        }
        self.drain(world);
        let sent = world.say(A, packet);
        self.look_at(world, packet, sent.is_some());
        sent
    }
}

/// What a phone may do next, and what may be done to its call.
struct Script {
    rng: StdRng,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    held_back: Option<Packet>,
}

impl Script {
    fn packets(&mut self) -> Vec<Packet> {
        let (sequence, timestamp) = (self.sequence, self.timestamp);
        self.sequence = sequence.wrapping_add(1);
        self.timestamp = timestamp.wrapping_add(160);
        let plain = voice(self.ssrc, sequence, timestamp);
        match self.rng.random_range(0..120) {
            0..3 => vec![],
            3..6 => vec![plain.clone(), plain],
            6..9 => {
                self.held_back = Some(plain);
                vec![]
            }
            9 => vec![Packet { payload_type: 101, payload: vec![5, 10, 0, 160].into(), ..plain }],
            10 => vec![Packet { payload_type: 8, ..plain }],
            11 => vec![Packet { payload_type: 77, ..plain }],
            12 => vec![Packet { marker: true, ..plain }],
            13 => {
                self.timestamp = self.timestamp.wrapping_add(self.rng.random_range(0..60_000));
                vec![plain]
            }
            14 => {
                self.sequence = self.sequence.wrapping_add(self.rng.random_range(0..4_000));
                vec![plain]
            }
            15 => {
                (self.ssrc, self.sequence, self.timestamp) = self.rng.random();
                vec![plain]
            }
            _ => [Some(plain), self.held_back.take()].into_iter().flatten().collect(),
        }
    }

    /// The same thing done to both worlds; the number of it.
    fn command(&mut self) -> Option<u32> {
        self.rng.random_ratio(1, 60).then(|| self.rng.random_range(0..9))
    }
}

fn carry_out(world: &mut World, command: u32) {
    let now = world.now();
    match command {
        0 => world.relay.route(A, None).unwrap(),
        1 | 2 => world.relay.route(A, Some(B)).unwrap(),
        3 => world.relay.press(B, Digit::of_key('7').unwrap(), Duration::from_millis(80), now).unwrap(),
        4 => world.relay.play(B, Playback::Silence, now).unwrap(),
        5 => world.relay.tap(A, &[RecorderId(0)]).unwrap(),
        6 => world.relay.set_remote(B, Remote { direction: Direction::SendOnly, ..remote(B) }).unwrap(),
        7 => world.relay.set_remote(B, remote(B)).unwrap(),
        _ => world.relay.route(A, Some(C)).unwrap(),
    }
}

/// A call of a minute, once with every packet through the relay and once with what may go on without it; packets that did.
fn both_ways(seed: u64) -> u32 {
    let (mut plain, mut short, mut kernel) = (World::bridged(), World::bridged(), Kernel::default());
    let mut script =
        Script { rng: StdRng::seed_from_u64(seed), ssrc: 7, sequence: 65_000, timestamp: 9, held_back: None };
    let mut stale = [0; 4];
    for step in 0..3_000 {
        let at = plain.now_ms() + 20;
        kernel.drain(&mut short);
        assert_eq!(short.own_rtp_until(at), plain.own_rtp_until(at), "step {step}, seed {seed}");
        if let Some(command) = script.command() {
            kernel.withdraw(&mut short);
            carry_out(&mut plain, command);
            carry_out(&mut short, command);
        }
        for packet in script.packets() {
            if script.rng.random() {
                kernel.drain(&mut short);
            }
            let wanted = plain.say(A, &packet);
            let jumped = kernel.missed > 0;
            let sent = kernel.say(&mut short, &packet);
            if jumped && wanted.is_none() && sent.is_some() {
                // Between a jump and the withdrawal what came far too late still goes on.
                stale[sent.map_or(0, |sent| sent.leg.0 as usize)] += 1;
                continue;
            }
            assert_eq!(sent, wanted, "step {step}, seed {seed}");
        }
    }
    kernel.drain(&mut short);
    for leg in [A, B, C] {
        let [plain, short] = [&mut plain, &mut short].map(|world| world.stats(leg));
        let sent = plain.sent + stale[leg.0 as usize];
        assert_eq!((plain.received, sent, plain.lost), (short.received, short.sent, short.lost), "seed {seed}");
        assert_eq!((plain.refused, plain.latched), (short.refused, short.latched), "seed {seed}");
    }
    assert!(stale.iter().sum::<u64>() < 3, "seldom at all: {stale:?}, seed {seed}");
    kernel.passed
}

#[test]
fn a_stream_that_goes_on_without_us_is_the_one_that_we_would_have_sent() {
    let seeds = std::env::var("SHORTCUTS").ok();
    let (from, to) = seeds.as_deref().and_then(|seeds| seeds.split_once("..")).unwrap_or(("0", "60"));
    let passed: u32 = (from.parse().unwrap()..to.parse().unwrap()).map(both_ways).sum();
    assert!(passed > 10_000, "{passed}");
}

/// What happens to a call before it is asked.
type Prepare<'a> = &'a dyn Fn(&mut World);

#[test]
fn only_what_is_sent_on_as_it_is_may_go_on_without_us() {
    let world = |prepare: Prepare<'_>| {
        let mut world = World::bridged();
        for n in 0..5 {
            world.pass(20);
            world.say(A, &voice(7, n, 160 * u32::from(n)));
            world.say(B, &voice(8, n, 160 * u32::from(n)));
        }
        prepare(&mut world);
        world
    };
    let shortcut = |world: &World, payload_type| {
        world.relay.shortcut(world.relay.slot(A).unwrap(), payload_type, world.now()).map(|(shortcut, _)| shortcut)
    };
    let steady = world(&|_| {});
    let found = shortcut(&steady, 0).expect("nothing is between them");
    assert_eq!((found.from, found.to, found.clock_rate), (address(A), address(B), 8_000));
    assert_eq!((found.payload_type, found.tapped, found.longest_leap()), ((0, 0), false, 16_000));
    assert_eq!(shortcut(&steady, 101), None, "events are read");
    assert_eq!(shortcut(&steady, 5), None, "not negotiated");
    let second = Duration::from_secs(1);
    let refusals: [(&str, Prepare<'_>); 8] = [
        ("no route", &|world| world.relay.route(A, None).unwrap()),
        ("held", &|world| {
            world.relay.set_remote(B, Remote { direction: Direction::Inactive, ..remote(B) }).unwrap();
        }),
        ("transcoded", &|world| {
            let send = remote(B).send.split_off(1);
            world.relay.set_remote(B, Remote { send, ..remote(B) }).unwrap();
        }),
        ("events are left out", &|world| {
            let send = remote(B).send[..2].to_vec();
            world.relay.set_remote(B, Remote { send, ..remote(B) }).unwrap();
        }),
        ("a beep", &|world| world.relay.beep(B, Some(15 * second), world.now()).unwrap()),
        ("a digit of ours", &|world| {
            world.relay.press(B, Digit::of_key('1').unwrap(), second, world.now()).unwrap();
        }),
        ("somebody else's stream", &|world| world.relay.route(C, Some(B)).unwrap()),
        ("nothing sent since the route came", &|world| {
            world.relay.route(A, None).unwrap();
            world.relay.route(A, Some(B)).unwrap();
        }),
    ];
    for (why, prepare) in refusals {
        assert_eq!(shortcut(&world(prepare), 0), None, "{why}");
    }
    let mut early = World::bridged();
    early.say(A, &voice(7, 1, 160));
    assert_eq!(shortcut(&early, 0), None, "its source is not authentic yet");
}

#[test]
fn a_copy_of_a_leg_that_has_gone_is_nobodys() {
    let mut world = World::bridged();
    world.relay.tap(A, &[RecorderId(0)]).unwrap();
    let slot = world.relay.slot(A).unwrap();
    let header = Header::parse(&voice(7, 1, 160).write().unwrap()).unwrap();
    let now = world.now();
    assert!(world.relay.went_on(slot, A, &header, 160, now).is_some());
    assert_eq!(world.relay.went_on(slot, B, &header, 160, now), None, "another leg lives there");
    world.relay.remove(A).unwrap();
    assert_eq!(world.relay.went_on(slot, A, &header, 160, now), None);
    assert_eq!(world.relay.went_on(Slot(99), A, &header, 160, now), None);
}
