//! Two endpoints and a network that loses, repeats and reorders, in virtual time: every call has exactly one outcome, and
//! nothing is left behind. And one endpoint under random input.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::sip_trace::{addr, header, invite, start, tag};
use bytes::Bytes;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stickytape::sip::dialog::State;
use stickytape::sip::endpoint::*;
use stickytape::sip::headers::Headers;
use stickytape::sip::message::Message;
use stickytape::sip::method::Method;
use stickytape::sip::name::Name;

const SIDES: [&str; 2] = ["192.0.2.1:5060", "198.51.100.7:5060"];

/// What a user does later.
#[derive(Debug, Clone, Copy)]
enum Plan {
    Invite,
    Cancel(InviteId),
    Ring(ServerTx),
    Answer(ServerTx, Option<DialogId>),
    Refuse(ServerTx),
    Reinvite(DialogId),
    Notify(DialogId),
    Bye(DialogId),
}

enum What {
    Arrive(Bytes),
    Do(Plan),
}

struct Faults {
    loss: f64,
    twice: f64,
    delay_ms: std::ops::RangeInclusive<u64>,
    transport: Transport,
}

struct World {
    start: Instant,
    at_ms: u64,
    rng: StdRng,
    faults: Faults,
    sides: [Endpoint; 2],
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    what: HashMap<u64, What>,
    next: u64,
    open: [HashSet<InviteId>; 2],
    open_requests: [HashSet<RequestId>; 2],
    notifies: [HashSet<RequestId>; 2],
    /// The number of the NOTIFY that is open, by side, Call-ID and From tag.
    open_notifies: HashMap<(usize, String, String), String>,
    outcomes: HashMap<&'static str, u64>,
}

impl World {
    fn new(seed: u64, faults: Faults) -> Self {
        let side = |index: usize| {
            let local = addr(SIDES[index]);
            let listeners = [Transport::Udp, Transport::Tcp].map(|transport| Listener { transport, local }).to_vec();
            let allow = [Options::default().allow, vec![Method::Notify, Method::Refer, Method::Subscribe]].concat();
            Endpoint::new(Options { listeners, allow, seed: seed * 2 + index as u64, ..Options::default() })
        };
        Self {
            start: stickytape::clock::now(),
            at_ms: 0,
            rng: StdRng::seed_from_u64(seed),
            faults,
            sides: [side(0), side(1)],
            queue: BinaryHeap::new(),
            what: HashMap::new(),
            next: 0,
            open: Default::default(),
            open_requests: Default::default(),
            notifies: Default::default(),
            open_notifies: HashMap::new(),
            outcomes: HashMap::new(),
        }
    }

    fn later(&mut self, ms: u64, side: usize, what: What) {
        self.next += 1;
        self.queue.push(Reverse((self.at_ms + ms, self.next, side)));
        self.what.insert(self.next, what);
    }

    fn plan(&mut self, ms: std::ops::Range<u64>, side: usize, plan: Plan) {
        let ms = self.rng.random_range(ms);
        self.later(ms, side, What::Do(plan));
    }

    fn flow(&self, side: usize) -> Flow {
        let connection = self.faults.transport.is_reliable().then_some(ConnectionId(1));
        let (local, remote) = (addr(SIDES[side]), addr(SIDES[1 - side]));
        Flow { transport: self.faults.transport, local, remote, connection }
    }

    fn run(&mut self) {
        loop {
            let timers = self.sides.iter().filter_map(|side| side.poll_timeout()).map(|(at, _)| self.ms(at)).min();
            let next = self.queue.peek().map(|Reverse((at, _, _))| *at);
            let Some(at) = [timers, next].into_iter().flatten().min() else { break };
            self.at_ms = self.at_ms.max(at);
            let now = self.now();
            for side in 0..2 {
                self.sides[side].handle(Input::Timeout, now);
                self.drain(side);
            }
            while let Some(&Reverse((at, id, side))) = self.queue.peek() {
                if at > self.at_ms {
                    break;
                }
                self.queue.pop();
                match self.what.remove(&id).unwrap() {
                    What::Arrive(bytes) => {
                        let flow = self.flow(side);
                        self.sides[side].handle(Input::Packet { flow, bytes }, now);
                    }
                    What::Do(plan) => self.act(side, plan),
                }
                self.drain(side);
            }
        }
    }

