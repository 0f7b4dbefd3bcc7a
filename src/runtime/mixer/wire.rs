//! What goes through the ring from a mixer to a media thread: frames of the tap ring, whose header fields mean what this
//! file says.

use std::time::Duration;

use crate::bridge::command::Digit;
use crate::bridge::relay::MixedPacket;
use crate::id::{LegId, MixerId};
use crate::record::tap::TapHeader;

/// Kinds of frames that are no audio; no RTP payload type has the eighth bit, and the ring itself uses 0xff.
const DIGIT: u8 = 0xfe;
const LEFT: u8 = 0xfd;

/// One frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromMixer<'a> {
    /// A packet for the leg's peer.
    Audio(MixedPacket<'a>),
    /// A digit for the leg's peer.
    Digit(Digit, Duration),
    /// The mixer takes no more packets of the leg.
    Left,
}

/// The frame of a packet.
pub fn audio(leg: LegId, packet: &MixedPacket<'_>) -> TapHeader {
    TapHeader {
        timestamp: packet.tick,
        ssrc: packet.clock_rate,
        // 20 ms at 16,000 Hz are 320.
        sequence: packet.ticks as u16,
        payload_type: packet.payload_type & 0x7f,
        marker: packet.last,
        ..blank(leg)
    }
}

/// The frame of a digit; it has no payload.
pub fn digit(leg: LegId, digit: Digit, length: Duration) -> TapHeader {
    let timestamp = length.as_millis().min(u128::from(u32::MAX)) as u32;
    TapHeader { timestamp, ssrc: u32::from(digit.event()), payload_type: DIGIT, ..blank(leg) }
}

/// The frame that says that the mixer has let the leg go.
pub fn left(leg: LegId) -> TapHeader {
    TapHeader { payload_type: LEFT, ..blank(leg) }
}

/// Reads a frame; `None` for one that this file did not make.
pub fn read<'a>(mixer: MixerId, header: &TapHeader, payload: &'a [u8]) -> Option<FromMixer<'a>> {
    Some(match header.payload_type {
        DIGIT => FromMixer::Digit(Digit::new(header.ssrc as u8)?, Duration::from_millis(u64::from(header.timestamp))),
        LEFT => FromMixer::Left,
        payload_type if payload_type < 0x80 => FromMixer::Audio(MixedPacket {
            mixer,
            tick: header.timestamp,
            ticks: u32::from(header.sequence),
            clock_rate: header.ssrc,
            payload_type,
            last: header.marker,
            payload,
        }),
        _ => return None,
    })
}

fn blank(leg: LegId) -> TapHeader {
    TapHeader { leg, arrival_ns: 0, timestamp: 0, ssrc: 0, sequence: 0, len: 0, payload_type: 0, marker: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_read_back_as_they_were_made() {
        let packet = MixedPacket {
            mixer: MixerId(3),
            tick: 0xfedc_ba98,
            ticks: 320,
            clock_rate: 16_000,
            payload_type: 101,
            last: true,
            payload: &[1, 2, 3],
        };
        let read_back = |header: TapHeader| read(MixerId(3), &TapHeader::decode(&header.encode()), &[1, 2, 3]);
        assert_eq!(read_back(audio(LegId(7), &packet)), Some(FromMixer::Audio(packet)));
        let (key, length) = (Digit::of_key('#').unwrap(), Duration::from_millis(180));
        assert_eq!(read_back(digit(LegId(7), key, length)), Some(FromMixer::Digit(key, length)));
        assert_eq!(read_back(left(LegId(7))), Some(FromMixer::Left));
        assert_eq!(read_back(TapHeader { payload_type: 0xff, ..left(LegId(7)) }), None);
    }
}
