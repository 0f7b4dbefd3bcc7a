//! Builds every part, joins the queues, owns start and stop order.
//!
//! Start: folder of recordings → SIP and HTTP sockets → recorders → media and mixer threads → signaling → first ports → ready.
//! Stop: signaling drains → sockets → media threads → mixers → recorders → publisher. Each part ends because what fed it is gone.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::call::options::{Listener, Options, PeerAddress, Plan};
use crate::call::{Calls, Input, Reach, Seats};
use crate::clock;
use crate::config::{Config, ConfigError};
use crate::disk::floor::Room;
use crate::disk::store;
use crate::id::{MixerId, RecorderId, WorkerId};
use crate::net::bind::BindError;
use crate::net::kernel;
use crate::net::reach;
use crate::net::sip::{self, SipSockets};
use crate::runtime::agents::{self, Desks};
use crate::runtime::event_log;
use crate::runtime::events::{self, Events, Teller};
use crate::runtime::metrics::{Metrics, Observer};
use crate::runtime::recorder::{Keeper, RecorderHandle, keeper};
use crate::runtime::shutdown::{Signals, Wish};
use crate::runtime::signaling::{self, Edges, Inbox, Told};
use crate::runtime::{ivr, levels, log, media, mixer};
use crate::sip::endpoint;
use crate::views::interaction::{IsDn, Options as InteractionOptions};
use crate::views::ivr::{IsPort, Options as IvrOptions};
use crate::views::telephony::Telephony;

mod threads;
mod web;

