//! Beeps: who is recorded hears it, in the midst of everything else, and no recorder does.

use std::sync::Arc;
use std::time::Duration;

use stickytape::audio::coding::Coding;
use stickytape::bridge::command::{Digit, Playback, Remote};
use stickytape::codec::{Codec, Direction, Payload};
use stickytape::id::RecorderId;
use stickytape::rtp::packet::Packet;
use stickytape::rtp::seq::{sequence_ahead, timestamp_ahead};

use crate::{A, B, Sent, World, address, remote};

const EVERY: Duration = Duration::from_secs(15);

fn beeping() -> World {
    let mut world = World::bridged();
    let now = world.now();
    world.relay.beep(B, Some(EVERY), now).unwrap();
    world
}

fn samples(packet: &Packet) -> Vec<i16> {
    let mut out = vec![0; packet.payload.len()];
    Coding::of(&Codec::pcmu()).unwrap().decode(&packet.payload, &mut out);
    out
}

/// As [`beeping`], after a packet of media that has come in time.
fn beeping_in_media() -> World {
    let mut world = World::bridged();
    world.say(A, &silence(u32::MAX)).unwrap();
    world.pass(20);
    let now = world.now();
    world.relay.beep(B, Some(EVERY), now).unwrap();
    world
}

/// −20 dBFS or near it.
fn beeps(packet: &Packet) -> bool {
    let samples = samples(packet);
    let power = samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / samples.len().max(1) as f64;
    power.sqrt() > 1_000.0
}

/// A packet of digital silence.
fn silence(n: u32) -> Packet {
    let payload = vec![0xff; 160].into();
    let (sequence, timestamp) = (n as u16, 160_u32.wrapping_mul(n));
    Packet { payload_type: 0, marker: false, sequence, timestamp, ssrc: 7, csrc: vec![], payload }
}

#[track_caller]
fn unbroken(sent: &[Sent]) {
    for (n, pair) in sent.windows(2).enumerate() {
        assert_eq!(sequence_ahead(pair[1].packet.sequence, pair[0].packet.sequence), 1, "{n}");
        assert!(timestamp_ahead(pair[1].packet.timestamp, pair[0].packet.timestamp) > 0, "{n}");
    }
}

#[test]
fn a_beep_is_mixed_into_what_is_relayed_at_once_and_every_15_seconds_without_drift() {
    let mut world = beeping_in_media();
    world.relay.tap(A, &[RecorderId(0)]).unwrap();
    let (mut sent, mut own) = (vec![], 0);
    for n in 0..900 * 50 {
        own += world.own_rtp_until(20 + 20 * u64::from(n)).len();
        let slot = world.relay.slot(A).unwrap();
        let mut buffer = silence(n).write().unwrap().to_vec();
        let now = world.now();
        let verdict = world.relay.packet(slot, stickytape::bridge::relay::Channel::Rtp, address(A), &mut buffer, now);
        let forward = verdict.forward.unwrap();
        let packet = Packet::read(world.relay.sent(&forward, &buffer)).unwrap();
        assert_eq!(buffer[verdict.tap.unwrap().header.payload()], [0xff; 160], "the recorder hears no beep");
        sent.push(Sent { leg: B, to: forward.to, packet });
    }
    assert_eq!(own, 0, "media carries it");
    unbroken(&sent);
    let marked: Vec<usize> = (0..sent.len()).filter(|n| sent[*n].packet.marker).collect();
    assert!(marked.is_empty(), "{marked:?}");
    let heard: Vec<usize> = (0..sent.len()).filter(|n| beeps(&sent[*n].packet)).collect();
    let expected: Vec<usize> = (0..60).flat_map(|beep| 750 * beep..750 * beep + 10).collect();
    assert_eq!(heard, expected);
    assert!(sent[100].packet.payload.iter().all(|byte| *byte == 0xff), "the rest is untouched");
}

#[test]
fn only_the_peer_of_the_leg_hears_it_and_none_after_its_end() {
    let mut world = beeping();
    let from_b = world.say(B, &silence(0)).unwrap();
    assert_eq!((from_b.leg, beeps(&from_b.packet)), (A, false));
    assert!(beeps(&world.say(A, &silence(0)).unwrap().packet));
    let now = world.now();
    world.relay.beep(B, None, now).unwrap();
    assert!(!beeps(&world.say(A, &silence(1)).unwrap().packet));
    assert_eq!(world.own_rtp_until(40_000), []);
}

#[test]
fn who_hears_nothing_hears_the_beep_in_packets_of_our_own() {
    let mut world = beeping();
    let own = world.own_rtp_until(30_500);
    let times: Vec<u64> = own.iter().map(|(at, _)| *at).collect();
    let expected: Vec<u64> = [0, 15_000, 30_000].iter().flat_map(|at| (0..10).map(move |n| at + 20 * n)).collect();
    assert_eq!(times, expected);
    let sent: Vec<Sent> = own.into_iter().map(|(_, sent)| sent).collect();
    unbroken(&sent);
    assert!(sent.iter().all(|sent| sent.leg == B && beeps(&sent.packet)));
    assert_eq!(timestamp_ahead(sent[10].packet.timestamp, sent[9].packet.timestamp), 8 * (15_000 - 180));
    assert!(sent[10].packet.marker && !sent[11].packet.marker);
}

