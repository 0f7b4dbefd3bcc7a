//! Dial-in rooms: conferences whose members come by themselves (spec/interface.md `[[conference]]`).
//!
//! ```text
//!   INVITE ──200──► at the door ──its answer and its PIN are there──► in the room
//!                        │ wrong PIN, time-out, hangs up, full            │ leaves, is deleted
//!                        └──► BYE                                         └──► the others; alone: `when-alone`
//! ```
//! A caller at the door has a call of its own: it is no member, hears only our tones, and is not recorded. Who enters an
//! empty room makes that call the room; the legs of others go over to it. From then on a room is a conference like any
//! other ([`super::conference`]): two are relayed, more are mixed. It differs in this: one member may be alone, nobody is
//! transferred, and the room itself may own a recording, under the name of a leg that never speaks (spec/recording.md
//! §3).

mod pin;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use rand::RngExt;

pub(super) use self::pin::{Form, Prompts};
use self::pin::{Pin, Pressed};
use super::Calls;
use super::arrival::{Arrival, Part};
use super::call::{Call, Ending, State};
use super::core::{Core, Key, Timer};
use super::directory::{Class, Identity};
use super::fact::{Party, ReleaseCause, What};
use super::focus::Focus;
use super::headers::Content;
use super::leg::{Plays, carries_sound};
use super::mixing::{Rooms, is_mixable};
use super::options::{Conference, WhenAlone};
use super::owners::Owner;
use super::recording::Recording;
use super::request::{Code, Denied};
use super::setup::{Refusing, busy, unusable};
use super::talk::Talk;
use crate::bridge::command::mix::MAX_MEMBERS;
use crate::bridge::command::{Command, Digit};
use crate::codec::{Codec, Direction};
use crate::id::{CallUuid, ConnId, LegId, WorkerId};
use crate::record::mark::{Channel, Role, Side, StopCause};
use crate::sdp::{Session, Terms};
use crate::sip::endpoint::Reply;
use crate::sip::headers::Headers;
use crate::sip::message::Request;
use crate::sip::name::Name;

/// What makes a call one of a room.
#[derive(Debug)]
pub(super) struct Room {
    /// As it was when the caller came: a room that runs goes on with it.
    pub conference: Arc<Conference>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Door(Door),
    Open(Open),
}

/// A caller in front of the room.
#[derive(Debug)]
struct Door {
    /// Our offer stood in the 200: the ACK brings the answer.
    is_answering: bool,
    /// What it types; `None`: nothing is asked of it, or not any more.
    pin: Option<Pin>,
    /// It enters when the input in hand is done.
    enters: bool,
}

/// A room with members.
#[derive(Debug)]
struct Open {
    /// Who has opened it.
    first: LegId,
    /// It has had two members: whether it is recorded is decided, once per room.
    is_decided: bool,
    /// The name under which it owns its recording.
    owner: Option<LegId>,
}

/// Why a caller does not get in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TurnedAway {
    WrongPin,
    NoPin,
    Full,
}

impl TurnedAway {
    fn code(self) -> u16 {
        match self {
            Self::WrongPin => 403,
            Self::NoPin => 408,
            Self::Full => 486,
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::WrongPin => "wrong PIN",
            Self::NoPin => "no PIN",
            Self::Full => "the room is full",
        }
    }
}

/// Answers a caller in front of a room. `None`: it has given up, or heard why not. `live`: the calls that are up.
pub(super) fn knock(
    core: &mut Core,
    arrival: Arrival,
    conference: Arc<Conference>,
    called: String,
    live: &BTreeMap<Key, Call>,
) -> Result<Option<Call>, Refusing> {
    let room = core.index.rooms.get(&conference.number).and_then(|key| live.get(key));
    if room.is_some_and(|room| room.members_in() >= conference.max_members) {
        return Err(full(&arrival));
    }
    let recording = plan(core, &arrival.identity, &conference)?;
    let binds = [arrival.local.bind];
    // Two are relayed, on one media thread: the second goes where the first is.
    let beside = room.and_then(Call::worker_of_one).filter(|worker| core.ports.carries(*worker, &binds));
    let worker = beside.or_else(|| core.ports.choose(&binds)).ok_or(busy("no media ports"))?;
    let key = core.next_key();
    let role = role_of(&arrival.identity);
    let mut leg = arrival.leg(core, key, Part { role, side: Side::Origination, channel: Channel::Right, worker })?;
    let allowed = codecs(core);
    let terms = Terms::of(&allowed, Direction::SendRecv);
    let body = match &arrival.offer {
        Some(offer) => leg.sdp.answer(offer, &terms),
        None => Ok(leg.sdp.offer(&terms)),
    };
    let body = match body {
        Ok(body) => body,
        Err(why) => {
            leg.end(core);
            return Err(unusable(why, &arrival.local, "no codec for a room"));
        }
    };
    let Some(dialog) = arrival.answer(core, body) else {
        leg.end(core);
        return Ok(None);
    };
    leg.dialog = Some(dialog);
    arrival.introduce(core, &mut leg);
    core.index.dialogs.insert(dialog, key);
    let door = Door { is_answering: arrival.offer.is_none(), pin: None, enters: false };
    let mut call = Call {
        key,
        conn_id: ConnId(core.rng.random()),
        uuid: CallUuid(core.uuid()),
        started: core.wall,
        answered: None,
        consults: None,
        caller_number: arrival.number,
        dialed_number: called,
        state: State::Talking(Box::new(Talk::new(vec![leg.id], None))),
        legs: vec![leg],
        allowed: Some(allowed.into()),
        recording,
        pending: Vec::new(),
        waiting: VecDeque::new(),
        parting: Vec::new(),
        away: Vec::new(),
        lent: None,
        rooms: Rooms::default(),
        focus: None,
        room: Some(Box::new(Room { conference, stage: Stage::Door(door) })),
    };
    core.index.conns.insert(call.conn_id, key);
    call.ask_pin(core);
    Ok(Some(call))
}

