//! Refer-To and Replaces (RFC 3515 §2.1, RFC 3891 §6.1).

use bytes::Bytes;

use super::ValueError;
use super::address::NameAddr;
use super::params::Params;
use crate::sip::method::Method;
use crate::sip::scan;

/// Which dialog an INVITE replaces; the tags as its receiver sees them.
#[derive(Clone, PartialEq, Eq)]
pub struct Replaces {
    /// The Call-ID.
    pub call_id: Bytes,
    /// The tag that is local for the receiver.
    pub to_tag: Bytes,
    /// The tag that is remote for the receiver.
    pub from_tag: Bytes,
    /// Only an early dialog may be replaced.
    pub early_only: bool,
}

impl Replaces {
    /// Reads a value (without %-escapes: those of a Refer-To are decoded by [`super::Uri::headers`]).
    pub fn parse(value: &[u8]) -> Result<Replaces, ValueError> {
        let text = Bytes::copy_from_slice(scan::trim(value));
        let end = text.iter().position(|b| *b == b';').ok_or(ValueError::Replaces)?;
        let call_id = scan::trim(&text[..end]);
        let params = Params::parse(text.slice(end..)).map_err(|_| ValueError::Replaces)?;
        let tag = |name: &[u8]| {
            let once = params.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).count() == 1;
            params
                .get(name)
                .filter(|tag| once && !tag.is_empty())
                .map(Bytes::copy_from_slice)
                .ok_or(ValueError::Replaces)
        };
        if call_id.is_empty() || call_id.iter().any(|b| scan::is_space(*b)) {
            return Err(ValueError::Replaces);
        }
        Ok(Replaces {
            call_id: text.slice_ref(call_id),
            to_tag: tag(b"to-tag")?,
            from_tag: tag(b"from-tag")?,
            early_only: params.has(b"early-only"),
        })
    }
}

/// Identifiers of a call may hold a caller's address.
impl std::fmt::Debug for Replaces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replaces(early_only: {})", self.early_only)
    }
}

/// Where a REFER points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferTo {
    /// The target, without the parts below.
    pub target: NameAddr,
    /// The `method` URI parameter, INVITE when it is absent.
    pub method: Method,
    /// The dialog that the new INVITE replaces.
    pub replaces: Option<Replaces>,
}

impl ReferTo {
    /// Reads a value. A Replaces that is malformed makes the whole malformed.
    pub fn parse(value: &[u8]) -> Result<ReferTo, ValueError> {
        let mut target = NameAddr::parse(value)?;
        let method = match target.uri().param(b"method") {
            Some(method) => Method::parse(method).ok_or(ValueError::Uri)?,
            None => Method::Invite,
        };
        let replaces = target
            .uri()
            .headers()
            .find(|(name, _)| name.eq_ignore_ascii_case(b"Replaces"))
            .map(|(_, value)| Replaces::parse(&value))
            .transpose()?;
        target.set_uri(target.uri().without_param(b"method").without_headers());
        Ok(ReferTo { target, method, replaces })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refer_to_yields_target_method_and_dialog() {
        let refer = ReferTo::parse(
            b"\"B\" <sip:b@c;method=INVITE;x=1?Replaces=1%40z%3Bto-tag%3D7%3Bfrom-tag%3D6%3Bearly-only&A=b>",
        )
        .unwrap();
        assert_eq!(refer.target.encode(), "\"B\" <sip:b@c;x=1>");
        let replaces = refer.replaces.unwrap();
        assert_eq!(
            (&replaces.call_id[..], &replaces.to_tag[..], &replaces.from_tag[..]),
            (&b"1@z"[..], &b"7"[..], &b"6"[..])
        );
        assert!(replaces.early_only);
        assert_eq!(ReferTo::parse(b"sip:b@c;method=BYE").unwrap().method, Method::Invite);
        assert_eq!(ReferTo::parse(b"<sip:b@c;method=BYE>").unwrap().method, Method::Bye);
    }

    #[test]
    fn a_replaces_has_each_tag_once() {
        for bad in [
            &b"a"[..],
            b"a;to-tag=1",
            b"a;from-tag=1;to-tag=",
            b"a;to-tag=1;to-tag=2;from-tag=3",
            b";to-tag=1;from-tag=2",
        ] {
            assert!(Replaces::parse(bad).is_err());
        }
        assert!(ReferTo::parse(b"<sip:b@c?Replaces=a>").is_err());
    }
}
