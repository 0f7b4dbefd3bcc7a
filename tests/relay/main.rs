//! The relay in virtual time: the sentences of spec/sip.md §7 on RTP and RTCP, each as a trace of packets.

mod beeps;
mod continuity;
mod digits;
mod inactivity;
mod playback;
mod rtcp;
mod shortcuts;
mod sources;
mod tap;
mod transcoding;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use stickytape::bridge::Relay;
use stickytape::bridge::command::{LatchMode, LegStats, NewLeg, Notice, Remote};
use stickytape::bridge::relay::{Channel, MAX_TRANSMIT, Options, Slot, TAP_AT, Taps, Transmit, Verdict};
use stickytape::codec::{Codec, Direction, Payload};
use stickytape::id::{LegId, PortId};
use stickytape::rtp::packet::Packet;

pub(crate) const A: LegId = LegId(1);
pub(crate) const B: LegId = LegId(2);
pub(crate) const C: LegId = LegId(3);

/// First numbers towards every peer.
pub(crate) const SEQUENCE: u16 = 65_530;
pub(crate) const TIMESTAMP: u32 = u32::MAX - 1_000;

/// A relay and a clock that moves when told.
pub(crate) struct World {
    pub(crate) relay: Relay,
    start: Instant,
    ms: u64,
}

/// A packet that left the relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) leg: LegId,
    pub(crate) to: SocketAddr,
    pub(crate) packet: Packet,
}

/// The header of a copy of what is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Copied {
    pub(crate) leg: LegId,
    pub(crate) taps: Taps,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) ssrc: u32,
    pub(crate) payload_type: u8,
    pub(crate) marker: bool,
}

impl World {
    /// Legs A, B and C, each with PCMU 0, PCMA 8 and telephone-event 101, bridged A ⇄ B.
    pub(crate) fn bridged() -> Self {
        let start = stickytape::clock::now();
        let rng = StdRng::seed_from_u64(1);
        let mut world = Self { relay: Relay::new(Options { epoch: start, epoch_ntp: 1 << 32, rng }), start, ms: 0 };
        for leg in [A, B, C] {
            let new = NewLeg {
                leg,
                port: PortId(0),
                ssrc: ssrc(leg),
                sequence: SEQUENCE,
                timestamp: TIMESTAMP,
                cname: "cname".into(),
            };
            world.relay.add(&new, start).unwrap();
            world.relay.set_remote(leg, remote(leg)).unwrap();
        }
        world.bridge(A, B);
        world
    }

    pub(crate) fn bridge(&mut self, a: LegId, b: LegId) {
        self.relay.route(a, Some(b)).unwrap();
        self.relay.route(b, Some(a)).unwrap();
    }

