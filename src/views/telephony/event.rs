//! One telephony event and its enumerations (spec/events.md §1).
//!
//! **JSON.** Names are those of the table; enumerations stand as their names (`"CallState": "Transferred"`), because the
//! event itself does, too; [`CallState::number`] and its like give the numbers of the protocol. An attribute that nothing
//! is known of is left out. `seq` and `time` are added by who keeps the events ([`crate::runtime::events`]).

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::id::{CallUuid, ConnId, RecordingId};

/// An enumeration of the protocol: each value with its number and its name in JSON.
macro_rules! enumeration {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $number:literal $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $(#[doc = concat!("`", $text, "`, ", $number, ".")] $variant,)+
        }

        impl $name {
            /// All values, by number.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The number in the protocol.
            pub fn number(self) -> u16 {
                match self { $(Self::$variant => $number,)+ }
            }

            /// The name in JSON.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

enumeration! {
    /// What kind of call it is. It stays as it was when the call began, whoever is transferred.
    CallType {
        Unknown = 0 "Unknown",
        Internal = 1 "Internal",
        Inbound = 2 "Inbound",
        Outbound = 3 "Outbound",
        Consult = 4 "Consult",
    }
}

enumeration! {
    /// What a party is in the call, or in what happens to it.
    DnRole {
        Unknown = 0 "Unknown",
        Origination = 1 "Origination",
        Destination = 2 "Destination",
        ConferenceMember = 3 "ConferenceMember",
        NewParty = 4 "NewParty",
        AddedBy = 5 "AddedBy",
        DeletedBy = 6 "DeletedBy",
        TransferredBy = 7 "TransferredBy",
        DeletedParty = 8 "DeletedParty",
        ConferencedBy = 9 "ConferencedBy",
        Observer = 10 "Observer",
    }
}

enumeration! {
    /// How the call stands after the event: those that are emitted.
    CallState {
        Ok = 0 "OK",
        Transferred = 1 "Transferred",
        Conferenced = 2 "Conferenced",
        GeneralError = 3 "GeneralError",
        SystemError = 4 "SystemError",
        RemoteRelease = 5 "RemoteRelease",
        Busy = 6 "Busy",
        NoAnswer = 7 "NoAnswer",
        Abandoned = 21 "Abandoned",
        Redirected = 22 "Redirected",
        Forwarded = 23 "Forwarded",
        Dropped = 26 "Dropped",
        Bridged = 31 "Bridged",
        Held = 50 "Held",
    }
}

enumeration! {
    /// Why.
    Cause {
        Busy = 2 "Busy",
        NoAnswer = 3 "NoAnswer",
        Reject = 4 "Reject",
        Forward = 8 "Forward",
        Redirect = 9 "Redirect",
        Transfer = 10 "Transfer",
        SingleStepTransfer = 11 "1stepTransfer",
        Conference = 12 "Conference",
    }
}

/// What a recording does now (row 22).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum RecordingState {
    /// It records: it has begun, was resumed, or has a new owner.
    Recording,
    /// It writes silence.
    Paused,
    /// It has ended.
    Stopped,
    /// It could not begin, or broke off.
    Failed,
}

/// Which event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Name {
    /// `ThisDN` calls.
    EventDialing,
    /// `ThisDN` is called.
    EventRinging,
    /// `ThisDN` talks.
    EventEstablished,
    /// Whom `ThisDN` calls is busy.
    EventDestinationBusy,
    /// The call no longer rings at `ThisDN`, which has not answered it.
    EventAbandoned,
    /// `ThisDN` is out of the call.
    EventReleased,
    /// `ThisDN` holds.
    EventHeld,
    /// `ThisDN` holds no more.
    EventRetrieved,
    /// `ThisDN` talks to somebody else, or in another call.
    EventPartyChanged,
    /// Somebody else is in the call.
    EventPartyAdded,
    /// Somebody else has left the call, which goes on.
    EventPartyDeleted,
    /// A supervisor waits for calls of an agent.
    EventMonitoringNextCall,
    /// It does no more.
    EventMonitoringCancelled,
    /// Nobody hears `ThisDN` any more.
    EventMuteOn,
    /// `ThisDN` is heard again.
    EventMuteOff,
    /// `ThisDN` hears nobody any more.
    EventListenDisconnected,
    /// `ThisDN` hears the others again.
    EventListenReconnected,
    /// Something that no other event says: recordings, a supervisor's mode.
    EventPrivateInfo,
    /// A request of `ThisDN` was refused or has failed.
    EventError,
}

