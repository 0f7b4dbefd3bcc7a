//! Rooms: levels, digits, announcements, lateness, limits.

use std::time::Duration;

use stickytape::bridge::command::mix::{Announcement, Hearing, Join, MixCommand, MixNotice, Mode, RoomDigits};
use stickytape::codec::{Codec, Payload};
use stickytape::id::{LegId, RoomId, WorkerId};
use stickytape::testing::tones::{level, tone_level};

use crate::world::{Party, ROOM, World, l16, tone};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn loud_voices_together_are_limited_and_never_clipped() {
    let mut parties: Vec<Party> =
        (0..6).map(|leg| Party::new(leg, l16(8_000), tone(300.0 + 170.0 * leg as f64, 30_000.0, 8_000))).collect();
    parties.push(Party::new(6, l16(8_000), Box::new(|_| 0.0)));
    let mut world = World::of(parties);
    world.run(3 * SECOND);
    let heard = world.recent(6, 2 * SECOND);
    assert!(heard.iter().all(|s| s.unsigned_abs() <= 32_767));
    let flat = heard.windows(3).filter(|w| w[0] == w[1] && w[1] == w[2] && w[0].abs() > 30_000).count();
    assert_eq!(flat, 0, "clipped");
    assert!(level(&heard) > -12.0, "{:.1} dBFS", level(&heard));
}

#[test]
fn a_lone_voice_is_heard_bit_for_bit() {
    let mut world = World::of(vec![
        Party::new(0, l16(8_000), tone(400.0, 32_000.0, 8_000)),
        Party::new(1, l16(8_000), Box::new(|_| 0.0)),
    ]);
    world.run(SECOND);
    let heard = world.recent(1, SECOND / 2);
    let said: Vec<i16> = (0..16_000).map(|i| (world.party(0).said)(i).round() as i16).collect();
    assert!(said.windows(heard.len()).any(|window| window == heard));
}

fn event(end: bool, ticks: u16) -> [u8; 4] {
    let [high, low] = ticks.to_be_bytes();
    [5, if end { 0x8a } else { 0x0a }, high, low]
}

#[test]
fn digits_reach_whom_the_presser_is_heard_by_once_and_are_no_sound() {
    let mut world = World::new(8_000, RoomDigits::Both);
    for leg in 0..3 {
        world.join(Party::new(leg, Codec::pcmu(), Box::new(|_| 0.0)), Hearing::MEMBER);
    }
    world.join(Party::new(3, Codec::pcmu(), Box::new(|_| 0.0)), Hearing::supervisor(Mode::Coach, LegId(1)));
    world.run(SECOND);
    for (presser, hearers) in [(0_u64, vec![1, 2, 3]), (3, vec![1])] {
        for n in 1..=5 {
            world.inject(presser, 101, 70_000, &event(false, n * 160));
            world.run(Duration::from_millis(20));
        }
        (0..3).for_each(|_| world.inject(presser, 101, 70_000, &event(true, 960)));
        world.run(Duration::from_millis(100));
        let mut digits = std::mem::take(&mut world.digits);
        digits.sort_unstable_by_key(|(leg, ..)| *leg);
        let expected: Vec<_> = hearers.into_iter().map(|leg| (LegId(leg), '5', Duration::from_millis(120))).collect();
        assert_eq!(digits, expected);
    }
    let told = world.notices.iter().filter(|notice| matches!(notice, MixNotice::Digit { .. })).count();
    assert_eq!(told, 2);
    assert!(world.party(1).samples().iter().all(|s| s.abs() <= 8));
}

#[test]
fn a_digit_whose_end_is_lost_ends_by_itself_and_a_room_that_only_tells_passes_none_on() {
    let mut world = World::new(8_000, RoomDigits::Tell);
    for leg in 0..2 {
        world.join(Party::new(leg, Codec::pcmu(), Box::new(|_| 0.0)), Hearing::MEMBER);
    }
    world.inject(0, 101, 70_000, &event(false, 800));
    world.run(SECOND);
    let told: Vec<_> = world
        .notices
        .iter()
        .filter_map(|notice| match notice {
            MixNotice::Digit { leg, digit, length, .. } => Some((leg.0, digit.key(), *length)),
            _ => None,
        })
        .collect();
    assert_eq!(told, [(0, '5', Duration::from_millis(100))]);
    assert!(world.digits.is_empty());
}

