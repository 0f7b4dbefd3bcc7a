//! Marks: what a recorder must know of a call, each with the monotonic instant of the decision.
//!
//! A mark takes effect at sample round((at − t0) · rate) of each session it concerns, whatever the packets in the rings
//! do. Marks travel in a queue that never drops; with them a watermark: every mark before that instant has been sent.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::codec::Payload;
use crate::id::{CallUuid, ConnId, LegId, RecordingId};

/// One change and the instant it was decided.
#[derive(Debug, Clone)]
pub struct Mark {
    /// When, on the monotonic clock.
    pub at: Instant,
    /// What.
    pub change: Change,
}

/// What changed.
#[derive(Debug, Clone)]
pub enum Change {
    /// From now on the leg's peer may send these payload types. The first one makes the leg known to the recorder,
    /// before any session names it. A packet is read with the table that was in force when it arrived.
    Payloads {
        /// The leg.
        leg: LegId,
        /// Numbers and codecs.
        payloads: Arc<[Payload]>,
    },
    /// The leg's tap ends. Late packets are still taken for the reorder window.
    LegEnded(LegId),
    /// A session begins; `at` is its t0.
    Start(Box<SessionStart>),
    /// Who is in the owner's conversation now. A new segment begins where anything differs.
    Conversation {
        /// The session.
        id: RecordingId,
        /// The present state, whole.
        conversation: Conversation,
    },
    /// Digital silence from here (widened by 20 ms), in every file.
    Pause(RecordingId),
    /// The end of the pause.
    Resume(RecordingId),
    /// Something worth telling in the metadata's `events`: a name and attributes without secrets.
    Event {
        /// The session.
        id: RecordingId,
        /// The event's name (spec/events.md §1 or `Warning`).
        name: Arc<str>,
        /// Attributes.
        attributes: Vec<(Arc<str>, Arc<str>)>,
    },
    /// The session ends here.
    Stop {
        /// The session.
        id: RecordingId,
        /// Why.
        cause: StopCause,
    },
}

/// [`Change::Event`] of a session that has another owner now; its attribute `leg` names it. The segments are verified by
/// it.
pub const OWNER_CHANGED: &str = "owner-changed";

/// Everything fixed at a session's start.
#[derive(Debug, Clone)]
pub struct SessionStart {
    /// The session.
    pub id: RecordingId,
    /// Wall-clock time of t0; every other time in the metadata is this plus sample / rate.
    pub start_time: Timestamp,
    /// Stable id of the call.
    pub call_uuid: CallUuid,
    /// spec/sip.md §1.
    pub caller_phone_number: String,
    /// spec/sip.md §1.
    pub dialed_phone_number: String,
    /// The leg that owns the session.
    pub owner_leg: LegId,
    /// The owner's directory number, when it is a DN.
    pub owner_dn: Option<String>,
    /// The owner's side.
    pub side: Side,
    /// What started it: `default`, `dn`, `trunk`, `route`, `request`, `preference`, `room`.
    pub trigger: String,
    /// The rule that chose the owner, in words that an operator understands.
    pub rule: String,
    /// Which files.
    pub layout: Layout,
    /// Samples per second of every file.
    pub sample_rate: u32,
    /// The conversation at t0.
    pub conversation: Conversation,
}

/// The owner's conversation at an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// Its ConnID (a consult call has its own).
    pub conn_id: ConnId,
    /// The leg that owns the session now (changes at most by `termination-on-transfer = "maintain"`).
    pub owner: LegId,
    /// Everybody in it, Observers and the owner included.
    pub members: Vec<Member>,
    /// It is a consultation.
    pub consult: bool,
    /// Before the answer (`early-media = true`).
    pub early: bool,
    /// Members are participants but not bridged (a transfer target rings): nobody speaks.
    pub unbridged: bool,
}

/// One party of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its leg.
    pub leg: LegId,
    /// Its directory number, when it is a DN.
    pub dn: Option<String>,
    /// Its address as SIP gave it.
    pub uri: String,
    /// Its role.
    pub role: Role,
    /// Its channel in layout `stereo`.
    pub channel: Channel,
    /// It holds this connection (direction or `c=0.0.0.0`).
    pub holds: bool,
    /// We hold this connection for it (by request).
    pub held: bool,
    /// It is muted.
    pub muted: bool,
}

/// `recordingSession.side`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The leg whose INVITE came in.
    Origination,
    /// The leg that answered.
    Termination,
    /// A dial-in room.
    Room,
}

/// `recording.layout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// `mixed.wav`, one channel.
    #[default]
    Mixed,
    /// `mixed.wav`, left the origination side, right everybody else.
    Stereo,
    /// `mixed.wav` and one `party-N.wav` per party.
    Tracks,
}

/// A channel of layout `stereo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Channel 0.
    Left,
    /// Channel 1.
    Right,
}

impl Channel {
    /// The other one.
    pub fn opposite(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

/// `participants[].role`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Came by a trunk, or called.
    Customer,
    /// A DN.
    Agent,
    /// Called for advice.
    Consulted,
    /// An Observer: never in `mixed.wav`.
    Supervisor,
    /// In a room.
    Member,
    /// Audio that we play.
    System,
}

/// `recordingSession.stopCause`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StopCause {
    /// The call ended.
    Released,
    /// The owner left and the call went on.
    OwnerLeft,
    /// By request.
    Stopped,
    /// The server stopped.
    Shutdown,
    /// The process died; repaired at the next start.
    Crash,
    /// The disk refused a write.
    WriteError,
    /// No space.
    DiskFull,
    /// Early media was recorded and nobody answered.
    NotAnswered,
    /// The session timer (RFC 4028) ran out.
    SessionExpired,
}

/// From a recorder to signaling.
#[derive(Debug, Clone)]
pub enum Notice {
    /// The files exist, each with a header.
    Begun(RecordingId),
    /// It could not be begun, or broke off; the call goes on unless recording is required.
    Failed {
        /// The session.
        id: RecordingId,
        /// `write-error` or `disk-full` when it had begun.
        cause: StopCause,
        /// For the event and the log; no path.
        reason: String,
    },
    /// Final and in its published folder.
    Published(RecordingId),
    /// What was measured in the last second that was written, about once a second.
    Measured {
        /// The session.
        id: RecordingId,
        /// What.
        measured: Measured,
    },
}

/// What a running session's last second was like, for people who look at it now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured {
    /// By file and channel.
    pub levels: Vec<Level>,
    /// How much faster the clock of a leg's peer is than ours, in parts per million, where it is known by now.
    pub clock_skew_ppm: Vec<(LegId, f64)>,
}

/// The level of one channel of a file over a second. 0 dBFS is a full-scale sine (AES17); `None`: digital silence.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Level {
    /// The file's name: `mixed.wav`, `supervisor-1.wav`, … .
    pub file: String,
    /// The channel in it; in layout `stereo` 0 is left.
    pub channel: u16,
    /// The largest sample.
    pub peak_dbfs: Option<f64>,
    /// The root of the mean square.
    pub rms_dbfs: Option<f64>,
}
