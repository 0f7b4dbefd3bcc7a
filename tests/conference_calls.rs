//! Conferences and supervision from outside: a real server, asked over HTTP, between real baresip and SIPp that each speak
//! a tone of their own. Held to the tones: what every baresip has heard (spec/recording.md §4.6), and what every file holds.

mod peers;

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use peers::baresip::Baresip;
use peers::{Server, Setup, V4, free_ports, wait_for};
use serde_json::{Value, json};
use stickytape::disk::{RealDisk, wav};
use stickytape::testing::tones;

/// Who says what, in Hz, all at −15 dBFS: customer, agent, a third member, supervisor. No
/// harmonic that G.711 adds to one, folded at 4 kHz, falls on another.
const CAST: [(char, f64); 4] = [('c', 320.0), ('a', 500.0), ('m', 800.0), ('s', 1_130.0)];
const PRESENT: f64 = -20.0;
/// In a tenth of a second: a click where a phone was late is nobody's tone.
const ABSENT: f64 = -40.0;
/// Over a whole stretch.
const SILENT: f64 = -60.0;
/// How long each state of a call lasts.
const PHASE: Duration = Duration::from_millis(1_500);
const WINDOW: usize = 800;

/// A stretch in which the same parties are heard: `"ca"` customer and agent, `""` nobody.
#[derive(Debug, Clone)]
struct Stretch {
    who: String,
    samples: Range<usize>,
}

/// What is heard one after the other. What lasts less than 300 ms is a change on its way; silence at both ends is left out.
fn stretches(samples: &[i16]) -> Vec<Stretch> {
    let hz = CAST.map(|(_, hz)| hz);
    let mut found: Vec<Stretch> = Vec::new();
    for (index, window) in tones::scan(samples, 8_000, &hz, Duration::from_millis(100)).iter().enumerate() {
        let heard = CAST.iter().zip(&window.levels);
        // A tone that is neither there nor absent begins or ends within the window.
        if window.levels.iter().any(|level| *level > ABSENT && *level < PRESENT) {
            continue;
        }
        let who: String = heard.filter(|(_, level)| **level >= PRESENT).map(|((name, _), _)| *name).collect();
        let samples = index * WINDOW..(index + 1) * WINDOW;
        match found.last_mut().filter(|last| last.who == who && samples.start - last.samples.end <= 3 * WINDOW) {
            Some(last) => last.samples.end = samples.end,
            None => found.push(Stretch { who, samples }),
        }
    }
    found.retain(|stretch| stretch.samples.len() >= 3 * WINDOW);
    let mut merged: Vec<Stretch> = Vec::new();
    for stretch in found {
        match merged.last_mut().filter(|last| last.who == stretch.who) {
            Some(last) => last.samples.end = stretch.samples.end,
            None => merged.push(stretch),
        }
    }
    let speaks = |stretch: &Stretch| !stretch.who.is_empty();
    let from = merged.iter().position(speaks).unwrap_or(0);
    let to = merged.iter().rposition(speaks).map_or(0, |last| last + 1);
    merged[from.min(to)..to].to_vec()
}

