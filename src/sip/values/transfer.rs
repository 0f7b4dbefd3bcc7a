//! What a transfer is written in: Refer-To and Refer-Sub (RFC 3515 §2.1, RFC 4488 §4), Replaces (RFC 3891 §6.1),
//! Referred-By (RFC 3892 §3), Target-Dialog (RFC 4538 §7).

use bytes::Bytes;

use super::ValueError;
use super::address::NameAddr;
use super::params::Params;
use super::uri::{Scheme, escape, unescape};
use crate::sip::headers::Headers;
use crate::sip::method::Method;
use crate::sip::name::Name;
use crate::sip::scan;

/// Most header fields of a Refer-To URI that are read; one with more is malformed.
const MAX_EMBEDDED: usize = 16;

/// Which dialog an INVITE replaces; the tags as its receiver sees them.
#[derive(Clone, PartialEq, Eq)]
pub struct Replaces {
    /// The Call-ID.
    pub call_id: Bytes,
    /// The tag that is local for the receiver.
    pub to_tag: Bytes,
    /// The tag that is remote for the receiver; `0` also stands for none (RFC 2543 peers).
    pub from_tag: Bytes,
    /// Only an early dialog may be replaced.
    pub early_only: bool,
}

impl Replaces {
    /// Reads a value (without %-escapes: those of a Refer-To are decoded by [`super::Uri::headers`]).
    pub fn parse(value: &[u8]) -> Result<Replaces, ValueError> {
        let (call_id, params) = dialog_id(value).ok_or(ValueError::Replaces)?;
        let tag = |name: &[u8]| once(&params, name).ok_or(ValueError::Replaces);
        Ok(Replaces {
            call_id,
            to_tag: tag(b"to-tag")?,
            from_tag: tag(b"from-tag")?,
            early_only: params.has(b"early-only"),
        })
    }

    /// The Replaces of an INVITE, if it has one.
    ///
    /// # Errors
    /// Malformed, more than one, or together with a Join, which contradicts it: 400 (RFC 3891 §3, RFC 3911 §4).
    pub fn of(headers: &Headers) -> Result<Option<Replaces>, ValueError> {
        let Some(line) = at_most_one(headers, Name::Replaces, "Replaces")? else {
            return Ok(None);
        };
        if headers.has(Name::Join) {
            return Err(ValueError::ReplacesJoin);
        }
        Self::parse(&line).map(Some)
    }

    /// The value for the wire.
    pub fn encode(&self) -> Bytes {
        let mut out = self.call_id.to_vec();
        for (name, tag) in [(&b";to-tag="[..], &self.to_tag), (b";from-tag=", &self.from_tag)] {
            out.extend_from_slice(name);
            out.extend_from_slice(tag);
        }
        if self.early_only {
            out.extend_from_slice(b";early-only");
        }
        out.into()
    }
}

/// Identifiers of a call may hold a caller's address.
impl std::fmt::Debug for Replaces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replaces(early_only: {})", self.early_only)
    }
}

/// The dialog that authorizes a request outside of it.
#[derive(Clone, PartialEq, Eq)]
pub struct TargetDialog {
    /// The Call-ID.
    pub call_id: Bytes,
    /// `local-tag`: the tag of the request's sender.
    pub local_tag: Bytes,
    /// `remote-tag`: the tag of the request's receiver.
    pub remote_tag: Bytes,
}

impl TargetDialog {
    /// Reads a value.
    pub fn parse(value: &[u8]) -> Result<TargetDialog, ValueError> {
        let (call_id, params) = dialog_id(value).ok_or(ValueError::TargetDialog)?;
        let tag = |name: &[u8]| once(&params, name).ok_or(ValueError::TargetDialog);
        Ok(TargetDialog { call_id, local_tag: tag(b"local-tag")?, remote_tag: tag(b"remote-tag")? })
    }

    /// The Target-Dialog of a request, if it has one.
    ///
    /// # Errors
    /// Malformed, or more than one: 400.
    pub fn of(headers: &Headers) -> Result<Option<TargetDialog>, ValueError> {
        at_most_one(headers, Name::TargetDialog, "Target-Dialog")?.map(|value| Self::parse(&value)).transpose()
    }

    /// The value for the wire.
    pub fn encode(&self) -> Bytes {
        [&self.call_id[..], b";local-tag=", &self.local_tag, b";remote-tag=", &self.remote_tag].concat().into()
    }
}

/// Identifiers of a call may hold a caller's address.
impl std::fmt::Debug for TargetDialog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TargetDialog")
    }
}

/// Why a REFER is refused for its Refer-To.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReferError {
    /// None, more than one, or malformed.
    #[error("{0}")]
    Malformed(#[from] ValueError),
    /// A URI that is neither sip, sips nor tel.
    #[error("Unsupported URI scheme in Refer-To")]
    Scheme,
    /// A `method` that is neither INVITE nor BYE.
    #[error("Unsupported method in Refer-To")]
    Method,
}

impl ReferError {
    /// The status code of the refusal (RFC 3515 §2.4.2; RFC 3261 §21.4.14, §21.5.2).
    pub fn code(self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::Scheme => 416,
            Self::Method => 501,
        }
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
    /// The other header fields of the URI, decoded, in order; they come from the referrer: what of them is used is for
    /// the caller to choose (RFC 3261 §19.1.5).
    pub headers: Headers,
}

