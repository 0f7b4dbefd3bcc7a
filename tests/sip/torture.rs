//! The traps of RFC 4475 and RFC 5118, in messages of our own: what is valid is read, what is not is refused in the way
//! that the RFC asks for.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use stickytape::sip::message::{Message, Request, Response};
use stickytape::sip::method::Method;
use stickytape::sip::name::Name;
use stickytape::sip::scan::Fault;
use stickytape::sip::stream::{Frame, Stream};
use stickytape::sip::values::address::addresses;
use stickytape::sip::values::{
    Challenge, Contacts, Essentials, MediaType, NameAddr, Scheme, Uri, ValueError, Via, called_number, fields,
};

enum Expect {
    /// A request that transactions can work with; more in the function.
    Request(fn(&Request, &Essentials)),
    /// A response that transactions can work with.
    Response(fn(&Response, &Essentials)),
    /// Refused while framing, with an answer of this code.
    Fault(Fault, u16),
    /// Framed, and refused with 400 because of a header value or the Request-URI.
    Value(ValueError),
    /// No answer is possible or wanted.
    Drop,
}

use Expect::{Drop, Fault as Faulty, Request as Valid, Response as Answer, Value};

const CASES: &[(&str, Expect)] = &[
    ("folds-blanks-and-cases", Valid(folds_blanks_and_cases)),
    ("every-token-character", Valid(every_token_character)),
    ("escapes-in-uris", Valid(escapes_in_uris)),
    ("escaped-nulls-are-characters", Valid(escaped_nulls)),
    ("percent-that-is-no-escape", Valid(percent_that_is_no_escape)),
    ("no-blank-before-bracket", Valid(|_, e| assert_eq!(e.from.display().unwrap(), &b"ann"[..]))),
    ("very-long-values", Valid(very_long_values)),
    ("second-message-behind-the-first", Valid(|r, e| assert_eq!((r.body.len(), e.cseq.number), (0, 31)))),
    ("parameters-in-the-user-part", Valid(parameters_in_the_user_part)),
    ("transports-known-and-not", Valid(|r, _| assert_eq!(r.headers.values(Name::Via).count(), 5))),
    ("multipart-with-binary", Valid(multipart_with_binary)),
    ("phrase-of-any-characters", Answer(|r, _| assert!(r.reason.ends_with("%41 \t!".as_bytes())))),
    ("phrase-that-is-empty", Answer(|r, _| assert_eq!((r.code, r.reason.len()), (100, 0)))),
    ("phrase-without-its-blank", Answer(|r, _| assert_eq!((r.code, r.reason.len()), (180, 0)))),
    ("separators-without-values", Value(ValueError::Via)),
    ("content-length-too-large", Faulty(Fault::ShortBody, 400)),
    ("content-length-negative", Faulty(Fault::ContentLength, 400)),
    ("content-length-in-words", Faulty(Fault::ContentLength, 400)),
    ("content-lengths-that-differ", Faulty(Fault::ContentLengthConflict, 400)),
    ("numbers-too-large", Value(ValueError::MaxForwards)),
    ("cseq-at-two-to-the-31", Value(ValueError::CSeq)),
    ("max-forwards-over-255", Value(ValueError::MaxForwards)),
    ("response-numbers-too-large", Value(ValueError::CSeq)),
    ("quote-without-end", Value(ValueError::Address)),
    ("brackets-around-request-uri", Value(ValueError::Uri)),
    ("blank-in-request-uri", Faulty(Fault::StartLine, 400)),
    ("blanks-between-start-line-parts", Faulty(Fault::StartLine, 400)),
    ("blanks-behind-start-line", Faulty(Fault::StartLine, 400)),
    ("headers-in-request-uri", Valid(headers_in_request_uri)),
    ("date-in-another-zone", Valid(|_, _| {})),
    ("contact-with-headers-without-brackets", Value(ValueError::Contact)),
    ("blanks-inside-brackets", Valid(|_, e| assert_eq!(e.from.uri().as_bytes(), "sip:ann@example.org"))),
    ("unquoted-comma-in-display-name", Valid(unquoted_comma_in_display_name)),
    ("version-seven", Faulty(Fault::Version, 505)),
    ("cseq-of-another-method", Value(ValueError::CSeqMethod)),
    ("unknown-method-and-other-cseq", Value(ValueError::CSeqMethod)),
    ("code-too-large", Drop),
    ("header-without-colon", Faulty(Fault::HeaderLine, 400)),
    ("bare-cr", Faulty(Fault::BareCr, 400)),
    ("no-blank-line", Faulty(Fault::NoBlankLine, 400)),
    ("lf-only", Valid(|r, _| assert_eq!(&r.body[..], b"v=0\r\n\n"))),
    ("leading-line-ends", Valid(|r, _| assert_eq!(r.method, Method::Options))),
    ("latin-1-display-name", Valid(|_, e| assert_eq!(e.from.display().unwrap(), &b"J\xf6rg M\xfcller"[..]))),
    ("magic-cookie-alone", Valid(|_, e| assert!(!e.via.has_magic_cookie()))),
    ("no-call-id-from-to", Value(ValueError::Missing("Call-ID"))),
    ("unknown-scheme", Valid(|r, _| assert_eq!(uri(r).scheme(), Scheme::Other))),
    ("scheme-with-slashes", Valid(|r, _| assert_eq!(uri(r).scheme_name(), b"xmlrpc.beep"))),
    ("schemes-in-headers", Valid(|_, e| assert_eq!(e.to.uri().scheme_name(), b"isbn"))),
    ("requires-the-unknown", Valid(requires_the_unknown)),
    ("unknown-body", Valid(unknown_body)),
    ("unknown-authorization-scheme", Valid(unknown_authorization_scheme)),
    ("single-headers-twice", Value(ValueError::Repeated("Call-ID"))),
    ("response-with-broadcast-via", Answer(|r, _| assert_eq!(r.headers.values(Name::Via).count(), 2))),
    ("max-forwards-zero", Valid(|_, e| assert_eq!(e.max_forwards, Some(0)))),
    ("parameter-of-the-contact", Valid(|r, _| assert_parameter_is_the_contacts(r, true))),
    ("parameter-of-the-uri", Valid(|r, _| assert_parameter_is_the_contacts(r, false))),
    ("headers-in-contact-uri", Valid(headers_in_contact_uri)),
    ("accepts-no-sdp", Valid(|r, _| assert!(!r.headers.has_token(Name::Accept, b"application/sdp")))),
    ("rfc-2543", Valid(rfc_2543)),
    ("ipv6-reference", Valid(|r, _| assert_host(r, "2001:db8::10", None))),
    ("ipv6-without-brackets", Value(ValueError::Uri)),
    ("ipv6-port-inside-brackets", Valid(|r, _| assert_host(r, "2001:db8::10:5070", None))),
    ("ipv6-port-outside-brackets", Valid(|r, _| assert_host(r, "2001:db8::10", Some(5070)))),
    ("ipv6-received-with-brackets", Valid(|_, e| assert_eq!(e.via.received(), "2001:db8::9:255".parse().ok()))),
    ("ipv6-received-without-brackets", Valid(|_, e| assert_eq!(e.via.received(), "2001:db8::9:255".parse().ok()))),
    ("ipv6-in-sdp", Valid(|r, _| assert!(r.body.windows(7).any(|part| part == b"c=IN IP")))),
    ("ipv4-and-ipv6-vias", Valid(ipv4_and_ipv6_vias)),
    ("ipv4-mapped-ipv6", Valid(|r, _| assert_host(r, "::ffff:192.0.2.10", None))),
    ("ipv6-with-a-colon-too-many", Value(ValueError::Uri)),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/torture")
}

