//! Connections of IVR drivers (spec/events.md §2).
//!
//! ```text
//! signaling ─(facts)→ Hub ─(bounded, one for each driver)→ connection → driver
//!     ↑                ↑
//!     └──(requests)────┴──────────── messages ──────────── connection ← driver
//! ```
//!
//! The hub holds the view of all calls under a lock that is held for one fact or message, never while anybody waits. A
//! driver that does not read what it is told loses its connection, and learns the state of the calls when it comes back;
//! nobody else notices.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::signaling::Inbox;
use crate::call::fact::Fact;
use crate::call::request::Request;
use crate::clock;
use crate::ivr::frame::{self, Decoder, Frame, FrameError, Kind};
use crate::ivr::message::{self, Asked, Refused};
use crate::views::ivr::message::{Audience, DriverId, Say, Telling};
use crate::views::ivr::{AskId, IsPort, Ivr, Options, Output};

/// Connections at once; one more gets an error frame and is closed.
pub const MAX_DRIVERS: usize = 64;

/// Frames that may wait for a driver to read them.
pub const QUEUE: usize = 4_096;

/// A driver that takes nothing for so long is gone.
const WRITING: Duration = Duration::from_secs(10);

/// What is said last is written within this time.
const FLUSH: Duration = Duration::from_secs(1);

/// After a failure to accept a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// When a silent driver is asked whether it is there, and when it is taken for dead.
#[derive(Debug, Clone, Copy)]
pub struct Silence {
    /// A keep-alive request is sent each time that this has passed.
    pub ask: Duration,
    /// The connection is closed.
    pub dead: Duration,
}

impl Default for Silence {
    fn default() -> Self {
        Self { ask: Duration::from_secs(20), dead: Duration::from_secs(60) }
    }
}

/// All drivers, and the calls that they are told of.
pub struct Hub {
    inner: Mutex<Inner>,
    inbox: Inbox,
    totals: Totals,
}

/// Counted since the start, for `/metrics`.
#[derive(Debug, Default)]
pub struct Totals {
    /// Frames that drivers have sent, those that cannot be read included.
    pub received: AtomicU64,
    /// Frames written to drivers.
    pub sent: AtomicU64,
    /// Frames that could not be read: a wrong header, no XML, no message that we know.
    pub malformed: AtomicU64,
    /// Messages answered by CallError.
    pub refused: AtomicU64,
    /// Drivers let go because they did not read what they were told.
    pub slow: AtomicU64,
    /// Connections refused because [`MAX_DRIVERS`] were there.
    pub full: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

struct Inner {
    ivr: Ivr,
    drivers: BTreeMap<DriverId, mpsc::Sender<Vec<u8>>>,
    next: u64,
    closed: bool,
}

/// A driver's place in the hub.
struct Place {
    id: DriverId,
    /// What it is told first: the state of all calls.
    state: Vec<Vec<u8>>,
    queue: mpsc::Receiver<Vec<u8>>,
    /// For what its own connection has to say; goes when the hub has let it go.
    own: mpsc::WeakSender<Vec<u8>>,
}

impl Hub {
    /// Without drivers and calls. `inbox` is asked what drivers ask.
    pub fn new(inbox: Inbox, options: Options) -> Arc<Self> {
        let inner = Inner { ivr: Ivr::new(options), drivers: BTreeMap::new(), next: 0, closed: false };
        Arc::new(Self { inner: Mutex::new(inner), inbox, totals: Totals::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The view is pure and nothing else happens under the lock: nobody panics while holding it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells drivers of a fact. Within the runtime; waits for nothing.
    pub fn fact(self: &Arc<Self>, fact: &Fact) {
        let mut inner = self.lock();
        let outputs = inner.ivr.fact(fact);
        self.carry_out(&mut inner, outputs);
    }

    /// Other DNs are IVR ports from now on.
    pub fn reload(&self, is_port: IsPort) {
        self.lock().ivr.reload(is_port);
    }

    /// Drivers that are connected.
    pub fn drivers(&self) -> usize {
        self.lock().drivers.len()
    }

    /// What has been counted.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Lets every driver go, once it has been told what waits for it.
    fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.drivers.clear();
    }

    fn connect(&self) -> Option<Place> {
        let mut inner = self.lock();
        if inner.drivers.len() >= MAX_DRIVERS || inner.closed {
            return None;
        }
        inner.next += 1;
        let id = DriverId(inner.next);
        let (sender, queue) = mpsc::channel(QUEUE);
        let own = sender.downgrade();
        let state = inner.ivr.state().iter().map(told).collect();
        inner.drivers.insert(id, sender);
        Some(Place { id, state, queue, own })
    }

    fn disconnect(&self, id: DriverId) {
        self.lock().drivers.remove(&id);
    }

    fn message(self: &Arc<Self>, driver: DriverId, asked: Asked) {
        let mut inner = self.lock();
        let outputs = inner.ivr.message(driver, asked.call, asked.req_id, asked.message);
        self.carry_out(&mut inner, outputs);
    }

    fn carry_out(self: &Arc<Self>, inner: &mut Inner, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Tell(telling) => inner.tell(&telling, &self.totals),
                Output::Ask(id, request) => self.ask(id, request),
            }
        }
    }

