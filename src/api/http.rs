//! The routes, who may ask, and what each answers.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::limit::Limited;
use super::problem::Problem;
use super::{Backend, RecordingQuery};
use crate::id::{ConnId, RecordingId};

/// Connections at once; more wait.
const MAX_CONNECTIONS: usize = 256;

/// A request that takes longer is answered with 503.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long requests under way may take once the listener stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

#[derive(Clone)]
struct Shared {
    backend: Arc<dyn Backend>,
    /// SHA-256 of the token: equal lengths, so that a comparison takes the same time whatever a client guesses.
    token: Option<Arc<[u8; 32]>>,
}

/// Answers requests until `stop` is ready, then finishes those under way and returns. `token` is the content of
/// `api.token-file`; without it only requests that name a loopback host are answered.
pub async fn serve(
    listener: TcpListener,
    backend: Arc<dyn Backend>,
    token: Option<&str>,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let shared = Shared { backend, token: token.map(|token| Arc::new(digest(token))) };
    let (stopped, when_stopped) = tokio::sync::oneshot::channel();
    let stop = async move {
        stop.await;
        let _ = stopped.send(());
    };
    let server = axum::serve(Limited::new(listener, MAX_CONNECTIONS), router(shared)).with_graceful_shutdown(stop);
    // A client that keeps its connection open must not keep the process.
    let too_late = async {
        let _ = when_stopped.await;
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
        .route("/v1/calls", get(calls))
        .route("/v1/calls/{conn_id}", get(call))
        .route("/v1/recordings", get(recordings))
        .route("/v1/recordings/{id}", get(recording))
        .route_layer(middleware::from_fn_with_state(shared.clone(), authorize));
    Router::new()
        .route("/healthz", get(async || Json(json!({"alive": true}))))
        .route("/readyz", get(ready))
        .merge(guarded)
        .fallback(async || Problem::not_found("nothing is at this path"))
        .method_not_allowed_fallback(async || {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            Problem::new(status, "method-not-allowed", "The path does not take this method", "use GET")
        })
        .layer(middleware::from_fn(frame))
        .with_state(shared)
}

/// What every answer has: a time limit and headers that keep it out of caches and guesses.
async fn frame(request: Request, next: Next) -> Response {
    let mut response = match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::unavailable("it took too long").into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    response
}

/// With a token: only who knows it. Without: only who asked for a loopback host, because a page in the operator's
/// browser can make a name of its own resolve to 127.0.0.1 (DNS rebinding) and read what we answer.
async fn authorize(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    match &shared.token {
        Some(token) if bearer(headers).is_some_and(|given| same(&digest(given), token)) => next.run(request).await,
        Some(_) => {
            let detail = "send `Authorization: Bearer TOKEN` with the token of api.token-file";
            Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "A token is needed", detail).into_response()
        }
        None if names_loopback(headers, request.uri().host()) => next.run(request).await,
        None => {
            let detail = "without api.token-file only requests to a loopback address are answered";
            Problem::new(StatusCode::FORBIDDEN, "forbidden", "This host is not served", detail).into_response()
        }
    }
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

async fn ready(State(shared): State<Shared>) -> Response {
    let readiness = shared.backend.readiness();
    let reasons = [(readiness.draining, "draining"), (readiness.no_space, "no-space")];
    let reasons: Vec<_> = reasons.into_iter().filter_map(|(is, reason)| is.then_some(reason)).collect();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"ready": reasons.is_empty(), "reasons": reasons}))).into_response()
}

async fn metrics(State(shared): State<Shared>) -> Response {
    ([(header::CONTENT_TYPE, OPEN_METRICS)], shared.backend.metrics()).into_response()
}

async fn calls(State(shared): State<Shared>) -> Result<Json<Value>, Problem> {
    let calls = shared.backend.calls().await.ok_or_else(stopping)?;
    Ok(Json(json!({"calls": calls})))
}

async fn call(State(shared): State<Shared>, Path(conn_id): Path<String>) -> Result<Json<Value>, Problem> {
    let wanted: ConnId = conn_id.parse().map_err(|_| Problem::bad_request("a ConnID is 16 hexadecimal digits"))?;
    let calls = shared.backend.calls().await.ok_or_else(stopping)?;
    let call = calls.into_iter().find(|call| call.conn_id == wanted);
    let call = call.ok_or_else(|| Problem::not_found(format!("no live call has the ConnID {wanted}")))?;
    Ok(Json(json!(call)))
}

fn stopping() -> Problem {
    Problem::unavailable("the server is stopping")
}

async fn recordings(
    State(shared): State<Shared>,
    query: Result<Query<RecordingQuery>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(query) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    if !(1..=RecordingQuery::MAX_LIMIT).contains(&query.limit) {
        return Err(Problem::bad_request(format!("limit must be from 1 to {}", RecordingQuery::MAX_LIMIT)));
    }
    let page = blocking(move || shared.backend.recordings(&query)).await?;
    Ok(Json(json!({"recordings": page.recordings, "next": page.next})))
}

async fn recording(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    let id: RecordingId = id.parse().map_err(|_| Problem::bad_request("a recording's id is a UUID"))?;
    let found = blocking(move || shared.backend.recording(id)).await?;
    let recording = found.ok_or_else(|| Problem::not_found(format!("there is no recording {id}")))?;
    Ok(Json(json!(recording)))
}

/// Runs what reads the disk where it stops nobody else. The reason of a failure is for the log only.
async fn blocking<T: Send + 'static>(
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

#[cfg(test)]
mod tests;
