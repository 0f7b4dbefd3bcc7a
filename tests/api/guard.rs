//! Who is answered, how often, and what every answer carries.

use std::io::{Read, Write};

use serde_json::{Value, json};
use stickytape::api::requests::TAKES;

use super::{Fake, Server};

const PATHS: [&str; 8] = [
    "/metrics",
    "/openapi.json",
    "/v1/calls",
    "/v1/calls/00000000000000AB",
    "/v1/recordings",
    "/v1/recordings/00000000-0000-0000-0000-000000000000/media/mixed.wav",
    "/v1/events",
    "/v1/events/ws",
];

#[test]
fn a_token_is_asked_for_everywhere_but_at_the_probes() {
    let server = Server::start(Fake::default(), Some("correct-horse"));
    for path in PATHS {
        assert_eq!(server.get(path).refusal(), (401, "unauthorized".into()), "{path}");
        for wrong in ["Bearer correct-hors", "Bearer correct-horsey", "Basic correct-horse", "correct-horse", "Bearer"]
        {
            let answer = server.ask("GET", path, &[("authorization", wrong)], &[]);
            assert_eq!(answer.status, 401, "{path} {wrong}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        }
    }
    for path in ["/metrics", "/openapi.json", "/v1/calls", "/v1/recordings"] {
        assert_eq!(server.ask("GET", path, &[("authorization", "bearer correct-horse")], &[]).status, 200, "{path}");
    }
    let path = "/v1/calls/00000000000000AB/hold-call";
    assert_eq!(server.post(path, r#"{"ThisDN": "2001"}"#).status, 401);
    let delete = server.ask("DELETE", "/v1/recordings/00000000-0000-0000-0000-000000000000", &[], &[]);
    assert_eq!(delete.status, 401);
    assert!(server.backend.requests.lock().unwrap().is_empty());
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(server.get("/readyz").status, 200);
}

#[test]
fn without_a_token_a_name_that_is_not_ours_is_refused() {
    let server = Server::start(Fake::default(), None);
    for (host, status) in
        [("evil.example", 403), ("127.0.0.1.evil.example", 403), ("localhost:8080", 200), ("[::1]:8080", 200)]
    {
        assert_eq!(server.ask("GET", "/v1/calls", &[("host", host)], &[]).status, status, "{host}");
    }
    for path in PATHS {
        assert_eq!(server.ask("GET", path, &[("host", "evil.example")], &[]).refusal().0, 403, "{path}");
    }
}

#[test]
fn a_page_of_another_origin_is_refused_even_with_the_token() {
    for token in [None, Some("correct-horse")] {
        let server = Server::start(Fake::default(), token);
        let ours = format!("http://{}", server.address);
        for (origin, status) in [
            ("http://evil.example", 403),
            ("null", 403),
            ("http://127.0.0.1", 403),
            (&*format!("http://{}.evil.example", server.address), 403),
            (&*ours, 200),
        ] {
            let headers = [("origin", origin), ("authorization", "Bearer correct-horse")];
            let answer = server.ask("GET", "/v1/calls", &headers, &[]);
            assert_eq!(answer.status, status, "{origin}");
            assert!(answer.headers.iter().all(|(name, _)| !name.starts_with("access-control-")), "CORS is off");
            let events = server.ask("GET", "/v1/events/ws", &headers, &[]);
            assert_eq!(events.status == 403, status == 403, "{origin}");
        }
    }
}

#[test]
fn every_answer_has_a_request_id_and_stays_out_of_caches() {
    let server = Server::start(Fake::default(), None);
    let ids = [0, 1].map(|_| server.get("/v1/calls").header("x-request-id").unwrap().to_owned());
    assert!(ids[0] != ids[1] && ids[0].len() == 16, "{ids:?}");
    for (given, kept) in [("abc-1_2.3", true), ("a b", false), ("a\u{e9}", false), (&*"x".repeat(65), false)] {
        let Ok(value) = ureq::http::HeaderValue::from_str(given) else { continue };
        let answer = server.ask("GET", "/v1/nothing", &[("x-request-id", value.to_str().unwrap_or("a b"))], &[]);
        assert_eq!(answer.header("x-request-id") == Some(given), kept, "{given}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
}

#[test]
fn a_client_that_asks_too_often_is_told_when_to_come_back() {
    let server = Server::start(Fake::default(), Some("correct-horse"));
    // All at once over one connection: the rate is counted before the token is looked at.
    let mut stream = std::net::TcpStream::connect(server.address).unwrap();
    let asked = format!("GET /v1/calls HTTP/1.1\r\nHost: {}\r\n\r\n", server.address).repeat(2_000);
    let mut writing = stream.try_clone().unwrap();
    let writer = std::thread::spawn(move || writing.write_all(asked.as_bytes()).unwrap());
    let (mut answers, mut chunk) = (String::new(), [0; 65_536]);
    while answers.matches("HTTP/1.1 ").count() < 2_000 {
        let read = stream.read(&mut chunk).unwrap();
        answers.push_str(std::str::from_utf8(&chunk[..read]).unwrap());
    }
    writer.join().unwrap();
    let statuses: Vec<_> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert!(statuses[..200].iter().all(|status| *status == "401"), "the burst is answered");
    assert!(statuses.contains(&"429"), "2,000 requests were answered");
    // A request every 10 ms would be answered again.
    let refused = (0..1_000).map(|_| server.get("/v1/calls")).find(|answer| answer.status == 429).unwrap();
    assert_eq!(refused.refusal(), (429, "too-many-requests".into()));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(server.get("/healthz").status, 200, "probes are not counted");
}

#[test]
fn the_document_describes_every_path_with_its_refusals() {
    let server = Server::start(Fake::default(), None);
    let document = server.get("/openapi.json").json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    let mut found: Vec<String> = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            found.push(format!("{method} {path}"));
            assert!(operation["summary"].is_string(), "{method} {path} is described");
            let responses = operation["responses"].as_object().unwrap();
            let guarded = !["/healthz", "/readyz"].contains(&path.as_str());
            assert_eq!(responses.contains_key("401") && responses.contains_key("429"), guarded, "{method} {path}");
            for (status, response) in responses {
                let refusal = status.starts_with(['4', '5']) && path != "/readyz";
                let problem = response["content"].get("application/problem+json").is_some();
                assert_eq!(refusal, problem, "{method} {path} {status}");
            }
        }
    }
    found.sort();
    let wanted = [
        "delete /v1/recordings/{id}",
        "get /healthz",
        "get /metrics",
        "get /readyz",
        "get /v1/agents/{agent}/ws",
        "get /v1/calls",
        "get /v1/calls/{ConnID}",
        "get /v1/events",
        "get /v1/events/ws",
        "get /v1/recordings",
        "get /v1/recordings/{id}",
        "get /v1/recordings/{id}/media/{file}",
        "get /v1/reporting/events",
        "post /v1/calls",
        "post /v1/dns/{dn}/cancel-monitoring",
        "post /v1/dns/{dn}/monitor-next-call",
    ];
    let requests = TAKES.iter().map(|takes| format!("post /v1/calls/{{ConnID}}/{}", takes.name));
    let mut wanted: Vec<String> = wanted.map(str::to_owned).into_iter().chain(requests).collect();
    wanted.sort();
    assert_eq!(found, wanted);
    references_resolve(&document, &document);
    let fields = |request: &str| {
        let operation = &document["paths"][format!("/v1/calls/{{ConnID}}/{request}")]["post"];
        let body = &operation["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(body["additionalProperties"], false, "unknown fields are refused");
        let names: Vec<_> = body["properties"].as_object().unwrap().keys().cloned().collect();
        (names.join(" "), body["required"].clone())
    };
    assert_eq!(fields("hold-call"), ("ReferenceID ThisDN".into(), json!(["ThisDN"])));
    assert_eq!(fields("redirect-call"), ("OtherDN ReferenceID ThisDN".into(), json!(["ThisDN", "OtherDN"])));
    assert_eq!(fields("record-start"), ("Extensions OtherDN ReferenceID ThisDN".into(), json!(["ThisDN"])));
    let property = |request: &str, name: &str| {
        let operation = &document["paths"][format!("/v1/calls/{{ConnID}}/{request}")]["post"];
        operation["requestBody"]["content"]["application/json"]["schema"]["properties"][name].clone()
    };
    for (request, own) in [("record-start", "record"), ("set-mute-on", "MonitorMode")] {
        let extensions = property(request, "Extensions");
        let names: Vec<_> = extensions["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!((names, &extensions["additionalProperties"]), (vec![own], &json!(false)), "{request}");
    }
    assert!(property("merge-calls", "OtherConnID").to_string().contains("ConnId"));
    assert!(!property("merge-calls", "OtherConnID").to_string().contains("null"), "it is needed");
    assert_eq!(fields("record-stop"), ("RecordingID ReferenceID ThisDN".into(), json!(["ThisDN"])));
    assert!(document["components"]["schemas"]["Recording"]["properties"]["mediaFiles"].is_object());
}

/// Every `$ref` leads somewhere.
fn references_resolve(document: &Value, value: &Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                let pointer = reference.strip_prefix('#').expect("a reference within the document");
                assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
            }
            fields.values().for_each(|value| references_resolve(document, value));
        }
        Value::Array(items) => items.iter().for_each(|value| references_resolve(document, value)),
        _ => {}
    }
}

#[test]
fn the_listener_stops_although_a_client_stays_connected() {
    let mut server = Server::start(Fake::default(), None);
    let _client = std::net::TcpStream::connect(server.address).unwrap();
    server.stop();
    let waiting = std::thread::spawn(move || server.wait());
    for _ in 0..500 {
        if waiting.is_finished() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("it does not stop");
}
