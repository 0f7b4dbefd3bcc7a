//! Crossings: what two sides do at nearly the same time, at every offset (issue 3 §4, spec/sip.md §2 and §5). Whoever is
//! first, nothing is left, no exchange stays open and nobody talks to nobody.

use std::time::Duration;

use crate::call_world::*;
use stickytape::call::Input;
use stickytape::call::options::{DefaultOwner, Options};
use stickytape::call::request::{Ask, Code, Denied, Request as Asked, Ticket};
use stickytape::codec::Codec;
use stickytape::id::ConnId;
use stickytape::record::mark::StopCause;
use stickytape::sip::method::Method;
use stickytape::testing::phone::{Action, Happening, HoldForm, Incoming, Leave, Refer};

const D1: usize = 0;
const D2: usize = 1;
const D3: usize = 2;

/// Phones 2001 to 2004 with two lines each; the first calls the second. The third does as `target` says.
fn talking(target: Incoming, change: impl FnOnce(&mut Options)) -> World {
    let mut options = options();
    options.recording.default = DefaultOwner::Both;
    change(&mut options);
    let mut world = World::new(options);
    world.proxy.move_time = ms(7);
    for n in 1..=4 {
        world.phone(n, |o| {
            o.lines = 2;
            if n == 3 {
                o.incoming = target;
            }
        });
    }
    world.act(D1, Action::call("2002"));
    world.run(ms(1_000));
    assert!(world.phones[D1].is_talking() && world.phones[D2].is_talking());
    world
}

fn quick() -> Incoming {
    Incoming::Answer { ring: ms(10), answer: ms(60) }
}

/// D2 holds D1 and talks to D3 on its second line.
fn consulting() -> World {
    let mut world = talking(quick(), |_| {});
    world.act(D2, Action::Hold(HoldForm::SendOnly));
    world.run(ms(300));
    world.act(D2, Action::on(1, Action::call("2003")));
    world.run(ms(1_000));
    assert!(world.phones[D3].is_talking());
    world
}

fn refer(to: &str, leave: Leave) -> Action {
    Action::Refer(Refer { leave, ..Refer::to(to) })
}

fn conn_id(world: &World, at: usize) -> ConnId {
    world.proxy.calls.snapshot()[at].conn_id
}

fn ask(world: &mut World, conn_id: ConnId, dn: &str, ask: Ask) -> Ticket {
    let ticket = Ticket(world.proxy.answers.len() as u64 + 1);
    let request = Asked { conn_id, this_dn: dn.to_owned(), reference: None, ask };
    world.tell(Input::Request(ticket, Box::new(request)));
    ticket
}

fn answer(world: &World, ticket: Ticket) -> Option<Result<ConnId, Denied>> {
    let found = world.proxy.answers.iter().find(|(of, _)| *of == ticket);
    found.map(|(_, answer)| answer.clone().map(|accepted| accepted.conn_id))
}

fn talkers(world: &World) -> Vec<usize> {
    (0..world.phones.len()).filter(|p| !world.phones[*p].is_idle()).collect()
}

/// Nobody is in a call with nobody: each live call has two parties that are up.
#[track_caller]
fn each_call_has_two(world: &World, case: &str) {
    for call in world.proxy.calls.snapshot() {
        let up = call.parties.iter().filter(|p| p.state == "established").count();
        assert!(up >= 2, "{case}: {up} parties in {call:?}");
    }
}

/// No exchange is open: a request is decided at once.
#[track_caller]
fn nothing_is_open(world: &mut World, case: &str) {
    for call in world.proxy.calls.snapshot() {
        let ticket = ask(world, call.conn_id, "2004", Ask::HoldCall);
        assert!(answer(world, ticket).is_some(), "{case}: an exchange is open in {call:?}");
    }
}

#[track_caller]
fn end(mut world: World, case: &str) {
    world.run(Duration::from_secs(5));
    each_call_has_two(&world, case);
    nothing_is_open(&mut world, case);
    for phone in 0..world.phones.len() {
        for line in 0..2 {
            world.act(phone, Action::on(line, Action::HangUp));
        }
    }
    world.settle();
}

