//! Subscriptions to us (RFC 6665), as traces in virtual time.

use crate::sip_trace::*;
use stickytape::sip::endpoint::*;
use stickytape::sip::message::Message;
use stickytape::sip::method::Method;
use stickytape::sip::name::Name;

const CONFERENCE: &str = "Event: conference\r\nContact: <sip:them@198.51.100.7:5060>\r\n";

fn notifier() -> Trace {
    notifier_on(udp())
}

fn notifier_on(flow: Flow) -> Trace {
    let allow = [Options::default().allow, vec![Method::Subscribe, Method::Notify]].concat();
    Trace::new(flow, Options { allow, packages: vec!["conference"], ..options() })
}

/// Our peer in a dialog of a conference.
fn focus() -> Peer {
    Peer { focus: Some("800".into()), ..Peer::new(addr(US)) }
}

fn subscribe(branch: &str, cseq: u32, extra: &str) -> String {
    theirs("SUBSCRIBE", branch, cseq, &format!("{CONFERENCE}{extra}"))
}

/// A subscription of its own dialog that is accepted at 0 ms, and its 200.
fn subscribed(trace: &mut Trace, extra: &str) -> (SubscriptionId, Message) {
    trace.comes(0, &subscribe("z9hG4bKsub", 1, extra));
    let Event::Subscribe { tx, dialog: None, .. } = trace.event(0) else { panic!("a SUBSCRIBE") };
    let dialog = trace.does(0, |endpoint, _| endpoint.open_dialog(tx, focus())).unwrap();
    let id = trace.does(0, |endpoint, now| endpoint.accept_subscription(tx, dialog, now)).unwrap();
    (id, trace.goes(0, "200"))
}

/// The state is asked for at this instant, and told.
#[track_caller]
fn told(trace: &mut Trace, ms: u64, id: SubscriptionId, body: &str) -> Message {
    let Event::NotifyDue { subscription, is_last } = trace.event(ms) else { panic!("a NOTIFY is due") };
    assert_eq!(subscription, id);
    let body = Body { content_type: "text/plain".into(), bytes: body.to_owned().into() };
    trace.does(ms, |endpoint, now| endpoint.notify(id, Some(body), now)).unwrap();
    let sent = trace.goes(ms, "NOTIFY");
    assert_eq!(is_last, header(&sent, Name::SubscriptionState).starts_with("terminated"));
    sent
}

#[track_caller]
fn acknowledged(trace: &mut Trace, ms: u64, notify: &Message) {
    trace.comes(ms, &answer(notify, 200, "", ""));
}

fn changed(trace: &mut Trace, ms: u64, id: SubscriptionId) {
    trace.does(ms, |endpoint, now| endpoint.resource_changed(id, now));
}

fn body(message: &Message) -> String {
    String::from_utf8(message.body().to_vec()).unwrap()
}

#[track_caller]
fn lost(trace: &mut Trace, ms: u64, id: SubscriptionId) {
    let event = trace.event(ms);
    assert!(matches!(event, Event::Unsubscribed { subscription } if subscription == id), "{event:?}");
}

#[test]
fn a_subscriber_is_told_the_state_at_once_at_every_refresh_and_a_last_time_at_the_end() {
    let mut trace = notifier();
    let (id, ok) = subscribed(&mut trace, "Expires: 120\r\n");
    assert_eq!(header(&ok, Name::Expires), "120");
    assert_eq!(header(&ok, Name::Contact), "<sip:800@192.0.2.1:5060>;isfocus");
    let first = told(&mut trace, 0, id, "one");
    assert_eq!(header(&first, Name::Event), "conference");
    assert_eq!(header(&first, Name::SubscriptionState), "active;expires=120");
    assert_eq!(header(&first, Name::Contact), "<sip:800@192.0.2.1:5060>;isfocus");
    assert_eq!((tag(&first, Name::From), tag(&first, Name::To)), (tag(&ok, Name::To), "theirs".into()));
    acknowledged(&mut trace, 10, &first);

    trace.comes(100_000, &in_dialog(&ok, "SUBSCRIBE", "z9hG4bKagain", 2, &format!("{CONFERENCE}Expires: 60\r\n")));
    assert_eq!(header(&trace.goes(100_000, "200"), Name::Expires), "60");
    let second = told(&mut trace, 100_000, id, "two");
    assert_eq!(header(&second, Name::SubscriptionState), "active;expires=60");
    acknowledged(&mut trace, 100_010, &second);
    // It would have lapsed at 120 s.
    trace.silent(130_000);

    trace.comes(130_000, &in_dialog(&ok, "SUBSCRIBE", "z9hG4bKover", 3, &format!("{CONFERENCE}Expires: 0\r\n")));
    assert_eq!(header(&trace.goes(130_000, "200"), Name::Expires), "0");
    let last = told(&mut trace, 130_000, id, "three");
    assert_eq!(header(&last, Name::SubscriptionState), "terminated;reason=timeout");
    assert_eq!((body(&last), header(&last, Name::CSeq)), ("three".into(), "3 NOTIFY".into()));
    acknowledged(&mut trace, 130_010, &last);
    assert_eq!(trace.endpoint.load().dialogs, 0, "its dialog ends with its last NOTIFY");
    trace.ends();
}

