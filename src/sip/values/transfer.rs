//! What a transfer is written in: Refer-To and Refer-Sub (RFC 3515 §2.1, RFC 4488 §4), Replaces (RFC 3891 §6.1),
//! Referred-By (RFC 3892 §3), Target-Dialog (RFC 4538 §7); and Join (RFC 3911 §7.1).

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

/// Which dialog an INVITE wants to talk with, beside those who are in it; the tags as its receiver sees them.
#[derive(Clone, PartialEq, Eq)]
pub struct Join {
    /// The Call-ID.
    pub call_id: Bytes,
    /// The tag that is local for the receiver.
    pub to_tag: Bytes,
    /// The tag that is remote for the receiver; `0` also stands for none.
    pub from_tag: Bytes,
}

impl Join {
    /// The Join of an INVITE, if it has one.
    ///
    /// # Errors
    /// Malformed, more than one, or together with a Replaces: 400 (RFC 3911 §4).
    pub fn of(headers: &Headers) -> Result<Option<Join>, ValueError> {
        let Some(line) = at_most_one(headers, Name::Join, "Join")? else {
            return Ok(None);
        };
        if headers.has(Name::Replaces) {
            return Err(ValueError::ReplacesJoin);
        }
        let (call_id, params) = dialog_id(&line).ok_or(ValueError::Join)?;
        let tag = |name: &[u8]| once(&params, name).ok_or(ValueError::Join);
        Ok(Some(Join { call_id, to_tag: tag(b"to-tag")?, from_tag: tag(b"from-tag")? }))
    }
}

/// Identifiers of a call may hold a caller's address.
impl std::fmt::Debug for Join {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Join")
    }
}

/// The dialog that authorizes a request outside of it; the tags as the request's receiver sees them, because its sender
/// need not be in the dialog.
#[derive(Clone, PartialEq, Eq)]
pub struct TargetDialog {
    /// The Call-ID.
    pub call_id: Bytes,
    /// The tag that is local for the receiver.
    pub local_tag: Bytes,
    /// The tag that is remote for the receiver.
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
            let name = Name::parse(&name);
            // A line would carry a blank in its place, and name another dialog.
            if name == Name::Replaces && value.iter().any(u8::is_ascii_control) {
                return Err(ValueError::Replaces);
            }
            embedded.push(name, value.into_owned());
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

    fn headers(lines: &str) -> Headers {
        let text = format!("REFER sip:a@b SIP/2.0\r\n{lines}\r\n");
        let message = crate::sip::message::Message::parse(&text.into()).unwrap();
        message.headers().clone()
    }

    #[test]
    fn the_names_in_a_refer_to_have_any_case_and_any_escape() {
        let refer = ReferTo::parse(b"<sip:b@c;%6dethod=%42YE?%72EPLACES=a;to-tag=1;from-tag=2>").unwrap();
        assert_eq!((refer.method.clone(), refer.replaces.unwrap().call_id), (Method::Bye, "a".into()));
        assert_eq!(refer.target.encode(), "<sip:b@c>");
    }

    #[test]
    fn the_other_header_fields_of_a_refer_to_are_decoded_onto_one_line_each() {
        let refer = ReferTo::parse(
            b"<sip:b@c?k=replaces&Subject=a%0d%0aX:%20y&Replaces=1%3Bto-tag%3D7%3Bfrom-tag%3D6&x-a=%22q%22>",
        )
        .unwrap();
        let lines: Vec<_> = refer.headers.lines().iter().map(|line| (line.written_name(), &line.raw()[..])).collect();
        let expected = [(&b"Supported"[..], &b"replaces"[..]), (b"Subject", b"a  X: y"), (b"x-a", b"\"q\"")];
        assert_eq!(lines, expected);
        assert_eq!(ReferTo::parse(&refer.encode()).unwrap(), refer);
    }