#[test]
fn an_announcement_is_heard_by_all_or_by_one_and_its_end_is_told() {
    for rate in [8_000, 16_000] {
        let mut world = World::new(rate, RoomDigits::Pass);
        for leg in 0..3 {
            world.join(Party::new(leg, l16(8_000), Box::new(|_| 0.0)), Hearing::MEMBER);
        }
        let samples: Vec<i16> = (0..4_000)
            .map(|i| (8_000.0 * (std::f64::consts::TAU * 500.0 * f64::from(i) / 8_000.0).sin()) as i16)
            .collect();
        let what = Announcement::Samples { samples: samples.into(), repeat: false };
        world.run(SECOND);
        world.command(MixCommand::Play { room: ROOM, to: None, what: what.clone() });
        world.run(SECOND / 2);
        let levels = [0, 1, 2].map(|leg| tone_level(&world.recent(leg, SECOND / 4), 8_000, 500.0));
        assert!(levels.iter().all(|level| *level > -16.0), "{levels:?}");
        world.run(SECOND / 2);
        world.command(MixCommand::Play { room: ROOM, to: Some(LegId(1)), what });
        world.run(SECOND / 2);
        let levels = [0, 1, 2].map(|leg| tone_level(&world.recent(leg, SECOND / 4), 8_000, 500.0));
        assert!(levels[0] < -90.0 && levels[1] > -16.0 && levels[2] < -90.0, "{levels:?}");
        world.run(SECOND / 2);
        let ends: Vec<_> = world
            .notices
            .iter()
            .filter_map(|notice| match notice {
                MixNotice::Played { to, .. } => Some(*to),
                _ => None,
            })
            .collect();
        assert_eq!(ends, [None, Some(LegId(1))]);
    }
}

#[test]
fn a_tick_that_is_20_ms_late_is_left_out_and_no_burst_follows() {
    let mut world = World::of((0..2).map(|leg| Party::speaking(leg, Codec::pcmu(), 400.0)).collect());
    // The ticks of a whole second come at its end; phases are counted, four to a tick.
    world.lateness = Box::new(|n| {
        let behind = (400..600).contains(&n);
        Duration::from_millis(if behind { (600 - n) * 5 } else { 0 })
    });
    world.run(6 * SECOND);
    let heard = &world.party(0).heard;
    let steps: Vec<_> = heard.windows(2).map(|w| (w[1].tick - w[0].tick, w[1].at - w[0].at)).collect();
    let gaps: Vec<_> = steps.iter().map(|(ticks, _)| *ticks).filter(|ticks| *ticks != 1).collect();
    assert!((45..=52).contains(&gaps[0]), "timestamps go on: {gaps:?}");
    assert_eq!(gaps.len(), 1, "the machine was late and not the mixer: nothing else is left out: {gaps:?}");
    let soon = steps.iter().filter(|(_, passed)| *passed < Duration::from_millis(4)).count();
    assert!(soon <= 1, "{soon} packets at once");
    assert!(world.mixer.counters().skipped >= 45);
    assert!(tone_level(&world.recent(0, SECOND), 8_000, 400.0) > -20.0);
}

#[test]
fn who_leaves_is_let_go_by_a_tick_that_is_left_out_too() {
    let mut world = World::of((0..3).map(|leg| Party::speaking(leg, Codec::pcmu(), 400.0)).collect());
    world.run(SECOND);
    world.lateness = Box::new(|_| Duration::from_millis(25));
    world.command(MixCommand::Leave { leg: LegId(2) });
    world.run(Duration::from_millis(200));
    assert_eq!(world.left, [LegId(2)]);
}

#[test]
fn a_payload_type_means_what_the_newest_description_says() {
    let parties = [(0, 400.0), (1, 700.0)].map(|(leg, hz)| Party::speaking(leg, Codec::pcmu(), hz));
    let mut world = World::of(parties.into());
    world.run(SECOND);
    assert!(level(&world.recent(1, SECOND / 2)) > -30.0);
    let [receive, send] =
        [(8, Codec::pcma()), (0, Codec::pcmu())].map(|(payload_type, codec)| vec![Payload { payload_type, codec }]);
    world.command(MixCommand::Describe { leg: LegId(0), receive, send });
    world.run(SECOND);
    assert!(level(&world.recent(1, SECOND / 2)) < -60.0);
    assert!(world.mixer.counters().unmixable >= 49);
}

