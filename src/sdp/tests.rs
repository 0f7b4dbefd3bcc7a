//! Tables and properties over the whole module.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::session::{MAX_BODY, MAX_MEDIA, MAX_PAYLOADS};
use super::*;
use crate::codec::{Codec, Direction};

const OURS_A: &str = "10.0.0.1:10000";
const OURS_B: &str = "10.0.0.1:10002";

fn allowed() -> Vec<Codec> {
    vec![Codec::pcmu(), Codec::pcma(), Codec::new("L16", 8_000, 1), Codec::telephone_event()]
}

fn local(address: &str) -> Local {
    Local::new(address.parse().unwrap(), 7)
}

/// A description of a peer at 192.0.2.1 with the given lines after `t=`.
fn peer(lines: &str) -> Session {
    Session::parse(peer_text(lines).as_bytes()).unwrap()
}

fn peer_text(lines: &str) -> String {
    format!("v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n{lines}")
}

fn parse(body: &[u8]) -> Session {
    Session::parse(body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(body)))
}

fn text(body: &[u8]) -> String {
    String::from_utf8(body.to_vec()).unwrap()
}

fn line(body: &[u8], start: &str) -> String {
    text(body).lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no {start}")).to_owned()
}

fn version(body: &[u8]) -> u64 {
    line(body, "o=").split(' ').nth(2).unwrap().parse().unwrap()
}

fn numbers(payloads: &[crate::codec::Payload]) -> Vec<(u8, String)> {
    payloads.iter().map(|payload| (payload.payload_type, payload.codec.to_string())).collect()
}

/// A call D1 → D2 as call control walks it; returns both dialogs and the body of D1's answer.
fn call(offer: &Session, answer: &Session) -> Result<(Local, Local, Vec<u8>), Refusal> {
    let (mut d1, mut d2) = (local(OURS_A), local(OURS_B));
    d2.offer(&offer.terms()?.restricted_to(&allowed()));
    d2.apply_answer(answer)?;
    let body = d1.answer(offer, &answer.terms()?)?;
    Ok((d1, d2, body.to_vec()))
}

#[test]
fn an_untidy_description_is_read() {
    let session = parse(include_bytes!("../../fixtures/sdp/untidy.sdp"));
    assert_eq!(session.media.len(), 2);
    let audio = session.audio().unwrap();
    assert_eq!(audio.rtp_address(), Some("192.0.2.7:4000".parse().unwrap()));
    assert_eq!(audio.rtcp_address(), Some("192.0.2.7:4001".parse().unwrap()));
    assert_eq!(audio.direction(), Direction::SendOnly, "session level");
    assert_eq!(session.media[1].direction(), Direction::Inactive, "media level wins");
    assert_eq!((audio.ptime, audio.maxptime), (Some(30), Some(60)));
    assert_eq!(audio.lang, ["de"]);
    let found: Vec<_> = audio.payloads.iter().map(|f| (f.payload_type, f.codec.to_string())).collect();
    let expected = [(8, "PCMA/8000"), (0, "PCMU/8000"), (97, "l16/8000/1"), (99, "telephone-event/8000")];
    assert_eq!(
        found,
        expected.map(|(n, c)| (n, c.to_owned())),
        "duplicates, numbers over 127 and unmapped ones are out"
    );
    assert_eq!(audio.payloads[3].fmtp.as_deref(), Some("0-16"));
}

#[test]
fn the_first_plain_audio_line_is_the_anchor() {
    let session = parse(include_bytes!("../../fixtures/sdp/browser.sdp"));
    assert_eq!(session.anchor(), Ok(1));
    let audio = session.audio().unwrap();
    assert!(audio.rtcp_mux && audio.has_crypto);
    assert_eq!(audio.rtcp_address(), Some("[2001:db8::a]:6001".parse().unwrap()));
    assert_eq!(audio.label.as_deref(), Some("agent"));
}

#[test]
fn latin_1_bytes_do_not_cost_the_call() {
    let body = b"v=0\ns=M\xfcller\nc=IN IP4 192.0.2.1\nm=audio 4000 RTP/AVP 0\na=label:M\xfc\n";
    assert!(parse(body).audio().is_ok());
}

#[test]
fn limits_are_errors() {
    assert_eq!(Session::parse(&vec![b'x'; MAX_BODY + 1]), Err(ParseError::TooLong));
    let lines = "m=audio 4000 RTP/AVP 0\r\n".repeat(MAX_MEDIA);
    assert!(Session::parse(peer_text(&lines).as_bytes()).is_ok());
    let lines = "m=audio 4000 RTP/AVP 0\r\n".repeat(MAX_MEDIA + 1);
    assert_eq!(Session::parse(peer_text(&lines).as_bytes()), Err(ParseError::TooManyMedia));
    let list = " 0".repeat(MAX_PAYLOADS + 1);
    let text = peer_text(&format!("m=audio 4000 RTP/AVP{list}\r\n"));
    assert_eq!(Session::parse(text.as_bytes()), Err(ParseError::TooManyPayloads));
    for text in ["", "hello", "v=1\r\n", "v=0\r\nm=audio x RTP/AVP 0\r\n"] {
        assert!(matches!(Session::parse(text.as_bytes()), Err(ParseError::Malformed(_))), "{text}");
    }
}

