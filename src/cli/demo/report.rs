//! What is on the disk after the demo, computed from the files alone.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use comfy_table::{CellAlignment, Table, presets};
use jiff::Timestamp;

use crate::disk::list::Filter;
use crate::disk::store::{Error, METADATA, Store};
use crate::disk::{RealDisk, wav};
use crate::id::{LegId, RecordingId};
use crate::record::metadata::{FileKind, Recording};
use crate::testing::tones;

/// Windows in which a channel counts as speaking, and the level that they must reach.
const WINDOW_MS: usize = 20;
const SPEECH_DBFS: f64 = -45.0;

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
    /// Who is on each channel of `mixed.wav`, and how loud.
    channels: Vec<Channel>,
    file: PathBuf,
    wrong: Vec<String>,
}

#[derive(Debug)]
struct Channel {
    parties: String,
    /// Level of the windows with speech in dBFS and their length in seconds; `None`: silence throughout.
    speech: Option<(f64, f64)>,
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
        table.set_header(["recording", "length", "channel", "party", "level", "speech", "verify"]);
        for row in &self.recordings {
            for (index, channel) in row.channels.iter().enumerate() {
                let first = |text: String| if index == 0 { text } else { String::new() };
                let verdict = if row.wrong.is_empty() { "ok" } else { "WRONG" };
                let (level, time) = match channel.speech {
                    Some((level, seconds)) => (format!("{level:.1} dBFS"), format!("{seconds:.1} s")),
                    None => ("silence".to_owned(), "0.0 s".to_owned()),
                };
                table.add_row([
                    first(row.id.to_string()),
                    first(format!("{:.2} s", row.length_ms as f64 / 1_000.0)),
                    channel_name(index, row.channels.len()).to_owned(),
                    channel.parties.clone(),
                    level,
                    time,
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

fn channel_name(index: usize, count: usize) -> &'static str {
    match (index, count) {
        (_, 1) => "mono",
        (0, _) => "left",
        _ => "right",
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
                channels: vec![Channel { parties: String::new(), speech: None }],
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
    let mixed = recording.media_files.iter().find(|file| file.kind == FileKind::Mixed);
    let file = folder.join(mixed.map_or(METADATA, |file| &file.file));
    let channels = match wav::read(&RealDisk, &file) {
        Ok((spec, samples)) => channels(recording, spec.sample_rate, usize::from(spec.channels), &samples),
        Err(error) => {
            wrong.push(format!("{} cannot be read: {error}", file.display()));
            vec![Channel { parties: String::new(), speech: None }]
        }
    };
    for (index, channel) in channels.iter().enumerate().filter(|(_, channel)| channel.speech.is_none()) {
        let mut text = format!("the {} channel is silent", channel_name(index, channels.len()));
        if !channel.parties.is_empty() {
            // Numbers of callers are no secret to whoever reads the table, which has them too.
            let _ = write!(text, " ({})", channel.parties);
        }
        wrong.push(text);
    }
    Row { id: recording.id, length_ms: recording.duration_ms.unwrap_or(0), channels, file, wrong }
}

fn channels(recording: &Recording, rate: u32, count: usize, interleaved: &[i16]) -> Vec<Channel> {
    (0..count)
        .map(|index| {
            let samples: Vec<i16> = interleaved.iter().skip(index).step_by(count).copied().collect();
            Channel { parties: parties(recording, index), speech: speech(&samples, rate) }
        })
        .collect()
}

/// Everybody who had a place on the channel.
fn parties(recording: &Recording, channel: usize) -> String {
    let mut legs: Vec<LegId> = Vec::new();
    for leg in recording.segments.iter().filter_map(|segment| segment.channels.get(channel)).flatten() {
        if !legs.contains(leg) {
            legs.push(*leg);
        }
    }
    let name = |leg: &LegId| {
        let party = recording.participants.iter().find(|party| party.leg_id == *leg)?;
        Some(party.dn.clone().unwrap_or_else(|| user_of(&party.uri).to_owned()))
    };
    legs.iter().filter_map(name).collect::<Vec<_>>().join(", ")
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
