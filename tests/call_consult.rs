//! Consultations over a second dialog in virtual time: a phone with two lines holds one call and places another
//! (spec/recording.md §4.4, spec/sip.md §6).

mod call_world;

use std::collections::BTreeMap;

use call_world::*;
use stickytape::bridge::command::Command;
use stickytape::call::Input;
use stickytape::call::fact::What;
use stickytape::call::options::{DefaultOwner, Options};
use stickytape::call::request::{Accepted, Ask, Code, Denied, OwnerWish, Request as Asked, Ticket};
use stickytape::id::{ConnId, LegId, RecordingId};
use stickytape::record::mark::{Change, Channel, Conversation, Role, StopCause};
use stickytape::testing::phone::{self, Action, HoldForm, Incoming, Refer};

const D1: usize = 0;
const D2: usize = 1;
const D3: usize = 2;

/// Legs in the order in which they begin: D1 and D2 in the first call, D2 and D3 in the second.
const B1: LegId = LegId(2);
const B2: LegId = LegId(3);
const C: LegId = LegId(4);

/// Phones 2001, 2002 with two lines, 2003. D2's recording follows it if `follows`.
fn world(follows: bool, change: impl FnOnce(&mut Options), phone: impl Fn(u8, &mut phone::Options)) -> World {
    let mut options = options();
    options.recording.default = DefaultOwner::Termination;
    options.plan.dns[1].record_consult = follows;
    change(&mut options);
    let mut world = World::new(options);
    for n in 1..=3 {
        world.phone(n, |o| {
            o.lines = 2;
            phone(n, o);
        });
    }
    world.act(D1, Action::call("2002"));
    world.run(ms(1_000));
    world
}

/// D2 holds D1 and talks to D3.
fn consulting_with(follows: bool, change: impl FnOnce(&mut Options), phone: impl Fn(u8, &mut phone::Options)) -> World {
    let mut world = world(follows, change, phone);
    world.act(D2, Action::Hold(HoldForm::SendOnly));
    world.run(ms(300));
    world.act(D2, Action::on(1, Action::call("2003")));
    world.run(ms(1_000));
    world
}

fn consulting(follows: bool) -> World {
    consulting_with(follows, |_| {}, |_, _| {})
}

fn conn_ids(world: &World) -> Vec<ConnId> {
    let started = world.proxy.facts.iter().filter(|f| matches!(f.what, What::CallStarted { .. }));
    started.map(|f| f.conn_id.unwrap()).collect()
}

fn send(world: &mut World, conn_id: ConnId, dn: &str, ask: Ask) -> Ticket {
    let ticket = Ticket(world.proxy.answers.len() as u64 + 100);
    let request = Asked { conn_id, this_dn: dn.to_owned(), reference: None, ask };
    world.tell(Input::Request(ticket, Box::new(request)));
    ticket
}

fn ask(world: &mut World, conn_id: ConnId, dn: &str, ask: Ask) -> Result<Accepted, Denied> {
    let ticket = send(world, conn_id, dn, ask);
    world.run(ms(500));
    let (_, answer) = world.proxy.answers.iter().find(|(t, _)| *t == ticket).expect("answered").clone();
    answer
}

fn code(answer: Result<Accepted, Denied>) -> Option<Code> {
    answer.err().map(|denied| denied.code)
}

/// What the recorder was told of each session, in order: who is in it, `h` for who holds, and where.
fn told(world: &World) -> Vec<Vec<String>> {
    let conns = conn_ids(world);
    let say = |conversation: &Conversation| {
        let members = conversation.members.iter();
        let members: Vec<String> =
            members.map(|m| format!("{}{}", m.leg, if m.holds || m.held { "h" } else { "" })).collect();
        let call = conns.iter().position(|c| *c == conversation.conn_id).map_or(0, |at| at + 1);
        let unbridged = if conversation.unbridged { " unbridged" } else { "" };
        let consult = if conversation.consult { " consult" } else { "" };
        format!("C{call} {}{consult}{unbridged}", members.join("+"))
    };
    let mut sessions: BTreeMap<RecordingId, (usize, Vec<String>)> = BTreeMap::new();
    for (_, mark) in &world.proxy.marks {
        let (id, line) = match &mark.change {
            Change::Start(start) => (start.id, say(&start.conversation)),
            Change::Conversation { id, conversation } => (*id, say(conversation)),
            Change::Stop { id, cause } => (*id, format!("{cause:?}")),
            _ => continue,
        };
        let next = sessions.len();
        let lines = &mut sessions.entry(id).or_insert((next, Vec::new())).1;
        if lines.last() != Some(&line) {
            lines.push(line);
        }
    }
    let mut sessions: Vec<(usize, Vec<String>)> = sessions.into_values().collect();
    sessions.sort();
    sessions.into_iter().map(|(_, lines)| lines).collect()
}

