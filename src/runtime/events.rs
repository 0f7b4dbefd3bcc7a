//! Events are numbered, kept for replay and handed to subscribers and to the event log.
//!
//! ```text
//! signaling ─(publisher, bounded)→ keeper → the kept events ←(each at its own place)─ subscriptions
//!                                       └─(bounded)→ event log (super::event_log)
//! ```
//!
//! A subscription has no queue: it reads the kept events from its own place on. One that is slow falls behind until its
//! place is no longer kept, and is then told how many events it has missed ([`Item::Lost`]); memory and everybody else
//! are as if it were not there. The publisher never waits: what finds the queue full is counted and is a gap in `seq`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use super::event_log::Log;
use super::metrics::Metrics;
use crate::call::fact::Fact;
use crate::views::interaction;
use crate::views::telephony::Telephony;
use crate::views::telephony::event::Event;

/// Events that may wait for the keeper: seconds of the busiest signaling.
const QUEUE: usize = 16_384;

/// Events kept at least, whatever `events.keep` says: subscribers that are connected read from what is kept.
const LEAST_KEPT: usize = 1_024;

/// Bytes of JSON kept for each event on average; the oldest events go when all together need more.
const BYTES_PER_EVENT: usize = 1_024;

/// Events a subscription takes over at once: the kept events are locked for so long.
const BATCH: usize = 64;

/// Events a subscription looks through at once for those of its DN.
const SCAN: usize = 1_024;

/// An event that can be published: its attributes are what it is written as.
pub trait Publish: Serialize + Send + 'static {
    /// `event`.
    fn name(&self) -> &'static str;
    /// The DN whose event it is; `None`: it is everybody's.
    fn recipient(&self) -> Option<&str>;
}

impl Publish for Event {
    fn name(&self) -> &'static str {
        self.name.as_str()
    }

    fn recipient(&self) -> Option<&str> {
        Some(&self.this_dn)
    }
}

/// What reporting is told of interactions.
impl Publish for interaction::event::Event {
    fn name(&self) -> &'static str {
        self.name.as_str()
    }

    fn recipient(&self) -> Option<&str> {
        None
    }
}

/// One event as it is kept and sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Kept {
    /// Grows by one per event from 1; begins anew when the server starts.
    pub seq: u64,
    /// `ThisDN`: the recipient; `None`: everybody.
    pub dn: Option<String>,
    /// `event`: `EventRinging`, … .
    pub name: &'static str,
    /// The whole event as one line of JSON, without line end.
    pub json: String,
}

/// What a subscriber gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The next event.
    Event(Arc<Kept>),
    /// Events before `next` are no longer kept and were never given to this subscriber.
    Lost {
        /// How many; with a filter by DN those of other DNs are counted, too. 0: `after` named an event that this server
        /// has not sent, so it was another server's, or the same one's before it was started again.
        count: u64,
        /// The `seq` from which on everything is kept.
        next: u64,
    },
}

/// Totals since the start and present levels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events kept now.
    pub kept: usize,
    /// Subscriptions now.
    pub subscribers: usize,
    /// Events that slow subscribers have missed.
    pub lost: u64,
    /// Events that found the keeper's queue full: nobody gets them.
    pub dropped: u64,
    /// Events that are missing in the event log.
    pub unwritten: u64,
}

#[derive(Default)]
struct Totals {
    subscribers: AtomicUsize,
    lost: AtomicU64,
    dropped: AtomicU64,
    unwritten: Arc<AtomicU64>,
}

/// The kept events, oldest first.
struct Ring {
    events: VecDeque<Arc<Kept>>,
    most: usize,
    bytes: usize,
    /// `seq` of the newest event; 0: there was none.
    latest: u64,
}

impl Ring {
    fn new(keep: usize) -> Self {
        Self { events: VecDeque::new(), most: keep.max(LEAST_KEPT), bytes: 0, latest: 0 }
    }

