//! The judge itself: flawed recordings and calls are found.

use super::super::story;
use super::*;

fn at(start: Instant, ms: u64) -> Instant {
    start + Duration::from_millis(ms)
}

/// The transfer whose recording is the caller's: D1 and D2 talk from 0 to 4.4 s, D1 and D3 from 5.6 s to 8.1 s.
fn transfer(start: Instant) -> (Scene, Seen) {
    let scene = story::acts().swap_remove(0).scenes.swap_remove(1);
    let happened = |who, ms, what| (who, Happened { at: at(start, ms), line: 0, what });
    let story = vec![
        happened(1, 0, Happening::Established),
        happened(0, 1, Happening::Established),
        happened(1, 4_400, Happening::Referred { code: 202 }),
        happened(2, 5_600, Happening::Established),
        happened(1, 5_601, Happening::Ended { by_peer: false }),
        happened(2, 8_100, Happening::Ended { by_peer: false }),
        happened(0, 8_101, Happening::Ended { by_peer: true }),
    ];
    let spoken = spoken(&scene, start, &[&[200, 4_500], &[2_600, 4_500], &[5_800]]);
    (scene, Seen { story, spoken, ..Seen::default() })
}

/// Each of the cast says its phrases at these milliseconds.
fn spoken(scene: &Scene, start: Instant, begins: &[&[u64]]) -> Vec<Vec<Spoken>> {
    let phrases = |(begins, role): (&&[u64], &story::Role)| {
        let spoken = |(begin, phrase): (&u64, &[i16])| {
            let end = begin + (phrase.len() as u64) / 8;
            Spoken { start: at(start, *begin), end: Some(at(start, end)) }
        };
        begins.iter().zip(role.phrases()).map(spoken).collect()
    };
    begins.iter().zip(&scene.cast).map(phrases).collect()
}

/// What a recording of all that the two sides say from `start` on sounds like where `heard` allows it.
fn recorded(scene: &Scene, seen: &Seen, start: Instant, heard: impl Fn(usize, u64) -> bool) -> Vec<i16> {
    let mut samples = vec![0; 2 * 8_100 * 8];
    for (who, (role, spoken)) in scene.cast.iter().zip(&seen.spoken).enumerate() {
        for (phrase, spoken) in role.phrases().zip(spoken) {
            // Ten milliseconds late.
            let from = (spoken.start - start).as_millis() as usize * 8 + 80;
            for (at, sample) in (from..).zip(phrase).filter(|(at, _)| heard(who, *at as u64 / 8)) {
                if let Some(place) = samples.get_mut(2 * at + usize::from(who > 0)) {
                    *place = *sample;
                }
            }
        }
    }
    samples
}

fn wrong(heard: impl Fn(usize, u64) -> bool) -> Vec<String> {
    let start = crate::clock::now();
    let (scene, seen) = transfer(start);
    let samples = recorded(&scene, &seen, start, heard);
    complaints(&scene, &seen, start, &samples)
}

fn complaints(scene: &Scene, seen: &Seen, start: Instant, samples: &[i16]) -> Vec<String> {
    let due = due_in_mix(scene, &talks(scene, &seen.story));
    let mut expected = Expected::new(scene, seen, &due, (start, samples.len() / 2), Tolerance::RECORDED);
    let mut wrong = Vec::new();
    for (channel, who) in [&[0][..], &[1, 2]].into_iter().enumerate() {
        let heard: Vec<i16> = samples.iter().skip(channel).step_by(2).copied().collect();
        who.iter().for_each(|who| expected.align(*who, &heard));
        let told = (0..9).filter_map(|second| expected.complaint(who, &heard, second));
        wrong.extend(told.map(|why| format!("{channel}: {why}")));
    }
    wrong
}

fn by_the_rule(who: usize, ms: u64) -> bool {
    match who {
        0 => !(4_400..5_600).contains(&ms),
        1 => ms < 4_400,
        _ => ms >= 5_600,
    }
}

