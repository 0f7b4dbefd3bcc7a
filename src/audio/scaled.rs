//! The mixes of a room whose gain is below 1: the gain is applied to the sum once, and one's own voice taken out of that in
//! 16 bits, of which a vector holds twice as many as of 32.
//!
//! A mix differs from the exact one ([`mix::minus`]) by no more than 2: the sum, the gain and the voice are rounded apart.

#[cfg(not(baseline))]
use multiversion::multiversion;

use super::mix::{self, Gain, KNEE, MAX_FRAME, NOBODY, rounded};

/// Samples that are bent together: a division for every sample of a frame costs more than all else that makes a mix.
const BLOCK: usize = 16;
/// A gain of 1, or nearly.
const UNITY: f32 = 65_535.0;

/// A frame's sum with the room's gain.
#[derive(Debug)]
pub struct Scaled {
    /// Without meaning in a loud block.
    sum: [i16; MAX_FRAME],
    /// In parts of 65,536: the bits of a `u16`.
    gain: [i16; MAX_FRAME],
    /// A bit for each block in which somebody's mix may stand above the knee when the gain has been applied.
    loud: u32,
}

const _: () = assert!(MAX_FRAME.div_ceil(BLOCK) <= u32::BITS as usize, "a bit for each");

impl Default for Scaled {
    fn default() -> Self {
        Self { sum: [0; MAX_FRAME], gain: [0; MAX_FRAME], loud: 0 }
    }
}

impl Scaled {
    /// Takes a sum of voices, in whole blocks, of which none is louder than `voice`. False while the gain takes away nothing.
    pub fn make(&mut self, sum: &[i32], voice: u16, gain: &Gain) -> bool {
        let Some(curve) = gain.curve() else { return false };
        debug_assert!(sum.len().is_multiple_of(BLOCK), "frames are of 160 and 320 samples");
        scale(sum, curve, &mut self.sum);
        in_parts(curve, &mut self.gain);
        self.loud = 0;
        for (n, (sum, curve)) in sum.chunks(BLOCK).zip(curve.chunks(BLOCK)).enumerate() {
            self.loud |= u32::from(loudest(sum, u32::from(voice), curve) > KNEE) << n;
        }
        true
    }

    /// The mix of one who hears the sum, without `own` voice when that is in it; of the sum and the gain that it was made of.
    pub fn without(&self, sum: &[i32], own: Option<&[i16]>, gain: &Gain, output: &mut [i16]) {
        let own = own.unwrap_or(&NOBODY);
        take_out(&self.sum, own, &self.gain, output);
        if self.loud != 0
            && let Some(curve) = gain.curve()
        {
            bend(self.loud, sum, own, curve, output);
        }
    }
}

/// The loudest that a mix can be. Rounded, it is no less than what becomes of any smaller magnitude.
#[cfg_attr(not(baseline), multiversion(targets("x86_64+avx512bw+avx512vl", "x86_64+avx2")))]
fn loudest(sum: &[i32], voice: u32, curve: &[f32]) -> f32 {
    let mut most = 0.0;
    for (total, gain) in sum.iter().zip(curve) {
        let value = total.unsigned_abs().wrapping_add(voice) as i32 as f32 * gain;
        most = if value > most { value } else { most };
    }
    most
}

/// The sum with its gain; what is louder than a sample can be has no meaning.
#[cfg_attr(not(baseline), multiversion(targets("x86_64+avx512bw+avx512vl", "x86_64+avx2")))]
fn scale(sum: &[i32], curve: &[f32], output: &mut [i16]) {
    for ((sample, total), gain) in output.iter_mut().zip(sum).zip(curve) {
        *sample = rounded(*total as f32 * gain);
    }
}

#[cfg_attr(not(baseline), multiversion(targets("x86_64+avx512bw+avx512vl", "x86_64+avx2")))]
fn in_parts(curve: &[f32], output: &mut [i16]) {
    for (parts, gain) in output.iter_mut().zip(curve) {
        *parts = rounded(*gain * UNITY);
    }
}

