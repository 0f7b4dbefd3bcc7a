//! The mixer threads: conferences on a 20 ms tick of their own.
//!
//! ```text
//! media-0…n ──(ring: packets of conference legs)──→ mixer ──(ring: packets for their peers)──→ media-0…n → sockets
//! ```
//!
//! A mixer makes packets and does not send them. Each leg's media thread does, as ever: so exactly one thread sends on a
//! leg, its SSRC, sequence, timestamps, digits and RTCP stay with it, and going to and from the mix hands over nothing.
//! The price is a copy and a wake-up of the media thread per tick, small beside the system call that sends.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::media::{self, MixerEnds, Priority};
use super::{realtime, ring};
use crate::bridge::command::mix::{MixCommand, MixNotice};
use crate::bridge::conference::{self, Arrived, Mixer, Output};
use crate::clock;
use crate::id::{MixerId, WorkerId};

pub mod wire;

/// Commands carried out before packets are looked at again.
const MESSAGES: usize = 256;
/// Longest wait: without rooms the rings are emptied so often.
const IDLE: Duration = Duration::from_millis(200);
/// Between two looks at memory that the rings can give back.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Upper bounds of [`Counters::lateness`] in µs; beyond the last one is one more. Fine up to 4 ms, where it is decided
/// whether a mixer is as punctual as the machine lets it be.
pub const LATENESS_US: [u64; 18] =
    [50, 100, 150, 250, 350, 500, 700, 1_000, 1_250, 1_500, 1_750, 2_000, 2_500, 3_000, 3_500, 4_000, 8_000, 16_000];

/// What one mixer thread is given at its start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name: the thread is called `mixer-N`.
    pub mixer: MixerId,
    /// The scheduling class it asks for.
    pub priority: Priority,
    /// The instant that arrival times count from; the same for every thread.
    pub epoch: Instant,
    /// Members of all its rooms together; more are refused.
    pub max_members: usize,
}

/// A mixer thread's ends of the two rings between it and a media thread.
pub struct MediaEnds {
    /// Packets of conference legs.
    pub from: ring::Consumer,
    /// What is made for them.
    pub to: ring::Producer,
}

/// The two rings between a media thread and a mixer thread, of about `bytes` bytes each at most; their memory follows
/// what waits in them.
pub fn rings(bytes: usize) -> (MixerEnds, MediaEnds) {
    let (to_mixer, from_media) = ring::tap(bytes);
    let (to_media, from_mixer) = ring::tap(bytes);
    (MixerEnds { to: to_mixer, from: from_mixer }, MediaEnds { from: from_media, to: to_media })
}

/// A running mixer thread. Dropping it stops the thread without waiting; [`Handle::join`] waits.
pub struct Handle {
    sender: Sender,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

/// Sends commands to one mixer thread; cheap to clone.
#[derive(Clone)]
pub struct Sender(mpsc::Sender<MixCommand>);

impl Sender {
    /// Queues a command and wakes the thread. Never blocks. After the thread has stopped commands are discarded.
    pub fn send(&self, command: MixCommand) {
        // A stopped thread has no rooms that a command could be about.
        let _ = self.0.send(command);
    }
}

impl Handle {
    /// As [`Sender::send`].
    pub fn send(&self, command: MixCommand) {
        self.sender.send(command);
    }

    /// Another sender to the same thread.
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// Its counters.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Sends [`MixCommand::Shutdown`] and waits until the thread has ended.
    pub fn join(mut self) {
        self.send(MixCommand::Shutdown);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.send(MixCommand::Shutdown);
    }
}

/// Totals and levels of one mixer thread, for `/metrics`; updated once per pass.
#[derive(Debug, Default)]
pub struct Counters {
    /// Open rooms.
    pub rooms: AtomicU64,
    /// Members of all rooms.
    pub members: AtomicU64,
    /// How many things are left out to keep up, 0 to 5.
    pub shedding: AtomicU64,
    /// Ticks of rooms.
    pub ticks: AtomicU64,
    /// Packets made.
    pub made: AtomicU64,
    /// Packets that came too late to be heard.
    pub late: AtomicU64,
    /// Frames in which loss was concealed.
    pub concealed: AtomicU64,
    /// Ticks left out because they came 20 ms late.
    pub skipped: AtomicU64,
    /// Ticks left out, and ticks without stretch, concealment, meters: to keep up.
    pub shed: [AtomicU64; 4],
    /// Members refused to keep up.
    pub refused: AtomicU64,
    /// Packets for media threads that found the ring full.
    pub dropped: AtomicU64,
    /// Phases by how late they began: up to each of [`LATENESS_US`], then beyond.
    pub lateness: [AtomicU64; LATENESS_US.len() + 1],
    /// All that together, in µs.
    pub late_us: AtomicU64,
    /// The fullest that a ring of packets for it has been since somebody has set this to 0, in thousandths.
    pub ring_permille: AtomicUsize,
}

/// Starts one mixer thread. `media` has its rings by `WorkerId`, `workers` the threads at their other ends. `notices` is
/// called on the mixer thread and must not block: an unbounded sender.
///
/// # Errors
/// The system gives no thread.
pub fn spawn(
    options: Options,
    media: Vec<MediaEnds>,
    workers: Vec<media::Sender>,
    notices: impl Fn(MixerId, MixNotice) + Send + 'static,
) -> io::Result<Handle> {
    let (sender, messages) = mpsc::channel();
    let counters = Arc::new(Counters::default());
    let shared = Arc::clone(&counters);
    let mixer = options.mixer;
    let run = move || {
        if options.priority == Priority::Realtime {
            realtime::ask(&format!("mixer-{}", options.mixer.0));
        }
        let core = conference::Options { mixer: options.mixer, epoch: options.epoch, max_members: options.max_members };
        let now = clock::now();
        let mut this = Loop {
            mixer: Mixer::new(core, now),
            messages,
            woken: vec![false; media.len()],
            media,
            workers,
            notices: move |notice| notices(mixer, notice),
            counters: shared,
            housekept: now,
        };
        this.run();
    };
    let thread = std::thread::Builder::new().name(format!("mixer-{}", mixer.0)).spawn(run)?;
    Ok(Handle { sender: Sender(sender), counters, thread: Some(thread) })
}

struct Loop<F> {
    mixer: Mixer,
    messages: mpsc::Receiver<MixCommand>,
    media: Vec<MediaEnds>,
    workers: Vec<media::Sender>,
    /// Workers for which something was made in this pass.
    woken: Vec<bool>,
    notices: F,
    counters: Arc<Counters>,
    housekept: Instant,
}

impl<F: Fn(MixNotice)> Loop<F> {
    fn run(&mut self) {
        while self.wait() {
            self.receive_packets();
            self.ticks();
            self.hand_over();
            while let Some(notice) = self.mixer.poll_notice() {
                (self.notices)(notice);
            }
            self.publish();
            self.housekeep();
        }
    }

