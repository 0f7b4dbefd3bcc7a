//! Dial-in rooms of the real server with SIPp in them: each speaks a tone of its own, and the room's recording has them.

mod peers;

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use peers::{Options, Server, Setup, Sipp, V4, at};
use serde_json::Value;

const CALLERS: &str = "[[trunk]]\nname = \"callers\"\nfrom = [\"127.0.0.1\"]\n";

fn server(room: &str) -> Server {
    let plan = format!("{CALLERS}[[conference]]\nnumber = \"800\"\n{room}\n");
    Server::start(&Setup { recording: "layout = \"stereo\"".into(), plan, ..Setup::default() })
}

/// One of D1 to D3 calls the room by that scenario, with its tone.
fn calls(server: &Server, party: u8, scenario: &'static str, talk: Duration) -> Sipp {
    let folder = server.folder.path().join(format!("d{party}"));
    fs::create_dir(&folder).unwrap();
    let tone = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/sipp/d{party}.ulaw"));
    let name = if party == 1 { "d1.ulaw" } else { "tone.ulaw" };
    fs::copy(tone, folder.join(name)).unwrap();
    let target = Some(at(V4, server.sip));
    Sipp::start(&folder, &Options { scenario, target, number: "800", talk, ..Options::default() })
}

/// Waits until the room has so many members.
#[track_caller]
fn has_members(server: &Server, state: &str, members: usize) {
    let what = format!("{members} members, {state}, log:\n{}", server.log());
    peers::wait_for(&what, Duration::from_secs(10), || {
        let calls = server.json("/v1/calls")["calls"].clone();
        let is_so = |call: &Value| call["state"] == state && call["parties"].as_array().unwrap().len() == members;
        calls.as_array().unwrap().iter().any(is_so).then_some(())
    });
}

#[test]
fn three_in_a_room_are_heard_in_the_recording_that_the_room_owns() {
    let mut server = server("");
    let first = calls(&server, 1, "uac_transferred", Duration::ZERO);
    has_members(&server, "waiting", 1);
    let second = calls(&server, 2, "uac_stream", Duration::from_millis(4_500));
    has_members(&server, "talking", 2);
    sleep(Duration::from_millis(1_000));
    let third = calls(&server, 3, "uac_stream", Duration::from_millis(1_500));
    has_members(&server, "conference", 3);
    third.succeed(&server);
    second.succeed(&server);
    // With one member left the room ends: the last one gets a BYE.
    first.succeed(&server);
    let recordings = server.published(1);
    server.stop_and_verify();
    assert_eq!(recordings.len(), 1, "{recordings:#?}");
    let recording = &recordings[0];
    let session = &recording["recordingSession"];
    assert_eq!((&session["side"], &session["stopCause"]), (&"room".into(), &"released".into()), "{session:#}");
    assert!(session["ownerDn"].is_null());
    assert_eq!(recording["dialedPhoneNumber"], "800");
    peers::heard(recording, &[("12", 900..3_000), ("123", 1_300..2_500), ("12", 500..3_000)]);
}

#[test]
fn a_pin_by_info_lets_in_and_stands_nowhere() {
    let mut server = server("pin = \"7\"");
    let first = calls(&server, 1, "uac_pin", Duration::ZERO);
    has_members(&server, "waiting", 1);
    // Who types nothing is sent away after ten seconds.
    let silent = calls(&server, 2, "uac_wait_bye", Duration::ZERO);
    has_members(&server, "entering", 1);
    silent.succeed(&server);
    has_members(&server, "waiting", 1);
    server.stop();
    first.succeed_silently();
    let log = server.log();
    assert!(log.contains("no PIN") && !log.contains("Signal"), "{log}");
    assert!(!server.directory().join("2026").exists(), "nobody was recorded: nobody was two");
}
