//! Subscriptions of theirs: SUBSCRIBE, how long one lasts, when its next NOTIFY goes (RFC 6665 §4.2).
//!
//! ```text
//!             accepted             unsubscribed, expired, ended by us
//!  SUBSCRIBE ──────────► Active ───────────────────────────────────────► its last NOTIFY ──► gone
//!                         │ ▲ └── a NOTIFY fails, the dialog ends ─────────────────────────► gone
//!                         └─┘ refreshed or changed: a NOTIFY
//! ```
//!
//! The endpoint knows when a NOTIFY is due, its user what it says. At most one of a subscription is under way, and at most
//! one a second is sent for changes: what has changed meanwhile is told together, by the next one.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Endpoint;
use super::api::*;
use super::tables::Incoming;
use crate::sip::headers::Headers;
use crate::sip::message::Response;
use crate::sip::name::Name;
use crate::sip::timers::Timer;
use crate::sip::values::{EventPackage, SubscriptionState, ValueError, fields};

/// The shortest subscription, apart from 0 (RFC 6665 §4.2.1.1).
const MIN_EXPIRES: u32 = 60;
/// The longest, and that of a SUBSCRIBE without Expires (RFC 4575 §3.4).
const MAX_EXPIRES: u32 = 3_600;
/// Between two NOTIFYs of changes.
const PACE: Duration = Duration::from_secs(1);
/// Most subscriptions in one dialog.
const MAX_IN_DIALOG: usize = 4;

/// All subscriptions.
#[derive(Default)]
pub(super) struct Subscriptions {
    live: HashMap<SubscriptionId, Subscription>,
    /// NOTIFYs that are not answered. `None`: the last one of its subscription.
    open: HashMap<RequestId, Option<SubscriptionId>>,
}

struct Subscription {
    dialog: DialogId,
    package: EventPackage,
    /// When it lapses unless it is refreshed.
    expires: Instant,
    /// Why it ends with its next NOTIFY; `None`: it goes on.
    ends: Option<&'static str>,
    /// From when on the next NOTIFY may go; `None`: there is nothing to tell.
    due: Option<Instant>,
    /// No NOTIFY of a change before that.
    paced: Instant,
    is_notifying: bool,
}

impl Subscriptions {
    pub(super) fn is_empty(&self) -> bool {
        self.live.is_empty() && self.open.is_empty()
    }
}

impl Endpoint {
    /// A SUBSCRIBE has come, in a dialog or out of one: a refresh is answered here, a new one is for our user to accept.
    pub(super) fn on_subscribe(
        &mut self,
        tx: ServerTx,
        dialog: Option<DialogId>,
        flow: Flow,
        incoming: Incoming,
        now: Instant,
    ) {
        let headers = &incoming.request.headers;
        let (package, expires) = match self.read_subscribe(headers) {
            Ok(read) => read,
            Err(reply) => return self.refuse(tx, *reply, now),
        };
        let known = dialog.and_then(|dialog| self.subscription_of(dialog, &package));
        if let Some(id) = known {
            return self.refresh(tx, id, expires, now);
        }
        // What no INVITE has made carries the NOTIFYs of what has made it, and ends with them (RFC 6665 §4.5.2).
        let is_alien = dialog.and_then(|id| self.dialogs.get(&id)).is_some_and(|record| !record.dialog.is_session);
        if is_alien {
            return self.refuse(tx, Reply::new(481), now);
        }
        self.event(Event::Subscribe { tx, dialog, flow, request: incoming.request });
    }

    /// What a SUBSCRIBE is for and how long, or what it is refused with.
    fn read_subscribe(&self, headers: &Headers) -> Result<(EventPackage, Duration), Box<Reply>> {
        let bad = |error: ValueError| Box::new(Reply { reason: error.to_string().into(), ..Reply::new(400) });
        let package = EventPackage::of(headers).map_err(bad)?;
        if !self.options.packages.iter().any(|own| own.as_bytes() == package.name) {
            let mut reply = Reply::new(489);
            reply.headers.push(Name::AllowEvents, self.options.packages.join(", "));
            return Err(Box::new(reply));
        }
        let expires = headers.get(Name::Expires).map(|value| fields::number(&value)).transpose().map_err(bad)?;
        let expires = expires.unwrap_or(MAX_EXPIRES).min(MAX_EXPIRES);
        if (1..MIN_EXPIRES).contains(&expires) {
            let mut reply = Reply::new(423);
            reply.headers.push(Name::MinExpires, MIN_EXPIRES.to_string());
            return Err(Box::new(reply));
        }
        Ok((package, Duration::from_secs(expires.into())))
    }

