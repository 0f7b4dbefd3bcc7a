//! What we play to a peer while nobody is routed to it: silence in its codec, or samples.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::command::Playback;
use super::outgoing::Steps;
use super::tone::Dual;
use crate::audio::g711;
use crate::codec::{Kind, Payload};

/// Longest payload that is made: 255 ms of L16 at 16,000 Hz.
pub const MAX_PAYLOAD: usize = 255 * 16 * 2;
/// Samples encoded at a time.
const CHUNK: usize = 160;
/// Rate of the samples that are handed in.
const SAMPLE_RATE: u32 = 8_000;

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
    /// RTP clock in Hz.
    pub clock_rate: u32,
    kind: Kind,
}

impl Voice {
    /// The most preferred codec that we can make: G.711, or linear at 8,000 or 16,000 Hz. `None` when the peer takes
    /// none of them; then nothing is played.
    pub fn choose(send: &[Payload]) -> Option<Self> {
        let makes = |payload: &&Payload| match payload.codec.kind() {
            Kind::Pcmu | Kind::Pcma => payload.codec.clock_rate == SAMPLE_RATE && payload.codec.channels == 1,
            Kind::L16 => matches!(payload.codec.clock_rate, 8_000 | 16_000) && payload.codec.channels == 1,
            Kind::TelephoneEvent | Kind::ComfortNoise | Kind::Other => false,
        };
        let payload = send.iter().find(makes)?;
        let (payload_type, codec) = (payload.payload_type, &payload.codec);
        Some(Self { payload_type, clock_rate: codec.clock_rate, kind: codec.kind() })
    }

    /// RTP clock ticks of a packet.
    pub fn ticks(&self, ptime_ms: u8) -> u32 {
        self.clock_rate / 1_000 * u32::from(ptime_ms)
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

    /// Writes the payload of the next `ptime_ms` and returns its length; `None` when the samples have come to an end.
    pub fn fill(&mut self, voice: Voice, ptime_ms: u8, out: &mut [u8; MAX_PAYLOAD]) -> Option<usize> {
        if matches!(&self.what, Sound::Samples { samples, repeat: false } if self.position >= samples.len()) {
            return None;
        }
        let mut left = usize::from(ptime_ms) * (SAMPLE_RATE / 1_000) as usize;
        let mut len = 0;
        let mut chunk = [0; CHUNK];
        while left > 0 {
            let samples = &mut chunk[..left.min(CHUNK)];
            self.take(samples);
            len += encode(voice, samples, &mut out[len..]);
            left -= samples.len();
        }
        Some(len)
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

/// Encodes samples at 8,000 Hz; the bytes written.
fn encode(voice: Voice, samples: &[i16], out: &mut [u8]) -> usize {
    let out_of = |times: usize| samples.len() * times;
    match voice.kind {
        Kind::Pcmu => g711::encode_ulaw(samples, &mut out[..out_of(1)]),
        Kind::Pcma => g711::encode_alaw(samples, &mut out[..out_of(1)]),
        _ => {
            // Tones and silence at 16,000 Hz: each sample twice. An image above 4 kHz is no harm for either.
            let times = (voice.clock_rate / SAMPLE_RATE) as usize;
            for (bytes, sample) in out.chunks_exact_mut(2 * times).zip(samples) {
                bytes.chunks_exact_mut(2).for_each(|pair| pair.copy_from_slice(&sample.to_be_bytes()));
            }
            return out_of(2 * times);
        }
    }
    out_of(1)
}
