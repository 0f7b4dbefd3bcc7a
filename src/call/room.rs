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

mod door;
mod guesses;
mod pin;

use std::sync::Arc;

use self::door::{Door, TurnedAway};
pub(super) use self::door::{knock, role_of};
pub(super) use self::guesses::Guesses;
pub(super) use self::pin::{Form, Prompts};
use super::Calls;
use super::call::{Call, State};
use super::core::Core;
use super::fact::What;
use super::focus::Focus;
use super::options::{Conference, WhenAlone};
use super::owners::Owner;
use super::request::{Code, Denied};
use super::talk::Talk;
use crate::bridge::command::mix::MAX_MEMBERS;
use crate::id::{LegId, WorkerId};
use crate::record::mark::{Channel, Side, StopCause};

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

impl Calls {
    /// Lets in who may enter by the input in hand.
    pub(super) fn enter_rooms(&mut self) {
        while let Some(key) = self.core.entering.pop_front() {
            let room = self.calls.get(&key).and_then(|guest| guest.room.as_ref());
            let Some(open) = room.map(|room| self.core.index.rooms.get(&room.conference.number).copied()) else {
                continue;
            };
            let Some(mut guest) = self.calls.remove(&key) else { continue };
            match open {
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

impl Call {
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
        let room = self.dialed_number.clone();
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
    fn has_place(&self) -> bool {
        self.has_room() && self.must_have_places(1).is_ok()
    }

    /// Most members.
    pub(super) fn max_members(&self) -> usize {
        self.open_room().map_or(MAX_MEMBERS, |(conference, _)| conference.max_members)
    }

    /// So many more are no more members than the room may have.
    pub(super) fn must_have_places(&self, more: usize) -> Result<(), Denied> {
        match self.members_in() + more <= self.max_members() {
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