#[test]
fn audio_that_cannot_be_anchored_is_refused_with_its_reason() {
    let table = [
        ("m=video 4000 RTP/AVP 31\r\n", Refusal::NoAudio, 304),
        ("m=image 4000 udptl t38\r\n", Refusal::NoAudio, 304),
        ("m=audio 0 RTP/AVP 0\r\n", Refusal::NoAudio, 304),
        ("m=audio 4000 RTP/SAVP 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x\r\n", Refusal::SecureOnly, 302),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n", Refusal::SecureOnly, 302),
        ("m=audio 4000 TCP/RTP/AVP 0\r\n", Refusal::Transport, 302),
        ("m=audio 4000/2 RTP/AVP 0\r\n", Refusal::PortRange, 399),
        ("m=audio 4000 RTP/AVP 0\r\nc=IN IP4 224.2.1.1/127\r\n", Refusal::Multicast, 330),
        ("m=audio 4000 RTP/AVP 0\r\nc=IN IP6 2001:db8::1/4\r\n", Refusal::Multicast, 330),
        ("m=audio 4000 RTP/AVP 0\r\nc=IN IP4 media.example.com\r\n", Refusal::Address, 301),
        ("m=audio 4000 RTP/AVP 0\r\nc=TN RFC2543 +123\r\n", Refusal::Address, 301),
        ("m=audio 4000 RTP/AVP 101\r\na=rtpmap:101 telephone-event/8000\r\n", Refusal::NoSharedCodec, 305),
        ("m=audio 4000 RTP/AVP 96\r\n", Refusal::NoSharedCodec, 305),
        ("m=audio 0 RTP/AVP 0\r\nm=audio 4000 RTP/SAVP 0\r\n", Refusal::SecureOnly, 302),
    ];
    for (lines, refusal, warning) in table {
        let offer = peer(lines);
        assert_eq!(offer.terms(), Err(refusal), "{lines}");
        assert_eq!(refusal.warning_code(), warning, "{lines}");
        assert_eq!(local(OURS_A).answer(&offer, &Terms::of(&allowed(), Direction::SendRecv)), Err(refusal), "{lines}");
    }
    assert_eq!(Session::parse(b"v=0\r\nm=audio 4000 RTP/AVP 0\r\n").unwrap().terms(), Err(Refusal::Address));
}

#[test]
fn an_address_of_the_other_family_is_refused_before_anything_changes() {
    let six = peer("m=audio 4000 RTP/AVP 0\r\nc=IN IP6 2001:db8::1\r\n");
    let mut dialog = local(OURS_A);
    assert_eq!(dialog.answer(&six, &Terms::of(&allowed(), Direction::SendRecv)), Err(Refusal::Address));
    dialog.offer(&Terms::of(&allowed(), Direction::SendRecv));
    assert_eq!(dialog.apply_answer(&six), Err(Refusal::Address));
    assert!(dialog.has_open_offer() && dialog.negotiated().is_none());
    let mut dialog = local("[2001:db8::1]:10000");
    let body = dialog.answer(&six, &Terms::of(&allowed(), Direction::SendRecv)).unwrap();
    assert_eq!(line(&body, "c="), "c=IN IP6 2001:db8::1");
}

#[test]
fn only_the_allow_list_is_carried_to_the_other_dialog() {
    let offer = parse(include_bytes!("../../fixtures/sdp/browser.sdp"));
    let body = text(&local(OURS_A).offer(&offer.terms().unwrap()));
    assert_eq!(
        body,
        "v=0\r\no=- 7 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\n\
         m=audio 10000 RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n\
         a=label:agent\r\na=recvonly\r\n"
    );
}

#[test]
fn a_call_shares_the_codecs_that_both_sides_have() {
    let offer =
        peer("m=audio 4000 RTP/AVP 9 8 0 96\r\na=rtpmap:96 telephone-event/8000\r\na=fmtp:96 0-15\r\na=ptime:40\r\n");
    let answer = peer("m=audio 5000 RTP/AVP 101 0\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-11\r\n");
    let (d1, d2, body) = call(&offer, &answer).unwrap();
    assert_eq!(line(&body, "m="), "m=audio 10000 RTP/AVP 96 0", "D1's own numbers, D2's order");
    assert_eq!(line(&body, "a=fmtp"), "a=fmtp:96 0-11", "the parameters are D2's");
    assert_eq!(line(&body, "a=send"), "a=sendrecv");
    let (n1, n2) = (d1.negotiated().unwrap(), d2.negotiated().unwrap());
    let event = |number| (number, "telephone-event/8000".to_owned());
    let pcmu = (0, "PCMU/8000".to_owned());
    assert_eq!(numbers(&n1.send), [pcmu.clone(), event(96)]);
    assert_eq!(numbers(&n1.receive), [event(96), pcmu.clone()]);
    assert_eq!(numbers(&n2.send), [pcmu.clone(), event(101)], "sound first");
    assert_eq!(numbers(&n2.receive), [(8, "PCMA/8000".to_owned()), pcmu, event(96)], "all that we offered");
    assert_eq!((n1.ptime_ms, n2.ptime_ms), (40, 20));
    assert_eq!(n1.rtp, Some("192.0.2.1:4000".parse().unwrap()));
    assert_eq!(n2.rtcp, Some("192.0.2.1:5001".parse().unwrap()));
}

