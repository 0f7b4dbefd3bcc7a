//! How an attempt ends: answered, failed, redirected, given up (spec/sip.md §3).

use super::call::{Call, Ending, State, mapped};
use super::core::{Core, Timer};
use super::dial::{DialId, Failed, MAX_REDIRECTS, Purpose, Tried};
use super::directory::{Referred, Target};
use super::fact::ReleaseCause;
use super::headers::{Content, passed, passed_failure};
use super::refer::asked_transport;
use crate::codec::Direction;
use crate::id::LegId;
use crate::record::mark::StopCause;
use crate::sdp::{Session, Terms};
use crate::sip::endpoint::{DialogId, Failure, InviteId, Reply, ServerTx};
use crate::sip::headers::Headers;
use crate::sip::message::{Request, Response};
use crate::sip::name::Name;
use crate::sip::values::{Contacts, NameAddr, called_number, reason_phrase};

impl Call {
    /// The first 2xx of D2: bridged, recorded, passed on.
    pub(super) fn on_answered(&mut self, core: &mut Core, invite: InviteId, dialog: DialogId, response: Response) {
        let Some(id) = self.dial_of(invite) else { return };
        for timer in [Timer::Attempt(id), Timer::Ring(id)] {
            core.disarm(self.key, timer);
        }
        let Some(dial) = self.dial_mut(id) else { return };
        let others = dial.close_branches(core, &answered_elsewhere(), |b| b.invite != invite);
        let Some(called) = dial.branches.first().map(|b| b.leg) else { return };
        core.index.invites.remove(&invite);
        others.into_iter().for_each(|leg| self.drop_leg(core, leg));
        let content = Content::of(&response.headers, &response.body);
        let _ = core.endpoint.ack(dialog, None, core.now);
        core.index.dialogs.insert(dialog, self.key);
        if let Some(leg) = self.leg_mut(called) {
            leg.dialog = Some(dialog);
            leg.learn_allow(&response.headers);
        }
        let own = self.fork(core, invite, dialog).map(|f| f.sdp.clone());
        let answer = match content.sdp.as_deref().map(Session::parse) {
            Some(Ok(answer)) => Some(answer),
            // The answer was in a provisional response (RFC 3261 §13.2.1 wants it again; some leave it out).
            _ => own.as_ref().and_then(|sdp| sdp.remote().cloned()),
        };
        if let (Some(leg), Some(sdp)) = (self.leg_mut(called), own) {
            leg.sdp = sdp;
        }
        let usable = answer.and_then(|answer| {
            let leg = self.leg_mut(called)?;
            if leg.sdp.has_answered() {
                // An UPDATE in its early dialog has changed what it answered first: that stands (RFC 3311 §5.1).
                let theirs = leg.sdp.remote()?.clone();
                let terms = leg.sdp.answered_terms(&theirs).ok()?;
                leg.wants = terms.direction;
                return Some(terms);
            }
            leg.sdp.apply_answer(&answer).ok()?;
            let offered = leg.sdp.terms().map_or(Direction::SendRecv, |t| t.direction);
            let terms = leg.sdp.answered_terms(&answer).ok()?;
            leg.answered(offered, terms.direction);
            Some(terms)
        });
        match (self.purpose(id), usable) {
            (Some(Purpose::Caller), Some(terms)) => {
                self.answer_caller(core, (called, dialog), &response, &content, terms);
            }
            (Some(Purpose::Caller), None) => self.unusable(core),
            (Some(purpose), Some(_)) => self.target_answered(core, id, purpose, called, dialog),
            (Some(purpose), None) => {
                self.drop_target(core, id, called);
                self.dial_failed(core, id, purpose, ReleaseCause::Media, Response::new(488, reason_phrase(488)));
            }
            (None, _) => {}
        }
    }

    /// The target of a transfer or a consultation has answered.
    fn target_answered(&mut self, core: &mut Core, id: DialId, purpose: Purpose, target: LegId, dialog: DialogId) {
        if let Some(dial) = self.dials().find(|d| d.id == id) {
            dial.forget_losers(core, dialog);
        }
        match purpose {
            Purpose::Transfer => self.transfer_answered(core, target),
            Purpose::Consult => self.consult_answered(core, target),
            Purpose::Invite => self.invited_answered(core, id, target),
            Purpose::Make => self.make_answered(core, target),
            Purpose::Caller => {}
        }
    }

