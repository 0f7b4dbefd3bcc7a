//! What the endpoint keeps: transactions with their messages, dialogs with their timers' data, requests of ours.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::api::*;
use super::notify::Notifies;
use crate::sip::auth::Credentials;
use crate::sip::dialog::Dialog;
use crate::sip::headers::{Headers, Line};
use crate::sip::message::Request;
use crate::sip::method::Method;
use crate::sip::transaction::key::{MergeKey, ServerKey};
use crate::sip::transaction::{Client, InviteClient, InviteServer, Server};
use crate::sip::values::Essentials;

/// A client transaction and its messages.
pub(super) struct ClientTx {
    pub(super) machine: ClientMachine,
    pub(super) owner: Owner,
    pub(super) method: Method,
    pub(super) flow: Flow,
    /// Our Via branch: responses must have exactly this one.
    pub(super) branch: Bytes,
    /// The request on the wire, for repeats.
    pub(super) bytes: Bytes,
    /// The request, for CANCEL, ACK, credentials and a change of transport; dropped with the final answer.
    pub(super) request: Option<Box<Request>>,
    /// Where to send it when `flow` fails, with the Via host of that transport.
    pub(super) fallback: Option<Fallback>,
    /// The transaction of its CANCEL, which has the same branch.
    pub(super) cancel: Option<u64>,
    /// ACKs: of the failure, or of each fork's 2xx by To tag (§13.2.2.4: repeated for each repeated 2xx).
    pub(super) acks: Vec<SentAck>,
}

pub(super) struct Fallback {
    pub(super) flow: Flow,
    /// Our address in Via.
    pub(super) sent_by: std::net::SocketAddr,
}

pub(super) struct SentAck {
    pub(super) to_tag: Bytes,
    pub(super) flow: Flow,
    pub(super) bytes: Bytes,
}

pub(super) enum ClientMachine {
    Invite(InviteClient),
    Other(Client),
}

impl ClientMachine {
    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::Invite(machine) => machine.is_open(),
            Self::Other(machine) => machine.is_open(),
        }
    }
}

/// Whose transaction it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// An INVITE that begins a call.
    Invite(InviteId),
    /// Another request.
    Request(RequestId),
    /// Nobody: a CANCEL, a BYE of ours that nobody asked for, one that was sent again with credentials.
    Nobody,
}

/// An INVITE of ours that begins a call, until its transaction is over.
pub(super) struct Invite {
    pub(super) tx: u64,
    pub(super) peer: Peer,
    pub(super) has_tried: bool,
    /// Transport of `peer.advertised`.
    pub(super) transport: Transport,
    /// From with our tag.
    pub(super) from: Bytes,
    pub(super) call_id: Bytes,
    pub(super) local_tag: Bytes,
    pub(super) contact_user: Bytes,
    pub(super) seq: u32,
    /// Dialogs, early and ended ones.
    pub(super) dialogs: Vec<DialogId>,
    pub(super) cancel: Cancel,
    pub(super) is_answered: bool,
    /// The authorization lines of the INVITE; its ACK carries them too (§22.1).
    pub(super) authorization: Vec<Line>,
}

/// How far a CANCEL is.
pub(super) enum Cancel {
    /// Not wanted.
    No,
    /// Waits for the first provisional answer (§9.1).
    Wanted(Headers),
    /// Sent.
    Sent,
}

/// Another request of ours, until its final answer.
pub(super) struct OwnRequest {
    pub(super) tx: u64,
    pub(super) method: Method,
    pub(super) dialog: Option<DialogId>,
    pub(super) credentials: Option<Arc<Credentials>>,
    pub(super) has_tried: bool,
    /// A re-INVITE that is to be cancelled, once a provisional answer allows it (§9.1).
    pub(super) is_cancelled: bool,
}

impl OwnRequest {
    /// A request in a dialog that is not sent yet: it has no transaction.
    pub(super) fn waiting(method: Method, dialog: DialogId) -> Self {
        Self { tx: 0, method, dialog: Some(dialog), credentials: None, has_tried: true, is_cancelled: false }
    }
}

/// A server transaction and its messages.
pub(super) struct ServerRecord {
    pub(super) machine: ServerMachine,
    pub(super) key: ServerKey,
    pub(super) merge: Option<MergeKey>,
    pub(super) flow: Flow,
    /// Where responses go when `reply` fails (§18.2.2).
    pub(super) reply: Flow,
    pub(super) reply_fallback: Option<Flow>,
    /// The last response on the wire, for repeats; empty: none yet.
    pub(super) last: Bytes,
    /// The request, for answers and dialogs; dropped with the final answer.
    pub(super) incoming: Option<Box<Incoming>>,
    pub(super) method: Method,
    /// Our To tag for answers outside a dialog, also to its CANCEL (§9.2).
    pub(super) own_tag: Bytes,
    /// The dialog that the request came in.
    pub(super) dialog: Option<DialogId>,
    /// Early dialogs of an INVITE that begins a call.
    pub(super) early: Vec<DialogId>,
}

/// A request of theirs with what was read from it.
#[derive(Debug, Clone)]
pub(super) struct Incoming {
    pub(super) request: Request,
    /// Via (with received and rport), From, To, Call-ID, CSeq: what every response begins with (§8.2.6.2).
    pub(super) head: Headers,
    pub(super) essentials: Essentials,
    pub(super) key: ServerKey,
}

pub(super) enum ServerMachine {
    Invite(InviteServer),
    Other(Server),
}

impl ServerMachine {
    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::Invite(machine) => machine.is_open(),
            Self::Other(machine) => machine.is_open(),
        }
    }
}

/// A dialog with all that the endpoint does for it.
pub(super) struct DialogRecord {
    pub(super) dialog: Dialog,
    pub(super) peer: Peer,
    /// Transport of `peer.advertised`.
    pub(super) transport: Transport,
    /// Where the peer's last message of the dialog came from.
    pub(super) flow: Flow,
    /// True when the Contact does not lead back to the peer ([`Nat::Auto`]).
    pub(super) is_natted: bool,
    /// The user part of our Contact.
    pub(super) contact_user: Bytes,
    /// Our INVITE or re-INVITE that is open, its transaction.
    pub(super) own_invite: Option<u64>,
    /// Their INVITE or re-INVITE that is open.
    pub(super) their_invite: Option<ServerTx>,
    /// The 2xx of theirs that we have not acknowledged.
    pub(super) to_ack: Option<ToAck>,
    /// The 2xx of ours that they have not acknowledged.
    pub(super) unacked: Option<Unacked>,
    /// A BYE that waits for that ACK (§15).
    pub(super) delayed_bye: Option<DelayedBye>,
    /// The open requests of ours in it, those that wait too.
    pub(super) requests: Vec<RequestId>,
    /// The order of its NOTIFYs.
    pub(super) notifies: Notifies,
}

pub(super) struct ToAck {
    pub(super) tx: u64,
    pub(super) seq: u32,
    pub(super) authorization: Vec<Line>,
}

pub(super) struct Unacked {
    /// The INVITE's transaction: it has the 2xx and knows where it goes.
    pub(super) tx: u64,
    pub(super) seq: u32,
    pub(super) interval: Duration,
}

pub(super) struct DelayedBye {
    pub(super) request: RequestId,
    pub(super) headers: Headers,
    pub(super) body: Option<Body>,
}
