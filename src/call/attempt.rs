//! Calling D2: addresses tried in order, forks, early media, redirects (spec/sip.md §3).
//!
//! An attempt is a list of targets; one branch (an INVITE of ours) is open at a time, and it may fork downstream. Each
//! downstream early dialog with SDP is an early dialog towards D1 with its own To-tag.

use std::collections::VecDeque;

use super::call::{Call, Ending, State, mapped};
use super::core::{Core, Timer};
use super::directory::{Referred, Target};
use super::fact::{ReleaseCause, What};
use super::headers::{Content, passed, passed_failure};
use super::leg::{Beginning, Leg, route_both};
use super::options::RouteRecord;
use super::peers::Local;
use crate::codec::Direction;
use crate::id::{LegId, WorkerId};
use crate::record::mark::StopCause;
use crate::sdp::{self, Session, Terms};
use crate::sip::endpoint::{
    DialogId, Failure, Flow, InviteId, OutgoingInvite, Peer, Refused, Reply, ServerTx, Transport,
};
use crate::sip::headers::Headers;
use crate::sip::message::{Request, Response};
use crate::sip::method::Method;
use crate::sip::name::Name;
use crate::sip::values::{Contacts, NameAddr, Uri, called_number};

/// Most targets of one call, redirects included (issue: five).
pub(super) const MAX_REDIRECTS: usize = 5;
/// Most downstream early dialogs that become early dialogs towards D1; further ones fold into the first.
const MAX_FORKS: usize = 8;

/// D2 is being called.
#[derive(Debug)]
pub(super) struct Attempt {
    /// D1's INVITE.
    pub tx: ServerTx,
    pub request: Request,
    /// Where D1's INVITE came from.
    pub flow: Flow,
    pub content: Content,
    /// D1's offer; `None`: we make one.
    pub offer: Option<Session>,
    pub targets: VecDeque<Target>,
    pub worker: WorkerId,
    pub route: (Option<RouteRecord>, bool),
    pub redirects: usize,
    branch: Option<Branch>,
    /// Early dialogs towards D1, oldest first.
    upstream: Vec<Upstream>,
    /// The failure that D1 is told when no target is left.
    failure: Option<Response>,
}

/// One INVITE of ours.
#[derive(Debug)]
struct Branch {
    invite: InviteId,
    target: Target,
    leg: LegId,
    /// It has answered anything.
    heard: bool,
    /// It has sent 18x: the next address is not tried any more.
    ringing: bool,
    forks: Vec<Fork>,
}

/// A downstream early dialog.
#[derive(Debug)]
struct Fork {
    dialog: DialogId,
    /// Our description in it; its answer may differ from another fork's.
    sdp: sdp::Local,
}

/// An early dialog towards D1.
#[derive(Debug)]
struct Upstream {
    dialog: DialogId,
    /// The fork whose SDP it carries; `None` while it has carried none.
    fork: Option<DialogId>,
    sdp: sdp::Local,
}

/// What a branch offers and to whom, before it has a leg.
pub(super) struct Way {
    pub target: Target,
    pub local: Local,
    pub transport: Transport,
}

impl Attempt {
    pub(super) fn new(tx: ServerTx, request: Request, flow: Flow, worker: WorkerId) -> Self {
        let content = Content::of(&request.headers, &request.body);
        Self {
            tx,
            request,
            flow,
            content,
            offer: None,
            targets: VecDeque::new(),
            worker,
            route: (None, false),
            redirects: 0,
            branch: None,
            upstream: Vec::new(),
            failure: None,
        }
    }

    pub(super) fn is_ringing(&self) -> bool {
        self.branch.as_ref().is_some_and(|b| b.ringing)
    }

    /// The dialog of the other side that has the word, for requests in an early dialog.
    pub(super) fn counterpart(&self, dialog: DialogId) -> Option<DialogId> {
        if let Some(upstream) = self.upstream.iter().find(|u| u.dialog == dialog) {
            return upstream.fork.or_else(|| self.branch.as_ref()?.forks.last().map(|f| f.dialog));
        }
        let own = self.upstream.iter().find(|u| u.fork == Some(dialog)).or(self.upstream.first());
        own.map(|u| u.dialog)
    }

