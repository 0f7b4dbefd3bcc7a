//! `name-addr` and `addr-spec` values: From, To, Contact, Route, Record-Route, Refer-To, P-Asserted-Identity
//! (RFC 3261 §20, §25.1).

use std::borrow::Cow;

use bytes::Bytes;

use super::ValueError;
use super::params::{Params, quote, unquote};
use super::uri::Uri;
use crate::sip::headers::Headers;
use crate::sip::name::Name;
use crate::sip::scan;

/// An address: display name, URI, and the header field's own parameters (`tag`, `expires`, `q`, …).
#[derive(Clone, PartialEq, Eq)]
pub struct NameAddr {
    /// As written, quotes included; empty without one.
    display: Bytes,
    brackets: bool,
    uri: Uri,
    params: Params,
}

impl NameAddr {
    /// Reads one value. Without angle brackets what follows the first `;` belongs to the header field, and a URI with `?` or
    /// `,` is refused (RFC 3261 §20.10). An unquoted display name may hold any byte but `"` and `<`.
    pub fn parse(value: &[u8]) -> Result<NameAddr, ValueError> {
        let text = Bytes::copy_from_slice(scan::trim(value));
        let quoted = if text.first() == Some(&b'"') { scan::skip_quoted(&text, 0) } else { 0 };
        let open = text[quoted..].iter().position(|b| *b == b'<').map(|at| quoted + at);
        match open {
            Some(open) => Self::parse_bracketed(&text, quoted, open),
            None if quoted == 0 => Self::parse_bare(&text),
            None => Err(ValueError::Address),
        }
    }

    fn parse_bracketed(text: &Bytes, quoted: usize, open: usize) -> Result<NameAddr, ValueError> {
        let display = scan::trim(&text[..open]);
        if quoted > 0 {
            // Closed, and nothing between the quote and the bracket.
            if quoted < 2 || text[quoted - 1] != b'"' || display.len() != quoted {
                return Err(ValueError::Address);
            }
        } else if display.contains(&b'"') || display.contains(&b';') {
            return Err(ValueError::Address);
        }
        let close = text[open..].iter().position(|b| *b == b'>').map(|at| open + at).ok_or(ValueError::Address)?;
        let uri = text.slice_ref(scan::trim(&text[open + 1..close]));
        Ok(NameAddr {
            display: text.slice_ref(display),
            brackets: true,
            uri: Uri::parse(uri)?,
            params: Params::parse(text.slice(close + 1..))?,
        })
    }

    fn parse_bare(text: &Bytes) -> Result<NameAddr, ValueError> {
        let end = text.iter().position(|b| *b == b';').unwrap_or(text.len());
        let uri = scan::trim(&text[..end]);
        if uri.iter().any(|b| matches!(b, b'?' | b',')) {
            return Err(ValueError::Address);
        }
        Ok(NameAddr {
            display: Bytes::new(),
            brackets: false,
            uri: Uri::parse(text.slice_ref(uri))?,
            params: Params::parse(text.slice(end..))?,
        })
    }

    /// An address without display name and parameters.
    pub fn new(uri: Uri) -> NameAddr {
        NameAddr { display: Bytes::new(), brackets: true, uri, params: Params::default() }
    }

