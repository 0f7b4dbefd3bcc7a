//! What phones are told in mid-call: that they are recorded (a=record, a beep), who they are connected to; what they
//! would like (a=recordpref); hold that we answer ourselves; offers where codecs differ (spec/recording.md §2 and §4.1,
//! spec/sip.md §2 and §4, RFC 7866).

use std::time::Duration;

use crate::call_world::*;
use stickytape::bridge::command::Command;
use stickytape::call::Input;
use stickytape::call::options::{Beep, BeepTo, DefaultOwner, Options};
use stickytape::call::request::{Accepted, Ask, Denied, OwnerWish, Request as Asked, Ticket};
use stickytape::codec::{Codec, Direction};
use stickytape::id::LegId;
use stickytape::sip::message::Response;
use stickytape::sip::method::Method;
use stickytape::sip::name::Name;
use stickytape::testing::phone::{self, Action, Happening, HoldForm, Leave, Refer};

const D1: usize = 0;
const D2: usize = 1;
const D3: usize = 2;

fn world(change: impl FnOnce(&mut Options), phones: impl Fn(u8, &mut phone::Options)) -> World {
    let mut options = options();
    change(&mut options);
    let mut world = World::new(options);
    for n in 1..=3 {
        world.phone(n, |o| phones(n, o));
    }
    world
}

fn talking(change: impl FnOnce(&mut Options), phones: impl Fn(u8, &mut phone::Options)) -> World {
    let mut world = world(change, phones);
    world.act(D1, Action::call("2002"));
    world.run(ms(1_000));
    assert!(world.phones[D1].is_talking() && world.phones[D2].is_talking());
    world
}

fn ask(world: &mut World, dn: &str, ask: Ask) -> Result<Accepted, Denied> {
    let ticket = Ticket(world.proxy.answers.len() as u64 + 1);
    let conn_id = world.proxy.calls.snapshot()[0].conn_id;
    let request = Asked { conn_id, this_dn: dn.to_owned(), reference: None, ask };
    world.tell(Input::Request(ticket, Box::new(request)));
    world.run(ms(500));
    world.proxy.answers.iter().find(|(t, _)| *t == ticket).expect("answered").1.clone()
}

fn aware(_: u8, options: &mut phone::Options) {
    options.record_aware = true;
}

/// What a phone was told of recording, in order.
fn told(world: &World, phone: usize) -> Vec<&str> {
    world.phones[phone].record_states().map(|(_, _, state)| state).collect()
}

/// Methods of the requests with which a phone was told something, except its INVITE, BYE and NOTIFYs.
fn methods(world: &World, phone: usize) -> Vec<String> {
    let all = world.phones[phone].requests().iter().filter(|r| matches!(r.method, Method::Invite | Method::Update));
    let again = all.filter(|r| text(r.headers.get(Name::To)).contains("tag="));
    again.map(|r| r.method.as_str().to_owned()).collect()
}

fn finish(world: &mut World, phone: usize) {
    world.act(phone, Action::HangUp);
    world.settle();
}

#[test]
fn phones_that_are_aware_of_recording_hear_of_each_change_and_others_get_no_sip() {
    let mut world = talking(|_| {}, |n, o| o.record_aware = n != 3);
    // The caller by its answer, the called one by UPDATE: its INVITE came before it could say that it is aware.
    assert_eq!((told(&world, D1), told(&world, D2)), (vec!["on"], vec!["on"]));
    assert_eq!((methods(&world, D1), methods(&world, D2)), (vec![], vec!["UPDATE".to_owned()]));
    for (wish, state) in [
        (Ask::RecordPause { recording: None }, "paused"),
        (Ask::RecordResume { recording: None }, "on"),
        (Ask::RecordStop { recording: None }, "off"),
        (Ask::RecordStart { owner: OwnerWish::Source }, "on"),
    ] {
        ask(&mut world, "2001", wish).unwrap();
        assert_eq!((told(&world, D1).last(), told(&world, D2).last()), (Some(&state), Some(&state)));
    }
    assert_eq!((told(&world, D1).len(), told(&world, D2).len()), (5, 5), "once each");
    // Nobody is told twice what it knows, and nobody else gets anything.
    let mut plain = talking(|_| {}, |_, _| {});
    ask(&mut plain, "2001", Ask::RecordPause { recording: None }).unwrap();
    assert_eq!((methods(&plain, D1), methods(&plain, D2)), (vec![], vec![]));
    assert!(plain.phones[D1].responses().iter().all(|r| !String::from_utf8_lossy(&r.body).contains("a=record")));
    finish(&mut plain, D1);
    finish(&mut world, D1);
}

