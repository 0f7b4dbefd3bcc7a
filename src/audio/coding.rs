//! The codecs that we read and make, as a value small enough for tables of the packet path.

use super::{g711, pcm};
use crate::codec::{Codec, Kind};

/// How samples are coded: G.711 or linear, mono.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coding {
    law: Law,
    sample_rate: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Law {
    Mu,
    A,
    Linear,
}

impl Coding {
    /// Of a codec that [`Codec::is_decodable`].
    pub fn of(codec: &Codec) -> Option<Self> {
        let law = match codec.kind() {
            Kind::Pcmu => Law::Mu,
            Kind::Pcma => Law::A,
            Kind::L16 => Law::Linear,
            Kind::TelephoneEvent | Kind::ComfortNoise | Kind::Other => return None,
        };
        codec.is_decodable().then_some(Self { law, sample_rate: codec.clock_rate })
    }

    /// In Hz; the RTP clock too.
    pub fn sample_rate(self) -> u32 {
        self.sample_rate
    }

    /// Samples in so many bytes.
    pub fn samples(self, bytes: usize) -> usize {
        if self.law == Law::Linear { bytes / 2 } else { bytes }
    }

    /// Bytes of so many samples.
    pub fn bytes(self, samples: usize) -> usize {
        if self.law == Law::Linear { 2 * samples } else { samples }
    }

    /// Decodes as many samples as `bytes` holds and `samples` has room for.
    pub fn decode(self, bytes: &[u8], samples: &mut [i16]) {
        match self.law {
            Law::Mu => g711::decode_ulaw(bytes, samples),
            Law::A => g711::decode_alaw(bytes, samples),
            Law::Linear => pcm::decode_l16(bytes, samples),
        }
    }

    /// As [`Coding::decode`], and gives the largest magnitude, where decoding tells it.
    pub fn decode_loudest(self, bytes: &[u8], samples: &mut [i16]) -> Option<u16> {
        match self.law {
            Law::Mu => Some(g711::decode_ulaw_loudest(bytes, samples)),
            Law::A => Some(g711::decode_alaw_loudest(bytes, samples)),
            Law::Linear => {
                pcm::decode_l16(bytes, samples);
                None
            }
        }
    }

    /// Encodes a sum without one's own voice. No difference may leave the range of a sample.
    pub fn encode_minus(self, sum: &[i16], own: &[i16], bytes: &mut [u8]) {
        match self.law {
            Law::Mu => g711::encode_ulaw_minus(sum, own, bytes),
            Law::A => g711::encode_alaw_minus(sum, own, bytes),
            Law::Linear => pcm::encode_l16_minus(sum, own, bytes),
        }
    }

    /// Encodes as many samples as `bytes` has room for.
    pub fn encode(self, samples: &[i16], bytes: &mut [u8]) {
        match self.law {
            Law::Mu => g711::encode_ulaw(samples, bytes),
            Law::A => g711::encode_alaw(samples, bytes),
            Law::Linear => pcm::encode_l16(samples, bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_decodable_codec_has_a_coding_of_its_size() {
        let linear = |rate| Codec::new("l16", rate, 1);
        for (codec, size) in
            [(Codec::pcmu(), 1), (Codec::pcma(), 1), (linear(8_000), 2), (linear(16_000), 2), (linear(48_000), 2)]
        {
            let coding = Coding::of(&codec).unwrap();
            assert_eq!(
                (coding.sample_rate(), coding.bytes(160), coding.samples(160 * size)),
                (codec.clock_rate, 160 * size, 160)
            );
            let samples: Vec<i16> = (0..160).map(|n| 100 * n).collect();
            let (mut bytes, mut back) = (vec![0; 160 * size], vec![0; 160]);
            coding.encode(&samples, &mut bytes);
            let told = coding.decode_loudest(&bytes, &mut back);
            let loudest = back.iter().map(|sample| i16::unsigned_abs(*sample)).max();
            assert!(told.is_none_or(|told| Some(told) == loudest) && told.is_some() == (size == 1));
            let mut again = vec![0; 160];
            coding.decode(&bytes, &mut again);
            assert_eq!(again, back);
            let own: Vec<i16> = (0..160).map(|n| 170 * (80 - n)).collect();
            let others: Vec<i16> = samples.iter().zip(&own).map(|(sum, own)| sum - own).collect();
            let (mut apart, mut at_once) = (vec![0; 160 * size], vec![0; 160 * size]);
            coding.encode(&others, &mut apart);
            coding.encode_minus(&samples, &own, &mut at_once);
            assert_eq!(apart, at_once);
            // G.711 keeps four bits of mantissa.
            assert!(
                samples.iter().zip(&back).all(|(a, b)| (i32::from(*a) - i32::from(*b)).abs() <= 8 + i32::from(*a) / 32)
            );
        }
        assert_eq!(Coding::of(&Codec::telephone_event()), None);
        assert_eq!(Coding::of(&linear(44_100)), None);
    }
}
