//! The method of a request. Methods are case-sensitive tokens (RFC 3261 §7.1).

use std::fmt;

use bytes::Bytes;

/// A request's method; one that we have no name for is kept as written.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each variant is the method of its name")]
pub enum Method {
    Invite,
    Ack,
    Bye,
    Cancel,
    Options,
    Register,
    Prack,
    Update,
    Info,
    Refer,
    Notify,
    Subscribe,
    Message,
    Publish,
    Other(Bytes),
}

const KNOWN: [(Method, &str); 14] = [
    (Method::Invite, "INVITE"),
    (Method::Ack, "ACK"),
    (Method::Bye, "BYE"),
    (Method::Cancel, "CANCEL"),
    (Method::Options, "OPTIONS"),
    (Method::Register, "REGISTER"),
    (Method::Prack, "PRACK"),
    (Method::Update, "UPDATE"),
    (Method::Info, "INFO"),
    (Method::Refer, "REFER"),
    (Method::Notify, "NOTIFY"),
    (Method::Subscribe, "SUBSCRIBE"),
    (Method::Message, "MESSAGE"),
    (Method::Publish, "PUBLISH"),
];

impl Method {
    /// Reads a method as written; `None` when it is not a token.
    pub fn parse(text: &[u8]) -> Option<Method> {
        match Self::known(text) {
            Some(method) => Some(method),
            None if super::scan::is_token(text) => Some(Method::Other(Bytes::copy_from_slice(text))),
            None => None,
        }
    }

    fn known(text: &[u8]) -> Option<Method> {
        KNOWN.iter().find(|(_, name)| name.as_bytes() == text).map(|(method, _)| method.clone())
    }

    /// The method as it stands on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            // An Other is a token, which is ASCII; built by hand from other bytes it prints as an unknown method.
            Method::Other(text) => std::str::from_utf8(text).unwrap_or("UNKNOWN"),
            known => KNOWN.iter().find(|(method, _)| method == known).map_or("UNKNOWN", |(_, name)| name),
        }
    }

    /// The method as bytes on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        self.as_str().as_bytes()
    }

    /// Whether this is a method that stickytape has a name for.
    pub fn is_known(&self) -> bool {
        !matches!(self, Method::Other(_))
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_method_reads_back() {
        for (method, name) in KNOWN {
            assert_eq!(Method::parse(name.as_bytes()), Some(method.clone()));
            assert_eq!(method.as_str(), name);
        }
    }

    #[test]
    fn methods_are_case_sensitive_and_may_hold_any_token_character() {
        assert_eq!(Method::parse(b"invite"), Some(Method::Other(Bytes::from_static(b"invite"))));
        assert_eq!(Method::parse(b"!a%b*_+`'~Z.-9").unwrap().as_str(), "!a%b*_+`'~Z.-9");
        assert_eq!(Method::parse(b"IN VITE"), None);
        assert_eq!(Method::parse(b""), None);
        assert_eq!(Method::parse("INVITÉ".as_bytes()), None);
    }
}
