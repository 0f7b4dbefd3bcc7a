//! The server is killed (SIGKILL) in the midst of a transfer: while the target rings, and when it has answered. What was
//! written plays, repair closes it, and its segments say who was heard until then.

mod peers;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use peers::{Server, Setup, TONES, heard};
use serde_json::Value;
use stickytape::testing::driver::{self, Running, Sockets};
use stickytape::testing::phone::{Action, Happening, Incoming, Leave, Options, Phone, Refer, Signal, Step};
use stickytape::testing::tones::Voice;

/// How long D3's phone rings.
const RINGS: Duration = Duration::from_millis(1_800);
/// What a crash may lose is at the end of the last segment.
const LOST_AT_MOST: u64 = 1_000;

/// D1, D2, D3; D2 has sent REFER when this returns.
async fn transferring() -> (Server, Vec<Running>) {
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(Sockets::bind(loopback).await.unwrap());
    }
    let dn = |n: usize| {
        let contact = sockets[n].sip_address().unwrap();
        format!("[[dn]]\nnumber = \"200{n}\"\ncontact = \"sip:200{n}@{contact}\"\n")
    };
    let plan = format!("[[trunk]]\nname = \"callers\"\nfrom = [\"127.0.0.1\"]\n{}{}", dn(1), dn(2));
    let recording = "layout = \"stereo\"\ndefault = \"both\"".into();
    let server = Server::start(&Setup { recording, plan, ..Setup::default() });
    let proxy = SocketAddr::new(loopback, server.sip);
    let mut phones = Vec::new();
    for (n, sockets) in sockets.into_iter().enumerate() {
        let (sip, rtp) = (sockets.sip_address().unwrap(), sockets.rtp_address().unwrap());
        let script = match n {
            // Media ports are bound while the server is ready already; a call before that is refused.
            0 => vec![Step::after(Duration::from_millis(500), Action::call("2001"))],
            1 => {
                let refer = Action::Refer(Refer { leave: Leave::Never, ..Refer::to("2002") });
                vec![Step::on(Signal::Established, Duration::from_millis(1_200), refer)]
            }
            _ => Vec::new(),
        };
        let options = Options {
            voice: Voice::Tone { hz: TONES[n], dbfs: -15.0 },
            incoming: Incoming::Answer { ring: Duration::ZERO, answer: if n == 2 { RINGS } else { Duration::ZERO } },
            script,
            ..Options::new(&format!("200{n}"), sip, rtp, proxy)
        };
        phones.push(driver::start(Phone::new(options), sockets));
    }
    let referred = async {
        while let Some(happened) = phones[1].next().await {
            if matches!(happened.what, Happening::Referred { .. }) {
                return;
            }
        }
        panic!("D2's phone has ended");
    };
    tokio::time::timeout(Duration::from_secs(20), referred).await.expect("REFER is accepted");
    (server, phones)
}

/// Kills so long after the REFER; the recordings of D1 and D2 after repair.
async fn killed(after: Duration) -> (Server, Value, Value) {
    let (mut server, phones) = transferring().await;
    tokio::time::sleep(after).await;
    server.kill();
    for phone in phones {
        phone.stop().await;
    }
    // Everything plays in a reader that is not ours, before any repair.
    let wavs = wavs(&server.directory());
    assert_eq!(wavs.len(), 2, "{wavs:?}");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/read_wavs.py");
    let played = Command::new("python3").arg(script).args(&wavs).output().expect("this test needs python3");
    assert!(played.status.success(), "{}", String::from_utf8_lossy(&played.stderr));
    for action in ["repair", "verify"] {
        let output = server.stickytape(&["recordings", action]);
        assert!(output.status.success(), "{action}: {}", String::from_utf8_lossy(&output.stdout));
    }
    let found = server.published(2);
    let of = |side: &str| found.iter().find(|r| r["recordingSession"]["side"] == side).unwrap().clone();
    let (kept, agent_s) = (of("origination"), of("termination"));
    (server, kept, agent_s)
}

fn wavs(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(wavs(&path)),
            path if path.extension().is_some_and(|extension| extension == "wav") => found.push(path),
            _ => {}
        }
    }
    found
}

#[track_caller]
fn ended(recording: &Value, state: &str, stop: &str) {
    let session = &recording["recordingSession"];
    assert_eq!((&session["state"], &session["stopCause"]), (&state.into(), &stop.into()), "{session:#}");
}

/// The last segment, of about so long without the kill.
fn cut(length: Duration) -> Range<u64> {
    let length = length.as_millis() as u64;
    length - LOST_AT_MOST..length + 400
}

const TALK: (&str, Range<u64>) = ("12", 1_100..1_700);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_while_the_target_rings_leaves_both_recordings_silent_at_their_end() {
    let after = Duration::from_millis(1_400);
    let (_server, kept, agent_s) = killed(after).await;
    for recording in [&kept, &agent_s] {
        ended(recording, "recovered", "crash");
        heard(recording, &[TALK, ("", cut(after))]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_after_the_transfer_leaves_the_caller_s_recording_with_the_target_and_the_agent_s_ended() {
    let after = Duration::from_millis(1_800);
    let (_server, kept, agent_s) = killed(RINGS + after).await;
    ended(&kept, "recovered", "crash");
    let rings = ("", RINGS.as_millis() as u64 - 100..RINGS.as_millis() as u64 + 400);
    heard(&kept, &[TALK, rings.clone(), ("13", cut(after))]);
    ended(&agent_s, "complete", "owner-left");
    heard(&agent_s, &[TALK, rings]);
}
