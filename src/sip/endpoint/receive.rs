//! Server side: what every request goes through before somebody hears of it (§8.2, §9.2, §12.2.2, §17.2.3).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use rand::RngExt;

use super::Endpoint;
use super::api::*;
use super::build::with_tag;
use super::tables::*;
use crate::sip::dialog::{DialogKey, State};
use crate::sip::digits::{put_decimal, put_hex};
use crate::sip::headers::Headers;
use crate::sip::message::{ParseError, Request, Response};
use crate::sip::method::Method;
use crate::sip::name::Name;
use crate::sip::timers::{Own, Timer};
use crate::sip::transaction::key::{MergeKey, Parts, ServerKey};
use crate::sip::transaction::{InviteServer, Send, Server, Tell};
use crate::sip::values::transport::default_port;
use crate::sip::values::{Contacts, Essentials, Join, NameAddr, Replaces, Scheme, Uri, ValueError, Via, called_number};

/// The keys of a request.
struct Keys {
    own: ServerKey,
    invite: ServerKey,
    merge: MergeKey,
}

impl Endpoint {
    /// A message that is not one: answered when it can be, else counted.
    pub(super) fn on_garbage(&mut self, flow: Flow, error: ParseError) {
        self.counters.malformed += 1;
        let Some(answerable) = error.answerable else {
            return;
        };
        let mut request = Request::new(answerable.method, "");
        request.headers = answerable.headers;
        let reason = error.fault.to_string();
        self.answer_malformed(flow, &request, answerable.code, reason);
    }

    /// A request whose header fields cannot be worked with: answered without a transaction (§8.2.7), with those of its
    /// lines that a response begins with. Only the top Via must be whole, it says where to.
    fn answer_malformed(&mut self, flow: Flow, request: &Request, code: u16, reason: String) {
        if request.method == Method::Ack {
            return;
        }
        let Some(mut via) = request.headers.first(Name::Via).and_then(|via| Via::parse(&via).ok()) else {
            return;
        };
        let reply = reply_flows(&flow, &via).0;
        let mut response = Response::new(code, reason);
        response.headers = head(&request.headers);
        if via.note_source(flow.remote) {
            response.headers.replace_first(Name::Via, &via.encode());
        }
        let to = response.headers.get(Name::To).unwrap_or_default().into_owned();
        if NameAddr::parse(&to).is_ok_and(|to| to.tag().is_none()) {
            let tag = self.own_tag(&(&to, request.headers.get(Name::CallId), via.branch()));
            response.headers.set(Name::To, with_tag(&to.into(), &tag));
        }
        response.headers.push(Name::Server, self.user_agent.clone());
        self.transmit(0, reply, response.encode());
    }

    /// A response that is sent once and not kept; the same request gets the same answer again.
    fn answer_without_transaction(&mut self, flow: &Flow, incoming: &Incoming, reply: Reply) {
        let tag = self.own_tag(&incoming.key);
        let response = self.write_response(incoming, &tag, reply, None);
        let (reply_flow, _) = reply_flows(flow, &incoming.essentials.via);
        self.transmit(0, reply_flow, response.encode());
    }

    /// A request has come.
    pub(super) fn on_request(&mut self, flow: Flow, request: Request, now: Instant) {
        self.counters.requests += 1;
        let essentials = match Essentials::of_request(&request) {
            Ok(essentials) => essentials,
            Err(error) => {
                self.counters.malformed += 1;
                self.answer_malformed(flow, &request, 400, error.to_string());
                return;
            }
        };
        let keys = keys(&request, &essentials);
        if request.method == Method::Ack {
            self.on_ack(flow, request, &essentials, &keys.own, now);
            return;
        }
        if let Some(&id) = self.server_keys.get(&keys.own) {
            self.on_repeated(id);
            return;
        }
        let is_cancel = request.method == Method::Cancel;
        let incoming = self.incoming(&flow, request, essentials, keys.own);
        if is_cancel {
            self.on_cancel(flow, incoming, &keys.invite, now);
            return;
        }
        let in_dialog = incoming.essentials.to.tag().is_some();
        if if in_dialog { self.is_full_for_dialogs() } else { self.is_full() } {
            self.counters.refused += 1;
            let reply = self.overloaded();
            self.answer_without_transaction(&flow, &incoming, reply);
            return;
        }
        let merged = !in_dialog && self.merges.contains_key(&keys.merge);
        let merge = (!in_dialog && !merged).then_some(keys.merge);
        let refusal = if merged { Some(Reply::new(482)) } else { self.screen(&incoming) };
        let tx = self.insert_server(&flow, &incoming, merge, now);
        match refusal {
            Some(reply) => self.refuse(tx, reply, now),
            None if in_dialog => self.on_in_dialog(tx, flow, incoming, now),
            None => self.on_outside(tx, flow, incoming, now),
        }
    }