#[test]
fn a_recording_by_the_rule_is_right() {
    assert_eq!(wrong(by_the_rule), Vec::<String>::new());
}

#[test]
fn a_timeline_that_is_corrected_by_a_millisecond_is_right() {
    let start = crate::clock::now();
    let (scene, seen) = transfer(start);
    let mut samples = recorded(&scene, &seen, start, by_the_rule);
    // From the middle of what D3 says on.
    let later = [0; 18].into_iter().chain(samples[2 * 6_900 * 8..].iter().copied()).collect::<Vec<i16>>();
    samples.truncate(2 * 6_900 * 8);
    samples.extend(&later[..later.len() - 18]);
    assert_eq!(complaints(&scene, &seen, start, &samples), Vec::<String>::new());
}

#[test]
fn whoever_is_missing_or_heard_besides_is_found() {
    for (flaw, heard) in [
        ("D3 is missing", (|who, ms| who != 2 && by_the_rule(who, ms)) as fn(usize, u64) -> bool),
        ("D2 is missing", |who, ms| who != 1 && by_the_rule(who, ms)),
        ("D1 is missing from the transfer on", |who, ms| (who != 0 || ms < 4_400) && by_the_rule(who, ms)),
        ("D1 is heard while D3 is called", |who, ms| who == 0 || by_the_rule(who, ms)),
        ("D2 is heard after the REFER", |who, ms| who == 1 || by_the_rule(who, ms)),
        ("everybody is missing", |_, _| false),
    ] {
        assert!(!wrong(heard).is_empty(), "{flaw}");
    }
}

#[test]
fn another_s_speech_in_its_place_is_found() {
    let start = crate::clock::now();
    let (scene, mut seen) = transfer(start);
    let spoken = |(who, at_ms): (usize, u64)| {
        let phrase = scene.cast[who].phrases().next().unwrap();
        Spoken { start: at(start, at_ms), end: Some(at(start, at_ms + phrase.len() as u64 / 8)) }
    };
    // The file has what D2 says at the place of D3's phrase.
    seen.spoken[1] = vec![spoken((1, 2_600)), spoken((1, 5_800))];
    let samples = recorded(&scene, &seen, start, |who, _| who == 1);
    seen.spoken[1].pop();
    let found = complaints(&scene, &seen, start, &samples);
    assert!(found.iter().any(|why| why.contains("is not heard")), "{found:?}");
}

#[test]
fn who_talks_follows_from_what_the_phones_saw() {
    let start = crate::clock::now();
    let (scene, seen) = transfer(start);
    let talk = |who, from, to| Talk { who, from: at(start, from), to: at(start, to) };
    assert_eq!(talks(&scene, &seen.story), [talk([0, 1], 0, 4_400), talk([0, 2], 5_600, 8_100)]);
}

/// The conference: answered at 0, the supervisor coaches from 0.3 s, is connected at 4.9 s, all hang up at 7.7 s.
fn supervised(start: Instant) -> (Scene, Seen) {
    let scene = story::acts().swap_remove(1).scenes.swap_remove(0);
    let happened = |who, ms, what| (who, Happened { at: at(start, ms), line: 0, what });
    let story = vec![
        happened(AGENT, 0, Happening::Established),
        happened(CUSTOMER, 1, Happening::Established),
        happened(SUPERVISOR, 300, Happening::Established),
        happened(CUSTOMER, 7_700, Happening::Ended { by_peer: false }),
        happened(AGENT, 7_701, Happening::Ended { by_peer: true }),
        happened(SUPERVISOR, 7_701, Happening::Ended { by_peer: true }),
    ];
    let spoken = spoken(&scene, start, &[&[700], &[3_900], &[2_700, 5_600]]);
    let connected = Some(at(start, 4_900)..at(start, 4_910));
    (scene, Seen { story, spoken, connected, ..Seen::default() })
}

