//! What conferences and supervisors sound like to the parties (spec/recording.md §4.6, architecture.md §4 Bridging): a
//! customer never hears who only coaches or listens, no change breaks or clicks in anybody's stream, and the files of a
//! session are aligned to the sample.

use std::f64::consts::TAU;
use std::time::Duration;

use crate::whole::{Tape, Threads, World, addr};
use stickytape::call::options::{
    DefaultOwner, Dn, DnRole, Host, Listener, MediaOptions, Numbers, Options, PeerAddress, Plan, RecordingOptions,
    SipOptions, Transport,
};
use stickytape::call::request::{Ask, DnAsk, DnRequest, MonitorMode, MonitorNextCall, Request};
use stickytape::id::ConnId;
use stickytape::testing::phone::{self, Action, Incoming, Phone};
use stickytape::testing::tones::{self, Voice};

const PROXY: &str = "192.0.2.1:5060";
pub(super) const CUSTOMER: usize = 0;
pub(super) const AGENT: usize = 1;
pub(super) const THIRD: usize = 2;
pub(super) const SUPERVISOR: usize = 3;
/// What each phone says, in Hz: whole periods in 20 ms.
pub(super) const TONES: [f64; 4] = [300.0, 500.0, 800.0, 1_350.0];
pub(super) const LEVEL: f64 = -16.0;
/// Not heard, by the rule.
pub(super) const UNHEARD: f64 = -60.0;
/// The longest silence at a change: 40 ms, and what the threads are late.
pub(super) const LONGEST_GAP: Duration = ms(40 + 3);
/// From a request to the last packet that it does not concern: latency of two threads, a tick, the way to the phone.
const TAKES_EFFECT: Duration = ms(3 + 20 + 3 + 5);

pub(super) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) fn number(phone: usize) -> String {
    format!("200{}", phone + 1)
}

pub(super) fn tone(phone: usize) -> Voice {
    Voice::Tone { hz: TONES[phone], dbfs: LEVEL }
}

/// A tone that is anywhere in its period where two packets meet.
fn odd_tone(phone: usize) -> Voice {
    Voice::Tone { hz: TONES[phone] + 13.0, dbfs: LEVEL }
}

/// Four phones, each with its voice; the customer calls the agent, who answers after 50 ms.
fn call(seed: u64, voices: [Voice; 4]) -> World {
    call_with(seed, voices, |_| {})
}

/// As [`call`], with other options; phones have two lines, and give their audio when they are asked for it.
pub(super) fn call_with(seed: u64, voices: [Voice; 4], change: impl FnOnce(&mut Options)) -> World {
    let dn = |phone: usize| {
        let contact = PeerAddress {
            user: Some("{number}".into()),
            host: Host::Ip(format!("10.0.0.{}", phone + 1).parse().unwrap()),
            port: 5060,
            transport: Some(Transport::Udp),
        };
        let mut dn = Dn::new(Numbers::One(number(phone)), contact);
        (dn.intrusion, dn.role) = (true, if phone == SUPERVISOR { DnRole::Supervisor } else { DnRole::Agent });
        dn
    };
    let mut options = Options {
        listeners: vec![Listener { transport: Transport::Udp, address: addr(PROXY) }],
        sip: SipOptions::default(),
        media: MediaOptions { ports_ahead: 8, ..MediaOptions::default() },
        recording: RecordingOptions { default: DefaultOwner::Both, ..RecordingOptions::default() },
        plan: Plan { dns: (0..voices.len()).map(dn).collect(), ..Plan::default() },
    };
    change(&mut options);
    let mut world = World::new(options, Threads { seed, mixers: 2, ..Threads::default() });
    for (phone, voice) in voices.into_iter().enumerate() {
        let at = |port| addr(&format!("10.0.0.{}:{port}", phone + 1));
        let mut options = phone::Options::new(&number(phone), at(5060), at(4000), addr(PROXY));
        (options.voice, options.lines, options.yields) = (voice, 2, true);
        options.incoming = Incoming::Answer { ring: ms(10), answer: ms(50) };
        world.phone(Phone::new(options));
    }
    world.act(CUSTOMER, Action::call(&number(AGENT)));
    world.run_until(ms(1_000));
    assert!(world.phones[AGENT].is_talking());
    world
}

pub(super) fn conn_id(world: &World) -> ConnId {
    world.product.calls.snapshot()[0].conn_id
}

fn ask(world: &mut World, phone: usize, ask: Ask) {
    let request = Request { conn_id: conn_id(world), this_dn: number(phone), reference: None, ask };
    let ticket = world.ask(request);
    assert!(matches!(world.answer(ticket), Some(Ok(_))), "{:?}", world.answer(ticket));
}