#[test]
fn over_tcp_the_dialog_of_a_subscribe_outlives_its_transaction() {
    let mut trace = notifier_on(tcp());
    let (id, ok) = subscribed(&mut trace, "");
    assert_eq!(header(&ok, Name::Contact), "<sip:800@192.0.2.1:5060;transport=tcp>;isfocus");
    let first = told(&mut trace, 0, id, "one");
    acknowledged(&mut trace, 10, &first);
    trace.does(20, |endpoint, now| endpoint.end_subscription(id, "noresource", now));
    let last = told(&mut trace, 20, id, "");
    acknowledged(&mut trace, 30, &last);
    trace.ends();
}

#[test]
fn one_with_expires_0_fetches_the_state_once() {
    let mut trace = notifier();
    let (id, ok) = subscribed(&mut trace, "Expires: 0\r\n");
    assert_eq!(header(&ok, Name::Expires), "0");
    let only = told(&mut trace, 0, id, "now");
    assert_eq!(header(&only, Name::SubscriptionState), "terminated;reason=timeout");
    assert_eq!(trace.does(0, |endpoint, now| endpoint.notify(id, None, now)), Err(Refused::NoDialog));
    acknowledged(&mut trace, 10, &only);
    trace.ends();
}

#[test]
fn one_that_is_not_refreshed_lapses() {
    let mut trace = notifier();
    let (id, ok) = subscribed(&mut trace, "");
    assert_eq!(header(&ok, Name::Expires), "3600", "RFC 4575 §3.4");
    let first = told(&mut trace, 0, id, "");
    acknowledged(&mut trace, 10, &first);
    trace.silent(3_599_999);
    let last = told(&mut trace, 3_600_000, id, "");
    assert_eq!(header(&last, Name::SubscriptionState), "terminated;reason=timeout");
    // Its answer is still to come: nothing can be refreshed any more.
    trace.comes(3_600_010, &in_dialog(&ok, "SUBSCRIBE", "z9hG4bKlate", 2, CONFERENCE));
    trace.goes(3_600_010, "481");
    acknowledged(&mut trace, 3_600_020, &last);
    trace.ends();
}

#[test]
fn what_cannot_be_subscribed_to_is_refused_with_what_can() {
    let table = [
        ("Event: presence\r\n", "489", Some((Name::AllowEvents, "conference"))),
        ("Event: Conference\r\n", "489", Some((Name::AllowEvents, "conference"))),
        ("", "400", None),
        ("Event: conference;id=\"\"\r\n", "400", None),
        ("Event: conference\r\nExpires: soon\r\n", "400", None),
        ("Event: conference\r\nExpires: 59\r\n", "423", Some((Name::MinExpires, "60"))),
        ("Event: conference\r\nExpires: 1\r\n", "423", Some((Name::MinExpires, "60"))),
    ];
    for (lines, code, told) in table {
        let mut trace = notifier();
        trace.comes(0, &theirs("SUBSCRIBE", "z9hG4bKsub", 1, &format!("{lines}{THEIR_CONTACT}")));
        let refused = trace.goes(0, code);
        if let Some((name, value)) = told {
            assert_eq!(header(&refused, name), value, "{lines}");
        }
        trace.ends();
    }
    let mut trace = notifier();
    let (_, ok) = subscribed(&mut trace, "Expires: 86400\r\n");
    assert_eq!(header(&ok, Name::Expires), "3600", "longer than ours is ours");
}

