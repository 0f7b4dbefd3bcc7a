//! Runs of samples that wait in a playout buffer.

use std::collections::VecDeque;
use std::ops::Range;

/// Runs at most; more (a packet lost between each two) and the newest is dropped.
const MAX_SPANS: usize = 32;

/// Runs of samples in order, none touching another. The first one stands apart, because nearly always it is the only one.
#[derive(Debug)]
pub struct Spans {
    /// Empty: there is none at all.
    first: Range<i64>,
    rest: VecDeque<Range<i64>>,
}

impl Spans {
    /// None; memory for all that there can be.
    pub fn new() -> Self {
        Self { first: 0..0, rest: VecDeque::with_capacity(MAX_SPANS + 1) }
    }

    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    pub fn clear(&mut self) {
        self.first = 0..0;
        self.rest.clear();
    }

    fn iter(&self) -> impl Iterator<Item = &Range<i64>> {
        std::iter::once(&self.first).chain(&self.rest).filter(|span| !span.is_empty())
    }

    /// True when all of `start..end`, which is not empty, waits.
    #[inline]
    pub fn hold(&self, start: i64, end: i64) -> bool {
        let all = |span: &Range<i64>| span.start <= start && end <= span.end;
        all(&self.first) || self.rest.iter().any(all)
    }

    /// True when `start` is where nothing waits, nor behind it.
    pub fn end_before(&self, start: i64) -> bool {
        self.rest.back().unwrap_or(&self.first).end <= start || self.is_empty()
    }

    /// What waits from `at` on, up to the next hole.
    pub fn next(&self, at: i64) -> Option<Range<i64>> {
        self.iter().find(|span| span.end > at).map(|span| span.start.max(at)..span.end)
    }

    /// Enters `start..end`, which is not empty, where nothing waits.
    #[inline]
    pub fn begin(&mut self, start: i64, end: i64) {
        debug_assert!(self.is_empty());
        self.first = start..end;
    }

    /// Enters what begins where the only run ends; false, and nothing was done, when that is not the only one's end.
    pub fn append(&mut self, start: i64, end: i64) -> bool {
        let follows = self.rest.is_empty() && self.first.end == start && !self.first.is_empty();
        if follows {
            self.first.end = end;
        }
        follows
    }

    /// Enters `start..end`, which is not empty; false when there are too many runs already.
    pub fn insert(&mut self, start: i64, end: i64) -> bool {
        if self.is_empty() {
            self.begin(start, end);
            return true;
        }
        if self.append(start, end) {
            return true;
        }
        self.rest.push_front(self.first.clone());
        let entered = self.insert_among(start, end);
        self.first = self.rest.pop_front().unwrap_or(0..0);
        entered
    }

    /// As [`Spans::insert`], where all of them stand in `rest`.
    fn insert_among(&mut self, start: i64, end: i64) -> bool {
        let all = &mut self.rest;
        let at = all.iter().position(|span| span.end >= start).unwrap_or(all.len());
        let mut joined = start..end;
        while let Some(span) = all.get(at).filter(|span| span.start <= joined.end) {
            joined = joined.start.min(span.start)..joined.end.max(span.end);
            all.remove(at);
        }
        let room = all.len() < MAX_SPANS;
        if room {
            all.insert(at, joined);
        }
        room
    }

    /// What is before `play` waits no longer.
    #[inline]
    pub fn forget(&mut self, play: i64) {
        if self.rest.is_empty() && self.first.end <= play {
            return self.first = 0..0;
        }
        while self.first.end <= play {
            match self.rest.pop_front() {
                Some(next) => self.first = next,
                None => return self.first = 0..0,
            }
        }
        self.first.start = self.first.start.max(play);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_waits_is_what_was_entered_and_not_yet_heard(
            steps in proptest::collection::vec((0_i64..300, 1_i64..40, proptest::bool::weighted(0.2)), 1..60)
        ) {
            let mut spans = Spans::new();
            let (mut waits, mut play) = ([false; 400], 0);
            for (start, len, forgets) in steps {
                if forgets {
                    play = play.max(start / 4);
                    spans.forget(play);
                    waits[..play as usize].fill(false);
                } else if start >= play {
                    prop_assert!(spans.insert(start, start + len));
                    waits[start as usize..(start + len) as usize].fill(true);
                }
                prop_assert_eq!(spans.is_empty(), !waits.contains(&true));
                let mut told = [false; 400];
                let mut at = 0;
                while let Some(span) = spans.next(at) {
                    prop_assert!(told[..span.start as usize].last() != Some(&true), "two touch each other");
                    told[span.start as usize..span.end as usize].fill(true);
                    prop_assert!(spans.hold(span.start, span.end) && !spans.hold(span.start, span.end + 1));
                    at = span.end;
                }
                prop_assert_eq!(&told[..], &waits[..]);
                let end = waits.iter().rposition(|waits| *waits).map_or(0, |last| last as i64 + 1);
                prop_assert!(spans.end_before(end) && (spans.is_empty() || !spans.end_before(end - 1)));
            }
        }
    }

    #[test]
    fn the_thirty_third_run_is_dropped_and_what_joins_two_is_not() {
        let mut spans = Spans::new();
        assert!((0..MAX_SPANS as i64).all(|n| spans.insert(20 * n, 20 * n + 10)));
        assert!(!spans.insert(1_000, 1_010));
        assert!(spans.insert(10, 20) && spans.hold(0, 30) && spans.insert(1_000, 1_010));
    }
}
