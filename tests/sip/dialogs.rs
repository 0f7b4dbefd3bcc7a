//! Dialogs (RFC 3261 §12–15) through the endpoint, as traces in virtual time.

use std::net::IpAddr;

use crate::sip_trace::*;
use stickytape::sip::endpoint::*;
use stickytape::sip::headers::Headers;
use stickytape::sip::message::Message;
use stickytape::sip::method::Method;
use stickytape::sip::name::Name;

fn request(trace: &mut Trace, ms: u64, dialog: DialogId, method: Method) -> Result<RequestId, Refused> {
    trace.does(ms, |endpoint, now| endpoint.request(dialog, method, Headers::new(), None, now))
}

fn respond(trace: &mut Trace, ms: u64, tx: ServerTx, code: u16) {
    trace.does(ms, |endpoint, now| endpoint.respond(tx, None, Reply::new(code), now)).unwrap();
}

fn uri(message: &Message) -> String {
    String::from_utf8(request_of(message.clone()).uri.to_vec()).unwrap()
}

fn routes(message: &Message) -> Vec<String> {
    message.headers().values(Name::Route).map(|v| String::from_utf8(v.into_owned()).unwrap()).collect()
}

// §12, §13, §15 the life of a call

#[test]
fn a_call_of_ours_is_answered_acknowledged_and_ended() {
    let (mut trace, dialog, invite) = our_call(Trace::udp());
    request(&mut trace, 1_000, dialog, Method::Bye).unwrap();
    let sent = trace.goes(1_000, "BYE");
    assert_eq!(header(&sent, Name::CSeq), "2 BYE");
    assert_eq!(tag(&sent, Name::From), tag(&invite, Name::From));
    assert_eq!(tag(&sent, Name::To), "bob");
    assert_eq!(header(&sent, Name::CallId), header(&invite, Name::CallId));
    assert_eq!(uri(&sent), "sip:them@198.51.100.7:5060");
    trace.comes(1_100, &answer(&sent, 200, "", ""));
    assert!(matches!(trace.event(1_100), Event::Response { outcome: Ok(_), .. }));
    trace.ends();
}

#[test]
fn a_call_of_theirs_is_answered_and_ended_by_them() {
    let (mut trace, dialog, ok) = their_call(Trace::udp());
    trace.comes(1_000, &in_dialog(&ok, "BYE", "z9hG4bKbye", 2, ""));
    let Event::Request { tx, dialog: Some(of), request, .. } = trace.event(1_000) else { panic!() };
    assert_eq!((of, request.method), (dialog, Method::Bye));
    respond(&mut trace, 1_000, tx, 200);
    trace.goes(1_000, "200");
    assert!(trace.endpoint.dialog(dialog).is_none());
    trace.ends();
}

#[test]
fn both_hang_up_at_once_and_both_byes_are_answered() {
    let (mut trace, dialog, ok) = their_call(Trace::udp());
    request(&mut trace, 1_000, dialog, Method::Bye).unwrap();
    let ours = trace.goes(1_000, "BYE");
    assert_eq!(header(&ours, Name::CSeq), "1 BYE");
    trace.comes(1_010, &in_dialog(&ok, "BYE", "z9hG4bKbye", 2, ""));
    trace.goes(1_010, "200");
    trace.no_event();
    trace.comes(1_020, &answer(&ours, 481, "", ""));
    assert!(matches!(trace.event(1_020), Event::Response { outcome: Err(Failure::Response(_)), .. }));
    trace.ends();
}

#[test]
fn a_request_for_a_dialog_that_is_over_is_481() {
    let (mut trace, dialog, ok) = their_call(Trace::udp());
    trace.does(100, |endpoint, now| endpoint.drop_dialog(dialog, now));
    trace.comes(200, &in_dialog(&ok, "UPDATE", "z9hG4bKu", 2, ""));
    trace.goes(200, "481");
    trace.no_event();
    assert_eq!(request(&mut trace, 300, dialog, Method::Bye), Err(Refused::NoDialog));
    trace.ends();
}

#[test]
fn contacts_are_random_per_dialog_and_tell_the_transport() {
    let (_, _, first) = our_call(Trace::udp());
    let (_, _, second) = our_call(Trace::new(udp(), Options { seed: 2, ..options() }));
    assert_ne!(header(&first, Name::Contact), header(&second, Name::Contact));
    assert!(!header(&first, Name::Contact).contains("ann"));
    assert!(header(&first, Name::Contact).ends_with("@192.0.2.1:5060>"));
    let (_, _, by_tcp) = our_call(Trace::tcp());
    assert!(header(&by_tcp, Name::Contact).ends_with("@192.0.2.1:5060;transport=tcp>"));
    let (_, _, theirs) = their_call(Trace::udp());
    assert!(header(&theirs, Name::Contact).ends_with("@192.0.2.1:5060>"));
}

// §13.3.1.4 the 2xx of ours

