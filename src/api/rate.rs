//! Requests per client: a bucket of tokens for every address, in a table of bounded size.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Requests that one client may make in a second, for as long as it likes.
pub(super) const PER_SECOND: u32 = 100;

/// Requests that it may make at once after a pause.
pub(super) const BURST: u32 = 200;

/// Clients that have a bucket of their own; all others share one.
const CLIENTS: usize = 4_096;

/// Time that one request costs.
const COST: Duration = Duration::from_nanos(1_000_000_000 / PER_SECOND as u64);

/// How far ahead of now a client's account may be.
const AHEAD: Duration = Duration::from_millis(1_000 * BURST as u64 / PER_SECOND as u64);

/// The accounts of all clients. Each is the instant at which its bucket is full again (GCRA): one that lies in the past
/// says nothing, and can be forgotten.
#[derive(Debug, Default)]
pub(super) struct Rates {
    full_at: HashMap<IpAddr, Instant>,
    /// The account of those who came when the table was full.
    others: Option<Instant>,
}

impl Rates {
    /// Counts a request; `Err` says in what time the next one may come.
    pub(super) fn take(&mut self, from: IpAddr, now: Instant) -> Result<(), Duration> {
        let client = network(from);
        if !self.full_at.contains_key(&client) && self.full_at.len() >= CLIENTS {
            self.full_at.retain(|_, full_at| *full_at > now);
            if self.full_at.len() >= CLIENTS {
                return charge(self.others.get_or_insert(now), now);
            }
        }
        charge(self.full_at.entry(client).or_insert(now), now)
    }
}

fn charge(full_at: &mut Instant, now: Instant) -> Result<(), Duration> {
    let then = (*full_at).max(now) + COST;
    let ahead = then - now;
    if ahead > AHEAD {
        return Err(ahead - AHEAD);
    }
    *full_at = then;
    Ok(())
}

/// A client of IPv6 has a whole /64 to itself.
fn network(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn allowed(rates: &mut Rates, from: IpAddr, now: Instant) -> usize {
        (0..1_000).take_while(|_| rates.take(from, now).is_ok()).count()
    }

    #[test]
    fn a_client_has_its_burst_and_then_its_rate() {
        let (mut rates, start) = (Rates::default(), clock::now());
        let from = "192.0.2.1".parse().unwrap();
        assert_eq!(allowed(&mut rates, from, start), 200);
        assert_eq!(rates.take(from, start), Err(Duration::from_millis(10)));
        assert_eq!(allowed(&mut rates, from, start + Duration::from_millis(500)), 50);
        assert_eq!(allowed(&mut rates, from, start + Duration::from_secs(60)), 200, "no more than the burst is saved");
    }

    #[test]
    fn one_client_does_not_use_up_another_ones_rate() {
        let (mut rates, now) = (Rates::default(), clock::now());
        allowed(&mut rates, "192.0.2.1".parse().unwrap(), now);
        assert!(rates.take("192.0.2.2".parse().unwrap(), now).is_ok());
        allowed(&mut rates, "2001:db8::1".parse().unwrap(), now);
        assert!(rates.take("2001:db8::2".parse().unwrap(), now).is_err(), "the same /64");
        assert!(rates.take("2001:db8:0:1::2".parse().unwrap(), now).is_ok());
        assert!(rates.take("::ffff:192.0.2.1".parse().unwrap(), now).is_err(), "the same host over IPv4");
    }

    #[test]
    fn the_table_is_bounded_and_the_rest_shares_one_account() {
        let (mut rates, now) = (Rates::default(), clock::now());
        for n in 0..CLIENTS as u32 {
            rates.take(IpAddr::V4(n.into()), now).unwrap();
        }
        let late = |n: u32| IpAddr::V4((CLIENTS as u32 + n).into());
        let shared = (0..1_000).take_while(|n| rates.take(late(*n), now).is_ok()).count();
        assert_eq!((shared, rates.full_at.len()), (200, CLIENTS));
        assert!(rates.take(late(2_000), now + Duration::from_secs(1)).is_ok(), "full buckets have been forgotten");
        assert_eq!(rates.full_at.len(), 1);
    }
}
