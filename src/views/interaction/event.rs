//! What agents and reporting are told (spec/events.md §3).
//!
//! **JSON.** An attribute that nothing is known of is left out. `seq` and `time` are added by who sends or keeps the event.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::message::{AgentId, Ticket};
use crate::call::fact::Origin;

/// The name of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Name {
    /// To the invited agent: `TicketID` answers it, `AgentID` is who invites.
    EventInvite,
    /// To reporting: `AgentID` is invited by `InvitedBy`.
    EventAgentInvited,
    /// To who has asked for it: it is done. To who has invited: `AgentID` has accepted.
    EventAck,
    /// `Party` has joined; `AgentID` when it is an agent. `Parties` are all from now on.
    EventPartyAdded,
    /// To reporting: `AgentID` does not want to be invited.
    EventRejected,
    /// To the invited agent: the ticket is no longer good, because of `Code`.
    EventRevoked,
    /// `Party` has left; `AgentID` when it is an agent. `Parties` are all from now on.
    EventPartyRemoved,
    /// To reporting: the interaction is over, and goes back to `Queue`.
    EventPlacedInQueue,
    /// To reporting: the interaction is over, and goes back to `Workbin`.
    EventPlacedInWorkbin,
    /// What was asked is refused or has failed, because of `Code`.
    EventError,
}

impl Name {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EventInvite => "EventInvite",
            Self::EventAgentInvited => "EventAgentInvited",
            Self::EventAck => "EventAck",
            Self::EventPartyAdded => "EventPartyAdded",
            Self::EventRejected => "EventRejected",
            Self::EventRevoked => "EventRevoked",
            Self::EventPartyRemoved => "EventPartyRemoved",
            Self::EventPlacedInQueue => "EventPlacedInQueue",
            Self::EventPlacedInWorkbin => "EventPlacedInWorkbin",
            Self::EventError => "EventError",
        }
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// `event`.
    #[serde(rename = "event")]
    pub name: Name,
    /// `InteractionID`: the CallUUID; of an error as it was asked for.
    #[serde(rename = "InteractionID", skip_serializing_if = "Option::is_none")]
    pub interaction: Option<String>,
    /// `ReferenceID` of the request that it answers, only to who has asked.
    #[serde(rename = "ReferenceID", skip_serializing_if = "Option::is_none", serialize_with = "shared_text")]
    pub reference: Option<Arc<str>>,
    /// `TicketID`, only to the invited agent.
    #[serde(rename = "TicketID", skip_serializing_if = "Option::is_none")]
    pub ticket: Option<Ticket>,
    /// `AgentID`: the other agent, or who has joined, left, was invited.
    #[serde(rename = "AgentID", skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentId>,
    /// `InvitedBy`: the agent who invites; to reporting.
    #[serde(rename = "InvitedBy", skip_serializing_if = "Option::is_none")]
    pub invited_by: Option<AgentId>,
    /// `Party`: the DN or number of who has joined or left.
    #[serde(rename = "Party", skip_serializing_if = "Option::is_none")]
    pub party: Option<String>,
    /// `Parties`: the DNs and numbers of all parties, in the order of their joining.
    #[serde(rename = "Parties", skip_serializing_if = "Option::is_none")]
    pub parties: Option<Vec<String>>,
    /// `Queue` or `Workbin`: its name.
    #[serde(flatten, serialize_with = "place")]
    pub origin: Option<Origin>,
    /// `Code`: stable, for programs. [`Code`], or what call control says.
    #[serde(rename = "Code", skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// `Reason`, for people.
    #[serde(rename = "Reason", skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Event {
    /// An event that says nothing but what happened, and where.
    pub fn new(name: Name, interaction: impl Into<Option<String>>) -> Self {
        Self {
            name,
            interaction: interaction.into(),
            reference: None,
            ticket: None,
            agent: None,
            invited_by: None,
            party: None,
            parties: None,
            origin: None,
            code: None,
            reason: None,
        }
    }

    /// `Code` and `Reason` together.
    pub fn because(mut self, why: Why) -> Self {
        (self.code, self.reason) = (Some(why.code), Some(why.reason));
        self
    }
}

/// Why something is refused, has failed or is revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// For programs.
    pub code: &'static str,
    /// For people.
    pub reason: String,
}

