//! Offers within a call (spec/sip.md §2).
//!
//! One offer is open per bridge. An offer that changes direction, codecs or m-lines goes to the other leg and its
//! answer comes back; a refresh or an address change is answered by us alone.

use bytes::Bytes;

use super::call::{Call, Ending, Purpose, State, has_left};
use super::core::Core;
use super::fact::{ReleaseCause, What};
use super::headers::{Content, name_call, passed};
use super::leg::Leg;
use super::talk::Exchange;
use crate::codec::Direction;
use crate::id::LegId;
use crate::record::mark::StopCause;
use crate::sdp::{self, Refusal, Session, Terms};
use crate::sip::endpoint::{Body, DialogId, Failure, Refused, Reply, RequestId, ServerTx};
use crate::sip::headers::Headers;
use crate::sip::message::{Request, Response};
use crate::sip::method::Method;
use crate::sip::name::Name;

impl Call {
    /// re-INVITE or UPDATE.
    pub(super) fn on_offer(&mut self, core: &mut Core, tx: ServerTx, dialog: DialogId, request: &Request) {
        let content = Content::of(&request.headers, &request.body);
        let Some(body) = &content.sdp else {
            return match request.method {
                Method::Invite => self.offer_in_answer(core, tx, dialog),
                _ => core.answer(tx, None, Reply::new(200)),
            };
        };
        let offer = match Session::parse(body) {
            Ok(offer) => offer,
            Err(_) => return core.answer(tx, None, Reply { reason: "Bad SDP".into(), ..Reply::new(400) }),
        };
        let target = self.early_target(dialog);
        let Some(from) = target.or_else(|| self.leg_of(dialog)) else {
            return core.answer(tx, None, Reply::new(481));
        };
        let ours = self.leg(from).map(|l| l.local.media);
        if let Err(refusal) = ours.map_or_else(|| offer.anchor(), |ours| offer.anchor_for(ours)) {
            return core.answer(tx, None, not_acceptable(self, refusal));
        }
        if target.is_some() || matches!(self.state, State::Calling(_)) {
            let Some(sdp) = self.early_sdp_mut(dialog) else { return core.answer(tx, None, Reply::new(481)) };
            if let Some(refused) = early_glare(sdp) {
                return core.answer(tx, None, refused);
            }
            answer_alone(core, tx, sdp, &offer);
            let negotiated = sdp.negotiated().cloned();
            if let (Some(leg), Some(negotiated)) = (self.leg_mut(from), negotiated) {
                leg.apply(core, &negotiated);
            }
            return;
        }
        if self.other(from).is_none() {
            return self.take_offer(core, tx, from, &offer);
        }
        if let Some(refused) = self.glare(from) {
            return core.answer(tx, None, refused);
        }
        let allowed = self.allowed.clone();
        let Some(leg) = self.leg_mut(from) else { return };
        if leg.sdp.compare(&offer, allowed.as_deref()).is_refresh() {
            answer_alone(core, tx, &mut leg.sdp, &offer);
            return self.settle(core);
        }
        if self.answer_hold(core, tx, from, &offer) {
            return;
        }
        let headers = self.passed_on(request, Some(from));
        self.pass_offer(core, tx, from, offer, (headers, &content));
    }

    /// With `hold-audio` a device's hold, and the end of it, is answered by us: the other side stays as it is and hears
    /// the file (spec/sip.md §2). False: it is no such offer, or we have no answer to it.
    fn answer_hold(&mut self, core: &mut Core, tx: ServerTx, from: LegId, offer: &Session) -> bool {
        let Ok(terms) = offer.terms() else { return false };
        if core.options.media.hold_audio.is_none() {
            return false;
        }
        let opposite = self.other(from).map_or(Direction::SendRecv, |other| self.shown(core, other));
        let before = self.holders();
        let Some(leg) = self.leg_mut(from) else { return false };
        if terms.direction.receives() && !leg.holds() {
            return false;
        }
        let Some(ours) = leg.sdp.terms().cloned() else { return false };
        let Ok(body) = leg.sdp.answer(offer, &ours.with_direction(opposite.reversed())) else { return false };
        leg.wants = terms.direction;
        core.answer(tx, None, Reply { body: Some(Body::sdp(body)), ..Reply::new(200) });
        self.settle(core);
        self.report_hold(core, &before);
        // It may have changed its codecs besides.
        self.align(core, from);
        true
    }

    /// What a leg's device wants as the other side is told: with `hold-audio` nobody is told of a hold.
    pub(super) fn shown(&self, core: &Core, leg: LegId) -> Direction {
        match self.leg(leg) {
            Some(leg) if core.options.media.hold_audio.is_none() || !leg.holds() => leg.wants,
            _ => Direction::SendRecv,
        }
    }