    /// The display name without quotes and backslashes; `None` when there is none. Any bytes.
    pub fn display(&self) -> Option<Cow<'_, [u8]>> {
        (!self.display.is_empty()).then(|| unquote(&self.display))
    }

    /// The display name as written, quotes included; empty when there is none.
    pub fn display_raw(&self) -> &[u8] {
        &self.display
    }

    /// The URI.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The header field's parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The raw value of a parameter of the header field.
    pub fn param(&self, name: &[u8]) -> Option<&[u8]> {
        self.params.get(name)
    }

    /// The `tag` parameter; `None` when absent or empty.
    pub fn tag(&self) -> Option<&[u8]> {
        self.params.get(b"tag").filter(|tag| !tag.is_empty())
    }

    /// Sets the tag.
    pub fn set_tag(&mut self, tag: &[u8]) {
        self.params.set(b"tag", Some(tag));
    }

    /// Sets a parameter of the header field (`None`: a flag); the value as it shall stand on the wire.
    pub fn set_param(&mut self, name: &[u8], value: Option<&[u8]>) {
        self.params.set(name, value);
    }

    /// Removes a parameter of the header field.
    pub fn remove_param(&mut self, name: &[u8]) {
        self.params.remove(name);
    }

    /// Removes every parameter of the header field.
    pub fn clear_params(&mut self) {
        self.params = Params::default();
    }

    /// Replaces the URI; display name and parameters stay as written.
    pub fn set_uri(&mut self, uri: Uri) {
        self.uri = uri;
        self.brackets = true;
    }

    /// Replaces the display name by this text, quoted; `None` removes it.
    pub fn set_display(&mut self, text: Option<&[u8]>) {
        self.display = text.map(|text| Bytes::from(quote(text))).unwrap_or_default();
        self.brackets = true;
    }

    /// Takes over the display name of another address: as written, but quoted when its sender should have done so.
    pub fn set_display_of(&mut self, other: &NameAddr) {
        let quoted = other.display.first() == Some(&b'"');
        let sound = quoted || other.display.iter().all(|b| scan::is_token_byte(*b) || scan::is_space(*b));
        self.display = if sound { other.display.clone() } else { quote(&other.display).into() };
        self.brackets = true;
    }

    /// The value for the wire.
    pub fn encode(&self) -> Bytes {
        let params = self.params.as_bytes();
        let mut out = Vec::with_capacity(self.display.len() + self.uri.as_bytes().len() + params.len() + 3);
        out.extend_from_slice(&self.display);
        if !self.display.is_empty() {
            out.push(b' ');
        }
        if self.brackets {
            out.push(b'<');
        }
        out.extend_from_slice(self.uri.as_bytes());
        if self.brackets {
            out.push(b'>');
        }
        out.extend_from_slice(params);
        out.into()
    }
}

/// An address is a caller's name and number.
impl std::fmt::Debug for NameAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NameAddr({} bytes)", self.encode().len())
    }
}

/// The Contact header fields of a message (RFC 3261 §20.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contacts {
    /// `*`: every contact, in a REGISTER that removes them.
    All,
    /// In order, possibly none.
    List(Vec<NameAddr>),
}

impl Contacts {
    /// Reads every Contact of a message. `*` beside another is refused.
    pub fn of(headers: &Headers) -> Result<Contacts, ValueError> {
        let mut list = Vec::new();
        let mut all = false;
        for value in headers.values(Name::Contact) {
            match &value[..] {
                b"*" => all = true,
                value => list.push(NameAddr::parse(value).map_err(|_| ValueError::Contact)?),
            }
        }
        match (all, list.is_empty()) {
            (true, true) => Ok(Contacts::All),
            (true, false) => Err(ValueError::Contact),
            (false, _) => Ok(Contacts::List(list)),
        }
    }

    /// The first contact, the remote target of a dialog (RFC 3261 §12.1).
    pub fn target(&self) -> Option<&NameAddr> {
        match self {
            Contacts::All => None,
            Contacts::List(list) => list.first(),
        }
    }
}

