//! What an anchored call costs: real sockets on loopback, N two-party PCMU calls of 50 packets a second and direction,
//! the media thread (and the recorder) against a bare reflector in the same run, alternating. And what a conference of
//! three costs, all of whom speak, with the mixer thread besides.
//!
//! `cargo bench --bench anchored_calls -- --calls 50,200 --seconds 10 --rounds 3 --json out.json`
//! `cargo bench --bench anchored_calls -- --cases conference,conference-recorded --calls 30 --rounds 3`
//!
//! The subject is a process of its own, pinned to one core; the phones run on another. CPU is what the scheduler
//! charged to the subject's threads. Ratios hold between machines, absolute numbers do not. Loopback charges the
//! receiver's kernel work to the sender's system call, so only like is compared with like.

mod phones;
mod reflector;
#[path = "../steps/mod.rs"]
mod steps;
mod subject;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use serde_json::json;
use steps::pinning;

/// One thing to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// epoll, recv, send.
    Reflector,
    /// The media thread.
    Relay,
    /// The media thread and a recorder that writes stereo.
    Recorded,
    /// The media thread and a mixer, three parties a call.
    Conference,
    /// These and a recorder that writes all three mixed.
    ConferenceRecorded,
}

impl Case {
    const ALL: [Self; 5] = [Self::Reflector, Self::Relay, Self::Recorded, Self::Conference, Self::ConferenceRecorded];

    fn name(self) -> &'static str {
        match self {
            Self::Reflector => "reflector",
            Self::Relay => "relay",
            Self::Recorded => "recorded",
            Self::Conference => "conference",
            Self::ConferenceRecorded => "conference-recorded",
        }
    }

    /// Parties of a call.
    pub fn parties(self) -> usize {
        if self.is_mixed() { 3 } else { 2 }
    }

    /// What is sent is not what came: no packet's latency can be told.
    pub fn is_mixed(self) -> bool {
        matches!(self, Self::Conference | Self::ConferenceRecorded)
    }

    /// A recorder writes it.
    pub fn is_recorded(self) -> bool {
        matches!(self, Self::Recorded | Self::ConferenceRecorded)
    }

    fn parse(name: &str) -> Self {
        *Self::ALL.iter().find(|case| case.name() == name).unwrap_or_else(|| panic!("no case {name:?}"))
    }
}

struct Arguments {
    calls: Vec<usize>,
    cases: Vec<Case>,
    seconds: u64,
    rounds: usize,
    batch_interval: Duration,
    json: Option<String>,
}

struct Outcome {
    case: Case,
    calls: usize,
    cpu_ms: f64,
    /// The same by thread.
    threads: Vec<(String, f64)>,
    lost: u64,
    sent: u64,
    /// Milliseconds at p50, p99, p99.9.
    latency: [f64; 3],
    kilobytes: f64,
    told: String,
}

fn main() {
    // `cargo test --all-targets` runs benches with this; there is nothing to prove then.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.first().is_some_and(|argument| argument == "--test") {
        return;
    }
    raise_descriptor_limit();
    if let [subject, case, calls, batch] = &arguments[..]
        && subject == "--subject"
    {
        let batch = Duration::from_micros(batch.parse().expect("microseconds"));
        return subject::run(Case::parse(case), calls.parse().expect("a number of calls"), batch);
    }
    let arguments = parse(&arguments);
    pinning::pin_myself();
    println!(
        "CPU-ms per call-second of {} rounds; the ratio is of the medians\n{:<20} {:>6} {:>7} {:>7} {:>7} {:>7} {:>9} {:>7} \
         {:>7} {:>7} {:>8}",
        arguments.rounds,
        "case",
        "calls",
        "least",
        "median",
        "most",
        "ratio",
        "lost",
        "p50 ms",
        "p99 ms",
        "p99.9",
        "kB/call"
    );
    let mut all = Vec::new();
    for calls in &arguments.calls {
        for round in 0..arguments.rounds {
            for n in 0..arguments.cases.len() {
                let case = arguments.cases[(n + round) % arguments.cases.len()];
                all.push(measure(case, *calls, &arguments));
            }
        }
        print_table(&all, *calls, &arguments);
    }
    if let Some(path) = &arguments.json {
        std::fs::write(path, to_json(&all).to_string()).expect("the JSON file can be written");
    }
}

fn parse(arguments: &[String]) -> Arguments {
    let mut parsed = Arguments {
        calls: vec![50, 200],
        cases: Case::ALL.to_vec(),
        seconds: 10,
        rounds: 1,
        batch_interval: Duration::from_millis(1),
        json: None,
    };
    let numbers = |list: &str| list.split(',').map(|n| n.parse().expect("a number")).collect::<Vec<usize>>();
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { panic!("{} needs a value", pair[0]) };
        match name.as_str() {
            "--calls" => parsed.calls = numbers(value),
            "--cases" => parsed.cases = value.split(',').map(Case::parse).collect(),
            "--seconds" => parsed.seconds = numbers(value)[0] as u64,
            "--rounds" => parsed.rounds = numbers(value)[0],
            "--batch-us" => parsed.batch_interval = Duration::from_micros(numbers(value)[0] as u64),
            "--json" => parsed.json = Some(value.clone()),
            _ => panic!("--calls N,N  --cases a,b  --seconds N  --rounds N  --batch-us N  --json FILE; not {name}"),
        }
    }
    parsed
}

