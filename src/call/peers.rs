//! The addresses that the names of the configuration resolve to, and which of our own addresses a peer sees.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::options::{Host, Listener, Plan, Transport};

/// Names are resolved again after this (spec/sip.md §1).
pub(super) const RESOLVE_EVERY: Duration = Duration::from_secs(60);

/// The routing table of the operating system: the local address from which packets to a peer leave.
///
/// A function and not an input: the lookup neither blocks nor sends, and an answer per peer cannot be known ahead. Only
/// asked for listeners on an unspecified address.
pub struct Reach(Box<dyn Fn(IpAddr) -> Option<IpAddr> + Send>);

impl Reach {
    /// Wraps a lookup. `None` means that there is no route.
    pub fn new(lookup: impl Fn(IpAddr) -> Option<IpAddr> + Send + 'static) -> Self {
        Self(Box::new(lookup))
    }

    fn local_for(&self, peer: IpAddr) -> Option<IpAddr> {
        (self.0)(peer)
    }
}

impl fmt::Debug for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reach")
    }
}

/// Resolved names. A name keeps its last addresses while the resolver fails.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: BTreeMap<Arc<str>, Vec<IpAddr>>,
    due: Option<Instant>,
}

impl Names {
    /// Forgets names that the plan no longer has and learns new ones; all are asked for at the next [`Names::poll`].
    pub(super) fn follow(&mut self, plan: &Plan, now: Instant) {
        let hosts = plan
            .trunks
            .iter()
            .flat_map(|t| t.addresses.iter())
            .chain(plan.dns.iter().filter_map(|d| d.contact.fixed()))
            .chain(plan.to.iter())
            .chain(plan.routes.iter().filter_map(|r| match &r.to {
                super::options::RouteTarget::Uri(address) => Some(address),
                _ => None,
            }));
        let mut known = BTreeMap::new();
        for address in hosts {
            if let Host::Name(name) = &address.host {
                known.insert(name.clone(), self.known.get(name).cloned().unwrap_or_default());
            }
        }
        self.due = (!known.is_empty()).then_some(now);
        self.known = known;
    }

    /// The resolver's answer; an empty one changes nothing.
    pub(super) fn resolved(&mut self, name: &str, addresses: Vec<IpAddr>) {
        if let Some(known) = self.known.get_mut(name)
            && !addresses.is_empty()
        {
            *known = addresses;
        }
    }

    /// The names to ask for now.
    pub(super) fn poll(&mut self, now: Instant) -> Vec<Arc<str>> {
        if self.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        self.due = Some(now + RESOLVE_EVERY);
        self.known.keys().cloned().collect()
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.due
    }

    /// All addresses of a host, in the resolver's order.
    pub(super) fn addresses(&self, host: &Host) -> Vec<IpAddr> {
        match host {
            Host::Ip(ip) => vec![*ip],
            Host::Name(name) => self.known.get(name).cloned().unwrap_or_default(),
        }
    }

    /// True when `ip` is an address of the host.
    pub(super) fn has(&self, host: &Host, ip: IpAddr) -> bool {
        match host {
            Host::Ip(own) => *own == ip,
            Host::Name(name) => self.known.get(name).is_some_and(|known| known.contains(&ip)),
        }
    }
}

/// Which of our sockets and addresses a peer deals with.
#[derive(Debug)]
pub(super) struct Locals {
    listeners: Vec<Listener>,
    sip_advertise: Option<IpAddr>,
    media_advertise: Option<IpAddr>,
    local_networks: Vec<IpNet>,
    reach: Reach,
    /// Answers of `reach`, newest last: a route lookup costs system calls, and a call asks about four times.
    cache: VecDeque<(IpAddr, Option<IpAddr>)>,
}

/// Our side as one peer sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Local {
    /// The socket.
    pub listener: Listener,
    /// Host and port of our Contact, Via and From.
    pub sip: SocketAddr,
    /// Where media sockets are bound.
    pub bind: IpAddr,
    /// The host in our SDP.
    pub media: IpAddr,
}

