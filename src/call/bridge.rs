//! Requests in the dialogs of a call: BYE, INFO, lost peers (spec/sip.md §2, §7). Offers are in `offers`.

use super::call::{Call, Ending, Purpose, State, has_left, mapped};
use super::core::Core;
use super::digits::is_dtmf;
use super::fact::{ReleaseCause, What};
use super::headers::{Content, hide_caller, passed, passed_failure};
use super::refer::From;
use super::talk::{Exchange, Talk};
use crate::id::LegId;
use crate::record::mark::StopCause;
use crate::sip::endpoint::{DialogId, Failure, Refused, Reply, RequestId, ServerTx};
use crate::sip::headers::Headers;
use crate::sip::message::{Request, Response};
use crate::sip::method::Method;

impl Call {
    /// Both dialogs are confirmed: the media is joined. `in_ack`: D1's answer comes with its ACK.
    pub(super) fn begin_talking(&mut self, core: &mut Core, in_ack: bool) {
        let [a, b] = self.legs.as_slice() else { return };
        let (a, b, party) = (a.id, b.id, Self::party(b));
        let exchange = in_ack.then_some(Exchange::InAck { leg: a, first: true });
        self.state = State::Talking(Box::new(Talk::new(vec![a, b], exchange)));
        self.settle(core);
        self.fact(core, What::Answered { leg: b, party });
        if !in_ack {
            self.align(core, a);
        }
    }

    /// A request in one of the call's dialogs.
    pub(super) fn on_request(&mut self, core: &mut Core, tx: ServerTx, dialog: DialogId, request: Request) {
        if let Some(leg) = self.leg_of(dialog).and_then(|l| self.leg_mut(l)) {
            leg.learn_allow(&request.headers);
        }
        match request.method {
            Method::Bye => self.on_bye(core, tx, dialog, &request),
            Method::Invite | Method::Update => self.on_offer(core, tx, dialog, &request),
            Method::Info => self.on_info(core, tx, dialog, &request),
            Method::Refer => self.on_refer(core, tx, From { dialog, outside: None, to_focus: false }, &request),
            // The endpoint takes no other method (405); what it may add later is refused plainly.
            _ => core.answer(tx, None, Reply::new(501)),
        }
    }

    /// The leg of a dialog, early ones included.
    pub(super) fn leg_of(&self, dialog: DialogId) -> Option<LegId> {
        match &self.state {
            State::Calling(attempt) => attempt.leg_of(dialog, self.legs.first()?.id),
            _ => self.legs.iter().find(|l| l.dialog == Some(dialog)).map(|l| l.id),
        }
    }

    pub(super) fn trusted(&self) -> bool {
        self.legs.iter().all(|l| l.identity.trusted)
    }

    /// The lines of a request in the dialog of `from` that pass to the other leg.
    pub(super) fn passed_on(&self, request: &Request, from: Option<LegId>) -> Headers {
        let mut headers = passed(&request.headers, self.trusted());
        if self.legs.iter().any(|l| Some(l.id) != from && l.identity.caller_id.is_some()) {
            hide_caller(&mut headers);
        }
        headers
    }

    fn on_bye(&mut self, core: &mut Core, tx: ServerTx, dialog: DialogId, request: &Request) {
        core.answer(tx, None, Reply::new(200));
        if let Some(at) = self.parting.iter().position(|d| *d == dialog) {
            self.parting.swap_remove(at);
            core.index.dialogs.remove(&dialog);
            return;
        }
        let by = self.leg_of(dialog);
        if let Some(by) = by.filter(|by| self.goes_on_without(*by)) {
            return self.left(core, by, by);
        }
        let bye_headers = self.passed_on(request, by);
        let bye_body = Content::of(&request.headers, &request.body).with(None);
        let (cause, ending) = match &self.state {
            // BYE in an early dialog gives the INVITE up (RFC 3261 §15.1.2).
            State::Calling(_) => (ReleaseCause::Abandoned, Ending { bye_headers, ..Ending::code(487) }),
            _ if self.make().is_some() => (ReleaseCause::Abandoned, Ending { bye_headers, ..Ending::default() }),
            _ => (ReleaseCause::Released, Ending { bye_headers, bye_body, ..Ending::default() }),
        };
        self.release(core, cause, StopCause::Released, by, ending);
    }

