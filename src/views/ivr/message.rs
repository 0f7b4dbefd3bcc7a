//! The words of the interface: what a driver asks, and what it is told (spec/events.md §2).

use std::fmt;
use std::sync::Arc;

use crate::id::ConnId;

/// What a driver asks of a call. `to` is `DestDN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Adds a party without talking to it first.
    OneStepConf {
        /// Whom.
        to: String,
    },
    /// Holds the call and calls a party that is to join it.
    InitConf {
        /// Whom.
        to: String,
    },
    /// All three talk.
    CompleteConf,
    /// Connects the caller with somebody else, and leaves.
    OneStepXfer {
        /// Whom.
        to: String,
    },
    /// Holds the call and calls the party that is to have it.
    InitXfer {
        /// Whom.
        to: String,
    },
    /// Connects the two, and leaves.
    CompleteXfer,
    /// Talks to the held party again.
    RetrieveCall,
    /// Places a call of the port whose call is named. The new call is told under a CallId of its own.
    MakeCall {
        /// Whom.
        to: String,
    },
    /// Leaves the call.
    EndCall,
}

impl Message {
    /// What a CallError names when it fails.
    pub fn request(&self) -> FailedReq {
        match self {
            Self::OneStepConf { .. } => FailedReq::OneStepConf,
            Self::InitConf { .. } => FailedReq::InitConf,
            Self::CompleteConf => FailedReq::CompleteConf,
            Self::OneStepXfer { .. } => FailedReq::OneStepXfer,
            Self::InitXfer { .. } => FailedReq::InitXfer,
            Self::CompleteXfer => FailedReq::CompleteXfer,
            Self::RetrieveCall => FailedReq::RetrieveCall,
            Self::MakeCall { .. } => FailedReq::MakeCall,
            // The protocol has no name for it.
            Self::EndCall => FailedReq::Unknown,
        }
    }
}

/// `CallStatus Event=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// The port calls somebody.
    Dialing,
    /// The port rings.
    Ringing,
    /// Whom it called, or itself, has answered.
    Established,
    /// It talks to the other party again.
    Retrieved,
    /// Whom it called is busy: no error.
    Busy,
    /// The other party is held.
    Held,
    /// Somebody has joined.
    ConfPartyAdd,
    /// Somebody has left.
    ConfPartyDel,
    /// The transfer has succeeded.
    XferComplete,
    /// The port has left the call.
    Released,
}

impl Status {
    /// The attribute's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dialing => "Dialing",
            Self::Ringing => "Ringing",
            Self::Established => "Established",
            Self::Retrieved => "Retrieved",
            Self::Busy => "Busy",
            Self::Held => "Held",
            Self::ConfPartyAdd => "ConfPartyAdd",
            Self::ConfPartyDel => "ConfPartyDel",
            Self::XferComplete => "XferComplete",
            Self::Released => "Released",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `CallError FailedReq=`. The protocol also knows `AgentControl`, which answers requests about agents: there are none here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailedReq {
    /// A message that is not known, and EndCall, which has no name of its own.
    Unknown,
    /// No call of an IVR port has that CallId.
    NoSuchCall,
    /// [`Message::OneStepXfer`].
    OneStepXfer,
    /// [`Message::OneStepConf`].
    OneStepConf,
    /// [`Message::InitConf`].
    InitConf,
    /// [`Message::CompleteConf`].
    CompleteConf,
    /// [`Message::InitXfer`].
    InitXfer,
    /// [`Message::CompleteXfer`].
    CompleteXfer,
    /// [`Message::RetrieveCall`].
    RetrieveCall,
    /// [`Message::MakeCall`].
    MakeCall,
    /// Too many messages for this call wait for the one in hand.
    NotAllowed,
}

impl FailedReq {
    /// The attribute's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::NoSuchCall => "NoSuchCall",
            Self::OneStepXfer => "OneStepXfer",
            Self::OneStepConf => "OneStepConf",
            Self::InitConf => "InitConf",
            Self::CompleteConf => "CompleteConf",
            Self::InitXfer => "InitXfer",
            Self::CompleteXfer => "CompleteXfer",
            Self::RetrieveCall => "RetrieveCall",
            Self::MakeCall => "MakeCall",
            Self::NotAllowed => "NotAllowed",
        }
    }
}

impl fmt::Display for FailedReq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `CallError`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallError {
    /// What has failed.
    pub failed: FailedReq,
    /// `TLibErrCode`, where there is a number that fits.
    pub code: Option<u16>,
    /// `ReqId` as the driver gave it.
    pub req_id: Option<Arc<str>>,
}

/// What a driver is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Say {
    /// `CallStatus`.
    Status(Status),
    /// `CallError`.
    Error(CallError),
}

/// A driver's connection. Never reused while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DriverId(pub u64);

/// Who is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Every driver.
    All,
    /// Who has asked.
    Driver(DriverId),
}

/// One message to drivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telling {
    /// `CallId`.
    pub call: ConnId,
    /// Who is told.
    pub to: Audience,
    /// What.
    pub say: Say,
}