    #[test]
    fn a_refer_has_exactly_one_refer_to_of_a_scheme_and_a_method_that_we_follow() {
        let table = [
            ("Refer-To: <sip:b@c>\r\n", Ok(())),
            ("r: <sips:b@c;method=INVITE>\r\n", Ok(())),
            ("Refer-To: <tel:+4930123>\r\n", Ok(())),
            ("Refer-To: sip:b@c;method=SUBSCRIBE\r\n", Ok(())),
            ("Refer-To: <sip:b@c;method=BYE>\r\n", Ok(())),
            ("", Err(400)),
            ("Refer-To: <sip:b@c>\r\nr: <sip:b@c>\r\n", Err(400)),
            ("Refer-To: <sip:b@c>, <sip:d@e>\r\n", Err(400)),
            ("Refer-To: b\r\n", Err(400)),
            ("Refer-To: sip:b@c?Replaces=a\r\n", Err(400)),
            ("Refer-To: <sip:b@c?Replaces=a>\r\n", Err(400)),
            ("Refer-To: <sip:b@c?Replaces=a;to-tag=1;from-tag=2&Replaces=b;to-tag=1;from-tag=2>\r\n", Err(400)),
            ("Refer-To: <sip:b@c?Replaces=a;to-tag=1;from-tag=2&Join=b;to-tag=1;from-tag=2>\r\n", Err(400)),
            ("Refer-To: <sip:b@c?a%20b=c>\r\n", Err(400)),
            ("Refer-To: <http://b.c/>\r\n", Err(416)),
            ("Refer-To: <sip:b@c;method=SUBSCRIBE>\r\n", Err(501)),
            ("Refer-To: <sip:b@c;method=invite>\r\n", Err(501)),
        ];
        for (lines, expected) in table {
            assert_eq!(ReferTo::of(&headers(lines)).map(|_| ()).map_err(ReferError::code), expected, "{lines}");
        }
        let many = "x=1&".repeat(MAX_EMBEDDED + 1);
        assert!(ReferTo::parse(format!("<sip:b@c?{}>", &many[4..]).as_bytes()).is_ok());
        assert_eq!(ReferTo::parse(format!("<sip:b@c?{many}>").as_bytes()), Err(ValueError::ReferTo));
    }

    #[test]
    fn a_replaces_has_each_tag_once() {
        for bad in [
            &b"a"[..],
            b"a;from-tag=1;to-tag=",
            b"a;from-tag=1",
            b"a;to-tag=1;to-tag=2;from-tag=3",
            b";to-tag=1;from-tag=2",
            b"a b;to-tag=1;from-tag=2",
            b"a;to-tag=\"1\";from-tag=2",
            b"a;to-tag=1;from-tag=2,b;to-tag=1;from-tag=2",
        ] {
            assert!(Replaces::parse(bad).is_err(), "{}", bad.escape_ascii());
        }
        assert!(ReferTo::parse(b"<sip:b@c?Replaces=a>").is_err());
        let text = "12adf2f34456gs5;to-tag=12345;from-tag=54321;early-only";
        assert_eq!(Replaces::parse(text.as_bytes()).unwrap().encode(), text);
        let text = "87134@171.161.34.23;from-tag=0;x=y;to-tag=24796";
        assert_eq!(Replaces::parse(text.as_bytes()).unwrap().encode(), "87134@171.161.34.23;to-tag=24796;from-tag=0");
    }

    #[test]
    fn a_line_cannot_be_broken_by_what_a_replaces_was_read_from() {
        for escaped in ["a%0d%0aVia:%20x", "a%00", "a%20b"] {
            for value in [format!("{escaped};to-tag=1;from-tag=2"), format!("c;to-tag={escaped};from-tag=2")] {
                let text = format!("<sip:b@c?Replaces={value}>");
                assert_eq!(ReferTo::parse(text.as_bytes()), Err(ValueError::Replaces), "{text}");
            }
        }
    }

    #[test]
    fn an_invite_has_one_replaces_and_no_join_beside_it() {
        let one = "Replaces: a;to-tag=1;from-tag=2\r\n";
        assert_eq!(Replaces::of(&headers("")), Ok(None));
        assert_eq!(Replaces::of(&headers(one)).unwrap().unwrap().call_id, "a");
        assert_eq!(Replaces::of(&headers("Join: a;to-tag=1;from-tag=2\r\n")), Ok(None));
        assert_eq!(Replaces::of(&headers(&one.repeat(2))), Err(ValueError::Repeated("Replaces")));
        assert_eq!(Replaces::of(&headers("Replaces: a\r\n")), Err(ValueError::Replaces));
        let both = format!("{one}Join: a;to-tag=1;from-tag=2\r\n");
        assert_eq!(Replaces::of(&headers(&both)), Err(ValueError::ReplacesJoin));
    }