#[test]
fn a_call_without_a_shared_codec_is_refused() {
    let offer = peer("m=audio 4000 RTP/AVP 8 0\r\n");
    assert_eq!(call(&offer, &peer("m=audio 5000 RTP/AVP 9\r\n")).unwrap_err(), Refusal::NoSharedCodec);
    assert_eq!(call(&offer, &peer("m=audio 0 RTP/AVP 0\r\n")).unwrap_err(), Refusal::NoAudio);
    let only_g722 = peer("m=audio 4000 RTP/AVP 9 101\r\na=rtpmap:101 telephone-event/8000\r\n");
    assert!(!only_g722.terms().unwrap().restricted_to(&allowed()).has_audio_codec());
}

#[test]
fn directions_follow_rfc_3264_section_6_1() {
    use Direction::*;
    // Offered by D1, answered by D2 → written to D1, our direction towards D1.
    let table = [
        (SendRecv, SendRecv, SendRecv),
        (SendRecv, RecvOnly, RecvOnly),
        (SendRecv, SendOnly, SendOnly),
        (SendRecv, Inactive, Inactive),
        (SendOnly, RecvOnly, RecvOnly),
        (SendOnly, SendRecv, RecvOnly),
        (RecvOnly, SendOnly, SendOnly),
        (RecvOnly, SendRecv, SendOnly),
        (Inactive, SendRecv, Inactive),
        (SendOnly, Inactive, Inactive),
    ];
    let name = |direction| match direction {
        SendRecv => "sendrecv",
        SendOnly => "sendonly",
        RecvOnly => "recvonly",
        Inactive => "inactive",
    };
    for (offered, answered, expected) in table {
        let offer = peer(&format!("m=audio 4000 RTP/AVP 0\r\na={}\r\n", name(offered)));
        let answer = peer(&format!("m=audio 5000 RTP/AVP 0\r\na={}\r\n", name(answered)));
        let (d1, d2, body) = call(&offer, &answer).unwrap();
        assert!(text(&body).contains(&format!("a={}\r\n", name(expected))), "{offered:?} {answered:?}");
        assert_eq!(d1.negotiated().unwrap().direction, expected, "{offered:?} {answered:?}");
        // What D1 may send D2 may receive, and the other way round.
        assert_eq!(d2.negotiated().unwrap().direction, expected.reversed(), "{offered:?} {answered:?}");
    }
}

#[test]
fn the_null_address_is_hold_in_either_level_and_family() {
    let table = [
        ("c=IN IP4 0.0.0.0\r\nm=audio 4000 RTP/AVP 0\r\n", Direction::SendOnly),
        ("m=audio 4000 RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\n", Direction::SendOnly),
        ("m=audio 4000 RTP/AVP 0\r\nc=IN IP6 ::\r\n", Direction::SendOnly),
        ("m=audio 4000 RTP/AVP 0\r\nc=IN IP6 hold.invalid\r\n", Direction::SendOnly),
        ("m=audio 4000 RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\na=recvonly\r\n", Direction::Inactive),
        ("m=audio 4000 RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\na=inactive\r\n", Direction::Inactive),
    ];
    for (lines, direction) in table {
        let offer = parse(format!("v=0\r\n{lines}").as_bytes());
        assert_eq!(offer.terms().unwrap().direction, direction, "{lines}");
        let mut dialog = local(OURS_A);
        let body = dialog.answer(&offer, &Terms::of(&allowed(), Direction::SendRecv)).unwrap();
        assert_eq!(parse(&body).audio().unwrap().direction(), direction.reversed(), "{lines}");
        let negotiated = dialog.negotiated().unwrap();
        assert_eq!((negotiated.rtp, negotiated.rtcp), (None, None), "{lines}");
        assert!(!negotiated.direction.sends(), "{lines}");
    }
}

#[test]
fn the_version_grows_by_one_exactly_when_the_body_changes() {
    let mut dialog = local(OURS_A);
    let terms = Terms::of(&allowed(), Direction::SendRecv);
    let first = dialog.offer(&terms);
    assert_eq!(version(&first), 1);
    dialog.apply_answer(&peer("m=audio 4000 RTP/AVP 0\r\n")).unwrap();
    assert_eq!(dialog.offer(&terms), first, "the same body, byte for byte");
    dialog.offer_failed();
    let held = dialog.offer(&terms.clone().with_direction(Direction::SendOnly));
    assert_eq!(version(&held), 2);
    dialog.offer_failed();
    assert_eq!(dialog.terms().unwrap().direction, Direction::SendRecv, "a refused offer changes nothing");
    let again = dialog.offer(&terms);
    assert_eq!(version(&again), 3, "it differs from the body sent last");
    dialog.apply_answer(&peer("m=audio 4000 RTP/AVP 0\r\n")).unwrap();
    let refresh = dialog.answer_alone(&peer("m=audio 4000 RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\n"));
    assert_eq!(version(&refresh.unwrap()), 4, "fewer codecs than the offer had");
}

