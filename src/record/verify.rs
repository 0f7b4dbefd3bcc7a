//! The invariants of a recording (spec/recording.md §6), checked over its metadata and what its files really are. Pure:
//! whoever reads the files hands in [`FileFacts`].

use std::collections::BTreeMap;
use std::ops::Range;

use super::mark::{OWNER_CHANGED, StopCause};
use super::metadata::{FileKind, MaskKind, MediaFile, Recording, Segment, State};

/// A pause is widened by so many milliseconds on both sides (spec/recording.md §4.7).
const WIDENED_MS: u64 = 20;

/// An event and the segment that begins with it are marks of one decision, or of two that follow at once.
const SAME_INSTANT_MS: u64 = 20;

/// What a file really is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFacts {
    /// Name within the folder.
    pub file: String,
    /// Why it is no WAV file that can be played; the other fields mean nothing then.
    pub unreadable: Option<String>,
    /// Frames per second by its header.
    pub sample_rate: u32,
    /// Channels by its header.
    pub channels: u16,
    /// Frames by its header.
    pub frames: u64,
    /// Whole frames that the file's length has room for.
    pub frames_on_disk: u64,
    /// Bytes.
    pub size: u64,
    /// Lowercase hexadecimal; `None` when it was not computed.
    pub sha256: Option<String>,
    /// First frame of the file that is not digital silence though it stands in a pause ([`silent_ranges`]).
    pub sound_in_pause: Option<u64>,
}

/// The stretches of the recording that must be digital silence in every file.
pub fn silent_ranges(recording: &Recording) -> Vec<Range<u64>> {
    let paused = recording.segments.iter().filter(|s| s.paused && s.start_sample < s.end_sample);
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for segment in paused {
        match ranges.last_mut() {
            Some(last) if last.end == segment.start_sample => last.end = segment.end_sample,
            _ => ranges.push(segment.start_sample..segment.end_sample),
        }
    }
    let widened = widened(sample_rate(recording));
    let total = total_samples(recording);
    ranges.iter().map(|r| r.start.saturating_sub(widened)..(r.end + widened).min(total)).collect()
}

/// By how many samples a pause is silent beyond its segments, on each side.
pub fn widened(sample_rate: u32) -> u64 {
    u64::from(sample_rate) * WIDENED_MS / 1_000
}

/// What is wrong, one sentence each; empty when nothing is. `facts` has one entry per WAV file of the folder, and for
/// each file that `mediaFiles` names and that is missing none.
pub fn verify(recording: &Recording, facts: &[FileFacts]) -> Vec<String> {
    let mut wrong = Vec::new();
    check_session(recording, &mut wrong);
    check_files(recording, facts, &mut wrong);
    check_parts(recording, &mut wrong);
    check_segments(recording, &mut wrong);
    check_pauses(recording, &mut wrong);
    check_lists(recording, &mut wrong);
    wrong
}

fn sample_rate(recording: &Recording) -> u32 {
    recording.media_files.first().map_or(8_000, |f| f.sample_rate)
}

fn total_samples(recording: &Recording) -> u64 {
    recording.media_files.iter().map(|f| f.start_sample + f.samples).max().unwrap_or(0)
}

fn check_session(recording: &Recording, wrong: &mut Vec<String>) {
    let session = &recording.recording_session;
    match (session.state, session.stop_cause) {
        (State::Recording, _) => wrong.push("it calls itself still running".into()),
        (_, None) => wrong.push("it has ended without a stop cause".into()),
        (State::Complete, Some(StopCause::Crash)) => wrong.push("it is complete, but its stop cause is crash".into()),
        (State::Failed, Some(cause)) if !matches!(cause, StopCause::WriteError | StopCause::DiskFull) => {
            wrong.push("it has failed, but its stop cause is neither write-error nor disk-full".into());
        }
        _ => {}
    }
    let rate = u64::from(sample_rate(recording).max(1));
    let expected_ms = total_samples(recording) * 1_000 / rate;
    match recording.duration_ms {
        None => wrong.push("durationMs is missing".into()),
        Some(ms) if ms.abs_diff(expected_ms) > 1 => {
            wrong.push(format!("durationMs says {ms}, the files last {expected_ms} ms"));
        }
        Some(_) => {}
    }
    let Some(stop) = recording.stop_time else {
        wrong.push("stopTime is missing".into());
        return;
    };
    let lasted_ms = stop.as_millisecond() - recording.start_time.as_millisecond();
    if u64::try_from(lasted_ms).is_ok_and(|ms| ms.abs_diff(expected_ms) <= 1) {
        return;
    }
    wrong.push(format!("stopTime is {lasted_ms} ms after startTime, the files last {expected_ms} ms"));
}

