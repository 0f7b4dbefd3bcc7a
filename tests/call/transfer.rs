//! Transfers in virtual time: blind, attended, semi-attended, by request, and everything that can come between
//! (spec/recording.md §4.2, spec/sip.md §5).

use std::time::Duration;

use crate::call_world::*;
use stickytape::bridge::command::{Command, Notice};
use stickytape::call::Input;
use stickytape::call::options::{DefaultOwner, OnTransfer, Options, RouteTarget};
use stickytape::call::request::{Accepted, Ask, Code, Denied, Request as Asked, Ticket};
use stickytape::id::{ConnId, LegId};
use stickytape::record::mark::StopCause;
use stickytape::sip::name::Name;
use stickytape::testing::phone::{Action, Happening, HoldForm, Incoming, Leave, Refer};

const D1: usize = 0;
const D2: usize = 1;
const D3: usize = 2;

/// Phones 2001, 2002, 2003; the first calls the second.
fn world(change: impl FnOnce(&mut Options)) -> World {
    let mut options = options();
    change(&mut options);
    let mut world = World::new(options);
    for n in 1..=3 {
        world.phone(n, |o| o.lines = 2);
    }
    world
}

fn talking(change: impl FnOnce(&mut Options)) -> World {
    let mut world = world(change);
    world.act(D1, Action::call("2002"));
    world.run(ms(1_000));
    assert!(world.phones[D1].is_talking() && world.phones[D2].is_talking());
    world
}

fn refer(to: &str, leave: Leave) -> Action {
    Action::Refer(Refer { leave, ..Refer::to(to) })
}

/// Status codes that a phone was notified of, and `end` where the subscription ended.
fn notified(world: &World, phone: usize) -> Vec<String> {
    let told = |what: &Happening| match what {
        Happening::Notified { code, state } if state == "terminated" => Some(format!("{code} end")),
        Happening::Notified { code, .. } => Some(code.to_string()),
        Happening::ReferRefused { code } => Some(format!("refused {}", code.unwrap_or(0))),
        _ => None,
    };
    world.phones[phone].happenings().iter().filter_map(|h| told(&h.what)).collect()
}

fn conn_id(world: &World) -> ConnId {
    world.proxy.calls.snapshot()[0].conn_id
}

fn ask(world: &mut World, conn_id: ConnId, dn: &str, ask: Ask) -> Result<Accepted, Denied> {
    let ticket = Ticket(world.proxy.answers.len() as u64 + 1);
    let request = Asked { conn_id, this_dn: dn.to_owned(), reference: None, ask };
    world.tell(Input::Request(ticket, Box::new(request)));
    let (answered, answer) = world.proxy.answers.last().expect("answered at once").clone();
    assert_eq!(answered, ticket);
    answer
}

fn facts_from(world: &World, first: &str) -> Vec<String> {
    let story = world.proxy.story();
    let at = story.iter().position(|s| s.starts_with(first)).unwrap_or_else(|| panic!("no {first} in {story:?}"));
    story[at..].to_vec()
}

fn causes(world: &World) -> Vec<StopCause> {
    world.proxy.stops().into_iter().map(|(_, cause)| cause).collect()
}

#[test]
fn a_blind_transfer_keeps_the_recording_of_the_party_that_stays() {
    for leave in [Leave::AtOnce, Leave::WhenDone, Leave::Never] {
        let mut world = talking(|_| {});
        world.act(D2, refer("2003", leave));
        world.run(ms(3_500));
        assert!(world.phones[D1].is_talking() && world.phones[D3].is_talking(), "{leave:?}");
        assert!(world.phones[D2].is_idle(), "{leave:?}");
        let notified = notified(&world, D2);
        match leave {
            Leave::AtOnce => assert!(notified.len() <= 1, "{notified:?}"),
            _ => assert_eq!(notified, ["100", "180", "200 end"], "{leave:?}"),
        }
        assert_eq!(world.proxy.starts().len(), 1);
        assert_eq!(world.proxy.stops().len(), 0, "the owner D1 stays");
        world.act(D3, Action::HangUp);
        world.run(ms(500));
        assert!(world.phones[D1].is_idle());
        assert_eq!(causes(&world), [StopCause::Released]);
        world.settle();
    }
}

