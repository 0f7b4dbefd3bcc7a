//! What goes into the endpoint and comes out of it: values only.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use ipnet::IpNet;

use crate::sip::auth::Credentials;
use crate::sip::headers::Headers;
use crate::sip::message::{Request, Response};
use crate::sip::method::Method;
use crate::sip::values::reason_phrase;

/// The transport of a message (RFC 3261 §18).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// Datagrams; we retransmit.
    Udp,
    /// A stream; framed by Content-Length.
    Tcp,
    /// TLS over TCP.
    Tls,
}

impl Transport {
    /// True when the transport delivers by itself: no timers A, E and G, and D, I, J, K are zero.
    pub fn is_reliable(self) -> bool {
        self != Self::Udp
    }

    /// As it stands in Via: `UDP`.
    pub fn via_name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        }
    }
}

/// A stream connection. Named by the edge that holds the socket, never reused while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// Where a message came from, or where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    /// The transport.
    pub transport: Transport,
    /// The address of our listener (as bound).
    pub local: SocketAddr,
    /// The peer.
    pub remote: SocketAddr,
    /// The connection that it came on. In a [`Transmit`]: send on exactly this connection (gone: answer with
    /// [`Input::Failed`]); `None`: any connection to `remote`, else open one.
    pub connection: Option<ConnectionId>,
}

impl Flow {
    /// A flow over UDP.
    pub fn udp(local: SocketAddr, remote: SocketAddr) -> Self {
        Self { transport: Transport::Udp, local, remote, connection: None }
    }
}

/// What the endpoint is told.
#[derive(Clone)]
pub enum Input {
    /// One whole message: a datagram, or what `sip/stream` framed.
    Packet {
        /// Where it came from.
        flow: Flow,
        /// The message.
        bytes: Bytes,
    },
    /// A [`Transmit`] could not be sent: no route, connection refused or gone, queue full.
    Failed(TransmitToken),
    /// A stream connection has ended; its id is never heard again.
    Closed(ConnectionId),
    /// Time has passed: [`Endpoint::poll_timeout`](super::Endpoint::poll_timeout) is due.
    Timeout,
}

/// What the endpoint wants done, in order.
#[derive(Debug, Clone)]
pub enum Output {
    /// Send this.
    Transmit(Transmit),
    /// Tell the layer above.
    Event(Event),
}

/// Names a transmission, so that its failure finds the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransmitToken(pub u64);

/// One message to send. The bytes are shared with the endpoint, which keeps them for retransmission.
#[derive(Clone)]
pub struct Transmit {
    /// Comes back in [`Input::Failed`].
    pub token: TransmitToken,
    /// Where to.
    pub flow: Flow,
    /// What.
    pub bytes: Bytes,
}

/// An INVITE of ours that creates dialogs; stays the same when it is sent again with credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InviteId(pub(super) u64);

/// Any other request of ours; stays the same when it is sent again with credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub(super) u64);

/// A request of theirs that waits for our answer, or whose answer is still repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerTx(pub(super) u64);

/// A dialog, early or confirmed. Never reused while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DialogId(pub(super) u64);

/// A subscription of theirs (RFC 6665). Never reused while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionId(pub(super) u64);

/// Whether requests of a dialog go to the source of its last message instead of its Contact (spec/sip.md §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Nat {
    /// When there is no route set, and the Contact's host is a private address that its message did not come from.
    #[default]
    Auto,
    /// Always.
    Yes,
    /// Never.
    No,
}

