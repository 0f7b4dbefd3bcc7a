//! `GET /v1/events` (server-sent events) and `/v1/events/ws` (WebSocket): the same events, one stream per client.
//!
//! What a client does not read waits in its connection, then in its subscription, whose limit is the backend's; beyond it
//! the client is told how much it has lost. A connection that takes no byte for 30 s is closed.

use std::convert::Infallible;

use axum::extract::rejection::QueryRejection;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{WebSocketUpgrade, close_code};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::stream::unfold;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::IntoParams;

use super::http::Shared;
use super::problem::Problem;
use super::socket::{self, Conversation, Farewell, Heard, KEEP_ALIVE};
use super::{Backend, Item, Subscription, problem};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Which events.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EventQuery {
    /// Only those whose recipient is this DN; without it those of all DNs.
    pub dn: Option<String>,
    /// First what is kept with a higher `seq`; 0: all that is kept. Without it only what comes next.
    pub after: Option<u64>,
    /// `false`: the stream ends after what is kept, all of it unless `after` is given.
    #[serde(default = "EventQuery::default_follow")]
    #[param(default = true)]
    pub follow: bool,
}

impl EventQuery {
    fn default_follow() -> bool {
        true
    }
}

/// One client's stream: its events, and the end when the server stops.
pub(super) struct Stream {
    subscription: Box<dyn Subscription>,
    stopping: watch::Receiver<bool>,
    /// Goes on when nothing is left.
    follow: bool,
    /// Held for as long as the stream lives.
    _permit: OwnedSemaphorePermit,
}

impl Stream {
    /// One that ends with the server.
    pub(super) fn open(
        shared: &Shared,
        subscribe: impl FnOnce(&dyn Backend) -> Box<dyn Subscription>,
    ) -> Result<Self, Problem> {
        let permit = shared.stream_permit()?;
        let subscription = subscribe(&*shared.backend);
        Ok(Self { subscription, stopping: shared.stopping.clone(), follow: true, _permit: permit })
    }

    fn of(shared: &Shared, EventQuery { dn, after, follow }: EventQuery) -> Result<Self, Problem> {
        let after = after.or((!follow).then_some(0));
        let stream = Self::open(shared, |backend| backend.events(dn, after))?;
        Ok(Self { follow, ..stream })
    }

    /// The next item. `None` at the end, which comes only when nothing is left to be told.
    async fn next(&mut self) -> Option<Item> {
        if !self.follow {
            return self.subscription.next().now_or_never().flatten();
        }
        tokio::select! {
            biased;
            item = self.subscription.next() => item,
            // A sender that is gone means the same.
            _ = self.stopping.wait_for(|stopping| *stopping) => self.subscription.next().now_or_never().flatten(),
        }
    }

    /// As server-sent events.
    pub(super) fn serve(self) -> Response {
        let stream = unfold(self, async |mut stream| {
            let item = stream.next().await?;
            Some((Ok::<_, Infallible>(frame(&item)), stream))
        });
        let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
        let mut response = Sse::new(stream).keep_alive(keep_alive).into_response();
        // Proxies that collect an answer before they pass it on are asked not to.
        response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    }
}

impl Conversation for Stream {
    async fn next(&mut self) -> Result<String, Farewell> {
        match Stream::next(self).await {
            Some(Item::Event(event)) => Ok(event.json().to_owned()),
            Some(Item::Lost { count, next }) => Ok(lost(count, next)),
            None if !self.follow => Err(Farewell { code: close_code::NORMAL, reason: "nothing more is kept" }),
            None => Err(Farewell::STOPPING),
        }
    }

    fn hear(&mut self, _: Heard) -> Result<(), Farewell> {
        Err(Farewell { code: close_code::UNSUPPORTED, reason: "this stream takes no messages" })
    }
}

/// What is sent for events that are missing.
fn lost(count: u64, next: u64) -> String {
    json!({"event": "lost", "lost": count, "next": next}).to_string()
}

/// Server-sent events: `id` is the `seq`, `event` the name, `data` the event of spec/events.md §1.
///
/// A client that was too slow, or asks for what is no longer kept, gets `event: lost` with `{"event": "lost", "lost": N,
/// "next": SEQ}` in the place of N events (those of other DNs are counted, too; 0: the server was started again since
/// `after`). A comment is sent every 15 s. A reconnecting client's `Last-Event-ID` goes before `after`.
#[utoipa::path(
    get,
    path = "/v1/events",
    operation_id = "events",
    tag = "events",
    params(EventQuery, ("Last-Event-ID" = Option<u64>, Header, description = "the last `seq` that was read")),
    responses(
        (status = 200, description = "the stream", body = String, content_type = "text/event-stream"),
        (status = 400, description = "bad-request", body = problem::Body, content_type = "application/problem+json"),
        (status = 503, description = "too-many-streams", body = problem::Body,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn server_sent(
    State(shared): State<Shared>,
    query: Result<Query<EventQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(mut query) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    query.after = last_read(&headers, query.after)?;
    Ok(Stream::of(&shared, query)?.serve())
}

/// A reconnecting client's `Last-Event-ID`, else its `after`.
pub(super) fn last_read(headers: &HeaderMap, after: Option<u64>) -> Result<Option<u64>, Problem> {
    let Some(last) = headers.get(LAST_EVENT_ID) else { return Ok(after) };
    let last = last.to_str().ok().and_then(|last| last.trim().parse().ok());
    last.ok_or_else(|| Problem::bad_request("Last-Event-ID is the seq of an event")).map(Some)
}

fn frame(item: &Item) -> sse::Event {
    match item {
        Item::Event(event) => sse::Event::default().id(event.seq().to_string()).event(event.name()).data(event.json()),
        // A client that reconnects now has been told of what is missing before `next`.
        Item::Lost { count, next } => {
            sse::Event::default().id(next.saturating_sub(1).to_string()).event("lost").data(lost(*count, *next))
        }
    }
}

/// The same over WebSocket: every text frame is one event, or the `lost` object.
///
/// The server pings every 15 s; a client that leaves two pings unanswered is disconnected. It has nothing to send: a
/// message of it ends the stream with 1003. When the server stops it says 1001. Browsers must come from the same origin.
#[utoipa::path(
    get,
    path = "/v1/events/ws",
    operation_id = "eventsOverWebSocket",
    tag = "events",
    params(EventQuery),
    responses(
        (status = 101, description = "the stream"),
        (status = 400, description = "bad-request", body = problem::Body, content_type = "application/problem+json"),
        (status = 503, description = "too-many-streams", body = problem::Body,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn web_socket(
    State(shared): State<Shared>,
    query: Result<Query<EventQuery>, QueryRejection>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let upgrade = upgrade.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    Ok(socket::open(upgrade, Stream::of(&shared, query)?))
}