#[test]
fn a_2xx_is_repeated_until_its_ack_also_over_tcp() {
    for flow in [udp(), tcp()] {
        let mut trace = Trace::new(flow, options());
        trace.comes(0, &theirs("INVITE", "z9hG4bK1", 1, ""));
        trace.goes(0, "100");
        let Event::Invite { tx, .. } = trace.event(0) else { panic!() };
        let dialog = trace.does(0, |endpoint, _| endpoint.open_dialog(tx, Peer::new(addr(US)))).unwrap();
        trace.does(0, |endpoint, now| endpoint.respond(tx, Some(dialog), Reply::new(200), now)).unwrap();
        let ok = trace.goes(0, "200");
        for ms in [500, 1_500, 3_500, 7_500, 11_500] {
            assert_eq!(text(&trace.goes(ms, "200")), text(&ok));
        }
        trace.comes(12_000, &in_dialog(&ok, "ACK", "z9hG4bKack", 1, ""));
        let Event::Ack { dialog: of, .. } = trace.event(12_000) else { panic!() };
        assert_eq!(of, dialog);
        trace.comes(12_010, &in_dialog(&ok, "ACK", "z9hG4bKack", 1, ""));
        trace.silent(60_000);
        trace.no_event();
    }
}

#[test]
fn without_an_ack_for_64_t1_the_user_hears_and_may_end_the_call() {
    let mut trace = Trace::udp();
    trace.comes(0, &theirs("INVITE", "z9hG4bK1", 1, ""));
    trace.goes(0, "100");
    let Event::Invite { tx, .. } = trace.event(0) else { panic!() };
    let dialog = trace.does(0, |endpoint, _| endpoint.open_dialog(tx, Peer::new(addr(US)))).unwrap();
    trace.does(0, |endpoint, now| endpoint.respond(tx, Some(dialog), Reply::new(200), now)).unwrap();
    for ms in [0, 500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500] {
        trace.goes(ms, "200");
    }
    let Event::NoAck { dialog: of } = trace.event(32_000) else { panic!() };
    assert_eq!(of, dialog);
    request(&mut trace, 32_000, dialog, Method::Bye).unwrap();
    trace.goes(32_000, "BYE");
}

#[test]
fn a_bye_of_the_callee_waits_for_the_ack() {
    let mut trace = Trace::udp();
    trace.comes(0, &theirs("INVITE", "z9hG4bK1", 1, ""));
    trace.goes(0, "100");
    let Event::Invite { tx, .. } = trace.event(0) else { panic!() };
    let dialog = trace.does(0, |endpoint, _| endpoint.open_dialog(tx, Peer::new(addr(US)))).unwrap();
    trace.does(0, |endpoint, now| endpoint.respond(tx, Some(dialog), Reply::new(200), now)).unwrap();
    let ok = trace.goes(0, "200");
    request(&mut trace, 100, dialog, Method::Bye).unwrap();
    trace.silent(499);
    trace.goes(500, "200");
    trace.comes(600, &in_dialog(&ok, "ACK", "z9hG4bKack", 1, ""));
    let bye = trace.goes(600, "BYE");
    assert!(matches!(trace.event(600), Event::Ack { .. }));
    trace.comes(700, &answer(&bye, 200, "", ""));
    assert!(matches!(trace.event(700), Event::Response { outcome: Ok(_), .. }));
    trace.ends();
}

#[test]
fn the_first_ack_passes_its_body_on() {
    let mut trace = Trace::udp();
    trace.comes(0, &theirs("INVITE", "z9hG4bK1", 1, ""));
    trace.goes(0, "100");
    let Event::Invite { tx, .. } = trace.event(0) else { panic!() };
    let dialog = trace.does(0, |endpoint, _| endpoint.open_dialog(tx, Peer::new(addr(US)))).unwrap();
    let reply = Reply { body: Some(Body::sdp("offer")), ..Reply::new(200) };
    trace.does(0, |endpoint, now| endpoint.respond(tx, Some(dialog), reply, now)).unwrap();
    let ok = trace.goes(0, "200");
    assert_eq!(ok.body(), "offer");
    assert_eq!(header(&ok, Name::ContentType), "application/sdp");
    let ack = in_dialog(&ok, "ACK", "z9hG4bKack", 1, "Content-Type: application/sdp\r\n");
    trace.comes(10, &ack.replace("Content-Length: 0\r\n\r\n", "Content-Length: 6\r\n\r\nanswer"));
    let Event::Ack { request, .. } = trace.event(10) else { panic!() };
    assert_eq!(request.body, "answer");
}

#[test]
fn an_ack_of_ours_carries_the_answer_and_repeats_it() {
    let mut trace = Trace::udp();
    trace.does(0, |endpoint, now| endpoint.invite(invite(udp()), now)).unwrap();
    let sent = trace.goes(0, "INVITE");
    let ok = answer(&sent, 200, "bob", THEIR_CONTACT);
    trace.comes(0, &ok);
    let Event::Answered { dialog, .. } = trace.event(0) else { panic!() };
    trace.comes(400, &ok);
    trace.silent(400);
    trace.does(500, |endpoint, now| endpoint.ack(dialog, Some(Body::sdp("answer")), now)).unwrap();
    let ack = trace.goes(500, "ACK");
    assert_eq!((ack.body(), header(&ack, Name::CSeq)), (&"answer".into(), "1 ACK".to_owned()));
    assert_ne!(header(&ack, Name::Via), header(&sent, Name::Via), "the ACK of a 2xx is a transaction of its own");
    trace.comes(600, &ok);
    assert_eq!(text(&trace.goes(600, "ACK")), text(&ack));
    let twice = trace.does(700, |endpoint, now| endpoint.ack(dialog, None, now));
    assert_eq!(twice, Err(Refused::WrongState));
}

