//! MakeCall in virtual time: a DN is called first, then whom it wants to talk to (spec/sip.md §6).

use std::sync::Arc;

use crate::call_world::*;
use stickytape::bridge::command::{Command, Playback};
use stickytape::call::Input;
use stickytape::call::options::{Conference, DefaultOwner, Options, Route, RouteTarget};
use stickytape::call::request::{Accepted, Ask, Code, Denied, OwnerWish, Request as Asked, Ticket};
use stickytape::codec::Codec;
use stickytape::id::{ConnId, LegId};
use stickytape::record::mark::{Channel, Role, Side};
use stickytape::sip::message::Request;
use stickytape::sip::method::Method;
use stickytape::sip::name::Name;
use stickytape::testing::phone::{self, Action, Incoming, Refer};

/// 2001, who asks; 2002, whom it wants; 2003.
const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

/// Legs in the order in which they begin.
const THIS: LegId = LegId(1);
const OTHER: LegId = LegId(2);

fn world(change: impl FnOnce(&mut Options), phones: impl Fn(u8, &mut phone::Options)) -> World {
    let mut options = options();
    change(&mut options);
    let mut world = World::new(options);
    for n in 1..=3 {
        world.phone(n, |o| phones(n, o));
    }
    world
}

/// The phone number `n` does this with calls.
fn when_called(number: u8, does: Incoming) -> impl Fn(u8, &mut phone::Options) {
    move |n, options| {
        if n == number {
            options.incoming = does;
        }
    }
}

fn ask(world: &mut World, conn_id: ConnId, dn: &str, ask: Ask) -> Result<Accepted, Denied> {
    let ticket = Ticket(world.proxy.answers.len() as u64 + 1);
    let request = Asked { conn_id, this_dn: dn.to_owned(), reference: Some("r-7".into()), ask };
    world.tell(Input::Request(ticket, Box::new(request)));
    world.run(ms(0));
    world.proxy.answers.iter().find(|(t, _)| *t == ticket).expect("answered at once").1.clone()
}

fn make(world: &mut World, dn: &str, to: &str) -> Result<Accepted, Denied> {
    ask(world, Asked::NO_CALL, dn, Ask::MakeCall { to: to.into() })
}

/// 2001 is to talk to 2002.
fn made(world: &mut World) -> ConnId {
    make(world, "2001", "2002").expect("accepted").conn_id
}

fn code(answer: Result<Accepted, Denied>) -> Code {
    answer.expect_err("refused").code
}

fn invites(world: &World, phone: usize) -> Vec<Request> {
    world.phones[phone].requests().iter().filter(|r| r.method == Method::Invite).cloned().collect()
}

fn state(world: &World) -> Vec<&'static str> {
    world.proxy.calls.snapshot().iter().map(|call| call.state).collect()
}

#[test]
fn who_asks_is_called_first_and_its_phone_is_asked_to_answer_by_itself() {
    let mut world = world(|_| {}, when_called(1, Incoming::Manual));
    let conn_id = made(&mut world);
    world.run(ms(100));
    let invite = invites(&world, A).remove(0);
    let line = |name| text(invite.headers.get(name));
    assert_eq!(line(Name::CallInfo), format!("<sip:{PROXY}>;answer-after=0"));
    assert_eq!(line(Name::AlertInfo), "info=alert-autoanswer");
    assert!(line(Name::From).starts_with(&format!("<sip:2002@{PROXY}>")), "{}", line(Name::From));
    assert_eq!(line(Name::XStickytapeConnId), conn_id.to_string());
    let offer = String::from_utf8_lossy(&invite.body).into_owned();
    assert!(["PCMU/8000", "PCMA/8000", "telephone-event"].iter().all(|codec| offer.contains(codec)), "{offer}");
    assert!(invites(&world, B).is_empty() && world.proxy.facts.is_empty(), "{:?}", world.proxy.story());
    let view = world.proxy.calls.snapshot().remove(0);
    assert_eq!((view.conn_id, view.state, view.answered), (conn_id, "calling", None));
    assert_eq!((view.caller_phone_number.as_str(), view.dialed_phone_number.as_str()), ("2001", "2002"));

    world.act(A, Action::Answer);
    world.run(ms(100));
    assert_eq!(world.proxy.story(), ["started", "ringing"]);
    let started = &world.proxy.facts[0];
    assert_eq!(started.cause.as_ref().and_then(|asked| asked.reference.as_deref()), Some("r-7"), "told to who asked");
    let invite = invites(&world, B).remove(0);
    let from = text(invite.headers.get(Name::From));
    assert!(from.starts_with(&format!("<sip:2001@{PROXY}>")), "{from}");
    assert!(invite.headers.get(Name::CallInfo).is_none() && invite.headers.get(Name::AlertInfo).is_none());
    assert_eq!(state(&world), ["early"]);
    world.run(ms(500));
    assert_eq!(state(&world), ["talking"]);
    world.act(A, Action::HangUp);
    world.settle();
}

