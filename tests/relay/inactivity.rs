//! The inactivity timer: only while it is armed; RTCP counts as life; comfort noise and DTX raise it.

use std::time::Duration;

use stickytape::bridge::command::Notice;
use stickytape::codec::{Codec, Payload};
use stickytape::rtp::packet::Packet;
use stickytape::rtp::rtcp::{MAX_LEN, Report};

use crate::{A, World, remote, rtcp_address, voice};

const TIMEOUT: Duration = Duration::from_secs(60);

fn watched() -> World {
    let mut world = World::bridged();
    let now = world.now();
    world.relay.watch(A, Some(TIMEOUT), now).unwrap();
    world
}

/// How often leg A was said to be silent until `ms`.
fn alarms(world: &mut World, ms: u64) -> usize {
    world.run_until(ms);
    world.notices().iter().filter(|notice| matches!(notice, Notice::Inactive { leg: A })).count()
}

#[test]
fn a_silent_peer_is_reported_once_per_arming() {
    let mut world = watched();
    assert_eq!(alarms(&mut world, 59_999), 0);
    assert_eq!(alarms(&mut world, 60_000), 1);
    assert_eq!(alarms(&mut world, 600_000), 0);
    let now = world.now();
    world.relay.watch(A, Some(TIMEOUT), now).unwrap();
    assert_eq!(alarms(&mut world, 659_999), 0);
    assert_eq!(alarms(&mut world, 660_000), 1);
}

#[test]
fn it_counts_from_the_last_packet_and_not_at_all_when_stopped() {
    let mut world = watched();
    world.run_until(50_000);
    world.say(A, &voice(7, 0, 0));
    assert_eq!(alarms(&mut world, 109_999), 0);
    assert_eq!(alarms(&mut world, 110_000), 1);
    let now = world.now();
    world.relay.watch(A, Some(TIMEOUT), now).unwrap();
    world.relay.watch(A, None, now).unwrap();
    assert_eq!(alarms(&mut world, 500_000), 0);
}

#[test]
fn a_strangers_packets_are_no_life() {
    let mut world = watched();
    world.say(A, &voice(7, 0, 0));
    world.run_until(30_000);
    world.datagram(A, "203.0.113.1:9".parse().unwrap(), &voice(7, 1, 0).write().unwrap());
    assert_eq!(alarms(&mut world, 60_000), 1);
}

#[test]
fn rtcp_counts_as_life() {
    let mut world = watched();
    let mut bytes = [0; MAX_LEN];
    let len = Report { ssrc: 7, sender: None, block: None, cname: "x", bye: false }.write(&mut bytes);
    world.run_until(40_000);
    assert!(world.rtcp(A, rtcp_address(A), &bytes[..len]));
    assert_eq!(alarms(&mut world, 99_999), 0);
    assert_eq!(alarms(&mut world, 100_000), 1);
}

#[test]
fn comfort_noise_raises_the_timeout_to_180_s() {
    let mut world = watched();
    let mut with_noise = remote(A);
    with_noise.receive.push(Payload { payload_type: 13, codec: Codec::from_static(13).unwrap() });
    world.relay.set_remote(A, with_noise).unwrap();
    world.say(A, &Packet { payload_type: 13, payload: vec![60].into(), ..voice(7, 0, 0) });
    assert_eq!(alarms(&mut world, 179_999), 0);
    assert_eq!(alarms(&mut world, 180_000), 1);
}

#[test]
fn silence_that_is_left_out_raises_it_too_and_loss_does_not() {
    let mut dtx = watched();
    dtx.say(A, &voice(7, 0, 0));
    dtx.pass(10_000);
    dtx.say(A, &Packet { marker: true, ..voice(7, 1, 80_000) });
    assert_eq!(alarms(&mut dtx, 189_999), 0);
    assert_eq!(alarms(&mut dtx, 190_000), 1);

    let mut loss = watched();
    loss.say(A, &voice(7, 0, 0));
    loss.pass(10_000);
    loss.say(A, &voice(7, 500, 80_000));
    assert_eq!(alarms(&mut loss, 70_000), 1);
}
