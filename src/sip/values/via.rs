//! Via (RFC 3261 §20.42, §18.2.1; RFC 3581 `rport`).

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::ValueError;
use super::params::Params;
use super::uri::{host_ip, host_port};
use crate::sip::digits::put_decimal;
use crate::sip::scan;

/// The branch of a client that follows RFC 3261 starts with this.
pub const MAGIC_COOKIE: &[u8] = b"z9hG4bK";

/// One Via value.
#[derive(Clone, PartialEq, Eq)]
pub struct Via {
    transport: Bytes,
    host: Bytes,
    port: Option<u16>,
    params: Params,
}

impl Via {
    /// Reads one value. White space is allowed around the slashes and the colon; the transport may be any token.
    pub fn parse(value: &[u8]) -> Result<Via, ValueError> {
        Self::read(Bytes::copy_from_slice(scan::trim(value))).ok_or(ValueError::Via)
    }

    fn read(text: Bytes) -> Option<Via> {
        let mut rest = &text[..];
        let protocol = token_before(&mut rest, b'/')?;
        let version = token_before(&mut rest, b'/')?;
        if !protocol.eq_ignore_ascii_case(b"SIP") || version != b"2.0" {
            return None;
        }
        rest = scan::trim(rest);
        let end = rest.iter().position(|b| scan::is_space(*b))?;
        let (transport, after) = rest.split_at(end);
        let sent_by = scan::trim(after);
        if !scan::is_token(transport) {
            return None;
        }
        let (host_end, mut port, mut at) = match host_port(sent_by, 0) {
            Some(found) => found,
            // "host : port", the one form that a URI does not have.
            None => {
                let colon = sent_by.iter().position(|b| *b == b':').filter(|_| sent_by[0] != b'[')?;
                (colon, None, colon)
            }
        };
        let host = scan::trim(&sent_by[..host_end]);
        let gap = sent_by[at..].iter().take_while(|b| scan::is_space(**b)).count();
        if port.is_none() && sent_by.get(at + gap) == Some(&b':') {
            let digits_at = at + gap + 1 + sent_by[at + gap + 1..].iter().take_while(|b| scan::is_space(**b)).count();
            let digits = sent_by[digits_at..].iter().take_while(|b| b.is_ascii_digit()).count();
            port = Some(u16::try_from(scan::decimal(&sent_by[digits_at..digits_at + digits])?).ok()?);
            at = digits_at + digits;
        }
        let (end, none, _) = host_port(host, 0)?;
        if end != host.len() || none.is_some() {
            return None;
        }
        let params = Params::parse(text.slice_ref(&sent_by[at..])).ok()?;
        Some(Via { transport: text.slice_ref(transport), host: text.slice_ref(host), port, params })
    }

    /// A Via of ours: `SIP/2.0/transport address;branch=…;rport`. The rport asks for the answer at the port we send from.
    pub fn new(transport: &str, sent_by: SocketAddr, branch: &[u8]) -> Via {
        let host = match sent_by.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let mut params = Params::default();
        params.set(b"branch", Some(branch));
        params.set(b"rport", None);
        Via { transport: transport.to_owned().into(), host: host.into(), port: Some(sent_by.port()), params }
    }

    /// The transport as written (`UDP`, `TCP`, `TLS`, …).
    pub fn transport(&self) -> &[u8] {
        &self.transport
    }

    /// The host of sent-by as written, an IPv6 address with its brackets.
    pub fn host(&self) -> &[u8] {
        &self.host
    }

    /// The host of sent-by when it is an IP address.
    pub fn host_ip(&self) -> Option<IpAddr> {
        host_ip(&self.host)
    }

    /// The port of sent-by, when written.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The raw value of a parameter (`maddr`, `ttl`, …).
    pub fn param(&self, name: &[u8]) -> Option<&[u8]> {
        self.params.get(name)
    }

    /// The branch, when there is one that is not empty.
    pub fn branch(&self) -> Option<&[u8]> {
        self.params.get(b"branch").filter(|branch| !branch.is_empty())
    }

    /// Whether the branch identifies the transaction by itself (RFC 3261 §17.2.3).
    pub fn has_magic_cookie(&self) -> bool {
        self.branch().is_some_and(|branch| branch.len() > MAGIC_COOKIE.len() && branch.starts_with(MAGIC_COOKIE))
    }

    /// The `received` address; brackets around IPv6 are taken too (RFC 5118 §4.5).
    pub fn received(&self) -> Option<IpAddr> {
        let text = std::str::from_utf8(self.params.get(b"received")?).ok()?;
        text.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }

    /// Whether `rport` stands there, with or without a port.
    pub fn wants_rport(&self) -> bool {
        self.params.has(b"rport")
    }

    /// The port in `rport`, once the server has filled it.
    pub fn rport(&self) -> Option<u16> {
        u16::try_from(scan::decimal(self.params.get(b"rport")?)?).ok()
    }

    /// Notes the address that the request came from (RFC 3261 §18.2.1): `received` when it differs from sent-by or when
    /// `rport` asks, and the port into `rport` if the client asked (RFC 3581 §4). True when something changed.
    pub fn note_source(&mut self, source: SocketAddr) -> bool {
        let wants_rport = self.wants_rport();
        let source_ip = source.ip().to_canonical();
        let differs = self.host_ip() != Some(source_ip);
        if differs || wants_rport {
            self.params.remove(b"received");
            self.params.set(b"received", Some(source_ip.to_string().as_bytes()));
        }
        if wants_rport {
            self.params.set(b"rport", Some(source.port().to_string().as_bytes()));
        }
        differs || wants_rport
    }