#[test]
fn a_call_that_is_made_is_recorded_as_if_its_phone_had_dialled() {
    let mut world = world(|o| o.recording.default = DefaultOwner::Both, |_, _| {});
    made(&mut world);
    world.run(ms(1_000));
    assert!(world.phones[A].is_talking() && world.phones[B].is_talking());
    assert_eq!(
        world.proxy.story(),
        ["started", "ringing", "recording Origination", "recording Termination", "answered"]
    );
    let starts = world.proxy.starts();
    let (_, origination) = starts.iter().find(|(_, start)| start.side == Side::Origination).unwrap();
    assert_eq!((origination.owner_leg, origination.owner_dn.as_deref()), (THIS, Some("2001")));
    assert_eq!((&*origination.caller_phone_number, &*origination.dialed_phone_number), ("2001", "2002"));
    let members = origination.conversation.members.iter().map(|m| (m.leg, m.role, m.channel)).collect::<Vec<_>>();
    assert_eq!(members, [(THIS, Role::Customer, Channel::Left), (OTHER, Role::Agent, Channel::Right)]);
    assert!(!origination.conversation.early);
    // Relayed to each other, and nobody was offered anything again.
    assert_eq!((invites(&world, A).len(), invites(&world, B).len()), (1, 1));
    for (leg, other) in [(THIS, OTHER), (OTHER, THIS)] {
        assert!(world.proxy.commands_of(leg).contains(&format!("route to {other}")), "{leg}");
    }
    world.act(B, Action::HangUp);
    world.settle();
    assert!(world.proxy.has_fact("released released"));
}

/// What is played to a leg, in order.
fn played(world: &World, wanted: LegId) -> Vec<&'static str> {
    let plays = world.proxy.commands.iter().filter_map(|(_, command)| match command {
        Command::Play { leg, what } if *leg == wanted => Some(match what {
            Playback::None => "nothing",
            Playback::Silence => "silence",
            _ => "a tone",
        }),
        _ => None,
    });
    plays.collect()
}

#[test]
fn who_asks_hears_silence_then_ringback_then_who_answers() {
    let mut world = world(|_| {}, when_called(2, Incoming::Answer { ring: ms(300), answer: ms(900) }));
    made(&mut world);
    world.run(ms(2_000));
    assert_eq!(played(&world, THIS), ["silence", "a tone", "nothing"]);
    world.act(A, Action::HangUp);
    world.settle();
}

