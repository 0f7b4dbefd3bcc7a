//! Dialogs (RFC 3261 §12): identity, route set, remote target, sequence numbers. No messages, no timers.

use std::fmt;

use bytes::Bytes;

/// What finds a dialog: Call-ID and both tags, ours first (§12).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DialogKey {
    /// Call-ID.
    pub call_id: Bytes,
    /// Our tag.
    pub local_tag: Bytes,
    /// The peer's tag; empty when it writes none (§12.1.1, RFC 2543 peers).
    pub remote_tag: Bytes,
}

/// How far a dialog is.
///
/// ```text
///  1xx with a tag (§12.1)        2xx (§13.2.2.4, §13.3.1.4)
///  ──────────────► [ Early ] ─────────────► [ Confirmed ] ◄──── 2xx without an early dialog
///                     │ final ≥ 300, BYE         │ BYE sent or received (§15)
///                     └─────────► [ Ended ] ◄────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its INVITE is not answered.
    Early,
    /// Its INVITE is answered 2xx.
    Confirmed,
    /// A BYE was sent or received; it waits only for that BYE's end.
    Ended,
}

/// A dialog, seen from us.
#[derive(Clone)]
pub struct Dialog {
    /// Its identity.
    pub key: DialogKey,
    /// True when we sent the INVITE: we own the Call-ID, and From is ours.
    pub is_caller: bool,
    /// True when an INVITE has made it; else a REFER or SUBSCRIBE, and it carries NOTIFYs only.
    pub is_session: bool,
    /// How far it is.
    pub state: State,
    /// From of our requests, with tag (§12.2.1.1).
    pub local: Bytes,
    /// To of our requests, with tag.
    pub remote: Bytes,
    /// The last CSeq number that we used.
    pub local_seq: u32,
    /// The last CSeq number of the peer.
    pub remote_seq: Option<u32>,
    /// Where requests are addressed: the URI of the peer's Contact.
    pub remote_target: Bytes,
    /// The Route set in our order; fixed once confirmed.
    pub route_set: Vec<Route>,
}

/// Addresses and targets may be callers' numbers: they are not printed.
impl fmt::Debug for Dialog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Dialog({:?}, {} routes, CSeq {} {:?})",
            self.state,
            self.route_set.len(),
            self.local_seq,
            self.remote_seq
        )
    }
}

/// One element of a route set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// As it stands in Route: `<sip:proxy.example.com;lr>`.
    pub value: Bytes,
    /// Its URI.
    pub uri: Bytes,
    /// True with the `lr` parameter; false: an RFC 2543 strict router.
    pub is_loose: bool,
}

/// Where a request in the dialog is addressed and sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The Request-URI.
    pub request_uri: Bytes,
    /// The values of Route, in order.
    pub routes: Vec<Bytes>,
    /// The URI that says where to send it.
    pub next_hop: Bytes,
}

impl Dialog {
    /// Request-URI, Route and next hop of a request (§12.2.1.1).
    pub fn target(&self) -> Target {
        let Some(first) = self.route_set.first() else {
            let uri = self.remote_target.clone();
            return Target { request_uri: uri.clone(), routes: vec![], next_hop: uri };
        };
        if first.is_loose {
            return Target {
                request_uri: self.remote_target.clone(),
                routes: self.route_set.iter().map(|route| route.value.clone()).collect(),
                next_hop: first.uri.clone(),
            };
        }
        // A strict router expects itself in the Request-URI and the target last in Route.
        let mut routes: Vec<Bytes> = self.route_set[1..].iter().map(|route| route.value.clone()).collect();
        routes.push([b"<", &self.remote_target[..], b">"].concat().into());
        Target { request_uri: without_headers(&first.uri), routes, next_hop: first.uri.clone() }
    }

    /// The number for our next request (§12.2.1.1).
    pub fn next_seq(&mut self) -> u32 {
        // 2³¹ requests in one dialog are not reached: the limit of §8.1.1.5 needs no answer of its own.
        self.local_seq = self.local_seq.wrapping_add(1) & 0x7fff_ffff;
        self.local_seq
    }

    /// Takes the number of a request of the peer; false when it is lower than one before: 500 (§12.2.2).
    pub fn take_remote_seq(&mut self, seq: u32) -> bool {
        if self.remote_seq.is_some_and(|last| seq < last) {
            return false;
        }
        self.remote_seq = Some(seq);
        true
    }
}

/// A Request-URI carries no headers and no method parameter (§19.1.1).
fn without_headers(uri: &Bytes) -> Bytes {
    let end = uri.iter().position(|b| *b == b'?').unwrap_or(uri.len());
    let uri = uri.slice(..end);
    let is_method = |part: &&[u8]| part.len() >= 7 && part[..7].eq_ignore_ascii_case(b"method=");
    if !uri.split(|b| *b == b';').any(|part| is_method(&part)) {
        return uri;
    }
    let kept: Vec<&[u8]> = uri.split(|b| *b == b';').filter(|part| !is_method(part)).collect();
    kept.join(&b';').into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialog(routes: &[(&'static str, bool)]) -> Dialog {
        let route_set =
            routes.iter().map(|&(uri, is_loose)| Route { value: format!("<{uri}>").into(), uri: uri.into(), is_loose });
        Dialog {
            key: DialogKey { call_id: "c".into(), local_tag: "l".into(), remote_tag: "r".into() },
            is_caller: true,
            is_session: true,
            state: State::Confirmed,
            local: "<sip:a@b>;tag=l".into(),
            remote: "<sip:c@d>;tag=r".into(),
            local_seq: 1,
            remote_seq: None,
            remote_target: "sip:token@192.0.2.4".into(),
            route_set: route_set.collect(),
        }
    }

    #[test]
    fn without_routes_the_remote_target_is_address_and_next_hop() {
        let target = dialog(&[]).target();
        assert_eq!(target.request_uri, "sip:token@192.0.2.4");
        assert_eq!(target.next_hop, "sip:token@192.0.2.4");
        assert!(target.routes.is_empty());
    }

    #[test]
    fn a_loose_route_keeps_the_target_in_the_request_uri() {
        let target = dialog(&[("sip:p1;lr", true), ("sip:p2;lr", true)]).target();
        assert_eq!(target.request_uri, "sip:token@192.0.2.4");
        assert_eq!(target.routes, ["<sip:p1;lr>", "<sip:p2;lr>"]);
        assert_eq!(target.next_hop, "sip:p1;lr");
    }

    #[test]
    fn a_strict_router_stands_in_the_request_uri_and_the_target_comes_last() {
        let target = dialog(&[("sip:p1;method=INVITE;x=1?Subject=y", false), ("sip:p2;lr", true)]).target();
        assert_eq!(target.request_uri, "sip:p1;x=1");
        assert_eq!(target.routes, ["<sip:p2;lr>", "<sip:token@192.0.2.4>"]);
        assert!(target.next_hop.starts_with(b"sip:p1"));
    }

    #[test]
    fn a_lower_sequence_number_is_refused_and_forgotten() {
        let mut dialog = dialog(&[]);
        assert!(dialog.take_remote_seq(7));
        assert!(!dialog.take_remote_seq(6));
        assert!(dialog.take_remote_seq(7) && dialog.take_remote_seq(20));
        assert_eq!(dialog.next_seq(), 2);
    }
}