    /// A target has answered with nothing that we can use: it gets BYE.
    fn drop_target(&mut self, core: &mut Core, id: DialId, target: LegId) {
        let dialog = self.leg_mut(target).and_then(|l| l.dialog.take());
        if let Some(dialog) = dialog {
            core.index.dialogs.remove(&dialog);
            core.bye(dialog, Headers::new(), None);
        }
        if let Some(dial) = self.dial_mut(id) {
            dial.branches.clear();
        }
        self.drop_leg(core, target);
    }

    /// No target is left: whoever has asked for the dial goes on without.
    fn dial_failed(&mut self, core: &mut Core, id: DialId, purpose: Purpose, cause: ReleaseCause, answer: Response) {
        match purpose {
            Purpose::Transfer => self.transfer_failed(core, cause, &answer),
            Purpose::Consult => self.consult_failed(core, cause, &answer),
            Purpose::Invite => self.invited_failed(core, id, cause, &answer),
            Purpose::Make => self.make_failed(core, cause, &answer),
            Purpose::Caller => {}
        }
    }

    /// D2 has answered with nothing that we can use: it gets BYE, D1 500.
    fn unusable(&mut self, core: &mut Core) {
        self.bye_called(core, Headers::new());
        self.release(core, ReleaseCause::Media, StopCause::NotAnswered, None, Ending::code(500));
    }

    /// BYE to a D2 whose 2xx was acknowledged while D1 is still unanswered.
    fn bye_called(&mut self, core: &mut Core, headers: Headers) {
        let State::Calling(attempt) = &mut self.state else { return };
        if let Some(branch) = attempt.dial.branches.pop() {
            for fork in &branch.forks {
                core.index.dialogs.remove(&fork.dialog);
            }
        }
        for dialog in self.legs.iter().skip(1).filter_map(|leg| leg.dialog) {
            core.bye(dialog, headers.clone(), None);
        }
    }

    /// D1 gets what `called` has answered in the dialog `fork`, and both talk.
    pub(super) fn answer_caller(
        &mut self,
        core: &mut Core,
        (called, fork): (LegId, DialogId),
        response: &Response,
        content: &Content,
        terms: Terms,
    ) {
        // The other forks are gone; their legs towards D1 end with the 2xx.
        let index = self.upstream_for(core, Some(fork));
        let allowed = self.allowed.clone();
        let State::Calling(attempt) = &mut self.state else { return };
        let Some(index) = index else {
            // The INVITE was cancelled or the endpoint is full: D2's dialog ends.
            return self.unusable(core);
        };
        let upstream = attempt.upstream.swap_remove(index);
        let mut sdp = upstream.sdp;
        let offer = attempt.offer.clone();
        let called = self.legs.iter().find(|l| l.id == called);
        let called = called.and_then(|leg| Some((leg, leg.sdp.negotiated()?)));
        let body = match &offer {
            Some(offer) => {
                let ours = called.map(|(leg, negotiated)| leg.terms_for(negotiated, &terms, offer, allowed.as_deref()));
                sdp.answer(offer, &ours.unwrap_or(terms)).ok()
            }
            None => {
                let codecs = allowed.as_deref().unwrap_or(&core.options.media.codecs);
                let mut full = Terms::of(codecs, terms.direction);
                if let Some(first) = terms.codecs().find(|c| super::leg::carries_sound(c)) {
                    full = full.preferring(first);
                }
                Some(sdp.offer(&full))
            }
        };
        let Some(body) = body else { return self.unusable(core) };
        self.answered = Some(core.wall);
        let tx = attempt.tx;
        let Some(caller) = self.legs.first_mut() else { return };
        caller.sdp = sdp;
        if let Some(terms) = offer.as_ref().and_then(|o| o.terms().ok()) {
            caller.wants = terms.direction;
        }
        caller.dialog = Some(upstream.dialog);
        if !self.start_sessions(core) {
            let mut headers = Headers::new();
            headers.push(Name::Reason, "SIP;cause=503;text=\"Recording required\"");
            self.bye_called(core, headers);
            return self.refuse_unrecorded(core);
        }
        if let State::Calling(attempt) = &mut self.state {
            attempt.forget_losers(core, fork);
        }
        let trusted = self.legs.iter().all(|l| l.identity.trusted);
        let reply = Reply {
            code: response.code,
            reason: response.reason.clone(),
            headers: passed(&response.headers, trusted),
            body: content.with(Some(body)),
        };
        core.index.txs.remove(&tx);
        core.answer(tx, Some(upstream.dialog), reply);
        self.begin_talking(core, offer.is_none());
    }

