//! Branches of an attempt: forks, early media, next addresses, redirects, CANCEL and 2xx that cross, and the header
//! table (spec/sip.md §3–4). Peers are written by hand, message by message.

use crate::call_world::*;
use stickytape::call::options::{Host, PeerAddress, Plan, Route, RouteTarget, Transport};
use stickytape::sip::method::Method;
use stickytape::sip::name::Name;

/// A world in which `0…` leads to the trunk, and raw peer 0 is a caller on DN 2001, raw peer 1 the trunk.
fn world_of(trunk_hosts: &[&str], change: impl FnOnce(&mut stickytape::call::options::Options)) -> World {
    let mut options = options();
    options.plan.trunks = vec![trunk("carrier", trunk_hosts)];
    let route = |pattern: &str, to| Route {
        from: None,
        pattern: regex::Regex::new(pattern).unwrap(),
        to,
        rewrite: None,
        record: None,
        required: false,
        origin: None,
    };
    options.plan.routes = vec![route("^0", RouteTarget::Trunk("carrier".into()))];
    change(&mut options);
    let mut world = World::new(options);
    world.raw("10.0.0.1:5060");
    for host in trunk_hosts {
        world.raw(&format!("{host}:5060"));
    }
    world
}

fn world() -> World {
    world_of(&["198.51.100.10"], |_| {})
}

const A: usize = 0;
const T: usize = 1;

/// The DN 2001 calls 0123 with an offer; the trunk's INVITE.
fn call(world: &mut World) -> (stickytape::sip::message::Request, stickytape::sip::message::Request) {
    let offer = sdp("10.0.0.1", 4000, "0 8 101", "sendrecv");
    let mut invite = world.raws[A].invite("0123", "c1", Some(&offer));
    invite.headers.set(Name::From, "\"Zoë\" <sip:2001@10.0.0.1>;tag=f-c1");
    world.raws[A].send(invite.clone());
    world.run(ms(100));
    let received = world.raws[T].requests(Method::Invite).remove(0);
    (invite, received)
}

fn answer(world: &mut World, invite: &stickytape::sip::message::Request, code: u16, tag: &str, body: Option<&str>) {
    let reply = world.raws[T].reply(invite, code, tag, body);
    world.raws[T].send(reply);
    world.run(ms(100));
}

fn hang_up(world: &mut World, invite: &stickytape::sip::message::Request) {
    let ok = world.raws[A].responses("INVITE").into_iter().rev().find(|r| r.code == 200).unwrap();
    let ack = world.raws[A].in_dialog(invite, &ok, Method::Ack, 1);
    world.raws[A].send(ack);
    let bye = world.raws[A].in_dialog(invite, &ok, Method::Bye, 2);
    world.raws[A].send(bye);
    world.run(ms(100));
    for bye in world.raws[T].requests(Method::Bye) {
        let ok = world.raws[T].reply(&bye, 200, "", None);
        world.raws[T].send(ok);
    }
    world.run(ms(100));
}

fn early() -> String {
    sdp("198.51.100.10", 6000, "0 101", "sendrecv")
}

fn tag(response: &stickytape::sip::message::Response) -> String {
    let to = text(response.headers.get(Name::To));
    to.split("tag=").nth(1).unwrap_or_default().to_owned()
}