#[test]
fn early_media_of_who_is_called_is_heard_and_recorded_where_that_is_asked_for() {
    for early in [false, true] {
        let mut world = world(|o| o.recording.early_media = early, when_called(2, Incoming::Manual));
        made(&mut world);
        world.run(ms(400));
        world.act(B, Action::EarlyMedia);
        world.run(ms(100));
        assert_eq!(played(&world, THIS), ["silence", "nothing"], "no ringback");
        assert!(world.proxy.commands_of(OTHER).contains(&format!("route to {THIS}")));
        assert_eq!(world.proxy.starts().len(), usize::from(early));
        if early {
            assert!(world.proxy.starts()[0].1.conversation.early);
        }
        // Longer than a recorder without sessions is fed: what comes ahead of the answer is wanted.
        world.run(ms(3_000));
        let untapped = world.proxy.commands_of(OTHER).iter().any(|command| command == "tap 0");
        assert!(!untapped, "{:?}", world.proxy.commands_of(OTHER));
        world.act(B, Action::Answer);
        world.run(ms(300));
        assert_eq!((state(&world), world.proxy.starts().len()), (vec!["talking"], 1));
        world.act(A, Action::HangUp);
        world.settle();
    }
}

#[test]
fn a_call_whose_own_phone_does_not_come_was_never_one() {
    for (does, ends) in [
        (Incoming::Refuse(486), "not made busy"),
        (Incoming::Refuse(603), "not made rejected"),
        (Incoming::Refuse(404), "not made rejected"),
        (Incoming::Manual, "not made no-answer"),
    ] {
        let mut world = world(|o| o.sip.ring_timeout = ms(8_000), when_called(1, does));
        made(&mut world);
        if does == Incoming::Manual {
            world.run(ms(100));
            world.act(A, Action::Ring);
        }
        world.run(ms(9_000));
        assert_eq!(world.proxy.story(), [ends]);
        let reference = world.proxy.facts[0].cause.as_ref().and_then(|asked| asked.reference.as_deref());
        assert_eq!(reference, Some("r-7"));
        assert!(invites(&world, B).is_empty());
        world.settle();
    }
}

#[test]
fn who_asks_is_hung_up_with_the_reason_when_the_other_one_does_not_come() {
    for (does, ends, cause) in [
        (Incoming::Refuse(486), "released busy", 486),
        (Incoming::Refuse(503), "released rejected", 503),
        (Incoming::Manual, "released no-answer", 480),
    ] {
        let mut world = world(|o| o.sip.ring_timeout = ms(8_000), when_called(2, does));
        made(&mut world);
        world.run(ms(500));
        if does == Incoming::Manual {
            world.act(B, Action::Ring);
        }
        world.run(ms(9_000));
        assert_eq!(world.proxy.story().last().map(String::as_str), Some(ends), "{:?}", world.proxy.story());
        assert_eq!(world.proxy.starts().len(), 0);
        let bye = world.phones[A].requests().iter().find(|r| r.method == Method::Bye).cloned().expect("BYE");
        let reasons: Vec<String> =
            bye.headers.values(Name::Reason).map(|value| String::from_utf8_lossy(&value).into_owned()).collect();
        assert!(reasons.contains(&format!("SIP;cause={cause}")), "{reasons:?}");
        world.settle();
    }
}

#[test]
fn a_call_can_be_given_up_at_any_moment_by_request_or_by_its_phone() {
    // While its own phone rings.
    let mut first = world(|_| {}, when_called(1, Incoming::Manual));
    let conn_id = made(&mut first);
    first.run(ms(100));
    ask(&mut first, conn_id, "2001", Ask::ReleaseCall).expect("released");
    first.run(ms(200));
    assert_eq!((first.proxy.story(), state(&first)), (vec!["not made abandoned".to_owned()], vec![]));
    assert!(first.phones[A].requests().iter().any(|r| r.method == Method::Cancel));
    first.settle();
    // While the other one rings.
    for by_request in [true, false] {
        let mut world = world(|_| {}, when_called(2, Incoming::Manual));
        let conn_id = made(&mut world);
        world.run(ms(400));
        world.act(B, Action::Ring);
        world.run(ms(100));
        match by_request {
            true => _ = ask(&mut world, conn_id, "2001", Ask::ReleaseCall).expect("released"),
            false => world.act(A, Action::HangUp),
        }
        world.run(ms(200));
        assert_eq!(world.proxy.story(), ["started", "ringing", "released abandoned"], "by request: {by_request}");
        assert!(world.phones[B].requests().iter().any(|r| r.method == Method::Cancel));
        assert!(world.phones[A].is_idle());
        world.settle();
    }
    // By who rings.
    let mut last = world(|_| {}, when_called(2, Incoming::Manual));
    let conn_id = made(&mut last);
    last.run(ms(400));
    last.act(B, Action::Ring);
    last.run(ms(100));
    ask(&mut last, conn_id, "2002", Ask::ReleaseCall).expect("refused by request");
    last.run(ms(200));
    assert_eq!(last.proxy.story(), ["started", "ringing", "released rejected"]);
    last.settle();
}

