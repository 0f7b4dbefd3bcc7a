//! INVITE with Replaces in virtual time: going on with another device, taking a place over, picking up; Replaces and
//! Target-Dialog around REFER (RFC 3891, RFC 4538, spec/sip.md §5).

use std::collections::BTreeSet;
use std::time::Duration;

use crate::call_world::*;
use stickytape::bridge::command::Command;
use stickytape::call::Input;
use stickytape::call::options::{DefaultOwner, OnTransfer, Options};
use stickytape::call::request::{Ask, Request as Asked, Ticket};
use stickytape::codec::Codec;
use stickytape::id::{ConnId, LegId};
use stickytape::record::mark::StopCause;
use stickytape::sip::message::Request;
use stickytape::sip::method::Method;
use stickytape::sip::name::Name;
use stickytape::testing::phone::{Action, DialogName, Happening, HoldForm, Incoming, Leave, Refer};

const D1: usize = 0;
const D2: usize = 1;
const D3: usize = 2;

/// Phones 2001 to 2004 with two lines each; 2002 and 2003 pick up for each other.
fn world(change: impl FnOnce(&mut Options)) -> World {
    let mut options = options();
    for dn in &mut options.plan.dns[1..3] {
        dn.pickup_group = "sales".into();
    }
    change(&mut options);
    let mut world = World::new(options);
    for n in 1..=4 {
        world.phone(n, |o| (o.lines, o.seed) = (2, u64::from(n)));
    }
    world
}

/// As [`world`], but 2002 and 2003 do nothing by themselves.
fn patient(change: impl FnOnce(&mut Options)) -> World {
    let mut world = world(change);
    world.phones.truncate(1);
    for n in 2..=4 {
        world.phone(n, |o| {
            (o.lines, o.seed) = (2, u64::from(n));
            o.incoming = Incoming::Manual;
        });
    }
    world
}

fn talking(change: impl FnOnce(&mut Options)) -> World {
    let mut world = world(change);
    world.act(D1, Action::call("2002"));
    world.run(ms(1_000));
    assert!(world.phones[D1].is_talking() && world.phones[D2].is_talking());
    world
}

/// D1 calls D2, which rings.
fn ringing(change: impl FnOnce(&mut Options)) -> World {
    let mut world = patient(change);
    world.act(D1, Action::call("2002"));
    world.run(ms(100));
    world.act(D2, Action::Ring);
    world.run(ms(200));
    world
}

fn dialog(world: &World, phone: usize, line: usize) -> DialogName {
    world.phones[phone].dialog(line).expect("a dialog")
}

/// An INVITE with this Replaces, and what else.
fn replacing(replaces: &str, offer: bool, more: &[(&str, &str)]) -> Action {
    let line = |name: &str, value: &str| (name.to_owned(), value.to_owned().into());
    let mut headers = vec![line("Require", "replaces"), line("Replaces", replaces)];
    headers.extend(more.iter().map(|(name, value)| line(name, value)));
    Action::Call { to: "2002".into(), offer, headers }
}

/// The code that refused the phone's last call.
fn refused(world: &World, phone: usize) -> Option<u16> {
    world.phones[phone].happenings().iter().rev().find_map(|h| match h.what {
        Happening::Failed { code } => code,
        _ => None,
    })
}

fn requests(world: &World, phone: usize, method: Method) -> Vec<Request> {
    world.phones[phone].requests().iter().filter(|r| r.method == method).cloned().collect()
}

fn causes(world: &World) -> Vec<StopCause> {
    world.proxy.stops().into_iter().map(|(_, cause)| cause).collect()
}

fn state(world: &World) -> &'static str {
    world.proxy.calls.snapshot()[0].state
}

/// The last routes of both legs lead to each other, on one media thread.
#[track_caller]
fn assert_routed(world: &World, a: u64, b: u64) {
    let mut threads = BTreeSet::new();
    for (from, to) in [(a, b), (b, a)] {
        let mut routes = world.proxy.commands.iter().filter_map(|(worker, command)| match command {
            Command::Route { from: f, to } if f.0 == from => Some((*worker, *to)),
            _ => None,
        });
        let (worker, last) = routes.next_back().expect("a route");
        assert_eq!(last, Some(LegId(to)), "leg {from}");
        threads.insert(worker);
    }
    assert_eq!(threads.len(), 1, "one media thread");
}

fn ask(world: &mut World, conn_id: ConnId, dn: &str, ask: Ask) {
    let ticket = Ticket(world.proxy.answers.len() as u64 + 1);
    let request = Asked { conn_id, this_dn: dn.to_owned(), reference: None, ask };
    world.tell(Input::Request(ticket, Box::new(request)));
    world.proxy.answers.last().expect("answered at once").1.as_ref().expect("accepted");
}