/// What a dialog must know of its peer and of us.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Our address as this peer sees it: in Via, Contact, From and Call-ID. Its port is the UDP one when the flow is
    /// UDP, and so on; a message that changes the transport takes the port of that listener.
    pub advertised: SocketAddr,
    /// Sources from which requests of the dialog are taken, besides the dialog's own flow; others get 481 and are
    /// counted. `None`: any source (spec/sip.md §4 wants the addresses of the DN or trunk here).
    pub sources: Option<Arc<[IpNet]>>,
    /// Where requests go.
    pub nat: Nat,
    /// The peer takes TCP at the same address and port: requests over 1,300 bytes go by TCP, and by UDP when the
    /// connection fails (§18.1.1).
    pub tcp: bool,
    /// Answers one 401 or 407 to each request of ours, in a dialog or out of one.
    pub credentials: Option<Arc<Credentials>>,
    /// We are the focus of a conference in its dialogs: the user part of the conference's URI, which is our Contact then, with
    /// `isfocus` (RFC 4579 §4). `None`: the user part is a random token.
    pub focus: Option<Bytes>,
}

impl Peer {
    /// A peer that sees us at `advertised`, with the defaults for the rest.
    pub fn new(advertised: SocketAddr) -> Self {
        Self { advertised, sources: None, nat: Nat::Auto, tcp: false, credentials: None, focus: None }
    }

    pub(super) fn allows(&self, source: IpAddr) -> bool {
        self.sources.as_ref().is_none_or(|nets| nets.iter().any(|net| net.contains(&source)))
    }
}

/// A body and its type.
#[derive(Clone, PartialEq, Eq)]
pub struct Body {
    /// Content-Type, `application/sdp`.
    pub content_type: Bytes,
    /// Content, any bytes.
    pub bytes: Bytes,
}

impl Body {
    /// A session description.
    pub fn sdp(bytes: impl Into<Bytes>) -> Self {
        Self { content_type: Bytes::from_static(b"application/sdp"), bytes: bytes.into() }
    }

    /// How a request stands, as the NOTIFY of a REFER tells it: a status line alone (RFC 3515 §2.4.5, RFC 3420). An
    /// empty reason is the RFC's phrase; of another one what could end the line becomes blanks.
    pub fn sipfrag(code: u16, reason: &[u8]) -> Self {
        let reason = if reason.is_empty() { reason_phrase(code) } else { Bytes::copy_from_slice(reason) };
        let mut bytes = format!("SIP/2.0 {code:03} ").into_bytes();
        bytes.extend(reason.iter().map(|b| if matches!(b, 0..=b' ' | 0x7f) { b' ' } else { *b }));
        bytes.extend_from_slice(b"\r\n");
        Self { content_type: Bytes::from_static(b"message/sipfrag;version=2.0"), bytes: bytes.into() }
    }
}

/// An INVITE that begins a call. Via, Call-ID, CSeq, From tag, Contact, Allow, Supported, User-Agent and the length
/// are written by the endpoint.
#[derive(Clone)]
pub struct OutgoingInvite {
    /// Where it is sent; `connection` may be `None`.
    pub flow: Flow,
    /// The peer, for the dialogs that it creates.
    pub peer: Peer,
    /// Request-URI as written.
    pub request_uri: Bytes,
    /// From as a name-addr or addr-spec, without a tag: `"Ann" <sip:ann@203.0.113.7>`.
    pub from: Bytes,
    /// To, likewise.
    pub to: Bytes,
    /// Max-Forwards.
    pub max_forwards: u8,
    /// Other header lines, in order.
    pub headers: Headers,
    /// The offer.
    pub body: Option<Body>,
}

/// A request outside a dialog (OPTIONS, REGISTER, …) that is not INVITE. The endpoint writes the same lines, but no
/// Contact.
#[derive(Clone)]
pub struct OutgoingRequest {
    /// The method; not INVITE, ACK or CANCEL.
    pub method: Method,
    /// Where it is sent.
    pub flow: Flow,
    /// Our address in Via, whether TCP may be used, credentials.
    pub peer: Peer,
    /// Request-URI as written.
    pub request_uri: Bytes,
    /// From without a tag.
    pub from: Bytes,
    /// To.
    pub to: Bytes,
    /// Call-ID to keep (REGISTER refreshes); `None`: a fresh one.
    pub call_id: Option<Bytes>,
    /// The number of CSeq: 1, or for a kept Call-ID more than before.
    pub seq: u32,
    /// Max-Forwards.
    pub max_forwards: u8,
    /// Other header lines.
    pub headers: Headers,
    /// The body.
    pub body: Option<Body>,
}

