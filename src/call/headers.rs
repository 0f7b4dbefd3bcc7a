//! Which header lines and body parts cross from one leg to the other: the table of spec/sip.md §4.
//!
//! Lines that pass keep their bytes, folds included, and their order.

use bytes::{BufMut, Bytes, BytesMut};

use crate::id::{CallUuid, ConnId};
use crate::sip::endpoint::Body;
use crate::sip::headers::Headers;
use crate::sip::name::Name;

/// Most parts of a multipart body that are looked at; a body with more passes nothing but its SDP.
const MAX_PARTS: usize = 16;

/// The lines of a request or response that pass to the other leg. `trusted`: both peers are.
pub(super) fn passed(from: &Headers, trusted: bool) -> Headers {
    let mut to = Headers::new();
    for line in from.lines() {
        if passes(line.name(), trusted) {
            to.push_line(line.clone());
        }
    }
    to
}

/// As [`passed`], and what a failure carries besides: Warning (spec/sip.md §3).
pub(super) fn passed_failure(from: &Headers, trusted: bool) -> Headers {
    let mut to = passed(from, trusted);
    for line in from.all(Name::Warning) {
        to.push_line(line.clone());
    }
    to
}

/// Takes the caller's own identities from a request to a peer that is shown another one (`caller-id`).
pub(super) fn hide_caller(headers: &mut Headers) {
    headers.remove(Name::PAssertedIdentity);
    headers.remove(Name::PPreferredIdentity);
}

/// Which call it is, for DNs.
pub(super) fn name_call(headers: &mut Headers, conn_id: ConnId, uuid: CallUuid) {
    headers.push(Name::XStickytapeConnId, conn_id.to_string());
    headers.push(Name::XStickytapeCallUuid, uuid.to_string());
}

fn passes(name: Name<'_>, trusted: bool) -> bool {
    match name {
        Name::Subject
        | Name::Organization
        | Name::Priority
        | Name::UserToUser
        | Name::SessionId
        | Name::AlertInfo
        | Name::CallInfo
        | Name::Reason
        | Name::HistoryInfo
        | Name::Diversion
        | Name::Privacy
        | Name::AcceptLanguage
        | Name::Geolocation
        | Name::PPreferredIdentity => true,
        Name::PAssertedIdentity | Name::PChargingVector | Name::Identity => trusted,
        Name::Other(written) => {
            let prefix = written.get(..2).unwrap_or_default();
            let ours = written.get(..13).is_some_and(|p| p.eq_ignore_ascii_case(b"x-stickytape-"));
            (prefix.eq_ignore_ascii_case(b"x-") || prefix.eq_ignore_ascii_case(b"p-")) && !ours
        }
        _ => false,
    }
}

/// The body of a message, taken apart.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    /// The first session description.
    pub sdp: Option<Bytes>,
    /// Everything else: the header block and the content of each part.
    others: Vec<Part>,
}

#[derive(Debug, Clone)]
struct Part {
    /// `Content-Type: …` and what else stands above the part's content, without the blank line.
    head: Bytes,
    content: Bytes,
}

impl Content {
    /// Reads the body of a message.
    pub(super) fn of(headers: &Headers, body: &Bytes) -> Self {
        if body.is_empty() {
            return Self::default();
        }
        let content_type = headers.get(Name::ContentType).map(|v| v.into_owned()).unwrap_or_default();
        if is_type(&content_type, b"application/sdp") {
            return Self { sdp: Some(body.clone()), others: Vec::new() };
        }
        if content_type.get(..10).is_some_and(|t| t.eq_ignore_ascii_case(b"multipart/"))
            && let Some(boundary) = boundary(&content_type)
        {
            return Self::of_parts(body, &boundary);
        }
        let mut head = BytesMut::from(&b"Content-Type: "[..]);
        head.put_slice(&content_type);
        for name in [Name::ContentDisposition, Name::ContentEncoding, Name::ContentLanguage] {
            if let Some(value) = headers.get(name) {
                head.put_slice(b"\r\n");
                head.put_slice(match name {
                    Name::ContentDisposition => b"Content-Disposition: ",
                    Name::ContentEncoding => b"Content-Encoding: ",
                    _ => b"Content-Language: ",
                });
                head.put_slice(&value);
            }
        }
        Self { sdp: None, others: vec![Part { head: head.freeze(), content: body.clone() }] }
    }

