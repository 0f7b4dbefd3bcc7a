//! Lenient framing of a SIP message into start line, header lines and body: LF alone ends a line as CRLF does, leading
//! empty lines are skipped, folded lines belong together, values may hold any byte but a bare CR. Strict where leniency
//! would let two readers see two messages: a line without a name, a bare CR, an unbounded length.

use std::ops::Range;

/// Longest header line, folds included, and longest start line, in bytes.
pub const MAX_LINE: usize = 8 * 1024;
/// Most header lines of a message.
pub const MAX_HEADERS: usize = 256;
/// Longest message, body included, in bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// What is wrong with the bytes of a message. The text is fit for a reason phrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the text of each variant says what it is")]
pub enum Fault {
    #[error("Empty message")]
    Empty,
    #[error("Message too large")]
    TooLarge,
    #[error("Line too long")]
    LineTooLong,
    #[error("Too many header fields")]
    TooManyHeaders,
    #[error("No empty line after the header fields")]
    NoBlankLine,
    #[error("Bare CR in a header field")]
    BareCr,
    #[error("Malformed start line")]
    StartLine,
    #[error("Version not supported")]
    Version,
    #[error("Malformed header field")]
    HeaderLine,
    #[error("Malformed Content-Length")]
    ContentLength,
    #[error("Conflicting Content-Length")]
    ContentLengthConflict,
    #[error("Missing Content-Length")]
    ContentLengthMissing,
    #[error("Body shorter than Content-Length")]
    ShortBody,
}

/// One logical line and where the next one begins.
pub(super) struct Line {
    /// The line without its end, folds included.
    pub(super) text: Range<usize>,
    /// Where the next line starts.
    pub(super) next: usize,
}

/// Where the first line of the message starts: behind any leading line ends (RFC 3261 §7.5).
pub(super) fn skip_line_ends(buf: &[u8]) -> usize {
    buf.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(buf.len())
}

/// The physical line at `at`; `Err(NoBlankLine)` when no line end follows.
pub(super) fn start_line(buf: &[u8], at: usize) -> Result<Line, Fault> {
    let (end, next) = physical_line(buf, at)?;
    if end - at > MAX_LINE {
        return Err(Fault::LineTooLong);
    }
    Ok(Line { text: at..end, next })
}

/// The logical header line at `at`, with its folds (RFC 3261 §7.3.1); an empty range is the end of the header.
pub(super) fn header_line(buf: &[u8], at: usize) -> Result<Line, Fault> {
    let (mut end, mut next) = physical_line(buf, at)?;
    if end > at {
        while matches!(buf.get(next), Some(b' ' | b'\t')) {
            (end, next) = physical_line(buf, next)?;
            if end - at > MAX_LINE {
                break;
            }
        }
    }
    if end - at > MAX_LINE {
        return Err(Fault::LineTooLong);
    }
    Ok(Line { text: at..end, next })
}

/// End of the line at `at` and start of the next.
fn physical_line(buf: &[u8], at: usize) -> Result<(usize, usize), Fault> {
    let rest = buf.get(at..).unwrap_or_default();
    let Some(stop) = rest.iter().position(|&b| b == b'\n' || b == b'\r') else {
        return Err(if rest.len() > MAX_LINE { Fault::LineTooLong } else { Fault::NoBlankLine });
    };
    let end = at + stop;
    match (buf[end], buf.get(end + 1)) {
        (b'\n', _) => Ok((end, end + 1)),
        (_, Some(b'\n')) => Ok((end, end + 2)),
        (_, Some(_)) => Err(Fault::BareCr),
        (_, None) => Err(Fault::NoBlankLine),
    }
}

/// Splits a logical header line into the ranges of its name and its trimmed raw value.
pub(super) fn split_header(buf: &[u8], line: Range<usize>) -> Result<(Range<usize>, Range<usize>), Fault> {
    let text = &buf[line.clone()];
    let colon = text.iter().position(|&b| b == b':').ok_or(Fault::HeaderLine)?;
    let name = trim_end(&text[..colon]);
    if !is_token(name) {
        return Err(Fault::HeaderLine);
    }
    let name = line.start..line.start + name.len();
    let value = &text[colon + 1..];
    let lead = value.iter().position(|b| !is_space(*b)).unwrap_or(value.len());
    let start = line.start + colon + 1 + lead;
    let end = start + trim_end(&value[lead..]).len();
    Ok((name, start..end))
}

