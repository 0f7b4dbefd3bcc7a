//! The reference: one epoll loop that receives a datagram and sends it to the other leg's peer. It reads no RTP.
//!
//! Beside it the same with one socket for all legs, which tells them apart by the port that a datagram came from.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};

use stickytape::net::udp::{Poller, Ready};

/// Datagrams read from a shared socket before it is waited for again.
const BURST: usize = 64;

/// Reflects between legs 2n and 2n + 1 until `stop`; the datagrams moved.
pub fn run(sockets: &[UdpSocket], peers: &[SocketAddr], stop: &AtomicBool) -> u64 {
    crate::ask_for_realtime();
    let poller = Poller::new().expect("epoll");
    for (n, socket) in sockets.iter().enumerate() {
        poller.add(socket, n as u64).expect("epoll");
    }
    let mut ready = Ready::default();
    let mut buffer = [0; 2_048];
    let mut moved = 0;
    while !stop.load(Ordering::Relaxed) {
        poller.wait(Some(std::time::Duration::from_millis(100)), &mut ready).expect("epoll");
        for token in ready.tokens() {
            let leg = token as usize;
            let Ok((len, _)) = sockets[leg].recv_from(&mut buffer) else { continue };
            let other = leg ^ 1;
            moved += u64::from(sockets[other].send_to(&buffer[..len], peers[other]).is_ok());
        }
    }
    moved
}

/// As [`run`], on one socket.
pub fn run_shared(socket: &UdpSocket, peers: &[SocketAddr], stop: &AtomicBool) -> u64 {
    crate::ask_for_realtime();
    let mut to = vec![None; 1 << 16];
    for (leg, peer) in peers.iter().enumerate() {
        to[usize::from(peer.port())] = Some(peers[leg ^ 1]);
    }
    let poller = Poller::new().expect("epoll");
    poller.add(socket, 0).expect("epoll");
    let mut ready = Ready::default();
    let mut buffer = [0; 2_048];
    let mut moved = 0;
    while !stop.load(Ordering::Relaxed) {
        poller.wait(Some(std::time::Duration::from_millis(100)), &mut ready).expect("epoll");
        for _ in 0..BURST {
            let Ok((len, from)) = socket.recv_from(&mut buffer) else { break };
            let Some(to) = to[usize::from(from.port())] else { continue };
            moved += u64::from(socket.send_to(&buffer[..len], to).is_ok());
        }
    }
    moved
}