    /// Our description in an early dialog.
    fn early_sdp_mut(&mut self, dialog: DialogId) -> Option<&mut sdp::Local> {
        match &mut self.state {
            State::Calling(attempt) => attempt.sdp_mut(dialog),
            State::Talking(talk) => talk.dials_mut().find_map(|dial| dial.sdp_mut(dialog)),
            State::Over => None,
        }
    }

    /// An offer of a leg that nobody is bridged to, by hold or while it is transferred, or that hears a mixer: it is
    /// answered by us alone.
    fn take_offer(&mut self, core: &mut Core, tx: ServerTx, from: LegId, offer: &Session) {
        let before = self.holders();
        let is_mixed = self.is_in_mix(from);
        let Some(leg) = self.leg_mut(from) else { return };
        if leg.sdp.has_open_offer() {
            return core.answer(tx, None, Reply::new(491));
        }
        // A mixer sends and takes whenever the device does, whatever was said of an earlier hold.
        let terms = leg.sdp.terms().cloned().filter(|_| is_mixed).map(|t| t.with_direction(Direction::SendRecv));
        let body = match terms {
            Some(terms) => leg.sdp.answer(offer, &terms),
            None => leg.sdp.answer_alone(offer),
        };
        if answer_with(core, tx, body)
            && let Ok(terms) = offer.terms()
        {
            leg.wants = terms.direction;
        }
        self.settle(core);
        self.report_hold(core, &before);
        // Who was told of the hold before the call was mixed is to hear of its end.
        let mixed = self.mixed_legs();
        self.talk_mut().filter(|_| is_mixed).into_iter().for_each(|talk| talk.unaligned.clone_from(&mixed));
    }

    /// One open offer per bridge (spec/sip.md §2).
    fn glare(&self, from: LegId) -> Option<Reply> {
        let Some(talk) = self.talk() else { return Some(Reply::new(491)) };
        match talk.exchange? {
            Exchange::Passed { from: first } if first == from => Some(later()),
            _ => Some(Reply::new(491)),
        }
    }

    /// `beside`: the lines and body parts that cross with it.
    fn pass_offer(&mut self, core: &mut Core, tx: ServerTx, from: LegId, offer: Session, beside: (Headers, &Content)) {
        let terms = match (offer.terms(), self.allowed.as_deref()) {
            (Ok(terms), Some(allowed)) => terms.restricted_to(allowed),
            (Ok(terms), None) => terms,
            (Err(refusal), _) => return core.answer(tx, None, not_acceptable(self, refusal)),
        };
        if !terms.has_audio_codec() {
            return core.answer(tx, None, not_acceptable(self, Refusal::NoSharedCodec));
        }
        let Some(to) = self.other(from) else { return core.answer(tx, None, Reply::new(491)) };
        match self.send_offer(core, to, &terms, beside) {
            Ok(request) => {
                let purpose = Purpose::PassOffer { from, to, tx, offer: Box::new(offer) };
                self.pending.push((request, purpose));
                core.index.txs.insert(tx, self.key);
                self.set_exchange(Some(Exchange::Passed { from }));
            }
            Err(Refused::InvitePending) => core.answer(tx, None, Reply::new(491)),
            Err(Refused::Full) => core.answer(tx, None, Core::busy()),
            Err(_) => core.answer(tx, None, Reply::new(500)),
        }
    }

    /// A re-INVITE with an offer.
    pub(super) fn send_offer(
        &mut self,
        core: &mut Core,
        to: LegId,
        terms: &Terms,
        (mut headers, content): (Headers, &Content),
    ) -> Result<RequestId, Refused> {
        let key = self.key;
        self.name_call(to, &mut headers);
        let leg = self.leg_mut(to).ok_or(Refused::NoDialog)?;
        let dialog = leg.dialog.ok_or(Refused::NoDialog)?;
        let body = content.with(Some(leg.sdp.offer(terms)));
        match core.endpoint.request(dialog, Method::Invite, headers, body, core.now) {
            Ok(request) => {
                leg.await_answer(core);
                core.index.requests.insert(request, key);
                Ok(request)
            }
            Err(refused) => {
                leg.sdp.offer_failed();
                Err(refused)
            }
        }
    }

    /// Every INVITE to a DN says which call it is (spec/sip.md §4).
    pub(super) fn name_call(&self, to: LegId, headers: &mut Headers) {
        if self.leg(to).is_some_and(|l| l.identity.dn.is_some()) {
            name_call(headers, self.conn_id, self.uuid);
        }
    }

    pub(super) fn set_exchange(&mut self, exchange: Option<Exchange>) {
        if let Some(talk) = self.talk_mut() {
            talk.exchange = exchange;
        }
    }

