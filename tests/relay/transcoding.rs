//! Legs that share no codec hear each other: what one sends becomes what the other takes.

use std::f64::consts::TAU;

use stickytape::audio::coding::Coding;
use stickytape::bridge::command::Remote;
use stickytape::bridge::relay::Refusal;
use stickytape::codec::{Codec, Payload};
use stickytape::rtp::packet::Packet;
use stickytape::rtp::seq::{sequence_ahead, timestamp_ahead};

use crate::{A, B, SEQUENCE, Sent, TIMESTAMP, World, address, remote};

fn linear(rate: u32) -> Codec {
    Codec::new("L16", rate, 1)
}

fn payload(payload_type: u8, codec: &Codec) -> Payload {
    Payload { payload_type, codec: codec.clone() }
}

/// A sends in `from` (96) and events (101); B takes `to` (97) and events (100).
fn world(from: &Codec, to: &Codec) -> World {
    let mut world = World::bridged();
    let events = Codec::telephone_event();
    let receive = vec![payload(96, from), payload(101, &events), payload(13, &Codec::new("CN", 8_000, 1))];
    world.relay.set_remote(A, Remote { receive, ..remote(A) }).unwrap();
    let send = vec![payload(18, &Codec::from_static(18).unwrap()), payload(97, to), payload(100, &events)];
    world.relay.set_remote(B, Remote { send, ..remote(B) }).unwrap();
    world
}

/// A packet of `ms` of a 1 kHz tone at −10 dBFS, the `n`th.
fn tone(codec: &Codec, n: u32, ms: u32) -> Packet {
    let count = codec.clock_rate / 1_000 * ms;
    let at = |i: u32| 10_362.0 * (TAU * 1_000.0 * f64::from(n * count + i) / f64::from(codec.clock_rate)).sin();
    let samples: Vec<i16> = (0..count).map(|i| at(i) as i16).collect();
    let coding = Coding::of(codec).unwrap();
    let mut bytes = vec![0; coding.bytes(samples.len())];
    coding.encode(&samples, &mut bytes);
    let (sequence, timestamp) = (n as u16, n.wrapping_mul(count).wrapping_sub(99_000));
    Packet { payload_type: 96, marker: n == 0, sequence, timestamp, ssrc: 7, csrc: vec![], payload: bytes.into() }
}

fn decode(codec: &Codec, packets: &[Sent]) -> Vec<f64> {
    let coding = Coding::of(codec).unwrap();
    let each = |sent: &Sent| {
        let mut samples = vec![0; coding.samples(sent.packet.payload.len())];
        coding.decode(&sent.packet.payload, &mut samples);
        samples
    };
    packets.iter().flat_map(each).map(f64::from).collect()
}

/// Level of 1 kHz in dBFS, and its distance to everything else in dB.
fn level_and_snr(samples: &[f64], rate: u32) -> (f64, f64) {
    let (mut sine, mut cosine, mut power) = (0.0, 0.0, 0.0);
    for (n, sample) in samples.iter().enumerate() {
        let angle = TAU * 1_000.0 * n as f64 / f64::from(rate);
        sine += sample * angle.sin();
        cosine += sample * angle.cos();
        power += sample * sample;
    }
    let count = samples.len() as f64;
    let tone = 2.0 * (sine * sine + cosine * cosine) / count;
    let amplitude = (2.0 * tone / count).sqrt();
    (20.0 * (amplitude / 32_768.0).log10(), 10.0 * (tone / (power - tone).max(1e-9)).log10())
}

