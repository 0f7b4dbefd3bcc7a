//! Requests of ours in dialogs, ACK, and the life of dialogs.

use std::time::{Duration, Instant};

use rand::RngExt;

use super::Endpoint;
use super::api::*;
use super::build::authorization_of;
use super::invite::contact_of;
use super::tables::*;
use super::uac::Answer;
use crate::sip::dialog::State;
use crate::sip::headers::Headers;
use crate::sip::message::Response;
use crate::sip::method::Method;
use crate::sip::name::Name;
use crate::sip::timers::Timer;

/// How long a re-INVITE may live on provisional answers.
const TIMER_C: Duration = Duration::from_secs(180);

impl Endpoint {
    /// See [`Endpoint::ack`].
    pub(super) fn acknowledge(&mut self, id: DialogId, body: Option<Body>) -> Result<(), Refused> {
        let mut record = self.dialogs.remove(&id).ok_or(Refused::NoDialog)?;
        let to_ack = record.to_ack.take();
        let result = match to_ack {
            Some(to_ack) => {
                self.write_ack(&record, to_ack, body);
                Ok(())
            }
            None => Err(Refused::WrongState),
        };
        self.dialogs.insert(id, record);
        result
    }

    /// See [`Endpoint::request`].
    pub(super) fn start_request(
        &mut self,
        id: DialogId,
        method: Method,
        headers: Headers,
        body: Option<Body>,
        now: Instant,
    ) -> Result<RequestId, Refused> {
        let is_full = self.is_full_for_dialogs();
        let record = self.dialogs.get(&id).ok_or(Refused::NoDialog)?;
        let state = record.dialog.state;
        match method {
            Method::Ack | Method::Cancel => return Err(Refused::WrongState),
            _ if state == State::Ended => return Err(Refused::WrongState),
            Method::Invite | Method::Bye if !record.dialog.is_session => return Err(Refused::WrongState),
            Method::Invite | Method::Bye if state == State::Early => return Err(Refused::WrongState),
            Method::Invite if record.is_invite_open() => return Err(Refused::InvitePending),
            Method::Bye => {}
            _ if is_full => return Err(Refused::Full),
            _ => {}
        }
        if method == Method::Notify {
            return self.start_notify(id, headers, body, now);
        }
        let request = RequestId(self.next_id());
        if method == Method::Bye {
            self.end(id, request, headers, body, now);
        } else {
            self.send_request(id, request, method, headers, body, now);
        }
        Ok(request)
    }

    /// BYE: settles what is open in the dialog, then sends it, or lets it wait for their ACK (§15).
    fn end(&mut self, id: DialogId, request: RequestId, headers: Headers, body: Option<Body>, now: Instant) {
        if self.dialogs.get(&id).is_some_and(|record| record.to_ack.is_some()) {
            // Just seen to wait for it.
            let _ = self.acknowledge(id, None);
        }
        self.settle(id, now);
        let Some(record) = self.dialogs.get_mut(&id) else {
            return;
        };
        record.dialog.state = State::Ended;
        if record.unacked.is_some() {
            record.requests.push(request);
            record.delayed_bye = Some(DelayedBye { request, headers, body });
            self.requests.insert(request, OwnRequest::waiting(Method::Bye, id));
        } else {
            self.send_request(id, request, Method::Bye, headers, body, now);
        }
    }

    /// Ends what is open in a dialog that ends: their re-INVITE gets 487 (§15.1.2), requests of ours are over.
    pub(super) fn settle(&mut self, id: DialogId, now: Instant) {
        let Some(record) = self.dialogs.get_mut(&id) else {
            return;
        };
        let requests = std::mem::take(&mut record.requests);
        record.own_invite = None;
        if let Some(tx) = record.their_invite.take() {
            // Refused only when it is over already.
            let _ = self.answer(tx, None, Reply::new(487), now);
        }
        for request in requests {
            let Some(own) = self.requests.remove(&request) else {
                continue;
            };
            self.disown(&own, now);
            self.tell_outcome(request, Some(id), Err(Failure::Ended), now);
        }
    }

    /// Nobody waits for this request any more. A re-INVITE is cancelled, or would stay on provisional answers for ever.
    fn disown(&mut self, own: &OwnRequest, now: Instant) {
        self.timers.clear(Timer::C, own.tx);
        let Some(tx) = self.clients.get_mut(&own.tx) else {
            return;
        };
        tx.owner = Owner::Nobody;
        match &tx.machine {
            // No CANCEL before a provisional answer (§9.1).
            ClientMachine::Invite(machine) if machine.is_calling() => {
                self.timers.set(Timer::Cancelled, own.tx, now + self.intervals.give_up());
            }
            ClientMachine::Invite(machine) if machine.is_open() => self.send_cancel(own.tx, &Headers::new(), now),
            _ => {}
        }
    }