/// What is wrong when the three are heard like this: by whom (3: in the supervisor's file), who, when.
fn wrong_hearing(heard: impl Fn(usize, usize, u64) -> bool) -> Vec<String> {
    let start = crate::clock::now();
    let (scene, seen) = supervised(start);
    let stream = |listener: usize| {
        let mut samples = vec![0i16; 7_700 * 8];
        for (who, (role, spoken)) in scene.cast.iter().zip(&seen.spoken).enumerate() {
            for (phrase, spoken) in role.phrases().zip(spoken) {
                // A mix is heard later than a recording stands.
                let late = if listener == 3 { 80 } else { 480 };
                let from = (spoken.start - start).as_millis() as usize * 8 + late;
                for (at, sample) in (from..).zip(phrase).filter(|(at, _)| heard(listener, who, *at as u64 / 8)) {
                    if let Some(place) = samples.get_mut(at) {
                        *place = place.saturating_add(*sample);
                    }
                }
            }
        }
        samples
    };
    let mut judged = Judged { wrong: Vec::new(), strips: String::new() };
    let heard: Vec<_> = (0..3).map(stream).collect();
    judged.supervised(&scene, &seen, start, &stream(3), &heard);
    judged.wrong
}

fn by_the_matrix(listener: usize, speaker: usize, ms: u64) -> bool {
    match (listener, speaker) {
        (CUSTOMER, SUPERVISOR) => ms > 4_910,
        (3, speaker) => speaker == SUPERVISOR,
        (listener, speaker) => listener != speaker,
    }
}

#[test]
fn a_conference_heard_by_the_matrix_is_right() {
    assert_eq!(wrong_hearing(by_the_matrix), Vec::<String>::new());
}

#[test]
fn whoever_hears_a_supervisor_wrongly_is_found() {
    type Heard = fn(usize, usize, u64) -> bool;
    // Several at once, each in a stream of its own.
    let flaws: [(&str, Heard, &[&str]); 3] = [
        (
            "the customer hears the coach, the supervisor itself, the agent is in the supervisor's file",
            |l, s, ms| [(0, 2), (2, 2), (3, 1)].contains(&(l, s)) || by_the_matrix(l, s, ms),
            &["as Ivy", "as Kim", "supervisor-1"],
        ),
        (
            "the agent does not hear the coach, the supervisor not the customer",
            |l, s, ms| (l, s, ms < 4_900) != (1, 2, true) && (l, s) != (2, 0) && by_the_matrix(l, s, ms),
            &["as Jack", "as Kim"],
        ),
        (
            "the customer does not hear the supervisor connected, and its file is empty",
            |l, s, ms| (l, s) != (0, 2) && l != 3 && by_the_matrix(l, s, ms),
            &["as Ivy", "supervisor-1"],
        ),
    ];
    for (flaw, heard, places) in flaws {
        let wrong = wrong_hearing(heard);
        let is_at = |place: &&str, wrong: &String| wrong.starts_with(*place);
        assert!(places.iter().all(|place| wrong.iter().any(|wrong| is_at(place, wrong))), "{flaw}: {wrong:?}");
        assert!(wrong.iter().all(|wrong| places.iter().any(|place| is_at(place, wrong))), "{flaw}: {wrong:?}");
    }
}

#[test]
fn a_supervisor_that_never_joined_or_connected_is_missed() {
    let start = crate::clock::now();
    let unconnected: fn(&mut Seen) = |seen| seen.connected = None;
    let absent: fn(&mut Seen) = |seen| seen.story.retain(|(who, _)| *who != SUPERVISOR);
    for change in [unconnected, absent] {
        let (scene, mut seen) = supervised(start);
        change(&mut seen);
        let mut judged = Judged { wrong: Vec::new(), strips: String::new() };
        judged.supervised(&scene, &seen, start, &[], &[]);
        assert_eq!(judged.wrong.len(), 1, "{:?}", judged.wrong);
    }
}
