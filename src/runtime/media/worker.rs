//! The loop of one media thread: wait, read, relay, send, copy to the recorders.

use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::mixers::Mixers;
use super::pace::Pace;
use super::ports::Ports;
use super::sockets::{Sockets, socket_of};
use super::{Bound, Counters, Message, Options, Priority, Sender, Worker};
use crate::bridge::command::{Command, LegStats, NewLeg, Notice, PortPair};
use crate::bridge::relay::{
    self, Channel, Detached, MAX_TRANSMIT, Refusal, Relay, Slot, TAP_AT, Tapped, ToMixer, Transmit,
};
use crate::clock;
use crate::id::{LegId, PortId, WorkerId};
use crate::net::udp::{self, Pair, Poller, Ready};
use crate::record::tap::TapHeader;
use crate::runtime::{realtime, ring};

/// Messages handled in one pass.
const MESSAGES: usize = 256;
/// Pairs bound in one pass: a pair costs about 20 µs, and packets wait meanwhile.
const BINDS: usize = 32;
/// The clock is read again after so many datagrams.
const PER_CLOCK: usize = 16;
/// How long commands for a leg that has moved are sent after it: signaling knows of the move long before.
const SEND_AFTER: Duration = Duration::from_secs(10);
/// How long the packets of a leg that was routed wait for its next route after a move.
const ROUTE_PATIENCE: Duration = Duration::from_millis(200);
/// Longest wait: housekeeping is due once a second.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// The largest UDP datagram.
const DATAGRAM: usize = 65_535;
/// NTP counts from 1900 (RFC 3550 §4).
const NTP_UNIX: u64 = 2_208_988_800;

/// The edges that the thread is given.
pub(super) struct Edges {
    pub poller: Poller,
    pub messages: mpsc::Receiver<Message>,
    pub peers: Vec<Sender>,
    pub counters: Arc<Counters>,
}

/// Runs until [`Command::Shutdown`].
pub(super) fn run(worker: Worker, edges: Edges, notices: impl Fn(Notice)) {
    let Worker { options, taps, mixers } = worker;
    if options.priority == Priority::Realtime {
        realtime::ask(&format!("media-{}", options.worker.0));
    }
    let relay = Relay::new(relay::Options {
        epoch: options.epoch,
        epoch_ntp: epoch_ntp(options.epoch),
        rng: StdRng::seed_from_u64(options.seed),
    });
    let mut this = Loop {
        ports: Ports::new(options.ports.clone(), options.cooldown),
        sockets: Sockets::new(edges.poller),
        messages: edges.messages,
        peers: edges.peers,
        counters: edges.counters,
        notices,
        relay,
        taps,
        mixers: Mixers::new(mixers),
        waiting: HashMap::new(),
        next_port: 0,
        to_bind: VecDeque::new(),
        moved: HashMap::new(),
        totals: Totals::default(),
        pace: Pace::new(options.batch_interval, clock::now()),
        housekept: clock::now(),
        options,
    };
    this.run();
}

fn epoch_ntp(epoch: Instant) -> u64 {
    let since_1970 = clock::wall().as_nanosecond().max(0) as u128;
    let at_epoch = since_1970.saturating_sub(clock::now().saturating_duration_since(epoch).as_nanos());
    let seconds = (at_epoch / 1_000_000_000) as u64 + NTP_UNIX;
    let fraction = ((at_epoch % 1_000_000_000) << 32) / 1_000_000_000;
    (seconds << 32).wrapping_add(fraction as u64)
}

struct Loop<F> {
    options: Options,
    ports: Ports,
    sockets: Sockets,
    messages: mpsc::Receiver<Message>,
    peers: Vec<Sender>,
    counters: Arc<Counters>,
    notices: F,
    relay: Relay,
    taps: Vec<ring::Producer>,
    mixers: Mixers,
    /// Bound and announced, not yet a leg's.
    waiting: HashMap<PortId, Bound>,
    next_port: u32,
    /// Pairs still to be bound.
    to_bind: VecDeque<(IpAddr, usize)>,
    /// Legs that went to another thread lately.
    moved: HashMap<LegId, (WorkerId, Instant)>,
    totals: Totals,
    pace: Pace,
    housekept: Instant,
}

/// Counted without atomics during a pass.
#[derive(Default)]
struct Totals {
    received: u64,
    sent: u64,
    refused: [u64; Refusal::LABELS.len()],
    unsent: u64,
    untapped: u64,
    unmixed: u64,
}

