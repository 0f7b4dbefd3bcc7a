//! MakeCall: a DN is called first, then whom it wants to talk to (spec/sip.md §6).
//!
//! ```text
//!   make-call ──► This ──2xx: Dialing──► Other ──2xx──► two parties talk, as after any INVITE
//!                  │ busy, declined,        │ failure, ring timeout, release-call, BYE of ThisDN
//!                  │ no answer, released    ▼
//!                  └──► not made            released
//! ```
//! ThisDN is the caller: the call is routed, recorded and told as if its phone had dialled. Until its phone has answered,
//! nobody is told of a call ([`What::NotMade`] when there is none); after that it hears ringback, or the early media of
//! OtherDN.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::Calls;
use super::call::{Call, Ending, State};
use super::core::{Core, Key, Timer};
use super::dial::{Dial, DialId, Head, Tried, way};
use super::directory::{Class, Destination, Identity};
use super::fact::{Asked, Party, ReleaseCause, What};
use super::headers::passed_failure;
use super::options::RouteRecord;
use super::owners::roles;
use super::policy::{asked, reachable};
use super::recording::{Recording, Unable};
use super::request::{Accepted, Code, Denied, Request, Ticket};
use super::setup::{at_limit, share};
use super::talk::{Doing, Talk};
use crate::codec::{Codec, Direction};
use crate::id::{ConnId, LegId, WorkerId};
use crate::record::mark::{Channel, Side, StopCause};
use crate::sdp::Terms;
use crate::sip::headers::Headers;
use crate::sip::message::Response;
use crate::sip::name::Name;
use crate::sip::values::{NameAddr, Uri};

/// A call that is being made.
#[derive(Debug)]
pub(super) struct Make {
    phase: Phase,
    /// ThisDN.
    this: Party,
    /// OtherDN.
    to: Party,
    /// What the route to OtherDN says of recording.
    pub route: (Option<RouteRecord>, bool),
    /// The request: the facts of its outcome name it, too.
    asked: Option<Arc<Asked>>,
}

#[derive(Debug)]
enum Phase {
    /// ThisDN's phone is being called. The destination is OtherDN's.
    This(Box<Dial>, Destination),
    /// OtherDN is being called.
    Other(Box<Dial>),
}

impl Make {
    pub(super) fn dial(&self) -> &Dial {
        match &self.phase {
            Phase::This(dial, _) | Phase::Other(dial) => dial,
        }
    }

    pub(super) fn dial_mut(&mut self) -> &mut Dial {
        match &mut self.phase {
            Phase::This(dial, _) | Phase::Other(dial) => dial,
        }
    }

    /// ThisDN's own phone is being called: there is no call yet that anybody has been told of.
    pub(super) fn calls_requester(&self) -> bool {
        matches!(self.phase, Phase::This(..))
    }
}

/// Where both are, and what their call may use.
struct Plan {
    this: Destination,
    other: Destination,
    recording: Recording,
    allowed: Option<Arc<[Codec]>>,
    /// The call cannot be recorded.
    unable: bool,
    worker: WorkerId,
}

impl Calls {
    /// MakeCall, which concerns no call that there is.
    pub(super) fn on_make(&mut self, ticket: Ticket, request: &Request, to: &str) {
        self.core.asked = Some(asked(request));
        let answer = match begin(&mut self.core, &self.calls, &request.this_dn, to) {
            Ok(call) => {
                let accepted = Accepted::new(call.conn_id);
                self.calls.insert(call.key, call);
                Ok(accepted)
            }
            Err(denied) => Err(denied),
        };
        self.core.asked = None;
        self.core.answer_request(ticket, answer);
    }
}

fn denied(code: Code, detail: &str) -> Denied {
    Denied { code, detail: detail.to_owned(), state: "none".to_owned() }
}

