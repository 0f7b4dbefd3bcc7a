//! A call as its facts have told it: who is in it, and as what.

use super::conference::Invited;
use super::event::{CallType, DnRole};
use super::rows;
use crate::call::fact::{Party, Transfer};
use crate::id::{CallUuid, ConnId, LegId, RecordingId};
use crate::record::mark::Side;

/// Parties of one call: more than a room may have.
const MAX_MEMBERS: usize = 512;

/// One live call.
#[derive(Debug)]
pub(super) struct Call {
    pub uuid: CallUuid,
    pub kind: CallType,
    /// The call that its caller holds for it.
    pub consult_of: Option<ConnId>,
    /// The caller first.
    pub members: Vec<Member>,
    pub transfer: Option<Pending>,
    /// Who is called into the call.
    pub invited: Vec<Invited>,
    /// It rings somewhere else than it was meant to.
    pub redirected: bool,
    pub recordings: Vec<Recording>,
}

/// A party.
#[derive(Debug, Clone)]
pub(super) struct Who {
    /// Its DN: only then it gets events.
    pub dn: Option<String>,
    /// How others see it.
    pub shown: Option<String>,
}

impl Who {
    pub(super) fn of(party: &Party) -> Self {
        Self { dn: party.dn.clone(), shown: rows::shown(party) }
    }
}

/// A party in a call.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// `None`: it is called and has not rung yet.
    pub leg: Option<LegId>,
    pub who: Who,
    pub role: DnRole,
    pub stage: Stage,
    /// It has been told that it holds.
    pub holds: bool,
    /// Of a supervisor: the agent's leg.
    pub agent: Option<LegId>,
}

/// How far a party has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It calls.
    Calling,
    /// It is called and knows nothing of it.
    Called,
    /// It rings.
    Ringing,
    /// It talks, or holds.
    Talking,
}

/// A transfer whose target is being called.
#[derive(Debug)]
pub(super) struct Pending {
    pub by: LegId,
    /// Whose leg that is, when it has left.
    pub transferor: Who,
    pub to: Who,
    pub how: Transfer,
}

/// One running recording.
#[derive(Debug)]
pub(super) struct Recording {
    pub id: RecordingId,
    /// The owner's DN.
    pub owner: Option<String>,
    /// Who has asked for it.
    pub requester: Option<String>,
}

impl Member {
    pub(super) fn called(party: &Party) -> Self {
        Self {
            leg: None,
            who: Who::of(party),
            role: DnRole::Destination,
            stage: Stage::Called,
            holds: false,
            agent: None,
        }
    }

    /// It is called, and has not answered.
    pub(super) fn is_called(&self) -> bool {
        matches!(self.stage, Stage::Called | Stage::Ringing)
    }
}

impl Call {
    pub(super) fn new(uuid: CallUuid, kind: CallType, members: Vec<Member>) -> Self {
        Self {
            uuid,
            kind,
            consult_of: None,
            members,
            transfer: None,
            invited: Vec::new(),
            redirected: false,
            recordings: Vec::new(),
        }
    }

    /// One more; `None`: it has as many as it may.
    pub(super) fn add(&mut self, member: Member) -> Option<usize> {
        (self.members.len() < MAX_MEMBERS).then(|| {
            self.members.push(member);
            self.members.len() - 1
        })
    }

    pub(super) fn find(&self, leg: LegId) -> Option<usize> {
        self.members.iter().position(|member| member.leg == Some(leg))
    }

    pub(super) fn member(&self, leg: LegId) -> Option<&Member> {
        self.find(leg).map(|at| &self.members[at])
    }

    /// The called party that `leg` is: by its leg, by its DN (several devices of one DN ring), or the one that nobody has
    /// heard of yet; else it is new.
    pub(super) fn called(&mut self, leg: LegId, party: &Party) -> Option<usize> {
        let same_dn = |member: &Member| member.is_called() && party.dn.is_some() && member.who.dn == party.dn;
        let at = self
            .find(leg)
            .or_else(|| self.members.iter().position(same_dn))
            .or_else(|| self.members.iter().position(|member| member.stage == Stage::Called));
        let at = match at {
            Some(at) => at,
            None => self.add(Member::called(party))?,
        };
        let member = &mut self.members[at];
        member.leg = Some(leg);
        if member.is_called() {
            member.who = Who::of(party);
        }
        Some(at)
    }

    /// A party that is called: the one that facts name so.
    pub(super) fn called_named(&self, party: &Party) -> Option<usize> {
        let shown = rows::shown(party);
        self.members.iter().position(|member| member.is_called() && member.who.shown == shown)
    }

    /// Whom a party talks to, calls or is called by; `None`: nobody, or several.
    pub(super) fn other(&self, at: usize) -> Option<&Member> {
        let me = &self.members[at];
        let by = self.transfer.as_ref().map(|transfer| transfer.by);
        let mut others = self.members.iter().enumerate().filter(|(other, member)| {
            *other != at
                // A supervisor is nobody that a party talks to.
                && member.role != DnRole::Observer
                && match me.stage {
                    Stage::Calling => member.is_called(),
                    Stage::Talking => member.stage == Stage::Talking,
                    // A transfer's target is called for who stays.
                    Stage::Called | Stage::Ringing => !member.is_called() && (member.leg.is_none() || member.leg != by),
                }
        });
        let (_, other) = others.next()?;
        // While several are called, the first stands for them.
        (me.stage == Stage::Calling || others.next().is_none()).then_some(other)
    }

    /// The DN of a recording's owner. Its leg may be unknown: a recording begins before the answer is told.
    pub(super) fn owner(&self, leg: LegId, side: Side) -> Option<String> {
        let by_side = || match side {
            Side::Origination => self.members.first(),
            Side::Termination => self.members.iter().find(|member| member.is_called()),
            Side::Room => None,
        };
        self.member(leg).or_else(by_side)?.who.dn.clone()
    }
}
