//! What a live mixer does with sums: one's own voice taken out, and levels that stay within the range.
//!
//! A recording's limiter ([`super::sum::Limiter`]) looks 5 ms ahead and is exact; a conversation has no time for that
//! and one sum per listener. Here one gain per room follows the loudest sum of each frame, the further below the ceiling the
//! further that leaves the range, and what leaves it all the same is bent softly: nothing is ever clipped.

#[cfg(not(baseline))]
use multiversion::multiversion;

/// Largest magnitude that leaves.
const CEILING: f32 = 32_767.0;
/// From here samples are bent when something in their frame leaves the range.
pub(super) const KNEE: f32 = 26_000.0;
/// The gain falls within so long, in ms.
const ATTACK_MS: usize = 5;
/// Time constant with which it returns, in ms.
const RELEASE_MS: f32 = 80.0;
/// From here it is 1: inaudible, and samples are exact again.
const UNITY: f32 = 0.999;

/// Samples of the longest frame: 20 ms at 16,000 Hz.
pub(super) const MAX_FRAME: usize = 320;
/// A voice that is not there, and a gain of 1.
pub(super) const NOBODY: [i16; MAX_FRAME] = [0; MAX_FRAME];
const UNCHANGED: [f32; MAX_FRAME] = [1.0; MAX_FRAME];

/// The largest magnitude.
pub fn peak(sum: &[i32]) -> u32 {
    peak_of(sum)
}

/// The largest magnitude.
pub fn loudest(samples: &[i16]) -> u16 {
    loudest_of(samples)
}

/// A sum of at most 320 samples without one's own voice, or whole, as samples.
pub fn minus(sum: &[i32], own: Option<&[i16]>, gain: &Gain, output: &mut [i16]) {
    let beyond = match (own, gain.curve()) {
        (Some(own), None) => minus_own(sum, own, output),
        (None, None) => narrow(sum, output),
        (own, Some(curve)) => {
            bend(sum, own.unwrap_or(&NOBODY), curve, output);
            return;
        }
    };
    if beyond {
        bend(sum, own.unwrap_or(&NOBODY), &UNCHANGED, output);
    }
}

/// A sum of which nothing leaves the range, as samples.
pub fn narrowed(sum: &[i32], output: &mut [i16]) {
    let beyond = narrow(sum, output);
    debug_assert!(!beyond, "a sum that leaves the range");
}

/// A room's gain: falls within 5 ms when a frame's sum leaves the range, and returns slowly.
#[derive(Debug, Clone)]
pub struct Gain {
    level: f32,
    curve: Vec<f32>,
    active: bool,
}

impl Gain {
    /// For frames of a length.
    pub fn new(frame: usize) -> Self {
        Self { level: 1.0, curve: vec![1.0; frame], active: false }
    }

    /// Goes on to the next frame, whose sum has this [`peak`].
    pub fn next(&mut self, peak: u32, rate: u32) {
        let needed = needed(peak as f32);
        let before = self.level;
        self.active = needed < 1.0 || before < 1.0;
        if !self.active {
            return;
        }
        let ms = self.curve.len() as f32 * 1_000.0 / rate as f32;
        let returned = before + (1.0 - before) * (1.0 - (-ms / RELEASE_MS).exp());
        self.level = if needed < returned { needed } else { returned };
        let attack = rate as usize / 1_000 * ATTACK_MS;
        // It falls fast and rises over the whole frame.
        let over = if self.level < before { attack.min(self.curve.len()) } else { self.curve.len() };
        for (i, gain) in self.curve.iter_mut().enumerate() {
            *gain = if i < over { before + (self.level - before) * (i + 1) as f32 / over as f32 } else { self.level };
        }
        if self.level > UNITY && needed >= 1.0 {
            self.level = 1.0;
        }
    }

    /// True when it takes away nothing from a sum with this [`peak`], nor from one without a voice that is as loud as
    /// `voice` at most: sums and differences are samples as they are.
    pub fn leaves_alone(&self, peak: u32, voice: u16) -> bool {
        !self.active && peak + u32::from(voice) <= i16::MAX as u32
    }

