//! What a conference costs without sockets, in CPU ns per party and 20 ms frame, and what concealment is worth.
//!
//! `cargo bench --bench mixing` measures the kernels that the processor is given at run time, then builds and measures
//! those of AVX2 and of the least processor (SSE2 on x86-64) in `target/avx2` and `target/sse2`, without choice at run time
//! (`--cfg baseline`). The goal for mixer and recorder together is 150 ns with AVX2 and 350 ns with SSE2.
//! `-- --lateness 60`: how late ticks begin. `-- --once mixer 3` (or `recorder`): one step alone, to be run under a profiler.

mod steps;

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use steps::{TICK_NS, cpu_ns, join, voice};
use stickytape::audio::conceal;
use stickytape::bridge::command::mix::{MixCommand, RoomDigits};
use stickytape::clock;
use stickytape::id::{LegId, MixerId, RoomId, WorkerId};
use stickytape::record::tap::TapHeader;
use stickytape::runtime::media::{self, Priority};
use stickytape::runtime::mixer;
use stickytape::testing::speech::{self, Speaker};

/// Party-frames that one measurement takes, about.
const FRAMES: u64 = 400_000;
const ROUNDS: usize = 5;
/// Ticks before which nothing is measured.
const WARM_UP: u64 = 50;

/// CPU ns per party and frame of a step; its arguments are parties, speaking, ticks, and what to do before each tick.
fn measured(parties: u64, speaking: u64, step: impl Fn(u64, u64, u64, &mut dyn FnMut(u64))) -> f64 {
    let (ticks, mut begun) = (FRAMES / parties, 0);
    step(parties, speaking, ticks, &mut |tick| {
        if tick == WARM_UP {
            begun = cpu_ns();
        }
    });
    (cpu_ns() - begun) as f64 / ((ticks - WARM_UP) * parties) as f64
}

fn mixer_step(parties: u64, speaking: u64) -> f64 {
    measured(parties, speaking, |parties, speaking, ticks, each| steps::mix(parties, speaking, ticks, each))
}

fn recorder_step(parties: u64, speaking: u64) -> f64 {
    measured(parties, speaking, |parties, speaking, ticks, each| steps::record(parties, speaking, ticks, each))
}

/// Least and median of several rounds.
fn rounds(measure: impl Fn() -> f64) -> (f64, f64) {
    let mut all: Vec<f64> = (0..ROUNDS).map(|_| measure()).collect();
    all.sort_unstable_by(f64::total_cmp);
    (all[0], all[ROUNDS / 2])
}

/// Packets lost in bursts: one in twenty, two at a time on the average.
fn lost(frames: usize) -> Vec<bool> {
    let (mut rng, mut bad) = (StdRng::seed_from_u64(5), false);
    let next = |_| {
        // 1/38 into a burst and 1/2 out of it: 5 % of the time within one.
        bad = if bad { rng.random_bool(0.5) } else { rng.random_bool(1.0 / 38.0) };
        bad
    };
    (0..frames).map(next).collect()
}

