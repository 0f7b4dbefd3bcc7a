//! `stickytape demo` as a newcomer runs it.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use stickytape::cli::demo;

fn run(folder: &Path) -> (Output, Duration) {
    let start: Instant = stickytape::clock::now();
    let output = Command::new(env!("CARGO_BIN_EXE_stickytape"))
        .args(["demo", "--dir"])
        .arg(folder)
        // Nobody answers there: what is asked of this machine needs no proxy.
        .env("http_proxy", "http://127.0.0.1:9")
        .env_remove("no_proxy")
        .env_remove("NO_PROXY")
        .output()
        .expect("the program of this package runs");
    (output, start.elapsed())
}

/// The files of a name below a folder.
fn find(folder: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(find(&path, name));
        } else if entry.file_name() == name {
            found.push(path);
        }
    }
    found
}

/// In which second somebody is heard in the first recording or phone of a name that tells of it.
fn strip<'a>(text: &'a str, who: &str, stream: &str) -> &'a str {
    let found = text.lines().find_map(|line| {
        let line = line.trim().strip_prefix(who)?.strip_prefix(' ')?.trim_start();
        let (strip, rest) = line.split_once(' ').unwrap_or((line, ""));
        (rest.trim() == stream && strip.chars().all(|second| "#.".contains(second))).then_some(strip)
    });
    found.unwrap_or_else(|| panic!("no strip of {who} in {stream:?} in\n{text}"))
}

#[test]
fn the_demo_records_its_calls_and_tells_when_a_recording_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let (output, time) = run(folder.path());
    let text = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}\n{complaints}");
    assert!(time < Duration::from_secs(30), "{time:?}");
    for part in [
        "Ann calls Bob",
        "holds the call",
        "takes the call back",
        "Dan transfers the call to Eva",
        "Gina transfers the call to Hugo",
        "Kim wants to coach Jack's next call",
        "Kim answers and coaches",
        "Kim is connected",
        "left",
        "right",
        "dBFS",
        "ok",
        "mixed.wav",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert!(!text.contains("WRONG"), "{text}");
    let files = find(folder.path(), "mixed.wav");
    assert_eq!(files.len(), 4);
    assert!(files.iter().all(|file| text.contains(file.to_str().unwrap())), "{text}");
    assert_eq!(find(folder.path(), "supervisor-1.wav").len(), 1);
    // The caller's recording goes on with the third party, the agent's does not.
    for (name, is_heard) in [("Cleo", true), ("Dan", true), ("Eva", true), ("Gina", true), ("Hugo", false)] {
        assert_eq!(strip(&text, name, "").contains('#'), is_heard, "{name}\n{text}");
    }
    // The supervisor's voice has a file of its own; what it coaches the agent hears, and not the customer.
    assert!(!strip(&text, "Kim", "mixed.wav").contains('#'), "{text}");
    let coached_at = strip(&text, "Kim", "supervisor-1.wav").find('#').expect("the supervisor speaks");
    let agent_heard_at = strip(&text, "Kim", "as Jack heard it").find('#').expect("the agent hears it coach");
    // A mix is heard later, by tens of milliseconds: perhaps in the next second.
    assert!((coached_at..=coached_at + 1).contains(&agent_heard_at), "{text}");
    let connected_at = strip(&text, "Kim", "as Ivy heard it").find('#').expect("the customer hears it in the end");
    assert!(connected_at > coached_at + 1, "{text}");
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(rows.iter().any(|row| row.ends_with(&["mixed.wav", "2007", "absent", "0.0", "s", "│"])), "{text}");
    assert!(rows.iter().any(|row| row.windows(2).any(|pair| pair == ["supervisor-1.wav", "2007"])), "{text}");

    // What the demo does at its end, on the same folder.
    assert!(demo::verdict(folder.path(), None, vec![]).unwrap());
    assert!(!demo::verdict(folder.path(), None, vec!["a phone heard nothing".to_owned()]).unwrap());
    let whole = std::fs::read(&files[0]).unwrap();
    let flipped = {
        let mut bytes = whole.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bytes
    };
    let silent = [&whole[..44], &vec![0; whole.len() - 44]].concat();
    for (damage, bytes) in [("one bit", flipped), ("its end", whole[..whole.len() / 2].to_vec()), ("its sound", silent)]
    {
        std::fs::write(&files[0], bytes).unwrap();
        assert!(!demo::verdict(folder.path(), None, vec![]).unwrap(), "{damage} may not be missing");
    }
    std::fs::write(&files[0], &whole).unwrap();
    assert!(demo::verdict(folder.path(), None, vec![]).unwrap());

    let metadata = files[0].with_file_name("recording.json");
    let text = std::fs::read(&metadata).unwrap();
    for bytes in [&b"{"[..], b""] {
        std::fs::write(&metadata, bytes).unwrap();
        assert!(!demo::verdict(folder.path(), None, vec![]).unwrap(), "broken metadata");
    }
    std::fs::write(&metadata, text).unwrap();
    std::fs::remove_file(&files[0]).unwrap();
    assert!(!demo::verdict(folder.path(), None, vec![]).unwrap(), "a missing file");
}

#[test]
fn the_demo_exits_with_1_when_its_recording_is_damaged_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Command::new(env!("CARGO_BIN_EXE_stickytape"))
        .args(["demo", "--dir"])
        .arg(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program of this package runs");
    // Four seconds of stereo are on disk: all that Ann says in the demo. They are wiped out before they are hashed.
    let said = 44 + 4 * 2 * 2 * 8_000;
    let start = stickytape::clock::now();
    let file = loop {
        assert!(start.elapsed() < Duration::from_secs(20), "the demo writes no recording");
        let grown = |path: &PathBuf| std::fs::metadata(path).is_ok_and(|file| file.len() >= said);
        if let Some(file) = find(folder.path(), "mixed.wav").into_iter().find(grown) {
            break file;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
    file.write_all_at(&vec![0; said as usize - 44], 44).unwrap();

    let output = demo.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}
