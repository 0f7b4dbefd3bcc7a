//! The legs' sockets, and the epoll that watches them.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::Bound;
use crate::bridge::relay::{Channel, Slot};
use crate::net::udp::{self, Poller, Ready};

/// Datagrams read in one pass from a socket that had one in the pass before, too: a burst. Others give one a pass.
const BURST: usize = 16;

/// The legs' sockets by slot.
pub(super) struct Sockets {
    pairs: Vec<Option<Open>>,
    /// Slots whose packets wait in the kernel, and until when at the latest. Seldom any.
    paused: Vec<(Slot, Instant)>,
    poller: Poller,
}

struct Open {
    bound: Bound,
    /// The last pass in which one of them had something to read.
    pass: u64,
}

impl Sockets {
    pub fn new(poller: Poller) -> Self {
        Self { pairs: Vec::new(), paused: Vec::new(), poller }
    }

    pub fn wait(&self, timeout: Option<Duration>, ready: &mut Ready) -> io::Result<()> {
        self.poller.wait(timeout, ready)
    }

    /// How many datagrams may be read in this pass from a slot that is ready.
    pub fn budget(&mut self, slot: Slot, pass: u64) -> usize {
        let Some(open) = self.pairs.get_mut(slot.0).and_then(Option::as_mut) else { return 0 };
        let before = std::mem::replace(&mut open.pass, pass);
        if before + 1 == pass { BURST } else { 1 }
    }

    /// The slot's pair; it is not read before `paused` or [`Sockets::resume`].
    pub fn open(&mut self, slot: Slot, bound: Bound, paused: Option<Instant>) -> io::Result<()> {
        if self.pairs.len() <= slot.0 {
            self.pairs.resize_with(slot.0 + 1, || None);
        }
        self.pairs[slot.0] = Some(Open { bound, pass: 0 });
        if let Some(until) = paused {
            self.paused.push((slot, until));
            return Ok(());
        }
        self.watch(slot)
    }

    /// Leaves the slot's packets in the kernel for a while; nothing while that is so already.
    pub fn pause(&mut self, slot: Slot, until: Instant) {
        if let Some(open) = self.pairs.get(slot.0).and_then(Option::as_ref).filter(|_| !self.is_paused(slot)) {
            // Both are there to remove: only a paused pair is not.
            let _ = self.poller.remove(&open.bound.pair.rtp);
            let _ = self.poller.remove(&open.bound.pair.rtcp);
            self.paused.push((slot, until));
        }
    }

    pub fn is_paused(&self, slot: Slot) -> bool {
        self.paused.iter().any(|(paused, _)| *paused == slot)
    }

    /// Reads the slot again, beginning with what has come meanwhile; nothing when it is read.
    pub fn resume(&mut self, slot: Slot) -> io::Result<()> {
        let Some(at) = self.paused.iter().position(|(paused, _)| *paused == slot) else { return Ok(()) };
        self.paused.swap_remove(at);
        self.watch(slot)
    }

    /// A slot whose pause has lasted long enough.
    pub fn overdue(&self, now: Instant) -> Option<Slot> {
        self.paused.iter().find(|(_, until)| *until <= now).map(|(slot, _)| *slot)
    }

    /// When the next pause ends by itself.
    pub fn next_overdue(&self) -> Option<Instant> {
        self.paused.iter().map(|(_, until)| *until).min()
    }

    fn watch(&self, slot: Slot) -> io::Result<()> {
        let Some(open) = self.pairs.get(slot.0).and_then(Option::as_ref) else { return Ok(()) };
        self.poller.add(&open.bound.pair.rtp, token(slot, Channel::Rtp))?;
        self.poller.add(&open.bound.pair.rtcp, token(slot, Channel::Rtcp))
    }

    pub fn close(&mut self, slot: Slot) -> Option<Bound> {
        let bound = self.pairs.get_mut(slot.0)?.take()?.bound;
        self.paused.retain(|(paused, _)| *paused != slot);
        // A pair that was never added or is paused is not there to remove; one that is closed leaves epoll by itself.
        let _ = self.poller.remove(&bound.pair.rtp);
        let _ = self.poller.remove(&bound.pair.rtcp);
        Some(bound)
    }

    pub fn get(&self, slot: Slot, channel: Channel) -> Option<&UdpSocket> {
        let pair = &self.pairs.get(slot.0)?.as_ref()?.bound.pair;
        Some(match channel {
            Channel::Rtp => &pair.rtp,
            Channel::Rtcp => &pair.rtcp,
        })
    }

    pub fn send(&self, slot: Slot, channel: Channel, to: SocketAddr, bytes: &[u8]) -> bool {
        self.get(slot, channel).is_some_and(|socket| udp::send(socket, bytes, to).is_ok())
    }
}

fn token(slot: Slot, channel: Channel) -> u64 {
    (slot.0 as u64) << 1 | u64::from(channel == Channel::Rtcp)
}

pub(super) fn socket_of(token: u64) -> (Slot, Channel) {
    let channel = if token & 1 == 1 { Channel::Rtcp } else { Channel::Rtp };
    (Slot((token >> 1) as usize), channel)
}
