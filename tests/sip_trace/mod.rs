//! Traces in virtual time: this comes at 0 ms, that goes out at 500 ms, nothing until 1,500 ms.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use stickytape::sip::endpoint::*;
use stickytape::sip::headers::Headers;
use stickytape::sip::message::{Message, Request, Response};
use stickytape::sip::method::Method;
use stickytape::sip::name::Name;

/// Our listener.
pub const US: &str = "192.0.2.1:5060";
/// The peer.
pub const THEM: &str = "198.51.100.7:5060";

/// One endpoint, its clock and all that came out of it.
pub struct Trace {
    pub endpoint: Endpoint,
    pub flow: Flow,
    start: Instant,
    at_ms: u64,
    sent: VecDeque<(u64, Transmit)>,
    events: VecDeque<(u64, Event)>,
}

pub fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub fn options() -> Options {
    let listener = |transport| Listener { transport, local: addr(US) };
    Options { listeners: vec![listener(Transport::Udp), listener(Transport::Tcp)], seed: 1, ..Options::default() }
}

pub fn udp() -> Flow {
    Flow::udp(addr(US), addr(THEM))
}

pub fn tcp() -> Flow {
    Flow { transport: Transport::Tcp, connection: Some(ConnectionId(1)), ..udp() }
}

impl Trace {
    pub fn udp() -> Self {
        Self::new(udp(), options())
    }

    pub fn tcp() -> Self {
        Self::new(tcp(), options())
    }

    pub fn new(flow: Flow, options: Options) -> Self {
        let start = stickytape::clock::now();
        let endpoint = Endpoint::new(options);
        Self { endpoint, flow, start, at_ms: 0, sent: VecDeque::new(), events: VecDeque::new() }
    }

    pub fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.at_ms)
    }

    fn drain(&mut self) {
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Transmit(transmit) => self.sent.push_back((self.at_ms, transmit)),
                Output::Event(event) => self.events.push_back((self.at_ms, event)),
            }
        }
    }

    /// Lets time pass; timers fire at their own instants.
    pub fn to(&mut self, ms: u64) {
        self.drain();
        while let Some((at, _)) = self.endpoint.poll_timeout() {
            let due = u64::try_from(at.saturating_duration_since(self.start).as_millis()).unwrap();
            if due > ms {
                break;
            }
            self.at_ms = self.at_ms.max(due);
            let now = self.now();
            self.endpoint.handle(Input::Timeout, now);
            self.drain();
        }
        self.at_ms = ms;
    }

    /// A message comes from the peer.
    pub fn comes(&mut self, ms: u64, text: &str) {
        let flow = self.flow;
        self.comes_on(ms, flow, text);
    }

    pub fn comes_on(&mut self, ms: u64, flow: Flow, text: &str) {
        self.to(ms);
        let now = self.now();
        self.endpoint.handle(Input::Packet { flow, bytes: Bytes::copy_from_slice(text.as_bytes()) }, now);
        self.drain();
    }

    /// Something that was sent fails.
    pub fn fails(&mut self, ms: u64, token: TransmitToken) {
        self.to(ms);
        let now = self.now();
        self.endpoint.handle(Input::Failed(token), now);
        self.drain();
    }

    /// The user of the endpoint does something.
    pub fn does<R>(&mut self, ms: u64, action: impl FnOnce(&mut Endpoint, Instant) -> R) -> R {
        self.to(ms);
        let now = self.now();
        let result = action(&mut self.endpoint, now);
        self.drain();
        result
    }

    /// The next message that goes out: exactly then, with this method or status code.
    #[track_caller]
    pub fn goes(&mut self, ms: u64, what: &str) -> Message {
        self.goes_as(ms, what).1
    }

    #[track_caller]
    pub fn goes_as(&mut self, ms: u64, what: &str) -> (Transmit, Message) {
        if self.sent.is_empty() {
            self.to(ms);
        }
        let Some((at, transmit)) = self.sent.pop_front() else { panic!("{what} at {ms} ms: nothing was sent") };
        let message = Message::parse(&transmit.bytes).unwrap();
        assert_eq!((at, start(&message)), (ms, what.to_owned()));
        (transmit, message)
    }

    /// Nothing goes out until then.
    #[track_caller]
    pub fn silent(&mut self, ms: u64) {
        self.to(ms);
        let left: Vec<_> = self.sent.iter().map(|(at, t)| (*at, start(&Message::parse(&t.bytes).unwrap()))).collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// The next event, exactly then.
    #[track_caller]
    pub fn event(&mut self, ms: u64) -> Event {
        if self.events.is_empty() {
            self.to(ms);
        }
        let Some((at, event)) = self.events.pop_front() else { panic!("no event at {ms} ms") };
        assert_eq!(at, ms, "{event:?}");
        event
    }

    #[track_caller]
    pub fn no_event(&mut self) {
        assert!(self.events.is_empty(), "{:?}", self.events);
    }

    /// The end: nothing more is sent or told, and nothing is kept after a while.
    #[track_caller]
    pub fn ends(&mut self) {
        self.silent(self.at_ms + 200_000);
        self.no_event();
        assert!(self.endpoint.is_empty(), "{:?} {:?}", self.endpoint.load(), self.endpoint.poll_timeout());
    }
}