#[test]
fn another_device_of_the_dn_goes_on_with_its_leg_its_port_and_its_recordings() {
    for offer in [true, false] {
        let mut world = talking(|o| o.recording.default = DefaultOwner::Both);
        let port = world.phones[D2].local_on(0).unwrap().negotiated().unwrap().rtp;
        let name = dialog(&world, D2, 0);
        world.act(D2, Action::on(1, replacing(&name.replaces(), offer, &[])));
        world.run(ms(1_000));
        assert!(world.phones[D2].is_talking_on(1) && !world.phones[D2].is_talking_on(0), "offer {offer}");
        assert_eq!(requests(&world, D2, Method::Bye).len(), 1, "the dialog before has ended");
        assert_eq!(world.phones[D2].local_on(1).unwrap().negotiated().unwrap().rtp, port, "offer {offer}");
        assert_eq!(requests(&world, D1, Method::Invite).len(), 0, "who stays is not asked");
        let added = world.proxy.commands.iter().filter(|(_, c)| matches!(c, Command::AddLeg(_))).count();
        assert_eq!(added, 2, "the same legs");
        let remotes = world.proxy.commands_of(LegId(2)).into_iter().filter(|c| c.starts_with("remote")).count();
        assert_eq!(remotes, 2, "a description, and with it a latch, of its own");
        assert!(world.proxy.has_fact("replaced 2 by 2"), "{:?}", world.proxy.story());
        assert_eq!((world.proxy.starts().len(), causes(&world).len()), (2, 0));
        assert_routed(&world, 1, 2);
        world.act(D2, Action::on(1, Action::HangUp));
        world.run(ms(300));
        assert!(world.phones[D1].is_idle());
        assert_eq!(causes(&world), [StopCause::Released, StopCause::Released]);
        world.settle();
    }
}

#[test]
fn another_device_makes_the_other_side_get_a_re_invite_only_when_its_direction_or_codec_forces_it() {
    for (codecs, direction, answered, reinvites) in [
        ("0 8", "sendrecv", "RTP/AVP 0\r", 0),
        // PCMU was in use: we transcode.
        ("8", "sendrecv", "RTP/AVP 8\r", 0),
        ("0 8", "sendonly", "RTP/AVP 0\r", 1),
    ] {
        let mut world = world(|_| {});
        world.phones.truncate(1);
        world.phone(2, |o| {
            (o.lines, o.seed) = (2, 2);
            o.codecs = vec![Codec::pcmu()];
        });
        world.act(D1, Action::call("2002"));
        world.run(ms(1_000));
        let raw = world.raw("10.0.0.2:5070");
        let name = dialog(&world, D2, 0);
        let offer = sdp("10.0.0.2", 7000, codecs, direction);
        let invite = invite_of(&world, raw, "2002", &name.replaces(), Some(&offer));
        world.raws[raw].send(invite.clone());
        world.run(ms(300));
        let ok = world.raws[raw].responses("INVITE").into_iter().find(|r| r.code == 200).expect("taken");
        let body = text(Some((&ok.body[..]).into()));
        assert!(body.contains(answered), "{codecs} {direction}: {body}");
        assert_eq!(requests(&world, D1, Method::Invite).len(), reinvites, "{codecs} {direction}");
        acknowledge(&mut world, raw, &invite);
        world.run(ms(300));
        assert_routed(&world, 1, 2);
        let bye = world.raws[raw].in_dialog(&invite, &ok, Method::Bye, 2);
        world.raws[raw].send(bye);
        world.settle();
    }
}

/// An INVITE of a hand-written device of this DN.
fn invite_of(world: &World, raw: usize, dn: &str, replaces: &str, sdp: Option<&str>) -> Request {
    let call = format!("r-{dn}-{}", world.raws[raw].got.len());
    let mut invite = world.raws[raw].invite("2002", &call, sdp);
    let ip = world.raws[raw].address.ip();
    invite.headers.set(Name::From, format!("<sip:{dn}@{ip}>;tag=f-{call}"));
    invite.headers.push(Name::Replaces, replaces.to_owned());
    invite
}

fn acknowledge(world: &mut World, raw: usize, invite: &Request) {
    let ok = world.raws[raw].responses("INVITE").into_iter().rfind(|r| r.code == 200).expect("a 200");
    let ack = world.raws[raw].in_dialog(invite, &ok, Method::Ack, 1);
    world.raws[raw].send(ack);
}