    pub(super) fn send_request(
        &mut self,
        id: DialogId,
        request: RequestId,
        method: Method,
        headers: Headers,
        body: Option<Body>,
        now: Instant,
    ) {
        let Some(record) = self.dialogs.get_mut(&id) else {
            return;
        };
        let seq = record.dialog.next_seq();
        let target = record.dialog.target();
        let record = &self.dialogs[&id];
        let way = self.way(record, &target);
        let message = self.write_in(record, target, method.clone(), seq, headers, body);
        let (peer, credentials) = (record.peer.clone(), record.peer.credentials.clone());
        let tx = self.begin(Owner::Request(request), message, way, &peer, now);
        let own = OwnRequest {
            tx,
            method: method.clone(),
            dialog: Some(id),
            credentials,
            has_tried: false,
            is_cancelled: false,
        };
        self.requests.insert(request, own);
        if let Some(record) = self.dialogs.get_mut(&id) {
            record.requests.push(request);
            if method == Method::Invite {
                record.own_invite = Some(tx);
            }
        }
    }

    /// A response that the transaction of another request of ours passes on.
    pub(super) fn request_response(&mut self, id: RequestId, answer: Answer, now: Instant) {
        let Some(own) = self.requests.get(&id) else {
            // Its final answer was reported: this is a repeated 2xx to a re-INVITE.
            self.repeat_ack(&answer);
            return;
        };
        let code = answer.response.code;
        let is_invite = own.method == Method::Invite;
        let (dialog, tx) = (own.dialog, own.tx);
        let refreshes = is_invite || own.method == Method::Update;
        if code < 200 {
            if is_invite && own.is_cancelled {
                self.cancel_reinvite(answer.tx, now);
            } else if is_invite {
                self.timers.set(Timer::C, answer.tx, now + TIMER_C);
            }
            return;
        }
        if matches!(code, 401 | 407) && self.retry_request(id, &answer.response, now) {
            return;
        }
        if code >= 300 {
            self.finish_request(id, Err(Failure::Response(answer.response)), now);
            return;
        }
        if refreshes
            && let Some(dialog) = dialog
            && let Some(target) = contact_of(&answer.response.headers)
        {
            self.refresh_target(dialog, target, &answer.flow);
        }
        if is_invite
            && let Some(dialog) = dialog
            && let Some(client) = self.clients.get(&tx)
        {
            let authorization = client.request.as_deref().map(authorization_of).unwrap_or_default();
            let seq = answer.essentials.cseq.number;
            if let Some(record) = self.dialogs.get_mut(&dialog) {
                record.to_ack = Some(ToAck { tx, seq, authorization });
            }
        }
        self.finish_request(id, Ok(answer.response), now);
    }

    fn retry_request(&mut self, id: RequestId, response: &Response, now: Instant) -> bool {
        let Some(own) = self.requests.get(&id).filter(|own| !own.is_cancelled) else {
            return false;
        };
        let Some(credentials) = own.credentials.clone() else {
            return false;
        };
        let (old, has_tried, dialog) = (own.tx, own.has_tried, own.dialog);
        let Some(mut request) = self.authorize(old, response, &credentials, has_tried) else {
            return false;
        };
        if let Some(record) = dialog.and_then(|dialog| self.dialogs.get_mut(&dialog)) {
            // Other requests of the dialog may have gone since: the next number of it, not of this request (§12.2.1.1).
            let seq = record.dialog.next_seq();
            request.headers.set(Name::CSeq, format!("{seq} {}", request.method));
        }
        let is_invite = request.method == Method::Invite;
        let Some(tx) = self.begin_again(old, request, now) else {
            return false;
        };
        self.timers.clear(Timer::C, old);
        if let Some(own) = self.requests.get_mut(&id) {
            own.tx = tx;
            own.has_tried = true;
        }
        if let Some(record) = dialog.filter(|_| is_invite).and_then(|dialog| self.dialogs.get_mut(&dialog)) {
            record.own_invite = Some(tx);
        }
        true
    }

    /// The outcome of another request of ours is known.
    pub(super) fn finish_request(&mut self, id: RequestId, outcome: Result<Response, Failure>, now: Instant) {
        let Some(own) = self.requests.remove(&id) else {
            return;
        };
        self.timers.clear(Timer::C, own.tx);
        self.timers.clear(Timer::Cancelled, own.tx);
        if let Some(dialog) = own.dialog {
            if let Some(record) = self.dialogs.get_mut(&dialog) {
                record.requests.retain(|request| *request != id);
                if record.own_invite == Some(own.tx) {
                    record.own_invite = None;
                }
            }
            if own.method == Method::Bye {
                self.remove_dialog(dialog, now);
            }
        }
        self.tell_outcome(id, own.dialog, outcome, now);
        if let Some(dialog) = own.dialog {
            self.next_notify(dialog, id, now);
        }
    }