    /// Keeps one more. Those that go for it are handed out: they are freed without the lock.
    fn push(&mut self, kept: Arc<Kept>, gone: &mut Vec<Arc<Kept>>) {
        self.latest = kept.seq;
        self.bytes += kept.json.len();
        self.events.push_back(kept);
        while self.events.len() > self.most || self.bytes > self.most * BYTES_PER_EVENT {
            let Some(oldest) = self.events.pop_front() else { return };
            self.bytes -= oldest.json.len();
            gone.push(oldest);
        }
    }

    /// The first `seq` that is kept, or will be.
    fn first(&self) -> u64 {
        self.events.front().map_or(self.latest + 1, |oldest| oldest.seq)
    }
}

struct Shared {
    ring: Mutex<Ring>,
    totals: Totals,
}

impl Shared {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Nobody panics while holding it: it is pushed to and cloned from.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The kept events: who wants to read them subscribes here. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    shared: Arc<Shared>,
    latest: watch::Receiver<u64>,
}

/// The way in, for the signaling task.
pub struct Publisher<E> {
    queue: mpsc::Sender<(u64, Timestamp, E)>,
    shared: Arc<Shared>,
    /// `seq` of the newest event.
    latest: u64,
}

/// The receiving end, for [`run`].
pub struct Queue<E> {
    queue: mpsc::Receiver<(u64, Timestamp, E)>,
    shared: Arc<Shared>,
    latest: watch::Sender<u64>,
}

/// Kept events, the way in, and the receiving end. `keep` is the number of events kept for replay.
pub fn events<E: Publish>(keep: usize) -> (Events, Publisher<E>, Queue<E>) {
    let (sender, queue) = mpsc::channel(QUEUE);
    let (newest, latest) = watch::channel(0);
    let shared = Arc::new(Shared { ring: Mutex::new(Ring::new(keep)), totals: Totals::default() });
    let events = Events { shared: shared.clone(), latest };
    let publisher = Publisher { queue: sender, shared: shared.clone(), latest: 0 };
    (events, publisher, Queue { queue, shared, latest: newest })
}