#[test]
fn each_fork_with_sdp_is_an_early_dialog_of_its_own_and_others_fold_into_the_first() {
    let mut world = world();
    let (invite, received) = call(&mut world);
    answer(&mut world, &received, 180, "t1", None);
    answer(&mut world, &received, 180, "t2", None);
    answer(&mut world, &received, 183, "t2", Some(&early()));
    let other = sdp("198.51.100.11", 7000, "8 101", "sendrecv");
    answer(&mut world, &received, 183, "t3", Some(&other));
    answer(&mut world, &received, 180, "t4", None);
    let told: Vec<_> = world.raws[A].responses("INVITE").into_iter().filter(|r| r.code > 100).collect();
    let tags: Vec<String> = told.iter().map(tag).collect();
    assert_eq!(told.iter().map(|r| r.code).collect::<Vec<_>>(), [180, 180, 183, 183, 180]);
    assert_eq!(tags[0], tags[1], "without SDP: one dialog");
    assert_eq!(tags[0], tags[2], "the first SDP takes the dialog that has carried none");
    assert_ne!(tags[2], tags[3], "another fork's SDP has its own");
    assert_eq!(tags[0], tags[4]);
    assert!(told[2].body.starts_with(b"v=0") && told[3].body.starts_with(b"v=0"));
    let remotes = world.proxy.commands_of(stickytape::id::LegId(2)).iter().filter(|c| c.starts_with("remote")).count();
    assert_eq!(remotes, 2, "media follows the fork whose SDP came last");
    answer(&mut world, &received, 200, "t2", Some(&early()));
    let ok = world.raws[A].responses("INVITE").into_iter().find(|r| r.code == 200).unwrap();
    assert_eq!(tag(&ok), tags[2], "the 2xx is in its fork's dialog");
    let remotes = world.proxy.commands_of(stickytape::id::LegId(2)).iter().filter(|c| c.starts_with("remote")).count();
    assert_eq!(remotes, 3, "back to the fork that has won");
    assert_eq!(world.raws[T].requests(Method::Ack).len(), 1);
    hang_up(&mut world, &invite);
    world.settle();
}

#[test]
fn a_further_2xx_is_acknowledged_and_ended() {
    let mut world = world();
    let (invite, received) = call(&mut world);
    answer(&mut world, &received, 200, "t1", Some(&early()));
    answer(&mut world, &received, 200, "t2", Some(&early()));
    let byes = world.raws[T].requests(Method::Bye);
    assert_eq!(byes.len(), 1);
    assert!(text(byes[0].headers.get(Name::To)).contains("tag=t2"));
    assert_eq!(world.proxy.calls.snapshot()[0].state, "talking");
    for bye in byes {
        let ok = world.raws[T].reply(&bye, 200, "", None);
        world.raws[T].send(ok);
    }
    hang_up(&mut world, &invite);
    assert_eq!(world.proxy.starts().len(), 1);
    world.settle();
}

#[test]
fn a_2xx_that_crosses_cancel_is_ended_and_records_nothing() {
    let mut world = world();
    let (invite, received) = call(&mut world);
    answer(&mut world, &received, 180, "t1", None);
    let mut cancel = invite.clone();
    cancel.method = Method::Cancel;
    cancel.headers.set(Name::CSeq, "1 CANCEL");
    cancel.headers.remove(Name::ContentType);
    cancel.body = Default::default();
    let ok = world.raws[T].reply(&received, 200, "t1", Some(&early()));
    world.raws[A].send(cancel);
    world.raws[T].send(ok);
    world.run(ms(6));
    world.run(ms(500));
    // Whichever came first, D2 ends with ACK and BYE, D1 with a final answer of its own choice.
    assert_eq!(world.raws[T].requests(Method::Ack).len(), 1);
    assert_eq!(world.raws[T].requests(Method::Bye).len(), 1);
    assert!(world.proxy.starts().is_empty());
    assert!(world.proxy.has_fact("released abandoned"));
    assert_eq!(world.raws[A].codes("INVITE").last(), Some(&487));
    let bye = world.raws[T].requests(Method::Bye).remove(0);
    let ok = world.raws[T].reply(&bye, 200, "", None);
    world.raws[T].send(ok);
    world.settle();
}