    /// The Contact of a target refresh takes the place of the remote target (§12.2.1.2, §12.2.2).
    pub(super) fn refresh_target(&mut self, id: DialogId, target: bytes::Bytes, flow: &Flow) {
        let Some(record) = self.dialogs.get(&id) else {
            return;
        };
        let is_natted = self.is_natted(&target, !record.dialog.route_set.is_empty(), flow);
        if let Some(record) = self.dialogs.get_mut(&id) {
            record.dialog.remote_target = target;
            record.is_natted = is_natted;
        }
    }

    pub(super) fn insert_dialog(&mut self, record: DialogRecord) -> DialogId {
        let id = DialogId(self.next_id());
        self.dialog_keys.insert(record.dialog.key.clone(), id);
        self.dialogs.insert(id, Box::new(record));
        id
    }

    /// Forgets a dialog; requests of ours that are open in it are over.
    pub(super) fn remove_dialog(&mut self, id: DialogId, now: Instant) {
        let Some(record) = self.dialogs.remove(&id) else {
            return;
        };
        self.dialog_keys.remove(&record.dialog.key);
        if record.dialog.is_session {
            self.note_ended(&record.dialog.key, now);
        }
        self.timers.clear(Timer::Answer, id.0);
        self.timers.clear(Timer::Ack, id.0);
        self.lose_subscriptions(record.notifies.subscriptions);
        for request in record.requests {
            if let Some(own) = self.requests.remove(&request) {
                self.disown(&own, now);
                self.tell_outcome(request, Some(id), Err(Failure::Ended), now);
            }
        }
    }

    /// See [`Endpoint::drop_dialog`].
    pub(super) fn forget_dialog(&mut self, id: DialogId, now: Instant) {
        let Some(record) = self.dialogs.get_mut(&id) else {
            return;
        };
        let begins = record.their_invite.filter(|_| record.dialog.state == State::Early);
        if let Some(server) = begins.and_then(|tx| self.servers.get_mut(&tx.0)) {
            server.early.retain(|early| *early != id);
        } else {
            self.settle(id, now);
        }
        self.remove_dialog(id, now);
    }

    /// Timer Answer: the 2xx once more (§13.3.1.4).
    pub(super) fn repeat_answer(&mut self, id: DialogId, now: Instant) {
        let Some(unacked) = self.dialogs.get_mut(&id).and_then(|record| record.unacked.as_mut()) else {
            return;
        };
        unacked.interval = self.intervals.backed_off(unacked.interval);
        let (tx, interval) = (unacked.tx, unacked.interval);
        self.timers.set(Timer::Answer, id.0, now + interval);
        self.repeat_response(tx);
    }

    /// Timer Ack: no ACK has come (§13.3.1.4).
    pub(super) fn give_up_ack(&mut self, id: DialogId, now: Instant) {
        self.timers.clear(Timer::Answer, id.0);
        let Some(record) = self.dialogs.get_mut(&id) else {
            return;
        };
        record.unacked = None;
        if record.delayed_bye.is_some() {
            self.send_delayed_bye(id, now);
        } else {
            self.event(Event::NoAck { dialog: id });
        }
    }

    pub(super) fn send_delayed_bye(&mut self, id: DialogId, now: Instant) {
        let Some(record) = self.dialogs.get_mut(&id) else {
            return;
        };
        let Some(bye) = record.delayed_bye.take() else {
            return;
        };
        record.requests.retain(|request| *request != bye.request);
        self.send_request(id, bye.request, Method::Bye, bye.headers, bye.body, now);
    }

    /// See [`Endpoint::cancel_request`].
    pub(super) fn cancel_own(&mut self, id: RequestId, now: Instant) -> Result<(), Refused> {
        let own = self.requests.get_mut(&id).ok_or(Refused::TransactionOver)?;
        if own.method != Method::Invite {
            return Err(Refused::WrongState);
        }
        own.is_cancelled = true;
        let tx = own.tx;
        if let Some(ClientMachine::Invite(machine)) = self.clients.get(&tx).map(|tx| &tx.machine)
            && !machine.is_calling()
        {
            self.cancel_reinvite(tx, now);
        }
        Ok(())
    }

    /// CANCEL for a re-INVITE: its user has asked for it, or timer C.
    pub(super) fn cancel_reinvite(&mut self, tx: u64, now: Instant) {
        if self.clients.get(&tx).is_some_and(|tx| tx.cancel.is_none()) {
            self.send_cancel(tx, &Headers::new(), now);
        }
    }

    /// See [`Endpoint::glare_wait`].
    pub(super) fn wait_after_glare(&mut self, id: DialogId) -> Duration {
        let owns_call_id = self.dialogs.get(&id).is_some_and(|record| record.dialog.is_caller);
        let steps = if owns_call_id { self.rng.random_range(210..=400) } else { self.rng.random_range(0..=200) };
        Duration::from_millis(steps * 10)
    }
}

impl DialogRecord {
    /// True while a re-INVITE would collide (§14.1): one is open, or a 2xx waits for its ACK.
    pub(super) fn is_invite_open(&self) -> bool {
        self.own_invite.is_some() || self.their_invite.is_some() || self.to_ack.is_some() || self.unacked.is_some()
    }
}