/// Who gets a leg's packets now, and under which name.
fn tapped(world: &World, leg: LegId) -> (usize, Option<LegId>) {
    let commands = || world.proxy.commands.iter().rev().map(|(_, c)| c);
    let taps = commands().find_map(|c| match c {
        Command::Tap { leg: l, recorders } if *l == leg => Some(recorders.len()),
        _ => None,
    });
    let name = commands().find_map(|c| match c {
        Command::TapAs { leg: l, name } if *l == leg => Some(*name),
        _ => None,
    });
    (taps.unwrap_or(0), name.flatten())
}

fn causes(world: &World) -> Vec<StopCause> {
    world.proxy.stops().into_iter().map(|(_, cause)| cause).collect()
}

fn facts_after(world: &World, first: usize) -> Vec<String> {
    world.proxy.story()[first..].to_vec()
}

#[test]
fn a_call_placed_while_the_other_one_is_held_is_a_consult_call_and_starts_no_session() {
    for hold in [HoldForm::SendOnly, HoldForm::Inactive, HoldForm::NullAddress] {
        let mut world = world(true, |o| o.recording.default = DefaultOwner::Both, |_, _| {});
        let calls = conn_ids(&world);
        world.act(D2, Action::Hold(hold));
        world.run(ms(300));
        world.act(D2, Action::on(1, Action::call("2003")));
        world.run(ms(1_000));
        let consult_of: Vec<Option<ConnId>> = world
            .proxy
            .facts
            .iter()
            .filter_map(|f| match f.what {
                What::CallStarted { consult_of, .. } => Some(consult_of),
                _ => None,
            })
            .collect();
        assert_eq!(consult_of, [None, Some(calls[0])], "{hold:?}");
        assert_eq!(world.proxy.starts().len(), 2, "those of the first call");
        world.act(D3, Action::HangUp);
        world.run(ms(300));
        world.act(D1, Action::HangUp);
        world.settle();
    }
}

#[test]
fn a_call_held_by_request_is_held_too_and_one_that_is_not_held_makes_an_ordinary_call() {
    for by_request in [true, false] {
        let mut world = world(true, |_| {}, |_, _| {});
        let calls = conn_ids(&world);
        if by_request {
            assert!(ask(&mut world, calls[0], "2002", Ask::HoldCall).is_ok());
        }
        world.act(D2, Action::on(1, Action::call("2003")));
        world.run(ms(1_000));
        assert_eq!(world.proxy.starts().len(), if by_request { 1 } else { 2 });
        world.act(D1, Action::HangUp);
        world.act(D3, Action::HangUp);
        world.settle();
    }
}

#[test]
fn a_required_recording_neither_refuses_nor_ends_a_consult_call() {
    let mut world = consulting_with(true, |o| o.recording.required = true, |_, _| {});
    world.act(D2, Action::on(1, Action::HangUp));
    world.run(ms(300));
    world.tell(Input::Space { ok: false });
    world.act(D2, Action::on(1, Action::call("2003")));
    world.run(ms(1_000));
    assert!(world.phones[D3].is_talking(), "no space for a new session, but none is asked for");
    world.act(D1, Action::HangUp);
    world.act(D3, Action::HangUp);
    world.settle();
}

