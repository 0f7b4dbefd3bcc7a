//! REFER: what it asks for, and the NOTIFYs that tell its outcome (RFC 3515, spec/sip.md §5).

use std::time::Duration;

use bytes::Bytes;

use super::call::{Call, Purpose, State};
use super::core::{Core, Join};
use super::directory::Referred;
use super::fact;
use super::leg::Leg;
use super::transfer::Order;
use super::waiting::Waiting;
use crate::id::LegId;
use crate::sip::endpoint::{Body, DialogId, Found, Reply, ServerTx, Transport};
use crate::sip::headers::Headers;
use crate::sip::message::Request;
use crate::sip::method::Method;
use crate::sip::name::Name;
use crate::sip::values::transport::{self, Asked};
use crate::sip::values::{
    EventPackage, ReferError, ReferTo, SubscriptionState, Uri, ValueError, called_number, refer_sub, referred_by,
};

/// A transferor that has been told of its success may take this long to hang up by itself.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Whom the steps of a transfer are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Report {
    /// The sender of a REFER, by NOTIFY in its dialog.
    Refer {
        dialog: DialogId,
        /// The REFER's CSeq, when it is not the dialog's first.
        id: Option<u32>,
        /// False: `Refer-Sub: false`, no NOTIFY (RFC 4488).
        is_subscribed: bool,
    },
    /// Nobody: it has left, or facts tell it.
    Nobody,
}

impl Report {
    /// The dialog whose end is left to its peer for a moment.
    pub(super) fn dialog(&self) -> Option<DialogId> {
        match self {
            Self::Refer { dialog, .. } => Some(*dialog),
            Self::Nobody => None,
        }
    }
}

/// A REFER that makes sense.
struct Read {
    refer: ReferTo,
    referred_by: Option<Bytes>,
    is_subscribed: bool,
}

impl Call {
    /// A REFER in one of the call's dialogs.
    pub(super) fn on_refer(&mut self, core: &mut Core, tx: ServerTx, dialog: DialogId, request: &Request) {
        let read = match read(request) {
            Ok(read) => read,
            Err(reply) => return core.answer(tx, None, *reply),
        };
        let Some(by) = self.leg_of(dialog) else { return core.answer(tx, None, Reply::new(481)) };
        if !matches!(self.state, State::Talking(_)) || !self.leg(by).is_some_and(|l| l.identity.transfer) {
            return core.answer(tx, None, Reply::new(403));
        }
        if self.has_open_offer() {
            return self.wait(core, Waiting::Refer { tx, dialog, request: Box::new(request.clone()) });
        }
        if !self.is_plain() {
            return core.answer(tx, None, Reply::new(491));
        }
        let report = self.report_to(dialog, by, request, read.is_subscribed);
        if let Some(replaces) = &read.refer.replaces {
            let named = core.endpoint.find_dialog(&replaces.call_id, &replaces.to_tag, &replaces.from_tag, core.now);
            let other = match named {
                Some(Found::Confirmed { .. }) if replaces.early_only => return core.answer(tx, None, Reply::new(486)),
                Some(Found::Early { dialog, .. } | Found::Confirmed { dialog, .. }) => Some(dialog),
                Some(Found::Ended) => return core.answer(tx, None, Reply::new(603)),
                None => None,
            };
            if let Some(other) = other.filter(|d| core.index.dialogs.contains_key(d)) {
                let key = self.key;
                return core.joins.push_back(Join { key, by, tx, report, other });
            }
        }
        self.refer_out(core, tx, by, read, report, super::dial::forwards(request));
    }

