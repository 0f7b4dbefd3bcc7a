//! What happened, once, in order: the only source of logs, metrics and the events of spec/events.md.
//!
//! A fact carries ids and values; numbers and names in it are for views and API, never for a log line except inside
//! [`crate::id::Redacted`].

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use super::request::MonitorMode;
use crate::id::{CallUuid, ConnId, LegId, RecordingId};
use crate::record::mark::{Side, StopCause};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// When, on the monotonic clock.
    pub at: Instant,
    /// When, for people.
    pub wall: Timestamp,
    /// The call it concerns; `None` for what concerns none (a refused INVITE, a message).
    pub conn_id: Option<ConnId>,
    /// The request that has caused it.
    pub cause: Option<Arc<Asked>>,
    /// What.
    pub what: What,
}

/// Whose request has caused a fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// `ThisDN`.
    pub dn: String,
    /// `ReferenceID`.
    pub reference: Option<Arc<str>>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// An INVITE was routed; a call exists from here to [`What::Released`].
    CallStarted {
        /// Stable id of the call.
        call_uuid: CallUuid,
        /// The caller's leg.
        leg: LegId,
        /// The caller.
        caller: Party,
        /// Who is called.
        called: Party,
        /// It is a consult call, placed while the caller holds this one: `PreviousConnID`.
        consult_of: Option<ConnId>,
        /// `origin` of the route that was taken.
        origin: Option<Origin>,
    },
    /// An INVITE was refused before it became a call, or its caller was turned away at the door of a room.
    Refused {
        /// The answer's code.
        code: u16,
        /// Why, in words of ours.
        reason: &'static str,
    },
    /// A call that was asked for does not come about: the phone of who has asked was not reached, or it was given up
    /// meanwhile. Of such a call nothing else is told.
    NotMade {
        /// Stable id of the call.
        call_uuid: CallUuid,
        /// Who has asked for it, and was called first.
        this: Party,
        /// Who was to be called.
        to: Party,
        /// Why.
        cause: ReleaseCause,
    },
    /// The called side rings (the first 18x); `early_media` when the 18x carried SDP.
    Ringing {
        /// The called leg.
        leg: LegId,
        /// Whose it is.
        party: Party,
        /// It carried SDP.
        early_media: bool,
    },
    /// The called side answered and both are bridged. Of a transfer's target [`What::Transferred`] says it.
    Answered {
        /// The leg that answered.
        leg: LegId,
        /// Whose it is.
        party: Party,
    },
    /// A party began to hold its connection.
    Held {
        /// The leg that holds.
        leg: LegId,
    },
    /// It holds no more.
    Retrieved {
        /// The leg that held.
        leg: LegId,
    },
    /// A transfer begins: the target is called, nobody is bridged. Not said when the target has been consulted.
    TransferStarted {
        /// The transferor's leg.
        by: LegId,
        /// Who is called.
        to: Party,
        /// How.
        how: Transfer,
    },
    /// A transfer has succeeded: `stays` and `target` are bridged, `by` has left.
    Transferred {
        /// The transferor's leg.
        by: LegId,
        /// The party that has been transferred.
        stays: LegId,
        /// The target's leg.
        target: LegId,
        /// Whose that is.
        party: Party,
        /// How.
        how: Transfer,
        /// The consult call that ended by it: its last fact is this one.
        consult: Option<ConnId>,
    },
    /// A transfer has failed; the call is as before, unless the transferor has left ([`What::Released`] follows then).
    TransferFailed {
        /// The transferor's leg.
        by: LegId,
        /// Who was called.
        to: Party,
        /// Why.
        cause: ReleaseCause,
    },
    /// Somebody is called into the call, by a one-step conference or as a supervisor; it rings there ([`What::Ringing`]).
    PartyInvited {
        /// Who has asked for it.
        by: LegId,
        /// Who is called.
        to: Party,
        /// As a supervisor of `by`.
        observer: bool,
    },
    /// A party has joined: the call goes on with all who were in it.
    PartyAdded {
        /// Its leg.
        leg: LegId,
        /// Whose that is.
        party: Party,
        /// Who has brought it in.
        by: LegId,
        /// The consult call that ended by it: its last fact is this one.
        consult: Option<ConnId>,
    },
    /// Somebody has entered a dial-in room by calling it. The first one opens it: a call exists from there to
    /// [`What::Released`].
    RoomEntered {
        /// Stable id of the call.
        call_uuid: CallUuid,
        /// The room's number, as it was called.
        room: String,
        /// The member's leg.
        leg: LegId,
        /// Whose that is.
        party: Party,
        /// It is the first.
        opened: bool,
    },
    /// Who was called into the call does not come.
    PartyNotAdded {
        /// Who had asked for it.
        by: LegId,
        /// Who was called.
        to: Party,
        /// Why.
        cause: ReleaseCause,
    },
    /// A party has left a conference, which goes on.
    PartyDeleted {
        /// Its leg.
        leg: LegId,
        /// Who has ended it: itself, or another party.
        by: LegId,
        /// How many are left, supervisors apart.
        left: usize,
    },
    /// Nobody hears a party any more, or everybody hears it again.
    MuteChanged {
        /// Its leg.
        leg: LegId,
        /// Nobody hears it.
        muted: bool,
    },
    /// A party hears nobody any more, or hears the others again.
    ListenChanged {
        /// Its leg.
        leg: LegId,
        /// It hears nobody.
        deaf: bool,
    },
    /// A supervisor begins or ends to wait for calls of an agent.
    Monitoring {
        /// The supervisor's DN.
        supervisor: String,
        /// The agent's.
        agent: String,
        /// It begins.
        on: bool,
    },
    /// A supervisor has joined the call.
    ObserverJoined {
        /// Its leg.
        leg: LegId,
        /// Whose that is.
        party: Party,
        /// The supervised agent's leg.
        agent: LegId,
        /// Who hears it.
        mode: MonitorMode,
    },
    /// A supervisor has left the call, which goes on.
    ObserverLeft {
        /// Its leg.
        leg: LegId,
    },
    /// Others hear a supervisor than before.
    MonitorMode {
        /// Its leg.
        leg: LegId,
        /// The supervised agent's leg.
        agent: LegId,
        /// From now on.
        mode: MonitorMode,
    },
    /// A leg has left, the call goes on.
    PartyLeft {
        /// The leg.
        leg: LegId,
    },
    /// The call rings somewhere else.
    Redirected {
        /// Where it rang.
        from: Party,
        /// Where it rings from now on.
        to: Party,
    },
    /// Somebody else has taken over a leg's place (INVITE with Replaces).
    Replaced {
        /// The leg that is gone.
        leg: LegId,
        /// The new one.
        by: LegId,
        /// Whose it is.
        party: Party,
    },
    /// A phone has said by `a=recordpref` (RFC 7866) what it would like.
    Preference {
        /// Its leg.
        leg: LegId,
        /// `on`, `off`, `pause`, `nopreference`.
        wish: &'static str,
        /// It was obeyed.
        obeyed: bool,
    },
    /// The call is over: the last fact of its life. Its recordings may still be published after it.
    Released {
        /// Why.
        cause: ReleaseCause,
        /// The leg that ended it; `None`: we did.
        by: Option<LegId>,
        /// It had been answered.
        answered: bool,
    },
    /// A session began (its Start mark is sent; the recorder confirms with [`What::RecordingBegun`]).
    RecordingStarted {
        /// The session.
        id: RecordingId,
        /// Its owner.
        owner: LegId,
        /// The owner's side.
        side: Side,
        /// `default`, `dn`, `trunk`, `route`, `request`.
        trigger: &'static str,
        /// Recording is required: the call ends when it fails.
        required: bool,
    },
    /// Its files exist.
    RecordingBegun {
        /// The session.
        id: RecordingId,
    },
    /// A session writes silence from now on.
    RecordingPaused {
        /// The session.
        id: RecordingId,
    },
    /// It does no more.
    RecordingResumed {
        /// The session.
        id: RecordingId,
    },
    /// A session goes on with another owner (`termination-on-transfer = "maintain"`).
    OwnerChanged {
        /// The session.
        id: RecordingId,
        /// The new owner.
        owner: LegId,
    },
    /// A session ended.
    RecordingStopped {
        /// The session.
        id: RecordingId,
        /// Why.
        cause: StopCause,
    },
    /// A session is in its published folder.
    RecordingPublished {
        /// The session.
        id: RecordingId,
    },
    /// A call that was to be recorded is not, or no more. Exactly one per session or refused session.
    RecordingFailed {
        /// The session, when it had begun.
        id: Option<RecordingId>,
        /// `codec`, `no-space`, `write-error`, `disk-full`.
        cause: &'static str,
        /// Recording was required: the call is refused or ended.
        required: bool,
    },
    /// Somebody should look; the call goes on.
    Warning {
        /// What is wrong, in words of ours.
        text: &'static str,
    },
}

