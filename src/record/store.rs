//! What a track still needs of a stream, by stream position: the bytes as they came while they are all of one law of G.711,
//! half as many as samples and copied instead of decoded; else linear samples.

use super::samples::Samples;
use super::stream::Coding;
use crate::audio::{g711, mix};

/// Holds as many positions as its capacity. Which of them mean something is for the owner to know.
#[derive(Debug)]
pub struct Store {
    ring: Ring,
}

#[derive(Debug)]
enum Ring {
    Coded(Coded),
    Linear(Samples),
}

/// Bytes of one law.
#[derive(Debug)]
struct Coded {
    law: Coding,
    /// A multiple of the capacity: the position of the first byte, or of one that follows the last.
    base: i64,
    bytes: Box<[u8]>,
}

impl Store {
    /// Silence, for a stream that begins with this coding.
    pub fn new(capacity: usize, coding: Coding) -> Self {
        // Only µ-law has a zero.
        if coding == Coding::Ulaw {
            let bytes = vec![g711::ULAW_SILENCE; capacity].into();
            return Self { ring: Ring::Coded(Coded { law: coding, base: 0, bytes }) };
        }
        Self { ring: Ring::Linear(Samples::new(capacity)) }
    }

    /// Positions held.
    pub fn capacity(&self) -> usize {
        match &self.ring {
            Ring::Coded(coded) => coded.bytes.len(),
            Ring::Linear(samples) => samples.capacity(),
        }
    }

    /// Samples are kept as such.
    pub fn is_linear(&self) -> bool {
        matches!(self.ring, Ring::Linear(_))
    }

    /// Takes `len` samples of a payload, from its sample `first` on, to a position; no more than the capacity.
    pub fn take(&mut self, at: i64, len: usize, coding: Coding, payload: &[u8], first: usize) {
        if let Ring::Coded(coded) = &mut self.ring
            && coded.law == coding
        {
            return coded.copy(at, &payload[first..first + len]);
        }
        let (a, b) = self.linear().slices_mut(at, len);
        coding.decode(payload, first, a);
        if !b.is_empty() {
            coding.decode(payload, first + a.len(), b);
        }
    }

    /// Samples to a position; no more than the capacity.
    pub fn write(&mut self, at: i64, samples: &[i16]) {
        self.linear().write(at, samples);
    }

    /// Silence from one position to another; no more than the capacity.
    pub fn clear(&mut self, from: i64, to: i64) {
        if let Ring::Coded(coded) = &mut self.ring
            && coded.law == Coding::Ulaw
        {
            return coded.fill(from, (to - from).max(0) as usize, g711::ULAW_SILENCE);
        }
        self.linear().clear(from, to);
    }

    /// Copies the samples from `at` on; no more than the capacity.
    pub fn read(&self, at: i64, samples: &mut [i16]) {
        match &self.ring {
            Ring::Coded(coded) => {
                let (a, b) = coded.slices(at, samples.len());
                let (to_a, to_b) = samples.split_at_mut(a.len());
                coded.law.decode(a, 0, to_a);
                coded.law.decode(b, 0, to_b);
            }
            Ring::Linear(held) => held.read(at, samples),
        }
    }

    /// As [`Store::read`], and gives the largest magnitude.
    pub fn read_loudest(&self, at: i64, samples: &mut [i16]) -> u16 {
        match &self.ring {
            Ring::Coded(coded) => {
                let (a, b) = coded.slices(at, samples.len());
                let (to_a, to_b) = samples.split_at_mut(a.len());
                coded.law.decode_loudest(a, to_a).max(coded.law.decode_loudest(b, to_b))
            }
            Ring::Linear(held) => {
                held.read(at, samples);
                mix::loudest(samples)
            }
        }
    }

    /// Makes room for `capacity`; what it holds from `from` on stays.
    pub fn grow(&mut self, from: i64, capacity: usize) {
        let held = self.capacity();
        match &mut self.ring {
            Ring::Linear(samples) => samples.grow(from, from + held as i64, capacity),
            Ring::Coded(coded) => {
                let bytes = vec![g711::ULAW_SILENCE; capacity].into();
                let mut larger = Coded { law: coded.law, base: 0, bytes };
                let (a, b) = coded.slices(from, held);
                larger.copy(from, a);
                larger.copy(from + a.len() as i64, b);
                *coded = larger;
            }
        }
    }

    /// Keeps what lies from `from` up to `to`, which came in this law, as bytes of it, in as little room as `capacity`.
    pub fn compact(&mut self, law: Coding, capacity: usize, from: i64, to: i64) {
        let bytes = vec![g711::ULAW_SILENCE; capacity].into();
        let mut coded = Coded { law, base: 0, bytes };
        let (mut samples, mut bytes) = ([0; 512], [0; 512]);
        let mut at = from;
        while at < to {
            let len = (to - at).min(512) as usize;
            self.read(at, &mut samples[..len]);
            // What has been decoded encodes to a byte of the same value.
            match law {
                Coding::Alaw => g711::encode_alaw(&samples[..len], &mut bytes),
                _ => g711::encode_ulaw(&samples[..len], &mut bytes),
            }
            coded.copy(at, &bytes[..len]);
            at += len as i64;
        }
        self.ring = Ring::Coded(coded);
    }

