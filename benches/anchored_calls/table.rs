//! The outcomes as a table and as JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::Outcome;
use crate::case::Case;

pub fn head(rounds: usize) {
    println!(
        "CPU-ms per call-second of {rounds} rounds; the ratio is of the medians\n{:<20} {:>6} {:>7} {:>7} {:>7} {:>7} \
         {:>7} {:>9} {:>7} {:>7} {:>7} {:>8}",
        "case", "calls", "least", "median", "most", "ratio", "phones", "lost", "p50 ms", "p99 ms", "p99.9", "kB/call"
    );
}

/// One row a case: the least, the median and the most of its rounds' CPU, the ratio of the medians, and the latency and
/// memory of the round with the least CPU.
pub fn of_calls(all: &[Outcome], calls: usize, cases: &[Case]) {
    let rounds = |case| {
        let mut of_case: Vec<&Outcome> =
            all.iter().filter(|outcome| outcome.calls == calls && outcome.case == case).collect();
        of_case.sort_by(|a, b| a.cpu_ms.total_cmp(&b.cpu_ms));
        of_case
    };
    let median = |case| {
        let of_case = rounds(case);
        of_case.get(of_case.len() / 2).map(|outcome| outcome.cpu_ms)
    };
    let reflector = median(Case::Reflector);
    for case in cases {
        let of_case = rounds(*case);
        let (Some(best), Some(middle), Some(worst)) = (of_case.first(), median(*case), of_case.last()) else {
            continue;
        };
        let lost: u64 = of_case.iter().map(|outcome| outcome.lost).sum();
        let sent: u64 = of_case.iter().map(|outcome| outcome.sent).sum();
        let ratio = reflector.map_or("-".into(), |reflector| format!("{:.2}", middle / reflector));
        let [p50, p99, p999] =
            best.latency.map(|ms| if case.is_conference() { "-".into() } else { format!("{ms:.2}") });
        println!(
            "{:<20} {calls:>6} {:>7.3} {middle:>7.3} {:>7.3} {ratio:>7} {:>7.3} {:>9} {p50:>7} {p99:>7} {p999:>7} {:>8.0}",
            case.name(),
            best.cpu_ms,
            worst.cpu_ms,
            best.phones_ms,
            format!("{lost}/{}k", sent / 1_000),
            best.kilobytes,
        );
        let at_start: u64 = of_case.iter().map(|outcome| outcome.lost_at_start).sum();
        if at_start > 0 {
            println!("{:>27} {at_start} of {lost} packets lost in the first second", "that is");
        }
        if case.is_conference() {
            println!("{:>27} {:.3} per party-second (median)", "that is", middle / case.parties() as f64);
        }
        if let (Case::TwoWorkers, Some(one)) = (case, median(Case::Relay)) {
            // What a core carries is one over what a call costs there.
            println!(
                "{:>27} {:.2} times what one worker carries, by CPU (2 x relay / two-workers)",
                "that is",
                2.0 * one / middle
            );
        }
        if best.threads.len() > 1 {
            let parts: Vec<String> = best.threads.iter().map(|(name, ms)| format!("{name} {ms:.3}")).collect();
            println!("{:>27} {}", "of that", parts.join(", "));
        }
    }
}

/// A row for every outcome, and one with `notMeasured` for what could not be.
pub fn to_json(all: &[Outcome], obstacles: &[(Case, String)]) -> Value {
    let rows = all.iter().map(|outcome| {
        json!({
            "case": outcome.case.name(),
            "calls": outcome.calls,
            "workers": outcome.case.workers(),
            "cpuMsPerCallSecond": outcome.cpu_ms,
            "cpuMsPerCallSecondByThread": outcome.threads.iter().cloned().collect::<BTreeMap<_, _>>(),
            "phonesCpuMsPerCallSecond": outcome.phones_ms,
            "sent": outcome.sent,
            "lost": outcome.lost,
            "lostAtStart": outcome.lost_at_start,
            "latencyMs": { "p50": outcome.latency[0], "p99": outcome.latency[1], "p999": outcome.latency[2] },
            "residentKilobytesPerCall": outcome.kilobytes,
            "subject": outcome.told.trim(),
        })
    });
    let missing = obstacles.iter().map(|(case, why)| json!({ "case": case.name(), "notMeasured": why }));
    rows.chain(missing).collect()
}
