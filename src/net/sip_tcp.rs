//! SIP over TCP (RFC 3261 §18): connections taken and opened on demand, used again by peer, closed when idle.
//!
//! ```text
//! SipTcp::send ──(bounded)──► manager ──(bounded, per connection)──► connection task ⇄ socket
//! accept tasks ───────────────►  │ owns the table of connections        │
//!                                └──────── Failed ──► inbox ◄── Packet, Failed, Closed
//! ```
//!
//! Shutdown is dropped senders: dropping [`SipTcp`] ends the manager, which drops the connections' queues; each connection
//! writes what it has, for at most `FLUSH`.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout, timeout_at};

use super::bind::{self, BindError};
use super::sip::{Counters, Options, count};
use crate::clock;
use crate::sip::endpoint::{ConnectionId, Flow, Input, Transmit, TransmitToken, Transport};
use crate::sip::stream::{Frame, Stream};

/// Messages that may wait for the manager; what finds the queue full has failed.
const TRANSMITS: usize = 8_192;
/// New connections that may wait for the manager.
const ARRIVALS: usize = 64;
/// Bytes asked for in one read.
const READ: usize = 4_096;
/// Pause after the system refused to accept, so that a lack of descriptors does not spin.
const AFTER_ERROR: Duration = Duration::from_millis(100);
/// How long an answer to what cannot be framed may take before the connection is closed.
const LAST_ANSWER: Duration = Duration::from_millis(500);
/// How long connections may write at shutdown.
const FLUSH: Duration = Duration::from_secs(1);

/// The TCP listeners and connections.
pub struct SipTcp {
    transmits: mpsc::Sender<Transmit>,
    manager: JoinHandle<()>,
    locals: Vec<SocketAddr>,
    counters: Arc<Counters>,
}

impl SipTcp {
    /// Binds and starts to accept.
    pub(super) fn open(
        addresses: &[SocketAddr],
        options: Options,
        inbox: mpsc::Sender<Input>,
        counters: Arc<Counters>,
    ) -> Result<SipTcp, BindError> {
        let shared = Arc::new(Shared { options, inbox, counters: counters.clone() });
        let (arrivals, arriving) = mpsc::channel(ARRIVALS);
        let mut acceptors = JoinSet::new();
        let mut locals = Vec::new();
        for &address in addresses {
            let of = |error| BindError::of("tcp", address, error);
            let listener = TcpListener::from_std(bind::tcp(address)?).map_err(of)?;
            let local = listener.local_addr().map_err(of)?;
            locals.push(local);
            acceptors.spawn(accept(listener, local, arrivals.clone()));
        }
        let (transmits, transmitting) = mpsc::channel(TRANSMITS);
        let manager = tokio::spawn(Manager::new(shared).run(transmitting, arriving, acceptors));
        Ok(SipTcp { transmits, manager, locals, counters })
    }

    /// Ends as dropping does, and waits until everything is written, for at most `FLUSH`.
    pub(super) async fn close(self) {
        drop(self.transmits);
        if self.manager.await.is_err() {
            tracing::error!("the task of the SIP connections has panicked");
        }
    }

    /// The addresses as bound, in the order of opening.
    pub(super) fn locals(&self) -> &[SocketAddr] {
        &self.locals
    }

    /// Hands a message to the manager. Failures that are found later go to the inbox.
    pub(super) fn send(&self, transmit: Transmit) -> Result<(), TransmitToken> {
        self.transmits.try_send(transmit).map_err(|error| {
            count(&self.counters.tcp_send_errors);
            error.into_inner().token
        })
    }
}

/// What the manager and every connection know.
struct Shared {
    options: Options,
    inbox: mpsc::Sender<Input>,
    counters: Arc<Counters>,
}

impl Shared {
    /// Tells of a message that was not sent.
    async fn fail(&self, token: TransmitToken) {
        count(&self.counters.tcp_send_errors);
        // Nobody is left to be told when the inbox has closed.
        let _ = self.inbox.send(Input::Failed(token)).await;
    }
}

/// A connection that somebody has opened to us.
struct Arrival {
    stream: TcpStream,
    local: SocketAddr,
    remote: SocketAddr,
}

async fn accept(listener: TcpListener, local: SocketAddr, arrivals: mpsc::Sender<Arrival>) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                if arrivals.send(Arrival { stream, local, remote }).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%local, %error, "cannot accept a SIP connection");
                sleep(AFTER_ERROR).await;
            }
        }
    }
}

