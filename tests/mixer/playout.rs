//! What the playout buffers do with the networks and clocks of the parties.

use std::f64::consts::TAU;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stickytape::codec::Codec;
use stickytape::testing::tones::{level, tone_level};

use crate::world::{Network, Party, World, l16, tone};

const SECOND: Duration = Duration::from_secs(1);

/// One who hears a party with a tone of 250 Hz, whose period is 32 samples, in linear samples.
fn listening_to(network: Network, ppm: f64) -> World {
    let mut speaker = Party::new(0, l16(8_000), tone(250.0, 8_000.0, 8_000));
    (speaker.network, speaker.ppm) = (network, ppm);
    World::of(vec![speaker, Party::new(1, l16(8_000), Box::new(|_| 0.0))])
}

/// Steps between samples that are steeper than the tone itself can be, with a margin.
fn clicks(samples: &[i16], steepest: i32) -> usize {
    samples.windows(2).filter(|w| (i32::from(w[1]) - i32::from(w[0])).abs() > steepest).count()
}

/// The steepest step of that tone is 8,000 · 2π · 250 / 8,000 = 1,571.
const STEEPEST: i32 = 2_300;

/// Frames in which the tone is not there.
fn dropouts(samples: &[i16]) -> usize {
    samples.chunks_exact(160).filter(|frame| level(frame) < -20.0).count()
}

fn stats(world: &World, leg: u64) -> stickytape::bridge::command::mix::MixStats {
    use stickytape::bridge::command::mix::MixNotice;
    let of = |notice: &MixNotice| match notice {
        MixNotice::Stats { leg: of, stats } if of.0 == leg => Some(*stats),
        _ => None,
    };
    world.notices.iter().rev().find_map(of).unwrap()
}

#[test]
fn a_clean_network_is_heard_sample_by_sample_within_40_ms() {
    let mut world = listening_to(crate::world::clean(), 0.0);
    world.run(10 * SECOND);
    let heard = world.party(1).samples();
    assert_eq!((clicks(&heard, STEEPEST), dropouts(&heard[800..])), (0, 0));
    let stats = stats(&world, 0);
    assert!(stats.delay_ms <= 40 && stats.concealed == 0 && stats.late == 0, "{stats:?}");
    let begins = heard.iter().position(|sample| sample.abs() > 2_000).unwrap();
    assert!(begins <= 400, "first heard after {begins} samples");
}

/// One hears the other for an hour, whose clock is off.
fn hear_for_an_hour(ppm: f64) {
    // A period of that tone is 32 samples; computed once, an hour of it costs little.
    let period: [f64; 32] = std::array::from_fn(|i| tone(250.0, 8_000.0, 8_000)(i as u64));
    let mut speaker = Party::new(0, l16(8_000), Box::new(move |i| period[(i % 32) as usize]));
    speaker.ppm = ppm;
    let mut listener = Party::new(1, l16(8_000), Box::new(|_| 0.0));
    listener.silent = Box::new(|_| true);
    let mut world = World::of(vec![speaker, listener]);
    for minute in 0..60 {
        world.run(60 * SECOND);
        let heard = world.party(1).samples();
        let from = if minute == 0 { 800 } else { 0 };
        assert_eq!(clicks(&heard, STEEPEST), 0, "{ppm} ppm, minute {minute}");
        assert_eq!(dropouts(&heard[from..]), 0, "{ppm} ppm, minute {minute}");
        world.parties[1].heard.clear();
    }
    let stats = stats(&world, 0);
    assert!(stats.delay_ms <= 80 && stats.concealed <= 2, "{ppm}: {stats:?}");
    // 3,600 s · 200 ppm are 720 ms: at most a period of 15 ms and at least one of 2.5 ms at a time.
    assert!((40..400).contains(&stats.stretched), "{ppm}: {stats:?}");
}

#[test]
fn a_sender_whose_clock_is_200_ppm_fast_is_followed_for_an_hour_without_a_click_or_a_gap() {
    hear_for_an_hour(200.0);
}

#[test]
fn a_sender_whose_clock_is_200_ppm_slow_is_followed_for_an_hour_without_a_click_or_a_gap() {
    hear_for_an_hour(-200.0);
}

#[test]
fn jitter_makes_the_delay_grow_and_calm_takes_it_back() {
    let network: Network = Box::new(|n| {
        let mut rng = StdRng::seed_from_u64(n);
        let most = if n < 1_500 { 80 } else { 1 };
        Some(Duration::from_millis(rng.random_range(0..=most)))
    });
    let mut world = listening_to(network, 0.0);
    world.run(20 * SECOND);
    let rough = stats(&world, 0);
    world.parties[1].heard.clear();
    world.run(10 * SECOND);
    let heard = world.party(1).samples();
    assert!(dropouts(&heard) <= 2, "{} dropouts once the delay is known", dropouts(&heard));
    assert_eq!(clicks(&heard, STEEPEST), 0);
    world.run(20 * SECOND);
    let calm = stats(&world, 0);
    assert!(rough.delay_ms > 60 && calm.delay_ms <= 60, "{rough:?} {calm:?}");
}

#[test]
fn a_stall_is_heard_late_at_most_by_200_ms_and_the_delay_comes_back() {
    let network: Network = Box::new(|n| {
        let stalled = (200..220).contains(&n);
        Some(Duration::from_millis(if stalled { (220 - n) * 20 } else { 1 }))
    });
    let mut world = listening_to(network, 0.0);
    let mut most = 0;
    for _ in 0..150 {
        world.run(SECOND / 10);
        most = most.max(stats_now(&world));
    }
    assert!((100..=220).contains(&most), "{most} ms");
    assert!(stats_now(&world) <= 60, "{} ms at the end", stats_now(&world));
    assert_eq!(clicks(&world.party(1).samples(), STEEPEST), 0);
}

