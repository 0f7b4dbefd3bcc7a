//! Refusals: `application/problem+json` (RFC 9457). None holds a path of this machine's disk or a secret.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::call::request::{Code, Denied};

/// Why an answer is a refusal. [`Kind::row`] is the table of all codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A path, a query or a body is not of the form that is asked for.
    BadRequest,
    /// No token, or a wrong one.
    Unauthorized,
    /// The host or the origin that the client names is not ours.
    Forbidden,
    /// Nothing is at this path.
    NotFound,
    /// The last part of the path names no request.
    UnknownRequest,
    /// The path does not take the method.
    MethodNotAllowed,
    /// The recording is not published yet.
    RecordingRunning,
    /// The ReferenceID stands for another request.
    ReferenceReused,
    /// The body is too long.
    TooLarge,
    /// The body is not JSON.
    NotJson,
    /// The file is not as long as the range asks.
    Range,
    /// Too many requests of one client.
    TooManyRequests,
    /// Too many event streams.
    TooManyStreams,
    /// Another agent is connected with that DN.
    DnInUse,
    /// It took too long, the server stops, or the folder of recordings cannot be read.
    Unavailable,
    /// The calls refused it.
    Refused(Code),
}

impl Kind {
    /// Every kind, in the order of the table.
    pub const ALL: [Self; 31] = [
        Self::BadRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::UnknownRequest,
        Self::MethodNotAllowed,
        Self::RecordingRunning,
        Self::ReferenceReused,
        Self::TooLarge,
        Self::NotJson,
        Self::Range,
        Self::TooManyRequests,
        Self::TooManyStreams,
        Self::DnInUse,
        Self::Unavailable,
        Self::Refused(Code::UnknownCall),
        Self::Refused(Code::UnknownDn),
        Self::Refused(Code::UnknownTarget),
        Self::Refused(Code::UnknownRecording),
        Self::Refused(Code::NotAParty),
        Self::Refused(Code::WrongState),
        Self::Refused(Code::OtherCall),
        Self::Refused(Code::OwnerRequired),
        Self::Refused(Code::ConsultedOwner),
        Self::Refused(Code::NotAllowed),
        Self::Refused(Code::Codec),
        Self::Refused(Code::HeldByPhone),
        Self::Refused(Code::NotSupported),
        Self::Refused(Code::Busy),
        Self::Refused(Code::NoSpace),
        Self::Refused(Code::Limit),
    ];

    /// HTTP status, code for programs (stable), title for people.
    pub fn row(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::BadRequest => (StatusCode::BAD_REQUEST, "bad-request", "The request is wrong"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized", "A token is needed"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "This host is not served"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "There is no such thing"),
            Self::UnknownRequest => (StatusCode::NOT_FOUND, "unknown-request", "There is no such request"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "The path does not take this method")
            }
            Self::RecordingRunning => (StatusCode::CONFLICT, "recording-running", "The recording still runs"),
            Self::ReferenceReused => {
                (StatusCode::CONFLICT, "reference-reused", "The ReferenceID stands for another request")
            }
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too long"),
            Self::NotJson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json", "The body must be JSON"),
            Self::Range => (StatusCode::RANGE_NOT_SATISFIABLE, "range", "The file has no such range"),
            Self::TooManyRequests => {
                (StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests of this client")
            }
            Self::TooManyStreams => {
                (StatusCode::SERVICE_UNAVAILABLE, "too-many-streams", "Too many event streams are open")
            }
            Self::DnInUse => (StatusCode::CONFLICT, "dn-in-use", "Another agent is connected with that DN"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "This cannot be answered now"),
            Self::Refused(code) => {
                let (status, title) = refusal(code);
                (status, code.as_str(), title)
            }
        }
    }
}