#[test]
fn another_device_goes_on_while_the_leg_holds_is_held_or_consults() {
    for case in ["holds by SDP", "is held by SDP", "holds by request", "consults", "is held by a consultation"] {
        let mut world = talking(|_| {});
        let c1 = world.proxy.calls.snapshot()[0].conn_id;
        match case {
            "holds by SDP" => world.act(D2, Action::Hold(HoldForm::SendOnly)),
            "is held by SDP" => world.act(D1, Action::Hold(HoldForm::SendOnly)),
            "holds by request" => ask(&mut world, c1, "2002", Ask::HoldCall),
            "consults" => ask(&mut world, c1, "2002", Ask::InitiateTransfer { to: "2003".into() }),
            _ => ask(&mut world, c1, "2001", Ask::InitiateTransfer { to: "2003".into() }),
        }
        world.run(ms(1_000));
        let before = state(&world);
        let name = dialog(&world, D2, 0);
        world.act(D2, Action::on(1, replacing(&name.replaces(), true, &[])));
        world.run(ms(1_000));
        assert!(world.phones[D2].is_talking_on(1) && !world.phones[D2].is_talking_on(0), "{case}");
        assert!(world.phones[D1].is_talking());
        assert!(world.proxy.stops().is_empty());
        match case {
            // What the device before had said of itself is not said by this one.
            "holds by SDP" => {
                assert_eq!((before, state(&world)), ("held", "talking"));
                assert!(world.proxy.has_fact("retrieved 2"));
            }
            _ => assert_eq!(state(&world), before, "{case}"),
        }
        match case {
            "is held by SDP" => {
                world.act(D1, Action::Retrieve);
                world.run(ms(500));
                assert_eq!(state(&world), "talking");
                assert_routed(&world, 1, 2);
            }
            "holds by request" => {
                ask(&mut world, c1, "2002", Ask::RetrieveCall);
                world.run(ms(500));
                assert_routed(&world, 1, 2);
            }
            "consults" => {
                assert_routed(&world, 2, 3);
                ask(&mut world, c1, "2002", Ask::ReconnectCall { other: None });
                world.run(ms(500));
                assert_routed(&world, 1, 2);
            }
            "is held by a consultation" => {
                assert_routed(&world, 1, 3);
                ask(&mut world, c1, "2001", Ask::CompleteTransfer { other: None });
                world.run(ms(500));
                assert_routed(&world, 2, 3);
            }
            _ => assert_routed(&world, 1, 2),
        }
        world.act(D2, Action::on(1, Action::HangUp));
        world.settle();
    }
}

#[test]
fn another_dn_takes_the_place_and_the_one_before_has_left() {
    for (offer, on) in [(true, OnTransfer::Terminate), (false, OnTransfer::Terminate), (true, OnTransfer::Maintain)] {
        let mut world = talking(|o| {
            o.recording.default = DefaultOwner::Termination;
            o.recording.termination_on_transfer = on;
            o.plan.dns[2].record = Some(true);
        });
        let name = dialog(&world, D2, 0);
        world.act(D3, replacing(&name.replaces(), offer, &[]));
        world.run(ms(1_000));
        assert!(world.phones[D1].is_talking() && world.phones[D3].is_talking() && world.phones[D2].is_idle());
        assert_eq!(requests(&world, D1, Method::Invite).len(), 0, "who stays is not asked");
        assert!(world.proxy.has_fact("replaced 2 by 3"), "{:?}", world.proxy.story());
        assert_routed(&world, 1, 3);
        let starts = world.proxy.starts();
        assert_eq!(starts.len(), 2, "the own option of D3");
        assert_eq!((starts[1].1.trigger.as_str(), starts[1].1.owner_dn.as_deref()), ("dn", Some("2003")));
        let maintained = on == OnTransfer::Maintain;
        assert_eq!(causes(&world), if maintained { vec![] } else { vec![StopCause::OwnerLeft] });
        assert_eq!(world.proxy.story().iter().any(|s| s == "owner 1"), maintained);
        let marks = world.proxy.mark_story();
        assert!(marks.iter().any(|m| m == "payloads 3") && marks.iter().any(|m| m == "ended 2"), "{marks:?}");
        world.act(D1, Action::HangUp);
        world.run(ms(300));
        assert!(world.phones[D3].is_idle());
        world.settle();
    }
}

#[test]
fn only_the_same_dn_its_pick_up_group_and_who_was_sent_by_it_may() {
    for (case, group, referred_by, code) in [
        ("another group", "support", "", Some(403)),
        ("no group", "", "", Some(403)),
        ("sent by the other party", "", "<sip:2001@192.0.2.1>", Some(403)),
        ("sent by the one that is replaced", "", "\"B\" <sip:2002@192.0.2.1>;cid=\"x@y\"", None),
        ("malformed", "sales", "<sip:2002", Some(400)),
        ("of the group", "sales", "", None),
    ] {
        let mut world = talking(|o| {
            o.plan.dns[1].pickup_group = if group.is_empty() { "".into() } else { "sales".into() };
            o.plan.dns[2].pickup_group = group.into();
        });
        let name = dialog(&world, D2, 0);
        let more: Vec<(&str, &str)> =
            Some(("Referred-By", referred_by)).filter(|(_, v)| !v.is_empty()).into_iter().collect();
        world.act(D3, replacing(&name.replaces(), true, &more));
        world.run(ms(500));
        assert_eq!(refused(&world, D3), code, "{case}");
        assert_eq!(world.phones[D3].is_talking(), code.is_none(), "{case}");
        assert_eq!(world.phones[D2].is_talking(), code.is_some(), "{case}");
        if let Some(code) = code {
            assert!(world.proxy.has_fact(&format!("refused {code}")));
            assert_routed(&world, 1, 2);
        }
        world.act(D1, Action::HangUp);
        world.settle();
    }
}

