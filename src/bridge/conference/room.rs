//! One conference: everybody's 20 ms in, everybody's mix out.

use std::sync::Arc;

use slab::Slab;

use super::load::Shed;
use super::member::{MAX_FRAME, Member, Parting, Speech};
use super::{Counters, Output};
use crate::audio::bus::Bus;
use crate::audio::coding::Coding;
use crate::audio::convert::{self, Kernels};
use crate::audio::mix::{self, Gain};
use crate::audio::sum;
use crate::bridge::command::mix::{Announcement, RoomDigits};
use crate::bridge::hearing::{self, Audience};
use crate::bridge::relay::MixedPacket;
use crate::id::{LegId, MixerId, RoomId, WorkerId};

/// Bytes of the longest packet: 20 ms of L16 at 16,000 Hz.
const MAX_BYTES: usize = 2 * MAX_FRAME;
/// Codings at one rate: PCMU, PCMA, L16.
const CODINGS: usize = 3;

/// What is played.
#[derive(Debug, Clone)]
pub struct Play {
    /// At the room's rate.
    samples: Arc<[i16]>,
    position: usize,
    repeat: bool,
    frame: usize,
}

/// Memory that all rooms share.
#[derive(Debug)]
pub struct Scratch {
    pub kernels: Kernels,
    /// What everybody says.
    bus: Bus,
    /// For a listener who hears more than the sum.
    private: [i32; MAX_FRAME],
    mixed: [i16; MAX_FRAME],
    converted: [i16; MAX_FRAME],
    bytes: [u8; MAX_BYTES],
    /// Codings at the room's rate that packets of the whole sum and of silence were made in, in this tick.
    shared: [[Option<Coding>; CODINGS]; 2],
    packets: [[[u8; MAX_BYTES]; CODINGS]; 2],
}

/// One conference.
#[derive(Debug)]
pub struct Room {
    pub id: RoomId,
    pub rate: u32,
    pub digits: RoomDigits,
    pub phase: u64,
    pub closing: bool,
    pub members: Vec<usize>,
    /// Of those, whom something is to be done for behind the tick.
    pub attend: Vec<usize>,
    pub play: Option<Play>,
    /// Those who are heard by one agent only: that agent, and their place.
    coaches: Vec<(LegId, usize)>,
    gain: Gain,
}

/// What a tick is told.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    pub mixer: MixerId,
    pub number: u32,
    pub shed: Shed,
}

impl Job {
    /// Whether a member's counters are told behind this tick: once a second, each in its own tick.
    pub fn tells(&self, key: usize) -> bool {
        !self.shed.meters && self.number as usize % 50 == key % 50
    }
}

impl Scratch {
    pub fn new() -> Box<Self> {
        Box::new(Self {
            kernels: Kernels::new(),
            bus: Bus::default(),
            private: [0; MAX_FRAME],
            mixed: [0; MAX_FRAME],
            converted: [0; MAX_FRAME],
            bytes: [0; MAX_BYTES],
            shared: [[None; CODINGS]; 2],
            packets: [[[0; MAX_BYTES]; CODINGS]; 2],
        })
    }
}

impl Room {
    /// Mixed at 16,000 Hz when asked for, else at 8,000.
    pub fn new(id: RoomId, sample_rate: u32, digits: RoomDigits, phase: u64) -> Self {
        let rate = if sample_rate == 16_000 { 16_000 } else { 8_000 };
        Self {
            id,
            rate,
            digits,
            phase,
            closing: false,
            members: Vec::new(),
            attend: Vec::new(),
            play: None,
            coaches: Vec::new(),
            gain: Gain::new(rate as usize / 50),
        }
    }

    /// Somebody joins.
    pub fn add(&mut self, key: usize) {
        self.members.push(key);
        // So that ticks allocate nothing.
        self.attend.reserve(self.members.len());
    }

    /// Who hears whom has changed.
    pub fn find_coaches(&mut self, members: &Slab<Member>) {
        self.coaches.clear();
        for key in &self.members {
            if let Audience::Agent(agent) = hearing::audience(members[*key].hearing()) {
                self.coaches.push((agent, *key));
            }
        }
    }

    /// True once when what was played to all has come to its end.
    pub fn ended_playing(&mut self) -> Option<Option<LegId>> {
        self.play.take_if(|play| play.has_ended()).map(|_| None)
    }

    /// The tick is left out: everything keeps its time.
    pub fn skip(&mut self, members: &mut Slab<Member>) {
        self.members.iter().for_each(|key| members[*key].skip());
        self.attend.clear();
        self.attend.extend(0..self.members.len());
        self.play.iter_mut().for_each(Play::skip);
    }

