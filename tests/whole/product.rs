//! The program as one node of the network: call control, media, mixer and recorder threads as they run in the program,
//! with what stands between threads (inboxes, tap rings, watermarks) as deliveries that take time.

mod mixers;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use mixers::MixerThread;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stickytape::bridge::command::mix::{Hearing, MixCommand, MixNotice};
use stickytape::bridge::command::{Command, LegStats, NewLeg, Notice, PortPair};
use stickytape::bridge::relay::{self, Channel, Detached, MAX_TRANSMIT, Relay, Slot, TAP_AT, Tapped};
use stickytape::call::fact::Fact;
use stickytape::call::options::Options;
use stickytape::call::request::{Accepted, Denied, Request, Ticket};
use stickytape::call::{Calls, Input, Output, Reach, Seats};
use stickytape::disk::active::Active;
use stickytape::disk::store::Store;
use stickytape::id::{LegId, MixerId, PortId, RecorderId, RecordingId, WorkerId};
use stickytape::record::mark::{self, Mark, StopCause};
use stickytape::record::metadata::Recording;
use stickytape::record::recorder::{self, FileSpec, Recorder, SessionFiles, Sink};
use stickytape::record::tap::TapHeader;
use stickytape::sip::endpoint::{self, Flow};
use stickytape::testing::disk::SimDisk;
use stickytape::testing::network::{Datagram, Node};

/// As the signaling task has it.
const WATERMARK: Duration = Duration::from_millis(25);
/// As the recorder's thread has it.
const PASS: Duration = Duration::from_millis(20);
/// How long the packets of a leg that was routed wait for its next route after a move.
const ROUTE_PATIENCE: Duration = Duration::from_millis(200);

/// How the threads are set up.
#[derive(Debug, Clone)]
pub struct Threads {
    /// Media threads.
    pub media: u8,
    /// Mixer threads.
    pub mixers: u8,
    /// Recorder threads.
    pub recorders: u8,
    /// A delivery between two threads takes up to this.
    pub latency: Duration,
    /// Decides over the latencies, and seeds what is random in the program.
    pub seed: u64,
    /// What the mixers take a member for: a test breaks the hearing rule by another answer than what they are told.
    pub taken_for: fn(Hearing) -> Hearing,
}

impl Default for Threads {
    fn default() -> Self {
        Self { media: 2, mixers: 1, recorders: 1, latency: Duration::from_millis(3), seed: 1, taken_for: |told| told }
    }
}

/// Between two threads. Each way keeps its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    ToMedia(usize),
    FromMedia(usize),
    ToMixer(usize),
    FromMixer(usize),
    /// From a mixer to a media thread.
    Mixed(usize, usize),
    ToRecorder(usize),
    FromRecorder(usize),
}

enum Parcel {
    Command(Command),
    /// A leg that comes from another media thread, with the base port of its pair.
    Arrive(Detached, u16, Option<Instant>),
    Notice(Notice),
    Mix(MixCommand),
    MixNotice(MixNotice),
    /// A ring holds something.
    Wake,
    Mark(Mark),
    Watermark(Instant),
    Recorded(mark::Notice),
}

struct Due {
    at: Instant,
    number: u64,
    way: Way,
    parcel: Parcel,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Where a bound pair is.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// Announced, of no leg yet.
    Waiting,
    At(usize, Slot),
    /// Between two threads.
    Moving,
}

/// A bound pair and what waits in its receive buffers.
struct Pair {
    base: SocketAddr,
    id: PortId,
    place: Place,
    paused: Option<Instant>,
    kernel: VecDeque<(Channel, SocketAddr, Bytes)>,
}

struct Media {
    relay: Relay,
    /// Base ports by slot.
    ports: HashMap<usize, u16>,
    /// Legs that went to another thread.
    moved: HashMap<LegId, usize>,
}

struct RecorderThread {
    recorder: Recorder,
    sink: Files,
    /// What the tap rings hold.
    taps: VecDeque<(TapHeader, Vec<u8>)>,
    passed: Instant,
}

/// The writer and the publisher: onto a disk in memory.
struct Files {
    store: Arc<Store>,
    active: HashMap<RecordingId, Active>,
    notices: Vec<mark::Notice>,
}

