//! Conferences and supervision: rows 11, 12, 14 to 16 and 18 to 21.

use super::Told;
use super::call::{Call, Member, Stage, Who};
use super::event::{DnRole, Event, Name};
use super::rows::{self, Row};
use crate::call::fact::{Party, ReleaseCause, What};
use crate::call::request::MonitorMode;
use crate::id::{ConnId, LegId};

/// Somebody who is called into a call.
#[derive(Debug)]
pub(super) struct Invited {
    by: LegId,
    to: Who,
    observer: bool,
}

/// What happens in a conference or with a supervisor. `consult`: the consult call that ends by it.
pub(super) fn tell(told: &mut Told<'_>, call: &mut Call, what: &What, consult: Option<(ConnId, Call)>) {
    match what {
        What::PartyInvited { by, to, observer } => invited(call, *by, to, *observer),
        What::PartyAdded { leg, party, by, .. } => match consult {
            Some((consult_id, consult)) => completed(told, call, (*leg, *by), consult_id, consult),
            None => joined(told, call, *leg, party, &rows::ESTABLISHED),
        },
        What::RoomEntered { room, leg, party, .. } => entered(told, call, room.clone(), *leg, party),
        What::PartyNotAdded { by, to, cause } => not_added(told, call, *by, to, *cause),
        What::PartyDeleted { leg, by, left } => deleted(told, call, *leg, *by, *left),
        What::ObserverJoined { leg, party, .. } => joined(told, call, *leg, party, &rows::OBSERVER_ESTABLISHED),
        What::ObserverLeft { leg } => observer_left(told, call, *leg),
        What::MonitorMode { leg, agent, mode } => mode_changed(told, call, [*leg, *agent], *mode),
        What::MuteChanged { leg, muted } => {
            to_itself(told, call, *leg, if *muted { &rows::MUTE_ON } else { &rows::MUTE_OFF })
        }
        What::ListenChanged { leg, deaf } => {
            to_itself(told, call, *leg, if *deaf { &rows::LISTEN_DISCONNECTED } else { &rows::LISTEN_RECONNECTED });
        }
        _ => {}
    }
}

/// Row 18.
pub(super) fn monitoring(supervisor: &str, agent: &str, on: bool) -> Vec<Event> {
    let name = if on { Name::EventMonitoringNextCall } else { Name::EventMonitoringCancelled };
    let event = |this: &str, role, other: &str, other_role| {
        let mut event = Event::new(name, None, this);
        event.this_dn_role = role;
        event.other_dn = Some(other.to_owned());
        event.other_dn_role = other_role;
        event
    };
    let observer = Some(DnRole::Observer);
    vec![event(supervisor, observer, agent, None), event(agent, None, supervisor, observer)]
}

fn invited(call: &mut Call, by: LegId, to: &Party, observer: bool) {
    let role = if observer { DnRole::Observer } else { DnRole::ConferenceMember };
    call.members.push(Member { role, agent: observer.then_some(by), ..Member::called(to) });
    call.invited.push(Invited { by, to: Who::of(to), observer });
}

/// Rows 12 and 19: who is called in rings, and those concerned are told that it is coming. False: nobody has called it
/// in.
pub(super) fn rings(told: &mut Told<'_>, call: &mut Call, at: usize) -> bool {
    let shown = call.members[at].who.shown.clone();
    let Some(invited) = call.invited.iter().find(|invited| invited.to.shown == shown) else { return false };
    let (by, observer) = (invited.by, invited.observer);
    told.tell(call, at, if observer { &rows::OBSERVER_RINGING } else { &rows::RINGING }, None);
    let inviter = call.member(by).map(|member| member.who.clone());
    for other in 0..call.members.len() {
        let member = &call.members[other];
        let concerned = if observer { member.leg == Some(by) } else { member.role != DnRole::Observer };
        if other == at || member.is_called() || !concerned {
            continue;
        }
        let row = if observer { &rows::OBSERVER_ADDED } else { &rows::PARTY_ADDED };
        let role = if observer { DnRole::Observer } else { DnRole::NewParty };
        about(told, call, other, row, (&shown, role), inviter.as_ref());
    }
    true
}

