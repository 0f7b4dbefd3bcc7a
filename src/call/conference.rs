//! Conferences made from calls: parties are called in, consulted ones join, parties leave (spec/events.md §1 rows 11, 12,
//! 14 to 16, spec/recording.md §4.5).
//!
//! ```text
//!             single-step-conference            2xx
//!   members ──────────────────────► invited ─────────► members + 1
//!      │                               │ failure, release, its inviter leaves
//!      │                               └─────────► as before; held until retrieved when busy and held for it
//!      │ complete-conference: the consulted party joins
//!      │ a party leaves or is deleted: two are relayed again; of two the call ends
//! ```

use super::call::{Call, Ending, mapped};
use super::consult::Target;
use super::core::{Core, Timer};
use super::dial::{Dial, DialId, Head};
use super::directory::Destination;
use super::fact::{Party, ReleaseCause, What};
use super::refer::Report;
use super::request::{Accepted, Code, Denied};
use super::supervision::{Observer, Watch};
use super::talk::Doing;
use crate::id::LegId;
use crate::record::mark::{Channel, Role, StopCause};
use crate::sip::headers::Headers;
use crate::sip::message::Response;
use crate::sip::values::{NameAddr, Uri};

/// Somebody is called into the call.
#[derive(Debug)]
pub(super) struct Invited {
    pub dial: Box<Dial>,
    /// Who has asked for it; of a supervisor the agent.
    pub by: LegId,
    pub to: Party,
    pub joins: Joins,
    /// Who is told how it goes.
    pub report: Report,
}

/// Somebody is to be called into the call.
pub(super) struct Invitation {
    pub by: LegId,
    pub destination: Destination,
    pub number: String,
    pub joins: Joins,
    pub report: Report,
    pub max_forwards: u8,
    /// Lines of its INVITE.
    pub extra: Headers,
}

impl Invitation {
    /// One that nobody is told of but by facts.
    pub(super) fn new(by: LegId, destination: Destination, number: String, joins: Joins) -> Self {
        let (report, max_forwards, extra) = (Report::Nobody, 70, Headers::new());
        Self { by, destination, number, joins, report, max_forwards, extra }
    }
}

/// As what.
#[derive(Debug, Clone)]
pub(super) enum Joins {
    Member {
        /// The inviter holds the others meanwhile.
        holds: bool,
    },
    Observer(Watch),
}

impl Invited {
    /// It is to be a member.
    pub(super) fn is_member(&self) -> bool {
        matches!(self.joins, Joins::Member { .. })
    }
}

impl Call {
    /// Calls somebody into the call.
    pub(super) fn invite(&mut self, core: &mut Core, invitation: Invitation) {
        let Invitation { by, destination, number, joins, report, max_forwards, extra } = invitation;
        let Some(leg) = self.leg(by) else { return };
        let same_class = if matches!(joins, Joins::Observer(_)) { Role::Supervisor } else { Role::Agent };
        let mut head = Head { max_forwards, extra, same_class, ..Head::of_party(leg) };
        // A room calls in its own name (RFC 4579 §5.2).
        if let Some(room) = self.room_number().filter(|_| matches!(joins, Joins::Member { .. })) {
            head.from = Some(NameAddr::new(Uri::sip(Some(room.as_bytes()), leg.local.sip)));
        }
        let to = destination.identity.party(number);
        let mut dial = self.dial_for(core, by, head, destination);
        dial.terms.formats.retain(|f| !super::leg::carries_sound(&f.codec) || super::mixing::is_mixable(&f.codec));
        let id = dial.id;
        let holds = matches!(joins, Joins::Member { holds: true });
        let observer = matches!(joins, Joins::Observer(_));
        if holds && let Some(leg) = self.leg_mut(by) {
            leg.on_hold = true;
        }
        if holds {
            self.fact(core, What::Held { leg: by });
            self.note(core, "held", by);
        }
        core.fact(Some(self.told_as(by)), What::PartyInvited { by, to: to.clone(), observer });
        if let Some(talk) = self.talk_mut() {
            talk.invited.push(Invited { dial: Box::new(dial), by, to, joins, report });
        }
        core.arm(self.key, Timer::Ring(id), core.options.sip.ring_timeout);
        self.settle(core);
        self.go_on(core, id);
    }

    fn take_invited(&mut self, id: DialId) -> Option<Invited> {
        let talk = self.talk_mut()?;
        let at = talk.invited.iter().position(|i| i.dial.id == id)?;
        Some(talk.invited.remove(at))
    }

