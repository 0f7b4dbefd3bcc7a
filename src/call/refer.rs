//! REFER: what it asks for, and the NOTIFYs that tell its outcome (RFC 3515, spec/sip.md §5).

use std::time::Duration;

use bytes::Bytes;

use super::Calls;
use super::call::{Call, Purpose, State};
use super::core::{Core, Join};
use super::directory::{Destination, Referred};
use super::fact;
use super::leg::Leg;
use super::setup::sender;
use super::transfer::Order;
use super::waiting::Waiting;
use crate::id::LegId;
use crate::sip::endpoint::{Body, DialogId, Flow, Found, Refused, Reply, ServerTx, Transport};
use crate::sip::headers::Headers;
use crate::sip::message::Request;
use crate::sip::method::Method;
use crate::sip::name::Name;
use crate::sip::values::transport::{self, Asked};
use crate::sip::values::{
    EventPackage, NameAddr, ReferError, ReferTo, SubscriptionState, TargetDialog, Uri, ValueError, called_number,
    refer_sub, referred_by,
};

/// A transferor that has been told of its success may take this long to hang up by itself.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Whom the steps of a transfer are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Report {
    /// The sender of a REFER, by NOTIFY in its dialog.
    Refer {
        dialog: DialogId,
        /// The REFER came outside of that dialog: its NOTIFYs go in one of their own.
        subscription: Option<DialogId>,
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

    fn subscription(&self) -> Option<DialogId> {
        match self {
            Self::Refer { subscription, .. } => *subscription,
            Self::Nobody => None,
        }
    }

    /// The transferor is told also after it has hung up.
    pub(super) fn outlives_its_dialog(&self) -> bool {
        self.subscription().is_some()
    }
}

/// How a REFER has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct From {
    /// The dialog that it is about.
    pub dialog: DialogId,
    /// It came outside of that dialog (Target-Dialog), by this flow.
    pub outside: Option<Flow>,
    /// It was sent to the URI of the conference.
    pub to_focus: bool,
}

/// A REFER that makes sense.
#[derive(Debug)]
pub(super) struct Read {
    pub refer: ReferTo,
    referred_by: Option<Bytes>,
    is_subscribed: bool,
    max_forwards: u8,
}

impl Calls {
    /// A REFER outside a dialog: it is sent to a conference, or must name a dialog of its sender by Target-Dialog and is as
    /// one in that (RFC 4538 §4, spec/sip.md §5).
    pub(super) fn on_refer_outside(&mut self, tx: ServerTx, flow: Flow, request: Request) {
        let core = &mut self.core;
        let sender = match sender(core, &flow, &request) {
            Ok(sender) => sender,
            Err(refusing) => return refusing.tell(core, tx),
        };
        let target = match TargetDialog::of(&request.headers) {
            Ok(target) => target,
            Err(error) => return core.answer(tx, None, *refused(400, error.to_string())),
        };
        if target.is_none() && self.on_refer_to_conference(tx, flow, &request, &sender) {
            return;
        }
        let core = &mut self.core;
        let found = target.and_then(|target| core.endpoint.find_target(&target, core.now));
        let Some(Found::Confirmed { dialog, .. }) = found else { return core.answer(tx, None, Reply::new(403)) };
        let key = core.index.dialogs.get(&dialog).copied();
        let Some(key) = key else { return core.answer(tx, None, Reply::new(403)) };
        let from = From { dialog, outside: Some(flow), to_focus: false };
        self.with(Some(key), |call, core| {
            let leg = call.leg_of(dialog).and_then(|leg| call.leg(leg));
            match leg.is_some_and(|leg| leg.identity.is_same_party(&sender.identity)) {
                true => call.on_refer(core, tx, from, &request),
                false => core.answer(tx, None, Reply::new(403)),
            }
        });
    }
}

