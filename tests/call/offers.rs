//! Offers within a call: hold in every form, other codecs, refreshes, glare (spec/sip.md §2).

use crate::call_world::*;
use stickytape::codec::{Codec, Direction};
use stickytape::sip::method::Method;
use stickytape::testing::phone::{Action, Happening, HoldForm};

fn talking() -> (World, usize, usize) {
    let mut world = World::new(options());
    let a = world.phone(1, |_| {});
    let b = world.phone(2, |_| {});
    world.act(a, Action::call("2002"));
    world.run(ms(1_000));
    assert!(world.phones[a].is_talking() && world.phones[b].is_talking());
    (world, a, b)
}

fn seen(world: &World, phone: usize, wanted: &Happening) -> bool {
    world.phones[phone].happenings().iter().any(|h| h.what == *wanted)
}

#[test]
fn hold_in_each_form_is_passed_on_and_the_recording_is_told() {
    for (form, other) in [
        (HoldForm::SendOnly, Direction::RecvOnly),
        (HoldForm::Inactive, Direction::Inactive),
        (HoldForm::NullAddress, Direction::Inactive),
    ] {
        let (mut world, a, b) = talking();
        world.act(b, Action::Hold(form));
        world.run(ms(500));
        let told = world.phones[a].happenings().iter().rev().find_map(|h| match h.what {
            Happening::Reoffered { direction } => Some(direction),
            _ => None,
        });
        assert!(told == Some(other) || form == HoldForm::NullAddress, "{form:?}: {told:?}");
        assert!(!told.unwrap().sends(), "{form:?}: the held phone sends nothing");
        assert_eq!(world.proxy.calls.snapshot()[0].state, "held", "{form:?}");
        world.act(b, Action::Retrieve);
        world.run(ms(500));
        assert!(seen(&world, a, &Happening::Reoffered { direction: Direction::SendRecv }), "{form:?}");
        assert!(world.proxy.has_fact("held 2") && world.proxy.has_fact("retrieved 2"), "{form:?}");
        let marks = world.proxy.mark_story();
        let wanted = [
            "conversation [1, 2 holds] early=false",
            "event held",
            "conversation [1, 2] early=false",
            "event retrieved",
        ];
        let positions: Vec<_> = wanted.iter().map(|w| marks.iter().position(|m| m == w)).collect();
        assert!(positions.iter().all(Option::is_some) && positions.is_sorted(), "{form:?}: {marks:?}");
        world.act(a, Action::HangUp);
        world.settle();
    }
}

#[test]
fn both_sides_may_hold_and_the_last_retrieve_joins_them_again() {
    let (mut world, a, b) = talking();
    for (phone, action) in [
        (a, Action::Hold(HoldForm::SendOnly)),
        (b, Action::Hold(HoldForm::Inactive)),
        (a, Action::Retrieve),
        (b, Action::Retrieve),
    ] {
        world.act(phone, action);
        world.run(ms(500));
    }
    let view = world.proxy.calls.snapshot().remove(0);
    assert_eq!(view.state, "talking", "{:?}", world.proxy.story());
    world.act(a, Action::HangUp);
    world.settle();
}

#[test]
fn update_holds_as_a_re_invite_does() {
    let (mut world, a, b) = talking();
    world.act(a, Action::Update(Direction::SendOnly));
    world.run(ms(500));
    assert!(seen(&world, b, &Happening::Reoffered { direction: Direction::RecvOnly }));
    assert!(seen(&world, a, &Happening::Agreed { direction: Direction::SendOnly }));
    assert!(world.proxy.has_fact("held 1"));
    world.act(a, Action::HangUp);
    world.settle();
}

#[test]
fn the_inactivity_timer_stops_while_a_leg_is_held() {
    let (mut world, a, b) = talking();
    world.act(b, Action::Hold(HoldForm::SendOnly));
    world.run(ms(500));
    world.act(b, Action::Retrieve);
    world.run(ms(500));
    let watches: Vec<_> =
        world.proxy.commands_of(stickytape::id::LegId(1)).into_iter().filter(|c| c.starts_with("watch")).collect();
    assert_eq!(watches, ["watch true", "watch false", "watch true"]);
    world.act(a, Action::HangUp);
    world.settle();
}

#[test]
fn another_codec_is_offered_to_the_other_side() {
    let (mut world, a, b) = talking();
    world.act(a, Action::Recode(vec![Codec::pcma(), Codec::telephone_event()]));
    world.run(ms(500));
    assert_eq!(world.proxy.calls.snapshot()[0].parties[1].codec.as_deref(), Some("PCMA/8000"));
    assert_eq!(world.phones[b].requests().iter().filter(|r| r.method == Method::Invite).count(), 2);
    world.act(b, Action::HangUp);
    world.settle();
}