#[test]
fn the_next_address_is_tried_after_503_408_silence_or_a_transport_error() {
    for failure in [Some(503), Some(408), None] {
        let mut world = world_of(&["198.51.100.10", "198.51.100.11"], |_| {});
        let (_, received) = call(&mut world);
        match failure {
            Some(code) => answer(&mut world, &received, code, "x", None),
            None => world.run(ms(4_000)),
        }
        assert_eq!(world.raws[2].requests(Method::Invite).len(), 1, "{failure:?}");
        let second = world.raws[2].requests(Method::Invite).remove(0);
        let busy = world.raws[2].reply(&second, 486, "y", None);
        world.raws[2].send(busy);
        world.run(ms(200));
        assert_eq!(world.raws[A].codes("INVITE").last(), Some(&486), "{failure:?}");
        world.settle();
    }
    let mut world = world_of(&["198.51.100.12", "198.51.100.10"], |_| {});
    world.proxy.unreachable = vec![addr("198.51.100.12:5060")];
    let offer = sdp("10.0.0.1", 4000, "0 8 101", "sendrecv");
    let mut invite = world.raws[A].invite("0123", "c1", Some(&offer));
    invite.headers.set(Name::From, "<sip:2001@10.0.0.1>;tag=f-c1");
    world.raws[A].send(invite);
    world.run(ms(100));
    assert_eq!(world.raws[2].requests(Method::Invite).len(), 1);
}

#[test]
fn a_100_is_a_response_and_keeps_the_address() {
    let mut world = world_of(&["198.51.100.10", "198.51.100.11"], |_| {});
    let (_, received) = call(&mut world);
    answer(&mut world, &received, 100, "", None);
    world.run(ms(10_000));
    assert!(world.raws[2].requests(Method::Invite).is_empty());
    answer(&mut world, &received, 486, "x", None);
    world.settle();
}

#[test]
fn the_next_address_is_never_tried_after_ringing_or_another_failure() {
    for (ringing, code) in [(true, 503), (true, 408), (false, 486), (false, 404), (false, 500)] {
        let mut world = world_of(&["198.51.100.10", "198.51.100.11"], |_| {});
        let (_, received) = call(&mut world);
        if ringing {
            answer(&mut world, &received, 180, "x", None);
        }
        answer(&mut world, &received, code, "x", None);
        assert!(world.raws[2].requests(Method::Invite).is_empty(), "{code}");
        world.settle();
    }
}

fn redirected(world: &mut World, contacts: &str) -> u16 {
    let (_, received) = call(world);
    let mut moved = world.raws[T].reply(&received, 302, "m", None);
    moved.headers.set(Name::Contact, contacts.to_owned());
    world.raws[T].send(moved);
    world.run(ms(300));
    world.raws[A].codes("INVITE").last().copied().unwrap()
}

#[test]
fn a_redirect_of_a_trunk_is_followed_only_when_it_may_and_only_to_peers() {
    let mut refused = world();
    assert_eq!(redirected(&mut refused, "<sip:2002@192.0.2.1>"), 480);
    refused.settle();

    let allow = |o: &mut stickytape::call::options::Options| o.plan.trunks[0].follow_redirect = true;
    let mut world = world_of(&["198.51.100.10"], allow);
    let b = world.raw("10.0.0.2:5060");
    assert_eq!(redirected(&mut world, "<sip:9@evil.example>;q=0.9, <sip:2002@192.0.2.1>;q=0.5"), 100);
    assert_eq!(world.raws[b].requests(Method::Invite).len(), 1, "routed as its own INVITE");
    let invite = world.raws[b].requests(Method::Invite).remove(0);
    assert!(invite.uri.starts_with(b"sip:2002@10.0.0.2"));
    let busy = world.raws[b].reply(&invite, 486, "b", None);
    world.raws[b].send(busy);
    world.run(ms(200));
    assert_eq!(world.raws[A].codes("INVITE").last(), Some(&486));
    world.settle();
}