#[test]
fn the_owner_s_recording_follows_it_into_its_consultation_and_comes_back() {
    let mut world = consulting(true);
    assert_eq!(told(&world), [["C1 1+2", "C1 1+2h", "C2 2+4 consult"]]);
    assert_eq!(tapped(&world, B1), (0, None), "the music of a phone that holds is not heard");
    assert_eq!(tapped(&world, B2), (1, Some(B1)));
    assert_eq!(tapped(&world, C), (1, None));
    world.act(D3, Action::HangUp);
    world.run(ms(300));
    assert_eq!(tapped(&world, B1), (1, None));
    world.act(D2, Action::on(0, Action::Retrieve));
    world.run(ms(300));
    world.act(D1, Action::HangUp);
    world.run(ms(300));
    assert_eq!(told(&world), [["C1 1+2", "C1 1+2h", "C2 2+4 consult", "C1 1+2h", "C1 1+2", "Released"]]);
    world.settle();
}

#[test]
fn every_leg_is_known_to_the_recorder_while_a_session_names_it() {
    let mut world = consulting(true);
    world.act(D3, Action::HangUp);
    world.run(ms(300));
    world.act(D1, Action::HangUp);
    world.run(ms(300));
    let mut known = Vec::new();
    let mut named: Vec<LegId> = Vec::new();
    for (_, mark) in &world.proxy.marks {
        match &mark.change {
            Change::Payloads { leg, .. } => known.push(*leg),
            Change::LegEnded(leg) => {
                assert!(!named.contains(leg), "{leg} has ended in a conversation");
                known.retain(|l| l != leg);
            }
            Change::Start(start) => named = start.conversation.members.iter().map(|m| m.leg).collect(),
            Change::Conversation { conversation, .. } => {
                named = conversation.members.iter().map(|m| m.leg).collect();
                assert!(named.iter().all(|leg| known.contains(leg)), "{named:?} {known:?}");
            }
            Change::Stop { .. } => named.clear(),
            _ => {}
        }
    }
    assert!(known.is_empty(), "{known:?}");
    world.settle();
}

#[test]
fn the_consulted_party_has_the_channel_that_its_consulting_party_has_not() {
    let world = consulting(true);
    let conversation = world.proxy.marks.iter().rev().find_map(|(_, mark)| match &mark.change {
        Change::Conversation { conversation, .. } => Some(conversation.clone()),
        _ => None,
    });
    let members = conversation.expect("told").members;
    let told: Vec<(Channel, Role)> = members.iter().map(|m| (m.channel, m.role)).collect();
    assert_eq!(told, [(Channel::Right, Role::Agent), (Channel::Left, Role::Consulted)]);
}

#[test]
fn without_the_option_and_for_the_held_owner_the_recording_stays_with_the_held_call() {
    for default in [DefaultOwner::Termination, DefaultOwner::Origination] {
        for follows in [false, true] {
            if follows && default == DefaultOwner::Termination {
                continue;
            }
            let mut world = consulting_with(follows, |o| o.recording.default = default, |_, _| {});
            assert_eq!(told(&world), [["C1 1+2", "C1 1+2h"]], "{default:?} {follows}");
            assert_eq!((tapped(&world, B2), tapped(&world, C)), ((0, None), (0, None)));
            world.act(D1, Action::HangUp);
            world.act(D3, Action::HangUp);
            world.settle();
        }
    }
}

#[test]
fn alternating_by_the_phone_moves_the_recording_each_time() {
    let mut world = consulting(true);
    for _ in 0..2 {
        world.act(D2, Action::on(1, Action::Hold(HoldForm::SendOnly)));
        world.run(ms(300));
        world.act(D2, Action::on(0, Action::Retrieve));
        world.run(ms(300));
        world.act(D2, Action::on(0, Action::Hold(HoldForm::SendOnly)));
        world.run(ms(300));
        world.act(D2, Action::on(1, Action::Retrieve));
        world.run(ms(300));
    }
    let once = ["C1 1+2h", "C1 1+2", "C1 1+2h", "C2 2+4 consult"];
    let expected: Vec<&str> = ["C1 1+2", "C1 1+2h", "C2 2+4 consult"].into_iter().chain(once).chain(once).collect();
    assert_eq!(told(&world), [expected]);
    assert_eq!(tapped(&world, B1), (0, None));
    world.act(D1, Action::HangUp);
    world.act(D3, Action::HangUp);
    world.settle();
}