    /// Waits for a command or the next tick; false when the thread is to stop.
    fn wait(&mut self) -> bool {
        let now = clock::now();
        let due = self.mixer.poll_timeout().map_or(IDLE, |at| at.saturating_duration_since(now)).min(IDLE);
        let mut message = self.messages.recv_timeout(due).map_err(|error| error == mpsc::RecvTimeoutError::Timeout);
        for left in (0..MESSAGES).rev() {
            match message {
                Ok(MixCommand::Shutdown) | Err(false) => return false,
                Ok(command) => self.mixer.command(command, clock::now()),
                Err(true) => return true,
            }
            if left == 0 {
                return true;
            }
            message = self.messages.try_recv().map_err(|error| error == mpsc::TryRecvError::Empty);
        }
        true
    }

    fn receive_packets(&mut self) {
        for (n, ends) in self.media.iter_mut().enumerate() {
            let (worker, mixer) = (WorkerId(n as u8), &mut self.mixer);
            self.counters.ring_permille.fetch_max(ends.from.fill_permille(), Relaxed);
            let mut one = |frame: ring::Frame<'_>| {
                // What the media thread had to drop is missing here, and concealed.
                let ring::Frame::Packet(header, payload) = frame else { return };
                let arrived = Arrived {
                    leg: header.leg,
                    worker,
                    arrival_ns: header.arrival_ns,
                    timestamp: header.timestamp,
                    ssrc: header.ssrc,
                    payload_type: header.payload_type,
                };
                mixer.packet(&arrived, payload);
            };
            while ends.from.pop(&mut one).is_some() {}
        }
    }

    fn ticks(&mut self) {
        let mut now = clock::now();
        while let Some(due) = self.mixer.poll_timeout().filter(|due| *due <= now) {
            self.count_lateness(now.saturating_duration_since(due));
            let Self { mixer, media, woken, .. } = self;
            mixer.tick(now, |worker, output| {
                let Some(ends) = media.get_mut(usize::from(worker.0)) else { return };
                // A full ring counts what it drops.
                match output {
                    Output::Audio(leg, packet) => _ = ends.to.push(wire::audio(leg, &packet), packet.payload),
                    Output::Digit(leg, digit, length) => _ = ends.to.push(wire::digit(leg, digit, length), &[]),
                    Output::Left(leg) => _ = ends.to.push(wire::left(leg), &[]),
                }
                woken[usize::from(worker.0)] = true;
            });
            now = clock::now();
        }
    }

    /// Before anything is told: who hears that a leg has left may rely on its media thread's knowing it.
    fn hand_over(&mut self) {
        for ((ends, worker), woken) in self.media.iter_mut().zip(&self.workers).zip(&mut self.woken) {
            if std::mem::take(woken) {
                ends.to.publish();
                worker.wake();
            }
        }
    }

    fn count_lateness(&self, late: Duration) {
        let late = late.as_micros() as u64;
        let bucket = LATENESS_US.iter().position(|bound| late <= *bound).unwrap_or(LATENESS_US.len());
        self.counters.lateness[bucket].fetch_add(1, Relaxed);
        self.counters.late_us.fetch_add(late, Relaxed);
    }

    fn publish(&self) {
        let (from, to) = (self.mixer.counters(), &self.counters);
        to.rooms.store(self.mixer.rooms() as u64, Relaxed);
        to.members.store(self.mixer.members() as u64, Relaxed);
        to.shedding.store(u64::from(self.mixer.load().level()), Relaxed);
        to.ticks.store(from.ticks, Relaxed);
        to.made.store(from.made, Relaxed);
        to.late.store(from.late, Relaxed);
        to.concealed.store(from.concealed, Relaxed);
        to.skipped.store(from.skipped, Relaxed);
        let shed = [from.shed_ticks, from.shed_stretch, from.shed_concealment, from.shed_meters];
        to.shed.iter().zip(shed).for_each(|(to, from)| to.store(from, Relaxed));
        to.refused.store(from.refused, Relaxed);
        to.dropped.store(self.media.iter().map(|ends| ends.to.dropped()).sum(), Relaxed);
    }

    fn housekeep(&mut self) {
        let now = clock::now();
        if now.saturating_duration_since(self.housekept) >= HOUSEKEEPING {
            self.housekept = now;
            self.media.iter_mut().for_each(|ends| ends.to.flush());
        }
    }
}
