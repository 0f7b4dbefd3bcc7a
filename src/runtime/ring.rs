//! Bounded one-way queues that count what they drop.
//!
//! The tap ring carries encoded packets from one media thread to one recorder thread: whole frames,
//! [`TapHeader::LEN`] bytes of header and `len` bytes of payload each. The producer never waits: what finds the ring
//! full is dropped, counted per leg, and reported to the consumer in band as soon as there is room, so that the hole
//! in the recording carries its true cause (`dropped-by-us`, spec/recording.md §6).
//!
//! Frames travel in segments that go to and fro between both ends, the last one back being the first one used again.
//! A plain byte ring of the same capacity walks through all of its memory however little is in it, so that a server
//! with ten calls would come to hold `recording.buffer` for good; this one touches what its backlog needs.

use std::collections::HashMap;

use rtrb::RingBuffer;

use crate::id::LegId;
use crate::record::tap::TapHeader;

/// Longest payload of one frame; longer ones are dropped and counted. An RTP packet in one UDP datagram over Ethernet
/// has at most 1,460 bytes of payload; the rest is for jumbo frames on an operator's own network.
pub const MAX_PAYLOAD: usize = 8_192;

/// Bytes of a segment: some 160 packets of G.711.
const SEGMENT: usize = 32 << 10;
const _: () = assert!(SEGMENT >= 2 * (TapHeader::LEN + MAX_PAYLOAD), "a frame and a report of drops fit a segment");

/// Empty segments kept ready for one pass of the media thread, which allocates none while it reads packets.
const RESERVE: usize = 4;

/// What may be pushed between two calls of [`Producer::publish`], with its headers, in bytes.
pub const PASS: usize = (RESERVE - 1) * SEGMENT / 2;

/// While so many segments wait for the consumer, or half of all, one is handed over only when it is full: the consumer
/// has enough to do, and the capacity is not spent on air.
const WAITING: usize = 64;

/// How long a busy producer may gather frames in a segment before it hands it over, in ns; see
/// [`Producer::publish_aged`]. A recorder counts with 20 ms between the socket and this ring's other end: this, and a
/// pass of the media thread.
pub const GATHER_NS: u64 = 5_000_000;

/// Segments that one [`Producer::flush`] gives back to the system when they are not needed any more.
const RELEASE: usize = 16;

/// Legs whose drops are remembered one by one while the ring stays full. Beyond it drops are still counted in total.
const MAX_DROPPING_LEGS: usize = 8_192;

/// Marks a frame that reports drops; no RTP payload type has the eighth bit.
const DROPPED: u8 = 0xff;

/// Bytes of a drop report after its header: count and the arrival of the last dropped packet.
const DROPPED_LEN: usize = 16;