    /// Our description in an early dialog.
    pub(super) fn sdp_mut(&mut self, dialog: DialogId) -> Option<&mut sdp::Local> {
        if let Some(upstream) = self.upstream.iter_mut().find(|u| u.dialog == dialog) {
            return Some(&mut upstream.sdp);
        }
        let branch = self.branch.as_mut()?;
        branch.forks.iter_mut().find(|f| f.dialog == dialog).map(|f| &mut f.sdp)
    }

    /// The leg whose early dialog this is; the caller's leg is `caller`.
    pub(super) fn leg_of(&self, dialog: DialogId, caller: LegId) -> Option<LegId> {
        if self.upstream.iter().any(|u| u.dialog == dialog) {
            return Some(caller);
        }
        self.branch.as_ref().map(|b| b.leg)
    }

    /// Gives up: D1 gets its final answer, D2 CANCEL.
    pub(super) fn end(mut self, core: &mut Core, ending: Ending) {
        self.close_branch(core, ending.bye_headers.clone());
        self.forget_upstream(core);
        core.index.txs.remove(&self.tx);
        let code = if ending.code == 0 { 500 } else { ending.code };
        let reply = Reply { reason: ending.reason, headers: ending.answer_headers, ..Reply::new(code) };
        core.answer(self.tx, None, reply);
    }

    /// CANCELs the open branch, if any, and forgets its events. The leg is the caller's to remove.
    fn close_branch(&mut self, core: &mut Core, headers: Headers) -> Option<LegId> {
        let branch = self.branch.take()?;
        core.index.invites.remove(&branch.invite);
        for fork in &branch.forks {
            core.index.dialogs.remove(&fork.dialog);
        }
        if core.endpoint.cancel(branch.invite, headers, core.now).is_ok() {
            core.ending.invites.insert(branch.invite);
        }
        Some(branch.leg)
    }

    fn forget_upstream(&mut self, core: &mut Core) {
        for upstream in &self.upstream {
            core.index.dialogs.remove(&upstream.dialog);
        }
    }

    /// The early dialogs that did not win are gone.
    fn forget_losers(&mut self, core: &mut Core, winner: DialogId) {
        self.forget_upstream(core);
        let forks = self.branch.iter().flat_map(|b| &b.forks);
        for fork in forks.filter(|f| f.dialog != winner) {
            core.index.dialogs.remove(&fork.dialog);
        }
    }
}

/// The socket and our addresses for a target; `None`: we have no socket of its transport and family.
pub(super) fn way(core: &mut Core, target: Target) -> Option<Way> {
    let own = target.identity.overrides;
    let wishes: &[Transport] = match &target.transport {
        Some(transport) => std::slice::from_ref(transport),
        None => &[Transport::Udp, Transport::Tcp],
    };
    let found = wishes.iter().find_map(|t| Some((*t, core.locals.towards(*t, target.ip, own)?)));
    let (transport, local) = found?;
    Some(Way { target, local, transport })
}

impl Call {
    /// Sends the INVITE to the next target that can be reached at all. False: none is left.
    pub(super) fn try_next(&mut self, core: &mut Core) -> bool {
        loop {
            let State::Calling(attempt) = &mut self.state else { return false };
            let Some(target) = attempt.targets.pop_front() else { return false };
            let Some(way) = way(core, target) else { continue };
            if core.trunk_full(&way.target.identity) {
                attempt.failure.get_or_insert_with(|| Response::new(486, "Busy Here"));
                continue;
            }
            match self.open_branch(core, way) {
                Ok(()) => return true,
                Err(Unopened::Full) => {
                    self.release(core, ReleaseCause::Unreachable, StopCause::NotAnswered, None, full());
                    return true;
                }
            }
        }
    }

