//! Telephony events (spec/events.md §1): one JSON object per event and per DN that it concerns.
//!
//! [`Telephony`] is fed with every fact, in order, and knows of a call what its facts have said, until the last one. What
//! an event says stands in one table, `rows`; here stands who is told what, and in which order. Only configured DNs are
//! told anything. All rows are built.
//!
//! Events tell what has happened, never what is hoped for: a transferor is released when the transfer has succeeded or it
//! has hung up, so that a transfer that fails needs no event that takes another one back.

mod call;
mod conference;
pub mod event;
mod rows;

use std::sync::Arc;

use self::call::{Call, Member, Pending, Recording, Stage, Who};
use self::event::{DnRole, Event, Name, RecordingState};
use self::rows::Row;
pub(super) use self::rows::shown;
use crate::call::fact::{Asked, Fact, Party, ReleaseCause, Transfer, What};
use crate::call::request::{Ask, Code, Denied, DnRequest, Request};
use crate::id::{CallUuid, ConnId, IdMap, LegId, RecordingId};
use crate::record::mark::StopCause;

/// All live calls, as telephony events tell them.
#[derive(Debug)]
pub struct Telephony {
    calls: IdMap<ConnId, Call>,
    max_calls: usize,
}

/// The events of one fact.
struct Told<'a> {
    conn_id: ConnId,
    asked: Option<&'a Asked>,
    events: Vec<Event>,
}

impl Told<'_> {
    /// Tells a party of `call`, when it is a DN.
    fn tell(&mut self, call: &Call, at: usize, row: &Row, third: Option<&Who>) -> Option<&mut Event> {
        let this = &call.members[at];
        let mut event = self.event(call, row.name, this.who.dn.as_ref()?);
        event.this_dn_role = Some(this.role);
        let other = call.other(at).filter(|other| other.who.shown.is_some());
        event.other_dn = other.and_then(|other| other.who.shown.clone());
        event.other_dn_role = other.map(|other| other.role);
        event.third_party_dn = row.third.and(third).and_then(|third| third.shown.clone());
        event.third_party_dn_role = row.third.filter(|_| event.third_party_dn.is_some());
        event.call_state = Some(row.state);
        event.cause = row.cause;
        self.events.push(event);
        self.events.last_mut()
    }

    fn event(&self, call: &Call, name: Name, dn: &str) -> Event {
        let mut event = Event::new(name, self.conn_id, dn);
        event.call_uuid = Some(call.uuid);
        event.call_type = Some(call.kind);
        event.reference_id = self.asked.filter(|asked| asked.dn == dn).and_then(|asked| asked.reference.clone());
        event
    }
}

impl Telephony {
    /// Knows no call yet. `max_calls`: of calls beyond so many nothing is told; the limit of call control, twice, for each
    /// call may have a consultation.
    pub fn new(max_calls: usize) -> Self {
        Self { calls: IdMap::default(), max_calls }
    }

    /// Live calls that it knows of.
    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// The events of one fact, in their order.
    pub fn project(&mut self, fact: &Fact) -> Vec<Event> {
        if let What::Monitoring { supervisor, agent, on } = &fact.what {
            let asked = fact.cause.as_deref();
            let mut events = conference::monitoring(supervisor, agent, *on);
            for event in events.iter_mut().filter(|e| asked.is_some_and(|asked| asked.dn == e.this_dn)) {
                event.reference_id = asked.and_then(|asked| asked.reference.clone());
            }
            return events;
        }
        let Some(conn_id) = fact.conn_id else { return Vec::new() };
        let mut told = Told { conn_id, asked: fact.cause.as_deref(), events: Vec::new() };
        match &fact.what {
            What::NotMade { .. } => not_made(&mut told, &fact.what),
            what => self.tell(&mut told, what),
        }
        told.events
    }