    pub(crate) fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.ms)
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.ms
    }

    pub(crate) fn at(&mut self, ms: u64) {
        assert!(ms >= self.ms, "time goes forward");
        self.ms = ms;
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.ms += ms;
    }

    /// A datagram from anywhere to a leg's RTP socket.
    pub(crate) fn datagram(&mut self, leg: LegId, from: SocketAddr, bytes: &[u8]) -> (Verdict, Option<Sent>) {
        let slot = self.relay.slot(leg).unwrap();
        let mut buffer = bytes.to_vec();
        let now = self.now();
        let verdict = self.relay.packet(slot, Channel::Rtp, from, &mut buffer, now);
        let sent = verdict.forward.clone().map(|forward| Sent {
            leg: self.leg_of(forward.slot),
            to: forward.to,
            packet: Packet::read(self.relay.sent(&forward, &buffer)).unwrap(),
        });
        (verdict, sent)
    }

    /// A leg that knows no description yet, heard by and hearing another one.
    pub(crate) fn undescribed(&mut self, leg: LegId, other: LegId) {
        self.relay.remove(leg).unwrap();
        let (port, cname) = (PortId(0), "cname".into());
        let new = NewLeg { leg, port, ssrc: ssrc(leg), sequence: SEQUENCE, timestamp: TIMESTAMP, cname };
        self.relay.add(&new, self.now()).unwrap();
        self.bridge(leg, other);
    }

    /// A description comes; what becomes of the packets that had waited for it.
    pub(crate) fn describe(&mut self, leg: LegId, remote: Remote) -> Vec<(Verdict, Option<Sent>)> {
        self.relay.set_remote(leg, remote).unwrap();
        let mut results = vec![];
        if let Some((slot, waiting)) = self.relay.take_waiting(leg, self.now()) {
            waiting.drain(|early| {
                let verdict = self.relay.packet(slot, Channel::Rtp, early.from, early.datagram, early.at);
                let sent = verdict.forward.clone().map(|forward| Sent {
                    leg: self.leg_of(forward.slot),
                    to: forward.to,
                    packet: Packet::read(self.relay.sent(&forward, early.datagram)).unwrap(),
                });
                results.push((verdict, sent));
            });
        }
        results
    }

    /// A packet of a leg's peer from its own address; what is sent on.
    pub(crate) fn say(&mut self, leg: LegId, packet: &Packet) -> Option<Sent> {
        self.datagram(leg, address(leg), &packet.write().unwrap()).1
    }

    /// A datagram to a leg's RTCP socket; true when it was taken.
    pub(crate) fn rtcp(&mut self, leg: LegId, from: SocketAddr, bytes: &[u8]) -> bool {
        let slot = self.relay.slot(leg).unwrap();
        let now = self.now();
        self.relay.packet(slot, Channel::Rtcp, from, &mut bytes.to_vec(), now).refused.is_none()
    }

    /// Everything that the relay sends by itself until `ms`, with the time of each.
    pub(crate) fn run_until(&mut self, ms: u64) -> Vec<(u64, Transmit, Vec<u8>)> {
        self.run(ms, |transmit, out| out[..transmit.len].to_vec())
    }

    fn run<T>(&mut self, ms: u64, read: impl Fn(&Transmit, &[u8; MAX_TRANSMIT]) -> T) -> Vec<(u64, Transmit, T)> {
        let mut all = vec![];
        let mut out = [0; MAX_TRANSMIT];
        loop {
            while let Some(transmit) = self.relay.poll_transmit(self.now(), &mut out) {
                all.push((self.ms, transmit, read(&transmit, &out)));
            }
            let Some((due, _)) = self.relay.poll_timeout() else { break };
            let due = due.saturating_duration_since(self.start).as_nanos().div_ceil(1_000_000) as u64;
            if due > ms {
                break;
            }
            self.ms = self.ms.max(due);
        }
        self.ms = ms;
        all
    }

    /// As [`World::run_until`], each packet with its copy for the recorders.
    #[expect(clippy::type_complexity, reason = "read in one place")]
    pub(crate) fn run_until_with_taps(
        &mut self,
        ms: u64,
    ) -> Vec<(u64, Transmit, (Vec<u8>, Option<(Copied, Vec<u8>)>))> {
        self.run(ms, |transmit, out| {
            let copy = transmit.tap.map(|tap| {
                let header = tap.header;
                let (sequence, timestamp, ssrc) = (header.sequence, header.timestamp, header.ssrc);
                let (payload_type, marker) = (header.payload_type, header.marker);
                let copied = Copied { leg: tap.leg, taps: tap.taps, sequence, timestamp, ssrc, payload_type, marker };
                (copied, out[TAP_AT..][header.payload()].to_vec())
            });
            (out[..transmit.len].to_vec(), copy)
        })
    }

    /// Only the RTP of it, read.
    pub(crate) fn own_rtp_until(&mut self, ms: u64) -> Vec<(u64, Sent)> {
        let own = self.run_until(ms).into_iter().filter(|(_, transmit, _)| transmit.channel == Channel::Rtp);
        own.map(|(at, transmit, bytes)| {
            let leg = self.leg_of(transmit.slot);
            (at, Sent { leg, to: transmit.to, packet: Packet::read(&bytes).unwrap() })
        })
        .collect()
    }

    pub(crate) fn notices(&mut self) -> Vec<Notice> {
        std::iter::from_fn(|| self.relay.poll_notice()).collect()
    }

    /// The counters of a leg, by its next notice.
    pub(crate) fn stats(&mut self, leg: LegId) -> LegStats {
        self.notices();
        self.run_until(self.ms + 1_000);
        let of_leg = |notice| match notice {
            Notice::Stats { leg: l, stats } if l == leg => Some(stats),
            _ => None,
        };
        self.notices().into_iter().filter_map(of_leg).next_back().expect("a leg tells its counters every second")
    }

    pub(crate) fn leg_of(&self, slot: Slot) -> LegId {
        *[A, B, C].iter().find(|leg| self.relay.slot(**leg) == Ok(slot)).expect("a slot of a leg")
    }
}

/// A leg's media as both descriptions settle it.
pub(crate) fn remote(leg: LegId) -> Remote {
    let payloads = vec![
        Payload { payload_type: 0, codec: Codec::pcmu() },
        Payload { payload_type: 8, codec: Codec::pcma() },
        Payload { payload_type: 101, codec: Codec::telephone_event() },
    ];
    Remote {
        rtp: Some(address(leg)),
        rtcp: Some(rtcp_address(leg)),
        rtcp_mux: false,
        receive: payloads.clone(),
        send: payloads,
        direction: Direction::SendRecv,
        ptime_ms: 20,
        latch: LatchMode::Strict,
    }
}

/// Where a leg's peer says that it is.
pub(crate) fn address(leg: LegId) -> SocketAddr {
    format!("192.0.2.{}:4000", leg.0).parse().unwrap()
}

pub(crate) fn rtcp_address(leg: LegId) -> SocketAddr {
    format!("192.0.2.{}:4001", leg.0).parse().unwrap()
}

/// Our SSRC towards a leg's peer.
pub(crate) fn ssrc(leg: LegId) -> u32 {
    1_000 + leg.0 as u32
}

/// A PCMU packet of 20 ms.
pub(crate) fn voice(ssrc: u32, sequence: u16, timestamp: u32) -> Packet {
    let payload = vec![sequence as u8; 160].into();
    Packet { payload_type: 0, marker: false, sequence, timestamp, ssrc, csrc: vec![], payload }
}
