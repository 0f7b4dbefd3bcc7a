//! A real `stickytape serve` on free loopback ports, real SIPp around it, and what they leave on the disk.

#![allow(dead_code, reason = "each test program uses its part")]

pub mod baresip;
pub mod networks;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use stickytape::clock;
use stickytape::disk::{RealDisk, wav};
use stickytape::testing::tones;

pub const V4: &str = "127.0.0.1";
pub const V6: &str = "[::1]";

/// Ports handed out already: two tests of one program must not get the same.
static TAKEN: Mutex<Vec<Range<u16>>> = Mutex::new(Vec::new());

/// Above the streams of SIPp, below Linux's ephemeral range.
const PORTS: Range<u16> = 19_000..32_000;

/// `count` ports in a row, the first one even, free for UDP and TCP on both loopbacks.
pub fn free_ports(count: u16) -> u16 {
    let mut taken = TAKEN.lock().unwrap();
    let is_free = |port: u16| {
        [V4, V6].iter().all(|host| {
            UdpSocket::bind(format!("{host}:{port}")).is_ok() && TcpListener::bind(format!("{host}:{port}")).is_ok()
        })
    };
    // Programs that run at the same time begin elsewhere.
    let mut first = PORTS.start + (std::process::id() % 80) as u16 * 100;
    let mut wrapped = false;
    loop {
        if first + count > PORTS.end {
            assert!(!wrapped, "no {count} free ports in a row");
            (first, wrapped) = (PORTS.start, true);
        }
        let row = first..first + count;
        let behind = match taken.iter().find(|other| other.start < row.end && row.start < other.end) {
            Some(other) => other.end,
            None => match row.clone().find(|port| !is_free(*port)) {
                Some(busy) => busy + 1,
                None => {
                    taken.push(row);
                    return first;
                }
            },
        };
        first = behind.next_multiple_of(2);
    }
}

/// Polls until `done` answers something.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut done: impl FnMut() -> Option<T>) -> T {
    let end = clock::now() + limit;
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(clock::now() < end, "{what}: not within {limit:?}");
        sleep(Duration::from_millis(20));
    }
}

/// A running server with a folder of its own.
pub struct Server {
    pub folder: tempfile::TempDir,
    pub sip: u16,
    pub api: u16,
    child: Option<Child>,
}

/// What a test adds to the basic configuration.
#[derive(Default)]
pub struct Setup {
    /// Hosts that it listens on; 127.0.0.1 when empty.
    pub hosts: Vec<&'static str>,
    /// Lines of `[sip]`.
    pub sip: String,
    /// Lines of `[recording]`.
    pub recording: String,
    /// Trunks, DNs, routes.
    pub plan: String,
    /// Arguments of `serve` after the configuration.
    pub arguments: Vec<String>,
    /// Media ports; 100 when 0.
    pub media_ports: u16,
    /// `drain-timeout`; a second when empty.
    pub drain: &'static str,
    /// What RUST_LOG says; the usual when empty.
    pub log: &'static str,
}

impl Server {
    pub fn start(setup: &Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (sip, api) = (free_ports(1), free_ports(1));
        let ports = setup.media_ports.max(100);
        let media = free_ports(ports);
        let hosts = if setup.hosts.is_empty() { &[V4][..] } else { &setup.hosts };
        let mut listen = String::new();
        for host in hosts {
            let _ = write!(listen, "\"udp:{host}:{sip}\", \"tcp:{host}:{sip}\", ");
        }
        let drain = if setup.drain.is_empty() { "1s" } else { setup.drain };
        let text = format!(
            "[sip]\nlisten = [{listen}]\ndrain-timeout = \"{drain}\"\n{}\n\
             [media]\nports = \"{media}-{}\"\npriority = \"normal\"\nport-cooldown = \"0s\"\n\
             [recording]\nmin-free-space = \"1MiB\"\n{}\n\
             [api]\nlisten = \"{V4}:{api}\"\n{}\n",
            setup.sip,
            media + ports - 1,
            setup.recording,
            setup.plan
        );
        Self::start_as(folder, &text, sip, api, &setup.arguments, if setup.log.is_empty() { "info" } else { setup.log })
    }

