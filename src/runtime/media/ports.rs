//! One media thread's part of the port range: which pairs can be bound now, oldest first after their cool-down.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// Even ports by address; each address has the whole range of its own.
#[derive(Debug)]
pub struct Ports {
    range: RangeInclusive<u16>,
    cooldown: Duration,
    free: HashMap<IpAddr, VecDeque<Free>>,
}

#[derive(Debug, Clone, Copy)]
struct Free {
    port: u16,
    /// `None`: never used.
    from: Option<Instant>,
}

impl Ports {
    /// All pairs that lie wholly in `range`.
    pub fn new(range: RangeInclusive<u16>, cooldown: Duration) -> Self {
        Self { range, cooldown, free: HashMap::new() }
    }

    /// Pairs of `address` that are not taken, whether cool or not.
    pub fn left(&mut self, address: IpAddr) -> usize {
        self.queue(address).len()
    }

    /// The oldest free pair that has cooled down.
    pub fn take(&mut self, address: IpAddr, now: Instant) -> Option<u16> {
        let queue = self.queue(address);
        let cool = queue.front().is_some_and(|free| free.from.is_none_or(|from| from <= now));
        if cool { queue.pop_front().map(|free| free.port) } else { None }
    }

    /// A pair was closed, or could not be bound: it rests before it is tried again.
    pub fn give_back(&mut self, address: IpAddr, port: u16, now: Instant) {
        let from = Some(now + self.cooldown);
        self.queue(address).push_back(Free { port, from });
    }

    fn queue(&mut self, address: IpAddr) -> &mut VecDeque<Free> {
        let range = self.range.clone();
        self.free.entry(address).or_insert_with(|| {
            let whole = |port: &u16| port.is_multiple_of(2) && port.checked_add(1).is_some_and(|p| range.contains(&p));
            range.clone().filter(whole).map(|port| Free { port, from: None }).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

    #[test]
    fn only_whole_pairs_on_even_ports_are_given_out() {
        let now = crate::clock::now();
        let mut ports = Ports::new(10_001..=10_006, Duration::ZERO);
        let mut all = vec![];
        while let Some(port) = ports.take(ANY, now) {
            all.push(port);
        }
        assert_eq!(all, [10_002, 10_004]);
        let mut top = Ports::new(65_533..=65_535, Duration::ZERO);
        assert_eq!((top.take(ANY, now), top.take(ANY, now)), (Some(65_534), None));
    }

    #[test]
    fn a_closed_pair_comes_back_last_and_not_before_its_cool_down() {
        let now = crate::clock::now();
        let mut ports = Ports::new(10_000..=10_003, Duration::from_secs(2));
        assert_eq!(ports.take(ANY, now), Some(10_000));
        ports.give_back(ANY, 10_000, now);
        assert_eq!(ports.take(ANY, now), Some(10_002));
        assert_eq!(ports.take(ANY, now + Duration::from_millis(1_999)), None);
        assert_eq!(ports.take(ANY, now + Duration::from_secs(2)), Some(10_000));
        assert_eq!(ports.left(ANY), 0);
    }

    #[test]
    fn an_empty_part_has_no_pairs() {
        let mut ports = Ports::new(RangeInclusive::new(1, 0), Duration::ZERO);
        assert_eq!(ports.take(ANY, crate::clock::now()), None);
    }
}
