//! Sentences of spec/sip.md §1–4 that no other file of these tests holds against call control. Peers are written by
//! hand, message by message.

use crate::call_world::*;
use stickytape::call::Input;
use stickytape::call::options::{Host, Options, PeerAddress, Plan, Route, RouteTarget, Transport, Trunk};
use stickytape::sip::message::{Request, Response};
use stickytape::sip::method::Method;
use stickytape::sip::name::Name;

const A: usize = 0;
const B: usize = 1;

/// 2001 is raw A, 2002 raw B, and `0…` leads to the trunk.
fn world_of(change: impl FnOnce(&mut Options)) -> World {
    let mut options = options();
    options.plan.routes = vec![route("^0", RouteTarget::Trunk("carrier".into()))];
    change(&mut options);
    let mut world = World::new(options);
    world.raw("10.0.0.1:5060");
    world.raw("10.0.0.2:5060");
    world
}

fn route(pattern: &str, to: RouteTarget) -> Route {
    let pattern = regex::Regex::new(pattern).unwrap();
    Route { from: None, pattern, to, rewrite: None, record: None, required: false, origin: None }
}

fn offer() -> String {
    sdp("10.0.0.1", 4000, "0 8 101", "sendrecv")
}

fn answer() -> String {
    sdp("10.0.0.2", 6000, "0 101", "sendrecv")
}

