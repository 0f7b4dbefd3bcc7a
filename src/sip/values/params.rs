//! `;name=value` parameters, kept as written (RFC 3261 §25.1 `generic-param`).

use std::borrow::Cow;

use bytes::Bytes;

use super::ValueError;
use super::uri::unescape;
use crate::sip::scan;

/// Parameters as written, from the first `;`. Names compare without case.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Params {
    text: Bytes,
    /// Of a URI: names may be written with %-escapes. In a header field `%` is a character of a token.
    escapes: bool,
}

impl Params {
    /// Reads parameters of a header field: empty, or a `;` and what follows. A value is a token, a host or a quoted string;
    /// white space around `;` and `=` is allowed, an empty parameter too (phones write a last `;`).
    pub fn parse(text: Bytes) -> Result<Params, ValueError> {
        let params = Params { text, escapes: false };
        let rest = scan::trim(&params.text);
        if !rest.is_empty() && rest[0] != b';' {
            return Err(ValueError::Params);
        }
        for (name, value) in params.iter() {
            let sound = match value {
                None => true,
                Some([b'"', rest @ ..]) => ends_quoted(rest),
                Some(value) => !value.is_empty() && !value.iter().any(|b| matches!(b, b'"' | b',' | b'<' | b'>')),
            };
            if !scan::is_token(name) || !sound {
                return Err(ValueError::Params);
            }
        }
        Ok(params)
    }

    /// Reads parameters of a URI: names and values may hold escapes and any byte that does not end the URI.
    pub(super) fn parse_uri(text: Bytes) -> Result<Params, ValueError> {
        let params = Params { text, escapes: true };
        if params.iter().any(|(name, _)| name.is_empty() || name.contains(&b'"')) {
            return Err(ValueError::Params);
        }
        Ok(params)
    }

    /// Each name and its raw value (quotes included), `None` for a parameter without one.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        pieces(&self.text)
            .map(|range| split_pair(&self.text[range]))
            .filter(|(name, value)| !name.is_empty() || value.is_some())
    }

    /// Whether the parameter is there, with or without a value.
    pub fn has(&self, name: &[u8]) -> bool {
        self.iter().any(|(n, _)| self.is_name(n, name))
    }

    /// The raw value of the first parameter of this name; empty for one without a value, `None` when it is absent.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter().find(|(n, _)| self.is_name(n, name)).map(|(_, value)| value.unwrap_or_default())
    }

    /// The value with quotes and backslashes resolved.
    pub fn unquoted(&self, name: &[u8]) -> Option<Cow<'_, [u8]>> {
        self.get(name).map(unquote)
    }

    /// Gives the first parameter of this name the value (`None`: a flag), or adds it at the end; the other bytes stay.
    /// The value is written as given: a caller with free text passes it through [`quote`].
    pub fn set(&mut self, name: &[u8], value: Option<&[u8]>) {
        let mut new = Vec::with_capacity(self.text.len() + name.len() + value.map_or(0, <[u8]>::len) + 2);
        let found = self.find(name);
        let (before, after) = match found {
            Some(range) => (&self.text[..range.start], &self.text[range.end..]),
            None => (&self.text[..], &[][..]),
        };
        new.extend_from_slice(before);
        new.push(b';');
        new.extend_from_slice(name);
        if let Some(value) = value {
            new.push(b'=');
            new.extend(value.iter().map(|b| if matches!(b, b'\r' | b'\n' | 0) { b' ' } else { *b }));
        }
        new.extend_from_slice(after);
        self.text = new.into();
    }

    /// Removes every parameter of this name; the other bytes stay.
    pub fn remove(&mut self, name: &[u8]) {
        while let Some(range) = self.find(name) {
            self.text = [&self.text[..range.start], &self.text[range.end..]].concat().into();
        }
    }

    /// As written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    fn is_name(&self, written: &[u8], name: &[u8]) -> bool {
        match self.escapes && written.contains(&b'%') {
            true => unescape(written).eq_ignore_ascii_case(name),
            false => written.eq_ignore_ascii_case(name),
        }
    }

    /// The range of the first parameter of this name, its `;` included.
    fn find(&self, name: &[u8]) -> Option<std::ops::Range<usize>> {
        pieces(&self.text)
            .find(|range| self.is_name(split_pair(&self.text[range.clone()]).0, name))
            .map(|range| range.start - 1..range.end)
    }
}

