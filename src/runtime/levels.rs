//! Levels that nobody announces: asked for once a second and set in the metrics.

use std::sync::Arc;
use std::time::Duration;

use super::metrics::Metrics;
use super::recorder::{Keeper, RecorderHandle};
use super::signaling::Inbox;
use crate::net::sip;

/// Runs until the signaling task has ended.
pub async fn run(
    inbox: Inbox,
    metrics: Arc<Metrics>,
    sockets: Arc<sip::Counters>,
    recorders: Vec<Arc<RecorderHandle>>,
    keeper: Arc<Keeper>,
) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        second.tick().await;
        let Some(counters) = inbox.ask(|calls| calls.counters()).await else { return };
        metrics.levels(&counters);
        metrics.sip_sockets(&sockets);
        let backlog = recorders.iter().map(|recorder| recorder.backlog()).sum();
        metrics.recorders(backlog, keeper.unpublished());
        metrics.room(keeper.room());
        // statvfs may hang on a dead network disk.
        let store = keeper.store().clone();
        if let Ok(Ok(space)) = tokio::task::spawn_blocking(move || store.space()).await {
            metrics.disk_free(space.free);
        }
    }
}