    #[test]
    fn an_invite_has_one_join_with_each_tag_once_and_no_replaces_beside_it() {
        let one = "Join: a@b;from-tag=2;to-tag=1\r\n";
        assert_eq!(Join::of(&headers("")), Ok(None));
        let join = Join::of(&headers(one)).unwrap().unwrap();
        assert_eq!((&join.call_id[..], &join.to_tag[..], &join.from_tag[..]), (&b"a@b"[..], &b"1"[..], &b"2"[..]));
        assert_eq!(Join::of(&headers(&one.repeat(2))), Err(ValueError::Repeated("Join")));
        for bad in ["a", "a;to-tag=1", "a;to-tag=1;to-tag=1;from-tag=2", ";to-tag=1;from-tag=2", "a;to-tag=;from-tag=2"]
        {
            assert_eq!(Join::of(&headers(&format!("Join: {bad}\r\n"))), Err(ValueError::Join), "{bad}");
        }
        let both = format!("{one}Replaces: a;to-tag=1;from-tag=2\r\n");
        assert_eq!(Join::of(&headers(&both)), Err(ValueError::ReplacesJoin));
    }

    #[test]
    fn a_target_dialog_reads_back() {
        let text = "fa77as7dad8-sd98ajzz@host.example.com;local-tag=kkaz-;remote-tag=6544";
        let target = TargetDialog::of(&headers(&format!("Target-Dialog: {text}\r\n"))).unwrap().unwrap();
        assert_eq!((&target.local_tag[..], &target.remote_tag[..]), (&b"kkaz-"[..], &b"6544"[..]));
        assert_eq!(target.encode(), text);
        assert_eq!(TargetDialog::of(&headers("")), Ok(None));
        for bad in ["a", "a;local-tag=1", "a;local-tag=1;remote-tag=2;remote-tag=3", ";local-tag=1;remote-tag=2"] {
            let lines = format!("Target-Dialog: {bad}\r\n");
            assert_eq!(TargetDialog::of(&headers(&lines)), Err(ValueError::TargetDialog), "{bad}");
        }
        let lines = format!("Target-Dialog: {text}\r\n").repeat(2);
        assert_eq!(TargetDialog::of(&headers(&lines)), Err(ValueError::Repeated("Target-Dialog")));
    }

    #[test]
    fn notifies_are_wanted_unless_refer_sub_says_false() {
        let table = [
            ("", Ok(true)),
            ("Refer-Sub: true\r\n", Ok(true)),
            ("refer-sub: FALSE ;x=y\r\n", Ok(false)),
            ("Refer-Sub: no\r\n", Err(ValueError::ReferSub)),
            ("Refer-Sub: false\r\nRefer-Sub: true\r\n", Err(ValueError::Repeated("Refer-Sub"))),
        ];
        for (lines, expected) in table {
            assert_eq!(refer_sub(&headers(lines)), expected, "{lines}");
        }
    }

    #[test]
    fn a_referred_by_is_carried_as_written() {
        let text = "\"R\" <sip:r@ref.example>;cid=\"20398823.2UWQFN309shb3@ref.example\"";
        let by = referred_by(&headers(&format!("b: {text}\r\n"))).unwrap().unwrap();
        assert_eq!(by.encode(), text);
        assert_eq!(by.uri().user(), Some(&b"r"[..]));
        assert_eq!(referred_by(&headers("")), Ok(None));
        assert_eq!(referred_by(&headers("Referred-By: x\r\n")), Err(ValueError::Uri));
        let twice = "Referred-By: <sip:r@s>\r\n".repeat(2);
        assert_eq!(referred_by(&headers(&twice)), Err(ValueError::Repeated("Referred-By")));
    }
}