/// The whole program.
pub struct Product {
    pub calls: Calls,
    pub facts: Vec<Fact>,
    pub answers: Vec<(Ticket, Result<Accepted, Denied>)>,
    /// Answers to requests that concern no call yet.
    pub dn_answers: Vec<(Ticket, Result<(), Denied>)>,
    /// When each answer came.
    pub answered: Vec<Instant>,
    /// Commands that a media thread could not carry out.
    pub failures: Vec<String>,
    /// Legs that went from one media thread to another.
    pub moves: usize,
    pub store: Arc<Store>,
    pub disk: SimDisk,
    /// Every mark, for messages about red rows.
    pub marks: Vec<Mark>,
    address: SocketAddr,
    start: Instant,
    threads: Threads,
    rng: StdRng,
    agenda: BinaryHeap<Reverse<Due>>,
    last: BTreeMap<Way, Instant>,
    number: u64,
    pairs: HashMap<u16, Pair>,
    next_pair: u32,
    media: Vec<Media>,
    mixers: Vec<MixerThread>,
    recorders: Vec<RecorderThread>,
    watermark: Instant,
    out: VecDeque<Datagram>,
}

impl Product {
    /// The program at its start. SIP is taken on the first listener.
    pub fn new(options: Options, threads: Threads, start: Instant) -> Self {
        let address = options.listeners[0].address;
        let seats = Seats {
            mixers: (0..threads.mixers).map(MixerId).collect(),
            workers: (0..threads.media).map(WorkerId).collect(),
            recorders: (0..threads.recorders).map(RecorderId).collect(),
            reach: Reach::new(|_| None),
            seed: threads.seed,
        };
        let disk = SimDisk::new();
        let store = Arc::new(Store::new(Arc::new(disk.clone()), PathBuf::from("/recordings")));
        let relay = |n| relay::Options { epoch: start, epoch_ntp: 1 << 32, rng: StdRng::seed_from_u64(n) };
        let media = |n| Media { relay: Relay::new(relay(n)), ports: HashMap::new(), moved: HashMap::new() };
        let recorder = |_| RecorderThread {
            recorder: Recorder::new(recorder::Options { epoch: start, max_file_bytes: 1 << 40 }),
            sink: Files { store: store.clone(), active: HashMap::new(), notices: Vec::new() },
            taps: VecDeque::new(),
            passed: start,
        };
        let mut product = Self {
            calls: Calls::new(options, seats, start),
            facts: Vec::new(),
            answers: Vec::new(),
            dn_answers: Vec::new(),
            answered: Vec::new(),
            failures: Vec::new(),
            moves: 0,
            marks: Vec::new(),
            address,
            start,
            rng: StdRng::seed_from_u64(threads.seed),
            agenda: BinaryHeap::new(),
            last: BTreeMap::new(),
            number: 0,
            pairs: HashMap::new(),
            next_pair: 0,
            media: (0..u64::from(threads.media)).map(media).collect(),
            mixers: (0..threads.mixers).map(|n| MixerThread::new(n, threads.media, start)).collect(),
            recorders: (0..threads.recorders).map(recorder).collect(),
            watermark: start,
            out: VecDeque::new(),
            store: store.clone(),
            disk,
            threads,
        };
        product.drain(start);
        product
    }

    /// Nothing lives: no call, no leg, no recording that is not published.
    pub fn is_idle(&self) -> bool {
        let quiet = |r: &RecorderThread| r.recorder.sessions() == 0 && r.sink.active.is_empty();
        self.calls.is_empty()
            && self.media.iter().all(|m| m.relay.is_empty())
            && self.mixers.iter().all(MixerThread::is_idle)
            && self.recorders.iter().all(quiet)
            && self.pairs.values().all(|pair| matches!(pair.place, Place::Waiting))
    }

    /// What still lives, for a message.
    pub fn left(&self) -> String {
        let media: Vec<bool> = self.media.iter().map(|media| media.relay.is_empty()).collect();
        let pairs: Vec<&Pair> = self.pairs.values().filter(|pair| !matches!(pair.place, Place::Waiting)).collect();
        let pairs: Vec<String> = pairs.iter().map(|pair| format!("{} {:?}", pair.base, pair.place)).collect();
        let rooms: Vec<(usize, usize)> = self.mixers.iter().map(MixerThread::load).collect();
        let calls = self.calls.snapshot();
        format!("{calls:?}, media threads without legs: {media:?}, rooms and members: {rooms:?}, pairs: {pairs:?}")
    }