#[test]
fn at_most_five_redirect_targets_are_tried() {
    let allow = |o: &mut stickytape::call::options::Options| o.plan.trunks[0].follow_redirect = true;
    let mut world = world_of(&["198.51.100.10"], allow);
    let contacts: Vec<String> = (1..=9).map(|n| format!("<sip:0{n}@198.51.100.10>")).collect();
    redirected(&mut world, &contacts.join(", "));
    for _ in 0..10 {
        let last = world.raws[T].requests(Method::Invite).pop().unwrap();
        answer(&mut world, &last, 486, "z", None);
    }
    let mut numbers: Vec<_> = world.raws[T].requests(Method::Invite).into_iter().map(|r| r.uri).collect();
    numbers.dedup();
    assert_eq!(numbers.len(), 1 + 5);
    assert_eq!(world.raws[A].codes("INVITE").last(), Some(&486));
    world.settle();
}

#[test]
fn header_lines_cross_by_the_table_and_ids_go_to_dns_only() {
    let mut world = world();
    let b = world.raw("10.0.0.2:5060");
    for (to, number, dn) in [(T, "0123", false), (b, "2002", true)] {
        let offer = sdp("10.0.0.1", 4000, "0 8 101", "sendrecv");
        let mut invite = world.raws[A].invite(number, &format!("h{number}"), Some(&offer));
        invite.headers.set(Name::From, format!("\"Zoë\" <sip:2001@10.0.0.1>;tag=f{number}"));
        invite.headers.push(Name::Subject, "hello");
        invite.headers.push(Name::Other(b"X-Account"), "7");
        invite.headers.push(Name::PAssertedIdentity, "<sip:boss@10.0.0.1>");
        invite.headers.push(Name::ReferredBy, "<sip:boss@10.0.0.1>");
        invite.headers.set(Name::MaxForwards, "17");
        world.raws[A].send(invite);
        world.run(ms(100));
        let received = world.raws[to].requests(Method::Invite).remove(0);
        let get = |name| text(received.headers.get(name));
        assert_eq!((get(Name::Subject), get(Name::Other(b"X-Account"))), ("hello".into(), "7".into()));
        assert_eq!(get(Name::MaxForwards), "16");
        assert!(get(Name::From).starts_with("\"Zoë\" <sip:2001@192.0.2.1"), "{}", get(Name::From));
        assert!(get(Name::To).starts_with(&format!("<sip:{number}@")), "{}", get(Name::To));
        assert!(get(Name::PAssertedIdentity).is_empty() && get(Name::ReferredBy).is_empty());
        assert_eq!(received.headers.has(Name::XStickytapeConnId), dn);
        assert_eq!(received.headers.has(Name::XStickytapeCallUuid), dn);
        assert_eq!(received.headers.count(Name::Via), 1);
        let body = String::from_utf8_lossy(&received.body).into_owned();
        assert!(body.contains("c=IN IP4 192.0.2.1") && !body.contains("10.0.0.1"), "{body}");
        let mut busy = world.raws[to].reply(&received, 486, "z", None);
        busy.reason = "Gone fishing".into();
        busy.headers.push(Name::Warning, "399 x \"y\"");
        busy.headers.push(Name::Reason, "Q.850;cause=17");
        world.raws[to].send(busy);
        world.run(ms(100));
        let told = world.raws[A].responses("INVITE").pop().unwrap();
        assert_eq!((told.code, &told.reason[..]), (486, &b"Gone fishing"[..]));
        assert!(told.headers.has(Name::Warning) && told.headers.has(Name::Reason));
    }
    world.settle();
}

#[test]
fn a_trunk_shows_its_own_caller_id() {
    let mut world = world_of(&["198.51.100.10"], |o| o.plan.trunks[0].caller_id = Some("+4930777".into()));
    let (_, received) = call(&mut world);
    let from = text(received.headers.get(Name::From));
    assert!(from.starts_with("<sip:+4930777@192.0.2.1"), "{from}");
    answer(&mut world, &received, 486, "z", None);
    world.settle();
}

