//! The media threads' sockets: a pair per leg, and the epoll that watches them.
//!
//! epoll by `rustix`, level-triggered: a socket that has more to read is simply reported again, so each report costs
//! one `recvfrom`. Edge-triggered (as `mio` has it) every report needs a second `recvfrom` that finds nothing, about a
//! third of the receiving side's cost at one packet per report, which is what RTP is.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, Protocol, Socket, Type};

/// Receive buffer of a socket in bytes, as asked for (the kernel doubles it for its own bookkeeping): about two seconds
/// of small packets, so that a leg that moves between threads, or a thread that was not scheduled, loses none.
const RECEIVE_BUFFER: usize = 128 << 10;
/// Reports taken from the kernel at a time.
const EVENTS: usize = 512;
/// The token of the [`Waker`].
const WAKE: u64 = u64::MAX;

/// Two bound sockets: RTP on an even port, RTCP on the next.
#[derive(Debug)]
pub struct Pair {
    /// For RTP.
    pub rtp: UdpSocket,
    /// For RTCP.
    pub rtcp: UdpSocket,
}

impl Pair {
    /// Binds `port` and `port + 1` of `address`, both non-blocking. Fails as a whole.
    pub fn bind(address: IpAddr, port: u16) -> io::Result<Self> {
        let next = port.checked_add(1).ok_or(ErrorKind::InvalidInput)?;
        Ok(Self { rtp: bind(SocketAddr::new(address, port))?, rtcp: bind(SocketAddr::new(address, next))? })
    }

    /// Discards what is in the receive buffers: at most 64 datagrams of each, sent by whoever had these ports before.
    pub fn drain(&self) {
        for socket in [&self.rtp, &self.rtcp] {
            for _ in 0..64 {
                if socket.recv_from(&mut [0; 1]).is_err() {
                    break;
                }
            }
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // So that a source address has one form only, whichever family it is of.
        socket.set_only_v6(true)?;
    }
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Receives a datagram without waiting: its length and who sent it. A system call and nothing else: the C library's own
/// `recvfrom` and `sendto` are points where a thread can be cancelled, which takes a thirtieth of a packet's whole cost.
pub fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    let (length, _, from) = rustix::net::recvfrom(socket, buffer, RecvFlags::empty())?;
    let from = from.and_then(|from| SocketAddr::try_from(from).ok()).ok_or(ErrorKind::InvalidData)?;
    Ok((length, from))
}

/// Sends a datagram without waiting; see [`receive`].
pub fn send(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
    Ok(rustix::net::sendto(socket, bytes, SendFlags::empty(), &to)?)
}

/// An epoll with a wake-up of its own.
pub struct Poller {
    epoll: OwnedFd,
    wake: Arc<OwnedFd>,
}

/// What a wait found; made on the thread that waits.
pub struct Ready(Vec<Event>);

impl Default for Ready {
    fn default() -> Self {
        Self(Vec::with_capacity(EVENTS))
    }
}

impl Ready {
    /// The tokens of the sockets that can be read.
    pub fn tokens(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|event| event.data.u64()).filter(|token| *token != WAKE)
    }
}

/// Wakes the thread that waits in [`Poller::wait`].
#[derive(Clone)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Ends the present or the next wait.
    pub fn wake(&self) {
        // It fails only when the counter is full; then the wake-up is pending anyway.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }
}

impl Poller {
    /// An epoll that watches nothing but its waker.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        epoll::add(&epoll, &*wake, EventData::new_u64(WAKE), EventFlags::IN)?;
        Ok(Self { epoll, wake })
    }

    /// Its waker.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.wake))
    }

    /// Watches a socket under `token`, any but `u64::MAX`.
    pub fn add(&self, socket: &UdpSocket, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(token), EventFlags::IN)?)
    }

    /// Watches a socket no longer.
    pub fn remove(&self, socket: &UdpSocket) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, socket)?)
    }

    /// Waits until a socket can be read, the waker is used, or `timeout` (rounded up to a millisecond) is over; `None`
    /// waits for ever.
    pub fn wait(&self, timeout: Option<Duration>, ready: &mut Ready) -> io::Result<()> {
        ready.0.clear();
        let timeout = timeout.map(|timeout| {
            let millis = timeout.as_nanos().div_ceil(1_000_000).min(1_000_000) as i64;
            Timespec { tv_sec: millis / 1_000, tv_nsec: millis % 1_000 * 1_000_000 }
        });
        match epoll::wait(&self.epoll, spare_capacity(&mut ready.0), timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        if ready.0.iter().any(|event| event.data.u64() == WAKE) {
            let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn any_pair() -> (Pair, SocketAddr) {
        let pair = (21_000..22_000).step_by(2).find_map(|port| Pair::bind(LOOPBACK, port).ok()).unwrap();
        let address = pair.rtp.local_addr().unwrap();
        (pair, address)
    }

    #[test]
    fn a_pair_is_an_even_port_and_the_next_and_is_bound_as_a_whole() {
        let (pair, rtp) = any_pair();
        assert_eq!(rtp.port() % 2, 0);
        assert_eq!(pair.rtcp.local_addr().unwrap().port(), rtp.port() + 1);
        assert!(Pair::bind(LOOPBACK, rtp.port()).is_err());
        let port = rtp.port();
        drop(pair.rtp);
        assert!(Pair::bind(LOOPBACK, port).is_err(), "the RTCP port is still taken");
    }

    #[test]
    fn a_socket_is_reported_until_it_is_read_empty_and_the_waker_once() {
        let (pair, address) = any_pair();
        let poller = Poller::new().unwrap();
        poller.add(&pair.rtp, 7).unwrap();
        let mut ready = Ready::default();
        pair.rtcp.send_to(b"1", address).unwrap();
        pair.rtcp.send_to(b"2", address).unwrap();
        for _ in 0..2 {
            poller.wait(Some(Duration::from_secs(1)), &mut ready).unwrap();
            assert_eq!(ready.tokens().collect::<Vec<_>>(), [7]);
            pair.rtp.recv_from(&mut [0; 9]).unwrap();
        }
        poller.waker().wake();
        poller.wait(None, &mut ready).unwrap();
        assert_eq!(ready.tokens().count(), 0);
        poller.wait(Some(Duration::ZERO), &mut ready).unwrap();
        assert_eq!(ready.tokens().count(), 0);
        poller.remove(&pair.rtp).unwrap();
        pair.rtcp.send_to(b"3", address).unwrap();
        poller.wait(Some(Duration::from_millis(1)), &mut ready).unwrap();
        assert_eq!(ready.tokens().count(), 0);
    }

    #[test]
    fn draining_leaves_nothing_of_whoever_had_the_port_before() {
        let (pair, address) = any_pair();
        for _ in 0..9 {
            pair.rtcp.send_to(b"old", address).unwrap();
        }
        pair.drain();
        assert_eq!(pair.rtp.recv_from(&mut [0; 9]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}
