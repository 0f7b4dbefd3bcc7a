//! What setting a call up and tearing it down costs: INVITE, 200, ACK, BYE, 200 through the whole server, and its CPU time
//! per call.
//!
//! `cargo bench --bench call_setup -- --cases bare,plain,recorded --rates 25,200,500,1000 --seconds 10 --json out.json`
//!
//! Caller and callee are two threads of this program on one core, the server is a process of its own on another. No call is
//! ever repeated by the caller: what gets no answer within two seconds has failed. What the server sends twice was late.
//! With SDP each call binds its RTP ports, but nothing is sent there; `recorded` writes a file for each. `bare` is the
//! reference: a plain loop that receives and sends as many datagrams of that size for a call as the server, and does no more.

mod steps;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::json;
use steps::{phone, pinning};
use stickytape::clock;

/// Between the answer and the BYE.
const TALK: Duration = Duration::from_millis(200);
/// What is not answered by then has failed.
const PATIENCE: Duration = Duration::from_secs(2);
/// Before the measurement.
const WARM_UP: Duration = Duration::from_secs(2);
/// Makes this program the reference.
const BARE: &str = "--bare";
/// The clock's step of the caller.
const STEP: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Bare,
    Plain,
    Recorded,
}

struct Arguments {
    cases: Vec<Case>,
    rates: Vec<u64>,
    seconds: u64,
}

struct Outcome {
    case: Case,
    rate: u64,
    cpu_ms: f64,
    /// The same by thread.
    threads: Vec<(String, f64)>,
    calls: u64,
    failed: u64,
    repeated: u64,
    answered_ms: [f64; 2],
}

fn main() {
    let cases = vec![Case::Bare, Case::Plain, Case::Recorded];
    let mut arguments = Arguments { cases, rates: vec![25, 200, 500, 1_000], seconds: 10 };
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match &given[..] {
        [first, ..] if first == "--test" => return,
        [first, callee] if first == BARE => return forward(callee.parse().expect("an address")),
        _ => {}
    }
    for pair in given.chunks(2) {
        match pair {
            [name, rates] if name == "--rates" => {
                arguments.rates = rates.split(',').map(|rate| rate.parse().expect("a number")).collect();
            }
            [name, cases] if name == "--cases" => {
                arguments.cases.retain(|case| cases.split(',').any(|wanted| wanted == case.name()));
            }
            [name, seconds] if name == "--seconds" => arguments.seconds = seconds.parse().expect("a number"),
            [name, _] if name == "--json" => {}
            other => panic!("--cases bare,plain,recorded  --rates N,N  --seconds N  --json FILE; not {other:?}"),
        }
    }
    pinning::pin_myself();
    println!(
        "CPU-ms of the server per call: INVITE, 200, ACK, BYE, 200 with SDP; the caller hears its 200 after p50 / p99 ms"
    );
    println!(
        "{:<10} {:>7} {:>7} {:>9} {:>6} {:>7} {:>9} {:>8} {:>8}",
        "case", "calls/s", "calls", "CPU-ms", "ratio", "failed", "repeated", "p50 ms", "p99 ms"
    );
    let mut rows = vec![];
    for rate in &arguments.rates {
        let mut bare = None;
        for case in &arguments.cases {
            let outcome = measure(*case, *rate, arguments.seconds);
            let Outcome { cpu_ms, calls, failed, repeated, answered_ms: [p50, p99], ref threads, .. } = outcome;
            if *case == Case::Bare {
                bare = Some(cpu_ms);
            }
            let ratio = bare.map(|bare| cpu_ms / bare);
            println!(
                "{:<10} {rate:>7} {calls:>7} {cpu_ms:>9.3} {:>6.2} {failed:>7} {repeated:>9} {p50:>8.2} {p99:>8.2}",
                outcome.case.name(),
                ratio.unwrap_or(f64::NAN)
            );
            let parts: Vec<String> = threads.iter().map(|(name, ms)| format!("{name} {ms:.3}")).collect();
            println!("{:>18} {}", "of that", parts.join(", "));
            rows.push(json!({
                "case": outcome.case.name(),
                "callsPerSecond": outcome.rate,
                "calls": calls,
                "cpuMsPerCall": cpu_ms,
                "ratioToBare": ratio,
                "cpuMsPerCallByThread": threads.iter().cloned().collect::<BTreeMap<_, _>>(),
                "failed": failed,
                "repeatedByServer": repeated,
                "answeredMs": { "p50": p50, "p99": p99 },
            }));
        }
    }
    steps::write_json(&json!(rows));
}

