//! Client side: transactions of ours, INVITEs that begin calls, CANCEL.

use std::time::Instant;

use bytes::Bytes;

use super::Endpoint;
use super::api::*;
use super::build::{Draft, branch_tx, contact, follow_up, via, with_tag};
use super::route::Way;
use super::tables::*;
use crate::sip::headers::Headers;
use crate::sip::message::{Request, Response};
use crate::sip::method::Method;
use crate::sip::name::Name;
use crate::sip::timers::{Own, Timer};
use crate::sip::transaction::{Client, InviteClient, Send, Step, Tell};
use crate::sip::values::Essentials;

/// Longest request that goes in a datagram when the peer takes TCP (§18.1.1, path MTU unknown).
const MAX_DATAGRAM: usize = 1300;

/// A request that is ready to go.
pub(super) struct Outgoing {
    request: Request,
    bytes: Bytes,
    flow: Flow,
    branch: Bytes,
    fallback: Option<Fallback>,
}

/// A response that its transaction passes on.
pub(super) struct Answer {
    pub(super) tx: u64,
    pub(super) flow: Flow,
    pub(super) response: Response,
    pub(super) essentials: Essentials,
}

impl Endpoint {
    /// See [`Endpoint::invite`].
    pub(super) fn start_invite(&mut self, out: OutgoingInvite, now: Instant) -> Result<InviteId, Refused> {
        if self.is_full() {
            return Err(Refused::Full);
        }
        let id = InviteId(self.next_id());
        let (local_tag, contact_user) = (self.token(), self.token());
        let call_id = Bytes::from([self.token(), self.token()].concat());
        let from = with_tag(&out.from, &local_tag);
        let request = self.write(Draft {
            method: Method::Invite,
            uri: out.request_uri,
            routes: &[],
            from: from.clone(),
            to: out.to.clone(),
            call_id: call_id.clone(),
            seq: 1,
            max_forwards: out.max_forwards,
            contact: Some(contact(&contact_user, &out.peer, out.flow.transport)),
            headers: out.headers,
            body: out.body,
        });
        let way = Way { flow: out.flow, sent_by: out.peer.advertised };
        let tx = self.begin(Owner::Invite(id), request, way, &out.peer, now);
        let invite = Invite {
            tx,
            transport: out.flow.transport,
            peer: out.peer,
            has_tried: false,
            from,
            call_id,
            local_tag,
            contact_user,
            seq: 1,
            dialogs: vec![],
            cancel: Cancel::No,
            is_answered: false,
            authorization: vec![],
        };
        self.invites.insert(id, invite);
        Ok(id)
    }

    /// See [`Endpoint::request_outside`].
    pub(super) fn start_outside(&mut self, out: OutgoingRequest, now: Instant) -> Result<RequestId, Refused> {
        if matches!(out.method, Method::Invite | Method::Ack | Method::Cancel) {
            return Err(Refused::WrongState);
        }
        if self.is_full() {
            return Err(Refused::Full);
        }
        let id = RequestId(self.next_id());
        let tag = self.token();
        let call_id = match out.call_id {
            Some(call_id) => call_id,
            None => self.token(),
        };
        let method = out.method.clone();
        let request = self.write(Draft {
            method: out.method,
            uri: out.request_uri,
            routes: &[],
            from: with_tag(&out.from, &tag),
            to: out.to,
            call_id,
            seq: out.seq,
            max_forwards: out.max_forwards,
            contact: None,
            headers: out.headers,
            body: out.body,
        });
        let way = Way { flow: out.flow, sent_by: out.peer.advertised };
        let tx = self.begin(Owner::Request(id), request, way, &out.peer, now);
        let own = OwnRequest {
            tx,
            method,
            dialog: None,
            credentials: out.peer.credentials,
            has_tried: false,
            is_cancelled: false,
        };
        self.requests.insert(id, own);
        Ok(id)
    }

    /// Begins a client transaction: adds the Via, chooses TCP for a long request, sends.
    pub(super) fn begin(&mut self, owner: Owner, request: Request, way: Way, peer: &Peer, now: Instant) -> u64 {
        // The Via adds about a hundred bytes; exact to a byte it need not be, the limit itself is a guess at the MTU.
        let length: usize = request.headers.lines().iter().map(|l| l.written_name().len() + l.raw().len() + 4).sum();
        let length = length + request.uri.len() + request.body.len() + 150;
        if length > MAX_DATAGRAM
            && let Some(tcp) = self.tcp_instead(peer, &way.flow, now)
        {
            return self.begin_with(owner, request, tcp, Some(Fallback { flow: way.flow, sent_by: way.sent_by }), now);
        }
        self.begin_on(owner, request, way, now)
    }

    /// Begins a client transaction on this way and no other.
    pub(super) fn begin_on(&mut self, owner: Owner, request: Request, way: Way, now: Instant) -> u64 {
        self.begin_with(owner, request, way, None, now)
    }