fn body(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn from_2001(world: &World, to: &str, sdp: Option<&str>) -> Request {
    let mut invite = world.raws[A].invite(to, "c", sdp);
    invite.headers.set(Name::From, "<sip:2001@10.0.0.1>;tag=fc");
    invite
}

/// A sends its INVITE; what `callee` gets of it.
fn ring(world: &mut World, invite: &Request, callee: usize) -> Request {
    world.raws[A].send(invite.clone());
    world.run(ms(50));
    world.raws[callee].requests(Method::Invite).remove(0)
}

fn say(world: &mut World, from: usize, to: &Request, code: u16, tag: &str, sdp: Option<&str>) {
    let reply = world.raws[from].reply(to, code, tag, sdp);
    world.raws[from].send(reply);
    world.run(ms(50));
}

/// A call that is up: A's INVITE, its 200, the INVITE that the called side got.
struct Talk {
    invite: Request,
    ok: Response,
    received: Request,
    callee: usize,
}

fn talk(world: &mut World, to: &str, callee: usize, offer: Option<&str>, in_ack: Option<&str>) -> Talk {
    let invite = from_2001(world, to, offer);
    let received = ring(world, &invite, callee);
    let host = world.raws[callee].address.ip().to_string();
    say(world, callee, &received, 200, "b", Some(&sdp(&host, 6000, "0 101", "sendrecv")));
    let ok = world.raws[A].responses("INVITE").into_iter().find(|r| r.code == 200).unwrap();
    let mut ack = world.raws[A].in_dialog(&invite, &ok, Method::Ack, 1);
    if let Some(sdp) = in_ack {
        with_sdp(&mut ack, sdp);
    }
    world.raws[A].send(ack);
    world.run(ms(50));
    Talk { invite, ok, received, callee }
}

fn with_sdp(request: &mut Request, sdp: &str) {
    request.headers.push(Name::ContentType, "application/sdp");
    request.body = sdp.to_owned().into();
}

fn finish(world: &mut World, talk: &Talk) {
    let bye = world.raws[A].in_dialog(&talk.invite, &talk.ok, Method::Bye, 99);
    world.raws[A].send(bye);
    world.run(ms(100));
    answer_byes(world, talk.callee);
    world.settle();
}

fn answer_byes(world: &mut World, raw: usize) {
    for bye in world.raws[raw].requests(Method::Bye) {
        say(world, raw, &bye, 200, "", None);
    }
}

fn last(world: &World, raw: usize, method: &str) -> Response {
    world.raws[raw].responses(method).pop().unwrap()
}

#[test]
fn a_2xx_at_the_instant_of_the_ring_timeout_has_won() {
    let mut world = world_of(|_| {});
    let invite = from_2001(&world, "2002", Some(&offer()));
    let received = ring(&mut world, &invite, B);
    say(&mut world, B, &received, 180, "b", None);
    // The timer runs since the INVITE was here, after one way of the wire; the 200 takes one, too.
    let gone = world.net.now() - world.start;
    world.run(ms(60_000) - gone);
    let ok = world.raws[B].reply(&received, 200, "b", Some(&answer()));
    world.raws[B].send(ok);
    world.run(ms(50));
    assert_eq!(last(&world, A, "INVITE").code, 200);
    let ok = last(&world, A, "INVITE");
    let ack = world.raws[A].in_dialog(&invite, &ok, Method::Ack, 1);
    world.raws[A].send(ack);
    finish(&mut world, &Talk { invite, ok, received, callee: B });
}

#[test]
fn a_running_dialog_follows_the_addresses_of_its_peers_name_and_of_the_plan() {
    let named = |o: &mut Options| {
        let host = Host::Name("carrier.example".into());
        let address = PeerAddress { user: None, host, port: 5060, transport: Some(Transport::Udp) };
        o.plan.trunks = vec![Trunk { addresses: vec![address], ..Trunk::new("carrier") }];
    };
    let addresses = |ips: &[&str]| Input::Resolved {
        host: "carrier.example".into(),
        addresses: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
    };
    let mut world = world_of(named);
    let (first, second) = (world.raw("198.51.100.10:5060"), world.raw("198.51.100.20:5060"));
    world.tell(addresses(&["198.51.100.10"]));
    let talk = talk(&mut world, "0123", first, Some(&offer()), None);
    let ask = |world: &mut World, cseq| {
        let options = world.raws[second].as_callee(&talk.received, "b", Method::Options, cseq);
        world.raws[second].send(options);
        world.run(ms(50));
        last(world, second, "OPTIONS").code
    };
    assert_eq!(ask(&mut world, 1), 481);
    world.tell(addresses(&["198.51.100.10", "198.51.100.20"]));
    assert_eq!(ask(&mut world, 2), 200);
    // A resolver that fails changes nothing, a plan without the trunk neither; one with other addresses does.
    world.tell(addresses(&[]));
    assert_eq!(ask(&mut world, 3), 200);
    world.tell(Input::Reload(Box::<Plan>::default()));
    assert_eq!(ask(&mut world, 4), 200);
    let third = world.raw("203.0.113.5:5060");
    let mut plan = options().plan;
    plan.trunks = vec![Trunk { from: vec!["203.0.113.0/24".parse().unwrap()], ..Trunk::new("carrier") }];
    world.tell(Input::Reload(Box::new(plan)));
    let bye = world.raws[third].as_callee(&talk.received, "b", Method::Bye, 5);
    world.raws[third].send(bye);
    world.run(ms(50));
    assert_eq!(world.raws[third].codes("BYE"), [200]);
    answer_byes(&mut world, A);
    world.settle();
}

#[test]
fn an_early_dialog_follows_its_peer_as_well() {
    let mut world = world_of(|_| {});
    let moved = world.raw("10.0.0.77:5060");
    let invite = from_2001(&world, "2002", Some(&offer()));
    let received = ring(&mut world, &invite, B);
    let mut plan = options().plan;
    let mut address = plan.dns[1].contact.fixed().unwrap().clone();
    address.host = Host::Ip("10.0.0.77".parse().unwrap());
    plan.dns[1].contact = stickytape::call::options::Contact::At(address);
    world.tell(Input::Reload(Box::new(plan)));
    say(&mut world, B, &received, 180, "b", None);
    let options = world.raws[moved].as_callee(&received, "b", Method::Options, 1);
    world.raws[moved].send(options);
    world.run(ms(50));
    assert_eq!(last(&world, moved, "OPTIONS").code, 200);
    say(&mut world, B, &received, 486, "b", None);
    world.settle();
}

#[test]
fn a_redirect_tells_the_caller_480_when_not_followed_404_when_it_leads_nowhere_and_else_what_its_targets_say() {
    for (follow, contact, expected) in [
        (false, "<sip:2002@192.0.2.1>", 480),
        (true, "<sip:9@evil.example>", 404),
        (true, "<sip:9@203.0.113.99>", 404),
        (true, "<sip:3999@192.0.2.1>", 404),
        // Ours is an address and a port.
        (true, "<sip:2002@192.0.2.1:5999>", 404),
        // 2009 says nothing.
        (true, "<sip:2009@192.0.2.1>", 408),
    ] {
        let mut world = world_of(|o| o.plan.trunks[0].follow_redirect = follow);
        let trunk = world.raw("198.51.100.10:5060");
        let invite = from_2001(&world, "0123", Some(&offer()));
        let received = ring(&mut world, &invite, trunk);
        let mut moved = world.raws[trunk].reply(&received, 302, "t", None);
        moved.headers.set(Name::Contact, contact.to_owned());
        world.raws[trunk].send(moved);
        world.run(ms(5_000));
        let told = last(&world, A, "INVITE");
        assert_eq!(told.code, expected, "{follow} {contact}");
        assert!(!told.headers.has(Name::Contact), "the targets are not told");
        world.settle();
    }
}

#[test]
fn a_6xx_ends_the_branches_that_are_left() {
    let mut world = world_of(|o| o.plan.trunks[0].follow_redirect = true);
    let trunk = world.raw("198.51.100.10:5060");
    let other = world.raw("10.0.0.3:5060");
    let invite = from_2001(&world, "0123", Some(&offer()));
    let received = ring(&mut world, &invite, trunk);
    let mut moved = world.raws[trunk].reply(&received, 302, "t", None);
    moved.headers.set(Name::Contact, "<sip:2002@192.0.2.1>, <sip:2003@192.0.2.1>");
    world.raws[trunk].send(moved);
    world.run(ms(50));
    let tried = world.raws[B].requests(Method::Invite).remove(0);
    say(&mut world, B, &tried, 603, "b", None);
    assert_eq!(last(&world, A, "INVITE").code, 603);
    assert!(world.raws[other].requests(Method::Invite).is_empty());
    world.settle();
}

#[test]
fn an_offer_in_an_early_dialog_whose_offer_is_open_is_491_or_500_with_retry_after() {
    let mut world = world_of(|_| {});
    let invite = from_2001(&world, "2002", Some(&offer()));
    let received = ring(&mut world, &invite, B);
    say(&mut world, B, &received, 180, "b", None);
    let mut update = world.raws[B].as_callee(&received, "b", Method::Update, 1);
    with_sdp(&mut update, &answer());
    world.raws[B].send(update);
    let ringing = last(&world, A, "INVITE");
    let mut update = world.raws[A].in_dialog(&invite, &ringing, Method::Update, 2);
    with_sdp(&mut update, &offer());
    world.raws[A].send(update);
    world.run(ms(50));
    assert_eq!(last(&world, B, "UPDATE").code, 491);
    let later = last(&world, A, "UPDATE");
    assert_eq!(later.code, 500);
    assert!(later.headers.has(Name::RetryAfter));
    say(&mut world, B, &received, 486, "b", None);
    world.settle();
}

#[test]
fn a_cancel_of_a_passed_re_invite_is_passed_too() {
    let mut world = world_of(|_| {});
    let talk = talk(&mut world, "2002", B, Some(&offer()), None);
    let mut hold = world.raws[A].in_dialog(&talk.invite, &talk.ok, Method::Invite, 2);
    with_sdp(&mut hold, &offer().replace("sendrecv", "sendonly").replace("1 1 IN", "1 2 IN"));
    world.raws[A].send(hold.clone());
    world.run(ms(50));
    let passed = world.raws[B].requests(Method::Invite).pop().unwrap();
    say(&mut world, B, &passed, 100, "", None);
    let mut cancel = hold;
    cancel.method = Method::Cancel;
    cancel.headers.set(Name::CSeq, "2 CANCEL");
    cancel.headers.remove(Name::ContentType);
    cancel.body = Default::default();
    world.raws[A].send(cancel);
    world.run(ms(50));
    assert_eq!(world.raws[A].codes("2 INVITE").last(), Some(&487));
    let cancel = world.raws[B].requests(Method::Cancel).pop().expect("B would ring on");
    say(&mut world, B, &cancel, 200, "", None);
    say(&mut world, B, &passed, 487, "", None);
    assert_eq!(world.proxy.calls.snapshot()[0].state, "talking");
    assert!(!world.proxy.story().iter().any(|s| s.starts_with("warning") || s.starts_with("held")));
    assert_eq!(world.raws[B].requests(Method::Invite).len(), 2, "nothing to undo");
    finish(&mut world, &talk);
}

#[test]
fn codecs_of_an_answer_in_ack_that_the_called_side_lacks_are_offered_to_it_and_then_given_up() {
    let mut world = world_of(|_| {});
    let in_ack = sdp("10.0.0.1", 4000, "8 0 101", "sendrecv");
    let talk = talk(&mut world, "2002", B, None, Some(&in_ack));
    let again = world.raws[B].requests(Method::Invite).pop().unwrap();
    assert!(body(&again.body).contains("RTP/AVP 8 0 101\r\n"), "{}", body(&again.body));
    say(&mut world, B, &again, 200, "", Some(&answer().replace("1 1 IN", "1 2 IN")));
    let narrowed = world.raws[A].requests(Method::Invite).pop().expect("A may still send PCMA");
    assert!(body(&narrowed.body).contains("RTP/AVP 0 101\r\n"), "{}", body(&narrowed.body));
    say(&mut world, A, &narrowed, 200, "", Some(&sdp("10.0.0.1", 4000, "0 101", "sendrecv")));
    world.run(ms(500));
    assert_eq!(world.raws[B].requests(Method::Invite).len(), 2);
    assert_eq!(world.raws[A].requests(Method::Invite).len(), 1);
    let view = world.proxy.calls.snapshot().remove(0);
    assert!(view.parties.iter().all(|p| p.codec.as_deref() == Some("PCMU/8000")));
    finish(&mut world, &talk);
}

#[test]
fn an_unusable_answer_in_ack_ends_both_sides() {
    let mut world = world_of(|_| {});
    talk(&mut world, "2002", B, None, Some("v=0\r\nthis is no description"));
    assert!(world.proxy.has_fact("released media"));
    for side in [A, B] {
        assert_eq!(world.raws[side].requests(Method::Bye).len(), 1);
        answer_byes(&mut world, side);
    }
    world.settle();
}

#[test]
fn an_answer_with_more_than_we_offered_passes_only_what_we_offered() {
    let mut world = world_of(|_| {});
    let g729 = "a=rtpmap:18 G729/8000\r\n";
    let wide = sdp("10.0.0.1", 4000, "0 18 101", "sendrecv") + g729;
    let invite = from_2001(&world, "2002", Some(&wide));
    let received = ring(&mut world, &invite, B);
    assert!(body(&received.body).contains("RTP/AVP 0 101\r\n"));
    let wide = sdp("10.0.0.2", 6000, "18 0 101", "sendrecv") + g729;
    say(&mut world, B, &received, 183, "b", Some(&wide));
    assert!(body(&last(&world, A, "INVITE").body).contains("RTP/AVP 0 101\r\n"));
    say(&mut world, B, &received, 200, "b", Some(&wide));
    let ok = last(&world, A, "INVITE");
    assert!(body(&ok.body).contains("RTP/AVP 0 101\r\n"), "{}", body(&ok.body));
    let ack = world.raws[A].in_dialog(&invite, &ok, Method::Ack, 1);
    world.raws[A].send(ack);
    finish(&mut world, &Talk { invite, ok, received, callee: B });
}

#[test]
fn media_of_the_other_ip_family_is_488_and_the_called_side_hears_nothing() {
    let six = "v=0\r\no=- 1 9 IN IP6 2001:db8::5\r\ns=-\r\nc=IN IP6 2001:db8::5\r\nt=0 0\r\nm=audio 6000 RTP/AVP 0\r\n\
        a=inactive\r\n";
    let mut world = world_of(|_| {});
    let invite = from_2001(&world, "2002", Some(six));
    world.raws[A].send(invite);
    world.run(ms(50));
    let refused = last(&world, A, "INVITE");
    assert_eq!(refused.code, 488);
    assert!(text(refused.headers.get(Name::Warning)).starts_with("301 "));
    assert!(world.raws[B].got.is_empty());
    world.settle();

    let mut world = world_of(|_| {});
    let talk = talk(&mut world, "2002", B, Some(&offer()), None);
    let mut again = world.raws[A].in_dialog(&talk.invite, &talk.ok, Method::Invite, 2);
    with_sdp(&mut again, six);
    world.raws[A].send(again);
    world.run(ms(50));
    assert_eq!(last(&world, A, "2 INVITE").code, 488);
    assert_eq!(world.raws[B].requests(Method::Invite).len(), 1);
    finish(&mut world, &talk);
}

#[test]
fn a_passed_re_invite_carries_lines_body_parts_and_the_ids_of_the_call() {
    let mut world = world_of(|_| {});
    let talk = talk(&mut world, "2002", B, Some(&offer()), None);
    let mut hold = world.raws[A].in_dialog(&talk.invite, &talk.ok, Method::Invite, 2);
    hold.headers.push(Name::Subject, "hold");
    hold.headers.push(Name::Other(b"X-Thing"), "1");
    hold.headers.push(Name::Other(b"X-Stickytape-ConnID"), "forged");
    hold.headers.push(Name::ContentType, "multipart/mixed;boundary=x");
    let description = offer().replace("sendrecv", "sendonly").replace("1 1 IN", "1 2 IN");
    hold.body = format!(
        "--x\r\nContent-Type: application/sdp\r\n\r\n{description}\r\n--x\r\nContent-Type: application/isup\r\n\r\n\
         \u{1}\u{2}\r\n--x--\r\n"
    )
    .into();
    world.raws[A].send(hold);
    world.run(ms(50));
    let passed = world.raws[B].requests(Method::Invite).pop().unwrap();
    assert_eq!(text(passed.headers.get(Name::Subject)), "hold");
    assert_eq!(text(passed.headers.get(Name::Other(b"X-Thing"))), "1");
    let view = world.proxy.calls.snapshot().remove(0);
    let ids: Vec<_> = passed.headers.all(Name::XStickytapeConnId).map(|l| body(l.raw())).collect();
    assert_eq!(ids, [view.conn_id.to_string()]);
    assert_eq!(text(passed.headers.get(Name::XStickytapeCallUuid)), view.call_uuid.to_string());
    assert!(text(passed.headers.get(Name::ContentType)).starts_with("multipart/mixed"));
    let passed_body = body(&passed.body);
    assert!(passed_body.contains("application/isup\r\n\r\n\u{1}\u{2}\r\n") && passed_body.contains("a=sendonly"));
    let held = answer().replace("sendrecv", "recvonly").replace("1 1 IN", "1 2 IN");
    say(&mut world, B, &passed, 200, "", Some(&held));
    let ok = last(&world, A, "2 INVITE");
    assert_eq!(ok.code, 200);
    let ack = world.raws[A].in_dialog(&talk.invite, &ok, Method::Ack, 2);
    world.raws[A].send(ack);
    world.run(ms(50));
    let held = |s: &&String| *s == "event held";
    assert_eq!(world.proxy.mark_story().iter().filter(held).count(), 1, "an event is told once per session");
    finish(&mut world, &talk);
}

#[test]
fn bodies_of_bye_and_of_a_failure_cross() {
    let mut world = world_of(|_| {});
    let call = talk(&mut world, "2002", B, Some(&offer()), None);
    let mut bye = world.raws[A].in_dialog(&call.invite, &call.ok, Method::Bye, 2);
    bye.headers.push(Name::Reason, "Q.850;cause=16");
    bye.headers.push(Name::ContentType, "application/isup;version=x");
    bye.body = "\u{3}".into();
    world.raws[A].send(bye);
    world.run(ms(50));
    let passed = world.raws[B].requests(Method::Bye).remove(0);
    assert_eq!(text(passed.headers.get(Name::Reason)), "Q.850;cause=16");
    assert_eq!(text(passed.headers.get(Name::ContentType)), "application/isup;version=x");
    assert_eq!(body(&passed.body), "\u{3}");
    answer_byes(&mut world, B);
    world.settle();

    let mut world = world_of(|_| {});
    let invite = from_2001(&world, "2002", Some(&offer()));
    let received = ring(&mut world, &invite, B);
    let mut busy = world.raws[B].reply(&received, 486, "b", None);
    busy.headers.push(Name::Warning, "399 b \"on the phone\"");
    busy.headers.push(Name::ContentType, "text/plain");
    busy.body = "later".into();
    world.raws[B].send(busy);
    world.run(ms(50));
    let told = last(&world, A, "INVITE");
    assert_eq!((told.code, &told.reason[..]), (486, &b"Whatever"[..]));
    assert_eq!(text(told.headers.get(Name::Warning)), "399 b \"on the phone\"");
    assert_eq!(body(&told.body), "later");
    world.settle();
}

#[test]
fn an_identity_in_a_failure_passes_only_between_trusted_peers() {
    for trusted in [false, true] {
        let mut world = world_of(|o| {
            o.plan.dns[0].trusted = true;
            o.plan.dns[1].trusted = trusted;
        });
        let invite = from_2001(&world, "2002", Some(&offer()));
        let received = ring(&mut world, &invite, B);
        let mut busy = world.raws[B].reply(&received, 486, "b", None);
        busy.headers.push(Name::PAssertedIdentity, "<sip:boss@10.0.0.2>");
        world.raws[B].send(busy);
        world.run(ms(50));
        assert_eq!(last(&world, A, "INVITE").headers.has(Name::PAssertedIdentity), trusted);
        world.settle();
    }
}

#[test]
fn odd_provisional_answers_do_no_harm_and_a_2xx_may_come_with_another_tag() {
    let mut world = world_of(|_| {});
    let invite = from_2001(&world, "2002", Some(&offer()));
    let received = ring(&mut world, &invite, B);
    say(&mut world, B, &received, 100, "x", None);
    say(&mut world, B, &received, 180, "", Some(&answer()));
    let untagged = last(&world, A, "INVITE");
    assert_eq!(
        (untagged.code, untagged.body.len()),
        (180, 0),
        "without a tag it makes no dialog to have a description"
    );
    // We never offered 100rel.
    let mut reliable = world.raws[B].reply(&received, 183, "b", Some(&answer()));
    reliable.headers.push(Name::Require, "100rel");
    reliable.headers.push(Name::RSeq, "17");
    world.raws[B].send(reliable);
    world.run(ms(50));
    let progress = last(&world, A, "INVITE");
    assert_eq!(progress.code, 183);
    assert!(!progress.headers.has(Name::Require) && !progress.headers.has(Name::RSeq));
    assert!(body(&progress.body).contains("m=audio"));
    let others = sdp("10.0.0.22", 7000, "0 101", "sendrecv");
    say(&mut world, B, &received, 200, "c", Some(&others));
    let ok = last(&world, A, "INVITE");
    assert_eq!(ok.code, 200);
    assert_ne!(ok.headers.get(Name::To), progress.headers.get(Name::To), "another fork is another dialog");
    let ack = world.raws[A].in_dialog(&invite, &ok, Method::Ack, 1);
    world.raws[A].send(ack);
    world.run(ms(50));
    let acked = world.raws[B].requests(Method::Ack).pop().unwrap();
    assert!(text(acked.headers.get(Name::To)).ends_with("tag=c"));
    finish(&mut world, &Talk { invite, ok, received, callee: B });
}

#[test]
fn a_flood_from_strangers_costs_a_403_each_and_nothing_else() {
    let mut world = world_of(|_| {});
    let stranger = world.raw("203.0.113.66:5060");
    let before = world.proxy.commands.len();
    for n in 0..200 {
        let mut invite = world.raws[stranger].invite("2002", &format!("s{n}"), Some(&offer()));
        // The number of a DN, from elsewhere.
        invite.headers.set(Name::From, format!("<sip:2001@10.0.0.1>;tag=s{n}"));
        world.raws[stranger].send(invite);
    }
    world.run(ms(100));
    assert_eq!(world.proxy.commands.len(), before, "no port, no leg");
    assert!(world.proxy.marks.is_empty());
    assert!(world.proxy.story().iter().all(|s| s == "refused 403"));
    assert_eq!(world.proxy.calls.counters().calls, 0);
    assert!(world.raws[B].got.is_empty());
    // Nor do they learn how busy we are.
    let mut full = world_of(|o| o.sip.max_calls = 0);
    let stranger_to_it = full.raw("203.0.113.66:5060");
    let invite = full.raws[stranger_to_it].invite("2002", "s", Some(&offer()));
    full.raws[stranger_to_it].send(invite);
    full.run(ms(50));
    assert_eq!(full.raws[stranger_to_it].codes("INVITE"), [100, 403]);
    full.settle();
    let talk = talk(&mut world, "2002", B, Some(&offer()), None);
    assert_eq!(world.proxy.calls.snapshot()[0].state, "talking");
    finish(&mut world, &talk);
}

#[test]
fn a_dn_is_not_believed_from_a_trunks_address() {
    let mut world = world_of(|_| {});
    let trunk = world.raw("198.51.100.10:5060");
    let mut invite = world.raws[trunk].invite("2002", "t", Some(&sdp("198.51.100.10", 4000, "0", "sendrecv")));
    invite.headers.set(Name::From, "<sip:2001@10.0.0.1>;tag=t");
    world.raws[trunk].send(invite);
    world.run(ms(50));
    let view = world.proxy.calls.snapshot().remove(0);
    assert_eq!((view.parties[0].dn.as_deref(), view.parties[0].trunk.as_deref()), (None, Some("carrier")));
    assert_eq!(view.parties[0].role, "customer");
    let received = world.raws[B].requests(Method::Invite).remove(0);
    say(&mut world, B, &received, 486, "b", None);
    world.settle();
}

#[test]
fn max_forwards_goes_down_by_one_and_ends_loops_through_ourselves() {
    for (given, sent) in [(Some("20"), "19"), (Some("1"), "0"), (None, "70")] {
        let mut world = world_of(|_| {});
        let mut invite = from_2001(&world, "2002", Some(&offer()));
        invite.headers.remove(Name::MaxForwards);
        if let Some(given) = given {
            invite.headers.push(Name::MaxForwards, given);
        }
        let received = ring(&mut world, &invite, B);
        assert_eq!(text(received.headers.get(Name::MaxForwards)), sent);
        say(&mut world, B, &received, 486, "b", None);
        world.settle();
    }
    let ourselves = |o: &mut Options| {
        let host = Host::Ip(addr(PROXY).ip());
        let to = PeerAddress { user: None, host, port: 5060, transport: Some(Transport::Udp) };
        o.plan.routes = vec![route("^7", RouteTarget::Uri(to))];
        o.plan.trunks.push(Trunk { from: vec!["192.0.2.1/32".parse().unwrap()], ..Trunk::new("loop") });
    };
    let mut world = world_of(ourselves);
    let mut invite = from_2001(&world, "7", Some(&offer()));
    invite.headers.set(Name::MaxForwards, "5");
    world.raws[A].send(invite);
    world.run(ms(500));
    assert_eq!(last(&world, A, "INVITE").code, 483);
    let started = |s: &&String| *s == "started";
    assert_eq!(world.proxy.story().iter().filter(started).count(), 5);
    world.settle();
}

#[test]
fn a_drain_lets_a_ringing_call_be_answered_and_the_end_refuses_it_with_retry_after() {
    let mut world = world_of(|_| {});
    let invite = from_2001(&world, "2002", Some(&offer()));
    let received = ring(&mut world, &invite, B);
    say(&mut world, B, &received, 180, "b", None);
    world.tell(Input::Drain);
    world.run(ms(1_000));
    say(&mut world, B, &received, 200, "b", Some(&answer()));
    let ok = last(&world, A, "INVITE");
    assert_eq!(ok.code, 200);
    let ack = world.raws[A].in_dialog(&invite, &ok, Method::Ack, 1);
    world.raws[A].send(ack);
    finish(&mut world, &Talk { invite, ok, received, callee: B });
    assert!(world.proxy.drained);

    let mut world = world_of(|_| {});
    let invite = from_2001(&world, "2002", Some(&offer()));
    let received = ring(&mut world, &invite, B);
    say(&mut world, B, &received, 180, "b", None);
    world.tell(Input::HangUpAll);
    world.run(ms(50));
    let told = last(&world, A, "INVITE");
    assert_eq!(told.code, 503);
    assert!(told.headers.has(Name::RetryAfter));
    let cancel = world.raws[B].requests(Method::Cancel).remove(0);
    assert!(text(cancel.headers.get(Name::Reason)).contains("Shutdown"));
    say(&mut world, B, &cancel, 200, "b", None);
    // It crosses the 200.
    say(&mut world, B, &received, 200, "b", Some(&answer()));
    assert_eq!(world.raws[B].requests(Method::Bye).len(), 1);
    answer_byes(&mut world, B);
    assert!(world.proxy.starts().is_empty());
    world.settle();
    assert!(world.proxy.drained);
}

#[test]
fn what_a_caller_writes_cannot_add_a_header_line() {
    let mut world = world_of(|_| {});
    let mut invite = from_2001(&world, "2002", Some(&offer()));
    invite.headers.set(Name::To, "\"a\\\" b\" <sip:x%0d%0aX-Evil%3a%201@192.0.2.1>");
    // Also when it is our own code that copies a value with a line end.
    invite.headers.push(Name::Subject, "two\r\nX-Evil: 1");
    let received = ring(&mut world, &invite, B);
    assert!(!received.headers.has(Name::Other(b"X-Evil")));
    assert_eq!(text(received.headers.get(Name::To)), "\"a\\\" b\" <sip:x%0D%0AX-Evil%3A%201@10.0.0.2:5060>");
    assert_eq!(body(received.headers.all(Name::Subject).next().unwrap().raw()), "two  X-Evil: 1");
    say(&mut world, B, &received, 486, "b", None);
    world.settle();
}

#[test]
fn a_live_call_is_shown_with_its_parties_states_media_and_recordings() {
    let mut world = world_of(|_| {});
    let talk = talk(&mut world, "2002", B, Some(&offer()), None);
    let view = serde_json::to_value(world.proxy.calls.snapshot()).unwrap();
    let call = &view[0];
    assert_eq!(call["state"], "talking");
    assert_eq!((&call["callerPhoneNumber"], &call["dialedPhoneNumber"]), (&"2001".into(), &"2002".into()));
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        keys(call),
        [
            "answered",
            "callUuid",
            "callerPhoneNumber",
            "connId",
            "dialedPhoneNumber",
            "parties",
            "previousConnId",
            "recordings",
            "started",
            "state"
        ]
    );
    assert_eq!(
        keys(&call["parties"][1]),
        [
            "clockSkewPpm",
            "codec",
            "dn",
            "holds",
            "jitterMs",
            "lastPacket",
            "legId",
            "lost",
            "media",
            "number",
            "received",
            "refused",
            "role",
            "sent",
            "state",
            "trunk"
        ]
    );
    assert_eq!(call["parties"][1]["codec"], "PCMU/8000");
    assert_eq!(keys(&call["recordings"][0]), ["id", "levels", "ownerLeg", "paused", "state", "trigger"]);
    finish(&mut world, &talk);
}

