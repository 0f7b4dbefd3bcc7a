//! The API of the real server while a call is up and after it: events in order, the recording's file from the disk.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::Digest;
use stickytape::app::Server;
use stickytape::config::Config;
use stickytape::testing::driver::{self, Sockets};
use stickytape::testing::phone::{Action, Options, Phone, Signal, Step};
use stickytape::testing::tones::Voice;

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What was answered.
struct Answer {
    status: u16,
    tag: Option<String>,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn refusal(&self) -> (u16, String) {
        (self.status, self.json()["code"].as_str().unwrap().to_owned())
    }
}

/// The API of a server.
#[derive(Clone, Copy)]
struct Api(SocketAddr);

impl Api {
    fn ask(self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        let mut request = ureq::http::Request::builder().method(method).uri(format!("http://{}{path}", self.0));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let agent = ureq::Agent::new_with_config(config);
        tokio::task::block_in_place(|| {
            let mut response = agent.run(request.body(body).unwrap()).unwrap();
            Answer {
                status: response.status().as_u16(),
                tag: response.headers().get("etag").map(|tag| tag.to_str().unwrap().to_owned()),
                body: response.body_mut().read_to_vec().unwrap(),
            }
        })
    }

    fn get(self, path: &str) -> Answer {
        self.ask("GET", path, &[], "")
    }