/// What is to be recorded of who comes: nothing before the room has two members, or its own DN or trunk says so.
fn plan(core: &mut Core, caller: &Identity, conference: &Conference) -> Result<Recording, Refusing> {
    let recorder = core.choose_recorder().ok_or(busy("no recorder"))?;
    let mut recording = Recording::none(recorder);
    let wanted = conference.is_recorded(core.options.recording.default) || caller.record == Some(true);
    recording.required = wanted && (core.options.recording.required || caller.required);
    if recording.required && !core.space_ok {
        core.fact(None, What::RecordingFailed { id: None, cause: "no-space", required: true });
        return Err(busy("no space for a required recording"));
    }
    Ok(recording)
}

/// 486, as users of other conference bridges expect it; what kind of busy it is stands beside it.
fn full(arrival: &Arrival) -> Refusing {
    let mut reply = Reply::new(TurnedAway::Full.code());
    let warning = format!("399 {} \"The room is full\"", arrival.local.sip.ip());
    reply.headers.push(Name::Warning, Bytes::from(warning));
    reply.headers.push(Name::Reason, "Q.850;cause=17;text=\"The room is full\"");
    Refusing::new(reply, TurnedAway::Full.reason())
}

/// Who comes by a trunk is a customer everywhere (spec/sip.md §1); the others are members, supervisors' DNs too: one
/// that dials in is heard.
fn role_of(identity: &Identity) -> Role {
    match identity.class {
        Class::Trunk => Role::Customer,
        Class::Dn | Class::Other => Role::Member,
    }
}

/// What a mixer speaks of `media.codecs`, and what carries no sound.
fn codecs(core: &Core) -> Vec<Codec> {
    let usable = |c: &&Codec| is_mixable(c) || !carries_sound(c);
    core.options.media.codecs.iter().filter(usable).cloned().collect()
}

impl Calls {
    /// Lets in who may enter by the input in hand.
    pub(super) fn enter_rooms(&mut self) {
        while let Some(key) = self.core.entering.pop_front() {
            let Some(mut guest) = self.calls.remove(&key) else { continue };
            let Some(room) = &guest.room else { continue };
            match self.core.index.rooms.get(&room.conference.number).copied() {
                Some(open) => self.with(Some(open), |room, core| room.admit(core, guest)),
                None => {
                    guest.open(&mut self.core);
                    self.calls.insert(key, guest);
                    self.with(Some(key), |_, _| {});
                }
            }
        }
    }
}

// At the door.

impl Call {
    fn door_mut(&mut self) -> Option<&mut Door> {
        match &mut self.room.as_mut()?.stage {
            Stage::Door(door) => Some(door),
            Stage::Open(_) => None,
        }
    }

    fn door(&self) -> Option<&Door> {
        match &self.room.as_ref()?.stage {
            Stage::Door(door) => Some(door),
            Stage::Open(_) => None,
        }
    }

    /// Its caller has not entered the room yet.
    pub(super) fn is_at_door(&self) -> bool {
        self.door().is_some()
    }

    /// What a caller at the door hears; `None`: there is none.
    pub(super) fn plays_at_door(&self) -> Option<Plays> {
        Some(match &self.door()?.pin {
            Some(pin) if pin.is_begun() => Plays::Silence,
            Some(pin) if pin.wrong > 0 => Plays::WrongPin(pin.wrong),
            Some(_) => Plays::AskPin,
            None => Plays::Silence,
        })
    }

