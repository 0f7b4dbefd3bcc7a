//! A receiver without telephone-event gets an in-band tone, never in the recording.

use std::time::Duration;

use stickytape::bridge::command::{Digit, Digits, Notice, Remote};
use stickytape::codec::{Codec, Payload};
use stickytape::id::RecorderId;
use stickytape::rtp::packet::Packet;
use stickytape::rtp::seq::{sequence_ahead, timestamp_ahead};
use stickytape::rtp::telephone_event::TelephoneEvent;

use crate::{A, B, Sent, World, address, remote, voice};

/// A calls B, and B takes linear audio only.
fn world() -> World {
    let mut world = World::bridged();
    let linear = Payload { payload_type: 96, codec: Codec::new("L16", 8_000, 1) };
    let mut a = remote(A);
    a.receive.push(linear.clone());
    world.relay.set_remote(A, a).unwrap();
    world.relay.set_remote(B, Remote { send: vec![linear], ..remote(B) }).unwrap();
    world
}

fn linear(sequence: u16, timestamp: u32) -> Packet {
    Packet { payload_type: 96, payload: vec![0; 320].into(), ..voice(7, sequence, timestamp) }
}

/// An event packet of `ms` so far; what the relay sends until 20 ms later.
fn event(world: &mut World, digit: u8, sequence: u16, timestamp: u32, ms: u16, end: bool) -> Vec<Sent> {
    let event = TelephoneEvent { event: digit, end, volume: 10, duration: ms * 8 };
    let payload = event.encode().to_vec().into();
    let packet = Packet { payload_type: 101, payload, ..voice(7, sequence, timestamp) };
    assert_eq!(world.say(A, &packet), None, "the event itself has no number there");
    let until = (world.now() - world.start).as_millis() as u64 + 20;
    world.own_rtp_until(until).into_iter().map(|(_, sent)| sent).collect()
}

fn samples(sent: &[Sent]) -> Vec<f64> {
    let bytes = sent.iter().flat_map(|sent| sent.packet.payload.to_vec()).collect::<Vec<_>>();
    bytes.chunks(2).map(|pair| f64::from(i16::from_be_bytes([pair[0], pair[1]]))).collect()
}

/// Goertzel: the part of the signal's power at a frequency.
fn part_at(samples: &[f64], hertz: f64) -> f64 {
    let turn = std::f64::consts::TAU * hertz / 8_000.0;
    let sum = |wave: fn(f64) -> f64| samples.iter().enumerate().map(|(n, s)| s * wave(turn * n as f64)).sum::<f64>();
    let power: f64 = samples.iter().map(|s| s * s).sum::<f64>() * samples.len() as f64 / 2.0;
    (sum(f64::sin).powi(2) + sum(f64::cos).powi(2)) / power
}

#[test]
fn a_digit_becomes_its_two_tones_for_as_long_as_it_was_pressed() {
    let mut world = world();
    let mut sent: Vec<Sent> = (0..3).filter_map(|n| world.say(A, &linear(n, 160 * u32::from(n)))).collect();
    let mut tone = vec![];
    for n in 0..5 {
        tone.extend(event(&mut world, 5, 3 + n, 480, 20 * (n + 1), false));
    }
    for n in 0..3 {
        tone.extend(event(&mut world, 5, 8 + n, 480, 100, true));
    }
    let heard = samples(&tone);
    assert!((700..=960).contains(&heard.len()), "{} samples", heard.len());
    assert!(part_at(&heard, 770.0) > 0.45 && part_at(&heard, 1_336.0) > 0.45);
    assert!(heard.iter().all(|sample| sample.abs() <= 16_000.0));

    sent.extend(tone);
    for n in 0..3 {
        world.pass(20);
        sent.extend(world.say(A, &linear(11 + n, 480 + 1_280 + 160 * u32::from(n))));
    }
    for pair in sent.windows(2) {
        assert_eq!(sequence_ahead(pair[1].packet.sequence, pair[0].packet.sequence), 1);
        assert!(timestamp_ahead(pair[1].packet.timestamp, pair[0].packet.timestamp) > 0);
    }
}