impl Case {
    fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Plain => "plain",
            Self::Recorded => "recorded",
        }
    }
}

fn measure(case: Case, rate: u64, seconds: u64) -> Outcome {
    let (caller, callee) = (socket(), socket());
    let callee_port = callee.local_addr().expect("bound").port();
    let server = if case == Case::Bare { Server::bare(callee_port) } else { Server::start(case, callee_port) };
    let repeated = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let mut cpu = [BTreeMap::new(), BTreeMap::new()];
    let time = WARM_UP + Duration::from_secs(seconds);
    let (mut done, failed, mut answered) = std::thread::scope(|scope| {
        scope.spawn(|| answer(&callee, &repeated, &stop));
        let caller = scope.spawn(|| Caller::new(&caller, server.sip, rate).run(time, &repeated));
        std::thread::sleep(WARM_UP);
        cpu[0] = steps::cpu_by_thread(server.process.id());
        std::thread::sleep(Duration::from_secs(seconds));
        cpu[1] = steps::cpu_by_thread(server.process.id());
        let result = caller.join().expect("the caller");
        stop.store(true, Relaxed);
        result
    });
    done -= failed;
    answered.sort_unstable();
    let part =
        |part: f64| answered.get((answered.len() as f64 * part) as usize).map_or(0.0, Duration::as_secs_f64) * 1e3;
    let [before, after] = cpu;
    let spent = |(name, end): (&String, &u64)| {
        let ns = end.saturating_sub(*before.get(name).unwrap_or(&0));
        (name.clone(), ns as f64 / 1e6 / (rate * seconds) as f64)
    };
    let threads: Vec<(String, f64)> = after.iter().map(spent).filter(|(_, ms)| *ms >= 0.000_5).collect();
    Outcome {
        case,
        rate,
        cpu_ms: threads.iter().map(|(_, ms)| ms).sum(),
        threads,
        calls: done,
        failed,
        repeated: repeated.load(Relaxed),
        answered_ms: [part(0.5), part(0.99)],
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    socket.set_read_timeout(Some(STEP)).expect("a timeout");
    socket
}

/// The reference on a port that it prints: what the server receives and sends for a call, without reading more of it than
/// who is to get it. As the server it answers INVITE by 100, acknowledges to the callee, and answers BYE by itself.
fn forward(callee: SocketAddr) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    println!("{}", socket.local_addr().expect("bound").port());
    let (mut buffer, mut caller) = ([0; 4_096], callee);
    let send = |start: &[u8], rest: &[u8], to: SocketAddr| {
        let whole = [start, rest].concat();
        let _ = socket.send_to(&whole, to);
    };
    loop {
        let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
        let message = &buffer[..len];
        let headers = message.iter().position(|byte| *byte == b'\n').map_or(len, |end| end + 1);
        let (start, rest) = message.split_at(headers);
        match start {
            [b'I', ..] => {
                caller = from;
                send(b"SIP/2.0 100 Trying\r\n", rest, from);
                send(start, rest, callee);
            }
            [b'B', ..] => {
                send(b"SIP/2.0 200 OK\r\n", rest, from);
                send(start, rest, callee);
            }
            // The answer to an INVITE: it alone has a body.
            [b'S', ..] if !message.ends_with(b"\r\n\r\n") => {
                send(b"ACK sip:bench SIP/2.0\r\n", rest, callee);
                send(start, rest, caller);
            }
            _ => {}
        }
    }
}

