//! A real baresip: it speaks a tone, keeps what it hears, and does what its menu is told.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{V4, free_ports, wait_for};

/// Debian, Ubuntu and Fedora put them here.
const MODULES: &[&str] = &["/usr/lib/baresip/modules", "/usr/lib64/baresip/modules", "/usr/local/lib/baresip/modules"];

/// What one says unless it is told otherwise.
pub const SECONDS: usize = 3;

/// What one says.
struct Tone {
    frequency: u32,
    seconds: usize,
    amplitude: f64,
}

impl Tone {
    /// Half the range, −6.2 dBFS.
    fn loud(frequency: u32, seconds: usize) -> Self {
        Self { frequency, seconds, amplitude: 16_000.0 }
    }

    /// −15 dBFS: several of them together stay within the range.
    fn moderate(frequency: u32, seconds: usize) -> Self {
        Self { frequency, seconds, amplitude: 32_768.0 * 10f64.powf(-15.0 / 20.0) }
    }
}

/// A baresip that speaks one tone for some seconds after the answer and then hangs up.
pub struct Baresip {
    child: Child,
    /// Where it takes commands.
    control: u16,
    home: PathBuf,
    output: PathBuf,
}

impl Baresip {
    /// Answers calls to `user`; with `dial` it places one.
    pub fn start(folder: &Path, user: &str, port: u16, frequency: u32, dial: Option<&str>) -> Self {
        Self::lasting(SECONDS, folder, user, port, frequency, dial)
    }

    /// As [`Baresip::start`], with so many seconds to say.
    pub fn lasting(seconds: usize, folder: &Path, user: &str, port: u16, frequency: u32, dial: Option<&str>) -> Self {
        let account = format!("<sip:{user}@{V4}:{port}>;regint=0");
        Self::start_as(folder, user, port, &Tone::loud(frequency, seconds), &account, dial)
    }

    /// As [`Baresip::start`], one of several who talk at once, until it is told to hang up.
    pub fn among_others(folder: &Path, user: &str, port: u16, frequency: u32, dial: Option<&str>) -> Self {
        let account = format!("<sip:{user}@{V4}:{port}>;regint=0");
        Self::start_as(folder, user, port, &Tone::moderate(frequency, 30), &account, dial)
    }

    /// Registers with this password at a server and answers calls.
    pub fn registered(folder: &Path, user: &str, port: u16, frequency: u32, server: u16, password: &str) -> Self {
        let account = format!("<sip:{user}@{V4}:{server}>;auth_user={user};auth_pass={password};regint=60");
        Self::start_as(folder, user, port, &Tone::loud(frequency, SECONDS), &account, None)
    }

    fn start_as(folder: &Path, user: &str, port: u16, says: &Tone, account: &str, dial: Option<&str>) -> Self {
        let home = folder.join(format!("baresip-{user}"));
        fs::create_dir(&home).unwrap();
        let modules = MODULES.iter().find(|path| Path::new(path).exists()).expect("baresip is installed (./test.sh)");
        let (media, control) = (free_ports(20), free_ports(1));
        let tone = home.join("tone.wav");
        write_tone(&tone, says);
        let config = format!(
            "sip_listen {V4}:{port}\nnet_interface {V4}\nrtp_ports {media}-{}\nmodule_path {modules}\n\
             module g711.so\nmodule aufile.so\nmodule aubridge.so\n\
             module sndfile.so\nsnd_path {}\nmodule_tmp account.so\nmodule_app menu.so\n\
             module_app ctrl_tcp.so\nctrl_tcp_listen {V4}:{control}\n\
             audio_source aufile,{}\naudio_player aubridge,heard\naudio_alert aubridge,alert\n",
            media + 19,
            home.display(),
            tone.display()
        );
        fs::write(home.join("config"), config).unwrap();
        let account = format!("{account};answermode=auto;audio_codecs=pcmu\n");
        fs::write(home.join("accounts"), account).unwrap();
        fs::write(home.join("contacts"), "").unwrap();
        let output = folder.join(format!("baresip-{user}.out"));
        let log = File::create(&output).unwrap();
        let mut command = Command::new("baresip");
        command.arg("-f").arg(&home).args(["-t", "30"]);
        if let Some(uri) = dial {
            command.args(["-e", &format!("/dial {uri}")]);
        }
        let child = command
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("baresip is installed (./test.sh)");
        let this = Self { child, control, home, output };
        // It tells nothing before its end, for its output goes to a file: its port tells.
        wait_for("baresip is ready", Duration::from_secs(10), || UdpSocket::bind((V4, port)).is_err().then_some(()));
        this
    }

    /// Has it do something, as its menu would: `transfer` with a URI. Commands are JSON in netstrings.
    pub fn command(&self, command: &str, params: &str) {
        let text = format!("{{\"command\":\"{command}\",\"params\":\"{params}\"}}");
        let mut control = TcpStream::connect((V4, self.control)).unwrap();
        write!(control, "{}:{text},", text.len()).unwrap();
        // It answers when it has obeyed; what happens meanwhile may be told before.
        control.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut told = String::new();
        while !told.contains("\"response\":true") {
            let mut bytes = [0; 1_024];
            let length = control.read(&mut bytes).unwrap_or(0);
            assert!(length > 0, "no answer to {command}: {told}");
            told += &String::from_utf8_lossy(&bytes[..length]);
        }
        assert!(told.contains("\"ok\":true"), "{told}");
    }

    /// What it has heard in its one call: every sample that it decoded, 8,000 Hz, from the first packet on. Complete when
    /// the call is over.
    pub fn heard(&self) -> Vec<i16> {
        let files = fs::read_dir(&self.home).unwrap().map(|entry| entry.unwrap().path());
        let decoded: Vec<_> = files.filter(|path| path.to_string_lossy().ends_with("-dec.wav")).collect();
        assert_eq!(decoded.len(), 1, "one call, one stream that it decodes: {decoded:?}\n{}", self.said());
        let bytes = fs::read(&decoded[0]).unwrap();
        let at = bytes.windows(4).position(|tag| tag == b"data").expect("a WAV file has a chunk with samples") + 8;
        bytes[at..].chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
    }

    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap_or_default()).into_owned()
    }
}

impl Drop for Baresip {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// 8,000 Hz mono.
fn write_tone(path: &Path, tone: &Tone) {
    let samples = (0..tone.seconds * 8_000).map(|n| {
        let phase = n as f64 * f64::from(tone.frequency) / 8_000.0 * std::f64::consts::TAU;
        (phase.sin() * tone.amplitude) as i16
    });
    let data: Vec<u8> = samples.flat_map(i16::to_le_bytes).collect();
    let mut file = Vec::from(*b"RIFF");
    file.extend((36 + data.len() as u32).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend(8_000u32.to_le_bytes());
    file.extend(16_000u32.to_le_bytes());
    file.extend(b"\x02\0\x10\0data");
    file.extend((data.len() as u32).to_le_bytes());
    file.extend(data);
    fs::write(path, file).unwrap();
}
