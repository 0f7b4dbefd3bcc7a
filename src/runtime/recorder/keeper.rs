//! The folder of recordings while a server runs, and the threads that all recorders share: [`super::syncing`] (`syncfs`),
//! `publisher`, and space (one `statvfs` a second).

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::publisher::{self, Publisher};
use super::syncing::Syncing;
use crate::clock;
use crate::disk::floor::{Floor, Room};
use crate::disk::store::{self, Error, Store};
use crate::disk::{Disk, Guard, RealDisk};

/// What the keeper is given.
#[derive(Debug, Clone)]
pub struct Options {
    /// `recording.directory`; created when it is missing.
    pub directory: PathBuf,
    /// `recording.min-free-space` in bytes.
    pub min_free_space: u64,
}

/// Time between two readings of the free space (spec/recording.md §6).
const SECOND: Duration = Duration::from_secs(1);

/// How soon the thread of the free space notices that it shall stop.
const STOP_POLL: Duration = Duration::from_millis(50);

/// The folder of recordings, locked for this process, and the threads that look after it.
pub struct Keeper {
    shared: Arc<Shared>,
    publisher: Publisher,
    threads: Vec<JoinHandle<()>>,
    publishing: Option<JoinHandle<()>>,
    _lock: Box<dyn Guard>,
}

struct Shared {
    store: Arc<Store>,
    syncing: Arc<Syncing>,
    room: Arc<RoomCell>,
    /// Bytes written by all recorders.
    written: Arc<AtomicU64>,
    stop: AtomicBool,
}

/// Locks the folder, starts the threads, and lets the publisher finish in the background what a former process left.
/// `on_room` is told the room at once and at every change, by a thread that it must not block.
///
/// # Errors
/// The folder cannot be made or written to, or another server holds it.
pub fn open(options: Options, on_room: impl Fn(Room) + Send + 'static) -> Result<Keeper, store::Error> {
    open_on(Arc::new(RealDisk), options, on_room)
}

/// As [`open`], on a disk of the caller's.
///
/// # Errors
/// As [`open`].
pub fn open_on(
    disk: Arc<dyn Disk>,
    options: Options,
    on_room: impl Fn(Room) + Send + 'static,
) -> Result<Keeper, store::Error> {
    let store = Arc::new(Store::new(disk, options.directory.clone()));
    let lock = store.lock()?;
    let leftovers = store.active()?;
    let mut floor = Floor::new(options.min_free_space);
    let room = floor.observe(store.space()?.free, 0);
    on_room(room);

    let shared = Arc::new(Shared {
        syncing: Arc::new(Syncing::new(store.clone())),
        store,
        room: Arc::new(RoomCell(AtomicU8::new(0))),
        written: Arc::default(),
        stop: AtomicBool::new(false),
    });
    shared.room.set(room);
    let (publisher, publishing) = publisher::new(shared.store.clone(), shared.syncing.clone(), leftovers);

    let thread = |name: &str, body: Box<dyn FnOnce() + Send>| {
        let spawned = std::thread::Builder::new().name(name.into()).spawn(body);
        spawned.map_err(Error::io("start threads for", &options.directory))
    };
    let sync = shared.syncing.clone();
    let space = shared.clone();
    let mut keeper = Keeper { shared, publisher, threads: Vec::new(), publishing: None, _lock: lock };
    keeper.threads.push(thread("disk-sync", Box::new(move || sync.run()))?);
    keeper.threads.push(thread("disk-space", Box::new(move || space.watch_space(floor, on_room)))?);
    keeper.publishing = Some(thread("publisher", Box::new(move || publishing.run()))?);
    Ok(keeper)
}

impl Keeper {
    /// The folder, for reading (`GET /v1/recordings`).
    pub fn store(&self) -> &Arc<Store> {
        &self.shared.store
    }

    /// What the free space allows now (`/readyz`).
    pub fn room(&self) -> Room {
        self.shared.room.get()
    }

    /// As [`Keeper::room`], for other threads.
    pub fn room_cell(&self) -> Arc<RoomCell> {
        self.shared.room.clone()
    }

    /// Recordings that wait for the publisher, for metrics.
    pub fn unpublished(&self) -> usize {
        self.publisher.waiting()
    }

    /// Bytes that all recorders have written, for metrics.
    pub fn written_bytes(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
    }

    pub(super) fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    pub(super) fn written(&self) -> Arc<AtomicU64> {
        self.shared.written.clone()
    }

    /// Publishes what is left, syncs, gives the folder back. Call it after every recorder's `shutdown`. What a former
    /// process left and is not repaired yet stays for the next start.
    pub fn shutdown(mut self) {
        self.publisher.stop();
        if let Some(thread) = self.publishing.take() {
            join(thread);
        }
        self.shared.stop();
        self.threads.drain(..).for_each(join);
        if let Err(error) = self.shared.store.sync() {
            tracing::error!(%error, "the last sync of recordings failed");
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.publisher.stop();
        self.shared.stop();
    }
}

fn join(thread: JoinHandle<()>) {
    let name = thread.thread().name().unwrap_or_default().to_owned();
    if thread.join().is_err() {
        tracing::error!(thread = name, "a thread of the recordings' folder has panicked");
    }
}

/// The [`Room`] of the present second, read by any thread at any time.
#[derive(Debug)]
pub struct RoomCell(AtomicU8);

impl RoomCell {
    /// The room.
    pub fn get(&self) -> Room {
        match self.0.load(Ordering::Relaxed) {
            0 => Room::Enough,
            1 => Room::Low,
            _ => Room::Full,
        }
    }

    fn set(&self, room: Room) {
        let value = match room {
            Room::Enough => 0,
            Room::Low => 1,
            Room::Full => 2,
        };
        self.0.store(value, Ordering::Relaxed);
    }
}

impl Shared {
    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.syncing.stop();
    }

    fn watch_space(&self, mut floor: Floor, on_room: impl Fn(Room)) {
        let (mut room, mut written, mut failing) = (floor.room(), 0, false);
        let mut next = clock::now();
        while !self.stop.load(Ordering::Acquire) {
            let now = clock::now();
            if now < next {
                std::thread::sleep((next - now).min(STOP_POLL));
                continue;
            }
            next = now + SECOND;
            let total = self.written.load(Ordering::Relaxed);
            let rate = total - std::mem::replace(&mut written, total);
            let space = match self.store.space() {
                Ok(space) => space,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::error!(%error, "the free space is unknown");
                    }
                    continue;
                }
            };
            failing = false;
            let now = floor.observe(space.free, rate);
            if std::mem::replace(&mut room, now) != now {
                self.room.set(now);
                tracing::warn!(room = ?now, free_bytes = space.free, "the room for recordings has changed");
                on_room(now);
            }
        }
    }
}