    /// A branch has failed.
    pub(super) fn on_failed(&mut self, core: &mut Core, invite: InviteId, failure: Failure) {
        let Some(id) = self.dial_of(invite) else { return };
        let Some(dial) = self.dial_mut(id) else { return };
        let Some(at) = dial.branches.iter().position(|b| b.invite == invite) else { return };
        let branch = dial.branches.remove(at);
        dial.early.take_if(|leg| *leg == branch.leg);
        let all_heard = dial.branches.iter().all(|b| b.heard);
        if all_heard {
            core.disarm(self.key, Timer::Attempt(id));
        }
        core.index.invites.remove(&branch.invite);
        for fork in &branch.forks {
            core.index.dialogs.remove(&fork.dialog);
        }
        let trusted = self.trusted();
        self.drop_leg(core, branch.leg);
        let Some(dial) = self.dial_mut(id) else { return };
        let next_address = !branch.ringing
            && match &failure {
                Failure::Response(response) => matches!(response.code, 503 | 408),
                Failure::Timeout | Failure::Transport | Failure::Ended => true,
            };
        if !next_address {
            dial.targets.retain(|t| t.group != branch.target.group);
        }
        if let Failure::Response(response) = failure {
            let told = match response.code {
                300..=399 => self.redirect(core, id, &branch.target, response),
                code => {
                    if code >= 600 {
                        dial.targets.clear();
                        let others = dial.close_branches(core, &Headers::new(), |_| true);
                        others.into_iter().for_each(|leg| self.drop_leg(core, leg));
                    }
                    Some(response)
                }
            };
            if let (Some(dial), Some(response)) = (self.dial_mut(id), told) {
                let beside = branch.target.registered.is_some();
                let earlier = dial.failure.take().filter(|earlier| beside && rank(&earlier.response) < rank(&response));
                dial.failure = earlier.or(Some(Failed { response, trusted }));
            }
        }
        if self.dials().any(|d| d.id == id && d.branches.is_empty()) {
            self.go_on(core, id);
        }
    }

    /// The next target, or the end of the dial.
    pub(super) fn go_on(&mut self, core: &mut Core, id: DialId) {
        let tried = self.try_next(core, id);
        if tried == Tried::Open {
            return;
        }
        let Some(purpose) = self.purpose(id) else { return };
        let Some(dial) = self.dial_mut(id) else { return };
        let failure = dial.failure.take();
        let is_full = tried == Tried::Full || (failure.is_none() && dial.trunk_full);
        for timer in [Timer::Attempt(id), Timer::Ring(id)] {
            core.disarm(self.key, timer);
        }
        if purpose != Purpose::Caller {
            let (cause, answer) = match failure {
                _ if is_full => (ReleaseCause::Unreachable, Response::new(503, reason_phrase(503))),
                None => (ReleaseCause::Unreachable, Response::new(408, reason_phrase(408))),
                Some(Failed { response, .. }) => (ReleaseCause::Rejected(response.code), response),
            };
            return self.dial_failed(core, id, purpose, cause, answer);
        }
        let (cause, ending) = match failure {
            _ if is_full => (ReleaseCause::Unreachable, full()),
            None => (ReleaseCause::Unreachable, Ending::code(408)),
            Some(Failed { response, trusted }) => {
                let code = mapped(response.code);
                let mut ending = Ending::code(code);
                if code == response.code {
                    ending.reason = response.reason.clone();
                    ending.answer_headers = passed_failure(&response.headers, trusted);
                    ending.answer_body = Content::of(&response.headers, &response.body).with(None);
                }
                (ReleaseCause::Rejected(response.code), ending)
            }
        };
        self.release(core, cause, StopCause::NotAnswered, None, ending);
    }

    /// Takes the targets of a 3xx, in the order of their q. Gives what D1 is told if they all come to nothing: `None`
    /// when they are tried, 404 when none leads anywhere (spec/sip.md §1), the 3xx when it is not followed.
    fn redirect(&mut self, core: &mut Core, id: DialId, referrer: &Target, response: Response) -> Option<Response> {
        let dial = self.dial_mut(id)?;
        let Ok(Contacts::List(mut contacts)) = Contacts::of(&response.headers) else { return Some(response) };
        if contacts.is_empty() || !referrer.identity.follow_redirect || dial.redirects == MAX_REDIRECTS {
            return Some(response);
        }
        let before = dial.targets.len();
        contacts.sort_by_key(|c| std::cmp::Reverse(quality(c)));
        for contact in contacts {
            if dial.redirects == MAX_REDIRECTS {
                break;
            }
            let uri = contact.uri();
            let number = called_number(uri).unwrap_or_default();
            let ip = uri.host_ip();
            let host = String::from_utf8_lossy(uri.host()).into_owned();
            let to = Referred {
                number: &number,
                ip,
                host: &host,
                port: uri.port(),
                transport: asked_transport(uri),
                ours: ip.is_some_and(|ip| core.locals.is_ours(ip, uri.port(), referrer.identity.overrides)),
            };
            let Some(destination) = core.redirect(&referrer.identity, to) else { continue };
            dial.redirects += 1;
            let group = dial.redirects as u32;
            dial.targets.extend(destination.targets.into_iter().map(|t| Target { group, ..t }));
        }
        let found = dial.targets.len() > before;
        (!found).then(|| Response::new(404, reason_phrase(404)))
    }