/// Tells a party something of another one.
fn about(
    told: &mut Told<'_>,
    call: &Call,
    at: usize,
    row: &Row,
    (other, role): (&Option<String>, DnRole),
    third: Option<&Who>,
) {
    if let Some(event) = told.tell(call, at, row, third) {
        event.other_dn.clone_from(other);
        event.other_dn_role = other.is_some().then_some(role);
    }
}

/// All are members of a conference from now on; supervisors stay what they are.
fn confer(call: &mut Call) {
    for member in call.members.iter_mut().filter(|m| m.role != DnRole::Observer && !m.is_called()) {
        member.role = DnRole::ConferenceMember;
    }
}

/// Who was called in has answered. Ringing comes before the answer also of a phone that answers at once.
fn joined(told: &mut Told<'_>, call: &mut Call, leg: LegId, party: &Party, row: &Row) {
    super::ringing(told, call, leg, party);
    let Some(at) = call.find(leg) else { return };
    call.members[at].stage = Stage::Talking;
    let shown = call.members[at].who.shown.clone();
    call.invited.retain(|invited| invited.to.shown != shown);
    if call.members[at].role != DnRole::Observer {
        confer(call);
    }
    told.tell(call, at, row, None);
}

/// Row 12 for who comes into a dial-in room by itself: it dials and is established, as a member from its first moment;
/// the others are told that it has added itself, as row 14 tells them that somebody has deleted itself.
fn entered(told: &mut Told<'_>, call: &mut Call, room: String, leg: LegId, party: &Party) {
    let calls = Member { leg: Some(leg), role: DnRole::Origination, stage: Stage::Calling, ..Member::called(party) };
    let who = calls.who.clone();
    let Some(at) = call.add(calls) else { return };
    about(told, call, at, &rows::DIALING, (&Some(room), DnRole::Destination), None);
    call.members[at].stage = Stage::Talking;
    confer(call);
    for other in 0..at {
        let member = &call.members[other];
        if !member.is_called() && member.role != DnRole::Observer {
            about(told, call, other, &rows::PARTY_ADDED, (&who.shown, DnRole::NewParty), Some(&who));
        }
    }
    told.tell(call, at, &rows::ESTABLISHED, None);
}

/// Row 11.
fn completed(told: &mut Told<'_>, call: &mut Call, (leg, by): (LegId, LegId), consult_id: ConnId, consult: Call) {
    let Some(by_at) = call.find(by) else { return };
    call.members[by_at].holds = false;
    let by_who = call.members[by_at].who.clone();
    let Some(new) = consult.member(leg).cloned() else { return };
    let before = call.members.len();
    let shown = new.who.shown.clone();
    call.members.push(Member { stage: Stage::Talking, holds: false, ..new });
    confer(call);
    told.tell(call, by_at, &rows::CONFERENCE_RETRIEVED, None);
    let conn_id = std::mem::replace(&mut told.conn_id, consult_id);
    let consulting = (0..consult.members.len()).filter(|at| consult.members[*at].who.dn == by_who.dn);
    consulting.for_each(|at| _ = told.tell(&consult, at, &rows::CONFERENCE_RELEASED, None));
    told.conn_id = conn_id;
    for at in (0..before).filter(|at| call.members[*at].role == DnRole::ConferenceMember) {
        about(told, call, at, &rows::PARTY_ADDED, (&shown, DnRole::NewParty), Some(&by_who));
    }
    if let Some(event) = told.tell(call, before, &rows::CONFERENCED, Some(&by_who)) {
        event.previous_conn_id = Some(consult_id);
    }
    supervisors_come(told, call, leg, (consult_id, &consult), (&rows::CONFERENCED, Some(&by_who)));
    call.recordings.extend(consult.recordings);
}

