//! The HTTP listener's view of the process: live calls from signaling, recordings from the disk.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::metrics::Metrics;
use super::signaling::Inbox;
use crate::api::{Backend, Readiness, RecordingPage, RecordingQuery, Unavailable};
use crate::call::view::CallView;
use crate::disk::list::Filter;
use crate::disk::store::{self, Store};
use crate::id::RecordingId;
use crate::record::metadata::Recording;

/// Answers the HTTP listener's questions.
pub struct Answers {
    /// The signaling task.
    pub inbox: Inbox,
    /// The folder of recordings.
    pub store: Arc<Store>,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// Whether new calls are taken and recorded; must not block.
    pub readiness: Box<dyn Fn() -> Readiness + Send + Sync>,
}

impl Backend for Answers {
    fn calls(&self) -> Pin<Box<dyn Future<Output = Option<Vec<CallView>>> + Send + '_>> {
        Box::pin(self.inbox.ask(|calls| calls.snapshot()))
    }

    fn recordings(&self, query: &RecordingQuery) -> Result<RecordingPage, Unavailable> {
        let filter = Filter {
            caller: query.caller.clone(),
            dialed: query.dialed.clone(),
            dn: query.dn.clone(),
            from: query.from,
            to: query.to,
            state: query.state,
        };
        let page = self.store.list(&filter, query.limit, query.cursor.as_deref()).map_err(unavailable)?;
        Ok(RecordingPage { recordings: page.recordings, next: page.next })
    }

    fn recording(&self, id: RecordingId) -> Result<Option<Recording>, Unavailable> {
        match self.store.find(id) {
            Ok(found) => Ok(Some(found.recording)),
            Err(store::Error::NotFound(_)) => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }

    fn readiness(&self) -> Readiness {
        (self.readiness)()
    }

    fn metrics(&self) -> String {
        self.metrics.encode()
    }
}

fn unavailable(error: store::Error) -> Unavailable {
    Unavailable(error.to_string())
}
