//! Two hundred subscribers of events while calls come and go: who reads misses nothing, who does not costs nothing and is
//! told what it has missed.
//!
//! STICKYTAPE_LOAD_RATE and STICKYTAPE_LOAD_SECONDS say how many calls come in a second and for how long (at most 20: who
//! does not read for 30 s is cut off); without them it is what a program without optimisation carries beside other tests.
//! The figures of a release:
//! `STICKYTAPE_LOAD_RATE=100 STICKYTAPE_LOAD_SECONDS=20 cargo test --release --test api_load -- --nocapture` on a machine
//! that does nothing else: SIPp, which gets its share late, ends a call with a time-out and the test with a failure.

mod peers;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use peers::{Options, Server, Setup, Sipp, V4, at, free_ports, wait_for};
use serde_json::Value;
use tungstenite::{Message, WebSocket};

/// Half of them by server-sent events, half over WebSocket.
const READERS: usize = 200;
const IDLERS: usize = 10;
/// Memory that may come after the first third of the run: every connection may hold 0.4 MiB that its reader has not taken
/// yet, however many events come; what is kept of those is the configuration's.
const MAX_GROWTH: f64 = 0.4 * (READERS + IDLERS) as f64 * 1024.0 * 1024.0;

fn setting(name: &str, default: u32) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// One stream of either kind.
enum Stream {
    Sent(BufReader<TcpStream>),
    Socket(Box<WebSocket<TcpStream>>),
}

/// What a subscriber reads.
#[derive(Debug, PartialEq)]
enum Item {
    Event(u64),
    Lost { count: u64, next: u64 },
}

impl Stream {
    /// Subscribes to everything from the first event on. Where little fits into the kernel's buffers, those of both sides
    /// are full soon when nobody reads.
    fn open(server: SocketAddr, socket: bool, little: bool) -> Self {
        let raw = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        if little {
            raw.set_recv_buffer_size(4_096).unwrap();
            raw.set_tcp_mss(536).unwrap();
        }
        raw.connect(&server.into()).unwrap();
        let mut stream = TcpStream::from(raw);
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        if socket {
            let (socket, _) = tungstenite::client(format!("ws://{server}/v1/events/ws?after=0"), stream).unwrap();
            return Self::Socket(Box::new(socket));
        }
        // Of version 1.0: the answer has no chunks.
        write!(stream, "GET /v1/events?after=0 HTTP/1.0\r\nHost: {server}\r\n\r\n").unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            assert!(stream.read_line(&mut line).unwrap() > 0, "it answers");
            assert!(!line.starts_with("HTTP/") || line.contains(" 200 "), "{line}");
        }
        Self::Sent(stream)
    }

    fn next(&mut self) -> Item {
        let event: Value = match self {
            Self::Sent(stream) => loop {
                let mut line = String::new();
                assert!(stream.read_line(&mut line).unwrap() > 0, "the stream goes on");
                if let Some(data) = line.strip_prefix("data: ") {
                    break serde_json::from_str(data).unwrap();
                }
            },
            Self::Socket(socket) => loop {
                match socket.read().unwrap() {
                    Message::Text(text) => break serde_json::from_str(&text).unwrap(),
                    Message::Ping(_) | Message::Pong(_) => {}
                    other => panic!("{other:?}"),
                }
            },
        };
        match event["event"] == "lost" {
            true => Item::Lost { count: event["lost"].as_u64().unwrap(), next: event["next"].as_u64().unwrap() },
            false => Item::Event(event["seq"].as_u64().unwrap()),
        }
    }

    /// Reads up to `last`; how many events it got and how many it was told it has missed. Between two neighbours nothing
    /// is missing that it was not told of.
    fn read_to(&mut self, last: impl Fn() -> u64) -> (u64, u64) {
        let (mut place, mut read, mut missed) = (0, 0, 0);
        while place < last() {
            match self.next() {
                Item::Event(seq) => {
                    assert_eq!(seq, place + 1, "a hole that nobody has told of");
                    (place, read) = (seq, read + 1);
                }
                Item::Lost { count, next } => {
                    assert_eq!(next, place + count + 1, "as many as it was told");
                    (place, missed) = (next - 1, missed + count);
                }
            }
        }
        (read, missed)
    }
}