/// The stretches, each with who is heard and for how many phases at least. Whoever is not heard in a stretch is not even
/// heard at −60 dBFS.
#[track_caller]
fn assert_heard(place: &str, samples: &[i16], expected: &[(&str, usize)]) {
    let found = stretches(samples);
    let told: Vec<_> = found.iter().map(|s| format!("{:?} {} ms", s.who, s.samples.len() / 8)).collect();
    let levels = CAST.map(|(name, hz)| {
        let windows = tones::scan(samples, 8_000, &[hz], Duration::from_millis(100));
        format!("\n{name} {}", windows.iter().map(|w| format!("{:.0}", -w.levels[0])).collect::<Vec<_>>().join(" "))
    });
    let told = format!("{told:?}, dBFS below full scale:{}", levels.concat());
    let who: Vec<&str> = found.iter().map(|stretch| stretch.who.as_str()).collect();
    let due: Vec<&str> = expected.iter().map(|(who, _)| *who).collect();
    assert_eq!(who, due, "{place}: {told}");
    for (stretch, (who, phases)) in found.iter().zip(expected) {
        // Asking and answering take their time on both sides of a change.
        let least = (PHASE * *phases as u32).as_millis() as usize * 8 * 3 / 4;
        assert!(stretch.samples.len() >= least, "{place}, {who:?}: {told}");
        let inner = &samples[stretch.samples.start + WINDOW..stretch.samples.end - WINDOW];
        for (name, hz) in CAST.iter().filter(|(name, _)| !who.contains(*name)) {
            let level = tones::tone_level(inner, 8_000, *hz);
            assert!(level <= SILENT, "{place}: {name} is heard at {level:.1} dBFS while it is {who:?}: {told}");
        }
    }
}

/// A server whose callers come by a trunk, with these DNs.
fn server(default: &str, dns: &[(&str, u16, &str)]) -> Server {
    let mut plan = format!("[[trunk]]\nname = \"callers\"\nfrom = [\"{V4}\"]\n");
    for (number, port, more) in dns {
        plan += &format!("[[dn]]\nnumber = \"{number}\"\ncontact = \"sip:{number}@{V4}:{port}\"\n{more}\n");
    }
    Server::start(&Setup {
        recording: format!("layout = \"stereo\"\ndefault = \"{default}\""),
        plan,
        ..Setup::default()
    })
}

/// Waits until a DN has answered; the call in which it is.
#[track_caller]
fn answered(server: &Server, dn: &str) -> String {
    wait_for(&format!("{dn} answers\n{}", server.log()), Duration::from_secs(10), || {
        let calls = server.json("/v1/calls");
        let has = |call: &&Value| {
            let parties = call["parties"].as_array().unwrap();
            parties.iter().any(|party| party["dn"] == dn && party["state"] == "established")
        };
        Some(calls["calls"].as_array().unwrap().iter().find(has)?["connId"].as_str().unwrap().to_owned())
    })
}

/// Waits until a DN is in no call any more.
#[track_caller]
fn gone(server: &Server, dn: &str) {
    wait_for(&format!("{dn} leaves\n{}", server.log()), Duration::from_secs(10), || {
        (!server.json("/v1/calls").to_string().contains(&format!("\"dn\":\"{dn}\""))).then_some(())
    });
}

/// A request of a DN for a call.
#[track_caller]
fn ask(server: &Server, call: &str, request: &str, body: Value) -> Value {
    server.ask(&format!("/v1/calls/{call}/{request}"), &body)
}

/// Ends the server; the `count` recordings, verified, their files of equal length.
#[track_caller]
fn finish(server: &mut Server, count: usize) -> Vec<Value> {
    wait_for("the end of the call", Duration::from_secs(10), || {
        server.json("/v1/calls")["calls"].as_array().unwrap().is_empty().then_some(())
    });
    let found = server.published(count);
    server.stop_and_verify();
    assert_eq!(found.len(), count, "{found:#?}");
    for recording in &found {
        let files = recording["mediaFiles"].as_array().unwrap();
        assert!(files.iter().all(|file| file["samples"] == files[0]["samples"]), "{files:#?}");
    }
    found
}

/// A channel of a file of a recording.
fn channel(recording: &Value, file: &str, channel: usize) -> Vec<i16> {
    let path = Path::new(recording["folder"].as_str().unwrap()).join(file);
    let (spec, samples) = wav::read(&RealDisk, &path).unwrap();
    samples.into_iter().skip(channel).step_by(usize::from(spec.channels)).collect()
}

#[track_caller]
fn ended(recording: &Value, side: &str, cause: &str) {
    let session = &recording["recordingSession"];
    assert_eq!((session["side"].as_str(), session["stopCause"].as_str()), (Some(side), Some(cause)));
}