#[test]
fn the_session_id_and_address_stay() {
    let mut dialog = local(OURS_A);
    let one = dialog.offer(&Terms::of(&allowed(), Direction::SendRecv));
    dialog.apply_answer(&peer("m=audio 4000 RTP/AVP 0\r\n")).unwrap();
    let two = dialog.offer(&Terms::of(&[Codec::pcmu()], Direction::SendRecv));
    assert!(line(&one, "o=").starts_with("o=- 7 1 ") && line(&two, "o=").starts_with("o=- 7 2 "));
}

#[test]
fn a_full_offer_has_the_numbers_of_rfc_3551_and_sixteen_digits() {
    let body = text(&local(OURS_A).offer(&Terms::of(&allowed(), Direction::SendRecv)));
    assert!(body.contains("m=audio 10000 RTP/AVP 0 8 96 101\r\n"), "{body}");
    assert!(body.contains("a=rtpmap:96 L16/8000/1\r\n"), "{body}");
    assert!(body.contains("a=fmtp:101 0-15\r\n"), "{body}");
    let preferred = Terms::of(&allowed(), Direction::SendRecv).preferring(&Codec::pcma());
    assert!(text(&local(OURS_A).offer(&preferred)).contains("RTP/AVP 8 0 96 101\r\n"));
}

#[test]
fn a_number_once_bound_keeps_its_codec() {
    let mut dialog = local(OURS_A);
    // We bind 96 to L16 and 101 to telephone-event.
    dialog.offer(&Terms::of(&allowed(), Direction::SendRecv));
    dialog.apply_answer(&peer("m=audio 4000 RTP/AVP 0\r\n")).unwrap();
    // The peer uses 101 for L16, 96 for events, and 0 with a codec of its own.
    let offer = peer(
        "m=audio 4000 RTP/AVP 101 96 0\r\na=rtpmap:101 L16/8000\r\na=rtpmap:96 telephone-event/8000\r\n\
         a=rtpmap:0 GSM/8000\r\n",
    );
    let mut terms = offer.terms().unwrap();
    let body = dialog.answer(&offer, &terms).unwrap();
    assert_eq!(line(&body, "m="), "m=audio 10000 RTP/AVP 96 101 97");
    let negotiated = dialog.negotiated().unwrap();
    let named = |n, name: &str| (n, name.to_owned());
    assert_eq!(
        numbers(&negotiated.send),
        [named(101, "L16/8000/1"), named(0, "GSM/8000"), named(96, "telephone-event/8000")]
    );
    assert_eq!(
        numbers(&negotiated.receive),
        [named(96, "L16/8000/1"), named(101, "telephone-event/8000"), named(97, "GSM/8000")]
    );
    terms.formats.reverse();
    let again = dialog.offer(&terms);
    assert_eq!(line(&again, "m="), "m=audio 10000 RTP/AVP 97 101 96");
}

#[test]
fn of_two_numbers_with_one_codec_the_first_is_taken() {
    let offer = peer(
        "m=audio 4000 RTP/AVP 96 97\r\na=rtpmap:96 AMR/8000\r\na=fmtp:96 octet-align=1\r\na=rtpmap:97 AMR/8000\r\n",
    );
    let terms = offer.terms().unwrap();
    assert_eq!(terms.formats.len(), 1);
    assert_eq!(terms.formats[0].fmtp.as_deref(), Some("octet-align=1"));
}

#[test]
fn numbers_run_out_without_harm() {
    let mut dialog = local(OURS_A);
    let codecs: Vec<_> = (0..200).map(|n| Codec::new(&format!("C{n}"), 8_000, 1)).collect();
    let body = dialog.offer(&Terms::of(&codecs, Direction::SendRecv));
    let count = line(&body, "m=").split(' ').count() - 3;
    assert_eq!(count, 32 + 29);
}

#[test]
fn other_lines_are_refused_in_place() {
    let offer = peer("m=video 4002 RTP/AVP 31 34\r\nm=audio 4000 RTP/AVPF 0\r\nm=image 4004 udptl t38\r\n");
    let mut dialog = local(OURS_A);
    let body = dialog.answer(&offer, &Terms::of(&allowed(), Direction::SendRecv)).unwrap();
    let lines: Vec<_> = text(&body).lines().filter(|line| line.starts_with("m=")).map(str::to_owned).collect();
    assert_eq!(lines, ["m=video 0 RTP/AVP 31 34", "m=audio 10000 RTP/AVPF 0", "m=image 0 udptl t38"]);
}

