//! `stickytape serve` is killed (SIGKILL) in the midst of live calls, again and again. Every file plays in readers that
//! are not ours, without repair, and ends no more than a second before the kill; the next start repairs every recording.

use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stickytape::clock;
use stickytape::record::metadata::Recording;
use stickytape::testing::driver::{self, Running, Sockets};
use stickytape::testing::phone::{Action, Happening, Options, Phone, Step};
use stickytape::testing::tones::Voice;

/// Kills, shared by the lanes.
const KILLS: u32 = 50;
/// Servers that live and die at the same time.
const LANES: u32 = 2;
/// Calls in each server.
const CALLS: u16 = 3;
/// The promise of spec/recording.md §7.
const LOST_AT_MOST_MS: i64 = 1_000;

/// The calls, the server and its folder.
struct World {
    folder: tempfile::TempDir,
    server: Child,
    phones: Vec<Running>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_leaves_files_that_play_and_end_within_a_second_of_the_kill() {
    let lanes: Vec<_> = (0..LANES).map(|lane| tokio::spawn(kill_again_and_again(lane))).collect();
    let mut recordings = 0;
    for lane in lanes {
        recordings += lane.await.unwrap();
    }
    assert!(recordings >= KILLS * u32::from(CALLS) / 2, "only {recordings} recordings were old enough to be judged");
}

/// Answers how many recordings were judged.
async fn kill_again_and_again(lane: u32) -> u32 {
    let mut rng = StdRng::seed_from_u64(u64::from(lane));
    let mut judged = 0;
    for _ in 0..KILLS / LANES {
        let mut world = begin(lane).await;
        // The calls are up: anything between their first sample and some seconds of them.
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..2_600))).await;
        let killed = clock::wall().as_millisecond();
        world.server.kill().unwrap();
        world.server.wait().unwrap();
        for phone in world.phones.drain(..) {
            phone.stop().await;
        }
        let folder = world.folder;
        judged += tokio::task::spawn_blocking(move || judge(folder.path(), killed)).await.unwrap();
    }
    judged
}

