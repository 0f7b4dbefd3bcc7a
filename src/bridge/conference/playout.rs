//! The playout buffer of one leg: packets in as they come, 20 ms of samples out at every tick.
//!
//! Samples stand in a ring by RTP timestamp; `play` is the next one to be heard. What is missing when its time comes is
//! concealed, what comes too late is dropped. The delay follows the *slack*: how long before its own tick the latest
//! packet of the last seconds came. Too little, and the signal is stretched by a pitch period; too much, and it is
//! shortened by one. A sender whose clock is fast or slow moves its slack steadily, so clock skew is followed by the
//! same rule. In silence any number of samples is skipped or put in.

use super::spans::Spans;
use crate::audio::coding::Coding;
use crate::audio::conceal::{self, Concealer};
use crate::audio::{mix, pitch};
use crate::rtp::seq::TimestampExtender;

/// Longest delay: what waits beyond it is skipped.
pub const MAX_DELAY_MS: i64 = 200;
/// Longest packet that is taken.
const MAX_PACKET_MS: i64 = 200;
/// The ring holds this much: what is heard next, a packet beyond the longest delay, and history for concealment.
const RING_MS: i64 = 512;
const _: () = assert!(MAX_DELAY_MS + MAX_PACKET_MS + 80 < RING_MS, "history survives the longest delay");
/// A timestamp farther away than this belongs to another stream of the same source.
const JUMP_MS: i64 = 1_500;
/// After so long without anything, what comes next begins anew.
const PAUSE_MS: i64 = 80;
/// Packets remembered by where they began.
const RECENT: usize = 16;

/// The least slack is kept at or above the first, and is brought to the second.
const LOW_MS: i64 = 1;
const AIM_MS: i64 = 6;
/// Above this for all of the window, the delay is taken back. A frame above the aim, so that ticks and packets which
/// meet each other at any phase are left alone.
const HIGH_MS: i64 = AIM_MS + 22;
/// The slack's least is of so many parts of so many ticks each: 4 s.
const PARTS: usize = 8;
const PART_TICKS: u32 = 25;
/// Ticks between two stretches; the pitch search costs more than all the rest.
const REST_TICKS: u32 = 5;
/// Quieter than this, samples may be left out anywhere.
const QUIET: u16 = 40;
/// Samples of the longest frame: 20 ms at 16,000 Hz.
const MAX_FRAME: usize = 320;
/// Scratch for a frame that is stretched, with a period before and behind it.
const SCRATCH: usize = MAX_FRAME + 2 * pitch::longest(16_000) + pitch::reach(16_000);

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It will be heard, at least in part.
    Kept,
    /// Too late, or there already.
    Late,
    /// No place for it.
    Overflow,
}

/// What a frame is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Made {
    /// Something may be heard; otherwise every sample is 0.
    pub sound: bool,
    /// Something in it was lost and concealed.
    pub concealed: bool,
    /// It was stretched or shortened.
    pub stretched: bool,
    /// It was not copied, and stands here.
    pub kept: Option<usize>,
    /// Its largest magnitude, when it is a packet as it came.
    pub peak: Option<u16>,
}

/// What is left out when the mixer cannot keep up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Without {
    /// Nothing is stretched.
    pub stretch: bool,
    /// Holes are silent.
    pub concealment: bool,
}

/// The buffer.
#[derive(Debug)]
pub struct Playout {
    rate: u32,
    /// Samples in a ms, and in a frame, at that rate; and the ring's length there less one.
    per_ms: i64,
    frame: i64,
    mask: usize,
    ring: Box<[i16]>,
    /// What waits in the ring.
    spans: Spans,
    clock: TimestampExtender,
    ssrc: Option<u32>,
    /// Behind the newest sample that has come.
    newest: i64,
    /// Where the last packets began, to tell one that comes twice from one that comes late.
    recent: [i64; RECENT],
    /// The largest magnitude of each, where it is a frame long, was taken, and its codec tells without decoding.
    peaks: [Option<u16>; RECENT],
    /// The newest of them.
    latest: usize,
    /// Before this, samples of the ring may differ from those of the packet that [`Playout::peaks`] is about.
    touched: i64,
    /// The time of the next tick, counted in samples of ticks.
    time: i64,
    /// Samples that waited at the last tick, those that it took included.
    depth: i64,
    /// The next sample to be heard.
    play: i64,
    /// Where the frame before ended, when it does not end at `play`: the next frame glides from there.
    from: Option<i64>,
    begun: bool,
    /// Ticks since something was there to be heard.
    starved: u32,
    /// The peer is silent on purpose: comfort noise of this amplitude, or an event (0).
    meant: Option<i16>,
    concealer: Concealer,
    slack: Slack,
    rested: u32,
    noise: u32,
}

