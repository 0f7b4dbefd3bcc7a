//! Transfers whose target is there and then is not: the call is as before (spec/recording.md §4.2). REFERs that name a
//! call in which an offer is open wait for its end (spec/sip.md §2).

use crate::call_world::*;
use stickytape::call::options::DefaultOwner;
use stickytape::codec::Codec;
use stickytape::record::mark::StopCause;
use stickytape::sip::method::Method;
use stickytape::sip::name::Name;
use stickytape::testing::phone::{Action, Happening, HoldForm, Leave, Refer};

const D1: usize = 0;
const D2: usize = 1;
const D3: usize = 2;

/// D2 talks to D1 and, without holding it, on its second line to D3: two calls on two media threads.
fn two_calls() -> World {
    let mut options = options();
    options.recording.default = DefaultOwner::Both;
    let mut world = World::new(options);
    world.proxy.move_time = ms(300);
    for n in 1..=3 {
        world.phone(n, |o| o.lines = 2);
    }
    world.act(D1, Action::call("2002"));
    world.run(ms(1_000));
    world.act(D2, Action::on(1, Action::call("2003")));
    world.run(ms(1_000));
    assert!(world.phones[D1].is_talking() && world.phones[D3].is_talking());
    world
}

/// D2 joins the parties of its two calls.
fn attended(leave: Leave) -> Action {
    Action::on(0, Action::Refer(Refer { leave, ..Refer::to_line(1) }))
}

fn notified(world: &World, phone: usize) -> Vec<String> {
    let told = |what: &Happening| match what {
        Happening::Notified { code, state } if state == "terminated" => Some(format!("{code} end")),
        Happening::Notified { code, .. } => Some(code.to_string()),
        Happening::ReferRefused { code } => Some(format!("refused {}", code.unwrap_or(0))),
        _ => None,
    };
    world.phones[phone].happenings().iter().filter_map(|h| told(&h.what)).collect()
}

fn states(world: &World) -> Vec<&'static str> {
    world.proxy.calls.snapshot().iter().map(|call| call.state).collect()
}

#[test]
fn a_target_that_hangs_up_while_its_leg_moves_leaves_the_call_as_before() {
    let mut world = two_calls();
    world.act(D2, attended(Leave::Never));
    world.run(ms(100));
    assert_eq!(states(&world), ["transferring"]);
    world.act(D3, Action::HangUp);
    world.run(ms(1_000));
    assert_eq!(states(&world), ["talking"]);
    assert!(world.phones[D1].is_talking() && world.phones[D2].is_talking_on(0) && !world.phones[D2].is_talking_on(1));
    assert_eq!(notified(&world, D2), ["100", "480 end"]);
    assert!(world.proxy.has_fact("transfer failed released"), "{:?}", world.proxy.story());
    // The sessions of the first call go on; those of the consult call ended with their owners.
    let mut causes: Vec<StopCause> = world.proxy.stops().into_iter().map(|(_, cause)| cause).collect();
    assert_eq!(causes, [StopCause::OwnerLeft; 2]);
    world.act(D1, Action::HangUp);
    world.settle();
    causes = world.proxy.stops().into_iter().map(|(_, cause)| cause).collect();
    assert_eq!(causes[2..], [StopCause::Released; 2]);
}

#[test]
fn a_target_that_vanishes_while_its_leg_moves_after_the_transferor_has_left_ends_the_call() {
    let mut world = two_calls();
    world.act(D2, attended(Leave::AtOnce));
    world.run(ms(100));
    world.act(D3, Action::HangUp);
    world.run(ms(1_000));
    assert!(states(&world).is_empty() && world.phones[D1].is_idle());
    let bye = world.phones[D1].requests().iter().find(|r| r.method == Method::Bye).cloned().expect("BYE");
    assert!(text(bye.headers.get(Name::Reason)).contains("cause=480"), "{bye:?}");
    world.settle();
}