/// Our listener and the peer: what a connection is found by.
type Ends = (SocketAddr, SocketAddr);

/// A message for one connection.
struct Outgoing {
    token: TransmitToken,
    bytes: Bytes,
}

struct Connection {
    queue: mpsc::Sender<Outgoing>,
    ends: Ends,
}

/// The one owner of the table of connections.
struct Manager {
    shared: Arc<Shared>,
    connections: HashMap<ConnectionId, Connection>,
    /// The connection to use for a peer, the latest that came to be.
    by_ends: HashMap<Ends, ConnectionId>,
    tasks: JoinSet<ConnectionId>,
    next: u64,
}

impl Manager {
    fn new(shared: Arc<Shared>) -> Manager {
        let (connections, by_ends) = (HashMap::new(), HashMap::new());
        Manager { shared, connections, by_ends, tasks: JoinSet::new(), next: 1 }
    }

    async fn run(
        mut self,
        mut transmits: mpsc::Receiver<Transmit>,
        mut arrivals: mpsc::Receiver<Arrival>,
        acceptors: JoinSet<()>,
    ) {
        loop {
            tokio::select! {
                transmit = transmits.recv() => match transmit {
                    Some(transmit) => self.transmit(transmit).await,
                    None => break,
                },
                Some(arrival) = arrivals.recv() => self.arrive(arrival),
                Some(Ok(ended)) = self.tasks.join_next() => self.forget(ended),
            }
        }
        drop(acceptors);
        self.connections.clear();
        // Past the time they are aborted with the set.
        let _ = timeout(FLUSH, async { while self.tasks.join_next().await.is_some() {} }).await;
    }

    async fn transmit(&mut self, transmit: Transmit) {
        let Transmit { token, flow, bytes } = transmit;
        let ends = (flow.local, flow.remote);
        let mut outgoing = Outgoing { token, bytes };
        // A connection that has just ended may still stand in the table; the second try opens a new one.
        for _ in 0..2 {
            let known = flow.connection.or_else(|| self.by_ends.get(&ends).copied());
            let id = match known {
                Some(id) => id,
                None if self.connections.len() >= self.shared.options.max_connections => {
                    count(&self.shared.counters.tcp_refused);
                    break;
                }
                None => self.start(ends, None),
            };
            let Some(connection) = self.connections.get(&id) else { break };
            outgoing = match connection.queue.try_send(outgoing) {
                Ok(()) => return,
                Err(mpsc::error::TrySendError::Full(_)) => break,
                Err(mpsc::error::TrySendError::Closed(outgoing)) => outgoing,
            };
            self.forget(id);
            if flow.connection.is_some() {
                break;
            }
        }
        self.shared.fail(token).await;
    }

    fn arrive(&mut self, arrival: Arrival) {
        if self.connections.len() >= self.shared.options.max_connections {
            count(&self.shared.counters.tcp_refused);
            return;
        }
        count(&self.shared.counters.tcp_accepted);
        self.start((arrival.local, arrival.remote), Some(arrival.stream));
    }

    /// Starts a connection's task; without a stream the task opens it.
    fn start(&mut self, ends: Ends, stream: Option<TcpStream>) -> ConnectionId {
        let id = ConnectionId(self.next);
        self.next += 1;
        let (queue, outgoing) = mpsc::channel(self.shared.options.queue);
        self.connections.insert(id, Connection { queue, ends });
        self.by_ends.insert(ends, id);
        self.tasks.spawn(live(self.shared.clone(), id, ends, stream, outgoing));
        id
    }

    fn forget(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.remove(&id) else { return };
        if self.by_ends.get(&connection.ends) == Some(&id) {
            self.by_ends.remove(&connection.ends);
        }
    }
}

/// The life of one connection.
async fn live(
    shared: Arc<Shared>,
    id: ConnectionId,
    ends: Ends,
    stream: Option<TcpStream>,
    mut queue: mpsc::Receiver<Outgoing>,
) -> ConnectionId {
    let stream = match stream {
        Some(stream) => Ok(stream),
        None => connect(&shared, ends).await,
    };
    let mut writing = None;
    match stream {
        Ok(stream) => {
            // Requests and answers are written whole; waiting for more would only delay them.
            let _ = stream.set_nodelay(true);
            let (reader, writer) = stream.into_split();
            let flow = Flow { transport: Transport::Tcp, local: ends.0, remote: ends.1, connection: Some(id) };
            let link =
                Link { shared: &shared, flow, begun: clock::now(), written: AtomicU64::new(0), ping: Notify::new() };
            tokio::select! {
                () = link.read(reader) => {}
                () = link.write(writer, &mut queue, &mut writing) => {}
            }
            queue.close();
            let _ = shared.inbox.send(Input::Closed(id)).await;
        }
        Err(error) => {
            count(&shared.counters.tcp_connect_errors);
            tracing::debug!(remote = %ends.1, %error, "a SIP connection does not come to stand");
        }
    }
    queue.close();
    if let Some(token) = writing {
        shared.fail(token).await;
    }
    while let Some(outgoing) = queue.recv().await {
        shared.fail(outgoing.token).await;
    }
    id
}

