//! Who takes part, what agents ask, and the ticket that proves an invitation.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// One connection of a desktop; given by who accepts it, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// `AgentID`: the name under which an agent registers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentId(Arc<str>);

impl AgentId {
    /// The longest name in characters.
    pub const MAX_CHARS: usize = 64;

    /// `None`: a name has 1 to [`Self::MAX_CHARS`] characters, none of which is white space or a control character.
    pub fn new(text: &str) -> Option<Self> {
        let fits = (1..=Self::MAX_CHARS).contains(&text.chars().count());
        let plain = text.chars().all(|c| !c.is_whitespace() && !c.is_control());
        (fits && plain).then(|| Self(text.into()))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for AgentId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// What an agent asks. Ids stand as they were written: what names nothing gets an answer that repeats it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// `RequestConference`: invites another agent into an interaction.
    Conference {
        /// `InteractionID`.
        interaction: String,
        /// `AgentID`: who is invited.
        agent: String,
    },
    /// `RequestAccept`.
    Accept {
        /// `TicketID`.
        ticket: String,
    },
    /// `RequestReject`.
    Reject {
        /// `TicketID`.
        ticket: String,
    },
    /// `RequestLeaveInteraction`.
    Leave {
        /// `InteractionID`.
        interaction: String,
    },
}

/// `TicketID`: 128 random bits that only the invited agent is told. It is good for one answer, of that agent.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket([u8; Ticket::BYTES]);

impl Ticket {
    const BYTES: usize = 16;

    pub(super) fn new(random: [u8; Self::BYTES]) -> Self {
        Self(random)
    }

    /// True when `text` is this ticket. The time it takes tells nothing of where they differ.
    pub(super) fn is(&self, text: &str) -> bool {
        let own = self.to_string();
        let difference = own.bytes().zip(text.bytes()).fold(0, |difference, (a, b)| difference | (a ^ b));
        own.len() == text.len() && difference == 0
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// It is a secret: logs and panics do not tell it.
impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(…)")
    }
}

impl Serialize for Ticket {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_its_own_text_and_no_other() {
        let ticket = Ticket::new([0xA5; Ticket::BYTES]);
        assert!(ticket.is(&"a5".repeat(16)));
        for other in ["", "a5", &"a5".repeat(17), &"A5".repeat(16), &format!("{}a4", "a5".repeat(15))] {
            assert!(!ticket.is(other), "{other}");
        }
        assert_eq!(format!("{ticket:?}"), "Ticket(…)");
    }

    #[test]
    fn a_name_is_short_and_plain() {
        for right in ["anna", "anna.müller@example.org", &"x".repeat(64)] {
            assert_eq!(AgentId::new(right).unwrap().as_str(), right);
        }
        for wrong in ["", "anna müller", "anna\n", "\u{7}", &"x".repeat(65)] {
            assert_eq!(AgentId::new(wrong), None, "{wrong:?}");
        }
    }
}
