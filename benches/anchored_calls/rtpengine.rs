//! rtpengine as the subject: a process of its own, told what to forward over its ng protocol (a cookie and a bencoded
//! dictionary in a datagram, answered by another). It runs without its kernel module (`--table=-1`), with one thread on
//! the one core that every subject has, and with the same real-time priority as ours.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::steps::pinning;

/// An answer takes a millisecond; a process that starts takes longer.
const PATIENCE: Duration = Duration::from_millis(500);
const ATTEMPTS: usize = 40;

pub struct Rtpengine {
    process: Child,
    control: UdpSocket,
    /// It writes here: log, and packets if so asked.
    folder: tempfile::TempDir,
    records: bool,
    asked: u64,
}

impl Rtpengine {
    /// Starts it and waits until it answers.
    pub fn start(records: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = free.local_addr().expect("bound").port();
        drop(free);
        let mut command = pinning::pinned("rtpengine", 0);
        command.args(["--config-file=none", "--table=-1", "--interface=127.0.0.1", "--foreground", "--log-stderr"]);
        command.args(["--log-level=3", "--num-threads=1", "--scheduling=rr", "--priority=1"]);
        command.args(["--port-min=10000", "--port-max=32767", &format!("--listen-ng=127.0.0.1:{port}")]);
        if records {
            command.arg("--recording-method=pcap").arg(format!("--recording-dir={}", folder.path().display()));
        }
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        // Its folder is the current one, so that whatever it leaves goes with it.
        command.current_dir(folder.path()).stdout(Stdio::null()).stderr(log);
        let process = command.spawn().expect("rtpengine can be started");
        let control = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        control.connect((Ipv4Addr::LOCALHOST, port)).expect("loopback");
        control.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut this = Self { process, control, folder, records, asked: 0 };
        let answer = this.ask(&[("command", "ping")]);
        assert!(answer.contains("4:pong"), "{answer}");
        this
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Has it anchor calls between the phones 2n and 2n + 1; the port that each of them sends to.
    pub fn anchor(&mut self, phones: &[u16]) -> Vec<u16> {
        let mut anchors = Vec::with_capacity(phones.len());
        for (n, pair) in phones.chunks_exact(2).enumerate() {
            let call = format!("bench-{n}");
            let mut question = vec![("call-id", &call[..]), ("from-tag", "a")];
            if self.records {
                question.push(("record call", "yes"));
            }
            let [caller, callee] = [sdp(pair[0]), sdp(pair[1])];
            // What it answers to the caller's offer goes to the callee, and back.
            let offer = [&question[..], &[("command", "offer"), ("sdp", &caller)]].concat();
            let for_callee = self.port(&offer);
            let answer = [&question[..], &[("command", "answer"), ("to-tag", "b"), ("sdp", &callee)]].concat();
            anchors.extend([self.port(&answer), for_callee]);
        }
        anchors
    }

    /// The port in the description that it answers.
    fn port(&mut self, question: &[(&str, &str)]) -> u16 {
        let answer = self.ask(question);
        let port = answer.split_once("m=audio ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        port.filter(|_| answer.contains("6:result2:ok")).unwrap_or_else(|| panic!("{question:?} was answered {answer}"))
    }

    fn ask(&mut self, question: &[(&str, &str)]) -> String {
        self.asked += 1;
        let cookie = format!("{} ", self.asked);
        let datagram = format!("{cookie}{}", bencoded(question));
        let mut buffer = [0; 4_096];
        for _ in 0..ATTEMPTS {
            // Refused until it listens; the same cookie again is the same question.
            if self.control.send(datagram.as_bytes()).is_err() {
                std::thread::sleep(PATIENCE / 10);
                continue;
            }
            let Ok(len) = self.control.recv(&mut buffer) else {
                std::thread::sleep(PATIENCE / 10);
                continue;
            };
            let answer = String::from_utf8_lossy(&buffer[..len]);
            if let Some(answer) = answer.strip_prefix(&cookie) {
                return answer.to_owned();
            }
        }
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        panic!("rtpengine does not answer {question:?}:\n{log}");
    }

    /// Ends it; what it wrote.
    pub fn stop(mut self) -> String {
        let pid = rustix::process::Pid::from_raw(self.process.id() as i32).expect("a process");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        self.process.wait().expect("it ends");
        let (files, bytes) = crate::files_below(self.folder.path(), "pcap");
        assert_eq!(files > 0, self.records, "it records when, and only when, it is asked to");
        format!("files {files} MB {}", bytes >> 20)
    }
}

fn sdp(port: u16) -> String {
    format!(
        "v=0\r\no=bench 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n\
         a=rtpmap:0 PCMU/8000\r\na=ptime:20\r\n"
    )
}

/// A dictionary of texts.
fn bencoded(entries: &[(&str, &str)]) -> String {
    let text = |text: &str| format!("{}:{text}", text.len());
    let inner: String = entries.iter().flat_map(|(key, value)| [text(key), text(value)]).collect();
    format!("d{inner}e")
}
