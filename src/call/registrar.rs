//! Where the devices of DNs with `registration` are: REGISTER (RFC 3261 §10.3), and who has authenticated as which DN
//! (spec/sip.md §1).
//!
//! A binding remembers the flow that it came by, so that calls reach a device behind NAT or on its own connection (as
//! RFC 5626 §5.3 does for devices that ask for it). Path (RFC 3327) and outbound (RFC 5626) are not supported.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::core::Core;
use super::options::{Contact, Dn, Nat, Transport};
use crate::sip::auth::{Account, Demand, Verifier};
use crate::sip::endpoint::{ConnectionId, Flow, Reply, ServerTx, is_local_only};
use crate::sip::message::Request;
use crate::sip::name::Name;
use crate::sip::values::transport::{self, Asked};
use crate::sip::values::{CSeq, Contacts, NameAddr, Scheme, Uri, called_number};

/// The realm of our challenges.
const REALM: &str = "stickytape";
/// Most contacts of a DN; a further one is refused with 403.
const MAX_CONTACTS: usize = 8;
/// Most contacts of all DNs; a further one is refused with 503.
const MAX_BINDINGS: usize = 20_000;
/// Longest Contact that is kept, in bytes; a longer one is refused with 400.
const MAX_CONTACT: usize = 1_024;
/// Shortest time that a binding may ask for, in seconds; a shorter one is refused with 423 (§10.3 step 7).
const MIN_EXPIRES: u32 = 60;
/// Longest time that a binding gets, and that of one that asks for none, in seconds.
const MAX_EXPIRES: u32 = 3_600;

/// Where one contact of a DN is.
#[derive(Debug, Clone)]
struct Binding {
    /// As registered, without `expires`.
    contact: NameAddr,
    /// By which it came.
    flow: Flow,
    /// Whom it came from, behind trusted proxies.
    source: IpAddr,
    call_id: Bytes,
    seq: u32,
    expires: Instant,
    /// It has said `Allow-Events: talk`.
    talks: bool,
}

/// How a contact is called.
#[derive(Debug, Clone)]
pub(super) struct Way {
    /// The Request-URI.
    pub uri: Uri,
    pub address: SocketAddr,
    pub transport: Transport,
    /// The flow to send on; `None`: any socket of ours that reaches the address.
    pub flow: Option<Flow>,
    /// It has said `Allow-Events: talk`.
    pub talks: bool,
}

/// Bindings of DNs, and the check of their passwords.
#[derive(Debug)]
pub(super) struct Registrar {
    verifier: Verifier,
    dns: BTreeMap<String, Vec<Binding>>,
    /// When the first contact of each DN expires.
    due: BTreeSet<(Instant, String)>,
    /// Who is on which connection.
    connections: BTreeSet<(ConnectionId, String)>,
    total: usize,
    failures: u64,
}

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub flow: Flow,
    /// Behind trusted proxies, the one below them.
    pub source: IpAddr,
}

impl Registrar {
    /// Nobody is registered. `secret` is random.
    pub(super) fn new(secret: [u8; 32], now: Instant) -> Self {
        Self {
            verifier: Verifier::new(REALM, secret, now),
            dns: BTreeMap::new(),
            due: BTreeSet::new(),
            connections: BTreeSet::new(),
            total: 0,
            failures: 0,
        }
    }

    /// Contacts of all DNs.
    pub(super) fn len(&self) -> usize {
        self.total
    }

    /// Wrong passwords and user names so far.
    pub(super) fn failures(&self) -> u64 {
        self.failures
    }

