//! The free-space floor (spec/recording.md §6): when to refuse new recordings and when to close the running ones.

/// What the free space allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Room {
    /// New sessions may begin.
    Enough,
    /// Running sessions go on; the server is not ready and refuses new ones.
    Low,
    /// Running sessions are closed and published with stop cause `disk-full`.
    Full,
}

impl Room {
    /// True when a new session may begin (`/readyz`).
    pub fn takes_new(self) -> bool {
        self == Self::Enough
    }
}

/// Remembers that the floor was passed, so that new sessions wait for twice the floor.
#[derive(Debug, Clone)]
pub struct Floor {
    min_free: u64,
    room: Room,
}

/// Running sessions are closed while there is still room for this many seconds of what they write at present.
const SECONDS_AHEAD: u64 = 10;

impl Floor {
    /// `min_free` is `recording.min-free-space` in bytes.
    pub fn new(min_free: u64) -> Self {
        Self { min_free, room: Room::Enough }
    }

    /// Takes the free bytes and the bytes per second written at present; answers what they allow from now on.
    pub fn observe(&mut self, free: u64, bytes_per_second: u64) -> Room {
        let full_below = (self.min_free / 4).max(bytes_per_second.saturating_mul(SECONDS_AHEAD));
        self.room = if free < full_below {
            Room::Full
        } else if free < self.min_free {
            Room::Low
        } else if self.room != Room::Enough && free < self.min_free.saturating_mul(2) {
            // Otherwise a disk at its floor would take and refuse calls in turn.
            Room::Low
        } else {
            Room::Enough
        };
        self.room
    }

    /// The latest answer.
    pub fn room(&self) -> Room {
        self.room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_has_one_answer_for_every_history() {
        use Room::{Enough, Full, Low};
        // Floor 1,000 bytes; each row: free, bytes per second, expected.
        for (row, steps) in [
            &[(1_000, 0, Enough)][..],
            &[(999, 0, Low), (1_999, 0, Low), (2_000, 0, Enough), (1_999, 0, Enough), (1_000, 0, Enough)],
            &[(250, 0, Low), (249, 0, Full), (250, 0, Low), (1_500, 0, Low), (2_000, 0, Enough)],
            &[(900, 90, Low), (899, 90, Full)],
            // A write rate that eats more than the floor in ten seconds closes above the floor, too.
            &[(1_500, 151, Full), (1_500, 0, Low), (2_000, 0, Enough)],
            &[(0, 0, Full), (u64::MAX, u64::MAX, Enough)],
        ]
        .into_iter()
        .enumerate()
        {
            let mut floor = Floor::new(1_000);
            for &(free, rate, expected) in steps {
                assert_eq!(floor.observe(free, rate), expected, "row {row}: {free} free, {rate} per second");
                assert_eq!(floor.room().takes_new(), expected == Enough);
            }
        }
    }

    #[test]
    fn a_floor_of_nothing_refuses_only_when_nothing_is_left_to_write() {
        let mut floor = Floor::new(0);
        assert_eq!(floor.observe(0, 0), Room::Enough);
        assert_eq!(floor.observe(9, 1), Room::Full);
    }
}
