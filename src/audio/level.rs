//! Peaks and energy of samples.

#[cfg(not(baseline))]
use multiversion::multiversion;

/// Samples looked at side by side. The channels of a file divide it.
pub const LANES: usize = 16;
/// Samples of three rows of them: see `look`.
const ROWS: usize = 3 * LANES;

/// Of interleaved samples: lane n stands for samples n, n + 16, …, so for channel n modulo the number of channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lanes {
    /// The largest magnitude of each.
    pub peaks: [u16; LANES],
    /// The sum of squares of each; 2³⁴ samples of full scale fit.
    pub squares: [u64; LANES],
}

/// Looks at all samples once. Sample by sample, channel by channel, it was a third of what recording a call in stereo costs.
pub fn lanes(samples: &[i16]) -> Lanes {
    let mut least = [0; LANES];
    let mut most = [0; LANES];
    let mut squares = [0; LANES];
    let whole = samples.len() / ROWS * ROWS;
    look(&samples[..whole], &mut least, &mut most, &mut squares);
    let mut rest = [0; ROWS];
    rest[..samples.len() - whole].copy_from_slice(&samples[whole..]);
    look(&rest, &mut least, &mut most, &mut squares);
    let peaks = std::array::from_fn(|n| least[n].unsigned_abs().max(most[n].unsigned_abs()));
    Lanes { peaks, squares }
}

/// For 4,000 samples SSE2 takes 0.42 µs, AVX2 0.22 and AVX-512 0.23; with a sum of 64 bits for every row 1.94, 0.94 and 1.01.
#[cfg_attr(not(baseline), multiversion(targets("x86_64+avx2")))]
fn look(samples: &[i16], least: &mut [i16; LANES], most: &mut [i16; LANES], squares: &mut [u64; LANES]) {
    let (mut low, mut high, mut sums) = (*least, *most, *squares);
    for rows in samples.chunks_exact(ROWS) {
        // At most 2³⁰ each, of which three fit.
        let mut few = [0_u32; LANES];
        for row in rows.chunks_exact(LANES) {
            for n in 0..LANES {
                low[n] = low[n].min(row[n]);
                high[n] = high[n].max(row[n]);
                few[n] += (i32::from(row[n]) * i32::from(row[n])) as u32;
            }
        }
        for n in 0..LANES {
            sums[n] += u64::from(few[n]);
        }
    }
    (*least, *most, *squares) = (low, high, sums);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lane_is_as_plain_arithmetic_has_it_whatever_the_length() {
        for len in [0, 1, 15, 16, 17, 47, 48, 49, 160, 4_001] {
            let samples: Vec<i16> =
                (0..len).map(|n: i32| if n % 97 == 3 { i16::MIN } else { (n * 7_919) as i16 }).collect();
            each_lane_is_plain(&samples);
            each_lane_is_plain(&vec![i16::MIN; samples.len()]);
        }
    }

    fn each_lane_is_plain(samples: &[i16]) {
        let found = lanes(samples);
        for lane in 0..LANES {
            let own = || samples.iter().skip(lane).step_by(LANES);
            assert_eq!(
                found.peaks[lane],
                own().map(|s| s.unsigned_abs()).max().unwrap_or(0),
                "{} {lane}",
                samples.len()
            );
            let squares = own().map(|s| u64::from(s.unsigned_abs()).pow(2)).sum::<u64>();
            assert_eq!(found.squares[lane], squares, "{} {lane}", samples.len());
        }
    }
}