#[test]
fn two_presses_are_two_tones_and_a_repeated_end_is_none() {
    let mut world = world();
    let mut packets = vec![];
    for (press, timestamp) in [(0_u16, 1_000), (1, 9_000)] {
        for n in 0..5 {
            packets.push(event(&mut world, 1, press * 5 + n, timestamp, 60, n >= 2).len());
        }
        world.pass(300);
    }
    assert_eq!(packets.iter().sum::<usize>(), 6, "60 ms each: {packets:?}");
}

#[test]
fn an_event_that_breaks_off_ends_its_tone() {
    let mut world = world();
    event(&mut world, 11, 0, 1_000, 20, false);
    let until = (world.now() - world.start).as_millis() as u64;
    let rest = world.own_rtp_until(until + 2_000);
    assert!((4..=8).contains(&rest.len()), "{}", rest.len());
}

#[test]
fn the_recorder_gets_the_event_and_not_the_tone() {
    let mut world = world();
    world.relay.tap(A, &[RecorderId(0)]).unwrap();
    world.relay.tap(B, &[RecorderId(0)]).unwrap();
    let event = TelephoneEvent { event: 1, end: false, volume: 10, duration: 160 };
    let packet = Packet { payload_type: 101, payload: event.encode().to_vec().into(), ..voice(7, 0, 0) };
    let (verdict, _) = world.datagram(A, address(A), &packet.write().unwrap());
    let tap = verdict.tap.unwrap();
    assert_eq!((tap.leg, tap.header.payload_type, tap.header.payload_len()), (A, 101, 4));
}

fn press(world: &mut World, key: char, ms: u64) {
    let now = world.now();
    world.relay.press(B, Digit::of_key(key).unwrap(), Duration::from_millis(ms), now).unwrap();
}

fn read(sent: &Sent) -> TelephoneEvent {
    assert_eq!(sent.packet.payload_type, 101);
    TelephoneEvent::parse(&sent.packet.payload).unwrap()
}

#[test]
fn a_digit_of_ours_is_one_event_with_one_timestamp_a_growing_duration_and_three_ends() {
    let mut world = World::bridged();
    let mut sent: Vec<Sent> = (0..3).filter_map(|n| world.say(A, &voice(7, n, 160 * u32::from(n)))).collect();
    press(&mut world, '#', 100);
    let mut event = vec![];
    for n in 3..20 {
        let until = (world.now() - world.start).as_millis() as u64 + 20;
        let own: Vec<Sent> = world.own_rtp_until(until).into_iter().map(|(_, sent)| sent).collect();
        let busy = event.len() < 7;
        event.extend(own.clone());
        sent.extend(own);
        let voice = world.say(A, &voice(7, n, 160 * u32::from(n)));
        assert!(busy || voice.is_some(), "audio goes on after the digit");
        sent.extend(voice);
    }
    let read: Vec<TelephoneEvent> = event.iter().map(read).collect();
    assert!(read.iter().all(|event| event.event == 11));
    assert_eq!(read.iter().map(|e| e.duration).collect::<Vec<_>>(), [160, 320, 480, 640, 800, 800, 800]);
    assert_eq!(read.iter().map(|e| e.end).collect::<Vec<_>>(), [false, false, false, false, true, true, true]);
    assert!(event.iter().all(|sent| sent.packet.timestamp == event[0].packet.timestamp));
    assert_eq!(
        event.iter().map(|e| e.packet.marker).collect::<Vec<_>>(),
        [true, false, false, false, false, false, false]
    );
    for pair in sent.windows(2) {
        assert_eq!(sequence_ahead(pair[1].packet.sequence, pair[0].packet.sequence), 1);
        assert!(timestamp_ahead(pair[1].packet.timestamp, pair[0].packet.timestamp) >= 0);
    }
    let after = sent.iter().skip_while(|sent| sent.packet.payload_type != 101).find(|s| s.packet.payload_type == 0);
    let later = timestamp_ahead(after.unwrap().packet.timestamp, event[0].packet.timestamp);
    assert!(later >= 800, "audio after a digit is later than its end: {later}");
}

#[test]
fn digits_of_ours_come_one_after_the_other_and_each_is_an_event_of_its_own() {
    let mut world = World::bridged();
    for key in ['1', '1', '2'] {
        press(&mut world, key, 60);
    }
    let sent = world.own_rtp_until(2_000);
    let mut digits: Vec<(u32, u8)> = sent.iter().map(|(_, s)| (s.packet.timestamp, read(s).event)).collect();
    digits.dedup();
    assert_eq!(digits.iter().map(|(_, digit)| *digit).collect::<Vec<_>>(), [1, 1, 2]);
    let begins: Vec<u64> = sent.iter().filter(|(_, s)| s.packet.marker).map(|(at, _)| *at).collect();
    assert!(begins.windows(2).all(|pair| pair[1] - pair[0] >= 100 + 40), "{begins:?}");
}

