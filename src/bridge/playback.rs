//! What we play to a peer while nobody is routed to it: silence in its codec, or samples.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::command::{PLAYED_PAYLOAD_TYPE, Playback};
use super::leg::Taps;
use super::outgoing::Steps;
use super::relay::Tapped;
use super::tone::Dual;
use crate::audio::coding::Coding;
use crate::audio::pcm;
use crate::codec::Payload;
use crate::id::LegId;
use crate::rtp::Header;
use crate::rtp::seq::{sequence_plus, ticks};
use crate::rtp::view::{self, FIXED_LEN};

/// Longest payload that is made: 255 ms of L16 at 16,000 Hz.
pub const MAX_PAYLOAD: usize = 255 * 16 * 2;
/// Rate of the samples that are handed in.
pub const SAMPLE_RATE: u32 = 8_000;
/// The longest copy for recorders: an RTP packet of 255 ms.
pub const MAX_COPY: usize = FIXED_LEN + 255 * 8 * 2;

/// A running playback.
#[derive(Debug)]
pub struct Player {
    what: Sound,
    /// The tick of the next packet; ticks are absolute, so that a late wake-up does not slow the stream down.
    next: Instant,
    begun: bool,
    position: usize,
}

#[derive(Debug)]
enum Sound {
    Silence,
    Samples { samples: Arc<[i16]>, repeat: bool },
    Tone(Dual),
}

/// The codec that a playback is sent in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voice {
    /// The peer's number for it.
    pub payload_type: u8,
    /// How its samples are coded.
    pub coding: Coding,
}

impl Voice {
    /// The most preferred codec that we can make: G.711, or linear at 8,000 or 16,000 Hz. `None` when the peer takes
    /// none of them; then nothing is played.
    pub fn choose(send: &[Payload]) -> Option<Self> {
        let payload = send.iter().find(|payload| payload.codec.is_encodable())?;
        Some(Self { payload_type: payload.payload_type, coding: Coding::of(&payload.codec)? })
    }

    /// RTP clock in Hz.
    pub fn clock_rate(&self) -> u32 {
        self.coding.sample_rate()
    }

    /// RTP clock ticks of a packet.
    pub fn ticks(&self, ptime_ms: u8) -> u32 {
        self.clock_rate() / 1_000 * u32::from(ptime_ms)
    }
}

impl Player {
    /// Begins at once; `None` for [`Playback::None`] and for no samples.
    pub fn new(what: Playback, now: Instant) -> Option<Self> {
        let what = match what {
            Playback::None => return None,
            Playback::Silence => Sound::Silence,
            Playback::Samples { samples, .. } if samples.is_empty() => return None,
            Playback::Samples { samples, repeat } => Sound::Samples { samples, repeat },
        };
        Some(Self { what, next: now, begun: false, position: 0 })
    }

    /// Silence, beginning at once.
    pub fn silence(now: Instant) -> Self {
        Self { what: Sound::Silence, next: now, begun: false, position: 0 }
    }

    /// Begins a tone at once; it goes on until it is dropped.
    pub fn tone(tone: Dual, now: Instant) -> Self {
        Self { what: Sound::Tone(tone), next: now, begun: false, position: 0 }
    }

    /// When the next packet is due.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Goes on to the packet that is due now: whether it is the first, else how many ticks it is after the one before.
    /// Ticks that were missed are skipped: the audio keeps its time, and no burst is sent.
    pub fn step(&mut self, ptime: Duration, now: Instant) -> Steps {
        let late = now.saturating_duration_since(self.next);
        let missed = (late.as_nanos() / ptime.as_nanos().max(1)) as u32;
        self.next += ptime * (missed + 1);
        self.skip(ptime * missed);
        match std::mem::replace(&mut self.begun, true) {
            true => Steps::After(missed + 1),
            false => Steps::First,
        }
    }

    /// After a time in which nothing could be sent: the next packet is a first one again.
    pub fn interrupt(&mut self) {
        self.begun = false;
    }

    /// Takes the next samples; false when they have come to an end.
    pub fn fill(&mut self, samples: &mut [i16]) -> bool {
        let ended = matches!(&self.what, Sound::Samples { samples, repeat: false } if self.position >= samples.len());
        if !ended {
            self.take(samples);
        }
        !ended
    }

    fn take(&mut self, out: &mut [i16]) {
        match &mut self.what {
            Sound::Silence => out.fill(0),
            Sound::Tone(tone) => tone.take(out),
            Sound::Samples { samples, repeat } => {
                for sample in out {
                    if *repeat && self.position >= samples.len() {
                        self.position = 0;
                    }
                    *sample = samples.get(self.position).copied().unwrap_or(0);
                    self.position += 1;
                }
            }
        }
    }

    fn skip(&mut self, time: Duration) {
        if let Sound::Samples { samples, repeat } = &self.what {
            self.position += (time.as_millis() * u128::from(SAMPLE_RATE / 1_000)) as usize;
            if *repeat {
                self.position %= samples.len();
            }
        }
    }
}

/// The copies of what is played to one peer, as a stream of its own: [`played_payload`](super::command::played_payload).
#[derive(Debug)]
pub struct PlayedTap {
    name: LegId,
    taps: Taps,
    ssrc: u32,
    sequence: u16,
    /// The tick of the first copy: timestamps count from it, so that what was not played is silence and not lost.
    begun: Option<Instant>,
}

impl PlayedTap {
    /// Nothing has been copied yet.
    pub fn new(name: LegId, taps: Taps, ssrc: u32) -> Self {
        Self { name, taps, ssrc, sequence: 0, begun: None }
    }

    /// The pseudo-leg.
    pub fn name(&self) -> LegId {
        self.name
    }

    /// The same stream, to other recorders.
    pub fn with(self, taps: Taps) -> Self {
        Self { taps, ..self }
    }

    /// Writes samples that are played at `tick` as a packet; `None` when nobody wants it.
    pub fn copy(&mut self, samples: &[i16], tick: Instant, steps: Steps, out: &mut [u8; MAX_COPY]) -> Option<Tapped> {
        if self.taps.recorders().is_empty() {
            return None;
        }
        let begun = *self.begun.get_or_insert(tick);
        let timestamp = ticks(tick.saturating_duration_since(begun), SAMPLE_RATE) as u32;
        let (payload_type, marker) = (PLAYED_PAYLOAD_TYPE, steps == Steps::First);
        let header = view::Outgoing { payload_type, marker, sequence: self.sequence, timestamp, ssrc: self.ssrc };
        self.sequence = sequence_plus(self.sequence, 1);
        let len = FIXED_LEN + 2 * samples.len();
        let packet = out.get_mut(..len)?;
        packet[..FIXED_LEN].copy_from_slice(&header.encode());
        pcm::encode_l16(samples, &mut packet[FIXED_LEN..]);
        Some(Tapped { leg: self.name, header: Header::parse(packet).ok()?, taps: self.taps })
    }
}
