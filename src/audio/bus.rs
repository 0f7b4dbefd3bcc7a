//! The mix bus of a room: the sum of everybody's frame, in as many bits as it needs.
//!
//! Voices that cannot leave the range of a sample together are added in 16 bits, of which a vector holds twice as many as
//! of 32, and nothing has to be narrowed before one's own voice is taken out and the rest is encoded. Beyond that they are
//! added in 16 bits by groups, and the groups in 32.

use super::mix::{self, Gain, Loud};
use super::sum;

/// Samples of the longest frame: 20 ms at 16,000 Hz.
const MAX_FRAME: usize = 320;

/// A sum of voices, in frames of 320 samples at most.
#[derive(Debug)]
pub struct Bus {
    frame: usize,
    /// The present group, or the whole sum.
    samples: [i16; MAX_FRAME],
    /// What no sample of the group can exceed: the sum of its voices' peaks.
    bound: u32,
    /// The groups before it.
    sum: [i32; MAX_FRAME],
    /// Something is in `sum`.
    is_wide: bool,
    /// `samples` is the whole sum, and no voice can be taken out of it that leaves the range.
    is_whole: bool,
    /// The largest peak of one voice.
    loudest: u16,
    loud: Loud,
}

impl Default for Bus {
    fn default() -> Self {
        Self {
            frame: 0,
            samples: [0; MAX_FRAME],
            bound: 0,
            sum: [0; MAX_FRAME],
            is_wide: false,
            is_whole: false,
            loudest: 0,
            loud: Loud::default(),
        }
    }
}

impl Bus {
    /// A frame of so many samples begins: silence.
    pub fn begin(&mut self, frame: usize) {
        self.frame = frame;
        (self.bound, self.loudest, self.is_wide, self.is_whole) = (0, 0, false, false);
        self.samples[..frame].fill(0);
    }

    /// Adds a voice whose largest magnitude is `peak`.
    #[inline]
    pub fn add(&mut self, voice: &[i16], peak: u16) {
        self.loudest = self.loudest.max(peak);
        let bound = self.bound + u32::from(peak);
        if bound <= i16::MAX as u32 {
            self.bound = bound;
            sum::add_narrow(voice, &mut self.samples[..self.frame]);
        } else {
            self.begin_group(voice, peak);
        }
    }

    #[inline(never)]
    fn begin_group(&mut self, voice: &[i16], peak: u16) {
        if u32::from(peak) <= i16::MAX as u32 {
            self.widen();
            self.samples[..self.frame].copy_from_slice(&voice[..self.frame]);
            self.bound = u32::from(peak);
        } else {
            sum::add(voice, self.wide());
        }
    }

    /// All voices were added: the room's gain goes on to this frame, and everybody's mix can be made.
    pub fn end(&mut self, gain: &mut Gain, rate: u32) {
        if !self.is_wide {
            gain.next(self.bound, rate);
            // What is left without a voice is a sum of the others.
            self.is_whole = gain.leaves_alone(self.bound, 0);
        } else {
            let peak = mix::peak(self.wide());
            gain.next(peak, rate);
            self.is_whole = gain.leaves_alone(peak, self.loudest);
            if self.is_whole {
                mix::narrowed(&self.sum[..self.frame], &mut self.samples[..self.frame]);
            }
        }
        if !self.is_whole {
            self.widen();
            self.loud.find(&self.sum[..self.frame], self.loudest, gain);
        }
    }

    /// The sum as samples, when no mix of it is limited: it can be encoded as it is, and without any voice that is in it.
    #[inline]
    pub fn whole(&self) -> Option<&[i16]> {
        self.is_whole.then_some(&self.samples[..self.frame])
    }

    /// The sum in 32 bits, to be read and, before [`Bus::end`], added to.
    pub fn wide(&mut self) -> &mut [i32] {
        self.widen();
        &mut self.sum[..self.frame]
    }

    /// The mix of one who hears the sum, without `own` voice when that is in it.
    pub fn mix(&mut self, own: Option<&[i16]>, gain: &Gain, output: &mut [i16]) {
        self.widen();
        mix::minus_among(&self.sum[..self.frame], own, gain, &self.loud, output);
    }

    /// The present group goes to the sum; samples that are whole stay besides.
    fn widen(&mut self) {
        let (samples, sum) = (&mut self.samples[..self.frame], &mut self.sum[..self.frame]);
        let is_first = !std::mem::replace(&mut self.is_wide, true);
        if is_first {
            sum.fill(0);
        }
        if self.bound > 0 {
            sum::add(samples, sum);
            self.bound = 0;
            if !self.is_whole {
                samples.fill(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn every_mix_is_that_of_the_plain_sum_however_loud_and_many_the_voices_are() {
        let mut rng = StdRng::seed_from_u64(9);
        let (mut bus, mut wholes, mut limited) = (Bus::default(), 0, 0);
        for (rate, frame) in [(8_000, 160), (16_000, 320)] {
            let (mut gain, mut plain_gain) = (Gain::new(frame), Gain::new(frame));
            for n in 0..400 {
                // Quiet for longer than a gain takes to return.
                let level = [50, 3_000, 20_000, 32_769][if n % 80 < 60 { n % 2 } else { rng.random_range(1..4) }];
                let voices: Vec<Vec<i16>> = (0..rng.random_range(0..if level < 5_000 { 20 } else { 40 }))
                    .map(|_| {
                        (0..frame).map(|_| rng.random_range(-level..level).clamp(-32_768, 32_767) as i16).collect()
                    })
                    .collect();
                bus.begin(frame);
                let mut plain = vec![0; frame];
                for voice in &voices {
                    bus.add(voice, mix::loudest(voice));
                    sum::add(voice, &mut plain);
                }
                if rng.random_bool(0.1) {
                    sum::add(&[700; 320], bus.wide());
                    sum::add(&[700; 320], &mut plain);
                }
                bus.end(&mut gain, rate);
                plain_gain.next(mix::peak(&plain), rate);
                limited += u32::from(!plain_gain.leaves_alone(0, 0));
                for own in voices.iter().map(|voice| Some(&voice[..])).chain([None]) {
                    let (mut mixed, mut expected) = (vec![0; frame], vec![0; frame]);
                    mix::minus(&plain, own, &plain_gain, &mut expected);
                    if let Some(whole) = bus.whole() {
                        wholes += 1;
                        mixed.copy_from_slice(whole);
                        let own = own.unwrap_or(&[0; 320]);
                        mixed.iter_mut().zip(own).for_each(|(sample, own)| *sample = sample.wrapping_sub(*own));
                        assert_eq!(mixed, expected);
                    }
                    if rng.random_bool(0.3) {
                        bus.mix(own, &gain, &mut mixed);
                        assert_eq!(mixed, expected);
                    }
                }
                assert_eq!(bus.wide(), plain);
            }
        }
        assert!(wholes > 500 && limited > 100, "{wholes} {limited}");
    }
}
