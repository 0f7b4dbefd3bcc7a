//! What transfers need of the endpoint (RFC 3515, RFC 3891, RFC 6665), as traces in virtual time.

use crate::sip_trace::*;
use stickytape::sip::auth::{Credentials, Password};
use stickytape::sip::endpoint::*;
use stickytape::sip::headers::Headers;
use stickytape::sip::message::Message;
use stickytape::sip::method::Method;
use stickytape::sip::name::Name;
use stickytape::sip::values::{EventPackage, Replaces, SubscriptionState, TargetDialog};

const REFER_TO: &str = "Refer-To: <sip:carol@192.0.2.1>\r\nContact: <sip:them@198.51.100.7:5060>\r\n";

fn transfers() -> Options {
    let allow = [Options::default().allow, vec![Method::Refer, Method::Notify, Method::Subscribe]].concat();
    Options { allow, supported: vec!["replaces", "norefersub", "record-aware"], ..options() }
}

fn trace() -> Trace {
    Trace::new(udp(), transfers())
}

/// NOTIFY of a transfer that stands like this.
fn notify(trace: &mut Trace, ms: u64, dialog: DialogId, code: u16) -> Result<RequestId, Refused> {
    let mut headers = Headers::new();
    headers.push(Name::Event, EventPackage::refer(None).encode());
    let state = match code {
        100..=199 => SubscriptionState::Active { expires: Some(60) },
        _ => SubscriptionState::terminated("noresource"),
    };
    headers.push(Name::SubscriptionState, state.encode());
    let body = Some(Body::sipfrag(code, b""));
    trace.does(ms, |endpoint, now| endpoint.request(dialog, Method::Notify, headers, body, now))
}

fn bye(trace: &mut Trace, ms: u64, dialog: DialogId) -> Result<RequestId, Refused> {
    trace.does(ms, |endpoint, now| endpoint.request(dialog, Method::Bye, Headers::new(), None, now))
}

fn respond(trace: &mut Trace, ms: u64, tx: ServerTx, code: u16) {
    trace.does(ms, |endpoint, now| endpoint.respond(tx, None, Reply::new(code), now)).unwrap();
}

fn body(message: &Message) -> String {
    String::from_utf8(message.body().to_vec()).unwrap()
}

/// Their REFER in the dialog of this 200, accepted at `ms`.
fn referred(trace: &mut Trace, ms: u64, ok: &Message) {
    trace.comes(ms, &in_dialog(ok, "REFER", "z9hG4bKrefer", 2, REFER_TO));
    let Event::Request { tx, dialog: Some(_), request, .. } = trace.event(ms) else { panic!() };
    assert_eq!(request.method, Method::Refer);
    respond(trace, ms, tx, 202);
    let accepted = trace.goes(ms, "202");
    assert_eq!(header(&accepted, Name::Contact), header(ok, Name::Contact), "RFC 3515 §4.1");
}

#[track_caller]
fn failed(trace: &mut Trace, ms: u64, id: RequestId) -> Failure {
    let Event::Response { request, outcome: Err(failure), .. } = trace.event(ms) else { panic!("a failure") };
    assert_eq!(request, id);
    failure
}

#[track_caller]
fn answered(trace: &mut Trace, ms: u64, id: RequestId) {
    let Event::Response { request, outcome, .. } = trace.event(ms) else { panic!("an answer") };
    assert_eq!((request, outcome.is_ok()), (id, true));
}

// The order of NOTIFYs