#[test]
fn an_announcement_changes_one_line_and_neither_media_nor_hold() {
    let mut world = talking(|_| {}, aware);
    let commands = world.proxy.commands.len();
    ask(&mut world, "2001", Ask::RecordPause { recording: None }).unwrap();
    assert_eq!(world.proxy.commands.len(), commands, "{:?}", &world.proxy.commands[commands..]);
    let bodies: Vec<String> = world.phones[D2]
        .requests()
        .iter()
        .filter(|r| r.method == Method::Update)
        .map(|r| String::from_utf8_lossy(&r.body).into_owned())
        .collect();
    let [before, after] = bodies.as_slice() else { panic!("{bodies:?}") };
    let changed: Vec<_> = before.lines().zip(after.lines()).filter(|(a, b)| a != b).collect();
    assert_eq!(changed.len(), 2, "{changed:?}");
    assert!(changed[0].0.starts_with("o=") && changed[1] == ("a=record:on", "a=record:paused"), "{changed:?}");
    finish(&mut world, D1);
}

#[test]
fn a_phone_that_is_not_recorded_is_told_so_by_its_first_description_and_nothing_more() {
    let mut world = talking(|o| o.recording.default = DefaultOwner::None, aware);
    assert_eq!((told(&world, D1), told(&world, D2)), (vec!["off"], vec![]));
    assert_eq!(methods(&world, D2), Vec::<String>::new());
    // What is said for another reason says it, too.
    world.act(D1, Action::Hold(HoldForm::SendOnly));
    world.run(ms(500));
    assert_eq!(told(&world, D2), ["off"]);
    finish(&mut world, D1);
}

#[test]
fn a_transfer_tells_who_comes_in_and_who_stays_only_what_changes() {
    let mut world = talking(|o| o.recording.default = DefaultOwner::Termination, aware);
    world.act(D2, Action::Refer(Refer { leave: Leave::WhenDone, ..Refer::to("2003") }));
    world.run(ms(2_000));
    assert!(world.phones[D3].is_talking());
    assert_eq!(told(&world, D1), ["on", "off"], "the owner has left");
    assert_eq!(told(&world, D3), Vec::<&str>::new(), "it was never recorded");
    finish(&mut world, D1);
    let mut world = talking(|_| {}, aware);
    world.act(D2, Action::Refer(Refer { leave: Leave::WhenDone, ..Refer::to("2003") }));
    world.run(ms(2_000));
    assert_eq!((told(&world, D1), told(&world, D3)), (vec!["on"], vec!["on"]));
    finish(&mut world, D1);
}

/// A hand-written customer on the trunk, aware of recording, that calls 2001; `allow`: its methods.
fn customer(allow: &str) -> (World, stickytape::sip::message::Request, Response) {
    let mut world = World::new(options());
    world.phone(1, |_| {});
    let raw = world.raw("198.51.100.10:5060");
    let mut invite = world.raws[raw].invite("2001", "aware", Some(&sdp("198.51.100.10", 4000, "0 101", "sendrecv")));
    invite.headers.push(Name::Supported, "record-aware");
    invite.headers.push(Name::Allow, allow.to_owned());
    world.raws[raw].send(invite.clone());
    world.run(ms(1_000));
    let ok = world.raws[raw].responses("INVITE").pop().unwrap();
    assert!(ok.code == 200 && String::from_utf8_lossy(&ok.body).contains("a=record:on"));
    let ack = world.raws[raw].in_dialog(&invite, &ok, Method::Ack, 1);
    world.raws[raw].send(ack);
    world.run(ms(100));
    (world, invite, ok)
}

