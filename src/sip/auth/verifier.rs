//! Digest authentication as a server (RFC 8760, 7616, 3261 §22.4).
//!
//! A nonce says when it was issued and carries our signature, so that asking costs no memory: only nonces that somebody
//! has answered rightly are kept, with their count, until they expire. A nonce that had to be forgotten before is stale,
//! as is every older one: no answer is ever taken twice.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::Password;
use crate::sip::headers::Line;
use crate::sip::message::Request;
use crate::sip::name::Name;
use crate::sip::values::digest::is_equal;
use crate::sip::values::{Algorithm, Challenge, Given, Uri};

/// How long a nonce may be answered.
const LIFETIME: Duration = Duration::from_secs(300);
/// Nonces in use that are remembered, about 1 MB.
const MAX_USED: usize = 16_384;
/// Most credentials of a request that are looked at: each costs hashes.
const MAX_GIVEN: usize = 4;
/// Bytes of the signature in a nonce.
const SIGNATURE: usize = 16;

/// Asks for digests and checks them. Of one realm.
pub struct Verifier {
    realm: &'static str,
    secret: [u8; 32],
    /// Nonces tell the time since then.
    since: Instant,
    lifetime: Duration,
    max_used: usize,
    last_serial: u64,
    /// Nonces that were answered rightly, by serial number: when they were issued, and their highest count.
    used: BTreeMap<u64, (Duration, u32)>,
    /// Serial numbers up to this one are stale unless they are in `used`.
    forgotten: u64,
}

/// Whom a request must come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The password.
    pub password: Password,
    /// Algorithms that are offered and taken, most preferred first (RFC 8760 §2.3).
    pub algorithms: Vec<Algorithm>,
}

/// Why a request is not authenticated: the answer is 401 with [`Verifier::challenge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// It has no credentials for our realm.
    Missing,
    /// The password was right, the nonce is used up or too old: answer the new one.
    Stale,
    /// User name, password, URI or protection are wrong, or the nonce is none of ours.
    Wrong,
}

impl Verifier {
    /// A verifier; `secret` is random and signs its nonces.
    pub fn new(realm: &'static str, secret: [u8; 32], now: Instant) -> Self {
        Self {
            realm,
            secret,
            since: now,
            lifetime: LIFETIME,
            max_used: MAX_USED,
            last_serial: 0,
            used: BTreeMap::new(),
            forgotten: 0,
        }
    }

    /// Whether the request has credentials for our realm, right or wrong.
    pub fn is_given(&self, request: &Request) -> bool {
        self.given(request).next().is_some()
    }

    fn given(&self, request: &Request) -> impl Iterator<Item = Given> {
        let given = Given::all(&request.headers, Name::Authorization).into_iter();
        given.filter(|given| given.realm == self.realm.as_bytes()).take(MAX_GIVEN)
    }

    /// Checks the Authorization of a request.
    ///
    /// # Errors
    /// What to ask for. One right credential is enough.
    pub fn check(&mut self, request: &Request, username: &str, account: &Account, now: Instant) -> Result<(), Demand> {
        let given: Vec<Given> = self.given(request).collect();
        let mut demand = Demand::Missing;
        for given in given {
            let is_right = given.username == username.as_bytes()
                && given.algorithm.is_some_and(|algorithm| account.algorithms.contains(&algorithm))
                && is_same_uri(&given.uri, request)
                && given.is_of(account.password.reveal().as_bytes(), request.method.as_bytes());
            match self.issued(&given.nonce) {
                Some((serial, at)) if is_right => match self.count(serial, at, &given, now) {
                    true => return Ok(()),
                    false => demand = Demand::Stale,
                },
                _ if demand == Demand::Missing => demand = Demand::Wrong,
                _ => {}
            }
        }
        Err(demand)
    }

    /// WWW-Authenticate lines with a new nonce, one for each algorithm of the account.
    pub fn challenge(&mut self, demand: Demand, account: &Account, now: Instant) -> Vec<Line> {
        let nonce = self.issue(now);
        let line = |algorithm: &Algorithm| {
            let challenge = Challenge {
                realm: self.realm.as_bytes().to_vec(),
                nonce: nonce.clone().into_bytes(),
                opaque: None,
                algorithm: Some(*algorithm),
                auth: true,
                auth_int: false,
                stale: demand == Demand::Stale,
            };
            Line::new(Name::WwwAuthenticate, challenge.encode())
        };
        account.algorithms.iter().map(line).collect()
    }

