//! Who is calling, and where to (spec/sip.md §1). Pure look-ups over the plan; nothing here sends.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::fact::{Origin, Party};
use super::options::{
    Account, Conference, Contact, Credentials, Dn, Dtmf, HoldBy, Host, MonitorConsult, Nat, PeerAddress, Plan, Route,
    RouteRecord, RouteTarget, Supervision, Transport, Trunk,
};
use super::peers::{Names, Overrides};
use super::registrar::Way;
use crate::sip::endpoint::Flow;
use crate::sip::values::Uri;

/// Without any response the next address is tried, where no trunk says otherwise.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);

/// The plan with an index.
#[derive(Debug)]
pub(super) struct Directory {
    plan: Plan,
    /// Single numbers; ranges are searched in file order.
    numbers: HashMap<String, usize>,
    ranges: Vec<usize>,
}

/// What a party is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Dn,
    Trunk,
    Other,
}

/// A party with the options that hold for it. A call keeps its own through a reload.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub class: Class,
    /// Its number, for class DN.
    pub dn: Option<String>,
    /// Its name, for class trunk.
    pub trunk: Option<Arc<str>>,
    pub record: Option<bool>,
    /// Its recordings follow it into its consultations.
    pub record_consult: bool,
    pub monitor_consult: MonitorConsult,
    /// Empty: none.
    pub pickup_group: Arc<str>,
    pub required: bool,
    pub trusted: bool,
    /// It may send REFER.
    pub transfer: bool,
    /// A 3xx of it is followed.
    pub follow_redirect: bool,
    pub nat: Nat,
    pub dtmf: Dtmf,
    pub hold: HoldBy,
    /// An IVR port.
    pub ivr: bool,
    pub overrides: Overrides,
    pub caller_id: Option<String>,
    pub attempt_timeout: Duration,
    pub max_calls: usize,
    pub credentials: Option<Arc<Credentials>>,
    /// From where requests in its dialogs are taken.
    pub sources: Arc<[IpNet]>,
}

impl Identity {
    /// How facts name it.
    pub(super) fn party(&self, number: String) -> Party {
        Party { dn: self.dn.clone(), trunk: self.trunk.as_ref().map(|trunk| trunk.to_string()), number }
    }

    fn of_dn(dn: &Dn, number: &str, names: &Names) -> Self {
        let addresses = dn.contact.fixed().map(|contact| names.addresses(&contact.host)).unwrap_or_default();
        Self {
            class: Class::Dn,
            dn: Some(number.to_owned()),
            record: dn.record,
            record_consult: dn.record_consult,
            monitor_consult: dn.monitor_consult,
            pickup_group: dn.pickup_group.clone(),
            transfer: true,
            required: dn.required,
            trusted: dn.trusted,
            // Only trunks may be refused this (spec/sip.md §1).
            follow_redirect: true,
            nat: dn.nat,
            dtmf: dn.dtmf,
            hold: dn.hold,
            ivr: dn.ivr,
            sources: addresses.into_iter().map(IpNet::from).collect(),
            ..Self::other(&[], false)
        }
    }

    fn of_trunk(trunk: &Trunk, names: &Names) -> Self {
        let addresses = trunk.addresses.iter().flat_map(|a| names.addresses(&a.host)).map(IpNet::from);
        Self {
            class: Class::Trunk,
            trunk: Some(trunk.name.clone()),
            record: trunk.record,
            required: trunk.required,
            trusted: trunk.trusted,
            transfer: trunk.transfer,
            follow_redirect: trunk.follow_redirect,
            nat: trunk.nat,
            dtmf: trunk.dtmf,
            overrides: Overrides { sip: trunk.sip_advertise, media: trunk.media_advertise },
            caller_id: trunk.caller_id.clone(),
            attempt_timeout: trunk.attempt_timeout,
            max_calls: trunk.max_calls,
            credentials: trunk.credentials.clone(),
            sources: trunk.from.iter().copied().chain(addresses).collect(),
            ..Self::other(&[], false)
        }
    }

