//! Runs phones on real sockets. All decisions are the phone's; this moves datagrams and waits.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::network::{Datagram, Node};
use super::phone::{Action, Happened, Phone};
use crate::clock;

/// How long a phone that is done still answers repeated messages.
const LINGER: Duration = Duration::from_millis(300);
/// Attempts at finding an even port with a free odd one after it.
const ATTEMPTS: usize = 64;
/// Largest datagram that is read.
const MAX_DATAGRAM: usize = 65_535;

/// The sockets of one phone.
pub struct Sockets {
    sip: UdpSocket,
    rtp: UdpSocket,
    /// Held so that RTCP of the peer meets an open port; read and dropped.
    rtcp: UdpSocket,
}

impl Sockets {
    /// Binds free ports on an address.
    ///
    /// # Errors
    /// When the system gives none.
    pub async fn bind(address: IpAddr) -> io::Result<Self> {
        let sip = UdpSocket::bind((address, 0)).await?;
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..ATTEMPTS {
            let rtp = UdpSocket::bind((address, 0)).await?;
            let port = rtp.local_addr()?.port();
            if port % 2 != 0 || port == u16::MAX {
                continue;
            }
            match UdpSocket::bind((address, port + 1)).await {
                Ok(rtcp) => return Ok(Self { sip, rtp, rtcp }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The SIP address.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn sip_address(&self) -> io::Result<SocketAddr> {
        self.sip.local_addr()
    }

    /// The RTP address.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn rtp_address(&self) -> io::Result<SocketAddr> {
        self.rtp.local_addr()
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
pub fn start(phone: Phone, sockets: Sockets) -> Running {
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
    let (mut sip, mut rtp, mut rtcp) = (vec![0; MAX_DATAGRAM], vec![0; MAX_DATAGRAM], vec![0; 2_048]);
    let (sip_address, rtp_address) = (phone.options().sip, phone.options().rtp);
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
            result = sockets.rtp.recv_from(&mut rtp) => received(result, rtp_address, &rtp),
            result = sockets.sip.recv_from(&mut sip) => received(result, sip_address, &sip),
            _ = sockets.rtcp.recv_from(&mut rtcp) => continue,
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
        let socket = if datagram.from == phone.options().sip { &sockets.sip } else { &sockets.rtp };
        // A datagram that cannot be sent is a lost one; SIP repeats it.
        let _ = socket.send_to(&datagram.bytes, datagram.to).await;
    }
}
