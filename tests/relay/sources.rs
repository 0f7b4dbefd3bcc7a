//! Whose packets are taken, where packets go, and what is counted.

use std::net::SocketAddr;

use stickytape::bridge::command::{LatchMode, Notice, Remote};
use stickytape::bridge::relay::{Channel, Error, Refusal};
use stickytape::codec::Direction;
use stickytape::rtp::packet::Packet;

use crate::{A, B, C, World, address, remote, voice};

fn nat() -> SocketAddr {
    "198.51.100.7:61000".parse().unwrap()
}

#[test]
fn a_phone_behind_nat_is_heard_and_reached_from_its_third_packet_on() {
    let mut world = World::bridged();
    let mut forwarded = 0;
    for n in 0..10 {
        let (verdict, sent) = world.datagram(A, nat(), &voice(7, n, 0).write().unwrap());
        assert_eq!(verdict.refused, (n < 2).then_some(Refusal::Source));
        forwarded += usize::from(sent.is_some());
    }
    assert_eq!(forwarded, 8);
    assert_eq!(world.say(B, &voice(9, 0, 0)).unwrap().to, nat());
    let latched: Vec<_> = world.notices().into_iter().filter(|n| matches!(n, Notice::Latched { leg: A, .. })).collect();
    assert_eq!(latched.len(), 1);
    let stats = world.stats(A);
    assert_eq!((stats.received, stats.refused, stats.sent, stats.latched), (8, 2, 1, Some(nat())));
}

#[test]
fn packets_from_the_described_address_are_relayed_before_it_is_authentic() {
    let mut world = World::bridged();
    assert!(world.say(A, &voice(7, 0, 0)).is_some());
    assert_eq!(world.stats(A).latched, None);
}

#[test]
fn a_stranger_is_dropped_and_counted_and_changes_nothing() {
    let mut world = World::bridged();
    for n in 0..3 {
        world.say(A, &voice(7, n, 0));
    }
    for n in 0..50 {
        world.pass(20);
        world.say(A, &voice(7, 3 + n, 0));
        let (verdict, sent) = world.datagram(A, nat(), &voice(66, n, 0).write().unwrap());
        assert_eq!((verdict.refused, verdict.tap, sent), (Some(Refusal::Source), None, None));
    }
    assert_eq!(world.say(B, &voice(9, 0, 0)).unwrap().to, address(A));
    assert_eq!(world.stats(A).refused, 50);
}

#[test]
fn another_forks_answer_starts_a_fresh_latch() {
    let mut world = World::bridged();
    for n in 0..3 {
        world.datagram(A, nat(), &voice(7, n, 0).write().unwrap());
    }
    let fork: SocketAddr = "192.0.2.50:7000".parse().unwrap();
    world.relay.set_remote(A, Remote { rtp: Some(fork), ..remote(A) }).unwrap();
    assert_eq!(world.say(B, &voice(9, 0, 0)).unwrap().to, fork);
    assert!(world.datagram(A, nat(), &voice(7, 3, 0).write().unwrap()).1.is_none());
    assert!(world.datagram(A, fork, &voice(8, 0, 0).write().unwrap()).1.is_some());
}

#[test]
fn with_latch_off_only_the_described_address_counts() {
    let mut world = World::bridged();
    world.relay.set_remote(A, Remote { latch: LatchMode::Off, ..remote(A) }).unwrap();
    for n in 0..9 {
        assert!(world.datagram(A, nat(), &voice(7, n, 0).write().unwrap()).1.is_none());
    }
    assert!(world.say(A, &voice(7, 0, 0)).is_some());
    assert_eq!(world.say(B, &voice(9, 0, 0)).unwrap().to, address(A));
}

#[test]
fn what_is_not_rtp_or_not_negotiated_is_dropped_and_counted() {
    let mut world = World::bridged();
    let (verdict, _) = world.datagram(A, address(A), b"hello");
    assert!(matches!(verdict.refused, Some(Refusal::Malformed(_))));
    let unknown = Packet { payload_type: 77, ..voice(7, 0, 0) };
    let (verdict, _) = world.datagram(A, address(A), &unknown.write().unwrap());
    assert_eq!((verdict.refused, verdict.tap), (Some(Refusal::PayloadType), None));
    assert_eq!(world.stats(A).refused, 2);
}

#[test]
fn a_peer_on_hold_hears_nothing_and_one_that_holds_is_relayed_while_it_may_send() {
    let mut world = World::bridged();
    // B holds with sendonly (from our side: recvonly) and plays music of its own.
    world.relay.set_remote(B, Remote { direction: Direction::RecvOnly, ..remote(B) }).unwrap();
    assert!(world.say(A, &voice(7, 0, 0)).is_none());
    assert!(world.say(B, &voice(9, 0, 0)).is_some());
    // B may neither send nor receive.
    world.relay.set_remote(B, Remote { direction: Direction::Inactive, ..remote(B) }).unwrap();
    assert!(world.say(B, &voice(9, 1, 160)).is_none());
    // The old form of hold: no address to send to.
    world.relay.set_remote(B, Remote { rtp: None, rtcp: None, ..remote(B) }).unwrap();
    assert!(world.say(A, &voice(7, 1, 160)).is_none());
}