fn measure(case: Case, calls: usize, arguments: &Arguments) -> Outcome {
    let mut subject = Subject::start(case, calls, arguments.batch_interval);
    let before = subject.resident_kilobytes();
    let anchors = subject.line().split_whitespace().map(|port| port.parse().expect("a port")).collect::<Vec<u16>>();
    let phones = phones::Phones::bind(&anchors);
    subject.tell(&phones.ports());
    assert_eq!(subject.line().trim(), "ready");

    let seconds = Duration::from_secs(arguments.seconds);
    let mut cpu = [BTreeMap::new(), BTreeMap::new()];
    let report = phones.talk(seconds, |end| cpu[usize::from(end)] = steps::cpu_by_thread(subject.process.id()));
    let [from, until] = cpu;
    let scale = 1e6 * calls as f64 * report.measured.as_secs_f64();
    let spent = |(name, end): (&String, &u64)| (name.clone(), (end - from.get(name).unwrap_or(&0)) as f64 / scale);
    let threads: Vec<(String, f64)> = until.iter().map(spent).filter(|(_, ms)| *ms >= 0.0005).collect();
    let resident = subject.resident_kilobytes();
    let told = subject.stop();
    Outcome {
        case,
        calls,
        cpu_ms: threads.iter().map(|(_, ms)| ms).sum(),
        threads,
        lost: report.lost,
        sent: report.sent,
        latency: report.latency,
        kilobytes: resident.saturating_sub(before) as f64 / calls as f64,
        told,
    }
}

/// One row a case: the least, the median and the most of its rounds' CPU, the ratio of the medians, and the latency and
/// memory of the round with the least CPU.
fn print_table(all: &[Outcome], calls: usize, arguments: &Arguments) {
    let rounds = |case| {
        let mut of_case: Vec<&Outcome> =
            all.iter().filter(|outcome| outcome.calls == calls && outcome.case == case).collect();
        of_case.sort_by(|a, b| a.cpu_ms.total_cmp(&b.cpu_ms));
        of_case
    };
    let median = |of_case: &[&Outcome]| of_case.get(of_case.len() / 2).map(|outcome| outcome.cpu_ms);
    let reflector = median(&rounds(Case::Reflector));
    for case in &arguments.cases {
        let of_case = rounds(*case);
        let (Some(best), Some(middle), Some(worst)) = (of_case.first(), median(&of_case), of_case.last()) else {
            continue;
        };
        let lost: u64 = of_case.iter().map(|outcome| outcome.lost).sum();
        let sent: u64 = of_case.iter().map(|outcome| outcome.sent).sum();
        let ratio = reflector.map_or("-".into(), |reflector| format!("{:.2}", middle / reflector));
        let [p50, p99, p999] = best.latency.map(|ms| if case.is_mixed() { "-".into() } else { format!("{ms:.2}") });
        println!(
            "{:<20} {calls:>6} {:>7.3} {middle:>7.3} {:>7.3} {ratio:>7} {:>9} {p50:>7} {p99:>7} {p999:>7} {:>8.0}",
            case.name(),
            best.cpu_ms,
            worst.cpu_ms,
            format!("{lost}/{}k", sent / 1_000),
            best.kilobytes,
        );
        if case.is_mixed() {
            println!("{:>27} {:.3} per party-second (median)", "that is", middle / case.parties() as f64);
        }
        if best.threads.len() > 1 {
            let parts: Vec<String> = best.threads.iter().map(|(name, ms)| format!("{name} {ms:.3}")).collect();
            println!("{:>27} {}", "of that", parts.join(", "));
        }
    }
}

fn to_json(all: &[Outcome]) -> serde_json::Value {
    let rows = all.iter().map(|outcome| {
        json!({
            "case": outcome.case.name(),
            "calls": outcome.calls,
            "cpuMsPerCallSecond": outcome.cpu_ms,
            "cpuMsPerCallSecondByThread": outcome.threads.iter().cloned().collect::<BTreeMap<_, _>>(),
            "sent": outcome.sent,
            "lost": outcome.lost,
            "latencyMs": { "p50": outcome.latency[0], "p99": outcome.latency[1], "p999": outcome.latency[2] },
            "residentKilobytesPerCall": outcome.kilobytes,
            "subject": outcome.told.trim(),
        })
    });
    rows.collect()
}

/// The process under measurement.
struct Subject {
    process: Child,
    lines: BufReader<ChildStdout>,
}

impl Subject {
    fn start(case: Case, calls: usize, batch: Duration) -> Self {
        let program = std::env::current_exe().expect("our own path");
        let mut command = pinning::pinned(program.to_str().expect("a path in UTF-8"), 0);
        let batch = batch.as_micros().to_string();
        let command = command.args(["--subject", case.name(), &calls.to_string(), &batch]);
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the subject can be started");
        let mut lines = BufReader::new(process.stdout.take().expect("piped"));
        let mut hello = String::new();
        lines.read_line(&mut hello).expect("the subject speaks");
        assert_eq!(hello.trim(), "hello");
        Self { process, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("the subject speaks");
        line
    }

    fn tell(&mut self, ports: &[u16]) {
        let line: Vec<String> = ports.iter().map(u16::to_string).collect();
        let stdin = self.process.stdin.as_mut().expect("piped");
        writeln!(stdin, "{}", line.join(" ")).expect("the subject listens");
    }

    fn resident_kilobytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("procfs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("kilobytes")
    }

    fn stop(mut self) -> String {
        drop(self.process.stdin.take());
        let told = self.line();
        assert!(self.process.wait().expect("the subject ends").success(), "the subject failed");
        told
    }
}

fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if setrlimit(Resource::Nofile, limit).is_err() {
        eprintln!("the descriptor limit stays as it is");
    }
}

/// Real-time priority for the calling thread, so that other programs on the machine disturb less.
pub fn ask_for_realtime() {
    use thread_priority::{
        RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
        thread_native_id,
    };
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::RoundRobin);
    if let Err(error) = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy) {
        eprintln!("no real-time priority ({error:?}): expect noise");
    }
}
