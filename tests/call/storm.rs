//! Peers that say anything at any time: whatever they do, nothing is left of it, every session is stopped once, and
//! call control does not panic. Failures print the seed.

use std::collections::{BTreeMap, BTreeSet};

use crate::call_world::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stickytape::call::Input;
use stickytape::id::{LegId, RecordingId};
use stickytape::record::mark::{Change, Conversation};
use stickytape::sip::message::{Request, Response};
use stickytape::sip::method::Method;
use stickytape::sip::name::Name;

const A: usize = 0;
const B: usize = 1;

fn description(rng: &mut StdRng, host: &str) -> Option<String> {
    let codecs = ["0 8 101", "0 101", "8", "8 0", "18", ""][rng.random_range(0..6)];
    let direction = ["sendrecv", "sendrecv", "sendonly", "recvonly", "inactive"][rng.random_range(0..5)];
    let version = rng.random_range(1..4);
    let text = sdp(host, 4000, codecs, direction).replace("1 1 IN", &format!("1 {version} IN"));
    match rng.random_range(0..10) {
        0 | 1 => None,
        2 => Some("v=0\r\nnothing".into()),
        3 => Some(text.replace(&format!("c=IN IP4 {host}"), "c=IN IP4 0.0.0.0")),
        _ => Some(text),
    }
}

fn add(message: &mut Request, sdp: Option<String>) {
    if let Some(sdp) = sdp {
        message.headers.set(Name::ContentType, "application/sdp");
        message.body = sdp.into();
    }
}

/// What the caller may do next.
fn caller(world: &mut World, rng: &mut StdRng, invite: &Request, cseq: u32) {
    let sdp = description(rng, "10.0.0.1");
    let answers: Vec<Response> =
        world.raws[A].responses("INVITE").into_iter().filter(|r| r.code > 100 && r.code < 300).collect();
    let chosen = if answers.is_empty() { None } else { Some(answers[rng.random_range(0..answers.len())].clone()) };
    let mut request = match (rng.random_range(0..10), chosen) {
        (0, _) => {
            let mut cancel = invite.clone();
            cancel.method = Method::Cancel;
            cancel.headers.set(Name::CSeq, "1 CANCEL");
            cancel.headers.remove(Name::ContentType);
            cancel.body = Default::default();
            cancel
        }
        (_, None) => return,
        (1..=3, Some(answer)) => {
            let number = text(answer.headers.get(Name::CSeq)).split(' ').next().unwrap().parse().unwrap();
            world.raws[A].in_dialog(invite, &answer, Method::Ack, number)
        }
        (4, Some(answer)) => world.raws[A].in_dialog(invite, &answer, Method::Bye, cseq),
        (5 | 6, Some(answer)) => world.raws[A].in_dialog(invite, &answer, Method::Invite, cseq),
        (7, Some(answer)) => world.raws[A].in_dialog(invite, &answer, Method::Update, cseq),
        (8, Some(answer)) => world.raws[A].in_dialog(invite, &answer, Method::Info, cseq),
        (_, Some(answer)) => world.raws[A].in_dialog(invite, &answer, Method::Options, cseq),
    };
    if matches!(request.method, Method::Ack | Method::Invite | Method::Update) {
        add(&mut request, sdp);
    }
    world.raws[A].send(request);
}

/// What the called side may do next.
fn called(world: &mut World, rng: &mut StdRng, cseq: u32) {
    let Some(received) = world.raws[B].requests(Method::Invite).first().cloned() else { return };
    let sdp = description(rng, "10.0.0.2");
    let tag = ["b", "b", "b", "c", "d"][rng.random_range(0..5)];
    let method = [Method::Bye, Method::Invite, Method::Update, Method::Info, Method::Options];
    if rng.random_range(0..3) == 0 {
        let method = method[rng.random_range(0..5)].clone();
        let mut request = world.raws[B].as_callee(&received, tag, method, cseq);
        if matches!(request.method, Method::Invite | Method::Update) {
            add(&mut request, sdp);
        }
        return world.raws[B].send(request);
    }
    answer(world, rng, B, tag, sdp);
}

