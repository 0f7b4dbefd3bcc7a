//! The signaling task: the inbox, [`Calls`], and its outputs. The one place where calls change.
//!
//! ```text
//! SIP sockets ──(bounded)──┐
//! media, recorders, disk ──┴→ Calls::handle → SIP sockets · media threads · recorders · facts
//! ```
//!
//! SIP waits in its queue until the first ports are bound ([`Calls::is_able`]).
//!
//! Nothing here decides: an input goes in, outputs are carried out in order, the next timeout is slept for. Twenty times
//! a second and more every recorder gets a watermark, because all marks before that instant have been sent.
//!
//! A media thread is woken once for all commands of a batch of inputs, but at once before a peer is told of the port of a
//! leg that the thread does not have yet (what the peer sends there is the leg's), and before a mixer or a recorder is told
//! something: a wake-up that comes last would be in time for neither.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::{media, mixer, recorder};
use crate::bridge::command::Command;
use crate::call::fact::Fact;
use crate::call::request::{Accepted, Denied, DnRequest, Request, Ticket};
use crate::call::{Calls, Input, Output, Reason};
use crate::clock;
use crate::record::mark::Mark;
use crate::sip::endpoint::{self, Transmit};
use crate::sip::timers::Timer;

/// SIP messages that may wait for the task. What finds the queue full is dropped and counted by the socket that read
/// it: over UDP the peer repeats it, over TCP the socket waits.
pub const PACKETS: usize = 8_192;

/// The recorders commit nothing that a watermark has not passed.
const WATERMARK: Duration = Duration::from_millis(25);

/// SIP is taken after this time even when a media thread has not said whether it could bind ports.
const PORTS_PATIENCE: Duration = Duration::from_secs(5);

/// Every call leaves half a dozen transactions behind, each forgotten at a time of its own: waiting a little longer takes
/// several at once. What is due meanwhile for another reason is late by no more.
const FORGET_LATER: Duration = Duration::from_millis(5);

/// Inputs taken in one go before timers are looked at again.
const BATCH: usize = 64;

/// What the task commands.
pub struct Edges {
    /// Sends a SIP message without blocking; a failure comes back as [`endpoint::Input::Failed`].
    pub sip: Box<dyn Fn(Transmit) + Send>,
    /// By `WorkerId`.
    pub media: Vec<media::Sender>,
    /// By `MixerId`.
    pub mixers: Vec<mixer::Sender>,
    /// By `RecorderId`.
    pub recorders: Vec<Arc<recorder::RecorderHandle>>,
    /// Told every fact and every refused request, in order: log, metrics and events. It must not wait for anything.
    pub facts: Box<dyn FnMut(Told<'_>) + Send>,
}

/// What the log, the metrics and the events are told.
#[derive(Debug, Clone, Copy)]
pub enum Told<'a> {
    /// Something happened.
    Fact(&'a Fact),
    /// A request was refused; nothing has changed.
    Denied(&'a Request, &'a Denied),
    /// A request of a DN that is about no call was refused; nothing has changed.
    DnDenied(&'a DnRequest, &'a Denied),
}

/// A question to the calls, answered between two inputs.
type Question = Box<dyn FnOnce(&Calls) + Send>;

enum Item {
    Input(Input),
    Question(Question),
    Request(Box<Request>, oneshot::Sender<Result<Accepted, Denied>>),
    DnRequest(Box<DnRequest>, oneshot::Sender<Result<(), Denied>>),
}

/// The way into the task; cheap to clone.
#[derive(Clone)]
pub struct Inbox {
    items: mpsc::UnboundedSender<Item>,
}

impl Inbox {
    /// Notices of our own threads, room on the disk, reload, drain. Unbounded: each is the answer to a command of ours,
    /// or comes at most once a second and leg. False when the task has ended.
    pub fn send(&self, input: Input) -> bool {
        self.items.send(Item::Input(input)).is_ok()
    }