    /// A request from outside.
    pub fn request(&mut self, ticket: Ticket, request: Request, now: Instant) {
        self.input(Input::Request(ticket, Box::new(request)), now);
    }

    /// Hands something to call control.
    pub fn input(&mut self, input: Input, now: Instant) {
        let since = SignedDuration::try_from(now - self.start).unwrap();
        let wall = "2026-11-20T10:00:00Z".parse::<Timestamp>().unwrap() + since;
        self.calls.handle(input, now, wall);
        self.drain(now);
    }

    fn drain(&mut self, now: Instant) {
        while let Some(output) = self.calls.poll_output() {
            match output {
                Output::Sip(transmit) => self.out.push_back(Datagram {
                    from: transmit.flow.local,
                    to: transmit.flow.remote,
                    bytes: transmit.bytes,
                }),
                Output::Media(worker, command) => {
                    self.deliver(Way::ToMedia(usize::from(worker.0)), Parcel::Command(command), now);
                }
                Output::Mix(mixer, command) => {
                    self.deliver(Way::ToMixer(usize::from(mixer.0)), Parcel::Mix(command), now);
                }
                Output::Mark(recorder, mark) => {
                    self.marks.push(mark.clone());
                    self.deliver(Way::ToRecorder(usize::from(recorder.0)), Parcel::Mark(mark), now);
                }
                Output::Fact(fact) => self.facts.push(fact),
                Output::Answer(ticket, answer) => {
                    self.answers.push((ticket, answer));
                    self.answered.push(now);
                }
                Output::DnAnswer(ticket, answer) => self.dn_answers.push((ticket, answer)),
                Output::Resolve { .. } | Output::Drained => {}
            }
        }
    }

    fn deliver(&mut self, way: Way, parcel: Parcel, now: Instant) {
        let delay = self.threads.latency.mul_f64(self.rng.random::<f64>());
        let last = self.last.entry(way).or_insert(now);
        let at = (*last).max(now + delay);
        *last = at;
        self.number += 1;
        self.agenda.push(Reverse(Due { at, number: self.number, way, parcel }));
    }

    fn take(&mut self, way: Way, parcel: Parcel, now: Instant) {
        match (way, parcel) {
            (Way::ToMedia(worker), Parcel::Command(command)) => self.command(worker, command, now),
            (Way::ToMedia(worker), Parcel::Arrive(leg, base, paused)) => self.arrive(worker, leg, base, paused, now),
            (Way::FromMedia(worker), Parcel::Notice(notice)) => {
                self.input(Input::Media(WorkerId(worker as u8), notice), now);
            }
            (Way::ToMixer(mixer), Parcel::Mix(command)) => self.mix_command(mixer, command, now),
            (Way::FromMixer(mixer), Parcel::MixNotice(notice)) => {
                self.input(Input::Mix(MixerId(mixer as u8), notice), now);
            }
            (Way::Mixed(_, worker), Parcel::Wake) => self.take_mixed(worker, now),
            (Way::ToRecorder(recorder), Parcel::Mark(mark)) => {
                self.recorders[recorder].recorder.mark(mark);
            }
            (Way::ToRecorder(recorder), Parcel::Watermark(before)) => {
                self.recorders[recorder].recorder.watermark(before);
            }
            (Way::FromRecorder(recorder), Parcel::Recorded(notice)) => {
                self.input(Input::Record(RecorderId(recorder as u8), notice), now);
            }
            _ => unreachable!("each way has its own parcels"),
        }
    }

    // Media threads.

    fn notice(&mut self, worker: usize, notice: Notice, now: Instant) {
        self.deliver(Way::FromMedia(worker), Parcel::Notice(notice), now);
    }

    fn tell(&mut self, worker: usize, now: Instant) {
        while let Some(notice) = self.media[worker].relay.poll_notice() {
            self.notice(worker, notice, now);
        }
    }