/// Does `first`, `second` and so on, each the given time after the one before.
fn cross(world: &mut World, steps: &[(u64, usize, Action)]) {
    for (after, phone, action) in steps {
        world.run(ms(*after));
        world.act(*phone, action.clone());
    }
}

#[test]
fn a_bye_crosses_a_refer_in_either_dialog() {
    for offset in (0..40).step_by(3) {
        for (who, is_first) in [(D1, true), (D1, false), (D2, false)] {
            for leave in [Leave::AtOnce, Leave::WhenDone, Leave::Never] {
                let case = format!("{offset} ms, {who}, BYE first {is_first}, {leave:?}");
                let mut world = talking(quick(), |_| {});
                let (bye, refer) = ((who, Action::HangUp), (D2, refer("2003", leave)));
                let steps = if is_first { [bye, refer] } else { [refer, bye] };
                let [(a, first), (b, second)] = steps;
                cross(&mut world, &[(0, a, first), (offset, b, second)]);
                world.run(ms(3_000));
                match who {
                    // The one that is transferred has gone: so is everybody.
                    D1 if is_first || offset < 60 => assert!(!world.phones[D1].is_talking(), "{case}"),
                    _ => assert_eq!(talkers(&world), [D1, D3], "{case}"),
                }
                end(world, &case);
            }
        }
    }
}

#[test]
fn a_re_invite_crosses_a_refer() {
    let offers = [
        Action::Hold(HoldForm::SendOnly),
        Action::Hold(HoldForm::Inactive),
        Action::Recode(vec![Codec::pcma()]),
        Action::AskForOffer,
    ];
    for offset in (0..30).step_by(4) {
        for (who, offer) in [D1, D2].into_iter().flat_map(|who| offers.iter().map(move |o| (who, o.clone()))) {
            for is_first in [true, false] {
                let case = format!("{offset} ms, {who} {offer:?}, first {is_first}");
                let mut world = talking(quick(), |_| {});
                let (offer, refer) = ((who, offer.clone()), (D2, refer("2003", Leave::Never)));
                let [(a, first), (b, second)] = if is_first { [offer, refer] } else { [refer, offer] };
                cross(&mut world, &[(0, a, first), (offset, b, second)]);
                world.run(ms(4_000));
                assert_eq!(talkers(&world), [D1, D3], "{case}");
                world.act(D1, Action::Retrieve);
                end(world, &case);
            }
        }
    }
}

#[test]
fn two_refers_cross_and_one_of_them_is_refused() {
    for offset in 0..30 {
        let case = format!("{offset} ms");
        let mut world = talking(quick(), |_| {});
        let steps = [(0, D2, refer("2003", Leave::Never)), (offset, D1, refer("2004", Leave::Never))];
        cross(&mut world, &steps);
        world.run(ms(4_000));
        let refused = |phone: usize| {
            let happened = world.phones[phone].happenings().iter();
            happened.filter(|h| matches!(h.what, Happening::ReferRefused { code: Some(491) })).count()
        };
        assert_eq!((refused(D1), refused(D2)), (1, 0), "{case}");
        assert_eq!(talkers(&world), [D1, D3], "{case}");
        end(world, &case);
    }
}

#[test]
fn the_target_answers_while_its_ring_time_or_its_caller_ends() {
    // The ring timeout falls between 40 ms before and after the answer.
    for offset in (0..80).step_by(2) {
        let answer = ms(1_960 + offset);
        let mut world = talking(Incoming::Answer { ring: ms(10), answer }, |o| o.sip.ring_timeout = ms(2_000));
        world.act(D2, refer("2003", Leave::Never));
        world.run(Duration::from_secs(5));
        let talking = talkers(&world);
        assert!(talking == [D1, D3] || talking == [D1, D2], "{offset} ms: {talking:?}");
        end(world, &format!("ring timeout, {offset} ms"));
    }
    // D1 hangs up while the target answers: our CANCEL crosses its 200.
    for offset in 0..40 {
        let mut world = talking(Incoming::Answer { ring: ms(10), answer: ms(100) }, |_| {});
        world.act(D2, refer("2003", Leave::Never));
        world.run(ms(90 + offset));
        world.act(D1, Action::HangUp);
        world.run(Duration::from_secs(3));
        assert!(talkers(&world).is_empty() || talkers(&world) == [D2, D3], "{offset} ms: {:?}", talkers(&world));
        end(world, &format!("CANCEL, {offset} ms"));
    }
}

