//! Event streams over both transports: order, replay, slow readers, the end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket};

use super::backend::Hub;
use super::{Fake, Server};

const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));

/// One server-sent event.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sent {
    id: u64,
    name: String,
    data: String,
}

impl Sent {
    fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }
}

/// A client that reads when it is told, over a socket of its own.
struct Reader {
    lines: std::io::Lines<BufReader<Chunks>>,
}

/// The body of a chunked answer (RFC 9112 §7.1).
struct Chunks {
    stream: BufReader<TcpStream>,
    left: usize,
}

impl Read for Chunks {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            let mut size = String::new();
            self.stream.read_line(&mut size)?;
            if size.trim().is_empty() {
                size.clear();
                self.stream.read_line(&mut size)?;
            }
            self.left = usize::from_str_radix(size.trim(), 16).map_err(std::io::Error::other)?;
            if self.left == 0 {
                return Ok(0);
            }
        }
        let most = out.len().min(self.left);
        let read = self.stream.read(&mut out[..most])?;
        self.left -= read;
        Ok(read)
    }
}

impl Reader {
    fn open(server: &Server, query: &str, headers: &str) -> Self {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(PATIENCE).unwrap();
        let host = server.address;
        write!(stream, "GET /v1/events{query} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n").unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 200"), "{line}");
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).unwrap();
        }
        Self { lines: BufReader::new(Chunks { stream, left: 0 }).lines() }
    }

    /// The next event; `None` at the end of the stream.
    fn next(&mut self) -> Option<Sent> {
        let mut sent = Sent { id: 0, name: String::new(), data: String::new() };
        loop {
            let line = self.lines.next()?.unwrap();
            match line.split_once(": ") {
                Some(("id", value)) => sent.id = value.parse().unwrap(),
                Some(("event", value)) => sent.name = value.into(),
                Some(("data", value)) => sent.data = value.into(),
                _ if line.is_empty() && !sent.data.is_empty() => return Some(sent),
                _ => {}
            }
        }
    }

    fn ids(&mut self, count: usize) -> Vec<u64> {
        (0..count).map(|_| self.next().unwrap().id).collect()
    }
}

fn server(most: usize) -> Server {
    Server::start(Fake { hub: Arc::new(Hub::keeping(most)), ..Fake::default() }, None)
}

fn tell(server: &Server, count: usize, dn: &str) {
    (0..count).for_each(|_| server.backend.hub.tell(dn, 0));
}

#[test]
fn a_subscriber_gets_what_comes_next_in_order() {
    let server = server(1_000);
    tell(&server, 2, "2001");
    let mut reader = Reader::open(&server, "", "");
    tell(&server, 3, "2001");
    let sent = reader.next().unwrap();
    assert_eq!((sent.id, sent.name.as_str()), (3, "EventHeld"));
    assert_eq!((&sent.json()["seq"], &sent.json()["ThisDN"]), (&3.into(), &"2001".into()));
    assert_eq!(reader.ids(2), [4, 5]);
}

#[test]
fn what_is_kept_is_replayed_after_the_seq_that_was_read_last() {
    let server = server(1_000);
    tell(&server, 5, "2001");
    assert_eq!(Reader::open(&server, "?after=0", "").ids(5), [1, 2, 3, 4, 5]);
    assert_eq!(Reader::open(&server, "?after=3", "").ids(2), [4, 5]);
    let mut reconnected = Reader::open(&server, "?after=0", "Last-Event-ID: 4\r\n");
    tell(&server, 1, "2001");
    assert_eq!(reconnected.ids(2), [5, 6], "the header goes before the query");
}