#[test]
fn the_transferor_s_recording_ends_when_the_others_are_bridged_or_when_it_hangs_up_before() {
    for (leave, on, stops) in [
        (Leave::Never, OnTransfer::Terminate, StopCause::OwnerLeft),
        (Leave::AtOnce, OnTransfer::Terminate, StopCause::OwnerLeft),
        (Leave::Never, OnTransfer::Maintain, StopCause::Released),
        (Leave::AtOnce, OnTransfer::Maintain, StopCause::Released),
    ] {
        let mut world = talking(|o| {
            o.recording.default = DefaultOwner::Termination;
            o.recording.termination_on_transfer = on;
        });
        world.act(D2, refer("2003", leave));
        world.run(ms(1_000));
        let stopped = world.proxy.stops().len();
        assert_eq!(stopped, usize::from(on == OnTransfer::Terminate), "{leave:?} {on:?}");
        assert_eq!(world.proxy.story().iter().any(|s| s.starts_with("owner ")), on == OnTransfer::Maintain);
        world.run(ms(2_000));
        world.act(D1, Action::HangUp);
        world.run(ms(500));
        assert_eq!(causes(&world), [stops], "{leave:?} {on:?}");
        world.settle();
    }
}

#[test]
fn both_legs_recorded_end_one_and_keep_one_and_a_recorded_target_starts_its_own() {
    let mut world = talking(|o| {
        o.recording.default = DefaultOwner::Both;
        o.recording.termination_on_transfer = OnTransfer::Maintain;
        o.plan.dns[2].record = Some(true);
    });
    assert_eq!(world.proxy.starts().len(), 2);
    world.act(D2, refer("2003", Leave::Never));
    world.run(ms(1_000));
    // The one that stays has a session of its own: the transferor's ends.
    assert_eq!(causes(&world), [StopCause::OwnerLeft]);
    let starts = world.proxy.starts();
    assert_eq!((starts.len(), starts[2].1.trigger.as_str(), starts[2].1.owner_dn.as_deref()), (3, "dn", Some("2003")));
    assert_eq!(starts[2].0, world.proxy.stops()[0].0, "at the instant of the bridging");
    world.act(D3, Action::HangUp);
    world.run(ms(3_000));
    assert_eq!(causes(&world), [StopCause::OwnerLeft, StopCause::Released, StopCause::Released]);
    world.settle();
}

#[test]
fn a_target_that_fails_leaves_the_call_as_it_was_and_the_transferor_is_told_why() {
    for (incoming, target, code) in [
        (Incoming::Refuse(486), "2003", "486 end"),
        (Incoming::Refuse(603), "2003", "603 end"),
        (Incoming::Refuse(503), "2003", "500 end"),
        (Incoming::Manual, "2019", "408 end"),
    ] {
        let mut world = world(|_| {});
        world.phones.pop();
        world.phone(3, |o| o.incoming = incoming);
        world.act(D1, Action::call("2002"));
        world.run(ms(1_000));
        world.act(D2, refer(target, Leave::WhenDone));
        world.run(Duration::from_secs(6));
        assert_eq!(notified(&world, D2).last().map(String::as_str), Some(code), "{incoming:?}");
        assert!(world.phones[D1].is_talking() && world.phones[D2].is_talking());
        assert!(world.proxy.stops().is_empty());
        assert_eq!(world.proxy.calls.snapshot()[0].state, "talking");
        let last = world.proxy.mark_story().into_iter().rfind(|m| m.starts_with("conversation"));
        assert_eq!(last.as_deref(), Some("conversation [1, 2] early=false"));
        assert_routed(&world, 1, 2);
        world.act(D2, Action::HangUp);
        world.settle();
    }
}

#[test]
fn a_subscription_to_a_refer_lasts_longer_than_its_target_may_ring() {
    let mut world = world(|o| o.sip.ring_timeout = Duration::from_secs(120));
    world.act(D1, Action::call("2002"));
    world.run(ms(1_000));
    world.act(D2, refer("2003", Leave::WhenDone));
    world.run(ms(1_000));
    let told: Vec<String> = world.phones[D2]
        .requests()
        .iter()
        .filter_map(|r| r.headers.get(Name::SubscriptionState))
        .map(|state| String::from_utf8_lossy(&state).into_owned())
        .collect();
    assert_eq!(told, ["active;expires=152", "active;expires=152", "terminated;reason=noresource"]);
    world.act(D1, Action::HangUp);
    world.settle();
}

