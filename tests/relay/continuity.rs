//! Towards each peer one SSRC, with sequence and timestamp growing without a break.

use stickytape::bridge::command::Playback;
use stickytape::codec::{Codec, Direction, Payload};
use stickytape::rtp::packet::Packet;
use stickytape::rtp::seq::{sequence_ahead, timestamp_ahead};
use stickytape::rtp::telephone_event::TelephoneEvent;

use crate::{A, B, C, SEQUENCE, Sent, TIMESTAMP, World, address, remote, ssrc, voice};

/// What a peer must never see: another SSRC, a sequence that does not grow by one, a timestamp that does not grow.
fn unbroken(sent: &[Sent]) {
    for pair in sent.windows(2) {
        let (before, after) = (&pair[0].packet, &pair[1].packet);
        assert_eq!(before.ssrc, after.ssrc);
        assert_eq!(sequence_ahead(after.sequence, before.sequence), 1, "{before:?} {after:?}");
        assert!(timestamp_ahead(after.timestamp, before.timestamp) > 0, "{before:?} {after:?}");
    }
}

fn step(before: &Sent, after: &Sent) -> i32 {
    timestamp_ahead(after.packet.timestamp, before.packet.timestamp)
}

#[test]
fn a_call_starts_with_the_numbers_it_was_given_and_keeps_the_senders_distances() {
    let mut world = World::bridged();
    let first = world.say(A, &voice(7, 10, 5_000)).unwrap();
    assert_eq!((first.leg, first.to), (B, address(B)));
    assert_eq!((first.packet.ssrc, first.packet.sequence, first.packet.timestamp), (ssrc(B), SEQUENCE, TIMESTAMP));
    assert!(first.packet.marker);
    assert_eq!(first.packet.payload, voice(7, 10, 0).payload);
    world.pass(60);
    let third = world.say(A, &voice(7, 13, 5_480)).unwrap();
    assert_eq!(sequence_ahead(third.packet.sequence, first.packet.sequence), 3, "loss is the peer's to see");
    assert_eq!(step(&first, &third), 480);
    assert!(!third.packet.marker);
    let late = world.say(A, &voice(7, 12, 5_320)).unwrap();
    assert_eq!((sequence_ahead(late.packet.sequence, first.packet.sequence), step(&first, &late)), (2, 320));
}

#[test]
fn a_transfer_to_another_party_is_one_stream_to_the_staying_one() {
    let mut world = World::bridged();
    let mut sent = vec![];
    for n in 0..5 {
        world.pass(20);
        sent.extend(world.say(A, &voice(7, 100 + n, 160 * u32::from(n))));
    }
    world.relay.route(A, None).unwrap();
    world.bridge(C, B);
    world.pass(1_000);
    for n in 0..5 {
        world.pass(20);
        sent.extend(world.say(C, &voice(9, 40_000 + n, 777_000 + 160 * u32::from(n))));
    }
    assert_eq!(sent.len(), 10);
    unbroken(&sent);
    assert_eq!(step(&sent[4], &sent[5]), 51 * 160, "1,020 ms are 51 whole packets");
    assert!(sent[5].packet.marker && !sent[6].packet.marker);
}

#[test]
fn the_elapsed_time_counts_in_whole_packets() {
    let mut world = World::bridged();
    let before = world.say(A, &voice(7, 1, 0)).unwrap();
    world.bridge(C, B);
    world.pass(53);
    let after = world.say(C, &voice(9, 1, 0)).unwrap();
    assert_eq!(step(&before, &after), 3 * 160);
}

#[test]
fn a_source_that_changes_its_ssrc_or_starts_its_numbers_again_is_one_stream() {
    let mut world = World::bridged();
    let mut sent = vec![];
    let streams = [(7, 100_u16, 0_u32), (8, 60_000, 1 << 31), (8, 5, 99), (8, 40_000, 5)];
    for (ssrc, sequence, timestamp) in streams {
        for n in 0..5 {
            world.pass(20);
            sent.extend(world.say(A, &voice(ssrc, sequence + n, timestamp + 160 * u32::from(n))));
        }
    }
    // A restart under the same SSRC is proved by its second packet (RFC 3550 A.1).
    assert_eq!(sent.len(), 5 + 5 + 4 + 4);
    unbroken(&sent);
    assert!(sent.windows(2).all(|pair| step(&pair[0], &pair[1]) <= 3 * 160));
}

#[test]
fn a_jump_of_the_timestamps_alone_is_not_passed_on_and_a_pause_is() {
    let mut world = World::bridged();
    let first = world.say(A, &voice(7, 1, 0)).unwrap();
    world.pass(20);
    let jumped = world.say(A, &voice(7, 2, 1_000_000)).unwrap();
    assert_eq!(step(&first, &jumped), 160);
    world.pass(20);
    let back = world.say(A, &voice(7, 3, 320)).unwrap();
    assert_eq!(step(&jumped, &back), 160);
    world.pass(8_000);
    let after_silence = world.say(A, &voice(7, 4, 320 + 64_000)).unwrap();
    assert_eq!(step(&back, &after_silence), 64_000, "DTX: the timestamp goes with the clock");
}

#[test]
fn a_stall_that_catches_up_keeps_its_distances() {
    let mut world = World::bridged();
    let first = world.say(A, &voice(7, 1, 0)).unwrap();
    world.pass(5_000);
    for n in 1..250_u16 {
        let sent = world.say(A, &voice(7, 1 + n, 160 * u32::from(n))).unwrap();
        assert_eq!(step(&first, &sent), 160 * i32::from(n));
    }
}

