//! From the relay to the mix and back, as the receiving phone sees it: relay and mixer together in virtual time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use stickytape::audio::g711;
use stickytape::bridge::Relay;
use stickytape::bridge::command::mix::{Hearing, Join, MixCommand, Mixing, Mode, RoomDigits};
use stickytape::bridge::command::{LatchMode, NewLeg, Playback, Remote};
use stickytape::bridge::conference::{Arrived, Mixer, Options, Output};
use stickytape::bridge::relay::{self, Channel, MAX_TRANSMIT, Slot};
use stickytape::clock;
use stickytape::codec::{Codec, Direction, Payload};
use stickytape::id::{LegId, MixerId, PortId, RecorderId, RoomId, WorkerId};
use stickytape::rtp::Header;
use stickytape::rtp::view::Outgoing;
use stickytape::testing::tones::tone_level;

const ROOM: RoomId = RoomId(5);
const MIXER: MixerId = MixerId(0);
const FRAME: Duration = Duration::from_millis(20);

/// What a phone has received.
struct Got {
    at: Instant,
    header: Header,
    samples: Vec<i16>,
}

struct Phones {
    epoch: Instant,
    now: Instant,
    relay: Relay,
    mixer: Mixer,
    slots: Vec<Slot>,
    sent: u64,
    got: Vec<Vec<Got>>,
    tapped: u64,
    /// What the relay has allocated for packets, in blocks.
    allocated: u64,
}

fn address(leg: usize) -> SocketAddr {
    ([192, 0, 2, leg as u8 + 1], 4_000).into()
}

fn hz(leg: usize) -> f64 {
    [307.0, 523.0, 743.0][leg]
}

fn payloads() -> Vec<Payload> {
    vec![Payload { payload_type: 0, codec: Codec::pcmu() }]
}

impl Phones {
    fn new() -> Self {
        let epoch = clock::now();
        let rng = StdRng::seed_from_u64(1);
        let mut relay = Relay::new(relay::Options { epoch, epoch_ntp: 0, rng });
        let slots = (0..3)
            .map(|leg| {
                let new = NewLeg {
                    leg: LegId(leg as u64),
                    port: PortId(leg),
                    ssrc: 100 + leg,
                    sequence: 65_500,
                    timestamp: u32::MAX - 8_000,
                    cname: Arc::from("x"),
                };
                let slot = relay.add(&new, epoch).unwrap();
                let remote = Remote {
                    rtp: Some(address(leg as usize)),
                    rtcp: None,
                    rtcp_mux: true,
                    receive: payloads(),
                    send: payloads(),
                    direction: Direction::SendRecv,
                    ptime_ms: 20,
                    latch: LatchMode::Off,
                };
                relay.set_remote(new.leg, remote).unwrap();
                relay.tap(new.leg, &[RecorderId(0)]).unwrap();
                slot
            })
            .collect();
        let mut mixer = Mixer::new(Options { mixer: MIXER, epoch, max_members: 10 }, epoch);
        mixer.command(MixCommand::Open { room: ROOM, sample_rate: 8_000, digits: RoomDigits::Pass }, epoch);
        let got = (0..3).map(|_| vec![]).collect();
        Self { epoch, now: epoch, relay, mixer, slots, sent: 0, got, tapped: 0, allocated: 0 }
    }

    fn join(&mut self, leg: usize, hearing: Hearing, listens: bool) {
        let join = Join {
            room: ROOM,
            leg: LegId(leg as u64),
            worker: WorkerId(0),
            hearing,
            listens,
            receive: payloads(),
            send: payloads(),
        };
        self.mixer.command(MixCommand::Join(Box::new(join)), self.now);
        self.relay.mix(LegId(leg as u64), Some(Mixing { mixer: MIXER, listens })).unwrap();
    }

    fn route(&mut self) {
        self.relay.route(LegId(0), Some(LegId(1))).unwrap();
        self.relay.route(LegId(1), Some(LegId(0))).unwrap();
    }

    /// Each phone says 20 ms every 20 ms, at instants of its own; the mixer ticks.
    fn run(&mut self, frames: u64) {
        for _ in 0..frames {
            for ms in 0..20 {
                self.now = self.epoch + FRAME * self.sent as u32 + Duration::from_millis(ms);
                for leg in 0..3 {
                    if ms == 3 + 6 * leg as u64 {
                        self.say(leg);
                    }
                }
                self.tick();
            }
            self.sent += 1;
        }
    }

