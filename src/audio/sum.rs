//! Sums of several voices: 32 bits wide, then a look-ahead peak limiter (spec/recording.md §2 "Level").

#[cfg(not(baseline))]
use multiversion::multiversion;

/// Largest magnitude that leaves the limiter.
const CEILING: i32 = 32_767;

/// The look-ahead: how long before a peak the gain begins to fall.
const ATTACK_MS: u32 = 5;

/// Time constant with which the gain returns.
const RELEASE_MS: f32 = 50.0;

/// From here the gain is 1: inaudible, and samples are exact again.
const UNITY: f32 = 0.999_9;

/// Samples of which the gains are found together.
const PIECE: usize = 64;

/// Adds samples to a sum, as many as the shorter slice holds.
pub fn add(samples: &[i16], sum: &mut [i32]) {
    add_slices(samples, sum);
}

/// Adds samples to a sum that they do not take out of the range of a sample, as many as the shorter slice holds.
pub fn add_narrow(samples: &[i16], sum: &mut [i16]) {
    add_narrow_slices(samples, sum);
}

#[cfg_attr(not(baseline), multiversion(targets("x86_64+avx512bw+avx512vl", "x86_64+avx2")))]
fn add_narrow_slices(samples: &[i16], sum: &mut [i16]) {
    for (total, sample) in sum.iter_mut().zip(samples) {
        *total = total.wrapping_add(*sample);
    }
}

#[cfg_attr(not(baseline), multiversion(targets("x86_64+avx512bw+avx512vl", "x86_64+avx2")))]
fn add_slices(samples: &[i16], sum: &mut [i32]) {
    for (total, sample) in sum.iter_mut().zip(samples) {
        *total += i32::from(*sample);
    }
}

#[cfg_attr(not(baseline), multiversion(targets("x86_64+avx512bw+avx512vl", "x86_64+avx2")))]
fn exceeds_ceiling(sum: &[i32]) -> bool {
    // A loop, not a fold: a closure that is not inlined is compiled for the least processor.
    let mut beyond = false;
    for value in sum {
        beyond |= *value > CEILING || *value < -CEILING;
    }
    beyond
}

/// A sum as samples; what leaves their range becomes the nearest of them.
pub fn narrow(sum: &[i32], samples: &mut [i16]) {
    narrow_slices(sum, samples);
}

#[cfg_attr(not(baseline), multiversion(targets("x86_64+avx512bw+avx512vl", "x86_64+avx2")))]
fn narrow_slices(sum: &[i32], samples: &mut [i16]) {
    for (sample, total) in samples.iter_mut().zip(sum) {
        // −32,768 is a legal sample of one contributor (L16); sums beyond were limited before.
        *sample = (*total).clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16;
    }
}

/// Frames by which [`Limiter`] and [`Delay`] are late at a sample rate in Hz.
pub fn look_ahead(sample_rate: u32) -> usize {
    (sample_rate * ATTACK_MS / 1_000) as usize
}

/// Keeps a sum within ±32,767. Its output is [`look_ahead`] samples late. The gain is exactly 1, and samples pass bit for
/// bit, while nothing near leaves the range, and wherever only one voice contributes.
#[derive(Debug, Clone)]
pub struct Limiter {
    /// The last `look_ahead` inputs.
    delayed: Vec<i32>,
    /// Of each of them: one voice only, to be passed as it is.
    single: Vec<bool>,
    /// Position of the oldest in both.
    position: usize,
    release: f32,
    slow: Option<Slow>,
}

/// State that exists only around a peak.
#[derive(Debug, Clone)]
struct Slow {
    /// The gains that the last inputs need, as many as count for the least of the look-ahead, and the held gains, whose mean
    /// is the gain: it falls in a straight line and meets the peak. Both are rings of as many.
    needed: Vec<f32>,
    held: Vec<f32>,
    /// Position of the oldest in both.
    position: usize,
    /// The least of `needed`, and for how many more inputs it counts.
    least: f32,
    counts: usize,
    held_sum: f64,
    /// How many of `held` are below 1.
    below: usize,
    released: f32,
}

