//! Digits between peers of which one speaks telephone events and the other does not: those that we press towards a peer
//! (RFC 4733 §2.5.1, or a tone), and those of a peer whose other side is to be told by signaling.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::command::Digit;
use crate::codec::{Kind, Payload};
use crate::id::LegId;
use crate::rtp::seq::ticks;
use crate::rtp::telephone_event::TelephoneEvent;

/// Digits that may wait to be pressed towards a peer.
pub const MAX_PRESSES: usize = 32;
/// Between two digits: receivers need 40 ms to tell them apart (ITU-T Q.24), with a margin.
const PAUSE: Duration = Duration::from_millis(60);
/// Shortest and longest press: what receivers take for a digit, and what fits an event's duration field at 8,000 Hz.
const LENGTH: (Duration, Duration) = (Duration::from_millis(60), Duration::from_secs(6));
/// The end is said three times (RFC 4733 §2.5.1.4).
const ENDS: u8 = 3;
/// The level of our events: −10 dBm0.
const VOLUME: u8 = 10;
/// An event without further packets has ended: its last ones are lost.
const PATIENCE: Duration = Duration::from_millis(120);

/// Digits to be pressed towards one peer, one after the other.
#[derive(Debug, Default)]
pub struct Presses {
    queue: VecDeque<(Digit, Duration)>,
    event: Option<Event>,
    /// When the next one may begin.
    free: Option<Instant>,
}

/// A telephone event of our own on its way.
#[derive(Debug)]
struct Event {
    digit: Digit,
    /// Told so far.
    told: Duration,
    length: Duration,
    ends: u8,
    next: Instant,
}

/// What to do for the digit that is due.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// A packet of an event: `first` of it, with the duration so far.
    Event {
        /// Which.
        digit: Digit,
        /// The first packet.
        first: bool,
        /// The duration so far.
        told: Duration,
        /// It ends here.
        end: bool,
    },
    /// The peer takes no events: a tone of that length.
    Tone(Digit, Duration),
}

impl Presses {
    /// One more; false when too many wait.
    pub fn push(&mut self, digit: Digit, length: Duration) -> bool {
        let room = self.queue.len() < MAX_PRESSES;
        if room {
            self.queue.push_back((digit, length.clamp(LENGTH.0, LENGTH.1)));
        }
        room
    }

    /// When something is due; `now` stands for "at once".
    pub fn due(&self, now: Instant) -> Option<Instant> {
        match &self.event {
            Some(event) => Some(event.next),
            None => self.queue.front().map(|_| self.free.unwrap_or(now)),
        }
    }

    /// True while an event of ours is on its way: audio waits for its end.
    pub fn speaks(&self) -> bool {
        self.event.is_some()
    }

    /// The peer cannot be sent anything: what was pressed has come to nothing.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// What is due now; `events`: the peer takes telephone events.
    pub fn step(&mut self, events: bool, ptime: Duration, now: Instant) -> Option<Step> {
        if self.due(now).is_none_or(|due| due > now) {
            return None;
        }
        let first = self.event.is_none();
        if first {
            let (digit, length) = self.queue.pop_front()?;
            if !events {
                self.free = Some(now + length + PAUSE);
                return Some(Step::Tone(digit, length));
            }
            self.event = Some(Event { digit, told: Duration::ZERO, length, ends: 0, next: now });
        }
        let event = self.event.as_mut()?;
        event.told = (event.told + ptime).min(event.length);
        event.next += ptime;
        let end = event.told == event.length;
        event.ends += u8::from(end);
        let step = Step::Event { digit: event.digit, first, told: event.told, end };
        if event.ends == ENDS {
            self.free = Some(event.next + PAUSE);
            self.event = None;
        }
        Some(step)
    }
}

/// The payload type of telephone events towards a peer; with the clock of its voice when there are several.
pub fn event_payload(send: &[Payload], clock_rate: Option<u32>) -> Option<(u8, u32)> {
    let events = || send.iter().filter(|payload| payload.codec.kind() == Kind::TelephoneEvent);
    let chosen = events().find(|payload| Some(payload.codec.clock_rate) == clock_rate).or_else(|| events().next())?;
    Some((chosen.payload_type, chosen.codec.clock_rate))
}

/// The payload of an event of ours. What the duration field cannot hold stays at its largest value.
pub fn event_bytes(digit: Digit, told: Duration, clock_rate: u32, end: bool) -> [u8; TelephoneEvent::LEN] {
    let duration = u16::try_from(ticks(told, clock_rate)).unwrap_or(u16::MAX);
    TelephoneEvent { event: digit.event(), end, volume: VOLUME, duration }.encode()
}

/// A digit that a peer is pressing, of which signaling is told at its end.
#[derive(Debug)]
pub struct Pressed {
    /// Who presses it.
    pub from: LegId,
    pub digit: Digit,
    /// The event's timestamp: all its packets have it.
    pub timestamp: u32,
    /// The duration so far.
    pub length: Duration,
    /// It counts as ended then.
    pub until: Instant,
}

impl Pressed {
    /// A packet of an event came; `None` when it is no digit.
    pub fn of(from: LegId, event: TelephoneEvent, timestamp: u32, clock_rate: u32, now: Instant) -> Option<Self> {
        let digit = Digit::new(event.event)?;
        let length = Duration::from_secs_f64(f64::from(event.duration) / f64::from(clock_rate.max(1)));
        Some(Self { from, digit, timestamp, length, until: now + PATIENCE })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Codec;

    #[test]
    fn no_more_digits_wait_than_there_is_room_for() {
        let mut presses = Presses::default();
        let digit = Digit::new(5).unwrap();
        let taken = (0..MAX_PRESSES + 3).filter(|_| presses.push(digit, Duration::from_millis(100))).count();
        assert_eq!(taken, MAX_PRESSES);
        presses.forget();
        assert!(presses.due(crate::clock::now()).is_none() && presses.push(digit, Duration::ZERO));
    }

    #[test]
    fn events_are_sent_with_the_clock_of_the_voice_where_the_peer_has_both() {
        let event = |payload_type, clock| Payload { payload_type, codec: Codec::new("telephone-event", clock, 1) };
        let send = [event(97, 48_000), event(101, 8_000)];
        assert_eq!(event_payload(&send, Some(8_000)), Some((101, 8_000)));
        assert_eq!(event_payload(&send, None), Some((97, 48_000)));
        assert_eq!(event_payload(&[Payload { payload_type: 0, codec: Codec::pcmu() }], None), None);
        let longest = event_bytes(Digit::new(1).unwrap(), LENGTH.1, 48_000, true);
        assert_eq!(TelephoneEvent::parse(&longest).unwrap().duration, u16::MAX);
    }
}