fn stats_now(world: &World) -> u32 {
    use stickytape::bridge::command::mix::MixNotice;
    let delays = world.notices.iter().rev().find_map(|notice| match notice {
        MixNotice::Stats { leg, stats } if leg.0 == 0 => Some(stats.delay_ms),
        _ => None,
    });
    delays.unwrap_or(0)
}

#[test]
fn loss_is_concealed_and_makes_no_clicks() {
    let network: Network = Box::new(|n| (n % 20 != 7).then_some(Duration::from_millis(1)));
    let mut world = listening_to(network, 0.0);
    world.run(20 * SECOND);
    let heard = world.party(1).samples();
    assert_eq!(clicks(&heard, STEEPEST), 0);
    assert_eq!(dropouts(&heard[800..]), 0, "each twentieth packet is lost, and the tone goes on");
    assert!(stats(&world, 0).concealed >= 45);
}

#[test]
fn one_of_any_rate_who_falls_silent_in_mid_tone_fades() {
    for rate in [8_000, 16_000] {
        // At a crest where the fade ends within a frame, and at its steepest.
        for shift in [0.0, 0.25] {
            let mut speaker = Party::new(
                0,
                l16(rate),
                Box::new(move |t| 8_000.0 * (TAU * (250.0 * t as f64 / f64::from(rate) + shift)).cos()),
            );
            speaker.stops = SECOND;
            let mut world = World::of(vec![speaker, Party::new(1, l16(8_000), Box::new(|_| 0.0))]);
            world.run(2 * SECOND);
            assert_eq!(clicks(&world.party(1).samples()[4_000..], STEEPEST), 0, "{rate} Hz, {shift}");
        }
    }
}

#[test]
fn duplicates_and_packets_out_of_order_are_heard_once_and_in_order() {
    // Every tenth packet comes after the next one.
    let network: Network = Box::new(|n| Some(Duration::from_millis(if n % 10 == 3 { 25 } else { 1 })));
    let mut world = listening_to(network, 0.0);
    world.run(3 * SECOND);
    world.parties[1].heard.clear();
    world.run(5 * SECOND);
    let heard = world.party(1).samples();
    assert_eq!((clicks(&heard, STEEPEST), dropouts(&heard)), (0, 0));
    let before = stats(&world, 0);
    for n in 0..100_u32 {
        world.run(SECOND / 50);
        // What was said a while ago comes once more.
        world.inject(0, 96, 1_000 + (380 + n) * 160, &[0x40; 320]);
    }
    world.run(2 * SECOND);
    let after = stats(&world, 0);
    assert!(after.late >= before.late + 99, "{before:?} {after:?}");
    assert_eq!(clicks(&world.party(1).samples(), STEEPEST), 0);
    assert!(after.delay_ms <= before.delay_ms + 20);
}

#[test]
fn pauses_of_a_sender_that_leaves_silence_out_are_silent_and_what_follows_is_whole() {
    let mut speaker = Party::new(0, l16(8_000), tone(250.0, 8_000.0, 8_000));
    speaker.silent = Box::new(|n| n / 50 % 2 == 1);
    let mut world = World::of(vec![speaker, Party::new(1, l16(8_000), Box::new(|_| 0.0))]);
    world.run(10 * SECOND);
    let heard = world.party(1).samples();
    assert_eq!(clicks(&heard, STEEPEST), 0);
    let loud = heard.chunks_exact(160).filter(|frame| level(frame) > -20.0).count();
    let silent = heard.chunks_exact(160).filter(|frame| frame.iter().all(|s| *s == 0)).count();
    assert!((245..=275).contains(&loud), "{loud} frames with the tone");
    assert!(silent >= 215, "{silent} silent frames");
}

#[test]
fn comfort_noise_is_heard_at_its_level_in_the_pauses() {
    let mut speaker = Party::new(0, l16(8_000), tone(250.0, 8_000.0, 8_000));
    speaker.silent = Box::new(|n| n >= 50);
    let mut world = World::of(vec![speaker, Party::new(1, l16(8_000), Box::new(|_| 0.0))]);
    world.run(SECOND);
    world.inject(0, 13, 1_000 + 50 * 160, &[50]);
    world.run(2 * SECOND);
    let noise = level(&world.recent(1, SECOND));
    // Full scale of both measures differs by 3 dB.
    assert!((-54.0..-43.0).contains(&noise), "{noise:.1} dBFS");
}

#[test]
fn a_timestamp_jump_and_a_new_source_go_on_at_once() {
    let mut world = listening_to(crate::world::clean(), 0.0);
    world.run(SECOND);
    world.parties[0].stops = Duration::from_secs(1);
    for n in 0..50_u32 {
        world.run(SECOND / 50);
        let samples: Vec<u8> = (0..160)
            .flat_map(|i| {
                let sample = 8_000.0 * (std::f64::consts::TAU * f64::from(n * 160 + i) / 32.0).sin();
                (sample as i16).to_be_bytes()
            })
            .collect();
        world.inject(0, 96, 0x8000_0000 + n * 160, &samples);
    }
    let heard = world.recent(1, SECOND / 2);
    assert!(tone_level(&heard, 8_000, 250.0) > -14.0 && dropouts(&heard) == 0);
}

#[test]
fn a_party_may_change_its_codec_and_rate_in_mid_stream() {
    let mut world = World::of(vec![
        Party::new(0, l16(16_000), tone(250.0, 8_000.0, 16_000)),
        Party::new(1, Codec::pcmu(), Box::new(|_| 0.0)),
    ]);
    world.run(SECOND);
    assert!(tone_level(&world.recent(1, SECOND / 2), 8_000, 250.0) > -14.0);
}