#[test]
fn a_bye_before_the_ack_sends_the_ack_first() {
    let mut trace = Trace::udp();
    trace.does(0, |endpoint, now| endpoint.invite(invite(udp()), now)).unwrap();
    let sent = trace.goes(0, "INVITE");
    trace.comes(0, &answer(&sent, 200, "bob", THEIR_CONTACT));
    let Event::Answered { dialog, .. } = trace.event(0) else { panic!() };
    request(&mut trace, 10, dialog, Method::Bye).unwrap();
    trace.goes(10, "ACK");
    trace.goes(10, "BYE");
}

// §12.1.2, §13.2.2.4 forks

#[test]
fn each_tag_is_an_early_dialog_the_first_2xx_wins_and_the_others_are_ended() {
    let mut trace = Trace::udp();
    trace.does(0, |endpoint, now| endpoint.invite(invite(udp()), now)).unwrap();
    let sent = trace.goes(0, "INVITE");
    let mut early = vec![];
    for fork in ["one", "two", "one"] {
        trace.comes(10, &answer(&sent, 183, fork, THEIR_CONTACT));
        let Event::Provisional { dialog: Some(dialog), .. } = trace.event(10) else { panic!() };
        early.push(dialog);
    }
    assert!(early[0] != early[1] && early[0] == early[2]);
    trace.comes(20, &answer(&sent, 180, "", ""));
    assert!(matches!(trace.event(20), Event::Provisional { dialog: None, .. }));
    trace.comes(30, &answer(&sent, 200, "two", THEIR_CONTACT));
    let Event::Answered { dialog, .. } = trace.event(30) else { panic!() };
    assert_eq!(dialog, early[1]);
    assert!(trace.endpoint.dialog(early[0]).is_none());
    trace.does(30, |endpoint, now| endpoint.ack(dialog, None, now)).unwrap();
    trace.goes(30, "ACK");

    let third = answer(&sent, 200, "three", &THEIR_CONTACT.replace("them", "third"));
    trace.comes(40, &third);
    let (ack, bye) = (trace.goes(40, "ACK"), trace.goes(40, "BYE"));
    assert_eq!((tag(&ack, Name::To), tag(&bye, Name::To)), ("three".to_owned(), "three".to_owned()));
    assert_eq!(uri(&bye), "sip:third@198.51.100.7:5060");
    assert!(matches!(trace.event(40), Event::Unwanted { cancelled: false, .. }));
    trace.comes(45, &answer(&bye, 200, "", ""));
    trace.comes(50, &third);
    assert_eq!(text(&trace.goes(50, "ACK")), text(&ack));
    trace.no_event();
    assert!(trace.endpoint.dialog(dialog).is_some());
    trace.does(60, |endpoint, now| endpoint.drop_dialog(dialog, now));
    trace.ends();
}

#[test]
fn an_early_dialog_becomes_the_confirmed_one_with_the_route_set_of_the_2xx() {
    let mut trace = Trace::udp();
    trace.does(0, |endpoint, now| endpoint.invite(invite(udp()), now)).unwrap();
    let sent = trace.goes(0, "INVITE");
    let early = format!("{THEIR_CONTACT}Record-Route: <sip:203.0.113.1;lr>\r\n");
    trace.comes(0, &answer(&sent, 180, "bob", &early));
    trace.event(0);
    let last = format!("{THEIR_CONTACT}Record-Route: <sip:203.0.113.3;lr>, <sip:203.0.113.2:5070;lr>\r\n");
    trace.comes(10, &answer(&sent, 200, "bob", &last));
    let Event::Answered { dialog, .. } = trace.event(10) else { panic!() };
    trace.does(10, |endpoint, now| endpoint.ack(dialog, None, now)).unwrap();
    let (transmit, ack) = trace.goes_as(10, "ACK");
    assert_eq!(routes(&ack), ["<sip:203.0.113.2:5070;lr>", "<sip:203.0.113.3;lr>"]);
    assert_eq!(uri(&ack), "sip:them@198.51.100.7:5060");
    assert_eq!(transmit.flow.remote, addr("203.0.113.2:5070"));
}

#[test]
fn a_failed_invite_takes_its_early_dialogs_along() {
    let mut trace = Trace::udp();
    trace.does(0, |endpoint, now| endpoint.invite(invite(udp()), now)).unwrap();
    let sent = trace.goes(0, "INVITE");
    trace.comes(0, &answer(&sent, 180, "bob", THEIR_CONTACT));
    let Event::Provisional { dialog: Some(dialog), .. } = trace.event(0) else { panic!() };
    let early = [Method::Bye, Method::Invite].map(|method| request(&mut trace, 0, dialog, method));
    assert_eq!(early, [Err(Refused::WrongState); 2]);
    trace.comes(10, &answer(&sent, 486, "bob", ""));
    trace.goes(10, "ACK");
    assert!(matches!(trace.event(10), Event::Failed { .. }));
    assert!(trace.endpoint.dialog(dialog).is_none());
    trace.ends();
}

#[test]
fn a_callee_may_open_several_early_dialogs_and_answers_in_one() {
    let mut trace = Trace::udp();
    trace.comes(0, &theirs("INVITE", "z9hG4bK1", 1, ""));
    trace.goes(0, "100");
    let Event::Invite { tx, .. } = trace.event(0) else { panic!() };
    let open = |endpoint: &mut Endpoint, _| endpoint.open_dialog(tx, Peer::new(addr(US))).unwrap();
    let (one, two) = (trace.does(0, open), trace.does(0, open));
    let mut tags = vec![];
    for dialog in [one, two, one] {
        trace.does(10, |endpoint, now| endpoint.respond(tx, Some(dialog), Reply::new(183), now)).unwrap();
        tags.push(tag(&trace.goes(10, "183"), Name::To));
    }
    assert!(tags[0] != tags[1] && tags[0] == tags[2]);
    let without = trace.does(20, |endpoint, now| endpoint.respond(tx, None, Reply::new(200), now));
    assert_eq!(without, Err(Refused::WrongState));
    trace.does(20, |endpoint, now| endpoint.respond(tx, Some(two), Reply::new(200), now)).unwrap();
    assert_eq!(tag(&trace.goes(20, "200"), Name::To), tags[1]);
    assert!(trace.endpoint.dialog(one).is_none() && trace.endpoint.dialog(two).is_some());
}