    /// Both are one DN or one trunk; of class other: they come from one place.
    pub(super) fn is_same_party(&self, other: &Self) -> bool {
        match (&self.dn, &self.trunk) {
            (Some(dn), _) => other.dn.as_ref() == Some(dn),
            (None, Some(trunk)) => other.dn.is_none() && other.trunk.as_ref() == Some(trunk),
            (None, None) => other.dn.is_none() && other.trunk.is_none() && self.sources == other.sources,
        }
    }

    fn other(sources: &[IpAddr], follow_redirect: bool) -> Self {
        Self {
            class: Class::Other,
            dn: None,
            trunk: None,
            record: None,
            record_consult: false,
            monitor_consult: MonitorConsult::None,
            pickup_group: "".into(),
            required: false,
            trusted: false,
            transfer: follow_redirect,
            follow_redirect,
            nat: Nat::Auto,
            dtmf: Dtmf::default(),
            hold: HoldBy::Media,
            ivr: false,
            overrides: Overrides::default(),
            caller_id: None,
            attempt_timeout: ATTEMPT_TIMEOUT,
            max_calls: 0,
            credentials: None,
            sources: sources.iter().copied().map(IpNet::from).collect(),
        }
    }
}

/// One address to send the INVITE to.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub identity: Arc<Identity>,
    pub ip: IpAddr,
    pub port: u16,
    /// `None`: UDP, and TCP for what is too long.
    pub transport: Option<Transport>,
    /// User part of the Request-URI.
    pub user: Option<String>,
    /// Host of the Request-URI as configured.
    pub host: Host,
    /// Addresses of one destination have one number: they are tried until one answers anything.
    pub group: u32,
    /// A contact that has registered: those of one group are called at once.
    pub registered: Option<Registered>,
}

/// What a registration says beyond an address.
#[derive(Debug, Clone)]
pub(super) struct Registered {
    /// The Request-URI.
    pub uri: Uri,
    /// The flow to send on, if not any.
    pub flow: Option<Flow>,
    /// It has said `Allow-Events: talk`.
    pub talks: bool,
}

/// Where a call goes.
#[derive(Debug, Clone)]
pub(super) struct Destination {
    pub identity: Arc<Identity>,
    /// Addresses in order; empty when a name is not resolved (yet).
    pub targets: Vec<Target>,
    /// `record` of the route that was taken.
    pub record: Option<RouteRecord>,
    /// `required` of the route that was taken.
    pub required: bool,
    /// `origin` of the route that was taken.
    pub origin: Option<Origin>,
    /// The DN is where its registration says: [`Destination::at`] must be told.
    pub registers: bool,
}

impl Destination {
    /// Calls a DN where it has registered.
    pub(super) fn at(&mut self, ways: Vec<Way>) {
        let target = |Way { uri, address, transport, flow, talks }| Target {
            identity: self.identity.clone(),
            ip: address.ip(),
            port: address.port(),
            transport: Some(transport),
            user: self.identity.dn.clone(),
            host: Host::Ip(address.ip()),
            group: 0,
            registered: Some(Registered { uri, flow, talks }),
        };
        self.targets = ways.into_iter().map(target).collect();
    }
}

/// A 3xx or (later) Refer-To target, as its URI says it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Referred<'a> {
    pub number: &'a str,
    pub ip: Option<IpAddr>,
    pub host: &'a str,
    pub port: Option<u16>,
    pub transport: Option<Transport>,
    /// The host is one of our own addresses.
    pub ours: bool,
}

impl Directory {
    pub(super) fn new(plan: Plan) -> Self {
        let mut numbers = HashMap::new();
        let mut ranges = Vec::new();
        for (index, dn) in plan.dns.iter().enumerate() {
            match &dn.numbers {
                super::options::Numbers::One(number) => {
                    numbers.entry(number.clone()).or_insert(index);
                }
                super::options::Numbers::Range { .. } => ranges.push(index),
            }
        }
        Self { plan, numbers, ranges }
    }

    #[cfg(test)]
    fn plan(&self) -> &Plan {
        &self.plan
    }

    /// `[supervision]`.
    pub(super) fn supervision(&self) -> Supervision {
        self.plan.supervision
    }