/// One party as facts name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    /// Its directory number, when it is a DN.
    pub dn: Option<String>,
    /// The trunk it comes by, when it is no DN.
    pub trunk: Option<String>,
    /// Its number.
    pub number: String,
}

/// `route.origin`: where an interaction comes from and goes back to (spec/events.md §3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Origin {
    /// `queue:NAME`.
    Queue(Arc<str>),
    /// `workbin:NAME`.
    Workbin(Arc<str>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue(name) => write!(f, "queue:{name}"),
            Self::Workbin(name) => write!(f, "workbin:{name}"),
        }
    }
}

/// How a transfer is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transfer {
    /// The target is called when the transfer begins: blind REFER, SingleStepTransfer.
    SingleStep,
    /// The target has been consulted, or rings: REFER with Replaces, CompleteTransfer.
    Consulted,
    /// MuteTransfer.
    Mute,
}

impl Transfer {
    /// The label of metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::SingleStep => "single-step",
            Self::Consulted => "consulted",
            Self::Mute => "mute",
        }
    }
}

/// Why a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReleaseCause {
    /// BYE from a party.
    Released,
    /// CANCEL of the caller, or BYE before the answer.
    Abandoned,
    /// The called side refused with this code (486 and 600: busy).
    Rejected(u16),
    /// The ring timeout.
    NoAnswer,
    /// No address of the called side answered.
    Unreachable,
    /// A party vanished: no ACK, 408 or 481 in the dialog, no media and no answer to OPTIONS.
    Lost,
    /// No usable answer or offer.
    Media,
    /// Recording is required and failed.
    Recording,
    /// The server stops.
    Shutdown,
}

impl ReleaseCause {
    /// The label of metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Abandoned => "abandoned",
            Self::Rejected(486 | 600) => "busy",
            Self::Rejected(_) => "rejected",
            Self::NoAnswer => "no-answer",
            Self::Unreachable => "unreachable",
            Self::Lost => "lost",
            Self::Media => "media",
            Self::Recording => "recording-required",
            Self::Shutdown => "shutdown",
        }
    }
}
