//! The body of the parser's fuzzer: what must hold for any bytes. `tests/sip/fuzz.rs` feeds it.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use bytes::Bytes;

use super::headers::Headers;
use super::message::Message;
use super::method::Method;
use super::name::Name;
use super::scan::Fault;
use super::stream::{Frame, Stream};
use super::values::{
    CSeq, Challenge, Contacts, Essentials, EventPackage, MediaType, NameAddr, RAck, Reason, ReferTo, Replaces,
    SessionExpires, SubscriptionState, TargetDialog, Uri, ValueError, Via, called_number, fields, refer_sub,
    referred_by,
};

/// Reads the bytes in every way that bytes from the network are read. Panics when a rule is broken; returns a number for
/// everything that was noticed about them, so that a fuzzer can keep the inputs that show something new.
pub fn fuzz_parse(data: &[u8]) -> Vec<u64> {
    let mut seen = Vec::new();
    let bytes = Bytes::copy_from_slice(data);
    match Message::parse(&bytes) {
        Ok(message) => {
            read_headers(message.headers(), &mut seen);
            read_whole(&message, &mut seen);
            write_again(&message);
        }
        Err(error) => {
            note(&mut seen, ("fault", error.fault.to_string(), error.answerable.is_some()));
            if let Some(answerable) = error.answerable {
                assert_ne!(answerable.method, Method::Ack, "an ACK is never answered");
                for name in [Name::Via, Name::From, Name::To, Name::CallId, Name::CSeq] {
                    assert!(answerable.headers.has(name), "an answer needs {name:?}");
                }
            }
        }
    }
    split_stream(data, &mut seen);
    seen
}

fn note(seen: &mut Vec<u64>, what: impl Hash) {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    seen.push(hasher.finish());
}

/// What is written parses to the same message, and is written the same way again.
fn write_again(message: &Message) {
    let written = message.encode();
    let again = match Message::parse(&written) {
        Ok(again) => again,
        // Writing adds a blank after the colon and perhaps a Content-Length.
        Err(error) => {
            let grown = [Fault::TooLarge, Fault::LineTooLong, Fault::TooManyHeaders];
            assert!(grown.contains(&error.fault), "what was written does not parse: {error:?}");
            return;
        }
    };
    assert_eq!(again.encode(), written, "written differently");
    assert_eq!(again.body(), message.body());
    let lines = |message: &Message| {
        let others = message.headers().lines().iter().filter(|line| line.name() != Name::ContentLength);
        others.map(|line| (line.written_name().to_vec(), line.raw().clone())).collect::<Vec<_>>()
    };
    assert_eq!(lines(&again), lines(message));
    match (message, &again) {
        (Message::Request(a), Message::Request(b)) => assert_eq!((&a.method, &a.uri), (&b.method, &b.uri)),
        (Message::Response(a), Message::Response(b)) => assert_eq!((a.code, &a.reason), (b.code, &b.reason)),
        _ => panic!("a request is not a response"),
    }
    let mut stream = Stream::new();
    stream.extend(&written);
    assert_eq!(stream.next_frame(), Ok(Some(Frame::Message(written))), "a stream frames what was written");
    assert!(!stream.is_partial());
}

fn read_whole(message: &Message, seen: &mut Vec<u64>) {
    match message {
        Message::Request(request) => {
            note(seen, ("known", request.method.is_known()));
            let error = Essentials::of_request(request).map_err(|error| error.to_string()).err();
            note(seen, ("request", error));
            let uri = Uri::parse(request.uri.clone());
            note(seen, ("uri", uri.as_ref().map(Uri::is_sip).ok()));
            uri.iter().for_each(check_uri);
        }
        Message::Response(response) => {
            let error = Essentials::of_response(response).map_err(|error| error.to_string()).err();
            note(seen, ("response", response.code / 100, error));
        }
    }
}

/// Every value is read as everything: what a value is not must be refused, not fallen over.
fn read_headers(headers: &Headers, seen: &mut Vec<u64>) {
    for line in headers.lines() {
        let value = line.value();
        assert!(!value.contains(&b'\n'), "an unfolded value has one line");
        for single in headers.values(line.name()).take(16) {
            assert!(!single.is_empty() || !line.name().is_list(), "a list has no empty element");
            let read = read_value(&single);
            if !matches!(line.name(), Name::Other(_)) {
                note(seen, (line.name().as_bytes(), read));
            }
        }
        read_value(&value);
    }
    note(seen, ("contacts", Contacts::of(headers).is_ok()));
    read_transfer(headers, seen);
    for name in [Name::WwwAuthenticate, Name::ProxyAuthenticate] {
        note(seen, ("challenges", Challenge::all(headers, name).len().min(4)));
    }
    // Taking values off the front ends, and takes as many as there are.
    let mut rest = headers.clone();
    let vias = rest.values(Name::Via).count();
    for _ in 0..vias {
        assert!(rest.remove_first(Name::Via));
    }
    assert_eq!(rest.values(Name::Via).count(), 0);
}