#[test]
fn a_caller_that_ends_an_early_dialog_with_bye_ends_the_invite() {
    let mut trace = Trace::udp();
    trace.comes(0, &theirs("INVITE", "z9hG4bK1", 1, ""));
    trace.goes(0, "100");
    let Event::Invite { tx, .. } = trace.event(0) else { panic!() };
    let dialog = trace.does(0, |endpoint, _| endpoint.open_dialog(tx, Peer::new(addr(US)))).unwrap();
    trace.does(0, |endpoint, now| endpoint.respond(tx, Some(dialog), Reply::new(180), now)).unwrap();
    let ringing = trace.goes(0, "180");
    trace.comes(10, &in_dialog(&ringing, "BYE", "z9hG4bKbye", 2, ""));
    trace.goes(10, "200");
    trace.goes(10, "487");
    assert!(matches!(trace.event(10), Event::Cancelled { .. }));
    trace.comes(20, &in_dialog(&ringing, "ACK", "z9hG4bK1", 1, ""));
    trace.ends();
}

#[test]
fn an_early_dialog_of_several_can_be_dropped_alone() {
    let mut trace = Trace::udp();
    trace.comes(0, &theirs("INVITE", "z9hG4bK1", 1, ""));
    trace.goes(0, "100");
    let Event::Invite { tx, .. } = trace.event(0) else { panic!() };
    let open = |endpoint: &mut Endpoint, _| endpoint.open_dialog(tx, Peer::new(addr(US))).unwrap();
    let (one, two) = (trace.does(0, open), trace.does(0, open));
    trace.does(0, |endpoint, now| endpoint.drop_dialog(one, now));
    trace.silent(10);
    trace.does(20, |endpoint, now| endpoint.respond(tx, Some(two), Reply::new(200), now)).unwrap();
    trace.goes(20, "200");
}

// §12.1.1, §12.2 routes, targets, numbers

#[test]
fn a_callee_keeps_the_route_set_in_order_and_sends_it_back() {
    let mut trace = Trace::udp();
    let record = "Record-Route: <sip:203.0.113.2:5070;lr>\r\nRecord-Route: <sip:203.0.113.3;lr>\r\n";
    trace.comes(0, &theirs("INVITE", "z9hG4bK1", 1, record));
    trace.goes(0, "100");
    let Event::Invite { tx, .. } = trace.event(0) else { panic!() };
    let dialog = trace.does(0, |endpoint, _| endpoint.open_dialog(tx, Peer::new(addr(US)))).unwrap();
    trace.does(0, |endpoint, now| endpoint.respond(tx, Some(dialog), Reply::new(200), now)).unwrap();
    let ok = trace.goes(0, "200");
    let sent_back: Vec<_> = ok.headers().values(Name::RecordRoute).map(|v| v.into_owned()).collect();
    assert_eq!(sent_back, [&b"<sip:203.0.113.2:5070;lr>"[..], b"<sip:203.0.113.3;lr>"]);
    trace.comes(0, &in_dialog(&ok, "ACK", "z9hG4bKack", 1, ""));
    trace.event(0);
    request(&mut trace, 10, dialog, Method::Info).unwrap();
    let (transmit, info) = trace.goes_as(10, "INFO");
    assert_eq!(routes(&info), ["<sip:203.0.113.2:5070;lr>", "<sip:203.0.113.3;lr>"]);
    assert_eq!(uri(&info), "sip:them@198.51.100.7:5060");
    assert_eq!(transmit.flow.remote, addr("203.0.113.2:5070"));
}

#[test]
fn a_strict_router_gets_itself_in_the_request_uri() {
    let mut trace = Trace::udp();
    trace.comes(0, &theirs("INVITE", "z9hG4bK1", 1, "Record-Route: <sip:203.0.113.2:5070>\r\n"));
    trace.goes(0, "100");
    let Event::Invite { tx, .. } = trace.event(0) else { panic!() };
    let dialog = trace.does(0, |endpoint, _| endpoint.open_dialog(tx, Peer::new(addr(US)))).unwrap();
    trace.does(0, |endpoint, now| endpoint.respond(tx, Some(dialog), Reply::new(200), now)).unwrap();
    let ok = trace.goes(0, "200");
    trace.comes(0, &in_dialog(&ok, "ACK", "z9hG4bKack", 1, ""));
    trace.event(0);
    request(&mut trace, 10, dialog, Method::Bye).unwrap();
    let (transmit, bye) = trace.goes_as(10, "BYE");
    assert_eq!(uri(&bye), "sip:203.0.113.2:5070");
    assert_eq!(routes(&bye), ["<sip:them@198.51.100.7:5060>"]);
    assert_eq!(transmit.flow.remote, addr("203.0.113.2:5070"));
}