impl Call {
    /// A REFER in one of the call's dialogs, or about one.
    pub(super) fn on_refer(&mut self, core: &mut Core, tx: ServerTx, from: From, request: &Request) {
        let read = match read(request) {
            Ok(read) => read,
            Err(reply) => return core.answer(tx, None, *reply),
        };
        let Some(by) = self.leg_of(from.dialog) else { return core.answer(tx, None, Reply::new(481)) };
        if !matches!(self.state, State::Talking(_)) || !self.leg(by).is_some_and(|l| l.identity.transfer) {
            return core.answer(tx, None, Reply::new(403));
        }
        if self.is_for_focus(core, from) {
            return self.on_refer_to_focus(core, tx, from, by, (request, read));
        }
        if read.refer.method != Method::Invite {
            return core.answer(tx, None, *refused(501, ReferError::Method.to_string()));
        }
        if self.room.is_some() {
            // Nobody is transferred out of a room.
            return core.answer(tx, None, Reply::new(403));
        }
        if self.observer(by).is_some() {
            // A supervisor is nobody's other party.
            return core.answer(tx, None, Reply::new(403));
        }
        if self.has_open_offer() {
            return self.wait(core, Waiting::Refer { tx, from, request: Box::new(request.clone()) });
        }
        if !self.is_plain() {
            return core.answer(tx, None, Reply::new(491));
        }
        let report = match self.report_to(core, tx, from, by, request, read.is_subscribed) {
            Ok(report) => report,
            Err(reply) => return core.answer(tx, None, *reply),
        };
        if let Some(replaces) = &read.refer.replaces {
            let named = core.endpoint.find_dialog(&replaces.call_id, &replaces.to_tag, &replaces.from_tag, core.now);
            let other = match named {
                Some(Found::Early { dialog, .. } | Found::Confirmed { dialog, .. }) => Some(dialog),
                Some(Found::Ended) => return core.answer(tx, None, Reply::new(603)),
                None => None,
            };
            if let Some(other) = other.filter(|d| core.index.dialogs.contains_key(d)) {
                let (key, read) = (self.key, Box::new(read));
                return core.joins.push_back(Join { key, by, tx, report, other, read, since: core.now });
            }
        }
        self.refer_out(core, tx, by, read, report);
    }

    /// Calls the target of a REFER. A Replaces that has come so far names no dialog of the referrer with us: it is for
    /// the target.
    pub(super) fn refer_out(&mut self, core: &mut Core, tx: ServerTx, by: LegId, read: Read, report: Report) {
        let (destination, number) = match self.destination_of(core, by, &read) {
            Ok(found) => found,
            Err(code) => return core.answer(tx, None, Reply::new(code)),
        };
        self.accept_refer(core, tx, &report);
        let how = fact::Transfer::SingleStep;
        let replaces = read.replaces_for_target();
        let Read { referred_by, max_forwards, .. } = read;
        self.start_transfer(core, Order { by, destination, number, how, report, max_forwards, referred_by, replaces });
    }

    /// Where Refer-To leads for the party `by`, and its number; else the code of the refusal.
    pub(super) fn destination_of(&self, core: &mut Core, by: LegId, read: &Read) -> Result<(Destination, String), u16> {
        let leg = self.leg(by).ok_or(481_u16)?;
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
        let destination = core.redirect(&leg.identity, to).ok_or(404_u16)?;
        match destination.registers && destination.targets.is_empty() {
            true => Err(480),
            false => Ok((destination, number)),
        }
    }

    /// The lines of the INVITE to somebody that `by` has named by REFER.
    pub(super) fn referral(&self, by: LegId, read: &Read) -> Headers {
        let mut lines = read.replaces_for_target();
        let own = |leg: &Leg| NameAddr::new(Uri::sip(Some(leg.number.as_bytes()), leg.local.sip)).encode();
        if let Some(by) = read.referred_by.clone().or_else(|| self.leg(by).map(own)) {
            lines.push(Name::ReferredBy, by);
        }
        lines
    }

    /// 202 and the first NOTIFY.
    pub(super) fn accept_refer(&mut self, core: &mut Core, tx: ServerTx, report: &Report) {
        accept(core, tx, report);
        self.notify(core, report, 100, b"");
    }

    pub(super) fn report_to(
        &mut self,
        core: &mut Core,
        tx: ServerTx,
        from: From,
        by: LegId,
        request: &Request,
        is_subscribed: bool,
    ) -> Result<Report, Box<Reply>> {
        let dialog = from.dialog;
        if let Some(flow) = from.outside {
            let mut subscription = None;
            if let (true, Some(leg)) = (is_subscribed, self.leg(by)) {
                let peer = leg.peer(flow.remote.ip(), flow.transport == Transport::Tcp);
                let peer = self.said_to(from, peer);
                let opened = core.endpoint.open_dialog(tx, peer).map_err(|why| match why {
                    Refused::Full => Box::new(Core::busy()),
                    _ => refused(400, "A Contact is missing".to_owned()),
                })?;
                subscription = Some(opened);
            }
            return Ok(Report::Refer { dialog, subscription, id: None, is_subscribed });
        }
        let seq = request.headers.get(Name::CSeq);
        let seq = seq.as_deref().and_then(|v| std::str::from_utf8(v).ok());
        let seq = seq.and_then(|v| v.split_whitespace().next()?.parse().ok());
        let Some(leg) = self.leg_mut(by) else { return Ok(Report::Nobody) };
        leg.refers += 1;
        let id = seq.filter(|_| leg.refers > 1);
        Ok(Report::Refer { dialog, subscription: None, id, is_subscribed })
    }