    /// Sets a parameter (`None`: a flag).
    pub fn set_param(&mut self, name: &[u8], value: Option<&[u8]>) {
        self.params.set(name, value);
    }

    /// The value for the wire.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(16 + self.transport.len() + self.host.len() + self.params.as_bytes().len());
        out.extend_from_slice(b"SIP/2.0/");
        out.extend_from_slice(&self.transport);
        out.push(b' ');
        out.extend_from_slice(&self.host);
        if let Some(port) = self.port {
            out.push(b':');
            put_decimal(&mut out, u64::from(port));
        }
        out.extend_from_slice(self.params.as_bytes());
        out.into()
    }
}

/// Addresses of peers are no secret, branches and tags neither.
impl std::fmt::Debug for Via {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.encode()))
    }
}

fn token_before<'a>(rest: &mut &'a [u8], stop: u8) -> Option<&'a [u8]> {
    let at = rest.iter().position(|b| *b == stop)?;
    let token = scan::trim(&rest[..at]);
    *rest = &rest[at + 1..];
    Some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn via(text: &str) -> Via {
        Via::parse(text.as_bytes()).unwrap_or_else(|_| panic!("{text}"))
    }

    #[test]
    fn every_part_is_found_whatever_the_white_space() {
        let via =
            via("SIP /\t2.0 / tcp    Host.example  :  5070 ;  branch = z9hG4bKa ; received=10.0.0.1;rport;maddr=m");
        assert_eq!((via.transport(), via.host(), via.port()), (&b"tcp"[..], &b"Host.example"[..], Some(5070)));
        assert_eq!((via.branch(), via.has_magic_cookie()), (Some(&b"z9hG4bKa"[..]), true));
        assert_eq!((via.received(), via.wants_rport(), via.rport()), ("10.0.0.1".parse().ok(), true, None));
        assert_eq!(via.param(b"maddr"), Some(&b"m"[..]));
    }

    #[test]
    fn ipv6_stands_in_brackets_and_received_in_either_form() {
        let v = via("SIP/2.0/UDP [2001:db8::9:1]:6050;received=[2001:db8::9:255];branch=z9hG4bKas3");
        assert_eq!((v.host_ip(), v.port()), ("2001:db8::9:1".parse().ok(), Some(6050)));
        assert_eq!(v.received(), "2001:db8::9:255".parse().ok());
        assert_eq!(via("SIP/2.0/UDP [::1];received=2001:db8::9:255").received(), v.received());
        assert_eq!(via("SIP/2.0/UDP [::1]").port(), None);
    }

    #[test]
    fn malformed_vias_are_refused() {
        for bad in [
            "",
            ";",
            "SIP/2.0/UDP",
            "SIP/2.0/UDP ",
            "SIP/7.0/UDP a",
            "HTTP/1.1/TCP a",
            "SIP/2.0/U DP a",
            "SIP/2.0/UDP a b",
            "SIP/2.0/UDP a:",
            "SIP/2.0/UDP a:70000",
            "SIP/2.0/UDP 2001:db8::1",
            "SIP/2.0/UDP [::1",
            "SIP/2.0/UDP a;x=\"",
            "SIP/2.0/UDP :5060",
            "SIP/2.0/UDP a b:5060",
        ] {
            assert!(Via::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn unknown_transports_are_kept() {
        assert_eq!(via("SIP/2.0/TLS-SCTP a;branch=z9hG4bK").transport(), b"TLS-SCTP");
        assert!(!via("SIP/2.0/UNKNOWN a;branch=z9hG4bK").has_magic_cookie());
        assert!(!via("SIP/2.0/UDP a;branch=1").has_magic_cookie());
    }

    #[test]
    fn the_source_is_noted_when_it_differs_or_rport_asks() {
        let source = "10.0.0.9:5061".parse().unwrap();
        let mut same = via("SIP/2.0/UDP 10.0.0.9:5060;branch=x");
        assert!(!same.note_source(source));
        assert_eq!(same.encode(), "SIP/2.0/UDP 10.0.0.9:5060;branch=x");
        let mut asks = via("SIP/2.0/UDP 10.0.0.9:5060;rport;branch=x");
        assert!(asks.note_source(source));
        assert_eq!(asks.encode(), "SIP/2.0/UDP 10.0.0.9:5060;rport=5061;branch=x;received=10.0.0.9");
        let mut name = via("SIP/2.0/TCP host;branch=x;received=1.2.3.4");
        assert!(name.note_source("[2001:db8::1]:1".parse().unwrap()));
        assert_eq!(name.encode(), "SIP/2.0/TCP host;branch=x;received=2001:db8::1");
    }

    #[test]
    fn a_via_of_ours_reads_back() {
        for address in ["127.0.0.1:5060", "[::1]:5061"] {
            let ours = Via::new("UDP", address.parse().unwrap(), b"z9hG4bK77");
            assert_eq!(Via::parse(&ours.encode()).unwrap(), ours);
        }
    }
}
