//! Parties around a mixer, in virtual time: each sends its voice in packets, through a network of its own, and keeps
//! what it hears.

use std::time::{Duration, Instant};

use stickytape::audio::{g711, pcm};
use stickytape::bridge::command::mix::{Hearing, Join, MixCommand, MixNotice, RoomDigits};
use stickytape::bridge::conference::{Arrived, Mixer, Options, Output};
use stickytape::clock;
use stickytape::codec::{Codec, Kind, Payload};
use stickytape::id::{LegId, MixerId, RoomId, WorkerId};

pub const ROOM: RoomId = RoomId(1);

/// What happens to packet `n`: when it arrives after it was sent, or `None`: never.
pub type Network = Box<dyn Fn(u64) -> Option<Duration>>;
/// Sample at a position.
pub type Said = Box<dyn Fn(u64) -> f64>;

pub struct Heard {
    /// Mixer's tick.
    pub tick: u32,
    pub at: Instant,
    pub last: bool,
    pub samples: Vec<i16>,
}

pub struct Party {
    pub leg: LegId,
    pub codec: Codec,
    pub said: Said,
    pub network: Network,
    /// How fast its clock is.
    pub ppm: f64,
    pub starts: Duration,
    pub stops: Duration,
    /// Packets of this number on are left out on purpose (DTX).
    pub silent: Box<dyn Fn(u64) -> bool>,
    next: u64,
    waiting: Vec<(Instant, u64)>,
    pub heard: Vec<Heard>,
}

pub fn tone(hz: f64, level: f64, rate: u32) -> Said {
    Box::new(move |i| level * (std::f64::consts::TAU * hz * i as f64 / f64::from(rate)).sin())
}

pub fn l16(rate: u32) -> Codec {
    Codec::new("L16", rate, 1)
}

/// A network that delivers everything after 1 ms.
pub fn clean() -> Network {
    Box::new(|_| Some(Duration::from_millis(1)))
}

impl Party {
    pub fn new(leg: u64, codec: Codec, said: Said) -> Self {
        Self {
            leg: LegId(leg),
            codec,
            said,
            network: clean(),
            ppm: 0.0,
            // Nobody's packets come at the same instant as another's.
            starts: Duration::from_micros(leg * 1_370 % 20_000),
            stops: Duration::MAX,
            silent: Box::new(|_| false),
            next: 0,
            waiting: vec![],
            heard: vec![],
        }
    }

    /// A tone of −16 dBFS.
    pub fn speaking(leg: u64, codec: Codec, hz: f64) -> Self {
        let rate = codec.clock_rate;
        Self::new(leg, codec, tone(hz, 5_000.0, rate))
    }

    pub fn payload_type(&self) -> u8 {
        match (self.codec.kind(), self.codec.clock_rate) {
            (Kind::Pcmu, _) => 0,
            (Kind::Pcma, _) => 8,
            (_, 8_000) => 96,
            _ => 97,
        }
    }

    /// All samples heard, in order.
    pub fn samples(&self) -> Vec<i16> {
        self.heard.iter().flat_map(|heard| heard.samples.iter().copied()).collect()
    }

    fn sent_at(&self, epoch: Instant, n: u64) -> Instant {
        epoch + self.starts + Duration::from_secs_f64(n as f64 * 0.02 / (1.0 + self.ppm * 1e-6))
    }

    fn next_event(&self, epoch: Instant) -> Instant {
        let sends = self.sent_at(epoch, self.next);
        let sends = if sends < epoch + self.stops.min(Duration::from_secs(1 << 30)) {
            sends
        } else {
            epoch + Duration::from_secs(1 << 30)
        };
        self.waiting.iter().map(|(at, _)| *at).chain([sends]).min().unwrap()
    }

    fn packet(&self, n: u64) -> Vec<u8> {
        let frame = u64::from(self.codec.clock_rate / 50);
        let samples: Vec<i16> = (n * frame..(n + 1) * frame).map(|i| (self.said)(i).round() as i16).collect();
        let mut bytes = vec![0; samples.len() * if self.codec.kind() == Kind::L16 { 2 } else { 1 }];
        match self.codec.kind() {
            Kind::Pcma => g711::encode_alaw(&samples, &mut bytes),
            Kind::L16 => pcm::encode_l16(&samples, &mut bytes),
            _ => g711::encode_ulaw(&samples, &mut bytes),
        }
        bytes
    }
}

pub struct World {
    pub epoch: Instant,
    pub now: Instant,
    pub mixer: Mixer,
    pub parties: Vec<Party>,
    pub notices: Vec<MixNotice>,
    pub digits: Vec<(LegId, char, Duration)>,
    pub left: Vec<LegId>,
    /// How late tick `n` is carried out.
    pub lateness: Box<dyn Fn(u64) -> Duration>,
    ticks: u64,
}