#[test]
fn the_list_of_lines_never_shrinks() {
    let mut dialog = local(OURS_A);
    let terms = Terms::of(&[Codec::pcmu()], Direction::SendRecv);
    let media = |body: &[u8]| -> Vec<_> {
        text(body).lines().filter(|line| line.starts_with("m=")).map(str::to_owned).collect::<Vec<_>>()
    };
    dialog.answer(&peer("m=audio 4000 RTP/AVP 0\r\nm=video 4002 RTP/AVP 31\r\n"), &terms).unwrap();
    let ours = dialog.offer(&terms);
    assert_eq!(media(&ours), ["m=audio 10000 RTP/AVP 0", "m=video 0 RTP/AVP 31"]);
    dialog.apply_answer(&peer("m=audio 4000 RTP/AVP 0\r\nm=video 0 RTP/AVP 31\r\n")).unwrap();
    // The peer disables its first line and adds another audio line: the anchor moves, the old line stays.
    let moved = peer("m=audio 0 RTP/AVP 0\r\nm=video 0 RTP/AVP 31\r\nm=audio 4010 RTP/AVP 0\r\n");
    let body = dialog.answer(&moved, &terms).unwrap();
    assert_eq!(media(&body), ["m=audio 0 RTP/AVP 0", "m=video 0 RTP/AVP 31", "m=audio 10000 RTP/AVP 0"]);
    assert_eq!(dialog.negotiated().unwrap().rtp.map(|a| a.port()), Some(4010));
    // A peer that forgets lines gets an answer as long as its offer; our own next offer has them all.
    let body = dialog.answer(&peer("m=audio 4000 RTP/AVP 0\r\n"), &terms).unwrap();
    assert_eq!(media(&body), ["m=audio 10000 RTP/AVP 0"]);
    assert_eq!(media(&dialog.offer(&terms)).len(), 3);
}

#[test]
fn rtcp_mux_is_answered_when_offered_and_kept() {
    let mux = peer("m=audio 4000 RTP/AVP 0\r\na=rtcp-mux\r\n");
    let mut dialog = local(OURS_A);
    let terms = Terms::of(&[Codec::pcmu()], Direction::SendRecv);
    assert!(!text(&dialog.offer(&terms)).contains("rtcp-mux"));
    dialog.apply_answer(&mux).unwrap();
    assert!(!dialog.negotiated().unwrap().rtcp_mux, "not offered, so not negotiated");
    assert!(text(&dialog.answer(&mux, &terms).unwrap()).contains("a=rtcp-mux\r\n"));
    assert!(dialog.negotiated().unwrap().rtcp_mux);
    assert!(text(&dialog.offer(&terms)).contains("a=rtcp-mux\r\n"));
    dialog.apply_answer(&peer("m=audio 4000 RTP/AVP 0\r\n")).unwrap();
    assert!(!dialog.negotiated().unwrap().rtcp_mux);
}

#[test]
fn changes_are_told_from_refreshes() {
    let base = "m=audio 4000 RTP/AVP 0 8\r\n";
    let mut dialog = local(OURS_A);
    dialog.answer(&peer(base), &Terms::of(&allowed(), Direction::SendRecv)).unwrap();
    let none = Change::default();
    let direction = Change { direction: true, ..none };
    let codecs = Change { codecs: true, ..none };
    let media = Change { media: true, ..none };
    let table = [
        (base, none),
        ("m=audio 4444 RTP/AVP 0 8\r\nc=IN IP4 192.0.2.99\r\n", none),
        ("m=audio 4000 RTP/AVP 0 8\r\na=rtcp-mux\r\n", none),
        ("m=audio 4000 RTP/AVP 0 8 9\r\n", none), // G.722 is not allowed, so it is no change
        ("m=audio 4000 RTP/AVP 0 8\r\nm=video 0 RTP/AVP 31\r\n", none),
        ("m=audio 4000 RTP/AVP 0 8\r\na=sendonly\r\n", direction),
        ("m=audio 4000 RTP/AVP 0 8\r\nc=IN IP4 0.0.0.0\r\n", direction),
        ("m=audio 4000 RTP/AVP 8 0\r\n", codecs),
        ("m=audio 4000 RTP/AVP 0\r\n", codecs),
        ("m=audio 4000 RTP/AVP 0 8\r\na=ptime:40\r\n", codecs),
        ("m=audio 4000 RTP/AVP 0 8\r\nm=video 4002 RTP/AVP 31\r\n", media),
        ("m=image 4000 udptl t38\r\n", media),
    ];
    for (lines, expected) in table {
        let change = dialog.compare(&peer(lines), Some(&allowed()));
        assert_eq!(change, expected, "{lines}");
        assert_eq!(change.is_refresh(), expected == none, "{lines}");
    }
    assert_eq!(dialog.compare(&peer("m=audio 4000 RTP/AVP 0 8 9\r\n"), None), codecs);
    assert!(!local(OURS_A).compare(&peer(base), None).is_refresh());
}

#[test]
fn an_answerers_fuller_refresh_is_no_change() {
    let mut dialog = local(OURS_A);
    dialog.offer(&Terms::of(&allowed(), Direction::SendRecv));
    dialog.apply_answer(&peer("m=audio 4000 RTP/AVP 8\r\n")).unwrap();
    assert!(dialog.compare(&peer("m=audio 4000 RTP/AVP 8 0 9\r\n"), Some(&allowed())).is_refresh());
    assert!(dialog.compare(&peer("m=audio 4000 RTP/AVP 0 8\r\n"), Some(&allowed())).codecs);
    assert!(dialog.compare(&peer("m=audio 4000 RTP/AVP 8\r\na=sendonly\r\n"), Some(&allowed())).direction);
}