/// An answer of ours. Via, From, To with tag, Call-ID, CSeq, Record-Route, Contact, Allow, Supported, Server and the
/// length are written by the endpoint.
#[derive(Clone, Default)]
pub struct Reply {
    /// Status code, 101…699.
    pub code: u16,
    /// Reason phrase; empty: the RFC's.
    pub reason: Bytes,
    /// Other header lines, in order.
    pub headers: Headers,
    /// The body.
    pub body: Option<Body>,
}

impl Reply {
    /// An answer with the RFC's phrase, no further headers, no body.
    pub fn new(code: u16) -> Self {
        Self { code, ..Self::default() }
    }
}

// Messages hold callers' numbers and names: no Debug of a type with a message in it prints more than what kind it is.

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packet { flow, bytes } => write!(f, "Packet({} bytes, {flow:?})", bytes.len()),
            Self::Failed(token) => write!(f, "Failed({token:?})"),
            Self::Closed(connection) => write!(f, "Closed({connection:?})"),
            Self::Timeout => f.write_str("Timeout"),
        }
    }
}

impl fmt::Debug for Transmit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transmit({:?}, {} bytes, {:?})", self.token, self.bytes.len(), self.flow)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.bytes.len())
    }
}

impl fmt::Debug for OutgoingInvite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutgoingInvite({:?}, {:?}, {:?})", self.flow, self.headers, self.body)
    }
}

impl fmt::Debug for OutgoingRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutgoingRequest({}, {:?}, {:?}, {:?})", self.method, self.flow, self.headers, self.body)
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({}, {:?}, {:?})", self.code, self.headers, self.body)
    }
}

/// Why a request of ours has failed.
#[derive(Debug, Clone)]
pub enum Failure {
    /// The final answer, 300…699.
    Response(Response),
    /// No final answer in time (timer B, F, or 64·T1 after a CANCEL). To be treated as 408 (§8.1.3.1).
    Timeout,
    /// It could not be sent. To be treated as 503 (§8.1.3.1).
    Transport,
    /// The dialog ended before it was answered.
    Ended,
}

