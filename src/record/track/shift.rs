//! The shift follows the sender's clock: by a jump in silence, else by stretching, else not at all.

use super::{MAX_RING_MS, OUTPUT_MS, Shifted, Track, samples, tenth_ms};
use crate::audio::resample::Stretch;
use crate::record::samples::Samples;

/// Shift errors up to 1 ms are left alone; from there they are corrected in silence, from 4 ms by stretching.
const TOLERATED_TENTH_MS: i64 = 10;
const STRETCHED_TENTH_MS: i64 = 40;

/// One sample in so many when stretching: 0.5 %, a twelfth of a semitone.
const STRETCH_RATIO: i64 = 200;

/// Magnitude up to which a sample is silence that may be cut or lengthened.
const SILENCE: u16 = 24;

/// Samples of silence left around a cut.
const SILENCE_MARGIN: i64 = 16;

impl Track {
    /// The second ring goes when every session is past the last change of the shift.
    pub(super) fn read_where_written(&mut self) {
        let is_past = |shifted: &Shifted| self.unread >= shifted.until && self.kept + self.shift <= self.unread;
        if self.shifted.as_deref().is_some_and(is_past) && self.error().is_none() {
            self.start = self.start.max(self.shifted.take().map_or(self.start, |shifted| shifted.until));
        }
    }

    /// Before the shift changes within the next `len` local positions: what can be read goes to the second ring.
    pub(super) fn keep_apart(&mut self, len: i64) {
        let start = self.start();
        let needed = self.end + len - self.unread.clamp(start, self.end);
        let limit = i64::from(self.rate) * MAX_RING_MS / 1_000;
        let mut shifted = self.shifted.take().unwrap_or_else(|| {
            let mut samples = Samples::new(samples(self.rate, OUTPUT_MS));
            while needed > samples.capacity() as i64 && (samples.capacity() as i64) < limit {
                samples = Samples::new(2 * samples.capacity());
            }
            let from = start.max(self.end - samples.capacity() as i64);
            self.start = from;
            self.pass(from - self.shift..self.end - self.shift, |at, part| samples.write(at + self.shift, part));
            Box::new(Shifted { samples, until: self.end })
        });
        let held = |samples: &Samples| samples.capacity() as i64;
        while needed > held(&shifted.samples) && held(&shifted.samples) < limit {
            let from = start.max(self.end - held(&shifted.samples));
            let capacity = 2 * shifted.samples.capacity();
            shifted.samples.grow(from, self.end, capacity);
        }
        self.shifted = Some(shifted);
    }

    /// What the shift is wrong by, when it is more than may be left alone.
    pub(super) fn error(&self) -> Option<f64> {
        let error = self.wanted? - self.shift as f64;
        let tolerated = if self.stretching { 1.0 } else { tenth_ms(self.rate, TOLERATED_TENTH_MS) as f64 };
        (error.abs() >= tolerated).then_some(error)
    }

    /// Moves the shift towards what is wanted while giving `len` local positions.
    pub(super) fn correct(&mut self, error: f64, len: i64, stretch: &Stretch) {
        let wanted = (error.round() as i64).clamp(-len / 2, len / 2);
        if let Some((silence, run)) = self.find_silence(len, wanted.abs() + 2 * SILENCE_MARGIN) {
            let kept = silence + SILENCE_MARGIN;
            self.keep_apart(len);
            self.copy(kept);
            if wanted > 0 {
                let inserted = wanted.min(len - kept);
                self.give(|samples, end| samples.clear(end, end + inserted), inserted);
                self.shift += inserted;
                self.copy(len - kept - inserted);
            } else {
                let cut = (-wanted).min(run - 2 * SILENCE_MARGIN);
                self.give(|_, _| (), 0);
                self.sealed += cut;
                self.shift -= cut;
                self.copy(len - kept);
            }
            return;
        }
        self.stretching |= error.abs() >= tenth_ms(self.rate, STRETCHED_TENTH_MS) as f64;
        let step = len / STRETCH_RATIO;
        if !self.stretching || step == 0 || wanted == 0 {
            self.copy(len);
            return;
        }
        let added = wanted.clamp(-step, step);
        let context = Stretch::CONTEXT as i64;
        // Both fit: a quantum of 48,000 Hz is 1,200 samples.
        let (mut taken, mut given) = ([0_i16; 1_300], [0_i16; 1_250]);
        let taken = &mut taken[..(len - added + 2 * context) as usize];
        let given = &mut given[..len as usize];
        self.received.read(self.sealed - context, taken);
        stretch.run(taken, given);
        self.keep_apart(len);
        self.give(|samples, end| samples.write(end, given), len);
        self.sealed += len - added;
        self.shift += added;
    }

    /// The longest run of silence within the next `len` stream positions: offset and length, no longer than `enough`.
    fn find_silence(&self, len: i64, enough: i64) -> Option<(i64, i64)> {
        let mut samples = [0; 1_250];
        let samples = &mut samples[..len as usize];
        self.received.read(self.sealed, samples);
        // A run of more than two margins covers two neighbours of those one margin apart: in speech this is all there is
        // to look at.
        let mut sparse = samples.iter().step_by(SILENCE_MARGIN as usize).map(|s| s.unsigned_abs() <= SILENCE);
        let mut last = false;
        if !sparse.any(|quiet| std::mem::replace(&mut last, quiet) && quiet) {
            return None;
        }
        let (mut quiet, mut best) = (0, (0, 2 * SILENCE_MARGIN));
        for (i, sample) in samples.iter().enumerate() {
            quiet = if sample.unsigned_abs() <= SILENCE { quiet + 1 } else { 0 };
            if quiet > best.1 {
                best = (i as i64 + 1 - quiet, quiet);
                if quiet >= enough {
                    break;
                }
            }
        }
        (best.1 > 2 * SILENCE_MARGIN).then_some(best)
    }

    /// Gives stream positions as they are.
    pub(super) fn copy(&mut self, len: i64) {
        if let Some(mut shifted) = self.shifted.take() {
            let shift = self.shift;
            self.pass(self.sealed..self.sealed + len, |at, part| shifted.samples.write(at + shift, part));
            self.shifted = Some(shifted);
        }
        self.sealed += len;
        self.end += len;
    }

    /// Gives `len` local positions that no stream position stands for.
    fn give(&mut self, write: impl FnOnce(&mut Samples, i64), len: i64) {
        if let Some(shifted) = &mut self.shifted {
            write(&mut shifted.samples, self.end);
            shifted.until = self.end + len;
        }
        self.end += len;
    }
}
