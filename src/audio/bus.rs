//! The mix bus of a room: the sum of everybody's frame, and everybody's mix of it.
//!
//! While no mix of it is limited the sum is taken as samples: nothing has to be narrowed before one's own voice is taken out
//! and the rest is encoded.

use super::mix::{self, Gain, MAX_FRAME};
use super::scaled::Scaled;
use super::total::Total;

/// A sum of voices, in frames of 320 samples at most.
#[derive(Debug, Default)]
pub struct Bus {
    total: Total<MAX_FRAME>,
    /// The sum can be taken as samples, and no voice can be taken out of it that leaves the range.
    is_whole: bool,
    /// The largest peak of one voice.
    loudest: u16,
    /// With the room's gain.
    scaled: Scaled,
    /// It is what there is to hear.
    is_scaled: bool,
}

impl Bus {
    /// A frame of so many samples begins: silence.
    pub fn begin(&mut self, frame: usize) {
        self.total.begin(frame);
        (self.loudest, self.is_whole, self.is_scaled) = (0, false, false);
    }

    /// Adds a voice whose largest magnitude is `peak`.
    #[inline]
    pub fn add(&mut self, voice: &[i16], peak: u16) {
        self.loudest = self.loudest.max(peak);
        self.total.add(voice, peak);
    }

    /// All voices were added: the room's gain goes on to this frame, and everybody's mix can be made.
    pub fn end(&mut self, gain: &mut Gain, rate: u32) {
        if let Some((bound, _)) = self.total.narrow() {
            gain.next(bound, rate);
            // What is left without a voice is a sum of the others.
            self.is_whole = gain.leaves_alone(bound, 0);
        } else {
            let peak = mix::peak(self.total.widened());
            gain.next(peak, rate);
            self.is_whole = gain.leaves_alone(peak, self.loudest);
            if self.is_whole {
                self.total.make_narrow(peak);
            }
        }
        if !self.is_whole {
            self.is_scaled = self.scaled.make(self.total.widened(), self.loudest, gain);
        }
    }

    /// The sum as samples, when no mix of it is limited: it can be encoded as it is, and without any voice that is in it.
    #[inline]
    pub fn whole(&self) -> Option<&[i16]> {
        self.is_whole.then(|| self.total.samples())
    }

    /// The sum in 32 bits, to be added to before [`Bus::end`].
    pub fn wide(&mut self) -> &mut [i32] {
        self.total.wide()
    }

    /// The sum in 32 bits.
    pub fn widened(&mut self) -> &[i32] {
        self.total.widened()
    }

    /// The mix of one who hears the sum, without `own` voice when that is in it.
    pub fn mix(&mut self, own: Option<&[i16]>, gain: &Gain, output: &mut [i16]) {
        match (self.whole(), own) {
            (Some(whole), None) => output.copy_from_slice(whole),
            _ if self.is_scaled => self.scaled.without(self.total.widened(), own, gain, output),
            _ => mix::minus(self.total.widened(), own, gain, output),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::audio::sum;

    #[test]
    fn every_mix_is_that_of_the_plain_sum_however_loud_and_many_the_voices_are() {
        let mut rng = StdRng::seed_from_u64(9);
        let (mut bus, mut wholes, mut limited, mut scaled) = (Bus::default(), 0, 0, 0);
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
                        let most = mixed.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max();
                        assert!(most <= Some(if bus.is_scaled { 2 } else { 0 }), "{most:?}");
                        scaled += u32::from(bus.is_scaled);
                    }
                }
                assert_eq!(bus.widened(), plain);
            }
        }
        assert!(wholes > 500 && limited > 100 && scaled > 500, "{wholes} {limited} {scaled}");
    }
}
