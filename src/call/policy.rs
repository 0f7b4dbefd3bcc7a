//! Which request is allowed in which state, and what it does there (spec/events.md §1, spec/sip.md §6).
//!
//! | Request | Allowed while |
//! |---|---|
//! | make-call | always ([`super::make`]) |
//! | answer-call | this side rings, and its phone has said Allow-Events: talk |
//! | release-call | always |
//! | hold-call | two talk and this side does not hold by request |
//! | retrieve-call | this side holds, or consults: the consultation ends |
//! | initiate-, mute-, single-step-transfer | two talk or hold, nothing else goes on |
//! | complete-transfer | this side consults; also while the target rings |
//! | alternate-call | this side consults and the target has answered |
//! | reconnect-call | this side consults |
//! | the last three | also where its DN has another call ([`super::across`]) |
//! | redirect-call | this side rings |
//! | initiate-conference | two or more talk or hold, nothing else goes on |
//! | complete-conference | this side consults and the target has answered |
//! | single-step-conference | two or more talk or hold; several at once |
//! | merge-calls | in both calls two or more talk or hold, nothing else goes on |
//! | delete-from-conference | nobody is transferred or consulted |
//! | send-dtmf | two talk, neither holds |
//! | listen-disconnect, -reconnect, set-mute-on, -off | the party talks to somebody |
//!
//! Anything else is refused with the state found, and nothing changes. The first of these that is wrong is the reason: the
//! body (400, before a call is looked for), `ThisDN` (unknown-dn), the ConnID (unknown-call), its leg in that call
//! (not-a-party), the state (wrong-state), then what the request names. A refusal is an EventError to `ThisDN` too, where
//! that is a DN.

use std::sync::Arc;

use super::Calls;
use super::call::{Call, Ending, State};
use super::core::{Core, Timer};
use super::dial::DialId;
use super::directory::{Destination, Identity};
use super::fact::{self, Asked, ReleaseCause, What};
use super::fetch::Key;
use super::recording::Recording;
use super::refer::Report;
use super::request::{Accepted, Ask, Code, Denied, Request, Ticket};
use super::transfer::Order;
use super::waiting::Waiting;
use crate::id::LegId;
use crate::record::mark::StopCause;
use crate::sip::headers::Headers;
use crate::sip::message::Response;
use crate::sip::name::Name;
use crate::sip::values::reason_phrase;

/// What facts say of the request that has caused them.
pub(super) fn asked(request: &Request) -> Arc<Asked> {
    Arc::new(Asked { dn: request.this_dn.clone(), reference: request.reference.clone() })
}

/// Where a number leads that a party names; else why nowhere.
pub(super) fn reachable(core: &Core, by: &Identity, to: &str) -> Result<Destination, &'static str> {
    if core.directory.room(by, to).is_some() {
        return Err("OtherDN is a dial-in room: parties enter it by calling it");
    }
    let destination = core.route(by, to).ok_or("OtherDN leads nowhere")?;
    if destination.identity.dn.is_some() && destination.identity.dn == by.dn {
        return Err("OtherDN is ThisDN itself");
    }
    if destination.registers && destination.targets.is_empty() {
        return Err("OtherDN is not registered");
    }
    Ok(destination)
}

impl Calls {
    /// A request from outside.
    pub(super) fn on_asked(&mut self, ticket: Ticket, request: Request) {
        if let Ask::MakeCall { to } = &request.ask {
            return self.on_make(ticket, &request, to);
        }
        let deny = |code, detail: String| Err(Denied { code, detail, state: "none".to_owned() });
        if self.core.directory.dn(&request.this_dn).is_none() {
            let detail = "ThisDN is no configured directory number".to_owned();
            return self.core.answer_request(ticket, deny(Code::UnknownDn, detail));
        }
        let Some(key) = self.core.index.conns.get(&request.conn_id).copied() else {
            let detail = format!("no live call has the ConnID {}", request.conn_id);
            return self.core.answer_request(ticket, deny(Code::UnknownCall, detail));
        };
        self.core.asked = Some(asked(&request));
        self.with(Some(key), |call, core| call.on_asked(core, ticket, request));
        self.core.asked = None;
        self.join_calls();
    }
}