#[test]
fn a_refresh_is_answered_as_before_with_the_new_address() {
    let mut dialog = local(OURS_A);
    let first = dialog.answer(&peer("m=audio 4000 RTP/AVP 0 8\r\n"), &Terms::of(&[Codec::pcma()], Direction::SendRecv));
    let second = dialog.answer_alone(&peer("m=audio 4444 RTP/AVP 0 8\r\n"));
    assert_eq!(first, second);
    assert_eq!(dialog.negotiated().unwrap().rtp, Some("192.0.2.1:4444".parse().unwrap()));
}

#[test]
fn a_later_answer_of_the_same_invite_replaces_the_first() {
    let mut dialog = local(OURS_A);
    assert_eq!(dialog.apply_answer(&peer("m=audio 4000 RTP/AVP 0\r\n")), Err(Refusal::NoOffer));
    dialog.offer(&Terms::of(&allowed(), Direction::SendRecv));
    let mut fork = dialog.clone();
    dialog.apply_answer(&peer("m=audio 4000 RTP/AVP 0\r\n")).unwrap();
    dialog.apply_answer(&peer("m=audio 4010 RTP/AVP 8\r\n")).unwrap();
    assert_eq!(dialog.negotiated().unwrap().rtp.map(|a| a.port()), Some(4010));
    fork.apply_answer(&peer("m=audio 4020 RTP/AVP 0\r\n")).unwrap();
    assert_eq!(fork.negotiated().unwrap().rtp.map(|a| a.port()), Some(4020));
}

#[test]
fn their_offer_withdraws_ours() {
    let mut dialog = local(OURS_A);
    let terms = Terms::of(&[Codec::pcmu()], Direction::SendRecv);
    dialog.answer(&peer("m=audio 4000 RTP/AVP 0\r\n"), &terms).unwrap();
    dialog.offer(&terms.clone().with_direction(Direction::Inactive));
    let body = dialog.answer_alone(&peer("m=audio 4000 RTP/AVP 0\r\n")).unwrap();
    assert!(text(&body).contains("a=sendrecv"));
    assert!(!dialog.has_open_offer());
    assert_eq!(dialog.apply_answer(&peer("m=audio 4000 RTP/AVP 0\r\n")), Err(Refusal::NoOffer));
}

#[test]
fn line_breaks_cannot_be_carried_into_our_body() {
    let mut terms = Terms::of(&[Codec::pcmu()], Direction::SendRecv);
    terms.label = Some("x\r\nm=video 1 RTP/AVP 31".to_owned());
    assert_eq!(parse(&local(OURS_A).offer(&terms)).media.len(), 1);
}

#[test]
fn ptime_is_bounded() {
    for (lines, expected) in [
        ("a=ptime:20\r\n", 20),
        ("", 20),
        ("a=maxptime:10\r\n", 10),
        ("a=maxptime:200\r\n", 20),
        ("a=ptime:1\r\n", 10),
        ("a=ptime:60000\r\n", 120),
        ("a=ptime:x\r\n", 20),
    ] {
        let mut dialog = local(OURS_A);
        let offer = peer(&format!("m=audio 4000 RTP/AVP 0\r\n{lines}"));
        dialog.answer(&offer, &Terms::of(&allowed(), Direction::SendRecv)).unwrap();
        assert_eq!(dialog.negotiated().unwrap().ptime_ms, expected, "{lines}");
    }
}

// a=record and a=recordpref (RFC 7866)

#[test]
fn our_body_says_what_the_peer_shall_know_of_the_recording() {
    let terms = Terms::of(&allowed(), Direction::SendRecv);
    let mut dialog = local(OURS_A);
    assert!(!text(&dialog.offer(&terms)).contains("a=record"), "nothing is said unless it is asked for");
    dialog.apply_answer(&peer("m=audio 4000 RTP/AVP 0\r\n")).unwrap();
    let mut expected = 1;
    for (state, line) in [
        (Some(RecordState::On), "a=record:on"),
        (Some(RecordState::Paused), "a=record:paused"),
        (Some(RecordState::Off), "a=record:off"),
        (None, ""),
    ] {
        dialog.set_record(state);
        assert!(dialog.is_record_due(), "{line}");
        let body = dialog.offer_again().unwrap();
        expected += 1;
        assert_eq!(version(&body), expected, "{line}");
        let said: Vec<String> = text(&body).lines().filter(|l| l.starts_with("a=record")).map(str::to_owned).collect();
        assert_eq!(said.concat(), line);
        let media = text(&body).find("m=audio").unwrap();
        assert!(text(&body).find("a=record").is_none_or(|at| at > media), "on media level");
        assert!(!dialog.is_record_due(), "said by the open offer");
        dialog.apply_answer(&peer("m=audio 4000 RTP/AVP 0\r\n")).unwrap();
        assert!(!dialog.is_record_due());
        assert_eq!(version(&dialog.offer_again().unwrap()), expected, "the same body keeps its version");
        dialog.apply_answer(&peer("m=audio 4000 RTP/AVP 0\r\n")).unwrap();
    }
}