/// A trunk's own overrides.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Overrides {
    pub sip: Option<IpAddr>,
    pub media: Option<IpAddr>,
}

/// Route lookups that are remembered.
const CACHED: usize = 64;

impl Locals {
    pub(super) fn new(
        listeners: Vec<Listener>,
        sip_advertise: Option<IpAddr>,
        media_advertise: Option<IpAddr>,
        local_networks: Vec<IpNet>,
        reach: Reach,
    ) -> Self {
        Self { listeners, sip_advertise, media_advertise, local_networks, reach, cache: VecDeque::new() }
    }

    /// Forgets route lookups: interfaces may have changed.
    pub(super) fn forget(&mut self) {
        self.cache.clear();
    }

    /// The listener for requests of ours to `peer` and our addresses towards it; `None` when no socket of that
    /// transport and family is bound.
    pub(super) fn towards(&mut self, transport: Transport, peer: IpAddr, own: Overrides) -> Option<Local> {
        let fits = |l: &Listener| l.transport == transport && l.address.is_ipv4() == peer.is_ipv4();
        let candidates: Vec<Listener> = self.listeners.iter().copied().filter(fits).collect();
        let listener = match candidates.as_slice() {
            [] => return None,
            [one] => *one,
            several => {
                let route = self.route(peer);
                let exact = several.iter().find(|l| Some(l.address.ip()) == route);
                let any = several.iter().find(|l| l.address.ip().is_unspecified());
                *exact.or(any).unwrap_or(&several[0])
            }
        };
        Some(self.seen(listener, peer, own))
    }

    /// Our addresses on a given socket as `peer` sees them.
    pub(super) fn seen(&mut self, listener: Listener, peer: IpAddr, own: Overrides) -> Local {
        let bound = listener.address.ip();
        let ours = if bound.is_unspecified() { self.route(peer).unwrap_or(bound) } else { bound };
        let near = self.local_networks.iter().any(|net| net.contains(&peer));
        let shown = |override_: Option<IpAddr>, advertise: Option<IpAddr>| {
            let far = advertise.filter(|a| !near && a.is_ipv4() == peer.is_ipv4());
            override_.filter(|a| a.is_ipv4() == peer.is_ipv4()).or(far).unwrap_or(ours)
        };
        Local {
            listener,
            sip: SocketAddr::new(shown(own.sip, self.sip_advertise), listener.address.port()),
            bind: bound,
            media: shown(own.media.or(own.sip), self.media_advertise.or(self.sip_advertise)),
        }
    }

    /// True when a request to this host and port comes to us. `own`: what the peer is told besides.
    pub(super) fn is_ours(&mut self, ip: IpAddr, port: Option<u16>, own: Overrides) -> bool {
        let port = port.unwrap_or(5060);
        let at_port = self.listeners.iter().map(|l| l.address).filter(|a| a.port() == port);
        let bound: Vec<IpAddr> = at_port.map(|a| a.ip()).collect();
        if bound.is_empty() {
            return false;
        }
        let shown = [self.sip_advertise, own.sip].contains(&Some(ip)) || bound.contains(&ip);
        // A socket on an unspecified address hears every address of this machine, and only those are reached from
        // themselves.
        let any = bound.iter().any(|b| b.is_unspecified() && b.is_ipv4() == ip.is_ipv4());
        shown || (any && self.route(ip) == Some(ip))
    }