    /// A request that was refused, to who has asked. `None`: it is no DN, and the answer to the request is all that it
    /// gets.
    pub fn error(request: &Request, denied: &Denied) -> Option<Event> {
        let conn_id = Some(request.conn_id).filter(|_| !matches!(request.ask, Ask::MakeCall { .. }));
        let event = Event::new(Name::EventError, conn_id, &request.this_dn);
        Self::refused(event, request.reference.clone(), request.ask.name(), denied)
    }

    /// As [`Telephony::error`], of a request that is about no call.
    pub fn dn_error(request: &DnRequest, denied: &Denied) -> Option<Event> {
        let event = Event::new(Name::EventError, None, &request.this_dn);
        Self::refused(event, request.reference.clone(), request.ask.name(), denied)
    }

    fn refused(mut event: Event, reference: Option<Arc<str>>, name: &'static str, denied: &Denied) -> Option<Event> {
        if denied.code == Code::UnknownDn {
            return None;
        }
        event.reference_id = reference;
        event.request = Some(name);
        event.code = Some(denied.code.as_str());
        event.reason = Some(denied.detail.clone());
        event.state = Some(denied.state.clone());
        Some(event)
    }

    fn tell(&mut self, told: &mut Told<'_>, what: &What) {
        if let What::CallStarted { .. } = what {
            return self.started(told, what);
        }
        if let What::RoomEntered { call_uuid, room, party, opened: true, .. } = what {
            self.opened(told.conn_id, *call_uuid, party, room);
        }
        if let What::Transferred { consult, .. } = what {
            let consult = consult.and_then(|id| Some((id, self.calls.remove(&id)?)));
            let Some(call) = self.calls.get_mut(&told.conn_id) else { return };
            return transferred(told, call, what, consult);
        }
        if let What::PartyAdded { consult, .. } = what {
            let consult = consult.and_then(|id| Some((id, self.calls.remove(&id)?)));
            let Some(call) = self.calls.get_mut(&told.conn_id) else { return };
            return conference::tell(told, call, what, consult);
        }
        if let What::PartyLeft { leg } = what {
            let consults = |consult: &&Call| consult.consult_of == Some(told.conn_id);
            let consulted = self.calls.values().find(consults).and_then(|consult| consult.members.get(1));
            let consulted = consulted.map(|member| member.who.clone());
            let Some(call) = self.calls.get_mut(&told.conn_id) else { return };
            return left(told, call, *leg, consulted);
        }
        if let What::Released { cause, by, .. } = what {
            let Some(mut call) = self.calls.remove(&told.conn_id) else { return };
            released(told, &call, *cause, *by);
            // What still runs goes on in the consult call of its owner.
            let heir = self.calls.values_mut().filter(|other| other.uuid == call.uuid && !call.recordings.is_empty());
            if let Some(heir) = heir.min_by_key(|other| other.members.first().and_then(|member| member.leg)) {
                heir.recordings.append(&mut call.recordings);
            }
            return;
        }
        let Some(call) = self.calls.get_mut(&told.conn_id) else { return };
        match what {
            What::Ringing { leg, party, .. } => ringing(told, call, *leg, party),
            What::Answered { leg, party } => answered(told, call, *leg, party),
            What::Held { leg } => holds(told, call, *leg, true),
            What::Retrieved { leg } => holds(told, call, *leg, false),
            What::TransferStarted { by, to, how } => transfer_started(call, *by, to, *how),
            What::TransferFailed { by, to, cause } => transfer_failed(told, call, *by, to, *cause),
            What::Redirected { from, to } => redirected(told, call, from, to),
            What::Replaced { leg, by, party } => replaced(told, call, *leg, *by, party),
            What::Preference { leg, wish, .. } => preference(told, call, *leg, wish),
            What::RecordingStarted { .. }
            | What::RecordingPaused { .. }
            | What::RecordingResumed { .. }
            | What::OwnerChanged { .. }
            | What::RecordingStopped { .. }
            | What::RecordingFailed { .. } => recordings(told, call, what),
            What::CallStarted { .. } | What::Transferred { .. } | What::PartyLeft { .. } | What::Released { .. } => {}
            What::PartyInvited { .. }
            | What::PartyNotAdded { .. }
            | What::PartyDeleted { .. }
            | What::RoomEntered { .. }
            | What::MuteChanged { .. }
            | What::ListenChanged { .. }
            | What::ObserverJoined { .. }
            | What::ObserverLeft { .. }
            | What::MonitorMode { .. } => conference::tell(told, call, what, None),
            What::Monitoring { .. }
            | What::NotMade { .. }
            | What::PartyAdded { .. }
            | What::Refused { .. }
            | What::RecordingBegun { .. }
            | What::RecordingPublished { .. }
            | What::Warning { .. } => {}
        }
    }

