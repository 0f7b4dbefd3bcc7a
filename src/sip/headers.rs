//! The header fields of a message: lines in order, as written, looked up by name.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

use super::name::Name;
use super::scan;

/// One header line: its name and raw value as written.
#[derive(Clone, PartialEq, Eq)]
pub struct Line {
    kind: Name<'static>,
    /// The name as written; `None` when that is the canonical spelling, which then costs nothing to keep.
    written: Option<Bytes>,
    raw: Bytes,
}

impl Line {
    /// A line of our own. CR, LF and NUL in the value become blanks, so that no value can add a header line.
    pub fn new(name: Name<'_>, value: impl Into<Bytes>) -> Line {
        let raw = single_line(value.into());
        let written = match name {
            Name::Other(text) => Some(Bytes::copy_from_slice(text)),
            _ => None,
        };
        Line { kind: name.kind(), written, raw }
    }

    /// A line as it stood in a message.
    pub(super) fn parsed(name: Bytes, raw: Bytes) -> Line {
        let kind = Name::known(&name).unwrap_or(Name::Other(b""));
        let written = (kind.canonical().as_bytes() != &name[..]).then_some(name);
        Line { kind, written, raw }
    }

    /// The name to compare with.
    pub fn name(&self) -> Name<'_> {
        match (self.kind, &self.written) {
            (Name::Other(_), Some(written)) => Name::Other(written),
            (kind, _) => kind,
        }
    }

    /// The name as written: its case, or the compact form.
    pub fn written_name(&self) -> &[u8] {
        match &self.written {
            Some(written) => written,
            None => self.kind.canonical().as_bytes(),
        }
    }

    /// The value as written, folds included, without white space at its ends.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The value on one line: each fold is one blank (RFC 3261 §7.3.1).
    pub fn value(&self) -> Cow<'_, [u8]> {
        unfold(&self.raw)
    }

    /// Replaces the value and keeps the name as written.
    pub fn set_value(&mut self, value: impl Into<Bytes>) {
        self.raw = single_line(value.into());
    }
}

/// A header value may hold what no log may show: only its length is printed.
impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", String::from_utf8_lossy(self.written_name()), self.raw.len())
    }
}

fn single_line(value: Bytes) -> Bytes {
    let breaks = |b: &u8| matches!(b, b'\r' | b'\n' | 0);
    if !value.iter().any(breaks) {
        return value;
    }
    value.iter().map(|b| if breaks(b) { b' ' } else { *b }).collect::<Vec<u8>>().into()
}

pub(super) fn unfold(raw: &[u8]) -> Cow<'_, [u8]> {
    if !raw.contains(&b'\n') {
        return Cow::Borrowed(raw);
    }
    let mut flat = Vec::with_capacity(raw.len());
    for (index, part) in raw.split(|b| *b == b'\n').enumerate() {
        let part = part.strip_suffix(b"\r").unwrap_or(part);
        if index == 0 {
            flat.extend_from_slice(part);
        } else {
            flat.push(b' ');
            flat.extend_from_slice(scan::trim(part));
        }
    }
    Cow::Owned(flat)
}

/// The header lines of a message, in their order.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    lines: Vec<Line>,
}

impl Headers {
    /// No lines.
    pub fn new() -> Headers {
        Headers { lines: Vec::new() }
    }

    pub(super) fn with_capacity(lines: usize) -> Headers {
        Headers { lines: Vec::with_capacity(lines) }
    }