    /// When the next contact expires.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Forgets what has expired.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((_, number)) = self.due.first().filter(|(at, _)| *at <= now).cloned() {
            let mut bindings = self.dns.get(&number).cloned().unwrap_or_default();
            bindings.retain(|b| b.expires > now);
            self.set(&number, bindings);
        }
    }

    /// Forgets the DNs that are no more, or have no registration any more.
    pub(super) fn retain(&mut self, is_registered: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self.dns.keys().filter(|number| !is_registered(number)).cloned().collect();
        for number in gone {
            self.set(&number, Vec::new());
        }
    }

    /// A connection has ended: its contacts are called at their own address from now on.
    pub(super) fn closed(&mut self, connection: ConnectionId) {
        let on_it = (connection, String::new())..(ConnectionId(connection.0.saturating_add(1)), String::new());
        let numbers: Vec<String> = self.connections.range(on_it).map(|(_, number)| number.clone()).collect();
        for number in numbers {
            let mut bindings = self.dns.get(&number).cloned().unwrap_or_default();
            for binding in bindings.iter_mut().filter(|b| b.flow.connection == Some(connection)) {
                binding.flow.connection = None;
            }
            self.set(&number, bindings);
        }
    }

    /// True when the DN has a contact that registered by this very flow.
    pub(super) fn knows(&self, number: &str, origin: Origin, now: Instant) -> bool {
        let is_it = |b: &&Binding| b.expires > now && b.source == origin.source && same_flow(&b.flow, &origin.flow);
        self.dns.get(number).is_some_and(|bindings| bindings.iter().find(is_it).is_some())
    }

    /// How the contacts of a DN are called now.
    pub(super) fn ways(&self, number: &str, nat: Nat, now: Instant) -> Vec<Way> {
        let bindings = self.dns.get(number).map(Vec::as_slice).unwrap_or_default();
        bindings.iter().filter(|b| b.expires > now).map(|b| b.way(nat)).collect()
    }

    /// Where the contacts of a DN registered from.
    pub(super) fn sources(&self, number: &str, now: Instant) -> Vec<IpAddr> {
        let bindings = self.dns.get(number).map(Vec::as_slice).unwrap_or_default();
        bindings.iter().filter(|b| b.expires > now).map(|b| b.source).collect()
    }

    /// True when a request carries credentials for us.
    pub(super) fn is_given(&self, request: &Request) -> bool {
        self.verifier.is_given(request)
    }

    /// Checks the credentials of a request as those of a DN.
    ///
    /// # Errors
    /// The 401 to answer, and whether the credentials were wrong.
    pub(super) fn check(
        &mut self,
        request: &Request,
        number: &str,
        account: &Account,
        now: Instant,
    ) -> Result<(), (Box<Reply>, Demand)> {
        let Err(demand) = self.verifier.check(request, number, account, now) else { return Ok(()) };
        self.failures += u64::from(demand == Demand::Wrong);
        let mut reply = Reply::new(401);
        for line in self.verifier.challenge(demand, account, now) {
            reply.headers.push_line(line);
        }
        Err((Box::new(reply), demand))
    }

    /// Carries out a REGISTER of a DN that has authenticated: all of it or nothing (§10.3 steps 6 to 8).
    fn update(&mut self, number: &str, request: &Request, origin: Origin, now: Instant) -> Reply {
        let old = self.dns.get(number).cloned().unwrap_or_default();
        let live = old.into_iter().filter(|b| b.expires > now).collect();
        let bindings = match updated(live, request, origin, now) {
            Ok(bindings) => bindings,
            Err(reply) => return *reply,
        };
        let before = self.dns.get(number).map_or(0, Vec::len);
        if bindings.len() > before && self.total - before + bindings.len() > MAX_BINDINGS {
            return Core::busy();
        }
        let mut reply = Reply::new(200);
        for binding in &bindings {
            let mut contact = binding.contact.clone();
            // Rounded up: a device that asked for 60 seconds is told 60.
            let left = binding.expires.saturating_duration_since(now).as_millis().div_ceil(1_000);
            contact.set_param(b"expires", Some(left.to_string().as_bytes()));
            reply.headers.push(Name::Contact, contact.encode());
        }
        self.set(number, bindings);
        reply
    }

    fn set(&mut self, number: &str, bindings: Vec<Binding>) {
        let old = self.dns.remove(number).unwrap_or_default();
        self.total = self.total - old.len() + bindings.len();
        if let Some(first) = old.iter().map(|b| b.expires).min() {
            self.due.remove(&(first, number.to_owned()));
        }
        for connection in old.iter().filter_map(|b| b.flow.connection) {
            self.connections.remove(&(connection, number.to_owned()));
        }
        if let Some(first) = bindings.iter().map(|b| b.expires).min() {
            self.due.insert((first, number.to_owned()));
            self.connections.extend(bindings.iter().filter_map(|b| Some((b.flow.connection?, number.to_owned()))));
            self.dns.insert(number.to_owned(), bindings);
        }
    }
}

impl Binding {
    /// Its connection while that lives; else its source where the contact cannot lead back to it (spec/sip.md §4); else
    /// what the contact says.
    fn way(&self, nat: Nat) -> Way {
        let uri = self.contact.uri();
        let home = || Way {
            uri: uri.clone(),
            address: self.flow.remote,
            transport: self.flow.transport,
            flow: Some(self.flow),
            talks: self.talks,
        };
        let transport = match transport::asked(uri) {
            Asked::Nothing => Transport::Udp,
            Asked::For(transport @ (Transport::Udp | Transport::Tcp)) => transport,
            Asked::For(Transport::Tls) | Asked::Unknown => return home(),
        };
        let Some(ip) = uri.host_ip() else { return home() };
        let by_source = match nat {
            Nat::Yes => true,
            Nat::No => false,
            Nat::Auto => ip != self.flow.remote.ip() && is_local_only(ip),
        };
        if by_source || self.flow.connection.is_some() {
            return home();
        }
        let address = SocketAddr::new(ip, uri.port().unwrap_or(transport::default_port(transport)));
        let is_its = transport == self.flow.transport && address.is_ipv4() == self.flow.local.is_ipv4();
        let flow = is_its.then_some(Flow { remote: address, connection: None, ..self.flow });
        Way { uri: uri.clone(), address, transport, flow, talks: self.talks }
    }
}

