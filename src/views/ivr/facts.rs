//! What facts mean for the calls of IVR ports.

use super::call::{Call, Consult, Running, Stage};
use super::message::Message;
use super::rows::{self, Cue};
use super::{Ivr, Making, Output};
use crate::call::fact::{Fact, Party, ReleaseCause, Transfer, What};
use crate::id::{ConnId, LegId};

impl Ivr {
    /// What drivers are told of a fact, and what is asked because of it.
    pub fn fact(&mut self, fact: &Fact) -> Vec<Output> {
        let Some(conn_id) = fact.conn_id else { return Vec::new() };
        match &fact.what {
            What::CallStarted { leg, caller, consult_of, .. } => self.started(fact, conn_id, *leg, caller, *consult_of),
            What::NotMade { cause, .. } => self.not_made(conn_id, *cause),
            What::Ringing { leg, party, .. } => self.ringing(fact, conn_id, *leg, party),
            What::Answered { leg, party } => self.call_answered(fact, conn_id, *leg, party),
            What::Held { leg } => self.holds(conn_id, *leg, true),
            What::Retrieved { leg } => self.holds(conn_id, *leg, false),
            What::TransferStarted { by, to, how } => self.transfer_started(conn_id, *by, to, *how),
            What::Transferred { .. } => self.transferred(fact, conn_id),
            What::TransferFailed { by, to, cause } => self.transfer_failed(conn_id, *by, to, *cause),
            What::PartyInvited { by, to, observer: false } => self.invited(conn_id, *by, to),
            What::PartyAdded { .. } => self.added(fact, conn_id),
            What::RoomEntered { leg, party, .. } => self.entered(fact, conn_id, *leg, party),
            What::PartyNotAdded { by, to, cause } => self.not_added(conn_id, *by, to, *cause),
            What::PartyDeleted { leg, .. } => self.deleted(conn_id, *leg),
            What::PartyLeft { leg } => self.left(conn_id, *leg),
            What::Redirected { from, .. } => self.redirected(conn_id, from),
            What::Replaced { leg, by, party } => self.replaced(fact, conn_id, *leg, *by, party),
            What::Released { cause, answered, .. } => self.released(fact, conn_id, *cause, *answered),
            // Nothing that an IVR is told of.
            What::Refused { .. }
            | What::PartyInvited { observer: true, .. }
            | What::MuteChanged { .. }
            | What::ListenChanged { .. }
            | What::Monitoring { .. }
            | What::ObserverJoined { .. }
            | What::ObserverLeft { .. }
            | What::MonitorMode { .. }
            | What::Preference { .. }
            | What::RecordingStarted { .. }
            | What::RecordingBegun { .. }
            | What::RecordingPaused { .. }
            | What::RecordingResumed { .. }
            | What::OwnerChanged { .. }
            | What::RecordingStopped { .. }
            | What::RecordingPublished { .. }
            | What::RecordingFailed { .. }
            | What::Warning { .. } => {}
        }
        self.take()
    }

