//! A whole RTP packet as the `rtp` crate reads and writes it: the second reader that [`super::view`] is held to, and
//! what scripted phones build their packets with. The only file that names `rtp` and `webrtc_util`.

use bytes::{Bytes, BytesMut};
use rtp::header::Header as CrateHeader;
use rtp::packet::Packet as CratePacket;
use webrtc_util::marshal::{Marshal, Unmarshal};

use super::view::{FIXED_LEN, Header, Malformed};

/// A packet with its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
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
    /// Contributing sources, at most 15.
    pub csrc: Vec<u32>,
    /// The payload without padding.
    pub payload: Bytes,
}

impl Packet {
    /// Reads a datagram; header extensions are skipped.
    ///
    /// The crate panics on an extension whose elements run past its end, reads the bytes behind element 15 as payload,
    /// and accepts any version and a padding of zero. So the header is checked by [`Header::parse`] first, and the
    /// crate never sees an extension.
    pub fn read(datagram: &[u8]) -> Result<Self, Malformed> {
        let header = Header::parse(datagram)?;
        let sources = FIXED_LEN + 4 * usize::from(datagram[0] & 0x0f);
        let mut plain = BytesMut::with_capacity(datagram.len());
        plain.extend_from_slice(&datagram[..sources]);
        plain[0] &= !0x10;
        plain.extend_from_slice(&datagram[header.payload().start..]);
        let packet = CratePacket::unmarshal(&mut plain.freeze()).map_err(|_| Malformed::Short)?;
        Ok(Self {
            payload_type: packet.header.payload_type,
            marker: packet.header.marker,
            sequence: packet.header.sequence_number,
            timestamp: packet.header.timestamp,
            ssrc: packet.header.ssrc,
            csrc: packet.header.csrc,
            payload: packet.payload,
        })
    }

    /// The datagram; `None` with more than 15 contributing sources.
    pub fn write(&self) -> Option<Bytes> {
        if self.csrc.len() > 15 {
            return None;
        }
        let header = CrateHeader {
            version: 2,
            marker: self.marker,
            payload_type: self.payload_type & 0x7f,
            sequence_number: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
            csrc: self.csrc.clone(),
            ..CrateHeader::default()
        };
        CratePacket { header, payload: self.payload.clone() }.marshal().ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn agree(datagram: &[u8]) {
        match (Header::parse(datagram), Packet::read(datagram)) {
            (Err(view), packet) => assert_eq!(packet, Err(view)),
            (Ok(view), packet) => {
                let packet = packet.expect("the view accepted it");
                assert_eq!(&datagram[view.payload()], &packet.payload[..]);
                assert_eq!((view.payload_type, view.marker), (packet.payload_type, packet.marker));
                assert_eq!((view.sequence, view.timestamp), (packet.sequence, packet.timestamp));
                assert_eq!(view.ssrc, packet.ssrc);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_096))]

        #[test]
        fn view_and_packet_give_one_answer_on_any_bytes(datagram in prop::collection::vec(any::<u8>(), 0..96)) {
            agree(&datagram);
        }

        #[test]
        fn view_and_packet_give_one_answer_on_nearly_valid_packets(
            first in 0x80_u8..=0xbf,
            words in 0_u16..6,
            profile in prop::sample::select(vec![0xbede_u16, 0x1000, 0x0001]),
            mut datagram in prop::collection::vec(any::<u8>(), 12..96),
        ) {
            datagram[0] = first;
            let at = 12 + 4 * usize::from(first & 0x0f);
            if let Some(extension) = datagram.get_mut(at..at + 4) {
                extension[..2].copy_from_slice(&profile.to_be_bytes());
                extension[2..].copy_from_slice(&words.to_be_bytes());
            }
            agree(&datagram);
        }

        #[test]
        fn a_written_packet_reads_back(
            payload_type in 0_u8..128, marker: bool, sequence: u16, timestamp: u32, ssrc: u32,
            csrc in prop::collection::vec(any::<u32>(), 0..16),
            payload in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let packet = Packet { payload_type, marker, sequence, timestamp, ssrc, csrc, payload: payload.into() };
            let datagram = packet.write().unwrap();
            prop_assert_eq!(Packet::read(&datagram), Ok(packet));
        }
    }
}
