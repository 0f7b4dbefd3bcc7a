//! All media state of one leg: a value that belongs to one thread at a time and moves as a whole.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::beep::Beep;
use super::command::mix::Mixing;
use super::command::{Digits, LegStats, NewLeg, Remote};
use super::latch::Latch;
use super::outgoing::Outgoing;
use super::playback::{PlayedTap, Player, Voice};
use super::press::{Pressed, Presses};
use super::route::{Map, Receive};
use super::timers::Armed;
use super::tone::Tone;
use super::waiting::Waiting;
use super::watchdog::Watchdog;
use crate::audio::coding::Coding;
use crate::audio::convert::Converter;
use crate::codec::{Direction, Payload};
use crate::id::{LegId, RecorderId};
use crate::rtp::source::{Order, Source};

/// Packet duration when the peer asks for none (RFC 3551 §4.2).
const DEFAULT_PTIME_MS: u8 = 20;
/// Most recorders of one leg.
pub const MAX_TAPS: usize = 4;

/// The recorders that get copies of a leg's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taps {
    recorders: [RecorderId; MAX_TAPS],
    len: u8,
}

impl Taps {
    /// The first four of `recorders`.
    pub fn new(recorders: &[RecorderId]) -> Self {
        let mut taps = Self { recorders: [RecorderId(0); MAX_TAPS], len: 0 };
        for (slot, recorder) in taps.recorders.iter_mut().zip(recorders) {
            *slot = *recorder;
            taps.len += 1;
        }
        taps
    }

    /// The recorders.
    pub fn recorders(&self) -> &[RecorderId] {
        &self.recorders[..usize::from(self.len)]
    }
}

/// One leg. In front stands what each packet of its peer touches, then what each packet for its peer does, then what both
/// do: with hundreds of calls every cache line is fetched anew for every packet, and this makes them few.
#[derive(Debug)]
#[repr(C)]
pub struct Leg {
    pub receive: Receive,
    /// The numbers of what it receives, there where it is heard.
    pub map: Map,
    /// The leg that hears it.
    pub to: Option<usize>,
    pub id: LegId,
    /// The name that copies of its packets go under.
    pub tapped_as: LegId,
    pub taps: Taps,
    pub rtcp_mux: bool,
    /// Signaling is told of digits that its own peer presses.
    pub collects: bool,
    received: u64,
    last_packet: Option<Instant>,
    pub source: Option<Source>,
    pub watchdog: Watchdog,
    pub outgoing: Outgoing,
    /// The tone that tells its peer of a recording.
    pub beep: Option<Box<Beep>>,
    pub ptime_ms: u8,
    pub direction: Direction,
    /// It is in a conference.
    pub mixing: Option<Mixing>,
    pub rtp: Latch,
    /// Digits of ours for its peer.
    pub presses: Presses,
    /// A digit of who it hears, which its peer does not take as an event.
    pub tone: Option<Tone>,
    /// Of what is sent to its peer at another rate than it came.
    pub converter: Converter,
    pub player: Option<Player>,
    /// The leg that it hears.
    pub hears: Option<usize>,
    pub cname: Arc<str>,
    pub rtcp: Latch,
    /// The lists that maps are made from.
    pub receive_payloads: Vec<Payload>,
    pub send_payloads: Vec<Payload>,
    pub voice: Option<Voice>,
    /// The mixer's tick of the newest packet that was sent for it.
    pub mixed_tick: Option<u32>,
    /// The copies of what is played to its peer.
    pub played: Option<PlayedTap>,
    /// The timestamp of the newest digit that was sounded: its end comes three times.
    pub sounded: Option<u32>,
    /// What happens to digits of who it hears, where its peer takes no events.
    pub digits: Digits,
    /// Such a digit that signaling will be told of.
    pub pressed: Option<Pressed>,
    /// Middle of the NTP time in the source's last SR, and its arrival.
    pub last_sr: Option<(u32, Instant)>,
    pub armed: Armed,
    /// What came ahead of a description that is awaited; `None`: none is.
    pub waiting: Option<Waiting>,
    /// What had waited for the present description, to be judged by it.
    pub explained: Option<Waiting>,
    /// An RTCP report was sent: the leg says BYE at its end.
    pub reported: bool,
    refused: u64,
    untapped: u64,
    /// Lost by sources before the present one.
    lost_earlier: u64,
}