fn same_flow(a: &Flow, b: &Flow) -> bool {
    match a.transport.is_reliable() {
        true => a.connection.is_some() && a.connection == b.connection,
        false => a.transport == b.transport && a.remote == b.remote,
    }
}

/// The bindings after a REGISTER; the error is its answer.
fn updated(before: Vec<Binding>, request: &Request, origin: Origin, now: Instant) -> Result<Vec<Binding>, Box<Reply>> {
    let bad = |phrase: &'static str| Box::new(Reply { reason: phrase.into(), ..Reply::new(400) });
    let head = &request.headers;
    // The endpoint has read these before.
    let contacts = Contacts::of(head).map_err(|_| bad("Malformed Contact"))?;
    let seq = CSeq::parse(&head.get(Name::CSeq).unwrap_or_default()).map_err(|_| bad("Malformed CSeq"))?.number;
    let call_id: Bytes = head.get(Name::CallId).unwrap_or_default().into_owned().into();
    let default = head.get(Name::Expires).map_or(MAX_EXPIRES, |value| seconds(&value));
    let talks = head.values(Name::AllowEvents).any(|event| *event == *b"talk");
    let is_late = |b: &Binding| b.call_id == call_id && seq <= b.seq;
    let list = match contacts {
        Contacts::List(list) => list,
        Contacts::All if !head.has(Name::Expires) || default != 0 => return Err(bad("Contact * Without Expires 0")),
        Contacts::All if before.iter().any(is_late) => return Err(late()),
        Contacts::All => return Ok(Vec::new()),
    };
    let mut bindings = before.clone();
    for mut contact in list {
        if !matches!(contact.uri().scheme(), Scheme::Sip | Scheme::Sips) || contact.encode().len() > MAX_CONTACT {
            return Err(bad("Unusable Contact"));
        }
        let expires = contact.param(b"expires").map_or(default, seconds);
        if (1..MIN_EXPIRES).contains(&expires) {
            let mut reply = Reply::new(423);
            reply.headers.push(Name::MinExpires, MIN_EXPIRES.to_string());
            return Err(Box::new(reply));
        }
        contact.remove_param(b"expires");
        if before.iter().any(|b| is_same(&b.contact, &contact) && is_late(b)) {
            return Err(late());
        }
        bindings.retain(|b| !is_same(&b.contact, &contact));
        if expires == 0 {
            continue;
        }
        let expires = now + Duration::from_secs(expires.min(MAX_EXPIRES).into());
        bindings.push(Binding {
            contact,
            flow: origin.flow,
            source: origin.source,
            call_id: call_id.clone(),
            seq,
            expires,
            talks,
        });
        if bindings.len() > MAX_CONTACTS {
            return Err(Box::new(Reply { reason: "Too Many Contacts".into(), ..Reply::new(403) }));
        }
    }
    Ok(bindings)
}

/// The same address, or the same device (RFC 5626 §4.1) that has started again.
fn is_same(a: &NameAddr, b: &NameAddr) -> bool {
    let instance = |contact: &NameAddr| contact.param(b"+sip.instance").map(<[u8]>::to_vec);
    a.uri().equivalent(b.uri()) || instance(a).is_some_and(|own| Some(own) == instance(b))
}

/// A REGISTER that was overtaken (§10.3 step 7).
fn late() -> Box<Reply> {
    Box::new(Reply { reason: "CSeq Out Of Order".into(), ..Reply::new(500) })
}

/// Seconds of an `expires`; a malformed one counts as 3,600 (§20.19, §10.2.1.1).
fn seconds(text: &[u8]) -> u32 {
    let text = std::str::from_utf8(text).unwrap_or_default().trim();
    match text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
        // Digits that do not fit are more than the longest time.
        true => text.parse().unwrap_or(u32::MAX),
        false => MAX_EXPIRES,
    }
}

/// Answers a REGISTER.
pub(super) fn on_register(core: &mut Core, tx: ServerTx, origin: Origin, request: &Request) {
    let reply = register(core, origin, request);
    core.answer(tx, None, reply);
}

fn register(core: &mut Core, origin: Origin, request: &Request) -> Reply {
    let to = request.headers.get(Name::To).and_then(|to| NameAddr::parse(&to).ok());
    let number = to.and_then(|to| called_number(to.uri())).unwrap_or_default();
    let now = core.now;
    match core.directory.dn(&number) {
        None => Reply::new(404),
        Some(Dn { contact: Contact::At(_), .. }) => Reply::new(403),
        Some(Dn { contact: Contact::Registered(account), .. }) => {
            match core.registrar.check(request, &number, account, now) {
                Ok(()) => core.registrar.update(&number, request, origin, now),
                Err((reply, _)) => *reply,
            }
        }
    }
}
