//! The legs of one media thread. The packet path gives its answer at once: no queue, no allocation, no lock.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use slab::Slab;

use super::command::{LegStats, NewLeg, Notice, Playback, Remote};
use super::latch::Judgement;
use super::leg::Leg;
pub use super::leg::{MAX_TAPS, Taps};
use super::outgoing::Incoming;
use super::playback::{self, Player};
use super::route::Map;
pub use super::timers::Reason;
use super::timers::Timers;
use crate::codec::Kind;
use crate::id::{LegId, RecorderId};
use crate::rtp::rtcp::{self, Compound, Item, Report};
use crate::rtp::source::Order;
use crate::rtp::view::{FIXED_LEN, is_rtcp};
use crate::rtp::{Header, Malformed};

/// Legs of one relay; more are refused.
pub const MAX_LEGS: usize = 16_384;
/// Between two [`Notice::Stats`] of a leg.
const STATS_INTERVAL: Duration = Duration::from_secs(1);
/// The longest packet of ours: what a buffer for [`Relay::poll_transmit`] must hold.
pub const MAX_TRANSMIT: usize = FIXED_LEN + playback::MAX_PAYLOAD;
/// Audio packets are at most this long; a longer step between two of them is silence that was left out.
const LONGEST_PACKET: Duration = Duration::from_millis(200);

/// What a relay is given at its start.
#[derive(Debug)]
pub struct Options {
    /// The instant that jitter and NTP times are computed from.
    pub epoch: Instant,
    /// NTP time of the epoch: seconds since 1900 and 2⁻³² fractions.
    pub epoch_ntp: u64,
    /// Spreads the RTCP intervals.
    pub rng: StdRng,
}

/// A leg's place in its relay: small, dense, reused after the leg's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot(pub usize);

/// Which socket of a leg's pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// The even port.
    Rtp,
    /// The next one.
    Rtcp,
}

/// What to do with a datagram that came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Send this part of it on, first.
    pub forward: Option<Forward>,
    /// Then copy its payload to the recorders.
    pub tap: Option<Tapped>,
    /// Why it was not taken; it is counted.
    pub refused: Option<Refusal>,
}

/// A datagram to be sent on from the buffer that it came in, its header replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// The leg whose RTP socket sends it.
    pub slot: Slot,
    /// Where to.
    pub to: SocketAddr,
    /// Which bytes of the buffer.
    pub range: Range<usize>,
}

/// A copy for the recorders: the header as the peer sent it; the payload stands untouched in the buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tapped {
    /// The leg whose peer sent it.
    pub leg: LegId,
    /// The peer's own header; [`Header::payload`] is the range of the payload.
    pub header: Header,
    /// Who gets it.
    pub taps: Taps,
}

/// Why a datagram is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No leg lives in the slot.
    NoLeg,
    /// Neither RTP nor, where it is expected, RTCP.
    Malformed(Malformed),
    /// A payload type that was not negotiated.
    PayloadType,
    /// A source that is not the peer's, or not yet (spec/sip.md §7).
    Source,
}

/// A packet of our own to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// The leg.
    pub slot: Slot,
    /// Which of its sockets sends it.
    pub channel: Channel,
    /// Where to.
    pub to: SocketAddr,
    /// Bytes at the buffer's beginning.
    pub len: usize,
}

/// Why a command was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The leg is not, or not any more, in this relay.
    #[error("leg {0} is not here")]
    UnknownLeg(LegId),
    /// A leg of that name is here already.
    #[error("leg {0} exists")]
    Exists(LegId),
    /// [`MAX_LEGS`] are here.
    #[error("no room for another leg")]
    Full,
    /// A leg cannot be routed to itself.
    #[error("leg {0} cannot hear itself")]
    Itself(LegId),
}

/// All legs of one thread.
#[derive(Debug)]
pub struct Relay {
    options: Options,
    legs: Slab<Leg>,
    slots: HashMap<LegId, usize>,
    timers: Timers,
    notices: VecDeque<Notice>,
}

/// A leg between two relays: everything but its sockets.
#[derive(Debug)]
pub struct Detached(Leg);