fn check_files(recording: &Recording, facts: &[FileFacts], wrong: &mut Vec<String>) {
    if recording.media_files.is_empty() {
        wrong.push("it has no file".into());
    }
    for (index, file) in recording.media_files.iter().enumerate() {
        if recording.media_files[..index].iter().any(|other| other.file == file.file) {
            wrong.push(format!("{} is listed twice", file.file));
        }
        match facts.iter().find(|f| f.file == file.file) {
            None => wrong.push(format!("{} is missing", file.file)),
            Some(found) => check_file(file, found, wrong),
        }
    }
    for found in facts {
        if !recording.media_files.iter().any(|file| file.file == found.file) {
            wrong.push(format!("{} is in the folder, but not in mediaFiles", found.file));
        }
    }
}

fn check_file(file: &MediaFile, found: &FileFacts, wrong: &mut Vec<String>) {
    let name = &file.file;
    if let Some(why) = &found.unreadable {
        wrong.push(format!("{name} cannot be read: {why}"));
        return;
    }
    if found.frames != found.frames_on_disk {
        let (header, disk) = (found.frames, found.frames_on_disk);
        wrong.push(format!("{name}'s header says {header} samples, its length has room for {disk}"));
    }
    if (found.sample_rate, found.channels) != (file.sample_rate, file.channels) {
        wrong.push(format!(
            "{name} has {} channels at {} Hz, mediaFiles says {} at {} Hz",
            found.channels, found.sample_rate, file.channels, file.sample_rate
        ));
    }
    if found.frames != file.samples {
        wrong.push(format!("{name} has {} samples, mediaFiles says {}", found.frames, file.samples));
    }
    match file.size {
        None => wrong.push(format!("{name} has no size in mediaFiles")),
        Some(size) if size != found.size => {
            wrong.push(format!("{name} has {} bytes, mediaFiles says {size}", found.size));
        }
        Some(_) => {}
    }
    match (&file.sha256, &found.sha256) {
        (None, _) => wrong.push(format!("{name} has no sha256 in mediaFiles")),
        (Some(said), Some(is)) if said != is => wrong.push(format!("{name} was changed: its hash is another one")),
        _ => {}
    }
    if let Some(frame) = found.sound_in_pause {
        wrong.push(format!("{name} has sound in a pause, at its sample {frame}"));
    }
}

/// Files of a part begin and end together, and the parts follow each other.
fn check_parts(recording: &Recording, wrong: &mut Vec<String>) {
    let mut parts: BTreeMap<u32, Vec<&MediaFile>> = BTreeMap::new();
    for file in &recording.media_files {
        parts.entry(file.part).or_default().push(file);
        if file.sample_rate != sample_rate(recording) {
            wrong.push(format!("{} has another sample rate than the first file", file.file));
        }
    }
    let mut at = 0;
    for (number, (part, files)) in (1..).zip(&parts) {
        if *part != number {
            wrong.push(format!("part {number} is missing"));
            return;
        }
        for file in files {
            if file.start_sample != at {
                wrong.push(format!("{} begins at sample {}, its part at {at}", file.file, file.start_sample));
            }
            if file.samples != files[0].samples {
                let (name, first) = (&file.file, &files[0].file);
                wrong.push(format!("{name} has {} samples, {first} has {}", file.samples, files[0].samples));
            }
        }
        if !files.iter().any(|f| f.kind == FileKind::Mixed) {
            wrong.push(format!("part {part} has no mixed.wav"));
        }
        at += files[0].samples;
    }
}

