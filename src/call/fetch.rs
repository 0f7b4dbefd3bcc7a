//! Hold and retrieve by request, and the audio of a phone that holds by its own SDP (spec/sip.md §6).
//!
//! A request acts on our media only. Where it needs what the phone says, and the phone holds, the phone is asked first:
//! by re-INVITE, or by pressing its key (`hold = "notify"`).

use super::call::{Call, Purpose, has_left};
use super::core::Core;
use super::fact::What;
use super::headers::Content;
use super::leg::Leg;
use super::options::HoldBy;
use super::pairs::Across;
use super::policy::asked;
use super::request::{Accepted, Ask, Code, Request, Ticket};
use super::talk::{Doing, Exchange};
use crate::codec::Direction;
use crate::id::LegId;
use crate::sip::endpoint::Failure;
use crate::sip::headers::Headers;
use crate::sip::message::Response;

/// A key of a phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Hold,
    Talk,
}

impl Call {
    /// A leg puts the other side on hold: our media only.
    pub(super) fn suspend(&mut self, core: &mut Core, by: LegId) {
        let conn_id = self.connection_of(by);
        if let Some(leg) = self.leg_mut(by) {
            leg.on_hold = true;
        }
        core.fact(Some(conn_id), What::Held { leg: by });
        self.settle(core);
        self.note(core, "held", by);
    }

    /// It talks to the other side again.
    pub(super) fn resume(&mut self, core: &mut Core, by: LegId) {
        let conn_id = self.connection_of(by);
        if let Some(leg) = self.leg_mut(by) {
            leg.on_hold = false;
        }
        core.fact(Some(conn_id), What::Retrieved { leg: by });
        self.settle(core);
        self.note(core, "retrieved", by);
        self.rebridge(core, by);
    }

    /// [`Call::resume`], by the phone's own key where it holds by itself and has one.
    pub(super) fn talk_again(&mut self, core: &mut Core, by: LegId) {
        if !self.leg(by).is_some_and(|leg| leg.holds()) || !self.press(core, by, Key::Talk) {
            return self.resume(core, by);
        }
        if let Some(leg) = self.leg_mut(by) {
            leg.on_hold = false;
        }
        self.settle(core);
    }

    /// Its phone holds by itself, and has no key that we could press.
    pub(super) fn holds_alone(&self, leg: LegId) -> bool {
        let has_key = |leg: &Leg| leg.identity.hold == HoldBy::Notify && leg.keys.talk;
        self.leg(leg).is_some_and(|leg| leg.holds() && !has_key(leg))
    }

    /// Presses a key of a phone whose DN says `hold = "notify"`: what follows is the phone's. False: it has no such key.
    pub(super) fn press(&mut self, core: &mut Core, leg: LegId, key: Key) -> bool {
        let Some(leg) = self.leg(leg).filter(|leg| leg.identity.hold == HoldBy::Notify) else { return false };
        let (has_key, event) = match key {
            Key::Hold => (leg.keys.hold, "hold"),
            Key::Talk => (leg.keys.talk, "talk"),
        };
        let dialog = leg.dialog.filter(|_| has_key);
        match dialog {
            Some(dialog) => self.press_key(core, dialog, event),
            None => {
                self.fact(core, What::Warning { text: "a phone takes no NOTIFY of hold or talk" });
                false
            }
        }
    }

    /// The leg of the requester where a request that is allowed needs its audio and its phone holds.
    pub(super) fn lacks_audio(&self, core: &Core, request: &Request) -> Option<LegId> {
        let leg = self.legs.iter().find(|l| l.identity.dn.as_ref() == Some(&request.this_dn))?;
        let talk = self.talk().filter(|talk| !talk.waits_for_answer())?;
        let consults = self.consult().is_some_and(|c| c.by == leg.id);
        let is_needed = match &request.ask {
            Ask::RetrieveCall => matches!(talk.doing, Doing::Nothing) || consults,
            Ask::InitiateTransfer { to } => self.must_be_plain().is_ok() && self.target(core, leg.id, to).is_ok(),
            Ask::AlternateCall { .. } => consults && self.consulted().is_some(),
            Ask::ReconnectCall { .. } => consults,
            _ => false,
        };
        (is_needed && leg.holds() && leg.dialog.is_some()).then_some(leg.id)
    }

    /// Asks a phone that holds for its audio; the request is answered when it has answered.
    pub(super) fn fetch(&mut self, core: &mut Core, leg: LegId, ticket: Ticket, request: Box<Request>) {
        if request.ask == Ask::RetrieveCall && !self.holds_alone(leg) {
            self.talk_again(core, leg);
            return core.answer_request(ticket, Ok(Accepted::new(request.conn_id)));
        }
        let terms = self.full_terms(core, leg, Direction::SendRecv);
        match self.send_offer(core, leg, &terms, (Headers::new(), &Content::default())) {
            Ok(sent) => {
                self.pending.push((sent, Purpose::Fetch { to: leg, ticket, request }));
                self.set_exchange(Some(Exchange::Own { to: leg }));
            }
            Err(_) => {
                let denied = self.denied(Code::Busy, "the phone cannot be asked for its audio now");
                core.answer_request(ticket, Err(denied));
            }
        }
    }

    /// The phone's answer. One that goes on holding has refused, too.
    pub(super) fn on_fetched(
        &mut self,
        core: &mut Core,
        to: LegId,
        ticket: Ticket,
        request: Request,
        outcome: Result<Response, Failure>,
    ) {
        let code = match &outcome {
            Ok(_) => Code::HeldByPhone,
            Err(Failure::Response(response)) if response.code == 491 => Code::Busy,
            Err(_) => Code::HeldByPhone,
        };
        match outcome {
            Ok(response) => {
                let answer = self.acknowledge(core, to, &response);
                let is_taken = answer.is_some_and(|answer| self.take_answer(to, &answer).is_ok());
                if is_taken && self.leg(to).is_some_and(|leg| !leg.holds()) {
                    return self.fetched(core, to, ticket, request);
                }
                if let Some(leg) = self.leg_mut(to).filter(|_| !is_taken) {
                    leg.sdp.offer_failed();
                }
                self.settle(core);
            }
            Err(failure) if has_left(&failure) => {
                core.answer_request(ticket, Err(self.denied(Code::WrongState, "the phone has left")));
                return self.lost_leg(core, Some(to));
            }
            Err(_) => {
                if let Some(leg) = self.leg_mut(to) {
                    leg.sdp.offer_failed();
                }
            }
        }
        core.answer_request(ticket, Err(self.denied(code, "the phone holds by itself and gives no audio")));
    }

    /// The phone gives its audio: now the request is carried out.
    fn fetched(&mut self, core: &mut Core, leg: LegId, ticket: Ticket, request: Request) {
        if core.index.conns.get(&request.conn_id) != Some(&self.key) {
            let request = Box::new(request);
            return core.pairs.asked.push_back(Across::Two { ticket, request, fetched: Some(leg) });
        }
        core.asked = Some(asked(&request));
        match (&request.ask, self.consult().is_some()) {
            (Ask::RetrieveCall, false) => {
                self.resume(core, leg);
                core.answer_request(ticket, Ok(Accepted::new(self.conn_id)));
            }
            _ => {
                self.fact(core, What::Retrieved { leg });
                self.settle(core);
                self.on_asked(core, ticket, request);
            }
        }
        core.asked = None;
    }
}
