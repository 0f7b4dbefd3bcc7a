//! Bytes → transaction → dialog → event: the whole SIP machine of one process.
//!
//! One [`Input`], then drain [`Endpoint::poll_output`] to `None`, then sleep until [`Endpoint::poll_timeout`]. Calls of
//! the layer above (invite, respond, request …) queue outputs as well.
//!
//! By itself the endpoint: answers what it cannot take (400, 405, 416, 420, 481, 482, 483, 500, 501, 503, 505) and
//! OPTIONS; sends 100 for every INVITE; retransmits; acknowledges failures; matches CANCEL; repeats 2xx until its ACK
//! and ACK for every repeated 2xx; ends the dialogs of a 2xx that nobody wants; adds credentials once.
//!
//! A name in a Contact or Route (not an IP address) is looked up among those told to [`Endpoint::learn`]; an unknown
//! one stands for the address that the dialog's last message came from.

mod api;

use std::net::IpAddr;
use std::time::{Duration, Instant};

pub use api::*;

use crate::sip::headers::Headers;
use crate::sip::method::Method;
use crate::sip::timers::Reason;

/// The SIP machine.
pub struct Endpoint {
    options: Options,
}

impl Endpoint {
    /// A machine without transactions.
    pub fn new(options: Options) -> Self {
        Self { options }
    }

    /// Takes one input. Drain [`Self::poll_output`] afterwards.
    pub fn handle(&mut self, input: Input, now: Instant) {
        let _ = (input, now);
    }

    /// The next thing to do; `None`: nothing until the next input or timeout.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }

    /// When to call `handle(Input::Timeout)`, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        None
    }

    /// Sends an INVITE that begins a call.
    ///
    /// # Errors
    /// [`Refused::Full`].
    pub fn invite(&mut self, invite: OutgoingInvite, now: Instant) -> Result<InviteId, Refused> {
        let _ = (invite, now);
        Err(Refused::Full)
    }

    /// Cancels an INVITE: at once, or when its first provisional answer comes (§9.1). [`Event::Failed`] or
    /// [`Event::Unwanted`] with `cancelled` ends it; without an answer that is after 64·T1. `headers` is for Reason.
    ///
    /// # Errors
    /// [`Refused::TransactionOver`] when it has had its final answer.
    pub fn cancel(&mut self, invite: InviteId, headers: Headers, now: Instant) -> Result<(), Refused> {
        let _ = (invite, headers, now);
        Err(Refused::TransactionOver)
    }

    /// Acknowledges the 2xx to an INVITE or re-INVITE of ours; repeated by the endpoint for every repeated 2xx.
    ///
    /// # Errors
    /// [`Refused::NoDialog`], [`Refused::WrongState`] when no 2xx waits for it.
    pub fn ack(&mut self, dialog: DialogId, body: Option<Body>, now: Instant) -> Result<(), Refused> {
        let _ = (dialog, body, now);
        Err(Refused::NoDialog)
    }

    /// Sends a request in a dialog: INVITE, UPDATE, BYE, INFO, OPTIONS, NOTIFY … .
    ///
    /// BYE: a 2xx of theirs that waits for our ACK gets it first; a 2xx of ours that waits for their ACK delays it
    /// until that ACK or 64·T1 (§15); open requests of the dialog end with [`Failure::Ended`], theirs get 487; the
    /// dialog takes no more requests.
    ///
    /// # Errors
    /// [`Refused::Full`], [`Refused::NoDialog`], [`Refused::InvitePending`] (INVITE), [`Refused::WrongState`] (ACK,
    /// CANCEL, re-INVITE in an early dialog, BYE from the callee of an early dialog, anything after BYE).
    pub fn request(
        &mut self,
        dialog: DialogId,
        method: Method,
        headers: Headers,
        body: Option<Body>,
        now: Instant,
    ) -> Result<RequestId, Refused> {
        let _ = (dialog, method, headers, body, now);
        Err(Refused::NoDialog)
    }

    /// Sends a request outside a dialog. [`Event::Response`] follows.
    ///
    /// # Errors
    /// [`Refused::Full`]; [`Refused::WrongState`] for INVITE, ACK, CANCEL.
    pub fn request_outside(&mut self, request: OutgoingRequest, now: Instant) -> Result<RequestId, Refused> {
        let _ = (request, now);
        Err(Refused::Full)
    }

    /// Makes an early dialog with a To tag of its own for an [`Event::Invite`]; several are possible (a B2BUA whose
    /// call has forked). The 2xx goes out in one of them, the others end with it.
    ///
    /// # Errors
    /// [`Refused::TransactionOver`], [`Refused::Full`].
    pub fn open_dialog(&mut self, tx: ServerTx, peer: Peer) -> Result<DialogId, Refused> {
        let _ = (tx, peer);
        Err(Refused::TransactionOver)
    }

    /// Answers a request. `dialog` names the early dialog for 101…299 to an [`Event::Invite`]; otherwise `None`.
    /// A final answer other than 2xx ends all early dialogs of an INVITE. 2xx to an INVITE or re-INVITE is repeated
    /// until its ACK, then [`Event::Ack`], or [`Event::NoAck`].
    ///
    /// # Errors
    /// [`Refused::TransactionOver`] (answered already, cancelled, timed out), [`Refused::NoDialog`],
    /// [`Refused::WrongState`] (2xx to an INVITE without a dialog, 100).
    pub fn respond(
        &mut self,
        tx: ServerTx,
        dialog: Option<DialogId>,
        reply: Reply,
        now: Instant,
    ) -> Result<(), Refused> {
        let _ = (tx, dialog, reply, now);
        Err(Refused::TransactionOver)
    }

    /// Forgets a dialog without a word to the peer (its peer has said 481, or does not answer).
    pub fn drop_dialog(&mut self, dialog: DialogId, now: Instant) {
        let _ = (dialog, now);
    }

    /// Replaces what a dialog knows of its peer (its DN or trunk was reloaded or resolved again).
    pub fn set_peer(&mut self, dialog: DialogId, peer: Peer) {
        let _ = (dialog, peer);
    }

    /// The addresses of a host name, for Contacts and Routes that use it; empty: forget it.
    pub fn learn(&mut self, host: &str, addresses: Vec<IpAddr>) {
        let _ = (host, addresses);
    }

    /// What OPTIONS outside a dialog is answered: 200 when true, else 503 with Retry-After (draining, overload).
    pub fn set_available(&mut self, available: bool) {
        let _ = available;
    }

    /// The wait of §14.1 after a 491: 2.1–4 s for the owner of the Call-ID, else 0–2 s, in steps of 10 ms.
    pub fn glare_wait(&mut self, dialog: DialogId) -> Duration {
        let _ = dialog;
        Duration::ZERO
    }

    /// True when no transaction, no dialog and no timer is left.
    pub fn is_empty(&self) -> bool {
        let _ = &self.options;
        true
    }
}
