//! One leg's samples at one audio rate, on the local clock's grid: sample g was spoken at g / rate after the epoch.
//!
//! Packets are written to a ring by *stream position*, which counts the sender's samples. In steps of 25 ms the part that can
//! no longer change is *sealed*: holes are concealed, and any number of sessions read it by *local position*, which is the
//! stream position + shift. The shift follows the sender's clock: by a jump where there is silence, else by stretching 25 ms
//! by one sample in two hundred, else not at all, and then every sample is read bit for bit where its packet was written.
//! From a change of the shift until every session is past it, what is sealed goes to a second ring, by local position.

use std::ops::Range;

use super::conceal;
use super::samples::Samples;
use super::spans::{Span, Spans};
use super::store::Store;
use super::stream::Coding;
use crate::audio::mix;
use crate::audio::resample::Stretch;

mod losses;
mod shift;

/// Sealed at a time, in ms.
pub const QUANTUM_MS: i64 = 25;

/// What the first ring holds, in ms: what is not sealed (545 at a commit, 250 more at the next one, of which the sessions
/// have yet to read as much), and history.
const RECEIVED_MS: i64 = 900;

/// What the second one holds: what one commit seals, a little late, and what the resampler looks at besides.
const OUTPUT_MS: i64 = 320;

/// Sealed in one go.
const MAX_QUANTA: i64 = RECEIVED_MS / 4 / QUANTUM_MS;

/// Samples are kept as samples for so long after the last thing that needs it: loss seldom comes alone.
const LINEAR_MS: i64 = 3_000;

/// Longest stretch that either ring grows to hold, when a thread is late or a place lies far ahead, in ms.
const MAX_RING_MS: i64 = 8_000;

/// Ranges of received samples that are kept apart. A stream that leaves more holes than this in a second is not speech.
const MAX_SPANS: usize = 256;

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

/// What was sealed around changes of the shift, by local position.
#[derive(Debug)]
struct Shifted {
    samples: Samples,
    /// From here on samples are also where their packets were written, at the present shift.
    until: i64,
}

/// See the module.
#[derive(Debug)]
pub struct Track {
    rate: u32,
    received: Store,
    spans: Spans,
    /// First stream position that is not sealed.
    sealed: i64,
    /// First stream position that `received` still has.
    kept: i64,
    /// Holes before this stream position are silent in `received`; beyond it they hold what was there a lap ago.
    cleared: i64,
    /// Stream position from which on bytes would do.
    linear_until: i64,
    /// End of the last span that is sealed to its end, and its last packet.
    edge: Option<(i64, Origin)>,
    shift: i64,
    /// The shift that the active stream asks for.
    wanted: Option<f64>,
    stretching: bool,
    shifted: Option<Box<Shifted>>,
    /// First local position that a session may have yet to read.
    unread: i64,
    /// One past the last local position that can be read.
    end: i64,
    /// Nothing before this local position can be read.
    start: i64,
    /// Samples before this one were overwritten before every session had read them.
    overrun: i64,
    losses: Vec<Loss>,
    concealed: u64,
}

impl Track {
    /// A track whose first local position is at or before `from` (a multiple of the quantum), and whose first packet comes in
    /// this coding.
    pub fn new(rate: u32, from: i64, coding: Coding) -> Self {
        let from = from - from.rem_euclid(quantum(rate));
        Self {
            rate,
            received: Store::new(samples(rate, RECEIVED_MS), coding),
            spans: Spans::default(),
            sealed: from,
            kept: from - history(rate),
            cleared: from,
            linear_until: from,
            edge: None,
            shift: 0,
            wanted: None,
            stretching: false,
            shifted: None,
            unread: from,
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
        let held = match &self.shifted {
            Some(shifted) => self.end - shifted.samples.capacity() as i64,
            None => self.kept + self.shift,
        };
        self.start.max(held)
    }

    /// Samples before this local position may have gone unread: a session was more than eight seconds late.
    pub fn overrun(&self) -> i64 {
        self.overrun
    }

    /// Every session has read everything before this local position.
    pub fn have_read(&mut self, unread: i64) {
        self.unread = self.unread.max(unread);
    }

    /// Samples that were concealed so far.
    pub fn concealed(&self) -> u64 {
        self.concealed
    }

    /// Takes what was lost since the last call.
    pub fn take_losses(&mut self) -> std::vec::Drain<'_, Loss> {
        self.losses.drain(..)
    }