    fn subscription_of(&self, dialog: DialogId, package: &EventPackage) -> Option<SubscriptionId> {
        let record = self.dialogs.get(&dialog)?;
        let is_it = |id: &&SubscriptionId| self.subscriptions.live.get(id).is_some_and(|s| s.package == *package);
        record.notifies.subscriptions.iter().find(is_it).copied()
    }

    fn refresh(&mut self, tx: ServerTx, id: SubscriptionId, expires: Duration, now: Instant) {
        let is_over = self.subscriptions.live.get(&id).is_none_or(|subscription| subscription.ends.is_some());
        let reply = if is_over { Reply::new(481) } else { accepted(expires) };
        self.refuse(tx, reply, now);
        if !is_over {
            self.prolong(id, expires, now);
        }
    }

    /// See [`Endpoint::accept_subscription`].
    pub(super) fn begin_subscription(
        &mut self,
        tx: ServerTx,
        dialog: DialogId,
        now: Instant,
    ) -> Result<SubscriptionId, Refused> {
        let incoming = self.servers.get(&tx.0).and_then(|record| record.incoming.as_deref());
        let headers = &incoming.ok_or(Refused::TransactionOver)?.request.headers;
        // It was read when it came.
        let (package, expires) = self.read_subscribe(headers).map_err(|_| Refused::WrongState)?;
        let record = self.dialogs.get(&dialog).ok_or(Refused::NoDialog)?;
        if record.notifies.subscriptions.len() >= MAX_IN_DIALOG {
            self.counters.refused += 1;
            return Err(Refused::Full);
        }
        self.answer(tx, Some(dialog), accepted(expires), now)?;
        let id = SubscriptionId(self.next_id());
        let subscription =
            Subscription { dialog, package, expires: now, ends: None, due: None, paced: now, is_notifying: false };
        self.subscriptions.live.insert(id, subscription);
        if let Some(record) = self.dialogs.get_mut(&dialog) {
            record.notifies.subscriptions.push(id);
        }
        self.prolong(id, expires, now);
        Ok(id)
    }

    /// A SUBSCRIBE has been accepted: a NOTIFY follows at once. With Expires 0 it is the last (RFC 6665 §4.2.1.4, §4.4.3).
    fn prolong(&mut self, id: SubscriptionId, expires: Duration, now: Instant) {
        if expires.is_zero() {
            return self.finish_subscription(id, "timeout", now);
        }
        if let Some(subscription) = self.subscriptions.live.get_mut(&id) {
            subscription.expires = now + expires;
            subscription.due = Some(now);
            self.timers.set(Timer::Expiry, id.0, now + expires);
        }
        self.notify_if_due(id, now);
    }

    /// See [`Endpoint::end_subscription`]; also timer Expiry.
    pub(super) fn finish_subscription(&mut self, id: SubscriptionId, reason: &'static str, now: Instant) {
        if let Some(subscription) = self.subscriptions.live.get_mut(&id) {
            subscription.ends.get_or_insert(reason);
            subscription.due = Some(now);
            self.timers.clear(Timer::Expiry, id.0);
        }
        self.notify_if_due(id, now);
    }

    /// See [`Endpoint::resource_changed`].
    pub(super) fn note_change(&mut self, id: SubscriptionId, now: Instant) {
        if let Some(subscription) = self.subscriptions.live.get_mut(&id) {
            let paced = subscription.paced.max(now);
            subscription.due = Some(subscription.due.map_or(paced, |due| due.min(paced)));
        }
        self.notify_if_due(id, now);
    }

    /// Asks for the state when it may be sent now; also timer Pace.
    pub(super) fn notify_if_due(&mut self, id: SubscriptionId, now: Instant) {
        let Some(subscription) = self.subscriptions.live.get_mut(&id).filter(|s| !s.is_notifying) else { return };
        match subscription.due {
            Some(due) if due <= now => {
                subscription.is_notifying = true;
                subscription.due = None;
                self.timers.clear(Timer::Pace, id.0);
                let is_last = subscription.ends.is_some();
                self.event(Event::NotifyDue { subscription: id, is_last });
            }
            Some(due) => self.timers.set(Timer::Pace, id.0, due),
            None => {}
        }
    }