    /// Tells a step: the status line as `message/sipfrag`; a final one ends the subscription.
    pub(super) fn notify(&mut self, core: &mut Core, report: &Report, code: u16, reason: &[u8]) {
        let Report::Refer { dialog, subscription, id, is_subscribed: true } = report else { return };
        let state = match code {
            ..200 => SubscriptionState::Active { expires: Some(expires(core)) },
            _ => SubscriptionState::terminated("noresource"),
        };
        let mut headers = Headers::new();
        headers.push(Name::Event, EventPackage::refer(*id).encode());
        headers.push(Name::SubscriptionState, state.encode());
        let body = Some(Body::sipfrag(code, reason));
        let dialog = subscription.unwrap_or(*dialog);
        // A subscriber that is gone needs no word; the transfer goes on without it.
        match core.endpoint.request(dialog, Method::Notify, headers, body, core.now) {
            // The call may be over before it is answered.
            Ok(request) if subscription.is_some() && code >= 200 => _ = core.ending.notifies.insert(request, dialog),
            Ok(request) => {
                core.index.requests.insert(request, self.key);
                self.pending.push((request, Purpose::Notify));
            }
            Err(_) if subscription.is_some() && code >= 200 => core.endpoint.drop_dialog(dialog, core.now),
            Err(_) => {}
        }
    }

    /// An offer of ours or theirs is open somewhere in the call.
    pub(super) fn has_open_offer(&self) -> bool {
        self.talk().is_some_and(|t| t.exchange.is_some()) || self.legs.iter().any(open_offer)
    }
}

/// Seconds that a subscription to a REFER lasts: longer than its target may ring (RFC 3515 §2.4.4).
fn expires(core: &Core) -> u32 {
    let longest = core.options.sip.ring_timeout + Duration::from_secs(32);
    u32::try_from(longest.as_secs()).unwrap_or(u32::MAX)
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

/// 202. What it makes is the dialog of its NOTIFYs, when the REFER came outside of one.
pub(super) fn accept(core: &mut Core, tx: ServerTx, report: &Report) {
    let mut reply = Reply::new(202);
    if matches!(report, Report::Refer { is_subscribed: false, .. }) {
        reply.headers.push(Name::ReferSub, "false");
    }
    core.answer(tx, report.subscription(), reply);
}

pub(super) fn refused(code: u16, why: String) -> Box<Reply> {
    Box::new(Reply { reason: why.into(), ..Reply::new(code) })
}

impl Read {
    pub(super) fn is_subscribed(&self) -> bool {
        self.is_subscribed
    }

    pub(super) fn max_forwards(&self) -> u8 {
        self.max_forwards
    }

    /// The lines that carry the Replaces of Refer-To to the target.
    fn replaces_for_target(&self) -> Headers {
        let mut lines = Headers::new();
        if let Some(replaces) = &self.refer.replaces {
            lines.push(Name::Replaces, replaces.encode());
            if self.refer.headers.values(Name::Require).any(|tag| tag.eq_ignore_ascii_case(b"replaces")) {
                lines.push(Name::Require, "replaces");
            }
        }
        lines
    }
}

/// Reads a REFER; else what it is refused with.
fn read(request: &Request) -> Result<Read, Box<Reply>> {
    let malformed = |error: ValueError| refused(400, error.to_string());
    let refer = ReferTo::of(&request.headers).map_err(|error| refused(error.code(), error.to_string()))?;
    let is_subscribed = refer_sub(&request.headers).map_err(malformed)?;
    let referred_by = referred_by(&request.headers).map_err(malformed)?.map(|mut by| {
        // The body part that it names stays behind (RFC 3892 §3).
        by.remove_param(b"cid");
        by.encode()
    });
    Ok(Read { refer, referred_by, is_subscribed, max_forwards: super::dial::forwards(request) })
}
