//! What is on the disk after the demo, computed from the files alone.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use comfy_table::{CellAlignment, Table, presets};
use jiff::Timestamp;

use super::judge::likeness;
use crate::disk::list::Filter;
use crate::disk::store::{Error, METADATA, Store};
use crate::disk::{RealDisk, wav};
use crate::id::{LegId, RecordingId};
use crate::record::metadata::{FileKind, MediaFile, Recording};
use crate::testing::tones;

/// Windows in which a channel counts as speaking, and the level that they must reach.
const WINDOW_MS: usize = 20;
const SPEECH_DBFS: f64 = -45.0;
/// Windows in which a supervisor is looked for in the mix, and how alike the two may be (normalised correlation). All files
/// of a recording are aligned to the sample, so a voice that is in both is found without searching.
const LEAK_MS: usize = 200;
const LEAK: f64 = 0.5;

/// The recordings of a folder and what is wrong with them.
#[derive(Debug)]
pub struct Report {
    recordings: Vec<Row>,
}

/// One recording.
#[derive(Debug)]
struct Row {
    id: RecordingId,
    length_ms: u64,
    voices: Vec<Voice>,
    /// `mixed.wav`.
    file: PathBuf,
    wrong: Vec<String>,
}

/// Somebody's place in a file.
#[derive(Debug)]
struct Voice {
    /// The file, and the channel of it.
    place: String,
    parties: String,
    level: Level,
}

/// What is heard there.
#[derive(Debug, PartialEq)]
enum Level {
    /// The level of the windows with speech in dBFS, and their length in seconds.
    Speaks(f64, f64),
    /// Nobody, although somebody should be.
    Silent,
    /// Not whom it says, and that is right.
    Absent,
    /// Whom it says, for so many seconds, although nobody should be.
    Leaks(f64),
}

impl Report {
    /// What is wrong, one line each: a check that `stickytape recordings verify` makes, a silent channel, or no
    /// recording at all. Empty: all is well.
    pub fn wrong(&self) -> Vec<String> {
        if self.recordings.is_empty() {
            return vec!["no recording was made".to_owned()];
        }
        let with_id = |row: &Row| row.wrong.iter().map(|wrong| format!("{}: {wrong}", row.id)).collect::<Vec<_>>();
        self.recordings.iter().flat_map(with_id).collect()
    }

    /// The first `mixed.wav`, to be listened to.
    pub fn first_file(&self) -> Option<&Path> {
        self.recordings.first().map(|row| row.file.as_path())
    }

    /// How many recordings there are.
    pub fn len(&self) -> usize {
        self.recordings.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.recordings.is_empty()
    }
}

