//! The tap: one encoded packet of one leg, as a media thread hands it to a recorder thread.
//!
//! A frame in the byte ring is [`TapHeader::LEN`] bytes followed by `len` bytes of RTP payload.

use crate::id::LegId;

/// What the recorder must know of a packet besides its payload. The numbers are the peer's own, not rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TapHeader {
    /// The leg whose peer sent it.
    pub leg: LegId,
    /// Arrival in nanoseconds after the process's epoch (the `Instant` that every thread is given at start).
    pub arrival_ns: u64,
    /// RTP timestamp in units of the payload's clock.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Sequence number.
    pub sequence: u16,
    /// Payload length in bytes, padding removed.
    pub len: u16,
    /// Payload type as received; the leg's table in [`super::mark::Change::Payloads`] gives its codec.
    pub payload_type: u8,
    /// The RTP marker bit.
    pub marker: bool,
}

impl TapHeader {
    /// Bytes of an encoded header.
    pub const LEN: usize = 30;

    /// Little-endian, fixed layout: leg, arrival, timestamp, ssrc, sequence, len, payload type, marker.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[0..8].copy_from_slice(&self.leg.0.to_le_bytes());
        out[8..16].copy_from_slice(&self.arrival_ns.to_le_bytes());
        out[16..20].copy_from_slice(&self.timestamp.to_le_bytes());
        out[20..24].copy_from_slice(&self.ssrc.to_le_bytes());
        out[24..26].copy_from_slice(&self.sequence.to_le_bytes());
        out[26..28].copy_from_slice(&self.len.to_le_bytes());
        out[28] = self.payload_type;
        out[29] = u8::from(self.marker);
        out
    }

    /// The reverse of [`TapHeader::encode`].
    pub fn decode(bytes: &[u8; Self::LEN]) -> Self {
        fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
            let mut out = [0; N];
            out.copy_from_slice(&bytes[at..at + N]);
            out
        }
        Self {
            leg: LegId(u64::from_le_bytes(part(bytes, 0))),
            arrival_ns: u64::from_le_bytes(part(bytes, 8)),
            timestamp: u32::from_le_bytes(part(bytes, 16)),
            ssrc: u32::from_le_bytes(part(bytes, 20)),
            sequence: u16::from_le_bytes(part(bytes, 24)),
            len: u16::from_le_bytes(part(bytes, 26)),
            payload_type: bytes[28],
            marker: bytes[29] != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_ring() {
        let header = TapHeader {
            leg: LegId(7),
            arrival_ns: 1 << 40,
            timestamp: 0xdead_beef,
            ssrc: 0x1234_5678,
            sequence: 65_535,
            len: 160,
            payload_type: 8,
            marker: true,
        };
        assert_eq!(TapHeader::decode(&header.encode()), header);
    }
}