impl Limiter {
    /// For a sample rate in Hz.
    pub fn new(sample_rate: u32) -> Self {
        let len = look_ahead(sample_rate);
        Self {
            delayed: vec![0; len],
            single: vec![true; len],
            position: 0,
            release: 1.0 - (-1_000.0 / (RELEASE_MS * sample_rate as f32)).exp(),
            slow: None,
        }
    }

    /// Takes sums of `voices` contributors and gives as many samples, [`look_ahead`] late.
    pub fn process(&mut self, sum: &[i32], voices: usize, output: &mut [i16]) {
        debug_assert_eq!(sum.len(), output.len());
        if self.slow.is_none() && (voices <= 1 || !exceeds_ceiling(sum)) {
            self.delay(sum, voices <= 1, output);
            return;
        }
        self.limit(sum, voices <= 1, output);
    }

    /// As [`Limiter::process`] of sums that are samples (of several voices: within ±32,767). False, and nothing was done, while
    /// a gain is below 1 or when there are fewer samples than the look-ahead.
    pub fn pass(&mut self, sum: &[i16], voices: usize, output: &mut [i16]) -> bool {
        debug_assert_eq!(sum.len(), output.len());
        let len = self.delayed.len();
        if self.slow.is_some() || sum.len() < len {
            return false;
        }
        self.delayed.rotate_left(self.position);
        self.position = 0;
        let (before, rest) = output.split_at_mut(len);
        let (passed, last) = sum.split_at(sum.len() - len);
        narrow_slices(&self.delayed, before);
        rest.copy_from_slice(passed);
        for (delayed, sample) in self.delayed.iter_mut().zip(last) {
            *delayed = i32::from(*sample);
        }
        self.single.fill(voices <= 1);
        true
    }

    /// Unity gain: the delay line alone. What is longer than the line goes through it only at its end: piece by piece
    /// through 5 ms of line, a quarter second was fifty small copies.
    fn delay(&mut self, sum: &[i32], single: bool, output: &mut [i16]) {
        let len = self.delayed.len();
        let Some(at) = sum.len().checked_sub(len) else {
            return self.delay_piece(sum, single, output);
        };
        let (newer, older) = self.delayed.split_at(self.position);
        narrow_slices(older, &mut output[..older.len()]);
        narrow_slices(newer, &mut output[older.len()..len]);
        narrow_slices(&sum[..at], &mut output[len..]);
        self.delayed.copy_from_slice(&sum[at..]);
        self.single.fill(single);
        self.position = 0;
    }

    /// No more than the line holds.
    fn delay_piece(&mut self, sum: &[i32], single: bool, output: &mut [i16]) {
        let len = self.delayed.len();
        let mut done = 0;
        while done < sum.len() {
            let n = (len - self.position).min(sum.len() - done);
            let line = &mut self.delayed[self.position..self.position + n];
            narrow_slices(line, &mut output[done..done + n]);
            line.copy_from_slice(&sum[done..done + n]);
            self.single[self.position..self.position + n].fill(single);
            self.position = (self.position + n) % len;
            done += n;
        }
    }

    fn limit(&mut self, sum: &[i32], single: bool, output: &mut [i16]) {
        let len = self.delayed.len();
        let mut slow = self.slow.take().unwrap_or_else(|| Slow::new(len + 1));
        let (mut gains, mut done) = ([1.0; PIECE], 0);
        while done < sum.len() {
            let n = (len - self.position).min(sum.len() - done).min(PIECE);
            let (inputs, gains) = (&sum[done..done + n], &mut gains[..n]);
            if single {
                gains.fill(1.0);
            } else {
                needed_gains(inputs, gains);
            }
            slow.follow(gains, self.release);
            let line = self.position..self.position + n;
            apply(&self.delayed[line.clone()], &self.single[line.clone()], gains, &mut output[done..done + n]);
            self.delayed[line.clone()].copy_from_slice(inputs);
            self.single[line].fill(single);
            self.position = (self.position + n) % len;
            done += n;
        }
        self.slow = Some(slow).filter(|slow| !slow.is_idle());
    }
}