#[test]
fn a_target_that_hangs_up_while_the_other_one_is_offered_its_codec_leaves_the_call_as_before() {
    let g729 = || Codec::new("G729", 8_000, 1);
    let mut options = options();
    options.recording.default = DefaultOwner::None;
    options.media.codecs = vec![g729(), Codec::pcmu(), Codec::telephone_event()];
    let mut world = World::new(options);
    let d1 = world.raw("10.0.0.1:5060");
    world.phone(2, |o| o.codecs = vec![g729()]);
    world.phone(3, |o| o.codecs = vec![Codec::pcmu()]);
    let (d2, d3) = (0, 1);
    let media = |codecs| sdp("10.0.0.1", 4000, codecs, "sendrecv");
    let mut invite = world.raws[d1].invite("2002", "c", Some(&media("18 0 101")));
    invite.headers.set(Name::From, "<sip:2001@10.0.0.1>;tag=fc");
    world.raws[d1].send(invite.clone());
    world.run(ms(500));
    let ok = world.raws[d1].responses("INVITE").into_iter().find(|r| r.code == 200).unwrap();
    let ack = world.raws[d1].in_dialog(&invite, &ok, Method::Ack, 1);
    world.raws[d1].send(ack);
    world.run(ms(50));
    world.act(d2, Action::Refer(Refer { leave: Leave::Never, ..Refer::to("2003") }));
    world.run(ms(400));
    let offered = world.raws[d1].requests(Method::Invite).remove(0);
    assert!(world.phones[d3].is_talking() && states(&world) == ["transferring"]);
    world.act(d3, Action::HangUp);
    world.run(ms(100));
    assert_eq!(notified(&world, d2), ["100", "180", "480 end"]);
    assert_eq!(states(&world), ["talking"]);
    // What D1 has taken meanwhile is taken back.
    let taken = world.raws[d1].reply(&offered, 200, "", Some(&media("0 101")));
    world.raws[d1].send(taken);
    world.run(ms(100));
    let again = world.raws[d1].requests(Method::Invite).pop().unwrap();
    assert_ne!(again.headers.get(Name::CSeq), offered.headers.get(Name::CSeq));
    assert!(String::from_utf8_lossy(&again.body).contains("G729"));
    let taken = world.raws[d1].reply(&again, 200, "", Some(&media("18 101")));
    world.raws[d1].send(taken);
    world.run(ms(100));
    let codecs: Vec<_> =
        world.proxy.calls.snapshot()[0].parties.iter().map(|p| p.codec.clone().unwrap_or_default()).collect();
    assert_eq!(codecs, ["G729/8000", "G729/8000"]);
    let bye = world.raws[d1].in_dialog(&invite, &ok, Method::Bye, 2);
    world.raws[d1].send(bye);
    world.settle();
}

#[test]
fn a_refer_waits_for_an_open_offer_of_the_call_that_it_names() {
    let mut world = two_calls();
    world.act(D3, Action::Hold(HoldForm::SendOnly));
    world.run(ms(3));
    world.act(D2, attended(Leave::Never));
    world.run(ms(3_000));
    assert!(world.phones[D1].is_talking() && world.phones[D3].is_talking() && world.phones[D2].is_idle());
    assert_eq!(notified(&world, D2), ["100", "200 end"]);
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn a_refer_that_waits_longer_than_five_seconds_is_refused_and_both_calls_stay() {
    let mut world = two_calls();
    world.act(D3, Action::Vanish);
    world.act(D2, Action::on(1, Action::Hold(HoldForm::SendOnly)));
    world.run(ms(100));
    world.act(D2, attended(Leave::Never));
    world.run(ms(4_500));
    assert!(notified(&world, D2).is_empty(), "it waits");
    world.run(ms(1_000));
    assert_eq!(notified(&world, D2), ["refused 491"]);
    assert_eq!(states(&world).len(), 2);
    world.act(D2, Action::on(0, Action::HangUp));
    world.run(ms(60_000));
    world.settle();
}

#[test]
fn a_refer_whose_own_call_ends_while_it_waits_is_answered_and_the_other_call_stays() {
    let mut world = two_calls();
    world.act(D3, Action::Hold(HoldForm::SendOnly));
    world.run(ms(3));
    world.act(D2, attended(Leave::Never));
    world.run(ms(1));
    world.act(D1, Action::HangUp);
    world.run(ms(1_000));
    assert_eq!(states(&world), ["held"]);
    let strays = world.proxy.calls.counters().stray;
    assert_eq!(strays, 0, "nothing was done for a call that is over");
    world.act(D3, Action::HangUp);
    world.settle();
}
