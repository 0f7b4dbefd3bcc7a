//! Dial-in rooms in virtual time: who gets in, who hears whom, what is recorded, and how a room ends
//! (spec/interface.md `[[conference]]`, spec/recording.md §2, §3).

use std::time::Duration;

use crate::call_world::mixed::*;
use crate::call_world::rooms::*;
use crate::call_world::*;
use stickytape::bridge::command::{Command, Digit, Notice, Playback};
use stickytape::call::Input;
use stickytape::call::options::{DefaultOwner, Options, Secret};
use stickytape::call::request::{Ask, Code};
use stickytape::id::LegId;
use stickytape::record::mark::{Channel, Layout, Side, StopCause};
use stickytape::sip::message::Response;
use stickytape::sip::name::Name;
use stickytape::testing::phone::Action;

fn with_pin(options: &mut Options) {
    options.plan.conferences[0] = room(|room| room.pin = Some(Secret::new("1234".into())));
}

/// The last answer to an INVITE of this phone.
fn last_answer(world: &World, phone: usize) -> Response {
    world.phones[phone].responses().last().expect("an answer").clone()
}

/// What a leg was told to hear last.
fn hears(world: &World, leg: u64) -> &'static str {
    let played = |command: &Command| match command {
        Command::Play { leg: l, what } if l.0 == leg => Some(match what {
            Playback::None => "nothing",
            Playback::Silence => "silence",
            Playback::Samples { repeat: true, .. } => "a sound",
            Playback::Samples { .. } => "a sound once",
        }),
        _ => None,
    };
    world.proxy.commands.iter().rev().find_map(|(_, command)| played(command)).unwrap_or("nothing")
}

/// The digits of a leg are collected.
fn is_collected(world: &World, leg: u64) -> bool {
    let collects = |command: &Command| match command {
        Command::Collect { leg: l, digits } if l.0 == leg => Some(*digits),
        _ => None,
    };
    world.proxy.commands.iter().rev().find_map(|(_, command)| collects(command)).unwrap_or(false)
}

/// The media thread tells of digits that a leg has pressed as telephone events.
fn press(world: &mut World, leg: u64, keys: &str) {
    let worker = world.proxy.commands.iter().find_map(|(worker, command)| match command {
        Command::AddLeg(new) if new.leg.0 == leg => Some(*worker),
        _ => None,
    });
    for key in keys.chars() {
        let digit = Digit::of_key(key).unwrap();
        let notice = Notice::Digit { leg: LegId(leg), digit, length: ms(100) };
        world.tell(Input::Media(worker.expect("the leg was added"), notice));
        world.run(ms(200));
    }
}

fn press_by_info(world: &mut World, phone: usize, keys: &str) {
    for key in keys.chars() {
        let body = format!("Signal={key}\r\nDuration=100\r\n");
        world.act(phone, Action::Info { content_type: "application/dtmf-relay".into(), body: body.into() });
        world.run(ms(200));
    }
}

/// The Reason of the last BYE that a phone has got.
fn reason_of_bye(world: &World, phone: usize) -> String {
    let bye = world.phones[phone].requests().iter().rev().find(|r| r.method.as_str() == "BYE");
    text(bye.expect("a BYE").headers.get(Name::Reason))
}

// Coming and going.

#[test]
fn the_first_waits_alone_two_are_relayed_and_three_are_mixed() {
    let mut world = meeting(1, |_| {});
    assert_eq!((state(&world), hears(&world, 1)), ("waiting", "silence"));
    assert_eq!(last_answer(&world, D1).code, 200);
    enter(&mut world, D2);
    assert_eq!(state(&world), "talking");
    assert_routed(&world, 1, 2);
    assert_eq!(open_rooms(&world), 0, "two need no mixer");
    enter(&mut world, D3);
    assert_eq!((state(&world), mixed(&world)), ("conference", (vec![1, 2, 3], vec![])));
    assert_eq!(world.proxy.calls.snapshot().len(), 1, "all are in one call");
    assert_eq!((1..=3).map(|n| invites(&world, n - 1)).sum::<usize>(), 0, "nobody gets a re-INVITE");
    for story in ["opened 1", "entered 2", "entered 3"] {
        assert!(world.proxy.has_fact(story), "{story}");
    }
    for phone in [D1, D2, D3] {
        leave(&mut world, phone);
    }
    world.settle();
}