fn info(request: &mut Request) {
    request.headers.push(Name::ContentType, "application/x");
    request.body = "1".into();
}

#[test]
fn a_bye_that_crosses_a_passed_request_is_answered_and_ends_the_call() {
    let mut world = world_of(|_| {});
    let call = talk(&mut world, "2002", B, Some(&offer()), None);
    let mut asked = world.raws[A].in_dialog(&call.invite, &call.ok, Method::Info, 2);
    info(&mut asked);
    world.raws[A].send(asked);
    world.run(ms(50));
    assert_eq!(world.raws[B].requests(Method::Info).len(), 1);
    let bye = world.raws[B].as_callee(&call.received, "b", Method::Bye, 1);
    world.raws[B].send(bye);
    world.run(ms(50));
    assert_eq!(world.raws[B].codes("BYE"), [200]);
    assert!(world.proxy.has_fact("released released"), "{:?}", world.proxy.story());
    answer_byes(&mut world, A);
    world.settle();
}

#[test]
fn a_fork_that_loses_with_a_passed_request_open_does_not_end_the_call() {
    for refused in [false, true] {
        let mut world = world_of(|_| {});
        let invite = from_2001(&world, "2002", Some(&offer()));
        let received = ring(&mut world, &invite, B);
        say(&mut world, B, &received, 183, "b", Some(&answer()));
        let progress = last(&world, A, "INVITE");
        let mut asked = world.raws[A].in_dialog(&invite, &progress, Method::Info, 2);
        info(&mut asked);
        world.raws[A].send(asked);
        world.run(ms(50));
        let passed = world.raws[B].requests(Method::Info).pop().unwrap();
        if refused {
            say(&mut world, B, &passed, 481, "", None);
        }
        say(&mut world, B, &received, 200, "c", Some(&answer()));
        assert_eq!(last(&world, A, "INFO").code, 500);
        let ok = last(&world, A, "INVITE");
        assert_eq!(ok.code, 200, "{:?}", world.proxy.story());
        let ack = world.raws[A].in_dialog(&invite, &ok, Method::Ack, 1);
        world.raws[A].send(ack);
        finish(&mut world, &Talk { invite, ok, received, callee: B });
    }
}

