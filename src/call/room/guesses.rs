//! Wrong PINs of all callers of a room: guessing is possible only as slowly as this allows.
//!
//! A caller has three tries, but may call again, and many may at once. Beyond [`MOST`] wrong PINs within [`WINDOW`] nobody
//! gets in by PIN until the oldest of them is as old as that; who is in the room stays. To try half of all PINs of four digits
//! takes more than a day.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Wrong PINs of a room within the window.
const MOST: usize = 30;
/// For so long a wrong PIN counts.
const WINDOW: Duration = Duration::from_secs(600);

/// The wrong PINs of each room, by its number.
#[derive(Debug, Default)]
pub(in crate::call) struct Guesses(HashMap<String, VecDeque<Instant>>);

impl Guesses {
    /// A wrong one was typed. It does not count while there are too many: the room opens again for sure.
    pub(super) fn add(&mut self, room: &str, now: Instant) {
        if self.are_too_many(room, now) {
            return;
        }
        match self.0.get_mut(room) {
            Some(wrong) => wrong.push_back(now),
            None => _ = self.0.insert(room.to_owned(), VecDeque::from([now])),
        }
    }

    /// No PIN of this room is taken now.
    pub(super) fn are_too_many(&mut self, room: &str, now: Instant) -> bool {
        let Some(wrong) = self.0.get_mut(room) else { return false };
        while wrong.front().is_some_and(|at| *at + WINDOW <= now) {
            wrong.pop_front();
        }
        if wrong.is_empty() {
            self.0.remove(room);
            return false;
        }
        wrong.len() >= MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_takes_no_pin_after_thirty_wrong_ones_until_the_first_is_ten_minutes_old() {
        let begin = crate::clock::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let mut guesses = Guesses::default();
        for n in 0..30 {
            assert!(!guesses.are_too_many("800", after(n)));
            guesses.add("800", after(n));
        }
        assert!(guesses.are_too_many("800", after(30)) && !guesses.are_too_many("801", after(30)));
        // Those who go on do not keep it closed.
        (31..599).for_each(|n| guesses.add("800", after(n)));
        assert!(guesses.are_too_many("800", after(599)) && !guesses.are_too_many("800", after(600)));
        guesses.add("800", after(600));
        assert!(guesses.are_too_many("800", after(600)) && !guesses.are_too_many("800", after(601)));
        assert!(!guesses.are_too_many("800", after(1_200)));
        assert!(guesses.0.is_empty(), "nothing is kept of what does not count");
    }
}
