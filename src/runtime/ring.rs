//! Bounded one-way queues that count what they drop.
//!
//! The tap ring carries encoded packets from one media thread to one recorder thread: a byte ring of whole frames,
//! [`TapHeader::LEN`] bytes of header and `len` bytes of payload each. The producer never waits: what finds the ring
//! full is dropped, counted per leg, and reported to the consumer in band as soon as there is room, so that the hole
//! in the recording carries its true cause (`dropped-by-us`, spec/recording.md §6).

use std::collections::HashMap;

use rtrb::RingBuffer;

use crate::id::LegId;
use crate::record::tap::TapHeader;

/// Longest payload of one frame; longer ones are dropped and counted. An RTP packet in one UDP datagram over Ethernet
/// has at most 1,460 bytes of payload; the rest is for jumbo frames on an operator's own network.
pub const MAX_PAYLOAD: usize = 8_192;

/// Legs whose drops are remembered one by one while the ring stays full. Beyond it drops are still counted in total.
const MAX_DROPPING_LEGS: usize = 8_192;

/// Marks a frame that reports drops; no RTP payload type has the eighth bit.
const DROPPED: u8 = 0xff;

/// Bytes of a drop report after its header: count and the arrival of the last dropped packet.
const DROPPED_LEN: usize = 16;

/// A tap ring of at least `bytes` bytes (never smaller than one longest frame).
pub fn tap(bytes: usize) -> (Producer, Consumer) {
    let (producer, consumer) = RingBuffer::new(bytes.max(TapHeader::LEN + MAX_PAYLOAD));
    let producer = Producer { ring: producer, dropping: HashMap::with_capacity(MAX_DROPPING_LEGS), dropped: 0 };
    (producer, Consumer { ring: consumer, unwrapped: vec![0; MAX_PAYLOAD].into_boxed_slice() })
}

/// Packets of one leg that found the ring full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// The leg.
    pub leg: LegId,
    /// How many, at least 1.
    pub count: u64,
    /// Arrival of the first, in nanoseconds after the process's epoch.
    pub first_ns: u64,
    /// Arrival of the last.
    pub last_ns: u64,
}

/// What [`Consumer::pop`] shows.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// One packet: its header and its payload, exactly `header.len` bytes.
    Packet(&'a TapHeader, &'a [u8]),
    /// Packets that are missing because the ring was full. It stands before the leg's next packet in the ring.
    Dropped(Dropped),
}

/// The media thread's end.
pub struct Producer {
    ring: rtrb::Producer<u8>,
    dropping: HashMap<LegId, Dropped>,
    dropped: u64,
}

/// The recorder thread's end.
pub struct Consumer {
    ring: rtrb::Consumer<u8>,
    /// A payload that wraps around the ring's end is joined here.
    unwrapped: Box<[u8]>,
}

impl Producer {
    /// Puts one frame whole, or drops and counts it; true when it is in the ring. `header.len` is set from `payload`.
    /// Neither locks nor allocates nor waits.
    pub fn push(&mut self, mut header: TapHeader, payload: &[u8]) -> bool {
        if payload.len() > MAX_PAYLOAD {
            self.count_drop(&header);
            return false;
        }
        header.len = payload.len() as u16;
        if !self.dropping.is_empty() && !self.report(header.leg) {
            self.count_drop(&header);
            return false;
        }
        let put = self.put(&header, payload);
        if !put {
            self.count_drop(&header);
        }
        put
    }

    /// Reports drops of legs that have sent nothing since. Called about once a second.
    pub fn flush(&mut self) {
        while let Some(leg) = self.dropping.keys().next().copied() {
            if !self.report(leg) {
                return;
            }
        }
    }

    /// Frames dropped since the ring exists.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// True when the consumer is gone: nothing pushed will be read.
    pub fn is_abandoned(&self) -> bool {
        self.ring.is_abandoned()
    }

    fn put(&mut self, header: &TapHeader, payload: &[u8]) -> bool {
        let Ok(mut chunk) = self.ring.write_chunk(TapHeader::LEN + payload.len()) else { return false };
        let (first, second) = chunk.as_mut_slices();
        copy_into(first, second, 0, &header.encode());
        copy_into(first, second, TapHeader::LEN, payload);
        chunk.commit_all();
        true
    }

