//! Who is in one conversation, and which of those a mixer makes hear each other.
//!
//! A [`Circle`] is a conversation: the parties that are bridged, and the supervisors with them. Two parties are relayed; a
//! silent supervisor gets copies of what they say. With three parties, or a supervisor that speaks, all hear the mixer
//! (spec/recording.md §4.6). [`Call::settle_seats`] makes the mixer agree with that.

use super::call::Call;
use super::core::Core;
use super::fact::What;
use super::leg::{Leg, in_use};
use super::talk::Doing;
use crate::bridge::command::Command;
use crate::bridge::command::mix::{Hearing, Join, MAX_MEMBERS, MixCommand, MixNotice, Mixing, Mode, Role, RoomDigits};
use crate::codec::{Codec, Kind, Payload};
use crate::id::{LegId, MixerId, RoomId};

/// One conversation of an answered call.
#[derive(Debug)]
pub(super) struct Circle {
    pub place: Place,
    /// Its parties, in the order of their joining.
    pub members: Vec<LegId>,
    /// The supervisors with them.
    pub observers: Vec<LegId>,
}

/// Which of the call's two conversations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Main,
    /// The consultation over one dialog.
    Consult,
}

/// The mixer that has the call's conferences, and their rooms there.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    mixer: Option<MixerId>,
    main: Option<RoomId>,
    consult: Option<RoomId>,
}

/// A leg's place in a mixer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seat {
    mixer: MixerId,
    room: RoomId,
    hearing: Hearing,
    /// Its peer hears the mixer; else the mixer only gets a copy.
    listens: bool,
}

/// A seat as the mixer knows it.
#[derive(Debug)]
pub(super) struct Seated {
    seat: Seat,
    receive: Vec<Payload>,
    send: Vec<Payload>,
}

impl Rooms {
    fn slot(&mut self, place: Place) -> &mut Option<RoomId> {
        match place {
            Place::Main => &mut self.main,
            Place::Consult => &mut self.consult,
        }
    }

    /// The room of a conversation, opened when it is new.
    fn room(&mut self, core: &mut Core, place: Place, sample_rate: u32) -> (MixerId, RoomId) {
        let mixer = *self.mixer.get_or_insert_with(|| core.choose_mixer());
        if let Some(room) = *self.slot(place) {
            return (mixer, room);
        }
        let room = core.next_room();
        *self.slot(place) = Some(room);
        core.count_room(mixer, true);
        core.mix(mixer, MixCommand::Open { room, sample_rate, digits: RoomDigits::Pass });
        (mixer, room)
    }

    /// Closes the rooms that `is_used` does not know.
    pub(super) fn close(&mut self, core: &mut Core, is_used: impl Fn(RoomId) -> bool) {
        let Some(mixer) = self.mixer else { return };
        for place in [Place::Main, Place::Consult] {
            if let Some(room) = self.slot(place).take_if(|room| !is_used(*room)) {
                core.count_room(mixer, false);
                core.mix(mixer, MixCommand::Close { room });
            }
        }
        if self.main.is_none() && self.consult.is_none() {
            self.mixer = None;
        }
    }
}

impl Leg {
    /// Takes a seat in a mixer, changes it, or leaves it.
    pub(super) fn sit(&mut self, core: &mut Core, seat: Option<Seat>) {
        let Some(seat) = seat else { return self.stand_up(core) };
        let (receive, send) = match self.sdp.negotiated() {
            Some(negotiated) => (negotiated.receive.clone(), negotiated.send.clone()),
            None => return self.stand_up(core),
        };
        let Seat { mixer, room, hearing, listens } = seat;
        let leg = self.id;
        let before = self.seated.replace(Seated { seat, receive: receive.clone(), send: send.clone() });
        match before.filter(|before| before.seat.room == room) {
            None => {
                let join = Join { room, leg, worker: self.worker, hearing, listens, receive, send };
                core.mix(mixer, MixCommand::Join(Box::new(join)));
                core.media(self.worker, Command::Mix { leg, mixing: Some(Mixing { mixer, listens }) });
            }
            Some(before) => {
                if before.seat.hearing != hearing {
                    core.mix(mixer, MixCommand::Hearing { leg, hearing });
                }
                if before.receive != receive || before.send != send {
                    core.mix(mixer, MixCommand::Describe { leg, receive, send });
                }
                if before.seat.listens != listens {
                    core.mix(mixer, MixCommand::Listen { leg, listens });
                    // The other way the mixer's last packet ends it, and the relay goes on behind that.
                    if listens {
                        core.media(self.worker, Command::Mix { leg, mixing: Some(Mixing { mixer, listens }) });
                    }
                }
            }
        }
    }

