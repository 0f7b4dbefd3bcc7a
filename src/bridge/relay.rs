//! The legs of one media thread. The packet path gives its answer at once: no queue, no allocation, no lock.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use slab::Slab;

use super::command::{LegStats, NewLeg, Notice, Playback, Remote, Tapping};
use super::leg::Leg;
pub use super::leg::{MAX_TAPS, Taps};
use super::playback::{self, PlayedTap, Player};
use super::recode::Recoder;
use super::route::Map;
pub use super::timers::Reason;
use super::timers::Timers;
pub use super::waiting::{Early, MAX_WAITING, Waiting};
use crate::id::{LegId, RecorderId};
use crate::rtp::rtcp;
use crate::rtp::view::FIXED_LEN;
use crate::rtp::{Header, Malformed};

mod beeps;
mod digits;
mod mixed;
mod packets;
mod shortcuts;
mod time;

pub use mixed::{MixedPacket, ToMixer};
use time::STATS_INTERVAL;

/// Legs of one relay; more are refused.
pub const MAX_LEGS: usize = 16_384;
/// Between two wake-ups for what is not urgent.
const GRID: Duration = Duration::from_millis(20);
/// Where in a buffer for [`Relay::poll_transmit`] the copy for the recorders stands.
pub const TAP_AT: usize = FIXED_LEN + playback::MAX_PAYLOAD;
/// What a buffer for [`Relay::poll_transmit`] must hold: the longest packet of ours, and the longest copy.
pub const MAX_TRANSMIT: usize = TAP_AT + playback::MAX_COPY;

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

impl Options {
    /// The last step of a common grid before `at`: what is not urgent is done for many legs in one wake-up. With 2,000
    /// legs their counters alone would wake the thread 2,000 times a second.
    fn together(&self, at: Instant) -> Instant {
        let late = at.saturating_duration_since(self.epoch).as_nanos() % GRID.as_nanos();
        at - Duration::from_nanos(late as u64)
    }
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
    /// And to its mixer.
    pub mix: Option<ToMixer>,
    /// Why it was not taken; it is counted.
    pub refused: Option<Refusal>,
}

/// A datagram to be sent on before the next packet is handed in; its bytes are at [`Relay::sent`]: in the buffer that it
/// came in with its header replaced, or, where its samples had to be changed, in one of the relay's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// The leg whose RTP socket sends it.
    pub slot: Slot,
    /// Where to.
    pub to: SocketAddr,
    range: Range<usize>,
    made: bool,
}

/// A copy for the recorders: the header as the peer sent it; the payload stands untouched in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tapped {
    /// The leg whose peer sent it, or its name for the recorder.
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
    /// Taken and tapped, but the leg that hears it takes nothing that it could be made into.
    Codec,
}

impl Refusal {
    /// What each is called where it is counted, by [`Refusal::index`].
    pub const LABELS: [&str; 5] = ["no-leg", "malformed", "payload-type", "source", "codec"];

    /// Its place in [`Refusal::LABELS`].
    pub fn index(self) -> usize {
        match self {
            Self::NoLeg => 0,
            Self::Malformed(_) => 1,
            Self::PayloadType => 2,
            Self::Source => 3,
            Self::Codec => 4,
        }
    }
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
    /// Copy what is played to the recorders: an RTP packet that stands at [`TAP_AT`].
    pub tap: Option<Tapped>,
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
    /// Too many digits wait to be pressed towards a peer.
    #[error("too many digits wait for the peer of leg {0}")]
    Presses(LegId),
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
    recoder: Recoder,
}

/// A leg between two relays: everything but its sockets.
#[derive(Debug)]
pub struct Detached(Box<Leg>);

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

