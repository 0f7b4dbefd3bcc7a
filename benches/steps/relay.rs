//! A relay of two-party calls: packets in, verdicts out.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use stickytape::bridge::Relay;
use stickytape::bridge::command::{LatchMode, NewLeg, Remote};
use stickytape::bridge::relay::{Channel, Options};
use stickytape::clock;
use stickytape::codec::{Codec, Direction, Payload};
use stickytape::id::{LegId, PortId, RecorderId};

/// Where the peer of a leg sends from.
fn peer(leg: u64) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 20_000 + leg as u16)
}

fn remote(leg: u64) -> Remote {
    let payloads = vec![
        Payload { payload_type: 0, codec: Codec::pcmu() },
        Payload { payload_type: 101, codec: Codec::telephone_event() },
    ];
    Remote {
        rtp: Some(peer(leg)),
        rtcp: None,
        rtcp_mux: false,
        receive: payloads.clone(),
        send: payloads,
        direction: Direction::SendRecv,
        ptime_ms: 20,
        latch: LatchMode::Strict,
    }
}

fn calls(count: u64) -> (Relay, std::time::Instant) {
    let epoch = clock::now();
    let mut relay = Relay::new(Options { epoch, epoch_ntp: 1 << 32, rng: StdRng::seed_from_u64(1) });
    for leg in 0..2 * count {
        let new = NewLeg {
            leg: LegId(leg),
            port: PortId(leg as u32),
            ssrc: leg as u32,
            sequence: 1,
            timestamp: 1,
            cname: "bench".into(),
        };
        relay.add(&new, epoch).expect("room for a leg");
        relay.set_remote(LegId(leg), remote(leg)).expect("the leg is here");
        relay.tap(LegId(leg), &[RecorderId(0)]).expect("the leg is here");
        relay.watch(LegId(leg), Some(Duration::from_secs(60)), epoch).expect("the leg is here");
    }
    for leg in 0..2 * count {
        relay.route(LegId(leg), Some(LegId(leg ^ 1))).expect("both legs are here");
    }
    (relay, epoch)
}

/// `ticks` times 20 ms of so many calls: every party sends a packet, which goes to the other one and to a recorder.
pub fn relay(count: u64, ticks: u64, mut each: impl FnMut(u64)) {
    let (mut relay, epoch) = calls(count);
    let slots: Vec<_> = (0..2 * count).map(|leg| relay.slot(LegId(leg)).expect("the leg is here")).collect();
    let mut sent = 0;
    for tick in 0..ticks {
        each(tick);
        let now = epoch + Duration::from_millis(20 * tick);
        for (leg, slot) in slots.iter().enumerate() {
            let mut datagram = [0x55; 172];
            datagram[..2].copy_from_slice(&[0x80, 0]);
            datagram[2..4].copy_from_slice(&(tick as u16).to_be_bytes());
            datagram[4..8].copy_from_slice(&(tick as u32 * 160).to_be_bytes());
            datagram[8..12].copy_from_slice(&(leg as u32 + 1).to_be_bytes());
            let verdict = relay.packet(*slot, Channel::Rtp, peer(leg as u64), &mut datagram, now);
            let forward = verdict.forward.as_ref().filter(|_| verdict.tap.is_some());
            sent += forward.map_or(0, |forward| black_box(relay.sent(forward, &datagram)).len());
        }
        while relay.poll_notice().is_some() {}
    }
    assert_eq!(sent as u64, 2 * count * ticks * 172, "every packet was sent on and tapped");
}
