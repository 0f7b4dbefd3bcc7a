//! Calls from a baresip through the real server, to another baresip and to SIPp: each party's own tone is in its channel
//! of the recording and in no other.

mod peers;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use peers::baresip::{Baresip, SECONDS};
use peers::{Options, Server, Setup, Sipp, V4, free_ports};

/// Seconds of sound in a channel and its pitch in Hz, by sign changes.
fn heard(wav: &Path, channel: usize) -> (f64, f64) {
    heard_in(wav, channel, 0.0..f64::MAX)
}

/// The same of a part of it, in seconds.
fn heard_in(wav: &Path, channel: usize, part: std::ops::Range<f64>) -> (f64, f64) {
    let bytes = fs::read(wav).unwrap();
    let samples = bytes[44..].chunks_exact(4);
    let inside = |(frame, _): &(usize, _)| part.contains(&(*frame as f64 / 8_000.0));
    let samples = samples.enumerate().filter(inside).map(|(_, frame)| frame);
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

#[test]
fn a_baresip_transfers_its_caller_and_the_caller_s_recording_goes_on() {
    let (calling, called, target) = (free_ports(2), free_ports(2), free_ports(2));
    let mut server = Server::start(&Setup {
        recording: "layout = \"stereo\"\ndefault = \"both\"".into(),
        plan: format!(
            "[[trunk]]\nname = \"callers\"\nfrom = [\"127.0.0.1\"]\n\
             [[dn]]\nnumber = \"2001\"\ncontact = \"sip:2001@{V4}:{called}\"\n\
             [[dn]]\nnumber = \"2002\"\ncontact = \"sip:2002@{V4}:{target}\"\n"
        ),
        ..Setup::default()
    });
    let folder = server.folder.path().to_owned();
    // The target speaks for three seconds and hangs up; the others have more to say than they get to.
    let d3 = Baresip::start(&folder, "2002", target, 880, None);
    let d2 = Baresip::lasting(20, &folder, "2001", called, 660, None);
    let uri = format!("sip:2001@{V4}:{}", server.sip);
    let d1 = Baresip::lasting(20, &folder, "alice", calling, 440, Some(&uri));
    let said = || format!("D1:\n{}\nD2:\n{}\nD3:\n{}", d1.said(), d2.said(), d3.said());
    peers::wait_for("the call", Duration::from_secs(10), || {
        (server.json("/v1/calls")["calls"][0]["state"] == "talking").then_some(())
    });
    std::thread::sleep(Duration::from_secs(2));
    d2.command("transfer", &format!("sip:2002@{V4}:{}", server.sip));
    peers::wait_for(&format!("the end of the call; {}", said()), Duration::from_secs(20), || {
        server.json("/v1/calls")["calls"].as_array().unwrap().is_empty().then_some(())
    });
    let found = server.published(2);
    server.stop_and_verify();
    assert_eq!(found.len(), 2);
    let of = |side: &str| found.iter().find(|recording| recording["recordingSession"]["side"] == side).unwrap();
    let (kept, ended) = (of("origination"), of("termination"));
    assert_eq!(kept["recordingSession"]["stopCause"], "released", "{}", server.log());
    assert_eq!(ended["recordingSession"]["stopCause"], "owner-left", "{}", server.log());
    let mixed = |recording: &serde_json::Value| Path::new(recording["folder"].as_str().unwrap()).join("mixed.wav");
    // Before the transfer D2 is right, after it D3: where one ends is where its recording ends.
    let end = ended["durationMs"].as_u64().unwrap() as f64 / 1_000.0;
    let (before, pitch) = heard_in(&mixed(kept), 1, 0.0..end);
    assert!(before > 1.5 && (pitch - 660.0).abs() < 12.0, "{before} s at {pitch} Hz before the transfer");
    let (after, pitch) = heard_in(&mixed(kept), 1, end..f64::MAX);
    assert!(after > 2.4 && (pitch - 880.0).abs() < 12.0, "{after} s at {pitch} Hz after the transfer");
    let (caller, pitch) = heard_in(&mixed(kept), 0, 0.0..f64::MAX);
    assert!(caller > 4.0 && (pitch - 440.0).abs() < 12.0, "{caller} s at {pitch} Hz of the caller");
    let (own, pitch) = heard_in(&mixed(ended), 1, 0.0..f64::MAX);
    assert!((own - before).abs() < 0.1 && (pitch - 660.0).abs() < 12.0, "{own} s at {pitch} Hz in the agent's");
}
