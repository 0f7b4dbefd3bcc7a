//! Transactions (RFC 3261 §17, RFC 6026) through the endpoint, as traces in virtual time.

use std::time::Duration;

use crate::sip_trace::*;
use stickytape::sip::endpoint::*;
use stickytape::sip::headers::Headers;
use stickytape::sip::message::Message;
use stickytape::sip::method::Method;
use stickytape::sip::name::Name;

fn start_invite(trace: &mut Trace) -> InviteId {
    let flow = trace.flow;
    trace.does(0, |endpoint, now| endpoint.invite(invite(flow), now)).unwrap()
}

fn start_options(trace: &mut Trace) -> RequestId {
    let flow = trace.flow;
    trace.does(0, |endpoint, now| endpoint.request_outside(outside(flow, Method::Options), now)).unwrap()
}

fn their_invite(trace: &mut Trace) -> ServerTx {
    trace.comes(0, &theirs("INVITE", "z9hG4bK1", 1, ""));
    trace.goes(0, "100");
    let Event::Invite { tx, .. } = trace.event(0) else { panic!("an INVITE") };
    tx
}

fn respond(trace: &mut Trace, ms: u64, tx: ServerTx, code: u16) {
    trace.does(ms, |endpoint, now| endpoint.respond(tx, None, Reply::new(code), now)).unwrap();
}

/// Ends what INVITE with branch z9hG4bK1 was refused.
fn ack_failure(trace: &mut Trace, ms: u64, response: &Message) {
    let to = header(response, Name::To);
    trace.comes(ms, &theirs_to("ACK", "sip:bob@192.0.2.1", "z9hG4bK1", 1, &to, ""));
}

// §17.1.1 INVITE client

#[test]
fn timer_a_doubles_without_bound_and_timer_b_ends_an_invite_after_64_t1() {
    let mut trace = Trace::udp();
    start_invite(&mut trace);
    let first = trace.goes(0, "INVITE");
    for ms in [500, 1_500, 3_500, 7_500, 15_500, 31_500] {
        assert_eq!(text(&trace.goes(ms, "INVITE")), text(&first), "a repeat is the same bytes");
    }
    assert!(matches!(trace.event(32_000), Event::Failed { failure: Failure::Timeout, .. }));
    trace.ends();
}

#[test]
fn over_tcp_an_invite_is_sent_once_and_timer_b_still_runs() {
    let mut trace = Trace::tcp();
    start_invite(&mut trace);
    assert!(header(&trace.goes(0, "INVITE"), Name::Via).starts_with("SIP/2.0/TCP "));
    trace.silent(31_999);
    assert!(matches!(trace.event(32_000), Event::Failed { failure: Failure::Timeout, .. }));
    trace.ends();
}

#[test]
fn a_provisional_answer_stops_the_repeats_of_an_invite_and_its_time_limit() {
    let mut trace = Trace::udp();
    start_invite(&mut trace);
    let sent = trace.goes(0, "INVITE");
    trace.comes(400, &answer(&sent, 100, "", ""));
    assert!(matches!(trace.event(400), Event::Trying { .. }));
    trace.silent(120_000);
    trace.comes(120_000, &answer(&sent, 486, "b", ""));
    trace.goes(120_000, "ACK");
    assert!(matches!(trace.event(120_000), Event::Failed { failure: Failure::Response(_), .. }));
    trace.ends();
}

#[test]
fn a_failure_is_acknowledged_each_time_it_comes_until_timer_d() {
    let mut trace = Trace::udp();
    start_invite(&mut trace);
    let sent = trace.goes(0, "INVITE");
    let refusal = answer(&sent, 404, "b", "");
    trace.comes(100, &refusal);
    let ack = trace.goes(100, "ACK");
    assert!(matches!(trace.event(100), Event::Failed { .. }));
    for ms in [600, 32_099] {
        trace.comes(ms, &refusal);
        assert_eq!(text(&trace.goes(ms, "ACK")), text(&ack));
        trace.no_event();
    }
    trace.comes(32_101, &refusal);
    trace.silent(32_101);
    assert_eq!(trace.endpoint.counters().stray_responses, 1);
    trace.ends();
}

#[test]
fn the_ack_of_a_failure_has_the_invites_uri_via_and_number_and_the_responses_to() {
    let mut trace = Trace::udp();
    start_invite(&mut trace);
    let sent = trace.goes(0, "INVITE");
    trace.comes(100, &answer(&sent, 486, "busy-tag", ""));
    let ack = trace.goes(100, "ACK");
    for name in [Name::Via, Name::From, Name::CallId, Name::MaxForwards] {
        assert_eq!(header(&ack, name), header(&sent, name), "{name:?}");
    }
    assert_eq!(header(&ack, Name::CSeq), "1 ACK");
    assert_eq!(tag(&ack, Name::To), "busy-tag");
    assert_eq!(request_of(ack.clone()).uri, request_of(sent).uri);
    assert_eq!(ack.headers().count(Name::Via), 1);
}

