//! `POST /v1/calls/{ConnID}/{request}`: what a body must say, and what it asks of the call.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;
use utoipa::ToSchema;
use uuid::Uuid;

use super::http::Shared;
use super::problem::{self, Kind, Problem};
use super::references::Claim;
use crate::bridge::command::Digit;
use crate::call::request::{Accepted, Ask, Denied, OwnerWish, Request};
use crate::clock;
use crate::id::{ConnId, RecordingId, Redacted};

/// Characters of a `ThisDN`, an `OtherDN`, a `ReferenceID`.
pub(super) const MAX_CHARS: usize = 128;

/// The body of a request. Each takes its own part of the fields.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestBody {
    /// Who asks: the number of a configured DN.
    #[serde(rename = "ThisDN")]
    #[schema(min_length = 1, max_length = 128, pattern = r"\S", example = "2001")]
    pub this_dn: String,
    /// The target; of record-start the owner.
    #[serde(rename = "OtherDN", default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128, pattern = r"\S", example = "2002")]
    pub other_dn: Option<String>,
    /// The held call; may be left out when ThisDN has exactly two.
    #[serde(rename = "OtherConnID", default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ConnId>)]
    pub other_conn_id: Option<ConnId>,
    /// The session; without it all that ThisDN owns.
    #[serde(rename = "RecordingID", default, skip_serializing_if = "Option::is_none")]
    pub recording_id: Option<RecordingId>,
    /// The keys to press: `0`–`9`, `*`, `#`, `A`–`D`.
    #[serde(rename = "Digits", default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 32, pattern = "^[0-9*#A-Da-d]+$", example = "1234#")]
    pub digits: Option<String>,
    /// Stands in every event that the request causes, and makes a repeated request harmless: for ten minutes the first
    /// answer is given again. Without it the server gives one.
    #[serde(rename = "ReferenceID", default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128, pattern = r"\S")]
    pub reference_id: Option<String>,
    /// `record` of record-start.
    #[serde(rename = "Extensions", default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Extensions>)]
    pub extensions: Option<BTreeMap<String, Value>>,
}

/// What `Extensions` may hold.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Extensions {
    /// Whose leg a record-start means.
    #[serde(default)]
    record: Record,
    /// Of set-mute-on and set-mute-off.
    #[serde(rename = "MonitorMode", default)]
    monitor_mode: Option<Mode>,
}

/// `Extensions.MonitorMode` of a request that says mute or connect by its name.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The agent alone hears the supervisor.
    Coach,
}

/// `Extensions.record`.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Record {
    /// The requester's own leg.
    #[default]
    Source,
    /// The other leg of a two-party call.
    Destination,
}

/// The answer to a request that is accepted; its outcome comes as events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RequestAccepted {
    /// The request's, or one that the server gave.
    #[serde(rename = "ReferenceID")]
    pub reference_id: String,
    /// The call; for a consultation the new one.
    #[serde(rename = "ConnID")]
    #[schema(value_type = ConnId)]
    pub conn_id: ConnId,
    /// Of record-start: the session that has begun, or ran already.
    #[serde(rename = "RecordingID", default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub recording_id: Option<RecordingId>,
    /// Of record-pause, -resume and -stop: the sessions of the call that still record.
    #[serde(rename = "StillRecording", default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub still_recording: Option<Vec<RecordingId>>,
}

/// Whether a request takes a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It has no use for it: refused.
    No,
    /// It may be left out.
    May,
    /// It must be there.
    Must,
}

/// One request and the fields that it takes besides `ThisDN` and `ReferenceID`.
#[derive(Debug, Clone, Copy)]
pub struct Takes {
    /// Its name in the path.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub about: &'static str,
    /// `OtherDN`.
    pub other_dn: Need,
    /// `OtherConnID`.
    pub other_conn_id: Need,
    /// `RecordingID`.
    pub recording_id: Need,
    /// `Digits`.
    pub digits: Need,
    /// The keys of `Extensions`.
    pub extensions: &'static [&'static str],
}

/// A request that takes nothing more.
const fn takes(name: &'static str, about: &'static str) -> Takes {
    let other_dn = Need::No;
    Takes { name, about, other_dn, other_conn_id: Need::No, recording_id: Need::No, digits: Need::No, extensions: &[] }
}

