//! Compares what a run gave with what its row says: both are written in the language of fixtures/sticky.toml, line by
//! line, and the lines must be the same.

use stickytape::id::LegId;
use stickytape::record::metadata::{MaskKind, Segment};
use stickytape::testing::tones;

use crate::play::{PLAYED, Played, TONES};
use crate::row::{Row, Session};
use crate::whole::Tape;

/// A tone of this level or more is present, in dBFS.
const PRESENT: f64 = -30.0;
/// One of this level or less is absent.
const ABSENT: f64 = -60.0;
/// Around the whole seconds nothing is asserted: what a step causes takes effect up to 80 ms after it.
const GUARD_MS: (usize, usize) = (80, 40);
/// Events of the metadata that say whose they are.
const NAMED: [&str; 8] = [
    "held",
    "retrieved",
    "party-left",
    "conferenced",
    "conference-failed",
    "supervisor-joined",
    "supervisor-left",
    "monitor-mode",
];
/// A shorter segment is a transition: several commands of one change.
const TRANSITION_MS: u64 = 60;

/// The lines of a row, and those of the run that differ; `None`: all are the same.
pub fn judge(row: &Row, played: &Played) -> Option<String> {
    let expected = expected(row);
    let found = found(row, played);
    difference(&expected, &found)
}