impl<F: Fn(Notice)> Loop<F> {
    fn run(&mut self) {
        let mut ready = Ready::default();
        let mut datagram = vec![0; DATAGRAM].into_boxed_slice();
        let mut pass = 0_u64;
        loop {
            pass += 1;
            let more = match self.receive_messages() {
                Flow::Stop => return self.give_back_all(),
                Flow::More => true,
                Flow::Done => self.bind_some(),
            };
            let timeout = if more { Duration::ZERO } else { self.until_next(clock::now()) };
            if let Err(error) = self.sockets.wait(Some(timeout), &mut ready) {
                // Only a broken descriptor does that; going on would spin.
                tracing::error!(worker = self.options.worker.0, %error, "epoll failed: the media thread stops");
                return self.give_back_all();
            }
            let begun = clock::now();
            while let Some(slot) = self.sockets.overdue(begun) {
                self.resume(slot);
            }
            let before = self.totals.received;
            self.read_all(&ready, pass, begun, &mut datagram);
            self.mixers.publish();
            self.take_mixed(begun);
            self.send_own(clock::now());
            self.publish_taps(begun);
            self.tell();
            self.publish_totals();
            self.housekeep(begun);
            let read = (self.totals.received - before) as u32;
            if let Some(pause) = self.pace.after_pass(read, begun, realtime::thread_cpu) {
                let spent = clock::now().saturating_duration_since(begun);
                std::thread::sleep(pause.saturating_sub(spent));
            }
        }
    }

    fn until_next(&self, now: Instant) -> Duration {
        let due = self.relay.poll_timeout().map(|(at, _)| at).into_iter().chain(self.sockets.next_overdue()).min();
        let gathering = self.taps.iter().any(ring::Producer::is_gathering);
        let longest = if gathering { Duration::from_nanos(ring::GATHER_NS) } else { HOUSEKEEPING };
        due.map_or(longest, |at| at.saturating_duration_since(now)).min(longest)
    }

    /// Shows the recorders what was copied for them: some milliseconds of it at a time while there is much.
    fn publish_taps(&mut self, now: Instant) {
        if self.pace.is_busy() {
            let now_ns = now.saturating_duration_since(self.options.epoch).as_nanos() as u64;
            self.taps.iter_mut().for_each(|tap| tap.publish_aged(now_ns));
        } else {
            self.taps.iter_mut().for_each(ring::Producer::publish);
        }
    }

    // Packets.

    fn read_all(&mut self, ready: &Ready, pass: u64, begun: Instant, datagram: &mut [u8]) {
        let mut now = begun;
        let mut read = 0;
        for token in ready.tokens() {
            let (slot, channel) = socket_of(token);
            for _ in 0..self.sockets.budget(slot, pass) {
                if !self.read_one(slot, channel, datagram, now) {
                    break;
                }
                read += 1;
                if read % PER_CLOCK == 0 {
                    now = clock::now();
                }
            }
        }
    }

    /// False when there is nothing to read.
    fn read_one(&mut self, slot: Slot, channel: Channel, buffer: &mut [u8], now: Instant) -> bool {
        let Some(socket) = self.sockets.get(slot, channel) else { return false };
        let (len, from) = match udp::receive(socket, buffer) {
            Ok(received) => received,
            // Errors of an earlier send (ICMP) are read here; they say nothing about what comes next.
            Err(error) => return error.kind() != ErrorKind::WouldBlock && error.kind() != ErrorKind::Interrupted,
        };
        self.totals.received += 1;
        self.relay_one(slot, channel, from, &mut buffer[..len], now);
        true
    }

    /// `at`: when it arrived.
    fn relay_one(&mut self, slot: Slot, channel: Channel, from: SocketAddr, datagram: &mut [u8], at: Instant) {
        let verdict = self.relay.packet(slot, channel, from, datagram, at);
        if let Some(forward) = verdict.forward {
            let bytes = self.relay.sent(&forward, datagram);
            let sent = self.sockets.send(forward.slot, Channel::Rtp, forward.to, bytes);
            self.totals.count_sent(sent);
        }
        if let Some(tap) = verdict.tap {
            self.tap(slot, &tap, &datagram[tap.header.payload()], at);
        }
        if let Some(mix) = verdict.mix {
            self.mix(&mix, &datagram[mix.header.payload()], at);
        }
        if let Some(refusal) = verdict.refused {
            self.totals.refused[refusal.index()] += 1;
        }
    }

    /// What came ahead of the description that is here now.
    fn take_waiting(&mut self, leg: LegId, now: Instant) {
        let Some((slot, waiting)) = self.relay.take_waiting(leg, now) else { return };
        waiting.drain(|early| self.relay_one(slot, Channel::Rtp, early.from, early.datagram, early.at));
    }

    fn tap(&mut self, slot: Slot, tap: &Tapped, payload: &[u8], now: Instant) {
        let header = TapHeader {
            leg: tap.leg,
            arrival_ns: now.saturating_duration_since(self.options.epoch).as_nanos() as u64,
            timestamp: tap.header.timestamp,
            ssrc: tap.header.ssrc,
            sequence: tap.header.sequence,
            len: 0,
            payload_type: tap.header.payload_type,
            marker: tap.header.marker,
        };
        for recorder in tap.taps.recorders() {
            let copied = self.taps.get_mut(usize::from(recorder.0)).is_some_and(|ring| ring.push(header, payload));
            if !copied {
                self.totals.untapped += 1;
                self.relay.count_untapped(slot);
            }
        }
    }

