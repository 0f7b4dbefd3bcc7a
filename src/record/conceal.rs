//! Fills short holes: the last pitch periods before the hole, fading out, and where the hole is short also the first one
//! after it, fading in. Nothing that was received is altered.

/// Concealment fills at most this much (spec/recording.md §7).
pub const MAX_MS: i64 = 60;

/// Samples before a hole that are looked at, in ms.
pub const HISTORY_MS: i64 = 40;

/// Pitch periods looked for, in ms: voices between 50 and 400 Hz.
const SHORTEST_PERIOD_TENTH_MS: i64 = 25;
const LONGEST_PERIOD_MS: i64 = 20;

/// Fills `hole` from what came `before` it ([`HISTORY_MS`]) and, when given, from the beginning of what came `after`. The
/// fade takes [`MAX_MS`].
pub fn fill(before: &[i16], after: Option<&[i16]>, rate: u32, hole: &mut [i16]) {
    let period = period(before, rate);
    let fade = (i64::from(rate) * MAX_MS / 1_000) as f32;
    let head = after.filter(|head| head.len() >= period);
    let len = hole.len();
    for (i, sample) in hole.iter_mut().enumerate() {
        let forward = f32::from(before[before.len() - period + i % period]) * (1.0 - i as f32 / fade).max(0.0);
        *sample = match head {
            Some(head) => {
                let back = len - 1 - i;
                let backward = f32::from(head[period - 1 - back % period]) * (1.0 - back as f32 / fade).max(0.0);
                let weight = (i + 1) as f32 / (len + 1) as f32;
                (forward * (1.0 - weight) + backward * weight) as i16
            }
            None => forward as i16,
        };
    }
}

/// The lag at which the end of `before` is most like what precedes it.
fn period(before: &[i16], rate: u32) -> usize {
    let rate = i64::from(rate);
    let shortest = (rate * SHORTEST_PERIOD_TENTH_MS / 10_000) as usize;
    let longest = (rate * LONGEST_PERIOD_MS / 1_000) as usize;
    let window = before.len() - longest;
    let recent = &before[before.len() - window..];
    // At high rates every few lags are enough: the fades cover the difference.
    let step = (rate / 8_000).max(1) as usize;
    let mut best = (f32::MIN, longest);
    for lag in (shortest..=longest).step_by(step) {
        let earlier = &before[before.len() - window - lag..before.len() - lag];
        let (mut product, mut energy) = (0.0_f32, 1.0_f32);
        for (a, b) in recent.iter().zip(earlier) {
            product += f32::from(*a) * f32::from(*b);
            energy += f32::from(*b) * f32::from(*b);
        }
        let likeness = product / energy.sqrt();
        if likeness > best.0 {
            best = (likeness, lag);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(from: i64, len: usize) -> Vec<i16> {
        (from..from + len as i64)
            .map(|i| (8_000.0 * (std::f64::consts::TAU * 200.0 * i as f64 / 8_000.0).sin()) as i16)
            .collect()
    }

    #[test]
    fn a_hole_in_a_tone_is_filled_in_phase_and_joins_without_a_step() {
        let (before, after) = (tone(0, 320), tone(480, 160));
        let mut hole = [0; 160];
        fill(&before, Some(&after), 8_000, &mut hole);
        let all = [before, hole.to_vec(), after].concat();
        let steepest = all.windows(2).map(|w| (w[1] - w[0]).abs()).max().unwrap();
        assert!(steepest < 1_600, "{steepest}");
        let energy = |samples: &[i16]| samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>();
        assert!(energy(&hole) > 0.3 * energy(&all[160..320]));
    }

    #[test]
    fn without_an_end_it_fades_out_within_60_ms() {
        let mut hole = [1; 600];
        fill(&tone(0, 320), None, 8_000, &mut hole);
        assert!(hole[..80].iter().any(|s| s.abs() > 6_000));
        assert!(hole[480..].iter().all(|s| *s == 0));
    }

    #[test]
    fn silence_is_concealed_by_silence() {
        let mut hole = [7; 100];
        fill(&[0; 320], Some(&[0; 160]), 8_000, &mut hole);
        assert_eq!(hole, [0; 100]);
    }
}
