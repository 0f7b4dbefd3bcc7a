//! recording.json (spec/recording.md §6).
//!
//! Written with every key, read with unknown keys tolerated, so that an older program reads what a newer one wrote.
//! Times are RFC 3339 in UTC with milliseconds; each is [`Recording::start_time`] plus sample / rate
//! ([`time_of_sample`]), so that audio and metadata cannot drift apart.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use super::mark::{Layout, Role, Side, StopCause};
use crate::id::{CallUuid, ConnId, LegId, RecordingId};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recording {
    /// The session; the name of its folder.
    pub id: RecordingId,
    /// Stable for the whole call.
    pub call_uuid: CallUuid,
    /// spec/sip.md §1.
    #[serde(default)]
    pub caller_phone_number: String,
    /// spec/sip.md §1.
    #[serde(default)]
    pub dialed_phone_number: String,
    /// Wall-clock time of sample 0, whole milliseconds.
    #[serde(with = "millis")]
    pub start_time: Timestamp,
    /// The end of the last sample; `null` while it runs.
    #[serde(default, with = "millis_option")]
    pub stop_time: Option<Timestamp>,
    /// Length in milliseconds; `null` while it runs.
    #[serde(default)]
    pub duration_ms: Option<u64>,
    /// Owner, trigger, state.
    pub recording_session: RecordingSession,
    /// Everybody who was in the owner's conversation, by first joining.
    #[serde(default)]
    pub participants: Vec<Participant>,
    /// Stretches in which nothing of their fields changes. They cover the recording without gap or overlap.
    #[serde(default)]
    pub segments: Vec<Segment>,
    /// One entry per file.
    #[serde(default)]
    pub media_files: Vec<MediaFile>,
    /// What came by RTP, one entry per leg.
    #[serde(default)]
    pub media: Vec<Media>,
    /// Stretches of speech that are missing.
    #[serde(default)]
    pub gaps: Vec<Gap>,
    /// Pauses as they were asked for; the silence is 20 ms wider on both sides.
    #[serde(default)]
    pub masks: Vec<Mask>,
    /// What happened meanwhile.
    #[serde(default)]
    pub events: Vec<Event>,
    /// Sentences for an operator.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Who owns the recording and how it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordingSession {
    /// The owner's directory number, when it is a DN.
    #[serde(default)]
    pub owner_dn: Option<String>,
    /// The owner's leg at the start; segments tell when it changed.
    pub owner_leg: LegId,
    /// The owner's side.
    pub side: Side,
    /// What started it: `default`, `dn`, `trunk`, `route`, `request`, `room`.
    pub trigger: String,
    /// The rule that chose the owner, in words.
    pub rule: String,
    /// How it stands.
    pub state: State,
    /// Why it ended; `null` while it runs.
    #[serde(default)]
    pub stop_cause: Option<StopCause>,
}

/// `recordingSession.state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Runs.
    Recording,
    /// Ended in order.
    Complete,
    /// Repaired after a crash.
    Recovered,
    /// Broke off: the disk refused a write.
    Failed,
}

/// One party.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Participant {
    /// Its leg.
    pub leg_id: LegId,
    /// Its directory number, when it is a DN.
    #[serde(default)]
    pub dn: Option<String>,
    /// Its address as SIP gave it.
    #[serde(default)]
    pub uri: String,
    /// Its latest role.
    pub role: Role,
    /// When it first joined.
    #[serde(with = "millis")]
    pub joined: Timestamp,
    /// When it last left; `null` while it is there.
    #[serde(default, with = "millis_option")]
    pub left: Option<Timestamp>,
    /// `left` when it left before the recording ended, else the recording's stop cause.
    #[serde(default)]
    pub leave_cause: Option<String>,
}

/// A longest stretch in which owner, participants, speakers, ConnID, hold and pause do not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Segment {
    /// First sample.
    pub start_sample: u64,
    /// One past the last sample; in a running recording, of what is decided so far.
    pub end_sample: u64,
    /// Time of the first sample.
    #[serde(with = "millis")]
    pub start: Timestamp,
    /// Time of the end sample.
    #[serde(with = "millis")]
    pub end: Timestamp,
    /// ConnID of the owner's conversation.
    pub conn_id: ConnId,
    /// The leg that owns the session here.
    pub owner: LegId,
    /// The owner's conversation, Observers included.
    #[serde(default)]
    pub participants: Vec<LegId>,
    /// Those whose speech enters a file; empty in a hold or a pause.
    #[serde(default)]
    pub speakers: Vec<LegId>,
    /// For each channel of `mixed.wav` the participants whose place it is.
    #[serde(default)]
    pub channels: Vec<Vec<LegId>>,
    /// Digital silence by request.
    #[serde(default)]
    pub paused: bool,
    /// A connection of the conversation is on hold, by the party or by us.
    #[serde(default)]
    pub held: bool,
    /// A consultation.
    #[serde(default)]
    pub consult: bool,
    /// Before the answer.
    #[serde(default)]
    pub early: bool,
}