const fn to_other_dn(name: &'static str, about: &'static str) -> Takes {
    Takes { other_dn: Need::Must, ..takes(name, about) }
}

const fn of_two_calls(name: &'static str, about: &'static str) -> Takes {
    Takes { other_conn_id: Need::May, ..takes(name, about) }
}

const fn of_recordings(name: &'static str, about: &'static str) -> Takes {
    Takes { recording_id: Need::May, ..takes(name, about) }
}

const fn of_mode(name: &'static str, about: &'static str) -> Takes {
    Takes { extensions: &["MonitorMode"], ..takes(name, about) }
}

/// The request that names no call.
pub const MAKE_CALL: Takes = to_other_dn("make-call", "Calls ThisDN, and when it has answered OtherDN for it");

/// Every request to a call.
pub const TAKES: &[Takes] = &[
    takes("answer-call", "ThisDN rings: its phone is asked to answer (NOTIFY `Event: talk`)"),
    takes("release-call", "ThisDN leaves the call"),
    takes("hold-call", "ThisDN puts the other side on hold"),
    takes("retrieve-call", "ThisDN talks to the other side again; a consultation that is open ends"),
    to_other_dn("initiate-transfer", "Calls OtherDN while the other side is held: a consultation with its own ConnID"),
    to_other_dn("mute-transfer", "initiate-transfer and complete-transfer in one"),
    of_two_calls("complete-transfer", "The held and the consulted party talk; ThisDN leaves"),
    to_other_dn("single-step-transfer", "Transfers to OtherDN without consulting"),
    of_two_calls("alternate-call", "The held call becomes active and the active one is held"),
    of_two_calls("reconnect-call", "Drops the consultation and retrieves the held call"),
    to_other_dn("initiate-conference", "As initiate-transfer, for a conference; either may be completed as the other"),
    of_two_calls("complete-conference", "The consulted party and ThisDN join the held call"),
    to_other_dn("single-step-conference", "Calls OtherDN into the call while everybody talks on"),
    to_other_dn("delete-from-conference", "OtherDN leaves; with two parties left ThisDN does"),
    Takes { other_conn_id: Need::Must, ..takes("merge-calls", "Two calls of ThisDN become one conference") },
    Takes { other_dn: Need::May, ..takes("listen-disconnect", "OtherDN, or ThisDN without it, hears nobody") },
    Takes { other_dn: Need::May, ..takes("listen-reconnect", "It hears the others again") },
    of_mode("set-mute-on", "Nobody hears ThisDN; a supervisor's mode becomes mute, or the one of the extension"),
    of_mode("set-mute-off", "Everybody hears ThisDN; a supervisor's mode becomes connect, or the one of the extension"),
    Takes {
        digits: Need::Must,
        ..takes("send-dtmf", "Presses keys for ThisDN, 100 ms each; the other party hears them")
    },
    to_other_dn("redirect-call", "ThisDN rings: the call rings at OtherDN instead"),
    Takes {
        other_dn: Need::May,
        extensions: &["record"],
        ..takes("record-start", "Starts a recording, or finds the one that runs")
    },
    of_recordings("record-pause", "Silences a recording"),
    of_recordings("record-resume", "Ends its silence"),
    of_recordings("record-stop", "Ends a recording"),
];

