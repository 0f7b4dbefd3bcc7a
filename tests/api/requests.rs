//! `POST /v1/calls/{ConnID}/{request}`: bodies, answers, refusals, repeated requests.

use std::time::Duration;

use serde_json::json;
use stickytape::api::problem::Kind;
use stickytape::api::requests::TAKES;
use stickytape::bridge::command::Digit;
use stickytape::call::request::{
    Accepted, Ask, Code, Denied, DnAsk, DnRequest, MonitorMode, MonitorNextCall, MonitorScope,
};
use stickytape::id::{ConnId, RecordingId};
use uuid::Uuid;

use super::backend::CALL;
use super::{Fake, Server};

const HOLD: &str = "/v1/calls/00000000000000AB/hold-call";

fn with_answers(answers: impl IntoIterator<Item = Result<Accepted, Denied>>) -> Server {
    let fake = Fake::default();
    fake.answers.lock().unwrap().extend(answers);
    Server::start(fake, None)
}

fn denied(code: Code) -> Result<Accepted, Denied> {
    Err(Denied { code, detail: "why".into(), state: "talking".into() })
}

#[test]
fn a_request_reaches_the_calls_as_it_was_asked() {
    let server = Server::start(Fake::default(), None);
    let body = r#"{"ThisDN": "2001", "OtherDN": "2002", "ReferenceID": "r-1"}"#;
    let answer = server.post("/v1/calls/00000000000000ab/single-step-transfer", body);
    assert_eq!(answer.status, 202);
    assert_eq!(answer.json(), json!({"ReferenceID": "r-1", "ConnID": "00000000000000AB"}));
    let asked = server.backend.requests.lock().unwrap().pop().unwrap();
    assert_eq!((asked.conn_id, asked.this_dn.as_str(), asked.reference.as_deref()), (CALL, "2001", Some("r-1")));
    assert_eq!(asked.ask, Ask::SingleStepTransfer { to: "2002".into() });
}