    /// The answer comes by itself: the asker's connection may be gone by then, the call may not.
    fn ask(self: &Arc<Self>, id: AskId, request: Request) {
        let hub = self.clone();
        self.inbox.submit_then(request, move |answer| {
            let mut inner = hub.lock();
            let outputs = inner.ivr.answered(id, answer);
            hub.carry_out(&mut inner, outputs);
        });
    }
}

impl Inner {
    fn tell(&mut self, telling: &Telling, totals: &Totals) {
        let bytes = told(telling);
        if matches!(telling.say, Say::Error(_)) {
            count(&totals.refused);
        }
        match telling.to {
            Audience::All => self.drivers.retain(|id, driver| takes(*id, driver, &bytes, totals)),
            Audience::Driver(id) => {
                if self.drivers.get(&id).is_some_and(|driver| !takes(id, driver, &bytes, totals)) {
                    self.drivers.remove(&id);
                }
            }
        }
    }
}

/// Hands a frame to a driver. False: it reads too slowly, and is let go.
fn takes(id: DriverId, driver: &mpsc::Sender<Vec<u8>>, bytes: &[u8], totals: &Totals) -> bool {
    let taken = driver.try_send(bytes.to_vec()).is_ok();
    if !taken {
        count(&totals.slow);
        tracing::warn!(driver = id.0, "an IVR driver does not read what it is told: its connection is closed");
    }
    taken
}

fn told(telling: &Telling) -> Vec<u8> {
    frame::encode(Kind::Xml, message::body(&telling.call.to_string(), &telling.say).as_bytes())
}

/// Takes connections until `stop`; returns when every driver has been told what waits for it.
pub async fn run(listener: TcpListener, hub: Arc<Hub>, silence: Silence, mut stop: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            // A dropped sender stops it, too.
            _ = &mut stop => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => _ = connections.spawn(connection(stream, peer, hub.clone(), silence)),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an IVR driver");
                    sleep(PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    hub.close();
    let all = async { while connections.join_next().await.is_some() {} };
    // Who does not read by then is cut off when the set is dropped.
    let _ = timeout(WRITING, all).await;
}

async fn connection(stream: TcpStream, peer: SocketAddr, hub: Arc<Hub>, silence: Silence) {
    // Frames are small and each matters at once.
    let _ = stream.set_nodelay(true);
    let (reader, mut writer) = stream.into_split();
    let Some(Place { id, state, queue, own }) = hub.connect() else {
        tracing::warn!(%peer, "an IVR driver too many is refused");
        count(&hub.totals.full);
        let full = frame::encode(Kind::Error, b"no connection is free");
        let _ = timeout(FLUSH, writer.write_all(&full)).await;
        return hang_up(reader, writer).await;
    };
    tracing::info!(driver = id.0, %peer, "IVR driver connected");
    let mut reading = Reading { id, hub: hub.clone(), own, reader, decoder: Decoder::default() };
    let why = {
        let writing = write(&mut writer, state, queue, &hub.totals);
        tokio::pin!(writing);
        tokio::select! {
            end = &mut writing => end.unwrap_or_else(|error| error.to_string()),
            why = reading.run(silence) => {
                hub.disconnect(id);
                // What has been said to it before, an error frame above all.
                let _ = timeout(FLUSH, writing).await;
                why
            }
        }
    };
    hub.disconnect(id);
    tracing::info!(driver = id.0, %peer, why, "IVR driver gone");
    hang_up(reading.reader, writer).await;
}

/// Closes so that the driver can read all that was written: the system resets a connection that has unread bytes.
async fn hang_up(mut reader: OwnedReadHalf, mut writer: OwnedWriteHalf) {
    let _ = writer.shutdown().await;
    let rest = async {
        let mut bytes = [0; 4_096];
        while matches!(reader.read(&mut bytes).await, Ok(read) if read > 0) {}
    };
    let _ = timeout(FLUSH, rest).await;
}

/// Writes what the driver is told, until the hub lets it go.
async fn write(
    writer: &mut OwnedWriteHalf,
    state: Vec<Vec<u8>>,
    mut queue: mpsc::Receiver<Vec<u8>>,
    totals: &Totals,
) -> io::Result<String> {
    for frame in state {
        timeout(WRITING, writer.write_all(&frame)).await??;
        count(&totals.sent);
    }
    while let Some(frame) = queue.recv().await {
        timeout(WRITING, writer.write_all(&frame)).await??;
        count(&totals.sent);
    }
    Ok("let go".to_owned())
}

/// What a driver sends.
struct Reading {
    id: DriverId,
    hub: Arc<Hub>,
    own: mpsc::WeakSender<Vec<u8>>,
    reader: OwnedReadHalf,
    decoder: Decoder,
}

impl Reading {
    /// Reads until the driver is gone; says why.
    async fn run(&mut self, silence: Silence) -> String {
        let mut bytes = vec![0; 4_096];
        let mut heard = clock::now();
        let mut asked = heard;
        loop {
            match timeout(until(asked + silence.ask), self.reader.read(&mut bytes)).await {
                Ok(Ok(0)) => return "it has closed the connection".to_owned(),
                Ok(Ok(read)) => {
                    (heard, asked) = (clock::now(), clock::now());
                    self.decoder.push(&bytes[..read]);
                    if let Err(why) = self.frames() {
                        return why;
                    }
                }
                Ok(Err(error)) => return error.to_string(),
                Err(_) if clock::now() >= heard + silence.dead => return "it does not answer".to_owned(),
                Err(_) => {
                    asked = clock::now();
                    if !self.say(Kind::KeepAliveRequest, "") {
                        return "let go".to_owned();
                    }
                }
            }
        }
    }

    /// Every whole frame that has come. `Err`: the connection has to be closed.
    fn frames(&mut self) -> Result<(), String> {
        while let Some(next) = self.decoder.next_frame() {
            count(&self.hub.totals.received);
            if next.is_err() {
                count(&self.hub.totals.malformed);
            }
            let taken = match next {
                Ok(Frame { kind: Kind::KeepAliveRequest, .. }) => self.say(Kind::KeepAliveAnswer, ""),
                Ok(Frame { kind: Kind::KeepAliveAnswer, .. }) => true,
                Ok(Frame { kind: Kind::Error, .. }) => {
                    // An error is never answered by another one.
                    tracing::warn!(driver = self.id.0, "an IVR driver has not understood a frame");
                    true
                }
                Ok(Frame { kind: Kind::Xml, body }) => self.xml(&body),
                Err(FrameError::Lost) => {
                    self.say(Kind::Error, &FrameError::Lost.to_string());
                    return Err(FrameError::Lost.to_string());
                }
                Err(error) => self.say(Kind::Error, &error.to_string()),
            };
            if !taken {
                return Err("let go".to_owned());
            }
        }
        Ok(())
    }

    fn xml(&self, body: &[u8]) -> bool {
        match message::parse(body) {
            Ok(asked) => {
                self.hub.message(self.id, asked);
                true
            }
            Err(Refused::Frame(reason)) => {
                count(&self.hub.totals.malformed);
                self.say(Kind::Error, &reason)
            }
            Err(Refused::Call { call, error }) => {
                count(&self.hub.totals.refused);
                let say = Say::Error(error);
                self.say(Kind::Xml, &message::body(&call, &say))
            }
        }
    }

    /// False: the driver has been let go, or reads too slowly.
    fn say(&self, kind: Kind, body: &str) -> bool {
        let bytes = frame::encode(kind, body.as_bytes());
        self.own.upgrade().is_some_and(|own| takes(self.id, &own, &bytes, &self.hub.totals))
    }
}

fn until(at: Instant) -> Duration {
    at.saturating_duration_since(clock::now())
}
