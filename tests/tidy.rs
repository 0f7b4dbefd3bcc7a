//! The code checks itself: layers, sizes, homes of crates, clocks, words. Each rule has a case that it must refuse.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A file without its tests.
const MAX_FILE_LINES: usize = 800;
/// A function from its `fn` to its closing brace.
const MAX_FUNCTION_LINES: usize = 70;

/// Functions that may be longer: each is one table written as a `match`, a line for every header name.
const TABLES: &[(&str, &str)] = &[("sip/name.rs", "of_lower"), ("sip/name.rs", "canonical")];

/// What a module of the crate may use besides itself; `*` is every module.
const LAYERS: &[(&str, &[&str])] = &[
    ("id", &[]),
    ("codec", &[]),
    ("clock", &[]),
    ("audio", &["id", "codec", "clock"]),
    ("rtp", &["id", "codec", "clock"]),
    ("sdp", &["id", "codec", "clock"]),
    ("sip", &["id", "codec", "clock"]),
    ("bridge", &["id", "codec", "clock", "rtp", "audio"]),
    ("record", &["id", "codec", "clock", "rtp", "audio"]),
    ("call", &["id", "codec", "clock", "audio::signal", "sip", "sdp", "bridge::command", "record::mark"]),
    ("views", &["id", "call::fact", "call::request", "record::mark"]),
    ("net", LOW),
    ("disk", LOW),
    ("api", &["id", "codec", "clock", "audio", "rtp", "sdp", "sip", "bridge", "record", "call", "views::interaction"]),
    ("ivr", &["id", "views::ivr"]),
    (
        "runtime",
        &[
            "id", "codec", "clock", "audio", "rtp", "sdp", "sip", "bridge", "record", "call", "views", "net", "disk",
            "api", "ivr",
        ],
    ),
    ("app", &["*"]),
    ("config", &["*"]),
    ("cli", &["*"]),
    ("main", &["*"]),
    (
        "testing",
        &["id", "codec", "clock", "audio", "rtp", "sdp", "sip", "bridge", "record", "call", "net", "disk", "api"],
    ),
];

const LOW: &[&str] = &["id", "codec", "clock", "audio", "rtp", "sdp", "sip", "bridge", "record", "call"];

/// Who may read the configuration.
const CONFIG_READERS: &[&str] = &["app", "cli", "config", "main"];

/// Modules without I/O: what they may not name.
const PURE: &[&str] = &["id", "codec", "audio", "rtp", "sdp", "sip", "bridge", "record", "call", "views", "ivr"];
const IMPURE: &[&str] =
    &["tokio::", "mio::", "socket2::", "rustix::", "std::fs", "std::thread", "std::net::UdpSocket", "std::net::Tcp"];

/// A name and the only places that may say it.
const HOMES: &[(&str, &[&str])] = &[
    ("rsip", &["sip/values"]),
    ("rtp", &["rtp/packet.rs"]),
    ("webrtc_util", &["rtp/packet.rs"]),
    ("hound", &["disk/wav"]),
    ("roxmltree", &["ivr/message.rs"]),
];

/// Only `clock.rs` reads a clock.
const CLOCKS: &[&str] = &["Instant::now", "SystemTime::now", "Timestamp::now", "Utc::now", "Zoned::now"];

/// Left-overs and self-praise. Split, so that this file does not refuse itself.
const BANNED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("HA", "CK"),
    concat!("todo", "!"),
    concat!("unimplemented", "!"),
    concat!("dbg", "!("),
    concat!("blazing", "ly"),
    concat!("/wo", "rk/"),
];

#[derive(Debug, Clone)]
struct Source {
    /// Below `src/`, with `/`.
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// Lines with their numbers, up to a `#[cfg(test)]` at the margin: unit tests stand last in a file.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().take_while(|line| *line != "#[cfg(test)]").enumerate().map(|(n, line)| (n + 1, line))
    }

    /// As [`Source::lines`], without comments and the content of texts.
    fn code(&self) -> impl Iterator<Item = (usize, String)> {
        self.lines().map(|(number, line)| (number, strip(line)))
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("tests.rs") || self.path.contains("/tests/")
    }
}

