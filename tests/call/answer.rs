//! AnswerCall in virtual time: a phone that rings is asked to answer (spec/sip.md §6).

use crate::call_world::*;
use stickytape::call::Input;
use stickytape::call::request::{Accepted, Ask, Code, Denied, Request as Asked, Ticket};
use stickytape::sip::message::Request;
use stickytape::sip::method::Method;
use stickytape::sip::name::Name;
use stickytape::testing::phone::{Action, Incoming};

const A: usize = 0;
const B: usize = 1;

/// 2001, and 2002, whose phone obeys keys if `talk`; neither answers by itself.
fn world(talk: bool) -> World {
    let mut world = World::new(options());
    for n in 1..=2 {
        world.phone(n, |o| (o.incoming, o.talk) = (Incoming::Manual, talk));
    }
    world
}

/// 2001 calls 2002, whose phone rings.
fn ringing(talk: bool) -> World {
    let mut world = world(talk);
    world.act(A, Action::call("2002"));
    world.run(ms(100));
    world.act(B, Action::Ring);
    world.run(ms(100));
    world
}

fn send(world: &mut World, dn: &str, ask: Ask) -> Result<Accepted, Denied> {
    let ticket = Ticket(world.proxy.answers.len() as u64 + 1);
    let conn_id = world.proxy.calls.snapshot().first().map_or(Asked::NO_CALL, |call| call.conn_id);
    let request = Asked { conn_id, this_dn: dn.to_owned(), reference: None, ask };
    world.tell(Input::Request(ticket, Box::new(request)));
    world.run(ms(0));
    let answer = world.proxy.answers.iter().find(|(t, _)| *t == ticket).expect("answered at once").1.clone();
    world.run(ms(200));
    answer
}

fn answer(world: &mut World, dn: &str) -> Result<Accepted, Denied> {
    send(world, dn, Ask::AnswerCall)
}

fn code(answer: Result<Accepted, Denied>) -> Code {
    answer.expect_err("refused").code
}

fn notifies(requests: &[Request]) -> Vec<Request> {
    requests.iter().filter(|r| r.method == Method::Notify).cloned().collect()
}

#[test]
fn a_phone_that_takes_the_key_answers_when_it_is_asked() {
    let mut world = ringing(true);
    let call = world.proxy.calls.snapshot()[0].conn_id;
    assert_eq!(answer(&mut world, "2002"), Ok(Accepted::new(call)));
    assert!(world.phones[A].is_talking() && world.phones[B].is_talking());
    let notify = notifies(world.phones[B].requests()).remove(0);
    assert_eq!(text(notify.headers.get(Name::Event)), "talk");
    let invite = world.phones[B].requests().iter().find(|r| r.method == Method::Invite).cloned().unwrap();
    assert_eq!(notify.headers.get(Name::CallId), invite.headers.get(Name::CallId), "in its early dialog");
    assert_eq!(code(answer(&mut world, "2002")), Code::WrongState, "it has answered");
    assert_eq!(code(answer(&mut world, "2001")), Code::WrongState);
    world.act(A, Action::HangUp);
    world.settle();
}

#[test]
fn a_phone_that_takes_no_key_rings_on() {
    let mut world = ringing(false);
    assert_eq!(code(answer(&mut world, "2002")), Code::NotSupported);
    assert_eq!(world.proxy.calls.snapshot()[0].state, "early");
    assert!(notifies(world.phones[B].requests()).is_empty());
    world.act(A, Action::Cancel);
    world.settle();
}

#[test]
fn only_who_rings_can_be_asked_to_answer() {
    let mut world = world(true);
    world.act(A, Action::call("2002"));
    world.run(ms(100));
    assert_eq!(code(answer(&mut world, "2002")), Code::WrongState, "it has not said that it rings");
    world.act(B, Action::Ring);
    world.run(ms(100));
    assert_eq!(code(answer(&mut world, "2003")), Code::NotAParty);
    assert_eq!(code(answer(&mut world, "2001")), Code::WrongState, "it calls");
    assert_eq!(code(answer(&mut world, "2099")), Code::UnknownDn);
    world.act(A, Action::Cancel);
    world.settle();
}

#[test]
fn who_is_called_by_a_transfer_or_for_a_call_of_its_own_can_be_asked_too() {
    let mut world = world(true);
    send(&mut world, "2001", Ask::MakeCall { to: "2002".into() }).expect("made");
    for phone in [A, B] {
        world.act(phone, Action::Ring);
        world.run(ms(100));
        let dn = ["2001", "2002"][phone];
        answer(&mut world, dn).unwrap_or_else(|denied| panic!("{dn}: {denied:?}"));
    }
    assert!(world.phones[A].is_talking() && world.phones[B].is_talking());
    world.phone(3, |o| (o.incoming, o.talk) = (Incoming::Manual, true));
    send(&mut world, "2001", Ask::SingleStepTransfer { to: "2003".into() }).expect("transferred");
    world.act(2, Action::Ring);
    world.run(ms(100));
    answer(&mut world, "2003").expect("asked");
    assert!(world.phones[B].is_talking() && world.phones[2].is_talking());
    world.act(B, Action::HangUp);
    world.settle();
}

#[test]
fn a_phone_that_refuses_the_key_rings_on_and_somebody_is_told() {
    let mut world = world(false);
    world.phones.truncate(1);
    let b = world.raw("10.0.0.2:5060");
    world.act(A, Action::call("2002"));
    world.run(ms(50));
    let invite = world.raws[b].requests(Method::Invite).remove(0);
    let mut ringing = world.raws[b].reply(&invite, 180, "b", None);
    ringing.headers.push(Name::AllowEvents, "hold, talk");
    world.raws[b].send(ringing);
    world.run(ms(50));
    answer(&mut world, "2002").expect("asked");
    let notify = world.raws[b].requests(Method::Notify).remove(0);
    let refused = world.raws[b].reply(&notify, 489, "", None);
    world.raws[b].send(refused);
    world.run(ms(100));
    assert!(world.proxy.has_fact("warning a phone has refused a NOTIFY of hold or talk"));
    assert_eq!(world.proxy.calls.snapshot()[0].state, "early");
    world.act(A, Action::Cancel);
    world.run(ms(100));
    let gone = world.raws[b].reply(&invite, 487, "b", None);
    world.raws[b].send(gone);
    let cancel = world.raws[b].requests(Method::Cancel).remove(0);
    let ok = world.raws[b].reply(&cancel, 200, "b", None);
    world.raws[b].send(ok);
    world.settle();
}