pub(super) fn monitor(world: &mut World, mode: MonitorMode) {
    let agent = number(AGENT);
    let wish = MonitorNextCall { agent, mode: Some(mode), scope: None, all: false, intrusion: true };
    let ask = DnAsk::MonitorNextCall(wish);
    world.ask_dn(DnRequest { this_dn: number(SUPERVISOR), reference: None, ask }).unwrap();
}

fn set(world: &mut World, mode: MonitorMode) {
    let what = match mode {
        MonitorMode::Mute => Ask::SetMuteOn { coach: false },
        MonitorMode::Coach => Ask::SetMuteOn { coach: true },
        MonitorMode::Connect => Ask::SetMuteOff { coach: false },
    };
    ask(world, SUPERVISOR, what);
}

pub(super) fn tapes(world: &World) -> Vec<Tape> {
    let tapes = world.tapes();
    assert!(!tapes.is_empty());
    for tape in &tapes {
        assert_eq!(tape.wrong, Vec::<String>::new());
    }
    tapes
}

/// The modes that a supervisor goes through, and from when each is in force; all six changes, each before and after.
fn modes() -> Vec<(Duration, MonitorMode)> {
    use MonitorMode::{Coach, Connect, Mute};
    let order = [Mute, Coach, Mute, Connect, Coach, Connect, Mute];
    // The instants fall anywhere between packets and ticks.
    order.into_iter().enumerate().map(|(n, mode)| (ms(2_000 + n as u64 * 1_013), mode)).collect()
}

/// A call under a supervisor that goes through all modes, and the times in which the customer must not hear it.
fn through_all_modes(seed: u64, voices: [Voice; 4], conference: bool) -> (World, Vec<(Duration, Duration)>) {
    let mut world = call(seed, voices);
    if conference {
        ask(&mut world, AGENT, Ask::SingleStepConference { to: number(THIRD), hold: false });
    }
    world.run_until(ms(1_500));
    let modes = modes();
    monitor(&mut world, modes[0].1);
    let mut secret = vec![(Duration::ZERO, modes[0].0)];
    for (n, (at, mode)) in modes.iter().enumerate() {
        world.run_until(*at);
        if n > 0 {
            set(&mut world, *mode);
        }
        let until = modes.get(n + 1).map_or(*at + ms(1_013), |next| next.0);
        if *mode != MonitorMode::Connect {
            let from = *at + if n == 0 || modes[n - 1].1 != MonitorMode::Connect { ms(0) } else { TAKES_EFFECT };
            match secret.last_mut().filter(|(_, end)| *end == from) {
                Some((_, end)) => *end = until,
                None => secret.push((from, until)),
            }
        }
    }
    let end = modes[modes.len() - 1].0 + ms(1_013);
    world.run_until(end);
    (0..4).for_each(|phone| world.act(phone, Action::HangUp));
    world.run_until(end + Duration::from_secs(5));
    (world, secret)
}

/// What a phone received within a time: when after the start, and what it says.
fn received(world: &World, phone: usize, (from, to): (Duration, Duration)) -> Vec<(Duration, Vec<i16>)> {
    let packets = world.phones[phone].heard().between(world.start + from, world.start + to);
    packets.iter().map(|packet| (packet.at - world.start, packet.samples.clone())).collect()
}

/// What two runs differ in, by its level in dBFS in every 20 ms; the loudest of them.
fn difference(a: &[i16], b: &[i16]) -> f64 {
    assert_eq!(a.len(), b.len());
    let difference: Vec<i16> = a.iter().zip(b).map(|(a, b)| a.wrapping_sub(*b)).collect();
    difference.chunks(160).map(tones::level).fold(tones::SILENCE_DBFS, f64::max)
}

/// The same call twice: in one the supervisor speaks, in the other it is silent. Everything else is the same.
fn twice(conference: bool) -> [(World, Vec<(Duration, Duration)>); 2] {
    let voices = |supervisor| [tone(CUSTOMER), tone(AGENT), tone(THIRD), supervisor];
    [tone(SUPERVISOR), Voice::Silence].map(|voice| through_all_modes(7, voices(voice), conference))
}