#[test]
fn a_digit_of_ours_is_a_tone_for_a_peer_without_events_and_nothing_for_one_that_cannot_be_sent_to() {
    let mut world = world();
    press(&mut world, '5', 100);
    let sent: Vec<Sent> = world.own_rtp_until(1_000).into_iter().map(|(_, sent)| sent).collect();
    let heard = samples(&sent);
    assert_eq!(heard.len(), 800);
    assert!(part_at(&heard, 770.0) > 0.45 && part_at(&heard, 1_336.0) > 0.45);

    world.relay.set_remote(B, Remote { rtp: None, ..remote(B) }).unwrap();
    press(&mut world, '5', 100);
    assert!(world.own_rtp_until(2_000).is_empty());
    world.relay.set_remote(B, remote(B)).unwrap();
    assert!(world.own_rtp_until(3_000).is_empty(), "what was pressed in a hold does not come after it");
}

#[test]
fn signaling_is_told_of_each_digit_once_at_its_end_and_no_tone_is_played() {
    let mut world = world();
    world.relay.digits(B, Digits::Notice).unwrap();
    let mut sent = 0;
    for (press, timestamp) in [(0_u16, 1_000), (1, 9_000)] {
        for n in 0..8 {
            sent += event(&mut world, 9, press * 8 + n, timestamp, 20 * n.min(5) + 20, n >= 5).len();
        }
    }
    // The end of this one is lost.
    sent += event(&mut world, 12, 16, 20_000, 40, false).len();
    let until = (world.now() - world.start).as_millis() as u64 + 500;
    sent += world.own_rtp_until(until).len();
    let told = |notice: Notice| match notice {
        Notice::Digit { leg, digit, length } => Some((leg, digit.key(), length.as_millis())),
        _ => None,
    };
    let told: Vec<_> = world.notices().into_iter().filter_map(told).collect();
    assert_eq!((told, sent), (vec![(A, '9', 120), (A, '9', 120), (A, 'A', 40)], 0));
}

#[test]
fn collected_digits_are_told_once_each_and_not_any_more_when_nobody_wants_them() {
    let mut world = World::bridged();
    world.relay.route(A, None).unwrap();
    let press = |world: &mut World, digit: u8, timestamp: u32, packets: &[(u16, bool)]| {
        for (n, (ms, end)) in packets.iter().enumerate() {
            let event = TelephoneEvent { event: digit, end: *end, volume: 10, duration: ms * 8 };
            let payload = event.encode().to_vec().into();
            let sequence = (timestamp / 160) as u16 + n as u16;
            let packet = Packet { payload_type: 101, payload, ..voice(7, sequence, timestamp) };
            assert_eq!(world.say(A, &packet), None, "nobody hears it");
            world.pass(20);
        }
        let digits = world.notices().into_iter().filter_map(|notice| match notice {
            Notice::Digit { leg, digit, length } => Some((leg, digit.key(), length.as_millis())),
            _ => None,
        });
        digits.collect::<Vec<_>>()
    };
    for n in 0..3 {
        world.say(A, &voice(7, n, 160 * u32::from(n)));
    }
    let whole = [(40, false), (80, false), (80, true), (80, true), (80, true)];
    assert_eq!(press(&mut world, 5, 480, &whole), [], "not collected");
    world.relay.collect(A, true).unwrap();
    assert_eq!(press(&mut world, 5, 1_600, &whole), [(A, '5', 80)]);
    assert_eq!(press(&mut world, 11, 3_200, &whole[..2]), [], "its end is lost");
    world.own_rtp_until(1_000);
    assert_eq!(
        press(&mut world, 16, 4_800, &whole),
        [(A, '#', 80)],
        "told when it has been silent; a flash is no digit"
    );
    press(&mut world, 1, 6_400, &whole[..2]);
    world.relay.collect(A, false).unwrap();
    world.own_rtp_until(2_000);
    assert_eq!(press(&mut world, 1, 8_000, &whole), [], "neither the one before nor a further one");
}