impl Detached {
    /// Its name.
    pub fn id(&self) -> LegId {
        self.0.id
    }

    /// Its counters.
    pub fn stats(&self) -> LegStats {
        self.0.stats()
    }
}

// Commands.
impl Relay {
    /// A relay without legs.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            legs: Slab::new(),
            slots: HashMap::new(),
            timers: Timers::default(),
            notices: VecDeque::with_capacity(64),
        }
    }

    /// A leg begins. It receives and sends nothing before [`Relay::set_remote`].
    pub fn add(&mut self, new: &NewLeg, now: Instant) -> Result<Slot, Error> {
        self.insert(Leg::new(new), now).map_err(|(_, error)| error)
    }

    /// The slot of a leg.
    pub fn slot(&self, leg: LegId) -> Result<Slot, Error> {
        self.slots.get(&leg).copied().map(Slot).ok_or(Error::UnknownLeg(leg))
    }

    /// Legs that are here.
    pub fn len(&self) -> usize {
        self.legs.len()
    }

    /// The names of all legs.
    pub fn legs(&self) -> Vec<LegId> {
        self.legs.iter().map(|(_, leg)| leg.id).collect()
    }

    /// True when no leg is here.
    pub fn is_empty(&self) -> bool {
        self.legs.is_empty()
    }

    /// The peer's description changed.
    pub fn set_remote(&mut self, leg: LegId, remote: Remote) -> Result<(), Error> {
        let key = self.slot(leg)?.0;
        let leg = &mut self.legs[key];
        let could_send = leg.rtp_destination().is_some();
        leg.describe(remote);
        if could_send && leg.rtp_destination().is_none() {
            // What is sent after the hold is later than what was sent before it.
            leg.outgoing.interrupt();
            leg.player.iter_mut().for_each(Player::interrupt);
        }
        let hears = leg.hears;
        self.renew_map(key);
        hears.into_iter().for_each(|from| self.renew_map(from));
        Ok(())
    }

    /// From now on `to` hears `from`, and nobody else; a playback to it ends. `None`: nobody hears `from`.
    pub fn route(&mut self, from: LegId, to: Option<LegId>) -> Result<(), Error> {
        let from_key = self.slot(from)?.0;
        let to_key = to.map(|to| self.slot(to)).transpose()?.map(|slot| slot.0);
        if to_key == Some(from_key) {
            return Err(Error::Itself(from));
        }
        if self.legs[from_key].to == to_key {
            return Ok(());
        }
        self.cut(from_key);
        if let Some(to_key) = to_key {
            if let Some(before) = self.legs[to_key].hears {
                self.cut(before);
            }
            self.stop_playing(to_key);
            self.legs[to_key].hears = Some(from_key);
            self.legs[from_key].to = Some(to_key);
            self.renew_map(from_key);
        }
        Ok(())
    }

    /// Replaces what is played to a leg's peer; a route towards it ends when something is played.
    pub fn play(&mut self, leg: LegId, what: Playback, now: Instant) -> Result<(), Error> {
        let key = self.slot(leg)?.0;
        self.stop_playing(key);
        let Some(player) = Player::new(what, now) else { return Ok(()) };
        if let Some(before) = self.legs[key].hears {
            self.cut(before);
        }
        let leg = &mut self.legs[key];
        leg.outgoing.interrupt();
        leg.player = Some(player);
        self.timers.arm(&mut leg.armed, key, Reason::Play, now);
        Ok(())
    }

    /// Replaces the recorders of a leg; at most [`MAX_TAPS`] count.
    pub fn tap(&mut self, leg: LegId, recorders: &[RecorderId]) -> Result<(), Error> {
        let key = self.slot(leg)?.0;
        self.legs[key].taps = Taps::new(recorders);
        Ok(())
    }

    /// Arms or stops a leg's inactivity timer.
    pub fn watch(&mut self, leg: LegId, timeout: Option<Duration>, now: Instant) -> Result<(), Error> {
        let key = self.slot(leg)?.0;
        let leg = &mut self.legs[key];
        leg.watchdog.watch(timeout, now);
        leg.armed.disarm(Reason::Watch);
        if let Some(deadline) = leg.watchdog.deadline() {
            self.timers.arm(&mut leg.armed, key, Reason::Watch, deadline);
        }
        Ok(())
    }

    /// The RTCP BYE of a leg that is about to be removed, when it has reported before (RFC 3550 §6.3.7).
    pub fn farewell(&mut self, leg: LegId, now: Instant, out: &mut [u8; MAX_TRANSMIT]) -> Option<Transmit> {
        let key = self.slot(leg).ok()?.0;
        self.legs[key].reported.then(|| self.write_report(key, true, now, out)).flatten()
    }

    /// The leg ends. Its last counters are in a [`Notice::Removed`].
    pub fn remove(&mut self, leg: LegId) -> Result<Slot, Error> {
        let (slot, Detached(leg)) = self.detach(leg)?;
        self.notices.push_back(Notice::Removed { leg: leg.id, stats: leg.stats() });
        Ok(slot)
    }

    /// Takes a leg out, to be put into another relay. Routes to and from it end; all else stays as it is.
    pub fn detach(&mut self, leg: LegId) -> Result<(Slot, Detached), Error> {
        let key = self.slot(leg)?.0;
        self.cut(key);
        if let Some(from) = self.legs[key].hears {
            self.cut(from);
        }
        self.slots.remove(&leg);
        Ok((Slot(key), Detached(self.legs.remove(key))))
    }

    /// Puts a leg of another relay in; the leg comes back when there is no place for it.
    pub fn attach(&mut self, leg: Detached, now: Instant) -> Result<Slot, (Detached, Error)> {
        let id = leg.id();
        let slot = self.insert(leg.0, now).map_err(|(leg, error)| (Detached(leg), error))?;
        self.notices.push_back(Notice::Moved { leg: id });
        Ok(slot)
    }

    fn insert(&mut self, leg: Leg, now: Instant) -> Result<Slot, (Leg, Error)> {
        if self.slots.contains_key(&leg.id) {
            let error = Error::Exists(leg.id);
            return Err((leg, error));
        }
        if self.legs.len() >= MAX_LEGS {
            return Err((leg, Error::Full));
        }
        let id = leg.id;
        let key = self.legs.insert(leg);
        self.slots.insert(id, key);
        let leg = &mut self.legs[key];
        let report = rtcp::next_report(now, !leg.reported, &mut self.options.rng);
        self.timers.arm(&mut leg.armed, key, Reason::Report, report);
        self.timers.arm(&mut leg.armed, key, Reason::Stats, now + STATS_INTERVAL);
        if let Some(deadline) = leg.watchdog.deadline() {
            self.timers.arm(&mut leg.armed, key, Reason::Watch, deadline);
        }
        if let Some(player) = &leg.player {
            let next = player.next();
            self.timers.arm(&mut leg.armed, key, Reason::Play, next);
        }
        Ok(Slot(key))
    }

    fn cut(&mut self, from: usize) {
        let Some(to) = self.legs[from].to.take() else { return };
        self.legs[from].map = Map::empty();
        let to = &mut self.legs[to];
        to.hears = None;
        to.outgoing.interrupt();
    }

    fn stop_playing(&mut self, key: usize) {
        let leg = &mut self.legs[key];
        leg.player = None;
        leg.armed.disarm(Reason::Play);
    }

    fn renew_map(&mut self, from: usize) {
        if let Some(to) = self.legs[from].to {
            self.legs[from].map = Map::new(&self.legs[from].receive_payloads, &self.legs[to].send_payloads);
        }
    }
}

