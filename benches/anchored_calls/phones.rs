//! The phones of all calls: one thread sends on a grid of a millisecond, one receives.
//!
//! Loopback charges the sender for what happens at the receiver, and waking a thread that waits there costs as much as
//! the rest of the send. How often it waits depends on chance: it does not while the other phones' packets are sent on
//! its core, which favours whoever answers at once. So it never waits while CPU time is taken, but sleeps and looks
//! after; a network card would not be woken either. Latency is taken behind that, with a receiver that waits.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use stickytape::clock;
use stickytape::net::udp::{Poller, Ready};

/// Between two packets of a phone.
const PTIME_MS: usize = 20;
/// Between two looks of a receiver that does not wait.
const DOZE: Duration = Duration::from_millis(2);
/// After it, for what is under way.
const SETTLE: Duration = Duration::from_millis(500);
/// Latency is counted in steps of 10 µs up to 200 ms.
const STEP_US: u64 = 10;
const STEPS: usize = 20_000;
/// What is lost of the packets of this time is told apart: some peers drop what comes before they are ready for it.
const START: Duration = Duration::from_secs(1);

pub struct Phones {
    sockets: Vec<UdpSocket>,
    /// What they hear is what other phones sent, and not mixed by the subject.
    unmixed: bool,
}

pub struct Report {
    pub sent: u64,
    pub lost: u64,
    /// Of these, packets of the first second. What is mixed does not tell.
    pub lost_at_start: u64,
    pub latency: [f64; 3],
    pub measured: Duration,
}