/// The `seq` of the newest event, once none has come for a second.
fn newest(server: &Server) -> u64 {
    let total = || {
        let (_, page) = server.get("/metrics").unwrap();
        let counts = page.lines().filter(|line| line.starts_with("stickytape_events_total{"));
        counts.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap() as u64).sum::<u64>()
    };
    let mut before = total();
    wait_for("events end", Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_secs(1));
        (std::mem::replace(&mut before, total()) == before && server.metric("stickytape_calls") == Some(0.0))
            .then_some(())
    });
    before
}

#[test]
fn who_reads_misses_no_event_and_who_does_not_costs_no_memory_and_is_told() {
    let (rate, seconds) = (setting("STICKYTAPE_LOAD_RATE", 25), setting("STICKYTAPE_LOAD_SECONDS", 20));
    let calls = rate * seconds;
    let (caller, callee) = (free_ports(1), free_ports(1));
    let server = Server::start(&Setup {
        media_ports: 3_000,
        recording: "default = \"none\"".into(),
        plan: format!(
            "[events]\nkeep = {}\n[[dn]]\nnumber = \"sipp\"\ncontact = \"sip:sipp@{V4}:{caller}\"\n\
             [[dn]]\nnumber = \"2001\"\ncontact = \"sip:2001@{V4}:{callee}\"\n",
            3 * calls / 2
        ),
        log: "warn",
        ..Setup::default()
    });
    let address = at(V4, server.api);
    // Not known before the last call has ended.
    let last = Arc::new(AtomicU64::new(u64::MAX));
    let readers: Vec<JoinHandle<(u64, u64)>> = (0..READERS)
        .map(|n| {
            // A client may ask a hundred times a second.
            std::thread::sleep(Duration::from_millis(11));
            let (mut stream, last) = (Stream::open(address, n % 2 == 0, false), last.clone());
            std::thread::spawn(move || stream.read_to(|| last.load(Ordering::Relaxed)))
        })
        .collect();
    let idlers: Vec<Stream> = (0..IDLERS).map(|n| Stream::open(address, n % 2 == 0, true)).collect();

    let folder = server.folder.path().to_owned();
    let many = || Options { calls, limit: 4 * rate, rate, talk: Duration::from_millis(500), ..Options::default() };
    let begun = stickytape::clock::now();
    let called = Sipp::start(&folder, &Options { scenario: "uas_answer_at_once", port: callee, ..many() });
    let target = Some(at(V4, server.sip));
    let calling = Sipp::start(&folder, &Options { scenario: "uac_talk", port: caller, target, ..many() });
    let memory = || server.metric("process_resident_memory_bytes").unwrap();
    std::thread::sleep(Duration::from_secs(u64::from(seconds) / 3));
    let early = memory();
    calling.succeed(&server);
    called.succeed(&server);
    let took = peers::since(begun);
    let events = newest(&server);
    let growth = memory() - early;
    // One more call of a DN wakes those that wait for the last event.
    last.store(events, Ordering::Relaxed);
    let one = || Options { calls: 1, ..many() };
    let called = Sipp::start(&folder, &Options { scenario: "uas_answer_at_once", port: callee, ..one() });
    Sipp::start(&folder, &Options { scenario: "uac_talk", port: caller, target, ..one() }).succeed(&server);
    called.succeed(&server);

    for reader in readers {
        let (read, missed) = reader.join().expect("no event is missing");
        assert!(read >= events && missed == 0, "{read} of {events} events read, {missed} missed");
    }
    let mut told = 0;
    for mut idler in idlers {
        let (read, missed) = idler.read_to(|| events);
        assert!(missed > 0, "{read} events waited for who does not read");
        told += missed;
    }
    eprintln!(
        "{calls} calls in {took:.1} s, {events} events to {READERS} readers without a hole; {IDLERS} that did not read \
         were told of {told} missed ones; memory {:+.1} MiB",
        growth / 1024.0 / 1024.0
    );
    assert!(growth < MAX_GROWTH, "{growth} bytes more");
    assert!(events >= u64::from(calls) * 6, "both DNs are told of each call: {events}");
}
