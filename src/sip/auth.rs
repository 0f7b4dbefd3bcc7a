//! Digest authentication as a client (RFC 8760, 7616, 3261 §22).

use std::fmt;

use super::headers::Line;
use super::message::{Request, Response};
use super::name::Name;
use super::values::{self, Challenge};

/// A password: prints nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Wraps a password.
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }

    fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// What a trunk or registrar wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password.
    pub password: Password,
    /// The realm that they are for; `None`: any realm that the target names.
    pub realm: Option<String>,
}

/// The lines that answer the challenges of a 401 (Authorization) or 407 (Proxy-Authorization), one for each realm, the
/// first algorithm that we have (RFC 8760 §2.4). `None` when a challenge cannot be answered, or when these credentials
/// were refused already: `has_tried` and the nonce is not merely stale.
pub fn answer(
    response: &Response,
    request: &Request,
    credentials: &Credentials,
    has_tried: bool,
    cnonce: &[u8],
) -> Option<Vec<Line>> {
    let (challenge, answer) = match response.code {
        401 => (Name::WwwAuthenticate, Name::Authorization),
        407 => (Name::ProxyAuthenticate, Name::ProxyAuthorization),
        _ => return None,
    };
    let mut lines = Vec::new();
    let mut realms: Vec<Vec<u8>> = Vec::new();
    for challenge in Challenge::all(&response.headers, challenge) {
        if !challenge.can_answer() || realms.contains(&challenge.realm) || (has_tried && !challenge.stale) {
            continue;
        }
        if credentials.realm.as_ref().is_some_and(|realm| realm.as_bytes() != challenge.realm) {
            continue;
        }
        let line = values::Answer {
            challenge: &challenge,
            username: credentials.username.as_bytes(),
            password: credentials.password.reveal().as_bytes(),
            method: request.method.as_bytes(),
            uri: &request.uri,
            // Every challenge is answered once: each answer is the first of its nonce.
            nonce_count: 1,
            cnonce,
            body: &request.body,
        };
        lines.push(Line::new(answer, line.encode().ok()?));
        realms.push(challenge.realm);
    }
    (!lines.is_empty()).then_some(lines)
}
