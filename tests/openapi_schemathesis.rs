//! schemathesis finds nothing wrong between `/openapi.json` and the live server, with authentication on.
//!
//! It is a Python program that neither this crate nor its tests carry: `pip install schemathesis`, then
//! `cargo test --test openapi_schemathesis -- --ignored --nocapture`. STICKYTAPE_SCHEMATHESIS names it when `st` is not in
//! the path.

mod peers;

use std::process::Command;
use std::time::Duration;

use peers::{Options, Server, Sipp, V4, at, free_ports};

#[test]
#[ignore = "needs schemathesis"]
fn schemathesis_runs_clean_against_a_server_with_a_call_and_a_token() {
    let program = std::env::var("STICKYTAPE_SCHEMATHESIS").unwrap_or_else(|_| "st".into());
    let folder = tempfile::tempdir().unwrap();
    let [sip, api, callee] = [(); 3].map(|()| free_ports(1));
    let media = free_ports(100);
    std::fs::write(folder.path().join("token"), "correct-horse-battery-staple\n").unwrap();
    let config = format!(
        "[sip]\nlisten = [\"udp:{V4}:{sip}\"]\ndrain-timeout = \"1s\"\n\
         [media]\nports = \"{media}-{}\"\npriority = \"normal\"\n[recording]\nmin-free-space = \"1MiB\"\n\
         [api]\nlisten = \"{V4}:{api}\"\ntoken-file = \"token\"\n[[trunk]]\nname = \"callers\"\nfrom = [\"{V4}\"]\n\
         [[dn]]\nnumber = \"2001\"\ncontact = \"sip:2001@{V4}:{callee}\"\n\
         [[dn]]\nnumber = \"2002\"\ncontact = \"sip:2002@{V4}:{callee}\"\nrole = \"supervisor\"\n",
        media + 99
    );
    let mut server = Server::start_as(folder, &config, sip, api, &[], "warn");
    let folder = server.folder.path().to_owned();
    // A call that is up meanwhile: /v1/calls shows one.
    let talk = Duration::from_secs(600);
    let called = Sipp::start(&folder, &Options { scenario: "uas_answer", port: callee, talk, ..Options::default() });
    let target = Some(at(V4, sip));
    let calling = Sipp::start(&folder, &Options { scenario: "uac_talk", target, talk, ..Options::default() });
    let run = Command::new(&program)
        .args(["run", &format!("http://{V4}:{api}/openapi.json")])
        .args(["--header", "Authorization: Bearer correct-horse-battery-staple"])
        // Streams have no end; other tests are about them.
        .args(["--exclude-path-regex", "^/v1/(events|reporting/events|agents/.*/ws|events/ws)$"])
        .args(["--rate-limit", "90/s", "--max-examples", "40", "--request-timeout", "15", "--no-color"])
        .current_dir(&folder)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&run.stdout);
    eprintln!("{}", said.rsplit_once("SUMMARY").map_or("", |(_, summary)| summary));
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));
    drop((calling, called));
    // Nobody is left to answer a BYE.
    server.kill();
    let log = server.log();
    assert!(!log.contains("panicked") && !log.contains("correct-horse"), "{log}");
}