#[test]
fn a_tone_reaches_every_codec_from_every_codec_at_its_level() {
    let all = [Codec::pcmu(), Codec::pcma(), linear(8_000), linear(16_000), linear(48_000)];
    for from in &all {
        for to in all.iter().filter(|to| to.is_encodable() && *to != from) {
            let mut world = world(from, to);
            let mut heard = vec![];
            for n in 0..52 {
                heard.extend(world.say(A, &tone(from, n, 20)));
                world.pass(20);
            }
            assert_eq!(heard.len(), 52);
            let step = to.clock_rate / 50;
            for (n, sent) in heard.iter().enumerate() {
                let packet = &sent.packet;
                assert_eq!((sent.leg, sent.to, packet.payload_type, packet.ssrc), (B, address(B), 97, 1_002));
                assert_eq!(packet.sequence, SEQUENCE.wrapping_add(n as u16), "{from} to {to}");
                assert_eq!(packet.timestamp, TIMESTAMP.wrapping_add(n as u32 * step), "{from} to {to}");
                assert_eq!(packet.marker, n == 0);
                assert_eq!(packet.payload.len(), Coding::of(to).unwrap().bytes(step as usize));
            }
            // The first packet holds the beginning of the filter.
            let samples = decode(to, &heard[2..]);
            let (level, snr) = level_and_snr(&samples, to.clock_rate);
            assert!((level + 10.0).abs() < 0.2, "{from} to {to}: {level} dBFS");
            // G.711 gives 38 dB once, and twice 35.
            let least = if [from, to].iter().all(|codec| codec.name() == "L16") { 60.0 } else { 34.0 };
            assert!(snr > least, "{from} to {to}: {snr} dB");
        }
    }
}

#[test]
fn three_hours_of_transcoding_between_clocks_do_not_drift() {
    for (from, to) in [(linear(48_000), Codec::pcma()), (Codec::pcmu(), linear(16_000))] {
        let mut world = world(&from, &to);
        let packets = 3 * 3_600 * 5_u32;
        for n in 0..packets {
            // Timestamps alone say where a packet stands; few samples are soon converted.
            let mut packet =
                Packet { sequence: n as u16, marker: false, payload: vec![1; 12].into(), ..tone(&from, 0, 0) };
            // Through the wrap of the source's clock.
            packet.timestamp = 4_000_000_000_u32.wrapping_add(n.wrapping_mul(from.clock_rate / 5));
            // Silence is left out now and then.
            if n % 100 < 99 {
                let sent = world.say(A, &packet).unwrap().packet;
                assert_eq!(sent.timestamp, TIMESTAMP.wrapping_add(n.wrapping_mul(to.clock_rate / 5)), "packet {n}");
                assert_eq!(sent.marker, n == 0);
            }
            world.pass(200);
        }
    }
}

#[test]
fn a_change_between_passed_on_and_transcoded_keeps_one_stream() {
    let mut world = world(&Codec::pcmu(), &Codec::pcma());
    let receive = vec![payload(96, &Codec::pcmu()), payload(8, &Codec::pcma()), payload(98, &linear(16_000))];
    world.relay.set_remote(A, Remote { receive, ..remote(A) }).unwrap();
    let mut heard = vec![];
    for n in 0..40_u32 {
        let codec = [Codec::pcmu(), Codec::pcma(), linear(16_000), Codec::pcma()][n as usize / 10].clone();
        let mut packet = tone(&codec, n, 20);
        packet.payload_type = [96, 8, 98, 8][n as usize / 10];
        let sent = world.say(A, &packet).unwrap();
        if packet.payload_type == 8 {
            assert_eq!(sent.packet.payload, packet.payload, "passed on as it is");
        }
        heard.push(sent);
        world.pass(20);
    }
    for (n, pair) in heard.windows(2).enumerate() {
        assert_eq!(sequence_ahead(pair[1].packet.sequence, pair[0].packet.sequence), 1, "{n}");
        assert_eq!(timestamp_ahead(pair[1].packet.timestamp, pair[0].packet.timestamp), 160, "{n}");
        assert_eq!(pair[1].packet.payload.len(), 160);
    }
    let marked: Vec<usize> = (0..40).filter(|n| heard[*n].packet.marker).collect();
    assert_eq!(marked, [0, 20, 30], "where the source's clock changes");
    let (level, _) = level_and_snr(&decode(&Codec::pcma(), &heard[4..19]), 8_000);
    assert!((level + 10.0).abs() < 0.2, "{level}");
}

#[test]
fn the_recorder_gets_what_was_said_and_not_what_was_made_of_it() {
    let mut world = world(&Codec::pcmu(), &linear(16_000));
    world.relay.tap(A, &[stickytape::id::RecorderId(0)]).unwrap();
    let said = tone(&Codec::pcmu(), 0, 20);
    let slot = world.relay.slot(A).unwrap();
    let mut buffer = said.write().unwrap().to_vec();
    let now = world.now();
    let verdict = world.relay.packet(slot, stickytape::bridge::relay::Channel::Rtp, address(A), &mut buffer, now);
    let tap = verdict.tap.unwrap();
    assert_eq!(buffer[tap.header.payload()], said.payload);
    assert_eq!((tap.header.payload_type, tap.header.timestamp), (96, said.timestamp));
    let sent = Packet::read(world.relay.sent(&verdict.forward.unwrap(), &buffer)).unwrap();
    assert_eq!(sent.payload.len(), 640);
}

