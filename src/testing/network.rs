//! A network of datagrams with delay, jitter, loss, reordering and duplication, in virtual time. The same seed gives the
//! same run.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Most datagrams that are remembered for [`Network::trace`]; later ones are not.
pub const MAX_TRACE: usize = 1_000_000;

/// One datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Who sends it.
    pub from: SocketAddr,
    /// Who shall get it.
    pub to: SocketAddr,
    /// Its content.
    pub bytes: Bytes,
}

/// What a path does to datagrams.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// Transit time of every datagram.
    pub delay: Duration,
    /// Up to this much more, evenly distributed.
    pub jitter: Duration,
    /// Share of datagrams that are lost, 0…1.
    pub loss: f64,
    /// Share of datagrams that arrive twice (each with its own jitter), 0…1.
    pub duplicate: f64,
    /// Whether jitter may let a datagram overtake an earlier one of the same pair of addresses.
    pub reorder: bool,
}

impl Link {
    /// Nothing lost, nothing delayed.
    pub const IDEAL: Self =
        Self { delay: Duration::ZERO, jitter: Duration::ZERO, loss: 0.0, duplicate: 0.0, reorder: false };

    /// Only delay.
    pub fn delayed(delay: Duration) -> Self {
        Self { delay, ..Self::IDEAL }
    }
}

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// On its way.
    Deliver,
    /// Lost.
    Drop,
    /// Arrives twice.
    Duplicate,
    /// Arrives this much later than its link says.
    Delay(Duration),
}

/// A datagram that was sent, for assertions and [`ladder`](super::ladder) diagrams.
#[derive(Debug, Clone)]
pub struct Traced {
    /// When it was sent.
    pub sent: Instant,
    /// The datagram.
    pub datagram: Datagram,
    /// True when it was lost.
    pub lost: bool,
}

/// A machine that takes part in a run.
pub trait Node {
    /// True when datagrams to this address are for this node.
    fn owns(&self, address: SocketAddr) -> bool;
    /// A datagram has arrived.
    fn receive(&mut self, datagram: Datagram, now: Instant);
    /// The next datagram to send; drained after every call of the other methods.
    fn poll_transmit(&mut self) -> Option<Datagram>;
    /// When [`Node::timeout`] is due.
    fn poll_timeout(&mut self) -> Option<Instant>;
    /// Time has passed.
    fn timeout(&mut self, now: Instant);
}

type FateFn = Box<dyn FnMut(&Datagram, Instant) -> Fate + Send>;

/// Datagrams under way.
pub struct Network {
    now: Instant,
    default: Link,
    links: BTreeMap<(IpAddr, IpAddr), Link>,
    fate: Option<FateFn>,
    path: Path,
    trace: Vec<Traced>,
}

impl Network {
    /// A network at `start` whose links are all `default`.
    pub fn new(start: Instant, seed: u64, default: Link) -> Self {
        Self { now: start, default, links: BTreeMap::new(), fate: None, path: Path::new(seed), trace: Vec::new() }
    }

    /// What happens from one host to another, in this direction.
    pub fn set_link(&mut self, from: IpAddr, to: IpAddr, link: Link) {
        self.links.insert((from, to), link);
    }

    /// Decides over single datagrams before their link does: "lose the first 200", "delay every ACK".
    pub fn set_fate(&mut self, fate: impl FnMut(&Datagram, Instant) -> Fate + Send + 'static) {
        self.fate = Some(Box::new(fate));
    }

    /// Virtual time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// All that was sent so far, in order, lost ones too.
    pub fn trace(&self) -> &[Traced] {
        &self.trace
    }

    /// Puts a datagram on its way at the present virtual time.
    pub fn send(&mut self, datagram: Datagram) {
        let mut link = *self.links.get(&(datagram.from.ip(), datagram.to.ip())).unwrap_or(&self.default);
        let fate = self.fate.as_mut().map_or(Fate::Deliver, |fate| fate(&datagram, self.now));
        match fate {
            Fate::Deliver => {}
            Fate::Drop => link.loss = 1.0,
            Fate::Duplicate => link.duplicate = 1.0,
            Fate::Delay(more) => link = Link { delay: link.delay + more, reorder: true, ..link },
        }
        let copies = self.path.send(datagram.clone(), &link, self.now);
        if self.trace.len() < MAX_TRACE {
            self.trace.push(Traced { sent: self.now, datagram, lost: copies == 0 });
        }
    }