    fn route(&mut self, peer: IpAddr) -> Option<IpAddr> {
        if let Some((_, local)) = self.cache.iter().find(|(p, _)| *p == peer) {
            return *local;
        }
        let local = self.reach.local_for(peer);
        if self.cache.len() == CACHED {
            self.cache.pop_front();
        }
        self.cache.push_back((peer, local));
        local
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::options::{PeerAddress, Trunk};

    fn udp(address: &str) -> Listener {
        Listener { transport: Transport::Udp, address: address.parse().unwrap() }
    }

    fn locals(listeners: &[&str], advertise: Option<&str>, near: &[&str]) -> Locals {
        Locals::new(
            listeners.iter().map(|l| udp(l)).collect(),
            advertise.map(|a| a.parse().unwrap()),
            None,
            near.iter().map(|n| n.parse().unwrap()).collect(),
            Reach::new(|peer| match peer {
                IpAddr::V4(v4) if v4.octets()[0] == 10 => Some("10.0.0.1".parse().unwrap()),
                IpAddr::V4(_) => Some("192.0.2.1".parse().unwrap()),
                IpAddr::V6(_) => Some("2001:db8::1".parse().unwrap()),
            }),
        )
    }

    #[test]
    fn peers_in_local_networks_see_the_socket_address_and_others_what_we_advertise() {
        let mut ours = locals(&["0.0.0.0:5060"], Some("203.0.113.7"), &["10.0.0.0/8"]);
        let near = ours.towards(Transport::Udp, "10.9.9.9".parse().unwrap(), Overrides::default()).unwrap();
        assert_eq!(near.sip, "10.0.0.1:5060".parse().unwrap());
        assert_eq!(near.media, "10.0.0.1".parse::<IpAddr>().unwrap());
        let far = ours.towards(Transport::Udp, "198.51.100.1".parse().unwrap(), Overrides::default()).unwrap();
        assert_eq!(far.sip, "203.0.113.7:5060".parse().unwrap());
        assert_eq!(far.media, "203.0.113.7".parse::<IpAddr>().unwrap());
        assert!(far.bind.is_unspecified());
    }

    #[test]
    fn a_trunk_overrides_what_we_advertise() {
        let mut ours = locals(&["0.0.0.0:5060"], Some("203.0.113.7"), &["10.0.0.0/8"]);
        let own = Overrides { sip: Some("203.0.113.9".parse().unwrap()), media: None };
        let local = ours.towards(Transport::Udp, "10.9.9.9".parse().unwrap(), own).unwrap();
        assert_eq!(local.sip.ip(), "203.0.113.9".parse::<IpAddr>().unwrap());
        assert_eq!(local.media, "203.0.113.9".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn family_and_transport_choose_the_socket() {
        let mut ours = locals(&["10.0.0.1:5060", "192.0.2.1:5070", "[2001:db8::1]:5060"], None, &[]);
        let at = |ours: &mut Locals, peer: &str| {
            ours.towards(Transport::Udp, peer.parse().unwrap(), Overrides::default()).map(|l| l.sip.to_string())
        };
        assert_eq!(at(&mut ours, "10.1.1.1").as_deref(), Some("10.0.0.1:5060"));
        assert_eq!(at(&mut ours, "198.51.100.1").as_deref(), Some("192.0.2.1:5070"));
        assert_eq!(at(&mut ours, "2001:db8::9").as_deref(), Some("[2001:db8::1]:5060"));
        assert_eq!(ours.towards(Transport::Tcp, "10.1.1.1".parse().unwrap(), Overrides::default()), None);
    }

    #[test]
    fn names_are_asked_for_at_once_and_every_minute_and_keep_their_addresses_while_the_resolver_fails() {
        let now = crate::clock::now();
        let mut trunk = Trunk::new("carrier");
        let host = Host::Name("sip.example.net".into());
        trunk.addresses.push(PeerAddress { user: None, host: host.clone(), port: 5060, transport: None });
        let plan = Plan { trunks: vec![trunk], ..Plan::default() };
        let mut names = Names::default();
        names.follow(&plan, now);
        assert_eq!(names.poll(now).len(), 1);
        assert!(names.poll(now).is_empty());
        let ip: IpAddr = "198.51.100.10".parse().unwrap();
        names.resolved("sip.example.net", vec![ip]);
        names.resolved("sip.example.net", Vec::new());
        names.resolved("unknown.example.net", vec![ip]);
        assert!(names.has(&host, ip));
        assert_eq!(names.addresses(&host), vec![ip]);
        assert_eq!(names.poll(now + RESOLVE_EVERY).len(), 1);
        names.follow(&Plan::default(), now);
        assert!(names.addresses(&host).is_empty());
        assert_eq!(names.next(), None);
    }
}
