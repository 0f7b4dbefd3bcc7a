//! Calling a party, for whoever wants it called: addresses tried in order, forks, redirects (spec/sip.md §3).
//!
//! A dial is a list of targets. One branch (an INVITE of ours) is open at a time, but the contacts that one DN has
//! registered are called at once; each branch may fork downstream. The first 2xx wins. Who has asked for the dial (D1's
//! INVITE, a transfer, a consultation, MakeCall) is told of its progress by [`Call::purpose`].

use std::collections::VecDeque;

use super::call::{Call, State};
use super::core::{Core, Timer};
use super::directory::{Class, Destination, Identity, Target};
use super::fact::Party;
use super::headers::{Content, hide_caller, name_call, passed};
use super::leg::{Beginning, Leg};
use super::make::answer_at_once;
use super::options::Listener;
use super::peers::Local;
use super::transfer::named;
use crate::id::{LegId, WorkerId};
use crate::record::mark::{Channel, Role, Side};
use crate::sdp::{self, Terms};
use crate::sip::endpoint::{DialogId, Flow, InviteId, OutgoingInvite, Peer, Transport};
use crate::sip::headers::Headers;
use crate::sip::message::{Request, Response};
use crate::sip::name::Name;
use crate::sip::values::{NameAddr, Uri, called_number};

/// Most targets of one dial, redirects included (issue: five).
pub(super) const MAX_REDIRECTS: usize = 5;
/// Most downstream early dialogs of a branch; further ones fold into the first.
pub(super) const MAX_FORKS: usize = 8;

/// One dial; never reused while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct DialId(pub(super) u64);

/// A party is being called.
#[derive(Debug)]
pub(super) struct Dial {
    pub id: DialId,
    pub head: Head,
    /// What every branch offers.
    pub terms: Terms,
    pub targets: VecDeque<Target>,
    pub worker: WorkerId,
    pub redirects: usize,
    /// The open ones: several for a DN with several contacts.
    pub branches: Vec<Branch>,
    /// The leg whose early media is to be heard: that of the last fork with SDP.
    pub early: Option<LegId>,
    /// A target was left out because its trunk is full.
    pub trunk_full: bool,
    /// The failure to be told when no target is left.
    pub failure: Option<Failed>,
}

/// What every INVITE of a dial says besides its address.
#[derive(Debug, Clone)]
pub(super) struct Head {
    /// Who calls: display name and user of From.
    pub from: Option<NameAddr>,
    /// Display name and user of To; `None`: the target.
    pub to: Option<NameAddr>,
    pub max_forwards: u8,
    /// Lines of the causing INVITE; which of them pass is decided for each target.
    pub headers: Headers,
    /// Who wrote them is trusted.
    pub trusted: bool,
    /// Lines of ours.
    pub extra: Headers,
    /// Body parts besides the offer.
    pub content: Content,
    /// The party that the dial is for.
    pub class: Class,
    /// The role of a party of the same class.
    pub same_class: Role,
    /// The channel of the party that answers.
    pub channel: Channel,
}

impl Head {
    /// As the caller's INVITE says it.
    pub(super) fn of_invite(request: &Request, content: &Content, caller: &Identity) -> Self {
        let read = |name| request.headers.get(name).and_then(|v| NameAddr::parse(&v).ok());
        Self {
            from: read(Name::From),
            to: read(Name::To),
            max_forwards: forwards(request),
            headers: request.headers.clone(),
            trusted: caller.trusted,
            extra: Headers::new(),
            content: content.clone(),
            class: caller.class,
            same_class: Role::Agent,
            channel: Channel::Right,
        }
    }

    /// As a party calls somebody without an INVITE of its own: an agent of ours, or whoever the target is.
    pub(super) fn of_party(leg: &Leg) -> Self {
        Self {
            from: Some(named(leg)),
            to: None,
            max_forwards: 70,
            headers: Headers::new(),
            trusted: false,
            extra: Headers::new(),
            content: Content::default(),
            class: leg.identity.class,
            same_class: Role::Agent,
            channel: Channel::Right,
        }
    }

    /// The role that a party has that answers.
    pub(super) fn role(&self, target: &Identity) -> Role {
        match target.class {
            class if class == self.class => self.same_class,
            Class::Dn => Role::Agent,
            Class::Trunk => Role::Customer,
            Class::Other if self.class == Class::Dn => Role::Customer,
            Class::Other => Role::Agent,
        }
    }
}

/// How a branch has failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub response: Response,
    /// Both who is told and who said it are trusted.
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

/// What a branch offers and to whom, before it has a leg.
pub(super) struct Way {
    pub target: Target,
    pub local: Local,
    pub transport: Transport,
}

/// Who wants a dial's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The caller's INVITE.
    Caller,
    /// A transfer.
    Transfer,
    /// A consultation.
    Consult,
    /// A one-step conference, or a supervisor that joins.
    Invite,
    /// MakeCall: who has asked for it, then who is to be called.
    Make,
}