impl Playout {
    /// For codings of up to `max_rate`, 8,000 or 16,000.
    pub fn new(max_rate: u32) -> Self {
        let rate = 8_000;
        Self {
            rate,
            per_ms: i64::from(rate) / 1_000,
            frame: i64::from(rate) / 50,
            mask: ring_len(rate) - 1,
            ring: vec![0; ring_len(max_rate)].into_boxed_slice(),
            spans: Spans::new(),
            clock: TimestampExtender::default(),
            ssrc: None,
            newest: i64::MIN,
            recent: [i64::MIN; RECENT],
            peaks: [None; RECENT],
            latest: 0,
            touched: i64::MIN,
            time: 0,
            depth: 0,
            play: 0,
            from: None,
            begun: false,
            starved: 0,
            meant: None,
            concealer: Concealer::new(rate),
            slack: Slack::new(),
            rested: 0,
            noise: 0x2545_f491,
        }
    }

    /// The rate of its samples: that of the newest packet.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// What waited to be heard at the last tick, in ms.
    pub fn delay_ms(&self) -> u32 {
        (self.depth.max(0) * 1_000 / i64::from(self.rate)) as u32
    }

    /// A packet of audio came, so many nanoseconds before the next tick.
    pub fn insert(&mut self, ssrc: u32, timestamp: u32, coding: Coding, payload: &[u8], until_tick_ns: i64) -> Taken {
        let (len, rate) = (coding.samples(payload.len()) as i64, coding.sample_rate());
        if len == 0 || len * 1_000 > i64::from(rate) * MAX_PACKET_MS {
            return Taken::Overflow;
        }
        if self.ssrc != Some(ssrc) || self.rate != rate {
            self.restart(ssrc, rate);
        }
        let until = until_tick_ns * self.per_ms / 1_000_000;
        let mut start = self.clock.extend(timestamp);
        if self.begun && (start - self.play).abs() > self.samples(JUMP_MS) {
            self.restart(ssrc, rate);
            start = self.clock.extend(timestamp);
        }
        let end = start + len;
        if !self.begun {
            self.begin(start);
        } else if start >= self.newest {
            if self.spans.is_empty() {
                self.anchor(start, until);
            }
        } else if end <= self.newest && self.recent.contains(&start) {
            return Taken::Late;
        }
        self.note(start, end, until);
        self.meant = None;
        let heard_from = start.max(self.play);
        if end <= self.play || self.spans.hold(heard_from, end) {
            return Taken::Late;
        }
        if !self.spans.end_before(start) {
            // It may overlap others.
            self.touched = self.newest;
        }
        if !self.spans.insert(heard_from, end) {
            return Taken::Overflow;
        }
        self.write(start, coding, payload);
        if len == self.frame {
            self.peaks[self.latest] = coding.loudest(payload);
        }
        self.keep_within();
        Taken::Kept
    }

    /// A packet came, whatever becomes of it.
    fn note(&mut self, start: i64, end: i64, until: i64) {
        self.latest = (self.latest + 1) % RECENT;
        self.recent[self.latest] = start;
        self.peaks[self.latest] = None;
        self.newest = self.newest.max(end);
        if self.slack_of(start, until) > -self.samples(MAX_DELAY_MS) {
            self.slack.note(self.time - until - start);
        }
    }