    /// No response within `attempt-timeout`. It holds for the last address as for the others: with none left the caller
    /// hears 408 at once instead of after timer B. Any response, a 100 too, has ended it before: then only the ring
    /// timeout counts.
    pub(super) fn on_attempt_timeout(&mut self, core: &mut Core, id: DialId) {
        let Some(dial) = self.dial_mut(id) else { return };
        let silent = dial.close_branches(core, &Headers::new(), |b| !b.heard);
        let none_left = dial.branches.is_empty();
        silent.into_iter().for_each(|leg| self.drop_leg(core, leg));
        if none_left {
            self.go_on(core, id);
        }
    }

    /// The ring timeout: CANCEL and 480.
    pub(super) fn on_ring_timeout(&mut self, core: &mut Core, id: DialId) {
        let mut headers = Headers::new();
        headers.push(Name::Reason, "Q.850;cause=19");
        let purpose = self.purpose(id);
        if let Some(purpose @ (Purpose::Transfer | Purpose::Consult | Purpose::Invite | Purpose::Make)) = purpose {
            self.close_dial(core, id, &headers);
            let mut answer = Response::new(480, reason_phrase(480));
            answer.headers = headers;
            return self.dial_failed(core, id, purpose, ReleaseCause::NoAnswer, answer);
        }
        let ending = Ending { answer_headers: headers.clone(), bye_headers: headers, ..Ending::code(480) };
        self.release(core, ReleaseCause::NoAnswer, StopCause::NotAnswered, None, ending);
    }

    /// CANCEL: the endpoint has answered both its requests. Of a re-INVITE: what it has caused is undone.
    pub(super) fn on_cancelled(&mut self, core: &mut Core, tx: ServerTx, request: &Request) {
        if !matches!(self.state, State::Calling(_)) {
            return if !self.waits_no_more(core, tx) {
                self.undo_offer(core, tx)
            };
        }
        let trusted = self.legs.iter().all(|l| l.identity.trusted);
        let ending = Ending { bye_headers: passed(&request.headers, trusted), ..Ending::code(487) };
        let by = self.legs.first().map(|l| l.id);
        self.release(core, ReleaseCause::Abandoned, StopCause::NotAnswered, by, ending);
    }

    /// A leg of a failed branch.
    pub(super) fn drop_leg(&mut self, core: &mut Core, leg: LegId) {
        self.stop_sessions_of(core, leg, StopCause::NotAnswered);
        if let Some(at) = self.legs.iter().position(|l| l.id == leg) {
            let leg = self.legs.remove(at);
            self.let_end(core, leg);
        }
    }
}

/// 503 with Retry-After: no port, no room, or a trunk that carries as many legs as it may.
pub(super) fn full() -> Ending {
    Ending { answer_headers: Core::busy().headers, ..Ending::code(503) }
}

/// What the other devices of a DN are told (RFC 3326 §2).
pub(super) fn answered_elsewhere() -> Headers {
    let mut headers = Headers::new();
    headers.push(Name::Reason, "SIP;cause=200;text=\"Call completed elsewhere\"");
    headers
}

/// Which answer of several branches is told: a 6xx, else one of the lowest class (RFC 3261 §16.7 step 6).
fn rank(response: &Response) -> u16 {
    if response.code >= 600 { 0 } else { response.code / 100 }
}

/// `q` in thousandths; absent: 1 (RFC 3261 §20.10).
fn quality(contact: &NameAddr) -> u32 {
    let text = contact.param(b"q").and_then(|q| std::str::from_utf8(q).ok());
    let q = text.map_or(Some(1.0), |t| t.parse::<f32>().ok()).unwrap_or(0.0);
    (q.clamp(0.0, 1.0) * 1000.0) as u32
}
