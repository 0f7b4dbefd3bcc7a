//! Everybody hears whom the rule says, and nobody else: each party has a tone of its own.

use std::time::Duration;

use stickytape::bridge::command::mix::{Hearing, MixCommand, Mode, RoomDigits};
use stickytape::bridge::hearing;
use stickytape::codec::Codec;
use stickytape::id::LegId;
use stickytape::testing::tones::tone_level;

use crate::world::{Party, World, l16};

const SECOND: Duration = Duration::from_secs(1);
/// What is there is louder than this, what is not is softer than that, in dBFS.
const THERE: f64 = -20.0;
const GONE: f64 = -60.0;

fn hz(leg: u64) -> f64 {
    // No two have harmonics in common: those of G.711's own noise do not look like somebody's voice.
    [307.0, 523.0, 743.0, 977.0, 1_193.0][leg as usize % 5]
}

/// Asserts that each of `legs` hears exactly those that the rule lets it hear.
fn assert_rule(world: &World, legs: &[(u64, Hearing)], case: &str) {
    for (listener, hearing) in legs {
        let samples = world.recent(*listener, SECOND / 2);
        let rate = world.party(*listener).codec.clock_rate;
        for (speaker, speaks) in legs {
            let level = tone_level(&samples, rate, hz(*speaker));
            let hears = hearing::hears((LegId(*listener), *hearing), (LegId(*speaker), *speaks));
            assert!(
                if hears { level > THERE } else { level < GONE },
                "{case}: {listener} hears {speaker} at {level:.1} dBFS, should: {hears}"
            );
        }
    }
}

#[test]
fn each_hears_the_others_and_never_himself_in_any_mixture_of_codecs() {
    for rate in [8_000, 16_000] {
        let mut world = World::new(rate, RoomDigits::Pass);
        let codecs = [Codec::pcmu(), Codec::pcma(), l16(8_000), l16(16_000), Codec::pcmu()];
        for (n, codec) in codecs.into_iter().enumerate() {
            world.join(Party::speaking(n as u64, codec, hz(n as u64)), Hearing::MEMBER);
        }
        world.run(2 * SECOND);
        let legs: Vec<_> = (0..5).map(|leg| (leg, Hearing::MEMBER)).collect();
        assert_rule(&world, &legs, &format!("at {rate} Hz"));
    }
}

#[test]
fn supervisors_are_heard_by_whom_their_mode_says_and_modes_change_at_any_moment() {
    let mut world = World::new(8_000, RoomDigits::Pass);
    // 0: customer, 1: agent, 2: another member, 3 and 4: supervisors of the agent.
    let mut legs: Vec<(u64, Hearing)> = (0..3).map(|leg| (leg, Hearing::MEMBER)).collect();
    legs.extend((3..5).map(|leg| (leg, Hearing::supervisor(Mode::Mute, LegId(1)))));
    for (leg, hearing) in &legs {
        world.join(Party::speaking(*leg, Codec::pcmu(), hz(*leg)), *hearing);
    }
    let modes = [Mode::Mute, Mode::Coach, Mode::Connect];
    for (one, other) in modes.iter().flat_map(|one| modes.iter().map(move |other| (*one, *other))) {
        for (leg, mode) in [(3, one), (4, other)] {
            let hearing = Hearing::supervisor(mode, LegId(1));
            legs[leg as usize].1 = hearing;
            world.command(MixCommand::Hearing { leg: LegId(leg), hearing });
        }
        world.run(SECOND);
        assert_rule(&world, &legs, &format!("{one:?} and {other:?}"));
    }
}

#[test]
fn who_is_muted_is_not_heard_and_who_is_disconnected_hears_nothing_until_it_is_taken_back() {
    let mut world = World::of((0..3).map(|leg| Party::speaking(leg, Codec::pcmu(), hz(leg))).collect());
    let mut legs: Vec<(u64, Hearing)> = (0..3).map(|leg| (leg, Hearing::MEMBER)).collect();
    for (muted, deaf) in [(true, false), (false, true), (true, true), (false, false)] {
        let hearing = Hearing { muted, deaf, ..Hearing::MEMBER };
        legs[0].1 = hearing;
        world.command(MixCommand::Hearing { leg: LegId(0), hearing });
        world.run(SECOND);
        assert_rule(&world, &legs, &format!("muted {muted}, deaf {deaf}"));
        let packets = world.party(0).heard.len();
        world.run(SECOND);
        assert_eq!(world.party(0).heard.len() - packets, 50, "packets go on");
    }
}