use threads::{start_media, start_recorders, tap_rings};
use web::{answers, bind_http, serve_http};

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder of recordings.
    #[error(transparent)]
    Recordings(#[from] store::Error),
    /// A socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A media thread.
    #[error(transparent)]
    Media(#[from] media::Error),
    /// `media.kernel-forwarding`.
    #[error("media.kernel-forwarding: {0}")]
    Kernel(#[from] kernel::Error),
    /// A mixer thread.
    #[error("cannot start a mixer: {0}")]
    Mixer(io::Error),
    /// A recorder thread.
    #[error("cannot start a recorder: {0}")]
    Recorder(io::Error),
    /// `events.file`.
    #[error("cannot write events to {}: {source}", file.display())]
    EventLog {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The runtime or the signals.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

/// A running proxy.
pub struct Server {
    inbox: Inbox,
    listeners: Vec<Listener>,
    http: Option<SocketAddr>,
    signaling: JoinHandle<()>,
    levels: JoinHandle<()>,
    web: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    drivers: Option<Drivers>,
    agents: Agents,
    sockets: Arc<SipSockets>,
    media: Vec<media::Handle>,
    mixers: Vec<mixer::Handle>,
    recorders: Vec<Arc<RecorderHandle>>,
    keeper: Arc<Keeper>,
    draining: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
    events: KeptEvents,
}

/// The listener for IVR drivers.
struct Drivers {
    hub: Arc<ivr::Hub>,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Agents' desktops, and what keeps the events of reporting.
struct Agents {
    desks: Arc<Desks>,
    reporting: Events,
    keeping: JoinHandle<()>,
    stop: oneshot::Sender<()>,
    timing: JoinHandle<()>,
}

/// The events and what keeps them.
struct KeptEvents {
    events: Events,
    keeping: JoinHandle<()>,
    log: Option<event_log::Writer>,
}

/// Runs the proxy until a signal ends it: `stickytape serve`.
///
/// # Errors
/// It could not be started.
pub fn run(config: Config) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(StartError::Runtime)?;
    runtime.block_on(async {
        let mut signals = Signals::listen().map_err(StartError::Runtime)?;
        let file = config.file.clone();
        let to = config.plan.to.clone();
        let server = Server::start(config).await?;
        loop {
            match signals.next().await {
                Wish::Stop => break,
                Wish::Reload => server.reload(file.as_deref().map(Config::read), to.clone()),
            }
        }
        tracing::info!("stopping: new calls are refused, running ones may end; a second signal ends them now");
        server.drain();
        let hang_up = server.inbox.clone();
        let again = async move {
            signals.next().await;
            hang_up.send(Input::HangUpAll);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = server.stop() => {}
            () = again => {}
        }
        Ok(())
    })
}

impl Server {
    /// Starts everything, and returns when calls can be taken. Within a tokio runtime with several threads.
    ///
    /// # Errors
    /// See [`StartError`]. Threads that had been started end with the process.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let epoch = clock::now();
        let (inbox, queue) = signaling::inbox();
        let metrics = Arc::new(Metrics::new());

        let keeper = Arc::new(open_recordings(&config, &inbox)?);
        let (events, teller) = start_events(&config, &metrics)?;

        let (packets, received) = mpsc::channel(signaling::PACKETS);
        let sockets = Arc::new(open_sip(&config, packets)?);
        let listeners: Vec<Listener> = sockets.listeners().iter().map(as_bound).collect();
        let web = bind_http(&config).await?;
        let drivers = start_ivr(&config, &inbox).await?;
        let agents = start_agents(&config, &inbox);

        let (taps, rings) = tap_rings(&config);
        let recorders = start_recorders(&config, epoch, rings, &keeper, &inbox)?;
        let (media, mixers) = start_media(&config, epoch, taps, &inbox, &metrics)?;

        let seats = seats(media.len(), mixers.len(), recorders.len());
        let calls = Calls::new(call_options(&config, &listeners), seats, clock::now());
        let sending = sockets.clone();
        let edges = Edges {
            sip: Box::new(move |transmit| sending.send(transmit)),
            media: media.iter().map(media::Handle::sender).collect(),
            mixers: mixers.iter().map(mixer::Handle::sender).collect(),
            recorders: recorders.clone(),
            facts: told(&metrics, teller, drivers.as_ref(), &agents),
        };
        let (able, first_ports) = oneshot::channel();
        let signaling = tokio::spawn(signaling::run(calls, edges, received, queue, able));
        let sources = levels::Sources {
            inbox: inbox.clone(),
            sockets: sockets.counters().clone(),
            recorders: recorders.clone(),
            media: media.iter().map(media::Handle::counters).collect(),
            mixers: mixers.iter().map(mixer::Handle::counters).collect(),
            drivers: drivers.as_ref().map(|drivers| drivers.hub.clone()),
            keeper: keeper.clone(),
            events: events.events.clone(),
        };
        let levels = tokio::spawn(levels::run(sources, metrics.clone()));

        // An error means that the task has panicked: `stop` says so.
        let _ = first_ports.await;
        let draining = Arc::new(AtomicBool::new(false));
        let http = web.as_ref().and_then(|listener| listener.local_addr().ok());
        let answers = answers(&inbox, &events.events, &agents, &keeper, &metrics, &draining);
        let web = web.map(|listener| serve_http(listener, answers, config.api.token.clone()));

        announce(&listeners, http, drivers.as_ref().map(|drivers| drivers.address), &config);
        Ok(Self {
            inbox,
            listeners,
            http,
            signaling,
            levels,
            web,
            drivers,
            agents,
            sockets,
            media,
            mixers,
            recorders,
            keeper,
            draining,
            metrics,
            events,
        })
    }

    /// The SIP sockets as they were bound.
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// The HTTP listener as it was bound.
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// The listener for IVR drivers as it was bound.
    pub fn ivr(&self) -> Option<SocketAddr> {
        self.drivers.as_ref().map(|drivers| drivers.address)
    }

    /// The events of all calls.
    pub fn events(&self) -> &Events {
        &self.events.events
    }

    /// Replaces DNs, trunks, routes and rooms; a wrong file changes nothing.
    fn reload(&self, read: Option<Result<Config, ConfigError>>, to: Option<PeerAddress>) {
        match read {
            None => tracing::warn!("nothing to reload: no configuration file was read at start"),
            Some(Err(error)) => tracing::error!("the configuration was not reloaded and nothing changes: {error}"),
            Some(Ok(config)) => {
                let plan = Plan { to, ..config.plan };
                if let Some(drivers) = &self.drivers {
                    drivers.hub.reload(is_port(&plan));
                }
                self.agents.desks.reload(is_dn(&plan));
                self.inbox.send(Input::Reload(Box::new(plan)));
                tracing::info!("DNs, trunks, rooms and routes reloaded");
            }
        }
    }

    /// Refuses new calls from now on; running ones have `drain-timeout`.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.metrics.draining();
        self.inbox.send(Input::Drain);
    }

    /// Ends every call at once.
    pub fn hang_up(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.inbox.send(Input::HangUpAll);
    }

    /// Waits until the calls are gone (after [`Server::drain`] or [`Server::hang_up`]), then stops every part and
    /// returns when the last recording is published.
    pub async fn stop(self) {
        if self.signaling.await.is_err() {
            tracing::error!("the signaling task has panicked");
        }
        if let Some((stop, task)) = self.web {
            let _ = stop.send(());
            let _ = task.await;
        }
        if let Some(Drivers { stop, task, .. }) = self.drivers {
            let _ = stop.send(());
            let _ = task.await;
        }
        let Agents { desks, keeping, stop, timing, .. } = self.agents;
        let _ = stop.send(());
        let _ = timing.await;
        desks.close();
        let _ = keeping.await;
        let _ = self.levels.await;
        // What TCP still has to write is written first.
        if let Ok(sockets) = Arc::try_unwrap(self.sockets) {
            sockets.close().await;
        }
        let _ = self.events.keeping.await;
        let (media, mixers, recorders) = (self.media, self.mixers, self.recorders);
        let (keeper, event_log) = (self.keeper, self.events.log);
        let rest = tokio::task::spawn_blocking(move || {
            for worker in media {
                worker.join();
            }
            mixers.into_iter().for_each(mixer::Handle::join);
            for recorder in recorders {
                match Arc::try_unwrap(recorder) {
                    Ok(recorder) => recorder.shutdown(),
                    Err(_) => tracing::error!("a recorder is still in use at its end"),
                }
            }
            match Arc::try_unwrap(keeper) {
                Ok(keeper) => keeper.shutdown(),
                Err(_) => tracing::error!("the folder of recordings is still in use at its end"),
            }
            if let Some(log) = event_log {
                log.finish();
            }
        });
        let _ = rest.await;
    }
}

fn open_recordings(config: &Config, inbox: &Inbox) -> Result<Keeper, StartError> {
    let options =
        keeper::Options { directory: config.storage.directory.clone(), min_free_space: config.storage.min_free_space };
    let inbox = inbox.clone();
    let on_room = move |room: Room| {
        inbox.send(Input::Space { ok: room.takes_new() });
    };
    Ok(keeper::open(options, on_room)?)
}

fn start_events(config: &Config, metrics: &Arc<Metrics>) -> Result<(KeptEvents, Teller), StartError> {
    let (events, publisher, queue) = events::events(config.events.keep);
    let (log, writer) = match &config.events.file {
        None => (None, None),
        Some(file) => event_log::open(file, event_log::Limits::default(), queue.unwritten())
            .map(|(log, writer)| (Some(log), Some(writer)))
            .map_err(|source| StartError::EventLog { file: file.clone(), source })?,
    };
    let keeping = tokio::spawn(events::run(queue, log));
    // Each call may have a consultation, which is a call of its own.
    let teller = Teller::new(2 * config.sip.max_calls, publisher, metrics.clone());
    Ok((KeptEvents { events, keeping, log: writer }, teller))
}

/// What happens with facts and refusals.
fn told(
    metrics: &Arc<Metrics>,
    mut teller: Teller,
    drivers: Option<&Drivers>,
    agents: &Agents,
) -> Box<dyn FnMut(Told<'_>) + Send> {
    let mut counted = Observer::new(metrics.clone());
    let (drivers, agents) = (drivers.map(|drivers| drivers.hub.clone()), agents.desks.clone());
    Box::new(move |told| match told {
        Told::Fact(fact) => {
            log::fact(fact);
            counted.fact(fact);
            teller.fact(fact);
            if let Some(drivers) = &drivers {
                drivers.fact(fact);
            }
            agents.fact(fact);
        }
        Told::Denied(request, denied) => teller.denied(Telephony::error(request, denied), clock::wall()),
        Told::DnDenied(request, denied) => teller.denied(Telephony::dn_error(request, denied), clock::wall()),
    })
}

fn open_sip(config: &Config, packets: mpsc::Sender<endpoint::Input>) -> Result<SipSockets, BindError> {
    let options = sip::Options { listen: config.listen.iter().map(as_endpoint).collect(), ..sip::Options::default() };
    SipSockets::open(options, packets)
}

async fn start_ivr(config: &Config, inbox: &Inbox) -> Result<Option<Drivers>, BindError> {
    let Some(address) = config.ivr.listen else { return Ok(None) };
    let failed = |source| BindError::of("ivr", address, source);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let options = IvrOptions {
        busy: config.sip.ivr_busy.clone(),
        is_port: is_port(&config.plan),
        // Each call may have a consultation, which is a call of its own.
        max_calls: 2 * config.sip.max_calls,
    };
    let hub = ivr::Hub::new(inbox.clone(), options);
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(ivr::run(listener, hub.clone(), ivr::Silence::default(), stopped));
    Ok(Some(Drivers { hub, address, stop, task }))
}

fn start_agents(config: &Config, inbox: &Inbox) -> Agents {
    let (reporting, publisher, queue) = events::events(config.events.keep);
    let options = InteractionOptions {
        invitation_timeout: config.interaction.invitation_timeout,
        is_dn: is_dn(&config.plan),
        max_interactions: config.sip.max_calls,
        seed: rand::random(),
    };
    let desks = Desks::new(inbox.clone(), publisher, options);
    let (stop, stopped) = oneshot::channel();
    let timing = tokio::spawn(agents::run(desks.clone(), stopped));
    Agents { desks, reporting, keeping: tokio::spawn(events::run(queue, None)), stop, timing }
}

/// Tells DNs from other numbers.
fn is_dn(plan: &Plan) -> IsDn {
    let dns: Vec<_> = plan.dns.iter().map(|dn| dn.numbers.clone()).collect();
    Box::new(move |number| dns.iter().any(|numbers| numbers.contains(number)))
}

/// Tells IVR ports from other DNs.
fn is_port(plan: &Plan) -> IsPort {
    let ports: Vec<_> = plan.dns.iter().filter(|dn| dn.ivr).map(|dn| dn.numbers.clone()).collect();
    Box::new(move |number| ports.iter().any(|numbers| numbers.contains(number)))
}

fn call_options(config: &Config, listeners: &[Listener]) -> Options {
    Options {
        listeners: listeners.to_vec(),
        sip: config.sip.clone(),
        media: config.media.clone(),
        recording: config.recording.clone(),
        plan: config.plan.clone(),
    }
}

fn seats(workers: usize, mixers: usize, recorders: usize) -> Seats {
    // Each is at most `config::MAX_WORKERS`.
    Seats {
        workers: (0..workers).map(|n| WorkerId(n as u8)).collect(),
        mixers: (0..mixers).map(|n| MixerId(n as u8)).collect(),
        recorders: (0..recorders).map(|n| RecorderId(n as u8)).collect(),
        reach: Reach::new(reach::local_for as fn(IpAddr) -> Option<IpAddr>),
        seed: rand::random(),
    }
}

fn as_endpoint(listener: &Listener) -> endpoint::Listener {
    endpoint::Listener { transport: listener.transport, local: listener.address }
}

fn as_bound(listener: &endpoint::Listener) -> Listener {
    Listener { transport: listener.transport, address: listener.local }
}

fn announce(listeners: &[Listener], http: Option<SocketAddr>, ivr: Option<SocketAddr>, config: &Config) {
    for listener in listeners {
        tracing::info!(transport = ?listener.transport, address = %listener.address, "listening for SIP");
    }
    if let Some(address) = http {
        tracing::info!(%address, "listening for HTTP");
    }
    if let Some(address) = ivr {
        tracing::info!(%address, "listening for IVR drivers");
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "IVR drivers show no credentials: whoever reaches this address controls their calls");
        }
    }
    tracing::info!(
        calls = config.sip.max_calls,
        ports = ?config.threads.ports,
        recordings = %config.storage.directory.display(),
        "ready"
    );
}