    /// One with this configuration, which says where SIP and the API are.
    pub fn start_as(
        folder: tempfile::TempDir,
        config: &str,
        sip: u16,
        api: u16,
        arguments: &[String],
        level: &str,
    ) -> Self {
        fs::write(folder.path().join("stickytape.toml"), config).unwrap();
        let log = File::create(folder.path().join("server.log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_stickytape"))
            .arg("serve")
            .args(arguments)
            .current_dir(folder.path())
            .env("RUST_LOG", level)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { folder, sip, api, child: Some(child) }.ready()
    }

    /// Once it answers that it is.
    fn ready(mut self) -> Self {
        let deadline = clock::now() + Duration::from_secs(20);
        while !matches!(self.get("/readyz"), Some((200, _))) {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && clock::now() < deadline, "it does not get ready:\n{}", self.log());
            sleep(Duration::from_millis(20));
        }
        self
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default()
    }

    /// Status and body of a GET; `None` when nobody answers.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect((V4, self.api)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {V4}\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    pub fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path).expect("the listener answers");
        assert_eq!(status, 200, "{body}");
        // Bodies here are short; a chunked one would not parse and fail the test.
        serde_json::from_str(&body).unwrap()
    }

    /// A POST of a JSON body that must be answered with 202; the answer.
    #[track_caller]
    pub fn ask(&self, path: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect((V4, self.api)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let body = body.to_string();
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: {V4}\r\nConnection: close\r\nContent-Type: application/json");
        write!(stream, "{head}\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 202 "), "{path} {body}:\n{text}");
        let (_, answer) = text.split_once("\r\n\r\n").expect("an answer has a head and a body");
        serde_json::from_str(answer).unwrap()
    }

    /// The value of one metric with its labels, `stickytape_calls`.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let (_, page) = self.get("/metrics")?;
        page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    pub fn directory(&self) -> PathBuf {
        self.folder.path().join("recordings")
    }

    /// The metadata of every published recording once there are `count`, oldest first.
    #[track_caller]
    pub fn published(&self, count: usize) -> Vec<Value> {
        // One after the other, hashed and synced; a program without optimisation on a busy machine does ten in a second.
        let limit = Duration::from_secs(30 + count as u64 / 10);
        let what = format!("{count} published recordings, log:\n{}", self.log());
        wait_for(&what, limit, || {
            let found = metadata(&self.directory());
            (found.len() >= count).then_some(found)
        })
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// SIGKILL; returns when it is dead.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; it must end with exit code 0.
    #[track_caller]
    pub fn stop(&mut self) {
        self.signal(rustix::process::Signal::TERM);
        let mut child = self.child.take().expect("the server runs");
        let limit = Duration::from_secs(20);
        let status = wait_for("the end of the server", limit, || child.try_wait().unwrap());
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }

    /// The program on the folder of this server.
    pub fn stickytape(&self, arguments: &[&str]) -> std::process::Output {
        Command::new(env!("CARGO_BIN_EXE_stickytape")).args(arguments).current_dir(self.folder.path()).output().unwrap()
    }

    /// Stops the server and has every recording verified.
    #[track_caller]
    pub fn stop_and_verify(&mut self) {
        self.stop();
        let output = self.stickytape(&["recordings", "verify"]);
        let said = [output.stdout, output.stderr].concat();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&said));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Every published `recording.json` below `directory`, oldest first.
