//! Audio besides what parties say, through the whole program in virtual time: beeps and music are heard by whom they are
//! for, and are in recordings exactly where spec/recording.md §2 wants them; transcoded speech is recorded as it was said.

use std::time::Duration;

use crate::whole::{Tape, Threads, World, addr};
use stickytape::call::options::{
    Beep, BeepTo, DefaultOwner, Dn, Host, Listener, MediaOptions, Numbers, Options, PeerAddress, Plan,
    RecordingOptions, SipOptions, Transport,
};
use stickytape::codec::Codec;
use stickytape::record::mark::{Layout, Role};
use stickytape::testing::phone::{self, Action, HoldForm, Incoming, Leave, Phone, Refer};
use stickytape::testing::tones::{Voice, tone_level};

const PROXY: &str = "192.0.2.1:5060";
/// What the phones 2001, 2002, 2003 say.
const SAID: [f64; 3] = [500.0, 800.0, 1_000.0];
const MUSIC: f64 = 2_300.0;
const BEEP: f64 = 1_400.0;
const RINGBACK: f64 = 425.0;
/// Present above, absent below.
const AUDIBLE: f64 = -32.0;
const ABSENT: f64 = -45.0;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn tone(hz: f64) -> Voice {
    Voice::Tone { hz, dbfs: -15.0 }
}

/// Three phones; the first has called the second, which answers after 200 ms.
fn talking(recording: RecordingOptions, phones: impl Fn(usize, &mut phone::Options)) -> World {
    let contact = |n: usize| PeerAddress {
        user: Some("{number}".into()),
        host: Host::Ip(format!("10.0.0.{n}").parse().unwrap()),
        port: 5060,
        transport: Some(Transport::Udp),
    };
    let options = Options {
        listeners: vec![Listener { transport: Transport::Udp, address: addr(PROXY) }],
        sip: SipOptions::default(),
        media: MediaOptions { ports_ahead: 8, ..MediaOptions::default() },
        recording,
        plan: Plan {
            dns: (1..=3).map(|n| Dn::new(Numbers::One(format!("200{n}")), contact(n))).collect(),
            ..Plan::default()
        },
    };
    let mut world = World::new(options, Threads::default());
    for n in 1..=3 {
        let at = |port| addr(&format!("10.0.0.{n}:{port}"));
        let mut options = phone::Options::new(&format!("200{n}"), at(5060), at(4000), addr(PROXY));
        options.voice = tone(SAID[n - 1]);
        phones(n, &mut options);
        world.phone(Phone::new(options));
    }
    world.act(0, Action::call("2002"));
    world
}

fn finish(world: &mut World, at: Duration) -> Vec<Tape> {
    world.run_until(at);
    world.act(0, Action::HangUp);
    world.run_until(at + Duration::from_secs(40));
    assert!(world.product.is_idle());
    assert_eq!(world.product.failures, Vec::<String>::new());
    let tapes = world.tapes();
    for tape in &tapes {
        assert_eq!(tape.wrong, Vec::<String>::new(), "recordings verify");
    }
    tapes
}

/// The owner's tape among those of both parties.
fn owned<'a>(tapes: &'a [Tape], dn: &str) -> &'a Tape {
    tapes.iter().find(|t| t.recording.recording_session.owner_dn.as_deref() == Some(dn)).unwrap()
}

/// The level of a tone in a channel of `mixed.wav`, by the time since the call was placed (the answer comes 200 ms and
/// a few paths later).
fn recorded(tape: &Tape, channel: usize, hz: f64, from: u64, to: u64) -> f64 {
    let samples = tape.channel("mixed.wav", channel).unwrap();
    let at = |ms: u64| ((ms - 210) * 8) as usize;
    tone_level(&samples[at(from)..at(to)], 8_000, hz)
}

fn heard(world: &World, phone: usize, hz: f64, from: u64, to: u64) -> f64 {
    world.phones[phone].heard().highest_level(hz, world.start + ms(from), world.start + ms(to))
}

#[test]
fn a_beep_is_heard_again_and_again_and_is_never_in_the_files() {
    let beep = Some(Beep { every: Duration::from_secs(2), to: BeepTo::All });
    let mut world = talking(RecordingOptions { beep, ..RecordingOptions::default() }, |_, _| {});
    let tapes = finish(&mut world, ms(7_000));
    for phone in [0, 1] {
        for from in [200, 2_000, 4_000] {
            assert!(heard(&world, phone, BEEP, from, from + 1_500) > AUDIBLE, "{phone} at {from}");
        }
    }
    let samples = tapes[0].channel("mixed.wav", 0).unwrap();
    for window in samples.chunks_exact(800) {
        assert!(tone_level(window, 8_000, BEEP) < ABSENT);
    }
    assert!(recorded(&tapes[0], 0, SAID[0], 1_000, 6_000) > AUDIBLE);
}