    /// A room has its first member, who is told of by [`conference`].
    fn opened(&mut self, conn_id: ConnId, uuid: CallUuid, party: &Party, room: &str) {
        // A room is a number of ours.
        let room = Party { dn: Some(room.to_owned()), trunk: None, number: room.to_owned() };
        let kind = rows::call_type(party, &room, false);
        if self.calls.len() < self.max_calls {
            self.calls.insert(conn_id, Call::new(uuid, kind, Vec::new()));
        }
    }

    /// Rows 1 and 5.
    fn started(&mut self, told: &mut Told<'_>, what: &What) {
        let What::CallStarted { call_uuid, leg, caller, called, consult_of, .. } = what else { return };
        if self.calls.len() >= self.max_calls {
            return;
        }
        let call = between(*call_uuid, Some(*leg), (caller, called), *consult_of);
        if let Some(event) = told.tell(&call, 0, &rows::DIALING, None) {
            event.previous_conn_id = *consult_of;
        }
        self.calls.insert(told.conn_id, call);
    }
}

/// Somebody calls somebody; `leg` is the caller's.
fn between(uuid: CallUuid, leg: Option<LegId>, (caller, called): (&Party, &Party), consult_of: Option<ConnId>) -> Call {
    let member = Member {
        leg,
        who: Who::of(caller),
        role: DnRole::Origination,
        stage: Stage::Calling,
        holds: false,
        agent: None,
    };
    let kind = rows::call_type(caller, called, consult_of.is_some());
    Call { consult_of, ..Call::new(uuid, kind, vec![member, Member::called(called)]) }
}

/// Row 2 for MakeCall: the phone of who has asked for the call was not reached. It is told as if OtherDN had not been.
fn not_made(told: &mut Told<'_>, what: &What) {
    let What::NotMade { call_uuid, this, to, cause } = what else { return };
    let call = between(*call_uuid, None, (this, to), None);
    for row in rows::end(*cause).calling {
        told.tell(&call, 0, row, None);
    }
}

/// Rows 4, 9 and 10. A party that holds by its phone and by a request is told so once.
fn holds(told: &mut Told<'_>, call: &mut Call, leg: LegId, now: bool) {
    let Some(at) = call.find(leg) else { return };
    if std::mem::replace(&mut call.members[at].holds, now) != now {
        told.tell(call, at, if now { &rows::HELD } else { &rows::RETRIEVED }, None);
    }
}

/// Rows 1, 5, 7 and 17. Of several devices of one DN the first one's ringing is told.
fn ringing(told: &mut Told<'_>, call: &mut Call, leg: LegId, party: &Party) {
    let Some(at) = call.called(leg, party) else { return };
    if call.members[at].stage != Stage::Called {
        return;
    }
    call.members[at].stage = Stage::Ringing;
    if conference::rings(told, call, at) {
        return;
    }
    let row = match (&call.transfer, call.redirected) {
        (Some(_), _) => rows::TRANSFER_RINGING,
        (None, true) => rows::REDIRECT_RINGING,
        (None, false) => rows::RINGING,
    };
    told.tell(call, at, &row, None);
}

