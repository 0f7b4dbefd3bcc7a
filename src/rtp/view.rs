//! The RTP header, checked and changed in place (RFC 3550 §5.1).

use std::ops::Range;

/// Bytes of the fixed header.
pub const FIXED_LEN: usize = 12;

/// Why a datagram is not RTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Shorter than its header says.
    #[error("shorter than its header")]
    Short,
    /// A version other than 2.
    #[error("version {0}")]
    Version(u8),
    /// The padding's length is zero or more than there is.
    #[error("padding longer than the payload")]
    Padding,
}

/// A checked header: its fields and where the payload stands in the datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// 0…127.
    pub payload_type: u8,
    /// The marker bit.
    pub marker: bool,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp in units of the payload's clock.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    payload_start: u16,
    payload_end: u16,
}

impl Header {
    /// Checks version, contributing sources, extension and padding of a whole datagram.
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        let fixed: &[u8; FIXED_LEN] = datagram.first_chunk().ok_or(Malformed::Short)?;
        let version = fixed[0] >> 6;
        if version != 2 {
            return Err(Malformed::Version(version));
        }
        let mut start = FIXED_LEN + 4 * usize::from(fixed[0] & 0x0f);
        if fixed[0] & 0x10 != 0 {
            let words = datagram.get(start + 2..start + 4).ok_or(Malformed::Short)?;
            start += 4 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]]));
        }
        // A UDP datagram has at most 65,535 bytes; anything longer was never received.
        let mut end = u16::try_from(datagram.len()).map_err(|_| Malformed::Short)?;
        let start = u16::try_from(start).ok().filter(|start| *start <= end).ok_or(Malformed::Short)?;
        if fixed[0] & 0x20 != 0 {
            let padding = u16::from(datagram[datagram.len() - 1]);
            if padding == 0 || padding > end - start {
                return Err(Malformed::Padding);
            }
            end -= padding;
        }
        Ok(Self {
            payload_type: fixed[1] & 0x7f,
            marker: fixed[1] & 0x80 != 0,
            sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
            payload_start: start,
            payload_end: end,
        })
    }

    /// Where the payload stands in the datagram that was parsed, padding left out.
    pub fn payload(&self) -> Range<usize> {
        usize::from(self.payload_start)..usize::from(self.payload_end)
    }

    /// Payload length in bytes.
    pub fn payload_len(&self) -> usize {
        usize::from(self.payload_end - self.payload_start)
    }
}

/// The fields of a header that we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing {
    /// 0…127.
    pub payload_type: u8,
    /// The marker bit.
    pub marker: bool,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp.
    pub timestamp: u32,
    /// Our SSRC towards the receiver.
    pub ssrc: u32,
}

impl Outgoing {
    /// The encoded fixed header: version 2, no padding, no extension, no contributing sources.
    pub fn encode(&self) -> [u8; FIXED_LEN] {
        let mut out = [0; FIXED_LEN];
        out[0] = 0x80;
        out[1] = self.payload_type & 0x7f | if self.marker { 0x80 } else { 0 };
        out[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        out[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        out[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        out
    }

    /// Replaces the header of a parsed datagram in place and returns the range to send. The payload is not touched.
    ///
    /// The new header stands right before the payload: contributing sources and header extensions are negotiated per
    /// dialog (RFC 8285 §5), so neither crosses from one leg to the other, and padding serves only the link it was
    /// made for.
    pub fn replace(&self, header: &Header, datagram: &mut [u8]) -> Range<usize> {
        let payload = header.payload();
        let start = payload.start - FIXED_LEN;
        datagram[start..payload.start].copy_from_slice(&self.encode());
        start..payload.end
    }
}

/// True when a datagram on a port that carries both is RTCP (RFC 5761 §4).
pub fn is_rtcp(datagram: &[u8]) -> bool {
    datagram.get(1).is_some_and(|second| (192..=223).contains(second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_with_sources_extension_and_padding_shows_the_bare_payload() {
        let mut datagram = vec![0xb2, 0x88, 0x12, 0x34, 0, 0, 0, 7, 0, 0, 0, 9];
        datagram.extend([0; 8]); // two contributing sources
        datagram.extend([0xbe, 0xde, 0, 1, 0x10, 5, 0, 0]);
        datagram.extend([1, 2, 3, 0, 2]);
        let header = Header::parse(&datagram).unwrap();
        assert_eq!((header.payload_type, header.marker, header.sequence), (8, true, 0x1234));
        assert_eq!((header.timestamp, header.ssrc), (7, 9));
        assert_eq!(&datagram[header.payload()], [1, 2, 3]);

        let sent = Outgoing { payload_type: 0, marker: false, sequence: 1, timestamp: 2, ssrc: 3 };
        let range = sent.replace(&header, &mut datagram);
        assert_eq!(datagram[range], [0x80, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3]);
    }

    #[test]
    fn what_is_not_rtp_is_refused_with_its_reason() {
        let rtp = [0x80, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
        assert_eq!(Header::parse(&rtp).unwrap().payload_len(), 0);
        assert_eq!(Header::parse(&rtp[..11]), Err(Malformed::Short));
        assert_eq!(Header::parse(&[0x40; 20]), Err(Malformed::Version(1)));
        let with = |first: u8, rest: &[u8]| {
            let mut datagram = rtp.to_vec();
            datagram[0] = first;
            datagram.extend(rest);
            Header::parse(&datagram)
        };
        assert_eq!(with(0x81, &[0; 3]), Err(Malformed::Short), "a contributing source is cut off");
        assert_eq!(with(0x90, &[0, 0, 0]), Err(Malformed::Short), "the extension's length is cut off");
        assert_eq!(with(0x90, &[0, 0, 0, 1, 0, 0, 0]), Err(Malformed::Short), "the extension is cut off");
        assert_eq!(with(0xa0, &[1, 0]), Err(Malformed::Padding));
        assert_eq!(with(0xa0, &[1, 3]), Err(Malformed::Padding));
        assert_eq!(with(0xa0, &[1, 2]).unwrap().payload_len(), 0);
        assert_eq!(with(0xa0, &[]), Err(Malformed::Padding), "the header's last byte is not padding");
    }
}