    /// The port's number, when the party is a port.
    fn port<'a>(&self, party: &'a Party) -> Option<&'a str> {
        party.dn.as_deref().filter(|dn| (self.options.is_port)(dn))
    }

    fn is_busy(&self, cause: ReleaseCause) -> bool {
        matches!(cause, ReleaseCause::Rejected(code) if self.options.busy.contains(&code))
    }

    /// A call becomes one of the interface.
    fn add(&mut self, fact: &Fact, conn_id: ConnId, dn: &str, leg: LegId, stage: Stage) -> bool {
        let has_room = self.calls.len() < self.options.max_calls;
        if has_room {
            self.calls.insert(conn_id, Call::new(fact.at, dn, leg, stage));
        }
        has_room
    }

    /// A call is none of the interface any more.
    fn remove(&mut self, conn_id: ConnId) -> Option<Call> {
        let call = self.calls.remove(&conn_id)?;
        for order in &call.waiting {
            self.fail(conn_id, order, super::FailedReq::NoSuchCall, Some(super::UNKNOWN_CALL));
        }
        Some(call)
    }

    fn started(&mut self, fact: &Fact, conn_id: ConnId, leg: LegId, caller: &Party, consult_of: Option<ConnId>) {
        let Some(dn) = self.port(caller) else { return };
        let begins = |message: &Message| matches!(message, Message::InitConf { .. } | Message::InitXfer { .. });
        if let Some(main) = consult_of
            && let Some(call) = self.calls.get_mut(&main)
            && call.dn == dn
        {
            call.consult = Some(Consult { conn_id, order: call.order(begins), answered: false });
            self.consults.insert(conn_id, main);
            return self.cue(main, Cue::Consults, None, None);
        }
        let dn = dn.to_owned();
        let made_by = self.making.remove(&conn_id).map(|making| making.order);
        if self.add(fact, conn_id, &dn, leg, Stage::Calling) {
            self.calls.get_mut(&conn_id).into_iter().for_each(|call| call.made_by.clone_from(&made_by));
            self.cue(conn_id, Cue::Calls, None, None);
        }
    }

    /// The port itself was not reached, or was to make no call any more: there is no call that drivers know.
    fn not_made(&mut self, conn_id: ConnId, cause: ReleaseCause) {
        match self.making.remove(&conn_id) {
            Some(Making { call, order }) => self.fail(call, &order, order.message.request(), rows::failure(cause)),
            None => self.ends_early(conn_id, cause),
        }
    }

    fn ringing(&mut self, fact: &Fact, conn_id: ConnId, leg: LegId, party: &Party) {
        let Some(dn) = self.port(party) else { return };
        if !self.calls.contains_key(&conn_id) && self.add(fact, conn_id, dn, leg, Stage::Ringing) {
            self.cue(conn_id, Cue::Rings, None, None);
        }
    }

    /// Ringing comes before the answer also of a port that answers at once.
    fn call_answered(&mut self, fact: &Fact, conn_id: ConnId, leg: LegId, party: &Party) {
        if let Some(main) = self.consults.get(&conn_id).copied() {
            if let Some(consult) = self.calls.get_mut(&main).and_then(|call| call.consult.as_mut()) {
                consult.answered = true;
            }
            self.cue(main, Cue::ConsultAnswers, None, None);
        }
        self.ringing(fact, conn_id, leg, party);
        let Some(call) = self.calls.get_mut(&conn_id) else { return };
        match call.stage {
            // Somebody else has answered.
            Stage::Ringing if party.dn.as_deref() != Some(&call.dn) => {
                self.remove(conn_id);
                self.cue(conn_id, Cue::Leaves, None, None);
            }
            Stage::Ringing => {
                (call.leg, call.stage) = (leg, Stage::Talking);
                self.cue(conn_id, Cue::Answers, None, None);
            }
            Stage::Calling => {
                (call.stage, call.made_by) = (Stage::Talking, None);
                self.cue(conn_id, Cue::Answers, None, None);
            }
            Stage::Talking => {}
        }
    }

    /// Told once, whatever holds: the phone by its key and we by request.
    fn holds(&mut self, conn_id: ConnId, leg: LegId, now: bool) {
        let Some(call) = self.calls.get_mut(&conn_id).filter(|call| call.leg == leg) else { return };
        if std::mem::replace(&mut call.held, now) != now {
            self.cue(conn_id, if now { Cue::Holds } else { Cue::Retrieves }, None, None);
        }
    }

    fn transfer_started(&mut self, conn_id: ConnId, by: LegId, to: &Party, how: Transfer) {
        let Some(call) = self.calls.get_mut(&conn_id).filter(|call| call.leg == by) else { return };
        // Of a consultation Held and Dialing have been told.
        if how != Transfer::SingleStep {
            return;
        }
        let order = call.order(|message| matches!(message, Message::OneStepXfer { .. }));
        call.running.push(Running { to: to.clone(), order });
        call.held = false;
        self.cue(conn_id, Cue::TransferStarts, None, None);
    }

    /// The port may be who leaves, who comes, who stays, or none of them.
    fn transferred(&mut self, fact: &Fact, conn_id: ConnId) {
        let What::Transferred { by, stays, target, party, consult, .. } = &fact.what else { return };
        if let Some(consult) = *consult {
            self.consults.remove(&consult);
            // The target's own call: it goes on under the main call's CallId.
            if self.remove(consult).is_some() {
                self.cue(consult, Cue::Leaves, None, None);
            }
        }
        if self.calls.get(&conn_id).is_some_and(|call| call.leg == *by) {
            self.remove(conn_id);
            self.cue(conn_id, Cue::Transferred, None, None);
        }
        // Nobody holds anybody after a transfer.
        self.holds(conn_id, *stays, false);
        self.call_answered(fact, conn_id, *target, party);
    }

    /// A transfer of the port's: the parties talk as before. Or one to the port: it rings no more.
    fn transfer_failed(&mut self, conn_id: ConnId, by: LegId, to: &Party, cause: ReleaseCause) {
        let busy = self.is_busy(cause);
        let Some(call) = self.calls.get_mut(&conn_id) else { return };
        if call.leg != by {
            if call.stage == Stage::Ringing {
                self.remove(conn_id);
                self.cue(conn_id, Cue::Leaves, None, None);
            }
            return;
        }
        // A consultation that was completed while its target rang.
        let consult = call.consult.take();
        if let Some(consult) = &consult {
            self.consults.remove(&consult.conn_id);
        }
        call.held = false;
        let order = call.end_running(to).and_then(|running| running.order);
        let order = order.or(call.completing.take()).or(consult.and_then(|consult| consult.order));
        let cue = if busy { Cue::TransferBusy } else { Cue::TransferFails };
        self.cue(conn_id, cue, order.as_ref(), rows::failure(cause));
    }

    fn invited(&mut self, conn_id: ConnId, by: LegId, to: &Party) {
        let Some(call) = self.calls.get_mut(&conn_id).filter(|call| call.leg == by) else { return };
        let order = call.order(|message| matches!(message, Message::OneStepConf { .. }));
        call.running.push(Running { to: to.clone(), order });
        self.cue(conn_id, Cue::Invites, None, None);
    }

    /// Somebody has joined: whom the port or another party has called in, or the port itself.
    fn added(&mut self, fact: &Fact, conn_id: ConnId) {
        let What::PartyAdded { leg, party, by, consult } = &fact.what else { return };
        if let Some(consult) = *consult {
            self.consults.remove(&consult);
            // The target's own call: it goes on under the main call's CallId.
            if self.remove(consult).is_some() {
                self.cue(consult, Cue::Leaves, None, None);
            }
        }
        match self.calls.get_mut(&conn_id) {
            Some(call) if call.stage == Stage::Talking => {
                call.added.push(*leg);
                if call.leg == *by {
                    call.consult.take_if(|own| Some(own.conn_id) == *consult);
                    call.end_running(party);
                    self.holds(conn_id, *by, false);
                }
                self.cue(conn_id, Cue::Joins, None, None);
            }
            _ => self.call_answered(fact, conn_id, *leg, party),
        }
    }

    /// Somebody has entered a dial-in room: a port, or another one with a port in it.
    fn entered(&mut self, fact: &Fact, conn_id: ConnId, leg: LegId, party: &Party) {
        if let Some(call) = self.calls.get_mut(&conn_id) {
            call.added.push(leg);
            return self.cue(conn_id, Cue::Joins, None, None);
        }
        let Some(dn) = self.port(party) else { return };
        if self.add(fact, conn_id, dn, leg, Stage::Talking) {
            self.cue(conn_id, Cue::Calls, None, None);
            self.cue(conn_id, Cue::Answers, None, None);
        }
    }

    /// Who was called in does not come. Busy leaves those held who were held for it; else Retrieved follows by itself.
    fn not_added(&mut self, conn_id: ConnId, by: LegId, to: &Party, cause: ReleaseCause) {
        let busy = self.is_busy(cause);
        let Some(call) = self.calls.get_mut(&conn_id) else { return };
        if call.leg != by {
            if call.stage == Stage::Ringing && to.dn.as_ref() == Some(&call.dn) {
                self.remove(conn_id);
                self.cue(conn_id, Cue::Leaves, None, None);
            }
            return;
        }
        let order = call.end_running(to).and_then(|running| running.order);
        let cue = match cause {
            ReleaseCause::Released | ReleaseCause::Abandoned => return,
            _ if busy => Cue::InviteBusy,
            _ => Cue::InviteFails,
        };
        self.cue(conn_id, cue, order.as_ref(), rows::failure(cause));
    }

    /// A party has left a conference: the port, one that has joined it, or the one that the call began with.
    fn deleted(&mut self, conn_id: ConnId, leg: LegId) {
        let Some(call) = self.calls.get_mut(&conn_id) else { return };
        if call.leg == leg {
            return self.left(conn_id, leg);
        }
        let cue = match call.added.iter().position(|added| *added == leg) {
            Some(at) => {
                call.added.remove(at);
                Cue::MemberLeaves
            }
            None if call.added.is_empty() => Cue::MemberLeaves,
            None => {
                call.added.remove(0);
                Cue::FirstLeaves
            }
        };
        self.cue(conn_id, cue, None, None);
    }

    fn left(&mut self, conn_id: ConnId, leg: LegId) {
        if self.calls.get(&conn_id).is_some_and(|call| call.leg == leg) {
            self.forget(conn_id);
            self.cue(conn_id, Cue::Leaves, None, None);
        }
    }

    /// The port rang, and it rings somewhere else.
    fn redirected(&mut self, conn_id: ConnId, from: &Party) {
        let rang = |call: &Call| call.stage == Stage::Ringing && Some(&call.dn) == from.dn.as_ref();
        if self.calls.get(&conn_id).is_some_and(rang) {
            self.remove(conn_id);
            self.cue(conn_id, Cue::Leaves, None, None);
        }
    }

    /// Another device of the same port is the port; another party has taken its place over.
    fn replaced(&mut self, fact: &Fact, conn_id: ConnId, leg: LegId, by: LegId, party: &Party) {
        match self.calls.get_mut(&conn_id) {
            Some(call) if call.leg == leg && party.dn.as_ref() == Some(&call.dn) => call.leg = by,
            Some(call) if call.leg == leg => {
                self.forget(conn_id);
                self.cue(conn_id, Cue::Leaves, None, None);
                self.call_answered(fact, conn_id, by, party);
            }
            Some(_) => {}
            None => self.call_answered(fact, conn_id, by, party),
        }
    }

    /// Removes a call and what is known of its consult call.
    fn forget(&mut self, conn_id: ConnId) -> Option<Call> {
        let call = self.remove(conn_id)?;
        if let Some(consult) = &call.consult {
            self.consults.remove(&consult.conn_id);
        }
        Some(call)
    }

    fn released(&mut self, fact: &Fact, conn_id: ConnId, cause: ReleaseCause, answered: bool) {
        if let Some(main) = self.consults.remove(&conn_id) {
            self.consult_released(fact, main, cause, answered);
        }
        let busy = self.is_busy(cause);
        let Some(call) = self.remove(conn_id) else { return };
        if call.stage == Stage::Calling && call.made_by.is_none() {
            self.ends_early(conn_id, cause);
        }
        let is_given_up = matches!(cause, ReleaseCause::Released | ReleaseCause::Abandoned);
        let cue = match call.stage {
            Stage::Calling if busy => Cue::CallBusy,
            Stage::Calling if call.made_by.is_some() && !is_given_up => Cue::CallFails,
            _ => Cue::Leaves,
        };
        self.cue(conn_id, cue, call.made_by.as_ref(), rows::failure(cause));
        // The held party has hung up: the consult call is the port's call now.
        if let Some(Consult { conn_id: consult, answered, .. }) = call.consult {
            self.consults.remove(&consult);
            let stage = if answered { Stage::Talking } else { Stage::Calling };
            if self.add(fact, consult, &call.dn, call.leg, stage) {
                self.cue(consult, if answered { Cue::Answers } else { Cue::Calls }, None, None);
            }
        }
    }

    /// What happens with the held call is told by facts of its own.
    fn consult_released(&mut self, fact: &Fact, main: ConnId, cause: ReleaseCause, answered: bool) {
        let busy = self.is_busy(cause);
        let Some(consult) = self.calls.get_mut(&main).and_then(|call| call.consult.take()) else { return };
        // Who has asked for the end knows of it; Retrieved or Released follows.
        if fact.cause.is_some() {
            return;
        }
        let cue = match cause {
            _ if answered => Cue::ConsultLeaves,
            ReleaseCause::Released | ReleaseCause::Abandoned => return,
            _ if busy => Cue::ConsultBusy,
            _ => Cue::ConsultFails,
        };
        self.cue(main, cue, consult.order.as_ref(), rows::failure(cause));
    }
}