#[test]
fn a_target_refresh_of_theirs_takes_effect_when_it_is_accepted() {
    for (code, target) in [(200, "sip:new@198.51.100.7:5066"), (488, "sip:them@198.51.100.7:5060")] {
        let (mut trace, dialog, ok) = their_call(Trace::udp());
        let update =
            in_dialog(&ok, "UPDATE", "z9hG4bKu", 2, "").replace("them@198.51.100.7:5060", "new@198.51.100.7:5066");
        trace.comes(100, &update);
        let Event::Request { tx, .. } = trace.event(100) else { panic!() };
        respond(&mut trace, 100, tx, code);
        trace.goes(100, &code.to_string());
        request(&mut trace, 200, dialog, Method::Info).unwrap();
        assert_eq!(uri(&trace.goes(200, "INFO")), target);
    }
}

#[test]
fn a_target_refresh_of_ours_takes_the_contact_of_its_2xx() {
    let (mut trace, dialog, _) = our_call(Trace::udp());
    request(&mut trace, 100, dialog, Method::Update).unwrap();
    let update = trace.goes(100, "UPDATE");
    assert!(header(&update, Name::Contact).ends_with("@192.0.2.1:5060>"));
    trace.comes(110, &answer(&update, 200, "", "Contact: <sip:moved@198.51.100.7:5068>\r\n"));
    trace.event(110);
    request(&mut trace, 200, dialog, Method::Bye).unwrap();
    let (transmit, bye) = trace.goes_as(200, "BYE");
    assert_eq!(uri(&bye), "sip:moved@198.51.100.7:5068");
    assert_eq!(transmit.flow.remote, addr("198.51.100.7:5068"));
}

#[test]
fn a_lower_cseq_is_500_and_a_higher_one_may_skip_numbers() {
    let (mut trace, _, ok) = their_call(Trace::udp());
    trace.comes(100, &in_dialog(&ok, "INFO", "z9hG4bK7", 7, ""));
    assert!(matches!(trace.event(100), Event::Request { .. }));
    trace.comes(110, &in_dialog(&ok, "INFO", "z9hG4bK6", 6, ""));
    trace.goes(110, "500");
    trace.no_event();
    assert_eq!(trace.endpoint.counters().out_of_order, 1);
}

#[test]
fn a_peer_without_a_tag_has_a_dialog_too() {
    let mut trace = Trace::udp();
    trace.comes(0, &theirs("INVITE", "z9hG4bK1", 1, "").replace(";tag=theirs", ""));
    trace.goes(0, "100");
    let Event::Invite { tx, .. } = trace.event(0) else { panic!() };
    let dialog = trace.does(0, |endpoint, _| endpoint.open_dialog(tx, Peer::new(addr(US)))).unwrap();
    trace.does(0, |endpoint, now| endpoint.respond(tx, Some(dialog), Reply::new(200), now)).unwrap();
    let ok = trace.goes(0, "200");
    trace.comes(0, &in_dialog(&ok, "ACK", "z9hG4bKack", 1, "").replace(";tag=theirs", ""));
    assert!(matches!(trace.event(0), Event::Ack { .. }));
    request(&mut trace, 10, dialog, Method::Bye).unwrap();
    assert!(!header(&trace.goes(10, "BYE"), Name::To).contains("tag"));
}

#[test]
fn options_in_a_dialog_is_answered_by_the_endpoint() {
    let (mut trace, _, ok) = their_call(Trace::udp());
    trace.comes(100, &in_dialog(&ok, "OPTIONS", "z9hG4bKo", 2, ""));
    assert!(trace.goes(100, "200").headers().has(Name::Allow));
    trace.no_event();
}

// spec/sip.md §4 sources and NAT

fn stranger() -> Flow {
    Flow::udp(addr(US), addr("203.0.113.66:5060"))
}

#[test]
fn requests_of_a_dialog_come_from_allowed_sources_or_on_its_own_flow() {
    let mut trace = Trace::udp();
    trace.comes(0, &theirs("INVITE", "z9hG4bK1", 1, ""));
    trace.goes(0, "100");
    let Event::Invite { tx, .. } = trace.event(0) else { panic!() };
    let peer = Peer { sources: Some(vec!["203.0.113.0/26".parse().unwrap()].into()), ..Peer::new(addr(US)) };
    let dialog = trace.does(0, |endpoint, _| endpoint.open_dialog(tx, peer)).unwrap();
    trace.does(0, |endpoint, now| endpoint.respond(tx, Some(dialog), Reply::new(200), now)).unwrap();
    let ok = trace.goes(0, "200");
    trace.comes_on(5, stranger(), &in_dialog(&ok, "ACK", "z9hG4bKack", 1, ""));
    trace.no_event();
    trace.comes(10, &in_dialog(&ok, "ACK", "z9hG4bKack", 1, ""));
    assert!(matches!(trace.event(10), Event::Ack { .. }));
    trace.comes_on(20, stranger(), &in_dialog(&ok, "BYE", "z9hG4bKbye", 2, ""));
    trace.goes(20, "481");
    trace.no_event();
    assert_eq!(trace.endpoint.counters().foreign_sources, 2);
    trace.comes_on(30, Flow::udp(addr(US), addr("203.0.113.5:5099")), &in_dialog(&ok, "INFO", "z9hG4bKi", 2, ""));
    assert!(matches!(trace.event(30), Event::Request { .. }));
}

