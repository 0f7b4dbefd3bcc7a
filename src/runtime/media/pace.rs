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
/// Trials of which a comparison is made: what grows or shrinks meanwhile, as the cost of a datagram does while calls begin,
/// counts for both ways alike.
const COMPARED: [Way; 4] = [Way::Arrival, Way::Sleep, Way::Sleep, Way::Arrival];
/// Busy windows between two comparisons: 10 s.
const KEPT: u32 = 1_000;
/// Sleeping must cost less than this part of what waking for arrivals does.
const CLEARLY: f64 = 0.9;

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
    /// What is kept between comparisons.
    kept: Way,
    stage: Stage,
}

/// Where comparing stands.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    /// So many busy windows until the next comparison.
    Keeps(u32),
    /// The trial of this number begins with the next window: what the change itself costs belongs to neither way.
    Begins(usize, Costs),
    /// It runs.
    Runs(usize, Costs, Trial),
}

/// CPU time and datagrams of each way.
type Costs = [(Duration, u64); 2];

#[derive(Debug, Clone, Copy, PartialEq)]
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
        Self { interval, threshold, since: now, count: 0, busy: false, kept: Way::Arrival, stage: Stage::Keeps(0) }
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
            self.stage = match self.stage {
                stage if self.busy => self.judged(stage, cpu),
                Stage::Keeps(windows) => Stage::Keeps(windows),
                // It begins anew when the thread is busy again.
                Stage::Begins(..) | Stage::Runs(..) => Stage::Keeps(0),
            };
            self.count = 0;
            self.since = begun;
        }
        (self.busy && self.way() == Way::Sleep).then_some(self.interval)
    }

    fn way(&self) -> Way {
        match self.stage {
            Stage::Keeps(_) => self.kept,
            Stage::Begins(number, _) | Stage::Runs(number, ..) => COMPARED[number],
        }
    }

    /// A busy window is over.
    fn judged(&mut self, stage: Stage, cpu: impl FnOnce() -> Duration) -> Stage {
        match stage {
            Stage::Keeps(windows) if windows > 0 => Stage::Keeps(windows - 1),
            Stage::Keeps(_) => Stage::Begins(0, Costs::default()),
            Stage::Begins(number, costs) => Stage::Runs(number, costs, Trial { cpu: cpu(), windows: 0, datagrams: 0 }),
            Stage::Runs(number, mut costs, mut trial) => {
                trial.windows += 1;
                trial.datagrams += u64::from(self.count);
                if trial.windows < TRIAL {
                    return Stage::Runs(number, costs, trial);
                }
                let (spent, datagrams) = &mut costs[COMPARED[number] as usize];
                *spent += cpu().saturating_sub(trial.cpu);
                *datagrams += trial.datagrams;
                if number + 1 < COMPARED.len() {
                    return Stage::Begins(number + 1, costs);
                }
                let [arrival, sleep] = costs.map(|(spent, datagrams)| spent.as_nanos() as f64 / datagrams as f64);
                self.kept = if sleep < CLEARLY * arrival { Way::Sleep } else { Way::Arrival };
                Stage::Keeps(KEPT)
            }
        }
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
            let slept = machine.slept_of(&mut pace, 55_250);
            let dearer = if sleeps { 55_250 - slept } else { slept };
            // Five comparisons, half of each of them.
            assert!((2_500..=2_700).contains(&dearer), "{arrival_ns} and {sleep_ns}: {dearer} ms by the dearer way");
        }
    }

    #[test]
    fn what_becomes_cheaper_while_calls_begin_is_not_taken_for_the_other_way() {
        let mut machine = Machine::new(20_000, 22_000, 20);
        let mut pace = Pace::new(INTERVAL, machine.now);
        // A datagram costs half as much at the end of the first comparison.
        for _ in 0..110 {
            machine.slept_of(&mut pace, 10);
            (machine.arrival_ns, machine.sleep_ns) = (machine.arrival_ns - 90, machine.sleep_ns - 99);
        }
        assert_eq!(machine.slept_of(&mut pace, 9_000), 0);
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
