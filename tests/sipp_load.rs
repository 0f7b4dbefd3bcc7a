//! Many calls between two SIPp through the real server: no failed call, and one verified recording each.
//!
//! STICKYTAPE_LOAD_SECONDS sets how long each run lasts (default 20; the figures of a release are taken with 60).

mod peers;

use std::time::Duration;

use peers::{Options, Server, Setup, Sipp, V4, at, free_ports};

fn seconds() -> u64 {
    std::env::var("STICKYTAPE_LOAD_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

struct Load {
    caller: &'static str,
    callee: &'static str,
    calls: u32,
    limit: u32,
    rate: u32,
    talk: Duration,
    echo: bool,
}

/// One test at a time: two loads on one machine would measure each other.
static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[track_caller]
fn carry(load: Load) {
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let port = free_ports(1);
    let mut server = Server::start(&Setup {
        media_ports: 3_000,
        recording: "layout = \"stereo\"".into(),
        plan: format!(
            "[[trunk]]\nname = \"callers\"\nfrom = [\"127.0.0.1\"]\n[[dn]]\nnumber = \"2001\"\ncontact = \"sip:2001@{V4}:{port}\"\n"
        ),
        ..Setup::default()
    });
    let folder = server.folder.path().to_owned();
    // A square wave of 500 Hz as µ-law, a second of it.
    let tone: Vec<u8> = (0..8_000).map(|sample| if (sample / 8) % 2 == 0 { 0x20 } else { 0xa0 }).collect();
    std::fs::write(folder.join("tone.ulaw"), tone).unwrap();
    let many = Options { calls: load.calls, limit: load.limit, rate: load.rate, talk: load.talk, ..Options::default() };
    let callee = Sipp::start(&folder, &Options { scenario: load.callee, port, echo: load.echo, ..many });
    let many = Options { calls: load.calls, limit: load.limit, rate: load.rate, talk: load.talk, ..Options::default() };
    let start = stickytape::clock::now();
    let caller = Sipp::start(&folder, &Options { scenario: load.caller, target: Some(at(V4, server.sip)), ..many });
    caller.succeed(&server);
    callee.succeed(&server);
    eprintln!("{} calls in {:.1} s", load.calls, peers::since(start));
    let recordings = server.published(load.calls as usize);
    eprintln!("all published after {:.1} s", peers::since(start));
    // Levels are taken once a second.
    peers::wait_for("no call is left", Duration::from_secs(5), || {
        (server.metric("stickytape_calls") == Some(0.0)).then_some(())
    });
    assert_eq!(server.metric("stickytape_rtp_packets_untapped_total"), Some(0.0));
    server.stop_and_verify();
    eprintln!("all verified after {:.1} s", peers::since(start));
    assert_eq!(recordings.len(), load.calls as usize);
    let wrong = recordings.iter().filter(|recording| recording["recordingSession"]["stopCause"] != "released").count();
    assert_eq!(wrong, 0, "recordings that did not end with the call");
}

#[test]
fn a_hundred_calls_at_once_with_media() {
    // SIPp begins 20 a second: all hundred talk from the fifth second on.
    carry(Load {
        caller: "uac_stream",
        callee: "uas_answer",
        calls: 100,
        limit: 100,
        rate: 20,
        talk: Duration::from_secs(seconds()),
        echo: true,
    });
}

#[test]
fn fifty_calls_a_second_set_up_and_torn_down() {
    carry(Load {
        caller: "uac_talk",
        callee: "uas_answer_at_once",
        calls: 50 * seconds() as u32,
        limit: 400,
        rate: 50,
        talk: Duration::from_millis(500),
        echo: false,
    });
}
