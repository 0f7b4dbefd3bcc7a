//! What an anchored call costs: real sockets on loopback, N two-party PCMU calls of 50 packets a second and direction,
//! the media thread (and the recorder) against a bare reflector in the same run, alternating; Debian's rtpengine, Asterisk and
//! FreeSWITCH, where they are installed, under the same load from the same phones; and what a conference of three costs, all
//! of whom speak, with the mixer thread besides.
//!
//! `cargo bench --bench anchored_calls -- --calls 50,200 --seconds 10 --rounds 3 --json out.json`
//! `cargo bench --bench anchored_calls -- --cases reflector,relay,recorded,rtpengine,rtpengine-pcap --calls 200 --rounds 3`
//! `cargo bench --bench anchored_calls -- --cases reflector,relay,recorded,asterisk,asterisk-recorded --calls 100 --rounds 3`
//! `cargo bench --bench anchored_calls -- --cases conference,conference-recorded --calls 30 --rounds 3`
//!
//! The subject is a process of its own, pinned to one core; the phones run on another. CPU is what the scheduler
//! charged to the subject's threads. Ratios hold between machines, absolute numbers do not. Loopback charges the
//! receiver's kernel work to the sender's system call, so only like is compared with like.
//!
//! Memory per call is how much the subject's resident memory (VmRSS) grew from its first words to the end of the measured
//! time, divided by the calls. What lies in socket buffers is the kernel's and not in it.

mod case;
mod exchange;
mod phones;
mod reflector;
mod rtpengine;
#[path = "../steps/mod.rs"]
mod steps;
mod subject;
mod switchboard;
mod table;
mod tape;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use case::Case;
use steps::pinning;

/// The program's own.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

struct Arguments {
    calls: Vec<usize>,
    cases: Vec<Case>,
    seconds: u64,
    rounds: usize,
    batch_interval: Duration,
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
    let mut arguments = parse(&arguments);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let obstacle = |case: &Case| case.obstacle(cores).map(|why| (*case, why));
    let obstacles: Vec<(Case, String)> = arguments.cases.iter().filter_map(obstacle).collect();
    arguments.cases.retain(|case| case.obstacle(cores).is_none());
    // Where two threads are measured, the phones have the third core.
    pinning::pin_myself_to(if arguments.cases.contains(&Case::TwoWorkers) { 2 } else { 1 });
    table::head(arguments.rounds);
    let mut all = Vec::new();
    for calls in &arguments.calls {
        for round in 0..arguments.rounds {
            for n in 0..arguments.cases.len() {
                let case = arguments.cases[(n + round) % arguments.cases.len()];
                all.push(measure(case, *calls, &arguments));
            }
        }
        table::of_calls(&all, *calls, &arguments.cases);
    }
    for (case, why) in &obstacles {
        println!("{:<20} not measured: {why}", case.name());
    }
    steps::write_json(&table::to_json(&all, &obstacles));
}

fn parse(arguments: &[String]) -> Arguments {
    let mut parsed = Arguments {
        calls: vec![50, 200, 500, 1_000, 2_000],
        cases: Case::ALL.to_vec(),
        seconds: 10,
        rounds: 1,
        batch_interval: Duration::from_millis(1),
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
            "--json" => {}
            _ => panic!("--calls N,N  --cases a,b  --seconds N  --rounds N  --batch-us N  --json FILE; not {name}"),
        }
    }
    parsed
}

/// What one measurement gave.
pub struct Outcome {
    /// What was measured.
    pub case: Case,
    /// How many at once.
    pub calls: usize,
    /// CPU-ms per call-second.
    pub cpu_ms: f64,
    /// The same by thread.
    pub threads: Vec<(String, f64)>,
    /// CPU-ms per call-second of the phones: what was moved there would show.
    pub phones_ms: f64,
    /// Packets that no phone received.
    pub lost: u64,
    /// Of these, packets of the first second.
    pub lost_at_start: u64,
    /// Packets that the phones sent.
    pub sent: u64,
    /// Milliseconds at p50, p99, p99.9.
    pub latency: [f64; 3],
    /// Growth of resident memory per call.
    pub kilobytes: f64,
    /// What the subject says of itself.
    pub told: String,
}