    fn begin_with(
        &mut self,
        owner: Owner,
        mut request: Request,
        way: Way,
        fallback: Option<Fallback>,
        now: Instant,
    ) -> u64 {
        let id = self.next_id();
        let branch = self.branch(id);
        request.headers.push_front(Name::Via, via(way.flow.transport, way.sent_by, &branch));
        let bytes = request.encode();
        self.insert_client(id, owner, Outgoing { request, bytes, flow: way.flow, branch, fallback }, now);
        id
    }

    fn insert_client(&mut self, id: u64, owner: Owner, out: Outgoing, now: Instant) {
        let Outgoing { request, bytes, flow, branch, fallback } = out;
        let mut own = Own::new(&mut self.timers, id, self.intervals, flow.transport.is_reliable(), now);
        let (machine, step) = if request.method == Method::Invite {
            let (machine, step) = InviteClient::start(&mut own);
            (ClientMachine::Invite(machine), step)
        } else {
            let (machine, step) = Client::start(&mut own);
            (ClientMachine::Other(machine), step)
        };
        let method = request.method.clone();
        let request = Some(Box::new(request));
        let tx =
            ClientTx { machine, owner, method, flow, branch, bytes, request, fallback, cancel: None, acks: vec![] };
        self.clients.insert(id, Box::new(tx));
        self.client_step(id, step, now);
    }

    /// Does what a client machine wants; its response, if one came, is handled by the caller.
    pub(super) fn client_step(&mut self, id: u64, step: Step, now: Instant) {
        if step.send == Send::Message
            && let Some(tx) = self.clients.get(&id)
        {
            let (flow, bytes) = (tx.flow, tx.bytes.clone());
            self.transmit(id, flow, bytes);
        }
        let failure = match step.tell {
            Tell::Timeout => Some(Failure::Timeout),
            Tell::Transport => Some(Failure::Transport),
            Tell::Nothing | Tell::Pass => None,
        };
        if let Some(failure) = failure {
            match self.clients.get(&id).map(|tx| tx.owner) {
                Some(Owner::Invite(invite)) => self.fail_invite(invite, failure, now),
                Some(Owner::Request(request)) => self.finish_request(request, Err(failure), now),
                Some(Owner::Nobody) | None => {}
            }
        }
        if step.over {
            self.remove_client(id);
        }
    }

    pub(super) fn remove_client(&mut self, id: u64) {
        let Some(tx) = self.clients.remove(&id) else {
            return;
        };
        for timer in [Timer::A, Timer::B, Timer::C, Timer::D, Timer::E, Timer::F, Timer::K, Timer::M, Timer::Cancelled]
        {
            self.timers.clear(timer, id);
        }
        // Nobody would repeat the answer to the CANCEL for us any more.
        if let Some(cancel) = tx.cancel {
            self.remove_client(cancel);
        }
        if let Owner::Invite(invite) = tx.owner
            && self.invites.get(&invite).is_some_and(|known| known.tx == id)
        {
            self.invites.remove(&invite);
        }
    }

    /// A response has come.
    pub(super) fn on_response(&mut self, flow: Flow, response: Response, now: Instant) {
        self.counters.responses += 1;
        let Some((id, essentials)) = self.match_response(&response) else {
            self.counters.stray_responses += 1;
            return;
        };
        // Just found.
        let Some(tx) = self.clients.get_mut(&id) else {
            return;
        };
        let mut own = Own::new(&mut self.timers, id, self.intervals, tx.flow.transport.is_reliable(), now);
        let step = match &mut tx.machine {
            ClientMachine::Invite(machine) => machine.response(response.code, &mut own),
            ClientMachine::Other(machine) => machine.response(response.code, &mut own),
        };
        let owner = tx.owner;
        if step.send == Send::Ack {
            self.ack_failure(id, &response);
        }
        if step.tell == Tell::Pass {
            let answer = Answer { tx: id, flow, response, essentials };
            match owner {
                Owner::Invite(invite) => self.invite_response(invite, answer, now),
                Owner::Request(request) => self.request_response(request, answer, now),
                Owner::Nobody => {}
            }
            self.trim_client(id);
        } else {
            self.counters.repeated_responses += 1;
        }
        if step.over {
            self.remove_client(id);
        }
    }

    /// The transaction of a response: by branch and the method of CSeq (§17.1.3). More than one Via: it was meant for
    /// somebody else (§8.1.3.3).
    fn match_response(&self, response: &Response) -> Option<(u64, Essentials)> {
        if response.headers.values(Name::Via).take(2).count() != 1 {
            return None;
        }
        let essentials = Essentials::of_response(response).ok()?;
        let branch = essentials.via.branch()?;
        let id = branch_tx(branch)?;
        let tx = self.clients.get(&id).filter(|tx| tx.branch == branch)?;
        match essentials.cseq.method {
            Method::Cancel => tx.cancel.map(|cancel| (cancel, essentials)),
            _ if tx.method == essentials.cseq.method => Some((id, essentials)),
            _ => None,
        }
    }

    /// Lets go of the request once it cannot be needed: after the final answer.
    fn trim_client(&mut self, id: u64) {
        if let Some(tx) = self.clients.get_mut(&id)
            && !tx.machine.is_open()
        {
            tx.request = None;
            tx.bytes = Bytes::new();
            tx.fallback = None;
        }
    }

