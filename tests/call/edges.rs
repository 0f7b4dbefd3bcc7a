//! Corners of call control: proxies in front, both IP families, cancelled and early offers, codecs that do not meet.

use crate::call_world::*;
use stickytape::call::options::{Dn, Host, Listener, Numbers, PeerAddress, Transport};
use stickytape::sip::message::{Request, Response};
use stickytape::sip::method::Method;
use stickytape::sip::name::Name;

/// A call of 2001 (raw 0) to 2002 (raw 1) that has been answered and acknowledged: our INVITE and its 200, the INVITE
/// that 2002 got.
struct Talk {
    world: World,
    invite: Request,
    ok: Response,
    received: Request,
}

const A: usize = 0;
const B: usize = 1;

fn peers() -> World {
    let mut world = World::new(options());
    world.raw("10.0.0.1:5060");
    world.raw("10.0.0.2:5060");
    world
}

fn from_2001(world: &World, to: &str, sdp: Option<&str>) -> Request {
    let mut invite = world.raws[A].invite(to, "c", sdp);
    invite.headers.set(Name::From, "<sip:2001@10.0.0.1>;tag=fc");
    invite
}

fn talk(offer: Option<&str>, answer: &str, in_ack: Option<&str>) -> Talk {
    let mut world = peers();
    let invite = from_2001(&world, "2002", offer);
    world.raws[A].send(invite.clone());
    world.run(ms(50));
    let received = world.raws[B].requests(Method::Invite).remove(0);
    let ok = world.raws[B].reply(&received, 200, "b", Some(answer));
    world.raws[B].send(ok);
    world.run(ms(50));
    let ok = world.raws[A].responses("INVITE").into_iter().find(|r| r.code == 200).unwrap();
    let mut ack = world.raws[A].in_dialog(&invite, &ok, Method::Ack, 1);
    if let Some(sdp) = in_ack {
        ack.headers.push(Name::ContentType, "application/sdp");
        ack.body = sdp.to_owned().into();
    }
    world.raws[A].send(ack);
    world.run(ms(50));
    Talk { world, invite, ok, received }
}

fn finish(talk: &mut Talk) {
    let bye = talk.world.raws[A].in_dialog(&talk.invite, &talk.ok, Method::Bye, 9);
    talk.world.raws[A].send(bye);
    talk.world.run(ms(100));
    let bye = talk.world.raws[B].requests(Method::Bye).remove(0);
    let ok = talk.world.raws[B].reply(&bye, 200, "", None);
    talk.world.raws[B].send(ok);
    talk.world.settle();
}

fn offer(direction: &str) -> String {
    sdp("10.0.0.1", 4000, "0 8 101", direction)
}

