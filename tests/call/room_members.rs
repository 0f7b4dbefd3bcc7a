//! Members of a dial-in room in virtual time: what they and their supervisors ask for, in SIP and by request.

use std::time::Duration;

use crate::call_world::mixed::*;
use crate::call_world::rooms::*;
use crate::call_world::*;
use stickytape::bridge::command::mix::{Hearing, JoinError, MixNotice, Mode};
use stickytape::call::Input;
use stickytape::call::options::Options;
use stickytape::call::request::{Ask, Code, DnAsk, DnRequest, MonitorMode, MonitorNextCall, Ticket};
use stickytape::id::{LegId, MixerId};
use stickytape::record::mark::{Side, StopCause};
use stickytape::testing::phone::{Action, HoldForm};

#[test]
fn requests_of_members_work_as_in_any_conference() {
    let mut world = meeting(3, recorded);
    ask(&mut world, "2001", Ask::SetMuteOn { coach: false }).unwrap();
    assert_eq!(conversation(&world, 0), "1m-muted 2m 4m");
    ask(&mut world, "2001", Ask::SetMuteOff { coach: false }).unwrap();
    ask(&mut world, "2002", Ask::HoldCall).unwrap();
    assert_eq!(conversation(&world, 0), "1m 2m-held 4m");
    ask(&mut world, "2002", Ask::RetrieveCall).unwrap();
    ask(&mut world, "2002", Ask::SingleStepConference { to: "2004".into(), hold: false }).unwrap();
    world.run(ms(500));
    assert_eq!(mixed(&world).0, [1, 2, 4, 5]);
    ask(&mut world, "2001", Ask::DeleteFromConference { party: "2003".into() }).unwrap();
    world.run(ms(300));
    assert!(world.phones[D3].is_idle());
    ask(&mut world, "2004", Ask::ReleaseCall).unwrap();
    world.run(ms(300));
    assert_routed(&world, 1, 2);
    for what in [Ask::SingleStepTransfer { to: "2005".into() }, Ask::MuteTransfer { to: "2005".into() }] {
        assert_eq!(ask(&mut world, "2001", what).unwrap_err().code, Code::WrongState, "nobody is transferred");
    }
    leave(&mut world, D1);
    world.settle();
}

#[test]
fn the_only_member_may_call_somebody_in_and_the_room_owns_from_then_on() {
    let mut world = meeting(1, recorded);
    ask(&mut world, "2001", Ask::SingleStepConference { to: "2002".into(), hold: false }).unwrap();
    world.run(ms(500));
    assert_routed(&world, 1, 2);
    assert_eq!(world.proxy.starts()[0].1.side, Side::Room);
    leave(&mut world, D1);
    world.settle();
}

#[test]
fn a_member_may_consult_outside_and_bring_the_consulted_party_in() {
    let mut world = meeting(3, recorded);
    ask(&mut world, "2001", Ask::InitiateConference { to: "2004".into() }).unwrap();
    world.run(ms(500));
    assert_eq!(conversation(&world, 0), "1m-held 2m 4m");
    enter(&mut world, 4);
    assert_eq!(conversation(&world, 0), "1m-held 2m 4m 6m", "others may come meanwhile");
    let refused = ask(&mut world, "2001", Ask::CompleteTransfer { other: None }).unwrap_err();
    assert_eq!(refused.code, Code::WrongState);
    ask(&mut world, "2001", Ask::CompleteConference { other: None }).unwrap();
    world.run(ms(500));
    assert_eq!(mixed(&world).0, [1, 2, 4, 5, 6]);
    for phone in 0..5 {
        leave(&mut world, phone);
    }
    world.settle();
}

#[test]
fn a_room_that_its_others_leave_while_one_consults_ends_and_the_consultation_goes_on() {
    for change in [(|_| {}) as fn(&mut Options), waits] {
        let mut world = meeting(2, |o| {
            change(o);
            recorded(o);
        });
        ask(&mut world, "2001", Ask::InitiateConference { to: "2003".into() }).unwrap();
        world.run(ms(500));
        leave(&mut world, D2);
        assert_eq!(causes(&world), [StopCause::Released], "the room has ended, and its recording");
        assert_routed(&world, 1, 4);
        enter(&mut world, D2);
        assert_eq!(world.proxy.calls.snapshot().len(), 2, "who comes now opens another room");
        leave(&mut world, D2);
        leave(&mut world, D1);
        world.settle();
    }
}