#[test]
fn a_call_that_cannot_be_made_is_refused_and_rings_nowhere() {
    let refused = |change: fn(&mut Options), dn: &str, to: &str| {
        let mut world = world(change, |_, _| {});
        let code = code(make(&mut world, dn, to));
        world.run(ms(200));
        assert!((A..=C).all(|phone| invites(&world, phone).is_empty()) && state(&world).is_empty());
        world.settle();
        code
    };
    let plain = |_: &mut Options| {};
    assert_eq!(refused(plain, "2099", "2002"), Code::UnknownDn);
    assert_eq!(refused(plain, "2001", "7777"), Code::UnknownTarget);
    assert_eq!(refused(plain, "2001", "2001"), Code::UnknownTarget);
    assert_eq!(refused(|o| o.sip.max_calls = 0, "2001", "2002"), Code::Limit);
    let mut draining = world(|_| {}, |_, _| {});
    draining.tell(Input::Drain);
    assert_eq!(code(make(&mut draining, "2001", "2002")), Code::Limit);
    let mut dry = World::with_pairs(options(), 0);
    dry.phone(1, |_| {});
    assert_eq!(code(make(&mut dry, "2001", "2002")), Code::Limit);
    let mut full = world(|o| o.recording.required = true, |_, _| {});
    full.tell(Input::Space { ok: false });
    assert_eq!(code(make(&mut full, "2001", "2002")), Code::NoSpace);
    assert_eq!(full.proxy.story(), ["failed no-space !"]);
    let undecodable = |o: &mut Options| {
        o.recording.required = true;
        o.media.codecs = vec![Codec::new("G729", 8_000, 1)];
    };
    assert_eq!(refused(undecodable, "2001", "2002"), Code::Codec);
}

/// A room goes before routes (spec/sip.md §1): a route that would take its number too does not get the call.
#[test]
fn a_dial_in_room_is_no_target_that_could_be_called() {
    let mut world = world(
        |o| {
            o.plan.conferences.push(Arc::new(Conference::new("800")));
            o.plan.routes.push(Route {
                from: None,
                pattern: "^(.*)$".parse().unwrap(),
                to: RouteTarget::Trunk("carrier".into()),
                rewrite: None,
                record: None,
                required: false,
                origin: None,
            });
        },
        |_, _| {},
    );
    let carrier = world.raw("198.51.100.10:5060");
    let denied = make(&mut world, "2001", "800").expect_err("refused");
    assert_eq!(denied.code, Code::UnknownTarget);
    assert!(denied.detail.contains("room"), "{}", denied.detail);
    let conn_id = made(&mut world);
    world.run(ms(1_000));
    let transfer = ask(&mut world, conn_id, "2001", Ask::SingleStepTransfer { to: "800".into() });
    assert_eq!(code(transfer), Code::UnknownTarget);
    world.act(A, Action::Refer(Refer::to("800")));
    world.run(ms(500));
    assert!(world.phones[A].is_talking() && world.phones[B].is_talking());
    assert!(world.raws[carrier].requests(Method::Invite).is_empty());
    world.act(A, Action::HangUp);
    world.settle();
}

