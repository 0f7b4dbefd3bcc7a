//! What the answers to an INVITE of ours do: early dialogs, the first 2xx, unwanted ones, credentials, failure.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;

use super::api::*;
use super::build::{authorization_of, via};
use super::notify::Notifies;
use super::route::Way;
use super::tables::*;
use super::uac::Answer;
use super::{Endpoint, MAX_EARLY};
use crate::sip::auth;
use crate::sip::dialog::{Dialog, DialogKey, Route, State};
use crate::sip::headers::Headers;
use crate::sip::message::{Request, Response};
use crate::sip::method::Method;
use crate::sip::name::Name;
use crate::sip::timers::Timer;
use crate::sip::values::transport::default_port;
use crate::sip::values::{Contacts, NameAddr, Via, address};

impl Endpoint {
    /// A response that the transaction of an INVITE passes on.
    pub(super) fn invite_response(&mut self, id: InviteId, answer: Answer, now: Instant) {
        match answer.response.code {
            100..=199 => self.invite_progress(id, answer, now),
            200..=299 => self.invite_answer(id, answer, now),
            _ => {
                if !self.retry_invite(id, &answer.response, now) {
                    self.fail_invite(id, Failure::Response(answer.response), now);
                }
            }
        }
    }

    fn invite_progress(&mut self, id: InviteId, answer: Answer, now: Instant) {
        let Some(invite) = self.invites.get_mut(&id) else {
            return;
        };
        if let Cancel::Wanted(headers) = &invite.cancel {
            let headers = headers.clone();
            invite.cancel = Cancel::Sent;
            self.send_cancel(answer.tx, &headers, now);
        }
        if answer.response.code == 100 {
            self.event(Event::Trying { invite: id });
            return;
        }
        let dialog = self.early_dialog(id, &answer);
        self.event(Event::Provisional { invite: id, dialog, response: answer.response });
    }

    /// The early dialog of a provisional answer (§12.1); `None` without a To tag, or past the limits.
    fn early_dialog(&mut self, id: InviteId, answer: &Answer) -> Option<DialogId> {
        answer.essentials.to.tag()?;
        let invite = self.invites.get(&id)?;
        if let Some(known) = self.dialog_of(invite, answer) {
            if let Some(record) = self.dialogs.get_mut(&known) {
                record.flow = answer.flow;
                // A later provisional answer may be the first with a Contact.
                if let Some(target) = contact_of(&answer.response.headers) {
                    record.dialog.remote_target = target;
                }
            }
            return Some(known);
        }
        if invite.dialogs.len() >= MAX_EARLY || self.dialogs.len() >= self.options.max_dialogs {
            self.counters.refused += 1;
            return None;
        }
        let record = self.dialog_of_answer(invite, answer, State::Early);
        let dialog = self.insert_dialog(record);
        if let Some(invite) = self.invites.get_mut(&id) {
            invite.dialogs.push(dialog);
        }
        Some(dialog)
    }

    fn dialog_of(&self, invite: &Invite, answer: &Answer) -> Option<DialogId> {
        let key = DialogKey {
            call_id: invite.call_id.clone(),
            local_tag: invite.local_tag.clone(),
            remote_tag: Bytes::copy_from_slice(answer.essentials.to.tag().unwrap_or_default()),
        };
        self.dialog_keys.get(&key).copied()
    }

    /// A dialog as the caller sees it (§12.1.2).
    fn dialog_of_answer(&self, invite: &Invite, answer: &Answer, state: State) -> DialogRecord {
        let headers = &answer.response.headers;
        let route_set = route_set(headers, true);
        let source = answer.flow.remote;
        let target = contact_of(headers).unwrap_or_else(|| format!("sip:{source}").into());
        let remote = headers.get(Name::To).unwrap_or_default().into_owned();
        DialogRecord {
            is_natted: self.is_natted(&target, !route_set.is_empty(), &answer.flow),
            dialog: Dialog {
                key: DialogKey {
                    call_id: invite.call_id.clone(),
                    local_tag: invite.local_tag.clone(),
                    remote_tag: Bytes::copy_from_slice(answer.essentials.to.tag().unwrap_or_default()),
                },
                is_caller: true,
                is_session: true,
                state,
                local: invite.from.clone(),
                remote: remote.into(),
                local_seq: invite.seq,
                remote_seq: None,
                remote_target: target,
                route_set,
            },
            peer: invite.peer.clone(),
            transport: invite.transport,
            flow: answer.flow,
            contact_user: invite.contact_user.clone(),
            own_invite: None,
            their_invite: None,
            to_ack: None,
            unacked: None,
            delayed_bye: None,
            requests: vec![],
            notifies: Notifies::default(),
        }
    }