#[test]
fn notifies_leave_in_order_each_after_the_answer_to_the_one_before() {
    let (mut trace, dialog, ok) = their_call(trace());
    referred(&mut trace, 1_000, &ok);
    let trying = notify(&mut trace, 1_000, dialog, 100).unwrap();
    let ringing = notify(&mut trace, 1_200, dialog, 180).unwrap();
    let sent = trace.goes(1_000, "NOTIFY");
    assert_eq!((body(&sent), header(&sent, Name::CSeq)), ("SIP/2.0 100 Trying\r\n".into(), "1 NOTIFY".into()));
    assert_eq!(header(&sent, Name::ContentType), "message/sipfrag;version=2.0");
    assert_eq!(header(&sent, Name::Event), "refer");
    assert_eq!(header(&sent, Name::SubscriptionState), "active;expires=60");
    assert!(sent.headers().has(Name::Contact), "RFC 6665 §4.2.1.2");

    // Their answers are lost twice; only the first NOTIFY is repeated, nothing overtakes it.
    let done = notify(&mut trace, 1_400, dialog, 200).unwrap();
    for ms in [1_500, 2_500] {
        assert_eq!(text(&trace.goes(ms, "NOTIFY")), text(&sent));
    }
    trace.comes(2_600, &answer(&sent, 200, "", ""));
    answered(&mut trace, 2_600, trying);
    let sent = trace.goes(2_600, "NOTIFY");
    assert_eq!((body(&sent), header(&sent, Name::CSeq)), ("SIP/2.0 180 Ringing\r\n".into(), "2 NOTIFY".into()));
    trace.comes(2_650, &answer(&sent, 200, "", ""));
    // A repeated answer releases nothing more.
    trace.comes(2_660, &answer(&sent, 200, "", ""));
    answered(&mut trace, 2_650, ringing);
    let sent = trace.goes(2_650, "NOTIFY");
    assert_eq!((body(&sent), header(&sent, Name::CSeq)), ("SIP/2.0 200 OK\r\n".into(), "3 NOTIFY".into()));
    assert_eq!(header(&sent, Name::SubscriptionState), "terminated;reason=noresource");
    trace.silent(2_700);
    trace.comes(2_700, &answer(&sent, 200, "", ""));
    answered(&mut trace, 2_700, done);
    bye(&mut trace, 3_000, dialog).unwrap();
    let sent = trace.goes(3_000, "BYE");
    trace.comes(3_010, &answer(&sent, 200, "", ""));
    assert!(matches!(trace.event(3_010), Event::Response { outcome: Ok(_), .. }));
    trace.ends();
}

#[test]
fn a_notify_that_is_refused_or_never_answered_stops_none_behind_it() {
    let (mut trace, dialog, ok) = their_call(trace());
    referred(&mut trace, 0, &ok);
    let first = notify(&mut trace, 0, dialog, 100).unwrap();
    let second = notify(&mut trace, 0, dialog, 180).unwrap();
    let third = notify(&mut trace, 0, dialog, 486).unwrap();
    let sent = trace.goes(0, "NOTIFY");
    trace.comes(100, &answer(&sent, 489, "", ""));
    assert!(matches!(failed(&mut trace, 100, first), Failure::Response(_)));
    // T1 to T2, doubled, then every T2 (§17.1.2.2).
    for ms in [100, 600, 1_600, 3_600, 7_600, 11_600, 15_600, 19_600, 23_600, 27_600, 31_600] {
        assert_eq!(body(&trace.goes(ms, "NOTIFY")), "SIP/2.0 180 Ringing\r\n");
    }
    assert!(matches!(failed(&mut trace, 32_100, second), Failure::Timeout));
    let (transmit, sent) = trace.goes_as(32_100, "NOTIFY");
    assert_eq!(body(&sent), "SIP/2.0 486 Busy Here\r\n");
    trace.fails(32_110, transmit.token);
    assert!(matches!(failed(&mut trace, 32_110, third), Failure::Transport));
    notify(&mut trace, 32_200, dialog, 200).unwrap();
    trace.goes(32_200, "NOTIFY");
}

#[test]
fn notifies_of_one_dialog_do_not_wait_for_those_of_another() {
    let (mut trace, theirs, _) = their_call(trace());
    let flow = trace.flow;
    trace.does(0, |endpoint, now| endpoint.invite(invite(flow), now)).unwrap();
    let sent = trace.goes(0, "INVITE");
    trace.comes(0, &answer(&sent, 200, "bob", THEIR_CONTACT));
    let Event::Answered { dialog: ours, .. } = trace.event(0) else { panic!() };
    trace.does(0, |endpoint, now| endpoint.ack(ours, None, now)).unwrap();
    trace.goes(0, "ACK");
    for (ms, dialog) in [(10, theirs), (20, ours)] {
        notify(&mut trace, ms, dialog, 100).unwrap();
        trace.goes(ms, "NOTIFY");
        notify(&mut trace, ms, dialog, 180).unwrap();
    }
    trace.silent(30);
    // Other requests of the dialog do not wait either.
    trace.does(30, |endpoint, now| endpoint.request(theirs, Method::Info, Headers::new(), None, now)).unwrap();
    trace.goes(30, "INFO");
}

