//! What signaling tells a media thread, and what a media thread tells signaling. Values only.
//!
//! Commands to one thread are applied in order. A leg belongs to exactly one thread at a time.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::codec::{Codec, Direction, Payload};
use crate::id::{LegId, PortId, RecorderId, WorkerId};

pub mod mix;

/// From signaling to one media thread.
#[derive(Debug)]
pub enum Command {
    /// Bind `count` more pairs on `address`; answered by [`Notice::PortsBound`] or [`Notice::PortsFailed`].
    BindPorts {
        /// The address that SIP listens on for the peers in question.
        address: IpAddr,
        /// How many pairs.
        count: usize,
    },
    /// A leg begins on a pair that this thread has bound and announced.
    AddLeg(Box<NewLeg>),
    /// The peer's description changed: a fresh latch, new payload tables. Sequence, timestamp and SSRC go on. Packets
    /// that have waited for it are taken now, and sent on where a route exists.
    SetRemote {
        /// The leg.
        leg: LegId,
        /// What its peer's description and ours say now.
        remote: Box<Remote>,
    },
    /// Our offer is out: what the peer sends ahead of the [`Command::SetRemote`] that brings its answer waits for it, a
    /// few packets and 200 ms at most (RFC 3264 §5.1). A new leg waits from its beginning.
    Await {
        /// The leg.
        leg: LegId,
    },
    /// From now on what `from` sends goes to `to`; `None`: nowhere (it is still received, latched and tapped).
    Route {
        /// The sending leg.
        from: LegId,
        /// The leg that receives it, on the same thread.
        to: Option<LegId>,
    },
    /// Replace what we play towards the leg's peer. Playing and a route towards the leg exclude each other.
    Play {
        /// The leg whose peer hears it.
        leg: LegId,
        /// What.
        what: Playback,
    },
    /// How digits that the other side sends as telephone events reach the leg's peer when it takes none.
    Digits {
        /// The leg.
        leg: LegId,
        /// How.
        to: Digits,
    },
    /// Whether signaling is told by [`Notice::Digit`] of the digits that the leg's own peer presses as telephone events.
    /// Meanwhile the leg hears no other one.
    Collect {
        /// The leg.
        leg: LegId,
        /// It is.
        digits: bool,
    },
    /// A digit of ours for the leg's peer: telephone event where it takes them (RFC 4733), else a tone. It comes after
    /// those that were pressed before, and audio that is relayed to the peer waits meanwhile. At most 32 wait.
    Press {
        /// The leg.
        leg: LegId,
        /// Which.
        digit: Digit,
        /// How long, 60 ms to 6 s.
        length: Duration,
    },
    /// The recorders that get a copy of what the leg's peer sends; empty: none.
    Tap {
        /// The leg.
        leg: LegId,
        /// At most four.
        recorders: Vec<RecorderId>,
    },
    /// The leg is in a conference: its packets go to a mixer, and its peer hears the mixer; see [`mix`]. `None` ends
    /// that at once, without the mixer's last packet. A playback to the leg ends.
    Mix {
        /// The leg.
        leg: LegId,
        /// How.
        mixing: Option<mix::Mixing>,
    },
    /// Under which name those copies go from now on: the music that a holding phone sends is no speech of its party
    /// (spec/recording.md §2). The recorder must know that name's payload types: the leg's own ones.
    TapAs {
        /// The leg.
        leg: LegId,
        /// The pseudo-leg; `None`: its own name.
        name: Option<LegId>,
    },
    /// The recorders that get a copy of what we play to the leg's peer, now and in later playbacks: only packets that are
    /// sent to it. Tones of digits and beeps are never copied.
    TapPlayback {
        /// The leg whose peer hears it.
        leg: LegId,
        /// Under which name and where to; `None`: nowhere.
        tapping: Option<Tapping>,
    },
    /// A tone that tells the leg's peer that it is recorded, mixed into whatever it hears; where it hears nothing, packets
    /// of our own carry it. 1,400 Hz, 200 ms. The first one comes at once; a repeated command begins anew. Never in a tap.
    Beep {
        /// The leg whose peer hears it.
        leg: LegId,
        /// From one beginning to the next, at least a second; `None`: no more.
        every: Option<Duration>,
    },
    /// Whether we expect RTP from the leg's peer now; `None` stops the inactivity timer (hold, ringing).
    Watch {
        /// The leg.
        leg: LegId,
        /// Silence after which [`Notice::Inactive`] is sent, once per arming.
        timeout: Option<Duration>,
    },
    /// Hand the leg with its sockets and send state to another thread; answered by [`Notice::Moved`] of that thread. Its
    /// routes end. What it and the legs that it was routed with receive waits in the kernel until each one's next
    /// [`Command::Route`], 200 ms at most: legs that move together and are routed again lose no packet.
    Move {
        /// The leg.
        leg: LegId,
        /// Where it goes.
        to: WorkerId,
    },
    /// The leg ends; its pair is closed and its ports cool down. Answered by [`Notice::Removed`].
    RemoveLeg(LegId),
    /// Give all back and stop.
    Shutdown,
}

