//! The packet path: a datagram in, a verdict out.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Channel, Forward, Refusal, Relay, Slot, Tapped, Verdict};
use crate::bridge::command::{Digits, Notice};
use crate::bridge::latch::Judgement;
use crate::bridge::leg::Leg;
use crate::bridge::outgoing::Incoming;
use crate::bridge::press::Pressed;
use crate::bridge::tone::Tone;
use crate::codec::Kind;
use crate::rtp::Header;
use crate::rtp::rtcp::{Compound, Item};
use crate::rtp::source::Order;
use crate::rtp::telephone_event::TelephoneEvent;
use crate::rtp::view::is_rtcp;

/// Audio packets are at most this long; a longer step between two of them is silence that was left out.
const LONGEST_PACKET: Duration = Duration::from_millis(200);

impl Relay {
    /// A datagram came on a leg's socket. The verdict's ranges are of `datagram`, whose header may have been replaced.
    pub fn packet(
        &mut self,
        slot: Slot,
        channel: Channel,
        from: SocketAddr,
        datagram: &mut [u8],
        now: Instant,
    ) -> Verdict {
        let Some(leg) = self.legs.get_mut(slot.0) else { return Verdict::refuse(Refusal::NoLeg) };
        let muxed = channel == Channel::Rtp && leg.rtcp_mux && is_rtcp(datagram);
        if channel == Channel::Rtcp || muxed {
            return match receive_rtcp(leg, muxed, from, datagram, now) {
                Ok(()) => Verdict::default(),
                Err(refusal) => leg.refuse(refusal),
            };
        }
        let header = match Header::parse(datagram) {
            Ok(header) => header,
            Err(malformed) => return leg.refuse(Refusal::Malformed(malformed)),
        };
        let incoming = leg.receive.get(header.payload_type);
        let judgement = leg.rtp.judge(from, header.ssrc, Some(header.sequence), incoming.is_some(), now);
        if (incoming.is_none() || judgement == Judgement::Refuse) && leg.lets_wait(from, datagram, now) {
            return Verdict::default();
        }
        let Some(incoming) = incoming else { return self.unknown_payload(slot, from, &header) };
        if judgement == Judgement::Refuse {
            return leg.refuse(Refusal::Source);
        }
        let order = leg.count_received(header.ssrc, header.sequence, now);
        let longest = (LONGEST_PACKET.as_millis() as u32) * (incoming.clock_rate / 1_000);
        leg.watchdog.rtp(&header, incoming.kind, longest, now);
        if let Some(source) = leg.source.as_mut().filter(|_| incoming.kind != Kind::TelephoneEvent) {
            let arrival = now.saturating_duration_since(self.options.epoch);
            source.measure(arrival, header.timestamp, incoming.clock_rate);
        }
        if judgement == Judgement::Latched {
            self.notices.push_back(Notice::Latched { leg: leg.id, from });
        }
        let taps = leg.taps;
        let tap = (!taps.recorders().is_empty()).then_some(Tapped { leg: leg.id, header, taps });
        let event = incoming.kind == Kind::TelephoneEvent;
        let packet = Incoming { from: leg.id, header: &header, clock_rate: incoming.clock_rate, event };
        let mix = self.legs[slot.0].to_mixer(header);
        let forward = self.forward(slot.0, packet, order, datagram, now);
        Verdict { forward, tap, mix, refused: None }
    }

    /// Counts a copy for a recorder whose ring was full.
    pub fn count_untapped(&mut self, slot: Slot) {
        self.legs.get_mut(slot.0).into_iter().for_each(Leg::count_untapped);
    }

