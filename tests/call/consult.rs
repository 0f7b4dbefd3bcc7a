//! Consultations over a second dialog in virtual time: a phone with two lines holds one call and places another
//! (spec/recording.md §4.4, spec/sip.md §6).

use std::collections::BTreeMap;

use crate::call_world::*;
use stickytape::bridge::command::Command;
use stickytape::call::Input;
use stickytape::call::fact::What;
use stickytape::call::options::{DefaultOwner, HoldBy, Options};
use stickytape::call::request::{Accepted, Ask, Code, Denied, OwnerWish, Request as Asked, Ticket};
use stickytape::id::{ConnId, LegId, RecorderId, RecordingId};
use stickytape::record::mark::{Change, Channel, Conversation, Role, StopCause};
use stickytape::sip::name::Name;
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
fn a_consult_call_that_is_redirected_stays_one() {
    let manual = |n: u8, o: &mut phone::Options| {
        if n == 3 {
            o.incoming = Incoming::Manual;
        }
    };
    let mut world = consulting_with(true, |_| {}, manual);
    world.phone(4, |_| {});
    let calls = conn_ids(&world);
    world.act(D3, Action::Ring);
    world.run(ms(100));
    assert!(ask(&mut world, calls[1], "2003", Ask::RedirectCall { to: "2004".into() }).is_ok());
    world.run(ms(1_000));
    assert!(world.phones[3].is_talking());
    assert_eq!(told(&world).len(), 1, "no session of its own");
    assert_eq!(told(&world)[0].last().unwrap(), "C2 2+5 consult");
    world.act(D1, Action::HangUp);
    world.act(3, Action::HangUp);
    world.settle();
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
fn the_music_that_the_held_owner_hears_is_recorded_beside_the_consultation() {
    let both = |o: &mut Options| {
        o.recording.default = DefaultOwner::Both;
        o.recording.hold_music = true;
    };
    let mut world = consulting_with(true, both, |_, _| {});
    let (recorders, name) = tapped(&world, B1);
    let music = name.expect("not under the name of the device, which speaks elsewhere");
    // Music takes a leg's number: D2's second leg has the next one.
    assert_eq!((recorders, music, tapped(&world, LegId(4))), (1, LegId(3), (1, Some(B1))));
    assert_eq!(told(&world)[0].last().unwrap(), "C1 1+2h+3");
    assert_eq!(told(&world)[1].last().unwrap(), "C2 2+5 consult");
    world.act(D2, Action::on(1, Action::HangUp));
    world.run(ms(300));
    world.act(D2, Action::on(0, Action::Retrieve));
    world.run(ms(300));
    assert_eq!(tapped(&world, B1), (1, None));
    world.act(D1, Action::HangUp);
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
fn when_the_held_party_leaves_the_device_s_recording_goes_on_in_what_is_an_ordinary_call_then() {
    for follows in [true, false] {
        let mut world = consulting(follows);
        world.act(D1, Action::HangUp);
        world.run(ms(500));
        assert!(world.phones[D3].is_talking());
        assert!(world.proxy.stops().is_empty());
        let expected: &[&str] = match follows {
            true => &["C1 1+2", "C1 1+2h", "C2 2+4 consult", "C2 2+4"],
            false => &["C1 1+2", "C1 1+2h", "C2 2+4"],
        };
        assert_eq!(told(&world), [expected], "the device keeps its name");
        assert_eq!((tapped(&world, B2), tapped(&world, C)), ((1, Some(B1)), (1, None)));
        let calls = conn_ids(&world);
        let running = world.proxy.starts()[0].1.id;
        let started = ask(&mut world, calls[1], "2002", Ask::RecordStart { owner: OwnerWish::Source });
        assert_eq!(started.unwrap().recording, Some(running), "one session per owner");
        // The consulted party is only consulted no more.
        assert!(ask(&mut world, calls[1], "2003", Ask::RecordStart { owner: OwnerWish::Source }).is_ok());
        assert_eq!(told(&world)[1], ["C2 2+4"]);
        world.act(D3, Action::HangUp);
        world.run(ms(300));
        assert_eq!(causes(&world), [StopCause::Released, StopCause::Released]);
        let ended = |leg| {
            let marks = world.proxy.marks.iter();
            marks.filter(|(_, m)| matches!(m.change, Change::LegEnded(l) if l == leg)).count()
        };
        assert_eq!((ended(LegId(1)), ended(B1), ended(C)), (1, 1, 1));
        world.settle();
    }
}

#[test]
fn a_recording_of_a_call_that_ends_while_the_consulted_party_rings_ends_with_it() {
    let manual = |n: u8, o: &mut phone::Options| {
        if n == 3 {
            o.incoming = Incoming::Manual;
        }
    };
    let mut world = consulting_with(true, |_| {}, manual);
    world.act(D1, Action::HangUp);
    world.run(ms(300));
    assert_eq!(causes(&world), [StopCause::Released]);
    world.act(D3, Action::Answer);
    world.run(ms(300));
    assert_eq!(world.proxy.starts().len(), 1, "no trigger starts a session on a consult call");
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
    assert_eq!(told(&world)[0].last().unwrap(), "C2 2+4");
    world.act(D3, Action::HangUp);
    world.settle();
}

#[test]
fn a_blind_transfer_out_of_the_consultation_makes_it_a_call_between_others() {
    let mut world = consulting_with(true, |o| o.plan.dns[2].record = Some(true), |_, _| {});
    world.phone(4, |_| {});
    world.act(D2, Action::on(1, Action::Refer(Refer::to("2004"))));
    world.run(ms(3_500));
    assert!(world.phones[D3].is_talking() && world.phones[3].is_talking());
    assert_eq!(told(&world)[0], ["C1 1+2", "C1 1+2h", "C2 2+4 consult", "C2 2+4 consult unbridged", "C1 1+2h"]);
    assert_eq!(told(&world)[1], ["C2 4+5"], "D3's own trigger");
    world.act(D1, Action::HangUp);
    world.act(D3, Action::HangUp);
    world.settle();
}

#[test]
fn who_is_transferred_to_a_consulting_device_is_consulted_and_starts_nothing() {
    let mut world = consulting_with(true, |o| o.plan.dns[3].record = Some(true), |_, _| {});
    world.phone(4, |_| {});
    world.act(D3, Action::Refer(Refer::to("2004")));
    world.run(ms(3_500));
    assert!(world.phones[3].is_talking() && world.phones[D3].is_idle());
    assert_eq!(told(&world).len(), 1);
    assert_eq!(told(&world)[0].last().unwrap(), "C2 2+5 consult");
    world.act(D1, Action::HangUp);
    world.act(3, Action::HangUp);
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

/// How the members of each live call are: `h` for a side that holds.
fn states(world: &World) -> Vec<&'static str> {
    world.proxy.calls.snapshot().iter().map(|c| c.state).collect()
}

fn yields(n: u8, o: &mut phone::Options) {
    o.yields = n == 2;
}

#[test]
fn alternate_call_over_two_dialogs_holds_one_and_retrieves_the_other() {
    let mut world = consulting_with(true, |_| {}, yields);
    let calls = conn_ids(&world);
    let before = world.proxy.story().len();
    let accepted = ask(&mut world, calls[1], "2002", Ask::AlternateCall { other: None }).unwrap();
    assert_eq!(accepted.conn_id, calls[1]);
    assert_eq!(facts_after(&world, before), ["held 3", "retrieved 2"]);
    assert_eq!(states(&world), ["talking", "held"]);
    assert_eq!(told(&world)[0][3..], ["C1 1+2"]);
    let before = world.proxy.story().len();
    assert!(ask(&mut world, calls[0], "2002", Ask::AlternateCall { other: Some(calls[1]) }).is_ok());
    assert_eq!(facts_after(&world, before), ["held 2", "retrieved 3"]);
    assert_eq!(told(&world)[0].last().unwrap(), "C2 2+4 consult");
    assert_eq!(code(ask(&mut world, calls[0], "2002", Ask::AlternateCall { other: None })), Some(Code::WrongState));
    world.act(D1, Action::HangUp);
    world.act(D3, Action::HangUp);
    world.settle();
}

#[test]
fn a_phone_that_goes_on_holding_keeps_everything_as_it_was() {
    for request in [
        Ask::AlternateCall { other: None },
        Ask::ReconnectCall { other: None },
        Ask::RetrieveCall,
        Ask::InitiateTransfer { to: "2004".into() },
    ] {
        let mut world = consulting(true);
        world.phone(4, |_| {});
        let calls = conn_ids(&world);
        let path = match request {
            Ask::RetrieveCall | Ask::InitiateTransfer { .. } => calls[0],
            _ => calls[1],
        };
        let before = (world.proxy.story().len(), told(&world));
        assert_eq!(code(ask(&mut world, path, "2002", request.clone())), Some(Code::HeldByPhone), "{request:?}");
        assert_eq!((world.proxy.story().len(), told(&world)), before, "{request:?}");
        assert_eq!(states(&world), ["held", "talking"]);
        let asked = world.phones[D2].requests().iter().filter(|r| r.method.as_str() == "INVITE").count();
        assert_eq!(asked, 2, "{request:?}: its call, and our question");
        world.act(D1, Action::HangUp);
        world.act(D3, Action::HangUp);
        world.settle();
    }
}

#[test]
fn reconnect_call_over_two_dialogs_drops_the_consultation_and_retrieves_the_held_call() {
    let mut world = consulting_with(true, |_| {}, yields);
    let calls = conn_ids(&world);
    let before = world.proxy.story().len();
    assert!(ask(&mut world, calls[1], "2002", Ask::ReconnectCall { other: None }).is_ok());
    assert_eq!(facts_after(&world, before), ["released released", "retrieved 2"]);
    assert!(world.phones[D3].is_idle() && world.phones[D1].is_talking());
    assert_eq!(states(&world), ["talking"]);
    assert_eq!(told(&world)[0].last().unwrap(), "C1 1+2");
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn retrieve_call_gets_the_audio_of_a_phone_that_holds() {
    for (by_phone, by_request) in [(true, false), (false, true), (true, true)] {
        let mut world = world(true, |_| {}, yields);
        let calls = conn_ids(&world);
        if by_request {
            assert!(ask(&mut world, calls[0], "2002", Ask::HoldCall).is_ok());
        }
        if by_phone {
            world.act(D2, Action::Hold(HoldForm::SendOnly));
            world.run(ms(300));
        }
        assert_eq!(states(&world), ["held"]);
        assert!(ask(&mut world, calls[0], "2002", Ask::RetrieveCall).is_ok());
        assert_eq!(states(&world), ["talking"]);
        assert_eq!(told(&world)[0].last().unwrap(), "C1 1+2");
        assert_eq!(code(ask(&mut world, calls[0], "2002", Ask::RetrieveCall)), Some(Code::WrongState));
        world.act(D1, Action::HangUp);
        world.settle();
    }
}

#[test]
fn a_phone_that_holds_gives_its_audio_to_a_consultation_by_request() {
    let mut world = world(true, |_| {}, yields);
    let calls = conn_ids(&world);
    world.act(D2, Action::Hold(HoldForm::SendOnly));
    world.run(ms(300));
    assert!(ask(&mut world, calls[0], "2002", Ask::InitiateTransfer { to: "2003".into() }).is_ok());
    world.run(ms(500));
    assert_eq!(told(&world)[0].last().unwrap(), "C2 2+3 consult");
    world.act(D2, Action::HangUp);
    world.settle();
}

#[test]
fn a_call_that_ends_while_its_phone_is_asked_answers_the_request() {
    let mut world = consulting_with(true, |_| {}, yields);
    let calls = conn_ids(&world);
    for path in [1, 0] {
        let request = if path == 1 { Ask::AlternateCall { other: None } } else { Ask::RetrieveCall };
        let mut world = consulting_with(true, |_| {}, yields);
        let calls = conn_ids(&world);
        world.act(D1, Action::HangUp);
        world.run(ms(1));
        send(&mut world, calls[path], "2002", request);
        world.run(ms(1_000));
        assert_eq!(world.proxy.answers.len(), 1);
        assert_eq!(code(world.proxy.answers[0].1.clone()), Some(Code::WrongState));
        world.act(D3, Action::HangUp);
        world.settle();
    }
    send(&mut world, calls[1], "2002", Ask::AlternateCall { other: None });
    world.act(D3, Action::HangUp);
    world.run(ms(1_000));
    assert_eq!(world.proxy.answers.len(), 1, "the path is gone when the phone has answered");
    assert_eq!(states(&world), ["talking"], "the phone talks in the other call already");
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn hold_by_notify_presses_the_keys_of_the_phone() {
    let notify = |o: &mut Options| o.plan.dns[1].hold = HoldBy::Notify;
    let mut world = world(true, notify, |n, o| o.talk = n == 2);
    let calls = conn_ids(&world);
    assert!(ask(&mut world, calls[0], "2002", Ask::HoldCall).is_ok());
    assert!(world.proxy.has_fact("held 2"));
    let events = |world: &World| {
        let notifies = world.phones[D2].requests().iter().filter(|r| r.method.as_str() == "NOTIFY");
        notifies.map(|r| text(r.headers.get(Name::Event))).collect::<Vec<_>>()
    };
    assert_eq!(events(&world), ["hold"]);
    world.act(D2, Action::on(1, Action::call("2003")));
    world.run(ms(1_000));
    let second = conn_ids(&world)[1];
    assert!(ask(&mut world, second, "2002", Ask::AlternateCall { other: None }).is_ok());
    assert_eq!(events(&world), ["hold", "hold", "talk"]);
    assert_eq!(states(&world), ["talking", "held"]);
    assert!(ask(&mut world, second, "2002", Ask::RetrieveCall).is_ok());
    assert_eq!(events(&world).len(), 4);
    assert_eq!(states(&world), ["talking", "talking"]);
    world.act(D1, Action::HangUp);
    world.act(D3, Action::HangUp);
    world.settle();
}

#[test]
fn a_phone_without_such_keys_is_held_by_our_media() {
    let notify = |o: &mut Options| o.plan.dns[1].hold = HoldBy::Notify;
    let mut world = world(true, notify, |_, _| {});
    let calls = conn_ids(&world);
    assert!(ask(&mut world, calls[0], "2002", Ask::HoldCall).is_ok());
    assert!(world.proxy.has_fact("held 2"));
    assert!(world.proxy.story().iter().any(|s| s.contains("takes no NOTIFY")), "somebody should look");
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn a_recording_is_asked_for_in_the_consult_call_for_the_device_and_never_for_the_consulted_party() {
    let mut world = consulting_with(true, |o| o.recording.default = DefaultOwner::None, |_, _| {});
    let calls = conn_ids(&world);
    let start = |owner: &OwnerWish| Ask::RecordStart { owner: owner.clone() };
    for (dn, owner) in
        [("2003", OwnerWish::Source), ("2002", OwnerWish::Destination), ("2001", OwnerWish::Dn("2003".into()))]
    {
        assert_eq!(code(ask(&mut world, calls[1], dn, start(&owner))), Some(Code::ConsultedOwner), "{dn} {owner:?}");
    }
    assert!(world.proxy.starts().is_empty());
    let started = ask(&mut world, calls[1], "2002", start(&OwnerWish::Source)).unwrap();
    let id = started.recording.unwrap();
    assert_eq!(told(&world)[0].last().unwrap(), "C2 2+4 consult");
    for (dn, owner) in [("2003", OwnerWish::Destination), ("2001", OwnerWish::Dn("2002".into()))] {
        assert_eq!(ask(&mut world, calls[1], dn, start(&owner)).unwrap().recording, Some(id), "{dn} {owner:?}");
    }
    assert!(ask(&mut world, calls[1], "2002", Ask::RecordPause { recording: None }).is_ok());
    assert!(world.proxy.has_fact("paused"));
    assert!(ask(&mut world, calls[1], "2003", Ask::RecordResume { recording: Some(id) }).is_ok());
    assert!(ask(&mut world, calls[1], "2002", Ask::RecordStop { recording: None }).is_ok());
    assert_eq!(causes(&world), [StopCause::Stopped]);
    assert_eq!(tapped(&world, B2), (0, None), "nothing is recorded under another name any more");
    world.act(D1, Action::HangUp);
    world.act(D3, Action::HangUp);
    world.settle();
}

#[test]
fn a_request_that_meets_an_open_offer_of_the_other_call_waits_for_its_end() {
    let mut world = consulting_with(true, |_| {}, yields);
    let calls = conn_ids(&world);
    world.act(D1, Action::AskForOffer);
    world.run(ms(7));
    let ticket = send(&mut world, calls[1], "2002", Ask::CompleteTransfer { other: None });
    assert!(world.proxy.answers.is_empty());
    world.run(ms(1_000));
    assert!(matches!(world.proxy.answers.as_slice(), [(t, Ok(_))] if *t == ticket));
    assert_eq!(world.proxy.calls.snapshot().len(), 1);
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn shutting_down_in_a_consultation_leaves_nothing() {
    let mut world = consulting(true);
    world.tell(Input::HangUpAll);
    world.run(ms(1_000));
    assert_eq!(causes(&world), [StopCause::Shutdown]);
    world.settle();
}

#[test]
fn who_is_consulted_by_two_connects_them_and_both_recordings_have_all_three() {
    let mut options = options();
    options.recording.default = DefaultOwner::Termination;
    for agent in [1, 4] {
        options.plan.dns[agent].record_consult = true;
    }
    let mut world = World::new(options);
    for n in 1..=5 {
        world.phone(n, |o| (o.lines, o.call_waiting, o.seed) = (2, true, u64::from(n)));
    }
    // 2001 with 2002, 2004 with 2005; both agents consult 2003.
    for (caller, agent, called) in [(0, 1, "2002"), (3, 4, "2005")] {
        world.act(caller, Action::call(called));
        world.run(ms(1_000));
        world.act(agent, Action::Hold(HoldForm::SendOnly));
        world.run(ms(300));
        world.act(agent, Action::on(1, Action::call("2003")));
        world.run(ms(1_000));
    }
    let calls = conn_ids(&world);
    let recorders: Vec<RecorderId> =
        world.proxy.marks.iter().filter(|(_, m)| is_start(&m.change)).map(|(r, _)| *r).collect();
    assert_eq!(recorders, [RecorderId(0), RecorderId(1)], "two threads");
    // First agent: legs 2 and 3 and 4; second: 6, 7 and 8.
    assert_eq!(
        (told(&world)[0].last().unwrap().as_str(), told(&world)[1].last().unwrap().as_str()),
        ("C2 2+4 consult", "C4 6+8 consult")
    );
    assert!(ask(&mut world, calls[1], "2003", Ask::MergeCalls { other: calls[3] }).is_ok());
    world.run(ms(500));
    assert_eq!(told(&world)[0].last().unwrap(), "C2 2+4+6 consult");
    assert_eq!(told(&world)[1].last().unwrap(), "C2 2+4+6 consult");
    for leg in [LegId(3), LegId(4), LegId(7)] {
        assert_eq!(tapped(&world, leg).0, 2, "{leg} is heard by both recorders");
    }
    // One goes back to its customer: the other one's recording goes on.
    world.act(4, Action::on(1, Action::HangUp));
    world.act(4, Action::on(0, Action::Retrieve));
    world.run(ms(500));
    assert_eq!(told(&world)[1].last().unwrap(), "C3 5+6");
    assert_eq!(told(&world)[0].last().unwrap(), "C2 2+4 consult");
    for phone in 0..5 {
        (0..2).for_each(|line| world.act(phone, Action::on(line, Action::HangUp)));
    }
    world.settle();
}

fn is_start(change: &Change) -> bool {
    matches!(change, Change::Start(_))
}