    /// Who was called in has answered.
    pub(super) fn invited_answered(&mut self, core: &mut Core, id: DialId, target: LegId) {
        let Some(invited) = self.take_invited(id) else { return };
        let by = invited.by;
        let holds = match invited.joins {
            Joins::Member { holds } => holds,
            Joins::Observer(watch) => return self.observer_joined(core, by, target, watch),
        };
        if holds && self.leg(by).is_some_and(|l| l.on_hold) {
            self.leg_mut(by).into_iter().for_each(|leg| leg.on_hold = false);
            self.fact(core, What::Retrieved { leg: by });
            self.note(core, "retrieved", by);
        }
        self.join_member(core, target, by, None);
        let code = if self.takes_part(target) { 200 } else { 503 };
        self.notify(core, &invited.report, code, b"");
    }

    /// A party that talks to us becomes a member.
    pub(super) fn join_member(&mut self, core: &mut Core, leg: LegId, by: LegId, consult: Option<crate::id::ConnId>) {
        let Some(party) = self.leg(leg).map(Self::party) else { return };
        let Some(talk) = self.talk_mut() else { return };
        talk.members.push(leg);
        self.note(core, "conferenced", leg);
        self.fact(core, What::PartyAdded { leg, party, by, consult });
        if !self.record_room(core) {
            return self.refuse_unrecorded(core);
        }
        if !self.start_own(core, leg) {
            // Its recording is required and impossible: the others go on without it.
            return self.end_leg(core, leg, leg);
        }
        self.settle(core);
        self.rebridge(core, leg);
    }

    /// Who was called in does not come: the call is as before. Busy leaves those held who were held for it (seed 000).
    pub(super) fn invited_failed(&mut self, core: &mut Core, id: DialId, cause: ReleaseCause, answer: &Response) {
        let Some(invited) = self.take_invited(id) else { return };
        let by = invited.by;
        core.fact(Some(self.told_as(by)), What::PartyNotAdded { by, to: invited.to, cause });
        self.notify(core, &invited.report, mapped(answer.code), &answer.reason);
        let holds = matches!(invited.joins, Joins::Member { holds: true });
        if matches!(invited.joins, Joins::Member { .. }) {
            self.note(core, "conference-failed", by);
        }
        match holds && !self.counts_as_busy(core, by, answer.code) && self.leg(by).is_some_and(|l| l.on_hold) {
            true => self.retrieved(core, by),
            false => self.settle(core),
        }
    }

    /// Gives up calling somebody in.
    pub(super) fn revoke(&mut self, core: &mut Core, id: DialId) {
        self.close_dial(core, id, &Headers::new());
        self.invited_failed(core, id, ReleaseCause::Abandoned, &Response::new(487, ""));
    }

    /// The consulted party joins the held call, and the consulting one comes back to it. The consultation has been
    /// answered.
    pub(super) fn complete_conference(&mut self, core: &mut Core) {
        let Some(target) = self.consulted() else { return };
        let Some(talk) = self.talk_mut() else { return };
        let Doing::Consult(consult) = std::mem::replace(&mut talk.doing, Doing::Nothing) else { return };
        talk.again = None;
        let (by, conn_id) = (consult.by, consult.conn_id);
        for leg in self.legs.iter_mut().filter(|l| l.id == by || l.id == target) {
            leg.on_hold = false;
        }
        // It had the channel that the consulting party had not; now it is one of several.
        self.leg_mut(target).into_iter().for_each(|leg| leg.channel = Channel::Right);
        core.index.conns.remove(&conn_id);
        self.join_member(core, target, by, Some(conn_id));
    }

    /// The call ends in another one, which gets its supervisors. Who is only called into it is not any more.
    pub(super) fn dissolve(&mut self, core: &mut Core) -> Vec<Observer> {
        let called = self.talk().into_iter().flat_map(|t| &t.invited).map(|i| i.dial.id).collect::<Vec<_>>();
        called.into_iter().for_each(|id| self.revoke(core, id));
        self.leave_rooms(core);
        self.close_focus(core);
        self.refuse_all_waiting(core);
        for timer in [Timer::Glare, Timer::Untap, Timer::Digit] {
            core.disarm(self.key, timer);
        }
        self.talk_mut().map(|t| std::mem::take(&mut t.observers)).unwrap_or_default()
    }

