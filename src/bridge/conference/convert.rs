//! Frames from one rate to the other, as a stream: [`Kernel`] has no state, so its context is kept here. The output is
//! later than the input by that context, 3 ms.

use crate::audio::resample::Kernel;

/// Context on both sides and a frame, at 16,000 Hz.
const MOST: usize = 2 * 48 + 320;

/// Between 8,000 and 16,000 Hz.
#[derive(Debug)]
pub struct Kernels {
    up: Option<Kernel>,
    down: Option<Kernel>,
}

impl Kernels {
    /// Computes both.
    pub fn new() -> Self {
        Self { up: Kernel::new(8_000, 16_000), down: Kernel::new(16_000, 8_000) }
    }

    /// The one that makes `output` samples of `input`.
    fn of(&self, input: usize, output: usize) -> Option<&Kernel> {
        if input < output { self.up.as_ref() } else { self.down.as_ref() }
    }

    /// A whole sound to 16,000 Hz.
    pub fn double(&self, samples: &[i16]) -> Vec<i16> {
        let Some(kernel) = &self.up else { return Vec::new() };
        let context = kernel.context();
        let mut padded = vec![0; context];
        padded.extend_from_slice(samples);
        padded.resize(samples.len() + 2 * context, 0);
        let mut doubled = vec![0; 2 * samples.len()];
        if !samples.is_empty() {
            kernel.convert(&padded, 0, &mut doubled);
        }
        doubled
    }
}

/// The state of one stream.
#[derive(Debug, Clone)]
pub struct Converter {
    buffer: [i16; MOST],
    context: usize,
}

impl Converter {
    /// Before the first frame there is silence.
    pub fn new() -> Self {
        Self { buffer: [0; MOST], context: 0 }
    }

    /// The next frame, between any two of the rates; `input` and `output` last equally long.
    pub fn run(&mut self, kernels: &Kernels, input: &[i16], output: &mut [i16]) {
        let Some(kernel) = kernels.of(input.len(), output.len()) else { return };
        let context = 2 * kernel.context();
        if self.context != context {
            // The direction has changed.
            self.buffer = [0; MOST];
            self.context = context;
        }
        let buffer = &mut self.buffer[..context + input.len()];
        buffer[context..].copy_from_slice(input);
        kernel.convert(buffer, 0, output);
        buffer.copy_within(input.len().., 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_passes_from_rate_to_rate_in_frames_without_a_seam() {
        let kernels = Kernels::new();
        for (from, to) in [(8_000_usize, 16_000_usize), (16_000, 8_000)] {
            let tone = |rate: usize, delay: f64, i: usize| {
                let seconds = i as f64 / rate as f64 - delay;
                10_000.0 * (std::f64::consts::TAU * 700.0 * seconds).sin()
            };
            let mut converter = Converter::new();
            let (mut input, mut all) = (vec![0; from / 50], vec![]);
            for frame in 0..20 {
                for (i, sample) in input.iter_mut().enumerate() {
                    *sample = tone(from, 0.0, frame * from / 50 + i) as i16;
                }
                let mut output = vec![0; to / 50];
                converter.run(&kernels, &input, &mut output);
                all.extend(output);
            }
            let late = 0.003;
            let off = (to / 10..all.len()).map(|i| (f64::from(all[i]) - tone(to, late, i)).abs()).fold(0.0, f64::max);
            assert!(off < 30.0, "{from} to {to}: {off}");
        }
        assert_eq!(kernels.double(&[1_000; 400])[300..500], [1_000; 200]);
    }
}
