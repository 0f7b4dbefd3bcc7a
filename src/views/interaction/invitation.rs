//! One invitation, as a pure state machine: which cue leads where, and who is told what of it.

use std::sync::Arc;
use std::time::Instant;

use super::event::{Name, Why};
use super::message::{AgentId, Ticket};
use crate::id::CallUuid;

/// How far an invitation has come.
///
/// ```text
///   RequestConference
///         │           accept             call control calls       the leg is in the call
///         ▼       ┌────────────► Asking ─────────────────► Calling ──────────┐
///      Invited ───┤                │ │                        │              ▼
///         │ │     └────────────────│─┴── in it already ───────│────────► Joined ── leg gone ──► Left
///  reject │ │ time-out,            │ refused, failed,         │ failed, over
///         │ │ inviter left, over   ▼ over                     ▼
///         │ └──────► Revoked       └───────► Failed ◄─────────┘
///         └────────► Rejected
/// ```
///
/// `Rejected`, `Revoked`, `Failed` and `Left` are ends: the invitation is forgotten, and its ticket names nothing. Only in
/// `Invited` the ticket is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// The agent has been asked.
    Invited,
    /// It has accepted. Call control has not said yet whether it calls its DN.
    Asking {
        /// Its DN was called meanwhile and not reached.
        failure: Option<Why>,
    },
    /// Its DN is being called.
    Calling,
    /// It is a party.
    Joined,
}

/// What happens to an invitation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cue {
    /// The agent accepts. `called`: its DN is being called into the call already, so nobody has to be asked for it.
    Accept { called: bool },
    /// The agent rejects.
    Reject,
    /// It has had its time.
    TimeOut,
    /// Who has invited is no party any more.
    InviterLeft,
    /// The interaction has ended.
    Over,
    /// Call control has taken the request. `called`: the DN is still being called.
    Taken { called: bool },
    /// Call control has refused.
    Refused(Why),
    /// The DN was not reached, and is called no more.
    NotReached(Why),
    /// The agent's leg is in the call, whoever has brought it there.
    Added,
    /// It has left.
    Gone,
}

/// How an invitation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Rejected,
    Revoked,
    Failed,
    Left,
}

/// Where a cue leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// To another state, and the row that is told.
    To(State, &'static [Line]),
    /// To an end, and the row that is told with the reason.
    Ends(End, &'static [Line], Option<Why>),
    /// Nowhere: it means nothing in this state.
    Stays,
}

/// One line of a row of spec/events.md §3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// To the invited agent.
    Invited(Name),
    /// To the agent who has invited.
    Inviter(Name),
    /// To reporting.
    Report(Name),
}

use Line::{Invited, Inviter, Report};

/// "Invitation issued".
pub(super) const ISSUED: &[Line] = &[Invited(Name::EventInvite), Report(Name::EventAgentInvited)];
/// The invitation told again to an agent that comes back.
pub(super) const REPEATED: &[Line] = &[Invited(Name::EventInvite)];
/// "Accepted": EventPartyAdded follows when the agent's leg is in the call.
const ACCEPTED: &[Line] = &[Invited(Name::EventAck), Inviter(Name::EventAck)];
/// "Rejected".
const REJECTED: &[Line] = &[Invited(Name::EventAck), Inviter(Name::EventError), Report(Name::EventRejected)];
/// "Times out", and what else revokes.
const REVOKED: &[Line] = &[Invited(Name::EventRevoked), Inviter(Name::EventError)];
/// Accepted, and the agent's DN was not reached: both are told, and it has never joined.
const FAILED: &[Line] = &[Invited(Name::EventError), Inviter(Name::EventError)];
/// Joining and leaving are told of the party.
const NOTHING: &[Line] = &[];

