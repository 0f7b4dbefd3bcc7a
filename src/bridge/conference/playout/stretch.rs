//! The delay follows the slack: frames are stretched and shortened by a pitch period.

use super::{AIM_MS, MAX_FRAME, Playout, RECENT, Without};
use crate::audio::{mix, pitch};

/// The least slack is kept at or above this.
const LOW_MS: i64 = 1;
/// Above this for all of the window, the delay is taken back. A frame above the aim, so that ticks and packets which
/// meet each other at any phase are left alone.
const HIGH_MS: i64 = AIM_MS + 22;
/// Ticks between two stretches; the pitch search costs more than all the rest.
const REST_TICKS: u32 = 5;
/// Quieter than this, samples may be left out anywhere.
const QUIET: u16 = 40;
/// Scratch for a frame that is stretched, with a period before and behind it.
const SCRATCH: usize = MAX_FRAME + 2 * pitch::longest(16_000) + pitch::reach(16_000);

impl Playout {
    /// By how many samples the delay should change, when that can be done now, in a frame that is all there.
    #[inline]
    pub(super) fn wanted_change(&self, without: Without) -> Option<i64> {
        if self.rested < REST_TICKS || without.stretch {
            return None;
        }
        let two = [self.recent[self.latest], self.recent[(self.latest + RECENT - 1) % RECENT]];
        let deepest = match two {
            // Nearly always: the frame that is heard next, and the one before.
            [next, before] if next == self.play && before == self.play - self.frame => 0,
            two => self.deepest(two)?,
        };
        let least = self.time - self.play - deepest - self.slack.latest()?;
        let is_off = least < self.samples(LOW_MS) || least > self.samples(HIGH_MS) && self.slack.is_full();
        let wanted = Some(least - self.samples(AIM_MS)).filter(|_| is_off)?;
        let longest = pitch::longest(self.rate) as i64;
        (wanted <= 0 || self.spans.hold(self.play, self.play + self.frame + longest)).then_some(wanted)
    }

    /// How far into its frame one of these packets begins at most: it is needed when the frame begins.
    #[inline(never)]
    fn deepest(&self, packets: [i64; 2]) -> Option<i64> {
        let into_frame = |start: i64| start - self.play - self.whole_frames(start - self.play);
        packets.into_iter().filter(|start| *start != i64::MIN).map(into_frame).max()
    }

    /// By how many samples the delay is changed, when so many are wanted.
    pub(super) fn shift(&mut self, wanted: i64) -> i64 {
        let n = self.frame;
        let longest = pitch::longest(self.rate) as i64;
        let reach = pitch::reach(self.rate) as i64;
        self.rested = 0;
        let mut around = [0; SCRATCH];
        let around = &mut around[..(reach.max(n)) as usize];
        // What is most like what precedes it, looked for where the glide will be.
        self.read(self.play + n - around.len() as i64, around);
        let shift = match mix::loudest(&around[around.len() - n as usize..]) < QUIET {
            true => wanted.abs().min(longest),
            false => pitch::period(around, self.rate).0 as i64,
        };
        if wanted > 0 { shift } else { -shift }
    }

    pub(super) fn stretch(&mut self, shift: i64, out: &mut [i16]) {
        let n = out.len() as i64;
        let before = (-shift).max(0);
        let mut around = [0; SCRATCH];
        let around = &mut around[..(n + shift.abs()) as usize];
        self.read(self.play - before, around);
        let over = (shift.unsigned_abs() as usize).max(out.len() / 4).min(out.len());
        pitch::glide(around, before as usize, shift as isize, over, out);
        self.play += n + shift;
    }
}