    /// A gain a sample; `None` while it takes away nothing.
    pub(super) fn curve(&self) -> Option<&[f32]> {
        self.active.then_some(&self.curve[..])
    }
}

/// The gain that a sum with this peak needs: the further it leaves the range the further it is brought below the ceiling, to
/// the knee at most, so that only little has to be bent where many speak at once.
fn needed(peak: f32) -> f32 {
    let beyond = (peak / CEILING - 1.0) * 2.0;
    if beyond <= 0.0 {
        return 1.0;
    }
    (CEILING - (CEILING - KNEE) * beyond.min(1.0)) / peak
}

/// Fades the first 5 ms in.
pub fn fade_in(samples: &mut [i16], rate: u32) {
    let over = (rate as usize / 1_000 * ATTACK_MS).min(samples.len());
    for (i, sample) in samples[..over].iter_mut().enumerate() {
        *sample = (i32::from(*sample) * (i as i32 + 1) / (over as i32 + 1)) as i16;
    }
}

/// Fades the last 5 ms out.
pub fn fade_out(samples: &mut [i16], rate: u32) {
    let over = (rate as usize / 1_000 * ATTACK_MS).min(samples.len());
    for (i, sample) in samples.iter_mut().rev().take(over).enumerate() {
        *sample = (i32::from(*sample) * i as i32 / over as i32) as i16;
    }
}

// Loops, not folds: a closure that is not inlined is compiled for the least processor.

#[cfg_attr(not(baseline), multiversion(targets("x86_64+avx512bw+avx512vl", "x86_64+avx2")))]
fn peak_of(sum: &[i32]) -> u32 {
    // The least and the largest: SSE2 has neither magnitudes nor unsigned maxima, and this is as fast elsewhere.
    let (mut least, mut most) = (0, 0);
    for value in sum {
        least = if *value < least { *value } else { least };
        most = if *value > most { *value } else { most };
    }
    least.unsigned_abs().max(most.unsigned_abs())
}

#[cfg_attr(not(baseline), multiversion(targets("x86_64+avx512bw+avx512vl", "x86_64+avx2")))]
fn loudest_of(samples: &[i16]) -> u16 {
    let (mut least, mut most) = (0, 0);
    for sample in samples {
        least = if *sample < least { *sample } else { least };
        most = if *sample > most { *sample } else { most };
    }
    least.unsigned_abs().max(most.unsigned_abs())
}

/// True when something left the range.
#[cfg_attr(not(baseline), multiversion(targets("x86_64+avx512bw+avx512vl", "x86_64+avx2")))]
fn minus_own(sum: &[i32], own: &[i16], output: &mut [i16]) -> bool {
    let mut beyond = 0;
    for ((sample, total), own) in output.iter_mut().zip(sum).zip(own) {
        let value = *total - i32::from(*own);
        beyond |= shifted(value);
        *sample = value.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16;
    }
    beyond > u32::from(u16::MAX)
}

/// True when something left the range.
#[cfg_attr(not(baseline), multiversion(targets("x86_64+avx512bw+avx512vl", "x86_64+avx2")))]
fn narrow(sum: &[i32], output: &mut [i16]) -> bool {
    let mut beyond = 0;
    for (sample, total) in output.iter_mut().zip(sum) {
        beyond |= shifted(*total);
        *sample = (*total).clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16;
    }
    beyond > u32::from(u16::MAX)
}

/// Has a bit above the lowest 16 when the value is no sample. The clamped value is not looked at, so that the compiler
/// packs it by one saturating instruction.
#[inline(always)]
fn shifted(value: i32) -> u32 {
    (value as u32).wrapping_add(1 << 15)
}

/// With a gain, and a soft knee.
#[cfg_attr(not(baseline), multiversion(targets("x86_64+avx512bw+avx512vl", "x86_64+avx2")))]
fn bend(sum: &[i32], own: &[i16], curve: &[f32], output: &mut [i16]) {
    for (((sample, total), own), gain) in output.iter_mut().zip(sum).zip(own).zip(curve) {
        *sample = bent(*total, *own, *gain);
    }
}

