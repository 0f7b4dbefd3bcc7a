//! The API of a running server as `calls` and `request` ask it: plain HTTP, blocking.

use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use ureq::Agent;
use ureq::http::{Request, Response, Uri};

use super::exit;
use crate::api::problem;

/// A server that has not answered by then is not there.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes of an answer.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;

/// Which server, and how to print what it says.
#[derive(Debug, Clone, Args)]
pub struct Client {
    /// The server's API, `[api] listen` of its configuration: plain HTTP.
    #[arg(long, global = true, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub api: String,
    /// The file that `[api] token-file` names.
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

/// Why there is no answer to print.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The token's file.
    #[error("cannot read {}: {source}", file.display())]
    Token {
        /// Which.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Nobody answers, or not to the end.
    #[error("{api} does not answer: {reason}")]
    Unreachable {
        /// Who was asked.
        api: String,
        /// Why.
        reason: String,
    },
    /// The server refused.
    #[error("{}", describe(.0))]
    Refused(Box<problem::Body>),
    /// Something answers that is not this API.
    #[error("{api} answers with status {status}, but not as stickytape does")]
    Strange {
        /// Who was asked.
        api: String,
        /// The HTTP status.
        status: u16,
    },
}

fn describe(problem: &problem::Body) -> String {
    let mut text = format!("{} ({}): {}", problem.title, problem.code, problem.detail);
    if let Some(state) = &problem.state {
        text.push_str(&format!("\nThe call was found: {state}"));
    }
    text
}

impl Failure {
    /// Tells it on stderr, with `json` a refusal as the server's problem on stdout.
    pub fn tell(&self, json: bool) -> ExitCode {
        match self {
            Self::Refused(problem) if json => print_json(problem),
            failure => eprintln!("error: {failure}"),
        }
        match self {
            Self::Unreachable { .. } => ExitCode::from(exit::UNAVAILABLE),
            Self::Token { .. } | Self::Refused(_) | Self::Strange { .. } => ExitCode::from(exit::FAILED),
        }
    }
}

/// Prints one value on stdout.
pub fn print_json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => println!("{text}"),
        Err(error) => eprintln!("error: {error}"),
    }
}

impl Client {
    /// `GET`.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn get(&self, path: &str) -> Result<Value, Failure> {
        let request = self.request("GET", path)?.body(());
        self.json_of(self.sent(self.agent(Some(ANSWER_TIMEOUT)).run(request.map_err(|e| self.unreachable(&e))?))?)
    }

    /// `POST` of a JSON body.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn post(&self, path: &str, body: &impl serde::Serialize) -> Result<Value, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| self.unreachable(&error))?;
        let request = self.request("POST", path)?.header("content-type", "application/json").body(body);
        self.json_of(self.sent(self.agent(Some(ANSWER_TIMEOUT)).run(request.map_err(|e| self.unreachable(&e))?))?)
    }

    /// Server-sent events after `last`, one call of `each` for every event with its `id` and `data`; returns when the
    /// server ends the stream.
    ///
    /// # Errors
    /// See [`Failure`]; a stream that breaks off is [`Failure::Unreachable`].
    pub fn follow(&self, path: &str, last: Option<&str>, mut each: impl FnMut(&str, &str)) -> Result<(), Failure> {
        let mut request = self.request("GET", path)?.header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let request = request.body(()).map_err(|error| self.unreachable(&error))?;
        let response = self.sent(self.agent(None).run(request))?;
        if response.status() != 200 {
            return self.json_of(response).map(drop);
        }
        let (mut id, mut data) = (String::new(), String::new());
        for line in BufReader::new(response.into_body().into_reader()).lines() {
            let line = line.map_err(|error| self.unreachable(&error))?;
            match line.split_once(':').map(|(field, value)| (field, value.strip_prefix(' ').unwrap_or(value))) {
                Some(("id", value)) => id = value.to_owned(),
                Some(("data", value)) => data = value.to_owned(),
                None if line.is_empty() && !data.is_empty() => {
                    each(&id, &data);
                    data.clear();
                }
                // A comment that keeps the connection alive, the name (it stands in the data, too).
                _ => {}
            }
        }
        Ok(())
    }

    fn request(&self, method: &str, path: &str) -> Result<ureq::http::request::Builder, Failure> {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.api.trim_end_matches('/')));
        let Some(file) = &self.token_file else { return Ok(request) };
        let token = std::fs::read_to_string(file).map_err(|source| Failure::Token { file: file.clone(), source })?;
        Ok(request.header("authorization", format!("Bearer {}", token.trim())))
    }

    fn agent(&self, timeout: Option<Duration>) -> Agent {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(ANSWER_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .timeout_global(timeout);
        // A proxy that the environment names reaches other machines, not this one.
        let config = if is_on_this_machine(&self.api) { config.proxy(None) } else { config };
        Agent::new_with_config(config.build())
    }

    fn sent<B>(&self, sent: Result<Response<B>, ureq::Error>) -> Result<Response<B>, Failure> {
        sent.map_err(|error| self.unreachable(&error))
    }

    fn json_of(&self, mut response: Response<ureq::Body>) -> Result<Value, Failure> {
        let status = response.status();
        let text = response.body_mut().with_config().limit(MAX_ANSWER).read_to_string();
        let text = text.map_err(|error| self.unreachable(&error))?;
        let strange = || Failure::Strange { api: self.api.clone(), status: status.as_u16() };
        if status.is_success() {
            return serde_json::from_str(&text).map_err(|_| strange());
        }
        Err(serde_json::from_str(&text).map_or_else(|_| strange(), |problem| Failure::Refused(Box::new(problem))))
    }

    fn unreachable(&self, reason: &dyn std::fmt::Display) -> Failure {
        Failure::Unreachable { api: self.api.clone(), reason: reason.to_string() }
    }
}

/// True for a URL of `localhost` or of a loopback address.
fn is_on_this_machine(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let host = uri.host().unwrap_or_default();
    let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    host.eq_ignore_ascii_case("localhost") || address.is_some_and(|address| address.is_loopback())
}

/// A value in a query (RFC 3986 §2.3: what is not unreserved is escaped).
pub fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_with_a_plus_stays_one_in_a_query() {
        assert_eq!(escaped("+49 30&a=é"), "%2B49%2030%26a%3D%C3%A9");
    }

    #[test]
    fn only_loopback_is_on_this_machine() {
        for (url, is) in [
            ("http://127.0.0.1:8080", true),
            ("http://localhost:8080/", true),
            ("http://[::1]:8080", true),
            ("http://10.0.0.1:8080", false),
            ("http://localhost.example:80", false),
            ("nonsense", false),
            ("", false),
        ] {
            assert_eq!(is_on_this_machine(url), is, "{url}");
        }
    }

    #[test]
    fn a_refusal_is_told_with_its_code_and_the_state_that_was_found() {
        let json = r#"{"type": "urn:stickytape:problem:wrong-state", "title": "The call's state does not allow it",
            "status": 409, "detail": "D2 is not held", "code": "wrong-state", "state": "talking"}"#;
        let text = describe(&serde_json::from_str(json).unwrap());
        assert_eq!(
            text,
            "The call's state does not allow it (wrong-state): D2 is not held\nThe call was found: talking"
        );
    }
}
