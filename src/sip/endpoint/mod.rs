//! Bytes → transaction → dialog → event: the whole SIP machine of one process.
//!
//! One [`Input`], then drain [`Endpoint::poll_output`] to `None`, then sleep until [`Endpoint::poll_timeout`]. Calls of
//! the layer above (invite, respond, request …) queue outputs as well.
//!
//! By itself the endpoint: answers what it cannot take (400, 405, 416, 420, 481, 482, 483, 500, 501, 503, 505) and
//! OPTIONS; sends 100 for every INVITE; retransmits; acknowledges failures; matches CANCEL; repeats 2xx until its ACK
//! and ACK for every repeated 2xx; ends the dialogs of a 2xx that nobody wants; adds credentials once; keeps the NOTIFYs
//! of a dialog in order; keeps the time of subscriptions.
//!
//! A name in a Contact or Route (not an IP address) is looked up among those told to [`Endpoint::learn`]; an unknown
//! one stands for the address that the dialog's last message came from.

mod api;
mod build;
mod counters;
mod find;
mod in_dialog;
mod invite;
mod notify;
mod options;
mod receive;
mod respond;
mod route;
mod subscribe;
mod tables;
mod uac;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipnet::IpNet;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub use api::*;
pub use counters::{Counters, Load};
pub use find::{Found, NotReplaced};
pub use options::{Listener, Options};
pub use route::is_local_only;

use crate::id::IdMap;
use crate::sip::dialog::{Dialog, DialogKey};
use crate::sip::headers::Headers;
use crate::sip::message::Message;
use crate::sip::method::Method;
use crate::sip::timers::{Intervals, Own, Reason, Timer, Timers};
use crate::sip::transaction::Step;
use crate::sip::transaction::key::{MergeKey, ServerKey};
use tables::{ClientMachine, ClientTx, DialogRecord, Invite, OwnRequest, ServerMachine, ServerRecord};

/// Most early dialogs of one INVITE, theirs or ours; a further one is no dialog.
const MAX_EARLY: usize = 32;
/// Most addresses that are remembered as not taking TCP.
const TCP_REFUSED: usize = 1024;

/// The SIP machine.
pub struct Endpoint {
    options: Options,
    intervals: Intervals,
    /// The values of Allow, Supported, User-Agent, written once.
    allow: Bytes,
    supported: Bytes,
    user_agent: Bytes,
    rng: StdRng,
    /// Makes To tags outside dialogs unguessable.
    secret: u64,
    last_id: u64,
    timers: Timers,
    outputs: VecDeque<Output>,
    /// Boxed, as servers and dialogs are: a table that grows moves all it holds, and calls wait meanwhile.
    clients: IdMap<u64, Box<ClientTx>>,
    servers: IdMap<u64, Box<ServerRecord>>,
    server_keys: HashMap<ServerKey, u64>,
    merges: HashMap<MergeKey, u64>,
    dialogs: IdMap<DialogId, Box<DialogRecord>>,
    dialog_keys: HashMap<DialogKey, DialogId>,
    ended: find::Ended,
    invites: IdMap<InviteId, Invite>,
    requests: IdMap<RequestId, OwnRequest>,
    subscriptions: subscribe::Subscriptions,
    names: HashMap<Vec<u8>, Vec<IpAddr>>,
    tcp_refused: HashMap<SocketAddr, Instant>,
    /// See [`Endpoint::set_conferences`].
    conferences: HashSet<String>,
    is_available: bool,
    counters: Counters,
}

impl Endpoint {
    /// A machine without transactions.
    pub fn new(options: Options) -> Self {
        let mut rng = StdRng::seed_from_u64(options.seed);
        let list = |items: Vec<&str>| Bytes::from(items.join(", "));
        Self {
            intervals: Intervals { t1: options.t1, t2: options.t2, t4: options.t4 },
            allow: list(options.allow.iter().map(Method::as_str).collect()),
            supported: list(options.supported.clone()),
            user_agent: options.user_agent.clone().into(),
            secret: rng.next_u64(),
            rng,
            options,
            last_id: 0,
            timers: Timers::default(),
            outputs: VecDeque::new(),
            clients: IdMap::default(),
            servers: IdMap::default(),
            server_keys: HashMap::new(),
            merges: HashMap::new(),
            dialogs: IdMap::default(),
            dialog_keys: HashMap::new(),
            ended: find::Ended::default(),
            invites: IdMap::default(),
            requests: IdMap::default(),
            subscriptions: subscribe::Subscriptions::default(),
            names: HashMap::new(),
            tcp_refused: HashMap::new(),
            conferences: HashSet::new(),
            is_available: true,
            counters: Counters::default(),
        }
    }

