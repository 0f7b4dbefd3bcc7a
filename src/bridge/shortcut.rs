//! What may be done with the packets of a steady stream by something that sees them before us, without asking.

use std::net::SocketAddr;

use super::outgoing::MAX_LEAP;
use super::relay::Slot;
use crate::id::LegId;
use crate::rtp::seq::ticks;

/// One leg's stream to the leg that hears it: the header that the relay would give each of its packets. It holds until the
/// relay is told anything about one of the two legs, or gives another answer after a packet of one of them.
///
/// Its packets are those of this source, SSRC and payload type, without contributing sources, extension or padding, that follow
/// those before without a jump: at most fifty numbers and `longest_leap` ticks ahead of the newest, or fewer than a hundred
/// numbers behind it once so many have been sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortcut {
    /// Whose stream it is.
    pub leg: LegId,
    /// Its slot.
    pub slot: Slot,
    /// Where its packets come from.
    pub from: SocketAddr,
    /// The leg whose RTP socket sends them.
    pub hearer: Slot,
    /// Where they go.
    pub to: SocketAddr,
    /// The source's SSRC, and ours.
    pub ssrc: (u32, u32),
    /// Its payload type, and the one that it becomes.
    pub payload_type: (u8, u8),
    /// Added to sequence numbers.
    pub sequence_offset: u16,
    /// Added to timestamps.
    pub timestamp_offset: u32,
    /// RTP clock of both in Hz.
    pub clock_rate: u32,
    /// A recorder wants the payload; else the fixed header is all that the relay needs of a packet.
    pub tapped: bool,
}

impl Shortcut {
    /// How many ticks a packet may be later than the one before.
    pub fn longest_leap(&self) -> u32 {
        // Two seconds of any clock fit.
        ticks(MAX_LEAP, self.clock_rate) as u32
    }
}