impl Dial {
    pub(super) fn new(id: DialId, head: Head, terms: Terms, destination: Destination, worker: WorkerId) -> Self {
        Self {
            id,
            head,
            terms,
            targets: destination.targets.into(),
            worker,
            redirects: 0,
            branches: Vec::new(),
            early: None,
            trunk_full: false,
            failure: None,
        }
    }

    pub(super) fn is_ringing(&self) -> bool {
        self.branches.iter().any(|b| b.ringing)
    }

    /// Our description in an early dialog.
    pub(super) fn sdp_mut(&mut self, dialog: DialogId) -> Option<&mut sdp::Local> {
        let mut forks = self.branches.iter_mut().flat_map(|b| &mut b.forks);
        forks.find(|f| f.dialog == dialog).map(|f| &mut f.sdp)
    }

    /// The leg whose early dialog this is.
    pub(super) fn leg_of(&self, dialog: DialogId) -> Option<LegId> {
        self.branches.iter().find(|b| b.forks.iter().any(|f| f.dialog == dialog)).map(|b| b.leg)
    }

    /// A branch takes requests from where its DN or trunk is now.
    pub(super) fn refresh_branch(&self, core: &mut Core, leg: &Leg) {
        if let Some(branch) = self.branches.iter().find(|b| b.leg == leg.id)
            && let Some(sources) = core.sources(&leg.identity)
        {
            let own = ipnet::IpNet::from(branch.target.ip);
            let sources = sources.iter().copied().chain([own]).collect();
            core.endpoint.set_invite_sources(branch.invite, sources);
        }
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
            self.early.take_if(|leg| *leg == branch.leg);
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

    /// The early dialogs that did not win are gone.
    pub(super) fn forget_losers(&self, core: &mut Core, winner: DialogId) {
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

impl State {
    pub(super) fn dials_mut(&mut self) -> impl Iterator<Item = &mut Dial> {
        let (caller, talk) = match self {
            Self::Calling(attempt) => (Some(&mut attempt.dial), None),
            Self::Talking(talk) => (None, Some(talk)),
            Self::Over => (None, None),
        };
        caller.into_iter().chain(talk.into_iter().flat_map(|talk| talk.dials_mut()))
    }
}

impl Call {
    /// The running dials.
    pub(super) fn dials(&self) -> impl Iterator<Item = &Dial> {
        let (caller, talk) = match &self.state {
            State::Calling(attempt) => (Some(&attempt.dial), None),
            State::Talking(talk) => (None, Some(talk)),
            State::Over => (None, None),
        };
        caller.into_iter().chain(talk.into_iter().flat_map(|talk| talk.dials()))
    }

    pub(super) fn dials_mut(&mut self) -> impl Iterator<Item = &mut Dial> {
        self.state.dials_mut()
    }

    pub(super) fn dial_mut(&mut self, id: DialId) -> Option<&mut Dial> {
        self.dials_mut().find(|d| d.id == id)
    }

    /// Whom a dial calls: the party of its open branch.
    pub(super) fn called_by(&self, dial: &Dial) -> Option<Party> {
        dial.branches.first().and_then(|branch| self.leg(branch.leg)).map(Self::party)
    }

    /// The dial of an INVITE of ours.
    pub(super) fn dial_of(&self, invite: InviteId) -> Option<DialId> {
        self.dials().find(|d| d.branches.iter().any(|b| b.invite == invite)).map(|d| d.id)
    }

    /// Who wants the outcome of a dial.
    pub(super) fn purpose(&self, dial: DialId) -> Option<Purpose> {
        match &self.state {
            State::Calling(attempt) => (attempt.dial.id == dial).then_some(Purpose::Caller),
            State::Talking(talk) => talk.purpose(dial),
            State::Over => None,
        }
    }

    /// Sends the INVITE to the next target that can be reached at all, and to all contacts of a DN that has registered.
    pub(super) fn try_next(&mut self, core: &mut Core, id: DialId) -> Tried {
        let mut opened = None;
        loop {
            let Some(dial) = self.dial_mut(id) else { return Tried::NoneLeft };
            let is_beside = |t: &Target| opened.is_none_or(|group| t.registered.is_some() && t.group == group);
            if !dial.targets.front().is_some_and(is_beside) {
                return if opened.is_some() { Tried::Open } else { Tried::NoneLeft };
            }
            let Some(target) = dial.targets.pop_front() else { return Tried::NoneLeft };
            let group = target.group;
            let stands_alone = target.registered.is_none();
            let Some(way) = way(core, target) else { continue };
            if core.trunk_full(&way.target.identity) {
                dial.trunk_full = true;
                continue;
            }
            match self.open_branch(core, id, way) {
                Ok(()) if stands_alone => return Tried::Open,
                Ok(()) => opened = Some(group),
                // The other contacts ring.
                Err(Full) if opened.is_some() => return Tried::Open,
                Err(Full) => return Tried::Full,
            }
        }
    }

    fn open_branch(&mut self, core: &mut Core, id: DialId, way: Way) -> Result<(), Full> {
        let (key, conn_id, uuid) = (self.key, self.dialled_as(id), self.uuid);
        let calls_requester = self.calls_requester(id);
        let recorder = self.recording.is_wanted().then_some(self.recording.recorder);
        let recorders = self.recorders();
        let focus = self.focus_of(id);
        let Some(dial) = self.dial_mut(id) else { return Err(Full) };
        let identity = way.target.identity.clone();
        let (request_uri, from, to) = addresses(&dial.head, &way);
        let beginning = Beginning {
            identity: identity.clone(),
            role: dial.head.role(&identity),
            side: Side::Termination,
            channel: dial.head.channel,
            number: way.target.user.clone().unwrap_or_default(),
            uri: String::from_utf8_lossy(&request_uri).into_owned(),
            shown: None,
            local: way.local,
            worker: dial.worker,
        };
        let mut leg = Leg::begin(core, key, beginning).ok_or(Full)?;
        leg.keys.talk = way.target.registered.as_ref().is_some_and(|registered| registered.talks);
        let sdp = leg.sdp.offer(&dial.terms);
        let mut headers = passed(&dial.head.headers, dial.head.trusted && identity.trusted);
        if identity.caller_id.is_some() {
            hide_caller(&mut headers);
        }
        if identity.dn.is_some() {
            name_call(&mut headers, conn_id, uuid);
        }
        if calls_requester {
            answer_at_once(&mut headers, way.local.sip);
        }
        for line in dial.head.extra.lines() {
            if identity.class == Class::Trunk || line.name() != Name::Diversion {
                headers.push_line(line.clone());
            }
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
            peer: Peer { focus, ..leg.peer(way.target.ip, tcp) },
            request_uri,
            from,
            to,
            max_forwards: dial.head.max_forwards,
            headers,
            body: dial.head.content.with(Some(sdp)),
        };
        let Ok(invite) = core.endpoint.invite(invite, core.now) else {
            leg.end(core);
            return Err(Full);
        };
        core.index.invites.insert(invite, key);
        core.arm(key, Timer::Attempt(id), identity.attempt_timeout);
        let mut taps = recorders;
        taps.extend(recorder.filter(|r| !taps.contains(r)));
        leg.tap(core, &taps);
        let (target, leg_id, forks) = (way.target, leg.id, Vec::new());
        dial.branches.push(Branch { invite, target, leg: leg_id, heard: false, ringing: false, forks });
        self.legs.push(leg);
        Ok(())
    }

    /// Gives a dial up: CANCELs what rings, and forgets its legs and timers. The dial itself is the caller's to drop.
    pub(super) fn close_dial(&mut self, core: &mut Core, id: DialId, headers: &Headers) {
        for timer in [Timer::Attempt(id), Timer::Ring(id)] {
            core.disarm(self.key, timer);
        }
        let Some(dial) = self.dial_mut(id) else { return };
        dial.targets.clear();
        let legs = dial.close_branches(core, headers, |_| true);
        legs.into_iter().for_each(|leg| self.drop_leg(core, leg));
    }
}

/// How the next target was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tried {
    /// An INVITE is out.
    Open,
    /// No target is left.
    NoneLeft,
    /// No port, or no room in the endpoint.
    Full,
}

/// No port, or no room in the endpoint.
struct Full;

/// Request-URI, From and To of a branch: display names and users pass, hosts are ours and the target's.
fn addresses(head: &Head, way: &Way) -> (bytes::Bytes, bytes::Bytes, bytes::Bytes) {
    let user = way.target.user.as_deref().map(str::as_bytes);
    let mut uri = Uri::sip(user, (way.target.ip, way.target.port).into());
    if let super::options::Host::Name(name) = &way.target.host {
        let port = (way.target.port != 5060).then_some(way.target.port);
        uri = uri.with_host(name.as_bytes(), port);
    }
    if way.transport == Transport::Tcp {
        uri = uri.with_param(b"transport", Some(b"tcp"));
    }
    let own = |caller: Option<&[u8]>, host: std::net::SocketAddr| NameAddr::new(Uri::sip(caller, host));
    let from = match (&way.target.identity.caller_id, &head.from) {
        (Some(number), _) => own(Some(number.as_bytes()), way.local.sip),
        (None, Some(from)) => {
            let mut ours = own(called_user(from.uri()).as_deref(), way.local.sip);
            ours.set_display_of(from);
            ours
        }
        (None, None) => own(None, way.local.sip),
    };
    let to = match &head.to {
        Some(to) => {
            let mut theirs = own(called_user(to.uri()).as_deref(), (way.target.ip, way.target.port).into());
            theirs.set_display_of(to);
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
pub(super) fn forwards(request: &Request) -> u8 {
    let value = request.headers.get(Name::MaxForwards);
    let text = value.as_deref().and_then(|v| std::str::from_utf8(v).ok());
    text.and_then(|t| t.trim().parse::<u8>().ok()).map_or(70, |n| n.saturating_sub(1))
}