#[test]
fn members_may_leave_in_any_order_and_the_last_two_end_the_room() {
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
        let mut world = meeting(4, |_| {});
        assert_eq!(mixed(&world).0, [1, 2, 3, 4]);
        for (n, phone) in order.into_iter().enumerate() {
            leave(&mut world, phone);
            assert_eq!(mixed(&world).0.len(), [3, 0, 0, 0][n]);
        }
        assert!(world.phones.iter().all(|phone| phone.is_idle()));
        assert_eq!(world.proxy.story().iter().filter(|s| *s == "released released").count(), 1);
        world.settle();
    }
}

#[test]
fn a_room_that_waits_goes_on_with_one_and_ends_when_it_is_empty() {
    for first in [D1, D2] {
        let mut world = meeting(2, waits);
        let conn = conn_id(&world);
        leave(&mut world, first);
        let (stays, leg) = (1 - first, 2 - first as u64);
        assert_eq!((state(&world), hears(&world, leg)), ("waiting", "silence"));
        assert!(world.phones[stays].is_talking());
        enter(&mut world, D3);
        assert_routed(&world, leg, 3);
        assert_eq!(conn_id(&world), conn, "it is the same room");
        leave(&mut world, D3);
        leave(&mut world, stays);
        assert!(world.proxy.calls.snapshot().is_empty());
        enter(&mut world, D1);
        assert_ne!(conn_id(&world), conn, "an empty room has ended: this is another one");
        leave(&mut world, D1);
        world.settle();
    }
}

#[test]
fn hold_audio_is_played_to_who_is_alone() {
    let mut world = meeting(1, |o| o.media.hold_audio = Some(vec![1; 8_000].into()));
    let plays_it = |(_, command): &(_, Command)| matches!(command, Command::Play { leg: LegId(1), what: Playback::Samples { samples, .. } } if samples[..] == [1; 8_000]);
    assert_eq!(hears(&world, 1), "a sound");
    assert!(world.proxy.commands.iter().any(plays_it));
    enter(&mut world, D2);
    assert_eq!((hears(&world, 1), hears(&world, 2)), ("nothing", "nothing"));
    leave(&mut world, D1);
    world.settle();
}

#[test]
fn a_caller_without_an_offer_enters_with_its_answer() {
    let mut world = meeting(1, |_| {});
    world.act(D2, Action::Call { to: "800".into(), offer: false, headers: Vec::new() });
    world.run(ms(300));
    assert_routed(&world, 1, 2);
    leave(&mut world, D1);
    world.settle();
}

#[test]
fn a_caller_by_a_trunk_comes_by_its_route_and_strangers_do_not_come_in() {
    let mut world = world_with(|o| {
        o.plan.routes.push(stickytape::call::options::Route {
            from: Some("carrier".into()),
            pattern: regex::Regex::new("^\\+4930(\\d+)$").unwrap(),
            to: stickytape::call::options::RouteTarget::Dn("$1".into()),
            rewrite: None,
            record: None,
            required: false,
            origin: None,
        });
    });
    let trunk = world.raw("198.51.100.10:5060");
    let stranger = world.raw("203.0.113.9:5060");
    let offer = sdp("198.51.100.10", 4000, "0 101", "sendrecv");
    let invite = world.raws[trunk].invite("+4930800", "t", Some(&offer));
    world.raws[trunk].send(invite.clone());
    let refused = world.raws[stranger].invite("800", "s", Some(&offer));
    world.raws[stranger].send(refused.clone());
    world.run(ms(100));
    assert_eq!(world.raws[stranger].codes("INVITE").last(), Some(&403));
    assert_eq!(world.raws[trunk].codes("INVITE").last(), Some(&200));
    assert_eq!(world.proxy.calls.snapshot()[0].parties[0].role, "customer");
    let ok = world.raws[trunk].responses("INVITE").pop().unwrap();
    let ack = world.raws[trunk].in_dialog(&invite, &ok, stickytape::sip::method::Method::Ack, 1);
    world.raws[trunk].send(ack);
    let ack = refusal_ack(&world, stranger, &refused);
    world.raws[stranger].send(ack);
    enter(&mut world, D2);
    assert_routed(&world, 1, 2);
    leave(&mut world, D2);
    let bye = world.raws[trunk].requests(stickytape::sip::method::Method::Bye).remove(0);
    let ok = world.raws[trunk].reply(&bye, 200, "", None);
    world.raws[trunk].send(ok);
    world.settle();
}

