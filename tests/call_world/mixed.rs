//! What conferences and dial-in rooms are asked about: who is mixed, who is routed to whom, what recorders were told.

use stickytape::bridge::command::mix::{Hearing, MixCommand};
use stickytape::call::Input;
use stickytape::call::request::{Accepted, Ask, Denied, Request as Asked, Ticket};
use stickytape::id::{ConnId, LegId, RoomId};
use stickytape::record::mark::{Change, Role, StopCause};

use super::World;

pub fn conn_id(world: &World) -> ConnId {
    world.proxy.calls.snapshot()[0].conn_id
}

pub fn state(world: &World) -> &'static str {
    world.proxy.calls.snapshot()[0].state
}

pub fn ask_in(world: &mut World, conn_id: ConnId, dn: &str, ask: Ask) -> Result<Accepted, Denied> {
    let ticket = Ticket(world.proxy.answers.len() as u64 + 1);
    let request = Asked { conn_id, this_dn: dn.to_owned(), reference: None, ask };
    world.tell(Input::Request(ticket, Box::new(request)));
    let (answered, answer) = world.proxy.answers.last().expect("answered at once").clone();
    assert_eq!(answered, ticket);
    answer
}

pub fn ask(world: &mut World, dn: &str, what: Ask) -> Result<Accepted, Denied> {
    let conn_id = conn_id(world);
    ask_in(world, conn_id, dn, what)
}

/// Who is in the mixer, as the commands have it: room, hearing, whether it listens.
pub fn seats(world: &World) -> Vec<(u64, RoomId, Hearing, bool)> {
    let mut seats: Vec<(u64, RoomId, Hearing, bool)> = Vec::new();
    for command in &world.proxy.mixes {
        match command {
            MixCommand::Join(join) => {
                seats.retain(|(leg, ..)| *leg != join.leg.0);
                seats.push((join.leg.0, join.room, join.hearing, join.listens));
            }
            MixCommand::Leave { leg } => seats.retain(|(l, ..)| l != &leg.0),
            MixCommand::Hearing { leg, hearing } => {
                seats.iter_mut().filter(|s| s.0 == leg.0).for_each(|s| s.2 = *hearing);
            }
            MixCommand::Listen { leg, listens } => {
                seats.iter_mut().filter(|s| s.0 == leg.0).for_each(|s| s.3 = *listens);
            }
            MixCommand::Close { room } => seats.retain(|(_, r, ..)| r != room),
            _ => {}
        }
    }
    seats.sort_by_key(|s| s.0);
    seats
}

/// Legs that hear the mixer, and those of which it only gets copies.
pub fn mixed(world: &World) -> (Vec<u64>, Vec<u64>) {
    let (listen, copy): (Vec<_>, Vec<_>) = seats(world).into_iter().partition(|s| s.3);
    let legs = |seats: Vec<(u64, RoomId, Hearing, bool)>| seats.into_iter().map(|s| s.0).collect();
    (legs(listen), legs(copy))
}

pub fn hearing(world: &World, leg: u64) -> Hearing {
    seats(world).into_iter().find(|s| s.0 == leg).unwrap_or_else(|| panic!("leg {leg} has no seat")).2
}

pub fn open_rooms(world: &World) -> usize {
    let opened = world.proxy.mixes.iter().filter(|c| matches!(c, MixCommand::Open { .. })).count();
    let closed = world.proxy.mixes.iter().filter(|c| matches!(c, MixCommand::Close { .. })).count();
    opened - closed
}

/// The last routes of both legs lead to each other.
#[track_caller]
pub fn assert_routed(world: &World, a: u64, b: u64) {
    for (from, to) in [(a, b), (b, a)] {
        assert_eq!(last_route(world, from), format!("route to {to}"), "leg {from}");
    }
}

pub fn last_route(world: &World, from: u64) -> String {
    let mut routes = world.proxy.commands_of(LegId(from)).into_iter().filter(|c| c.starts_with("route"));
    routes.next_back().unwrap_or_default()
}

pub fn facts_from(world: &World, first: &str) -> Vec<String> {
    let story = world.proxy.story();
    let at = story.iter().position(|s| s.starts_with(first)).unwrap_or_else(|| panic!("no {first} in {story:?}"));
    story[at..].to_vec()
}

pub fn causes(world: &World) -> Vec<StopCause> {
    world.proxy.stops().into_iter().map(|(_, cause)| cause).collect()
}

/// Members of the last conversation that each running session was told, with their roles' first letters.
pub fn conversation(world: &World, session: usize) -> String {
    let id = world.proxy.starts()[session].1.id;
    let last = world.proxy.marks.iter().rev().find_map(|(_, mark)| match &mark.change {
        Change::Conversation { id: of, conversation } if *of == id => Some(conversation.clone()),
        _ => None,
    });
    let conversation = last.unwrap_or_else(|| world.proxy.starts()[session].1.conversation.clone());
    let letter = |role| match role {
        Role::Customer => 'c',
        Role::Agent => 'a',
        Role::Supervisor => 's',
        Role::Consulted => 'x',
        Role::Member => 'm',
        _ => '?',
    };
    let member = |m: &stickytape::record::mark::Member| {
        let flags = [(m.holds || m.held, "-held"), (m.muted, "-muted")];
        let flags: String = flags.into_iter().filter(|(is, _)| *is).map(|(_, text)| text).collect();
        format!("{}{}{flags}", m.leg, letter(m.role))
    };
    conversation.members.iter().map(member).collect::<Vec<_>>().join(" ")
}

pub fn invites(world: &World, phone: usize) -> usize {
    world.phones[phone].requests().iter().filter(|r| r.method.as_str() == "INVITE").count()
}