#[test]
fn what_replaces_nothing_is_refused_as_the_rfc_says() {
    let mut world = talking(|_| {});
    let name = dialog(&world, D2, 0).replaces();
    let swapped = DialogName {
        local_tag: dialog(&world, D2, 0).remote_tag,
        remote_tag: dialog(&world, D2, 0).local_tag,
        ..dialog(&world, D2, 0)
    };
    for (replaces, more, code) in [
        ("nobody@nowhere;to-tag=1;from-tag=2".to_owned(), vec![], 481),
        (swapped.replaces(), vec![], 481),
        (format!("{name};early-only"), vec![], 486),
        ("malformed".to_owned(), vec![], 400),
        (name.clone(), vec![("Replaces", name.as_str())], 400),
        (name.clone(), vec![("Join", name.as_str())], 400),
    ] {
        world.act(D3, replacing(&replaces, true, &more));
        world.run(ms(300));
        assert_eq!(refused(&world, D3), Some(code), "{replaces} {more:?}");
        assert!(world.phones[D3].is_idle() && state(&world) == "talking");
    }
    world.act(D1, Action::HangUp);
    world.run(ms(300));
    world.act(D3, replacing(&name, true, &[]));
    world.run(ms(300));
    assert_eq!(refused(&world, D3), Some(603), "ended");
    world.settle();
}

