//! `stickytape serve` as an operator meets it: exit codes, signals, what its log tells and what it must not tell.

mod peers;

use std::fs;
use std::net::UdpSocket;
use std::process::{Command, Output};
use std::time::Duration;

use peers::{Options, Server, Setup, Sipp, V4, at, free_ports};
use rustix::process::Signal;

fn serve(text: &str) -> (tempfile::TempDir, Output) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("stickytape.toml"), text).unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_stickytape")).arg("serve").current_dir(folder.path()).output().unwrap();
    (folder, output)
}

fn plan(phone: u16) -> String {
    format!(
        "[[trunk]]\nname = \"callers\"\nfrom = [\"127.0.0.1\"]\n[[dn]]\nnumber = \"2001\"\ncontact = \"sip:2001@{V4}:{phone}\"\n"
    )
}

/// A server with a call that would last for long, and the two SIPp that hold it.
fn talking(setup: Setup) -> (Server, Sipp, Sipp) {
    let phone = free_ports(1);
    let server = Server::start(&Setup { plan: plan(phone), ..setup });
    let folder = server.folder.path().to_owned();
    let callee = Sipp::start(&folder, &Options { scenario: "uas_answer", port: phone, ..Options::default() });
    let target = Some(at(V4, server.sip));
    let caller = Sipp::start(&folder, &Options { scenario: "uac_wait_bye", target, ..Options::default() });
    peers::wait_for("the call", Duration::from_secs(5), || {
        (server.json("/v1/calls")["calls"][0]["state"] == "talking").then_some(())
    });
    (server, caller, callee)
}

#[test]
fn a_wrong_configuration_is_exit_64_and_leaves_nothing_behind() {
    let (folder, output) = serve("[sip]\nlisten = [\"udp:127.0.0.1\"]\n");
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("stickytape.toml:2: sip.listen: expected TRANSPORT:ADDRESS:PORT"), "{said}");
    assert!(output.stdout.is_empty());
    assert!(!folder.path().join("recordings").exists());
}

#[test]
fn an_address_in_use_is_exit_69_and_is_named() {
    let taken = UdpSocket::bind((V4, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let (_folder, output) = serve(&format!("[sip]\nlisten = [\"udp:{V4}:{port}\"]\n[api]\nlisten = \"off\"\n"));
    assert_eq!(output.status.code(), Some(69));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&format!("{V4}:{port}")) && said.contains("in use"), "{said}");
}

#[test]
fn forwarding_in_the_kernel_without_the_capabilities_for_it_is_exit_69_and_names_them() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "[sip]\nlisten = [\"udp:{V4}:{}\"]\n[media]\nkernel-forwarding = [\"lo\"]\n[api]\nlisten = \"off\"\n",
        free_ports(1)
    );
    fs::write(folder.path().join("stickytape.toml"), text).unwrap();
    let output = Command::new("setpriv")
        .args(["--inh-caps=-all", "--bounding-set=-all", env!("CARGO_BIN_EXE_stickytape"), "serve"])
        .current_dir(folder.path())
        .output()
        .expect("setpriv is installed (./test.sh)");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(69), "{said}");
    let named = said.lines().any(|line| {
        line.starts_with("media.kernel-forwarding: ") && line.contains("CAP_BPF") && line.contains("CAP_NET_ADMIN")
    });
    assert!(named, "{said}");
}

#[test]
fn a_second_server_on_the_same_recordings_is_exit_69() {
    let mut server = Server::start(&Setup::default());
    let text = format!(
        "[sip]\nlisten = [\"udp:{V4}:{}\"]\n[recording]\ndirectory = {:?}\n[api]\nlisten = \"off\"\n",
        free_ports(1),
        server.directory()
    );
    let (_folder, output) = serve(&text);
    assert_eq!(output.status.code(), Some(69), "{}", String::from_utf8_lossy(&output.stderr));
    server.stop();
}

