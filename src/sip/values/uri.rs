//! SIP, SIPS and tel URIs (RFC 3261 §19.1, RFC 3966), as written, with the parts found.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use bytes::Bytes;

use super::ValueError;
use super::params::Params;
use crate::sip::digits::{put_decimal, put_host};
use crate::sip::scan;

/// The scheme of a URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the scheme of its name")]
pub enum Scheme {
    Sip,
    Sips,
    Tel,
    /// Any other; its name is [`Uri::scheme_name`].
    Other,
}

/// A URI as written. Of a scheme that is neither sip, sips nor tel only the scheme is known.
#[derive(Clone)]
pub struct Uri {
    text: Bytes,
    scheme: Scheme,
    /// Of tel: the number with its visual separators.
    user: Option<Range<usize>>,
    password: Option<Range<usize>>,
    host: Range<usize>,
    port: Option<u16>,
    params: Params,
    headers: Range<usize>,
}

impl Uri {
    /// Reads a URI without angle brackets around it.
    pub fn parse(text: Bytes) -> Result<Uri, ValueError> {
        let colon = text.iter().position(|b| *b == b':').ok_or(ValueError::Uri)?;
        let name = &text[..colon];
        let sound = name.first().is_some_and(u8::is_ascii_alphabetic)
            && name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
        let printable = |b: &u8| !matches!(b, 0..=b' ' | b'"' | b'<' | b'>' | 0x7f);
        // All of them, and not up to the first: so it takes several bytes at a time.
        let is_printable = text.iter().fold(true, |all, byte| all & printable(byte));
        if !sound || colon + 1 == text.len() || !is_printable {
            return Err(ValueError::Uri);
        }
        let scheme = match name {
            n if n.eq_ignore_ascii_case(b"sip") => Scheme::Sip,
            n if n.eq_ignore_ascii_case(b"sips") => Scheme::Sips,
            n if n.eq_ignore_ascii_case(b"tel") => Scheme::Tel,
            _ => Scheme::Other,
        };
        let end = text.len();
        let mut uri = Uri {
            text,
            scheme,
            user: None,
            password: None,
            host: end..end,
            port: None,
            params: Params::default(),
            headers: end..end,
        };
        match scheme {
            Scheme::Sip | Scheme::Sips => uri.find_sip_parts(colon + 1)?,
            Scheme::Tel => uri.find_tel_parts(colon + 1)?,
            Scheme::Other => {}
        }
        Ok(uri)
    }

    fn find_sip_parts(&mut self, start: usize) -> Result<(), ValueError> {
        let text = self.text.clone();
        // An unescaped @ may stand in URI parameters or headers of sloppy senders only, and ; ? may stand in a user part
        // (RFC 4475 §3.1.1.9): the user part ends at the first @ that the host grammar can follow.
        let mut host = start;
        if let Some(at) = text[start..].iter().position(|b| *b == b'@').map(|at| start + at) {
            let user = start..at;
            let colon = text[user.clone()].iter().position(|b| *b == b':').map(|c| start + c);
            let name = start..colon.unwrap_or(at);
            if name.is_empty() || !is_user(&text[user]) {
                return Err(ValueError::Uri);
            }
            self.user = Some(name);
            self.password = colon.map(|c| c + 1..at);
            host = at + 1;
        }
        let (host_end, port, port_end) = host_port(&text, host).ok_or(ValueError::Uri)?;
        let question = text[port_end..].iter().position(|b| *b == b'?').map_or(text.len(), |q| port_end + q);
        if port_end < question && text[port_end] != b';' {
            return Err(ValueError::Uri);
        }
        self.host = host..host_end;
        self.port = port;
        self.params = uri_params(text.slice(port_end..question))?;
        self.headers = question..text.len();
        Ok(())
    }