    /// Asks for the PIN, once there is media to type it with.
    fn ask_pin(&mut self, core: &mut Core) {
        let Some(room) = &mut self.room else { return };
        let Stage::Door(door) = &mut room.stage else { return };
        if let Some(right) = room.conference.pin.clone().filter(|_| !door.is_answering) {
            let pin = Pin::new(right, core.now);
            core.arm(self.key, Timer::Pin, pin.patience(core.now));
            door.pin = Some(pin);
            self.collect(core, true);
        }
        self.settle(core);
    }

    fn collect(&self, core: &mut Core, digits: bool) {
        if let Some(leg) = self.legs.first() {
            core.media(leg.worker, Command::Collect { leg: leg.id, digits });
        }
    }

    /// The ACK of a caller at the door. False: it is none, or brings no answer that is awaited.
    pub(super) fn on_door_ack(&mut self, core: &mut Core, leg: LegId, request: &Request) -> bool {
        let Some(door) = self.door_mut().filter(|door| door.is_answering) else { return false };
        door.is_answering = false;
        let answer = Content::of(&request.headers, &request.body).sdp;
        let answer = answer.as_deref().and_then(|body| Session::parse(body).ok());
        match answer.is_some_and(|answer| self.take_answer(leg, &answer).is_ok()) {
            true => self.ask_pin(core),
            false => self.release(core, ReleaseCause::Media, StopCause::Released, None, Ending::default()),
        }
        true
    }

    /// A key that a caller at the door has pressed. False: there is none.
    pub(super) fn type_pin(&mut self, core: &mut Core, digit: Digit, form: Form) -> bool {
        let now = core.now;
        let Some(door) = self.door_mut() else { return false };
        let Some(pin) = &mut door.pin else { return true };
        let (pressed, patience) = (pin.press(digit.key(), form), pin.patience(now));
        match pressed {
            Pressed::WrongAgain => self.turn_away(core, TurnedAway::WrongPin),
            Pressed::Right => {
                door.pin = None;
                core.disarm(self.key, Timer::Pin);
                self.collect(core, false);
            }
            Pressed::More | Pressed::Wrong => {
                core.arm(self.key, Timer::Pin, patience);
                self.settle(core);
            }
        }
        true
    }

    /// The PIN has not come in time.
    pub(super) fn on_pin_timeout(&mut self, core: &mut Core) {
        if self.is_at_door() {
            self.turn_away(core, TurnedAway::NoPin);
        }
    }

    fn turn_away(&mut self, core: &mut Core, why: TurnedAway) {
        let (code, reason) = (why.code(), why.reason());
        let mut bye_headers = Headers::new();
        bye_headers.push(Name::Reason, format!("SIP;cause={code};text=\"{reason}\""));
        let ending = Ending { bye_headers, ..Ending::default() };
        core.fact(None, What::Refused { code, reason });
        self.release(core, ReleaseCause::Rejected(code), StopCause::NotAnswered, None, ending);
    }

    /// Who has been asked for nothing more enters; with an offer open, after that.
    pub(super) fn may_enter(&mut self, core: &mut Core) {
        let is_busy = self.is_over() || self.has_open_offer();
        let is_ready = |door: &&mut Door| !door.is_answering && door.pin.is_none() && !door.enters;
        if let Some(door) = self.door_mut().filter(|door| !is_busy && is_ready(door)) {
            door.enters = true;
            core.entering.push_back(self.key);
        }
    }

    /// The caller at the door is the first in the room: its call is the room's.
    fn open(&mut self, core: &mut Core) {
        let Some(first) = self.legs.first().map(|leg| leg.id) else { return };
        let Some(room) = &mut self.room else { return };
        room.stage = Stage::Open(Open { first, is_decided: false, owner: None });
        let number = room.conference.number.clone();
        core.index.rooms.insert(number.clone(), self.key);
        self.focus = Some(Focus::begin(core, self.key, number));
        self.answered = Some(core.wall);
        self.entered(core, first, true);
    }

    /// The caller at the door becomes a member of this room.
    fn admit(&mut self, core: &mut Core, mut guest: Call) {
        if !self.has_place() {
            return guest.turn_away(core, TurnedAway::Full);
        }
        let Some(leg) = guest.legs.first().map(|leg| leg.id) else { return };
        guest.refuse_all_waiting(core);
        core.index.conns.remove(&guest.conn_id);
        guest.state = State::Over;
        self.adopt(core, &mut guest);
        if let Some(talk) = self.talk_mut() {
            talk.members.push(leg);
        }
        self.entered(core, leg, false);
    }

