//! How an attempt ends: answered, failed, redirected, given up (spec/sip.md §3).

use super::attempt::{Failed, MAX_REDIRECTS, full};
use super::call::{Call, Ending, State, mapped};
use super::core::{Core, Timer};
use super::directory::{Referred, Target};
use super::fact::ReleaseCause;
use super::headers::{Content, passed, passed_failure};
use crate::codec::Direction;
use crate::id::LegId;
use crate::record::mark::StopCause;
use crate::sdp::{Session, Terms};
use crate::sip::endpoint::{DialogId, Failure, InviteId, Reply, ServerTx, Transport};
use crate::sip::headers::Headers;
use crate::sip::message::{Request, Response};
use crate::sip::name::Name;
use crate::sip::values::transport::{self, Asked};
use crate::sip::values::{Contacts, NameAddr, called_number, reason_phrase};

impl Call {
    /// The first 2xx of D2: bridged, recorded, passed on.
    pub(super) fn on_answered(&mut self, core: &mut Core, invite: InviteId, dialog: DialogId, response: Response) {
        for timer in [Timer::Attempt, Timer::Ring] {
            core.disarm(self.conn_id, timer);
        }
        let State::Calling(attempt) = &mut self.state else { return };
        let others = attempt.close_branches(core, &answered_elsewhere(), |b| b.invite != invite);
        let Some(called) = attempt.branches.first().map(|b| b.leg) else { return };
        core.index.invites.remove(&invite);
        others.into_iter().for_each(|leg| self.drop_leg(core, leg));
        let content = Content::of(&response.headers, &response.body);
        let _ = core.endpoint.ack(dialog, None, core.now);
        core.index.dialogs.insert(dialog, self.conn_id);
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
            leg.sdp.apply_answer(&answer).ok()?;
            let offered = leg.sdp.terms().map_or(Direction::SendRecv, |t| t.direction);
            let terms = leg.sdp.answered_terms(&answer).ok()?;
            leg.answered(offered, terms.direction);
            Some(terms)
        });
        match usable {
            Some(terms) => self.answer_caller(core, dialog, &response, &content, terms),
            None => self.unusable(core),
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
        let Some(branch) = attempt.branches.pop() else { return };
        for fork in &branch.forks {
            core.index.dialogs.remove(&fork.dialog);
        }
        let dialog = self.leg(branch.leg).and_then(|l| l.dialog);
        if let Some(dialog) = dialog {
            core.bye(dialog, headers, None);
        }
    }

    fn answer_caller(&mut self, core: &mut Core, fork: DialogId, response: &Response, content: &Content, terms: Terms) {
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
        let called = attempt.branches.first().and_then(|b| self.legs.iter().find(|l| l.id == b.leg));
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
        self.bridge(core, offer.is_none());
    }

    /// A branch has failed.
    pub(super) fn on_failed(&mut self, core: &mut Core, invite: InviteId, failure: Failure) {
        let State::Calling(attempt) = &mut self.state else { return };
        let Some(at) = attempt.branches.iter().position(|b| b.invite == invite) else { return };
        let branch = attempt.branches.remove(at);
        if attempt.branches.iter().all(|b| b.heard) {
            core.disarm(self.conn_id, Timer::Attempt);
        }
        core.index.invites.remove(&branch.invite);
        for fork in &branch.forks {
            core.index.dialogs.remove(&fork.dialog);
        }
        let trusted = self.trusted();
        self.drop_leg(core, branch.leg);
        let State::Calling(attempt) = &mut self.state else { return };
        let next_address = !branch.ringing
            && match &failure {
                Failure::Response(response) => matches!(response.code, 503 | 408),
                Failure::Timeout | Failure::Transport | Failure::Ended => true,
            };
        if !next_address {
            attempt.targets.retain(|t| t.group != branch.target.group);
        }
        if let Failure::Response(response) = failure {
            let told = match response.code {
                300..=399 => self.redirect(core, &branch.target, response),
                code => {
                    if code >= 600 {
                        attempt.targets.clear();
                        let others = attempt.close_branches(core, &Headers::new(), |_| true);
                        others.into_iter().for_each(|leg| self.drop_leg(core, leg));
                    }
                    Some(response)
                }
            };
            if let (State::Calling(attempt), Some(response)) = (&mut self.state, told) {
                let beside = branch.target.registered.is_some();
                let earlier =
                    attempt.failure.take().filter(|earlier| beside && rank(&earlier.response) < rank(&response));
                attempt.failure = earlier.or(Some(Failed { response, trusted }));
            }
        }
        if matches!(&self.state, State::Calling(attempt) if attempt.branches.is_empty()) {
            self.go_on(core);
        }
    }

    /// The next target, or the end of the attempt.
    pub(super) fn go_on(&mut self, core: &mut Core) {
        if self.try_next(core) {
            return;
        }
        let State::Calling(attempt) = &mut self.state else { return };
        let (cause, ending) = match attempt.failure.take() {
            None if attempt.trunk_full => (ReleaseCause::Unreachable, full()),
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
    fn redirect(&mut self, core: &mut Core, referrer: &Target, response: Response) -> Option<Response> {
        let State::Calling(attempt) = &mut self.state else { return None };
        let Ok(Contacts::List(mut contacts)) = Contacts::of(&response.headers) else { return Some(response) };
        if contacts.is_empty() || !referrer.identity.follow_redirect || attempt.redirects == MAX_REDIRECTS {
            return Some(response);
        }
        let before = attempt.targets.len();
        contacts.sort_by_key(|c| std::cmp::Reverse(quality(c)));
        for contact in contacts {
            if attempt.redirects == MAX_REDIRECTS {
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
                transport: match transport::asked(uri) {
                    Asked::For(transport @ (Transport::Udp | Transport::Tcp)) => Some(transport),
                    _ => None,
                },
                ours: ip.is_some_and(|ip| core.locals.is_ours(ip, uri.port(), referrer.identity.overrides)),
            };
            let Some(destination) = core.redirect(&referrer.identity, to) else { continue };
            attempt.redirects += 1;
            let group = attempt.redirects as u32;
            attempt.targets.extend(destination.targets.into_iter().map(|t| Target { group, ..t }));
        }
        let found = attempt.targets.len() > before;
        (!found).then(|| Response::new(404, reason_phrase(404)))
    }

    /// No response within `attempt-timeout`. It holds for the last address as for the others: with none left the caller
    /// hears 408 at once instead of after timer B. Any response, a 100 too, has ended it before: then only the ring
    /// timeout counts.
    pub(super) fn on_attempt_timeout(&mut self, core: &mut Core) {
        let State::Calling(attempt) = &mut self.state else { return };
        let silent = attempt.close_branches(core, &Headers::new(), |b| !b.heard);
        let none_left = attempt.branches.is_empty();
        silent.into_iter().for_each(|leg| self.drop_leg(core, leg));
        if none_left {
            self.go_on(core);
        }
    }

    /// The ring timeout: CANCEL and 480.
    pub(super) fn on_ring_timeout(&mut self, core: &mut Core) {
        let mut headers = Headers::new();
        headers.push(Name::Reason, "Q.850;cause=19");
        let ending = Ending { answer_headers: headers.clone(), bye_headers: headers, ..Ending::code(480) };
        self.release(core, ReleaseCause::NoAnswer, StopCause::NotAnswered, None, ending);
    }

    /// CANCEL: the endpoint has answered both its requests. Of a re-INVITE: what it has caused is undone.
    pub(super) fn on_cancelled(&mut self, core: &mut Core, tx: ServerTx, request: &Request) {
        if !matches!(self.state, State::Calling(_)) {
            return self.undo_offer(core, tx);
        }
        let trusted = self.legs.iter().all(|l| l.identity.trusted);
        let ending = Ending { bye_headers: passed(&request.headers, trusted), ..Ending::code(487) };
        let by = self.legs.first().map(|l| l.id);
        self.release(core, ReleaseCause::Abandoned, StopCause::NotAnswered, by, ending);
    }

    /// A leg of a failed branch.
    fn drop_leg(&mut self, core: &mut Core, leg: LegId) {
        self.stop_sessions_of(core, leg, StopCause::NotAnswered);
        if let Some(at) = self.legs.iter().position(|l| l.id == leg) {
            let leg = self.legs.remove(at);
            // No session may name it any more when the recorder hears that it has ended.
            self.update_conversations(core);
            leg.end(core);
        }
    }
}

/// What the other devices of a DN are told (RFC 3326 §2).
fn answered_elsewhere() -> Headers {
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