#[test]
fn parties_receive_the_same_whether_a_supervisor_that_they_must_not_hear_speaks_or_not() {
    for conference in [false, true] {
        let [(loud, secret), (quiet, _)] = twice(conference);
        let others = if conference { vec![CUSTOMER, THIRD] } else { vec![CUSTOMER] };
        for phone in others {
            for time in &secret {
                let case = format!("conference {conference}: phone {phone} within {time:?}");
                let (a, b) = (received(&loud, phone, *time), received(&quiet, phone, *time));
                assert!(a.len() > 40, "{case}: {} packets", a.len());
                let at = |packets: &[(Duration, Vec<i16>)]| packets.iter().map(|packet| packet.0).collect::<Vec<_>>();
                assert_eq!(at(&a), at(&b), "{case}");
                let samples =
                    |packets: Vec<(Duration, Vec<i16>)>| packets.into_iter().flat_map(|p| p.1).collect::<Vec<_>>();
                let level = difference(&samples(a), &samples(b));
                assert!(level <= UNHEARD, "{case}: the supervisor's voice makes a difference of {level:.1} dBFS");
                let heard = loud.phones[phone].heard();
                let level = heard.highest_level(TONES[SUPERVISOR], loud.start + time.0, loud.start + time.1);
                assert!(level <= UNHEARD, "{case}: the supervisor's tone has {level:.1} dBFS in 100 ms");
            }
        }
        // The proof that the measure sees a supervisor who may be heard.
        let all = (ms(2_000), ms(8_000));
        let (a, b) = (received(&loud, CUSTOMER, all), received(&quiet, CUSTOMER, all));
        assert!(a != b, "it was connected meanwhile");
    }
}

#[test]
fn a_supervisor_s_voice_never_enters_the_mixed_file_and_is_in_its_own_throughout() {
    for conference in [false, true] {
        let [(loud, _), (quiet, _)] = twice(conference);
        for (loud, quiet) in tapes(&loud).iter().zip(tapes(&quiet)) {
            let file = |tape: &Tape, name| tape.channel(name, 0).unwrap();
            let level = difference(&file(loud, "mixed.wav"), &file(&quiet, "mixed.wav"));
            assert!(level <= UNHEARD, "conference {conference}: {level:.1} dBFS");
            let own = file(loud, "supervisor-1.wav");
            assert_eq!(own.len(), file(loud, "mixed.wav").len());
            let (joined, left) = (own.len() - 8 * 7_000, own.len());
            let windows = tones::scan(&own[joined..left], 8_000, &[TONES[SUPERVISOR]], ms(20));
            let quietest = windows.iter().map(|window| window.levels[0]).fold(0.0, f64::min);
            assert!((quietest - LEVEL).abs() < 1.0, "conference {conference}: {quietest:.1} dBFS at the quietest");
        }
    }
}

/// The largest step from one sample to the next that a phone is played, packets without their gaps.
fn largest_step(world: &World, phone: usize) -> i32 {
    let packets = &world.phones[phone].heard().packets;
    let samples: Vec<i32> = packets.iter().flat_map(|packet| &packet.samples).map(|s| i32::from(*s)).collect();
    samples.windows(2).map(|pair| (pair[1] - pair[0]).abs()).max().unwrap_or(0)
}

/// A phone's stream in which nothing is missing, doubled or broken, and no change is a click: at a change one side fades,
/// so a step is no larger than from silence to the tones' peak, and the step that they make by themselves.
#[track_caller]
fn assert_smooth(world: &World, phone: usize, hears: &[usize], case: &str) {
    let report = world.phones[phone].stream_report(0);
    let case = format!("{case}: phone {phone}");
    assert!(report.longest_gap <= LONGEST_GAP, "{case}: nothing for {:?}", report.longest_gap);
    assert!(report.is_unbroken() && report.duplicates + report.reordered == 0, "{case}: {report:?}");
    let off = surplus(world, phone);
    assert!(off.abs() <= 40.0, "{case}: timestamps run off by {off:.0} ms");
    let peak = 32_768.0 * 10_f64.powf(LEVEL / 20.0) * hears.len() as f64;
    let slopes: f64 =
        hears.iter().map(|other| peak / hears.len() as f64 * TAU * (TONES[*other] + 13.0) / 8_000.0).sum();
    let step = largest_step(world, phone);
    assert!(f64::from(step) <= peak + slopes, "{case}: a step of {step}, {peak:.0} + {slopes:.0} allowed");
    let invites = world.phones[phone].requests().iter().filter(|r| r.method.as_str() == "INVITE").count();
    assert!(invites <= 1, "{case}: it got {invites} INVITEs");
}

#[test]
fn from_the_relay_to_the_mix_and_back_nobody_s_stream_breaks_or_clicks() {
    for seed in 0..8 {
        let mut world = call(seed, [CUSTOMER, AGENT, THIRD, SUPERVISOR].map(odd_tone));
        // The instants fall anywhere between packets and ticks.
        let at = |n: u64| ms(1_000 + 600 * n + 7 * seed);
        for n in 0..3 {
            world.run_until(at(2 * n));
            ask(&mut world, AGENT, Ask::SingleStepConference { to: number(THIRD), hold: false });
            world.run_until(at(2 * n + 1));
            world.act(THIRD, Action::HangUp);
        }
        world.run_until(at(6));
        world.act(CUSTOMER, Action::HangUp);
        world.run_until(at(6) + ms(5_000));
        let case = format!("seed {seed}");
        assert_smooth(&world, CUSTOMER, &[AGENT], &case);
        assert_smooth(&world, AGENT, &[CUSTOMER], &case);
        tapes(&world);
    }
}

