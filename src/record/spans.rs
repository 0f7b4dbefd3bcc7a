//! Which stretches of a stream have come, without the samples themselves.

use std::collections::VecDeque;

use super::stream::Coding;
use super::track::Origin;

/// Received samples without a hole.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// First stream position.
    pub start: i64,
    /// One past the last.
    pub end: i64,
    /// The packet at its beginning.
    pub first: Origin,
    /// The packet at its end.
    pub last: Origin,
    /// Samples of its first packet.
    pub packet_len: i64,
    /// How its last packet was coded …
    pub coding: Coding,
    /// … and all others from this position on.
    pub alike_from: i64,
    /// The hole before it has been concealed or needs none.
    pub concealed: bool,
    /// The hole before it has been reported or needs no report.
    pub reported: bool,
}

/// Spans in the order of their positions. A stream without loss has one, so the last one is at hand without a look at the
/// heap.
#[derive(Debug, Default)]
pub struct Spans {
    earlier: VecDeque<Span>,
    last: Option<Span>,
}

impl Spans {
    /// How many.
    pub fn count(&self) -> usize {
        self.earlier.len() + usize::from(self.last.is_some())
    }

    /// The first one.
    pub fn first(&self) -> Option<&Span> {
        self.earlier.front().or(self.last.as_ref())
    }

    /// The first one.
    pub fn first_mut(&mut self) -> Option<&mut Span> {
        self.earlier.front_mut().or(self.last.as_mut())
    }

    /// The last one.
    pub fn last(&self) -> Option<&Span> {
        self.last.as_ref()
    }

    /// The last one.
    pub fn last_mut(&mut self) -> Option<&mut Span> {
        self.last.as_mut()
    }

    /// By number.
    pub fn get(&self, i: usize) -> Option<&Span> {
        if i == self.earlier.len() { self.last.as_ref() } else { self.earlier.get(i) }
    }

    /// By number.
    pub fn get_mut(&mut self, i: usize) -> Option<&mut Span> {
        if i == self.earlier.len() { self.last.as_mut() } else { self.earlier.get_mut(i) }
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Span> {
        self.earlier.iter().chain(&self.last)
    }

    /// The number of the first that ends after a position.
    pub fn after(&self, position: i64) -> usize {
        let i = self.earlier.partition_point(|span| span.end <= position);
        i + usize::from(i == self.earlier.len() && self.last.is_some_and(|span| span.end <= position))
    }

    /// One more behind all others.
    pub fn push(&mut self, span: Span) {
        self.earlier.extend(self.last.replace(span));
    }

    /// One more at a number.
    pub fn insert(&mut self, i: usize, span: Span) {
        if i > self.earlier.len() || self.last.is_none() { self.push(span) } else { self.earlier.insert(i, span) }
    }

    /// Takes the first one.
    pub fn pop_first(&mut self) -> Option<Span> {
        self.earlier.pop_front().or_else(|| self.last.take())
    }

    /// Joins neighbours between which nothing is missing, where `joins` says so.
    pub fn merge(&mut self, joins: impl Fn(&Span, &Span) -> bool) {
        let mut all = std::mem::take(&mut self.earlier);
        all.extend(self.last.take());
        for right in all {
            match &mut self.last {
                Some(left) if joins(left, &right) => {
                    left.end = right.end;
                    left.last = right.last;
                    if left.coding != right.coding || right.alike_from > right.start {
                        (left.coding, left.alike_from) = (right.coding, right.alike_from);
                    }
                }
                _ => self.push(right),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: i64, end: i64) -> Span {
        let origin = Origin { stream: 0, sequence: start };
        Span {
            start,
            end,
            first: origin,
            last: origin,
            packet_len: 1,
            coding: Coding::Ulaw,
            alike_from: start,
            concealed: false,
            reported: false,
        }
    }

    fn starts(spans: &Spans) -> Vec<i64> {
        assert_eq!(spans.count(), spans.iter().count());
        (0..spans.count()).map(|i| spans.get(i).unwrap().start).collect()
    }

    #[test]
    fn order_holds_wherever_one_comes_in_and_goes() {
        let mut spans = Spans::default();
        spans.insert(0, span(20, 30));
        spans.insert(0, span(0, 10));
        spans.insert(2, span(60, 70));
        spans.insert(spans.after(39), span(40, 50));
        assert_eq!(starts(&spans), [0, 20, 40, 60]);
        assert_eq!([-1, 9, 10, 30, 69, 70].map(|at| spans.after(at)), [0, 0, 1, 2, 3, 4]);
        assert_eq!((spans.pop_first().unwrap().start, spans.first().unwrap().start), (0, 20));
        assert_eq!(spans.last().unwrap().start, 60);
        for rest in [20, 40, 60] {
            assert_eq!(spans.pop_first().unwrap().start, rest);
        }
        assert!(spans.pop_first().is_none() && spans.last().is_none());
    }

    #[test]
    fn neighbours_merge_and_remember_from_where_on_they_are_alike() {
        let mut spans = Spans::default();
        [span(0, 10), span(10, 20), span(30, 40), span(40, 50)].into_iter().for_each(|span| spans.push(span));
        spans.last_mut().unwrap().coding = Coding::Alaw;
        spans.merge(|left, right| left.end == right.start);
        let all: Vec<_> = spans.iter().map(|s| (s.start, s.end, s.last.sequence, s.coding, s.alike_from)).collect();
        assert_eq!(all, [(0, 20, 10, Coding::Ulaw, 0), (30, 50, 40, Coding::Alaw, 40)]);
    }
}