#[test]
fn a_re_invite_that_renumbers_the_codecs_goes_on_with_the_same_numbers() {
    let mut world = World::bridged();
    let mut sent = vec![];
    for n in 0..10 {
        world.pass(20);
        if n == 5 {
            let mut renumbered = remote(B);
            renumbered.send = vec![Payload { payload_type: 96, codec: Codec::pcmu() }];
            renumbered.rtp = Some("192.0.2.99:9000".parse().unwrap());
            world.relay.set_remote(B, renumbered).unwrap();
        }
        sent.extend(world.say(A, &voice(7, n, 160 * u32::from(n))));
    }
    unbroken(&sent);
    assert!(sent.windows(2).all(|pair| step(&pair[0], &pair[1]) == 160));
    assert_eq!((sent[4].packet.payload_type, sent[5].packet.payload_type), (0, 96));
    assert_eq!(sent[5].to, "192.0.2.99:9000".parse().unwrap());
}

#[test]
fn hold_and_retrieve_leave_no_hole_in_the_sequence() {
    let mut world = World::bridged();
    let mut sent = vec![];
    for n in 0..30_u16 {
        world.pass(20);
        let direction = if (10..20).contains(&n) { Direction::Inactive } else { Direction::SendRecv };
        world.relay.set_remote(B, crate::Remote { direction, ..remote(B) }).unwrap();
        sent.extend(world.say(A, &voice(7, n, 160 * u32::from(n))));
    }
    assert_eq!(sent.len(), 20);
    unbroken(&sent);
    assert_eq!(step(&sent[9], &sent[10]), 11 * 160);
}

#[test]
fn playback_and_relay_alternate_in_one_stream() {
    let mut world = World::bridged();
    let mut sent = vec![];
    let mut sequence = 0;
    for round in 0..3_u64 {
        for _ in 0..5 {
            world.pass(20);
            sequence += 1;
            sent.extend(world.say(A, &voice(7, sequence, 160 * u32::from(sequence))));
        }
        world.pass(20);
        let now = world.now();
        world.relay.play(B, Playback::Silence, now).unwrap();
        sent.extend(world.own_rtp_until((round + 1) * 300).into_iter().map(|(_, sent)| sent));
        world.bridge(A, B);
    }
    assert!(sent.len() > 30);
    unbroken(&sent);
    assert_eq!(sent[5].packet.payload, vec![0xff; 160]);
    assert!(sent[5].packet.marker);
}

#[test]
fn packets_that_the_receiver_cannot_take_leave_no_hole_in_its_sequence() {
    let mut world = World::bridged();
    let mut with_g729 = remote(A);
    with_g729.receive.push(Payload { payload_type: 18, codec: Codec::from_static(18).unwrap() });
    world.relay.set_remote(A, with_g729).unwrap();
    let mut sent = vec![];
    for n in 0..20 {
        world.pass(20);
        let payload_type = match n {
            5..8 => 18,
            12 => 55,
            _ => 0,
        };
        sent.extend(world.say(A, &Packet { payload_type, ..voice(7, n, 160 * u32::from(n)) }));
    }
    assert_eq!(sent.len(), 16);
    unbroken(&sent);
    assert_eq!(world.stats(A).refused, 4, "three in a codec that B does not take, one unknown");
}

#[test]
fn a_digit_keeps_one_timestamp_and_is_renumbered_by_name_and_clock_rate() {
    let mut world = World::bridged();
    let mut other_numbers = remote(B);
    other_numbers.send[2].payload_type = 96;
    world.relay.set_remote(B, other_numbers).unwrap();
    for n in 0..3 {
        world.pass(20);
        world.say(A, &voice(7, n, 160 * u32::from(n)));
    }
    let mut digit = vec![];
    for n in 0..6_u16 {
        world.pass(20);
        let event = TelephoneEvent { event: 5, end: n > 3, volume: 10, duration: 160 * (n + 1) };
        let packet = Packet {
            payload_type: 101,
            marker: n == 0,
            payload: event.encode().to_vec().into(),
            ..voice(7, 3 + n, 480)
        };
        digit.extend(world.say(A, &packet));
        assert_eq!(digit.last().unwrap().packet.payload, event.encode().to_vec());
    }
    assert_eq!(digit.len(), 6);
    assert!(digit.iter().all(|sent| sent.packet.payload_type == 96));
    assert!(digit.iter().all(|sent| sent.packet.timestamp == digit[0].packet.timestamp));
    assert!(digit[0].packet.marker);
    // The voice goes on after it, later by what the sender says.
    world.pass(20);
    let after = world.say(A, &voice(7, 9, 160 * 9)).unwrap();
    assert_eq!(step(&digit[0], &after), 160 * 6);
}

#[test]
fn nothing_of_the_other_dialog_but_the_payload_crosses() {
    let mut world = World::bridged();
    let mut datagram = vec![0xb1, 0x80, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7];
    datagram.extend([9, 9, 9, 9]);
    datagram.extend([0xbe, 0xde, 0, 1, 0x10, 5, 0, 0]);
    datagram.extend([0xaa; 160]);
    datagram.extend([0, 2]);
    let (_, sent) = world.datagram(A, address(A), &datagram);
    let packet = sent.unwrap().packet;
    assert_eq!((packet.csrc, packet.payload), (vec![], vec![0xaa; 160].into()));
}

#[test]
fn a_stream_goes_on_unbroken_for_a_long_call() {
    let mut world = World::bridged();
    let mut last: Option<Sent> = None;
    for n in 0..200_000_u32 {
        world.pass(20);
        let sent = world.say(A, &voice(7, n as u16, 160 * n)).expect("every packet of a long call is relayed");
        if let Some(last) = &last {
            assert_eq!(sequence_ahead(sent.packet.sequence, last.packet.sequence), 1);
            assert_eq!(step(last, &sent), 160);
        }
        last = Some(sent);
    }
}