#[test]
fn a_challenged_notify_goes_again_before_the_next_with_the_next_number_of_the_dialog() {
    let (mut trace, dialog, _) = their_call(trace());
    let credentials = Credentials { username: "ann".into(), password: Password::new("s3cret"), realm: None };
    let peer = Peer { credentials: Some(credentials.into()), ..Peer::new(addr(US)) };
    trace.does(0, |endpoint, _| endpoint.set_peer(dialog, peer));
    let first = notify(&mut trace, 0, dialog, 100).unwrap();
    let second = notify(&mut trace, 0, dialog, 180).unwrap();
    let challenged = trace.goes(0, "NOTIFY");
    // Another request takes number 2 meanwhile.
    trace.does(5, |endpoint, now| endpoint.request(dialog, Method::Info, Headers::new(), None, now)).unwrap();
    assert_eq!(header(&trace.goes(5, "INFO"), Name::CSeq), "2 INFO");
    let challenge = "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth\"\r\n";
    trace.comes(10, &answer(&challenged, 401, "", challenge));
    let again = trace.goes(10, "NOTIFY");
    assert_eq!((body(&again), header(&again, Name::CSeq)), (body(&challenged), "3 NOTIFY".into()));
    assert!(again.headers().has(Name::Authorization));
    trace.silent(10);
    trace.comes(20, &answer(&again, 200, "", ""));
    answered(&mut trace, 20, first);
    let next = trace.goes(20, "NOTIFY");
    assert_eq!((body(&next), header(&next, Name::CSeq)), ("SIP/2.0 180 Ringing\r\n".into(), "4 NOTIFY".into()));
    trace.comes(30, &answer(&next, 200, "", ""));
    answered(&mut trace, 30, second);
}

#[test]
fn a_thirty_third_notify_does_not_wait() {
    let (mut trace, dialog, _) = their_call(trace());
    for _ in 0..33 {
        notify(&mut trace, 0, dialog, 180).unwrap();
    }
    assert_eq!(notify(&mut trace, 0, dialog, 180), Err(Refused::Full));
    assert_eq!(trace.endpoint.counters().refused, 1);
    trace.goes(0, "NOTIFY");
    trace.silent(0);
}

#[test]
fn a_bye_of_theirs_drops_the_notifies_that_wait() {
    let (mut trace, dialog, ok) = their_call(trace());
    referred(&mut trace, 0, &ok);
    let ids = [100, 180, 200].map(|code| notify(&mut trace, 0, dialog, code).unwrap());
    let sent = trace.goes(0, "NOTIFY");
    trace.comes(100, &in_dialog(&ok, "BYE", "z9hG4bKbye", 3, ""));
    for id in ids {
        assert!(matches!(failed(&mut trace, 100, id), Failure::Ended));
    }
    let Event::Request { tx, .. } = trace.event(100) else { panic!() };
    assert_eq!(notify(&mut trace, 100, dialog, 200), Err(Refused::WrongState));
    respond(&mut trace, 110, tx, 200);
    trace.goes(110, "200");
    assert_eq!(notify(&mut trace, 110, dialog, 200), Err(Refused::NoDialog));
    // What was on its way is still repeated until it is answered; nothing follows it.
    trace.goes(500, "NOTIFY");
    trace.comes(600, &answer(&sent, 200, "", ""));
    trace.comes(700, &in_dialog(&ok, "REFER", "z9hG4bKlate", 4, REFER_TO));
    trace.goes(700, "481");
    trace.ends();
}

#[test]
fn a_bye_of_ours_and_a_dropped_dialog_drop_the_notifies_that_wait() {
    for drops in [false, true] {
        let (mut trace, dialog, _) = their_call(trace());
        let ids = [100, 180].map(|code| notify(&mut trace, 0, dialog, code).unwrap());
        let sent = trace.goes(0, "NOTIFY");
        if drops {
            trace.does(10, |endpoint, now| endpoint.drop_dialog(dialog, now));
        } else {
            bye(&mut trace, 10, dialog).unwrap();
            let sent = trace.goes(10, "BYE");
            trace.comes(10, &answer(&sent, 200, "", ""));
        }
        for id in ids {
            assert!(matches!(failed(&mut trace, 10, id), Failure::Ended));
        }
        if !drops {
            assert!(matches!(trace.event(10), Event::Response { outcome: Ok(_), .. }));
        }
        trace.comes(20, &answer(&sent, 200, "", ""));
        trace.ends();
    }
}