#[test]
fn without_update_it_is_a_re_invite_and_a_refusal_is_tried_again_at_the_next_change_only() {
    let (mut world, invite, ok) = customer("INVITE, ACK, BYE, CANCEL");
    ask(&mut world, "2001", Ask::RecordStart { owner: OwnerWish::Source }).unwrap();
    let recording = ask(&mut world, "2001", Ask::RecordStop { recording: None });
    assert!(recording.is_ok());
    assert_eq!(world.raws[0].requests(Method::Update).len(), 0);
    assert_eq!(world.raws[0].requests(Method::Invite).len(), 0, "it is recorded still: the customer's own session");
    let id = world.proxy.calls.snapshot()[0].recordings[0].id;
    ask(&mut world, "2001", Ask::RecordPause { recording: Some(id) }).unwrap();
    let offers = world.raws[0].requests(Method::Invite);
    let offer = offers.last().unwrap();
    assert!(String::from_utf8_lossy(&offer.body).contains("a=record:paused"));
    let refusal = world.raws[0].reply(offer, 488, "", None);
    world.raws[0].send(refusal);
    world.run(ms(5_000));
    assert!(world.proxy.has_fact("warning a peer would not be told whether it is recorded"));
    let distinct = |world: &World| {
        let mut numbers: Vec<_> =
            world.raws[0].requests(Method::Invite).iter().map(|r| text(r.headers.get(Name::CSeq))).collect();
        numbers.dedup();
        numbers.len()
    };
    assert_eq!(distinct(&world), 1, "not tried again while nothing changes");
    ask(&mut world, "2001", Ask::RecordResume { recording: Some(id) }).unwrap();
    assert_eq!(distinct(&world), 1, "what it knows is true again");
    ask(&mut world, "2001", Ask::RecordPause { recording: Some(id) }).unwrap();
    assert_eq!(distinct(&world), 2);
    let bye = world.raws[0].in_dialog(&invite, &ok, Method::Bye, 2);
    world.raws[0].send(bye);
    world.settle();
}

#[test]
fn an_announcement_waits_for_the_offer_that_is_open() {
    let (mut world, invite, ok) = customer("INVITE, ACK, BYE, CANCEL, UPDATE");
    world.act(0, Action::Hold(HoldForm::SendOnly));
    world.run(ms(100));
    let id = world.proxy.calls.snapshot()[0].recordings[0].id;
    // Requests wait, too; the recorder's failure does not.
    let failed = stickytape::record::mark::Notice::Failed {
        id,
        cause: stickytape::record::mark::StopCause::WriteError,
        reason: "disk".into(),
    };
    world.tell(Input::Record(stickytape::id::RecorderId(0), failed));
    world.run(ms(100));
    assert_eq!(world.raws[0].requests(Method::Update).len(), 0, "the hold is open still");
    let hold = world.raws[0].requests(Method::Invite).pop().unwrap();
    let answer = sdp("198.51.100.10", 4000, "0 101", "recvonly").replace("1 1 IN", "1 2 IN");
    let held = world.raws[0].reply(&hold, 200, "", Some(&answer));
    world.raws[0].send(held);
    world.run(ms(100));
    let update = world.raws[0].requests(Method::Update).pop().expect("told now");
    let body = String::from_utf8_lossy(&update.body).into_owned();
    assert!(body.contains("a=record:off") && body.contains("a=sendonly"), "{body}");
    let done = world.raws[0].reply(&update, 200, "", Some(&answer));
    world.raws[0].send(done);
    world.run(ms(100));
    let bye = world.raws[0].in_dialog(&invite, &ok, Method::Bye, 2);
    world.raws[0].send(bye);
    world.settle();
}

/// CSeq numbers of the UPDATEs that the customer got.
fn updates(world: &World) -> Vec<String> {
    let all = world.raws[0].requests(Method::Update);
    let mut numbers: Vec<_> = all.iter().map(|r| text(r.headers.get(Name::CSeq))).collect();
    numbers.dedup();
    numbers
}

