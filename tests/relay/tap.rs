//! The recorders' copy: the peer's own numbers, whether or not the packet was routed.

use stickytape::codec::Direction;
use stickytape::id::RecorderId;

use crate::{A, B, World, address, remote, voice};

#[test]
fn a_tapped_packet_shows_the_peers_own_header_and_its_payload_untouched() {
    let mut world = World::bridged();
    world.relay.tap(A, &[RecorderId(3), RecorderId(1)]).unwrap();
    let packet = voice(7, 10, 5_000);
    let (verdict, sent) = world.datagram(A, address(A), &packet.write().unwrap());
    let tap = verdict.tap.unwrap();
    assert_eq!(tap.leg, A);
    assert_eq!(tap.taps.recorders(), [RecorderId(3), RecorderId(1)]);
    assert_eq!((tap.header.ssrc, tap.header.sequence, tap.header.timestamp), (7, 10, 5_000));
    assert_eq!(tap.header.payload(), 12..172);
    assert_eq!(sent.unwrap().packet.payload, packet.payload);
}

#[test]
fn what_nobody_hears_is_tapped_all_the_same() {
    let mut world = World::bridged();
    world.relay.tap(A, &[RecorderId(0)]).unwrap();
    world.relay.set_remote(B, crate::Remote { direction: Direction::Inactive, ..remote(B) }).unwrap();
    let (verdict, sent) = world.datagram(A, address(A), &voice(7, 0, 0).write().unwrap());
    assert!(sent.is_none() && verdict.tap.is_some());
    world.relay.route(A, None).unwrap();
    assert!(world.datagram(A, address(A), &voice(7, 1, 160).write().unwrap()).0.tap.is_some());
    world.relay.tap(A, &[]).unwrap();
    assert!(world.datagram(A, address(A), &voice(7, 2, 320).write().unwrap()).0.tap.is_none());
}

#[test]
fn copies_that_found_a_ring_full_are_counted() {
    let mut world = World::bridged();
    let slot = world.relay.slot(A).unwrap();
    world.relay.count_untapped(slot);
    assert_eq!(world.stats(A).untapped, 1);
}