impl fmt::Display for Report {
    /// The table, then each recording's file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        table.set_header(["recording", "length", "file", "party", "level", "speech", "verify"]);
        for row in &self.recordings {
            for (index, voice) in row.voices.iter().enumerate() {
                let first = |text: String| if index == 0 { text } else { String::new() };
                let verdict = if row.wrong.is_empty() { "ok" } else { "WRONG" };
                let (level, seconds) = match voice.level {
                    Level::Speaks(level, seconds) => (format!("{level:.1} dBFS"), seconds),
                    Level::Silent => ("silence".to_owned(), 0.0),
                    Level::Absent => ("absent".to_owned(), 0.0),
                    Level::Leaks(seconds) => ("heard".to_owned(), seconds),
                };
                table.add_row([
                    first(row.id.to_string()),
                    first(format!("{:.2} s", row.length_ms as f64 / 1_000.0)),
                    voice.place.clone(),
                    voice.parties.clone(),
                    level,
                    format!("{seconds:.1} s"),
                    first(verdict.to_owned()),
                ]);
            }
        }
        for index in [1, 4, 5] {
            if let Some(column) = table.column_mut(index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        writeln!(f, "{table}")?;
        for row in &self.recordings {
            writeln!(f, "{}", row.file.display())?;
        }
        Ok(())
    }
}

/// `mixed.wav left`; without the side when there is but one.
fn place(file: &str, channel: usize, count: usize) -> String {
    match (channel, count) {
        (_, 1) => file.to_owned(),
        (0, _) => format!("{file} left"),
        _ => format!("{file} right"),
    }
}

/// Reads what is published in `directory`, from `since` on (`None`: all), and verifies each recording.
///
/// # Errors
/// The folder cannot be read. What is wrong with a single recording stands in the report.
pub fn report(directory: &Path, since: Option<Timestamp>) -> Result<Report, Error> {
    let store = Store::new(Arc::new(RealDisk), directory.to_owned());
    let page = store.list(&Filter { from: since, ..Filter::default() }, usize::MAX, None)?;
    let mut recordings: Vec<Row> = page.recordings.iter().map(|recording| row(&store, recording)).collect();
    // A recording whose metadata is unreadable is in no list, and is the worst one to miss.
    for id in store.published()?.into_iter().chain(store.active()?) {
        let unlisted = !recordings.iter().any(|row| row.id == id);
        if let (true, Err(error)) = (unlisted, store.find(id)) {
            recordings.push(Row {
                id,
                length_ms: 0,
                voices: Vec::new(),
                file: directory.to_owned(),
                wrong: vec![error.to_string()],
            });
        }
    }
    recordings.sort_by_key(|row| row.file.clone());
    Ok(Report { recordings })
}

fn row(store: &Store, recording: &Recording) -> Row {
    let folder = match store.find(recording.id) {
        Ok(found) => found.folder,
        Err(_) => store.published_dir(recording),
    };
    let mut wrong = match store.verify(recording.id) {
        Ok((_, wrong)) => wrong,
        Err(error) => vec![error.to_string()],
    };
    let mixed = of_kind(recording, FileKind::Mixed).next();
    let file = folder.join(mixed.map_or(METADATA, |file| &file.file));
    let mut voices = Vec::new();
    match mixed.map_or_else(|| Err(format!("{} names no mix", file.display())), |mixed| read(&folder, mixed)) {
        Ok(mix) => {
            voices.extend(mix.voices(|channel| parties(recording, channel)));
            for supervisor in of_kind(recording, FileKind::Supervisor) {
                match read(&folder, supervisor) {
                    Ok(alone) => voices.extend(supervised(recording, supervisor, &alone, &mix)),
                    Err(error) => wrong.push(error),
                }
            }
        }
        Err(error) => wrong.push(error),
    }
    // Numbers of callers are no secret to whoever reads the table, which has them too.
    let complaint = |voice: &Voice| match voice.level {
        Level::Silent => Some(format!("{} is silent ({})", voice.place, voice.parties)),
        Level::Leaks(seconds) => Some(format!("{} is heard for {seconds:.1} s in {}", voice.parties, voice.place)),
        Level::Speaks(..) | Level::Absent => None,
    };
    wrong.extend(voices.iter().filter_map(complaint));
    Row { id: recording.id, length_ms: recording.duration_ms.unwrap_or(0), voices, file, wrong }
}

fn of_kind(recording: &Recording, kind: FileKind) -> impl Iterator<Item = &MediaFile> {
    recording.media_files.iter().filter(move |file| file.kind == kind)
}

/// The sound of a file.
struct Sound {
    name: String,
    rate: u32,
    channels: Vec<Vec<i16>>,
}

fn read(folder: &Path, file: &MediaFile) -> Result<Sound, String> {
    let path = folder.join(&file.file);
    let (spec, samples) =
        wav::read(&RealDisk, &path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let count = usize::from(spec.channels);
    let channels = (0..count).map(|index| samples.iter().skip(index).step_by(count).copied().collect()).collect();
    Ok(Sound { name: file.file.clone(), rate: spec.sample_rate, channels })
}

impl Sound {
    fn voices(&self, parties: impl Fn(usize) -> String) -> Vec<Voice> {
        let count = self.channels.len();
        let voice = |(index, samples): (usize, &Vec<i16>)| Voice {
            place: place(&self.name, index, count),
            parties: parties(index),
            level: speech(samples, self.rate).map_or(Level::Silent, |(level, seconds)| Level::Speaks(level, seconds)),
        };
        self.channels.iter().enumerate().map(voice).collect()
    }
}

/// A supervisor: in its own file, and not in the mix.
fn supervised(recording: &Recording, file: &MediaFile, alone: &Sound, mix: &Sound) -> Vec<Voice> {
    let name = file.participant.and_then(|leg| name(recording, leg)).unwrap_or_default();
    let leaks = mix.channels.iter().map(|channel| leak(&alone.channels[0], channel, alone.rate)).fold(0.0, f64::max);
    let level = if leaks > 0.0 { Level::Leaks(leaks) } else { Level::Absent };
    let mut voices = vec![Voice { place: mix.name.clone(), parties: name.clone(), level }];
    voices.extend(alone.voices(|_| name.clone()));
    voices
}

/// For how many seconds somebody who speaks alone in one file is heard in another one, too.
fn leak(alone: &[i16], mix: &[i16], rate: u32) -> f64 {
    let window = (rate as usize * LEAK_MS / 1_000).max(1);
    let pairs = alone.chunks_exact(window).zip(mix.chunks_exact(window));
    let speaks = pairs.filter(|(alone, _)| tones::level(alone) >= SPEECH_DBFS);
    speaks.filter(|(alone, mix)| likeness(alone.iter().copied().zip(mix.iter().copied())) >= LEAK).count() as f64
        * LEAK_MS as f64
        / 1_000.0
}

/// Everybody who had a place on the channel.
fn parties(recording: &Recording, channel: usize) -> String {
    let mut legs: Vec<LegId> = Vec::new();
    for leg in recording.segments.iter().filter_map(|segment| segment.channels.get(channel)).flatten() {
        if !legs.contains(leg) {
            legs.push(*leg);
        }
    }
    legs.iter().filter_map(|leg| name(recording, *leg)).collect::<Vec<_>>().join(", ")
}

fn name(recording: &Recording, leg: LegId) -> Option<String> {
    let party = recording.participants.iter().find(|party| party.leg_id == leg)?;
    Some(party.dn.clone().unwrap_or_else(|| user_of(&party.uri).to_owned()))
}

/// `+4930123` of `sip:+4930123@203.0.113.7`; the whole text when it is no such URI.
fn user_of(uri: &str) -> &str {
    let without_scheme = uri.split_once(':').map_or(uri, |(_, rest)| rest);
    without_scheme.split(['@', ';']).next().unwrap_or(without_scheme)
}

/// Mean level of the windows with speech, and their time.
fn speech(samples: &[i16], rate: u32) -> Option<(f64, f64)> {
    let window = (rate as usize * WINDOW_MS / 1_000).max(1);
    let levels = samples.chunks_exact(window).map(tones::level).filter(|level| *level >= SPEECH_DBFS);
    let powers: Vec<f64> = levels.map(|level| 10f64.powf(level / 10.0)).collect();
    let mean = powers.iter().sum::<f64>() / powers.len() as f64;
    (!powers.is_empty()).then(|| (10.0 * mean.log10(), powers.len() as f64 * WINDOW_MS as f64 / 1_000.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speech_is_measured_where_there_is_any() {
        let mut samples = vec![0; 8_000];
        crate::testing::tones::Voice::Tone { hz: 400.0, dbfs: -20.0 }.fill(0, 8_000, &mut samples[..4_000]);
        let (level, seconds) = speech(&samples, 8_000).unwrap();
        assert!((level + 20.0).abs() < 0.1 && (seconds - 0.5).abs() < 0.01, "{level} {seconds}");
        assert_eq!(speech(&[3; 8_000], 8_000), None);
        assert_eq!(speech(&[], 8_000), None);
    }

    #[test]
    fn a_supervisor_that_is_heard_in_the_mix_is_found() {
        let voice = |hz, seconds: usize| {
            let mut samples = vec![0; seconds * 8_000];
            crate::testing::tones::Voice::Tone { hz, dbfs: -20.0 }.fill(0, 8_000, &mut samples);
            samples
        };
        // It speaks in the second of three seconds, and so do the parties all the time.
        let alone = [vec![0; 8_000], voice(440.0, 1), vec![0; 8_000]].concat();
        let parties = voice(300.0, 3);
        let both: Vec<i16> = parties.iter().zip(&alone).map(|(a, b)| a + b).collect();
        assert_eq!(leak(&alone, &parties, 8_000), 0.0);
        assert!((leak(&alone, &both, 8_000) - 1.0).abs() < 1e-9);
        assert!((leak(&alone, &alone, 8_000) - 1.0).abs() < 1e-9);
        assert_eq!(leak(&alone, &[0; 24_000], 8_000), 0.0);
    }

    #[test]
    fn a_party_is_named_by_the_user_of_its_address() {
        for (uri, user) in [("sip:+4930@10.0.0.1:5060", "+4930"), ("tel:110;phone-context=de", "110"), ("odd", "odd")] {
            assert_eq!(user_of(uri), user);
        }
    }

    #[test]
    fn an_empty_folder_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let report = report(folder.path(), None).unwrap();
        assert_eq!(report.wrong(), ["no recording was made"]);
        assert!(report.is_empty() && report.first_file().is_none());
    }
}