impl Call {
    /// A request for this call: decided now, or when the open exchange has ended.
    pub(super) fn on_asked(&mut self, core: &mut Core, ticket: Ticket, request: Request) {
        if self.has_open_offer() && request.ask != Ask::ReleaseCall {
            return self.wait(core, Waiting::Request { ticket, request: Box::new(request) });
        }
        if let Some(across) = self.across(core, ticket, &request) {
            return core.pairs.asked.push_back(across);
        }
        if let Some(leg) = self.lacks_audio(core, &request) {
            return self.fetch(core, leg, ticket, Box::new(request));
        }
        let answer = self.decide(core, &request);
        core.answer_request(ticket, answer);
    }

    fn decide(&mut self, core: &mut Core, request: &Request) -> Result<Accepted, Denied> {
        let by = self.legs.iter().find(|l| l.identity.dn.as_deref() == Some(&request.this_dn)).map(|l| l.id);
        if self.is_at_door() && request.ask != Ask::ReleaseCall {
            return Err(self.denied(Code::WrongState, "the caller has not entered the room yet"));
        }
        if matches!(
            request.ask,
            Ask::RecordStart { .. } | Ask::RecordPause { .. } | Ask::RecordResume { .. } | Ask::RecordStop { .. }
        ) {
            return self.decide_recording(core, by.or_else(|| self.companion(core, request)), &request.ask);
        }
        let by = by.ok_or_else(|| self.denied(Code::NotAParty, "ThisDN has no leg in this call"))?;
        self.must_be_allowed(by, &request.ask)?;
        match &request.ask {
            Ask::MakeCall { .. } => Err(self.denied(Code::WrongState, "a new call concerns no other one")),
            Ask::AnswerCall => self.ask_answer(core, by),
            Ask::SendDtmf { digits } => self.ask_dtmf(core, by, digits),
            Ask::ReleaseCall => self.ask_release(core, by, request),
            Ask::HoldCall => self.ask_hold(core, by),
            Ask::RetrieveCall => self.ask_retrieve(core, by),
            Ask::InitiateTransfer { to } => self.ask_consult(core, by, to, false),
            Ask::MuteTransfer { to } => self.ask_consult(core, by, to, true),
            Ask::InitiateConference { to } => self.ask_consult(core, by, to, false),
            Ask::SingleStepConference { to, hold } => self.ask_single_step(core, by, to, *hold),
            Ask::CompleteConference { .. } => {
                self.must_consult(by)?;
                self.ask_complete_conference(core)
            }
            Ask::MergeCalls { .. } => Err(self.denied(Code::OtherCall, "OtherConnID names no other call of ThisDN")),
            Ask::DeleteFromConference { party } => self.ask_delete(core, by, party),
            Ask::ListenDisconnect { party } => self.ask_listen(core, by, party.as_deref(), true),
            Ask::ListenReconnect { party } => self.ask_listen(core, by, party.as_deref(), false),
            Ask::SetMuteOn { coach } => self.ask_mute(core, by, true, *coach),
            Ask::SetMuteOff { coach } => self.ask_mute(core, by, false, *coach),
            Ask::SingleStepTransfer { to } => self.ask_transfer(core, by, to),
            Ask::CompleteTransfer { .. } => {
                self.must_consult(by)?;
                if self.is_room() || self.talk().is_some_and(|t| t.members.len() > 2) {
                    return Err(self.denied(Code::WrongState, "a conference is held: the consulted party may join it"));
                }
                if self.talk().and_then(|t| t.opposite(by)).is_none() {
                    return Err(self.denied(Code::WrongState, "the held party has left"));
                }
                self.complete_consult(core);
                Ok(Accepted::new(self.conn_id))
            }
            Ask::AlternateCall { .. } => {
                self.must_consult(by)?;
                if self.consulted().is_none() {
                    return Err(self.denied(Code::WrongState, "the consulted party has not answered"));
                }
                self.alternate(core);
                Ok(Accepted::new(request.conn_id))
            }
            Ask::ReconnectCall { .. } => {
                self.must_consult(by)?;
                self.reconnect(core);
                Ok(Accepted::new(self.conn_id))
            }
            Ask::RedirectCall { to } => self.ask_redirect(core, by, to),
            Ask::RecordStart { .. } | Ask::RecordPause { .. } | Ask::RecordResume { .. } | Ask::RecordStop { .. } => {
                self.decide_recording(core, Some(by), &request.ask)
            }
        }
    }

