//! What facts mean for interactions: who joins, who leaves, and where a finished one goes.

use super::event::{Event, Name, Why};
use super::invitation::Cue;
use super::message::AgentId;
use super::parties::{Change, Interaction, Leaving, Member};
use super::{Interactions, InvitationId, Output};
use crate::call::fact::{Fact, Origin, Party, ReleaseCause, What};
use crate::id::{CallUuid, ConnId, LegId};

impl Interactions {
    pub(super) fn fact(&mut self, fact: &Fact) {
        self.recordings(&fact.what);
        let Some(conn_id) = fact.conn_id else { return };
        match &fact.what {
            What::CallStarted { call_uuid, leg, caller, origin, .. } => {
                return self.started(conn_id, *call_uuid, Member::new(*leg, caller), origin.clone());
            }
            // The first one in a room: it talks to nobody yet, and is in it all the same.
            What::RoomEntered { call_uuid, leg, party, opened: true, .. } => {
                let first = Member::new(*leg, party);
                self.started(conn_id, *call_uuid, first.clone(), None);
                if let Some(known) = self.interactions.get_mut(call_uuid) {
                    known.answered(conn_id, first);
                }
                return;
            }
            _ => {}
        }
        let Some(uuid) = self.calls.get(&conn_id).copied() else { return };
        let Some(known) = self.interactions.get_mut(&uuid) else { return };
        match &fact.what {
            What::Answered { leg, party } => known.answered(conn_id, Member::new(*leg, party)),
            What::PartyInvited { to, observer: false, .. } => known.calling.extend(to.dn.clone()),
            What::PartyNotAdded { to, cause, .. } => self.not_added(uuid, to, *cause),
            What::RoomEntered { leg, party, .. } => known.joined(conn_id, Member::new(*leg, party)),
            What::PartyAdded { leg, party, consult, .. } => {
                known.joined(conn_id, Member::new(*leg, party));
                self.absorb(uuid, *consult);
            }
            What::Transferred { by, target, party, consult, .. } => {
                known.joined(conn_id, Member::new(*target, party));
                known.left(conn_id, *by);
                self.absorb(uuid, *consult);
            }
            What::PartyDeleted { leg, .. } | What::PartyLeft { leg } => known.left(conn_id, *leg),
            What::Replaced { leg, by, party } => known.replaced(conn_id, *leg, Member::new(*by, party)),
            What::Released { by, .. } => return self.released(uuid, conn_id, *by),
            // Nothing that changes who is in it.
            What::CallStarted { .. }
            | What::Refused { .. }
            | What::NotMade { .. }
            | What::Ringing { .. }
            | What::Held { .. }
            | What::Retrieved { .. }
            | What::TransferStarted { .. }
            | What::TransferFailed { .. }
            | What::PartyInvited { observer: true, .. }
            | What::MuteChanged { .. }
            | What::ListenChanged { .. }
            | What::Monitoring { .. }
            | What::ObserverJoined { .. }
            | What::ObserverLeft { .. }
            | What::MonitorMode { .. }
            | What::Redirected { .. }
            | What::Preference { .. }
            | What::RecordingStarted { .. }
            | What::RecordingBegun { .. }
            | What::RecordingPaused { .. }
            | What::RecordingResumed { .. }
            | What::OwnerChanged { .. }
            | What::RecordingStopped { .. }
            | What::RecordingPublished { .. }
            | What::RecordingFailed { .. }
            | What::Warning { .. } => return,
        }
        self.tell_changes(uuid, None);
    }

    /// Owners of recordings that are required, wherever they are: a recording goes along when calls become one.
    fn recordings(&mut self, what: &What) {
        match what {
            What::RecordingStarted { id, owner, required: true, .. } => _ = self.required.insert(*id, *owner),
            What::OwnerChanged { id, owner } => {
                self.required.entry(*id).and_modify(|known| *known = *owner);
            }
            What::RecordingStopped { id, .. } | What::RecordingFailed { id: Some(id), .. } => {
                self.required.remove(id);
            }
            _ => {}
        }
    }

    /// A call begins: an interaction, or a consult call of one.
    fn started(&mut self, conn_id: ConnId, uuid: CallUuid, caller: Member, origin: Option<Origin>) {
        let has_room = self.interactions.len() < self.options.max_interactions;
        let is_known = match self.interactions.get_mut(&uuid) {
            Some(known) => known.add_call(conn_id, caller),
            None if has_room => {
                self.interactions.insert(uuid, Interaction::new(conn_id, caller, origin));
                true
            }
            None => false,
        };
        if is_known {
            self.calls.insert(conn_id, uuid);
        }
    }

    fn not_added(&mut self, uuid: CallUuid, to: &Party, cause: ReleaseCause) {
        let (Some(known), Some(dn)) = (self.interactions.get_mut(&uuid), &to.dn) else { return };
        let Some(at) = known.calling.iter().position(|called| called == dn) else { return };
        known.calling.remove(at);
        if known.calling.contains(dn) {
            // It is called twice, and the other call goes on.
            return;
        }
        let why = Why { code: cause.label(), reason: "the agent's DN was not reached".to_owned() };
        for id in self.open(uuid, |invitation| invitation.dn == *dn) {
            self.step(id, Cue::NotReached(why.clone()));
        }
    }

