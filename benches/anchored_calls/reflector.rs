//! The reference: one epoll loop that receives a datagram and sends it to the other leg's peer. It reads no RTP.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};

use stickytape::net::udp::{Poller, Ready};

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
