//! Requests from outside: what a desktop, a driver or an operator asks of a call (spec/events.md §1, spec/interface.md §3).

use std::fmt;
use std::sync::Arc;

use crate::bridge::command::Digit;
use crate::id::{ConnId, RecordingId};

/// One request. It is decided at once or, while an offer is open in the call, within five seconds (spec/sip.md §2).
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The call in which `this_dn` is active (spec/sip.md §6). [`Ask::MakeCall`] names none and does not look at it.
    pub conn_id: ConnId,
    /// Who asks: the number of a configured DN.
    pub this_dn: String,
    /// `ReferenceID`: it stands in every fact that the request causes.
    pub reference: Option<Arc<str>>,
    /// What.
    pub ask: Ask,
}

impl Request {
    /// The ConnID of a request that names no call. No call has it.
    pub const NO_CALL: ConnId = ConnId(0);
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Calls `ThisDN`, and when it has answered `to` for it.
    MakeCall {
        /// `OtherDN`.
        to: String,
    },
    /// `ThisDN` rings: its phone is asked to answer.
    AnswerCall,
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
    /// Calls `to` into the call. Everybody talks on meanwhile, unless `hold`.
    SingleStepConference {
        /// `OtherDN`.
        to: String,
        /// `ThisDN` holds the others until `to` answers or fails; busy leaves them held (an IVR's OneStepConf).
        hold: bool,
    },
    /// [`Ask::InitiateTransfer`], for a conference. Either may be completed as the other.
    InitiateConference {
        /// `OtherDN`.
        to: String,
    },
    /// The consulted party joins the held call, and so does `ThisDN` again.
    CompleteConference {
        /// The held call; may be left out when `ThisDN` has exactly two.
        other: Option<ConnId>,
    },
    /// Two calls of `ThisDN` become one conference; the path's goes on.
    MergeCalls {
        /// The other call.
        other: ConnId,
    },
    /// A party of a conference leaves it. With two parties left, or naming itself, `ThisDN` leaves.
    DeleteFromConference {
        /// `OtherDN`: a DN of the call, or the number of a party behind a trunk. One that rings is no longer called.
        party: String,
    },
    /// A party hears nobody any more.
    ListenDisconnect {
        /// `OtherDN`; `None`: `ThisDN`.
        party: Option<String>,
    },
    /// It hears the others again.
    ListenReconnect {
        /// `OtherDN`; `None`: `ThisDN`.
        party: Option<String>,
    },
    /// Nobody hears `ThisDN` any more; a supervisor's mode becomes mute.
    SetMuteOn {
        /// A supervisor's mode becomes coach instead.
        coach: bool,
    },
    /// Everybody hears `ThisDN` again; a supervisor's mode becomes connect.
    SetMuteOff {
        /// A supervisor's mode becomes coach instead.
        coach: bool,
    },
    /// Presses keys for `ThisDN`: the other party hears them.
    SendDtmf {
        /// One to [`Ask::MAX_DIGITS`].
        digits: Vec<Digit>,
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
    /// Most digits of one [`Ask::SendDtmf`].
    pub const MAX_DIGITS: usize = 32;

    /// Its name in paths, logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::MakeCall { .. } => "make-call",
            Self::AnswerCall => "answer-call",
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
            Self::SingleStepConference { .. } => "single-step-conference",
            Self::InitiateConference { .. } => "initiate-conference",
            Self::CompleteConference { .. } => "complete-conference",
            Self::MergeCalls { .. } => "merge-calls",
            Self::DeleteFromConference { .. } => "delete-from-conference",
            Self::ListenDisconnect { .. } => "listen-disconnect",
            Self::ListenReconnect { .. } => "listen-reconnect",
            Self::SetMuteOn { .. } => "set-mute-on",
            Self::SetMuteOff { .. } => "set-mute-off",
            Self::SendDtmf { .. } => "send-dtmf",
            Self::RecordStart { .. } => "record-start",
            Self::RecordPause { .. } => "record-pause",
            Self::RecordResume { .. } => "record-resume",
            Self::RecordStop { .. } => "record-stop",
        }
    }
}

/// A request of a DN that concerns no call yet; decided at once.
#[derive(Debug, Clone, PartialEq)]
pub struct DnRequest {
    /// Who asks: the number of a configured DN.
    pub this_dn: String,
    /// `ReferenceID`.
    pub reference: Option<Arc<str>>,
    /// What.
    pub ask: DnAsk,
}

/// What a DN asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnAsk {
    /// `ThisDN`, a supervisor, is called into the next call of an agent. It replaces what it has asked for before.
    MonitorNextCall(MonitorNextCall),
    /// It is called into no further one. Where it is in a call, it stays.
    CancelMonitoring {
        /// `OtherDN`.
        agent: String,
    },
}

impl DnAsk {
    /// Its name in paths, logs and events.
    pub fn name(&self) -> &'static str {
        match self {
            Self::MonitorNextCall(_) => "monitor-next-call",
            Self::CancelMonitoring { .. } => "cancel-monitoring",
        }
    }
}

/// Whose calls a supervisor wants to join, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonitorNextCall {
    /// `OtherDN`: the monitored DN.
    pub agent: String,
    /// `MonitorMode`; `None`: as `[supervision]` says.
    pub mode: Option<MonitorMode>,
    /// `MonitorScope`; `None`: as `[supervision]` says.
    pub scope: Option<MonitorScope>,
    /// `MonitorNextCallType`: all calls, until cancelled; else the next one.
    pub all: bool,
    /// `Intrusion`: a call in progress is joined at once.
    pub intrusion: bool,
}

/// Who hears a supervisor (spec/recording.md §4.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MonitorMode {
    /// Nobody.
    #[default]
    Mute,
    /// The supervised agent.
    Coach,
    /// Everybody.
    Connect,
}

impl MonitorMode {
    /// As in the configuration and in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mute => "mute",
            Self::Coach => "coach",
            Self::Connect => "connect",
        }
    }
}

/// What a supervisor stays with when the agent leaves first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MonitorScope {
    /// The call.
    #[default]
    Call,
    /// The agent: it leaves, too.
    Agent,
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
    /// The call; for consultations and MakeCall the new one.
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
    /// The configuration does not allow it.
    NotAllowed,
    /// The call has no codec that can be decoded.
    Codec,
    /// The disk has no room for another recording.
    NoSpace,
    /// The phone holds by its own SDP and refused to take audio.
    HeldByPhone,
    /// The phone has no means for it.
    NotSupported,
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
            Self::NotAllowed => "not-allowed",
            Self::Codec => "codec",
            Self::NoSpace => "no-space",
            Self::HeldByPhone => "held-by-phone",
            Self::NotSupported => "not-supported",
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