    /// Calls the target of a REFER.
    fn refer_out(&mut self, core: &mut Core, tx: ServerTx, by: LegId, read: Read, report: Report, max_forwards: u8) {
        let Some(leg) = self.leg(by) else { return };
        let uri = read.refer.target.uri();
        let number = called_number(uri).unwrap_or_default();
        let ip = uri.host_ip();
        let host = String::from_utf8_lossy(uri.host()).into_owned();
        let to = Referred {
            number: &number,
            ip,
            host: &host,
            port: uri.port(),
            transport: asked_transport(uri),
            ours: !uri.is_sip() || ip.is_some_and(|ip| core.locals.is_ours(ip, uri.port(), leg.identity.overrides)),
        };
        let Some(destination) = core.redirect(&leg.identity.clone(), to) else {
            return core.answer(tx, None, Reply::new(404));
        };
        self.accept_refer(core, tx, &report);
        let how = fact::Transfer::SingleStep;
        let referred_by = read.referred_by;
        self.start_transfer(core, Order { by, destination, number, how, report, max_forwards, referred_by });
    }

    /// 202 and the first NOTIFY.
    pub(super) fn accept_refer(&mut self, core: &mut Core, tx: ServerTx, report: &Report) {
        let mut reply = Reply::new(202);
        if matches!(report, Report::Refer { is_subscribed: false, .. }) {
            reply.headers.push(Name::ReferSub, "false");
        }
        core.answer(tx, None, reply);
        self.notify(core, report, 100, b"");
    }

    fn report_to(&mut self, dialog: DialogId, by: LegId, request: &Request, is_subscribed: bool) -> Report {
        let seq = request.headers.get(Name::CSeq);
        let seq = seq.as_deref().and_then(|v| std::str::from_utf8(v).ok());
        let seq = seq.and_then(|v| v.split_whitespace().next()?.parse().ok());
        let Some(leg) = self.leg_mut(by) else { return Report::Nobody };
        leg.refers += 1;
        let id = seq.filter(|_| leg.refers > 1);
        Report::Refer { dialog, id, is_subscribed }
    }

    /// Tells a step: the status line as `message/sipfrag`; a final one ends the subscription.
    pub(super) fn notify(&mut self, core: &mut Core, report: &Report, code: u16, reason: &[u8]) {
        let Report::Refer { dialog, id, is_subscribed: true } = report else { return };
        let state = match code {
            ..200 => SubscriptionState::Active { expires: Some(60) },
            _ => SubscriptionState::terminated("noresource"),
        };
        let mut headers = Headers::new();
        headers.push(Name::Event, EventPackage::refer(*id).encode());
        headers.push(Name::SubscriptionState, state.encode());
        let body = Some(Body::sipfrag(code, reason));
        // A subscriber that is gone needs no word; the transfer goes on without it.
        if let Ok(request) = core.endpoint.request(*dialog, Method::Notify, headers, body, core.now) {
            core.index.requests.insert(request, self.key);
            self.pending.push((request, Purpose::Notify));
        }
    }

    /// An offer of ours or theirs is open somewhere in the call.
    pub(super) fn has_open_offer(&self) -> bool {
        self.talk().is_some_and(|t| t.exchange.is_some()) || self.legs.iter().any(open_offer)
    }
}

fn open_offer(leg: &Leg) -> bool {
    leg.dialog.is_some() && leg.sdp.has_open_offer()
}

/// The transport that a URI asks for, as far as we have it.
pub(super) fn asked_transport(uri: &Uri) -> Option<Transport> {
    match transport::asked(uri) {
        Asked::For(transport @ (Transport::Udp | Transport::Tcp)) => Some(transport),
        _ => None,
    }
}

/// Reads a REFER; else what it is refused with.
fn read(request: &Request) -> Result<Read, Box<Reply>> {
    let refused = |code: u16, why: String| Box::new(Reply { reason: why.into(), ..Reply::new(code) });
    let malformed = |error: ValueError| refused(400, error.to_string());
    let refer = ReferTo::of(&request.headers).map_err(|error| refused(error.code(), error.to_string()))?;
    if refer.method != Method::Invite {
        return Err(refused(501, ReferError::Method.to_string()));
    }
    let is_subscribed = refer_sub(&request.headers).map_err(malformed)?;
    let referred_by = referred_by(&request.headers).map_err(malformed)?.map(|by| by.encode());
    Ok(Read { refer, referred_by, is_subscribed })
}
