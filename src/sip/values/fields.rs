//! Small header values: CSeq, RAck, Reason, Retry-After, Session-Expires and plain numbers.

use std::borrow::Cow;

use bytes::Bytes;

use super::ValueError;
use super::params::Params;
use crate::sip::method::Method;
use crate::sip::scan;

/// CSeq (RFC 3261 §20.16).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CSeq {
    /// Below 2³¹ (RFC 3261 §8.1.1.5).
    pub number: u32,
    /// The method of the request.
    pub method: Method,
}

impl CSeq {
    /// Reads a value; a number of 2³¹ or more is refused.
    pub fn parse(value: &[u8]) -> Result<CSeq, ValueError> {
        let mut words = words(value);
        let (Some(number), Some(method), None) = (words.next(), words.next(), words.next()) else {
            return Err(ValueError::CSeq);
        };
        let number = scan::decimal(number).filter(|n| *n < 1 << 31).ok_or(ValueError::CSeq)?;
        let method = Method::parse(method).ok_or(ValueError::CSeq)?;
        // Below 2³¹.
        Ok(CSeq { number: number as u32, method })
    }

    /// The value for the wire.
    pub fn encode(&self) -> Bytes {
        format!("{} {}", self.number, self.method).into()
    }
}

/// RAck of a PRACK (RFC 3262 §7.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RAck {
    /// The RSeq of the acknowledged response.
    pub response: u32,
    /// The CSeq of its request.
    pub cseq: CSeq,
}

impl RAck {
    /// Reads a value.
    pub fn parse(value: &[u8]) -> Result<RAck, ValueError> {
        let value = scan::trim(value);
        let end = value.iter().position(|b| scan::is_space(*b)).ok_or(ValueError::Number)?;
        Ok(RAck { response: number(&value[..end])?, cseq: CSeq::parse(&value[end..])? })
    }
}

/// One Reason value (RFC 3326).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// `SIP`, `Q.850` or another token, as written.
    pub protocol: Bytes,
    /// The cause, when it is a number.
    pub cause: Option<u16>,
    params: Params,
}

impl Reason {
    /// Reads one value of the list.
    pub fn parse(value: &[u8]) -> Result<Reason, ValueError> {
        let text = Bytes::copy_from_slice(scan::trim(value));
        let end = text.iter().position(|b| *b == b';').unwrap_or(text.len());
        let protocol = scan::trim(&text[..end]);
        if !scan::is_token(protocol) {
            return Err(ValueError::Params);
        }
        let params = Params::parse(text.slice(end..))?;
        let cause = params.get(b"cause").and_then(scan::decimal).and_then(|cause| u16::try_from(cause).ok());
        Ok(Reason { protocol: text.slice_ref(protocol), cause, params })
    }

    /// The text, unquoted.
    pub fn text(&self) -> Option<Cow<'_, [u8]>> {
        self.params.unquoted(b"text")
    }
}

/// Who refreshes a session (RFC 4028 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresher {
    /// The client of the transaction that set the timer.
    Uac,
    /// Its server.
    Uas,
}

/// Session-Expires (RFC 4028 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionExpires {
    /// The interval, in seconds.
    pub seconds: u32,
    /// Who refreshes, when said.
    pub refresher: Option<Refresher>,
}

impl SessionExpires {
    /// Reads a value; an unknown refresher counts as not said.
    pub fn parse(value: &[u8]) -> Result<SessionExpires, ValueError> {
        let (seconds, params) = seconds_and_params(value)?;
        let refresher = match params.get(b"refresher") {
            Some(who) if who.eq_ignore_ascii_case(b"uac") => Some(Refresher::Uac),
            Some(who) if who.eq_ignore_ascii_case(b"uas") => Some(Refresher::Uas),
            _ => None,
        };
        Ok(SessionExpires { seconds, refresher })
    }

    /// The value for the wire.
    pub fn encode(&self) -> Bytes {
        match self.refresher {
            Some(Refresher::Uac) => format!("{};refresher=uac", self.seconds),
            Some(Refresher::Uas) => format!("{};refresher=uas", self.seconds),
            None => self.seconds.to_string(),
        }
        .into()
    }
}