    fn open_branch(&mut self, core: &mut Core, way: Way) -> Result<(), Unopened> {
        let State::Calling(attempt) = &mut self.state else { return Err(Unopened::Full) };
        let Some(caller) = self.legs.first() else { return Err(Unopened::Full) };
        let trusted = caller.identity.trusted && way.target.identity.trusted;
        let identity = way.target.identity.clone();
        let (request_uri, from, to) = addresses(&attempt.request, &way);
        let beginning = Beginning {
            identity: identity.clone(),
            role: super::owners::roles(caller.identity.class, identity.class).1,
            number: way.target.user.clone().unwrap_or_default(),
            uri: String::from_utf8_lossy(&request_uri).into_owned(),
            local: way.local,
            worker: attempt.worker,
        };
        let mut leg = Leg::begin(core, self.conn_id, beginning).ok_or(Unopened::Full)?;
        let terms = match &attempt.offer {
            Some(offer) => match (offer.terms(), &self.allowed) {
                (Ok(terms), Some(allowed)) => terms.restricted_to(allowed),
                (Ok(terms), None) => terms,
                // The offer was looked at before the call began: see `setup`.
                (Err(_), _) => Terms::of(&core.options.media.codecs, Direction::SendRecv),
            },
            None => Terms::of(self.allowed.as_deref().unwrap_or(&core.options.media.codecs), Direction::SendRecv),
        };
        let sdp = leg.sdp.offer(&terms);
        let mut headers = passed(&attempt.request.headers, trusted);
        if identity.caller_id.is_some() {
            headers.remove(Name::PAssertedIdentity);
        }
        if identity.dn.is_some() {
            headers.push(Name::XStickytapeConnId, self.conn_id.to_string());
            headers.push(Name::XStickytapeCallUuid, self.uuid.to_string());
        }
        let tcp = way.target.transport != Some(Transport::Udp);
        let flow = Flow {
            transport: way.transport,
            local: way.local.listener.address,
            remote: (way.target.ip, way.target.port).into(),
            connection: None,
        };
        let invite = OutgoingInvite {
            flow,
            peer: leg.peer(way.target.ip, tcp),
            request_uri,
            from,
            to,
            max_forwards: max_forwards(&attempt.request),
            headers,
            body: attempt.content.with(Some(sdp)),
            credentials: identity.credentials.clone(),
        };
        let Ok(invite) = core.endpoint.invite(invite, core.now) else {
            leg.end(core);
            return Err(Unopened::Full);
        };
        core.index.invites.insert(invite, self.conn_id);
        core.arm(self.conn_id, Timer::Attempt, identity.attempt_timeout);
        if self.recording.is_wanted() {
            leg.tap(core, self.recording.recorder);
        }
        attempt.branch =
            Some(Branch { invite, target: way.target, leg: leg.id, heard: false, ringing: false, forks: Vec::new() });
        self.legs.push(leg);
        Ok(())
    }

    /// 101…199 of D2.
    pub(super) fn on_provisional(&mut self, core: &mut Core, dialog: Option<DialogId>, response: Response) {
        core.disarm(self.conn_id, Timer::Attempt);
        let State::Calling(attempt) = &mut self.state else { return };
        let Some(branch) = &mut attempt.branch else { return };
        branch.heard = true;
        let first_ringing = !branch.ringing && response.code >= 180;
        branch.ringing |= response.code >= 180;
        let leg = branch.leg;
        let content = Content::of(&response.headers, &response.body);
        let answer = content.sdp.as_deref().and_then(|body| Session::parse(body).ok());
        let early = match (dialog, &answer) {
            (Some(dialog), Some(answer)) => self.early_media(core, dialog, answer),
            (Some(dialog), None) => {
                self.fork(core, dialog);
                None
            }
            _ => None,
        };
        if first_ringing {
            self.fact(core, What::Ringing { leg, early_media: early.is_some() });
        }
        if early.is_some() && core.options.recording.early_media && !self.start_sessions(core) {
            return self.refuse_unrecorded(core);
        }
        self.update_conversations(core);
        self.pass_provisional(core, &response, &content, early);
    }

    /// The fork of a downstream dialog, made when it is new and there is room.
    fn fork(&mut self, core: &mut Core, dialog: DialogId) -> Option<&mut Fork> {
        let State::Calling(attempt) = &mut self.state else { return None };
        let branch = attempt.branch.as_mut()?;
        if let Some(at) = branch.forks.iter().position(|f| f.dialog == dialog) {
            return branch.forks.get_mut(at);
        }
        if branch.forks.len() == MAX_FORKS {
            return None;
        }
        let sdp = self.legs.iter().find(|l| l.id == branch.leg)?.sdp.clone();
        branch.forks.push(Fork { dialog, sdp });
        core.index.dialogs.insert(dialog, self.conn_id);
        branch.forks.last_mut()
    }

