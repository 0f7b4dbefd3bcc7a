//! DNs that register: REGISTER and its answers, calls to where a device is, and callers who prove which DN they are
//! (RFC 3261 §10.3 and §22, spec/sip.md §1). In virtual time, with peers written by hand.

use crate::call_world::*;
use bytes::Bytes;
use stickytape::call::options::{Account, Dn, Nat, Numbers, Options, Password, Plan};
use stickytape::call::request::{Ask, Code, Request as Asked, Ticket};
use stickytape::call::{Calls, Input, Output, Reach, Seats};
use stickytape::id::{RecorderId, WorkerId};
use stickytape::sip::auth::{self, Credentials};
use stickytape::sip::endpoint::{self, ConnectionId, Flow, Transport};
use stickytape::sip::message::{Message, Request, Response};
use stickytape::sip::method::Method;
use stickytape::sip::name::Name;
use stickytape::sip::values::Algorithm;
use stickytape::testing::phone::{Action, Happened, Happening, Leave, Refer};

/// The trunk, and devices of DN 3001, 3002 …; 2001 … have fixed contacts.
const T: usize = 0;
const A: usize = 1;
const B: usize = 2;

fn dn(number: &str) -> Dn {
    let algorithms = vec![Algorithm::Sha256, Algorithm::Md5];
    Dn::registered(Numbers::One(number.into()), Account { password: Password::new("s3cret"), algorithms })
}

fn plan_options() -> Options {
    let mut options = options();
    options.plan.dns.extend([dn("3001"), dn("3002")]);
    options
}

fn world_of(devices: &[&str], options: Options) -> World {
    let mut world = World::new(options);
    world.raw("198.51.100.10:5060");
    devices.iter().for_each(|device| _ = world.raw(device));
    world
}

fn world() -> World {
    world_of(&["203.0.113.9:5060", "203.0.113.10:5060"], plan_options())
}