impl ReferTo {
    /// Reads a value. A Replaces that is malformed makes the whole malformed.
    pub fn parse(value: &[u8]) -> Result<ReferTo, ValueError> {
        let mut target = NameAddr::parse(value)?;
        let method = match target.uri().param(b"method") {
            Some(method) => Method::parse(&unescape(method)).ok_or(ValueError::Uri)?,
            None => Method::Invite,
        };
        let mut embedded = Headers::new();
        for (name, value) in target.uri().headers() {
            let name = unescape(name);
            if !scan::is_token(&name) || embedded.lines().len() == MAX_EMBEDDED {
                return Err(ValueError::ReferTo);
            }
            embedded.push(Name::parse(&name), value.into_owned());
        }
        let replaces = Replaces::of(&embedded)?;
        embedded.remove(Name::Replaces);
        target.set_uri(target.uri().without_param(b"method").without_headers());
        Ok(ReferTo { target, method, replaces, headers: embedded })
    }

    /// The Refer-To of a REFER: exactly one, of a scheme and a method that a transfer or a conference can follow.
    ///
    /// # Errors
    /// [`ReferError`], with the status code of the refusal.
    pub fn of(headers: &Headers) -> Result<ReferTo, ReferError> {
        let value = at_most_one(headers, Name::ReferTo, "Refer-To")?.ok_or(ValueError::Missing("Refer-To"))?;
        let refer = Self::parse(&value)?;
        if refer.target.uri().scheme() == Scheme::Other {
            return Err(ReferError::Scheme);
        }
        if !matches!(refer.method, Method::Invite | Method::Bye) {
            return Err(ReferError::Method);
        }
        Ok(refer)
    }

    /// The value for the wire, that of [`ReferTo::parse`] but for parameters and header fields in another order.
    pub fn encode(&self) -> Bytes {
        let mut target = self.target.clone();
        let mut uri = target.uri().clone();
        if self.method != Method::Invite {
            uri = uri.with_param(b"method", Some(&escape(self.method.as_bytes())));
        }
        let replaces = self.replaces.as_ref().map(|replaces| (&b"Replaces"[..], replaces.encode()));
        let others = self.headers.lines().iter().map(|line| (line.written_name(), line.value().into_owned().into()));
        uri = uri.with_headers(replaces.into_iter().chain(others));
        target.set_uri(uri);
        target.encode()
    }
}

/// Whether the sender of a REFER wants to be told how it goes: Refer-Sub, true when it is absent (RFC 4488 §4).
///
/// # Errors
/// Neither `true` nor `false`, or more than one: 400.
pub fn refer_sub(headers: &Headers) -> Result<bool, ValueError> {
    let Some(value) = at_most_one(headers, Name::ReferSub, "Refer-Sub")? else {
        return Ok(true);
    };
    let end = value.iter().position(|b| *b == b';').unwrap_or(value.len());
    match scan::trim(&value[..end]) {
        word if word.eq_ignore_ascii_case(b"true") => Ok(true),
        word if word.eq_ignore_ascii_case(b"false") => Ok(false),
        _ => Err(ValueError::ReferSub),
    }
}

/// Who has sent the REFER that caused this request, or sends this REFER (RFC 3892 §3). Its `cid` parameter names a body
/// part that proves it: it means nothing in a request without that part.
///
/// # Errors
/// Malformed, or more than one: 400.
pub fn referred_by(headers: &Headers) -> Result<Option<NameAddr>, ValueError> {
    at_most_one(headers, Name::ReferredBy, "Referred-By")?.map(|value| NameAddr::parse(&value)).transpose()
}

/// `call-id;params` of a header field that names a dialog.
fn dialog_id(value: &[u8]) -> Option<(Bytes, Params)> {
    let text = Bytes::copy_from_slice(scan::trim(value));
    let end = text.iter().position(|b| *b == b';')?;
    let call_id = scan::trim(&text[..end]);
    let params = Params::parse(text.slice(end..)).ok()?;
    is_identifier(call_id).then(|| (text.slice_ref(call_id), params))
}

/// The value of a parameter that must stand there exactly once; `None` otherwise.
fn once(params: &Params, name: &[u8]) -> Option<Bytes> {
    let count = params.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).count();
    params.get(name).filter(|tag| count == 1 && is_identifier(tag)).map(Bytes::copy_from_slice)
}

/// What may stand in a Call-ID or a tag: no byte that could end the value or the line that it is written to.
fn is_identifier(text: &[u8]) -> bool {
    !text.is_empty() && !text.iter().any(|b| matches!(b, 0..=b' ' | 0x7f | b';' | b'"' | b','))
}

fn at_most_one<'a>(
    headers: &'a Headers,
    name: Name<'a>,
    text: &'static str,
) -> Result<Option<std::borrow::Cow<'a, [u8]>>, ValueError> {
    match headers.count(name) {
        0 | 1 => Ok(headers.get(name)),
        _ => Err(ValueError::Repeated(text)),
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
