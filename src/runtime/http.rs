//! The HTTP listener's view of the process: live calls from signaling, recordings from the disk.

use std::io;
use std::sync::Arc;

use super::agents::Desks;
use super::events::{self, Events, Kept};
use super::metrics::Metrics;
use super::signaling::Inbox;
use crate::api::{
    AgentLine, Answer, Backend, Content, Deletion, Event, Item, Media, Readiness, RecordingPage, RecordingQuery,
    Subscription, Unavailable,
};
use crate::call::request::{Accepted, Denied, DnRequest, Request};
use crate::call::view::CallView;
use crate::disk::File;
use crate::disk::list::{Filter, OpenMedia};
use crate::disk::store::{self, Store};
use crate::id::RecordingId;
use crate::record::metadata::Recording;
use crate::views::interaction::NotRegistered;
use crate::views::interaction::message::AgentId;

/// Answers the HTTP listener's questions.
pub struct Answers {
    /// The signaling task.
    pub inbox: Inbox,
    /// The folder of recordings.
    pub store: Arc<Store>,
    /// The kept events.
    pub events: Events,
    /// The kept events of reporting.
    pub reporting: Events,
    /// Agents' desktops.
    pub desks: Arc<Desks>,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// Whether new calls are taken and recorded; must not block.
    pub readiness: Box<dyn Fn() -> Readiness + Send + Sync>,
}

impl Backend for Answers {
    fn calls(&self) -> Answer<'_, Option<Vec<CallView>>> {
        Box::pin(self.inbox.ask(|calls| calls.snapshot()))
    }

    fn request(&self, request: Request) -> Answer<'_, Option<Result<Accepted, Denied>>> {
        Box::pin(self.inbox.request(request))
    }

    fn dn_request(&self, request: DnRequest) -> Answer<'_, Option<Result<(), Denied>>> {
        Box::pin(self.inbox.dn_request(request))
    }

    fn events(&self, dn: Option<String>, after: Option<u64>) -> Box<dyn Subscription> {
        Box::new(self.events.subscribe(dn, after))
    }

    fn reporting(&self, after: Option<u64>) -> Box<dyn Subscription> {
        Box::new(self.reporting.subscribe(None, after))
    }

    fn agent(&self, agent: AgentId, dn: String) -> Result<Box<dyn AgentLine>, NotRegistered> {
        self.desks.connect(agent, dn)
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

    fn media(&self, id: RecordingId, file: &str) -> Result<Option<Media>, Unavailable> {
        match self.store.open_media(id, file) {
            Ok(Some(OpenMedia { media, file })) => {
                let len = file.len().map_err(|error| Unavailable(error.to_string()))?;
                let content = Arc::new(Opened(file));
                Ok(Some(Media { len, media_type: media.media_type, sha256: media.sha256, content }))
            }
            Ok(None) | Err(store::Error::NotFound(_)) => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }

    fn delete(&self, id: RecordingId) -> Result<Deletion, Unavailable> {
        match self.store.delete(id) {
            Ok(()) => Ok(Deletion::Done),
            Err(store::Error::NotFound(_)) => Ok(Deletion::Unknown),
            Err(store::Error::Running(_)) => Ok(Deletion::Running),
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

impl Subscription for events::Subscription {
    fn next(&mut self) -> Answer<'_, Option<Item>> {
        Box::pin(async {
            Some(match events::Subscription::next(self).await? {
                events::Item::Event(kept) => Item::Event(kept),
                events::Item::Lost { count, next } => Item::Lost { count, next },
            })
        })
    }
}

impl Event for Kept {
    fn seq(&self) -> u64 {
        self.seq
    }

    fn name(&self) -> &str {
        self.name
    }

    fn json(&self) -> &str {
        &self.json
    }
}

/// A file of the disk as the listener reads it.
struct Opened(Box<dyn File>);

impl Content for Opened {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(out, offset)
    }
}

fn unavailable(error: store::Error) -> Unavailable {
    Unavailable(error.to_string())
}