/// A readable difference: equal lines with two blanks, expected ones with `-`, found ones with `+`.
pub fn difference(expected: &[String], found: &[String]) -> Option<String> {
    if expected == found {
        return None;
    }
    // The longest common subsequence: lists are short.
    let (n, m) = (expected.len(), found.len());
    let mut common = vec![vec![0_usize; m + 1]; n + 1];
    for i in (0..n).rev() {
        for j in (0..m).rev() {
            common[i][j] = match expected[i] == found[j] {
                true => common[i + 1][j + 1] + 1,
                false => common[i + 1][j].max(common[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < n || j < m {
        if i < n && j < m && expected[i] == found[j] {
            lines.push(format!("      {}", expected[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == m || (i < n && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(format!("    - {}", expected[i]));
            i += 1;
        } else {
            lines.push(format!("    + {}", found[j]));
            j += 1;
        }
    }
    Some(lines.join("\n"))
}

fn expected(row: &Row) -> Vec<String> {
    let mut sessions: Vec<&Session> = row.sessions.iter().collect();
    sessions.sort_by_key(|s| (tenths(start_of(s)), s.owner.clone()));
    let mut lines: Vec<String> = sessions.into_iter().flat_map(session_lines).collect();
    lines.extend(row.answers.iter().enumerate().map(|(n, answer)| format!("answer {}: {answer}", n + 1)));
    lines.extend(row.heard.iter().map(|(who, heard)| format!("{who} hears {heard}")));
    lines.extend(row.telephony.iter().map(|event| format!("told {event}")));
    lines
}

fn start_of(session: &Session) -> f64 {
    let first = session.segments.first().and_then(|s| s.split(' ').next());
    first.and_then(|start| start.parse().ok()).expect("a session has a segment")
}

fn session_lines(session: &Session) -> Vec<String> {
    let (start, end) = (start_of(session), session.end);
    let mut lines = vec![format!(
        "session of {}: {}, {}, {start:.1} to {end:.1}, {}",
        session.owner,
        session.side(),
        session.trigger,
        session.stop
    )];
    lines.extend(session.segments.iter().map(|segment| {
        let (start, rest) = segment.split_once(' ').expect("time and state");
        let start: f64 = start.parse().expect("a time");
        format!("  {start:.1} {rest}")
    }));
    lines.extend(session.events.iter().map(|event| format!("  event {event}")));
    lines.extend(session.masks.iter().map(|mask| format!("  mask {mask}")));
    lines.extend(session.streams().into_iter().map(|(name, seconds)| format!("  {name}: {seconds}")));
    lines
}

fn found(row: &Row, played: &Played) -> Vec<String> {
    let mut tapes: Vec<(i64, String, Vec<String>)> = played
        .tapes
        .iter()
        .map(|tape| (tenths(start(tape, played)), owner(tape, played), tape_lines(tape, played)))
        .collect();
    tapes.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    let mut lines: Vec<String> = tapes.into_iter().flat_map(|(_, _, lines)| lines).collect();
    lines.extend(played.answers.iter().enumerate().map(|(n, answer)| format!("answer {}: {answer}", n + 1)));
    for (who, expected) in &row.heard {
        let seconds = expected.split(' ').count();
        let samples = played.heard.get(who).map_or(&[][..], Vec::as_slice);
        lines.push(format!("{who} hears {}", seconds_of(samples, 0, seconds)));
    }
    if !row.telephony.is_empty() {
        lines.extend(played.telephony.iter().map(|event| format!("told {event}")));
    }
    lines.extend(played.complaints.iter().map(|complaint| format!("! {complaint}")));
    lines
}

/// Seconds after the start of the flow, cut to what a step can have caused.
fn start(tape: &Tape, played: &Played) -> f64 {
    (tape.recording.start_time.as_millisecond() - played.start_ms) as f64 / 1_000.0
}

fn tenths(seconds: f64) -> i64 {
    ((seconds + 0.015) * 10.0).floor() as i64
}

fn cut(seconds: f64) -> f64 {
    tenths(seconds) as f64 / 10.0
}

fn owner(tape: &Tape, played: &Played) -> String {
    name(tape.recording.recording_session.owner_leg, played)
}

fn name(leg: LegId, played: &Played) -> String {
    played.legs.get(&leg).cloned().unwrap_or_else(|| format!("leg {leg}"))
}

fn kebab<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn tape_lines(tape: &Tape, played: &Played) -> Vec<String> {
    let recording = &tape.recording;
    let session = &recording.recording_session;
    let rate = recording.media_files.first().map_or(8_000, |f| f.sample_rate);
    let begin = start(tape, played);
    let time = |sample: u64| cut(begin + sample as f64 / f64::from(rate));
    let total = recording.segments.last().map_or(0, |s| s.end_sample);
    let mut lines = vec![format!(
        "session of {}: {}, {}, {:.1} to {:.1}, {}",
        owner(tape, played),
        kebab(&session.side),
        session.trigger,
        cut(begin),
        time(total),
        session.stop_cause.map(|cause| kebab(&cause)).unwrap_or_default()
    )];
    for (at, text) in segments(&recording.segments, session.owner_leg, rate, played) {
        lines.push(format!("  {:.1} {text}", time(at)));
    }
    lines.extend(recording.events.iter().map(|event| {
        let leg = event.attributes.get("leg").and_then(|leg| leg.parse().ok()).map(LegId);
        let who = leg.filter(|_| NAMED.contains(&event.name.as_str()));
        format!("  event {}{}", event.name, who.map(|leg| format!(" {}", name(leg, played))).unwrap_or_default())
    }));
    lines.extend(recording.masks.iter().map(|mask| {
        let at = (mask.time.as_millisecond() - played.start_ms) as f64 / 1_000.0;
        let kind = if mask.kind == MaskKind::Paused { "paused" } else { "resumed" };
        format!("  mask {:.1} {kind}", cut(at))
    }));
    lines.extend(recording.warnings.iter().map(|warning| format!("  warning {warning}")));
    // In the order of their names, as the expected ones are.
    let mut streams: Vec<(String, String)> = Vec::new();
    let first = ((cut(begin).ceil() - begin) * 1_000.0).round() as i64;
    let seconds = (time(total) - cut(begin).ceil()).floor().max(0.0) as usize;
    for (file, channels, _) in &tape.files {
        let stem = file.trim_end_matches(".wav");
        for channel in 0..*channels {
            let stream = match (*channels, channel) {
                (1, _) => stem.to_owned(),
                (_, 0) => "left".to_owned(),
                _ => "right".to_owned(),
            };
            let samples = tape.channel(file, channel).unwrap_or_default();
            assert_eq!(rate, 8_000, "the table is of telephone recordings");
            streams.push((stream, seconds_of(&samples, first, seconds)));
        }
    }
    streams.sort();
    lines.extend(streams.into_iter().map(|(name, seconds)| format!("  {name}: {seconds}")));
    lines
}

/// The segments in the table's words, transitions left out.
fn segments(segments: &[Segment], first_owner: LegId, rate: u32, played: &Played) -> Vec<(u64, String)> {
    let mut lines: Vec<(u64, String)> = Vec::new();
    let mut begun = None;
    for (index, segment) in segments.iter().enumerate() {
        let ms = (segment.end_sample - segment.start_sample) * 1_000 / u64::from(rate);
        let at = begun.take().unwrap_or(segment.start_sample);
        if ms < TRANSITION_MS && segments.len() > 1 {
            let around = [index.checked_sub(1), Some(index + 1)].into_iter().flatten().filter_map(|i| segments.get(i));
            let known: Vec<_> = around.flat_map(|s| &s.speakers).collect();
            if segment.speakers.iter().all(|speaker| known.contains(&speaker)) {
                begun = Some(at);
                continue;
            }
        }
        let text = words(segment, first_owner, played);
        if lines.last().is_none_or(|(_, last)| *last != text) {
            lines.push((at, text));
        }
    }
    lines
}

fn words(segment: &Segment, first_owner: LegId, played: &Played) -> String {
    let names = |legs: &[LegId]| {
        let mut names: Vec<String> = legs.iter().map(|leg| name(*leg, played)).collect();
        names.sort();
        names.join(" ")
    };
    let conn = played.conns.iter().position(|conn| *conn == segment.conn_id);
    let conn = conn.map_or("C?".to_owned(), |n| format!("C{}", n + 1));
    let speakers = if segment.speakers.is_empty() { "-".to_owned() } else { names(&segment.speakers) };
    let mut text = format!("{conn} [{}] {speakers}", names(&segment.participants));
    for (flag, word) in
        [(segment.held, "held"), (segment.paused, "paused"), (segment.consult, "consult"), (segment.early, "early")]
    {
        if flag {
            text.push(' ');
            text.push_str(word);
        }
    }
    if name(segment.owner, played) != name(first_owner, played) {
        text.push_str(&format!(" owner={}", name(segment.owner, played)));
    }
    text
}

/// Which tones stand in each second from `first_ms` on: their letters, `.` for none, `?x` for one that is neither present
/// nor absent.
fn seconds_of(samples: &[i16], first_ms: i64, seconds: usize) -> String {
    let second = |n: usize| {
        let ms = |ms: i64| usize::try_from(ms * 8).unwrap_or(0).min(samples.len());
        let begin = first_ms + n as i64 * 1_000;
        let part = &samples[ms(begin + GUARD_MS.0 as i64)..ms(begin + 1_000 - GUARD_MS.1 as i64)];
        let mut letters = String::new();
        for (letter, hz) in TONES.into_iter().chain(PLAYED) {
            match tones::tone_level(part, 8_000, hz) {
                level if level >= PRESENT => letters.push(letter),
                level if level > ABSENT => letters.push_str(&format!("?{letter}")),
                _ => {}
            }
        }
        if letters.is_empty() { ".".to_owned() } else { letters }
    };
    (0..seconds).map(second).collect::<Vec<_>>().join(" ")
}