    /// A party of a conference is gone: its sessions end, others' go on.
    fn member_left(&mut self, core: &mut Core, leg: LegId, by: LegId) {
        if self.consult().is_some_and(|c| c.by == leg) {
            self.drop_consult(core, true);
        }
        let Some(talk) = self.talk_mut() else { return };
        talk.members.retain(|m| *m != leg);
        let left = talk.members.len();
        let own: Vec<DialId> = talk.invited.iter().filter(|i| i.by == leg).map(|i| i.dial.id).collect();
        own.into_iter().for_each(|id| self.revoke(core, id));
        // First: its own recordings end with it, and only the others' tell of its leaving.
        self.hand_over(core, leg, None);
        self.note(core, "party-left", leg);
        self.remove_leg(core, leg);
        self.fact(core, What::PartyDeleted { leg, by, left });
        self.agent_left(core, leg);
        self.go_on_without(core);
    }

    /// Takes a leg out of the call: its sessions and its media end.
    pub(super) fn remove_leg(&mut self, core: &mut Core, leg: LegId) {
        self.forget_leg(core, leg);
        let Some(at) = self.legs.iter().position(|l| l.id == leg) else { return };
        let leg = self.legs.remove(at);
        self.hand_over(core, leg.id, None);
        self.let_end(core, leg);
    }

    /// BYE to a party whose leaving does not end the call, and what its own BYE would have done. `by`: who wants it.
    pub(super) fn end_leg(&mut self, core: &mut Core, leg: LegId, by: LegId) {
        let dialog = self.leg_mut(leg).and_then(|l| l.dialog.take());
        if let Some(dialog) = dialog {
            core.index.dialogs.remove(&dialog);
            core.bye(dialog, Headers::new(), None);
        }
        self.left(core, leg, by);
    }

    /// A party has left; the rest goes on. `by`: who has ended it.
    pub(super) fn left(&mut self, core: &mut Core, leg: LegId, by: LegId) {
        if self.observer(leg).is_some() {
            self.observer_left(core, leg);
        } else if self.transfer().is_some_and(|t| t.by == leg) {
            self.transferor_left(core);
        } else if self.transfer().is_some_and(|t| t.second == Some(leg)) {
            self.second_left(core);
        } else if self.transfer().is_some_and(|t| t.target() == Some(leg)) {
            self.target_left(core, leg);
        } else if self.consulted() == Some(leg) {
            self.consulted_left(core);
        } else if self.talk().is_some_and(|t| t.members.len() > 2) || self.keeps_one(leg) {
            self.member_left(core, leg, by);
        } else if self.consult().is_some_and(|c| c.by != leg) {
            self.held_left(core, leg);
        }
    }

    /// Somebody's leaving does not end the call.
    pub(super) fn goes_on_without(&self, leg: LegId) -> bool {
        let Some(talk) = self.talk() else { return false };
        if self.observer(leg).is_some() || talk.members.len() > 2 || self.keeps_one(leg) {
            return true;
        }
        match &talk.doing {
            Doing::Nothing | Doing::Make(_) => false,
            Doing::Transfer(transfer) => {
                transfer.by == leg || transfer.second == Some(leg) || transfer.target() == Some(leg)
            }
            Doing::Consult(consult) => match &consult.target {
                Target::Talking(target) => consult.by != leg && (talk.members.len() == 2 || *target != leg),
                Target::Dialing(_) => consult.by != leg,
            },
        }
    }

    // Requests.

    /// Two or more talk or hold, and nothing else goes on.
    pub(super) fn must_be_settled(&self) -> Result<(), Denied> {
        let settled = self.talk().is_some_and(|talk| {
            talk.members.len() >= 2
                && matches!(talk.doing, Doing::Nothing)
                && !talk.waits_for_answer()
                && !talk.invites_members()
        });
        match settled {
            true => Ok(()),
            false => Err(self.denied(Code::WrongState, "the parties must talk or hold, and nothing else go on")),
        }
    }

    /// Its media can be mixed, and there is a place for one more.
    pub(super) fn must_be_mixable(&self) -> Result<(), Denied> {
        if self.allowed.is_none() || !self.legs.iter().filter(|l| l.dialog.is_some()).all(super::leg::Leg::is_mixable) {
            return Err(self.denied(Code::Codec, "the call has no codec that can be mixed"));
        }
        match self.has_room() {
            true => Ok(()),
            false => Err(self.denied(Code::Limit, "the conference has as many parties as it may")),
        }
    }

    /// Two calls together are no larger than a conference may be.
    pub(super) fn must_have_room_for(&self, other: &Call) -> Result<(), Denied> {
        // One of the two legs of the DN that merges them leaves.
        self.must_have_places(other.talk().map_or(0, |talk| talk.members.len().saturating_sub(1)))?;
        match self.legs.len() + other.legs.len() <= crate::bridge::command::mix::MAX_MEMBERS {
            true => Ok(()),
            false => Err(self.denied(Code::Limit, "the conference would have more parties than it may")),
        }
    }

