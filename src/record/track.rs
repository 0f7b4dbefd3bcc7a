//! One leg's samples at one audio rate, on the local clock's grid: sample g was spoken at g / rate after the epoch.
//!
//! Two rings. Packets are written to the first by *stream position*, which counts the sender's samples. Every 25 ms the part
//! that can no longer change is *sealed*: holes are concealed, and it goes to the second ring by *local position*, where any
//! number of sessions read it. Local position = stream position + shift. The shift follows the sender's clock: by a jump
//! where there is silence, else by stretching 25 ms by one sample in two hundred, else not at all, and then every sample
//! is copied bit for bit.

use std::collections::VecDeque;
use std::ops::Range;

use super::conceal;
use super::samples::Samples;
use crate::audio::resample::Stretch;
use crate::audio::sum;

/// Sealed at a time, in ms.
pub const QUANTUM_MS: i64 = 25;

/// What the first ring holds, in ms: what is not sealed (545 at a commit, 250 more at the next one), and history.
const RECEIVED_MS: i64 = 900;

/// What the second one holds: what one commit seals, a little late, and what the resampler looks at besides.
const OUTPUT_MS: i64 = 320;

/// Longest stretch that either ring grows to hold, when a thread is late or a place lies far ahead, in ms.
const MAX_RING_MS: i64 = 8_000;

/// Ranges of received samples that are kept apart. A stream that leaves more holes than this in a second is not speech.
const MAX_SPANS: usize = 256;

/// Shift errors up to 1 ms are left alone; from there they are corrected in silence, from 4 ms by stretching.
const TOLERATED_TENTH_MS: i64 = 10;
const STRETCHED_TENTH_MS: i64 = 40;

/// One sample in so many when stretching: 0.5 %, a twelfth of a semitone.
const STRETCH_RATIO: i64 = 200;

/// Magnitude up to which a sample is silence that may be cut or lengthened.
const SILENCE: u16 = 24;

/// Samples of silence left around a cut.
const SILENCE_MARGIN: i64 = 16;

/// A packet as the track knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Which stream of the leg.
    pub stream: u32,
    /// Extended sequence number in it.
    pub sequence: i64,
}

/// What became of written samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Samples at the beginning that came after their place had been sealed.
    pub late: usize,
    /// No room: there are too many holes.
    pub refused: bool,
    /// The place is seconds ahead: no packet of this stream belongs there.
    pub astray: bool,
}

/// A stretch of local positions that was lost on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// First lost sample.
    pub start: i64,
    /// One past the last.
    pub end: i64,
}

/// Received samples without a hole.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: i64,
    end: i64,
    first: Origin,
    last: Origin,
    packet_len: i64,
    /// The hole before it has been concealed or needs none.
    concealed: bool,
    /// The hole before it has been reported or needs no report.
    reported: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Track {
    rate: u32,
    received: Samples,
    spans: VecDeque<Span>,
    /// First stream position that is not sealed.
    sealed: i64,
    /// End of the last span that is sealed to its end, and its last packet.
    edge: Option<(i64, Origin)>,
    shift: i64,
    /// The shift that the active stream asks for.
    wanted: Option<f64>,
    stretching: bool,
    output: Samples,
    /// One past the last local position in `output`.
    end: i64,
    /// First local position that `output` still has.
    start: i64,
    /// Samples before this one were overwritten before every session had read them.
    overrun: i64,
    losses: Vec<Loss>,
    concealed: u64,
}

impl Track {
    /// A track whose first local position is at or before `from` (a multiple of the quantum).
    pub fn new(rate: u32, from: i64) -> Self {
        let from = from - from.rem_euclid(quantum(rate));
        Self {
            rate,
            received: Samples::new(samples(rate, RECEIVED_MS)),
            spans: VecDeque::new(),
            sealed: from,
            edge: None,
            shift: 0,
            wanted: None,
            stretching: false,
            output: Samples::new(samples(rate, OUTPUT_MS)),
            end: from,
            start: from,
            overrun: i64::MIN,
            losses: Vec::new(),
            concealed: 0,
        }
    }

    /// Samples per second.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Local position minus stream position now.
    pub fn shift(&self) -> i64 {
        self.shift
    }