    /// re-INVITE without SDP: our full offer; the answer comes in the ACK.
    fn offer_in_answer(&mut self, core: &mut Core, tx: ServerTx, dialog: DialogId) {
        let Some(from) = self.leg_of(dialog) else { return core.answer(tx, None, Reply::new(481)) };
        if let Some(refused) = self.glare(from) {
            return core.answer(tx, None, refused);
        }
        let wanted = self.other(from).map_or(Direction::SendRecv, |other| self.shown(core, other));
        let terms = self.full_terms(core, from, wanted);
        let Some(leg) = self.leg_mut(from) else { return };
        let reply = Reply { body: Some(Body::sdp(leg.sdp.offer(&terms))), ..Reply::new(200) };
        match core.endpoint.respond(tx, None, reply, core.now) {
            Ok(()) => {
                leg.await_answer(core);
                self.set_exchange(Some(Exchange::InAck { leg: from, first: false }));
            }
            Err(_) => leg.sdp.offer_failed(),
        }
    }

    /// All that we may offer to a leg, the codec in use first.
    pub(super) fn full_terms(&self, core: &Core, to: LegId, direction: Direction) -> Terms {
        let codecs = self.allowed.as_deref().unwrap_or(&core.options.media.codecs);
        let leg = self.leg(to);
        let mut terms = match (&self.allowed, leg.and_then(|l| l.sdp.terms())) {
            // An unrestricted call has no codec of ours: what was negotiated is offered again.
            (None, Some(terms)) => terms.clone().with_direction(direction),
            _ => Terms::of(codecs, direction),
        };
        let used = leg.and_then(|l| l.sdp.negotiated()).and_then(|n| n.send.first());
        if let Some(used) = used {
            terms = terms.preferring(&used.codec);
        }
        terms
    }

    /// The ACK of a 2xx of ours.
    pub(super) fn on_ack(&mut self, core: &mut Core, dialog: DialogId, request: &Request) {
        let Some(leg) = self.leg_of(dialog) else { return };
        if self.on_door_ack(core, leg, request) {
            return;
        }
        let is_open = self.leg(leg).is_some_and(|leg| leg.sdp.has_open_offer());
        // One of a supervisor that has come from another call may be open beside another one.
        let is_beside = is_open && self.observer(leg).is_some();
        let Some(talk) = self.talk_mut() else { return };
        let first = match talk.exchange {
            Some(Exchange::InAck { leg: waiting, first }) if waiting == leg => {
                talk.exchange = None;
                first
            }
            _ if is_beside => false,
            _ => return,
        };
        let before = self.holders();
        let answer = Content::of(&request.headers, &request.body).sdp;
        let answer = answer.as_deref().and_then(|body| Session::parse(body).ok());
        if answer.is_some_and(|answer| self.take_answer(leg, &answer).is_ok()) {
            self.settle(core);
            if !first {
                self.report_hold(core, &before);
            }
            self.align(core, leg);
            self.align_next(core);
        } else if first && self.focus.is_some() && self.goes_on_without(leg) {
            self.end_leg(core, leg, leg);
        } else if first {
            self.release(core, ReleaseCause::Media, StopCause::Released, None, Ending::default());
        } else {
            if let Some(leg) = self.leg_mut(leg) {
                leg.sdp.offer_failed();
            }
            self.fact(core, What::Warning { text: "an ACK brought no usable answer to our offer" });
        }
    }

    /// A leg's answer to our offer.
    pub(super) fn take_answer(&mut self, leg: LegId, answer: &Session) -> Result<Terms, Refusal> {
        let leg = self.leg_mut(leg).ok_or(Refusal::NoOffer)?;
        leg.sdp.apply_answer(answer)?;
        let terms = leg.sdp.answered_terms(answer)?;
        let offered = leg.sdp.terms().map_or(Direction::SendRecv, |t| t.direction);
        leg.answered(offered, terms.direction);
        Ok(terms)
    }

    pub(super) fn report_hold(&mut self, core: &mut Core, before: &[(LegId, bool)]) {
        for (leg, held) in before {
            let Some(now) = self.leg(*leg).map(Leg::holds) else { continue };
            if now != *held {
                let leg = *leg;
                self.fact(core, if now { What::Held { leg } } else { What::Retrieved { leg } });
                self.note(core, if now { "held" } else { "retrieved" }, leg);
            }
        }
    }

    pub(super) fn holders(&self) -> Vec<(LegId, bool)> {
        self.legs.iter().map(|l| (l.id, l.holds())).collect()
    }