    pub(super) fn ask_single_step(
        &mut self,
        core: &mut Core,
        by: LegId,
        to: &str,
        holds: bool,
    ) -> Result<Accepted, Denied> {
        let talk = self.talk().filter(|t| matches!(t.doing, Doing::Nothing) && !t.waits_for_answer());
        if talk.is_none_or(|t| !t.members.contains(&by)) {
            return Err(self.denied(Code::WrongState, "ThisDN must talk or hold, and nothing else go on"));
        }
        self.must_be_mixable()?;
        self.must_have_places(1)?;
        let destination = self.target(core, by, to)?;
        self.invite(core, Invitation::new(by, destination, to.to_owned(), Joins::Member { holds }));
        Ok(Accepted::new(self.conn_id))
    }

    pub(super) fn ask_complete_conference(&mut self, core: &mut Core) -> Result<Accepted, Denied> {
        if self.consulted().is_none() {
            return Err(self.denied(Code::WrongState, "the consulted party has not answered"));
        }
        self.must_be_mixable()?;
        self.must_have_places(1)?;
        self.complete_conference(core);
        Ok(Accepted::new(self.conn_id))
    }

    /// spec/events.md §1 rows 15 and 16.
    pub(super) fn ask_delete(&mut self, core: &mut Core, by: LegId, party: &str) -> Result<Accepted, Denied> {
        let accepted = Accepted::new(self.conn_id);
        let leg =
            self.named_leg(party).ok_or_else(|| self.denied(Code::UnknownTarget, "OtherDN is not in the call"))?;
        if let Some(id) = self.dialling(leg).filter(|id| self.is_invited(*id)) {
            self.revoke(core, id);
            return Ok(accepted);
        }
        if !matches!(self.talk().map(|t| &t.doing), Some(Doing::Nothing)) {
            return Err(self.denied(Code::WrongState, "a transfer or a consultation goes on"));
        }
        let two_left = self.talk().is_none_or(|t| t.members.len() <= 2) && self.observer(leg).is_none();
        let leg = if two_left { by } else { leg };
        match self.goes_on_without(leg) {
            true => self.end_leg(core, leg, by),
            false => self.release(core, ReleaseCause::Released, StopCause::Released, None, Ending::default()),
        }
        Ok(accepted)
    }

    pub(super) fn ask_listen(
        &mut self,
        core: &mut Core,
        by: LegId,
        party: Option<&str>,
        deaf: bool,
    ) -> Result<Accepted, Denied> {
        let named = party.map_or(Some(by), |party| self.named_leg(party));
        let leg = named.ok_or_else(|| self.denied(Code::UnknownTarget, "OtherDN is not in the call"))?;
        if !self.has_company(leg) {
            return Err(self.denied(Code::WrongState, "OtherDN talks to nobody"));
        }
        self.must_be_mixable()?;
        if let Some(leg) = self.leg_mut(leg).filter(|l| l.is_deaf != deaf) {
            leg.is_deaf = deaf;
            let leg = leg.id;
            core.fact(Some(self.told_as(leg)), What::ListenChanged { leg, deaf });
            self.settle(core);
        }
        Ok(Accepted::new(self.told_as(leg)))
    }

    pub(super) fn ask_mute(
        &mut self,
        core: &mut Core,
        by: LegId,
        muted: bool,
        coach: bool,
    ) -> Result<Accepted, Denied> {
        if self.observer(by).is_some() {
            self.set_mode(core, by, muted, coach);
            return Ok(Accepted::new(self.told_as(by)));
        }
        if coach {
            return Err(self.denied(Code::WrongState, "only a supervisor coaches"));
        }
        if !self.has_company(by) {
            return Err(self.denied(Code::WrongState, "ThisDN talks to nobody"));
        }
        self.must_be_mixable()?;
        if let Some(leg) = self.leg_mut(by).filter(|l| l.is_muted != muted) {
            leg.is_muted = muted;
            self.fact(core, What::MuteChanged { leg: by, muted });
            self.settle(core);
        }
        Ok(Accepted::new(self.conn_id))
    }

    fn is_invited(&self, id: DialId) -> bool {
        self.talk().is_some_and(|t| t.invited.iter().any(|i| i.dial.id == id))
    }

    /// A leg by the DN of its party, or by the number of one behind a trunk.
    pub(super) fn named_leg(&self, party: &str) -> Option<LegId> {
        let is_dn = |l: &&super::leg::Leg| l.identity.dn.as_deref() == Some(party);
        let has_number = |l: &&super::leg::Leg| l.identity.dn.is_none() && l.number == party;
        self.legs.iter().find(is_dn).or_else(|| self.legs.iter().find(has_number)).map(|l| l.id)
    }
}