impl World {
    pub fn new(rate: u32, digits: RoomDigits) -> Self {
        let epoch = clock::now();
        let options = Options { mixer: MixerId(0), epoch, max_members: 2_000 };
        let mut mixer = Mixer::new(options, epoch);
        mixer.command(MixCommand::Open { room: ROOM, sample_rate: rate, digits }, epoch);
        Self {
            epoch,
            now: epoch,
            mixer,
            parties: vec![],
            notices: vec![],
            digits: vec![],
            left: vec![],
            lateness: Box::new(|_| Duration::ZERO),
            ticks: 0,
        }
    }

    pub fn of(parties: Vec<Party>) -> Self {
        let mut world = Self::new(8_000, RoomDigits::Pass);
        parties.into_iter().for_each(|party| world.join(party, Hearing::MEMBER));
        world
    }

    pub fn join(&mut self, party: Party, hearing: Hearing) {
        self.join_as(party, hearing, true);
    }

    pub fn join_as(&mut self, party: Party, hearing: Hearing, listens: bool) {
        let event = Payload { payload_type: 101, codec: Codec::telephone_event() };
        let noise = Payload { payload_type: 13, codec: Codec::new("CN", 8_000, 1) };
        let payload = Payload { payload_type: party.payload_type(), codec: party.codec.clone() };
        let join = Join {
            room: ROOM,
            leg: party.leg,
            worker: WorkerId(0),
            hearing,
            listens,
            receive: vec![payload.clone(), event.clone(), noise],
            send: vec![payload, event],
        };
        self.mixer.command(MixCommand::Join(Box::new(join)), self.now);
        let mut party = party;
        let since = self.now - self.epoch;
        party.starts += since;
        self.parties.push(party);
        self.drain();
    }

    pub fn command(&mut self, command: MixCommand) {
        self.mixer.command(command, self.now);
        self.drain();
    }

    pub fn party(&self, leg: u64) -> &Party {
        self.parties.iter().find(|party| party.leg == LegId(leg)).unwrap()
    }

    /// What a party has heard in the last `length`.
    pub fn recent(&self, leg: u64, length: Duration) -> Vec<i16> {
        let party = self.party(leg);
        let samples = party.samples();
        let n = (length.as_secs_f64() * f64::from(party.codec.clock_rate)) as usize;
        samples[samples.len().saturating_sub(n)..].to_vec()
    }

    /// A packet that no party's voice is in.
    pub fn inject(&mut self, leg: u64, payload_type: u8, timestamp: u32, payload: &[u8]) {
        let arrival_ns = (self.now - self.epoch).as_nanos() as u64;
        let arrived =
            Arrived { leg: LegId(leg), worker: WorkerId(0), arrival_ns, timestamp, ssrc: leg as u32, payload_type };
        self.mixer.packet(&arrived, payload);
    }

    pub fn run(&mut self, length: Duration) {
        let end = self.now + length;
        loop {
            let tick = self.mixer.poll_timeout().map(|at| at + (self.lateness)(self.ticks));
            let next = self.parties.iter().map(|party| party.next_event(self.epoch)).chain(tick).min().unwrap();
            if next >= end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            self.deliver();
            if tick.is_some_and(|tick| tick <= self.now) {
                self.tick();
            }
        }
    }

    fn deliver(&mut self) {
        let (now, epoch) = (self.now, self.epoch);
        for party in &mut self.parties {
            while party.sent_at(epoch, party.next) <= now && now < epoch + party.stops.min(Duration::from_secs(1 << 30))
            {
                let n = party.next;
                party.next += 1;
                if (party.silent)(n) {
                    continue;
                }
                if let Some(delay) = (party.network)(n) {
                    party.waiting.push((party.sent_at(epoch, n) + delay, n));
                }
            }
            party.waiting.sort_unstable();
            while party.waiting.first().is_some_and(|(at, _)| *at <= now) {
                let (at, n) = party.waiting.remove(0);
                let arrived = Arrived {
                    leg: party.leg,
                    worker: WorkerId(0),
                    arrival_ns: (at - epoch).as_nanos() as u64,
                    timestamp: 1_000 + (n * u64::from(party.codec.clock_rate / 50)) as u32,
                    ssrc: party.leg.0 as u32,
                    payload_type: party.payload_type(),
                };
                self.mixer.packet(&arrived, &party.packet(n));
            }
        }
    }

    fn tick(&mut self) {
        self.ticks += 1;
        let Self { mixer, parties, digits, left, now, .. } = self;
        mixer.tick(*now, |_, output| match output {
            Output::Audio(leg, packet) => {
                let party = parties.iter_mut().find(|party| party.leg == leg).unwrap();
                let mut samples = vec![0; packet.ticks as usize];
                match party.codec.kind() {
                    Kind::Pcma => g711::decode_alaw(packet.payload, &mut samples),
                    Kind::L16 => pcm::decode_l16(packet.payload, &mut samples),
                    _ => g711::decode_ulaw(packet.payload, &mut samples),
                }
                let (tick, last) = (packet.tick, packet.last);
                party.heard.push(Heard { tick, at: *now, last, samples });
            }
            Output::Digit(leg, digit, length) => digits.push((leg, digit.key(), length)),
            Output::Left(leg) => left.push(leg),
        });
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(notice) = self.mixer.poll_notice() {
            self.notices.push(notice);
        }
    }
}
