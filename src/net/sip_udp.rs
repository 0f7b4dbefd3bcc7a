//! SIP over UDP (RFC 3261 §18): one socket per listener; answers and requests leave from the socket of their flow.
//!
//! A socket that is bound to a wildcard address sends from the address that the kernel chooses for the destination.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::bind::{self, BindError};
use super::sip::{Counters, count};
use crate::sip::endpoint::{Flow, Input, Transmit, TransmitToken};

/// Largest datagram that UDP can carry, in bytes.
const LARGEST: usize = 65_535;
/// Pause after an error of the system while reading, so that a lasting one does not spin.
const AFTER_ERROR: Duration = Duration::from_millis(10);

/// The UDP sockets. Dropping it closes them.
pub struct SipUdp {
    /// For sending: tokio's own socket refuses to send until its reactor has seen the socket writable once.
    sockets: Vec<(SocketAddr, std::net::UdpSocket)>,
    locals: Vec<SocketAddr>,
    counters: Arc<Counters>,
    /// Dropped with us, which ends the readers.
    _readers: JoinSet<()>,
}

impl SipUdp {
    /// Binds and starts to read.
    pub(super) fn open(
        addresses: &[SocketAddr],
        inbox: mpsc::Sender<Input>,
        counters: Arc<Counters>,
    ) -> Result<SipUdp, BindError> {
        let mut sockets = Vec::new();
        let mut readers = JoinSet::new();
        for &address in addresses {
            let of = |error| BindError::of("udp", address, error);
            let sender = bind::udp(address)?;
            let local = sender.local_addr().map_err(of)?;
            let reader = UdpSocket::from_std(sender.try_clone().map_err(of)?).map_err(of)?;
            readers.spawn(read(reader, local, inbox.clone(), counters.clone()));
            sockets.push((local, sender));
        }
        let locals = sockets.iter().map(|(local, _)| *local).collect();
        Ok(SipUdp { sockets, locals, counters, _readers: readers })
    }

    /// The addresses as bound, in the order of opening.
    pub(super) fn locals(&self) -> &[SocketAddr] {
        &self.locals
    }

    /// Sends from the listener of the flow. Fails when there is no such listener or the system refuses: no route, too
    /// long, forbidden.
    pub(super) fn send(&self, transmit: &Transmit) -> Result<(), TransmitToken> {
        let Some((_, socket)) = self.sockets.iter().find(|(local, _)| *local == transmit.flow.local) else {
            count(&self.counters.udp_send_errors);
            return Err(transmit.token);
        };
        match socket.send_to(&transmit.bytes, transmit.flow.remote) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                count(&self.counters.udp_send_full);
                Ok(())
            }
            Err(error) => {
                count(&self.counters.udp_send_errors);
                tracing::debug!(remote = %transmit.flow.remote, %error, "a SIP datagram was not sent");
                Err(transmit.token)
            }
        }
    }
}

async fn read(socket: UdpSocket, local: SocketAddr, inbox: mpsc::Sender<Input>, counters: Arc<Counters>) {
    // One buffer for the reader, one copy of the datagram's own size for the rest of its life.
    let mut buffer = vec![0; LARGEST];
    loop {
        let (length, remote) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                count(&counters.udp_read_errors);
                tracing::debug!(%local, %error, "reading SIP datagrams");
                tokio::time::sleep(AFTER_ERROR).await;
                continue;
            }
        };
        let datagram = &buffer[..length];
        // Phones and NAT keep-alives send empty lines or zeros.
        if datagram.iter().all(|b| matches!(b, b'\r' | b'\n' | 0)) {
            count(&counters.udp_keepalives);
            continue;
        }
        let packet = Input::Packet { flow: Flow::udp(local, remote), bytes: Bytes::copy_from_slice(datagram) };
        match inbox.try_send(packet) {
            Ok(()) => count(&counters.udp_received),
            Err(mpsc::error::TrySendError::Full(_)) => count(&counters.udp_dropped),
            Err(mpsc::error::TrySendError::Closed(_)) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    fn open(address: &str, inbox: mpsc::Sender<Input>) -> SipUdp {
        SipUdp::open(&[address.parse().unwrap()], inbox, Arc::default()).unwrap()
    }

    async fn peer() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    fn transmit(local: SocketAddr, remote: SocketAddr, bytes: Bytes) -> Transmit {
        Transmit { token: TransmitToken(7), flow: Flow::udp(local, remote), bytes }
    }

    #[tokio::test]
    async fn a_datagram_arrives_with_its_flow_and_the_answer_leaves_from_the_same_socket() {
        let (inbox, mut packets) = mpsc::channel(4);
        let udp = open("127.0.0.1:0", inbox);
        let local = udp.locals()[0];
        let (peer, remote) = peer().await;
        peer.send_to(b"hello", local).await.unwrap();
        let Some(Input::Packet { flow, bytes }) = packets.recv().await else { panic!("a packet") };
        assert_eq!((flow, &bytes[..]), (Flow::udp(local, remote), &b"hello"[..]));
        udp.send(&transmit(local, remote, "there".into())).unwrap();
        let mut buffer = [0; 16];
        let (length, from) = peer.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..length], from), (&b"there"[..], local));
    }

    #[tokio::test]
    async fn keep_alives_are_counted_and_a_full_inbox_drops() {
        let (inbox, mut packets) = mpsc::channel(1);
        let udp = open("127.0.0.1:0", inbox);
        let (peer, _) = peer().await;
        for datagram in [&b"\r\n\r\n"[..], b"\0\0\0\0", b"one", b"two"] {
            peer.send_to(datagram, udp.locals()[0]).await.unwrap();
        }
        while udp.counters.udp_dropped.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(udp.counters.udp_keepalives.load(Ordering::Relaxed), 2);
        let Some(Input::Packet { bytes, .. }) = packets.recv().await else { panic!("a packet") };
        assert_eq!(bytes, "one");
    }

    #[tokio::test]
    async fn what_cannot_be_sent_fails_with_its_token() {
        let (inbox, _packets) = mpsc::channel(1);
        let udp = open("127.0.0.1:0", inbox);
        let (local, remote) = (udp.locals()[0], "127.0.0.1:9".parse().unwrap());
        let large = vec![b'x'; LARGEST + 1].into();
        assert_eq!(udp.send(&transmit(local, remote, large)), Err(TransmitToken(7)));
        let stranger = "127.0.0.1:1".parse().unwrap();
        assert_eq!(udp.send(&transmit(stranger, remote, "x".into())), Err(TransmitToken(7)));
    }

    #[tokio::test]
    async fn dropping_frees_the_address() {
        let (inbox, _packets) = mpsc::channel(1);
        let udp = open("127.0.0.1:0", inbox.clone());
        let local = udp.locals()[0];
        drop(udp);
        // The reader ends at its next poll.
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(2)).await;
            if SipUdp::open(&[local], inbox.clone(), Arc::default()).is_ok() {
                return;
            }
        }
        panic!("{local} is still taken");
    }
}
