//! Packets whose payload is made by us: from another codec, with a beep in it, or from samples that we play. The buffers
//! are taken once per thread: the packet path allocates nothing.

use super::beep::Part;
use super::playback::{MAX_PAYLOAD, SAMPLE_RATE};
use crate::audio::coding::Coding;
use crate::audio::convert::{Converter, Kernels, MAX_CONTEXT, context};
use crate::rtp::view::{self, FIXED_LEN};

/// Samples of the longest packet: 255 ms at 48,000 Hz.
const MAX_SAMPLES: usize = 255 * 48;
const MAX_DATAGRAM: usize = FIXED_LEN + 2 * MAX_SAMPLES;

/// Buffers and kernels of one thread.
#[derive(Debug)]
pub struct Recoder {
    kernels: Kernels,
    /// A stream's samples before the packet, where a kernel looks at them, then the packet's.
    input: Box<[i16; MAX_CONTEXT + MAX_SAMPLES]>,
    output: Box<[i16; MAX_SAMPLES]>,
    datagram: Box<[u8; MAX_DATAGRAM]>,
}

/// From one coding to another; equal ones where only something is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recoding {
    /// As it comes.
    pub from: Coding,
    /// As it goes.
    pub to: Coding,
}

impl Recoding {
    /// Samples that a payload of so many bytes becomes; `None` when it is longer than any packet of ours.
    pub fn samples(&self, payload: usize) -> Option<usize> {
        let taken = self.from.samples(payload);
        let made = taken as u64 * u64::from(self.to.sample_rate()) / u64::from(self.from.sample_rate().max(1));
        (taken <= MAX_SAMPLES).then_some(made as usize).filter(|made| *made <= MAX_SAMPLES)
    }

    /// True when nothing is to be done.
    pub fn is_identity(&self) -> bool {
        self.from == self.to
    }
}

impl Recoder {
    /// All memory that it will ever have.
    pub fn new() -> Self {
        Self {
            kernels: Kernels::new(),
            input: Box::new([0; MAX_CONTEXT + MAX_SAMPLES]),
            output: Box::new([0; MAX_SAMPLES]),
            datagram: Box::new([0; MAX_DATAGRAM]),
        }
    }

    /// Makes a packet of another one's payload, which is not touched; its length in [`Recoder::datagram`]. The payload is
    /// one of which [`Recoding::samples`] has told the `samples`.
    pub fn packet(
        &mut self,
        header: &view::Outgoing,
        payload: &[u8],
        recoding: Recoding,
        samples: usize,
        beep: Option<Part>,
        converter: &mut Converter,
    ) -> usize {
        let Recoding { from, to } = recoding;
        let taken = from.samples(payload.len());
        let made = match self.kernels.get(from.sample_rate(), to.sample_rate()) {
            None => {
                let made = &mut self.input[..samples];
                from.decode(payload, made);
                made
            }
            Some(kernel) => {
                let before = context(kernel);
                let input = &mut self.input[..before + taken];
                from.decode(payload, &mut input[before..]);
                let output = &mut self.output[..samples];
                converter.run(kernel, input, output);
                output
            }
        };
        beep.iter().for_each(|beep| beep.add(made));
        let len = FIXED_LEN + to.bytes(samples);
        self.datagram[..FIXED_LEN].copy_from_slice(&header.encode());
        to.encode(made, &mut self.datagram[FIXED_LEN..len]);
        len
    }

    /// The last packet that was made stands at the beginning.
    pub fn datagram(&self) -> &[u8] {
        &self.datagram[..]
    }

    /// Room for `ptime_ms` of samples at 8,000 Hz that we play, to be encoded by [`Recoder::encode`].
    pub fn samples(&mut self, ptime_ms: u8) -> &mut [i16] {
        &mut self.input[MAX_CONTEXT..][..usize::from(ptime_ms) * (SAMPLE_RATE / 1_000) as usize]
    }

    /// Encodes them; the bytes written.
    pub fn encode(
        &mut self,
        ptime_ms: u8,
        to: Coding,
        converter: &mut Converter,
        out: &mut [u8; MAX_PAYLOAD],
    ) -> usize {
        let count = usize::from(ptime_ms) * (SAMPLE_RATE / 1_000) as usize;
        let samples = match self.kernels.get(SAMPLE_RATE, to.sample_rate()) {
            None => &self.input[MAX_CONTEXT..][..count],
            Some(kernel) => {
                let output = &mut self.output[..count * (to.sample_rate() / SAMPLE_RATE) as usize];
                converter.run(kernel, &mut self.input[MAX_CONTEXT - context(kernel)..MAX_CONTEXT + count], output);
                output
            }
        };
        let len = to.bytes(samples.len());
        to.encode(samples, &mut out[..len]);
        len
    }
}
