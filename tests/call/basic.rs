//! A call between two phones through call control: set up, refused, given up, ended.

use crate::call_world::*;
use stickytape::call::Input;
use stickytape::record::mark::{Side, StopCause};
use stickytape::testing::phone::{Action, Happening, Incoming};

#[test]
fn a_call_is_bridged_recorded_and_released() {
    let mut world = World::new(options());
    let a = world.phone(1, |_| {});
    let b = world.phone(2, |_| {});
    world.act(a, Action::call("2002"));
    world.run(ms(1_000));
    assert!(world.phones[a].is_talking() && world.phones[b].is_talking());
    assert_eq!(world.proxy.calls.snapshot()[0].state, "talking");
    world.run(ms(4_000));
    world.act(b, Action::HangUp);
    world.run(ms(500));
    assert!(world.phones[a].is_idle() && world.phones[b].is_idle());
    assert_eq!(
        world.proxy.story(),
        ["started", "ringing", "recording Origination", "answered", "stopped Released", "released released"]
    );
    let (t0, start) = world.proxy.starts().remove(0);
    assert_eq!((start.side, start.trigger.as_str()), (Side::Origination, "default"));
    assert_eq!((start.caller_phone_number.as_str(), start.dialed_phone_number.as_str()), ("2001", "2002"));
    assert_eq!(start.conversation.members.len(), 2);
    assert_eq!(t0 - world.start, ms(5 + 200 + 5 + 5), "the 2xx of D2 has reached us");
    let (end, cause) = world.proxy.stops()[0];
    assert_eq!((end - world.start, cause), (ms(5_005), StopCause::Released));
    assert_eq!(
        world.proxy.mark_story(),
        ["payloads 1", "payloads 2", "start Origination early=false", "stop Released", "ended 1", "ended 2"]
    );
    world.settle();
}

#[test]
fn legs_are_tapped_before_media_can_flow_and_routed_both_ways() {
    let mut world = World::new(options());
    let a = world.phone(1, |_| {});
    world.phone(2, |_| {});
    world.act(a, Action::call("2002"));
    world.run(ms(1_000));
    world.act(a, Action::HangUp);
    world.run(ms(100));
    let legs: Vec<_> = world.proxy.calls.snapshot();
    assert!(legs.is_empty());
    let of = |n| world.proxy.commands_of(stickytape::id::LegId(n));
    assert_eq!(of(1), ["add", "tap 1", "route to 2", "remote SendRecv", "watch true", "remove"]);
    assert_eq!(of(2), ["add", "tap 1", "route to 1", "remote SendRecv", "watch true", "remove"]);
    let workers: Vec<_> = world.proxy.commands.iter().map(|(w, _)| *w).collect();
    assert!(workers.windows(2).all(|w| w[0] == w[1]), "both legs live on one media thread");
    world.settle();
}

#[test]
fn a_caller_that_gives_up_cancels_the_called_side() {
    let mut world = World::new(options());
    let a = world.phone(1, |_| {});
    let b = world.phone(2, |o| o.incoming = Incoming::Answer { ring: ms(10), answer: ms(60_000) });
    world.act(a, Action::call("2002"));
    world.run(ms(500));
    world.act(a, Action::Cancel);
    world.run(ms(500));
    assert!(world.phones[b].happenings().iter().any(|h| h.what == Happening::Cancelled));
    assert_eq!(world.proxy.story(), ["started", "ringing", "released abandoned"]);
    assert!(world.proxy.starts().is_empty());
    world.settle();
}

#[test]
fn a_refusal_reaches_the_caller_with_its_code_and_503_becomes_500() {
    for (given, told, story) in [
        (486, 486, "released busy"),
        (603, 603, "released rejected"),
        (404, 404, "released rejected"),
        (401, 500, "released rejected"),
        (503, 500, "released rejected"),
    ] {
        let mut world = World::new(options());
        let a = world.phone(1, |_| {});
        world.phone(2, |o| o.incoming = Incoming::Refuse(given));
        world.act(a, Action::call("2002"));
        world.run(ms(1_000));
        let failed = Happening::Failed { code: Some(told) };
        assert!(world.phones[a].happenings().iter().any(|h| h.what == failed), "{given}");
        assert!(world.proxy.has_fact(story), "{given}: {:?}", world.proxy.story());
        world.settle();
    }
}

#[test]
fn nobody_answers_within_the_ring_timeout_and_the_caller_hears_480_with_cause_19() {
    let mut world = World::new(options());
    let a = world.phone(1, |_| {});
    let b = world.phone(2, |o| o.incoming = Incoming::Answer { ring: ms(10), answer: ms(600_000) });
    world.act(a, Action::call("2002"));
    world.run(ms(61_000));
    let last = world.phones[a].responses().iter().find(|r| r.code == 480).unwrap();
    assert_eq!(text(last.headers.get(stickytape::sip::name::Name::Reason)), "Q.850;cause=19");
    assert!(world.phones[b].happenings().iter().any(|h| h.what == Happening::Cancelled));
    assert!(world.proxy.has_fact("released no-answer"));
    world.settle();
}