/// Answers every INVITE and BYE at once.
fn answer(socket: &UdpSocket, repeated: &AtomicU64, stop: &AtomicBool) {
    let port = socket.local_addr().expect("bound").port();
    let (mut buffer, mut seen) = ([0; 4_096], HashSet::new());
    while !stop.load(Relaxed) {
        let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
        let text = String::from_utf8_lossy(&buffer[..len]);
        if text.starts_with("ACK ") {
            continue;
        }
        let branch = phone::header(&text, "Via").unwrap_or_default();
        repeated.fetch_add(u64::from(!seen.insert(branch.to_owned())), Relaxed);
        let whole = phone::ok(&text, port, text.starts_with("INVITE ").then_some(phone::DISCARD));
        let _ = socket.send_to(whole.as_bytes(), from);
    }
}

/// A call of the caller, by its number.
struct Call {
    began: Instant,
    /// To of the answer; `None` before.
    answered: Option<String>,
}

/// The first of the queue, if its time has come.
fn due(queue: &mut VecDeque<(Instant, u64)>, now: Instant) -> Option<u64> {
    queue.front().is_some_and(|(at, _)| *at <= now).then(|| queue.pop_front())?.map(|(_, number)| number)
}

struct Caller<'a> {
    socket: &'a UdpSocket,
    server: SocketAddr,
    rate: u64,
    calls: HashMap<u64, Call>,
    /// When to look after a call: to say BYE, or to give it up. In order of time each.
    byes: VecDeque<(Instant, u64)>,
    lapses: VecDeque<(Instant, u64)>,
    begun: u64,
    done: u64,
    failed: u64,
    answered: Vec<Duration>,
}

impl<'a> Caller<'a> {
    fn new(socket: &'a UdpSocket, sip: u16, rate: u64) -> Self {
        let server = (Ipv4Addr::LOCALHOST, sip).into();
        let (calls, byes, lapses) = (HashMap::new(), VecDeque::new(), VecDeque::new());
        Self { socket, server, rate, calls, byes, lapses, begun: 0, done: 0, failed: 0, answered: Vec::new() }
    }

    /// Calls for so long; calls that ended, those of them that failed, and how long each waited for its answer.
    fn run(mut self, time: Duration, repeated: &AtomicU64) -> (u64, u64, Vec<Duration>) {
        let begin = clock::now();
        let mut buffer = [0; 4_096];
        loop {
            let now = clock::now();
            let since = now - begin;
            if since >= time && self.calls.is_empty() {
                return (self.done, self.failed, self.answered);
            }
            while since < time && self.begun < (since.as_secs_f64() * self.rate as f64) as u64 {
                self.invite(now);
            }
            self.hang_up(now);
            if let Ok((len, _)) = self.socket.recv_from(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
                self.take(&text, clock::now(), repeated);
            }
        }
    }

    fn request(&self, method: &str, number: u64, to: &str) -> String {
        let port = self.socket.local_addr().expect("bound").port();
        phone::request(method, &format!("sip:2001@{}", self.server), port, number, to)
    }

    fn send(&self, text: &str) {
        let _ = self.socket.send_to(text.as_bytes(), self.server);
    }

    fn invite(&mut self, now: Instant) {
        let number = self.begun;
        self.begun += 1;
        self.send(&phone::with_sdp(&self.request("INVITE", number, "<sip:2001@127.0.0.1>"), phone::DISCARD));
        self.lapses.push_back((now + PATIENCE + TALK, number));
        self.calls.insert(number, Call { began: now, answered: None });
    }

