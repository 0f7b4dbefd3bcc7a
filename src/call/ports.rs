//! Port pairs that the media threads have bound ahead, per thread and address (spec/sip.md §7).
//!
//! ```text
//! BindPorts ──► asked ──PortsBound──► ready ──take──► in a leg ──RemoveLeg──► cools down in the media thread
//!                 └──PortsFailed──► (asked again after a second)
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::bridge::command::PortPair;
use crate::id::WorkerId;

/// All pools.
#[derive(Debug)]
pub(super) struct Ports {
    ahead: usize,
    workers: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    id: WorkerId,
    /// Legs that live there.
    legs: usize,
    pools: BTreeMap<IpAddr, Pool>,
}

#[derive(Debug, Default)]
struct Pool {
    /// Oldest first.
    ready: VecDeque<PortPair>,
    /// Pairs asked for and not yet answered.
    asked: usize,
    /// The range is used up: ask again then, when pairs may have cooled down.
    dry_until: Option<Instant>,
    /// That nothing is left has been said; said again only after pairs have come.
    warned: bool,
}

/// A used-up range is asked again after this.
const RETRY: Duration = Duration::from_secs(1);

/// A wish for the media threads.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bind {
    pub worker: WorkerId,
    pub address: IpAddr,
    pub count: usize,
}

impl Ports {
    /// Pools for every worker and address; `ahead` pairs are kept in each.
    pub(super) fn new(workers: &[WorkerId], addresses: &[IpAddr], ahead: usize) -> Self {
        let pools = || addresses.iter().map(|a| (*a, Pool::default())).collect();
        let workers = workers.iter().map(|id| Worker { id: *id, legs: 0, pools: pools() }).collect();
        Self { ahead: ahead.max(2), workers }
    }

    /// Pairs to ask for now. Asks in halves of what is kept, so that not every call causes a command.
    pub(super) fn poll(&mut self, now: Instant) -> Vec<Bind> {
        let mut wishes = Vec::new();
        for worker in &mut self.workers {
            for (address, pool) in &mut worker.pools {
                let coming = pool.ready.len() + pool.asked;
                if pool.dry_until.is_none_or(|until| until <= now) && coming <= self.ahead / 2 {
                    pool.dry_until = None;
                    let count = self.ahead - coming;
                    pool.asked += count;
                    wishes.push(Bind { worker: worker.id, address: *address, count });
                }
            }
        }
        wishes
    }

    /// Pairs are bound.
    pub(super) fn bound(&mut self, worker: WorkerId, pairs: Vec<PortPair>) {
        let Some(worker) = self.workers.iter_mut().find(|w| w.id == worker) else { return };
        for pair in pairs {
            if let Some(pool) = worker.pools.get_mut(&pair.rtp.ip()) {
                pool.asked = pool.asked.saturating_sub(1);
                pool.ready.push_back(pair);
                pool.warned = false;
            }
        }
    }

    /// Some could not be bound. True when that leaves a pool empty and it was not said before.
    pub(super) fn failed(&mut self, worker: WorkerId, address: IpAddr, missing: usize, now: Instant) -> bool {
        let Some(worker) = self.workers.iter_mut().find(|w| w.id == worker) else { return false };
        let Some(pool) = worker.pools.get_mut(&address) else { return false };
        pool.asked = pool.asked.saturating_sub(missing);
        pool.dry_until = Some(now + RETRY);
        let news = pool.ready.is_empty() && !pool.warned;
        pool.warned |= news;
        news
    }

    /// The worker with the fewest legs that has a ready pair for each of `addresses`.
    pub(super) fn choose(&self, addresses: &[IpAddr]) -> Option<WorkerId> {
        let workers = self.workers.iter().filter(|w| self.carries(w.id, addresses));
        workers.min_by_key(|w| w.legs).map(|w| w.id)
    }

    /// True when a worker has a ready pair for each of `addresses`.
    pub(super) fn carries(&self, worker: WorkerId, addresses: &[IpAddr]) -> bool {
        self.workers.iter().find(|w| w.id == worker).is_some_and(|w| {
            addresses.iter().all(|a| {
                let needed = addresses.iter().filter(|b| *b == a).count();
                w.pools.get(a).is_some_and(|pool| pool.ready.len() >= needed)
            })
        })
    }

    /// The oldest ready pair; it belongs to a leg from now on.
    pub(super) fn take(&mut self, worker: WorkerId, address: IpAddr) -> Option<PortPair> {
        let worker = self.workers.iter_mut().find(|w| w.id == worker)?;
        let pair = worker.pools.get_mut(&address)?.ready.pop_front()?;
        worker.legs += 1;
        Some(pair)
    }

