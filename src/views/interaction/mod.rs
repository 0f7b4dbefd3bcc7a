//! The interaction model (spec/events.md §3): an agent invites another one into a call.
//!
//! An interaction is a call with its consult calls; `InteractionID` is the CallUUID. Agents register over connections of
//! their own, each with its DN. [`Interactions`] is fed with what agents ask, with every fact and with the answers of call
//! control, and says who is told what, and what call control is asked: an accept makes it call the agent's DN into the call
//! (`single-step-conference` in the name of the inviter), a leave releases the agent's leg.
//!
//! Who is in an interaction is what the facts say, never what was asked for: so it makes no difference whether a desktop,
//! a phone or another request moves first. Who is told what stands in `invitation` (invitations) and in `facts` (parties).
//!
//! | What may differ from what an agent expects | |
//! |---|---|
//! | an agent that registers again | the new connection replaces the old one, and is told its open invitations again |
//! | two agents with one DN | the second is refused: a leg of that DN is one agent's |
//! | the invited DN comes into the call by another way | that is its accept |
//! | the DN is being called into the call already | the accept waits for that call |
//! | accepted, but the DN is not reached | EventError to both; the invitation is over and the agent has not joined |
//! | the inviter's connection is lost | its invitations stay open as long as its leg is in the call |
//! | a party leaves without RequestLeaveInteraction | it is told EventPartyRemoved, as the others are |
//! | a call that goes on inside another one (transfer, merge) | its parties leave it and join the other one; nothing is placed |
//! | a route without `origin`, a dial-in room, or a call that nobody has answered | nothing is placed |

pub mod event;
mod facts;
mod invitation;
pub mod message;
mod parties;
mod requests;
mod tell;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use self::event::{Code, Event, Name, Why};
use self::invitation::{Cue, Invitation, State};
use self::message::{AgentId, ConnectionId, Message};
use self::parties::Interaction;
use crate::call::fact::Fact;
use crate::call::request::{Accepted, Denied, Request};
use crate::id::{CallUuid, ConnId, LegId, RecordingId};

/// Agents that are registered at once.
pub const MAX_AGENTS: usize = 1_024;

/// Open invitations of one agent, and as many that it has issued.
pub const MAX_INVITATIONS_OF_AGENT: usize = 16;

/// Open invitations of all agents.
pub const MAX_INVITATIONS: usize = 4_096;

/// Names a request that was given out until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AskId(pub u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct InvitationId(u64);

/// What comes in.
#[derive(Debug)]
pub enum Input<'a> {
    /// A connection has ended. The agent's calls and invitations go on.
    Disconnected(ConnectionId),
    /// An agent asks.
    Message {
        /// Over which connection.
        from: ConnectionId,
        /// `ReferenceID`: it stands in the events that answer it.
        reference: Option<Arc<str>>,
        /// What.
        message: Message,
    },
    /// An agent has sent what cannot be understood.
    Malformed {
        /// Over which connection.
        from: ConnectionId,
        /// What is wrong with it.
        reason: String,
    },
    /// Something has happened in a call.
    Fact(&'a Fact),
    /// Call control has answered; `None`: it will not, for the server stops.
    Answered(AskId, Option<Result<Accepted, Denied>>),
    /// The instant of [`Interactions::poll_timeout`] has come.
    Timeout,
}

/// What comes out, in the order in which it must be carried out.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Tell an agent.
    Tell(ConnectionId, Event),
    /// Tell reporting.
    Report(Event),
    /// Ask call control; the answer is an [`Input::Answered`].
    Ask(AskId, Request),
    /// Let a connection go: the agent has registered over another one.
    Replaced(ConnectionId),
}

/// Why to wake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// An invitation has not been answered for `interaction.invitation-timeout`.
    InvitationTimeout,
}

/// Why an agent is not registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotRegistered {
    /// Its DN is not configured.
    UnknownDn,
    /// Another agent is registered with it.
    DnInUse,
    /// [`MAX_AGENTS`] are registered.
    Limit,
}

/// Tells configured DNs from other numbers.
pub type IsDn = Box<dyn Fn(&str) -> bool + Send>;

/// How the model is set up.
pub struct Options {
    /// `interaction.invitation-timeout`.
    pub invitation_timeout: Duration,
    /// Which numbers are DNs.
    pub is_dn: IsDn,
    /// Of interactions beyond so many nothing is known: the limit of call control.
    pub max_interactions: usize,
    /// What tickets are made of: as unguessable as this is.
    pub seed: [u8; 32],
}

/// A registered agent.
#[derive(Debug)]
struct Agent {
    connection: ConnectionId,
    dn: String,
}

