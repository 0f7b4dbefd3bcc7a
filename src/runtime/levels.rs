//! Levels that nobody announces: asked for once a second and set in the metrics.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::events::Events;
use super::metrics::Metrics;
use super::recorder::{Keeper, RecorderHandle};
use super::signaling::Inbox;
use super::{ivr, media, mixer};
use crate::call::Input;
use crate::net::sip;

/// Marks never drop; where so many wait for one recorder thread, no new call may add to them.
const MAX_BACKLOG: usize = 4_096;

/// Who is asked.
pub struct Sources {
    /// The signaling task.
    pub inbox: Inbox,
    /// The SIP sockets.
    pub sockets: Arc<sip::Counters>,
    /// The recorder threads.
    pub recorders: Vec<Arc<RecorderHandle>>,
    /// The media threads.
    pub media: Vec<Arc<media::Counters>>,
    /// The mixer threads.
    pub mixers: Vec<Arc<mixer::Counters>>,
    /// IVR drivers, where they may connect.
    pub drivers: Option<Arc<ivr::Hub>>,
    /// The recordings' folder.
    pub keeper: Arc<Keeper>,
    /// The kept events.
    pub events: Events,
}

/// Runs until the signaling task has ended.
pub async fn run(sources: Sources, metrics: Arc<Metrics>) {
    let Sources { inbox, sockets, recorders, media, mixers, drivers, keeper, events } = sources;
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut congested = false;
    loop {
        second.tick().await;
        let Some(counters) = inbox.ask(|calls| calls.counters()).await else { return };
        metrics.levels(&counters);
        metrics.sip_sockets(&sockets);
        let backlogs = recorders.iter().map(|recorder| recorder.backlog());
        let now_congested = backlogs.clone().any(|backlog| backlog > MAX_BACKLOG);
        if now_congested != congested {
            congested = now_congested;
            inbox.send(Input::Congested(congested));
            tracing::warn!(congested, "marks wait for a recorder thread: new calls are refused while it is congested");
        }
        let queued = recorders.iter().map(|recorder| recorder.queued_bytes()).sum();
        metrics.recorders(backlogs.sum(), queued, keeper.unpublished(), keeper.written_bytes());
        let to_recorders = recorders.iter().map(|recorder| recorder.take_ring_permille()).max();
        let to_mixers = mixers.iter().map(|mixer| mixer.ring_permille.swap(0, Relaxed)).max();
        metrics.media(&media, to_recorders.unwrap_or(0), to_mixers.unwrap_or(0));
        metrics.mixers(&mixers);
        if let Some(hub) = &drivers {
            metrics.drivers(hub.drivers(), hub.totals());
        }
        metrics.room(keeper.room());
        metrics.events(&events.counters());
        // statvfs may hang on a dead network disk.
        let store = keeper.store().clone();
        if let Ok(Ok(space)) = tokio::task::spawn_blocking(move || store.space()).await {
            metrics.disk_free(space.free);
        }
    }
}