    /// Leaves its mixer. Its routes take over behind the mixer's last packet.
    pub(super) fn stand_up(&mut self, core: &mut Core) {
        if let Some(Seated { seat, .. }) = self.seated.take() {
            core.mix(seat.mixer, MixCommand::Leave { leg: self.id });
        }
    }

    /// A mixer can take what it sends and make what it takes.
    pub(super) fn is_mixable(&self) -> bool {
        self.sdp.negotiated().is_none_or(|negotiated| in_use(negotiated).is_some_and(is_mixable))
    }
}

/// True for codecs that mixers speak.
pub(super) fn is_mixable(codec: &Codec) -> bool {
    match codec.kind() {
        Kind::Pcmu | Kind::Pcma => codec.clock_rate == 8_000,
        Kind::L16 => matches!(codec.clock_rate, 8_000 | 16_000) && codec.channels == 1,
        Kind::TelephoneEvent | Kind::ComfortNoise | Kind::Other => false,
    }
}

impl Call {
    /// The conversations of an answered call. While somebody is transferred there is none.
    pub(super) fn circles(&self) -> Vec<Circle> {
        let Some(talk) = self.talk() else { return Vec::new() };
        let (main, consult) = match &talk.doing {
            Doing::Nothing => (talk.members.clone(), None),
            Doing::Transfer(_) | Doing::Make(_) => return Vec::new(),
            Doing::Consult(consult) => consult.circles(&talk.members),
        };
        let circle = |place, members: Vec<LegId>| {
            let observers = talk.observers.iter().filter(|o| self.place_of(o) == place).map(|o| o.leg).collect();
            Circle { place, members, observers }
        };
        let consult = consult.map(|members| circle(Place::Consult, members));
        std::iter::once(circle(Place::Main, main)).chain(consult).collect()
    }

    /// The conversation that a leg is in, as a party or a supervisor.
    pub(super) fn circle_of(&self, leg: LegId) -> Option<Circle> {
        self.circles().into_iter().find(|c| c.members.contains(&leg) || c.observers.contains(&leg))
    }

    /// A party talks to somebody, or could but for a hold.
    pub(super) fn has_company(&self, leg: LegId) -> bool {
        self.circle_of(leg).is_some_and(|circle| circle.members.len() > 1)
    }

    fn any(&self, legs: &[LegId], is: impl Fn(&Leg) -> bool) -> bool {
        legs.iter().any(|leg| self.leg(*leg).is_some_and(&is))
    }

    /// A supervisor of the circle may be heard by a party.
    fn is_spoken_to(&self, circle: &Circle) -> bool {
        let observers = self.talk().map(|t| t.observers.as_slice()).unwrap_or_default();
        observers.iter().any(|o| o.mode != Mode::Mute && circle.observers.contains(&o.leg))
    }

    /// Its parties hear the mixer, not each other's packets.
    pub(super) fn is_mixed(&self, circle: &Circle) -> bool {
        match circle.members.len() {
            0 => false,
            // Who is alone in a room may have a supervisor to talk to; who is held by a consultation has none.
            1 => self.is_room() && self.consult().is_none() && self.is_spoken_to(circle),
            2 => self.is_spoken_to(circle) || self.any(&circle.members, |leg| leg.is_muted || leg.is_deaf),
            _ => true,
        }
    }

    /// A pair of which one side holds.
    fn is_held_pair(&self, circle: &Circle) -> bool {
        circle.members.len() == 2 && self.any(&circle.members, Leg::has_hold)
    }

    /// A leg hears the mixer.
    pub(super) fn hears_mixer(&self, leg: LegId) -> bool {
        let Some(circle) = self.circle_of(leg) else { return false };
        if circle.observers.contains(&leg) {
            return !circle.members.is_empty();
        }
        if self.is_held_pair(&circle) {
            // Who has put the other side on hold may still be coached.
            return self.is_spoken_to(&circle) && self.leg(leg).is_some_and(|l| l.on_hold && !l.holds());
        }
        self.is_mixed(&circle)
    }