/// Segmental SNR in dB over the frames that `counts` names, each kept within −10…35 dB.
fn segmental(said: &[i16], heard: &[i16], counts: impl Fn(usize) -> bool) -> f64 {
    let mut values = vec![];
    for (n, (said, heard)) in said.chunks_exact(160).zip(heard.chunks_exact(160)).enumerate() {
        let signal: f64 = said.iter().map(|s| f64::from(*s).powi(2)).sum();
        // Silence says nothing of concealment.
        if signal < 160.0 * 100.0_f64.powi(2) || !counts(n) {
            continue;
        }
        let noise: f64 = said.iter().zip(heard).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
        values.push((10.0 * (signal / noise.max(1.0)).log10()).clamp(-10.0, 35.0));
    }
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// What is heard of a voice whose `lost` packets are silence.
fn silenced(said: &[i16], lost: &[bool]) -> Vec<i16> {
    let mut heard = said.to_vec();
    heard.chunks_exact_mut(160).zip(lost).filter(|(_, lost)| **lost).for_each(|(frame, _)| frame.fill(0));
    heard
}

/// The last packet once more, at half its level each time.
fn repeated(said: &[i16], lost: &[bool]) -> Vec<i16> {
    let mut heard = said.to_vec();
    for n in (1..lost.len()).filter(|n| lost[*n]) {
        for i in 0..160 {
            let fades = if n > 1 && lost[n - 1] { 2 } else { 1 };
            heard[160 * n + i] = heard[160 * (n - 1) + i] / fades;
        }
    }
    heard
}

fn concealed(said: &[i16], lost: &[bool]) -> Vec<i16> {
    let (mut heard, mut concealer) = (said.to_vec(), conceal::Concealer::new(8_000));
    for (n, lost) in lost.iter().enumerate() {
        let (before, rest) = heard.split_at_mut(160 * n);
        if *lost {
            if !concealer.is_active() {
                concealer.begin(before, false);
            }
            concealer.fill(&mut rest[..160]);
        } else {
            concealer.resume(&mut rest[..160]);
        }
    }
    heard
}

/// What is heard of a voice some of whose packets are lost.
type Way = fn(&[i16], &[bool]) -> Vec<i16>;

fn concealment() {
    let phrases = [speech::HELLO, speech::HEAR_YOU, speech::HOLD, speech::BYE];
    let voices = [Speaker::LOW, Speaker::HIGH];
    let said: Vec<i16> = (0..10)
        .flat_map(|_| {
            phrases.iter().flat_map(|phrase| voices.iter().flat_map(|voice| speech::say(*voice, phrase).to_vec()))
        })
        .collect();
    let said = &said[..said.len() / 160 * 160];
    let lost = lost(said.len() / 160);
    let share = lost.iter().filter(|lost| **lost).count() as f64 / lost.len() as f64;
    println!("\nsegmental SNR, {:.1} % lost in bursts:", 100.0 * share);
    println!("  {:<12} {:>10} {:>22}", "", "of lost", "of those behind them");
    let ways: [(&str, Way); 3] = [("silence", silenced), ("repetition", repeated), ("concealment", concealed)];
    for (name, way) in ways {
        let heard = way(said, &lost);
        let of_lost = segmental(said, &heard, |n| lost[n]);
        let behind = segmental(said, &heard, |n| n > 0 && lost[n - 1] && !lost[n]);
        println!("  {name:<12} {of_lost:>7.2} dB {behind:>19.2} dB");
    }
}

/// How late the phases of a mixer thread with 200 members begin, beside a thread that only waits, in the same run. Both
/// ask for real-time priority. For one core: `taskset -c 0`.
fn lateness(seconds: u64) {
    let epoch = clock::now();
    let (to_mixer, to_media) = mixer::rings(4 << 20);
    let options = media::Options {
        worker: WorkerId(0),
        ports: 40_000..=40_001,
        cooldown: Duration::ZERO,
        batch_interval: Duration::from_millis(1),
        priority: Priority::Realtime,
        epoch,
        seed: 1,
    };
    let media::MixerEnds { mut to, mut from } = to_mixer;
    let idle = media::Worker { options, taps: vec![], mixers: vec![] };
    let media = media::spawn(vec![idle], |_, _| {}).expect("a media thread");
    let options = mixer::Options { mixer: MixerId(0), priority: Priority::Realtime, epoch, max_members: 256 };
    let senders = media.iter().map(media::Handle::sender).collect();
    let mixer = mixer::spawn(options, vec![to_media], senders, |_, _| {}).expect("a mixer thread");
    // 25 rooms of 8.
    for room in 0..25 {
        mixer.send(MixCommand::Open { room: RoomId(room), sample_rate: 8_000, digits: RoomDigits::Pass });
        (0..8).for_each(|n| mixer.send(MixCommand::Join(Box::new(join(room, 8 * room + n)))));
    }
    let bare = std::thread::spawn(move || {
        stickytape::runtime::realtime::ask("bare timer");
        let (_sender, never) = std::sync::mpsc::channel::<()>();
        let mut counts = [0_u64; mixer::LATENESS_US.len() + 1];
        for phase in 1..=seconds * 200 {
            let due = epoch + Duration::from_millis(5 * phase);
            let _ = never.recv_timeout(due.saturating_duration_since(clock::now()));
            let late = clock::now().saturating_duration_since(due).as_micros() as u64;
            let bucket = mixer::LATENESS_US.iter().position(|bound| late <= *bound);
            counts[bucket.unwrap_or(mixer::LATENESS_US.len())] += 1;
        }
        counts
    });
    let (voice, mut heard) = (voice(), 0_u64);
    for tick in 0..seconds * 50 {
        for leg in 0..200_u64 {
            let header = TapHeader {
                leg: LegId(leg),
                arrival_ns: clock::now().saturating_duration_since(epoch).as_nanos() as u64,
                timestamp: (tick * 160) as u32,
                ssrc: leg as u32,
                sequence: tick as u16,
                len: 0,
                payload_type: 0,
                marker: false,
            };
            to.push(header, &voice[((tick + 7 * leg) % 64) as usize]);
        }
        to.publish();
        while from.pop(|_| heard += 1).is_some() {}
        let next = epoch + Duration::from_millis(20 * (tick + 1));
        std::thread::sleep(next.saturating_duration_since(clock::now()));
    }
    let bare = bare.join().expect("the bare timer's counts");
    let counters = mixer.counters();
    let mixed = std::array::from_fn(|n| counters.lateness[n].load(std::sync::atomic::Ordering::Relaxed));
    println!("\nphases of 5 ms by how late they began, {seconds} s, 200 members in 25 rooms, {heard} packets made:");
    println!("{:>14} {:>12} {:>12}", "up to, us", "mixer", "bare timer");
    let (mixed_total, bare_total): (u64, u64) = (mixed.iter().sum(), bare.iter().sum());
    for n in 0..=mixer::LATENESS_US.len() {
        let bound = mixer::LATENESS_US.get(n).map_or("more".into(), u64::to_string);
        let part = |counts: &[u64; mixer::LATENESS_US.len() + 1], total: u64| {
            format!("{:.3} %", 100.0 * counts[..=n].iter().sum::<u64>() as f64 / total as f64)
        };
        println!("{bound:>14} {:>12} {:>12}", part(&mixed, mixed_total), part(&bare, bare_total));
    }
    for (name, part) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        let [mixer, bare] =
            [(&mixed, mixed_total), (&bare, bare_total)].map(|(counts, total)| percentile(counts, total, part));
        println!("{name:>14} {mixer:>9} us {bare:>9} us");
    }
    mixer.join();
    media.into_iter().for_each(media::Handle::join);
}