    /// ACK for 300–699, built once and kept for repeats (§17.1.1.3).
    fn ack_failure(&mut self, id: u64, response: &Response) {
        let Some(tx) = self.clients.get_mut(&id) else {
            return;
        };
        if tx.acks.is_empty() {
            let Some(request) = &tx.request else {
                return;
            };
            let to = response.headers.all(Name::To).next();
            let ack = follow_up(request, Method::Ack, to, &Headers::new());
            tx.acks.push(SentAck { to_tag: Bytes::new(), flow: tx.flow, bytes: ack.encode() });
        }
        let (flow, bytes) = (tx.acks[0].flow, tx.acks[0].bytes.clone());
        self.transmit(id, flow, bytes);
    }

    /// Something that we sent could not be sent.
    pub(super) fn client_failed(&mut self, id: u64, now: Instant) {
        let Some(tx) = self.clients.get_mut(&id) else {
            return;
        };
        if !tx.machine.is_open() {
            // An ACK. Each repeated answer brings it again; only a dead connection has to be left.
            let acks = tx.acks.iter_mut().filter_map(|ack| ack.flow.connection.take().map(|_| ack));
            let again: Vec<_> = acks.map(|ack| (ack.flow, ack.bytes.clone())).collect();
            for (flow, bytes) in again {
                self.transmit(id, flow, bytes);
            }
            return;
        }
        if tx.flow.connection.take().is_some() {
            // The connection is gone; another one may be opened (§18.1.1).
            let (flow, bytes, owner) = (tx.flow, tx.bytes.clone(), tx.owner);
            if let Owner::Request(request) = owner
                && let Some(dialog) = self.requests.get(&request).and_then(|own| own.dialog)
                && let Some(record) = self.dialogs.get_mut(&dialog)
            {
                record.flow.connection = None;
            }
            self.transmit(id, flow, bytes);
            return;
        }
        if let Some(fallback) = tx.fallback.take() {
            self.fall_back(id, fallback, now);
            return;
        }
        let mut own = Own::new(&mut self.timers, id, self.intervals, tx.flow.transport.is_reliable(), now);
        let step = match &mut tx.machine {
            ClientMachine::Invite(machine) => machine.transport_error(&mut own),
            ClientMachine::Other(machine) => machine.transport_error(&mut own),
        };
        self.client_step(id, step, now);
    }

    /// The TCP connection for a long request has failed: the same request by UDP (§18.1.1), its machine starts again.
    fn fall_back(&mut self, id: u64, fallback: Fallback, now: Instant) {
        let Some(tx) = self.clients.remove(&id) else {
            return;
        };
        self.refuse_tcp(tx.flow.remote, now);
        for timer in [Timer::B, Timer::F] {
            self.timers.clear(timer, id);
        }
        // Open, so the request is still kept.
        let Some(mut request) = tx.request else {
            return;
        };
        let value = via(fallback.flow.transport, fallback.sent_by, &tx.branch);
        request.headers.replace_first(Name::Via, &value);
        let bytes = request.encode();
        let outgoing = Outgoing { request: *request, bytes, flow: fallback.flow, branch: tx.branch, fallback: None };
        self.insert_client(id, tx.owner, outgoing, now);
    }

    /// See [`Endpoint::cancel`].
    pub(super) fn cancel_invite(&mut self, id: InviteId, headers: Headers, now: Instant) -> Result<(), Refused> {
        let invite = self.invites.get_mut(&id).filter(|invite| !invite.is_answered).ok_or(Refused::TransactionOver)?;
        if !matches!(invite.cancel, Cancel::No) {
            return Ok(());
        }
        let tx = invite.tx;
        let is_calling = match self.clients.get(&tx).map(|tx| &tx.machine) {
            Some(ClientMachine::Invite(machine)) => machine.is_calling(),
            _ => return Err(Refused::TransactionOver),
        };
        if is_calling {
            invite.cancel = Cancel::Wanted(headers);
        } else {
            invite.cancel = Cancel::Sent;
            self.send_cancel(tx, &headers, now);
        }
        Ok(())
    }

    /// CANCEL goes where its INVITE went, with the same branch (§9.1).
    pub(super) fn send_cancel(&mut self, tx: u64, headers: &Headers, now: Instant) {
        let Some(invite) = self.clients.get(&tx) else {
            return;
        };
        let Some(request) = &invite.request else {
            return;
        };
        let request = follow_up(request, Method::Cancel, None, headers);
        let bytes = request.encode();
        let outgoing = Outgoing { request, bytes, flow: invite.flow, branch: invite.branch.clone(), fallback: None };
        let id = self.next_id();
        if let Some(invite) = self.clients.get_mut(&tx) {
            invite.cancel = Some(id);
        }
        self.timers.clear(Timer::C, tx);
        self.timers.set(Timer::Cancelled, tx, now + self.intervals.give_up());
        self.insert_client(id, Owner::Nobody, outgoing, now);
    }
}
