//! The routes, who may ask, and what each answers.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, MatchedPath, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::Instrument;
use utoipa::ToSchema;

use super::limit::Limited;
use super::problem::{self, Kind, Problem};
use super::rate::Rates;
use super::references::References;
use super::{
    Backend, Deletion, RecordingPage, RecordingQuery, agents, events, media, openapi, reporting, requests, supervision,
};
use crate::call::view::CallView;
use crate::clock;
use crate::id::{ConnId, RecordingId};
use crate::record::metadata::Recording;

/// Connections at once; more wait.
const MAX_CONNECTIONS: usize = 512;

/// Event streams and agents' desktops at once, each on one of the connections: a quarter of these is left for requests.
const MAX_STREAMS: usize = MAX_CONNECTIONS / 4 * 3;

/// Bytes of a request's body.
const MAX_BODY: usize = 64 * 1024;

/// A request whose answer has not begun after this time is answered with 503.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long requests under way may take once the listener stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Asked by machines that have no token, as often as they like.
pub(super) const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// What every handler has.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) backend: Arc<dyn Backend>,
    /// SHA-256 of the token: equal lengths, so that a comparison takes the same time whatever a client guesses.
    token: Option<Arc<[u8; 32]>>,
    rates: Arc<Mutex<Rates>>,
    pub(super) references: Arc<Mutex<References>>,
    /// One permit per event stream or desktop.
    streams: Arc<Semaphore>,
    /// True from the moment at which event streams have to end.
    pub(super) stopping: watch::Receiver<bool>,
}

impl Shared {
    /// A place among the connections that stay, for as long as it is held.
    pub(super) fn stream_permit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.streams.clone().try_acquire_owned().map_err(|_| {
            let detail = format!("at most {MAX_STREAMS} may be open");
            Problem::new(Kind::TooManyStreams, detail).retry_after(5)
        })
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
struct Peer(IpAddr);

impl Connected<IncomingStream<'_, Limited>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Limited>) -> Self {
        Self(stream.remote_addr().ip())
    }
}

/// Answers requests until `stop` is ready, then ends event streams, finishes requests under way and returns. `token` is
/// the content of `api.token-file`; without it only requests that name a loopback host are answered.
pub async fn serve(
    listener: TcpListener,
    backend: Arc<dyn Backend>,
    token: Option<&str>,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let (stopped, stopping) = watch::channel(false);
    let shared = Shared {
        backend,
        token: token.map(|token| Arc::new(digest(token))),
        rates: Arc::default(),
        references: Arc::default(),
        streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        stopping: stopping.clone(),
    };
    let stop = async move {
        stop.await;
        stopped.send_replace(true);
    };
    let service = router(shared).into_make_service_with_connect_info::<Peer>();
    let server = axum::serve(Limited::new(listener, MAX_CONNECTIONS), service).with_graceful_shutdown(stop);
    // A client that keeps its connection open must not keep the process.
    let mut when_stopped = stopping;
    let too_late = async {
        let _ = when_stopped.wait_for(|stopping| *stopping).await;
        tokio::time::sleep(STOP_TIMEOUT).await;
    };
    tokio::select! {
        _ = server.into_future() => {}
        () = too_late => {}
    }
}

fn router(shared: Shared) -> Router {
    let guarded = Router::new()
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(async || Json(openapi::document())))
        .route("/v1/calls", get(calls).post(requests::make_call))
        .route("/v1/calls/{conn_id}", get(call))
        .route("/v1/calls/{conn_id}/{request}", post(requests::request))
        .route("/v1/dns/{dn}/monitor-next-call", post(supervision::monitor))
        .route("/v1/dns/{dn}/cancel-monitoring", post(supervision::cancel))
        .route("/v1/agents/{agent}/ws", get(agents::desktop))
        .route("/v1/events", get(events::server_sent))
        .route("/v1/events/ws", get(events::web_socket))
        .route("/v1/reporting/events", get(reporting::server_sent))
        .route("/v1/recordings", get(recordings))
        .route("/v1/recordings/{id}", get(recording).delete(delete))
        .route("/v1/recordings/{id}/media/{file}", get(media::media))
        .route_layer(middleware::from_fn_with_state(shared.clone(), authorize));
    Router::new()
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .merge(guarded)
        .fallback(async || Problem::not_found("nothing is at this path"))
        .method_not_allowed_fallback(async || {
            Problem::new(Kind::MethodNotAllowed, "the Allow header names the methods that it takes")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(shared.clone(), limit_rate))
        .layer(middleware::from_fn(frame))
        .with_state(shared)
}