    fn on_repeated(&mut self, id: u64) {
        self.counters.repeated_requests += 1;
        let step = match self.servers.get(&id).map(|record| &record.machine) {
            Some(ServerMachine::Invite(machine)) => machine.repeated(),
            Some(ServerMachine::Other(machine)) => machine.repeated(),
            None => return,
        };
        if step.send == Send::Message {
            self.repeat_response(id);
        }
    }

    /// Why a request is refused whatever it is about, in the order of §8.2.
    fn screen(&self, incoming: &Incoming) -> Option<Reply> {
        let request = &incoming.request;
        if !request.method.is_known() && !self.options.allow.contains(&request.method) {
            return Some(Reply::new(501));
        }
        if request.method != Method::Options && !self.options.allow.contains(&request.method) {
            return Some(Reply::new(405));
        }
        match Uri::parse(request.uri.clone()).map(|uri| uri.scheme()) {
            Ok(Scheme::Sip | Scheme::Sips | Scheme::Tel) => {}
            Ok(_) => return Some(Reply::new(416)),
            Err(error) => return Some(bad_request(error)),
        }
        // In a dialog we are where the request ends: the hops are counted, not spent.
        if incoming.essentials.to.tag().is_none() && incoming.essentials.max_forwards == Some(0) {
            return Some(Reply::new(483));
        }
        let is_unsupported =
            |tag: &[u8]| !self.options.supported.iter().any(|own| own.as_bytes().eq_ignore_ascii_case(tag));
        let mut unsupported: Vec<Bytes> = vec![];
        for tag in request.headers.values(Name::Require) {
            if is_unsupported(&tag) {
                unsupported.push(tag.into_owned().into());
            }
        }
        if !unsupported.is_empty() {
            let mut reply = Reply::new(420);
            reply.headers.push(Name::Unsupported, unsupported.join(&b", "[..]));
            return Some(reply);
        }
        if let Some(error) = self.dialog_error(request) {
            return Some(bad_request(error));
        }
        if request.method == Method::Invite {
            match Contacts::of(&request.headers) {
                Ok(contacts) if contacts.target().is_some() => {}
                Ok(_) => return Some(bad_request(ValueError::Missing("Contact"))),
                Err(error) => return Some(bad_request(error)),
            }
        }
        None
    }

    /// What is wrong with a Replaces (RFC 3891 §3) or a Join (RFC 3911 §4), where it is an extension of ours.
    fn dialog_error(&self, request: &Request) -> Option<ValueError> {
        let headers = &request.headers;
        let is_invite = request.method == Method::Invite;
        let has = |extension, name| self.options.supported.contains(&extension) && headers.has(name);
        let replaces = has("replaces", Name::Replaces).then(|| match is_invite {
            true => Replaces::of(headers).err(),
            false => Some(ValueError::ReplacesMethod),
        });
        let join = || {
            has("join", Name::Join).then(|| match is_invite {
                true => Join::of(headers).err(),
                false => Some(ValueError::JoinMethod),
            })
        };
        replaces.flatten().or_else(|| join().flatten())
    }

    fn on_outside(&mut self, tx: ServerTx, flow: Flow, incoming: Incoming, now: Instant) {
        match incoming.request.method {
            Method::Invite => {
                self.send_trying(tx, &incoming);
                self.event(Event::Invite { tx, flow, request: incoming.request });
            }
            Method::Options if self.is_available && self.is_for_conference(&incoming.request) => {
                self.event(Event::Request { tx, dialog: None, flow, request: incoming.request });
            }
            Method::Options => {
                let reply = if self.is_available { abilities() } else { self.overloaded() };
                self.refuse(tx, reply, now);
            }
            Method::Subscribe if !self.options.packages.is_empty() => self.on_subscribe(tx, None, flow, incoming, now),
            // Only a dialog gives them a meaning (§15.1.2, RFC 3311 §5.2, RFC 6086 §4.2.2).
            Method::Bye | Method::Update | Method::Info | Method::Prack => self.refuse(tx, Reply::new(481), now),
            _ => self.event(Event::Request { tx, dialog: None, flow, request: incoming.request }),
        }
    }