#[test]
fn a_supervisor_is_heard_by_nobody_then_by_the_agent_then_by_both() {
    let (calling, called, watching) = (free_ports(2), free_ports(2), free_ports(2));
    let mut server = server("origination", &[("2001", called, ""), ("2100", watching, "role = \"supervisor\"")]);
    let folder = server.folder.path().to_owned();
    let agent = Baresip::among_others(&folder, "2001", called, 500, None);
    let supervisor = Baresip::among_others(&folder, "2100", watching, 1_130, None);
    let monitor = json!({"OtherDN": "2001", "Extensions": {"MonitorMode": "mute"}});
    server.ask("/v1/dns/2100/monitor-next-call", &monitor);
    let uri = format!("sip:2001@{V4}:{}", server.sip);
    let customer = Baresip::among_others(&folder, "alice", calling, 320, Some(&uri));
    let call = answered(&server, "2100");
    sleep(PHASE);
    let coach = json!({"ThisDN": "2100", "Extensions": {"MonitorMode": "coach"}});
    ask(&server, &call, "set-mute-off", coach);
    sleep(PHASE);
    ask(&server, &call, "set-mute-off", json!({"ThisDN": "2100"}));
    sleep(PHASE);
    ask(&server, &call, "set-mute-on", json!({"ThisDN": "2100"}));
    sleep(PHASE);
    customer.command("hangup", "");

    let recordings = finish(&mut server, 1);
    assert_heard("the customer's phone", &customer.heard(), &[("a", 2), ("as", 1), ("a", 1)]);
    assert_heard("the agent's phone", &agent.heard(), &[("c", 1), ("cs", 2), ("c", 1)]);
    assert_heard("the supervisor's phone", &supervisor.heard(), &[("ca", 4)]);
    ended(&recordings[0], "origination", "released");
    assert_heard("mixed.wav left", &channel(&recordings[0], "mixed.wav", 0), &[("c", 4)]);
    assert_heard("mixed.wav right", &channel(&recordings[0], "mixed.wav", 1), &[("a", 4)]);
    assert_heard("supervisor-1.wav", &channel(&recordings[0], "supervisor-1.wav", 0), &[("s", 4)]);
}

#[test]
fn a_coach_in_a_conference_is_heard_by_the_agent_that_it_supervises_alone() {
    let (calling, called, joining, watching) = (free_ports(2), free_ports(2), free_ports(2), free_ports(2));
    let dns =
        [("2001", called, "intrusion = true"), ("2002", joining, ""), ("2100", watching, "role = \"supervisor\"")];
    let mut server = server("origination", &dns);
    let folder = server.folder.path().to_owned();
    let agent = Baresip::among_others(&folder, "2001", called, 500, None);
    let colleague = Baresip::among_others(&folder, "2002", joining, 800, None);
    let supervisor = Baresip::among_others(&folder, "2100", watching, 1_130, None);
    let uri = format!("sip:2001@{V4}:{}", server.sip);
    let customer = Baresip::among_others(&folder, "alice", calling, 320, Some(&uri));
    let call = answered(&server, "2001");
    sleep(PHASE);
    ask(&server, &call, "single-step-conference", json!({"ThisDN": "2001", "OtherDN": "2002"}));
    answered(&server, "2002");
    sleep(PHASE);
    let coach = json!({"OtherDN": "2001", "Extensions": {"MonitorMode": "coach", "Intrusion": true}});
    server.ask("/v1/dns/2100/monitor-next-call", &coach);
    assert_eq!(answered(&server, "2100"), call);
    sleep(PHASE);
    // The supervised agent leaves: the supervisor stays with the call, and nobody is left whom it could coach.
    ask(&server, &call, "release-call", json!({"ThisDN": "2001"}));
    gone(&server, "2001");
    sleep(PHASE);
    customer.command("hangup", "");

    let recordings = finish(&mut server, 1);
    assert_heard("the customer's phone", &customer.heard(), &[("a", 1), ("am", 2), ("m", 1)]);
    assert_heard("the agent's phone", &agent.heard(), &[("c", 1), ("cm", 1), ("cms", 1)]);
    assert_heard("the colleague's phone", &colleague.heard(), &[("ca", 2), ("c", 1)]);
    assert_heard("the supervisor's phone", &supervisor.heard(), &[("cam", 1), ("cm", 1)]);
    assert_heard("mixed.wav left", &channel(&recordings[0], "mixed.wav", 0), &[("c", 4)]);
    assert_heard("mixed.wav right", &channel(&recordings[0], "mixed.wav", 1), &[("a", 1), ("am", 2), ("m", 1)]);
    assert_heard("supervisor-1.wav", &channel(&recordings[0], "supervisor-1.wav", 0), &[("s", 2)]);
}