#[test]
fn an_overloaded_mixer_takes_nobody_and_leaves_out_ticks_of_the_largest_room() {
    let mut world = World::of((0..3).map(|leg| Party::speaking(leg, Codec::pcmu(), 400.0)).collect());
    world.lateness = Box::new(|_| Duration::from_millis(6));
    world.run(2 * SECOND);
    let counters = world.mixer.counters();
    assert_eq!(world.mixer.load().level(), 5);
    assert!(counters.shed_ticks > 40 && counters.shed_stretch > 45 && counters.shed_concealment > 45, "{counters:?}");
    world.join(Party::speaking(3, Codec::pcmu(), 500.0), Hearing::MEMBER);
    assert!(
        matches!(world.notices.last(), Some(MixNotice::Refused { leg: LegId(3), .. })),
        "{:?}",
        world.notices.last()
    );
    world.lateness = Box::new(|_| Duration::ZERO);
    world.run(7 * SECOND);
    assert_eq!(world.mixer.load().level(), 0);
}

#[test]
fn a_leg_changes_rooms_without_missing_a_tick() {
    let mut world =
        World::of((0..3).map(|leg| Party::speaking(leg, Codec::pcmu(), 400.0 + 200.0 * leg as f64)).collect());
    world.run(SECOND);
    let other = RoomId(2);
    world.command(MixCommand::Open { room: other, sample_rate: 8_000, digits: RoomDigits::Pass });
    let payload = vec![Payload { payload_type: 0, codec: Codec::pcmu() }];
    for leg in [1, 2] {
        world.command(MixCommand::Join(Box::new(Join {
            room: other,
            leg: LegId(leg),
            worker: WorkerId(0),
            hearing: Hearing::MEMBER,
            listens: true,
            receive: payload.clone(),
            send: payload.clone(),
        })));
    }
    world.run(SECOND);
    let heard = &world.party(1).heard;
    assert!(heard.windows(2).all(|w| w[1].tick - w[0].tick <= 1), "no tick is missing");
    let recent = world.recent(1, SECOND / 2);
    assert!(tone_level(&recent, 8_000, 800.0) > -20.0 && tone_level(&recent, 8_000, 400.0) < -60.0);
    world.command(MixCommand::Close { room: other });
    world.run(SECOND / 10);
    assert!(world.notices.iter().any(|notice| matches!(notice, MixNotice::Closed { room } if *room == other)));
    assert_eq!((world.mixer.rooms(), world.mixer.members()), (1, 1));
}

#[test]
fn who_has_no_codec_that_is_mixed_or_no_room_is_refused_with_the_reason() {
    let mut world = World::of(vec![]);
    let mut join = Join {
        room: ROOM,
        leg: LegId(9),
        worker: WorkerId(0),
        hearing: Hearing::MEMBER,
        listens: true,
        receive: vec![Payload { payload_type: 9, codec: Codec::new("G722", 8_000, 1) }],
        send: vec![Payload { payload_type: 9, codec: Codec::new("G722", 8_000, 1) }],
    };
    world.command(MixCommand::Join(Box::new(join.clone())));
    assert!(format!("{:?}", world.notices.last()).contains("Codec"));
    // Nor L16 at another rate than the mixer's, and the reason names those.
    join.receive = vec![Payload { payload_type: 98, codec: l16(48_000) }];
    join.send = join.receive.clone();
    world.command(MixCommand::Join(Box::new(join.clone())));
    let Some(MixNotice::Refused { why, .. }) = world.notices.last() else { panic!("{:?}", world.notices) };
    assert!(why.to_string().contains("L16 at 8,000 or 16,000 Hz"), "{why}");
    join.room = RoomId(77);
    world.command(MixCommand::Join(Box::new(join)));
    assert!(format!("{:?}", world.notices.last()).contains("NoRoom"));
    assert_eq!(world.mixer.members(), 0);
}