    /// The shift at which the newest packet would be at its place, to the fraction of a sample.
    pub fn want_shift(&mut self, shift: f64) {
        self.wanted = Some(shift);
    }

    /// One past the last local position that can be read.
    pub fn end(&self) -> i64 {
        self.end
    }

    /// First local position that can be read.
    pub fn start(&self) -> i64 {
        self.start
    }

    /// Samples before this local position may have gone unread: a session was more than eight seconds late.
    pub fn overrun(&self) -> i64 {
        self.overrun
    }

    /// Samples that were concealed so far.
    pub fn concealed(&self) -> u64 {
        self.concealed
    }

    /// Takes what was lost since the last call.
    pub fn take_losses(&mut self) -> std::vec::Drain<'_, Loss> {
        self.losses.drain(..)
    }

    /// Writes a packet's `len` samples at a stream position. What is already there stays. `decode` gives those from the
    /// packet's sample of that number on, straight into their place.
    pub fn write(&mut self, at: i64, len: usize, origin: Origin, decode: impl Fn(usize, &mut [i16])) -> Written {
        let len = len as i64;
        let late = (self.sealed - at).clamp(0, len) as usize;
        let (start, end) = (at + late as i64, at + len);
        if start == end {
            return Written { late, ..Written::default() };
        }
        let astray = !self.make_room(end);
        if astray || self.spans.len() >= MAX_SPANS {
            return Written { late, refused: !astray, astray };
        }
        let span = Span { start, end, first: origin, last: origin, packet_len: len, concealed: false, reported: false };
        match self.spans.back_mut() {
            Some(back) if back.end == start && back.last.stream == origin.stream => {
                back.end = end;
                back.last = origin;
                self.receive(at, start..end, &decode);
            }
            Some(back) if back.end > start => self.write_between(at, span, &decode),
            _ => {
                self.receive(at, start..end, &decode);
                self.spans.push_back(span);
            }
        }
        Written { late, ..Written::default() }
    }

    /// A part of the packet at `at` to its place.
    fn receive(&mut self, at: i64, part: Range<i64>, decode: &impl Fn(usize, &mut [i16])) {
        let (a, b) = self.received.slices_mut(part.start, (part.end - part.start) as usize);
        let first = (part.start - at) as usize;
        decode(first, a);
        if !b.is_empty() {
            decode(first + a.len(), b);
        }
    }

    /// The slow way of [`Track::write`]: only where nothing is yet.
    fn write_between(&mut self, at: i64, span: Span, decode: &impl Fn(usize, &mut [i16])) {
        let mut cursor = span.start;
        let mut i = self.spans.partition_point(|s| s.end <= cursor);
        while cursor < span.end {
            if let Some(next) = self.spans.get(i)
                && next.start <= cursor
            {
                cursor = cursor.max(next.end);
                i += 1;
                continue;
            }
            let stop = self.spans.get(i).map_or(span.end, |next| next.start.min(span.end));
            self.receive(at, cursor..stop, decode);
            self.spans.insert(i, Span { start: cursor, end: stop, ..span });
            i += 1;
            cursor = stop;
        }
        let mut i = 1;
        while i < self.spans.len() {
            let (left, right) = (self.spans[i - 1], self.spans[i]);
            if left.end == right.start && left.last.stream == right.first.stream {
                self.spans[i - 1] = Span { end: right.end, last: right.last, ..left };
                self.spans.remove(i);
            } else {
                i += 1;
            }
        }
    }

    /// Whether stream positions up to `end` fit into the first ring, which grows when it must.
    fn make_room(&mut self, end: i64) -> bool {
        let from = self.sealed - history(self.rate);
        if end - from > i64::from(self.rate) * MAX_RING_MS / 1_000 {
            return false;
        }
        while end - from > self.received.capacity() as i64 {
            self.received.grow(from, from + self.received.capacity() as i64);
        }
        true
    }

    /// Seals everything up to a local position, in whole quanta. `keep_from` is the first local position that a session
    /// has yet to read; `missing` counts packets between two of one stream that never came.
    pub fn advance(&mut self, until: i64, keep_from: i64, missing: impl Fn(Origin, Origin) -> u64, stretch: &Stretch) {
        let quantum = quantum(self.rate);
        let mut left = (until - self.end) / quantum;
        let first = self.start;
        while left > 0 {
            // A part of either ring at a time, so that a long advance cannot overrun one.
            let most = (self.output.capacity() as i64 / 2).min(self.received.capacity() as i64 / 4) / quantum;
            let quanta = if self.error().is_some() { 1 } else { left.min(most) };
            self.make_output_room(quanta * quantum, keep_from);
            self.seal(quanta * quantum, &missing, stretch);
            if self.start > keep_from.max(first) {
                self.overrun = self.start;
            }
            left -= quanta;
        }
    }

    fn make_output_room(&mut self, len: i64, keep_from: i64) {
        let needed = self.end + len - keep_from.clamp(self.start, self.end);
        let limit = i64::from(self.rate) * MAX_RING_MS / 1_000;
        while needed > self.output.capacity() as i64 && (self.output.capacity() as i64) < limit {
            self.output.grow(self.start.max(self.end - self.output.capacity() as i64), self.end);
        }
    }

    /// What the shift is wrong by, when it is more than may be left alone.
    fn error(&self) -> Option<f64> {
        let error = self.wanted? - self.shift as f64;
        let tolerated = if self.stretching { 1.0 } else { tenth_ms(self.rate, TOLERATED_TENTH_MS) as f64 };
        (error.abs() >= tolerated).then_some(error)
    }

    /// Seals `len` local positions.
    fn seal(&mut self, len: i64, missing: &impl Fn(Origin, Origin) -> u64, stretch: &Stretch) {
        let before = self.sealed;
        self.conceal(before + 2 * len + Stretch::CONTEXT as i64, missing);
        match self.error() {
            None => {
                self.stretching = false;
                self.copy(len);
            }
            Some(error) => self.correct(error, len, stretch),
        }
        self.start = self.start.max(self.end - self.output.capacity() as i64);
        self.retire(missing);
        let history = history(self.rate);
        self.received.clear(before - history, self.sealed - history);
    }

    /// Moves the shift towards what is wanted while giving `len` local positions.
    fn correct(&mut self, error: f64, len: i64, stretch: &Stretch) {
        let wanted = (error.round() as i64).clamp(-len / 2, len / 2);
        if let Some((silence, run)) = self.find_silence(len, wanted.abs() + 2 * SILENCE_MARGIN) {
            let kept = silence + SILENCE_MARGIN;
            self.copy(kept);
            if wanted > 0 {
                let inserted = wanted.min(len - kept);
                self.output.clear(self.end, self.end + inserted);
                self.end += inserted;
                self.shift += inserted;
                self.copy(len - kept - inserted);
            } else {
                let cut = (-wanted).min(run - 2 * SILENCE_MARGIN);
                self.sealed += cut;
                self.shift -= cut;
                self.copy(len - kept);
            }
            return;
        }
        self.stretching |= error.abs() >= tenth_ms(self.rate, STRETCHED_TENTH_MS) as f64;
        let step = len / STRETCH_RATIO;
        if !self.stretching || step == 0 || wanted == 0 {
            self.copy(len);
            return;
        }
        let added = wanted.clamp(-step, step);
        let context = Stretch::CONTEXT as i64;
        // Both fit: a quantum of 48,000 Hz is 1,200 samples.
        let (mut taken, mut given) = ([0_i16; 1_300], [0_i16; 1_250]);
        let taken = &mut taken[..(len - added + 2 * context) as usize];
        let given = &mut given[..len as usize];
        self.received.read(self.sealed - context, taken);
        stretch.run(taken, given);
        self.output.write(self.end, given);
        self.end += len;
        self.sealed += len - added;
        self.shift += added;
    }

    /// The longest run of silence within the next `len` stream positions: offset and length, no longer than `enough`.
    fn find_silence(&self, len: i64, enough: i64) -> Option<(i64, i64)> {
        let (a, b) = self.received.slices(self.sealed, len as usize);
        // A run of more than two margins covers two neighbours of those one margin apart: in speech this is all there is
        // to look at.
        let mut sparse = a.iter().chain(b).step_by(SILENCE_MARGIN as usize).map(|s| s.unsigned_abs() <= SILENCE);
        let mut last = false;
        if !sparse.any(|quiet| std::mem::replace(&mut last, quiet) && quiet) {
            return None;
        }
        let (mut quiet, mut best) = (0, (0, 2 * SILENCE_MARGIN));
        for (i, sample) in a.iter().chain(b).enumerate() {
            quiet = if sample.unsigned_abs() <= SILENCE { quiet + 1 } else { 0 };
            if quiet > best.1 {
                best = (i as i64 + 1 - quiet, quiet);
                if quiet >= enough {
                    break;
                }
            }
        }
        (best.1 > 2 * SILENCE_MARGIN).then_some(best)
    }

    /// Gives stream positions as they are.
    fn copy(&mut self, len: i64) {
        let (a, b) = self.received.slices(self.sealed, len as usize);
        self.output.write(self.end, a);
        self.output.write(self.end + a.len() as i64, b);
        self.sealed += len;
        self.end += len;
    }

    /// Conceals the holes that begin before a stream position.
    fn conceal(&mut self, until: i64, missing: &impl Fn(Origin, Origin) -> u64) {
        for i in 0..self.spans.len() {
            let before = if i == 0 { self.edge } else { Some((self.spans[i - 1].end, self.spans[i - 1].last)) };
            let Some((end, last)) = before else {
                self.spans[i].concealed = true;
                continue;
            };
            if end >= until {
                break;
            }
            let span = self.spans[i];
            if span.concealed {
                continue;
            }
            self.spans[i].concealed = true;
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
        self.received.write(at, hole);
        self.concealed += len as u64;
    }

    /// Forgets spans that are sealed, reports the holes between them.
    fn retire(&mut self, missing: &impl Fn(Origin, Origin) -> u64) {
        while let Some(span) = self.spans.front_mut() {
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
            self.spans.pop_front();
        }
    }

    /// Adds what was said from a local position on to a sum. Outside of what can be read it is silence.
    pub fn add_to(&self, at: i64, total: &mut [i32]) {
        let Some((skip, len)) = self.readable(at, total.len()) else { return };
        let (a, b) = self.output.slices(at + skip as i64, len);
        sum::add(a, &mut total[skip..]);
        sum::add(b, &mut total[skip + a.len()..]);
    }

    /// Copies what was said from a local position on. Outside of what can be read it is silence.
    pub fn read(&self, at: i64, samples: &mut [i16]) {
        let Some((skip, len)) = self.readable(at, samples.len()) else {
            samples.fill(0);
            return;
        };
        samples[..skip].fill(0);
        samples[skip + len..].fill(0);
        self.output.read(at + skip as i64, &mut samples[skip..skip + len]);
    }

    fn readable(&self, at: i64, len: usize) -> Option<(usize, usize)> {
        let from = at.max(self.start);
        let to = (at + len as i64).min(self.end);
        (from < to).then(|| ((from - at) as usize, (to - from) as usize))
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

/// Samples of [`QUANTUM_MS`].
pub fn quantum(rate: u32) -> i64 {
    i64::from(rate) * QUANTUM_MS / 1_000
}

fn history(rate: u32) -> i64 {
    i64::from(rate) * conceal::HISTORY_MS / 1_000
}

fn tenth_ms(rate: u32, tenths: i64) -> i64 {
    i64::from(rate) * tenths / 10_000
}

fn samples(rate: u32, ms: i64) -> usize {
    (i64::from(rate) * ms / 1_000) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(sequence: i64) -> Origin {
        Origin { stream: 0, sequence }
    }

    /// A track at 8,000 Hz and packets of 160 loud samples with known values.
    fn packet(n: i64) -> Vec<i16> {
        (0..160).map(|i| (1_000 + (n * 160 + i) % 20_000) as i16).collect()
    }

    fn none(_: Origin, _: Origin) -> u64 {
        0
    }

    fn by_sequence(a: Origin, b: Origin) -> u64 {
        (b.sequence - a.sequence - 1).max(0) as u64
    }

    fn read(track: &Track, at: i64, len: usize) -> Vec<i16> {
        let mut samples = vec![7; len];
        track.read(at, &mut samples);
        samples
    }

    fn write(track: &mut Track, at: i64, samples: &[i16], origin: Origin) -> Written {
        let part = |first: usize, to: &mut [i16]| to.copy_from_slice(&samples[first..first + to.len()]);
        track.write(at, samples.len(), origin, part)
    }

    #[test]
    fn packets_in_any_order_and_twice_give_the_same_samples() {
        let mut track = Track::new(8_000, 0);
        for n in [0, 2, 1, 1, 4, 3, 0, 5] {
            assert_eq!(write(&mut track, n * 160, &packet(n), origin(n)), Written::default());
        }
        track.advance(800, 0, by_sequence, &Stretch::new());
        assert_eq!(read(&track, 0, 800), (0..5).flat_map(packet).collect::<Vec<_>>());
        assert_eq!(track.take_losses().count(), 0);
        assert_eq!(track.concealed(), 0);
    }

    #[test]
    fn a_lost_packet_is_concealed_and_reported_with_its_exact_samples() {
        let mut track = Track::new(8_000, 0);
        for n in [0, 1, 3, 4, 5] {
            write(&mut track, n * 160, &packet(n), origin(n));
        }
        track.advance(960, 0, by_sequence, &Stretch::new());
        assert_eq!(track.take_losses().collect::<Vec<_>>(), [Loss { start: 320, end: 480 }]);
        assert_eq!(track.concealed(), 160);
        assert!(read(&track, 320, 160).iter().any(|s| *s != 0));
        assert_eq!(read(&track, 480, 160), packet(3));
    }

    #[test]
    fn a_concealed_packet_joins_both_neighbours_without_a_step() {
        let tone = |i: i64| (8_000.0 * (std::f64::consts::TAU * 200.0 * i as f64 / 8_000.0).cos()) as i16;
        let mut track = Track::new(8_000, 0);
        for n in [0, 1, 2, 4, 5] {
            let samples: Vec<i16> = (0..160).map(|i| tone(n * 160 + i)).collect();
            write(&mut track, n * 160, &samples, origin(n));
        }
        track.advance(960, 0, by_sequence, &Stretch::new());
        let samples = read(&track, 0, 800);
        let steepest = samples.windows(2).map(|w| (w[1] - w[0]).abs()).max().unwrap();
        assert!(steepest < 1_600, "{steepest}");
        let quietest = samples[480..640].chunks(40).map(|c| c.iter().map(|s| s.abs()).max().unwrap()).min().unwrap();
        assert!(quietest > 4_000, "{quietest}");
    }

    #[test]
    fn of_a_long_loss_60_ms_are_concealed_and_the_rest_is_silence() {
        let mut track = Track::new(8_000, 0);
        write(&mut track, 0, &packet(0), origin(0));
        write(&mut track, 160, &packet(1), origin(1));
        write(&mut track, 1_600, &packet(10), origin(10));
        track.advance(2_000, 0, by_sequence, &Stretch::new());
        assert_eq!(track.take_losses().collect::<Vec<_>>(), [Loss { start: 320, end: 1_600 }]);
        assert_eq!(track.concealed(), 480);
        assert!(read(&track, 800, 800).iter().all(|s| *s == 0));
        assert_eq!(read(&track, 1_600, 160), packet(10));
    }

    #[test]
    fn suppressed_silence_is_no_loss() {
        let mut track = Track::new(8_000, 0);
        write(&mut track, 0, &packet(0), origin(0));
        write(&mut track, 1_600, &packet(1), origin(1));
        track.advance(2_000, 0, by_sequence, &Stretch::new());
        assert_eq!((track.take_losses().count(), track.concealed()), (0, 0));
        assert!(read(&track, 160, 1_440).iter().all(|s| *s == 0));
    }

    #[test]
    fn what_comes_after_sealing_is_late_sample_by_sample() {
        let mut track = Track::new(8_000, 0);
        track.advance(400, 0, none, &Stretch::new());
        assert_eq!(write(&mut track, 0, &packet(0), origin(0)), Written { late: 160, ..Written::default() });
        assert_eq!(write(&mut track, 320, &packet(2), origin(2)), Written { late: 80, ..Written::default() });
        track.advance(600, 0, none, &Stretch::new());
        assert_eq!(read(&track, 400, 80), packet(2)[80..]);
        assert!(read(&track, 0, 400).iter().all(|s| *s == 0));
    }

    #[test]
    fn a_place_far_ahead_is_refused_and_one_within_reach_grows_the_ring() {
        let mut track = Track::new(8_000, 0);
        assert!(write(&mut track, 80_000, &packet(1), origin(1)).astray);
        assert_eq!(write(&mut track, 40_000, &packet(0), origin(0)), Written::default());
        track.advance(41_000, 40_000, none, &Stretch::new());
        assert_eq!(read(&track, 40_000, 160), packet(0));
    }

    #[test]
    fn a_wrong_shift_is_corrected_at_once_where_there_is_silence() {
        for wanted in [-50, 50] {
            let mut track = Track::new(8_000, 0);
            write(&mut track, 0, &packet(0), origin(0));
            write(&mut track, 600, &packet(1), origin(1));
            track.want_shift(f64::from(wanted));
            track.advance(1_200, 0, none, &Stretch::new());
            assert_eq!(track.shift(), i64::from(wanted));
            assert_eq!(read(&track, 0, 160), packet(0));
            assert_eq!(read(&track, 600 + i64::from(wanted), 160), packet(1));
        }
    }

    #[test]
    fn in_speech_it_is_stretched_away_without_a_click_and_then_copied_again() {
        let tone = |i: i64| (8_000.0 * (std::f64::consts::TAU * 400.0 * i as f64 / 8_000.0).sin()) as i16;
        for wanted in [-40_i64, 40] {
            let mut track = Track::new(8_000, 0);
            let mut output = Vec::new();
            track.want_shift(wanted as f64);
            for n in 0..150 {
                let samples: Vec<i16> = (0..160).map(|i| tone(n * 160 + i)).collect();
                write(&mut track, n * 160, &samples, origin(n));
                let end = track.end();
                track.advance((n - 4) * 160, end, none, &Stretch::new());
                output.extend(read(&track, end, (track.end() - end) as usize));
            }
            assert_eq!(track.shift(), wanted);
            let steepest = output.windows(2).map(|w| (w[1] - w[0]).abs()).max().unwrap();
            assert!(steepest < 2_600, "{steepest}");
            let last = output.len() as i64;
            for g in last - 2_000..last {
                assert_eq!(output[g as usize], tone(g - wanted));
            }
        }
    }

    #[test]
    fn small_errors_leave_every_sample_as_it_is() {
        let mut track = Track::new(8_000, 0);
        for n in 0..40 {
            write(&mut track, n * 160, &packet(n), origin(n));
        }
        track.want_shift(7.9);
        track.advance(6_400, 0, none, &Stretch::new());
        assert_eq!(read(&track, 0, 6_400), (0..40).flat_map(packet).collect::<Vec<_>>());
    }

    #[test]
    fn what_no_session_has_read_is_kept_up_to_8_seconds() {
        let mut track = Track::new(8_000, 0);
        write(&mut track, 0, &packet(0), origin(0));
        track.advance(40_000, 0, none, &Stretch::new());
        assert_eq!(read(&track, 0, 160), packet(0));
        track.advance(200_000, 0, none, &Stretch::new());
        assert!(track.start() > 0);
        assert!(read(&track, 0, 160).iter().all(|s| *s == 0));
    }

    #[test]
    fn a_steady_stream_never_grows_its_rings() {
        let mut track = Track::new(8_000, 0);
        for n in 0..500 {
            write(&mut track, n * 160, &packet(n), origin(n));
            // Sealed once in 250 ms, at an age of 545 ms; read another 250 ms later.
            if n % 13 == 12 {
                let sealed = n * 160 - 545 * 8;
                track.advance(sealed, sealed - 2_000, by_sequence, &Stretch::new());
            }
        }
        assert_eq!((track.received.capacity(), track.output.capacity()), (7_200, 2_560));
    }
}