    fn is_for_conference(&self, request: &Request) -> bool {
        let uri = Uri::parse(request.uri.clone()).ok();
        uri.and_then(|uri| called_number(&uri)).is_some_and(|number| self.conferences.contains(&number))
    }

    fn on_in_dialog(&mut self, tx: ServerTx, flow: Flow, incoming: Incoming, now: Instant) {
        let method = incoming.request.method.clone();
        let found = self.dialog_of_request(&flow, &incoming.essentials);
        let Some((id, record)) = found.and_then(|id| Some((id, self.dialogs.get_mut(&id)?))) else {
            self.refuse(tx, Reply::new(481), now);
            return;
        };
        if record.dialog.state == State::Ended {
            // Both ends hang up at once: each BYE is answered (§15.1.2).
            let code = if method == Method::Bye { 200 } else { 481 };
            self.refuse(tx, Reply::new(code), now);
            return;
        }
        if !record.dialog.is_session && matches!(method, Method::Invite | Method::Bye) {
            self.refuse(tx, Reply::new(481), now);
            return;
        }
        if !record.dialog.take_remote_seq(incoming.essentials.cseq.number) {
            self.counters.out_of_order += 1;
            self.refuse(tx, Reply::new(500), now);
            return;
        }
        record.flow = flow;
        if let Some(server) = self.servers.get_mut(&tx.0) {
            server.dialog = Some(id);
        }
        match method {
            Method::Invite => self.on_reinvite(tx, id, flow, incoming, now),
            Method::Bye => self.on_bye(tx, id, flow, incoming, now),
            Method::Options => self.refuse(tx, abilities(), now),
            Method::Subscribe if !self.options.packages.is_empty() => {
                self.on_subscribe(tx, Some(id), flow, incoming, now);
            }
            _ => self.event(Event::Request { tx, dialog: Some(id), flow, request: incoming.request }),
        }
    }

    /// The dialog of a request, if it may come from there (spec/sip.md §4).
    fn dialog_of_request(&mut self, flow: &Flow, essentials: &Essentials) -> Option<DialogId> {
        let tag = |tag: Option<&[u8]>| Bytes::copy_from_slice(tag.unwrap_or_default());
        let key = DialogKey {
            call_id: essentials.call_id.clone(),
            local_tag: tag(essentials.to.tag()),
            remote_tag: tag(essentials.from.tag()),
        };
        let &id = self.dialog_keys.get(&key)?;
        let record = self.dialogs.get(&id)?;
        if !record.peer.allows(flow.remote.ip()) && !is_same_flow(&record.flow, flow) {
            self.counters.foreign_sources += 1;
            return None;
        }
        Some(id)
    }

    /// §14.2: 491 while ours is open, 500 while theirs is; also 491 while our 2xx waits for its ACK, whose body may be
    /// the answer to our offer (RFC 5407 §3.1.4).
    fn on_reinvite(&mut self, tx: ServerTx, id: DialogId, flow: Flow, incoming: Incoming, now: Instant) {
        let Some(record) = self.dialogs.get_mut(&id) else {
            return;
        };
        if record.their_invite.is_some() {
            let mut reply = Reply::new(500);
            let seconds: u8 = self.rng.random_range(0..=10);
            reply.headers.push(Name::RetryAfter, seconds.to_string());
            self.refuse(tx, reply, now);
            return;
        }
        // Early and not theirs: our INVITE is the one that is open.
        if record.is_invite_open() || record.dialog.state == State::Early {
            self.refuse(tx, Reply::new(491), now);
            return;
        }
        record.their_invite = Some(tx);
        self.send_trying(tx, &incoming);
        self.event(Event::Request { tx, dialog: Some(id), flow, request: incoming.request });
    }

    fn on_bye(&mut self, tx: ServerTx, id: DialogId, flow: Flow, incoming: Incoming, now: Instant) {
        let Some(record) = self.dialogs.get_mut(&id) else {
            return;
        };
        if record.dialog.state == State::Early {
            if record.dialog.is_caller {
                // A callee must not (§15): the caller decides by CANCEL.
                self.refuse(tx, Reply::new(481), now);
            } else {
                self.end_early(tx, id, incoming.request, now);
            }
            return;
        }
        record.dialog.state = State::Ended;
        record.unacked = None;
        record.to_ack = None;
        self.timers.clear(Timer::Answer, id.0);
        self.timers.clear(Timer::Ack, id.0);
        self.settle(id, now);
        self.event(Event::Request { tx, dialog: Some(id), flow, request: incoming.request });
    }