    /// The peer says that it is silent (RFC 3389): noise of a level in −dBov until audio comes again.
    pub fn comfort_noise(&mut self, level: u8) {
        let amplitude = 32_768.0 * 10_f32.powf(-f32::from(level.min(127)) / 20.0) * 3_f32.sqrt();
        // Louder than this it is no background.
        self.meant = Some(amplitude.min(1_000.0) as i16);
    }

    /// The peer sends an event: its audio has a hole that is meant.
    pub fn event(&mut self) {
        self.meant = Some(0);
    }

    /// The next frame, [`Playout::rate`] / 50 samples, in `out` or, with [`Made::kept`], in [`Playout::kept`].
    pub fn frame(&mut self, out: &mut [i16], without: Without) -> Made {
        if !self.begun {
            out.fill(0);
            return Made::default();
        }
        let mut made = Made { sound: true, ..Made::default() };
        let n = out.len() as i64;
        self.depth = self.newest - self.play;
        self.rested = self.rested.saturating_add(1);
        if let Some(from) = self.from.take() {
            self.glide_to(from, without, out);
        } else if let Some(shift) = self.wanted_shift(n, without) {
            self.stretch(shift, out);
            made.stretched = true;
        } else if !self.concealer.is_active() && self.spans.hold(self.play, self.play + n) {
            let at = self.play as usize & self.mask;
            made.kept = (at + out.len() <= self.mask + 1).then_some(at);
            made.peak = self.peak();
            if made.kept.is_none() {
                self.read(self.play, out);
            }
            self.play += n;
        } else {
            made = self.patch(without);
            self.read(self.play, out);
            self.play += n;
        }
        self.time += n;
        self.slack.tick();
        self.spans.forget(self.play);
        made
    }

    /// The largest magnitude of what is heard next, when that is one packet as it came.
    fn peak(&self) -> Option<u16> {
        let mut back = (0..RECENT).map(|back| (self.latest + RECENT - back) % RECENT);
        let at = back.find(|at| self.recent[*at] <= self.play)?;
        self.peaks[at].filter(|_| self.recent[at] == self.play && self.play >= self.touched)
    }

    /// A frame that was given without a copy; it stays until the next packet comes.
    pub fn kept(&self, at: usize, samples: usize) -> &[i16] {
        &self.ring[at..at + samples]
    }

    /// A tick was left out: the audio keeps its time.
    pub fn skip(&mut self, samples: usize) {
        if self.begun {
            self.leap(self.play + samples as i64);
            self.time += samples as i64;
        }
    }

    fn samples(&self, ms: i64) -> i64 {
        ms * self.per_ms
    }

    fn restart(&mut self, ssrc: u32, rate: u32) {
        self.rate = rate;
        self.per_ms = i64::from(rate) / 1_000;
        self.frame = i64::from(rate) / 50;
        self.mask = ring_len(rate) - 1;
        self.ssrc = Some(ssrc);
        self.clock = TimestampExtender::default();
        self.spans.clear();
        self.newest = i64::MIN;
        self.recent = [i64::MIN; RECENT];
        self.touched = i64::MIN;
        self.from = None;
        self.begun = false;
        self.concealer.reset(rate);
        self.slack = Slack::new();
    }

    /// How long before the tick that needs it a packet came: samples in the midst of a frame are needed when that begins.
    fn slack_of(&self, start: i64, until: i64) -> i64 {
        self.whole_frames(start - self.play) + until
    }

    /// Down to a multiple of a frame. By constants: a division by a variable costs as much as decoding does.
    fn whole_frames(&self, samples: i64) -> i64 {
        match self.rate {
            // Nearly always it is the frame that is heard next, or the one before.
            _ if (0..self.frame).contains(&samples) => 0,
            _ if (-self.frame..0).contains(&samples) => -self.frame,
            8_000 => samples.div_euclid(160) * 160,
            16_000 => samples.div_euclid(320) * 320,
            rate => samples.div_euclid(i64::from(rate) / 50) * (i64::from(rate) / 50),
        }
    }