fn body(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn behind_a_trusted_proxy_the_source_is_the_via_below() {
    for trusted in [true, false] {
        let mut options = options();
        if trusted {
            options.sip.trusted_proxies = vec!["192.0.2.50/32".parse().unwrap()];
        }
        let mut world = World::new(options);
        let proxy = world.raw("192.0.2.50:5060");
        let b = world.raw("10.0.0.2:5060");
        let mut invite = world.raws[proxy].invite("2002", "p", Some(&offer("sendrecv")));
        invite.headers.set(Name::From, "<sip:2001@example.net>;tag=fp");
        invite.headers.push(Name::Via, "SIP/2.0/UDP phone.local;branch=z9hG4bKx;received=10.0.0.1");
        world.raws[proxy].send(invite);
        world.run(ms(100));
        assert_eq!(world.raws[b].requests(Method::Invite).len(), usize::from(trusted));
        if !trusted {
            assert_eq!(world.raws[proxy].codes("INVITE"), [100, 403]);
        }
    }
}

#[test]
fn a_call_crosses_ip_families_and_each_side_sees_its_own() {
    let mut options = options();
    options.listeners.push(Listener { transport: Transport::Udp, address: addr(PROXY6) });
    let contact = PeerAddress {
        user: Some("{number}".into()),
        host: Host::Ip("2001:db8::5".parse().unwrap()),
        port: 5060,
        transport: Some(Transport::Udp),
    };
    options.plan.dns.push(Dn::new(Numbers::One("6005".into()), contact));
    let mut world = World::new(options);
    world.raw("10.0.0.1:5060");
    let six = world.raw("[2001:db8::5]:5060");
    let invite = from_2001(&world, "6005", Some(&offer("sendrecv")));
    world.raws[A].send(invite.clone());
    world.run(ms(50));
    let received = world.raws[six].requests(Method::Invite).remove(0);
    assert_eq!(received.uri, "sip:6005@[2001:db8::5]:5060");
    assert!(body(&received.body).contains("c=IN IP6 2001:db8::1"), "{}", body(&received.body));
    assert!(text(received.headers.get(Name::From)).contains("@[2001:db8::1]"));
    let answer = "v=0\r\no=- 1 1 IN IP6 2001:db8::5\r\ns=-\r\nc=IN IP6 2001:db8::5\r\nt=0 0\r\n\
        m=audio 6000 RTP/AVP 0\r\n";
    let ok = world.raws[six].reply(&received, 200, "s", Some(answer));
    world.raws[six].send(ok);
    world.run(ms(50));
    let ok = world.raws[A].responses("INVITE").into_iter().find(|r| r.code == 200).unwrap();
    assert!(body(&ok.body).contains("c=IN IP4 192.0.2.1"));
    let ack = world.raws[A].in_dialog(&invite, &ok, Method::Ack, 1);
    world.raws[A].send(ack);
    let bye = world.raws[A].in_dialog(&invite, &ok, Method::Bye, 2);
    world.raws[A].send(bye);
    world.run(ms(50));
    let bye = world.raws[six].requests(Method::Bye).remove(0);
    let ok = world.raws[six].reply(&bye, 200, "", None);
    world.raws[six].send(ok);
    world.settle();
}

#[test]
fn a_cancelled_re_invite_is_undone_at_the_other_side() {
    let answer = sdp("10.0.0.2", 6000, "0 101", "sendrecv");
    let mut talk = talk(Some(&offer("sendrecv")), &answer, None);
    let mut hold = talk.world.raws[A].in_dialog(&talk.invite, &talk.ok, Method::Invite, 2);
    hold.headers.push(Name::ContentType, "application/sdp");
    hold.body = offer("sendonly").replace("1 1 IN", "1 2 IN").into();
    talk.world.raws[A].send(hold.clone());
    talk.world.run(ms(50));
    let passed = talk.world.raws[B].requests(Method::Invite).pop().unwrap();
    assert!(body(&passed.body).contains("a=sendonly"));
    let mut cancel = hold.clone();
    cancel.method = Method::Cancel;
    cancel.headers.set(Name::CSeq, "2 CANCEL");
    cancel.headers.remove(Name::ContentType);
    cancel.body = Default::default();
    talk.world.raws[A].send(cancel);
    talk.world.run(ms(50));
    assert_eq!(talk.world.raws[A].codes("2 INVITE").last(), Some(&487));
    let held = sdp("10.0.0.2", 6000, "0 101", "recvonly").replace("1 1 IN", "1 2 IN");
    let ok = talk.world.raws[B].reply(&passed, 200, "", Some(&held));
    talk.world.raws[B].send(ok);
    talk.world.run(ms(50));
    let again = talk.world.raws[B].requests(Method::Invite).pop().unwrap();
    assert!(body(&again.body).contains("a=sendrecv"), "{}", body(&again.body));
    let ok = talk.world.raws[B].reply(&again, 200, "", Some(&answer.replace("1 1 IN", "1 3 IN")));
    talk.world.raws[B].send(ok);
    talk.world.run(ms(50));
    assert_eq!(talk.world.proxy.calls.snapshot()[0].state, "talking");
    assert!(!talk.world.proxy.story().iter().any(|s| s.starts_with("held")));
    finish(&mut talk);
}

#[test]
fn an_answer_in_ack_with_another_codec_is_transcoded_and_nobody_is_offered_anything_again() {
    let answer = sdp("10.0.0.2", 6000, "0 101", "sendrecv");
    let in_ack = sdp("10.0.0.1", 4000, "8 101", "sendrecv");
    let mut talk = talk(None, &answer, Some(&in_ack));
    assert_eq!(talk.world.raws[B].requests(Method::Invite).len(), 1);
    assert_eq!(talk.world.raws[A].requests(Method::Invite).len(), 0);
    let view = talk.world.proxy.calls.snapshot().remove(0);
    let codecs: Vec<_> = view.parties.iter().map(|p| p.codec.as_deref()).collect();
    assert_eq!(codecs, [Some("PCMA/8000"), Some("PCMU/8000")]);
    finish(&mut talk);
}

#[test]
fn an_ack_without_the_answer_that_we_wait_for_ends_both_sides() {
    let answer = sdp("10.0.0.2", 6000, "0 101", "sendrecv");
    let mut talk = talk(None, &answer, None);
    assert!(talk.world.proxy.has_fact("released media"));
    for side in [A, B] {
        let bye = talk.world.raws[side].requests(Method::Bye).remove(0);
        let ok = talk.world.raws[side].reply(&bye, 200, "", None);
        talk.world.raws[side].send(ok);
    }
    assert_eq!(talk.received.method, Method::Invite);
    talk.world.settle();
}

#[test]
fn an_update_in_an_early_dialog_is_answered_by_us_alone() {
    let mut world = peers();
    let invite = from_2001(&world, "2002", Some(&offer("sendrecv")));
    world.raws[A].send(invite.clone());
    world.run(ms(50));
    let received = world.raws[B].requests(Method::Invite).remove(0);
    let early = sdp("10.0.0.2", 6000, "0 101", "sendrecv");
    let progress = world.raws[B].reply(&received, 183, "b", Some(&early));
    world.raws[B].send(progress);
    world.run(ms(50));
    let progress = world.raws[A].responses("INVITE").pop().unwrap();
    let mut update = world.raws[A].in_dialog(&invite, &progress, Method::Update, 2);
    update.headers.push(Name::ContentType, "application/sdp");
    update.body = sdp("10.0.0.1", 4444, "0 8 101", "sendrecv").replace("1 1 IN", "1 2 IN").into();
    world.raws[A].send(update);
    world.run(ms(50));
    let answer = world.raws[A].responses("UPDATE").pop().unwrap();
    assert_eq!(answer.code, 200);
    assert!(body(&answer.body).contains("m=audio"));
    assert!(world.raws[B].requests(Method::Update).is_empty());
    let busy = world.raws[B].reply(&received, 486, "b", None);
    world.raws[B].send(busy);
    world.run(ms(50));
    world.settle();
}

#[test]
fn a_re_invite_without_acceptable_audio_changes_nothing() {
    let answer = sdp("10.0.0.2", 6000, "0 101", "sendrecv");
    let mut talk = talk(Some(&offer("sendrecv")), &answer, None);
    let mut fax = talk.world.raws[A].in_dialog(&talk.invite, &talk.ok, Method::Invite, 2);
    fax.headers.push(Name::ContentType, "application/sdp");
    fax.body =
        "v=0\r\no=- 1 2 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=image 4000 udptl t38\r\n".into();
    talk.world.raws[A].send(fax);
    talk.world.run(ms(100));
    assert_eq!(talk.world.raws[A].codes("2 INVITE").last(), Some(&488));
    assert_eq!(talk.world.raws[B].requests(Method::Invite).len(), 1);
    assert_eq!(talk.world.proxy.calls.snapshot()[0].state, "talking");
    finish(&mut talk);
}

#[test]
fn one_open_offer_per_bridge() {
    let answer = sdp("10.0.0.2", 6000, "0 101", "sendrecv");
    let mut talk = talk(Some(&offer("sendrecv")), &answer, None);
    let mut hold = talk.world.raws[A].in_dialog(&talk.invite, &talk.ok, Method::Invite, 2);
    hold.headers.push(Name::ContentType, "application/sdp");
    hold.body = offer("sendonly").replace("1 1 IN", "1 2 IN").into();
    talk.world.raws[A].send(hold);
    talk.world.run(ms(50));
    let passed = talk.world.raws[B].requests(Method::Invite).pop().unwrap();
    // B offers while A's offer is open at it: 491. A offers once more: 500 with Retry-After.
    let mut cross = talk.world.raws[B].as_callee(&talk.received, "b", Method::Update, 1);
    cross.headers.push(Name::ContentType, "application/sdp");
    cross.body = sdp("10.0.0.2", 6000, "0 101", "inactive").replace("1 1 IN", "1 2 IN").into();
    talk.world.raws[B].send(cross);
    let mut second = talk.world.raws[A].in_dialog(&talk.invite, &talk.ok, Method::Update, 3);
    second.headers.push(Name::ContentType, "application/sdp");
    second.body = offer("inactive").replace("1 1 IN", "1 3 IN").into();
    talk.world.raws[A].send(second);
    talk.world.run(ms(50));
    assert_eq!(talk.world.raws[B].codes("1 UPDATE"), [491]);
    let refused = talk.world.raws[A].responses("3 UPDATE").pop().unwrap();
    assert_eq!(refused.code, 500);
    assert!(refused.headers.has(Name::RetryAfter));
    // B's own 491 to our re-INVITE goes back to A.
    let glare = talk.world.raws[B].reply(&passed, 491, "", None);
    talk.world.raws[B].send(glare);
    talk.world.run(ms(50));
    assert_eq!(talk.world.raws[A].codes("2 INVITE").last(), Some(&491));
    assert_eq!(talk.world.proxy.calls.snapshot()[0].state, "talking");
    finish(&mut talk);
}