    fn invite_answer(&mut self, id: InviteId, answer: Answer, now: Instant) {
        if self.repeat_ack(&answer) {
            return;
        }
        let Some(invite) = self.invites.get(&id) else {
            return;
        };
        let known = self.dialog_of(invite, &answer);
        let is_cancelled = !matches!(invite.cancel, Cancel::No);
        if invite.is_answered && known.is_some() {
            // Repeated before our ACK is written.
            self.counters.repeated_responses += 1;
            return;
        }
        if invite.is_answered || is_cancelled {
            self.end_unwanted(id, answer, now);
            return;
        }
        let mut record = self.dialog_of_answer(invite, &answer, State::Confirmed);
        record.to_ack = Some(ToAck { tx: answer.tx, seq: invite.seq, authorization: invite.authorization.clone() });
        let dialog = match known {
            // The route set is computed again from the 2xx (§13.2.2.4); numbers that UPDATE has used stay used.
            Some(known) => {
                if let Some(early) = self.dialogs.get_mut(&known) {
                    record.dialog.local_seq = early.dialog.local_seq;
                    record.dialog.remote_seq = early.dialog.remote_seq;
                    record.requests = std::mem::take(&mut early.requests);
                    record.notifies = std::mem::take(&mut early.notifies);
                    record.peer = early.peer.clone();
                    **early = record;
                }
                known
            }
            None => self.insert_dialog(record),
        };
        let others = match self.invites.get_mut(&id) {
            Some(invite) => {
                invite.is_answered = true;
                std::mem::replace(&mut invite.dialogs, vec![dialog])
            }
            None => vec![],
        };
        for other in others.into_iter().filter(|other| *other != dialog) {
            self.remove_dialog(other, now);
        }
        self.event(Event::Answered { invite: id, dialog, response: answer.response });
    }

    /// Sends the ACK for a repeated 2xx again (§13.2.2.4); false when there is none yet.
    pub(super) fn repeat_ack(&mut self, answer: &Answer) -> bool {
        let tag = answer.essentials.to.tag().unwrap_or_default();
        let sent = self.clients.get(&answer.tx).and_then(|tx| tx.acks.iter().find(|ack| ack.to_tag == tag));
        let Some((flow, bytes)) = sent.map(|ack| (ack.flow, ack.bytes.clone())) else {
            return false;
        };
        self.counters.repeated_responses += 1;
        self.transmit(answer.tx, flow, bytes);
        true
    }

    /// ACK and BYE for a 2xx of a further fork, or one that crossed our CANCEL (§13.2.2.4, §9.1, spec/sip.md §3).
    fn end_unwanted(&mut self, id: InviteId, answer: Answer, now: Instant) {
        let Some(invite) = self.invites.get_mut(&id) else {
            return;
        };
        let cancelled = !invite.is_answered;
        invite.is_answered = true;
        let early = if cancelled { std::mem::take(&mut invite.dialogs) } else { vec![] };
        for dialog in early {
            self.remove_dialog(dialog, now);
        }
        self.timers.clear(Timer::Cancelled, answer.tx);
        let Some(invite) = self.invites.get(&id) else {
            return;
        };
        let mut record = self.dialog_of_answer(invite, &answer, State::Confirmed);
        let to_ack = ToAck { tx: answer.tx, seq: invite.seq, authorization: invite.authorization.clone() };
        self.write_ack(&record, to_ack, None);
        let seq = record.dialog.next_seq();
        let target = record.dialog.target();
        let way = self.way(&record, &target);
        let bye = self.write_in(&record, target, Method::Bye, seq, Headers::new(), None);
        self.begin(Owner::Nobody, bye, way, &record.peer, now);
        self.event(Event::Unwanted { invite: id, cancelled, response: answer.response });
    }

    /// Builds, sends and keeps the ACK for a 2xx (§13.2.2.4).
    pub(super) fn write_ack(&mut self, record: &DialogRecord, to_ack: ToAck, body: Option<Body>) {
        let target = record.dialog.target();
        let way = self.way(record, &target);
        let mut headers = Headers::new();
        for line in to_ack.authorization {
            headers.push_line(line);
        }
        let mut request = self.write_in(record, target, Method::Ack, to_ack.seq, headers, body);
        let id = self.next_id();
        let branch = self.branch(id);
        request.headers.push_front(Name::Via, via(way.flow.transport, way.sent_by, &branch));
        let bytes = request.encode();
        if let Some(tx) = self.clients.get_mut(&to_ack.tx) {
            let to_tag = record.dialog.key.remote_tag.clone();
            tx.acks.push(SentAck { to_tag, flow: way.flow, bytes: bytes.clone() });
        }
        self.transmit(to_ack.tx, way.flow, bytes);
    }

