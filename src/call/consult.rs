//! A consultation over one dialog: its owner is bridged to a third party while the second is held (spec/recording.md
//! §4.4). Two ConnIDs, one dialog.

use rand::RngExt;

use super::call::{Call, Ending};
use super::core::{Core, Timer};
use super::dial::{Dial, Head};
use super::directory::Destination;
use super::fact::{self, Party, ReleaseCause, What};
use super::recording::Connection;
use super::refer::Report;
use super::talk::Doing;
use super::transfer::{Phase, Transfer};
use crate::id::{ConnId, LegId};
use crate::record::mark::{Channel, StopCause};
use crate::sip::headers::Headers;
use crate::sip::message::Response;

/// A running consultation.
#[derive(Debug)]
pub(super) struct Consult {
    /// Its ConnID.
    pub conn_id: ConnId,
    /// Who consults.
    pub by: LegId,
    pub target: Target,
    /// `by` talks to the target; else to the other member of the call.
    pub is_active: bool,
    /// `by` never hears the target: a mute transfer.
    pub is_mute: bool,
}

/// The consulted party.
#[derive(Debug)]
pub(super) enum Target {
    Dialing(Box<Dial>),
    Talking(LegId),
}

impl Consult {
    /// Who is in the conversation of an owner. The recording of the consulting party, or of a supervisor that goes with it,
    /// goes where its owner goes, if that one's DN says so (`record-consult-calls`); everybody else's stays with the call,
    /// where the held connection is silent.
    pub(super) fn conversation_of(&self, call: &Call, owner: LegId, members: &[LegId]) -> (Vec<LegId>, Connection) {
        let goes = owner == self.by || call.is_with_consult(owner);
        let follows = goes && call.leg(owner).is_some_and(|l| l.identity.record_consult);
        match &self.target {
            _ if members.len() < 2 => (members.to_vec(), Connection::Unbridged),
            _ if !self.is_active => (members.to_vec(), Connection::Talking),
            Target::Talking(target) if follows => (vec![self.by, *target], Connection::Consulting),
            _ => (members.to_vec(), Connection::Held),
        }
    }

    pub(super) fn dial(&self) -> Option<&Dial> {
        match &self.target {
            Target::Dialing(dial) => Some(dial),
            Target::Talking(_) => None,
        }
    }

    pub(super) fn dial_mut(&mut self) -> Option<&mut Dial> {
        match &mut self.target {
            Target::Dialing(dial) => Some(dial),
            Target::Talking(_) => None,
        }
    }

    /// A leg that is only being called.
    pub(super) fn dials(&self, leg: LegId) -> bool {
        self.dial().is_some_and(|d| d.branches.iter().any(|b| b.leg == leg))
    }

    /// Who talks to whom: those of the call, and those of the consultation.
    pub(super) fn circles(&self, members: &[LegId]) -> (Vec<LegId>, Option<Vec<LegId>>) {
        match &self.target {
            _ if !self.is_active => (members.to_vec(), None),
            Target::Talking(target) if !self.is_mute => (self.held(members), Some(vec![self.by, *target])),
            _ => (self.held(members), None),
        }
    }

    /// Those that the consulting party has left for the consultation.
    fn held(&self, members: &[LegId]) -> Vec<LegId> {
        members.iter().copied().filter(|member| *member != self.by).collect()
    }
}

impl Call {
    /// Calls the third party while the other one is held; gives the consult call's ConnID.
    pub(super) fn start_consult(
        &mut self,
        core: &mut Core,
        by: LegId,
        destination: Destination,
        number: String,
        is_mute: bool,
    ) -> ConnId {
        let conn_id = ConnId(core.rng.random());
        let called = destination.identity.party(number);
        let Some(leg) = self.leg_mut(by) else { return conn_id };
        leg.on_hold = false;
        // In a consultation the consulted party takes the channel that its consulting party does not have.
        let channel = if leg.channel == Channel::Left { Channel::Right } else { Channel::Left };
        let head = Head { channel, ..Head::of_party(leg) };
        let caller = Self::party(leg);
        let dial = self.dial_for(core, by, head, destination);
        let id = dial.id;
        let target = Target::Dialing(Box::new(dial));
        let consult = Consult { conn_id, by, target, is_active: true, is_mute };
        self.set_doing(Doing::Consult(Box::new(consult)));
        core.index.conns.insert(conn_id, self.key);
        self.fact(core, What::Held { leg: by });
        let (call_uuid, consult_of) = (self.uuid, Some(self.conn_id));
        core.fact(Some(conn_id), What::CallStarted { call_uuid, leg: by, caller, called, consult_of, origin: None });
        core.arm(self.key, Timer::Ring(id), core.options.sip.ring_timeout);
        self.settle(core);
        self.note(core, "held", by);
        self.go_on(core, id);
        conn_id
    }

