//! Content-Type (RFC 3261 §20.15).

use bytes::Bytes;

use super::ValueError;
use super::params::Params;
use crate::sip::scan;

/// A media type: `type/subtype;parameters`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaType {
    kind: Bytes,
    subtype: Bytes,
    params: Params,
}

impl MediaType {
    /// Reads a value.
    pub fn parse(value: &[u8]) -> Result<MediaType, ValueError> {
        let text = Bytes::copy_from_slice(scan::trim(value));
        let end = text.iter().position(|b| *b == b';').unwrap_or(text.len());
        let slash = text[..end].iter().position(|b| *b == b'/').ok_or(ValueError::MediaType)?;
        let (kind, subtype) = (scan::trim(&text[..slash]), scan::trim(&text[slash + 1..end]));
        if !scan::is_token(kind) || !scan::is_token(subtype) {
            return Err(ValueError::MediaType);
        }
        let params = Params::parse(text.slice(end..)).map_err(|_| ValueError::MediaType)?;
        Ok(MediaType { kind: text.slice_ref(kind), subtype: text.slice_ref(subtype), params })
    }

    /// Whether this is the type, compared without case.
    pub fn is(&self, kind: &str, subtype: &str) -> bool {
        self.kind.eq_ignore_ascii_case(kind.as_bytes()) && self.subtype.eq_ignore_ascii_case(subtype.as_bytes())
    }

    /// Whether this is `application/sdp`.
    pub fn is_sdp(&self) -> bool {
        self.is("application", "sdp")
    }

    /// Whether the body has parts (RFC 5621).
    pub fn is_multipart(&self) -> bool {
        self.kind.eq_ignore_ascii_case(b"multipart")
    }

    /// The boundary of a multipart body, unquoted.
    pub fn boundary(&self) -> Option<Vec<u8>> {
        self.params.unquoted(b"boundary").map(|boundary| boundary.into_owned()).filter(|boundary| !boundary.is_empty())
    }

    /// The parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }
}

impl std::fmt::Debug for Params {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Params({} bytes)", self.as_bytes().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_compare_without_case_and_boundaries_are_unquoted() {
        let sdp = MediaType::parse(b"Application / SDP ;charset=utf-8").unwrap();
        assert!(sdp.is_sdp() && !sdp.is_multipart());
        let mixed = MediaType::parse(b"multipart/mixed;boundary=\"a b\"").unwrap();
        assert!(mixed.is_multipart());
        assert_eq!(mixed.boundary().unwrap(), b"a b");
        for bad in [&b""[..], b"application", b"a/", b"/b", b"a/b/c", b"a/b;c=\""] {
            assert!(MediaType::parse(bad).is_err());
        }
    }
}