    /// Sends a challenged INVITE again with credentials (§22.2, §22.3); false when it cannot be, or was already.
    fn retry_invite(&mut self, id: InviteId, response: &Response, now: Instant) -> bool {
        let Some(invite) = self.invites.get(&id) else {
            return false;
        };
        if !matches!(invite.cancel, Cancel::No) {
            return false;
        }
        let Some(credentials) = invite.peer.credentials.clone() else {
            return false;
        };
        let (old, has_tried) = (invite.tx, invite.has_tried);
        let Some(request) = self.authorize(old, response, &credentials, has_tried) else {
            return false;
        };
        let authorization = authorization_of(&request);
        let Some(tx) = self.begin_again(old, request, now) else {
            return false;
        };
        let early = match self.invites.get_mut(&id) {
            Some(invite) => {
                invite.tx = tx;
                invite.seq += 1;
                invite.has_tried = true;
                invite.authorization = authorization;
                std::mem::take(&mut invite.dialogs)
            }
            None => vec![],
        };
        for dialog in early {
            self.remove_dialog(dialog, now);
        }
        true
    }

    /// The request of a transaction once more, its CSeq one higher, with the answer to a challenge; `None` when there
    /// is no challenge that these credentials answer, or they were wrong already (a stale nonce is not wrong).
    pub(super) fn authorize(
        &mut self,
        tx: u64,
        response: &Response,
        credentials: &auth::Credentials,
        has_tried: bool,
    ) -> Option<Request> {
        let cnonce = self.token();
        let request = self.clients.get(&tx)?.request.as_deref()?;
        let lines = auth::answer(response, request, credentials, has_tried, &cnonce)?;
        let mut request = request.clone();
        request.headers.remove_first(Name::Via);
        for line in lines {
            request.headers.remove(line.name());
            request.headers.push_line(line);
        }
        let value = request.headers.get(Name::CSeq)?.into_owned();
        let number = std::str::from_utf8(&value).ok()?.split(' ').next()?.parse::<u32>().ok()?;
        request.headers.set(Name::CSeq, format!("{} {}", number + 1, request.method));
        Some(request)
    }

    /// A new transaction for the same owner, sent where the old one went, which belongs to nobody from now on.
    pub(super) fn begin_again(&mut self, old: u64, request: Request, now: Instant) -> Option<u64> {
        let tx = self.clients.get_mut(&old)?;
        let owner = std::mem::replace(&mut tx.owner, Owner::Nobody);
        let (flow, via_of_old) = (tx.flow, tx.request.as_deref().and_then(|request| request.headers.first(Name::Via)));
        let sent_by = Via::parse(&via_of_old?).ok().and_then(|via| {
            let port = via.port().unwrap_or(default_port(flow.transport));
            Some(SocketAddr::new(via.host_ip()?, port))
        })?;
        Some(self.begin_on(owner, request, Way { flow, sent_by }, now))
    }

    /// An INVITE of ours has failed: its early dialogs end, its user hears of it.
    pub(super) fn fail_invite(&mut self, id: InviteId, failure: Failure, now: Instant) {
        // Answered: what fails now is nobody's business any more.
        if self.invites.get(&id).is_none_or(|invite| invite.is_answered) {
            return;
        }
        let Some(invite) = self.invites.remove(&id) else {
            return;
        };
        if let Some(tx) = self.clients.get_mut(&invite.tx) {
            tx.owner = Owner::Nobody;
        }
        self.timers.clear(Timer::Cancelled, invite.tx);
        for dialog in invite.dialogs {
            self.remove_dialog(dialog, now);
        }
        self.event(Event::Failed { invite: id, failure });
    }
}

/// The URI of the Contact.
pub(super) fn contact_of(headers: &Headers) -> Option<Bytes> {
    Contacts::of(headers).ok()?.target().map(|contact| contact.uri().as_bytes().clone())
}

/// Record-Route as a route set: reversed for the caller (§12.1.2), in order for the callee (§12.1.1).
pub(super) fn route_set(headers: &Headers, is_reversed: bool) -> Vec<Route> {
    let mut routes: Vec<Route> = address::addresses(headers, Name::RecordRoute)
        .unwrap_or_default()
        .iter()
        .map(|address: &NameAddr| Route {
            value: address.encode(),
            uri: address.uri().as_bytes().clone(),
            is_loose: address.uri().is_loose(),
        })
        .collect();
    if is_reversed {
        routes.reverse();
    }
    routes
}