#[test]
fn a_stranger_hears_of_no_dialog() {
    let mut world = talking(|_| {});
    let raw = world.raw("203.0.113.9:5060");
    let name = dialog(&world, D2, 0);
    let invite = invite_of(&world, raw, "2003", &name.replaces(), Some(&sdp("203.0.113.9", 7000, "0", "sendrecv")));
    world.raws[raw].send(invite);
    world.run(ms(300));
    assert_eq!(world.raws[raw].codes("INVITE").last(), Some(&403));
    assert_eq!(state(&world), "talking");
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn a_device_that_reaches_us_by_another_family_cannot_have_the_port() {
    use stickytape::call::options::{Contact, Host, Listener, Transport};
    let mut world = world(|o| {
        o.listeners.push(Listener { transport: Transport::Udp, address: addr(PROXY6) });
        let Contact::At(contact) = &mut o.plan.dns[1].contact else { panic!("a contact") };
        contact.host = Host::Name("phone.example".into());
    });
    let addresses = ["10.0.0.2", "2001:db8::2"].map(|a| a.parse().unwrap()).to_vec();
    world.tell(Input::Resolved { host: "phone.example".into(), addresses });
    world.act(D1, Action::call("2002"));
    world.run(ms(1_000));
    assert!(world.phones[D2].is_talking());
    let raw = world.raw("[2001:db8::2]:5060");
    let name = dialog(&world, D2, 0);
    let offer = sdp("192.0.2.9", 7000, "0", "sendrecv").replace("IP4 192.0.2.9", "IP6 2001:db8::2");
    let mut invite = invite_of(&world, raw, "2002", &name.replaces(), Some(&offer));
    invite.headers.set(Name::From, "<sip:2002@[2001:db8::2]>;tag=f");
    world.raws[raw].send(invite);
    world.run(ms(300));
    assert_eq!(world.raws[raw].codes("INVITE").last(), Some(&488));
    assert!(world.phones[D2].is_talking() && state(&world) == "talking");
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn who_picks_up_a_ringing_call_is_who_has_answered() {
    for (by, offer) in [(D3, true), (D3, false), (D2, true)] {
        let mut world = ringing(|o| {
            o.recording.default = DefaultOwner::None;
            o.plan.dns[2].record = Some(true);
        });
        let name = dialog(&world, D2, 0);
        world.act(by, Action::on(1, replacing(&name.replaces(), offer, &[])));
        world.run(ms(1_000));
        assert!(world.phones[D1].is_talking() && world.phones[by].is_talking_on(1), "{by} {offer}");
        assert!(!world.phones[D2].is_talking_on(0));
        let cancel = requests(&world, D2, Method::Cancel).remove(0);
        assert!(text(cancel.headers.get(Name::Reason)).contains("cause=200"), "{cancel:?}");
        let story = world.proxy.story();
        assert_eq!(story.iter().filter(|s| *s == "redirected").count(), usize::from(by == D3), "{story:?}");
        assert_eq!(story.iter().filter(|s| *s == "answered").count(), 1);
        let starts = world.proxy.starts();
        assert_eq!(starts.len(), usize::from(by == D3), "as for an answer by that DN");
        if by == D3 {
            assert_eq!(starts[0].1.owner_dn.as_deref(), Some("2003"));
        }
        assert_routed(&world, 1, 3);
        assert_eq!(world.proxy.calls.snapshot().len(), 1);
        assert_eq!(requests(&world, D1, Method::Invite).len(), 0);
        world.act(by, Action::on(1, Action::HangUp));
        world.run(ms(300));
        assert!(world.phones[D1].is_idle());
        world.settle();
    }
}

#[test]
fn only_where_we_are_the_caller_is_an_early_dialog_picked_up_and_only_by_who_may() {
    let mut world = ringing(|_| {});
    for (who, name, code) in [(D3, dialog(&world, D1, 0), 481), (3, dialog(&world, D2, 0), 403)] {
        world.act(who, replacing(&name.replaces(), true, &[]));
        world.run(ms(300));
        assert_eq!(refused(&world, who), Some(code));
        assert_eq!(state(&world), "early");
    }
    // Early is what `early-only` asks for.
    let name = dialog(&world, D2, 0);
    world.act(D3, replacing(&format!("{};early-only", name.replaces()), true, &[]));
    world.run(ms(300));
    assert!(world.phones[D3].is_talking() && world.phones[D1].is_talking());
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn a_pick_up_takes_what_both_offers_share_in_the_caller_s_order_and_else_changes_nothing() {
    for (codecs, code) in [("8 0", None), ("0", None), ("18", Some(488)), ("9 18", Some(488))] {
        let mut world = ringing(|_| {});
        let raw = world.raw("10.0.0.3:5070");
        let name = dialog(&world, D2, 0);
        let offer = sdp("10.0.0.3", 7000, codecs, "sendrecv");
        let invite = invite_of(&world, raw, "2003", &name.replaces(), Some(&offer));
        world.raws[raw].send(invite.clone());
        world.run(ms(300));
        let last = world.raws[raw].responses("INVITE").pop().unwrap();
        match code {
            Some(code) => {
                assert_eq!(last.code, code, "{codecs}");
                assert!(text(last.headers.get(Name::Warning)).starts_with("305 "), "{last:?}");
                assert_eq!(state(&world), "early");
                assert!(requests(&world, D2, Method::Cancel).is_empty());
                world.act(D2, Action::Answer);
                world.run(ms(500));
                assert!(world.phones[D1].is_talking() && world.phones[D2].is_talking());
            }
            None => {
                assert_eq!(last.code, 200, "{codecs}");
                let body = text(Some((&last.body[..]).into()));
                let first = world.phones[D1].local_on(0).unwrap().negotiated().unwrap().send[0].codec.clone();
                assert_eq!(first, Codec::pcmu());
                assert!(body.contains("RTP/AVP 0"), "the caller's order: {body}");
                acknowledge(&mut world, raw, &invite);
                world.run(ms(200));
            }
        }
        world.act(D1, Action::HangUp);
        world.settle();
    }
}

#[test]
fn early_media_recordings_go_on_through_a_pick_up_by_the_owner_rule() {
    for (default, ended) in [(DefaultOwner::Origination, 0), (DefaultOwner::Termination, 1)] {
        let mut world = patient(|o| {
            o.recording.early_media = true;
            o.recording.default = default;
        });
        world.act(D1, Action::call("2002"));
        world.run(ms(100));
        world.act(D2, Action::EarlyMedia);
        world.run(ms(200));
        assert_eq!(world.proxy.starts().len(), 1, "{default:?}");
        let name = dialog(&world, D2, 0);
        world.act(D3, replacing(&name.replaces(), true, &[]));
        world.run(ms(1_000));
        assert!(world.phones[D1].is_talking() && world.phones[D3].is_talking());
        // Who rang has left with what it owned; who answers owns anew.
        assert_eq!((world.proxy.starts().len(), causes(&world).len()), (1 + ended, ended), "{default:?}");
        assert_routed(&world, 1, 3);
        world.act(D1, Action::HangUp);
        world.settle();
    }
}

#[test]
fn who_picks_up_a_transfer_s_or_a_consultation_s_target_is_the_target() {
    for (consult, offer) in [(false, true), (false, false), (true, true), (true, false)] {
        let mut world = patient(|_| {});
        world.act(D1, Action::call("2004"));
        world.run(ms(100));
        world.act(3, Action::Answer);
        world.run(ms(500));
        let c1 = world.proxy.calls.snapshot()[0].conn_id;
        if consult {
            ask(&mut world, c1, "2004", Ask::InitiateTransfer { to: "2002".into() });
        } else {
            world.act(3, Action::Refer(Refer::to("2002")));
        }
        world.run(ms(200));
        world.act(D2, Action::Ring);
        world.run(ms(200));
        let name = dialog(&world, D2, 0);
        world.act(D3, replacing(&name.replaces(), offer, &[]));
        world.run(ms(1_000));
        assert!(world.phones[D3].is_talking() && world.phones[D1].is_talking(), "{consult} {offer}");
        assert!(world.phones[D2].is_idle());
        if consult {
            assert_eq!(state(&world), "consulting");
            assert_routed(&world, 2, 4);
            ask(&mut world, c1, "2004", Ask::CompleteTransfer { other: None });
            world.run(ms(500));
        }
        world.run(ms(2_500));
        assert!(world.phones[3].is_idle(), "the transferor has left");
        assert_routed(&world, 1, 4);
        world.act(D1, Action::HangUp);
        world.settle();
    }
}

#[test]
fn while_a_transfer_runs_who_stays_goes_on_with_another_device_and_nobody_else_is_replaced() {
    let mut world = patient(|_| {});
    world.act(D1, Action::call("2002"));
    world.run(ms(100));
    world.act(D2, Action::Answer);
    world.run(ms(500));
    world.act(D2, Action::Refer(Refer::to("2004")));
    world.run(ms(100));
    world.act(3, Action::Ring);
    world.run(ms(200));
    let name = dialog(&world, D2, 0);
    world.act(D2, Action::on(1, replacing(&name.replaces(), true, &[])));
    world.act(D3, replacing(&name.replaces(), true, &[]));
    world.run(ms(300));
    assert_eq!((refused(&world, D2), refused(&world, D3)), (Some(491), Some(491)));
    let name = dialog(&world, D1, 0);
    world.act(D1, Action::on(1, replacing(&name.replaces(), true, &[])));
    world.run(ms(300));
    assert!(world.phones[D1].is_talking_on(1) && !world.phones[D1].is_talking_on(0));
    world.act(3, Action::Answer);
    world.run(ms(3_000));
    assert!(world.phones[D1].is_talking_on(1) && world.phones[3].is_talking() && world.phones[D2].is_idle());
    assert_routed(&world, 1, 3);
    world.act(D1, Action::on(1, Action::HangUp));
    world.settle();
}

#[test]
fn a_newcomer_waits_for_an_open_offer_and_may_give_up_meanwhile() {
    for gives_up in [false, true] {
        let mut world = world(|_| {});
        let raw = world.raw("198.51.100.10:5060");
        let invite = world.raws[raw].invite("2002", "c1", Some(&sdp("198.51.100.10", 7000, "0", "sendrecv")));
        world.raws[raw].send(invite.clone());
        world.run(ms(1_000));
        acknowledge(&mut world, raw, &invite);
        world.run(ms(200));
        // The caller leaves D2's offer unanswered.
        world.act(D2, Action::Hold(HoldForm::SendOnly));
        world.run(ms(100));
        let name = dialog(&world, D2, 0);
        world.act(D3, replacing(&name.replaces(), true, &[]));
        world.run(ms(300));
        assert!(!world.phones[D3].is_talking() && refused(&world, D3).is_none(), "it waits");
        if gives_up {
            world.act(D3, Action::Cancel);
            world.run(ms(300));
            assert!(world.phones[D3].is_idle());
        }
        let reinvite = world.raws[raw].requests(Method::Invite).pop().unwrap();
        let answer = world.raws[raw].reply(&reinvite, 200, "", Some(&sdp("198.51.100.10", 7000, "0", "recvonly")));
        world.raws[raw].send(answer);
        world.run(ms(1_000));
        assert_eq!(world.phones[D3].is_talking(), !gives_up);
        assert_eq!(world.phones[D2].is_talking(), gives_up);
        world.act(if gives_up { D2 } else { D3 }, Action::HangUp);
        world.run(ms(100));
        let bye = world.raws[raw].requests(Method::Bye).pop().unwrap();
        let ok = world.raws[raw].reply(&bye, 200, "", None);
        world.raws[raw].send(ok);
        world.settle();
    }
}

#[test]
fn an_offer_in_the_200_that_the_ack_does_not_answer_ends_the_call() {
    let mut world = talking(|_| {});
    let raw = world.raw("10.0.0.3:5070");
    let name = dialog(&world, D2, 0);
    let invite = invite_of(&world, raw, "2003", &name.replaces(), None);
    world.raws[raw].send(invite.clone());
    world.run(ms(300));
    acknowledge(&mut world, raw, &invite);
    world.run(ms(300));
    assert!(world.phones[D1].is_idle() && world.phones[D2].is_idle());
    assert_eq!(world.raws[raw].requests(Method::Bye).len(), 1);
    let bye = world.raws[raw].requests(Method::Bye).pop().unwrap();
    let ok = world.raws[raw].reply(&bye, 200, "", None);
    world.raws[raw].send(ok);
    world.settle();
}

#[test]
fn every_crossing_of_a_replacement_leaves_one_call_or_none_and_nothing_behind() {
    // Who does what how long before or after the newcomer's INVITE.
    for (early, who, action) in [
        (false, D2, Action::HangUp),
        (false, D1, Action::HangUp),
        (true, D1, Action::Cancel),
        (true, D2, Action::Answer),
        (true, D2, Action::refuse(486)),
    ] {
        for by in [D2, D3] {
            for at in 0..24 {
                let mut world = if early { ringing(|_| {}) } else { talking(|_| {}) };
                let name = dialog(&world, D2, 0);
                let pick = Action::on(1, replacing(&name.replaces(), true, &[]));
                if at < 12 {
                    world.act(by, pick);
                    world.run(ms(at));
                    world.act(who, Action::on(0, action.clone()));
                } else {
                    world.act(who, Action::on(0, action.clone()));
                    world.run(ms(at - 12));
                    world.act(by, pick);
                }
                world.run(Duration::from_secs(1));
                let calls = world.proxy.calls.snapshot().len();
                let picked = world.phones[by].is_talking_on(1);
                let answered = world.phones[D2].is_talking_on(0);
                let caller = world.phones[D1].is_talking();
                let what = format!("{who} {action:?} {by} {at}");
                assert_eq!(calls, usize::from(caller), "{what}");
                assert_eq!(caller, picked != answered, "exactly one talks to the caller: {what}");
                assert!(!(picked && answered), "{what}");
                for phone in [D1, D2, D3] {
                    world.act(phone, Action::on(0, Action::HangUp));
                    world.act(phone, Action::on(1, Action::HangUp));
                }
                world.settle();
            }
        }
    }
}

// ------------------------------------------------------------------------------------------------ around REFER

#[test]
fn a_replaces_of_no_dialog_of_the_referrer_goes_to_the_target() {
    // A dialog with us that is somebody else's counts as little as one that we do not know.
    for case in ["unknown", "of the other party", "of another call"] {
        let mut world = talking(|_| {});
        let target = world.raw("10.0.0.5:5060");
        world.act(3, Action::call("2003"));
        world.run(ms(1_000));
        let (replaces, require) = match case {
            "unknown" => ("1@x;to-tag=7;from-tag=6;early-only".to_owned(), true),
            "of the other party" => (dialog(&world, D1, 0).replaces(), false),
            _ => (dialog(&world, 3, 0).replaces(), false),
        };
        let escaped = replaces.replace('@', "%40").replace(';', "%3B").replace('=', "%3D");
        let require_it = if require { "&Require=replaces" } else { "" };
        let to = format!("sip:2005@192.0.2.1?Replaces={escaped}{require_it}");
        world.act(D2, Action::on(0, Action::Refer(Refer::to(&to))));
        world.run(ms(500));
        let invites = world.raws[target].requests(Method::Invite);
        assert!(!invites.is_empty(), "{case}");
        assert_eq!(text(invites[0].headers.get(Name::Replaces)), replaces, "{case}");
        assert_eq!(text(invites[0].headers.get(Name::Require)), if require { "replaces" } else { "" });
        world.act(D1, Action::HangUp);
        world.act(3, Action::HangUp);
        world.settle();
    }
}

#[test]
fn referred_by_reaches_the_target_without_the_proof_that_stays_behind() {
    let mut world = talking(|_| {});
    let headers = vec![("Referred-By".to_owned(), "<sip:2002@x.example>;cid=\"1@x\";p=1".into())];
    world.act(D2, Action::Refer(Refer { referred_by: false, headers, ..Refer::to("2003") }));
    world.run(ms(500));
    let invite = requests(&world, D3, Method::Invite).remove(0);
    assert_eq!(text(invite.headers.get(Name::ReferredBy)), "<sip:2002@x.example>;p=1");
    world.act(D1, Action::HangUp);
    world.settle();
}

/// A request of a hand-written device of 2002, outside of any dialog.
fn outside(world: &World, raw: usize, method: Method, lines: &[(Name<'static>, String)]) -> Request {
    let mut request = Request::new(method.clone(), "sip:2003@192.0.2.1");
    let address = world.raws[raw].address;
    let n = world.raws[raw].got.len();
    let mut add = |name, value: String| request.headers.push(name, value);
    add(Name::Via, format!("SIP/2.0/UDP {address};branch=z9hG4bK-o{n}-{method}"));
    add(Name::MaxForwards, "70".into());
    add(Name::From, format!("<sip:2002@{}>;tag=o{n}", address.ip()));
    add(Name::To, "<sip:2003@192.0.2.1>".into());
    add(Name::CallId, format!("outside-{n}-{method}"));
    add(Name::CSeq, format!("1 {method}"));
    add(Name::Contact, format!("<sip:2002@{address}>"));
    for (name, value) in lines {
        request.headers.push(*name, value.clone());
    }
    request
}

fn target_dialog(name: &DialogName) -> String {
    let DialogName { call_id, local_tag, remote_tag } = name;
    format!("{call_id};local-tag={remote_tag};remote-tag={local_tag}")
}

/// Answers every NOTIFY that has not been answered; what they said.
fn answer_notifies(world: &mut World, raw: usize, answered: &mut usize) {
    let notifies = world.raws[raw].requests(Method::Notify);
    for notify in &notifies[*answered..] {
        let ok = world.raws[raw].reply(notify, 200, "", None);
        world.raws[raw].send(ok);
    }
    *answered = notifies.len();
}

#[test]
fn a_refer_outside_a_dialog_is_refused_without_a_dialog_of_its_sender() {
    let mut world = talking(|_| {});
    let raw = world.raw("10.0.0.2:5070");
    let refer_to = (Name::ReferTo, "<sip:2003@192.0.2.1>".to_owned());
    let own = dialog(&world, D2, 0);
    let unknown = DialogName { remote_tag: "7".into(), ..own.clone() };
    for (lines, code) in [
        (vec![refer_to.clone()], 403),
        (vec![refer_to.clone(), (Name::TargetDialog, target_dialog(&dialog(&world, D1, 0)))], 403),
        (vec![refer_to.clone(), (Name::TargetDialog, target_dialog(&unknown))], 403),
        (vec![refer_to.clone(), (Name::TargetDialog, "malformed".into())], 400),
        (vec![(Name::TargetDialog, target_dialog(&own))], 400),
        (vec![(Name::ReferTo, "<sip:7777@192.0.2.1>".into()), (Name::TargetDialog, target_dialog(&own))], 404),
    ] {
        let refer = outside(&world, raw, Method::Refer, &lines);
        world.raws[raw].send(refer);
        world.run(ms(100));
        assert_eq!(world.raws[raw].responses("REFER").last().map(|r| r.code), Some(code), "{lines:?}");
        assert_eq!(state(&world), "talking");
    }
    for (method, code) in [(Method::Notify, 481), (Method::Subscribe, 489)] {
        let request = outside(&world, raw, method.clone(), &[(Name::Event, "refer".into())]);
        world.raws[raw].send(request);
        world.run(ms(100));
        assert_eq!(world.raws[raw].responses(method.as_str()).last().map(|r| r.code), Some(code));
    }
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn a_refer_with_target_dialog_transfers_and_its_notifies_go_in_a_dialog_of_their_own() {
    for (target, codes, is_subscribed) in
        [("2003", vec!["100", "180", "200"], true), ("2004", vec!["100", "180", "486"], true), ("2003", vec![], false)]
    {
        let mut world = patient(|_| {});
        world.act(D1, Action::call("2002"));
        world.run(ms(100));
        world.act(D2, Action::Answer);
        world.run(ms(500));
        let raw = world.raw("10.0.0.2:5070");
        let mut lines = vec![
            (Name::ReferTo, format!("<sip:{target}@192.0.2.1>")),
            (Name::TargetDialog, target_dialog(&dialog(&world, D2, 0))),
        ];
        if !is_subscribed {
            lines.push((Name::ReferSub, "false".into()));
        }
        let refer = outside(&world, raw, Method::Refer, &lines);
        world.raws[raw].send(refer.clone());
        world.run(ms(100));
        let accepted = world.raws[raw].responses("REFER").pop().unwrap();
        assert_eq!(accepted.code, 202);
        assert_eq!(text(accepted.headers.get(Name::ReferSub)), if is_subscribed { "" } else { "false" });
        let mut answered = 0;
        let phone = if target == "2003" { D3 } else { 3 };
        answer_notifies(&mut world, raw, &mut answered);
        world.act(phone, Action::Ring);
        world.run(ms(100));
        answer_notifies(&mut world, raw, &mut answered);
        world.act(phone, if target == "2003" { Action::Answer } else { Action::refuse(486) });
        world.run(ms(100));
        answer_notifies(&mut world, raw, &mut answered);
        world.run(ms(500));
        let notifies = world.raws[raw].requests(Method::Notify);
        let told: Vec<String> = notifies
            .iter()
            .map(|n| String::from_utf8_lossy(&n.body).split(' ').nth(1).unwrap_or_default().to_owned())
            .collect();
        assert_eq!(told, codes, "{target}");
        for notify in &notifies {
            assert_eq!(notify.headers.get(Name::CallId), refer.headers.get(Name::CallId));
        }
        let ended = notifies.last().map(|n| text(n.headers.get(Name::SubscriptionState)));
        assert!(ended.is_none_or(|state| state.starts_with("terminated")));
        if target == "2003" {
            assert!(world.phones[D2].is_talking(), "it has a moment to hang up by itself");
            world.run(ms(2_000));
            assert!(world.phones[D2].is_idle() && world.phones[D3].is_talking());
        } else {
            assert!(world.phones[D2].is_talking() && state(&world) == "talking");
        }
        world.act(D1, Action::HangUp);
        world.settle();
    }
}

#[test]
fn a_subscription_of_its_own_is_told_the_end_whatever_becomes_of_the_call() {
    for (who, code) in [(D1, "487"), (D2, "200")] {
        let mut world = patient(|_| {});
        world.act(D1, Action::call("2002"));
        world.run(ms(100));
        world.act(D2, Action::Answer);
        world.run(ms(500));
        let raw = world.raw("10.0.0.2:5070");
        let lines = [
            (Name::ReferTo, "<sip:2003@192.0.2.1>".to_owned()),
            (Name::TargetDialog, target_dialog(&dialog(&world, D2, 0))),
        ];
        let refer = outside(&world, raw, Method::Refer, &lines);
        world.raws[raw].send(refer);
        world.run(ms(100));
        let mut answered = 0;
        answer_notifies(&mut world, raw, &mut answered);
        world.act(who, Action::HangUp);
        world.run(ms(100));
        world.act(D3, Action::Answer);
        world.run(ms(100));
        answer_notifies(&mut world, raw, &mut answered);
        world.run(ms(100));
        let last = world.raws[raw].requests(Method::Notify).pop().unwrap();
        assert!(last.body.starts_with(format!("SIP/2.0 {code}").as_bytes()), "{who}: {last:?}");
        assert!(text(last.headers.get(Name::SubscriptionState)).starts_with("terminated"));
        world.act(D3, Action::HangUp);
        world.settle();
    }
}

#[test]
fn leaving_at_once_is_the_phone_s_own_affair() {
    // A transferor that hangs up at the 202 of a REFER in its dialog is told nothing more.
    let mut world = talking(|_| {});
    world.act(D2, Action::Refer(Refer { leave: Leave::AtOnce, ..Refer::to("2003") }));
    world.run(ms(1_000));
    assert!(world.phones[D2].is_idle() && world.phones[D3].is_talking());
    world.act(D1, Action::HangUp);
    world.settle();
}
