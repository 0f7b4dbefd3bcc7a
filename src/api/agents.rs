//! `GET /v1/agents/{agent}/ws`: an agent's desktop (spec/events.md §3).
//!
//! Every text frame of the client is one request, every text frame of ours one event. What is not understood is answered
//! with EventError and the connection goes on; a frame of more than 4,096 bytes ends it. An agent that registers again
//! takes the place of its old connection, which is closed with 4001.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::{IntoParams, ToSchema};

use super::http::Shared;
use super::problem::{self, Kind, Problem};
use super::requests::MAX_CHARS;
use super::socket::{self, Conversation, Farewell, Heard};
use super::{AgentLine, LineEnd};
use crate::call::request::Code;
use crate::views::interaction::NotRegistered;
use crate::views::interaction::message::{AgentId, Message};

/// The connection of an agent that has registered again.
const REPLACED: Farewell = Farewell { code: 4001, reason: "the agent has registered over another connection" };

/// A desktop that does not read what it is told.
const TOO_SLOW: Farewell = Farewell { code: 4002, reason: "too many events have not been read" };

/// Whose desktop it is.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AgentQuery {
    /// The agent's own DN: a configured number, which no other connected agent has.
    pub dn: String,
}

/// What a desktop sends.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(tag = "request", deny_unknown_fields)]
pub enum AgentRequest {
    /// Invites another registered agent into an interaction of the sender's.
    #[serde(rename = "RequestConference")]
    Conference {
        /// Stands in the events that answer it.
        #[serde(rename = "ReferenceID", default, skip_serializing_if = "Option::is_none")]
        reference_id: Option<String>,
        /// The CallUUID.
        #[serde(rename = "InteractionID")]
        interaction_id: String,
        /// Who is invited.
        #[serde(rename = "AgentID")]
        agent_id: String,
    },
    /// Accepts an invitation: the sender's DN is called into the conference.
    #[serde(rename = "RequestAccept")]
    Accept {
        /// Stands in the events that answer it.
        #[serde(rename = "ReferenceID", default, skip_serializing_if = "Option::is_none")]
        reference_id: Option<String>,
        /// Of the EventInvite.
        #[serde(rename = "TicketID")]
        ticket_id: String,
    },
    /// Rejects an invitation.
    #[serde(rename = "RequestReject")]
    Reject {
        /// Stands in the events that answer it.
        #[serde(rename = "ReferenceID", default, skip_serializing_if = "Option::is_none")]
        reference_id: Option<String>,
        /// Of the EventInvite.
        #[serde(rename = "TicketID")]
        ticket_id: String,
    },
    /// Leaves an interaction: the sender's leg is released.
    #[serde(rename = "RequestLeaveInteraction")]
    Leave {
        /// Stands in the events that answer it.
        #[serde(rename = "ReferenceID", default, skip_serializing_if = "Option::is_none")]
        reference_id: Option<String>,
        /// The CallUUID.
        #[serde(rename = "InteractionID")]
        interaction_id: String,
    },
}

impl AgentRequest {
    /// Reads a frame. `Err`: what is wrong with it, for people.
    fn read(text: &str) -> Result<(Option<String>, Message), String> {
        // Only an object: serde would take an array, too, whose first item is the tag.
        let object: Map<String, Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let request: Self = serde_json::from_value(Value::Object(object)).map_err(|error| error.to_string())?;
        let (reference, message) = match request {
            Self::Conference { reference_id, interaction_id, agent_id } => {
                (reference_id, Message::Conference { interaction: interaction_id, agent: agent_id })
            }
            Self::Accept { reference_id, ticket_id } => (reference_id, Message::Accept { ticket: ticket_id }),
            Self::Reject { reference_id, ticket_id } => (reference_id, Message::Reject { ticket: ticket_id }),
            Self::Leave { reference_id, interaction_id } => {
                (reference_id, Message::Leave { interaction: interaction_id })
            }
        };
        let named = match &message {
            Message::Conference { interaction, agent } => vec![("InteractionID", interaction), ("AgentID", agent)],
            Message::Accept { ticket } | Message::Reject { ticket } => vec![("TicketID", ticket)],
            Message::Leave { interaction } => vec![("InteractionID", interaction)],
        };
        let texts = named.into_iter().chain(reference.as_ref().map(|reference| ("ReferenceID", reference)));
        for (name, text) in texts {
            if text.trim().is_empty() || text.chars().count() > MAX_CHARS {
                return Err(format!("{name} has 1 to {MAX_CHARS} characters, not all of them white space"));
            }
        }
        Ok((reference, message))
    }
}

/// A desktop's side of the conversation.
struct Desktop {
    line: Box<dyn AgentLine>,
    stopping: watch::Receiver<bool>,
    /// Held for as long as it is connected.
    _permit: OwnedSemaphorePermit,
}

impl Conversation for Desktop {
    async fn next(&mut self) -> Result<String, Farewell> {
        let end = tokio::select! {
            biased;
            next = self.line.next() => match next {
                Ok(event) => return Ok(event),
                Err(end) => end,
            },
            // A sender that is gone means the same.
            _ = self.stopping.wait_for(|stopping| *stopping) => LineEnd::Stopping,
        };
        Err(match end {
            LineEnd::Replaced => REPLACED,
            LineEnd::TooSlow => TOO_SLOW,
            LineEnd::Stopping => Farewell::STOPPING,
        })
    }