/// Whose request a pending one is.
#[derive(Debug)]
enum Asked {
    /// To call the invited agent's DN.
    Accept(InvitationId),
    /// To let an agent go.
    Leave(CallUuid, AgentId),
    /// To end a consult call of an agent that leaves: the leave itself says how it ends.
    Consultation,
}

/// All interactions, the agents and their invitations. One input, then [`Interactions::poll_output`] until it says `None`,
/// then [`Interactions::poll_timeout`].
pub struct Interactions {
    options: Options,
    random: StdRng,
    agents: BTreeMap<AgentId, Agent>,
    connections: HashMap<ConnectionId, AgentId>,
    /// Whose DN is whose.
    dns: HashMap<String, AgentId>,
    interactions: HashMap<CallUuid, Interaction>,
    calls: HashMap<ConnId, CallUuid>,
    invitations: BTreeMap<InvitationId, Invitation>,
    deadlines: BTreeSet<(Instant, InvitationId)>,
    /// Requests without an answer.
    asked: HashMap<AskId, Asked>,
    /// Owners of the running recordings that are required.
    required: HashMap<RecordingId, LegId>,
    /// The last number given to a request or an invitation.
    last: u64,
    out: VecDeque<Output>,
}

impl Interactions {
    /// Knows no call and no agent yet.
    pub fn new(options: Options) -> Self {
        let random = StdRng::from_seed(options.seed);
        Self {
            options,
            random,
            agents: BTreeMap::new(),
            connections: HashMap::new(),
            dns: HashMap::new(),
            interactions: HashMap::new(),
            calls: HashMap::new(),
            invitations: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            asked: HashMap::new(),
            required: HashMap::new(),
            last: 0,
            out: VecDeque::new(),
        }
    }

    /// Other numbers are DNs from now on. Who is registered stays so: call control refuses what an agent asks whose DN is
    /// gone.
    pub fn reload(&mut self, is_dn: IsDn) {
        self.options.is_dn = is_dn;
    }

    /// Registers an agent over a new connection, in the place of the one that it has. It is told its open invitations.
    ///
    /// # Errors
    /// It is not registered, and a connection that it has goes on.
    pub fn connect(&mut self, connection: ConnectionId, agent: AgentId, dn: String) -> Result<(), NotRegistered> {
        if !(self.options.is_dn)(&dn) {
            return Err(NotRegistered::UnknownDn);
        }
        if self.dns.get(&dn).is_some_and(|other| *other != agent) {
            return Err(NotRegistered::DnInUse);
        }
        if self.agents.len() >= MAX_AGENTS && !self.agents.contains_key(&agent) {
            return Err(NotRegistered::Limit);
        }
        let mut open = Vec::new();
        let waits = |one: &Invitation| one.agent == agent && one.state == State::Invited;
        for (id, invitation) in self.invitations.iter_mut().filter(|(_, one)| waits(one)) {
            invitation.dn.clone_from(&dn);
            open.push(*id);
        }
        if let Some(old) = self.agents.insert(agent.clone(), Agent { connection, dn: dn.clone() }) {
            self.connections.remove(&old.connection);
            self.dns.remove(&old.dn);
            self.out.push_back(Output::Replaced(old.connection));
        }
        self.dns.insert(dn, agent.clone());
        self.connections.insert(connection, agent);
        open.into_iter().for_each(|id| self.tell_row(id, invitation::REPEATED, None));
        Ok(())
    }

    /// Takes one input.
    pub fn handle(&mut self, input: Input<'_>, now: Instant) {
        match input {
            Input::Disconnected(connection) => {
                let agent = self.connections.remove(&connection);
                if let Some(Agent { dn, .. }) = agent.and_then(|agent| self.agents.remove(&agent)) {
                    self.dns.remove(&dn);
                }
            }
            Input::Message { from, reference, message } => self.message(from, reference, message, now),
            Input::Malformed { from, reason } => {
                let why = Why { code: Code::BadRequest.as_str(), reason };
                self.out.push_back(Output::Tell(from, Event::new(Name::EventError, None).because(why)));
            }
            Input::Fact(fact) => self.fact(fact),
            Input::Answered(id, answer) => self.answered(id, answer),
            Input::Timeout => {
                while let Some((_, id)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
                    self.step(id, Cue::TimeOut);
                }
            }
        }
    }

    /// What is to be done; drain to `None` after each input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When to come back with [`Input::Timeout`].
    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        self.deadlines.first().map(|(at, _)| (*at, Reason::InvitationTimeout))
    }

    /// Agents that are registered.
    pub fn agents(&self) -> usize {
        self.agents.len()
    }

    /// Nothing is remembered of any call.
    pub fn is_empty(&self) -> bool {
        self.interactions.is_empty()
            && self.calls.is_empty()
            && self.invitations.is_empty()
            && self.deadlines.is_empty()
            && self.asked.is_empty()
            && self.required.is_empty()
    }
}