#[test]
fn changes_within_a_second_are_told_together_and_the_last_is_always_told() {
    let mut trace = notifier();
    let (id, _) = subscribed(&mut trace, "");
    let first = told(&mut trace, 0, id, "1");
    acknowledged(&mut trace, 10, &first);
    for ms in [100, 200, 900] {
        changed(&mut trace, ms, id);
        trace.no_event();
    }
    let second = told(&mut trace, 1_000, id, "2");
    acknowledged(&mut trace, 1_010, &second);
    trace.silent(5_000);
    // After a quiet while a change is told at once.
    changed(&mut trace, 5_000, id);
    let third = told(&mut trace, 5_000, id, "3");
    // Its answer takes longer than a second: the next change waits for it.
    changed(&mut trace, 5_200, id);
    trace.goes(5_500, "NOTIFY");
    trace.silent(6_400);
    trace.no_event();
    acknowledged(&mut trace, 6_400, &third);
    let fourth = told(&mut trace, 6_400, id, "4");
    acknowledged(&mut trace, 6_410, &fourth);
    trace.silent(10_000);
    trace.no_event();
}

#[test]
fn a_notify_that_fails_ends_the_subscription() {
    for code in [481, 404, 500] {
        let mut trace = notifier();
        let (id, _) = subscribed(&mut trace, "");
        let sent = told(&mut trace, 0, id, "");
        trace.comes(10, &answer(&sent, code, "", ""));
        lost(&mut trace, 10, id);
        assert_eq!(trace.endpoint.load().dialogs, 0);
        trace.ends();
    }
    let mut silent = notifier();
    let (id, _) = subscribed(&mut silent, "");
    told(&mut silent, 0, id, "");
    for ms in [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500] {
        silent.goes(ms, "NOTIFY");
    }
    lost(&mut silent, 32_000, id);
    silent.ends();
}

#[test]
fn a_notify_that_is_to_come_again_later_comes_later() {
    let mut trace = notifier();
    let (id, _) = subscribed(&mut trace, "");
    let sent = told(&mut trace, 0, id, "");
    trace.comes(10, &answer(&sent, 503, "", "Retry-After: 5 (busy)\r\n"));
    changed(&mut trace, 2_000, id);
    trace.silent(5_009);
    trace.no_event();
    let again = told(&mut trace, 5_010, id, "");
    acknowledged(&mut trace, 5_020, &again);
    trace.silent(20_000);
}

#[test]
fn one_that_we_end_says_why_when_the_notify_before_is_answered() {
    let mut trace = notifier();
    let (id, _) = subscribed(&mut trace, "");
    let first = told(&mut trace, 0, id, "");
    trace.does(100, |endpoint, now| endpoint.end_subscription(id, "noresource", now));
    trace.silent(200);
    trace.no_event();
    acknowledged(&mut trace, 200, &first);
    let Event::NotifyDue { is_last: true, .. } = trace.event(200) else { panic!() };
    trace.does(200, |endpoint, now| endpoint.notify(id, None, now)).unwrap();
    let last = trace.goes(200, "NOTIFY");
    assert_eq!(header(&last, Name::SubscriptionState), "terminated;reason=noresource");
    assert!(!last.headers().has(Name::ContentType));
    // Whatever it is answered, nothing is left.
    trace.comes(210, &answer(&last, 481, "", ""));
    trace.ends();
}

#[test]
fn a_subscription_in_the_dialog_of_a_call_shares_it_and_ends_with_it() {
    let (mut trace, dialog, ok) = their_call(notifier());
    trace.comes(0, &in_dialog(&ok, "SUBSCRIBE", "z9hG4bKsub", 2, CONFERENCE));
    let Event::Subscribe { tx, dialog: Some(of), .. } = trace.event(0) else { panic!() };
    assert_eq!(of, dialog);
    let id = trace.does(0, |endpoint, now| endpoint.accept_subscription(tx, dialog, now)).unwrap();
    trace.goes(0, "200");
    let first = told(&mut trace, 0, id, "");
    acknowledged(&mut trace, 10, &first);
    // Unsubscribed, the call goes on.
    trace.comes(20, &in_dialog(&ok, "SUBSCRIBE", "z9hG4bKoff", 3, &format!("{CONFERENCE}Expires: 0\r\n")));
    trace.goes(20, "200");
    let last = told(&mut trace, 20, id, "");
    acknowledged(&mut trace, 30, &last);
    assert_eq!(trace.endpoint.load().dialogs, 1);

    trace.comes(40, &in_dialog(&ok, "SUBSCRIBE", "z9hG4bKon", 4, CONFERENCE));
    let Event::Subscribe { tx, .. } = trace.event(40) else { panic!() };
    let id = trace.does(40, |endpoint, now| endpoint.accept_subscription(tx, dialog, now)).unwrap();
    trace.goes(40, "200");
    let sent = told(&mut trace, 40, id, "");
    trace.comes(50, &in_dialog(&ok, "BYE", "z9hG4bKbye", 5, ""));
    lost(&mut trace, 50, id);
    let Event::Request { tx, .. } = trace.event(50) else { panic!() };
    trace.does(50, |endpoint, now| endpoint.respond(tx, None, Reply::new(200), now)).unwrap();
    trace.goes(50, "200");
    acknowledged(&mut trace, 60, &sent);
    trace.ends();
}

