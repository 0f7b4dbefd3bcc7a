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
pub(super) const LONGEST_PACKET: Duration = Duration::from_millis(200);

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
        let tap = (!taps.recorders().is_empty()).then_some(Tapped { leg: leg.tapped_as, header, taps });
        let event = incoming.kind == Kind::TelephoneEvent;
        let clock_rate = incoming.clock_rate;
        let sent_len = header.payload_len();
        let packet = Incoming { from: leg.id, header: &header, clock_rate, sent_rate: clock_rate, sent_len, event };
        let unread = incoming.kind == Kind::ComfortNoise || event;
        if event && self.legs[slot.0].collects {
            self.collected(slot.0, &header, clock_rate, &datagram[header.payload()], now);
        }
        let mix = self.legs[slot.0].to_mixer(header);
        match self.forward(slot.0, packet, order, datagram, now) {
            Ok(forward) => Verdict { forward, tap, mix, refused: None },
            // Silence that was described is silence where the description is not understood.
            Err(_) if unread => Verdict { tap, mix, ..Verdict::default() },
            Err(refusal) => Verdict { tap, mix, ..self.legs[slot.0].refuse(refusal) },
        }
    }

    /// The bytes of a packet to be sent on: a part of the datagram that came, or made of it by us.
    pub fn sent<'a>(&'a self, forward: &Forward, datagram: &'a [u8]) -> &'a [u8] {
        let bytes = if forward.made { self.recoder.datagram() } else { datagram };
        &bytes[forward.range.clone()]
    }

    /// Counts a copy for a recorder whose ring was full.
    pub fn count_untapped(&mut self, slot: Slot) {
        self.legs.get_mut(slot.0).into_iter().for_each(Leg::count_untapped);
    }

    /// `Err`: its hearer takes nothing that it could be made into.
    fn forward(
        &mut self,
        from: usize,
        packet: Incoming<'_>,
        order: Order,
        datagram: &mut [u8],
        now: Instant,
    ) -> Result<Option<Forward>, Refusal> {
        let Some(to_key) = self.legs[from].to else { return Ok(None) };
        let Some((leg, to)) = self.legs.get2_mut(from, to_key) else { return Ok(None) };
        if to.hears_mixer() {
            return Ok(None);
        }
        match order {
            Order::Doubtful => return Ok(None),
            Order::Restarted => to.outgoing.interrupt(),
            Order::Newer { .. } | Order::Behind => {}
        }
        let destination = to.rtp_destination().filter(|_| leg.direction.receives());
        let Some(destination) = destination else {
            to.outgoing.interrupt();
            return Ok(None);
        };
        let onward = leg.map.get(packet.header.payload_type);
        let samples = onward.map(|onward| onward.recoding.map(|recoding| recoding.samples(packet.sent_len)));
        let known = onward.filter(|_| samples != Some(Some(None)));
        let heard = known.filter(|onward| !(to.sounds(now) || onward.recoding.is_none() && to.beeps_alone()));
        let Some(onward) = heard else {
            to.outgoing.leave_out(packet.from, packet.header);
            if known.is_some() {
                return Ok(None);
            }
            if packet.event {
                self.sound(to_key, packet, &datagram[packet.header.payload()], now);
            }
            return Err(Refusal::Codec);
        };
        let (slot, recoding) = (Slot(to_key), onward.recoding.zip(samples.flatten().flatten()));
        let sent_len = recoding.map_or(packet.sent_len, |(recoding, samples)| recoding.to.bytes(samples));
        let sent = Incoming { sent_rate: onward.clock_rate, sent_len, ..packet };
        let Some(outgoing) = to.outgoing.forward(sent, onward.payload_type, to.ptime_ms, now) else { return Ok(None) };
        if let Some((recoding, samples)) = recoding {
            let beep =
                to.beep.as_mut().and_then(|beep| beep.relayed(outgoing.timestamp, onward.clock_rate, samples, now));
            if beep.is_some() || !recoding.is_identity() {
                if outgoing.marker {
                    to.converter.reset();
                }
                let payload = &datagram[packet.header.payload()];
                let len = self.recoder.packet(&outgoing, payload, recoding, samples, beep, &mut to.converter);
                return Ok(Some(Forward { slot, to: destination, range: 0..len, made: true }));
            }
        }
        let range = outgoing.replace(packet.header, datagram);
        Ok(Some(Forward { slot, to: destination, range, made: false }))
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