/// Rows 1 and 5. Ringing comes before the answer also of a phone that answers at once.
fn answered(told: &mut Told<'_>, call: &mut Call, leg: LegId, party: &Party) {
    ringing(told, call, leg, party);
    let Some(answering) = call.find(leg) else { return };
    for at in 0..call.members.len() {
        if at != answering && call.members[at].stage == Stage::Ringing {
            told.tell(call, at, &rows::ABANDONED, None);
        }
    }
    call.members.retain(|member| member.leg == Some(leg) || matches!(member.stage, Stage::Calling | Stage::Talking));
    call.members.iter_mut().for_each(|member| member.stage = Stage::Talking);
    for at in 0..call.members.len() {
        told.tell(call, at, &rows::ESTABLISHED, None);
    }
}

fn transfer_started(call: &mut Call, by: LegId, to: &Party, how: Transfer) {
    let Some(transferor) = call.member(by).map(|member| member.who.clone()) else { return };
    call.transfer = Some(Pending { by, transferor, to: Who::of(to), how });
    // A consulted party rings in the consult call.
    if how != Transfer::Consulted {
        call.members.push(Member::called(to));
    }
}

/// Rows 6 to 8. `what` is [`What::Transferred`].
fn transferred(told: &mut Told<'_>, call: &mut Call, what: &What, consult: Option<(ConnId, Call)>) {
    let What::Transferred { by, stays, target, party, how, .. } = what else { return };
    let pending = call.transfer.take();
    let conn_id = told.conn_id;
    let mut target_member = match &consult {
        Some((_, consult)) => consult.member(*target).cloned().unwrap_or_else(|| Member::called(party)),
        None => {
            let was_called = call.called(*target, party).map(|at| call.members.remove(at));
            was_called.unwrap_or_else(|| Member::called(party))
        }
    };
    target_member.holds = false;
    let before = std::mem::replace(&mut target_member.stage, Stage::Talking);
    target_member.leg = Some(*target);

    let transferor = call.member(*by).map(|member| member.who.clone()).or(pending.map(|pending| pending.transferor));
    if let Some(at) = call.find(*by) {
        told.tell(call, at, &rows::transferor(*how), Some(&target_member.who));
        call.members.remove(at);
    }
    if let Some((consult_id, consult)) = &consult {
        told.conn_id = *consult_id;
        let leaves = |member: &Member| member.leg != Some(*target) && member.agent != Some(*target);
        for at in (0..consult.members.len()).filter(|at| leaves(&consult.members[*at])) {
            told.tell(consult, at, &rows::CONSULT_TRANSFERRED, None);
        }
        told.conn_id = conn_id;
    }

    call.members.retain(|member| !member.is_called());
    call.members.push(target_member);
    let target_at = call.members.len() - 1;
    if consult.is_none() && before == Stage::Called {
        told.tell(call, target_at, &rows::TRANSFER_RINGING, None);
    }
    if let Some(at) = call.find(*stays)
        && let Some(event) = told.tell(call, at, &rows::PARTY_CHANGED, transferor.as_ref())
    {
        event.previous_conn_id = Some(conn_id);
    }
    if let Some((consult_id, consult)) = consult {
        if let Some(event) = told.tell(call, target_at, &rows::PARTY_CHANGED, transferor.as_ref()) {
            event.previous_conn_id = Some(consult_id);
        }
        let why = (&rows::PARTY_CHANGED, transferor.as_ref());
        conference::supervisors_come(told, call, *target, (consult_id, &consult), why);
        call.recordings.extend(consult.recordings);
        if before == Stage::Talking {
            return;
        }
    }
    told.tell(call, target_at, &rows::ESTABLISHED, None);
}