    fn ms(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.start).as_millis().try_into().unwrap()
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.at_ms)
    }

    fn drain(&mut self, side: usize) {
        while let Some(output) = self.sides[side].poll_output() {
            match output {
                Output::Transmit(transmit) => {
                    let message = Message::parse(&transmit.bytes).unwrap();
                    self.check_order(side, &message);
                    let copies = if self.rng.random_bool(self.faults.twice) { 2 } else { 1 };
                    for _ in 0..copies {
                        if !self.rng.random_bool(self.faults.loss) {
                            let delay = self.rng.random_range(self.faults.delay_ms.clone());
                            self.later(delay, 1 - side, What::Arrive(transmit.bytes.clone()));
                        }
                    }
                }
                Output::Event(event) => self.on_event(side, event),
            }
        }
    }

    /// No NOTIFY of a dialog goes before the one ahead of it is over.
    fn check_order(&mut self, side: usize, message: &Message) {
        if start(message) == "NOTIFY" {
            let key = (side, header(message, Name::CallId), tag(message, Name::From));
            let number = header(message, Name::CSeq);
            let open = self.open_notifies.entry(key).or_insert(number.clone());
            assert_eq!(*open, number, "a second NOTIFY is open");
        }
    }

    fn notify_over(&mut self, side: usize, request: RequestId, dialog: DialogId) {
        if self.notifies[side].remove(&request)
            && let Some(dialog) = self.sides[side].dialog(dialog)
        {
            let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
            self.open_notifies.remove(&(side, text(&dialog.key.call_id), text(&dialog.key.local_tag)));
            self.count("NOTIFYs");
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.outcomes.entry(what).or_default() += 1;
    }

    fn act(&mut self, side: usize, plan: Plan) {
        let now = self.now();
        let flow = self.flow(side);
        let endpoint = &mut self.sides[side];
        match plan {
            Plan::Invite => {
                let mut out = invite(flow);
                out.peer = Peer::new(addr(SIDES[side]));
                let id = endpoint.invite(out, now).unwrap();
                self.open[side].insert(id);
                if self.rng.random_bool(0.4) {
                    self.plan(0..3_000, side, Plan::Cancel(id));
                } else {
                    // Nobody answers: the caller hangs up.
                    self.plan(50_000..60_000, side, Plan::Cancel(id));
                }
            }
            Plan::Cancel(id) => {
                let _ = endpoint.cancel(id, Headers::new(), now);
            }
            Plan::Ring(tx) => {
                if let Ok(dialog) = endpoint.open_dialog(tx, Peer::new(addr(SIDES[side]))) {
                    endpoint.respond(tx, Some(dialog), Reply::new(180), now).unwrap();
                    if self.rng.random_bool(0.8) {
                        self.plan(0..5_000, side, Plan::Answer(tx, Some(dialog)));
                    }
                }
            }
            Plan::Answer(tx, dialog) => {
                let dialog = dialog.or_else(|| endpoint.open_dialog(tx, Peer::new(addr(SIDES[side]))).ok());
                if let Some(dialog) = dialog
                    && endpoint.respond(tx, Some(dialog), Reply::new(200), now).is_ok()
                {
                    self.talk(side, dialog);
                }
            }
            Plan::Refuse(tx) => {
                let _ = endpoint.respond(tx, None, Reply::new(486), now);
            }
            Plan::Reinvite(dialog) => {
                let made = endpoint.request(dialog, Method::Invite, Headers::new(), None, now);
                self.made(side, made);
            }
            Plan::Notify(dialog) => {
                for _ in 0..3 {
                    let endpoint = &mut self.sides[side];
                    let made = endpoint.request(dialog, Method::Notify, Headers::new(), None, now);
                    self.notifies[side].extend(made);
                    self.made(side, made);
                }
            }
            Plan::Bye(dialog) => {
                let made = endpoint.request(dialog, Method::Bye, Headers::new(), None, now);
                self.made(side, made);
            }
        }
    }

    fn made(&mut self, side: usize, made: Result<RequestId, Refused>) {
        if let Ok(id) = made {
            self.open_requests[side].insert(id);
        }
    }

    fn talk(&mut self, side: usize, dialog: DialogId) {
        for _ in 0..self.rng.random_range(0..3) {
            self.plan(0..20_000, side, Plan::Reinvite(dialog));
        }
        self.plan(0..20_000, side, Plan::Notify(dialog));
        self.plan(0..30_000, side, Plan::Bye(dialog));
    }

    fn on_event(&mut self, side: usize, event: Event) {
        let now = self.now();
        match event {
            Event::Invite { tx, .. } => match self.rng.random_range(0..4) {
                0 => self.plan(0..2_000, side, Plan::Refuse(tx)),
                1 => self.plan(0..2_000, side, Plan::Answer(tx, None)),
                _ => {
                    self.plan(0..1_000, side, Plan::Ring(tx));
                    self.plan(60_000..70_000, side, Plan::Refuse(tx));
                }
            },
            Event::Request { tx, request, .. } => {
                let code = if request.method != Method::Bye && self.rng.random_bool(0.2) { 488 } else { 200 };
                if request.method == Method::Invite && self.rng.random_bool(0.5) {
                    self.plan(0..3_000, side, Plan::Answer(tx, None));
                    self.plan(3_000..3_001, side, Plan::Refuse(tx));
                } else {
                    self.sides[side].respond(tx, None, Reply::new(code), now).unwrap();
                }
            }
            Event::Answered { invite, dialog, .. } => {
                assert!(self.open[side].remove(&invite), "one outcome");
                self.sides[side].ack(dialog, None, now).unwrap();
                self.count("answered");
                self.talk(side, dialog);
            }
            Event::Failed { invite, .. } => {
                assert!(self.open[side].remove(&invite), "one outcome");
                self.count("failed");
            }
            Event::Unwanted { invite, cancelled, .. } => {
                assert!(cancelled && self.open[side].remove(&invite), "one outcome");
                self.count("crossed");
            }
            Event::Response { request, dialog, outcome } => {
                assert!(self.open_requests[side].remove(&request), "one outcome");
                if let Some(dialog) = dialog {
                    self.notify_over(side, request, dialog);
                }
                if let (Ok(_), Some(dialog)) = (&outcome, dialog)
                    && self.sides[side].ack(dialog, None, now).is_ok()
                {
                    self.count("re-INVITEs");
                }
            }
            Event::NoAck { dialog } => {
                self.count("no ACK");
                let made = self.sides[side].request(dialog, Method::Bye, Headers::new(), None, now);
                self.made(side, made);
            }
            Event::Trying { .. } => {}
            Event::Subscribe { .. } | Event::NotifyDue { .. } | Event::Unsubscribed { .. } => {
                panic!("neither side has packages")
            }
            Event::Ack { .. } | Event::Cancelled { .. } | Event::Provisional { .. } => {}
        }
    }
}