/// Asks something of a call.
///
/// The path's ConnID is the call in which ThisDN is active: the consult call for complete, reconnect and alternate.
#[utoipa::path(
    post,
    path = "/v1/calls/{ConnID}/{request}",
    operation_id = "request",
    tag = "calls",
    params(
        ("ConnID" = ConnId, Path, description = "16 hexadecimal digits"),
        ("request" = String, Path, description = "what is asked"),
    ),
    request_body = RequestBody,
    responses(
        (status = 202, description = "accepted; the outcome comes as events", body = RequestAccepted),
        (status = 400, description = "bad-request: the path or a field of the body is wrong",
            body = problem::Body, content_type = "application/problem+json"),
        (status = 404, description = "unknown-request, unknown-call, unknown-dn, unknown-target, unknown-recording",
            body = problem::Body, content_type = "application/problem+json"),
        (status = 409, description = "refused, nothing has changed: not-a-party, wrong-state, other-call, \
            owner-required, consulted-owner, codec, held-by-phone, not-supported, busy; or reference-reused",
            body = problem::Body, content_type = "application/problem+json"),
        (status = 413, description = "too-large: more than 65,536 bytes",
            body = problem::Body, content_type = "application/problem+json"),
        (status = 415, description = "not-json", body = problem::Body, content_type = "application/problem+json"),
        (status = 503, description = "limit, no-space, unavailable",
            body = problem::Body, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn request(
    State(shared): State<Shared>,
    path: Result<Path<(String, String)>, PathRejection>,
    body: Result<Json<RequestBody>, JsonRejection>,
) -> Result<Response, Problem> {
    let Path((conn_id, name)) = path.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let takes = TAKES.iter().find(|takes| takes.name == name).ok_or_else(unknown_request)?;
    let conn_id: ConnId = super::http::conn_id(&conn_id)?;
    take(&shared, conn_id, takes, body).await
}

/// Calls ThisDN, and when it has answered OtherDN for it.
///
/// The ConnID of the answer is the new call's. ThisDN's phone is asked to answer by itself (`Call-Info: …;answer-after=0`,
/// `Alert-Info: info=alert-autoanswer`); when it has answered, EventDialing comes. A phone that is busy, declines or does
/// not answer: EventDestinationBusy and EventReleased, or EventReleased alone.
#[utoipa::path(
    post,
    path = "/v1/calls",
    operation_id = "make-call",
    tag = "calls",
    request_body = RequestBody,
    responses(
        (status = 202, description = "accepted; the outcome comes as events", body = RequestAccepted),
        (status = 400, description = "bad-request: a field of the body is wrong",
            body = problem::Body, content_type = "application/problem+json"),
        (status = 404, description = "unknown-dn, unknown-target",
            body = problem::Body, content_type = "application/problem+json"),
        (status = 409, description = "refused, nothing has changed: wrong-state (ThisDN is not registered or cannot be \
            reached), codec; or reference-reused", body = problem::Body, content_type = "application/problem+json"),
        (status = 413, description = "too-large: more than 65,536 bytes",
            body = problem::Body, content_type = "application/problem+json"),
        (status = 415, description = "not-json", body = problem::Body, content_type = "application/problem+json"),
        (status = 503, description = "limit, no-space, unavailable",
            body = problem::Body, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn make_call(
    State(shared): State<Shared>,
    body: Result<Json<RequestBody>, JsonRejection>,
) -> Result<Response, Problem> {
    take(&shared, Request::NO_CALL, &MAKE_CALL, body).await
}

/// Asks what a body says, and answers.
async fn take(
    shared: &Shared,
    conn_id: ConnId,
    takes: &Takes,
    body: Result<Json<RequestBody>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(body) = body.map_err(not_a_body)?;
    let asked = build(conn_id, takes, &body)?;
    let reference = asked.reference.clone().unwrap_or_else(|| Uuid::from_u128(rand::random()).to_string().into());
    let outcome = decide(shared, asked, &reference).await;
    log(takes.name, conn_id, &body.this_dn, &outcome);
    let accepted = outcome?;
    let still_recording = (takes.recording_id != Need::No).then_some(accepted.still_recording);
    let answer = RequestAccepted {
        reference_id: reference.to_string(),
        conn_id: accepted.conn_id,
        recording_id: accepted.recording,
        still_recording,
    };
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

fn log(request: &'static str, conn_id: ConnId, this_dn: &str, outcome: &Result<Accepted, Problem>) {
    let dn = Redacted(this_dn);
    match outcome {
        // A new call has another one than the path names.
        Ok(accepted) => tracing::info!(request, conn_id = %accepted.conn_id, %dn, "request accepted"),
        Err(problem) if conn_id == Request::NO_CALL => {
            tracing::info!(request, %dn, code = problem.code(), "request refused");
        }
        Err(problem) => tracing::info!(request, %conn_id, %dn, code = problem.code(), "request refused"),
    }
}

/// Asks, unless the same has been asked under its ReferenceID; then the first answer is waited for.
async fn decide(shared: &Shared, mut asked: Request, reference: &Arc<str>) -> Result<Accepted, Problem> {
    let claim = shared.references.lock().unwrap_or_else(PoisonError::into_inner).claim(&asked, clock::now());
    let mut answer = match claim {
        Claim::Again(answer) => answer,
        Claim::Reused => {
            let detail = "within ten minutes ThisDN has asked something else under this ReferenceID";
            return Err(Problem::new(Kind::ReferenceReused, detail));
        }
        Claim::Full => {
            let limit = Kind::Refused(crate::call::request::Code::Limit);
            return Err(Problem::new(limit, "too many ReferenceIDs are kept").retry_after(10));
        }
        Claim::First(sender, answer) => {
            let key = asked.clone();
            asked.reference = Some(reference.clone());
            // A task of its own: a client that goes away and repeats the request must find its answer.
            tokio::spawn(ask(shared.clone(), key, asked, sender));
            answer
        }
    };
    let decided = answer.wait_for(Option::is_some).await.ok().and_then(|decided| decided.clone());
    match decided {
        Some(Ok(accepted)) => Ok(accepted),
        Some(Err(denied)) => Err(denied.into()),
        None => Err(Problem::stopping()),
    }
}

async fn ask(shared: Shared, key: Request, asked: Request, answer: watch::Sender<Option<Result<Accepted, Denied>>>) {
    let decided = shared.backend.request(asked).await;
    // What a limit has refused may be tried again under its ReferenceID.
    let temporary = |denied: &Denied| Kind::Refused(denied.code).row().0 == StatusCode::SERVICE_UNAVAILABLE;
    if decided.as_ref().is_none_or(|decided| decided.as_ref().is_err_and(temporary)) {
        shared.references.lock().unwrap_or_else(PoisonError::into_inner).forget(&key);
    }
    if let Some(decided) = decided {
        // The client may have gone away meanwhile.
        let _ = answer.send(Some(decided));
    }
}

fn unknown_request() -> Problem {
    let names: Vec<_> = TAKES.iter().map(|takes| takes.name).collect();
    Problem::new(Kind::UnknownRequest, format!("the requests are {}", names.join(", ")))
}

pub(super) fn not_a_body(rejection: JsonRejection) -> Problem {
    let kind = match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Kind::TooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Kind::NotJson,
        _ => Kind::BadRequest,
    };
    Problem::new(kind, rejection.body_text())
}

/// The request that a body means. Every field that `takes` does not name is refused: it would have no effect.
fn build(conn_id: ConnId, takes: &Takes, body: &RequestBody) -> Result<Request, Problem> {
    for (field, text) in [
        ("ThisDN", Some(&body.this_dn)),
        ("OtherDN", body.other_dn.as_ref()),
        ("ReferenceID", body.reference_id.as_ref()),
    ] {
        let in_order = |text: &String| !text.trim().is_empty() && text.chars().count() <= MAX_CHARS;
        if text.is_some_and(|text| !in_order(text)) {
            return Err(Problem::bad_request(format!("{field} must have 1 to {MAX_CHARS} characters")));
        }
    }
    for (field, need, is_there) in [
        ("OtherDN", takes.other_dn, body.other_dn.is_some()),
        ("OtherConnID", takes.other_conn_id, body.other_conn_id.is_some()),
        ("RecordingID", takes.recording_id, body.recording_id.is_some()),
        ("Digits", takes.digits, body.digits.is_some()),
    ] {
        match (need, is_there) {
            (Need::Must, false) => return Err(Problem::bad_request(format!("{} needs {field}", takes.name))),
            (Need::No, true) => return Err(Problem::bad_request(format!("{} takes no {field}", takes.name))),
            _ => {}
        }
    }
    let extensions = body.extensions.iter().flatten();
    if let Some((key, _)) = extensions.clone().find(|(key, _)| !takes.extensions.contains(&key.as_str())) {
        return Err(Problem::bad_request(format!("{} takes no extension {key:?}", takes.name)));
    }
    let ask = ask_of(takes.name, body)?;
    let reference = body.reference_id.as_deref().map(Arc::from);
    Ok(Request { conn_id, this_dn: body.this_dn.clone(), reference, ask })
}

fn ask_of(name: &str, body: &RequestBody) -> Result<Ask, Problem> {
    let (other, recording) = (body.other_conn_id, body.recording_id);
    // `build` has seen that it is there where it is needed.
    let to = || body.other_dn.clone().unwrap_or_default();
    Ok(match name {
        "make-call" => Ask::MakeCall { to: to() },
        "answer-call" => Ask::AnswerCall,
        "send-dtmf" => Ask::SendDtmf { digits: digits(body)? },
        "release-call" => Ask::ReleaseCall,
        "hold-call" => Ask::HoldCall,
        "retrieve-call" => Ask::RetrieveCall,
        "initiate-transfer" => Ask::InitiateTransfer { to: to() },
        "mute-transfer" => Ask::MuteTransfer { to: to() },
        "complete-transfer" => Ask::CompleteTransfer { other },
        "single-step-transfer" => Ask::SingleStepTransfer { to: to() },
        "alternate-call" => Ask::AlternateCall { other },
        "reconnect-call" => Ask::ReconnectCall { other },
        "redirect-call" => Ask::RedirectCall { to: to() },
        "initiate-conference" => Ask::InitiateConference { to: to() },
        "complete-conference" => Ask::CompleteConference { other },
        "single-step-conference" => Ask::SingleStepConference { to: to(), hold: false },
        "delete-from-conference" => Ask::DeleteFromConference { party: to() },
        // `build` has seen that it is there.
        "merge-calls" => Ask::MergeCalls { other: other.unwrap_or(ConnId(0)) },
        "listen-disconnect" => Ask::ListenDisconnect { party: body.other_dn.clone() },
        "listen-reconnect" => Ask::ListenReconnect { party: body.other_dn.clone() },
        "set-mute-on" => Ask::SetMuteOn { coach: coach(body)? },
        "set-mute-off" => Ask::SetMuteOff { coach: coach(body)? },
        "record-start" => Ask::RecordStart { owner: owner(body)? },
        "record-pause" => Ask::RecordPause { recording },
        "record-resume" => Ask::RecordResume { recording },
        "record-stop" => Ask::RecordStop { recording },
        _ => return Err(unknown_request()),
    })
}

/// What is wrong with digits is told without them: they are secrets.
fn digits(body: &RequestBody) -> Result<Vec<Digit>, Problem> {
    let keys = body.digits.as_deref().unwrap_or_default();
    let digits: Option<Vec<Digit>> = keys.chars().map(Digit::of_key).collect();
    digits
        .filter(|digits| (1..=Ask::MAX_DIGITS).contains(&digits.len()))
        .ok_or_else(|| Problem::bad_request(format!("Digits must be 1 to {} of 0-9, *, #, A-D", Ask::MAX_DIGITS)))
}

/// `Extensions.MonitorMode = "coach"`: the third mode, which neither on nor off names (spec/events.md §1 row 21).
fn coach(body: &RequestBody) -> Result<bool, Problem> {
    Ok(extensions(body, "MonitorMode")?.monitor_mode.is_some_and(|Mode::Coach| true))
}

fn extensions(body: &RequestBody, key: &str) -> Result<Extensions, Problem> {
    let extensions = Value::Object(body.extensions.clone().unwrap_or_default().into_iter().collect());
    serde_json::from_value(extensions).map_err(|error| Problem::bad_request(format!("Extensions.{key}: {error}")))
}

/// `OtherDN` names the owner outright; without it `Extensions.record` says whose leg is meant (spec/recording.md §3).
fn owner(body: &RequestBody) -> Result<OwnerWish, Problem> {
    let side = match extensions(body, "record")?.record {
        Record::Source => OwnerWish::Source,
        Record::Destination => OwnerWish::Destination,
    };
    Ok(body.other_dn.clone().map_or(side, OwnerWish::Dn))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(json: &str) -> RequestBody {
        serde_json::from_str(json).unwrap()
    }

    fn built(name: &str, json: &str) -> Result<Ask, String> {
        let takes = TAKES.iter().find(|takes| takes.name == name).unwrap();
        match build(ConnId(1), takes, &body(json)) {
            Ok(request) => Ok(request.ask),
            Err(problem) => Err(problem.detail().to_owned()),
        }
    }

    /// A body with every field that a request takes.
    fn full(takes: &Takes) -> RequestBody {
        let field = |need, text: &str| (need != Need::No).then(|| text.to_owned());
        RequestBody {
            this_dn: "2001".into(),
            other_dn: field(takes.other_dn, "2002"),
            other_conn_id: field(takes.other_conn_id, "AB").map(|id| id.parse().unwrap()),
            recording_id: (takes.recording_id != Need::No).then(|| RecordingId(Uuid::nil())),
            digits: field(takes.digits, "12*#aD"),
            ..RequestBody::default()
        }
    }

    #[test]
    fn every_request_of_the_table_is_built_as_what_it_is_called() {
        for takes in TAKES.iter().chain([&MAKE_CALL]) {
            assert_eq!(build(ConnId(1), takes, &full(takes)).unwrap().ask.name(), takes.name);
        }
    }

    #[test]
    fn a_field_is_needed_taken_or_refused_as_the_table_says() {
        for takes in TAKES {
            for field in ["OtherDN", "OtherConnID", "RecordingID"] {
                let (mut with, mut without) = (full(takes), full(takes));
                let need = match field {
                    "OtherDN" => {
                        (with.other_dn, without.other_dn) = (Some("2002".into()), None);
                        takes.other_dn
                    }
                    "OtherConnID" => {
                        (with.other_conn_id, without.other_conn_id) = (Some(ConnId(2)), None);
                        takes.other_conn_id
                    }
                    _ => {
                        (with.recording_id, without.recording_id) = (Some(RecordingId(Uuid::nil())), None);
                        takes.recording_id
                    }
                };
                let taken = [with, without].map(|body| build(ConnId(1), takes, &body).is_ok());
                assert_eq!(taken, [need != Need::No, need != Need::Must], "{} {field}", takes.name);
            }
        }
    }

    #[test]
    fn a_record_start_says_whose_leg_it_means() {
        let dn = r#""ThisDN": "2001""#;
        let owner = |rest: &str| match built("record-start", &format!("{{{dn}{rest}}}")) {
            Ok(Ask::RecordStart { owner }) => Ok(owner),
            Ok(other) => panic!("{other:?}"),
            Err(detail) => Err(detail),
        };
        assert_eq!(owner(""), Ok(OwnerWish::Source));
        assert_eq!(owner(r#", "Extensions": {"record": "source"}"#), Ok(OwnerWish::Source));
        assert_eq!(owner(r#", "Extensions": {"record": "destination"}"#), Ok(OwnerWish::Destination));
        assert_eq!(owner(r#", "OtherDN": "2002""#), Ok(OwnerWish::Dn("2002".into())));
        let both = r#", "OtherDN": "2002", "Extensions": {"record": "destination"}"#;
        assert_eq!(owner(both), Ok(OwnerWish::Dn("2002".into())));
        assert!(owner(r#", "Extensions": {"record": "both"}"#).unwrap_err().contains("Extensions.record"));
        assert!(owner(r#", "Extensions": {"record": 1}"#).is_err());
        assert!(owner(r#", "Extensions": {"beep": "on"}"#).unwrap_err().contains("beep"));
        assert!(built("hold-call", &format!("{{{dn}, \"Extensions\": {{\"record\": \"source\"}}}}")).is_err());
    }

    #[test]
    fn an_empty_or_endless_name_is_refused() {
        for wrong in ["", "  ", &"1".repeat(MAX_CHARS + 1)] {
            for field in ["ThisDN", "OtherDN", "ReferenceID"] {
                let mut fields = BTreeMap::from([("ThisDN", "2001"), ("OtherDN", "2002"), ("ReferenceID", "r")]);
                fields.insert(field, wrong);
                let detail = built("redirect-call", &serde_json::to_string(&fields).unwrap()).unwrap_err();
                assert!(detail.contains(field), "{detail}");
            }
        }
    }
}
