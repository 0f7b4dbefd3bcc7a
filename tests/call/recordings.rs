//! Which sessions a call has, and what the recorders are told of it (spec/recording.md §2–4).

use crate::call_world::*;
use stickytape::call::Input;
use stickytape::call::options::{DefaultOwner, Plan};
use stickytape::id::RecorderId;
use stickytape::record::mark::{Change, Channel, Notice, Role, Side, StopCause};
use stickytape::sip::method::Method;
use stickytape::sip::name::Name;
use stickytape::testing::phone::Action;

fn talk(change: impl FnOnce(&mut stickytape::call::options::Options)) -> (World, usize, usize) {
    let mut options = options();
    change(&mut options);
    let mut world = World::new(options);
    let a = world.phone(1, |_| {});
    let b = world.phone(2, |_| {});
    world.act(a, Action::call("2002"));
    world.run(ms(1_000));
    (world, a, b)
}

#[test]
fn both_makes_two_sessions_on_one_recorder_that_start_and_end_together() {
    let (mut world, a, _) = talk(|o| o.recording.default = DefaultOwner::Both);
    world.act(a, Action::HangUp);
    world.run(ms(100));
    let starts = world.proxy.starts();
    assert_eq!(starts.iter().map(|(_, s)| s.side).collect::<Vec<_>>(), [Side::Origination, Side::Termination]);
    assert_ne!(starts[0].1.id, starts[1].1.id);
    assert_eq!(starts[0].0, starts[1].0);
    assert_eq!(starts[0].1.call_uuid, starts[1].1.call_uuid);
    assert_eq!(starts[1].1.owner_dn.as_deref(), Some("2002"));
    let recorders: Vec<_> = world.proxy.marks.iter().map(|(r, _)| *r).collect();
    assert!(recorders.windows(2).all(|r| r[0] == r[1]));
    world.settle();
}

#[test]
fn calls_are_spread_over_the_recorders() {
    let mut world = World::new(options());
    for n in [1, 3] {
        let a = world.phone(n, |_| {});
        world.phone(n + 1, |_| {});
        world.act(a, Action::call(&format!("20{:02}", n + 1)));
        world.run(ms(500));
    }
    let starts = |m: &&(RecorderId, stickytape::record::mark::Mark)| matches!(m.1.change, Change::Start(_));
    let used: Vec<_> = world.proxy.marks.iter().filter(starts).map(|(r, _)| *r).collect();
    assert_eq!(used, [RecorderId(0), RecorderId(1)]);
    world.tell(Input::HangUpAll);
    world.settle();
    assert!(world.proxy.drained);
}

#[test]
fn options_of_dns_and_routes_choose_the_owner() {
    let (world, ..) = talk(|o| {
        o.recording.default = DefaultOwner::None;
        o.plan.dns[1].record = Some(true);
    });
    assert_eq!(world.proxy.starts()[0].1.side, Side::Termination);
    assert_eq!(world.proxy.starts()[0].1.trigger, "dn");
    let (world, ..) = talk(|o| o.plan.dns[0].record = Some(false));
    assert!(world.proxy.starts().is_empty());
    assert!(world.proxy.commands.iter().all(|(_, c)| !format!("{c:?}").starts_with("Tap")), "no copies for nobody");
}

#[test]
fn the_conversation_names_roles_and_channels() {
    let (world, ..) = talk(|_| {});
    let start = world.proxy.starts().remove(0).1;
    let [caller, called] = start.conversation.members.as_slice() else { panic!() };
    assert_eq!((caller.role, caller.channel, caller.dn.as_deref()), (Role::Customer, Channel::Left, Some("2001")));
    assert_eq!((called.role, called.channel, called.dn.as_deref()), (Role::Agent, Channel::Right, Some("2002")));
    assert!(!start.conversation.unbridged && !start.conversation.consult);
    assert_eq!(start.owner_leg, caller.leg);
    assert_eq!(start.start_time, world.proxy.wall(world.start + ms(215)));
}