    async fn wait_for<T>(self, what: &str, path: &str, found: impl Fn(Value) -> Option<T>) -> T {
        for _ in 0..500 {
            if let Some(found) = found(self.get(path).json()) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never: {what}");
    }

    /// Reads events on a thread of its own until `last` came, or the server ended the stream.
    fn follow(self, query: &str, last: &'static str) -> std::thread::JoinHandle<Vec<Value>> {
        let url = format!("http://{}/v1/events?{query}", self.0);
        let body = tokio::task::block_in_place(|| ureq::get(url).call()).unwrap().into_body();
        std::thread::spawn(move || {
            let mut events = Vec::new();
            for line in BufReader::new(body.into_reader()).lines() {
                let Ok(line) = line else { break };
                let Some(data) = line.strip_prefix("data: ") else { continue };
                let event: Value = serde_json::from_str(data).unwrap();
                let done = event["event"] == last;
                events.push(event);
                if done {
                    break;
                }
            }
            events
        })
    }
}

fn phone(number: &str, hz: f64, sockets: &Sockets, proxy: SocketAddr, script: Vec<Step>) -> Phone {
    let voice = Voice::Bursts { hz, dbfs: -15.0, on: Duration::from_millis(200), off: Duration::from_millis(300) };
    let options = Options::new(number, sockets.sip_address().unwrap(), sockets.rtp_address().unwrap(), proxy);
    Phone::new(Options { voice, script, ..options })
}

async fn start(folder: &std::path::Path, ann: &Sockets, bob: &Sockets) -> Server {
    let text = format!(
        "[sip]\nlisten = [\"udp:127.0.0.1:0\"]\nmax-calls = 4\n[media]\nworkers = 1\npriority = \"normal\"\n\
         [recording]\nmin-free-space = \"16MiB\"\nbuffer = \"16MiB\"\n[api]\nlisten = \"127.0.0.1:0\"\n\
         [[trunk]]\nname = \"carrier\"\naddress = \"sip:{}\"\nfrom = [\"127.0.0.1\"]\n\
         [[dn]]\nnumber = \"2001\"\ncontact = \"sip:2001@{}\"\n",
        ann.sip_address().unwrap(),
        bob.sip_address().unwrap()
    );
    let mut config = Config::parse(&text).unwrap_or_else(|problems| panic!("{problems:?}"));
    config.storage.directory = folder.to_owned();
    config.claim_capacity().unwrap();
    Server::start(config).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_seen_followed_and_its_recording_heard_over_http() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (Sockets::bind(HOST).await.unwrap(), Sockets::bind(HOST).await.unwrap());
    let server = start(folder.path(), &a, &b).await;
    let (api, proxy) = (Api(server.http().unwrap()), server.listeners()[0].address);
    let live = api.follow("dn=2001", "EventReleased");

    let mut ann = vec![Step::after(Duration::ZERO, Action::call("2001"))];
    ann.push(Step::on(Signal::Established, Duration::from_secs(4), Action::HangUp));
    let bob = driver::start(phone("2001", 1_000.0, &b, proxy, vec![]), b);
    let ann = driver::start(phone("+4930123456", 400.0, &a, proxy, ann), a);

    let conn_id = api
        .wait_for("the call is up", "/v1/calls", |list| {
            let call = &list["calls"][0];
            (call["state"] == "talking").then(|| call["connId"].as_str().unwrap().to_owned())
        })
        .await;
    let id = while_it_runs(api, &conn_id).await;

    let both = async { (ann.join().await, bob.join().await) };
    tokio::time::timeout(Duration::from_secs(30), both).await.expect("the call ends");
    let seen = tokio::task::block_in_place(|| live.join().unwrap());
    let wanted = ["EventRinging", "EventEstablished", "EventError", "EventHeld", "EventRetrieved", "EventReleased"];
    assert_eq!(names(&seen), wanted, "a repeated request happens once");
    let held = seen.iter().find(|event| event["event"] == "EventHeld").unwrap();
    assert_eq!(held["ReferenceID"], "hold-call");
    let error = seen.iter().find(|event| event["event"] == "EventError").unwrap();
    assert_eq!((&error["ReferenceID"], &error["Code"]), (&json!("nowhere"), &json!("unknown-call")));
    let of_the_call = |event: &&Value| event["ConnID"] == conn_id.as_str();
    assert_eq!(seen.iter().filter(of_the_call).count(), seen.len() - 1, "all but the error");
    assert!(seen.iter().all(|event| event["ThisDN"] == "2001"));
    replayed(api, &seen);
    published(api, &id).await;

    // The last events of a server that stops still reach its subscribers, and their streams end.
    let rest = api.follow("after=0", "nothing of that name");
    server.drain();
    server.stop().await;
    let all = tokio::task::block_in_place(|| rest.join().unwrap());
    assert!(all.windows(2).all(|pair| pair[0]["seq"].as_u64() < pair[1]["seq"].as_u64()) && all.len() >= seen.len());
}

fn names(events: &[Value]) -> Vec<&str> {
    let names = events.iter().map(|event| event["event"].as_str().unwrap());
    // Of recordings other tests tell.
    names.filter(|name| *name != "EventPrivateInfo").collect()
}

/// Whoever reconnects after any event gets what followed it.
fn replayed(api: Api, seen: &[Value]) {
    for (at, event) in seen.iter().enumerate().take(seen.len() - 1) {
        let again = api.follow(&format!("dn=2001&after={}", event["seq"]), "EventReleased");
        let again = tokio::task::block_in_place(|| again.join().unwrap());
        assert_eq!(again, seen[at + 1..]);
    }
}

/// The recording's id.
async fn while_it_runs(api: Api, conn_id: &str) -> String {
    let call = api.get(&format!("/v1/calls/{conn_id}")).json();
    assert_eq!((&call["callerPhoneNumber"], &call["dialedPhoneNumber"]), (&json!("+4930123456"), &json!("2001")));
    for (body, status, code) in [
        (r#"{"ThisDN": ""}"#, 400, "bad-request"),
        (r#"{"ThisDN": "2099"}"#, 404, "unknown-dn"),
        (r#"{"ThisDN": "2001", "ReferenceID": "nowhere"}"#, 404, "unknown-call"),
    ] {
        let json = [("content-type", "application/json")];
        let refused = api.ask("POST", "/v1/calls/0000000000000001/hold-call", &json, body);
        assert_eq!(refused.refusal(), (status, code.into()), "the first thing that is wrong is told");
    }

    for (request, state) in [("hold-call", "held"), ("retrieve-call", "talking")] {
        let path = format!("/v1/calls/{conn_id}/{request}");
        let body = format!(r#"{{"ThisDN": "2001", "ReferenceID": "{request}"}}"#);
        for _ in 0..2 {
            let answer = api.ask("POST", &path, &[("content-type", "application/json")], &body);
            assert_eq!((answer.status, &answer.json()["ConnID"]), (202, &json!(conn_id)), "{request}");
        }
        let path = format!("/v1/calls/{conn_id}");
        api.wait_for(request, &path, |call| (call["state"] == state).then_some(())).await;
    }

    let id = api
        .wait_for("the recording is listed", "/v1/recordings?state=recording", |list| {
            list["recordings"][0]["id"].as_str().map(str::to_owned)
        })
        .await;
    let media = format!("/v1/recordings/{id}/media/mixed.wav");
    let head = api.ask("GET", &media, &[("range", "bytes=0-11")], "");
    assert_eq!((head.status, &head.body[..4], &head.body[8..12]), (206, &b"RIFF"[..], &b"WAVE"[..]));
    assert_eq!(head.tag, None);
    let before = api.get(&media).body.len();
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert!(api.get(&media).body.len() > before, "it grows while it is read");
    let delete = api.ask("DELETE", &format!("/v1/recordings/{id}"), &[], "");
    assert_eq!(delete.refusal(), (409, "recording-running".into()));
    id
}

async fn published(api: Api, id: &str) {
    let path = format!("/v1/recordings/{id}");
    let hash = api
        .wait_for("the recording is published", &path, |recording| {
            assert_eq!(recording["id"], id);
            recording["mediaFiles"][0]["sha256"].as_str().map(str::to_owned)
        })
        .await;
    let whole = api.get(&format!("{path}/media/mixed.wav"));
    let read: String = sha2::Sha256::digest(&whole.body).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((whole.status, whole.tag, &read), (200, Some(format!("\"{hash}\"")), &hash));
    for hidden in ["recording.json", "..%2F..%2F..%2Fetc%2Fpasswd", ".recording.json.safe", "mixed.wav%00"] {
        assert_eq!(api.get(&format!("{path}/media/{hidden}")).refusal().0, 404, "{hidden}");
    }
    // Its hash stands in the metadata before its folder is moved.
    for _ in 0..200 {
        let delete = api.ask("DELETE", &path, &[], "");
        if delete.status == 204 {
            assert_eq!(api.get(&path).refusal(), (404, "not-found".into()));
            return;
        }
        assert_eq!(delete.refusal(), (409, "recording-running".into()));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it is never published");
}
