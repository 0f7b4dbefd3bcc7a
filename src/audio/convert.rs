//! A stream of samples from one rate to another, packet by packet: as [`super::resample`], 24 samples of the lower rate
//! late instead of looking ahead (3 ms where that is 8,000 Hz).

use super::resample::Kernel;

/// Input samples that the widest kernel of [`Kernels`] looks at besides a packet's own.
pub const MAX_CONTEXT: usize = 288;

/// The rates that are converted, from and to, in Hz.
const RATES: [(u32, u32); 4] = [(8_000, 16_000), (16_000, 8_000), (48_000, 8_000), (48_000, 16_000)];

/// Computed once for any number of streams.
#[derive(Debug)]
pub struct Kernels([Option<Kernel>; RATES.len()]);

impl Kernels {
    /// Computes them.
    pub fn new() -> Self {
        Self(RATES.map(|(from, to)| Kernel::new(from, to)))
    }

    /// The one between two rates; `None`: they are equal, or not rates of ours.
    pub fn get(&self, from: u32, to: u32) -> Option<&Kernel> {
        self.0[RATES.iter().position(|rates| *rates == (from, to))?].as_ref()
    }
}

impl Default for Kernels {
    fn default() -> Self {
        Self::new()
    }
}

/// What one stream's next packet is computed from besides its own samples.
#[derive(Debug)]
pub struct Converter {
    /// The newest samples, as many as the kernel looks at. Apart: seldom looked at.
    before: Box<[i16; MAX_CONTEXT]>,
}

impl Converter {
    /// Silence came before.
    pub fn new() -> Self {
        Self { before: Box::new([0; MAX_CONTEXT]) }
    }

    /// What comes does not go on from what came.
    pub fn reset(&mut self) {
        self.before.fill(0);
    }

    /// Converts the packet in `input[`[`context`]`..]`; what is before it is overwritten. `output` has its samples at the
    /// other rate.
    pub fn run(&mut self, kernel: &Kernel, input: &mut [i16], output: &mut [i16]) {
        let context = context(kernel);
        input[..context].copy_from_slice(&self.before[..context]);
        kernel.convert(input, 0, output);
        self.before[..context].copy_from_slice(&input[input.len() - context..]);
    }
}

impl Default for Converter {
    fn default() -> Self {
        Self::new()
    }
}

/// Samples that stand before a packet's own in the input of [`Converter::run`].
pub fn context(kernel: &Kernel) -> usize {
    2 * kernel.context()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    #[test]
    fn a_tone_in_packets_comes_out_whole_and_little_late_at_every_rate() {
        let kernels = Kernels::new();
        for (from, to) in RATES {
            let kernel = kernels.get(from, to).unwrap();
            let tone = |rate: u32, n: f64| 10_000.0 * (TAU * 1_000.0 * n / f64::from(rate)).sin();
            let mut converter = Converter::new();
            let mut heard = vec![];
            for packet in 0..20 {
                let count = (from / 50) as usize;
                let mut input = vec![0; context(kernel)];
                input.extend((0..count).map(|n| tone(from, (packet * count + n) as f64) as i16));
                let mut output = vec![0; (to / 50) as usize];
                converter.run(kernel, &mut input, &mut output);
                heard.extend(output);
            }
            let late = 24.0 * f64::from(to) / f64::from(from.min(to));
            let settled = (to / 50) as usize;
            let worst = (settled..heard.len()).map(|n| (f64::from(heard[n]) - tone(to, n as f64 - late)).abs());
            assert!(worst.fold(0.0, f64::max) < 40.0, "{from} to {to}");
        }
        assert!(kernels.get(8_000, 8_000).is_none() && kernels.get(8_000, 48_000).is_none());
    }

    #[test]
    fn after_a_reset_nothing_is_left_of_what_came_before() {
        let kernels = Kernels::new();
        let kernel = kernels.get(8_000, 16_000).unwrap();
        let mut converter = Converter::new();
        let mut output = [0; 320];
        converter.run(kernel, &mut [10_000; 160 + 48], &mut output);
        converter.reset();
        converter.run(kernel, &mut [0; 160 + 48], &mut output);
        assert_eq!(output, [0; 320]);
    }
}
