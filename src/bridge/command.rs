//! What signaling tells a media thread, and what a media thread tells signaling. Values only.
//!
//! Commands to one thread are applied in order. A leg belongs to exactly one thread at a time.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::codec::{Direction, Payload};
use crate::id::{LegId, PortId, RecorderId, WorkerId};

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
    /// The recorders that get a copy of what the leg's peer sends; empty: none.
    Tap {
        /// The leg.
        leg: LegId,
        /// At most four.
        recorders: Vec<RecorderId>,
    },
    /// Whether we expect RTP from the leg's peer now; `None` stops the inactivity timer (hold, ringing).
    Watch {
        /// The leg.
        leg: LegId,
        /// Silence after which [`Notice::Inactive`] is sent, once per arming.
        timeout: Option<Duration>,
    },
    /// Hand the leg with its sockets and send state to another thread; answered by [`Notice::Moved`] of that thread.
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
    /// Packets refused: wrong source, unknown payload type, not RTP, over the limit.
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
