//! Telephone numbers inside URIs (spec/sip.md §1, RFC 3966 §5.1.1).

use super::uri::{Uri, unescape};

/// The called number or name: the user part of a SIP URI or the number of a tel URI, parameters and visual separators
/// removed, %-escapes decoded, `+` kept. Separators are removed only where the rest is a number, so that the dot of
/// `first.last` stays. `None` when the URI has none or it is not UTF-8.
pub fn called_number(uri: &Uri) -> Option<String> {
    let user = uri.user()?;
    // A ; that is part of a name is escaped; an unescaped one starts parameters (RFC 3261 §19.1.6).
    let end = user.iter().position(|b| *b == b';').unwrap_or(user.len());
    let plain = unescape(&user[..end]);
    let number = |b: &u8| b.is_ascii_digit() || matches!(b, b'+' | b'*' | b'#') || is_separator(*b);
    let text = if plain.iter().all(number) { without_separators(&plain) } else { plain.into_owned() };
    String::from_utf8(text).ok().filter(|text| !text.is_empty())
}

/// The text without visual separators.
pub(super) fn without_separators(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|b| !is_separator(*b)).collect()
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b'-' | b'.' | b'(' | b')')
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn the_called_number_is_what_would_be_dialled() {
        for (uri, number) in [
            ("sip:1002@host", Some("1002")),
            ("sip:+49-(30)-123.45@host;user=phone", Some("+493012345")),
            ("sip:+1234;phone-context=example.com@host", Some("+1234")),
            ("tel:+1-201-555-0123;ext=9", Some("+12015550123")),
            ("sip:first.last@host", Some("first.last")),
            ("sip:%31%30%302@host", Some("1002")),
            ("sip:a%3Bb@host", Some("a;b")),
            ("sip:*21%23@host", Some("*21#")),
            ("sip:1002:secret@host", Some("1002")),
            ("sip:host", None),
            ("sip:%ff@host", None),
            ("sip:-@host", None),
            ("mailto:x@y", None),
        ] {
            assert_eq!(
                called_number(&Uri::parse(Bytes::from_static(uri.as_bytes())).unwrap()).as_deref(),
                number,
                "{uri}"
            );
        }
    }
}
