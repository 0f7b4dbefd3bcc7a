//! stickytape recordings: the library from the shell.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::disk::RealDisk;
use crate::disk::list::Filter;
use crate::disk::store::{Error, Store};
use crate::id::RecordingId;
use crate::record::metadata::{Recording, State};

/// `stickytape recordings …`.
#[derive(Debug, Args)]
pub struct Recordings {
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do with the library.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// List recordings, newest first.
    List {
        /// Only calls from this number.
        #[arg(long)]
        caller: Option<String>,
        /// Only calls to this number.
        #[arg(long)]
        dialed: Option<String>,
        /// Only recordings in which this directory number took part.
        #[arg(long)]
        dn: Option<String>,
        /// Started at or after (RFC 3339, "2026-11-20T09:00:00Z").
        #[arg(long)]
        from: Option<jiff::Timestamp>,
        /// Started before.
        #[arg(long)]
        to: Option<jiff::Timestamp>,
        /// recording, complete, recovered or failed.
        #[arg(long, value_parser = parse_state)]
        state: Option<State>,
        /// At most so many; 0 means all.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show one recording: parties, segments, files.
    Show {
        /// Its id.
        id: RecordingId,
    },
    /// Check recordings against everything that their metadata says; without an id, all that are published.
    Verify {
        /// Their ids.
        ids: Vec<RecordingId>,
    },
    /// Finish what a crash left behind, as `serve` does at its start.
    Repair,
    /// Copy a recording's folder.
    Export {
        /// Its id.
        id: RecordingId,
        /// The folder to put it in; created when missing.
        #[arg(long)]
        to: PathBuf,
    },
    /// Remove a published recording.
    Delete {
        /// Its id.
        id: RecordingId,
    },
}

/// Does it, with results on stdout and errors on stderr. Exit code 0: done; 1: refused, failed, or a recording is wrong.
pub fn run(args: Recordings, directory: &Path) -> ExitCode {
    let store = Store::new(Arc::new(RealDisk), directory.to_owned());
    let shell = Shell { store, json: args.json };
    let result = match args.action {
        Action::List { caller, dialed, dn, from, to, state, limit } => {
            shell.list(&Filter { caller, dialed, dn, from, to, state }, limit)
        }
        Action::Show { id } => shell.show(id),
        Action::Verify { ids } => shell.verify(ids),
        Action::Repair => shell.repair(),
        Action::Export { id, to } => shell.export(id, &to),
        Action::Delete { id } => shell.delete(id),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse_state(text: &str) -> Result<State, String> {
    serde_json::from_value(text.into()).map_err(|_| "one of recording, complete, recovered, failed".into())
}

/// Every action answers whether all is well; errors are those that left something undone.
struct Shell {
    store: Store,
    json: bool,
}

impl Shell {
    fn list(&self, filter: &Filter, limit: usize) -> Result<bool, Error> {
        let limit = if limit == 0 { usize::MAX } else { limit };
        let page = self.store.list(filter, limit, None)?;
        if self.json {
            print_json(&serde_json::json!({ "recordings": page.recordings, "next": page.next }));
            return Ok(true);
        }
        if page.recordings.is_empty() {
            println!("no recordings in {}", self.store.directory().display());
            return Ok(true);
        }
        println!("{}", recordings_table(&page.recordings));
        if page.next.is_some() {
            println!("there are more; see --limit");
        }
        Ok(true)
    }

    fn show(&self, id: RecordingId) -> Result<bool, Error> {
        let found = self.store.find(id)?;
        if self.json {
            print_json(&found.recording);
            return Ok(true);
        }
        let recording = &found.recording;
        println!("{}", recordings_table(std::slice::from_ref(recording)));
        println!("{}", found.folder.display());
        let session = &recording.recording_session;
        println!("started by {}: {}", session.trigger, session.rule);
        println!("\n{}\n{}\n{}", parties_table(recording), segments_table(recording), files_table(recording));
        for gap in &recording.gaps {
            let cause = word(&gap.cause);
            println!("gap of leg {}: samples {} to {}, {cause}", gap.leg, gap.start_sample, gap.end_sample);
        }
        for warning in &recording.warnings {
            println!("warning: {warning}");
        }
        Ok(true)
    }

    fn verify(&self, ids: Vec<RecordingId>) -> Result<bool, Error> {
        let ids = if ids.is_empty() { self.store.published()? } else { ids };
        let mut results = Vec::with_capacity(ids.len());
        for id in ids {
            let problems = match self.store.verify(id) {
                Ok((_, problems)) => problems,
                Err(error) => vec![error.to_string()],
            };
            results.push(Verified { id, ok: problems.is_empty(), problems });
        }
        let wrong = results.iter().filter(|r| !r.ok).count();
        if self.json {
            print_json(&results);
            return Ok(wrong == 0);
        }
        for result in &results {
            println!("{} {}", result.id, if result.ok { "ok" } else { "WRONG" });
            result.problems.iter().for_each(|problem| println!("  {problem}"));
        }
        println!("{} checked, {wrong} wrong", results.len());
        Ok(wrong == 0)
    }

    fn repair(&self) -> Result<bool, Error> {
        let _lock = self.store.lock()?;
        let mut results = Vec::new();
        for id in self.store.active()? {
            results.push(match self.store.repair(id) {
                Ok(Some(recording)) => {
                    let state = Some(recording.recording_session.state);
                    Repaired { id, state, duration_ms: recording.duration_ms, error: None }
                }
                Ok(None) => Repaired { id, state: None, duration_ms: None, error: None },
                Err(error) => Repaired { id, state: None, duration_ms: None, error: Some(error.to_string()) },
            });
        }
        let failed = results.iter().filter(|r| r.error.is_some()).count();
        if self.json {
            print_json(&results);
            return Ok(failed == 0);
        }
        for Repaired { id, state, duration_ms, error } in &results {
            match (state, error) {
                (_, Some(error)) => println!("{id} not repaired: {error}"),
                (Some(state), _) => println!("{id} {} {}", word(state), length(*duration_ms)),
                (None, None) => println!("{id} held nothing and is removed"),
            }
        }
        println!("{} left behind, {failed} not repaired", results.len());
        Ok(failed == 0)
    }

    fn export(&self, id: RecordingId, to: &Path) -> Result<bool, Error> {
        let target = self.store.export(id, to)?;
        match self.json {
            true => print_json(&serde_json::json!({ "id": id, "folder": target })),
            false => println!("{}", target.display()),
        }
        Ok(true)
    }

    fn delete(&self, id: RecordingId) -> Result<bool, Error> {
        self.store.delete(id)?;
        match self.json {
            true => print_json(&serde_json::json!({ "id": id, "deleted": true })),
            false => println!("{id} deleted"),
        }
        Ok(true)
    }
}

/// One line of `verify --json`.
#[derive(Serialize)]
struct Verified {
    id: RecordingId,
    ok: bool,
    problems: Vec<String>,
}

/// One line of `repair --json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Repaired {
    id: RecordingId,
    state: Option<State>,
    duration_ms: Option<u64>,
    error: Option<String>,
}

fn print_json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => println!("{text}"),
        Err(error) => eprintln!("error: {error}"),
    }
}