    /// Takes 20 ms of everybody and hands out everybody's packet.
    pub fn tick(
        &mut self,
        job: Job,
        members: &mut Slab<Member>,
        scratch: &mut Scratch,
        counters: &mut Counters,
        emit: &mut impl FnMut(WorkerId, Output<'_>),
    ) {
        let n = self.rate as usize / 50;
        scratch.bus.begin(n);
        scratch.shared = [[None; CODINGS]; 2];
        self.attend.clear();
        for (at, key) in self.members.iter().enumerate() {
            let member = &mut members[*key];
            if job.tells(*key) || !member.goes_on() {
                self.attend.push(at);
            }
            member.render(self.rate, job.shed.without, !job.shed.meters, &scratch.kernels, counters);
            if member.is_in_sum() {
                scratch.bus.add(member.said(n), member.peak);
            }
        }
        if let Some(play) = &mut self.play {
            play.add_to(scratch.bus.wide());
        }
        scratch.bus.end(&mut self.gain, self.rate);
        for at in 0..self.members.len() {
            let key = self.members[at];
            if members[key].listens {
                self.make(key, job, members, scratch, counters, emit);
            }
        }
    }

    /// One listener's packet.
    fn make(
        &self,
        key: usize,
        job: Job,
        members: &mut Slab<Member>,
        scratch: &mut Scratch,
        counters: &mut Counters,
        emit: &mut impl FnMut(WorkerId, Output<'_>),
    ) {
        let member = &mut members[key];
        let last = member.parting != Parting::Stays;
        let Some(speech) = member.speech else {
            return stop_when(last, member);
        };
        let n = self.rate as usize / 50;
        if !last && self.hears_others_only(member) && speech.coding.sample_rate() == self.rate {
            let Scratch { bus, mixed, bytes, .. } = scratch;
            let bytes = &mut bytes[..speech.coding.bytes(n)];
            match bus.whole() {
                Some(whole) => speech.coding.encode_minus(whole, member.said(n), bytes),
                None => {
                    bus.mix(Some(member.said(n)), &self.gain, &mut mixed[..n]);
                    speech.coding.encode(&mixed[..n], bytes);
                }
            }
            return hand_out(member, speech, job, bytes, counters, emit);
        }
        let hears = self.listen(key, members, &mut scratch.private[..n], &mut scratch.bus);
        let member = &mut members[key];
        let fades = last || member.fresh;
        let own = member.is_in_sum() && hears != Hears::Nothing;
        let rate = speech.coding.sample_rate();
        let alone = own || fades || hears == Hears::More || rate != self.rate;
        let shared = if alone { None } else { self.share(speech.coding, hears == Hears::Nothing, scratch, n) };
        let frame = rate as usize / 50;
        let payload = match shared {
            Some((at, place)) => &scratch.packets[at][place][..speech.coding.bytes(frame)],
            None => {
                self.mix(member, hears, own, scratch, n);
                let Scratch { mixed, converted, bytes, kernels, .. } = scratch;
                let mixed = &mut mixed[..n];
                if member.fresh {
                    mix::fade_in(mixed, self.rate);
                }
                if last {
                    mix::fade_out(mixed, self.rate);
                }
                if frame == n {
                    encode(speech.coding, mixed, bytes)
                } else {
                    member.convert_for_peer(kernels, mixed, &mut converted[..frame]);
                    encode(speech.coding, &converted[..frame], bytes)
                }
            }
        };
        hand_out(member, speech, job, payload, counters, emit);
        stop_when(last, member);
    }

    /// True for one who speaks and hears the sum without himself, and has done so in the tick before.
    fn hears_others_only(&self, member: &Member) -> bool {
        let hears_sum = self.coaches.is_empty() && member.play.is_none() && !member.hearing().deaf;
        hears_sum && member.is_in_sum() && !member.fresh
    }

    /// What a listener hears besides the sum goes to `private`, together with it.
    fn listen(&self, key: usize, members: &mut Slab<Member>, private: &mut [i32], bus: &mut Bus) -> Hears {
        let (leg, hearing) = (members[key].leg, members[key].hearing());
        if hearing.deaf {
            return Hears::Nothing;
        }
        let mut more = false;
        for (agent, coach) in &self.coaches {
            let speaks = &members[*coach];
            if *agent == leg && speaks.sounds && hearing::hears((leg, hearing), (speaks.leg, speaks.hearing())) {
                if !std::mem::replace(&mut more, true) {
                    private.copy_from_slice(bus.widened());
                }
                sum::add(speaks.said(private.len()), private);
            }
        }
        if let Some(play) = &mut members[key].play {
            if !std::mem::replace(&mut more, true) {
                private.copy_from_slice(bus.widened());
            }
            play.add_to(private);
        }
        if more { Hears::More } else { Hears::Sum }
    }

    fn mix(&self, member: &Member, hears: Hears, own: bool, scratch: &mut Scratch, n: usize) {
        let Scratch { bus, private, mixed, .. } = scratch;
        let own = own.then_some(member.said(n));
        match hears {
            Hears::Nothing => mixed[..n].fill(0),
            Hears::Sum => bus.mix(own, &self.gain, &mut mixed[..n]),
            Hears::More => mix::minus(&private[..n], own, &self.gain, &mut mixed[..n]),
        }
    }

    /// Where the packet stands of all who hear the sum, or silence, in a coding at the room's rate.
    fn share(&self, coding: Coding, silence: bool, scratch: &mut Scratch, n: usize) -> Option<(usize, usize)> {
        let Scratch { bus, mixed, shared, packets, .. } = scratch;
        let at = usize::from(silence);
        let place = shared[at].iter().position(|made| made.is_none_or(|made| made == coding))?;
        if shared[at][place].replace(coding).is_none() {
            match silence {
                true => mixed[..n].fill(0),
                false => bus.mix(None, &self.gain, &mut mixed[..n]),
            }
            encode(coding, &mixed[..n], &mut packets[at][place]);
        }
        Some((at, place))
    }
}

/// What a listener hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hears {
    Nothing,
    Sum,
    /// The sum and somebody or something for it alone.
    More,
}

/// A listener's packet.
fn hand_out(
    member: &mut Member,
    speech: Speech,
    job: Job,
    payload: &[u8],
    counters: &mut Counters,
    emit: &mut impl FnMut(WorkerId, Output<'_>),
) {
    member.fresh = false;
    member.count_sent();
    counters.made += 1;
    let clock_rate = speech.coding.sample_rate();
    let packet = MixedPacket {
        mixer: job.mixer,
        tick: job.number,
        ticks: clock_rate / 50,
        clock_rate,
        payload_type: speech.payload_type,
        last: member.parting != Parting::Stays,
        payload,
    };
    emit(member.worker, Output::Audio(member.leg, packet));
}

fn stop_when(last: bool, member: &mut Member) {
    if last {
        member.listens = false;
        if member.parting == Parting::StopsListening {
            member.parting = Parting::Stays;
        }
    }
}

/// Encodes a frame.
fn encode<'a>(coding: Coding, samples: &[i16], out: &'a mut [u8; MAX_BYTES]) -> &'a [u8] {
    let out = &mut out[..coding.bytes(samples.len())];
    coding.encode(samples, out);
    out
}

