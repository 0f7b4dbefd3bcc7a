//! Rate conversion between 8,000, 16,000 and 48,000 Hz, and stretching by a sample in many. Linear phase (symmetric
//! windowed sinc); the delay of the filter is taken out by reading context on both sides, so there is no state: output
//! sample m is a function of the input around m · from / to.

use std::f64::consts::PI;

#[cfg(not(baseline))]
use multiversion::multiversion;

use super::pcm::saturate;

/// Input samples (output samples when the rate falls) on each side of a point.
const HALF: usize = 24;

/// Kaiser's β: 70 dB of stop band.
const BETA: f64 = 7.0;

/// When the rate falls, the pass band ends below half the new rate, so that the transition does not fold back.
const CUT_OFF_DOWN: f64 = 0.93;

/// Converts by a whole factor up or down.
#[derive(Debug, Clone)]
pub struct Kernel {
    up: usize,
    down: usize,
    /// Up: `up` phases of 2 · `HALF` taps. Down: one phase of 2 · `HALF` · `down` taps.
    taps: Vec<f32>,
}

impl Kernel {
    /// From one rate to another in Hz. `None` unless one is a multiple of the other by up to 48 (then they are not rates
    /// of ours).
    pub fn new(from: u32, to: u32) -> Option<Self> {
        if from == 0 || to == 0 || (!from.is_multiple_of(to) && !to.is_multiple_of(from)) {
            return None;
        }
        let (up, down) = (((to / from).max(1)) as usize, ((from / to).max(1)) as usize);
        if up > 48 || down > 48 {
            return None;
        }
        let taps = if down > 1 {
            let half = HALF * down;
            let step = down as f64;
            let cut = CUT_OFF_DOWN / step;
            normalised((0..2 * half).map(|i| {
                let x = i as f64 - half as f64;
                cut * sinc(x * cut) * kaiser(x / half as f64)
            }))
        } else {
            (0..up)
                .flat_map(|phase| {
                    let fraction = phase as f64 / up as f64;
                    normalised((0..2 * HALF).map(|i| {
                        let x = i as f64 - HALF as f64 - fraction;
                        sinc(x) * kaiser(x / (HALF as f64 + 1.0))
                    }))
                })
                .collect()
        };
        Some(Self { up, down, taps })
    }

    /// Input samples that are read before the first and after the last point.
    pub fn context(&self) -> usize {
        HALF * self.down
    }

    /// The index of the input sample at or before output sample `m`.
    pub fn input_of(&self, m: i64) -> i64 {
        m.div_euclid(self.up as i64) * self.down as i64
    }

    /// Input samples that [`Kernel::convert`] needs for `frames` outputs from `m` on.
    pub fn input_len(&self, m: i64, frames: usize) -> usize {
        if frames == 0 {
            return 0;
        }
        (self.input_of(m + frames as i64 - 1) - self.input_of(m)) as usize + 1 + 2 * self.context()
    }

    /// Computes `output` from output sample `m` on. `input[context]` is the sample at [`Kernel::input_of`] `(m)`;
    /// `input` has [`Kernel::input_len`] samples.
    pub fn convert(&self, input: &[i16], m: i64, output: &mut [i16]) {
        let phase = m.rem_euclid(self.up as i64) as usize;
        convert(input, &self.taps, (self.up, self.down), phase, output);
    }
}