    fn of_parts(body: &Bytes, boundary: &[u8]) -> Self {
        let mut delimiter = b"--".to_vec();
        delimiter.extend_from_slice(boundary);
        let starts: Vec<usize> = find_all(body, &delimiter).collect();
        let mut content = Self::default();
        if starts.len() > MAX_PARTS + 1 {
            return content;
        }
        for pair in starts.windows(2) {
            let inner = body.slice(pair[0] + delimiter.len()..pair[1]);
            let Some(part) = part(&inner) else { continue };
            let is_sdp = part.head.split(|b| *b == b'\n').any(|line| {
                line.get(..13).is_some_and(|n| n.eq_ignore_ascii_case(b"content-type:"))
                    && is_type(line[13..].trim_ascii(), b"application/sdp")
            });
            match is_sdp && content.sdp.is_none() {
                true => content.sdp = Some(part.content),
                false => content.others.push(part),
            }
        }
        content
    }

    /// The body for the other leg: `sdp` of ours and the parts that are not SDP.
    pub(super) fn with(&self, sdp: Option<Bytes>) -> Option<Body> {
        if self.others.is_empty() {
            return sdp.map(Body::sdp);
        }
        if let (None, [only]) = (&sdp, self.others.as_slice())
            && let Some(content_type) = only.head.strip_prefix(b"Content-Type: ")
            && !content_type.contains(&b'\n')
        {
            let content_type = Bytes::copy_from_slice(content_type);
            return Some(Body { content_type, bytes: only.content.clone() });
        }
        let mut bytes = BytesMut::new();
        let boundary = self.fresh_boundary(sdp.as_ref());
        let mut add = |head: &[u8], content: &[u8]| {
            bytes.put_slice(b"--");
            bytes.put_slice(boundary.as_bytes());
            bytes.put_slice(b"\r\n");
            bytes.put_slice(head);
            bytes.put_slice(b"\r\n\r\n");
            bytes.put_slice(content);
            bytes.put_slice(b"\r\n");
        };
        if let Some(sdp) = &sdp {
            add(b"Content-Type: application/sdp", sdp);
        }
        for part in &self.others {
            add(&part.head, &part.content);
        }
        bytes.put_slice(format!("--{boundary}--\r\n").as_bytes());
        let content_type = format!("multipart/mixed;boundary=\"{boundary}\"").into();
        Some(Body { content_type, bytes: bytes.freeze() })
    }

    /// A boundary that stands in none of the parts.
    fn fresh_boundary(&self, sdp: Option<&Bytes>) -> String {
        let contents = || self.others.iter().map(|p| &p.content).chain(sdp);
        let mut number = 0u32;
        loop {
            let boundary = format!("stickytape-{number}");
            if !contents().any(|c| find_all(c, boundary.as_bytes()).next().is_some()) {
                return boundary;
            }
            number += 1;
        }
    }
}

fn is_type(content_type: &[u8], wanted: &[u8]) -> bool {
    let plain = content_type.split(|b| *b == b';').next().unwrap_or_default();
    plain.trim_ascii().eq_ignore_ascii_case(wanted)
}

fn boundary(content_type: &[u8]) -> Option<Vec<u8>> {
    let parameter = content_type.split(|b| *b == b';').map(<[u8]>::trim_ascii).find_map(|p| {
        let name = p.get(..9)?;
        name.eq_ignore_ascii_case(b"boundary=").then(|| &p[9..])
    })?;
    let plain = parameter.strip_prefix(b"\"").and_then(|p| p.strip_suffix(b"\"")).unwrap_or(parameter);
    (!plain.is_empty() && plain.len() <= 70).then(|| plain.to_vec())
}

/// Positions of a delimiter line: at the start or after a line end (RFC 2046 §5.1.1).
fn find_all<'a>(haystack: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let last = (haystack.len() + 1).saturating_sub(needle.len());
    (0..last).filter(move |at| {
        haystack[*at..].starts_with(needle) && (*at == 0 || haystack[at - 1] == b'\n' || needle[0] != b'-')
    })
}

