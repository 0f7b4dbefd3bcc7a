//! The transports that URIs name, and their ports (RFC 3261 §19.1.1, §19.1.2).
//!
//! `rsip` knows the names and ports. Of its transports those that we speak are taken; a name that it does not know, on
//! which it would refuse the whole message, is one that we do not speak.

use super::{Scheme, Uri};
use crate::sip::endpoint::Transport;

/// The transport that a URI asks for by its scheme or parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// None: which it is depends on the port and on DNS (RFC 3263 §4.1); for an address it is UDP.
    Nothing,
    /// This one.
    For(Transport),
    /// One that we do not speak.
    Unknown,
}

/// Reads what a URI asks for. `sips` asks for TLS whatever its parameter says (RFC 3261 §26.2.2).
pub fn asked(uri: &Uri) -> Asked {
    if uri.scheme() == Scheme::Sips {
        return Asked::For(Transport::Tls);
    }
    let Some(name) = uri.param(b"transport") else { return Asked::Nothing };
    let known = std::str::from_utf8(name).ok().and_then(|name| name.parse::<rsip::Transport>().ok());
    match known {
        Some(rsip::Transport::Udp) => Asked::For(Transport::Udp),
        Some(rsip::Transport::Tcp) => Asked::For(Transport::Tcp),
        Some(rsip::Transport::Tls) => Asked::For(Transport::Tls),
        _ => Asked::Unknown,
    }
}

/// The port of a URI that has none: 5060, or 5061 over TLS.
pub fn default_port(transport: Transport) -> u16 {
    let known = match transport {
        Transport::Udp => rsip::Transport::Udp,
        Transport::Tcp => rsip::Transport::Tcp,
        Transport::Tls => rsip::Transport::Tls,
    };
    *known.default_port().value()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_uri_asks_for_a_transport_that_we_speak_or_for_none() {
        for (uri, expected) in [
            ("sip:a@b", Asked::Nothing),
            ("sip:a@b;transport=udp", Asked::For(Transport::Udp)),
            ("sip:a@b;transport=TcP", Asked::For(Transport::Tcp)),
            ("sip:a@b;transport=tls", Asked::For(Transport::Tls)),
            ("sips:a@b;transport=tcp", Asked::For(Transport::Tls)),
            // rsip knows this one; we do not speak it.
            ("sip:a@b;transport=ws", Asked::Unknown),
            // rsip knows none of these, and refuses a message that holds one.
            ("sip:a@b;transport=quic", Asked::Unknown),
            ("sip:a@b;transport=", Asked::Unknown),
            ("sip:a@[2001:db8::1];transport=tcp", Asked::For(Transport::Tcp)),
        ] {
            assert_eq!(asked(&Uri::parse(Bytes::from_static(uri.as_bytes())).unwrap()), expected, "{uri}");
        }
        assert_eq!(asked(&Uri::parse(Bytes::from_static(b"sip:a@b;transport=\xff")).unwrap()), Asked::Unknown);
    }

    #[test]
    fn only_tls_has_another_port() {
        let ports = [Transport::Udp, Transport::Tcp, Transport::Tls].map(default_port);
        assert_eq!(ports, [5060, 5060, 5061]);
    }
}
