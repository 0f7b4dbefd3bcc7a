//! A new INVITE: who calls, where to, may it, and the first branch (spec/sip.md §1–3).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::arrival::Arrival;
use super::attempt::Attempt;
use super::call::{Call, State};
use super::core::{Core, Key, Timer};
use super::dial::{Dial, Head, way};
use super::directory::Identity;
use super::fact::{self, What};
use super::headers::Content;
use super::leg::{Beginning, Leg};
use super::offers::refused;
use super::options::{Listener, RouteRecord};
use super::owners::roles;
use super::peers::Local;
use super::recording::{Recording, Unable};
use super::registrar::Origin;
use super::replaces::{Newcomer, Wish};
use super::room;
use super::second::{Held, held_by};
use crate::codec::{Codec, Direction};
use crate::record::mark::{Channel, Side};
use crate::sdp::{Refusal, Session, Terms};
use crate::sip::auth::Demand;
use crate::sip::endpoint::{Flow, Reply, ServerTx};
use crate::sip::headers::Headers;
use crate::sip::message::Request;
use crate::sip::name::Name;
use crate::sip::values::{Join, NameAddr, Replaces, Uri, Via, address, called_number, referred_by};

/// Why an INVITE does not become a call.
pub(super) struct Refusing {
    reply: Box<Reply>,
    /// `None`: it is not refused but asked who it is.
    reason: Option<&'static str>,
}

impl Refusing {
    pub(super) fn new(reply: Reply, reason: &'static str) -> Self {
        Self { reply: Box::new(reply), reason: Some(reason) }
    }

    /// Answers it so.
    pub(super) fn tell(self, core: &mut Core, tx: ServerTx) {
        if let Some(reason) = self.reason {
            core.fact(None, What::Refused { code: self.reply.code, reason });
        }
        core.answer(tx, None, *self.reply);
    }
}

pub(super) fn refuse(code: u16, reason: &'static str) -> Refusing {
    Refusing::new(Reply::new(code), reason)
}

pub(super) fn busy(reason: &'static str) -> Refusing {
    Refusing::new(Core::busy(), reason)
}

/// What the head of an INVITE says.
struct Caller {
    identity: Identity,
    /// `callerPhoneNumber`.
    number: String,
    uri: String,
    /// Its From, without the tag.
    shown: NameAddr,
    /// The called number.
    called: String,
}

/// What an INVITE comes to.
pub(super) enum Begun {
    /// A call.
    Call(Box<Call>),
    /// A caller in front of a dial-in room.
    Room(Box<Call>),
    /// Somebody who takes another one's place in a call.
    Newcomer(Box<Newcomer>),
}

/// Makes a call of an INVITE, or refuses it. `live`: the calls that are up.
pub(super) fn on_invite(
    core: &mut Core,
    tx: ServerTx,
    flow: Flow,
    request: Request,
    live: &BTreeMap<Key, Call>,
) -> Option<Begun> {
    match begin(core, tx, flow, request, live) {
        Ok(begun) => begun,
        Err(refusing) => {
            refusing.tell(core, tx);
            None
        }
    }
}

/// Who sends a request that belongs to no dialog.
#[derive(Debug)]
pub(super) struct Sender {
    pub identity: Identity,
    pub number: String,
}

/// Who sends a request that belongs to no dialog.
pub(super) fn sender(core: &mut Core, flow: &Flow, request: &Request) -> Result<Sender, Refusing> {
    caller(core, flow, request).map(|caller| Sender { identity: caller.identity, number: caller.number })
}

/// Why no call can be taken now.
pub(super) fn at_limit(core: &Core, caller: &Identity, live: usize) -> Option<&'static str> {
    [
        (core.draining, "draining"),
        (core.congested, "a recorder does not keep up"),
        (live >= core.options.sip.max_calls, "call limit"),
        (core.trunk_full(caller), "call limit of the trunk"),
    ]
    .into_iter()
    .find_map(|(is_at, limit)| is_at.then_some(limit))
}

/// What is to be recorded of a new call: of a consult call nothing by itself (spec/recording.md §4.4).
fn plan(
    core: &mut Core,
    held: Option<&Held>,
    caller: &Identity,
    called: &Identity,
    route: (Option<RouteRecord>, bool),
) -> Result<Recording, Refusing> {
    if let Some(held) = held {
        return Ok(Recording::none(held.recorder));
    }
    let recorder = core.choose_recorder().ok_or(busy("no recorder"))?;
    let recording = Recording::plan(core, recorder, caller, called, route);
    if recording.required && !core.space_ok {
        core.fact(None, What::RecordingFailed { id: None, cause: "no-space", required: true });
        return Err(busy("no space for a required recording"));
    }
    Ok(recording)
}