#[test]
fn an_answer_says_it_too() {
    let mut dialog = local(OURS_A);
    dialog.set_record(Some(RecordState::On));
    assert!(!dialog.is_record_due(), "the first description will say it");
    let offer = peer("m=audio 4000 RTP/AVP 0\r\n");
    let body = dialog.answer(&offer, &Terms::of(&allowed(), Direction::SendRecv)).unwrap();
    assert_eq!(line(&body, "a=record"), "a=record:on");
    dialog.set_record(Some(RecordState::Paused));
    assert!(dialog.is_record_due());
    let body = dialog.answer_alone(&offer).unwrap();
    assert_eq!((line(&body, "a=record"), version(&body)), ("a=record:paused".to_owned(), 2));
    assert!(!dialog.is_record_due());
}

#[test]
fn an_offer_that_fails_has_not_told_it() {
    let mut dialog = local(OURS_A);
    assert!(dialog.offer_again().is_none(), "nothing to say again");
    dialog.offer(&Terms::of(&allowed(), Direction::SendRecv));
    dialog.apply_answer(&peer("m=audio 4000 RTP/AVP 0\r\n")).unwrap();
    dialog.set_record(Some(RecordState::On));
    dialog.offer_again().unwrap();
    assert!(!dialog.is_record_due());
    dialog.offer_failed();
    assert!(dialog.is_record_due());
    // What changes while an offer is open is due when it is answered.
    dialog.offer_again().unwrap();
    dialog.set_record(Some(RecordState::Off));
    assert!(dialog.is_record_due());
    dialog.apply_answer(&peer("m=audio 4000 RTP/AVP 0\r\n")).unwrap();
    assert!(dialog.is_record_due());
    dialog.set_record(Some(RecordState::On));
    assert!(!dialog.is_record_due());
}

#[test]
fn an_offer_made_again_changes_nothing_but_what_is_said_of_the_recording() {
    let mut answered = local(OURS_A);
    let offer = peer(
        "m=video 4002 RTP/AVP 31\r\nm=audio 4000 RTP/AVP 8 0 101\r\na=rtpmap:101 telephone-event/8000\r\n\
         a=rtcp-mux\r\na=ptime:30\r\na=sendonly\r\n",
    );
    let first = answered.answer(&offer, &offer.terms().unwrap().with_direction(Direction::SendRecv)).unwrap();
    assert_eq!(line(&first, "a=recv"), "a=recvonly");
    let mut offered = local(OURS_B);
    let second = offered.offer(&Terms::of(&allowed(), Direction::SendOnly));
    offered.apply_answer(&peer("m=audio 4000 RTP/AVP 8\r\na=recvonly\r\n")).unwrap();
    for (mut dialog, before) in [(answered, first), (offered, second)] {
        dialog.set_record(Some(RecordState::On));
        let again = dialog.offer_again().unwrap();
        let rest = text(&again).replace("a=record:on\r\n", "");
        assert_eq!(rest.replace(&line(&again, "o="), &line(&before, "o=")), text(&before));
        assert_eq!(version(&again), version(&before) + 1);
    }
}

#[test]
fn the_wish_of_the_anchored_line_counts_before_that_of_the_session() {
    let plain = "m=audio 4000 RTP/AVP 0\r\n";
    for (session, media, expected) in [
        ("", "", None),
        ("", "a=recordpref:on\r\n", Some(Preference::On)),
        ("", "a=recordpref: PAUSE \r\n", Some(Preference::Pause)),
        ("a=recordpref:off\r\n", "", Some(Preference::Off)),
        ("a=recordpref:off\r\n", "a=recordpref:nopreference\r\n", Some(Preference::NoPreference)),
        ("a=recordpref:off\r\n", "a=recordpref:maybe\r\n", Some(Preference::Off)),
        ("", "a=record:on\r\n", None),
        ("", "a=recordpref\r\n", None),
        ("", "m=video 4002 RTP/AVP 31\r\na=recordpref:off\r\n", None),
    ] {
        let body = peer(&format!("{session}{plain}{media}"));
        assert_eq!(body.record_preference(), expected, "{session}{media}");
    }
    assert_eq!(peer("a=recordpref:on\r\nm=audio 0 RTP/AVP 0\r\n").record_preference(), None, "no audio");
    for preference in [Preference::On, Preference::Off, Preference::Pause, Preference::NoPreference] {
        assert_eq!(Preference::parse(preference.as_str()), Some(preference));
    }
}

#[test]
fn what_one_side_says_of_recording_does_not_reach_the_other() {
    let lines = "a=recordpref:off\r\na=record:on\r\nm=audio 4000 RTP/AVP 0\r\na=record:paused\r\na=recordpref:on\r\n\
                 a=candidate:1 1 UDP 1 192.0.2.1 4000 typ host\r\n";
    let offer = peer(lines);
    let mut other = local(OURS_B);
    let carried = other.offer(&offer.terms().unwrap());
    other.apply_answer(&offer).unwrap();
    let (_, _, back) = call(&offer, &offer).unwrap();
    for body in [carried, back.into()] {
        assert!(!text(&body).contains("record") && !text(&body).contains("candidate"), "{}", text(&body));
    }
    // A wish alone is no change of the offer: it is answered by us alone.
    let mut dialog = local(OURS_A);
    let before = peer("m=audio 4000 RTP/AVP 0\r\n");
    dialog.answer(&before, &before.terms().unwrap()).unwrap();
    assert!(dialog.compare(&peer("m=audio 4000 RTP/AVP 0\r\na=recordpref:off\r\n"), None).is_refresh());
}

