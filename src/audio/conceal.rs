//! Concealment of lost audio by pitch waveform substitution, after ITU-T G.711 Appendix I: the last periods before the
//! hole are repeated, one of them for 10 ms, then two, then three, so that no buzz arises; from 10 ms on they fade, and
//! after 60 ms there is silence. What comes behind the hole is faded in over the continued repetition.
//!
//! It differs from the appendix in four things. What comes behind the hole is faded in faster. The output is not delayed:
//! the step at the hole's beginning is taken away from the repetition instead of blending into what was received. The
//! period may be as short as 2.5 ms. What does not repeat itself (noise, consonants) is taken in three periods at once and
//! softer, as far as it is unlike itself.

use super::pitch;

/// Before the fade begins.
const HOLD_MS: usize = 10;
/// When nothing is left.
pub const MAX_MS: usize = 60;
/// A hole that is meant to be silent is faded into so fast.
const QUICK_MS: usize = 5;
/// Below this the signal does not repeat itself.
const VOICED: f32 = 0.5;
/// Three of the longest periods and the quarter before them, at 16,000 Hz.
const MAX_HISTORY: usize = 3 * pitch::longest(16_000) + pitch::longest(16_000) / 4;

/// Samples of history that [`Concealer::begin`] reads at a rate in Hz.
pub const fn history(rate: u32) -> usize {
    3 * pitch::longest(rate) + pitch::longest(rate) / 4
}

/// Fills a hole as it grows.
#[derive(Debug, Clone)]
pub struct Concealer {
    rate: u32,
    /// Apart: seldom looked at.
    past: Box<[i16; MAX_HISTORY]>,
    len: usize,
    period: usize,
    /// Periods that are repeated at first.
    first: usize,
    /// Samples made so far; `None`: no hole.
    made: Option<usize>,
    /// What the repetition misses the last sample by.
    step: f32,
    level: f32,
    quick: bool,
}

impl Concealer {
    /// For 8,000 or 16,000 Hz.
    pub fn new(rate: u32) -> Self {
        let past = Box::new([0; MAX_HISTORY]);
        Self { rate, past, len: history(rate), period: 1, first: 1, made: None, step: 0.0, level: 1.0, quick: false }
    }

    /// As it is when it is made; keeps its memory.
    pub fn reset(&mut self, rate: u32) {
        (self.rate, self.len, self.made) = (rate, history(rate), None);
    }

    /// True from [`Concealer::begin`] to [`Concealer::resume`] or [`Concealer::stop`].
    pub fn is_active(&self) -> bool {
        self.made.is_some()
    }

    /// True when it gives silence from now on.
    pub fn is_silent(&self) -> bool {
        self.made.is_none_or(|made| self.gain(made) <= 0.0)
    }

    /// A hole begins behind `before`, of which the last [`history`] samples count. `quick`: it is meant to be silent, and
    /// only the step into silence is taken away.
    pub fn begin(&mut self, before: &[i16], quick: bool) {
        let len = history(self.rate).min(before.len());
        self.past[..len].copy_from_slice(&before[before.len() - len..]);
        self.len = len;
        let (period, likeness) = pitch::period(&self.past[..len], self.rate);
        self.period = period.min(4 * len / 13).max(1);
        (self.first, self.level) = match likeness {
            likeness if likeness >= VOICED => (1, 1.0),
            likeness => (3, 0.5 + likeness),
        };
        let at = |back: usize| len.checked_sub(back).map_or(0.0, |at| f32::from(self.past[at]));
        self.step = at(1) - self.level * at(self.first * self.period + 1);
        self.quick = quick;
        self.made = Some(0);
    }

    /// The next samples of the hole.
    pub fn fill(&mut self, hole: &mut [i16]) {
        let Some(made) = self.made else { return hole.fill(0) };
        for (i, sample) in hole.iter_mut().enumerate() {
            *sample = self.sample(made + i);
        }
        self.made = Some(made.saturating_add(hole.len()));
    }

