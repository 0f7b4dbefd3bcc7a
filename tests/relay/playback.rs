//! What we play: codec silence every ptime for a party held by request, or samples.

use std::sync::Arc;

use stickytape::bridge::command::{PLAYED_PAYLOAD_TYPE, Playback, Remote, Tapping};
use stickytape::bridge::relay::Channel;
use stickytape::codec::{Codec, Direction, Payload};
use stickytape::id::RecorderId;
use stickytape::rtp::packet::Packet;

use crate::{A, B, C, Copied, World, remote, voice};

fn playing(what: Playback, remote: Remote) -> World {
    let mut world = World::bridged();
    world.relay.set_remote(B, remote).unwrap();
    let now = world.now();
    world.relay.play(B, what, now).unwrap();
    world
}

#[test]
fn silence_is_a_packet_of_codec_silence_every_ptime() {
    let silences = [(Codec::pcmu(), 0xff), (Codec::pcma(), 0xd5)];
    for (codec, silence) in silences {
        let send = vec![Payload { payload_type: 96, codec }];
        let mut world = playing(Playback::Silence, Remote { send, ptime_ms: 30, ..remote(B) });
        let sent = world.own_rtp_until(2_999);
        assert_eq!(sent.len(), 100);
        for (n, (at, sent)) in sent.iter().enumerate() {
            assert_eq!((*at, sent.leg, sent.packet.payload_type), (30 * n as u64, B, 96));
            assert_eq!(sent.packet.payload, vec![silence; 240]);
            assert_eq!(sent.packet.marker, n == 0);
            let step = sent.packet.timestamp.wrapping_sub(crate::TIMESTAMP);
            assert_eq!(step, 240 * n as u32);
        }
    }
}

#[test]
fn silence_in_linear_samples_has_the_codecs_rate() {
    let send = vec![Payload { payload_type: 96, codec: Codec::new("L16", 16_000, 1) }];
    let mut world = playing(Playback::Silence, Remote { send, ..remote(B) });
    let sent = world.own_rtp_until(20);
    assert_eq!(sent[1].1.packet.payload, vec![0; 640]);
    assert_eq!(sent[1].1.packet.timestamp.wrapping_sub(sent[0].1.packet.timestamp), 320);
}

#[test]
fn a_peer_without_a_codec_that_we_make_is_sent_nothing() {
    let send = vec![Payload { payload_type: 18, codec: Codec::from_static(18).unwrap() }];
    let mut world = playing(Playback::Silence, Remote { send, ..remote(B) });
    assert_eq!(world.own_rtp_until(1_000), []);
}

#[test]
fn samples_are_played_once_or_again_and_again() {
    let samples: Arc<[i16]> = (0..400).map(|n| n * 50).collect();
    let linear = vec![Payload { payload_type: 96, codec: Codec::new("L16", 8_000, 1) }];
    let heard = |repeat| {
        let what = Playback::Samples { samples: samples.clone(), repeat };
        let mut world = playing(what, Remote { send: linear.clone(), ..remote(B) });
        let sent = world.own_rtp_until(199);
        let bytes: Vec<u8> = sent.iter().flat_map(|(_, sent)| sent.packet.payload.to_vec()).collect();
        bytes.chunks(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]])).collect::<Vec<_>>()
    };
    let mut once = samples.to_vec();
    once.resize(480, 0);
    assert_eq!(heard(false), once);
    assert_eq!(heard(true), samples.iter().copied().cycle().take(1_600).collect::<Vec<_>>());
}

#[test]
fn a_late_wake_up_skips_and_sends_no_burst() {
    let mut world = playing(Playback::Silence, remote(B));
    let before = world.own_rtp_until(100);
    world.at(267);
    let after = world.own_rtp_until(280);
    assert_eq!((before.len(), after.len()), (6, 2));
    let (last, first) = (&before[5].1.packet, &after[0].1.packet);
    assert_eq!(first.sequence, last.sequence.wrapping_add(1));
    assert_eq!(first.timestamp.wrapping_sub(last.timestamp), 8 * 160);
    assert_eq!(after[1].0, 280, "ticks are absolute");
}

#[test]
fn playing_and_a_route_exclude_each_other() {
    let mut world = playing(Playback::Silence, remote(B));
    assert!(world.say(A, &voice(7, 0, 0)).is_none());
    assert!(world.say(B, &voice(9, 0, 0)).is_some(), "the other direction goes on");
    world.relay.route(A, Some(B)).unwrap();
    assert_eq!(world.own_rtp_until(1_000), []);
    assert!(world.say(A, &voice(7, 1, 160)).is_some());
}

#[test]
fn nothing_is_played_to_a_peer_that_does_not_want_it() {
    let mut world = playing(Playback::Silence, Remote { direction: Direction::RecvOnly, ..remote(B) });
    assert_eq!(world.own_rtp_until(500), []);
    world.relay.set_remote(B, remote(B)).unwrap();
    let sent = world.own_rtp_until(600);
    assert_eq!(sent.len(), 5);
    assert!(sent[0].1.packet.marker);
}