fn metadata(directory: &Path) -> Vec<Value> {
    let mut found = Vec::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.ends_with("recording.json")
                && let Ok(text) = fs::read_to_string(&path)
            {
                let mut value: Value = serde_json::from_str(&text).unwrap();
                value["folder"] = path.parent().unwrap().to_str().unwrap().into();
                found.push(value);
            }
        }
    }
    found.sort_by_key(|value| value["startTime"].as_str().unwrap_or_default().to_owned());
    found
}

/// One SIPp.
pub struct Sipp {
    child: Option<Child>,
    scenario: String,
    folder: PathBuf,
    output: PathBuf,
}

/// How a SIPp runs.
pub struct Options {
    pub scenario: &'static str,
    /// Where the other side is; `None`: it waits for calls.
    pub target: Option<SocketAddr>,
    /// It waits for calls although it has a target.
    pub waits: bool,
    /// Further arguments.
    pub more: Vec<String>,
    /// Its own host.
    pub host: &'static str,
    /// Its own port; 0: a free one.
    pub port: u16,
    pub tcp: bool,
    /// The number that it calls.
    pub number: &'static str,
    pub calls: u32,
    /// Calls at once.
    pub limit: u32,
    /// Calls begun in a second.
    pub rate: u32,
    pub talk: Duration,
    /// It sends RTP back as it came.
    pub echo: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            scenario: "",
            target: None,
            waits: false,
            more: Vec::new(),
            host: V4,
            port: 0,
            tcp: false,
            number: "2001",
            calls: 1,
            limit: 1,
            rate: 1,
            talk: Duration::from_millis(600),
            echo: false,
        }
    }
}

impl Sipp {
    /// Starts one whose files are in `folder`.
    pub fn start(folder: &Path, options: &Options) -> Self {
        let scenario = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/sipp/{}.xml", options.scenario));
        assert!(scenario.exists(), "{}", scenario.display());
        let port = if options.port == 0 { free_ports(1) } else { options.port };
        let output = folder.join(format!("{}-{port}.out", options.scenario));
        let log = File::create(&output).unwrap();
        let host = options.host.trim_matches(['[', ']']);
        // The echo takes two pairs; what `rtp_stream` sends takes ports from 16384 on by itself.
        let media = free_ports(4);
        let mut command = Command::new("sipp");
        command.arg("-sf").arg(&scenario).args(["-i", host, "-mi", host, "-nostdin", "-trace_err", "-timeout_error"]);
        let limit =
            Duration::from_secs(25) + options.talk + Duration::from_secs(u64::from(options.calls / options.rate));
        for (name, value) in [
            ("-p", u64::from(port)),
            ("-mp", u64::from(media)),
            ("-m", u64::from(options.calls)),
            ("-l", u64::from(options.limit)),
            ("-r", u64::from(options.rate)),
            ("-d", options.talk.as_millis() as u64),
            ("-timeout", limit.as_secs()),
            ("-max_socket", 4_096),
        ] {
            command.arg(name).arg(value.to_string());
        }
        command.args(["-s", options.number, "-t", if options.tcp { "t1" } else { "u1" }]);
        if options.echo {
            command.arg("-rtp_echo");
        }
        command.args(&options.more);
        if let Some(target) = options.target {
            command.arg(target.to_string());
        }
        let child = command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("SIPp is installed (./test.sh)");
        let sipp = Self { child: Some(child), scenario: options.scenario.into(), folder: folder.to_owned(), output };
        if options.target.is_none() || options.waits {
            sipp.wait_until_bound(SocketAddr::new(host.parse().unwrap(), port), options.tcp);
        }
        sipp
    }

    /// Returns once its port is taken.
    fn wait_until_bound(&self, address: SocketAddr, tcp: bool) {
        let free = || if tcp { TcpListener::bind(address).is_ok() } else { UdpSocket::bind(address).is_ok() };
        wait_for("SIPp listens", Duration::from_secs(10), || (!free()).then_some(()));
    }