#[test]
fn over_tcp_a_refused_invite_is_over_at_once() {
    let mut trace = Trace::tcp();
    start_invite(&mut trace);
    let sent = trace.goes(0, "INVITE");
    trace.comes(100, &answer(&sent, 404, "b", ""));
    trace.goes(100, "ACK");
    assert!(matches!(trace.event(100), Event::Failed { .. }));
    assert!(trace.endpoint.is_empty());
}

#[test]
fn further_2xx_are_acknowledged_again_until_timer_m() {
    let (mut trace, dialog, sent) = our_call(Trace::udp());
    for ms in [500, 31_999] {
        trace.comes(ms, &answer(&sent, 200, "bob", THEIR_CONTACT));
        trace.goes(ms, "ACK");
    }
    trace.no_event();
    trace.comes(32_001, &answer(&sent, 200, "bob", THEIR_CONTACT));
    trace.silent(32_001);
    assert_eq!(trace.endpoint.counters().stray_responses, 1);
    trace.does(40_000, |endpoint, now| endpoint.drop_dialog(dialog, now));
    trace.ends();
}

#[test]
fn an_invite_that_cannot_be_sent_fails_at_once() {
    let mut trace = Trace::udp();
    start_invite(&mut trace);
    let (transmit, _) = trace.goes_as(0, "INVITE");
    trace.fails(10, transmit.token);
    assert!(matches!(trace.event(10), Event::Failed { failure: Failure::Transport, .. }));
    assert!(trace.endpoint.is_empty());
}

#[test]
fn a_response_with_another_branch_method_or_a_second_via_is_a_stray() {
    let mut trace = Trace::udp();
    start_invite(&mut trace);
    let sent = trace.goes(0, "INVITE");
    let ringing = answer(&sent, 180, "b", THEIR_CONTACT);
    for (count, wrong) in [
        ringing.replace("branch=z9hG4bK", "branch=z9hG4bKx"),
        ringing.replace("1 INVITE", "1 OPTIONS"),
        ringing.replacen("Via: ", "Via: SIP/2.0/UDP proxy;branch=z9hG4bKp, ", 1),
        ringing.replacen("Via: ", "Subject: ", 1),
        ringing.replace("1 INVITE", "1 CANCEL"),
    ]
    .iter()
    .enumerate()
    {
        trace.comes(100, wrong);
        trace.no_event();
        assert_eq!(trace.endpoint.counters().stray_responses, count as u64 + 1, "{wrong}");
    }
    trace.comes(100, &ringing);
    assert!(matches!(trace.event(100), Event::Provisional { .. }));
}

// §17.1.2 other clients

#[test]
fn timer_e_doubles_to_t2_and_timer_f_ends_a_request_after_64_t1() {
    let mut trace = Trace::udp();
    start_options(&mut trace);
    trace.goes(0, "OPTIONS");
    for ms in [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500] {
        trace.goes(ms, "OPTIONS");
    }
    assert!(matches!(trace.event(32_000), Event::Response { outcome: Err(Failure::Timeout), dialog: None, .. }));
    trace.ends();
}

#[test]
fn after_a_provisional_answer_a_request_is_repeated_every_t2() {
    let mut trace = Trace::udp();
    start_options(&mut trace);
    let sent = trace.goes(0, "OPTIONS");
    trace.comes(100, &answer(&sent, 100, "", ""));
    for ms in [500, 4_500, 8_500, 12_500, 16_500, 20_500, 24_500, 28_500] {
        trace.goes(ms, "OPTIONS");
    }
    assert!(matches!(trace.event(32_000), Event::Response { outcome: Err(Failure::Timeout), .. }));
    trace.ends();
}

#[test]
fn a_repeated_final_answer_is_absorbed_until_timer_k() {
    let mut trace = Trace::udp();
    start_options(&mut trace);
    let sent = trace.goes(0, "OPTIONS");
    trace.comes(100, &answer(&sent, 200, "b", ""));
    assert!(matches!(trace.event(100), Event::Response { outcome: Ok(_), .. }));
    trace.comes(5_099, &answer(&sent, 200, "b", ""));
    assert_eq!(trace.endpoint.counters().stray_responses, 0);
    trace.comes(5_101, &answer(&sent, 200, "b", ""));
    assert_eq!(trace.endpoint.counters().stray_responses, 1);
    trace.ends();
}

#[test]
fn over_tcp_a_request_is_sent_once_times_out_and_ends_with_its_answer() {
    let mut trace = Trace::tcp();
    start_options(&mut trace);
    let sent = trace.goes(0, "OPTIONS");
    trace.silent(31_000);
    trace.comes(31_000, &answer(&sent, 200, "b", ""));
    assert!(matches!(trace.event(31_000), Event::Response { outcome: Ok(_), .. }));
    assert!(trace.endpoint.is_empty());
}

