//! When to look again.
//!
//! A quiet thread wakes for every arrival. A busy one may do so as well, or sleep between two passes and find several
//! datagrams at once. Which of the two costs less depends on the machine: a timer's wake-up is dear in many virtual machines,
//! an interrupt's in others. So a busy thread tries both, by the CPU time that the system charges it per datagram, keeps the
//! cheaper one, and looks at the other now and then. Waking for arrivals is kept unless sleeping is clearly cheaper: it adds no
//! latency.

use std::time::{Duration, Instant};

/// How often it is judged whether the thread is busy.
const WINDOW: Duration = Duration::from_millis(10);
/// Busy: at least so many datagrams per `batch_interval`; fewer leave nothing to save.
const BUSY: f64 = 2.0;
/// Busy windows in a row that tell what a way costs.
const TRIAL: u32 = 25;
/// Trials of each way by turns before one is kept: the first are often those of calls that begin.
const FIRST: u32 = 4;
/// Trials of one way before the other is looked at again.
const RETRY: u32 = 32;
/// Sleeping must cost less than this part of what waking for arrivals does.
const CLEARLY: f64 = 0.95;

/// How a busy thread waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Until something arrives.
    Arrival = 0,
    /// The interval, whatever arrives.
    Sleep = 1,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    /// Datagrams per window from which on the thread is busy.
    threshold: u32,
    since: Instant,
    count: u32,
    busy: bool,
    way: Way,
    /// CPU ns per datagram of each way: a mean that forgets.
    costs: [f64; 2],
    /// How often each was tried.
    tried: [u32; 2],
    trial: Option<Trial>,
    /// Trials since the other way was tried.
    same: u32,
}

#[derive(Debug)]
struct Trial {
    cpu: Duration,
    windows: u32,
    datagrams: u64,
}

impl Pace {
    pub fn new(interval: Duration, now: Instant) -> Self {
        let threshold = match interval.is_zero() {
            true => u32::MAX,
            false => (BUSY * WINDOW.as_secs_f64() / interval.as_secs_f64()).max(1.0) as u32,
        };
        Self {
            interval,
            threshold,
            since: now,
            count: 0,
            busy: false,
            way: Way::Arrival,
            costs: [0.0; 2],
            tried: [0; 2],
            trial: None,
            same: 0,
        }
    }

    /// Whether so much comes that the next pass is near.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// After a pass that began at `begun` and read `count` datagrams: the least time until the next one begins. `cpu` tells
    /// the CPU time of the thread and is asked seldom.
    pub fn after_pass(&mut self, count: u32, begun: Instant, cpu: impl FnOnce() -> Duration) -> Option<Duration> {
        self.count += count;
        if begun.saturating_duration_since(self.since) >= WINDOW {
            self.busy = self.count >= self.threshold;
            self.judge(cpu);
            self.count = 0;
            self.since = begun;
        }
        (self.busy && self.way == Way::Sleep).then_some(self.interval)
    }

    /// A window is over.
    fn judge(&mut self, cpu: impl FnOnce() -> Duration) {
        if !self.busy {
            self.trial = None;
            return;
        }
        let Some(trial) = &mut self.trial else {
            self.trial = Some(Trial { cpu: cpu(), windows: 0, datagrams: 0 });
            return;
        };
        trial.windows += 1;
        trial.datagrams += u64::from(self.count);
        if trial.windows < TRIAL {
            return;
        }
        let spent = cpu();
        let cost = spent.saturating_sub(trial.cpu).as_nanos() as f64 / trial.datagrams as f64;
        let way = self.way as usize;
        self.costs[way] = if self.tried[way] == 0 { cost } else { (self.costs[way] + cost) / 2.0 };
        self.tried[way] += 1;
        let next = self.next();
        let before = std::mem::replace(&mut self.way, next);
        // What the change itself costs belongs to neither: it begins with the next window.
        self.trial = (self.way == before).then_some(Trial { cpu: spent, windows: 0, datagrams: 0 });
        self.same = if self.way == before { self.same + 1 } else { 0 };
    }

    fn next(&self) -> Way {
        let other = if self.way == Way::Arrival { Way::Sleep } else { Way::Arrival };
        if self.tried[other as usize] < FIRST || self.same >= RETRY {
            return other;
        }
        let [arrival, sleep] = self.costs;
        if sleep < CLEARLY * arrival { Way::Sleep } else { Way::Arrival }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(1);

    /// A machine where a datagram costs so many ns by either way; a pass a millisecond.
    struct Machine {
        now: Instant,
        cpu: Duration,
        arrival_ns: u64,
        sleep_ns: u64,
        per_ms: u32,
    }

    impl Machine {
        fn new(arrival_ns: u64, sleep_ns: u64, per_ms: u32) -> Self {
            Self { now: crate::clock::now(), cpu: Duration::ZERO, arrival_ns, sleep_ns, per_ms }
        }

        /// How many of so many passes were followed by a sleep.
        fn slept_of(&mut self, pace: &mut Pace, passes: u32) -> u32 {
            let mut slept = 0;
            let mut sleeps = false;
            for _ in 0..passes {
                self.now += INTERVAL;
                let each = if sleeps { self.sleep_ns } else { self.arrival_ns };
                self.cpu += Duration::from_nanos(each * u64::from(self.per_ms));
                let pause = pace.after_pass(self.per_ms, self.now, || self.cpu);
                assert!(pause.is_none_or(|pause| pause == INTERVAL));
                sleeps = pause.is_some();
                slept += u32::from(sleeps);
            }
            slept
        }
    }

    #[test]
    fn the_cheaper_way_is_kept_and_the_other_looked_at_now_and_then() {
        for (arrival_ns, sleep_ns, sleeps) in [(5_000, 6_000, false), (5_000, 4_900, false), (5_000, 4_000, true)] {
            let mut machine = Machine::new(arrival_ns, sleep_ns, 20);
            let mut pace = Pace::new(INTERVAL, machine.now);
            machine.slept_of(&mut pace, 2_000);
            let slept = machine.slept_of(&mut pace, 20_000);
            let dearer = if sleeps { 20_000 - slept } else { slept };
            assert!((500..=1_500).contains(&dearer), "{arrival_ns} and {sleep_ns}: {dearer} ms by the dearer way");
        }
    }

    #[test]
    fn a_machine_that_changes_is_followed() {
        let mut machine = Machine::new(5_000, 6_000, 20);
        let mut pace = Pace::new(INTERVAL, machine.now);
        machine.slept_of(&mut pace, 10_000);
        machine.sleep_ns = 2_000;
        machine.slept_of(&mut pace, 20_000);
        assert!(machine.slept_of(&mut pace, 10_000) > 9_000);
        machine.sleep_ns = 8_000;
        machine.slept_of(&mut pace, 20_000);
        assert!(machine.slept_of(&mut pace, 10_000) < 1_000);
    }

    #[test]
    fn a_quiet_thread_and_one_without_an_interval_never_sleep() {
        let mut machine = Machine::new(5_000, 1_000, 1);
        let mut pace = Pace::new(INTERVAL, machine.now);
        assert_eq!((machine.slept_of(&mut pace, 10_000), pace.is_busy()), (0, false));
        let mut pace = Pace::new(Duration::ZERO, machine.now);
        machine.per_ms = 1_000;
        assert_eq!(machine.slept_of(&mut pace, 10_000), 0);
    }
}
