//! What agents ask, and what call control answers.

use std::sync::Arc;
use std::time::Instant;

use rand::RngExt;
use uuid::Uuid;

use super::event::{Code, Event, Name, Why};
use super::invitation::{Cue, ISSUED, Invitation, State};
use super::message::{AgentId, ConnectionId, Message, Ticket};
use super::parties::{Interaction, Leaving, Member};
use super::{AskId, Asked, Interactions, InvitationId, MAX_INVITATIONS, MAX_INVITATIONS_OF_AGENT, Output};
use crate::call::request::{Accepted, Ask, Denied, Request};
use crate::id::{CallUuid, ConnId};

impl Interactions {
    /// A message is refused with an error to its connection, and then nothing has changed.
    pub(super) fn message(&mut self, from: ConnectionId, reference: Option<Arc<str>>, message: Message, now: Instant) {
        let interaction = match &message {
            Message::Conference { interaction, .. } | Message::Leave { interaction } => Some(interaction.clone()),
            Message::Accept { .. } | Message::Reject { .. } => None,
        };
        let done = match (self.connections.get(&from).cloned(), message) {
            (None, _) => Err(Code::NotRegistered),
            (Some(inviter), Message::Conference { interaction, agent }) => {
                self.invite(inviter, reference.clone(), &interaction, &agent, now)
            }
            (Some(agent), Message::Accept { ticket }) => self.accept(&agent, reference.clone(), &ticket),
            (Some(agent), Message::Reject { ticket }) => self.reject(&agent, reference.clone(), &ticket),
            (Some(agent), Message::Leave { interaction }) => self.leave(agent, reference.clone(), &interaction),
        };
        if let Err(code) = done {
            let error = Event { reference, ..Event::new(Name::EventError, interaction) };
            self.out.push_back(Output::Tell(from, error.because(code.why())));
        }
    }

    fn invite(
        &mut self,
        inviter: AgentId,
        reference: Option<Arc<str>>,
        interaction: &str,
        invited: &str,
        now: Instant,
    ) -> Result<(), Code> {
        let (uuid, known, party) = self.place_of(interaction, &inviter)?;
        let inviter_dn = party.dn.clone().ok_or(Code::NotAParty)?;
        let (agent, dn) = AgentId::new(invited)
            .and_then(|agent| self.agents.get_key_value(&agent))
            .map(|(agent, registered)| (agent.clone(), registered.dn.clone()))
            .ok_or(Code::UnknownAgent)?;
        if known.parties.iter().any(|party| self.agent_of(party) == Some(&agent) || party.dn.as_ref() == Some(&dn)) {
            return Err(Code::AlreadyAParty);
        }
        let open = || self.invitations.values().filter(|one| one.is_open());
        if open().any(|one| one.interaction == uuid && one.agent == agent) {
            return Err(Code::AlreadyInvited);
        }
        if open().count() >= MAX_INVITATIONS
            || open().filter(|one| one.agent == agent).count() >= MAX_INVITATIONS_OF_AGENT
            || open().filter(|one| one.inviter == inviter).count() >= MAX_INVITATIONS_OF_AGENT
        {
            return Err(Code::Limit);
        }
        let id = InvitationId(self.number());
        let invitation = Invitation {
            state: State::Invited,
            interaction: uuid,
            ticket: Ticket::new(self.random.random()),
            deadline: now + self.options.invitation_timeout,
            agent,
            dn,
            inviter,
            inviter_dn,
            reference,
            answered_by: None,
        };
        self.deadlines.insert((invitation.deadline, id));
        self.invitations.insert(id, invitation);
        if let Some(known) = self.interactions.get_mut(&uuid) {
            known.invitations.push(id);
        }
        self.tell_row(id, ISSUED, None);
        Ok(())
    }

    fn accept(&mut self, agent: &AgentId, reference: Option<Arc<str>>, ticket: &str) -> Result<(), Code> {
        let id = self.answers(agent, reference, ticket)?;
        let invitation = self.invitations.get(&id).ok_or(Code::UnknownTicket)?;
        // An invitation lives no longer than its interaction, and that no longer than its last call.
        let known = self.interactions.get(&invitation.interaction).ok_or(Code::UnknownTicket)?;
        let conn_id = known.conn_id().ok_or(Code::UnknownTicket)?;
        let called = known.calling.contains(&invitation.dn);
        let request = Request {
            conn_id,
            this_dn: invitation.inviter_dn.clone(),
            reference: invitation.reference.clone(),
            ask: Ask::SingleStepConference { to: invitation.dn.clone(), hold: false },
        };
        self.step(id, Cue::Accept { called });
        if !called {
            self.ask(Asked::Accept(id), request);
        }
        Ok(())
    }

