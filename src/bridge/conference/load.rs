//! What a mixer leaves out when it does not keep up, one thing after the other, and takes up again when it does.

use std::time::Duration;

use super::PHASES;
use super::playout::Without;

/// A phase that begins so late waited for the work of those before it, or for the machine.
const BEHIND: Duration = Duration::from_millis(5);
/// With so much work in the phases of one tick it was the work. A machine that has no time for the thread makes it late
/// as well, but leaving things out would not bring that time back: it would only be heard.
const WORK: Duration = Duration::from_millis(10);
/// Late phases after each other that make it leave out more.
const LATE: u32 = 2;
/// Phases in time after each other, a second of them, that let it take up something again.
const CALM: u32 = 200;
/// Steps: stretch, concealment, meters, new members, ticks of the largest rooms.
const MOST: u8 = 5;

/// How well the mixer keeps up.
#[derive(Debug, Clone, Default)]
pub struct Load {
    level: u8,
    late: u32,
    calm: u32,
    /// The work of the latest phases.
    worked: [Duration; PHASES as usize],
    next: usize,
}

/// What is left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shed {
    /// Time-stretch, then concealment.
    pub without: Without,
    /// Meters.
    pub meters: bool,
    /// Nobody is taken any more.
    pub new_members: bool,
    /// Every second tick of the largest rooms.
    pub ticks: bool,
}

impl Load {
    /// A phase begins so late, and the one before it worked so long; zero when the mixer had to wait after it.
    pub fn observe(&mut self, late: Duration, worked: Duration) {
        self.worked[self.next] = worked;
        self.next = (self.next + 1) % self.worked.len();
        if late >= BEHIND && self.worked.iter().sum::<Duration>() >= WORK {
            (self.late, self.calm) = (self.late + 1, 0);
            if self.late == LATE {
                self.late = 0;
                self.level = (self.level + 1).min(MOST);
            }
            return;
        }
        (self.late, self.calm) = (0, self.calm + 1);
        if self.calm == CALM {
            self.calm = 0;
            self.level = self.level.saturating_sub(1);
        }
    }

    /// How many things are left out, 0 to 5.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Which.
    pub fn shed(&self) -> Shed {
        Shed {
            without: Without { stretch: self.level >= 1, concealment: self.level >= 2 },
            meters: self.level >= 3,
            new_members: self.level >= 4,
            ticks: self.level >= 5,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_left_out_in_their_order_and_taken_up_again_in_reverse() {
        let mut load = Load::default();
        let as_bits = |load: &Load| {
            let Shed { without, meters, new_members, ticks } = load.shed();
            [without.stretch, without.concealment, meters, new_members, ticks].map(u8::from)
        };
        let expected =
            [[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]];
        for step in expected {
            assert_eq!(as_bits(&load), step);
            (0..LATE).for_each(|_| load.observe(BEHIND, WORK));
        }
        for step in expected.iter().rev() {
            assert_eq!(as_bits(&load), *step);
            (0..CALM).for_each(|_| load.observe(BEHIND - Duration::from_nanos(1), WORK));
        }
    }

    #[test]
    fn one_late_phase_now_and_then_is_no_reason() {
        let mut load = Load::default();
        for _ in 0..1_000 {
            load.observe(BEHIND, WORK);
            load.observe(Duration::ZERO, WORK);
        }
        assert_eq!(load.level(), 0);
    }

    #[test]
    fn who_is_late_without_working_much_leaves_nothing_out() {
        let mut load = Load::default();
        for _ in 0..1_000 {
            load.observe(10 * BEHIND, WORK / PHASES as u32 - Duration::from_nanos(1));
        }
        assert_eq!(load.level(), 0);
        for _ in 0..PHASES {
            load.observe(10 * BEHIND, WORK / PHASES as u32);
        }
        load.observe(10 * BEHIND, WORK / PHASES as u32);
        assert_eq!(load.level(), 1);
    }
}