    fn command(&mut self, worker: usize, command: Command, now: Instant) {
        if let Some(leg) = leg_of(&command)
            && let Some(to) = self.media[worker].moved.get(&leg)
        {
            return self.deliver(Way::ToMedia(*to), Parcel::Command(command), now);
        }
        let told = format!("{command:?}");
        let relay = &mut self.media[worker].relay;
        let done = match command {
            Command::BindPorts { address, count } => {
                self.bind(worker, address, count, now);
                Ok(())
            }
            Command::AddLeg(new) => {
                self.add_leg(worker, &new, now);
                Ok(())
            }
            Command::SetRemote { leg, remote } => {
                relay.set_remote(leg, *remote).map(|()| self.take_waiting(worker, leg, now))
            }
            Command::Await { leg } => relay.await_remote(leg),
            Command::Route { from, to } => relay.route(from, to).map(|()| self.read_again(worker, from, now)),
            Command::Play { leg, what } => relay.play(leg, what, now),
            Command::Digits { leg, to } => relay.digits(leg, to),
            Command::Collect { leg, digits } => relay.collect(leg, digits),
            Command::Press { leg, digit, length } => relay.press(leg, digit, length, now),
            Command::Tap { leg, recorders } => relay.tap(leg, &recorders),
            Command::TapAs { leg, name } => relay.tap_as(leg, name),
            Command::TapPlayback { leg, tapping } => relay.tap_playback(leg, tapping),
            Command::Beep { leg, every } => relay.beep(leg, every, now),
            Command::Watch { leg, timeout } => relay.watch(leg, timeout, now),
            Command::Move { leg, to } => self.move_leg(worker, leg, usize::from(to.0), now),
            Command::RemoveLeg(leg) => self.remove_leg(worker, leg, now),
            Command::Mix { leg, mixing } => {
                // What the mixer said before it let the leg go is about its time before.
                self.take_mixed(worker, now);
                self.media[worker].relay.mix(leg, mixing)
            }
            Command::Shutdown => Ok(()),
        };
        if let Err(error) = done {
            self.failures.push(format!("{told}: {error}"));
        }
        self.tell(worker, now);
    }

    fn bind(&mut self, worker: usize, address: IpAddr, count: usize, now: Instant) {
        let pairs = (0..count).map(|_| {
            self.next_pair += 1;
            let (id, port) = (PortId(self.next_pair), 10_000 + 2 * self.next_pair as u16);
            let base = SocketAddr::new(address, port);
            let pair = Pair { base, id, place: Place::Waiting, paused: None, kernel: VecDeque::new() };
            self.pairs.insert(port, pair);
            PortPair { id, rtp: base }
        });
        let pairs: Vec<PortPair> = pairs.collect();
        self.notice(worker, Notice::PortsBound(pairs), now);
    }

    fn add_leg(&mut self, worker: usize, new: &NewLeg, now: Instant) {
        let Some(pair) = self.pairs.values_mut().find(|p| p.id == new.port && matches!(p.place, Place::Waiting)) else {
            self.failures.push(format!("leg {} was given a pair that is not bound", new.leg));
            return self.notice(worker, Notice::Removed { leg: new.leg, stats: LegStats::default() }, now);
        };
        pair.kernel.clear();
        let base = pair.base.port();
        match self.media[worker].relay.add(new, now) {
            Ok(slot) => self.open(worker, slot, base),
            Err(error) => self.failures.push(format!("leg {} was not added: {error}", new.leg)),
        }
    }

    fn open(&mut self, worker: usize, slot: Slot, base: u16) {
        self.media[worker].ports.insert(slot.0, base);
        if let Some(pair) = self.pairs.get_mut(&base) {
            pair.place = Place::At(worker, slot);
        }
    }

    fn remove_leg(&mut self, worker: usize, leg: LegId, now: Instant) -> Result<(), relay::Error> {
        let mut out = [0; MAX_TRANSMIT];
        if let Some(transmit) = self.media[worker].relay.farewell(leg, now, &mut out) {
            self.send(worker, transmit.slot, transmit.channel, transmit.to, &out[..transmit.len]);
            if let Some(tap) = transmit.tap {
                self.tap(&tap, &out[TAP_AT..][tap.header.payload()], now);
            }
        }
        let slot = self.media[worker].relay.remove(leg)?;
        if let Some(base) = self.media[worker].ports.remove(&slot.0) {
            self.pairs.remove(&base);
        }
        Ok(())
    }