#[test]
fn music_of_a_phone_that_holds_is_recorded_for_the_owner_that_hears_it_when_the_operator_wants_it() {
    for hold_music in [false, true] {
        let options = RecordingOptions { hold_music, default: DefaultOwner::Both, ..RecordingOptions::default() };
        let mut world = talking(options, |_, o| o.music = Some(tone(MUSIC)));
        world.run_until(ms(2_000));
        world.act(1, Action::Hold(HoldForm::SendOnly));
        world.run_until(ms(4_000));
        world.act(1, Action::Retrieve);
        let tapes = finish(&mut world, ms(6_000));
        assert!(heard(&world, 0, MUSIC, 2_500, 3_900) > AUDIBLE, "it is heard either way");
        let (hears, holds) = (owned(&tapes, "2001"), owned(&tapes, "2002"));
        assert_eq!(recorded(hears, 0, MUSIC, 2_500, 3_800) > AUDIBLE, hold_music);
        assert!(recorded(holds, 0, MUSIC, 2_500, 3_800) < ABSENT, "who plays it does not hear it");
        for (tape, expected) in [(hears, usize::from(hold_music)), (holds, 0)] {
            let systems = tape.recording.participants.iter().filter(|p| p.role == Role::System).count();
            assert_eq!(systems, expected);
            for (from, to) in [(500, 1_900), (4_500, 5_800)] {
                assert!(recorded(tape, 0, MUSIC, from, to) < ABSENT);
                assert!(recorded(tape, 0, SAID[1], from, to) > AUDIBLE, "its own voice is its own again");
            }
            assert!(recorded(tape, 0, SAID[0], 2_500, 3_800) < ABSENT, "a held connection is silent");
        }
    }
}

#[test]
fn ringback_is_recorded_for_the_party_that_waits_for_a_transfer_target() {
    for hold_music in [false, true] {
        let options = RecordingOptions { hold_music, ..RecordingOptions::default() };
        let mut world = talking(options, |n, o| {
            if n == 3 {
                o.incoming = Incoming::Answer { ring: Duration::ZERO, answer: ms(2_000) };
            }
        });
        world.run_until(ms(2_000));
        world.act(1, Action::Refer(Refer { leave: Leave::WhenDone, ..Refer::to("2003") }));
        let tapes = finish(&mut world, ms(7_000));
        assert!(heard(&world, 0, RINGBACK, 2_100, 2_900) > AUDIBLE);
        assert_eq!(recorded(&tapes[0], 0, RINGBACK, 2_200, 2_800) > AUDIBLE, hold_music);
        assert!(recorded(&tapes[0], 0, SAID[2], 5_000, 6_800) > AUDIBLE);
        assert!(recorded(&tapes[0], 0, RINGBACK, 4_500, 6_800) < ABSENT);
    }
}

#[test]
fn transcoded_speech_is_heard_and_recorded_on_its_channel() {
    let options = RecordingOptions { layout: Layout::Stereo, ..RecordingOptions::default() };
    let mut world = talking(options, |n, o| {
        o.codecs = if n == 3 { vec![Codec::new("L16", 8_000, 1)] } else { vec![Codec::pcmu()] };
    });
    world.run_until(ms(2_000));
    world.act(1, Action::Refer(Refer { leave: Leave::WhenDone, ..Refer::to("2003") }));
    let tapes = finish(&mut world, ms(6_000));
    assert!(heard(&world, 0, SAID[2], 3_000, 5_800) > AUDIBLE);
    assert!(heard(&world, 2, SAID[0], 3_000, 5_800) > AUDIBLE);
    let [tape] = tapes.as_slice() else { panic!("{} recordings", tapes.len()) };
    for (channel, hz, from, to, is_there) in [
        (0, SAID[0], 500, 1_900, true),
        (0, SAID[0], 3_000, 5_800, true),
        (0, SAID[2], 3_000, 5_800, false),
        (1, SAID[1], 500, 1_900, true),
        (1, SAID[2], 3_000, 5_800, true),
        (1, SAID[0], 500, 5_800, false),
    ] {
        let level = recorded(tape, channel, hz, from, to);
        assert!(if is_there { level > AUDIBLE } else { level < ABSENT }, "{hz} Hz on channel {channel}: {level} dBFS");
    }
}