#[test]
fn a_member_that_holds_is_silent_and_comes_back() {
    for phones in [2, 3] {
        let mut world = meeting(phones, recorded);
        world.act(D1, Action::Hold(HoldForm::SendOnly));
        world.run(ms(300));
        assert!(conversation(&world, 0).starts_with("1m-held"), "{}", conversation(&world, 0));
        enter(&mut world, phones);
        assert_eq!(mixed(&world).0.len(), phones + 1);
        world.act(D1, Action::Retrieve);
        world.run(ms(300));
        assert!(!conversation(&world, 0).contains("held"));
        for phone in 0..=phones {
            leave(&mut world, phone);
        }
        world.settle();
    }
}

#[test]
fn somebody_enters_while_offers_cross_in_the_room() {
    let mut world = meeting(2, recorded);
    world.act(D1, Action::Hold(HoldForm::SendOnly));
    world.act(D2, Action::Hold(HoldForm::SendOnly));
    world.act(D3, Action::call("800"));
    world.run(Duration::from_secs(8));
    assert!(world.phones[D3].is_talking());
    for phone in [D1, D2] {
        world.act(phone, Action::Retrieve);
        world.run(Duration::from_secs(1));
    }
    assert_eq!(mixed(&world).0, [1, 2, 4]);
    assert_eq!(conversation(&world, 0), "1m 2m 4m");
    for phone in [D1, D2, D3] {
        leave(&mut world, phone);
    }
    world.settle();
}

#[test]
fn a_mixer_without_a_place_sends_the_newest_away() {
    let mut world = meeting(3, |_| {});
    let (_, mix_room, ..) = seats(&world)[0];
    let refused = MixNotice::Refused { leg: LegId(2), room: mix_room, why: JoinError::Full };
    world.tell(Input::Mix(MixerId(0), refused));
    world.run(ms(300));
    assert!(world.phones[D3].is_idle());
    assert_routed(&world, 1, 2);
    leave(&mut world, D1);
    world.settle();
}

/// The supervisor 2006 joins the calls of 2001 from now on.
fn monitored(world: &mut World, mode: MonitorMode) {
    let wish = MonitorNextCall { agent: "2001".into(), mode: Some(mode), scope: None, all: false, intrusion: true };
    let request = DnRequest { this_dn: "2006".into(), reference: None, ask: DnAsk::MonitorNextCall(wish) };
    world.tell(Input::DnRequest(Ticket(1), Box::new(request)));
    world.proxy.dn_answers.last().expect("answered at once").1.clone().unwrap();
    world.run(ms(500));
}

const SUPERVISOR: usize = 5;

#[test]
fn a_member_is_supervised_and_its_supervisor_takes_no_place() {
    let mut world = meeting(2, |o| {
        o.plan.conferences[0] = room(|room| room.max_members = 3);
        o.plan.dns[0].intrusion = true;
    });
    monitored(&mut world, MonitorMode::Coach);
    assert!(world.phones[SUPERVISOR].is_talking());
    assert_eq!(mixed(&world).0, [1, 2, 3]);
    assert_eq!(hearing(&world, 3), Hearing::supervisor(Mode::Coach, LegId(1)));
    enter(&mut world, D3);
    assert_eq!(mixed(&world).0, [1, 2, 3, 4], "the supervisor is no member: there is a place left");
    leave(&mut world, D2);
    leave(&mut world, D3);
    assert!(world.phones.iter().all(|phone| phone.is_idle()), "with one member left the room ends for all");
    world.settle();
}

#[test]
fn who_waits_alone_hears_a_supervisor_that_speaks() {
    for (mode, hears) in [(MonitorMode::Mute, vec![2]), (MonitorMode::Connect, vec![1, 2])] {
        let mut world = meeting(1, |o| o.plan.dns[0].intrusion = true);
        monitored(&mut world, mode);
        assert_eq!(mixed(&world).0, hears, "{mode:?}");
        leave(&mut world, SUPERVISOR);
        assert_eq!((state(&world), seats(&world)), ("waiting", vec![]));
        leave(&mut world, D1);
        world.settle();
    }
}

