//! One synchronisation source as its receiver sees it: RFC 3550 appendices A.1 (validity), A.3 (loss), A.8 (jitter).

use std::time::Duration;

use super::rtcp::ReportBlock;
use super::seq::{sequence_ahead, sequence_plus, ticks};

/// A forward jump of this many packets or more is a restart, not a loss (A.1 MAX_DROPOUT).
pub const MAX_DROPOUT: i16 = 3_000;
/// A packet this far behind or farther is a restart, not reordering (A.1 MAX_MISORDER).
pub const MAX_MISORDER: i16 = 100;

/// How a packet stands to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Newer than all before; `skipped` numbers are missing before it.
    Newer {
        /// How many.
        skipped: u16,
    },
    /// Behind the newest: reordered or a duplicate.
    Behind,
    /// Far away from all before; ignored unless the next one follows it.
    Doubtful,
    /// The second packet of a row far away from all before: the sender has restarted its numbers.
    Restarted,
}

/// Receive state of one SSRC.
#[derive(Debug, Clone)]
pub struct Source {
    ssrc: u32,
    newest: u16,
    cycles: u32,
    base: u32,
    received: u64,
    /// The number that would prove a restart.
    restart: Option<u16>,
    expected_prior: u64,
    received_prior: u64,
    /// Lost before the last restart.
    lost_earlier: u64,
    transit: Option<u32>,
    /// Jitter, scaled by 16 (A.8).
    jitter: u32,
    /// The source has said BYE.
    ended: bool,
}

impl Source {
    /// A source known by its first packet, which is counted by the [`Source::update`] that follows.
    pub fn new(ssrc: u32, sequence: u16) -> Self {
        Self {
            ssrc,
            newest: sequence_plus(sequence, -1),
            cycles: if sequence == 0 { 0x1_0000_u32.wrapping_neg() } else { 0 },
            base: u32::from(sequence),
            received: 0,
            restart: None,
            expected_prior: 0,
            received_prior: 0,
            lost_earlier: 0,
            transit: None,
            jitter: 0,
            ended: false,
        }
    }

    /// Its SSRC.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Counts a packet (A.1, without probation: the latch has done that).
    pub fn update(&mut self, sequence: u16) -> Order {
        let ahead = sequence_ahead(sequence, self.newest);
        let order = match ahead {
            1..MAX_DROPOUT => {
                self.advance(sequence);
                Order::Newer { skipped: (ahead - 1) as u16 }
            }
            _ if ahead <= 0 && ahead > -MAX_MISORDER => Order::Behind,
            _ if self.restart == Some(sequence) => {
                self.begin_again(sequence);
                Order::Restarted
            }
            _ => {
                self.restart = Some(sequence_plus(sequence, 1));
                return Order::Doubtful;
            }
        };
        self.restart = None;
        self.ended = false;
        self.received += 1;
        order
    }

    /// Feeds the jitter estimate (A.8): `arrival` since any fixed instant, the timestamp and its clock in Hz.
    pub fn measure(&mut self, arrival: Duration, timestamp: u32, clock_rate: u32) {
        let transit = (ticks(arrival, clock_rate) as u32).wrapping_sub(timestamp);
        if let Some(before) = self.transit.replace(transit) {
            let difference = (transit.wrapping_sub(before) as i32).unsigned_abs();
            // A jump of the timestamps is not jitter; ten seconds are beyond any network's.
            if difference < clock_rate.saturating_mul(10) {
                self.jitter = self.jitter.saturating_add(difference).saturating_sub((self.jitter + 8) >> 4);
            }
        }
    }

    /// Interarrival jitter in clock ticks.
    pub fn jitter(&self) -> u32 {
        self.jitter >> 4
    }

    /// Packets missing so far; never negative (duplicates can hide losses, A.3).
    pub fn lost(&self) -> u64 {
        self.lost_earlier + self.expected().saturating_sub(self.received)
    }

    /// The source has said BYE and sent nothing since.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// An RTCP BYE came for it.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// The report block about it; begins the next reporting interval (A.3). `last_report` is the middle of the NTP
    /// time in its last SR and the delay since then.
    pub fn report(&mut self, last_report: Option<(u32, Duration)>) -> ReportBlock {
        let expected = self.expected();
        let expected_now = expected - self.expected_prior.min(expected);
        let received_now = self.received - self.received_prior.min(self.received);
        self.expected_prior = expected;
        self.received_prior = self.received;
        let lost_now = expected_now.saturating_sub(received_now);
        let (last_sr, delay) = last_report.unwrap_or_default();
        ReportBlock {
            ssrc: self.ssrc,
            fraction_lost: (lost_now << 8).checked_div(expected_now).unwrap_or(0).min(255) as u8,
            // The field is signed 24 bits; ours is never negative.
            lost: self.lost().min(0x7f_ffff) as u32,
            highest_sequence: self.cycles.wrapping_add(u32::from(self.newest)),
            jitter: self.jitter(),
            last_sr,
            delay_since_last_sr: (delay.as_nanos() * 65_536 / 1_000_000_000).min(u128::from(u32::MAX)) as u32,
        }
    }