/// A line of code without comment and without what stands in double quotes.
fn strip(line: &str) -> String {
    let mut out = String::new();
    let mut chars = line.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' if quoted => _ = chars.next(),
            '\'' if !quoted && line.contains("'\"'") && chars.peek() == Some(&'"') => {
                chars.next();
                chars.next();
            }
            '"' => quoted = !quoted,
            '/' if !quoted && chars.peek() == Some(&'/') => break,
            c if !quoted => out.push(c),
            _ => {}
        }
    }
    out
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 30, "the sources were found");
    let read = |file: PathBuf| {
        let path = file.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
        Source { path, text: fs::read_to_string(&file).unwrap() }
    };
    files.into_iter().map(read).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Applies a rule to every source; all findings at once.
#[track_caller]
fn hold(rule: impl Fn(&Source) -> Vec<String>) {
    let findings: Vec<_> = sources().iter().flat_map(rule).collect();
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

/// Paths into the crate that a line names: `sip::values` of `use crate::sip::values::Uri`.
fn crate_paths(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find("crate::") {
        let before = rest[..at].chars().next_back();
        rest = &rest[at + "crate::".len()..];
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut item = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => found.push(std::mem::take(&mut item)),
                    c if depth == 0 && !c.is_whitespace() => item.push(c),
                    _ => {}
                }
            }
            found.push(item);
        } else {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
            // A list behind the module: each of its items decides, `bridge::{command, relay}`.
            let (path, list) = (rest[..end].to_owned(), rest[end..].strip_prefix('{'));
            match list.and_then(|list| list.split('}').next()) {
                Some(list) => found.extend(list.split(',').map(|item| format!("{path}{}", item.trim()))),
                None => found.push(path),
            }
        }
    }
    found.retain(|path| !path.is_empty());
    found
}

fn layers(source: &Source) -> Vec<String> {
    let module = source.module();
    if module == "lib" || source.is_test() {
        return Vec::new();
    }
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
        return vec![format!("{}: the module {module} has no place in the table of layers", source.path)];
    };
    let mut findings = Vec::new();
    for (number, line) in source.code() {
        for path in crate_paths(&line) {
            let used = path.split("::").next().unwrap_or_default();
            let known = LAYERS.iter().any(|(name, _)| *name == used);
            // A name of the crate's root that is no module is a re-export or a macro: there are none.
            let may = used == module
                || allowed.contains(&"*")
                || allowed
                    .iter()
                    .any(|allowed| path == *allowed || path.starts_with(&format!("{allowed}::")) || used == *allowed);
            let config = used == "config" && !CONFIG_READERS.contains(&module);
            if known && (!may || config) {
                findings.push(format!("{}:{number}: {module} may not use {path}", source.path));
            }
        }
        if PURE.contains(&module) {
            for outside in IMPURE.iter().filter(|outside| line.contains(**outside)) {
                findings.push(format!("{}:{number}: {module} is pure and may not use {outside}", source.path));
            }
        }
    }
    findings
}

fn homes(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, places) in HOMES {
        if places.iter().any(|place| source.path.starts_with(place)) {
            continue;
        }
        for (number, line) in source.text.lines().enumerate() {
            if names_crate(&strip(line), name) {
                findings.push(format!(
                    "{}:{}: {name} may be named in {} only",
                    source.path,
                    number + 1,
                    places.join(", ")
                ));
            }
        }
    }
    findings
}