/// What every answer has: a time limit, an id that the log names too, headers that keep it out of caches and guesses.
async fn frame(request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    // The pattern, not the path: a query may hold a number.
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let span = tracing::info_span!("http", id = id.to_str().unwrap_or_default(), method = %request.method(), path);
    let answer = async {
        let response = match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Problem::unavailable("it took too long").into_response(),
        };
        match response.status() {
            status if status.is_server_error() => tracing::warn!(status = status.as_u16(), "answered"),
            status => tracing::debug!(status = status.as_u16(), "answered"),
        }
        response
    };
    let mut response = answer.instrument(span).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    headers.insert(REQUEST_ID, id);
    response
}

/// The client's own id when it is short and harmless, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let harmless = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
    match headers.get(REQUEST_ID) {
        Some(id) if (1..=64).contains(&id.len()) && id.as_bytes().iter().all(|c| harmless(*c)) => id.clone(),
        _ => HeaderValue::from_str(&format!("{:016x}", rand::random::<u64>())).expect("digits are a header's value"),
    }
}

/// A client that asks too often has to wait. Probes are not counted.
async fn limit_rate(State(shared): State<Shared>, from: ConnectInfo<Peer>, request: Request, next: Next) -> Response {
    if PROBES.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let ConnectInfo(Peer(address)) = from;
    let taken = shared.rates.lock().unwrap_or_else(PoisonError::into_inner).take(address, clock::now());
    match taken {
        Ok(()) => next.run(request).await,
        Err(wait) => {
            let detail = format!("at most {} a second and {} at once", super::rate::PER_SECOND, super::rate::BURST);
            let seconds = wait.as_secs() + 1;
            Problem::new(Kind::TooManyRequests, detail).retry_after(seconds).into_response()
        }
    }
}

/// With a token: only who knows it. Without: only who asked for a loopback host, because a page in the operator's
/// browser can make a name of its own resolve to 127.0.0.1 (DNS rebinding) and read what we answer.
async fn authorize(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    if !same_origin(headers) {
        let detail = "a page of another origin may not ask";
        return Problem::new(Kind::Forbidden, detail).into_response();
    }
    match &shared.token {
        Some(token) if bearer(headers).is_some_and(|given| same(&digest(given), token)) => next.run(request).await,
        Some(_) => {
            let detail = "send `Authorization: Bearer TOKEN` with the token of api.token-file";
            Problem::new(Kind::Unauthorized, detail).into_response()
        }
        None if names_loopback(headers, request.uri().host()) => next.run(request).await,
        None => {
            let detail = "without api.token-file only requests to a loopback address are answered";
            Problem::new(Kind::Forbidden, detail).into_response()
        }
    }
}

/// True when no page asks, or one that came from the host that is asked. Other pages could read nothing anyway (no
/// answer has a CORS header), but a WebSocket of theirs could.
fn same_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    origin.is_some_and(|origin| host.is_some_and(|host| host.eq_ignore_ascii_case(origin)))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn digest(token: &str) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(token.as_bytes()).into()
}

/// Compares without stopping at the first difference.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

fn names_loopback(headers: &HeaderMap, of_uri: Option<&str>) -> bool {
    let of_header = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(host) = of_uri.or(of_header) else { return false };
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.trim_end_matches(']'),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A call's id in a path.
pub(super) fn conn_id(text: &str) -> Result<ConnId, Problem> {
    text.parse().map_err(|_| Problem::bad_request("a ConnID is 16 hexadecimal digits"))
}

/// A recording's id in a path.
pub(super) fn recording_id(text: &str) -> Result<RecordingId, Problem> {
    text.parse().map_err(|_| Problem::bad_request("a recording's id is a UUID"))
}

/// The server's process answers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Alive {
    alive: bool,
}

/// True as long as the process answers.
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "healthz",
    tag = "server",
    responses((status = 200, description = "alive", body = Alive)),
    security(()),
)]
pub(super) async fn alive() -> Json<Alive> {
    Json(Alive { alive: true })
}

/// Whether new calls are taken and recorded.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ready {
    ready: bool,
    /// `draining`: new calls get 503; `no-space`: the disk is below its floor, nothing new is recorded.
    reasons: Vec<&'static str>,
}

/// Whether new calls are taken and recorded.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "readyz",
    tag = "server",
    responses((status = 200, description = "ready", body = Ready), (status = 503, description = "not ready", body = Ready)),
    security(()),
)]
pub(super) async fn ready(State(shared): State<Shared>) -> Response {
    let readiness = shared.backend.readiness();
    let reasons = [(readiness.draining, "draining"), (readiness.no_space, "no-space")];
    let reasons: Vec<_> = reasons.into_iter().filter_map(|(is, reason)| is.then_some(reason)).collect();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready: reasons.is_empty(), reasons })).into_response()
}

/// All metrics, for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "server",
    responses((status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text")),
)]
pub(super) async fn metrics(State(shared): State<Shared>) -> Response {
    ([(header::CONTENT_TYPE, OPEN_METRICS)], shared.backend.metrics()).into_response()
}

/// The live calls.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CallList {
    calls: Vec<CallView>,
}

