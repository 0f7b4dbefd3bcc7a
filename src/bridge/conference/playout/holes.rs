//! What is heard where something is missing, or was left out.

use super::{MAX_FRAME, Made, Playout, Without};
use crate::audio::conceal;

impl Playout {
    /// What was skipped is glided over.
    pub(super) fn glide_to(&mut self, from: i64, without: Without, out: &mut [i16]) {
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

    /// A frame that is not all there: what is missing is made in the ring.
    pub(super) fn patch(&mut self, without: Without) -> Made {
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
                    let filled = self.fill(at, stop, without);
                    made.concealed |= filled.concealed;
                    made.sound |= filled.sound;
                    at = stop;
                }
            }
        }
        self.starved = if heard { 0 } else { self.starved.saturating_add(1) };
        made
    }

    pub(super) fn begin_hole(&mut self, at: i64, quick: bool) {
        let len = conceal::history(self.rate);
        let mut before = [0; conceal::history(16_000)];
        self.read(at - len as i64, &mut before[..len]);
        self.concealer.begin(&before[..len], quick);
    }

    /// Makes what is missing.
    fn fill(&mut self, at: i64, stop: i64, without: Without) -> Made {
        if !self.concealer.is_active() {
            self.begin_hole(at, self.meant.is_some() || without.concealment);
        }
        // Before it is filled: a fade that ends in it is heard.
        let fades = !self.concealer.is_silent();
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
        Made {
            concealed: fades && self.meant.is_none(),
            sound: fades || self.meant.is_some_and(|level| level > 0),
            ..Made::default()
        }
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
}