#[test]
fn the_target_answers_after_the_transferor_has_hung_up() {
    for offset in 0..60 {
        let mut world = talking(Incoming::Answer { ring: ms(10), answer: ms(60) }, |_| {});
        world.act(D2, refer("2003", Leave::Never));
        world.run(ms(offset * 2));
        world.act(D2, Action::HangUp);
        world.run(ms(3_000));
        assert_eq!(talkers(&world), [D1, D3], "{offset} ms");
        let causes: Vec<StopCause> = world.proxy.stops().into_iter().map(|(_, cause)| cause).collect();
        assert_eq!(causes, [StopCause::OwnerLeft], "{offset} ms: the transferor's own");
        end(world, &format!("{offset} ms"));
    }
}

#[test]
fn somebody_hangs_up_while_an_attended_transfer_joins_two_calls() {
    for offset in (0..40).step_by(3) {
        for who in [D1, D2, D3] {
            for line in [0, 1] {
                for leave in [Leave::AtOnce, Leave::Never] {
                    let case = format!("{offset} ms, {who} on line {line}, {leave:?}");
                    let mut world = consulting();
                    world.act(D2, Action::on(0, Action::Refer(Refer { leave, ..Refer::to_line(1) })));
                    world.run(ms(offset));
                    world.act(who, Action::on(if who == D2 { line } else { 0 }, Action::HangUp));
                    world.run(ms(3_000));
                    if who == D2 && offset >= 6 {
                        assert_eq!(talkers(&world), [D1, D3], "{case}");
                    }
                    end(world, &case);
                }
            }
        }
    }
}

#[test]
fn a_party_hangs_up_while_the_consultation_is_completed_alternated_or_dropped() {
    let asks = [
        Ask::CompleteTransfer { other: None },
        Ask::AlternateCall { other: None },
        Ask::ReconnectCall { other: None },
        Ask::RetrieveCall,
        Ask::ReleaseCall,
    ];
    for offset in (0..12).step_by(3) {
        for (who, asked) in [D1, D2, D3].into_iter().flat_map(|who| asks.iter().map(move |a| (who, a.clone()))) {
            for wait in [20, 1_000] {
                let case = format!("{offset} ms, {who}, {asked:?} after {wait} ms");
                let mut world = talking(Incoming::Answer { ring: ms(5), answer: ms(500) }, |_| {});
                let c1 = conn_id(&world, 0);
                ask(&mut world, c1, "2002", Ask::InitiateTransfer { to: "2003".into() });
                world.run(ms(wait));
                world.act(who, Action::HangUp);
                world.run(ms(offset));
                let c2 = world.proxy.calls.snapshot().last().map(|c| c.conn_id);
                if let Some(c2) = c2 {
                    let ticket = ask(&mut world, c2, "2002", asked.clone());
                    world.run(ms(6_000));
                    assert!(answer(&world, ticket).is_some(), "{case}: no answer");
                }
                end(world, &case);
            }
        }
    }
}

/// The offer is open because its answerer has vanished, or is slow.
#[test]
fn a_request_or_a_refer_that_meets_an_open_offer_waits_and_is_carried_out_or_refused() {
    for (offer, is_answered) in [(Action::Hold(HoldForm::SendOnly), true), (Action::Recode(vec![Codec::pcma()]), false)]
    {
        let mut world = talking(quick(), |_| {});
        if !is_answered {
            world.act(D1, Action::Vanish);
        }
        world.act(D2, offer);
        world.run(ms(7));
        let c1 = conn_id(&world, 0);
        let ticket = ask(&mut world, c1, "2002", Ask::SingleStepTransfer { to: "2003".into() });
        assert!(answer(&world, ticket).is_none(), "it waits");
        world.run(ms(4_900));
        match is_answered {
            true => {
                assert!(answer(&world, ticket).unwrap().is_ok());
                assert_eq!(talkers(&world), [D1, D3]);
            }
            false => {
                assert!(answer(&world, ticket).is_none(), "up to five seconds");
                world.run(ms(200));
                assert_eq!(answer(&world, ticket).unwrap().unwrap_err().code, Code::Busy);
            }
        }
        world.tell(Input::HangUpAll);
        world.settle();
    }
}

