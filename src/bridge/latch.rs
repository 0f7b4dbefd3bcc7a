//! Which source address is the peer's: learned once per description, then held to (spec/sip.md §7).
//!
//! ```text
//!              from the SDP address                         3 in a row
//!   nothing ─────────────────────────▶ provisional (SDP) ─────────────────▶ authentic ◀─┐
//!      │                                                                      ▲    │    │ 3 in a row after 500 ms
//!      └── 3 in a row from anywhere else: the one move before the SDP address ┘    └────┘ of silence, from the same
//!          was heard                                                                      IP or with the same SSRC
//! ```

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::command::LatchMode;
use crate::rtp::seq::sequence_plus;

/// Packets in a row of one SSRC that make a source authentic.
const ROW: u8 = 3;
/// Silence of the latched source after which it may move.
const SILENCE: Duration = Duration::from_millis(500);
/// Sources whose rows are counted at the same time; more replace the oldest.
const CANDIDATES: usize = 4;

/// What the latch makes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// The peer's.
    Accept,
    /// The peer's, and its source has just become authentic.
    Latched,
    /// From a source that is not the peer's, or not yet.
    Refuse,
}

/// The latch of one channel (RTP and RTCP latch apart). Packets of an authentic source do without the candidates.
#[derive(Debug)]
#[repr(C)]
pub struct Latch {
    mode: LatchMode,
    authentic: bool,
    /// The source that is accepted now.
    current: Option<Current>,
    /// Where the description says the peer is.
    described: Option<SocketAddr>,
    candidates: [Option<Candidate>; CANDIDATES],
    oldest: usize,
}

#[derive(Debug, Clone, Copy)]
struct Current {
    from: SocketAddr,
    ssrc: u32,
    last: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    from: SocketAddr,
    ssrc: u32,
    row: u8,
    /// The number that continues the row; RTCP has none, every packet continues it.
    next: Option<u16>,
}

impl Latch {
    /// A latch that knows no description: it refuses everything.
    pub fn new() -> Self {
        Self {
            mode: LatchMode::Off,
            described: None,
            current: None,
            authentic: false,
            candidates: [None; CANDIDATES],
            oldest: 0,
        }
    }

    /// A description came. The latch starts afresh unless it names the same address (a refresh).
    pub fn describe(&mut self, described: Option<SocketAddr>, mode: LatchMode) {
        if (self.described, self.mode) != (described, mode) {
            *self = Self { mode, described, ..Self::new() };
        }
    }

    /// Where to send: the authentic source, else where the description says; nowhere when it says nowhere (hold by
    /// `c=0.0.0.0`).
    pub fn destination(&self) -> Option<SocketAddr> {
        self.latched().filter(|_| self.described.is_some()).or(self.described)
    }

    /// The authentic source.
    pub fn latched(&self) -> Option<SocketAddr> {
        self.current.filter(|_| self.authentic).map(|current| current.from)
    }

    /// True for the source that is accepted now.
    pub fn accepts(&self, from: SocketAddr) -> bool {
        self.current.is_some_and(|current| current.from == from)
    }

    /// A packet of the authentic source was taken without being judged here.
    pub fn heard(&mut self, at: Instant) {
        self.current.iter_mut().for_each(|current| current.last = current.last.max(at));
    }

    /// Judges a packet. `sequence` is `None` for RTCP; `negotiated`: its payload type is.
    pub fn judge(
        &mut self,
        from: SocketAddr,
        ssrc: u32,
        sequence: Option<u16>,
        negotiated: bool,
        now: Instant,
    ) -> Judgement {
        if !negotiated {
            self.forget(from);
            return Judgement::Refuse;
        }
        if self.mode == LatchMode::Off {
            return match self.described {
                Some(described) if described == from && self.authentic => Judgement::Accept,
                Some(described) if described == from => {
                    self.current = Some(Current { from, ssrc, last: now });
                    self.authentic = true;
                    Judgement::Latched
                }
                _ => Judgement::Refuse,
            };
        }
        match &mut self.current {
            Some(current) if current.from == from => {
                (current.ssrc, current.last) = (ssrc, now);
                if self.authentic || self.row(from, ssrc, sequence) < ROW {
                    return Judgement::Accept;
                }
            }
            Some(current) => {
                let current = *current;
                let silent = now.saturating_duration_since(current.last) >= SILENCE;
                let related = from.ip() == current.from.ip() || ssrc == current.ssrc;
                if self.row(from, ssrc, sequence) < ROW || !silent || !related {
                    return Judgement::Refuse;
                }
            }
            None if self.described == Some(from) => {
                self.current = Some(Current { from, ssrc, last: now });
                self.row(from, ssrc, sequence);
                return Judgement::Accept;
            }
            None => {
                if self.row(from, ssrc, sequence) < ROW {
                    return Judgement::Refuse;
                }
            }
        }
        self.current = Some(Current { from, ssrc, last: now });
        self.authentic = true;
        self.candidates = [None; CANDIDATES];
        Judgement::Latched
    }

