//! `POST /v1/dns/{dn}/monitor-next-call` and `…/cancel-monitoring`: what a supervisor asks before there is a call.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::http::Shared;
use super::problem::{self, Problem};
use super::requests::not_a_body;
use crate::call::request::{DnAsk, DnRequest, MonitorMode, MonitorNextCall, MonitorScope};
use crate::id::Redacted;

/// Whose calls a supervisor wants to join.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MonitorBody {
    /// The monitored DN.
    #[serde(rename = "OtherDN")]
    #[schema(min_length = 1, max_length = 128, pattern = r"\S", example = "2001")]
    other_dn: String,
    /// Stands in every event that the request causes; without it the server gives one.
    #[serde(rename = "ReferenceID", default)]
    #[schema(min_length = 1, max_length = 128, pattern = r"\S", nullable = false)]
    reference_id: Option<String>,
    /// How it is joined.
    #[serde(rename = "Extensions", default)]
    #[schema(nullable = false)]
    extensions: Option<MonitorExtensions>,
}

/// Whose calls a supervisor does not want to join any more.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelBody {
    /// The monitored DN.
    #[serde(rename = "OtherDN")]
    #[schema(min_length = 1, max_length = 128, pattern = r"\S", example = "2001")]
    other_dn: String,
    /// Stands in every event that the request causes; without it the server gives one.
    #[serde(rename = "ReferenceID", default)]
    #[schema(min_length = 1, max_length = 128, pattern = r"\S", nullable = false)]
    reference_id: Option<String>,
}

/// How a supervisor joins.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "PascalCase", default)]
pub struct MonitorExtensions {
    /// Who hears the supervisor; without it `supervision.mode`.
    monitor_mode: Option<Heard>,
    /// What it stays with when the agent leaves first; without it `supervision.scope`.
    monitor_scope: Option<Scope>,
    /// The next call, or all until cancelled.
    monitor_next_call_type: Calls,
    /// A call in progress is joined at once.
    intrusion: bool,
}

/// `MonitorMode`.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Heard {
    /// Nobody hears it.
    Mute,
    /// The agent alone.
    Coach,
    /// Everybody.
    Connect,
}

/// `MonitorScope`.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Scope {
    /// The call.
    Call,
    /// The agent: it leaves, too.
    Agent,
}

/// `MonitorNextCallType`.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Calls {
    /// The next one.
    #[default]
    One,
    /// All.
    All,
}

/// The answer to a request of a DN that is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DnRequestAccepted {
    /// The request's, or one that the server gave.
    #[serde(rename = "ReferenceID")]
    pub reference_id: String,
}

/// Calls a supervisor into the next call of an agent, or into the one that is up.
#[utoipa::path(
    post,
    path = "/v1/dns/{dn}/monitor-next-call",
    operation_id = "monitorNextCall",
    tag = "calls",
    params(("dn" = String, Path, description = "the supervisor's directory number")),
    request_body = MonitorBody,
    responses(
        (status = 202, description = "accepted; the outcome comes as events", body = DnRequestAccepted),
        (status = 400, description = "bad-request", body = problem::Body, content_type = "application/problem+json"),
        (status = 404, description = "unknown-dn", body = problem::Body, content_type = "application/problem+json"),
        (status = 409, description = "refused, nothing has changed: wrong-state, not-allowed",
            body = problem::Body, content_type = "application/problem+json"),
        (status = 413, description = "too-large", body = problem::Body, content_type = "application/problem+json"),
        (status = 415, description = "not-json", body = problem::Body, content_type = "application/problem+json"),
        (status = 503, description = "limit, unavailable",
            body = problem::Body, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn monitor(
    State(shared): State<Shared>,
    path: Result<Path<String>, PathRejection>,
    body: Result<Json<MonitorBody>, JsonRejection>,
) -> Result<(StatusCode, Json<DnRequestAccepted>), Problem> {
    let Json(body) = body.map_err(not_a_body)?;
    let how = body.extensions.clone().unwrap_or_default();
    let ask = DnAsk::MonitorNextCall(MonitorNextCall {
        agent: body.other_dn.clone(),
        mode: how.monitor_mode.map(|mode| match mode {
            Heard::Mute => MonitorMode::Mute,
            Heard::Coach => MonitorMode::Coach,
            Heard::Connect => MonitorMode::Connect,
        }),
        scope: how.monitor_scope.map(|scope| match scope {
            Scope::Call => MonitorScope::Call,
            Scope::Agent => MonitorScope::Agent,
        }),
        all: matches!(how.monitor_next_call_type, Calls::All),
        intrusion: how.intrusion,
    });
    decide(&shared, path, &body.other_dn, body.reference_id, ask).await
}

/// Calls a supervisor into no further call of an agent. Where it is in a call, it stays.
#[utoipa::path(
    post,
    path = "/v1/dns/{dn}/cancel-monitoring",
    operation_id = "cancelMonitoring",
    tag = "calls",
    params(("dn" = String, Path, description = "the supervisor's directory number")),
    request_body = CancelBody,
    responses(
        (status = 202, description = "accepted", body = DnRequestAccepted),
        (status = 400, description = "bad-request", body = problem::Body, content_type = "application/problem+json"),
        (status = 404, description = "unknown-dn", body = problem::Body, content_type = "application/problem+json"),
        (status = 409, description = "refused, nothing has changed: wrong-state",
            body = problem::Body, content_type = "application/problem+json"),
        (status = 413, description = "too-large", body = problem::Body, content_type = "application/problem+json"),
        (status = 415, description = "not-json", body = problem::Body, content_type = "application/problem+json"),
        (status = 503, description = "unavailable", body = problem::Body, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn cancel(
    State(shared): State<Shared>,
    path: Result<Path<String>, PathRejection>,
    body: Result<Json<CancelBody>, JsonRejection>,
) -> Result<(StatusCode, Json<DnRequestAccepted>), Problem> {
    let Json(body) = body.map_err(not_a_body)?;
    let ask = DnAsk::CancelMonitoring { agent: body.other_dn.clone() };
    decide(&shared, path, &body.other_dn, body.reference_id, ask).await
}

async fn decide(
    shared: &Shared,
    path: Result<Path<String>, PathRejection>,
    other_dn: &String,
    reference_id: Option<String>,
    ask: DnAsk,
) -> Result<(StatusCode, Json<DnRequestAccepted>), Problem> {
    let Path(dn) = path.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    for (field, text) in [("OtherDN", Some(other_dn)), ("ReferenceID", reference_id.as_ref())] {
        if text.is_some_and(|text| text.trim().is_empty() || text.chars().count() > 128) {
            return Err(Problem::bad_request(format!("{field} must have 1 to 128 characters")));
        }
    }
    let reference_id = reference_id.unwrap_or_else(|| Uuid::from_u128(rand::random()).to_string());
    let request = DnRequest { this_dn: dn.clone(), reference: Some(reference_id.as_str().into()), ask };
    let outcome = shared.backend.dn_request(request).await.ok_or_else(Problem::stopping)?;
    let dn = Redacted(&dn);
    match outcome {
        Ok(()) => tracing::info!(%dn, "supervision request accepted"),
        Err(denied) => {
            tracing::info!(%dn, code = denied.code.as_str(), "supervision request refused");
            return Err(denied.into());
        }
    }
    Ok((StatusCode::ACCEPTED, Json(DnRequestAccepted { reference_id })))
}