#[test]
fn an_address_that_says_nothing_is_given_up_after_the_attempt_timeout() {
    let mut world = World::new(options());
    let a = world.phone(1, |_| {});
    world.act(a, Action::call("2009"));
    world.run(ms(3_900));
    assert!(!world.phones[a].is_idle());
    world.run(ms(200));
    assert!(world.phones[a].happenings().iter().any(|h| h.what == Happening::Failed { code: Some(408) }));
    assert!(world.proxy.has_fact("released unreachable"));
    world.settle();
}

#[test]
fn unknown_callers_get_403_and_unknown_numbers_404() {
    let mut world = World::new(options());
    let stranger = world.phone(99, |_| {});
    let a = world.phone(1, |_| {});
    world.act(stranger, Action::call("2001"));
    world.act(a, Action::call("3000"));
    world.run(ms(500));
    assert!(world.phones[stranger].happenings().iter().any(|h| h.what == Happening::Failed { code: Some(403) }));
    assert!(world.phones[a].happenings().iter().any(|h| h.what == Happening::Failed { code: Some(404) }));
    world.settle();
}

#[test]
fn the_call_limit_ports_drain_and_a_full_disk_with_required_are_503_with_retry_after() {
    type Prepare = fn(&mut World);
    let refusals: [(&str, Prepare); 4] = [
        ("limit", |_| {}),
        ("ports", |_| {}),
        ("drain", |world| world.tell(Input::Drain)),
        ("disk", |world| world.tell(Input::Space { ok: false })),
    ];
    for (what, prepare) in refusals {
        let mut options = options();
        options.sip.max_calls = if what == "limit" { 0 } else { 10 };
        options.recording.required = what == "disk";
        let mut world = World::with_pairs(options, if what == "ports" { 1 } else { 100 });
        let a = world.phone(1, |_| {});
        world.phone(2, |_| {});
        prepare(&mut world);
        world.act(a, Action::call("2002"));
        world.run(ms(500));
        let answer = world.phones[a].responses().last().unwrap();
        assert_eq!(answer.code, 503, "{what}");
        assert!(answer.headers.has(stickytape::sip::name::Name::RetryAfter), "{what}");
        world.settle();
    }
}

#[test]
fn a_drain_waits_for_calls_then_hangs_them_up() {
    let mut options = options();
    options.sip.drain_timeout = ms(10_000);
    let mut world = World::new(options);
    let a = world.phone(1, |_| {});
    let b = world.phone(2, |_| {});
    world.act(a, Action::call("2002"));
    world.run(ms(1_000));
    world.tell(Input::Drain);
    world.run(ms(9_900));
    assert!(world.phones[a].is_talking() && !world.proxy.drained);
    world.run(ms(500));
    assert!(world.phones[a].is_idle() && world.phones[b].is_idle());
    assert!(world.proxy.drained);
    assert_eq!(world.proxy.stops()[0].1, StopCause::Shutdown);
    assert!(world.proxy.has_fact("released shutdown"));
    world.settle();
}

#[test]
fn both_hanging_up_at_once_is_no_error() {
    let mut world = World::new(options());
    let a = world.phone(1, |_| {});
    let b = world.phone(2, |_| {});
    world.act(a, Action::call("2002"));
    world.run(ms(1_000));
    world.act(a, Action::HangUp);
    world.act(b, Action::HangUp);
    world.run(ms(1_000));
    assert!(world.phones[a].is_idle() && world.phones[b].is_idle());
    assert_eq!(world.proxy.stops().len(), 1);
    world.settle();
}

#[test]
fn a_phone_that_vanishes_is_found_by_the_inactivity_probe() {
    let mut world = World::new(options());
    let a = world.phone(1, |_| {});
    let b = world.phone(2, |_| {});
    world.act(a, Action::call("2002"));
    world.run(ms(1_000));
    let leg = world.proxy.calls.snapshot()[0].parties[1].leg_id;
    let worker = world.proxy.commands[0].0;
    let inactive = || Input::Media(worker, stickytape::bridge::command::Notice::Inactive { leg });
    world.tell(inactive());
    world.run(ms(1_000));
    assert!(world.phones[b].is_talking(), "a phone that answers OPTIONS stays");
    assert_eq!(world.proxy.commands_of(leg).iter().filter(|c| *c == "watch true").count(), 2, "armed again");
    world.act(b, Action::Vanish);
    world.tell(inactive());
    world.run(ms(40_000));
    assert!(world.phones[a].is_idle());
    assert!(world.proxy.has_fact("released lost"));
    world.settle();
}
