//! What a media thread is told: legs that come, change, move and go, and ports to be bound.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Instant;

use super::super::{Bound, Message};
use super::{BINDS, Flow, Loop, MESSAGES, ROUTE_PATIENCE};
use crate::bridge::command::{Command, LegStats, NewLeg, Notice, PortPair};
use crate::bridge::relay::{self, Detached, MAX_TRANSMIT, Slot};
use crate::clock;
use crate::id::{LegId, PortId, WorkerId};
use crate::net::udp::Pair;

impl<F: Fn(Notice)> Loop<F> {
    pub(super) fn receive_messages(&mut self) -> Flow {
        for _ in 0..MESSAGES {
            match self.messages.try_recv() {
                Ok(Message::Command(Command::Shutdown)) | Err(mpsc::TryRecvError::Disconnected) => return Flow::Stop,
                Ok(Message::Command(command)) => self.command(command),
                Ok(Message::Arrive(leg, bound, paused)) => self.arrive(leg, bound, paused),
                Ok(Message::Closed { address, port }) => self.ports.give_back(address, port, clock::now()),
                Err(mpsc::TryRecvError::Empty) => return Flow::Done,
            }
        }
        Flow::More
    }

    fn command(&mut self, command: Command) {
        let Some(command) = self.send_after(command) else { return };
        self.withdraw_for(&command);
        let now = clock::now();
        let done = match command {
            Command::BindPorts { address, count } => {
                self.to_bind.push_back((address, count));
                Ok(())
            }
            Command::AddLeg(new) => {
                self.add_leg(&new, now);
                Ok(())
            }
            Command::SetRemote { leg, remote } => {
                self.relay.set_remote(leg, *remote).map(|()| self.take_waiting(leg, now))
            }
            Command::Await { leg } => self.relay.await_remote(leg),
            Command::Route { from, to } => self.relay.route(from, to).map(|()| self.read_again(from)),
            Command::Play { leg, what } => self.relay.play(leg, what, now),
            Command::Digits { leg, to } => self.relay.digits(leg, to),
            Command::Collect { leg, digits } => self.relay.collect(leg, digits),
            Command::Press { leg, digit, length } => self.relay.press(leg, digit, length, now),
            Command::Tap { leg, recorders } => self.relay.tap(leg, &recorders),
            Command::Mix { leg, mixing } => {
                // What the mixer said before it let the leg go is about its time before.
                self.take_mixed(now);
                self.relay.mix(leg, mixing)
            }
            Command::TapAs { leg, name } => self.relay.tap_as(leg, name),
            Command::TapPlayback { leg, tapping } => self.relay.tap_playback(leg, tapping),
            Command::Beep { leg, every } => self.relay.beep(leg, every, now),
            Command::Watch { leg, timeout } => self.relay.watch(leg, timeout, now),
            Command::Move { leg, to } => self.move_leg(leg, to, now),
            Command::RemoveLeg(leg) => self.remove_leg(leg, now),
            Command::Shutdown => Ok(()),
        };
        if let Err(error) = done {
            tracing::warn!(worker = self.options.worker.0, %error, "a media command was not carried out");
        }
    }

    /// Sends a command after its leg when that has moved away; gives it back when it is for this thread.
    fn send_after(&mut self, command: Command) -> Option<Command> {
        let (Some(leg), _) = command.legs() else { return Some(command) };
        let Some((to, _)) = self.moved.get(&leg) else { return Some(command) };
        // The other thread exists, or the leg would not have gone there.
        if let Some(peer) = self.peers.get(usize::from(to.0)) {
            peer.send(command);
        }
        None
    }

    fn add_leg(&mut self, new: &NewLeg, now: Instant) {
        let Some(bound) = self.waiting.remove(&new.port) else {
            tracing::warn!(worker = self.options.worker.0, leg = %new.leg, "a leg was given a pair that is not bound");
            return (self.notices)(Notice::Removed { leg: new.leg, stats: LegStats::default() });
        };
        bound.pair.drain();
        match self.relay.add(new, now) {
            Ok(slot) => self.open(new.leg, slot, bound, None),
            Err(error) => {
                tracing::warn!(worker = self.options.worker.0, %error, "a leg was not added");
                self.close(bound);
                (self.notices)(Notice::Removed { leg: new.leg, stats: LegStats::default() });
            }
        }
    }

    fn open(&mut self, leg: LegId, slot: Slot, bound: Bound, paused: Option<Instant>) {
        if let Err(error) = self.sockets.open(slot, bound, paused) {
            tracing::warn!(worker = self.options.worker.0, %leg, %error, "a leg's sockets cannot be watched");
            // The leg was put there a moment ago; its notice tells signaling.
            let _ = self.remove_leg(leg, clock::now());
        }
    }