fn refusal_ack(
    world: &World,
    raw: usize,
    invite: &stickytape::sip::message::Request,
) -> stickytape::sip::message::Request {
    let mut ack = invite.clone();
    ack.method = stickytape::sip::method::Method::Ack;
    ack.headers.set(Name::CSeq, "1 ACK");
    let refused = world.raws[raw].responses("INVITE").pop().expect("a final answer");
    ack.headers.set(Name::To, text(refused.headers.get(Name::To)));
    ack.body = bytes::Bytes::new();
    ack
}

#[test]
fn a_room_is_full_at_its_limit() {
    let mut world = meeting(2, |o| o.plan.conferences[0] = room(|room| room.max_members = 2));
    enter(&mut world, D3);
    let refused = last_answer(&world, D3);
    assert_eq!(refused.code, 486);
    assert_eq!(text(refused.headers.get(Name::Warning)), "399 192.0.2.1 \"The room is full\"");
    assert_eq!(text(refused.headers.get(Name::Reason)), "Q.850;cause=17;text=\"The room is full\"");
    let refused = ask(&mut world, "2001", Ask::SingleStepConference { to: "2004".into(), hold: false }).unwrap_err();
    assert_eq!(refused.code, Code::Limit);
    assert_routed(&world, 1, 2);
    leave(&mut world, D1);
    enter(&mut world, D3);
    assert!(world.phones[D3].is_talking(), "there is a place again");
    leave(&mut world, D3);
    world.settle();
}

#[test]
fn what_cannot_be_mixed_is_refused_with_488() {
    let mut world = world_with(|_| {});
    let raw = world.raw("10.0.0.7:5060");
    let mut invite = world.raws[raw].invite("800", "g", Some(&sdp("10.0.0.7", 4000, "9 101", "sendrecv")));
    invite.headers.set(Name::From, "<sip:2007@10.0.0.7>;tag=g");
    world.raws[raw].send(invite.clone());
    world.run(ms(100));
    let refused = world.raws[raw].responses("INVITE").pop().unwrap();
    assert_eq!(refused.code, 488);
    assert!(text(refused.headers.get(Name::Warning)).starts_with("305 "), "{refused:?}");
    let ack = refusal_ack(&world, raw, &invite);
    world.raws[raw].send(ack);
    world.settle();
}

#[test]
fn while_draining_nobody_enters_and_at_its_end_all_get_a_bye() {
    let mut world = meeting(3, with_drain);
    world.tell(Input::Drain);
    enter(&mut world, 3);
    assert_eq!(last_answer(&world, 3).code, 503);
    assert_eq!(mixed(&world).0, [1, 2, 4], "the room goes on");
    world.run(Duration::from_secs(5));
    assert!(world.phones.iter().all(|phone| phone.is_idle()));
    assert_eq!(causes(&world), [StopCause::Shutdown]);
    world.settle();
}

fn with_drain(options: &mut Options) {
    recorded(options);
    options.sip.drain_timeout = Duration::from_secs(4);
}

#[test]
fn a_room_goes_on_through_a_reload_that_takes_it_away() {
    let mut world = meeting(2, |_| {});
    let mut plan = options().plan;
    world.tell(Input::Reload(Box::new(plan.clone())));
    assert_routed(&world, 1, 2);
    enter(&mut world, D3);
    assert_eq!(last_answer(&world, D3).code, 404);
    plan.conferences.push(room(|room| room.max_members = 2));
    world.tell(Input::Reload(Box::new(plan)));
    enter(&mut world, D3);
    assert_eq!(last_answer(&world, D3).code, 486, "who comes is judged by the new file");
    leave(&mut world, D1);
    world.settle();
}

