//! The HTTP listener: is it alive, is it ready, what runs, what was recorded (spec/interface.md §3).
//!
//! It knows neither disk nor signaling: [`Backend`] is what it asks, and `app` answers.

pub mod http;
mod limit;
mod problem;

use std::future::Future;
use std::pin::Pin;

use jiff::Timestamp;
use serde::Deserialize;

use crate::call::view::CallView;
use crate::id::RecordingId;
use crate::record::metadata::{Recording, State};

/// What the rest of the process tells the listener. Every method may be called at any time, from several threads.
pub trait Backend: Send + Sync + 'static {
    /// The live calls, asked of the signaling task; `None` when it is gone.
    fn calls(&self) -> Pin<Box<dyn Future<Output = Option<Vec<CallView>>> + Send + '_>>;
    /// Some recordings, newest first, running ones included. Reads the disk: called where blocking is allowed.
    fn recordings(&self, query: &RecordingQuery) -> Result<RecordingPage, Unavailable>;
    /// One recording; `None` when there is none of that id. Reads the disk.
    fn recording(&self, id: RecordingId) -> Result<Option<Recording>, Unavailable>;
    /// Whether new calls are taken, and recorded.
    fn readiness(&self) -> Readiness;
    /// All metrics in the OpenMetrics text format.
    fn metrics(&self) -> String;
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
#[derive(Debug, Clone, Default, Deserialize)]
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
#[derive(Debug, Default)]
pub struct RecordingPage {
    /// Newest first.
    pub recordings: Vec<Recording>,
    /// Cursor of the next page; `None` at the end.
    pub next: Option<String>,
}
