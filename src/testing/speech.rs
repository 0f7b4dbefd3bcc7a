//! Speech from a small formant synthesiser: pulses or noise through three resonators whose frequencies glide from sound
//! to sound. It is no good reader, but it is plainly a voice, and everything in it is computed here.

use std::f64::consts::{PI, TAU};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Samples per second of what is synthesised.
pub const RATE: u32 = 8_000;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speaker {
    /// Pitch in Hz.
    pub pitch: f64,
    /// Formants times this: a shorter throat has higher ones.
    pub formants: f64,
}

impl Speaker {
    /// A low voice.
    pub const LOW: Self = Self { pitch: 105.0, formants: 0.95 };
    /// A high voice.
    pub const HIGH: Self = Self { pitch: 195.0, formants: 1.12 };
}

/// "Hello, this call is recorded."
pub const HELLO: &str = "HH EH L OW , DH IH S K AO L , IH Z R IY K AO R D EH D .";
/// "Good, I hear you very well."
pub const HEAR_YOU: &str = "G UH D , AA IY HH IY R Y UW , V EH R IY W EH L .";
/// "Hold the line, please."
pub const HOLD: &str = "HH OW L D DH AH L AA IY N , P L IY Z .";
/// "I am back. Thank you, bye."
pub const BYE: &str = "AA IY AE M B AE K . S AE NG K Y UW , B AA IY .";
/// "Tell him yes, we can."
pub const SAY_YES: &str = "T EH L HH IH M Y EH S , W IY K AE N .";
/// "Hello, we send it at once."
pub const SEND_IT: &str = "HH EH L OW , W IY S EH N D IH T AE T W AH N S .";

/// One sound: its formants (Hz), how much voice and noise it has (0…1), its length in ms.
struct Sound {
    formants: [f64; 3],
    voice: f64,
    noise: f64,
    length: f64,
}

const fn sound(formants: [f64; 3], voice: f64, noise: f64, length: f64) -> Sound {
    Sound { formants, voice, noise, length }
}

/// A sound by its ARPABET name; `None` for a name that is not known.
fn by_name(name: &str) -> Option<Sound> {
    Some(match name {
        "AA" => sound([730.0, 1_090.0, 2_440.0], 1.0, 0.0, 120.0),
        "AE" => sound([660.0, 1_720.0, 2_410.0], 1.0, 0.0, 120.0),
        "AH" => sound([640.0, 1_190.0, 2_390.0], 1.0, 0.0, 80.0),
        "AO" => sound([570.0, 840.0, 2_410.0], 1.0, 0.0, 130.0),
        "EH" => sound([530.0, 1_840.0, 2_480.0], 1.0, 0.0, 100.0),
        "IH" => sound([390.0, 1_990.0, 2_550.0], 1.0, 0.0, 80.0),
        "IY" => sound([270.0, 2_290.0, 3_010.0], 1.0, 0.0, 110.0),
        "OW" => sound([450.0, 880.0, 2_400.0], 1.0, 0.0, 150.0),
        "UH" => sound([440.0, 1_020.0, 2_240.0], 1.0, 0.0, 90.0),
        "UW" => sound([300.0, 870.0, 2_240.0], 1.0, 0.0, 130.0),
        "L" => sound([360.0, 1_100.0, 2_600.0], 0.7, 0.0, 70.0),
        "R" => sound([330.0, 1_060.0, 1_380.0], 0.7, 0.0, 70.0),
        "W" => sound([290.0, 610.0, 2_150.0], 0.6, 0.0, 70.0),
        "Y" => sound([260.0, 2_070.0, 3_020.0], 0.6, 0.0, 60.0),
        "M" => sound([250.0, 1_000.0, 2_200.0], 0.5, 0.0, 80.0),
        "N" => sound([250.0, 1_400.0, 2_500.0], 0.5, 0.0, 80.0),
        "NG" => sound([250.0, 2_000.0, 2_700.0], 0.5, 0.0, 80.0),
        "V" => sound([300.0, 1_100.0, 2_300.0], 0.5, 0.1, 60.0),
        "DH" => sound([300.0, 1_500.0, 2_500.0], 0.5, 0.1, 50.0),
        "Z" => sound([300.0, 1_800.0, 3_400.0], 0.4, 0.4, 80.0),
        "S" => sound([1_800.0, 2_900.0, 3_700.0], 0.0, 0.5, 100.0),
        "HH" => sound([600.0, 1_600.0, 2_500.0], 0.0, 0.25, 60.0),
        "K" | "G" => sound([400.0, 1_900.0, 2_300.0], 0.0, 0.5, 40.0),
        "P" | "B" => sound([300.0, 800.0, 2_200.0], 0.0, 0.4, 35.0),
        "D" | "T" => sound([300.0, 1_800.0, 3_000.0], 0.0, 0.5, 35.0),
        "," => sound([500.0, 1_500.0, 2_500.0], 0.0, 0.0, 160.0),
        "." => sound([500.0, 1_500.0, 2_500.0], 0.0, 0.0, 350.0),
        _ => return None,
    })
}

/// True for sounds that begin with a short closure of the mouth.
fn is_stop(name: &str) -> bool {
    matches!(name, "K" | "G" | "P" | "B" | "D" | "T")
}

