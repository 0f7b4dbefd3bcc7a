//! Digits that do not go through as packets: pressed by us towards a peer, or told to signaling.

use std::time::{Duration, Instant};

use super::{Channel, Error, MAX_TRANSMIT, Reason, Relay, Slot, Transmit};
use crate::bridge::command::{Digit, Digits, Notice};
use crate::bridge::press::{Pressed, Step, event_bytes, event_payload};
use crate::bridge::tone::Tone;
use crate::id::LegId;
use crate::rtp::Header;
use crate::rtp::telephone_event::TelephoneEvent;
use crate::rtp::view::FIXED_LEN;

impl Relay {
    /// How digits of events reach the leg's peer when it takes no telephone events.
    pub fn digits(&mut self, leg: LegId, to: Digits) -> Result<(), Error> {
        let key = self.slot(leg)?.0;
        self.legs[key].digits = to;
        Ok(())
    }

    /// Whether signaling is told of the digits that the leg's own peer presses.
    pub fn collect(&mut self, leg: LegId, digits: bool) -> Result<(), Error> {
        let key = self.slot(leg)?.0;
        let leg = &mut self.legs[key];
        if leg.collects && !digits {
            // What is pressed right now is not told any more.
            leg.pressed = None;
        }
        leg.collects = digits;
        Ok(())
    }

    /// An event of a peer whose digits are collected.
    pub(super) fn collected(&mut self, key: usize, header: &Header, clock_rate: u32, payload: &[u8], now: Instant) {
        let Some(event) = TelephoneEvent::parse(payload) else { return };
        if let Some(pressed) = Pressed::of(self.legs[key].id, event, header.timestamp, clock_rate, now) {
            self.hear_digit(key, pressed, event.end, now);
        }
    }

    /// A digit for the leg's peer: as a telephone event, else as a tone. After those that were pressed before.
    pub fn press(&mut self, leg: LegId, digit: Digit, length: Duration, now: Instant) -> Result<(), Error> {
        let key = self.slot(leg)?.0;
        let pushed = self.legs[key].presses.push(digit, length);
        self.arm_digits(key, now);
        if pushed { Ok(()) } else { Err(Error::Presses(leg)) }
    }

    pub(super) fn arm_digits(&mut self, key: usize, now: Instant) {
        let leg = &mut self.legs[key];
        let ended = leg.pressed.as_ref().map(|pressed| pressed.until);
        if let Some(due) = leg.presses.due(now).into_iter().chain(ended).min() {
            self.timers.arm(&mut leg.armed, key, Reason::Digit, due);
        }
    }

    /// What is due of both kinds of digits.
    pub(super) fn digits_on(&mut self, key: usize, now: Instant, out: &mut [u8; MAX_TRANSMIT]) -> Option<Transmit> {
        let over = self.legs[key].pressed.take_if(|pressed| pressed.until <= now);
        over.into_iter().for_each(|pressed| self.tell_digit(key, pressed));
        let transmit = self.press_on(key, now, out);
        self.arm_digits(key, now);
        transmit
    }

    fn press_on(&mut self, key: usize, now: Instant, out: &mut [u8; MAX_TRANSMIT]) -> Option<Transmit> {
        let leg = &mut self.legs[key];
        let payload = event_payload(&leg.send_payloads, leg.voice.map(|voice| voice.clock_rate()));
        let Some(to) = leg.rtp_destination() else {
            leg.presses.forget();
            return None;
        };
        let step = leg.presses.step(payload.is_some(), leg.ptime(), now)?;
        let (Step::Event { digit, first, told, end }, Some((payload_type, clock_rate))) = (step, payload) else {
            if let Step::Tone(digit, length) = step {
                self.begin_tone(key, Tone::press(digit, length, now), now);
            } else {
                // Telephone events were taken back in the middle of one.
                leg.presses.forget();
            }
            return None;
        };
        let ticks = clock_rate / 1_000 * u32::from(leg.ptime_ms);
        let header = leg.outgoing.event(payload_type, clock_rate, ticks, first, now);
        leg.outgoing.count(TelephoneEvent::LEN);
        out[..FIXED_LEN].copy_from_slice(&header.encode());
        let payload = &mut out[FIXED_LEN..FIXED_LEN + TelephoneEvent::LEN];
        payload.copy_from_slice(&event_bytes(digit, told, clock_rate, end));
        let len = FIXED_LEN + TelephoneEvent::LEN;
        Some(Transmit { slot: Slot(key), channel: Channel::Rtp, to, len, tap: None })
    }

    pub(super) fn begin_tone(&mut self, key: usize, tone: Option<Tone>, now: Instant) {
        let leg = &mut self.legs[key];
        // A peer of whose codecs we can make none hears no tone.
        leg.tone = tone.filter(|_| leg.voice.is_some());
        if leg.tone.is_some() {
            self.timers.arm(&mut leg.armed, key, Reason::Play, now);
        }
    }

    /// A packet of an event for a leg whose peer is told by signaling, once, at the event's end.
    pub(super) fn hear_digit(&mut self, key: usize, heard: Pressed, end: bool, now: Instant) {
        let leg = &mut self.legs[key];
        if leg.sounded == Some(heard.timestamp) {
            return;
        }
        let mut heard = heard;
        match leg.pressed.take() {
            Some(before) if before.timestamp == heard.timestamp => heard.length = heard.length.max(before.length),
            Some(before) => self.tell_digit(key, before),
            None => {}
        }
        if end {
            return self.tell_digit(key, heard);
        }
        self.legs[key].pressed = Some(heard);
        self.arm_digits(key, now);
    }

    fn tell_digit(&mut self, key: usize, pressed: Pressed) {
        let Pressed { from, digit, timestamp, length, .. } = pressed;
        self.legs[key].sounded = Some(timestamp);
        self.notices.push_back(Notice::Digit { leg: from, digit, length });
    }
}