    fn find_tel_parts(&mut self, start: usize) -> Result<(), ValueError> {
        let text = self.text.clone();
        let end = text[start..].iter().position(|b| *b == b';').map_or(text.len(), |semi| start + semi);
        let number = &text[start..end];
        let digit = |b: &u8| b.is_ascii_hexdigit() || matches!(b, b'*' | b'#');
        let sound = number
            .iter()
            .enumerate()
            .all(|(i, b)| digit(b) || matches!(b, b'-' | b'.' | b'(' | b')') || (i == 0 && *b == b'+') || *b == b'%');
        if !sound || !number.iter().any(digit) {
            return Err(ValueError::Uri);
        }
        self.user = Some(start..end);
        self.params = uri_params(text.slice(end..))?;
        Ok(())
    }

    /// A SIP URI of ours. The user is escaped as needed.
    pub fn sip(user: Option<&[u8]>, address: SocketAddr) -> Uri {
        let mut text = Vec::with_capacity(64);
        text.extend_from_slice(b"sip:");
        if let Some(user) = user.filter(|user| !user.is_empty()) {
            escape_user(user, &mut text);
            text.push(b'@');
        }
        let host = text.len();
        put_host(&mut text, address.ip());
        let digits = text.len();
        text.push(b':');
        put_decimal(&mut text, u64::from(address.port()));
        let end = text.len();
        Uri {
            user: (host > 4).then(|| 4..host - 1),
            password: None,
            host: host..digits,
            port: Some(address.port()),
            params: Params::default(),
            headers: end..end,
            scheme: Scheme::Sip,
            text: text.into(),
        }
    }

    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The scheme's name as written.
    pub fn scheme_name(&self) -> &[u8] {
        self.text.split(|b| *b == b':').next().unwrap_or_default()
    }

    /// Whether the scheme is sip or sips.
    pub fn is_sip(&self) -> bool {
        matches!(self.scheme, Scheme::Sip | Scheme::Sips)
    }

    /// The user part as written, without password, parameters inside it included; of a tel URI its number.
    pub fn user(&self) -> Option<&[u8]> {
        self.user.clone().map(|range| &self.text[range])
    }