    fn move_leg(&mut self, worker: usize, leg: LegId, to: usize, now: Instant) -> Result<(), relay::Error> {
        let slot = self.media[worker].relay.slot(leg)?;
        if to == worker {
            self.notice(worker, Notice::Moved { leg }, now);
            return Ok(());
        }
        let until = now + ROUTE_PATIENCE;
        let base = self.media[worker].ports[&slot.0];
        let mut routed = self.pairs[&base].paused.is_some();
        for partner in self.media[worker].relay.partners(leg).collect::<Vec<_>>() {
            let partner = self.media[worker].ports[&partner.0];
            if let Some(pair) = self.pairs.get_mut(&partner) {
                pair.paused.get_or_insert(until);
            }
            routed = true;
        }
        let (slot, detached) = self.media[worker].relay.detach(leg)?;
        self.media[worker].ports.remove(&slot.0);
        if let Some(pair) = self.pairs.get_mut(&base) {
            (pair.place, pair.paused) = (Place::Moving, None);
        }
        self.media[worker].moved.insert(leg, to);
        self.moves += 1;
        self.deliver(Way::ToMedia(to), Parcel::Arrive(detached, base, routed.then_some(until)), now);
        Ok(())
    }

    fn arrive(&mut self, worker: usize, leg: Detached, base: u16, paused: Option<Instant>, now: Instant) {
        self.media[worker].moved.remove(&leg.id());
        match self.media[worker].relay.attach(leg, now) {
            Ok(slot) => {
                self.open(worker, slot, base);
                match paused {
                    Some(_) => self.pairs.entry(base).and_modify(|pair| pair.paused = paused),
                    None => {
                        self.resume(base, now);
                        self.pairs.entry(base)
                    }
                };
            }
            Err((leg, error)) => self.failures.push(format!("leg {} could not be taken over: {error}", leg.id())),
        }
        self.tell(worker, now);
    }

    fn read_again(&mut self, worker: usize, leg: LegId, now: Instant) {
        if let Ok(slot) = self.media[worker].relay.slot(leg)
            && let Some(base) = self.media[worker].ports.get(&slot.0)
        {
            self.resume(*base, now);
        }
    }

    /// Reads what waits in a pair's buffers.
    fn resume(&mut self, base: u16, now: Instant) {
        let Some(pair) = self.pairs.get_mut(&base) else { return };
        pair.paused = None;
        let Place::At(worker, slot) = pair.place else { return };
        for (channel, from, bytes) in std::mem::take(&mut pair.kernel) {
            self.relay_one(worker, slot, channel, from, &bytes, now);
        }
    }

    fn take_waiting(&mut self, worker: usize, leg: LegId, now: Instant) {
        let Some((slot, waiting)) = self.media[worker].relay.take_waiting(leg, now) else { return };
        let mut early = Vec::new();
        waiting.drain(|one| early.push((one.from, Bytes::copy_from_slice(one.datagram), one.at)));
        for (from, bytes, at) in early {
            self.relay_one(worker, slot, Channel::Rtp, from, &bytes, at);
        }
    }

    fn packet(&mut self, datagram: &Datagram, now: Instant) {
        let base = datagram.to.port() & !1;
        let channel = if datagram.to.port() == base { Channel::Rtp } else { Channel::Rtcp };
        let Some(pair) = self.pairs.get_mut(&base) else { return };
        match (pair.place, pair.paused) {
            (Place::At(worker, slot), None) => {
                self.relay_one(worker, slot, channel, datagram.from, &datagram.bytes, now);
            }
            _ => pair.kernel.push_back((channel, datagram.from, datagram.bytes.clone())),
        }
    }

    fn relay_one(
        &mut self,
        worker: usize,
        slot: Slot,
        channel: Channel,
        from: SocketAddr,
        datagram: &[u8],
        at: Instant,
    ) {
        let mut buffer = datagram.to_vec();
        let verdict = self.media[worker].relay.packet(slot, channel, from, &mut buffer, at);
        if let Some(forward) = verdict.forward {
            let bytes = self.media[worker].relay.sent(&forward, &buffer).to_vec();
            self.send(worker, forward.slot, Channel::Rtp, forward.to, &bytes);
        }
        if let Some(tap) = verdict.tap {
            self.tap(&tap, &buffer[tap.header.payload()], at);
        }
        if let Some(mix) = verdict.mix {
            self.hand_to_mixer(worker, &mix, &buffer[mix.header.payload()], at);
        }
        self.tell(worker, at);
    }

