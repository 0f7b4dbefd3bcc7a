//! A supervisor whose agent consults over a second line of its phone, in sound: who hears whom in each mode, and what is in
//! each recording's files (spec/recording.md §4.4 and §4.6).

use std::time::Duration;

use super::supervision::{
    AGENT, CUSTOMER, LEVEL, LONGEST_GAP, SUPERVISOR, THIRD, TONES, UNHEARD, call_with, monitor, ms, tapes, tone,
};
use crate::whole::{Tape, World};
use jiff::Timestamp;
use stickytape::call::options::{MonitorConsult, Options};
use stickytape::call::request::MonitorMode;
use stickytape::testing::phone::{Action, HoldForm};
use stickytape::testing::tones;

/// The agent talks to the customer, then to the third party, then to the customer again.
const FIRST: (Duration, Duration) = (ms(2_000), ms(3_400));
const CONSULTS: (Duration, Duration) = (ms(4_300), ms(5_900));
const BACK: (Duration, Duration) = (ms(6_900), ms(7_900));

/// The call, the supervisor in it from 1.5 s on.
fn consultation(seed: u64, mode: MonitorMode, change: impl FnOnce(&mut Options)) -> World {
    let mut world = call_with(seed, [CUSTOMER, AGENT, THIRD, SUPERVISOR].map(tone), |options| {
        options.plan.dns[AGENT].monitor_consult = MonitorConsult::Orig;
        options.plan.dns[AGENT].record_consult = true;
        options.plan.dns[SUPERVISOR].record_consult = true;
        options.plan.dns[SUPERVISOR].record = Some(true);
        change(options);
    });
    world.run_until(ms(1_500 + 7 * seed));
    monitor(&mut world, mode);
    world.run_until(ms(3_500 + 7 * seed));
    world.act(AGENT, Action::Hold(HoldForm::Inactive));
    world.run_until(ms(3_800));
    world.act(AGENT, Action::on(1, Action::call("2003")));
    world.run_until(ms(6_000 + 7 * seed));
    assert!(world.phones[THIRD].is_talking());
    world.act(AGENT, Action::on(1, Action::HangUp));
    world.run_until(ms(6_400 + 7 * seed));
    world.act(AGENT, Action::on(0, Action::Retrieve));
    world.run_until(ms(8_000));
    (0..4).for_each(|phone| world.act(phone, Action::HangUp));
    world.run_until(ms(13_000));
    world
}

/// Whom a phone hears within a time: loud all the time, or not at all.
fn heard(world: &World, phone: usize, line: usize, (from, to): (Duration, Duration)) -> Vec<usize> {
    let heard = world.phones[phone].heard_on(line);
    let others = (0..4).filter(|other| *other != phone);
    let loud = |other: &usize| {
        let levels = [(from, from + (to - from) / 2), (from + (to - from) / 2, to)];
        let level = |(from, to)| heard.highest_level(TONES[*other], world.start + from, world.start + to);
        let levels = levels.map(level);
        // Where a playout buffer follows a clock, a little of each tone is found at every frequency.
        let unheard = if *other == SUPERVISOR { UNHEARD } else { UNHEARD + 15.0 };
        let is_one = levels.iter().all(|level| *level > LEVEL - 7.0) || levels.iter().all(|level| *level < unheard);
        assert!(is_one, "phone {phone} hears {other} at {levels:?}");
        levels[0] > unheard
    };
    others.filter(loud).collect()
}

/// When a recording began, after the beginning of the world.
fn began(tape: &Tape) -> Duration {
    let beginning: Timestamp = "2026-11-20T10:00:00Z".parse().expect("the wall clock of whole calls");
    Duration::try_from(tape.recording.start_time.duration_since(beginning)).expect("after the beginning")
}

/// Whose voices are in a file within a time of the call.
fn said(tape: &Tape, start: Duration, file: &str, (from, to): (Duration, Duration)) -> Vec<usize> {
    let samples = tape.channel(file, 0).expect("the file");
    let at = |time: Duration| (8 * (time - start).as_millis()) as usize;
    let part = &samples[at(from)..at(to)];
    let loud = |phone: &usize| {
        let windows = tones::scan(part, 8_000, &[TONES[*phone]], ms(100));
        let levels: Vec<f64> = windows.iter().map(|window| window.levels[0]).collect();
        let all = levels.iter().all(|level| *level > LEVEL - 7.0);
        assert!(all || levels.iter().all(|level| *level < UNHEARD), "{file}: {phone} at {levels:?}");
        all
    };
    (0..4).filter(loud).collect()
}