#[test]
fn a_request_whose_connection_is_gone_goes_by_another_one_once() {
    let mut trace = Trace::tcp();
    start_options(&mut trace);
    let (first, _) = trace.goes_as(0, "OPTIONS");
    assert_eq!(first.flow.connection, Some(ConnectionId(1)));
    trace.fails(10, first.token);
    let (second, _) = trace.goes_as(10, "OPTIONS");
    assert_eq!(second.flow, Flow { connection: None, ..first.flow });
    trace.fails(20, second.token);
    assert!(matches!(trace.event(20), Event::Response { outcome: Err(Failure::Transport), .. }));
    trace.ends();
}

// §17.2.1 INVITE server

#[test]
fn an_invite_gets_100_at_once_and_its_repeats_the_last_provisional_answer() {
    let mut trace = Trace::udp();
    let invite = theirs("INVITE", "z9hG4bK1", 1, "Timestamp: 54\r\n");
    trace.comes(0, &invite);
    let trying = trace.goes(0, "100");
    assert!(!header(&trying, Name::To).contains("tag="));
    assert_eq!(header(&trying, Name::Timestamp), "54");
    let Event::Invite { tx, .. } = trace.event(0) else { panic!() };
    trace.comes(400, &invite);
    trace.goes(400, "100");
    let dialog = trace.does(500, |endpoint, _| endpoint.open_dialog(tx, Peer::new(addr(US)))).unwrap();
    trace.does(500, |endpoint, now| endpoint.respond(tx, Some(dialog), Reply::new(180), now)).unwrap();
    trace.goes(500, "180");
    trace.comes(600, &invite);
    trace.goes(600, "180");
    trace.no_event();
}

#[test]
fn a_ringing_call_says_so_every_minute() {
    let mut trace = Trace::udp();
    let tx = their_invite(&mut trace);
    let dialog = trace.does(0, |endpoint, _| endpoint.open_dialog(tx, Peer::new(addr(US)))).unwrap();
    trace.does(0, |endpoint, now| endpoint.respond(tx, Some(dialog), Reply::new(180), now)).unwrap();
    for ms in [0, 60_000, 120_000] {
        trace.goes(ms, "180");
    }
    respond(&mut trace, 130_000, tx, 480);
    let refusal = trace.goes(130_000, "480");
    ack_failure(&mut trace, 130_000, &refusal);
    trace.ends();
}

#[test]
fn timer_g_repeats_a_refusal_until_its_ack_and_timer_i_absorbs_further_acks() {
    let mut trace = Trace::udp();
    let tx = their_invite(&mut trace);
    respond(&mut trace, 0, tx, 486);
    let refusal = trace.goes(0, "486");
    for ms in [500, 1_500, 3_500, 7_500, 11_500] {
        trace.goes(ms, "486");
    }
    ack_failure(&mut trace, 12_000, &refusal);
    ack_failure(&mut trace, 16_999, &refusal);
    assert_eq!(trace.endpoint.counters().stray_acks, 0);
    trace.silent(17_001);
    assert!(trace.endpoint.is_empty(), "timer I is T4");
    ack_failure(&mut trace, 17_002, &refusal);
    assert_eq!(trace.endpoint.counters().stray_acks, 1);
    trace.ends();
}

#[test]
fn timer_h_ends_a_refusal_that_nobody_acknowledges() {
    let mut trace = Trace::udp();
    let tx = their_invite(&mut trace);
    respond(&mut trace, 0, tx, 486);
    for ms in [0, 500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500] {
        trace.goes(ms, "486");
    }
    trace.silent(32_000);
    assert!(trace.endpoint.is_empty());
}

#[test]
fn a_repeated_invite_gets_the_refusal_again_without_waiting_for_timer_g() {
    let mut trace = Trace::udp();
    let tx = their_invite(&mut trace);
    respond(&mut trace, 0, tx, 404);
    trace.goes(0, "404");
    trace.comes(100, &theirs("INVITE", "z9hG4bK1", 1, ""));
    trace.goes(100, "404");
    trace.goes(500, "404");
}

#[test]
fn over_tcp_a_refusal_is_sent_once_and_ends_with_its_ack() {
    let mut trace = Trace::tcp();
    let tx = their_invite(&mut trace);
    respond(&mut trace, 0, tx, 404);
    let refusal = trace.goes(0, "404");
    trace.silent(20_000);
    ack_failure(&mut trace, 20_000, &refusal);
    assert!(trace.endpoint.is_empty());
}

#[test]
fn invites_that_a_2xx_has_answered_are_absorbed_until_timer_l() {
    let (mut trace, dialog, _) = their_call(Trace::udp());
    trace.comes(31_999, &theirs("INVITE", "z9hG4bKinvite", 1, ""));
    trace.silent(31_999);
    trace.no_event();
    trace.does(33_000, |endpoint, now| endpoint.drop_dialog(dialog, now));
    assert!(trace.endpoint.is_empty(), "timer L is 64·T1");
}