/// The seconds of Min-SE, whose value may have parameters (RFC 4028 §5).
pub fn min_se(value: &[u8]) -> Result<u32, ValueError> {
    seconds_and_params(value).map(|(seconds, _)| seconds)
}

/// The seconds of Retry-After; a comment and parameters may follow (RFC 3261 §20.33).
pub fn retry_after(value: &[u8]) -> Result<u32, ValueError> {
    let value = scan::trim(value);
    let digits = value.iter().take_while(|b| b.is_ascii_digit()).count();
    match value.get(digits) {
        None | Some(b' ' | b'\t' | b'(' | b';') => number(&value[..digits]),
        Some(_) => Err(ValueError::Number),
    }
}

/// Max-Forwards: 0 to 255 (RFC 3261 §20.22).
pub fn max_forwards(value: &[u8]) -> Result<u8, ValueError> {
    let number = scan::decimal(scan::trim(value)).ok_or(ValueError::MaxForwards)?;
    u8::try_from(number).map_err(|_| ValueError::MaxForwards)
}

/// A plain number: RSeq, Expires, Min-Expires. One that does not fit is the largest that does.
pub fn number(value: &[u8]) -> Result<u32, ValueError> {
    let value = scan::trim(value);
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(ValueError::Number);
    }
    Ok(scan::decimal(value).and_then(|number| u32::try_from(number).ok()).unwrap_or(u32::MAX))
}

fn seconds_and_params(value: &[u8]) -> Result<(u32, Params), ValueError> {
    let end = value.iter().position(|b| *b == b';').unwrap_or(value.len());
    Ok((number(&value[..end])?, Params::parse(Bytes::copy_from_slice(&value[end..]))?))
}

fn words(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| scan::is_space(*b)).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cseq_takes_any_method_and_a_number_below_two_to_the_31() {
        let cseq = CSeq::parse(b" 0009  NEWMETHOD ").unwrap();
        assert_eq!((cseq.number, cseq.method.as_str()), (9, "NEWMETHOD"));
        assert_eq!(CSeq::parse(b"2147483647 ACK").unwrap().encode(), "2147483647 ACK");
        for bad in
            [&b"2147483648 ACK"[..], b"-1 ACK", b"1", b"ACK", b"1 A B", b"1 \xff", b"", b"36893488147419103232 INVITE"]
        {
            assert_eq!(CSeq::parse(bad), Err(ValueError::CSeq));
        }
    }

    #[test]
    fn cseq_agrees_with_rsip_where_it_knows_the_method() {
        use rsip::headers::untyped::ToTypedHeader;
        for text in ["1 INVITE", "4711 ACK", "2147483647 PRACK", "7 UPDATE"] {
            let theirs = rsip::headers::CSeq::from(text).typed().unwrap();
            let ours = CSeq::parse(text.as_bytes()).unwrap();
            assert_eq!((ours.number, ours.method.to_string()), (theirs.seq, theirs.method.to_string()));
        }
    }

    #[test]
    fn small_values_are_read() {
        assert_eq!(RAck::parse(b"776656 1 INVITE").unwrap().response, 776_656);
        assert_eq!(max_forwards(b"70"), Ok(70));
        assert!(max_forwards(b"300").is_err() && max_forwards(b"-1").is_err());
        assert_eq!(retry_after(b"120 (I'm in a meeting)"), Ok(120));
        assert_eq!(retry_after(b"18000;duration=3600"), Ok(18_000));
        assert!(retry_after(b"x").is_err() && retry_after(b"5x").is_err());
        assert_eq!(number(b"99999999999999999999"), Ok(u32::MAX));
        assert_eq!(min_se(b"90;x=y"), Ok(90));
        let reason = Reason::parse(b"Q.850 ;cause=16 ;text=\"Terminated\"").unwrap();
        assert_eq!((reason.cause, &reason.text().unwrap()[..]), (Some(16), &b"Terminated"[..]));
    }

    #[test]
    fn session_expires_reads_back() {
        for text in ["1800;refresher=uac", "90;refresher=uas", "4000"] {
            assert_eq!(SessionExpires::parse(text.as_bytes()).unwrap().encode(), text);
        }
        assert_eq!(SessionExpires::parse(b"1800;refresher=me").unwrap().refresher, None);
        assert!(SessionExpires::parse(b"soon").is_err());
    }
}
