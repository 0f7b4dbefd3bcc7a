//! Calls from a baresip through the real server, to another baresip and to SIPp: each party's own tone is in its channel
//! of the recording and in no other.

mod peers;

use std::fs::{self, File};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use peers::{Options, Server, Setup, Sipp, V4, free_ports};

/// Debian, Ubuntu and Fedora put them here.
const MODULES: &[&str] = &["/usr/lib/baresip/modules", "/usr/lib64/baresip/modules", "/usr/local/lib/baresip/modules"];

const SECONDS: usize = 3;

/// A baresip that speaks one tone for three seconds after the answer and then hangs up.
struct Baresip {
    child: Child,
    output: PathBuf,
}

impl Baresip {
    /// Answers calls to `user`; with `dial` it places one.
    fn start(folder: &Path, user: &str, port: u16, frequency: u32, dial: Option<&str>) -> Self {
        Self::start_as(folder, user, port, frequency, &format!("<sip:{user}@{V4}:{port}>;regint=0"), dial)
    }

    /// Registers with this password at a server and answers calls.
    fn registered(folder: &Path, user: &str, port: u16, frequency: u32, server: u16, password: &str) -> Self {
        let account = format!("<sip:{user}@{V4}:{server}>;auth_user={user};auth_pass={password};regint=60");
        Self::start_as(folder, user, port, frequency, &account, None)
    }

    fn start_as(folder: &Path, user: &str, port: u16, frequency: u32, account: &str, dial: Option<&str>) -> Self {
        let home = folder.join(format!("baresip-{user}"));
        fs::create_dir(&home).unwrap();
        let modules = MODULES.iter().find(|path| Path::new(path).exists()).expect("baresip is installed (./test.sh)");
        let media = free_ports(20);
        let tone = home.join("tone.wav");
        write_tone(&tone, frequency);
        let config = format!(
            "sip_listen {V4}:{port}\nnet_interface {V4}\nrtp_ports {media}-{}\nmodule_path {modules}\n\
             module g711.so\nmodule aufile.so\nmodule aubridge.so\nmodule_tmp account.so\nmodule_app menu.so\n\
             audio_source aufile,{}\naudio_player aubridge,heard\naudio_alert aubridge,alert\n",
            media + 19,
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
        let this = Self { child, output };
        // It tells nothing before its end, for its output goes to a file: its port tells.
        peers::wait_for("baresip is ready", Duration::from_secs(10), || {
            UdpSocket::bind((V4, port)).is_err().then_some(())
        });
        this
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap_or_default()).into_owned()
    }
}

impl Drop for Baresip {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A sine of half the range, 8,000 Hz mono.
fn write_tone(path: &Path, frequency: u32) {
    let samples = (0..SECONDS * 8_000).map(|n| {
        let phase = n as f64 * f64::from(frequency) / 8_000.0 * std::f64::consts::TAU;
        (phase.sin() * 16_000.0) as i16
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

/// Seconds of sound in a channel and its pitch in Hz, by sign changes.
fn heard(wav: &Path, channel: usize) -> (f64, f64) {
    let bytes = fs::read(wav).unwrap();
    let samples = bytes[44..].chunks_exact(4);
    let samples: Vec<i16> =
        samples.map(|frame| i16::from_le_bytes([frame[2 * channel], frame[2 * channel + 1]])).collect();
    let (mut sounding, mut changes) = (0, 0);
    for frame in samples.chunks(160) {
        if frame.iter().any(|sample| sample.unsigned_abs() > 8_000) {
            sounding += frame.len();
            changes += frame.windows(2).filter(|pair| (pair[0] < 0) != (pair[1] < 0)).count();
        }
    }
    let seconds = sounding as f64 / 8_000.0;
    (seconds, changes as f64 / 2.0 / seconds.max(0.02))
}

#[track_caller]
fn speaks(wav: &Path, channel: usize, frequency: f64) {
    let (seconds, pitch) = heard(wav, channel);
    assert!(seconds > SECONDS as f64 * 0.8, "channel {channel} sounds for {seconds} s only");
    assert!((pitch - frequency).abs() < 12.0, "channel {channel} sounds at {pitch} Hz, not {frequency}");
}

fn server(phone: u16) -> Server {
    Server::start(&Setup {
        recording: "layout = \"stereo\"".into(),
        plan: format!(
            "[[trunk]]\nname = \"callers\"\nfrom = [\"127.0.0.1\"]\n[[dn]]\nnumber = \"2001\"\ncontact = \"sip:2001@{V4}:{phone}\"\n"
        ),
        ..Setup::default()
    })
}

/// The one recording of the call, verified.
fn recording(server: &mut Server, caller: &Baresip) -> PathBuf {
    peers::wait_for(&format!("the recording; baresip:\n{}", caller.said()), Duration::from_secs(30), || {
        server.json("/v1/recordings")["recordings"][0]["stopTime"].is_string().then_some(())
    });
    let found = server.published(1);
    server.stop_and_verify();
    Path::new(found[0]["folder"].as_str().unwrap()).join("mixed.wav")
}

#[test]
fn two_baresip_are_recorded_each_in_its_channel() {
    // baresip takes the next port, too, for TLS.
    let (calling, called) = (free_ports(2), free_ports(2));
    let mut server = server(called);
    let folder = server.folder.path().to_owned();
    let _called = Baresip::start(&folder, "2001", called, 660, None);
    let uri = format!("sip:2001@{V4}:{}", server.sip);
    let caller = Baresip::start(&folder, "alice", calling, 440, Some(&uri));
    let wav = recording(&mut server, &caller);
    speaks(&wav, 0, 440.0);
    speaks(&wav, 1, 660.0);
}

#[test]
fn a_baresip_that_registers_is_called_where_it_is() {
    let (calling, called) = (free_ports(2), free_ports(2));
    let secrets = tempfile::tempdir().unwrap();
    let password = secrets.path().join("password");
    fs::write(&password, "s3cret\n").unwrap();
    let mut server = Server::start(&Setup {
        recording: "layout = \"stereo\"".into(),
        plan: format!(
            "[[trunk]]\nname = \"callers\"\nfrom = [\"127.0.0.1\"]\n\
             [[dn]]\nnumber = \"3001\"\nregistration = {{ password-file = {password:?} }}\n"
        ),
        ..Setup::default()
    });
    let folder = server.folder.path().to_owned();
    let registered = Baresip::registered(&folder, "3001", called, 660, server.sip, "s3cret");
    peers::wait_for(&format!("its registration; baresip:\n{}", registered.said()), Duration::from_secs(10), || {
        (server.metric("stickytape_registrations") == Some(1.0)).then_some(())
    });
    let uri = format!("sip:3001@{V4}:{}", server.sip);
    let caller = Baresip::start(&folder, "alice", calling, 440, Some(&uri));
    let wav = recording(&mut server, &caller);
    speaks(&wav, 0, 440.0);
    speaks(&wav, 1, 660.0);
}

#[test]
fn a_baresip_and_a_sipp_that_echoes_are_recorded() {
    let (calling, called) = (free_ports(2), free_ports(2));
    let mut server = server(called);
    let folder = server.folder.path().to_owned();
    let callee =
        Sipp::start(&folder, &Options { scenario: "uas_answer", port: called, echo: true, ..Options::default() });
    let uri = format!("sip:2001@{V4}:{}", server.sip);
    let caller = Baresip::start(&folder, "alice", calling, 440, Some(&uri));
    callee.succeed(&server);
    let wav = recording(&mut server, &caller);
    speaks(&wav, 0, 440.0);
    speaks(&wav, 1, 440.0);
}