impl Relay {
    /// A relay without legs.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            legs: Slab::new(),
            slots: HashMap::new(),
            timers: Timers::default(),
            notices: VecDeque::with_capacity(64),
            recoder: Recoder::new(),
        }
    }

    /// A leg begins. It receives and sends nothing before [`Relay::set_remote`]; what comes earlier waits for that.
    pub fn add(&mut self, new: &NewLeg, now: Instant) -> Result<Slot, Error> {
        self.room_for(new.leg)?;
        Ok(self.insert(Leg::new(new), now))
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

    /// A new description of a leg is awaited: what its peer sends ahead of it waits for it.
    pub fn await_remote(&mut self, leg: LegId) -> Result<(), Error> {
        let key = self.slot(leg)?.0;
        self.legs[key].waiting.get_or_insert_default();
        Ok(())
    }

    /// After [`Relay::set_remote`]: the packets that had waited for it, each to be handed to [`Relay::packet`] with the
    /// time of its arrival.
    pub fn take_waiting(&mut self, leg: LegId, now: Instant) -> Option<(Slot, Waiting)> {
        let key = self.slot(leg).ok()?.0;
        Some((Slot(key), self.legs[key].take_explained(now)?))
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
        self.legs[key].stop_listening();
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

    /// The name that copies of a leg's packets go under; `None`: its own.
    pub fn tap_as(&mut self, leg: LegId, name: Option<LegId>) -> Result<(), Error> {
        let key = self.slot(leg)?.0;
        self.legs[key].tapped_as = name.unwrap_or(leg);
        Ok(())
    }

    /// Replaces the recorders of what is played to a leg's peer, in all playbacks from now on.
    pub fn tap_playback(&mut self, leg: LegId, tapping: Option<Tapping>) -> Result<(), Error> {
        let key = self.slot(leg)?.0;
        let before = self.legs[key].played.take();
        self.legs[key].played = tapping.map(|tapping| match before {
            // The same stream goes on, to others.
            Some(before) if before.name() == tapping.name => before.with(Taps::new(&tapping.recorders)),
            _ => PlayedTap::new(tapping.name, Taps::new(&tapping.recorders), self.options.rng.random()),
        });
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

    /// The legs that a leg hears and is heard by.
    pub fn partners(&self, leg: LegId) -> impl Iterator<Item = Slot> + use<> {
        let leg = self.slots.get(&leg).map(|key| &self.legs[*key]);
        let (to, hears) = leg.map_or((None, None), |leg| (leg.to, leg.hears));
        to.into_iter().chain(hears.filter(|hears| Some(*hears) != to)).map(Slot)
    }

    /// Takes a leg out, to be put into another relay. Routes to and from it end; all else stays as it is.
    pub fn detach(&mut self, leg: LegId) -> Result<(Slot, Detached), Error> {
        let key = self.slot(leg)?.0;
        self.cut(key);
        if let Some(from) = self.legs[key].hears {
            self.cut(from);
        }
        self.slots.remove(&leg);
        Ok((Slot(key), Detached(Box::new(self.legs.remove(key)))))
    }

    /// Puts a leg of another relay in; the leg comes back when there is no place for it.
    pub fn attach(&mut self, leg: Detached, now: Instant) -> Result<Slot, (Detached, Error)> {
        let id = leg.id();
        if let Err(error) = self.room_for(id) {
            return Err((leg, error));
        }
        let slot = self.insert(*leg.0, now);
        self.notices.push_back(Notice::Moved { leg: id });
        Ok(slot)
    }

    fn room_for(&self, leg: LegId) -> Result<(), Error> {
        match self.slots.contains_key(&leg) {
            true => Err(Error::Exists(leg)),
            false if self.legs.len() >= MAX_LEGS => Err(Error::Full),
            false => Ok(()),
        }
    }

    fn insert(&mut self, leg: Leg, now: Instant) -> Slot {
        let id = leg.id;
        let key = self.legs.insert(leg);
        self.slots.insert(id, key);
        let leg = &mut self.legs[key];
        let report = rtcp::next_report(now, !leg.reported, &mut self.options.rng);
        let report = self.options.together(report);
        self.timers.arm(&mut leg.armed, key, Reason::Report, report);
        self.timers.arm(&mut leg.armed, key, Reason::Stats, self.options.together(now + STATS_INTERVAL));
        if let Some(deadline) = leg.watchdog.deadline() {
            self.timers.arm(&mut leg.armed, key, Reason::Watch, deadline);
        }
        if let Some(player) = &leg.player {
            let next = player.next();
            self.timers.arm(&mut leg.armed, key, Reason::Play, next);
        }
        self.arm_digits(key, now);
        self.arm_beep(key, now);
        Slot(key)
    }

    fn cut(&mut self, from: usize) {
        let Some(to) = self.legs[from].to.take() else { return };
        self.legs[from].map = Map::empty();
        let to = &mut self.legs[to];
        to.hears = None;
        to.tone = None;
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
