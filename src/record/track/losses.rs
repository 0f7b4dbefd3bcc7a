//! Holes: what of them was lost on the way, concealed while they are sealed and reported once.

use super::{LINEAR_MS, Loss, Origin, Track, history, samples};
use crate::record::conceal;
use crate::record::spans::Span;

impl Track {
    /// Conceals the holes that begin before a stream position.
    pub(super) fn conceal(&mut self, until: i64, missing: &impl Fn(Origin, Origin) -> u64) {
        let mut before = self.edge;
        for i in 0..self.spans.count() {
            let Some(span) = self.spans.get_mut(i) else { break };
            let known = before.replace((span.end, span.last));
            let Some((end, last)) = known else {
                span.concealed = true;
                continue;
            };
            if end >= until {
                break;
            }
            if std::mem::replace(&mut span.concealed, true) {
                continue;
            }
            let span = *span;
            let lost = lost_samples(end, last, &span, missing);
            // A hole whose beginning is already sealed was silence from the start; it stays so.
            if lost > 0 && end >= self.sealed {
                self.conceal_hole(end, lost, span);
            }
        }
    }

    fn conceal_hole(&mut self, at: i64, lost: i64, next: Span) {
        let longest = i64::from(self.rate) * conceal::MAX_MS / 1_000;
        let len = lost.min(longest);
        // 40 ms before, 60 ms of hole, 20 ms after, each at 48,000 Hz at most.
        let (mut before, mut hole, mut after) = ([0_i16; 1_920], [0_i16; 2_880], [0_i16; 960]);
        let before = &mut before[..history(self.rate) as usize];
        let hole = &mut hole[..len as usize];
        self.received.read(at - before.len() as i64, before);
        let joins = lost <= longest && at + lost == next.start;
        let after = &mut after[..(next.end - next.start).min(history(self.rate) / 2) as usize];
        self.received.read(next.start, after);
        conceal::fill(before, joins.then_some(&*after), self.rate, hole);
        // The hole may end beyond what has been cleared.
        self.clear_holes(at + len);
        self.received.write(at, hole);
        self.linear_until = self.sealed + samples(self.rate, LINEAR_MS) as i64;
        self.concealed += len as u64;
    }

    /// Forgets spans that are sealed, reports the holes between them.
    pub(super) fn retire(&mut self, missing: &impl Fn(Origin, Origin) -> u64) {
        while let Some(span) = self.spans.first_mut() {
            if span.start >= self.sealed {
                break;
            }
            let span_now = *span;
            if !std::mem::replace(&mut span.reported, true)
                && let Some((end, last)) = self.edge
            {
                let lost = lost_samples(end, last, &span_now, missing);
                if lost > 0 {
                    let start = end + self.shift;
                    self.losses.push(Loss { start, end: start + lost });
                }
            }
            if span_now.end > self.sealed {
                break;
            }
            self.edge = Some((span_now.end, span_now.last));
            self.spans.pop_first();
        }
    }
}

/// How much of the hole before a span was lost: nothing when no packet is missing, all of it when the missing packets
/// explain its length, else (silence suppressed besides) as much as they held.
fn lost_samples(end: i64, last: Origin, span: &Span, missing: &impl Fn(Origin, Origin) -> u64) -> i64 {
    let hole = span.start - end;
    if hole <= 0 || last.stream != span.first.stream {
        return 0;
    }
    let packets = missing(last, span.first).min(1 << 20) as i64;
    let expected = packets * span.packet_len;
    if hole <= expected + expected / 2 { hole.min(expected * 2) } else { expected }
}