#[inline(always)]
pub(super) fn bent(total: i32, own: i16, gain: f32) -> i16 {
    rounded(knee((total - i32::from(own)) as f32 * gain))
}

/// A straight line up to the knee, then a curve that never reaches the ceiling.
#[inline(always)]
fn knee(value: f32) -> f32 {
    let magnitude = value.abs();
    let beyond = if magnitude > KNEE { magnitude - KNEE } else { 0.0 };
    let bent = magnitude - beyond + beyond * (CEILING - KNEE) / (beyond + CEILING - KNEE);
    bent.copysign(value)
}

/// The nearest integer of a value within ±2²¹. Added to 1.5 · 2²³ it stands in the lowest bits of the sum; a conversion by
/// `as` saturates, for which the compiler leaves its vectors.
#[inline(always)]
pub(super) fn rounded(value: f32) -> i16 {
    (value + 12_582_912.0).to_bits() as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixed(gain: &mut Gain, sum: &[i32], own: Option<&[i16]>) -> Vec<i16> {
        let mut output = vec![0; sum.len()];
        gain.next(peak(sum), 8_000);
        minus(sum, own, gain, &mut output);
        output
    }

    #[test]
    fn sums_within_the_range_pass_bit_for_bit_with_and_without_ones_own() {
        let sum: Vec<i32> = (0..160).map(|i| i * 400 - 32_000).collect();
        let own: Vec<i16> = (0..160).map(|i| i * 3).collect();
        let mut gain = Gain::new(160);
        assert_eq!(mixed(&mut gain, &sum, None), sum.iter().map(|s| *s as i16).collect::<Vec<_>>());
        let without: Vec<i16> = sum.iter().zip(&own).map(|(s, o)| (*s - i32::from(*o)) as i16).collect();
        assert_eq!(mixed(&mut gain, &sum, Some(&own)), without);
    }

    #[test]
    fn a_sum_is_left_alone_only_while_no_difference_can_leave_the_range() {
        let mut gain = Gain::new(160);
        gain.next(30_000, 8_000);
        assert!(gain.leaves_alone(30_000, 2_767) && !gain.leaves_alone(30_000, 2_768));
        let (sum, mut output) = ([-30_000, 30_000], [0; 2]);
        narrowed(&sum, &mut output);
        assert_eq!(output, [-30_000, 30_000]);
        gain.next(40_000, 8_000);
        gain.next(0, 8_000);
        assert!(!gain.leaves_alone(0, 0), "it has not returned");
    }

    #[test]
    fn nothing_is_clipped_whatever_comes() {
        let loud = |level: f64, i: usize| (level * (i as f64 * 0.3).sin()) as i32;
        let mut gain = Gain::new(160);
        for level in [40_000.0, 250_000.0, 8_000_000.0, 33_000.0, 100.0] {
            let sum: Vec<i32> = (0..160).map(|i| loud(level, i)).collect();
            for output in [mixed(&mut gain, &sum, None), mixed(&mut gain, &sum, Some(&[-32_768; 160]))] {
                assert!(output.iter().all(|s| s.unsigned_abs() <= 32_767));
                let flat = output.windows(3).filter(|w| w[0] == w[1] && w[1] == w[2] && w[0].abs() > 32_000).count();
                assert_eq!(flat, 0, "clipped at {level}");
            }
        }
    }

    #[test]
    fn every_sum_and_magnitude_is_as_plain_arithmetic_has_it() {
        let sums: Vec<i32> =
            (-40_000..40_000).step_by(7).chain([i32::from(i16::MIN), 32_767, 8_388_352, -8_388_608]).collect();
        for sum in sums.chunks(37) {
            let mut output = [0; 37];
            let own = [-300; 37];
            let most = sum.iter().map(|value| value.unsigned_abs()).max().unwrap();
            assert_eq!(peak(sum), most);
            let beyond = minus_own(sum, &own, &mut output[..sum.len()]);
            let plain: Vec<i32> = sum.iter().map(|value| value + 300).collect();
            assert_eq!(beyond, plain.iter().any(|value| i16::try_from(*value).is_err()), "{sum:?}");
            let clamped: Vec<i16> = plain.iter().map(|value| (*value).clamp(-32_768, 32_767) as i16).collect();
            assert_eq!(output[..sum.len()], clamped);
            assert_eq!(narrow(&plain, &mut output[..sum.len()]), beyond);
            assert_eq!(output[..sum.len()], clamped);
            assert_eq!(loudest(&clamped), clamped.iter().map(|sample| sample.unsigned_abs()).max().unwrap());
        }
        for value in [0.0_f32, 0.4, -0.6, 26_000.4, -26_000.6, 32_766.4, -32_766.6] {
            assert_eq!(rounded(value), value.round() as i16, "{value}");
        }
    }

    #[test]
    fn a_loud_sum_keeps_its_shape_after_the_attack_and_the_gain_returns() {
        let tone = |level: f64| (0..160).map(|i| (level * (i as f64 * 0.157_08).sin()) as i32).collect::<Vec<_>>();
        let mut gain = Gain::new(160);
        mixed(&mut gain, &tone(60_000.0), None);
        let output = mixed(&mut gain, &tone(60_000.0), None);
        let most = output.iter().copied().max().unwrap();
        // 60,000 is more than half the range beyond it.
        assert!((25_900..=26_000).contains(&most), "{most}");
        let output: Vec<_> = (0..2).map(|_| mixed(&mut gain, &tone(60_000.0), None)).collect();
        assert!(
            output[1].iter().zip(tone(60_000.0)).all(|(s, t)| (f64::from(*s) - f64::from(t) * 26.0 / 60.0).abs() < 2.0)
        );
        let frames = (0..100).take_while(|_| mixed(&mut gain, &tone(10_000.0), None).iter().max() < Some(&9_990));
        let frames = frames.count();
        assert!((5..60).contains(&frames), "exact again after {frames} frames");
        assert_eq!(
            mixed(&mut gain, &tone(10_000.0), None),
            tone(10_000.0).iter().map(|s| *s as i16).collect::<Vec<_>>()
        );
    }

    #[test]
    fn what_leaves_the_range_a_little_loses_a_little() {
        assert_eq!([0.0, 32_767.0].map(needed), [1.0, 1.0]);
        let slightly = 33_000.0 * needed(33_000.0);
        assert!((32_600.0..=32_767.0).contains(&slightly), "{slightly}");
        let made: Vec<f32> = (20..200).map(|n| 1_000.0 * n as f32 * needed(1_000.0 * n as f32)).collect();
        assert!(made.windows(2).all(|pair| (pair[1] - pair[0]).abs() <= 1_001.0), "no jump");
        assert!(
            made.iter().all(|level| *level <= CEILING) && made[100..].iter().all(|level| (*level - KNEE).abs() < 1.0)
        );
    }

    #[test]
    fn the_gain_never_jumps() {
        let mut gain = Gain::new(160);
        let all: Vec<i16> = [20_000, 90_000, 90_000, 20_000, 20_000]
            .into_iter()
            .flat_map(|level| mixed(&mut gain, &[level; 160], None))
            .collect();
        let inside = |i: &usize| !i.is_multiple_of(160);
        let jump = (1..all.len()).filter(inside).map(|i| (i32::from(all[i]) - i32::from(all[i - 1])).abs()).max();
        // From 1 to 26 / 90 in a straight line of 40 samples.
        assert!(jump < Some(1_610), "{jump:?}");
    }

    #[test]
    fn fades_begin_and_end_at_nothing_and_leave_the_rest() {
        let (mut rising, mut falling) = ([10_000; 160], [10_000; 160]);
        fade_in(&mut rising, 8_000);
        fade_out(&mut falling, 8_000);
        assert!(rising[0] < 300 && rising[40] == 10_000 && rising[39] < 10_000);
        assert!(falling[159] < 300 && falling[119] == 10_000 && falling[120] < 10_000);
        assert!(rising.windows(2).chain(falling.windows(2)).all(|w| (w[1] - w[0]).abs() <= 251));
    }
}