#[test]
fn a_trunk_carries_no_more_than_its_own_call_limit() {
    let mut world = world_of(&["198.51.100.10"], |o| o.plan.trunks[0].max_calls = 1);
    let (_, received) = call(&mut world);
    answer(&mut world, &received, 180, "z", None);
    let offer = sdp("198.51.100.10", 4000, "0 8 101", "sendrecv");
    let inbound = world.raws[T].invite("2002", "in", Some(&offer));
    world.raws[T].send(inbound);
    world.run(ms(100));
    let told: Vec<_> = world.raws[T].responses("INVITE").into_iter().map(|r| r.code).collect();
    assert_eq!(told.last(), Some(&503));
    answer(&mut world, &received, 486, "z", None);
    world.settle();
}

#[test]
fn an_offer_without_a_codec_of_ours_passes_unrestricted_or_is_refused_when_recording_is_required() {
    for required in [false, true] {
        let mut world = world_of(&["198.51.100.10"], |o| o.recording.required = required);
        let offer = "v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\n\
            m=audio 4000 RTP/AVP 96\r\na=rtpmap:96 opus/48000/2\r\na=sendrecv\r\n";
        let mut invite = world.raws[A].invite("0123", "u", Some(offer));
        invite.headers.set(Name::From, "<sip:2001@10.0.0.1>;tag=fu");
        world.raws[A].send(invite.clone());
        world.run(ms(100));
        if required {
            let told = world.raws[A].responses("INVITE").pop().unwrap();
            assert_eq!(told.code, 488);
            assert!(text(told.headers.get(Name::Warning)).starts_with("305 "));
            assert!(world.proxy.has_fact("failed codec !"));
        } else {
            let received = world.raws[T].requests(Method::Invite).remove(0);
            assert!(String::from_utf8_lossy(&received.body).contains("opus/48000/2"));
            assert_eq!(world.proxy.story(), ["started", "failed codec"]);
            let body = offer.replace("10.0.0.1", "198.51.100.10");
            answer(&mut world, &received, 200, "t", Some(&body));
            assert_eq!(world.proxy.calls.snapshot()[0].state, "talking");
            assert!(world.proxy.starts().is_empty());
            hang_up(&mut world, &invite);
        }
        world.settle();
    }
}

#[test]
fn offers_without_audio_that_we_take_are_488() {
    for (media, warning) in [
        ("m=video 4000 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n", "304"),
        ("m=image 4000 udptl t38\r\n", "304"),
        ("m=audio 4000 RTP/SAVP 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x\r\n", "302"),
    ] {
        let mut world = world();
        let offer = format!("v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\n{media}");
        let mut invite = world.raws[A].invite("0123", "v", Some(&offer));
        invite.headers.set(Name::From, "<sip:2001@10.0.0.1>;tag=fv");
        world.raws[A].send(invite);
        world.run(ms(100));
        let told = world.raws[A].responses("INVITE").pop().unwrap();
        assert_eq!(told.code, 488, "{media}");
        assert!(text(told.headers.get(Name::Warning)).starts_with(warning), "{media}");
        assert!(world.raws[T].got.is_empty());
        world.settle();
    }
}

#[test]
fn a_2xx_without_a_usable_answer_ends_both_sides() {
    let mut world = world();
    let (_, received) = call(&mut world);
    answer(&mut world, &received, 200, "t", None);
    assert_eq!(world.raws[A].codes("INVITE").last(), Some(&500));
    let byes = world.raws[T].requests(Method::Bye);
    assert_eq!(byes.len(), 1);
    let ok = world.raws[T].reply(&byes[0], 200, "", None);
    world.raws[T].send(ok);
    assert!(world.proxy.has_fact("released media") && world.proxy.starts().is_empty());
    world.settle();
}

