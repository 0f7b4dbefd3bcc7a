//! The recorder warning tone: a peer hears now and then that it is recorded.
//!
//! 1,400 Hz for a fifth of a second (FCC, use of recording devices, Docket 6787), at −20 dBFS: about the level of speech.
//! It is mixed into what the peer hears anyway and measured by the timestamps of what is sent, so that loss, reordering
//! and any packet duration leave it whole. Only where nothing is heard do packets of our own carry it.

use std::f32::consts::TAU;
use std::time::{Duration, Instant};

use super::outgoing::Steps;
use super::playback::Player;
use crate::rtp::seq::{timestamp_ahead, timestamp_plus};

/// How long a beep is, and how long it waits for media that could carry it.
const LENGTH: Duration = Duration::from_millis(200);
/// The least time from one beginning to the next.
const SHORTEST_EVERY: Duration = Duration::from_secs(1);
const HERTZ: f32 = 1_400.0;
/// Peak: a tenth of full scale.
const AMPLITUDE: f32 = 3_277.0;
/// Fade in and out, so that it does not click.
const RAMP: f32 = 0.005;
/// Positions are counted at this rate, a multiple of every rate of ours.
const FINE: u32 = 48_000;
/// A whole beep at that rate.
const FINE_LENGTH: u32 = FINE / 5;

/// The beeps of one leg.
#[derive(Debug)]
pub struct Beep {
    every: Duration,
    /// When the present or next one begins: absolute, so that lateness does not add up.
    due: Instant,
    /// How much of it has been sent, at [`FINE`].
    done: u32,
    /// When something of it was sent last.
    carried: Option<Instant>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Begins with the next packet that is due.
    Waits,
    /// Is in relayed packets: the timestamp of its beginning, and the clock.
    Relayed { origin: u32, clock_rate: u32 },
    /// Is in packets of our own.
    Alone(Player),
}

/// Where in a beep a packet begins.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    position: i32,
    sample_rate: u32,
}

impl Beep {
    /// The first one begins at once.
    pub fn new(every: Duration, now: Instant) -> Self {
        Self { every: every.max(SHORTEST_EVERY), due: now, done: 0, carried: None, state: State::Waits }
    }

    /// When the present or next one begins or began.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// True while packets of our own carry it.
    pub fn is_alone(&self) -> bool {
        matches!(self.state, State::Alone(_))
    }

    /// The part that belongs into a relayed packet of so many samples; `None`: none. `timestamp` and `clock_rate` (also the
    /// sample rate) are those towards the peer.
    pub fn relayed(&mut self, timestamp: u32, clock_rate: u32, samples: usize, now: Instant) -> Option<Part> {
        if self.due > now || clock_rate == 0 || !FINE.is_multiple_of(clock_rate) || samples == 0 {
            return None;
        }
        let fine = (FINE / clock_rate) as i32;
        let done = self.done as i32 / fine;
        let resumed = timestamp_plus(timestamp, done.wrapping_neg() as u32);
        let length = FINE_LENGTH as i32 / fine;
        let origin = match self.state {
            // After a gap as long as the beep it goes on where it was.
            State::Relayed { origin, clock_rate: before } if before == clock_rate => {
                if timestamp_ahead(timestamp, origin) < length { origin } else { resumed }
            }
            _ => resumed,
        };
        self.state = State::Relayed { origin, clock_rate };
        let position = timestamp_ahead(timestamp, origin);
        let end = position.saturating_add(samples as i32);
        if end <= 0 {
            return None;
        }
        self.done = self.done.max(end.min(length) as u32 * fine as u32);
        self.progress(now);
        Some(Part { position, sample_rate: clock_rate })
    }

    /// Adds the next part to samples at 8,000 Hz that are played to the peer.
    pub fn played(&mut self, samples: &mut [i16], now: Instant) {
        if self.due > now {
            return;
        }
        let fine = FINE / 8_000;
        Part { position: (self.done / fine) as i32, sample_rate: 8_000 }.add(samples);
        self.done = (self.done + samples.len() as u32 * fine).min(FINE_LENGTH);
        if !self.is_alone() {
            self.state = State::Waits;
        }
        self.progress(now);
    }

    /// Of a beep that is due: from when on packets of our own carry it unless something else does. `last_sent`: when
    /// anything was sent to the peer.
    pub fn alone_from(&self, last_sent: Option<Instant>) -> Instant {
        match &self.state {
            State::Alone(player) => player.next(),
            _ if last_sent.is_none_or(|sent| sent + LENGTH <= self.due) => self.due,
            _ => self.carried.filter(|carried| *carried > self.due).unwrap_or(self.due) + LENGTH,
        }
    }

    /// Something else is sent to the peer: what is left of the beep waits.
    pub fn give_way(&mut self) {
        if self.is_alone() {
            self.state = State::Waits;
        }
    }