/// It would be 488 for this reason.
pub(super) fn unusable(refusal: Refusal, ours: &Local, reason: &'static str) -> Refusing {
    Refusing::new(refused(refusal, &ours.sip.ip().to_string()), reason)
}

fn begin(
    core: &mut Core,
    tx: ServerTx,
    flow: Flow,
    request: Request,
    live: &BTreeMap<Key, Call>,
) -> Result<Option<Begun>, Refusing> {
    // First of all: how busy we are is no stranger's business.
    let caller = caller(core, &flow, &request)?;
    if let Some(limit) = at_limit(core, &caller.identity, live.len()) {
        return Err(busy(limit));
    }
    let replaces = Replaces::of(&request.headers).map_err(|_| refuse(400, "malformed Replaces"))?;
    let join = Join::of(&request.headers).map_err(|_| refuse(400, "malformed Join"))?;
    if let Some(wish) = replaces.map(Wish::Replaces).or(join.map(Wish::Join)) {
        let newcomer = newcomer(arrival(core, (tx, flow), &request, caller)?, wish)?;
        return Ok(Some(Begun::Newcomer(Box::new(newcomer))));
    }
    if let Some(room) = core.directory.room(&caller.identity, &caller.called) {
        let called = caller.called.clone();
        let focus = Some(room.number.clone().into());
        let arrival = Arrival { focus, ..arrival(core, (tx, flow), &request, caller)? };
        return Ok(room::knock(core, arrival, room, called, live)?.map(|call| Begun::Room(Box::new(call))));
    }
    Ok(place(core, (tx, flow), request, caller, live)?.map(|call| Begun::Call(Box::new(call))))
}

/// A call of the caller to the number in its Request-URI.
fn place(
    core: &mut Core,
    (tx, flow): (ServerTx, Flow),
    request: Request,
    caller: Caller,
    live: &BTreeMap<Key, Call>,
) -> Result<Option<Call>, Refusing> {
    let destination = core.route(&caller.identity, &caller.called).ok_or(refuse(404, "no such number"))?;
    if destination.registers && destination.targets.is_empty() {
        return Err(refuse(480, "not registered"));
    }
    let (called, record, required) = (destination.identity.clone(), destination.record, destination.required);
    let origin = destination.origin.clone();
    let held = held_by(core, live, &caller.identity);
    let recording = plan(core, held.as_ref(), &caller.identity, &called, (record, required))?;
    let listener = Listener { transport: flow.transport, address: flow.local };
    let local = core.locals.seen(listener, flow.remote.ip(), caller.identity.overrides);
    let first = destination.targets.iter().find_map(|t| way(core, t.clone()));
    let binds: Vec<IpAddr> = std::iter::once(local.bind).chain(first.map(|w| w.local.bind)).collect();
    // A consult call lives beside the call that is held: when they are joined nothing moves.
    let beside = held.as_ref().map(|held| held.worker).filter(|worker| core.ports.carries(*worker, &binds));
    let worker = beside.or_else(|| core.ports.choose(&binds)).ok_or(busy("no media ports"))?;
    let content = Content::of(&request.headers, &request.body);
    let offer = read_offer(&content, &local)?;
    let bound = held.as_ref().and_then(|held| held.allowed.clone());
    let Agreed { allowed, unable, terms } = agree(core, &recording, bound.as_deref(), offer.as_ref(), &local)?;
    let head = Head::of_invite(&request, &content, &caller.identity);
    let dial = Dial::new(core.next_dial(), head, terms, destination, worker);
    let attempt = Attempt { dial, tx, flow, offer, route: (record, required), upstream: Vec::new() };
    let numbers = (caller.number.clone(), caller.called.clone());
    let key = core.next_key();
    let mut call = Call::begin(core, key, numbers, State::Calling(Box::new(attempt)), (allowed, recording));
    if let Some(held) = &held {
        (call.uuid, call.consults) = (held.uuid, Some(held.conn_id));
    }
    let beginning = Beginning {
        role: roles(caller.identity.class, called.class).0,
        identity: Arc::new(caller.identity),
        side: Side::Origination,
        channel: Channel::Left,
        number: caller.number,
        uri: caller.uri,
        shown: Some(caller.shown),
        local,
        worker,
    };
    Ok(start(core, call, beginning, (&called, origin), unable, &request.headers).inspect(|call| {
        if let (Some(held), Some(leg)) = (held, call.legs.first()) {
            core.pairs.link(held.leg, leg.id);
        }
    }))
}