    /// See [`Endpoint::notify`].
    pub(super) fn send_state(
        &mut self,
        id: SubscriptionId,
        body: Option<Body>,
        now: Instant,
    ) -> Result<RequestId, Refused> {
        let subscription = self.subscriptions.live.get_mut(&id).ok_or(Refused::NoDialog)?;
        subscription.paced = now + PACE;
        let state = match subscription.ends {
            Some(reason) => SubscriptionState::terminated(reason),
            None => SubscriptionState::Active { expires: Some(seconds(subscription.expires, now)) },
        };
        let mut headers = Headers::new();
        headers.push(Name::Event, subscription.package.encode());
        headers.push(Name::SubscriptionState, state.encode());
        let (dialog, is_last) = (subscription.dialog, subscription.ends.is_some());
        // The dialog may have ended; it takes no more requests then.
        let sent = self.start_request(dialog, crate::sip::method::Method::Notify, headers, body, now);
        match sent {
            Ok(request) => {
                self.subscriptions.open.insert(request, Some(id).filter(|_| !is_last));
                if is_last {
                    self.forget_subscription(id);
                }
            }
            // Its end is known: there was only its last word left.
            Err(_) if is_last => {
                self.forget_subscription(id);
                self.drop_unused(dialog, now);
            }
            Err(_) => self.lose_subscription(id, now),
        }
        sent
    }

    /// The outcome of a request of ours is known: that of a NOTIFY of a subscription stays here.
    pub(super) fn tell_outcome(
        &mut self,
        request: RequestId,
        dialog: Option<DialogId>,
        outcome: Result<Response, Failure>,
        now: Instant,
    ) {
        match self.subscriptions.open.remove(&request) {
            None => self.event(Event::Response { request, dialog, outcome }),
            // The dialog of a SUBSCRIBE ends with its last NOTIFY (RFC 6665 §4.4.1).
            Some(None) => dialog.into_iter().for_each(|dialog| self.drop_unused(dialog, now)),
            Some(Some(id)) => self.notify_answered(id, &outcome, now),
        }
    }

    fn notify_answered(&mut self, id: SubscriptionId, outcome: &Result<Response, Failure>, now: Instant) {
        let Some(subscription) = self.subscriptions.live.get_mut(&id) else { return };
        subscription.is_notifying = false;
        match outcome {
            Ok(_) => {}
            // RFC 6665 §4.2.2: one that says when to come again has not failed.
            Err(Failure::Response(response)) => match retry_after(response) {
                Some(wait) => {
                    subscription.paced = now + wait;
                    subscription.due = Some(subscription.paced);
                }
                None => return self.lose_subscription(id, now),
            },
            Err(_) => return self.lose_subscription(id, now),
        }
        self.notify_if_due(id, now);
    }

    /// A subscription is over without a word to its subscriber.
    fn lose_subscription(&mut self, id: SubscriptionId, now: Instant) {
        let dialog = self.forget_subscription(id);
        self.event(Event::Unsubscribed { subscription: id });
        dialog.into_iter().for_each(|dialog| self.drop_unused(dialog, now));
    }

    /// The dialog of subscriptions has ended.
    pub(super) fn lose_subscriptions(&mut self, subscriptions: Vec<SubscriptionId>) {
        for subscription in subscriptions {
            self.forget_subscription(subscription);
            self.event(Event::Unsubscribed { subscription });
        }
    }

    fn forget_subscription(&mut self, id: SubscriptionId) -> Option<DialogId> {
        let subscription = self.subscriptions.live.remove(&id)?;
        self.timers.clear(Timer::Expiry, id.0);
        self.timers.clear(Timer::Pace, id.0);
        if let Some(record) = self.dialogs.get_mut(&subscription.dialog) {
            record.notifies.subscriptions.retain(|one| *one != id);
        }
        Some(subscription.dialog)
    }

    fn drop_unused(&mut self, id: DialogId, now: Instant) {
        let is_unused = |d: &super::tables::DialogRecord| !d.dialog.is_session && d.notifies.subscriptions.is_empty();
        if self.dialogs.get(&id).is_some_and(|d| is_unused(d)) {
            self.remove_dialog(id, now);
        }
    }
}

fn accepted(expires: Duration) -> Reply {
    let mut reply = Reply::new(200);
    reply.headers.push(Name::Expires, expires.as_secs().to_string());
    reply
}

/// Whole seconds until then, rounded up: a refresh at the last of them still comes in time.
fn seconds(until: Instant, now: Instant) -> u32 {
    let left = until.saturating_duration_since(now).as_millis().div_ceil(1_000);
    u32::try_from(left).unwrap_or(MAX_EXPIRES)
}

/// When a refused NOTIFY may be tried again (RFC 3261 §20.33); its comment and parameters are not for us.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers.get(Name::RetryAfter)?;
    let end = value.iter().position(|b| matches!(b, b'(' | b';')).unwrap_or(value.len());
    let seconds = fields::number(&value[..end]).ok()?;
    Some(Duration::from_secs(seconds.into()))
}
