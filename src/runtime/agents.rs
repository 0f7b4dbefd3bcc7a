//! Agents' desktops and the interaction model (spec/events.md §3).
//!
//! ```text
//! signaling ─(facts)→ Desks ─(bounded, one for each desktop)→ api::agents → desktop
//!     ↑                ↑ └──(publisher)→ the kept events of reporting
//!     └──(requests)────┴────────── messages ─────── api::agents ← desktop
//! ```
//!
//! The model stands under a lock that is held for one fact, message or answer, never while anybody waits. A desktop that
//! does not read what it is told loses its connection, and finds its open invitations when it comes back; nobody else
//! notices.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::sleep_until;

use super::events::{self, Publisher};
use super::signaling::Inbox;
use crate::api::{AgentLine, Answer, LineEnd};
use crate::call::fact::Fact;
use crate::clock;
use crate::views::interaction::event::Event;
use crate::views::interaction::message::{AgentId, ConnectionId, Message};
use crate::views::interaction::{Input, Interactions, IsDn, NotRegistered, Options, Output};

/// Events that may wait for a desktop to read them.
pub const QUEUE: usize = 1_024;

/// All desktops, and the model that says what they are told.
pub struct Desks {
    inner: Mutex<Inner>,
    inbox: Inbox,
    /// The next time-out may have changed.
    changed: Notify,
}

struct Inner {
    model: Interactions,
    desktops: HashMap<ConnectionId, Desktop>,
    /// `None`: the server stops.
    reporting: Option<Publisher<Event>>,
    /// The last connection.
    last: u64,
}

/// The way to a desktop. Dropped, its connection ends after what it has been told.
struct Desktop {
    events: mpsc::Sender<String>,
    /// Why it ends, when not because the server stops.
    end: oneshot::Sender<LineEnd>,
    /// `seq` of the last event.
    seq: u64,
}

/// A desktop's own end of it.
struct Line {
    desks: Arc<Desks>,
    id: ConnectionId,
    events: mpsc::Receiver<String>,
    end: oneshot::Receiver<LineEnd>,
}

impl Desks {
    /// Without agents and calls. `inbox` is asked what agents ask; `reporting` is told what reporting is told.
    pub fn new(inbox: Inbox, reporting: Publisher<Event>, options: Options) -> Arc<Self> {
        let model = Interactions::new(options);
        let inner = Inner { model, desktops: HashMap::new(), reporting: Some(reporting), last: 0 };
        Arc::new(Self { inner: Mutex::new(inner), inbox, changed: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The model is pure and nothing else happens under the lock: nobody panics while holding it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something has happened. Within the runtime; waits for nothing.
    pub fn fact(self: &Arc<Self>, fact: &Fact) {
        self.input(Input::Fact(fact));
    }

    /// Other numbers are DNs from now on.
    pub fn reload(&self, is_dn: IsDn) {
        self.lock().model.reload(is_dn);
    }

    /// Agents that are registered.
    pub fn agents(&self) -> usize {
        self.lock().model.agents()
    }

    /// Registers an agent for as long as the line lives.
    ///
    /// # Errors
    /// See [`Interactions::connect`].
    pub fn connect(self: &Arc<Self>, agent: AgentId, dn: String) -> Result<Box<dyn AgentLine>, NotRegistered> {
        let mut inner = self.lock();
        inner.last += 1;
        let id = ConnectionId(inner.last);
        inner.model.connect(id, agent, dn)?;
        let (sender, events) = mpsc::channel(QUEUE);
        let (ending, end) = oneshot::channel();
        inner.desktops.insert(id, Desktop { events: sender, end: ending, seq: 0 });
        tracing::info!(desktop = id.0, "agent registered");
        self.carry_out(&mut inner);
        Ok(Box::new(Line { desks: self.clone(), id, events, end }))
    }

    /// Nothing is told any more: every desktop's line ends after what it has been told, and so does what reporting is told.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.reporting = None;
        inner.desktops.clear();
    }

    fn input(self: &Arc<Self>, input: Input<'_>) {
        let mut inner = self.lock();
        let before = inner.model.poll_timeout();
        inner.model.handle(input, clock::now());
        self.carry_out(&mut inner);
        if inner.model.poll_timeout() != before {
            self.changed.notify_one();
        }
    }

    fn carry_out(self: &Arc<Self>, inner: &mut Inner) {
        while let Some(output) = inner.model.poll_output() {
            match output {
                Output::Tell(id, event) => inner.tell(id, &event),
                Output::Report(event) => {
                    if let Some(reporting) = &mut inner.reporting {
                        reporting.publish(clock::wall(), event);
                    }
                }
                Output::Ask(id, request) => {
                    let desks = self.clone();
                    self.inbox.submit_then(request, move |answer| desks.input(Input::Answered(id, answer)));
                }
                Output::Replaced(id) => inner.end(id, LineEnd::Replaced),
            }
        }
    }
}

impl Inner {
    fn tell(&mut self, id: ConnectionId, event: &Event) {
        let Some(desktop) = self.desktops.get_mut(&id) else { return };
        desktop.seq += 1;
        let line = events::line(desktop.seq, clock::wall(), event);
        if desktop.events.try_send(line).is_err() {
            tracing::warn!(
                desktop = id.0,
                "an agent's desktop does not read what it is told: its connection is closed"
            );
            self.end(id, LineEnd::TooSlow);
        }
    }

    fn end(&mut self, id: ConnectionId, why: LineEnd) {
        if let Some(desktop) = self.desktops.remove(&id) {
            // It may have gone meanwhile.
            let _ = desktop.end.send(why);
        }
    }
}

impl AgentLine for Line {
    fn next(&mut self) -> Answer<'_, Result<String, LineEnd>> {
        Box::pin(async {
            match self.events.recv().await {
                Some(event) => Ok(event),
                None => Err(self.end.try_recv().unwrap_or(LineEnd::Stopping)),
            }
        })
    }

    fn ask(&self, reference: Option<Arc<str>>, message: Message) {
        self.desks.input(Input::Message { from: self.id, reference, message });
    }

    fn malformed(&self, reason: String) {
        self.desks.input(Input::Malformed { from: self.id, reason });
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.desks.lock().desktops.remove(&self.id);
        self.desks.input(Input::Disconnected(self.id));
        tracing::info!(desktop = self.id.0, "agent's desktop gone");
    }
}

/// Revokes invitations when their time is over, until `stop`.
pub async fn run(desks: Arc<Desks>, mut stop: oneshot::Receiver<()>) {
    loop {
        let wake = desks.lock().model.poll_timeout();
        let sleep = async {
            match wake {
                Some((at, _)) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // A dropped sender stops it, too.
            _ = &mut stop => return,
            () = desks.changed.notified() => {}
            () = sleep => desks.input(Input::Timeout),
        }
    }
}