/// Any answer to any request that has come.
fn answer(world: &mut World, rng: &mut StdRng, raw: usize, tag: &str, sdp: Option<String>) {
    let requests: Vec<Request> = [Method::Invite, Method::Bye, Method::Cancel, Method::Info, Method::Options]
        .into_iter()
        .flat_map(|method| world.raws[raw].requests(method))
        .collect();
    if requests.is_empty() {
        return;
    }
    let request = &requests[rng.random_range(0..requests.len())];
    let is_invite = request.method == Method::Invite;
    let codes: &[u16] = match is_invite {
        true => &[100, 180, 183, 183, 200, 200, 200, 302, 408, 481, 486, 487, 488, 491, 503, 603],
        false => &[200, 200, 200, 481, 500],
    };
    let code = codes[rng.random_range(0..codes.len())];
    let reply = world.raws[raw].reply(request, code, tag, sdp.filter(|_| is_invite).as_deref());
    world.raws[raw].send(reply);
}

fn storm(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut options = options();
    options.recording.early_media = rng.random();
    options.recording.required = rng.random_range(0..4) == 0;
    if rng.random() {
        options.recording.default = stickytape::call::options::DefaultOwner::Both;
    }
    let mut world = World::new(options);
    world.raw("10.0.0.1:5060");
    world.raw("10.0.0.2:5060");
    let mut invite = world.raws[A].invite("2002", "c", None);
    add(&mut invite, description(&mut rng, "10.0.0.1"));
    invite.headers.set(Name::From, "<sip:2001@10.0.0.1>;tag=fc");
    world.raws[A].send(invite.clone());
    for cseq in 2..rng.random_range(10..60) {
        match rng.random_range(0..24) {
            0..=8 => caller(&mut world, &mut rng, &invite, cseq),
            9..=19 => called(&mut world, &mut rng, cseq),
            20 | 21 => answer(&mut world, &mut rng, A, "", Some(sdp("10.0.0.1", 4000, "0", "sendrecv"))),
            22 => world.tell(Input::Space { ok: cseq % 2 == 0 }),
            _ => world.run(ms(rng.random_range(0..20_000))),
        }
        world.run(ms(rng.random_range(0..30)));
    }
    world.tell(Input::HangUpAll);
    world.settle();
    assert!(world.proxy.drained);
    check_marks(&world);
}

/// What the recorders rely on: a session lives from its Start to its one Stop, and each leg of its conversation was
/// announced before and has not ended.
fn check_marks(world: &World) {
    let mut legs = BTreeSet::new();
    let mut sessions: BTreeMap<RecordingId, Vec<LegId>> = BTreeMap::new();
    let members = |conversation: &Conversation| conversation.members.iter().map(|m| m.leg).collect::<Vec<_>>();
    for (_, mark) in &world.proxy.marks {
        match &mark.change {
            Change::Payloads { leg, .. } => {
                legs.insert(*leg);
            }
            Change::LegEnded(leg) => assert!(legs.remove(leg), "{leg} ended without having begun"),
            Change::Start(start) => {
                assert!(sessions.insert(start.id, members(&start.conversation)).is_none(), "a session starts once");
            }
            Change::Conversation { id, conversation } => {
                assert!(sessions.insert(*id, members(conversation)).is_some(), "a conversation of no session");
            }
            Change::Event { id, .. } => assert!(sessions.contains_key(id), "an event of no session"),
            Change::Stop { id, .. } => assert!(sessions.remove(id).is_some(), "a session stops once"),
            Change::Pause(_) | Change::Resume(_) => {}
        }
        for leg in sessions.values().flatten() {
            assert!(legs.contains(leg), "{leg} is in a conversation before its begin or after its end");
        }
    }
}

#[test]
fn nothing_is_left_of_peers_that_say_anything() {
    for seed in 0..400 {
        let result = std::panic::catch_unwind(|| storm(seed));
        assert!(result.is_ok(), "seed {seed}");
    }
}