    /// Goes on to the packet of our own that is due now.
    pub fn step(&mut self, ptime: Duration, now: Instant) -> Steps {
        if !self.is_alone() {
            self.state = State::Alone(Player::silence(now));
        }
        match &mut self.state {
            State::Alone(player) => player.step(ptime, now),
            State::Waits | State::Relayed { .. } => Steps::First,
        }
    }

    fn progress(&mut self, now: Instant) {
        self.carried = Some(now);
        if self.done >= FINE_LENGTH {
            let passed = now.saturating_duration_since(self.due);
            let beeps = (passed.as_nanos() / self.every.as_nanos()) as u32 + 1;
            self.due += self.every * beeps;
            self.done = 0;
            self.state = State::Waits;
        }
    }
}

impl Part {
    /// Adds it to the packet's samples.
    pub fn add(self, samples: &mut [i16]) {
        let length = self.sample_rate as i32 / 5;
        let rate = self.sample_rate as f32;
        let end = length as f32 / rate;
        for (sample, position) in samples.iter_mut().zip(self.position..) {
            if !(0..length).contains(&position) {
                continue;
            }
            let time = position as f32 / rate;
            let gain = (time.min(end - time) / RAMP).min(1.0);
            let tone = AMPLITUDE * gain * (TAU * (HERTZ * time).fract()).sin();
            *sample = sample.saturating_add(tone as i16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Packets of 20 ms at a clock, beginning at `now`: the tone of each.
    fn relay(beep: &mut Beep, clock: u32, range: std::ops::Range<u32>, now: Instant) -> Vec<Vec<i16>> {
        let samples = (clock / 50) as usize;
        let part = |n: u32| {
            let timestamp = (n * samples as u32).wrapping_sub(500);
            let mut out = vec![0; samples];
            if let Some(part) = beep.relayed(timestamp, clock, samples, now + ms(20 * u64::from(n))) {
                part.add(&mut out);
            }
            out
        };
        range.map(part).collect()
    }

    #[test]
    fn a_beep_is_a_fifth_of_a_second_at_every_rate_and_comes_again_without_drift() {
        let now = crate::clock::now();
        for clock in [8_000, 16_000, 48_000] {
            let mut beep = Beep::new(ms(15_000), now);
            let heard = relay(&mut beep, clock, 0..4_510, now);
            let sounding: Vec<usize> = (0..heard.len()).filter(|n| heard[*n].iter().any(|s| *s != 0)).collect();
            let expected: Vec<usize> = (0..7).flat_map(|beep| 750 * beep..750 * beep + 10).collect();
            assert_eq!(sounding, expected[..sounding.len()], "{clock}");
            assert_eq!(sounding.len(), 70);
            let samples = heard[2..8].concat();
            let rms = (samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / samples.len() as f64).sqrt();
            let dbfs = 20.0 * (rms * 2_f64.sqrt() / 32_768.0).log10();
            assert!((-20.1..-19.9).contains(&dbfs), "{dbfs}");
            let crossings = samples.windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count();
            assert!((167..=169).contains(&crossings), "1,400 Hz for 120 ms: {crossings}");
        }
    }

    #[test]
    fn a_late_and_a_lost_packet_leave_the_rest_in_its_place() {
        let now = crate::clock::now();
        let whole = relay(&mut Beep::new(ms(15_000), now), 8_000, 0..10, now);
        let mut beep = Beep::new(ms(15_000), now);
        let mut heard = relay(&mut beep, 8_000, 0..3, now);
        let after = relay(&mut beep, 8_000, 5..7, now);
        let late = relay(&mut beep, 8_000, 4..5, now);
        heard.extend([vec![], late[0].clone(), after[0].clone(), after[1].clone()]);
        for n in [0, 1, 2, 4, 5, 6] {
            assert_eq!(heard[n], whole[n], "packet {n}");
        }
    }

    #[test]
    fn what_carries_a_beep_may_change_in_the_middle_of_it() {
        let now = crate::clock::now();
        let mut beep = Beep::new(ms(15_000), now);
        let mut sounding = relay(&mut beep, 16_000, 0..4, now).len();
        let mut played = [0; 160];
        beep.played(&mut played, now + ms(80));
        sounding += usize::from(played.iter().any(|s| *s != 0));
        sounding += relay(&mut beep, 8_000, 5..20, now).iter().filter(|packet| packet.iter().any(|s| *s != 0)).count();
        assert_eq!(sounding, 10);
        assert_eq!(beep.due(), now + ms(15_000));
    }

    #[test]
    fn it_waits_for_media_where_media_flows_and_else_goes_alone() {
        let now = crate::clock::now();
        let mut beep = Beep::new(ms(15_000), now);
        assert_eq!(beep.alone_from(None), now);
        assert_eq!(beep.alone_from(Some(now - ms(300))), now);
        assert_eq!(beep.alone_from(Some(now - ms(15))), now + LENGTH);
        relay(&mut beep, 8_000, 0..3, now);
        assert_eq!(beep.alone_from(Some(now + ms(40))), now + ms(40) + LENGTH, "the rest of it");
    }
}