fn calls(seed: u64, number: u64, faults: Faults) -> World {
    let mut world = World::new(seed, faults);
    for call in 0..number {
        world.later(call * 7, (call % 2) as usize, What::Do(Plan::Invite));
    }
    world.run();
    assert!(
        world.open.iter().all(HashSet::is_empty) && world.open_requests.iter().all(HashSet::is_empty),
        "every request has an outcome"
    );
    for side in &world.sides {
        assert!(side.is_empty(), "{:?} {:?}", side.load(), side.poll_timeout());
    }
    world
}

#[test]
fn calls_over_a_clean_network_end_without_a_repeat_that_matters() {
    let clean = Faults { loss: 0.0, twice: 0.0, delay_ms: 1..=30, transport: Transport::Udp };
    let world = calls(1, 2_000, clean);
    for (what, at_least) in [("answered", 500), ("failed", 500), ("crossed", 1), ("re-INVITEs", 100), ("NOTIFYs", 500)]
    {
        assert!(world.outcomes[what] >= at_least, "{:?}", world.outcomes);
    }
    assert!(!world.outcomes.contains_key("no ACK"), "{:?}", world.outcomes);
}

#[test]
fn calls_over_a_network_that_loses_repeats_and_reorders_leave_nothing_behind() {
    for (seed, loss) in [(2, 0.05), (3, 0.2), (4, 0.5)] {
        let bad = Faults { loss, twice: 0.1, delay_ms: 1..=400, transport: Transport::Udp };
        let world = calls(seed, 1_000, bad);
        assert!(world.outcomes["answered"] > 100, "{:?}", world.outcomes);
        let repeats: u64 = world.sides.iter().map(|side| side.counters().retransmits).sum();
        assert!(repeats > 100);
    }
}

