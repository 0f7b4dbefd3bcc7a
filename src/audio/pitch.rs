//! Pitch periods: how a voice repeats itself, and moving along a signal by whole periods without a click.

#[cfg(not(baseline))]
use multiversion::multiversion;

/// Shortest and longest period that is looked for, in tenths of ms: voices between 66 and 400 Hz (ITU-T G.711
/// Appendix I looks between 66 and 200; children and high tones want shorter ones).
pub const PERIOD_TENTH_MS: (usize, usize) = (25, 150);

/// What is compared, in ms.
const WINDOW_MS: usize = 20;

/// Samples of history that [`period`] reads at a rate in Hz.
pub const fn reach(rate: u32) -> usize {
    longest(rate) + window(rate)
}

/// The longest period in samples.
pub const fn longest(rate: u32) -> usize {
    rate as usize * PERIOD_TENTH_MS.1 / 10_000
}

const fn window(rate: u32) -> usize {
    rate as usize * WINDOW_MS / 1_000
}

/// Largest [`reach`]: 16,000 Hz.
const MAX_REACH: usize = reach(16_000);

/// The lag in samples at which the end of `before` ([`reach`] samples or more, at 8,000 or 16,000 Hz) is most like what
/// precedes it, and how like: 1 for a perfect repetition, 0 for none.
pub fn period(before: &[i16], rate: u32) -> (usize, f32) {
    let step = (rate / 8_000).max(1) as usize;
    let mut values = [0.0; MAX_REACH];
    let values = &mut values[..reach(rate).min(before.len()).min(MAX_REACH)];
    let recent = &before[before.len() - values.len()..];
    for (value, sample) in values.iter_mut().zip(recent) {
        *value = f32::from(*sample);
    }
    let shortest = rate as usize * PERIOD_TENTH_MS.0 / 10_000;
    search(values, window(rate), shortest, 2 * step)
}

/// Coarse, then every lag around the best.
#[cfg_attr(not(baseline), multiversion(targets("x86_64+avx2+fma")))]
fn search(values: &[f32], window: usize, shortest: usize, step: usize) -> (usize, f32) {
    let Some(longest) = values.len().checked_sub(window).filter(|longest| *longest >= shortest) else {
        return (shortest, 0.0);
    };
    let mut best = (longest, f32::MIN);
    for lag in (shortest..=longest).step_by(step) {
        let likeness = likeness(values, window, lag);
        if likeness > best.1 {
            best = (lag, likeness);
        }
    }
    let coarse = best.0;
    for lag in coarse.saturating_sub(step - 1).max(shortest)..=(coarse + step - 1).min(longest) {
        let likeness = likeness(values, window, lag);
        if likeness > best.1 {
            best = (lag, likeness);
        }
    }
    (best.0, best.1.clamp(0.0, 1.0))
}

/// Normalised correlation of the last `window` values with those `lag` earlier.
#[inline(always)]
fn likeness(values: &[f32], window: usize, lag: usize) -> f32 {
    let recent = &values[values.len() - window..];
    let earlier = &values[values.len() - window - lag..values.len() - lag];
    let (mut product, mut old, mut new) = ([0.0_f32; 8], [0.0_f32; 8], [0.0_f32; 8]);
    for (a, b) in recent.chunks_exact(8).zip(earlier.chunks_exact(8)) {
        for i in 0..8 {
            product[i] += a[i] * b[i];
            old[i] += b[i] * b[i];
            new[i] += a[i] * a[i];
        }
    }
    let sum = |lanes: [f32; 8]| lanes.iter().sum::<f32>();
    sum(product) / (sum(old) * sum(new) + 1.0).sqrt()
}

/// Fills `output` from `at` of `input` on, gliding within `over` samples to the signal `shift` samples later (earlier when
/// negative). Shifted by a period the two are alike, and nothing is heard.
///
/// `input` holds `at` + `shift` + the output's length samples and at least `at` + `over`; `at` + `shift` is not negative.
pub fn glide(input: &[i16], at: usize, shift: isize, over: usize, output: &mut [i16]) {
    let moved = at.saturating_add_signed(shift);
    let over = over.min(output.len());
    let scale = 1.0 / (over.max(1)) as f32;
    for (i, sample) in output[..over].iter_mut().enumerate() {
        let weight = i as f32 * scale;
        let (from, to) = (f32::from(input[at + i]), f32::from(input[moved + i]));
        *sample = (from + (to - from) * weight) as i16;
    }
    let rest = output.len() - over;
    output[over..].copy_from_slice(&input[moved + over..moved + over + rest]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hz: f64, rate: u32, len: usize) -> Vec<i16> {
        (0..len).map(|i| (8_000.0 * (std::f64::consts::TAU * hz * i as f64 / f64::from(rate)).sin()) as i16).collect()
    }

    #[test]
    fn the_period_of_a_tone_is_a_multiple_of_its_own() {
        for rate in [8_000, 16_000] {
            for hz in [100.0, 125.0, 200.0, 250.0, 400.0] {
                let (lag, likeness) = period(&tone(hz, rate, reach(rate)), rate);
                let periods = lag as f64 * hz / f64::from(rate);
                assert!((periods - periods.round()).abs() < 0.02 && periods > 0.9, "{hz} Hz at {rate}: {lag}");
                assert!(likeness > 0.99);
            }
        }
    }

    #[test]
    fn noise_is_like_nothing_and_silence_neither() {
        let mut state = 1_u32;
        let noise: Vec<i16> = (0..reach(8_000))
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 18) as i16 - 8_192
            })
            .collect();
        assert!(period(&noise, 8_000).1 < 0.5);
        assert_eq!(period(&vec![0; reach(8_000)], 8_000).1, 0.0);
    }

    #[test]
    fn gliding_by_a_period_leaves_a_tone_as_it_is() {
        let signal = tone(250.0, 8_000, 400);
        for shift in [-32, 32, 96] {
            let mut out = [0; 160];
            glide(&signal, 100, shift, 80, &mut out);
            let error = out.iter().zip(&signal[100..]).map(|(a, b)| (a - b).abs()).max().unwrap();
            assert!(error <= 2, "shift {shift}: {error}");
            assert_eq!(out[159], signal[(259 + shift) as usize]);
        }
    }
}