    /// What it says of itself, for a failure.
    pub fn said(&self) -> String {
        let mut said = String::new();
        for entry in fs::read_dir(&self.folder).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&self.scenario) && name.ends_with("_errors.log") {
                said += &fs::read_to_string(entry.path()).unwrap_or_default();
            }
        }
        let screen = fs::read(&self.output).unwrap_or_default();
        let screen = String::from_utf8_lossy(&screen);
        let lines: Vec<_> = screen.lines().collect();
        said + "\n" + &lines[lines.len().saturating_sub(45)..].join("\n")
    }

    fn wait(&mut self) -> ExitStatus {
        self.child.take().expect("it was not waited for").wait().unwrap()
    }

    /// Waits for its end: every call must have gone as its scenario says.
    #[track_caller]
    pub fn succeed(mut self, server: &Server) {
        let status = self.wait();
        assert!(status.success(), "{}: {status}\n{}\nserver:\n{}", self.scenario, self.said(), server.log());
    }

    /// As [`Sipp::succeed`], after the server's end.
    #[track_caller]
    pub fn succeed_silently(mut self) {
        let status = self.wait();
        assert!(status.success(), "{}: {status}\n{}", self.scenario, self.said());
    }
}

impl Drop for Sipp {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `host:port` as a socket address.
pub fn at(host: &str, port: u16) -> SocketAddr {
    let ip: IpAddr = host.trim_matches(['[', ']']).parse().unwrap();
    SocketAddr::new(ip, port)
}

/// Seconds since `start`, for reports.
pub fn since(start: Instant) -> f64 {
    clock::now().duration_since(start).as_secs_f64()
}

/// What the three parties of a transfer say in Hz, in the files of fixtures/sipp at −15 dBFS.
pub const TONES: [f64; 3] = [320.0, 500.0, 800.0];
const PRESENT: f64 = -20.0;
/// A click where SIPp is late is no other party's tone.
const ABSENT: f64 = -40.0;

/// The segments, each with who is heard in it (`"13"`: D1 and D3, and not D2) and about how long it is in ms: by the
/// metadata, and by the tones on both channels. D1 is left, the others are right.
#[track_caller]
pub fn heard(recording: &Value, expected: &[(&str, Range<u64>)]) {
    let segments = recording["segments"].as_array().unwrap();
    assert_eq!(segments.len(), expected.len(), "{segments:#?}");
    let folder = Path::new(recording["folder"].as_str().unwrap());
    let (spec, samples) = wav::read(&RealDisk, &folder.join("mixed.wav")).unwrap();
    assert_eq!((spec.channels, spec.sample_rate), (2, 8_000));
    for (segment, (speakers, length)) in segments.iter().zip(expected) {
        let (from, to) = (segment["startSample"].as_u64().unwrap(), segment["endSample"].as_u64().unwrap());
        let ms = (to - from) / 8;
        assert!(length.contains(&ms), "{ms} ms is not in {length:?}: {segments:#?}");
        assert_eq!(segment["speakers"].as_array().unwrap().len(), speakers.len(), "{segment:#}");
        // What is on its way at a change of segments takes a moment; streams of SIPp begin after the ACK.
        let inside = from as usize + 1_600..(to as usize).saturating_sub(800);
        for (channel, name) in ["left", "right"].into_iter().enumerate() {
            let said: Vec<i16> =
                samples[2 * inside.start..2 * inside.end].iter().skip(channel).step_by(2).copied().collect();
            for window in tones::scan(&said, 8_000, &TONES, Duration::from_millis(100)) {
                for (party, level) in ["1", "2", "3"].into_iter().zip(&window.levels) {
                    let due = speakers.contains(party) && (party == "1") == (channel == 0);
                    let right = if due { *level >= PRESENT } else { *level <= ABSENT };
                    let place = (inside.start + window.start) / 8;
                    assert!(right, "D{party} at {level:.1} dBFS, {name}, {place} ms; due: {due}\n{segments:#?}");
                }
            }
        }
    }
}
