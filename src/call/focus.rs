//! We are the focus of a conference: its dialogs say `isfocus`, who may see it subscribes to its state (RFC 4579, RFC 4575,
//! spec/sip.md §5).
//!
//! A room is one from its first member on, a conference made from calls once somebody has come to it by Join. The others
//! stay invisible. Members and supervisors may subscribe, in their dialog or out of one; a subscription ends when its
//! subscriber is neither any more, and with the conference.
//!
//! Nothing here is told what happens: after every input the conference is compared with what was told last.

mod document;
mod joining;
mod refer;

use std::sync::Arc;

pub(super) use self::document::{Participant, Roster, Status};
use super::Calls;
use super::call::Call;
use super::core::{Core, Key};
use super::dial::DialId;
use super::directory::Identity;
use super::leg;
use super::options::{Conference, DnRole, Listener};
use super::setup::{Refusing, Sender, busy, refuse, sender};
use super::talk::Doing;
use crate::bridge::command::mix::{MAX_MEMBERS, Mode};
use crate::codec::Direction;
use crate::id::LegId;
use crate::sip::endpoint::{DialogId, Flow, Peer, Refused, Reply, ServerTx, SubscriptionId, Transport};
use crate::sip::message::Request;
use crate::sip::name::Name;
use crate::sip::values::{Uri, called_number};
use document::Reading;

/// Most subscriptions to one conference: every member with two devices.
const MAX_SUBSCRIBERS: usize = 2 * MAX_MEMBERS;

/// A conference whose focus we say that we are.
#[derive(Debug)]
pub(super) struct Focus {
    /// The user part of its URI: the room's number, or a random token.
    pub user: String,
    /// As it stood after the last input.
    roster: Arc<Roster>,
    subscribers: Vec<Subscriber>,
}

/// Somebody who is told.
#[derive(Debug)]
struct Subscriber {
    id: SubscriptionId,
    /// Who subscribes.
    who: Sender,
    /// Our address as it sees it.
    host: std::net::SocketAddr,
    /// Of the last document.
    version: u32,
    told: Arc<Roster>,
    /// It may see the conference no more.
    is_out: bool,
}

impl Focus {
    /// The call with this key has become one.
    pub(super) fn begin(core: &mut Core, key: Key, user: String) -> Box<Self> {
        core.index.focuses.insert(user.clone(), key);
        Box::new(Self { user, roster: Arc::default(), subscribers: Vec::new() })
    }

    /// Our Contact says so in the dialogs of this peer.
    pub(super) fn said_to(&self, peer: Peer) -> Peer {
        Peer { focus: Some(self.user.clone().into()), ..peer }
    }

    /// It is none any more.
    pub(super) fn end(self, core: &mut Core) {
        core.index.focuses.remove(&self.user);
        for subscriber in self.subscribers {
            core.index.subscriptions.remove(&subscriber.id);
            core.endpoint.end_subscription(subscriber.id, "noresource", core.now);
        }
    }
}

impl Calls {
    /// A SUBSCRIBE to the state of a conference.
    pub(super) fn on_subscribe(&mut self, tx: ServerTx, dialog: Option<DialogId>, flow: Flow, request: &Request) {
        let core = &mut self.core;
        let conference = match dialog {
            Some(dialog) => core.index.dialogs.get(&dialog).copied().ok_or_else(no_conference).map(|key| (key, None)),
            None => conference_of(core, &flow, request).map(|(key, sender)| (key, Some(sender))),
        };
        let (key, sender) = match conference {
            Ok(conference) => conference,
            Err(refusing) => return refusing.tell(core, tx),
        };
        self.with(Some(key), |call, core| {
            let subscribed = match (dialog, sender) {
                (Some(dialog), _) => call.subscribe_member(core, tx, dialog),
                (None, Some(sender)) => call.subscribe_outside(core, tx, flow, sender),
                (None, None) => Err(no_conference()),
            };
            if let Err(refusing) = subscribed {
                refusing.tell(core, tx);
            }
        });
    }