    /// Every line in order.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The lines of one name, in order.
    pub fn all<'a>(&'a self, name: Name<'a>) -> impl Iterator<Item = &'a Line> + 'a {
        self.lines.iter().filter(move |line| line.name() == name)
    }

    /// The whole value of the first line of this name, on one line. A list is not split: see [`Headers::values`].
    pub fn get(&self, name: Name<'_>) -> Option<Cow<'_, [u8]>> {
        self.lines.iter().find(|line| line.name() == name).map(Line::value)
    }

    /// The values of every line of this name; split at commas where the header field's grammar is a list
    /// ([`Name::is_list`]), with quoted strings, angle brackets and comments left whole. Empty elements are skipped.
    pub fn values<'a>(&'a self, name: Name<'a>) -> Values<'a> {
        Values { lines: self.lines.iter(), name, rest: None }
    }

    /// The first value of this name ([`Headers::values`]).
    pub fn first<'a>(&'a self, name: Name<'a>) -> Option<Cow<'a, [u8]>> {
        self.values(name).next()
    }

    /// How many lines have this name.
    pub fn count(&self, name: Name<'_>) -> usize {
        self.lines.iter().filter(|line| line.name() == name).count()
    }

    /// Whether a line has this name.
    pub fn has(&self, name: Name<'_>) -> bool {
        self.lines.iter().any(|line| line.name() == name)
    }

    /// Whether a token list (Require, Supported, Allow, …) holds this token, compared without case.
    pub fn has_token(&self, name: Name<'_>, token: &[u8]) -> bool {
        self.lines.iter().filter(|line| line.name() == name).any(|line| {
            let value = line.value();
            value.split(|b| *b == b',').any(|part| scan::trim(part).eq_ignore_ascii_case(token))
        })
    }

    /// Adds a line at the end.
    pub fn push(&mut self, name: Name<'_>, value: impl Into<Bytes>) {
        self.lines.push(Line::new(name, value));
    }

    /// Adds a line of another message at the end, as written.
    pub fn push_line(&mut self, line: Line) {
        self.lines.push(line);
    }

    /// Adds a line at the front.
    pub fn push_front(&mut self, name: Name<'_>, value: impl Into<Bytes>) {
        self.lines.insert(0, Line::new(name, value));
    }

    /// Adds a line before the first line named `before`; at the front when there is none.
    pub fn insert_before(&mut self, before: Name<'_>, name: Name<'_>, value: impl Into<Bytes>) {
        let at = self.lines.iter().position(|line| line.name() == before).unwrap_or(0);
        self.lines.insert(at, Line::new(name, value));
    }

    /// Gives the first line of this name the value, drops the others of the name; adds one at the end if there is none.
    pub fn set(&mut self, name: Name<'_>, value: impl Into<Bytes>) {
        let Some(at) = self.lines.iter().position(|line| line.name() == name) else {
            return self.push(name, value);
        };
        self.lines[at].set_value(value);
        let mut index = 0;
        self.lines.retain(|line| {
            index += 1;
            index <= at + 1 || line.name() != name
        });
    }

    /// Removes every line of this name and says how many there were.
    pub fn remove(&mut self, name: Name<'_>) -> usize {
        let before = self.lines.len();
        self.lines.retain(|line| line.name() != name);
        before - self.lines.len()
    }

    /// Replaces the first value of this name (the top Via, the first Route), and only it: values after a comma on the same
    /// line stay. False, and nothing changed, when there is none.
    pub fn replace_first(&mut self, name: Name<'_>, value: &[u8]) -> bool {
        self.edit_first(name, Some(value))
    }

    /// Removes the first value of this name and its line when nothing else is on it. False when there was none.
    pub fn remove_first(&mut self, name: Name<'_>) -> bool {
        self.edit_first(name, None)
    }

    fn edit_first(&mut self, name: Name<'_>, value: Option<&[u8]>) -> bool {
        // An empty list line has no first value: the next line of the name has it.
        let has_value = |line: &Line| line.name() == name && first_value(name, &line.raw).is_some();
        let Some(at) = self.lines.iter().position(has_value) else {
            return false;
        };
        let line = &mut self.lines[at];
        let flat = line.value().into_owned();
        let (_, next) = first_value(name, &flat).unwrap_or((0..0, flat.len()));
        let rest = scan::trim(flat.get(next..).unwrap_or_default());
        match (value, rest.is_empty()) {
            (None, true) => {
                self.lines.remove(at);
            }
            (None, false) => line.raw = Bytes::copy_from_slice(rest),
            (Some(value), true) => line.set_value(value.to_vec()),
            (Some(value), false) => line.set_value([value, b", ", rest].concat()),
        }
        true
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.lines).finish()
    }
}

/// The range of the first non-empty element of a line and where the one after it starts.
fn first_value(name: Name<'_>, text: &[u8]) -> Option<(std::ops::Range<usize>, usize)> {
    if !name.is_list() {
        return Some((0..text.len(), text.len()));
    }
    let mut at = 0;
    while at < text.len() {
        let (end, next) = scan::split_comma(&text[at..], name == Name::Via);
        if !scan::trim(&text[at..at + end]).is_empty() {
            return Some((at..at + end, at + next));
        }
        at += next;
    }
    None
}

/// Iterator over the values of one name, of [`Headers::values`].
pub struct Values<'a> {
    lines: std::slice::Iter<'a, Line>,
    name: Name<'a>,
    rest: Option<Cow<'a, [u8]>>,
}

impl<'a> Iterator for Values<'a> {
    type Item = Cow<'a, [u8]>;

