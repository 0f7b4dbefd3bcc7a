//! Supervisors and consultations in virtual time: `monitor-consult-calls` of a DN that is consulted, over one dialog and over
//! two (spec/recording.md §4.4 and §4.6). Those of who consults are in `call_conference`.

use crate::call_world::mixed::*;
use crate::call_world::*;
use stickytape::call::Input;
use stickytape::call::fact::What;
use stickytape::call::options::{DnRole, MonitorConsult};
use stickytape::call::request::{Ask, Code, DnAsk, DnRequest, MonitorMode, MonitorNextCall, Ticket};
use stickytape::id::ConnId;
use stickytape::testing::phone::{Action, HoldForm, Refer};

const D1: usize = 0;
const D2: usize = 1;
const D3: usize = 2;
/// The supervisor 2005, who waits for a call of 2003.
const S: usize = 3;

/// 2001 talks to 2002. The DN 2003 says of its consultations what `reached` says.
fn world(reached: MonitorConsult) -> World {
    let mut options = options();
    options.plan.dns[2].monitor_consult = reached;
    options.plan.dns[4].role = DnRole::Supervisor;
    let mut world = World::new(options);
    for n in [1, 2, 3, 5] {
        world.phone(n, |o| o.lines = 2);
    }
    let wish = MonitorNextCall {
        agent: "2003".into(),
        mode: Some(MonitorMode::Connect),
        scope: None,
        all: true,
        intrusion: false,
    };
    let request = DnRequest { this_dn: "2005".into(), reference: None, ask: DnAsk::MonitorNextCall(wish) };
    world.tell(Input::DnRequest(Ticket(1), Box::new(request)));
    world.act(D1, Action::call("2002"));
    world.run(ms(1_000));
    world
}

/// 2002 consults 2003 over its one dialog: the consult call.
fn consulting(reached: MonitorConsult) -> (World, ConnId) {
    let mut world = world(reached);
    let first = world.proxy.calls.snapshot()[0].conn_id;
    let second =
        ask_in(&mut world, first, "2002", Ask::InitiateTransfer { to: "2003".into() }).expect("accepted").conn_id;
    world.run(ms(1_000));
    (world, second)
}

#[test]
fn who_is_consulted_brings_its_supervisor_when_its_dn_says_so() {
    use MonitorConsult::{All, Dest, None, Orig};
    for (reached, comes) in [(None, false), (Orig, false), (Dest, true), (All, true)] {
        let (mut world, second) = consulting(reached);
        assert_eq!(world.phones[S].is_talking(), comes, "{reached:?}");
        let joined = world.proxy.facts.iter().find(|f| matches!(f.what, What::ObserverJoined { .. }));
        assert_eq!(joined.map(|f| f.conn_id), comes.then_some(Some(second)), "told of the consult call");
        assert_eq!(mixed(&world).0, if comes { vec![2, 3, 4] } else { vec![] }, "the held party hears none of it");
        world.act(D1, Action::HangUp);
        world.act(D2, Action::HangUp);
        world.act(D3, Action::HangUp);
        world.settle();
    }
}

#[test]
fn the_supervisor_of_who_was_consulted_leaves_when_the_consultation_ends() {
    for by_request in [true, false] {
        let (mut world, second) = consulting(MonitorConsult::Dest);
        match by_request {
            true => _ = ask_in(&mut world, second, "2002", Ask::ReconnectCall { other: None }).expect("accepted"),
            false => world.act(D3, Action::HangUp),
        }
        world.run(ms(500));
        assert!(world.phones[S].is_idle() && world.phones[D3].is_idle() && world.phones[D1].is_talking());
        let left = world.proxy.facts.iter().find(|f| matches!(f.what, What::ObserverLeft { .. })).expect("left");
        assert_eq!(left.conn_id, Some(second));
        assert_eq!((seats(&world), open_rooms(&world)), (vec![], 0));
        world.act(D1, Action::HangUp);
        world.settle();
    }
}

