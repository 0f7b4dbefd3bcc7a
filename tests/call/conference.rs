//! Conferences and supervision in virtual time: who is called in, who joins, who leaves, and what the mixer, the recorders
//! and the parties are told (spec/events.md §1 rows 11 to 21, spec/recording.md §4.5 and §4.6).

use std::time::Duration;

use crate::call_world::mixed::*;
use crate::call_world::*;
use stickytape::bridge::command::mix::{Hearing, Mode, Role as Hears};
use stickytape::bridge::command::{Command, Digit};
use stickytape::call::Input;
use stickytape::call::options::{DefaultOwner, DnRole, MonitorConsult, Options};
use stickytape::call::request::{
    Ask, Code, Denied, DnAsk, DnRequest, MonitorMode, MonitorNextCall, MonitorScope, OwnerWish, Request as Asked,
    Ticket,
};
use stickytape::id::{ConnId, LegId, MixerId};
use stickytape::record::mark::StopCause;
use stickytape::testing::phone::{Action, HoldForm, Incoming};

const D1: usize = 0;
const D2: usize = 1;
const D3: usize = 2;
const D4: usize = 3;

/// Phones 2001 to 2005; the first calls the second.
fn talking(change: impl FnOnce(&mut Options)) -> World {
    talking_with(change, Incoming::Answer { ring: ms(10), answer: ms(50) })
}

/// The third phone takes calls so.
fn talking_with(change: impl FnOnce(&mut Options), third: Incoming) -> World {
    let mut options = options();
    options.plan.dns[4].role = DnRole::Supervisor;
    options.plan.dns[5].role = DnRole::Supervisor;
    change(&mut options);
    let mut world = World::new(options);
    for n in 1..=6 {
        world.phone(n, move |o| {
            (o.lines, o.call_waiting, o.seed) = (2, true, u64::from(n));
            if n == 3 {
                o.incoming = third;
            }
        });
    }
    world.act(D1, Action::call("2002"));
    world.run(ms(1_000));
    assert!(world.phones[D1].is_talking() && world.phones[D2].is_talking());
    world
}

fn add(world: &mut World, by: &str, to: &str) {
    ask(world, by, Ask::SingleStepConference { to: to.into(), hold: false }).unwrap();
    world.run(ms(500));
}

/// D1, D2 and D3 in a conference.
fn conference(change: impl FnOnce(&mut Options)) -> World {
    let mut world = talking(change);
    add(&mut world, "2002", "2003");
    assert!(world.phones[D3].is_talking());
    world
}

fn consulted(world: &mut World) -> ConnId {
    let second = ask(world, "2002", Ask::InitiateConference { to: "2003".into() }).unwrap().conn_id;
    world.run(ms(500));
    second
}

// Conferences.

#[test]
fn a_one_step_conference_mixes_three_and_two_are_relayed_again() {
    for leaves in [D1, D2, D3] {
        let mut world = conference(|o| o.recording.default = DefaultOwner::Both);
        assert_eq!(state(&world), "conference");
        assert_eq!(mixed(&world), (vec![1, 2, 3], vec![]));
        assert_eq!(conversation(&world, 0), "1c 2a 3a");
        assert_eq!((1..=3).map(|leg| last_route(&world, leg)).collect::<Vec<_>>()[..2], ["route to nobody"; 2]);
        let before: usize = [D1, D2, D3].map(|phone| invites(&world, phone)).iter().sum();
        world.act(leaves, Action::HangUp);
        world.run(ms(500));
        let leg = leaves as u64 + 1;
        let rest: Vec<u64> = (1..=3).filter(|l| *l != leg).collect();
        assert_routed(&world, rest[0], rest[1]);
        assert_eq!((seats(&world), open_rooms(&world)), (vec![], 0));
        assert_eq!(state(&world), "talking");
        assert!(world.proxy.has_fact(&format!("deleted {leg} by {leg}, 2 left")), "{:?}", world.proxy.story());
        let after: usize = [D1, D2, D3].map(|phone| invites(&world, phone)).iter().sum();
        assert_eq!(after, before, "no re-INVITE");
        let stopped = if leaves == D3 { vec![] } else { vec![StopCause::OwnerLeft] };
        assert_eq!(causes(&world), stopped, "its own recording ends, the others' go on");
        let last = rest[0] as usize - 1;
        world.act(last, Action::HangUp);
        world.run(ms(500));
        assert!([D1, D2, D3].iter().all(|phone| world.phones[*phone].is_idle()), "of two parties the call ends");
        world.settle();
    }
}