/// The method of a request, the code of a response.
pub fn start(message: &Message) -> String {
    match message {
        Message::Request(request) => request.method.to_string(),
        Message::Response(response) => response.code.to_string(),
    }
}

pub fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.encode()).into_owned()
}

pub fn header(message: &Message, name: Name<'_>) -> String {
    let value = message.headers().get(name).unwrap_or_else(|| panic!("{name:?} in {}", text(message)));
    String::from_utf8_lossy(&value).into_owned()
}

pub fn param(value: &str, name: &str) -> Option<String> {
    let at = value.find(&format!(";{name}="))? + name.len() + 2;
    Some(value[at..].split([';', '>', ',']).next().unwrap().to_owned())
}

pub fn tag(message: &Message, name: Name<'_>) -> String {
    param(&header(message, name), "tag").unwrap_or_else(|| panic!("no tag in {}", text(message)))
}

/// A response of the peer to a request of ours; `to_tag` is added to To when there is none; `extra` are whole lines.
pub fn answer(request: &Message, code: u16, to_tag: &str, extra: &str) -> String {
    let mut out = format!("SIP/2.0 {code} X\r\n");
    for line in request.headers().lines() {
        if matches!(line.name(), Name::Via | Name::From | Name::CallId | Name::CSeq) {
            out += &line_text(line.written_name(), line.raw());
        }
    }
    let to = header(request, Name::To);
    let to = if to_tag.is_empty() || to.contains(";tag=") { to } else { format!("{to};tag={to_tag}") };
    out + &format!("To: {to}\r\n{extra}Content-Length: 0\r\n\r\n")
}

fn line_text(name: &[u8], value: &[u8]) -> String {
    format!("{}: {}\r\n", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
}

pub const THEIR_CONTACT: &str = "Contact: <sip:them@198.51.100.7:5060>\r\n";

/// A request of the peer outside a dialog.
pub fn theirs(method: &str, branch: &str, cseq: u32, extra: &str) -> String {
    theirs_to(method, "sip:bob@192.0.2.1", branch, cseq, "<sip:bob@192.0.2.1>", extra)
}

/// A request of the peer; To as written.
pub fn theirs_to(method: &str, uri: &str, branch: &str, cseq: u32, to: &str, extra: &str) -> String {
    let contact = if matches!(method, "INVITE" | "UPDATE") { THEIR_CONTACT } else { "" };
    let cseq_method = if method == "ACK" { "ACK" } else { method };
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.7:5060;branch={branch}\r\nMax-Forwards: 70\r\n\
         From: <sip:ann@198.51.100.7>;tag=theirs\r\nTo: {to}\r\nCall-ID: their-call\r\nCSeq: {cseq} {cseq_method}\r\n\
         {contact}{extra}Content-Length: 0\r\n\r\n"
    )
}