#[test]
fn while_the_other_call_is_active_the_supervisor_of_who_was_consulted_hears_nobody() {
    let (mut world, second) = consulting(MonitorConsult::Dest);
    ask_in(&mut world, second, "2002", Ask::AlternateCall { other: None }).expect("accepted");
    assert_eq!(mixed(&world).0, Vec::<u64>::new());
    assert_routed(&world, 1, 2);
    assert!(world.phones[S].is_talking());
    ask_in(&mut world, second, "2002", Ask::AlternateCall { other: None }).expect("accepted");
    assert_eq!(mixed(&world).0, [2, 3, 4]);
    world.act(D2, Action::HangUp);
    world.run(ms(300));
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn the_supervisor_of_who_was_consulted_stays_with_it_in_the_call_that_it_joins() {
    for transfer in [true, false] {
        let (mut world, second) = consulting(MonitorConsult::All);
        let complete = match transfer {
            true => Ask::CompleteTransfer { other: None },
            false => Ask::CompleteConference { other: None },
        };
        ask_in(&mut world, second, "2002", complete).expect("accepted");
        world.run(ms(500));
        assert!(world.phones[S].is_talking() && world.phones[D1].is_talking() && world.phones[D3].is_talking());
        assert_eq!(world.phones[D2].is_talking(), !transfer);
        assert_eq!(mixed(&world).0, if transfer { vec![1, 3, 4] } else { vec![1, 2, 3, 4] });
        world.act(D1, Action::HangUp);
        world.act(D2, Action::HangUp);
        world.settle();
    }
}

#[test]
fn a_consultation_over_a_second_dialog_brings_supervisors_alike() {
    use MonitorConsult::{All, Dest, None, Orig};
    for (reached, comes) in [(None, false), (Orig, false), (Dest, true), (All, true)] {
        let mut world = world(reached);
        world.act(D2, Action::Hold(HoldForm::SendOnly));
        world.run(ms(300));
        world.act(D2, Action::on(1, Action::call("2003")));
        world.run(ms(1_500));
        assert!(world.phones[D3].is_talking());
        assert_eq!(world.phones[S].is_talking(), comes, "{reached:?}");
        world.act(D2, Action::on(1, Action::HangUp));
        world.run(ms(500));
        assert!(world.phones[S].is_idle());
        world.act(D1, Action::HangUp);
        world.settle();
    }
}

/// A supervisor of 2002 and 2003, who talk to 2001 and 2004.
fn two_calls() -> (World, Vec<ConnId>) {
    let mut options = options();
    options.plan.dns[4].role = DnRole::Supervisor;
    let mut world = World::new(options);
    for n in 1..=5 {
        world.phone(n, |o| (o.lines, o.call_waiting, o.seed) = (3, true, u64::from(n)));
    }
    for agent in ["2002", "2003"] {
        let wish = MonitorNextCall { agent: agent.into(), mode: None, scope: None, all: false, intrusion: false };
        let request = DnRequest { this_dn: "2005".into(), reference: None, ask: DnAsk::MonitorNextCall(wish) };
        world.tell(Input::DnRequest(Ticket(1), Box::new(request)));
    }
    world.act(D1, Action::call("2002"));
    world.act(3, Action::call("2003"));
    world.run(ms(2_000));
    let calls = world.proxy.calls.snapshot().iter().map(|call| call.conn_id).collect();
    assert_eq!(world.proxy.facts.iter().filter(|f| matches!(f.what, What::ObserverJoined { .. })).count(), 2);
    (world, calls)
}

#[test]
fn a_supervisor_of_two_calls_joins_none_of_them() {
    let (mut world, calls) = two_calls();
    for ask in [
        Ask::CompleteTransfer { other: Some(calls[1]) },
        Ask::CompleteTransfer { other: None },
        Ask::CompleteConference { other: None },
        Ask::MergeCalls { other: calls[1] },
        Ask::AlternateCall { other: Some(calls[1]) },
        Ask::ReconnectCall { other: None },
    ] {
        let refused = ask_in(&mut world, calls[0], "2005", ask).expect_err("refused");
        assert_eq!((refused.code, refused.detail.as_str()), (Code::WrongState, "ThisDN only observes the call"));
    }
    // By its phone alike: it is nobody's other party.
    for refer in [Refer::to_line(1), Refer::to("2004")] {
        world.act(S + 1, Action::on(0, Action::Refer(refer)));
        world.run(ms(500));
        let answer = world.phones[S + 1].responses().last().expect("answered");
        assert_eq!(answer.code, 403);
    }
    assert_eq!(world.proxy.calls.snapshot().len(), 2);
    // In a call of its own it is a party like others, and that call is no consultation.
    world.act(S + 1, Action::on(0, Action::Hold(HoldForm::SendOnly)));
    world.run(ms(300));
    world.act(S + 1, Action::on(2, Action::call("2002")));
    world.run(ms(1_000));
    let own = world.proxy.calls.snapshot().into_iter().next_back().expect("its own");
    assert_eq!((own.state, own.previous_conn_id), ("talking", None));
    let merge = Ask::MergeCalls { other: calls[0] };
    assert_eq!(ask_in(&mut world, own.conn_id, "2005", merge).expect_err("refused").code, Code::OtherCall);
    world.act(S + 1, Action::on(2, Action::Refer(Refer::to_line(0))));
    world.run(ms(500));
    assert_eq!(world.phones[S + 1].responses().last().map(|answer| answer.code), Some(491));
    for phone in [D1, 3, S + 1] {
        world.act(phone, Action::HangUp);
    }
    world.settle();
}
