//! NOTIFY in a dialog: one is open at a time, others wait for its answer, so that the peer hears them in their order
//! (RFC 6665 §4.2.2: a notifier waits for the answer; over UDP a repeated one could overtake the next).

use std::collections::VecDeque;
use std::time::Instant;

use super::Endpoint;
use super::api::*;
use super::tables::OwnRequest;
use crate::sip::headers::Headers;
use crate::sip::method::Method;

/// Most NOTIFYs of a dialog that wait; a further one is [`Refused::Full`].
const MAX_WAITING: usize = 32;

/// The NOTIFYs of a dialog.
#[derive(Default)]
pub(super) struct Notifies {
    /// The one that is not answered.
    open: Option<RequestId>,
    waiting: VecDeque<Waiting>,
    /// The subscriptions that it carries NOTIFYs of, those of a REFER apart.
    pub(super) subscriptions: Vec<SubscriptionId>,
}

struct Waiting {
    request: RequestId,
    headers: Headers,
    body: Option<Body>,
}

impl Endpoint {
    /// Sends a NOTIFY, or lets it wait for the answer to the one before it.
    pub(super) fn start_notify(
        &mut self,
        id: DialogId,
        headers: Headers,
        body: Option<Body>,
        now: Instant,
    ) -> Result<RequestId, Refused> {
        let request = RequestId(self.next_id());
        let record = self.dialogs.get_mut(&id).ok_or(Refused::NoDialog)?;
        if record.notifies.open.is_none() {
            record.notifies.open = Some(request);
            self.send_request(id, request, Method::Notify, headers, body, now);
            return Ok(request);
        }
        if record.notifies.waiting.len() >= MAX_WAITING {
            self.counters.refused += 1;
            return Err(Refused::Full);
        }
        record.requests.push(request);
        record.notifies.waiting.push_back(Waiting { request, headers, body });
        self.requests.insert(request, OwnRequest::waiting(Method::Notify, id));
        Ok(request)
    }

    /// A request of the dialog is over: if it was the open NOTIFY, the next one goes.
    pub(super) fn next_notify(&mut self, id: DialogId, over: RequestId, now: Instant) {
        let Some(record) = self.dialogs.get_mut(&id).filter(|record| record.notifies.open == Some(over)) else {
            return;
        };
        record.notifies.open = None;
        let Some(next) = record.notifies.waiting.pop_front() else {
            return;
        };
        record.requests.retain(|request| *request != next.request);
        record.notifies.open = Some(next.request);
        self.send_request(id, next.request, Method::Notify, next.headers, next.body, now);
    }
}