    /// A fork's answer: its media is forwarded from now on. Gives the dialog towards D1 and our answer in it; `None`
    /// when D1 made no offer or the answer is not usable (then the 18x passes without SDP).
    fn early_media(&mut self, core: &mut Core, dialog: DialogId, answer: &Session) -> Option<(DialogId, bytes::Bytes)> {
        let fork = self.fork(core, dialog)?;
        fork.sdp.apply_answer(answer).ok()?;
        let downstream = fork.sdp.negotiated()?.clone();
        let terms = answer.terms().ok()?;
        let State::Calling(attempt) = &mut self.state else { return None };
        let called = attempt.branch.as_ref()?.leg;
        let Some(offer) = attempt.offer.clone() else {
            let leg = self.leg_mut(called)?;
            leg.apply(core, &downstream);
            return None;
        };
        let index = self.upstream_for(core, Some(dialog))?;
        let State::Calling(attempt) = &mut self.state else { return None };
        let upstream = &mut attempt.upstream[index];
        let body = upstream.sdp.answer(&offer, &terms).ok()?;
        let negotiated = upstream.sdp.negotiated()?.clone();
        let towards = upstream.dialog;
        let (a, b) = self.legs.split_first_mut()?;
        let b = b.iter_mut().find(|l| l.id == called)?;
        a.wants = offer.terms().map_or(Direction::SendRecv, |t| t.direction);
        let offered = b.sdp.terms().map_or(Direction::SendRecv, |t| t.direction);
        b.answered(offered, terms.direction);
        a.apply(core, &negotiated);
        b.apply(core, &downstream);
        route_both(core, a, b);
        Some((towards, body))
    }

    /// The early dialog towards D1 for what a fork says: its own, else one that has carried no SDP yet, else (with SDP)
    /// a new one, else the first.
    fn upstream_for(&mut self, core: &mut Core, with_sdp: Option<DialogId>) -> Option<usize> {
        let State::Calling(attempt) = &mut self.state else { return None };
        let Some(fork) = with_sdp else {
            return if attempt.upstream.is_empty() { self.open_upstream(core, None) } else { Some(0) };
        };
        if let Some(own) = attempt.upstream.iter().position(|u| u.fork == Some(fork)) {
            return Some(own);
        }
        if let Some(free) = attempt.upstream.iter().position(|u| u.fork.is_none()) {
            attempt.upstream[free].fork = Some(fork);
            return Some(free);
        }
        self.open_upstream(core, Some(fork))
    }

    fn open_upstream(&mut self, core: &mut Core, fork: Option<DialogId>) -> Option<usize> {
        let peer = self.caller_peer()?;
        let State::Calling(attempt) = &mut self.state else { return None };
        let dialog = core.endpoint.open_dialog(attempt.tx, peer).ok()?;
        core.index.dialogs.insert(dialog, self.conn_id);
        let sdp = self.legs.first()?.sdp.clone();
        attempt.upstream.push(Upstream { dialog, fork, sdp });
        Some(attempt.upstream.len() - 1)
    }

    fn caller_peer(&self) -> Option<Peer> {
        let State::Calling(attempt) = &self.state else { return None };
        let source = attempt.flow.remote.ip();
        Some(self.legs.first()?.peer(source, attempt.flow.transport == Transport::Tcp))
    }

    fn pass_provisional(
        &mut self,
        core: &mut Core,
        response: &Response,
        content: &Content,
        early: Option<(DialogId, bytes::Bytes)>,
    ) {
        let trusted = self.legs.iter().all(|l| l.identity.trusted);
        let (dialog, sdp) = match early {
            Some((dialog, sdp)) => (dialog, Some(sdp)),
            None => {
                let Some(index) = self.upstream_for(core, None) else { return };
                let State::Calling(attempt) = &self.state else { return };
                (attempt.upstream[index].dialog, None)
            }
        };
        let State::Calling(attempt) = &self.state else { return };
        let reply = Reply {
            code: response.code,
            reason: response.reason.clone(),
            headers: passed(&response.headers, trusted),
            body: content.with(sdp),
        };
        core.answer(attempt.tx, Some(dialog), reply);
    }

