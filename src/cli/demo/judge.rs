//! Compares each recording with what the phones of its scene have said, sample by sample: in every second everybody who
//! is due must be heard, and nobody else.
//!
//! A party is due while the phones tell that it talks to somebody whose call is recorded: from the answer to a hold, a
//! REFER or the end. What it says besides, to a call that is being transferred for one, must be absent.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::story::Scene;
use crate::codec::Direction;
use crate::disk::list::Filter;
use crate::disk::store::{Error, Store};
use crate::disk::{RealDisk, wav};
use crate::record::mark::StopCause;
use crate::record::metadata::{FileKind, Recording};
use crate::testing::phone::{Happened, Happening, Spoken};
use crate::testing::tones;

/// Samples per second of the recordings and of what is said.
const RATE: usize = 8_000;
/// Around a change nothing is asserted: it takes a moment to reach everybody.
const GUARD: usize = RATE * 150 / 1_000;
/// A recording's sample and the sound may be this far apart, with the phones' own timers.
const LAG: usize = RATE * 60 / 1_000;
/// What a recording promises of each sound's place (20 ms).
const PROMISE: usize = RATE / 50;
/// Sound shorter than this within a second is not asserted.
const LEAST: usize = RATE / 5;
/// How alike sound must be to what was said (normalised correlation; G.711 alone leaves over 0.99).
const ALIKE: f64 = 0.8;
/// What counts as silence, in dBFS.
const SILENT: f64 = -50.0;
/// How far a recording's beginning and end may be from what the phones saw.
const EDGE: Duration = Duration::from_millis(300);

/// One instant on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    /// Monotonic.
    pub now: Instant,
    /// UTC.
    pub wall: Timestamp,
}

/// What the phones of a scene have seen and said.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Who (place in the cast) and what, in the order of time.
    pub story: Vec<(usize, Happened)>,
    /// When each of them spoke.
    pub spoken: Vec<Vec<Spoken>>,
}

/// The outcome.
#[derive(Debug)]
pub struct Judged {
    /// What is wrong, one line each.
    pub wrong: Vec<String>,
    /// For each recording who is heard in which second.
    pub strips: String,
}

/// Two who are connected.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Talk {
    who: [usize; 2],
    from: Instant,
    to: Instant,
}

/// Judges what is published in `directory` from `since` on: one recording for each scene.
///
/// # Errors
/// The folder cannot be read.
pub fn judge(directory: &Path, since: Timestamp, clocks: Clocks, played: &[(&Scene, Seen)]) -> Result<Judged, Error> {
    let store = Store::new(Arc::new(RealDisk), directory.to_owned());
    let page = store.list(&Filter { from: Some(since), ..Filter::default() }, usize::MAX, None)?;
    let mut judged = Judged { wrong: Vec::new(), strips: String::new() };
    for (scene, seen) in played {
        let caller = &scene.cast[0];
        let mut mine = page.recordings.iter().filter(|recording| recording.caller_phone_number == caller.number);
        let (Some(recording), None) = (mine.next(), mine.next()) else {
            judged.wrong.push(format!("{}'s call did not leave one recording", caller.name));
            continue;
        };
        let mixed = recording.media_files.iter().find(|file| file.kind == FileKind::Mixed);
        let file = store.published_dir(recording).join(mixed.map_or("mixed.wav", |file| &file.file));
        match wav::read(&RealDisk, &file) {
            Ok((spec, samples)) if spec.channels == 2 && spec.sample_rate as usize == RATE => {
                judged.one(scene, seen, recording, clocks, &samples);
            }
            Ok(_) => judged.wrong.push(format!("{} is not stereo at 8,000 Hz", file.display())),
            Err(error) => judged.wrong.push(format!("{} cannot be read: {error}", file.display())),
        }
    }
    if page.recordings.len() > played.len() {
        judged.wrong.push(format!("{} recordings were expected, {} were made", played.len(), page.recordings.len()));
    }
    Ok(judged)
}

impl Judged {
    fn one(&mut self, scene: &Scene, seen: &Seen, recording: &Recording, clocks: Clocks, samples: &[i16]) {
        let caller = scene.cast[0].name;
        let talks = talks(&seen.story);
        let since = recording.start_time.duration_since(clocks.wall).unsigned_abs();
        let start = clocks.now + since;
        let length = Duration::from_secs_f64(samples.len() as f64 / 2.0 / RATE as f64);
        self.wrong.extend(session_wrong(scene, recording, &talks, start..start + length));

        let mut expected = Expected::new(scene, seen, &talks, start, samples.len() / 2);
        let mut wrong = vec![false; samples.len() / 2 / RATE + 1];
        for channel in 0..2 {
            let heard: Vec<i16> = samples.iter().skip(channel).step_by(2).copied().collect();
            let who: Vec<usize> = (0..scene.cast.len()).filter(|who| (*who == 0) == (channel == 0)).collect();
            who.iter().for_each(|who| expected.align(*who, &heard));
            for (second, is_wrong) in wrong.iter_mut().enumerate() {
                if let Some(why) = expected.complaint(&who, &heard, second) {
                    let side = ["left", "right"][channel];
                    self.wrong.push(format!("{caller}'s call, {side}, second {second}: {why}"));
                    *is_wrong = true;
                }
            }
        }
        let _ = writeln!(self.strips, "  {caller}'s call: {}", scene.moral);
        for (who, role) in scene.cast.iter().enumerate() {
            let second = |(second, is_wrong): (usize, &bool)| match (is_wrong, expected.sounds(&[who], second)) {
                (true, _) => '!',
                (false, true) => '#',
                (false, false) => '.',
            };
            let strip: String = wrong.iter().enumerate().map(second).collect();
            let _ = writeln!(self.strips, "    {:<6} {strip}", role.name);
        }
    }
}

