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
use crate::bridge::command::Notice;
use crate::bridge::relay::{self, Channel, MAX_TRANSMIT, Refusal, Relay, Slot, TAP_AT, Tapped, ToMixer, Transmit};
use crate::clock;
use crate::id::{LegId, PortId, WorkerId};
use crate::net::udp::{self, Poller, Ready};
use crate::record::tap::TapHeader;
use crate::runtime::{realtime, ring};
use shortcuts::{Came, DRAIN_EVERY, Shortcuts};

mod messages;
mod shortcuts;

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
    let Worker { options, taps, mixers, kernel } = worker;
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
        shortcuts: Shortcuts::new(kernel),
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
    shortcuts: Shortcuts,
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
    /// Sent on by the kernel; counted as received and sent too.
    passed: u64,
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
            self.take_passed();
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
        let longest = if self.shortcuts.len() > 0 { longest.min(DRAIN_EVERY) } else { longest };
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
        self.take_passed_before(slot);
        self.relay_one(slot, channel, from, &mut buffer[..len], now);
        true
    }

    /// `at`: when it arrived.
    fn relay_one(&mut self, slot: Slot, channel: Channel, from: SocketAddr, datagram: &mut [u8], at: Instant) {
        // It may be replaced with the rest of the header.
        let came = Came::read(datagram);
        let verdict = self.relay.packet(slot, channel, from, datagram, at);
        let forwarded = verdict.forward.is_some();
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
        if let Some(came) = came.filter(|_| channel == Channel::Rtp && self.shortcuts.are_possible()) {
            self.look_at(slot, came, forwarded, at);
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
        let Totals { received, sent, refused, unsent, untapped, unmixed, passed } = self.totals;
        self.counters.received.store(received, Relaxed);
        self.counters.sent.store(sent, Relaxed);
        self.counters.refused.iter().zip(refused).for_each(|(counter, total)| counter.store(total, Relaxed));
        self.counters.unsent.store(unsent, Relaxed);
        self.counters.untapped.store(untapped, Relaxed);
        self.counters.unmixed.store(unmixed, Relaxed);
        self.counters.passed.store(passed, Relaxed);
        self.counters.shortcuts.store(self.shortcuts.len() as u64, Relaxed);
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
        self.look_at_ways();
        self.moved.retain(|_, (_, at)| now.saturating_duration_since(*at) < SEND_AFTER);
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
