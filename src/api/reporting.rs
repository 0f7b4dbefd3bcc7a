//! `GET /v1/reporting/events`: what the reporting audience of the interaction model is told (spec/events.md §3).

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;

use super::events::{Stream, last_read};
use super::http::Shared;
use super::problem::{self, Problem};

/// From where on.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ReportingQuery {
    /// First what is kept with a higher `seq`; 0: all that is kept. Without it only what comes next.
    pub after: Option<u64>,
}

/// Invitations, parties and places of all interactions, as server-sent events with a `seq` of their own.
///
/// EventAgentInvited, EventRejected, EventPartyAdded, EventPartyRemoved, EventPlacedInQueue, EventPlacedInWorkbin. What is
/// missing is told as at `/v1/events`, and `Last-Event-ID` goes before `after`.
#[utoipa::path(
    get,
    path = "/v1/reporting/events",
    operation_id = "reportingEvents",
    tag = "agents",
    params(ReportingQuery, ("Last-Event-ID" = Option<u64>, Header, description = "the last `seq` that was read")),
    responses(
        (status = 200, description = "the stream", body = String, content_type = "text/event-stream"),
        (status = 400, description = "bad-request", body = problem::Body, content_type = "application/problem+json"),
        (status = 503, description = "too-many-streams", body = problem::Body,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn server_sent(
    State(shared): State<Shared>,
    query: Result<Query<ReportingQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(ReportingQuery { after }) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let after = last_read(&headers, after)?;
    Ok(Stream::open(&shared, |backend| backend.reporting(after))?.serve())
}