#[test]
fn a_leg_is_heard_by_one_and_hears_one() {
    let mut world = World::bridged();
    world.relay.route(C, Some(B)).unwrap();
    assert!(world.say(A, &voice(7, 0, 0)).is_none(), "B hears C now");
    assert_eq!(world.say(C, &voice(8, 0, 0)).unwrap().leg, B);
    assert_eq!(world.say(B, &voice(9, 0, 0)).unwrap().leg, A, "the other direction is another route");
    assert_eq!(world.relay.route(A, Some(A)), Err(Error::Itself(A)));
}

#[test]
fn a_leg_that_ended_takes_its_routes_with_it() {
    let mut world = World::bridged();
    let slot = world.relay.remove(B).unwrap();
    assert!(matches!(world.notices()[..], [Notice::Removed { leg: B, .. }]));
    assert!(world.say(A, &voice(7, 0, 0)).is_none());
    let now = world.now();
    let verdict = world.relay.packet(slot, Channel::Rtp, address(B), &mut [0x80; 20], now);
    assert_eq!(verdict.refused, Some(Refusal::NoLeg));
    assert_eq!(world.relay.route(A, Some(B)), Err(Error::UnknownLeg(B)));
    world.bridge(A, C);
    assert_eq!(world.say(A, &voice(7, 1, 160)).unwrap().leg, C);
}

#[test]
fn loss_and_jitter_are_told_about_once_a_second() {
    let mut world = World::bridged();
    for n in (0..50_u16).filter(|n| n % 10 != 3) {
        world.at(u64::from(n) * 20);
        world.say(A, &voice(7, n, 160 * u32::from(n)));
    }
    let stats = world.stats(A);
    assert_eq!((stats.received, stats.lost, stats.jitter), (45, 5, 0));
}

#[test]
fn a_leg_moves_to_another_relay_with_its_latch_and_numbers() {
    let mut world = World::bridged();
    let mut other = World::bridged();
    let mut before = None;
    for n in 0..3 {
        world.datagram(A, nat(), &voice(7, n, 0).write().unwrap());
        before = world.say(B, &voice(9, n, 160 * u32::from(n)));
    }
    let (_, leg) = world.relay.detach(A).unwrap();
    assert!(world.say(B, &voice(9, 3, 480)).is_none());
    other.relay.remove(A).unwrap();
    other.notices();
    let now = other.now();
    let slot = other.relay.attach(leg, now).unwrap();
    assert_eq!(other.relay.slot(A), Ok(slot));
    assert!(matches!(other.notices()[..], [Notice::Moved { leg: A }]));
    other.bridge(A, C);
    let after = other.say(C, &voice(5, 0, 0)).unwrap();
    assert_eq!((after.to, after.packet.ssrc), (nat(), crate::ssrc(A)));
    assert_eq!(after.packet.sequence, before.unwrap().packet.sequence.wrapping_add(1));
}

#[test]
fn what_an_answerer_sends_ahead_of_its_answer_is_relayed_when_that_comes() {
    let mut world = World::bridged();
    world.undescribed(B, A);
    for n in 0..3 {
        assert_eq!(world.say(B, &voice(9, n, 160 * u32::from(n))), None);
        world.pass(20);
    }
    let early = world.describe(B, remote(B));
    let sent: Vec<_> = early.into_iter().map(|(_, sent)| sent.expect("relayed").packet.payload[0]).collect();
    assert_eq!(sent, [0, 1, 2]);
    assert_eq!(world.say(B, &voice(9, 3, 480)).unwrap().packet.payload[0], 3);
    assert_eq!(world.stats(B).refused, 0);
}

#[test]
fn early_packets_of_a_stranger_wait_too_and_are_refused_by_the_answer() {
    let mut world = World::bridged();
    world.undescribed(B, A);
    for n in 0..4 {
        world.datagram(B, nat(), &voice(66, n, 0).write().unwrap());
        world.say(B, &voice(9, n, 160 * u32::from(n)));
    }
    assert_eq!(world.notices().iter().filter(|n| matches!(n, Notice::Latched { leg: B, .. })).count(), 0);
    let early = world.describe(B, remote(B));
    let taken = |from: usize| early.iter().skip(from).step_by(2).filter(|(_, sent)| sent.is_some()).count();
    // The stranger's third in a row comes when the described source has been heard: no move.
    assert_eq!((taken(0), taken(1)), (0, 4));
    assert_eq!(world.say(A, &voice(7, 0, 0)).unwrap().to, address(B));
}

#[test]
fn a_re_offer_keeps_what_its_answer_explains_and_no_more_than_eight_packets_for_200_ms() {
    let moved: SocketAddr = "192.0.2.99:5000".parse().unwrap();
    let mut world = World::bridged();
    world.say(B, &voice(9, 0, 0));
    assert!(world.datagram(B, moved, &voice(9, 1, 160).write().unwrap()).0.refused.is_some(), "no answer is awaited");
    world.relay.await_remote(B).unwrap();
    for n in 1..=20 {
        world.pass(20);
        let (verdict, _) = world.datagram(B, moved, &voice(9, n, 160 * u32::from(n)).write().unwrap());
        assert_eq!(verdict.refused, None);
    }
    world.pass(100);
    let early = world.describe(B, Remote { rtp: Some(moved), ..remote(B) });
    let sent: Vec<_> = early.into_iter().map(|(_, sent)| sent.unwrap().packet.payload[0]).collect();
    assert_eq!(sent, [15, 16, 17, 18, 19, 20], "the newest eight, without two that are older than 200 ms");
    assert_eq!(world.stats(B).refused, 1 + 14);
}