    /// The hole ends before `after`, whose beginning is faded in: over a quarter period, and longer behind longer holes,
    /// 5 ms at most. (Appendix I fades for up to 10 ms, and so spoils more of what did arrive.)
    pub fn resume(&mut self, after: &mut [i16]) {
        let Some(made) = self.made.take() else { return };
        let ms = self.rate as usize / 1_000;
        let over = (self.period / 4 + made / 10).min(5 * ms).max(2 * ms).min(after.len());
        for (i, sample) in after[..over].iter_mut().enumerate() {
            // Squared: half as much of what arrived is spoilt, and the end has no corner.
            let left = 1.0 - (i + 1) as f32 / (over + 1) as f32;
            let weight = 1.0 - left * left;
            let old = f32::from(self.sample(made + i));
            *sample = (old + (f32::from(*sample) - old) * weight) as i16;
        }
    }

    /// The hole ends in silence.
    pub fn stop(&mut self) {
        self.made = None;
    }

    fn sample(&self, at: usize) -> i16 {
        let gain = self.gain(at);
        if gain <= 0.0 {
            return 0;
        }
        let ms = self.rate as usize / 1_000;
        let quarter = (self.period / 4).max(ms);
        // More periods from 10 ms and 20 ms on, each change spread over a quarter period.
        let wanted = |at: usize| (at / (HOLD_MS * ms) + 1).clamp(self.first, 3);
        let loops = wanted(at);
        let since = at - (loops - 1) * HOLD_MS * ms * usize::from(loops > self.first);
        let mut value = self.looped(loops, at);
        if loops > self.first && since < quarter {
            let before = self.looped(loops - 1, at);
            value = before + (value - before) * since as f32 / quarter as f32;
        }
        value *= self.level;
        if at < quarter {
            value += self.step * (1.0 - at as f32 / quarter as f32);
        }
        (value * gain) as i16
    }

    /// Sample `at` of the last `loops` periods repeated for ever. Their end blends into what precedes their beginning, so
    /// that the seam is not heard.
    fn looped(&self, loops: usize, at: usize) -> f32 {
        let span = loops * self.period;
        // Kept in phase with the end of what was received, whatever the number of periods.
        let place = at % span;
        let quarter = self.period / 4;
        let Some(from) = self.len.checked_sub(span) else { return 0.0 };
        let here = f32::from(self.past[from + place]);
        let left = span - place;
        if left > quarter || self.len < span + left {
            return here;
        }
        let earlier = f32::from(self.past[self.len - span - left]);
        here + (earlier - here) * (quarter - left + 1) as f32 / (quarter + 1) as f32
    }

    fn gain(&self, at: usize) -> f32 {
        let ms = self.rate as usize / 1_000;
        if self.quick {
            return 1.0 - at as f32 / (QUICK_MS * ms) as f32;
        }
        1.0 - at.saturating_sub(HOLD_MS * ms) as f32 / ((MAX_MS - HOLD_MS) * ms) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hz: f64, rate: u32, len: usize) -> Vec<i16> {
        (0..len).map(|i| (8_000.0 * (std::f64::consts::TAU * hz * i as f64 / f64::from(rate)).sin()) as i16).collect()
    }

    fn steepest(samples: &[i16]) -> i32 {
        samples.windows(2).map(|w| (i32::from(w[1]) - i32::from(w[0])).abs()).max().unwrap()
    }

    #[test]
    fn a_tone_goes_on_through_a_lost_packet() {
        for (hz, rate) in [(200.0, 8_000_u32), (310.0, 8_000), (200.0, 16_000), (440.0, 16_000)] {
            let frame = rate as usize / 50;
            let mut signal = tone(hz, rate, 8 * frame);
            let whole = signal.clone();
            let mut concealer = Concealer::new(rate);
            let (before, rest) = signal.split_at_mut(4 * frame);
            let (hole, after) = rest.split_at_mut(frame);
            concealer.begin(before, false);
            concealer.fill(hole);
            concealer.resume(after);
            assert!(!concealer.is_active());
            let noise: f64 = signal.iter().zip(&whole).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            let power: f64 = whole[4 * frame..6 * frame].iter().map(|s| f64::from(*s).powi(2)).sum();
            assert!(power > 10.0 * noise, "{hz} Hz at {rate}: {:.1} dB", 10.0 * (power / noise).log10());
            assert!(steepest(&signal) < steepest(&whole) * 3 / 2, "{hz} Hz at {rate}");
        }
    }