#[test]
fn a_peer_in_the_middle_of_an_offer_of_its_own_is_asked_again_but_not_for_ever() {
    let (mut world, invite, ok) = customer("INVITE, ACK, BYE, CANCEL, UPDATE");
    let id = world.proxy.calls.snapshot()[0].recordings[0].id;
    ask(&mut world, "2001", Ask::RecordPause { recording: Some(id) }).unwrap();
    for tries in 1..=4 {
        assert_eq!(updates(&world).len(), tries);
        let update = world.raws[0].requests(Method::Update).pop().unwrap();
        let glare = world.raws[0].reply(&update, 491, "", None);
        world.raws[0].send(glare);
        world.run(ms(4_500));
    }
    assert_eq!(updates(&world).len(), 4);
    assert!(world.proxy.has_fact("warning a peer would not be told whether it is recorded"));
    let bye = world.raws[0].in_dialog(&invite, &ok, Method::Bye, 2);
    world.raws[0].send(bye);
    world.settle();
}

#[test]
fn an_announcement_to_a_party_that_leaves_holds_nothing_up() {
    // 2003 is aware of recording, takes no UPDATE and answers nothing: it is consulted and hangs up meanwhile.
    let mut world = talking(|o| o.plan.dns[1].record_consult = true, |_, o| o.codecs = vec![Codec::pcmu()]);
    world.phones.pop();
    let raw = world.raw("10.0.0.3:5060");
    ask(&mut world, "2002", Ask::RecordStart { owner: OwnerWish::Source }).unwrap();
    ask(&mut world, "2002", Ask::InitiateTransfer { to: "2003".into() }).unwrap();
    let invite = world.raws[raw].requests(Method::Invite).pop().unwrap();
    let mut answer = world.raws[raw].reply(&invite, 200, "t", Some(&sdp("10.0.0.3", 4000, "0 101", "sendrecv")));
    answer.headers.push(Name::Supported, "record-aware");
    answer.headers.push(Name::Allow, "INVITE, ACK, BYE");
    world.raws[raw].send(answer);
    world.run(ms(100));
    let offer = world.raws[raw].requests(Method::Invite).pop().unwrap();
    assert!(String::from_utf8_lossy(&offer.body).contains("a=record:on"), "the consultation is recorded");
    let bye = world.raws[raw].as_callee(&invite, "t", Method::Bye, 1);
    world.raws[raw].send(bye);
    world.run(ms(200));
    // What would wait for an open offer is done at once.
    ask(&mut world, "2002", Ask::RetrieveCall).unwrap();
    assert_eq!(world.proxy.calls.snapshot()[0].state, "talking");
    finish(&mut world, D1);
}

#[test]
fn a_wish_is_a_fact_once_and_obeyed_only_when_the_operator_says_so() {
    for honour in [false, true] {
        let mut world = talking(|o| o.recording.honour_preference = honour, |_, _| {});
        for (wish, state) in [("pause", "paused"), ("on", "resumed"), ("off", "stopped Stopped"), ("on", "recording")] {
            let before = world.proxy.story().len();
            world.act(D2, Action::Prefer(wish.to_owned()));
            world.run(ms(500));
            let story = world.proxy.story().split_off(before);
            let facts = story.iter().filter(|s| **s == format!("preference {wish}")).count();
            assert_eq!(facts, 1, "{wish}: {story:?}");
            assert_eq!(story.iter().any(|s| s.starts_with(state)), honour, "{wish}: {story:?}");
            world.act(D2, Action::Hold(HoldForm::SendOnly));
            world.run(ms(300));
            world.act(D2, Action::Retrieve);
            world.run(ms(300));
            let facts = world.proxy.story().split_off(before).iter().filter(|s| s.starts_with("preference")).count();
            assert_eq!(facts, 1, "{wish}: said again, no news");
        }
        finish(&mut world, D1);
    }
}

#[test]
fn a_caller_that_wants_no_recording_is_never_recorded_and_a_required_one_is() {
    for (required, starts, stops) in [(false, 0, 0), (true, 1, 0)] {
        let mut world = world(
            |o| {
                o.recording.honour_preference = true;
                o.recording.required = required;
            },
            |_, _| {},
        );
        world.act(D1, Action::Prefer("off".into()));
        world.act(D1, Action::call("2002"));
        world.run(ms(1_000));
        assert!(world.phones[D2].is_talking());
        assert_eq!((world.proxy.starts().len(), world.proxy.stops().len()), (starts, stops), "required {required}");
        assert!(world.proxy.has_fact("preference off"));
        finish(&mut world, D1);
    }
}