#[test]
fn a_client_that_reconnects_again_and_again_misses_nothing() {
    let server = server(10_000);
    let hub = server.backend.hub.clone();
    let telling = std::thread::spawn(move || {
        for _ in 0..2_000 {
            hub.tell("2001", 50);
            std::thread::sleep(Duration::from_micros(50));
        }
    });
    let mut read = Vec::new();
    while read.len() < 2_000 {
        let last = read.last().copied().unwrap_or(0);
        let mut reader = Reader::open(&server, "", &format!("Last-Event-ID: {last}\r\n"));
        read.extend(reader.ids(100));
    }
    telling.join().unwrap();
    assert_eq!(read, (1..=2_000).collect::<Vec<_>>());
}

#[test]
fn a_filter_gives_one_dn_its_own() {
    let server = server(1_000);
    for dn in ["2001", "2002", "2001", "+49"] {
        tell(&server, 1, dn);
    }
    assert_eq!(Reader::open(&server, "?after=0&dn=2001", "").ids(2), [1, 3]);
    assert_eq!(Reader::open(&server, "?after=0&dn=%2B49", "").ids(1), [4]);
}

#[test]
fn wrong_queries_open_no_stream() {
    let server = server(10);
    for query in ["?after=-1", "?after=x", "?seq=3"] {
        assert_eq!(server.get(&format!("/v1/events{query}")).refusal().0, 400, "{query}");
    }
    let answer = server.ask("GET", "/v1/events", &[("last-event-id", "abc")], &[]);
    assert_eq!(answer.refusal().0, 400);
    assert_eq!(server.get("/v1/events/ws").refusal().0, 400, "no upgrade");
}

#[test]
fn a_slow_reader_is_told_what_it_has_lost_and_goes_on_from_there() {
    let server = server(100);
    let mut slow = Reader::open(&server, "", "");
    let mut quick = Reader::open(&server, "", "");
    // Far more than the sockets between us hold. Who reads never falls back by more than is kept.
    let most = 40_000;
    for first in (1..=most).step_by(50) {
        (0..50).for_each(|_| server.backend.hub.tell("2001", 2_000));
        let read = quick.ids(50);
        assert!(read.iter().copied().eq(first..first + 50), "who reads misses nothing: {:?}", read.first());
    }
    let (mut next, mut lost) = (1, 0);
    while next <= most {
        let sent = slow.next().unwrap();
        if sent.name == "lost" {
            let (count, to) = (sent.json()["lost"].as_u64().unwrap(), sent.json()["next"].as_u64().unwrap());
            assert_eq!((to, sent.id), (next + count, to - 1), "the place from which it goes on");
            next = to;
            lost += count;
        } else {
            assert_eq!(sent.id, next, "nothing is missing that it was not told of");
            next += 1;
        }
    }
    assert!(lost > 0, "the sockets held all events: nothing was tested");
}

#[test]
fn a_stream_lives_longer_than_a_request_may() {
    let server = server(10);
    let mut reader = Reader::open(&server, "", "");
    std::thread::sleep(Duration::from_millis(10_500));
    tell(&server, 1, "2001");
    assert_eq!(reader.ids(1), [1]);
}

#[test]
fn when_the_server_stops_streams_end_after_their_last_event() {
    let mut server = server(1_000);
    let mut reader = Reader::open(&server, "", "");
    let mut socket = web_socket(&server, "");
    tell(&server, 3, "2001");
    server.stop();
    assert_eq!(reader.ids(3), [1, 2, 3]);
    assert_eq!(reader.next(), None, "it ends in order");
    for seq in 1..=3 {
        assert_eq!(read_json(&mut socket)["seq"], seq);
    }
    let Message::Close(Some(frame)) = socket.read().unwrap() else { panic!("no close") };
    assert_eq!(frame.code, CloseCode::Away);
    server.wait();
}

