//! The threads that all recorders share: sync (one `syncfs` a second), space (one `statvfs` a second) and publisher.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Notices;
use crate::clock;
use crate::disk::floor::{Floor, Room};
use crate::disk::store::{self, Error, Store};
use crate::disk::{Disk, Guard, RealDisk};
use crate::id::{RecorderId, RecordingId};
use crate::record::mark::{Notice, StopCause};
use crate::record::metadata::Recording;

/// What the keeper is given.
#[derive(Debug, Clone)]
pub struct Options {
    /// `recording.directory`; created when it is missing.
    pub directory: PathBuf,
    /// `recording.min-free-space` in bytes.
    pub min_free_space: u64,
}

/// Time between two syncs, and between two readings of the free space (spec/recording.md §6, §7).
const SECOND: Duration = Duration::from_secs(1);

/// From the beginning of a sync to that of the next one, when the former took `took`.
///
/// A power cut at the end of a sync, before it counts, loses what came since the former one began, and the 0.85 s that
/// commits are behind: period + duration + 0.85 s. A disk that takes its time is therefore synced the sooner, so that
/// this stays 1.85 s up to a duration of half a second (spec/recording.md §7: at most 2.0 s while the disk answers).
pub fn sync_pause(took: Duration) -> Duration {
    SECOND - took.min(SECOND / 2)
}

/// How soon a thread notices that it shall stop.
const STOP_POLL: Duration = Duration::from_millis(50);

/// Time until a publication that failed is tried again; doubled each time up to [`RETRY_MAX`].
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

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
        store,
        room: Arc::new(RoomCell(AtomicU8::new(0))),
        written: Arc::default(),
        stop: AtomicBool::new(false),
    });
    shared.room.set(room);
    let (jobs, work) = mpsc::channel();
    let publisher = Publisher { jobs, waiting: Arc::new(AtomicUsize::new(leftovers.len())) };

    let thread = |name: &str, body: Box<dyn FnOnce() + Send>| {
        let spawned = std::thread::Builder::new().name(name.into()).spawn(body);
        spawned.map_err(Error::io("start threads for", &options.directory))
    };
    let sync = shared.clone();
    let space = shared.clone();
    let publishing = Publishing {
        store: shared.store.clone(),
        work,
        waiting: publisher.waiting.clone(),
        leftovers: leftovers.into(),
        failed: VecDeque::new(),
    };
    let mut keeper = Keeper { shared, publisher, threads: Vec::new(), publishing: None, _lock: lock };
    keeper.threads.push(thread("disk-sync", Box::new(move || sync.keep_syncing()))?);
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
        self.publisher.waiting.load(Ordering::Relaxed)
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
        let _ = self.publisher.jobs.send(Job::Stop);
        if let Some(thread) = self.publishing.take() {
            join(thread);
        }
        self.shared.stop.store(true, Ordering::Release);
        self.threads.drain(..).for_each(join);
        if let Err(error) = self.shared.store.sync() {
            tracing::error!(%error, "the last sync of recordings failed");
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.publisher.jobs.send(Job::Stop);
        self.shared.stop.store(true, Ordering::Release);
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
    fn keep_syncing(&self) {
        let mut failing = false;
        self.repeat(sync_pause, || {
            let result = self.store.sync();
            if let Err(error) = &result
                && !failing
            {
                tracing::error!(%error, "recordings cannot be synced: a power cut would lose more than two seconds");
            }
            failing = result.is_err();
        });
    }

    fn watch_space(&self, mut floor: Floor, on_room: impl Fn(Room)) {
        let (mut room, mut written, mut failing) = (floor.room(), 0, false);
        self.repeat(
            |_| SECOND,
            || {
                let total = self.written.load(Ordering::Relaxed);
                let rate = total - std::mem::replace(&mut written, total);
                let space = match self.store.space() {
                    Ok(space) => space,
                    Err(error) => {
                        if !std::mem::replace(&mut failing, true) {
                            tracing::error!(%error, "the free space is unknown");
                        }
                        return;
                    }
                };
                failing = false;
                let now = floor.observe(space.free, rate);
                if std::mem::replace(&mut room, now) != now {
                    self.room.set(now);
                    tracing::warn!(room = ?now, free_bytes = space.free, "the room for recordings has changed");
                    on_room(now);
                }
            },
        );
    }

    /// Runs `act` until the keeper stops. `period` answers, by how long a run took, when after its beginning the next one
    /// begins; a run that takes longer than that delays it.
    fn repeat(&self, period: impl Fn(Duration) -> Duration, mut act: impl FnMut()) {
        let mut next = clock::now();
        while !self.stop.load(Ordering::Acquire) {
            let now = clock::now();
            if now < next {
                std::thread::sleep((next - now).min(STOP_POLL));
                continue;
            }
            act();
            next = now + period(clock::now().saturating_duration_since(now));
        }
    }
}

