//! Whatever the network does, what was said is in the file where it was said (spec/recording.md §7).

use std::time::Duration;

use crate::record_support::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stickytape::record::mark::{Layout, StopCause};
use stickytape::record::metadata::{Gap, GapCause};

const START: Duration = Duration::from_millis(2_100);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Records D1's packets (path delay 0) for `seconds` in a stereo session; left channel and metadata.
fn record(packets: Vec<Sent>, seconds: u64) -> (Vec<i16>, stickytape::record::metadata::Recording) {
    record_with(packets, seconds, |_| {})
}

fn record_with(
    packets: Vec<Sent>,
    seconds: u64,
    prepare: impl FnOnce(&mut Studio),
) -> (Vec<i16>, stickytape::record::metadata::Recording) {
    let mut studio = Studio::new();
    studio.leg(D1);
    studio.leg(D2);
    studio.run_until(T0 + ms(10));
    studio.start(session(Layout::Stereo, 8_000, two()));
    prepare(&mut studio);
    studio.send(packets);
    let end = T0 + Duration::from_secs(seconds);
    studio.run_until(end);
    studio.stop(end, id(1), StopCause::Released);
    studio.run_until(end + ms(1_200));
    let written = studio.written(id(1));
    let left = written.file("mixed.wav").iter().step_by(2).copied().collect::<Vec<_>>();
    assert_eq!(left.len() as u64, seconds * 8_000);
    assert!(written.file("mixed.wav").iter().skip(1).step_by(2).all(|sample| *sample == 0));
    (left, written.recording().clone())
}

/// Asserts that `expected` stands at the place of what arrives at `at`.
fn assert_exact(left: &[i16], at: Duration, expected: &[i16]) {
    let from = sample_at(at, 8_000) as usize;
    let found = &left[from..from + expected.len()];
    if found != expected {
        let first = found.iter().zip(expected).position(|(a, b)| a != b).unwrap();
        panic!("differs from sample {first} of {}: {} instead of {}", expected.len(), found[first], expected[first]);
    }
}

/// Asserts that every burst, and nothing else, is within `tolerance` ms of its place.
fn assert_bursts(left: &[i16], start: Duration, expected: &[usize], tolerance: f64) {
    let found = onsets(left);
    let base = sample_at(start, 8_000);
    let errors: Vec<f64> =
        found.iter().zip(expected).map(|(f, e)| (*f as f64 - (base + *e as i64) as f64) / 8.0).collect();
    assert_eq!(found.len(), expected.len(), "bursts; errors {errors:?}");
    let worst = errors.iter().fold(0.0_f64, |worst, error| worst.max(error.abs()));
    assert!(worst <= tolerance, "worst {worst} ms of {errors:?}");
}

fn gaps(recording: &stickytape::record::metadata::Recording) -> Vec<Gap> {
    recording.gaps.clone()
}

fn gap(from: i64, to: i64, cause: GapCause) -> Gap {
    Gap { leg: D1, start_sample: from as u64, end_sample: to as u64, cause }
}

#[test]
fn a_clean_stream_is_in_the_file_bit_for_bit() {
    let said = speech(1, 8_000 * 5);
    let (left, recording) = record(Sender::new(D1).packets(START, &said), 6);
    assert_exact(&left, START, &said);
    let from = sample_at(START, 8_000) as usize;
    assert!(left[..from].iter().all(|s| *s == 0));
    assert!(left[from + said.len()..].iter().all(|s| *s == 0));
    assert_eq!(gaps(&recording), []);
    let media = &recording.media[0];
    assert_eq!((media.received, media.lost, media.late, media.duplicates, media.concealed), (250, 0, 0, 0, 0));
    assert_eq!((media.codec.as_deref(), media.payload_type), (Some("L16/8000/1"), Some(97)));
    assert_eq!(media.ssrc, [0x1001]);
}

#[test]
fn packets_of_ten_and_sixty_milliseconds_are_as_good() {
    for frame in [80, 480, 37] {
        let said = speech(2, 480 * 37);
        let mut sender = Sender { frame, ..Sender::new(D1) };
        let (left, _) = record(sender.packets(START, &said), 6);
        assert_exact(&left, START, &said);
    }
}