#[test]
fn notifies_of_an_early_dialog_keep_their_order_when_it_is_answered() {
    let mut trace = trace();
    trace.does(0, |endpoint, now| endpoint.invite(invite(udp()), now)).unwrap();
    let invite = trace.goes(0, "INVITE");
    trace.comes(0, &answer(&invite, 180, "bob", THEIR_CONTACT));
    let Event::Provisional { dialog: Some(dialog), .. } = trace.event(0) else { panic!() };
    let first = notify(&mut trace, 10, dialog, 100).unwrap();
    let sent = trace.goes(10, "NOTIFY");
    let second = notify(&mut trace, 20, dialog, 180).unwrap();
    trace.comes(30, &answer(&invite, 200, "bob", THEIR_CONTACT));
    assert!(matches!(trace.event(30), Event::Answered { .. }));
    trace.does(30, |endpoint, now| endpoint.ack(dialog, None, now)).unwrap();
    trace.goes(30, "ACK");
    trace.comes(40, &answer(&sent, 200, "", ""));
    answered(&mut trace, 40, first);
    let sent = trace.goes(40, "NOTIFY");
    trace.comes(50, &answer(&sent, 200, "", ""));
    answered(&mut trace, 50, second);
}

// REFER

#[test]
fn a_refer_and_a_notify_arrive_in_and_out_of_dialogs() {
    let (mut trace, dialog, ok) = their_call(trace());
    trace.comes(10, &in_dialog(&ok, "REFER", "z9hG4bK1", 2, REFER_TO));
    trace.comes(20, &in_dialog(&ok, "NOTIFY", "z9hG4bK2", 3, "Event: refer\r\n"));
    trace.comes(30, &theirs("REFER", "z9hG4bK3", 1, REFER_TO).replace("their-call", "another"));
    trace.comes(40, &theirs("NOTIFY", "z9hG4bK4", 1, "Event: refer\r\n").replace("their-call", "another"));
    for (ms, in_dialog, method, code) in [
        (10, Some(dialog), Method::Refer, 202),
        (20, Some(dialog), Method::Notify, 200),
        (30, None, Method::Refer, 403),
        (40, None, Method::Notify, 481),
    ] {
        let Event::Request { tx, dialog: of, request, .. } = trace.event(ms) else { panic!() };
        assert_eq!((of, request.method), (in_dialog, method));
        respond(&mut trace, 50, tx, code);
        trace.goes(50, &code.to_string());
    }
}

#[test]
fn a_refer_with_a_lower_number_or_of_no_dialog_is_refused() {
    let (mut trace, _, ok) = their_call(trace());
    trace.comes(10, &in_dialog(&ok, "INFO", "z9hG4bK1", 7, ""));
    assert!(matches!(trace.event(10), Event::Request { .. }));
    trace.comes(20, &in_dialog(&ok, "REFER", "z9hG4bK2", 6, REFER_TO));
    trace.goes(20, "500");
    trace.comes(30, &in_dialog(&ok, "REFER", "z9hG4bK3", 8, REFER_TO).replace("tag=theirs", "tag=others"));
    trace.goes(30, "481");
    trace.no_event();
}

#[test]
fn a_repeated_refer_is_answered_again_and_told_once() {
    let (mut trace, _, ok) = their_call(trace());
    referred(&mut trace, 10, &ok);
    trace.comes(20, &in_dialog(&ok, "REFER", "z9hG4bKrefer", 2, REFER_TO));
    trace.goes(20, "202");
    trace.no_event();
}

#[test]
fn a_refer_that_meets_our_bye_is_481() {
    let (mut trace, dialog, ok) = their_call(trace());
    bye(&mut trace, 10, dialog).unwrap();
    let sent = trace.goes(10, "BYE");
    trace.comes(20, &in_dialog(&ok, "REFER", "z9hG4bKrefer", 2, REFER_TO));
    trace.goes(20, "481");
    trace.comes(30, &answer(&sent, 200, "", ""));
    assert!(matches!(trace.event(30), Event::Response { outcome: Ok(_), .. }));
    trace.ends();
}

#[test]
fn a_refer_whose_sender_hangs_up_before_its_answer_can_still_be_answered() {
    let (mut trace, dialog, ok) = their_call(trace());
    trace.comes(10, &in_dialog(&ok, "REFER", "z9hG4bKrefer", 2, REFER_TO));
    let Event::Request { tx: refer, .. } = trace.event(10) else { panic!() };
    trace.comes(20, &in_dialog(&ok, "BYE", "z9hG4bKbye", 3, ""));
    let Event::Request { tx, .. } = trace.event(20) else { panic!() };
    respond(&mut trace, 20, tx, 200);
    trace.goes(20, "200");
    respond(&mut trace, 30, refer, 202);
    let accepted = trace.goes(30, "202");
    assert_eq!(tag(&accepted, Name::To), tag(&ok, Name::To));
    assert!(trace.endpoint.dialog(dialog).is_none());
    trace.ends();
}