/// The beeps that were commanded, as leg and whether it begins.
fn beeps(world: &World) -> Vec<(LegId, bool)> {
    let beep = |command: &Command| match command {
        Command::Beep { leg, every } => Some((*leg, every.is_some())),
        _ => None,
    };
    world.proxy.commands.iter().filter_map(|(_, c)| beep(c)).collect()
}

/// Something that happens, and the beep that it begins or ends.
type Step<'a> = (&'a mut dyn FnMut(&mut World), Option<bool>);

#[test]
fn a_beep_is_heard_while_what_is_said_is_recorded_by_those_who_are_meant() {
    let (one, two) = (LegId(1), LegId(2));
    let every = Duration::from_secs(15);
    let mut world = talking(|o| o.recording.beep = Some(Beep { every, to: BeepTo::Customer }), |_, _| {});
    assert_eq!(beeps(&world), [(one, true)], "of two DNs the caller is the customer");
    let mut expected = vec![(one, true)];
    let steps: [Step<'_>; 6] = [
        (&mut |w| drop(ask(w, "2001", Ask::RecordPause { recording: None }).unwrap()), Some(false)),
        (&mut |w| drop(ask(w, "2001", Ask::RecordResume { recording: None }).unwrap()), Some(true)),
        (&mut |w| w.act(D2, Action::Hold(HoldForm::SendOnly)), Some(false)),
        (&mut |w| w.act(D2, Action::Retrieve), Some(true)),
        (&mut |w| drop(ask(w, "2002", Ask::HoldCall).unwrap()), Some(false)),
        (&mut |w| drop(ask(w, "2001", Ask::RecordStop { recording: None }).unwrap()), None),
    ];
    for (step, change) in steps {
        step(&mut world);
        world.run(ms(500));
        expected.extend(change.map(|on| (one, on)));
        assert_eq!(beeps(&world), expected);
    }
    finish(&mut world, D1);
    let mut world = talking(|o| o.recording.beep = Some(Beep { every, to: BeepTo::All }), |_, _| {});
    assert_eq!(beeps(&world), [(one, true), (two, true)]);
    finish(&mut world, D1);
    let mut world = talking(|_| {}, |_, _| {});
    assert_eq!(beeps(&world), [], "off unless it is configured");
    finish(&mut world, D1);
}

#[test]
fn after_a_transfer_a_trusted_party_is_told_by_update_who_it_is_connected_to() {
    for (connected_id, trusted) in [(true, true), (true, false), (false, true)] {
        let mut world = talking(
            |o| {
                o.sip.connected_id = connected_id;
                o.plan.dns.iter_mut().for_each(|dn| dn.trusted = trusted);
            },
            |_, _| {},
        );
        world.act(D2, Action::Refer(Refer { leave: Leave::WhenDone, ..Refer::to("2003") }));
        world.run(ms(2_000));
        let told: Vec<String> = world.phones[D1]
            .requests()
            .iter()
            .filter(|r| r.method == Method::Update)
            .map(|r| text(r.headers.get(Name::PAssertedIdentity)))
            .collect();
        if connected_id && trusted {
            assert_eq!(told.len(), 1);
            assert!(told[0].contains("sip:2003@192.0.2.1"), "{told:?}");
        } else {
            assert!(told.is_empty(), "{told:?}");
        }
        assert_eq!(methods(&world, D3), Vec::<String>::new(), "its INVITE has named the one that stays");
        finish(&mut world, D1);
    }
}

#[test]
fn who_was_consulted_is_told_who_it_is_connected_to_in_the_end() {
    let mut world = talking(
        |o| {
            o.sip.connected_id = true;
            o.plan.dns.iter_mut().for_each(|dn| dn.trusted = true);
        },
        |_, _| {},
    );
    ask(&mut world, "2002", Ask::MuteTransfer { to: "2003".into() }).unwrap();
    world.run(ms(1_500));
    for (phone, number) in [(D1, "2003"), (D3, "2001")] {
        let update = world.phones[phone].requests().iter().find(|r| r.method == Method::Update).unwrap();
        let named = text(update.headers.get(Name::PAssertedIdentity));
        assert!(named.contains(&format!("sip:{number}@")), "{named}");
        assert!(update.body.is_empty());
    }
    finish(&mut world, D1);
}