#[test]
fn a_phone_that_vanishes_is_asked_and_leaves_the_room() {
    let mut world = meeting(1, |_| {});
    let watched = world.proxy.commands_of(LegId(1)).into_iter().rfind(|c| c.starts_with("watch"));
    assert_eq!(watched.as_deref(), Some("watch true"), "who is alone is watched, too");
    enter(&mut world, D2);
    enter(&mut world, D3);
    world.phones.remove(D2);
    let worker = world.proxy.commands[0].0;
    world.tell(Input::Media(worker, Notice::Inactive { leg: LegId(2) }));
    world.run(Duration::from_secs(40));
    assert!(world.proxy.has_fact("deleted 2 by 2, 2 left"), "{:?}", world.proxy.story());
    assert_routed(&world, 1, 3);
    leave(&mut world, D1);
    world.settle();
}

// The PIN.

#[test]
fn the_right_pin_lets_in_as_events_and_as_info() {
    for by_info in [false, true] {
        let mut world = world_with(with_pin);
        enter(&mut world, D1);
        assert_eq!((state(&world), hears(&world, 1)), ("entering", "a sound"));
        assert!(is_collected(&world, 1));
        assert!(world.proxy.facts.is_empty(), "who is at the door is nobody yet: {:?}", world.proxy.story());
        match by_info {
            true => press_by_info(&mut world, D1, "12"),
            false => press(&mut world, 1, "12"),
        }
        assert_eq!(hears(&world, 1), "silence", "no prompt while it types");
        match by_info {
            true => press_by_info(&mut world, D1, "34#"),
            false => press(&mut world, 1, "34#"),
        }
        assert_eq!((state(&world), is_collected(&world, 1)), ("waiting", false));
        assert_eq!(world.proxy.story()[0], "opened 1");
        leave(&mut world, D1);
        world.settle();
    }
}

#[test]
fn three_wrong_pins_and_thirty_seconds_are_all_that_there_is() {
    let mut world = world_with(with_pin);
    enter(&mut world, D1);
    press(&mut world, 1, "1#");
    assert_eq!(hears(&world, 1), "a sound");
    press(&mut world, 1, "999999#12#");
    assert!(world.phones[D1].is_idle());
    assert_eq!(reason_of_bye(&world, D1), "SIP;cause=403;text=\"wrong PIN\"");
    assert_eq!(world.proxy.story(), ["refused 403"]);
    world.settle();

    let mut world = world_with(with_pin);
    enter(&mut world, D1);
    world.run(Duration::from_millis(9_500));
    assert!(world.phones[D1].is_talking(), "ten seconds are not over");
    world.run(ms(500));
    assert!(world.phones[D1].is_idle());
    assert_eq!(reason_of_bye(&world, D1), "SIP;cause=408;text=\"no PIN\"");
    world.settle();

    let mut world = world_with(with_pin);
    enter(&mut world, D1);
    for _ in 0..3 {
        world.run(Duration::from_secs(9));
        press(&mut world, 1, "1");
    }
    assert!(world.phones[D1].is_talking());
    world.run(Duration::from_secs(3));
    assert!(world.phones[D1].is_idle(), "thirty seconds in all");
    world.settle();
}

#[test]
fn after_thirty_wrong_pins_of_all_callers_none_is_taken_for_ten_minutes() {
    let mut world = world_with(with_pin);
    for n in (1..=9).chain([11]) {
        if n == 11 {
            enter(&mut world, D3);
        }
        enter(&mut world, D1);
        press(&mut world, n, "1#2#3#");
        assert_eq!(reason_of_bye(&world, D1), "SIP;cause=403;text=\"wrong PIN\"");
    }
    // Who stands at the door already is not let in either, nor asked any more.
    press(&mut world, 10, "1234#");
    assert!(world.phones[D3].is_idle());
    assert_eq!(reason_of_bye(&world, D3), "SIP;cause=403;text=\"too many wrong PINs\"");
    enter(&mut world, D2);
    assert_eq!(last_answer(&world, D2).code, 403);
    assert_eq!(world.proxy.story(), ["refused 403"; 12]);

    world.run(Duration::from_secs(600));
    enter(&mut world, D2);
    press(&mut world, 12, "1234#");
    assert_eq!(state(&world), "waiting");
    leave(&mut world, D2);
    world.settle();
}