    fn tap(&mut self, tap: &Tapped, payload: &[u8], at: Instant) {
        let header = TapHeader {
            leg: tap.leg,
            arrival_ns: at.saturating_duration_since(self.start).as_nanos() as u64,
            timestamp: tap.header.timestamp,
            ssrc: tap.header.ssrc,
            sequence: tap.header.sequence,
            len: payload.len() as u16,
            payload_type: tap.header.payload_type,
            marker: tap.header.marker,
        };
        for recorder in tap.taps.recorders() {
            self.recorders[usize::from(recorder.0)].taps.push_back((header, payload.to_vec()));
        }
    }

    fn send(&mut self, worker: usize, slot: Slot, channel: Channel, to: SocketAddr, bytes: &[u8]) {
        let Some(base) = self.media[worker].ports.get(&slot.0).and_then(|base| self.pairs.get(base)) else { return };
        let port = base.base.port() + u16::from(channel == Channel::Rtcp);
        let from = SocketAddr::new(base.base.ip(), port);
        self.out.push_back(Datagram { from, to, bytes: Bytes::copy_from_slice(bytes) });
    }

    fn send_own(&mut self, worker: usize, now: Instant) {
        let mut out = [0; MAX_TRANSMIT];
        while let Some(transmit) = self.media[worker].relay.poll_transmit(now, &mut out) {
            self.send(worker, transmit.slot, transmit.channel, transmit.to, &out[..transmit.len]);
            if let Some(tap) = transmit.tap {
                self.tap(&tap, &out[TAP_AT..][tap.header.payload()], now);
            }
        }
        self.tell(worker, now);
    }

    // Recorder threads.

    fn recorder_due(&self, n: usize) -> Option<Instant> {
        let thread = &self.recorders[n];
        thread.recorder.next_commit().map(|at| at.max(thread.passed + PASS))
    }

    /// One pass, as the thread does it.
    fn pass(&mut self, n: usize, now: Instant) {
        let (epoch, thread) = (self.start, &mut self.recorders[n]);
        while let Some(due) = thread.recorder.next_commit().filter(|due| *due < now) {
            let at = due.max(thread.passed);
            thread.take_packets(epoch, at);
            thread.recorder.commit(at, &mut thread.sink);
            if thread.recorder.next_commit() == Some(due) {
                break;
            }
        }
        thread.passed = now;
        thread.take_packets(epoch, now);
        thread.recorder.commit(now, &mut thread.sink);
        for notice in std::mem::take(&mut self.recorders[n].sink.notices) {
            self.deliver(Way::FromRecorder(n), Parcel::Recorded(notice), now);
        }
    }

    fn watermark_due(&self) -> Option<Instant> {
        let busy = |r: &RecorderThread| r.recorder.sessions() > 0 || r.recorder.legs() > 0;
        let marked = self.agenda.iter().any(|due| matches!(due.0.parcel, Parcel::Mark(_)));
        (marked || self.recorders.iter().any(busy)).then_some(self.watermark + WATERMARK)
    }
}

impl RecorderThread {
    fn take_packets(&mut self, epoch: Instant, until: Instant) {
        let until = until.saturating_duration_since(epoch).as_nanos() as u64;
        while self.taps.front().is_some_and(|(header, _)| header.arrival_ns <= until) {
            if let Some((header, payload)) = self.taps.pop_front() {
                self.recorder.packet(&header, &payload);
            }
        }
    }
}

impl Node for Product {
    fn owns(&self, address: SocketAddr) -> bool {
        address == self.address || (address.ip() == self.address.ip() && address.port() >= 10_000)
    }

    fn receive(&mut self, datagram: Datagram, now: Instant) {
        if datagram.to == self.address {
            let flow = Flow::udp(datagram.to, datagram.from);
            self.input(Input::Sip(endpoint::Input::Packet { flow, bytes: datagram.bytes }), now);
        } else {
            self.packet(&datagram, now);
        }
    }

    fn poll_transmit(&mut self) -> Option<Datagram> {
        self.out.pop_front()
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        let calls = self.calls.poll_timeout().map(|(at, _)| at);
        let agenda = self.agenda.peek().map(|due| due.0.at);
        let relays = self.media.iter().filter_map(|m| m.relay.poll_timeout().map(|(at, _)| at)).min();
        let recorders = (0..self.recorders.len()).filter_map(|n| self.recorder_due(n)).min();
        let mixers = self.mixers.iter().filter_map(MixerThread::due).min();
        let paused = self.pairs.values().filter_map(|pair| pair.paused).min();
        [calls, agenda, relays, mixers, recorders, paused, self.watermark_due()].into_iter().flatten().min()
    }