    /// Runs the nodes until `until`: each datagram and each timeout at its virtual instant, datagrams first. At the end
    /// [`Network::now`] is `until`. Datagrams to addresses that nobody owns vanish.
    ///
    /// # Panics
    /// When a node keeps asking for a timeout in the past (100,000 times at one instant): it would never end.
    pub fn run(&mut self, nodes: &mut [&mut dyn Node], until: Instant) {
        let (mut last, mut repeats) = (self.now, 0);
        loop {
            for node in nodes.iter_mut() {
                while let Some(datagram) = node.poll_transmit() {
                    self.send(datagram);
                }
            }
            let timeouts: Vec<Option<Instant>> = nodes.iter_mut().map(|node| node.poll_timeout()).collect();
            let wake = timeouts.iter().flatten().min().copied();
            let Some(next) = [wake, self.path.next_arrival()].into_iter().flatten().min().filter(|at| *at <= until)
            else {
                break;
            };
            self.now = self.now.max(next);
            repeats = if self.now == last { repeats + 1 } else { 0 };
            last = self.now;
            assert!(repeats < 100_000, "virtual time stands still");
            if let Some(datagram) = self.path.receive(self.now) {
                if let Some(node) = nodes.iter_mut().find(|node| node.owns(datagram.to)) {
                    node.receive(datagram, self.now);
                }
                continue;
            }
            for (node, _) in nodes.iter_mut().zip(timeouts).filter(|(_, at)| at.is_some_and(|at| at <= self.now)) {
                node.timeout(self.now);
            }
        }
        self.now = self.now.max(until);
    }

    /// [`Network::run`] for a while.
    pub fn run_for(&mut self, nodes: &mut [&mut dyn Node], time: Duration) {
        self.run(nodes, self.now + time);
    }
}

/// Datagrams on their way, with the chance that decides over them. A phone uses it for faults of its own.
pub struct Path {
    rng: StdRng,
    queue: BinaryHeap<Reverse<Underway>>,
    sequence: u64,
    last_arrival: BTreeMap<(SocketAddr, SocketAddr), Instant>,
}

impl Path {
    /// An empty path.
    pub fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), queue: BinaryHeap::new(), sequence: 0, last_arrival: BTreeMap::new() }
    }

    /// Takes a datagram; the number of copies that will arrive.
    pub fn send(&mut self, datagram: Datagram, link: &Link, now: Instant) -> usize {
        if self.rng.random::<f64>() < link.loss {
            return 0;
        }
        let copies = if self.rng.random::<f64>() < link.duplicate { 2 } else { 1 };
        let pair = (datagram.from, datagram.to);
        for _ in 0..copies {
            let mut arrival = now + link.delay + link.jitter.mul_f64(self.rng.random::<f64>());
            if !link.reorder {
                arrival = arrival.max(*self.last_arrival.get(&pair).unwrap_or(&arrival));
                self.last_arrival.insert(pair, arrival);
            }
            self.sequence += 1;
            self.queue.push(Reverse(Underway { arrival, sequence: self.sequence, datagram: datagram.clone() }));
        }
        copies
    }

    /// When the next one arrives.
    pub fn next_arrival(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse(underway)| underway.arrival)
    }

    /// The next one that has arrived by `now`.
    pub fn receive(&mut self, now: Instant) -> Option<Datagram> {
        if self.next_arrival()? > now {
            return None;
        }
        self.queue.pop().map(|Reverse(underway)| underway.datagram)
    }
}

struct Underway {
    arrival: Instant,
    sequence: u64,
    datagram: Datagram,
}

impl Underway {
    fn key(&self) -> (Instant, u64) {
        (self.arrival, self.sequence)
    }
}

impl PartialEq for Underway {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Underway {}

impl PartialOrd for Underway {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Underway {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends a numbered datagram every 20 ms and notes what it gets.
    struct Counter {
        address: SocketAddr,
        peer: SocketAddr,
        next: Option<Instant>,
        left: u32,
        out: Vec<Datagram>,
        heard: Vec<(Instant, u32)>,
    }