/// The table.
pub(super) fn step(state: &State, cue: Cue) -> Step {
    use super::event::Code;
    let failed = |why| Step::Ends(End::Failed, FAILED, Some(why));
    let revoked = |code: Code| Step::Ends(End::Revoked, REVOKED, Some(code.why()));
    match (state, cue) {
        (State::Invited, Cue::Accept { called: true }) => Step::To(State::Calling, ACCEPTED),
        (State::Invited, Cue::Accept { called: false }) => Step::To(State::Asking { failure: None }, NOTHING),
        (State::Invited, Cue::Reject) => Step::Ends(End::Rejected, REJECTED, Some(Code::Rejected.why())),
        (State::Invited, Cue::TimeOut) => revoked(Code::TimedOut),
        (State::Invited, Cue::InviterLeft) => revoked(Code::InviterLeft),
        (State::Invited, Cue::Over) => revoked(Code::InteractionOver),

        // Synchronous facts come before the answer, and the answer may come late: it finds what they have left.
        (State::Asking { .. }, Cue::Taken { called: true }) => Step::To(State::Calling, ACCEPTED),
        (State::Asking { failure }, Cue::Taken { called: false }) => {
            failed(failure.clone().unwrap_or_else(|| Code::Unavailable.why()))
        }
        (State::Asking { .. }, Cue::Refused(why)) => failed(why),
        (State::Asking { .. }, Cue::NotReached(why)) => Step::To(State::Asking { failure: Some(why) }, NOTHING),
        (State::Calling, Cue::NotReached(why)) => failed(why),
        (State::Asking { .. } | State::Calling, Cue::Over) => failed(Code::InteractionOver.why()),

        (State::Invited | State::Asking { .. }, Cue::Added) => Step::To(State::Joined, ACCEPTED),
        (State::Calling, Cue::Added) => Step::To(State::Joined, NOTHING),
        (State::Joined, Cue::Gone) => Step::Ends(End::Left, NOTHING, None),

        // The ticket is used up; and once it has accepted, call control decides what becomes of it.
        (State::Asking { .. } | State::Calling | State::Joined, Cue::Accept { .. } | Cue::Reject | Cue::TimeOut)
        | (State::Asking { .. } | State::Calling | State::Joined, Cue::InviterLeft)
        | (State::Invited | State::Calling | State::Joined, Cue::Taken { .. } | Cue::Refused(_))
        | (State::Invited | State::Joined, Cue::NotReached(_))
        | (State::Invited | State::Asking { .. } | State::Calling, Cue::Gone)
        | (State::Joined, Cue::Over | Cue::Added) => Step::Stays,
    }
}

/// An invitation, from RequestConference to its end.
#[derive(Debug)]
pub(super) struct Invitation {
    pub state: State,
    pub interaction: CallUuid,
    pub ticket: Ticket,
    /// When it is revoked, unless it has been answered.
    pub deadline: Instant,
    /// Who is invited.
    pub agent: AgentId,
    /// Its DN: the one that it was registered with when it was last seen.
    pub dn: String,
    /// Who has invited.
    pub inviter: AgentId,
    /// Its DN.
    pub inviter_dn: String,
    /// `ReferenceID` of the RequestConference.
    pub reference: Option<Arc<str>>,
    /// `ReferenceID` of the accept or reject.
    pub answered_by: Option<Arc<str>>,
}

impl Invitation {
    /// The agent is not in the call, and may come.
    pub(super) fn is_open(&self) -> bool {
        self.state != State::Joined
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::interaction::event::Code;

    /// Every state and every cue, with the letter of what comes of it: a state, an end, or `-` for nothing.
    #[test]
    fn each_cue_leads_where_the_diagram_says() {
        let why = || Code::Limit.why();
        let cues = [
            Cue::Accept { called: false },
            Cue::Accept { called: true },
            Cue::Reject,
            Cue::TimeOut,
            Cue::InviterLeft,
            Cue::Over,
            Cue::Taken { called: true },
            Cue::Taken { called: false },
            Cue::Refused(why()),
            Cue::NotReached(why()),
            Cue::Added,
            Cue::Gone,
        ];
        let states = [
            (State::Invited, "ACxvvv----J-"),
            (State::Asking { failure: None }, "-----fCffAJ-"),
            (State::Calling, "-----f---fJ-"),
            (State::Joined, "-----------l"),
        ];
        for (state, expected) in states {
            let found: String = cues.iter().map(|cue| letter(&step(&state, cue.clone()))).collect();
            assert_eq!(found, expected, "{state:?}");
        }
    }

    fn letter(step: &Step) -> char {
        match step {
            Step::To(State::Invited, _) => 'I',
            Step::To(State::Asking { .. }, _) => 'A',
            Step::To(State::Calling, _) => 'C',
            Step::To(State::Joined, _) => 'J',
            Step::Ends(End::Rejected, ..) => 'x',
            Step::Ends(End::Revoked, ..) => 'v',
            Step::Ends(End::Failed, ..) => 'f',
            Step::Ends(End::Left, ..) => 'l',
            Step::Stays => '-',
        }
    }

    #[test]
    fn a_call_that_fails_before_call_control_has_answered_fails_with_its_own_reason() {
        let Step::To(state, told) = step(&State::Asking { failure: None }, Cue::NotReached(Code::Limit.why())) else {
            panic!("it waits for the answer");
        };
        assert_eq!(told, NOTHING);
        let failed = step(&state, Cue::Taken { called: false });
        assert_eq!(failed, Step::Ends(End::Failed, FAILED, Some(Code::Limit.why())));
    }
}