/// True for `use NAME`, `use NAME::…` and `::NAME::`; a crate called like a module of ours is meant by neither
/// `crate::NAME` nor `super::NAME`.
fn names_crate(line: &str, name: &str) -> bool {
    let line = line.trim_start();
    let line = line.strip_prefix("pub ").unwrap_or(line);
    if let Some(used) = line.strip_prefix("use ") {
        let used = used.trim_start_matches("::");
        return used.strip_prefix(name).is_some_and(|rest| rest.starts_with([':', ';', ' ']));
    }
    let shared_with_a_module = LAYERS.iter().any(|(module, _)| *module == name);
    let pattern = if shared_with_a_module { format!("::{name}::") } else { format!("{name}::") };
    line.match_indices(&pattern).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        match shared_with_a_module {
            // `crate::rtp::` is ours, ` ::rtp::` is the crate.
            true => before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '>'),
            false => before.is_none_or(|c| !c.is_alphanumeric() && c != '_'),
        }
    })
}

fn no_unsafe(source: &Source) -> Vec<String> {
    let is_unsafe = |line: &str| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
    let found = source.code().filter(|(_, line)| is_unsafe(line));
    found.map(|(number, _)| format!("{}:{number}: unsafe", source.path)).collect()
}

fn clocks(source: &Source) -> Vec<String> {
    if source.path == "clock.rs" {
        return Vec::new();
    }
    let lines = source.text.lines().enumerate().map(|(number, line)| (number + 1, strip(line)));
    let found = lines.filter(|(_, line)| CLOCKS.iter().any(|clock| line.contains(clock)));
    found.map(|(number, line)| format!("{}:{number}: reads a clock: {}", source.path, line.trim())).collect()
}

fn words(source: &Source) -> Vec<String> {
    let lines = source.text.lines().enumerate();
    let found = lines.flat_map(|(number, line)| {
        BANNED.iter().filter(move |word| line.contains(**word)).map(move |word| (number + 1, *word))
    });
    found.map(|(number, word)| format!("{}:{number}: {word}", source.path)).collect()
}

fn sizes(source: &Source) -> Vec<String> {
    if source.is_test() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let lines = source.lines().count();
    if lines > MAX_FILE_LINES {
        findings.push(format!("{}: {lines} lines without tests, at most {MAX_FILE_LINES}", source.path));
    }
    let mut open: Option<(usize, usize, String)> = None;
    for (number, line) in source.lines() {
        let indent = line.len() - line.trim_start().len();
        match &open {
            None => {
                if let Some(name) = function_name(line.trim_start())
                    && !line.trim_end().ends_with([';', '}'])
                {
                    open = Some((number, indent, name));
                }
            }
            // rustfmt puts the closing brace below the `fn`.
            Some((start, depth, name))
                if indent == *depth && (line.trim() == "}" || line.trim_end().ends_with(';')) =>
            {
                let length = number - start + 1;
                if length > MAX_FUNCTION_LINES && !TABLES.contains(&(&source.path, name)) {
                    findings.push(format!(
                        "{}:{start}: fn {name} has {length} lines, at most {MAX_FUNCTION_LINES}",
                        source.path
                    ));
                }
                open = None;
            }
            Some(_) => {}
        }
    }
    findings
}

/// The name in `pub(crate) async fn name(…`.
fn function_name(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    loop {
        match words.next()? {
            "fn" => break,
            "async" | "const" | "pub" => {}
            word if word.starts_with("pub(") => {}
            _ => return None,
        }
    }
    let name = words.next()?;
    Some(name.split(['(', '<']).next().unwrap_or(name).to_owned())
}

#[test]
fn modules_use_only_what_their_layer_may() {
    hold(layers);
}

#[test]
fn outside_crates_have_one_home_each() {
    hold(homes);
}

#[test]
fn there_is_no_unsafe() {
    hold(no_unsafe);
}

#[test]
fn only_clock_rs_reads_a_clock() {
    hold(clocks);
}

#[test]
fn files_and_functions_keep_their_size() {
    hold(sizes);
}

#[test]
fn no_left_over_word_stays_in_the_sources() {
    hold(words);
}

#[test]
fn every_module_of_the_crate_has_its_layer() {
    let modules: BTreeSet<_> = sources().iter().map(|source| source.module().to_owned()).collect();
    let table: BTreeSet<_> = LAYERS.iter().map(|(name, _)| (*name).to_owned()).chain(["lib".to_owned()]).collect();
    assert_eq!(modules, table);
}

