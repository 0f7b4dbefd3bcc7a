//! What names a server transaction (§17.2.3) and what makes two requests the same one on two ways (§8.2.2.2).

use bytes::{BufMut, Bytes, BytesMut};

/// A server transaction's key: of a client with the magic cookie its branch, sent-by and method; of an RFC 2543 client
/// Request-URI, From tag, Call-ID, CSeq and the whole top Via (§17.2.3). ACK has the key of its INVITE; CANCEL has its
/// own, and finds its INVITE by [`ServerKey::of_invite`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerKey(Bytes);

/// The parts of a request that keys are made of.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The method as written.
    pub method: &'a [u8],
    /// Request-URI as written.
    pub uri: &'a [u8],
    /// The branch of the top Via.
    pub branch: Option<&'a [u8]>,
    /// Host and port of the top Via.
    pub sent_by: &'a [u8],
    /// The whole top Via.
    pub via: &'a [u8],
    /// From tag, empty when there is none.
    pub from_tag: &'a [u8],
    /// Call-ID.
    pub call_id: &'a [u8],
    /// The number of CSeq.
    pub cseq: u32,
}

/// RFC 3261's mark on a branch that is unique by itself (§8.1.1.7); hosts and cookies compare without case.
const COOKIE: &[u8] = b"z9hG4bK";

impl ServerKey {
    /// The key of the transaction that a request belongs to, or would begin.
    pub fn of(parts: &Parts<'_>) -> Self {
        let method = if parts.method == b"ACK" { b"INVITE" } else { parts.method };
        Self::with_method(parts, method)
    }

    /// The key of the INVITE that a CANCEL or ACK is for.
    pub fn of_invite(parts: &Parts<'_>) -> Self {
        Self::with_method(parts, b"INVITE")
    }

    fn with_method(parts: &Parts<'_>, method: &[u8]) -> Self {
        let mut key = BytesMut::with_capacity(96);
        key.put_slice(method);
        let cookie = |b: &&[u8]| b.len() > COOKIE.len() && b[..COOKIE.len()].eq_ignore_ascii_case(COOKIE);
        // NUL separates: it stands in no token, host or header value (the parser has none in our own, and a peer that
        // writes one can only collide with itself).
        if let Some(branch) = parts.branch.filter(cookie) {
            put(&mut key, branch);
            key.put_u8(0);
            let host = key.len();
            key.put_slice(parts.sent_by);
            key[host..].make_ascii_lowercase();
        } else {
            for part in [parts.uri, parts.from_tag, parts.call_id, parts.via] {
                put(&mut key, part);
            }
            key.put_u8(1);
            key.put_u32(parts.cseq);
        }
        Self(key.freeze())
    }
}

/// Equal for two copies of one request that came on two ways: same From tag, Call-ID, CSeq and Request-URI
/// (spec/sip.md §3; the RFC leaves out the URI, which would refuse a forked call to two of our numbers).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MergeKey(Bytes);

impl MergeKey {
    /// The key of a request without a To tag.
    pub fn of(parts: &Parts<'_>) -> Self {
        let mut key = BytesMut::with_capacity(128);
        key.put_slice(parts.method);
        for part in [parts.from_tag, parts.call_id, parts.uri] {
            put(&mut key, part);
        }
        key.put_u8(0);
        key.put_u32(parts.cseq);
        Self(key.freeze())
    }
}

fn put(key: &mut BytesMut, part: &[u8]) {
    key.put_u8(0);
    key.put_slice(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Parts<'_> = Parts {
        method: b"INVITE",
        uri: b"sip:1@x",
        branch: Some(b"z9hG4bK77"),
        sent_by: b"Host:5060",
        via: b"SIP/2.0/UDP Host:5060;branch=z9hG4bK77",
        from_tag: b"f",
        call_id: b"c",
        cseq: 1,
    };

    #[test]
    fn with_the_cookie_branch_sent_by_and_method_decide() {
        let key = ServerKey::of(&NEW);
        assert_eq!(key, ServerKey::of(&Parts { uri: b"sip:2@x", sent_by: b"HOST:5060", call_id: b"d", ..NEW }));
        assert_eq!(key, ServerKey::of(&Parts { method: b"ACK", ..NEW }));
        assert_ne!(key, ServerKey::of(&Parts { method: b"CANCEL", ..NEW }));
        assert_eq!(key, ServerKey::of_invite(&Parts { method: b"CANCEL", ..NEW }));
        assert_ne!(key, ServerKey::of(&Parts { branch: Some(b"z9hG4bK78"), ..NEW }));
        assert_ne!(key, ServerKey::of(&Parts { sent_by: b"host:5062", ..NEW }));
    }

    #[test]
    fn without_the_cookie_uri_from_tag_call_id_cseq_and_via_decide() {
        let old = Parts { branch: Some(b"77"), ..NEW };
        let key = ServerKey::of(&old);
        assert_eq!(key, ServerKey::of(&Parts { method: b"ACK", ..old }));
        for other in [
            Parts { uri: b"sip:2@x", ..old },
            Parts { from_tag: b"g", ..old },
            Parts { call_id: b"d", ..old },
            Parts { cseq: 2, ..old },
            Parts { via: b"SIP/2.0/UDP Host:5060;branch=78", ..old },
        ] {
            assert_ne!(key, ServerKey::of(&other));
        }
    }

    #[test]
    fn copies_of_a_request_merge_only_with_the_same_request_uri() {
        let other_way = Parts { branch: Some(b"z9hG4bK99"), via: b"other", ..NEW };
        assert_eq!(MergeKey::of(&NEW), MergeKey::of(&other_way));
        assert_ne!(MergeKey::of(&NEW), MergeKey::of(&Parts { uri: b"sip:2@x", ..other_way }));
        assert_ne!(MergeKey::of(&NEW), MergeKey::of(&Parts { cseq: 2, ..other_way }));
    }
}
