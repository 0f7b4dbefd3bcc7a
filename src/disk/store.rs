//! The folder of recordings (spec/recording.md §6): where everything is, and who may change it.
//!
//! ```text
//! <directory>/.active/.lock            held by the one process that records here
//! <directory>/.active/<id>/            while the call is up, and until the publisher has come to it
//! <directory>/2026/11/20/<id>/         published, by the UTC date of its start
//! <directory>/2026/11/20/.<id>.new/    being copied from another file system
//! <directory>/2026/11/20/.<id>.gone/   being deleted
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::active::Syncs;
use super::{Disk, Guard, Space};
use crate::id::RecordingId;
use crate::record::metadata::Recording;

/// The name of the metadata within a recording's folder.
pub const METADATA: &str = "recording.json";
/// The next generation of [`METADATA`], before it takes its place; for a moment afterwards the one before.
pub(super) const METADATA_NEW: &str = ".recording.json.new";
/// The last generation of [`METADATA`] that is known to be durable.
pub(super) const METADATA_SAFE: &str = ".recording.json.safe";
/// The lock's file within `.active`.
const LOCK: &str = ".lock";

/// Why the folder of recordings did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Somebody else holds the folder.
    #[error("{} is in use by a running stickytape serve", .0.display())]
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
    /// It is still being recorded, or waits for being published.
    #[error("recording {0} is not published yet")]
    Running(RecordingId),
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }

    /// True when the disk has no room (`ENOSPC` or a quota).
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    /// What the operating system's error was; `Other` where there was none.
    pub fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::Io { source, .. } => source.kind(),
            _ => io::ErrorKind::Other,
        }
    }

    /// The text without a path of the server's disk, for events and answers.
    pub fn public_text(&self) -> String {
        match self {
            Self::Io { doing, source, .. } => format!("cannot {doing} a file of the recording: {source}"),
            Self::InUse(_) => "the folder of recordings is in use by another server".into(),
            other => other.to_string(),
        }
    }
}

/// The folder of recordings. Reading needs no lock; whoever records or repairs holds [`Store::lock`].
pub struct Store {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    syncs: Syncs,
}

impl Store {
    /// The folder at `directory`; touches nothing yet.
    pub fn new(disk: Arc<dyn Disk>, directory: PathBuf) -> Self {
        Self { disk, directory, syncs: Syncs::default() }
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
        self.day_dir(recording).join(recording.id.to_string())
    }

    pub(super) fn day_dir(&self, recording: &Recording) -> PathBuf {
        self.directory.join(recording.start_time.strftime("%Y/%m/%d").to_string())
    }

    /// Makes the folder if it is missing and takes it for this process; it is given back when the guard is dropped or
    /// the process ends.
    ///
    /// # Errors
    /// [`Error::InUse`] when another process has it, or the folder cannot be made or written to.
    pub fn lock(&self) -> Result<Box<dyn Guard>, Error> {
        let root = self.active_root();
        self.disk.create_dir_all(&root).map_err(Error::io("create", &root))?;
        let path = root.join(LOCK);
        match self.disk.lock(&path).map_err(Error::io("lock", &path))? {
            Some(guard) => Ok(guard),
            None => Err(Error::InUse(self.directory.clone())),
        }
    }

    /// Makes everything written so far durable. Only one thread may call it.
    ///
    /// # Errors
    /// The disk's own.
    pub fn sync(&self) -> Result<(), Error> {
        let root = self.active_root();
        self.syncs.run(|| self.disk.sync_all(&root)).map_err(Error::io("sync", &root))
    }

    /// The syncs done so far.
    pub fn syncs(&self) -> &Syncs {
        &self.syncs
    }

    /// Room on the file system of running recordings.
    ///
    /// # Errors
    /// The disk's own.
    pub fn space(&self) -> Result<Space, Error> {
        let root = self.active_root();
        self.disk.space(&root).map_err(Error::io("read the free space of", &root))
    }

    /// Everything under `.active`, running or left behind.
    ///
    /// # Errors
    /// The folder cannot be read; one that does not exist is empty.
    pub fn active(&self) -> Result<Vec<RecordingId>, Error> {
        let entries = self.entries(&self.active_root())?;
        let mut ids: Vec<RecordingId> =
            entries.iter().filter(|e| e.is_dir).filter_map(|e| e.name.parse().ok()).collect();
        ids.sort();
        Ok(ids)
    }

    /// The entries of a folder; none when it does not exist.
    pub(super) fn entries(&self, dir: &Path) -> Result<Vec<super::Entry>, Error> {
        match self.disk.list(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other.map_err(Error::io("read", dir)),
        }
    }

    pub(super) fn exists(&self, path: &Path) -> Result<bool, Error> {
        self.disk.exists(path).map_err(Error::io("read", path))
    }

    /// Reads a recording.json and checks that it is `id`'s.
    pub(super) fn read_metadata(&self, path: &Path, id: RecordingId) -> Result<Recording, Error> {
        let bytes = self.disk.read(path).map_err(Error::io("read", path))?;
        let recording: Recording =
            serde_json::from_slice(&bytes).map_err(|e| Error::Metadata { id, reason: e.to_string() })?;
        match recording.id == id {
            true => Ok(recording),
            false => Err(Error::Metadata { id, reason: format!("it is that of {}", recording.id) }),
        }
    }

    /// Removes a folder of files, the metadata last: as long as anything is left, it still says what it was.
    pub(super) fn remove_folder(&self, dir: &Path) -> Result<(), Error> {
        let mut names: Vec<String> = self.entries(dir)?.into_iter().map(|e| e.name).collect();
        names.sort_by_key(|name| name == METADATA);
        for name in names {
            let path = dir.join(name);
            self.disk.remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        match self.disk.remove_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(Error::io("remove", dir)),
        }
    }
}