/// Copies of what is played to B, with the packets that it hears.
fn copies(world: &mut World, until: u64) -> Vec<(u64, Packet, Copied, Vec<i16>)> {
    let own = world.run_until_with_taps(until).into_iter().filter(|(_, transmit, _)| transmit.channel == Channel::Rtp);
    own.filter_map(|(at, _, (bytes, copy))| {
        let (copied, payload) = copy?;
        let samples = payload.chunks(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]])).collect();
        Some((at, Packet::read(&bytes).unwrap(), copied, samples))
    })
    .collect()
}

#[test]
fn what_is_played_is_copied_as_a_leg_of_its_own_while_it_is_heard() {
    let samples: Arc<[i16]> = (0..8_000).map(|n| n as i16).collect();
    let what = Playback::Samples { samples: samples.clone(), repeat: true };
    let mut world = playing(what.clone(), remote(B));
    let recorders = vec![RecorderId(3), RecorderId(1)];
    world.relay.tap_playback(B, Some(Tapping { name: C, recorders: recorders.clone() })).unwrap();
    let mut all = copies(&mut world, 200);
    // It cannot be heard on hold: no copy, and the clock of the copies goes on.
    world.relay.set_remote(B, Remote { direction: Direction::RecvOnly, ..remote(B) }).unwrap();
    assert!(copies(&mut world, 500).is_empty());
    world.relay.set_remote(B, remote(B)).unwrap();
    all.extend(copies(&mut world, 700));
    // Another playback and another list of recorders are the same stream.
    world.relay.tap_playback(B, Some(Tapping { name: C, recorders: vec![RecorderId(1)] })).unwrap();
    let now = world.now();
    world.relay.play(B, what, now).unwrap();
    all.extend(copies(&mut world, 900));
    assert!(all.len() > 25);
    for (n, (at, heard, copied, samples)) in all.iter().enumerate() {
        assert_eq!((copied.leg, copied.payload_type, copied.sequence), (C, PLAYED_PAYLOAD_TYPE, n as u16));
        assert_eq!((copied.ssrc, copied.timestamp), (all[0].2.ssrc, 8 * *at as u32), "at {at} ms");
        assert_eq!((samples.len(), heard.payload.len()), (160, 160));
        assert_eq!(copied.marker, heard.marker);
        let taps = if *at > 700 || (*at == 700 && copied.marker) { &recorders[1..] } else { &recorders[..] };
        assert_eq!(copied.taps.recorders(), taps, "at {at} ms");
    }
    assert_eq!(all[1].3, samples[160..320]);
    world.relay.tap_playback(B, None).unwrap();
    assert!(copies(&mut world, 1_500).is_empty());
}

#[test]
fn copies_of_a_leg_may_go_under_another_name() {
    let mut world = World::bridged();
    world.relay.tap(A, &[RecorderId(0)]).unwrap();
    let name = |world: &mut World, n: u16| {
        let said = voice(7, n, 160 * u32::from(n)).write().unwrap();
        world.datagram(A, crate::address(A), &said).0.tap.map(|tap| tap.leg)
    };
    assert_eq!(name(&mut world, 0), Some(A));
    world.relay.tap_as(A, Some(C)).unwrap();
    assert_eq!(name(&mut world, 1), Some(C));
    world.relay.tap_as(A, None).unwrap();
    assert_eq!(name(&mut world, 2), Some(A));
}

#[test]
fn hold_audio_between_two_routes_is_one_stream_without_a_burst() {
    let mut world = World::bridged();
    let samples: Arc<[i16]> = vec![500; 800].into();
    let (mut sent, mut number) = (vec![], 0_u16);
    let mut talk = |world: &mut World, until: u64, sent: &mut Vec<(u64, Packet)>| {
        while world.now_ms() < until {
            number += 1;
            let said = voice(7, number, 160 * u32::from(number));
            sent.extend(world.say(A, &said).map(|sent| (world.now_ms(), sent.packet)));
            world.pass(20);
        }
    };
    talk(&mut world, 200, &mut sent);
    for round in 1..4_u64 {
        world.relay.route(A, None).unwrap();
        let now = world.now();
        world.relay.play(B, Playback::Samples { samples: samples.clone(), repeat: true }, now).unwrap();
        let until = 400 * round + 95;
        sent.extend(world.own_rtp_until(until).into_iter().map(|(at, sent)| (at, sent.packet)));
        world.pass(7);
        let now = world.now();
        world.relay.play(B, Playback::None, now).unwrap();
        world.relay.route(A, Some(B)).unwrap();
        talk(&mut world, 400 * (round + 1) - 100, &mut sent);
    }
    assert!(sent.len() > 60);
    for pair in sent.windows(2) {
        let ((before, a), (after, b)) = (&pair[0], &pair[1]);
        assert_eq!(b.sequence, a.sequence.wrapping_add(1));
        let ticks = b.timestamp.wrapping_sub(a.timestamp);
        assert!(ticks >= 160 && ticks.is_multiple_of(160));
        let drift = f64::from(ticks) / 8.0 - (after - before) as f64;
        assert!(drift.abs() <= 20.0, "{before} to {after} ms: {ticks} ticks");
        assert!(after > before, "no burst: {before} to {after} ms, {ticks} ticks");
    }
    let marked = sent.iter().filter(|(_, packet)| packet.marker).count();
    assert_eq!(marked, 7, "where one thing follows another");
}