    pub(super) fn remove_leg(&mut self, leg: LegId, now: Instant) -> Result<(), relay::Error> {
        let mut out = [0; MAX_TRANSMIT];
        if let Some(transmit) = self.relay.farewell(leg, now, &mut out) {
            self.transmit(transmit, &out, now);
        }
        let slot = self.relay.remove(leg)?;
        if let Some(bound) = self.sockets.close(slot) {
            self.close(bound);
        }
        self.tell();
        Ok(())
    }

    fn close(&mut self, bound: Bound) {
        let Bound { pair, home, address, port } = bound;
        drop(pair);
        if home == self.options.worker {
            self.ports.give_back(address, port, clock::now());
        } else if let Some(peer) = self.peers.get(usize::from(home.0)) {
            // When its home has stopped nobody will bind the pair again.
            let _ = peer.deliver(Message::Closed { address, port });
        }
    }

    fn move_leg(&mut self, leg: LegId, to: WorkerId, now: Instant) -> Result<(), relay::Error> {
        if to == self.options.worker {
            self.relay.slot(leg)?;
            (self.notices)(Notice::Moved { leg });
            return Ok(());
        }
        let Some(peer) = self.peers.get(usize::from(to.0)).cloned() else {
            tracing::warn!(worker = self.options.worker.0, %leg, "a leg was told to move to a thread that does not exist");
            return Ok(());
        };
        let until = now + ROUTE_PATIENCE;
        let mut routed = self.sockets.is_paused(self.relay.slot(leg)?);
        for partner in self.relay.partners(leg) {
            self.sockets.pause(partner, until);
            routed = true;
        }
        let (slot, detached) = self.relay.detach(leg)?;
        let Some(bound) = self.sockets.close(slot) else {
            tracing::warn!(worker = self.options.worker.0, %leg, "a leg without sockets ends instead of moving");
            (self.notices)(Notice::Removed { leg, stats: detached.stats() });
            return Ok(());
        };
        match peer.deliver(Message::Arrive(detached, bound, routed.then_some(until))) {
            Ok(()) => drop(self.moved.insert(leg, (to, now))),
            Err(mpsc::SendError(Message::Arrive(detached, bound, _))) => {
                // The other thread has stopped: so does the leg.
                self.close(bound);
                (self.notices)(Notice::Removed { leg, stats: detached.stats() });
            }
            Err(_) => {}
        }
        Ok(())
    }

    fn arrive(&mut self, leg: Detached, bound: Bound, paused: Option<Instant>) {
        let id = leg.id();
        self.moved.remove(&id);
        match self.relay.attach(leg, clock::now()) {
            Ok(slot) => self.open(id, slot, bound, paused),
            Err((leg, error)) => {
                tracing::warn!(worker = self.options.worker.0, %error, "a leg could not be taken over and ends");
                self.close(bound);
                (self.notices)(Notice::Removed { leg: id, stats: leg.stats() });
            }
        }
        self.tell();
    }

    /// The leg has its route again, or is not to have one.
    fn read_again(&mut self, leg: LegId) {
        if let Ok(slot) = self.relay.slot(leg) {
            self.resume(slot);
        }
    }

    pub(super) fn resume(&mut self, slot: Slot) {
        if let Err(error) = self.sockets.resume(slot) {
            tracing::warn!(worker = self.options.worker.0, %error, "the sockets of a leg that has moved cannot be watched");
        }
    }

    /// Binds some of the pairs asked for; true when more are to be bound.
    pub(super) fn bind_some(&mut self) -> bool {
        let Some((address, count)) = self.to_bind.pop_front() else { return false };
        let now = clock::now();
        let mut bound = Vec::with_capacity(count.min(BINDS));
        let mut tries = self.ports.left(address);
        while bound.len() < count.min(BINDS) && tries > 0 {
            tries -= 1;
            let Some(port) = self.ports.take(address, now) else { break };
            match Pair::bind(address, port) {
                Ok(pair) => {
                    let id = PortId(self.next_port);
                    self.next_port = self.next_port.wrapping_add(1);
                    self.waiting.insert(id, Bound { pair, home: self.options.worker, address, port });
                    bound.push(PortPair { id, rtp: SocketAddr::new(address, port) });
                }
                Err(error) => {
                    self.ports.give_back(address, port, now);
                    if error.kind() != ErrorKind::AddrInUse {
                        tracing::warn!(worker = self.options.worker.0, %error, "a pair of RTP ports cannot be bound");
                        break;
                    }
                }
            }
        }
        let done = bound.len();
        if done > 0 {
            (self.notices)(Notice::PortsBound(bound));
        }
        match count - done {
            0 => {}
            missing if done < BINDS => (self.notices)(Notice::PortsFailed { address, missing }),
            missing => self.to_bind.push_front((address, missing)),
        }
        !self.to_bind.is_empty()
    }
}