/// `mediaFiles[].kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// The conversation.
    Mixed,
    /// One supervisor.
    Supervisor,
    /// One party, in layout `tracks`.
    Party,
}

/// One WAV file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MediaFile {
    /// Name within the folder.
    pub file: String,
    /// 1 for the first, 2 for `mixed.2.wav` … .
    pub part: u32,
    /// The recording's sample that is the file's first.
    pub start_sample: u64,
    /// What it holds.
    pub kind: FileKind,
    /// The leg whose voice it is; `null` for `mixed`.
    #[serde(default)]
    pub participant: Option<LegId>,
    /// `audio/wav`.
    #[serde(rename = "type")]
    pub media_type: String,
    /// Interleaved channels.
    pub channels: u16,
    /// Samples per second and channel.
    pub sample_rate: u32,
    /// Samples per channel.
    #[serde(default)]
    pub samples: u64,
    /// Bytes of the file; `null` until it is closed.
    #[serde(default)]
    pub size: Option<u64>,
    /// Lowercase hexadecimal SHA-256 of the file; `null` until it is published.
    #[serde(default)]
    pub sha256: Option<String>,
}

/// `mediaFiles[].type` of every file.
pub const MEDIA_TYPE: &str = "audio/wav";

/// What came by RTP from one leg while it was in the recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Media {
    /// The leg.
    pub leg: LegId,
    /// The codec of the latest audio packet, as an rtpmap writes it; `null` when none came.
    #[serde(default)]
    pub codec: Option<String>,
    /// The payload type of the latest audio packet.
    #[serde(default)]
    pub payload_type: Option<u8>,
    /// Synchronisation sources in order of appearance.
    #[serde(default)]
    pub ssrc: Vec<u32>,
    /// Packets received.
    #[serde(default)]
    pub received: u64,
    /// Packets missing by sequence number.
    #[serde(default)]
    pub lost: u64,
    /// Packets that came too late to be placed.
    #[serde(default)]
    pub late: u64,
    /// Samples at the session's rate that were concealed.
    #[serde(default)]
    pub concealed: u64,
    /// Packets received more than once.
    #[serde(default)]
    pub duplicates: u64,
    /// The sender's clock against ours in parts per million, positive when it runs fast; `null` until it is known.
    #[serde(default)]
    pub clock_skew_ppm: Option<f64>,
}

/// A stretch of a leg's speech that is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// The leg.
    pub leg: LegId,
    /// First missing sample.
    pub start_sample: u64,
    /// One past the last missing sample.
    pub end_sample: u64,
    /// Why.
    pub cause: GapCause,
}

/// `gaps[].cause`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GapCause {
    /// Never came.
    Network,
    /// Came more than the window after its place.
    Late,
    /// Came to us, and we had no room for it.
    DroppedByUs,
}

/// One pause or resume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mask {
    /// When.
    #[serde(with = "millis")]
    pub time: Timestamp,
    /// Which.
    #[serde(rename = "type")]
    pub kind: MaskKind,
}

/// `masks[].type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MaskKind {
    /// Silence begins.
    Paused,
    /// Silence ends.
    Resumed,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When.
    #[serde(with = "millis")]
    pub time: Timestamp,
    /// Its name (spec/events.md §1, `held`, `retrieved` or `Warning`).
    pub name: String,
    /// Attributes, without secrets.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

/// The wall-clock time of a sample: `start` plus sample / rate, cut to whole milliseconds.
pub fn time_of_sample(start: Timestamp, sample: u64, sample_rate: u32) -> Timestamp {
    let ms = i64::try_from(u128::from(sample) * 1_000 / u128::from(sample_rate.max(1))).unwrap_or(i64::MAX);
    start.saturating_add(SignedDuration::from_millis(ms)).unwrap_or(Timestamp::MAX)
}

/// Whole milliseconds, always three digits.
mod millis {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{time:.3}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        Timestamp::deserialize(deserializer)
    }
}

