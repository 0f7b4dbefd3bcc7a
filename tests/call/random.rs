//! Random calls: phones that do anything at any time over a network that loses, repeats and reorders, while disks fill,
//! recorders fail, plans are reloaded and ports run out. Nothing panics, nothing is left, every session that starts
//! stops once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::call_world::*;
use proptest::prelude::*;
use stickytape::bridge::command::Notice as MediaNotice;
use stickytape::call::Input;
use stickytape::call::options::{Conference, DefaultOwner, Secret, WhenAlone};
use stickytape::codec::{Codec, Direction};
use stickytape::id::{RecorderId, RecordingId, WorkerId};
use stickytape::record::mark::{Change, Notice, Side, StopCause};
use stickytape::sip::endpoint::{self, Flow};
use stickytape::testing::network::Link;
use stickytape::testing::phone::{Action, HoldForm, Incoming};

#[derive(Debug, Clone)]
enum Step {
    Phone(usize, Action),
    Wait(u64),
    Space(bool),
    RecorderFails,
    Silence(usize),
    Reload(bool),
    Drain,
    HangUpAll,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (1..5u8, any::<bool>()).prop_map(|(n, offer)| Action::Call {
            to: format!("20{n:02}"),
            offer,
            headers: Vec::new(),
        }),
        // Rooms: an open one, one that waits, and one with the PIN 1.
        3 => (0..3u8, any::<bool>()).prop_map(|(n, offer)| Action::Call {
            to: format!("80{n}"),
            offer,
            headers: Vec::new(),
        }),
        1 => Just(Action::Info { content_type: "application/dtmf-relay".into(), body: "Signal=#".into() }),
        1 => Just(Action::Cancel),
        1 => Just(Action::Ring),
        1 => Just(Action::EarlyMedia),
        3 => Just(Action::Answer),
        1 => (300..700u16).prop_map(Action::refuse),
        1 => Just(Action::Refuse {
            code: 302,
            headers: vec![("Contact".into(), "<sip:2003@192.0.2.1>".into())],
        }),
        1 => prop_oneof![Just(HoldForm::SendOnly), Just(HoldForm::Inactive), Just(HoldForm::NullAddress)]
            .prop_map(Action::Hold),
        2 => Just(Action::Retrieve),
        1 => Just(Action::Recode(vec![Codec::pcma()])),
        1 => Just(Action::AskForOffer),
        1 => prop_oneof![Just(Direction::SendOnly), Just(Direction::SendRecv)].prop_map(Action::Update),
        1 => Just(Action::Info { content_type: "application/dtmf-relay".into(), body: "Signal=1".into() }),
        2 => Just(Action::HangUp),
        1 => Just(Action::Vanish),
    ]
}

fn in_call() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => prop_oneof![Just(HoldForm::SendOnly), Just(HoldForm::Inactive), Just(HoldForm::NullAddress)]
            .prop_map(Action::Hold),
        4 => Just(Action::Retrieve),
        1 => Just(Action::Recode(vec![Codec::pcma()])),
        1 => Just(Action::Recode(vec![Codec::pcmu(), Codec::pcma()])),
        1 => Just(Action::AskForOffer),
        1 => prop_oneof![Just(Direction::SendOnly), Just(Direction::SendRecv)].prop_map(Action::Update),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (prop_oneof![Just(0usize), Just(2usize)], in_call()).prop_map(|(p, action)| Step::Phone(p, action)),
        8 => (0..4usize, action()).prop_map(|(phone, action)| Step::Phone(phone, action)),
        5 => prop_oneof![0..20u64, 20..500u64, 500..5_000u64].prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::Space),
        1 => Just(Step::RecorderFails),
        1 => (0..4usize).prop_map(Step::Silence),
        1 => any::<bool>().prop_map(Step::Reload),
    ]
}

fn link() -> impl Strategy<Value = Link> {
    (0..40u64, 0..200u64, prop_oneof![Just(0.0), 0.0..0.3f64], 0.0..0.2f64).prop_map(
        |(delay, jitter, loss, duplicate)| Link {
            delay: ms(delay),
            jitter: ms(jitter),
            loss,
            duplicate,
            reorder: true,
        },
    )
}

fn rooms() -> Vec<Arc<Conference>> {
    let waits = Conference { when_alone: WhenAlone::Wait, max_members: 3, ..Conference::new("801") };
    let locked = Conference { pin: Some(Secret::new("1".into())), record: Some(false), ..Conference::new("802") };
    [Conference::new("800"), waits, locked].into_iter().map(Arc::new).collect()
}

fn run(link: Link, steps: &[Step], pairs: usize, required: bool, early_media: bool, last: &Step) {
    let mut options = options();
    options.recording.default = DefaultOwner::Both;
    options.recording.required = required;
    options.recording.early_media = early_media;
    options.plan.conferences = rooms();
    let plan = options.plan.clone();
    let mut world = World::linked(options, pairs, link);
    for n in 1..5u8 {
        world.phone(n, |o| {
            o.incoming = match n % 3 {
                0 => Incoming::Answer { ring: ms(10), answer: ms(300) },
                1 => Incoming::Manual,
                _ => Incoming::Answer { ring: ms(0), answer: ms(50) },
            };
        });
        let phone = world.phones.len() - 1;
        world.act(phone, Action::Dtx(true));
    }
    for step in steps.iter().chain([last]) {
        take(&mut world, step, &plan);
    }
    world.run(ms(1_000));
    for phone in 0..4 {
        if !world.phones[phone].is_idle() {
            world.act(phone, Action::HangUp);
        }
    }
    world.tell(Input::HangUpAll);
    world.settle();
    assert!(world.proxy.drained);
    every_session_stops_once(&world);
}

