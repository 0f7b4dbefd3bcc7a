//! Calling D2: addresses tried in order, forks, early media, redirects (spec/sip.md §3).
//!
//! An attempt is a list of targets. One branch (an INVITE of ours) is open at a time, but the contacts that one DN has
//! registered are called at once; each branch may fork downstream. Each downstream early dialog with SDP is an early
//! dialog towards D1 with its own To-tag. The first 2xx wins.

use std::collections::VecDeque;

use super::call::{Call, Ending, State};
use super::core::{Core, Timer};
use super::directory::Target;
use super::fact::ReleaseCause;
use super::headers::{Content, hide_caller, name_call, passed};
use super::leg::{Beginning, Leg};
use super::options::{Listener, RouteRecord};
use super::peers::Local;
use crate::codec::Direction;
use crate::id::{LegId, WorkerId};
use crate::record::mark::StopCause;
use crate::sdp::{self, Session, Terms};
use crate::sip::endpoint::{DialogId, Flow, InviteId, OutgoingInvite, Reply, ServerTx, Transport};
use crate::sip::headers::Headers;
use crate::sip::message::{Request, Response};
use crate::sip::name::Name;
use crate::sip::values::{NameAddr, Uri, called_number};

/// Most targets of one call, redirects included (issue: five).
pub(super) const MAX_REDIRECTS: usize = 5;
/// Most downstream early dialogs that become early dialogs towards D1; further ones fold into the first.
pub(super) const MAX_FORKS: usize = 8;

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
    /// The open ones: several for a DN with several contacts.
    pub branches: Vec<Branch>,
    /// Early dialogs towards D1, oldest first.
    pub upstream: Vec<Upstream>,
    /// A target was left out because its trunk is full.
    pub trunk_full: bool,
    /// The failure that D1 is told when no target is left.
    pub failure: Option<Failed>,
}

/// How a branch has failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub response: Response,
    /// Both D1 and who said it are trusted.
    pub trusted: bool,
}

/// One INVITE of ours.
#[derive(Debug)]
pub(super) struct Branch {
    pub invite: InviteId,
    pub target: Target,
    pub leg: LegId,
    /// It has answered anything, 100 included.
    pub heard: bool,
    /// It has sent 18x: the next address is not tried any more.
    pub ringing: bool,
    pub forks: Vec<Fork>,
}

/// A downstream early dialog.
#[derive(Debug)]
pub(super) struct Fork {
    pub dialog: DialogId,
    /// Our description in it; its answer may differ from another fork's.
    pub sdp: sdp::Local,
}

/// An early dialog towards D1.
#[derive(Debug)]
pub(super) struct Upstream {
    pub dialog: DialogId,
    /// The fork whose SDP it carries; `None` while it has carried none.
    pub fork: Option<DialogId>,
    pub sdp: sdp::Local,
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
            branches: Vec::new(),
            upstream: Vec::new(),
            trunk_full: false,
            failure: None,
        }
    }

    pub(super) fn is_ringing(&self) -> bool {
        self.branches.iter().any(|b| b.ringing)
    }

    /// The dialog of the other side that has the word, for requests in an early dialog.
    pub(super) fn counterpart(&self, dialog: DialogId) -> Option<DialogId> {
        if let Some(upstream) = self.upstream.iter().find(|u| u.dialog == dialog) {
            return upstream.fork.or_else(|| self.branches.iter().flat_map(|b| &b.forks).last().map(|f| f.dialog));
        }
        let own = self.upstream.iter().find(|u| u.fork == Some(dialog)).or(self.upstream.first());
        own.map(|u| u.dialog)
    }

    /// Our description in an early dialog.
    pub(super) fn sdp_mut(&mut self, dialog: DialogId) -> Option<&mut sdp::Local> {
        if let Some(upstream) = self.upstream.iter_mut().find(|u| u.dialog == dialog) {
            return Some(&mut upstream.sdp);
        }
        let mut forks = self.branches.iter_mut().flat_map(|b| &mut b.forks);
        forks.find(|f| f.dialog == dialog).map(|f| &mut f.sdp)
    }

    /// The leg whose early dialog this is; the caller's leg is `caller`.
    pub(super) fn leg_of(&self, dialog: DialogId, caller: LegId) -> Option<LegId> {
        if self.upstream.iter().any(|u| u.dialog == dialog) {
            return Some(caller);
        }
        self.branches.iter().find(|b| b.forks.iter().any(|f| f.dialog == dialog)).map(|b| b.leg)
    }

    /// The branch takes requests from where its DN or trunk is now.
    pub(super) fn refresh_branch(&self, core: &mut Core, leg: &Leg) {
        if let Some(branch) = self.branches.iter().find(|b| b.leg == leg.id)
            && let Some(sources) = core.sources(&leg.identity)
        {
            let own = ipnet::IpNet::from(branch.target.ip);
            let sources = sources.iter().copied().chain([own]).collect();
            core.endpoint.set_invite_sources(branch.invite, sources);
        }
    }

    /// Gives up: D1 gets its final answer, D2 CANCEL.
    pub(super) fn end(mut self, core: &mut Core, ending: Ending) {
        self.close_branches(core, &ending.bye_headers, |_| true);
        self.forget_upstream(core);
        core.index.txs.remove(&self.tx);
        let code = if ending.code == 0 { 500 } else { ending.code };
        let reply = Reply { code, reason: ending.reason, headers: ending.answer_headers, body: ending.answer_body };
        core.answer(self.tx, None, reply);
    }

    /// CANCELs the open branches that are chosen, and forgets their events. The legs are the caller's to remove.
    pub(super) fn close_branches(
        &mut self,
        core: &mut Core,
        headers: &Headers,
        is_chosen: impl Fn(&Branch) -> bool,
    ) -> Vec<LegId> {
        let (closing, open): (Vec<Branch>, _) = std::mem::take(&mut self.branches).into_iter().partition(is_chosen);
        self.branches = open;
        for branch in &closing {
            core.index.invites.remove(&branch.invite);
            for fork in &branch.forks {
                core.index.dialogs.remove(&fork.dialog);
            }
            if core.endpoint.cancel(branch.invite, headers.clone(), core.now).is_ok() {
                core.ending.invites.insert(branch.invite);
            }
        }
        closing.iter().map(|b| b.leg).collect()
    }

    fn forget_upstream(&mut self, core: &mut Core) {
        for upstream in &self.upstream {
            core.index.dialogs.remove(&upstream.dialog);
        }
    }

    /// The early dialogs that did not win are gone.
    pub(super) fn forget_losers(&mut self, core: &mut Core, winner: DialogId) {
        self.forget_upstream(core);
        let forks = self.branches.iter().flat_map(|b| &b.forks);
        for fork in forks.filter(|f| f.dialog != winner) {
            core.index.dialogs.remove(&fork.dialog);
        }
    }
}

