//! A lossless SIP message: every header line, its order and case, exact body bytes (RFC 3261 §7).

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::digits::decimal;
use super::headers::{Headers, Line};
use super::method::Method;
use super::name::Name;
use super::scan::{self, Fault};

pub use super::scan::{MAX_HEADERS, MAX_LINE, MAX_MESSAGE};

/// A request or a response.
#[derive(Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the types say it")]
pub enum Message {
    Request(Request),
    Response(Response),
}

/// A request.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub method: Method,
    /// The Request-URI as written.
    pub uri: Bytes,
    /// The header lines.
    pub headers: Headers,
    /// The body; its length is written by [`Request::encode`], whatever Content-Length says.
    pub body: Bytes,
}

/// A response.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code, 100 to 699.
    pub code: u16,
    /// The reason phrase as written, possibly empty, any bytes.
    pub reason: Bytes,
    /// The header lines.
    pub headers: Headers,
    /// The body; its length is written by [`Response::encode`], whatever Content-Length says.
    pub body: Bytes,
}

/// Why bytes are no message, and what is left of them to answer with.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct ParseError {
    /// What is wrong; its text is fit for a reason phrase.
    pub fault: Fault,
    /// What a response needs, when the bytes are recognisably a request other than ACK that has it. `None`: count and drop.
    pub answerable: Option<Box<Answerable>>,
}

/// The parts of a broken request from which a response can be built (RFC 3261 §8.2.6).
#[derive(Clone, PartialEq, Eq)]
pub struct Answerable {
    /// The status code of the answer: 400, or 505 for a version that is not SIP/2.0.
    pub code: u16,
    /// The request's method as written.
    pub method: Method,
    /// Its Via lines, From, To, Call-ID and CSeq lines as written; each at least once.
    pub headers: Headers,
}

impl fmt::Debug for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ParseError({:?}, answerable: {})", self.fault, self.answerable.is_some())
    }
}

impl Message {
    /// Reads one datagram, or one message that [`super::stream`] has framed. The values point into `bytes`; nothing but
    /// the table of lines is allocated. What follows the body is cut; without Content-Length the body is the rest
    /// (RFC 3261 §18.3).
    pub fn parse(bytes: &Bytes) -> Result<Message, ParseError> {
        parse(bytes).map_err(|fault| ParseError { fault, answerable: recover(bytes, fault) })
    }

    /// The bytes for the wire. Content-Length is written with the body's length: in the place of the message's own, else
    /// as the last header line.
    pub fn encode(&self) -> Bytes {
        match self {
            Message::Request(request) => request.encode(),
            Message::Response(response) => response.encode(),
        }
    }

    /// The header lines.
    pub fn headers(&self) -> &Headers {
        match self {
            Message::Request(request) => &request.headers,
            Message::Response(response) => &response.headers,
        }
    }

    /// The header lines, to change.
    pub fn headers_mut(&mut self) -> &mut Headers {
        match self {
            Message::Request(request) => &mut request.headers,
            Message::Response(response) => &mut response.headers,
        }
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        match self {
            Message::Request(request) => &request.body,
            Message::Response(response) => &response.body,
        }
    }
}

impl Request {
    /// A request without header lines and body.
    pub fn new(method: Method, uri: impl Into<Bytes>) -> Request {
        Request { method, uri: uri.into(), headers: Headers::new(), body: Bytes::new() }
    }

    /// The bytes for the wire ([`Message::encode`]). Blanks and line ends in the URI are dropped: they would end it.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.uri.len() + size_hint(&self.headers, &self.body));
        out.put_slice(self.method.as_bytes());
        out.put_u8(b' ');
        if self.uri.iter().any(|b| scan::is_space(*b)) {
            self.uri.iter().filter(|b| !scan::is_space(**b)).for_each(|b| out.put_u8(*b));
        } else {
            out.put_slice(&self.uri);
        }
        out.put_slice(b" SIP/2.0\r\n");
        put_rest(&mut out, &self.headers, &self.body);
        out.freeze()
    }
}