    /// The DN of a number.
    pub(super) fn dn(&self, number: &str) -> Option<&Dn> {
        let single = self.numbers.get(number).copied();
        let ranged = || self.ranges.iter().copied().find(|i| self.plan.dns[*i].numbers.contains(number));
        single.or_else(ranged).map(|i| &self.plan.dns[i])
    }

    fn trunk(&self, name: &str) -> Option<&Trunk> {
        self.plan.trunks.iter().find(|t| &*t.name == name)
    }

    /// The phones of a DN, whatever routes say.
    pub(super) fn device(&self, names: &Names, number: &str) -> Option<Destination> {
        Some(self.to_dn(names, self.dn(number)?, number, None))
    }

    /// The account of a DN that registers.
    pub(super) fn account(&self, number: &str) -> Option<&Account> {
        match &self.dn(number)?.contact {
            Contact::Registered(account) => Some(account),
            Contact::At(_) => None,
        }
    }

    /// A DN that registers, as caller: it has proved who it is.
    pub(super) fn proved(&self, names: &Names, number: &str, source: IpAddr) -> Option<Identity> {
        let dn = self.dn(number)?;
        Some(Identity { sources: [IpNet::from(source)].into(), ..Identity::of_dn(dn, number, names) })
    }

    /// The caller: a DN by number and source, else a trunk by source, else class other under `--to` alone. `None`: 403.
    pub(super) fn identify(&self, names: &Names, source: IpAddr, user: &str, uri_host: &str) -> Option<Identity> {
        let source = source.to_canonical();
        if let Some(dn) = self.dn(user)
            && is_at(dn, names, source)
        {
            return Some(Identity::of_dn(dn, user, names));
        }
        if let Some(trunk) = self.trunk_from(names, source, uri_host) {
            return Some(Identity::of_trunk(trunk, names));
        }
        (self.plan.to_alone && source.is_loopback()).then(|| Identity::other(&[source], true))
    }

    /// The addresses that a party of a running call has now; `None`: it is not configured any more, or has no
    /// configuration (class other).
    pub(super) fn sources(&self, names: &Names, identity: &Identity) -> Option<Arc<[IpNet]>> {
        let now = match (&identity.dn, &identity.trunk) {
            (Some(number), _) => Identity::of_dn(self.dn(number)?, number, names),
            (None, Some(name)) => Identity::of_trunk(self.trunk(name)?, names),
            (None, None) => return None,
        };
        Some(now.sources)
    }

    /// Longest prefix, then the one whose name is the host of the Request-URI, then file order.
    fn trunk_from(&self, names: &Names, source: IpAddr, uri_host: &str) -> Option<&Trunk> {
        let mut best: Option<((u8, bool), &Trunk)> = None;
        for trunk in &self.plan.trunks {
            let network = trunk.from.iter().filter(|net| net.contains(&source)).map(IpNet::prefix_len).max();
            let address = trunk.addresses.iter().any(|a| names.has(&a.host, source));
            let full = IpNet::from(source).max_prefix_len();
            let Some(prefix) = network.max(address.then_some(full)) else { continue };
            let domain = trunk.addresses.iter().any(|a| a.host.to_string().eq_ignore_ascii_case(uri_host));
            if best.is_none_or(|(score, _)| (prefix, domain) > score) {
                best = Some(((prefix, domain), trunk));
            }
        }
        best.map(|(_, trunk)| trunk)
    }

    /// The numbers of dial-in rooms.
    pub(super) fn conferences(&self) -> std::collections::HashSet<String> {
        self.plan.conferences.iter().map(|room| room.number.clone()).collect()
    }

    /// The dial-in room that a caller's number leads to: its own one, or that of a route to `dn:NUMBER`. Behind `--to`.
    pub(super) fn room(&self, caller: &Identity, called: &str) -> Option<Arc<Conference>> {
        let room = |number: &str| self.plan.conferences.iter().find(|room| room.number == number).cloned();
        if self.plan.to.is_some() {
            return None;
        }
        if let Some(room) = room(called) {
            return Some(room);
        }
        if self.plan.conferences.is_empty() || self.dn(called).is_some() {
            return None;
        }
        let route = self.route_of(caller, called)?;
        match &route.to {
            RouteTarget::Dn(template) => room(&expand(route, called, template)),
            _ => None,
        }
    }