#[test]
fn while_a_call_is_made_nothing_else_goes_on_in_it() {
    let mut world = world(|_| {}, when_called(2, Incoming::Manual));
    let conn_id = made(&mut world);
    world.run(ms(400));
    world.act(B, Action::Ring);
    world.run(ms(100));
    let to = || "2003".to_owned();
    for wish in [
        Ask::HoldCall,
        Ask::RetrieveCall,
        Ask::InitiateTransfer { to: to() },
        Ask::SingleStepTransfer { to: to() },
        Ask::SingleStepConference { to: to(), hold: false },
        Ask::CompleteTransfer { other: None },
        Ask::AlternateCall { other: None },
        Ask::DeleteFromConference { party: "2002".into() },
        Ask::SetMuteOn { coach: false },
        Ask::RecordStart { owner: OwnerWish::Source },
    ] {
        let name = wish.name();
        assert_eq!(code(ask(&mut world, conn_id, "2001", wish)), Code::WrongState, "{name}");
    }
    assert_eq!(state(&world), ["early"]);
    world.act(B, Action::Answer);
    world.run(ms(300));
    ask(&mut world, conn_id, "2001", Ask::HoldCall).expect("as any call");
    world.act(A, Action::HangUp);
    world.settle();
}

#[test]
fn who_rings_may_send_the_call_elsewhere_and_who_asks_may_not() {
    let mut world = world(
        |o| o.plan.dns[2].record = Some(true),
        |n, o| {
            if n < 3 {
                o.incoming = Incoming::Manual;
            }
        },
    );
    let conn_id = made(&mut world);
    world.run(ms(100));
    let elsewhere = || Ask::RedirectCall { to: "2003".into() };
    assert_eq!(code(ask(&mut world, conn_id, "2001", elsewhere())), Code::WrongState);
    world.act(A, Action::Answer);
    world.run(ms(100));
    world.act(B, Action::Ring);
    world.run(ms(100));
    ask(&mut world, conn_id, "2002", elsewhere()).expect("redirected");
    world.run(ms(600));
    assert!(world.phones[A].is_talking() && world.phones[C].is_talking());
    // The triggers are those of the two that talk.
    let owners: Vec<_> = world.proxy.starts().into_iter().map(|(_, start)| start.owner_dn).collect();
    assert_eq!(owners, [Some("2001".to_owned()), Some("2003".to_owned())]);
    world.act(A, Action::HangUp);
    world.settle();
}

#[test]
fn who_is_called_may_be_picked_up_and_who_asks_only_by_a_device_of_its_own() {
    let mut world = world(
        |o| (0..3).for_each(|n| o.plan.dns[n].pickup_group = "sales".into()),
        |n, o| {
            if n < 3 {
                o.incoming = Incoming::Manual;
            }
        },
    );
    made(&mut world);
    world.run(ms(100));
    world.act(A, Action::Ring);
    world.run(ms(100));
    let pick_up = |world: &mut World, phone: usize| {
        let named = world.phones[phone].dialog(0).expect("rings").replaces();
        let headers = [("Require", "replaces".to_owned()), ("Replaces", named)];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.into())).to_vec();
        world.act(C, Action::Call { to: "2002".into(), offer: true, headers });
        world.run(ms(200));
    };
    pick_up(&mut world, A);
    assert!(world.proxy.has_fact("refused 403") && !world.phones[C].is_talking(), "{:?}", world.proxy.story());
    world.act(A, Action::Answer);
    world.run(ms(100));
    world.act(B, Action::Ring);
    world.run(ms(100));
    pick_up(&mut world, B);
    assert!(world.phones[A].is_talking() && world.phones[C].is_talking());
    assert_eq!((state(&world), world.proxy.starts().len()), (vec!["talking"], 1));
    world.act(C, Action::HangUp);
    world.settle();
}