    /// OPTIONS to the number of a room: who may enter it is told that it is a conference (RFC 4579 §5.13).
    pub(super) fn on_options(&mut self, tx: ServerTx, flow: Flow, request: &Request) {
        let core = &mut self.core;
        let mut reply = Reply::new(200);
        reply.headers.push(Name::Accept, "application/sdp");
        // A stranger learns what it would of any number: nothing.
        let sender = sender(core, &flow, request).ok();
        if let Some((sender, room)) = sender.and_then(|s| room_named(core, request, &s).map(|room| (s, room))) {
            let listener = Listener { transport: flow.transport, address: flow.local };
            let local = core.locals.seen(listener, flow.remote.ip(), sender.identity.overrides);
            let uri = Uri::sip(Some(room.number.as_bytes()), local.sip);
            reply.headers.push(Name::Contact, [b"<", &uri.as_bytes()[..], b">;isfocus"].concat());
            reply.headers.push(Name::AllowEvents, "conference");
        }
        core.answer(tx, None, reply);
    }

    /// A subscriber is to be told the state.
    pub(super) fn on_notify_due(&mut self, subscription: SubscriptionId, is_last: bool) {
        let core = &mut self.core;
        let call = core.index.subscriptions.get(&subscription).and_then(|key| self.calls.get_mut(key));
        let focus = call.and_then(|call| call.focus.as_mut());
        let body = focus.and_then(|focus| focus.document_for(subscription));
        if is_last {
            self.on_unsubscribed(subscription);
        }
        let core = &mut self.core;
        // A subscriber whose dialog is gone has heard all that it will hear; the endpoint says so.
        let _ = core.endpoint.notify(subscription, body, core.now);
    }

    /// A subscription is over.
    pub(super) fn on_unsubscribed(&mut self, subscription: SubscriptionId) {
        let call = self.core.index.subscriptions.remove(&subscription).and_then(|key| self.calls.get_mut(&key));
        if let Some(focus) = call.and_then(|call| call.focus.as_mut()) {
            focus.subscribers.retain(|subscriber| subscriber.id != subscription);
        }
    }
}

fn no_conference() -> Refusing {
    refuse(404, "no such conference")
}

fn not_allowed() -> Refusing {
    refuse(403, "neither a member nor a supervisor")
}

/// The conference that a request outside of a dialog is sent to, and who sends it.
fn conference_of(core: &mut Core, flow: &Flow, request: &Request) -> Result<(Key, Sender), Refusing> {
    let sender = sender(core, flow, request)?;
    match conference_named(core, request, &sender) {
        Some(key) => Ok((key, sender)),
        None if room_named(core, request, &sender).is_some() => Err(refuse(480, "nobody is in the room")),
        None => Err(no_conference()),
    }
}

/// The conference whose URI is the Request-URI.
fn conference_named(core: &Core, request: &Request, sender: &Sender) -> Option<Key> {
    let room = room_named(core, request, sender).map(|room| room.number.clone());
    core.index.focuses.get(&room.or_else(|| called(request))?).copied()
}

/// The room whose number stands in the Request-URI, whether somebody is in it or not.
fn room_named(core: &Core, request: &Request, sender: &Sender) -> Option<Arc<Conference>> {
    core.directory.room(&sender.identity, &called(request)?)
}

fn called(request: &Request) -> Option<String> {
    called_number(&Uri::parse(request.uri.clone()).ok()?)
}

impl Focus {
    fn document_for(&mut self, id: SubscriptionId) -> Option<crate::sip::endpoint::Body> {
        let subscriber = self.subscribers.iter_mut().find(|subscriber| subscriber.id == id && !subscriber.is_out)?;
        subscriber.version += 1;
        subscriber.told = self.roster.clone();
        let Subscriber { host, version, .. } = *subscriber;
        let dn = subscriber.who.identity.dn.as_deref();
        Some(self.roster.document(Reading { conference: &self.user, host, version, dn }))
    }

