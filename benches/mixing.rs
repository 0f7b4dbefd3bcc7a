//! What a conference costs without sockets, in CPU ns per party and 20 ms frame, and what concealment is worth.
//!
//! `cargo bench --bench mixing` measures the kernels that the processor is given at run time, then those of AVX2 and of the
//! least processor (SSE2 on x86-64), which it builds before in `target/avx2` and `target/sse2`, without choice at run time
//! (`--cfg baseline`). The goal for mixer and recorder together is 150 ns with AVX2 and 350 ns with SSE2 on a machine whose
//! bare loop over the same kernels takes 95 and 320: that loop runs beside them, and the ratio says what another machine
//! cannot change. `-- --json FILE` writes all tables. `-- --lateness 60`: how late ticks begin. `-- --once mixer 3` (or
//! `recorder`, `bare`): one step alone, to be run under a profiler.

mod steps;

use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
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

fn bare_step(parties: u64) -> f64 {
    measured(parties, parties, |parties, _, ticks, each| steps::bare(parties, ticks, each))
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

fn concealment() -> Vec<serde_json::Value> {
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
    let row = |(name, way): (&str, Way)| {
        let heard = way(said, &lost);
        let of_lost = segmental(said, &heard, |n| lost[n]);
        let behind = segmental(said, &heard, |n| n > 0 && lost[n - 1] && !lost[n]);
        println!("  {name:<12} {of_lost:>7.2} dB {behind:>19.2} dB");
        json!({ "way": name, "lost": share, "segmentalSnrDb": of_lost, "behindDb": behind })
    };
    ways.into_iter().map(row).collect()
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
    let idle = media::Worker { options, taps: vec![], mixers: vec![], kernel: None };
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
        let mut all = Vec::with_capacity(seconds as usize * 200);
        for phase in 1..=seconds * 200 {
            let due = epoch + Duration::from_millis(5 * phase);
            let _ = never.recv_timeout(due.saturating_duration_since(clock::now()));
            all.push(clock::now().saturating_duration_since(due).as_micros() as u64);
        }
        all.sort_unstable();
        all
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
    let bare = bare.join().expect("the bare timer's lateness");
    let counters = mixer.counters();
    let mixed: Vec<u64> = counters.lateness.iter().map(|count| count.load(Relaxed)).collect();
    println!("\nphases of 5 ms by how late they began, {seconds} s, 200 members in 25 rooms, {heard} packets made:");
    println!("{:>14} {:>12} {:>12}", "up to, us", "mixer", "bare timer");
    let total: u64 = mixed.iter().sum();
    for n in 0..mixed.len() {
        let bound = mixer::LATENESS_US.get(n).copied();
        let of_mixer = mixed[..=n].iter().sum::<u64>() as f64 / total as f64;
        let of_bare = bare.partition_point(|late| bound.is_none_or(|bound| *late <= bound)) as f64 / bare.len() as f64;
        let bound = bound.map_or("more".into(), |bound| bound.to_string());
        println!("{bound:>14} {:>10.3} % {:>10.3} %", 100.0 * of_mixer, 100.0 * of_bare);
    }
    println!("{:>14} {:>12} {:>12} {:>18}", "", "mixer, us", "bare, us", "above the bare one");
    let row = |(name, part): (&str, f64)| {
        let exact = bare[((bare.len() as f64 * part) as usize).min(bare.len() - 1)];
        let bound = percentile(&mixed, part);
        let above = bound.map(|bound| bound.saturating_sub(exact));
        let told = |us: Option<u64>| us.map_or("more".into(), |us| format!("<= {us}"));
        println!("{name:>14} {:>12} {exact:>12} {:>18}", told(bound), told(above));
        json!({ "part": part, "mixerUsAtMost": bound, "bareUs": exact, "aboveUsAtMost": above })
    };
    let rows: Vec<_> = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)].into_iter().map(row).collect();
    steps::write_json(&json!({ "seconds": seconds, "members": 200, "rooms": 25, "lateness": rows }));
    mixer.join();
    media.into_iter().for_each(media::Handle::join);
}

/// The bound in µs that so large a part is not later than; `None` beyond the last bound.
fn percentile(counts: &[u64], part: f64) -> Option<u64> {
    let (mut seen, total) = (0, counts.iter().sum::<u64>());
    let reached = counts.iter().position(|count| {
        seen += count;
        seen as f64 >= part * total as f64
    });
    mixer::LATENESS_US.get(reached?).copied()
}