// The packet path.
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
        let forward = self.forward(slot.0, packet, order, datagram, now);
        Verdict { forward, tap, refused: None }
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
        let Some(payload_type) = leg.map.get(packet.header.payload_type) else {
            to.outgoing.leave_out(packet.from, packet.header);
            return None;
        };
        let outgoing = to.outgoing.forward(packet, payload_type, to.ptime_ms, now)?;
        let range = outgoing.replace(packet.header, datagram);
        Some(Forward { slot: Slot(to_key), to: destination, range })
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

// Time.
impl Relay {
    /// When to call [`Relay::poll_transmit`] next, and why; it may turn out that nothing is due.
    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        self.timers.next()
    }

    /// Does what is due and returns the next packet of our own, written to `out`; drain until `None`.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut [u8; MAX_TRANSMIT]) -> Option<Transmit> {
        while let Some((at, reason, key)) = self.timers.pop(now) {
            let Some(leg) = self.legs.get_mut(key) else { continue };
            if !leg.armed.fire(reason, at) {
                continue;
            }
            let transmit = match reason {
                Reason::Play => self.play_on(key, now, out),
                Reason::Report => {
                    let first = !leg.reported;
                    let next = rtcp::next_report(now, first, &mut self.options.rng);
                    self.timers.arm(&mut leg.armed, key, Reason::Report, next);
                    self.write_report(key, false, now, out)
                }
                Reason::Watch => {
                    self.look(key, now);
                    None
                }
                Reason::Stats => {
                    let (leg_id, stats) = (leg.id, leg.stats());
                    self.timers.arm(&mut leg.armed, key, Reason::Stats, now + STATS_INTERVAL);
                    self.notices.push_back(Notice::Stats { leg: leg_id, stats });
                    None
                }
            };
            if transmit.is_some() {
                return transmit;
            }
        }
        None
    }

    /// What signaling should know; drain until `None`.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    fn play_on(&mut self, key: usize, now: Instant, out: &mut [u8; MAX_TRANSMIT]) -> Option<Transmit> {
        let leg = &mut self.legs[key];
        let (ptime, ptime_ms, destination) = (leg.ptime(), leg.ptime_ms, leg.rtp_destination());
        let player = leg.player.as_mut()?;
        let steps = player.step(ptime, now);
        self.timers.arm(&mut leg.armed, key, Reason::Play, player.next());
        let (Some(to), Some(voice)) = (destination, leg.voice) else {
            player.interrupt();
            return None;
        };
        let payload: &mut [u8; playback::MAX_PAYLOAD] = out.last_chunk_mut()?;
        let Some(len) = player.fill(voice, ptime_ms, payload) else {
            self.stop_playing(key);
            return None;
        };
        let ticks = voice.ticks(ptime_ms);
        let header = leg.outgoing.own(voice.payload_type, voice.clock_rate, ticks, steps, now);
        leg.outgoing.count(len);
        out[..FIXED_LEN].copy_from_slice(&header.encode());
        Some(Transmit { slot: Slot(key), channel: Channel::Rtp, to, len: FIXED_LEN + len })
    }

    fn write_report(&mut self, key: usize, bye: bool, now: Instant, out: &mut [u8; MAX_TRANSMIT]) -> Option<Transmit> {
        let since_epoch = now.saturating_duration_since(self.options.epoch);
        let fraction = (u64::from(since_epoch.subsec_nanos()) << 32) / 1_000_000_000;
        let ntp = self.options.epoch_ntp.wrapping_add((since_epoch.as_secs() << 32) + fraction);
        let leg = &mut self.legs[key];
        let to = leg.rtcp_destination()?;
        let last_sr = leg.last_sr.map(|(middle, at)| (middle, now.saturating_duration_since(at)));
        let block = leg.source.as_mut().filter(|source| !source.has_ended()).map(|source| source.report(last_sr));
        let sender = leg.outgoing.report(ntp, now);
        let report = Report { ssrc: leg.outgoing.ssrc(), sender, block, cname: &leg.cname, bye };
        let len = report.write(out.first_chunk_mut()?);
        leg.reported = true;
        let channel = if leg.rtcp_mux { Channel::Rtp } else { Channel::Rtcp };
        Some(Transmit { slot: Slot(key), channel, to, len })
    }

    fn look(&mut self, key: usize, now: Instant) {
        let leg = &mut self.legs[key];
        if leg.watchdog.expired(now) {
            self.notices.push_back(Notice::Inactive { leg: leg.id });
        } else if let Some(deadline) = leg.watchdog.deadline() {
            self.timers.arm(&mut leg.armed, key, Reason::Watch, deadline);
        }
    }
}