fn take(world: &mut World, step: &Step, plan: &stickytape::call::options::Plan) {
    match step {
        Step::Phone(phone, action) => world.act(*phone, action.clone()),
        Step::Wait(time) => world.run(ms(*time)),
        Step::Space(ok) => world.tell(Input::Space { ok: *ok }),
        Step::RecorderFails => {
            let running = world.proxy.calls.snapshot();
            if let Some(recording) = running.iter().flat_map(|c| &c.recordings).next() {
                let failed = Notice::Failed { id: recording.id, cause: StopCause::WriteError, reason: "x".into() };
                world.tell(Input::Record(RecorderId(0), failed));
            }
        }
        Step::Silence(nth) => {
            let running = world.proxy.calls.snapshot();
            if let Some(party) = running.iter().flat_map(|c| &c.parties).nth(*nth) {
                let leg = party.leg_id;
                world.tell(Input::Media(WorkerId(0), MediaNotice::Inactive { leg }));
            }
        }
        Step::Reload(empty) => {
            let plan = if *empty { Default::default() } else { plan.clone() };
            world.tell(Input::Reload(Box::new(plan)));
        }
        Step::Drain => world.tell(Input::Drain),
        Step::HangUpAll => world.tell(Input::HangUpAll),
    }
}

fn every_session_stops_once(world: &World) {
    let mut open: HashMap<RecordingId, bool> = HashMap::new();
    let mut of_rooms = HashSet::new();
    for (_, mark) in &world.proxy.marks {
        match &mark.change {
            Change::Start(start) => {
                assert!(open.insert(start.id, true).is_none());
                if start.side == Side::Room {
                    assert!(start.conversation.members.len() >= 2);
                    of_rooms.insert(start.id);
                }
            }
            Change::Stop { id, .. } => assert_eq!(open.insert(*id, false), Some(true), "one Stop after one Start"),
            Change::Conversation { id, conversation } => {
                assert_eq!(open.get(id), Some(&true));
                let is_party = conversation.members.iter().any(|m| m.leg == conversation.owner);
                assert_ne!(is_party, of_rooms.contains(id), "a room is no party, every other owner is");
            }
            Change::Event { id, .. } => assert_eq!(open.get(id), Some(&true)),
            _ => {}
        }
    }
    assert!(open.values().all(|open| !open));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn random_phones_leave_nothing_behind(
        link in link(),
        steps in prop::collection::vec(step(), 0..40),
        pairs in prop_oneof![1 => 0..12usize, 3 => Just(1_000usize)],
        required in any::<bool>(),
        early_media in any::<bool>(),
        talking in any::<bool>(),
        meeting in any::<bool>(),
        last in prop_oneof![Just(Step::Drain), Just(Step::HangUpAll), Just(Step::Wait(100))],
    ) {
        // Half of the runs begin with a call that is up, or with a room, so that what happens in one is reached.
        let mut all = Vec::new();
        if talking {
            all.extend([Step::Phone(0, Action::call("2003")), Step::Wait(1_500)]);
        }
        if meeting {
            all.extend([0, 2, 3].map(|phone| Step::Phone(phone, Action::call("801"))));
            all.push(Step::Wait(300));
        }
        all.extend(steps);
        run(link, &all, pairs, required, early_media, &last);
    }

    /// Mangled copies of the packets of a call, from any of its sources: no panic, and it all ends.
    #[test]
    fn mangled_packets_leave_nothing_behind(
        edits in prop::collection::vec((any::<u16>(), any::<u16>(), any::<u8>(), any::<bool>()), 1..60),
    ) {
        let mut world = World::new(options());
        let a = world.phone(1, |_| {});
        let b = world.phone(2, |_| {});
        for phone in [a, b] {
            world.act(phone, Action::Dtx(true));
        }
        world.act(a, Action::call("2002"));
        world.run(ms(1_000));
        world.act(b, Action::Hold(HoldForm::SendOnly));
        world.run(ms(300));
        let seen: Vec<_> = world.net.trace().iter().map(|t| t.datagram.clone()).filter(|d| d.to == addr(PROXY)).collect();
        for (which, place, byte, cut) in edits {
            let original = &seen[usize::from(which) % seen.len()];
            let mut bytes = original.bytes.to_vec();
            let at = usize::from(place) % bytes.len();
            if cut { bytes.truncate(at) } else { bytes[at] = byte }
            let flow = Flow::udp(addr(PROXY), original.from);
            world.tell(Input::Sip(endpoint::Input::Packet { flow, bytes: bytes.into() }));
            world.run(ms(20));
        }
        for phone in [a, b] {
            world.act(phone, Action::HangUp);
        }
        world.tell(Input::HangUpAll);
        world.settle();
    }
}
