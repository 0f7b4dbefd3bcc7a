//! stickytape recordings: the library from the shell.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::id::RecordingId;

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
        #[arg(long)]
        state: Option<String>,
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
    let _ = (args, directory);
    ExitCode::FAILURE
}