/// Converts a whole sound between any two rates in Hz at once; before its beginning and after its end is silence. As long
/// as the sound, to the nearest sample. For files read at start: the table alone may take some milliseconds.
pub fn whole(input: &[i16], from: u32, to: u32) -> Vec<i16> {
    let divisor = gcd(from, to);
    let (up, down) = ((to / divisor).max(1) as usize, (from / divisor).max(1) as usize);
    let stretch = (down as f64 / up as f64).max(1.0);
    let cut = if down > up { CUT_OFF_DOWN / stretch } else { 1.0 };
    let half = (HALF as f64 * stretch).ceil() as usize;
    let rows: Vec<Vec<f32>> = (0..up)
        .map(|phase| {
            let fraction = phase as f64 / up as f64;
            normalised((0..2 * half).map(|i| {
                let x = i as f64 - half as f64 - fraction;
                cut * sinc(x * cut) * kaiser(x / (half as f64 + 1.0))
            }))
        })
        .collect();
    let mut padded = vec![0_i16; half];
    padded.extend_from_slice(input);
    padded.resize(input.len() + 2 * half + 1, 0);
    let len = (input.len() * up + down / 2) / down;
    let sample = |m: usize| {
        let (first, row) = (m * down / up, &rows[m * down % up]);
        // Rounding at the very end may ask for one sample beyond it.
        let around = padded.get(first..first + 2 * half).unwrap_or_default();
        saturate(around.iter().zip(row).map(|(value, tap)| f32::from(*value) * tap).sum())
    };
    (0..len).map(sample).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

/// Phases of [`Stretch`]; between two of them the taps are interpolated.
const PHASES: usize = 128;

/// Taps on each side of [`Stretch`].
const STRETCH_HALF: usize = 16;

/// Turns a run of samples into one that is a little longer or shorter.
#[derive(Debug, Clone)]
pub struct Stretch {
    /// `PHASES + 1` rows.
    taps: Vec<f32>,
}

impl Stretch {
    /// Samples that are read before the first and after the last.
    pub const CONTEXT: usize = STRETCH_HALF;

    /// Computes the table.
    pub fn new() -> Self {
        let taps = (0..=PHASES)
            .flat_map(|phase| {
                let fraction = phase as f64 / PHASES as f64;
                normalised((0..2 * STRETCH_HALF).map(|i| {
                    let x = i as f64 - (STRETCH_HALF - 1) as f64 - fraction;
                    sinc(x) * kaiser(x / (STRETCH_HALF as f64 + 1.0))
                }))
            })
            .collect();
        Self { taps }
    }

    /// Spreads the samples between the contexts of `input` evenly over `output`. `input` begins [`Stretch::CONTEXT`]
    /// before the first and ends as much after the last.
    pub fn run(&self, input: &[i16], output: &mut [i16]) {
        stretch(input, &self.taps, output);
    }
}

impl Default for Stretch {
    fn default() -> Self {
        Self::new()
    }
}

/// The inner loop of [`Kernel::convert`], whose first output has the given phase.
#[cfg_attr(not(baseline), multiversion(targets("x86_64+avx2+fma")))]
fn convert(input: &[i16], taps: &[f32], (up, down): (usize, usize), mut phase: usize, output: &mut [i16]) {
    let len = 2 * HALF * down;
    let mut start = 0;
    for sample in output {
        *sample = dot(&input[start..start + len], &taps[phase * len..(phase + 1) * len]);
        phase += 1;
        if phase == up {
            phase = 0;
            start += down;
        }
    }
}

/// The inner loop of [`Stretch::run`].
#[cfg_attr(not(baseline), multiversion(targets("x86_64+avx2+fma")))]
fn stretch(input: &[i16], taps: &[f32], output: &mut [i16]) {
    const WIDTH: usize = 2 * STRETCH_HALF;
    let len = input.len() - 2 * Stretch::CONTEXT;
    let step = len as f64 / output.len() as f64;
    for (i, sample) in output.iter_mut().enumerate() {
        let position = i as f64 * step;
        let whole = position as usize;
        let phase = (position - whole as f64) * PHASES as f64;
        let row = phase as usize;
        let blend = (phase - row as f64) as f32;
        let near = &taps[row * WIDTH..(row + 1) * WIDTH];
        let far = &taps[(row + 1).min(PHASES) * WIDTH..][..WIDTH];
        let around = &input[whole + 1..whole + 1 + WIDTH];
        let (near, far) = (dot_exact(around, near), dot_exact(around, far));
        *sample = saturate(near + (far - near) * blend);
    }
}

#[inline(always)]
fn dot(input: &[i16], taps: &[f32]) -> i16 {
    saturate(dot_exact(input, taps))
}

/// Eight sums, so that the compiler may use vectors without reordering a single one. Both lengths are multiples of eight.
#[inline(always)]
fn dot_exact(input: &[i16], taps: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    for (values, taps) in input.chunks_exact(8).zip(taps.chunks_exact(8)) {
        for ((sum, value), tap) in sums.iter_mut().zip(values).zip(taps) {
            *sum += f32::from(*value) * tap;
        }
    }
    sums.iter().sum()
}

fn sinc(x: f64) -> f64 {
    if x.abs() < 1e-9 { 1.0 } else { (PI * x).sin() / (PI * x) }
}

fn kaiser(x: f64) -> f64 {
    if x.abs() >= 1.0 { 0.0 } else { bessel_i0(BETA * (1.0 - x * x).sqrt()) / bessel_i0(BETA) }
}

fn bessel_i0(x: f64) -> f64 {
    let (mut sum, mut term) = (1.0, 1.0);
    for k in 1..40 {
        term *= (x / 2.0 / f64::from(k)).powi(2);
        sum += term;
    }
    sum
}

/// Unity gain for a constant.
fn normalised(taps: impl Iterator<Item = f64>) -> Vec<f32> {
    let taps: Vec<f64> = taps.collect();
    let sum: f64 = taps.iter().sum();
    taps.into_iter().map(|tap| (tap / sum) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(rate: u32, hz: f64, from: i64, len: usize) -> Vec<i16> {
        (0..len as i64)
            .map(|i| (10_000.0 * (2.0 * PI * hz * (from + i) as f64 / f64::from(rate)).sin()) as i16)
            .collect()
    }

    fn converted(from: u32, to: u32, hz: f64) -> (Vec<i16>, Vec<i16>) {
        let kernel = Kernel::new(from, to).unwrap();
        let (m, frames) = (1_234, 2_000);
        let first = kernel.input_of(m) - kernel.context() as i64;
        let input = tone(from, hz, first, kernel.input_len(m, frames));
        let mut output = vec![0; frames];
        kernel.convert(&input, m, &mut output);
        (output, tone(to, hz, m, frames))
    }

    #[test]
    fn a_tone_comes_out_at_the_same_instant_and_level_at_every_rate() {
        for (from, to) in
            [(8_000, 16_000), (8_000, 48_000), (16_000, 48_000), (16_000, 8_000), (48_000, 8_000), (48_000, 16_000)]
        {
            for hz in [300.0, 1_000.0, 3_100.0] {
                let (output, expected) = converted(from, to, hz);
                let worst = output.iter().zip(&expected).map(|(a, b)| (i32::from(*a) - i32::from(*b)).abs()).max();
                assert!(worst.unwrap() < 40, "{from} → {to} at {hz} Hz: {worst:?}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_the_lower_rate_is_gone() {
        let (output, _) = converted(48_000, 8_000, 5_000.0);
        assert!(output.iter().all(|s| s.abs() < 20));
    }

    #[test]
    fn samples_that_exist_at_both_rates_stay_bit_for_bit_when_the_rate_rises() {
        let kernel = Kernel::new(8_000, 48_000).unwrap();
        let input: Vec<i16> = (0..400).map(|i| (i * 7_919 % 60_001 - 30_000) as i16).collect();
        let frames = (input.len() - 2 * kernel.context() - 1) * 6;
        let mut output = vec![0; frames];
        kernel.convert(&input, 0, &mut output);
        for (i, sample) in output.iter().step_by(6).enumerate() {
            assert_eq!(*sample, input[kernel.context() + i]);
        }
    }

    #[test]
    fn blocks_join_without_a_seam() {
        let kernel = Kernel::new(8_000, 48_000).unwrap();
        let source = tone(8_000, 700.0, -100, 1_000);
        let part = |m: i64, frames: usize| {
            let start = (kernel.input_of(m) - kernel.context() as i64 + 100) as usize;
            let mut output = vec![0; frames];
            kernel.convert(&source[start..start + kernel.input_len(m, frames)], m, &mut output);
            output
        };
        let whole = part(10, 1_000);
        assert_eq!([part(10, 333), part(343, 667)].concat(), whole);
    }

    #[test]
    fn rates_that_do_not_divide_are_refused() {
        assert!(Kernel::new(44_100, 8_000).is_none());
        assert!(Kernel::new(0, 8_000).is_none());
    }

    #[test]
    fn a_stretched_tone_has_no_click_and_ends_where_the_next_sample_goes_on() {
        for (taken, given) in [(199, 200), (201, 200), (399, 400)] {
            let stretch = Stretch::new();
            let input = tone(8_000, 440.0, -(Stretch::CONTEXT as i64), taken + 2 * Stretch::CONTEXT);
            let mut output = vec![0; given];
            stretch.run(&input, &mut output);
            for (i, sample) in output.iter().enumerate() {
                let at = i as f64 * taken as f64 / given as f64;
                let expected = 10_000.0 * (2.0 * PI * 440.0 * at / 8_000.0).sin();
                assert!((f64::from(*sample) - expected).abs() < 30.0, "{taken} → {given} at {i}");
            }
        }
    }
}