/// An INVITE that is not passed on: its sender is one of ours or enters a room.
fn arrival(
    core: &mut Core,
    (tx, flow): (ServerTx, Flow),
    request: &Request,
    caller: Caller,
) -> Result<Arrival, Refusing> {
    let listener = Listener { transport: flow.transport, address: flow.local };
    let local = core.locals.seen(listener, flow.remote.ip(), caller.identity.overrides);
    let offer = read_offer(&Content::of(&request.headers, &request.body), &local)?;
    Ok(Arrival {
        tx,
        flow,
        identity: Arc::new(caller.identity),
        number: caller.number,
        uri: caller.uri,
        shown: caller.shown,
        local,
        offer,
        headers: request.headers.clone(),
        focus: None,
    })
}

/// Who sends an INVITE with Replaces or Join.
fn newcomer(arrival: Arrival, wish: Wish) -> Result<Newcomer, Refusing> {
    let referrer = referred_by(&arrival.headers).map_err(|_| refuse(400, "malformed Referred-By"))?;
    Ok(Newcomer { arrival, wish, referrer: referrer.and_then(|by| called_number(by.uri())) })
}

/// The caller's leg and the first branch.
fn start(
    core: &mut Core,
    mut call: Call,
    beginning: Beginning,
    (called, origin): (&Identity, Option<fact::Origin>),
    unable: bool,
    invite: &Headers,
) -> Option<Call> {
    let State::Calling(attempt) = &call.state else { return None };
    let (tx, dial) = (attempt.tx, attempt.dial.id);
    let dialed = call.dialed_number.clone();
    let Some(mut leg) = Leg::begin(core, call.key, beginning) else {
        core.answer(tx, None, Core::busy());
        return None;
    };
    if call.recording.is_wanted() && !unable {
        leg.tap(core, &[call.recording.recorder]);
    }
    core.index.txs.insert(tx, call.key);
    core.index.conns.insert(call.conn_id, call.key);
    core.fact(
        Some(call.conn_id),
        What::CallStarted {
            call_uuid: call.uuid,
            leg: leg.id,
            caller: Call::party(&leg),
            called: called.party(dialed),
            consult_of: call.consults,
            origin,
        },
    );
    leg.learn_allow(invite);
    call.legs.push(leg);
    if unable {
        // Required is off here: it was refused above.
        let _ = call.unable(core, Unable::Codec);
    }
    core.arm(call.key, Timer::Ring(dial), core.options.sip.ring_timeout);
    call.go_on(core, dial);
    (!call.is_over()).then_some(call)
}

fn caller(core: &mut Core, flow: &Flow, request: &Request) -> Result<Caller, Refusing> {
    let bad = |_| refuse(400, "malformed From or Request-URI");
    let from = request.headers.get(Name::From).ok_or(refuse(400, "no From"))?;
    let from = NameAddr::parse(&from).map_err(bad)?;
    let uri = Uri::parse(request.uri.clone()).map_err(bad)?;
    let called = called_number(&uri).filter(|n| !n.is_empty()).ok_or(refuse(404, "no number in the Request-URI"))?;
    let number = called_number(from.uri()).unwrap_or_default();
    let source = source(core, flow, request);
    let host = String::from_utf8_lossy(uri.host()).into_owned();
    let identity = identify(core, Origin { flow: *flow, source }, request, &number, &host)?;
    let asserted = || {
        let list = address::addresses(&request.headers, Name::PAssertedIdentity).ok()?;
        list.iter().find_map(|a| called_number(a.uri()))
    };
    let number = match identity.trunk.is_some() && identity.trusted {
        true => asserted().unwrap_or(number),
        false => number,
    };
    let uri = String::from_utf8_lossy(from.uri().as_bytes()).into_owned();
    let mut shown = NameAddr::new(from.uri().clone());
    shown.set_display_of(&from);
    Ok(Caller { identity, number, uri, shown, called })
}