fn main() {
    let after = |name: &str| std::env::args().skip_while(|argument| argument != name).skip(1).collect::<Vec<_>>();
    if let [seconds, ..] = &after("--lateness")[..] {
        return lateness(seconds.parse().expect("seconds"));
    }
    if let [step, parties, ..] = &after("--once")[..] {
        let parties = parties.parse().expect("a number of parties");
        let ns = match &step[..] {
            "mixer" => mixer_step(parties, parties),
            "recorder" => recorder_step(parties, parties),
            "bare" => bare_step(parties),
            other => panic!("no step {other:?}"),
        };
        return println!("{step}, {parties} parties: {ns:.1} ns per party and frame");
    }
    if cfg!(baseline) {
        return steps::write_json(&json!({ "costs": costs() }));
    }
    // Built before anything is measured. Everywhere with AVX2, and with no more than every processor has.
    let others = [("avx2", "--cfg baseline -C target-feature=+avx2"), ("sse2", "--cfg baseline")];
    let others = others.map(|(name, flags)| (name, other_processor(name, flags)));
    let mut all = costs();
    for (name, program) in others {
        println!();
        all.extend(costs_of(name, &program));
    }
    let concealed = concealment();
    steps::write_json(&json!({ "costs": all, "concealment": concealed }));
}

/// What the kernels of this program are called, and the goal for mixer and recorder together in ns.
fn kernels() -> (&'static str, Option<f64>) {
    match (cfg!(baseline), cfg!(target_feature = "avx2")) {
        (false, _) => ("run time", None),
        (true, true) => ("avx2", Some(150.0)),
        (true, false) => ("sse2", Some(350.0)),
    }
}

/// The tables of this program's kernels, printed as they are measured.
fn costs() -> Vec<serde_json::Value> {
    let (kernels, goal) = kernels();
    println!("CPU ns per party and 20 ms frame, PCMU, least / median of {ROUNDS}; kernels: {kernels}");
    println!("(all speak at half level: from 128 parties on the sum leaves the range and every output is limited)");
    if let Some(goal) = goal {
        println!("(goal for both: {goal:.0} ns where a bare loop takes {:.0})", goal / goal_ratio(goal));
    }
    let titles = ["speaking", "mixer", "recorder", "both", "bare loop", "both / bare", "parties per core"];
    println!("{:>8} {}", "parties", titles.map(|title| format!("{title:>16}")).join(" "));
    let mut rows = vec![];
    for parties in [3, 8, 32, 128, 256] {
        let bare = rounds(|| bare_step(parties));
        for speaking in if parties == 3 { vec![3] } else { vec![3, parties] } {
            let mixer = rounds(|| mixer_step(parties, speaking));
            let recorder = rounds(|| recorder_step(parties, speaking));
            let both = (mixer.0 + recorder.0, mixer.1 + recorder.1);
            let ratio = both.0 / bare.0;
            let per_core = TICK_NS as f64 / both.1;
            let pair = |(least, median): (f64, f64)| format!("{least:.0} / {median:.0}");
            let columns = [
                speaking.to_string(),
                pair(mixer),
                pair(recorder),
                pair(both),
                pair(bare),
                format!("{ratio:.2}"),
                format!("{per_core:.0}"),
            ];
            println!("{parties:>8} {}", columns.map(|column| format!("{column:>16}")).join(" "));
            let figures = |(least, median): (f64, f64)| json!({ "least": least, "median": median });
            rows.push(json!({
                "kernels": kernels,
                "parties": parties,
                "speaking": speaking,
                "mixerNs": figures(mixer),
                "recorderNs": figures(recorder),
                "bothNs": figures(both),
                "bareNs": figures(bare),
                "ratio": ratio,
                "goalNs": goal,
                "goalRatio": goal.map(goal_ratio),
                "partiesPerCore": per_core,
            }));
        }
    }
    rows
}

/// The goal as a ratio to the bare loop, which took 95 ns with AVX2 and 320 with SSE2 where the goals were set.
fn goal_ratio(goal: f64) -> f64 {
    if goal < 200.0 { goal / 95.0 } else { goal / 320.0 }
}

/// The same program with other kernels: another build, because they are chosen once and for all by what the processor says
/// of itself. Gives where it stands.
fn other_processor(name: &str, flags: &str) -> String {
    let folder = format!("{}/target/{name}", env!("CARGO_MANIFEST_DIR"));
    println!("building for {name} in {folder}");
    let built = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["bench", "--quiet", "--no-run", "--bench", "mixing", "--message-format", "json-render-diagnostics"])
        .args(["--target-dir", &folder])
        .env("RUSTFLAGS", flags)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo");
    assert!(built.status.success(), "the build for {name}");
    let told = String::from_utf8(built.stdout).expect("text");
    let messages = told.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let program = messages
        .filter(|message| message["target"]["name"] == "mixing")
        .find_map(|message| message["executable"].as_str().map(str::to_owned));
    program.unwrap_or_else(|| panic!("the program for {name}"))
}

/// Runs it; its tables come on our own output, its rows by a file.
fn costs_of(name: &str, program: &str) -> Vec<serde_json::Value> {
    let file = std::env::temp_dir().join(format!("mixing-{name}-{}.json", std::process::id()));
    let ended = Command::new(program).arg("--bench").arg("--json").arg(&file).status();
    assert!(ended.is_ok_and(|status| status.success()), "the measurement with {name}");
    let mut told: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).expect("its rows")).expect("its rows as JSON");
    std::fs::remove_file(&file).expect("a file of ours");
    match told["costs"].take() {
        serde_json::Value::Array(rows) => rows,
        other => panic!("no rows: {other}"),
    }
}