fn refusal(code: Code) -> (StatusCode, &'static str) {
    match code {
        Code::UnknownCall => (StatusCode::NOT_FOUND, "No live call has that ConnID"),
        Code::UnknownDn => (StatusCode::NOT_FOUND, "ThisDN is no configured DN"),
        Code::UnknownTarget => (StatusCode::NOT_FOUND, "OtherDN leads nowhere"),
        Code::UnknownRecording => (StatusCode::NOT_FOUND, "There is no such running recording"),
        Code::NotAParty => (StatusCode::CONFLICT, "ThisDN is not in that call"),
        Code::WrongState => (StatusCode::CONFLICT, "The call's state does not allow it"),
        Code::OtherCall => (StatusCode::CONFLICT, "OtherConnID is needed, or names no call of ThisDN"),
        Code::OwnerRequired => (StatusCode::CONFLICT, "OtherDN must name the owner"),
        Code::ConsultedOwner => (StatusCode::CONFLICT, "A consulted party cannot own a recording"),
        Code::NotAllowed => (StatusCode::CONFLICT, "The configuration does not allow it"),
        Code::Codec => (StatusCode::CONFLICT, "The call has no codec that can be decoded"),
        Code::HeldByPhone => (StatusCode::CONFLICT, "The phone holds the call itself"),
        Code::NotSupported => (StatusCode::CONFLICT, "The phone has no means for it"),
        Code::Busy => (StatusCode::CONFLICT, "Something else in the call did not end in time"),
        Code::NoSpace => (StatusCode::SERVICE_UNAVAILABLE, "The disk has no room for another recording"),
        Code::Limit => (StatusCode::SERVICE_UNAVAILABLE, "The server has reached a limit, or stops"),
    }
}

/// The body of a refusal.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Problem)]
pub struct Body {
    /// `urn:stickytape:problem:` and the code.
    pub r#type: String,
    /// For people, the same for every case of `code`.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// For people, this case.
    pub detail: String,
    /// For programs: stable.
    pub code: String,
    /// The call's state as it was found, when a call refused: `talking`, `consulting, D3 rings`, … .
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub state: Option<String>,
}

/// One refusal.
#[derive(Debug)]
pub(super) struct Problem {
    kind: Kind,
    detail: String,
    state: Option<String>,
    /// Seconds after which the same request may succeed.
    retry_after: Option<u64>,
}

impl Problem {
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let retry_after = (kind.row().0 == StatusCode::SERVICE_UNAVAILABLE).then_some(1);
        Self { kind, detail: detail.into(), state: None, retry_after }
    }

    pub(super) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, detail)
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(Kind::BadRequest, detail)
    }

    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, detail)
    }

    pub(super) fn code(&self) -> &'static str {
        self.kind.row().1
    }

    #[cfg(test)]
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// The signaling task is gone.
    pub(super) fn stopping() -> Self {
        Self::unavailable("the server is stopping")
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let state = Some(denied.state).filter(|state| !state.is_empty());
        Self { state, ..Self::new(Kind::Refused(denied.code), denied.detail) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, code, title) = self.kind.row();
        let body = Body {
            r#type: format!("urn:stickytape:problem:{code}"),
            title: title.into(),
            status: status.as_u16(),
            detail: self.detail,
            code: code.into(),
            state: self.state,
        };
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_stands_once_in_the_table_and_is_an_error() {
        let mut codes: Vec<_> = Kind::ALL.iter().map(|kind| kind.row().1).collect();
        codes.sort_unstable();
        let all = codes.len();
        codes.dedup();
        assert_eq!(codes.len(), all);
        assert!(Kind::ALL.iter().all(|kind| kind.row().0.is_client_error() || kind.row().0.is_server_error()));
    }

    #[test]
    fn what_may_succeed_later_says_when() {
        let headers = |kind| Problem::new(kind, "").into_response().headers().contains_key(header::RETRY_AFTER);
        assert!(headers(Kind::Refused(Code::Limit)) && headers(Kind::Unavailable));
        assert!(!headers(Kind::Refused(Code::WrongState)));
    }
}