#[test]
fn a_supervisor_goes_with_its_agent_to_the_second_line_of_its_phone_and_back() {
    let (calling, called, joining, watching) = (free_ports(2), free_ports(2), free_ports(2), free_ports(2));
    let follows = "intrusion = true\nmonitor-consult-calls = \"orig\"\nrecord-consult-calls = true";
    let dns = [("2001", called, follows), ("2002", joining, ""), ("2100", watching, "role = \"supervisor\"")];
    let mut server = server("both", &dns);
    let folder = server.folder.path().to_owned();
    let agent = Baresip::among_others(&folder, "2001", called, 500, None);
    let member = Baresip::among_others(&folder, "2002", joining, 800, None);
    let supervisor = Baresip::among_others(&folder, "2100", watching, 1_130, None);
    let uri = |number: &str| format!("sip:{number}@{V4}:{}", server.sip);
    let customer = Baresip::among_others(&folder, "alice", calling, 320, Some(&uri("2001")));
    answered(&server, "2001");
    let connect = json!({"OtherDN": "2001", "Extensions": {"MonitorMode": "connect", "Intrusion": true}});
    server.ask("/v1/dns/2100/monitor-next-call", &connect);
    let call = answered(&server, "2100");
    sleep(PHASE);
    // Held by request: a baresip that is held by its phone keeps nothing more of what it hears.
    ask(&server, &call, "hold-call", json!({"ThisDN": "2001"}));
    agent.command("dial", &uri("2002"));
    assert_ne!(answered(&server, "2002"), call);
    // The supervisor is known in the call in which it was joined; what it asks there is done where it is.
    assert_eq!(answered(&server, "2100"), call);
    sleep(PHASE);
    ask(&server, &call, "set-mute-on", json!({"ThisDN": "2100", "Extensions": {"MonitorMode": "coach"}}));
    sleep(PHASE);
    agent.command("hangup", "");
    gone(&server, "2002");
    ask(&server, &call, "retrieve-call", json!({"ThisDN": "2001"}));
    sleep(PHASE);
    ask(&server, &call, "set-mute-off", json!({"ThisDN": "2100"}));
    sleep(PHASE);
    customer.command("hangup", "");

    let recordings = finish(&mut server, 2);
    assert_heard("the customer's phone", &customer.heard(), &[("as", 1), ("", 2), ("a", 1), ("as", 1)]);
    assert_heard("the member's phone", &member.heard(), &[("as", 1), ("a", 1)]);
    assert_heard("the supervisor's phone", &supervisor.heard(), &[("ca", 1), ("am", 2), ("ca", 2)]);
    let of = |side: &str| recordings.iter().find(|recording| recording["recordingSession"]["side"] == side).unwrap();
    let (theirs, agents) = (of("origination"), of("termination"));
    assert_heard("the customer's, left", &channel(theirs, "mixed.wav", 0), &[("c", 1), ("", 2), ("c", 2)]);
    assert_heard("the customer's, right", &channel(theirs, "mixed.wav", 1), &[("a", 1), ("", 2), ("a", 2)]);
    assert_heard("in the customer's", &channel(theirs, "supervisor-1.wav", 0), &[("s", 1), ("", 2), ("s", 2)]);
    assert_heard("the agent's, left", &channel(agents, "mixed.wav", 0), &[("c", 1), ("m", 2), ("c", 2)]);
    assert_heard("the agent's, right", &channel(agents, "mixed.wav", 1), &[("a", 5)]);
    assert_heard("in the agent's", &channel(agents, "supervisor-1.wav", 0), &[("s", 5)]);
}