    /// A call has become a part of this interaction. Of another interaction it was the last: that is over, its parties
    /// are in this one.
    fn absorb(&mut self, into: CallUuid, conn_id: Option<ConnId>) {
        let Some((conn_id, uuid)) = conn_id.and_then(|id| Some((id, self.calls.remove(&id)?))) else { return };
        let Some(known) = self.interactions.get_mut(&uuid) else { return };
        known.end_call(conn_id);
        if uuid == into {
            return;
        }
        let origin = known.origin.clone();
        self.tell_changes(uuid, None);
        if self.interactions.get(&uuid).is_some_and(|known| known.conn_id().is_none()) {
            self.forget(uuid);
            if let Some(known) = self.interactions.get_mut(&into) {
                known.origin = known.origin.take().or(origin);
            }
        }
    }

    /// `by`: the leg that has ended it.
    fn released(&mut self, uuid: CallUuid, conn_id: ConnId, by: Option<LegId>) {
        self.calls.remove(&conn_id);
        let Some(known) = self.interactions.get_mut(&uuid) else { return };
        let began = !known.parties.is_empty();
        known.end_call(conn_id);
        if known.conn_id().is_some() {
            return self.tell_changes(uuid, by);
        }
        let origin = known.origin.clone().filter(|_| began);
        for id in self.open(uuid, |_| true) {
            self.step(id, Cue::Over);
        }
        self.tell_changes(uuid, by);
        self.forget(uuid);
        if let Some(origin) = origin {
            let name = match &origin {
                Origin::Queue(_) => Name::EventPlacedInQueue,
                Origin::Workbin(_) => Name::EventPlacedInWorkbin,
            };
            let placed = Event { origin: Some(origin), ..Event::new(name, uuid.to_string()) };
            self.out.push_back(Output::Report(placed));
        }
    }

    /// An interaction is over. Its parties have been told.
    fn forget(&mut self, uuid: CallUuid) {
        for id in self.open(uuid, |_| true) {
            self.step(id, Cue::Over);
        }
        self.interactions.remove(&uuid);
    }

    /// Tells who has joined and left since it was told last, and moves the invitations along.
    fn tell_changes(&mut self, uuid: CallUuid, by: Option<LegId>) {
        let leaver = |known: &Interaction| {
            let leaves = |agent: &AgentId| known.leaving.iter().any(|leaving| leaving.agent == *agent);
            known.parties.iter().find(|party| self.agent_of(party).is_some_and(leaves)).map(|party| party.leg)
        };
        let first = by.or_else(|| self.interactions.get(&uuid).and_then(leaver));
        let Some(known) = self.interactions.get_mut(&uuid) else { return };
        for change in known.changes(first) {
            match change {
                Change::Added(party) => self.added(uuid, party),
                Change::Removed(party) => self.removed(uuid, &party),
            }
        }
    }

    fn added(&mut self, uuid: CallUuid, mut party: Member) {
        if let Some(dn) = &party.dn {
            party.invitation = self.open(uuid, |invitation| invitation.dn == *dn).first().copied();
        }
        let Some(known) = self.interactions.get_mut(&uuid) else { return };
        if let Some(at) = known.calling.iter().position(|called| Some(called) == party.dn.as_ref()) {
            known.calling.remove(at);
        }
        known.parties.push(party.clone());
        if let Some(id) = party.invitation {
            self.step(id, Cue::Added);
        }
        self.tell_of_party(uuid, Name::EventPartyAdded, &party, None);
    }

    /// Who has asked for it gets its EventAck.
    fn removed(&mut self, uuid: CallUuid, party: &Member) {
        let agent = self.agent_of(party).cloned();
        let Some(known) = self.interactions.get_mut(&uuid) else { return };
        known.parties.retain(|told| told.leg != party.leg);
        let asked = known.leaving.iter().position(|leaving| Some(&leaving.agent) == agent.as_ref());
        let asked = asked.map(|at| known.leaving.remove(at));
        if let Some(Leaving { agent, reference }) = &asked {
            let ack = Event { reference: reference.clone(), ..Event::new(Name::EventAck, uuid.to_string()) };
            self.tell(agent, ack);
        }
        for id in self.open(uuid, |invitation| Some(&invitation.inviter_dn) == party.dn.as_ref()) {
            self.step(id, Cue::InviterLeft);
        }
        self.tell_of_party(uuid, Name::EventPartyRemoved, party, asked.as_ref().map(|leaving| &leaving.agent));
        if let Some(id) = party.invitation {
            self.step(id, Cue::Gone);
        }
    }

    /// The open invitations into an interaction that are meant.
    fn open(&self, uuid: CallUuid, which: impl Fn(&super::Invitation) -> bool) -> Vec<InvitationId> {
        let known = self.interactions.get(&uuid);
        let all = known.into_iter().flat_map(|known| &known.invitations).copied();
        let is_meant = |id: &InvitationId| self.invitations.get(id).is_some_and(|one| one.is_open() && which(one));
        all.filter(is_meant).collect()
    }
}