#[test]
fn nat_decides_whether_requests_go_to_the_contact_or_the_source() {
    for (nat, contact, expected) in [
        (Nat::Auto, "10.0.0.9:5062", "198.51.100.7:32000"),
        (Nat::Auto, "203.0.113.9:5062", "203.0.113.9:5062"),
        (Nat::Auto, "198.51.100.7:5062", "198.51.100.7:5062"),
        (Nat::Yes, "203.0.113.9:5062", "198.51.100.7:32000"),
        (Nat::No, "10.0.0.9:5062", "10.0.0.9:5062"),
        (Nat::No, "phone.example", "198.51.100.7:32000"),
        (Nat::No, "known.example:5070", "203.0.113.40:5070"),
    ] {
        let mut trace = Trace::new(Flow::udp(addr(US), addr("198.51.100.7:32000")), options());
        let ip: IpAddr = "203.0.113.40".parse().unwrap();
        trace.does(0, |endpoint, _| endpoint.learn("Known.Example", vec![ip]));
        let invite = theirs("INVITE", "z9hG4bK1", 1, "").replace("them@198.51.100.7:5060", &format!("them@{contact}"));
        trace.comes(0, &invite);
        trace.goes(0, "100");
        let Event::Invite { tx, .. } = trace.event(0) else { panic!() };
        let peer = Peer { nat, ..Peer::new(addr(US)) };
        let dialog = trace.does(0, |endpoint, _| endpoint.open_dialog(tx, peer)).unwrap();
        trace.does(0, |endpoint, now| endpoint.respond(tx, Some(dialog), Reply::new(200), now)).unwrap();
        let ok = trace.goes(0, "200");
        trace.comes(0, &in_dialog(&ok, "ACK", "z9hG4bKack", 1, ""));
        trace.event(0);
        request(&mut trace, 10, dialog, Method::Bye).unwrap();
        let (transmit, bye) = trace.goes_as(10, "BYE");
        assert_eq!(transmit.flow.remote, addr(expected), "{nat:?} {contact}");
        assert_eq!(uri(&bye), format!("sip:them@{contact}"));
    }
}

#[test]
fn behind_nat_requests_follow_the_source_of_the_last_request() {
    let peer = Peer { nat: Nat::Yes, ..Peer::new(addr(US)) };
    let (mut trace, dialog, ok) = their_call(Trace::udp());
    trace.does(0, |endpoint, _| endpoint.set_peer(dialog, peer));
    trace.comes_on(100, Flow::udp(addr(US), addr("198.51.100.7:41000")), &in_dialog(&ok, "INFO", "z9hG4bKi", 2, ""));
    trace.event(100);
    request(&mut trace, 200, dialog, Method::Bye).unwrap();
    assert_eq!(trace.goes_as(200, "BYE").0.flow.remote, addr("198.51.100.7:41000"));
}

#[test]
fn a_contact_with_another_transport_is_reached_by_it() {
    let mut trace = Trace::udp();
    let invite = theirs("INVITE", "z9hG4bK1", 1, "").replace("198.51.100.7:5060>", "198.51.100.7:5060;transport=tcp>");
    trace.comes(0, &invite);
    trace.goes(0, "100");
    let Event::Invite { tx, .. } = trace.event(0) else { panic!() };
    let dialog = trace.does(0, |endpoint, _| endpoint.open_dialog(tx, Peer::new(addr(US)))).unwrap();
    trace.does(0, |endpoint, now| endpoint.respond(tx, Some(dialog), Reply::new(200), now)).unwrap();
    let ok = trace.goes(0, "200");
    trace.comes(0, &in_dialog(&ok, "ACK", "z9hG4bKack", 1, ""));
    trace.event(0);
    request(&mut trace, 10, dialog, Method::Bye).unwrap();
    let (transmit, bye) = trace.goes_as(10, "BYE");
    assert_eq!(transmit.flow.transport, Transport::Tcp);
    assert!(header(&bye, Name::Via).starts_with("SIP/2.0/TCP 192.0.2.1:5060;"));
}

#[test]
fn over_tcp_the_peers_own_connection_carries_requests_while_it_lives() {
    let (mut trace, dialog, _) =
        their_call(Trace::new(Flow { remote: addr("198.51.100.7:40001"), ..tcp() }, options()));
    trace.does(0, |endpoint, _| endpoint.set_peer(dialog, Peer::new(addr(US))));
    request(&mut trace, 10, dialog, Method::Info).unwrap();
    // The Contact names UDP: it is believed.
    assert_eq!(trace.goes_as(10, "INFO").0.flow.transport, Transport::Udp);

    let mut trace = Trace::new(Flow { remote: addr("198.51.100.7:40001"), ..tcp() }, options());
    let invite = theirs("INVITE", "z9hG4bK1", 1, "").replace("198.51.100.7:5060>", "198.51.100.7:5060;transport=tcp>");
    trace.comes(0, &invite);
    trace.goes(0, "100");
    let Event::Invite { tx, .. } = trace.event(0) else { panic!() };
    let dialog = trace.does(0, |endpoint, _| endpoint.open_dialog(tx, Peer::new(addr(US)))).unwrap();
    trace.does(0, |endpoint, now| endpoint.respond(tx, Some(dialog), Reply::new(200), now)).unwrap();
    let ok = trace.goes(0, "200");
    trace.comes(0, &in_dialog(&ok, "ACK", "z9hG4bKack", 1, ""));
    trace.event(0);
    request(&mut trace, 10, dialog, Method::Info).unwrap();
    let (on_it, _) = trace.goes_as(10, "INFO");
    assert_eq!(on_it.flow.connection, Some(ConnectionId(1)));
    trace.fails(20, on_it.token);
    let (anew, _) = trace.goes_as(20, "INFO");
    assert_eq!((anew.flow.connection, anew.flow.remote), (None, addr("198.51.100.7:5060")));
    request(&mut trace, 30, dialog, Method::Bye).unwrap();
    assert_eq!(trace.goes_as(30, "BYE").0.flow.connection, None);
}