fn check_segments(recording: &Recording, wrong: &mut Vec<String>) {
    let total = total_samples(recording);
    let mut at = 0;
    for (index, segment) in recording.segments.iter().enumerate() {
        let number = index + 1;
        if segment.start_sample != at {
            let what = if segment.start_sample > at { "a gap" } else { "an overlap" };
            wrong.push(format!("there is {what} before segment {number}: {} after {at}", segment.start_sample));
        }
        if segment.end_sample < segment.start_sample {
            wrong.push(format!("segment {number} ends before it begins"));
        }
        at = segment.end_sample;
        // A room owns without being a party.
        let room = recording.recording_session.side == super::mark::Side::Room;
        if !room && !segment.participants.contains(&segment.owner) {
            wrong.push(format!("the owner of segment {number} is not among its participants"));
        }
        for speaker in &segment.speakers {
            if !segment.participants.contains(speaker) {
                wrong.push(format!("leg {speaker} speaks in segment {number}, but is not among its participants"));
            }
        }
        if segment.paused && !segment.speakers.is_empty() {
            wrong.push(format!("segment {number} is paused and has speakers"));
        }
    }
    match recording.segments.last() {
        None => wrong.push("it has no segment".into()),
        Some(last) if last.end_sample != total => {
            wrong.push(format!("the segments end at sample {}, the files at {total}", last.end_sample));
        }
        Some(_) => {}
    }
    check_owners(recording, wrong);
    if let Some(first) = recording.segments.first()
        && first.owner != recording.recording_session.owner_leg
    {
        wrong.push("the owner of the first segment is not ownerLeg".into());
    }
}

/// Only `termination-on-transfer = "maintain"` gives a session another owner, and says so by an event at that instant.
fn check_owners(recording: &Recording, wrong: &mut Vec<String>) {
    let is_told = |segment: &Segment| {
        let owner = segment.owner.to_string();
        recording.events.iter().any(|event| {
            event.name == OWNER_CHANGED
                && event.attributes.get("leg") == Some(&owner)
                && event.time.as_millisecond().abs_diff(segment.start.as_millisecond()) <= SAME_INSTANT_MS
        })
    };
    for (number, pair) in (2..).zip(recording.segments.windows(2)) {
        if pair[0].owner != pair[1].owner && !is_told(&pair[1]) {
            wrong.push(format!("the owner changes in segment {number} without an event {OWNER_CHANGED} there"));
        }
    }
}

/// The masks say what the segments say.
fn check_pauses(recording: &Recording, wrong: &mut Vec<String>) {
    let mut last = None;
    for mask in &recording.masks {
        if last == Some(mask.kind) || (last.is_none() && mask.kind == MaskKind::Resumed) {
            wrong.push("masks[] does not alternate between paused and resumed".into());
            return;
        }
        last = Some(mask.kind);
    }
    let paused = recording.segments.iter().any(|s| s.paused && s.start_sample < s.end_sample);
    if paused && recording.masks.is_empty() {
        wrong.push("a segment is paused, but masks[] is empty".into());
    }
}

