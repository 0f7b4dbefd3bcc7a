//! `stickytape check` as a user runs it: exit codes, what goes to stdout, what goes to stderr.

use std::path::Path;
use std::process::{Command, Output};

fn stickytape(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stickytape")).args(arguments).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn fixture(name: &str) -> String {
    format!("{}/fixtures/config/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_right_configuration_is_explained_on_stdout_with_exit_0() {
    let folder = tempfile::tempdir().unwrap();
    let output = stickytape(folder.path(), &["check", "--config", &fixture("office.toml")]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let page = text(&output.stdout);
    for line in [
        "  listens on   udp:127.0.0.1:5060, tcp:[::1]:5060",
        "  shows peers  203.0.113.7; in 10.0.0.0/8, 192.168.1.17/32 the address that reaches them",
        "  calls        at most 500 at once",
        "  replayed     the last 100000",
        "  written to   no file",
        "  belong to    nobody by default; DNs, trunks and routes below may record",
        "  2000-2499    at sip:{number}@10.0.0.5:5060; its leg is recorded in every call",
        "  3000         at sip:10.0.0.6:5060; recording is required",
        "  route 1      ^9(\\d+)$ → trunk carrier, dialled as $1; records the DN's side",
        "  route 2      ^\\+4930(\\d+)$ from trunk carrier → DN $1; goes back to queue:sales",
    ] {
        assert!(page.lines().any(|found| found == line), "{line}\nis not in\n{page}");
    }
    assert!(page.contains("calls out to sip:198.51.100.10:5060;transport=udp, then sip:backup.example.net"), "{page}");
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "check writes nothing");
}

#[test]
fn a_wrong_configuration_is_exit_64_with_file_line_key_and_suggestion_on_stderr() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("stickytape.toml"),
        "[sip]\nring-timout = \"60s\"\n[media]\nsrtp = \"optional\"\n",
    )
    .unwrap();
    let output = stickytape(folder.path(), &["check"]);
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(
        text(&output.stderr),
        "stickytape.toml:2: sip.ring-timout: unknown key; did you mean `ring-timeout`?\n\
         stickytape.toml:4: media.srtp: not built yet: SRTP; leave the key out or write \"off\"\n"
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn an_interface_that_is_not_here_is_answered_with_those_that_are() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stickytape.toml");
    std::fs::write(file, "[media]\npriority = \"normal\"\nkernel-forwarding = [\"etth0\"]\n").unwrap();
    let output = stickytape(folder.path(), &["check"]);
    assert_eq!(output.status.code(), Some(64));
    let line = text(&output.stderr);
    let said = "stickytape.toml:3: media.kernel-forwarding: no interface for it here is called \"etth0\"; there are ";
    let here: Vec<&str> = line.trim_end().strip_prefix(said).unwrap_or_else(|| panic!("{line}")).split(", ").collect();
    assert!(here.contains(&"lo"), "{line}");
    assert!(here.iter().all(|name| Path::new("/sys/class/net").join(name).exists()), "{line}");
    assert!(output.stdout.is_empty());
}

#[test]
fn without_a_file_the_defaults_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let output = stickytape(folder.path(), &["check"]);
    assert_eq!(output.status.code(), Some(0));
    let page = text(&output.stdout);
    assert!(page.starts_with("No configuration file: built-in defaults\n"), "{page}");
    assert!(page.contains("Nobody may call"), "{page}");
}

#[test]
fn a_file_that_is_named_must_exist() {
    let folder = tempfile::tempdir().unwrap();
    let output = stickytape(folder.path(), &["check", "--config", "none.toml"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).starts_with("none.toml: cannot be read:"), "{}", text(&output.stderr));
}

#[test]
fn more_calls_than_the_ports_carry_is_exit_64_with_the_number_needed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stickytape.toml");
    std::fs::write(&file, "[sip]\nmax-calls = 100\n[media]\nports = \"10000-10099\"\n").unwrap();
    let output = stickytape(folder.path(), &["check"]);
    assert_eq!(output.status.code(), Some(64));
    let line = text(&output.stderr);
    assert!(line.contains("needs 400 media ports") && line.contains("at most 25"), "{line}");
}

#[test]
fn rooms_are_explained_without_their_pin() {
    let folder = tempfile::tempdir().unwrap();
    let rooms = "[[conference]]\nnumber = \"800\"\npin = \"90817263\"\nmax-members = 5\nwhen-alone = \"wait\"\n\
                 [[conference]]\nnumber = \"801\"\nrecord = false\n";
    std::fs::write(folder.path().join("stickytape.toml"), rooms).unwrap();
    let output = stickytape(folder.path(), &["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let page = text(&output.stdout);
    let rest = "at most 5 members; goes on while one is left; recorded by default";
    for line in [
        format!("  800          who may call and enters the PIN; {rest}"),
        "  801          everybody who may call; at most 64 members; ends when one is left; not recorded".to_owned(),
    ] {
        assert!(page.lines().any(|found| found == line), "{line}\nis not in\n{page}");
    }
    assert!(!page.contains("90817263"));
}

#[test]
fn a_secret_is_in_no_output() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), "correct-horse\n").unwrap();
    let text_of = "[api]\nlisten = \"127.0.0.1:0\"\ntoken-file = \"secret\"\n\
                   [[trunk]]\nname = \"a\"\naddress = \"sip:192.0.2.1\"\nusername = \"u\"\npassword-file = \"secret\"\n";
    std::fs::write(folder.path().join("stickytape.toml"), text_of).unwrap();
    let output = stickytape(folder.path(), &["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(!text(&output.stdout).contains("correct-horse") && !text(&output.stderr).contains("correct-horse"));
}
