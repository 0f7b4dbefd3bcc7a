//! A call of an IVR port, as its facts have told it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::AskId;
use super::message::{DriverId, Message, Status};
use crate::call::fact::Party;
use crate::id::{ConnId, LegId};

/// One live call.
#[derive(Debug)]
pub(super) struct Call {
    /// When the interface learned of it.
    pub since: Instant,
    /// The port's number.
    pub dn: String,
    pub leg: LegId,
    pub stage: Stage,
    /// The MakeCall that has begun it, until it is answered.
    pub made_by: Option<Order>,
    /// The other party is held.
    pub held: bool,
    pub consult: Option<Consult>,
    /// One-step transfers and conferences that run.
    pub running: Vec<Running>,
    /// Who has joined since the call began, in that order.
    pub added: Vec<LegId>,
    /// The message that completes a consultation whose target has not answered.
    pub completing: Option<Order>,
    /// The message in hand.
    pub asking: Option<Asking>,
    pub waiting: VecDeque<Order>,
}

/// How far the port has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Calling,
    Ringing,
    Talking,
}

/// The consult call.
#[derive(Debug)]
pub(super) struct Consult {
    pub conn_id: ConnId,
    /// The message that has begun it; `None`: no driver's.
    pub order: Option<Order>,
    pub answered: bool,
}

/// A one-step transfer or conference.
#[derive(Debug)]
pub(super) struct Running {
    /// Who is called.
    pub to: Party,
    /// The message that has begun it; `None`: no driver's.
    pub order: Option<Order>,
}

/// A driver's message.
#[derive(Debug, Clone)]
pub(super) struct Order {
    /// `None`: ours.
    pub driver: Option<DriverId>,
    pub req_id: Option<Arc<str>>,
    pub message: Message,
}

/// A message that call control has not answered.
#[derive(Debug)]
pub(super) struct Asking {
    pub id: AskId,
    pub order: Order,
}

impl Call {
    pub(super) fn new(since: Instant, dn: &str, leg: LegId, stage: Stage) -> Self {
        Self {
            since,
            dn: dn.to_owned(),
            leg,
            stage,
            made_by: None,
            held: false,
            consult: None,
            running: Vec::new(),
            added: Vec::new(),
            completing: None,
            asking: None,
            waiting: VecDeque::new(),
        }
    }

    /// The message in hand, when it is one of these.
    pub(super) fn order(&self, of: fn(&Message) -> bool) -> Option<Order> {
        self.asking.as_ref().map(|asking| &asking.order).filter(|order| of(&order.message)).cloned()
    }

    /// The running transfer or invitation of a party has ended: the one that named it so, else the oldest.
    pub(super) fn end_running(&mut self, party: &Party) -> Option<Running> {
        let same = |running: &Running| running.to == *party || (party.dn.is_some() && running.to.dn == party.dn);
        let at = self.running.iter().position(same).unwrap_or(0);
        (at < self.running.len()).then(|| self.running.remove(at))
    }

    /// Its state, as a driver that connects is told it.
    pub(super) fn story(&self) -> Vec<Status> {
        let mut story = match self.stage {
            Stage::Calling => vec![Status::Dialing],
            Stage::Ringing => vec![Status::Ringing],
            Stage::Talking => vec![Status::Ringing, Status::Established],
        };
        if self.held {
            story.push(Status::Held);
        }
        match &self.consult {
            Some(consult) if consult.answered => story.extend([Status::Dialing, Status::Established]),
            Some(_) => story.push(Status::Dialing),
            None if !self.running.is_empty() => story.push(Status::Dialing),
            None => {}
        }
        story.extend(self.added.iter().map(|_| Status::ConfPartyAdd));
        story
    }
}