    fn next(&mut self) -> Option<Cow<'a, [u8]>> {
        loop {
            let rest = match self.rest.take() {
                Some(rest) => rest,
                None => self.lines.by_ref().find(|line| line.name() == self.name)?.value(),
            };
            if !self.name.is_list() {
                return Some(rest);
            }
            let Some((range, next)) = first_value(self.name, &rest) else {
                continue;
            };
            // A borrowed line is split without a copy; only a folded one, which is rare, owns its pieces.
            return Some(match rest {
                Cow::Borrowed(text) => {
                    self.rest = (next < text.len()).then(|| Cow::Borrowed(&text[next..]));
                    Cow::Borrowed(scan::trim(&text[range]))
                }
                Cow::Owned(text) => {
                    self.rest = (next < text.len()).then(|| Cow::Owned(text[next..].to_vec()));
                    Cow::Owned(scan::trim(&text[range]).to_vec())
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contacts(text: &'static str) -> Vec<String> {
        let mut headers = Headers::new();
        headers.push_line(Line::parsed(Bytes::from_static(b"m"), Bytes::from_static(text.as_bytes())));
        headers.values(Name::Contact).map(|v| String::from_utf8(v.into_owned()).unwrap()).collect()
    }

    #[test]
    fn a_list_is_split_at_commas_that_separate_and_empty_elements_are_skipped() {
        assert_eq!(contacts("\"a,b\" <sip:a,b@c>, sip:d@e ,, *"), ["\"a,b\" <sip:a,b@c>", "sip:d@e", "*"]);
        assert_eq!(contacts(", ,"), [""; 0]);
        assert_eq!(contacts("sip:a@b,\r\n  sip:c@d"), ["sip:a@b", "sip:c@d"]);
    }

    #[test]
    fn a_header_that_is_no_list_keeps_its_commas() {
        let mut headers = Headers::new();
        headers.push(Name::Subject, "a, b");
        headers.push(Name::WwwAuthenticate, "Digest realm=\"x\", nonce=\"y\"");
        assert_eq!(headers.values(Name::Subject).collect::<Vec<_>>(), [&b"a, b"[..]]);
        assert_eq!(headers.values(Name::WwwAuthenticate).count(), 1);
    }

    #[test]
    fn a_value_of_ours_cannot_add_a_line() {
        let mut headers = Headers::new();
        headers.push(Name::Subject, "a\r\nRoute: <sip:evil>\0");
        assert_eq!(headers.get(Name::Subject).unwrap(), &b"a  Route: <sip:evil> "[..]);
    }

    #[test]
    fn a_fold_reads_as_one_blank_and_stays_as_written() {
        let line = Line::parsed(Bytes::from_static(b"s"), Bytes::from_static(b"a  \r\n \t b\n c"));
        assert_eq!(line.value(), &b"a   b c"[..]);
        assert_eq!(&line.raw()[..], b"a  \r\n \t b\n c");
        assert_eq!(line.written_name(), b"s");
        assert_eq!(line.name(), Name::Subject);
    }

    #[test]
    fn set_replaces_the_first_and_drops_the_others_in_place() {
        let mut headers = Headers::new();
        for (name, value) in [(Name::To, "1"), (Name::Via, "2"), (Name::To, "3"), (Name::From, "4"), (Name::To, "5")] {
            headers.push(name, value);
        }
        headers.set(Name::To, "x");
        let values: Vec<_> = headers.lines().iter().map(|l| l.raw().to_vec()).collect();
        assert_eq!(values, [b"x", b"2", b"4"]);
        headers.set(Name::CSeq, "6");
        assert_eq!(headers.lines()[3].raw(), "6");
        assert_eq!(headers.remove(Name::To), 1);
        headers.insert_before(Name::From, Name::Route, "r");
        assert_eq!(headers.lines()[1].name(), Name::Route);
        headers.push_front(Name::Via, "top");
        assert_eq!(headers.first(Name::Via).unwrap(), &b"top"[..]);
    }

    #[test]
    fn the_first_value_of_a_line_is_replaced_and_removed_without_the_others() {
        let mut headers = Headers::new();
        headers.push(Name::Via, " , SIP/2.0/UDP a, SIP/2.0/UDP b");
        headers.push(Name::Via, "SIP/2.0/UDP c");
        assert!(headers.replace_first(Name::Via, b"X"));
        assert_eq!(headers.values(Name::Via).collect::<Vec<_>>(), [&b"X"[..], b"SIP/2.0/UDP b", b"SIP/2.0/UDP c"]);
        assert!(headers.remove_first(Name::Via) && headers.remove_first(Name::Via));
        assert_eq!(headers.count(Name::Via), 1);
        assert!(headers.remove_first(Name::Via) && !headers.remove_first(Name::Via));
    }

    #[test]
    fn tokens_are_found_in_any_case_on_any_line() {
        let mut headers = Headers::new();
        headers.push(Name::Supported, "timer, Replaces");
        headers.push(Name::Supported, "100rel");
        assert!(headers.has_token(Name::Supported, b"replaces") && headers.has_token(Name::Supported, b"100rel"));
        assert!(!headers.has_token(Name::Supported, b"time"));
    }

    #[test]
    fn debug_prints_no_value() {
        let mut headers = Headers::new();
        headers.push(Name::From, "<sip:4711@example.com>");
        assert!(!format!("{headers:?}").contains("4711"));
    }
}