#[test]
fn digits_by_request_are_refused_in_a_conference_and_reach_who_is_consulted() {
    let digits = || Ask::SendDtmf { digits: vec![Digit::of_key('1').unwrap()] };
    let mut world = conference(|_| {});
    assert_eq!(ask(&mut world, "2001", digits()).expect_err("refused").code, Code::WrongState);
    world.act(D3, Action::HangUp);
    world.run(ms(500));
    let second = consulted(&mut world);
    let pressed = |world: &World| {
        let pressed = |command: &Command| match command {
            Command::Press { leg, .. } => Some(leg.0),
            _ => None,
        };
        world.proxy.commands.iter().filter_map(|(_, command)| pressed(command)).collect::<Vec<_>>()
    };
    assert!(pressed(&world).is_empty());
    assert_eq!(ask(&mut world, "2002", digits()).expect("accepted").conn_id, second, "the call that it is active in");
    assert_eq!(pressed(&world), [4], "not the party that is held");
    assert_eq!(ask(&mut world, "2001", digits()).expect_err("it is held").code, Code::WrongState);
    world.act(D2, Action::HangUp);
    world.run(ms(500));
    [D1, D3].into_iter().for_each(|phone| world.act(phone, Action::HangUp));
    world.settle();
}

#[test]
fn everybody_in_a_large_conference_may_leave_in_any_order() {
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
        let mut world = talking(|_| {});
        add(&mut world, "2002", "2003");
        add(&mut world, "2003", "2004");
        assert_eq!(mixed(&world).0, [1, 2, 3, 4]);
        for (n, phone) in order.into_iter().enumerate() {
            world.act(phone, Action::HangUp);
            world.run(ms(300));
            assert_eq!(mixed(&world).0.len(), [3, 0, 0, 0][n]);
        }
        world.settle();
    }
}

