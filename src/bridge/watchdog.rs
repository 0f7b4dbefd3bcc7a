//! Inactivity: how long a leg's peer has been silent while we expect RTP (spec/sip.md §7).

use std::time::{Duration, Instant};

use crate::codec::Kind;
use crate::rtp::Header;
use crate::rtp::seq::{sequence_ahead, timestamp_ahead};

/// The least timeout for a peer that suppresses silence.
const SPARSE_TIMEOUT: Duration = Duration::from_secs(180);

/// The inactivity timer of one leg.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Watchdog {
    last_life: Option<Instant>,
    newest: Option<(u16, u32)>,
    /// The peer sends comfort noise, or leaves out silence.
    sparse: bool,
    /// No packet reads it.
    armed: Option<Armed>,
}

#[derive(Debug, Clone, Copy)]
struct Armed {
    at: Instant,
    timeout: Duration,
}

impl Watchdog {
    /// Arms the timer, or stops it.
    pub fn watch(&mut self, timeout: Option<Duration>, now: Instant) {
        self.armed = timeout.map(|timeout| Armed { at: now, timeout });
    }

    /// RTCP of the peer came.
    pub fn alive(&mut self, now: Instant) {
        self.last_life = Some(now);
    }

    /// RTP of the peer came. Comfort noise, or a packet that follows the one before without loss but more than its
    /// duration later (DTX; `longest` ticks are taken for one packet), tells that the peer suppresses silence.
    pub fn rtp(&mut self, header: &Header, kind: Kind, longest: u32, now: Instant) {
        self.alive(now);
        if kind == Kind::TelephoneEvent {
            return;
        }
        if let Some((sequence, timestamp)) = self.newest {
            let leap = timestamp_ahead(header.timestamp, timestamp);
            let next = sequence_ahead(header.sequence, sequence) == 1;
            self.sparse |= next && header.marker && leap > 0 && leap.unsigned_abs() > longest;
        }
        self.sparse |= kind == Kind::ComfortNoise;
        self.newest = Some((header.sequence, header.timestamp));
    }

    /// A new description: what the old one's peer did says nothing about the new one's.
    pub fn renew(&mut self) {
        self.sparse = false;
        self.newest = None;
    }

    /// When it runs out if nothing comes.
    pub fn deadline(&self) -> Option<Instant> {
        let armed = self.armed?;
        let timeout = if self.sparse { armed.timeout.max(SPARSE_TIMEOUT) } else { armed.timeout };
        Some(self.last_life.map_or(armed.at, |life| life.max(armed.at)) + timeout)
    }

    /// True, once per arming, when the deadline has passed.
    pub fn expired(&mut self, now: Instant) -> bool {
        let expired = self.deadline().is_some_and(|deadline| deadline <= now);
        if expired {
            self.armed = None;
        }
        expired
    }
}
