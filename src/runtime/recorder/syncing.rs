//! `disk-sync`: everything written becomes durable once a second, and sooner when the publisher waits for it.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock;
use crate::disk::store::{Error, Store};

/// Time between two syncs (spec/recording.md §7).
const SECOND: Duration = Duration::from_secs(1);

/// A sync that is asked for begins this many times as long after the last one as that took: on a disk that takes its time,
/// publications wait for the sync of the second, rather than that running calls are written back in small pieces.
const REST: u32 = 20;

/// From the beginning of a sync to that of the next one, when the former took `took`.
///
/// A power cut at the end of a sync, before it counts, loses what came since the former one began, and the 0.85 s that
/// commits are behind: period + duration + 0.85 s. A disk that takes its time is therefore synced the sooner, so that
/// this stays 1.85 s up to a duration of half a second (spec/recording.md §7: at most 2.0 s while the disk answers).
pub fn sync_pause(took: Duration) -> Duration {
    SECOND - took.min(SECOND / 2)
}

/// The syncs of the folder's file system.
pub(super) struct Syncing {
    store: Arc<Store>,
    turns: Mutex<Turns>,
    changed: Condvar,
}

#[derive(Default)]
struct Turns {
    /// Syncs begun and ended; they differ by one at most.
    begun: u64,
    ended: u64,
    /// Why the last one failed.
    failed: Option<io::ErrorKind>,
    /// Somebody waits for one that has not begun.
    wanted: bool,
    stop: bool,
}

impl Syncing {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store, turns: Mutex::default(), changed: Condvar::new() }
    }

    /// The thread.
    pub(super) fn run(&self) {
        let mut due = clock::now();
        let mut soonest = due;
        loop {
            let mut turns = self.turns();
            loop {
                if turns.stop {
                    return;
                }
                let (at, now) = (if turns.wanted { soonest } else { due }, clock::now());
                if at <= now {
                    break;
                }
                let waited = self.changed.wait_timeout(turns, at - now);
                turns = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            turns.wanted = false;
            turns.begun += 1;
            drop(turns);

            let began = clock::now();
            let result = self.store.sync();
            let ended = clock::now();
            let took = ended.saturating_duration_since(began);
            due = began + sync_pause(took);
            soonest = due.min(ended + took * REST);

            let mut turns = self.turns();
            let failing = turns.failed.is_some();
            if let Err(error) = &result
                && !failing
            {
                tracing::error!(%error, "recordings cannot be synced: a power cut would lose more than two seconds");
            }
            turns.failed = result.err().map(|error| error.io_kind());
            turns.ended = turns.begun;
            self.changed.notify_all();
        }
    }

    /// Waits until a sync is done that began after this was called.
    ///
    /// # Errors
    /// It failed.
    pub(super) fn wait(&self) -> Result<(), Error> {
        let mut turns = self.turns();
        let turn = turns.begun + 1;
        turns.wanted = true;
        self.changed.notify_all();
        while turns.ended < turn && !turns.stop {
            turns = self.changed.wait(turns).unwrap_or_else(PoisonError::into_inner);
        }
        let root = self.store.active_root();
        if turns.ended < turn {
            drop(turns);
            // The thread is gone, and whoever still publishes syncs for itself.
            return self.store.disk().sync_all(&root).map_err(Error::io("sync", &root));
        }
        match turns.failed {
            Some(kind) => Err(Error::io("sync", &root)(kind.into())),
            None => Ok(()),
        }
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.turns().stop = true;
        self.changed.notify_all();
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