/// Starts a server and its calls; all of them are established.
async fn begin(lane: u32) -> World {
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    let folder = tempfile::tempdir().unwrap();
    let (mut callees, mut dns) = (Vec::new(), String::new());
    for number in 2_001..2_001 + CALLS {
        let sockets = Sockets::bind(loopback).await.unwrap();
        let address = sockets.sip_address().unwrap();
        dns += &format!("[[dn]]\nnumber = \"{number}\"\ncontact = \"sip:{number}@{address}\"\n");
        callees.push(sockets);
    }
    let (sip, http) = (free_udp_port(), free_tcp_port());
    // Lanes do not share media ports.
    let first = 20_000 + 400 * lane;
    let directory = folder.path().join("recordings");
    let config = format!(
        "[sip]\nlisten = [\"udp:127.0.0.1:{sip}\"]\nmax-calls = 8\n\
         [media]\nports = \"{first}-{}\"\nworkers = 1\npriority = \"normal\"\n\
         [recording]\ndirectory = {directory:?}\nlayout = \"stereo\"\nmin-free-space = \"1MiB\"\nbuffer = \"16MiB\"\n\
         [api]\nlisten = \"127.0.0.1:{http}\"\n\
         [[trunk]]\nname = \"carrier\"\naddress = \"sip:127.0.0.1:9\"\nfrom = [\"127.0.0.0/8\"]\n{dns}",
        first + 399
    );
    std::fs::write(folder.path().join("config.toml"), config).unwrap();
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let mut server = stickytape(folder.path(), &["serve"]);
    let server = server.stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let is_ready = || ureq::get(format!("http://127.0.0.1:{http}/readyz")).call().is_ok();
    wait_until("the server is ready", is_ready).await;

    let proxy = (loopback, sip).into();
    let mut phones = Vec::new();
    for (number, sockets) in (2_001..).zip(callees) {
        let called = options(&sockets, &number.to_string(), proxy);
        phones.push(driver::start(Phone::new(called), sockets));
        let sockets = Sockets::bind(loopback).await.unwrap();
        // Media ports are bound while the server is ready already; a call before that is refused.
        let script = vec![Step::after(Duration::from_millis(500), Action::call(&number.to_string()))];
        let caller = Options { script, ..options(&sockets, "+4930123456", proxy) };
        phones.push(driver::start(Phone::new(caller), sockets));
    }
    for phone in &mut phones {
        let mut seen = Vec::new();
        let established = async {
            while let Some(happened) = phone.next().await {
                let done = happened.what == Happening::Established;
                seen.push(happened.what);
                if done {
                    return;
                }
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(10), established).await;
        let log = || std::fs::read_to_string(folder.path().join("log")).unwrap();
        assert!(in_time.is_ok() && seen.ends_with(&[Happening::Established]), "{seen:?}\n{}", log());
    }
    World { folder, server, phones }
}

fn options(sockets: &Sockets, number: &str, proxy: std::net::SocketAddr) -> Options {
    let (sip, rtp) = (sockets.sip_address().unwrap(), sockets.rtp_address().unwrap());
    Options { voice: Voice::Tone { hz: 440.0, dbfs: -20.0 }, ..Options::new(number, sip, rtp, proxy) }
}

/// Looks at what is on the disk, then lets the program repair and verify it; answers how many recordings were old enough
/// to owe a sample.
fn judge(folder: &Path, killed: i64) -> u32 {
    let active: Vec<PathBuf> = std::fs::read_dir(folder.join("recordings/.active"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    let mut judged = 0;
    for dir in active {
        // Killed between making the folder and its files: it was never reported as begun.
        if !dir.join("recording.json").exists() {
            continue;
        }
        let recording: Recording = serde_json::from_slice(&std::fs::read(dir.join("recording.json")).unwrap()).unwrap();
        let wavs: Vec<PathBuf> = recording.media_files.iter().map(|file| dir.join(&file.file)).collect();
        assert!(!wavs.is_empty());
        let age = killed - recording.start_time.as_millisecond();
        for (path, (frames, loudest)) in wavs.iter().zip(read_elsewhere(&wavs)) {
            let missing = age - frames * 1_000 / 8_000;
            let log = || std::fs::read_to_string(folder.join("log")).unwrap();
            println!("{missing} ms of {age} are missing");
            assert!(missing <= LOST_AT_MOST_MS, "{missing} ms of {age} are missing in {path:?}\n{}", log());
            // It is what was said up to there, not silence of that length.
            if frames > 4_000 {
                assert!(loudest > 1_000, "{path:?} of {frames} frames ends in silence of {loudest}\n{}", log());
            }
        }
        judged += u32::from(age > LOST_AT_MOST_MS);
    }
    for action in ["repair", "verify"] {
        let output = stickytape(folder, &["recordings", action]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{action}: {text}{}", String::from_utf8_lossy(&output.stderr));
    }
    let left = std::fs::read_dir(folder.join("recordings/.active")).unwrap();
    let left = left.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
    assert_eq!(left, 0, "repair leaves nothing behind");
    judged
}

/// Frames, and the loudest sample of the last 100 ms, by Python's `wave`; `soxi` must agree where it is installed.
fn read_elsewhere(wavs: &[PathBuf]) -> Vec<(i64, i64)> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/read_wavs.py");
    let output = Command::new("python3").arg(script).args(wavs).output().expect("this test needs python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: Vec<(i64, i64)> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            let numbers: Vec<i64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
            assert_eq!(numbers[1..3], [8_000, 2]);
            (numbers[0], numbers[3])
        })
        .collect();
    if let Ok(output) = Command::new("soxi").arg("-s").args(wavs).output() {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // soxi warns of a length that does not fit its header.
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let frames: Vec<i64> = text.split_whitespace().take(wavs.len()).map(|n| n.parse().unwrap()).collect();
        assert_eq!(frames, read.iter().map(|(frames, _)| *frames).collect::<Vec<_>>());
    }
    read
}

fn stickytape(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stickytape"));
    command.args(arguments).arg("--config").arg(folder.join("config.toml")).current_dir(folder);
    command
}

fn free_udp_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn free_tcp_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..500 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within ten seconds: {what}");
}