#[test]
fn several_may_be_called_in_at_once_and_their_inviter_s_leaving_gives_it_up() {
    let mut world = talking_with(|_| {}, Incoming::Manual);
    world.phones.pop();
    ask(&mut world, "2002", Ask::SingleStepConference { to: "2003".into(), hold: false }).unwrap();
    ask(&mut world, "2002", Ask::SingleStepConference { to: "2004".into(), hold: false }).unwrap();
    world.run(ms(300));
    assert_eq!(mixed(&world).0, [1, 2, 4], "the fourth phone has answered");
    world.act(D3, Action::Ring);
    world.run(ms(100));
    world.act(D2, Action::HangUp);
    world.run(ms(300));
    assert!(world.phones[D3].is_idle(), "no longer called");
    assert!(world.proxy.has_fact("not added abandoned"));
    assert_routed(&world, 1, 4);
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn while_somebody_is_called_in_the_others_talk_on_and_a_hang_up_ends_it_all() {
    let mut world = talking_with(|_| {}, Incoming::Manual);
    ask(&mut world, "2002", Ask::SingleStepConference { to: "2003".into(), hold: false }).unwrap();
    world.run(ms(100));
    assert_routed(&world, 1, 2);
    let refused = ask(&mut world, "2002", Ask::SingleStepTransfer { to: "2004".into() }).unwrap_err();
    assert_eq!(refused.code, Code::WrongState);
    world.act(D1, Action::HangUp);
    world.run(ms(300));
    assert!(world.phones[D3].is_idle());
    world.settle();
}

#[test]
fn a_one_step_conference_that_fails_leaves_the_call_as_it_was() {
    for (hold, code, after) in [
        (false, 486, "talking"),
        (false, 603, "talking"),
        (true, 603, "talking"),
        (true, 486, "held"),
        (true, 600, "held"),
    ] {
        let mut world = talking_with(|_| {}, Incoming::Refuse(code));
        ask(&mut world, "2002", Ask::SingleStepConference { to: "2003".into(), hold }).unwrap();
        world.run(ms(500));
        assert_eq!(state(&world), after, "hold {hold}, {code}");
        assert_eq!(world.proxy.has_fact("held 2"), hold);
        if after == "held" {
            assert_eq!(conversation(&world, 0), "1c 2a-held");
            ask(&mut world, "2002", Ask::RetrieveCall).unwrap();
        } else {
            let refused = ask(&mut world, "2002", Ask::RetrieveCall).unwrap_err();
            assert_eq!(refused.code, Code::WrongState, "it is not on hold any more");
        }
        assert_routed(&world, 1, 2);
        assert!(causes(&world).is_empty());
        world.act(D1, Action::HangUp);
        world.settle();
    }
}

#[test]
fn held_for_a_one_step_conference_the_others_are_retrieved_when_it_is_answered() {
    let mut world = talking(|_| {});
    ask(&mut world, "2002", Ask::SingleStepConference { to: "2003".into(), hold: true }).unwrap();
    assert_eq!(state(&world), "held");
    world.run(ms(500));
    assert_eq!(facts_from(&world, "held 2"), ["held 2", "invited by 2", "ringing", "retrieved 2", "added 3 by 2"]);
    assert_eq!(mixed(&world).0, [1, 2, 3]);
    world.act(D1, Action::HangUp);
    world.act(D2, Action::HangUp);
    world.settle();
}

#[test]
fn a_consultation_becomes_a_conference_in_the_same_files() {
    for follows in [false, true] {
        let mut world = talking(|o| {
            o.recording.default = DefaultOwner::Both;
            o.plan.dns[1].record_consult = follows;
            o.plan.dns[2].record = Some(true);
        });
        let second = consulted(&mut world);
        assert_routed(&world, 2, 3);
        assert_eq!(world.proxy.starts().len(), 2, "the consulted party owns nothing yet");
        assert_eq!(conversation(&world, 1), if follows { "2a 3x" } else { "1c 2a-held" });
        ask_in(&mut world, second, "2002", Ask::CompleteConference { other: None }).unwrap();
        world.run(ms(500));
        assert_eq!(mixed(&world).0, [1, 2, 3]);
        assert_eq!(world.proxy.starts().len(), 3, "its own option starts a session when it joins");
        for session in 0..3 {
            assert_eq!(conversation(&world, session), "1c 2a 3a");
        }
        assert!(causes(&world).is_empty());
        assert!(world.proxy.has_fact("added 3 by 2 consulted"));
        let gone = ask_in(&mut world, second, "2002", Ask::HoldCall).unwrap_err();
        assert_eq!(gone.code, Code::UnknownCall, "the consult call has ended");
        world.act(D3, Action::HangUp);
        world.run(ms(300));
        assert_eq!(causes(&world), [StopCause::OwnerLeft]);
        assert_routed(&world, 1, 2);
        world.act(D2, Action::HangUp);
        world.settle();
    }
}

#[test]
fn an_unanswered_consultation_is_not_completed_as_a_conference() {
    let mut world = talking_with(|_| {}, Incoming::Manual);
    let second = consulted(&mut world);
    let refused = ask_in(&mut world, second, "2002", Ask::CompleteConference { other: None }).unwrap_err();
    assert_eq!((refused.code, refused.state.as_str()), (Code::WrongState, "consulting"));
    world.act(D1, Action::HangUp);
    world.act(D2, Action::HangUp);
    world.settle();
}

#[test]
fn a_member_consults_out_of_a_conference_and_comes_back_with_a_fourth() {
    let mut world = conference(|_| {});
    let second = ask(&mut world, "2002", Ask::InitiateConference { to: "2004".into() }).unwrap().conn_id;
    world.run(ms(500));
    assert_routed(&world, 2, 4);
    assert_routed(&world, 1, 3);
    assert_eq!(conversation(&world, 0), "1c 2a-held 3a");
    ask_in(&mut world, second, "2002", Ask::AlternateCall { other: None }).unwrap();
    world.run(ms(100));
    assert_eq!(mixed(&world).0, [1, 2, 3]);
    ask_in(&mut world, second, "2002", Ask::AlternateCall { other: None }).unwrap();
    let refused = ask_in(&mut world, second, "2002", Ask::CompleteTransfer { other: None }).unwrap_err();
    assert_eq!(refused.code, Code::WrongState);
    ask_in(&mut world, second, "2002", Ask::CompleteConference { other: None }).unwrap();
    world.run(ms(300));
    assert_eq!(mixed(&world).0, [1, 2, 3, 4]);
    assert_eq!(conversation(&world, 0), "1c 2a 3a 4a");
    for phone in [D2, D4, D1] {
        world.act(phone, Action::HangUp);
        world.run(ms(100));
    }
    world.settle();
}

#[test]
fn who_consults_out_of_a_conference_may_hang_up_and_the_others_talk_on() {
    let mut world = conference(|_| {});
    ask(&mut world, "2002", Ask::InitiateConference { to: "2004".into() }).unwrap();
    world.run(ms(500));
    world.act(D2, Action::HangUp);
    world.run(ms(300));
    assert!(world.phones[D4].is_idle());
    assert_routed(&world, 1, 3);
    world.act(D3, Action::HangUp);
    world.settle();
}

#[test]
fn delete_from_conference_ends_the_named_party_or_the_requester() {
    let delete = |party: &str| Ask::DeleteFromConference { party: party.into() };
    let mut world = conference(|_| {});
    let refused = ask(&mut world, "2001", delete("2009")).unwrap_err();
    assert_eq!(refused.code, Code::UnknownTarget);
    ask(&mut world, "2001", delete("2002")).unwrap();
    world.run(ms(300));
    assert!(world.phones[D2].is_idle());
    assert!(world.proxy.has_fact("deleted 2 by 1, 2 left"));
    assert_routed(&world, 1, 3);
    // Two parties left: the requester's own release.
    ask(&mut world, "2003", delete("2001")).unwrap();
    world.run(ms(300));
    assert!(world.phones[D1].is_idle() && world.phones[D3].is_idle());
    world.settle();

    let mut world = conference(|_| {});
    ask(&mut world, "2001", delete("2001")).unwrap();
    world.run(ms(300));
    assert!(world.phones[D1].is_idle() && world.phones[D2].is_talking() && world.phones[D3].is_talking());
    assert_eq!(causes(&world), [StopCause::OwnerLeft]);
    world.act(D3, Action::HangUp);
    world.settle();
}

#[test]
fn who_rings_can_be_deleted_and_who_releases_leaves_alone() {
    let mut world = talking_with(|_| {}, Incoming::Manual);
    add(&mut world, "2002", "2004");
    ask(&mut world, "2002", Ask::SingleStepConference { to: "2003".into(), hold: false }).unwrap();
    world.run(ms(100));
    ask(&mut world, "2001", Ask::DeleteFromConference { party: "2003".into() }).unwrap();
    world.run(ms(300));
    assert!(world.phones[D3].is_idle());
    ask(&mut world, "2002", Ask::ReleaseCall).unwrap();
    world.run(ms(300));
    assert!(world.phones[D2].is_idle() && world.phones[D4].is_talking());
    assert_routed(&world, 1, 3);
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn mute_and_listening_are_the_mixer_s_and_the_recorder_s_business() {
    let mut world = conference(|_| {});
    ask(&mut world, "2003", Ask::SetMuteOn { coach: false }).unwrap();
    assert_eq!(hearing(&world, 3), Hearing { muted: true, ..Hearing::MEMBER });
    assert_eq!(conversation(&world, 0), "1c 2a 3a-muted");
    ask(&mut world, "2002", Ask::ListenDisconnect { party: Some("2001".into()) }).unwrap();
    assert_eq!(hearing(&world, 1), Hearing { deaf: true, ..Hearing::MEMBER });
    ask(&mut world, "2003", Ask::SetMuteOff { coach: false }).unwrap();
    ask(&mut world, "2002", Ask::ListenReconnect { party: Some("2001".into()) }).unwrap();
    assert_eq!((hearing(&world, 1), hearing(&world, 3)), (Hearing::MEMBER, Hearing::MEMBER));
    assert_eq!(conversation(&world, 0), "1c 2a 3a");
    let story = facts_from(&world, "muted");
    assert_eq!(story, ["muted 3", "deafened 1", "unmuted 3", "undeafened 1"]);
    let refused = ask(&mut world, "2003", Ask::SetMuteOn { coach: true }).unwrap_err();
    assert_eq!(refused.code, Code::WrongState);
    world.act(D1, Action::HangUp);
    world.act(D2, Action::HangUp);
    world.settle();
}

#[test]
fn a_muted_party_of_two_is_silenced_by_the_mixer_too() {
    let mut world = talking(|_| {});
    ask(&mut world, "2002", Ask::SetMuteOn { coach: false }).unwrap();
    assert_eq!((mixed(&world).0, hearing(&world, 2).muted), (vec![1, 2], true));
    assert_eq!(conversation(&world, 0), "1c 2a-muted");
    ask(&mut world, "2002", Ask::SetMuteOff { coach: false }).unwrap();
    assert_routed(&world, 1, 2);
    assert_eq!(open_rooms(&world), 0);
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn who_holds_in_a_conference_is_silent_and_the_others_talk_on() {
    for by_request in [true, false] {
        let mut world = conference(|_| {});
        match by_request {
            true => _ = ask(&mut world, "2003", Ask::HoldCall).unwrap(),
            false => world.act(D3, Action::Hold(HoldForm::SendOnly)),
        }
        world.run(ms(300));
        assert!(hearing(&world, 3).muted, "its music is not heard");
        assert_eq!(hearing(&world, 1), Hearing::MEMBER);
        assert_eq!(conversation(&world, 0), "1c 2a 3a-held");
        match by_request {
            true => _ = ask(&mut world, "2003", Ask::RetrieveCall).unwrap(),
            false => world.act(D3, Action::Retrieve),
        }
        world.run(ms(300));
        assert_eq!(hearing(&world, 3), Hearing::MEMBER);
        world.act(D1, Action::HangUp);
        world.act(D2, Action::HangUp);
        world.settle();
    }
}

#[test]
fn a_mixer_that_takes_nobody_costs_the_newest_party_only() {
    let mut world = conference(|_| {});
    let room = seats(&world)[0].1;
    let why = stickytape::bridge::command::mix::JoinError::Overload;
    for leg in 1..=3 {
        let notice = stickytape::bridge::command::mix::MixNotice::Refused { room, leg: LegId(leg), why };
        world.tell(Input::Mix(MixerId(0), notice));
    }
    world.run(ms(300));
    assert!(world.phones[D3].is_idle() && world.phones[D1].is_talking() && world.phones[D2].is_talking());
    assert_routed(&world, 1, 2);
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn who_asks_for_a_recording_in_a_conference_owns_it_until_it_leaves() {
    let mut world = conference(|o| o.recording.default = DefaultOwner::None);
    for dn in ["2001", "2003"] {
        ask(&mut world, dn, Ask::RecordStart { owner: OwnerWish::Source }).unwrap();
    }
    let refused = ask(&mut world, "2002", Ask::RecordStart { owner: OwnerWish::Destination }).unwrap_err();
    assert_eq!(refused.code, Code::OwnerRequired);
    assert_eq!((conversation(&world, 0), conversation(&world, 1)), ("1c 2a 3a".into(), "1c 2a 3a".into()));
    world.act(D3, Action::HangUp);
    world.run(ms(300));
    assert_eq!((causes(&world), conversation(&world, 0)), (vec![StopCause::OwnerLeft], "1c 2a".into()));
    world.act(D2, Action::HangUp);
    world.settle();
}

#[test]
fn a_lost_party_of_a_conference_leaves_alone() {
    let mut world = conference(|_| {});
    world.tell(Input::Media(
        stickytape::id::WorkerId(0),
        stickytape::bridge::command::Notice::Inactive { leg: LegId(3) },
    ));
    world.run(ms(300));
    assert!(world.phones[D3].is_talking(), "it has answered OPTIONS");
    world.phones.remove(D3);
    world.tell(Input::Media(
        stickytape::id::WorkerId(0),
        stickytape::bridge::command::Notice::Inactive { leg: LegId(3) },
    ));
    world.run(Duration::from_secs(40));
    assert_routed(&world, 1, 2);
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn a_consultation_over_a_second_dialog_becomes_a_conference_in_the_held_call() {
    for by_phone in [true, false] {
        let mut world = talking(|o| o.recording.default = DefaultOwner::Both);
        let main = conn_id(&world);
        match by_phone {
            true => world.act(D2, Action::Hold(HoldForm::SendOnly)),
            false => _ = ask(&mut world, "2002", Ask::HoldCall).unwrap(),
        }
        world.run(ms(300));
        world.act(D2, Action::on(1, Action::call("2003")));
        world.run(ms(1_000));
        let second = world.proxy.calls.snapshot().iter().map(|call| call.conn_id).find(|id| *id != main).unwrap();
        let request = Asked {
            conn_id: second,
            this_dn: "2002".into(),
            reference: None,
            ask: Ask::CompleteConference { other: None },
        };
        world.tell(Input::Request(Ticket(99), Box::new(request)));
        world.run(ms(500));
        let answer = world.proxy.answers.last().unwrap().1.clone();
        if by_phone {
            // This phone ends its hold by itself only.
            assert_eq!(answer.unwrap_err().code, Code::HeldByPhone);
            assert_eq!(world.proxy.calls.snapshot().len(), 2);
            world.act(D1, Action::HangUp);
            world.act(D3, Action::HangUp);
            world.settle();
            continue;
        }
        let answer = answer.unwrap();
        assert_eq!((answer.conn_id, world.proxy.calls.snapshot().len()), (main, 1), "by phone {by_phone}");
        assert_eq!(conversation(&world, 0), "1c 2a 4a");
        assert_eq!(mixed(&world).0, [1, 2, 4]);
        assert!(world.proxy.has_fact("added 4 by 2 consulted"));
        assert!(causes(&world).is_empty());
        world.act(D1, Action::HangUp);
        world.run(ms(300));
        assert_routed(&world, 2, 4);
        world.act(D3, Action::HangUp);
        world.settle();
    }
}

#[test]
fn two_calls_of_a_dn_are_merged_with_their_supervisors() {
    let mut world = supervised(|o| o.recording.default = DefaultOwner::Both, |_| {});
    let first = conn_id(&world);
    world.act(D4, Action::call("2002"));
    world.run(ms(1_000));
    let second = world.proxy.calls.snapshot().iter().map(|call| call.conn_id).find(|id| *id != first).unwrap();
    let merge = |other| Ask::MergeCalls { other };
    let refused = ask_in(&mut world, first, "2002", merge(ConnId(1))).unwrap_err();
    assert_eq!(refused.code, Code::OtherCall);
    assert_eq!(ask_in(&mut world, first, "2002", merge(second)).unwrap().conn_id, first);
    world.run(ms(500));
    assert_eq!(world.proxy.calls.snapshot().len(), 1);
    assert_eq!(mixed(&world).0, [1, 2, 3, 4], "two parties, the supervisor, and the caller of the second call");
    assert_eq!(conversation(&world, 0), "1c 2a 3s 4c");
    assert_eq!(causes(&world), [StopCause::OwnerLeft], "the second call's recording of the merging device");
    world.act(D2, Action::HangUp);
    world.run(ms(300));
    assert_routed(&world, 1, 4);
    world.act(D1, Action::HangUp);
    world.settle();
}

// Supervision.

fn monitor(world: &mut World, supervisor: &str, change: impl FnOnce(&mut MonitorNextCall)) -> Result<(), Denied> {
    let agent = "2002".to_owned();
    let mut wish = MonitorNextCall { agent, mode: None, scope: None, all: false, intrusion: true };
    change(&mut wish);
    dn_ask(world, supervisor, DnAsk::MonitorNextCall(wish))
}

fn dn_ask(world: &mut World, dn: &str, ask: DnAsk) -> Result<(), Denied> {
    let request = DnRequest { this_dn: dn.to_owned(), reference: None, ask };
    world.tell(Input::DnRequest(Ticket(1), Box::new(request)));
    world.proxy.dn_answers.last().expect("answered at once").1.clone()
}

/// D1 and D2 with the supervisor 2005, whose leg is 3.
fn supervised(change: impl FnOnce(&mut Options), wish: impl FnOnce(&mut MonitorNextCall)) -> World {
    let mut world = talking(|o| {
        o.plan.dns[1].intrusion = true;
        change(o);
    });
    monitor(&mut world, "2005", wish).unwrap();
    world.run(ms(500));
    assert!(world.phones[4].is_talking());
    world
}

#[test]
fn a_silent_supervisor_gets_copies_and_the_two_parties_stay_relayed() {
    let mut world = supervised(|_| {}, |_| {});
    assert_routed(&world, 1, 2);
    assert_eq!(mixed(&world), (vec![3], vec![1, 2]));
    assert_eq!(hearing(&world, 3), Hearing::supervisor(Mode::Mute, LegId(2)));
    assert_eq!(conversation(&world, 0), "1c 2a 3s");
    assert_eq!(state(&world), "talking");
    assert_eq!(invites(&world, D1), 0, "the customer is told nothing");
    world.act(4, Action::HangUp);
    world.run(ms(300));
    assert_eq!((conversation(&world, 0), seats(&world), open_rooms(&world)), ("1c 2a".into(), vec![], 0));
    assert_routed(&world, 1, 2);
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn a_supervisor_changes_its_mode_in_mid_call() {
    let mut world = supervised(|_| {}, |wish| wish.mode = Some(MonitorMode::Coach));
    let of = |mode| Hears::Supervisor { mode, agent: LegId(2) };
    assert_eq!((mixed(&world).0, hearing(&world, 3).role), (vec![1, 2, 3], of(Mode::Coach)));
    for (change, mode, listen) in [
        (Ask::SetMuteOff { coach: false }, Mode::Connect, vec![1, 2, 3]),
        (Ask::SetMuteOn { coach: false }, Mode::Mute, vec![3]),
        (Ask::SetMuteOn { coach: true }, Mode::Coach, vec![1, 2, 3]),
        (Ask::SetMuteOn { coach: false }, Mode::Mute, vec![3]),
        (Ask::SetMuteOff { coach: true }, Mode::Coach, vec![1, 2, 3]),
    ] {
        ask(&mut world, "2005", change).unwrap();
        assert_eq!((mixed(&world).0, hearing(&world, 3).role), (listen, of(mode)));
        assert_eq!(conversation(&world, 0), "1c 2a 3s", "never a speaker of the mixed file, never muted in its own");
        if mode == Mode::Mute {
            assert_routed(&world, 1, 2);
        }
    }
    assert_eq!(facts_from(&world, "unmuted")[..2], ["unmuted 3", "observer 3 connect"]);
    let refused = ask(&mut world, "2005", Ask::HoldCall).unwrap_err();
    assert_eq!((refused.code, refused.detail.as_str()), (Code::WrongState, "ThisDN only observes the call"));
    ask(&mut world, "2005", Ask::ReleaseCall).unwrap();
    world.run(ms(300));
    assert!(world.phones[4].is_idle() && world.phones[D1].is_talking());
    world.act(D2, Action::HangUp);
    world.settle();
}

#[test]
fn two_supervisors_watch_one_agent_and_leave_with_the_call() {
    let mut world = supervised(|_| {}, |_| {});
    monitor(&mut world, "2006", |wish| wish.mode = Some(MonitorMode::Connect)).unwrap();
    world.run(ms(500));
    assert_eq!(conversation(&world, 0), "1c 2a 3s 4s");
    assert_eq!(mixed(&world).0, [1, 2, 3, 4]);
    world.act(D1, Action::HangUp);
    world.run(ms(300));
    assert!(world.phones.iter().all(|phone| phone.is_idle()));
    world.settle();
}

#[test]
fn the_next_call_is_watched_once_or_always() {
    for all in [false, true] {
        let mut world = talking(|_| {});
        monitor(&mut world, "2005", |wish| (wish.all, wish.intrusion) = (all, false)).unwrap();
        world.run(ms(500));
        assert!(world.phones[4].is_idle(), "the call in progress is left alone");
        world.act(D1, Action::HangUp);
        world.run(ms(500));
        for expected in [true, all] {
            world.act(D1, Action::call("2002"));
            world.run(ms(1_000));
            assert_eq!(world.phones[4].is_talking(), expected);
            world.act(D1, Action::HangUp);
            world.run(ms(500));
            assert!(world.phones[4].is_idle());
        }
        let cancel = DnAsk::CancelMonitoring { agent: "2002".into() };
        assert_eq!(dn_ask(&mut world, "2005", cancel).is_ok(), all);
        world.act(D1, Action::call("2002"));
        world.run(ms(1_000));
        assert!(world.phones[4].is_idle(), "cancelled, or used up");
        world.act(D1, Action::HangUp);
        world.settle();
    }
}

#[test]
fn monitoring_is_for_supervisors_and_intrusion_for_those_who_allow_it() {
    let mut world = talking(|_| {});
    for (who, agent, intrusion, code) in [
        ("2003", "2002", false, Some(Code::NotAllowed)),
        ("2005", "2002", true, Some(Code::NotAllowed)),
        ("2005", "2005", false, Some(Code::NotAllowed)),
        ("2999", "2002", false, Some(Code::UnknownDn)),
        ("2005", "2999", false, Some(Code::UnknownTarget)),
        ("2005", "2002", false, None),
    ] {
        let answer = monitor(&mut world, who, |wish| (wish.agent, wish.intrusion) = (agent.into(), intrusion));
        assert_eq!(answer.err().map(|denied| denied.code), code, "{who} {agent} {intrusion}");
    }
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn when_the_agent_leaves_a_call_that_goes_on_scope_decides_about_the_supervisor() {
    for (scope, how) in [
        (MonitorScope::Call, "transfer"),
        (MonitorScope::Agent, "transfer"),
        (MonitorScope::Call, "conference"),
        (MonitorScope::Agent, "conference"),
    ] {
        let mut world = supervised(|_| {}, |wish| wish.scope = Some(scope));
        match how {
            "transfer" => _ = ask(&mut world, "2002", Ask::SingleStepTransfer { to: "2003".into() }).unwrap(),
            _ => {
                add(&mut world, "2002", "2003");
                world.act(D2, Action::HangUp);
            }
        }
        world.run(ms(500));
        assert!(world.phones[D2].is_idle() && world.phones[D1].is_talking() && world.phones[D3].is_talking());
        let stays = scope == MonitorScope::Call;
        assert_eq!(world.phones[4].is_talking(), stays, "{scope:?} {how}");
        assert_eq!(conversation(&world, 0), if stays { "1c 3s 4a" } else { "1c 4a" });
        assert_routed(&world, 1, 4);
        world.act(D1, Action::HangUp);
        world.settle();
    }
}

#[test]
fn a_supervisor_goes_into_a_consultation_only_when_the_agent_s_dn_says_so() {
    for follows in [MonitorConsult::None, MonitorConsult::Orig, MonitorConsult::Dest, MonitorConsult::All] {
        let mut world = supervised(
            |o| {
                o.plan.dns[1].monitor_consult = follows;
                o.plan.dns[1].record_consult = true;
                o.recording.default = DefaultOwner::Both;
            },
            |wish| wish.mode = Some(MonitorMode::Connect),
        );
        let second = consulted(&mut world);
        let moved = matches!(follows, MonitorConsult::Orig | MonitorConsult::All);
        let (customer, agent) = if moved { ("1c 2a-held", "2a 4x 3s") } else { ("1c 2a-held 3s", "2a 4x") };
        let sorted = |text: &str| {
            let mut members: Vec<String> = text.split(' ').map(ToOwned::to_owned).collect();
            members.sort();
            members
        };
        assert_eq!(sorted(&conversation(&world, 0)), sorted(customer));
        assert_eq!(sorted(&conversation(&world, 1)), sorted(agent));
        assert!(!mixed(&world).0.contains(&1), "the customer hears the supervisor in no mode");
        assert_eq!(mixed(&world).0, if moved { vec![2, 3, 4] } else { vec![3] });
        ask_in(&mut world, second, "2002", Ask::ReconnectCall { other: None }).unwrap();
        world.run(ms(300));
        assert_eq!(mixed(&world).0, [1, 2, 3]);
        assert_eq!(open_rooms(&world), 1);
        world.act(D1, Action::HangUp);
        world.settle();
    }
}

#[test]
fn a_supervisor_in_a_conference_is_no_member() {
    let mut world = supervised(|_| {}, |wish| wish.mode = Some(MonitorMode::Coach));
    add(&mut world, "2002", "2003");
    assert_eq!(conversation(&world, 0), "1c 2a 3s 4a");
    assert_eq!(mixed(&world).0, [1, 2, 3, 4]);
    world.act(D3, Action::HangUp);
    world.run(ms(300));
    assert!(world.proxy.has_fact("deleted 4 by 4, 2 left"));
    world.act(D2, Action::HangUp);
    world.run(ms(300));
    assert!(world.phones.iter().all(|phone| phone.is_idle()), "one party and its observer are no call");
    world.settle();
}

#[test]
fn while_the_agent_holds_the_customer_hears_no_supervisor() {
    let mut world = supervised(|_| {}, |wish| wish.mode = Some(MonitorMode::Connect));
    ask(&mut world, "2002", Ask::HoldCall).unwrap();
    assert_eq!(mixed(&world), (vec![2, 3], vec![1]));
    assert!(hearing(&world, 1).muted && hearing(&world, 2).muted);
    ask(&mut world, "2002", Ask::RetrieveCall).unwrap();
    world.run(ms(100));
    assert_eq!(mixed(&world).0, [1, 2, 3]);
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn who_was_told_of_a_hold_by_its_phone_is_told_of_the_end_although_a_supervisor_speaks_by_then() {
    for joins in [true, false] {
        let mut world = talking(|o| o.plan.dns[1].intrusion = true);
        if !joins {
            monitor(&mut world, "2005", |_| {}).unwrap();
            world.run(ms(500));
        }
        world.act(D2, Action::Hold(HoldForm::SendOnly));
        world.run(ms(300));
        let directions = |world: &World| {
            let offers = world.phones[D1].requests().iter().filter(|r| r.method.as_str() == "INVITE");
            offers.map(|r| String::from_utf8_lossy(&r.body).contains("a=sendonly")).collect::<Vec<_>>()
        };
        assert_eq!(directions(&world), [true]);
        match joins {
            true => monitor(&mut world, "2005", |wish| wish.mode = Some(MonitorMode::Connect)).unwrap(),
            false => _ = ask(&mut world, "2005", Ask::SetMuteOff { coach: false }).unwrap(),
        }
        world.run(ms(500));
        assert_eq!(mixed(&world), (vec![3], vec![1, 2]));
        world.act(D2, Action::Retrieve);
        world.run(ms(500));
        assert_eq!((mixed(&world).0, directions(&world)), (vec![1, 2, 3], vec![true, false]));
        world.act(D1, Action::HangUp);
        world.settle();
    }
}

#[test]
fn a_supervisor_that_does_not_answer_changes_nothing_and_one_that_rings_is_given_up_with_the_call() {
    let mut world = talking(|o| o.plan.dns[1].intrusion = true);
    world.phones.truncate(4);
    world.phone(5, |o| o.incoming = Incoming::Refuse(486));
    monitor(&mut world, "2005", |_| {}).unwrap();
    world.run(ms(500));
    assert!(world.proxy.has_fact("not added busy"));
    assert_routed(&world, 1, 2);
    world.phones.truncate(4);
    world.phone(5, |o| o.incoming = Incoming::Manual);
    monitor(&mut world, "2005", |_| {}).unwrap();
    world.run(ms(300));
    world.act(D1, Action::HangUp);
    world.run(ms(300));
    assert!(world.phones[4].is_idle());
    world.settle();
}
