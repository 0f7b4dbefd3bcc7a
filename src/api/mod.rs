//! The HTTP listener: what runs, what is asked of it, what happens, what was recorded (spec/interface.md §3).
//!
//! It knows neither disk nor signaling: [`Backend`] is what it asks, and `app` answers.
//!
//! | Limit | | At the limit |
//! |---|---|---|
//! | connections | 512 | more wait in the kernel's queue |
//! | event streams and agents' desktops among them | 384 | 503 `too-many-streams` |
//! | requests of one client (IPv4 address, IPv6 /64) | 100 a second, 200 at once | 429 with `Retry-After` |
//! | bytes of a request's body | 65,536 | 413 |
//! | time until an answer begins | 10 s | 503; streams and media files may go on for as long as they are read |
//! | time in which a connection moves no byte | 30 s | it is closed |
//! | bytes of a WebSocket client's frame | 4,096 | it is closed |
//! | events that an agent's desktop has not read | 1,024 | it is closed |
//! | ReferenceIDs kept for ten minutes | 65,536 | 503 `limit` |
//!
//! The probes `/healthz` and `/readyz` are not counted and ask for no token.

mod agents;
mod events;
pub mod http;
mod limit;
mod media;
pub mod openapi;
pub mod problem;
mod rate;
mod references;
mod reporting;
pub mod requests;
mod socket;
mod supervision;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::call::request::{Accepted, Denied, DnRequest, Request};
use crate::call::view::CallView;
use crate::id::RecordingId;
use crate::record::metadata::{Recording, State};
use crate::views::interaction::NotRegistered;
use crate::views::interaction::message::{AgentId, Message};

/// A future of a [`Backend`].
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the rest of the process tells the listener. Every method may be called at any time, from several threads.
pub trait Backend: Send + Sync + 'static {
    /// The live calls, asked of the signaling task; `None` when it is gone.
    fn calls(&self) -> Answer<'_, Option<Vec<CallView>>>;
    /// Asks a call to change. `None` when the signaling task is gone. Asked once it is decided, whether or not the
    /// future is waited for.
    fn request(&self, request: Request) -> Answer<'_, Option<Result<Accepted, Denied>>>;
    /// What a DN asks before there is a call. `None` when the signaling task is gone.
    fn dn_request(&self, request: DnRequest) -> Answer<'_, Option<Result<(), Denied>>>;
    /// The events of one DN, or of all: what is kept with a `seq` above `after`, then what comes; without `after` only
    /// what comes. Must not block.
    fn events(&self, dn: Option<String>, after: Option<u64>) -> Box<dyn Subscription>;
    /// What reporting is told of interactions; `after` as for [`Backend::events`]. Must not block.
    fn reporting(&self, after: Option<u64>) -> Box<dyn Subscription>;
    /// Registers an agent with its DN for as long as the line lives. Must not block.
    fn agent(&self, agent: AgentId, dn: String) -> Result<Box<dyn AgentLine>, NotRegistered>;
    /// Some recordings, newest first, running ones included. Reads the disk: called where blocking is allowed.
    fn recordings(&self, query: &RecordingQuery) -> Result<RecordingPage, Unavailable>;
    /// One recording; `None` when there is none of that id. Reads the disk.
    fn recording(&self, id: RecordingId) -> Result<Option<Recording>, Unavailable>;
    /// A media file, opened; `None` when the recording's metadata names none like it. Reads the disk.
    fn media(&self, id: RecordingId, file: &str) -> Result<Option<Media>, Unavailable>;
    /// Deletes a recording that is published. Writes to the disk.
    fn delete(&self, id: RecordingId) -> Result<Deletion, Unavailable>;
    /// Whether new calls are taken, and recorded.
    fn readiness(&self) -> Readiness;
    /// All metrics in the OpenMetrics text format.
    fn metrics(&self) -> String;
}