#[test]
fn an_ack_whose_connection_is_gone_goes_by_another_one() {
    let mut trace = Trace::tcp();
    let flow = trace.flow;
    trace.does(0, |endpoint, now| endpoint.invite(invite(flow), now)).unwrap();
    let sent = trace.goes(0, "INVITE");
    trace.comes(0, &answer(&sent, 200, "bob", "Contact: <sip:them@198.51.100.7:5060;transport=tcp>\r\n"));
    let Event::Answered { dialog, .. } = trace.event(0) else { panic!() };
    trace.does(0, |endpoint, now| endpoint.ack(dialog, None, now)).unwrap();
    let (first, _) = trace.goes_as(0, "ACK");
    assert_eq!(first.flow.connection, Some(ConnectionId(1)));
    trace.fails(10, first.token);
    let (second, _) = trace.goes_as(10, "ACK");
    assert_eq!((second.flow.connection, second.bytes), (None, first.bytes));
    trace.fails(20, second.token);
    trace.silent(1_000);
}

// §14 re-INVITE

#[test]
fn a_reinvite_of_ours_is_acknowledged_with_its_own_number() {
    let (mut trace, dialog, _) = our_call(Trace::udp());
    let offer = |endpoint: &mut Endpoint, now| {
        endpoint.request(dialog, Method::Invite, Headers::new(), Some(Body::sdp("hold")), now)
    };
    trace.does(1_000, offer).unwrap();
    let sent = trace.goes(1_000, "INVITE");
    assert_eq!((header(&sent, Name::CSeq), sent.body()), ("2 INVITE".to_owned(), &"hold".into()));
    assert_eq!(trace.does(1_000, offer), Err(Refused::InvitePending));
    let ok = answer(&sent, 200, "", THEIR_CONTACT);
    trace.comes(1_010, &ok);
    assert!(matches!(trace.event(1_010), Event::Response { outcome: Ok(_), .. }));
    trace.does(1_010, |endpoint, now| endpoint.ack(dialog, None, now)).unwrap();
    let ack = trace.goes(1_010, "ACK");
    assert_eq!(header(&ack, Name::CSeq), "2 ACK");
    trace.comes(1_500, &ok);
    assert_eq!(text(&trace.goes(1_500, "ACK")), text(&ack));
    trace.no_event();
}

#[test]
fn a_failed_reinvite_leaves_the_dialog_as_it_was() {
    let (mut trace, dialog, _) = our_call(Trace::udp());
    request(&mut trace, 1_000, dialog, Method::Invite).unwrap();
    let sent = trace.goes(1_000, "INVITE");
    trace.comes(1_010, &answer(&sent, 488, "", ""));
    trace.goes(1_010, "ACK");
    assert!(matches!(trace.event(1_010), Event::Response { outcome: Err(Failure::Response(_)), .. }));
    assert!(trace.endpoint.dialog(dialog).is_some());
    request(&mut trace, 1_020, dialog, Method::Invite).unwrap();
    assert_eq!(header(&trace.goes(1_020, "INVITE"), Name::CSeq), "3 INVITE");
}

#[test]
fn a_reinvite_of_theirs_while_ours_is_open_is_491() {
    let (mut trace, dialog, invite) = our_call(Trace::udp());
    request(&mut trace, 1_000, dialog, Method::Invite).unwrap();
    trace.goes(1_000, "INVITE");
    trace.comes(1_010, &back(&invite, "INVITE", "z9hG4bKre", 1, ""));
    trace.goes(1_010, "491");
    trace.no_event();
}

#[test]
fn a_reinvite_of_theirs_while_another_of_theirs_is_open_is_500_with_retry_after_up_to_ten() {
    let (mut trace, dialog, ok) = their_call(Trace::udp());
    trace.comes(100, &in_dialog(&ok, "INVITE", "z9hG4bKr1", 2, ""));
    trace.goes(100, "100");
    let Event::Request { tx, dialog: Some(of), .. } = trace.event(100) else { panic!() };
    assert_eq!(of, dialog);
    trace.comes(110, &in_dialog(&ok, "INVITE", "z9hG4bKr2", 3, ""));
    let refusal = trace.goes(110, "500");
    assert!(header(&refusal, Name::RetryAfter).parse::<u8>().unwrap() <= 10);
    assert_eq!(request(&mut trace, 120, dialog, Method::Invite), Err(Refused::InvitePending));
    respond(&mut trace, 130, tx, 200);
    let second = trace.goes(130, "200");
    assert_eq!(tag(&second, Name::To), tag(&ok, Name::To));
    assert_eq!(request(&mut trace, 140, dialog, Method::Invite), Err(Refused::InvitePending));
    trace.comes(150, &in_dialog(&ok, "ACK", "z9hG4bKack2", 2, ""));
    assert!(matches!(trace.event(150), Event::Ack { .. }));
    request(&mut trace, 160, dialog, Method::Invite).unwrap();
}