/// Who calls (spec/sip.md §1). A DN that registers is asked for its password unless it calls by the flow of its
/// registration; where the source is a trunk's, without credentials it is the trunk.
fn identify(
    core: &mut Core,
    origin: Origin,
    request: &Request,
    number: &str,
    host: &str,
) -> Result<Identity, Refusing> {
    let known = core.directory.identify(&core.names, origin.source, number, host);
    if let Some(account) = core.directory.account(number) {
        let proved = core.registrar.knows(number, origin, core.now);
        if !proved && (known.is_none() || core.registrar.is_given(request)) {
            core.registrar.check(request, number, account, core.now).map_err(|(reply, demand)| Refusing {
                reply,
                reason: (demand == Demand::Wrong).then_some("wrong credentials"),
            })?;
        }
        if proved || core.registrar.is_given(request) {
            return core.directory.proved(&core.names, number, origin.source).ok_or(refuse(403, "unknown caller"));
        }
    }
    known.ok_or(refuse(403, "unknown caller"))
}

/// Where a request really comes from: behind trusted proxies the host of the first Via below theirs.
pub(super) fn source(core: &Core, flow: &Flow, request: &Request) -> IpAddr {
    let trusted = |ip: IpAddr| core.options.sip.trusted_proxies.iter().any(|net: &IpNet| net.contains(&ip));
    let mut source = flow.remote.ip().to_canonical();
    for value in request.headers.values(Name::Via).skip(1) {
        if !trusted(source) {
            break;
        }
        let Some(via) = Via::parse(&value).ok() else { break };
        let Some(ip) = via.received().or(via.host_ip()) else { break };
        source = ip.to_canonical();
    }
    source
}

fn read_offer(content: &Content, ours: &Local) -> Result<Option<Session>, Refusing> {
    let Some(body) = &content.sdp else { return Ok(None) };
    let offer = Session::parse(body).map_err(|_| refuse(400, "malformed SDP"))?;
    match offer.anchor_for(ours.media) {
        Ok(_) => Ok(Some(offer)),
        Err(refusal) => Err(unusable(refusal, ours, "no audio that we take")),
    }
}

/// What D2 is offered.
struct Agreed {
    allowed: Option<Arc<[Codec]>>,
    /// The call cannot be recorded.
    unable: bool,
    terms: Terms,
}

fn agree(
    core: &mut Core,
    recording: &Recording,
    bound: Option<&[Codec]>,
    offer: Option<&Session>,
    local: &Local,
) -> Result<Agreed, Refusing> {
    let (allowed, unable) = share(core, recording, bound, offer);
    if unable && recording.required {
        core.fact(None, What::RecordingFailed { id: None, cause: "codec", required: true });
        let reply = Box::new(refused(Refusal::NoSharedCodec, &local.sip.ip().to_string()));
        return Err(Refusing { reply, reason: Some("no codec for a required recording") });
    }
    let codecs = allowed.as_deref().unwrap_or(&core.options.media.codecs);
    let terms = match offer.map(Session::terms) {
        Some(Ok(terms)) if allowed.is_some() => terms.restricted_to(codecs),
        Some(Ok(terms)) => terms,
        _ => Terms::of(codecs, Direction::SendRecv),
    };
    Ok(Agreed { allowed, unable, terms })
}

/// The codecs that the call may use, and whether that makes a wanted recording impossible. An offer that shares none
/// of ours passes unrestricted. `bound`: what a call that this one may join is bound to.
pub(super) fn share(
    core: &Core,
    recording: &Recording,
    bound: Option<&[Codec]>,
    offer: Option<&Session>,
) -> (Option<Arc<[Codec]>>, bool) {
    let terms = offer.and_then(|o| o.terms().ok());
    let shared = |codecs: &[Codec]| terms.as_ref().is_none_or(|t| t.clone().restricted_to(codecs).has_audio_codec());
    let recordable = recording.allowed(bound.unwrap_or(&core.options.media.codecs));
    let decodes = recordable.iter().any(Codec::is_decodable);
    if shared(&recordable) {
        (Some(recordable.into()), recording.is_wanted() && !decodes)
    } else if shared(&core.options.media.codecs) {
        (Some(core.options.media.codecs.clone().into()), recording.is_wanted())
    } else {
        (None, recording.is_wanted())
    }
}
