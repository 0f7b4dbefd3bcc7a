//! The HTTP API as a client sees it, over real sockets, with a backend of the test's own behind it.

mod agents;
mod backend;
mod command;
mod events;
mod guard;
mod media;
mod paths;
mod requests;

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;
use stickytape::api::http::serve;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub(crate) use backend::Fake;

/// A listener on a free port, stopped when this is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) backend: Arc<Fake>,
    stop: Option<oneshot::Sender<()>>,
    runtime: tokio::runtime::Runtime,
    served: Option<tokio::task::JoinHandle<()>>,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Status and code of a refusal.
    #[track_caller]
    pub(crate) fn refusal(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let body = self.json();
        assert_eq!(body["status"], self.status);
        assert!(body["title"].is_string() && body["detail"].is_string(), "{body}");
        let code = body["code"].as_str().unwrap().to_owned();
        assert_eq!(body["type"], format!("urn:stickytape:problem:{code}"));
        (self.status, code)
    }
}

impl Server {
    pub(crate) fn start(backend: Fake, token: Option<&'static str>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let backend = Arc::new(backend);
        let behind = Arc::clone(&backend);
        let (stop, stopped) = oneshot::channel();
        let serving = async move {
            serve(listener, behind, token, async {
                let _ = stopped.await;
            })
            .await;
        };
        let served = Some(runtime.spawn(serving));
        Self { address, backend, stop: Some(stop), runtime, served }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        let agent = ureq::Agent::new_with_config(config);
        let mut request = ureq::http::Request::builder().method(method).uri(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = match body {
            [] => agent.run(request.body(()).unwrap()).unwrap(),
            body => agent.run(request.body(body).unwrap()).unwrap(),
        };
        let headers = response.headers().iter();
        let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        Answer { status: response.status().as_u16(), headers, body: response.body_mut().read_to_vec().unwrap() }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], &[])
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        self.ask("POST", path, &[("content-type", "application/json")], body.as_bytes())
    }

    /// Asks it to stop, as the server does.
    pub(crate) fn stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    /// Waits until it has stopped.
    pub(crate) fn wait(&mut self) {
        self.runtime.block_on(self.served.take().unwrap()).unwrap();
    }
}