    /// The first route that takes the number.
    fn route_of(&self, caller: &Identity, called: &str) -> Option<&Route> {
        let applies = |route: &&Route| {
            route.from.as_deref().is_none_or(|from| caller.trunk.as_deref() == Some(from))
                && route.pattern.is_match(called)
        };
        self.plan.routes.iter().find(applies)
    }

    /// Where a caller's number leads: `--to`, DN, route. `None`: 404.
    pub(super) fn route(&self, names: &Names, caller: &Identity, called: &str) -> Option<Destination> {
        if self.room(caller, called).is_some() {
            // It goes before DNs and routes, and is no party that could be called.
            return None;
        }
        if let Some(to) = &self.plan.to {
            let addresses = names.addresses(&to.host);
            let identity = Identity::other(&addresses, true);
            return Some(self.destination(names, identity, called, std::slice::from_ref(to), None));
        }
        if let Some(dn) = self.dn(called) {
            return Some(self.to_dn(names, dn, called, None));
        }
        let route = self.route_of(caller, called)?;
        let number = match &route.rewrite {
            Some(template) => expand(route, called, template),
            None => called.to_owned(),
        };
        match &route.to {
            RouteTarget::Trunk(name) => {
                let trunk = self.trunk(name)?;
                let identity = Identity::of_trunk(trunk, names);
                Some(self.destination(names, identity, &number, &trunk.addresses, Some(route)))
            }
            RouteTarget::Dn(template) => {
                let number = expand(route, called, template);
                Some(self.to_dn(names, self.dn(&number)?, &number, Some(route)))
            }
            RouteTarget::Uri(address) => {
                let identity = Identity::other(&names.addresses(&address.host), false);
                Some(self.destination(names, identity, &number, std::slice::from_ref(address), Some(route)))
            }
        }
    }

    /// Where a 3xx of `referrer` leads: routed like its own INVITE when the host is ours, else dialled as written when
    /// the host is a DN's or a trunk's, or loopback under `--to`. `None`: 404.
    pub(super) fn redirect(&self, names: &Names, referrer: &Identity, to: Referred<'_>) -> Option<Destination> {
        if to.ours {
            return self.route(names, referrer, to.number);
        }
        let host = match to.ip {
            Some(ip) => Host::Ip(ip),
            None => Host::Name(to.host.to_ascii_lowercase().into()),
        };
        let ip = to.ip.or_else(|| names.addresses(&host).first().copied())?;
        let address = PeerAddress {
            user: (!to.number.is_empty()).then(|| to.number.to_owned()),
            host,
            port: to.port.unwrap_or(5060),
            transport: to.transport,
        };
        let identity = if let Some(dn) = self.dn(to.number).filter(|dn| is_at(dn, names, ip)) {
            Identity::of_dn(dn, to.number, names)
        } else if let Some(trunk) = self.trunk_from(names, ip, to.host) {
            Identity::of_trunk(trunk, names)
        } else if self.plan.dns.iter().any(|dn| is_at(dn, names, ip)) {
            Identity::other(&[ip], false)
        } else if self.plan.to.is_some() && ip.is_loopback() {
            Identity::other(&[ip], true)
        } else {
            return None;
        };
        Some(self.destination(names, identity, to.number, std::slice::from_ref(&address), None))
    }

    fn to_dn(&self, names: &Names, dn: &Dn, number: &str, route: Option<&Route>) -> Destination {
        let identity = Identity::of_dn(dn, number, names);
        let registers = matches!(dn.contact, Contact::Registered(_));
        let address = dn.contact.fixed().map(std::slice::from_ref).unwrap_or_default();
        Destination { registers, ..self.destination(names, identity, number, address, route) }
    }

