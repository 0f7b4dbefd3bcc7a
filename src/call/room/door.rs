//! At the door of a dial-in room: the caller is answered, its answer and its PIN are awaited, then it enters.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::pin::{Form, Pin, Pressed};
use super::{Room, Stage};
use crate::bridge::command::{Command, Digit};
use crate::call::arrival::{Arrival, Part};
use crate::call::call::{Call, Ending, State};
use crate::call::core::{Core, Key, Timer};
use crate::call::directory::{Class, Identity};
use crate::call::fact::{ReleaseCause, What};
use crate::call::headers::Content;
use crate::call::leg::{Plays, carries_sound};
use crate::call::mixing::is_mixable;
use crate::call::options::Conference;
use crate::call::recording::Recording;
use crate::call::setup::{Refusing, busy, refuse, unusable};
use crate::call::talk::Talk;
use crate::codec::{Codec, Direction};
use crate::id::LegId;
use crate::record::mark::{Channel, Role, Side, StopCause};
use crate::sdp::{Session, Terms};
use crate::sip::endpoint::Reply;
use crate::sip::headers::Headers;
use crate::sip::message::Request;
use crate::sip::name::Name;

/// A caller in front of the room.
#[derive(Debug)]
pub(super) struct Door {
    /// Our offer stood in the 200: the ACK brings the answer.
    is_answering: bool,
    /// What it types; `None`: nothing is asked of it, or not any more.
    pin: Option<Pin>,
    /// It enters when the input in hand is done.
    enters: bool,
}

/// Why a caller does not get in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnedAway {
    WrongPin,
    /// So many were wrong, its own or others', that none is taken now.
    TooMany,
    NoPin,
    Full,
}

impl TurnedAway {
    fn code(self) -> u16 {
        match self {
            Self::WrongPin | Self::TooMany => 403,
            Self::NoPin => 408,
            Self::Full => 486,
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::WrongPin => "wrong PIN",
            Self::TooMany => "too many wrong PINs",
            Self::NoPin => "no PIN",
            Self::Full => "the room is full",
        }
    }
}

/// Answers a caller in front of a room. `None`: it has given up, or heard why not. `live`: the calls that are up.
pub(in crate::call) fn knock(
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
    if conference.pin.is_some() && core.guesses.are_too_many(&conference.number, core.now) {
        return Err(refuse(TurnedAway::TooMany.code(), TurnedAway::TooMany.reason()));
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
    let state = State::Talking(Box::new(Talk::new(vec![leg.id], None)));
    let mut call = Call::begin(core, key, (arrival.number, called), state, (Some(allowed.into()), recording));
    call.legs.push(leg);
    call.room = Some(Box::new(Room { conference, stage: Stage::Door(door) }));
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
pub(in crate::call) fn role_of(identity: &Identity) -> Role {
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
    pub(in crate::call) fn is_at_door(&self) -> bool {
        self.door().is_some()
    }

    /// What a caller at the door hears; `None`: there is none.
    pub(in crate::call) fn plays_at_door(&self) -> Option<Plays> {
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
    pub(in crate::call) fn on_door_ack(&mut self, core: &mut Core, leg: LegId, request: &Request) -> bool {
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
    pub(in crate::call) fn type_pin(&mut self, core: &mut Core, digit: Digit, form: Form) -> bool {
        let now = core.now;
        let Some(Room { conference, stage: Stage::Door(door) }) = self.room.as_deref_mut() else { return false };
        let Some(pin) = &mut door.pin else { return true };
        let (pressed, patience) = (pin.press(digit.key(), form), pin.patience(now));
        let is_closed = core.guesses.are_too_many(&conference.number, now);
        if matches!(pressed, Pressed::Wrong | Pressed::WrongAgain) {
            core.guesses.add(&conference.number, now);
        }
        match pressed {
            // A right one, too: else many callers at once would have three tries each.
            Pressed::Right | Pressed::Wrong if is_closed => self.turn_away(core, TurnedAway::TooMany),
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
    pub(in crate::call) fn on_pin_timeout(&mut self, core: &mut Core) {
        if self.is_at_door() {
            self.turn_away(core, TurnedAway::NoPin);
        }
    }

    pub(super) fn turn_away(&mut self, core: &mut Core, why: TurnedAway) {
        let (code, reason) = (why.code(), why.reason());
        let mut bye_headers = Headers::new();
        bye_headers.push(Name::Reason, format!("SIP;cause={code};text=\"{reason}\""));
        let ending = Ending { bye_headers, ..Ending::default() };
        core.fact(None, What::Refused { code, reason });
        self.release(core, ReleaseCause::Rejected(code), StopCause::NotAnswered, None, ending);
    }

    /// Who has been asked for nothing more enters; with an offer open, after that.
    pub(in crate::call) fn may_enter(&mut self, core: &mut Core) {
        let is_busy = self.is_over() || self.has_open_offer();
        let is_ready = |door: &&mut Door| !door.is_answering && door.pin.is_none() && !door.enters;
        if let Some(door) = self.door_mut().filter(|door| !is_busy && is_ready(door)) {
            door.enters = true;
            core.entering.push_back(self.key);
        }
    }
}