#[test]
fn the_held_party_s_end_ends_the_recording_and_the_consultation_goes_on() {
    let mut world = consulting(true);
    world.act(D1, Action::HangUp);
    world.run(ms(500));
    assert!(world.phones[D3].is_talking());
    assert_eq!(causes(&world), [StopCause::Released]);
    assert_eq!((tapped(&world, B2), tapped(&world, C).1), ((0, None), None));
    let calls = conn_ids(&world);
    // It is a call of its own now: its parties may ask for a recording.
    assert!(ask(&mut world, calls[1], "2003", Ask::RecordStart { owner: OwnerWish::Source }).is_ok());
    assert_eq!(told(&world)[1], ["C2 3+4"]);
    assert_eq!(tapped(&world, B2), (1, None));
    world.act(D3, Action::HangUp);
    world.settle();
}

#[test]
fn hanging_up_either_line_leaves_the_other_call() {
    let mut world = consulting(true);
    world.act(D2, Action::on(1, Action::HangUp));
    world.run(ms(300));
    assert!(world.phones[D3].is_idle() && world.phones[D1].is_talking());
    assert_eq!(told(&world)[0].last().unwrap(), "C1 1+2h");
    world.act(D2, Action::on(0, Action::HangUp));
    world.settle();

    let mut world = consulting(true);
    world.act(D2, Action::on(0, Action::HangUp));
    world.run(ms(300));
    assert!(world.phones[D3].is_talking() && world.phones[D1].is_idle());
    assert_eq!(causes(&world), [StopCause::Released]);
    world.act(D3, Action::HangUp);
    world.settle();
}

#[test]
fn a_refer_in_either_dialog_joins_the_parties_in_the_call_that_was_held() {
    for (on, names) in [(0, 1), (1, 0)] {
        let mut world = consulting_with(true, |o| o.recording.default = DefaultOwner::Both, |_, _| {});
        let calls = conn_ids(&world);
        world.act(D2, Action::on(on, Action::Refer(Refer::to_line(names))));
        world.run(ms(3_500));
        assert!(world.phones[D1].is_talking() && world.phones[D3].is_talking() && world.phones[D2].is_idle());
        let live: Vec<ConnId> = world.proxy.calls.snapshot().iter().map(|c| c.conn_id).collect();
        assert_eq!(live, [calls[0]], "REFER on line {on}");
        assert_eq!(told(&world)[0], ["C1 1+2", "C1 1+2h", "C1 1+2h unbridged", "C1 1+4"]);
        assert_eq!(told(&world)[1].last().unwrap(), "OwnerLeft");
        world.act(D1, Action::HangUp);
        world.settle();
    }
}

