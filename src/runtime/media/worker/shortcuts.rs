//! Which streams of this thread's legs the kernel sends on (`media.kernel-forwarding`), and the account of what it sent.
//!
//! A stream whose packets were relayed for a while, each in the same way, is entered with the kernel. It is withdrawn before
//! anything that could change that way is carried out, and after packets that did not go on with the others. Entering is no
//! part of the packet path: once a stream, it asks for a route and allocates.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Loop;
use crate::bridge::command::{Command, Notice};
use crate::bridge::relay::{Channel, Slot};
use crate::bridge::shortcut::Shortcut;
use crate::id::LegId;
use crate::net::kernel::{Entry, Kernel};
use crate::record::tap::TapHeader;
use crate::rtp::Header;
use crate::rtp::view::FIXED_LEN;
use crate::runtime::ring;

/// Packets of a leg that are relayed here before its stream is entered: a stream that cannot stay is not entered and
/// withdrawn with every packet.
const STEADY: i16 = 10;
/// Packets until a stream that the kernel did not take is offered again: each offer asks for routes.
const REFUSED: i16 = 100;
/// A stream is withdrawn after so many packets in a row that the kernel did not send on although they are the newest: it has
/// jumped. Fewer were under way when it was entered, or found no room for their copies.
const MISSED: u8 = 3;
/// Longest wait of the thread while streams are entered: their copies lie in a ring of 8 MiB, which a quarter of a second of
/// two thousand streams fills.
pub(super) const DRAIN_EVERY: Duration = Duration::from_millis(5);

/// What is read of an RTP packet before its header is replaced.
#[derive(Debug, Clone, Copy)]
pub(super) struct Came {
    payload_type: u8,
    sequence: u16,
}

impl Came {
    /// `None` where it is too short for one.
    pub fn read(datagram: &[u8]) -> Option<Self> {
        let [_, second, sequence @ ..] = datagram.first_chunk::<4>()?;
        Some(Self { payload_type: second & 0x7f, sequence: u16::from_be_bytes(*sequence) })
    }
}

/// The streams of one thread.
pub(super) struct Shortcuts {
    kernel: Option<Kernel>,
    legs: Vec<Leg>,
    /// By slot: packets of an entered stream that came here since the last one that did not.
    missed: Vec<u8>,
    entered: usize,
}

/// What is known of the leg in a slot.
#[derive(Default)]
struct Leg {
    entered: Option<Entered>,
    /// Packets since the last withdrawal; negative after a refusal.
    steady: i16,
}

struct Entered {
    entry: Entry,
    shortcut: Shortcut,
}

impl Shortcuts {
    pub fn new(kernel: Option<Kernel>) -> Self {
        Self { kernel, legs: Vec::new(), missed: Vec::new(), entered: 0 }
    }

    pub fn are_possible(&self) -> bool {
        self.kernel.is_some()
    }

    /// Streams that the kernel sends on now.
    pub fn len(&self) -> usize {
        self.entered
    }

    /// A packet of the leg came to its socket. Whether its stream is to be looked at: it is entered but this packet did not go
    /// on with it, or it has been relayed for a while.
    fn is_due(&mut self, slot: Slot, forwarded: bool) -> bool {
        if self.legs.len() <= slot.0 {
            self.legs.resize_with(slot.0 + 1, Leg::default);
            self.missed.resize(slot.0 + 1, 0);
        }
        let leg = &mut self.legs[slot.0];
        leg.steady = if forwarded { leg.steady.saturating_add(1) } else { leg.steady.min(0) };
        leg.entered.is_some() || leg.steady >= STEADY
    }

    fn entered(&self, slot: Slot) -> Option<&Entered> {
        self.legs.get(slot.0)?.entered.as_ref()
    }

    fn enter(&mut self, shortcut: Shortcut, [ours, hearers]: [SocketAddr; 2], newest: (u16, u32)) {
        let (Some(kernel), Some(leg)) = (&mut self.kernel, self.legs.get_mut(shortcut.slot.0)) else { return };
        leg.steady = -REFUSED;
        if let Some(entry) = kernel.enter(&shortcut, ours, hearers, newest) {
            leg.steady = 0;
            leg.entered = Some(Entered { entry, shortcut });
            self.missed[shortcut.slot.0] = 0;
            self.entered += 1;
        }
    }

    /// True when there was one.
    fn withdraw(&mut self, slot: Slot) -> bool {
        let Some(leg) = self.legs.get_mut(slot.0) else { return false };
        leg.steady = 0;
        let Some((Entered { entry, .. }, kernel)) = leg.entered.take().zip(self.kernel.as_mut()) else { return false };
        kernel.withdraw(entry);
        self.entered -= 1;
        true
    }
}