#[test]
fn the_held_party_hangs_up_while_an_offer_is_open_and_the_consultation_goes_on() {
    // Each of the two that stay is asked for something afterwards: nothing of the third keeps an exchange open.
    for offset in (0..14).step_by(2) {
        for offer in [Action::AskForOffer, Action::Hold(HoldForm::SendOnly), Action::Recode(vec![Codec::pcma()])] {
            for (who, gone) in [(D1, D1), (D3, D3), (D2, D3), (D2, D1), (D3, D1), (D1, D3)] {
                let case = format!("{offset} ms, {offer:?} of {who}, BYE of {gone}");
                let mut world = talking(quick(), |_| {});
                let c1 = conn_id(&world, 0);
                ask(&mut world, c1, "2002", Ask::InitiateTransfer { to: "2003".into() });
                world.run(ms(1_000));
                cross(&mut world, &[(0, who, offer.clone()), (offset, gone, Action::HangUp)]);
                world.run(ms(1_000));
                assert!(world.phones[gone].is_idle(), "{case}");
                let stays = if gone == D1 { vec![D2, D3] } else { vec![D1, D2] };
                assert_eq!(talkers(&world), stays, "{case}");
                end(world, &case);
            }
        }
    }
}

#[test]
fn a_peer_that_vanishes_in_a_consultation_takes_nobody_along() {
    for gone in [D1, D3] {
        let mut world = talking(quick(), |_| {});
        let c1 = conn_id(&world, 0);
        ask(&mut world, c1, "2002", Ask::InitiateTransfer { to: "2003".into() });
        world.run(ms(1_000));
        let leg = world
            .proxy
            .calls
            .snapshot()
            .iter()
            .flat_map(|c| c.parties.clone())
            .find(|p| p.number == format!("200{}", gone + 1));
        world.act(gone, Action::Vanish);
        let leg = leg.unwrap().leg_id;
        let notice = stickytape::bridge::command::Notice::Inactive { leg };
        world.tell(Input::Media(stickytape::id::WorkerId(0), notice));
        world.run(Duration::from_secs(40));
        assert!(!world.phones[D2].is_idle(), "{gone}");
        let parties = world.proxy.calls.snapshot();
        assert_eq!(parties.len(), 1, "{gone}");
        assert!(parties[0].parties.iter().all(|p| p.leg_id != leg), "{gone}");
        world.tell(Input::HangUpAll);
        world.settle();
    }
}

#[test]
fn a_transfer_goes_on_during_a_drain_and_ends_with_it() {
    for offset in (0..120).step_by(7) {
        let mut world = talking(quick(), |o| o.sip.drain_timeout = Duration::from_secs(10));
        world.act(D2, refer("2003", Leave::Never));
        world.run(ms(offset));
        world.tell(Input::Drain);
        world.run(Duration::from_secs(4));
        assert_eq!(talkers(&world), [D1, D3], "{offset} ms");
        world.run(Duration::from_secs(7));
        assert!(talkers(&world).is_empty(), "{offset} ms");
        world.settle();
        assert!(world.proxy.drained);
    }
}

