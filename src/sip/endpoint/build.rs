//! The lines that the endpoint writes itself.

use std::net::SocketAddr;

use bytes::Bytes;
use rand::Rng;

use super::Endpoint;
use super::api::*;
use super::tables::{DialogRecord, Incoming};
use crate::sip::dialog::Target;
use crate::sip::digits::{put_address, put_decimal, put_hex};
use crate::sip::headers::{Headers, Line};
use crate::sip::message::{Request, Response};
use crate::sip::method::Method;
use crate::sip::name::Name;
use crate::sip::values::{Uri, reason_phrase};

/// The parts of a request that its writer chooses; the endpoint adds the rest.
pub(super) struct Draft<'a> {
    pub(super) method: Method,
    pub(super) uri: Bytes,
    pub(super) routes: &'a [Bytes],
    pub(super) from: Bytes,
    pub(super) to: Bytes,
    pub(super) call_id: Bytes,
    pub(super) seq: u32,
    pub(super) max_forwards: u8,
    pub(super) contact: Option<Bytes>,
    pub(super) headers: Headers,
    pub(super) body: Option<Body>,
}

impl Endpoint {
    /// A number that nothing else of this endpoint has.
    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// 64 random bits in hexadecimal: tags, Contact users.
    pub(super) fn token(&mut self) -> Bytes {
        let mut token = Vec::with_capacity(16);
        put_hex(&mut token, self.rng.next_u64(), 16);
        token.into()
    }

    /// A branch that names its transaction and cannot be guessed (§8.1.1.7).
    pub(super) fn branch(&mut self, tx: u64) -> Bytes {
        let mut branch = Vec::with_capacity(BRANCH.len() + 33);
        branch.extend_from_slice(BRANCH.as_bytes());
        put_hex(&mut branch, tx, 1);
        branch.push(b'.');
        put_hex(&mut branch, self.rng.next_u64(), 16);
        branch.into()
    }

    /// A request, but for its Via.
    pub(super) fn write(&self, draft: Draft<'_>) -> Request {
        let mut request = Request::new(draft.method, draft.uri);
        let mut headers = Headers::with_capacity(16 + draft.headers.lines().len());
        let mut number = Vec::with_capacity(3);
        put_decimal(&mut number, u64::from(draft.max_forwards));
        headers.push(Name::MaxForwards, number);
        for route in draft.routes {
            headers.push(Name::Route, route.clone());
        }
        headers.push(Name::From, draft.from);
        headers.push(Name::To, draft.to);
        headers.push(Name::CallId, draft.call_id);
        let mut sequence = Vec::with_capacity(16);
        put_decimal(&mut sequence, u64::from(draft.seq));
        sequence.push(b' ');
        sequence.extend_from_slice(request.method.as_bytes());
        headers.push(Name::CSeq, sequence);
        let is_focus = draft.contact.as_deref().is_some_and(says_focus);
        if let Some(contact) = draft.contact {
            headers.push(Name::Contact, contact);
        }
        if matches!(request.method, Method::Invite | Method::Update | Method::Options) {
            self.push_abilities(&mut headers, is_focus);
        }
        if !matches!(request.method, Method::Ack | Method::Cancel) {
            headers.push(Name::UserAgent, self.user_agent.clone());
        }
        for line in draft.headers.lines() {
            headers.push_line(line.clone());
        }
        request.headers = headers;
        if let Some(body) = draft.body {
            request.headers.push(Name::ContentType, body.content_type);
            request.body = body.bytes;
        }
        request
    }

    /// A request in a dialog, but for its Via (§12.2.1.1).
    pub(super) fn write_in(
        &self,
        record: &DialogRecord,
        target: Target,
        method: Method,
        seq: u32,
        headers: Headers,
        body: Option<Body>,
    ) -> Request {
        let refreshes = matches!(
            method,
            Method::Invite | Method::Update | Method::Refer | Method::Subscribe | Method::Notify | Method::Other(_)
        );
        let contact = refreshes.then(|| contact(&record.contact_user, &record.peer, record.transport));
        self.write(Draft {
            method,
            uri: target.request_uri,
            routes: &target.routes,
            from: record.dialog.local.clone(),
            to: record.dialog.remote.clone(),
            call_id: record.dialog.key.call_id.clone(),
            seq,
            max_forwards: 70,
            contact,
            headers,
            body,
        })
    }

    /// Allow and Supported; Allow-Events where we are a focus (RFC 4579 §3.1).
    fn push_abilities(&self, headers: &mut Headers, is_focus: bool) {
        headers.push(Name::Allow, self.allow.clone());
        if !self.supported.is_empty() {
            headers.push(Name::Supported, self.supported.clone());
        }
        if is_focus {
            headers.push(Name::AllowEvents, self.options.packages.join(", "));
        }
    }