/// Opens a connection, from the listener's address when it is bound to one.
async fn connect(shared: &Shared, (local, remote): Ends) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if !local.ip().is_unspecified() && local.is_ipv4() == remote.is_ipv4() {
        socket.bind(SocketAddr::new(local.ip(), 0))?;
    }
    let stream =
        timeout(shared.options.connect, socket.connect(remote)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    count(&shared.counters.tcp_connected);
    Ok(stream)
}

/// What the two directions of a connection share.
struct Link<'a> {
    shared: &'a Shared,
    flow: Flow,
    begun: Instant,
    /// When something was last written, in milliseconds after `begun`.
    written: AtomicU64,
    /// The peer has sent a keep-alive that is to be answered.
    ping: Notify,
}

impl Link<'_> {
    /// Reads until the peer closes, misbehaves, or is silent for too long.
    async fn read(&self, mut reader: OwnedReadHalf) {
        let (options, counters) = (&self.shared.options, &self.shared.counters);
        let mut stream = Stream::new();
        let (mut heard, mut partial_since) = (self.begun, None);
        loop {
            let deadline = match stream.is_partial() {
                true => *partial_since.get_or_insert_with(clock::now) + options.partial,
                false => heard.max(self.last_written()) + options.idle,
            };
            stream.buffer().reserve(READ);
            match timeout_at(deadline.into(), reader.read_buf(stream.buffer())).await {
                Ok(Ok(0) | Err(_)) => return,
                Ok(Ok(_)) => heard = clock::now(),
                Err(_) if stream.is_partial() => return count(&counters.tcp_slow),
                Err(_) if self.last_written() + options.idle > clock::now() => continue,
                Err(_) => return count(&counters.tcp_idle),
            }
            loop {
                match stream.next_frame() {
                    Ok(None) => break,
                    Ok(Some(Frame::Ping)) => self.ping.notify_one(),
                    Ok(Some(Frame::Message(bytes))) => {
                        partial_since = None;
                        count(&counters.tcp_received);
                        if !self.hand_on(bytes).await {
                            return;
                        }
                    }
                    Err(error) => {
                        count(&counters.tcp_malformed);
                        tracing::debug!(remote = %self.flow.remote, %error, "a SIP connection cannot be framed");
                        if let Some(head) = error.head
                            && self.hand_on(head).await
                        {
                            sleep(LAST_ANSWER).await;
                        }
                        return;
                    }
                }
            }
            if !stream.is_partial() {
                partial_since = None;
            }
        }
    }

    /// False when nobody reads the inbox any more.
    async fn hand_on(&self, bytes: Bytes) -> bool {
        self.shared.inbox.send(Input::Packet { flow: self.flow, bytes }).await.is_ok()
    }

    /// Writes until the queue's sender is dropped or the peer takes no more. `writing` names a message that has begun and
    /// is not known to be written.
    async fn write(
        &self,
        mut writer: OwnedWriteHalf,
        queue: &mut mpsc::Receiver<Outgoing>,
        writing: &mut Option<TransmitToken>,
    ) {
        loop {
            let bytes = tokio::select! {
                outgoing = queue.recv() => match outgoing {
                    Some(Outgoing { token, bytes }) => {
                        *writing = Some(token);
                        bytes
                    }
                    None => break,
                },
                () = self.ping.notified() => Bytes::from_static(b"\r\n"),
            };
            match timeout(self.shared.options.write, writer.write_all(&bytes)).await {
                Ok(Ok(())) => *writing = None,
                Ok(Err(_)) => return,
                Err(_) => return count(&self.shared.counters.tcp_slow),
            }
            let after = clock::now().duration_since(self.begun).as_millis();
            self.written.store(u64::try_from(after).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        // Shutdown: the peer sees the end of what we wrote, not a reset.
        let _ = writer.shutdown().await;
    }

    fn last_written(&self) -> Instant {
        self.begun + Duration::from_millis(self.written.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::super::sip::SipSockets;
    use super::*;
    use crate::sip::endpoint::Listener;

    const MESSAGE: &[u8] = b"OPTIONS sip:x SIP/2.0\r\nContent-Length: 2\r\n\r\nhi";

    struct Node {
        sockets: SipSockets,
        inbox: mpsc::Receiver<Input>,
        local: SocketAddr,
    }

    impl Node {
        fn open(change: impl FnOnce(&mut Options)) -> Node {
            Node::open_at("127.0.0.1:0", change)
        }

        fn open_at(address: &str, change: impl FnOnce(&mut Options)) -> Node {
            let listen = vec![Listener { transport: Transport::Tcp, local: address.parse().unwrap() }];
            let mut options = Options { listen, ..Options::default() };
            change(&mut options);
            let (sender, inbox) = mpsc::channel(64);
            let sockets = SipSockets::open(options, sender).unwrap();
            let local = sockets.listeners()[0].local;
            Node { sockets, inbox, local }
        }

        fn send(&self, token: u64, remote: SocketAddr, connection: Option<ConnectionId>, bytes: &'static [u8]) {
            let flow = Flow { transport: Transport::Tcp, local: self.local, remote, connection };
            self.sockets.send(Transmit { token: TransmitToken(token), flow, bytes: Bytes::from_static(bytes) });
        }

        async fn next(&mut self) -> Input {
            timeout(Duration::from_secs(5), self.inbox.recv()).await.expect("an input in time").expect("an open inbox")
        }

        async fn packet(&mut self) -> (Flow, Bytes) {
            match self.next().await {
                Input::Packet { flow, bytes } => (flow, bytes),
                other => panic!("a packet, not {other:?}"),
            }
        }

        async fn closed(&mut self) -> ConnectionId {
            match self.next().await {
                Input::Closed(id) => id,
                other => panic!("closed, not {other:?}"),
            }
        }

        async fn failed(&mut self) -> u64 {
            match self.next().await {
                Input::Failed(token) => token.0,
                other => panic!("failed, not {other:?}"),
            }
        }

        fn counted(&self, counter: impl FnOnce(&Counters) -> &AtomicU64) -> u64 {
            counter(self.sockets.counters()).load(Ordering::Relaxed)
        }
    }

    async fn closes(stream: &mut TcpStream) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await.expect("an end in time");
        rest
    }

    #[tokio::test]
    async fn a_connection_is_opened_on_demand_and_used_in_both_directions() {
        let (mut a, mut b) = (Node::open(|_| {}), Node::open(|_| {}));
        a.send(1, b.local, None, MESSAGE);
        let (flow, bytes) = b.packet().await;
        assert_eq!((flow.transport, flow.local, &bytes[..]), (Transport::Tcp, b.local, MESSAGE));
        b.send(2, flow.remote, flow.connection, MESSAGE);
        let (answer, _) = a.packet().await;
        assert_eq!(answer.remote, b.local);
        a.send(3, b.local, None, MESSAGE);
        assert_eq!(b.packet().await.0.connection, flow.connection, "the same connection");
        b.send(4, flow.remote, None, MESSAGE);
        assert_eq!(a.packet().await.0.connection, answer.connection, "found by its peer");
        assert_eq!((a.counted(|c| &c.tcp_connected), b.counted(|c| &c.tcp_accepted)), (1, 1));
    }

    #[tokio::test]
    async fn over_ipv6_too() {
        // Machines without IPv6 have nothing to show here.
        if std::net::TcpListener::bind("[::1]:0").is_err() {
            return;
        }
        let (a, mut b) = (Node::open_at("[::1]:0", |_| {}), Node::open_at("[::1]:0", |_| {}));
        a.send(1, b.local, None, MESSAGE);
        assert!(b.packet().await.0.remote.is_ipv6());
    }

    #[tokio::test]
    async fn what_cannot_be_sent_fails_with_its_token() {
        let mut a = Node::open(|_| {});
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        a.send(5, nobody, None, MESSAGE);
        assert_eq!(a.failed().await, 5);
        assert_eq!(a.counted(|c| &c.tcp_connect_errors), 1);
        a.send(6, nobody, Some(ConnectionId(99)), MESSAGE);
        assert_eq!(a.failed().await, 6);
    }

    #[tokio::test]
    async fn a_closed_connection_is_reported_and_its_messages_fail() {
        let mut a = Node::open(|_| {});
        let mut peer = TcpStream::connect(a.local).await.unwrap();
        peer.write_all(MESSAGE).await.unwrap();
        let (flow, _) = a.packet().await;
        drop(peer);
        assert_eq!(Some(a.closed().await), flow.connection);
        a.send(7, flow.remote, flow.connection, MESSAGE);
        assert_eq!(a.failed().await, 7);
    }

    #[tokio::test]
    async fn a_full_queue_fails_what_comes_next() {
        let mut a = Node::open(|options| options.queue = 1);
        let peer = TcpStream::connect(a.local).await.unwrap();
        peer.try_write(MESSAGE).unwrap();
        let (flow, _) = a.packet().await;
        let large: &'static [u8] = vec![b'x'; 32 * 1024 * 1024].leak();
        a.send(1, flow.remote, flow.connection, large);
        for token in 2..10 {
            a.send(token, flow.remote, flow.connection, MESSAGE);
        }
        assert!(a.failed().await > 1);
    }

    #[tokio::test]
    async fn a_ping_is_answered_with_one_crlf() {
        let a = Node::open(|_| {});
        let mut peer = TcpStream::connect(a.local).await.unwrap();
        peer.write_all(b"\r\n\r\n").await.unwrap();
        let mut pong = [0; 2];
        peer.read_exact(&mut pong).await.unwrap();
        assert_eq!(&pong, b"\r\n");
    }

    #[tokio::test]
    async fn a_message_that_stays_incomplete_closes_its_connection() {
        let mut a = Node::open(|options| options.partial = Duration::from_millis(50));
        let mut peer = TcpStream::connect(a.local).await.unwrap();
        // A byte now and then does not buy more time.
        let drip = async {
            for byte in MESSAGE {
                if peer.write_all(&[*byte]).await.is_err() {
                    break;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        drip.await;
        a.closed().await;
        assert_eq!(a.counted(|c| &c.tcp_slow), 1);
    }

    #[tokio::test]
    async fn a_silent_connection_is_closed() {
        let mut a = Node::open(|options| options.idle = Duration::from_millis(30));
        let mut peer = TcpStream::connect(a.local).await.unwrap();
        a.closed().await;
        assert_eq!(closes(&mut peer).await, b"");
        assert_eq!(a.counted(|c| &c.tcp_idle), 1);
    }

    #[tokio::test]
    async fn what_cannot_be_framed_may_be_answered_and_then_closes() {
        let mut a = Node::open(|_| {});
        let mut peer = TcpStream::connect(a.local).await.unwrap();
        peer.write_all(b"OPTIONS sip:x SIP/2.0\r\nContent-Length: -1\r\n\r\n").await.unwrap();
        let (flow, head) = a.packet().await;
        assert!(head.ends_with(b"\r\n\r\n"));
        a.send(1, flow.remote, flow.connection, b"SIP/2.0 400 Malformed Content-Length\r\n\r\n");
        assert!(closes(&mut peer).await.starts_with(b"SIP/2.0 400"));
        assert_eq!(Some(a.closed().await), flow.connection);
        assert_eq!(a.counted(|c| &c.tcp_malformed), 1);
    }

    #[tokio::test]
    async fn above_the_limit_connections_are_refused() {
        let mut a = Node::open(|options| options.max_connections = 1);
        let mut first = TcpStream::connect(a.local).await.unwrap();
        first.write_all(MESSAGE).await.unwrap();
        a.packet().await;
        let mut second = TcpStream::connect(a.local).await.unwrap();
        assert_eq!(closes(&mut second).await, b"");
        a.send(3, "127.0.0.1:9".parse().unwrap(), None, MESSAGE);
        assert_eq!(a.failed().await, 3);
        assert_eq!(a.counted(|c| &c.tcp_refused), 2);
    }

    #[tokio::test]
    async fn closing_the_sockets_writes_what_waits_and_frees_the_address() {
        let mut a = Node::open(|_| {});
        let mut peer = TcpStream::connect(a.local).await.unwrap();
        peer.write_all(MESSAGE).await.unwrap();
        let (flow, _) = a.packet().await;
        a.send(1, flow.remote, flow.connection, MESSAGE);
        let local = a.local.to_string();
        a.sockets.close().await;
        assert_eq!(closes(&mut peer).await, MESSAGE);
        for _ in 0..100 {
            if bind::tcp(local.parse().unwrap()).is_ok() {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
        panic!("{local} is still taken");
    }
}
