//! Test signals and their detection. Levels are in dBFS; 0 dBFS is a sine with peaks at full scale (32,768), for tones
//! and for RMS levels alike (AES17).
//!
//! Tones at multiples of 100 Hz do not disturb each other's detection: each has whole periods in the 10 ms window.

use std::f64::consts::TAU;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Full scale.
const FULL_SCALE: f64 = 32_768.0;
/// What no signal at all is reported as, in dBFS.
pub const SILENCE_DBFS: f64 = -120.0;

/// What a party says. Position 0 is the moment at which it begins to say it; the same position always gives the same
/// sample.
#[derive(Debug, Clone, PartialEq)]
pub enum Voice {
    /// Nothing (zeros).
    Silence,
    /// A continuous sine.
    Tone {
        /// Frequency in Hz.
        hz: f64,
        /// Level in dBFS.
        dbfs: f64,
    },
    /// A sine, on and off in turn, beginning with on.
    Bursts {
        /// Frequency in Hz.
        hz: f64,
        /// Level in dBFS.
        dbfs: f64,
        /// Duration of a burst.
        on: Duration,
        /// Duration of the pause after it.
        off: Duration,
    },
    /// Samples at 8,000 Hz, said once.
    Samples(Arc<[i16]>),
}

impl Voice {
    /// The sample at a position, at `rate` samples per second ([`Voice::Samples`] is repeated or skipped to fit the
    /// rate, which is good enough for a test at a wider rate).
    pub fn sample(&self, position: u64, rate: u32) -> i16 {
        match self {
            Self::Silence => 0,
            Self::Tone { hz, dbfs } => sine(*hz, *dbfs, position, rate),
            Self::Bursts { hz, dbfs, .. } if self.is_on(position, rate) => sine(*hz, *dbfs, position, rate),
            Self::Bursts { .. } => 0,
            Self::Samples(samples) => {
                let index = position * 8_000 / u64::from(rate);
                usize::try_from(index).ok().and_then(|index| samples.get(index)).copied().unwrap_or(0)
            }
        }
    }

    /// Fills a frame that begins at a position.
    pub fn fill(&self, position: u64, rate: u32, frame: &mut [i16]) {
        for (sample, position) in frame.iter_mut().zip(position..) {
            *sample = self.sample(position, rate);
        }
    }

    /// True where the party speaks (a sender with DTX sends nothing elsewhere).
    pub fn is_on(&self, position: u64, rate: u32) -> bool {
        match self {
            Self::Silence => false,
            Self::Tone { .. } => true,
            Self::Bursts { on, off, .. } => {
                let (on, off) = (samples_in(*on, rate), samples_in(*off, rate));
                position % (on + off).max(1) < on
            }
            Self::Samples(samples) => position * 8_000 / u64::from(rate) < samples.len() as u64,
        }
    }
}

fn samples_in(duration: Duration, rate: u32) -> u64 {
    (duration.as_secs_f64() * f64::from(rate)).round() as u64
}

fn sine(hz: f64, dbfs: f64, position: u64, rate: u32) -> i16 {
    let phase = (hz * position as f64 / f64::from(rate)).fract() * TAU;
    (amplitude(dbfs) * phase.sin()).round().clamp(-32_768.0, 32_767.0) as i16
}

fn amplitude(dbfs: f64) -> f64 {
    FULL_SCALE * 10f64.powf(dbfs / 20.0)
}

fn dbfs(amplitude: f64) -> f64 {
    (20.0 * (amplitude / FULL_SCALE).log10()).max(SILENCE_DBFS)
}

/// RMS level of samples in dBFS; [`SILENCE_DBFS`] for silence or no samples.
pub fn level(samples: &[i16]) -> f64 {
    if samples.is_empty() {
        return SILENCE_DBFS;
    }
    let sum: f64 = samples.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    dbfs((2.0 * sum / samples.len() as f64).sqrt())
}

/// Level of one frequency in samples, in dBFS (Goertzel).
pub fn tone_level(samples: &[i16], rate: u32, hz: f64) -> f64 {
    if samples.is_empty() {
        return SILENCE_DBFS;
    }
    let omega = TAU * hz / f64::from(rate);
    let coefficient = 2.0 * omega.cos();
    let (mut s1, mut s2) = (0.0, 0.0);
    for sample in samples {
        let s0 = f64::from(*sample) + coefficient * s1 - s2;
        (s1, s2) = (s0, s1);
    }
    let power = (s1 * s1 + s2 * s2 - coefficient * s1 * s2).max(0.0);
    dbfs(2.0 * power.sqrt() / samples.len() as f64)
}

/// Levels of several frequencies in one window.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// First sample.
    pub start: usize,
    /// In the order of the frequencies asked for, dBFS.
    pub levels: Vec<f64>,
}

/// Levels of `tones` (Hz) in every whole window of `length` (20 ms and 100 ms are usual).
pub fn scan(samples: &[i16], rate: u32, tones: &[f64], length: Duration) -> Vec<Window> {
    let length = (samples_in(length, rate) as usize).max(1);
    let window = |(index, chunk): (usize, &[i16])| Window {
        start: index * length,
        levels: tones.iter().map(|hz| tone_level(chunk, rate, *hz)).collect(),
    };
    samples.chunks_exact(length).enumerate().map(window).collect()
}

/// Which of `tones` (Hz) are there at `threshold` dBFS or more over all the samples.
pub fn present(samples: &[i16], rate: u32, tones: &[f64], threshold: f64) -> Vec<f64> {
    tones.iter().copied().filter(|hz| tone_level(samples, rate, *hz) >= threshold).collect()
}