    fn destination(
        &self,
        names: &Names,
        identity: Identity,
        number: &str,
        addresses: &[PeerAddress],
        route: Option<&Route>,
    ) -> Destination {
        let identity = Arc::new(identity);
        let mut targets = Vec::new();
        for address in addresses {
            for ip in names.addresses(&address.host) {
                let user = match &address.user {
                    Some(template) => Some(template.replace("{number}", number)),
                    None => (!number.is_empty()).then(|| number.to_owned()),
                };
                targets.push(Target {
                    identity: identity.clone(),
                    ip,
                    port: address.port,
                    transport: address.transport,
                    user,
                    host: address.host.clone(),
                    group: 0,
                    registered: None,
                });
            }
        }
        Destination {
            identity,
            targets,
            record: route.and_then(|r| r.record),
            required: route.is_some_and(|r| r.required),
            origin: route.and_then(|r| r.origin.clone()),
            registers: false,
        }
    }
}

/// True when the configured contact of a DN has this address.
fn is_at(dn: &Dn, names: &Names, ip: IpAddr) -> bool {
    dn.contact.fixed().is_some_and(|contact| names.has(&contact.host, ip))
}

/// `$1` … of the route's match, in a template.
fn expand(route: &Route, called: &str, template: &str) -> String {
    let mut out = String::new();
    if let Some(captures) = route.pattern.captures(called) {
        captures.expand(&braced(template), &mut out);
    }
    out
}

