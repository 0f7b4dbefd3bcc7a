//! Level meters of what a session writes: peak and RMS of each channel of each file, about once a second.

use super::mark::Level;
use crate::audio::level::{self, LANES, Lanes};

/// Full scale of 16-bit samples.
const FULL_SCALE: f64 = 32_768.0;

/// The meters of one session. They see whole blocks of the files, so they cost one pass over samples in the cache.
#[derive(Debug)]
pub struct Meters {
    rate: u64,
    channels: Vec<Channel>,
}

/// What one channel of a file has held since it was read last.
#[derive(Debug)]
struct Channel {
    file: usize,
    number: u16,
    samples: u64,
    peak: u16,
    /// At 48,000 Hz it takes four days of full scale to overflow.
    squares: u64,
}

impl Meters {
    /// For files of so many samples per second.
    pub fn new(rate: u32) -> Self {
        Self { rate: u64::from(rate), channels: Vec::new() }
    }

    /// Takes what is written to a file.
    pub fn take(&mut self, file: usize, channels: usize, interleaved: &[i16]) {
        debug_assert!(LANES.is_multiple_of(channels), "one or two");
        let lanes = level::lanes(interleaved);
        for number in 0..channels {
            let known = self.channels.iter().position(|c| (c.file, usize::from(c.number)) == (file, number));
            let at = known.unwrap_or_else(|| {
                self.channels.push(Channel { file, number: number as u16, samples: 0, peak: 0, squares: 0 });
                self.channels.len() - 1
            });
            self.channels[at].take(&lanes, channels, interleaved.len() / channels);
        }
    }

    /// A second has been written since the last reading.
    pub fn is_due(&self) -> bool {
        self.channels.first().is_some_and(|channel| channel.samples >= self.rate)
    }

    /// Reads and resets them, in the order of files and channels. `name` tells a file's name.
    pub fn read(&mut self, name: impl Fn(usize) -> String) -> Vec<Level> {
        self.channels.sort_by_key(|channel| (channel.file, channel.number));
        let level = |channel: &mut Channel| {
            let level = Level {
                file: name(channel.file),
                channel: channel.number,
                peak_dbfs: decibels(f64::from(channel.peak)),
                // A full-scale sine has 0 dBFS (AES17): its RMS is less than its peak by the root of two.
                rms_dbfs: decibels((2.0 * channel.squares as f64 / channel.samples.max(1) as f64).sqrt()),
            };
            (channel.samples, channel.peak, channel.squares) = (0, 0, 0);
            level
        };
        self.channels.iter_mut().map(level).collect()
    }
}

impl Channel {
    fn take(&mut self, lanes: &Lanes, channels: usize, samples: usize) {
        self.samples += samples as u64;
        for lane in (usize::from(self.number)..LANES).step_by(channels) {
            self.peak = self.peak.max(lanes.peaks[lane]);
            self.squares += lanes.squares[lane];
        }
    }
}

/// To a tenth; `None`: digital silence.
fn decibels(amplitude: f64) -> Option<f64> {
    (amplitude > 0.0).then(|| (200.0 * (amplitude / FULL_SCALE).log10()).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sine(amplitude: f64) -> Vec<i16> {
        let phase = |n| f64::from(n) / 8.0 * std::f64::consts::TAU;
        (0..8_000).map(|n| (amplitude * phase(n).sin()).round() as i16).collect()
    }

    #[test]
    fn a_full_scale_sine_has_0_dbfs_by_peak_and_rms_and_one_of_a_tenth_has_20_less() {
        for (amplitude, dbfs) in [(32_767.0, 0.0), (3_276.8, -20.0)] {
            let mut meters = Meters::new(8_000);
            meters.take(0, 1, &sine(amplitude));
            let levels = meters.read(|_| "mixed.wav".into());
            assert_eq!((levels[0].peak_dbfs, levels[0].rms_dbfs), (Some(dbfs), Some(dbfs)));
        }
    }

    #[test]
    fn channels_are_measured_apart_and_silence_has_no_level() {
        let mut meters = Meters::new(8_000);
        let stereo: Vec<i16> = sine(3_276.8).into_iter().flat_map(|left| [left, 0]).collect();
        meters.take(1, 1, &[100]);
        meters.take(0, 2, &stereo);
        let levels = meters.read(|file| format!("{file}.wav"));
        let seen: Vec<_> = levels.iter().map(|l| (l.file.as_str(), l.channel, l.rms_dbfs.is_some())).collect();
        assert_eq!(seen, [("0.wav", 0, true), ("0.wav", 1, false), ("1.wav", 0, true)]);
        assert_eq!(levels[1].peak_dbfs, None);
    }

    #[test]
    fn they_are_due_after_a_second_and_begin_anew_when_read() {
        let mut meters = Meters::new(8_000);
        assert!(!meters.is_due());
        meters.take(0, 1, &sine(20_000.0)[..7_999]);
        assert!(!meters.is_due());
        meters.take(0, 1, &[0]);
        assert!(meters.is_due());
        meters.read(|_| String::new());
        assert!(!meters.is_due());
        meters.take(0, 1, &[0; 8_000]);
        assert_eq!(meters.read(|_| String::new())[0].rms_dbfs, None);
    }
}
