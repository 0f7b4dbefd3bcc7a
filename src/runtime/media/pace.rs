//! When to look again.

use std::time::{Duration, Instant};

/// How often it is judged whether the thread is busy.
const WINDOW: Duration = Duration::from_millis(10);
/// Busy: at least so many datagrams per `batch_interval`; then a pass with a sleep before it saves wake-ups.
const BUSY: f64 = 2.0;

/// How the thread paces itself: a wake per arrival while it is quiet, a pass every `batch_interval` while it is busy.
pub(super) struct Pace {
    interval: Duration,
    /// Datagrams per window from which on the thread is busy.
    threshold: u32,
    since: Instant,
    count: u32,
    busy: bool,
}

impl Pace {
    pub fn new(interval: Duration, now: Instant) -> Self {
        let threshold = match interval.is_zero() {
            true => u32::MAX,
            false => (BUSY * WINDOW.as_secs_f64() / interval.as_secs_f64()).max(1.0) as u32,
        };
        Self { interval, threshold, since: now, count: 0, busy: false }
    }

    /// Whether there is a pass every interval.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// After a pass that began at `begun` and read `count` datagrams: the least time until the next one begins.
    pub fn after_pass(&mut self, count: u32, begun: Instant) -> Option<Duration> {
        self.count += count;
        if begun.saturating_duration_since(self.since) >= WINDOW {
            self.busy = self.count >= self.threshold;
            self.count = 0;
            self.since = begun;
        }
        self.busy.then_some(self.interval)
    }
}
