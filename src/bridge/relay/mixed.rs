//! Legs in conferences: what their peers send goes to a mixer, what a mixer made goes to their peers.

use std::net::SocketAddr;
use std::time::Instant;

use super::{Channel, Error, MAX_TRANSMIT, Relay, Slot, Transmit};
use crate::bridge::command::mix::Mixing;
use crate::bridge::leg::Leg;
use crate::bridge::outgoing::Steps;
use crate::bridge::recode::Recoding;
use crate::id::{LegId, MixerId};
use crate::rtp::Header;
use crate::rtp::seq::timestamp_ahead;
use crate::rtp::view::{self, FIXED_LEN};

/// A packet of a leg that is in a conference; its payload stands untouched in the buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToMixer {
    /// The mixer that gets it.
    pub mixer: MixerId,
    /// The leg whose peer sent it.
    pub leg: LegId,
    /// The peer's own header; [`Header::payload`] is the range of the payload.
    pub header: Header,
}

/// What a mixer made for a leg's peer: 20 ms, a tick of the mixer's, whatever `ptime` the peer asks for. That is a
/// recommendation (RFC 8866 §6.4) and receivers take packets of up to 200 ms (RFC 3551 §4.2); longer ones would be heard
/// a tick later for each 20 ms, and packets of 10 ms would double what a member costs the kernel, which is most of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MixedPacket<'a> {
    /// The mixer.
    pub mixer: MixerId,
    /// The mixer's count of ticks: the timestamp goes on by as many packets as it does.
    pub tick: u32,
    /// RTP clock ticks of a packet.
    pub ticks: u32,
    /// RTP clock in Hz.
    pub clock_rate: u32,
    /// The peer's number for the codec.
    pub payload_type: u8,
    /// The mixer makes no more for it: the leg's peer hears who is routed to it again.
    pub last: bool,
    /// The encoded audio.
    pub payload: &'a [u8],
}

impl Relay {
    /// The leg is in a conference, or not any more. A playback to it ends when its peer is to hear the mixer.
    pub fn mix(&mut self, leg: LegId, mixing: Option<Mixing>) -> Result<(), Error> {
        let key = self.slot(leg)?.0;
        if mixing.is_some_and(|mixing| mixing.listens) {
            self.stop_playing(key);
        }
        let leg = &mut self.legs[key];
        let heard = leg.hears_mixer();
        leg.mixing = mixing;
        if leg.hears_mixer() != heard {
            leg.mixed_tick = None;
            leg.outgoing.interrupt();
        }
        Ok(())
    }

    /// The mixer takes no more packets of the leg; a packet of its own for the peer came before, marked as the last one.
    pub fn leave_mixer(&mut self, leg: LegId, mixer: MixerId) {
        let Ok(slot) = self.slot(leg) else { return };
        let leg = &mut self.legs[slot.0];
        if leg.mixing.is_some_and(|mixing| mixing.mixer == mixer) {
            leg.stop_listening();
            leg.mixing = None;
        }
    }

    /// A packet that a mixer made: written to `out` with its header, when the leg's peer may be sent it now.
    pub fn mixed(
        &mut self,
        leg: LegId,
        packet: MixedPacket<'_>,
        now: Instant,
        out: &mut [u8; MAX_TRANSMIT],
    ) -> Option<Transmit> {
        let slot = self.slot(leg).ok()?;
        let leg = &mut self.legs[slot.0];
        leg.mixing.filter(|mixing| mixing.listens && mixing.mixer == packet.mixer)?;
        let sent = leg.write_mixed(packet, now, out);
        if packet.last {
            leg.stop_listening();
        }
        let (to, header) = sent?;
        let len = FIXED_LEN + packet.payload.len();
        if let Some(coding) = leg.coding_of(packet.payload_type) {
            let recoding = Recoding { from: coding, to: coding };
            let beep = leg.beep.as_mut().zip(recoding.samples(packet.payload.len())).and_then(|(beep, samples)| {
                let part = beep.relayed(header.timestamp, packet.clock_rate, samples, now)?;
                Some((part, samples))
            });
            if let Some((part, samples)) = beep {
                let payload = packet.payload;
                let made = self.recoder.packet(&header, payload, recoding, samples, Some(part), &mut leg.converter);
                out.get_mut(..made)?.copy_from_slice(&self.recoder.datagram()[..made]);
            }
        }
        Some(Transmit { slot: Slot(slot.0), channel: Channel::Rtp, to, len, tap: None })
    }
}

impl Leg {
    /// Where a packet of the leg's peer goes besides its route.
    pub fn to_mixer(&self, header: Header) -> Option<ToMixer> {
        let mixing = self.mixing.filter(|_| self.direction.receives())?;
        Some(ToMixer { mixer: mixing.mixer, leg: self.id, header })
    }

    /// Its peer hears who is routed to it again; the mixer still gets what it sends.
    pub fn stop_listening(&mut self) {
        self.mixing.iter_mut().for_each(|mixing| mixing.listens = false);
        self.mixed_tick = None;
    }

    fn write_mixed(
        &mut self,
        packet: MixedPacket<'_>,
        now: Instant,
        out: &mut [u8; MAX_TRANSMIT],
    ) -> Option<(SocketAddr, view::Outgoing)> {
        let known = self.send_payloads.iter().any(|payload| payload.payload_type == packet.payload_type);
        let Some(to) = self.rtp_destination().filter(|_| known && !self.sounds(now)) else {
            // What is sent after a hold or a digit is later than what was sent before it.
            self.mixed_tick = None;
            return None;
        };
        let steps = match self.mixed_tick.map(|before| timestamp_ahead(packet.tick, before)) {
            // One tick makes one packet, also when a room hands a leg to another one.
            Some(..=0) => return None,
            Some(steps) => Steps::After(steps as u32),
            None => Steps::First,
        };
        let end = FIXED_LEN + packet.payload.len();
        out.get_mut(FIXED_LEN..end)?.copy_from_slice(packet.payload);
        self.mixed_tick = Some(packet.tick);
        let header = self.outgoing.own(packet.payload_type, packet.clock_rate, packet.ticks, steps, now);
        self.outgoing.count(packet.payload.len());
        out[..FIXED_LEN].copy_from_slice(&header.encode());
        Some((to, header))
    }
}
