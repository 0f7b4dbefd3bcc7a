//! Digits between parties that speak different forms of DTMF (spec/sip.md §7): what each is sent.

use crate::call_world::*;
use stickytape::bridge::command::{Command, Digit, Digits, Notice};
use stickytape::call::Input;
use stickytape::call::options::Dtmf;
use stickytape::call::request::{Accepted, Ask, Code, Denied, Request as Asked, Ticket};
use stickytape::id::LegId;
use stickytape::sip::message::{Request, Response};
use stickytape::sip::method::Method;
use stickytape::sip::name::Name;

const A: usize = 0;
const B: usize = 1;

/// 2001 and 2002 talk.
struct Talk {
    world: World,
    invite: Request,
    ok: Response,
    received: Request,
}

/// `payloads` and `allow` are of 2002's answer, `dtmf` is 2002's.
fn talk(payloads: &str, allow: Option<&'static str>, dtmf: Dtmf) -> Talk {
    let mut options = options();
    options.plan.dns[1].dtmf = dtmf;
    let mut world = World::new(options);
    world.raw("10.0.0.1:5060");
    world.raw("10.0.0.2:5060");
    let mut invite = world.raws[A].invite("2002", "c", Some(&sdp("10.0.0.1", 4000, "0 8 101", "sendrecv")));
    invite.headers.set(Name::From, "<sip:2001@10.0.0.1>;tag=fc");
    world.raws[A].send(invite.clone());
    world.run(ms(50));
    let received = world.raws[B].requests(Method::Invite).remove(0);
    let mut ok = world.raws[B].reply(&received, 200, "b", Some(&sdp("10.0.0.2", 5000, payloads, "sendrecv")));
    if let Some(allow) = allow {
        ok.headers.push(Name::Allow, allow);
    }
    world.raws[B].send(ok);
    world.run(ms(50));
    let ok = world.raws[A].responses("INVITE").into_iter().find(|r| r.code == 200).unwrap();
    let ack = world.raws[A].in_dialog(&invite, &ok, Method::Ack, 1);
    world.raws[A].send(ack);
    world.run(ms(50));
    Talk { world, invite, ok, received }
}

impl Talk {
    /// 2001 sends a digit as INFO.
    fn info(&mut self, body: &'static str) {
        let mut info = self.world.raws[A].in_dialog(&self.invite, &self.ok, Method::Info, 2);
        info.headers.push(Name::ContentType, "application/dtmf-relay");
        info.body = body.into();
        self.world.raws[A].send(info);
        self.world.run(ms(50));
    }

    /// The media thread tells of a digit of 2001.
    fn digit(&mut self, key: char) {
        let worker = self.world.proxy.commands[0].0;
        let length = ms(120);
        let notice = Notice::Digit { leg: LegId(1), digit: Digit::of_key(key).unwrap(), length };
        self.world.tell(Input::Media(worker, notice));
        self.world.run(ms(50));
    }

    fn pressed(&self) -> Vec<(LegId, char, u64)> {
        let pressed = |command: &Command| match command {
            Command::Press { leg, digit, length } => Some((*leg, digit.key(), length.as_millis() as u64)),
            _ => None,
        };
        self.world.proxy.commands.iter().filter_map(|(_, command)| pressed(command)).collect()
    }

    /// A request presses keys for a DN.
    fn send(&mut self, dn: &str, keys: &str) -> Result<Accepted, Denied> {
        let world = &mut self.world;
        let ticket = Ticket(world.proxy.answers.len() as u64 + 1);
        let conn_id = world.proxy.calls.snapshot()[0].conn_id;
        let digits = keys.chars().map(|key| Digit::of_key(key).unwrap()).collect();
        let request = Asked { conn_id, this_dn: dn.into(), reference: None, ask: Ask::SendDtmf { digits } };
        world.tell(Input::Request(ticket, Box::new(request)));
        world.run(ms(0));
        world.proxy.answers.iter().find(|(t, _)| *t == ticket).expect("answered at once").1.clone()
    }

    /// 2002 holds, and 2001 agrees.
    fn hold(&mut self) {
        let mut hold = self.world.raws[B].as_callee(&self.received, "b", Method::Invite, 2);
        hold.headers.push(Name::ContentType, "application/sdp");
        hold.body = sdp("10.0.0.2", 5000, "0", "sendonly").into();
        self.world.raws[B].send(hold);
        self.world.run(ms(50));
        let passed = self.world.raws[A].requests(Method::Invite).remove(0);
        let answer = sdp("10.0.0.1", 4000, "0 101", "recvonly");
        let ok = self.world.raws[A].reply(&passed, 200, "", Some(&answer));
        self.world.raws[A].send(ok);
        self.world.run(ms(50));
    }