// §17.2.2 other servers

#[test]
fn a_repeated_request_gets_its_final_answer_again_until_timer_j() {
    let mut trace = Trace::udp();
    let options = theirs("OPTIONS", "z9hG4bK1", 1, "");
    trace.comes(0, &options);
    let first = trace.goes(0, "200");
    trace.comes(31_999, &options);
    assert_eq!(text(&trace.goes(31_999, "200")), text(&first));
    trace.silent(32_001);
    assert!(trace.endpoint.is_empty());
}

#[test]
fn a_request_that_its_user_has_not_answered_is_absorbed_and_forgotten_after_64_t1() {
    let mut trace = Trace::new(udp(), Options { allow: vec![Method::Register], ..options() });
    let register = theirs("REGISTER", "z9hG4bK1", 1, "");
    trace.comes(0, &register);
    let Event::Request { tx, dialog: None, .. } = trace.event(0) else { panic!() };
    trace.comes(500, &register);
    trace.silent(500);
    trace.no_event();
    trace.silent(32_001);
    assert!(trace.endpoint.is_empty());
    let refused = trace.does(32_001, |endpoint, now| endpoint.respond(tx, None, Reply::new(200), now));
    assert_eq!(refused, Err(Refused::TransactionOver));
}

#[test]
fn over_tcp_an_answered_request_is_over() {
    let mut trace = Trace::tcp();
    trace.comes(0, &theirs("OPTIONS", "z9hG4bK1", 1, ""));
    trace.goes(0, "200");
    assert!(trace.endpoint.is_empty());
}

#[test]
fn a_request_is_answered_only_once() {
    let mut trace = Trace::udp();
    let tx = their_invite(&mut trace);
    respond(&mut trace, 0, tx, 404);
    let again = trace.does(0, |endpoint, now| endpoint.respond(tx, None, Reply::new(486), now));
    assert_eq!(again, Err(Refused::TransactionOver));
}

// §17.2.3, §8.2.2.2 matching

#[test]
fn without_the_magic_cookie_repeats_and_acks_are_matched_by_the_rfc_2543_rules() {
    let mut trace = Trace::udp();
    trace.comes(0, &theirs("INVITE", "1", 1, ""));
    trace.goes(0, "100");
    let Event::Invite { tx, .. } = trace.event(0) else { panic!() };
    trace.comes(10, &theirs("INVITE", "1", 1, ""));
    trace.goes(10, "100");
    respond(&mut trace, 20, tx, 486);
    let refusal = trace.goes(20, "486");
    let to = header(&refusal, Name::To);
    trace.comes(30, &theirs_to("ACK", "sip:bob@192.0.2.1", "1", 1, &to, ""));
    trace.no_event();
    trace.silent(6_000);
    assert!(trace.endpoint.is_empty());
}

#[test]
fn the_same_branch_from_another_sent_by_is_another_transaction() {
    let mut trace = Trace::udp();
    trace.comes(0, &theirs("OPTIONS", "z9hG4bK1", 1, ""));
    trace.goes(0, "200");
    let other =
        theirs("OPTIONS", "z9hG4bK1", 1, "").replace("Via: SIP/2.0/UDP 198.51.100.7", "Via: SIP/2.0/UDP 198.51.100.8");
    trace.comes(0, &other.replace("their-call", "other-call"));
    trace.goes(0, "200");
    assert_eq!(trace.endpoint.load().transactions, 2);
}

#[test]
fn a_merged_request_is_482_but_not_with_another_request_uri() {
    let mut trace = Trace::udp();
    their_invite(&mut trace);
    trace.comes(10, &theirs("INVITE", "z9hG4bK2", 1, ""));
    trace.goes(10, "482");
    trace.no_event();
    trace.comes(20, &theirs_to("INVITE", "sip:carol@192.0.2.1", "z9hG4bK3", 1, "<sip:bob@192.0.2.1>", ""));
    trace.goes(20, "100");
    assert!(matches!(trace.event(20), Event::Invite { .. }));
}

#[test]
fn a_stray_ack_is_counted_and_never_answered() {
    let mut trace = Trace::udp();
    trace.comes(0, &theirs_to("ACK", "sip:x@192.0.2.1", "z9hG4bK9", 1, "<sip:bob@192.0.2.1>;tag=none", ""));
    trace.comes(0, &theirs("ACK", "z9hG4bK8", 1, ""));
    trace.comes(0, &theirs("ACK", "z9hG4bK8", 1, "").replace("CSeq: 1 ACK\r\n", ""));
    assert_eq!(trace.endpoint.counters().stray_acks, 2);
    trace.ends();
}

// §9 CANCEL