    /// The user part with %-escapes decoded.
    pub fn user_unescaped(&self) -> Option<Cow<'_, [u8]>> {
        self.user().map(unescape)
    }

    /// The password as written.
    pub fn password(&self) -> Option<&[u8]> {
        self.password.clone().map(|range| &self.text[range])
    }

    /// The host as written, an IPv6 address with its brackets; empty for tel and other schemes.
    pub fn host(&self) -> &[u8] {
        &self.text[self.host.clone()]
    }

    /// The host when it is an IP address.
    pub fn host_ip(&self) -> Option<IpAddr> {
        host_ip(self.host())
    }

    /// The port, when written.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The URI parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The raw value of a URI parameter; empty for one without a value.
    pub fn param(&self, name: &[u8]) -> Option<&[u8]> {
        self.params.get(name)
    }

    /// Whether the `lr` parameter says loose router (RFC 3261 §19.1.1).
    pub fn is_loose(&self) -> bool {
        self.params.has(b"lr")
    }

    /// The headers of the URI (`?name=value&…`), names as written, values with %-escapes decoded.
    pub fn headers(&self) -> impl Iterator<Item = (&[u8], Cow<'_, [u8]>)> {
        let text = self.text[self.headers.clone()].strip_prefix(b"?").unwrap_or_default();
        text.split(|b| *b == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_at(pair.iter().position(|b| *b == b'=').unwrap_or(pair.len()));
            (name, unescape(value.strip_prefix(b"=").unwrap_or_default()))
        })
    }

    /// As written.
    pub fn as_bytes(&self) -> &Bytes {
        &self.text
    }

    /// The same URI with another host and port (`None`: no port written); user, parameters and headers stay as written.
    /// A URI that has no host, or a host that is none, stays as it is.
    pub fn with_host(&self, host: &[u8], port: Option<u16>) -> Uri {
        if !self.is_sip() {
            return self.clone();
        }
        let rest = self.host.end + self.port_len();
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        self.reread([&self.text[..self.host.start], host, port.as_bytes(), &self.text[rest..]].concat())
    }

    /// The same URI at this address.
    pub fn with_address(&self, address: SocketAddr) -> Uri {
        match address.ip() {
            IpAddr::V4(ip) => self.with_host(ip.to_string().as_bytes(), Some(address.port())),
            IpAddr::V6(ip) => self.with_host(format!("[{ip}]").as_bytes(), Some(address.port())),
        }
    }

    /// The same SIP URI with another user, escaped as needed, and no password.
    pub fn with_user(&self, user: Option<&[u8]>) -> Uri {
        if !self.is_sip() {
            return self.clone();
        }
        let mut text = self.text[..self.scheme_name().len() + 1].to_vec();
        if let Some(user) = user.filter(|user| !user.is_empty()) {
            escape_user(user, &mut text);
            text.push(b'@');
        }
        text.extend_from_slice(&self.text[self.host.start..]);
        self.reread(text)
    }

    /// The same URI with one URI parameter set (`None`: a flag).
    pub fn with_param(&self, name: &[u8], value: Option<&[u8]>) -> Uri {
        self.edit_params(|params| params.set(name, value))
    }

    /// The same URI without a URI parameter.
    pub fn without_param(&self, name: &[u8]) -> Uri {
        self.edit_params(|params| params.remove(name))
    }

    /// The same URI without its headers.
    pub fn without_headers(&self) -> Uri {
        self.reread(self.text[..self.headers.start].to_vec())
    }

    /// The same URI with these headers and no others, escaped as needed; a URI that is neither sip nor sips stays as it
    /// is.
    pub fn with_headers<'a, V: AsRef<[u8]>>(&self, headers: impl Iterator<Item = (&'a [u8], V)>) -> Uri {
        if !self.is_sip() {
            return self.clone();
        }
        let mut text = self.text[..self.headers.start].to_vec();
        for (index, (name, value)) in headers.enumerate() {
            text.push(if index == 0 { b'?' } else { b'&' });
            text.extend_from_slice(&escape(name));
            text.push(b'=');
            text.extend_from_slice(&escape(value.as_ref()));
        }
        self.reread(text)
    }

    fn edit_params(&self, edit: impl FnOnce(&mut Params)) -> Uri {
        if self.scheme == Scheme::Other {
            return self.clone();
        }
        let mut params = self.params.clone();
        edit(&mut params);
        let start = self.headers.start - self.params.as_bytes().len();
        self.reread([&self.text[..start], params.as_bytes(), &self.text[self.headers.start..]].concat())
    }

    /// What was edited, or the URI as it was when the edit made it none.
    fn reread(&self, text: Vec<u8>) -> Uri {
        Uri::parse(text.into()).unwrap_or_else(|_| self.clone())
    }

    fn port_len(&self) -> usize {
        self.headers.start - self.params.as_bytes().len() - self.host.end
    }

    /// Whether both name the same resource (RFC 3261 §19.1.4, RFC 3966 §5 for tel). Not transitive.
    pub fn equivalent(&self, other: &Uri) -> bool {
        if self.scheme != other.scheme {
            return false;
        }
        match self.scheme {
            Scheme::Other => self.text.eq_ignore_ascii_case(&other.text),
            Scheme::Tel => {
                let number = |uri: &Uri| super::number::without_separators(&uri.user_unescaped().unwrap_or_default());
                number(self).eq_ignore_ascii_case(&number(other))
                    && self.params.iter().count() == other.params.iter().count()
                    && self.params.iter().all(|(name, _)| self.same_param(other, &unescape(name)))
            }
            Scheme::Sip | Scheme::Sips => {
                self.user().map(normal_escapes) == other.user().map(normal_escapes)
                    && self.password().map(normal_escapes) == other.password().map(normal_escapes)
                    && same_host(self.host(), other.host())
                    && self.port == other.port
                    && self.params_match(other)
                    && self.headers_match(other)
            }
        }
    }

    fn params_match(&self, other: &Uri) -> bool {
        // Omitting one of these does not match even its default value.
        const COUNTED: [&[u8]; 5] = [b"transport", b"user", b"ttl", b"method", b"maddr"];
        COUNTED.iter().all(|name| self.params.has(name) == other.params.has(name))
            && self.params.iter().map(|(name, _)| unescape(name)).all(|name| {
                // A name that stands in one of them only is ignored.
                !other.params.has(&name) || self.same_param(other, &name)
            })
    }

    /// Whether both have the parameter with the same value. Of one that is repeated, against the rules, the first counts.
    fn same_param(&self, other: &Uri, name: &[u8]) -> bool {
        match (self.param(name), other.param(name)) {
            (Some(a), Some(b)) => unescape(a).eq_ignore_ascii_case(&unescape(b)),
            _ => false,
        }
    }

    fn headers_match(&self, other: &Uri) -> bool {
        let sorted = |uri: &Uri| {
            let mut headers: Vec<_> =
                uri.headers().map(|(name, value)| (name.to_ascii_lowercase(), value.into_owned())).collect();
            headers.sort();
            headers
        };
        sorted(self) == sorted(other)
    }
}