#[test]
fn the_called_number_is_read_from_every_form_of_the_request_uri() {
    for (uri, number, sent) in [
        ("sip:0123@192.0.2.1", "0123", "sip:0123@198.51.100.10:5060"),
        ("sip:0%31-2.(3)@192.0.2.1;user=phone", "0123", "sip:0123@198.51.100.10:5060"),
        ("tel:0-12-3;phone-context=example.com", "0123", "sip:0123@198.51.100.10:5060"),
        ("sip:+49123@192.0.2.1", "+49123", "sip:+49123@198.51.100.10:5060"),
    ] {
        let mut world = world_of(|o| {
            o.plan.routes.push(route(r"^\+", RouteTarget::Trunk("carrier".into())));
        });
        let trunk = world.raw("198.51.100.10:5060");
        let mut invite = from_2001(&world, "x", Some(&offer()));
        invite.uri = uri.into();
        let received = ring(&mut world, &invite, trunk);
        assert_eq!(body(&received.uri), sent, "{uri}");
        assert_eq!(world.proxy.calls.snapshot()[0].dialed_phone_number, number, "{uri}");
        assert!(!received.headers.has(Name::XStickytapeConnId), "never to trunks");
        say(&mut world, trunk, &received, 486, "t", None);
        world.settle();
    }
}

