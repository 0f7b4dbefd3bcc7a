//! A media thread's side of the mixers.

use std::time::Instant;

use super::MixerEnds;
use crate::bridge::relay::{MAX_TRANSMIT, Relay, ToMixer, Transmit};
use crate::id::MixerId;
use crate::record::tap::TapHeader;
use crate::runtime::mixer::wire::{self, FromMixer};
use crate::runtime::ring::Frame;

/// Rings to and from the mixers, by `MixerId`.
pub(super) struct Mixers(Vec<MixerEnds>);

impl Mixers {
    pub fn new(ends: Vec<MixerEnds>) -> Self {
        Self(ends)
    }

    /// A packet for a mixer; what finds the ring full is lost to the conference, and concealed there. False then.
    pub fn push(&mut self, mix: &ToMixer, payload: &[u8], arrival_ns: u64) -> bool {
        let header = TapHeader {
            leg: mix.leg,
            arrival_ns,
            timestamp: mix.header.timestamp,
            ssrc: mix.header.ssrc,
            sequence: mix.header.sequence,
            len: 0,
            payload_type: mix.header.payload_type,
            marker: mix.header.marker,
        };
        self.0.get_mut(usize::from(mix.mixer.0)).is_some_and(|ends| ends.to.push(header, payload))
    }

    pub fn publish(&mut self) {
        self.0.iter_mut().for_each(|ends| ends.to.publish());
    }

    pub fn flush(&mut self) {
        self.0.iter_mut().for_each(|ends| ends.to.flush());
    }

    /// Hands what the mixers made to the relay, and its packets to `send`.
    pub fn take(&mut self, relay: &mut Relay, now: Instant, mut send: impl FnMut(Transmit, &[u8; MAX_TRANSMIT])) {
        let mut out = None;
        for (n, ends) in self.0.iter_mut().enumerate() {
            let mixer = MixerId(n as u8);
            let mut one = |frame: Frame<'_>| {
                // Drops are counted where they were made: by the mixer, whose ring was full.
                let Frame::Packet(header, payload) = frame else { return };
                match wire::read(mixer, header, payload) {
                    Some(FromMixer::Audio(packet)) => {
                        let out = out.get_or_insert([0; MAX_TRANSMIT]);
                        if let Some(transmit) = relay.mixed(header.leg, packet, now, out) {
                            send(transmit, out);
                        }
                    }
                    // A peer for which 32 digits wait already gets no more.
                    Some(FromMixer::Digit(digit, length)) => _ = relay.press(header.leg, digit, length, now),
                    Some(FromMixer::Left) => relay.leave_mixer(header.leg, mixer),
                    None => {}
                }
            };
            while ends.from.pop(&mut one).is_some() {}
        }
    }
}
