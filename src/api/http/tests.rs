//! The listener as a client sees it, over a real socket.

use std::pin::Pin;
use std::sync::Mutex;

use super::*;
use crate::api::{Readiness, RecordingPage, Unavailable};
use crate::call::view::CallView;
use crate::id::CallUuid;
use crate::record::metadata::Recording;

#[derive(Default)]
struct Fake {
    readiness: Mutex<Readiness>,
    broken: bool,
    asked: Mutex<Vec<RecordingQuery>>,
}

const CALL: ConnId = ConnId(0xab);

impl Backend for Fake {
    fn calls(&self) -> Pin<Box<dyn Future<Output = Option<Vec<CallView>>> + Send + '_>> {
        let call = CallView {
            conn_id: CALL,
            call_uuid: CallUuid(uuid::Uuid::nil()),
            state: "talking",
            started: "2026-11-20T09:00:00Z".parse().unwrap(),
            answered: None,
            caller_phone_number: "+4930123".into(),
            dialed_phone_number: "2001".into(),
            parties: Vec::new(),
            recordings: Vec::new(),
        };
        let answer = (!self.broken).then(|| vec![call]);
        Box::pin(async move { answer })
    }

    fn recordings(&self, query: &RecordingQuery) -> Result<RecordingPage, Unavailable> {
        self.asked.lock().unwrap().push(query.clone());
        if self.broken {
            return Err(Unavailable("/srv/secret/place: permission denied".into()));
        }
        Ok(RecordingPage { recordings: Vec::new(), next: Some("c2".into()) })
    }

    fn recording(&self, _: RecordingId) -> Result<Option<Recording>, Unavailable> {
        Ok(None)
    }

    fn readiness(&self) -> Readiness {
        *self.readiness.lock().unwrap()
    }

    fn metrics(&self) -> String {
        "# EOF\n".into()
    }
}

/// A listener on a free port, stopped when this is dropped.
struct Server {
    address: SocketAddr,
    backend: Arc<Fake>,
    _runtime: tokio::runtime::Runtime,
}

struct Answer {
    status: u16,
    content_type: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Server {
    fn start(backend: Fake, token: Option<&'static str>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let backend = Arc::new(backend);
        let served = Arc::clone(&backend);
        runtime.spawn(async move { serve(listener, served, token, std::future::pending()).await });
        Self { address, backend, _runtime: runtime }
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        let agent = ureq::Agent::new_with_config(config);
        let mut request = ureq::http::Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = agent.run(request.body(()).unwrap()).unwrap();
        Answer {
            status: response.status().as_u16(),
            content_type: response.headers()["content-type"].to_str().unwrap().to_owned(),
            body: response.body_mut().read_to_string().unwrap(),
        }
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[])
    }
}

#[test]
fn alive_and_ready_are_told_apart() {
    let server = Server::start(Fake::default(), None);
    assert_eq!(server.get("/healthz").status, 200);
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
    assert_eq!((answer.status, answer.body.as_str()), (200, "# EOF\n"));
    assert!(answer.content_type.starts_with("application/openmetrics-text"), "{}", answer.content_type);
}

#[test]
fn calls_are_listed_and_found_by_conn_id() {
    let server = Server::start(Fake::default(), None);
    let list = server.get("/v1/calls").json();
    assert_eq!(list["calls"][0]["connId"], "00000000000000AB");
    assert_eq!(list["calls"][0]["dialedPhoneNumber"], "2001");
    assert_eq!(server.get("/v1/calls/00000000000000ab").json()["state"], "talking");
    assert_eq!(server.get("/v1/calls/00000000000000AC").status, 404);
    assert_eq!(server.get("/v1/calls/xyz").json()["code"], "bad-request");
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
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("bad-request")), "{wrong}");
        assert_eq!(answer.content_type, "application/problem+json");
    }
    assert!(server.backend.asked.lock().unwrap().is_empty(), "a wrong query reaches nobody");
}

#[test]
fn refusals_are_problems_in_json() {
    let server = Server::start(Fake::default(), None);
    let answer = server.get("/v1/nothing");
    assert_eq!((answer.status, answer.content_type.as_str()), (404, "application/problem+json"));
    let body = answer.json();
    assert_eq!((&body["code"], &body["status"]), (&json!("not-found"), &json!(404)));
    assert!(body["type"].is_string() && body["title"].is_string() && body["detail"].is_string());
    assert_eq!(server.ask("DELETE", "/v1/calls", &[]).json()["code"], "method-not-allowed");
    let id = uuid::Uuid::nil();
    assert_eq!(server.get(&format!("/v1/recordings/{id}")).status, 404);
    assert_eq!(server.get("/v1/recordings/..%2f..%2fetc").status, 400);
}

#[test]
fn a_failure_does_not_tell_paths() {
    let server = Server::start(Fake { broken: true, ..Fake::default() }, None);
    let answer = server.get("/v1/recordings");
    assert_eq!(answer.status, 503);
    assert!(!answer.body.contains("secret"), "{}", answer.body);
    assert_eq!(server.get("/v1/calls").status, 503);
}

#[test]
fn a_token_is_asked_for_everywhere_but_at_the_probes() {
    let server = Server::start(Fake::default(), Some("correct-horse"));
    for path in ["/metrics", "/v1/calls", "/v1/recordings"] {
        assert_eq!(server.get(path).status, 401, "{path}");
        assert_eq!(server.ask("GET", path, &[("authorization", "Bearer correct-hors")]).status, 401, "{path}");
        assert_eq!(server.ask("GET", path, &[("authorization", "Basic correct-horse")]).status, 401, "{path}");
        assert_eq!(server.ask("GET", path, &[("authorization", "bearer correct-horse")]).status, 200, "{path}");
    }
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(server.get("/readyz").status, 200);
}

#[test]
fn without_a_token_a_name_that_is_not_ours_is_refused() {
    let server = Server::start(Fake::default(), None);
    for (host, status) in
        [("evil.example", 403), ("127.0.0.1.evil.example", 403), ("localhost:8080", 200), ("[::1]:8080", 200)]
    {
        assert_eq!(server.ask("GET", "/v1/calls", &[("host", host)]).status, status, "{host}");
    }
}

#[test]
fn the_listener_stops_although_a_client_stays_connected() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = serve(listener, Arc::new(Fake::default()), None, async {
            let _ = stopped.await;
        });
        stop.send(()).unwrap();
        tokio::time::timeout(STOP_TIMEOUT * 2, server).await.expect("it stops");
    });
}
