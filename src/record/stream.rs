//! One RTP stream of a leg: an SSRC at one RTP clock, with its timeline, its sequence numbers and the packets it holds back.

use super::timeline::{Held, MAX_HELD, Timeline};
use super::track::Origin;
use crate::audio::{g711, mix, pcm};
use crate::rtp::seq::{TimestampExtender, sequence_ahead};

/// A sequence number this far off is a restart of the sender, not a loss (RFC 3550 A.1 MAX_DROPOUT).
const MAX_DROPOUT: i16 = 3_000;

/// Sequence numbers whose arrival is remembered.
const REMEMBERED: i64 = 1_024;

/// Packets of 20 ms in the window in which an anchor is looked for.
const USUALLY_HELD: usize = 28;

/// Which sequence numbers came.
#[derive(Debug)]
pub struct Arrivals {
    bits: [u64; (REMEMBERED / 64) as usize],
    first: i64,
    highest: i64,
    /// The number on the wire that `highest` stands for.
    highest_wire: u16,
    unique: u64,
}

impl Arrivals {
    /// With the first packet not yet noted.
    pub fn new(first: u16) -> Self {
        let first_extended = i64::from(first);
        Self {
            bits: [0; (REMEMBERED / 64) as usize],
            first: first_extended,
            highest: first_extended - 1,
            highest_wire: first.wrapping_sub(1),
            unique: 0,
        }
    }

    /// Notes a packet. Its extended number, or `None` when it came before (or so long ago that one cannot tell).
    pub fn note(&mut self, sequence: u16) -> Option<i64> {
        let ahead = sequence_ahead(sequence, self.highest_wire);
        let extended = if ahead.unsigned_abs() > MAX_DROPOUT as u16 {
            // A restart: its numbers follow ours without a hole.
            self.highest + 1
        } else {
            self.highest + i64::from(ahead)
        };
        if extended == self.highest + 1 {
            self.highest = extended;
            self.highest_wire = sequence;
        } else if extended > self.highest {
            let from = (self.highest + 1).max(extended - REMEMBERED + 1);
            for number in from..=extended {
                self.set(number, false);
            }
            self.highest = extended;
            self.highest_wire = sequence;
        } else if extended <= self.highest - REMEMBERED || self.came(extended) {
            return None;
        }
        self.first = self.first.min(extended);
        self.set(extended, true);
        self.unique += 1;
        Some(extended)
    }

    /// Notes so many packets whose numbers follow the highest one by one.
    pub fn note_next(&mut self, packets: u16) {
        for _ in 0..packets {
            self.highest += 1;
            self.set(self.highest, true);
        }
        self.highest_wire = self.highest_wire.wrapping_add(packets);
        self.unique += u64::from(packets);
    }

    /// The highest number so far, as it was extended and as it was on the wire.
    pub fn highest(&self) -> (i64, u16) {
        (self.highest, self.highest_wire)
    }

    fn set(&mut self, number: i64, came: bool) {
        let slot = number.rem_euclid(REMEMBERED);
        let bit = 1 << (slot % 64);
        let word = &mut self.bits[(slot / 64) as usize];
        if came { *word |= bit } else { *word &= !bit }
    }

    fn came(&self, number: i64) -> bool {
        let slot = number.rem_euclid(REMEMBERED);
        self.bits[(slot / 64) as usize] & (1 << (slot % 64)) != 0
    }

    /// Packets between two numbers that did not come.
    pub fn missing_between(&self, a: i64, b: i64) -> u64 {
        if b <= a + 1 {
            return 0;
        }
        if b - a > REMEMBERED || a <= self.highest - REMEMBERED {
            return (b - a - 1) as u64;
        }
        (a + 1..b).filter(|number| !self.came(*number)).count() as u64
    }

    /// Packets missing from the first to the highest.
    pub fn lost(&self) -> u64 {
        ((self.highest - self.first + 1).max(0) as u64).saturating_sub(self.unique)
    }
}

/// How a payload becomes samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Coding {
    /// G.711 µ-law.
    #[default]
    Ulaw,
    /// G.711 A-law.
    Alaw,
    /// 16-bit big endian.
    Linear,
}

impl Coding {
    /// Samples in so many bytes.
    pub fn samples(self, bytes: usize) -> usize {
        if self == Self::Linear { bytes / 2 } else { bytes }
    }

    /// Decodes a payload from its sample `first` on, as many as `samples` has room for.
    pub fn decode(self, payload: &[u8], first: usize, samples: &mut [i16]) {
        match self {
            Self::Ulaw => g711::decode_ulaw(&payload[first..], samples),
            Self::Alaw => g711::decode_alaw(&payload[first..], samples),
            Self::Linear => pcm::decode_l16(&payload[2 * first..], samples),
        }
    }

    /// As [`Coding::decode`] of all the bytes, and gives the largest magnitude.
    pub fn decode_loudest(self, bytes: &[u8], samples: &mut [i16]) -> u16 {
        match self {
            Self::Ulaw => g711::decode_ulaw_loudest(bytes, samples),
            Self::Alaw => g711::decode_alaw_loudest(bytes, samples),
            Self::Linear => {
                pcm::decode_l16(bytes, samples);
                mix::loudest(samples)
            }
        }
    }
}