#[test]
fn reordered_and_doubled_packets_leave_no_trace_in_the_file() {
    let said = speech(3, 8_000 * 5);
    let mut packets = Sender::new(D1).packets(START, &said);
    for i in (5..240).step_by(5) {
        let mut twice = packets[i].clone();
        twice.arrival += 33 * MS;
        twice.header.arrival_ns = twice.arrival;
        packets.push(twice);
    }
    let packets = delayed(packets, |i| if i % 7 == 3 { 70.0 } else { 0.0 });
    let (left, recording) = record(packets, 6);
    assert_exact(&left, START, &said);
    assert_eq!(gaps(&recording), []);
    assert_eq!((recording.media[0].duplicates, recording.media[0].lost), (47, 0));
}

#[test]
fn lost_packets_are_concealed_up_to_60_ms_and_listed_with_their_exact_samples() {
    let said = speech(4, 8_000 * 5);
    let mut packets = Sender::new(D1).packets(START, &said);
    packets.drain(150..160);
    packets.remove(100);
    let (left, recording) = record(packets, 6);
    assert_exact(&left, START, &said[..16_000]);
    assert_exact(&left, START + ms(2_020), &said[16_160..24_000]);
    assert_exact(&left, START + ms(3_200), &said[25_600..]);
    let from = sample_at(START, 8_000);
    assert_eq!(
        gaps(&recording),
        [gap(from + 16_000, from + 16_160, GapCause::Network), gap(from + 24_000, from + 25_600, GapCause::Network)]
    );
    let hole = (from + 24_000) as usize;
    assert!(left[hole..hole + 160].iter().any(|s| *s != 0));
    assert!(left[hole + 480..hole + 1_600].iter().all(|s| *s == 0));
    assert_eq!((recording.media[0].lost, recording.media[0].concealed), (11, 160 + 480));
}

#[test]
fn a_stall_of_400_ms_and_its_burst_move_nothing() {
    let said = speech(5, 8_000 * 8);
    // Ten of them: everything sent in the 400 ms arrives at their end.
    let packets = delayed(Sender::new(D1).packets(START, &said), |i| match i % 40 {
        n if n < 20 && i >= 40 => (20 - n) as f64 * 20.0,
        _ => 0.0,
    });
    let (left, recording) = record(packets, 9);
    assert_exact(&left, START, &said);
    assert_eq!(gaps(&recording), []);
}

#[test]
fn what_comes_more_than_the_window_after_its_place_is_late_and_listed() {
    let said = speech(6, 8_000 * 5);
    let packets = delayed(Sender::new(D1).packets(START, &said), |i| if (100..103).contains(&i) { 900.0 } else { 0.0 });
    let (left, recording) = record(packets, 6);
    let from = sample_at(START, 8_000);
    assert_eq!(gaps(&recording), [gap(from + 16_000, from + 16_480, GapCause::Late)]);
    assert_eq!((recording.media[0].late, recording.media[0].lost), (3, 0));
    assert_exact(&left, START, &said[..16_000]);
    assert_exact(&left, START + ms(2_060), &said[16_480..]);
}

#[test]
fn what_comes_just_within_the_window_is_in_the_file() {
    let said = speech(7, 8_000 * 5);
    let packets = delayed(Sender::new(D1).packets(START, &said), |i| if i % 50 == 30 { 499.0 } else { 0.0 });
    let (left, recording) = record(packets, 6);
    assert_exact(&left, START, &said);
    assert_eq!(recording.media[0].late, 0);
}

#[test]
fn what_we_dropped_ourselves_is_said_to_be_our_fault() {
    let said = speech(8, 8_000 * 5);
    let mut packets = Sender::new(D1).packets(START, &said);
    packets.drain(100..105);
    let (_, recording) = record_with(packets, 6, |studio| {
        let (from, until) = (studio.at(START + ms(1_990)), studio.at(START + ms(2_110)));
        studio.recorder.dropped(None, from, until);
    });
    let from = sample_at(START, 8_000);
    assert_eq!(gaps(&recording), [gap(from + 16_000, from + 16_800, GapCause::DroppedByUs)]);
}

#[test]
fn jitter_of_80_ms_leaves_every_burst_within_20_ms() {
    for seed in 0..5 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (said, expected) = bursts(8_000 * 60, 4_000, 16_000);
        let packets = delayed(Sender::new(D1).packets(START, &said), |_| rng.random_range(0.0..80.0));
        let (left, recording) = record(packets, 61);
        assert_bursts(&left, START, &expected, 12.0);
        assert_eq!(gaps(&recording), []);
    }
}