/// `$1x` means group 1 and an `x`; the regex crate would read a group named `1x`.
fn braced(template: &str) -> Cow<'_, str> {
    if !template.contains('$') || template.contains("${") {
        return Cow::Borrowed(template);
    }
    let mut out = String::with_capacity(template.len() + 4);
    let mut chars = template.chars().peekable();
    while let Some(c) = chars.next() {
        out.push(c);
        if c == '$' && chars.peek().is_some_and(char::is_ascii_digit) {
            out.push('{');
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                out.push(digit);
            }
            out.push('}');
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::options::Numbers;
    use regex::Regex;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn at(host: &str) -> PeerAddress {
        PeerAddress { user: None, host: Host::Ip(ip(host)), port: 5060, transport: None }
    }

    fn trunk(name: &str, address: &str, from: &[&str]) -> Trunk {
        let from = from.iter().map(|n| n.parse().unwrap()).collect();
        Trunk { addresses: vec![at(address)], from, ..Trunk::new(name) }
    }

    fn route(from: Option<&str>, pattern: &str, to: RouteTarget, rewrite: Option<&str>) -> Route {
        Route {
            from: from.map(Into::into),
            pattern: Regex::new(pattern).unwrap(),
            to,
            rewrite: rewrite.map(str::to_owned),
            record: Some(RouteRecord::Destination),
            required: true,
            origin: None,
        }
    }

    fn directory() -> Directory {
        let contact = PeerAddress { user: Some("{number}".into()), ..at("10.0.0.5") };
        Directory::new(Plan {
            trunks: vec![
                trunk("wide", "198.51.100.10", &["198.51.100.0/24"]),
                trunk("narrow", "203.0.113.1", &["198.51.100.64/26"]),
                trunk("twin", "203.0.113.1", &["192.0.2.0/24"]),
            ],
            dns: vec![Dn::new(Numbers::Range { first: 2000, last: 2499, width: 4 }, contact)],
            routes: vec![
                route(None, r"^9(\d+)$", RouteTarget::Trunk("wide".into()), Some("0$1")),
                route(Some("wide"), r"^\+4930(\d+)$", RouteTarget::Dn("$1".into()), None),
                route(None, r"^7$", RouteTarget::Uri(at("10.0.0.77")), None),
                route(None, r"^8(\d)$", RouteTarget::Dn("1$1".into()), None),
            ],
            ..Plan::default()
        })
    }

    fn who(user: &str, source: &str) -> Option<String> {
        let found = directory().identify(&Names::default(), ip(source), user, "203.0.113.1")?;
        Some(found.dn.or(found.trunk.map(|t| t.to_string())).unwrap_or("other".into()))
    }

    #[test]
    fn a_caller_is_a_dn_by_number_and_source_else_a_trunk_by_source() {
        for (user, source, expected) in [
            ("2001", "10.0.0.5", Some("2001")),
            ("2001", "::ffff:10.0.0.5", Some("2001")),
            ("2001", "10.0.0.6", None),
            ("2500", "10.0.0.5", None),
            ("2001", "198.51.100.7", Some("wide")),
            ("2001", "198.51.100.65", Some("narrow")),
            ("x", "198.51.100.10", Some("wide")),
            ("x", "203.0.113.1", Some("narrow")),
            ("x", "192.0.2.9", Some("twin")),
            ("x", "127.0.0.1", None),
        ] {
            assert_eq!(who(user, source).as_deref(), expected, "{user} from {source}");
        }
    }

    #[test]
    fn loopback_callers_are_let_in_under_to_alone_only() {
        let alone = Directory::new(Plan { to: Some(at("127.0.0.1")), to_alone: true, ..Plan::default() });
        let names = Names::default();
        assert_eq!(alone.identify(&names, ip("127.0.0.2"), "a", "b").map(|i| i.class), Some(Class::Other));
        assert!(alone.identify(&names, ip("10.0.0.1"), "a", "b").is_none());
        let configured = Directory::new(Plan { to: Some(at("127.0.0.1")), ..Plan::default() });
        assert!(configured.identify(&names, ip("127.0.0.2"), "a", "b").is_none());
    }

    fn leads(from: &str, called: &str) -> Option<String> {
        let directory = directory();
        let names = Names::default();
        let caller = directory.identify(&names, ip(from), "2001", "").unwrap();
        let destination = directory.route(&names, &caller, called)?;
        let target = destination.targets.first().unwrap();
        Some(format!("{}@{}", target.user.clone().unwrap(), target.host))
    }

    #[test]
    fn a_called_number_leads_to_a_dn_then_to_the_first_route_that_matches() {
        let some = |target: &str| Some(target.to_owned());
        assert_eq!(leads("10.0.0.5", "2002"), some("2002@10.0.0.5"));
        assert_eq!(leads("10.0.0.5", "9123"), some("0123@198.51.100.10"));
        assert_eq!(leads("198.51.100.7", "+49302003"), some("2003@10.0.0.5"));
        assert_eq!(leads("10.0.0.5", "+49302003"), None, "the route is for calls of a trunk");
        assert_eq!(leads("10.0.0.5", "7"), some("7@10.0.0.77"));
        assert_eq!(leads("10.0.0.5", "85"), None, "the DN that it names does not exist");
        assert_eq!(leads("10.0.0.5", "1"), None);
    }

    #[test]
    fn to_comes_before_everything() {
        let mut plan = directory().plan().clone();
        plan.to = Some(at("127.0.0.1"));
        let directory = Directory::new(plan);
        let names = Names::default();
        let caller = directory.identify(&names, ip("10.0.0.5"), "2001", "").unwrap();
        let destination = directory.route(&names, &caller, "2002").unwrap();
        assert_eq!(destination.targets[0].ip, ip("127.0.0.1"));
    }

    #[test]
    fn a_redirect_is_routed_when_the_host_is_ours_and_dialled_only_to_peers_otherwise() {
        let directory = directory();
        let names = Names::default();
        let caller = directory.identify(&names, ip("10.0.0.5"), "2001", "").unwrap();
        let to = |number, host: &'static str, ours| Referred {
            number,
            ip: host.parse().ok(),
            host,
            port: None,
            transport: None,
            ours,
        };
        let found = |to| directory.redirect(&names, &caller, to).map(|d| d.identity.class);
        assert_eq!(found(to("2002", "192.0.2.200", true)), Some(Class::Dn));
        assert_eq!(found(to("3000", "192.0.2.200", true)), None);
        assert_eq!(found(to("2002", "10.0.0.5", false)), Some(Class::Dn));
        assert_eq!(found(to("3000", "10.0.0.5", false)), Some(Class::Other));
        assert_eq!(found(to("3000", "198.51.100.10", false)), Some(Class::Trunk));
        assert_eq!(found(to("3000", "127.0.0.1", false)), None);
        assert_eq!(found(to("3000", "evil.example", false)), None);
    }

    #[test]
    fn a_group_reference_ends_where_its_digits_end() {
        assert_eq!(braced("a$1b$12"), "a${1}b${12}");
        assert_eq!(braced("${1}b"), "${1}b");
    }
}