fn same_host(a: &[u8], b: &[u8]) -> bool {
    match (host_ip(a), host_ip(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a.eq_ignore_ascii_case(b),
    }
}

/// Byte identity: the spelling counts. See [`Uri::equivalent`].
impl PartialEq for Uri {
    fn eq(&self, other: &Uri) -> bool {
        self.text == other.text
    }
}

impl Eq for Uri {}

/// A URI may be a caller's number.
impl std::fmt::Debug for Uri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Uri({:?}, {} bytes)", self.scheme, self.text.len())
    }
}

/// Whether the bytes may stand in userinfo. Beyond the grammar only what cannot end it is let through: phones send `#`
/// and UTF-8 unescaped.
fn is_user(text: &[u8]) -> bool {
    text.iter().all(|b| !matches!(b, b'[' | b']' | b'\\'))
}

/// End of the host at `at`, the port, and the end of both. `None` when there is no host, or no port behind a colon.
pub(super) fn host_port(text: &[u8], at: usize) -> Option<(usize, Option<u16>, usize)> {
    let rest = &text[at..];
    let length = if rest.first() == Some(&b'[') {
        let close = rest.iter().position(|b| *b == b']')?;
        host_ip(&rest[..=close])?;
        close + 1
    } else {
        rest.iter().position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))).unwrap_or(rest.len())
    };
    if length == 0 {
        return None;
    }
    let end = at + length;
    if text.get(end) != Some(&b':') {
        return Some((end, None, end));
    }
    let digits = text[end + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
    let port = scan::decimal(&text[end + 1..end + 1 + digits])?;
    Some((end, Some(u16::try_from(port).ok()?), end + 1 + digits))
}

/// The IP address that a host is, brackets around IPv6.
pub(super) fn host_ip(host: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(host).ok()?;
    match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok().filter(IpAddr::is_ipv4),
    }
}

fn uri_params(text: Bytes) -> Result<Params, ValueError> {
    Params::parse_uri(text).map_err(|_| ValueError::Uri)
}

/// %-escapes decoded; a `%` that starts none stays.
pub fn unescape(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'%') {
        return Cow::Borrowed(text);
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match escape_at(text, at) {
            Some(byte) => {
                plain.push(byte);
                at += 3;
            }
            None => {
                plain.push(text[at]);
                at += 1;
            }
        }
    }
    Cow::Owned(plain)
}