/// A tap ring of about `bytes` bytes, in whole segments of 32 KiB and never fewer than four of them.
pub fn tap(bytes: usize) -> (Producer, Consumer) {
    let limit = (bytes / SEGMENT).max(RESERVE);
    let (filled, waiting) = RingBuffer::new(limit);
    let (back, empty) = RingBuffer::new(limit);
    let mut producer = Producer {
        filled,
        empty,
        current: None,
        gathered_since: 0,
        spare: Vec::with_capacity(limit),
        allocated: 0,
        limit,
        dropping: HashMap::with_capacity(MAX_DROPPING_LEGS),
        dropped: 0,
    };
    producer.provide();
    (producer, Consumer { waiting, back, current: None, limit })
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

/// The media thread's end. What it holds is handed over when it is dropped.
pub struct Producer {
    filled: rtrb::Producer<Vec<u8>>,
    empty: rtrb::Consumer<Vec<u8>>,
    /// The segment that is being filled; never empty.
    current: Option<Vec<u8>>,
    /// Arrival of its first frame, in nanoseconds after the process's epoch.
    gathered_since: u64,
    /// Empty segments, the one used last on top.
    spare: Vec<Vec<u8>>,
    /// Segments that exist, wherever they are.
    allocated: usize,
    limit: usize,
    dropping: HashMap<LegId, Dropped>,
    dropped: u64,
}

/// The recorder thread's end.
pub struct Consumer {
    waiting: rtrb::Consumer<Vec<u8>>,
    back: rtrb::Producer<Vec<u8>>,
    /// The segment that is being read, and how far.
    current: Option<(Vec<u8>, usize)>,
    limit: usize,
}

impl Producer {
    /// Puts one frame whole, or drops and counts it; true when it is in the ring. `header.len` is set from `payload`.
    /// Neither locks nor allocates nor waits. The consumer sees it after the next [`Producer::publish`], or when its
    /// segment is full.
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

    /// As [`Producer::publish`], but only if the oldest frame that the consumer cannot see has waited for [`GATHER_NS`] at
    /// `now_ns` (nanoseconds after the process's epoch): fewer and fuller segments go to and fro, so less memory is touched.
    /// Only for who calls again in time: see [`Producer::is_gathering`].
    pub fn publish_aged(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.gathered_since) >= GATHER_NS {
            self.publish();
        } else {
            self.provide();
        }
    }

    /// Something was pushed that the consumer cannot see: do not sleep for longer than [`GATHER_NS`].
    pub fn is_gathering(&self) -> bool {
        self.current.is_some()
    }

    /// Shows the consumer what was pushed, and makes room for the next pass.
    pub fn publish(&mut self) {
        let waiting = self.limit - self.filled.slots();
        if self.current.is_some() && waiting < WAITING.min(self.limit / 2) {
            self.hand_over();
        }
        self.provide();
    }

    /// Reports drops of legs that have sent nothing since, and gives memory back that a backlog took and that is not
    /// needed any more. Called about once a second.
    pub fn flush(&mut self) {
        while let Some(leg) = self.dropping.keys().next().copied() {
            if !self.report(leg) {
                break;
            }
        }
        self.publish();
        let surplus = self.spare.len().saturating_sub(2 * RESERVE).min(RELEASE);
        // The bottom of the stack has not been used for longest.
        self.spare.drain(..surplus);
        self.allocated -= surplus;
    }

    /// Frames dropped since the ring exists.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// True when the consumer is gone: nothing pushed will be read.
    pub fn is_abandoned(&self) -> bool {
        self.filled.is_abandoned()
    }

    fn put(&mut self, header: &TapHeader, payload: &[u8]) -> bool {
        let len = TapHeader::LEN + payload.len();
        if self.current.as_ref().is_some_and(|segment| segment.len() + len > SEGMENT) {
            self.hand_over();
        }
        if self.current.is_none() {
            self.collect();
            self.current = self.spare.pop();
            self.gathered_since = header.arrival_ns;
        }
        let Some(segment) = &mut self.current else { return false };
        segment.extend_from_slice(&header.encode());
        segment.extend_from_slice(payload);
        true
    }

    fn hand_over(&mut self) {
        if let Some(segment) = self.current.take()
            && let Err(rtrb::PushError::Full(segment)) = self.filled.push(segment)
        {
            // It has a place for every segment that exists; were it full, the segment would wait.
            self.current = Some(segment);
        }
    }

    fn collect(&mut self) {
        while let Ok(segment) = self.empty.pop() {
            self.spare.push(segment);
        }
    }

    fn provide(&mut self) {
        self.collect();
        while self.spare.len() < RESERVE && self.allocated < self.limit {
            self.spare.push(Vec::with_capacity(SEGMENT));
            self.allocated += 1;
        }
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

impl Drop for Producer {
    fn drop(&mut self) {
        self.hand_over();
    }
}

impl Consumer {
    /// Shows the oldest frame to `read` and frees it; `None` when the ring is empty. Does not allocate.
    pub fn pop<R>(&mut self, read: impl FnOnce(Frame<'_>) -> R) -> Option<R> {
        let header = self.next_header()?;
        let (segment, at) = self.current.as_mut()?;
        let payload = payload_at(segment, at, &header)?;
        Some(read(frame(&header, payload)))
    }

    /// Shows every frame that arrived at or before `until_ns` (nanoseconds after the process's epoch) to `read`, oldest
    /// first, and frees it. Does not allocate.
    pub fn drain(&mut self, until_ns: u64, mut read: impl FnMut(Frame<'_>)) {
        loop {
            if let Some((segment, at)) = &mut self.current {
                while let Some(header) = header_at(segment, *at) {
                    if header.arrival_ns > until_ns {
                        return;
                    }
                    let Some(payload) = payload_at(segment, at, &header) else { return };
                    read(frame(&header, payload));
                }
            }
            if !self.turn_over() {
                return;
            }
        }
    }

    /// Bytes that wait, in whole segments.
    pub fn used(&self) -> usize {
        (self.waiting.slots() + usize::from(self.current.is_some())) * SEGMENT
    }

    /// Bytes that the ring can hold.
    pub fn capacity(&self) -> usize {
        self.limit * SEGMENT
    }

    /// How full it is, in thousandths.
    pub fn fill_permille(&self) -> usize {
        self.used() * 1_000 / self.capacity()
    }

    /// True when the media thread is gone; what is still in the ring can be read.
    pub fn is_abandoned(&self) -> bool {
        self.waiting.is_abandoned()
    }

    fn next_header(&mut self) -> Option<TapHeader> {
        loop {
            if let Some((segment, at)) = &self.current
                && let Some(header) = header_at(segment, *at)
            {
                return Some(header);
            }
            if !self.turn_over() {
                return None;
            }
        }
    }

    /// From a segment that has been read to the next one; false when there is none.
    fn turn_over(&mut self) -> bool {
        if let Some((mut segment, _)) = self.current.take() {
            segment.clear();
            // It has a place for every segment that exists, unless the producer is gone; then nobody needs it.
            let _ = self.back.push(segment);
        }
        self.current = self.waiting.pop().ok().map(|segment| (segment, 0));
        self.current.is_some()
    }
}

/// The header of the frame that begins there; `None` at the end of the segment.
fn header_at(segment: &[u8], at: usize) -> Option<TapHeader> {
    segment.get(at..).and_then(|rest| rest.first_chunk()).map(TapHeader::decode)
}

/// The payload behind that header; `at` becomes the beginning of the next frame.
fn payload_at<'a>(segment: &'a [u8], at: &mut usize, header: &TapHeader) -> Option<&'a [u8]> {
    let start = *at + TapHeader::LEN;
    let end = start + usize::from(header.len);
    // Frames are whole: the producer wrote header and payload together.
    let payload = segment.get(start..end)?;
    *at = end;
    Some(payload)
}

fn frame<'a>(header: &'a TapHeader, payload: &'a [u8]) -> Frame<'a> {
    match header.payload_type {
        DROPPED => Frame::Dropped(read_dropped(header, payload)),
        _ => Frame::Packet(header, payload),
    }
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

    fn take(consumer: &mut Consumer) -> Option<(u64, u16, Vec<u8>)> {
        consumer.pop(|frame| match frame {
            Frame::Packet(header, payload) => (header.leg.0, header.sequence, payload.to_vec()),
            Frame::Dropped(dropped) => panic!("{dropped:?}"),
        })
    }

    #[test]
    fn frames_come_out_as_they_went_in_in_their_order() {
        let (mut producer, mut consumer) = tap(1 << 20);
        for round in 0..200_u16 {
            for n in 0..300_u16 {
                let payload: Vec<u8> = (0..n % 161).map(|i| (i ^ n) as u8).collect();
                assert!(producer.push(header(1, n), &payload));
                if n % 64 == 0 {
                    producer.publish();
                }
            }
            producer.publish();
            for n in 0..300_u16 {
                let payload = (0..n % 161).map(|i| (i ^ n) as u8).collect();
                assert_eq!(take(&mut consumer), Some((1, n, payload)), "round {round}");
            }
            assert_eq!(take(&mut consumer), None);
        }
        assert_eq!(producer.dropped(), 0);
    }

    #[test]
    fn memory_follows_the_backlog_and_not_the_capacity() {
        let (mut producer, mut consumer) = tap(64 << 20);
        for n in 0..60_000_u32 {
            producer.push(header(1, n as u16), &[0; 160]);
            if n % 20 == 19 {
                producer.publish();
            }
            if n % 400 == 399 {
                while take(&mut consumer).is_some() {}
            }
        }
        assert!(producer.allocated <= 20 + 2 * RESERVE, "{} segments", producer.allocated);
    }

    #[test]
    fn a_consumer_that_stands_still_finds_the_whole_capacity_used_and_the_memory_comes_back() {
        let (mut producer, mut consumer) = tap(8 << 20);
        let mut pushed = 0;
        while producer.push(header(1, pushed as u16), &[0; 160]) {
            pushed += 1;
            producer.publish();
        }
        let bytes = pushed * (TapHeader::LEN + 160);
        assert!(bytes > (8 << 20) / 4 * 3 - WAITING * SEGMENT, "{bytes} bytes in a ring of {}", consumer.capacity());
        while consumer.pop(|_| ()).is_some() {}
        (0..100).for_each(|_| producer.flush());
        assert!(producer.allocated <= 3 * RESERVE, "{} segments", producer.allocated);
    }

    #[test]
    fn many_small_passes_do_not_fill_a_small_ring() {
        let (mut producer, mut consumer) = tap(8 * SEGMENT);
        for n in 0..600 {
            assert!(producer.push(header(1, n), &[0; 160]), "packet {n}");
            producer.publish();
        }
        for n in 0..600 {
            producer.publish();
            assert_eq!(take(&mut consumer).map(|(_, sequence, _)| sequence), Some(n));
        }
    }

    #[test]
    fn a_full_ring_drops_whole_frames_and_says_which_leg_lost_how_many() {
        let (mut producer, mut consumer) = tap(0);
        let mut put = 0;
        while producer.push(header(7, put), &[0; 100]) {
            put += 1;
        }
        assert!(!producer.push(header(7, put + 1), &[0; 100]));
        assert_eq!(producer.dropped(), 2);
        producer.publish();
        for n in 0..put {
            assert_eq!(take(&mut consumer).map(|(_, sequence, _)| sequence), Some(n));
        }
        assert_eq!(consumer.pop(|_| ()), None);
        assert!(producer.push(header(7, put + 2), &[0; 100]));
        producer.publish();
        let (first_ns, last_ns) = (u64::from(put) * 20, u64::from(put + 1) * 20);
        let dropped = Dropped { leg: LegId(7), count: 2, first_ns, last_ns };
        consumer.pop(|frame| assert_eq!(frame, Frame::Dropped(dropped))).unwrap();
        assert_eq!(take(&mut consumer).map(|(_, sequence, _)| sequence), Some(put + 2));
        assert_eq!(consumer.pop(|_| ()), None);
    }

    #[test]
    fn drops_of_a_leg_that_went_silent_are_reported_by_flush() {
        let (mut producer, mut consumer) = tap(0);
        while producer.push(header(1, 0), &[0; 100]) {}
        assert!(!producer.push(header(2, 1), &[0; 100]));
        producer.flush();
        while consumer.pop(|frame| assert!(matches!(frame, Frame::Packet(..)))).is_some() {}
        producer.flush();
        let mut reported = vec![];
        while let Some(dropped) = consumer.pop(|frame| match frame {
            Frame::Dropped(dropped) => (dropped.leg, dropped.count),
            Frame::Packet(..) => panic!("no packet was pushed"),
        }) {
            reported.push(dropped);
        }
        reported.sort_unstable();
        assert_eq!(reported, [(LegId(1), 1), (LegId(2), 1)]);
    }

    #[test]
    fn a_payload_beyond_the_limit_is_a_counted_drop() {
        let (mut producer, _consumer) = tap(0);
        assert!(!producer.push(header(1, 0), &vec![0; MAX_PAYLOAD + 1]));
        assert!(producer.push(header(2, 0), &vec![0; MAX_PAYLOAD]));
        assert_eq!(producer.dropped(), 1);
    }

    #[test]
    fn what_is_gathered_is_shown_when_it_has_waited_or_its_segment_is_full() {
        let (mut producer, mut consumer) = tap(1 << 20);
        let pushed = |producer: &mut Producer, sequence, arrival_ns| {
            assert!(producer.push(TapHeader { arrival_ns, ..header(1, sequence) }, &[0; 160]));
        };
        pushed(&mut producer, 0, 1_000);
        pushed(&mut producer, 1, GATHER_NS);
        producer.publish_aged(GATHER_NS + 999);
        assert!(producer.is_gathering());
        assert_eq!(take(&mut consumer), None);
        producer.publish_aged(GATHER_NS + 1_000);
        assert!(!producer.is_gathering());
        assert_eq!(take(&mut consumer).map(|(_, sequence, _)| sequence), Some(0));
        assert_eq!(take(&mut consumer).map(|(_, sequence, _)| sequence), Some(1));
        // The next segment's age is its own first frame's.
        pushed(&mut producer, 2, 2 * GATHER_NS);
        producer.publish_aged(3 * GATHER_NS - 1);
        assert_eq!(take(&mut consumer), None);
        for n in 3..3 + (SEGMENT / (TapHeader::LEN + 160)) as u16 {
            pushed(&mut producer, n, 2 * GATHER_NS);
        }
        assert_eq!(take(&mut consumer).map(|(_, sequence, _)| sequence), Some(2));
    }

    #[test]
    fn a_busy_thread_and_a_quick_consumer_pass_few_segments_to_and_fro() {
        let (mut producer, mut consumer) = tap(64 << 20);
        // 200 calls: twenty packets a ms, a pass every ms, the consumer every 20 ms.
        for ms in 0..1_000_u64 {
            for n in 0..20 {
                producer.push(TapHeader { arrival_ns: ms * 1_000_000, ..header(n, ms as u16) }, &[0; 160]);
            }
            producer.publish_aged(ms * 1_000_000);
            if ms % 20 == 19 {
                consumer.drain(u64::MAX, |_| ());
            }
        }
        assert!(producer.allocated <= 4 + RESERVE, "{} segments", producer.allocated);
    }

    #[test]
    fn a_drain_stops_at_its_instant_and_goes_on_there() {
        let (mut producer, mut consumer) = tap(0);
        (0..100).for_each(|n| assert!(producer.push(header(1, n), &[n as u8; 3])));
        producer.publish();
        let mut seen = vec![];
        for until in [59 * 20 + 19, 59 * 20 + 19, u64::MAX] {
            consumer.drain(until, |frame| match frame {
                Frame::Packet(header, payload) => {
                    assert_eq!(payload, [header.sequence as u8; 3]);
                    seen.push(header.sequence);
                }
                Frame::Dropped(dropped) => panic!("{dropped:?}"),
            });
            assert_eq!(seen.len(), if until == u64::MAX { 100 } else { 60 });
        }
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn neither_end_allocates_while_packets_flow() {
        let (mut producer, mut consumer) = tap(1 << 20);
        let mut rounds = |rounds: u64| {
            let mut read = 0;
            for round in 0..rounds {
                for n in 0..30 {
                    producer.push(TapHeader { arrival_ns: round * 1_000_000, ..header(n, 0) }, &[0; 160]);
                }
                producer.publish_aged(round * 1_000_000);
                if round % 20 == 19 {
                    consumer.drain(u64::MAX, |_| read += 1);
                }
            }
            read
        };
        rounds(40);
        let counted = allocation_counter::measure(|| assert!(rounds(400) >= 11_000));
        assert_eq!(counted.count_total, 0);
    }

    #[test]
    fn every_packet_of_a_thread_is_read_or_counted_by_another() {
        const PACKETS: u32 = 300_000;
        let (mut producer, mut consumer) = tap(8 * SEGMENT);
        let writer = std::thread::spawn(move || {
            for n in 0..PACKETS {
                let header =
                    TapHeader { arrival_ns: u64::from(n) * 50_000, timestamp: n, ..header(u64::from(n % 7), 0) };
                producer.push(header, &n.to_le_bytes());
                match n % 40 {
                    0 => producer.publish(),
                    20 => producer.publish_aged(header.arrival_ns),
                    _ => {}
                }
            }
            producer.flush();
            let untold: u64 = producer.dropping.values().map(|drops| drops.count).sum();
            (producer.dropped(), untold)
        });
        let (mut read, mut told, mut next) = (0, 0, 0);
        loop {
            let ended = consumer.is_abandoned();
            consumer.drain(u64::MAX, |frame| match frame {
                Frame::Packet(header, payload) => {
                    assert_eq!(payload, header.timestamp.to_le_bytes());
                    assert!(header.timestamp >= next, "{} after {next}", header.timestamp);
                    next = header.timestamp + 1;
                    read += 1;
                }
                Frame::Dropped(dropped) => told += dropped.count,
            });
            if ended {
                break;
            }
        }
        let (dropped, untold) = writer.join().unwrap();
        assert_eq!(read + dropped, u64::from(PACKETS));
        assert_eq!(told + untold, dropped);
    }

    #[test]
    fn what_a_producer_held_is_read_after_its_end() {
        let (mut producer, mut consumer) = tap(0);
        producer.push(header(1, 3), &[9]);
        assert!(!consumer.is_abandoned());
        drop(producer);
        assert!(consumer.is_abandoned());
        assert_eq!(take(&mut consumer), Some((1, 3, vec![9])));
    }
}