#[test]
fn a_call_is_made_without_a_conn_id_once_for_each_reference() {
    let server = with_answers([Ok(Accepted::new(ConnId(7))), denied(Code::UnknownTarget)]);
    let body = r#"{"ThisDN": "2001", "OtherDN": "2002", "ReferenceID": "r-1"}"#;
    for _ in 0..2 {
        let answer = server.post("/v1/calls", body);
        assert_eq!(answer.status, 202);
        assert_eq!(answer.json(), json!({"ReferenceID": "r-1", "ConnID": "0000000000000007"}), "the new call's");
    }
    let asked: Vec<_> = std::mem::take(&mut *server.backend.requests.lock().unwrap());
    assert_eq!(asked.len(), 1, "asked once");
    assert_eq!((asked[0].this_dn.as_str(), asked[0].reference.as_deref()), ("2001", Some("r-1")));
    assert_eq!(asked[0].ask, Ask::MakeCall { to: "2002".into() });
    let other = r#"{"ThisDN": "2001", "OtherDN": "2003", "ReferenceID": "r-1"}"#;
    assert_eq!(server.post("/v1/calls", other).refusal(), (409, "reference-reused".into()));
    assert_eq!(server.post("/v1/calls", &body.replace("r-1", "r-2")).refusal(), (404, "unknown-target".into()));
    for (wrong, named) in [
        (r#"{"ThisDN": "2001"}"#, "OtherDN"),
        (r#"{"OtherDN": "2002"}"#, "ThisDN"),
        (r#"{"ThisDN": "2001", "OtherDN": "2002", "OtherConnID": "AB"}"#, "OtherConnID"),
    ] {
        let answer = server.post("/v1/calls", wrong);
        assert_eq!(answer.refusal(), (400, "bad-request".into()), "{wrong}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(named), "{wrong}");
    }
    let of_a_call = server.post("/v1/calls/00000000000000AB/make-call", body);
    assert_eq!(of_a_call.refusal(), (404, "unknown-request".into()));
}

#[test]
fn digits_are_asked_for_as_typed_and_told_back_to_nobody() {
    let server = with_answers([Ok(Accepted::new(CALL))]);
    let path = "/v1/calls/00000000000000AB/send-dtmf";
    assert_eq!(server.post(path, r#"{"ThisDN": "2001", "Digits": "4*#d"}"#).status, 202);
    let asked = server.backend.requests.lock().unwrap().pop().unwrap();
    let digits = "4*#D".chars().map(|key| Digit::of_key(key).unwrap()).collect();
    assert_eq!(asked.ask, Ask::SendDtmf { digits });
    let refused = server.post(path, r#"{"ThisDN": "2001", "Digits": "4711x"}"#).json().to_string();
    assert!(!refused.contains("4711"), "{refused}");
}

#[test]
fn without_a_reference_the_server_gives_one_and_tells_it() {
    let server = Server::start(Fake::default(), None);
    let references = [0, 1].map(|_| {
        let answer = server.post(HOLD, r#"{"ThisDN": "2001"}"#).json();
        let asked = server.backend.requests.lock().unwrap().pop().unwrap();
        assert_eq!(answer["ReferenceID"], asked.reference.as_deref().unwrap());
        asked.reference.unwrap()
    });
    assert_ne!(references[0], references[1]);
}

#[test]
fn the_answer_tells_of_recordings_where_they_are_asked_for() {
    let (one, two) = (RecordingId(Uuid::from_u128(1)), RecordingId(Uuid::from_u128(2)));
    let started = Accepted { recording: Some(one), ..Accepted::new(CALL) };
    let paused = Accepted { still_recording: vec![two], ..Accepted::new(CALL) };
    let consulted = Accepted::new(ConnId(7));
    let server = with_answers([Ok(started), Ok(paused), Ok(Accepted::new(CALL)), Ok(consulted)]);
    let ask = |request: &str, more: &str| {
        server.post(&format!("/v1/calls/{CALL}/{request}"), &format!(r#"{{"ThisDN": "2001"{more}}}"#)).json()
    };
    let answer = ask("record-start", "");
    assert_eq!((&answer["RecordingID"], answer.get("StillRecording")), (&json!(one), None));
    let answer = ask("record-pause", &format!(r#", "RecordingID": "{one}""#));
    assert_eq!((&answer["StillRecording"], answer.get("RecordingID")), (&json!([two]), None));
    assert_eq!(ask("record-stop", "")["StillRecording"], json!([]));
    assert_eq!(ask("initiate-transfer", r#", "OtherDN": "2002""#)["ConnID"], "0000000000000007", "the new call's");
}

#[test]
fn every_refusal_has_its_status_and_changes_nothing_about_its_code() {
    for kind in Kind::ALL {
        let Kind::Refused(code) = kind else { continue };
        let server = with_answers([denied(code)]);
        let answer = server.post(HOLD, r#"{"ThisDN": "2001"}"#);
        assert_eq!(answer.refusal(), (kind.row().0.as_u16(), code.as_str().into()));
        assert_eq!((&answer.json()["detail"], &answer.json()["state"]), (&json!("why"), &json!("talking")));
        assert_eq!(answer.header("retry-after").is_some(), answer.status == 503, "{code}");
    }
    let statuses = [
        (Code::UnknownCall, 404),
        (Code::UnknownDn, 404),
        (Code::NotAParty, 409),
        (Code::WrongState, 409),
        (Code::OwnerRequired, 409),
        (Code::Busy, 409),
        (Code::Limit, 503),
    ];
    for (code, status) in statuses {
        assert_eq!(Kind::Refused(code).row().0.as_u16(), status, "{code}");
    }
}

#[test]
fn an_unknown_request_is_told_the_known_ones() {
    let server = Server::start(Fake::default(), None);
    let answer = server.post("/v1/calls/00000000000000AB/hang-up", r#"{"ThisDN": "2001"}"#);
    assert_eq!(answer.refusal(), (404, "unknown-request".into()));
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(TAKES.iter().all(|takes| detail.contains(takes.name)), "{detail}");
    assert_eq!(server.get(HOLD).refusal().0, 405);
}

#[test]
fn a_wrong_body_is_refused_with_the_field_and_reaches_nobody() {
    let server = Server::start(Fake::default(), None);
    for (request, body, named) in [
        ("hold-call", "{}", "ThisDN"),
        ("hold-call", r#"{"ThisDN": ""}"#, "ThisDN"),
        ("hold-call", r#"{"ThisDN": 2001}"#, "ThisDN"),
        ("hold-call", r#"{"ThisDN": "2001", "Colour": "red"}"#, "Colour"),
        ("hold-call", r#"{"ThisDN": "2001", "OtherDN": "2002"}"#, "OtherDN"),
        ("mute-transfer", r#"{"ThisDN": "2001"}"#, "OtherDN"),
        ("complete-transfer", r#"{"ThisDN": "2001", "OtherConnID": "xyz"}"#, "OtherConnID"),
        ("record-pause", r#"{"ThisDN": "2001", "RecordingID": "7"}"#, "RecordingID"),
        ("record-start", r#"{"ThisDN": "2001", "Extensions": {"record": "all"}}"#, "Extensions.record"),
        ("record-start", r#"{"ThisDN": "2001", "Extensions": []}"#, "Extensions"),
        ("send-dtmf", r#"{"ThisDN": "2001"}"#, "Digits"),
        ("send-dtmf", r#"{"ThisDN": "2001", "Digits": ""}"#, "Digits"),
        ("send-dtmf", r#"{"ThisDN": "2001", "Digits": "12x"}"#, "Digits"),
        ("send-dtmf", r#"{"ThisDN": "2001", "Digits": "123456789012345678901234567890123"}"#, "Digits"),
        ("answer-call", r#"{"ThisDN": "2001", "Digits": "1"}"#, "Digits"),
        ("hold-call", r#"{"ThisDN": "2001""#, "JSON"),
        ("hold-call", "[]", "RequestBody"),
    ] {
        let answer = server.post(&format!("/v1/calls/{CALL}/{request}"), body);
        assert_eq!(answer.refusal(), (400, "bad-request".into()), "{body}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(named), "{body}: {detail}");
    }
    assert_eq!(server.post("/v1/calls/xyz/hold-call", r#"{"ThisDN": "2001"}"#).refusal().0, 400);
    let text = server.ask("POST", HOLD, &[("content-type", "text/plain")], br#"{"ThisDN": "2001"}"#);
    assert_eq!(text.refusal(), (415, "not-json".into()));
    let long = format!(r#"{{"ThisDN": "{}"}}"#, "2".repeat(64 * 1024));
    assert_eq!(server.post(HOLD, &long).refusal(), (413, "too-large".into()));
    assert!(server.backend.requests.lock().unwrap().is_empty());
}

#[test]
fn a_repeated_request_is_asked_once_and_answered_alike() {
    let server = with_answers([Ok(Accepted::new(CALL)), denied(Code::WrongState)]);
    let body = r#"{"ThisDN": "2001", "ReferenceID": "r"}"#;
    let first = server.post(HOLD, body);
    // The order of fields and white space make no other request.
    let again = server.post(HOLD, r#"{ "ReferenceID":"r","ThisDN":"2001" }"#);
    assert_eq!((first.status, again.status), (202, 202));
    assert_eq!(first.body, again.body);
    let refused = server.post(HOLD, r#"{"ThisDN": "2001", "ReferenceID": "s"}"#);
    let refused_again = server.post(HOLD, r#"{"ThisDN": "2001", "ReferenceID": "s"}"#);
    assert_eq!((refused.refusal(), refused.json()), (refused_again.refusal(), refused_again.json()));
    assert_eq!(refused.status, 409);
    assert_eq!(server.backend.requests.lock().unwrap().len(), 2);
    server.post(HOLD, r#"{"ThisDN": "2002", "ReferenceID": "r"}"#);
    assert_eq!(server.backend.requests.lock().unwrap().len(), 3, "another DN's reference is another one");
}

#[test]
fn a_reference_cannot_stand_for_two_requests() {
    let server = Server::start(Fake::default(), None);
    let body = r#"{"ThisDN": "2001", "ReferenceID": "r"}"#;
    assert_eq!(server.post(HOLD, body).status, 202);
    for path in ["/v1/calls/00000000000000AB/release-call", "/v1/calls/00000000000000AC/hold-call"] {
        assert_eq!(server.post(path, body).refusal(), (409, "reference-reused".into()), "{path}");
    }
    assert_eq!(server.backend.requests.lock().unwrap().len(), 1);
}

#[test]
fn what_a_limit_refused_may_be_asked_again_under_its_reference() {
    let server = with_answers([denied(Code::Limit), Ok(Accepted::new(CALL))]);
    let body = r#"{"ThisDN": "2001", "ReferenceID": "r"}"#;
    assert_eq!(server.post(HOLD, body).status, 503);
    assert_eq!(server.post(HOLD, body).status, 202);
}

#[test]
fn a_client_that_goes_away_finds_its_answer_when_it_repeats_the_request() {
    let server = Server::start(Fake::default(), None);
    *server.backend.takes.lock().unwrap() = Duration::from_millis(400);
    let body = r#"{"ThisDN": "2001", "ReferenceID": "r"}"#;
    let impatient = ureq::Agent::config_builder().timeout_global(Some(Duration::from_millis(150))).build();
    let gone = ureq::Agent::new_with_config(impatient)
        .post(server.url(HOLD))
        .header("content-type", "application/json")
        .send(body);
    assert!(gone.is_err(), "it has gone before the answer");
    // Once while the first is under way, once when it is decided.
    for _ in 0..2 {
        assert_eq!(server.post(HOLD, body).json()["ReferenceID"], "r");
    }
    assert_eq!(server.backend.requests.lock().unwrap().len(), 1);
}

#[test]
fn a_request_to_a_server_that_stops_is_unavailable_and_not_kept() {
    let server = Server::start(Fake { broken: true, ..Fake::default() }, None);
    let body = r#"{"ThisDN": "2001", "ReferenceID": "r"}"#;
    for asked in 1..=2 {
        assert_eq!(server.post(HOLD, body).refusal(), (503, "unavailable".into()));
        assert_eq!(server.backend.requests.lock().unwrap().len(), asked);
    }
}

#[test]
fn a_supervisor_asks_by_its_own_paths() {
    let server = Server::start(Fake::default(), None);
    let body = r#"{"OtherDN": "2001", "ReferenceID": "m", "Extensions": {"MonitorMode": "coach", "MonitorScope": "agent",
        "MonitorNextCallType": "all", "Intrusion": true}}"#;
    let answer = server.post("/v1/dns/2100/monitor-next-call", body);
    assert_eq!((answer.status, answer.json()), (202, json!({"ReferenceID": "m"})));
    let asked = server.backend.dn_requests.lock().unwrap().pop().unwrap();
    let monitor = MonitorNextCall {
        agent: "2001".into(),
        mode: Some(MonitorMode::Coach),
        scope: Some(MonitorScope::Agent),
        all: true,
        intrusion: true,
    };
    let reference = Some("m".into());
    assert_eq!(asked, DnRequest { this_dn: "2100".into(), reference, ask: DnAsk::MonitorNextCall(monitor) });

    let answer = server.post("/v1/dns/2100/cancel-monitoring", r#"{"OtherDN": "2001"}"#);
    assert_eq!(answer.status, 202);
    let asked = server.backend.dn_requests.lock().unwrap().pop().unwrap();
    assert_eq!(asked.ask, DnAsk::CancelMonitoring { agent: "2001".into() });

    for (path, body) in [
        ("monitor-next-call", r#"{}"#),
        ("monitor-next-call", r#"{"OtherDN": " "}"#),
        ("monitor-next-call", r#"{"OtherDN": "2001", "Extensions": {"MonitorMode": "loud"}}"#),
        ("monitor-next-call", r#"{"OtherDN": "2001", "ThisDN": "2100"}"#),
        ("cancel-monitoring", r#"{"OtherDN": "2001", "Extensions": {}}"#),
    ] {
        let answer = server.post(&format!("/v1/dns/2100/{path}"), body);
        assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some("bad-request")), "{body}");
    }
    assert!(server.backend.dn_requests.lock().unwrap().is_empty());
}