/// The live calls.
#[utoipa::path(
    get,
    path = "/v1/calls",
    operation_id = "calls",
    tag = "calls",
    responses(
        (status = 200, description = "all of them", body = CallList),
        (status = 503, description = "unavailable", body = problem::Body, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn calls(State(shared): State<Shared>) -> Result<Json<CallList>, Problem> {
    let calls = shared.backend.calls().await.ok_or_else(Problem::stopping)?;
    Ok(Json(CallList { calls }))
}

/// One live call.
#[utoipa::path(
    get,
    path = "/v1/calls/{ConnID}",
    operation_id = "call",
    tag = "calls",
    params(("ConnID" = ConnId, Path, description = "16 hexadecimal digits")),
    responses(
        (status = 200, description = "the call", body = CallView),
        (status = 400, description = "bad-request", body = problem::Body, content_type = "application/problem+json"),
        (status = 404, description = "not-found", body = problem::Body, content_type = "application/problem+json"),
        (status = 503, description = "unavailable", body = problem::Body, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn call(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Json<CallView>, Problem> {
    let wanted = conn_id(&id)?;
    let calls = shared.backend.calls().await.ok_or_else(Problem::stopping)?;
    let call = calls.into_iter().find(|call| call.conn_id == wanted);
    Ok(Json(call.ok_or_else(|| Problem::not_found(format!("no live call has the ConnID {wanted}")))?))
}

/// Recordings, newest first, running ones included.
#[utoipa::path(
    get,
    path = "/v1/recordings",
    operation_id = "recordings",
    tag = "recordings",
    params(RecordingQuery),
    responses(
        (status = 200, description = "a page of them", body = RecordingPage),
        (status = 400, description = "bad-request", body = problem::Body, content_type = "application/problem+json"),
        (status = 503, description = "unavailable", body = problem::Body, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn recordings(
    State(shared): State<Shared>,
    query: Result<Query<RecordingQuery>, QueryRejection>,
) -> Result<Json<RecordingPage>, Problem> {
    let Query(query) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    if !(1..=RecordingQuery::MAX_LIMIT).contains(&query.limit) {
        return Err(Problem::bad_request(format!("limit must be from 1 to {}", RecordingQuery::MAX_LIMIT)));
    }
    Ok(Json(blocking(move || shared.backend.recordings(&query)).await?))
}

/// A recording's metadata.
#[utoipa::path(
    get,
    path = "/v1/recordings/{id}",
    operation_id = "recording",
    tag = "recordings",
    params(("id" = uuid::Uuid, Path, description = "the recording")),
    responses(
        (status = 200, description = "its recording.json", body = Recording),
        (status = 400, description = "bad-request", body = problem::Body, content_type = "application/problem+json"),
        (status = 404, description = "not-found", body = problem::Body, content_type = "application/problem+json"),
        (status = 503, description = "unavailable", body = problem::Body, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn recording(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<Recording>, Problem> {
    let id = recording_id(&id)?;
    let found = blocking(move || shared.backend.recording(id)).await?;
    Ok(Json(found.ok_or_else(|| no_recording(id))?))
}

/// Deletes a recording with its files.
#[utoipa::path(
    delete,
    path = "/v1/recordings/{id}",
    operation_id = "deleteRecording",
    tag = "recordings",
    params(("id" = uuid::Uuid, Path, description = "the recording")),
    responses(
        (status = 204, description = "it is gone"),
        (status = 400, description = "bad-request", body = problem::Body, content_type = "application/problem+json"),
        (status = 404, description = "not-found", body = problem::Body, content_type = "application/problem+json"),
        (status = 409, description = "recording-running", body = problem::Body,
            content_type = "application/problem+json"),
        (status = 503, description = "unavailable", body = problem::Body, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn delete(State(shared): State<Shared>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let id = recording_id(&id)?;
    match blocking(move || shared.backend.delete(id)).await? {
        Deletion::Done => {
            tracing::info!(recording = %id, "recording deleted by an HTTP request");
            Ok(StatusCode::NO_CONTENT)
        }
        Deletion::Unknown => Err(no_recording(id)),
        Deletion::Running => {
            Err(Problem::new(Kind::RecordingRunning, "it can be deleted when it is published: stop it first"))
        }
    }
}

fn no_recording(id: RecordingId) -> Problem {
    Problem::not_found(format!("there is no recording {id}"))
}

/// Runs what reads the disk where it stops nobody else. The reason of a failure is for the log only.
pub(super) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, super::Unavailable> + Send + 'static,
) -> Result<T, Problem> {
    let read = tokio::task::spawn_blocking(read).await;
    let reason = match read {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(reason)) => reason.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::warn!(%reason, "recordings could not be read for an HTTP request");
    Err(Problem::unavailable("the recordings cannot be read; the server's log says why"))
}