/// The ranges between semicolons, quoted strings kept whole. What stands before the first `;` is not one.
fn pieces(text: &[u8]) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
    let mut at = next_semicolon(text, 0);
    std::iter::from_fn(move || {
        let start = at? + 1;
        at = next_semicolon(text, start);
        Some(start..at.unwrap_or(text.len()))
    })
}

fn next_semicolon(text: &[u8], mut at: usize) -> Option<usize> {
    while let Some(&byte) = text.get(at) {
        match byte {
            b';' => return Some(at),
            b'"' => at = scan::skip_quoted(text, at),
            _ => at += 1,
        }
    }
    None
}

fn split_pair(piece: &[u8]) -> (&[u8], Option<&[u8]>) {
    match piece.iter().position(|b| *b == b'=') {
        Some(equals) => (scan::trim(&piece[..equals]), Some(scan::trim(&piece[equals + 1..]))),
        None => (scan::trim(piece), None),
    }
}

/// Whether the text behind an opening quote ends with the closing one, and nothing follows it.
fn ends_quoted(rest: &[u8]) -> bool {
    let mut at = 0;
    while let Some(&byte) = rest.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1 == rest.len(),
            _ => at += 1,
        }
    }
    false
}

/// A quoted string's content with backslashes resolved; anything else as it is.
pub fn unquote(text: &[u8]) -> Cow<'_, [u8]> {
    let [b'"', inner @ .., b'"'] = text else {
        return Cow::Borrowed(text);
    };
    if !inner.contains(&b'\\') {
        return Cow::Borrowed(inner);
    }
    let mut plain = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        plain.push(if byte == b'\\' { *bytes.next().unwrap_or(&b'\\') } else { byte });
    }
    Cow::Owned(plain)
}

/// A quoted string with this content.
pub fn quote(text: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(text.len() + 2);
    quoted.push(b'"');
    for &byte in text {
        match byte {
            b'"' | b'\\' => quoted.extend_from_slice(&[b'\\', byte]),
            b'\r' | b'\n' | 0 => quoted.push(b' '),
            _ => quoted.push(byte),
        }
    }
    quoted.push(b'"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(text: &'static str) -> Params {
        Params::parse(Bytes::from_static(text.as_bytes())).unwrap()
    }

    #[test]
    fn names_compare_without_case_and_white_space_is_allowed() {
        let params = params(" ;  Branch =\tz9 ;rport; x = \"a;b\\\"\";");
        assert_eq!(params.get(b"BRANCH"), Some(&b"z9"[..]));
        assert_eq!(params.get(b"rport"), Some(&b""[..]));
        assert_eq!(params.unquoted(b"x").unwrap(), &b"a;b\""[..]);
        assert!(!params.has(b"y"));
        assert_eq!(params.iter().count(), 3);
    }

    #[test]
    fn malformed_parameters_are_refused() {
        for bad in ["x", ";a=", ";=b", ";a b", ";a=\"open", ";a=\"x\"y", ";a=b\"c\"", ";a=<b>", ";\u{e9}=1"] {
            assert!(Params::parse(Bytes::from_static(bad.as_bytes())).is_err(), "{bad}");
        }
    }

    #[test]
    fn setting_one_parameter_keeps_the_bytes_of_the_others() {
        let mut params = params("; A=1 ;Tag=old;b");
        params.set(b"tag", Some(b"new"));
        assert_eq!(params.as_bytes(), b"; A=1 ;tag=new;b");
        params.set(b"c", None);
        assert_eq!(params.as_bytes(), b"; A=1 ;tag=new;b;c");
        params.remove(b"a");
        assert_eq!(params.as_bytes(), b";tag=new;b;c");
    }

    #[test]
    fn quoting_reads_back() {
        for text in [&b""[..], b"a\"b\\c", b"plain"] {
            assert_eq!(unquote(&quote(text)), text);
        }
    }
}
