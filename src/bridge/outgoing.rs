//! What we send to one peer: one SSRC, with sequence and timestamp that grow without a break whoever is heard
//! (spec/sip.md §7).
//!
//! What comes from one source keeps its distances, so that the peer sees the source's own loss and reordering. Where
//! the source changes, the next packet has sequence + 1 and a timestamp later by the elapsed time in whole packets. What
//! that rounds up does not add up over many changes between a source and packets of our own: once it is a packet, one packet
//! of the source is left out. Between two sources none is: calls that are joined lose nothing.

use std::time::{Duration, Instant};

use crate::id::LegId;
use crate::rtp::Header;
use crate::rtp::rtcp::SenderInfo;
use crate::rtp::seq::{sequence_ahead, sequence_plus, ticks, timestamp_ahead, timestamp_plus, whole_packets};
use crate::rtp::source::MAX_MISORDER;
use crate::rtp::view;

/// A timestamp this much farther ahead than the time that has passed is a jump of the source's clock. What a network
/// delays comes with timestamps behind the clock, not ahead of it.
pub const MAX_LEAP: Duration = Duration::from_secs(2);

/// Send state towards one peer.
#[derive(Debug)]
pub struct Outgoing {
    ssrc: u32,
    /// Of the newest packet; before the first one, what precedes it.
    sequence: u16,
    timestamp: u32,
    clock_rate: u32,
    /// When the newest packet was sent.
    sent_at: Option<Instant>,
    stream: Option<Stream>,
    /// By how many nanoseconds changes of the source have put the timestamp ahead of the time that has passed.
    ahead: i64,
    /// The first packet of the present source was left out.
    has_left_out: bool,
    /// The newest packet is of our own.
    is_ours: bool,
    packets: u64,
    octets: u64,
    /// Packets at the last two reports, to tell whether we are a sender (RFC 3550 §6.4).
    reported: [u64; 2],
}

/// A run of packets from one source, moved by constant offsets.
#[derive(Debug, Clone, Copy)]
struct Stream {
    from: LegId,
    ssrc: u32,
    clock_rate: u32,
    /// The clock towards the peer.
    sent_rate: u32,
    /// The oldest number that is still ours to send; what is older belongs before the run.
    first: u16,
    newest: u16,
    /// Timestamp of the newest packet that is no event: an event carries the time of its beginning.
    newest_timestamp: u32,
    sequence_offset: u16,
    /// A timestamp of the source, and the one that it became.
    anchor: (u32, u32),
}

/// What becomes of each packet of a run: the same for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steady {
    /// The source.
    pub ssrc: u32,
    /// Its clock in Hz, and ours towards the peer.
    pub clock_rate: u32,
    /// Sequence and timestamp of its newest packet.
    pub newest: (u16, u32),
    /// Added to its sequence numbers.
    pub sequence_offset: u16,
    /// Added to its timestamps.
    pub timestamp_offset: u32,
}

/// A packet to be sent on, as it came.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// The leg whose peer sent it.
    pub from: LegId,
    /// Its header.
    pub header: &'a Header,
    /// The payload type's clock in Hz.
    pub clock_rate: u32,
    /// The clock towards the peer: another one only where the packet is transcoded.
    pub sent_rate: u32,
    /// Length of the payload that is sent.
    pub sent_len: usize,
    /// A telephone event.
    pub event: bool,
}

impl Outgoing {
    /// The first packet will have these numbers.
    pub fn new(ssrc: u32, sequence: u16, timestamp: u32) -> Self {
        Self {
            ssrc,
            sequence: sequence_plus(sequence, -1),
            timestamp,
            clock_rate: 8_000,
            sent_at: None,
            stream: None,
            ahead: 0,
            has_left_out: false,
            is_ours: false,
            packets: 0,
            octets: 0,
            reported: [0; 2],
        }
    }

    /// Our SSRC.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Packets sent.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// When the newest packet was sent.
    pub fn sent_at(&self) -> Option<Instant> {
        self.sent_at
    }

    /// What comes next is not a continuation of what was sent: the route, the direction or the source has changed.
    pub fn interrupt(&mut self) {
        self.stream = None;
    }

    /// The header under which a packet goes on; `None` when it is older than the run that it belongs to, and for the first
    /// one of a run after packets of our own when there has been sound for its time already.
    pub fn forward(
        &mut self,
        packet: Incoming<'_>,
        payload_type: u8,
        ptime_ms: u8,
        now: Instant,
    ) -> Option<view::Outgoing> {
        let header = packet.header;
        let going_on = self.stream.filter(|stream| self.continues(stream, &packet, now));
        let (mut stream, begins) = match going_on {
            Some(stream) => (stream, false),
            None if self.has_sent_enough(&packet, ptime_ms, now) => {
                (self.stream, self.has_left_out) = (None, true);
                return None;
            }
            None => (self.begin(&packet, ptime_ms, now), true),
        };
        if sequence_ahead(header.sequence, stream.first) < 0 {
            return None;
        }
        let sequence = header.sequence.wrapping_add(stream.sequence_offset);
        let timestamp = stream.timestamp(&packet);
        if begins || sequence_ahead(header.sequence, stream.newest) > 0 {
            self.go_on(&mut stream, &packet, begins, now);
        }
        self.stream = Some(stream);
        self.count(packet.sent_len);
        let marker = header.marker || begins;
        Some(view::Outgoing { payload_type, marker, sequence, timestamp, ssrc: self.ssrc })
    }