/// A whole sound to 16,000 Hz.
fn doubled(samples: &[i16], kernels: &Kernels) -> Vec<i16> {
    let Some(kernel) = kernels.get(8_000, 16_000).filter(|_| !samples.is_empty()) else { return Vec::new() };
    // As much context in front as behind, so that nothing is late.
    let context = convert::context(kernel);
    let mut padded = vec![0; context / 2];
    padded.extend_from_slice(samples);
    padded.resize(samples.len() + context, 0);
    let mut doubled = vec![0; 2 * samples.len()];
    kernel.convert(&padded, 0, &mut doubled);
    doubled
}

impl Play {
    /// `None` for nothing. Converts to the room's rate.
    pub fn new(what: &Announcement, rate: u32, scratch: &Scratch) -> Option<Self> {
        let Announcement::Samples { samples, repeat } = what else { return None };
        let samples = if rate == 16_000 { doubled(samples, &scratch.kernels).into() } else { samples.clone() };
        let play = Self { samples, position: 0, repeat: *repeat, frame: rate as usize / 50 };
        Some(play).filter(|play| !play.samples.is_empty())
    }

    fn add_to(&mut self, sum: &mut [i32]) {
        let mut done = 0;
        while done < sum.len() && self.position < self.samples.len() {
            let n = (self.samples.len() - self.position).min(sum.len() - done);
            sum::add(&self.samples[self.position..self.position + n], &mut sum[done..done + n]);
            self.forward(n);
            done += n;
        }
    }

    pub fn skip(&mut self) {
        let n = self.frame.min(self.samples.len() - self.position);
        self.forward(n);
    }

    fn forward(&mut self, n: usize) {
        self.position += n;
        if self.repeat && self.position == self.samples.len() {
            self.position = 0;
        }
    }

    pub fn has_ended(&self) -> bool {
        self.position >= self.samples.len()
    }
}
