//! Dialogs (RFC 3261 §12–15) through the endpoint, as traces in virtual time.

mod sip_trace;

use sip_trace::*;
use stickytape::sip::endpoint::*;
use stickytape::sip::headers::Headers;
use stickytape::sip::message::Message;
use stickytape::sip::method::Method;
use stickytape::sip::name::Name;

fn bye(trace: &mut Trace, ms: u64, dialog: DialogId) -> RequestId {
    trace.does(ms, |endpoint, now| endpoint.request(dialog, Method::Bye, Headers::new(), None, now)).unwrap()
}

#[test]
fn a_call_of_ours_is_answered_acknowledged_and_ended() {
    let (mut trace, dialog, invite) = our_call(Trace::udp());
    bye(&mut trace, 1_000, dialog);
    let sent = trace.goes(1_000, "BYE");
    assert_eq!(header(&sent, Name::CSeq), "2 BYE");
    assert_eq!(tag(&sent, Name::From), tag(&invite, Name::From));
    assert_eq!(tag(&sent, Name::To), "bob");
    let Message::Request(request) = &sent else { panic!() };
    assert_eq!(request.uri, "sip:them@198.51.100.7:5060");
    trace.comes(1_100, &answer(&sent, 200, "", ""));
    assert!(matches!(trace.event(1_100), Event::Response { outcome: Ok(_), .. }));
    trace.ends();
}

#[test]
fn a_call_of_theirs_is_answered_and_ended_by_them() {
    let (mut trace, dialog, ok) = their_call(Trace::udp());
    let to = header(&ok, Name::To);
    trace.comes(1_000, &theirs_to("BYE", "sip:x@192.0.2.1", "z9hG4bKbye", 2, &to, ""));
    let Event::Request { tx, dialog: Some(of), request, .. } = trace.event(1_000) else { panic!() };
    assert_eq!((of, request.method), (dialog, Method::Bye));
    trace.does(1_000, |endpoint, now| endpoint.respond(tx, None, Reply::new(200), now)).unwrap();
    trace.goes(1_000, "200");
    trace.ends();
}