impl Command {
    /// The leg that it is about, and the other one where it names two.
    pub fn legs(&self) -> (Option<LegId>, Option<LegId>) {
        match self {
            Self::SetRemote { leg, .. }
            | Self::Await { leg }
            | Self::Play { leg, .. }
            | Self::Digits { leg, .. }
            | Self::Collect { leg, .. }
            | Self::Press { leg, .. }
            | Self::Tap { leg, .. }
            | Self::Mix { leg, .. }
            | Self::TapAs { leg, .. }
            | Self::TapPlayback { leg, .. }
            | Self::Beep { leg, .. }
            | Self::Watch { leg, .. }
            | Self::Move { leg, .. }
            | Self::RemoveLeg(leg) => (Some(*leg), None),
            Self::Route { from, to } => (Some(*from), *to),
            // A leg that begins is nobody's yet.
            Self::BindPorts { .. } | Self::AddLeg(_) | Self::Shutdown => (None, None),
        }
    }
}

/// The start state of a leg's media.
#[derive(Debug, Clone)]
pub struct NewLeg {
    /// The leg.
    pub leg: LegId,
    /// A pair that [`Notice::PortsBound`] announced.
    pub port: PortId,
    /// Our SSRC towards this peer, for the leg's whole life.
    pub ssrc: u32,
    /// Our first sequence number.
    pub sequence: u16,
    /// Our first timestamp.
    pub timestamp: u32,
    /// Our RTCP CNAME towards this peer (RFC 7022: random, says nothing about us).
    pub cname: Arc<str>,
}

/// One leg's negotiated media, both descriptions taken together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Where the peer's SDP wants RTP; `None` when it has none (`c=0.0.0.0`, port 0): we send nothing.
    pub rtp: Option<SocketAddr>,
    /// Where it wants RTCP (`a=rtcp`, else port + 1); ignored with `rtcp_mux`.
    pub rtcp: Option<SocketAddr>,
    /// RTCP on the RTP port in both directions (RFC 5761).
    pub rtcp_mux: bool,
    /// Payload types that the peer may send to us (numbers of our description).
    pub receive: Vec<Payload>,
    /// Payload types that we may send to the peer (numbers of its description), most preferred first.
    pub send: Vec<Payload>,
    /// The stream's direction from our side: `SendOnly`: the peer does not send.
    pub direction: Direction,
    /// Packet duration that the peer wants from us in ms (`a=ptime`, default 20).
    pub ptime_ms: u8,
    /// Learn the peer's real address.
    pub latch: LatchMode,
}

/// `media.latch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LatchMode {
    /// Learn the peer's real address once per description, then hold to it.
    #[default]
    Strict,
    /// Accept from the SDP address only, send to the SDP address.
    Off,
}

/// What we play to a leg's peer.
#[derive(Debug, Clone)]
pub enum Playback {
    /// Nothing: no packets.
    None,
    /// Silence in the first codec that we may send, a packet every ptime: for a party held by request.
    Silence,
    /// Mono samples at 8,000 Hz, from the start, repeated when `repeat`.
    Samples {
        /// The samples.
        samples: Arc<[i16]>,
        /// Starts again at its end.
        repeat: bool,
    },
}

/// A tap on what we play.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tapping {
    /// The pseudo-leg that it is recorded as; its payloads are [`played_payload`] alone.
    pub name: LegId,
    /// At most four.
    pub recorders: Vec<RecorderId>,
}

/// How copies of what we play are coded, whatever is sent to the peer: linear samples at 8,000 Hz.
pub fn played_payload() -> Payload {
    Payload { payload_type: PLAYED_PAYLOAD_TYPE, codec: Codec::new("L16", 8_000, 1) }
}