    /// False when there is a report for `leg` and no room for it.
    fn report(&mut self, leg: LegId) -> bool {
        let Some(drops) = self.dropping.get(&leg).copied() else { return true };
        let mut body = [0; DROPPED_LEN];
        body[..8].copy_from_slice(&drops.count.to_le_bytes());
        body[8..].copy_from_slice(&drops.last_ns.to_le_bytes());
        let header = TapHeader {
            leg,
            arrival_ns: drops.first_ns,
            timestamp: 0,
            ssrc: 0,
            sequence: 0,
            len: DROPPED_LEN as u16,
            payload_type: DROPPED,
            marker: false,
        };
        let put = self.put(&header, &body);
        if put {
            self.dropping.remove(&leg);
        }
        put
    }

    fn count_drop(&mut self, header: &TapHeader) {
        self.dropped += 1;
        if let Some(drops) = self.dropping.get_mut(&header.leg) {
            drops.count += 1;
            drops.last_ns = header.arrival_ns;
        } else if self.dropping.len() < MAX_DROPPING_LEGS {
            let (first_ns, last_ns) = (header.arrival_ns, header.arrival_ns);
            self.dropping.insert(header.leg, Dropped { leg: header.leg, count: 1, first_ns, last_ns });
        }
    }
}

impl Consumer {
    /// Shows the oldest frame to `read` and frees it; `None` when the ring is empty. Does not allocate.
    pub fn pop<R>(&mut self, read: impl FnOnce(Frame<'_>) -> R) -> Option<R> {
        let chunk = self.ring.read_chunk(TapHeader::LEN).ok()?;
        let mut encoded = [0; TapHeader::LEN];
        let (first, second) = chunk.as_slices();
        encoded[..first.len()].copy_from_slice(first);
        encoded[first.len()..].copy_from_slice(second);
        let header = TapHeader::decode(&encoded);
        let len = usize::from(header.len);
        // The producer commits header and payload at once, so the payload is there; were it not, the frame waits.
        let chunk = self.ring.read_chunk(TapHeader::LEN + len).ok()?;
        let (first, second) = chunk.as_slices();
        let payload = match first.get(TapHeader::LEN..) {
            Some(start) if second.is_empty() => start,
            Some(start) => {
                self.unwrapped[..start.len()].copy_from_slice(start);
                self.unwrapped[start.len()..len].copy_from_slice(second);
                &self.unwrapped[..len]
            }
            None => &second[TapHeader::LEN - first.len()..],
        };
        let shown = match header.payload_type {
            DROPPED => read(Frame::Dropped(read_dropped(&header, payload))),
            _ => read(Frame::Packet(&header, payload)),
        };
        chunk.commit_all();
        Some(shown)
    }

    /// Arrival of the oldest frame, in nanoseconds after the process's epoch, without taking it: several rings are read
    /// in the order of time.
    pub fn next_arrival_ns(&mut self) -> Option<u64> {
        let chunk = self.ring.read_chunk(TapHeader::LEN).ok()?;
        let mut encoded = [0; TapHeader::LEN];
        let (first, second) = chunk.as_slices();
        encoded[..first.len()].copy_from_slice(first);
        encoded[first.len()..].copy_from_slice(second);
        Some(TapHeader::decode(&encoded).arrival_ns)
    }

    /// Bytes in the ring now.
    pub fn used(&self) -> usize {
        self.ring.slots()
    }

    /// Bytes that the ring can hold.
    pub fn capacity(&self) -> usize {
        self.ring.buffer().capacity()
    }

    /// True when the media thread is gone; what is still in the ring can be read.
    pub fn is_abandoned(&self) -> bool {
        self.ring.is_abandoned()
    }
}

/// Writes `bytes` at `offset` of the two halves of a chunk that may wrap around the ring's end.
fn copy_into(first: &mut [u8], second: &mut [u8], offset: usize, bytes: &[u8]) {
    if offset >= first.len() {
        let at = offset - first.len();
        second[at..at + bytes.len()].copy_from_slice(bytes);
        return;
    }
    let here = bytes.len().min(first.len() - offset);
    first[offset..offset + here].copy_from_slice(&bytes[..here]);
    second[..bytes.len() - here].copy_from_slice(&bytes[here..]);
}

fn read_dropped(header: &TapHeader, body: &[u8]) -> Dropped {
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&body[at..at + 8]);
        u64::from_le_bytes(word)
    };
    Dropped { leg: header.leg, count: word(0), first_ns: header.arrival_ns, last_ns: word(8) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(leg: u64, sequence: u16) -> TapHeader {
        TapHeader {
            leg: LegId(leg),
            arrival_ns: u64::from(sequence) * 20,
            timestamp: 0,
            ssrc: 1,
            sequence,
            len: 0,
            payload_type: 0,
            marker: false,
        }
    }

    fn small_ring(bytes: usize) -> (Producer, Consumer) {
        let (producer, consumer) = RingBuffer::new(bytes);
        let producer = Producer { ring: producer, dropping: HashMap::with_capacity(8), dropped: 0 };
        (producer, Consumer { ring: consumer, unwrapped: vec![0; MAX_PAYLOAD].into_boxed_slice() })
    }

    #[test]
    fn frames_come_out_as_they_went_in_wherever_the_ring_wraps() {
        for capacity in 191..260 {
            let (mut producer, mut consumer) = small_ring(capacity);
            for n in 0..600_u16 {
                let payload: Vec<u8> = (0..n % 161).map(|i| (i ^ n) as u8).collect();
                assert!(producer.push(header(1, n), &payload));
                let seen = consumer.pop(|frame| match frame {
                    Frame::Packet(h, p) => (h.sequence, h.len, p.to_vec()),
                    Frame::Dropped(_) => panic!("nothing was dropped"),
                });
                assert_eq!(seen, Some((n, payload.len() as u16, payload)), "capacity {capacity}");
            }
            assert_eq!(consumer.pop(|_| ()), None);
        }
    }

    #[test]
    fn a_full_ring_drops_whole_frames_and_says_which_leg_lost_how_many() {
        let (mut producer, mut consumer) = small_ring(3 * (TapHeader::LEN + 100));
        for n in 0..5 {
            assert_eq!(producer.push(header(7, n), &[0; 100]), n < 3);
        }
        assert_eq!(producer.dropped(), 2);
        for n in 0..3 {
            assert!(consumer.pop(|frame| assert!(matches!(frame, Frame::Packet(h, _) if h.sequence == n))).is_some());
        }
        assert!(producer.push(header(7, 5), &[0; 100]));
        let dropped = Dropped { leg: LegId(7), count: 2, first_ns: 60, last_ns: 80 };
        consumer.pop(|frame| assert_eq!(frame, Frame::Dropped(dropped))).unwrap();
        consumer.pop(|frame| assert!(matches!(frame, Frame::Packet(h, _) if h.sequence == 5))).unwrap();
        assert_eq!(consumer.pop(|_| ()), None);
    }

    #[test]
    fn drops_of_a_leg_that_went_silent_are_reported_by_flush() {
        let (mut producer, mut consumer) = small_ring(TapHeader::LEN + 100);
        assert!(producer.push(header(1, 0), &[0; 100]));
        assert!(!producer.push(header(2, 1), &[0; 100]));
        producer.flush();
        assert_eq!(consumer.pop(|frame| matches!(frame, Frame::Packet(..))), Some(true));
        assert_eq!(consumer.pop(|_| ()), None, "there was no room for the report");
        producer.flush();
        let seen = consumer.pop(|frame| matches!(frame, Frame::Dropped(Dropped { leg: LegId(2), count: 1, .. })));
        assert_eq!(seen, Some(true));
    }

    #[test]
    fn a_payload_beyond_the_limit_is_a_counted_drop() {
        let (mut producer, _consumer) = tap(0);
        assert!(!producer.push(header(1, 0), &vec![0; MAX_PAYLOAD + 1]));
        assert!(producer.push(header(2, 0), &vec![0; MAX_PAYLOAD - 100]));
        assert_eq!(producer.dropped(), 1);
    }
}