impl Response {
    /// A response without header lines and body.
    pub fn new(code: u16, reason: impl Into<Bytes>) -> Response {
        Response { code, reason: reason.into(), headers: Headers::new(), body: Bytes::new() }
    }

    /// The bytes for the wire ([`Message::encode`]). Line ends in the phrase become blanks.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.reason.len() + size_hint(&self.headers, &self.body));
        out.put_slice(b"SIP/2.0 ");
        out.put_slice(decimal(u64::from(self.code), &mut [0; 20]));
        out.put_u8(b' ');
        self.reason.iter().for_each(|b| out.put_u8(if matches!(b, b'\r' | b'\n') { b' ' } else { *b }));
        out.put_slice(b"\r\n");
        put_rest(&mut out, &self.headers, &self.body);
        out.freeze()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::Request(request) => request.fmt(f),
            Message::Response(response) => response.fmt(f),
        }
    }
}

/// The URI may be a caller's number: only the method and the names of the header lines are printed.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} + {} bytes", self.method, self.headers, self.body.len())
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} + {} bytes", self.code, self.headers, self.body.len())
    }
}

fn size_hint(headers: &Headers, body: &Bytes) -> usize {
    let lines: usize = headers.lines().iter().map(|line| line.written_name().len() + line.raw().len() + 4).sum();
    lines + body.len() + 64
}

fn put_rest(out: &mut BytesMut, headers: &Headers, body: &Bytes) {
    let mut digits = [0; 20];
    let length = decimal(body.len() as u64, &mut digits);
    let mut written = false;
    for line in headers.lines() {
        let is_length = line.name() == Name::ContentLength;
        if is_length && written {
            continue;
        }
        out.put_slice(line.written_name());
        out.put_slice(b": ");
        if is_length {
            out.put_slice(length);
            written = true;
        } else {
            out.put_slice(line.raw());
        }
        out.put_slice(b"\r\n");
    }
    if !written {
        out.put_slice(b"Content-Length: ");
        out.put_slice(length);
        out.put_slice(b"\r\n");
    }
    out.put_slice(b"\r\n");
    out.put_slice(body);
}

enum Start {
    Request(Method, Bytes),
    Response(u16, Bytes),
}

fn parse(bytes: &Bytes) -> Result<Message, Fault> {
    let first = scan::skip_line_ends(bytes);
    if first == bytes.len() {
        return Err(Fault::Empty);
    }
    if bytes.len() - first > MAX_MESSAGE {
        return Err(Fault::TooLarge);
    }
    let line = scan::start_line(bytes, first)?;
    let start = parse_start(bytes, line.text)?;
    let (headers, body_at, length) = parse_headers(bytes, line.next)?;
    let available = bytes.len() - body_at;
    let length = match length {
        Some(length) if length > available as u64 => return Err(Fault::ShortBody),
        // At most `available`, a usize.
        Some(length) => length as usize,
        None => available,
    };
    let body = bytes.slice(body_at..body_at + length);
    Ok(match start {
        Start::Request(method, uri) => Message::Request(Request { method, uri, headers, body }),
        Start::Response(code, reason) => Message::Response(Response { code, reason, headers, body }),
    })
}

fn parse_start(bytes: &Bytes, line: std::ops::Range<usize>) -> Result<Start, Fault> {
    let text = &bytes[line.clone()];
    if is_response(text) {
        return parse_status(bytes, line);
    }
    let first = text.iter().position(|b| *b == b' ').ok_or(Fault::StartLine)?;
    let last = text.iter().rposition(|b| *b == b' ').ok_or(Fault::StartLine)?;
    let method = Method::parse(&text[..first]).ok_or(Fault::StartLine)?;
    let version = &text[last + 1..];
    if first == last || version.len() < 5 || !version[..4].eq_ignore_ascii_case(b"SIP/") {
        return Err(Fault::StartLine);
    }
    let uri = first + 1..last;
    if uri.is_empty() || text[uri.clone()].iter().any(|b| scan::is_space(*b)) {
        return Err(Fault::StartLine);
    }
    if &version[4..] != b"2.0" {
        return Err(Fault::Version);
    }
    Ok(Start::Request(method, bytes.slice(line.start + uri.start..line.start + uri.end)))
}

