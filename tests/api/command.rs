//! `stickytape calls` and `stickytape request` against a listener.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use stickytape::call::request::{Ask, Code, Denied, OwnerWish};

use super::{Fake, Server};

fn command(server: &Server, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stickytape"));
    command.args(line.split(' ')).args(["--api", &server.url("/")]).stdin(Stdio::null());
    command
}

fn run(server: &Server, line: &str) -> Output {
    command(server, line).output().unwrap()
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn json_out(output: &Output) -> Value {
    serde_json::from_str(out(output)).unwrap()
}

#[test]
fn calls_are_a_table_or_json() {
    let server = Server::start(Fake::default(), None);
    let list = run(&server, "calls list");
    assert!(list.status.success() && out(&list).contains("00000000000000AB"), "{list:?}");
    assert!(out(&list).contains("talking") && out(&list).contains("2026-11-20 09:00:00"), "{}", out(&list));
    assert_eq!(json_out(&run(&server, "calls list --json"))["calls"][0]["connId"], "00000000000000AB");
    let show = run(&server, "calls show AB");
    assert!(show.status.success() && out(&show).contains("CallUUID 00000000"), "{show:?}");
    let none = run(&server, "calls show AC");
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("not-found"), "{none:?}");
}

#[test]
fn a_call_is_shown_with_the_figures_of_its_media_and_the_levels_of_its_recordings() {
    let server = Server::start(Fake::default(), None);
    let show = run(&server, "calls show AB");
    let cells: Vec<Vec<&str>> = out(&show).lines().map(|line| line.split_whitespace().collect()).collect();
    let has = |row: &[&str]| cells.iter().any(|cells| row.iter().all(|cell| cells.contains(cell)));
    let figures = ["PCMU/8000", "192.0.2.7:4000", "1500", "1499", "3", "2", "1.3", "-42.5", "09:00:30"];
    assert!(has(&figures), "{}", out(&show));
    assert!(has(&["dn", "recording", "mixed.wav", "0", "-12.1", "-23.4"]), "{}", out(&show));
    assert!(has(&["mixed.wav", "1", "silent"]), "{}", out(&show));
}

#[test]
fn events_that_are_kept_are_printed_and_no_others_waited_for() {
    let server = Server::start(Fake::default(), None);
    for dn in ["2001", "2002", "2001"] {
        server.backend.hub.tell(dn, 0);
    }
    for (line, wanted) in [
        ("calls events --json", vec![1, 2, 3]),
        ("calls events --json --after 1", vec![2, 3]),
        ("calls events --json --dn 2001 --after 0", vec![1, 3]),
    ] {
        let output = run(&server, line);
        let lines = out(&output).lines();
        let seqs: Vec<_> = lines.map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].clone()).collect();
        assert_eq!((output.status.code(), json!(seqs)), (Some(0), json!(wanted)), "{line}");
    }
}

#[test]
fn a_request_is_asked_as_typed_and_its_answer_printed() {
    let server = Server::start(Fake::default(), None);
    let line = "request record-start AB --this-dn 2001 --extension record=destination --reference-id r-1";
    let plain = run(&server, line);
    assert!(plain.status.success() && out(&plain).contains("ReferenceID  r-1"), "{plain:?}");
    let asked = server.backend.requests.lock().unwrap().pop().unwrap();
    assert_eq!(asked.ask, Ask::RecordStart { owner: OwnerWish::Destination });
    assert_eq!((asked.this_dn.as_str(), asked.reference.as_deref()), ("2001", Some("r-1")));
    let line = "request complete-transfer AB --this-dn 2001 --other-conn-id AC --reference-id r-2 --json";
    assert_eq!(json_out(&run(&server, line)), json!({"ReferenceID": "r-2", "ConnID": "00000000000000AB"}));
}

#[test]
fn a_call_is_made_without_a_conn_id_and_nothing_else_is_asked_without_one() {
    let server = Server::start(Fake::default(), None);
    let made = run(&server, "request make-call --this-dn 2001 --other-dn 2002 --reference-id r-1");
    assert!(made.status.success() && out(&made).contains("make-call accepted"), "{made:?}");
    let asked = server.backend.requests.lock().unwrap().pop().unwrap();
    assert_eq!((asked.this_dn.as_str(), asked.ask), ("2001", Ask::MakeCall { to: "2002".into() }));
    for wrong in ["request make-call AB --this-dn 2001 --other-dn 2002", "request hold-call --this-dn 2001"] {
        let refused = run(&server, wrong);
        assert_eq!(refused.status.code(), Some(2), "{wrong}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("CONNID"), "{refused:?}");
    }
    assert!(server.backend.requests.lock().unwrap().is_empty());
}

#[test]
fn a_refusal_is_readable_and_exits_with_1() {
    let fake = Fake::default();
    let denied = Denied { code: Code::WrongState, detail: "D2 is not held".into(), state: "talking".into() };
    fake.answers.lock().unwrap().extend([Err(denied.clone()), Err(denied)]);
    let server = Server::start(fake, None);
    let plain = run(&server, "request retrieve-call AB --this-dn 2001");
    assert_eq!(plain.status.code(), Some(1));
    let told = String::from_utf8_lossy(&plain.stderr);
    assert!(["wrong-state", "D2 is not held", "talking"].iter().all(|text| told.contains(text)), "{told}");
    let as_json = run(&server, "request retrieve-call AB --this-dn 2001 --json");
    assert_eq!((as_json.status.code(), &json_out(&as_json)["code"]), (Some(1), &json!("wrong-state")));
}

#[test]
fn the_token_comes_from_a_file() {
    let server = Server::start(Fake::default(), Some("correct-horse"));
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "correct-horse").unwrap();
    let with = command(&server, "calls list").arg("--token-file").arg(file.path()).output().unwrap();
    assert!(with.status.success(), "{with:?}");
    let without = run(&server, "calls list");
    assert_eq!(without.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&without.stderr).contains("unauthorized"), "{without:?}");
    let missing = command(&server, "calls list").args(["--token-file", "/nonexistent/token"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
}

#[test]
fn a_server_that_is_not_there_exits_with_69() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for line in ["calls list", "calls follow", "calls events", "request hold-call AB --this-dn 2001"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stickytape"));
        let output = command.args(line.split(' ')).args(["--api", &format!("http://{free}")]).output().unwrap();
        assert_eq!(output.status.code(), Some(69), "{line}: {output:?}");
    }
}

#[test]
fn follow_prints_events_as_they_come() {
    let server = Server::start(Fake::default(), None);
    server.backend.hub.tell("2001", 0);
    for (line, wanted) in [
        ("calls follow --after 0 --json", "\"seq\":2"),
        ("calls follow --after 0 --dn 2001", "EventHeld"),
        ("calls events --follow --after 0 --json", "\"seq\":2"),
    ] {
        let mut child = command(&server, line).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        assert!(first.contains("EventHeld") && first.contains("2001"), "{first}");
        server.backend.hub.tell("2001", 0);
        let second = lines.next().unwrap().unwrap();
        assert!(second.contains(wanted), "{second}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