#[test]
fn sigterm_lets_calls_go_on_for_the_drain_timeout_then_ends_and_publishes_them() {
    let (mut server, caller, callee) = talking(Setup { drain: "4s", ..Setup::default() });
    server.signal(Signal::TERM);
    peers::wait_for("not ready", Duration::from_secs(2), || {
        let (status, body) = server.get("/readyz")?;
        (status == 503 && body.contains("draining")).then_some(())
    });
    let target = Some(at(V4, server.sip));
    let folder = server.folder.path().to_owned();
    Sipp::start(&folder, &Options { scenario: "uac_refused_503", target, ..Options::default() }).succeed(&server);
    caller.succeed(&server);
    callee.succeed(&server);
    let recordings = server.published(1);
    assert_eq!(recordings[0]["recordingSession"]["stopCause"], "shutdown");
    server.stop_and_verify();
}

#[test]
fn a_second_sigterm_ends_the_calls_at_once() {
    let (mut server, caller, callee) = talking(Setup { drain: "60s", ..Setup::default() });
    server.signal(Signal::TERM);
    peers::wait_for("not ready", Duration::from_secs(2), || (server.get("/readyz")?.0 == 503).then_some(()));
    server.stop();
    caller.succeed_silently();
    callee.succeed_silently();
    assert_eq!(server.published(1)[0]["recordingSession"]["stopCause"], "shutdown");
}

#[test]
fn sighup_reads_the_plan_again_and_a_wrong_file_changes_nothing() {
    let phone = free_ports(1);
    let mut server = Server::start(&Setup { plan: plan(phone), ..Setup::default() });
    let folder = server.folder.path().to_owned();
    let file = folder.join("stickytape.toml");
    let right = fs::read_to_string(&file).unwrap();
    let target = Some(at(V4, server.sip));
    let call = |server: &Server, number: &'static str| {
        let callee = Sipp::start(&folder, &Options { scenario: "uas_answer", port: phone, ..Options::default() });
        let caller = Options { scenario: "uac_talk", number, target, ..Options::default() };
        Sipp::start(&folder, &caller).succeed(server);
        callee.succeed(server);
    };
    let reloaded = |server: &Server, words: &str| {
        server.signal(Signal::HUP);
        peers::wait_for(words, Duration::from_secs(5), || server.log().contains(words).then_some(()));
    };

    fs::write(&file, format!("{right}\n[[dn]]\nnumber = 3001\n")).unwrap();
    reloaded(&server, "was not reloaded");
    call(&server, "2001");

    fs::write(&file, right.replace("\"2001\"", "\"3001\"")).unwrap();
    reloaded(&server, "routes reloaded");
    let refused = Options { scenario: "uac_refused_404", target, ..Options::default() };
    Sipp::start(&folder, &refused).succeed(&server);
    call(&server, "3001");
    server.published(2);
    server.stop_and_verify();
}

#[test]
fn no_number_and_no_name_of_a_caller_is_in_the_log() {
    let phone = free_ports(1);
    let plan = plan(phone) + "[[route]]\nmatch = \"^70015550123$\"\nto = \"dn:2001\"\n";
    let mut server = Server::start(&Setup { plan, log: "trace", ..Setup::default() });
    let folder = server.folder.path().to_owned();
    let target = Some(at(V4, server.sip));
    let callee = Sipp::start(&folder, &Options { scenario: "uas_info", port: phone, ..Options::default() });
    let caller = Options { scenario: "uac_info", number: "70015550123", target, ..Options::default() };
    Sipp::start(&folder, &caller).succeed(&server);
    callee.succeed(&server);
    let refused = Options { scenario: "uac_refused_404", number: "80015550123", target, ..Options::default() };
    Sipp::start(&folder, &refused).succeed(&server);
    server.published(1);
    server.stop();
    let log = server.log();
    assert!(log.contains("call started") && log.contains("recording published"), "{log}");
    for secret in ["5550123", "SIPp", "sipp@", "Signal=5"] {
        assert!(!log.contains(secret), "{secret} is in\n{log}");
    }
}