    /// Who only rings or observes may not do what a party may.
    pub(super) fn must_be_allowed(&self, by: LegId, ask: &Ask) -> Result<(), Denied> {
        use Ask::{
            AnswerCall, DeleteFromConference, ListenDisconnect, ListenReconnect, RedirectCall, ReleaseCall, SetMuteOff,
            SetMuteOn,
        };
        if matches!(ask, AnswerCall | ReleaseCall | RedirectCall { .. }) || !matches!(self.state, State::Talking(_)) {
            return Ok(());
        }
        if self.leg(by).is_some_and(|l| l.dialog.is_none()) {
            return Err(self.denied(Code::WrongState, "ThisDN has not answered"));
        }
        let observes =
            matches!(ask, ListenDisconnect { .. } | ListenReconnect { .. } | SetMuteOn { .. } | SetMuteOff { .. });
        match self.observer(by).is_some() && !observes && !matches!(ask, DeleteFromConference { .. }) {
            true => Err(self.denied(Code::WrongState, "ThisDN only observes the call")),
            false => Ok(()),
        }
    }

    /// A refusal with the state found.
    pub(super) fn denied(&self, code: Code, detail: &str) -> Denied {
        Denied { code, detail: detail.to_owned(), state: self.state_name().to_owned() }
    }

    fn must_consult(&self, by: LegId) -> Result<(), Denied> {
        match self.consult().is_some_and(|c| c.by == by) {
            true => Ok(()),
            false => Err(self.denied(Code::WrongState, "ThisDN has no consultation in this call")),
        }
    }

    pub(super) fn must_be_plain(&self) -> Result<(), Denied> {
        match self.is_plain() {
            true => Ok(()),
            false => Err(self.denied(Code::WrongState, "two parties must talk or hold, and nothing else go on")),
        }
    }

    /// Where a number leads that a party of the call names.
    pub(super) fn target(&self, core: &Core, by: LegId, to: &str) -> Result<Destination, Denied> {
        let leg = self.leg(by).ok_or("ThisDN has left");
        let found = leg.and_then(|leg| reachable(core, &leg.identity, to));
        found.map_err(|why| self.denied(Code::UnknownTarget, why))
    }

    fn ask_release(&mut self, core: &mut Core, by: LegId, request: &Request) -> Result<Accepted, Denied> {
        let accepted = Accepted::new(request.conn_id);
        if let Some(dial) = self.dialling(by).filter(|dial| !self.calls_requester(*dial)) {
            self.refuse_for(core, dial, by);
            return Ok(accepted);
        }
        let consult = self.consult().map(|c| (c.by, c.conn_id));
        match consult {
            Some((consulting, conn_id)) if consulting == by && conn_id == request.conn_id => {
                self.drop_consult(core, true)
            }
            Some((consulting, _)) if consulting == by && self.goes_on_without(by) => self.end_leg(core, by, by),
            Some((consulting, _)) if consulting == by => {
                let held = self.talk().and_then(|t| t.opposite(by));
                match held {
                    Some(held) => self.end_leg(core, held, by),
                    None => self.release(core, ReleaseCause::Released, StopCause::Released, None, Ending::code(487)),
                }
            }
            Some(_) => self.end_leg(core, by, by),
            None if self.transfer().is_some_and(|t| t.by == by) => self.end_leg(core, by, by),
            None if self.goes_on_without(by) => self.end_leg(core, by, by),
            None => {
                let cause = if self.answered.is_some() { ReleaseCause::Released } else { ReleaseCause::Abandoned };
                self.release(core, cause, StopCause::Released, None, Ending::code(487));
            }
        }
        Ok(accepted)
    }

    /// The dial that rings at a leg.
    pub(super) fn dialling(&self, leg: LegId) -> Option<DialId> {
        self.dials().find(|d| d.branches.iter().any(|b| b.leg == leg)).map(|d| d.id)
    }

