//! Who may call, and where to: DNs, trunks, routes, rooms.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use regex::Regex;

use super::{Account, Credentials, DefaultOwner, Nat, Transport};
use crate::call::fact::Origin;
use crate::call::request::{MonitorMode, MonitorScope};

/// DNs, trunks, routes and `--to`: who may call, and where to.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// `[[trunk]]` in file order.
    pub trunks: Vec<Trunk>,
    /// `[[dn]]` in file order.
    pub dns: Vec<Dn>,
    /// `[[route]]` in file order.
    pub routes: Vec<Route>,
    /// `[[conference]]` in file order.
    pub conferences: Vec<Arc<Conference>>,
    /// `[supervision]`.
    pub supervision: Supervision,
    /// `--to`: before all routes.
    pub to: Option<PeerAddress>,
    /// `--to` alone: no configuration was read. Loopback callers are let in, REFER and redirects are allowed.
    pub to_alone: bool,
}

/// A peer's host, port and transport as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerAddress {
    /// The user part, for a DN's contact; `{number}` stands for the number. `None`: the dialled number.
    pub user: Option<String>,
    /// Address or name.
    pub host: Host,
    /// Port; 5060 when none was written.
    pub port: u16,
    /// `transport=`; `None`: UDP (and TCP for a request over 1,300 bytes).
    pub transport: Option<Transport>,
}

/// A host in an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A literal address.
    Ip(IpAddr),
    /// A name for the system's resolver, in lower case.
    Name(Arc<str>),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// `[[trunk]]`.
#[derive(Debug, Clone)]
pub struct Trunk {
    /// `name`, unique.
    pub name: Arc<str>,
    /// `address`: one or several, tried in order; empty: nobody can be called through it.
    pub addresses: Vec<PeerAddress>,
    /// `from`: who may call in through it.
    pub from: Vec<IpNet>,
    /// `username` and `password-file`.
    pub credentials: Option<Arc<Credentials>>,
    /// `record`; `None`: not written.
    pub record: Option<bool>,
    /// `required`.
    pub required: bool,
    /// `trusted`: identity headers pass.
    pub trusted: bool,
    /// `transfer`: may send REFER.
    pub transfer: bool,
    /// `follow-redirect`.
    pub follow_redirect: bool,
    /// `caller-id`: the number in From of calls through it, without a name and without P-Asserted-Identity; `None`:
    /// the caller's own passes.
    pub caller_id: Option<String>,
    /// `attempt-timeout`: without any response, the next address is tried.
    pub attempt_timeout: Duration,
    /// `dtmf`.
    pub dtmf: Dtmf,
    /// `nat`.
    pub nat: Nat,
    /// `max-calls`; 0: no limit of its own.
    pub max_calls: usize,
    /// Our SIP address for this trunk, overriding `[sip] advertise` and `local-networks`.
    pub sip_advertise: Option<IpAddr>,
    /// Our media address for this trunk, overriding `[media] advertise` and `local-networks`.
    pub media_advertise: Option<IpAddr>,
}

impl Trunk {
    /// A trunk with the defaults of spec/interface.md §2 and no address.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            addresses: Vec::new(),
            from: Vec::new(),
            credentials: None,
            record: None,
            required: false,
            trusted: false,
            transfer: false,
            follow_redirect: false,
            caller_id: None,
            attempt_timeout: Duration::from_secs(4),
            dtmf: Dtmf::Rfc4733,
            nat: Nat::Auto,
            max_calls: 0,
            sip_advertise: None,
            media_advertise: None,
        }
    }
}

/// A secret of the configuration: it prints nothing of itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: String) -> Self {
        Self(secret)
    }

    /// The secret itself, to compute or compare with.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// `[[dn]]`: one number or a range of equally configured ones.
#[derive(Debug, Clone)]
pub struct Dn {
    /// `number`.
    pub numbers: Numbers,
    /// Where its device is.
    pub contact: Contact,
    /// `role`.
    pub role: DnRole,
    /// `record`; `None`: not written.
    pub record: Option<bool>,
    /// `record-consult-calls`: its recordings follow it into its consultations.
    pub record_consult: bool,
    /// `monitor-consult-calls`.
    pub monitor_consult: MonitorConsult,
    /// `intrusion`: it may be joined in a call.
    pub intrusion: bool,
    /// `pickup-group`; empty: none.
    pub pickup_group: Arc<str>,
    /// `required`.
    pub required: bool,
    /// `trusted`: identity headers pass.
    pub trusted: bool,
    /// `dtmf`.
    pub dtmf: Dtmf,
    /// `nat`.
    pub nat: Nat,
    /// `hold`.
    pub hold: HoldBy,
    /// `ivr`: an IVR port, whose calls belong to the IVR interface.
    pub ivr: bool,
}

impl Dn {
    /// A DN at a fixed address, with the defaults of spec/interface.md §2.
    pub fn new(numbers: Numbers, contact: PeerAddress) -> Self {
        Self::at(numbers, Contact::At(contact))
    }

    /// A DN whose device registers, with the defaults of spec/interface.md §2.
    pub fn registered(numbers: Numbers, account: Account) -> Self {
        Self::at(numbers, Contact::Registered(account))
    }

    fn at(numbers: Numbers, contact: Contact) -> Self {
        Self {
            numbers,
            contact,
            role: DnRole::Agent,
            record: None,
            record_consult: false,
            monitor_consult: MonitorConsult::None,
            intrusion: false,
            pickup_group: "".into(),
            required: false,
            trusted: false,
            dtmf: Dtmf::Rfc4733,
            hold: HoldBy::Media,
            nat: Nat::Auto,
            ivr: false,
        }
    }
}

