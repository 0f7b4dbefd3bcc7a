//! What all calls share: the endpoint, the pools, the queue of outputs, the tables by which events find their call.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::dial::DialId;
use super::directory::{Destination, Directory, Identity, Referred};
use super::fact::{Asked, Fact, What};
use super::options::Options;
use super::pairs::Pairs;
use super::peers::{Locals, Names};
use super::ports::Ports;
use super::refer::{Read, Report};
use super::registrar::Registrar;
use super::request::{Accepted, Denied, Ticket};
use super::room::{Guesses, Prompts};
use super::supervision::Monitor;
use super::{Output, Seats};
use crate::bridge::command::Command;
use crate::bridge::command::mix::MixCommand;
use crate::id::{ConnId, IdMap, IdSet, LegId, MixerId, RecorderId, RecordingId, RoomId, WorkerId};
use crate::record::mark::{Change, Mark};
use crate::sip::endpoint::{self, Body, DialogId, Endpoint, InviteId, Reply, RequestId, ServerTx, SubscriptionId};
use crate::sip::headers::Headers;
use crate::sip::method::Method;
use crate::sip::name::Name;

/// Retry-After of our 503, in seconds.
const RETRY_AFTER: &str = "10";

/// One call in our tables. It stays the same when the call's ConnID changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key(u64);

/// A timer of one call. A call has at most one of each; an earlier one is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Timer {
    /// When to try the next address: this one has said nothing.
    Attempt(DialId),
    /// When to stop ringing.
    Ring(DialId),
    /// When to offer again after a 491.
    Glare,
    /// When to hang up for a transferor that has not done so by itself.
    Parting,
    /// When what waits for the end of an exchange is refused.
    Waiting,
    /// When recorders without a session get no more packets.
    Untap,
    /// When a PIN has taken too long.
    Pin,
    /// When the next digit by request is pressed.
    Digit,
}

/// A REFER whose Replaces names a dialog of another call.
#[derive(Debug)]
pub(super) struct Join {
    /// The REFER's call.
    pub key: Key,
    /// The leg that has sent it.
    pub by: LegId,
    pub tx: ServerTx,
    pub report: Report,
    /// The dialog named.
    pub other: DialogId,
    /// What the REFER says, for the target when the dialog is none of the referrer's.
    pub read: Box<Read>,
    /// When it came.
    pub since: Instant,
}

/// Shared by all calls.
pub(super) struct Core {
    pub options: Options,
    pub directory: Directory,
    pub names: Names,
    pub registrar: Registrar,
    pub locals: Locals,
    pub ports: Ports,
    pub endpoint: Endpoint,
    pub rng: StdRng,
    /// The instant of the input in hand.
    pub now: Instant,
    /// Its wall-clock time.
    pub wall: Timestamp,
    /// The request in hand: facts that it causes say so.
    pub asked: Option<Arc<Asked>>,
    pub space_ok: bool,
    pub congested: bool,
    pub draining: bool,
    pub index: Index,
    /// Recorder threads with their number of running sessions.
    pub recorders: Vec<(RecorderId, usize)>,
    /// Legs by trunk, for `max-calls`.
    pub trunk_legs: HashMap<Arc<str>, usize>,
    /// BYEs and cancelled INVITEs of calls that are over: a drain waits for them.
    pub ending: Ending,
    /// Calls that are to be joined when the input in hand is done.
    pub joins: VecDeque<Join>,
    /// Callers that enter their room when the input in hand is done.
    pub entering: VecDeque<Key>,
    /// What callers hear at the door of a room.
    pub prompts: Prompts,
    /// Their wrong PINs.
    pub guesses: Guesses,
    /// Devices that have two calls, one of them a consultation.
    pub pairs: Pairs,
    /// Supervisors that wait for calls.
    pub monitors: Vec<Monitor>,
    outputs: VecDeque<Output>,
    timers: BTreeSet<(Instant, Key, Timer)>,
    set: IdMap<(Key, Timer), Instant>,
    next_leg: u64,
    next_key: u64,
    next_dial: u64,
    next_room: u64,
    /// Mixer threads with their number of rooms.
    mixers: Vec<(MixerId, usize)>,
}

/// Which call an event belongs to.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub txs: IdMap<ServerTx, Key>,
    pub invites: IdMap<InviteId, Key>,
    pub dialogs: IdMap<DialogId, Key>,
    pub requests: IdMap<RequestId, Key>,
    pub legs: IdMap<LegId, Key>,
    pub recordings: HashMap<RecordingId, Key>,
    pub subscriptions: IdMap<SubscriptionId, Key>,
    /// The conferences that say so, by the user parts of their URIs.
    pub focuses: HashMap<String, Key>,
    pub conns: IdMap<ConnId, Key>,
    /// The dial-in rooms that have members, by their number.
    pub rooms: HashMap<String, Key>,
    /// The legs of a DN, oldest first.
    pub dns: HashMap<String, Vec<LegId>>,
}

/// Requests that outlive their call.
#[derive(Debug, Default)]
pub(super) struct Ending {
    pub byes: IdSet<RequestId>,
    pub invites: IdSet<InviteId>,
    /// The last NOTIFY of a REFER that came outside its dialog, and the dialog of its subscription, which ends with it.
    pub notifies: IdMap<RequestId, DialogId>,
}

