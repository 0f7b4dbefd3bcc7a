//! Events of the real server: a call between two phones on real sockets is told to who listens and to the event log,
//! alike and whole.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use stickytape::app::{Server, StartError};
use stickytape::call::options::{Listener, MediaOptions, Options, Plan, RecordingOptions, SipOptions, Transport};
use stickytape::call::request::{Ask, Code, Request};
use stickytape::call::{Calls, Input, Reach, Seats};
use stickytape::config::Config;
use stickytape::id::{ConnId, WorkerId};
use stickytape::runtime::events::Item;
use stickytape::runtime::media::{self, Priority, Worker};
use stickytape::runtime::signaling::{self, Edges, Told};
use stickytape::testing::driver::{self, Sockets};
use stickytape::testing::phone::{self, Action, Phone, Step};
use tokio::sync::oneshot;
use tokio::time::timeout;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn config(folder: &Path, more: &str) -> Config {
    let text = format!(
        "[sip]\nlisten = [\"udp:127.0.0.1:0\"]\nmax-calls = 4\n[media]\nworkers = 1\npriority = \"normal\"\n\
         [recording]\nmin-free-space = \"16MiB\"\nbuffer = \"16MiB\"\n[api]\nlisten = \"off\"\n{more}"
    );
    let mut config = Config::parse(&text).unwrap_or_else(|problems| panic!("{problems:?}"));
    config.storage.directory = folder.join("recordings");
    config.events.file.get_or_insert_with(|| folder.join("events.ndjson"));
    config.claim_capacity().unwrap();
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_told_to_subscribers_and_to_the_event_log_alike() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (Sockets::bind(LOOPBACK).await.unwrap(), Sockets::bind(LOOPBACK).await.unwrap());
    let (sip_a, sip_b) = (a.sip_address().unwrap(), b.sip_address().unwrap());
    let plan = format!(
        "[[trunk]]\nname = \"carrier\"\naddress = \"sip:{sip_a}\"\nfrom = [\"127.0.0.1\"]\n\
         [[dn]]\nnumber = \"2001\"\ncontact = \"sip:2001@{sip_b}\"\nrecord = true\n"
    );
    let server = Server::start(config(folder.path(), &plan)).await.unwrap();
    let proxy = server.listeners()[0].address;
    let (mut all, mut other) =
        (server.events().subscribe(None, None), server.events().subscribe(Some("2002".into()), None));

    let options = |number: &str, script, sockets: &Sockets| phone::Options {
        script,
        ..phone::Options::new(number, sockets.sip_address().unwrap(), sockets.rtp_address().unwrap(), proxy)
    };
    let ms = Duration::from_millis;
    let ann = options(
        "+4930123456",
        vec![Step::after(ms(0), Action::call("2001")), Step::after(ms(500), Action::HangUp)],
        &a,
    );
    let bob = driver::start(Phone::new(options("2001", vec![], &b)), b);
    let ann = driver::start(Phone::new(ann), a);
    let ended = timeout(ms(20_000), async { (ann.join().await, bob.join().await) }).await;
    assert!(ended.is_ok(), "the call ends");
    server.drain();
    server.stop().await;

    let mut lines = Vec::new();
    while let Some(Item::Event(kept)) = all.next().await {
        assert_eq!((kept.seq, kept.dn.as_deref()), (lines.len() as u64 + 1, Some("2001")));
        lines.push(kept.json.clone());
    }
    assert_eq!(other.next().await, None, "nothing was told to another DN");
    let log = fs::read_to_string(folder.path().join("events.ndjson")).unwrap();
    assert_eq!(log.lines().collect::<Vec<_>>(), lines, "written when the server has stopped");
    let events: Vec<serde_json::Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = |event: &serde_json::Value| {
        let recording = event["RecordingState"].as_str().unwrap_or_default();
        format!("{} {recording}", event["event"].as_str().unwrap()).trim_end().to_owned()
    };
    assert_eq!(
        events.iter().map(told).collect::<Vec<_>>(),
        ["EventRinging", "EventPrivateInfo Recording", "EventEstablished", "EventPrivateInfo Stopped", "EventReleased"]
    );
    assert!(events.iter().all(|event| event["CallType"] == "Inbound" && event["ConnID"] == events[0]["ConnID"]));
    assert_eq!((&events[0]["OtherDN"], &events[4]["CallState"]), (&"+4930123456".into(), &"OK".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_write_its_event_log_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), "");
    config.events.file = Some("/nowhere/events.ndjson".into());
    let Err(error) = Server::start(config).await else { panic!("it has started") };
    assert!(matches!(error, StartError::EventLog { .. }));
    assert!(error.to_string().starts_with("cannot write events to /nowhere/events.ndjson: "), "{error}");
}

/// A media thread whose notices come out of the receiver.
fn media_thread() -> (media::Handle, mpsc::Receiver<Input>) {
    let (notices, withheld) = mpsc::channel();
    let options = media::Options {
        worker: WorkerId(0),
        ports: 23_400..=23_419,
        cooldown: Duration::ZERO,
        batch_interval: Duration::from_millis(1),
        priority: Priority::Normal,
        epoch: stickytape::clock::now(),
        seed: 0,
    };
    let workers = vec![Worker { options, taps: vec![], mixers: vec![], kernel: None }];
    let mut handles = media::spawn(workers, move |worker, notice| drop(notices.send(Input::Media(worker, notice))));
    (handles.as_mut().unwrap().remove(0), withheld)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_is_told_once_with_the_refusal_that_its_asker_gets() {
    let options = Options {
        listeners: vec![Listener { transport: Transport::Udp, address: "127.0.0.1:5060".parse().unwrap() }],
        sip: SipOptions::default(),
        media: MediaOptions { ports_ahead: 1, ..MediaOptions::default() },
        recording: RecordingOptions::default(),
        plan: Plan::default(),
    };
    let seats =
        Seats { workers: vec![WorkerId(0)], mixers: vec![], recorders: vec![], reach: Reach::new(|_| None), seed: 1 };
    let calls = Calls::new(options, seats, stickytape::clock::now());
    let (media, _withheld) = media_thread();
    let (inbox, queue) = signaling::inbox();
    let (tell, told) = mpsc::channel();
    let edges = Edges {
        mixers: vec![],
        sip: Box::new(|_| {}),
        media: vec![media.sender()],
        recorders: vec![],
        facts: Box::new(move |what| {
            if let Told::Denied(request, denied) = what {
                tell.send((request.clone(), denied.clone())).unwrap();
            }
        }),
    };
    let (_packets, received) = tokio::sync::mpsc::channel(1);
    let (able, _ready) = oneshot::channel();
    let task = tokio::spawn(signaling::run(calls, edges, received, queue, able));
    let request =
        Request { conn_id: ConnId(7), this_dn: "2001".into(), reference: Some("r1".into()), ask: Ask::HoldCall };
    let denied = inbox.request(request.clone()).await.unwrap().unwrap_err();
    assert_eq!(denied.code, Code::UnknownDn, "before the call is looked for");
    assert_eq!(told.try_recv().unwrap(), (request, denied));
    assert!(told.try_recv().is_err());
    inbox.send(Input::HangUpAll);
    timeout(Duration::from_secs(10), task).await.unwrap().unwrap();
    media.join();
}