#[test]
fn a_recorder_that_fails_ends_the_session_and_the_call_goes_on() {
    let (mut world, a, _) = talk(|_| {});
    let id = world.proxy.starts()[0].1.id;
    let failed = Notice::Failed { id, cause: StopCause::WriteError, reason: "disk".into() };
    world.tell(Input::Record(RecorderId(0), failed));
    assert!(world.phones[a].is_talking());
    assert!(world.proxy.has_fact("failed write-error"));
    assert_eq!(world.proxy.stops()[0].1, StopCause::WriteError);
    world.act(a, Action::HangUp);
    world.settle();
}

#[test]
fn a_call_whose_required_recording_fails_is_ended_with_a_reason() {
    let (mut world, a, b) = talk(|o| o.plan.dns[1].required = true);
    let id = world.proxy.starts()[0].1.id;
    let failed = Notice::Failed { id, cause: StopCause::DiskFull, reason: "full".into() };
    world.tell(Input::Record(RecorderId(0), failed));
    world.run(ms(100));
    for phone in [a, b] {
        assert!(world.phones[phone].is_idle());
        let bye = world.phones[phone].requests().iter().find(|r| r.method == Method::Bye).unwrap();
        assert!(text(bye.headers.get(Name::Reason)).contains("Recording required"));
    }
    assert!(world.proxy.has_fact("failed disk-full !") && world.proxy.has_fact("released recording-required"));
    world.settle();
}

#[test]
fn without_space_a_call_goes_on_unrecorded_and_says_so_once() {
    let mut world = World::new(options());
    let a = world.phone(1, |_| {});
    world.phone(2, |_| {});
    world.tell(Input::Space { ok: false });
    world.act(a, Action::call("2002"));
    world.run(ms(1_000));
    assert!(world.phones[a].is_talking());
    assert!(world.proxy.starts().is_empty());
    assert_eq!(world.proxy.story().iter().filter(|s| *s == "failed no-space").count(), 1);
    world.act(a, Action::HangUp);
    world.settle();
}

#[test]
fn what_a_recorder_says_after_the_end_is_still_told() {
    let (mut world, a, _) = talk(|_| {});
    let id = world.proxy.starts()[0].1.id;
    world.tell(Input::Record(RecorderId(0), Notice::Begun(id)));
    world.act(a, Action::HangUp);
    world.run(ms(100));
    world.tell(Input::Record(RecorderId(0), Notice::Published(id)));
    assert!(world.proxy.has_fact("begun") && world.proxy.has_fact("published"));
    world.settle();
}

#[test]
fn a_reload_changes_new_calls_and_leaves_running_ones_alone() {
    let (mut world, a, b) = talk(|_| {});
    world.tell(Input::Reload(Box::<Plan>::default()));
    world.run(ms(100));
    assert!(world.phones[a].is_talking());
    world.act(b, Action::Hold(stickytape::testing::phone::HoldForm::SendOnly));
    world.run(ms(300));
    assert_eq!(world.proxy.calls.snapshot()[0].state, "held");
    world.act(a, Action::HangUp);
    world.run(ms(300));
    world.act(a, Action::call("2002"));
    world.run(ms(300));
    assert!(world.proxy.has_fact("refused 403"));
    world.settle();
}

#[test]
fn while_a_recorder_does_not_keep_up_new_calls_are_refused_and_running_ones_stay() {
    let (mut world, a, _) = talk(|_| {});
    let c = world.phone(3, |_| {});
    world.phone(4, |_| {});
    world.tell(Input::Congested(true));
    world.act(c, Action::call("2004"));
    world.run(ms(500));
    assert_eq!(world.proxy.starts().len(), 1, "the second call was refused");
    world.tell(Input::Congested(false));
    world.act(c, Action::call("2004"));
    world.run(ms(500));
    assert_eq!(world.proxy.starts().len(), 2);
    world.act(a, Action::HangUp);
    world.tell(Input::HangUpAll);
    world.settle();
}
