//! ReferenceIDs make a repeated request harmless: for ten minutes it is not asked again, the first answer comes again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::call::request::{Accepted, Denied, Request};

/// How long a ReferenceID stands for its first request.
pub(super) const KEPT: Duration = Duration::from_secs(600);

/// ReferenceIDs kept at once.
pub(super) const LIMIT: usize = 65_536;

/// The answer, once there is one.
type Slot = Option<Result<Accepted, Denied>>;

/// `ThisDN` and `ReferenceID`.
type Key = (String, Arc<str>);

/// What is known of a ReferenceID.
pub(super) enum Claim {
    /// Nothing: the request is to be asked, and its answer put here.
    First(watch::Sender<Slot>, watch::Receiver<Slot>),
    /// The same request has been asked: its answer is here, or will be.
    Again(watch::Receiver<Slot>),
    /// Another request has been asked under it.
    Reused,
    /// So many are kept that this one cannot be.
    Full,
}

/// All that are kept, by requester.
#[derive(Default)]
pub(super) struct References {
    known: HashMap<Key, Entry>,
    /// By age. One that has been forgotten stays here until it is old.
    order: VecDeque<(Instant, Key)>,
}

struct Entry {
    since: Instant,
    request: Request,
    answer: watch::Receiver<Slot>,
}

impl References {
    /// Looks the ReferenceID of `request` up, and keeps it when it is new. A request without one is always the first.
    pub(super) fn claim(&mut self, request: &Request, now: Instant) -> Claim {
        self.expire(now);
        let (sender, answer) = watch::channel(None);
        let Some(key) = key(request) else { return Claim::First(sender, answer) };
        if let Some(entry) = self.known.get(&key) {
            return match entry.request == *request {
                true => Claim::Again(entry.answer.clone()),
                false => Claim::Reused,
            };
        }
        if self.order.len() >= LIMIT {
            return Claim::Full;
        }
        self.order.push_back((now, key.clone()));
        self.known.insert(key, Entry { since: now, request: request.clone(), answer: answer.clone() });
        Claim::First(sender, answer)
    }

    /// The request was not decided: the next one of the same ReferenceID is asked.
    pub(super) fn forget(&mut self, request: &Request) {
        if let Some(key) = key(request) {
            self.known.remove(&key);
        }
    }

    fn expire(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(since, _)| now.saturating_duration_since(*since) >= KEPT) {
            let Some((since, key)) = self.order.pop_front() else { return };
            // It may have been forgotten and kept anew meanwhile.
            if self.known.get(&key).is_some_and(|entry| entry.since == since) {
                self.known.remove(&key);
            }
        }
    }
}

fn key(request: &Request) -> Option<Key> {
    request.reference.clone().map(|reference| (request.this_dn.clone(), reference))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::request::Ask;
    use crate::clock;
    use crate::id::ConnId;

    fn request(dn: &str, reference: &str, ask: Ask) -> Request {
        Request { conn_id: ConnId(1), this_dn: dn.into(), reference: Some(reference.into()), ask }
    }

    #[test]
    fn a_reference_is_one_request_of_one_dn_for_ten_minutes() {
        let (mut references, now) = (References::default(), clock::now());
        let hold = request("2001", "r", Ask::HoldCall);
        assert!(matches!(references.claim(&hold, now), Claim::First(..)));
        assert!(matches!(references.claim(&hold, now), Claim::Again(_)));
        assert!(matches!(references.claim(&request("2001", "r", Ask::ReleaseCall), now), Claim::Reused));
        let elsewhere = Request { conn_id: ConnId(2), ..hold.clone() };
        assert!(matches!(references.claim(&elsewhere, now), Claim::Reused), "another call is another request");
        assert!(matches!(references.claim(&request("2002", "r", Ask::ReleaseCall), now), Claim::First(..)));
        let nearly = now + KEPT - Duration::from_millis(1);
        assert!(matches!(references.claim(&hold, nearly), Claim::Again(_)));
        assert!(matches!(references.claim(&hold, now + KEPT), Claim::First(..)));
    }

    #[test]
    fn what_was_forgotten_is_asked_again_and_kept_from_then_on() {
        let (mut references, now) = (References::default(), clock::now());
        let hold = request("2001", "r", Ask::HoldCall);
        references.claim(&hold, now);
        references.forget(&hold);
        let later = now + Duration::from_secs(300);
        assert!(matches!(references.claim(&hold, later), Claim::First(..)));
        assert!(matches!(references.claim(&hold, now + KEPT), Claim::Again(_)), "its own ten minutes");
    }

    #[test]
    fn the_table_is_bounded() {
        let (mut references, now) = (References::default(), clock::now());
        for n in 0..LIMIT {
            let claim = references.claim(&request("2001", &n.to_string(), Ask::HoldCall), now);
            assert!(matches!(claim, Claim::First(..)));
        }
        let further = request("2001", "further", Ask::HoldCall);
        assert!(matches!(references.claim(&further, now), Claim::Full));
        assert!(matches!(references.claim(&request("2001", "7", Ask::HoldCall), now), Claim::Again(_)));
        assert!(matches!(references.claim(&further, now + KEPT), Claim::First(..)));
        assert_eq!((references.known.len(), references.order.len()), (1, 1));
    }

    #[test]
    fn without_a_reference_nothing_is_kept() {
        let (mut references, now) = (References::default(), clock::now());
        let hold = Request { reference: None, ..request("2001", "", Ask::HoldCall) };
        assert!(matches!(references.claim(&hold, now), Claim::First(..)));
        assert!(matches!(references.claim(&hold, now), Claim::First(..)));
        assert!(references.order.is_empty());
    }
}