    /// One packet deep: it is heard at the next tick.
    fn begin(&mut self, start: i64) {
        self.begun = true;
        self.play = start;
        self.starved = 0;
        // Its beginning is faded in.
        self.concealer.begin(&[], true);
    }

    /// Where playing goes on when nothing waits.
    fn anchor(&mut self, start: i64, until: i64) {
        let slack = self.slack_of(start, until);
        if self.starved > (PAUSE_MS / 20) as u32 || (start > self.play && self.concealer.is_silent()) {
            // A talkspurt: the delay is free to be what the jitter of before asks for.
            let wanted = self.samples(AIM_MS) + self.slack.spread().min(self.samples(MAX_DELAY_MS / 2));
            // In whole ticks, so that the packet begins a frame.
            let n = self.frame;
            let wait = ((wanted - until).max(0) + n - 1) / n * n;
            self.move_to(start - wait);
        } else if slack < 0 {
            // It comes late, and nothing else is there: it is heard late, and the delay has grown.
            self.move_to(start);
        }
    }

    /// Playing goes on elsewhere; nothing waits.
    fn move_to(&mut self, play: i64) {
        if play != self.play && !self.concealer.is_active() {
            self.begin_hole(self.play, true);
        }
        self.play = play;
    }

    /// A frame that is not all there: what is missing is made in the ring.
    fn patch(&mut self, without: Without) -> Made {
        let n = self.frame;
        let (mut at, end) = (self.play, self.play + n);
        let mut made = Made::default();
        let mut heard = false;
        while at < end {
            match self.spans.next(at).filter(|next| next.start < end) {
                Some(next) if next.start == at => {
                    let stop = next.end.min(end);
                    self.resume(at, next.end);
                    heard = true;
                    made.sound = true;
                    at = stop;
                }
                next => {
                    let stop = next.map_or(end, |next| next.start);
                    made.concealed |= self.fill(at, stop, without);
                    made.sound |= !self.concealer.is_silent() || self.meant.is_some_and(|level| level > 0);
                    at = stop;
                }
            }
        }
        self.starved = if heard { 0 } else { self.starved.saturating_add(1) };
        made
    }

    fn begin_hole(&mut self, at: i64, quick: bool) {
        let len = conceal::history(self.rate);
        let mut before = [0; conceal::history(16_000)];
        self.read(at - len as i64, &mut before[..len]);
        self.concealer.begin(&before[..len], quick);
    }

    /// Makes what is missing; true when it was lost and is concealed.
    fn fill(&mut self, at: i64, stop: i64, without: Without) -> bool {
        if !self.concealer.is_active() {
            self.begin_hole(at, self.meant.is_some() || without.concealment);
        }
        let concealed = self.meant.is_none() && !self.concealer.is_silent();
        let mut made = [0; MAX_FRAME];
        let made = &mut made[..(stop - at) as usize];
        self.concealer.fill(made);
        if let Some(level) = self.meant.filter(|level| *level > 0) {
            for sample in made.iter_mut() {
                self.noise ^= self.noise << 13;
                self.noise ^= self.noise >> 17;
                self.noise ^= self.noise << 5;
                let noise = (self.noise >> 16) as i32 - 32_768;
                *sample = sample.saturating_add((noise * i32::from(level) / 32_768) as i16);
            }
        }
        self.put(at, made);
        concealed
    }

    /// What is there goes on behind a hole.
    fn resume(&mut self, at: i64, end: i64) {
        if !self.concealer.is_active() {
            return;
        }
        let mut head = [0; MAX_FRAME];
        let head = &mut head[..((end - at).min(self.samples(10))) as usize];
        self.read(at, head);
        self.concealer.resume(head);
        self.put(at, head);
    }

