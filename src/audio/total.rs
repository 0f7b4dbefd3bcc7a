//! A sum of voices, in as many bits as it needs.
//!
//! Voices that cannot leave the range of a sample together are added in 16 bits, of which a vector holds twice as many as
//! of 32, and nothing has to be narrowed afterwards. Beyond that they are added in 16 bits by groups, and the groups in 32.

use super::{mix, sum};

/// A sum of at most `MAX` samples at a time.
#[derive(Debug)]
pub struct Total<const MAX: usize> {
    len: usize,
    /// The present group; without meaning while there is none.
    group: [i16; MAX],
    /// What no sample of the group can exceed: the sum of its voices' peaks. 0 while there is none.
    bound: u32,
    /// The group is part of `wide` and takes no more voices.
    is_closed: bool,
    /// Nothing but the group is in the sum.
    is_narrow: bool,
    /// Every closed group, and what was added besides; without meaning while there is neither.
    wide: [i32; MAX],
    is_wide: bool,
}

impl<const MAX: usize> Default for Total<MAX> {
    fn default() -> Self {
        let (group, wide) = ([0; MAX], [0; MAX]);
        Self { len: 0, group, bound: 0, is_closed: false, is_narrow: true, wide, is_wide: false }
    }
}

impl<const MAX: usize> Total<MAX> {
    /// Begins anew: so many samples of silence.
    pub fn begin(&mut self, len: usize) {
        (self.len, self.bound, self.is_closed, self.is_narrow, self.is_wide) = (len, 0, false, true, false);
    }

    /// Adds a voice whose largest magnitude is `peak`.
    #[inline]
    pub fn add(&mut self, voice: &[i16], peak: u16) {
        let bound = self.bound + u32::from(peak);
        if self.bound > 0 && bound <= i16::MAX as u32 && !self.is_closed {
            self.bound = bound;
            sum::add_narrow(voice, &mut self.group[..self.len]);
        } else if peak > 0 {
            self.begin_group(voice, peak);
        }
    }

    #[inline(never)]
    fn begin_group(&mut self, voice: &[i16], peak: u16) {
        if u32::from(peak) > i16::MAX as u32 {
            return sum::add(voice, self.wide());
        }
        if self.bound > 0 {
            self.close();
            self.is_narrow = false;
        }
        self.group[..self.len].copy_from_slice(&voice[..self.len]);
        (self.bound, self.is_closed) = (u32::from(peak), false);
    }

    /// What no sample exceeds, and the sum as samples; `None` when it needed more bits.
    pub fn narrow(&mut self) -> Option<(u32, &[i16])> {
        if !self.is_narrow {
            return None;
        }
        let group = &mut self.group[..self.len];
        if self.bound == 0 {
            group.fill(0);
        }
        Some((self.bound, group))
    }

    /// Makes samples of a sum of which none exceeds `peak`, which itself is no larger than a sample.
    pub fn make_narrow(&mut self, peak: u32) {
        self.close();
        mix::narrowed(&self.wide[..self.len], &mut self.group[..self.len]);
        (self.bound, self.is_narrow) = (peak, true);
    }

    /// The samples that [`Total::narrow`] gave, or that [`Total::make_narrow`] made.
    pub fn samples(&self) -> &[i16] {
        debug_assert!(self.is_narrow, "it needs more bits");
        &self.group[..self.len]
    }

    /// The sum in 32 bits, to be added to.
    pub fn wide(&mut self) -> &mut [i32] {
        self.is_narrow = false;
        self.close();
        &mut self.wide[..self.len]
    }

    /// The sum in 32 bits.
    pub fn widened(&mut self) -> &[i32] {
        self.close();
        &self.wide[..self.len]
    }

    fn close(&mut self) {
        let wide = &mut self.wide[..self.len];
        if !std::mem::replace(&mut self.is_wide, true) {
            wide.fill(0);
        }
        if !std::mem::replace(&mut self.is_closed, true) && self.bound > 0 {
            sum::add(&self.group[..self.len], wide);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn it_is_the_plain_sum_however_many_voices_there_are_and_however_loud() {
        let mut rng = StdRng::seed_from_u64(4);
        let (mut total, mut narrow, mut wide) = (Total::<50>::default(), 0, 0);
        for _ in 0..3_000 {
            let len = rng.random_range(1..=50);
            total.begin(len);
            let mut plain = vec![0; len];
            for _ in 0..rng.random_range(0..5) {
                let level = [0, 40, 9_000, 32_768][rng.random_range(0..4)];
                let voice: Vec<i16> = (0..len).map(|_| rng.random_range(-level..=level).min(32_767) as i16).collect();
                total.add(&voice, mix::loudest(&voice));
                sum::add(&voice, &mut plain);
                // A look at it in between changes nothing.
                if rng.random_bool(0.1) {
                    assert_eq!(total.widened(), plain);
                }
            }
            if let Some((bound, samples)) = total.narrow() {
                narrow += 1;
                assert!(samples.iter().zip(&plain).all(|(sample, plain)| i32::from(*sample) == *plain));
                assert!(plain.iter().all(|plain| plain.unsigned_abs() <= bound) && bound <= 32_767);
            } else {
                wide += 1;
            }
            assert_eq!(total.widened(), plain);
            let peak = mix::peak(&plain);
            if peak <= 32_767 {
                total.make_narrow(peak);
                assert!(total.samples().iter().map(|sample| i32::from(*sample)).eq(plain.clone()));
            }
            assert!(total.narrow().is_none_or(|(_, samples)| samples.iter().map(|s| i32::from(*s)).eq(plain.clone())));
            total.wide()[0] += 70_000;
            plain[0] += 70_000;
            total.add(&vec![5; len], 5);
            plain.iter_mut().for_each(|sample| *sample += 5);
            assert_eq!(total.widened(), plain);
            assert!(total.narrow().is_none());
        }
        assert!(narrow > 500 && wide > 500, "{narrow} {wide}");
    }
}
