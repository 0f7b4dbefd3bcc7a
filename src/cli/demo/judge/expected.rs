//! What a stream of sound must hold, from what the phones have said, and what is wrong with it.

use std::ops::Range;
use std::time::Instant;

use super::{RATE, Scene, Seen};
use crate::testing::tones;

/// Around a change nothing is asserted: it takes a moment to reach everybody.
const GUARD: usize = RATE * 150 / 1_000;
/// Sound shorter than this within a second is not asserted.
const LEAST: usize = RATE / 5;
/// What counts as silence, in dBFS.
const SILENT: f64 = -60.0;

/// Where lags are searched, one sample of so many is compared.
const SPARSE: usize = 4;

/// What a stream may do to what was said. Samples.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tolerance {
    /// The first and the last lag that is tried for a party.
    lags: (isize, isize),
    /// How far it may move after that, each way.
    wander: isize,
    /// How alike sound must be to what was said (normalised correlation). Another speaker's reaches 0.2.
    alike: f64,
}

impl Tolerance {
    /// A recording: 60 ms for the phones' own timers, what it promises of each sound's place, and what G.711 loses.
    pub const RECORDED: Self = Self { lags: (-480, 480), wander: 160, alike: 0.8 };
    /// A phone hears a mix later than it was said, by what playout buffers wait. On a machine that has no time for its
    /// threads they stretch and fill in, of which a recording knows nothing.
    pub const HEARD: Self = Self { lags: (-80, 2_000), wander: 480, alike: 0.35 };
}

/// What must be heard of each party, at the samples of a stream.
pub(super) struct Expected {
    parties: Vec<Vec<i16>>,
    /// False where something changes.
    asserted: Vec<bool>,
    tolerance: Tolerance,
}

impl Expected {
    /// Of a stream that begins at `start`, in which each of the cast has its place when it is `due`.
    pub fn new(
        scene: &Scene,
        seen: &Seen,
        due: &[Vec<Range<Instant>>],
        (start, length): (Instant, usize),
        tolerance: Tolerance,
    ) -> Self {
        let place = |at: Instant| (at.saturating_duration_since(start).as_secs_f64() * RATE as f64).round() as usize;
        let places =
            |due: &[Range<Instant>]| due.iter().map(|due| place(due.start)..place(due.end)).collect::<Vec<_>>();
        let mut parties = vec![vec![0; length]; scene.cast.len()];
        for (who, (role, spoken)) in scene.cast.iter().zip(&seen.spoken).enumerate() {
            let due = places(&due[who]);
            for (phrase, spoken) in role.phrases().zip(spoken) {
                let (from, end) = (place(spoken.start), spoken.end.map_or(length, place));
                for (at, sample) in (from..end.min(length)).zip(phrase) {
                    if due.iter().any(|due| due.contains(&at)) {
                        parties[who][at] = *sample;
                    }
                }
            }
        }
        let mut asserted = vec![true; length];
        for at in due.iter().flat_map(|due| places(due)).flat_map(|due| [due.start, due.end]) {
            asserted[at.saturating_sub(GUARD).min(length)..(at + GUARD).min(length)].fill(false);
        }
        Self { parties, asserted, tolerance }
    }