    /// Writes a packet's first `len` samples at a stream position. What is already there stays.
    pub fn write(&mut self, at: i64, len: usize, origin: Origin, coding: Coding, payload: &[u8]) -> Written {
        let len = len as i64;
        let late = (self.sealed - at).clamp(0, len) as usize;
        let (start, end) = (at + late as i64, at + len);
        if start == end {
            return Written { late, ..Written::default() };
        }
        let astray = !self.make_room(end);
        if astray || self.spans.count() >= MAX_SPANS {
            return Written { late, refused: !astray, astray };
        }
        let span = Span {
            start,
            end,
            first: origin,
            last: origin,
            packet_len: len,
            coding,
            alike_from: start,
            concealed: false,
            reported: false,
        };
        match self.spans.last_mut() {
            Some(last) if last.end == start && last.last.stream == origin.stream => {
                last.end = end;
                last.last = origin;
                if last.coding != coding {
                    (last.coding, last.alike_from) = (coding, start);
                }
                self.receive(at, start..end, coding, payload);
            }
            Some(last) if last.end > start => self.write_between(at, span, coding, payload),
            _ => {
                self.receive(at, start..end, coding, payload);
                self.spans.push(span);
            }
        }
        Written { late, ..Written::default() }
    }

    /// How many packets of `len` samples may follow by [`Track::append`] on a packet of this origin that ends at this stream
    /// position: none when something else came there, or when they would have no room.
    pub fn room_behind(&self, end: i64, origin: Origin, coding: Coding, len: i64) -> i64 {
        let goes_on = |last: &&Span| last.end == end && last.last == origin && last.coding == coding;
        if self.spans.last().filter(goes_on).is_none() || end < self.sealed {
            return 0;
        }
        (self.needed() + self.received.capacity() as i64 - end) / len.max(1)
    }

    /// Writes the samples of a packet for which there was [`Track::room_behind`] another. They count when it is told to
    /// [`Track::appended`].
    pub fn append(&mut self, at: i64, len: usize, coding: Coding, payload: &[u8]) {
        self.received.take(at, len, coding, payload, 0);
    }

    /// So many samples have been appended, the last of them by this packet.
    pub fn appended(&mut self, samples: i64, origin: Origin) {
        if let Some(last) = self.spans.last_mut() {
            last.end += samples;
            last.last = origin;
            self.kept = self.kept.max(last.end - self.received.capacity() as i64);
        }
    }

    /// A part of the packet at `at` to its place.
    fn receive(&mut self, at: i64, part: Range<i64>, coding: Coding, payload: &[u8]) {
        self.received.take(part.start, (part.end - part.start) as usize, coding, payload, (part.start - at) as usize);
    }

    /// The slow way of [`Track::write`]: only where nothing is yet.
    fn write_between(&mut self, at: i64, span: Span, coding: Coding, payload: &[u8]) {
        let mut cursor = span.start;
        let mut i = self.spans.after(cursor);
        while cursor < span.end {
            if let Some(next) = self.spans.get(i)
                && next.start <= cursor
            {
                cursor = cursor.max(next.end);
                i += 1;
                continue;
            }
            let stop = self.spans.get(i).map_or(span.end, |next| next.start.min(span.end));
            self.receive(at, cursor..stop, coding, payload);
            self.spans.insert(i, Span { start: cursor, end: stop, ..span });
            i += 1;
            cursor = stop;
        }
        self.spans.merge(|left, right| left.end == right.start && left.last.stream == right.first.stream);
    }

    /// First stream position that somebody may still ask for.
    fn needed(&self) -> i64 {
        let history = self.sealed - history(self.rate);
        if self.shifted.is_some() { history } else { history.min(self.unread - self.shift) }
    }

    /// Whether stream positions up to `end` fit into the first ring, which grows when it must.
    fn make_room(&mut self, end: i64) -> bool {
        let longest = samples(self.rate, MAX_RING_MS) as i64;
        if end - (self.sealed - history(self.rate)) > longest {
            return false;
        }
        if end - self.kept > self.received.capacity() as i64 {
            let needed = self.needed().max(end - longest);
            while end - needed > self.received.capacity() as i64 {
                let capacity = (2 * self.received.capacity()).min(longest as usize);
                self.received.grow(self.kept, capacity);
            }
            self.kept = self.kept.max(end - self.received.capacity() as i64);
        }
        true
    }

    /// Makes holes silent up to a stream position.
    fn clear_holes(&mut self, until: i64) {
        if until <= self.cleared {
            return;
        }
        self.make_room(until);
        let mut from = self.cleared;
        for i in self.spans.after(from)..self.spans.count() {
            let Some(span) = self.spans.get(i).filter(|span| span.start < until) else { break };
            let (start, end) = (span.start, span.end);
            if from < start {
                self.received.clear(from, start);
            }
            from = from.max(end);
        }
        if from < until {
            self.received.clear(from, until);
        }
        self.cleared = until;
    }

