//! Registrations that the rest of the process refuses.

use std::net::TcpStream;

use serde_json::Value;
use stickytape::views::interaction::NotRegistered;
use tungstenite::HandshakeError;

use super::{Fake, Server};

/// Status and problem of a refused registration.
fn refusal(server: &Server, path: &str) -> (u16, Value) {
    let stream = TcpStream::connect(server.address).unwrap();
    let url = format!("ws://{}{path}", server.address);
    match tungstenite::client(url, stream) {
        Err(HandshakeError::Failure(tungstenite::Error::Http(refused))) => {
            let body = refused.body().as_deref().unwrap_or_default();
            (refused.status().as_u16(), serde_json::from_slice(body).unwrap())
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was registered"),
    }
}

#[test]
fn a_refused_registration_is_a_problem_with_its_code() {
    for (refuses, status, code) in [
        (NotRegistered::UnknownDn, 404, "unknown-dn"),
        (NotRegistered::DnInUse, 409, "dn-in-use"),
        (NotRegistered::Limit, 503, "limit"),
    ] {
        let server = Server::start(Fake { refuses: Some(refuses), ..Fake::default() }, None);
        let (found, problem) = refusal(&server, "/v1/agents/anna/ws?dn=2001");
        assert_eq!((found, &problem["code"]), (status, &code.into()), "{problem}");
        assert_eq!(*server.backend.registering.lock().unwrap(), ["anna 2001"]);
    }
}

#[test]
fn a_wrong_registration_reaches_nobody() {
    let server = Server::start(Fake::default(), None);
    for path in ["/v1/agents/anna/ws", "/v1/agents/an%20na/ws?dn=2001", "/v1/agents/anna/ws?dn=2001&after=1"] {
        let (status, problem) = refusal(&server, path);
        assert_eq!((status, &problem["code"]), (400, &"bad-request".into()), "{path}");
    }
    assert_eq!(server.get("/v1/agents/anna/ws?dn=2001").refusal(), (400, "bad-request".into()), "no WebSocket");
    assert!(server.backend.registering.lock().unwrap().is_empty());
}

#[test]
fn reporting_is_replayed_as_events_are() {
    let server = Server::start(Fake::default(), None);
    assert_eq!(server.get("/v1/reporting/events?after=x").refusal(), (400, "bad-request".into()));
    assert_eq!(server.get("/v1/reporting/events?dn=2001").refusal(), (400, "bad-request".into()));
}
