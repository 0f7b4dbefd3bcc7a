//! The table of spec/events.md §1 as data: what each event says besides ids and parties. Change it here and nowhere else.
//!
//! What the table leaves open follows Genesys' "Voice Microservices Events and Models": parties stand with their roles,
//! and only a DN that was told of ringing is told that it is abandoned.

use super::event::{CallState, CallType, Cause, DnRole, Name};
use crate::call::fact::{Party, ReleaseCause, Transfer};

/// One kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub name: Name,
    pub state: CallState,
    pub cause: Option<Cause>,
    /// The role of `ThirdPartyDN`; without one there is none.
    pub third: Option<DnRole>,
}

const fn row(name: Name, state: CallState) -> Row {
    Row { name, state, cause: None, third: None }
}

const fn because(row: Row, cause: Cause) -> Row {
    Row { cause: Some(cause), ..row }
}

const fn third(row: Row, role: DnRole) -> Row {
    Row { third: Some(role), ..row }
}

/// Rows 1 and 5.
pub(super) const DIALING: Row = row(Name::EventDialing, CallState::Ok);
/// Rows 1 and 5.
pub(super) const RINGING: Row = row(Name::EventRinging, CallState::Ok);
/// Rows 1, 5 and 7.
pub(super) const ESTABLISHED: Row = row(Name::EventEstablished, CallState::Ok);
/// Row 2.
const DESTINATION_BUSY: Row = because(row(Name::EventDestinationBusy, CallState::Busy), Cause::Busy);
/// Rows 2 and 3.
pub(super) const ABANDONED: Row = row(Name::EventAbandoned, CallState::Ok);
/// Rows 3, 10 and 13.
pub(super) const RELEASED: Row = row(Name::EventReleased, CallState::Ok);
/// Rows 4 and 9.
pub(super) const HELD: Row = row(Name::EventHeld, CallState::Ok);
/// Rows 4, 9 and 10.
pub(super) const RETRIEVED: Row = row(Name::EventRetrieved, CallState::Ok);
/// Rows 6 and 7: who stays, and who comes from another call.
pub(super) const PARTY_CHANGED: Row =
    third(row(Name::EventPartyChanged, CallState::Transferred), DnRole::TransferredBy);
/// Row 6, in the consult call.
pub(super) const CONSULT_TRANSFERRED: Row = row(Name::EventReleased, CallState::Transferred);
/// Row 7: the target.
pub(super) const TRANSFER_RINGING: Row = row(Name::EventRinging, CallState::Transferred);
/// Row 17: where it rang.
pub(super) const REDIRECTED: Row =
    third(because(row(Name::EventReleased, CallState::Redirected), Cause::Redirect), DnRole::Destination);
/// Row 17: where it rings from now on.
pub(super) const REDIRECT_RINGING: Row = row(Name::EventRinging, CallState::Redirected);
/// Whose place another DN has taken (INVITE with Replaces).
pub(super) const REPLACED: Row = third(row(Name::EventReleased, CallState::Transferred), DnRole::Destination);

/// Rows 11 and 12: somebody new.
pub(super) const PARTY_ADDED: Row = third(row(Name::EventPartyAdded, CallState::Conferenced), DnRole::AddedBy);
/// Row 11: who has consulted comes back.
pub(super) const CONFERENCE_RETRIEVED: Row = row(Name::EventRetrieved, CallState::Conferenced);
/// Row 11, in the consult call.
pub(super) const CONFERENCE_RELEASED: Row = row(Name::EventReleased, CallState::Conferenced);
/// Row 11: who was consulted.
pub(super) const CONFERENCED: Row = third(row(Name::EventPartyChanged, CallState::Conferenced), DnRole::ConferencedBy);
/// Row 19.
pub(super) const OBSERVER_RINGING: Row = row(Name::EventRinging, CallState::Bridged);
/// Row 19.
pub(super) const OBSERVER_ADDED: Row = row(Name::EventPartyAdded, CallState::Bridged);
/// Row 19.
pub(super) const OBSERVER_ESTABLISHED: Row = row(Name::EventEstablished, CallState::Bridged);
/// Row 21.
pub(super) const MUTE_ON: Row = row(Name::EventMuteOn, CallState::Ok);
/// Row 21.
pub(super) const MUTE_OFF: Row = row(Name::EventMuteOff, CallState::Ok);
/// A party hears nobody any more.
pub(super) const LISTEN_DISCONNECTED: Row = row(Name::EventListenDisconnected, CallState::Ok);
/// It hears the others again.
pub(super) const LISTEN_RECONNECTED: Row = row(Name::EventListenReconnected, CallState::Ok);