#[test]
fn calls_over_tcp_leave_nothing_behind() {
    let stream = Faults { loss: 0.0, twice: 0.0, delay_ms: 5..=5, transport: Transport::Tcp };
    let world = calls(5, 1_000, stream);
    assert!(world.outcomes["answered"] > 100);
    let repeats: u64 = world.sides.iter().map(|side| side.counters().retransmits).sum();
    assert_eq!(repeats, 0);
}

/// One random step of a stranger, of the network or of the user.
#[derive(Debug, Clone)]
enum Step {
    Request { method: usize, branch: u8, cseq: u32, to: u8, spoil: Option<(usize, u8)> },
    Response { which: u8, code: u16, tag: u8 },
    Echo { which: u8 },
    Invite,
    Cancel(u8),
    OpenAndRespond(u8, u16),
    Respond(u8, u16),
    Ack(u8),
    InDialog(u8, usize),
    Drop(u8),
    Fail(u8),
    Wait(u32),
}

const METHODS: [&str; 12] =
    ["INVITE", "ACK", "BYE", "CANCEL", "UPDATE", "INFO", "OPTIONS", "REGISTER", "BREW", "REFER", "NOTIFY", "SUBSCRIBE"];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..METHODS.len(), 0..4u8, 0..5u32, 0..6u8, proptest::option::weighted(0.1, (0..600usize, any::<u8>())))
            .prop_map(|(method, branch, cseq, to, spoil)| Step::Request { method, branch, cseq, to, spoil }),
        (any::<u8>(), 100..700u16, 0..3u8).prop_map(|(which, code, tag)| Step::Response { which, code, tag }),
        any::<u8>().prop_map(|which| Step::Echo { which }),
        Just(Step::Invite),
        any::<u8>().prop_map(Step::Cancel),
        (any::<u8>(), 90..710u16).prop_map(|(tx, code)| Step::OpenAndRespond(tx, code)),
        (any::<u8>(), 90..710u16).prop_map(|(tx, code)| Step::Respond(tx, code)),
        any::<u8>().prop_map(Step::Ack),
        (any::<u8>(), 0..METHODS.len()).prop_map(|(dialog, method)| Step::InDialog(dialog, method)),
        any::<u8>().prop_map(Step::Drop),
        any::<u8>().prop_map(Step::Fail),
        (0..40_000u32).prop_map(Step::Wait),
    ]
}

#[derive(Default)]
struct Seen {
    sent: Vec<Transmit>,
    txs: Vec<ServerTx>,
    dialogs: Vec<DialogId>,
    invites: Vec<InviteId>,
    ended: HashSet<InviteId>,
    subscriptions: HashSet<SubscriptionId>,
}