fn is_response(start_line: &[u8]) -> bool {
    start_line.len() > 4 && start_line[..4].eq_ignore_ascii_case(b"SIP/")
}

fn parse_status(bytes: &Bytes, line: std::ops::Range<usize>) -> Result<Start, Fault> {
    let text = &bytes[line.clone()];
    let mut parts = text.splitn(3, |b| *b == b' ');
    let version = parts.next().unwrap_or_default();
    let code = parts.next().unwrap_or_default();
    let reason = parts.next().unwrap_or_default();
    if &version[4..] != b"2.0" {
        return Err(Fault::Version);
    }
    let number = scan::decimal(code).filter(|n| code.len() == 3 && (100..700).contains(n)).ok_or(Fault::StartLine)?;
    // 100..700 fits a u16.
    Ok(Start::Response(number as u16, bytes.slice(line.end - reason.len()..line.end)))
}

/// The header lines, where the body starts, and what Content-Length says.
fn parse_headers(bytes: &Bytes, mut at: usize) -> Result<(Headers, usize, Option<u64>), Fault> {
    let mut headers = Headers::with_capacity(24);
    let mut length = None;
    loop {
        let line = scan::header_line(bytes, at)?;
        at = line.next;
        if line.text.is_empty() {
            return Ok((headers, at, length));
        }
        if headers.lines().len() == MAX_HEADERS {
            return Err(Fault::TooManyHeaders);
        }
        let (name, value) = scan::split_header(bytes, line.text)?;
        let line = Line::parsed(bytes.slice(name), bytes.slice(value));
        if line.name() == Name::ContentLength {
            let said = scan::decimal(&line.value()).ok_or(Fault::ContentLength)?;
            if length.is_some_and(|before| before != said) {
                return Err(Fault::ContentLengthConflict);
            }
            length = Some(said);
        }
        headers.push_line(line);
    }
}

