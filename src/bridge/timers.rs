//! When each leg wants to be woken, and why.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Why a leg is woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// To send the next packet of a playback.
    Play,
    /// To send an RTCP report.
    Report,
    /// To look whether its peer has gone silent.
    Watch,
    /// To tell its counters.
    Stats,
    /// To send or tell what is due of a digit.
    Digit,
    /// To send a beep that nothing else carries.
    Beep,
}

/// Wake-ups of all legs. Entries that are out of date stay in the heap until their time and are then ignored, so arming
/// is cheap; each leg's [`Armed`] says which entry counts.
#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Instant, Reason, usize)>>,
}

/// One leg's present wake-ups.
#[derive(Debug, Default)]
pub struct Armed([Option<Instant>; 6]);

impl Timers {
    /// Wakes leg `key` at `at`; replaces its wake-up for the same reason.
    pub fn arm(&mut self, armed: &mut Armed, key: usize, reason: Reason, at: Instant) {
        armed.0[reason as usize] = Some(at);
        self.heap.push(Reverse((at, reason, key)));
    }

    /// The earliest entry; it may turn out to be out of date.
    pub fn next(&self) -> Option<(Instant, Reason)> {
        self.heap.peek().map(|Reverse((at, reason, _))| (*at, *reason))
    }

    /// Takes the earliest entry that is due.
    pub fn pop(&mut self, now: Instant) -> Option<(Instant, Reason, usize)> {
        let Reverse((at, ..)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

impl Armed {
    /// True when the entry is the one that counts; it is then spent.
    pub fn fire(&mut self, reason: Reason, at: Instant) -> bool {
        let armed = &mut self.0[reason as usize];
        let fires = *armed == Some(at);
        if fires {
            *armed = None;
        }
        fires
    }

    /// Forgets a wake-up.
    pub fn disarm(&mut self, reason: Reason) {
        self.0[reason as usize] = None;
    }
}
