//! Payload types: what a number means from a peer, and which number it becomes towards another.

use crate::codec::{Codec, Kind, Payload};

/// Stands for "no such payload type" in the tables.
const NONE: u8 = 0xff;

/// What the relay must know of a payload type that a peer may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incoming {
    /// RTP clock in Hz.
    pub clock_rate: u32,
    /// What it is.
    pub kind: Kind,
}

/// The payload types that a peer may send, by number.
#[derive(Debug)]
pub struct Receive {
    index: [u8; 128],
    entries: Vec<Incoming>,
}

impl Receive {
    /// From our description. The first of two entries with one number counts; numbers above 127 are ignored.
    pub fn new(payloads: &[Payload]) -> Self {
        let mut receive = Self { index: [NONE; 128], entries: Vec::with_capacity(payloads.len().min(128)) };
        for payload in payloads {
            let Some(index) = receive.index.get_mut(usize::from(payload.payload_type)) else { continue };
            if *index == NONE {
                *index = receive.entries.len() as u8;
                let (clock_rate, kind) = (payload.codec.clock_rate, payload.codec.kind());
                receive.entries.push(Incoming { clock_rate, kind });
            }
        }
        receive
    }

    /// What the number means; `None` when it was not negotiated.
    pub fn get(&self, payload_type: u8) -> Option<Incoming> {
        let index = *self.index.get(usize::from(payload_type))?;
        self.entries.get(usize::from(index)).copied()
    }
}

/// From a sender's payload type numbers to a receiver's.
#[derive(Debug)]
pub struct Map([u8; 128]);

impl Map {
    /// A map that leads nowhere.
    pub fn empty() -> Self {
        Self([NONE; 128])
    }

    /// Codec to codec; telephone-event by name and clock rate (spec/sip.md §7).
    pub fn new(receive: &[Payload], send: &[Payload]) -> Self {
        let mut map = Self::empty();
        for payload in receive {
            let Some(target) = map.0.get_mut(usize::from(payload.payload_type)) else { continue };
            let same = send.iter().find(|to| same_codec(&payload.codec, &to.codec));
            if let Some(to) = same.filter(|to| *target == NONE && to.payload_type < 128) {
                *target = to.payload_type;
            }
        }
        map
    }

    /// The receiver's number; `None` when it has no such codec.
    pub fn get(&self, payload_type: u8) -> Option<u8> {
        self.0.get(usize::from(payload_type)).copied().filter(|target| *target != NONE)
    }
}

fn same_codec(a: &Codec, b: &Codec) -> bool {
    let event = a.kind() == Kind::TelephoneEvent && b.kind() == Kind::TelephoneEvent;
    if event { a.clock_rate == b.clock_rate } else { a == b }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(payload_type: u8, name: &str, clock_rate: u32) -> Payload {
        Payload { payload_type, codec: Codec::new(name, clock_rate, 1) }
    }

    #[test]
    fn numbers_are_mapped_by_codec_whatever_they_are() {
        let receive = [
            payload(0, "PCMU", 8_000),
            payload(96, "L16", 16_000),
            payload(97, "telephone-event", 48_000),
            payload(101, "telephone-event", 8_000),
            payload(18, "G729", 8_000),
        ];
        let send = [
            payload(101, "L16", 16_000),
            payload(100, "telephone-event", 8_000),
            payload(120, "pcmu", 8_000),
            payload(102, "telephone-event", 16_000),
        ];
        let map = Map::new(&receive, &send);
        assert_eq!(map.get(0), Some(120));
        assert_eq!(map.get(96), Some(101));
        assert_eq!(map.get(101), Some(100));
        assert_eq!(map.get(97), None, "another clock rate");
        assert_eq!(map.get(18), None);
        assert_eq!(map.get(101 | 0x80), None);
    }

    #[test]
    fn what_was_not_negotiated_means_nothing() {
        let receive = Receive::new(&[payload(8, "PCMA", 8_000), payload(8, "L16", 16_000), payload(200, "X", 1)]);
        assert_eq!(receive.get(8), Some(Incoming { clock_rate: 8_000, kind: Kind::Pcma }));
        assert_eq!(receive.get(0), None);
        assert_eq!(receive.get(200), None);
    }
}