#[test]
fn through_all_modes_of_a_supervisor_nobody_s_stream_breaks_or_clicks() {
    for seed in 0..4 {
        let voices = [CUSTOMER, AGENT, THIRD, SUPERVISOR].map(odd_tone);
        let (world, _) = through_all_modes(seed, voices, false);
        let case = format!("seed {seed}");
        assert_smooth(&world, CUSTOMER, &[AGENT, SUPERVISOR], &case);
        assert_smooth(&world, AGENT, &[CUSTOMER, SUPERVISOR], &case);
        assert_smooth(&world, SUPERVISOR, &[CUSTOMER, AGENT], &case);
    }
}

/// Where the bursts of a phone begin in a file, in samples after t0.
fn begins(tape: &Tape, name: &str, phone: usize) -> Vec<i64> {
    let bursts = tones::bursts(&tape.channel(name, 0).unwrap(), 8_000, TONES[phone], -30.0);
    bursts.iter().map(|burst| burst.start as i64).collect()
}

#[test]
fn what_is_said_at_one_time_stands_at_one_place_in_all_files() {
    let bursts = |phone: usize| Voice::Bursts { hz: TONES[phone], dbfs: LEVEL, on: ms(200), off: ms(300) };
    let mut world = call(3, [bursts(CUSTOMER), Voice::Silence, Voice::Silence, bursts(SUPERVISOR)]);
    monitor(&mut world, MonitorMode::Mute);
    world.run_until(ms(4_000));
    set(&mut world, MonitorMode::Connect);
    world.run_until(ms(7_000));
    world.act(CUSTOMER, Action::HangUp);
    world.run_until(ms(12_000));
    let tapes = tapes(&world);
    assert_eq!(tapes.len(), 2);
    let [one, two] = &tapes[..] else { panic!("two sessions") };
    assert_eq!(one.channel("supervisor-1.wav", 0), two.channel("supervisor-1.wav", 0), "one voice, one time");
    for tape in &tapes {
        let (mixed, own) = (begins(tape, "mixed.wav", CUSTOMER), begins(tape, "supervisor-1.wav", SUPERVISOR));
        assert!(mixed.len() >= 10 && own.len() >= 9, "{} and {} bursts", mixed.len(), own.len());
        // Between what both said: as it was when they said it, to the sample of each one's clock.
        let said = |phone: usize| world.phones[phone].spoken()[0].start;
        let apart = said(SUPERVISOR).saturating_duration_since(said(CUSTOMER)).as_secs_f64() * 8_000.0;
        let found = (own[1] - mixed[1]).rem_euclid(4_000);
        let expected = (apart.round() as i64).rem_euclid(4_000);
        let off = (found - expected + 2_000).rem_euclid(4_000) - 2_000;
        assert!(off.abs() <= 16, "{off} samples apart from how it was said");
    }
}

/// By how many ms what a phone was sent lasts longer than the time in which it was sent.
fn surplus(world: &World, phone: usize) -> f64 {
    let packets = &world.phones[phone].heard().packets;
    let (first, last) = (&packets[0], &packets[packets.len() - 1]);
    let ticks = f64::from(last.timestamp.wrapping_sub(first.timestamp)) / 8_000.0;
    1_000.0 * (ticks - (last.at - first.at).as_secs_f64())
}

#[test]
fn however_often_a_party_changes_between_relay_and_mix_its_stream_stays_with_the_time() {
    for seed in 0..4 {
        let mut world = call(seed, [tone(CUSTOMER), tone(AGENT), tone(THIRD), tone(SUPERVISOR)]);
        for n in 0..60 {
            world.run_until(ms(1_000 + 233 * n + 7 * seed));
            let muted = n % 2 == 0;
            let what = if muted { Ask::SetMuteOn { coach: false } } else { Ask::SetMuteOff { coach: false } };
            ask(&mut world, AGENT, what);
            for phone in [CUSTOMER, AGENT] {
                let off = surplus(&world, phone);
                assert!(off.abs() <= 40.0, "seed {seed}: {off} ms after {n} changes at phone {phone}");
            }
        }
        for phone in [CUSTOMER, AGENT] {
            let gap = world.phones[phone].stream_report(0).longest_gap;
            assert!(gap <= LONGEST_GAP, "seed {seed}: nothing for {gap:?} at phone {phone}");
        }
    }
}
