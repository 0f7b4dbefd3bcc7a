//! The tones that a caller hears while nobody has answered, or before it is let into a room, at 8,000 Hz.

use std::f64::consts::TAU;
use std::sync::Arc;
use std::time::Duration;

/// Whose ringback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ringback {
    /// Most of Europe: 425 Hz, 1 s on, 4 s off (ETSI TR 101 041-1; ITU-T E.180).
    #[default]
    Europe,
    /// North America: 440 and 480 Hz, 2 s on, 4 s off (ITU-T E.180 Supplement 2).
    NorthAmerica,
}

/// Samples per second.
const RATE: usize = 8_000;
/// Peak of all sines together: −18 dBFS, softer than speech.
const AMPLITUDE: f64 = 4_125.0;
/// Fade in and out in samples, so that it does not click.
const RAMP: usize = 40;
const OFF_SECONDS: usize = 4;

/// One note of a [`melody`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Note {
    /// Its frequency; 0: a rest.
    pub hertz: f64,
    /// How long.
    pub length: Duration,
}

/// Notes one after the other and a pause, to be repeated.
pub fn melody(notes: &[Note], pause: Duration) -> Arc<[i16]> {
    let samples = |length: Duration| (length.as_millis() * RATE as u128 / 1_000) as usize;
    let sounding = notes.iter().flat_map(|note| tone([note.hertz], samples(note.length)));
    sounding.chain(std::iter::repeat_n(0, samples(pause))).collect()
}

/// One tone and its pause, to be repeated.
pub fn ringback(kind: Ringback) -> Arc<[i16]> {
    let (hertz, on_seconds): (&[f64], usize) = match kind {
        Ringback::Europe => (&[425.0], 1),
        Ringback::NorthAmerica => (&[440.0, 480.0], 2),
    };
    tone(hertz, on_seconds * RATE).chain(std::iter::repeat_n(0, OFF_SECONDS * RATE)).collect()
}

/// So many samples of some sines together.
fn tone(hertz: impl AsRef<[f64]>, on: usize) -> impl Iterator<Item = i16> {
    let each = AMPLITUDE / hertz.as_ref().len() as f64;
    (0..on).map(move |n| {
        let gain = (n.min(on - n) as f64 / RAMP as f64).min(1.0);
        let sum: f64 = hertz.as_ref().iter().map(|hertz| (TAU * hertz * n as f64 / RATE as f64).sin()).sum();
        (gain * each * sum) as i16
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The level of one frequency in dBFS.
    fn level(samples: &[i16], hertz: f64) -> f64 {
        let angle = |n: usize| TAU * hertz * n as f64 / RATE as f64;
        let part =
            |f: fn(f64) -> f64| samples.iter().enumerate().map(|(n, s)| f64::from(*s) * f(angle(n))).sum::<f64>();
        let amplitude = 2.0 * part(f64::sin).hypot(part(f64::cos)) / samples.len() as f64;
        20.0 * (amplitude / 32_768.0).log10()
    }

    #[test]
    fn ringback_has_the_frequencies_and_cadence_of_its_country() {
        for (kind, tones, on, all) in
            [(Ringback::Europe, &[425.0][..], 1, 5), (Ringback::NorthAmerica, &[440.0, 480.0][..], 2, 6)]
        {
            let samples = ringback(kind);
            assert_eq!(samples.len(), all * RATE);
            let (tone, pause) = samples.split_at(on * RATE);
            assert!(pause.iter().all(|s| *s == 0));
            for hertz in [425.0, 440.0, 480.0] {
                let is_loud = level(tone, hertz) > -26.0;
                assert_eq!(is_loud, tones.contains(&hertz), "{kind:?} at {hertz} Hz: {}", level(tone, hertz));
            }
            assert!(tone.iter().all(|s| s.unsigned_abs() < 4_200));
        }
    }

    #[test]
    fn a_melody_is_its_notes_one_after_the_other_and_a_pause() {
        let note = |hertz, ms| Note { hertz, length: Duration::from_millis(ms) };
        let samples = melody(&[note(440.0, 150), note(0.0, 50), note(660.0, 150)], Duration::from_secs(1));
        assert_eq!(samples.len(), 1_200 + 400 + 1_200 + 8_000);
        for (range, hertz, other) in [(0..1_200, 440.0, 660.0), (1_600..2_800, 660.0, 440.0)] {
            assert!(level(&samples[range.clone()], hertz) > -20.0 && level(&samples[range], other) < -40.0);
        }
        assert!(samples[1_200..1_600].iter().chain(&samples[2_800..]).all(|s| *s == 0));
    }
}
