//! Digest authentication (RFC 8760, 7616, 3261 §22): as a client here, as a server in [`Verifier`].

mod verifier;

use std::fmt;

pub use verifier::{Account, Demand, Verifier};

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

/// What a trunk or registrar wants to see. Prints the realm at most: a user name may be a number.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password.
    pub password: Password,
    /// The realm that they are for; `None`: any realm that the target names.
    pub realm: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials(realm {:?})", self.realm)
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::method::Method;

    fn credentials(realm: Option<&str>) -> Credentials {
        Credentials { username: "4711".into(), password: Password::new("s3cret"), realm: realm.map(str::to_owned) }
    }

    fn challenged(code: u16, challenges: &[&'static str]) -> Response {
        let mut response = Response::new(code, "X");
        let name = if code == 401 { Name::WwwAuthenticate } else { Name::ProxyAuthenticate };
        challenges.iter().for_each(|challenge| response.headers.push(name, *challenge));
        response
    }

    fn lines(response: &Response, credentials: &Credentials, has_tried: bool) -> Option<Vec<String>> {
        let request = Request::new(Method::Register, "sip:registrar.example");
        let lines = answer(response, &request, credentials, has_tried, b"0a4f113b")?;
        Some(lines.iter().map(|line| String::from_utf8_lossy(line.raw()).into_owned()).collect())
    }

    const MD5: &str = "Digest realm=\"a\", nonce=\"n\", qop=\"auth,auth-int\", algorithm=MD5";
    const SHA: &str = "Digest realm=\"a\", nonce=\"n\", qop=\"auth\", algorithm=SHA-256";

    #[test]
    fn the_first_algorithm_that_we_have_answers_each_realm_once() {
        for (challenges, algorithm) in [
            ([SHA, MD5], "SHA-256"),
            ([MD5, SHA], "MD5"),
            (["Digest realm=\"a\", nonce=\"n\", algorithm=X", SHA], "SHA-256"),
        ] {
            let lines = lines(&challenged(401, &challenges), &credentials(None), false).unwrap();
            assert_eq!(lines.len(), 1);
            assert!(lines[0].contains(&format!("algorithm={algorithm},")), "{}", lines[0]);
        }
        let two = challenged(407, &[MD5, "Digest realm=\"b\", nonce=\"m\""]);
        assert_eq!(lines(&two, &credentials(None), false).unwrap().len(), 2);
    }

    #[test]
    fn credentials_answer_their_realm_only_and_a_refusal_only_when_the_nonce_was_stale() {
        let response = challenged(401, &[MD5]);
        assert!(lines(&response, &credentials(Some("a")), false).is_some());
        assert!(lines(&response, &credentials(Some("b")), false).is_none());
        assert!(lines(&response, &credentials(None), true).is_none());
        let stale = challenged(401, &["Digest realm=\"a\", nonce=\"n2\", stale=TRUE"]);
        assert!(lines(&stale, &credentials(None), true).is_some());
        assert!(lines(&challenged(403, &[MD5]), &credentials(None), false).is_none());
        assert!(lines(&challenged(401, &["Basic realm=\"a\""]), &credentials(None), false).is_none());
    }

    #[test]
    fn neither_password_nor_user_name_is_ever_printed() {
        let text = format!("{:?} {:?}", credentials(Some("a")), Password::new("s3cret"));
        assert!(!text.contains("s3cret") && !text.contains("4711"), "{text}");
    }
}