/// Lines that a description may be made of, tidy and untidy.
fn some_line() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("m=audio 4000 RTP/AVP 0 8 96 101".to_owned()),
        Just("m=audio 0 RTP/AVP 0".to_owned()),
        Just("m=video 4002 RTP/AVP 31".to_owned()),
        Just("m=audio 4000 RTP/SAVP 0".to_owned()),
        (any::<u16>(), prop::collection::vec(any::<u8>(), 1..6)).prop_map(|(port, formats)| {
            let formats: Vec<_> = formats.iter().map(u8::to_string).collect();
            format!("m=audio {port} RTP/AVP {}", formats.join(" "))
        }),
        (any::<u8>(), "[A-Za-z0-9-]{1,8}", any::<u32>())
            .prop_map(|(n, name, rate)| format!("a=rtpmap:{n} {name}/{rate}")),
        (90u8..128, prop::sample::select(vec!["PCMU", "L16", "telephone-event", "opus", "CN"]))
            .prop_map(|(n, name)| format!("a=rtpmap:{n} {name}/8000")),
        (any::<u8>(), "[ -~]{0,20}").prop_map(|(n, text)| format!("a=fmtp:{n} {text}")),
        Just("c=IN IP4 192.0.2.1".to_owned()),
        Just("c=IN IP4 0.0.0.0".to_owned()),
        Just("c=IN IP6 2001:db8::1".to_owned()),
        prop::sample::select(vec!["a=sendonly", "a=recvonly", "a=inactive", "a=sendrecv", "a=rtcp-mux", "a=rtcp:1"])
            .prop_map(str::to_owned),
        prop::sample::select(vec!["a=record:on", "a=recordpref:off"]).prop_map(str::to_owned),
        "[a-z]=[ -~]{0,30}",
        "\\PC{0,20}",
    ]
}

fn some_body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(some_line(), 0..14).prop_map(|lines| format!(
            "v=0\r\nc=IN IP4 192.0.2.1\r\n{}\r\n",
            lines.join("\r\n")
        )
        .into_bytes()),
        prop::collection::vec(any::<u8>(), 0..200),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_sequence_keeps_the_rules_of_a_dialog(bodies in prop::collection::vec((some_body(), 0..9u8), 1..16)) {
        let mut dialog = local(OURS_A);
        let (mut last, mut last_lines, mut own_lines) = (None::<Vec<u8>>, 0, 0);
        let mut bound: Vec<(u8, Codec)> = Vec::new();
        for (body, action) in bodies {
            let session = Session::parse(&body).ok();
            let written = match (action, session) {
                (0, _) => Some(dialog.offer(&Terms::of(&allowed(), Direction::SendRecv))),
                (1, Some(session)) => session.terms().ok().map(|terms| dialog.offer(&terms)),
                (2, Some(session)) => { let _ = dialog.apply_answer(&session); None }
                (3, _) => { dialog.offer_failed(); None }
                (4, _) => { dialog.set_record(Some(RecordState::On)); None }
                (5, _) => { dialog.set_record(None); None }
                (6, _) => dialog.offer_again(),
                (_, Some(session)) => {
                    let _ = dialog.compare(&session, Some(&allowed()));
                    let terms = session.terms().unwrap_or_else(|_| Terms::of(&allowed(), Direction::SendRecv));
                    let answer = dialog.answer(&session, &terms).ok();
                    if answer.is_some() { last_lines = session.media.len(); own_lines = own_lines.max(last_lines); }
                    answer
                }
                _ => None,
            };
            let Some(written) = written else { continue };
            let ours = parse(&written);
            prop_assert!(!dialog.is_record_due(), "what is written says it");
            if dialog.has_open_offer() {
                prop_assert!(ours.media.len() >= own_lines);
            } else {
                prop_assert_eq!(ours.media.len(), last_lines);
            }
            prop_assert_eq!(ours.media.iter().filter(|media| media.port != 0).count(), 1);
            for format in &ours.audio().unwrap().payloads {
                match bound.iter().find(|(number, _)| *number == format.payload_type) {
                    Some((_, codec)) => prop_assert_eq!(codec, &format.codec),
                    None => bound.push((format.payload_type, format.codec.clone())),
                }
            }
            if let Some(last) = &last {
                let strip = |body: &[u8]| text(body).lines().filter(|l| !l.starts_with("o=")).collect::<Vec<_>>().join("\n");
                let grown = version(&written) - version(last);
                prop_assert_eq!(grown, u64::from(strip(last) != strip(&written)));
            }
            last = Some(written.to_vec());
            if let Some(negotiated) = dialog.negotiated() {
                prop_assert!(!negotiated.send.is_empty());
                prop_assert!(negotiated.rtp.is_none_or(|address: SocketAddr| address.port() != 0));
            }
        }
    }
}
