//! Conferences: N legs, each hearing the others by the rule of [`super::hearing`], on a tick of 20 ms.
//!
//! ```text
//! packets of legs → playout buffer each ┐            ┌ − own voice → encode → packet of the leg
//!                                       ├ sum, gain ─┤ + coaches …
//! what we play ─────────────────────────┘            └ as it is: one encode for all who hear just that
//! ```
//!
//! Pure: [`Mixer::packet`] takes what came and keeps it, [`Mixer::tick`] hands out what is due. Neither allocates nor
//! locks. Every packet made lasts a tick ([`MixedPacket`] says why). Ticks are absolute; rooms are spread over four phases
//! of 5 ms. A tick that begins 20 ms late is left out: time stamps go on, sequence numbers do not, and no burst makes up
//! for it.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use slab::Slab;

use super::command::Digit;
use super::command::mix::{Hearing, Join, JoinError, MAX_MEMBERS, MixCommand, MixNotice, RoomDigits};
use super::hearing;
use super::relay::MixedPacket;
use crate::id::{LegId, LegMap, MixerId, RoomId, WorkerId};

mod load;
mod member;
mod playout;
mod room;
mod spans;

pub use load::{Load, Shed};
use member::{Member, Parting};
use room::{Room, Scratch};

/// Between two ticks of a room, and what one packet lasts.
pub const TICK: Duration = Duration::from_millis(20);
/// Rooms tick in so many groups, one after the other.
const PHASES: u64 = 4;
/// Between two of them.
const PHASE: Duration = Duration::from_millis(5);
/// Rooms of one mixer; more are refused member by member.
pub const MAX_ROOMS: usize = 4_096;
/// Digits that may wait for the next tick; more are lost and counted.
const MAX_DIGITS: usize = 256;

/// What a mixer is given at its start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name.
    pub mixer: MixerId,
    /// Ticks are counted from here; arrival times, too.
    pub epoch: Instant,
    /// Members of all its rooms together; more are refused.
    pub max_members: usize,
}

/// A packet of a leg as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// The leg whose peer sent it.
    pub leg: LegId,
    /// The media thread that it came through.
    pub worker: WorkerId,
    /// Arrival in nanoseconds after the epoch.
    pub arrival_ns: u64,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Payload type.
    pub payload_type: u8,
}

/// What goes to the media thread of a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output<'a> {
    /// A packet for the leg's peer.
    Audio(LegId, MixedPacket<'a>),
    /// A digit for it.
    Digit(LegId, Digit, Duration),
    /// No more packets of the leg are wanted.
    Left(LegId),
}

/// Totals of one mixer since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Ticks of rooms that were carried out.
    pub ticks: u64,
    /// Packets made.
    pub made: u64,
    /// Packets of legs that are not here.
    pub unknown: u64,
    /// Packets whose payload type is not mixed.
    pub unmixable: u64,
    /// Packets too late to be heard.
    pub late: u64,
    /// Frames in which loss was concealed.
    pub concealed: u64,
    /// Ticks of rooms that were left out because they came 20 ms late.
    pub skipped: u64,
    /// Members refused because the mixer did not keep up.
    pub refused: u64,
    /// Ticks of the largest rooms that were left out to keep up.
    pub shed_ticks: u64,
    /// Ticks of rooms without time-stretch.
    pub shed_stretch: u64,
    /// Ticks of rooms without concealment.
    pub shed_concealment: u64,
    /// Ticks of rooms without meters.
    pub shed_meters: u64,
    /// Digits that found too many waiting.
    pub digits_lost: u64,
}

/// All conferences of one thread.
#[derive(Debug)]
pub struct Mixer {
    options: Options,
    rooms: Slab<Room>,
    by_id: HashMap<RoomId, usize>,
    members: Slab<Member>,
    legs: LegMap<usize>,
    /// Who sent the latest packet, and who came next the last time.
    sender: usize,
    expected: usize,
    phases: [Vec<usize>; PHASES as usize],
    /// The phase that is due next, counted from the epoch, and when: an instant is dear to compute anew.
    next: u64,
    due: Instant,
    /// When each phase is due next, in nanoseconds after the epoch.
    ticks_ns: [i64; PHASES as usize],
    /// When the phase before it began.
    began: Instant,
    load: Load,
    digits: VecDeque<(WorkerId, LegId, Digit, Duration)>,
    notices: VecDeque<MixNotice>,
    scratch: Box<Scratch>,
    counters: Counters,
}