#[test]
fn media_that_stops_or_begins_in_a_beep_leaves_it_whole_in_one_stream() {
    // Stops: four packets, then nothing.
    let mut world = beeping_in_media();
    let mut sent = vec![];
    for n in 0..4 {
        assert_eq!(world.own_rtp_until(20 + 20 * u64::from(n)), []);
        sent.extend(world.say(A, &silence(n)));
    }
    sent.extend(world.own_rtp_until(5_000).into_iter().map(|(_, sent)| sent));
    assert_eq!(sent.iter().filter(|sent| beeps(&sent.packet)).count(), 10);
    unbroken(&sent);
    // Begins: three packets of our own, then media.
    let mut world = beeping();
    let mut sent: Vec<Sent> = world.own_rtp_until(50).into_iter().map(|(_, sent)| sent).collect();
    assert_eq!(sent.len(), 3);
    for n in 0..50 {
        sent.extend(world.own_rtp_until(50 + 20 * u64::from(n)).into_iter().map(|(_, sent)| sent));
        sent.extend(world.say(A, &silence(n)));
    }
    assert_eq!(sent.len(), 53, "no packet of media is left out, and none of ours is beside it");
    let heard: Vec<usize> = (0..sent.len()).filter(|n| beeps(&sent[*n].packet)).collect();
    assert_eq!(heard, (0..10).collect::<Vec<_>>());
    unbroken(&sent);
}

#[test]
fn hold_audio_carries_it_to_the_peer_and_not_into_its_recording() {
    let mut world = beeping();
    let now = world.now();
    let tapping = stickytape::bridge::command::Tapping { name: crate::C, recorders: vec![RecorderId(0)] };
    world.relay.tap_playback(B, Some(tapping)).unwrap();
    let samples: Arc<[i16]> = vec![0; 8_000].into();
    world.relay.play(B, Playback::Samples { samples, repeat: true }, now).unwrap();
    let mut taps = 0;
    let mut beeping = vec![];
    for (at, transmit, bytes) in world.run_until_with_taps(16_000) {
        if transmit.channel != stickytape::bridge::relay::Channel::Rtp {
            continue;
        }
        let (header, payload) = bytes.1.expect("every packet is copied");
        assert_eq!(header.leg, crate::C);
        assert!(payload.iter().all(|byte| *byte == 0));
        taps += 1;
        if beeps(&Packet::read(&bytes.0).unwrap()) {
            beeping.push(at);
        }
    }
    assert_eq!(taps, 801);
    assert_eq!(beeping, (0..10).map(|n| 20 * n).chain((0..10).map(|n| 15_000 + 20 * n)).collect::<Vec<_>>());
}

#[test]
fn a_beep_waits_for_a_digit_and_for_the_end_of_a_hold() {
    let mut world = beeping();
    let now = world.now();
    world.relay.press(B, Digit::of_key('5').unwrap(), Duration::from_millis(100), now).unwrap();
    let own = world.own_rtp_until(3_000);
    let (digits, beep): (Vec<_>, Vec<_>) = own.into_iter().partition(|(_, sent)| sent.packet.payload_type == 101);
    assert_eq!((digits.len(), beep.len()), (7, 10));
    assert!(beep[0].0 > digits.last().unwrap().0, "one after the other");

    let mut world = World::bridged();
    world.relay.set_remote(B, Remote { direction: Direction::RecvOnly, ..remote(B) }).unwrap();
    let now = world.now();
    world.relay.beep(B, Some(EVERY), now).unwrap();
    assert_eq!(world.own_rtp_until(4_000), [], "it cannot be sent anything");
    world.relay.set_remote(B, remote(B)).unwrap();
    let heard: Vec<bool> = (0..20).map(|n| beeps(&world.say(A, &silence(n)).unwrap().packet)).collect();
    assert_eq!(heard.iter().filter(|beeps| **beeps).count(), 10);
}

#[test]
fn packets_that_nothing_can_be_mixed_into_give_way_to_a_beep_of_our_own() {
    let mut world = World::bridged();
    let g729 = Payload { payload_type: 18, codec: Codec::from_static(18).unwrap() };
    let with = |mut remote: Remote| {
        remote.receive.insert(0, g729.clone());
        remote.send.insert(0, g729.clone());
        remote
    };
    world.relay.set_remote(A, with(remote(A))).unwrap();
    world.relay.set_remote(B, with(remote(B))).unwrap();
    let mut sent = vec![];
    for n in 0..100_u32 {
        if n == 10 {
            let now = world.now();
            world.relay.beep(B, Some(EVERY), now).unwrap();
        }
        sent.extend(world.own_rtp_until(20 * u64::from(n)).into_iter().map(|(_, sent)| sent));
        let packet = Packet { payload_type: 18, payload: vec![n as u8; 20].into(), ..silence(n) };
        sent.extend(world.say(A, &packet));
    }
    let beep = sent.iter().filter(|sent| sent.packet.payload_type == 0).count();
    assert_eq!(beep, 10);
    assert!((99..=101).contains(&sent.len()), "one thing at a time: {}", sent.len());
    unbroken(&sent);
}