/// The call is as before: the target is told the end of its ringing, the transferor why.
fn transfer_failed(told: &mut Told<'_>, call: &mut Call, by: LegId, to: &Party, cause: ReleaseCause) {
    let end = rows::end(cause);
    if let Some(at) = call.members.iter().position(Member::is_called) {
        if call.members[at].stage == Stage::Ringing {
            told.tell(call, at, &end.ringing, None);
        }
        call.members.remove(at);
    }
    let how = call.transfer.take().map(|pending| pending.how);
    let Some(member) = call.member(by) else { return };
    let Some(dn) = &member.who.dn else { return };
    let mut event = told.event(call, Name::EventError, dn);
    event.this_dn_role = Some(member.role);
    event.other_dn = rows::shown(to);
    event.other_dn_role = event.other_dn.is_some().then_some(DnRole::Destination);
    event.call_state = end.calling.first().map(|row| row.state);
    event.cause = end.calling.first().and_then(|row| row.cause);
    event.request = how.map(rows::request);
    event.code = Some(cause.label());
    event.reason = Some("the target was not reached: the call is as before".to_owned());
    told.events.push(event);
}

/// A transferor hangs up while the target is called, or the party it has `consulted`; else somebody is gone.
fn left(told: &mut Told<'_>, call: &mut Call, leg: LegId, consulted: Option<Who>) {
    let Some(at) = call.find(leg) else { return };
    if let Some(to) = consulted.filter(|_| call.transfer.is_none()) {
        let transferor = call.members[at].who.clone();
        call.transfer = Some(Pending { by: leg, transferor, to, how: Transfer::Consulted });
    }
    match call.transfer.as_ref().filter(|pending| pending.by == leg) {
        Some(pending) => told.tell(call, at, &rows::transferor(pending.how), Some(&pending.to)),
        None => told.tell(call, at, &rows::RELEASED, None),
    };
    call.members.remove(at);
}

/// Row 17.
fn redirected(told: &mut Told<'_>, call: &mut Call, from: &Party, to: &Party) {
    let next = Member::called(to);
    let rang = call.called_named(from).or_else(|| call.members.iter().position(Member::is_called));
    match rang {
        Some(at) => {
            if call.members[at].stage == Stage::Ringing {
                told.tell(call, at, &rows::REDIRECTED, Some(&next.who));
            }
            call.members[at] = next;
        }
        None => call.members.push(next),
    }
    call.redirected = true;
}

/// Another device of the same DN is the same party. Another DN takes the place over: it is established in the call, as
/// who stays is told, and the DN whose place it was is released.
fn replaced(told: &mut Told<'_>, call: &mut Call, leg: LegId, by: LegId, party: &Party) {
    let Some(at) = call.find(leg) else { return };
    let old = call.members[at].clone();
    let new = Member { leg: Some(by), who: Who::of(party), ..old.clone() };
    if new.who.dn.is_some() && new.who.dn == old.who.dn {
        call.members[at] = new;
        return;
    }
    told.tell(call, at, &rows::REPLACED, Some(&new.who));
    call.members[at] = Member { stage: Stage::Talking, ..new };
    let conn_id = told.conn_id;
    for other in (0..call.members.len()).filter(|other| *other != at) {
        if let Some(event) = told.tell(call, other, &rows::PARTY_CHANGED, Some(&old.who)) {
            event.previous_conn_id = Some(conn_id);
        }
    }
    told.tell(call, at, &rows::ESTABLISHED, None);
}

/// Rows 2, 3, 10 and 13: the caller first, except that who rings knows first that the caller has given up.
fn released(told: &mut Told<'_>, call: &Call, cause: ReleaseCause, by: Option<LegId>) {
    let rings = |member: &Member| member.stage == Stage::Ringing;
    let refuses = by.is_some_and(|by| call.member(by).is_some_and(rings));
    let gives_up = matches!(cause, ReleaseCause::Abandoned | ReleaseCause::Released) && !refuses;
    let end = rows::end(if refuses { ReleaseCause::Rejected(603) } else { cause });
    let (first, second): (Vec<usize>, Vec<usize>) =
        (0..call.members.len()).partition(|at| rings(&call.members[*at]) == gives_up);
    for at in first.into_iter().chain(second) {
        match call.members[at].stage {
            Stage::Talking => _ = told.tell(call, at, &end.talking, None),
            Stage::Calling => end.calling.iter().for_each(|row| _ = told.tell(call, at, row, None)),
            Stage::Ringing => _ = told.tell(call, at, &end.ringing, None),
            Stage::Called => {}
        }
    }
}