    fn entered(&mut self, core: &mut Core, leg: LegId, opened: bool) {
        let Some(party) = self.leg(leg).map(Self::party) else { return };
        let room = Party { dn: None, trunk: None, number: self.dialed_number.clone() };
        self.note(core, "conferenced", leg);
        self.fact(core, What::RoomEntered { call_uuid: self.uuid, room, leg, party, opened });
        if !self.record_room(core) {
            return self.refuse_unrecorded(core);
        }
        if !self.start_own(core, leg) {
            // Its recording is required and impossible: the others go on without it, if they do without it at all.
            return match self.goes_on_without(leg) {
                true => self.end_leg(core, leg, leg),
                false => self.refuse_unrecorded(core),
            };
        }
        self.settle(core);
        self.rebridge(core, leg);
    }
}

// In the room.

impl Call {
    fn open_room(&self) -> Option<(&Conference, &Open)> {
        let room = self.room.as_ref()?;
        match &room.stage {
            Stage::Open(open) => Some((&room.conference, open)),
            Stage::Door(_) => None,
        }
    }

    /// It is a room with members.
    pub(super) fn is_room(&self) -> bool {
        self.open_room().is_some()
    }

    /// Its members and those that are called into it; supervisors are none.
    fn members_in(&self) -> usize {
        let called = |talk: &Talk| talk.invited.iter().filter(|i| i.is_member()).count();
        self.talk().map_or(0, |talk| talk.members.len() + called(talk))
    }

    /// Where the only member of a room is.
    fn worker_of_one(&self) -> Option<WorkerId> {
        let [one] = self.talk()?.members[..] else { return None };
        self.leg(one).map(|leg| leg.worker)
    }

    /// The number of a room with members.
    pub(super) fn room_number(&self) -> Option<&str> {
        self.open_room().map(|(conference, _)| conference.number.as_str())
    }

    /// One more member may come in.
    pub(super) fn has_place(&self) -> bool {
        self.members_in() < self.max_members() && self.has_room()
    }

    /// Most members.
    pub(super) fn max_members(&self) -> usize {
        self.open_room().map_or(MAX_MEMBERS, |(conference, _)| conference.max_members)
    }

    pub(super) fn must_have_place(&self) -> Result<(), Denied> {
        match self.has_place() {
            true => Ok(()),
            false => Err(self.denied(Code::Limit, "the room has as many members as it may")),
        }
    }

    /// One member stays in the room when this one leaves. Who consults outside is not in it.
    pub(super) fn keeps_one(&self, leg: LegId) -> bool {
        let waits = self.open_room().is_some_and(|(conference, _)| conference.when_alone == WhenAlone::Wait);
        let is_away = self.consult().is_some_and(|consult| consult.by != leg);
        waits && !is_away && self.talk().is_some_and(|talk| talk.members.len() == 2 && talk.members.contains(&leg))
    }

    /// The room owns a recording from its second member's joining on. False: it is required and impossible.
    #[must_use]
    pub(super) fn record_room(&mut self, core: &mut Core) -> bool {
        let members = self.talk().map(|talk| talk.members.clone()).unwrap_or_default();
        let is_declined = self.is_declined(core, &members);
        let Some(room) = &mut self.room else { return true };
        let Stage::Open(open) = &mut room.stage else { return true };
        if members.len() < 2 || std::mem::replace(&mut open.is_decided, true) {
            return true;
        }
        if is_declined || !room.conference.is_recorded(core.options.recording.default) {
            return true;
        }
        let owner = core.next_leg();
        open.owner = Some(owner);
        let (trigger, rule) = match room.conference.record {
            Some(true) => ("room", "[[conference]] option `record = true`".to_owned()),
            _ => ("default", "`recording.default` is not \"none\": the room owns".to_owned()),
        };
        match self.record(core, owner, Owner { side: Side::Room, trigger, rule }) {
            Ok(_) => true,
            Err(why) => {
                let required = self.recording.required;
                self.fact(core, What::RecordingFailed { id: None, cause: why.label(), required });
                !required
            }
        }
    }

    /// The channel of a leg in the recording of `owner`: in a room left is the owner, or the first member when the room
    /// owns (spec/recording.md §2).
    pub(super) fn channel_in_room(&self, leg: LegId, owner: LegId) -> Option<Channel> {
        let (_, open) = self.open_room()?;
        let left = if Some(owner) == open.owner { open.first } else { owner };
        Some(if leg == left { Channel::Left } else { Channel::Right })
    }

    /// The room ends; its members may go on in another call.
    pub(super) fn close_room(&mut self, core: &mut Core, stop: StopCause) {
        let Some((conference, open)) = self.open_room() else { return };
        let owner = open.owner;
        core.index.rooms.remove(&conference.number);
        if let Some(owner) = owner {
            self.stop_sessions_of(core, owner, stop);
        }
        self.close_focus(core);
        self.room = None;
    }
}