    /// The answer to a request of ours in a dialog.
    pub(super) fn on_response(
        &mut self,
        core: &mut Core,
        request: RequestId,
        dialog: Option<DialogId>,
        outcome: Result<Response, Failure>,
    ) {
        let peer = dialog.and_then(|dialog| self.leg_of(dialog));
        let Some(at) = self.pending.iter().position(|(id, _)| *id == request) else { return };
        if matches!((&self.state, &outcome), (State::Talking(_), Err(Failure::Ended))) {
            // The peer's BYE has ended it, what that ends here follows at once; or ours has.
            self.is_done_with(core, request);
            return;
        }
        match self.pending.swap_remove(at).1 {
            Purpose::PassOffer { from, to, tx, offer } => {
                core.index.txs.remove(&tx);
                self.set_exchange(None);
                self.on_passed_offer(core, from, to, tx, &offer, outcome);
            }
            Purpose::OwnOffer { to } => {
                // One to a supervisor that has come from another call may be open beside another one.
                if self.talk().is_some_and(|talk| talk.exchange == Some(Exchange::Own { to })) {
                    self.set_exchange(None);
                }
                self.on_own_offer(core, to, outcome);
            }
            Purpose::Announce(announcement) => {
                if announcement.is_offer {
                    self.set_exchange(None);
                }
                self.on_announced(core, announcement, outcome);
            }
            Purpose::Undo { from, to } => {
                self.set_exchange(None);
                self.on_undone(core, from, to, outcome);
            }
            Purpose::Pass { tx } => self.on_passed(core, tx, peer, outcome),
            Purpose::Fetch { to, ticket, request } => {
                self.set_exchange(None);
                self.on_fetched(core, to, ticket, *request, outcome);
            }
            // A subscriber that has gone is told nothing more; the transfer goes on.
            Purpose::Notify => {}
            Purpose::Key => {
                if outcome.is_err() {
                    self.fact(core, What::Warning { text: "a phone has refused a NOTIFY of hold or talk" });
                }
            }
            Purpose::Digit => match outcome {
                Err(failure) if has_left(&failure) => self.lost_leg(core, peer),
                Err(_) => self.fact(core, What::Warning { text: "a peer has refused a digit as INFO" }),
                Ok(_) => {}
            },
            Purpose::Probe { leg } => match outcome {
                Err(failure) if has_left(&failure) || matches!(failure, Failure::Transport) => {
                    self.lost_leg(core, Some(leg));
                }
                _ => {
                    if let Some(leg) = self.leg_mut(leg) {
                        leg.rearm(core);
                    }
                }
            },
        }
    }

    /// The answer to a request that was passed to it.
    pub(super) fn on_passed(
        &mut self,
        core: &mut Core,
        tx: ServerTx,
        peer: Option<LegId>,
        outcome: Result<Response, Failure>,
    ) {
        core.index.txs.remove(&tx);
        let trusted = self.trusted();
        let (reply, left) = match outcome {
            Ok(response) => {
                let content = Content::of(&response.headers, &response.body);
                let headers = passed(&response.headers, trusted);
                (Reply { headers, body: content.with(None), ..Reply::new(response.code) }, false)
            }
            Err(failure) => {
                let gone = has_left(&failure);
                let reply = match failure {
                    Failure::Response(response) if mapped(response.code) == response.code => Reply {
                        reason: response.reason.clone(),
                        headers: passed_failure(&response.headers, trusted),
                        body: Content::of(&response.headers, &response.body).with(None),
                        ..Reply::new(response.code)
                    },
                    Failure::Response(response) => Reply::new(mapped(response.code)),
                    Failure::Timeout | Failure::Ended | Failure::Transport => Reply::new(500),
                };
                // 481 and 408 would end the asking leg's own dialog; the BYE that follows does that. An early dialog
                // that is gone leaves the others, and the INVITE.
                let reply = if gone { Reply::new(500) } else { reply };
                (reply, gone && matches!(self.state, State::Talking(_)))
            }
        };
        core.answer(tx, None, reply);
        if left {
            self.lost_leg(core, peer);
        }
    }

    /// A leg has vanished: the other one gets BYE, and so does this one, in case it still listens.
    pub(super) fn lost(&mut self, core: &mut Core) {
        let ending = Ending::default();
        self.release(core, ReleaseCause::Lost, StopCause::Released, None, ending);
    }

    /// INFO: digits only to the active peer, in a form that it takes; everything else as it is.
    fn on_info(&mut self, core: &mut Core, tx: ServerTx, dialog: DialogId, request: &Request) {
        let counterpart = match &self.state {
            State::Calling(attempt) => attempt.counterpart(dialog),
            _ => self.leg_of(dialog).and_then(|l| self.other(l)).and_then(|l| self.leg(l)).and_then(|l| l.dialog),
        };
        if is_dtmf(request) {
            if self.type_info(core, tx, request) {
                return;
            }
            if !self.is_active() {
                return core.answer(tx, None, Reply::new(200));
            }
            if self.press_info(core, tx, self.leg_of(dialog), request) {
                return;
            }
        }
        let headers = self.passed_on(request, self.leg_of(dialog));
        let Some(dialog) = counterpart else {
            return core.answer(tx, None, Reply::new(200));
        };
        let body = Content::of(&request.headers, &request.body).with(None);
        match core.endpoint.request(dialog, Method::Info, headers, body, core.now) {
            Ok(passed) => {
                core.index.requests.insert(passed, self.key);
                core.index.txs.insert(tx, self.key);
                self.pending.push((passed, Purpose::Pass { tx }));
            }
            Err(Refused::Full) => core.answer(tx, None, Core::busy()),
            Err(_) => core.answer(tx, None, Reply::new(500)),
        }
    }

    /// Nothing has come from a leg for the inactivity time.
    pub(super) fn on_inactive(&mut self, core: &mut Core, leg: LegId) {
        if self.pending.iter().any(|(_, purpose)| matches!(purpose, Purpose::Probe { leg: l } if *l == leg)) {
            return;
        }
        let Some(dialog) = self.leg(leg).and_then(|l| l.dialog) else { return };
        match core.endpoint.request(dialog, Method::Options, Headers::new(), None, core.now) {
            Ok(request) => {
                core.index.requests.insert(request, self.key);
                self.pending.push((request, Purpose::Probe { leg }));
            }
            Err(_) => self.lost_leg(core, Some(leg)),
        }
    }

    /// Our 2xx was never acknowledged.
    pub(super) fn on_no_ack(&mut self, core: &mut Core, dialog: DialogId) {
        if let Some(leg) = self.leg_of(dialog) {
            self.lost_leg(core, Some(leg));
        }
    }
}