/// A customer in a call with agent 2001, one phase old, and member 2002, whom nobody has called yet.
struct Three {
    server: Server,
    customer: Baresip,
    agent: Baresip,
    member: Baresip,
    call: String,
}

impl Three {
    fn begin() -> Self {
        let (calling, called, joining) = (free_ports(2), free_ports(2), free_ports(2));
        let server = server("both", &[("2001", called, ""), ("2002", joining, "")]);
        let folder = server.folder.path().to_owned();
        let agent = Baresip::among_others(&folder, "2001", called, 500, None);
        let member = Baresip::among_others(&folder, "2002", joining, 800, None);
        let uri = format!("sip:2001@{V4}:{}", server.sip);
        let customer = Baresip::among_others(&folder, "alice", calling, 320, Some(&uri));
        let call = answered(&server, "2001");
        sleep(PHASE);
        Self { server, customer, agent, member, call }
    }
}

#[test]
fn a_third_party_is_called_in_and_deleted_again_in_the_same_files() {
    let Three { mut server, customer, agent, member, call } = Three::begin();
    ask(&server, &call, "single-step-conference", json!({"ThisDN": "2001", "OtherDN": "2002"}));
    assert_eq!(answered(&server, "2002"), call);
    sleep(PHASE);
    ask(&server, &call, "delete-from-conference", json!({"ThisDN": "2001", "OtherDN": "2002"}));
    gone(&server, "2002");
    sleep(PHASE);
    customer.command("hangup", "");

    let recordings = finish(&mut server, 2);
    assert_heard("the customer's phone", &customer.heard(), &[("a", 1), ("am", 1), ("a", 1)]);
    assert_heard("the agent's phone", &agent.heard(), &[("c", 1), ("cm", 1), ("c", 1)]);
    assert_heard("the member's phone", &member.heard(), &[("ca", 1)]);
    for recording in &recordings {
        assert_eq!(recording["recordingSession"]["stopCause"], "released");
        assert_heard("mixed.wav left", &channel(recording, "mixed.wav", 0), &[("c", 3)]);
        assert_heard("mixed.wav right", &channel(recording, "mixed.wav", 1), &[("a", 1), ("am", 1), ("a", 1)]);
    }
}

#[test]
fn a_consultation_becomes_a_conference_that_its_maker_leaves() {
    let Three { mut server, customer, agent, member, call } = Three::begin();
    let consult = ask(&server, &call, "initiate-conference", json!({"ThisDN": "2001", "OtherDN": "2002"}));
    let consult = consult["ConnID"].as_str().unwrap();
    assert_ne!(consult, call);
    answered(&server, "2002");
    sleep(PHASE);
    ask(&server, consult, "complete-conference", json!({"ThisDN": "2001"}));
    sleep(PHASE);
    ask(&server, &call, "release-call", json!({"ThisDN": "2001"}));
    gone(&server, "2001");
    sleep(PHASE);
    customer.command("hangup", "");

    let recordings = finish(&mut server, 2);
    // What the agent asks its colleague the customer never hears, and no recording holds it.
    assert_heard("the customer's phone", &customer.heard(), &[("a", 1), ("", 1), ("am", 1), ("m", 1)]);
    assert_heard("the agent's phone", &agent.heard(), &[("c", 1), ("m", 1), ("cm", 1)]);
    assert_heard("the member's phone", &member.heard(), &[("a", 1), ("ca", 1), ("c", 1)]);
    let of = |side: &str| recordings.iter().find(|recording| recording["recordingSession"]["side"] == side).unwrap();
    let (kept, left) = (of("origination"), of("termination"));
    ended(kept, "origination", "released");
    assert_heard("the customer's, left", &channel(kept, "mixed.wav", 0), &[("c", 1), ("", 1), ("c", 2)]);
    assert_heard("the customer's, right", &channel(kept, "mixed.wav", 1), &[("a", 1), ("", 1), ("am", 1), ("m", 1)]);
    ended(left, "termination", "owner-left");
    assert_heard("the agent's, left", &channel(left, "mixed.wav", 0), &[("c", 1), ("", 1), ("c", 1)]);
    assert_heard("the agent's, right", &channel(left, "mixed.wav", 1), &[("a", 1), ("", 1), ("am", 1)]);
}