#[test]
fn a_caller_that_never_acknowledges_ends_the_call() {
    let mut world = world();
    let (_, received) = call(&mut world);
    answer(&mut world, &received, 200, "t", Some(&early()));
    world.run(ms(33_000));
    assert!(world.proxy.has_fact("released lost"));
    assert!(!world.raws[T].requests(Method::Bye).is_empty());
    assert!(!world.raws[A].requests(Method::Bye).is_empty());
    for side in [A, T] {
        let byes = world.raws[side].requests(Method::Bye);
        let ok = world.raws[side].reply(&byes[0], 200, "", None);
        world.raws[side].send(ok);
    }
    world.settle();
}

#[test]
fn a_refresh_is_answered_by_us_alone() {
    let mut world = world();
    let (invite, received) = call(&mut world);
    answer(&mut world, &received, 200, "t", Some(&early()));
    let ok = world.raws[A].responses("INVITE").into_iter().rev().find(|r| r.code == 200).unwrap();
    let ack = world.raws[A].in_dialog(&invite, &ok, Method::Ack, 1);
    world.raws[A].send(ack);
    // The same stream at another port.
    let mut again = world.raws[A].in_dialog(&invite, &ok, Method::Invite, 2);
    again.headers.push(Name::ContentType, "application/sdp");
    again.body = sdp("10.0.0.1", 4444, "0 8 101", "sendrecv").replace("1 1 IN", "1 2 IN").into();
    world.raws[A].send(again);
    world.run(ms(200));
    assert_eq!(world.raws[T].requests(Method::Invite).len(), 1, "D2 hears nothing of it");
    let answers: Vec<_> = world.raws[A].responses("2 INVITE").into_iter().filter(|r| r.code == 200).collect();
    assert!(!answers.is_empty());
    let remotes = world.proxy.commands_of(stickytape::id::LegId(1)).iter().filter(|c| c.starts_with("remote")).count();
    assert_eq!(remotes, 2, "the media thread learns the new address");
    let ack = world.raws[A].in_dialog(&invite, &answers[0], Method::Ack, 2);
    world.raws[A].send(ack);
    let bye = world.raws[A].in_dialog(&invite, &ok, Method::Bye, 3);
    world.raws[A].send(bye);
    world.run(ms(100));
    let bye = world.raws[T].requests(Method::Bye).remove(0);
    let ok = world.raws[T].reply(&bye, 200, "", None);
    world.raws[T].send(ok);
    world.settle();
}

#[test]
fn early_media_is_recorded_when_configured_and_published_as_not_answered() {
    let mut world = world_of(&["198.51.100.10"], |o| o.recording.early_media = true);
    let (_, received) = call(&mut world);
    answer(&mut world, &received, 180, "t", None);
    assert!(world.proxy.starts().is_empty());
    answer(&mut world, &received, 183, "t", Some(&early()));
    assert_eq!(world.proxy.starts().len(), 1);
    assert!(world.proxy.starts()[0].1.conversation.early);
    answer(&mut world, &received, 486, "t", None);
    assert_eq!(world.proxy.stops()[0].1, stickytape::record::mark::StopCause::NotAnswered);
    world.settle();
}

#[test]
fn a_name_that_is_not_resolved_is_tried_when_it_is() {
    let name = PeerAddress {
        user: None,
        host: Host::Name("sip.example.net".into()),
        port: 5060,
        transport: Some(Transport::Udp),
    };
    let mut world = world_of(&["198.51.100.10"], |o| {
        o.plan.trunks[0].addresses = vec![name];
        o.plan = Plan { ..o.plan.clone() };
    });
    assert_eq!(world.proxy.resolves, ["sip.example.net"]);
    let addresses = vec!["198.51.100.10".parse().unwrap()];
    world.tell(stickytape::call::Input::Resolved { host: "sip.example.net".into(), addresses });
    let (_, received) = call(&mut world);
    assert_eq!(received.uri, "sip:0123@sip.example.net");
    answer(&mut world, &received, 486, "t", None);
    world.settle();
    assert!(world.proxy.resolves.len() >= 3, "again every minute");
}