#[test]
fn who_is_at_the_door_is_not_heard_not_recorded_and_may_only_leave() {
    let mut world = world_with(|o| {
        with_pin(o);
        o.plan.dns[1].record = Some(true);
    });
    enter(&mut world, D1);
    press(&mut world, 1, "1234#");
    enter(&mut world, D2);
    assert_eq!(state(&world), "waiting");
    assert!(world.proxy.starts().is_empty());
    let door = world.proxy.calls.snapshot().into_iter().find(|call| call.state == "entering").unwrap().conn_id;
    for what in [Ask::HoldCall, Ask::SetMuteOn { coach: false }] {
        assert_eq!(ask_in(&mut world, door, "2002", what).unwrap_err().code, Code::WrongState);
    }
    let owner = stickytape::call::request::OwnerWish::Source;
    let refused = ask_in(&mut world, door, "2002", Ask::RecordStart { owner }).unwrap_err();
    assert_eq!(refused.code, Code::WrongState);
    ask_in(&mut world, door, "2002", Ask::ReleaseCall).unwrap();
    world.run(ms(300));
    assert!(world.phones[D2].is_idle() && world.phones[D1].is_talking());
    assert_eq!(world.proxy.story(), ["opened 1"], "the room has not noticed");
    leave(&mut world, D1);
    world.settle();
}

#[test]
fn who_types_while_the_room_fills_up_is_turned_away_and_who_hangs_up_leaves_nothing() {
    let mut world = world_with(|o| {
        o.plan.conferences[0] = room(|room| {
            room.pin = Some(Secret::new("1".into()));
            room.max_members = 2;
        });
    });
    for phone in [D1, D2, D3, 3] {
        enter(&mut world, phone);
    }
    for leg in 1..=3 {
        press(&mut world, leg, "1#");
    }
    assert!(world.phones[D3].is_idle());
    assert_eq!(reason_of_bye(&world, D3), "SIP;cause=486;text=\"the room is full\"");
    assert_routed(&world, 1, 2);
    leave(&mut world, 3);
    assert!(world.proxy.has_fact("refused 486"));
    leave(&mut world, D1);
    world.settle();
}

#[test]
fn no_digit_of_a_pin_reaches_facts_marks_or_what_is_printed() {
    let mut world = world_with(|o| {
        o.plan.conferences[0] = room(|room| room.pin = Some(Secret::new("90817263".into())));
    });
    enter(&mut world, D1);
    press(&mut world, 1, "90817263");
    let printed = format!("{:?}", world.proxy.calls);
    assert!(!printed.contains("90817263"), "{printed}");
    press(&mut world, 1, "#");
    enter(&mut world, D2);
    press(&mut world, 2, "90817263#");
    let told = format!("{:?} {:?} {:?}", world.proxy.facts, world.proxy.marks, world.proxy.calls);
    assert!(!told.contains("90817263"));
    leave(&mut world, D1);
    world.settle();
}

// Recording.

#[test]
fn the_room_owns_one_recording_from_its_second_member_to_its_end() {
    let mut world = meeting(1, |o| {
        waits(o);
        recorded(o);
    });
    assert!(world.proxy.starts().is_empty(), "one alone is not recorded");
    let begins = world.net.now();
    enter(&mut world, D2);
    let (t0, start) = world.proxy.starts().remove(0);
    assert!(t0 > begins && t0 < begins + ms(100));
    assert_eq!((start.side, start.trigger.as_str()), (Side::Room, "default"));
    assert_eq!((start.caller_phone_number.as_str(), start.dialed_phone_number.as_str()), ("2001", "800"));
    assert_eq!(conversation(&world, 0), "1m 2m");
    enter(&mut world, D3);
    assert_eq!(conversation(&world, 0), "1m 2m 4m");
    leave(&mut world, D1);
    leave(&mut world, D2);
    assert!(world.proxy.stops().is_empty(), "who has opened the room does not own it");
    assert_eq!(conversation(&world, 0), "4m");
    let ends = world.net.now();
    leave(&mut world, D3);
    let (end, cause) = world.proxy.stops().remove(0);
    assert_eq!(cause, StopCause::Released);
    assert!(end > ends && end < ends + ms(100));
    assert_eq!(world.proxy.starts().len(), 1);
    world.settle();
}

