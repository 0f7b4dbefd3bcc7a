//! Streams that need no decision from packet to packet, and the account of what went on without one.

use std::time::{Duration, Instant};

use super::packets::LONGEST_PACKET;
use super::{Relay, Slot, Tapped};
use crate::bridge::outgoing::Incoming;
use crate::bridge::route::Onward;
use crate::bridge::shortcut::Shortcut;
use crate::codec::Kind;
use crate::id::LegId;
use crate::rtp::Header;

impl Relay {
    /// What becomes of the packets of a leg's peer with that payload type, when that is the same for all of them: both
    /// latched, one relayed to the other as it is, nothing of ours between. With it goes the newest sequence number and
    /// timestamp.
    pub fn shortcut(&self, slot: Slot, payload_type: u8, now: Instant) -> Option<(Shortcut, (u16, u32))> {
        let leg = self.legs.get(slot.0)?;
        let hearer = leg.to?;
        let to = self.legs.get(hearer)?;
        let audio = !matches!(leg.receive.get(payload_type)?.kind, Kind::TelephoneEvent | Kind::ComfortNoise);
        let onward = leg.map.get(payload_type)?;
        // One that is left out would move the numbers of those after it.
        let as_it_is = |onward: Onward| onward.recoding.is_none_or(|recoding| recoding.is_identity());
        let all = leg.receive_payloads.iter().all(|payload| leg.map.get(payload.payload_type).is_some_and(as_it_is));
        let apart = leg.mixing.is_none() && to.mixing.is_none();
        let digit = to.presses.due(now).is_some() || to.sounds(now);
        let ours = digit || to.beep.is_some() || to.player.is_some();
        if !audio || !all || !apart || ours || !leg.direction.receives() {
            return None;
        }
        let steady = to.outgoing.steady(leg.id)?;
        let shortcut = Shortcut {
            leg: leg.id,
            slot,
            from: leg.rtp.latched()?,
            hearer: Slot(hearer),
            to: to.rtp_destination()?,
            ssrc: (steady.ssrc, to.outgoing.ssrc()),
            payload_type: (payload_type, onward.payload_type),
            sequence_offset: steady.sequence_offset,
            timestamp_offset: steady.timestamp_offset,
            clock_rate: steady.clock_rate,
            tapped: !leg.taps.recorders().is_empty(),
        };
        Some((shortcut, steady.newest))
    }

    /// The leg that a slot's peer hears.
    pub fn heard_by(&self, slot: Slot) -> Option<Slot> {
        self.legs.get(slot.0)?.hears.map(Slot)
    }

    /// A packet went on under a [`Shortcut`] of this leg when it arrived, `at`; the copy that the recorders get. `len`: of its
    /// payload, which `header` need not know. `None` also when the leg has gone since.
    pub fn went_on(&mut self, slot: Slot, leg: LegId, header: &Header, len: usize, at: Instant) -> Option<Tapped> {
        let leg = self.legs.get_mut(slot.0).filter(|here| here.id == leg)?;
        let incoming = leg.receive.get(header.payload_type)?;
        leg.rtp.heard(at);
        leg.count_received(header.ssrc, header.sequence, at);
        let longest = (LONGEST_PACKET.as_millis() as u32) * (incoming.clock_rate / 1_000);
        leg.watchdog.rtp(header, incoming.kind, longest, at);
        if let Some(source) = &mut leg.source {
            let arrival: Duration = at.saturating_duration_since(self.options.epoch);
            source.measure(arrival, header.timestamp, incoming.clock_rate);
        }
        let taps = leg.taps;
        let tapped = Tapped { leg: leg.tapped_as, header: *header, taps };
        let clock_rate = incoming.clock_rate;
        let packet = Incoming { from: leg.id, header, clock_rate, sent_rate: clock_rate, sent_len: len, event: false };
        if let Some(to) = leg.to.and_then(|to| self.legs.get_mut(to)) {
            to.outgoing.went_on(packet, at);
        }
        (!taps.recorders().is_empty()).then_some(tapped)
    }
}