/// Linear white space within a logical line: blanks and the line ends of folds.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Without leading and trailing linear white space.
pub(super) fn trim(text: &[u8]) -> &[u8] {
    let lead = text.iter().position(|b| !is_space(*b)).unwrap_or(text.len());
    trim_end(&text[lead..])
}

fn trim_end(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|b| !is_space(*b)).map_or(0, |last| last + 1);
    &text[..end]
}

/// Whether this is a `token` of RFC 3261 §25.1, not empty.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&b| is_token_byte(b))
}

/// Whether this byte may stand in a `token`.
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~')
}

/// Decimal digits without a sign, blanks or overflow.
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// The end of the first element of a comma-separated list, and where the next one starts. Commas in quoted strings, in
/// angle brackets and, with `comments`, in parentheses do not separate.
pub(super) fn split_comma(text: &[u8], comments: bool) -> (usize, usize) {
    // Nearly every line holds one element.
    if !text.contains(&b',') {
        return (text.len(), text.len());
    }
    let (mut at, mut depth, mut angle) = (0, 0usize, false);
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' if depth == 0 && !angle => at = skip_quoted(text, at) - 1,
            b'\\' if depth > 0 => at += 1,
            b'(' if comments && !angle => depth += 1,
            b')' if depth > 0 => depth -= 1,
            b'<' if depth == 0 => angle = true,
            b'>' if depth == 0 => angle = false,
            b',' if depth == 0 && !angle => return (at, at + 1),
            _ => {}
        }
        at += 1;
    }
    (text.len(), text.len())
}

/// The position behind the quoted string that starts at `at`; the end of the text when it is not closed.
pub(super) fn skip_quoted(text: &[u8], at: usize) -> usize {
    let mut next = at + 1;
    while let Some(&byte) = text.get(next) {
        match byte {
            b'\\' => next += 2,
            b'"' => return next + 1,
            _ => next += 1,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folded_line_is_one_line_and_an_empty_one_ends_the_header() {
        let buf = b"Subject: a\r\n b\n\tc\r\n\r\n body";
        let line = header_line(buf, 0).unwrap();
        assert_eq!(&buf[line.text.clone()], b"Subject: a\r\n b\n\tc");
        let blank = header_line(buf, line.next).unwrap();
        assert!(blank.text.is_empty());
        assert_eq!(&buf[blank.next..], b" body");
    }

    #[test]
    fn a_bare_cr_is_refused() {
        assert_eq!(header_line(b"A: b\rC: d\r\n\r\n", 0).err(), Some(Fault::BareCr));
    }

    #[test]
    fn a_line_over_the_limit_is_refused_and_one_at_the_limit_is_read() {
        let mut text = vec![b'a'; MAX_LINE];
        text.extend_from_slice(b"\r\n");
        assert!(header_line(&text, 0).is_ok());
        text.insert(0, b'a');
        assert_eq!(header_line(&text, 0).err(), Some(Fault::LineTooLong));
        let folds: Vec<u8> = b"a: b\r\n".iter().copied().chain(b" c\r\n".repeat(MAX_LINE)).collect();
        assert_eq!(header_line(&folds, 0).err(), Some(Fault::LineTooLong));
    }

    #[test]
    fn commas_in_quotes_brackets_and_comments_do_not_separate() {
        let first = |text: &'static [u8], comments| &text[..split_comma(text, comments).0];
        assert_eq!(first(b"\"a, \\\"b\" <sip:a,b@c>;x=1, d", false), b"\"a, \\\"b\" <sip:a,b@c>;x=1");
        assert_eq!(first(b"SIP/2.0/UDP a (x, (y,z) \\), w), b", true), b"SIP/2.0/UDP a (x, (y,z) \\), w)");
        assert_eq!(first(b"sip:(a,b", false), b"sip:(a");
        assert_eq!(first(b"\"open, end", false), b"\"open, end");
    }

    #[test]
    fn a_decimal_has_no_sign_and_does_not_wrap() {
        assert_eq!(decimal(b"00123"), Some(123));
        for bad in [&b""[..], b"-1", b"+1", b"1 ", b"99999999999999999999"] {
            assert_eq!(decimal(bad), None);
        }
    }
}