/// The events of one subscriber, in the order of their `seq`.
pub trait Subscription: Send {
    /// The next one; `None` when there will be none. A future that is dropped takes nothing away.
    fn next(&mut self) -> Answer<'_, Option<Item>>;
}

/// A registered agent's line. Dropped, the agent is registered no more.
pub trait AgentLine: Send {
    /// The next event as JSON; `Err`: there will be none. A future that is dropped takes nothing away.
    fn next(&mut self) -> Answer<'_, Result<String, LineEnd>>;
    /// The agent asks; `reference` is the `ReferenceID`. What comes of it is told as events.
    fn ask(&self, reference: Option<Arc<str>>, message: Message);
    /// The agent has sent what is not understood; it is told so.
    fn malformed(&self, reason: String);
}

/// Why a line has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineEnd {
    /// The agent has registered over another one.
    Replaced,
    /// It does not read what it is told.
    TooSlow,
    /// The server stops.
    Stopping,
}

/// What a subscriber is told.
#[derive(Clone)]
pub enum Item {
    /// An event.
    Event(Arc<dyn Event>),
    /// Events are missing here: the subscriber read too slowly, or they are no longer kept.
    Lost {
        /// How many, those of other DNs included. 0: `after` named an event that this server has not sent, because it
        /// was started again.
        count: u64,
        /// The `seq` from which on everything is kept.
        next: u64,
    },
}

/// One event of spec/events.md §1 or §3, ready to be sent.
pub trait Event: Send + Sync {
    /// Its number on this server.
    fn seq(&self) -> u64;
    /// `EventHeld`, … .
    fn name(&self) -> &str;
    /// The whole event as a JSON object on one line.
    fn json(&self) -> &str;
}

/// A media file of a recording.
pub struct Media {
    /// Its length in bytes when it was opened; a running recording's file grows.
    pub len: u64,
    /// `audio/wav`.
    pub media_type: String,
    /// Lowercase hexadecimal SHA-256 of a published file.
    pub sha256: Option<String>,
    /// Its bytes.
    pub content: Arc<dyn Content>,
}

/// Bytes that can be read at any place. Called where blocking is allowed.
pub trait Content: Send + Sync + 'static {
    /// Reads at most `out.len()` bytes at `offset`; 0 at the end.
    ///
    /// # Errors
    /// The disk's own.
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// What became of the wish to delete a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// It is gone.
    Done,
    /// There is none of that id.
    Unknown,
    /// It still runs, or is not published yet.
    Running,
}

/// The folder of recordings cannot be read. The reason, which may name paths, goes to the log, never to a client.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// Why the server is not ready; all false: it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Readiness {
    /// It is stopping: new calls get 503.
    pub draining: bool,
    /// The disk is below its floor: nothing new is recorded.
    pub no_space: bool,
}

/// Query of `GET /v1/recordings`; what is absent restricts nothing.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct RecordingQuery {
    /// `callerPhoneNumber`, exactly.
    pub caller: Option<String>,
    /// `dialedPhoneNumber`, exactly.
    pub dialed: Option<String>,
    /// The owner's or a participant's directory number.
    pub dn: Option<String>,
    /// Started at or after (RFC 3339).
    pub from: Option<Timestamp>,
    /// Started before.
    pub to: Option<Timestamp>,
    /// `recordingSession.state`.
    pub state: Option<State>,
    /// Recordings in the answer, 1 to [`RecordingQuery::MAX_LIMIT`].
    #[serde(default = "RecordingQuery::default_limit")]
    #[param(minimum = 1, maximum = 500, default = 50)]
    pub limit: usize,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

impl RecordingQuery {
    /// The largest `limit`.
    pub const MAX_LIMIT: usize = 500;

    fn default_limit() -> usize {
        50
    }
}

/// The answer to it.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct RecordingPage {
    /// Newest first.
    pub recordings: Vec<Recording>,
    /// Cursor of the next page; `None` at the end.
    pub next: Option<String>,
}