    /// Asks the calls something; `None` when the task has ended.
    pub async fn ask<T: Send + 'static>(&self, question: impl FnOnce(&Calls) -> T + Send + 'static) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let question = Box::new(move |calls: &Calls| {
            // The asker may have gone away meanwhile.
            let _ = answer.send(question(calls));
        });
        self.items.send(Item::Question(question)).ok()?;
        answered.await.ok()
    }

    /// Asks a call to change; `None` when the task has ended. Answered at once, or when what is open in the call is over.
    pub async fn request(&self, request: Request) -> Option<Result<Accepted, Denied>> {
        self.submit(request)?.await.ok()
    }

    /// As [`Inbox::request`], without waiting for the answer: requests are taken in the order of these calls.
    pub fn submit(&self, request: Request) -> Option<oneshot::Receiver<Result<Accepted, Denied>>> {
        let (answer, answered) = oneshot::channel();
        self.items.send(Item::Request(Box::new(request), answer)).ok()?;
        Some(answered)
    }

    /// As [`Inbox::submit`]; the answer, `None` when the task has ended, goes to `then`, whether or not the asker is still
    /// there. Within the runtime.
    pub fn submit_then(&self, request: Request, then: impl FnOnce(Option<Result<Accepted, Denied>>) + Send + 'static) {
        let answer = self.submit(request);
        tokio::spawn(async move {
            then(match answer {
                Some(answer) => answer.await.ok(),
                None => None,
            });
        });
    }

    /// Asks something that concerns no call yet; `None` when the task has ended. Answered at once.
    pub async fn dn_request(&self, request: DnRequest) -> Option<Result<(), Denied>> {
        let (answer, answered) = oneshot::channel();
        self.items.send(Item::DnRequest(Box::new(request), answer)).ok()?;
        answered.await.ok()
    }
}

/// The receiving end, for [`run`].
pub struct Queue {
    items: mpsc::UnboundedReceiver<Item>,
    inbox: Inbox,
}

/// A fresh inbox and its receiving end.
pub fn inbox() -> (Inbox, Queue) {
    let (items, queue) = mpsc::unbounded_channel();
    let inbox = Inbox { items };
    (inbox.clone(), Queue { items: queue, inbox })
}

/// Runs until [`Output::Drained`]. `packets` is what the SIP sockets read, at most [`PACKETS`] waiting; `able` is told
/// when they begin to be taken.
pub async fn run(
    mut calls: Calls,
    edges: Edges,
    mut packets: mpsc::Receiver<endpoint::Input>,
    mut queue: Queue,
    able: oneshot::Sender<()>,
) {
    let inbox = queue.inbox.clone();
    let posted = vec![Posted::default(); edges.media.len()];
    let mut task =
        Task { edges, posted, inbox, drained: false, asking: HashMap::new(), dn_asking: HashMap::new(), tickets: 0 };
    let mut starting = Some((able, clock::now() + PORTS_PATIENCE));
    let mut watermark = interval(WATERMARK);
    watermark.set_missed_tick_behavior(MissedTickBehavior::Skip);
    task.carry_out(&mut calls);
    while !task.drained {
        task.wake(|posted| posted.any);
        if let Some((able, _)) = starting.take_if(|(_, latest)| calls.is_able() || *latest <= clock::now()) {
            // Whoever waited for it may have given up.
            let _ = able.send(());
        }
        let latest = starting.as_ref().map(|(_, latest)| *latest);
        let due = calls.poll_timeout().map(|(at, reason)| if forgets(reason) { at + FORGET_LATER } else { at });
        let wake = due.into_iter().chain(latest).min();
        tokio::select! {
            biased;
            _ = watermark.tick() => task.watermark(clock::now()),
            Some(item) = queue.items.recv() => {
                task.item(&mut calls, item);
                for _ in 1..BATCH {
                    let Ok(item) = queue.items.try_recv() else { break };
                    task.item(&mut calls, item);
                }
            }
            Some(input) = packets.recv(), if starting.is_none() => {
                task.input(&mut calls, Input::Sip(input));
                for _ in 1..BATCH {
                    let Ok(input) = packets.try_recv() else { break };
                    task.input(&mut calls, Input::Sip(input));
                }
            }
            () = sleep(wake) => {}
        }
        if calls.poll_timeout().is_some_and(|(at, _)| at <= clock::now()) {
            task.input(&mut calls, Input::Timeout);
        }
    }
    task.wake(|posted| posted.any);
    task.watermark(clock::now());
}

/// True when nothing but memory waits for this timer: a transaction that is over is forgotten.
fn forgets(reason: Reason) -> bool {
    use Timer::{D, I, J, K, L, M};
    matches!(reason, Reason::Sip(sip) if matches!(sip.timer, D | I | J | K | L | M))
}