#[test]
fn a_clock_that_is_2000_ppm_off_with_5_ms_of_jitter_leaves_every_burst_within_20_ms() {
    for (seed, ppm) in [(1, 2_000.0), (2, -2_000.0)] {
        let mut rng = StdRng::seed_from_u64(seed);
        let (said, expected) = bursts(8_000 * 120, 4_000, 16_000);
        let packets = skewed(Sender::new(D1).packets(START, &said), ppm);
        let packets = delayed(packets, |_| rng.random_range(0.0..5.0));
        let (left, recording) = record(packets, 122);
        let expected: Vec<usize> = expected.iter().map(|at| (*at as f64 / (1.0 + ppm * 1e-6)) as usize).collect();
        assert_bursts(&left, START, &expected, 12.0);
        assert_eq!(gaps(&recording), []);
        let found = recording.media[0].clock_skew_ppm.unwrap();
        assert!((found - ppm).abs() < 10.0, "{found}");
    }
}

#[test]
fn speech_without_a_pause_follows_a_wrong_clock_without_a_click() {
    for (seed, ppm) in [(3, 2_000.0), (4, -2_000.0)] {
        let mut rng = StdRng::seed_from_u64(seed);
        let said: Vec<i16> = (0..8_000 * 60)
            .map(|i| (8_000.0 * (std::f64::consts::TAU * 300.0 * f64::from(i) / 8_000.0).sin()) as i16)
            .collect();
        let packets = skewed(Sender::new(D1).packets(START, &said), ppm);
        let packets = delayed(packets, |_| rng.random_range(0.0..5.0));
        let (left, _) = record(packets, 62);
        let heard = &left[sample_at(START, 8_000) as usize + 800..][..8_000 * 59];
        // A sine of this level and pitch moves by at most 1,885 in a sample.
        let steepest = heard.windows(2).map(|w| (i32::from(w[1]) - i32::from(w[0])).abs()).max().unwrap();
        assert!(steepest < 1_950, "{steepest}");
        // And bends by at most 444: a jump of even a few samples would bend more.
        let sharpest =
            heard.windows(3).map(|w| (i32::from(w[2]) - 2 * i32::from(w[1]) + i32::from(w[0])).abs()).max().unwrap();
        assert!(sharpest < 520, "{sharpest}");
    }
}

#[test]
fn a_timestamp_jump_is_followed_and_costs_nothing() {
    for jump in [1 << 30, 0_u32.wrapping_sub(1 << 30), 8_000, 0_u32.wrapping_sub(16_000)] {
        let said = speech(9, 8_000 * 6);
        let mut sender = Sender::new(D1);
        let mut packets = sender.packets(START, &said[..24_000]);
        sender.pause(jump);
        packets.extend(sender.packets(START + ms(3_000), &said[24_000..]));
        let (left, recording) = record(packets, 7);
        assert_exact(&left, START, &said);
        assert_eq!(gaps(&recording), [], "jump {jump}");
    }
}

#[test]
fn a_new_ssrc_is_a_new_stream_of_the_same_leg() {
    let said = speech(10, 8_000 * 6);
    let mut packets = Sender::new(D1).packets(START, &said[..24_000]);
    let mut other = Sender { ssrc: 7, sequence: 100, timestamp: 5, ..Sender::new(D1) };
    packets.extend(other.packets(START + ms(3_000), &said[24_000..]));
    let (left, recording) = record(packets, 7);
    assert_exact(&left, START, &said);
    assert_eq!(recording.media[0].ssrc, [0x1001, 7]);
    assert_eq!((recording.media[0].lost, recording.media[0].received), (0, 300));
}

#[test]
fn a_lasting_change_of_the_path_moves_nothing() {
    for delays in [[50.0, 110.0], [110.0, 50.0]] {
        let (said, expected) = bursts(8_000 * 40, 4_000, 16_000);
        let packets = delayed(Sender::new(D1).packets(START, &said), |i| delays[usize::from(i > 1_000)]);
        let (left, _) = record(packets, 42);
        let place = START + Duration::from_micros((delays[0] * 1_000.0) as u64);
        assert_bursts(&left, place, &expected, 1.5);
    }
}