/// The socket and our addresses for a target; `None`: we have no socket of its transport and family.
pub(super) fn way(core: &mut Core, target: Target) -> Option<Way> {
    let own = target.identity.overrides;
    if let Some(flow) = target.registered.as_ref().and_then(|registered| registered.flow) {
        let listener = Listener { transport: flow.transport, address: flow.local };
        let local = core.locals.seen(listener, target.ip, own);
        return Some(Way { target, local, transport: flow.transport });
    }
    let wishes: &[Transport] = match &target.transport {
        Some(transport) => std::slice::from_ref(transport),
        None => &[Transport::Udp, Transport::Tcp],
    };
    let found = wishes.iter().find_map(|t| Some((*t, core.locals.towards(*t, target.ip, own)?)));
    let (transport, local) = found?;
    Some(Way { target, local, transport })
}

impl Call {
    /// Sends the INVITE to the next target that can be reached at all, and to all contacts of a DN that has registered.
    /// False: none is left.
    pub(super) fn try_next(&mut self, core: &mut Core) -> bool {
        let mut opened = None;
        loop {
            let State::Calling(attempt) = &mut self.state else { return false };
            let is_beside = |t: &Target| opened.is_none_or(|group| t.registered.is_some() && t.group == group);
            if !attempt.targets.front().is_some_and(is_beside) {
                return opened.is_some();
            }
            let Some(target) = attempt.targets.pop_front() else { return opened.is_some() };
            let group = target.group;
            let stands_alone = target.registered.is_none();
            let Some(way) = way(core, target) else { continue };
            if core.trunk_full(&way.target.identity) {
                attempt.trunk_full = true;
                continue;
            }
            match self.open_branch(core, way) {
                Ok(()) if stands_alone => return true,
                Ok(()) => opened = Some(group),
                // The other contacts ring.
                Err(Full) if opened.is_some() => return true,
                Err(Full) => {
                    self.release(core, ReleaseCause::Unreachable, StopCause::NotAnswered, None, full());
                    return true;
                }
            }
        }
    }

    fn open_branch(&mut self, core: &mut Core, way: Way) -> Result<(), Full> {
        let State::Calling(attempt) = &mut self.state else { return Err(Full) };
        let Some(caller) = self.legs.first() else { return Err(Full) };
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
        let mut leg = Leg::begin(core, self.conn_id, beginning).ok_or(Full)?;
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
            hide_caller(&mut headers);
        }
        if identity.dn.is_some() {
            name_call(&mut headers, self.conn_id, self.uuid);
        }
        let tcp = way.target.transport != Some(Transport::Udp);
        let flow = way.target.registered.as_ref().and_then(|registered| registered.flow).unwrap_or(Flow {
            transport: way.transport,
            local: way.local.listener.address,
            remote: (way.target.ip, way.target.port).into(),
            connection: None,
        });
        let invite = OutgoingInvite {
            flow,
            peer: leg.peer(way.target.ip, tcp),
            request_uri,
            from,
            to,
            max_forwards: max_forwards(&attempt.request),
            headers,
            body: attempt.content.with(Some(sdp)),
        };
        let Ok(invite) = core.endpoint.invite(invite, core.now) else {
            leg.end(core);
            return Err(Full);
        };
        core.index.invites.insert(invite, self.conn_id);
        core.arm(self.conn_id, Timer::Attempt, identity.attempt_timeout);
        if self.recording.is_wanted() {
            leg.tap(core, self.recording.recorder);
        }
        let (target, leg_id, forks) = (way.target, leg.id, Vec::new());
        attempt.branches.push(Branch { invite, target, leg: leg_id, heard: false, ringing: false, forks });
        self.legs.push(leg);
        Ok(())
    }
}

/// No port, or no room in the endpoint.
struct Full;

pub(super) fn full() -> Ending {
    Ending { answer_headers: Core::busy().headers, ..Ending::code(503) }
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
    if let Some(registered) = &way.target.registered {
        uri = registered.uri.clone();
    }
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