    /// A ringing party refuses by request.
    fn refuse_for(&mut self, core: &mut Core, id: DialId, leg: LegId) {
        let trusted = self.trusted();
        let Some(dial) = self.dial_mut(id) else { return };
        let legs = dial.close_branches(core, &Headers::new(), |b| b.leg == leg);
        dial.targets.clear();
        dial.failure = Some(super::dial::Failed { response: Response::new(603, reason_phrase(603)), trusted });
        let none_left = dial.branches.is_empty();
        legs.into_iter().for_each(|leg| self.drop_leg(core, leg));
        if none_left {
            self.go_on(core, id);
        }
    }

    fn ask_hold(&mut self, core: &mut Core, by: LegId) -> Result<Accepted, Denied> {
        let talks = self.has_company(by) && self.observer(by).is_none();
        if !talks || self.leg(by).is_some_and(|l| l.on_hold) {
            return Err(self.denied(Code::WrongState, "ThisDN talks to nobody who could be held"));
        }
        let conn_id = self.connection_of(by);
        if !self.press(core, by, Key::Hold) {
            self.suspend(core, by);
        }
        Ok(Accepted::new(conn_id))
    }

    fn ask_retrieve(&mut self, core: &mut Core, by: LegId) -> Result<Accepted, Denied> {
        let conn_id = self.connection_of(by);
        let holds = self.leg(by).is_some_and(|l| l.on_hold);
        if holds {
            self.resume(core, by);
            return Ok(Accepted::new(conn_id));
        }
        if self.consult().is_some_and(|c| c.by == by) {
            self.reconnect(core);
            return Ok(Accepted::new(self.conn_id));
        }
        Err(self.denied(Code::WrongState, "ThisDN holds nobody"))
    }

    /// The ConnID of the connection in which a leg is active.
    pub(super) fn connection_of(&self, leg: LegId) -> crate::id::ConnId {
        match self.consult() {
            Some(consult) if consult.is_active && (consult.by == leg || self.consulted() == Some(leg)) => {
                consult.conn_id
            }
            _ => self.conn_id,
        }
    }

    fn ask_transfer(&mut self, core: &mut Core, by: LegId, to: &str) -> Result<Accepted, Denied> {
        self.must_be_plain()?;
        let destination = self.target(core, by, to)?;
        let order = Order {
            by,
            destination,
            number: to.to_owned(),
            how: fact::Transfer::SingleStep,
            report: Report::Nobody,
            max_forwards: 70,
            referred_by: None,
            replaces: Headers::new(),
        };
        self.start_transfer(core, order);
        Ok(Accepted::new(self.conn_id))
    }

    fn ask_consult(&mut self, core: &mut Core, by: LegId, to: &str, is_mute: bool) -> Result<Accepted, Denied> {
        if is_mute {
            self.must_be_plain()?;
        }
        self.must_be_settled()?;
        let destination = self.target(core, by, to)?;
        Ok(Accepted::new(self.start_consult(core, by, destination, to.to_owned(), is_mute)))
    }

    fn ask_redirect(&mut self, core: &mut Core, by: LegId, to: &str) -> Result<Accepted, Denied> {
        let ringing = self.dialling(by).filter(|_| self.leg(by).is_some_and(|l| l.dialog.is_none()));
        // Who has asked for a call is called to make it.
        let ringing = ringing.filter(|id| !self.calls_requester(*id));
        let id = ringing.ok_or_else(|| self.denied(Code::WrongState, "ThisDN does not ring"))?;
        let destination = self.target(core, by, to)?;
        let from = self.leg(by).map(Self::party);
        let called = destination.identity.clone();
        let party = called.party(to.to_owned());
        let mut headers = Headers::new();
        headers.push(Name::Reason, "SIP;cause=302;text=\"Redirected\"");
        self.close_dial(core, id, &headers);
        if let (Some(route), Some(caller)) = (self.route(), self.legs.first())
            && self.recording.sessions.is_empty()
            && self.consults.is_none()
        {
            let recorder = self.recording.recorder;
            self.recording = Recording::plan(core, recorder, &caller.identity, &called, route);
        }
        if let Some(dial) = self.dial_mut(id) {
            dial.targets = destination.targets.into();
            dial.failure = None;
        }
        if let Some(from) = from {
            self.fact(core, What::Redirected { from, to: party });
        }
        core.arm(self.key, Timer::Ring(id), core.options.sip.ring_timeout);
        self.settle(core);
        self.go_on(core, id);
        Ok(Accepted::new(self.conn_id))
    }
}