impl Mixer {
    /// A mixer without rooms, whose first tick is the next one after `now`.
    pub fn new(options: Options, now: Instant) -> Self {
        let next = phase_after(options.epoch, now);
        Self {
            next,
            due: instant_of(options.epoch, next),
            ticks_ns: ticks_ns(next),
            began: now,
            options,
            rooms: Slab::new(),
            by_id: HashMap::new(),
            members: Slab::new(),
            legs: LegMap::default(),
            sender: usize::MAX,
            expected: usize::MAX,
            phases: Default::default(),
            load: Load::default(),
            digits: VecDeque::with_capacity(MAX_DIGITS),
            notices: VecDeque::with_capacity(64),
            scratch: Scratch::new(),
            counters: Counters::default(),
        }
    }

    /// Members of all rooms.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// Open rooms.
    pub fn rooms(&self) -> usize {
        self.rooms.len()
    }

    /// Its totals.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What it leaves out at present.
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// When [`Mixer::tick`] is due next; `None` without rooms.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.rooms.is_empty()).then_some(self.due)
    }

    /// What signaling should know; drain until `None`.
    pub fn poll_notice(&mut self) -> Option<MixNotice> {
        self.notices.pop_front()
    }

    /// Carries out a command. [`MixCommand::Shutdown`] is the thread's own.
    pub fn command(&mut self, command: MixCommand, now: Instant) {
        match command {
            MixCommand::Open { room, sample_rate, digits } => self.open(room, sample_rate, digits, now),
            MixCommand::Join(join) => self.join(*join),
            MixCommand::Hearing { leg, hearing } => self.change(leg, |member| member.set_hearing(hearing)),
            MixCommand::Listen { leg, listens } => self.change(leg, |member| member.listen(listens)),
            MixCommand::Describe { leg, receive, send } => {
                self.change(leg, |member| member.describe(&receive, &send));
            }
            MixCommand::Play { room, to, what } => self.play(room, to, &what),
            MixCommand::Leave { leg } => self.change(leg, |member| member.parting = Parting::Leaves),
            MixCommand::Close { room } => self.close(room),
            MixCommand::Shutdown => {}
        }
    }

    /// A packet of a leg came.
    pub fn packet(&mut self, arrived: &Arrived, payload: &[u8]) {
        let Some(key) = self.place_of(arrived.leg) else {
            self.counters.unknown += 1;
            return;
        };
        let member = &mut self.members[key];
        (self.sender, self.expected) = (key, member.follower);
        member.worker = arrived.worker;
        let until_tick = self.ticks_ns[member.phase] - arrived.arrival_ns as i64;
        if !member.packet(arrived, payload, until_tick, self.options.epoch, &mut self.counters) {
            let pressed = member.pressed.take();
            pressed.into_iter().for_each(|(digit, length)| self.digit(arrived.leg, digit, length));
        }
    }

    /// Packets come in the same order tick by tick: nearly always whoever followed the last time follows again, and nothing
    /// is looked up.
    fn place_of(&mut self, leg: LegId) -> Option<usize> {
        if self.members.get(self.expected).is_some_and(|member| member.leg == leg) {
            return Some(self.expected);
        }
        let key = *self.legs.get(&leg)?;
        self.members.get_mut(self.sender).into_iter().for_each(|before| before.follower = key);
        Some(key)
    }

    /// Carries out the tick that is due: those of one phase, called until [`Mixer::poll_timeout`] is later than `now`,
    /// which is read anew each time.
    pub fn tick(&mut self, now: Instant, mut emit: impl FnMut(WorkerId, Output<'_>)) {
        let (phase, number) = ((self.next % PHASES) as usize, (self.next / PHASES) as u32);
        let late = now.saturating_duration_since(self.due);
        // Only when this phase was due already as the one before began, nothing but work lies between.
        let worked = if self.due <= self.began { now.saturating_duration_since(self.began) } else { Duration::ZERO };
        self.began = now;
        self.load.observe(late, worked);
        (self.next, self.due) = (self.next + 1, self.due + PHASE);
        self.ticks_ns[phase] += TICK.as_nanos() as i64;
        while let Some((worker, leg, digit, length)) = self.digits.pop_front() {
            emit(worker, Output::Digit(leg, digit, length));
        }
        if !self.phases[phase].is_empty() {
            self.rooms_tick(phase, number, late, now, &mut emit);
        }
    }

    /// All rooms of a phase. Three of four phases of a mixer with one room have none: they cost as little as they can.
    #[inline(never)]
    fn rooms_tick(
        &mut self,
        phase: usize,
        number: u32,
        late: Duration,
        now: Instant,
        emit: &mut impl FnMut(WorkerId, Output<'_>),
    ) {
        let largest = self.largest();
        for at in 0..self.phases[phase].len() {
            let key = self.phases[phase][at];
            let shed = self.load.shed();
            let room = &self.rooms[key];
            let sheds = shed.ticks && !number.is_multiple_of(2) && room.members.len() == largest;
            let leaves_out = late >= TICK || sheds;
            self.counters.skipped += u64::from(late >= TICK);
            self.counters.shed_ticks += u64::from(sheds && late < TICK);
            self.room_tick(key, number, (!leaves_out).then_some(shed), now, emit);
        }
        self.end_rooms(phase);
    }

    fn largest(&self) -> usize {
        match self.load.shed().ticks {
            true => self.rooms.iter().map(|(_, room)| room.members.len()).max().unwrap_or(0),
            false => 0,
        }
    }

    /// One room's tick; without `shed` it is left out.
    fn room_tick(
        &mut self,
        key: usize,
        number: u32,
        shed: Option<Shed>,
        now: Instant,
        emit: &mut impl FnMut(WorkerId, Output<'_>),
    ) {
        let room = &mut self.rooms[key];
        let job = shed.map(|shed| room::Job { mixer: self.options.mixer, number, shed });
        match job {
            Some(job) => {
                let shed = job.shed;
                self.counters.ticks += 1;
                self.counters.shed_stretch += u64::from(shed.without.stretch);
                self.counters.shed_concealment += u64::from(shed.without.concealment);
                self.counters.shed_meters += u64::from(shed.meters);
                room.tick(job, &mut self.members, &mut self.scratch, &mut self.counters, emit);
            }
            None => room.skip(&mut self.members),
        }
        if let Some(to) = room.ended_playing() {
            self.notices.push_back(MixNotice::Played { room: room.id, to });
        }
        let room_id = room.id;
        // From behind: who leaves changes no other's place.
        while let Some(at) = self.rooms[key].attend.pop() {
            let member_key = self.rooms[key].members[at];
            let member = &mut self.members[member_key];
            let tells = job.is_some_and(|job| job.tells(member_key));
            if let Some(leg) = member.ended_playing().then_some(member.leg) {
                self.notices.push_back(MixNotice::Played { room: room_id, to: Some(leg) });
            }
            if let Some((digit, length)) = member.overdue_press(now) {
                let leg = member.leg;
                self.digit(leg, digit, length);
            }
            let member = &mut self.members[member_key];
            if member.parting == Parting::Leaves {
                emit(member.worker, Output::Left(member.leg));
                self.remove(member_key);
            } else if tells {
                let (leg, stats) = (member.leg, member.take_stats());
                self.notices.push_back(MixNotice::Stats { leg, stats });
            }
        }
    }

    fn open(&mut self, id: RoomId, sample_rate: u32, digits: RoomDigits, now: Instant) {
        if self.by_id.contains_key(&id) || self.rooms.len() >= MAX_ROOMS {
            return;
        }
        if self.rooms.is_empty() {
            // Nothing was due without rooms.
            self.next = self.next.max(phase_after(self.options.epoch, now));
            self.due = instant_of(self.options.epoch, self.next);
            self.ticks_ns = ticks_ns(self.next);
        }
        let fewest = (0..self.phases.len()).min_by_key(|phase| self.phases[*phase].len()).unwrap_or(0);
        let key = self.rooms.insert(Room::new(id, sample_rate, digits, fewest as u64));
        self.by_id.insert(id, key);
        self.phases[fewest].push(key);
    }

    fn join(&mut self, join: Join) {
        let (room, leg) = (join.room, join.leg);
        match self.try_join(join) {
            Ok(()) => self.notices.push_back(MixNotice::Joined { room, leg }),
            Err(why) => {
                self.counters.refused += u64::from(why == JoinError::Overload);
                self.notices.push_back(MixNotice::Refused { room, leg, why });
            }
        }
    }

    fn try_join(&mut self, join: Join) -> Result<(), JoinError> {
        let known = self.by_id.get(&join.room).copied();
        let key = known.filter(|key| !self.rooms[*key].closing).ok_or(JoinError::NoRoom)?;
        let here = self.legs.get(&join.leg).copied();
        let stays = here.is_some_and(|here| self.members[here].room == key);
        if !stays && self.rooms[key].members.len() >= MAX_MEMBERS {
            return Err(JoinError::Full);
        }
        if here.is_none() && self.members.len() >= self.options.max_members {
            return Err(JoinError::Full);
        }
        if here.is_none() && self.load.shed().new_members {
            return Err(JoinError::Overload);
        }
        if !Member::can_be_mixed(&join) {
            return Err(JoinError::Codec);
        }
        let phase = self.rooms[key].phase as usize;
        let member_key = match here {
            Some(here) => {
                let before = self.members[here].room;
                self.rooms[before].members.retain(|member| *member != here);
                self.rooms[before].find_coaches(&self.members);
                self.members[here].rejoin(&join, (key, phase));
                here
            }
            None => {
                let here = self.members.insert(Member::new(&join, (key, phase)));
                self.legs.insert(join.leg, here);
                here
            }
        };
        self.rooms[key].add(member_key);
        self.rooms[key].find_coaches(&self.members);
        Ok(())
    }

    fn change(&mut self, leg: LegId, change: impl FnOnce(&mut Member)) {
        let Some(key) = self.legs.get(&leg) else { return };
        let member = &mut self.members[*key];
        change(member);
        self.rooms[member.room].find_coaches(&self.members);
    }

    fn play(&mut self, room: RoomId, to: Option<LegId>, what: &super::command::mix::Announcement) {
        let Some(key) = self.by_id.get(&room).copied() else { return };
        let room = &mut self.rooms[key];
        let play = room::Play::new(what, room.rate, &self.scratch);
        match to {
            None => room.play = play,
            Some(leg) => {
                let member = self.legs.get(&leg).copied().filter(|member| self.members[*member].room == key);
                member.into_iter().for_each(|member| self.members[member].play.clone_from(&play));
            }
        }
    }

    fn close(&mut self, room: RoomId) {
        let Some(key) = self.by_id.get(&room).copied() else { return };
        let room = &mut self.rooms[key];
        room.closing = true;
        for member in &room.members {
            self.members[*member].parting = Parting::Leaves;
        }
    }

    fn remove(&mut self, key: usize) {
        let mut member = self.members.remove(key);
        self.legs.remove(&member.leg);
        let room = &mut self.rooms[member.room];
        room.members.retain(|other| *other != key);
        room.find_coaches(&self.members);
        let stats = member.take_stats();
        self.notices.push_back(MixNotice::Left { room: room.id, leg: member.leg, stats });
    }

    /// Rooms that were closed and are empty.
    fn end_rooms(&mut self, phase: usize) {
        let Self { phases, rooms, by_id, notices, .. } = self;
        if !phases[phase].iter().any(|key| rooms[*key].closing) {
            return;
        }
        phases[phase].retain(|key| {
            let ends = rooms[*key].closing && rooms[*key].members.is_empty();
            if ends {
                let room = rooms.remove(*key);
                by_id.remove(&room.id);
                notices.push_back(MixNotice::Closed { room: room.id });
            }
            !ends
        });
    }

    /// A member has pressed a digit.
    fn digit(&mut self, from: LegId, digit: Digit, length: Duration) {
        let Some(key) = self.legs.get(&from) else { return };
        let presser = &self.members[*key];
        let room = &self.rooms[presser.room];
        if room.digits != RoomDigits::Pass {
            self.notices.push_back(MixNotice::Digit { room: room.id, leg: from, digit, length });
        }
        if room.digits == RoomDigits::Tell {
            return;
        }
        let speaks: (LegId, Hearing) = (from, presser.hearing());
        for member in room.members.iter().map(|member| &self.members[*member]) {
            if !member.listens || !hearing::hears((member.leg, member.hearing()), speaks) {
                continue;
            }
            match self.digits.len() < MAX_DIGITS {
                true => self.digits.push_back((member.worker, member.leg, digit, length)),
                false => self.counters.digits_lost += 1,
            }
        }
    }
}

/// The first phase that is not before an instant.
fn phase_after(epoch: Instant, now: Instant) -> u64 {
    now.saturating_duration_since(epoch).as_nanos().div_ceil(PHASE.as_nanos()) as u64
}

/// When each phase comes next, in nanoseconds after the epoch, while `next` is due.
fn ticks_ns(next: u64) -> [i64; PHASES as usize] {
    std::array::from_fn(|phase| {
        let comes = next + (phase as u64 + PHASES - next % PHASES) % PHASES;
        (comes * PHASE.as_nanos() as u64) as i64
    })
}

fn instant_of(epoch: Instant, phase: u64) -> Instant {
    epoch + Duration::from_nanos(phase * PHASE.as_nanos() as u64)
}