impl Phones {
    /// So many phones; 2n talks to 2n + 1, if nothing is mixed.
    pub fn bind(count: usize, unmixed: bool) -> Self {
        let phone = |_| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
            socket.set_nonblocking(true).expect("a socket");
            socket
        };
        Self { sockets: (0..count).map(phone).collect(), unmixed }
    }

    /// Each phone sends to its port of the subject from here on.
    pub fn connect(&self, anchors: &[u16]) {
        assert_eq!(anchors.len(), self.sockets.len(), "a port for each phone");
        for (phone, port) in self.sockets.iter().zip(anchors) {
            phone.connect((Ipv4Addr::LOCALHOST, *port)).expect("loopback");
        }
    }

    pub fn ports(&self) -> Vec<u16> {
        self.sockets.iter().map(|phone| phone.local_addr().expect("bound").port()).collect()
    }

    /// All phones talk for `time` after `warm_up`, and half as long again for the latency. `mark` is called at the begin
    /// (false) and end (true) of `time`.
    pub fn talk(&self, warm_up: Duration, time: Duration, mut mark: impl FnMut(bool)) -> Report {
        let begin = clock::now();
        let (waits, stop) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let receiver = scope.spawn(|| self.receive(begin, &waits, &stop));
            let sender = scope.spawn(|| self.send(begin, warm_up + time + time / 2));
            std::thread::sleep(warm_up);
            let from = clock::now();
            mark(false);
            std::thread::sleep(time);
            mark(true);
            let measured = clock::now() - from;
            waits.store(true, Ordering::Relaxed);
            let sent = sender.join().expect("the sender");
            std::thread::sleep(SETTLE);
            stop.store(true, Ordering::Relaxed);
            let heard = receiver.join().expect("the receiver");
            let latency = [0.5, 0.99, 0.999].map(|part| percentile(&heard.steps, part));
            let lost = sent.all.saturating_sub(heard.packets.all);
            let lost_at_start =
                if self.unmixed { sent.at_start.saturating_sub(heard.packets.at_start).min(lost) } else { 0 };
            Report { sent: sent.all, lost, lost_at_start, latency, measured }
        })
    }

    fn send(&self, begin: Instant, time: Duration) -> Packets {
        crate::ask_for_realtime();
        let mut datagram = [0x55; 172];
        let mut sent = Packets::default();
        for tick in 0..time.as_millis() as usize {
            let due = begin + Duration::from_millis(tick as u64);
            std::thread::sleep(due.saturating_duration_since(clock::now()));
            let round = (tick / PTIME_MS) as u32;
            for (n, phone) in self.sockets.iter().enumerate().skip(tick % PTIME_MS).step_by(PTIME_MS) {
                datagram[0] = 0x80;
                datagram[1] = 0;
                datagram[2..4].copy_from_slice(&(round as u16).to_be_bytes());
                datagram[4..8].copy_from_slice(&(round * 160).to_be_bytes());
                datagram[8..12].copy_from_slice(&(n as u32 + 1).to_be_bytes());
                let now = (clock::now() - begin).as_nanos() as u64;
                datagram[12..28].copy_from_slice(&stamp(now));
                if phone.send(&datagram).is_ok() {
                    sent.count(now);
                }
            }
        }
        sent
    }

    fn receive(&self, begin: Instant, waits: &AtomicBool, stop: &AtomicBool) -> Heard {
        crate::ask_for_realtime();
        let poller = Poller::new().expect("epoll");
        for (n, phone) in self.sockets.iter().enumerate() {
            poller.add(phone, n as u64).expect("epoll");
        }
        let mut ready = Ready::default();
        let mut heard = Heard { packets: Packets::default(), steps: vec![0; STEPS] };
        let mut buffer = [0; 2_048];
        // What is sent before the receiver waits has lain in its socket.
        let mut awake_since = None;
        while !stop.load(Ordering::Relaxed) {
            let timeout = if waits.load(Ordering::Relaxed) { Duration::from_millis(50) } else { Duration::ZERO };
            poller.wait(Some(timeout), &mut ready).expect("epoll");
            if timeout.is_zero() && ready.tokens().next().is_none() {
                std::thread::sleep(DOZE);
            }
            if !timeout.is_zero() && awake_since.is_none() {
                awake_since = Some((clock::now() - begin).as_nanos() as u64);
            }
            for token in ready.tokens() {
                let Ok(len) = self.sockets[token as usize].recv(&mut buffer) else { continue };
                // RTCP goes to another port. Silence that the subject makes up is nobody's packet.
                let Some(stamp) = buffer[..len].get(12..28) else { continue };
                if self.unmixed && !is_stamp(stamp) {
                    continue;
                }
                let sent = stamped(stamp);
                heard.packets.count(sent);
                if awake_since.is_some_and(|since| sent > since) {
                    let step = ((clock::now() - begin).as_nanos() as u64).saturating_sub(sent) / 1_000 / STEP_US;
                    heard.steps[(step as usize).min(STEPS - 1)] += 1;
                }
            }
        }
        heard
    }
}

/// How many packets.
#[derive(Default)]
struct Packets {
    all: u64,
    at_start: u64,
}

impl Packets {
    /// One that was sent so many nanoseconds after the begin.
    fn count(&mut self, sent: u64) {
        self.all += 1;
        self.at_start += u64::from(u128::from(sent) < START.as_nanos());
    }
}

/// What all phones received, and in how many steps of time.
struct Heard {
    packets: Packets,
    steps: Vec<u32>,
}

/// A number as quiet samples, four bits in each: as bytes most would be the loudest that µ-law has, and recorders of the mixed
/// conversation would do nothing but limit.
fn stamp(number: u64) -> [u8; 16] {
    std::array::from_fn(|n| 0x50 | (number >> (4 * n) & 0xf) as u8)
}

fn is_stamp(stamp: &[u8]) -> bool {
    stamp.iter().all(|sample| sample & 0xf0 == 0x50)
}

fn stamped(stamp: &[u8]) -> u64 {
    stamp.iter().rev().fold(0, |number, sample| number << 4 | u64::from(sample & 0xf))
}

fn percentile(steps: &[u32], part: f64) -> f64 {
    let all: u64 = steps.iter().map(|count| u64::from(*count)).sum();
    let wanted = (all as f64 * part) as u64;
    let mut seen = 0;
    let step = steps.iter().position(|count| {
        seen += u64::from(*count);
        seen > wanted
    });
    step.unwrap_or(STEPS) as f64 * STEP_US as f64 / 1_000.0
}