#[test]
fn packets_of_any_duration_keep_it_and_events_and_reordering_pass() {
    let mut world = world(&Codec::pcmu(), &linear(16_000));
    for (n, ms) in [(0, 10), (1, 10), (2, 10)] {
        let sent = world.say(A, &tone(&Codec::pcmu(), n, ms)).unwrap().packet;
        assert_eq!((sent.payload.len(), sent.timestamp), (320, TIMESTAMP.wrapping_add(160 * n)));
        world.pass(10);
    }
    let four = world.say(A, &tone(&Codec::pcmu(), 4, 10)).unwrap().packet;
    let three = world.say(A, &tone(&Codec::pcmu(), 3, 10)).unwrap().packet;
    assert_eq!((three.sequence, four.sequence), (SEQUENCE.wrapping_add(3), SEQUENCE.wrapping_add(4)));
    assert_eq!(timestamp_ahead(four.timestamp, three.timestamp), 160);
    let event = Packet { payload_type: 101, payload: vec![5, 10, 0, 80].into(), ..tone(&Codec::pcmu(), 5, 10) };
    let sent = world.say(A, &event).unwrap().packet;
    assert_eq!((sent.payload_type, sent.payload), (100, event.payload));
    // A last sample that is torn, nothing at all, and more than any packet of ours holds.
    let with = |n: u32, bytes: usize| Packet { payload: vec![1; bytes].into(), ..tone(&linear(48_000), n, 20) };
    let mut world = self::world(&linear(48_000), &Codec::pcma());
    assert_eq!(world.say(A, &with(0, 1_921)).unwrap().packet.payload.len(), 160);
    assert_eq!(world.say(A, &with(1, 0)).unwrap().packet.payload.len(), 0);
    let (verdict, sent) = world.datagram(A, address(A), &with(2, 60_000).write().unwrap());
    assert_eq!((verdict.refused, sent), (Some(Refusal::Codec), None));
}

#[test]
fn comfort_noise_for_a_peer_that_takes_none_is_a_pause_and_no_refusal() {
    let mut world = world(&Codec::pcmu(), &Codec::pcma());
    let first = world.say(A, &tone(&Codec::pcmu(), 0, 20)).unwrap().packet;
    world.pass(20);
    let noise = Packet { payload_type: 13, payload: vec![60].into(), ..tone(&Codec::pcmu(), 1, 20) };
    assert!(world.say(A, &noise).is_none());
    world.pass(980);
    let mut next = tone(&Codec::pcmu(), 50, 20);
    next.sequence = 2;
    let next = world.say(A, &next).unwrap().packet;
    assert_eq!(sequence_ahead(next.sequence, first.sequence), 1, "the peer takes nothing for lost");
    assert_eq!(timestamp_ahead(next.timestamp, first.timestamp), 50 * 160);
    assert_eq!(world.stats(A).refused, 0);
}

#[test]
fn a_new_description_in_the_middle_changes_the_codec_and_the_clock_of_one_stream() {
    let mut world = world(&linear(16_000), &linear(16_000));
    let mut heard = vec![];
    for n in 0..30 {
        if n == 10 || n == 20 {
            let to = if n == 10 { Codec::pcmu() } else { linear(16_000) };
            world.relay.set_remote(B, Remote { send: vec![payload(97, &to)], ..remote(B) }).unwrap();
        }
        heard.push(world.say(A, &tone(&linear(16_000), n, 20)).unwrap().packet);
        world.pass(20);
    }
    let steps: Vec<i32> = heard.windows(2).map(|pair| timestamp_ahead(pair[1].timestamp, pair[0].timestamp)).collect();
    let expected: Vec<i32> = (0..29).map(|n| if (9..19).contains(&n) { 160 } else { 320 }).collect();
    assert_eq!(steps, expected);
    assert!(heard.windows(2).all(|pair| sequence_ahead(pair[1].sequence, pair[0].sequence) == 1));
    assert!(heard[10].marker && heard[20].marker);
}