#[test]
fn our_bye_and_a_dropped_dialog_end_the_subscriptions_in_it() {
    for drops in [false, true] {
        let (mut trace, dialog, ok) = their_call(notifier());
        trace.comes(0, &in_dialog(&ok, "SUBSCRIBE", "z9hG4bKsub", 2, CONFERENCE));
        let Event::Subscribe { tx, .. } = trace.event(0) else { panic!() };
        let id = trace.does(0, |endpoint, now| endpoint.accept_subscription(tx, dialog, now)).unwrap();
        trace.goes(0, "200");
        let first = told(&mut trace, 0, id, "");
        acknowledged(&mut trace, 10, &first);
        if drops {
            trace.does(20, |endpoint, now| endpoint.drop_dialog(dialog, now));
            lost(&mut trace, 20, id);
        } else {
            let headers = stickytape::sip::headers::Headers::new();
            trace.does(20, |endpoint, now| endpoint.request(dialog, Method::Bye, headers, None, now)).unwrap();
            let bye = trace.goes(20, "BYE");
            // While the BYE is under way nothing can be told any more.
            changed(&mut trace, 2_000, id);
            let Event::NotifyDue { .. } = trace.event(2_000) else { panic!() };
            let told = trace.does(2_000, |endpoint, now| endpoint.notify(id, None, now));
            assert_eq!(told, Err(Refused::WrongState));
            lost(&mut trace, 2_000, id);
            for ms in [520, 1_520] {
                trace.goes(ms, "BYE");
            }
            trace.comes(2_010, &answer(&bye, 200, "", ""));
            assert!(matches!(trace.event(2_010), Event::Response { outcome: Ok(_), .. }));
        }
        trace.ends();
    }
}

#[test]
fn a_dialog_has_four_subscriptions_by_their_ids_and_one_of_a_subscribe_none_of_its_own_kind_beside() {
    let (mut trace, dialog, ok) = their_call(notifier());
    for n in 0..5_u32 {
        let lines = format!("Event: conference;id={n}\r\n{THEIR_CONTACT}");
        trace.comes(0, &in_dialog(&ok, "SUBSCRIBE", &format!("z9hG4bKsub{n}"), 2 + n, &lines));
        let Event::Subscribe { tx, .. } = trace.event(0) else { panic!() };
        let made = trace.does(0, |endpoint, now| endpoint.accept_subscription(tx, dialog, now));
        if n == 4 {
            assert_eq!(made, Err(Refused::Full));
            break;
        }
        let id = made.unwrap();
        trace.goes(0, "200");
        let sent = told(&mut trace, 0, id, "");
        assert_eq!(header(&sent, Name::Event), format!("conference;id={n}"));
        acknowledged(&mut trace, 0, &sent);
    }
    let mut alone = notifier();
    let (id, ok) = subscribed(&mut alone, "");
    told(&mut alone, 0, id, "");
    let other = format!("Event: conference;id=7\r\n{THEIR_CONTACT}");
    alone.comes(10, &in_dialog(&ok, "SUBSCRIBE", "z9hG4bKother", 2, &other));
    alone.goes(10, "481");
}

#[test]
fn a_subscribe_that_is_refused_leaves_nothing() {
    let mut trace = notifier();
    trace.comes(0, &subscribe("z9hG4bKsub", 1, ""));
    let Event::Subscribe { tx, .. } = trace.event(0) else { panic!() };
    trace.does(0, |endpoint, now| endpoint.respond(tx, None, Reply::new(403), now)).unwrap();
    trace.goes(0, "403");
    trace.ends();
}