#[test]
fn discontinuous_transmission_keeps_every_talk_spurt_at_its_place_without_gaps() {
    let mut sender = Sender::new(D1);
    let mut packets = Vec::new();
    let mut spurts = Vec::new();
    let mut at = START;
    for i in 0..8_u64 {
        let said = speech(20 + i as i32, 4_800);
        packets.extend(sender.packets(at, &said));
        spurts.push((at, said));
        // Comfort noise once, then nothing for a while.
        let arrival = (at + ms(600)).as_nanos() as u64;
        let noise = Sender { payload_type: 13, ..sender.clone() };
        packets.push(Sent { arrival, header: noise.header(arrival, 1), payload: vec![70] });
        sender.sequence = sender.sequence.wrapping_add(1);
        let silence = 700 + i * 130;
        sender.pause(silence as u32 * 8);
        at += ms(600 + silence);
    }
    let (left, recording) = record(packets, 20);
    for (at, said) in spurts {
        assert_exact(&left, at, &said);
    }
    assert_eq!(gaps(&recording), []);
    assert_eq!(recording.media[0].concealed, 0);
}

#[test]
fn digits_are_never_heard_and_leave_no_gap() {
    let said = speech(11, 8_000 * 2);
    let mut sender = Sender::new(D1);
    let mut packets = sender.packets(START, &said[..8_000]);
    for i in 0..10 {
        let arrival = (START + ms(1_000 + i * 20)).as_nanos() as u64;
        let event = Sender { payload_type: 101, ..sender.clone() };
        packets.push(Sent { arrival, header: event.header(arrival, 4), payload: vec![5, 10, 0, 160] });
        sender.sequence = sender.sequence.wrapping_add(1);
    }
    sender.pause(1_600);
    packets.extend(sender.packets(START + ms(1_200), &said[8_000..]));
    let (left, recording) = record(packets, 4);
    assert_exact(&left, START, &said[..8_000]);
    assert_exact(&left, START + ms(1_000), &[0; 1_600]);
    assert_exact(&left, START + ms(1_200), &said[8_000..]);
    assert_eq!((gaps(&recording), recording.media[0].lost), (vec![], 0));
}

#[test]
fn a_codec_change_in_mid_stream_goes_on_at_its_place() {
    let said = speech(12, 8_000 * 4);
    let mut sender = Sender::new(D1);
    let mut packets = sender.packets(START, &said[..16_000]);
    sender.payload_type = 8;
    let mut alaw = sender.packets(START + ms(2_000), &said[16_000..]);
    let mut expected = vec![0; 16_000];
    let mut bytes = vec![0; 16_000];
    stickytape::audio::g711::encode_alaw(&said[16_000..], &mut bytes);
    stickytape::audio::g711::decode_alaw(&bytes, &mut expected);
    for (packet, bytes) in alaw.iter_mut().zip(bytes.chunks(160)) {
        packet.payload = bytes.to_vec();
        packet.header.len = 160;
    }
    packets.extend(alaw);
    let (left, recording) = record(packets, 5);
    assert_exact(&left, START, &said[..16_000]);
    assert_exact(&left, START + ms(2_000), &expected);
    assert_eq!(gaps(&recording), []);
    assert_eq!(recording.media[0].codec.as_deref(), Some("PCMA/8000"));
}

#[test]
fn a_stream_that_begins_with_a_stall_is_placed_by_its_least_transit() {
    let said = speech(13, 8_000 * 4);
    let packets = delayed(Sender::new(D1).packets(START, &said), |i| if i < 15 { (15 - i) as f64 * 20.0 } else { 0.0 });
    let (left, recording) = record(packets, 5);
    assert_exact(&left, START, &said);
    assert_eq!(recording.media[0].late, 0);
}

#[test]
fn loss_reordering_jitter_and_skew_together_leave_what_came_within_20_ms() {
    let mut rng = StdRng::seed_from_u64(99);
    let (said, expected) = bursts(8_000 * 120, 4_000, 16_000);
    let packets = skewed(Sender::new(D1).packets(START, &said), 200.0);
    let packets: Vec<Sent> = packets.into_iter().filter(|_| rng.random_range(0..100) >= 3).collect();
    let packets = delayed(packets, |_| rng.random_range(0.0..80.0));
    let (left, recording) = record(packets, 121);
    let base = sample_at(START, 8_000);
    let found = onsets(&left);
    for at in expected {
        let place = base + (at as f64 / 1.000_2) as i64;
        assert!(found.iter().any(|f| (*f as i64 - place).abs() <= 160 + 320), "burst at {at}");
    }
    assert!(recording.media[0].lost > 100);
    assert!(recording.gaps.iter().all(|gap| gap.cause == GapCause::Network));
}
