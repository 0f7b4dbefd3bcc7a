//! Server side: answers of ours, early dialogs, the end of server transactions.

use std::time::Instant;

use bytes::Bytes;

use super::api::*;
use super::build::{contact, with_tag};
use super::invite::{contact_of, route_set};
use super::notify::Notifies;
use super::tables::*;
use super::{Endpoint, MAX_EARLY};
use crate::sip::dialog::{Dialog, DialogKey, State};
use crate::sip::method::Method;
use crate::sip::name::Name;
use crate::sip::timers::{Own, Timer};
use crate::sip::transaction::{Send, Step};

impl Endpoint {
    /// See [`Endpoint::open_dialog`].
    pub(super) fn open_early(&mut self, tx: ServerTx, peer: Peer) -> Result<DialogId, Refused> {
        let record = self.servers.get(&tx.0).ok_or(Refused::TransactionOver)?;
        let incoming = match &record.incoming {
            Some(incoming) if record.machine.is_open() => incoming,
            _ => return Err(Refused::TransactionOver),
        };
        let is_session = record.method == Method::Invite;
        if !makes_dialogs(&record.method) || record.dialog.is_some() || (!is_session && !record.early.is_empty()) {
            return Err(Refused::WrongState);
        }
        if record.early.len() >= MAX_EARLY || self.dialogs.len() >= self.options.max_dialogs {
            self.counters.refused += 1;
            return Err(Refused::Full);
        }
        let (headers, essentials, flow) = (&incoming.request.headers, &incoming.essentials, record.flow);
        let route_set = route_set(headers, false);
        // An INVITE without a Contact was refused before; a REFER or SUBSCRIBE may come here without.
        let target = contact_of(headers).ok_or(Refused::WrongState)?;
        let to: Bytes = headers.get(Name::To).unwrap_or_default().into_owned().into();
        let from: Bytes = headers.get(Name::From).unwrap_or_default().into_owned().into();
        let (call_id, seq) = (essentials.call_id.clone(), essentials.cseq.number);
        let remote_tag = Bytes::copy_from_slice(essentials.from.tag().unwrap_or_default());
        let is_natted = self.is_natted(&target, !route_set.is_empty(), &flow);
        let (local_tag, contact_user) = (self.token(), self.token());
        let dialog = Dialog {
            local: with_tag(&to, &local_tag),
            remote: from,
            key: DialogKey { call_id, local_tag, remote_tag },
            is_caller: false,
            is_session,
            state: State::Early,
            // Our first number in the dialog is arbitrary (§12.1.1): 1 comes next.
            local_seq: 0,
            remote_seq: Some(seq),
            remote_target: target,
            route_set,
        };
        let id = self.insert_dialog(DialogRecord {
            dialog,
            peer,
            transport: flow.transport,
            flow,
            is_natted,
            contact_user,
            own_invite: None,
            their_invite: is_session.then_some(tx),
            to_ack: None,
            unacked: None,
            delayed_bye: None,
            requests: vec![],
            notifies: Notifies::default(),
        });
        if let Some(record) = self.servers.get_mut(&tx.0) {
            record.early.push(id);
        }
        Ok(id)
    }

    /// See [`Endpoint::respond`].
    pub(super) fn answer(
        &mut self,
        tx: ServerTx,
        dialog: Option<DialogId>,
        reply: Reply,
        now: Instant,
    ) -> Result<(), Refused> {
        let record = self.servers.get(&tx.0).filter(|r| r.machine.is_open()).ok_or(Refused::TransactionOver)?;
        let incoming = record.incoming.as_deref().ok_or(Refused::TransactionOver)?;
        let code = reply.code;
        if !(101..=699).contains(&code) {
            return Err(Refused::WrongState);
        }
        let begins = makes_dialogs(&record.method) && record.dialog.is_none();
        let is_invite = record.method == Method::Invite;
        let dialog = match (begins, dialog) {
            (false, _) => record.dialog,
            (true, Some(dialog)) if record.early.contains(&dialog) && self.dialogs.contains_key(&dialog) => {
                Some(dialog)
            }
            (true, Some(_)) => return Err(Refused::NoDialog),
            (true, None) if code < 300 && is_invite => return Err(Refused::WrongState),
            // A REFER with Refer-Sub: false makes no dialog (RFC 4488 §4).
            (true, None) if code < 300 => None,
            // All answers outside its dialogs have one tag; with a single early dialog it is that one's (§8.2.6.2).
            (true, None) => record.early.first().copied().filter(|_| record.early.len() == 1),
        };
        let in_dialog = dialog.and_then(|id| self.dialogs.get(&id));
        let refreshes = refreshes_target(&record.method) && code < 300;
        let contact =
            in_dialog.filter(|_| refreshes).map(|known| contact(&known.contact_user, &known.peer, known.transport));
        let tag = in_dialog.map_or(&record.own_tag, |known| &known.dialog.key.local_tag);
        let bytes = self.write_response(incoming, tag, reply, contact).encode();
        self.counters.responses_sent += 1;
        let target = (refreshes && code >= 200).then(|| contact_of(&incoming.request.headers)).flatten();
        let (flow, seq) = (record.flow, incoming.essentials.cseq.number);
        if begins && !is_invite && code >= 200 {
            // Over TCP the transaction ends with its answer, and takes the dialogs along that are its own still.
            self.subscription_answered(tx, dialog.filter(|_| code < 300), now);
        }
        self.commit(tx, bytes, code, now);
        if let (Some(id), Some(target), false) = (dialog, target, begins) {
            self.refresh_target(id, target, &flow);
        }
        if is_invite && code >= 200 {
            self.invite_answered(tx, dialog, code, seq, now);
        }
        Ok(())
    }

