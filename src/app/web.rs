//! The HTTP API over what runs here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Agents;
use crate::api::{self, Readiness};
use crate::call::options::Secret;
use crate::config::Config;
use crate::net::bind::BindError;
use crate::runtime::events::Events;
use crate::runtime::http::Answers;
use crate::runtime::metrics::Metrics;
use crate::runtime::recorder::Keeper;
use crate::runtime::signaling::Inbox;

/// The socket of `api.listen`, when it is set.
pub(super) async fn bind_http(config: &Config) -> Result<Option<TcpListener>, BindError> {
    let Some(address) = config.api.listen else { return Ok(None) };
    TcpListener::bind(address).await.map(Some).map_err(|source| BindError::of("http", address, source))
}

/// Serves until the sender is used or dropped.
pub(super) fn serve_http(
    listener: TcpListener,
    answers: Answers,
    token: Option<Secret>,
) -> (oneshot::Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = async move {
        let token = token.as_ref().map(Secret::reveal);
        let stopped = async move {
            // A dropped sender stops it, too.
            let _ = stopped.await;
        };
        api::http::serve(listener, Arc::new(answers), token, stopped).await;
    };
    (stop, tokio::spawn(serve))
}

pub(super) fn answers(
    inbox: &Inbox,
    events: &Events,
    agents: &Agents,
    keeper: &Keeper,
    metrics: &Arc<Metrics>,
    draining: &Arc<AtomicBool>,
) -> Answers {
    Answers {
        inbox: inbox.clone(),
        events: events.clone(),
        reporting: agents.reporting.clone(),
        desks: agents.desks.clone(),
        store: keeper.store().clone(),
        metrics: metrics.clone(),
        readiness: readiness(draining.clone(), keeper),
    }
}

fn readiness(draining: Arc<AtomicBool>, keeper: &Keeper) -> Box<dyn Fn() -> Readiness + Send + Sync> {
    let room = keeper.room_cell();
    Box::new(move || Readiness { draining: draining.load(Ordering::Relaxed), no_space: !room.get().takes_new() })
}