    /// Seals everything up to a local position, in whole quanta. `unread` is the first local position that a session has yet
    /// to read; `missing` counts packets between two of one stream that never came.
    pub fn advance(&mut self, until: i64, unread: i64, missing: impl Fn(Origin, Origin) -> u64, stretch: &Stretch) {
        let quantum = quantum(self.rate);
        let mut left = (until - self.end) / quantum;
        let first = self.start;
        self.unread = unread.max(self.start());
        self.read_where_written();
        while left > 0 {
            // A part of the ring at a time, so that a long advance cannot overrun it.
            let quanta = if self.error().is_some() { 1 } else { left.min(MAX_QUANTA) };
            if self.shifted.is_some() {
                self.keep_apart(quanta * quantum);
            }
            self.seal(quanta * quantum, &missing, stretch);
            left -= quanta;
        }
        self.start = self.start();
        if self.start > unread.max(first) {
            self.overrun = self.start;
        }
        self.compact();
    }

    /// Stream positions as samples, piece by piece.
    fn pass(&self, part: Range<i64>, mut give: impl FnMut(i64, &[i16])) {
        let mut piece = [0; 512];
        let mut at = part.start;
        while at < part.end {
            let piece = &mut piece[..(part.end - at).min(512) as usize];
            self.received.read(at, piece);
            give(at, piece);
            at += piece.len() as i64;
        }
    }

    /// Bytes instead of samples, and no more room than usual, as soon as that holds all that is needed.
    fn compact(&mut self) {
        let capacity = samples(self.rate, RECEIVED_MS);
        let excessive = self.received.is_linear() || self.received.capacity() > capacity;
        if !excessive || self.sealed < self.linear_until {
            return;
        }
        let Some(span) = self.spans.last().filter(|_| self.spans.count() == 1) else { return };
        let (law, needed, end) = (span.coding, self.needed(), span.end);
        if law == Coding::Linear || span.alike_from > needed || end < self.cleared || end - needed > capacity as i64 {
            return;
        }
        let from = self.kept.max(span.alike_from).max(end - capacity as i64);
        self.received.compact(law, capacity, from, end);
        self.kept = from;
    }

    /// Seals `len` local positions.
    fn seal(&mut self, len: i64, missing: &impl Fn(Origin, Origin) -> u64, stretch: &Stretch) {
        let ahead = self.sealed + 2 * len + Stretch::CONTEXT as i64;
        self.clear_holes(ahead);
        self.conceal(ahead, missing);
        match self.error() {
            None => {
                self.stretching = false;
                self.copy(len);
            }
            Some(error) => self.correct(error, len, stretch),
        }
        self.retire(missing);
    }

    /// Copies what was said from a local position on. Outside of what can be read it is silence.
    pub fn read(&self, at: i64, samples: &mut [i16]) {
        let Some((at, samples)) = self.readable(at, samples) else { return };
        match &self.shifted {
            None => self.received.read(at - self.shift, samples),
            Some(shifted) => shifted.samples.read(at, samples),
        }
    }

    /// As [`Track::read`], and gives the largest magnitude.
    pub fn read_loudest(&self, at: i64, samples: &mut [i16]) -> u16 {
        let Some((at, samples)) = self.readable(at, samples) else { return 0 };
        match &self.shifted {
            None => self.received.read_loudest(at - self.shift, samples),
            Some(shifted) => {
                shifted.samples.read(at, samples);
                mix::loudest(samples)
            }
        }
    }