    fn advance(&mut self, sequence: u16) {
        if sequence < self.newest {
            self.cycles = self.cycles.wrapping_add(0x1_0000);
        }
        self.newest = sequence;
    }

    fn begin_again(&mut self, sequence: u16) {
        self.lost_earlier = self.lost();
        // The packet before this one proved the restart and was not counted.
        let first = sequence_plus(sequence, -1);
        self.base = u32::from(first);
        self.cycles = if sequence == 0 { 0x1_0000 } else { 0 };
        self.newest = sequence;
        self.received = 1;
        self.expected_prior = 0;
        self.received_prior = 0;
        self.transit = None;
    }

    fn expected(&self) -> u64 {
        let highest = self.cycles.wrapping_add(u32::from(self.newest));
        u64::from(highest.wrapping_sub(self.base).wrapping_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source_after(sequences: impl IntoIterator<Item = u16>) -> Source {
        let mut sequences = sequences.into_iter().peekable();
        let mut source = Source::new(9, *sequences.peek().unwrap());
        for sequence in sequences {
            source.update(sequence);
        }
        source
    }

    #[test]
    fn loss_is_what_is_missing_between_first_and_newest_also_across_the_wrap() {
        assert_eq!(source_after([1, 2, 3]).lost(), 0);
        assert_eq!(source_after([1, 4]).lost(), 2);
        assert_eq!(source_after([65_534, 65_535, 1, 2]).lost(), 1);
        assert_eq!(source_after([0, 1]).lost(), 0);
        assert_eq!(source_after([65_535, 0]).lost(), 0);
        assert_eq!(source_after([1, 3, 2]).lost(), 0, "a late packet is not lost");
        assert_eq!(source_after([1, 2, 2, 2]).lost(), 0, "loss is never negative");
    }

    #[test]
    fn a_row_of_two_far_away_restarts_and_a_single_stray_does_not() {
        let mut source = source_after([100, 101, 102]);
        assert_eq!(source.update(20_000), Order::Doubtful);
        assert_eq!(source.update(103), Order::Newer { skipped: 0 });
        assert_eq!(source.update(20_000), Order::Doubtful);
        assert_eq!(source.update(20_001), Order::Restarted);
        assert_eq!(source.update(20_002), Order::Newer { skipped: 0 });
        assert_eq!(source.update(20_001), Order::Behind);
    }

    #[test]
    fn the_fraction_lost_covers_the_interval_since_the_last_report() {
        let mut source = source_after((0..100).filter(|n| n % 4 != 1));
        let first = source.report(None);
        assert_eq!((first.fraction_lost, first.lost), (64, 25));
        for sequence in 100..200 {
            source.update(sequence);
        }
        let second = source.report(Some((0xaabb_ccdd, Duration::from_millis(500))));
        assert_eq!((second.fraction_lost, second.lost), (0, 25));
        assert_eq!((second.last_sr, second.delay_since_last_sr), (0xaabb_ccdd, 32_768));
        assert_eq!(second.highest_sequence, 199);
    }

    #[test]
    fn the_highest_sequence_counts_its_cycles() {
        let mut source = source_after([65_534, 65_535, 0, 1]);
        assert_eq!(source.report(None).highest_sequence, 0x1_0001);
    }

    #[test]
    fn a_steady_stream_has_no_jitter_and_a_swinging_one_approaches_its_mean_deviation() {
        let mut steady = Source::new(1, 0);
        let mut swinging = Source::new(1, 0);
        for n in 0..2_000_u32 {
            let at = Duration::from_millis(u64::from(n) * 20);
            steady.measure(at, n * 160, 8_000);
            let late = Duration::from_millis(if n % 2 == 0 { 10 } else { 0 });
            swinging.measure(at + late, n * 160, 8_000);
        }
        assert_eq!(steady.jitter(), 0);
        assert!((76..=80).contains(&swinging.jitter()), "{}", swinging.jitter());
    }
}