/// The reasons that the interaction model has of its own; call control's stand beside them under their own names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The message is not of the form that is asked for.
    BadRequest,
    /// The connection is not registered any more.
    NotRegistered,
    /// No live interaction has that id.
    UnknownInteraction,
    /// No agent of that name is registered.
    UnknownAgent,
    /// The agent is no party of the interaction.
    NotAParty,
    /// The agent to be invited is a party already.
    AlreadyAParty,
    /// It has an open invitation into the interaction.
    AlreadyInvited,
    /// The agent's leave is under way.
    AlreadyLeaving,
    /// As many invitations are open as may be.
    Limit,
    /// No open invitation of the agent has that ticket.
    UnknownTicket,
    /// The agent owns a recording that is required.
    RecordingRequired,
    /// The invited agent does not want to.
    Rejected,
    /// The invited agent has not answered in time.
    TimedOut,
    /// Who has invited has left the interaction.
    InviterLeft,
    /// The interaction has ended.
    InteractionOver,
    /// The server stops.
    Unavailable,
}

impl Code {
    /// `unknown-ticket`, … .
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    pub(super) fn why(self) -> Why {
        let (code, reason) = self.row();
        Why { code, reason: reason.to_owned() }
    }

    fn row(self) -> (&'static str, &'static str) {
        match self {
            Self::BadRequest => ("bad-request", "the message is not understood"),
            Self::NotRegistered => ("not-registered", "the agent has registered over another connection"),
            Self::UnknownInteraction => ("unknown-interaction", "no live interaction has this InteractionID"),
            Self::UnknownAgent => ("unknown-agent", "no agent is registered under this AgentID"),
            Self::NotAParty => ("not-a-party", "the agent is no party of this interaction"),
            Self::AlreadyAParty => ("already-a-party", "the agent is a party of this interaction already"),
            Self::AlreadyInvited => ("already-invited", "the agent has been invited into this interaction"),
            Self::AlreadyLeaving => ("already-leaving", "the agent is leaving this interaction"),
            Self::Limit => ("limit", "as many invitations are open as may be"),
            Self::UnknownTicket => ("unknown-ticket", "no open invitation of this agent has this TicketID"),
            Self::RecordingRequired => ("recording-required", "the agent owns a recording that is required"),
            Self::Rejected => ("rejected", "the agent does not want to join"),
            Self::TimedOut => ("timed-out", "the agent has not answered in time"),
            Self::InviterLeft => ("inviter-left", "who has invited has left the interaction"),
            Self::InteractionOver => ("interaction-over", "the interaction is over"),
            Self::Unavailable => ("unavailable", "the server is stopping"),
        }
    }
}

fn shared_text<S: Serializer>(text: &Option<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
    text.as_deref().serialize(serializer)
}

fn place<S: Serializer>(origin: &Option<Origin>, serializer: S) -> Result<S::Ok, S::Error> {
    let named = origin.as_ref().map(|origin| match origin {
        Origin::Queue(name) => ("Queue", &**name),
        Origin::Workbin(name) => ("Workbin", &**name),
    });
    serializer.collect_map(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_named_alike_in_json_and_in_code() {
        for name in [
            Name::EventInvite,
            Name::EventAgentInvited,
            Name::EventAck,
            Name::EventPartyAdded,
            Name::EventRejected,
            Name::EventRevoked,
            Name::EventPartyRemoved,
            Name::EventPlacedInQueue,
            Name::EventPlacedInWorkbin,
            Name::EventError,
        ] {
            assert_eq!(serde_json::json!(name), name.as_str());
        }
    }

    #[test]
    fn what_is_unknown_is_left_out_and_a_place_stands_under_its_kind() {
        let error = Event::new(Name::EventError, None).because(Code::Limit.why());
        let json = r#"{"event":"EventError","Code":"limit","Reason":"as many invitations are open as may be"}"#;
        assert_eq!(serde_json::to_string(&error).unwrap(), json);
        let mut placed = Event::new(Name::EventPlacedInQueue, "i".to_owned());
        placed.origin = Some(Origin::Queue("sales".into()));
        let json = r#"{"event":"EventPlacedInQueue","InteractionID":"i","Queue":"sales"}"#;
        assert_eq!(serde_json::to_string(&placed).unwrap(), json);
        placed.origin = Some(Origin::Workbin("anna".into()));
        assert!(serde_json::to_string(&placed).unwrap().ends_with(r#","Workbin":"anna"}"#));
    }
}