    fn forward(
        &mut self,
        from: usize,
        packet: Incoming<'_>,
        order: Order,
        datagram: &mut [u8],
        now: Instant,
    ) -> Option<Forward> {
        let to_key = self.legs[from].to?;
        let (leg, to) = self.legs.get2_mut(from, to_key)?;
        if to.hears_mixer() {
            return None;
        }
        match order {
            Order::Doubtful => return None,
            Order::Restarted => to.outgoing.interrupt(),
            Order::Newer { .. } | Order::Behind => {}
        }
        let destination = to.rtp_destination().filter(|_| leg.direction.receives());
        let Some(destination) = destination else {
            to.outgoing.interrupt();
            return None;
        };
        let known = leg.map.get(packet.header.payload_type);
        let Some(payload_type) = known.filter(|_| !to.sounds(now)) else {
            to.outgoing.leave_out(packet.from, packet.header);
            if packet.event && known.is_none() {
                self.sound(to_key, packet, &datagram[packet.header.payload()], now);
            }
            return None;
        };
        let outgoing = to.outgoing.forward(packet, payload_type, to.ptime_ms, now)?;
        let range = outgoing.replace(packet.header, datagram);
        Some(Forward { slot: Slot(to_key), to: destination, range })
    }

    /// A digit for a peer that takes no telephone events: what else it would hear waits until its tone is over.
    fn sound(&mut self, key: usize, packet: Incoming<'_>, payload: &[u8], now: Instant) {
        let Some(event) = TelephoneEvent::parse(payload) else { return };
        let (timestamp, clock_rate) = (packet.header.timestamp, packet.clock_rate);
        let to = &mut self.legs[key];
        if to.digits == Digits::Notice {
            let Some(pressed) = Pressed::of(packet.from, event, timestamp, clock_rate, now) else { return };
            return self.hear_digit(key, pressed, event.end, now);
        }
        match &mut to.tone {
            Some(tone) if tone.is_of(timestamp) => tone.go_on(event, clock_rate, now),
            _ if to.sounded == Some(timestamp) => {}
            _ => {
                to.sounded = Some(timestamp);
                self.begin_tone(key, Tone::begin(event, timestamp, clock_rate, now), now);
            }
        }
    }

    fn unknown_payload(&mut self, slot: Slot, from: SocketAddr, header: &Header) -> Verdict {
        let leg = &mut self.legs[slot.0];
        let (id, to) = (leg.id, leg.to);
        leg.count_refused();
        if let Some(to) = to.filter(|_| leg.rtp.accepts(from)) {
            self.legs[to].outgoing.leave_out(id, header);
        }
        Verdict::refuse(Refusal::PayloadType)
    }
}

impl Verdict {
    fn refuse(refusal: Refusal) -> Self {
        Self { refused: Some(refusal), ..Self::default() }
    }
}

impl Leg {
    fn refuse(&mut self, refusal: Refusal) -> Verdict {
        self.count_refused();
        Verdict::refuse(refusal)
    }
}

/// RTCP ends here: it is life, the time of the last SR, and the end of a source.
fn receive_rtcp(leg: &mut Leg, muxed: bool, from: SocketAddr, bytes: &[u8], now: Instant) -> Result<(), Refusal> {
    let compound = Compound::parse(bytes).map_err(Refusal::Malformed)?;
    if muxed {
        // On the RTP socket its latch counts, and RTCP does not move it.
        let expected = leg.rtp.destination().or(leg.rtp.latched());
        if expected != Some(from) {
            return Err(Refusal::Source);
        }
    } else if leg.rtcp_mux || leg.rtcp.judge(from, compound.ssrc, None, true, now) == Judgement::Refuse {
        return Err(Refusal::Source);
    }
    leg.watchdog.alive(now);
    compound.for_each(|item| match item {
        Item::Sender { ssrc, info } if leg.source.as_ref().is_some_and(|source| source.ssrc() == ssrc) => {
            leg.last_sr = Some(((info.ntp >> 16) as u32, now));
        }
        Item::Bye(ssrc) => leg.source.iter_mut().filter(|source| source.ssrc() == ssrc).for_each(|source| source.end()),
        Item::Sender { .. } | Item::Block(_) => {}
    });
    Ok(())
}
