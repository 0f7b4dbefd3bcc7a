//! What drivers are told when something happens, and in which order: the tables of spec/events.md §2 as data. Change it
//! here and nowhere else.
//!
//! The vendor's diagrams of these flows are pictures whose text is not published; the order is ours. Three rules are
//! theirs: busy is no error, after an error the state is as before by itself, and retrieving then is a second error.

use super::message::{FailedReq, Status};
use crate::call::fact::ReleaseCause;
use crate::call::request::Code;

/// What happens in a call, as the interface sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cue {
    /// The port rings.
    Rings,
    /// It has answered, or has been answered.
    Answers,
    /// It calls by itself.
    Calls,
    /// Whom it called is busy. The call is over.
    CallBusy,
    /// Whom it called by MakeCall was not reached. The call is over.
    CallFails,
    /// It holds the other party.
    Holds,
    /// It talks to it again.
    Retrieves,
    /// It calls a third party while it holds the other.
    Consults,
    /// The third party has answered.
    ConsultAnswers,
    /// It is busy: the other one stays held.
    ConsultBusy,
    /// It was not reached: the other one is retrieved, which is told by itself.
    ConsultFails,
    /// It has hung up: the other one stays held.
    ConsultLeaves,
    /// A one-step transfer begins.
    TransferStarts,
    /// Its target is busy: the parties talk again.
    TransferBusy,
    /// It was not reached: the parties talk again.
    TransferFails,
    /// It calls somebody into the call.
    Invites,
    /// Who was called in is busy: the others stay held.
    InviteBusy,
    /// Who was called in was not reached: the others are retrieved, which is told by itself.
    InviteFails,
    /// Somebody has joined. Retrieved has been told.
    Joins,
    /// Who had joined has left; the call goes on.
    MemberLeaves,
    /// The party that the call began with has left: the port's call with it is over, the one with who had joined goes on
    /// under the same CallId.
    FirstLeaves,
    /// The transfer has succeeded: the port has left.
    Transferred,
    /// The port has left.
    Leaves,
}

/// One line of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// To every driver.
    Tell(Status),
    /// CallError to the driver whose request this was.
    Fail,
}

use Line::{Fail, Tell};

/// The order.
pub(super) fn row(cue: Cue) -> &'static [Line] {
    match cue {
        Cue::Rings => &[Tell(Status::Ringing)],
        Cue::Answers => &[Tell(Status::Established)],
        Cue::Calls => &[Tell(Status::Dialing)],
        Cue::CallBusy => &[Tell(Status::Busy), Tell(Status::Released)],
        Cue::CallFails => &[Fail, Tell(Status::Released)],
        Cue::Holds => &[Tell(Status::Held)],
        Cue::Retrieves => &[Tell(Status::Retrieved)],
        // Held is told by itself.
        Cue::Consults => &[Tell(Status::Dialing)],
        Cue::ConsultAnswers => &[Tell(Status::Established)],
        Cue::ConsultBusy => &[Tell(Status::Busy)],
        Cue::ConsultFails => &[Fail],
        Cue::ConsultLeaves => &[Tell(Status::ConfPartyDel)],
        Cue::TransferStarts => &[Tell(Status::Held), Tell(Status::Dialing)],
        Cue::TransferBusy => &[Tell(Status::Busy), Tell(Status::Retrieved)],
        Cue::TransferFails => &[Fail, Tell(Status::Retrieved)],
        // Held is told by itself.
        Cue::Invites => &[Tell(Status::Dialing)],
        Cue::InviteBusy => &[Tell(Status::Busy)],
        Cue::InviteFails => &[Fail],
        Cue::Joins => &[Tell(Status::ConfPartyAdd)],
        Cue::MemberLeaves => &[Tell(Status::ConfPartyDel)],
        Cue::FirstLeaves => &[Tell(Status::Released), Tell(Status::Established)],
        Cue::Transferred => &[Tell(Status::XferComplete), Tell(Status::Released)],
        Cue::Leaves => &[Tell(Status::Released)],
    }
}

/// `TLibErrCode` of a refusal: the numbers that T-Library has for it.
pub(super) fn refusal(failed: FailedReq, code: Code) -> Option<u16> {
    Some(match code {
        // Invalid ConnectionID.
        Code::UnknownCall | Code::NotAParty | Code::OtherCall => 56,
        // The DN is not configured.
        Code::UnknownDn => 59,
        // Invalid destination DN.
        Code::UnknownTarget => 415,
        // The time is over.
        Code::Busy => 57,
        // Out of service.
        Code::Limit => 58,
        // The object is already in the requested state.
        Code::WrongState if failed == FailedReq::RetrieveCall => 43,
        _ => return None,
    })
}

/// `TLibErrCode` of a party that was not reached.
pub(super) fn failure(cause: ReleaseCause) -> Option<u16> {
    Some(match cause {
        ReleaseCause::Rejected(486 | 600) => 231,
        ReleaseCause::NoAnswer | ReleaseCause::Rejected(408 | 480) => 232,
        ReleaseCause::Rejected(404 | 484 | 604) => 415,
        ReleaseCause::Rejected(403 | 433 | 603 | 607 | 608) => 233,
        ReleaseCause::Unreachable | ReleaseCause::Media | ReleaseCause::Lost | ReleaseCause::Rejected(_) => 234,
        ReleaseCause::Recording | ReleaseCause::Shutdown => 58,
        ReleaseCause::Released | ReleaseCause::Abandoned => return None,
    })
}