/// Their request in the dialog of this 2xx of ours.
pub fn in_dialog(ok: &Message, method: &str, branch: &str, cseq: u32, extra: &str) -> String {
    theirs_to(method, "sip:x@192.0.2.1", branch, cseq, &header(ok, Name::To), extra)
}

/// Their request in a dialog whose INVITE was ours.
pub fn back(invite: &Message, method: &str, branch: &str, cseq: u32, extra: &str) -> String {
    theirs_to(method, "sip:x@192.0.2.1", branch, cseq, &header(invite, Name::From), extra)
        .replace("From: <sip:ann@198.51.100.7>;tag=theirs", "From: <sip:bob@198.51.100.7>;tag=bob")
        .replace("their-call", &header(invite, Name::CallId))
}

/// An INVITE of ours to the peer.
pub fn invite(flow: Flow) -> OutgoingInvite {
    OutgoingInvite {
        flow,
        peer: Peer::new(addr(US)),
        request_uri: "sip:bob@198.51.100.7".into(),
        from: "\"Ann\" <sip:ann@192.0.2.1>".into(),
        to: "<sip:bob@198.51.100.7>".into(),
        max_forwards: 69,
        headers: Headers::new(),
        body: Some(Body::sdp("v=0\r\n")),
    }
}

/// A request of ours outside a dialog.
pub fn outside(flow: Flow, method: Method) -> OutgoingRequest {
    OutgoingRequest {
        method,
        flow,
        peer: Peer::new(addr(US)),
        request_uri: "sip:198.51.100.7".into(),
        from: "<sip:ann@192.0.2.1>".into(),
        to: "<sip:198.51.100.7>".into(),
        call_id: None,
        seq: 1,
        max_forwards: 70,
        headers: Headers::new(),
        body: None,
    }
}

/// A call of ours that the peer has answered at 0 ms: the trace and the dialog.
pub fn our_call(mut trace: Trace) -> (Trace, DialogId, Message) {
    let flow = trace.flow;
    trace.does(0, |endpoint, now| endpoint.invite(invite(flow), now)).unwrap();
    let sent = trace.goes(0, "INVITE");
    trace.comes(0, &answer(&sent, 200, "bob", THEIR_CONTACT));
    let Event::Answered { dialog, .. } = trace.event(0) else { panic!("answered") };
    trace.does(0, |endpoint, now| endpoint.ack(dialog, None, now)).unwrap();
    trace.goes(0, "ACK");
    (trace, dialog, sent)
}

/// A call of the peer that we have answered at 0 ms, and its 200.
pub fn their_call(mut trace: Trace) -> (Trace, DialogId, Message) {
    trace.comes(0, &theirs("INVITE", "z9hG4bKinvite", 1, ""));
    trace.goes(0, "100");
    let Event::Invite { tx, .. } = trace.event(0) else { panic!("an INVITE") };
    let dialog = trace.does(0, |endpoint, _| endpoint.open_dialog(tx, Peer::new(addr(US)))).unwrap();
    trace.does(0, |endpoint, now| endpoint.respond(tx, Some(dialog), Reply::new(200), now)).unwrap();
    let ok = trace.goes(0, "200");
    let to = header(&ok, Name::To);
    trace.comes(0, &theirs_to("ACK", "sip:bob@192.0.2.1", "z9hG4bKack", 1, &to, ""));
    assert!(matches!(trace.event(0), Event::Ack { .. }));
    (trace, dialog, ok)
}

pub fn request_of(message: Message) -> Request {
    let Message::Request(request) = message else { panic!("a request") };
    request
}

pub fn response_of(message: Message) -> Response {
    let Message::Response(response) = message else { panic!("a response") };
    response
}