/// Calls ThisDN's phone.
fn begin(core: &mut Core, live: &BTreeMap<Key, Call>, this_dn: &str, to: &str) -> Result<Call, Denied> {
    let Plan { this, other, recording, allowed, unable, worker } = plan(core, live, this_dn, to)?;
    let codecs = allowed.as_deref().unwrap_or(&core.options.media.codecs);
    let terms = Terms::of(codecs, Direction::SendRecv);
    let (this_party, to_party) = (this.identity.party(this_dn.to_owned()), other.identity.party(to.to_owned()));
    let route = (other.record, other.required);
    let head = head_for_requester(core, &this, &other.identity, to);
    let dial = Dial::new(core.next_dial(), head, terms, this, worker);
    let id = dial.id;
    let phase = Phase::This(Box::new(dial), other);
    let make = Make { phase, this: this_party, to: to_party, route, asked: core.asked.clone() };
    let doing = Doing::Make(Box::new(make));
    let state = State::Talking(Box::new(Talk { doing, ..Talk::new(Vec::new(), None) }));
    let key = core.next_key();
    let mut call = Call::begin(core, key, (this_dn.to_owned(), to.to_owned()), state, (allowed, recording));
    match call.try_next(core, id) {
        Tried::Open => {}
        Tried::Full => return Err(denied(Code::Limit, "no media port or no SIP transaction is free")),
        Tried::NoneLeft => return Err(denied(Code::WrongState, "no address of ThisDN can be reached")),
    }
    if unable {
        // Required is off here: it was refused above.
        let _ = call.unable(core, Unable::Codec);
    }
    core.index.conns.insert(call.conn_id, call.key);
    core.arm(call.key, Timer::Ring(id), core.options.sip.ring_timeout);
    Ok(call)
}

/// Whether the call may be made at all, as an INVITE of ThisDN to OtherDN would be asked.
fn plan(core: &mut Core, live: &BTreeMap<Key, Call>, this_dn: &str, to: &str) -> Result<Plan, Denied> {
    let this = core.device(this_dn);
    let this = this.ok_or_else(|| denied(Code::UnknownDn, "ThisDN is no configured directory number"))?;
    if let Some(limit) = at_limit(core, &this.identity, live.len()) {
        return Err(denied(Code::Limit, limit));
    }
    if this.registers && this.targets.is_empty() {
        return Err(denied(Code::WrongState, "ThisDN is not registered"));
    }
    let other = reachable(core, &this.identity, to).map_err(|why| denied(Code::UnknownTarget, why))?;
    let recorder = core.choose_recorder().ok_or_else(|| denied(Code::Limit, "no recorder"))?;
    let route = (other.record, other.required);
    let recording = Recording::plan(core, recorder, &this.identity, &other.identity, route);
    if recording.required && !core.space_ok {
        core.fact(None, What::RecordingFailed { id: None, cause: "no-space", required: true });
        return Err(denied(Code::NoSpace, "no space for a required recording"));
    }
    let (allowed, unable) = share(core, &recording, None, None);
    if unable && recording.required {
        core.fact(None, What::RecordingFailed { id: None, cause: "codec", required: true });
        return Err(denied(Code::Codec, "no codec for a required recording"));
    }
    let binds: Vec<IpAddr> = [&this, &other]
        .into_iter()
        .filter_map(|destination| destination.targets.iter().find_map(|target| way(core, target.clone())))
        .map(|way| way.local.bind)
        .collect();
    let worker = core.ports.choose(&binds).ok_or_else(|| denied(Code::Limit, "no media ports"))?;
    Ok(Plan { this, other, recording, allowed, unable, worker })
}

/// What the INVITE to ThisDN says: its display shows whom it is about to call.
fn head_for_requester(core: &Core, this: &Destination, other: &Identity, to: &str) -> Head {
    // The host is ours; each branch writes the address that its target sees.
    let ours = core.options.listeners.first().map_or_else(|| SocketAddr::from(([0, 0, 0, 0], 5060)), |l| l.address);
    Head {
        from: Some(NameAddr::new(Uri::sip(Some(to.as_bytes()), ours))),
        to: None,
        max_forwards: 70,
        headers: Headers::new(),
        trusted: false,
        extra: Headers::new(),
        content: Default::default(),
        class: Class::Dn,
        same_class: roles(this.identity.class, other.class).0,
        channel: Channel::Left,
    }
}

/// What makes a phone answer by itself; one that does not knows rings.
pub(super) fn answer_at_once(headers: &mut Headers, ours: SocketAddr) {
    let mut info = NameAddr::new(Uri::sip(None, ours)).encode().to_vec();
    info.extend_from_slice(b";answer-after=0");
    headers.push(Name::CallInfo, info);
    headers.push(Name::AlertInfo, "info=alert-autoanswer");
}