/// Who talked to whom, as the phones saw it.
fn talks(story: &[(usize, Happened)]) -> Vec<Talk> {
    let mut talks = Vec::new();
    let (mut pair, mut since) = ([0, 1], None);
    for (who, happened) in story {
        let opens = match &happened.what {
            Happening::Established if *who > 0 => {
                pair = [0, *who];
                true
            }
            Happening::Agreed { direction: Direction::SendRecv } => true,
            Happening::Agreed { .. } | Happening::Referred { .. } => false,
            Happening::Ended { .. } if pair.contains(who) => false,
            _ => continue,
        };
        let closed = if opens { since.replace(happened.at) } else { since.take() };
        talks.extend(closed.map(|from| Talk { who: pair, from, to: happened.at }));
    }
    talks
}

/// What is wrong with the session: its owner, its beginning and end.
fn session_wrong(scene: &Scene, recording: &Recording, talks: &[Talk], is: Range<Instant>) -> Vec<String> {
    let caller = scene.cast[0].name;
    let session = &recording.recording_session;
    let mut wrong = Vec::new();
    if (session.side, session.stop_cause) != (scene.owner, Some(scene.stop)) {
        wrong.push(format!("{caller}'s call: owned by {:?}, ended by {:?}", session.side, session.stop_cause));
    }
    let from = talks.first().map(|talk| talk.from);
    let to = match scene.stop {
        StopCause::OwnerLeft => talks.iter().find(|talk| talk.who == [0, 2]).map(|talk| talk.from),
        _ => talks.last().map(|talk| talk.to),
    };
    let apart = |a: Instant, b: Instant| a.max(b) - a.min(b) > EDGE;
    match (from, to) {
        (Some(from), Some(to)) if !apart(from, is.start) && !apart(to, is.end) => {}
        (Some(from), Some(to)) => {
            let length = (is.end - is.start).as_secs_f64();
            wrong.push(format!("{caller}'s call: {length:.2} s recorded, {:.2} s due", (to - from).as_secs_f64()));
        }
        _ => wrong.push(format!("{caller}'s call: nobody talked")),
    }
    wrong
}

/// What must be heard of each party, at the recording's samples.
struct Expected {
    parties: Vec<Vec<i16>>,
    /// False where something changes.
    asserted: Vec<bool>,
}

impl Expected {
    fn new(scene: &Scene, seen: &Seen, talks: &[Talk], start: Instant, length: usize) -> Self {
        let place = |at: Instant| (at.saturating_duration_since(start).as_secs_f64() * RATE as f64).round() as usize;
        let mut parties = vec![vec![0; length]; scene.cast.len()];
        for (who, (role, spoken)) in scene.cast.iter().zip(&seen.spoken).enumerate() {
            let due: Vec<Range<usize>> =
                talks.iter().filter(|talk| talk.who.contains(&who)).map(|t| place(t.from)..place(t.to)).collect();
            for (phrase, spoken) in role.phrases().zip(spoken) {
                let (from, end) = (place(spoken.start), spoken.end.map_or(length, place));
                for (at, sample) in (from..end.min(length)).zip(phrase) {
                    if due.iter().any(|due| due.contains(&at)) {
                        parties[who][at] = *sample;
                    }
                }
            }
        }
        let edges = talks.iter().flat_map(|talk| [place(talk.from), place(talk.to)]);
        let mut asserted = vec![true; length];
        for at in edges {
            asserted[at.saturating_sub(GUARD).min(length)..(at + GUARD).min(length)].fill(false);
        }
        Self { parties, asserted }
    }

    /// Moves what is expected of a party to where it is heard, at most [`LAG`] away.
    fn align(&mut self, who: usize, heard: &[i16]) {
        let party = &self.parties[who];
        let Some(first) = (0..party.len()).find(|at| self.asserted[*at] && party[*at].unsigned_abs() > 300) else {
            return;
        };
        let some = first..(first + RATE / 5).min(party.len());
        let lags = -(LAG as isize)..=LAG as isize;
        let alike = |lag: isize| likeness(some.clone().map(|at| (party[at], shifted(heard, at, -lag))));
        let best = lags.map(|lag| (alike(lag), lag)).max_by(|a, b| a.0.total_cmp(&b.0)).map_or(0, |(_, lag)| lag);
        self.parties[who] = (0..party.len()).map(|at| shifted(party, at, best)).collect();
    }