    fn reject(&mut self, agent: &AgentId, reference: Option<Arc<str>>, ticket: &str) -> Result<(), Code> {
        let id = self.answers(agent, reference, ticket)?;
        self.step(id, Cue::Reject);
        Ok(())
    }

    /// The agent's invitation that has this ticket and waits for an answer. This is it.
    fn answers(&mut self, agent: &AgentId, reference: Option<Arc<str>>, ticket: &str) -> Result<InvitationId, Code> {
        let own = self.invitations.iter_mut().filter(|(_, one)| one.agent == *agent && one.state == State::Invited);
        // All are compared: the time tells nothing of which one it is.
        let found = own.filter(|(_, one)| one.ticket.is(ticket)).last();
        let (id, invitation) = found.ok_or(Code::UnknownTicket)?;
        invitation.answered_by = reference;
        Ok(*id)
    }

    /// The agent leaves, and so it does the consult calls that it has beside the interaction.
    fn leave(&mut self, agent: AgentId, reference: Option<Arc<str>>, interaction: &str) -> Result<(), Code> {
        let (uuid, known, party) = self.place_of(interaction, &agent)?;
        let (Some(dn), Some(conn_id)) = (party.dn.clone(), known.conn_id()) else { return Err(Code::NotAParty) };
        if known.leaving.iter().any(|leaving| leaving.agent == agent) {
            return Err(Code::AlreadyLeaving);
        }
        if known.legs(party).any(|leg| self.required.values().any(|owner| *owner == leg)) {
            return Err(Code::RecordingRequired);
        }
        let consultations: Vec<ConnId> = known.consultations(&dn).collect();
        let release =
            |conn_id| Request { conn_id, this_dn: dn.clone(), reference: reference.clone(), ask: Ask::ReleaseCall };
        let (consultations, last) = (consultations.into_iter().map(release).collect::<Vec<_>>(), release(conn_id));
        if let Some(known) = self.interactions.get_mut(&uuid) {
            known.leaving.push(Leaving { agent: agent.clone(), reference });
        }
        consultations.into_iter().for_each(|request| self.ask(Asked::Consultation, request));
        self.ask(Asked::Leave(uuid, agent), last);
        Ok(())
    }

    /// Call control has answered. `None`: it will not.
    pub(super) fn answered(&mut self, id: AskId, answer: Option<Result<Accepted, Denied>>) {
        let Some(asked) = self.asked.remove(&id) else { return };
        let refused = match answer {
            Some(Ok(_)) => None,
            Some(Err(denied)) => Some(Why { code: denied.code.as_str(), reason: denied.detail }),
            None => Some(Code::Unavailable.why()),
        };
        match asked {
            Asked::Accept(id) => self.conference_answered(id, refused),
            Asked::Leave(uuid, agent) => self.leave_answered(uuid, &agent, refused),
            Asked::Consultation => {}
        }
    }

    fn conference_answered(&mut self, id: InvitationId, refused: Option<Why>) {
        let Some(invitation) = self.invitations.get(&id) else { return };
        let called =
            self.interactions.get(&invitation.interaction).is_some_and(|known| known.calling.contains(&invitation.dn));
        let cue = refused.map_or(Cue::Taken { called }, Cue::Refused);
        self.step(id, cue);
    }

    /// Where the agent's leg has gone already, that was told.
    fn leave_answered(&mut self, uuid: CallUuid, agent: &AgentId, refused: Option<Why>) {
        let Some(known) = self.interactions.get_mut(&uuid) else { return };
        let Some(at) = known.leaving.iter().position(|leaving| leaving.agent == *agent) else { return };
        let Leaving { reference, .. } = known.leaving.remove(at);
        let name = if refused.is_some() { Name::EventError } else { Name::EventAck };
        let event = Event { reference, ..Event::new(name, uuid.to_string()) };
        self.tell(agent, refused.map_or_else(|| event.clone(), |why| event.clone().because(why)));
    }

    /// The interaction of that id, and the agent's place in it.
    fn place_of(&self, interaction: &str, agent: &AgentId) -> Result<(CallUuid, &Interaction, &Member), Code> {
        let uuid = Uuid::try_parse(interaction).map(CallUuid).map_err(|_| Code::UnknownInteraction)?;
        let known = self.interactions.get(&uuid).ok_or(Code::UnknownInteraction)?;
        let party = known.parties.iter().find(|party| self.agent_of(party) == Some(agent));
        Ok((uuid, known, party.ok_or(Code::NotAParty)?))
    }

    fn ask(&mut self, asked: Asked, request: Request) {
        let id = AskId(self.number());
        self.asked.insert(id, asked);
        self.out.push_back(Output::Ask(id, request));
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}
