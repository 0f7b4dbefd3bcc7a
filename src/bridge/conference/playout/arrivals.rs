//! Packets that come, and where they are put.

use super::slack::Slack;
use super::{AIM_MS, MAX_DELAY_MS, Playout, RECENT, Taken, ring_len};
use crate::audio::coding::Coding;
use crate::rtp::seq::TimestampExtender;

/// Longest packet that is taken.
pub(super) const MAX_PACKET_MS: i64 = 200;
/// A timestamp farther away than this belongs to another stream of the same source.
const JUMP_MS: i64 = 1_500;
/// After so long without anything, what comes next begins anew.
const PAUSE_TICKS: u32 = 80 / 20;

impl Playout {
    /// A packet of audio came, so many nanoseconds before the next tick.
    #[inline]
    pub fn insert(&mut self, ssrc: u32, timestamp: u32, coding: Coding, payload: &[u8], until_tick_ns: i64) -> Taken {
        let until = until_tick_ns * self.per_ms / 1_000_000;
        match self.append(ssrc, timestamp, coding, payload, until) {
            true => Taken::Kept,
            false => self.insert_any(ssrc, timestamp, coding, payload, until_tick_ns),
        }
    }

    /// What nearly every packet is: a frame in time that begins where the newest one ended. Otherwise false, and nothing was
    /// done. The same as [`Playout::insert_any`] at a third of its cost.
    #[inline]
    fn append(&mut self, ssrc: u32, timestamp: u32, coding: Coding, payload: &[u8], until: i64) -> bool {
        let (start, end) = (self.newest, self.newest.wrapping_add(self.frame));
        let at = start as usize & self.mask;
        let Some(ring) = self.ring[..=self.mask].get_mut(at..at + self.frame as usize) else { return false };
        let is_next = self.begun && timestamp == start as u32 && self.ssrc == Some(ssrc) && self.coding == Some(coding);
        if !is_next || until < 0 || payload.len() != coding.bytes(ring.len()) {
            return false;
        }
        // It waits behind others, or is heard next and no talkspurt begins.
        let ahead = start - self.play;
        if ahead < 0 || end - self.play > MAX_DELAY_MS * self.per_ms {
            return false;
        }
        if self.spans.is_empty() {
            if ahead > 0 || self.starved > PAUSE_TICKS {
                return false;
            }
            self.spans.begin(start, end);
        } else if !self.spans.append(start, end) {
            return false;
        }
        let loudest = coding.decode_loudest(payload, ring);
        self.clock.extend(timestamp);
        self.remember(start, loudest);
        self.newest = end;
        self.slack.note(self.time - until - start);
        self.meant = None;
        true
    }

    /// As [`Playout::insert`], whatever it is.
    #[cold]
    fn insert_any(&mut self, ssrc: u32, timestamp: u32, coding: Coding, payload: &[u8], until_tick_ns: i64) -> Taken {
        let (len, rate) = (coding.samples(payload.len()) as i64, coding.sample_rate());
        if len == 0 || len * 1_000 > i64::from(rate) * MAX_PACKET_MS {
            return Taken::Overflow;
        }
        if self.ssrc != Some(ssrc) || self.rate != rate {
            self.restart(ssrc, rate);
        }
        self.coding = Some(coding);
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
        let loudest = self.write(start, coding, payload);
        if len == self.frame {
            self.peaks[self.latest] = loudest;
        }
        self.keep_within();
        Taken::Kept
    }

    /// A packet came, whatever becomes of it.
    fn note(&mut self, start: i64, end: i64, until: i64) {
        self.remember(start, None);
        self.newest = self.newest.max(end);
        if self.slack_of(start, until) > -self.samples(MAX_DELAY_MS) {
            self.slack.note(self.time - until - start);
        }
    }