#[test]
fn another_device_of_a_member_goes_on_for_it() {
    for offer in [true, false] {
        let mut world = meeting(2, recorded);
        let name = world.phones[D1].dialog(0).expect("a dialog");
        let line = |name: &str, value: String| (name.to_owned(), value.into());
        let headers = vec![line("Require", "replaces".into()), line("Replaces", name.replaces())];
        world.act(D1, Action::on(1, Action::Call { to: "800".into(), offer, headers }));
        world.run(ms(500));
        assert!(world.proxy.has_fact("replaced 1 by 1"), "{:?}", world.proxy.story());
        assert_routed(&world, 1, 2);
        assert_eq!((conversation(&world, 0), causes(&world)), ("1m 2m".into(), vec![]));
        leave(&mut world, D2);
        world.settle();
    }
}

#[test]
fn nobody_takes_the_place_of_a_member_or_of_who_is_at_the_door() {
    let mut world = meeting(2, |o| {
        for dn in &mut o.plan.dns[..3] {
            dn.pickup_group = "all".into();
        }
    });
    let name = world.phones[D1].dialog(0).expect("a dialog");
    let headers = vec![("Replaces".to_owned(), name.replaces().into())];
    world.act(D3, Action::Call { to: "800".into(), offer: true, headers });
    world.run(ms(300));
    assert_eq!(world.phones[D3].responses().last().unwrap().code, 491);
    assert_routed(&world, 1, 2);
    leave(&mut world, D1);
    world.settle();
}

#[test]
fn a_call_that_is_merged_with_a_room_ends_in_the_room() {
    for room_first in [true, false] {
        let mut world = meeting(2, |o| {
            recorded(o);
            o.plan.conferences[0] = room(|room| room.max_members = 3);
        });
        let first = conn_id(&world);
        world.act(D3, Action::call("2001"));
        world.run(ms(1_000));
        let second = world.proxy.calls.snapshot().iter().map(|call| call.conn_id).find(|id| *id != first).unwrap();
        let (path, other) = if room_first { (first, second) } else { (second, first) };
        assert_eq!(ask_in(&mut world, path, "2001", Ask::MergeCalls { other }).unwrap().conn_id, first);
        world.run(ms(500));
        assert_eq!(world.proxy.calls.snapshot().len(), 1);
        assert_eq!(mixed(&world).0, [1, 2, 4]);
        assert_eq!(conversation(&world, 0), "1m 2m 4c");
        enter(&mut world, 3);
        assert!(world.phones[3].is_idle(), "the room is full by that");
        leave(&mut world, D1);
        leave(&mut world, D2);
        world.settle();
    }
}

#[test]
fn a_full_room_takes_no_call_in_and_two_rooms_do_not_become_one() {
    let mut world = meeting(2, |o| {
        o.plan.conferences[0] = room(|room| room.max_members = 2);
        o.plan.conferences.push(room(|room| room.number = "801".into()));
    });
    let first = conn_id(&world);
    world.act(D3, Action::call("2001"));
    world.run(ms(1_000));
    let second = world.proxy.calls.snapshot().iter().map(|call| call.conn_id).find(|id| *id != first).unwrap();
    let refused = ask_in(&mut world, second, "2001", Ask::MergeCalls { other: first }).unwrap_err();
    assert_eq!(refused.code, Code::Limit);
    leave(&mut world, D3);
    world.act(D1, Action::on(1, Action::call("801")));
    world.act(D3, Action::call("801"));
    world.run(ms(500));
    let other = world.proxy.calls.snapshot().iter().map(|call| call.conn_id).find(|id| *id != first).unwrap();
    let refused = ask_in(&mut world, first, "2001", Ask::MergeCalls { other }).unwrap_err();
    assert_eq!(refused.code, Code::WrongState);
    leave(&mut world, D3);
    leave(&mut world, D2);
    world.settle();
}