impl Name {
    /// As it stands in JSON: `EventDialing`, … .
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EventDialing => "EventDialing",
            Self::EventRinging => "EventRinging",
            Self::EventEstablished => "EventEstablished",
            Self::EventDestinationBusy => "EventDestinationBusy",
            Self::EventAbandoned => "EventAbandoned",
            Self::EventReleased => "EventReleased",
            Self::EventHeld => "EventHeld",
            Self::EventRetrieved => "EventRetrieved",
            Self::EventPartyChanged => "EventPartyChanged",
            Self::EventPartyAdded => "EventPartyAdded",
            Self::EventPartyDeleted => "EventPartyDeleted",
            Self::EventMonitoringNextCall => "EventMonitoringNextCall",
            Self::EventMonitoringCancelled => "EventMonitoringCancelled",
            Self::EventMuteOn => "EventMuteOn",
            Self::EventMuteOff => "EventMuteOff",
            Self::EventListenDisconnected => "EventListenDisconnected",
            Self::EventListenReconnected => "EventListenReconnected",
            Self::EventPrivateInfo => "EventPrivateInfo",
            Self::EventError => "EventError",
        }
    }
}

/// One event for one recipient, `ThisDN`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// `event`.
    #[serde(rename = "event")]
    pub name: Name,
    /// `ConnID`; left out of what concerns no call yet.
    #[serde(rename = "ConnID", skip_serializing_if = "Option::is_none")]
    pub conn_id: Option<ConnId>,
    /// `PreviousConnID`: the call that `ThisDN` was in before.
    #[serde(rename = "PreviousConnID", skip_serializing_if = "Option::is_none")]
    pub previous_conn_id: Option<ConnId>,
    /// `CallUUID`; left out of the refusal of a request.
    #[serde(rename = "CallUUID", skip_serializing_if = "Option::is_none")]
    pub call_uuid: Option<CallUuid>,
    /// `ReferenceID`, when `ThisDN` has asked for it.
    #[serde(rename = "ReferenceID", skip_serializing_if = "Option::is_none", serialize_with = "shared_text")]
    pub reference_id: Option<Arc<str>>,
    /// `CallType`; left out of the refusal of a request.
    #[serde(rename = "CallType", skip_serializing_if = "Option::is_none")]
    pub call_type: Option<CallType>,
    /// `ThisDN`: a configured DN.
    #[serde(rename = "ThisDN")]
    pub this_dn: String,
    /// `ThisDNRole`; left out when `ThisDN` is not in the call.
    #[serde(rename = "ThisDNRole", skip_serializing_if = "Option::is_none")]
    pub this_dn_role: Option<DnRole>,
    /// `OtherDN`: the other party's DN, or its number when it is none. Left out when it is unknown or anonymous.
    #[serde(rename = "OtherDN", skip_serializing_if = "Option::is_none")]
    pub other_dn: Option<String>,
    /// `OtherDNRole`, with `OtherDN`.
    #[serde(rename = "OtherDNRole", skip_serializing_if = "Option::is_none")]
    pub other_dn_role: Option<DnRole>,
    /// `ThirdPartyDN`: who else has to do with it.
    #[serde(rename = "ThirdPartyDN", skip_serializing_if = "Option::is_none")]
    pub third_party_dn: Option<String>,
    /// `ThirdPartyDNRole`, with `ThirdPartyDN`.
    #[serde(rename = "ThirdPartyDNRole", skip_serializing_if = "Option::is_none")]
    pub third_party_dn_role: Option<DnRole>,
    /// `CallState`.
    #[serde(rename = "CallState", skip_serializing_if = "Option::is_none")]
    pub call_state: Option<CallState>,
    /// `Cause`.
    #[serde(rename = "Cause", skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// `RecordingID` of an [`Name::EventPrivateInfo`].
    #[serde(rename = "RecordingID", skip_serializing_if = "Option::is_none")]
    pub recording_id: Option<RecordingId>,
    /// `RecordingState` of an [`Name::EventPrivateInfo`].
    #[serde(rename = "RecordingState", skip_serializing_if = "Option::is_none")]
    pub recording_state: Option<RecordingState>,
    /// `MonitorMode`: who hears the supervisor from now on.
    #[serde(rename = "MonitorMode", skip_serializing_if = "Option::is_none")]
    pub monitor_mode: Option<&'static str>,
    /// `RecordPreference`: what the phone of `ThisDN` would like (RFC 7866 `a=recordpref`).
    #[serde(rename = "RecordPreference", skip_serializing_if = "Option::is_none")]
    pub record_preference: Option<&'static str>,
    /// `Request` that an [`Name::EventError`] refuses, as the path of the API names it.
    #[serde(rename = "Request", skip_serializing_if = "Option::is_none")]
    pub request: Option<&'static str>,
    /// `Code` of an [`Name::EventError`] or of a recording that failed: stable, for programs.
    #[serde(rename = "Code", skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// `Reason` of an [`Name::EventError`], for people.
    #[serde(rename = "Reason", skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `State` that was found, of an [`Name::EventError`].
    #[serde(rename = "State", skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

