//! Sequence numbers and timestamps wrap around; this file is the only one that computes with that.

use std::time::Duration;

/// How far `a` is ahead of `b`; negative when it is behind. Exact while they are less than 32,768 apart.
pub fn sequence_ahead(a: u16, b: u16) -> i16 {
    a.wrapping_sub(b) as i16
}

/// How far `a` is ahead of `b` in clock ticks; negative when it is behind. Exact while they are less than 2³¹ apart.
pub fn timestamp_ahead(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b) as i32
}

/// `sequence` moved by `steps`.
pub fn sequence_plus(sequence: u16, steps: i32) -> u16 {
    sequence.wrapping_add(steps as u16)
}

/// `timestamp` moved by `ticks`.
pub fn timestamp_plus(timestamp: u32, ticks: u32) -> u32 {
    timestamp.wrapping_add(ticks)
}

/// Whole packets of `ticks_per_packet` in `ticks`, rounded to the nearest, at least one: how far a stream's timestamp
/// advances when it goes on after a change of its source.
pub fn whole_packets(ticks: u64, ticks_per_packet: u32) -> u32 {
    let step = u64::from(ticks_per_packet.max(1));
    let packets = ((ticks + step / 2) / step).max(1);
    // A pause of more than 2³² ticks wraps as the stream itself would have.
    (packets * step) as u32
}

/// Clock ticks in a time. In two parts, because a division of 128 bits would be the dearest of a packet's instructions.
pub fn ticks(time: Duration, clock_rate: u32) -> u64 {
    time.as_secs() * u64::from(clock_rate) + u64::from(time.subsec_nanos()) * u64::from(clock_rate) / 1_000_000_000
}

/// Turns 16-bit sequence numbers into ones that never wrap.
#[derive(Debug, Clone, Copy, Default)]
pub struct SequenceExtender {
    last: Option<i64>,
}

impl SequenceExtender {
    /// The extended number nearest to the highest seen. It may be below zero for what preceded the first.
    pub fn extend(&mut self, sequence: u16) -> i64 {
        let Some(last) = self.last else {
            self.last = Some(i64::from(sequence));
            return i64::from(sequence);
        };
        let extended = last + i64::from(sequence_ahead(sequence, last as u16));
        self.last = Some(last.max(extended));
        extended
    }
}

/// Turns 32-bit timestamps into ones that never wrap.
#[derive(Debug, Clone, Copy, Default)]
pub struct TimestampExtender {
    last: Option<i64>,
}

impl TimestampExtender {
    /// The extended timestamp nearest to the one before. It may be below zero for what preceded the first.
    pub fn extend(&mut self, timestamp: u32) -> i64 {
        let extended = match self.last {
            None => i64::from(timestamp),
            Some(last) => last + i64::from(timestamp_ahead(timestamp, last as u32)),
        };
        self.last = Some(extended);
        extended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_right_across_the_wrap() {
        assert_eq!(sequence_ahead(1, 65_534), 3);
        assert_eq!(sequence_ahead(65_534, 1), -3);
        assert_eq!(timestamp_ahead(79, u32::MAX - 80), 160);
        assert_eq!(timestamp_ahead(u32::MAX - 80, 79), -160);
        assert_eq!(sequence_plus(65_535, 1), 0);
        assert_eq!(sequence_plus(0, -1), 65_535);
    }

    #[test]
    fn extended_sequences_grow_for_days_and_place_late_packets_behind() {
        let mut extender = SequenceExtender::default();
        let mut wire = 65_000_u16;
        for expected in 65_000..265_000_i64 {
            assert_eq!(extender.extend(wire), expected);
            wire = wire.wrapping_add(1);
        }
        assert_eq!(extender.extend(wire.wrapping_sub(40)), 264_960);
        assert_eq!(extender.extend(wire), 265_000);
    }

    #[test]
    fn extended_timestamps_cross_the_wrap_both_ways() {
        let mut extender = TimestampExtender::default();
        assert_eq!(extender.extend(u32::MAX - 159), i64::from(u32::MAX) - 159);
        assert_eq!(extender.extend(0), i64::from(u32::MAX) + 1);
        assert_eq!(extender.extend(u32::MAX - 159), i64::from(u32::MAX) - 159);
    }

    #[test]
    fn elapsed_time_counts_in_whole_packets_and_never_none() {
        assert_eq!(whole_packets(0, 160), 160);
        assert_eq!(whole_packets(239, 160), 160);
        assert_eq!(whole_packets(240, 160), 320);
        assert_eq!(whole_packets(8_000, 160), 8_000);
    }
}