    /// Gives the response to the machine and does what it wants.
    fn commit(&mut self, tx: ServerTx, bytes: Bytes, code: u16, now: Instant) {
        let Some(record) = self.servers.get_mut(&tx.0) else {
            return;
        };
        record.last = bytes;
        let mut own = Own::new(&mut self.timers, tx.0, self.intervals, record.flow.transport.is_reliable(), now);
        let step = match &mut record.machine {
            ServerMachine::Invite(machine) => machine.respond(code, &mut own),
            ServerMachine::Other(machine) => machine.respond(code, &mut own),
        };
        let ended = (record.method == Method::Bye && code >= 200).then_some(record.dialog).flatten();
        if code >= 200 {
            record.incoming = None;
        }
        self.server_step(tx.0, step, now);
        if let Some(dialog) = ended {
            self.remove_dialog(dialog, now);
        }
    }

    /// Their INVITE or re-INVITE has its final answer.
    fn invite_answered(&mut self, tx: ServerTx, dialog: Option<DialogId>, code: u16, seq: u32, now: Instant) {
        let Some(record) = self.servers.get_mut(&tx.0) else {
            return;
        };
        let begins = record.dialog.is_none();
        let early = std::mem::take(&mut record.early);
        let kept = dialog.filter(|_| code < 300 || !begins);
        for other in early.into_iter().filter(|early| Some(*early) != kept) {
            self.remove_dialog(other, now);
        }
        let Some((id, record)) = kept.and_then(|id| Some((id, self.dialogs.get_mut(&id)?))) else {
            return;
        };
        // A second re-INVITE was refused while the first one is open.
        if record.their_invite != Some(tx) {
            return;
        }
        record.their_invite = None;
        if code >= 300 {
            return;
        }
        record.dialog.state = State::Confirmed;
        record.unacked = Some(Unacked { tx: tx.0, seq, interval: self.intervals.t1 });
        self.timers.set(Timer::Answer, id.0, now + self.intervals.t1);
        self.timers.set(Timer::Ack, id.0, now + self.intervals.give_up());
    }

    /// Their REFER or SUBSCRIBE outside a dialog has its final answer; `kept` is the dialog that it has made.
    fn subscription_answered(&mut self, tx: ServerTx, kept: Option<DialogId>, now: Instant) {
        let early = self.servers.get_mut(&tx.0).map(|record| std::mem::take(&mut record.early)).unwrap_or_default();
        for dialog in early.into_iter().filter(|early| Some(*early) != kept) {
            self.remove_dialog(dialog, now);
        }
        if let Some(record) = kept.and_then(|id| self.dialogs.get_mut(&id)) {
            record.dialog.state = State::Confirmed;
        }
    }

    /// Does what a server machine wants.
    pub(super) fn server_step(&mut self, id: u64, step: Step, now: Instant) {
        if step.send == Send::Message {
            self.repeat_response(id);
        }
        if step.over {
            self.remove_server(id, now);
        }
    }

    /// Sends the last response (again).
    pub(super) fn repeat_response(&mut self, id: u64) {
        if let Some(record) = self.servers.get(&id)
            && !record.last.is_empty()
        {
            let (flow, bytes) = (record.reply, record.last.clone());
            self.transmit(id, flow, bytes);
        }
    }

    pub(super) fn remove_server(&mut self, id: u64, now: Instant) {
        let Some(record) = self.servers.remove(&id) else {
            return;
        };
        for timer in [Timer::G, Timer::H, Timer::I, Timer::J, Timer::L, Timer::Progress] {
            self.timers.clear(timer, id);
        }
        self.server_keys.remove(&record.key);
        if let Some(merge) = record.merge {
            self.merges.remove(&merge);
        }
        // A dialog for a REFER or SUBSCRIBE that nobody has answered in time.
        for dialog in record.early {
            self.remove_dialog(dialog, now);
        }
        // A BYE that our user has not answered in time ends its dialog as well.
        if record.method == Method::Bye
            && record.incoming.is_some()
            && let Some(dialog) = record.dialog
        {
            self.remove_dialog(dialog, now);
        }
    }

    /// A response could not be sent: once more where §18.2.2 says.
    pub(super) fn server_failed(&mut self, id: u64) {
        let Some(record) = self.servers.get_mut(&id) else {
            return;
        };
        if let Some(fallback) = record.reply_fallback.take() {
            record.reply = fallback;
            self.repeat_response(id);
        } else {
            self.counters.unsent += 1;
        }
    }
}

/// The requests that make a dialog when they come outside of one (RFC 3261 §12.1, RFC 3515 §2.2, RFC 6665 §4.4.1).
fn makes_dialogs(method: &Method) -> bool {
    matches!(method, Method::Invite | Method::Refer | Method::Subscribe)
}

/// The requests whose Contact takes the place of the remote target, and whose 2xx carries ours (RFC 3261 §12.2, RFC 3311
/// §5.1, RFC 3515 §2.2, RFC 6665 §4.4.1).
fn refreshes_target(method: &Method) -> bool {
    matches!(method, Method::Invite | Method::Update | Method::Refer | Method::Subscribe | Method::Notify)
}