#[test]
fn with_hold_audio_a_hold_is_answered_by_us_and_the_other_side_is_not_told() {
    for form in [HoldForm::SendOnly, HoldForm::Inactive, HoldForm::NullAddress] {
        let mut world = talking(|o| o.media.hold_audio = Some(vec![1_000; 8_000].into()), |_, _| {});
        world.act(D2, Action::Hold(form));
        world.run(ms(500));
        assert_eq!(methods(&world, D1), Vec::<String>::new(), "{form:?}");
        assert!(world.proxy.has_fact("held 2"), "{form:?}");
        assert_eq!(world.proxy.commands_of(LegId(1)).last().map(String::as_str), Some("play"), "{form:?}");
        world.act(D2, Action::Retrieve);
        world.run(ms(500));
        let agreed = world.phones[D2].happenings().iter().rev().find_map(|h| match h.what {
            Happening::Agreed { direction } => Some(direction),
            _ => None,
        });
        assert_eq!(agreed, Some(Direction::SendRecv), "{form:?}: it talks again");
        assert_eq!((methods(&world, D1), methods(&world, D2)), (vec![], vec![]), "{form:?}");
        assert!(world.proxy.has_fact("retrieved 2"), "{form:?}");
        finish(&mut world, D1);
    }
}

#[test]
fn a_target_without_a_common_codec_is_transcoded_and_nobody_gets_a_re_invite() {
    let l16 = || vec![Codec::new("L16", 8_000, 1)];
    let mut world = talking(
        |_| {},
        |n, o| match n {
            3 => o.codecs = l16(),
            _ => o.codecs = vec![Codec::pcmu()],
        },
    );
    world.act(D2, Action::Refer(Refer { leave: Leave::WhenDone, ..Refer::to("2003") }));
    world.run(ms(2_000));
    assert!(world.phones[D1].is_talking() && world.phones[D3].is_talking());
    assert_eq!((methods(&world, D1), methods(&world, D3)), (vec![], vec![]));
    let view = world.proxy.calls.snapshot().remove(0);
    let codecs: Vec<_> = view.parties.iter().map(|p| p.codec.clone().unwrap_or_default()).collect();
    assert_eq!(codecs, ["PCMU/8000", "L16/8000/1"]);
    assert!(!world.proxy.story().iter().any(|s| s.starts_with("warning")), "{:?}", world.proxy.story());
    finish(&mut world, D1);
}

#[test]
fn where_we_cannot_transcode_the_party_that_stays_is_offered_the_target_s_codec_or_all_is_as_before() {
    let g729 = || Codec::new("G729", 8_000, 1);
    for knows_both in [true, false] {
        let mut world = talking(
            |o| {
                o.recording.default = DefaultOwner::None;
                o.media.codecs = vec![g729(), Codec::pcmu(), Codec::telephone_event()];
            },
            |n, o| match n {
                1 if knows_both => o.codecs = vec![g729(), Codec::pcmu()],
                3 => o.codecs = vec![Codec::pcmu()],
                _ => o.codecs = vec![g729()],
            },
        );
        world.act(D2, Action::Refer(Refer { leave: Leave::WhenDone, ..Refer::to("2003") }));
        world.run(ms(3_000));
        let story = world.proxy.story();
        assert!(world.phones[D1].is_talking(), "{story:?}");
        assert_eq!(world.phones[D3].is_talking(), knows_both, "{story:?}");
        assert_eq!(world.phones[D2].is_talking(), !knows_both, "{story:?}");
        assert_eq!(methods(&world, D1).first().map(String::as_str), Some("INVITE"));
        assert_eq!(story.iter().any(|s| s.starts_with("transfer failed rejected")), !knows_both, "{story:?}");
        let codec = world.proxy.calls.snapshot()[0].parties[0].codec.clone().unwrap_or_default();
        assert_eq!(codec, if knows_both { "PCMU/8000" } else { "G729/8000" });
        finish(&mut world, D1);
    }
}