async fn sleep(until: Option<Instant>) {
    match until {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// A request and who waits for its answer.
struct Asking {
    request: Request,
    answer: oneshot::Sender<Result<Accepted, Denied>>,
}

/// What a media thread has been sent without being woken.
#[derive(Debug, Clone, Copy, Default)]
struct Posted {
    any: bool,
    /// A leg among it.
    leg: bool,
}

struct Task {
    edges: Edges,
    /// By `WorkerId`.
    posted: Vec<Posted>,
    inbox: Inbox,
    drained: bool,
    /// Requests without an answer yet.
    asking: HashMap<Ticket, Asking>,
    /// Requests of DNs without an answer yet.
    dn_asking: HashMap<Ticket, (DnRequest, oneshot::Sender<Result<(), Denied>>)>,
    tickets: u64,
}

impl Task {
    fn item(&mut self, calls: &mut Calls, item: Item) {
        match item {
            Item::Input(input) => self.input(calls, input),
            Item::Question(question) => question(calls),
            Item::Request(request, answer) => {
                self.tickets += 1;
                let ticket = Ticket(self.tickets);
                self.asking.insert(ticket, Asking { request: (*request).clone(), answer });
                self.input(calls, Input::Request(ticket, request));
            }
            Item::DnRequest(request, answer) => {
                self.tickets += 1;
                let ticket = Ticket(self.tickets);
                self.dn_asking.insert(ticket, ((*request).clone(), answer));
                self.input(calls, Input::DnRequest(ticket, request));
            }
        }
    }

    fn input(&mut self, calls: &mut Calls, input: Input) {
        calls.handle(input, clock::now(), clock::wall());
        self.carry_out(calls);
    }

    fn carry_out(&mut self, calls: &mut Calls) {
        while let Some(output) = calls.poll_output() {
            match output {
                Output::Sip(transmit) => {
                    self.wake(|posted| posted.leg);
                    (self.edges.sip)(transmit);
                }
                Output::Media(worker, command) => self.post(usize::from(worker.0), command),
                Output::Mix(mixer, command) => {
                    self.wake(|posted| posted.any);
                    self.edges.mixers[usize::from(mixer.0)].send(command);
                }
                Output::Mark(recorder, mark) => {
                    self.wake(|posted| posted.any);
                    self.mark(usize::from(recorder.0), mark);
                }
                Output::Fact(fact) => (self.edges.facts)(Told::Fact(&fact)),
                Output::Resolve { host } => self.resolve(host),
                Output::Answer(ticket, answer) => {
                    if let Some(asking) = self.asking.remove(&ticket) {
                        if let Err(denied) = &answer {
                            (self.edges.facts)(Told::Denied(&asking.request, denied));
                        }
                        // The asker may have gone away meanwhile.
                        let _ = asking.answer.send(answer);
                    }
                }
                Output::DnAnswer(ticket, answer) => {
                    if let Some((request, asking)) = self.dn_asking.remove(&ticket) {
                        if let Err(denied) = &answer {
                            (self.edges.facts)(Told::DnDenied(&request, denied));
                        }
                        // The asker may have gone away meanwhile.
                        let _ = asking.send(answer);
                    }
                }
                Output::Drained => self.drained = true,
            }
        }
    }

    fn post(&mut self, worker: usize, command: Command) {
        let posted = &mut self.posted[worker];
        posted.any = true;
        posted.leg |= matches!(command, Command::AddLeg(_));
        self.edges.media[worker].post(command);
    }

    /// Wakes the media threads that have been sent something like that.
    fn wake(&mut self, which: impl Fn(&Posted) -> bool) {
        for (posted, media) in self.posted.iter_mut().zip(&self.edges.media) {
            if which(posted) {
                *posted = Posted::default();
                media.wake();
            }
        }
    }

    fn mark(&self, recorder: usize, mark: Mark) {
        self.edges.recorders[recorder].mark(mark);
    }

    fn watermark(&self, before: Instant) {
        for recorder in &self.edges.recorders {
            recorder.watermark(before);
        }
    }

    /// Names are looked up by the system, which may take seconds; the answer is an input like any other.
    fn resolve(&self, host: Arc<str>) {
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            let addresses = match tokio::net::lookup_host((&*host, 0)).await {
                Ok(found) => found.map(|address| address.ip()).collect(),
                Err(error) => {
                    tracing::warn!(%host, %error, "cannot resolve a peer's name");
                    Vec::new()
                }
            };
            inbox.send(Input::Resolved { host, addresses });
        });
    }
}