impl Call {
    pub(super) fn make(&self) -> Option<&Make> {
        match &self.talk()?.doing {
            Doing::Make(make) => Some(make),
            _ => None,
        }
    }

    /// This dial calls the phone of who has asked for the call.
    pub(super) fn calls_requester(&self, dial: DialId) -> bool {
        self.make().is_some_and(|make| make.calls_requester() && make.dial().id == dial)
    }

    /// Who is called by MakeCall has answered.
    pub(super) fn make_answered(&mut self, core: &mut Core, leg: LegId) {
        match self.make().map(Make::calls_requester) {
            Some(true) => self.requester_answered(core, leg),
            Some(false) => self.made(core, leg),
            None => {}
        }
    }

    /// ThisDN's phone has answered: now there is a caller, and OtherDN is called.
    fn requester_answered(&mut self, core: &mut Core, this: LegId) {
        let Some(talk) = self.talk_mut() else { return };
        talk.members = vec![this];
        let Doing::Make(make) = std::mem::replace(&mut talk.doing, Doing::Nothing) else { return };
        let Make { phase: Phase::This(_, destination), this: caller, to, route, asked } = *make else { return };
        let Some(leg) = self.leg_mut(this) else { return };
        leg.side = Side::Origination;
        let head = Head::of_party(leg);
        let origin = destination.origin.clone();
        let dial = self.dial_for(core, this, head, destination);
        let id = dial.id;
        let started = What::CallStarted {
            call_uuid: self.uuid,
            leg: this,
            caller: caller.clone(),
            called: to.clone(),
            consult_of: None,
            origin,
        };
        Outcome::of(self, asked.clone(), started).tell(core);
        let phase = Phase::Other(Box::new(dial));
        self.set_doing(Doing::Make(Box::new(Make { phase, this: caller, to, route, asked })));
        core.arm(self.key, Timer::Ring(id), core.options.sip.ring_timeout);
        self.settle(core);
        self.go_on(core, id);
    }

    /// OtherDN has answered: both talk.
    fn made(&mut self, core: &mut Core, other: LegId) {
        let Some(party) = self.leg(other).map(Self::party) else { return };
        let Some(talk) = self.talk_mut() else { return };
        talk.members.push(other);
        talk.doing = Doing::Nothing;
        self.answered = Some(core.wall);
        if !self.start_sessions(core) {
            return self.refuse_unrecorded(core);
        }
        self.settle(core);
        self.fact(core, What::Answered { leg: other, party });
        self.rebridge(core, other);
    }

    /// ThisDN's phone, or OtherDN, does not come.
    pub(super) fn make_failed(&mut self, core: &mut Core, cause: ReleaseCause, answer: &Response) {
        let mut bye_headers = passed_failure(&answer.headers, false);
        bye_headers.push(Name::Reason, format!("SIP;cause={}", answer.code));
        let ending = Ending { bye_headers, ..Ending::code(answer.code) };
        self.release(core, cause, StopCause::NotAnswered, None, ending);
    }

    /// The last fact of a call that ends while ThisDN's own phone is being called; `None`: it does not.
    pub(super) fn not_made(&self, cause: ReleaseCause) -> Option<Outcome> {
        let make = self.make().filter(|make| make.calls_requester())?;
        let (this, to) = (make.this.clone(), make.to.clone());
        let what = What::NotMade { call_uuid: self.uuid, this, to, cause };
        Some(Outcome::of(self, make.asked.clone(), what))
    }
}

/// A fact, and the request that has caused it long before.
pub(super) struct Outcome {
    conn_id: ConnId,
    asked: Option<Arc<Asked>>,
    what: What,
}

impl Outcome {
    pub(super) fn of(call: &Call, asked: Option<Arc<Asked>>, what: What) -> Self {
        Self { conn_id: call.conn_id, asked, what }
    }

    /// Tells it. Another request that is in hand has caused it, too, and is named first.
    pub(super) fn tell(self, core: &mut Core) {
        let in_hand = core.asked.clone();
        core.asked = in_hand.clone().or(self.asked);
        core.fact(Some(self.conn_id), self.what);
        core.asked = in_hand;
    }
}