#[test]
fn cancel_waits_for_a_provisional_answer() {
    let mut trace = Trace::udp();
    let id = start_invite(&mut trace);
    let sent = trace.goes(0, "INVITE");
    trace.does(100, |endpoint, now| endpoint.cancel(id, Headers::new(), now)).unwrap();
    trace.goes(500, "INVITE");
    trace.comes(600, &answer(&sent, 100, "", ""));
    assert!(matches!(trace.event(600), Event::Trying { .. }));
    let cancel = trace.goes(600, "CANCEL");
    assert_eq!(header(&cancel, Name::Via), header(&sent, Name::Via));
    assert_eq!(header(&cancel, Name::CSeq), "1 CANCEL");
    assert_eq!(header(&cancel, Name::To), header(&sent, Name::To));
    assert!(!cancel.headers().has(Name::Require) && !cancel.headers().has(Name::ProxyRequire));
    trace.goes(1_100, "CANCEL");
    trace.comes(1_200, &answer(&cancel, 200, "b", ""));
    trace.comes(1_200, &answer(&sent, 487, "b", ""));
    trace.goes(1_200, "ACK");
    let Event::Failed { failure: Failure::Response(response), .. } = trace.event(1_200) else { panic!() };
    assert_eq!(response.code, 487);
    trace.ends();
}

#[test]
fn cancel_carries_its_reason() {
    let mut trace = Trace::udp();
    let id = start_invite(&mut trace);
    let sent = trace.goes(0, "INVITE");
    trace.comes(10, &answer(&sent, 180, "b", THEIR_CONTACT));
    let mut headers = Headers::new();
    headers.push(Name::Reason, "Q.850;cause=19");
    trace.does(20, |endpoint, now| endpoint.cancel(id, headers, now)).unwrap();
    assert_eq!(header(&trace.goes(20, "CANCEL"), Name::Reason), "Q.850;cause=19");
}

#[test]
fn an_invite_that_its_cancel_does_not_end_is_given_up_after_64_t1() {
    let mut trace = Trace::udp();
    let id = start_invite(&mut trace);
    let sent = trace.goes(0, "INVITE");
    trace.comes(0, &answer(&sent, 180, "b", THEIR_CONTACT));
    assert!(matches!(trace.event(0), Event::Provisional { dialog: Some(_), .. }));
    trace.does(1_000, |endpoint, now| endpoint.cancel(id, Headers::new(), now)).unwrap();
    let cancel = trace.goes(1_000, "CANCEL");
    trace.comes(1_000, &answer(&cancel, 200, "b", ""));
    assert!(matches!(trace.event(33_000), Event::Failed { failure: Failure::Timeout, .. }));
    trace.ends();
}

#[test]
fn a_2xx_that_crosses_the_cancel_is_acknowledged_and_ended() {
    let mut trace = Trace::udp();
    let id = start_invite(&mut trace);
    let sent = trace.goes(0, "INVITE");
    trace.comes(0, &answer(&sent, 180, "b", THEIR_CONTACT));
    trace.event(0);
    trace.does(100, |endpoint, now| endpoint.cancel(id, Headers::new(), now)).unwrap();
    let cancel = trace.goes(100, "CANCEL");
    trace.comes(110, &answer(&sent, 200, "b", THEIR_CONTACT));
    let ack = trace.goes(110, "ACK");
    let bye = trace.goes(110, "BYE");
    assert_eq!((tag(&ack, Name::To), tag(&bye, Name::To)), ("b".to_owned(), "b".to_owned()));
    assert!(matches!(trace.event(110), Event::Unwanted { cancelled: true, .. }));
    trace.comes(120, &answer(&cancel, 200, "b", ""));
    trace.comes(120, &answer(&bye, 200, "", ""));
    trace.comes(500, &answer(&sent, 200, "b", THEIR_CONTACT));
    trace.goes(500, "ACK");
    let late = trace.does(600, |endpoint, now| endpoint.cancel(id, Headers::new(), now));
    assert_eq!(late, Err(Refused::TransactionOver));
    trace.ends();
}

#[test]
fn cancel_of_theirs_gets_200_and_its_invite_487_with_the_same_tag() {
    let mut trace = Trace::udp();
    let tx = their_invite(&mut trace);
    trace.comes(100, &theirs("CANCEL", "z9hG4bK1", 1, ""));
    let ok = trace.goes(100, "200");
    assert_eq!(header(&ok, Name::CSeq), "1 CANCEL");
    let over = trace.goes(100, "487");
    assert_eq!(header(&over, Name::CSeq), "1 INVITE");
    assert_eq!(tag(&ok, Name::To), tag(&over, Name::To));
    let Event::Cancelled { tx: of, .. } = trace.event(100) else { panic!() };
    assert_eq!(of, tx);
    let late = trace.does(100, |endpoint, now| endpoint.respond(tx, None, Reply::new(486), now));
    assert_eq!(late, Err(Refused::TransactionOver));
    // Its 200 was lost.
    trace.comes(120, &theirs("CANCEL", "z9hG4bK1", 1, ""));
    trace.goes(120, "200");
    trace.no_event();
    ack_failure(&mut trace, 200, &over);
    trace.ends();
}