    /// A leg goes to another worker.
    pub(super) fn moved(&mut self, from: WorkerId, to: WorkerId) {
        self.removed(from);
        if let Some(worker) = self.workers.iter_mut().find(|w| w.id == to) {
            worker.legs += 1;
        }
    }

    /// A leg of the worker was removed: its pair cools down and can be bound again later.
    pub(super) fn removed(&mut self, worker: WorkerId) {
        let Some(worker) = self.workers.iter_mut().find(|w| w.id == worker) else { return };
        worker.legs = worker.legs.saturating_sub(1);
    }

    /// When a used-up range is asked again.
    pub(super) fn next(&self) -> Option<Instant> {
        let pools = self.workers.iter().flat_map(|w| w.pools.values());
        pools.filter(|p| p.ready.len() + p.asked <= self.ahead / 2).filter_map(|p| p.dry_until).min()
    }

    /// True when every pool has pairs, or an answer that says that there are none.
    pub(super) fn settled(&self) -> bool {
        let mut pools = self.workers.iter().flat_map(|w| w.pools.values());
        pools.all(|pool| !pool.ready.is_empty() || pool.asked == 0)
    }

    /// Legs on all workers.
    pub(super) fn legs(&self) -> usize {
        self.workers.iter().map(|w| w.legs).sum()
    }

    /// Ready pairs of all pools.
    pub(super) fn ready(&self) -> usize {
        self.workers.iter().flat_map(|w| w.pools.values()).map(|p| p.ready.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PortId;

    const W0: WorkerId = WorkerId(0);
    const W1: WorkerId = WorkerId(1);

    fn any() -> IpAddr {
        "0.0.0.0".parse().unwrap()
    }

    fn pair(id: u32) -> PortPair {
        PortPair { id: PortId(id), rtp: (any(), 10_000 + 2 * id as u16).into() }
    }

    fn pairs(ids: std::ops::Range<u32>) -> Vec<PortPair> {
        ids.map(pair).collect()
    }

    #[test]
    fn pairs_are_asked_for_ahead_of_need_and_handed_out_oldest_first() {
        let mut ports = Ports::new(&[W0], &[any()], 4);
        assert_eq!(ports.poll(crate::clock::now()), vec![Bind { worker: W0, address: any(), count: 4 }]);
        assert!(ports.poll(crate::clock::now()).is_empty());
        ports.bound(W0, pairs(0..4));
        assert_eq!(ports.take(W0, any()), Some(pair(0)));
        assert!(ports.poll(crate::clock::now()).is_empty());
        assert_eq!(ports.take(W0, any()), Some(pair(1)));
        assert_eq!(ports.poll(crate::clock::now()), vec![Bind { worker: W0, address: any(), count: 2 }]);
    }

    #[test]
    fn the_pools_have_settled_when_each_has_pairs_or_an_answer() {
        let now = crate::clock::now();
        let mut ports = Ports::new(&[W0, W1], &[any()], 4);
        ports.poll(now);
        assert!(!ports.settled());
        ports.bound(W0, pairs(0..1));
        assert!(!ports.settled(), "nothing from the other thread yet");
        ports.failed(W1, any(), 4, now);
        assert!(ports.settled());
    }

    #[test]
    fn a_used_up_range_is_asked_again_after_a_second() {
        let now = crate::clock::now();
        let mut ports = Ports::new(&[W0], &[any()], 4);
        ports.poll(now);
        ports.bound(W0, pairs(0..1));
        assert!(!ports.failed(W0, any(), 3, now), "a pair is left");
        assert!(ports.poll(now).is_empty());
        assert_eq!(ports.next(), Some(now + RETRY));
        assert!(ports.take(W0, any()).is_some());
        assert_eq!(ports.take(W0, any()), None);
        assert_eq!(ports.choose(&[any()]), None);
        assert!(ports.failed(W0, any(), 0, now) && !ports.failed(W0, any(), 0, now), "said once");
        ports.removed(W0);
        assert_eq!(ports.poll(now + RETRY), vec![Bind { worker: W0, address: any(), count: 4 }]);
        assert_eq!((ports.legs(), ports.next()), (0, None));
    }

    #[test]
    fn the_least_loaded_worker_that_can_carry_both_legs_is_chosen() {
        let mut ports = Ports::new(&[W0, W1], &[any()], 4);
        ports.poll(crate::clock::now());
        ports.bound(W0, pairs(0..4));
        ports.bound(W1, pairs(10..12));
        ports.take(W0, any());
        assert_eq!(ports.choose(&[any(), any()]), Some(W1));
        ports.take(W1, any());
        assert_eq!(ports.choose(&[any(), any()]), Some(W0));
        assert_eq!(ports.ready(), 4);
    }
}