fn measure(case: Case, calls: usize, arguments: &Arguments) -> Outcome {
    let mut subject = Subject::start(case, calls, arguments.batch_interval);
    let pid = subject.pid();
    let mut resident = [resident_kilobytes(pid); 2];
    let phones = phones::Phones::bind(case.parties() * calls, !case.is_conference());
    phones.connect(&subject.anchor(&phones.ports()));

    let seconds = Duration::from_secs(arguments.seconds);
    let mut cpu = [BTreeMap::new(), BTreeMap::new()];
    let mut phones_ns = [0; 2];
    let report = phones.talk(case.warm_up(), seconds, |end| {
        cpu[usize::from(end)] = steps::cpu_by_thread(pid);
        phones_ns[usize::from(end)] = steps::cpu_by_thread(std::process::id()).values().sum::<u64>();
        if end {
            resident[1] = resident_kilobytes(pid);
        }
    });
    let [from, until] = cpu;
    let scale = 1e6 * calls as f64 * report.measured.as_secs_f64();
    // Threads of one name are counted together, and a peer may end some of them.
    let spent = |(name, end): (&String, &u64)| {
        let ns = end.saturating_sub(*from.get(name).unwrap_or(&0));
        (name.clone(), ns as f64 / scale)
    };
    let threads: Vec<(String, f64)> = until.iter().map(spent).filter(|(_, ms)| *ms >= 0.0005).collect();
    let told = subject.stop();
    Outcome {
        case,
        calls,
        cpu_ms: threads.iter().map(|(_, ms)| ms).sum(),
        threads,
        phones_ms: (phones_ns[1] - phones_ns[0]) as f64 / scale,
        lost: report.lost,
        lost_at_start: report.lost_at_start,
        sent: report.sent,
        latency: report.latency,
        kilobytes: resident[1].saturating_sub(resident[0]) as f64 / calls as f64,
        told,
    }
}

fn resident_kilobytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("procfs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("kilobytes")
}

/// The process under measurement.
enum Subject {
    Ours(Ours),
    Rtpengine(rtpengine::Rtpengine),
    Exchange(exchange::Exchange),
}

impl Subject {
    fn start(case: Case, calls: usize, batch: Duration) -> Self {
        match case {
            Case::Rtpengine | Case::RtpenginePcap => {
                Self::Rtpengine(rtpengine::Rtpengine::start(case == Case::RtpenginePcap))
            }
            Case::Asterisk | Case::Freeswitch | Case::AsteriskRecorded | Case::FreeswitchRecorded => {
                let records = matches!(case, Case::AsteriskRecorded | Case::FreeswitchRecorded);
                let kind = exchange::Kind::of(case).expect("it is one of these");
                Self::Exchange(exchange::Exchange::start(kind, records))
            }
            _ => Self::Ours(Ours::start(case, calls, batch)),
        }
    }

    fn pid(&self) -> u32 {
        match self {
            Self::Ours(ours) => ours.process.id(),
            Self::Rtpengine(rtpengine) => rtpengine.pid(),
            Self::Exchange(exchange) => exchange.pid(),
        }
    }

    /// Has it anchor the calls of these phones; the port that each of them sends to.
    fn anchor(&mut self, phones: &[u16]) -> Vec<u16> {
        match self {
            Self::Ours(ours) => ours.anchor(phones),
            Self::Rtpengine(rtpengine) => rtpengine.anchor(phones),
            Self::Exchange(exchange) => exchange.anchor(phones),
        }
    }

    fn stop(self) -> String {
        match self {
            Self::Ours(ours) => ours.stop(),
            Self::Rtpengine(rtpengine) => rtpengine.stop(),
            Self::Exchange(exchange) => exchange.stop(),
        }
    }
}

/// This program once more, as what is measured; see [`subject`].
struct Ours {
    process: Child,
    lines: BufReader<ChildStdout>,
}

impl Ours {
    fn start(case: Case, calls: usize, batch: Duration) -> Self {
        let program = std::env::current_exe().expect("our own path");
        let cores = if case.workers() == 1 { "0" } else { "0,1" };
        let mut command = pinning::pinned_to(program.to_str().expect("a path in UTF-8"), cores);
        let batch = batch.as_micros().to_string();
        let command = command.args(["--subject", case.name(), &calls.to_string(), &batch]);
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the subject can be started");
        let lines = BufReader::new(process.stdout.take().expect("piped"));
        let mut this = Self { process, lines };
        assert_eq!(this.line().trim(), "hello");
        this
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("the subject speaks");
        line
    }

    fn anchor(&mut self, phones: &[u16]) -> Vec<u16> {
        let anchors = self.line().split_whitespace().map(|port| port.parse().expect("a port")).collect();
        let line: Vec<String> = phones.iter().map(u16::to_string).collect();
        let stdin = self.process.stdin.as_mut().expect("piped");
        writeln!(stdin, "{}", line.join(" ")).expect("the subject listens");
        assert_eq!(self.line().trim(), "ready");
        anchors
    }

    fn stop(mut self) -> String {
        drop(self.process.stdin.take());
        let told = self.line();
        assert!(self.process.wait().expect("the subject ends").success(), "the subject failed");
        told
    }
}

/// How many files of this kind lie below a folder, and their bytes.
pub fn files_below(folder: &Path, extension: &str) -> (usize, u64) {
    let mut all = (0, 0);
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            let (files, bytes) = files_below(&path, extension);
            all = (all.0 + files, all.1 + bytes);
        } else if path.extension().is_some_and(|found| found == extension) {
            all = (all.0 + 1, all.1 + entry.metadata().map_or(0, |metadata| metadata.len()));
        }
    }
    all
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