    /// The consulted party has answered.
    pub(super) fn consult_answered(&mut self, core: &mut Core, target: LegId) {
        let Some(consult) = self.consult_mut() else { return };
        consult.target = Target::Talking(target);
        let (conn_id, by, is_mute) = (consult.conn_id, consult.by, consult.is_mute);
        if let Some(party) = self.leg(target).map(Self::party) {
            core.fact(Some(conn_id), What::Answered { leg: target, party });
        }
        if self.talk().is_some_and(|t| !t.members.iter().any(|m| *m != by)) {
            // The held party has left meanwhile: this is the call now.
            self.consult_is_the_call(by, target);
        } else if is_mute {
            return self.complete_consult(core);
        }
        self.settle(core);
        self.rebridge(core, target);
    }

    fn consult_is_the_call(&mut self, by: LegId, target: LegId) {
        if let Some(talk) = self.talk_mut() {
            talk.members = vec![by, target];
            talk.doing = Doing::Nothing;
        }
    }

    /// The third party does not answer. Busy leaves the other one held until it is retrieved; every other failure
    /// retrieves it (seed 000).
    pub(super) fn consult_failed(&mut self, core: &mut Core, cause: ReleaseCause, answer: &Response) {
        let Some(consult) = self.end_of_consult(core, cause, false) else { return };
        if self.talk().is_some_and(|t| t.members.len() < 2) {
            return self.release(core, cause, StopCause::Released, None, Ending::code(answer.code));
        }
        let busy = self.counts_as_busy(core, consult.by, answer.code) && !consult.is_mute;
        if busy && let Some(leg) = self.leg_mut(consult.by) {
            leg.on_hold = true;
        }
        if busy {
            return self.settle(core);
        }
        if consult.is_mute {
            self.note(core, "transfer-failed", consult.by);
        }
        self.retrieved(core, consult.by);
    }

    /// A final answer to a party that `by` has called says that it is busy.
    pub(super) fn counts_as_busy(&self, core: &Core, by: LegId, code: u16) -> bool {
        match self.leg(by) {
            Some(leg) if leg.identity.ivr => core.options.sip.ivr_busy.contains(&code),
            _ => matches!(code, 486 | 600),
        }
    }

    /// The consultation is over: its ConnID and its fact.
    fn end_of_consult(&mut self, core: &mut Core, cause: ReleaseCause, answered: bool) -> Option<Consult> {
        self.consulted_is_let_go(core);
        let talk = self.talk_mut()?;
        let Doing::Consult(consult) = std::mem::replace(&mut talk.doing, Doing::Nothing) else { return None };
        core.fact(Some(consult.conn_id), What::Released { cause, by: None, answered });
        if consult.conn_id != self.conn_id {
            core.index.conns.remove(&consult.conn_id);
        }
        Some(*consult)
    }

    /// The held party talks again.
    pub(super) fn retrieved(&mut self, core: &mut Core, by: LegId) {
        if let Some(leg) = self.leg_mut(by) {
            leg.on_hold = false;
        }
        self.fact(core, What::Retrieved { leg: by });
        self.settle(core);
        self.note(core, "retrieved", by);
        self.rebridge(core, by);
    }

    /// Ends the consultation from our side. `stays_held`: the other party waits for RetrieveCall.
    pub(super) fn drop_consult(&mut self, core: &mut Core, stays_held: bool) {
        let Some(consult) = self.consult() else { return };
        let (by, target) = (consult.by, self.consulted());
        if let Some(dial) = consult.dial().map(|d| d.id) {
            self.close_dial(core, dial, &Headers::new());
        }
        if self.end_of_consult(core, ReleaseCause::Released, target.is_some()).is_none() {
            return;
        }
        if self.talk().is_some_and(|t| t.members.len() < 2) {
            return self.release(core, ReleaseCause::Released, StopCause::Released, None, Ending::code(487));
        }
        if let Some(leg) = self.leg_mut(by) {
            leg.on_hold = true;
        }
        if let Some(target) = target {
            self.part(core, target, None, &Report::Nobody);
        }
        match stays_held {
            true => self.settle(core),
            false => self.retrieved(core, by),
        }
    }

    /// Drops the consultation and retrieves the held party.
    pub(super) fn reconnect(&mut self, core: &mut Core) {
        self.drop_consult(core, false);
    }

