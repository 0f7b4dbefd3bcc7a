//! Transfers between three SIPp through the real server (spec/recording.md §4.2, §4.4): D1 calls D2, D2 sends REFER, D1
//! talks to D3. What each side must see on the wire is in the scenarios of `fixtures/sipp`; what must be recorded is here:
//! who is heard in which segment, and who is not.

mod peers;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use peers::{Options, Server, Setup, Sipp, V4, at, free_ports, heard};
use serde_json::Value;
use stickytape::clock;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/sipp");

/// How long D2 talks before it acts, and D3 after it has answered.
const D2_TALKS: Duration = Duration::from_millis(1_500);
const D3_TALKS: Duration = Duration::from_millis(2_000);

/// Three parties and what lies between.
struct Flow {
    d1: &'static str,
    d2: &'static str,
    d3_talks: Duration,
    /// `recording.default`.
    default: &'static str,
    /// `record` of D3.
    target_record: bool,
}

impl Flow {
    fn blind(d2: &'static str, default: &'static str, target_record: bool) -> Self {
        Self { d1: "uac_transferred", d2, d3_talks: D3_TALKS, default, target_record }
    }

    /// D3 talks to D2 first, as long as D2 to D1.
    fn attended(default: &'static str, target_record: bool) -> Self {
        let d3_talks = D2_TALKS + D3_TALKS;
        Self { d1: "uac_held_transferred", d2: "uas_attended", d3_talks, default, target_record }
    }

    /// Plays it once. The server, whose folder lives as long as it, and the metadata of the `recordings` that it must
    /// leave, all verified, oldest first.
    #[track_caller]
    fn leaves(self, recordings: usize) -> (Server, Vec<Value>) {
        let (d2, d3) = (free_ports(1), free_ports(1));
        let mut server = Server::start(&Setup {
            recording: format!("layout = \"stereo\"\ndefault = \"{}\"", self.default),
            plan: plan(d2, d3, self.target_record),
            ..Setup::default()
        });
        let folder = server.folder.path().to_owned();
        tones_in(&folder);
        let proxy = Some(at(V4, server.sip));
        let d2 =
            Options { scenario: self.d2, target: proxy, waits: true, port: d2, talk: D2_TALKS, ..Options::default() };
        let d3 = Options { scenario: "uas_target", port: d3, talk: self.d3_talks, ..Options::default() };
        let (d2, d3) = (Sipp::start(&folder, &d2), Sipp::start(&folder, &d3));
        Sipp::start(&folder, &Options { scenario: self.d1, target: proxy, ..Options::default() }).succeed(&server);
        d2.succeed(&server);
        d3.succeed(&server);
        let recordings = finish(&mut server, recordings);
        (server, recordings)
    }
}

fn plan(d2: u16, d3: u16, target_record: bool) -> String {
    format!(
        "[[trunk]]\nname = \"callers\"\nfrom = [\"{V4}\"]\n\
         [[dn]]\nnumber = \"2001\"\ncontact = \"sip:2001@{V4}:{d2}\"\n\
         [[dn]]\nnumber = \"2002\"\ncontact = \"sip:2002@{V4}:{d3}\"\n{}",
        if target_record { "record = true\n" } else { "" }
    )
}

/// What the scenarios stream lies where SIPp runs.
fn tones_in(folder: &Path) {
    for name in ["d1.ulaw", "d2.ulaw", "d3.ulaw"] {
        fs::copy(Path::new(FIXTURES).join(name), folder.join(name)).unwrap();
    }
}

/// Waits for the recordings, stops the server, verifies; nothing but these recordings may be left.
#[track_caller]
fn finish(server: &mut Server, recordings: usize) -> Vec<Value> {
    peers::wait_for("the end of the call", Duration::from_secs(10), || {
        server.json("/v1/calls")["calls"].as_array().unwrap().is_empty().then_some(())
    });
    server.published(recordings);
    server.stop_and_verify();
    let found = server.published(recordings);
    assert_eq!(found.len(), recordings, "{found:#?}\n{}", server.log());
    found
}

#[track_caller]
fn owned(recording: &Value, side: &str, trigger: &str, owner: Option<&str>, stop: &str) {
    let session = &recording["recordingSession"];
    let found = (&session["side"], &session["trigger"], session["ownerDn"].as_str(), &session["stopCause"]);
    assert_eq!(found, (&side.into(), &trigger.into(), owner, &stop.into()), "{session:#}");
}

/// The second recording begins at the sample at which the first one ends. Both instants are written in whole milliseconds.
#[track_caller]
fn follows(first: &Value, second: &Value) {
    let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond();
    let (end, start) = (time(&first["stopTime"]), time(&second["startTime"]));
    assert!((end - start).abs() <= 1, "one ends at {end} ms, the other begins at {start} ms");
}