#[test]
fn a_refer_that_comes_before_the_ack_of_our_2xx_is_taken() {
    let mut trace = trace();
    trace.comes(0, &theirs("INVITE", "z9hG4bK1", 1, ""));
    trace.goes(0, "100");
    let Event::Invite { tx, .. } = trace.event(0) else { panic!() };
    let dialog = trace.does(0, |endpoint, _| endpoint.open_dialog(tx, Peer::new(addr(US)))).unwrap();
    trace.does(0, |endpoint, now| endpoint.respond(tx, Some(dialog), Reply::new(200), now)).unwrap();
    let ok = trace.goes(0, "200");
    referred(&mut trace, 10, &ok);
    notify(&mut trace, 10, dialog, 100).unwrap();
    trace.goes(10, "NOTIFY");
    // The ACK has the INVITE's number, lower than the REFER's.
    trace.comes(20, &in_dialog(&ok, "ACK", "z9hG4bKack", 1, ""));
    assert!(matches!(trace.event(20), Event::Ack { .. }));
    trace.silent(509);
}

#[test]
fn the_contact_of_an_accepted_refer_is_where_its_notifies_go() {
    let (mut trace, dialog, ok) = their_call(trace());
    let moved = REFER_TO.replace("sip:them@", "sip:moved@");
    for (ms, cseq, code, target) in
        [(10, 2, 403, "sip:them@198.51.100.7:5060"), (20, 3, 202, "sip:moved@198.51.100.7:5060")]
    {
        trace.comes(ms, &in_dialog(&ok, "REFER", &format!("z9hG4bK{cseq}"), cseq, &moved));
        let Event::Request { tx, .. } = trace.event(ms) else { panic!() };
        respond(&mut trace, ms, tx, code);
        trace.goes(ms, &code.to_string());
        assert_eq!(trace.endpoint.dialog(dialog).unwrap().remote_target, target, "{code}");
    }
}

// Dialogs of REFER and SUBSCRIBE

/// A request of theirs outside a dialog.
fn comes_alone(trace: &mut Trace, method: &str, extra: &str) -> ServerTx {
    trace.comes(0, &theirs(method, "z9hG4bKalone", 7, extra));
    let Event::Request { tx, dialog: None, .. } = trace.event(0) else { panic!() };
    tx
}

fn open(trace: &mut Trace, tx: ServerTx) -> Result<DialogId, Refused> {
    trace.does(0, |endpoint, _| endpoint.open_dialog(tx, Peer::new(addr(US))))
}

#[test]
fn a_refer_or_subscribe_outside_a_dialog_makes_one_that_carries_notifies_only() {
    for method in ["REFER", "SUBSCRIBE"] {
        let mut trace = trace();
        let tx = comes_alone(&mut trace, method, REFER_TO);
        let dialog = open(&mut trace, tx).unwrap();
        trace.does(0, |endpoint, now| endpoint.respond(tx, Some(dialog), Reply::new(202), now)).unwrap();
        let ok = trace.goes(0, "202");
        assert!(header(&ok, Name::Contact).ends_with("@192.0.2.1:5060>"));
        let id = notify(&mut trace, 0, dialog, 100).unwrap();
        let sent = trace.goes(0, "NOTIFY");
        assert_eq!((tag(&sent, Name::From), tag(&sent, Name::To)), (tag(&ok, Name::To), "theirs".to_owned()));
        assert_eq!(request_of(sent.clone()).uri, "sip:them@198.51.100.7:5060");
        trace.comes(10, &answer(&sent, 200, "", ""));
        answered(&mut trace, 10, id);

        trace.comes(20, &in_dialog(&ok, method, "z9hG4bKnext", 8, REFER_TO));
        let Event::Request { tx, dialog: Some(of), .. } = trace.event(20) else { panic!() };
        assert_eq!(of, dialog);
        respond(&mut trace, 20, tx, 202);
        trace.goes(20, "202");
        for (cseq, method) in [(9, "BYE"), (10, "INVITE")] {
            trace.comes(30, &in_dialog(&ok, method, &format!("z9hG4bK{cseq}"), cseq, ""));
            trace.goes(30, "481");
            if method == "INVITE" {
                trace.comes(30, &in_dialog(&ok, "ACK", &format!("z9hG4bK{cseq}"), cseq, ""));
            }
        }
        for method in [Method::Bye, Method::Invite] {
            let made = trace.does(40, |endpoint, now| endpoint.request(dialog, method, Headers::new(), None, now));
            assert_eq!(made, Err(Refused::WrongState));
        }
        // RFC 3891 §3: what no INVITE has made is not replaced.
        assert_eq!(find(&mut trace, 40, "their-call", &tag(&ok, Name::To), "theirs"), None);
        trace.does(50, |endpoint, now| endpoint.drop_dialog(dialog, now));
        assert_eq!(find(&mut trace, 50, "their-call", &tag(&ok, Name::To), "theirs"), None);
        trace.ends();
    }
}

