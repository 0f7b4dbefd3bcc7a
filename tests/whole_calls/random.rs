//! Random sequences of transfers, consultations, conferences, supervisors, holds and requests through the whole program in
//! virtual time, with sound and with loss on the wire: nothing is left over, every request has one answer, every recording
//! verifies, and no supervisor is in a mixed file.

use std::time::Duration;

use crate::whole::{Tape, Threads, World, addr};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stickytape::call::options::{
    DefaultOwner, Dn, DnRole, Host, Listener, MediaOptions, MonitorConsult, Numbers, OnTransfer, Options, PeerAddress,
    Plan, RecordingOptions, SipOptions, Transport,
};
use stickytape::call::request::{
    Ask, DnAsk, DnRequest, MonitorMode, MonitorNextCall, MonitorScope, OwnerWish, Request, Ticket,
};
use stickytape::record::mark::{Layout, Role};
use stickytape::testing::network::Link;
use stickytape::testing::phone::{self, Action, HoldForm, Incoming, Leave, Phone, Refer};
use stickytape::testing::tones::{self, Voice};

const PROXY: &str = "192.0.2.1:5060";
const PHONES: usize = 6;
/// The last ones are supervisors'.
const AGENTS: usize = 4;
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

fn hz(n: usize) -> f64 {
    500.0 + 130.0 * n as f64
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
        dn.intrusion = true;
        dn.monitor_consult = pick(rng, &[MonitorConsult::None, MonitorConsult::All]);
        dn.role = if n < AGENTS { DnRole::Agent } else { DnRole::Supervisor };
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
    let mut world = World::new(options, Threads { seed, mixers: 2, ..Threads::default() });
    if rng.random() {
        // On the way of SIP, too: it is sent again.
        let link = Link { loss: 0.01, jitter: ms(8), reorder: true, ..Link::delayed(ms(5)) };
        for n in 0..PHONES {
            let (phone, proxy) = (addr(&format!("10.0.0.{}:1", n + 1)).ip(), addr(PROXY).ip());
            world.net.set_link(phone, proxy, link);
            world.net.set_link(proxy, phone, link);
        }
    }
    for n in 0..PHONES {
        let at = |port| addr(&format!("10.0.0.{}:{port}", n + 1));
        let mut options = phone::Options::new(&number(n), at(5060), at(4000), addr(PROXY));
        options.lines = 2;
        options.voice = Voice::Tone { hz: hz(n), dbfs: -18.0 };
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
    let (other, coach) = (pick(rng, &calls).conn_id, rng.random());
    let ask = match rng.random_range(0..24) {
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
        13 => Ask::RecordStop { recording: None },
        14..=16 => Ask::SingleStepConference { to, hold: rng.random() },
        17 => Ask::InitiateConference { to },
        18 | 19 => Ask::CompleteConference { other: None },
        20 => Ask::MergeCalls { other },
        21 => Ask::DeleteFromConference { party: to },
        22 => pick(rng, &[Ask::ListenDisconnect { party: None }, Ask::ListenReconnect { party: None }]),
        _ => pick(rng, &[Ask::SetMuteOn { coach }, Ask::SetMuteOff { coach }]),
    };
    let conn_id = pick(rng, &calls).conn_id;
    let this_dn = number(rng.random_range(0..PHONES));
    Some(Request { conn_id, this_dn, reference: None, ask })
}

/// A supervisor wants to join a call of somebody's.
fn monitor(rng: &mut StdRng) -> DnRequest {
    let agent = number(rng.random_range(0..AGENTS));
    let wish = MonitorNextCall {
        agent: agent.clone(),
        mode: pick(rng, &[None, Some(MonitorMode::Mute), Some(MonitorMode::Coach), Some(MonitorMode::Connect)]),
        scope: pick(rng, &[None, Some(MonitorScope::Call), Some(MonitorScope::Agent)]),
        all: rng.random(),
        intrusion: rng.random(),
    };
    let ask = pick(
        rng,
        &[DnAsk::MonitorNextCall(wish.clone()), DnAsk::MonitorNextCall(wish), DnAsk::CancelMonitoring { agent }],
    );
    DnRequest { this_dn: number(rng.random_range(AGENTS - 1..PHONES)), reference: None, ask }
}

/// A supervisor that has never been a party of a recording's call, and whose voice is in its mixed file all the same.
fn overheard(tape: &Tape) -> Option<String> {
    let of = |n: usize| tape.recording.participants.iter().filter(move |p| p.dn == Some(number(n)));
    let watches = |n: &usize| of(*n).count() > 0 && of(*n).all(|p| p.role == Role::Supervisor);
    let (_, channels, mixed) = tape.files.iter().find(|(name, ..)| name == "mixed.wav")?;
    if tape.recording.duration_ms? < 2_000 {
        // Too short to tell one tone from the next at this level.
        return None;
    }
    (AGENTS..PHONES).filter(watches).find_map(|n| {
        let levels = (0..*channels).map(|channel| {
            let samples: Vec<i16> = mixed.iter().skip(channel).step_by(*channels).copied().collect();
            tones::tone_level(&samples, tape.recording.media_files[0].sample_rate, hz(n))
        });
        levels.reduce(f64::max).filter(|level| *level > -60.0).map(|level| format!("{} at {level:.1} dBFS", number(n)))
    })
}

#[test]
fn every_recording_of_random_sequences_verifies() {
    let (mut recordings, mut conferences, mut supervised) = (0, 0, 0);
    for seed in SEEDS {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = world(&mut rng, seed);
        let mut tickets: Vec<Ticket> = Vec::new();
        for step in 0..STEPS {
            world.run_until(ms(500 * step + rng.random_range(0..450)));
            match rng.random_range(0..6) {
                0..=2 => {
                    let request = request(&mut rng, &world);
                    tickets.extend(request.map(|request| world.ask(request)));
                }
                // Whether it is accepted is not the question here.
                3 => _ = world.ask_dn(monitor(&mut rng)),
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
            conferences += usize::from(tape.recording.segments.iter().any(|s| s.speakers.len() > 2));
            supervised += usize::from(tape.files.iter().any(|(name, ..)| name.starts_with("supervisor")));
            assert_eq!(overheard(&tape), None, "seed {seed}: in {:?}", tape.recording);
            assert_eq!(tape.wrong, Vec::<String>::new(), "seed {seed}: {:?}", tape.recording.segments);
        }
    }
    let enough = recordings >= 2 * SEEDS.count() && conferences >= 10 && supervised >= 10;
    assert!(enough, "{recordings} recordings, {conferences} of conferences, {supervised} with supervisors: too few");
}