    /// The run of `from`, when its packets go on with constant offsets.
    pub fn steady(&self, from: LegId) -> Option<Steady> {
        let stream = self.stream.filter(|stream| stream.from == from && stream.clock_rate == stream.sent_rate)?;
        let (theirs, ours) = stream.anchor;
        Some(Steady {
            ssrc: stream.ssrc,
            clock_rate: stream.clock_rate,
            newest: (stream.newest, stream.newest_timestamp),
            sequence_offset: stream.sequence_offset,
            timestamp_offset: ours.wrapping_sub(theirs),
        })
    }

    /// A packet of the present run has gone on without us, as [`Outgoing::forward`] would have sent it. One of a run that
    /// is over is counted and changes nothing else.
    pub fn went_on(&mut self, packet: Incoming<'_>, at: Instant) {
        self.count(packet.sent_len);
        let header = packet.header;
        let Some(mut stream) = self.stream.filter(|s| s.from == packet.from && s.ssrc == header.ssrc) else { return };
        if sequence_ahead(header.sequence, stream.newest) > 0 {
            self.go_on(&mut stream, &packet, false, at);
            self.stream = Some(stream);
        }
    }

    /// A packet of the present source was left out on purpose: the peer must not take it for lost.
    pub fn leave_out(&mut self, from: LegId, header: &Header) {
        let Some(stream) = self.stream.as_mut().filter(|s| s.from == from && s.ssrc == header.ssrc) else { return };
        if sequence_ahead(header.sequence, stream.newest) > 0 {
            stream.newest = header.sequence;
            stream.first = sequence_plus(header.sequence, 1);
            stream.sequence_offset = stream.sequence_offset.wrapping_sub(1);
        }
    }

    /// The header of a packet of our own: `ticks` of audio at `clock_rate`, the first one after something else, or
    /// `steps` packets after the one before.
    pub fn own(&mut self, payload_type: u8, clock_rate: u32, ticks: u32, steps: Steps, now: Instant) -> view::Outgoing {
        (self.stream, self.is_ours) = (None, true);
        let advance = match (steps, self.sent_at) {
            (_, None) => 0,
            (Steps::First, Some(sent_at)) => self.elapse(sent_at, clock_rate, ticks, now),
            (Steps::After(steps), Some(_)) => ticks.wrapping_mul(steps),
        };
        self.sequence = sequence_plus(self.sequence, 1);
        self.timestamp = timestamp_plus(self.timestamp, advance);
        self.clock_rate = clock_rate;
        self.sent_at = Some(now);
        let marker = steps == Steps::First;
        view::Outgoing { payload_type, marker, sequence: self.sequence, timestamp: self.timestamp, ssrc: self.ssrc }
    }

    /// The header of a packet of an event of our own. All packets of an event have the timestamp of its `first` one, and
    /// what comes after it is later by the time since then (RFC 4733 §2.5.1.2).
    pub fn event(
        &mut self,
        payload_type: u8,
        clock_rate: u32,
        ticks: u32,
        first: bool,
        now: Instant,
    ) -> view::Outgoing {
        if first {
            return self.own(payload_type, clock_rate, ticks, Steps::First, now);
        }
        self.sequence = sequence_plus(self.sequence, 1);
        let (sequence, timestamp) = (self.sequence, self.timestamp);
        view::Outgoing { payload_type, marker: false, sequence, timestamp, ssrc: self.ssrc }
    }

    /// Counts a packet of our own by its payload's length.
    pub fn count(&mut self, payload_len: usize) {
        self.packets += 1;
        self.octets += payload_len as u64;
    }

    /// The sender info for a report now; `None` when nothing was sent since the report before last (RFC 3550 §6.4).
    pub fn report(&mut self, ntp: u64, now: Instant) -> Option<SenderInfo> {
        let before_last = self.reported[0];
        self.reported = [self.reported[1], self.packets];
        let sent_at = self.sent_at.filter(|_| self.packets > before_last)?;
        let since = ticks(now.saturating_duration_since(sent_at), self.clock_rate);
        Some(SenderInfo {
            ntp,
            timestamp: timestamp_plus(self.timestamp, since as u32),
            // Both fields wrap (RFC 3550 §6.4.1).
            packets: self.packets as u32,
            octets: self.octets as u32,
        })
    }