#[test]
fn a_refer_that_is_refused_or_never_answered_leaves_no_dialog() {
    let mut refused = trace();
    let tx = comes_alone(&mut refused, "REFER", REFER_TO);
    let dialog = open(&mut refused, tx).unwrap();
    respond(&mut refused, 0, tx, 403);
    refused.goes(0, "403");
    assert!(refused.endpoint.dialog(dialog).is_none());
    refused.ends();

    let mut silent = trace();
    let tx = comes_alone(&mut silent, "REFER", REFER_TO);
    let dialog = open(&mut silent, tx).unwrap();
    silent.silent(31_999);
    assert!(silent.endpoint.dialog(dialog).is_some());
    silent.silent(32_000);
    assert!(silent.endpoint.dialog(dialog).is_none());
    silent.ends();
}

#[test]
fn a_refer_may_be_accepted_without_a_dialog() {
    // Refer-Sub: false; and a dialog that is opened and dropped before the answer.
    for drops in [false, true] {
        let mut trace = trace();
        let tx = comes_alone(&mut trace, "REFER", REFER_TO);
        if drops {
            let dialog = open(&mut trace, tx).unwrap();
            trace.does(0, |endpoint, now| endpoint.drop_dialog(dialog, now));
            let made = trace.does(0, |endpoint, now| endpoint.respond(tx, Some(dialog), Reply::new(202), now));
            assert_eq!(made, Err(Refused::NoDialog));
        }
        respond(&mut trace, 0, tx, 202);
        assert!(!trace.goes(0, "202").headers().has(Name::Contact));
        assert_eq!(trace.endpoint.load().dialogs, 0);
        trace.ends();
    }
}

#[test]
fn a_refer_makes_one_dialog_and_needs_a_contact() {
    let mut once = trace();
    let tx = comes_alone(&mut once, "REFER", REFER_TO);
    open(&mut once, tx).unwrap();
    assert_eq!(open(&mut once, tx), Err(Refused::WrongState));
    for (method, extra) in [("REFER", "Refer-To: <sip:carol@192.0.2.1>\r\n"), ("NOTIFY", THEIR_CONTACT)] {
        let mut trace = trace();
        let tx = comes_alone(&mut trace, method, extra);
        assert_eq!(open(&mut trace, tx), Err(Refused::WrongState), "{method}");
    }
    let (mut trace, _, ok) = their_call(trace());
    trace.comes(0, &in_dialog(&ok, "REFER", "z9hG4bKrefer", 2, REFER_TO));
    let Event::Request { tx, .. } = trace.event(0) else { panic!() };
    assert_eq!(open(&mut trace, tx), Err(Refused::WrongState), "in a dialog");
}

// Option tags and Replaces

#[test]
fn required_extensions_of_transfers_are_supported_when_the_options_say_so() {
    for tag in ["replaces", "norefersub", "record-aware", "Replaces"] {
        let extra = format!("Require: {tag}\r\n");
        let mut trace = trace();
        trace.comes(0, &theirs("INVITE", "z9hG4bK1", 1, &extra));
        trace.goes(0, "100");
        assert!(matches!(trace.event(0), Event::Invite { .. }), "{tag}");
        let mut without = Trace::udp();
        without.comes(0, &theirs("INVITE", "z9hG4bK1", 1, &extra));
        assert_eq!(header(&without.goes(0, "420"), Name::Unsupported), tag);
    }
    let (mut trace, _, ok) = their_call(trace());
    assert_eq!(header(&ok, Name::Supported), "replaces, norefersub, record-aware");
    trace.comes(10, &in_dialog(&ok, "REFER", "z9hG4bK1", 2, &format!("{REFER_TO}Require: tdialog, norefersub\r\n")));
    assert_eq!(header(&trace.goes(10, "420"), Name::Unsupported), "tdialog");
}