impl Ending {
    /// The answer to one of these requests has come. False: it is none of them.
    pub(super) fn takes(&mut self, endpoint: &mut Endpoint, request: RequestId, now: Instant) -> bool {
        if let Some(subscription) = self.notifies.remove(&request) {
            endpoint.drop_dialog(subscription, now);
            return true;
        }
        self.byes.remove(&request)
    }
}

impl Core {
    pub(super) fn new(options: Options, seats: Seats, now: Instant) -> Self {
        let mut rng = StdRng::seed_from_u64(seats.seed);
        let listeners = options.listeners.iter();
        let ours = vec![Method::Register, Method::Refer, Method::Notify, Method::Subscribe];
        let endpoint = Endpoint::new(endpoint::Options {
            user_agent: options.sip.user_agent.clone(),
            listeners: listeners.map(|l| endpoint::Listener { transport: l.transport, local: l.address }).collect(),
            seed: rng.random(),
            allow: [endpoint::Options::default().allow, ours].concat(),
            supported: vec!["replaces", "join", "norefersub", "tdialog"],
            packages: vec!["conference"],
            ..endpoint::Options::default()
        });
        let registrar = Registrar::new(rng.random(), now);
        let mut addresses: Vec<_> = options.listeners.iter().map(|l| l.address.ip()).collect();
        addresses.sort();
        addresses.dedup();
        let mut names = Names::default();
        names.follow(&options.plan, now);
        Self {
            directory: Directory::new(options.plan.clone()),
            names,
            registrar,
            locals: Locals::new(
                options.listeners.clone(),
                options.sip.advertise,
                options.media.advertise,
                options.sip.local_networks.clone(),
                seats.reach,
            ),
            ports: Ports::new(&seats.workers, &addresses, options.media.ports_ahead),
            endpoint,
            rng,
            now,
            wall: Timestamp::UNIX_EPOCH,
            asked: None,
            space_ok: true,
            congested: false,
            draining: false,
            index: Index::default(),
            recorders: seats.recorders.into_iter().map(|id| (id, 0)).collect(),
            trunk_legs: HashMap::new(),
            ending: Ending::default(),
            joins: VecDeque::new(),
            entering: VecDeque::new(),
            prompts: Prompts::new(),
            guesses: Guesses::default(),
            pairs: Pairs::default(),
            monitors: Vec::new(),
            outputs: VecDeque::new(),
            timers: BTreeSet::new(),
            set: IdMap::default(),
            next_leg: 1,
            next_key: 1,
            next_dial: 1,
            next_room: 1,
            mixers: seats.mixers.into_iter().map(|id| (id, 0)).collect(),
            options,
        }
    }

    pub(super) fn pop_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(super) fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(super) fn media(&mut self, worker: WorkerId, command: Command) {
        self.push(Output::Media(worker, command));
    }

    pub(super) fn mark(&mut self, recorder: RecorderId, change: Change) {
        self.push(Output::Mark(recorder, Mark { at: self.now, change }));
    }

    pub(super) fn fact(&mut self, conn_id: Option<ConnId>, what: What) {
        let cause = self.asked.clone();
        self.push(Output::Fact(Fact { at: self.now, wall: self.wall, conn_id, cause, what }));
    }

    /// The wall-clock time of an instant that has passed.
    pub(super) fn wall_at(&self, at: Instant) -> Option<Timestamp> {
        let ago = jiff::SignedDuration::try_from(self.now.saturating_duration_since(at)).ok()?;
        self.wall.checked_sub(ago).ok()
    }

    pub(super) fn next_leg(&mut self) -> LegId {
        let id = LegId(self.next_leg);
        self.next_leg += 1;
        id
    }

    pub(super) fn next_key(&mut self) -> Key {
        let key = Key(self.next_key);
        self.next_key += 1;
        key
    }

    pub(super) fn next_dial(&mut self) -> DialId {
        let id = DialId(self.next_dial);
        self.next_dial += 1;
        id
    }

    pub(super) fn next_room(&mut self) -> RoomId {
        let id = RoomId(self.next_room);
        self.next_room += 1;
        id
    }

    pub(super) fn mix(&mut self, mixer: MixerId, command: MixCommand) {
        self.push(Output::Mix(mixer, command));
    }

    /// A mixer for a new conference: the one with the fewest rooms.
    pub(super) fn choose_mixer(&self) -> MixerId {
        self.mixers.iter().min_by_key(|(_, rooms)| *rooms).map_or(MixerId(0), |(id, _)| *id)
    }

    pub(super) fn count_room(&mut self, mixer: MixerId, more: bool) {
        if let Some((_, rooms)) = self.mixers.iter_mut().find(|(id, _)| *id == mixer) {
            *rooms = if more { *rooms + 1 } else { rooms.saturating_sub(1) };
        }
    }

    /// Rooms that are open.
    pub(super) fn rooms(&self) -> usize {
        self.mixers.iter().map(|(_, rooms)| rooms).sum()
    }

