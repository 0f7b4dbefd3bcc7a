//! What every message must have (RFC 3261 §8.1.1), read once.

use bytes::Bytes;

use super::{CSeq, Contacts, NameAddr, Uri, ValueError, Via, fields};
use crate::sip::headers::Headers;
use crate::sip::message::{Request, Response};
use crate::sip::method::Method;
use crate::sip::name::Name;
use crate::sip::scan;

/// The header fields that transactions and dialogs go by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Essentials {
    /// The top Via.
    pub via: Via,
    /// From.
    pub from: NameAddr,
    /// To.
    pub to: NameAddr,
    /// Call-ID as written.
    pub call_id: Bytes,
    /// CSeq.
    pub cseq: CSeq,
    /// Max-Forwards; `None` when absent, which senders of RFC 2543 may do.
    pub max_forwards: Option<u8>,
}

impl Essentials {
    /// Reads them from a request: each must be there once and be well-formed, CSeq must name the method; the Request-URI,
    /// every Via, Contact, Route and Record-Route must be well-formed where they stand. The error is fit for
    /// `400 <reason>`. A scheme that is not known is no error here.
    pub fn of_request(request: &Request) -> Result<Essentials, ValueError> {
        let essentials = Self::of(&request.headers)?;
        if essentials.cseq.method != request.method {
            return Err(ValueError::CSeqMethod);
        }
        Uri::parse(request.uri.clone())?;
        for via in request.headers.values(Name::Via).skip(1) {
            Via::parse(&via)?;
        }
        let contacts = Contacts::of(&request.headers)?;
        if request.method != Method::Register && contacts == Contacts::All {
            return Err(ValueError::Contact);
        }
        for name in [Name::Route, Name::RecordRoute] {
            super::address::addresses(&request.headers, name)?;
        }
        Ok(essentials)
    }

    /// Reads them from a response; a response without them is dropped.
    pub fn of_response(response: &Response) -> Result<Essentials, ValueError> {
        Self::of(&response.headers)
    }

    fn of(headers: &Headers) -> Result<Essentials, ValueError> {
        let via = headers.first(Name::Via).ok_or(ValueError::Missing("Via"))?;
        let call_id = once(headers, Name::CallId, "Call-ID")?;
        let inner_space = |id: &[u8]| id.iter().any(|b| scan::is_space(*b));
        if call_id.is_empty() || inner_space(&call_id) {
            return Err(ValueError::CallId);
        }
        let max_forwards = match headers.count(Name::MaxForwards) {
            0 => None,
            _ => Some(fields::max_forwards(&once(headers, Name::MaxForwards, "Max-Forwards")?)?),
        };
        Ok(Essentials {
            via: Via::parse(&via)?,
            from: NameAddr::parse(&once(headers, Name::From, "From")?)?,
            to: NameAddr::parse(&once(headers, Name::To, "To")?)?,
            call_id: Bytes::copy_from_slice(&call_id),
            cseq: CSeq::parse(&once(headers, Name::CSeq, "CSeq")?)?,
            max_forwards,
        })
    }
}

fn once<'a>(
    headers: &'a Headers,
    name: Name<'a>,
    text: &'static str,
) -> Result<std::borrow::Cow<'a, [u8]>, ValueError> {
    let mut lines = headers.all(name);
    let line = lines.next().ok_or(ValueError::Missing(text))?;
    if lines.next().is_some() {
        return Err(ValueError::Repeated(text));
    }
    Ok(line.value())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::message::Message;

    const BYE: &str = "BYE sip:b@c SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nMax-Forwards: 70\r\nFrom: <sip:a@b>;tag=1\r\n\
        To: <sip:b@c>;tag=2\r\nCall-ID: x@y\r\nCSeq: 2 BYE\r\n\r\n";

    fn essentials(text: &str) -> Result<Essentials, ValueError> {
        let Ok(Message::Request(request)) = Message::parse(&Bytes::copy_from_slice(text.as_bytes())) else {
            panic!("a request: {text}")
        };
        Essentials::of_request(&request)
    }

    #[test]
    fn they_are_read_once() {
        let read = essentials(BYE).unwrap();
        assert_eq!((read.from.tag(), read.to.tag(), read.max_forwards), (Some(&b"1"[..]), Some(&b"2"[..]), Some(70)));
        assert_eq!((&read.call_id[..], read.cseq.number), (&b"x@y"[..], 2));
    }

    #[test]
    fn what_is_missing_repeated_or_malformed_is_named() {
        for (from, to, error) in [
            ("Via: SIP/2.0/UDP h;branch=z9hG4bK1\r\n", "", ValueError::Missing("Via")),
            ("Call-ID: x@y\r\n", "", ValueError::Missing("Call-ID")),
            ("CSeq: 2 BYE\r\n", "CSeq: 2 BYE\r\nCSeq: 2 BYE\r\n", ValueError::Repeated("CSeq")),
            ("Call-ID: x@y\r\n", "Call-ID: x@y\r\ni: z\r\n", ValueError::Repeated("Call-ID")),
            ("2 BYE", "2 INVITE", ValueError::CSeqMethod),
            ("x@y", "x y", ValueError::CallId),
            ("Forwards: 70", "Forwards: 256", ValueError::MaxForwards),
            ("<sip:b@c>;tag=2", "\"B <sip:b@c>", ValueError::Address),
            ("sip:b@c SIP", "<sip:b@c> SIP", ValueError::Uri),
            ("bK1\r\n", "bK1, ;\r\n", ValueError::Via),
            ("CSeq: 2", "Contact: *\r\nCSeq: 2", ValueError::Contact),
            ("CSeq: 2", "Route: <sip:a\r\nCSeq: 2", ValueError::Address),
        ] {
            assert_eq!(essentials(&BYE.replace(from, to)).unwrap_err(), error, "{from:?} → {to:?}");
        }
    }
}