    /// The first 2xx of D2: bridged, recorded, passed on.
    pub(super) fn on_answered(&mut self, core: &mut Core, dialog: DialogId, response: Response) {
        for timer in [Timer::Attempt, Timer::Ring] {
            core.disarm(self.conn_id, timer);
        }
        let State::Calling(attempt) = &mut self.state else { return };
        let Some(branch) = &attempt.branch else { return };
        core.index.invites.remove(&branch.invite);
        let called = branch.leg;
        let content = Content::of(&response.headers, &response.body);
        let _ = core.endpoint.ack(dialog, None, core.now);
        core.index.dialogs.insert(dialog, self.conn_id);
        if let Some(leg) = self.leg_mut(called) {
            leg.dialog = Some(dialog);
        }
        let own = self.fork(core, dialog).map(|f| f.sdp.clone());
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
            let terms = answer.terms().ok()?;
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
        let Some(branch) = attempt.branch.take() else { return };
        for fork in &branch.forks {
            core.index.dialogs.remove(&fork.dialog);
        }
        let dialog = self.leg(branch.leg).and_then(|l| l.dialog);
        if let Some(dialog) = dialog
            && let Ok(bye) = core.endpoint.request(dialog, Method::Bye, headers, None, core.now)
        {
            core.ending.byes.insert(bye);
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
        let body = match &offer {
            Some(offer) => sdp.answer(offer, &terms).ok(),
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
        let (tx, called) = (attempt.tx, attempt.branch.as_ref().map(|b| b.leg));
        let Some(caller) = self.legs.first_mut() else { return };
        caller.sdp = sdp;
        if let Some(terms) = offer.as_ref().and_then(|o| o.terms().ok()) {
            caller.wants = terms.direction;
        }
        caller.dialog = Some(upstream.dialog);
        self.legs.retain_mut(|l| Some(l.id) == called || l.dialog == Some(upstream.dialog));
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
    pub(super) fn on_failed(&mut self, core: &mut Core, failure: Failure) {
        core.disarm(self.conn_id, Timer::Attempt);
        let State::Calling(attempt) = &mut self.state else { return };
        let Some(branch) = attempt.branch.take() else { return };
        core.index.invites.remove(&branch.invite);
        for fork in &branch.forks {
            core.index.dialogs.remove(&fork.dialog);
        }
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
            if (300..400).contains(&response.code) {
                self.redirect(core, &branch.target, &response);
            } else if (600..700).contains(&response.code) {
                attempt.targets.clear();
            }
            if let State::Calling(attempt) = &mut self.state {
                attempt.failure = Some(response);
            }
        }
        self.go_on(core);
    }

    /// The next target, or the end of the attempt.
    pub(super) fn go_on(&mut self, core: &mut Core) {
        if self.try_next(core) {
            return;
        }
        let trusted = self.legs.iter().all(|l| l.identity.trusted);
        let State::Calling(attempt) = &mut self.state else { return };
        let (cause, ending) = match attempt.failure.take() {
            None => (ReleaseCause::Unreachable, Ending::code(408)),
            Some(response) => {
                let code = mapped(response.code);
                let mut ending = Ending::code(code);
                if code == response.code {
                    ending.reason = response.reason.clone();
                    ending.answer_headers = passed_failure(&response.headers, trusted);
                }
                (ReleaseCause::Rejected(response.code), ending)
            }
        };
        self.release(core, cause, StopCause::NotAnswered, None, ending);
    }

    /// The targets of a 3xx, in the order of their q.
    fn redirect(&mut self, core: &mut Core, referrer: &Target, response: &Response) {
        let State::Calling(attempt) = &mut self.state else { return };
        let Ok(Contacts::List(mut contacts)) = Contacts::of(&response.headers) else { return };
        if !referrer.identity.follow_redirect {
            return;
        }
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
                transport: transport_of(uri),
                ours: ip.is_some_and(|ip| core.locals.is_ours(ip)),
            };
            let Some(destination) = core.directory.redirect(&core.names, &referrer.identity, to) else { continue };
            attempt.redirects += 1;
            let group = attempt.redirects as u32;
            attempt.targets.extend(destination.targets.into_iter().map(|t| Target { group, ..t }));
        }
    }