    fn say(&mut self, leg: usize) {
        let samples: Vec<i16> = (0..160)
            .map(|i| {
                let position = (self.sent * 160 + i) as f64;
                (6_000.0 * (std::f64::consts::TAU * hz(leg) * position / 8_000.0).sin()) as i16
            })
            .collect();
        let header = Outgoing {
            payload_type: 0,
            marker: false,
            sequence: self.sent as u16,
            timestamp: self.sent as u32 * 160,
            ssrc: leg as u32,
        };
        let mut datagram = header.encode().to_vec();
        datagram.resize(12 + 160, 0);
        g711::encode_ulaw(&samples, &mut datagram[12..]);
        let mut verdict = None;
        let counted = allocation_counter::measure(|| {
            verdict = Some(self.relay.packet(self.slots[leg], Channel::Rtp, address(leg), &mut datagram, self.now));
        });
        self.allocated += counted.count_total;
        let verdict = verdict.unwrap();
        self.tapped += u64::from(verdict.tap.is_some());
        if let Some(forward) = verdict.forward {
            let bytes = self.relay.sent(&forward, &datagram).to_vec();
            self.receive(forward.to, &bytes);
        }
        if let Some(mix) = verdict.mix {
            let arrived = Arrived {
                leg: mix.leg,
                worker: WorkerId(0),
                arrival_ns: (self.now - self.epoch).as_nanos() as u64,
                timestamp: mix.header.timestamp,
                ssrc: mix.header.ssrc,
                payload_type: mix.header.payload_type,
            };
            self.mixer.packet(&arrived, &datagram[mix.header.payload()]);
        }
    }

    fn tick(&mut self) {
        while self.mixer.poll_timeout().is_some_and(|at| at <= self.now) {
            let (relay, now, mut out) = (&mut self.relay, self.now, [0; MAX_TRANSMIT]);
            let allocated = &mut self.allocated;
            let mut sent = vec![];
            self.mixer.tick(now, |_, output| match output {
                Output::Audio(leg, packet) => {
                    let mut transmit = None;
                    let counted = allocation_counter::measure(|| transmit = relay.mixed(leg, packet, now, &mut out));
                    *allocated += counted.count_total;
                    if let Some(transmit) = transmit {
                        sent.push((transmit.to, out[..transmit.len].to_vec()));
                    }
                }
                Output::Left(leg) => relay.leave_mixer(leg, MIXER),
                Output::Digit(..) => {}
            });
            sent.into_iter().for_each(|(to, datagram)| self.receive(to, &datagram));
        }
        let mut out = [0; MAX_TRANSMIT];
        while let Some(transmit) = self.relay.poll_transmit(self.now, &mut out) {
            if Header::parse(&out[..transmit.len]).is_ok_and(|header| header.payload_type == 0) {
                let datagram = out[..transmit.len].to_vec();
                self.receive(transmit.to, &datagram);
            }
        }
    }

    fn receive(&mut self, to: SocketAddr, datagram: &[u8]) {
        let leg = (0..3).find(|leg| address(*leg) == to).unwrap();
        let header = Header::parse(datagram).unwrap();
        let mut samples = vec![0; 160];
        g711::decode_ulaw(&datagram[header.payload()], &mut samples);
        self.got[leg].push(Got { at: self.now, header, samples });
    }

    /// What reached a phone came as one stream: no gap longer than 40 ms, no burst, one SSRC, sequence numbers without a
    /// break, timestamps as the time that passed.
    fn assert_one_stream(&self, leg: usize, case: &str) {
        let got = &self.got[leg];
        assert!(got.len() > 10);
        for pair in got.windows(2) {
            let (a, b) = (&pair[0], &pair[1]);
            let passed = b.at - a.at;
            let at = a.at - self.epoch;
            assert!(passed <= 2 * FRAME, "{case}: {leg} heard nothing for {passed:?} at {at:?}");
            assert_eq!(a.header.ssrc, b.header.ssrc, "{case}");
            assert_eq!(b.header.sequence, a.header.sequence.wrapping_add(1), "{case}");
            let ticks = b.header.timestamp.wrapping_sub(a.header.timestamp);
            assert!([160, 320].contains(&ticks), "{case}: {leg} at {at:?}: {ticks} ticks in {passed:?}");
        }
        let burst = got.windows(4).filter(|w| w[3].at - w[0].at < Duration::from_millis(35)).count();
        assert_eq!(burst, 0, "{case}: {leg}");
        let first = got[0].header.timestamp;
        let drift = got.last().unwrap().header.timestamp.wrapping_sub(first) as f64 / 8_000.0
            - (got.last().unwrap().at - got[0].at).as_secs_f64();
        assert!(drift.abs() <= 0.06, "{case}: {leg}: timestamps run off by {drift} s");
    }