/// The table of `recordings list`, which the demo prints as well.
pub fn recordings_table(recordings: &[Recording]) -> Table {
    let mut table = new_table(&["id", "started (UTC)", "length", "caller", "dialed", "owner", "state", "ended by"]);
    for recording in recordings {
        let session = &recording.recording_session;
        table.add_row([
            recording.id.to_string(),
            recording.start_time.strftime("%Y-%m-%d %H:%M:%S").to_string(),
            length(recording.duration_ms),
            recording.caller_phone_number.clone(),
            recording.dialed_phone_number.clone(),
            session.owner_dn.clone().unwrap_or_else(|| word(&session.side)),
            word(&session.state),
            session.stop_cause.as_ref().map(word).unwrap_or_default(),
        ]);
    }
    table
}

fn parties_table(recording: &Recording) -> Table {
    let mut table = new_table(&["leg", "number", "address", "role", "joined", "left", "because"]);
    for party in &recording.participants {
        table.add_row([
            party.leg_id.to_string(),
            party.dn.clone().unwrap_or_default(),
            party.uri.clone(),
            word(&party.role),
            party.joined.strftime("%H:%M:%S%.3f").to_string(),
            party.left.map(|t| t.strftime("%H:%M:%S%.3f").to_string()).unwrap_or_default(),
            party.leave_cause.clone().unwrap_or_default(),
        ]);
    }
    table
}

fn segments_table(recording: &Recording) -> Table {
    let rate = u64::from(recording.media_files.first().map_or(8_000, |f| f.sample_rate).max(1));
    let mut table = new_table(&["from", "to", "conversation", "speakers", "owner", ""]);
    for segment in &recording.segments {
        let flags = [
            (segment.paused, "paused"),
            (segment.held, "held"),
            (segment.consult, "consult"),
            (segment.early, "early"),
        ];
        let set: Vec<&str> = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
        table.add_row([
            length(Some(segment.start_sample * 1_000 / rate)),
            length(Some(segment.end_sample * 1_000 / rate)),
            list(&segment.participants),
            list(&segment.speakers),
            segment.owner.to_string(),
            set.join(" "),
        ]);
    }
    table
}

fn files_table(recording: &Recording) -> Table {
    let mut table = new_table(&["file", "channels", "Hz", "samples", "bytes", "SHA-256"]);
    for file in &recording.media_files {
        table.add_row([
            file.file.clone(),
            file.channels.to_string(),
            file.sample_rate.to_string(),
            file.samples.to_string(),
            file.size.map(|s| s.to_string()).unwrap_or_default(),
            file.sha256.clone().unwrap_or_default(),
        ]);
    }
    for column in 1..=4 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// An empty table as all commands print them.
pub fn new_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_header(header.iter().copied());
    table
}

fn list(legs: &[crate::id::LegId]) -> String {
    legs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Minutes, seconds and milliseconds; a running recording has no length yet.
fn length(duration_ms: Option<u64>) -> String {
    let Some(ms) = duration_ms else { return "running".into() };
    let (minutes, seconds, ms) = (ms / 60_000, ms / 1_000 % 60, ms % 1_000);
    format!("{minutes}:{seconds:02}.{ms:03}")
}

/// A value as recording.json writes it.
fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Root {
        #[command(flatten)]
        recordings: Recordings,
    }

    #[test]
    fn json_may_be_asked_for_after_the_action() {
        let root = Root::try_parse_from(["x", "list", "--json", "--state", "complete"]).unwrap();
        assert!(root.recordings.json);
        assert!(matches!(root.recordings.action, Action::List { state: Some(State::Complete), limit: 50, .. }));
    }

    #[test]
    fn a_state_that_does_not_exist_is_refused_with_those_that_do() {
        let error = Root::try_parse_from(["x", "list", "--state", "done"]).err().unwrap().to_string();
        assert!(error.contains("recovered"), "{error}");
    }

    #[test]
    fn a_length_is_minutes_seconds_and_milliseconds() {
        assert_eq!(length(Some(3_723_004)), "62:03.004");
        assert_eq!(length(None), "running");
    }
}
