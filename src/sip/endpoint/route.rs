//! Where messages go: the listener, the address, the transport (§18.1.1, §18.2.2, RFC 3263 without DNS records).

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::api::*;
use super::tables::DialogRecord;
use super::{Endpoint, TCP_REFUSED};
use crate::sip::dialog::Target;
use crate::sip::values::Uri;
use crate::sip::values::transport::{self, Asked, default_port};

/// How long no TCP is tried to an address that has refused it.
const TCP_PAUSE: Duration = Duration::from_secs(300);

/// Where a request of a dialog goes.
pub(super) struct Way {
    pub(super) flow: Flow,
    /// Our address in Via.
    pub(super) sent_by: SocketAddr,
}

impl Endpoint {
    /// The listener of a transport, best on the same address, else of the same family.
    fn listener(&self, transport: Transport, like: SocketAddr) -> Option<SocketAddr> {
        let of = |same: &dyn Fn(&SocketAddr) -> bool| {
            self.options
                .listeners
                .iter()
                .filter(|l| l.transport == transport)
                .map(|l| l.local)
                .find(|local| same(local))
        };
        of(&|local| local.ip() == like.ip()).or_else(|| of(&|local| local.is_ipv4() == like.is_ipv4()))
    }

    /// Where a request with this target goes (§12.2.1.1, §8.1.2), by the dialog's rule for NAT.
    pub(super) fn way(&self, record: &DialogRecord, target: &Target) -> Way {
        let by_source = match record.peer.nat {
            Nat::Yes => true,
            Nat::No => false,
            Nat::Auto => record.is_natted,
        };
        let home = Way { flow: record.flow, sent_by: self.sent_by(record, record.flow.transport, record.flow.local) };
        if by_source {
            return home;
        }
        let Ok(uri) = Uri::parse(target.next_hop.clone()) else {
            return home;
        };
        // One that we do not speak: UDP is what most peers take.
        let transport = match transport::asked(&uri) {
            Asked::For(transport) => transport,
            Asked::Nothing | Asked::Unknown => Transport::Udp,
        };
        let ip = match uri.host_ip() {
            Some(ip) => ip,
            None => match self.names.get(&uri.host().to_ascii_lowercase()).and_then(|known| known.first()) {
                Some(&ip) => ip,
                None => return home,
            },
        };
        let remote = SocketAddr::new(ip, uri.port().unwrap_or(default_port(transport)));
        let Some(local) = self.listener(transport, pick_family(record.flow.local, ip)) else {
            // Nothing of ours speaks that transport there; the flow that the peer itself uses is what is left.
            return home;
        };
        // A stream that the peer has opened is used as long as it lives (RFC 5923 §3); when it is gone, the Contact is
        // what is left.
        let is_its = record.flow.transport == transport && record.flow.remote.ip() == ip;
        let connection = record.flow.connection.filter(|_| is_its);
        let local = if is_its { record.flow.local } else { local };
        Way { flow: Flow { transport, local, remote, connection }, sent_by: self.sent_by(record, transport, local) }
    }

    /// Our address in Via for a transport: as advertised, with the port of the listener when the transport is another.
    fn sent_by(&self, record: &DialogRecord, transport: Transport, local: SocketAddr) -> SocketAddr {
        if transport == record.transport {
            record.peer.advertised
        } else {
            SocketAddr::new(record.peer.advertised.ip(), local.port())
        }
    }

    /// The same destination by TCP, for a request that is too long for a datagram (§18.1.1); `None`: the peer or we
    /// don't do that, or it has refused lately.
    pub(super) fn tcp_instead(&self, peer: &Peer, flow: &Flow, now: Instant) -> Option<Way> {
        if !peer.tcp || flow.transport != Transport::Udp {
            return None;
        }
        if self.tcp_refused.get(&flow.remote).is_some_and(|until| *until > now) {
            return None;
        }
        let local = self.listener(Transport::Tcp, flow.local)?;
        Some(Way {
            flow: Flow { transport: Transport::Tcp, local, remote: flow.remote, connection: None },
            sent_by: SocketAddr::new(peer.advertised.ip(), local.port()),
        })
    }

    /// Remembers that an address does not take TCP.
    pub(super) fn refuse_tcp(&mut self, remote: SocketAddr, now: Instant) {
        if self.tcp_refused.len() >= TCP_REFUSED {
            self.tcp_refused.retain(|_, until| *until > now);
        }
        // Still full: forgetting costs one failed connection each.
        if self.tcp_refused.len() >= TCP_REFUSED {
            self.tcp_refused.clear();
        }
        self.tcp_refused.insert(remote, now + TCP_PAUSE);
    }

    /// True when a Contact cannot lead back to the peer: an address that only its own network routes, and not the one
    /// that its message came from (spec/sip.md §4, `nat = auto`). A public address that differs is believed: carriers
    /// take the calls that they make on other hosts.
    pub(super) fn is_natted(&self, contact: &Bytes, has_routes: bool, flow: &Flow) -> bool {
        if has_routes {
            return false;
        }
        let ip = Uri::parse(contact.clone()).ok().and_then(|uri| uri.host_ip());
        ip.is_some_and(|ip| ip != flow.remote.ip() && is_local_only(ip))
    }
}

/// Private, shared, loopback, link-local and unspecified addresses (RFC 1918, 6598, 4193, 3927, 4291).
pub fn is_local_only(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let is_shared = a == 100 && (64..128).contains(&b);
            ip.is_private() || is_shared || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified()
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_loopback() || ip.is_unspecified(),
    }
}

/// An address to compare listeners with: `local`, or any of the family of `ip`.
fn pick_family(local: SocketAddr, ip: IpAddr) -> SocketAddr {
    if local.is_ipv4() == ip.is_ipv4() {
        return local;
    }
    let any: IpAddr = if ip.is_ipv4() { [0u8; 4].into() } else { [0u8; 16].into() };
    SocketAddr::new(any, 0)
}
