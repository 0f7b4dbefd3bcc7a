//! Neither a packet nor a tick allocates, whatever the network does. The relay's part is in `transition`.

use std::time::{Duration, Instant};

use stickytape::bridge::command::mix::{Hearing, Join, MixCommand, Mode, RoomDigits};
use stickytape::bridge::conference::{Arrived, Mixer, Options, Output};
use stickytape::clock;
use stickytape::codec::{Codec, Payload};
use stickytape::id::{LegId, MixerId, RoomId, WorkerId};

use crate::world::l16;

const ROOM: RoomId = RoomId(1);
const PARTIES: u64 = 6;
const TICKS: u64 = 1_500;

fn codec(leg: u64) -> Codec {
    [Codec::pcmu(), Codec::pcma(), l16(8_000), l16(16_000)][leg as usize % 4].clone()
}

fn mixer(epoch: Instant) -> Mixer {
    let mut mixer = Mixer::new(Options { mixer: MixerId(0), epoch, max_members: 100 }, epoch);
    mixer.command(MixCommand::Open { room: ROOM, sample_rate: 16_000, digits: RoomDigits::Both }, epoch);
    for leg in 0..PARTIES {
        let speech = Payload { payload_type: 0, codec: codec(leg) };
        let event = Payload { payload_type: 101, codec: Codec::telephone_event() };
        let noise = Payload { payload_type: 13, codec: Codec::new("CN", 8_000, 1) };
        // The last one is a supervisor whom one agent hears.
        let hearing = match leg {
            5 => Hearing::supervisor(Mode::Coach, LegId(0)),
            _ => Hearing::MEMBER,
        };
        let join = Join {
            room: ROOM,
            leg: LegId(leg),
            worker: WorkerId(0),
            hearing,
            listens: true,
            receive: vec![speech.clone(), event, noise],
            send: vec![speech],
        };
        mixer.command(MixCommand::Join(Box::new(join)), epoch);
    }
    mixer
}

/// Packet `n` of a leg: speech, lost now and then, noise in pauses, digits. Its payload type, and how late it comes.
fn packet(leg: u64, n: u64, payload: &mut Vec<u8>) -> Option<(u8, u64)> {
    payload.clear();
    let late_ms = if n % 200 > 150 { (n * 7 + leg * 3) % 60 } else { 1 };
    match n % 100 {
        _ if (n + leg).is_multiple_of(17) || (n + 3 * leg) % 90 < 4 => return None,
        40..60 if leg == 1 => {
            payload.push(60);
            return (n % 100 == 40).then_some((13, 1));
        }
        70..76 if leg == 2 => {
            let end = if n % 100 == 75 { 0x80 } else { 0 };
            payload.extend([5, end | 10, 0, (n % 100 - 69) as u8 * 20]);
            return Some((101, 1));
        }
        _ => {}
    }
    let samples = u64::from(codec(leg).clock_rate / 50) * if leg % 4 >= 2 { 2 } else { 1 };
    payload.extend((0..samples).map(|i| ((i * 37 + n * leg) % 251) as u8));
    Some((0, late_ms))
}

#[test]
fn packets_and_ticks_allocate_nothing_with_loss_jitter_noise_digits_and_a_clock_that_is_off() {
    let epoch = clock::now();
    let mut mixer = mixer(epoch);
    let (mut payload, mut made, mut bytes) = (Vec::with_capacity(1_000), 0, 0);
    let mut waiting: Vec<(Duration, u64, u64)> = vec![];
    for tick in 0..TICKS {
        for leg in 0..PARTIES {
            let skew = Duration::from_micros(4 * tick * u64::from(leg == 3));
            let sent = Duration::from_millis(20 * tick) + Duration::from_micros(leg * 1_370) + skew;
            if let Some((_, late)) = packet(leg, tick, &mut payload) {
                waiting.push((sent + Duration::from_millis(late), leg, tick));
            }
        }
        let now = Duration::from_millis(20 * (tick + 1));
        waiting.sort_unstable();
        let due = waiting.partition_point(|(at, ..)| *at < now);
        for (at, leg, n) in waiting.drain(..due) {
            let Some((payload_type, _)) = packet(leg, n, &mut payload) else { unreachable!("it was sent") };
            let rate = u64::from(codec(leg).clock_rate);
            // A digit's packets have the timestamp of its beginning.
            let ticks = if payload_type == 101 { n / 100 * 100 } else { n } * rate / 50;
            let arrived = Arrived {
                leg: LegId(leg),
                worker: WorkerId(0),
                arrival_ns: at.as_nanos() as u64,
                timestamp: ticks as u32,
                ssrc: leg as u32,
                payload_type,
            };
            let counted = allocation_counter::measure(|| mixer.packet(&arrived, &payload));
            assert_eq!(counted.count_total, 0, "packet {n} of leg {leg}: {counted:?}");
        }
        while let Some(due) = mixer.poll_timeout().filter(|due| *due <= epoch + now) {
            let counted = allocation_counter::measure(|| {
                mixer.tick(due, |_, output| {
                    if let Output::Audio(_, packet) = output {
                        made += 1;
                        bytes += packet.payload.len();
                    }
                });
            });
            assert_eq!(counted.count_total, 0, "tick {tick}: {counted:?}");
        }
        while mixer.poll_notice().is_some() {}
    }
    let counters = mixer.counters();
    assert!(made >= (TICKS - 2) * PARTIES && bytes > 0, "{made}");
    // What was meant to happen did.
    assert!(counters.concealed > 100 && counters.late > 0, "{counters:?}");
}