    /// Those that can be read of the samples from `at` on, and where they begin; the others become silence.
    fn readable<'a>(&self, at: i64, samples: &'a mut [i16]) -> Option<(i64, &'a mut [i16])> {
        let from = at.max(self.start());
        let to = (at + samples.len() as i64).min(self.end);
        if from >= to {
            samples.fill(0);
            return None;
        }
        let (before, rest) = samples.split_at_mut((from - at) as usize);
        let (readable, behind) = rest.split_at_mut((to - from) as usize);
        before.fill(0);
        behind.fill(0);
        Some((from, readable))
    }
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
        let payload: Vec<u8> = samples.iter().flat_map(|sample| sample.to_be_bytes()).collect();
        track.write(at, samples.len(), origin, Coding::Linear, &payload)
    }

    #[test]
    fn packets_in_any_order_and_twice_give_the_same_samples() {
        let mut track = Track::new(8_000, 0, Coding::Linear);
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
        let mut track = Track::new(8_000, 0, Coding::Linear);
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
        let mut track = Track::new(8_000, 0, Coding::Linear);
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
        let mut track = Track::new(8_000, 0, Coding::Linear);
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
        let mut track = Track::new(8_000, 0, Coding::Linear);
        write(&mut track, 0, &packet(0), origin(0));
        write(&mut track, 1_600, &packet(1), origin(1));
        track.advance(2_000, 0, by_sequence, &Stretch::new());
        assert_eq!((track.take_losses().count(), track.concealed()), (0, 0));
        assert!(read(&track, 160, 1_440).iter().all(|s| *s == 0));
    }

    #[test]
    fn what_comes_after_sealing_is_late_sample_by_sample() {
        let mut track = Track::new(8_000, 0, Coding::Linear);
        track.advance(400, 0, none, &Stretch::new());
        assert_eq!(write(&mut track, 0, &packet(0), origin(0)), Written { late: 160, ..Written::default() });
        assert_eq!(write(&mut track, 320, &packet(2), origin(2)), Written { late: 80, ..Written::default() });
        track.advance(600, 0, none, &Stretch::new());
        assert_eq!(read(&track, 400, 80), packet(2)[80..]);
        assert!(read(&track, 0, 400).iter().all(|s| *s == 0));
    }

    #[test]
    fn a_place_far_ahead_is_refused_and_one_within_reach_grows_the_ring() {
        let mut track = Track::new(8_000, 0, Coding::Linear);
        assert!(write(&mut track, 80_000, &packet(1), origin(1)).astray);
        assert_eq!(write(&mut track, 40_000, &packet(0), origin(0)), Written::default());
        track.advance(41_000, 40_000, none, &Stretch::new());
        assert_eq!(read(&track, 40_000, 160), packet(0));
    }

    #[test]
    fn before_and_behind_what_can_be_read_there_is_silence() {
        let mut track = Track::new(8_000, 0, Coding::Linear);
        for n in 0..5 {
            write(&mut track, n * 160, &packet(n), origin(n));
        }
        track.advance(400, 0, none, &Stretch::new());
        let said: Vec<i16> = (0..3).flat_map(packet).take(400).collect();
        assert_eq!(read(&track, -40, 470), [&[0; 40], &said[..], &[0; 30]].concat());
        assert_eq!(read(&track, 400, 30), [0; 30]);
    }

    #[test]
    fn the_loudest_sample_is_told_before_and_after_the_shift_has_changed() {
        for wanted in [0, 50] {
            let mut track = Track::new(8_000, 0, Coding::Linear);
            write(&mut track, 0, &packet(0), origin(0));
            write(&mut track, 600, &packet(1), origin(1));
            track.want_shift(wanted as f64);
            track.advance(1_200, 0, none, &Stretch::new());
            assert_eq!((track.shift(), track.shifted.is_some()), (wanted, wanted > 0));
            let mut samples = vec![7; 160];
            assert_eq!(track.read_loudest(600 + wanted, &mut samples), mix::loudest(&packet(1)));
            assert_eq!(samples, packet(1));
        }
    }

    #[test]
    fn a_wrong_shift_is_corrected_at_once_where_there_is_silence() {
        for wanted in [-50, 50] {
            let mut track = Track::new(8_000, 0, Coding::Linear);
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
            let mut track = Track::new(8_000, 0, Coding::Linear);
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
        let mut track = Track::new(8_000, 0, Coding::Linear);
        for n in 0..40 {
            write(&mut track, n * 160, &packet(n), origin(n));
        }
        track.want_shift(7.9);
        track.advance(6_400, 0, none, &Stretch::new());
        assert_eq!(read(&track, 0, 6_400), (0..40).flat_map(packet).collect::<Vec<_>>());
    }

    #[test]
    fn what_no_session_has_read_is_kept_up_to_8_seconds() {
        let mut track = Track::new(8_000, 0, Coding::Linear);
        write(&mut track, 0, &packet(0), origin(0));
        track.advance(40_000, 0, none, &Stretch::new());
        assert_eq!(read(&track, 0, 160), packet(0));
        track.advance(200_000, 0, none, &Stretch::new());
        assert!(track.start() > 0);
        assert!(read(&track, 0, 160).iter().all(|s| *s == 0));
    }

    #[test]
    fn a_steady_stream_never_grows_its_rings() {
        let mut track = Track::new(8_000, 0, Coding::Linear);
        for n in 0..500 {
            write(&mut track, n * 160, &packet(n), origin(n));
            // Sealed once in 250 ms, at an age of 545 ms, and then read.
            if n % 13 == 12 {
                let sealed = n * 160 - 545 * 8;
                track.advance(sealed, sealed - 2_000, by_sequence, &Stretch::new());
                track.have_read(sealed - 32);
            }
        }
        assert_eq!((track.received.capacity(), track.shifted.is_none()), (7_200, true));
    }
}