    fn add(&mut self, core: &mut Core, key: Key, subscriber: Subscriber) {
        core.index.subscriptions.insert(subscriber.id, key);
        self.subscribers.push(subscriber);
    }
}

impl Call {
    /// A SUBSCRIBE in the dialog of a party.
    fn subscribe_member(&mut self, core: &mut Core, tx: ServerTx, dialog: DialogId) -> Result<(), Refusing> {
        let leg = self.leg_of(dialog).and_then(|leg| self.leg(leg)).ok_or_else(no_conference)?;
        // What is not said to be a conference is none to it.
        if !core.endpoint.is_focus(dialog) || self.focus.is_none() || !self.takes_part(leg.id) {
            return Err(not_allowed());
        }
        let who = Sender { identity: leg.identity.as_ref().clone(), number: leg.number.clone() };
        let host = leg.local.sip;
        self.subscribe(core, tx, dialog, who, host)
    }

    /// A SUBSCRIBE outside of a dialog.
    fn subscribe_outside(&mut self, core: &mut Core, tx: ServerTx, flow: Flow, who: Sender) -> Result<(), Refusing> {
        let Some(focus) = &self.focus else { return Err(no_conference()) };
        if !self.may_see(core, &who) {
            return Err(not_allowed());
        }
        let listener = Listener { transport: flow.transport, address: flow.local };
        let local = core.locals.seen(listener, flow.remote.ip(), who.identity.overrides);
        let peer = leg::peer(&who.identity, &local, flow.remote.ip(), flow.transport == Transport::Tcp);
        let dialog = core.endpoint.open_dialog(tx, focus.said_to(peer)).map_err(|why| match why {
            Refused::Full => busy("no room for another dialog"),
            _ => refuse(400, "no Contact"),
        })?;
        self.subscribe(core, tx, dialog, who, local.sip)
    }

    fn subscribe(
        &mut self,
        core: &mut Core,
        tx: ServerTx,
        dialog: DialogId,
        who: Sender,
        host: std::net::SocketAddr,
    ) -> Result<(), Refusing> {
        let told = Arc::new(self.roster(core));
        let Some(focus) = &mut self.focus else { return Err(no_conference()) };
        if focus.subscribers.len() >= MAX_SUBSCRIBERS {
            return Err(busy("too many subscriptions to a conference"));
        }
        match core.endpoint.accept_subscription(tx, dialog, core.now) {
            Ok(id) => {
                focus.roster = told.clone();
                focus.add(core, self.key, Subscriber { id, who, host, version: 0, told, is_out: false });
                Ok(())
            }
            Err(Refused::Full) => Err(busy("too many subscriptions in a dialog")),
            // Nobody waits for an answer any more.
            Err(_) => Ok(()),
        }
    }

    /// It is no conference any more, or ends.
    pub(super) fn close_focus(&mut self, core: &mut Core) {
        if let Some(focus) = self.focus.take() {
            focus.end(core);
        }
    }

    /// What our Contact says to who is called into the conference.
    pub(super) fn focus_of(&self, dial: DialId) -> Option<bytes::Bytes> {
        let is_member = self.talk()?.invited.iter().any(|i| i.dial.id == dial && i.is_member());
        self.focus.as_ref().filter(|_| is_member).map(|focus| focus.user.clone().into())
    }

    /// What our Contact says in the dialog of this leg, where it is that of a conference.
    pub(super) fn focus_said_to(&self, core: &Core, leg: LegId) -> Option<bytes::Bytes> {
        let is_said = core.endpoint.is_focus(self.leg(leg)?.dialog?);
        self.focus.as_ref().filter(|_| is_said).map(|focus| focus.user.clone().into())
    }

    /// A party of the conference, or a supervisor in it: not who is only called or consulted.
    pub(super) fn takes_part(&self, leg: LegId) -> bool {
        self.talk().is_some_and(|talk| talk.members.contains(&leg)) || self.observer(leg).is_some()
    }

