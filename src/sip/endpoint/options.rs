//! How the endpoint behaves.

use std::net::SocketAddr;
use std::time::Duration;

use super::Transport;
use crate::sip::method::Method;

/// One of our listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// Its transport.
    pub transport: Transport,
    /// Its address as bound.
    pub local: SocketAddr,
}

/// How the endpoint behaves; the same for every dialog.
#[derive(Debug, Clone)]
pub struct Options {
    /// User-Agent in requests, Server in responses.
    pub user_agent: String,
    /// Methods that we take; others that we know are answered 405 with this list in Allow.
    pub allow: Vec<Method>,
    /// Option tags in Supported; a Require beyond them is answered 420. With `replaces` a Replaces that breaks RFC 3891 §3
    /// is answered 400, so that an [`super::Event::Invite`] has at most one, and it is well-formed; with `join` so is a Join
    /// (RFC 3911 §4).
    pub supported: Vec<&'static str>,
    /// Event packages that our user tells the state of: their SUBSCRIBEs come as [`super::Event::Subscribe`], those of others
    /// get 489. Empty: SUBSCRIBE, where it is allowed, is a request as any other.
    pub packages: Vec<&'static str>,
    /// Our listeners, for messages that change the transport (§18.1.1, a Contact with `transport=tcp`).
    pub listeners: Vec<Listener>,
    /// T1 (§17.1.1.1): the round-trip estimate, 500 ms.
    pub t1: Duration,
    /// T2: the longest interval between retransmissions, 4 s.
    pub t2: Duration,
    /// T4: how long a message stays in the network, 5 s.
    pub t4: Duration,
    /// Transactions at once, client and server together, those that only absorb repeats too: a call over UDP leaves
    /// three of them for 32 s, so 400,000 carry 4,000 calls per second. At the limit: 503 with Retry-After to requests that begin
    /// something, [`super::Refused::Full`] to us.
    pub max_transactions: usize,
    /// Dialogs at once, early ones too. At the limit as above.
    pub max_dialogs: usize,
    /// Retry-After of those 503.
    pub retry_after: Duration,
    /// Seed of branches, tags, Call-IDs, Contact tokens.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            user_agent: concat!("stickytape/", env!("CARGO_PKG_VERSION")).to_owned(),
            allow: vec![
                Method::Invite,
                Method::Ack,
                Method::Cancel,
                Method::Bye,
                Method::Options,
                Method::Update,
                Method::Info,
            ],
            supported: vec![],
            packages: vec![],
            listeners: vec![],
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            t4: Duration::from_secs(5),
            max_transactions: 400_000,
            max_dialogs: 40_000,
            retry_after: Duration::from_secs(5),
            seed: 0,
        }
    }
}
