//! Every SIP socket of the process: opened together, sent on by flow.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use super::bind::BindError;
use super::sip_tcp::SipTcp;
use super::sip_udp::SipUdp;
use crate::sip::endpoint::{Input, Listener, Transmit, TransmitToken, Transport};

/// How the SIP sockets behave.
#[derive(Debug, Clone)]
pub struct Options {
    /// What to listen on; port 0 takes a free one.
    pub listen: Vec<Listener>,
    /// TCP connections at once, ours and theirs. Above it theirs are closed at once and ours fail.
    pub max_connections: usize,
    /// A connection on which nothing was read or written for so long is closed.
    pub idle: Duration,
    /// A message that has begun must be complete after so long, else its connection is closed.
    pub partial: Duration,
    /// A connection of ours must stand after so long.
    pub connect: Duration,
    /// The peer must take something of what we write after so long, else its connection is closed.
    pub write: Duration,
    /// Messages that may wait to be written on one connection. What finds the queue full has failed.
    pub queue: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            listen: Vec::new(),
            max_connections: 10_000,
            // Above the 120 s at which clients of RFC 5626 §4.4.1 ping.
            idle: Duration::from_secs(600),
            partial: Duration::from_secs(10),
            // Below attempt-timeout, so that the next address is tried for a reason.
            connect: Duration::from_secs(3),
            write: Duration::from_secs(10),
            queue: 256,
        }
    }
}

/// What happened on the SIP sockets since they were opened.
#[derive(Debug, Default)]
pub struct Counters {
    /// Datagrams handed on.
    pub udp_received: AtomicU64,
    /// Datagrams that found the signaling task's queue full and were dropped; the peer repeats them.
    pub udp_dropped: AtomicU64,
    /// Datagrams without content: keep-alives.
    pub udp_keepalives: AtomicU64,
    /// Errors of the system while reading datagrams.
    pub udp_read_errors: AtomicU64,
    /// Datagrams that the system refused to send.
    pub udp_send_errors: AtomicU64,
    /// Datagrams lost because the socket's buffer was full; we or the peer repeat them.
    pub udp_send_full: AtomicU64,
    /// Messages read from connections.
    pub tcp_received: AtomicU64,
    /// Connections taken.
    pub tcp_accepted: AtomicU64,
    /// Connections refused at `max_connections`, theirs and ours.
    pub tcp_refused: AtomicU64,
    /// Connections of ours that came to stand.
    pub tcp_connected: AtomicU64,
    /// Connections of ours that did not.
    pub tcp_connect_errors: AtomicU64,
    /// Messages that were not sent: connection gone or refused, queue full.
    pub tcp_send_errors: AtomicU64,
    /// Connections closed because nothing happened on them.
    pub tcp_idle: AtomicU64,
    /// Connections closed because a message stayed incomplete or the peer did not read.
    pub tcp_slow: AtomicU64,
    /// Connections closed because what came on them cannot be framed.
    pub tcp_malformed: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The open sockets. Dropping it closes them; what TCP still has to write is written in the background, for at most a
/// second, if the runtime lives so long.
pub struct SipSockets {
    udp: SipUdp,
    tcp: SipTcp,
    listeners: Vec<Listener>,
    inbox: mpsc::Sender<Input>,
    counters: Arc<Counters>,
}

impl SipSockets {
    /// Binds every listener and starts to read. Must be called in a tokio runtime.
    ///
    /// Messages and failures go to `inbox`. A datagram that finds it full is dropped and counted; a connection waits.
    pub fn open(options: Options, inbox: mpsc::Sender<Input>) -> Result<SipSockets, BindError> {
        let counters = Arc::new(Counters::default());
        let addresses = |transport| {
            let of = move |listener: &&Listener| listener.transport == transport;
            options.listen.iter().filter(of).map(|listener| listener.local).collect::<Vec<SocketAddr>>()
        };
        if let Some(address) = addresses(Transport::Tls).first() {
            return Err(BindError::Transport { transport: "tls", address: *address });
        }
        let udp = SipUdp::open(&addresses(Transport::Udp), inbox.clone(), counters.clone())?;
        let tcp_addresses = addresses(Transport::Tcp);
        let tcp = SipTcp::open(&tcp_addresses, options, inbox.clone(), counters.clone())?;
        let listener = |transport| move |local: &SocketAddr| Listener { transport, local: *local };
        let listeners = (udp.locals().iter().map(listener(Transport::Udp)))
            .chain(tcp.locals().iter().map(listener(Transport::Tcp)))
            .collect();
        Ok(SipSockets { udp, tcp, listeners, inbox, counters })
    }

    /// The listeners as bound, UDP first, each transport in the order of the options.
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// What happened so far.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Sends without blocking. A failure comes to the inbox as [`Input::Failed`], be it found now or later. A datagram
    /// that the socket's buffer has no room for counts as lost on the way.
    pub fn send(&self, transmit: Transmit) {
        let sent = match transmit.flow.transport {
            Transport::Udp => self.udp.send(&transmit),
            Transport::Tcp => self.tcp.send(transmit),
            Transport::Tls => Err(transmit.token),
        };
        if let Err(token) = sent {
            self.report(token);
        }
    }

    /// Closes the sockets and waits until what TCP still has to write is written, for at most a second.
    pub async fn close(self) {
        self.tcp.close().await;
    }

    /// Tells of a failure. The caller may be the one who empties the inbox, so it must not wait here.
    fn report(&self, token: TransmitToken) {
        if let Err(mpsc::error::TrySendError::Full(failed)) = self.inbox.try_send(Input::Failed(token)) {
            let inbox = self.inbox.clone();
            tokio::spawn(async move {
                // Nobody is left to be told when the inbox has closed.
                let _ = inbox.send(failed).await;
            });
        }
    }
}