/// What happens to recordings.
fn recordings(told: &mut Told<'_>, call: &mut Call, what: &What) {
    match what {
        What::RecordingStarted { id, owner, side, .. } => {
            let requester = told.asked.map(|asked| asked.dn.clone());
            let owner = call.owner(*owner, *side);
            call.recordings.push(Recording { id: *id, owner, requester });
            recording(told, call, *id, RecordingState::Recording);
        }
        What::RecordingPaused { id } => recording(told, call, *id, RecordingState::Paused),
        What::RecordingResumed { id } => recording(told, call, *id, RecordingState::Recording),
        What::OwnerChanged { id, owner } => {
            let owner = call.member(*owner).and_then(|member| member.who.dn.clone());
            if let Some(known) = call.recordings.iter_mut().find(|known| known.id == *id) {
                known.owner = owner;
            }
            recording(told, call, *id, RecordingState::Recording);
        }
        // What breaks a recording off is told by the fact that follows.
        What::RecordingStopped { cause: StopCause::WriteError | StopCause::DiskFull, .. } => {}
        What::RecordingStopped { id, .. } => {
            recording(told, call, *id, RecordingState::Stopped);
            call.recordings.retain(|known| known.id != *id);
        }
        What::RecordingFailed { id, cause, .. } => failed(told, call, *id, cause),
        _ => {}
    }
}

/// Row 22: to the owner, who has asked for the recording, and who has asked for this.
fn recording(told: &mut Told<'_>, call: &Call, id: RecordingId, state: RecordingState) {
    let Some(known) = call.recordings.iter().find(|known| known.id == id) else { return };
    let asked = told.asked.map(|asked| asked.dn.clone());
    let recipients = [known.requester.clone(), asked, known.owner.clone()];
    private_info(told, call, recipients.into_iter().flatten().collect(), Some(id), state, None);
}

/// A recording that has no id had not begun, and its owner is not known: every DN of the call is told.
fn failed(told: &mut Told<'_>, call: &mut Call, id: Option<RecordingId>, cause: &'static str) {
    let asked = told.asked.map(|asked| asked.dn.clone());
    let known = id.map(|id| call.recordings.iter().position(|known| known.id == id));
    let known = known.map(|at| at.map(|at| call.recordings.remove(at)));
    let recipients: Vec<String> = match known {
        Some(Some(known)) => [known.requester, asked, known.owner].into_iter().flatten().collect(),
        Some(None) => asked.into_iter().collect(),
        None => asked.into_iter().chain(call.members.iter().filter_map(|member| member.who.dn.clone())).collect(),
    };
    private_info(told, call, recipients, id, RecordingState::Failed, Some(cause));
}

fn private_info(
    told: &mut Told<'_>,
    call: &Call,
    recipients: Vec<String>,
    id: Option<RecordingId>,
    state: RecordingState,
    code: Option<&'static str>,
) {
    for (at, dn) in recipients.iter().enumerate() {
        if recipients[..at].contains(dn) {
            continue;
        }
        let mut event = told.event(call, Name::EventPrivateInfo, dn);
        let member = call.members.iter().find(|member| member.who.dn.as_ref() == Some(dn));
        event.this_dn_role = member.map(|member| member.role);
        event.recording_id = id;
        event.recording_state = Some(state);
        event.code = code;
        told.events.push(event);
    }
}

/// What a phone would like is told to its own DN.
fn preference(told: &mut Told<'_>, call: &Call, leg: LegId, wish: &'static str) {
    let Some(member) = call.member(leg) else { return };
    let Some(dn) = &member.who.dn else { return };
    let mut event = told.event(call, Name::EventPrivateInfo, dn);
    event.this_dn_role = Some(member.role);
    event.record_preference = Some(wish);
    told.events.push(event);
}