impl Leg {
    pub fn new(new: &NewLeg) -> Self {
        Self {
            id: new.leg,
            cname: new.cname.clone(),
            rtp: Latch::new(),
            rtcp: Latch::new(),
            rtcp_mux: false,
            direction: Direction::Inactive,
            ptime_ms: DEFAULT_PTIME_MS,
            receive: Receive::new(&[]),
            receive_payloads: Vec::new(),
            send_payloads: Vec::new(),
            voice: None,
            to: None,
            map: Map::empty(),
            hears: None,
            taps: Taps::new(&[]),
            mixing: None,
            mixed_tick: None,
            tapped_as: new.leg,
            played: None,
            beep: None,
            outgoing: Outgoing::new(new.ssrc, new.sequence, new.timestamp),
            converter: Converter::new(),
            player: None,
            tone: None,
            sounded: None,
            digits: Digits::default(),
            pressed: None,
            collects: false,
            presses: Presses::default(),
            watchdog: Watchdog::default(),
            source: None,
            last_sr: None,
            armed: Armed::default(),
            waiting: Some(Waiting::default()),
            explained: None,
            reported: false,
            received: 0,
            last_packet: None,
            refused: 0,
            untapped: 0,
            lost_earlier: 0,
        }
    }

    /// Takes a new description. Maps to and from the leg are the relay's to renew.
    pub fn describe(&mut self, remote: Remote) {
        self.rtp.describe(remote.rtp, remote.latch);
        self.rtcp.describe(remote.rtcp.filter(|_| !remote.rtcp_mux), remote.latch);
        self.rtcp_mux = remote.rtcp_mux;
        self.direction = remote.direction;
        self.ptime_ms = if remote.ptime_ms == 0 { DEFAULT_PTIME_MS } else { remote.ptime_ms };
        self.receive = Receive::new(&remote.receive);
        self.receive_payloads = remote.receive;
        self.voice = Voice::choose(&remote.send);
        self.send_payloads = remote.send;
        self.watchdog.renew();
        self.explained = self.waiting.take();
    }

    /// True when a packet that cannot be taken now may wait for the next description.
    pub fn lets_wait(&mut self, from: SocketAddr, datagram: &[u8], now: Instant) -> bool {
        let Some(waiting) = &mut self.waiting else { return false };
        self.refused += waiting.keep(from, datagram, now);
        true
    }

    /// What had waited for the present description and is not stale.
    pub fn take_explained(&mut self, now: Instant) -> Option<Waiting> {
        let mut explained = self.explained.take()?;
        self.refused += explained.forget_stale(now);
        Some(explained)
    }

    pub fn ptime(&self) -> Duration {
        Duration::from_millis(u64::from(self.ptime_ms))
    }

    /// Where RTP to the peer goes; `None` when the description forbids sending.
    pub fn rtp_destination(&self) -> Option<SocketAddr> {
        self.rtp.destination().filter(|_| self.direction.sends())
    }

    /// Where RTCP to the peer goes. It does not depend on the direction (RFC 3264 §5.1).
    pub fn rtcp_destination(&self) -> Option<SocketAddr> {
        if self.rtcp_mux { self.rtp.destination() } else { self.rtcp.destination() }
    }

    /// True while its peer hears a mixer and not who is routed to it.
    pub fn hears_mixer(&self) -> bool {
        self.mixing.is_some_and(|mixing| mixing.listens)
    }

    /// True while its peer hears a digit, in band or as an event of ours.
    pub fn sounds(&self, now: Instant) -> bool {
        self.presses.speaks() || self.tone.as_ref().is_some_and(|tone| !tone.is_over(now))
    }

    /// How the samples of a payload type towards its peer are coded.
    pub fn coding_of(&self, payload_type: u8) -> Option<Coding> {
        let payload = self.send_payloads.iter().find(|payload| payload.payload_type == payload_type)?;
        Coding::of(&payload.codec)
    }

    /// True while packets of our own carry a beep to its peer.
    pub fn beeps_alone(&self) -> bool {
        self.beep.as_ref().is_some_and(|beep| beep.is_alone())
    }

    /// Counts an accepted packet of source `ssrc`.
    pub fn count_received(&mut self, ssrc: u32, sequence: u16, now: Instant) -> Order {
        self.received += 1;
        self.last_packet = Some(now);
        let source = match &mut self.source {
            Some(source) if source.ssrc() == ssrc => source,
            other => {
                self.lost_earlier += other.as_ref().map_or(0, Source::lost);
                self.last_sr = None;
                other.insert(Source::new(ssrc, sequence))
            }
        };
        source.update(sequence)
    }

    pub fn count_refused(&mut self) {
        self.refused += 1;
    }

    pub fn count_untapped(&mut self) {
        self.untapped += 1;
    }

    /// Totals since the leg began.
    pub fn stats(&self) -> LegStats {
        LegStats {
            received: self.received,
            sent: self.outgoing.packets(),
            lost: self.lost_earlier + self.source.as_ref().map_or(0, Source::lost),
            jitter: self.source.as_ref().map_or(0, Source::jitter),
            latched: self.rtp.latched(),
            refused: self.refused,
            untapped: self.untapped,
            last_packet: self.last_packet,
        }
    }
}
