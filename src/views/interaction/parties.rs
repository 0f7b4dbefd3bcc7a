//! An interaction as the facts of its calls have told it: who is in it.
//!
//! A call and its consult calls share one CallUUID and are one interaction. Who is only consulted is no party of it; where
//! the call ends and its consult call goes on, that one is the interaction from then on.

use super::InvitationId;
use super::message::AgentId;
use crate::call::fact::{Origin, Party};
use crate::id::{ConnId, LegId};

/// Calls of one interaction, and parties of one call: more than call control makes.
const MAX_CALLS: usize = 64;
const MAX_PARTIES: usize = 512;

/// A live interaction.
#[derive(Debug)]
pub(super) struct Interaction {
    /// Where it goes back to.
    pub origin: Option<Origin>,
    /// Its calls: the first one's parties are its parties.
    calls: Vec<Call>,
    /// Somebody has answered.
    began: bool,
    /// The parties as they have been told.
    pub parties: Vec<Member>,
    /// DNs that are called into the call, as often as they are.
    pub calling: Vec<String>,
    /// Invitations into it.
    pub invitations: Vec<InvitationId>,
    /// Agents that have asked to leave.
    pub leaving: Vec<Leaving>,
}

/// One call.
#[derive(Debug)]
struct Call {
    conn_id: ConnId,
    /// The caller alone until it is answered.
    parties: Vec<Member>,
}

/// A party.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub leg: LegId,
    pub dn: Option<String>,
    /// As it is shown to others; `None`: unknown.
    pub shown: Option<String>,
    /// The invitation by which it has come.
    pub invitation: Option<InvitationId>,
}

/// A leave that call control has not carried out.
#[derive(Debug)]
pub(super) struct Leaving {
    pub agent: AgentId,
    pub reference: Option<std::sync::Arc<str>>,
}

/// What has changed, in the order in which it is told: who comes before who goes, so that a transfer never leaves an
/// interaction empty.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Added(Member),
    Removed(Member),
}

impl Member {
    pub(super) fn new(leg: LegId, party: &Party) -> Self {
        let shown = crate::views::telephony::shown(party);
        Self { leg, dn: party.dn.clone(), shown, invitation: None }
    }

    /// The same leg, or another device of the same DN.
    fn is(&self, other: &Self) -> bool {
        self.leg == other.leg || (self.dn.is_some() && self.dn == other.dn)
    }
}

impl Interaction {
    /// It begins with a call that nobody has answered.
    pub(super) fn new(conn_id: ConnId, caller: Member, origin: Option<Origin>) -> Self {
        let call = Call { conn_id, parties: vec![caller] };
        Self {
            origin,
            calls: vec![call],
            began: false,
            parties: Vec::new(),
            calling: Vec::new(),
            invitations: Vec::new(),
            leaving: Vec::new(),
        }
    }

    /// The ConnID of the call that it is; `None`: it has none left.
    pub(super) fn conn_id(&self) -> Option<ConnId> {
        self.calls.first().map(|call| call.conn_id)
    }

    /// Consult calls of a DN.
    pub(super) fn consultations<'a>(&'a self, dn: &'a str) -> impl Iterator<Item = ConnId> + 'a {
        let consults = |call: &&Call| call.parties.first().is_some_and(|caller| caller.dn.as_deref() == Some(dn));
        self.calls.iter().skip(1).filter(consults).map(|call| call.conn_id)
    }

    /// Legs of a party, those of its consult calls included.
    pub(super) fn legs<'a>(&'a self, party: &'a Member) -> impl Iterator<Item = LegId> + 'a {
        self.calls.iter().flat_map(|call| &call.parties).filter(|member| member.is(party)).map(|member| member.leg)
    }

    /// How the parties are shown.
    pub(super) fn shown(&self) -> Vec<String> {
        self.parties.iter().filter_map(|party| party.shown.clone()).collect()
    }

    /// Another call of it begins. False: it has as many as it may.
    pub(super) fn add_call(&mut self, conn_id: ConnId, caller: Member) -> bool {
        let has_room = self.calls.len() < MAX_CALLS;
        if has_room {
            self.calls.push(Call { conn_id, parties: vec![caller] });
        }
        has_room
    }

    /// One of its calls ends.
    pub(super) fn end_call(&mut self, conn_id: ConnId) {
        self.calls.retain(|call| call.conn_id != conn_id);
    }

    pub(super) fn answered(&mut self, conn_id: ConnId, party: Member) {
        self.joined(conn_id, party);
        if let Some(call) = self.calls.first().filter(|call| call.conn_id == conn_id && !self.began) {
            // Nobody has joined a call that two have begun: this is no change.
            self.parties = call.parties.clone();
            self.began = true;
        }
    }

    /// Somebody joins one of its calls.
    pub(super) fn joined(&mut self, conn_id: ConnId, party: Member) {
        if let Some(call) = self.call_mut(conn_id) {
            push(&mut call.parties, party);
        }
    }

    /// A leg leaves one of its calls.
    pub(super) fn left(&mut self, conn_id: ConnId, leg: LegId) {
        if let Some(call) = self.call_mut(conn_id) {
            call.parties.retain(|party| party.leg != leg);
        }
    }

    /// Another leg takes a party's place.
    pub(super) fn replaced(&mut self, conn_id: ConnId, leg: LegId, by: Member) {
        let Some(call) = self.call_mut(conn_id) else { return };
        if let Some(party) = call.parties.iter_mut().find(|party| party.leg == leg) {
            *party = by;
        }
    }

    /// How what is differs from what has been told. Of those who leave together, `first` is the one that has ended it.
    pub(super) fn changes(&mut self, first: Option<LegId>) -> Vec<Change> {
        let now = match self.calls.first() {
            Some(call) if self.began => call.parties.clone(),
            _ => Vec::new(),
        };
        let mut changes = Vec::new();
        for party in now.iter() {
            match self.parties.iter_mut().find(|told| told.is(party)) {
                Some(told) => (told.leg, told.dn) = (party.leg, party.dn.clone()),
                None => changes.push(Change::Added(party.clone())),
            }
        }
        let gone = self.parties.iter().filter(|told| !now.iter().any(|party| party.is(told)));
        let mut gone: Vec<Member> = gone.cloned().collect();
        gone.sort_by_key(|party| Some(party.leg) != first);
        changes.extend(gone.into_iter().map(Change::Removed));
        changes
    }

    fn call_mut(&mut self, conn_id: ConnId) -> Option<&mut Call> {
        self.calls.iter_mut().find(|call| call.conn_id == conn_id)
    }
}

fn push(parties: &mut Vec<Member>, party: Member) {
    if parties.len() < MAX_PARTIES && !parties.iter().any(|known| known.leg == party.leg) {
        parties.push(party);
    }
}
