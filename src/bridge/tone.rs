//! A digit in band, for a receiver that takes no telephone events: heard by it alone, never in a recording.

use std::time::{Duration, Instant};

use super::command::Digit;
use super::playback::Player;
use crate::rtp::telephone_event::TelephoneEvent;

/// The shortest tone that receivers must take (ITU-T Q.24 asks 40 ms; with a margin).
const SHORTEST: Duration = Duration::from_millis(60);
/// A tone goes on for so long after the newest packet of its event: the next ones may be lost.
const PATIENCE: Duration = Duration::from_millis(120);
/// Peak of each of the two sines: together at half of full scale.
const AMPLITUDE: f32 = 8_000.0;
/// Hz by row and by column (ITU-T Q.23).
const ROWS: [f32; 4] = [697.0, 770.0, 852.0, 941.0];
const COLUMNS: [f32; 4] = [1_209.0, 1_336.0, 1_477.0, 1_633.0];

/// A digit on its way.
#[derive(Debug)]
pub struct Tone {
    /// The event's timestamp: all its packets have it. `None`: a digit of our own.
    timestamp: Option<u32>,
    begun: Instant,
    until: Instant,
    pub player: Player,
}

impl Tone {
    /// An event begins; `None` when it is no digit.
    pub fn begin(event: TelephoneEvent, timestamp: u32, clock_rate: u32, now: Instant) -> Option<Self> {
        let player = Player::tone(Dual::of(event.event)?, now);
        let mut tone = Self { timestamp: Some(timestamp), begun: now, until: now, player };
        tone.go_on(event, clock_rate, now);
        Some(tone)
    }

    /// A digit of our own, so long.
    pub fn press(digit: Digit, length: Duration, now: Instant) -> Option<Self> {
        let player = Player::tone(Dual::of(digit.event())?, now);
        Some(Self { timestamp: None, begun: now, until: now + length, player })
    }

    /// True for packets of the event that it was begun for.
    pub fn is_of(&self, timestamp: u32) -> bool {
        self.timestamp == Some(timestamp)
    }

    /// Another packet of its event came.
    pub fn go_on(&mut self, event: TelephoneEvent, clock_rate: u32, now: Instant) {
        let so_far = Duration::from_secs_f64(f64::from(event.duration) / f64::from(clock_rate.max(1)));
        let end = self.begun + so_far.max(SHORTEST);
        self.until = if event.end { end } else { end.max(now + PATIENCE) };
    }

    /// True when it has been played.
    pub fn is_over(&self, now: Instant) -> bool {
        self.until <= now
    }
}

/// Two sines.
#[derive(Debug)]
pub struct Dual {
    hertz: [f32; 2],
    sample: u32,
}

impl Dual {
    /// Of an event code 0…15.
    fn of(event: u8) -> Option<Self> {
        let (row, column) = match event {
            1..=9 => (usize::from(event - 1) / 3, usize::from(event - 1) % 3),
            0 => (3, 1),
            10 => (3, 0),
            11 => (3, 2),
            12..=15 => (usize::from(event - 12), 3),
            _ => return None,
        };
        Some(Self { hertz: [ROWS[row], COLUMNS[column]], sample: 0 })
    }

    /// The next samples at 8,000 Hz.
    pub fn take(&mut self, out: &mut [i16]) {
        for sample in out {
            let time = self.sample as f32 / 8_000.0;
            let sum: f32 = self.hertz.iter().map(|hertz| (std::f32::consts::TAU * (hertz * time).fract()).sin()).sum();
            *sample = (AMPLITUDE * sum) as i16;
            self.sample += 1;
        }
    }
}