/// Rows 14, 15 and 20: somebody has left, and so many parties remain.
pub(super) fn party_deleted(left: usize) -> Row {
    let state = if left > 2 { CallState::Conferenced } else { CallState::Ok };
    third(row(Name::EventPartyDeleted, state), DnRole::DeletedBy)
}

/// Rows 6 to 8: the transferor leaves the main call.
pub(super) fn transferor(how: Transfer) -> Row {
    let released = third(row(Name::EventReleased, CallState::Transferred), DnRole::Destination);
    match how {
        Transfer::SingleStep => because(released, Cause::SingleStepTransfer),
        Transfer::Consulted | Transfer::Mute => released,
    }
}

/// The request that a transfer stands for.
pub(super) fn request(how: Transfer) -> &'static str {
    match how {
        Transfer::SingleStep => "single-step-transfer",
        Transfer::Consulted => "complete-transfer",
        Transfer::Mute => "mute-transfer",
    }
}

/// What everybody is told when a call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// Who talks.
    pub talking: Row,
    /// Who calls and was not answered, in this order.
    pub calling: &'static [Row],
    /// Who rings.
    pub ringing: Row,
}

/// Rows 2, 3 and 13.
pub(super) fn end(cause: ReleaseCause) -> End {
    const fn all(talking: Row, calling: &'static [Row]) -> End {
        End { talking, calling, ringing: ABANDONED }
    }
    const fn refused(calling: &'static [Row]) -> End {
        End { talking: RELEASED, calling, ringing: REFUSED }
    }
    const REFUSED: Row = because(RELEASED, Cause::Reject);
    const BUSY: Row = because(row(Name::EventReleased, CallState::Busy), Cause::Busy);
    const NO_ANSWER: Row = because(row(Name::EventReleased, CallState::NoAnswer), Cause::NoAnswer);
    const REJECTED: Row = because(row(Name::EventReleased, CallState::RemoteRelease), Cause::Reject);
    const ERROR: Row = row(Name::EventReleased, CallState::GeneralError);
    const OUR_ERROR: Row = row(Name::EventReleased, CallState::SystemError);
    const DROPPED: Row = row(Name::EventReleased, CallState::Dropped);
    match cause {
        ReleaseCause::Released | ReleaseCause::Abandoned => all(RELEASED, &[RELEASED]),
        ReleaseCause::NoAnswer | ReleaseCause::Rejected(408 | 480) => all(NO_ANSWER, &[NO_ANSWER]),
        ReleaseCause::Rejected(486 | 600) => refused(&[DESTINATION_BUSY, BUSY]),
        ReleaseCause::Rejected(403 | 433 | 603 | 607 | 608) => refused(&[REJECTED]),
        ReleaseCause::Rejected(500..600) => refused(&[OUR_ERROR]),
        ReleaseCause::Rejected(_) => refused(&[ERROR]),
        ReleaseCause::Unreachable | ReleaseCause::Media => all(ERROR, &[ERROR]),
        ReleaseCause::Lost => all(DROPPED, &[DROPPED]),
        ReleaseCause::Recording | ReleaseCause::Shutdown => all(OUR_ERROR, &[OUR_ERROR]),
    }
}

/// Who calls whom.
pub(super) fn call_type(caller: &Party, called: &Party, is_consult: bool) -> CallType {
    let is = |party: &Party| (party.dn.is_some(), party.trunk.is_some());
    match (is(caller), is(called)) {
        _ if is_consult => CallType::Consult,
        ((true, _), (true, _)) => CallType::Internal,
        ((_, true), (true, _)) => CallType::Inbound,
        ((true, _), (_, true)) => CallType::Outbound,
        _ => CallType::Unknown,
    }
}

/// What stands for a caller that does not say who it is (RFC 3323 §4.1.1.3, and what gateways write).
const NAMELESS: &[&str] = &["anonymous", "unavailable", "unknown", "restricted", "private"];

/// What is longer is no number.
const MAX_NUMBER: usize = 128;

/// How others see a party: its DN, else its number; `None`: unknown.
pub(in crate::views) fn shown(party: &Party) -> Option<String> {
    let number = party.dn.as_ref().unwrap_or(&party.number);
    let is_known = !number.is_empty()
        && number.len() <= MAX_NUMBER
        && !NAMELESS.iter().any(|nameless| number.eq_ignore_ascii_case(nameless));
    is_known.then(|| number.clone())
}
