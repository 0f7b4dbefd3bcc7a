//! Which header lines cross from one leg to the other, byte for byte: the table of spec/sip.md §4.

use crate::call_world::*;
use stickytape::sip::method::Method;
use stickytape::sip::name::Name;

const A: usize = 0;
const B: usize = 1;

/// Bytes as they are.
struct Bare(Vec<u8>);

impl Wire for Bare {
    fn wire(&self) -> bytes::Bytes {
        self.0.clone().into()
    }
}

/// Lines that pass, byte for byte and in this order: folded, Latin-1, repeated, in any case.
const PASS: &[&[u8]] = &[
    b"sUBJECT: caf\xe9,\r\n  folded",
    b"Organization: \"Q, Inc\"",
    b"Priority: urgent",
    b"User-to-User: 00;encoding=hex",
    b"Session-ID: ab;remote=00",
    b"X-Thing: 1",
    b"Alert-Info: <http://a/b>",
    b"Call-Info: <http://a/b>;purpose=icon",
    b"Reason: Q.850;cause=16",
    b"History-Info: <sip:a@b>;index=1",
    b"x-thing: 2, 3",
    b"Diversion: <sip:a@b>",
    b"Privacy: id",
    b"Accept-Language: da",
    b"Geolocation: <cid:a@b>",
    b"P-Early-Media: supported",
    b"X-Thing: 4",
];

/// Lines that pass between trusted peers only.
const TRUSTED: &[&[u8]] =
    &[b"P-Asserted-Identity: <sip:a@b>", b"P-Charging-Vector: icid-value=1", b"Identity: a.b.c;info=<http://a/b>"];

/// Lines that are ours or consumed: as the peer wrote them they never pass.
const STAY: &[&[u8]] = &[
    b"Route: <sip:192.0.2.1;lr>",
    b"Allow: PEER",
    b"Supported: peer",
    b"Session-Expires: 1801",
    b"Min-SE: 91",
    b"RSeq: 7",
    b"RAck: 7 1 INVITE",
    b"Authorization: Digest peer",
    b"Proxy-Authorization: Digest peer",
    b"User-Agent: peer",
    b"Server: peer",
    b"Replaces: peer;to-tag=1;from-tag=2",
    b"Join: peer;to-tag=1;from-tag=2",
    b"Refer-To: <sip:peer@b>",
    b"Referred-By: <sip:peer@b>",
    b"Refer-Sub: false",
    b"Target-Dialog: peer",
    b"Event: peer",
    b"X-Stickytape-ConnID: peer",
    b"Date: Sat, 13 Nov 2010 23:29:00 GMT",
    b"Unknown-Thing: peer",
];

fn with_lines(message: bytes::Bytes, lines: &[&[u8]]) -> Bare {
    let end = message.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 2;
    let mut bytes = message[..end].to_vec();
    for line in lines {
        bytes.extend_from_slice(line);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(&message[end..]);
    Bare(bytes)
}

fn count(message: &bytes::Bytes, line: &[u8]) -> usize {
    let line = [b"\r\n", line, b"\r\n"].concat();
    message.windows(line.len()).filter(|w| *w == line).count()
}

#[test]
fn every_line_of_the_table_passes_or_stays_byte_for_byte_in_requests_and_responses() {
    let lines: Vec<&[u8]> = [PASS, TRUSTED, STAY].concat();
    for trusted in [false, true] {
        let mut options = options();
        options.plan.dns[0].trusted = true;
        options.plan.dns[1].trusted = trusted;
        let mut world = World::new(options);
        world.raw("10.0.0.1:5060");
        world.raw("10.0.0.2:5060");
        let offer = sdp("10.0.0.1", 4000, "0 8 101", "sendrecv");
        let mut invite = world.raws[A].invite("2002", "c", Some(&offer));
        invite.headers.set(Name::From, "<sip:2001@10.0.0.1>;tag=fc");
        // Replaces and Join in it would be obeyed: replaces.rs, focus.rs.
        let obeyed = |line: &[u8]| line.starts_with(b"Replaces") || line.starts_with(b"Join");
        let beside: Vec<&[u8]> = lines.iter().copied().filter(|line| !obeyed(line)).collect();
        let bare = with_lines(invite.encode(), &beside);
        world.raws[A].send(bare);
        world.run(ms(50));
        let received = world.raws[B].requests(Method::Invite).remove(0);
        check(&received.encode(), trusted);
        for (code, tag) in [(180, "b"), (486, "b")] {
            let reply = world.raws[B].reply(&received, code, tag, None);
            let bare = with_lines(reply.encode(), &lines);
            world.raws[B].send(bare);
            world.run(ms(50));
            let told = world.raws[A].responses("INVITE").pop().unwrap();
            assert_eq!(told.code, code);
            check(&told.encode(), trusted);
        }
        world.settle();
    }
}

fn check(message: &bytes::Bytes, trusted: bool) {
    let shown = || String::from_utf8_lossy(message).into_owned();
    for line in PASS {
        assert_eq!(count(message, line), 1, "{}\n{}", String::from_utf8_lossy(line), shown());
    }
    for line in TRUSTED {
        assert_eq!(count(message, line), usize::from(trusted), "{}", String::from_utf8_lossy(line));
    }
    for line in STAY {
        assert_eq!(count(message, line), 0, "{}", String::from_utf8_lossy(line));
    }
    let at = |line: &[u8]| message.windows(line.len()).position(|w| w == line);
    let things = [at(b"X-Thing: 1\r\n"), at(b"x-thing: 2, 3\r\n"), at(b"X-Thing: 4\r\n")];
    assert!(things.is_sorted(), "repeated lines keep their order");
}
