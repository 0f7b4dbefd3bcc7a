//! The media threads: RTP sockets, relay, tap.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::bridge::command::{Command, Notice};
use crate::bridge::relay::{Detached, Refusal};
use crate::id::WorkerId;
use crate::net::kernel::Kernel;
use crate::net::udp::{Pair, Poller, Waker};
use crate::runtime::ring;

mod mixers;
mod pace;
mod ports;
mod sockets;
mod worker;

/// What one media thread is given at its start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name: the thread is called `media-N`.
    pub worker: WorkerId,
    /// Its own part of `media.ports`; see [`split_ports`].
    pub ports: RangeInclusive<u16>,
    /// How long a closed pair's ports rest before they are bound again.
    pub cooldown: Duration,
    /// Longest sleep between two passes while the thread is busy.
    pub batch_interval: Duration,
    /// The scheduling class it asks for.
    pub priority: Priority,
    /// The instant that [`crate::record::tap::TapHeader::arrival_ns`] counts from; the same for every thread.
    pub epoch: Instant,
    /// Seeds the randomised RTCP interval (RFC 3550 §6.2).
    pub seed: u64,
}

/// `media.priority`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Priority {
    /// SCHED_RR; where the system refuses it, normal with a warning.
    #[default]
    Realtime,
    /// As every other thread.
    Normal,
}

/// One media thread to start: its options and its ends of the rings, that of `RecorderId(i)` at index i.
pub struct Worker {
    /// Options.
    pub options: Options,
    /// Tap rings by recorder.
    pub taps: Vec<ring::Producer>,
    /// Rings to and from the mixers, those of `MixerId(i)` at index i.
    pub mixers: Vec<MixerEnds>,
    /// Sends steady streams on in the thread's place.
    pub kernel: Option<Kernel>,
}

/// A media thread's ends of the two rings between it and a mixer thread; see [`super::mixer::rings`].
pub struct MixerEnds {
    /// Packets of conference legs.
    pub to: ring::Producer,
    /// What the mixer made for them.
    pub from: ring::Consumer,
}

/// Why the media threads could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused epoll, an eventfd or a thread.
    #[error("cannot start media-{worker}: {source}")]
    Start {
        /// Which one.
        worker: u8,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A running media thread. Dropping it stops the thread without waiting; [`Handle::join`] waits.
pub struct Handle {
    sender: Sender,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

/// Sends commands to one media thread; cheap to clone.
#[derive(Clone)]
pub struct Sender {
    inbox: mpsc::Sender<Message>,
    waker: Waker,
}

impl Sender {
    /// Queues a command and wakes the thread. Never blocks. After the thread has stopped commands are discarded.
    pub fn send(&self, command: Command) {
        // A stopped thread has given back everything that a command could be about.
        let _ = self.deliver(Message::Command(command));
    }

    /// Queues a command for the next [`Sender::wake`], for whoever has several: a thread that is woken for each runs a
    /// whole pass for each.
    pub fn post(&self, command: Command) {
        // As in `send`.
        let _ = self.inbox.send(Message::Command(command));
    }

    /// Wakes the thread: something is queued for it, or a mixer has something for it.
    pub fn wake(&self) {
        self.waker.wake();
    }

    fn deliver(&self, message: Message) -> Result<(), mpsc::SendError<Message>> {
        self.inbox.send(message)?;
        self.waker.wake();
        Ok(())
    }
}

impl Handle {
    /// As [`Sender::send`].
    pub fn send(&self, command: Command) {
        self.sender.send(command);
    }

    /// Another sender to the same thread.
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// Its counters.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Sends [`Command::Shutdown`] and waits until the thread has given everything back.
    pub fn join(mut self) {
        self.send(Command::Shutdown);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.send(Command::Shutdown);
    }
}

/// Totals of one media thread since its start, for `/metrics`; updated once per pass.
#[derive(Debug, Default)]
pub struct Counters {
    /// Datagrams read.
    pub received: AtomicU64,
    /// Datagrams sent.
    pub sent: AtomicU64,
    /// Datagrams that were not taken, by [`Refusal::index`].
    pub refused: [AtomicU64; Refusal::LABELS.len()],
    /// Datagrams that the kernel did not take.
    pub unsent: AtomicU64,
    /// Copies for recorders that found the ring full.
    pub untapped: AtomicU64,
    /// Packets for a mixer that found its ring full.
    pub unmixed: AtomicU64,
    /// Datagrams that the kernel sent on; in `received` and `sent` too.
    pub passed: AtomicU64,
    /// Streams that the kernel sends on now.
    pub shortcuts: AtomicU64,
    /// Times that the thread woke up.
    pub passes: AtomicU64,
    /// Legs that live on it now.
    pub legs: AtomicU64,
}

/// Disjoint parts of `ports` for `workers` threads, each beginning on an even port and holding whole pairs.
/// A part may be empty (start > end) when there are fewer pairs than workers.
pub fn split_ports(ports: RangeInclusive<u16>, workers: usize) -> Vec<RangeInclusive<u16>> {
    let first = u32::from(*ports.start()).next_multiple_of(2);
    let pairs = (u32::from(*ports.end()) + 1).saturating_sub(first) / 2;
    let workers = workers.max(1) as u32;
    (0..workers)
        .map(|worker| {
            let from = first + 2 * (pairs * worker / workers);
            let to = first + 2 * (pairs * (worker + 1) / workers);
            match to > from {
                true => from as u16..=(to - 1) as u16,
                false => RangeInclusive::new(1, 0),
            }
        })
        .collect()
}

/// Starts all media threads (they know each other: legs move between them). The worker at index i has
/// `WorkerId(i)`. `notices` is called on the media threads and must not block: an unbounded sender.
pub fn spawn(
    workers: Vec<Worker>,
    notices: impl Fn(WorkerId, Notice) + Clone + Send + 'static,
) -> Result<Vec<Handle>, Error> {
    let mut parts = Vec::with_capacity(workers.len());
    for worker in workers {
        let failed = |source| Error::Start { worker: worker.options.worker.0, source };
        let poller = Poller::new().map_err(failed)?;
        let (inbox, messages) = mpsc::channel();
        let sender = Sender { inbox, waker: poller.waker() };
        parts.push((worker, poller, messages, sender));
    }
    let senders: Vec<Sender> = parts.iter().map(|(.., sender)| sender.clone()).collect();
    let mut handles = Vec::with_capacity(parts.len());
    for (worker, poller, messages, sender) in parts {
        let id = worker.options.worker;
        let counters = Arc::new(Counters::default());
        let edges = worker::Edges { poller, messages, peers: senders.clone(), counters: Arc::clone(&counters) };
        let notices = notices.clone();
        let thread = std::thread::Builder::new()
            .name(format!("media-{}", id.0))
            .spawn(move || worker::run(worker, edges, move |notice| notices(id, notice)))
            .map_err(|source| Error::Start { worker: id.0, source })?;
        handles.push(Handle { sender, counters, thread: Some(thread) });
    }
    Ok(handles)
}

/// What comes into a thread's inbox.
enum Message {
    Command(Command),
    /// A leg with its sockets from another thread, and until when at the latest its packets wait for a route.
    Arrive(Detached, Bound, Option<Instant>),
    /// A pair of this thread's range was closed by the thread that its leg had moved to.
    Closed {
        address: IpAddr,
        port: u16,
    },
}

/// A bound pair and whose range it is of.
#[derive(Debug)]
struct Bound {
    pair: Pair,
    home: WorkerId,
    address: IpAddr,
    port: u16,
}
