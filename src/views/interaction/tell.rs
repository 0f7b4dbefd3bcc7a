//! Carrying out what the tables say: who is told what.

use super::event::{Event, Name, Why};
use super::invitation::{Cue, Invitation, Line, Step, step};
use super::message::AgentId;
use super::parties::Member;
use super::{Interactions, InvitationId, Output};
use crate::id::CallUuid;

impl Interactions {
    /// Something happens to an invitation.
    pub(super) fn step(&mut self, id: InvitationId, cue: Cue) {
        let Some(invitation) = self.invitations.get_mut(&id) else { return };
        match step(&invitation.state, cue) {
            Step::To(state, row) => {
                invitation.state = state;
                self.deadlines.remove(&(invitation.deadline, id));
                self.tell_row(id, row, None);
            }
            Step::Ends(_, row, why) => {
                self.deadlines.remove(&(invitation.deadline, id));
                if let Some(known) = self.interactions.get_mut(&invitation.interaction) {
                    known.invitations.retain(|of| *of != id);
                }
                self.tell_row(id, row, why.as_ref());
                self.invitations.remove(&id);
            }
            Step::Stays => {}
        }
    }

    /// Tells a row of an invitation. `why` stands in what is bad news.
    pub(super) fn tell_row(&mut self, id: InvitationId, row: &[Line], why: Option<&Why>) {
        for line in row {
            let Some(invitation) = self.invitations.get(&id) else { return };
            let (to, event) = match *line {
                Line::Invited(name) => (Some(invitation.agent.clone()), self.to_invited(invitation, name)),
                Line::Inviter(name) => (Some(invitation.inviter.clone()), to_inviter(invitation, name)),
                Line::Report(name) => (None, to_reporting(invitation, name)),
            };
            let event = match (event.name, why) {
                (Name::EventError | Name::EventRevoked, Some(why)) => event.because(why.clone()),
                _ => event,
            };
            match to {
                Some(agent) => self.tell(&agent, event),
                None => self.out.push_back(Output::Report(event)),
            }
        }
    }

    fn to_invited(&self, invitation: &Invitation, name: Name) -> Event {
        let is_invite = name == Name::EventInvite;
        let known = self.interactions.get(&invitation.interaction);
        Event {
            ticket: Some(invitation.ticket.clone()),
            reference: invitation.answered_by.clone(),
            agent: is_invite.then(|| invitation.inviter.clone()),
            parties: known.filter(|_| is_invite).map(super::parties::Interaction::shown),
            ..Event::new(name, invitation.interaction.to_string())
        }
    }

    /// Tells an agent, when it is connected.
    pub(super) fn tell(&mut self, agent: &AgentId, event: Event) {
        if let Some(registered) = self.agents.get(agent) {
            self.out.push_back(Output::Tell(registered.connection, event));
        }
    }

    /// Whose party it is: who has come by an invitation, else who is registered with its DN.
    pub(super) fn agent_of(&self, party: &Member) -> Option<&AgentId> {
        let invited = party.invitation.and_then(|id| self.invitations.get(&id)).map(|invitation| &invitation.agent);
        invited.or_else(|| self.dns.get(party.dn.as_ref()?))
    }

    /// Tells all parties that are agents, and reporting, that a party has come or gone.
    pub(super) fn tell_of_party(&mut self, uuid: CallUuid, name: Name, party: &Member, except: Option<&AgentId>) {
        let Some(known) = self.interactions.get(&uuid) else { return };
        let event = Event {
            agent: self.agent_of(party).cloned(),
            party: party.shown.clone(),
            parties: Some(known.shown()),
            ..Event::new(name, uuid.to_string())
        };
        let mut to: Vec<AgentId> = known.parties.iter().filter_map(|party| self.agent_of(party)).cloned().collect();
        to.extend(event.agent.clone());
        to.sort_unstable();
        to.dedup();
        for agent in to.iter().filter(|agent| Some(*agent) != except) {
            self.tell(agent, event.clone());
        }
        self.out.push_back(Output::Report(event));
    }
}

fn to_inviter(invitation: &Invitation, name: Name) -> Event {
    Event {
        reference: invitation.reference.clone(),
        agent: Some(invitation.agent.clone()),
        ..Event::new(name, invitation.interaction.to_string())
    }
}

fn to_reporting(invitation: &Invitation, name: Name) -> Event {
    Event {
        agent: Some(invitation.agent.clone()),
        invited_by: Some(invitation.inviter.clone()),
        ..Event::new(name, invitation.interaction.to_string())
    }
}