#[test]
fn the_caller_s_recording_goes_on_with_the_target() {
    let (_server, recordings) = Flow::blind("uas_refer", "origination", false).leaves(1);
    owned(&recordings[0], "origination", "default", None, "released");
    // D2 talks, D3 rings, D3 talks.
    heard(&recordings[0], &[("12", 1_400..2_000), ("", 450..900), ("13", 1_900..2_500)]);
}

#[test]
fn a_transferor_that_hangs_up_when_it_is_told_of_the_success_changes_nothing() {
    let (_server, recordings) = Flow::blind("uas_refer_bye", "origination", false).leaves(1);
    owned(&recordings[0], "origination", "default", None, "released");
    heard(&recordings[0], &[("12", 1_400..2_000), ("", 450..900), ("13", 1_900..2_500)]);
}

#[test]
fn a_transferor_that_hangs_up_before_the_answer_leaves_the_caller_waiting_in_silence() {
    let (_server, recordings) = Flow::blind("uas_refer_leave", "origination", false).leaves(1);
    owned(&recordings[0], "origination", "default", None, "released");
    let segments = recordings[0]["segments"].as_array().unwrap();
    // While it rings: with D2, then D1 alone.
    let alone = segments.iter().filter(|segment| segment["participants"].as_array().unwrap().len() == 1).count();
    assert_eq!((segments.len(), alone), (4, 1), "{segments:#?}");
    let mut recording = recordings[0].clone();
    let merged = &mut recording["segments"];
    merged[1]["endSample"] = merged[2]["endSample"].clone();
    merged.as_array_mut().unwrap().remove(2);
    heard(&recording, &[("12", 1_400..2_000), ("", 450..900), ("13", 1_900..2_500)]);
}

#[test]
fn the_transferor_s_recording_ends_at_the_transfer() {
    let (_server, recordings) = Flow::blind("uas_refer", "termination", false).leaves(1);
    owned(&recordings[0], "termination", "default", Some("2001"), "owner-left");
    heard(&recordings[0], &[("12", 1_400..2_000), ("", 450..900)]);
}

#[test]
fn a_recorded_target_begins_a_second_recording_where_the_transferor_s_ends() {
    let (_server, recordings) = Flow::blind("uas_refer", "termination", true).leaves(2);
    owned(&recordings[0], "termination", "default", Some("2001"), "owner-left");
    heard(&recordings[0], &[("12", 1_400..2_000), ("", 450..900)]);
    owned(&recordings[1], "termination", "dn", Some("2002"), "released");
    heard(&recordings[1], &[("13", 1_900..2_500)]);
    assert_ne!(recordings[0]["id"], recordings[1]["id"]);
    assert_eq!(recordings[0]["callUuid"], recordings[1]["callUuid"]);
    follows(&recordings[0], &recordings[1]);
}

#[test]
fn an_attended_transfer_keeps_the_caller_s_recording_and_none_of_the_consultation() {
    let (_server, recordings) = Flow::attended("origination", false).leaves(1);
    owned(&recordings[0], "origination", "default", None, "released");
    // D2 and D1 talk; D3 rings and talks to D2; D1 and D3 talk.
    heard(&recordings[0], &[("12", 1_400..2_000), ("", 1_900..2_700), ("13", 1_300..2_300)]);
}

#[test]
fn an_attended_transfer_ends_the_transferor_s_recording_and_begins_the_target_s() {
    let (_server, recordings) = Flow::attended("termination", true).leaves(2);
    owned(&recordings[0], "termination", "default", Some("2001"), "owner-left");
    heard(&recordings[0], &[("12", 1_400..2_000), ("", 1_900..2_700)]);
    owned(&recordings[1], "termination", "dn", Some("2002"), "released");
    heard(&recordings[1], &[("13", 1_300..2_300)]);
    follows(&recordings[0], &recordings[1]);
}

/// Calls that are all transferred in the same second.
const CALLS: u32 = 200;

