//! The mixer threads in virtual time, as `runtime/mixer.rs` and `runtime/media/mixers.rs` run them: rings to and from every
//! media thread, a pass at every command and every tick, a wake-up of who is given something.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use rand::RngExt;
use stickytape::bridge::command::mix::MixCommand;
use stickytape::bridge::conference::{self, Arrived, Mixer, Output};
use stickytape::bridge::relay::{MAX_TRANSMIT, ToMixer};
use stickytape::id::{MixerId, WorkerId};
use stickytape::record::tap::TapHeader;
use stickytape::runtime::mixer::wire::{self, FromMixer};

use super::{Parcel, Product, Way};

/// Members of all rooms of one mixer.
const MAX_MEMBERS: usize = 1_000;

/// One mixer thread.
pub struct MixerThread {
    mixer: Mixer,
    /// What the rings from the media threads hold.
    packets: VecDeque<(Arrived, Vec<u8>)>,
    /// What the rings to the media threads hold, by media thread.
    made: Vec<VecDeque<(TapHeader, Vec<u8>)>>,
    /// How late it wakes up for its next tick.
    late: Duration,
}

impl MixerThread {
    pub fn new(n: u8, media: u8, start: Instant) -> Self {
        let options = conference::Options { mixer: MixerId(n), epoch: start, max_members: MAX_MEMBERS };
        let made = (0..media).map(|_| VecDeque::new()).collect();
        Self { mixer: Mixer::new(options, start), packets: VecDeque::new(), made, late: Duration::ZERO }
    }

    pub fn is_idle(&self) -> bool {
        self.mixer.rooms() == 0 && self.mixer.members() == 0
    }

    /// Open rooms and their members.
    pub fn load(&self) -> (usize, usize) {
        (self.mixer.rooms(), self.mixer.members())
    }

    pub fn due(&self) -> Option<Instant> {
        self.mixer.poll_timeout().map(|at| at + self.late)
    }

    /// The media threads that are given something.
    fn pass(&mut self, now: Instant) -> BTreeSet<usize> {
        for (arrived, payload) in self.packets.drain(..) {
            self.mixer.packet(&arrived, &payload);
        }
        let Self { mixer, made, .. } = self;
        let mut woken = BTreeSet::new();
        while mixer.poll_timeout().is_some_and(|due| due <= now) {
            mixer.tick(now, |worker, output| {
                let worker = usize::from(worker.0);
                woken.insert(worker);
                made[worker].push_back(match output {
                    Output::Audio(leg, packet) => (wire::audio(leg, &packet), packet.payload.to_vec()),
                    Output::Digit(leg, digit, length) => (wire::digit(leg, digit, length), Vec::new()),
                    Output::Left(leg) => (wire::left(leg), Vec::new()),
                });
            });
        }
        woken
    }
}

impl Product {
    pub(super) fn mix_command(&mut self, n: usize, mut command: MixCommand, now: Instant) {
        match &mut command {
            MixCommand::Join(join) => join.hearing = (self.threads.taken_for)(join.hearing),
            MixCommand::Hearing { hearing, .. } => *hearing = (self.threads.taken_for)(*hearing),
            _ => {}
        }
        self.mixers[n].mixer.command(command, now);
        self.mixer_pass(n, now);
    }

    pub(super) fn mixer_pass(&mut self, n: usize, now: Instant) {
        let latency = self.threads.latency;
        self.mixers[n].late = latency.mul_f64(self.rng.random::<f64>());
        for worker in self.mixers[n].pass(now) {
            self.deliver(Way::Mixed(n, worker), Parcel::Wake, now);
        }
        while let Some(notice) = self.mixers[n].mixer.poll_notice() {
            self.deliver(Way::FromMixer(n), Parcel::MixNotice(notice), now);
        }
    }

    /// A packet for a mixer, which looks into its rings at its next pass.
    pub(super) fn hand_to_mixer(&mut self, worker: usize, mix: &ToMixer, payload: &[u8], at: Instant) {
        let arrived = Arrived {
            leg: mix.leg,
            worker: WorkerId(worker as u8),
            arrival_ns: at.saturating_duration_since(self.start).as_nanos() as u64,
            timestamp: mix.header.timestamp,
            ssrc: mix.header.ssrc,
            payload_type: mix.header.payload_type,
        };
        self.mixers[usize::from(mix.mixer.0)].packets.push_back((arrived, payload.to_vec()));
    }

    /// Sends what the mixers have made for a media thread.
    pub(super) fn take_mixed(&mut self, worker: usize, now: Instant) {
        for n in 0..self.mixers.len() {
            let mixer = MixerId(n as u8);
            for (header, payload) in std::mem::take(&mut self.mixers[n].made[worker]) {
                let (leg, relay) = (header.leg, &mut self.media[worker].relay);
                match wire::read(mixer, &header, &payload) {
                    Some(FromMixer::Audio(packet)) => {
                        let mut out = [0; MAX_TRANSMIT];
                        if let Some(transmit) = relay.mixed(leg, packet, now, &mut out) {
                            self.send(worker, transmit.slot, transmit.channel, transmit.to, &out[..transmit.len]);
                        }
                    }
                    // The leg may have left, or moved away, since the mixer made it.
                    Some(FromMixer::Digit(digit, length)) => _ = relay.press(leg, digit, length, now),
                    Some(FromMixer::Left) => relay.leave_mixer(leg, mixer),
                    None => self.failures.push(format!("a frame of a mixer for {leg} that nobody can read")),
                }
            }
        }
        self.tell(worker, now);
    }
}