#[test]
fn cancel_ends_a_reinvite_but_not_the_dialog() {
    let (mut trace, dialog, ok) = their_call(Trace::udp());
    trace.comes(100, &in_dialog(&ok, "INVITE", "z9hG4bKre", 2, ""));
    trace.goes(100, "100");
    trace.event(100);
    trace.comes(110, &in_dialog(&ok, "CANCEL", "z9hG4bKre", 2, ""));
    trace.goes(110, "200");
    trace.goes(110, "487");
    assert!(matches!(trace.event(110), Event::Cancelled { .. }));
    assert!(trace.endpoint.dialog(dialog).is_some());
    request(&mut trace, 120, dialog, Method::Invite).unwrap();
}

#[test]
fn a_bye_ends_what_is_open_in_the_dialog() {
    let (mut trace, dialog, ok) = their_call(Trace::udp());
    request(&mut trace, 100, dialog, Method::Info).unwrap();
    trace.goes(100, "INFO");
    trace.comes(110, &in_dialog(&ok, "INVITE", "z9hG4bKre", 2, ""));
    trace.goes(110, "100");
    let Event::Request { tx, .. } = trace.event(110) else { panic!() };
    trace.comes(120, &in_dialog(&ok, "BYE", "z9hG4bKbye", 3, ""));
    trace.goes(120, "487");
    assert!(matches!(trace.event(120), Event::Response { outcome: Err(Failure::Ended), .. }));
    let Event::Request { tx: bye, .. } = trace.event(120) else { panic!() };
    let late = trace.does(120, |endpoint, now| endpoint.respond(tx, None, Reply::new(200), now));
    assert_eq!(late, Err(Refused::TransactionOver));
    respond(&mut trace, 120, bye, 200);
    trace.goes(120, "200");
    assert_eq!(request(&mut trace, 120, dialog, Method::Bye), Err(Refused::NoDialog));
}

#[test]
fn a_reinvite_that_only_gets_provisional_answers_is_cancelled_after_three_minutes() {
    let (mut trace, dialog, _) = our_call(Trace::udp());
    request(&mut trace, 0, dialog, Method::Invite).unwrap();
    let sent = trace.goes(0, "INVITE");
    trace.comes(10, &answer(&sent, 180, "", ""));
    trace.silent(180_009);
    let cancel = trace.goes(180_010, "CANCEL");
    trace.comes(180_020, &answer(&cancel, 200, "", ""));
    assert!(matches!(trace.event(212_010), Event::Response { outcome: Err(Failure::Timeout), .. }));
}

#[test]
fn a_reinvite_of_ours_can_be_cancelled_once_a_provisional_answer_has_come() {
    let (mut trace, dialog, _) = our_call(Trace::udp());
    let id = request(&mut trace, 0, dialog, Method::Invite).unwrap();
    let sent = trace.goes(0, "INVITE");
    trace.does(10, |endpoint, now| endpoint.cancel_request(id, now)).unwrap();
    trace.silent(20);
    trace.comes(20, &answer(&sent, 100, "", ""));
    let cancel = trace.goes(20, "CANCEL");
    trace.comes(30, &answer(&sent, 180, "", ""));
    trace.comes(40, &answer(&cancel, 200, "", ""));
    trace.comes(40, &answer(&sent, 487, "", ""));
    trace.goes(40, "ACK");
    assert!(matches!(trace.event(40), Event::Response { outcome: Err(Failure::Response(_)), .. }));
    trace.silent(200_000);
    let late = trace.does(200_000, |endpoint, now| endpoint.cancel_request(id, now));
    assert_eq!(late, Err(Refused::TransactionOver));
    assert!(trace.endpoint.dialog(dialog).is_some());
}

#[test]
fn nothing_that_can_be_printed_shows_a_number_or_a_body() {
    let (mut trace, dialog, ok) = their_call(Trace::udp());
    trace.comes(10, &in_dialog(&ok, "INFO", "z9hG4bKi", 2, ""));
    let event = trace.event(10);
    let input = Input::Packet { flow: udp(), bytes: text(&ok).into() };
    let printed = format!(
        "{event:?} {input:?} {:?} {:?} {:?}",
        invite(udp()),
        outside(udp(), Method::Options),
        trace.endpoint.dialog(dialog)
    );
    for secret in ["ann", "bob", "Ann", "v=0"] {
        assert!(!printed.contains(secret), "{secret} in {printed}");
    }
}

#[test]
fn the_wait_after_a_glare_is_longer_for_the_owner_of_the_call_id() {
    let (mut ours, dialog, _) = our_call(Trace::udp());
    let (mut theirs, other, _) = their_call(Trace::udp());
    for _ in 0..200 {
        let owner = ours.does(0, |endpoint, _| endpoint.glare_wait(dialog)).as_millis();
        let guest = theirs.does(0, |endpoint, _| endpoint.glare_wait(other)).as_millis();
        assert!((2_100..=4_000).contains(&owner) && owner % 10 == 0, "{owner}");
        assert!(guest <= 2_000 && guest % 10 == 0, "{guest}");
    }
}

#[test]
fn at_the_limit_of_dialogs_no_further_one_opens() {
    let mut trace = Trace::new(udp(), Options { max_dialogs: 1, ..options() });
    trace.comes(0, &theirs("INVITE", "z9hG4bK1", 1, ""));
    trace.goes(0, "100");
    let Event::Invite { tx, .. } = trace.event(0) else { panic!() };
    let open = |endpoint: &mut Endpoint, _| endpoint.open_dialog(tx, Peer::new(addr(US)));
    assert!(trace.does(0, open).is_ok());
    assert_eq!(trace.does(0, open), Err(Refused::Full));
}