    /// The newest packet of a run.
    fn go_on(&mut self, stream: &mut Stream, packet: &Incoming<'_>, begins: bool, now: Instant) {
        let header = packet.header;
        let timestamp = stream.timestamp(packet);
        stream.newest = header.sequence;
        // Kept near, so that the comparison below the wrap stays right in a long call.
        if sequence_ahead(stream.newest, stream.first) > MAX_MISORDER {
            stream.first = sequence_plus(stream.newest, -i32::from(MAX_MISORDER));
        }
        self.sequence = header.sequence.wrapping_add(stream.sequence_offset);
        self.sent_at = Some(now);
        if !packet.event || begins {
            stream.newest_timestamp = header.timestamp;
            self.timestamp = timestamp;
            self.clock_rate = packet.sent_rate;
            stream.move_anchor(packet);
        }
    }

    fn continues(&self, stream: &Stream, packet: &Incoming<'_>, now: Instant) -> bool {
        let header = packet.header;
        if stream.from != packet.from || stream.ssrc != header.ssrc {
            return false;
        }
        if packet.event || sequence_ahead(header.sequence, stream.newest) <= 0 {
            return true;
        }
        if (stream.clock_rate, stream.sent_rate) != (packet.clock_rate, packet.sent_rate) {
            return false;
        }
        let passed = self.sent_at.map_or(Duration::ZERO, |sent_at| now.saturating_duration_since(sent_at));
        let leap = timestamp_ahead(header.timestamp, stream.newest_timestamp);
        leap >= 0 && u64::from(leap.unsigned_abs()) <= ticks(passed + MAX_LEAP, packet.clock_rate)
    }

    /// The timestamp is ahead of the time by all the time since the last packet. One packet at most is left out of a run,
    /// and no event; the peer waits no longer than for two.
    fn has_sent_enough(&self, packet: &Incoming<'_>, ptime_ms: u8, now: Instant) -> bool {
        let Some(sent_at) = self.sent_at else { return false };
        let since = nanos(now, sent_at);
        self.is_ours
            && !packet.event
            && !self.has_left_out
            && (1..=self.ahead).contains(&since)
            && since < i64::from(ptime_ms) * 1_000_000
    }

    fn begin(&mut self, packet: &Incoming<'_>, ptime_ms: u8, now: Instant) -> Stream {
        let header = packet.header;
        let per_packet = packet.sent_rate / 1_000 * u32::from(ptime_ms);
        let advance = self.sent_at.map_or(0, |sent_at| self.elapse(sent_at, packet.sent_rate, per_packet, now));
        let timestamp = timestamp_plus(self.timestamp, advance);
        self.is_ours = false;
        Stream {
            from: packet.from,
            ssrc: header.ssrc,
            clock_rate: packet.clock_rate,
            sent_rate: packet.sent_rate,
            first: header.sequence,
            newest: header.sequence,
            newest_timestamp: header.timestamp,
            sequence_offset: sequence_plus(self.sequence, 1).wrapping_sub(header.sequence),
            anchor: (header.timestamp, timestamp),
        }
    }

    /// How far the timestamp goes on to another source: so that it is where the time is, in whole packets, at least one.
    fn elapse(&mut self, sent_at: Instant, clock_rate: u32, per_packet: u32, now: Instant) -> u32 {
        let elapsed = nanos(now, sent_at);
        let wanted = Duration::from_nanos(u64::try_from(elapsed - self.ahead).unwrap_or(0));
        let advance = whole_packets(ticks(wanted, clock_rate), per_packet);
        let advanced = i64::from(advance) * 1_000_000_000 / i64::from(clock_rate.max(1));
        (self.ahead, self.has_left_out) = (self.ahead + advanced - elapsed, false);
        advance
    }
}

fn nanos(now: Instant, since: Instant) -> i64 {
    i64::try_from(now.saturating_duration_since(since).as_nanos()).unwrap_or(i64::MAX)
}

impl Stream {
    /// What a timestamp of the source becomes.
    fn timestamp(&self, packet: &Incoming<'_>) -> u32 {
        let (theirs, ours) = self.anchor;
        let ahead = timestamp_ahead(packet.header.timestamp, theirs);
        if packet.sent_rate == packet.clock_rate {
            return timestamp_plus(ours, ahead as u32);
        }
        let scaled = i64::from(ahead) * i64::from(packet.sent_rate) / i64::from(packet.clock_rate.max(1));
        timestamp_plus(ours, scaled as u32)
    }

    /// Kept near the newest packet, so that what is scaled is small. Only by what leaves no remainder: nothing adds up.
    fn move_anchor(&mut self, packet: &Incoming<'_>) {
        if packet.sent_rate == packet.clock_rate {
            self.anchor = (packet.header.timestamp, self.timestamp(packet));
            return;
        }
        let (theirs, ours) = self.anchor;
        let ahead = i64::from(timestamp_ahead(packet.header.timestamp, theirs));
        let from = i64::from(packet.clock_rate.max(1));
        let whole = ahead / from * from;
        let scaled = whole / from * i64::from(packet.sent_rate);
        self.anchor = (timestamp_plus(theirs, whole as u32), timestamp_plus(ours, scaled as u32));
    }
}

/// Where a packet of our own stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steps {
    /// After something else: marked, later by the elapsed time.
    First,
    /// This many packets after the one before; more than one when some were skipped.
    After(u32),
}