impl Seen {
    fn drain(&mut self, endpoint: &mut Endpoint, now: Instant) {
        while let Some(output) = endpoint.poll_output() {
            match output {
                Output::Transmit(transmit) => self.sent.push(transmit),
                Output::Event(Event::Invite { tx, .. } | Event::Request { tx, .. }) => self.txs.push(tx),
                Output::Event(Event::Subscribe { tx, dialog, .. }) => {
                    let dialog = dialog.map_or_else(|| endpoint.open_dialog(tx, Peer::new(addr(SIDES[0]))), Ok);
                    let Ok(dialog) = dialog else { continue };
                    self.dialogs.push(dialog);
                    self.subscriptions.extend(endpoint.accept_subscription(tx, dialog, now));
                }
                Output::Event(Event::NotifyDue { subscription, is_last }) => {
                    assert!(self.subscriptions.contains(&subscription), "{subscription:?}");
                    if is_last {
                        self.subscriptions.remove(&subscription);
                    }
                    let _ = endpoint.notify(subscription, None, now);
                }
                Output::Event(Event::Unsubscribed { subscription }) => {
                    assert!(self.subscriptions.remove(&subscription), "one end");
                }
                Output::Event(Event::Provisional { dialog: Some(dialog), .. }) => self.dialogs.push(dialog),
                Output::Event(Event::Answered { dialog, invite, .. }) => {
                    self.dialogs.push(dialog);
                    assert!(self.ended.insert(invite), "one outcome");
                }
                Output::Event(Event::Failed { invite, .. } | Event::Unwanted { invite, cancelled: true, .. }) => {
                    assert!(self.ended.insert(invite), "one outcome")
                }
                Output::Event(_) => {}
            }
        }
    }
}

/// Every dialog is found by its identity, in its state.
fn check_found(endpoint: &Endpoint, seen: &Seen, now: Instant) {
    for &dialog in &seen.dialogs {
        let Some(known) = endpoint.dialog(dialog) else { continue };
        let (key, is_ours) = (&known.key, known.is_caller);
        let expected = match known.state {
            _ if !known.is_session => None,
            State::Early => Some(Found::Early { dialog, is_ours }),
            State::Confirmed => Some(Found::Confirmed { dialog, is_ours }),
            State::Ended => Some(Found::Ended),
        };
        assert_eq!(endpoint.find_dialog(&key.call_id, &key.local_tag, &key.remote_tag, now), expected);
    }
}

fn pick<T: Clone>(list: &[T], which: u8) -> Option<T> {
    list.get(usize::from(which) % list.len().max(1)).cloned()
}