#[test]
fn one_who_joins_late_is_heard_at_once_and_one_who_leaves_is_gone_at_once() {
    let mut world = World::of((0..2).map(|leg| Party::speaking(leg, Codec::pcmu(), hz(leg))).collect());
    world.run(SECOND);
    world.join(Party::speaking(2, Codec::pcma(), hz(2)), Hearing::MEMBER);
    world.run(Duration::from_millis(100));
    assert!(tone_level(&world.recent(0, Duration::from_millis(40)), 8_000, hz(2)) > THERE);
    assert!(tone_level(&world.recent(2, Duration::from_millis(40)), 8_000, hz(1)) > THERE);
    world.command(MixCommand::Leave { leg: LegId(1) });
    world.run(Duration::from_millis(200));
    assert_eq!(world.left, [LegId(1)]);
    assert!(tone_level(&world.recent(0, Duration::from_millis(100)), 8_000, hz(1)) < GONE);
    let heard = &world.party(1).heard;
    assert!(heard.last().unwrap().last && heard.iter().filter(|heard| heard.last).count() == 1);
    let last = &heard.last().unwrap().samples;
    assert!(last[..100].iter().any(|s| s.abs() > 3_000) && last[159].abs() < 200, "it fades out");
    let first = &world.party(2).heard[0].samples;
    assert!(first[0].abs() < 200, "it fades in");
}

#[test]
fn one_who_speaks_already_and_begins_to_listen_hears_the_others_fade_in() {
    let mut world = World::new(8_000, RoomDigits::Pass);
    for leg in 0..2 {
        world.join_as(Party::new(leg, l16(8_000), Box::new(|_| 5_000.0)), Hearing::MEMBER, false);
    }
    world.run(SECOND);
    world.command(MixCommand::Listen { leg: LegId(0), listens: true });
    world.run(SECOND);
    let heard = &world.party(0).heard;
    assert!(heard[0].samples[0].abs() < 200, "it fades in");
    assert!(heard[1].samples.iter().all(|s| *s > 4_900));
}

#[test]
fn members_who_only_mute_supervisors_overhear_get_no_packets_of_the_mixer() {
    let mut world = World::new(8_000, RoomDigits::Pass);
    for leg in 0..2 {
        world.join_as(Party::speaking(leg, Codec::pcmu(), hz(leg)), Hearing::MEMBER, false);
    }
    world.join(Party::speaking(2, Codec::pcmu(), hz(2)), Hearing::supervisor(Mode::Mute, LegId(1)));
    world.run(SECOND);
    assert!(world.party(0).heard.is_empty() && world.party(1).heard.is_empty());
    let samples = world.recent(2, SECOND / 2);
    let levels = [0, 1, 2].map(|leg| tone_level(&samples, 8_000, hz(leg)));
    assert!(levels[0] > THERE && levels[1] > THERE && levels[2] < GONE, "{levels:?}");
    // The supervisor speaks up: members are mixed from now on.
    for leg in 0..2 {
        world.command(MixCommand::Listen { leg: LegId(leg), listens: true });
    }
    let hearing = Hearing::supervisor(Mode::Connect, LegId(1));
    world.command(MixCommand::Hearing { leg: LegId(2), hearing });
    world.run(SECOND);
    assert_rule(&world, &[(0, Hearing::MEMBER), (1, Hearing::MEMBER), (2, hearing)], "connected");
    world.command(MixCommand::Listen { leg: LegId(0), listens: false });
    world.run(SECOND);
    assert!(world.party(0).heard.last().unwrap().last && world.left.is_empty());
    assert!(tone_level(&world.recent(1, SECOND / 2), 8_000, hz(0)) > THERE, "it is still heard");
}

#[test]
fn two_hundred_and_fifty_six_hear_each_other_and_one_more_is_refused() {
    let mut world = World::new(8_000, RoomDigits::Pass);
    for leg in 0..257_u64 {
        // Three speak, the others are silent.
        let party = match leg {
            0..3 => Party::speaking(leg, Codec::pcmu(), hz(leg)),
            _ => Party::new(leg, if leg % 2 == 0 { Codec::pcmu() } else { Codec::pcma() }, Box::new(|_| 0.0)),
        };
        world.join(party, Hearing::MEMBER);
    }
    let refused = world.notices.iter().filter(|notice| format!("{notice:?}").contains("Full")).count();
    assert_eq!((world.mixer.members(), refused), (256, 1));
    world.run(SECOND / 2);
    for leg in [0, 1, 2, 3, 100, 255] {
        let samples = world.recent(leg, SECOND / 4);
        for speaker in 0..3 {
            let level = tone_level(&samples, 8_000, hz(speaker));
            assert!(if leg == speaker { level < GONE } else { level > THERE }, "{leg} hears {speaker}: {level:.1}");
        }
    }
    assert!(world.party(256).heard.is_empty());
}
