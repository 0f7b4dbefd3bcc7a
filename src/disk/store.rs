//! The folder of recordings (spec/recording.md §6): where everything is, and the lock.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Disk;
use crate::id::RecordingId;
use crate::record::metadata::Recording;

/// The name of the metadata within a recording's folder.
pub const METADATA: &str = "recording.json";

/// Why the folder of recordings did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused; `doing` says what, with the path.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Somebody else holds the folder.
    #[error("{0} is in use by a running stickytape serve")]
    InUse(PathBuf),
    /// No recording of that id.
    #[error("no recording {0}")]
    NotFound(RecordingId),
    /// The metadata cannot be read.
    #[error("the metadata of recording {id} cannot be read: {reason}")]
    Metadata {
        /// Which.
        id: RecordingId,
        /// Why.
        reason: String,
    },
    /// It is still being recorded.
    #[error("recording {0} is still running")]
    Running(RecordingId),
}

impl Error {
    pub(crate) fn io(doing: impl FnOnce() -> String) -> impl FnOnce(io::Error) -> Self {
        |source| Self::Io { doing: doing(), source }
    }

    /// True when the disk has no room (`ENOSPC` or a quota).
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

/// The folder of recordings.
pub struct Store {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
}

impl Store {
    /// The folder at `directory`; touches nothing yet.
    pub fn new(disk: Arc<dyn Disk>, directory: PathBuf) -> Self {
        Self { disk, directory }
    }

    /// The file system under it.
    pub fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// `recording.directory`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// `.active`: recordings whose call is up, or that are not published yet.
    pub fn active_root(&self) -> PathBuf {
        self.directory.join(".active")
    }

    /// The folder of a recording that is not published yet.
    pub fn active_dir(&self, id: RecordingId) -> PathBuf {
        self.active_root().join(id.to_string())
    }

    /// Where a recording belongs when it is published: the UTC date of its start.
    pub fn published_dir(&self, recording: &Recording) -> PathBuf {
        let day = recording.start_time.strftime("%Y/%m/%d").to_string();
        self.directory.join(day).join(recording.id.to_string())
    }
}