/// What the layer above must know.
#[derive(Debug, Clone)]
pub enum Event {
    /// A new INVITE outside a dialog. 100 has been sent. Answer with [`Endpoint::respond`](super::Endpoint::respond),
    /// in a dialog of [`Endpoint::open_dialog`](super::Endpoint::open_dialog) for 101…299.
    Invite {
        /// Answers it.
        tx: ServerTx,
        /// Where it came from.
        flow: Flow,
        /// The INVITE.
        request: Request,
    },
    /// Any other request that wants an answer: in a dialog (re-INVITE, UPDATE, BYE, INFO, REFER, NOTIFY …) or out of one
    /// (REGISTER, REFER, NOTIFY …).
    /// OPTIONS is answered by the endpoint, but outside a dialog to one of
    /// [`Endpoint::set_conferences`](super::Endpoint::set_conferences). After a BYE the dialog takes and sends no more requests.
    Request {
        /// Answers it.
        tx: ServerTx,
        /// Its dialog.
        dialog: Option<DialogId>,
        /// Where it came from.
        flow: Flow,
        /// The request.
        request: Request,
    },
    /// A SUBSCRIBE that begins a subscription to one of [`Options::packages`](super::Options::packages). Refuse it, or accept
    /// it with [`Endpoint::accept_subscription`](super::Endpoint::accept_subscription).
    Subscribe {
        /// Answers it.
        tx: ServerTx,
        /// The dialog of an INVITE that it came in.
        dialog: Option<DialogId>,
        /// Where it came from.
        flow: Flow,
        /// The SUBSCRIBE.
        request: Request,
    },
    /// A subscriber is to be told the state with [`Endpoint::notify`](super::Endpoint::notify), now.
    NotifyDue {
        /// The subscription.
        subscription: SubscriptionId,
        /// It ends with that NOTIFY; nothing is said of it any more.
        is_last: bool,
    },
    /// A subscription has ended without a further NOTIFY: one has failed, or its dialog has ended.
    Unsubscribed {
        /// The subscription.
        subscription: SubscriptionId,
    },
    /// The first ACK for our 2xx to an INVITE or re-INVITE; its body may be the answer to our offer.
    Ack {
        /// The dialog.
        dialog: DialogId,
        /// The ACK.
        request: Request,
    },
    /// CANCEL has come for an INVITE or re-INVITE that we have not answered: it got 200, the INVITE 487, and its early
    /// dialogs are gone.
    Cancelled {
        /// The INVITE.
        tx: ServerTx,
        /// The CANCEL (its Reason).
        request: Request,
    },
    /// Our 2xx was not acknowledged within 64·T1 (§13.3.1.4): the dialog is confirmed, and should be ended with BYE.
    NoAck {
        /// The dialog.
        dialog: DialogId,
    },
    /// 100 to an INVITE of ours: somebody has it.
    Trying {
        /// The INVITE.
        invite: InviteId,
    },
    /// 101…199 to an INVITE of ours.
    Provisional {
        /// The INVITE.
        invite: InviteId,
        /// The early dialog, when the answer has a To tag.
        dialog: Option<DialogId>,
        /// The answer.
        response: Response,
    },
    /// The first 2xx to an INVITE of ours. Acknowledge with [`Endpoint::ack`](super::Endpoint::ack). The other early
    /// dialogs of the INVITE are gone.
    Answered {
        /// The INVITE.
        invite: InviteId,
        /// The confirmed dialog.
        dialog: DialogId,
        /// The answer.
        response: Response,
    },
    /// A 2xx that nobody wants: of a further fork, or one that crossed our CANCEL. The endpoint has acknowledged it and
    /// ended its dialog with BYE. When it crossed the CANCEL, no [`Event::Failed`] follows.
    Unwanted {
        /// The INVITE.
        invite: InviteId,
        /// True when it crossed the CANCEL: this ends the INVITE.
        cancelled: bool,
        /// The answer.
        response: Response,
    },
    /// An INVITE of ours has failed; its early dialogs are gone.
    Failed {
        /// The INVITE.
        invite: InviteId,
        /// Why.
        failure: Failure,
    },
    /// The final answer to any other request of ours. 2xx to a re-INVITE must be acknowledged with
    /// [`Endpoint::ack`](super::Endpoint::ack). 408 and 481 (and no answer) mean that the dialog is gone at the peer
    /// (§12.2.1.2): the layer above decides.
    Response {
        /// The request.
        request: RequestId,
        /// Its dialog.
        dialog: Option<DialogId>,
        /// 200…299, or why not.
        outcome: Result<Response, Failure>,
    },
}

/// Why the endpoint did not do what it was asked. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The table of transactions or dialogs is full.
    #[error("the endpoint is full")]
    Full,
    /// No such dialog (any more).
    #[error("no such dialog")]
    NoDialog,
    /// The transaction is over: answered, cancelled, or its dialog ended.
    #[error("the transaction is over")]
    TransactionOver,
    /// A re-INVITE is open in this dialog, ours or theirs (§14.1), or our 2xx waits for its ACK.
    #[error("an INVITE is open in this dialog")]
    InvitePending,
    /// The dialog's state or the method does not allow it.
    #[error("not allowed in this state")]
    WrongState,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_of_a_notify_is_one_line_whatever_the_reason_is() {
        for (code, reason, line) in [
            (180, &b""[..], &b"SIP/2.0 180 Ringing\r\n"[..]),
            (486, b"Busy\r\nVia: x\0", b"SIP/2.0 486 Busy  Via: x \r\n"),
            (603, b"Nicht st\xf6ren", b"SIP/2.0 603 Nicht st\xf6ren\r\n"),
        ] {
            assert_eq!(Body::sipfrag(code, reason).bytes, line);
        }
    }
}