/// [`millis`] or `null`.
mod millis_option {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => super::millis::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        Option::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn recording() -> Recording {
        let start_time: Timestamp = "2026-11-20T09:00:00.120Z".parse().unwrap();
        let leg = LegId(1);
        Recording {
            id: RecordingId(Uuid::from_u128(7)),
            call_uuid: CallUuid(Uuid::from_u128(8)),
            caller_phone_number: "100".into(),
            dialed_phone_number: "200".into(),
            start_time,
            stop_time: None,
            duration_ms: None,
            recording_session: RecordingSession {
                owner_dn: Some("200".into()),
                owner_leg: leg,
                side: Side::Termination,
                trigger: "dn".into(),
                rule: "DN 200 says record".into(),
                state: State::Recording,
                stop_cause: Some(StopCause::OwnerLeft),
            },
            participants: vec![Participant {
                leg_id: leg,
                dn: None,
                uri: "sip:100@localhost".into(),
                role: Role::Customer,
                joined: start_time,
                left: None,
                leave_cause: None,
            }],
            segments: vec![Segment {
                start_sample: 0,
                end_sample: 160,
                start: start_time,
                end: time_of_sample(start_time, 160, 8_000),
                conn_id: ConnId(255),
                owner: leg,
                participants: vec![leg],
                speakers: vec![],
                channels: vec![vec![leg]],
                paused: false,
                held: true,
                consult: false,
                early: false,
            }],
            media_files: vec![MediaFile {
                file: "mixed.wav".into(),
                part: 1,
                start_sample: 0,
                kind: FileKind::Mixed,
                participant: None,
                media_type: MEDIA_TYPE.into(),
                channels: 1,
                sample_rate: 8_000,
                samples: 160,
                size: None,
                sha256: None,
            }],
            media: vec![Media {
                leg,
                codec: Some("PCMU/8000".into()),
                payload_type: Some(0),
                ssrc: vec![1],
                received: 1,
                lost: 0,
                late: 0,
                concealed: 0,
                duplicates: 0,
                clock_skew_ppm: Some(-1.5),
            }],
            gaps: vec![Gap { leg, start_sample: 1, end_sample: 2, cause: GapCause::DroppedByUs }],
            masks: vec![Mask { time: start_time, kind: MaskKind::Paused }],
            events: vec![Event { time: start_time, name: "held".into(), attributes: BTreeMap::new() }],
            warnings: vec![],
        }
    }

    #[test]
    fn the_keys_are_those_of_the_specification() {
        let json = serde_json::to_value(recording()).unwrap();
        for path in [
            "/callUuid",
            "/callerPhoneNumber",
            "/stopTime",
            "/durationMs",
            "/recordingSession/ownerDn",
            "/participants/0/leaveCause",
            "/segments/0/connId",
            "/mediaFiles/0/sha256",
            "/mediaFiles/0/startSample",
            "/media/0/clockSkewPpm",
            "/media/0/payloadType",
            "/warnings",
        ] {
            assert!(json.pointer(path).is_some(), "{path} is missing");
        }
        assert_eq!(json["startTime"], "2026-11-20T09:00:00.120Z");
        assert_eq!(json["segments"][0]["end"], "2026-11-20T09:00:00.140Z");
        assert_eq!(json["recordingSession"]["stopCause"], "owner-left");
        assert_eq!(json["recordingSession"]["side"], "termination");
        assert_eq!(json["gaps"][0]["cause"], "dropped-by-us");
        assert_eq!(json["masks"][0]["type"], "paused");
        assert_eq!(json["mediaFiles"][0]["type"], "audio/wav");
        assert_eq!(json["segments"][0]["connId"], "00000000000000FF");
    }

    #[test]
    fn it_reads_back_what_it_wrote() {
        let text = serde_json::to_string(&recording()).unwrap();
        assert_eq!(serde_json::from_str::<Recording>(&text).unwrap(), recording());
    }

    #[test]
    fn unknown_keys_and_missing_lists_are_tolerated() {
        let mut json = serde_json::to_value(recording()).unwrap();
        let object = json.as_object_mut().unwrap();
        object.insert("legalHold".into(), true.into());
        object.remove("warnings");
        object.remove("gaps");
        let read: Recording = serde_json::from_value(json).unwrap();
        assert_eq!(read.gaps, []);
    }

    #[test]
    fn a_sample_has_the_time_of_the_start_plus_sample_over_rate() {
        let start: Timestamp = "2026-11-20T23:59:59.999Z".parse().unwrap();
        assert_eq!(time_of_sample(start, 8_000 * 3_600, 8_000).to_string(), "2026-11-21T00:59:59.999Z");
        assert_eq!(time_of_sample(start, 15, 8_000), time_of_sample(start, 8, 8_000));
    }
}
