//! The playout buffer of one leg: packets in as they come, 20 ms of samples out at every tick.
//!
//! Samples stand in a ring by RTP timestamp; `play` is the next one to be heard. What is missing when its time comes is
//! concealed, what comes too late is dropped. The delay follows the *slack*: how long before its own tick the latest
//! packet of the last seconds came. Too little, and the signal is stretched by a pitch period; too much, and it is
//! shortened by one. A sender whose clock is fast or slow moves its slack steadily, so clock skew is followed by the
//! same rule. In silence any number of samples is skipped or put in.

use super::spans::Spans;
use crate::audio::coding::Coding;
use crate::audio::conceal::Concealer;
use crate::rtp::seq::TimestampExtender;

mod arrivals;
mod holes;
mod slack;
mod stretch;

use arrivals::MAX_PACKET_MS;
use slack::Slack;

/// Longest delay: what waits beyond it is skipped.
pub const MAX_DELAY_MS: i64 = 200;
/// The ring holds this much: what is heard next, a packet beyond the longest delay, and history for concealment.
const RING_MS: i64 = 512;
const _: () = assert!(MAX_DELAY_MS + MAX_PACKET_MS + 80 < RING_MS, "history survives the longest delay");
/// Packets remembered by where they began.
const RECENT: usize = 16;

/// To what the least slack is brought.
const AIM_MS: i64 = 6;
/// Samples of the longest frame: 20 ms at 16,000 Hz.
const MAX_FRAME: usize = 320;

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
    /// How the packets of the stream are coded, that of the newest.
    coding: Option<Coding>,
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
    /// The largest magnitude of each, where it is a frame long, was taken, and decoding told it.
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
            coding: None,
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

    /// Samples of a frame at that rate.
    pub fn frame_len(&self) -> usize {
        self.frame as usize
    }

    /// What waited to be heard at the last tick, in ms.
    pub fn delay_ms(&self) -> u32 {
        (self.depth.max(0) * 1_000 / i64::from(self.rate)) as u32
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
    #[inline]
    pub fn frame(&mut self, out: &mut [i16], without: Without) -> Made {
        if !self.begun {
            out.fill(0);
            return Made::default();
        }
        let n = self.frame;
        self.depth = self.newest - self.play;
        self.rested = self.rested.saturating_add(1);
        let is_there = self.from.is_none() && !self.concealer.is_active() && self.spans.hold(self.play, self.play + n);
        let made = match is_there.then(|| self.wanted_change(without)) {
            Some(None) => self.as_it_came(out),
            wanted => self.changed(wanted.flatten(), out, without),
        };
        self.time += n;
        self.slack.tick();
        self.spans.forget(self.play);
        made
    }

    /// A frame that is stretched by about as much as is `wanted`, or is not all there.
    #[inline(never)]
    fn changed(&mut self, wanted: Option<i64>, out: &mut [i16], without: Without) -> Made {
        let mut made = Made { sound: true, ..Made::default() };
        if let Some(wanted) = wanted {
            let shift = self.shift(wanted);
            self.stretch(shift, out);
            made.stretched = true;
        } else if let Some(from) = self.from.take() {
            self.glide_to(from, without, out);
        } else {
            made = self.patch(without);
            self.read(self.play, out);
            self.play += self.frame;
        }
        made
    }

    /// A frame that is all there and is left as it is.
    #[inline]
    fn as_it_came(&mut self, out: &mut [i16]) -> Made {
        let at = self.play as usize & self.mask;
        let kept = (at + out.len() <= self.mask + 1).then_some(at);
        if kept.is_none() {
            self.read(self.play, out);
        }
        let peak = self.peak();
        self.play += self.frame;
        Made { sound: true, kept, peak, ..Made::default() }
    }

    /// The largest magnitude of what is heard next, when that is one packet as it came.
    #[inline]
    fn peak(&self) -> Option<u16> {
        if self.recent[self.latest] != self.play {
            return self.earlier_peak();
        }
        // Nearly always it is the newest.
        self.peaks[self.latest].filter(|_| self.play >= self.touched)
    }

    #[inline(never)]
    fn earlier_peak(&self) -> Option<u16> {
        let mut back = (0..RECENT).map(|back| (self.latest + RECENT - back) % RECENT);
        let at = back.find(|at| self.recent[*at] <= self.play)?;
        self.peaks[at].filter(|_| self.recent[at] == self.play && self.play >= self.touched)
    }

    /// A frame that was given without a copy; it stays until the next packet comes.
    #[inline]
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

    /// Playing goes on elsewhere; nothing waits.
    fn move_to(&mut self, play: i64) {
        if play != self.play && !self.concealer.is_active() {
            self.begin_hole(self.play, true);
        }
        self.play = play;
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

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::audio::mix;
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