fn refused(rule: fn(&Source) -> Vec<String>, path: &str, text: &str) -> bool {
    !rule(&Source::new(path, text)).is_empty()
}

#[test]
fn a_use_across_layers_is_refused() {
    assert!(refused(layers, "sip/message.rs", "use crate::sdp::Session;"));
    assert!(refused(layers, "bridge/relay.rs", "use crate::record::tap::TapHeader;"));
    assert!(refused(layers, "rtp/view.rs", "use crate::{id::LegId, net::udp};"));
    assert!(refused(layers, "net/udp.rs", "use crate::disk::store;"));
    assert!(refused(layers, "runtime/media.rs", "let x: crate::config::Config = y;"));
    assert!(refused(layers, "call/mod.rs", "use crate::bridge::{command, relay};"));
    assert!(refused(layers, "call/mod.rs", "use crate::bridge::relay::Relay;"));
    assert!(refused(layers, "call/mod.rs", "use tokio::sync::mpsc;"));
    assert!(refused(layers, "novel/mod.rs", ""));
    assert!(!refused(layers, "call/mod.rs", "use crate::bridge::{command};\nuse crate::record::mark::Mark;"));
    assert!(!refused(layers, "cli/mod.rs", "use crate::config::Config;"));
    assert!(!refused(layers, "sip/message.rs", "// see crate::sdp::Session"));
    assert!(!refused(layers, "sip/message.rs", "#[cfg(test)]\nmod tests { use crate::testing::phone; }"));
}

#[test]
fn a_crate_away_from_home_is_refused() {
    assert!(refused(homes, "sip/message.rs", "use rsip::Method;"));
    assert!(refused(homes, "disk/store.rs", "    let w = hound::WavWriter::new(f, s);"));
    assert!(refused(homes, "runtime/media.rs", "use ::rtp::packet::Packet;"));
    assert!(refused(homes, "runtime/media.rs", "let p = ::rtp::packet::Packet::default();"));
    assert!(refused(homes, "bridge/relay.rs", "use webrtc_util::Marshal;"));
    assert!(!refused(homes, "bridge/relay.rs", "use crate::rtp::view::View;"));
    assert!(!refused(homes, "sip/values/uri.rs", "use rsip::Method;"));
}

#[test]
fn unsafe_is_refused() {
    assert!(refused(no_unsafe, "rtp/view.rs", "    unsafe { x() }"));
    assert!(!refused(no_unsafe, "rtp/view.rs", "    // unsafe\n    let unsafely = 1;"));
}

#[test]
fn a_second_clock_reader_is_refused() {
    assert!(refused(clocks, "call/mod.rs", "let now = Instant::now();"));
    assert!(refused(clocks, "call/mod.rs", "#[cfg(test)]\nmod tests { fn f() { jiff::Timestamp::now(); } }"));
    assert!(!refused(clocks, "clock.rs", "Instant::now()"));
    assert!(!refused(clocks, "call/mod.rs", "/// [`Instant::now`] is not for us"));
}

#[test]
fn a_long_file_and_a_long_function_are_refused() {
    assert!(refused(sizes, "id.rs", &"// line\n".repeat(MAX_FILE_LINES + 1)));
    assert!(!refused(sizes, "id.rs", &format!("#[cfg(test)]\n{}", "// line\n".repeat(MAX_FILE_LINES))));
    let function = |lines: usize| {
        format!(
            "impl X {{\n    pub async fn long(\n        &self,\n    ) {{\n{}    }}\n}}\n",
            "        x();\n".repeat(lines)
        )
    };
    assert!(refused(sizes, "id.rs", &function(MAX_FUNCTION_LINES - 3)));
    assert!(!refused(sizes, "id.rs", &function(MAX_FUNCTION_LINES - 4)));
}

#[test]
fn a_banned_word_is_refused() {
    for word in BANNED {
        assert!(refused(words, "id.rs", &format!("// {word} later")), "{word}");
    }
}