    /// By how many samples the delay should change in a frame of `n`, when that can be done now.
    fn wanted_shift(&mut self, n: i64, without: Without) -> Option<i64> {
        if self.rested < REST_TICKS || without.stretch || self.concealer.is_active() {
            return None;
        }
        // A sample in the midst of a frame is needed when the frame begins.
        let two = [self.recent[self.latest], self.recent[(self.latest + RECENT - 1) % RECENT]];
        let into_frame = |start: i64| start - self.play - self.whole_frames(start - self.play);
        let deepest = two.into_iter().filter(|start| *start != i64::MIN).map(into_frame).max()?;
        let least = self.time - self.play - deepest - self.slack.latest()?;
        let aim = self.samples(AIM_MS);
        let wanted = match least {
            least if least < self.samples(LOW_MS) => least - aim,
            least if least > self.samples(HIGH_MS) && self.slack.is_full() => least - aim,
            _ => return None,
        };
        let longest = pitch::longest(self.rate) as i64;
        let reach = pitch::reach(self.rate) as i64;
        if !self.spans.hold(self.play, self.play + n + longest) && wanted > 0
            || !self.spans.hold(self.play, self.play + n)
        {
            return None;
        }
        self.rested = 0;
        let mut around = [0; SCRATCH];
        let around = &mut around[..(reach.max(n)) as usize];
        // What is most like what precedes it, looked for where the glide will be.
        self.read(self.play + n - around.len() as i64, around);
        let shift = match mix::loudest(&around[around.len() - n as usize..]) < QUIET {
            true => wanted.abs().min(longest),
            false => pitch::period(around, self.rate).0 as i64,
        };
        Some(if wanted > 0 { shift } else { -shift })
    }

    fn stretch(&mut self, shift: i64, out: &mut [i16]) {
        let n = out.len() as i64;
        let before = (-shift).max(0);
        let mut around = [0; SCRATCH];
        let around = &mut around[..(n + shift.abs()) as usize];
        self.read(self.play - before, around);
        let over = (shift.unsigned_abs() as usize).max(out.len() / 4).min(out.len());
        pitch::glide(around, before as usize, shift as isize, over, out);
        self.play += n + shift;
    }

    /// What was skipped is glided over.
    fn glide_to(&mut self, from: i64, without: Without, out: &mut [i16]) {
        let n = out.len();
        let (mut old, mut new) = ([0; MAX_FRAME], [0; MAX_FRAME]);
        self.read(from, &mut old[..n]);
        if !self.spans.hold(self.play, self.play + n as i64) {
            self.patch(without);
        }
        self.read(self.play, &mut new[..n]);
        let over = n / 4;
        for (i, sample) in out.iter_mut().enumerate() {
            let weight = (i as i32 + 1).min(over as i32);
            let (old, new) = (i32::from(old[i]), i32::from(new[i]));
            *sample = (old + (new - old) * weight / over as i32) as i16;
        }
        self.play += n as i64;
    }

    /// More than the longest delay waits: the oldest is left out.
    fn keep_within(&mut self) {
        let end = self.newest;
        let most = self.samples(MAX_DELAY_MS);
        if end - self.play > most {
            self.leap(end - most);
        }
    }

    /// Leaves out what is before `play`. What is heard next glides there from where it would have gone on.
    fn leap(&mut self, play: i64) {
        let n = self.frame;
        let from = self.from.unwrap_or(self.play);
        if !self.concealer.is_active() {
            if self.from.is_some() || self.spans.hold(from, from + n) {
                self.from = Some(from);
            } else {
                self.begin_hole(from, true);
            }
        }
        self.play = play;
        self.spans.forget(play);
    }

    /// Decodes into the ring; what is before `play` is left out.
    fn write(&mut self, start: i64, coding: Coding, payload: &[u8]) {
        let late = (self.play - start).max(0);
        let at = (start + late) as usize & self.mask;
        let payload = &payload[coding.bytes(late as usize)..];
        let samples = coding.samples(payload.len());
        let first = samples.min(self.mask + 1 - at);
        coding.decode(payload, &mut self.ring[at..at + first]);
        if first < samples {
            coding.decode(&payload[coding.bytes(first)..], &mut self.ring[..samples - first]);
        }
    }