#[test]
fn a_cancel_after_the_final_answer_changes_nothing() {
    let (mut trace, dialog, _) = their_call(Trace::udp());
    trace.comes(100, &theirs("CANCEL", "z9hG4bKinvite", 1, ""));
    trace.goes(100, "200");
    trace.no_event();
    assert!(trace.endpoint.dialog(dialog).is_some());
}

#[test]
fn a_cancel_without_an_invite_or_from_another_source_is_481() {
    let mut trace = Trace::udp();
    their_invite(&mut trace);
    trace.comes(10, &theirs("CANCEL", "z9hG4bKother", 1, ""));
    trace.goes(10, "481");
    let stranger = Flow::udp(addr(US), addr("203.0.113.66:5060"));
    trace.comes_on(20, stranger, &theirs("CANCEL", "z9hG4bK1", 1, ""));
    trace.goes(20, "481");
    trace.no_event();
    assert_eq!(trace.endpoint.counters().stray_cancels, 2);
}

// §8.2, §16.3 what is refused by itself

#[test]
fn requests_that_cannot_be_taken_get_the_answer_of_the_rfc() {
    let with = |method: &str, from: &str, to: &str| theirs(method, "z9hG4bK1", 1, "").replace(from, to);
    for (request, code, name, value) in [
        (with("BREW", "x", "x"), 501, None, ""),
        (with("PUBLISH", "x", "x"), 405, Some(Name::Allow), "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO"),
        (with("INVITE", "sip:bob@192.0.2.1 SIP", "gopher://bob SIP"), 416, None, ""),
        (with("INVITE", "Max-Forwards: 70", "Max-Forwards: 0"), 483, None, ""),
        (with("OPTIONS", "Max-Forwards: 70", "Max-Forwards: 0"), 483, None, ""),
        (with("INVITE", "Content", "Require: 100rel, foo\r\nContent"), 420, Some(Name::Unsupported), "100rel, foo"),
        (with("BYE", "x", "x"), 481, None, ""),
        (with("INVITE", "<sip:bob@192.0.2.1>", "<sip:bob@192.0.2.1>;tag=gone"), 481, None, ""),
        (with("BYE", "<sip:bob@192.0.2.1>", "<sip:bob@192.0.2.1>;tag=gone"), 481, None, ""),
        (with("INVITE", "Contact", "Subject"), 400, None, ""),
        (with("INVITE", "CSeq: 1 INVITE", "CSeq: 1 BYE"), 400, None, ""),
        (with("INVITE", "Call-ID: their-call\r\n", ""), 400, None, ""),
        (with("INVITE", "CSeq: 1 INVITE\r\n", ""), 400, None, ""),
        (with("INVITE", "From: <sip:ann@198.51.100.7>;tag=theirs\r\n", ""), 400, None, ""),
        (with("INVITE", "SIP/2.0\r\n", "SIP/7.0\r\n"), 505, None, ""),
        (with("INVITE", "Content-Length: 0", "Content-Length: 10"), 400, None, ""),
        (with("INVITE", "Content-Length: 0", "Content-Length: ten"), 400, None, ""),
    ] {
        let mut trace = Trace::udp();
        trace.comes(0, &request);
        let response = trace.goes(0, &code.to_string());
        if let Some(name) = name {
            assert_eq!(header(&response, name), value);
        }
        if response.headers().has(Name::To) {
            assert!(header(&response, Name::To).contains(";tag="), "{}", text(&response));
        }
        trace.no_event();
        trace.to(300_000);
        assert!(trace.endpoint.is_empty());
    }
}

#[test]
fn the_reason_of_a_400_says_what_is_wrong() {
    let mut trace = Trace::udp();
    trace.comes(0, &theirs("INVITE", "z9hG4bK1", 1, "").replace("Call-ID: their-call\r\n", ""));
    let response = response_of(trace.goes(0, "400"));
    assert!(response.reason.starts_with(b"Missing"), "{:?}", response.reason);
}

#[test]
fn a_message_that_nobody_can_answer_is_dropped_and_counted() {
    let mut trace = Trace::udp();
    trace.comes(0, "not SIP at all\r\n\r\n");
    trace.comes(0, "\r\n\r\n");
    trace.silent(1_000);
    assert_eq!(trace.endpoint.counters().malformed, 1, "a keep-alive is not malformed");
}

#[test]
fn options_says_what_we_can_do_or_503_when_we_are_not_available() {
    let mut trace = Trace::udp();
    trace.comes(0, &theirs("OPTIONS", "z9hG4bK1", 1, ""));
    let ok = trace.goes(0, "200");
    assert_eq!(header(&ok, Name::Allow), "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO");
    assert_eq!(header(&ok, Name::Accept), "application/sdp");
    trace.does(0, |endpoint, _| endpoint.set_available(false));
    trace.comes(0, &theirs("OPTIONS", "z9hG4bK2", 2, ""));
    assert_eq!(header(&trace.goes(0, "503"), Name::RetryAfter), "5");
    trace.ends();
}