    /// A response to a request (§8.2.6) with our tag in To, except in 100.
    pub(super) fn write_response(
        &self,
        incoming: &Incoming,
        tag: &[u8],
        reply: Reply,
        contact: Option<Bytes>,
    ) -> Response {
        let Reply { code, reason, headers: extra, body } = reply;
        let reason = if reason.is_empty() { reason_phrase(code) } else { reason };
        let mut response = Response::new(code, reason);
        let mut headers = Headers::with_capacity(12 + extra.lines().len());
        for line in incoming.head.lines() {
            if line.name() == Name::To && code != 100 && incoming.essentials.to.tag().is_none() {
                let mut line = line.clone();
                line.set_value([&line.raw()[..], b";tag=", tag].concat());
                headers.push_line(line);
            } else {
                headers.push_line(line.clone());
            }
        }
        if code == 100 {
            for line in incoming.request.headers.all(Name::Timestamp) {
                headers.push_line(line.clone());
            }
        }
        let method = &incoming.request.method;
        if contact.is_some() {
            // A dialog is made or refreshed: its route set goes back (§12.1.1).
            for line in incoming.request.headers.all(Name::RecordRoute) {
                headers.push_line(line.clone());
            }
        }
        let is_focus = contact.as_deref().is_some_and(says_focus);
        if let Some(contact) = contact {
            headers.push(Name::Contact, contact);
        }
        let describes =
            matches!(method, Method::Invite | Method::Update | Method::Options) && (101..=299).contains(&code);
        if describes {
            self.push_abilities(&mut headers, is_focus);
        } else if code == 405 {
            headers.push(Name::Allow, self.allow.clone());
        }
        if code != 100 {
            headers.push(Name::Server, self.user_agent.clone());
        }
        for line in extra.lines() {
            headers.push_line(line.clone());
        }
        response.headers = headers;
        if let Some(body) = body {
            response.headers.push(Name::ContentType, body.content_type);
            response.body = body.bytes;
        }
        response
    }
}

/// The beginning of every branch of ours: the magic cookie.
pub(super) const BRANCH: &str = "z9hG4bK";

/// The transaction that a branch of ours names.
pub(super) fn branch_tx(branch: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(branch).ok()?.strip_prefix(BRANCH)?;
    u64::from_str_radix(text.split_once('.')?.0, 16).ok()
}

/// Our Via with `rport` (RFC 3581 §3).
pub(super) fn via(transport: Transport, sent_by: SocketAddr, branch: &Bytes) -> Bytes {
    let mut via = Vec::with_capacity(64 + branch.len());
    via.extend_from_slice(b"SIP/2.0/");
    via.extend_from_slice(transport.via_name().as_bytes());
    via.push(b' ');
    put_address(&mut via, sent_by);
    via.extend_from_slice(b";branch=");
    via.extend_from_slice(branch);
    via.extend_from_slice(b";rport");
    via.into()
}

/// How a Contact ends that is a conference's.
const IS_FOCUS: &[u8] = b">;isfocus";

fn says_focus(contact: &[u8]) -> bool {
    contact.ends_with(IS_FOCUS)
}

/// Our Contact: `user` is its user part where we are no focus.
pub(super) fn contact(user: &Bytes, peer: &Peer, transport: Transport) -> Bytes {
    let uri = Uri::sip(Some(peer.focus.as_ref().unwrap_or(user)), peer.advertised);
    let uri = match transport {
        Transport::Udp => uri,
        Transport::Tcp => uri.with_param(b"transport", Some(b"tcp")),
        Transport::Tls => uri.with_param(b"transport", Some(b"tls")),
    };
    let feature = if peer.focus.is_some() { IS_FOCUS } else { b">" };
    [b"<", &uri.as_bytes()[..], feature].concat().into()
}

/// A header value with a tag added.
pub(super) fn with_tag(value: &Bytes, tag: &Bytes) -> Bytes {
    [&value[..], b";tag=", tag].concat().into()
}

/// The ACK for a failure (§17.1.1.3) or a CANCEL (§9.1): Request-URI, top Via, From, Call-ID, Route and the number of
/// CSeq are the INVITE's; To is the response's in the ACK, the INVITE's in the CANCEL.
pub(super) fn follow_up(invite: &Request, method: Method, to: Option<&Line>, extra: &Headers) -> Request {
    let mut request = Request::new(method, invite.uri.clone());
    let mut headers = Headers::with_capacity(10);
    let mut has_via = false;
    for line in invite.headers.lines() {
        match line.name() {
            Name::Via if !has_via => {
                has_via = true;
                headers.push_line(line.clone());
            }
            Name::To => headers.push_line(to.unwrap_or(line).clone()),
            Name::CSeq => {
                let value = line.value();
                let number = value.split(|b| *b == b' ').next().unwrap_or_default();
                headers.push(Name::CSeq, [number, b" ", request.method.as_bytes()].concat());
            }
            // §22.1: the ACK carries the credentials of its INVITE; a CANCEL must not be challenged, they do no harm.
            Name::From
            | Name::CallId
            | Name::Route
            | Name::MaxForwards
            | Name::Authorization
            | Name::ProxyAuthorization => {
                headers.push_line(line.clone());
            }
            _ => {}
        }
    }
    for line in extra.lines() {
        headers.push_line(line.clone());
    }
    request.headers = headers;
    request
}

/// The lines with credentials; the ACK of a 2xx carries those of its INVITE (§22.1).
pub(super) fn authorization_of(request: &Request) -> Vec<Line> {
    let is_one = |line: &&Line| matches!(line.name(), Name::Authorization | Name::ProxyAuthorization);
    request.headers.lines().iter().filter(is_one).cloned().collect()
}