    /// Counts a packet of a source that is not authentic; the length of its row with it.
    fn row(&mut self, from: SocketAddr, ssrc: u32, sequence: Option<u16>) -> u8 {
        let next = sequence.map(|sequence| sequence_plus(sequence, 1));
        let known = self.candidates.iter_mut().flatten().find(|candidate| candidate.from == from);
        let Some(candidate) = known else {
            self.candidates[self.oldest] = Some(Candidate { from, ssrc, row: 1, next });
            self.oldest = (self.oldest + 1) % CANDIDATES;
            return 1;
        };
        let duplicate = next.is_some() && candidate.next == next;
        if candidate.ssrc == ssrc && duplicate {
            return candidate.row;
        }
        let continues = candidate.ssrc == ssrc && candidate.next == sequence;
        let row = if continues || (sequence.is_none() && candidate.ssrc == ssrc) { candidate.row + 1 } else { 1 };
        // A row that waits for the latched source to fall silent stays complete.
        *candidate = Candidate { from, ssrc, row: row.min(ROW), next };
        candidate.row
    }

    fn forget(&mut self, from: SocketAddr) {
        for slot in &mut self.candidates {
            if slot.is_some_and(|candidate| candidate.from == from) {
                *slot = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Judgement::{Accept, Latched, Refuse};
    use super::*;

    /// A latch in strict mode and a script: source, SSRC, sequence number, milliseconds.
    struct Script {
        latch: Latch,
        start: Instant,
    }

    impl Script {
        fn strict() -> Self {
            let mut latch = Latch::new();
            latch.describe(Some(at(SDP)), LatchMode::Strict);
            Self { latch, start: crate::clock::now() }
        }

        fn play(&mut self, from: &str, ssrc: u32, sequence: u16, ms: u64) -> Judgement {
            self.latch.judge(at(from), ssrc, Some(sequence), true, self.start + Duration::from_millis(ms))
        }
    }

    const SDP: &str = "192.0.2.1:4000";
    const NAT: &str = "198.51.100.7:61000";
    const NAT_OTHER_PORT: &str = "198.51.100.7:61002";
    const STRANGER: &str = "203.0.113.9:9999";

    fn at(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    #[test]
    fn packets_from_the_described_address_pass_at_once_and_the_third_in_a_row_makes_it_authentic() {
        let mut script = Script::strict();
        assert_eq!(script.latch.destination(), Some(at(SDP)));
        assert_eq!(script.play(SDP, 1, 10, 0), Accept);
        assert_eq!(script.play(SDP, 1, 11, 20), Accept);
        assert_eq!(script.latch.latched(), None);
        assert_eq!(script.play(SDP, 1, 12, 40), Latched);
        assert_eq!(script.play(SDP, 1, 13, 60), Accept);
        assert_eq!(script.latch.latched(), Some(at(SDP)));
    }

    #[test]
    fn another_source_is_taken_with_its_third_packet_in_a_row_when_the_described_one_was_never_heard() {
        let mut script = Script::strict();
        assert_eq!(script.play(NAT, 1, 65_534, 0), Refuse);
        assert_eq!(script.play(NAT, 1, 65_535, 20), Refuse);
        assert_eq!(script.latch.destination(), Some(at(SDP)));
        assert_eq!(script.play(NAT, 1, 0, 40), Latched);
        assert_eq!(script.latch.destination(), Some(at(NAT)));
    }

    #[test]
    fn three_packets_that_are_not_in_a_row_authenticate_nobody() {
        let mut script = Script::strict();
        for (sequence, ssrc) in [(1, 1), (3, 1), (4, 2), (5, 1), (6, 1), (8, 1), (8, 1), (9, 1)] {
            assert_eq!(script.play(NAT, ssrc, sequence, 0), Refuse, "{sequence}");
        }
        assert_eq!(script.play(NAT, 1, 10, 0), Latched);
    }

    #[test]
    fn a_payload_type_that_was_not_negotiated_breaks_the_row() {
        let mut script = Script::strict();
        let now = script.start;
        script.play(NAT, 1, 1, 0);
        script.play(NAT, 1, 2, 0);
        assert_eq!(script.latch.judge(at(NAT), 1, Some(3), false, now), Refuse);
        assert_eq!(script.play(NAT, 1, 4, 0), Refuse);
        assert_eq!(script.latch.judge(at(SDP), 1, Some(3), false, now), Refuse);
        assert_eq!(script.latch.current.map(|current| current.from), None, "it was not heard of either");
    }

    #[test]
    fn a_stranger_cannot_take_over_once_the_described_address_was_heard() {
        let mut script = Script::strict();
        script.play(SDP, 1, 1, 0);
        for n in 0..500_u16 {
            assert_eq!(script.play(STRANGER, 2, n, u64::from(n) * 20), Refuse);
        }
        assert_eq!(script.latch.destination(), Some(at(SDP)));
    }

    #[test]
    fn the_free_move_is_spent_after_one() {
        let mut script = Script::strict();
        for n in 0..3 {
            script.play(NAT, 1, n, 0);
        }
        for n in 0..100 {
            assert_eq!(script.play(STRANGER, 2, n, 5_000), Refuse);
            assert_eq!(script.play(SDP, 3, n, 5_000), Refuse);
        }
        assert_eq!(script.latch.latched(), Some(at(NAT)));
    }

    #[test]
    fn another_port_of_the_same_ip_is_taken_only_after_500_ms_of_silence() {
        let mut script = Script::strict();
        for n in 0..3 {
            script.play(NAT, 1, n, 0);
        }
        for n in 0..25_u16 {
            assert_eq!(script.play(NAT_OTHER_PORT, 2, n, u64::from(n) * 20), Refuse);
        }
        assert_eq!(script.play(NAT_OTHER_PORT, 2, 25, 499), Refuse);
        assert_eq!(script.play(NAT_OTHER_PORT, 2, 26, 500), Latched);
        assert_eq!(script.play(NAT, 1, 3, 520), Refuse);
    }

    #[test]
    fn the_same_ssrc_from_anywhere_is_taken_after_500_ms_of_silence() {
        let mut script = Script::strict();
        for n in 0..3 {
            script.play(SDP, 7, n, 0);
        }
        assert_eq!(script.play(STRANGER, 7, 3, 600), Refuse);
        assert_eq!(script.play(STRANGER, 7, 4, 620), Refuse);
        assert_eq!(script.play(STRANGER, 7, 5, 640), Latched);
    }

    #[test]
    fn a_described_address_heard_once_moves_by_the_same_rule_as_a_latched_one() {
        let mut script = Script::strict();
        script.play(SDP, 7, 0, 0);
        for n in 0..3 {
            assert_eq!(script.play(NAT, 8, n, 2_000), Refuse);
        }
        script.play(NAT, 7, 0, 2_000);
        script.play(NAT, 7, 1, 2_000);
        assert_eq!(script.play(NAT, 7, 2, 2_000), Latched);
    }

    #[test]
    fn a_new_address_starts_afresh_and_a_refresh_does_not() {
        let mut script = Script::strict();
        for n in 0..3 {
            script.play(NAT, 1, n, 0);
        }
        script.latch.describe(Some(at(SDP)), LatchMode::Strict);
        assert_eq!(script.latch.destination(), Some(at(NAT)));
        script.latch.describe(Some(at(STRANGER)), LatchMode::Strict);
        assert_eq!(script.latch.destination(), Some(at(STRANGER)));
        assert_eq!(script.play(NAT, 1, 3, 20), Refuse);
    }

    #[test]
    fn off_takes_the_described_address_only_and_sends_there() {
        let mut script = Script::strict();
        script.latch.describe(Some(at(SDP)), LatchMode::Off);
        for n in 0..100_u16 {
            assert_eq!(script.play(NAT, 1, n, u64::from(n) * 1_000), Refuse);
        }
        assert_eq!(script.play(SDP, 1, 1, 0), Latched);
        assert_eq!(script.play(SDP, 1, 2, 0), Accept);
        assert_eq!(script.latch.destination(), Some(at(SDP)));
    }

    #[test]
    fn a_peer_that_described_no_address_is_heard_but_never_sent_to() {
        let mut script = Script::strict();
        script.latch.describe(None, LatchMode::Strict);
        for n in 0..2 {
            assert_eq!(script.play(NAT, 1, n, 0), Refuse);
        }
        assert_eq!(script.play(NAT, 1, 2, 0), Latched);
        assert_eq!(script.latch.destination(), None);
    }

    #[test]
    fn rtcp_counts_packets_of_one_ssrc_without_sequence_numbers() {
        let mut latch = Latch::new();
        latch.describe(Some(at(SDP)), LatchMode::Strict);
        let now = crate::clock::now();
        assert_eq!(latch.judge(at(NAT), 1, None, true, now), Refuse);
        assert_eq!(latch.judge(at(NAT), 2, None, true, now), Refuse);
        assert_eq!(latch.judge(at(NAT), 2, None, true, now), Refuse);
        assert_eq!(latch.judge(at(NAT), 2, None, true, now), Latched);
    }

    #[test]
    fn a_flood_from_many_addresses_cannot_stop_a_row_between_its_packets_for_long() {
        let mut script = Script::strict();
        for n in 0..3_u16 {
            script.play(&format!("203.0.113.1:{}", 1_000 + n), 9, n, 0);
            let judged = script.play(NAT, 1, n, 0);
            assert_eq!(judged, if n == 2 { Latched } else { Refuse });
        }
    }
}
