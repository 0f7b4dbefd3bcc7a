//! Asterisk or FreeSWITCH as the subject: a process of its own with the dial-plan of `deploy/peers`, its files in a
//! temporary folder, on the one core that every subject has and with real-time priority like ours. It has as many threads
//! as it wants. The calls are set up over SIP ([`Switchboard`]).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use stickytape::clock;

use crate::case::Case;
use crate::steps::pinning;
use crate::switchboard::Switchboard;

/// For a process that was told to end.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Asterisk,
    Freeswitch,
}

/// A file of `deploy/peers`: its name there and what it says.
macro_rules! files {
    ($folder:literal: $($name:literal),+) => {
        &[$(($name, include_str!(concat!("../../deploy/peers/", $folder, "/", $name)))),+]
    };
}

impl Kind {
    /// What a case measures, if it is one of these.
    pub fn of(case: Case) -> Option<Self> {
        match case {
            Case::Asterisk | Case::AsteriskRecorded => Some(Self::Asterisk),
            Case::Freeswitch | Case::FreeswitchRecorded => Some(Self::Freeswitch),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Asterisk => "asterisk",
            Self::Freeswitch => "freeswitch",
        }
    }

    /// Names the program where it is not on PATH.
    fn variable(self) -> &'static str {
        match self {
            Self::Asterisk => "STICKYTAPE_ASTERISK",
            Self::Freeswitch => "STICKYTAPE_FREESWITCH",
        }
    }

    /// Why it cannot be started, if so.
    pub fn obstacle(self) -> Option<String> {
        let Some(path) = std::env::var_os(self.variable()) else {
            let missing = || format!("{} is not installed (on PATH, or named by {})", self.name(), self.variable());
            return crate::case::on_path(self.name()).is_none().then(missing);
        };
        (!Path::new(&path).is_file()).then(|| format!("{} names no file: {}", self.variable(), path.display()))
    }

    fn program(self) -> PathBuf {
        let named = std::env::var_os(self.variable()).map(PathBuf::from);
        let program = named.or_else(|| crate::case::on_path(self.name())).expect("there is no obstacle");
        // It will run in another folder.
        std::path::absolute(program).expect("a path")
    }

    /// Its version in its own words.
    fn version(self) -> String {
        let argument = if self == Self::Asterisk { "-V" } else { "-version" };
        let output = Command::new(self.program()).arg(argument).output().expect("it tells its version");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The files of `deploy/peers`, which take calls on port 5060 and send them to port 5070.
    fn files(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Asterisk => files!("asterisk": "extensions.conf", "modules.conf", "pjsip.conf", "rtp.conf"),
            Self::Freeswitch => files!("freeswitch": "dialplan.xml", "freeswitch.xml", "sofia.xml"),
        }
    }

    /// All that it reads and writes but its modules lies in this folder; it stays in the foreground.
    fn arguments(self, folder: &Path) -> Vec<OsString> {
        match self {
            // It gives up the priority that it is started with, unless it is to take its own (`-p`).
            Self::Asterisk => vec!["-f".into(), "-p".into(), "-C".into(), folder.join(MAIN_FILE).into()],
            Self::Freeswitch => {
                let folders =
                    ["-conf", "-log", "-db", "-run", "-recordings", "-storage", "-cache", "-temp", "-scripts"];
                let each = folders.iter().flat_map(|name| [name.into(), folder.into()]);
                // The priority that it is started with, no console, no questions to a router.
                each.chain(["-np", "-nf", "-nc", "-nonat"].map(OsString::from)).collect()
            }
        }
    }
}

/// What Asterisk reads first: where the other files are.
const MAIN_FILE: &str = "asterisk.conf";

fn main_file(folder: &Path) -> String {
    let folders = ["etc", "varlib", "db", "key", "spool", "run", "log"];
    let lines = folders.map(|name| format!("ast{name}dir => {}\n", folder.display()));
    format!("[directories]\n{}", lines.concat())
}

pub struct Exchange {
    kind: Kind,
    process: Child,
    switchboard: Switchboard,
    /// Its configuration, log and recordings.
    folder: tempfile::TempDir,
    records: bool,
    calls: usize,
}

impl Exchange {
    /// Starts it and waits until it answers.
    pub fn start(kind: Kind, records: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // The dial-plans record every number but those that begin with 0.
        let switchboard = Switchboard::new(if records { '2' } else { '0' });
        let (calls, callee) = (switchboard.peer_port().to_string(), switchboard.port().to_string());
        for (name, text) in kind.files() {
            // One after the other would take a part of the first port for the second.
            let text = text.split("5060").map(|part| part.replace("5070", &callee)).collect::<Vec<_>>().join(&calls);
            std::fs::write(folder.path().join(name), text).expect("the folder can be written");
        }
        std::fs::write(folder.path().join(MAIN_FILE), main_file(folder.path())).expect("the folder can be written");
        let program = kind.program();
        let mut command = pinning::pinned(program.to_str().expect("a path in UTF-8"), 0);
        let log = std::fs::File::create(folder.path().join("bench.log")).expect("a log");
        command.args(kind.arguments(folder.path())).current_dir(folder.path()).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        // A process has the priority of the thread that starts it.
        let starter = std::thread::spawn(move || {
            crate::ask_for_realtime();
            command.spawn().expect("the peer can be started")
        });
        let process = starter.join().expect("the peer can be started");
        let mut this = Self { kind, process, switchboard, folder, records, calls: 0 };
        assert!(this.switchboard.wait_until_ready(), "{} does not answer:\n{}", kind.name(), this.log());
        this
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Has it anchor calls between the phones 2n and 2n + 1; the port that each of them sends to.
    pub fn anchor(&mut self, phones: &[u16]) -> Vec<u16> {
        self.calls = phones.len() / 2;
        self.switchboard.anchor(phones)
    }

    /// Ends it; which one it was, and what it wrote.
    pub fn stop(mut self) -> String {
        self.switchboard.hang_up();
        self.end();
        let (files, bytes) = crate::files_below(self.folder.path(), "wav");
        let wanted = if self.records { self.calls } else { 0 };
        assert_eq!(files, wanted, "it records when, and only when, it is asked to:\n{}", self.log());
        format!("{}; files {files} MB {}", self.kind.version(), bytes >> 20)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("bench.log")).unwrap_or_default()
    }

    /// Asks the process to end, and makes it where it does not.
    fn end(&mut self) {
        let ended = |process: &mut Child| process.try_wait().is_ok_and(|status| status.is_some());
        if ended(&mut self.process) {
            return;
        }
        let pid = Pid::from_raw(self.process.id() as i32).expect("a process");
        let _ = kill_process(pid, Signal::TERM);
        let deadline = clock::now() + PATIENCE;
        while !ended(&mut self.process) && clock::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.end();
    }
}
