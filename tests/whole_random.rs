//! Random sequences of transfers, consultations, holds and requests through the whole program in virtual time, with sound:
//! nothing is left over, every request has one answer, and every recording verifies.

mod whole;

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stickytape::call::options::{
    DefaultOwner, Dn, Host, Listener, MediaOptions, Numbers, OnTransfer, Options, PeerAddress, Plan, RecordingOptions,
    SipOptions, Transport,
};
use stickytape::call::request::{Ask, OwnerWish, Request, Ticket};
use stickytape::record::mark::Layout;
use stickytape::testing::phone::{self, Action, HoldForm, Incoming, Leave, Phone, Refer};
use stickytape::testing::tones::Voice;
use whole::{Threads, World, addr};

const PROXY: &str = "192.0.2.1:5060";
const PHONES: usize = 4;
/// Sequences; each lasts twelve seconds of calls.
const SEEDS: std::ops::Range<u64> = 0..40;
const STEPS: u64 = 24;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn pick<T: Clone>(rng: &mut StdRng, of: &[T]) -> T {
    of[rng.random_range(0..of.len())].clone()
}

fn number(n: usize) -> String {
    format!("200{}", n + 1)
}

fn world(rng: &mut StdRng, seed: u64) -> World {
    let dn = |n: usize, rng: &mut StdRng| {
        let contact = PeerAddress {
            user: Some("{number}".into()),
            host: Host::Ip(format!("10.0.0.{}", n + 1).parse().unwrap()),
            port: 5060,
            transport: Some(Transport::Udp),
        };
        let mut dn = Dn::new(Numbers::One(number(n)), contact);
        dn.record = pick(rng, &[None, None, Some(true)]);
        dn.record_consult = rng.random();
        dn
    };
    let dns = (0..PHONES).map(|n| dn(n, rng)).collect();
    let recording = RecordingOptions {
        default: pick(rng, &[DefaultOwner::Both, DefaultOwner::Origination, DefaultOwner::Termination]),
        layout: pick(rng, &[Layout::Mixed, Layout::Stereo, Layout::Tracks]),
        termination_on_transfer: pick(rng, &[OnTransfer::Terminate, OnTransfer::Maintain]),
        ..RecordingOptions::default()
    };
    let options = Options {
        listeners: vec![Listener { transport: Transport::Udp, address: addr(PROXY) }],
        sip: SipOptions { ring_timeout: ms(3_000), ..SipOptions::default() },
        media: MediaOptions { ports_ahead: 8, ..MediaOptions::default() },
        recording,
        plan: Plan { dns, ..Plan::default() },
    };
    let mut world = World::new(options, Threads { seed, ..Threads::default() });
    for n in 0..PHONES {
        let at = |port| addr(&format!("10.0.0.{}:{port}", n + 1));
        let mut options = phone::Options::new(&number(n), at(5060), at(4000), addr(PROXY));
        options.lines = 2;
        options.voice = Voice::Tone { hz: 500.0 + 130.0 * n as f64, dbfs: -15.0 };
        let answer = ms(rng.random_range(50..900));
        options.incoming = match rng.random_range(0..6) {
            0 => Incoming::Refuse(pick(rng, &[486, 603, 480])),
            _ => Incoming::Answer { ring: ms(20), answer },
        };
        world.phone(Phone::new(options));
    }
    world
}

fn action(rng: &mut StdRng) -> Action {
    let leave = pick(rng, &[Leave::AtOnce, Leave::WhenDone, Leave::Never]);
    let someone = number(rng.random_range(0..PHONES));
    let form = pick(rng, &[HoldForm::SendOnly, HoldForm::Inactive, HoldForm::NullAddress]);
    match rng.random_range(0..10) {
        0..=2 => Action::call(&someone),
        3 => Action::HangUp,
        4 => Action::Hold(form),
        5 => Action::Retrieve,
        6 => Action::on(1, Action::call(&someone)),
        7 => Action::on(0, Action::Refer(Refer { leave, ..Refer::to_line(1) })),
        _ => Action::Refer(Refer { leave, ..Refer::to(&someone) }),
    }
}

fn request(rng: &mut StdRng, world: &World) -> Option<Request> {
    let calls = world.product.calls.snapshot();
    if calls.is_empty() {
        return None;
    }
    let to = number(rng.random_range(0..PHONES));
    let owner = pick(rng, &[OwnerWish::Source, OwnerWish::Destination, OwnerWish::Dn(to.clone())]);
    let ask = match rng.random_range(0..14) {
        0 => Ask::ReleaseCall,
        1 => Ask::HoldCall,
        2 | 3 => Ask::RetrieveCall,
        4 | 5 => Ask::InitiateTransfer { to },
        6 => Ask::MuteTransfer { to },
        7 => Ask::CompleteTransfer { other: None },
        8 => Ask::SingleStepTransfer { to },
        9 => Ask::AlternateCall { other: None },
        10 => Ask::ReconnectCall { other: None },
        11 => Ask::RecordStart { owner },
        12 => pick(rng, &[Ask::RecordPause { recording: None }, Ask::RecordResume { recording: None }]),
        _ => Ask::RecordStop { recording: None },
    };
    let conn_id = pick(rng, &calls).conn_id;
    let this_dn = number(rng.random_range(0..PHONES));
    Some(Request { conn_id, this_dn, reference: None, ask })
}

#[test]
fn every_recording_of_random_sequences_verifies() {
    let mut recordings = 0;
    for seed in SEEDS {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = world(&mut rng, seed);
        let mut tickets: Vec<Ticket> = Vec::new();
        for step in 0..STEPS {
            world.run_until(ms(500 * step + rng.random_range(0..450)));
            match rng.random_range(0..3) {
                0 => {
                    let request = request(&mut rng, &world);
                    tickets.extend(request.map(|request| world.ask(request)));
                }
                _ => {
                    let phone = rng.random_range(0..PHONES);
                    world.act(phone, action(&mut rng));
                }
            }
        }
        world.run_until(ms(500 * STEPS));
        for phone in 0..PHONES {
            for line in [1, 0] {
                world.act(phone, Action::on(line, Action::HangUp));
            }
        }
        world.run_until(ms(500 * STEPS + 120_000));
        assert!(world.product.is_idle(), "seed {seed}: {}", world.product.left());
        let unanswered = tickets.iter().filter(|ticket| world.answer(**ticket).is_none()).count();
        assert_eq!(unanswered, 0, "seed {seed}");
        for tape in world.tapes() {
            recordings += 1;
            assert_eq!(tape.wrong, Vec::<String>::new(), "seed {seed}: {:?}", tape.recording.segments);
        }
    }
    assert!(recordings >= 2 * SEEDS.count(), "only {recordings} recordings: the sequences say nothing");
}