/// spec/sip.md §5: the referrer's later CANCEL or BYE does not end the branch that has been detached from it.
#[test]
fn a_cancel_of_the_referrer_after_a_semi_attended_transfer_is_harmless() {
    for offset in 0..30 {
        for cancel in [Action::Cancel, Action::HangUp] {
            let case = format!("{offset} ms, {cancel:?}");
            let mut world = talking(Incoming::Manual, |_| {});
            world.act(D2, Action::Hold(HoldForm::SendOnly));
            world.run(ms(300));
            world.act(D2, Action::on(1, Action::call("2003")));
            world.run(ms(100));
            world.act(D3, Action::Ring);
            world.run(ms(100));
            world.act(D2, Action::on(0, Action::Refer(Refer::to_line(1))));
            world.run(ms(offset));
            world.act(D2, Action::on(1, cancel));
            world.run(ms(300));
            let cancels = world.phones[D3].requests().iter().filter(|r| r.method == Method::Cancel).count();
            // Before the REFER is here the CANCEL ends the branch, as it must.
            if offset >= 1 {
                assert_eq!(cancels, 0, "{case}");
                world.act(D3, Action::Answer);
                world.run(ms(3_000));
                assert_eq!(talkers(&world), [D1, D3], "{case}");
                let story = world.proxy.story();
                assert!(story.contains(&"transfer consulted".to_owned()), "{story:?}");
            }
            end(world, &case);
        }
    }
}

/// An UPDATE or a BYE in an early dialog of a transfer target concerns that target alone.
#[test]
fn what_a_ringing_target_says_in_its_early_dialog_leaves_the_others_alone() {
    for (method, body, code, transferred) in
        [(Method::Update, Some(sdp("10.0.0.9", 4000, "0", "sendrecv")), 200, true), (Method::Bye, None, 481, false)]
    {
        let mut world = talking(quick(), |_| {});
        let target = world.raw("10.0.0.9:5060");
        world.act(D2, refer("2009", Leave::Never));
        world.run(ms(100));
        let invite = world.raws[target].requests(Method::Invite).remove(0);
        let early = world.raws[target].reply(&invite, 183, "t", Some(&sdp("10.0.0.9", 4000, "0", "sendrecv")));
        world.raws[target].send(early);
        world.run(ms(50));
        let mut request = world.raws[target].as_callee(&invite, "t", method.clone(), 1);
        if let Some(body) = body {
            request.headers.set(stickytape::sip::name::Name::ContentType, "application/sdp");
            request.body = body.into();
        }
        world.raws[target].send(request);
        world.run(ms(50));
        assert_eq!(world.raws[target].codes(&method.to_string()), [code], "{method}");
        assert!(world.phones[D1].is_talking() && world.phones[D2].is_talking(), "{method}");
        if transferred {
            let answer = world.raws[target].reply(&invite, 200, "t", None);
            world.raws[target].send(answer);
            world.run(ms(3_000));
            assert_eq!(talkers(&world), [D1], "{method} {:?}", world.proxy.story());
        } else {
            let gone = world.raws[target].reply(&invite, 487, "t", None);
            world.raws[target].send(gone);
            world.run(ms(300));
            assert_eq!(world.proxy.calls.snapshot()[0].state, "talking");
        }
        world.tell(Input::HangUpAll);
        world.settle();
    }
}

/// A called party that changes its description before it answers is answered as it says last.
#[test]
fn a_called_party_updates_its_early_dialog_and_answers_then() {
    for repeats in [true, false] {
        let mut world = World::new(options());
        world.phone(1, |_| {});
        let called = world.raw("10.0.0.9:5060");
        world.act(D1, Action::call("2009"));
        world.run(ms(100));
        let invite = world.raws[called].requests(Method::Invite).remove(0);
        let body = sdp("10.0.0.9", 4000, "0", "sendrecv");
        let early = world.raws[called].reply(&invite, 183, "t", Some(&body));
        world.raws[called].send(early);
        world.run(ms(50));
        let mut update = world.raws[called].as_callee(&invite, "t", Method::Update, 1);
        update.headers.set(stickytape::sip::name::Name::ContentType, "application/sdp");
        update.body = sdp("10.0.0.9", 4002, "0", "sendrecv").into();
        world.raws[called].send(update);
        world.run(ms(50));
        let answer = world.raws[called].reply(&invite, 200, "t", repeats.then_some(body.as_str()));
        world.raws[called].send(answer);
        world.run(ms(300));
        assert!(world.phones[D1].is_talking(), "SDP in the 200: {repeats}: {:?}", world.proxy.story());
        world.tell(Input::HangUpAll);
        world.settle();
    }
}
