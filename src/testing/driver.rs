//! Runs phones on real sockets. All decisions are the phone's; this moves datagrams and waits.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::network::{Datagram, Node};
use super::phone::{Action, Happened, Phone};
use crate::clock;

/// How long a phone that is done still answers repeated messages.
const LINGER: Duration = Duration::from_millis(300);
/// Attempts at finding an even port with enough free ones after it.
const ATTEMPTS: usize = 64;
/// Largest datagram that is read.
const MAX_DATAGRAM: usize = 65_535;

/// The sockets of one phone.
pub struct Sockets {
    sip: UdpSocket,
    /// One pair for each line, on ports that follow each other.
    lines: Vec<Pair>,
}

/// The sockets of a line.
struct Pair {
    rtp: UdpSocket,
    /// Held so that RTCP of the peer meets an open port; read and dropped.
    rtcp: UdpSocket,
}

impl Pair {
    async fn bind(address: IpAddr, port: u16) -> io::Result<Self> {
        let rtp = UdpSocket::bind((address, port)).await?;
        let after = rtp.local_addr()?.port().checked_add(1).ok_or(io::ErrorKind::AddrInUse)?;
        Ok(Self { rtp, rtcp: UdpSocket::bind((address, after)).await? })
    }
}

impl Sockets {
    /// Binds free ports on an address, for a phone with one line.
    ///
    /// # Errors
    /// When the system gives none.
    pub async fn bind(address: IpAddr) -> io::Result<Self> {
        Self::bind_lines(address, 1).await
    }