#[cfg_attr(not(baseline), multiversion(targets("x86_64+avx512bw+avx512vl", "x86_64+avx2")))]
fn take_out(sum: &[i16], own: &[i16], gain: &[i16], output: &mut [i16]) {
    for (((sample, total), own), gain) in output.iter_mut().zip(sum).zip(own).zip(gain) {
        // The upper half of a signed product is one instruction of vector units (`pmulhw`). A gain of a half and more is
        // negative in it, that is too small by 65,536 parts: a whole voice.
        let product = ((i32::from(*own) * i32::from(*gain)) >> 16) as i16;
        *sample = total.wrapping_sub(product.wrapping_add(own & (gain >> 15)));
    }
}

/// The exact mix in the blocks that are named.
#[cfg_attr(not(baseline), multiversion(targets("x86_64+avx512bw+avx512vl", "x86_64+avx2")))]
fn bend(loud: u32, sum: &[i32], own: &[i16], curve: &[f32], output: &mut [i16]) {
    let (sum, own, curve) = (sum.as_chunks::<BLOCK>().0, own.as_chunks::<BLOCK>().0, curve.as_chunks::<BLOCK>().0);
    let output = output.as_chunks_mut::<BLOCK>().0;
    let mut rest = loud;
    while rest != 0 {
        let at = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        for n in 0..BLOCK {
            output[at][n] = mix::bent(sum[at][n], own[at][n], curve[at][n]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_the_exact_one_within_2_and_exact_above_the_knee() {
        // Peaks that are seldom, as those of many voices are, and as many as there can be.
        for (every, falls) in [(40, true), (40, false), (2, false), (1, false)] {
            let sum: Vec<i32> = (0..160).map(|i| if i % every == 0 { 90_000 - i } else { 300 * i - 24_000 }).collect();
            // What takes the others furthest beyond the range, and what does so nowhere.
            let voice = |i| if i % every == 0 { -10_000 } else { (i * 7_919 % 20_000) as i16 - 10_000 };
            let own: Vec<i16> = (0..160).map(voice).collect();
            let mut gain = Gain::new(160);
            if !falls {
                gain.next(90_000, 8_000);
            }
            gain.next(mix::peak(&sum), 8_000);
            let mut scaled = Scaled::default();
            assert!(scaled.make(&sum, 10_000, &gain));
            assert_eq!(scaled.loud.count_ones() < 9, every == 40, "{:b}", scaled.loud);
            for own in [Some(&own[..]), None] {
                let (mut output, mut expected) = ([0; 160], [0; 160]);
                mix::minus(&sum, own, &gain, &mut expected);
                let bent = expected.iter().filter(|sample| sample.unsigned_abs() > KNEE as u16).count();
                assert!(bent >= 3 || own.is_none(), "{bent}");
                scaled.without(&sum, own, &gain, &mut output);
                for (n, (sample, exact)) in output.iter().zip(&expected).enumerate() {
                    let allowed = if exact.unsigned_abs() > KNEE as u16 { 0 } else { 2 };
                    assert!(sample.abs_diff(*exact) <= allowed, "sample {n}: {sample} for {exact}");
                }
            }
        }
    }

    #[test]
    fn a_voice_of_any_level_is_taken_out_whatever_the_gain_is() {
        let own: Vec<i16> = (-32_768..=32_767).step_by(205).take(320).map(|sample| sample as i16).collect();
        let sum: Vec<i32> = own.iter().map(|own| i32::from(*own)).collect();
        for peak in [32_768, 33_000, 45_000, 65_536, 900_000, 8_388_608] {
            let mut gain = Gain::new(320);
            gain.next(peak, 16_000);
            gain.next(peak, 16_000);
            let (mut scaled, mut output) = (Scaled::default(), vec![0; 320]);
            assert!(scaled.make(&sum, 32_768, &gain));
            scaled.without(&sum, Some(&own), &gain, &mut output);
            let most = output.iter().map(|sample| sample.unsigned_abs()).max();
            assert!(most <= Some(2), "{most:?} is left of it where the sum was {peak}");
        }
    }

    #[test]
    fn nothing_is_scaled_while_the_gain_takes_away_nothing() {
        let mut gain = Gain::new(160);
        gain.next(30_000, 8_000);
        assert!(!Scaled::default().make(&[0; 160], 0, &gain));
    }
}