    /// As samples from here on, whatever came before.
    fn linear(&mut self) -> &mut Samples {
        if let Ring::Coded(coded) = &self.ring {
            let mut samples = Samples::new(coded.bytes.len());
            let (all, _) = samples.slices_mut(0, coded.bytes.len());
            coded.law.decode(&coded.bytes, 0, all);
            self.ring = Ring::Linear(samples);
        }
        match &mut self.ring {
            Ring::Linear(samples) => samples,
            Ring::Coded(_) => unreachable!("made linear just above"),
        }
    }
}

impl Coded {
    /// Where a position lies, and how many of `len` fit before the end.
    fn split(&self, at: i64, len: usize) -> (usize, usize) {
        let capacity = self.bytes.len() as i64;
        let ahead = at - self.base;
        // What is held lies within one lap around the base, so that no division is needed.
        let start = match ahead {
            _ if (0..capacity).contains(&ahead) => ahead,
            _ if (-capacity..0).contains(&ahead) => ahead + capacity,
            _ => ahead.rem_euclid(capacity),
        } as usize;
        (start, len.min(self.bytes.len() - start))
    }

    fn copy(&mut self, at: i64, bytes: &[u8]) {
        let capacity = self.bytes.len() as i64;
        if at - self.base >= capacity {
            self.base = at - at.rem_euclid(capacity);
        }
        let (start, first) = self.split(at, bytes.len());
        self.bytes[start..start + first].copy_from_slice(&bytes[..first]);
        if first < bytes.len() {
            self.bytes[..bytes.len() - first].copy_from_slice(&bytes[first..]);
        }
    }

    fn fill(&mut self, at: i64, len: usize, byte: u8) {
        let (start, first) = self.split(at, len);
        self.bytes[start..start + first].fill(byte);
        self.bytes[..len - first].fill(byte);
    }

    fn slices(&self, at: i64, len: usize) -> (&[u8], &[u8]) {
        let (start, first) = self.split(at, len);
        (&self.bytes[start..start + first], &self.bytes[..len - first])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(law: Coding, bytes: &[u8]) -> Vec<i16> {
        let mut samples = vec![0; bytes.len()];
        law.decode(bytes, 0, &mut samples);
        samples
    }

    fn read(store: &Store, at: i64, len: usize) -> Vec<i16> {
        let mut samples = vec![7; len];
        store.read(at, &mut samples);
        samples
    }

    #[test]
    fn every_byte_of_either_law_is_the_same_whether_kept_decoded_or_compacted_again() {
        let payload: Vec<u8> = (0..=255).collect();
        for law in [Coding::Ulaw, Coding::Alaw] {
            let expected = decoded(law, &payload);
            let mut store = Store::new(300, law);
            // Across the end of the ring, and in the second lap.
            for at in [0, 250, 700] {
                store.take(at, 256, law, &payload, 0);
                assert_eq!(read(&store, at, 256), expected);
            }
            store.write(956, &[1, 2]);
            assert!(store.is_linear());
            assert_eq!(read(&store, 700, 258), [&expected[..], &[1, 2]].concat());
            store.compact(law, 300, 700, 956);
            assert!(!store.is_linear());
            assert_eq!(read(&store, 700, 256), expected);
            let mut samples = vec![1; 256];
            let loudest = expected.iter().map(|sample| sample.unsigned_abs()).max();
            assert_eq!((Some(store.read_loudest(700, &mut samples)), &samples), (loudest, &expected));
        }
    }

    #[test]
    fn the_loudest_sample_is_found_on_either_side_of_the_end_of_the_ring() {
        for law in [Coding::Ulaw, Coding::Alaw] {
            for loud in [0, 3, 4, 7] {
                let mut payload = [0xd5; 8];
                payload[loud] = 0x12;
                let mut store = Store::new(100, law);
                store.take(96, 8, law, &payload, 0);
                store.compact(law, 100, 96, 104);
                let loudest = decoded(law, &[0x12])[0].unsigned_abs();
                assert_eq!(store.read_loudest(96, &mut [0; 8]), loudest, "{law:?} {loud}");
            }
        }
    }

    #[test]
    fn silence_is_zero_in_either_law() {
        for law in [Coding::Ulaw, Coding::Alaw] {
            let mut store = Store::new(100, law);
            assert_eq!(read(&store, -7, 100), [0; 100]);
            store.take(60, 80, law, &[0x12; 80], 0);
            store.clear(90, 110);
            let sample = decoded(law, &[0x12])[0];
            let expected: Vec<i16> = (60..140).map(|at| if (90..110).contains(&at) { 0 } else { sample }).collect();
            assert_eq!(read(&store, 60, 80), expected);
        }
    }

    #[test]
    fn growing_keeps_what_is_held_and_another_coding_goes_beside_it() {
        let mut store = Store::new(8, Coding::Ulaw);
        let payload = [1, 2, 3, 4, 5, 6, 7, 8];
        store.take(13, 8, Coding::Ulaw, &payload, 0);
        store.grow(13, 16);
        assert_eq!(store.capacity(), 16);
        store.take(21, 3, Coding::Linear, &[0, 9, 0, 8, 0, 7, 0, 6], 1);
        assert_eq!(read(&store, 13, 11), [&decoded(Coding::Ulaw, &payload)[..], &[8, 7, 6]].concat());
    }
}