    fn notices_wanted(&self) -> bool {
        let wanted =
            |command: &Command| matches!(command, Command::Digits { leg, to: Digits::Notice } if *leg == LegId(2));
        self.world.proxy.commands.iter().any(|(_, command)| wanted(command))
    }

    fn infos(&self) -> Vec<String> {
        let infos = self.world.raws[B].requests(Method::Info);
        infos.iter().map(|info| String::from_utf8_lossy(&info.body).into_owned()).collect()
    }

    /// 2002 answers what has not been answered, and hangs up.
    fn finish(mut self) {
        for info in self.world.raws[B].requests(Method::Info) {
            let ok = self.world.raws[B].reply(&info, 200, "", None);
            self.world.raws[B].send(ok);
        }
        self.world.run(ms(50));
        let bye = self.world.raws[B].as_callee(&self.received, "b", Method::Bye, 9);
        self.world.raws[B].send(bye);
        self.world.run(ms(50));
        let bye = self.world.raws[A].requests(Method::Bye).remove(0);
        let ok = self.world.raws[A].reply(&bye, 200, "", None);
        self.world.raws[A].send(ok);
        self.world.settle();
    }
}

const WITH_INFO: Option<&str> = Some("INVITE, ACK, BYE, CANCEL, INFO");
const WITHOUT_INFO: Option<&str> = Some("INVITE, ACK, BYE, CANCEL");

#[test]
fn telephone_events_become_info_for_a_party_without_them_that_wants_info() {
    let mut talk = talk("0", WITH_INFO, Dtmf::Info);
    assert!(String::from_utf8_lossy(&talk.ok.body).contains("telephone-event"), "the caller may press keys");
    assert!(talk.notices_wanted());
    talk.digit('#');
    assert_eq!(talk.infos(), ["Signal=#\r\nDuration=120\r\n"]);
    let info = talk.world.raws[B].requests(Method::Info).remove(0);
    assert_eq!(info.headers.get(Name::ContentType).as_deref(), Some(&b"application/dtmf-relay"[..]));
    talk.finish();
}

#[test]
fn a_party_that_wants_info_but_does_not_allow_it_or_has_events_is_not_told_by_info() {
    for (payloads, allow, dtmf) in
        [("0", WITHOUT_INFO, Dtmf::Info), ("0", None, Dtmf::Info), ("0", WITH_INFO, Dtmf::Rfc4733)]
    {
        let talk = talk(payloads, allow, dtmf);
        assert!(!talk.notices_wanted(), "the media thread plays a tone: {allow:?} {dtmf:?}");
        assert!(String::from_utf8_lossy(&talk.ok.body).contains("telephone-event"));
        talk.finish();
    }
}

#[test]
fn a_digit_that_comes_as_info_is_pressed_for_a_party_that_does_not_allow_info() {
    for payloads in ["0 101", "0"] {
        let mut talk = talk(payloads, WITHOUT_INFO, Dtmf::Rfc4733);
        talk.info("Signal=7\r\nDuration=200\r\n");
        assert_eq!(talk.pressed(), [(LegId(2), '7', 200)]);
        assert_eq!(talk.world.raws[A].codes("INFO"), [200]);
        assert!(talk.infos().is_empty());
        let told = format!("{:?}", talk.world.proxy.commands.last());
        assert!(told.contains("Press") && !told.contains('7'), "{told}");
        talk.finish();
    }
}

#[test]
fn a_digit_that_comes_as_info_goes_on_as_info_to_a_party_that_allows_it() {
    let mut talk = talk("0 101", WITH_INFO, Dtmf::Rfc4733);
    talk.info("Signal=7\r\nDuration=200\r\n");
    assert_eq!((talk.pressed(), talk.infos()), (vec![], vec!["Signal=7\r\nDuration=200\r\n".to_owned()]));
    talk.finish();
}

#[test]
fn digits_go_to_nobody_while_the_other_party_holds() {
    let mut talk = talk("0", WITH_INFO, Dtmf::Info);
    talk.hold();
    talk.digit('1');
    talk.info("Signal=7");
    assert_eq!((talk.pressed(), talk.infos()), (vec![], Vec::<String>::new()));
    talk.finish();
}