#[test]
fn a_replaces_that_breaks_its_rules_is_400_where_it_is_supported() {
    let sound = "Replaces: c;to-tag=1;from-tag=2\r\n";
    let table = [
        ("INVITE", format!("{sound}{sound}"), "More than one Replaces"),
        ("INVITE", "Replaces: c;to-tag=1\r\n".to_owned(), "Malformed Replaces"),
        ("INVITE", format!("{sound}Join: c;to-tag=1;from-tag=2\r\n"), "Replaces and Join contradict each other"),
        ("REFER", format!("{sound}{REFER_TO}"), "Replaces in a request that is not INVITE"),
    ];
    for (method, extra, reason) in table {
        let mut trace = trace();
        trace.comes(0, &theirs(method, "z9hG4bK1", 1, &extra));
        let refused = response_of(trace.goes(0, "400"));
        assert_eq!(refused.reason, reason);
        trace.no_event();
    }
    for (options, extra) in [(transfers(), sound.to_owned()), (options(), sound.repeat(2))] {
        let mut trace = Trace::new(udp(), options);
        trace.comes(0, &theirs("INVITE", "z9hG4bK1", 1, &extra));
        assert!(matches!(trace.event(0), Event::Invite { .. }));
    }
}

// Finding dialogs

fn find(trace: &mut Trace, ms: u64, call_id: &str, local: &str, remote: &str) -> Option<Found> {
    trace.does(ms, |endpoint, now| endpoint.find_dialog(call_id.as_bytes(), local.as_bytes(), remote.as_bytes(), now))
}

#[test]
fn a_dialog_is_found_by_its_call_id_and_tags_as_we_see_them() {
    let (mut trace, dialog, ok) = their_call(trace());
    let ours = tag(&ok, Name::To);
    let found = Some(Found::Confirmed { dialog, is_ours: false });
    assert_eq!(find(&mut trace, 10, "their-call", &ours, "theirs"), found);
    for (call_id, local, remote) in [
        ("their-call", "theirs", &ours[..]),
        ("Their-Call", &ours, "theirs"),
        ("their-call", &ours, "Theirs"),
        ("their-call", &ours.to_uppercase(), "theirs"),
        ("their-call", &ours, ""),
        ("their-call", &ours, "0"),
        ("their-call", "", "theirs"),
        ("", &ours, "theirs"),
    ] {
        assert_eq!(find(&mut trace, 10, call_id, local, remote), None, "{call_id} {local} {remote}");
    }
}

#[test]
fn each_fork_is_found_until_another_one_wins() {
    let mut trace = trace();
    trace.does(0, |endpoint, now| endpoint.invite(invite(udp()), now)).unwrap();
    let sent = trace.goes(0, "INVITE");
    let (call_id, ours) = (header(&sent, Name::CallId), tag(&sent, Name::From));
    let forks = ["one", "two"].map(|fork| {
        trace.comes(10, &answer(&sent, 180, fork, THEIR_CONTACT));
        let Event::Provisional { dialog: Some(dialog), .. } = trace.event(10) else { panic!() };
        dialog
    });
    for (fork, dialog) in ["one", "two"].into_iter().zip(forks) {
        let found = find(&mut trace, 20, &call_id, &ours, fork);
        assert_eq!(found, Some(Found::Early { dialog, is_ours: true }));
    }
    trace.comes(30, &answer(&sent, 200, "two", THEIR_CONTACT));
    let found = find(&mut trace, 30, &call_id, &ours, "two");
    assert_eq!(found, Some(Found::Confirmed { dialog: forks[1], is_ours: true }));
    assert_eq!(find(&mut trace, 30, &call_id, &ours, "one"), Some(Found::Ended));
    assert_eq!(find(&mut trace, 32_029, &call_id, &ours, "one"), Some(Found::Ended));
    assert_eq!(find(&mut trace, 32_030, &call_id, &ours, "one"), None);
}

#[test]
fn a_dialog_has_ended_from_the_bye_on_until_32_seconds_after_it_is_gone() {
    let (mut trace, dialog, ok) = their_call(trace());
    let ours = tag(&ok, Name::To);
    bye(&mut trace, 1_000, dialog).unwrap();
    let sent = trace.goes(1_000, "BYE");
    assert_eq!(find(&mut trace, 1_000, "their-call", &ours, "theirs"), Some(Found::Ended));
    trace.comes(1_400, &answer(&sent, 200, "", ""));
    assert_eq!(find(&mut trace, 33_399, "their-call", &ours, "theirs"), Some(Found::Ended));
    assert_eq!(find(&mut trace, 33_400, "their-call", &ours, "theirs"), None);
    assert!(matches!(trace.event(1_400), Event::Response { .. }));
    trace.ends();
}