/// The values of Route, Record-Route, Path, P-Asserted-Identity and other address lists, in order.
pub fn addresses(headers: &Headers, name: Name<'_>) -> Result<Vec<NameAddr>, ValueError> {
    headers.values(name).map(|value| NameAddr::parse(&value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> NameAddr {
        NameAddr::parse(text.as_bytes()).unwrap_or_else(|_| panic!("{text}"))
    }

    #[test]
    fn display_names_of_every_form_are_read_and_kept() {
        for (text, name, encoded) in [
            ("\"A \\\"B\\\" <C>\" <sip:a@b>;tag=1", Some(&b"A \"B\" <C>"[..]), "\"A \\\"B\\\" <C>\" <sip:a@b>;tag=1"),
            ("caller<sip:a@b>", Some(b"caller"), "caller <sip:a@b>"),
            ("Bell, Alexander <sip:a@b>;tag=43", Some(b"Bell, Alexander"), "Bell, Alexander <sip:a@b>;tag=43"),
            ("\"\"<sip:a@b>", Some(b""), "\"\" <sip:a@b>"),
            ("< sip:a@b > ; tag = x", None, "<sip:a@b> ; tag = x"),
            ("sip:a@b;tag=1", None, "sip:a@b;tag=1"),
        ] {
            let address = address(text);
            assert_eq!(address.display().as_deref(), name, "{text}");
            assert_eq!(address.encode(), encoded);
        }
        let latin = NameAddr::parse(b"\"Jos\xe9\" <sip:a@b>").unwrap();
        assert_eq!(latin.display().unwrap(), &b"Jos\xe9"[..]);
    }

    #[test]
    fn without_brackets_parameters_belong_to_the_header_field() {
        let bare = address("sip:a@b;tag=1;x");
        assert_eq!((bare.tag(), bare.uri().param(b"tag")), (Some(&b"1"[..]), None));
        let bracketed = address("<sip:a@b;tag=1>");
        assert_eq!((bracketed.tag(), bracketed.uri().param(b"tag")), (None, Some(&b"1"[..])));
    }

    #[test]
    fn malformed_addresses_are_refused() {
        for bad in [
            "",
            "\"open <sip:a@b>",
            "\"a\" b <sip:a@b>",
            "a \"b\" <sip:a@b>",
            "<sip:a@b",
            "sip:a@b>",
            "<sip:a@b> x",
            "\"a\" sip:a@b",
            "sip:a@b?Route=x",
            "<>",
            "\"",
            "sip:a@b,sip:c@d",
            "<sip:a@b>;tag=",
        ] {
            assert!(NameAddr::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn setters_change_one_part() {
        let mut to = address("\"B\" <sip:b@c;x=1>;Foo=\"a;b\"");
        to.set_tag(b"t1");
        assert_eq!(to.encode(), "\"B\" <sip:b@c;x=1>;Foo=\"a;b\";tag=t1");
        to.set_uri(to.uri().with_host(b"d", Some(1)));
        to.set_display(Some(b"x\"y"));
        assert_eq!(to.encode(), "\"x\\\"y\" <sip:b@d:1;x=1>;Foo=\"a;b\";tag=t1");
        to.set_display_of(&address("Doe, J. <sip:x@y>"));
        assert!(to.encode().starts_with(b"\"Doe, J.\" <sip:b@d"));
        to.set_display_of(&address("a b <sip:x@y>"));
        assert!(to.encode().starts_with(b"a b <sip:b@d"));
        to.clear_params();
        to.set_display(None);
        assert_eq!(to.encode(), "<sip:b@d:1;x=1>");
    }

    #[test]
    fn a_star_stands_alone() {
        let contacts = |text: &'static str| {
            let mut headers = Headers::new();
            headers.push(Name::Contact, text);
            Contacts::of(&headers)
        };
        assert_eq!(contacts("*"), Ok(Contacts::All));
        assert_eq!(contacts("*, <sip:a@b>"), Err(ValueError::Contact));
        let two = contacts("\"a, b\" <sip:a@b>;q=0.1, sip:c@d").unwrap();
        assert_eq!(two.target().unwrap().param(b"q"), Some(&b"0.1"[..]));
        assert_eq!(Contacts::of(&Headers::new()).unwrap().target(), None);
    }

    #[test]
    fn a_route_set_keeps_its_order_over_lines_and_commas() {
        let mut headers = Headers::new();
        headers.push(Name::RecordRoute, "<sip:a;lr>, <sip:b>");
        headers.push(Name::RecordRoute, "<sip:c;lr>");
        let set = addresses(&headers, Name::RecordRoute).unwrap();
        let hosts: Vec<_> = set.iter().map(|r| (r.uri().host().to_vec(), r.uri().is_loose())).collect();
        assert_eq!(hosts, [(b"a".to_vec(), true), (b"b".to_vec(), false), (b"c".to_vec(), true)]);
    }
}
