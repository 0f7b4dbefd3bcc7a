//! Peaks and energy of samples.

/// Samples looked at side by side. The channels of a file divide it.
pub const LANES: usize = 16;

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
    let whole = samples.len() / LANES * LANES;
    look(&samples[..whole], &mut least, &mut most, &mut squares);
    let mut rest = [0; LANES];
    rest[..samples.len() - whole].copy_from_slice(&samples[whole..]);
    look(&rest, &mut least, &mut most, &mut squares);
    let peaks = std::array::from_fn(|n| least[n].unsigned_abs().max(most[n].unsigned_abs()));
    Lanes { peaks, squares }
}

/// Not chosen at run time as other loops are: for 4,000 samples SSE2 takes 0.52 µs, AVX2 0.94 and AVX-512 0.71, because of
/// what widening to 64 bits costs them.
fn look(samples: &[i16], least: &mut [i16; LANES], most: &mut [i16; LANES], squares: &mut [u64; LANES]) {
    let (mut low, mut high, mut sums) = (*least, *most, *squares);
    for samples in samples.chunks_exact(LANES) {
        for (((sample, low), high), sum) in samples.iter().zip(&mut low).zip(&mut high).zip(&mut sums) {
            *low = if *sample < *low { *sample } else { *low };
            *high = if *sample > *high { *sample } else { *high };
            // At most 2³⁰: no sign is lost.
            *sum += u64::from((i32::from(*sample) * i32::from(*sample)) as u32);
        }
    }
    (*least, *most, *squares) = (low, high, sums);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lane_is_as_plain_arithmetic_has_it_whatever_the_length() {
        for len in [0, 1, 15, 16, 17, 160, 4_001] {
            let samples: Vec<i16> =
                (0..len).map(|n: i32| if n % 97 == 3 { i16::MIN } else { (n * 7_919) as i16 }).collect();
            let found = lanes(&samples);
            for lane in 0..LANES {
                let own = || samples.iter().skip(lane).step_by(LANES);
                assert_eq!(found.peaks[lane], own().map(|s| s.unsigned_abs()).max().unwrap_or(0), "{len} {lane}");
                let squares = own().map(|s| u64::from(s.unsigned_abs()).pow(2)).sum::<u64>();
                assert_eq!(found.squares[lane], squares, "{len} {lane}");
            }
        }
    }
}
