//! Live calls as `GET /v1/calls` shows them.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::call::Call;
use super::recording::Session;
use crate::id::{CallUuid, ConnId, LegId, RecordingId};
use crate::record::mark::Level;

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
    /// `calling`, `early`, `answering`, `talking`, `held`, `conference`, `consulting`, `transferring`, `ending`; of a
    /// dial-in room `entering` (somebody at its door) and `waiting` (one member alone) besides.
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

/// One leg of a live call. Its figures are those of the last second.
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
    /// `customer`, `agent`, `supervisor`, `member` (of a dial-in room).
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
    /// RTP packets of it that are missing by sequence number (RFC 3550 A.3).
    pub lost: u64,
    /// Packets that were not taken: from another source, of a payload type that was not negotiated, not RTP, or in no
    /// codec that the other side takes.
    pub refused: u64,
    /// Interarrival jitter of what it sends (RFC 3550 A.8) in ms; null before its first packet.
    pub jitter_ms: Option<f64>,
    /// How much faster its clock is than ours, in parts per million: measured by the recorder that hears it, after about
    /// ten seconds. Null when nobody records it.
    pub clock_skew_ppm: Option<f64>,
    /// When its last RTP packet came. After `media.inactivity-timeout` of silence we ask its
    /// phone by SIP whether it is still in the call.
    pub last_packet: Option<Timestamp>,
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
    /// `starting` until its files exist, then `recording` or `paused`.
    pub state: &'static str,
    /// What its files have got in the last whole second that was written, about a second ago; by file and channel.
    pub levels: Vec<Level>,
}

impl Session {
    /// As it is shown.
    pub(super) fn view(&self) -> RecordingView {
        RecordingView {
            id: self.id,
            owner_leg: self.owner,
            trigger: self.trigger,
            paused: self.is_paused,
            state: RECORDING_STATES[self.state()],
            levels: self.levels.clone(),
        }
    }

    /// Its place in [`RECORDING_STATES`].
    fn state(&self) -> usize {
        match (self.has_begun, self.is_paused) {
            (false, _) => 0,
            (true, false) => 1,
            (true, true) => 2,
        }
    }
}

/// The states of a running session.
pub const RECORDING_STATES: [&str; 3] = ["starting", "recording", "paused"];

impl Call {
    /// Adds its running sessions, by [`RECORDING_STATES`].
    pub(super) fn count_recordings(&self, mut sums: [usize; 3]) -> [usize; 3] {
        for session in &self.recording.sessions {
            sums[session.state()] += 1;
        }
        sums
    }
}

/// To a tenth: what is shown of a measured figure.
pub(super) fn tenths(figure: f64) -> f64 {
    (figure * 10.0).round() / 10.0
}