/// A packet of audio without its payload.
#[derive(Debug, Clone, Copy)]
pub struct Packet {
    /// Extended timestamp.
    pub timestamp: i64,
    /// Extended sequence number.
    pub sequence: i64,
    /// How to decode it.
    pub coding: Coding,
    /// Bytes of payload.
    pub len: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Stream {
    /// Its name within the leg, never reused.
    pub id: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// RTP clock in Hz, which for every codec that we decode is the audio rate.
    pub rate: u32,
    /// Which packets came.
    pub arrivals: Arrivals,
    /// Where they belong.
    pub timeline: Timeline,
    /// Extends timestamps.
    pub timestamps: TimestampExtender,
    /// Stream position in the track minus extended timestamp; `None` before there is an anchor.
    pub offset: Option<i64>,
    /// Highest timestamp that was placed: only newer packets tell what shift is wanted.
    pub newest: i64,
    /// Arrival of the last packet in ns.
    pub last_arrival: i64,
    held: Vec<Packet>,
    held_bytes: Vec<u8>,
}

impl Stream {
    /// A stream that begins with this sequence number.
    pub fn new(id: u32, ssrc: u32, rate: u32, sequence: u16) -> Self {
        Self {
            id,
            ssrc,
            rate,
            arrivals: Arrivals::new(sequence),
            timeline: Timeline::new(rate),
            timestamps: TimestampExtender::default(),
            offset: None,
            newest: i64::MIN,
            last_arrival: i64::MIN,
            held: Vec::new(),
            held_bytes: Vec::new(),
        }
    }

    /// Its name for one of its packets.
    pub fn origin(&self, packet: &Packet) -> Origin {
        Origin { stream: self.id, sequence: packet.sequence }
    }

    /// The place of a timestamp on the grid of the audio rate, to the fraction of a sample; `None` before there is an anchor.
    pub fn exact_place(&self, timestamp: i64) -> Option<f64> {
        Some(self.timeline.place(timestamp)? as f64 * f64::from(self.rate) / 1e9)
    }

    /// Keeps a packet until the timeline knows its place.
    pub fn hold(&mut self, packet: Packet, payload: &[u8]) {
        debug_assert!(self.held.len() <= MAX_HELD);
        if self.held.is_empty() {
            // At once what the first window brings (up to 20 ms of L16 a packet): growing would leave holes of every size in
            // the heap.
            self.held.reserve_exact(USUALLY_HELD);
            self.held_bytes.reserve_exact(USUALLY_HELD * payload.len().min(640));
        }
        self.held.push(packet);
        self.held_bytes.extend_from_slice(payload);
    }

    /// The held packets that the verdict lets go, with their payloads, and how many belong nowhere. Holding is rare, so
    /// the memory goes with them.
    pub fn release(&mut self, verdict: Held) -> (Vec<Packet>, Vec<u8>, usize) {
        let from = match verdict {
            Held::Keep => return (Vec::new(), Vec::new(), 0),
            Held::Place => 0,
            Held::PlaceFrom(from) => from.min(self.held.len()),
        };
        let mut packets = std::mem::take(&mut self.held);
        let mut bytes = std::mem::take(&mut self.held_bytes);
        let skipped: usize = packets.drain(..from).map(|packet| packet.len).sum();
        bytes.drain(..skipped);
        (packets, bytes, from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_duplicates_and_reordering_are_told_apart_across_the_wrap() {
        let mut arrivals = Arrivals::new(65_534);
        let noted: Vec<_> = [65_534, 65_535, 1, 0, 1, 4].into_iter().map(|s| arrivals.note(s)).collect();
        assert_eq!(noted, [Some(65_534), Some(65_535), Some(65_537), Some(65_536), None, Some(65_540)]);
        assert_eq!(arrivals.lost(), 2);
        assert_eq!(arrivals.missing_between(65_537, 65_540), 2);
        assert_eq!(arrivals.missing_between(65_534, 65_537), 0);
    }

    #[test]
    fn packets_noted_at_once_are_as_if_noted_one_by_one() {
        let (mut one, mut other) = (Arrivals::new(65_530), Arrivals::new(65_530));
        for sequence in [65_530, 65_533] {
            one.note(sequence);
            other.note(sequence);
        }
        (65_534..=65_535).chain(0..7).for_each(|sequence| assert!(one.note(sequence).is_some()));
        other.note_next(9);
        assert_eq!(one.highest(), other.highest());
        assert_eq!((one.bits, one.unique, one.first), (other.bits, other.unique, other.first));
        assert_eq!((one.lost(), other.note(6), other.note(7)), (2, None, one.note(7)));
    }

    #[test]
    fn a_packet_before_the_first_counts_from_there() {
        let mut arrivals = Arrivals::new(10);
        assert_eq!(arrivals.note(10), Some(10));
        assert_eq!(arrivals.note(8), Some(8));
        assert_eq!(arrivals.lost(), 1);
    }

    #[test]
    fn a_restart_of_the_numbers_is_no_loss() {
        let mut arrivals = Arrivals::new(10);
        arrivals.note(10);
        assert_eq!(arrivals.note(30_000), Some(11));
        assert_eq!(arrivals.note(30_001), Some(12));
        assert_eq!(arrivals.lost(), 0);
    }

    #[test]
    fn what_is_too_long_ago_to_tell_counts_as_known() {
        let mut arrivals = Arrivals::new(0);
        for sequence in 0..2_000 {
            arrivals.note(sequence);
        }
        assert_eq!(arrivals.note(100), None);
        assert_eq!(arrivals.note(1_999), None);
        assert_eq!(arrivals.missing_between(0, 500), 499);
    }

    #[test]
    fn released_packets_keep_their_own_payloads() {
        let mut stream = Stream::new(0, 1, 8_000, 0);
        for i in 0..3_u8 {
            let packet = Packet { timestamp: 0, sequence: i64::from(i), coding: Coding::Ulaw, len: 2 };
            stream.hold(packet, &[i, i]);
        }
        let (packets, bytes, skipped) = stream.release(Held::PlaceFrom(1));
        assert_eq!((packets.len(), packets[0].sequence, skipped), (2, 1, 1));
        assert_eq!(bytes, [1, 1, 2, 2]);
    }
}