    fn hang_up(&mut self, now: Instant) {
        while let Some(number) = due(&mut self.byes, now) {
            if let Some(to) = self.calls.get(&number).and_then(|call| call.answered.clone()) {
                self.send(&phone::bare(&self.request("BYE", number, &to)));
            }
        }
        let mut gone = 0;
        while let Some(number) = due(&mut self.lapses, now) {
            gone += u64::from(self.calls.remove(&number).is_some());
        }
        (self.failed, self.done) = (self.failed + gone, self.done + gone);
    }

    fn take(&mut self, text: &str, now: Instant, repeated: &AtomicU64) {
        if !text.starts_with("SIP/2.0 ") || text.starts_with("SIP/2.0 1") {
            return;
        }
        let Some(number) = phone::number(text) else { return };
        let Some(call) = self.calls.get_mut(&number) else { return };
        let ok = text.starts_with("SIP/2.0 200");
        if !ok || phone::header(text, "CSeq").is_some_and(|value| value.ends_with("BYE")) {
            self.failed += u64::from(!ok);
            self.done += 1;
            self.calls.remove(&number);
            return;
        }
        let to = phone::header(text, "To").unwrap_or_default().to_owned();
        if call.answered.is_some() {
            repeated.fetch_add(1, Relaxed);
        } else {
            self.answered.push(now - call.began);
            call.answered = Some(to.clone());
            self.byes.push_back((now + TALK, number));
        }
        self.send(&phone::bare(&self.request("ACK", number, &to)));
    }
}

/// The program under measurement, with its own folder.
struct Server {
    _folder: tempfile::TempDir,
    process: Child,
    sip: u16,
}

impl Server {
    /// The reference.
    fn bare(callee: u16) -> Self {
        let own = std::env::current_exe().expect("our own path");
        let mut command = pinning::pinned(&own.to_string_lossy(), 0);
        let callee = SocketAddr::from((Ipv4Addr::LOCALHOST, callee)).to_string();
        let mut process = command.args([BARE, &callee]).stdout(Stdio::piped()).spawn().expect("we can be started");
        let mut port = String::new();
        let output = process.stdout.as_mut().expect("piped");
        BufReader::new(output).read_line(&mut port).expect("a line");
        let folder = tempfile::tempdir().expect("a folder");
        Self { _folder: folder, process, sip: port.trim().parse().expect("a port") }
    }

    fn start(case: Case, callee: u16) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // Asked for and given back: the configuration names its ports.
        let free =
            || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr()).expect("a port").port();
        let (sip, api) = (free(), free());
        let recording = if case == Case::Recorded { "origination" } else { "none" };
        let config = format!(
            "[sip]\nlisten = [\"udp:127.0.0.1:{sip}\"]\ndrain-timeout = \"1s\"\n\
             [media]\nworkers = 1\nports = \"10000-32767\"\nport-cooldown = \"2s\"\n\
             [recording]\nmin-free-space = \"1MiB\"\ndefault = \"{recording}\"\n[api]\nlisten = \"127.0.0.1:{api}\"\n\
             [[trunk]]\nname = \"callers\"\nfrom = [\"127.0.0.1\"]\n\
             [[dn]]\nnumber = \"2001\"\ncontact = \"sip:2001@127.0.0.1:{callee}\"\n"
        );
        std::fs::write(folder.path().join("stickytape.toml"), config).expect("the folder can be written");
        let mut command = pinning::pinned(env!("CARGO_BIN_EXE_stickytape"), 0);
        let command = command.arg("serve").current_dir(folder.path()).env("RUST_LOG", "warn");
        let process =
            command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().expect("the server can be started");
        let server = Self { _folder: folder, process, sip };
        let deadline = clock::now() + Duration::from_secs(20);
        while !is_ready(api) {
            assert!(clock::now() < deadline, "the server does not get ready");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM lets it end what it writes.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

fn is_ready(api: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, api)) else { return false };
    let mut text = String::new();
    let asked = stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    asked.and_then(|()| stream.read_to_string(&mut text)).is_ok() && text.starts_with("HTTP/1.1 200")
}