    /// The leg by which somebody takes part.
    pub(super) fn part_of(&self, who: &Sender) -> Option<LegId> {
        let is_its = |leg: &&leg::Leg| {
            let is_same = leg.identity.is_same_party(&who.identity);
            // Of a trunk or of class other only the one who calls.
            is_same && (leg.identity.dn.is_some() || leg.number == who.number) && self.takes_part(leg.id)
        };
        self.legs.iter().find(is_its).map(|leg| leg.id)
    }

    fn may_see(&self, core: &Core, who: &Sender) -> bool {
        is_supervisor(core, &who.identity) || self.part_of(who).is_some()
    }

    /// Compares the conference with what its subscribers know of it.
    pub(super) fn tell_subscribers(&mut self, core: &mut Core) {
        if self.focus.as_ref().is_none_or(|focus| focus.subscribers.is_empty()) {
            return;
        }
        let roster = Arc::new(self.roster(core));
        let Some(mut focus) = self.focus.take() else { return };
        if *focus.roster != *roster {
            for subscriber in &mut focus.subscribers {
                let dn = subscriber.who.identity.dn.as_deref();
                if !self.may_see(core, &subscriber.who) {
                    subscriber.is_out = true;
                    core.endpoint.end_subscription(subscriber.id, "rejected", core.now);
                } else if !roster.seen_by(dn).eq(subscriber.told.seen_by(dn)) {
                    core.endpoint.resource_changed(subscriber.id, core.now);
                }
            }
            focus.roster = roster;
        }
        self.focus = Some(focus);
    }

    /// Who is in the conference.
    fn roster(&self, core: &Core) -> Roster {
        let Some(talk) = self.talk() else { return Roster::default() };
        let members = talk.members.iter().filter_map(|id| self.participant(core, *id, self.status_of(*id), None));
        let observers = talk.observers.iter().filter_map(|observer| {
            let is_seen = observer.mode == Mode::Connect;
            let dn = self.leg(observer.leg).and_then(|leg| leg.identity.dn.clone());
            self.participant(core, observer.leg, Status::Connected, dn.filter(|_| !is_seen))
        });
        let called = talk.invited.iter().filter(|invited| invited.is_member()).filter_map(|invited| {
            let status = if invited.dial.is_ringing() { Status::Alerting } else { Status::DialingOut };
            self.participant(core, invited.dial.branches.first()?.leg, status, None)
        });
        Roster { max_users: self.max_members(), participants: members.chain(observers).chain(called).collect() }
    }

    fn status_of(&self, leg: LegId) -> Status {
        let consults =
            self.talk().is_some_and(|talk| matches!(&talk.doing, Doing::Consult(c) if c.by == leg && c.is_active));
        match self.leg(leg) {
            Some(leg) if consults || leg.has_hold() => Status::OnHold,
            Some(leg) if leg.is_muted => Status::MutedViaFocus,
            _ => Status::Connected,
        }
    }

    fn participant(&self, core: &Core, leg: LegId, status: Status, seen_by: Option<String>) -> Option<Participant> {
        let leg = self.leg(leg)?;
        let can = Direction::from_flags(!leg.is_muted, !leg.is_deaf);
        let media = if leg.on_hold { Direction::Inactive } else { leg.wants.and(can) };
        let display = leg.shown.as_ref().and_then(|shown| shown.display());
        Some(Participant {
            leg: leg.id,
            number: leg.number.clone(),
            display: display.map(|name| String::from_utf8_lossy(&name).into_owned()),
            status,
            dialed_in: leg
                .dialog
                .and_then(|dialog| core.endpoint.dialog(dialog))
                .is_some_and(|dialog| !dialog.is_caller),
            media,
            seen_by,
        })
    }
}

fn is_supervisor(core: &Core, identity: &Identity) -> bool {
    let dn = identity.dn.as_ref().and_then(|dn| core.directory.dn(dn));
    dn.is_some_and(|dn| dn.role == DnRole::Supervisor)
}
