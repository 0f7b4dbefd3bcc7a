//! What is alive, what runs, what was recorded.

use serde_json::json;
use stickytape::api::{Deletion, Readiness};

use super::{Fake, Server};

#[test]
fn alive_and_ready_are_told_apart() {
    let server = Server::start(Fake::default(), None);
    assert_eq!(server.get("/healthz").json(), json!({"alive": true}));
    assert_eq!(server.get("/readyz").json(), json!({"ready": true, "reasons": []}));
    *server.backend.readiness.lock().unwrap() = Readiness { draining: true, no_space: true };
    let answer = server.get("/readyz");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["reasons"], json!(["draining", "no-space"]));
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn metrics_are_open_metrics_text() {
    let answer = Server::start(Fake::default(), None).get("/metrics");
    assert_eq!((answer.status, answer.text()), (200, "# EOF\n"));
    assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text"));
}

#[test]
fn calls_are_listed_and_found_by_conn_id() {
    let server = Server::start(Fake::default(), None);
    let list = server.get("/v1/calls").json();
    assert_eq!(list["calls"][0]["connId"], "00000000000000AB");
    assert_eq!(list["calls"][0]["dialedPhoneNumber"], "2001");
    assert_eq!(server.get("/v1/calls/00000000000000ab").json()["state"], "talking");
    assert_eq!(server.get("/v1/calls/00000000000000AC").refusal(), (404, "not-found".into()));
    assert_eq!(server.get("/v1/calls/xyz").refusal(), (400, "bad-request".into()));
}

#[test]
fn recordings_are_searched_with_checked_queries() {
    let server = Server::start(Fake::default(), None);
    let answer = server.get("/v1/recordings?caller=%2B4930123&state=complete&from=2026-11-20T09:00:00Z&limit=7");
    assert_eq!((answer.status, answer.json()), (200, json!({"recordings": [], "next": "c2"})));
    let asked = server.backend.asked.lock().unwrap().pop().unwrap();
    assert_eq!((asked.caller.as_deref(), asked.limit), (Some("+4930123"), 7));
    assert!(asked.from.is_some() && asked.state.is_some() && asked.cursor.is_none());
    for wrong in ["limit=0", "limit=501", "limit=x", "state=lost", "from=yesterday", "colour=red"] {
        let answer = server.get(&format!("/v1/recordings?{wrong}"));
        assert_eq!(answer.refusal(), (400, "bad-request".into()), "{wrong}");
    }
    assert!(server.backend.asked.lock().unwrap().is_empty(), "a wrong query reaches nobody");
}

#[test]
fn paths_and_methods_that_do_not_exist_are_told_apart() {
    let server = Server::start(Fake::default(), None);
    assert_eq!(server.get("/v1/nothing").refusal(), (404, "not-found".into()));
    let answer = server.ask("DELETE", "/v1/calls", &[], &[]);
    assert_eq!(answer.refusal(), (405, "method-not-allowed".into()));
    assert_eq!(answer.header("allow"), Some("GET,HEAD,POST"));
    let id = uuid::Uuid::nil();
    assert_eq!(server.get(&format!("/v1/recordings/{id}")).refusal(), (404, "not-found".into()));
    assert_eq!(server.get("/v1/recordings/..%2f..%2fetc").refusal(), (400, "bad-request".into()));
}

#[test]
fn a_recording_is_deleted_unless_it_runs() {
    let server = Server::start(Fake::default(), None);
    let path = format!("/v1/recordings/{}", uuid::Uuid::nil());
    for (deletion, status, code) in
        [(Deletion::Running, 409, "recording-running"), (Deletion::Unknown, 404, "not-found")]
    {
        *server.backend.deletion.lock().unwrap() = Some(deletion);
        assert_eq!(server.ask("DELETE", &path, &[], &[]).refusal(), (status, code.into()));
    }
    *server.backend.deletion.lock().unwrap() = Some(Deletion::Done);
    let answer = server.ask("DELETE", &path, &[], &[]);
    assert_eq!((answer.status, answer.body.len()), (204, 0));
}

#[test]
fn a_failure_does_not_tell_paths() {
    let server = Server::start(Fake { broken: true, ..Fake::default() }, None);
    let id = uuid::Uuid::nil();
    for (method, path) in [("GET", "/v1/recordings"), ("DELETE", &*format!("/v1/recordings/{id}"))] {
        let answer = server.ask(method, path, &[], &[]);
        assert_eq!(answer.refusal(), (503, "unavailable".into()), "{path}");
        assert!(!answer.text().contains("secret"), "{}", answer.text());
        assert!(answer.header("retry-after").is_some());
    }
    assert_eq!(server.get("/v1/calls").status, 503);
}
