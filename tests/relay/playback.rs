//! What we play: codec silence every ptime for a party held by request, or samples.

use std::sync::Arc;

use stickytape::bridge::command::{Playback, Remote};
use stickytape::codec::{Codec, Direction, Payload};

use crate::{A, B, World, remote, voice};

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