#[test]
fn the_callers_number_is_the_asserted_one_of_a_trusted_trunk_else_that_of_from() {
    for (trusted, number) in [(true, "+4930123"), (false, "4711")] {
        let mut world = world_of(|o| o.plan.trunks[0].trusted = trusted);
        let trunk = world.raw("198.51.100.10:5060");
        let mut invite = world.raws[trunk].invite("2002", "t", Some(&sdp("198.51.100.10", 4000, "0", "sendrecv")));
        invite.headers.set(Name::From, "<sip:4711@198.51.100.10>;tag=t");
        invite.headers.push(Name::PAssertedIdentity, "\"A\" <sip:+49-30-123@carrier.example;user=phone>");
        world.raws[trunk].send(invite);
        world.run(ms(50));
        assert_eq!(world.proxy.calls.snapshot()[0].caller_phone_number, number);
        let received = world.raws[B].requests(Method::Invite).remove(0);
        say(&mut world, B, &received, 486, "b", None);
        world.settle();
    }
}

#[test]
fn behind_a_trunks_own_caller_id_the_callers_identity_stays_hidden_in_every_request() {
    let mut world = world_of(|o| {
        o.plan.dns[0].trusted = true;
        o.plan.trunks[0].trusted = true;
        o.plan.trunks[0].caller_id = Some("+49800".into());
    });
    let trunk = world.raw("198.51.100.10:5060");
    let identify = |request: &mut Request| {
        request.headers.push(Name::PAssertedIdentity, "<sip:2001@10.0.0.1>");
        request.headers.push(Name::Other(b"P-Preferred-Identity"), "<sip:2001@10.0.0.1>");
    };
    let mut invite = from_2001(&world, "0123", Some(&offer()));
    identify(&mut invite);
    let received = ring(&mut world, &invite, trunk);
    assert!(text(received.headers.get(Name::From)).starts_with("<sip:+49800@192.0.2.1:5060>"));
    say(&mut world, trunk, &received, 200, "b", Some(&sdp("198.51.100.10", 6000, "0 101", "sendrecv")));
    let ok = last(&world, A, "INVITE");
    let ack = world.raws[A].in_dialog(&invite, &ok, Method::Ack, 1);
    world.raws[A].send(ack);
    for (cseq, method) in [(2, Method::Invite), (3, Method::Info), (4, Method::Bye)] {
        let mut request = world.raws[A].in_dialog(&invite, &ok, method.clone(), cseq);
        match method {
            Method::Invite => {
                with_sdp(&mut request, &offer().replace("sendrecv", "sendonly").replace("1 1 IN", "1 2 IN"))
            }
            Method::Info => info(&mut request),
            _ => {}
        }
        identify(&mut request);
        world.raws[A].send(request);
        world.run(ms(50));
    }
    assert_eq!(world.raws[trunk].requests(Method::Invite).len(), 2);
    for method in [Method::Invite, Method::Info, Method::Bye] {
        for request in world.raws[trunk].requests(method) {
            assert!(!body(&request.encode()).contains("2001"), "{}", body(&request.encode()));
        }
    }
    answer_byes(&mut world, trunk);
    world.settle();
}
