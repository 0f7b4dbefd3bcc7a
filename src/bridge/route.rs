//! Payload types: what a number means from a peer, and which number it becomes towards another.

use super::recode::Recoding;
use crate::audio::coding::Coding;
use crate::codec::{Codec, Kind, Payload};

/// Something for each of a few payload types. The first one, which is what almost every packet has, stands in the value
/// itself: no other memory is read for it.
#[derive(Debug)]
#[repr(C)]
struct ByNumber<T> {
    first: Option<(u8, T)>,
    others: Vec<(u8, T)>,
}

impl<T: Copy> ByNumber<T> {
    const EMPTY: Self = Self { first: None, others: Vec::new() };

    /// The first of two entries with one number counts; numbers above 127 are ignored.
    fn new(entries: impl Iterator<Item = (u8, T)>) -> Self {
        let mut numbers = Self::EMPTY;
        for (number, entry) in entries.filter(|(number, _)| *number < 128) {
            match numbers.first {
                None => numbers.first = Some((number, entry)),
                Some(_) if numbers.get(number).is_some() => {}
                Some(_) => numbers.others.push((number, entry)),
            }
        }
        numbers
    }

    fn get(&self, number: u8) -> Option<T> {
        let first = self.first.filter(|(first, _)| *first == number);
        let entry = first.or_else(|| self.others.iter().find(|(other, _)| *other == number).copied())?;
        Some(entry.1)
    }
}

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
pub struct Receive(ByNumber<Incoming>);

impl Receive {
    /// From our description. The first of two entries with one number counts; numbers above 127 are ignored.
    pub fn new(payloads: &[Payload]) -> Self {
        let incoming = |payload: &Payload| {
            let (clock_rate, kind) = (payload.codec.clock_rate, payload.codec.kind());
            (payload.payload_type, Incoming { clock_rate, kind })
        };
        Self(ByNumber::new(payloads.iter().map(incoming)))
    }

    /// What the number means; `None` when it was not negotiated.
    pub fn get(&self, payload_type: u8) -> Option<Incoming> {
        self.0.get(payload_type)
    }
}

/// What becomes of one payload type of a sender on its way to a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Onward {
    /// The receiver's number.
    pub payload_type: u8,
    /// RTP clock towards the receiver in Hz.
    pub clock_rate: u32,
    /// How its samples are coded and will be; `None`: of a codec that we do not read, or no audio.
    pub recoding: Option<Recoding>,
}

/// From a sender's payload types to a receiver's.
#[derive(Debug)]
pub struct Map(ByNumber<Onward>);

impl Map {
    /// A map that leads nowhere.
    pub fn empty() -> Self {
        Self(ByNumber::EMPTY)
    }

    /// Codec to codec; telephone-event by name and clock rate (spec/sip.md §7). Audio of which the receiver does not take
    /// the codec is transcoded to the one that it prefers among those that we make.
    pub fn new(receive: &[Payload], send: &[Payload]) -> Self {
        let entry = |payload: &Payload| {
            let onward = onward(&payload.codec, send).filter(|onward| onward.payload_type < 128)?;
            Some((payload.payload_type, onward))
        };
        Self(ByNumber::new(receive.iter().filter_map(entry)))
    }

    /// What becomes of it; `None` when it cannot reach the receiver.
    pub fn get(&self, payload_type: u8) -> Option<Onward> {
        self.0.get(payload_type)
    }
}

fn onward(codec: &Codec, send: &[Payload]) -> Option<Onward> {
    let from = Coding::of(codec);
    let same = send.iter().find(|to| same_codec(codec, &to.codec));
    let to = same.or_else(|| from.and(send.iter().find(|to| to.codec.is_encodable())))?;
    let recoding = from.zip(Coding::of(&to.codec)).map(|(from, to)| Recoding { from, to });
    Some(Onward { payload_type: to.payload_type, clock_rate: to.codec.clock_rate, recoding })
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
        let number = |payload_type| map.get(payload_type).map(|onward| onward.payload_type);
        assert_eq!(number(0), Some(120));
        assert_eq!(number(96), Some(101));
        assert_eq!(number(101), Some(100));
        assert_eq!(number(97), None, "another clock rate");
        assert_eq!(number(18), None);
        assert_eq!(number(101 | 0x80), None);
        assert!(map.get(0).unwrap().recoding.unwrap().is_identity());
        assert_eq!(map.get(101).unwrap().recoding, None);
    }

    #[test]
    fn audio_that_the_receiver_does_not_take_becomes_what_it_prefers_of_what_we_make() {
        let receive = [
            payload(0, "PCMU", 8_000),
            payload(97, "L16", 48_000),
            payload(13, "CN", 8_000),
            payload(18, "G729", 8_000),
        ];
        let send = [
            payload(18, "G729", 8_000),
            payload(98, "L16", 48_000),
            payload(99, "L16", 16_000),
            payload(8, "PCMA", 8_000),
            payload(101, "telephone-event", 8_000),
        ];
        let map = Map::new(&receive, &send);
        let made = map.get(0).unwrap();
        assert_eq!((made.payload_type, made.clock_rate), (99, 16_000));
        assert!(!made.recoding.unwrap().is_identity());
        assert_eq!(map.get(97).unwrap().payload_type, 98, "it takes it as it is");
        assert_eq!(map.get(18).unwrap().recoding, None, "passed on unread");
        assert_eq!(map.get(13), None);
        assert_eq!(Map::new(&receive[3..], &send[1..]).get(18), None, "nobody can read it");
    }

    #[test]
    fn what_was_not_negotiated_means_nothing() {
        let receive = Receive::new(&[payload(8, "PCMA", 8_000), payload(8, "L16", 16_000), payload(200, "X", 1)]);
        assert_eq!(receive.get(8), Some(Incoming { clock_rate: 8_000, kind: Kind::Pcma }));
        assert_eq!(receive.get(0), None);
        assert_eq!(receive.get(200), None);
    }
}