    /// A leg's conversation is mixed, whether it hears the mixer now or a hold keeps it from that.
    pub(super) fn is_in_mix(&self, leg: LegId) -> bool {
        let circle = self.circle_of(leg);
        circle.is_some_and(|circle| circle.observers.contains(&leg) || self.is_mixed(&circle))
    }

    /// Every member of a conference that hears the mixer.
    pub(super) fn mixed_legs(&self) -> Vec<LegId> {
        let legs = self.circles().into_iter().flat_map(|c| c.members.into_iter().chain(c.observers));
        legs.filter(|leg| self.hears_mixer(*leg)).collect()
    }

    fn hearing_of(&self, leg: &Leg, circle: &Circle) -> Hearing {
        let observer = self.talk().and_then(|t| t.observers.iter().find(|o| o.leg == leg.id));
        let role = observer.map_or(Role::Member, |o| Role::Supervisor { mode: o.mode, agent: o.agent });
        let held = leg.has_hold() || (role == Role::Member && self.is_held_pair(circle));
        let deaf = leg.is_deaf || (leg.on_hold && !self.is_spoken_to(circle));
        let muted = held || (leg.is_muted && role == Role::Member);
        Hearing { role, muted, deaf }
    }

    /// Mixed wide when two hear each other so.
    fn sample_rate_of(&self, circle: &Circle) -> u32 {
        let wide = |leg: &&LegId| self.any(&[**leg], |l| l.codec().is_some_and(|c| c.clock_rate == 16_000));
        let legs = circle.members.iter().chain(&circle.observers);
        if legs.filter(wide).count() > 1 { 16_000 } else { 8_000 }
    }

    /// Makes the mixer agree with the state: only differences are told.
    pub(super) fn settle_seats(&mut self, core: &mut Core) {
        let mut seats: Vec<(LegId, Seat)> = Vec::new();
        for circle in self.circles() {
            let is_observed = !circle.observers.is_empty() && !circle.members.is_empty();
            if !is_observed && !self.is_mixed(&circle) {
                continue;
            }
            let sample_rate = self.sample_rate_of(&circle);
            let (mixer, room) = self.rooms.room(core, circle.place, sample_rate);
            for id in circle.members.iter().chain(&circle.observers) {
                let Some(leg) = self.leg(*id) else { continue };
                let hearing = self.hearing_of(leg, &circle);
                seats.push((*id, Seat { mixer, room, hearing, listens: self.hears_mixer(*id) }));
            }
        }
        for leg in &mut self.legs {
            let seat = seats.iter().find(|(id, _)| *id == leg.id).map(|(_, seat)| *seat);
            leg.sit(core, seat);
        }
        self.rooms.close(core, |room| seats.iter().any(|(_, seat)| seat.room == room));
    }

    /// Two parties that are relayed must be on one media thread: one of them goes to the other's. True when one is on its
    /// way now.
    pub(super) fn gather(&mut self, core: &mut Core) -> bool {
        for circle in self.circles() {
            let [stays, goes] = circle.members[..] else { continue };
            if self.is_mixed(&circle) {
                continue;
            }
            let Some(worker) = self.leg(stays).map(|l| l.worker) else { continue };
            if let Some(leg) = self.leg_mut(goes)
                && leg.worker != worker
            {
                leg.move_to(core, worker);
                return true;
            }
        }
        false
    }

    /// Gives up all seats and rooms: the legs go on in another call.
    pub(super) fn leave_rooms(&mut self, core: &mut Core) {
        self.legs.iter_mut().for_each(|leg| leg.stand_up(core));
        self.rooms.close(core, |_| false);
    }

    /// Another party may come in.
    pub(super) fn has_room(&self) -> bool {
        self.talk().is_some_and(|t| t.members.len() + t.observers.len() + t.invited.len() < MAX_MEMBERS)
    }

    /// What a mixer says.
    pub(super) fn on_mix(&mut self, core: &mut Core, notice: &MixNotice) {
        let MixNotice::Refused { leg, room, .. } = notice else { return };
        let seated = self.leg(*leg).and_then(|l| l.seated.as_ref());
        if seated.is_none_or(|seated| seated.seat.room != *room) {
            return;
        }
        self.fact(core, What::Warning { text: "a mixer takes no more parties: the newest one of a conference leaves" });
        let Some(circle) = self.circle_of(*leg) else { return };
        let newest = circle.observers.last().or(circle.members.last());
        if let Some(newest) = newest.copied() {
            self.end_leg(core, newest, newest);
        }
    }
}