    /// Takes one input. Drain [`Self::poll_output`] afterwards.
    pub fn handle(&mut self, input: Input, now: Instant) {
        match input {
            Input::Packet { flow, bytes } => self.packet(flow, &bytes, now),
            Input::Failed(TransmitToken(id)) => {
                self.counters.failed_transmits += 1;
                self.client_failed(id, now);
                self.server_failed(id);
            }
            // An answer may still come on another connection (§18.2.2); what is sent on this one from now on fails.
            Input::Closed(_) => {}
            Input::Timeout => self.timeout(now),
        }
    }

    /// The next thing to do; `None`: nothing until the next input or timeout.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call `handle(Input::Timeout)`, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        self.timers.next()
    }

    fn packet(&mut self, flow: Flow, bytes: &Bytes, now: Instant) {
        // Keep-alives: CRLF, and what some phones send to hold their NAT binding open (RFC 5626 §3.5.1).
        if bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return;
        }
        match Message::parse(bytes) {
            Ok(Message::Request(request)) => self.on_request(flow, request, now),
            Ok(Message::Response(response)) => self.on_response(flow, response, now),
            Err(error) => self.on_garbage(flow, error),
        }
    }

    fn timeout(&mut self, now: Instant) {
        while let Some(Reason { timer, id }) = self.timers.take_due(now) {
            match timer {
                Timer::A | Timer::B | Timer::D | Timer::M | Timer::Cancelled | Timer::E | Timer::F | Timer::K => {
                    self.client_timeout(id, timer, now);
                }
                Timer::G | Timer::H | Timer::I | Timer::L | Timer::Progress | Timer::J => {
                    self.server_timeout(id, timer, now);
                }
                Timer::C => self.cancel_reinvite(id, now),
                Timer::Answer => self.repeat_answer(DialogId(id), now),
                Timer::Ack => self.give_up_ack(DialogId(id), now),
                Timer::Expiry => self.finish_subscription(SubscriptionId(id), "timeout", now),
                Timer::Pace => self.notify_if_due(SubscriptionId(id), now),
            }
        }
    }

    fn client_timeout(&mut self, id: u64, timer: Timer, now: Instant) {
        let Some(tx) = self.clients.get_mut(&id) else {
            return;
        };
        let mut own = Own::new(&mut self.timers, id, self.intervals, tx.flow.transport.is_reliable(), now);
        let step = match &mut tx.machine {
            ClientMachine::Invite(machine) => machine.timeout(timer, &mut own),
            ClientMachine::Other(machine) => machine.timeout(timer, &mut own),
        };
        self.counters.retransmits += u64::from(step == Step::SEND);
        self.client_step(id, step, now);
    }

    fn server_timeout(&mut self, id: u64, timer: Timer, now: Instant) {
        let Some(record) = self.servers.get_mut(&id) else {
            return;
        };
        let mut own = Own::new(&mut self.timers, id, self.intervals, record.flow.transport.is_reliable(), now);
        let step = match &mut record.machine {
            ServerMachine::Invite(machine) => machine.timeout(timer, &mut own),
            ServerMachine::Other(machine) => machine.timeout(timer),
        };
        self.counters.retransmits += u64::from(step == Step::SEND);
        self.server_step(id, step, now);
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    /// `id` is the transaction, 0 for what belongs to none.
    fn transmit(&mut self, id: u64, flow: Flow, bytes: Bytes) {
        self.outputs.push_back(Output::Transmit(Transmit { token: TransmitToken(id), flow, bytes }));
    }

    fn is_full(&self) -> bool {
        self.clients.len() + self.servers.len() >= self.options.max_transactions
    }

    /// Calls that are up may go on, and end, when no new ones are taken: a quarter more.
    fn is_full_for_dialogs(&self) -> bool {
        let limit = self.options.max_transactions;
        self.clients.len() + self.servers.len() >= limit + limit / 4
    }

    /// Sends an INVITE that begins a call.
    ///
    /// # Errors
    /// [`Refused::Full`].
    pub fn invite(&mut self, invite: OutgoingInvite, now: Instant) -> Result<InviteId, Refused> {
        self.start_invite(invite, now)
    }

    /// Cancels an INVITE: at once, or when its first provisional answer comes (§9.1). [`Event::Failed`] or
    /// [`Event::Unwanted`] with `cancelled` ends it; without an answer that is after 64·T1. `headers` is for Reason.
    ///
    /// # Errors
    /// [`Refused::TransactionOver`] when it has had its final answer.
    pub fn cancel(&mut self, invite: InviteId, headers: Headers, now: Instant) -> Result<(), Refused> {
        self.cancel_invite(invite, headers, now)
    }

    /// Acknowledges the 2xx to an INVITE or re-INVITE of ours; repeated by the endpoint for every repeated 2xx.
    ///
    /// # Errors
    /// [`Refused::NoDialog`], [`Refused::WrongState`] when no 2xx waits for it.
    pub fn ack(&mut self, dialog: DialogId, body: Option<Body>, now: Instant) -> Result<(), Refused> {
        let _ = now;
        self.acknowledge(dialog, body)
    }

    /// Sends a request in a dialog: INVITE, UPDATE, BYE, INFO, OPTIONS, NOTIFY … .
    ///
    /// BYE: a 2xx of theirs that waits for our ACK gets it first; a 2xx of ours that waits for their ACK delays it
    /// until that ACK or 64·T1 (§15); open requests of the dialog end with [`Failure::Ended`], theirs get 487; the
    /// dialog takes no more requests.
    ///
    /// NOTIFY: leaves when the one before it in the dialog has its answer, or has failed.
    ///
    /// # Errors
    /// [`Refused::Full`] (also for a 33rd NOTIFY that would wait), [`Refused::NoDialog`], [`Refused::InvitePending`] (INVITE), [`Refused::WrongState`] (ACK,
    /// CANCEL, re-INVITE or BYE in an early dialog: a caller cancels, a callee refuses; anything after BYE).
    pub fn request(
        &mut self,
        dialog: DialogId,
        method: Method,
        headers: Headers,
        body: Option<Body>,
        now: Instant,
    ) -> Result<RequestId, Refused> {
        self.start_request(dialog, method, headers, body, now)
    }

    /// Cancels a re-INVITE of ours, as [`Self::cancel`] does an INVITE; [`Event::Response`] still ends it.
    ///
    /// # Errors
    /// [`Refused::TransactionOver`] when it has had its final answer, [`Refused::WrongState`] for other methods (§9.1).
    pub fn cancel_request(&mut self, request: RequestId, now: Instant) -> Result<(), Refused> {
        self.cancel_own(request, now)
    }

    /// Sends a request outside a dialog. [`Event::Response`] follows.
    ///
    /// # Errors
    /// [`Refused::Full`]; [`Refused::WrongState`] for INVITE, ACK, CANCEL.
    pub fn request_outside(&mut self, request: OutgoingRequest, now: Instant) -> Result<RequestId, Refused> {
        self.start_outside(request, now)
    }

    /// Makes an early dialog with a To tag of its own for an [`Event::Invite`]; several are possible (a B2BUA whose
    /// call has forked). The 2xx goes out in one of them, the others end with it.
    ///
    /// For a REFER or SUBSCRIBE outside a dialog: the one dialog in which its NOTIFYs go. It takes and sends neither
    /// INVITE nor BYE; when the last NOTIFY has its answer, [`Self::drop_dialog`] ends it.
    ///
    /// # Errors
    /// [`Refused::TransactionOver`], [`Refused::Full`]; [`Refused::WrongState`] for other requests, those in a dialog, a
    /// second dialog of a REFER or SUBSCRIBE, and one without a Contact.
    pub fn open_dialog(&mut self, tx: ServerTx, peer: Peer) -> Result<DialogId, Refused> {
        self.open_early(tx, peer)
    }

    /// Answers a request. `dialog` names the early dialog for 101…299 to an [`Event::Invite`], and the dialog that a 2xx to a
    /// REFER or SUBSCRIBE makes; otherwise `None`.
    /// A final answer other than 2xx ends all early dialogs of an INVITE. 2xx to an INVITE or re-INVITE is repeated
    /// until its ACK, then [`Event::Ack`], or [`Event::NoAck`].
    ///
    /// # Errors
    /// [`Refused::TransactionOver`] (answered already, cancelled, timed out), [`Refused::NoDialog`],
    /// [`Refused::WrongState`] (2xx to an INVITE without a dialog, 100).
    pub fn respond(
        &mut self,
        tx: ServerTx,
        dialog: Option<DialogId>,
        reply: Reply,
        now: Instant,
    ) -> Result<(), Refused> {
        self.answer(tx, dialog, reply, now)
    }

    /// Accepts a SUBSCRIBE with 200: in the dialog that it came in, or in one of [`Self::open_dialog`].
    /// [`Event::NotifyDue`] follows; with Expires 0 the state is wanted once. It ends with its dialog, too.
    ///
    /// # Errors
    /// [`Refused::TransactionOver`], [`Refused::NoDialog`]; [`Refused::Full`] for a fifth in one dialog;
    /// [`Refused::WrongState`] for another request.
    pub fn accept_subscription(
        &mut self,
        tx: ServerTx,
        dialog: DialogId,
        now: Instant,
    ) -> Result<SubscriptionId, Refused> {
        self.begin_subscription(tx, dialog, now)
    }

    /// Sends the state of what is subscribed to, when [`Event::NotifyDue`] has asked for it. The last NOTIFY of a
    /// subscription may have no body.
    ///
    /// # Errors
    /// [`Refused::NoDialog`] without such a subscription. When the dialog takes no more requests the subscription is over,
    /// and [`Event::Unsubscribed`] says so.
    pub fn notify(&mut self, subscription: SubscriptionId, body: Option<Body>, now: Instant) -> Result<(), Refused> {
        self.send_state(subscription, body, now).map(|_| ())
    }

    /// What is subscribed to has changed: [`Event::NotifyDue`] follows at once, or a second after the NOTIFY before.
    pub fn resource_changed(&mut self, subscription: SubscriptionId, now: Instant) {
        self.note_change(subscription, now);
    }

    /// Ends a subscription: its last NOTIFY says why (RFC 6665 §4.1.3: `noresource`, `rejected`, `deactivated` …).
    pub fn end_subscription(&mut self, subscription: SubscriptionId, reason: &'static str, now: Instant) {
        self.finish_subscription(subscription, reason, now);
    }

    /// Forgets a dialog without a word to the peer (it has said 481, or does not answer); requests that are open in it
    /// end. One of several early dialogs of an [`Event::Invite`]: only that one.
    pub fn drop_dialog(&mut self, dialog: DialogId, now: Instant) {
        self.forget_dialog(dialog, now);
    }

    /// Replaces what a dialog knows of its peer (its DN or trunk was reloaded or resolved again).
    pub fn set_peer(&mut self, dialog: DialogId, peer: Peer) {
        if let Some(record) = self.dialogs.get_mut(&dialog) {
            record.peer = peer;
        }
    }

    /// Replaces the sources that an INVITE of ours allows in its dialogs, those included that it makes from now on.
    pub fn set_invite_sources(&mut self, invite: InviteId, sources: Arc<[IpNet]>) {
        let Some(invite) = self.invites.get_mut(&invite) else {
            return;
        };
        invite.peer.sources = Some(sources.clone());
        for dialog in invite.dialogs.clone() {
            self.set_sources(dialog, sources.clone());
        }
    }

    /// Replaces the sources of a dialog ([`Peer::sources`]) and nothing else of its peer.
    pub fn set_sources(&mut self, dialog: DialogId, sources: Arc<[IpNet]>) {
        if let Some(record) = self.dialogs.get_mut(&dialog) {
            record.peer.sources = Some(sources);
        }
    }

    /// The addresses of a host name, for Contacts and Routes that use it; empty: forget it.
    pub fn learn(&mut self, host: &str, addresses: Vec<IpAddr>) {
        let host = host.to_ascii_lowercase().into_bytes();
        if addresses.is_empty() {
            self.names.remove(&host);
        } else {
            self.names.insert(host, addresses);
        }
    }

    /// What OPTIONS outside a dialog is answered: 200 when true, else 503 with Retry-After (draining, overload).
    pub fn set_available(&mut self, available: bool) {
        self.is_available = available;
    }

    /// The numbers of conferences: OPTIONS to one of them comes as [`Event::Request`] while we are available, since what it
    /// is told depends on who asks (RFC 4579 §4.3).
    pub fn set_conferences(&mut self, numbers: HashSet<String>) {
        self.conferences = numbers;
    }

    /// The wait of §14.1 after a 491: 2.1–4 s for the owner of the Call-ID, else 0–2 s, in steps of 10 ms.
    pub fn glare_wait(&mut self, dialog: DialogId) -> Duration {
        self.wait_after_glare(dialog)
    }

    /// True when no transaction, no dialog and no timer is left.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
            && self.servers.is_empty()
            && self.server_keys.is_empty()
            && self.merges.is_empty()
            && self.dialogs.is_empty()
            && self.dialog_keys.is_empty()
            && self.invites.is_empty()
            && self.requests.is_empty()
            && self.subscriptions.is_empty()
            && self.timers.is_empty()
    }

    /// A dialog's identity, route set and sequence numbers.
    pub fn dialog(&self, dialog: DialogId) -> Option<&Dialog> {
        self.dialogs.get(&dialog).map(|record| &record.dialog)
    }

    /// We are the focus of a conference in this dialog, and have said so ([`Peer::focus`]).
    pub fn is_focus(&self, dialog: DialogId) -> bool {
        self.dialogs.get(&dialog).is_some_and(|record| record.peer.focus.is_some())
    }

    /// Where the peer's last message of a dialog came from.
    pub fn flow(&self, dialog: DialogId) -> Option<Flow> {
        self.dialogs.get(&dialog).map(|record| record.flow)
    }

    /// What was counted since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many transactions and dialogs there are now.
    pub fn load(&self) -> Load {
        Load { transactions: self.clients.len() + self.servers.len(), dialogs: self.dialogs.len() }
    }
}
