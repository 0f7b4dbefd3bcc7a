//! Live calls as `GET /v1/calls` shows them.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::id::{CallUuid, ConnId, LegId, RecordingId};

/// One live call.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CallView {
    /// Its connection id.
    pub conn_id: ConnId,
    /// Of a consult call: the call that its caller holds.
    pub previous_conn_id: Option<ConnId>,
    /// Stable id.
    pub call_uuid: CallUuid,
    /// `calling`, `early`, `answering`, `talking`, `held`, `conference`, `consulting`, `transferring`, `ending`.
    pub state: &'static str,
    /// When its INVITE came.
    pub started: Timestamp,
    /// When it was answered.
    pub answered: Option<Timestamp>,
    /// spec/sip.md §1.
    pub caller_phone_number: String,
    /// spec/sip.md §1.
    pub dialed_phone_number: String,
    /// Its legs, the caller's first.
    pub parties: Vec<PartyView>,
    /// Its running sessions.
    pub recordings: Vec<RecordingView>,
}

/// One leg of a live call.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartyView {
    /// The leg.
    pub leg_id: LegId,
    /// Its directory number, when it is a DN.
    pub dn: Option<String>,
    /// The trunk it comes by.
    pub trunk: Option<String>,
    /// Its number.
    pub number: String,
    /// `customer`, `agent`, `supervisor`.
    pub role: &'static str,
    /// `calling`, `ringing`, `established`, `ending`.
    pub state: &'static str,
    /// It holds.
    pub holds: bool,
    /// Codec that it sends, when negotiated.
    pub codec: Option<String>,
    /// Where its media really comes from, once latched.
    #[schema(value_type = Option<String>)]
    pub media: Option<SocketAddr>,
    /// RTP packets received from it.
    pub received: u64,
    /// RTP packets sent to it.
    pub sent: u64,
    /// RTP packets of it that are missing.
    pub lost: u64,
}

/// One running session.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordingView {
    /// The session.
    pub id: RecordingId,
    /// Its owner.
    pub owner_leg: LegId,
    /// What started it.
    pub trigger: &'static str,
    /// It writes silence, by request.
    pub paused: bool,
}