    fn issue(&mut self, now: Instant) -> String {
        self.last_serial += 1;
        let at = now.saturating_duration_since(self.since).as_millis() as u64;
        let text = format!("{at:016x}{:016x}", self.last_serial);
        let signature = self.sign(&text);
        text + &signature
    }

    fn sign(&self, text: &str) -> String {
        hmac(&self.secret, text.as_bytes())[..SIGNATURE].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The serial number of a nonce of ours and when it was issued.
    fn issued(&self, nonce: &[u8]) -> Option<(u64, Duration)> {
        let nonce = std::str::from_utf8(nonce).ok()?;
        let (text, signature) = nonce.split_at_checked(32)?;
        if !is_equal(self.sign(text).as_bytes(), signature.as_bytes()) {
            return None;
        }
        let number = |range| u64::from_str_radix(text.get(range)?, 16).ok();
        Some((number(16..32)?, Duration::from_millis(number(0..16)?)))
    }

    /// Counts a right answer; false when the nonce is too old, or this count or a later one was seen.
    fn count(&mut self, serial: u64, at: Duration, given: &Given, now: Instant) -> bool {
        let now = now.saturating_duration_since(self.since);
        let lifetime = self.lifetime;
        let is_expired = |at: Duration| at + lifetime <= now;
        while let Some(first) = self.used.first_entry()
            && is_expired(first.get().0)
        {
            first.remove();
        }
        let Some(count) = given.nonce_count.filter(|count| *count > 0 && !is_expired(at)) else { return false };
        if let Some((_, seen)) = self.used.get_mut(&serial) {
            let is_next = count > *seen;
            *seen = count.max(*seen);
            return is_next;
        }
        if serial <= self.forgotten {
            return false;
        }
        if self.used.len() >= self.max_used
            && let Some((oldest, _)) = self.used.pop_first()
        {
            self.forgotten = oldest.max(self.forgotten);
            if serial <= self.forgotten {
                return false;
            }
        }
        self.used.insert(serial, (at, count));
        true
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Verifier({}, {} nonces)", self.realm, self.used.len())
    }
}

/// The digest URI must be the Request-URI (RFC 7616 §3.4.6), or one that means the same.
fn is_same_uri(given: &[u8], request: &Request) -> bool {
    let parse = |uri: &[u8]| Uri::parse(bytes::Bytes::copy_from_slice(uri)).ok();
    *given == request.uri[..]
        || parse(given).zip(parse(&request.uri)).is_some_and(|(given, asked)| given.equivalent(&asked))
}

/// HMAC-SHA-256 (RFC 2104) with a key of 32 bytes.
fn hmac(key: &[u8; 32], text: &[u8]) -> [u8; 32] {
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::auth::{Credentials, answer};
    use crate::sip::message::Response;
    use crate::sip::method::Method;

    const USER: &str = "2001";

    fn account() -> Account {
        Account { password: Password::new("secret"), algorithms: vec![Algorithm::Sha256, Algorithm::Md5] }
    }

    struct Scene {
        verifier: Verifier,
        now: Instant,
        request: Request,
    }

    impl Scene {
        fn new() -> Self {
            let now = crate::clock::now();
            let request = Request::new(Method::Register, "sip:pbx.example");
            Self { verifier: Verifier::new("stickytape", [7; 32], now), now, request }
        }

        fn challenged(&mut self) -> Response {
            let mut response = Response::new(401, "Unauthorized");
            for line in self.verifier.challenge(Demand::Missing, &account(), self.now) {
                response.headers.push_line(line);
            }
            response
        }

        /// The request with the answer of a client.
        fn answered(&self, response: &Response, password: &str) -> Request {
            let credentials = Credentials { username: USER.into(), password: Password::new(password), realm: None };
            let mut request = self.request.clone();
            for line in answer(response, &request, &credentials, false, b"c0").unwrap() {
                request.headers.push_line(line);
            }
            request
        }

        fn check(&mut self, request: &Request) -> Result<(), Demand> {
            self.verifier.check(request, USER, &account(), self.now)
        }
    }

    #[test]
    fn the_right_password_is_granted_once_for_each_count_of_a_nonce() {
        let mut scene = Scene::new();
        assert_eq!(scene.check(&scene.request.clone()), Err(Demand::Missing));
        let challenge = scene.challenged();
        let request = scene.answered(&challenge, "secret");
        assert_eq!(scene.check(&request), Ok(()));
        assert_eq!(scene.check(&request), Err(Demand::Stale), "a replay");
        let wrong = scene.answered(&challenge, "wrong");
        assert_eq!(scene.check(&wrong), Err(Demand::Wrong));
    }

    #[test]
    fn another_user_method_uri_or_realm_is_not_granted() {
        let mut scene = Scene::new();
        let challenge = scene.challenged();
        let right = scene.answered(&challenge, "secret");
        assert_eq!(scene.verifier.check(&right, "2002", &account(), scene.now), Err(Demand::Wrong));
        let invite = Request { method: Method::Invite, ..right.clone() };
        assert_eq!(scene.check(&invite), Err(Demand::Wrong));
        let elsewhere = Request { uri: "sip:other.example".into(), ..right.clone() };
        assert_eq!(scene.check(&elsewhere), Err(Demand::Wrong));
        let same = Request { uri: "sip:PBX.example".into(), ..right.clone() };
        assert_eq!(scene.check(&same), Ok(()), "hosts have no case");
        let mut other = Verifier::new("other", [7; 32], scene.now);
        assert!(!other.is_given(&right));
        assert_eq!(other.check(&right, USER, &account(), scene.now), Err(Demand::Missing));
    }

    #[test]
    fn an_algorithm_that_was_not_offered_is_not_taken() {
        let mut scene = Scene::new();
        let challenge = scene.challenged();
        let request = scene.answered(&challenge, "secret");
        let md5 = Account { algorithms: vec![Algorithm::Md5], ..account() };
        assert_eq!(scene.verifier.check(&request, USER, &md5, scene.now), Err(Demand::Wrong), "it was SHA-256");
        assert_eq!(scene.verifier.challenge(Demand::Wrong, &md5, scene.now).len(), 1);
    }

    #[test]
    fn a_nonce_is_ours_and_lives_for_five_minutes() {
        let mut scene = Scene::new();
        let challenge = scene.challenged();
        let request = scene.answered(&challenge, "secret");
        let mut stranger = Verifier::new("stickytape", [8; 32], scene.now);
        assert_eq!(stranger.check(&request, USER, &account(), scene.now), Err(Demand::Wrong));
        scene.now += LIFETIME;
        assert_eq!(scene.check(&request), Err(Demand::Stale));
        let lines = scene.verifier.challenge(Demand::Stale, &account(), scene.now);
        assert!(lines.iter().all(|line| line.raw().ends_with(b", stale=true")));
        let fresh = scene.challenged();
        let request = scene.answered(&fresh, "secret");
        scene.now += LIFETIME - Duration::from_millis(1);
        assert_eq!(scene.check(&request), Ok(()));
    }

    #[test]
    fn what_had_to_be_forgotten_is_stale_and_never_granted_again() {
        let mut scene = Scene::new();
        scene.verifier.max_used = 2;
        let challenges: Vec<Response> = (0..4).map(|_| scene.challenged()).collect();
        let requests: Vec<Request> = challenges.iter().map(|c| scene.answered(c, "secret")).collect();
        for later in [1, 2, 3] {
            assert_eq!(scene.check(&requests[later]), Ok(()));
        }
        assert_eq!(scene.verifier.used.len(), 2);
        for again in [0, 1, 2, 3] {
            assert_eq!(scene.check(&requests[again]), Err(Demand::Stale), "{again}");
        }
        scene.now += LIFETIME;
        let fresh = scene.challenged();
        let request = scene.answered(&fresh, "secret");
        assert_eq!(scene.check(&request), Ok(()));
        assert_eq!(scene.verifier.used.len(), 1, "expired ones are gone");
    }

    #[test]
    fn the_signature_is_hmac_sha_256() {
        let hex: String = hmac(&[0x0b; 32], b"Hi There").iter().map(|byte| format!("{byte:02x}")).collect();
        // Computed with Python's hmac module; RFC 4231 has no key of this length.
        assert_eq!(hex, "198a607eb44bfbc69903a0f1cf2bbdc5ba0aa3f3d9ae3c1c7a3b1696a0b68cf7");
    }

    #[test]
    fn neither_secret_nor_nonce_is_printed() {
        let mut scene = Scene::new();
        scene.challenged();
        assert_eq!(format!("{:?}", scene.verifier), "Verifier(stickytape, 0 nonces)");
    }
}