    /// Moves what is expected of a party to where it is heard, by its first sound to which nobody else speaks.
    pub fn align(&mut self, who: usize, heard: &[i16]) {
        let party = &self.parties[who];
        let sounds = (0..party.len()).filter(|at| self.asserted[*at] && party[*at].unsigned_abs() > 300);
        let some = |first: usize| first..(first + RATE / 5).min(party.len());
        let others = || self.parties.iter().enumerate().filter(|(other, _)| *other != who);
        let is_alone = |first: &usize| others().all(|(_, other)| other[some(*first)].iter().all(|sample| *sample == 0));
        let Some(first) = sounds.clone().find(is_alone).or_else(|| sounds.clone().next()) else {
            return;
        };
        let lags = self.tolerance.lags.0..=self.tolerance.lags.1;
        let places = || some(first).step_by(SPARSE);
        let alike = |lag: isize| likeness(places().map(|at| (party[at], shifted(heard, at, -lag))));
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
    pub fn sounds(&self, who: &[usize], second: usize) -> bool {
        self.second(second).filter(|at| self.due(who, *at) != 0).count() >= LEAST
    }

    /// How alike a second of a channel is to what is due, 0 to 1. A timeline may be corrected in a pause, by little: then
    /// each tenth of a second finds its own place.
    fn likeness(&self, who: &[usize], heard: &[i16], second: usize) -> f64 {
        let places: Vec<usize> = self.second(second).collect();
        let as_aligned = likeness(places.iter().map(|at| (self.due(who, *at), heard[*at])));
        if as_aligned >= self.tolerance.alike {
            return as_aligned;
        }
        let (mut sum, mut energy) = (0.0, 0.0);
        for block in places.chunks(RATE / 10) {
            let due: Vec<(usize, i16)> = block.iter().step_by(SPARSE).map(|at| (*at, self.due(who, *at))).collect();
            let weight: f64 = due.iter().map(|(_, sample)| f64::from(*sample).powi(2)).sum();
            let alike = |lag: isize| likeness(due.iter().map(|(at, due)| (*due, shifted(heard, *at, lag))));
            let lags = -self.tolerance.wander..=self.tolerance.wander;
            let best = lags.map(alike).fold(0.0, f64::max);
            (sum, energy) = (sum + weight * best, energy + weight);
        }
        if energy > 0.0 { sum / energy } else { 0.0 }
    }

    /// For each sample of a second whether nobody is due there or near it.
    fn quiet(&self, who: &[usize], second: usize) -> Vec<bool> {
        let lag = self.tolerance.lags.1 as usize;
        let length = self.parties[0].len();
        let mut quiet = vec![true; RATE];
        let start = second * RATE;
        // The last sample that is due before each place, then the first after it.
        let mut due = None;
        for at in start.saturating_sub(lag)..(start + RATE).min(length) {
            due = if self.due(who, at) != 0 { Some(at) } else { due };
            if at >= start {
                quiet[at - start] = due.is_none_or(|due| at - due > lag);
            }
        }
        let mut due = None;
        for at in (start..(start + RATE + lag).min(length)).rev() {
            due = if self.due(who, at) != 0 { Some(at) } else { due };
            if at < start + RATE {
                quiet[at - start] &= due.is_none_or(|due| due - at > lag);
            }
        }
        quiet
    }

    /// What is wrong with a second of a channel on which these have their place.
    pub fn complaint(&self, who: &[usize], heard: &[i16], second: usize) -> Option<String> {
        if self.sounds(who, second) {
            let alike = self.likeness(who, heard, second);
            if alike < self.tolerance.alike {
                return Some(format!("what was said there is not heard (likeness {alike:.2})"));
            }
        }
        let quiet = self.quiet(who, second);
        let rest: Vec<i16> = self.second(second).filter(|at| quiet[at % RATE]).map(|at| heard[at]).collect();
        let level = tones::level(&rest);
        (level > SILENT).then(|| format!("nobody should be heard there, but somebody is ({level:.0} dBFS)"))
    }
}

/// The sample that is `lag` earlier; silence beyond the ends.
fn shifted(samples: &[i16], at: usize, lag: isize) -> i16 {
    at.checked_add_signed(-lag).and_then(|at| samples.get(at)).copied().unwrap_or(0)
}

/// Normalised correlation, 0 for silence.
pub fn likeness(pairs: impl Iterator<Item = (i16, i16)>) -> f64 {
    let (mut both, mut a, mut b) = (0.0, 0.0, 0.0);
    for (x, y) in pairs.map(|(x, y)| (f64::from(x), f64::from(y))) {
        (both, a, b) = (both + x * y, a + x * x, b + y * y);
    }
    if a * b > 0.0 { both / (a * b).sqrt() } else { 0.0 }
}
