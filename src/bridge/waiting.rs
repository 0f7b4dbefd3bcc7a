//! Packets that came ahead of the description that explains them.
//!
//! An offerer must be ready to receive as soon as its offer is out (RFC 3264 §5.1), but until the answer is here nobody
//! knows whose a packet is: the first ones of an answerer overtake its 200 on the way through signaling. They are
//! neither believed nor lost: a few wait, and are judged by the description when it comes, with the time at which they
//! had arrived. So no source can latch ahead of the description that names it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Packets that wait at most; a further one replaces the oldest.
pub const MAX_WAITING: usize = 8;
/// What has waited longer is stale: nobody wants to hear it any more.
const PATIENCE: Duration = Duration::from_millis(200);
/// The longest datagram that may wait: an Ethernet frame's.
const LONGEST: usize = 1_500;

/// A leg's waiting packets. All memory is taken when the wait begins: the packet path allocates nothing.
#[derive(Debug)]
pub struct Waiting {
    packets: Box<[Option<Waited>]>,
    bytes: Box<[[u8; LONGEST]]>,
    /// Where the next one goes: the place of the oldest.
    next: usize,
}

#[derive(Debug, Clone, Copy)]
struct Waited {
    from: SocketAddr,
    at: Instant,
    len: usize,
}

/// A packet that has waited.
#[derive(Debug)]
pub struct Early<'a> {
    /// Its source.
    pub from: SocketAddr,
    /// When it arrived.
    pub at: Instant,
    /// The datagram.
    pub datagram: &'a mut [u8],
}

impl Default for Waiting {
    /// Nothing waits yet.
    fn default() -> Self {
        Self {
            packets: vec![None; MAX_WAITING].into_boxed_slice(),
            bytes: vec![[0; LONGEST]; MAX_WAITING].into_boxed_slice(),
            next: 0,
        }
    }
}

impl Waiting {
    /// Keeps a packet; how many are lost by that (itself when it is too long, or the oldest).
    pub fn keep(&mut self, from: SocketAddr, datagram: &[u8], now: Instant) -> u64 {
        let Some(place) = self.bytes[self.next].get_mut(..datagram.len()) else { return 1 };
        place.copy_from_slice(datagram);
        let replaced = self.packets[self.next].replace(Waited { from, at: now, len: datagram.len() });
        self.next = (self.next + 1) % MAX_WAITING;
        u64::from(replaced.is_some())
    }

    /// Forgets what has waited too long; how many those were.
    pub fn forget_stale(&mut self, now: Instant) -> u64 {
        let mut stale = 0;
        for packet in &mut self.packets {
            if packet.is_some_and(|packet| now.saturating_duration_since(packet.at) > PATIENCE) {
                *packet = None;
                stale += 1;
            }
        }
        stale
    }

    /// Gives every packet to `each`, the oldest first.
    pub fn drain(mut self, mut each: impl FnMut(Early<'_>)) {
        for step in 0..MAX_WAITING {
            let place = (self.next + step) % MAX_WAITING;
            if let Some(Waited { from, at, len }) = self.packets[place] {
                each(Early { from, at, datagram: &mut self.bytes[place][..len] });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from() -> SocketAddr {
        "192.0.2.1:4000".parse().unwrap()
    }

    fn all(waiting: Waiting) -> Vec<Vec<u8>> {
        let mut all = vec![];
        waiting.drain(|early| all.push(early.datagram.to_vec()));
        all
    }

    #[test]
    fn the_newest_wait_in_order_and_what_gives_way_is_counted() {
        let now = crate::clock::now();
        let mut waiting = Waiting::default();
        let lost: u64 = (0..11).map(|n| waiting.keep(from(), &[n; 3], now)).sum();
        assert_eq!(lost, 3);
        assert_eq!(waiting.keep(from(), &[0; LONGEST + 1], now), 1);
        assert_eq!(all(waiting), (3..11).map(|n| vec![n; 3]).collect::<Vec<_>>());
    }

    #[test]
    fn what_has_waited_too_long_is_forgotten_and_counted() {
        let now = crate::clock::now();
        let mut waiting = Waiting::default();
        waiting.keep(from(), b"old", now);
        waiting.keep(from(), b"new", now + Duration::from_millis(150));
        assert_eq!(waiting.forget_stale(now + Duration::from_millis(201)), 1);
        assert_eq!(all(waiting), [b"new".to_vec()]);
    }
}