#[test]
fn at_the_limit_new_requests_get_503_with_retry_after_and_ours_are_refused() {
    let mut trace = Trace::new(udp(), Options { max_transactions: 2, ..options() });
    let flow = trace.flow;
    for branch in ["z9hG4bK1", "z9hG4bK2"] {
        trace.comes(0, &theirs("OPTIONS", branch, 1, "").replace("their-call", branch));
        trace.goes(0, "200");
    }
    trace.comes(0, &theirs("INVITE", "z9hG4bK3", 1, ""));
    assert_eq!(header(&trace.goes(0, "503"), Name::RetryAfter), "5");
    let full = trace.does(0, |endpoint, now| endpoint.invite(invite(flow), now));
    assert_eq!(full, Err(Refused::Full));
    assert_eq!(trace.endpoint.counters().refused, 1);
    trace.ends();
}

// §18 where things go

#[test]
fn a_response_goes_to_the_source_with_rport_else_to_the_port_of_sent_by() {
    let source = Flow::udp(addr(US), addr("198.51.100.7:32777"));
    for (via, remote, expected) in [
        ("198.51.100.7:5080;branch=z9hG4bK1", "198.51.100.7:5080", "198.51.100.7:5080;branch=z9hG4bK1"),
        ("phone.local;branch=z9hG4bK1", "198.51.100.7:5060", "phone.local;branch=z9hG4bK1;received=198.51.100.7"),
        (
            "10.1.1.1:5080;rport;branch=z9hG4bK1",
            "198.51.100.7:32777",
            "10.1.1.1:5080;rport=32777;branch=z9hG4bK1;received=198.51.100.7",
        ),
    ] {
        let mut trace = Trace::new(source, options());
        trace.comes(0, &theirs("OPTIONS", "z9hG4bK1", 1, "").replace("198.51.100.7:5060;branch=z9hG4bK1", via));
        let (transmit, message) = trace.goes_as(0, "200");
        assert_eq!(transmit.flow, Flow { remote: addr(remote), ..source });
        assert_eq!(header(&message, Name::Via), format!("SIP/2.0/UDP {expected}"));
    }
}

#[test]
fn over_tcp_a_response_goes_back_on_the_connection_and_when_that_is_gone_to_sent_by() {
    let source = Flow { remote: addr("198.51.100.7:40001"), ..tcp() };
    let mut trace = Trace::new(source, options());
    let tx = their_invite(&mut trace);
    respond(&mut trace, 0, tx, 486);
    let (first, _) = trace.goes_as(0, "486");
    assert_eq!(first.flow, source);
    trace.fails(10, first.token);
    let (second, _) = trace.goes_as(10, "486");
    assert_eq!(second.flow, Flow { remote: addr("198.51.100.7:5060"), connection: None, ..source });
    trace.fails(20, second.token);
    trace.silent(1_000);
    assert_eq!(trace.endpoint.counters().unsent, 1);
}

#[test]
fn a_long_request_goes_by_tcp_when_the_peer_takes_it_and_by_udp_when_the_connection_fails() {
    let mut trace = Trace::udp();
    let long = |endpoint: &mut Endpoint, now| {
        let mut long = invite(udp());
        long.peer.tcp = true;
        long.body = Some(Body::sdp("v=0\r\n".repeat(300)));
        endpoint.invite(long, now).unwrap()
    };
    trace.does(0, long);
    let (by_tcp, message) = trace.goes_as(0, "INVITE");
    assert_eq!((by_tcp.flow.transport, by_tcp.flow.remote), (Transport::Tcp, addr(THEM)));
    assert!(header(&message, Name::Via).starts_with("SIP/2.0/TCP 192.0.2.1:5060;"));
    trace.silent(700);
    trace.fails(700, by_tcp.token);
    let (by_udp, message) = trace.goes_as(700, "INVITE");
    assert_eq!(by_udp.flow, udp());
    assert!(header(&message, Name::Via).starts_with("SIP/2.0/UDP 192.0.2.1:5060;"));
    trace.goes(1_200, "INVITE");
    trace.comes(1_300, &answer(&message, 486, "b", ""));
    trace.goes(1_300, "ACK");
    assert!(matches!(trace.event(1_300), Event::Failed { .. }));
    // The refusal is remembered for a while.
    trace.does(2_000, long);
    let (again, _) = trace.goes_as(2_000, "INVITE");
    assert_eq!(again.flow.transport, Transport::Udp);
}

#[test]
fn a_short_request_and_a_peer_without_tcp_stay_on_udp() {
    let mut trace = Trace::udp();
    let mut long = invite(udp());
    long.body = Some(Body::sdp("v=0\r\n".repeat(300)));
    trace.does(0, |endpoint, now| endpoint.invite(long, now)).unwrap();
    assert_eq!(trace.goes_as(0, "INVITE").0.flow.transport, Transport::Udp);
    let mut short = invite(udp());
    short.peer.tcp = true;
    trace.does(1, |endpoint, now| endpoint.invite(short, now)).unwrap();
    assert_eq!(trace.goes_as(1, "INVITE").0.flow.transport, Transport::Udp);
}