/// The consult call of a party ends in another call: its supervisors go on with it there.
pub(super) fn supervisors_come(
    told: &mut Told<'_>,
    call: &mut Call,
    agent: LegId,
    (consult_id, consult): (ConnId, &Call),
    (row, by): (&Row, Option<&Who>),
) {
    for member in consult.members.iter().filter(|member| member.agent == Some(agent) && !member.is_called()) {
        let Some(at) = call.add(member.clone()) else { continue };
        if let Some(event) = told.tell(call, at, row, by) {
            event.previous_conn_id = Some(consult_id);
        }
    }
}

/// Who was called in does not come: it is told, and so are those who have been told that it comes.
fn not_added(told: &mut Told<'_>, call: &mut Call, by: LegId, to: &Party, cause: ReleaseCause) {
    let who = Who::of(to);
    let Some(at) = call.invited.iter().position(|invited| invited.to.shown == who.shown) else { return };
    let observer = call.invited.remove(at).observer;
    let Some(at) = call.called_named(to) else { return };
    let end = rows::end(cause);
    if call.members[at].stage == Stage::Ringing {
        told.tell(call, at, &end.ringing, None);
        let left = call.talking();
        for other in 0..call.members.len() {
            let member = &call.members[other];
            let concerned = if observer { member.leg == Some(by) } else { member.role != DnRole::Observer };
            if other != at && !member.is_called() && concerned {
                about(told, call, other, &rows::party_deleted(left), (&who.shown, DnRole::DeletedParty), Some(&who));
            }
        }
    }
    call.members.remove(at);
    let Some(member) = call.member(by).filter(|_| !observer && cause != ReleaseCause::Abandoned) else { return };
    let Some(dn) = &member.who.dn else { return };
    let mut event = told.event(call, Name::EventError, dn);
    event.this_dn_role = Some(member.role);
    event.other_dn = who.shown;
    event.other_dn_role = event.other_dn.is_some().then_some(DnRole::NewParty);
    event.call_state = end.calling.first().map(|row| row.state);
    event.cause = end.calling.first().and_then(|row| row.cause);
    event.request = Some("single-step-conference");
    event.code = Some(cause.label());
    event.reason = Some("the party was not reached: the call is as before".to_owned());
    told.events.push(event);
}

/// Rows 14 and 15; row 20 for the supervisors.
fn deleted(told: &mut Told<'_>, call: &mut Call, leg: LegId, by: LegId, left: usize) {
    let Some(at) = call.find(leg) else { return };
    let by = call.member(by).map(|member| member.who.clone());
    told.tell(call, at, &rows::RELEASED, None);
    let who = call.members.remove(at).who;
    for at in 0..call.members.len() {
        if !call.members[at].is_called() {
            about(told, call, at, &rows::party_deleted(left), (&who.shown, DnRole::DeletedParty), by.as_ref());
        }
    }
}

fn observer_left(told: &mut Told<'_>, call: &mut Call, leg: LegId) {
    let Some(at) = call.find(leg) else { return };
    told.tell(call, at, &rows::RELEASED, None);
    let Member { who, agent, .. } = call.members.remove(at);
    if let Some(agent) = agent.and_then(|agent| call.find(agent)) {
        let left = call.talking();
        about(told, call, agent, &rows::party_deleted(left), (&who.shown, DnRole::DeletedParty), Some(&who));
    }
}

/// Row 21.
fn mode_changed(told: &mut Told<'_>, call: &Call, legs: [LegId; 2], mode: MonitorMode) {
    for at in legs.into_iter().filter_map(|leg| call.find(leg)) {
        let Some(dn) = &call.members[at].who.dn else { continue };
        let mut event = told.event(call, Name::EventPrivateInfo, dn);
        event.this_dn_role = Some(call.members[at].role);
        event.monitor_mode = Some(mode.as_str());
        told.events.push(event);
    }
}

fn to_itself(told: &mut Told<'_>, call: &Call, leg: LegId, row: &Row) {
    if let Some(at) = call.find(leg) {
        told.tell(call, at, row, None);
    }
}

impl Call {
    /// Its parties, supervisors apart.
    fn talking(&self) -> usize {
        self.members.iter().filter(|m| m.role != DnRole::Observer && !m.is_called()).count()
    }
}