#[test]
fn a_peer_without_a_tag_is_found_by_none_and_by_zero() {
    let begin = |from: &str, branch: &str| {
        theirs("INVITE", branch, 1, "").replace("From: <sip:ann@198.51.100.7>;tag=theirs", from)
    };
    let mut trace = trace();
    trace.comes(0, &begin("From: <sip:ann@198.51.100.7>", "z9hG4bK1"));
    trace.goes(0, "100");
    let Event::Invite { tx, .. } = trace.event(0) else { panic!() };
    let dialog = trace.does(0, |endpoint, _| endpoint.open_dialog(tx, Peer::new(addr(US)))).unwrap();
    trace.does(0, |endpoint, now| endpoint.respond(tx, Some(dialog), Reply::new(200), now)).unwrap();
    let ours = tag(&trace.goes(0, "200"), Name::To);
    let found = Some(Found::Confirmed { dialog, is_ours: false });
    for remote in ["", "0"] {
        assert_eq!(find(&mut trace, 0, "their-call", &ours, remote), found);
    }
    assert_eq!(find(&mut trace, 0, "their-call", &ours, "00"), None);
}

/// What an INVITE with this Replaces finds, or the code of its refusal.
fn look(trace: &mut Trace, ms: u64, (call_id, to, from): (&str, &str, &str), early: bool) -> Result<DialogId, u16> {
    let flag = if early { ";early-only" } else { "" };
    let replaces = Replaces::parse(format!("{call_id};to-tag={to};from-tag={from}{flag}").as_bytes()).unwrap();
    let found = trace.does(ms, |endpoint, now| endpoint.find_replaced(&replaces, now));
    let (dialog, state) = found.map_err(NotReplaced::code)?;
    assert_eq!(trace.endpoint.dialog(dialog).unwrap().state, state);
    Ok(dialog)
}

#[test]
fn a_replaces_finds_what_may_be_replaced_or_the_code_of_its_refusal() {
    let mut trace = trace();
    // A call of theirs that rings: we have not sent its INVITE.
    trace.comes(0, &theirs("INVITE", "z9hG4bK1", 1, ""));
    trace.goes(0, "100");
    let Event::Invite { tx, .. } = trace.event(0) else { panic!() };
    let dialog = trace.does(0, |endpoint, _| endpoint.open_dialog(tx, Peer::new(addr(US)))).unwrap();
    trace.does(0, |endpoint, now| endpoint.respond(tx, Some(dialog), Reply::new(180), now)).unwrap();
    let their_tag = tag(&trace.goes(0, "180"), Name::To);
    // A call of ours that rings.
    trace.does(0, |endpoint, now| endpoint.invite(invite(udp()), now)).unwrap();
    let sent = trace.goes(0, "INVITE");
    trace.comes(0, &answer(&sent, 180, "bob", THEIR_CONTACT));
    let Event::Provisional { dialog: Some(ours), .. } = trace.event(0) else { panic!() };
    let (call_id, tag) = (header(&sent, Name::CallId), tag(&sent, Name::From));
    let called = (&call_id[..], &tag[..], "bob");

    for early_only in [false, true] {
        assert_eq!(look(&mut trace, 1, called, early_only), Ok(ours), "pickup");
        assert_eq!(look(&mut trace, 1, ("their-call", &their_tag, "theirs"), early_only), Err(481), "not ours");
        assert_eq!(look(&mut trace, 1, (&call_id, "bob", &tag), early_only), Err(481), "tags swapped");
    }
    trace.comes(2, &answer(&sent, 200, "bob", THEIR_CONTACT));
    assert_eq!(look(&mut trace, 3, called, false), Ok(ours));
    assert_eq!(look(&mut trace, 3, called, true), Err(486), "early-only");
    trace.does(4, |endpoint, now| endpoint.drop_dialog(ours, now));
    for early_only in [false, true] {
        assert_eq!(look(&mut trace, 5, called, early_only), Err(603), "ended");
    }
    assert_eq!(look(&mut trace, 32_004, called, false), Err(481), "forgotten");
}

#[test]
fn a_target_dialog_is_found_from_either_end() {
    let (mut trace, dialog, ok) = their_call(trace());
    let ours = tag(&ok, Name::To);
    let found = Some(Found::Confirmed { dialog, is_ours: false });
    for (local, remote, expected) in
        [(&ours[..], "theirs", found), ("theirs", &ours, found), (&ours, &ours, None), ("theirs", "theirs", None)]
    {
        let value = format!("their-call;local-tag={local};remote-tag={remote}");
        let target = TargetDialog::parse(value.as_bytes()).unwrap();
        let is = trace.does(10, |endpoint, now| endpoint.find_target(&target, now));
        assert_eq!(is, expected);
    }
}