    /// The consulted party has hung up: the other one stays held.
    pub(super) fn consulted_left(&mut self, core: &mut Core) {
        let Some(target) = self.consulted() else { return };
        let Some(by) = self.consult().map(|c| c.by) else { return };
        if self.end_of_consult(core, ReleaseCause::Released, true).is_none() {
            return;
        }
        if let Some(leg) = self.leg_mut(by) {
            leg.on_hold = true;
        }
        self.forget_leg(core, target);
        if let Some(at) = self.legs.iter().position(|l| l.id == target) {
            let leg = self.legs.remove(at);
            self.hand_over(core, target, None);
            self.let_end(core, leg);
        }
        self.settle(core);
    }

    /// The held party has hung up: its call is over, the consultation goes on as the call.
    pub(super) fn held_left(&mut self, core: &mut Core, leg: LegId) {
        let Some(consult) = self.consult() else { return };
        let (by, conn_id, target) = (consult.by, consult.conn_id, self.consulted());
        self.forget_leg(core, leg);
        self.stop_sessions_of(core, leg, StopCause::Released);
        // Who consults is not in the room: nobody is.
        self.close_room(core, StopCause::Released);
        let before = std::mem::replace(&mut self.conn_id, conn_id);
        core.index.conns.remove(&before);
        core.fact(Some(before), What::Released { cause: ReleaseCause::Released, by: Some(leg), answered: true });
        // Those who were told of the consult call before are told nothing new.
        let supervisors: Vec<LegId> = self.talk().into_iter().flat_map(|t| &t.observers).map(|o| o.leg).collect();
        let told_of_held = |supervisor: &LegId| self.observer(*supervisor).map(|o| o.agent) != target;
        supervisors.iter().filter(|s| told_of_held(s)).for_each(|s| self.show_observer(core, *s));
        if let Some(talk) = self.talk_mut() {
            talk.members.retain(|m| *m != leg);
        }
        if let Some(target) = target {
            self.consult_is_the_call(by, target);
        }
        if let Some(at) = self.legs.iter().position(|l| l.id == leg) {
            let leg = self.legs.remove(at);
            self.let_end(core, leg);
        }
        if let Some(leg) = self.leg_mut(by) {
            leg.on_hold = false;
        }
        self.settle(core);
        self.rebridge(core, by);
    }

    /// The consulting party talks to the other of its two.
    pub(super) fn alternate(&mut self, core: &mut Core) {
        let main = self.conn_id;
        let Some(consult) = self.consult_mut() else { return };
        consult.is_active = !consult.is_active;
        let (by, second) = (consult.by, consult.conn_id);
        let (held, active) = if consult.is_active { (main, second) } else { (second, main) };
        if let Some(leg) = self.leg_mut(by) {
            leg.on_hold = false;
        }
        core.fact(Some(held), What::Held { leg: by });
        core.fact(Some(active), What::Retrieved { leg: by });
        self.settle(core);
        // The recordings are told of the call that they belong to.
        self.note(core, if held == main { "held" } else { "retrieved" }, by);
        self.rebridge(core, by);
    }

    /// The held party and the consulted one are connected; the consulting party leaves, at once when the target has
    /// answered, else when it does.
    pub(super) fn complete_consult(&mut self, core: &mut Core) {
        let Some(talk) = self.talk_mut() else { return };
        let Doing::Consult(consult) = std::mem::replace(&mut talk.doing, Doing::Nothing) else { return };
        let Consult { conn_id, by, target, is_mute, .. } = *consult;
        let Some(stays) = self.talk().and_then(|t| t.opposite(by)) else { return };
        let talking = match &target {
            Target::Talking(leg) => Some(*leg),
            Target::Dialing(_) => None,
        };
        let to = match &target {
            Target::Talking(leg) => self.leg(*leg).map(Self::party),
            Target::Dialing(dial) => self.called_by(dial),
        };
        let to = to.unwrap_or(Party { dn: None, trunk: None, number: String::new() });
        let phase = match target {
            Target::Talking(leg) => Phase::Moving(leg),
            Target::Dialing(dial) => Phase::Dialing(dial),
        };
        let channel = self.leg(by).map_or(Channel::Right, |l| l.channel);
        let started = to.clone();
        let transfer = Transfer {
            by,
            is_gone: false,
            second: None,
            stays,
            to,
            channel,
            how: if is_mute { fact::Transfer::Mute } else { fact::Transfer::Consulted },
            phase,
            report: Report::Nobody,
            consult: Some(conn_id),
        };
        self.set_doing(Doing::Transfer(Box::new(transfer)));
        match talking {
            Some(target) => self.transfer_answered(core, target),
            None => {
                self.fact(core, What::TransferStarted { by, to: started, how: fact::Transfer::Consulted });
                self.settle(core);
            }
        }
    }
}
