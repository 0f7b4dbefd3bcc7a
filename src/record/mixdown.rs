//! Samples of tracks → frames of a session's files: sum, limiter, channels, masks.

use std::ops::Range;

use super::leg::Leg;
use crate::audio::mix;
use crate::audio::resample::{Kernel, Stretch};
use crate::audio::sum::{self, Delay, Limiter};
use crate::audio::total::Total;
use crate::id::{LegId, LegMap};

/// Frames rendered at a time.
pub const MAX_BLOCK: usize = 2_048;

/// Before a block, so much of the tracks after it must be sealed: the resampler looks ahead (3 ms at most).
pub const LOOK_AHEAD_NS: i64 = 4_000_000;

/// Every leg that a recorder knows.
pub type Legs = LegMap<Leg>;

/// Tables and scratch memory that all sessions of one recorder share.
#[derive(Debug)]
pub struct Tools {
    /// For tracks that follow a clock.
    pub stretch: Stretch,
    kernels: Vec<(u32, u32, Kernel)>,
    input: Vec<i16>,
    voice: [i16; MAX_BLOCK],
    sum: Total<MAX_BLOCK>,
    channels: [[i16; MAX_BLOCK]; 2],
    frames: [i16; 2 * MAX_BLOCK],
}

impl Tools {
    /// Computes the tables that every recorder needs.
    pub fn new() -> Box<Self> {
        Box::new(Self {
            stretch: Stretch::new(),
            kernels: Vec::new(),
            input: Vec::new(),
            voice: [0; MAX_BLOCK],
            sum: Total::default(),
            channels: [[0; MAX_BLOCK]; 2],
            frames: [0; 2 * MAX_BLOCK],
        })
    }

    /// Where one leg at most speaks, and that at the session's rate: its samples as they are go to `voice`. Else false.
    fn alone(&mut self, legs: &Legs, speakers: &[LegId], rate: u32, at: i64, len: usize) -> bool {
        let samples = &mut self.voice[..len];
        let tracks = match speakers {
            [] => &[],
            [speaker] => legs.get(speaker).map_or(&[][..], Leg::tracks),
            _ => return false,
        };
        match tracks {
            [] => samples.fill(0),
            [track] if track.rate() == rate => track.read(at, samples),
            _ => return false,
        }
        true
    }

    /// Adds what a leg said from position `at` of the session's grid on to the sum.
    fn add(&mut self, leg: &Leg, rate: u32, at: i64, len: usize) {
        let voice = &mut self.voice[..len];
        for track in leg.tracks() {
            if track.rate() == rate {
                let peak = track.read_loudest(at, voice);
                self.sum.add(voice, peak);
                continue;
            }
            let known = self.kernels.iter().position(|(from, to, _)| (*from, *to) == (track.rate(), rate));
            let Some(i) = known.or_else(|| {
                // Tracks and sessions have the rates of ours only, and each divides or is a multiple of the others.
                self.kernels.push((track.rate(), rate, Kernel::new(track.rate(), rate)?));
                Some(self.kernels.len() - 1)
            }) else {
                continue;
            };
            let kernel = &self.kernels[i].2;
            self.input.resize(kernel.input_len(at, len), 0);
            track.read(kernel.input_of(at) - kernel.context() as i64, &mut self.input);
            kernel.convert(&self.input, at, voice);
            self.sum.add(voice, mix::loudest(voice));
        }
    }
}

/// Who is heard where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// For each channel of `mixed.wav` those who speak in it.
    pub mixed: Vec<Vec<LegId>>,
    /// For each other file who speaks in it.
    pub own: Vec<Option<LegId>>,
}

/// A session's mixing state. File 0 is `mixed.wav`; the others have one channel and one voice each.
#[derive(Debug)]
pub struct Mixdown {
    rate: u32,
    limiters: Vec<Limiter>,
    delays: Vec<Delay>,
}

impl Mixdown {
    /// For a sample rate in Hz and the channels of `mixed.wav` (1 or 2).
    pub fn new(rate: u32, channels: usize) -> Self {
        Self { rate, limiters: vec![Limiter::new(rate); channels.clamp(1, 2)], delays: Vec::new() }
    }

    /// Frames that output is later than input.
    pub fn delay(&self) -> usize {
        sum::look_ahead(self.rate)
    }

    /// One more file.
    pub fn add_file(&mut self) {
        self.delays.push(Delay::new(self.rate));
    }

    /// Takes `len` (at most [`MAX_BLOCK`]) positions of the grid from `at` on, and gives as many frames per file, later by
    /// [`Mixdown::delay`]: those in `kept`, with silence in `masked` (both relative to the block).
    #[allow(clippy::too_many_arguments, reason = "one call site; a struct of them would only rename them")]
    pub fn render(
        &mut self,
        legs: &Legs,
        plan: &Plan,
        at: i64,
        len: usize,
        kept: Range<usize>,
        masked: &[Range<usize>],
        tools: &mut Tools,
        mut give: impl FnMut(usize, &[i16]),
    ) {
        for (channel, limiter) in self.limiters.iter_mut().enumerate() {
            let speakers = plan.mixed.get(channel).map_or(&[][..], Vec::as_slice);
            let alone = tools.alone(legs, speakers, self.rate, at, len)
                && limiter.pass(&tools.voice[..len], 1, &mut tools.channels[channel][..len]);
            if !alone {
                tools.sum.begin(len);
                for leg in speakers.iter().filter_map(|id| legs.get(id)) {
                    tools.add(leg, self.rate, at, len);
                }
                let Tools { sum, channels, .. } = tools;
                let samples = &mut channels[channel][..len];
                if !sum.narrow().is_some_and(|(_, sum)| limiter.pass(sum, speakers.len(), samples)) {
                    limiter.process(sum.widened(), speakers.len(), samples);
                }
            }
            mask(&mut tools.channels[channel][..len], masked);
        }
        if self.limiters.len() == 2 {
            let Tools { channels: [left, right], frames, .. } = tools;
            for ((frame, left), right) in frames.chunks_exact_mut(2).zip(&left[..len]).zip(&right[..len]) {
                frame[0] = *left;
                frame[1] = *right;
            }
            give(0, &frames[2 * kept.start..2 * kept.end]);
        } else {
            give(0, &tools.channels[0][kept.clone()]);
        }
        for (i, delay) in self.delays.iter_mut().enumerate() {
            tools.sum.begin(len);
            let speaker = plan.own.get(i).copied().flatten();
            if let Some(leg) = speaker.and_then(|id| legs.get(&id)) {
                tools.add(leg, self.rate, at, len);
            }
            let Tools { sum, channels, .. } = tools;
            let samples = &mut channels[0][..len];
            match sum.narrow() {
                Some((_, voice)) => samples.copy_from_slice(voice),
                // One voice: two of its tracks never hold the same instant, and if they do this is what fits.
                None => sum::narrow(sum.widened(), samples),
            }
            delay.process(samples);
            mask(samples, masked);
            give(i + 1, &samples[kept.clone()]);
        }
    }
}

fn mask(samples: &mut [i16], masked: &[Range<usize>]) {
    for range in masked {
        samples[range.clone()].fill(0);
    }
}