/// A way to the publisher.
#[derive(Clone)]
pub(super) struct Publisher {
    jobs: mpsc::Sender<Job>,
    waiting: Arc<AtomicUsize>,
}

impl Publisher {
    pub(super) fn publish(&self, publication: Publication, recorder: RecorderId, notices: Notices) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // The publisher outlives the recorders, by the order of shutdown.
        let _ = self.jobs.send(Job::Publish(Box::new(Order { publication, recorder, notices })));
    }
}

/// What has come to its end.
pub(super) enum Publication {
    /// In order.
    Complete(Recording),
    /// The disk refused a write.
    Failed { recording: Recording, cause: StopCause, why: String },
}

impl Publication {
    fn id(&self) -> RecordingId {
        match self {
            Self::Complete(recording) | Self::Failed { recording, .. } => recording.id,
        }
    }
}

struct Order {
    publication: Publication,
    recorder: RecorderId,
    notices: Notices,
}

enum Job {
    Publish(Box<Order>),
    Stop,
}

/// The publisher's thread.
struct Publishing {
    store: Arc<Store>,
    work: mpsc::Receiver<Job>,
    waiting: Arc<AtomicUsize>,
    /// What a former process left; taken when nothing else is to do.
    leftovers: VecDeque<RecordingId>,
    /// To be tried again at an instant, which is the later the more often it failed.
    failed: VecDeque<(Instant, Duration, Box<Order>)>,
}

impl Publishing {
    fn run(mut self) {
        loop {
            let wait = if self.leftovers.is_empty() { SECOND } else { Duration::ZERO };
            match self.work.recv_timeout(wait) {
                Ok(Job::Publish(order)) => self.publish(order, RETRY),
                Ok(Job::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    if let Some(id) = self.leftovers.pop_front() {
                        self.repair(id);
                    }
                }
            }
            let now = clock::now();
            if self.failed.front().is_some_and(|(at, ..)| *at <= now)
                && let Some((_, pause, order)) = self.failed.pop_front()
            {
                self.publish(order, (pause * 2).min(RETRY_MAX));
            }
        }
        for (_, _, order) in std::mem::take(&mut self.failed) {
            self.publish(order, RETRY);
        }
        if !self.failed.is_empty() || !self.leftovers.is_empty() {
            let left = self.failed.len() + self.leftovers.len();
            tracing::warn!(recordings = left, "recordings are not published; the next start does it");
        }
    }

    fn publish(&mut self, order: Box<Order>, pause: Duration) {
        let id = order.publication.id();
        let result = match &order.publication {
            Publication::Complete(recording) => self.store.publish(recording.clone()),
            Publication::Failed { recording, cause, why } => self.store.publish_failed(recording.clone(), *cause, why),
        };
        match result {
            Ok(_) => {
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                (order.notices)(order.recorder, Notice::Published(id));
            }
            Err(error) => {
                tracing::error!(recording = %id, %error, "a recording cannot be published yet");
                self.failed.push_back((clock::now() + pause, pause, order));
            }
        }
    }

    fn repair(&mut self, id: RecordingId) {
        match self.store.repair(id) {
            Ok(Some(recording)) => {
                let duration_ms = recording.duration_ms.unwrap_or(0);
                tracing::warn!(recording = %id, duration_ms, "a recording that was left behind is repaired");
            }
            Ok(None) => tracing::info!(recording = %id, "an empty recording that was left behind is removed"),
            Err(error) => tracing::error!(recording = %id, %error, "a recording that was left behind stays as it is"),
        }
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
