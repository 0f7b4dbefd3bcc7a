//! Linear PCM as RTP carries it (L16, RFC 3551 §4.5.11): 16 bits, two's complement, big endian.

/// Reads L16: one sample per two bytes, as many as the shorter slice holds; a last odd byte is ignored.
pub fn decode_l16(bytes: &[u8], samples: &mut [i16]) {
    for (sample, pair) in samples.iter_mut().zip(bytes.chunks_exact(2)) {
        *sample = i16::from_be_bytes([pair[0], pair[1]]);
    }
}

/// Writes L16: two bytes per sample, as many as the shorter slice holds.
pub fn encode_l16(samples: &[i16], bytes: &mut [u8]) {
    for (pair, sample) in bytes.chunks_exact_mut(2).zip(samples) {
        pair.copy_from_slice(&sample.to_be_bytes());
    }
}

/// As [`encode_l16`], of the differences of two slices; none may leave the range of a sample.
pub fn encode_l16_minus(sum: &[i16], own: &[i16], bytes: &mut [u8]) {
    for ((pair, sum), own) in bytes.chunks_exact_mut(2).zip(sum).zip(own) {
        pair.copy_from_slice(&sum.wrapping_sub(*own).to_be_bytes());
    }
}

/// The sample nearest to a value.
#[inline(always)]
pub fn saturate(value: f32) -> i16 {
    // `as` saturates.
    value.round_ties_even() as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_survives_l16() {
        let samples: Vec<i16> = (i16::MIN..=i16::MAX).collect();
        let mut bytes = vec![0; samples.len() * 2];
        encode_l16(&samples, &mut bytes);
        assert_eq!(bytes[2], 0x80);
        assert_eq!(bytes[3], 0x01);
        let mut read = vec![0; samples.len()];
        decode_l16(&bytes, &mut read);
        assert_eq!(read, samples);
    }

    #[test]
    fn a_torn_sample_is_ignored() {
        let mut read = [7, 7];
        decode_l16(&[0, 1, 2], &mut read);
        assert_eq!(read, [1, 7]);
    }
}
