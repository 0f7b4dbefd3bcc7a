//! SIP waits until the media threads have bound their first ports.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use stickytape::call::options::{Listener, MediaOptions, Options, Plan, RecordingOptions, SipOptions, Transport};
use stickytape::call::{Calls, Input, Reach, Seats};
use stickytape::id::WorkerId;
use stickytape::runtime::media::{self, Priority, Worker};
use stickytape::runtime::signaling::{self, Edges};
use stickytape::sip::endpoint::{self, Flow};
use tokio::sync::oneshot;
use tokio::time::timeout;

const PROXY: &str = "127.0.0.1:5060";
const OPTIONS: &str = "OPTIONS sip:127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK-1\r\n\
    Max-Forwards: 70\r\nFrom: <sip:a@127.0.0.1>;tag=1\r\nTo: <sip:127.0.0.1>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n\
    Content-Length: 0\r\n\r\n";

fn options() -> Options {
    Options {
        listeners: vec![Listener { transport: Transport::Udp, address: PROXY.parse().unwrap() }],
        sip: SipOptions::default(),
        media: MediaOptions { ports_ahead: 4, ..MediaOptions::default() },
        recording: RecordingOptions::default(),
        plan: Plan::default(),
    }
}

/// A media thread whose notices come out of the receiver.
fn media_thread() -> (media::Handle, mpsc::Receiver<Input>) {
    let (notices, withheld) = mpsc::channel();
    let options = media::Options {
        worker: WorkerId(0),
        ports: 23_300..=23_339,
        cooldown: Duration::from_millis(50),
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
async fn sip_is_answered_only_when_the_first_ports_are_bound() {
    let seats =
        Seats { workers: vec![WorkerId(0)], mixers: vec![], recorders: vec![], reach: Reach::new(|_| None), seed: 1 };
    let calls = Calls::new(options(), seats, stickytape::clock::now());
    assert!(!calls.is_able());
    let (media, withheld) = media_thread();
    let (inbox, queue) = signaling::inbox();
    let (sent, mut answers) = tokio::sync::mpsc::unbounded_channel();
    let edges = Edges {
        mixers: vec![],
        sip: Box::new(move |transmit| drop(sent.send(transmit.bytes))),
        media: vec![media.sender()],
        recorders: vec![],
        facts: Box::new(|_| {}),
    };
    let (packets, received) = tokio::sync::mpsc::channel(8);
    let (able, mut ready) = oneshot::channel();
    let task = tokio::spawn(signaling::run(calls, edges, received, queue, able));

    let peer: SocketAddr = "127.0.0.1:5070".parse().unwrap();
    let flow = Flow::udp(PROXY.parse().unwrap(), peer);
    packets.send(endpoint::Input::Packet { flow, bytes: OPTIONS.into() }).await.unwrap();
    let early = timeout(Duration::from_millis(200), answers.recv()).await;
    assert!(early.is_err(), "answered before there are ports");
    assert!(ready.try_recv().is_err());

    let bound = withheld.recv_timeout(Duration::from_secs(5)).unwrap();
    assert!(inbox.send(bound));
    let answer = timeout(Duration::from_secs(5), answers.recv()).await.unwrap().unwrap();
    assert!(answer.starts_with(b"SIP/2.0 "), "{answer:?}");
    ready.await.unwrap();
    inbox.send(Input::HangUpAll);
    timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
    media.join();
}
