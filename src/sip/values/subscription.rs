//! Event and Subscription-State (RFC 6665 §8.4, §4.1.3).

use std::borrow::Cow;

use bytes::Bytes;

use super::ValueError;
use super::params::Params;
use crate::sip::headers::Headers;
use crate::sip::name::Name;
use crate::sip::scan;

/// An event package and which of its subscriptions is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPackage {
    /// `refer`, `talk`, `conference` … as written; names compare with case.
    pub name: Bytes,
    /// `id`: of a REFER its CSeq number (RFC 3515 §2.4.6).
    pub id: Option<Bytes>,
}

impl EventPackage {
    /// A package without an id.
    pub fn new(name: &'static str) -> Self {
        Self { name: Bytes::from_static(name.as_bytes()), id: None }
    }

    /// The subscription that a REFER with this CSeq number has made. `None`: the only one of its dialog, which some
    /// phones know only without an id.
    pub fn refer(cseq: Option<u32>) -> Self {
        Self { id: cseq.map(|cseq| cseq.to_string().into()), ..Self::new("refer") }
    }

    /// Reads a value.
    pub fn parse(value: &[u8]) -> Result<EventPackage, ValueError> {
        let (name, params) = word_and_params(value).ok_or(ValueError::Event)?;
        let id = match params.get(b"id") {
            Some(id) if scan::is_token(id) => Some(Bytes::copy_from_slice(id)),
            Some(_) => return Err(ValueError::Event),
            None => None,
        };
        Ok(EventPackage { name, id })
    }

    /// The Event of a SUBSCRIBE or NOTIFY.
    ///
    /// # Errors
    /// None, more than one, or malformed.
    pub fn of(headers: &Headers) -> Result<EventPackage, ValueError> {
        Self::parse(&exactly_one(headers, Name::Event, "Event")?)
    }

    /// The value for the wire.
    pub fn encode(&self) -> Bytes {
        match &self.id {
            Some(id) => [&self.name[..], b";id=", id].concat().into(),
            None => self.name.clone(),
        }
    }
}

/// How a subscription stands after a NOTIFY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscriptionState {
    /// It goes on.
    Active {
        /// For so many seconds, if said.
        expires: Option<u32>,
    },
    /// It waits for somebody's permission.
    Pending {
        /// For so many seconds, if said.
        expires: Option<u32>,
    },
    /// This was its last NOTIFY.
    Terminated {
        /// `noresource`, `timeout`, `rejected` … , if said.
        reason: Option<Bytes>,
    },
    /// A state that RFC 6665 does not know, as written.
    Other(Bytes),
}

impl SubscriptionState {
    /// The end of a subscription, with its reason.
    pub fn terminated(reason: &'static str) -> Self {
        Self::Terminated { reason: Some(Bytes::from_static(reason.as_bytes())) }
    }

    /// Reads a value.
    pub fn parse(value: &[u8]) -> Result<SubscriptionState, ValueError> {
        let (word, params) = word_and_params(value).ok_or(ValueError::SubscriptionState)?;
        let expires = params.get(b"expires").map(super::fields::number).transpose();
        let expires = expires.map_err(|_| ValueError::SubscriptionState)?;
        let reason = params.get(b"reason").filter(|reason| scan::is_token(reason)).map(Bytes::copy_from_slice);
        Ok(match &word.to_ascii_lowercase()[..] {
            b"active" => Self::Active { expires },
            b"terminated" => Self::Terminated { reason },
            b"pending" => Self::Pending { expires },
            _ => Self::Other(word),
        })
    }

    /// The Subscription-State of a NOTIFY.
    ///
    /// # Errors
    /// None, more than one, or malformed.
    pub fn of(headers: &Headers) -> Result<SubscriptionState, ValueError> {
        Self::parse(&exactly_one(headers, Name::SubscriptionState, "Subscription-State")?)
    }

    /// The value for the wire.
    pub fn encode(&self) -> Bytes {
        let (word, name, value) = match self {
            Self::Active { expires } => ("active", "expires", expires.map(|seconds| seconds.to_string().into())),
            Self::Pending { expires } => ("pending", "expires", expires.map(|seconds| seconds.to_string().into())),
            Self::Terminated { reason } => ("terminated", "reason", reason.clone()),
            Self::Other(word) => return word.clone(),
        };
        match value {
            Some(value) => [word.as_bytes(), b";", name.as_bytes(), b"=", &value].concat().into(),
            None => Bytes::from_static(word.as_bytes()),
        }
    }
}

fn word_and_params(value: &[u8]) -> Option<(Bytes, Params)> {
    let text = Bytes::copy_from_slice(scan::trim(value));
    let end = text.iter().position(|b| *b == b';').unwrap_or(text.len());
    let word = scan::trim(&text[..end]);
    let params = Params::parse(text.slice(end..)).ok()?;
    scan::is_token(word).then(|| (text.slice_ref(word), params))
}

fn exactly_one<'a>(headers: &'a Headers, name: Name<'a>, text: &'static str) -> Result<Cow<'a, [u8]>, ValueError> {
    match headers.count(name) {
        0 => Err(ValueError::Missing(text)),
        1 => headers.get(name).ok_or(ValueError::Missing(text)),
        _ => Err(ValueError::Repeated(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_names_its_package_and_its_subscription() {
        for text in ["refer", "refer;id=93809824", "conference"] {
            assert_eq!(EventPackage::parse(text.as_bytes()).unwrap().encode(), text);
        }
        assert_eq!(EventPackage::refer(Some(7)).encode(), "refer;id=7");
        assert_eq!(EventPackage::parse(b" refer ; x=y;ID=7 ").unwrap(), EventPackage::refer(Some(7)));
        for bad in [&b""[..], b";id=1", b"refer;id=", b"refer;id", b"refer;id=\"1\"", b"a b"] {
            assert_eq!(EventPackage::parse(bad), Err(ValueError::Event), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn a_subscription_state_reads_back() {
        let table = [
            ("active;expires=60", SubscriptionState::Active { expires: Some(60) }),
            ("pending", SubscriptionState::Pending { expires: None }),
            ("terminated;reason=noresource", SubscriptionState::terminated("noresource")),
            ("terminated", SubscriptionState::Terminated { reason: None }),
            ("waiting", SubscriptionState::Other("waiting".into())),
        ];
        for (text, state) in table {
            assert_eq!(SubscriptionState::parse(text.as_bytes()).as_ref(), Ok(&state));
            assert_eq!(state.encode(), text);
        }
        assert_eq!(
            SubscriptionState::parse(b"Active ;retry-after=5; expires=9"),
            Ok(SubscriptionState::Active { expires: Some(9) })
        );
        for bad in [&b""[..], b"active;expires=soon", b"active terminated"] {
            assert_eq!(SubscriptionState::parse(bad), Err(ValueError::SubscriptionState));
        }
    }

    #[test]
    fn each_stands_exactly_once() {
        let mut headers = Headers::new();
        assert_eq!(EventPackage::of(&headers), Err(ValueError::Missing("Event")));
        headers.push(Name::Event, "refer");
        headers.push(Name::SubscriptionState, "active");
        assert_eq!(EventPackage::of(&headers), Ok(EventPackage::new("refer")));
        assert_eq!(SubscriptionState::of(&headers), Ok(SubscriptionState::Active { expires: None }));
        headers.push(Name::Event, "refer");
        headers.push(Name::SubscriptionState, "active");
        assert_eq!(EventPackage::of(&headers), Err(ValueError::Repeated("Event")));
        assert_eq!(SubscriptionState::of(&headers), Err(ValueError::Repeated("Subscription-State")));
    }
}
