//! Phones and a dial-in room.

use std::sync::Arc;

use stickytape::call::options::{Conference, DefaultOwner, DnRole, Options, WhenAlone};
use stickytape::testing::phone::Action;

use super::{World, ms, options};

pub const D1: usize = 0;
pub const D2: usize = 1;
pub const D3: usize = 2;

pub fn room(change: impl FnOnce(&mut Conference)) -> Arc<Conference> {
    let mut room = Conference::new("800");
    change(&mut room);
    Arc::new(room)
}

/// Phones 2001 to 2006, and the room 800.
pub fn world_with(change: impl FnOnce(&mut Options)) -> World {
    let mut options = options();
    options.plan.dns[5].role = DnRole::Supervisor;
    options.plan.conferences.push(room(|_| {}));
    // The name of a recorded room is a leg's: without one, legs are counted as they come.
    options.recording.default = DefaultOwner::None;
    change(&mut options);
    let mut world = World::new(options);
    for n in 1..=6 {
        world.phone(n, |o| (o.lines, o.call_waiting, o.seed) = (2, true, u64::from(n)));
    }
    world
}

pub fn recorded(options: &mut Options) {
    options.recording.default = DefaultOwner::Origination;
}

pub fn waits(options: &mut Options) {
    options.plan.conferences[0] = room(|room| room.when_alone = WhenAlone::Wait);
}

pub fn enter(world: &mut World, phone: usize) {
    world.act(phone, Action::call("800"));
    world.run(ms(300));
}

/// So many phones are in the room.
pub fn meeting(phones: usize, change: impl FnOnce(&mut Options)) -> World {
    let mut world = world_with(change);
    for phone in 0..phones {
        enter(&mut world, phone);
        assert!(world.phones[phone].is_talking(), "phone {phone}");
    }
    world
}

pub fn leave(world: &mut World, phone: usize) {
    world.act(phone, Action::HangUp);
    world.run(ms(300));
}