/// What each of several voices' sums needs to stay within the range.
#[cfg_attr(not(baseline), multiversion(targets("x86_64+avx512bw+avx512vl", "x86_64+avx2")))]
fn needed_gains(sum: &[i32], gains: &mut [f32]) {
    for (gain, value) in gains.iter_mut().zip(sum) {
        let magnitude = value.wrapping_abs();
        let needed = CEILING as f32 / magnitude as f32;
        *gain = if magnitude <= CEILING { 1.0 } else { needed };
    }
}

/// Samples with their gains; what is exact passes as it is.
#[cfg_attr(not(baseline), multiversion(targets("x86_64+avx512bw+avx512vl", "x86_64+avx2")))]
fn apply(sum: &[i32], exact: &[bool], gains: &[f32], output: &mut [i16]) {
    for (((sample, value), exact), gain) in output.iter_mut().zip(sum).zip(exact).zip(gains) {
        let passed = (*value).clamp(i32::from(i16::MIN), i32::from(i16::MAX));
        // Truncation towards zero cannot pass the ceiling; the clamp is for the rounding of f32.
        let limited = (*value as f32 * gain).clamp(-CEILING as f32, CEILING as f32) as i32;
        *sample = if *exact | (*gain >= 1.0) { passed as i16 } else { limited as i16 };
    }
}

impl Slow {
    /// For a least and a mean of so many gains.
    fn new(count: usize) -> Self {
        Self {
            needed: vec![1.0; count],
            held: vec![1.0; count],
            position: 0,
            least: 1.0,
            counts: count,
            held_sum: count as f64,
            below: 0,
            released: 1.0,
        }
    }

    /// Turns the gains that inputs need into those of the samples that are older by the look-ahead.
    fn follow(&mut self, gains: &mut [f32], release: f32) {
        let count = self.held.len();
        let (mut released, mut held_sum, mut below) = (self.released, self.held_sum, self.below);
        for gain in gains {
            self.needed[self.position] = *gain;
            self.counts -= 1;
            if *gain <= self.least {
                (self.least, self.counts) = (*gain, count);
            } else if self.counts == 0 {
                self.find_least();
            }
            // Nothing but this waits for the sample before: seldom taken, the branch costs it nothing.
            let risen = released * (1.0 - release) + release;
            let risen = if risen > UNITY { returned() } else { risen };
            released = if self.least < risen { self.least } else { risen };
            let oldest = std::mem::replace(&mut self.held[self.position], released);
            held_sum += f64::from(released) - f64::from(oldest);
            below = below + usize::from(released < 1.0) - usize::from(oldest < 1.0);
            *gain = if below == 0 { 1.0 } else { (held_sum / count as f64) as f32 };
            self.position = if self.position + 1 == count { 0 } else { self.position + 1 };
        }
        (self.released, self.held_sum, self.below) = (released, held_sum, below);
    }

    /// The former least does not count any more; the input at `position` is the newest.
    fn find_least(&mut self) {
        let (newer, older) = self.needed.split_at(self.position + 1);
        self.least = f32::INFINITY;
        for (age, gain) in newer.iter().rev().chain(older.iter().rev()).enumerate() {
            if *gain < self.least {
                (self.least, self.counts) = (*gain, self.needed.len() - age);
            }
        }
    }

    /// Every gain that counts is 1.
    fn is_idle(&self) -> bool {
        self.below == 0
    }
}

/// A gain that has come back; a function, so that the compiler makes a branch of it.
#[cold]
#[inline(never)]
fn returned() -> f32 {
    1.0
}