fn read(name: &str) -> Bytes {
    fs::read(folder().join(format!("{name}.sip"))).unwrap_or_else(|error| panic!("{name}: {error}")).into()
}

#[test]
fn every_message_is_read_or_refused_as_the_rfc_asks() {
    for (name, expect) in CASES {
        println!("{name}");
        match (expect, Message::parse(&read(name))) {
            (Valid(check), Ok(Message::Request(request))) => {
                let essentials = Essentials::of_request(&request).unwrap_or_else(|error| panic!("{name}: {error}"));
                check(&request, &essentials);
            }
            (Answer(check), Ok(Message::Response(response))) => {
                let essentials = Essentials::of_response(&response).unwrap_or_else(|error| panic!("{name}: {error}"));
                check(&response, &essentials);
            }
            (Faulty(fault, code), Err(error)) => {
                let answerable = error.answerable.unwrap_or_else(|| panic!("{name}: an answer"));
                assert_eq!((error.fault, answerable.code), (*fault, *code), "{name}");
            }
            (Value(value), Ok(Message::Request(request))) => {
                assert_eq!(Essentials::of_request(&request).unwrap_err(), *value, "{name}");
            }
            (Value(value), Ok(Message::Response(response))) => {
                assert_eq!(Essentials::of_response(&response).unwrap_err(), *value, "{name}");
            }
            (Drop, Err(error)) => assert!(error.answerable.is_none(), "{name}"),
            (_, other) => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn every_file_has_an_expectation() {
    let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let files: BTreeSet<String> = fs::read_dir(folder()).unwrap().map(|entry| stem(entry.unwrap().path())).collect();
    let cases: BTreeSet<String> = CASES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(files, cases);
}

#[test]
fn over_a_stream_the_second_message_is_a_message() {
    let mut stream = Stream::new();
    stream.extend(&read("second-message-behind-the-first"));
    let mut methods = Vec::new();
    while let Ok(Some(Frame::Message(bytes))) = stream.next_frame() {
        let Ok(Message::Request(request)) = Message::parse(&bytes) else { panic!("a request") };
        methods.push(request.method);
    }
    assert_eq!(methods, [Method::Options, Method::Invite]);
}

#[test]
fn over_a_stream_a_length_that_cannot_be_framed_ends_it() {
    for name in
        ["content-length-negative", "content-length-in-words", "content-lengths-that-differ", "rfc-2543", "bare-cr"]
    {
        let mut stream = Stream::new();
        stream.extend(&read(name));
        assert!(stream.next_frame().is_err(), "{name}");
    }
    let mut stream = Stream::new();
    stream.extend(&read("content-length-too-large"));
    assert_eq!(stream.next_frame(), Ok(None), "the rest may still come");
    assert!(stream.is_partial());
}

fn uri(request: &Request) -> Uri {
    Uri::parse(request.uri.clone()).unwrap()
}

fn assert_host(request: &Request, host: &str, port: Option<u16>) {
    let uri = uri(request);
    assert_eq!((uri.host_ip(), uri.port()), (host.parse().ok(), port));
}

fn contacts(request: &Request) -> Vec<NameAddr> {
    match Contacts::of(&request.headers) {
        Ok(Contacts::List(list)) => list,
        other => panic!("a list: {other:?}"),
    }
}

fn folds_blanks_and_cases(request: &Request, e: &Essentials) {
    assert_eq!(e.from.display().unwrap(), &b"R \\ \"Quote\" \\"[..]);
    assert_eq!((e.from.tag(), e.to.tag()), (Some(&b"9f3"[..]), Some(&b"b77"[..])));
    assert_eq!((e.max_forwards, e.cseq.number), (Some(42), 815));
    assert_eq!(
        (e.via.host(), e.via.port(), e.via.branch()),
        (&b"edge.example.net"[..], Some(5062), Some(&b"z9hG4bKfold1"[..]))
    );
    let hosts: Vec<_> = request.headers.values(Name::Via).map(|v| Via::parse(&v).unwrap().host().to_vec()).collect();
    assert_eq!(hosts, [&b"edge.example.net"[..], b"198.51.100.7", b"core.example.net"]);
    assert_eq!(request.headers.get(Name::Subject).unwrap().len(), 0);
    assert_eq!(request.headers.get(Name::parse(b"x-strange")).unwrap(), &b",,;;;=,;\""[..]);
    assert_eq!(addresses(&request.headers, Name::Route).unwrap().len(), 2);
    assert_eq!(contacts(request).len(), 2);
    assert!(uri(request).params().has(b"odd"));
    assert!(MediaType::parse(&request.headers.get(Name::ContentType).unwrap()).unwrap().is_sdp());
}

fn every_token_character(request: &Request, e: &Essentials) {
    assert_eq!(request.method.as_str(), "-x!%y*_+`'~.9Z");
    assert!(!request.method.is_known());
    let uri = uri(request);
    assert_eq!((uri.user().unwrap(), uri.host()), (&b"who~(is)&it=this$here/now?,then;a;b"[..], &b"example.org"[..]));
    assert_eq!(uri.password(), Some(&b"pass,word&=+$"[..]));
    assert_eq!(e.to.display().unwrap(), &b"BEL \x07 NUL \x00 DEL \x7f"[..]);
    assert_eq!(e.from.display().unwrap(), &b"a-.!% *_+ `'~"[..]);
    assert_eq!(e.from.tag(), Some(&b".~`'_+*%!-"[..]));
    assert_eq!(e.from.params().unquoted(b"P`~'.!%*_-+").unwrap(), "ä€\"".as_bytes());
    assert_eq!(&e.call_id[..], b"<(a)>:[b]{c}\\/\"?@w-.!%*_+`'~");
}

fn escapes_in_uris(request: &Request, e: &Essentials) {
    let uri = uri(request);
    assert_eq!(uri.user_unescaped().unwrap(), &b"sip:ann@a.example"[..]);
    assert_eq!(uri.param(b"transport"), Some(&b"%75dp"[..]));
    assert_eq!(called_number(e.to.uri()).unwrap(), "4711");
    assert_eq!(e.from.uri().user_unescaped().unwrap(), &b"ann b"[..]);
    let contact = &contacts(request)[0];
    assert!(contact.uri().is_loose(), "%6c%52 is lr");
    // Decoded once, never twice.
    assert!(contact.uri().equivalent(&Uri::parse(Bytes::from_static(b"sip:an@192.0.2.40;lr;xy=%2541")).unwrap()));
    assert!(!contact.uri().equivalent(&Uri::parse(Bytes::from_static(b"sip:an@192.0.2.40;lr;xy=A")).unwrap()));
}

fn escaped_nulls(request: &Request, e: &Essentials) {
    assert_eq!(e.to.uri().user_unescaped().unwrap(), &b"a\0b"[..]);
    let contacts = contacts(request);
    assert_eq!(contacts[1].uri().user_unescaped().unwrap(), &b"\0\0"[..]);
    assert!(!contacts[0].uri().equivalent(contacts[1].uri()));
}

fn percent_that_is_no_escape(request: &Request, e: &Essentials) {
    assert_eq!(request.method.as_str(), "INV%49TE");
    assert_ne!(request.method, Method::Invite);
    assert_eq!(e.from.display().unwrap(), &b"%41%%zz"[..]);
    assert_eq!((e.from.tag(), e.via.branch()), (Some(&b"%41"[..]), Some(&b"z9hG4bK%41"[..])));
    assert_eq!(contacts(request).len(), 2, "C%6Fntact is another header field");
}

fn very_long_values(request: &Request, e: &Essentials) {
    assert_eq!((e.from.tag().unwrap().len(), e.call_id.len()), (300, 482));
    assert_eq!(e.to.uri().port(), Some(5099));
    assert_eq!(request.headers.values(Name::Via).count(), 33);
}

fn parameters_in_the_user_part(request: &Request, _: &Essentials) {
    let uri = uri(request);
    assert_eq!(uri.user_unescaped().unwrap(), &b"4711;ext=9@x;y"[..]);
    assert_eq!((uri.host(), called_number(&uri).as_deref()), (&b"pbx.example.org"[..], Some("4711")));
    assert_eq!(request.headers.values(Name::Accept).count(), 3);
}

fn multipart_with_binary(request: &Request, _: &Essentials) {
    let kind = MediaType::parse(&request.headers.get(Name::ContentType).unwrap()).unwrap();
    assert_eq!((kind.is_multipart(), kind.boundary().as_deref()), (true, Some(&b"frontier"[..])));
    assert!(request.body.ends_with(b"\0\0\r\n--frontier--\r\n"));
    let written = Message::Request(request.clone()).encode();
    assert!(written.ends_with(&request.body), "bytes of a body stay as they are");
}

fn headers_in_request_uri(request: &Request, _: &Essentials) {
    // They are ignored: the called number is what is routed.
    assert_eq!(called_number(&uri(request)).as_deref(), Some("4711"));
    assert_eq!(uri(request).without_headers().as_bytes(), "sip:4711@pbx.example.org");
}

fn unquoted_comma_in_display_name(_: &Request, e: &Essentials) {
    assert_eq!(e.from.display().unwrap(), &b"Doe, Ann"[..]);
    let mut passed = NameAddr::new(e.from.uri().clone());
    passed.set_display_of(&e.from);
    assert_eq!(passed.encode(), "\"Doe, Ann\" <sip:ann@example.org>", "the error is not passed on");
}

fn requires_the_unknown(request: &Request, _: &Essentials) {
    let required: Vec<_> = request.headers.values(Name::Require).collect();
    assert_eq!(required, [&b"teleport"[..], b"time-travel"]);
    assert!(request.headers.has_token(Name::ProxyRequire, b"worm-hole"));
}

fn unknown_body(request: &Request, _: &Essentials) {
    let kind = MediaType::parse(&request.headers.get(Name::ContentType).unwrap()).unwrap();
    assert!(!kind.is_sdp() && kind.is("application", "x-unheard-of"));
}

fn unknown_authorization_scheme(request: &Request, _: &Essentials) {
    assert_eq!(request.headers.values(Name::Authorization).count(), 1);
    assert!(Challenge::all(&request.headers, Name::Authorization).is_empty());
}

fn assert_parameter_is_the_contacts(request: &Request, the_contacts: bool) {
    let contact = &contacts(request)[0];
    assert_eq!((contact.params().has(b"mine"), contact.uri().params().has(b"mine")), (the_contacts, !the_contacts));
}

fn headers_in_contact_uri(request: &Request, _: &Essentials) {
    let contact = &contacts(request)[0];
    let (name, value) = contact.uri().headers().next().unwrap();
    assert_eq!((name, &value[..]), (&b"Route"[..], &b"<sip:edge.example.org;lr>"[..]));
}

fn rfc_2543(request: &Request, e: &Essentials) {
    assert_eq!((e.via.branch(), e.from.tag(), e.max_forwards), (None, None, None));
    assert!(request.body.starts_with(b"v=0") && request.body.ends_with(b"8000\r\n"));
    assert_eq!(
        addresses(&request.headers, Name::RecordRoute).unwrap()[0].uri().param(b"maddr"),
        Some(&b"192.0.2.8"[..])
    );
}

fn ipv4_and_ipv6_vias(request: &Request, _: &Essentials) {
    let ips: Vec<_> = request.headers.values(Name::Via).map(|via| Via::parse(&via).unwrap().host_ip()).collect();
    assert_eq!(ips, ["2001:db8::9:1", "192.0.2.1", "2001:db8::9:2"].map(|text| text.parse().ok()));
}

#[test]
fn retry_after_and_expires_that_are_too_large_are_the_largest() {
    assert_eq!(fields::number(format!("1{}", "0".repeat(90)).as_bytes()), Ok(u32::MAX));
    assert_eq!(fields::retry_after(b"99999999999999999999999999"), Ok(u32::MAX));
}