fn shared_text<S: Serializer>(text: &Option<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
    text.as_deref().serialize(serializer)
}

impl Event {
    /// An event that says nothing but what happened to whom.
    pub fn new(name: Name, conn_id: impl Into<Option<ConnId>>, this_dn: &str) -> Self {
        Self {
            name,
            conn_id: conn_id.into(),
            previous_conn_id: None,
            call_uuid: None,
            reference_id: None,
            call_type: None,
            this_dn: this_dn.to_owned(),
            this_dn_role: None,
            other_dn: None,
            other_dn_role: None,
            third_party_dn: None,
            third_party_dn_role: None,
            call_state: None,
            cause: None,
            recording_id: None,
            recording_state: None,
            monitor_mode: None,
            record_preference: None,
            request: None,
            code: None,
            reason: None,
            state: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enumeration_is_written_by_name_and_keeps_the_number_of_the_protocol() {
        assert_eq!(serde_json::json!(CallState::Ok), "OK");
        assert_eq!(serde_json::json!(Cause::SingleStepTransfer), "1stepTransfer");
        assert_eq!(serde_json::json!(CallType::Consult), "Consult");
        let numbers: Vec<u16> = CallState::ALL.iter().map(|state| state.number()).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 21, 22, 23, 26, 31, 50]);
        let numbers: Vec<u16> = Cause::ALL.iter().map(|cause| cause.number()).collect();
        assert_eq!(numbers, [2, 3, 4, 8, 9, 10, 11, 12]);
        assert!(DnRole::ALL.iter().enumerate().all(|(at, role)| usize::from(role.number()) == at));
        assert!(CallType::ALL.iter().enumerate().all(|(at, kind)| usize::from(kind.number()) == at));
    }

    #[test]
    fn an_event_is_named_alike_in_json_and_in_code() {
        for name in [Name::EventDialing, Name::EventPartyChanged, Name::EventPrivateInfo, Name::EventError] {
            assert_eq!(serde_json::json!(name), name.as_str());
        }
    }

    #[test]
    fn what_is_unknown_is_left_out() {
        let event = Event::new(Name::EventHeld, ConnId(0xA1), "2001");
        let json = serde_json::to_string(&event).unwrap();
        assert_eq!(json, r#"{"event":"EventHeld","ConnID":"00000000000000A1","ThisDN":"2001"}"#);
    }
}
