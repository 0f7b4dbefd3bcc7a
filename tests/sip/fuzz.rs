//! The parser holds its rules for the corpus of inputs, and for random changes of it.
//!
//! `STICKYTAPE_FUZZ_SECONDS=600 cargo test --release --test sip fuzz -- --nocapture` fuzzes for ten minutes. An input that
//! breaks a rule is printed and written to the folder for temporary files; put it into `fixtures/fuzz-corpus`.
//! `STICKYTAPE_FUZZ_SEED` repeats a run, `STICKYTAPE_FUZZ_KEEP` names a folder for the inputs that showed something new.

use std::collections::HashSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stickytape::clock;
use stickytape::sip::fuzz::fuzz_parse;

/// Changed inputs of every ordinary test run.
const SMOKE_INPUTS: u64 = 3_000;
/// Largest input, in bytes; larger ones test the limits, which have tests of their own.
const LARGEST: usize = 6_000;

const TOKENS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n ",
    b"\r\n\r\n",
    b"\n\n",
    b"\0",
    b"\t",
    b" ",
    b":",
    b";",
    b",",
    b"<",
    b">",
    b"\"",
    b"\\",
    b"(",
    b")",
    b"@",
    b"?",
    b"&",
    b"=",
    b"%00",
    b"%3B",
    b"%",
    b"*",
    b"[",
    b"]",
    b"[::1]",
    b"[::ffff:1.2.3.4]",
    b"127.0.0.1",
    b"SIP/2.0",
    b"SIP/2.0 200 OK",
    b"INVITE",
    b"ACK",
    b"CANCEL",
    b"BYE sip:a SIP/2.0",
    b"sip:",
    b"sips:",
    b"tel:+1",
    b"Via: ",
    b"v: SIP/2.0/UDP h;branch=z9hG4bK",
    b"Content-Length: ",
    b"l:0",
    b"l: 99999999999",
    b"Contact: *",
    b"m:",
    b"From:",
    b"To: ",
    b";tag=",
    b";rport",
    b";received=",
    b"CSeq: 1 INVITE",
    b"Call-ID: a",
    b"Route: <sip:r;lr>",
    b"?Replaces=",
    b"&Require=replaces",
    b";to-tag=1;from-tag=2",
    b"%3Bto-tag%3D1%3Bfrom-tag%3D2",
    b";early-only",
    b";method=BYE",
    b"Refer-To: <sip:c@d?Replaces=a%3Bto-tag%3D1%3Bfrom-tag%3D2>",
    b"Replaces: a;to-tag=1;from-tag=2",
    b"Join: a;to-tag=1;from-tag=2",
    b"Target-Dialog: a;local-tag=1;remote-tag=2",
    b"Refer-Sub: false",
    b"Referred-By: <sip:a@b>",
    b"Event: refer;id=1",
    b"Subscription-State: active;expires=60",
    b"REFER sip:a SIP/2.0",
    b"%0d%0a",
    b"2147483648",
    b"4294967296",
    b"-1",
    b"\xff",
    b"\xc3\xa4",
    b"Digest realm=",
    b";lr",
    b"Max-Forwards: 0",
];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

fn corpus() -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<PathBuf> = ["fuzz-corpus", "torture"]
        .iter()
        .flat_map(|name| fs::read_dir(folder(name)).expect("the fixtures"))
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).expect("a readable file"))).collect()
}

#[test]
fn the_parser_holds_its_rules_for_the_whole_corpus() {
    let corpus = corpus();
    assert!(corpus.len() > 40, "{} files", corpus.len());
    for (path, data) in corpus {
        assert!(catch_unwind(|| fuzz_parse(&data)).is_ok(), "{} breaks a rule", path.display());
    }
}

#[test]
fn the_parser_holds_its_rules_for_random_changes() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let limit = number("STICKYTAPE_FUZZ_SECONDS").map(Duration::from_secs);
    let begun = clock::now();
    let mut random = StdRng::seed_from_u64(number("STICKYTAPE_FUZZ_SEED").unwrap_or(0x571C_4917));
    let mut inputs: Vec<Vec<u8>> = corpus().into_iter().map(|(_, data)| data).collect();
    let mut seen: HashSet<u64> = inputs.iter().flat_map(|data| fuzz_parse(data)).collect();
    let mut tried = 0u64;
    loop {
        let done = match limit {
            Some(limit) => tried.is_multiple_of(1_024) && clock::now().duration_since(begun) >= limit,
            None => tried == SMOKE_INPUTS,
        };
        if done {
            break;
        }
        tried += 1;
        let data = changed(&inputs, &mut random);
        let Ok(found) = catch_unwind(|| fuzz_parse(&data)) else {
            let path = std::env::temp_dir().join("stickytape-fuzz-failure");
            fs::write(&path, &data).expect("a folder for temporary files");
            panic!("input {tried} breaks a rule ({}): {}", path.display(), data.escape_ascii());
        };
        let before = seen.len();
        seen.extend(found);
        if seen.len() > before {
            keep(tried, &data);
            inputs.push(data);
        }
    }
    println!("fuzzed {tried} inputs in {:?}, {} things seen", clock::now().duration_since(begun), seen.len());
}

fn keep(number: u64, data: &[u8]) {
    if let Ok(folder) = std::env::var("STICKYTAPE_FUZZ_KEEP") {
        fs::write(Path::new(&folder).join(format!("{number:012}")), data).expect("the folder to keep inputs in");
    }
}

fn changed(inputs: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut data = inputs[random.random_range(0..inputs.len())].clone();
    for _ in 0..random.random_range(1..=4) {
        change(&mut data, inputs, random);
    }
    data.truncate(LARGEST);
    data
}

fn change(data: &mut Vec<u8>, inputs: &[Vec<u8>], random: &mut StdRng) {
    let at = random.random_range(0..=data.len());
    let end = random.random_range(at..=data.len().min(at + 64));
    match random.random_range(0..9) {
        0 if at < data.len() => data[at] ^= 1 << random.random_range(0..8),
        1 if at < data.len() => data[at] = random.random(),
        2 => drop(data.drain(at..end)),
        3 => {
            let piece = data[at..end].to_vec();
            let to = random.random_range(0..=data.len());
            data.splice(to..to, piece);
        }
        4 | 5 => {
            let token = TOKENS[random.random_range(0..TOKENS.len())];
            data.splice(at..at, token.iter().copied());
        }
        6 => {
            let token = TOKENS[random.random_range(0..TOKENS.len())];
            data.splice(at..end, token.iter().copied());
        }
        7 => {
            let other = &inputs[random.random_range(0..inputs.len())];
            let from = random.random_range(0..=other.len());
            data.splice(at.., other[from..].iter().copied());
        }
        _ => move_line(data, inputs, random),
    }
}

/// Takes a line of any input to a random place between two lines.
fn move_line(data: &mut Vec<u8>, inputs: &[Vec<u8>], random: &mut StdRng) {
    let other = &inputs[random.random_range(0..inputs.len())];
    let lines: Vec<&[u8]> = other.split_inclusive(|b| *b == b'\n').collect();
    let starts: Vec<usize> = data.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1).collect();
    if let (false, Some(to)) = (lines.is_empty(), starts.get(random.random_range(0..starts.len().max(1)))) {
        let line = lines[random.random_range(0..lines.len())].to_vec();
        data.splice(*to..*to, line);
    }
}