impl<F: Fn(Notice)> Loop<F> {
    /// Accounts for what the kernel has sent on, and copies it to the recorders.
    pub(super) fn take_passed(&mut self) {
        let Some(mut kernel) = self.shortcuts.kernel.take() else { return };
        let mut pushed = 0;
        kernel.drain(|passed| {
            self.totals.received += 1;
            self.totals.sent += 1;
            self.totals.passed += 1;
            self.shortcuts.missed.get_mut(passed.slot.0).into_iter().for_each(|missed| *missed = 0);
            let Ok(header) = Header::parse(passed.rtp) else { return };
            let len = passed.len.saturating_sub(FIXED_LEN);
            if let Some(tap) = self.relay.went_on(passed.slot, passed.leg, &header, len, passed.at) {
                self.tap(passed.slot, &tap, &passed.rtp[header.payload()], passed.at);
                pushed += TapHeader::LEN + len;
            }
            if pushed > ring::PASS {
                self.taps.iter_mut().for_each(ring::Producer::publish);
                pushed = 0;
            }
        });
        self.shortcuts.kernel = Some(kernel);
    }

    /// Before a packet that came to a leg's socket: those that the kernel has sent on came first.
    pub(super) fn take_passed_before(&mut self, slot: Slot) {
        if self.shortcuts.entered(slot).is_some() {
            self.take_passed();
        }
    }

    /// After a packet that came to a leg's socket; `forwarded` when it was sent on.
    pub(super) fn look_at(&mut self, slot: Slot, came: Came, forwarded: bool, now: Instant) {
        if let Some(other) = self.relay.heard_by(slot) {
            self.renew(other, now);
        }
        if !self.shortcuts.is_due(slot, forwarded) {
            return;
        }
        match self.shortcuts.entered(slot) {
            // What is refused, a stranger's too, says nothing about the stream itself.
            Some(entered) if forwarded && entered.shortcut.payload_type.0 == came.payload_type => {
                self.missed(slot, came, now);
            }
            Some(_) => self.renew(slot, now),
            None => self.enter(slot, came.payload_type, now),
        }
    }

    /// A packet of an entered stream was sent on here. What lay in the socket since before it was entered is behind what the
    /// kernel has sent on since.
    fn missed(&mut self, slot: Slot, came: Came, now: Instant) {
        let newest = self.relay.shortcut(slot, came.payload_type, now).map(|(_, (newest, _))| newest);
        if newest == Some(came.sequence) {
            self.shortcuts.missed[slot.0] += 1;
        }
        match self.shortcuts.missed[slot.0] {
            MISSED.. => self.withdraw(slot),
            _ => self.renew(slot, now),
        }
    }

    fn enter(&mut self, slot: Slot, payload_type: u8, now: Instant) {
        let address = |slot| self.sockets.get(slot, Channel::Rtp)?.local_addr().ok();
        let Some((shortcut, newest)) = self.relay.shortcut(slot, payload_type, now) else {
            self.shortcuts.withdraw(slot);
            return;
        };
        if let Some((ours, hearers)) = address(slot).zip(address(shortcut.hearer)) {
            self.shortcuts.enter(shortcut, [ours, hearers], newest);
        }
    }

    /// Withdraws a stream that would not be entered any more as it is.
    fn renew(&mut self, slot: Slot, now: Instant) {
        let Some(entered) = self.shortcuts.entered(slot).map(|entered| entered.shortcut) else { return };
        let holds = self.relay.shortcut(slot, entered.payload_type.0, now).is_some_and(|(now, _)| now == entered);
        if !holds {
            self.withdraw(slot);
        }
    }

    fn withdraw(&mut self, slot: Slot) {
        if self.shortcuts.withdraw(slot) {
            self.take_passed();
        }
    }

    /// Before a command: what it may change stands still, and what has been sent on is accounted for.
    pub(super) fn withdraw_for(&mut self, command: &Command) {
        if self.shortcuts.len() == 0 {
            return;
        }
        let (leg, other) = command.legs();
        for leg in leg.into_iter().chain(other) {
            self.withdraw_of(leg);
        }
    }

    fn withdraw_of(&mut self, leg: LegId) {
        let Ok(slot) = self.relay.slot(leg) else { return };
        self.withdraw(slot);
        if let Some(heard) = self.relay.heard_by(slot) {
            self.withdraw(heard);
        }
    }

    /// Once a second: packets may have to leave by another interface now.
    pub(super) fn look_at_ways(&mut self) {
        if self.shortcuts.kernel.as_ref().is_some_and(Kernel::have_ways_changed) {
            (0..self.shortcuts.legs.len()).for_each(|slot| self.withdraw(Slot(slot)));
        }
    }
}