    /// A random UUID (version 4) from the seeded generator.
    pub(super) fn uuid(&mut self) -> uuid::Uuid {
        uuid::Builder::from_random_bytes(self.rng.random()).into_uuid()
    }

    /// Arms a timer of a call, in place of its earlier one.
    pub(super) fn arm(&mut self, call: Key, timer: Timer, after: Duration) {
        self.disarm(call, timer);
        let at = self.now + after;
        self.timers.insert((at, call, timer));
        self.set.insert((call, timer), at);
    }

    pub(super) fn disarm(&mut self, call: Key, timer: Timer) {
        if let Some(at) = self.set.remove(&(call, timer)) {
            self.timers.remove(&(at, call, timer));
        }
    }

    /// A timer that is due.
    pub(super) fn due(&mut self) -> Option<(Key, Timer)> {
        let (at, call, timer) = *self.timers.first()?;
        if at > self.now {
            return None;
        }
        self.disarm(call, timer);
        Some((call, timer))
    }

    /// Takes a timer away from one call and gives it to another.
    pub(super) fn hand_timer(&mut self, from: Key, to: Key, timer: Timer) {
        if let Some(at) = self.set.get(&(from, timer)).copied() {
            self.disarm(from, timer);
            self.arm(to, timer, at.saturating_duration_since(self.now));
        }
    }

    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, ..)| *at)
    }

    pub(super) fn has_timers(&self) -> bool {
        !self.timers.is_empty()
    }

    /// Answers a request without a body. An answer that comes too late (cancelled, timed out) is not needed.
    pub(super) fn answer(&mut self, tx: ServerTx, dialog: Option<DialogId>, reply: Reply) {
        let _ = self.endpoint.respond(tx, dialog, reply, self.now);
    }

    /// The answer to a request from outside.
    pub(super) fn answer_request(&mut self, ticket: Ticket, answer: Result<Accepted, Denied>) {
        self.push(Output::Answer(ticket, answer));
    }

    /// BYE. One that cannot be sent leaves nothing behind with us; the peer finds out by itself.
    pub(super) fn bye(&mut self, dialog: DialogId, headers: Headers, body: Option<Body>) {
        match self.endpoint.request(dialog, Method::Bye, headers, body, self.now) {
            Ok(bye) => {
                self.ending.byes.insert(bye);
            }
            Err(_) => self.endpoint.drop_dialog(dialog, self.now),
        }
    }

    /// Where the phones of a DN are; `None`: it is not configured.
    pub(super) fn device(&self, number: &str) -> Option<Destination> {
        self.directory.device(&self.names, number).map(|destination| self.located(destination))
    }

    /// Where a caller's number leads; `None`: 404.
    pub(super) fn route(&self, caller: &Identity, called: &str) -> Option<Destination> {
        self.directory.route(&self.names, caller, called).map(|destination| self.located(destination))
    }

    /// Where a 3xx leads; `None`: 404.
    pub(super) fn redirect(&self, referrer: &Identity, to: Referred<'_>) -> Option<Destination> {
        self.directory.redirect(&self.names, referrer, to).map(|destination| self.located(destination))
    }

    fn located(&self, mut destination: Destination) -> Destination {
        if destination.registers
            && let Some(number) = &destination.identity.dn
        {
            let ways = self.registrar.ways(number, destination.identity.nat, self.now);
            destination.at(ways);
        }
        destination
    }

    /// From where requests in the dialogs of a party are taken now; `None`: as before (it is not configured any more,
    /// not registered, or of class other).
    pub(super) fn sources(&self, identity: &Identity) -> Option<Arc<[IpNet]>> {
        let configured = self.directory.sources(&self.names, identity)?;
        match identity.dn.as_ref().filter(|number| self.directory.account(number).is_some()) {
            Some(number) => {
                let found = self.registrar.sources(number, self.now);
                (!found.is_empty()).then(|| found.into_iter().map(IpNet::from).collect())
            }
            None => Some(configured),
        }
    }

    /// 503 with Retry-After: we cannot take it.
    pub(super) fn busy() -> Reply {
        let mut reply = Reply::new(503);
        reply.headers.push(Name::RetryAfter, RETRY_AFTER);
        reply
    }

    /// A recorder for a new call: the one with the fewest sessions.
    pub(super) fn choose_recorder(&self) -> Option<RecorderId> {
        self.recorders.iter().min_by_key(|(_, sessions)| *sessions).map(|(id, _)| *id)
    }

    pub(super) fn count_session(&mut self, recorder: RecorderId, more: bool) {
        if let Some((_, sessions)) = self.recorders.iter_mut().find(|(id, _)| *id == recorder) {
            *sessions = if more { *sessions + 1 } else { sessions.saturating_sub(1) };
        }
    }

    /// True when a trunk carries as many legs as it may.
    pub(super) fn trunk_full(&self, identity: &Identity) -> bool {
        identity.trunk.as_ref().is_some_and(|name| {
            identity.max_calls > 0 && self.trunk_legs.get(name).copied().unwrap_or(0) >= identity.max_calls
        })
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("index", &self.index).field("draining", &self.draining).finish_non_exhaustive()
    }
}
