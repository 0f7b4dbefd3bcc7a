//! Instructions per relayed packet, recorded and mixed frame, and SIP message, counted by valgrind and compared with
//! `fixtures/instructions.toml`: more than a tenth above is a regression, more than a tenth below is a figure to be
//! renewed. Time would say something of the machine; these numbers are the same on every one.
//!
//! The numbers are of the dev profile as Cargo.toml has it, which is what `cargo test` builds.
//! `cargo test --test instructions -- --write` writes them anew, after a change that is meant or with a new compiler.

#[path = "../benches/steps/mod.rs"]
mod steps;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

/// How far a count may be from the one expected.
const TOLERANCE: f64 = 0.10;
/// Names the work of a process that is counted.
const SUBJECT: &str = "--subject";

/// What is counted: its name, and how many of it `n` steps are.
const CASES: [(&str, u64); 4] = [("relayed-packet", 20), ("recorded-frame", 3), ("mixed-frame", 3), ("sip-message", 5)];

/// Steps of the two runs whose difference is counted: what is done once is in both.
const STEPS: [u64; 2] = [200, 600];

fn work(case: &str, steps: u64) {
    match case {
        "relayed-packet" => steps::relay::relay(10, steps, |_| ()),
        "recorded-frame" => steps::record(3, 3, steps, |_| ()),
        "mixed-frame" => steps::mix(3, 3, steps, |_| ()),
        "sip-message" => {
            let messages = steps::sip::messages();
            (0..steps)
                .for_each(|_| messages.iter().for_each(|(_, bytes)| assert!(steps::sip::read_and_write(bytes) > 0)));
        }
        other => panic!("no case {other:?}"),
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [subject, case, steps] = &arguments[..]
        && subject == SUBJECT
    {
        return work(case, steps.parse().expect("a number of steps"));
    }
    if arguments.iter().any(|argument| argument == "--list") {
        return;
    }
    // A release build, or one with an optimiser other than the profile's, has other counts.
    let as_declared =
        cfg!(debug_assertions) && option_env!("CARGO_PROFILE_DEV_OPT_LEVEL").is_none_or(|level| level == "1");
    if !as_declared || !cfg!(target_arch = "x86_64") {
        return println!("not counted: the numbers are of the dev profile as Cargo.toml has it, on x86-64");
    }
    let counts: BTreeMap<&str, u64> = CASES.iter().map(|(case, per_step)| (*case, count(case, *per_step))).collect();
    if arguments.iter().any(|argument| argument == "--write") {
        return write(&counts);
    }
    let wrong = compare(&counts, &expected());
    assert!(wrong.is_empty(), "{}\nmeant? cargo test --test instructions -- --write", wrong.join("\n"));
}

/// Instructions of one.
fn count(case: &str, per_step: u64) -> u64 {
    let [few, many] = STEPS.map(|steps| instructions(case, steps));
    (many - few) / ((STEPS[1] - STEPS[0]) * per_step)
}

/// Instructions of a whole process.
fn instructions(case: &str, steps: u64) -> u64 {
    let program = std::env::current_exe().expect("our own path");
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([SUBJECT, case, &steps.to_string()])
        .output()
        .expect("valgrind, which test.sh installs");
    let told = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{case}: {told}");
    let collected = told.lines().find_map(|line| line.split_once("Collected : "));
    collected.and_then(|(_, count)| count.trim().parse().ok()).unwrap_or_else(|| panic!("no count in {told}"))
}

fn fixture() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/instructions.toml")
}

fn expected() -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(fixture()).expect("fixtures/instructions.toml");
    toml::from_str(&text).expect("names and counts")
}

/// A line for every count, printed, and those that are out of tolerance.
fn compare(counts: &BTreeMap<&str, u64>, expected: &BTreeMap<String, u64>) -> Vec<String> {
    let line = |(case, count): (&&str, &u64)| {
        let Some(expected) = expected.get(*case) else {
            return Some(format!("{case}: {count}, and nothing is expected"));
        };
        let change = *count as f64 / *expected as f64 - 1.0;
        let line = format!("{case}: {count} instructions, expected {expected} ({:+.1} %)", 100.0 * change);
        println!("{line}");
        (change.abs() > TOLERANCE).then_some(line)
    };
    counts.iter().filter_map(line).collect()
}

fn write(counts: &BTreeMap<&str, u64>) {
    let rows: String = counts.iter().map(|(case, count)| format!("{case} = {count}\n")).collect();
    let head = "# Instructions of one, in the dev profile on x86-64; see tests/instructions.rs.\n";
    std::fs::write(fixture(), format!("{head}{rows}")).expect("the fixture can be written");
    print!("{rows}");
}