    impl Counter {
        fn new(address: &str, peer: &str, next: Option<Instant>) -> Self {
            let (address, peer) = (address.parse().unwrap(), peer.parse().unwrap());
            Self { address, peer, next, left: 1_000, out: vec![], heard: vec![] }
        }
    }

    impl Node for Counter {
        fn owns(&self, address: SocketAddr) -> bool {
            address == self.address
        }

        fn receive(&mut self, datagram: Datagram, now: Instant) {
            self.heard.push((now, u32::from_be_bytes(datagram.bytes[..].try_into().unwrap())));
        }

        fn poll_transmit(&mut self) -> Option<Datagram> {
            self.out.pop()
        }

        fn poll_timeout(&mut self) -> Option<Instant> {
            self.next.filter(|_| self.left > 0)
        }

        fn timeout(&mut self, now: Instant) {
            let bytes = Bytes::copy_from_slice(&(1_000 - self.left).to_be_bytes());
            self.out.push(Datagram { from: self.address, to: self.peer, bytes });
            self.left -= 1;
            self.next = Some(now + Duration::from_millis(20));
        }
    }

    fn run(link: Link, seed: u64) -> (Instant, Vec<(Instant, u32)>, usize) {
        let start = crate::clock::now();
        let mut a = Counter::new("10.0.0.1:1", "10.0.0.2:2", Some(start));
        let mut b = Counter::new("10.0.0.2:2", "10.0.0.1:1", None);
        let mut network = Network::new(start, seed, link);
        network.run_for(&mut [&mut a, &mut b], Duration::from_secs(30));
        assert_eq!(network.now(), start + Duration::from_secs(30));
        let lost = network.trace().iter().filter(|traced| traced.lost).count();
        (start, b.heard, lost)
    }

    fn numbers(heard: &[(Instant, u32)]) -> Vec<u32> {
        heard.iter().map(|(_, number)| *number).collect()
    }

    #[test]
    fn an_ideal_link_delivers_everything_at_its_delay() {
        let (start, heard, lost) = run(Link::delayed(Duration::from_millis(7)), 1);
        assert_eq!(numbers(&heard), (0..1_000).collect::<Vec<_>>());
        assert_eq!(lost, 0);
        assert!(heard.iter().all(|(at, n)| *at == start + Duration::from_millis(7 + 20 * u64::from(*n))));
    }

    #[test]
    fn loss_and_duplication_come_at_their_rates_and_repeat_with_the_seed() {
        let link = Link { loss: 0.1, duplicate: 0.2, ..Link::IDEAL };
        let (_, heard, lost) = run(link, 5);
        assert!((50..150).contains(&lost), "{lost}");
        let kept = 1_000 - lost;
        assert!((100..300).contains(&(heard.len() - kept)), "{}", heard.len());
        assert_eq!(numbers(&heard), numbers(&run(link, 5).1));
        assert_ne!(numbers(&heard), numbers(&run(link, 6).1));
    }

    #[test]
    fn jitter_reorders_only_where_it_may() {
        let link = Link { jitter: Duration::from_millis(80), reorder: true, ..Link::IDEAL };
        let (_, heard, _) = run(link, 5);
        assert!(!numbers(&heard).is_sorted());
        let (_, heard, _) = run(Link { reorder: false, ..link }, 5);
        assert!(numbers(&heard).is_sorted());
    }

    #[test]
    fn single_datagrams_can_be_told_their_fate() {
        let start = crate::clock::now();
        let mut a = Counter::new("10.0.0.1:1", "10.0.0.2:2", Some(start));
        let mut b = Counter::new("10.0.0.2:2", "10.0.0.1:1", None);
        let mut network = Network::new(start, 1, Link::IDEAL);
        network.set_fate(|datagram, _| match datagram.bytes[3] {
            0 => Fate::Drop,
            1 => Fate::Duplicate,
            2 => Fate::Delay(Duration::from_millis(30)),
            _ => Fate::Deliver,
        });
        network.run_for(&mut [&mut a, &mut b], Duration::from_millis(80));
        assert_eq!(numbers(&b.heard), [1, 1, 3, 2, 4]);
    }
}