    /// A caller ends an early dialog with BYE (§15.1.2): its INVITE ends as with CANCEL.
    fn end_early(&mut self, tx: ServerTx, id: DialogId, bye: Request, now: Instant) {
        let invite = self.dialogs.get(&id).and_then(|record| record.their_invite);
        self.refuse(tx, Reply::new(200), now);
        if let Some(invite) = invite
            && self.answer(invite, None, Reply::new(487), now).is_ok()
        {
            self.event(Event::Cancelled { tx: invite, request: bye });
        }
    }

    /// §9.2: 200 whatever becomes of the INVITE, 481 without one. It must come from where the INVITE came from.
    fn on_cancel(&mut self, flow: Flow, incoming: Incoming, invite: &ServerKey, now: Instant) {
        let found = self.server_keys.get(invite).and_then(|id| Some((*id, self.servers.get(id)?)));
        let Some((id, record)) = found.filter(|(_, record)| record.flow.remote.ip() == flow.remote.ip()) else {
            self.counters.stray_cancels += 1;
            self.answer_without_transaction(&flow, &incoming, Reply::new(481));
            return;
        };
        let tag = record.own_tag.clone();
        let is_open = record.machine.is_open();
        let response = self.write_response(&incoming, &tag, Reply::new(200), None);
        let (reply_flow, _) = reply_flows(&flow, &incoming.essentials.via);
        self.transmit(0, reply_flow, response.encode());
        let tx = ServerTx(id);
        if is_open && self.answer(tx, None, Reply::new(487), now).is_ok() {
            self.event(Event::Cancelled { tx, request: incoming.request });
        }
    }

    fn on_ack(&mut self, flow: Flow, request: Request, essentials: &Essentials, key: &ServerKey, now: Instant) {
        if let Some(&id) = self.server_keys.get(key)
            && let Some(record) = self.servers.get_mut(&id)
            && let ServerMachine::Invite(machine) = &mut record.machine
        {
            let mut own = Own::new(&mut self.timers, id, self.intervals, record.flow.transport.is_reliable(), now);
            let step = machine.ack(&mut own);
            if step.over {
                self.remove_server(id, now);
            }
            if step.tell != Tell::Pass {
                return;
            }
            // The ACK of a 2xx with the branch of its INVITE: wrong (§17.1.1.3), but seen; it belongs to the dialog.
        }
        let found = if essentials.to.tag().is_some() { self.dialog_of_request(&flow, essentials) } else { None };
        let Some((id, record)) = found.and_then(|id| Some((id, self.dialogs.get_mut(&id)?))) else {
            self.counters.stray_acks += 1;
            return;
        };
        if record.unacked.as_ref().is_none_or(|unacked| unacked.seq != essentials.cseq.number) {
            self.counters.repeated_requests += 1;
            return;
        }
        record.unacked = None;
        record.flow = flow;
        self.timers.clear(Timer::Answer, id.0);
        self.timers.clear(Timer::Ack, id.0);
        self.event(Event::Ack { dialog: id, request });
        self.send_delayed_bye(id, now);
    }

    /// Notes the source in the top Via (§18.2.1, RFC 3581 §4) and copies what responses begin with (§8.2.6.2).
    fn incoming(&self, flow: &Flow, mut request: Request, mut essentials: Essentials, key: ServerKey) -> Incoming {
        if essentials.via.note_source(flow.remote) {
            request.headers.replace_first(Name::Via, &essentials.via.encode());
        }
        let head = head(&request.headers);
        Incoming { request, head, essentials, key }
    }

    /// Our To tag outside dialogs: the same for repeats without keeping anything, unguessable without the secret.
    fn own_tag(&self, key: &impl Hash) -> Bytes {
        let mut hasher = DefaultHasher::new();
        (self.secret, key).hash(&mut hasher);
        let mut tag = Vec::with_capacity(16);
        put_hex(&mut tag, hasher.finish(), 16);
        tag.into()
    }