    /// Where a packet began, and its largest magnitude.
    fn remember(&mut self, start: i64, peak: Option<u16>) {
        self.latest = (self.latest + 1) % RECENT;
        self.recent[self.latest] = start;
        self.peaks[self.latest] = peak;
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
    pub(super) fn whole_frames(&self, samples: i64) -> i64 {
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
        if self.starved > PAUSE_TICKS || (start > self.play && self.concealer.is_silent()) {
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

    /// More than the longest delay waits: the oldest is left out.
    fn keep_within(&mut self) {
        let end = self.newest;
        let most = self.samples(MAX_DELAY_MS);
        if end - self.play > most {
            self.leap(end - most);
        }
    }

    /// Decodes into the ring; what is before `play` is left out. The largest magnitude of the rest, where decoding tells it.
    fn write(&mut self, start: i64, coding: Coding, payload: &[u8]) -> Option<u16> {
        let late = (self.play - start).max(0);
        let at = (start + late) as usize & self.mask;
        let payload = &payload[coding.bytes(late as usize)..];
        let samples = coding.samples(payload.len());
        let first = samples.min(self.mask + 1 - at);
        let loudest = coding.decode_loudest(payload, &mut self.ring[at..at + first]);
        let rest = coding.decode_loudest(&payload[coding.bytes(first)..], &mut self.ring[..samples - first]);
        loudest.zip(rest).map(|(loudest, rest)| loudest.max(rest))
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::bridge::conference::playout::Without;
    use crate::codec::Codec;

    #[test]
    fn a_packet_that_follows_is_taken_as_any_packet_is() {
        let mut rng = StdRng::seed_from_u64(8);
        let codecs = [Codec::pcmu(), Codec::pcma(), Codec::new("L16", 16_000, 1)];
        let codings = codecs.map(|codec| Coding::of(&codec).unwrap());
        let (mut followed, mut packets) = (0, 0);
        for round in 0..60 {
            let (mut one, mut other) = (Playout::new(16_000), Playout::new(16_000));
            let (mut coding, mut ssrc, mut timestamp) = (codings[round % 3], 1, rng.random::<u32>());
            for _ in 0..300 {
                for _ in 0..[1, 1, 1, 1, 1, 1, 1, 1, 0, 2, 3, 11][rng.random_range(0..12)] {
                    let frame = coding.sample_rate() / 50;
                    match rng.random_range(0..120) {
                        0 => coding = codings[rng.random_range(0..3)],
                        1 => ssrc += 1,
                        2 => timestamp = rng.random(),
                        3..6 => timestamp = timestamp.wrapping_add(frame * rng.random_range(1..8)),
                        6..8 => timestamp = timestamp.wrapping_sub(frame * rng.random_range(1..3)),
                        8 => timestamp = timestamp.wrapping_add(frame / 2),
                        9 => (one.event(), other.event()).1,
                        10 => (one.comfort_noise(40), other.comfort_noise(40)).1,
                        _ => {}
                    }
                    let samples = if rng.random_bool(0.95) { frame } else { frame / 2 * rng.random_range(0..4) };
                    let payload: Vec<u8> = (0..coding.bytes(samples as usize)).map(|_| rng.random()).collect();
                    let until =
                        if rng.random_bool(0.9) { 5_000_000 } else { rng.random_range(-30_000_000..20_000_000) };
                    let at = until * one.per_ms / 1_000_000;
                    let before = one.append(ssrc, timestamp, coding, &payload, at);
                    let taken =
                        if before { Taken::Kept } else { one.insert_any(ssrc, timestamp, coding, &payload, until) };
                    assert_eq!(taken, other.insert_any(ssrc, timestamp, coding, &payload, until));
                    followed += u32::from(before);
                    packets += 1;
                    timestamp = timestamp.wrapping_add(samples);
                }
                let (mut a, mut b) = ([0; 320], [0; 320]);
                let n = one.rate() as usize / 50;
                let made = [one.frame(&mut a[..n], Without::default()), other.frame(&mut b[..n], Without::default())];
                assert_eq!((made[0], one.delay_ms(), one.rate()), (made[1], other.delay_ms(), other.rate()));
                let heard = |made: usize, playout: &Playout, out: &[i16]| match made {
                    usize::MAX => out.to_vec(),
                    at => playout.kept(at, n).to_vec(),
                };
                let kept = made[0].kept.unwrap_or(usize::MAX);
                assert_eq!(heard(kept, &one, &a[..n]), heard(kept, &other, &b[..n]));
            }
        }
        assert!(followed > packets / 3 && followed < packets * 2 / 3, "{followed} of {packets}");
    }

    #[test]
    fn a_talkspurt_that_begins_where_a_late_packet_ended_does_not_just_follow() {
        let (coding, payload, mut out) = (Coding::of(&Codec::pcmu()).unwrap(), [0x55; 160], [0; 160]);
        for silent in [4, 6] {
            let mut playout = Playout::new(8_000);
            for n in 0..10 + silent {
                if n < 10 {
                    assert_eq!(playout.insert(1, 160 * n, coding, &payload, 5_000_000), Taken::Kept);
                }
                playout.frame(&mut out, Without::default());
            }
            // Half of it was heard, and the rest ends where playing goes on.
            let long = vec![0x55; 80 + 160 * silent as usize];
            assert_eq!(playout.insert(1, 160 * 9 + 80, coding, &long, 5_000_000), Taken::Late);
            let follows = playout.append(1, 160 * (10 + silent), coding, &payload, 40);
            assert_eq!(follows, silent == 4);
        }
    }
}
