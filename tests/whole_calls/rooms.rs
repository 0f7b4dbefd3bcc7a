//! A dial-in room through the whole program in virtual time, with sound: who hears whom, and what is in which file, second
//! by second.

use std::time::Duration;

use crate::whole::{Tape, Threads, World, addr};
use stickytape::call::options::{
    Conference, Dn, Host, Listener, MediaOptions, Numbers, Options, PeerAddress, Plan, RecordingOptions, SipOptions,
    Transport,
};
use stickytape::record::mark::{Layout, Side, StopCause};
use stickytape::testing::phone::{self, Action, Phone};
use stickytape::testing::tones::{self, Voice};

const PROXY: &str = "192.0.2.1:5060";
/// What 2001, 2002 and 2003 say, in Hz.
const TONES: [f64; 3] = [440.0, 620.0, 850.0];

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Three phones and the room 800.
fn world(seed: u64) -> World {
    let dn = |n: usize| {
        let contact = PeerAddress {
            user: Some("{number}".into()),
            host: Host::Ip(format!("10.0.0.{n}").parse().unwrap()),
            port: 5060,
            transport: Some(Transport::Udp),
        };
        // 2002 has a recording of its own.
        Dn { record: (n == 2).then_some(true), ..Dn::new(Numbers::One(format!("200{n}")), contact) }
    };
    let options = Options {
        listeners: vec![Listener { transport: Transport::Udp, address: addr(PROXY) }],
        sip: SipOptions::default(),
        media: MediaOptions { ports_ahead: 8, ..MediaOptions::default() },
        recording: RecordingOptions { layout: Layout::Tracks, ..RecordingOptions::default() },
        plan: Plan {
            dns: (1..=3).map(dn).collect(),
            conferences: vec![Conference::new("800").into()],
            ..Plan::default()
        },
    };
    let mut world = World::new(options, Threads { seed, ..Threads::default() });
    for (n, hz) in (1..=3).zip(TONES) {
        let at = |port| addr(&format!("10.0.0.{n}:{port}"));
        let mut options = phone::Options::new(&format!("200{n}"), at(5060), at(4000), addr(PROXY));
        (options.voice, options.seed) = (Voice::Tone { hz, dbfs: -15.0 }, n);
        world.phone(Phone::new(options));
    }
    world
}

/// Who is heard in each second, from 200 ms after its beginning to 100 ms before its end: `12`, `.` for nobody.
fn seconds(samples: &[i16]) -> String {
    let heard = |second: &[i16]| {
        let inside = &second[1_600..second.len().saturating_sub(800).max(1_600)];
        let level = |hz: &f64| tones::tone_level(inside, 8_000, *hz);
        let who: String = TONES.iter().zip("123".chars()).filter(|(hz, _)| level(hz) > -30.0).map(|(_, c)| c).collect();
        let between = TONES.iter().find(|hz| (-60.0..=-30.0).contains(&level(hz)));
        assert_eq!(between, None, "a tone is there or it is not: {} dBFS", between.map_or(0.0, level));
        if who.is_empty() { ".".to_owned() } else { who }
    };
    samples.chunks_exact(8_000).map(heard).collect::<Vec<_>>().join(" ")
}

fn file(tape: &Tape, name: &str) -> Vec<i16> {
    tape.channel(name, 0).unwrap_or_else(|| panic!("no {name} in {:?}", tape.recording.media_files))
}

#[test]
fn a_room_is_heard_and_recorded_as_its_members_come_and_go() {
    for seed in 1..=3 {
        let mut world = world(seed);
        for (at, phone, action) in [
            (0, 0, Action::call("800")),
            (2_000, 1, Action::call("800")),
            (4_000, 2, Action::call("800")),
            (7_000, 1, Action::HangUp),
            (9_000, 0, Action::HangUp),
        ] {
            world.run_until(ms(at));
            world.act(phone, action);
        }
        world.run_until(ms(60_000));
        assert!(world.phones.iter().all(Phone::is_idle), "the last two end the room");
        assert!(world.product.is_idle(), "{}", world.product.left());
        let heard: Vec<String> =
            world.phones.iter().map(|phone| seconds(&phone.heard_on(0).samples(world.start, 8_000))).collect();
        assert!(heard[0].starts_with(". . 2 2 23 23 23 3 3"), "{heard:?}");
        assert!(heard[1].starts_with(". . 1 1 13 13 13"), "{heard:?}");
        assert!(heard[2].starts_with(". . . . 12 12 12 1 1"), "{heard:?}");

        let tapes = world.tapes();
        assert_eq!(tapes.len(), 2);
        for tape in &tapes {
            assert_eq!(tape.wrong, Vec::<String>::new());
        }
        let room = tapes.iter().find(|tape| tape.recording.recording_session.side == Side::Room).unwrap();
        let own = tapes.iter().find(|tape| tape.recording.recording_session.side != Side::Room).unwrap();
        assert_eq!(room.recording.recording_session.stop_cause, Some(StopCause::Released));
        assert_eq!(own.recording.recording_session.stop_cause, Some(StopCause::OwnerLeft));
        assert_eq!(own.recording.recording_session.owner_dn.as_deref(), Some("2002"));
        // INVITE and BYE are 5 ms on their way: both begin and end by the same.
        assert_eq!((file(room, "mixed.wav").len(), file(own, "mixed.wav").len()), (7 * 8_000, 5 * 8_000));
        assert_eq!(seconds(&file(room, "mixed.wav")), "12 12 123 123 123 13 13");
        assert_eq!(seconds(&file(own, "mixed.wav")), "12 12 123 123 123");
        for (party, said) in [("1", "1 1 1 1 1 1 1"), ("2", "2 2 2 2 2 . ."), ("3", ". . 3 3 3 3 3")] {
            assert_eq!(seconds(&file(room, &format!("party-{party}.wav"))), said);
        }
    }
}