/// The bursts of one tone, as sample ranges. Each edge is where the tone's envelope over 10 ms crosses half of the
/// burst's own amplitude: for a clean edge within 1 ms. Bursts under `threshold` dBFS or shorter than 15 ms (the splash
/// that the edges of another tone make lasts 10 ms) are not found; those with less than 20 ms between them are one.
pub fn bursts(samples: &[i16], rate: u32, hz: f64, threshold: f64) -> Vec<Range<usize>> {
    let envelope = envelope(samples, rate, hz);
    // Half of the threshold, so that the region holds both edges of a burst that just reaches it.
    let floor = amplitude(threshold) / 2.0;
    let mut found = Vec::new();
    let mut index = 0;
    while index < envelope.len() {
        if envelope[index] < floor {
            index += 1;
            continue;
        }
        let end = (index..envelope.len()).find(|i| envelope[*i] < floor).unwrap_or(envelope.len());
        let region = &envelope[index..end];
        let peak = region.iter().copied().fold(0.0, f64::max);
        if peak >= amplitude(threshold) {
            split(region, peak / 2.0, index, &mut found);
        }
        index = end;
    }
    found.retain(|burst| burst.len() >= (rate * 15 / 1_000) as usize);
    found
}

/// The stretches of a region that are over `half`.
fn split(region: &[f64], half: f64, offset: usize, found: &mut Vec<Range<usize>>) {
    let mut start = None;
    for (index, value) in region.iter().enumerate() {
        match (start, *value >= half) {
            (None, true) => start = Some(index),
            (Some(begin), false) => {
                found.push(offset + begin..offset + index);
                start = None;
            }
            _ => {}
        }
    }
    if let Some(begin) = start {
        found.push(offset + begin..offset + region.len());
    }
}

/// Amplitude of one frequency around each sample: quadrature mixing, then the mean over 10 ms.
fn envelope(samples: &[i16], rate: u32, hz: f64) -> Vec<f64> {
    let length = (rate / 100) as usize;
    let mut sums = Vec::with_capacity(samples.len() + 1);
    let (mut i, mut q) = (0.0, 0.0);
    sums.push((i, q));
    for (index, sample) in samples.iter().enumerate() {
        let phase = (hz * index as f64 / f64::from(rate)).fract() * TAU;
        i += f64::from(*sample) * phase.cos();
        q += f64::from(*sample) * phase.sin();
        sums.push((i, q));
    }
    let at = |index: usize| {
        let (from, to) = (index.saturating_sub(length / 2), (index + length / 2).min(samples.len()));
        let ((i0, q0), (i1, q1)) = (sums[from], sums[to]);
        2.0 * ((i1 - i0).powi(2) + (q1 - q0).powi(2)).sqrt() / length as f64
    };
    (0..samples.len()).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(voice: &Voice, rate: u32, seconds: f64) -> Vec<i16> {
        let mut samples = vec![0; (seconds * f64::from(rate)) as usize];
        voice.fill(0, rate, &mut samples);
        samples
    }

    #[test]
    fn a_tone_has_the_level_that_was_asked_for_in_both_measures() {
        for rate in [8_000, 16_000, 48_000] {
            let samples = say(&Voice::Tone { hz: 1_000.0, dbfs: -20.0 }, rate, 0.1);
            assert!((tone_level(&samples, rate, 1_000.0) + 20.0).abs() < 0.05);
            assert!((level(&samples) + 20.0).abs() < 0.05);
        }
        assert_eq!(level(&[]), SILENCE_DBFS);
        assert_eq!(level(&[0; 80]), SILENCE_DBFS);
    }

    #[test]
    fn only_the_tones_that_are_there_are_present() {
        let a = say(&Voice::Tone { hz: 400.0, dbfs: -12.0 }, 8_000, 0.1);
        let b = say(&Voice::Tone { hz: 1_000.0, dbfs: -30.0 }, 8_000, 0.1);
        let sum: Vec<i16> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        assert_eq!(present(&sum, 8_000, &[400.0, 500.0, 1_000.0, 2_100.0], -40.0), [400.0, 1_000.0]);
        let windows = scan(&sum, 8_000, &[400.0, 500.0], Duration::from_millis(20));
        assert_eq!(windows.len(), 5);
        assert!(windows.iter().all(|w| (w.levels[0] + 12.0).abs() < 0.5 && w.levels[1] < -55.0), "{windows:?}");
        assert_eq!(windows[3].start, 480);
    }

    #[test]
    fn bursts_are_found_to_the_millisecond() {
        for rate in [8_000u32, 16_000] {
            let on = Duration::from_millis(200);
            let voice = Voice::Bursts { hz: 700.0, dbfs: -15.0, on, off: Duration::from_millis(300) };
            let mut samples = vec![0; rate as usize / 4];
            samples.extend(say(&voice, rate, 2.0));
            let found = bursts(&samples, rate, 700.0, -30.0);
            assert_eq!(found.len(), 4, "{found:?}");
            let ms = (rate / 1_000) as i64;
            for (index, burst) in found.iter().enumerate() {
                let start = i64::from(rate) / 4 + index as i64 * i64::from(rate) / 2;
                assert!((burst.start as i64 - start).abs() <= ms, "{burst:?}");
                assert!((burst.end as i64 - start - i64::from(rate) / 5).abs() <= ms, "{burst:?}");
            }
            assert!(bursts(&samples, rate, 1_200.0, -40.0).is_empty());
            assert!(bursts(&samples, rate, 700.0, -10.0).is_empty());
        }
    }

    #[test]
    fn a_burst_that_begins_or_ends_with_the_samples_is_found() {
        let samples = say(&Voice::Tone { hz: 700.0, dbfs: -15.0 }, 8_000, 0.1);
        let found = bursts(&samples, 8_000, 700.0, -30.0);
        assert_eq!(found.len(), 1);
        assert!(found[0].start < 8 && found[0].end > 792, "{found:?}");
    }
}