/// The bound in µs that so large a part is not later than.
fn percentile(counts: &[u64; mixer::LATENESS_US.len() + 1], total: u64, part: f64) -> String {
    let mut seen = 0;
    let reached = counts.iter().position(|count| {
        seen += count;
        seen as f64 >= part * total as f64
    });
    let bound = reached.and_then(|n| mixer::LATENESS_US.get(n));
    bound.map_or_else(|| "more".into(), |bound| format!("<= {bound}"))
}

fn main() {
    let after = |name: &str| std::env::args().skip_while(|argument| argument != name).skip(1).collect::<Vec<_>>();
    if let [seconds, ..] = &after("--lateness")[..] {
        return lateness(seconds.parse().expect("seconds"));
    }
    if let [step, parties, ..] = &after("--once")[..] {
        let parties = parties.parse().expect("a number of parties");
        let ns = if step == "mixer" { mixer_step(parties, parties) } else { recorder_step(parties, parties) };
        return println!("{step}, {parties} parties: {ns:.1} ns per party and frame");
    }
    costs();
    if !cfg!(baseline) {
        concealment();
        // Everywhere with that, and with no more than every processor has.
        other_processor("avx2", "--cfg baseline -C target-feature=+avx2");
        other_processor("sse2", "--cfg baseline");
    }
}

fn costs() {
    let kernels = if cfg!(baseline) { "of the build" } else { "chosen at run time (AVX-512, AVX2 or SSE2)" };
    println!("CPU ns per party and 20 ms frame, PCMU, least / median of {ROUNDS}; kernels {kernels}");
    println!("(all speak at half level: from 128 parties on the sum leaves the range and every output is limited)");
    let titles = ["3 speak: mixer", "recorder", "all: mixer", "recorder", "together", "parties per core"];
    println!("{:>8} {}", "parties", titles.map(|title| format!("{title:>16}")).join(" "));
    for parties in [3, 8, 32, 128, 256] {
        let few = (rounds(|| mixer_step(parties, 3)), rounds(|| recorder_step(parties, 3)));
        let all = (rounds(|| mixer_step(parties, parties)), rounds(|| recorder_step(parties, parties)));
        let together = (all.0.0 + all.1.0, all.0.1 + all.1.1);
        let pair = |(least, median): (f64, f64)| format!("{least:.0} / {median:.0}");
        let per_core = format!("{:.0}", TICK_NS as f64 / together.1);
        let columns = [pair(few.0), pair(few.1), pair(all.0), pair(all.1), pair(together), per_core];
        println!("{parties:>8} {}", columns.map(|column| format!("{column:>16}")).join(" "));
    }
}

/// The same with other kernels: another build, because they are chosen once and for all by what the processor says of
/// itself.
fn other_processor(name: &str, flags: &str) {
    println!("\n{name}:");
    let folder = format!("{}/target/{name}", env!("CARGO_MANIFEST_DIR"));
    let built = std::process::Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["bench", "--quiet", "--bench", "mixing", "--target-dir", &folder])
        .env("RUSTFLAGS", flags)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status();
    assert!(built.is_ok_and(|status| status.success()), "the build for {name}");
}