/// Where the device of a DN is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contact {
    /// `contact`, `{number}` not yet filled in.
    At(PeerAddress),
    /// `registration`: where it says with this account. Its user name is its number.
    Registered(Account),
}

impl Contact {
    /// The fixed address, if it is one.
    pub fn fixed(&self) -> Option<&PeerAddress> {
        match self {
            Self::At(address) => Some(address),
            Self::Registered(_) => None,
        }
    }
}

/// `dn.number`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Numbers {
    /// `"2001"`.
    One(String),
    /// `"2000-2499"`: all numbers of `width` digits from `first` to `last`.
    Range {
        /// The first number.
        first: u64,
        /// The last number, not below the first.
        last: u64,
        /// Digits, leading zeros included.
        width: usize,
    },
}

impl Numbers {
    /// True when `number` is one of these.
    pub fn contains(&self, number: &str) -> bool {
        match self {
            Self::One(one) => one == number,
            Self::Range { first, last, width } => {
                number.len() == *width
                    && number.bytes().all(|b| b.is_ascii_digit())
                    && number.parse::<u64>().is_ok_and(|n| (*first..=*last).contains(&n))
            }
        }
    }
}

/// `dn.role`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DnRole {
    /// Talks to customers.
    #[default]
    Agent,
    /// Joins calls of others.
    Supervisor,
}

/// `dn.monitor-consult-calls`: which consultations of an agent its supervisors are in with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MonitorConsult {
    /// None: they stay with the customer.
    #[default]
    None,
    /// Those that it places.
    Orig,
    /// Those that it is called for.
    Dest,
    /// Both.
    All,
}

impl MonitorConsult {
    /// Those that the agent places.
    pub(in crate::call) fn has_placed(self) -> bool {
        matches!(self, Self::Orig | Self::All)
    }

    /// Those that it is called for.
    pub(in crate::call) fn has_reached(self) -> bool {
        matches!(self, Self::Dest | Self::All)
    }
}

/// `[supervision]`: what a MonitorNextCall means that says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Supervision {
    /// `mode`.
    pub mode: MonitorMode,
    /// `scope`.
    pub scope: MonitorScope,
}

/// `[[conference]]`: a dial-in room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conference {
    /// `number`, unique among rooms and DNs.
    pub number: String,
    /// `pin`: digits that a caller must enter; `None`: the room is open to all who may call.
    pub pin: Option<Secret>,
    /// `max-members`, 2 to 256.
    pub max_members: usize,
    /// `when-alone`.
    pub when_alone: WhenAlone,
    /// `record`; `None`: as `recording.default` says.
    pub record: Option<bool>,
}

/// Most digits of a PIN.
pub const MAX_PIN: usize = 32;

impl Conference {
    /// A room with the defaults of spec/interface.md §2.
    pub fn new(number: &str) -> Self {
        Self { number: number.to_owned(), pin: None, max_members: 64, when_alone: WhenAlone::End, record: None }
    }

    /// The room itself owns a recording.
    pub(in crate::call) fn is_recorded(&self, default: DefaultOwner) -> bool {
        self.record.unwrap_or(default != DefaultOwner::None)
    }
}

/// `conference.when-alone`: what becomes of the last member when the last but one leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenAlone {
    /// The room ends.
    #[default]
    End,
    /// The member waits for others, as the first one does.
    Wait,
}

/// `dtmf`: how digits reach a peer that has no telephone-event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dtmf {
    /// RFC 4733, else an in-band tone.
    #[default]
    Rfc4733,
    /// INFO `application/dtmf-relay`.
    Info,
}

/// `hold` of a DN: how requests hold and retrieve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HoldBy {
    /// Our media only: the phone does not know.
    #[default]
    Media,
    /// NOTIFY `Event: hold` and `Event: talk`, where the phone's Allow-Events has them: its own keys.
    Notify,
}

/// `[[route]]`; the first one that matches wins.
#[derive(Debug, Clone)]
pub struct Route {
    /// `from`: only calls of this trunk.
    pub from: Option<Arc<str>>,
    /// `match`, on the called number; it matches anywhere unless anchored.
    pub pattern: Regex,
    /// `to`.
    pub to: RouteTarget,
    /// `rewrite`: the number that is dialled, with `$1` … from the match; `None`: the called number.
    pub rewrite: Option<String>,
    /// `record`.
    pub record: Option<RouteRecord>,
    /// `required`.
    pub required: bool,
    /// `origin`.
    pub origin: Option<Origin>,
}

/// `route.to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteTarget {
    /// `trunk:NAME`.
    Trunk(Arc<str>),
    /// `dn:NUMBER`, with `$1` … from the match.
    Dn(String),
    /// `sip:URI`: a host that is neither DN nor trunk.
    Uri(PeerAddress),
}

/// `route.record`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteRecord {
    /// The customer's leg owns.
    Source,
    /// The agent's leg owns.
    Destination,
    /// Nothing automatic chooses the customer's leg.
    DisableSource,
    /// Nothing automatic chooses the agent's leg.
    DisableDestination,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_numbers_of_its_width_only() {
        let range = Numbers::Range { first: 20, last: 249, width: 4 };
        assert!(range.contains("0020") && range.contains("0249"));
        assert!(!range.contains("20") && !range.contains("0250") && !range.contains("00a0"));
        assert!(Numbers::One("+49".into()).contains("+49"));
    }
    #[test]
    fn a_secret_prints_nothing_of_itself() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".into())), "Secret(…)");
    }
}
