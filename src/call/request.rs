//! Requests from outside: what a desktop, a driver or an operator asks of a call (spec/events.md §1, spec/interface.md §3).

use std::fmt;
use std::sync::Arc;

use crate::id::{ConnId, RecordingId};

/// One request. It is decided at once or, while an offer is open in the call, within five seconds (spec/sip.md §2).
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The call in which `this_dn` is active (spec/sip.md §6).
    pub conn_id: ConnId,
    /// Who asks: the number of a configured DN.
    pub this_dn: String,
    /// `ReferenceID`: it stands in every fact that the request causes.
    pub reference: Option<Arc<str>>,
    /// What.
    pub ask: Ask,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// `ThisDN` leaves the call.
    ReleaseCall,
    /// `ThisDN` puts the other side on hold.
    HoldCall,
    /// It talks to the other side again; a consultation that is open ends.
    RetrieveCall,
    /// Calls `to` while the other side is held: a consultation with a ConnID of its own.
    InitiateTransfer {
        /// `OtherDN`.
        to: String,
    },
    /// [`Ask::InitiateTransfer`] and [`Ask::CompleteTransfer`] in one: `ThisDN` never hears `to`.
    MuteTransfer {
        /// `OtherDN`.
        to: String,
    },
    /// The held and the consulted party talk; `ThisDN` leaves.
    CompleteTransfer {
        /// The held call; may be left out when `ThisDN` has exactly two.
        other: Option<ConnId>,
    },
    /// Transfers without consulting, as a blind REFER does.
    SingleStepTransfer {
        /// `OtherDN`.
        to: String,
    },
    /// The held call becomes active and the active one is held.
    AlternateCall {
        /// The held call.
        other: Option<ConnId>,
    },
    /// Drops the consultation and retrieves the held call.
    ReconnectCall {
        /// The held call.
        other: Option<ConnId>,
    },
    /// `ThisDN` rings: the call rings at `to` instead.
    RedirectCall {
        /// `OtherDN`.
        to: String,
    },
    /// Starts a recording.
    RecordStart {
        /// Whose.
        owner: OwnerWish,
    },
    /// Silences a recording.
    RecordPause {
        /// Which; `None`: all that `ThisDN` owns.
        recording: Option<RecordingId>,
    },
    /// Ends its silence.
    RecordResume {
        /// Which; `None`: all that `ThisDN` owns.
        recording: Option<RecordingId>,
    },
    /// Ends a recording.
    RecordStop {
        /// Which; `None`: all that `ThisDN` owns.
        recording: Option<RecordingId>,
    },
}

impl Ask {
    /// Its name in paths, logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ReleaseCall => "release-call",
            Self::HoldCall => "hold-call",
            Self::RetrieveCall => "retrieve-call",
            Self::InitiateTransfer { .. } => "initiate-transfer",
            Self::MuteTransfer { .. } => "mute-transfer",
            Self::CompleteTransfer { .. } => "complete-transfer",
            Self::SingleStepTransfer { .. } => "single-step-transfer",
            Self::AlternateCall { .. } => "alternate-call",
            Self::ReconnectCall { .. } => "reconnect-call",
            Self::RedirectCall { .. } => "redirect-call",
            Self::RecordStart { .. } => "record-start",
            Self::RecordPause { .. } => "record-pause",
            Self::RecordResume { .. } => "record-resume",
            Self::RecordStop { .. } => "record-stop",
        }
    }
}

/// Whose recording is asked for (spec/recording.md §3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnerWish {
    /// `Extensions.record = source`, the default: the requester's own leg.
    Source,
    /// `Extensions.record = destination`: the other leg of a two-party call.
    Destination,
    /// `OtherDN`: that party's leg, wherever the requester is.
    Dn(String),
}

/// A request was accepted; its outcome comes as facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The call; for consultations the new one.
    pub conn_id: ConnId,
    /// The session that a `record-start` has begun or found running.
    pub recording: Option<RecordingId>,
    /// After `record-pause`, `-resume` and `-stop`: the sessions of the call that still record.
    pub still_recording: Vec<RecordingId>,
}

impl Accepted {
    /// Without recordings.
    pub fn new(conn_id: ConnId) -> Self {
        Self { conn_id, recording: None, still_recording: Vec::new() }
    }
}

/// A request was refused; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// For programs.
    pub code: Code,
    /// For people.
    pub detail: String,
    /// The state that was found, in words: `talking`, `consulting, D3 rings`, … .
    pub state: String,
}

/// Why a request is refused. The names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// No live call has that ConnID.
    UnknownCall,
    /// `ThisDN` is no configured DN.
    UnknownDn,
    /// `ThisDN` has no leg in that call.
    NotAParty,
    /// The call's state does not allow it.
    WrongState,
    /// `OtherDN` leads nowhere.
    UnknownTarget,
    /// `OtherConnID` is needed, or names no call of `ThisDN`.
    OtherCall,
    /// The owner must be named by `OtherDN`.
    OwnerRequired,
    /// A recording cannot be owned by a party that is only consulted.
    ConsultedOwner,
    /// There is no such running recording.
    UnknownRecording,
    /// The call has no codec that can be decoded.
    Codec,
    /// The disk has no room for another recording.
    NoSpace,
    /// The phone holds by its own SDP and refused to take audio.
    HeldByPhone,
    /// An exchange of SIP in the call did not end in time.
    Busy,
    /// A limit: calls, ports, transactions; or the server stops.
    Limit,
}

impl Code {
    /// `unknown-call`, … .
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownCall => "unknown-call",
            Self::UnknownDn => "unknown-dn",
            Self::NotAParty => "not-a-party",
            Self::WrongState => "wrong-state",
            Self::UnknownTarget => "unknown-target",
            Self::OtherCall => "other-call",
            Self::OwnerRequired => "owner-required",
            Self::ConsultedOwner => "consulted-owner",
            Self::UnknownRecording => "unknown-recording",
            Self::Codec => "codec",
            Self::NoSpace => "no-space",
            Self::HeldByPhone => "held-by-phone",
            Self::Busy => "busy",
            Self::Limit => "limit",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names a request until it is answered; given by who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);