impl<E: Publish> Publisher<E> {
    /// Numbers an event and hands it on, without waiting. `time`: when it happened.
    pub fn publish(&mut self, time: Timestamp, event: E) {
        self.latest += 1;
        if self.queue.try_send((self.latest, time, event)).is_err() {
            self.shared.totals.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Facts and refusals on their way to events, on the signaling task.
pub struct Teller {
    telephony: Telephony,
    publisher: Publisher<Event>,
    metrics: Arc<Metrics>,
}

impl Teller {
    /// `max_calls`: as for [`Telephony::new`].
    pub fn new(max_calls: usize, publisher: Publisher<Event>, metrics: Arc<Metrics>) -> Self {
        Self { telephony: Telephony::new(max_calls), publisher, metrics }
    }

    /// Publishes the events of a fact.
    pub fn fact(&mut self, fact: &Fact) {
        for event in self.telephony.project(fact) {
            self.publish(fact.wall, event);
        }
    }

    /// Publishes the event of a refused request, where it has one; `time`: now.
    pub fn denied(&mut self, error: Option<Event>, time: Timestamp) {
        if let Some(event) = error {
            self.publish(time, event);
        }
    }

    fn publish(&mut self, time: Timestamp, event: Event) {
        self.metrics.event(event.name.as_str());
        self.publisher.publish(time, event);
    }
}

impl<E> Queue<E> {
    /// Where the event log counts what it could not write.
    pub fn unwritten(&self) -> Arc<AtomicU64> {
        self.shared.totals.unwritten.clone()
    }
}

/// Keeps events until the publisher is gone; then every subscription ends after what is kept, and so does the event log.
pub async fn run<E: Publish>(mut queue: Queue<E>, log: Option<Log>) {
    let mut arrived = Vec::with_capacity(BATCH);
    let mut gone = Vec::new();
    while queue.queue.recv_many(&mut arrived, BATCH).await > 0 {
        for (seq, time, event) in arrived.drain(..) {
            let kept = Arc::new(keep(seq, time, &event));
            if let Some(log) = &log {
                log.write(kept.clone());
            }
            queue.shared.ring().push(kept, &mut gone);
            queue.latest.send_replace(seq);
        }
        gone.clear();
    }
}

/// The head of every event.
#[derive(Serialize)]
struct Line<'a, E> {
    seq: u64,
    time: String,
    #[serde(flatten)]
    event: &'a E,
}

/// An event as one line of JSON with its head.
pub fn line(seq: u64, time: Timestamp, event: &impl Serialize) -> String {
    // Texts, numbers and ids: none of them refuses to be written.
    serde_json::to_string(&Line { seq, time: format!("{time:.3}"), event }).unwrap_or_default()
}

fn keep(seq: u64, time: Timestamp, event: &impl Publish) -> Kept {
    Kept { seq, name: event.name(), dn: event.recipient().map(str::to_owned), json: line(seq, time, event) }
}

impl Events {
    /// Subscribes to the events of one DN, or of all. Without `after` what comes next; else what is kept after that
    /// `seq`, then what comes next; 0: all that is kept. The rules of `GET /v1/events` (spec/interface.md §3).
    pub fn subscribe(&self, dn: Option<String>, after: Option<u64>) -> Subscription {
        let ring = self.shared.ring();
        let (first, latest) = (ring.first(), ring.latest);
        drop(ring);
        let mut ready = VecDeque::new();
        let next = match after {
            None => latest + 1,
            Some(0) => first,
            Some(after) if after > latest => {
                ready.push_back(Item::Lost { count: 0, next: first });
                first
            }
            Some(after) => after + 1,
        };
        self.shared.totals.subscribers.fetch_add(1, Ordering::Relaxed);
        Subscription { shared: self.shared.clone(), latest: self.latest.clone(), dn, next, ready }
    }

    /// Totals and levels.
    pub fn counters(&self) -> Counters {
        let totals = &self.shared.totals;
        Counters {
            kept: self.shared.ring().events.len(),
            subscribers: totals.subscribers.load(Ordering::Relaxed),
            lost: totals.lost.load(Ordering::Relaxed),
            dropped: totals.dropped.load(Ordering::Relaxed),
            unwritten: totals.unwritten.load(Ordering::Relaxed),
        }
    }
}

/// One reader of the events.
pub struct Subscription {
    shared: Arc<Shared>,
    latest: watch::Receiver<u64>,
    dn: Option<String>,
    /// The next `seq` to look at.
    next: u64,
    /// Taken over, not given yet.
    ready: VecDeque<Item>,
}

impl Subscription {
    /// The next item, waiting for it; `None`: the server stops, nothing comes any more. May be cancelled: nothing is lost
    /// by it.
    pub async fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            if self.take_over() {
                continue;
            }
            if self.latest.changed().await.is_err() && !self.take_over() {
                return None;
            }
        }
    }

    /// Takes over what is kept from its place on. False: there is nothing.
    fn take_over(&mut self) -> bool {
        let ring = self.shared.ring();
        let begin = ring.events.partition_point(|kept| kept.seq < self.next);
        let mut moved = false;
        for kept in ring.events.range(begin..).take(SCAN) {
            moved = true;
            let missed = kept.seq - self.next;
            if missed > 0 {
                self.shared.totals.lost.fetch_add(missed, Ordering::Relaxed);
                self.ready.push_back(Item::Lost { count: missed, next: kept.seq });
            }
            self.next = kept.seq + 1;
            if self.dn.is_none() || kept.dn.is_none() || self.dn == kept.dn {
                self.ready.push_back(Item::Event(kept.clone()));
            }
            if self.ready.len() >= BATCH {
                break;
            }
        }
        moved
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.totals.subscribers.fetch_sub(1, Ordering::Relaxed);
    }
}