    fn mix(&mut self, mix: &ToMixer, payload: &[u8], at: Instant) {
        let arrival_ns = at.saturating_duration_since(self.options.epoch).as_nanos() as u64;
        if !self.mixers.push(mix, payload, arrival_ns) {
            self.totals.unmixed += 1;
        }
    }

    /// Sends what the mixers have made.
    fn take_mixed(&mut self, now: Instant) {
        let Self { mixers, relay, sockets, totals, .. } = self;
        mixers.take(relay, now, |transmit, out| {
            totals.count_sent(sockets.send(transmit.slot, transmit.channel, transmit.to, &out[..transmit.len]));
        });
    }

    fn send_own(&mut self, now: Instant) {
        if self.relay.poll_timeout().is_none_or(|(at, _)| at > now) {
            return;
        }
        let mut out = [0; MAX_TRANSMIT];
        while let Some(transmit) = self.relay.poll_transmit(now, &mut out) {
            self.transmit(transmit, &out, now);
        }
    }

    /// `at`: now.
    fn transmit(&mut self, transmit: Transmit, out: &[u8; MAX_TRANSMIT], at: Instant) {
        let sent = self.sockets.send(transmit.slot, transmit.channel, transmit.to, &out[..transmit.len]);
        self.totals.count_sent(sent);
        if let Some(tap) = transmit.tap {
            let payload = &out[TAP_AT..][tap.header.payload()];
            self.tap(transmit.slot, &tap, payload, at);
        }
    }

    fn tell(&mut self) {
        while let Some(notice) = self.relay.poll_notice() {
            (self.notices)(notice);
        }
    }

    fn publish_totals(&self) {
        let Totals { received, sent, refused, unsent, untapped, unmixed } = self.totals;
        self.counters.received.store(received, Relaxed);
        self.counters.sent.store(sent, Relaxed);
        self.counters.refused.iter().zip(refused).for_each(|(counter, total)| counter.store(total, Relaxed));
        self.counters.unsent.store(unsent, Relaxed);
        self.counters.untapped.store(untapped, Relaxed);
        self.counters.unmixed.store(unmixed, Relaxed);
        self.counters.passes.fetch_add(1, Relaxed);
        self.counters.legs.store(self.relay.len() as u64, Relaxed);
    }

    fn housekeep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.housekept) < HOUSEKEEPING {
            return;
        }
        self.housekept = now;
        self.taps.iter_mut().for_each(ring::Producer::flush);
        self.mixers.flush();
        self.moved.retain(|_, (_, at)| now.saturating_duration_since(*at) < SEND_AFTER);
    }

    // Messages.

    fn receive_messages(&mut self) -> Flow {
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
        let leg = match &command {
            Command::SetRemote { leg, .. }
            | Command::Await { leg }
            | Command::Play { leg, .. }
            | Command::Digits { leg, .. }
            | Command::Collect { leg, .. }
            | Command::Press { leg, .. }
            | Command::Tap { leg, .. }
            | Command::Mix { leg, .. }
            | Command::TapAs { leg, .. }
            | Command::TapPlayback { leg, .. }
            | Command::Beep { leg, .. }
            | Command::Watch { leg, .. }
            | Command::Move { leg, .. }
            | Command::Route { from: leg, .. }
            | Command::RemoveLeg(leg) => *leg,
            Command::BindPorts { .. } | Command::AddLeg(_) | Command::Shutdown => return Some(command),
        };
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

    fn remove_leg(&mut self, leg: LegId, now: Instant) -> Result<(), relay::Error> {
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

    fn resume(&mut self, slot: Slot) {
        if let Err(error) = self.sockets.resume(slot) {
            tracing::warn!(worker = self.options.worker.0, %error, "the sockets of a leg that has moved cannot be watched");
        }
    }

    /// Binds some of the pairs asked for; true when more are to be bound.
    fn bind_some(&mut self) -> bool {
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

    fn give_back_all(&mut self) {
        let now = clock::now();
        for leg in self.relay.legs() {
            // Each is there: the list was made from the relay.
            let _ = self.remove_leg(leg, now);
        }
        self.waiting.clear();
        self.taps.iter_mut().for_each(ring::Producer::flush);
        self.publish_totals();
    }
}

enum Flow {
    /// The inbox is empty.
    Done,
    /// It may not be.
    More,
    Stop,
}

impl Totals {
    fn count_sent(&mut self, sent: bool) {
        self.sent += u64::from(sent);
        self.unsent += u64::from(!sent);
    }
}