    pub(super) fn on_passed_offer(
        &mut self,
        core: &mut Core,
        from: LegId,
        to: LegId,
        tx: ServerTx,
        offer: &Session,
        outcome: Result<Response, Failure>,
    ) {
        let response = match outcome {
            Ok(response) => response,
            Err(failure) => return self.on_refused_offer(core, to, tx, failure),
        };
        if let Some(dialog) = self.leg(to).and_then(|l| l.dialog) {
            let _ = core.endpoint.ack(dialog, None, core.now);
        }
        let before = self.holders();
        let content = Content::of(&response.headers, &response.body);
        let answer = content.sdp.as_deref().and_then(|body| Session::parse(body).ok());
        let terms = answer.and_then(|answer| self.take_answer(to, &answer).ok());
        let Some(terms) = terms else {
            if let Some(leg) = self.leg_mut(to) {
                leg.sdp.offer_failed();
            }
            self.fact(core, What::Warning { text: "an offer was answered without a usable answer" });
            return core.answer(tx, None, Reply::new(500));
        };
        let trusted = self.trusted();
        let answerer = self.leg(to).and_then(|leg| Some((leg, leg.sdp.negotiated()?)));
        let ours = answerer.map(|(leg, n)| leg.terms_for(n, &terms, offer, self.allowed.as_deref())).unwrap_or(terms);
        let Some(leg) = self.leg_mut(from) else { return };
        let Ok(body) = leg.sdp.answer(offer, &ours) else {
            core.answer(tx, None, Reply::new(488));
            // The other side has taken what this one cannot have.
            return self.align(core, from);
        };
        if let Ok(offered) = offer.terms() {
            leg.wants = offered.direction;
        }
        let reply =
            Reply { headers: passed(&response.headers, trusted), body: content.with(Some(body)), ..Reply::new(200) };
        core.answer(tx, None, reply);
        self.settle(core);
        self.report_hold(core, &before);
    }

    /// The sender of a passed offer has cancelled it: so do we.
    pub(super) fn undo_offer(&mut self, core: &mut Core, cancelled: ServerTx) {
        for (request, purpose) in &mut self.pending {
            if let Purpose::PassOffer { from, to, tx, .. } = purpose
                && *tx == cancelled
            {
                *purpose = Purpose::Undo { from: *from, to: *to };
                // Answered meanwhile: then that answer is taken back.
                let _ = core.endpoint.cancel_request(*request, core.now);
                return;
            }
        }
    }

    /// The outcome of an offer that is not wanted any more.
    pub(super) fn on_undone(&mut self, core: &mut Core, from: LegId, to: LegId, outcome: Result<Response, Failure>) {
        match outcome {
            Ok(response) => {
                self.on_own_offer(core, to, Ok(response));
                if self.is_idle() {
                    self.align(core, from);
                }
            }
            Err(failure) if has_left(&failure) => self.lost_leg(core, Some(to)),
            Err(_) => {
                if let Some(leg) = self.leg_mut(to) {
                    leg.sdp.offer_failed();
                }
            }
        }
    }

    fn on_refused_offer(&mut self, core: &mut Core, to: LegId, tx: ServerTx, failure: Failure) {
        if let Some(leg) = self.leg_mut(to) {
            leg.sdp.offer_failed();
        }
        self.on_passed(core, tx, Some(to), Err(failure));
    }
}

/// RFC 3311 §5.2: an offer in an early dialog in which one is open, ours (491) or that of the INVITE (500).
fn early_glare(sdp: &sdp::Local) -> Option<Reply> {
    if sdp.has_open_offer() {
        return Some(Reply::new(491));
    }
    sdp.terms().is_none().then(later)
}

/// 500 with Retry-After: an offer of the same side is open.
fn later() -> Reply {
    let mut reply = Reply::new(500);
    reply.headers.push(Name::RetryAfter, "5");
    reply
}

/// Answers an offer with what the dialog says already, as far as the offer allows it. False: it was refused.
fn answer_alone(core: &mut Core, tx: ServerTx, sdp: &mut sdp::Local, offer: &Session) -> bool {
    let body = sdp.answer_alone(offer);
    answer_with(core, tx, body)
}

fn answer_with(core: &mut Core, tx: ServerTx, body: Result<Bytes, Refusal>) -> bool {
    let reply = match body {
        Ok(body) => Reply { body: Some(Body::sdp(body)), ..Reply::new(200) },
        Err(refusal) => refused(refusal, "stickytape"),
    };
    let taken = reply.code == 200;
    core.answer(tx, None, reply);
    taken
}

fn not_acceptable(call: &Call, refusal: Refusal) -> Reply {
    let agent = call.legs.first().map(|l| l.local.sip.ip().to_string());
    refused(refusal, agent.as_deref().unwrap_or("stickytape"))
}

/// 488 with a Warning that says why (RFC 3261 §20.43).
pub(super) fn refused(refusal: Refusal, agent: &str) -> Reply {
    let mut reply = Reply::new(488);
    let warning = format!("{} {agent} \"{refusal}\"", refusal.warning_code());
    reply.headers.push(Name::Warning, Bytes::from(warning));
    reply
}