/// The last routes of both legs lead to each other.
#[track_caller]
fn assert_routed(world: &World, a: u64, b: u64) {
    for (from, to) in [(a, b), (b, a)] {
        let routes: Vec<String> =
            world.proxy.commands_of(LegId(from)).into_iter().filter(|c| c.starts_with("route")).collect();
        assert_eq!(routes.last(), Some(&format!("route to {to}")), "leg {from}: {routes:?}");
    }
}

#[test]
fn a_ring_timeout_of_the_target_restores_the_call() {
    let mut world = world(|o| o.sip.ring_timeout = Duration::from_secs(5));
    world.phones.pop();
    world.phone(3, |o| o.incoming = Incoming::Answer { ring: ms(10), answer: Duration::from_secs(60) });
    world.act(D1, Action::call("2002"));
    world.run(ms(1_000));
    world.act(D2, refer("2003", Leave::Never));
    world.run(Duration::from_secs(7));
    assert_eq!(notified(&world, D2), ["100", "180", "480 end"]);
    assert!(world.phones[D1].is_talking() && world.phones[D2].is_talking() && world.phones[D3].is_idle());
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn with_the_transferor_gone_a_failed_target_ends_the_call_and_says_why() {
    let mut world = world(|_| {});
    world.phones.pop();
    world.phone(3, |o| o.incoming = Incoming::Manual);
    world.act(D1, Action::call("2002"));
    world.run(ms(1_000));
    world.act(D2, refer("2003", Leave::AtOnce));
    world.run(ms(500));
    assert!(world.phones[D2].is_idle() && world.phones[D1].is_talking());
    world.act(D3, Action::Refuse { code: 486, headers: vec![] });
    world.run(ms(500));
    assert!(world.phones[D1].is_idle());
    let bye = world.phones[D1].requests().iter().find(|r| r.method.as_str() == "BYE").unwrap();
    assert_eq!(text(bye.headers.get(stickytape::sip::name::Name::Reason)), "SIP;cause=486");
    let story = facts_from(&world, "transfer single-step");
    assert_eq!(story, ["transfer single-step", "left 2", "transfer failed busy", "stopped Released", "released busy"]);
    world.settle();
}

#[test]
fn while_the_target_is_called_nobody_is_bridged_and_who_stays_hears_ringback() {
    let mut world = world(|_| {});
    world.phones.pop();
    world.phone(3, |o| o.incoming = Incoming::Manual);
    world.act(D1, Action::call("2002"));
    world.run(ms(1_000));
    world.act(D2, refer("2003", Leave::Never));
    world.run(ms(200));
    let plays = |world: &World, leg| world.proxy.commands_of(LegId(leg)).into_iter().filter(|c| c == "play").count();
    assert_eq!((plays(&world, 1), plays(&world, 2)), (1, 1), "silence for both");
    world.act(D3, Action::Ring);
    world.run(ms(200));
    assert_eq!((plays(&world, 1), plays(&world, 2)), (2, 1), "ringback for the one that stays");
    world.act(D3, Action::Answer);
    world.run(ms(200));
    assert_eq!(plays(&world, 1), 3, "it ends");
    assert_routed(&world, 1, 3);
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn early_media_of_the_target_is_heard_instead_of_ringback() {
    let mut world = world(|_| {});
    world.phones.pop();
    world.phone(3, |o| o.incoming = Incoming::Manual);
    world.act(D1, Action::call("2002"));
    world.run(ms(1_000));
    world.act(D2, refer("2003", Leave::Never));
    world.run(ms(200));
    world.act(D3, Action::EarlyMedia);
    world.run(ms(200));
    let routes = world.proxy.commands_of(LegId(3));
    assert!(routes.contains(&"route to 1".to_owned()), "{routes:?}");
    let back: Vec<String> = world.proxy.commands_of(LegId(1)).into_iter().filter(|c| c == "route to 3").collect();
    assert!(back.is_empty(), "nobody speaks to a target that has not answered");
    world.act(D3, Action::Answer);
    world.run(ms(200));
    assert_routed(&world, 1, 3);
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn an_attended_transfer_joins_two_calls_and_ends_both_of_the_transferor_s() {
    for (held_first, on_consult) in [(false, false), (true, false)] {
        let mut world = talking(|o| o.recording.default = DefaultOwner::Both);
        if held_first {
            world.act(D2, Action::Hold(HoldForm::SendOnly));
            world.run(ms(300));
        }
        world.act(D2, Action::on(1, Action::call("2003")));
        world.run(ms(1_000));
        assert_eq!(world.proxy.calls.snapshot().len(), 2);
        let (on, names) = if on_consult { (1, 0) } else { (0, 1) };
        world.act(D2, Action::on(on, Action::Refer(Refer::to_line(names))));
        world.run(ms(3_500));
        assert!(world.phones[D1].is_talking() && world.phones[D3].is_talking(), "held {held_first}");
        assert!(world.phones[D2].is_idle());
        assert_eq!(world.proxy.calls.snapshot().len(), 1);
        assert_eq!(notified(&world, D2), ["100", "200 end"]);
        world.act(D1, Action::HangUp);
        world.run(ms(500));
        assert!(world.phones[D3].is_idle());
        world.settle();
    }
}

#[test]
fn a_leg_on_another_media_thread_moves_before_it_is_bridged() {
    let mut world = talking(|_| {});
    world.act(D2, Action::Hold(HoldForm::SendOnly));
    world.run(ms(300));
    world.act(D2, Action::on(1, Action::call("2003")));
    world.run(ms(1_000));
    world.act(D2, Action::Refer(Refer::to_line(1)).at(0));
    world.run(ms(3_000));
    let threads: Vec<(u64, u8)> = world
        .proxy
        .commands
        .iter()
        .filter_map(|(worker, c)| match c {
            Command::Route { from, to: Some(_) } => Some((from.0, worker.0)),
            _ => None,
        })
        .collect();
    let last = |leg| threads.iter().rfind(|(l, _)| *l == leg).map(|(_, w)| *w);
    assert_eq!(last(1), last(4), "bridged on one thread: {threads:?}");
    world.act(D1, Action::HangUp);
    world.settle();
}

trait At {
    fn at(self, line: usize) -> Action;
}

impl At for Action {
    fn at(self, line: usize) -> Action {
        Action::on(line, self)
    }
}

#[test]
fn a_semi_attended_transfer_takes_the_ringing_target_over() {
    let mut world = world(|_| {});
    world.phones.pop();
    world.phone(3, |o| o.incoming = Incoming::Manual);
    world.act(D1, Action::call("2002"));
    world.run(ms(1_000));
    world.act(D2, Action::Hold(HoldForm::SendOnly));
    world.run(ms(300));
    world.act(D2, Action::call("2003").at(1));
    world.run(ms(200));
    world.act(D3, Action::Ring);
    world.run(ms(200));
    world.act(D2, Action::Refer(Refer { leave: Leave::AtOnce, ..Refer::to_line(1) }).at(0));
    world.run(ms(500));
    assert!(world.phones[D2].is_idle(), "{:?}", world.phones[D2].happenings());
    world.act(D3, Action::Answer);
    world.run(ms(1_000));
    assert!(world.phones[D1].is_talking() && world.phones[D3].is_talking());
    assert_eq!(world.proxy.calls.snapshot().len(), 1);
    world.act(D3, Action::HangUp);
    world.settle();
}

#[test]
fn what_is_no_proper_refer_is_refused() {
    let table: &[(&[(&str, &str)], u16)] = &[
        (&[], 400),
        (&[("Refer-To", "<sip:2003@192.0.2.1>"), ("Refer-To", "<sip:2001@192.0.2.1>")], 400),
        (&[("Refer-To", "<sip:2003@192.0.2.1")], 400),
        (&[("Refer-To", "<http://example.org>")], 416),
        (&[("Refer-To", "<sip:2003@192.0.2.1;method=BYE>")], 501),
        (&[("Refer-To", "<sip:7777@192.0.2.1>")], 404),
        (&[("Refer-To", "<sip:2003@203.0.113.99>")], 404),
    ];
    for (headers, code) in table {
        let mut world = talking(|_| {});
        let lines = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned().into())).collect();
        world.act(D2, Action::Request { method: stickytape::sip::method::Method::Refer, headers: lines, body: None });
        world.run(ms(500));
        let found = world.phones[D2].happenings().iter().find_map(|h| match &h.what {
            Happening::Responded { code, .. } => *code,
            _ => None,
        });
        assert_eq!(found, Some(*code), "{headers:?}");
        assert_eq!(world.proxy.calls.snapshot()[0].state, "talking");
        world.act(D1, Action::HangUp);
        world.settle();
    }
}

#[test]
fn a_second_refer_while_one_runs_is_refused_and_changes_nothing() {
    let mut world = world(|_| {});
    world.phones.pop();
    world.phone(3, |o| o.incoming = Incoming::Manual);
    world.act(D1, Action::call("2002"));
    world.run(ms(1_000));
    world.act(D2, refer("2003", Leave::Never));
    world.run(ms(100));
    world.act(D1, refer("2003", Leave::Never));
    world.run(ms(100));
    assert_eq!(notified(&world, D1), ["refused 491"]);
    world.act(D3, Action::Answer);
    world.run(ms(3_000));
    assert!(world.phones[D1].is_talking() && world.phones[D3].is_talking());
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn a_trunk_transfers_only_when_it_may() {
    for may in [false, true] {
        let mut options = options();
        options.plan.trunks[0].transfer = may;
        let mut world = World::new(options);
        let phone = |n: u8, o: &mut stickytape::testing::phone::Options| {
            o.sip = addr(&format!("198.51.100.{n}:5060"));
            o.rtp = addr(&format!("198.51.100.{n}:4000"));
        };
        world.phone(10, |o| phone(10, o));
        world.phone(2, |_| {});
        world.phone(3, |_| {});
        world.act(D1, Action::call("2002"));
        world.run(ms(1_000));
        world.act(D1, refer("2003", Leave::Never));
        world.run(ms(3_000));
        if may {
            assert_eq!(notified(&world, D1).last().map(String::as_str), Some("200 end"));
            assert!(world.phones[D2].is_talking() && world.phones[D3].is_talking());
        } else {
            assert_eq!(notified(&world, D1), ["refused 403"]);
        }
        world.act(D2, Action::HangUp);
        world.settle();
    }
}

#[test]
fn the_target_is_told_who_calls_and_who_has_referred() {
    let mut world = talking(|_| {});
    world.act(D2, refer("2003", Leave::Never));
    world.run(ms(1_000));
    let invite = world.phones[D3].requests().iter().find(|r| r.method.as_str() == "INVITE").unwrap().clone();
    let header = |name| text(invite.headers.get(name));
    use stickytape::sip::name::Name;
    assert!(header(Name::From).contains("2001@"), "{}", header(Name::From));
    assert!(header(Name::ReferredBy).contains("2002@"), "{}", header(Name::ReferredBy));
    assert_eq!(header(Name::Diversion), "", "for trunks only");
    assert_eq!(header(Name::XStickytapeConnId), conn_id(&world).to_string());
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn a_transfer_to_a_trunk_says_who_has_diverted() {
    let mut world = world(|o| {
        let pattern = regex::Regex::new("^0").unwrap();
        o.plan.routes = vec![stickytape::call::options::Route {
            from: None,
            pattern,
            to: RouteTarget::Trunk("carrier".into()),
            rewrite: None,
            record: None,
            required: false,
            origin: None,
        }];
    });
    let carrier = world.raw("198.51.100.10:5060");
    world.act(D1, Action::call("2002"));
    world.run(ms(1_000));
    world.act(D2, refer("0301234", Leave::Never));
    world.run(ms(200));
    let invite = world.raws[carrier].requests(stickytape::sip::method::Method::Invite).remove(0);
    use stickytape::sip::name::Name;
    let diversion = text(invite.headers.get(Name::Diversion));
    assert!(diversion.contains("2002@") && diversion.ends_with(";reason=deflection"), "{diversion}");
    assert_eq!(text(invite.headers.get(Name::XStickytapeConnId)), "");
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn every_crossing_of_hang_ups_leaves_nothing_behind() {
    // Who hangs up how long after the REFER, with a target that rings for 300 ms.
    for who in [D1, D2, D3] {
        for after in (0..500).step_by(23) {
            let mut world = world(|_| {});
            world.phones.pop();
            world.phone(3, |o| o.incoming = Incoming::Answer { ring: ms(50), answer: ms(300) });
            world.act(D1, Action::call("2002"));
            world.run(ms(1_000));
            world.act(D2, refer("2003", Leave::WhenDone));
            world.run(ms(after));
            world.act(who, Action::HangUp);
            world.run(ms(4_000));
            match who {
                D2 => assert!(world.phones[D1].is_talking() && world.phones[D3].is_talking(), "{after} ms"),
                _ => assert!(world.phones.iter().filter(|p| p.is_talking()).count() != 1, "{who} {after} ms"),
            }
            for phone in [D1, D2, D3] {
                world.act(phone, Action::HangUp);
            }
            world.settle();
        }
    }
}

#[test]
fn requests_transfer_hold_consult_and_come_back() {
    let mut world = talking(|_| {});
    let c1 = conn_id(&world);
    assert_eq!(ask(&mut world, c1, "2002", Ask::HoldCall).unwrap().conn_id, c1);
    assert_eq!(ask(&mut world, c1, "2002", Ask::HoldCall).unwrap_err().code, Code::WrongState);
    assert_eq!(ask(&mut world, c1, "2002", Ask::RetrieveCall).unwrap().conn_id, c1);
    let denied = ask(&mut world, c1, "2002", Ask::RetrieveCall).unwrap_err();
    assert_eq!((denied.code, denied.state.as_str()), (Code::WrongState, "talking"));
    assert_eq!(ask(&mut world, c1, "2099", Ask::HoldCall).unwrap_err().code, Code::UnknownDn);
    assert_eq!(ask(&mut world, c1, "2005", Ask::HoldCall).unwrap_err().code, Code::NotAParty);
    assert_eq!(ask(&mut world, ConnId(1), "2002", Ask::HoldCall).unwrap_err().code, Code::UnknownCall);
    assert_eq!(ask(&mut world, ConnId(1), "2099", Ask::HoldCall).unwrap_err().code, Code::UnknownDn, "before the call");
    let nowhere = Ask::SingleStepTransfer { to: "7777".into() };
    assert_eq!(ask(&mut world, c1, "2002", nowhere).unwrap_err().code, Code::UnknownTarget);
    let itself = || "2002".to_owned();
    for to_itself in [
        Ask::SingleStepTransfer { to: itself() },
        Ask::InitiateTransfer { to: itself() },
        Ask::MuteTransfer { to: itself() },
    ] {
        let denied = ask(&mut world, c1, "2002", to_itself).unwrap_err();
        assert_eq!((denied.code, denied.detail.as_str()), (Code::UnknownTarget, "OtherDN is ThisDN itself"));
    }

    let c2 = ask(&mut world, c1, "2002", Ask::InitiateTransfer { to: "2003".into() }).unwrap().conn_id;
    assert_ne!(c1, c2);
    world.run(ms(1_000));
    assert!(world.phones[D3].is_talking());
    ask(&mut world, c2, "2002", Ask::AlternateCall { other: None }).unwrap();
    ask(&mut world, c2, "2002", Ask::AlternateCall { other: None }).unwrap();
    ask(&mut world, c2, "2002", Ask::ReconnectCall { other: None }).unwrap();
    world.run(ms(500));
    assert!(world.phones[D3].is_idle() && world.phones[D1].is_talking());
    assert_routed(&world, 1, 2);

    let c3 = ask(&mut world, c1, "2002", Ask::InitiateTransfer { to: "2003".into() }).unwrap().conn_id;
    world.run(ms(1_000));
    ask(&mut world, c3, "2002", Ask::CompleteTransfer { other: None }).unwrap();
    world.run(ms(500));
    assert!(world.phones[D1].is_talking() && world.phones[D3].is_talking() && world.phones[D2].is_idle());
    assert_eq!(world.proxy.stops().len(), 0);
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn a_consultation_that_is_busy_stays_held_and_one_that_fails_otherwise_is_retrieved() {
    for (code, held) in [(486, true), (600, true), (603, false), (404, false)] {
        let mut world = world(|_| {});
        world.phones.pop();
        world.phone(3, |o| o.incoming = Incoming::Refuse(code));
        world.act(D1, Action::call("2002"));
        world.run(ms(1_000));
        let c1 = conn_id(&world);
        ask(&mut world, c1, "2002", Ask::InitiateTransfer { to: "2003".into() }).unwrap();
        world.run(ms(500));
        let state = world.proxy.calls.snapshot()[0].state;
        assert_eq!(state, if held { "held" } else { "talking" }, "{code}");
        assert_eq!(ask(&mut world, c1, "2002", Ask::RetrieveCall).is_ok(), held, "{code}");
        assert_routed(&world, 1, 2);
        world.act(D1, Action::HangUp);
        world.settle();
    }
}

#[test]
fn each_of_three_parties_may_leave_a_consultation_at_any_moment() {
    for who in [D1, D2, D3] {
        for after in (0..700).step_by(31) {
            let mut world = talking(|o| o.recording.default = DefaultOwner::Both);
            let c1 = conn_id(&world);
            ask(&mut world, c1, "2002", Ask::InitiateTransfer { to: "2003".into() }).unwrap();
            world.run(ms(after));
            world.act(who, Action::HangUp);
            world.run(ms(2_000));
            let talking: Vec<usize> = (0..3).filter(|p| world.phones[*p].is_talking()).collect();
            match who {
                D1 => assert_eq!(talking, [D2, D3], "{after} ms"),
                D2 => assert!(talking.is_empty(), "{talking:?} {after} ms"),
                _ => assert!(talking == [D1, D2] || talking == [D1, D2, D3], "{talking:?} {after} ms"),
            }
            for phone in [D1, D2, D3] {
                world.act(phone, Action::HangUp);
            }
            world.settle();
        }
    }
}

#[test]
fn a_mute_transfer_connects_without_the_agent_hearing_the_target() {
    let mut world = talking(|_| {});
    let c1 = conn_id(&world);
    ask(&mut world, c1, "2002", Ask::MuteTransfer { to: "2003".into() }).unwrap();
    world.run(ms(2_000));
    assert!(world.phones[D1].is_talking() && world.phones[D3].is_talking() && world.phones[D2].is_idle());
    let heard = world.proxy.commands_of(LegId(3));
    assert!(!heard.contains(&"route to 2".to_owned()), "{heard:?}");
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn a_ringing_call_is_redirected_by_request() {
    let mut world = world(|_| {});
    world.phones[D2].act(Action::Vanish, world.start);
    world.phones.remove(D2);
    world.phones.insert(D2, {
        let mut options =
            stickytape::testing::phone::Options::new("2002", addr("10.0.0.2:5060"), addr("10.0.0.2:4000"), addr(PROXY));
        options.incoming = Incoming::Answer { ring: ms(10), answer: Duration::from_secs(30) };
        stickytape::testing::phone::Phone::new(options)
    });
    world.act(D1, Action::call("2002"));
    world.run(ms(500));
    let c1 = conn_id(&world);
    let itself = ask(&mut world, c1, "2002", Ask::RedirectCall { to: "2002".into() });
    assert_eq!(itself.unwrap_err().code, Code::UnknownTarget);
    ask(&mut world, c1, "2002", Ask::RedirectCall { to: "2003".into() }).unwrap();
    world.run(ms(1_000));
    assert!(world.phones[D1].is_talking() && world.phones[D3].is_talking() && world.phones[D2].is_idle());
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn recordings_start_pause_and_stop_by_request_and_a_pause_survives_a_transfer() {
    let mut world = talking(|o| o.recording.default = DefaultOwner::None);
    let c1 = conn_id(&world);
    let start = |owner| Ask::RecordStart { owner };
    use stickytape::call::request::OwnerWish;
    let id = ask(&mut world, c1, "2001", start(OwnerWish::Source)).unwrap().recording.unwrap();
    assert_eq!(ask(&mut world, c1, "2001", start(OwnerWish::Source)).unwrap().recording, Some(id), "the running one");
    let outsider = ask(&mut world, c1, "2010", start(OwnerWish::Source)).unwrap_err();
    assert_eq!(outsider.code, Code::OwnerRequired);
    let paused = ask(&mut world, c1, "2001", Ask::RecordPause { recording: None }).unwrap();
    assert!(paused.still_recording.is_empty());
    world.act(D2, refer("2003", Leave::Never));
    world.run(ms(3_000));
    assert_eq!(world.proxy.mark_story().iter().filter(|m| *m == "pause" || *m == "resume").count(), 1);
    let resumed = ask(&mut world, c1, "2010", Ask::RecordResume { recording: Some(id) }).unwrap();
    assert_eq!(resumed.still_recording, [id]);
    ask(&mut world, c1, "2001", Ask::RecordStop { recording: Some(id) }).unwrap();
    let gone = ask(&mut world, c1, "2001", Ask::RecordStop { recording: Some(id) }).unwrap_err();
    assert_eq!(gone.code, Code::UnknownRecording);
    assert_eq!(causes(&world), [StopCause::Stopped]);
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn a_consulted_party_owns_no_recording() {
    let mut world = talking(|_| {});
    let c1 = conn_id(&world);
    ask(&mut world, c1, "2002", Ask::InitiateTransfer { to: "2003".into() }).unwrap();
    world.run(ms(1_000));
    use stickytape::call::request::OwnerWish;
    let denied = ask(&mut world, c1, "2003", Ask::RecordStart { owner: OwnerWish::Source }).unwrap_err();
    assert_eq!((denied.code, denied.state.as_str()), (Code::ConsultedOwner, "consulting"));
    world.act(D2, Action::HangUp);
    world.settle();
}

#[test]
fn a_request_waits_for_an_open_offer_and_is_refused_after_five_seconds() {
    let mut world = world(|_| {});
    world.act(D1, Action::call("2002"));
    world.run(ms(1_000));
    let c1 = conn_id(&world);
    // D2 answers no more: the offer of D1 stays open.
    world.act(D2, Action::Vanish);
    world.act(D1, Action::Hold(HoldForm::SendOnly));
    world.run(ms(100));
    let request = Asked { conn_id: c1, this_dn: "2002".into(), reference: None, ask: Ask::HoldCall };
    world.tell(Input::Request(Ticket(9), Box::new(request)));
    assert!(world.proxy.answers.is_empty());
    world.run(Duration::from_secs(6));
    let (_, answer) = world.proxy.answers.last().unwrap();
    assert_eq!(answer.as_ref().unwrap_err().code, Code::Busy);
    world.run(Duration::from_secs(60));
    world.settle();
}

/// Until its leg has arrived nothing is said of a moving leg.
#[test]
fn a_notice_of_an_unknown_leg_changes_nothing() {
    let mut world = talking(|_| {});
    world.tell(Input::Media(stickytape::id::WorkerId(1), Notice::Moved { leg: LegId(99) }));
    assert_eq!(world.proxy.calls.snapshot()[0].state, "talking");
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn a_consult_call_is_shown_beside_the_call_that_it_belongs_to() {
    let mut world = talking(|_| {});
    let c1 = conn_id(&world);
    let c2 = ask(&mut world, c1, "2002", Ask::InitiateTransfer { to: "2003".into() }).unwrap().conn_id;
    world.run(ms(100));
    let seen = |world: &World| -> Vec<(ConnId, Option<ConnId>, &'static str, Vec<String>)> {
        let views = world.proxy.calls.snapshot().into_iter();
        let numbers = |parties: Vec<stickytape::call::view::PartyView>| parties.into_iter().map(|p| p.number).collect();
        views.map(|v| (v.conn_id, v.previous_conn_id, v.state, numbers(v.parties))).collect()
    };
    let (main, consult) = (vec!["2001".to_owned(), "2002".into()], vec!["2002".to_owned(), "2003".into()]);
    assert_eq!(seen(&world), [(c1, None, "consulting", main.clone()), (c2, Some(c1), "early", consult.clone())]);
    world.run(ms(1_000));
    ask(&mut world, c2, "2002", Ask::AlternateCall { other: None }).unwrap();
    assert_eq!(seen(&world), [(c1, None, "consulting", main), (c2, Some(c1), "held", consult)]);
    world.act(D1, Action::HangUp);
    world.run(ms(500));
    let left = vec!["2002".to_owned(), "2003".into()];
    assert_eq!(seen(&world), [(c2, None, "talking", left)]);
    world.act(D2, Action::HangUp);
    world.settle();
}