    fn insert_server(&mut self, flow: &Flow, incoming: &Incoming, merge: Option<MergeKey>, now: Instant) -> ServerTx {
        let id = self.next_id();
        let method = incoming.request.method.clone();
        let machine = if method == Method::Invite {
            ServerMachine::Invite(InviteServer::start().0)
        } else {
            let mut own = Own::new(&mut self.timers, id, self.intervals, flow.transport.is_reliable(), now);
            ServerMachine::Other(Server::start(&mut own))
        };
        let (reply, reply_fallback) = reply_flows(flow, &incoming.essentials.via);
        if let Some(merge) = &merge {
            self.merges.insert(merge.clone(), id);
        }
        self.server_keys.insert(incoming.key.clone(), id);
        let record = ServerRecord {
            machine,
            key: incoming.key.clone(),
            merge,
            flow: *flow,
            reply,
            reply_fallback,
            last: Bytes::new(),
            own_tag: self.own_tag(&incoming.key),
            method,
            incoming: Some(Box::new(incoming.clone())),
            dialog: None,
            early: vec![],
        };
        self.servers.insert(id, Box::new(record));
        ServerTx(id)
    }

    /// 100, at once and for every INVITE that somebody hears of.
    fn send_trying(&mut self, tx: ServerTx, incoming: &Incoming) {
        let bytes = self.write_response(incoming, &[], Reply::new(100), None).encode();
        if let Some(record) = self.servers.get_mut(&tx.0) {
            record.last = bytes;
        }
        self.repeat_response(tx.0);
    }

    /// Answers a request that has just come, so that it must be open.
    pub(super) fn refuse(&mut self, tx: ServerTx, reply: Reply, now: Instant) {
        let answered = self.answer(tx, None, reply, now);
        debug_assert!(answered.is_ok(), "a fresh transaction takes any final answer: {answered:?}");
    }

    /// 503 with Retry-After.
    fn overloaded(&self) -> Reply {
        let mut reply = Reply::new(503);
        reply.headers.push(Name::RetryAfter, self.options.retry_after.as_secs().to_string());
        reply
    }
}

/// The lines that every response begins with (§8.2.6.2).
fn head(headers: &Headers) -> Headers {
    let mut head = Headers::with_capacity(8);
    for line in headers.lines() {
        if matches!(line.name(), Name::Via | Name::From | Name::To | Name::CallId | Name::CSeq) {
            head.push_line(line.clone());
        }
    }
    head
}

fn keys(request: &Request, essentials: &Essentials) -> Keys {
    let via = request.headers.first(Name::Via).unwrap_or_default();
    let mut sent_by = essentials.via.host().to_vec();
    if let Some(port) = essentials.via.port() {
        sent_by.push(b':');
        put_decimal(&mut sent_by, u64::from(port));
    }
    let parts = Parts {
        method: request.method.as_bytes(),
        uri: &request.uri,
        branch: essentials.via.branch(),
        sent_by: &sent_by,
        via: &via,
        from_tag: essentials.from.tag().unwrap_or_default(),
        call_id: &essentials.call_id,
        cseq: essentials.cseq.number,
    };
    Keys { own: ServerKey::of(&parts), invite: ServerKey::of_invite(&parts), merge: MergeKey::of(&parts) }
}

/// Where responses go, and where when that fails (§18.2.2, RFC 3581 §4): on a stream back on the connection, else to
/// the source's address at the port of sent-by; in datagrams to the source when `rport` asks, else to the source's
/// address at the port of sent-by. `maddr` is not followed: it would send our answers wherever a stranger says.
fn reply_flows(flow: &Flow, via: &Via) -> (Flow, Option<Flow>) {
    let port = via.port().unwrap_or(default_port(flow.transport));
    let named = SocketAddr::new(flow.remote.ip(), port);
    if flow.transport.is_reliable() {
        return (*flow, Some(Flow { remote: named, connection: None, ..*flow }));
    }
    let remote = if via.wants_rport() { flow.remote } else { named };
    (Flow { remote, connection: None, ..*flow }, None)
}

fn is_same_flow(a: &Flow, b: &Flow) -> bool {
    a.transport == b.transport
        && match (a.connection, b.connection) {
            (Some(a), Some(b)) => a == b,
            _ => a.remote == b.remote,
        }
}

fn bad_request(error: ValueError) -> Reply {
    Reply { reason: error.to_string().into(), ..Reply::new(400) }
}

/// The answer to OPTIONS (§11.2); Allow and Supported are in every such answer.
fn abilities() -> Reply {
    let mut reply = Reply::new(200);
    reply.headers.push(Name::Accept, "application/sdp");
    reply
}
