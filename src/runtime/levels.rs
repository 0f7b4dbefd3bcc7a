//! Levels that nobody announces: asked for once a second and set in the metrics.

use std::sync::Arc;
use std::time::Duration;

use super::events::Events;
use super::metrics::Metrics;
use super::mixer;
use super::recorder::{Keeper, RecorderHandle};
use super::signaling::Inbox;
use crate::call::Input;
use crate::net::sip;

/// Marks never drop; where so many wait for one recorder thread, no new call may add to them.
const MAX_BACKLOG: usize = 4_096;

/// Runs until the signaling task has ended.
pub async fn run(
    inbox: Inbox,
    metrics: Arc<Metrics>,
    sockets: Arc<sip::Counters>,
    recorders: Vec<Arc<RecorderHandle>>,
    mixers: Vec<Arc<mixer::Counters>>,
    keeper: Arc<Keeper>,
    events: Events,
) {
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
        metrics.recorders(backlogs.sum(), keeper.unpublished());
        metrics.mixers(&mixers);
        metrics.room(keeper.room());
        metrics.events(&events.counters());
        // statvfs may hang on a dead network disk.
        let store = keeper.store().clone();
        if let Ok(Ok(space)) = tokio::task::spawn_blocking(move || store.space()).await {
            metrics.disk_free(space.free);
        }
    }
}