    #[test]
    fn a_long_hole_fades_within_60_ms_and_a_meant_one_within_5() {
        for (quick, silent_from) in [(false, 480), (true, 40)] {
            let mut concealer = Concealer::new(8_000);
            concealer.begin(&tone(150.0, 8_000, 800), quick);
            let mut hole = [1; 800];
            hole.chunks_mut(160).for_each(|frame| concealer.fill(frame));
            assert!(hole[..silent_from - 20].iter().any(|s| s.abs() > 1_000));
            assert!(hole[silent_from..].iter().all(|s| *s == 0));
            assert!(concealer.is_silent() && concealer.is_active());
            assert!(steepest(&hole) < 1_500, "{}", steepest(&hole));
        }
    }

    #[test]
    fn pieces_of_any_size_give_the_same() {
        let before = tone(170.0, 8_000, 800);
        let filled = |size: usize| {
            let (mut concealer, mut hole) = (Concealer::new(8_000), [0; 480]);
            concealer.begin(&before, false);
            hole.chunks_mut(size).for_each(|piece| concealer.fill(piece));
            hole
        };
        assert_eq!(filled(480), filled(33));
    }

    #[test]
    fn silence_and_too_little_history_are_concealed_by_silence() {
        for before in [vec![0; 800], vec![], vec![0; 30]] {
            let mut concealer = Concealer::new(8_000);
            concealer.begin(&before, false);
            let mut hole = [7; 200];
            concealer.fill(&mut hole);
            assert_eq!(hole, [0; 200]);
        }
    }

    /// Mean SNR in dB of lost packets that are not silent, each within −10…35 dB: 0 for silence.
    fn snr_of(way: impl Fn(&mut [i16], &[bool])) -> (f64, f64) {
        use crate::testing::speech::{self, Speaker};
        let phrases = [speech::HELLO, speech::HEAR_YOU, speech::HOLD, speech::BYE];
        let said: Vec<i16> = phrases
            .iter()
            .flat_map(|phrase| [Speaker::LOW, Speaker::HIGH].map(|speaker| speech::say(speaker, phrase).to_vec()))
            .flatten()
            .collect();
        let said = &said[..said.len() / 160 * 160];
        let (mut first, mut second) = (vec![], vec![]);
        for offset in 0..20 {
            // Bursts of two, one packet in ten: each is lost once as a first and once as a second one.
            let lost: Vec<bool> = (0..said.len() / 160).map(|n| n > 3 && matches!((n + offset) % 20, 0 | 1)).collect();
            let mut heard = said.to_vec();
            way(&mut heard, &lost);
            for (n, (said, heard)) in said.chunks_exact(160).zip(heard.chunks_exact(160)).enumerate() {
                let signal: f64 = said.iter().map(|s| f64::from(*s).powi(2)).sum();
                if !lost[n] || signal < 160.0 * 1e4 {
                    continue;
                }
                let noise: f64 = said.iter().zip(heard).map(|(a, b)| f64::from(a - b).powi(2)).sum();
                let snr = (10.0 * (signal / noise.max(1.0)).log10()).clamp(-10.0, 35.0);
                if lost[n - 1] { second.push(snr) } else { first.push(snr) }
            }
        }
        let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
        (mean(first), mean(second))
    }

    #[test]
    fn speech_is_concealed_better_than_by_silence_and_by_repetition() {
        let concealed = snr_of(|heard, lost| {
            let mut concealer = Concealer::new(8_000);
            for (n, lost) in lost.iter().enumerate() {
                let (before, rest) = heard.split_at_mut(160 * n);
                match lost {
                    true if concealer.is_active() => concealer.fill(&mut rest[..160]),
                    true => {
                        concealer.begin(before, false);
                        concealer.fill(&mut rest[..160]);
                    }
                    false => concealer.resume(&mut rest[..160]),
                }
            }
        });
        let repeated = snr_of(|heard, lost| {
            for n in (1..lost.len()).filter(|n| lost[*n]) {
                heard.copy_within(160 * (n - 1)..160 * n, 160 * n);
            }
        });
        let (silent, _) = snr_of(|heard, lost| {
            heard.chunks_exact_mut(160).zip(lost).filter(|(_, lost)| **lost).for_each(|(frame, _)| frame.fill(0));
        });
        assert!(silent.abs() < 0.01);
        assert!(concealed.0 > 2.0 && concealed.0 > repeated.0 + 3.0, "first: {concealed:?}, repeated {repeated:?}");
        assert!(concealed.1 > -1.0 && concealed.1 > repeated.1, "second: {concealed:?}, repeated {repeated:?}");
    }
}