/// Says a phrase of ARPABET names, `,` and `.` being pauses; unknown names are skipped. Mono at [`RATE`], peaks at about
/// −9 dBFS.
pub fn say(speaker: Speaker, phrase: &str) -> Arc<[i16]> {
    let mut synthesiser = Synthesiser::new(speaker);
    let sounds: Vec<(&str, Sound)> =
        phrase.split_ascii_whitespace().filter_map(|name| by_name(name).map(|sound| (name, sound))).collect();
    let count = sounds.len().max(1) as f64;
    for (index, (name, sound)) in sounds.iter().enumerate() {
        if is_stop(name) {
            synthesiser.render(&Sound { voice: 0.0, noise: 0.0, length: 45.0, ..*sound }, 1.0);
        }
        // The pitch falls over the phrase, as in a statement.
        synthesiser.render(sound, 1.12 - 0.24 * index as f64 / count);
    }
    normalise(&synthesiser.samples)
}

struct Synthesiser {
    speaker: Speaker,
    rng: StdRng,
    resonators: [Resonator; 3],
    formants: [f64; 3],
    voice: f64,
    noise: f64,
    /// Position within the pitch period, 0…1.
    phase: f64,
    samples: Vec<f64>,
}

impl Synthesiser {
    fn new(speaker: Speaker) -> Self {
        Self {
            speaker,
            // A fixed seed: the same phrase is the same samples.
            rng: StdRng::seed_from_u64(1),
            resonators: Default::default(),
            formants: [500.0, 1_500.0, 2_500.0],
            voice: 0.0,
            noise: 0.0,
            phase: 0.0,
            samples: Vec::new(),
        }
    }

    fn render(&mut self, sound: &Sound, inflection: f64) {
        let rate = f64::from(RATE);
        // Everything glides to the sound with a time constant of 12 ms, which is what makes it speech and not beeps.
        let glide = 1.0 - (-1.0 / (0.012 * rate)).exp();
        for _ in 0..(sound.length / 1_000.0 * rate) as usize {
            self.voice += (sound.voice - self.voice) * glide;
            self.noise += (sound.noise - self.noise) * glide;
            let wobble = 1.0 + 0.015 * (TAU * 5.0 * self.samples.len() as f64 / rate).sin();
            self.phase = (self.phase + self.speaker.pitch * inflection * wobble / rate).fract();
            let source = self.voice * glottis(self.phase) + self.noise * (self.rng.random::<f64>() - 0.5);
            let mut value = 0.0;
            for (index, gain) in [1.0, 0.6, 0.35].into_iter().enumerate() {
                let target = (sound.formants[index] * self.speaker.formants).min(3_800.0);
                self.formants[index] += (target - self.formants[index]) * glide;
                let width = 60.0 + 0.04 * self.formants[index];
                value += gain * self.resonators[index].filter(source, self.formants[index], width);
            }
            self.samples.push(value);
        }
    }
}

/// One pitch period of the flow through the vocal folds, differentiated: it opens slowly and closes at once.
fn glottis(phase: f64) -> f64 {
    match phase {
        p if p < 0.4 => (PI * p / 0.4).sin() * 0.3,
        p if p < 0.56 => -(PI * (p - 0.4) / 0.32).sin(),
        _ => 0.0,
    }
}

/// A resonance with unity gain at its peak.
#[derive(Default)]
struct Resonator {
    y1: f64,
    y2: f64,
}

impl Resonator {
    fn filter(&mut self, input: f64, hz: f64, width: f64) -> f64 {
        let rate = f64::from(RATE);
        let radius = (-PI * width / rate).exp();
        let omega = TAU * hz / rate;
        let gain = (1.0 - radius) * (1.0 - 2.0 * radius * (2.0 * omega).cos() + radius * radius).sqrt();
        let output = gain * input + 2.0 * radius * omega.cos() * self.y1 - radius * radius * self.y2;
        (self.y1, self.y2) = (output, self.y1);
        output
    }
}

fn normalise(samples: &[f64]) -> Arc<[i16]> {
    let peak = samples.iter().fold(f64::MIN_POSITIVE, |peak, sample| sample.abs().max(peak));
    // 11,600 is −9 dBFS: room for two speakers in one mix.
    samples.iter().map(|sample| (sample / peak * 11_600.0) as i16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tones;

    const PHRASES: [&str; 6] = [HELLO, HEAR_YOU, HOLD, BYE, SAY_YES, SEND_IT];

    #[test]
    fn a_phrase_sounds_and_pauses() {
        for phrase in PHRASES {
            let samples = say(Speaker::LOW, phrase);
            let seconds = samples.len() as f64 / f64::from(RATE);
            assert!((1.0..4.0).contains(&seconds), "{seconds}");
            assert!((-28.0..-12.0).contains(&tones::level(&samples)), "{}", tones::level(&samples));
            assert!(tones::level(&samples[samples.len() - 800..]) < -45.0, "ends in a pause");
            assert_eq!(samples, say(Speaker::LOW, phrase), "the same every time");
        }
    }

    #[test]
    fn vowels_have_their_formants_and_the_speaker_a_pitch() {
        let samples = say(Speaker { pitch: 100.0, formants: 1.0 }, "IY IY IY IY");
        let middle = &samples[1_600..3_200];
        let near = |hz: f64| {
            [hz - 50.0, hz, hz + 50.0].map(|f| tones::tone_level(middle, RATE, f)).into_iter().fold(-120.0, f64::max)
        };
        assert!(near(300.0) > near(1_000.0) + 10.0, "F1 {} {}", near(300.0), near(1_000.0));
        assert!(near(2_300.0) > near(1_200.0) + 3.0, "F2 {} {}", near(2_300.0), near(1_200.0));
    }

    #[test]
    fn every_name_in_the_phrases_is_known() {
        for name in PHRASES.iter().flat_map(|phrase| phrase.split(' ')) {
            assert!(by_name(name).is_some(), "{name}");
        }
    }
}