#[test]
fn a_re_invite_without_sdp_is_answered_with_our_full_offer_and_the_other_side_is_left_alone() {
    let (mut world, a, b) = talking();
    world.act(a, Action::AskForOffer);
    world.run(ms(500));
    assert!(seen(&world, a, &Happening::Agreed { direction: Direction::SendRecv }));
    assert_eq!(world.phones[b].requests().iter().filter(|r| r.method == Method::Invite).count(), 1);
    let answer = world.phones[a].responses().last().unwrap();
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(body.contains("PCMU/8000") && body.contains("PCMA/8000") && body.contains("telephone-event"), "{body}");
    world.act(a, Action::HangUp);
    world.settle();
}

#[test]
fn a_call_without_an_offer_gets_ours_in_the_200_and_answers_in_ack() {
    let mut world = World::new(options());
    let a = world.phone(1, |_| {});
    let b = world.phone(2, |o| o.codecs = vec![Codec::pcma()]);
    world.act(a, Action::Call { to: "2002".into(), offer: false, headers: Vec::new() });
    world.run(ms(1_000));
    assert!(world.phones[a].is_talking() && world.phones[b].is_talking());
    let answer = world.phones[a].responses().iter().find(|r| r.code == 200).unwrap();
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    let formats = body.lines().find(|l| l.starts_with("m=audio")).unwrap().to_owned();
    assert!(formats.contains("RTP/AVP 8 "), "D2's codec first: {formats}");
    assert_eq!(world.proxy.starts().len(), 1);
    assert_eq!(world.proxy.calls.snapshot()[0].parties[0].codec.as_deref(), Some("PCMA/8000"));
    world.act(a, Action::HangUp);
    world.settle();
}

#[test]
fn offers_of_both_sides_at_once_meet_and_one_is_tried_again() {
    let (mut world, a, b) = talking();
    world.act(a, Action::Hold(HoldForm::SendOnly));
    world.act(b, Action::Recode(vec![Codec::pcma()]));
    world.run(ms(10_000));
    let refused = |p: usize| seen(&world, p, &Happening::Refused { code: Some(491) });
    assert!(refused(a) || refused(b), "glare was seen");
    assert_eq!(world.proxy.calls.snapshot()[0].state, "held");
    assert_eq!(world.proxy.calls.snapshot()[0].parties[0].codec.as_deref(), Some("PCMA/8000"));
    world.act(a, Action::HangUp);
    world.settle();
}

#[test]
fn digits_by_info_reach_the_active_peer_and_nobody_while_held() {
    let (mut world, a, b) = talking();
    let digit =
        || Action::Info { content_type: "application/dtmf-relay".into(), body: "Signal=5\r\nDuration=160\r\n".into() };
    world.act(a, digit());
    world.run(ms(500));
    let infos = |world: &World| {
        world.phones[b].happenings().iter().filter(|h| matches!(h.what, Happening::Info { .. })).count()
    };
    assert_eq!(infos(&world), 1);
    world.act(b, Action::Hold(HoldForm::SendOnly));
    world.run(ms(500));
    world.act(a, digit());
    world.run(ms(500));
    assert_eq!(infos(&world), 1);
    assert_eq!(world.phones[a].responses().last().unwrap().code, 200);
    world.act(a, Action::Info { content_type: "application/x-thing".into(), body: "x".into() });
    world.run(ms(500));
    assert_eq!(infos(&world), 2, "other INFO passes, also while held");
    world.act(a, Action::HangUp);
    world.settle();
}

#[test]
fn a_leg_that_does_not_answer_an_offer_has_left() {
    let (mut world, a, b) = talking();
    world.act(b, Action::Vanish);
    world.act(a, Action::Hold(HoldForm::SendOnly));
    world.run(ms(40_000));
    assert!(world.phones[a].is_idle());
    assert!(world.proxy.has_fact("released lost"));
    world.settle();
}

#[test]
fn a_bye_never_waits_for_an_open_offer() {
    let (mut world, a, b) = talking();
    world.act(b, Action::Vanish);
    world.act(a, Action::Hold(HoldForm::SendOnly));
    world.run(ms(100));
    world.act(a, Action::HangUp);
    world.run(ms(100));
    assert!(world.phones[a].is_idle());
    assert_eq!(world.proxy.stops().len(), 1);
    world.settle();
}