/// Delays samples as [`Limiter`] does, for files that are never limited.
#[derive(Debug, Clone)]
pub struct Delay {
    line: Vec<i16>,
    position: usize,
}

impl Delay {
    /// For a sample rate in Hz.
    pub fn new(sample_rate: u32) -> Self {
        Self { line: vec![0; look_ahead(sample_rate)], position: 0 }
    }

    /// Replaces each sample by the one [`look_ahead`] before it.
    pub fn process(&mut self, samples: &mut [i16]) {
        let len = self.line.len();
        if samples.len() >= len {
            // The last ones become the line, and what the line held stands before all others.
            self.line.rotate_left(self.position);
            self.position = 0;
            samples.rotate_right(len);
            samples[..len].swap_with_slice(&mut self.line);
            return;
        }
        let mut done = 0;
        while done < samples.len() {
            let n = (len - self.position).min(samples.len() - done);
            samples[done..done + n].swap_with_slice(&mut self.line[self.position..self.position + n]);
            self.position = (self.position + n) % len;
            done += n;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// The same limiter sample by sample, by its definition.
    struct Plain {
        /// Value, and whether it is one voice's.
        line: VecDeque<(i32, bool)>,
        needed: VecDeque<f32>,
        held: VecDeque<f32>,
        held_sum: f64,
        released: f32,
        release: f32,
    }

    impl Plain {
        fn new(sample_rate: u32) -> Self {
            let len = look_ahead(sample_rate);
            Self {
                line: vec![(0, true); len].into(),
                needed: vec![1.0; len + 1].into(),
                held: vec![1.0; len + 1].into(),
                held_sum: (len + 1) as f64,
                released: 1.0,
                release: 1.0 - (-1_000.0 / (RELEASE_MS * sample_rate as f32)).exp(),
            }
        }

        fn step(&mut self, value: i32, single: bool) -> i16 {
            let within = single || value.unsigned_abs() <= CEILING as u32;
            self.needed.push_back(if within { 1.0 } else { CEILING as f32 / value.unsigned_abs() as f32 });
            self.needed.pop_front();
            let least = self.needed.iter().copied().fold(1.0, f32::min);
            let risen = self.released * (1.0 - self.release) + self.release;
            self.released = least.min(if risen > UNITY { 1.0 } else { risen });
            let oldest = self.held.pop_front().unwrap();
            self.held.push_back(self.released);
            self.held_sum += f64::from(self.released) - f64::from(oldest);
            let mut gain = (self.held_sum / self.held.len() as f64) as f32;
            if self.held.iter().all(|gain| *gain >= 1.0) {
                (gain, self.held_sum) = (1.0, self.held.len() as f64);
            }
            self.line.push_back((value, single));
            let (old, exact) = self.line.pop_front().unwrap();
            if exact || gain >= 1.0 {
                return old.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16;
            }
            (old as f32 * gain).clamp(-CEILING as f32, CEILING as f32) as i16
        }
    }

    #[test]
    fn it_is_the_limiter_of_the_definition_in_blocks_of_any_size() {
        let mut rng = StdRng::seed_from_u64(4);
        for rate in [8_000, 16_000, 48_000] {
            let (mut limiter, mut plain, mut limited) = (Limiter::new(rate), Plain::new(rate), 0);
            for n in 0..600 {
                let level = [500, 40_000, 33_000, 200_000][if n % 100 < 60 { 0 } else { rng.random_range(0..4) }];
                let block: Vec<i32> =
                    (0..rng.random_range(1..rate as usize / 20)).map(|_| rng.random_range(-level..=level)).collect();
                let voices = rng.random_range(0..5);
                let mut output = vec![0; block.len()];
                limiter.process(&block, voices, &mut output);
                let expected: Vec<i16> = block.iter().map(|value| plain.step(*value, voices <= 1)).collect();
                // A mean that was summed up in another order may differ in its last bit.
                for (sample, plain) in output.iter().zip(&expected) {
                    assert!(sample.abs_diff(*plain) <= 1, "{rate} Hz, block {n}: {sample} for {plain}");
                }
                limited += usize::from(limiter.slow.is_some());
            }
            assert!((150..500).contains(&limited), "{limited}");
        }
    }

    fn limited(sum: &[i32], voices: usize, block: usize) -> Vec<i16> {
        let mut limiter = Limiter::new(8_000);
        let mut padded = sum.to_vec();
        padded.extend([0; 40]);
        let mut output = vec![0; padded.len()];
        for (sums, samples) in padded.chunks(block).zip(output.chunks_mut(block)) {
            limiter.process(sums, voices, samples);
        }
        output.split_off(40)
    }

    #[test]
    fn sums_within_the_range_pass_bit_for_bit() {
        let sum: Vec<i32> = (-32_767..=32_767).step_by(3).collect();
        let expected: Vec<i16> = sum.iter().map(|s| *s as i16).collect();
        assert_eq!(limited(&sum, 2, 160), expected);
    }

    #[test]
    fn samples_of_one_voice_pass_as_their_sums_do_whatever_came_before() {
        let loud: Vec<i32> = (0..300).map(|i| 40_000 - 300 * i).collect();
        let voice: Vec<i16> = (0..100).map(|i| i16::MIN + 7 * i).collect();
        let wide: Vec<i32> = voice.iter().map(|sample| i32::from(*sample)).collect();
        let (mut one, mut other) = (Limiter::new(8_000), Limiter::new(8_000));
        let (mut passed, mut slow) = (0, 0);
        for n in 0..60 {
            let (mut a, mut b) = (vec![0; 33], vec![0; 33]);
            // Two voices, at first beyond the range: blocks shorter than the line, which leave it turned.
            let sum = if n < 4 { &loud[..33] } else { &loud[200..233] };
            one.process(sum, 2, &mut a);
            other.process(sum, 2, &mut b);
            assert_eq!(a, b);
            let (mut samples, mut expected) = (vec![0; 100], vec![0; 100]);
            one.process(&wide, 1, &mut expected);
            if other.pass(&voice, 1, &mut samples) {
                passed += 1;
            } else {
                slow += 1;
                other.process(&wide, 1, &mut samples);
            }
            assert_eq!(samples, expected, "{n}");
        }
        assert!(passed > 10 && slow > 3, "{passed} {slow}");
        assert!(!other.pass(&[0; 39], 1, &mut [0; 39]));
    }

    #[test]
    fn what_was_passed_on_of_several_voices_is_made_quieter_before_a_peak_and_one_voice_is_not() {
        let samples: Vec<i16> = (0..160).map(|i| 150 * i).collect();
        let wide: Vec<i32> = samples.iter().map(|sample| i32::from(*sample)).collect();
        for voices in [1, 2] {
            let (mut one, mut other) = (Limiter::new(8_000), Limiter::new(8_000));
            let (mut passed, mut expected) = ([0; 160], [0; 160]);
            one.process(&wide, voices, &mut expected);
            assert!(other.pass(&samples, voices, &mut passed));
            // The last 40 samples of what was passed on come with the peak.
            one.process(&[60_000; 160], 2, &mut expected);
            other.process(&[60_000; 160], 2, &mut passed);
            assert_eq!(passed, expected);
            assert_eq!(passed[..40] == samples[120..], voices == 1);
        }
    }

    #[test]
    fn one_voice_passes_bit_for_bit_even_at_the_lowest_sample() {
        assert_eq!(limited(&[i32::from(i16::MIN); 100], 1, 33), vec![i16::MIN; 100]);
    }

    #[test]
    fn nothing_leaves_the_range_whatever_comes() {
        let mut rng = StdRng::seed_from_u64(1);
        let sum: Vec<i32> = (0..50_000).map(|i| rng.random_range(-1..=1) * ((i * 7) % 262_144)).collect();
        let output = limited(&sum, 8, 200);
        assert!(output.iter().all(|s| s.unsigned_abs() <= 32_767));
        assert!(output.iter().any(|s| s.unsigned_abs() > 30_000));
    }

    #[test]
    fn the_gain_falls_within_5_ms_before_a_peak_and_is_1_again_half_a_second_later() {
        let mut sum = vec![10_000; 10_000];
        sum[2_000] = 65_534;
        let output = limited(&sum, 2, 160);
        assert!(output[..1_959].iter().all(|s| *s == 10_000));
        assert!(output[1_980] < 9_000);
        assert!((32_700..=32_767).contains(&output[2_000]), "{}", output[2_000]);
        assert!(output[2_060] < 9_000);
        assert!(output[2_000 + 4_200..].iter().all(|s| *s == 10_000));
    }

    #[test]
    fn the_gain_never_jumps() {
        let mut sum = vec![20_000; 4_000];
        sum[1_000..1_400].fill(60_000);
        let output = limited(&sum, 2, 160);
        let jumps = (1..output.len()).filter(|i| (sum[*i] == sum[*i - 1]) && (output[*i] - output[*i - 1]).abs() > 500);
        assert_eq!(jumps.count(), 0);
    }

    #[test]
    fn blocks_of_any_size_give_the_same() {
        let mut rng = StdRng::seed_from_u64(2);
        let sum: Vec<i32> = (0..5_000).map(|_| rng.random_range(-50_000..50_000)).collect();
        assert_eq!(limited(&sum, 2, 5_040), limited(&sum, 2, 7));
    }

    #[test]
    fn blocks_shorter_and_longer_than_the_look_ahead_are_one_stream() {
        let samples: Vec<i16> = (1..=6_000).collect();
        let (mut limiter, mut delay) = (Limiter::new(8_000), Delay::new(8_000));
        let (mut limited, mut delayed) = (vec![], samples.clone());
        let sizes = [7, 33, 40, 41, 1, 39, 160, 2_000, 13, 80, 79].into_iter().cycle();
        let mut done = 0;
        for (n, size) in sizes.enumerate() {
            let block = done..(done + size).min(samples.len());
            let sum: Vec<i32> = samples[block.clone()].iter().map(|s| i32::from(*s)).collect();
            let mut output = vec![0; sum.len()];
            limiter.process(&sum, 1 + n % 2, &mut output);
            limited.extend(output);
            delay.process(&mut delayed[block.clone()]);
            done = block.end;
            if done == samples.len() {
                break;
            }
        }
        let expected: Vec<i16> = [0; 40].into_iter().chain(1..=5_960).collect();
        assert_eq!(limited, expected);
        assert_eq!(delayed, expected);
    }

    #[test]
    fn a_lone_voice_after_a_loud_sum_is_exact_at_once() {
        let mut limiter = Limiter::new(8_000);
        let mut output = [0; 160];
        limiter.process(&[60_000; 160], 2, &mut output);
        limiter.process(&[12_345; 160], 1, &mut output);
        assert!(output[..40].iter().all(|s| *s > 32_000));
        assert!(output[40..].iter().all(|s| *s == 12_345));
    }

    #[test]
    fn the_delay_is_as_late_as_the_limiter() {
        let mut delay = Delay::new(8_000);
        let mut samples: Vec<i16> = (1..=300).collect();
        for block in samples.chunks_mut(70) {
            delay.process(block);
        }
        assert!(samples[..40].iter().all(|s| *s == 0));
        assert_eq!(samples[40..], (1..=260).collect::<Vec<i16>>());
    }

    #[test]
    fn samples_add_up() {
        let mut sum = [1, 2, 3];
        add(&[i16::MAX, i16::MIN], &mut sum);
        assert_eq!(sum, [32_768, -32_766, 3]);
    }
}