#[test]
fn digits_that_a_peer_does_not_answer_are_dropped_after_sixteen_and_it_is_said() {
    let mut talk = talk("0", WITH_INFO, Dtmf::Info);
    for _ in 0..18 {
        talk.digit('1');
    }
    let mut calls: Vec<String> =
        talk.world.raws[B].requests(Method::Info).iter().map(|info| text(info.headers.get(Name::CSeq))).collect();
    calls.sort();
    calls.dedup();
    assert_eq!(calls.len(), 16);
    assert!(talk.world.proxy.has_fact("warning a digit is dropped: a peer does not answer earlier ones"));
    talk.finish();
}

#[test]
fn what_a_request_presses_comes_one_after_the_other_in_the_form_that_the_other_party_takes() {
    for (payloads, allow, dtmf, by_info) in [
        ("0 101", WITH_INFO, Dtmf::Rfc4733, false),
        ("0 101", WITH_INFO, Dtmf::Info, false),
        ("0", WITH_INFO, Dtmf::Info, true),
        ("0", WITHOUT_INFO, Dtmf::Info, false),
    ] {
        let mut talk = talk(payloads, allow, dtmf);
        let facts = talk.world.proxy.facts.len();
        talk.send("2001", "1#").expect("accepted");
        let (first, second): (Vec<_>, Vec<_>) = match by_info {
            true => (vec![], vec![]),
            false => (vec![(LegId(2), '1', 100)], vec![(LegId(2), '1', 100), (LegId(2), '#', 100)]),
        };
        assert_eq!(talk.pressed(), first, "{payloads} {allow:?} {dtmf:?}");
        talk.world.run(ms(190));
        assert_eq!(talk.pressed(), first, "100 ms and a pause of 100 ms");
        talk.world.run(ms(60));
        assert_eq!(talk.pressed(), second);
        let infos = ["Signal=1\r\nDuration=100\r\n", "Signal=#\r\nDuration=100\r\n"];
        assert_eq!(talk.infos(), if by_info { infos.to_vec() } else { vec![] });
        talk.world.run(ms(1_000));
        assert_eq!(talk.pressed(), second, "and no more");
        assert_eq!(talk.world.proxy.facts.len(), facts, "nobody is told");
        talk.finish();
    }
}

#[test]
fn both_parties_may_press_by_request_and_digits_are_printed_nowhere() {
    let mut talk = talk("0 101", None, Dtmf::Rfc4733);
    talk.send("2002", "5").expect("accepted");
    assert_eq!(talk.pressed(), [(LegId(1), '5', 100)]);
    let asked = Ask::SendDtmf { digits: vec![Digit::of_key('5').unwrap()] };
    assert!(!format!("{asked:?}").contains('5'), "{asked:?}");
    talk.world.run(ms(300));
    talk.finish();
}

#[test]
fn digits_by_request_are_refused_where_nobody_would_hear_them() {
    let mut talk = talk("0 101", None, Dtmf::Rfc4733);
    talk.hold();
    let held = talk.send("2001", "1").expect_err("refused");
    assert_eq!((held.code, held.state.as_str()), (Code::WrongState, "held"));
    assert_eq!(talk.send("2003", "1").expect_err("refused").code, Code::NotAParty);
    assert!(talk.pressed().is_empty());
    talk.finish();
}

#[test]
fn digits_by_request_that_were_not_pressed_are_dropped_when_the_parties_part() {
    let mut talk = talk("0 101", None, Dtmf::Rfc4733);
    talk.send("2001", "123").expect("accepted");
    talk.world.run(ms(110));
    talk.hold();
    talk.world.run(ms(1_000));
    assert_eq!(talk.pressed().len(), 1, "{:?}", talk.pressed());
    assert!(talk.world.proxy.has_fact("warning digits by request are dropped: the parties do not talk"));
    talk.finish();
}

#[test]
fn more_digits_by_request_wait_and_too_many_are_refused() {
    let mut talk = talk("0 101", None, Dtmf::Rfc4733);
    let full = "1".repeat(Ask::MAX_DIGITS);
    talk.send("2001", &full).expect("the first is pressed at once");
    talk.send("2001", &full).expect("63 wait");
    assert_eq!(talk.send("2001", "22").expect_err("refused").code, Code::Busy);
    talk.send("2001", "2").expect("64 wait");
    talk.world.run(ms(30_000));
    let keys: String = talk.pressed().iter().map(|(_, key, _)| *key).collect();
    assert_eq!(keys, "1".repeat(64) + "2");
    talk.finish();
}