#[test]
fn streams_leave_connections_for_requests() {
    let server = server(10);
    let mut open = Vec::new();
    // The limit counts streams, not clients' rates: those who are refused for asking too often come again.
    while open.len() < 384 {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(PATIENCE).unwrap();
        write!(stream, "GET /v1/events HTTP/1.1\r\nHost: {}\r\n\r\n", server.address).unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        match &status[9..] {
            b"200" => open.push(stream),
            b"429" => std::thread::sleep(Duration::from_millis(50)),
            other => panic!("{other:?} at {}", open.len()),
        }
    }
    std::thread::sleep(Duration::from_millis(1_000));
    let answer = server.get("/v1/events");
    assert_eq!(answer.refusal(), (503, "too-many-streams".into()));
    assert_eq!(answer.header("retry-after"), Some("5"));
    assert_eq!(server.get("/v1/calls").status, 200);
    drop(open.pop());
    for _ in 0..200 {
        let mut stream = TcpStream::connect(server.address).unwrap();
        write!(stream, "GET /v1/events HTTP/1.1\r\nHost: {}\r\n\r\n", server.address).unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        if status.ends_with(b"200") {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("a place that was given back is not given out again");
}

type Socket = WebSocket<TcpStream>;

fn web_socket(server: &Server, query: &str) -> Socket {
    let stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(PATIENCE).unwrap();
    let url = format!("ws://{}/v1/events/ws{query}", server.address);
    tungstenite::client(url, stream).unwrap().0
}

fn read_json(socket: &mut Socket) -> Value {
    loop {
        match socket.read().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_web_socket_carries_the_same_events() {
    let server = server(3);
    tell(&server, 5, "2001");
    let mut all = web_socket(&server, "?after=1");
    assert_eq!(read_json(&mut all), serde_json::json!({"event": "lost", "lost": 1, "next": 3}));
    let mut own = web_socket(&server, "?after=4&dn=2002");
    tell(&server, 1, "2002");
    for seq in 3..=6 {
        assert_eq!(read_json(&mut all)["seq"], seq);
    }
    assert_eq!(read_json(&mut own)["seq"], 6);
    all.send(Message::Ping("x".into())).unwrap();
    assert_eq!(all.read().unwrap(), Message::Pong("x".into()));
}

#[test]
fn a_stream_that_is_not_to_follow_ends_after_what_is_kept() {
    let server = server(3);
    tell(&server, 5, "2001");
    for (query, kept) in
        [("?follow=false", &[3, 4, 5][..]), ("?follow=false&after=4", &[5]), ("?follow=false&after=5", &[])]
    {
        let mut reader = Reader::open(&server, query, "");
        let mut sent = std::iter::from_fn(|| reader.next()).filter(|sent| sent.name != "lost").map(|sent| sent.id);
        assert_eq!(sent.by_ref().collect::<Vec<_>>(), kept, "{query}");
    }
    let mut socket = web_socket(&server, "?follow=false&after=4");
    assert_eq!(read_json(&mut socket)["seq"], 5);
    match socket.read().unwrap() {
        Message::Close(Some(frame)) => assert_eq!(frame.code, CloseCode::Normal),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_web_socket_client_has_nothing_to_say() {
    let server = server(3);
    for (message, code) in
        [(Message::text("{}"), Some(CloseCode::Unsupported)), (Message::text("x".repeat(5_000)), None)]
    {
        let mut socket = web_socket(&server, "");
        socket.send(message).unwrap();
        match socket.read() {
            Ok(Message::Close(frame)) => assert_eq!(frame.map(|frame| frame.code), code),
            Err(_) => assert_eq!(code, None, "what is too long ends the connection"),
            Ok(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_web_socket_needs_the_token_and_our_origin() {
    let server = Server::start(Fake::default(), Some("correct-horse"));
    let connect = |headers: &[(&'static str, &str)]| {
        let mut request = format!("ws://{}/v1/events/ws", server.address).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        tungstenite::client(request, TcpStream::connect(server.address).unwrap()).is_ok()
    };
    let ours = format!("http://{}", server.address);
    let token = ("authorization", "Bearer correct-horse");
    assert!(connect(&[token]));
    assert!(connect(&[token, ("origin", &ours)]));
    assert!(!connect(&[]));
    assert!(!connect(&[("authorization", "Bearer wrong")]));
    assert!(!connect(&[token, ("origin", "http://evil.example")]));
}