// §22 digest

fn credentials() -> std::sync::Arc<stickytape::sip::auth::Credentials> {
    use stickytape::sip::auth::{Credentials, Password};
    Credentials { username: "trunk".into(), password: Password::new("s3cret"), realm: None }.into()
}

const CHALLENGE: &str = "Digest realm=\"carrier\", nonce=\"n1\", qop=\"auth\", algorithm=SHA-256";

#[test]
fn a_challenged_invite_is_sent_again_once_with_credentials_which_its_ack_repeats() {
    let mut trace = Trace::udp();
    let mut out = invite(udp());
    out.peer.credentials = Some(credentials());
    trace.does(0, |endpoint, now| endpoint.invite(out, now)).unwrap();
    let first = trace.goes(0, "INVITE");
    trace.comes(10, &answer(&first, 407, "proxy", &format!("Proxy-Authenticate: {CHALLENGE}\r\n")));
    trace.goes(10, "ACK");
    let second = trace.goes(10, "INVITE");
    assert_eq!(header(&second, Name::CSeq), "2 INVITE");
    assert_eq!(header(&second, Name::CallId), header(&first, Name::CallId));
    assert_eq!(header(&second, Name::From), header(&first, Name::From));
    assert_ne!(header(&second, Name::Via), header(&first, Name::Via));
    assert_eq!(second.headers().count(Name::Via), 1);
    let authorization = header(&second, Name::ProxyAuthorization);
    assert!(authorization.contains("username=\"trunk\"") && authorization.contains("nc=00000001"));
    assert!(!authorization.contains("s3cret"));
    trace.no_event();
    trace.comes(20, &answer(&second, 200, "bob", THEIR_CONTACT));
    let Event::Answered { dialog, .. } = trace.event(20) else { panic!() };
    trace.does(20, |endpoint, now| endpoint.ack(dialog, None, now)).unwrap();
    let ack = trace.goes(20, "ACK");
    assert_eq!(header(&ack, Name::CSeq), "2 ACK");
    assert_eq!(header(&ack, Name::ProxyAuthorization), authorization);
    trace.does(30, |endpoint, now| endpoint.request(dialog, Method::Bye, Headers::new(), None, now)).unwrap();
    assert_eq!(header(&trace.goes(30, "BYE"), Name::CSeq), "3 BYE");
}

#[test]
fn credentials_that_are_refused_are_not_tried_twice_unless_the_nonce_was_stale() {
    for (second_challenge, goes_on) in [(CHALLENGE.to_owned(), false), (format!("{CHALLENGE}, stale=true"), true)] {
        let mut trace = Trace::udp();
        let mut out = outside(udp(), Method::Register);
        out.peer.credentials = Some(credentials());
        trace.does(0, |endpoint, now| endpoint.request_outside(out, now)).unwrap();
        let first = trace.goes(0, "REGISTER");
        trace.comes(10, &answer(&first, 401, "r", &format!("WWW-Authenticate: {CHALLENGE}\r\n")));
        let second = trace.goes(10, "REGISTER");
        trace.comes(20, &answer(&second, 401, "r", &format!("WWW-Authenticate: {second_challenge}\r\n")));
        if goes_on {
            assert_eq!(header(&trace.goes(20, "REGISTER"), Name::CSeq), "3 REGISTER");
        } else {
            assert!(matches!(trace.event(20), Event::Response { outcome: Err(Failure::Response(_)), .. }));
            trace.ends();
        }
    }
}

#[test]
fn a_challenge_without_credentials_of_ours_is_the_outcome() {
    let mut trace = Trace::udp();
    start_invite(&mut trace);
    let first = trace.goes(0, "INVITE");
    trace.comes(10, &answer(&first, 401, "r", &format!("WWW-Authenticate: {CHALLENGE}\r\n")));
    trace.goes(10, "ACK");
    assert!(matches!(trace.event(10), Event::Failed { failure: Failure::Response(_), .. }));
    trace.ends();
}

#[test]
fn t1_t2_and_t4_are_options() {
    let ms = Duration::from_millis;
    let mut trace = Trace::new(udp(), Options { t1: ms(100), t2: ms(300), t4: ms(1_000), ..options() });
    start_options(&mut trace);
    let sent = trace.goes(0, "OPTIONS");
    for at in [100, 300, 600, 900] {
        trace.goes(at, "OPTIONS");
    }
    trace.comes(1_000, &answer(&sent, 200, "b", ""));
    trace.event(1_000);
    trace.silent(1_999);
    assert!(!trace.endpoint.is_empty());
    trace.silent(2_000);
    assert!(trace.endpoint.is_empty());
}