fn check_lists(recording: &Recording, wrong: &mut Vec<String>) {
    let total = total_samples(recording);
    for gap in &recording.gaps {
        if gap.start_sample > gap.end_sample || gap.end_sample > total {
            let (leg, from, to) = (gap.leg, gap.start_sample, gap.end_sample);
            wrong.push(format!("a gap of leg {leg} reaches from sample {from} to {to} of {total}"));
        }
    }
    for participant in &recording.participants {
        if participant.left.is_none() {
            wrong.push(format!("participant {} has never left", participant.leg_id));
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::super::mark::{Role, Side};
    use super::super::metadata::{
        Event, Gap, GapCause, MEDIA_TYPE, Mask, Participant, RecordingSession, Segment, time_of_sample,
    };
    use super::*;
    use crate::id::{CallUuid, ConnId, LegId, RecordingId};

    const RATE: u32 = 8_000;
    const TOTAL: u64 = 16_000;

    fn start() -> Timestamp {
        "2026-11-20T09:00:00Z".parse().unwrap()
    }

    fn segment(from: u64, to: u64) -> Segment {
        Segment {
            start_sample: from,
            end_sample: to,
            start: time_of_sample(start(), from, RATE),
            end: time_of_sample(start(), to, RATE),
            conn_id: ConnId(1),
            owner: LegId(1),
            participants: vec![LegId(1), LegId(2)],
            speakers: vec![LegId(1), LegId(2)],
            channels: vec![],
            paused: false,
            held: false,
            consult: false,
            early: false,
        }
    }

    fn file(name: &str, part: u32, start_sample: u64, samples: u64) -> MediaFile {
        MediaFile {
            file: name.into(),
            part,
            start_sample,
            kind: if name.starts_with("mixed") { FileKind::Mixed } else { FileKind::Supervisor },
            participant: None,
            media_type: MEDIA_TYPE.into(),
            channels: 1,
            sample_rate: RATE,
            samples,
            size: Some(44 + samples * 2),
            sha256: Some("aa".into()),
        }
    }

    /// Two parts with two files each, a pause from 8,000 to 10,000.
    fn good() -> Recording {
        let end = time_of_sample(start(), TOTAL, RATE);
        let pause = Segment { paused: true, speakers: vec![], ..segment(8_000, 10_000) };
        let mask = |kind, sample| Mask { time: time_of_sample(start(), sample, RATE), kind };
        Recording {
            id: RecordingId(Uuid::from_u128(1)),
            call_uuid: CallUuid(Uuid::from_u128(2)),
            caller_phone_number: String::new(),
            dialed_phone_number: String::new(),
            start_time: start(),
            stop_time: Some(end),
            duration_ms: Some(2_000),
            recording_session: RecordingSession {
                owner_dn: None,
                owner_leg: LegId(1),
                side: Side::Origination,
                trigger: "default".into(),
                rule: "default = origination".into(),
                state: State::Complete,
                stop_cause: Some(StopCause::Released),
            },
            participants: vec![Participant {
                leg_id: LegId(1),
                dn: None,
                uri: String::new(),
                role: Role::Customer,
                joined: start(),
                left: Some(end),
                leave_cause: Some("released".into()),
            }],
            segments: vec![segment(0, 8_000), pause, segment(10_000, TOTAL)],
            media_files: vec![
                file("mixed.wav", 1, 0, 9_000),
                file("supervisor-1.wav", 1, 0, 9_000),
                file("mixed.2.wav", 2, 9_000, 7_000),
                file("supervisor-1.2.wav", 2, 9_000, 7_000),
            ],
            media: vec![],
            gaps: vec![Gap { leg: LegId(1), start_sample: 10, end_sample: TOTAL, cause: GapCause::Network }],
            masks: vec![mask(MaskKind::Paused, 8_000), mask(MaskKind::Resumed, 10_000)],
            events: vec![],
            warnings: vec![],
        }
    }

    fn facts(recording: &Recording) -> Vec<FileFacts> {
        let fact = |f: &MediaFile| FileFacts {
            file: f.file.clone(),
            unreadable: None,
            sample_rate: f.sample_rate,
            channels: f.channels,
            frames: f.samples,
            frames_on_disk: f.samples,
            size: 44 + f.samples * 2,
            sha256: Some("aa".into()),
            sound_in_pause: None,
        };
        recording.media_files.iter().map(fact).collect()
    }

    #[test]
    fn a_recording_that_keeps_every_invariant_has_nothing_wrong() {
        assert_eq!(verify(&good(), &facts(&good())), Vec::<String>::new());
    }

    #[test]
    fn a_pause_is_widened_on_both_sides_and_ends_with_the_recording() {
        assert_eq!(silent_ranges(&good()), vec![Range { start: 7_840, end: 10_160 }]);
        let mut recording = good();
        recording.segments[2].paused = true;
        assert_eq!(silent_ranges(&recording), vec![Range { start: 7_840, end: TOTAL }]);
    }

    /// A change of the metadata, and a part of the sentence that must tell of it.
    type Damage = (fn(&mut Recording), &'static str);

    /// The same for what a file is.
    type FileDamage = (fn(&mut FileFacts), &'static str);

    #[test]
    fn each_broken_invariant_of_the_metadata_is_told() {
        let damages: &[Damage] = &[
            (|r| r.recording_session.state = State::Recording, "still running"),
            (|r| r.recording_session.stop_cause = None, "without a stop cause"),
            (|r| r.recording_session.stop_cause = Some(StopCause::Crash), "stop cause is crash"),
            (|r| r.recording_session.state = State::Failed, "neither write-error nor disk-full"),
            (|r| r.duration_ms = None, "durationMs is missing"),
            (|r| r.duration_ms = Some(1_990), "durationMs says 1990"),
            (|r| r.stop_time = None, "stopTime is missing"),
            (|r| r.stop_time = Some(r.start_time), "stopTime is 0 ms after startTime"),
            (|r| r.media_files.truncate(2), "the segments end at sample 16000, the files at 9000"),
            (|r| r.media_files[1].samples = 8_999, "supervisor-1.wav has 8999 samples, mixed.wav has 9000"),
            (|r| r.media_files[3].start_sample = 8_999, "begins at sample 8999, its part at 9000"),
            (|r| r.media_files[2].kind = FileKind::Party, "part 2 has no mixed.wav"),
            (|r| r.media_files.iter_mut().for_each(|f| f.part += 1), "part 1 is missing"),
            (|r| r.media_files[1].file = "mixed.wav".into(), "mixed.wav is listed twice"),
            (|r| r.media_files[0].size = None, "mixed.wav has no size"),
            (|r| r.media_files[0].sha256 = None, "mixed.wav has no sha256"),
            (|r| r.media_files.clear(), "it has no file"),
            (|r| r.segments[1].start_sample = 8_001, "a gap before segment 2"),
            (|r| r.segments[1].start_sample = 7_999, "an overlap before segment 2"),
            (|r| r.segments[1].end_sample = 7_000, "segment 2 ends before it begins"),
            (|r| r.segments[2].end_sample = 15_999, "the segments end at sample 15999"),
            (|r| r.segments.clear(), "it has no segment"),
            (|r| r.segments[0].participants.retain(|leg| *leg != LegId(1)), "the owner of segment 1 is not among"),
            (|r| r.segments[0].speakers.push(LegId(9)), "leg 9 speaks in segment 1"),
            (|r| r.segments[1].speakers.push(LegId(1)), "segment 2 is paused and has speakers"),
            (|r| r.segments[0].owner = LegId(2), "the owner of the first segment is not ownerLeg"),
            (|r| r.segments[1].owner = LegId(2), "the owner changes in segment 2 without an event"),
            (|r| r.segments[1].owner = LegId(2), "the owner changes in segment 3 without an event"),
            (|r| r.masks.clear(), "masks[] is empty"),
            (|r| r.masks.swap(0, 1), "does not alternate"),
            (|r| r.gaps[0].end_sample = TOTAL + 1, "a gap of leg 1"),
            (|r| r.participants[0].left = None, "participant 1 has never left"),
        ];
        for (damage, expected) in damages {
            let mut recording = good();
            damage(&mut recording);
            let wrong = verify(&recording, &facts(&recording));
            assert!(wrong.iter().any(|w| w.contains(expected)), "{expected}: {wrong:?}");
        }
    }

    #[test]
    fn an_owner_may_change_where_an_event_says_that_it_was_maintained() {
        let change = |sample, leg: u64| Event {
            time: time_of_sample(start(), sample, RATE),
            name: OWNER_CHANGED.into(),
            attributes: [("leg".to_owned(), LegId(leg).to_string())].into(),
        };
        let mut recording = good();
        (recording.segments[1].owner, recording.segments[2].owner) = (LegId(2), LegId(1));
        recording.events = vec![change(8_000, 2), change(10_000, 1)];
        assert_eq!(verify(&recording, &facts(&recording)), Vec::<String>::new());
        for events in [vec![], vec![change(8_000, 2)], vec![change(8_000, 2), change(10_000, 2)]] {
            recording.events = events;
            let wrong = verify(&recording, &facts(&recording));
            assert!(wrong.iter().any(|w| w.contains("the owner changes in segment 3")), "{wrong:?}");
        }
        recording.events = vec![change(8_000, 2), change(10_800, 1)];
        assert_eq!(verify(&recording, &facts(&recording)).len(), 1, "an event at another time proves nothing");
    }

    #[test]
    fn each_difference_between_file_and_metadata_is_told() {
        let damages: &[FileDamage] = &[
            (|f| f.unreadable = Some("no RIFF tag found".into()), "mixed.wav cannot be read: no RIFF tag found"),
            (|f| f.frames = 8_990, "mixed.wav's header says 8990 samples, its length has room for 9000"),
            (|f| (f.frames, f.frames_on_disk) = (1, 1), "mixed.wav has 1 samples, mediaFiles says 9000"),
            (|f| f.channels = 2, "mixed.wav has 2 channels"),
            (|f| f.sample_rate = 16_000, "at 16000 Hz"),
            (|f| f.size = 1, "mixed.wav has 1 bytes"),
            (|f| f.sha256 = Some("bb".into()), "mixed.wav was changed"),
            (|f| f.sound_in_pause = Some(8_000), "mixed.wav has sound in a pause, at its sample 8000"),
            (|f| f.file = "other.wav".into(), "other.wav is in the folder, but not in mediaFiles"),
            (|f| f.file = "other.wav".into(), "mixed.wav is missing"),
        ];
        for (damage, expected) in damages {
            let mut facts = facts(&good());
            damage(&mut facts[0]);
            let wrong = verify(&good(), &facts);
            assert!(wrong.iter().any(|w| w.contains(expected)), "{expected}: {wrong:?}");
        }
    }
}