    fn hear(&mut self, heard: Heard) -> Result<(), Farewell> {
        let read = match heard {
            Heard::Text(text) => AgentRequest::read(&text),
            Heard::Binary => Err("a request is a text frame".to_owned()),
        };
        match read {
            Ok((reference, message)) => self.line.ask(reference.map(Into::into), message),
            Err(reason) => self.line.malformed(reason),
        }
        Ok(())
    }
}

/// An agent's desktop: requests one way, events the other, each a text frame of JSON.
///
/// The agent is registered under `agent`, with its DN, for as long as it is connected; what it does by its phone goes on
/// without. A second connection of the same agent replaces the first, which is closed with 4001; open invitations are told
/// again. Events: `{"seq", "time", "event", "InteractionID", …}`; `seq` counts the events of the connection from 1. A
/// desktop that does not read what it is told is closed with 4002; when the server stops it says 1001. What is not understood is
/// answered with EventError. Browsers must come from the same origin.
#[utoipa::path(
    get,
    path = "/v1/agents/{agent}/ws",
    operation_id = "agentDesktop",
    tag = "agents",
    params(
        ("agent" = String, Path, description = "the AgentID: 1 to 64 characters without white space"),
        AgentQuery,
    ),
    responses(
        (status = 101, description = "registered; the client sends AgentRequest objects", body = AgentRequest),
        (status = 400, description = "bad-request", body = problem::Body, content_type = "application/problem+json"),
        (status = 404, description = "unknown-dn", body = problem::Body, content_type = "application/problem+json"),
        (status = 409, description = "dn-in-use", body = problem::Body, content_type = "application/problem+json"),
        (status = 503, description = "too-many-streams, limit", body = problem::Body,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn desktop(
    State(shared): State<Shared>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<AgentQuery>, QueryRejection>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let Path(agent) = path.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let agent = AgentId::new(&agent).ok_or_else(|| {
        let most = AgentId::MAX_CHARS;
        Problem::bad_request(format!("an agent's name has 1 to {most} characters and no white space"))
    })?;
    let Query(AgentQuery { dn }) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let upgrade = upgrade.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let permit = shared.stream_permit()?;
    let line = shared.backend.agent(agent, dn).map_err(|refused| match refused {
        NotRegistered::UnknownDn => Problem::new(Kind::Refused(Code::UnknownDn), "dn is no configured number"),
        NotRegistered::DnInUse => Problem::new(Kind::DnInUse, "another agent is connected with this dn"),
        NotRegistered::Limit => Problem::new(Kind::Refused(Code::Limit), "as many agents are connected as may be"),
    })?;
    Ok(socket::open(upgrade, Desktop { line, stopping: shared.stopping.clone(), _permit: permit }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_they_are_documented() {
        let text = r#"{"request": "RequestConference", "ReferenceID": "r", "InteractionID": "i", "AgentID": "ben"}"#;
        let message = Message::Conference { interaction: "i".into(), agent: "ben".into() };
        assert_eq!(AgentRequest::read(text), Ok((Some("r".into()), message)));
        let text = r#"{"request": "RequestReject", "TicketID": "t"}"#;
        assert_eq!(AgentRequest::read(text), Ok((None, Message::Reject { ticket: "t".into() })));
        let text = r#"{"TicketID": "t", "request": "RequestAccept"}"#;
        assert_eq!(AgentRequest::read(text), Ok((None, Message::Accept { ticket: "t".into() })));
        let text = r#"{"request": "RequestLeaveInteraction", "InteractionID": "i"}"#;
        assert_eq!(AgentRequest::read(text), Ok((None, Message::Leave { interaction: "i".into() })));
    }

    #[test]
    fn what_is_wrong_with_a_request_is_said() {
        let long = format!(r#"{{"request": "RequestAccept", "TicketID": "{}"}}"#, "x".repeat(MAX_CHARS + 1));
        for (wrong, reason) in [
            ("", "EOF"),
            ("[]", "expected a map"),
            (r#"["RequestAccept", null, "t"]"#, "expected a map"),
            ("{}", "missing field `request`"),
            (r#"{"request": "RequestAgent"}"#, "unknown variant `RequestAgent`"),
            (r#"{"request": "RequestAccept"}"#, "missing field `TicketID`"),
            (r#"{"request": "RequestAccept", "TicketID": 7}"#, "expected a string"),
            (r#"{"request": "RequestAccept", "TicketID": "t", "Ticket": "t"}"#, "unknown field `Ticket`"),
            (r#"{"request": "RequestAccept", "TicketID": " "}"#, "TicketID has 1 to 128 characters"),
            (r#"{"request": "RequestAccept", "TicketID": "t", "ReferenceID": ""}"#, "ReferenceID has 1 to 128"),
            (long.as_str(), "TicketID has 1 to 128 characters"),
        ] {
            let found = AgentRequest::read(wrong).unwrap_err();
            assert!(found.contains(reason), "{wrong}: {found}");
        }
    }
}