    /// Binds free ports on an address, for a phone with some lines ([`Options::lines`](super::phone::Options::lines)).
    ///
    /// # Errors
    /// When the system gives none.
    pub async fn bind_lines(address: IpAddr, lines: usize) -> io::Result<Self> {
        let sip = UdpSocket::bind((address, 0)).await?;
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..ATTEMPTS {
            match Self::bind_media(address, lines).await {
                Ok(lines) => return Ok(Self { sip, lines }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn bind_media(address: IpAddr, count: usize) -> io::Result<Vec<Pair>> {
        let mut lines = vec![Pair::bind(address, 0).await?];
        let first = lines[0].rtp.local_addr()?.port();
        if !first.is_multiple_of(2) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        for line in 1..count {
            let port = u16::try_from(usize::from(first) + 2 * line).map_err(|_| io::ErrorKind::AddrInUse)?;
            lines.push(Pair::bind(address, port).await?);
        }
        Ok(lines)
    }

    /// The SIP address.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn sip_address(&self) -> io::Result<SocketAddr> {
        self.sip.local_addr()
    }

    /// The RTP address of line 0.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn rtp_address(&self) -> io::Result<SocketAddr> {
        self.lines[0].rtp.local_addr()
    }

    /// The next RTP packet of any line: its line, length and source; `Err`: the system tells of an earlier send.
    async fn receive_media(&self, buffer: &mut [u8]) -> (usize, io::Result<(usize, SocketAddr)>) {
        poll_fn(|cx| {
            for (index, line) in self.lines.iter().enumerate() {
                line.drop_rtcp(cx);
                let mut read = ReadBuf::new(buffer);
                if let Poll::Ready(result) = line.rtp.poll_recv_from(cx, &mut read) {
                    let length = read.filled().len();
                    return Poll::Ready((index, result.map(|from| (length, from))));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Sends from the socket that has the datagram's source.
    async fn send(&self, datagram: &Datagram) {
        let has_source = |socket: &&UdpSocket| socket.local_addr().is_ok_and(|address| address == datagram.from);
        let mut sockets = std::iter::once(&self.sip).chain(self.lines.iter().map(|line| &line.rtp));
        if let Some(socket) = sockets.find(has_source) {
            // A datagram that cannot be sent is a lost one; SIP repeats it.
            let _ = socket.send_to(&datagram.bytes, datagram.to).await;
        }
    }
}

impl Pair {
    fn drop_rtcp(&self, cx: &mut Context<'_>) {
        let mut bytes = [0; 2_048];
        while let Poll::Ready(Ok(_)) = self.rtcp.poll_recv_from(cx, &mut ReadBuf::new(&mut bytes)) {}
    }
}

/// A phone that runs in a task of its own.
pub struct Running {
    actions: mpsc::UnboundedSender<Action>,
    happenings: mpsc::UnboundedReceiver<Happened>,
    task: JoinHandle<Phone>,
}

impl Running {
    /// Makes it do something.
    pub fn act(&self, action: Action) {
        // A phone that has ended does nothing more.
        let _ = self.actions.send(action);
    }

    /// The next thing that happens to it; `None` when it has ended.
    pub async fn next(&mut self) -> Option<Happened> {
        self.happenings.recv().await
    }

    /// Waits until it is done ([`Phone::is_done`]: a phone that is never called waits for ever).
    ///
    /// # Panics
    /// When the phone's task has panicked.
    pub async fn join(self) -> Phone {
        // The sender of actions lives until here: dropping it means "stop now".
        let Self { actions, happenings: _, task } = self;
        let phone = task.await;
        drop(actions);
        phone.expect("a phone's task does not panic")
    }

    /// Stops it where it is and gives it back.
    ///
    /// # Panics
    /// When the phone's task has panicked.
    pub async fn stop(self) -> Phone {
        drop(self.actions);
        self.task.await.expect("a phone's task does not panic")
    }
}

/// Starts a phone; its options must name the addresses of `sockets`. It ends when it is done, or when it is stopped.
///
/// # Panics
/// When the phone has more lines than `sockets`.
pub fn start(phone: Phone, sockets: Sockets) -> Running {
    assert!(phone.options().lines <= sockets.lines.len(), "a line without a socket is deaf and dumb");
    let (actions, inbox) = mpsc::unbounded_channel();
    let (report, happenings) = mpsc::unbounded_channel();
    let task = tokio::spawn(run(phone, sockets, inbox, report));
    Running { actions, happenings, task }
}

async fn run(
    mut phone: Phone,
    sockets: Sockets,
    mut inbox: mpsc::UnboundedReceiver<Action>,
    report: mpsc::UnboundedSender<Happened>,
) -> Phone {
    let (mut sip, mut rtp) = (vec![0; MAX_DATAGRAM], vec![0; MAX_DATAGRAM]);
    let sip_address = phone.options().sip;
    let mut reported = 0;
    let mut done_at: Option<Instant> = None;
    phone.timeout(clock::now());
    loop {
        flush(&mut phone, &sockets).await;
        for happened in &phone.happenings()[reported..] {
            // Nobody need listen.
            let _ = report.send(happened.clone());
        }
        reported = phone.happenings().len();
        let now = clock::now();
        done_at = phone.is_done().then(|| done_at.unwrap_or(now + LINGER));
        if done_at.is_some_and(|at| at <= now) {
            return phone;
        }
        let wake = [phone.poll_timeout(), done_at].into_iter().flatten().min();
        let sleep = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let input = tokio::select! {
            // What has come is older than what is due.
            biased;
            (line, result) = sockets.receive_media(&mut rtp) => received(result, phone.rtp_address(line), &rtp),
            result = sockets.sip.recv_from(&mut sip) => received(result, sip_address, &sip),
            action = inbox.recv() => match action {
                Some(action) => {
                    phone.act(action, clock::now());
                    continue;
                }
                None => return phone,
            },
            () = sleep => None,
        };
        match input {
            Some(datagram) => phone.receive(datagram, clock::now()),
            None => phone.timeout(clock::now()),
        }
    }
}

/// A datagram that was read; `None` when the system reported an error of an earlier send instead.
fn received(result: io::Result<(usize, SocketAddr)>, to: SocketAddr, buffer: &[u8]) -> Option<Datagram> {
    let (length, from) = result.ok()?;
    Some(Datagram { from, to, bytes: Bytes::copy_from_slice(&buffer[..length]) })
}

async fn flush(phone: &mut Phone, sockets: &Sockets) {
    while let Some(datagram) = phone.poll_transmit() {
        sockets.send(&datagram).await;
    }
}