fn register(source: &str, number: &str, call: &str, seq: u32, lines: &[(Name<'static>, &str)]) -> Request {
    let mut request = Request::new(Method::Register, "sip:192.0.2.1");
    let mut add = |name, value: String| request.headers.push(name, value);
    add(Name::Via, format!("SIP/2.0/UDP {source};rport;branch=z9hG4bK-{call}-{seq}"));
    add(Name::MaxForwards, "70".into());
    add(Name::From, format!("<sip:{number}@192.0.2.1>;tag=r-{call}"));
    add(Name::To, format!("<sip:{number}@192.0.2.1>"));
    add(Name::CallId, call.into());
    add(Name::CSeq, format!("{seq} REGISTER"));
    lines.iter().for_each(|(name, value)| add(*name, (*value).into()));
    request
}

/// The request again, one CSeq higher, with the answer to its challenge.
fn authorized(mut request: Request, challenge: &Response, username: &str, password: &str) -> Request {
    let credentials = Credentials { username: username.into(), password: Password::new(password), realm: None };
    for line in auth::answer(challenge, &request, &credentials, false, b"cnonce").unwrap() {
        request.headers.push_line(line);
    }
    let cseq = text(request.headers.get(Name::CSeq));
    let (number, method) = cseq.split_once(' ').unwrap();
    let next = format!("{} {method}", number.parse::<u32>().unwrap() + 1);
    let branch = text(request.headers.get(Name::Via)) + "a";
    request.headers.set(Name::CSeq, next);
    request.headers.set(Name::Via, branch);
    request
}

fn last(world: &World, raw: usize, method: &str) -> Response {
    world.raws[raw].responses(method).pop().unwrap()
}

/// Sends a request and gives its answer.
fn ask(world: &mut World, raw: usize, request: Request) -> Response {
    let method = request.method.to_string();
    world.raws[raw].send(request);
    world.run(ms(50));
    last(world, raw, &method)
}

/// A whole registration: its final answer.
fn enrol(
    world: &mut World,
    raw: usize,
    number: &str,
    call: &str,
    seq: u32,
    lines: &[(Name<'static>, &str)],
) -> Response {
    let source = world.raws[raw].address.to_string();
    let request = register(&source, number, call, seq, lines);
    let challenge = ask(world, raw, request.clone());
    assert_eq!(challenge.code, 401);
    ask(world, raw, authorized(request, &challenge, number, "s3cret"))
}

fn contacts(response: &Response) -> Vec<String> {
    response.headers.values(Name::Contact).map(|v| String::from_utf8_lossy(&v).into_owned()).collect()
}

/// The trunk calls a number.
fn call(world: &mut World, number: &str, call: &str) -> Request {
    let offer = sdp("198.51.100.10", 6000, "0 101", "sendrecv");
    let invite = world.raws[T].invite(number, call, Some(&offer));
    world.raws[T].send(invite.clone());
    world.run(ms(100));
    invite
}

fn give_up(world: &mut World, invite: &Request) {
    let mut cancel = Request::new(Method::Cancel, invite.uri.clone());
    for name in [Name::Via, Name::MaxForwards, Name::From, Name::To, Name::CallId] {
        cancel.headers.push(name, text(invite.headers.get(name)));
    }
    cancel.headers.push(Name::CSeq, "1 CANCEL");
    world.raws[T].send(cancel);
    world.run(ms(100));
}

fn answer(world: &mut World, raw: usize, code: u16, tag: &str, body: Option<&str>) {
    let invite = world.raws[raw].requests(Method::Invite).pop().unwrap();
    let reply = world.raws[raw].reply(&invite, code, tag, body);
    world.raws[raw].send(reply);
    world.run(ms(100));
}

fn media(host: &str) -> String {
    sdp(host, 7000, "0 101", "sendrecv")
}

#[test]
fn a_device_that_has_registered_its_talk_key_can_be_asked_to_answer_whatever_its_180_says() {
    for events in [Some("message-summary, talk"), None] {
        let mut world = world();
        let mut lines = vec![(Name::Contact, "<sip:3001@203.0.113.9:5060>"), (Name::Expires, "600")];
        lines.extend(events.map(|events| (Name::AllowEvents, events)));
        assert_eq!(enrol(&mut world, A, "3001", "r1", 1, &lines).code, 200);
        let invite = call(&mut world, "3001", "c1");
        answer(&mut world, A, 180, "t", None);
        let conn_id = world.proxy.calls.snapshot()[0].conn_id;
        let request = Asked { conn_id, this_dn: "3001".into(), reference: None, ask: Ask::AnswerCall };
        world.tell(Input::Request(Ticket(1), Box::new(request)));
        world.run(ms(50));
        let code = world.proxy.answers[0].1.as_ref().err().map(|denied| denied.code);
        assert_eq!(code, events.is_none().then_some(Code::NotSupported));
        let notifies = world.raws[A].requests(Method::Notify);
        assert_eq!(notifies.len(), usize::from(events.is_some()));
        for notify in notifies {
            let ok = world.raws[A].reply(&notify, 200, "", None);
            world.raws[A].send(ok);
        }
        give_up(&mut world, &invite);
        answer(&mut world, A, 487, "t", None);
        let cancel = world.raws[A].requests(Method::Cancel).remove(0);
        let ok = world.raws[A].reply(&cancel, 200, "t", None);
        world.raws[A].send(ok);
        world.run(ms(700_000));
        world.settle();
    }
}

#[test]
fn a_device_registers_with_its_password_and_is_called_at_its_contact() {
    let mut world = world();
    let contact = "<sip:3001-xyz@203.0.113.9:5062;ob>;q=0.5;+sip.instance=\"<urn:x>\"";
    world.raw("203.0.113.9:5062");
    let ok = enrol(&mut world, A, "3001", "r1", 1, &[(Name::Contact, contact), (Name::Expires, "600")]);
    assert_eq!(ok.code, 200);
    assert_eq!(contacts(&ok), [format!("{contact};expires=600")]);
    assert_eq!(world.proxy.calls.counters().registrations, 1);
    let invite = call(&mut world, "3001", "c1");
    let received = world.raws[3].requests(Method::Invite).remove(0);
    assert_eq!(&received.uri[..], b"sip:3001-xyz@203.0.113.9:5062;ob", "the Request-URI is the contact");
    assert!(text(received.headers.get(Name::To)).contains("<sip:3001@"));
    answer(&mut world, 3, 180, "t", None);
    give_up(&mut world, &invite);
    assert_eq!(world.raws[3].requests(Method::Cancel).len(), 1);
    answer(&mut world, 3, 487, "t", None);
    world.settle();
}

#[test]
fn a_refer_to_a_dn_that_registers_calls_its_device_and_where_there_is_none_the_call_stays() {
    let mut world = world();
    let (d1, d2) = (0, 1);
    (1..=2).for_each(|n| _ = world.phone(n, |_| {}));
    enrol(&mut world, A, "3001", "r1", 1, &[(Name::Contact, "<sip:3001-xyz@203.0.113.9>")]);
    world.act(d1, Action::call("2002"));
    world.run(ms(1_000));
    let refer = |to| Action::Refer(Refer { leave: Leave::WhenDone, ..Refer::to(to) });
    world.act(d2, refer("3002"));
    world.run(ms(1_000));
    let refused = |h: &Happened| h.what == Happening::ReferRefused { code: Some(480) };
    assert!(world.phones[d2].happenings().iter().any(refused));
    assert!(world.phones[d1].is_talking() && world.phones[d2].is_talking());
    world.act(d2, refer("3001"));
    world.run(ms(200));
    let invite = world.raws[A].requests(Method::Invite).remove(0);
    assert_eq!(&invite.uri[..], b"sip:3001-xyz@203.0.113.9");
    answer(&mut world, A, 200, "t", Some(&media("203.0.113.9")));
    world.run(ms(1_000));
    assert!(world.phones[d1].is_talking() && world.phones[d2].is_idle());
    world.act(d1, Action::HangUp);
    world.run(ms(200));
    let bye = world.raws[A].requests(Method::Bye).remove(0);
    let reply = world.raws[A].reply(&bye, 200, "t", None);
    world.raws[A].send(reply);
    world.settle();
}

#[test]
fn a_challenge_offers_both_algorithms_and_a_wrong_password_binds_nothing() {
    let mut world = world();
    let lines = [(Name::Contact, "<sip:3001@203.0.113.9>")];
    let request = register("203.0.113.9:5060", "3001", "r1", 1, &lines);
    let challenge = ask(&mut world, A, request.clone());
    let offered: Vec<String> = challenge
        .headers
        .all(Name::WwwAuthenticate)
        .map(|line| String::from_utf8_lossy(line.raw()).into_owned())
        .collect();
    assert_eq!(offered.len(), 2);
    assert!(offered[0].contains("algorithm=SHA-256") && offered[1].contains("algorithm=MD5"));
    assert!(offered.iter().all(|o| o.starts_with("Digest realm=\"stickytape\"") && o.contains("qop=\"auth\"")));
    for (user, password, seq) in [("3001", "wrong", 2), ("3002", "s3cret", 4)] {
        let request = register("203.0.113.9:5060", "3001", "r1", seq, &lines);
        let refused = ask(&mut world, A, authorized(request, &challenge, user, password));
        assert_eq!(refused.code, 401, "{user}");
    }
    let counters = world.proxy.calls.counters();
    assert_eq!((counters.registrations, counters.authentication_failures), (0, 2));
    // A client that has MD5 only.
    let mut md5 = challenge.clone();
    md5.headers.remove(Name::WwwAuthenticate);
    md5.headers.push(Name::WwwAuthenticate, offered[1].clone());
    let request = register("203.0.113.9:5060", "3001", "r1", 6, &lines);
    assert_eq!(ask(&mut world, A, authorized(request, &md5, "3001", "s3cret")).code, 200);
    world.settle();
}

#[test]
fn a_captured_register_binds_nothing_when_it_is_sent_again() {
    let mut world = world();
    let request = register("203.0.113.9:5060", "3001", "r1", 1, &[(Name::Contact, "<sip:3001@203.0.113.9>")]);
    let challenge = ask(&mut world, A, request.clone());
    let mut replay = authorized(request, &challenge, "3001", "s3cret");
    assert_eq!(ask(&mut world, A, replay.clone()).code, 200);
    replay.headers.set(Name::Contact, "<sip:evil@203.0.113.10>");
    replay.headers.set(Name::CallId, "evil");
    replay.headers.set(Name::Via, "SIP/2.0/UDP 203.0.113.10;branch=z9hG4bK-evil");
    let refused = ask(&mut world, B, replay);
    assert_eq!(refused.code, 401);
    assert!(text(refused.headers.get(Name::WwwAuthenticate)).contains("stale=true"));
    assert_eq!(world.proxy.calls.counters().registrations, 1);
    world.settle();
}

#[test]
fn only_dns_with_registration_may_register() {
    let mut world = world();
    for (number, code) in [("9999", 404), ("2001", 403), ("3001", 401)] {
        let request = register("203.0.113.9:5060", number, number, 1, &[]);
        assert_eq!(ask(&mut world, A, request).code, code, "{number}");
    }
    world.settle();
}

#[test]
fn a_registration_ends_when_it_is_not_refreshed() {
    let mut world = world();
    let ok = enrol(&mut world, A, "3001", "r1", 1, &[(Name::Contact, "<sip:3001@203.0.113.9>;expires=60")]);
    assert_eq!(contacts(&ok), ["<sip:3001@203.0.113.9>;expires=60"]);
    world.run(ms(50_000));
    enrol(&mut world, A, "3001", "r1", 3, &[(Name::Contact, "<sip:3001@203.0.113.9>;expires=60")]);
    world.run(ms(50_000));
    assert_eq!(world.proxy.calls.counters().registrations, 1);
    world.run(ms(11_000));
    assert_eq!(world.proxy.calls.counters().registrations, 0);
    call(&mut world, "3001", "c1");
    assert_eq!(last(&world, T, "INVITE").code, 480);
    world.settle();
}

#[test]
fn expires_has_a_lower_and_an_upper_bound_and_a_malformed_one_is_an_hour() {
    let mut world = world();
    let contact = (Name::Contact, "<sip:3001@203.0.113.9>");
    let brief = enrol(&mut world, A, "3001", "r1", 1, &[contact, (Name::Expires, "59")]);
    assert_eq!((brief.code, text(brief.headers.get(Name::MinExpires))), (423, "60".into()));
    for (seq, expires, left) in [(3, "99999999999", 3600), (5, "soon", 3600), (7, "61", 61)] {
        let ok = enrol(&mut world, A, "3001", "r1", seq, &[contact, (Name::Expires, expires)]);
        assert_eq!(contacts(&ok), [format!("<sip:3001@203.0.113.9>;expires={left}")], "{expires}");
    }
    let gone = enrol(&mut world, A, "3001", "r1", 9, &[contact, (Name::Expires, "0")]);
    assert_eq!((gone.code, contacts(&gone).len()), (200, 0));
    world.settle();
}

#[test]
fn contacts_add_up_are_fetched_and_are_removed_together() {
    let mut world = world();
    let one = (Name::Contact, "<sip:a@203.0.113.9>");
    enrol(&mut world, A, "3001", "r1", 10, &[one]);
    enrol(&mut world, A, "3001", "r2", 1, &[(Name::Contact, "<sip:b@203.0.113.9>, <sip:c@203.0.113.9>;expires=120")]);
    assert_eq!(contacts(&enrol(&mut world, A, "3001", "r3", 1, &[])).len(), 3, "a fetch changes nothing");
    let star = (Name::Contact, "*");
    assert_eq!(enrol(&mut world, A, "3001", "r4", 1, &[star]).code, 400, "without Expires");
    assert_eq!(enrol(&mut world, A, "3001", "r4", 3, &[star, (Name::Expires, "60")]).code, 400);
    assert_eq!(world.proxy.calls.counters().registrations, 3);
    assert_eq!(enrol(&mut world, A, "3001", "r1", 5, &[star, (Name::Expires, "0")]).code, 500, "overtaken");
    let ok = enrol(&mut world, A, "3001", "r4", 5, &[star, (Name::Expires, "0")]);
    assert_eq!((ok.code, contacts(&ok).len(), world.proxy.calls.counters().registrations), (200, 0, 0));
    world.settle();
}

#[test]
fn a_register_that_was_overtaken_changes_nothing() {
    let mut world = world();
    let contact = "<sip:3001@203.0.113.9>";
    enrol(&mut world, A, "3001", "r1", 10, &[(Name::Contact, contact), (Name::Expires, "600")]);
    let late =
        enrol(&mut world, A, "3001", "r1", 5, &[(Name::Contact, "<sip:new@203.0.113.9>, <sip:3001@203.0.113.9>")]);
    assert_eq!(late.code, 500);
    assert_eq!(world.proxy.calls.counters().registrations, 1, "nothing of it was done");
    let restarted = enrol(&mut world, A, "3001", "other", 1, &[(Name::Contact, contact)]);
    assert_eq!(contacts(&restarted), [format!("{contact};expires=3600")], "another Call-ID begins to count anew");
    world.settle();
}

#[test]
fn a_dn_has_at_most_eight_contacts_and_a_device_that_starts_again_takes_its_own_place() {
    let mut world = world();
    let list: Vec<String> = (0..9).map(|n| format!("<sip:d{n}@203.0.113.9>")).collect();
    let refused = enrol(&mut world, A, "3001", "r1", 1, &[(Name::Contact, &list.join(", "))]);
    assert_eq!((refused.code, world.proxy.calls.counters().registrations), (403, 0));
    assert_eq!(enrol(&mut world, A, "3001", "r1", 3, &[(Name::Contact, &list[..8].join(", "))]).code, 200);
    let instance = ";+sip.instance=\"<urn:uuid:1>\"";
    enrol(&mut world, B, "3002", "r2", 1, &[(Name::Contact, &format!("<sip:old@203.0.113.10>{instance}"))]);
    let ok = enrol(&mut world, B, "3002", "r3", 1, &[(Name::Contact, &format!("<sip:new@203.0.113.10>{instance}"))]);
    assert_eq!(contacts(&ok), [format!("<sip:new@203.0.113.10>{instance};expires=3600")]);
    world.settle();
}

#[test]
fn all_contacts_ring_and_the_first_answer_wins() {
    let mut world = world();
    enrol(&mut world, A, "3001", "r1", 1, &[(Name::Contact, "<sip:a@203.0.113.9>")]);
    enrol(&mut world, B, "3001", "r2", 1, &[(Name::Contact, "<sip:b@203.0.113.10>")]);
    let invite = call(&mut world, "3001", "c1");
    answer(&mut world, A, 180, "ta", None);
    answer(&mut world, B, 180, "tb", None);
    assert_eq!(world.raws[T].codes("INVITE"), [100, 180]);
    answer(&mut world, B, 200, "tb", Some(&media("203.0.113.10")));
    let cancels = world.raws[A].requests(Method::Cancel);
    assert!(text(cancels[0].headers.get(Name::Reason)).contains("cause=200"), "answered elsewhere");
    let cancelled = world.raws[A].reply(&cancels[0], 200, "ta", None);
    world.raws[A].send(cancelled);
    answer(&mut world, A, 487, "ta", None);
    let ok = last(&world, T, "INVITE");
    assert_eq!(ok.code, 200);
    let view = world.proxy.calls.snapshot().remove(0);
    assert_eq!((view.state, view.parties.len()), ("talking", 2));
    assert_eq!(view.parties[1].dn.as_deref(), Some("3001"));
    let ack = world.raws[T].in_dialog(&invite, &ok, Method::Ack, 1);
    world.raws[T].send(ack);
    let bye = world.raws[T].in_dialog(&invite, &ok, Method::Bye, 2);
    world.raws[T].send(bye);
    world.run(ms(100));
    let bye = world.raws[B].requests(Method::Bye).remove(0);
    let ok = world.raws[B].reply(&bye, 200, "", None);
    world.raws[B].send(ok);
    assert!(world.raws[A].requests(Method::Bye).is_empty());
    world.settle();
}

#[test]
fn a_contact_that_fails_leaves_the_others_ringing_and_the_best_failure_is_told() {
    let mut world = world();
    enrol(&mut world, A, "3001", "r1", 1, &[(Name::Contact, "<sip:a@203.0.113.9>")]);
    enrol(&mut world, B, "3001", "r2", 1, &[(Name::Contact, "<sip:b@203.0.113.10>")]);
    call(&mut world, "3001", "c1");
    answer(&mut world, A, 486, "ta", None);
    assert_eq!(world.raws[T].codes("INVITE"), [100], "the other one may answer");
    answer(&mut world, B, 180, "tb", None);
    answer(&mut world, B, 500, "tb", None);
    assert_eq!(last(&world, T, "INVITE").code, 486);
    call(&mut world, "3001", "c2");
    answer(&mut world, B, 603, "tb", None);
    assert_eq!(last(&world, T, "INVITE").code, 603, "the person declines on every device");
    let cancel = world.raws[A].requests(Method::Cancel);
    // It has not answered at all: CANCEL waits for a provisional response (§9.1).
    assert!(cancel.is_empty());
    world.settle();
}

#[test]
fn a_silent_contact_is_given_up_while_another_rings() {
    let mut world = world();
    enrol(&mut world, A, "3001", "r1", 1, &[(Name::Contact, "<sip:a@203.0.113.9>")]);
    enrol(&mut world, B, "3001", "r2", 1, &[(Name::Contact, "<sip:b@203.0.113.10>")]);
    let invite = call(&mut world, "3001", "c1");
    answer(&mut world, B, 180, "tb", None);
    world.run(ms(10_000));
    assert_eq!(world.proxy.calls.snapshot()[0].parties.len(), 2, "the silent device is no party any more");
    give_up(&mut world, &invite);
    answer(&mut world, B, 487, "tb", None);
    world.settle();
}

#[test]
fn a_device_behind_nat_is_called_where_its_register_came_from() {
    for (nat, contact, reached) in [
        (Nat::Auto, "<sip:a@192.168.1.5:5060>", true),
        (Nat::Auto, "<sip:a@phone.invalid>", true),
        (Nat::Yes, "<sip:a@203.0.113.77>", true),
        (Nat::Auto, "<sip:a@203.0.113.77>", false),
        (Nat::No, "<sip:a@192.168.1.5:5060>", false),
    ] {
        let mut options = plan_options();
        options.plan.dns.iter_mut().for_each(|dn| dn.nat = nat);
        let mut world = world_of(&["203.0.113.9:33001"], options);
        enrol(&mut world, A, "3001", "r1", 1, &[(Name::Contact, contact)]);
        let invite = call(&mut world, "3001", "c1");
        assert_eq!(world.raws[A].requests(Method::Invite).is_empty(), !reached, "{nat:?} {contact}");
        give_up(&mut world, &invite);
        if reached {
            answer(&mut world, A, 487, "t", None);
        }
        world.settle();
    }
}

/// An INVITE of a device, as a DN.
fn device_calls(world: &mut World, raw: usize, number: &str, call: &str) -> Request {
    let address = world.raws[raw].address;
    let offer = media(&address.ip().to_string());
    let mut invite = world.raws[raw].invite("2002", call, Some(&offer));
    invite.headers.set(Name::From, format!("<sip:{number}@192.0.2.1>;tag=f-{call}"));
    world.raws[raw].send(invite.clone());
    world.run(ms(100));
    invite
}

#[test]
fn a_caller_on_the_flow_of_its_registration_is_its_dn_and_any_other_is_asked() {
    let mut world = world();
    let callee = world.raw("10.0.0.2:5060");
    enrol(&mut world, A, "3001", "r1", 1, &[(Name::Contact, "<sip:3001@203.0.113.9>")]);
    device_calls(&mut world, A, "3001", "c1");
    let received = world.raws[callee].requests(Method::Invite);
    assert_eq!(received.len(), 1);
    assert_eq!(world.proxy.calls.snapshot()[0].parties[0].dn.as_deref(), Some("3001"));
    answer(&mut world, callee, 486, "t", None);

    let invite = device_calls(&mut world, B, "3001", "c2");
    let challenge = last(&world, B, "INVITE");
    assert_eq!(challenge.code, 401);
    assert!(!world.proxy.has_fact("refused 401"), "to be asked is not to be refused");
    let mut ack = Request::new(Method::Ack, invite.uri.clone());
    for name in [Name::Via, Name::From, Name::CallId] {
        ack.headers.push(name, text(invite.headers.get(name)));
    }
    ack.headers.push(Name::To, text(challenge.headers.get(Name::To)));
    ack.headers.push(Name::CSeq, "1 ACK");
    world.raws[B].send(ack);
    let wrong = authorized(invite.clone(), &challenge, "3001", "wrong");
    assert_eq!(ask(&mut world, B, wrong).code, 401);
    assert!(world.proxy.has_fact("refused 401"));
    let mut right = authorized(invite, &challenge, "3001", "s3cret");
    right.headers.set(Name::CSeq, "3 INVITE");
    right.headers.set(Name::Via, "SIP/2.0/UDP 203.0.113.10:5060;branch=z9hG4bK-c2-third");
    assert_eq!(ask(&mut world, B, right).code, 100);
    assert_eq!(world.proxy.calls.snapshot()[0].parties[0].dn.as_deref(), Some("3001"));
    answer(&mut world, callee, 486, "t", None);
    assert_eq!(last(&world, B, "INVITE").code, 486);
    world.settle();
}

#[test]
fn a_trunk_that_sends_the_number_of_a_dn_stays_a_trunk() {
    let mut world = world();
    let callee = world.raw("10.0.0.2:5060");
    device_calls(&mut world, T, "3001", "c1");
    let party = world.proxy.calls.snapshot().remove(0).parties.remove(0);
    assert_eq!((party.dn, party.trunk.as_deref()), (None, Some("carrier")));
    answer(&mut world, callee, 486, "t", None);
    world.settle();
}

#[test]
fn a_reload_keeps_the_registrations_of_dns_that_still_register() {
    let mut world = world();
    enrol(&mut world, A, "3001", "r1", 1, &[(Name::Contact, "<sip:a@203.0.113.9>")]);
    enrol(&mut world, B, "3002", "r2", 1, &[(Name::Contact, "<sip:b@203.0.113.10>")]);
    let plan = Plan { dns: vec![dn("3002")], trunks: options().plan.trunks, ..Plan::default() };
    world.tell(Input::Reload(Box::new(plan)));
    assert_eq!(world.proxy.calls.counters().registrations, 1);
    let invite = call(&mut world, "3002", "c1");
    assert_eq!(world.raws[B].requests(Method::Invite).len(), 1);
    give_up(&mut world, &invite);
    answer(&mut world, B, 487, "t", None);
    call(&mut world, "3001", "c2");
    assert_eq!(last(&world, T, "INVITE").code, 404);
    world.settle();
}

/// Call control alone, for what the simulated network does not have: connections.
struct Bare {
    calls: Calls,
    start: std::time::Instant,
}

impl Bare {
    fn input(&mut self, input: endpoint::Input) -> Vec<endpoint::Transmit> {
        let wall = "2026-11-20T10:00:00Z".parse().unwrap();
        self.calls.handle(Input::Sip(input), self.start, wall);
        let mut sent = Vec::new();
        while let Some(output) = self.calls.poll_output() {
            match output {
                Output::Sip(transmit) => sent.push(transmit),
                Output::Media(worker, stickytape::bridge::command::Command::BindPorts { address, .. }) => {
                    let pair = |n: u16| stickytape::bridge::command::PortPair {
                        id: stickytape::id::PortId(n.into()),
                        rtp: (address, 10_000 + 2 * n).into(),
                    };
                    let notice = stickytape::bridge::command::Notice::PortsBound((0..8).map(pair).collect());
                    self.calls.handle(Input::Media(worker, notice), self.start, wall);
                }
                _ => {}
            }
        }
        sent
    }

    fn packet(&mut self, flow: Flow, bytes: Bytes) -> Vec<endpoint::Transmit> {
        self.input(endpoint::Input::Packet { flow, bytes })
    }
}

fn invite_of(sent: &[endpoint::Transmit]) -> &endpoint::Transmit {
    sent.iter().find(|t| t.bytes.starts_with(b"INVITE")).expect("an INVITE goes out")
}

#[test]
fn a_device_on_a_connection_is_called_on_it_and_at_its_contact_when_it_has_ended() {
    let mut options = plan_options();
    let tcp = stickytape::call::options::Listener { transport: Transport::Tcp, address: addr(PROXY) };
    options.listeners.push(tcp);
    let start = stickytape::clock::now();
    let seats = Seats {
        workers: vec![WorkerId(0)],
        mixers: vec![],
        recorders: vec![RecorderId(0)],
        reach: Reach::new(|_| None),
        seed: 7,
    };
    let mut bare = Bare { calls: Calls::new(options, seats, start), start };
    let flow = Flow {
        transport: Transport::Tcp,
        local: addr(PROXY),
        remote: addr("203.0.113.9:49152"),
        connection: Some(ConnectionId(7)),
    };
    let contact = (Name::Contact, "<sip:a@203.0.113.9:5070;transport=tcp>");
    let request = register("203.0.113.9:49152", "3001", "r1", 1, &[contact]);
    let sent = bare.packet(flow, request.encode());
    let Ok(Message::Response(challenge)) = Message::parse(&sent[0].bytes) else { panic!("an answer") };
    let sent = bare.packet(flow, authorized(request, &challenge, "3001", "s3cret").encode());
    assert!(sent[0].bytes.starts_with(b"SIP/2.0 200") && sent[0].flow.connection == Some(ConnectionId(7)));
    let trunk = Raw::new("198.51.100.10:5060");
    let offer = sdp("198.51.100.10", 6000, "0 101", "sendrecv");
    let from_trunk = Flow::udp(addr(PROXY), trunk.address);
    let sent = bare.packet(from_trunk, trunk.invite("3001", "c1", Some(&offer)).encode());
    assert_eq!(invite_of(&sent).flow, flow);
    bare.input(endpoint::Input::Closed(ConnectionId(7)));
    let sent = bare.packet(from_trunk, trunk.invite("3001", "c2", Some(&offer)).encode());
    let expected = Flow { remote: addr("203.0.113.9:5070"), connection: None, ..flow };
    assert_eq!(invite_of(&sent).flow, expected);
}

#[test]
fn after_a_reload_a_dialog_of_a_registered_dn_takes_requests_from_all_that_registered_it() {
    let devices = ["203.0.113.9:5060", "203.0.113.10:5060", "203.0.113.11:5060"];
    let mut world = world_of(&devices, plan_options());
    enrol(&mut world, A, "3001", "r1", 1, &[(Name::Contact, "<sip:3001@203.0.113.9>")]);
    call(&mut world, "3001", "c1");
    answer(&mut world, A, 180, "b", None);
    let received = world.raws[A].requests(Method::Invite).remove(0);
    enrol(&mut world, B, "3001", "r2", 1, &[(Name::Contact, "<sip:3001@203.0.113.10>")]);
    world.tell(Input::Reload(Box::new(plan_options().plan)));
    for (raw, code) in [(B, 200), (3, 481)] {
        let options = world.raws[raw].as_callee(&received, "b", Method::Options, raw as u32);
        assert_eq!(ask(&mut world, raw, options).code, code, "{raw}");
    }
    answer(&mut world, A, 486, "b", None);
}