    fn timeout(&mut self, now: Instant) {
        while self.agenda.peek().is_some_and(|due| due.0.at <= now) {
            let Some(Reverse(due)) = self.agenda.pop() else { break };
            self.take(due.way, due.parcel, now);
        }
        if self.calls.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.input(Input::Timeout, now);
        }
        for worker in 0..self.media.len() {
            if self.media[worker].relay.poll_timeout().is_some_and(|(at, _)| at <= now) {
                self.send_own(worker, now);
            }
        }
        for mixer in 0..self.mixers.len() {
            if self.mixers[mixer].due().is_some_and(|at| at <= now) {
                self.mixer_pass(mixer, now);
            }
        }
        let overdue = |(base, pair): (&u16, &Pair)| pair.paused.is_some_and(|at| at <= now).then_some(*base);
        for base in self.pairs.iter().filter_map(overdue).collect::<Vec<_>>() {
            self.resume(base, now);
        }
        if self.watermark_due().is_some_and(|at| at <= now) {
            self.watermark = now;
            for recorder in 0..self.recorders.len() {
                self.deliver(Way::ToRecorder(recorder), Parcel::Watermark(now), now);
            }
        }
        for recorder in 0..self.recorders.len() {
            if self.recorder_due(recorder).is_some_and(|at| at <= now) {
                self.pass(recorder, now);
            }
        }
    }
}

/// The leg that a command is for, when it goes after a leg that has moved.
fn leg_of(command: &Command) -> Option<LegId> {
    match command {
        Command::SetRemote { leg, .. }
        | Command::Await { leg }
        | Command::Play { leg, .. }
        | Command::Digits { leg, .. }
        | Command::Collect { leg, .. }
        | Command::Press { leg, .. }
        | Command::Tap { leg, .. }
        | Command::TapAs { leg, .. }
        | Command::TapPlayback { leg, .. }
        | Command::Beep { leg, .. }
        | Command::Watch { leg, .. }
        | Command::Mix { leg, .. }
        | Command::Move { leg, .. }
        | Command::Route { from: leg, .. }
        | Command::RemoveLeg(leg) => Some(*leg),
        Command::BindPorts { .. } | Command::AddLeg(_) | Command::Shutdown => None,
    }
}

impl Files {
    fn with(&mut self, id: RecordingId, act: impl FnOnce(&mut Active)) {
        act(self.active.get_mut(&id).expect("begun and not ended"));
    }
}

impl Sink for Files {
    fn begin(&mut self, files: &SessionFiles, recording: &Recording) {
        let active = Active::begin(self.store.clone(), files, recording.clone()).expect("a healthy disk");
        assert!(self.active.insert(files.id, active).is_none(), "begun twice");
        self.notices.push(mark::Notice::Begun(files.id));
    }

    fn add_file(&mut self, id: RecordingId, file: &FileSpec) {
        self.with(id, |active| active.add_file(file).unwrap());
    }

    fn frames(&mut self, id: RecordingId, file: usize, interleaved: &[i16]) {
        self.with(id, |active| active.append(file, interleaved).unwrap());
    }

    fn roll(&mut self, id: RecordingId, files: &[FileSpec]) {
        self.with(id, |active| active.roll(files).unwrap());
    }

    fn committed(&mut self, id: RecordingId) {
        self.with(id, |active| active.commit().unwrap());
    }

    fn metadata(&mut self, id: RecordingId, recording: &Recording) {
        self.with(id, |active| active.set_metadata(recording.clone()));
    }

    fn measured(&mut self, id: RecordingId, measured: mark::Measured) {
        self.notices.push(mark::Notice::Measured { id, measured });
    }

    fn end(&mut self, id: RecordingId, recording: Recording) {
        let active = self.active.remove(&id).expect("begun and not ended");
        assert_ne!(recording.recording_session.stop_cause, Some(StopCause::Crash), "nobody has crashed");
        let recording = active.close(recording).expect("a healthy disk");
        self.store.publish(recording).expect("a healthy disk");
        self.notices.push(mark::Notice::Published(id));
    }
}