fn read_value(value: &[u8]) -> [bool; 13] {
    let address = NameAddr::parse(value);
    if let Ok(address) = &address {
        check_address(address);
    }
    let via = Via::parse(value);
    if let Ok(via) = &via {
        let mut again = Via::parse(&via.encode()).expect("a written Via parses");
        assert_eq!(again.encode(), via.encode());
        again.note_source(([192, 0, 2, 1], 5060).into());
        let noted = Via::parse(&again.encode()).expect("a Via with its source parses");
        assert_eq!((noted.branch(), noted.host(), noted.port()), (via.branch(), via.host(), via.port()));
    }
    let cseq = CSeq::parse(value);
    if let Ok(cseq) = &cseq {
        assert_eq!(CSeq::parse(&cseq.encode()).as_ref(), Ok(cseq));
    }
    let _ = (RAck::parse(value), fields::number(value), fields::retry_after(value), fields::min_se(value));
    let media = MediaType::parse(value);
    let _ = media.as_ref().map(MediaType::boundary);
    let refer = reads_back(value, ReferTo::parse, ReferTo::encode);
    [
        address.is_ok(),
        via.is_ok(),
        cseq.is_ok(),
        media.is_ok(),
        Reason::parse(value).is_ok_and(|reason| reason.cause.is_some()),
        refer.is_some(),
        refer.as_ref().is_some_and(|refer| refer.replaces.is_some()),
        refer.is_some_and(|refer| !refer.headers.lines().is_empty()),
        reads_back(value, Replaces::parse, Replaces::encode).is_some(),
        reads_back(value, TargetDialog::parse, TargetDialog::encode).is_some(),
        reads_back(value, EventPackage::parse, EventPackage::encode).is_some(),
        reads_back(value, SubscriptionState::parse, SubscriptionState::encode).is_some(),
        reads_back(value, SessionExpires::parse, SessionExpires::encode).is_some(),
    ]
}

/// What is read is the same when it is written and read again, and is written on one line.
fn reads_back<T: PartialEq + std::fmt::Debug>(
    value: &[u8],
    parse: fn(&[u8]) -> Result<T, ValueError>,
    encode: fn(&T) -> Bytes,
) -> Option<T> {
    let read = parse(value).ok()?;
    let written = encode(&read);
    assert!(!written.iter().any(|b| matches!(b, b'\r' | b'\n')), "written on two lines");
    assert_eq!(parse(&written).as_ref(), Ok(&read), "{}", written.escape_ascii());
    Some(read)
}

/// What a REFER or an INVITE is asked for as a whole.
fn read_transfer(headers: &Headers, seen: &mut Vec<u64>) {
    let refer = ReferTo::of(headers).map(|refer| refer.replaces.is_some()).map_err(|error| error.to_string());
    let replaces = Replaces::of(headers).map(|replaces| replaces.is_some()).map_err(|error| error.to_string());
    let target = TargetDialog::of(headers).map(|target| target.is_some()).map_err(|error| error.to_string());
    note(seen, ("transfer", refer, replaces, target));
    note(seen, ("referred", refer_sub(headers).ok(), referred_by(headers).map(|by| by.is_some()).ok()));
    note(seen, ("subscription", EventPackage::of(headers).is_ok(), SubscriptionState::of(headers).is_ok()));
}

fn check_address(address: &NameAddr) {
    check_uri(address.uri());
    let again = NameAddr::parse(&address.encode()).expect("a written address parses");
    assert_eq!(again.encode(), address.encode());
    assert_eq!((again.display(), again.tag(), again.uri()), (address.display(), address.tag(), address.uri()));
    let mut changed = address.clone();
    changed.set_tag(b"t1");
    changed.set_display(Some(b"a\"b\\"));
    let changed = NameAddr::parse(&changed.encode()).expect("a changed address parses");
    assert_eq!((changed.tag(), changed.display().as_deref()), (Some(&b"t1"[..]), Some(&b"a\"b\\"[..])));
    assert_eq!(changed.uri(), address.uri());
}

fn check_uri(uri: &Uri) {
    let _ = (called_number(uri), uri.user_unescaped(), uri.headers().count());
    assert!(uri.equivalent(uri), "a URI is equivalent to itself");
    if uri.is_sip() {
        let moved = uri.with_address(([192, 0, 2, 1], 5060).into());
        assert_eq!((moved.host(), moved.port()), (&b"192.0.2.1"[..], Some(5060)));
        assert_eq!((moved.user(), moved.params()), (uri.user(), uri.params()));
        assert_eq!(uri.with_user(Some(b"x y")).user(), Some(&b"x%20y"[..]));
        assert_eq!(uri.with_param(b"lr", None).param(b"lr"), Some(&b""[..]));
        assert!(!uri.without_param(b"transport").params().has(b"transport"));
        assert_eq!(uri.without_headers().headers().count(), 0);
    }
}

/// Frames do not depend on where the bytes were split.
fn split_stream(data: &[u8], seen: &mut Vec<u64>) {
    let whole = frames(std::iter::once(data));
    let mut seed = DefaultHasher::new();
    data.hash(&mut seed);
    let mut seed = seed.finish() | 1;
    let mut rest = data;
    let pieces = std::iter::from_fn(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (piece, after) = rest.split_at_checked((seed >> 59) as usize % 32 + 1).unwrap_or((rest, &[]));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    });
    let split = frames(pieces);
    assert_eq!(split, whole, "frames depend on the split");
    note(seen, ("stream", whole.0.len().min(3), whole.1.map(|fault| fault.to_string())));
}

fn frames<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<Fault>) {
    let mut stream = Stream::new();
    let mut frames = Vec::new();
    for piece in pieces {
        stream.extend(piece);
        loop {
            match stream.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error.fault)),
            }
        }
    }
    (frames, None)
}