/// Of [`played_payload`].
pub const PLAYED_PAYLOAD_TYPE: u8 = 96;

/// How digits reach a peer that takes no telephone events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Digits {
    /// The media thread plays a tone in the peer's codec.
    #[default]
    Tone,
    /// Signaling is told by [`Notice::Digit`] and sends INFO.
    Notice,
}

/// A DTMF digit. It prints nothing of itself: digits are secrets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digit(u8);

impl Digit {
    /// Of an event code (RFC 4733 §3.2): 0…9, 10 star, 11 hash, 12…15 A…D; others are no digits.
    pub fn new(event: u8) -> Option<Self> {
        (event < 16).then_some(Self(event))
    }

    /// Of a key: `0`…`9`, `*`, `#`, `A`…`D` in either case.
    pub fn of_key(key: char) -> Option<Self> {
        let key = key.to_ascii_uppercase();
        KEYS.iter().position(|known| *known == key).map(|event| Self(event as u8))
    }

    /// Its event code.
    pub fn event(self) -> u8 {
        self.0
    }

    /// Its key.
    pub fn key(self) -> char {
        KEYS[usize::from(self.0)]
    }
}

/// Keys by event code.
const KEYS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '*', '#', 'A', 'B', 'C', 'D'];

impl fmt::Debug for Digit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digit(…)")
    }
}

/// A bound pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortPair {
    /// Its name within the worker.
    pub id: PortId,
    /// The address that the RTP socket is bound to; RTCP is the next port.
    pub rtp: SocketAddr,
}

/// From a media thread to signaling.
#[derive(Debug)]
pub enum Notice {
    /// Pairs ready to hand out. The ports of a leg that ended are bound again, when asked for, after their cool-down.
    PortsBound(Vec<PortPair>),
    /// Fewer could be bound than asked for.
    PortsFailed {
        /// The address asked for.
        address: IpAddr,
        /// How many are missing.
        missing: usize,
    },
    /// The peer's real address is known for its present description.
    Latched {
        /// The leg.
        leg: LegId,
        /// The source of its RTP.
        from: SocketAddr,
    },
    /// Nothing came for the watched time, neither RTP nor RTCP.
    Inactive {
        /// The leg.
        leg: LegId,
    },
    /// The leg's peer has pressed a digit as a telephone event, and the leg that hears it wants to be told by signaling
    /// ([`Digits::Notice`]), or signaling collects them itself ([`Command::Collect`]). Once, at the digit's end.
    Digit {
        /// The leg whose peer pressed it.
        leg: LegId,
        /// Which.
        digit: Digit,
        /// How long.
        length: Duration,
    },
    /// The leg is now on this worker.
    Moved {
        /// The leg.
        leg: LegId,
    },
    /// Counters of a live leg, about once a second.
    Stats {
        /// The leg.
        leg: LegId,
        /// Totals since the leg began.
        stats: LegStats,
    },
    /// The leg is gone, with its last counters.
    Removed {
        /// The leg.
        leg: LegId,
        /// Totals.
        stats: LegStats,
    },
}

/// Counters of one leg, totals since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LegStats {
    /// RTP packets accepted from the peer.
    pub received: u64,
    /// RTP packets sent to the peer.
    pub sent: u64,
    /// Packets of the peer that are missing by sequence number (RFC 3550 A.3; never negative here).
    pub lost: u64,
    /// Packets refused: wrong source, unknown payload type, not RTP, over the limit, in no codec that its hearer takes.
    pub refused: u64,
    /// Copies for a recorder that found its ring full.
    pub untapped: u64,
    /// Interarrival jitter in RTP clock ticks (RFC 3550 A.8).
    pub jitter: u32,
    /// The latched source of RTP.
    pub latched: Option<SocketAddr>,
    /// When the last accepted packet came.
    pub last_packet: Option<Instant>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digit_is_a_key_and_an_event_code_and_never_prints_itself() {
        for (key, event) in [('0', 0), ('9', 9), ('*', 10), ('#', 11), ('A', 12), ('d', 15)] {
            let digit = Digit::of_key(key).unwrap();
            assert_eq!((digit.event(), digit.key()), (event, key.to_ascii_uppercase()));
            assert_eq!((Digit::new(event), format!("{digit:?}").as_str()), (Some(digit), "Digit(…)"));
        }
        assert_eq!((Digit::of_key('x'), Digit::new(16)), (None, None));
    }
}