#[test]
fn two_hundred_calls_transferred_in_the_same_second_are_all_recorded() {
    let (d2, d3) = (free_ports(1), free_ports(1));
    let mut server = Server::start(&Setup {
        media_ports: 1_600,
        recording: "layout = \"stereo\"\ndefault = \"both\"".into(),
        plan: plan(d2, d3, true),
        ..Setup::default()
    });
    let folder = server.folder.path().to_owned();
    tones_in(&folder);
    let proxy = Some(at(V4, server.sip));
    let many = |scenario, talk| Options {
        scenario,
        calls: CALLS,
        limit: CALLS,
        // All calls are there after four seconds.
        rate: 50,
        talk: Duration::from_secs(talk),
        ..Options::default()
    };
    let transfer_at = clock::wall().as_second() + 9;
    let more = vec!["-set".into(), "seconds".into(), transfer_at.to_string()];
    let d2 = Options { target: proxy, waits: true, port: d2, more, ..many("uas_refer_at", 1) };
    let (d2, d3) = (Sipp::start(&folder, &d2), Sipp::start(&folder, &Options { port: d3, ..many("uas_target", 4) }));
    let d1 = Sipp::start(&folder, &Options { target: proxy, ..many("uac_transferred", 1) });
    d1.succeed(&server);
    d2.succeed(&server);
    d3.succeed(&server);
    // Three of each call: D1's goes on, D2's ends, D3's begins.
    let recordings = server.published(3 * CALLS as usize);
    peers::wait_for("no call is left", Duration::from_secs(5), || {
        (server.metric("stickytape_calls") == Some(0.0)).then_some(())
    });
    assert_eq!(server.metric("stickytape_rtp_packets_untapped_total"), Some(0.0));
    server.stop_and_verify();
    assert_eq!(recordings.len(), 3 * CALLS as usize);
    let of = |owner: Option<&str>| {
        let mine = |recording: &&Value| recording["recordingSession"]["ownerDn"].as_str() == owner;
        recordings.iter().filter(mine).collect::<Vec<_>>()
    };
    let (kept, ended, begun) = (of(None), of(Some("2001")), of(Some("2002")));
    assert_eq!((kept.len(), ended.len(), begun.len()), (200, 200, 200));
    for recording in kept {
        owned(recording, "origination", "default", None, "released");
        let segments = recording["segments"].as_array().unwrap();
        let speakers: Vec<_> = segments.iter().map(|s| s["speakers"].as_array().unwrap().len()).collect();
        assert_eq!(speakers, [2, 0, 2], "{segments:#?}");
    }
    let mut begins: Vec<_> = Vec::new();
    for recording in ended {
        owned(recording, "termination", "default", Some("2001"), "owner-left");
        let silence = recording["segments"][1]["start"].as_str().unwrap();
        begins.push(silence.parse::<jiff::Timestamp>().unwrap().as_millisecond());
    }
    begun.iter().for_each(|recording| owned(recording, "termination", "dn", Some("2002"), "released"));
    begins.sort_unstable();
    let spread = begins[begins.len() - 1] - begins[0];
    eprintln!("the transfers began within {spread} ms");
    assert!(spread <= 1_000, "they began within {spread} ms, that is not the same second");
}

#[test]
fn what_the_readme_says_of_two_terminals_is_so() {
    for (owner, target_record, count) in
        [("origination", false, 1), ("termination", false, 1), ("termination", true, 2)]
    {
        let folder = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(FIXTURES).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
        let here = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        // Other ports, for tests run beside each other and beside whatever uses 5060; all else is as written.
        let ports: Vec<(String, u16)> = ["5060", "5070", "5080", "5090"].map(|p| (p.to_owned(), free_ports(1))).into();
        let moved =
            |text: &str| ports.iter().fold(text.to_owned(), |text, (old, new)| text.replace(old, &new.to_string()));
        let (api, media) = (free_ports(1), free_ports(100));
        let mut config = moved(&here("transfer.toml"))
            .replace("default = \"origination\"", &format!("default = \"{owner}\""))
            .replace("record = false", &format!("record = {target_record}"));
        config += &format!("[media]\nports = \"{media}-{}\"\n[api]\nlisten = \"{V4}:{api}\"\n", media + 99);
        let readme = moved(&here("README.md"));
        let (section, _) = readme.split_once("\n## ").expect("transfers come first");
        let commands = section.lines().filter_map(|line| line.strip_prefix("$ sipp "));
        let commands: Vec<&str> = commands.map(|line| line.split('#').next().unwrap().trim()).collect();
        assert_eq!(commands.len(), 3, "{commands:?}");

        let mut server = Server::start_as(folder, &config, ports[0].1, api, &[], "info");
        let mut running: Vec<_> = commands
            .iter()
            .map(|line| {
                // Beside the terminal: a test waits for each and wants no screen.
                let words = line.split_whitespace().filter(|word| *word != "-bg");
                let child = Command::new("sipp")
                    .args(["-nostdin", "-trace_err", "-timeout", "30s", "-timeout_error"])
                    .args(words)
                    .current_dir(server.folder.path())
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .expect("SIPp is installed (./test.sh)");
                std::thread::sleep(Duration::from_millis(500));
                (line, child)
            })
            .collect();
        for (line, child) in &mut running {
            let status = child.wait().unwrap();
            assert!(status.success(), "{line}: {status}\n{}", server.log());
        }
        let recordings = finish(&mut server, count);
        let before = ("12", 2_900..3_600);
        let (ring, after) = (("", 450..900), ("13", 2_900..3_600));
        match owner {
            "origination" => heard(&recordings[0], &[before, ring, after]),
            _ => {
                heard(&recordings[0], &[before, ring]);
                recordings.get(1).into_iter().for_each(|second| heard(second, std::slice::from_ref(&after)));
            }
        }
    }
}