    fn due(&self, who: &[usize], at: usize) -> i16 {
        who.iter().map(|who| self.parties[*who][at]).fold(0, i16::saturating_add)
    }

    /// The samples of a second that are asserted.
    fn second(&self, second: usize) -> impl Iterator<Item = usize> {
        let length = self.parties[0].len();
        (second * RATE..((second + 1) * RATE).min(length)).filter(|at| self.asserted[*at])
    }

    /// True when one of them must be heard in a second.
    fn sounds(&self, who: &[usize], second: usize) -> bool {
        self.second(second).filter(|at| self.due(who, *at) != 0).count() >= LEAST
    }

    /// How alike a second of a channel is to what is due, 0 to 1. A timeline may be corrected in a pause, by little: then
    /// each tenth of a second finds its own place.
    fn likeness(&self, who: &[usize], heard: &[i16], second: usize) -> f64 {
        let places: Vec<usize> = self.second(second).collect();
        let as_aligned = likeness(places.iter().map(|at| (self.due(who, *at), heard[*at])));
        if as_aligned >= ALIKE {
            return as_aligned;
        }
        let (mut sum, mut energy) = (0.0, 0.0);
        for block in places.chunks(RATE / 10) {
            let due: Vec<i16> = block.iter().map(|at| self.due(who, *at)).collect();
            let weight: f64 = due.iter().map(|sample| f64::from(*sample).powi(2)).sum();
            let alike = |lag: isize| likeness(due.iter().zip(block).map(|(due, at)| (*due, shifted(heard, *at, lag))));
            let lags = -(PROMISE as isize)..=PROMISE as isize;
            let best = lags.map(alike).fold(0.0, f64::max);
            (sum, energy) = (sum + weight * best, energy + weight);
        }
        if energy > 0.0 { sum / energy } else { 0.0 }
    }

    /// What is wrong with a second of a channel on which these have their place.
    fn complaint(&self, who: &[usize], heard: &[i16], second: usize) -> Option<String> {
        if self.sounds(who, second) {
            let alike = self.likeness(who, heard, second);
            if alike < ALIKE {
                return Some(format!("what was said there is not heard (likeness {alike:.2})"));
            }
        }
        let is_quiet = |at: usize| {
            let around = at.saturating_sub(LAG)..(at + LAG).min(heard.len());
            around.step_by(40).all(|at| self.due(who, at) == 0)
        };
        let rest: Vec<i16> = self.second(second).filter(|at| is_quiet(*at)).map(|at| heard[at]).collect();
        let level = tones::level(&rest);
        (level > SILENT).then(|| format!("nobody should be heard there, but somebody is ({level:.0} dBFS)"))
    }
}

/// The sample that is `lag` earlier; silence beyond the ends.
fn shifted(samples: &[i16], at: usize, lag: isize) -> i16 {
    at.checked_add_signed(-lag).and_then(|at| samples.get(at)).copied().unwrap_or(0)
}

/// Normalised correlation, 0 for silence.
fn likeness(pairs: impl Iterator<Item = (i16, i16)>) -> f64 {
    let (mut both, mut a, mut b) = (0.0, 0.0, 0.0);
    for (x, y) in pairs.map(|(x, y)| (f64::from(x), f64::from(y))) {
        (both, a, b) = (both + x * y, a + x * x, b + y * y);
    }
    if a * b > 0.0 { both / (a * b).sqrt() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::super::story;
    use super::*;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    /// The transfer whose recording is the caller's: D1 and D2 talk from 0 to 4.4 s, D1 and D3 from 5.6 s to 8.1 s.
    fn transfer(start: Instant) -> (Scene, Seen) {
        let scene = story::acts().swap_remove(1).scenes.swap_remove(0);
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
        let begins = [vec![200, 4_500], vec![2_600, 4_500], vec![5_800]];
        let spoken = begins.iter().zip(&scene.cast).map(|(begins, role)| {
            let spoken = |(begin, phrase): (&u64, &[i16])| {
                let end = begin + (phrase.len() as u64) / 8;
                Spoken { start: at(start, *begin), end: Some(at(start, end)) }
            };
            begins.iter().zip(role.phrases()).map(spoken).collect()
        });
        let seen = Seen { story, spoken: spoken.collect() };
        (scene, seen)
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
        let talks = talks(&seen.story);
        let mut expected = Expected::new(scene, seen, &talks, start, samples.len() / 2);
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
        let (_, seen) = transfer(start);
        let talk = |who, from, to| Talk { who, from: at(start, from), to: at(start, to) };
        assert_eq!(talks(&seen.story), [talk([0, 1], 0, 4_400), talk([0, 2], 5_600, 8_100)]);
    }
}