/// Escapes everything but the unreserved characters (RFC 3261 §25.1).
pub fn escape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for &byte in text {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')')
        {
            out.push(byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    out
}

fn escape_at(text: &[u8], at: usize) -> Option<u8> {
    let [b'%', high, low] = *text.get(at..at + 3)? else { return None };
    let digit = |b: u8| char::from(b).to_digit(16);
    // Two hexadecimal digits are below 256.
    Some((digit(high)? * 16 + digit(low)?) as u8)
}

/// Escapes of unreserved characters decoded, those of reserved ones in upper case: equal texts name the same user.
fn normal_escapes(text: &[u8]) -> Vec<u8> {
    let mut normal = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match escape_at(text, at) {
            Some(byte)
                if matches!(byte, b';' | b'/' | b'?' | b':' | b'@' | b'&' | b'=' | b'+' | b'$' | b',' | b'%') =>
            {
                normal.extend_from_slice(format!("%{byte:02X}").as_bytes());
                at += 3;
            }
            Some(byte) => {
                normal.push(byte);
                at += 3;
            }
            None => {
                normal.push(text[at]);
                at += 1;
            }
        }
    }
    normal
}

/// Appends a user part, escaping what the grammar of `user` does not allow (RFC 3261 §25.1).
pub fn escape_user(user: &[u8], out: &mut Vec<u8>) {
    for &byte in user {
        let allowed = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')')
            || matches!(byte, b'&' | b'=' | b'+' | b'$' | b',' | b';' | b'?' | b'/');
        if allowed {
            out.push(byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        Uri::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap_or_else(|_| panic!("{text}"))
    }

    #[test]
    fn every_part_is_found() {
        let uri = uri("SIPS:alice;day=tue:pw@[2001:db8::9:1]:5070;transport=TCP;lr?Subject=a%20b&to=x%40y");
        assert_eq!(uri.scheme(), Scheme::Sips);
        assert_eq!(uri.user(), Some(&b"alice;day=tue"[..]));
        assert_eq!(uri.password(), Some(&b"pw"[..]));
        assert_eq!((uri.host(), uri.port()), (&b"[2001:db8::9:1]"[..], Some(5070)));
        assert_eq!(uri.host_ip(), Some("2001:db8::9:1".parse().unwrap()));
        assert_eq!(uri.param(b"Transport"), Some(&b"TCP"[..]));
        assert!(uri.is_loose());
        let headers: Vec<_> = uri.headers().map(|(n, v)| (n.to_vec(), v.into_owned())).collect();
        assert_eq!(headers, [(b"Subject".to_vec(), b"a b".to_vec()), (b"to".to_vec(), b"x@y".to_vec())]);
    }

    #[test]
    fn headers_are_replaced_and_escaped() {
        let changed = uri("sip:a@b;lr?x=y").with_headers([(&b"Re places"[..], b"a@b;to-tag=1\r\n")].into_iter());
        assert_eq!(changed.as_bytes(), "sip:a@b;lr?Re%20places=a%40b%3Bto-tag%3D1%0D%0A");
        assert_eq!(uri("sip:a@b?x=y").with_headers(std::iter::empty::<(&[u8], &[u8])>()).as_bytes(), "sip:a@b");
        let tel = uri("tel:+1;a=b");
        assert_eq!(tel.with_headers([(&b"x"[..], b"y")].into_iter()).as_bytes(), tel.as_bytes());
    }

    #[test]
    fn malformed_uris_are_refused() {
        for bad in [
            "",
            "sip",
            "sip:",
            "sip:@host",
            "sip:a@",
            "sip:a@b@c",
            "sip:a@b:x",
            "sip:a@b:99999",
            "sip:a@b:",
            "<sip:a@b>",
            "sip:a b@c",
            "sip:[::1",
            "sip:[nonsense]",
            "sip:2001:db8::1",
            "1sip:a@b",
            "tel:",
            "tel:+",
            "tel:abcxyz",
            "sip:a@b/c",
            "sip:a\"@b",
        ] {
            assert!(Uri::parse(Bytes::copy_from_slice(bad.as_bytes())).is_err(), "{bad}");
        }
    }

    #[test]
    fn other_schemes_are_kept_and_known_as_other() {
        let uri = uri("nobodyKnowsThisScheme:totallyopaque");
        assert_eq!((uri.scheme(), uri.scheme_name()), (Scheme::Other, &b"nobodyKnowsThisScheme"[..]));
        assert_eq!((uri.host(), uri.user(), uri.port()), (&b""[..], None, None));
        assert_eq!(uri.with_host(b"x", None), uri);
    }

    #[test]
    fn uris_that_rfc_3261_calls_equivalent_are() {
        for (a, b) in [
            ("sip:%61lice@Atl.Com;transport=TCP", "sip:alice@atl.com;Transport=tcp"),
            ("sip:carol@x.com", "sip:carol@x.com;security=on"),
            (
                "sip:x.com;transport=tcp;method=REGISTER?to=sip:bob%40x.com",
                "SIP:x.com;method=REGISTER;transport=tcp?to=sip:bob%40x.com",
            ),
            ("sip:a@x.com?subject=p%20x&priority=urgent", "sip:a@x.com?priority=urgent&subject=p%20x"),
            ("sip:a@[2001:DB8:0::1]", "sip:a@[2001:db8::1]"),
            ("sip:a@x;%6cR;x%79=%41", "sip:a@x;lr;xy=A"),
            ("sip:a@x;p=1;p=2", "sip:a@x;p=1;p=2"),
            ("tel:+49(30)12-3", "tel:+4930123"),
        ] {
            assert!(uri(a).equivalent(&uri(b)) && uri(b).equivalent(&uri(a)), "{a} {b}");
        }
    }

    #[test]
    fn uris_that_rfc_3261_calls_different_are() {
        for (a, b) in [
            ("sip:ALICE@x.com", "sip:alice@x.com"),
            ("sip:bob@x.com", "sip:bob@x.com:5060"),
            ("sip:bob@x.com", "sip:bob@x.com;transport=udp"),
            ("sip:bob@x.com", "sip:bob@x.com;maddr=10.0.0.1"),
            ("sip:bob@x.com", "sip:bob@x.com?Subject=next"),
            ("sip:bob@x.com", "sips:bob@x.com"),
            ("sip:bob@x.com", "sip:x.com"),
            ("sip:bob:@x.com", "sip:bob@x.com"),
            ("sip:a%3Bb@x.com", "sip:a;b@x.com"),
            ("sip:a@x;p=1", "sip:a@x;p=2"),
            ("tel:123;phone-context=a", "tel:123;phone-context=b"),
        ] {
            assert!(!uri(a).equivalent(&uri(b)) && !uri(b).equivalent(&uri(a)), "{a} {b}");
        }
    }

    #[test]
    fn rewriting_one_part_keeps_the_other_bytes() {
        let from = uri("sip:+49%2030;x@Old.example:5062;User=Phone;a?b=C");
        let at = from.with_address("[::1]:5070".parse().unwrap());
        assert_eq!(at.as_bytes(), "sip:+49%2030;x@[::1]:5070;User=Phone;a?b=C");
        assert_eq!(from.with_host(b"new", None).as_bytes(), "sip:+49%2030;x@new;User=Phone;a?b=C");
        assert_eq!(from.with_user(Some(b"a b@c")).as_bytes(), "sip:a%20b%40c@Old.example:5062;User=Phone;a?b=C");
        assert_eq!(from.with_user(None).as_bytes(), "sip:Old.example:5062;User=Phone;a?b=C");
        assert_eq!(from.with_param(b"a", Some(b"1")).as_bytes(), "sip:+49%2030;x@Old.example:5062;User=Phone;a=1?b=C");
        assert_eq!(from.without_param(b"user").without_headers().as_bytes(), "sip:+49%2030;x@Old.example:5062;a");
    }

    #[test]
    fn a_uri_of_ours_reads_back() {
        for address in ["127.0.0.1:5060", "[2001:db8::1]:5061"] {
            for user in [None, Some(&b"a:b\xff%"[..])] {
                let ours = Uri::sip(user, address.parse().unwrap());
                let read = Uri::parse(ours.as_bytes().clone()).unwrap();
                assert_eq!(read.user_unescaped().as_deref(), user);
                assert_eq!((read.host(), read.port(), read.user()), (ours.host(), ours.port(), ours.user()));
            }
        }
    }
}