#[test]
fn what_a_room_says_of_recording_goes_before_the_default() {
    for (default, record, recorded) in [
        (DefaultOwner::None, None, None),
        (DefaultOwner::None, Some(true), Some("room")),
        (DefaultOwner::Both, Some(false), None),
        (DefaultOwner::Termination, None, Some("default")),
        (DefaultOwner::Both, Some(true), Some("room")),
    ] {
        let mut world = meeting(3, |o| {
            o.recording.default = default;
            o.plan.conferences[0] = room(|room| room.record = record);
        });
        let starts = world.proxy.starts();
        let triggers: Vec<&str> = starts.iter().map(|(_, start)| start.trigger.as_str()).collect();
        assert_eq!(triggers, recorded.into_iter().collect::<Vec<_>>(), "{default:?} {record:?}");
        for phone in [D1, D2, D3] {
            leave(&mut world, phone);
        }
        world.settle();
    }
}

#[test]
fn members_have_their_own_recordings_besides() {
    let mut world = meeting(3, |o| {
        recorded(o);
        o.plan.dns[0].record = Some(true);
    });
    let owner = stickytape::call::request::OwnerWish::Source;
    ask(&mut world, "2003", Ask::RecordStart { owner }).unwrap();
    let sides: Vec<(Side, String)> = world.proxy.starts().into_iter().map(|(_, s)| (s.side, s.trigger)).collect();
    let expected = [(Side::Origination, "dn"), (Side::Room, "default"), (Side::Origination, "request")];
    assert_eq!(sides, expected.map(|(side, trigger)| (side, trigger.to_owned())));
    for session in 0..3 {
        assert_eq!(conversation(&world, session), "1m 2m 4m");
    }
    leave(&mut world, D1);
    assert_eq!(causes(&world), [StopCause::OwnerLeft], "its own ends with it, the room's does not");
    leave(&mut world, D2);
    assert_eq!(causes(&world), [StopCause::OwnerLeft, StopCause::Released, StopCause::Released]);
    world.settle();
}

#[test]
fn left_is_the_owner_and_the_first_member_where_the_room_owns() {
    let mut world = meeting(3, |o| {
        recorded(o);
        o.recording.layout = Layout::Stereo;
        o.plan.dns[1].record = Some(true);
    });
    for (_, start) in world.proxy.starts() {
        let left: Vec<u64> =
            start.conversation.members.iter().filter(|m| m.channel == Channel::Left).map(|m| m.leg.0).collect();
        assert_eq!(left, [if start.side == Side::Room { 1 } else { 2 }]);
    }
    for phone in [D1, D2, D3] {
        leave(&mut world, phone);
    }
    world.settle();
}

#[test]
fn a_recording_that_is_required_and_impossible_keeps_callers_out() {
    let mut world = world_with(|o| {
        recorded(o);
        o.recording.required = true;
    });
    world.tell(Input::Space { ok: false });
    enter(&mut world, D1);
    assert_eq!(last_answer(&world, D1).code, 503);
    assert_eq!(world.proxy.story(), ["failed no-space !", "refused 503"]);
    world.tell(Input::Space { ok: true });
    enter(&mut world, D1);
    world.tell(Input::Space { ok: false });
    enter(&mut world, D2);
    assert_eq!(last_answer(&world, D2).code, 503);
    assert!(world.phones[D1].is_talking());
    leave(&mut world, D1);
    world.settle();
}

#[test]
fn a_stop_by_request_holds_for_the_room() {
    let mut world = meeting(2, |o| {
        waits(o);
        recorded(o);
    });
    let recording = Some(world.proxy.starts()[0].1.id);
    ask(&mut world, "2001", Ask::RecordPause { recording }).unwrap();
    ask(&mut world, "2002", Ask::RecordResume { recording }).unwrap();
    let refused = ask(&mut world, "2001", Ask::RecordStop { recording: None }).unwrap_err();
    assert_eq!(refused.code, Code::UnknownRecording, "none is the requester's own");
    ask(&mut world, "2001", Ask::RecordStop { recording }).unwrap();
    leave(&mut world, D2);
    enter(&mut world, D3);
    assert_eq!((world.proxy.starts().len(), causes(&world)), (1, vec![StopCause::Stopped]));
    leave(&mut world, D1);
    leave(&mut world, D3);
    world.settle();
}