/// Reads a broken request once more, past every line that is wrong, for what an answer needs.
fn recover(bytes: &Bytes, fault: Fault) -> Option<Box<Answerable>> {
    let line = scan::start_line(bytes, scan::skip_line_ends(bytes)).ok()?;
    let text = &bytes[line.text];
    if is_response(text) {
        return None;
    }
    let end = text.iter().position(|b| scan::is_space(*b))?;
    // Something else than SIP that happens to come here is not answered.
    let names_sip = text.windows(4).any(|part| part.eq_ignore_ascii_case(b"SIP/"));
    let method = Method::parse(&text[..end]).filter(|method| names_sip && *method != Method::Ack)?;
    let mut headers = Headers::new();
    let mut at = line.next;
    while let Ok(line) = scan::header_line(bytes, at) {
        at = line.next;
        if line.text.is_empty() || headers.lines().len() == MAX_HEADERS {
            break;
        }
        let Ok((name, value)) = scan::split_header(bytes, line.text) else {
            continue;
        };
        let line = Line::parsed(bytes.slice(name), bytes.slice(value));
        let needed = match line.name() {
            Name::Via => true,
            Name::From | Name::To | Name::CallId | Name::CSeq => !headers.has(line.name()),
            _ => false,
        };
        if needed {
            headers.push_line(line);
        }
    }
    let code = if fault == Fault::Version { 505 } else { 400 };
    [Name::Via, Name::From, Name::To, Name::CallId, Name::CSeq]
        .iter()
        .all(|name| headers.has(*name))
        .then(|| Box::new(Answerable { code, method, headers }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &str = "INVITE sip:bob@example.com SIP/2.0\r\nv: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFROM : <sip:a@b>;tag=1\r\n\
        t: <sip:bob@example.com>\r\nCall-ID: x@y\r\nCSeq: 1 INVITE\r\nSubject: two\r\n  lines\r\nX-Odd:\r\nl: 4\r\n\r\nbody";

    fn parse_text(text: &str) -> Result<Message, ParseError> {
        Message::parse(&Bytes::copy_from_slice(text.as_bytes()))
    }

    fn fault(text: &str) -> Fault {
        parse_text(text).unwrap_err().fault
    }

    #[test]
    fn a_request_keeps_every_line_as_written() {
        let Message::Request(request) = parse_text(INVITE).unwrap() else { panic!("a request") };
        assert_eq!((request.method, &request.uri[..]), (Method::Invite, &b"sip:bob@example.com"[..]));
        assert_eq!(request.headers.get(Name::Subject).unwrap(), &b"two lines"[..]);
        assert_eq!(request.headers.get(Name::parse(b"x-odd")).unwrap(), &b""[..]);
        assert_eq!(request.headers.get(Name::From).unwrap(), &b"<sip:a@b>;tag=1"[..]);
        let names: Vec<_> = request.headers.lines().iter().map(|l| String::from_utf8_lossy(l.written_name())).collect();
        assert_eq!(names, ["v", "FROM", "t", "Call-ID", "CSeq", "Subject", "X-Odd", "l"]);
        assert_eq!(request.body, "body");
    }

    #[test]
    fn what_is_encoded_parses_to_the_same_message() {
        let message = parse_text(INVITE).unwrap();
        assert_eq!(Message::parse(&message.encode()).unwrap(), message);
        assert_eq!(
            String::from_utf8_lossy(&message.encode()),
            INVITE.replace("FROM :", "FROM:").replace("Odd:", "Odd: ")
        );
    }

    #[test]
    fn lf_alone_ends_lines_and_leading_line_ends_are_skipped() {
        let lf = INVITE.replace("\r\n", "\n");
        let message = parse_text(&format!("\r\n\n\r\n{lf}")).unwrap();
        assert_eq!(message.headers().lines().len(), 8);
        assert_eq!(message.headers().get(Name::Subject).unwrap(), &b"two lines"[..]);
    }

    #[test]
    fn a_response_may_have_any_phrase_or_none() {
        for (text, phrase) in [
            ("SIP/2.0 200 OK", &b"OK"[..]),
            ("SIP/2.0 200 ", b""),
            ("sip/2.0 200", b""),
            ("SIP/2.0 200 = 2**3 \u{20ac}", "= 2**3 €".as_bytes()),
        ] {
            let Message::Response(response) = parse_text(&format!("{text}\r\n\r\n")).unwrap() else { panic!("{text}") };
            assert_eq!((response.code, &response.reason[..]), (200, phrase));
        }
        for text in [
            "SIP/2.0 20 OK",
            "SIP/2.0 4294967301 OK",
            "SIP/2.0 700 X",
            "SIP/2.0 099 X",
            "SIP/2.0 -200 X",
            "SIP/2.0  200 X",
        ] {
            assert_eq!(fault(&format!("{text}\r\n\r\n")), Fault::StartLine, "{text}");
        }
    }

    #[test]
    fn a_body_longer_than_content_length_is_cut_and_a_shorter_one_is_answered_400() {
        assert_eq!(parse_text(&format!("{INVITE}more")).unwrap().body(), "body");
        let error = parse_text(&INVITE.replace("l: 4", "l: 5")).unwrap_err();
        assert_eq!(error.fault, Fault::ShortBody);
        let answer = error.answerable.unwrap();
        assert_eq!((answer.code, answer.method, answer.headers.lines().len()), (400, Method::Invite, 5));
    }

    #[test]
    fn without_content_length_the_body_is_the_rest() {
        assert_eq!(parse_text(&INVITE.replace("l: 4\r\n", "")).unwrap().body(), "body");
    }

    #[test]
    fn content_lengths_that_are_wrong_or_differ_are_refused() {
        for bad in ["-1", "4x", "", "4, 4", "99999999999999999999999"] {
            assert_eq!(fault(&INVITE.replace("l: 4", &format!("l: {bad}"))), Fault::ContentLength, "{bad}");
        }
        assert_eq!(fault(&INVITE.replace("l: 4", "l: 4\r\nContent-Length: 3")), Fault::ContentLengthConflict);
        let twice = parse_text(&INVITE.replace("l: 4", "l: 4\r\nContent-Length: 4")).unwrap();
        assert_eq!(Message::parse(&twice.encode()).unwrap().headers().count(Name::ContentLength), 1);
    }

    #[test]
    fn start_lines_that_break_the_grammar_are_answered_400() {
        for bad in [
            "INVITE  sip:bob@example.com SIP/2.0",
            "INVITE sip:bob@example.com  SIP/2.0",
            "INVITE sip:bob@example.com SIP/2.0 ",
            "INVITE sip:bob@exa mple.com SIP/2.0",
            "INVITE sip:bob@\texample.com SIP/2.0",
            "INVITE SIP/2.0",
        ] {
            let error = parse_text(&INVITE.replace("INVITE sip:bob@example.com SIP/2.0", bad)).unwrap_err();
            assert_eq!((error.fault, error.answerable.is_some()), (Fault::StartLine, true), "{bad}");
        }
    }

    #[test]
    fn another_version_is_answered_505() {
        let error = parse_text(&INVITE.replace("com SIP/2.0", "com SIP/7.0")).unwrap_err();
        assert_eq!((error.fault, error.answerable.unwrap().code), (Fault::Version, 505));
    }

    #[test]
    fn what_cannot_or_must_not_be_answered_is_not() {
        let broken = INVITE.replace("X-Odd:", "X Odd");
        assert!(parse_text(&broken).unwrap_err().answerable.is_some());
        assert!(parse_text(&broken.replace("INVITE sip", "ACK sip")).unwrap_err().answerable.is_none());
        assert!(parse_text(&broken.replace("CSeq: 1 INVITE\r\n", "")).unwrap_err().answerable.is_none());
        assert!(parse_text("GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap_err().answerable.is_none());
        assert_eq!(fault("\r\n\r\n"), Fault::Empty);
        assert_eq!(fault("INVITE sip:x SIP/2.0\r\nVia: x\r\n"), Fault::NoBlankLine);
    }

    #[test]
    fn a_header_line_too_many_is_refused() {
        let lines = |n: usize| format!("OPTIONS sip:x SIP/2.0\r\n{}\r\n", "A: b\r\n".repeat(n));
        assert!(parse_text(&lines(MAX_HEADERS)).is_ok());
        assert_eq!(fault(&lines(MAX_HEADERS + 1)), Fault::TooManyHeaders);
    }

    #[test]
    fn a_message_over_the_limit_is_refused() {
        let body = |n: usize| format!("OPTIONS sip:x SIP/2.0\r\n\r\n{}", "b".repeat(n));
        assert!(parse_text(&body(MAX_MESSAGE - 25)).is_ok());
        assert_eq!(fault(&body(MAX_MESSAGE - 24)), Fault::TooLarge);
    }

    #[test]
    fn bytes_that_are_not_utf_8_pass_unchanged() {
        let mut bytes = b"OPTIONS sip:x SIP/2.0\r\nSubject: caf\xe9 \x01\xff\r\n\r\n".to_vec();
        bytes.extend_from_slice(&[0, 255, 13, 10, 13]);
        let message = Message::parse(&bytes.into()).unwrap();
        assert_eq!(message.headers().get(Name::Subject).unwrap(), &b"caf\xe9 \x01\xff"[..]);
        assert_eq!(&message.body()[..], [0, 255, 13, 10, 13]);
        assert_eq!(Message::parse(&message.encode()).unwrap().body(), message.body());
    }
}