    fn heard(&self, leg: usize, by: usize) -> f64 {
        let recent: Vec<i16> = self.got[by].iter().rev().take(15).rev().flat_map(|got| got.samples.clone()).collect();
        tone_level(&recent, 8_000, hz(leg))
    }
}

#[test]
fn a_call_becomes_a_conference_and_a_call_again_in_one_stream_for_each_phone() {
    // The instant of the change falls anywhere between packets and ticks.
    for phase in 0..10 {
        let mut phones = Phones::new();
        phones.route();
        phones.run(50 + phase);
        (0..3).for_each(|leg| phones.join(leg, Hearing::MEMBER, true));
        phones.run(50);
        let case = format!("phase {phase}");
        for (speaker, listener) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
            assert!(phones.heard(speaker, listener) > -20.0, "{case}: {listener} hears {speaker}");
        }
        (0..3).for_each(|leg| phones.mixer.command(MixCommand::Leave { leg: LegId(leg) }, phones.now));
        phones.run(50);
        for (speaker, listener, there) in [(0, 1, true), (1, 0, true), (2, 0, false), (2, 1, false)] {
            let level = phones.heard(speaker, listener);
            assert!(if there { level > -20.0 } else { level < -60.0 }, "{case}: {listener} hears {speaker} at {level}");
        }
        (0..2).for_each(|leg| phones.assert_one_stream(leg, &case));
        let sent = 3 * phones.sent;
        assert_eq!(phones.tapped, sent, "every packet reached the recorder's tap");
    }
}

#[test]
fn the_first_mixed_packet_is_marked_and_fades_in_and_the_last_one_fades_out() {
    let mut phones = Phones::new();
    phones.route();
    phones.run(50);
    (0..2).for_each(|leg| phones.join(leg, Hearing::MEMBER, true));
    let begins = phones.got[1].len();
    phones.run(50);
    let marks: Vec<_> = (0..phones.got[1].len()).filter(|n| phones.got[1][*n].header.marker).collect();
    assert_eq!(marks, [0, begins], "marked at the beginning of the call and of the mix");
    assert!(phones.got[1][begins].samples[0].abs() < 300);
    (0..2).for_each(|leg| phones.mixer.command(MixCommand::Leave { leg: LegId(leg) }, phones.now));
    let ends = phones.got[1].len();
    phones.run(20);
    let last = &phones.got[1][ends].samples;
    assert!(last[..100].iter().any(|s| s.abs() > 4_000) && last[159].abs() < 300, "it fades out");
    assert!(phones.got[1][ends + 1].header.marker, "the relay begins anew");
}

#[test]
fn while_a_mute_supervisor_listens_the_members_stay_relayed_packet_by_packet() {
    let mut phones = Phones::new();
    phones.route();
    phones.run(50);
    (0..2).for_each(|leg| phones.join(leg, Hearing::MEMBER, false));
    phones.join(2, Hearing::supervisor(Mode::Mute, LegId(1)), true);
    phones.run(50);
    for leg in 0..2 {
        assert_eq!(phones.got[leg].len(), 100, "each packet went through");
        assert_eq!(phones.got[leg].iter().filter(|got| got.header.marker).count(), 1, "in one run");
        assert!(phones.heard(2, leg) < -60.0 && phones.heard(leg, 2) > -20.0);
    }
    for leg in 0..3 {
        phones.mixer.command(MixCommand::Leave { leg: LegId(leg) }, phones.now);
    }
    phones.run(50);
    assert_eq!(phones.got[0].len(), 150);
    assert!(phones.got[2].len() <= 52, "the supervisor hears nothing any more");
}

#[test]
fn a_member_that_is_played_something_hears_that_and_not_the_mixer_and_can_be_taken_back() {
    let mut phones = Phones::new();
    (0..3).for_each(|leg| phones.join(leg, Hearing::MEMBER, true));
    phones.run(50);
    phones.relay.play(LegId(0), Playback::Silence, phones.now).unwrap();
    phones.run(50);
    assert!(phones.heard(1, 0) < -60.0 && phones.heard(0, 1) > -20.0);
    phones.relay.mix(LegId(0), Some(Mixing { mixer: MIXER, listens: true })).unwrap();
    phones.run(50);
    assert!(phones.heard(1, 0) > -20.0);
    phones.assert_one_stream(0, "playback between");
}

#[test]
fn the_relay_allocates_nothing_for_a_packet_relayed_tapped_or_mixed() {
    let mut phones = Phones::new();
    phones.route();
    phones.run(100);
    (0..3).for_each(|leg| phones.join(leg, Hearing::MEMBER, true));
    phones.run(100);
    assert_eq!(phones.allocated, 0);
    assert!(phones.tapped >= 600 && phones.got.iter().all(|got| got.len() >= 95));
}