    /// No response within `attempt-timeout`.
    pub(super) fn on_attempt_timeout(&mut self, core: &mut Core) {
        let State::Calling(attempt) = &mut self.state else { return };
        if let Some(leg) = attempt.close_branch(core, Headers::new()) {
            self.drop_leg(core, leg);
        }
        self.go_on(core);
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
            return self.undo_offer(tx);
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
            self.legs.remove(at).end(core);
        }
    }
}

enum Unopened {
    /// No port, or no room in the endpoint.
    Full,
}

fn full() -> Ending {
    Ending { answer_headers: Core::busy().headers, ..Ending::code(503) }
}

impl From<Refused> for Unopened {
    fn from(_: Refused) -> Self {
        Self::Full
    }
}

/// Request-URI, From and To of a branch: display names and users pass, hosts are ours and the target's.
fn addresses(request: &Request, way: &Way) -> (bytes::Bytes, bytes::Bytes, bytes::Bytes) {
    let user = way.target.user.as_deref().map(str::as_bytes);
    let mut uri = Uri::sip(user, (way.target.ip, way.target.port).into());
    if let super::options::Host::Name(name) = &way.target.host {
        let port = (way.target.port != 5060).then_some(way.target.port);
        uri = uri.with_host(name.as_bytes(), port);
    }
    if way.transport == Transport::Tcp {
        uri = uri.with_param(b"transport", Some(b"tcp"));
    }
    let read = |name| request.headers.get(name).and_then(|v| NameAddr::parse(&v).ok());
    let own = |caller: Option<&[u8]>, host: std::net::SocketAddr| NameAddr::new(Uri::sip(caller, host));
    let from = match (&way.target.identity.caller_id, read(Name::From)) {
        (Some(number), _) => own(Some(number.as_bytes()), way.local.sip),
        (None, Some(from)) => {
            let mut ours = own(called_user(from.uri()).as_deref(), way.local.sip);
            ours.set_display_of(&from);
            ours
        }
        (None, None) => own(None, way.local.sip),
    };
    let to = match read(Name::To) {
        Some(to) => {
            let mut theirs = own(called_user(to.uri()).as_deref(), (way.target.ip, way.target.port).into());
            theirs.set_display_of(&to);
            theirs
        }
        None => NameAddr::new(Uri::sip(user, (way.target.ip, way.target.port).into())),
    };
    (uri.as_bytes().clone(), from.encode(), to.encode())
}

/// The user of a SIP URI without escapes, or the number of a tel URI.
fn called_user(uri: &Uri) -> Option<Vec<u8>> {
    match uri.is_sip() {
        true => uri.user_unescaped().map(|u| u.into_owned()),
        false => called_number(uri).map(String::into_bytes),
    }
}

/// Max-Forwards of the causing request minus 1; the endpoint has refused 0.
fn max_forwards(request: &Request) -> u8 {
    let value = request.headers.get(Name::MaxForwards);
    let text = value.as_deref().and_then(|v| std::str::from_utf8(v).ok());
    text.and_then(|t| t.trim().parse::<u8>().ok()).map_or(70, |n| n.saturating_sub(1))
}

fn transport_of(uri: &Uri) -> Option<Transport> {
    match uri.param(b"transport") {
        Some(t) if t.eq_ignore_ascii_case(b"tcp") => Some(Transport::Tcp),
        Some(t) if t.eq_ignore_ascii_case(b"udp") => Some(Transport::Udp),
        _ => None,
    }
}

/// `q` in thousandths; absent: 1 (RFC 3261 §20.10).
fn quality(contact: &NameAddr) -> u32 {
    let text = contact.param(b"q").and_then(|q| std::str::from_utf8(q).ok());
    let q = text.map_or(Some(1.0), |t| t.parse::<f32>().ok()).unwrap_or(0.0);
    (q.clamp(0.0, 1.0) * 1000.0) as u32
}