#[test]
fn the_customer_never_hears_a_supervisor_that_is_with_its_agent() {
    use MonitorMode::{Coach, Connect, Mute};
    for (seed, mode) in [(0, Mute), (1, Coach), (2, Connect)] {
        let world = consultation(seed, mode, |_| {});
        let also = |others: &[usize], modes: &[MonitorMode]| {
            let supervisor = modes.contains(&mode).then_some(SUPERVISOR);
            others.iter().copied().chain(supervisor).collect::<Vec<_>>()
        };
        for talk in [FIRST, BACK] {
            assert_eq!(heard(&world, CUSTOMER, 0, talk), also(&[AGENT], &[Connect]), "{mode:?}");
            assert_eq!(heard(&world, AGENT, 0, talk), also(&[CUSTOMER], &[Coach, Connect]), "{mode:?}");
            assert_eq!(heard(&world, SUPERVISOR, 0, talk), [CUSTOMER, AGENT], "{mode:?}");
        }
        assert_eq!(heard(&world, CUSTOMER, 0, CONSULTS), [0_usize; 0], "{mode:?}");
        assert_eq!(heard(&world, AGENT, 1, CONSULTS), also(&[THIRD], &[Coach, Connect]), "{mode:?}");
        assert_eq!(heard(&world, THIRD, 0, CONSULTS), also(&[AGENT], &[Connect]), "{mode:?}");
        assert_eq!(heard(&world, SUPERVISOR, 0, CONSULTS), [AGENT, THIRD], "{mode:?}");
        // From one mixer to the other and back.
        let report = world.phones[SUPERVISOR].stream_report(0);
        assert!(report.longest_gap <= LONGEST_GAP && report.is_unbroken(), "{mode:?}: {report:?}");
    }
}

#[test]
fn a_supervisor_s_file_is_complete_in_every_recording_that_is_with_it() {
    use MonitorMode::{Coach, Connect, Mute};
    for (seed, mode) in [(0, Mute), (1, Coach), (2, Connect)] {
        let world = consultation(seed, mode, |_| {});
        let tapes = tapes(&world);
        assert_eq!(tapes.len(), 3);
        for tape in &tapes {
            let owner = tape.recording.recording_session.owner_dn.as_deref();
            let start = began(tape);
            let all = [FIRST, CONSULTS, BACK];
            let mixed = all.map(|time| said(tape, start, "mixed.wav", time));
            let own = all.map(|time| said(tape, start, "supervisor-1.wav", time));
            let talk = vec![CUSTOMER, AGENT];
            match owner {
                Some("2001") => {
                    assert_eq!(mixed, [talk.clone(), vec![], talk], "{mode:?}: the customer's, silent in between");
                    assert_eq!(own, [vec![SUPERVISOR], vec![], vec![SUPERVISOR]], "{mode:?}");
                }
                _ => {
                    assert_eq!(mixed, [talk.clone(), vec![AGENT, THIRD], talk], "{mode:?} {owner:?}");
                    assert_eq!(own, [(); 3].map(|()| vec![SUPERVISOR]), "{mode:?} {owner:?}");
                }
            }
            assert_eq!(tape.files.len(), 2, "the third party's voice is no supervisor's");
        }
    }
}

#[test]
fn a_supervisor_s_own_recording_is_silent_while_it_is_away_when_its_dn_says_so() {
    let change = |options: &mut Options| options.plan.dns[SUPERVISOR].record_consult = false;
    let world = consultation(3, MonitorMode::Connect, change);
    let tapes = tapes(&world);
    let tape = tapes
        .iter()
        .find(|tape| tape.recording.recording_session.owner_dn.as_deref() == Some("2004"))
        .expect("its own");
    let start = began(tape);
    let own = [FIRST, CONSULTS, BACK].map(|time| said(tape, start, "supervisor-1.wav", time));
    assert_eq!(own, [vec![SUPERVISOR], vec![], vec![SUPERVISOR]]);
    assert_eq!(said(tape, start, "mixed.wav", CONSULTS), [0_usize; 0]);
}
