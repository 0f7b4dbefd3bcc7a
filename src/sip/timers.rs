//! When to do what: RFC 3261's timers (table 4), RFC 6026's L and M, and the endpoint's own.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::id::IdMap;

/// A timer of a transaction, a dialog, an INVITE or a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timer {
    /// When to repeat an INVITE (§17.1.1.2).
    A,
    /// When to give up an INVITE that nobody answers (§17.1.1.2).
    B,
    /// When to cancel a re-INVITE that gets provisional answers only: 3 minutes, as long as a proxy waits (§16.6).
    C,
    /// When to stop acknowledging repeated failures of an INVITE (§17.1.1.2).
    D,
    /// When to repeat another request (§17.1.2.2).
    E,
    /// When to give up another request (§17.1.2.2).
    F,
    /// When to repeat a failure to an INVITE (§17.2.1).
    G,
    /// When to stop waiting for the ACK of a failure (§17.2.1).
    H,
    /// When to stop absorbing ACKs (§17.2.1).
    I,
    /// When to forget the answer to another request, or, unanswered, the request (§17.2.2).
    J,
    /// When to stop absorbing answers to another request (§17.1.2.2).
    K,
    /// When to stop absorbing INVITEs that a 2xx has answered (RFC 6026 §8.7).
    L,
    /// When to stop taking further 2xx of an INVITE (RFC 6026 §8.4).
    M,
    /// When to give up an INVITE whose CANCEL did not end it (§9.1).
    Cancelled,
    /// When to repeat a provisional answer, so that proxies do not time out (§13.3.1.1): every minute.
    Progress,
    /// When to repeat a 2xx that has no ACK (§13.3.1.4).
    Answer,
    /// When to stop waiting for the ACK of a 2xx (§13.3.1.4).
    Ack,
    /// When a subscription lapses that nobody has refreshed (RFC 6665 §4.2.1.1).
    Expiry,
    /// When a subscriber may be told of the next change.
    Pace,
}

/// Why the endpoint wants to be woken: a timer, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reason {
    /// The timer.
    pub timer: Timer,
    /// The number of its transaction, dialog or subscription.
    pub id: u64,
}

/// The values of table 4 that everything else is computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intervals {
    /// Round-trip estimate, 500 ms.
    pub t1: Duration,
    /// Longest interval between repeats, 4 s.
    pub t2: Duration,
    /// Longest life of a message in the network, 5 s.
    pub t4: Duration,
}

impl Intervals {
    /// 64·T1: timers B, F, H, J, L, M and the wait for an ACK.
    pub fn give_up(&self) -> Duration {
        self.t1 * 64
    }

    /// Timer D over UDP: at least 32 s, because the server's T1 is unknown (§17.1.1.2).
    pub fn d(&self) -> Duration {
        self.give_up().max(Duration::from_secs(32))
    }

    /// The next interval of G, E and the repeats of a 2xx: doubled, at most T2.
    pub fn backed_off(&self, interval: Duration) -> Duration {
        (interval * 2).min(self.t2)
    }
}

/// All timers that run, at most one of each kind per owner. Setting, clearing and taking cost O(log n); a cleared
/// timer is gone at once, so that finished transactions leave nothing behind (at 1,000 calls per second a heap with
/// lazy deletion would hold a million dead entries).
#[derive(Debug, Default)]
pub struct Timers {
    queue: BTreeSet<(Instant, Reason)>,
    due: IdMap<Reason, Instant>,
}

impl Timers {
    /// Starts a timer, or moves it.
    pub fn set(&mut self, timer: Timer, id: u64, at: Instant) {
        let reason = Reason { timer, id };
        if let Some(before) = self.due.insert(reason, at) {
            self.queue.remove(&(before, reason));
        }
        self.queue.insert((at, reason));
    }

    /// Stops a timer; nothing happens when it does not run.
    pub fn clear(&mut self, timer: Timer, id: u64) {
        let reason = Reason { timer, id };
        if let Some(before) = self.due.remove(&reason) {
            self.queue.remove(&(before, reason));
        }
    }

    /// The earliest timer.
    pub fn next(&self) -> Option<(Instant, Reason)> {
        self.queue.first().copied()
    }

    /// Takes the earliest timer if it is due.
    pub fn take_due(&mut self, now: Instant) -> Option<Reason> {
        let &(at, reason) = self.queue.first()?;
        if at > now {
            return None;
        }
        self.queue.pop_first();
        self.due.remove(&reason);
        Some(reason)
    }

    /// True when no timer runs.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

/// The timers of one owner, as a state machine sees them.
pub struct Own<'a> {
    timers: &'a mut Timers,
    id: u64,
    now: Instant,
    /// The values of table 4.
    pub intervals: Intervals,
    /// True over TCP and TLS.
    pub reliable: bool,
}

impl<'a> Own<'a> {
    /// The timers of `id`.
    pub fn new(timers: &'a mut Timers, id: u64, intervals: Intervals, reliable: bool, now: Instant) -> Self {
        Self { timers, id, now, intervals, reliable }
    }

    /// Starts a timer that fires after `wait`.
    pub fn set(&mut self, timer: Timer, wait: Duration) {
        self.timers.set(timer, self.id, self.now + wait);
    }

    /// Stops a timer.
    pub fn clear(&mut self, timer: Timer) {
        self.timers.clear(timer, self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_in_order_of_time_and_only_when_due() {
        let t0 = crate::clock::now();
        let ms = Duration::from_millis;
        let mut timers = Timers::default();
        timers.set(Timer::B, 1, t0 + ms(300));
        timers.set(Timer::A, 1, t0 + ms(100));
        timers.set(Timer::A, 2, t0 + ms(200));
        assert_eq!(timers.next(), Some((t0 + ms(100), Reason { timer: Timer::A, id: 1 })));
        assert_eq!(timers.take_due(t0 + ms(99)), None);
        assert_eq!(timers.take_due(t0 + ms(250)), Some(Reason { timer: Timer::A, id: 1 }));
        assert_eq!(timers.take_due(t0 + ms(250)), Some(Reason { timer: Timer::A, id: 2 }));
        assert_eq!(timers.take_due(t0 + ms(250)), None);
    }

    #[test]
    fn a_timer_that_is_moved_or_cleared_does_not_fire_at_its_old_time() {
        let t0 = crate::clock::now();
        let ms = Duration::from_millis;
        let mut timers = Timers::default();
        timers.set(Timer::E, 7, t0 + ms(100));
        timers.set(Timer::E, 7, t0 + ms(400));
        timers.set(Timer::F, 7, t0 + ms(50));
        timers.clear(Timer::F, 7);
        assert_eq!(timers.take_due(t0 + ms(399)), None);
        assert_eq!(timers.take_due(t0 + ms(400)), Some(Reason { timer: Timer::E, id: 7 }));
        assert!(timers.is_empty());
    }
}