/// What stands between two delimiters: line end, head, blank line, content, line end.
fn part(inner: &Bytes) -> Option<Part> {
    let start = inner.iter().position(|b| *b == b'\n')? + 1;
    let inner = inner.slice(start..);
    let end = inner.strip_suffix(b"\r\n").or(inner.strip_suffix(b"\n"))?.len();
    let inner = inner.slice(..end);
    let (head, skip) = match (find(&inner, b"\r\n\r\n"), find(&inner, b"\n\n")) {
        (Some(at), None) => (at, 4),
        (Some(at), Some(other)) if at < other => (at, 4),
        (_, Some(at)) => (at, 2),
        (None, None) => return None,
    };
    Some(Part { head: inner.slice(..head), content: inner.slice(head + skip..) })
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::message::Message;

    fn headers(lines: &str) -> Headers {
        let text = format!("INVITE sip:a@b SIP/2.0\r\n{lines}\r\n\r\n");
        match Message::parse(&Bytes::from(text)) {
            Ok(message) => message.headers().clone(),
            Err(error) => panic!("{error:?}"),
        }
    }

    fn names(headers: &Headers) -> Vec<String> {
        headers.lines().iter().map(|l| String::from_utf8_lossy(l.written_name()).into_owned()).collect()
    }

    const BASE: &str = "Via: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:b@b>\r\n\
        Call-ID: 1\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\n";

    #[test]
    fn listed_and_extension_headers_pass_and_ours_and_consumed_ones_do_not() {
        let all = headers(&format!(
            "{BASE}s: hello\r\nContact: <sip:a@b>\r\nX-Thing: 1\r\nAllow: INVITE\r\nP-Early-Media: x\r\n\
             Reason: Q.850;cause=1\r\nUser-Agent: u\r\nReplaces: r\r\nRefer-To: <sip:x@y>\r\n\
             X-Stickytape-ConnID: 1\r\nX-Stickytape-Other: 1\r\nx-lower: 2\r\nRoute: <sip:r>\r\nRequire: r\r\n\
             Privacy: id\r\nUnknown: u\r\nUser-to-User: 00"
        ));
        assert_eq!(
            names(&passed(&all, false)),
            ["s", "X-Thing", "P-Early-Media", "Reason", "x-lower", "Privacy", "User-to-User"]
        );
    }

    #[test]
    fn identity_headers_pass_between_trusted_peers_only() {
        let all = headers(&format!("{BASE}P-Asserted-Identity: <sip:a@b>\r\nIdentity: x\r\nP-Charging-Vector: y"));
        assert!(names(&passed(&all, false)).is_empty());
        assert_eq!(names(&passed(&all, true)).len(), 3);
    }

    #[test]
    fn a_line_that_passes_keeps_its_bytes() {
        let all = headers(&format!("{BASE}SUBJECT:   caf\u{e9},\r\n  folded"));
        let passed = passed(&all, false);
        assert_eq!(passed.lines()[0].written_name(), b"SUBJECT");
        assert_eq!(&passed.lines()[0].raw()[..], "caf\u{e9},\r\n  folded".as_bytes());
    }

    fn content(content_type: &str, body: &str) -> Content {
        let headers = headers(&format!("{BASE}Content-Type: {content_type}"));
        Content::of(&headers, &Bytes::copy_from_slice(body.as_bytes()))
    }

    #[test]
    fn parts_other_than_sdp_cross_beside_our_own_sdp() {
        let body = "preamble\r\n--x\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n\r\n--x\r\n\
            Content-Type: application/isup;v=1\r\nContent-Disposition: signal\r\n\r\n\u{1}\r\n--x--\r\n";
        let content = content("multipart/mixed; boundary=\"x\"", body);
        assert_eq!(content.sdp.as_deref(), Some(&b"v=0\r\n"[..]));
        let out = content.with(Some(Bytes::from_static(b"v=ours\r\n"))).unwrap();
        let text = String::from_utf8_lossy(&out.bytes).into_owned();
        assert!(text.contains("v=ours\r\n") && !text.contains("v=0\r\n"), "{text}");
        assert!(text.contains("Content-Type: application/isup;v=1\r\nContent-Disposition: signal\r\n\r\n\u{1}\r\n"));
        let boundary = boundary(&out.content_type).unwrap();
        let again = Content::of_parts(&out.bytes, &boundary);
        assert_eq!((again.sdp.as_deref(), again.others.len()), (Some(&b"v=ours\r\n"[..]), 1));
    }

    #[test]
    fn a_single_other_body_crosses_as_it_is_and_plain_sdp_is_replaced() {
        let dtmf = content("application/dtmf-relay", "Signal=1\r\n");
        let out = dtmf.with(None).unwrap();
        assert_eq!((&out.content_type[..], &out.bytes[..]), (&b"application/dtmf-relay"[..], &b"Signal=1\r\n"[..]));
        let sdp = content("application/SDP; charset=x", "v=0\r\n");
        assert!(sdp.sdp.is_some());
        assert_eq!(sdp.with(None), None);
        assert_eq!(sdp.with(Some(Bytes::from_static(b"o"))), Some(Body::sdp(&b"o"[..])));
    }

    #[test]
    fn broken_multiparts_lose_parts_and_never_panic() {
        for body in ["", "--x", "--x\r\n--x--", "--x\n\n--x", "--x\r\nno end", "--x--x--x--x"] {
            let content = content("multipart/mixed;boundary=x", body);
            assert!(content.sdp.is_none());
            content.with(Some(Bytes::new()));
        }
        let many = "--x\r\n\r\n\r\n".repeat(40);
        assert!(content("multipart/mixed;boundary=x", &many).others.is_empty());
    }
}