/// A program that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_the_readme_says_of_a_conference_with_sipp_is_so() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(root.join("fixtures/sipp")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let here = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    // Other ports, for tests run beside each other and beside whatever uses 5060; all else is as written.
    let ports = ["5060", "5070", "5080", "5090", "5100"].map(|port| (port, free_ports(1)));
    let moved = |text: &str| ports.iter().fold(text.to_owned(), |text, (old, new)| text.replace(old, &new.to_string()));
    let (api, media) = (free_ports(1), free_ports(100));
    let mut config = moved(&here("conference.toml"));
    config += &format!("[media]\nports = \"{media}-{}\"\n[api]\nlisten = \"{V4}:{api}\"\n", media + 99);
    let readme = here("README.md");
    let (_, section) = readme.split_once("\n## A conference").expect("README.md tells of a conference");
    let section = moved(section);
    let commands = |program: &'static str| -> Vec<&str> {
        let lines = section.lines().filter_map(|line| line.strip_prefix("$ ")).filter(|line| line.starts_with(program));
        lines.map(|line| line.split('#').next().unwrap().trim()).collect()
    };
    let (sipp, script) = (commands("sipp "), commands("../../deploy/examples/conference.sh"));
    assert_eq!((sipp.len(), script.len()), (4, 1), "{section}");
    // The front page says the same.
    let front = moved(&fs::read_to_string(root.join("README.md")).unwrap());
    for command in sipp.iter().chain(&script) {
        assert!(front.contains(&format!("\n$ {command}")), "{command} is not in README.md");
    }

    let mut server = Server::start_as(folder, &config, ports[0].1, api, &[], "info");
    let mut phones = Vec::new();
    for line in sipp {
        let words = line.split_whitespace().skip(1).filter(|word| *word != "-bg");
        let child = Command::new("sipp")
            .args(["-nostdin", "-trace_err", "-timeout", "30s", "-timeout_error"])
            .args(words)
            .current_dir(server.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("SIPp is installed (./test.sh)");
        phones.push((line, Running(child)));
        sleep(Duration::from_millis(300));
    }
    let mut words = script[0].split_whitespace();
    let script = root.join("fixtures/sipp").join(words.next().unwrap());
    let output = Command::new(script)
        .args(words)
        .arg(format!("http://{V4}:{api}"))
        .env("PAUSE", PHASE.as_secs_f64().to_string())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&said), server.log());
    for (line, mut phone) in phones {
        let status = wait_for(line, Duration::from_secs(10), || phone.0.try_wait().unwrap());
        assert!(status.success(), "{line}: {status}\n{}", server.log());
    }
    let recordings = finish(&mut server, 1);
    ended(&recordings[0], "origination", "released");
    assert_heard("mixed.wav left", &channel(&recordings[0], "mixed.wav", 0), &[("c", 7)]);
    assert_heard("mixed.wav right", &channel(&recordings[0], "mixed.wav", 1), &[("a", 1), ("am", 5), ("a", 1)]);
    assert_heard("supervisor-1.wav", &channel(&recordings[0], "supervisor-1.wav", 0), &[("s", 5)]);
}