#[test]
fn a_consult_call_lives_beside_the_held_call_so_that_nothing_moves_when_they_are_joined() {
    let mut world = consulting(true);
    let calls = conn_ids(&world);
    assert!(ask(&mut world, calls[1], "2002", Ask::CompleteTransfer { other: None }).is_ok());
    assert!(!world.proxy.commands.iter().any(|(_, c)| matches!(c, Command::Move { .. })));
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn complete_transfer_over_two_dialogs_is_what_refer_with_replaces_is() {
    for path in [0, 1] {
        let mut world = consulting_with(true, |o| o.plan.dns[2].record = Some(true), |_, _| {});
        let calls = conn_ids(&world);
        let before = world.proxy.story().len();
        let accepted = ask(&mut world, calls[path], "2002", Ask::CompleteTransfer { other: None }).unwrap();
        assert_eq!(accepted.conn_id, calls[0], "the held call goes on");
        world.run(ms(1_000));
        assert!(world.phones[D1].is_talking() && world.phones[D3].is_talking() && world.phones[D2].is_idle());
        assert_eq!(
            facts_after(&world, before)[..3],
            ["stopped OwnerLeft", "transferred 1 from 2 to 4", "recording Termination"],
            "D3's own trigger fires when it becomes a transfer"
        );
        let live: Vec<ConnId> = world.proxy.calls.snapshot().iter().map(|c| c.conn_id).collect();
        assert_eq!(live, [calls[0]]);
        world.act(D1, Action::HangUp);
        world.settle();
    }
}

#[test]
fn a_ringing_target_of_a_second_dialog_can_be_transferred_to() {
    let manual = |n: u8, o: &mut phone::Options| {
        if n == 3 {
            o.incoming = Incoming::Manual;
        }
    };
    for by_request in [true, false] {
        let mut world = consulting_with(true, |_| {}, manual);
        world.act(D3, Action::Ring);
        world.run(ms(300));
        let calls = conn_ids(&world);
        if by_request {
            assert!(ask(&mut world, calls[1], "2002", Ask::CompleteTransfer { other: Some(calls[0]) }).is_ok());
        } else {
            world.act(D2, Action::on(0, Action::Refer(Refer::to_line(1))));
        }
        world.run(ms(500));
        assert_eq!(world.proxy.calls.snapshot().len(), 1);
        world.act(D3, Action::Answer);
        world.run(ms(500));
        assert!(world.phones[D1].is_talking() && world.phones[D3].is_talking());
        assert_eq!(causes(&world), [StopCause::OwnerLeft]);
        world.act(D1, Action::HangUp);
        world.settle();
    }
}

#[test]
fn a_request_over_two_dialogs_names_the_other_call_where_there_are_several() {
    let mut world = world_of_three_calls();
    let calls = conn_ids(&world);
    assert_eq!(calls.len(), 3);
    assert_eq!(code(ask(&mut world, calls[2], "2002", Ask::CompleteTransfer { other: None })), Some(Code::OtherCall));
    let stranger = ConnId(77);
    let named = Ask::CompleteTransfer { other: Some(stranger) };
    assert_eq!(code(ask(&mut world, calls[2], "2002", named)), Some(Code::OtherCall));
    let own = Ask::AlternateCall { other: Some(calls[2]) };
    assert_eq!(code(ask(&mut world, calls[2], "2002", own)), Some(Code::OtherCall));
    assert_eq!(world.proxy.calls.snapshot().len(), 3, "nothing changes");
    assert!(ask(&mut world, calls[2], "2002", Ask::CompleteTransfer { other: Some(calls[0]) }).is_ok());
    world.run(ms(500));
    assert_eq!(world.proxy.calls.snapshot().len(), 2);
    for phone in 0..world.phones.len() {
        if world.phones[phone].is_talking() {
            world.act(phone, Action::HangUp);
            world.run(ms(300));
        }
    }
    world.settle();
}

/// D2 holds D1 and D3 and talks to D4.
fn world_of_three_calls() -> World {
    let mut world = consulting_with(
        true,
        |_| {},
        |n, o| {
            if n == 2 {
                o.lines = 3;
            }
        },
    );
    world.phone(4, |_| {});
    world.act(D2, Action::on(1, Action::Hold(HoldForm::SendOnly)));
    world.run(ms(300));
    world.act(D2, Action::on(2, Action::call("2004")));
    world.run(ms(1_000));
    world
}

#[test]
fn with_several_held_calls_the_recording_is_with_the_one_that_is_talked_in() {
    let mut world = world_of_three_calls();
    let expected = ["C1 1+2", "C1 1+2h", "C2 2+4 consult", "C1 1+2h", "C3 2+6 consult"];
    assert_eq!(told(&world), [expected]);
    world.act(D2, Action::on(2, Action::HangUp));
    world.run(ms(300));
    world.act(D2, Action::on(1, Action::Retrieve));
    world.run(ms(300));
    assert_eq!(told(&world)[0][5..], ["C1 1+2h", "C2 2+4 consult"]);
    world.act(D1, Action::HangUp);
    world.act(D3, Action::HangUp);
    world.settle();
}

#[test]
fn a_request_of_a_dn_with_one_call_is_refused() {
    let mut world = world(true, |_| {}, |_, _| {});
    let calls = conn_ids(&world);
    for request in [
        Ask::CompleteTransfer { other: None },
        Ask::AlternateCall { other: None },
        Ask::ReconnectCall { other: Some(calls[0]) },
    ] {
        assert_eq!(code(ask(&mut world, calls[0], "2002", request)), Some(Code::WrongState));
    }
    world.act(D1, Action::HangUp);
    world.settle();
}