    fn put(&mut self, start: i64, samples: &[i16]) {
        let at = start as usize & self.mask;
        self.touched = self.touched.max(start + samples.len() as i64);
        let first = samples.len().min(self.mask + 1 - at);
        self.ring[at..at + first].copy_from_slice(&samples[..first]);
        self.ring[..samples.len() - first].copy_from_slice(&samples[first..]);
    }

    fn read(&self, start: i64, out: &mut [i16]) {
        let at = start as usize & self.mask;
        let first = out.len().min(self.mask + 1 - at);
        out[..first].copy_from_slice(&self.ring[at..at + first]);
        let rest = out.len() - first;
        out[first..].copy_from_slice(&self.ring[..rest]);
    }
}

fn ring_len(rate: u32) -> usize {
    (i64::from(rate) * RING_MS / 1_000) as usize / 4_096 * 4_096
}
const _: () = assert!(8_000 * RING_MS / 1_000 == 4_096, "the ring's length is a power of two at both rates");

/// How late packets came in the last seconds: arrival less timestamp, in samples, from an origin of the buffer's own.
#[derive(Debug, Clone)]
struct Slack {
    /// The latest of each part; the least number: none.
    parts: [i64; PARTS],
    /// The latest of all; the least number: none.
    latest: i64,
    /// What is usual: a mean that forgets.
    usual: Option<i64>,
    part: usize,
    ticks: u32,
    /// Parts since the beginning.
    age: usize,
}

impl Slack {
    fn new() -> Self {
        Self { parts: [i64::MIN; PARTS], latest: i64::MIN, usual: None, part: 0, ticks: 0, age: 0 }
    }

    fn note(&mut self, transit: i64) {
        self.latest = self.latest.max(transit);
        self.parts[self.part] = self.parts[self.part].max(transit);
        self.usual = Some(self.usual.map_or(transit, |usual| usual + (transit - usual) / 16));
    }

    fn tick(&mut self) {
        self.ticks += 1;
        if self.ticks == PART_TICKS {
            self.ticks = 0;
            self.part = (self.part + 1) % PARTS;
            self.parts[self.part] = i64::MIN;
            self.latest = self.parts.into_iter().max().unwrap_or(i64::MIN);
            self.age += 1;
        }
    }

    /// The latest of all.
    fn latest(&self) -> Option<i64> {
        Some(self.latest).filter(|latest| *latest != i64::MIN)
    }

    fn is_full(&self) -> bool {
        self.age >= PARTS
    }

    /// How much later than usual the latest came.
    fn spread(&self) -> i64 {
        self.usual.zip(self.latest()).map_or(0, |(usual, latest)| (latest - usual).max(0))
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::codec::Codec;

    #[test]
    fn a_peak_that_is_told_is_that_of_the_frame_whatever_came_before() {
        let mut rng = StdRng::seed_from_u64(6);
        let codings = [Codec::pcmu(), Codec::pcma()].map(|codec| Coding::of(&codec).unwrap());
        let (mut told, mut frames) = (0, 0);
        for coding in codings.into_iter().cycle().take(40) {
            let mut playout = Playout::new(8_000);
            for tick in 0..100_u32 {
                for _ in 0..rng.random_range(0..3) {
                    // In time nearly always; early, late, longer, shorter, twice, across others now and then.
                    let usual = rng.random_bool(0.8);
                    let start = 1_000 + 160 * tick + if usual { 0 } else { 40 * rng.random_range(0..12) } - 160;
                    let len = if usual { 160 } else { 40 * rng.random_range(1..8) };
                    let quiet = rng.random_range(0..0x80_u8);
                    let payload: Vec<u8> = (0..len).map(|_| rng.random::<u8>() | quiet).collect();
                    playout.insert(1, start, coding, &payload, 5_000_000);
                }
                let mut frame = [0; 160];
                let made = playout.frame(&mut frame, Without::default());
                let heard = made.kept.map_or(&frame[..], |at| playout.kept(at, 160));
                frames += 1;
                if let Some(peak) = made.peak {
                    told += 1;
                    assert_eq!(peak, mix::loudest(heard));
                }
            }
        }
        assert!(told > frames / 40, "only {told} of {frames}");
    }
}