fn take(endpoint: &mut Endpoint, seen: &mut Seen, step: &Step, now: Instant) {
    let flow = crate::sip_trace::udp();
    let packet = |bytes: Bytes| Input::Packet { flow, bytes };
    match step {
        Step::Request { method, branch, cseq, to, spoil } => {
            let ours = seen.sent.iter().rev().filter_map(|sent| Message::parse(&sent.bytes).ok());
            let to = match to {
                0 => Some("<sip:bob@192.0.2.1>;tag=unknown".to_owned()),
                1 | 2 => None,
                // In the dialog of the last response of ours.
                _ => ours
                    .filter(|message| matches!(message, Message::Response(_)))
                    .filter_map(|message| message.headers().get(Name::To).map(|to| String::from_utf8_lossy(&to).into()))
                    .next(),
            };
            let to = to.unwrap_or("<sip:bob@192.0.2.1>".to_owned());
            let branch = format!("z9hG4bK{branch}");
            // INVITE and UPDATE have theirs anyway.
            let expires = format!("Event: conference\r\nExpires: {}\r\n{}", cseq * 60, crate::sip_trace::THEIR_CONTACT);
            let extra = if *method > 8 { &expires } else { "" };
            let mut bytes =
                crate::sip_trace::theirs_to(METHODS[*method], "sip:b@192.0.2.1", &branch, *cseq, &to, extra)
                    .into_bytes();
            if let Some((at, with)) = spoil {
                let at = at % bytes.len();
                bytes[at] = *with;
            }
            endpoint.handle(packet(bytes.into()), now);
        }
        Step::Response { which, code, tag } => {
            let requests: Vec<_> = seen
                .sent
                .iter()
                .filter_map(|sent| Message::parse(&sent.bytes).ok())
                .filter(|message| matches!(message, Message::Request(_)))
                .collect();
            if let Some(request) = pick(&requests, *which) {
                let tag = ["", "one", "two"][usize::from(*tag)];
                let text = crate::sip_trace::answer(&request, *code, tag, crate::sip_trace::THEIR_CONTACT);
                endpoint.handle(packet(text.into()), now);
            }
        }
        Step::Echo { which } => {
            if let Some(sent) = pick(&seen.sent, *which) {
                endpoint.handle(packet(sent.bytes), now);
            }
        }
        Step::Invite => seen.invites.extend(endpoint.invite(invite(flow), now)),
        Step::Cancel(which) => {
            if let Some(id) = pick(&seen.invites, *which) {
                let _ = endpoint.cancel(id, Headers::new(), now);
            }
        }
        Step::OpenAndRespond(which, code) => {
            if let Some(tx) = pick(&seen.txs, *which)
                && let Ok(dialog) = endpoint.open_dialog(tx, Peer::new(addr(SIDES[0])))
            {
                seen.dialogs.push(dialog);
                let _ = endpoint.respond(tx, Some(dialog), Reply::new(*code), now);
            }
        }
        Step::Respond(which, code) => {
            if let Some(tx) = pick(&seen.txs, *which) {
                let _ = endpoint.respond(tx, None, Reply::new(*code), now);
            }
        }
        Step::Ack(which) => {
            if let Some(dialog) = pick(&seen.dialogs, *which) {
                let _ = endpoint.ack(dialog, None, now);
            }
        }
        Step::InDialog(which, method) => {
            if let Some(dialog) = pick(&seen.dialogs, *which) {
                let method = Method::parse(METHODS[*method].as_bytes()).unwrap();
                let _ = endpoint.request(dialog, method, Headers::new(), None, now);
            }
        }
        Step::Drop(which) => {
            if let Some(dialog) = pick(&seen.dialogs, *which) {
                endpoint.drop_dialog(dialog, now);
            }
        }
        Step::Fail(which) => {
            if let Some(sent) = pick(&seen.sent, *which) {
                endpoint.handle(Input::Failed(sent.token), now);
            }
        }
        Step::Wait(_) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_inputs_panics_or_leaves_anything_behind(steps in proptest::collection::vec(step(), 1..60)) {
        let allow = [Options::default().allow, vec![Method::Notify, Method::Refer, Method::Subscribe]].concat();
        let packages = vec!["conference"];
        let mut endpoint = Endpoint::new(Options { allow, packages, ..crate::sip_trace::options() });
        let mut now = stickytape::clock::now();
        let mut seen = Seen::default();
        for step in &steps {
            if let Step::Wait(ms) = step {
                now += Duration::from_millis(u64::from(*ms));
                endpoint.handle(Input::Timeout, now);
            }
            take(&mut endpoint, &mut seen, step, now);
            seen.drain(&mut endpoint, now);
            for &subscription in &seen.subscriptions {
                endpoint.resource_changed(subscription, now);
            }
            seen.drain(&mut endpoint, now);
            check_found(&endpoint, &seen, now);
        }
        // The user goes home.
        for _ in 0..20 {
            for tx in seen.txs.clone() {
                let _ = endpoint.respond(tx, None, Reply::new(503), now);
            }
            for invite in seen.invites.clone() {
                let _ = endpoint.cancel(invite, Headers::new(), now);
            }
            for dialog in seen.dialogs.clone() {
                endpoint.drop_dialog(dialog, now);
            }
            seen.drain(&mut endpoint, now);
            now += Duration::from_secs(40);
            endpoint.handle(Input::Timeout, now);
            seen.drain(&mut endpoint, now);
        }
        prop_assert!(endpoint.is_empty(), "{:?} {:?}", endpoint.load(), endpoint.poll_timeout());
        prop_assert!(seen.invites.iter().all(|invite| seen.ended.contains(invite)), "every INVITE has an outcome");
        prop_assert!(seen.subscriptions.is_empty(), "every subscription has an end");
    }
}
