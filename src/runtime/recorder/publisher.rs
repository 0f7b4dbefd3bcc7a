//! `publisher`: recordings that have ended get their hashes, their final metadata and their place, many under one sync.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::Notices;
use super::syncing::Syncing;
use crate::clock;
use crate::disk::publish::Prepared;
use crate::disk::store::{Error, Store};
use crate::id::{RecorderId, RecordingId};
use crate::record::mark::{Notice, StopCause};
use crate::record::metadata::Recording;
use crate::runtime::realtime;

/// Time until a publication that failed is tried again; doubled each time up to [`RETRY_MAX`].
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// How soon the thread looks again when it has nothing to do.
const IDLE: Duration = Duration::from_secs(1);

/// The longest time that recordings are prepared before the first of them is synced: hashing hours of audio must not
/// hold back a short call that came before.
const GATHER: Duration = Duration::from_millis(500);

/// A way to the publisher.
#[derive(Clone)]
pub(super) struct Publisher {
    jobs: mpsc::Sender<Job>,
    waiting: Arc<AtomicUsize>,
}

/// The publisher and the thread behind it, which is to be run. `leftovers`: what a former process left.
pub(super) fn new(store: Arc<Store>, syncing: Arc<Syncing>, leftovers: Vec<RecordingId>) -> (Publisher, Publishing) {
    let (jobs, work) = mpsc::channel();
    let waiting = Arc::new(AtomicUsize::new(leftovers.len()));
    let publishing = Publishing {
        store,
        syncing,
        work,
        waiting: waiting.clone(),
        leftovers: leftovers.into(),
        prepared: Vec::new(),
        failed: Agenda::default(),
    };
    (Publisher { jobs, waiting }, publishing)
}

impl Publisher {
    /// Takes over what has come to its end; its notice comes when it is published.
    pub(super) fn publish(&self, publication: Publication, recorder: RecorderId, notices: Notices) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // The publisher outlives the recorders, by the order of shutdown.
        let _ = self.jobs.send(Job::Publish(Box::new(Order { publication, recorder, notices, pause: RETRY })));
    }

    /// Recordings that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Ends the thread after everything handed over.
    pub(super) fn stop(&self) {
        let _ = self.jobs.send(Job::Stop);
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
    /// Until it is tried again, should it fail.
    pause: Duration,
}

enum Job {
    Publish(Box<Order>),
    Stop,
}

/// The publisher's thread.
pub(super) struct Publishing {
    store: Arc<Store>,
    syncing: Arc<Syncing>,
    work: mpsc::Receiver<Job>,
    waiting: Arc<AtomicUsize>,
    /// What a former process left; taken when nothing else is to do.
    leftovers: VecDeque<RecordingId>,
    /// To be synced and placed together.
    prepared: Vec<(Box<Order>, Prepared)>,
    /// To be tried again at an instant, which is the later the more often it failed.
    failed: Agenda<Box<Order>>,
}

impl Publishing {
    pub(super) fn run(mut self) {
        // A recording that is published later hurts nobody; a call that is answered later does.
        realtime::step_back("publisher");
        loop {
            let wait = if self.leftovers.is_empty() { IDLE } else { Duration::ZERO };
            let mut job = self.work.recv_timeout(wait);
            if let (Err(mpsc::RecvTimeoutError::Timeout), Some(id)) = (&job, self.leftovers.pop_front()) {
                self.repair(id);
            }
            let begun = clock::now();
            while let Some(order) = self.failed.pop_due(begun) {
                self.prepare(order);
            }
            while let Ok(Job::Publish(order)) = job {
                self.prepare(order);
                if clock::now().saturating_duration_since(begun) > GATHER {
                    job = Err(mpsc::RecvTimeoutError::Timeout);
                } else {
                    job = self.work.try_recv().map_err(|_| mpsc::RecvTimeoutError::Timeout);
                }
            }
            self.place();
            if matches!(job, Ok(Job::Stop) | Err(mpsc::RecvTimeoutError::Disconnected)) {
                break;
            }
        }
        for (_, order) in std::mem::take(&mut self.failed).0 {
            self.prepare(order);
        }
        self.place();
        if !self.failed.0.is_empty() || !self.leftovers.is_empty() {
            let left = self.failed.0.len() + self.leftovers.len();
            tracing::warn!(recordings = left, "recordings are not published; the next start does it");
        }
    }

    /// Hashes, and all that needs no sync. What had broken off is published at once: it is rare, and mending syncs.
    fn prepare(&mut self, order: Box<Order>) {
        match &order.publication {
            Publication::Complete(recording) => match self.store.prepare(recording.clone()) {
                Ok(prepared) => self.prepared.push((order, prepared)),
                Err(error) => self.try_again(order, &error),
            },
            Publication::Failed { recording, cause, why } => {
                match self.store.publish_failed(recording.clone(), *cause, why) {
                    Ok(_) => self.published(&order),
                    Err(error) => self.try_again(order, &error),
                }
            }
        }
    }

    /// Syncs, gives every prepared recording its place, and syncs that.
    fn place(&mut self) {
        if self.prepared.is_empty() {
            return;
        }
        let prepared = std::mem::take(&mut self.prepared);
        let synced = self.syncing.wait();
        let mut placed = Vec::with_capacity(prepared.len());
        for (order, prepared) in prepared {
            match &synced {
                Ok(()) => match self.store.place(prepared) {
                    Ok(_) => placed.push(order),
                    Err(error) => self.try_again(order, &error),
                },
                Err(error) => self.try_again(order, error),
            }
        }
        if placed.is_empty() {
            return;
        }
        let synced = self.syncing.wait();
        for order in placed {
            match &synced {
                Ok(()) => self.published(&order),
                Err(error) => self.try_again(order, error),
            }
        }
    }

    fn published(&self, order: &Order) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        (order.notices)(order.recorder, Notice::Published(order.publication.id()));
    }

    fn try_again(&mut self, mut order: Box<Order>, error: &Error) {
        tracing::error!(recording = %order.publication.id(), %error, "a recording cannot be published yet");
        let at = clock::now() + order.pause;
        order.pause = (order.pause * 2).min(RETRY_MAX);
        self.failed.enter(at, order);
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

/// What is due at an instant each, the earliest first.
struct Agenda<T>(VecDeque<(Instant, T)>);

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Agenda<T> {
    fn enter(&mut self, at: Instant, what: T) {
        let i = self.0.partition_point(|(other, _)| *other <= at);
        self.0.insert(i, (at, what));
    }

    fn pop_due(&mut self, now: Instant) -> Option<T> {
        self.0.front().filter(|(at, _)| *at <= now)?;
        self.0.pop_front().map(|(_, what)| what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_long_holds_back_nothing_that_is_due_before() {
        let (now, second) = (clock::now(), Duration::from_secs(1));
        let mut agenda = Agenda::default();
        [(60, 'a'), (1, 'b'), (2, 'c'), (1, 'd')]
            .into_iter()
            .for_each(|(at, what)| agenda.enter(now + second * at, what));
        assert_eq!(agenda.pop_due(now), None);
        let due: Vec<char> = std::iter::from_fn(|| agenda.pop_due(now + second)).collect();
        assert_eq!(due, ['b', 'd']);
        let due: Vec<char> = std::iter::from_fn(|| agenda.pop_due(now + second * 60)).collect();
        assert_eq!(due, ['c', 'a']);
    }
}
