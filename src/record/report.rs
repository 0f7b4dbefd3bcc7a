//! What a session's metadata says: participants, segments, files, gaps, events, counters.

use std::sync::Arc;

use jiff::Timestamp;

use super::leg::Totals;
use super::mark::{Channel, Conversation, Member, OWNER_CHANGED, SessionStart};
use super::metadata::{
    Event, FileKind, Gap, GapCause, Layout, MEDIA_TYPE, Mask, MaskKind, Media, MediaFile, Participant, Recording,
    RecordingSession, Role, Segment, State, StopCause, time_of_sample,
};
use super::mixdown::Legs;
use super::recorder::FileSpec;
use super::speech::{on_hold, speech};
use crate::id::LegId;

/// Gaps, events and segments listed; beyond that a warning says that there were more.
const MAX_ROWS: usize = 1_000;

/// Different warnings kept.
const MAX_WARNINGS: usize = 100;

/// What is worth a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wording {
    /// A mark came after its sample had been committed.
    LateMark {
        /// How much later it takes effect.
        ms: i64,
    },
    /// More marks at once than a session keeps.
    TooManyMarks,
    /// No more files of a kind.
    NoMoreFiles {
        /// The kind.
        kind: FileKind,
    },
    /// A list is full.
    MoreRows {
        /// Which.
        list: &'static str,
    },
}

impl std::fmt::Display for Wording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::LateMark { ms } => {
                write!(f, "A change was known too late and takes effect {ms} ms after it was made.")
            }
            Self::TooManyMarks => write!(f, "Too many changes at once; some took no effect."),
            Self::NoMoreFiles { kind: FileKind::Supervisor } => {
                write!(f, "Too many supervisors for a file each; the voice of the last ones is not recorded.")
            }
            Self::NoMoreFiles { .. } => {
                write!(f, "Too many parties for a file each; the last ones are in mixed.wav only.")
            }
            Self::MoreRows { list } => write!(f, "There were more {list} than are listed."),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Report {
    recording: Recording,
    /// What each leg's counters said when it joined.
    joined_with: Vec<(LegId, Option<Totals>)>,
    changed: bool,
    gaps_changed: bool,
    sample_rate: u32,
}

impl Report {
    /// For a session that begins.
    pub fn new(start: SessionStart) -> Self {
        // The file carries milliseconds: what is computed from it must agree with what is computed here.
        let ms = start.start_time.as_millisecond();
        let start_time = Timestamp::from_millisecond(ms).unwrap_or(start.start_time);
        let recording = Recording {
            id: start.id,
            call_uuid: start.call_uuid,
            caller_phone_number: start.caller_phone_number,
            dialed_phone_number: start.dialed_phone_number,
            start_time,
            stop_time: None,
            duration_ms: None,
            recording_session: RecordingSession {
                owner_dn: start.owner_dn,
                owner_leg: start.owner_leg,
                side: start.side,
                trigger: start.trigger,
                rule: start.rule,
                state: State::Recording,
                stop_cause: None,
            },
            participants: Vec::new(),
            segments: Vec::new(),
            media_files: Vec::new(),
            media: Vec::new(),
            gaps: Vec::new(),
            masks: Vec::new(),
            events: Vec::new(),
            warnings: Vec::new(),
        };
        let mut report = Self {
            recording,
            joined_with: Vec::new(),
            changed: false,
            gaps_changed: false,
            sample_rate: start.sample_rate,
        };
        let channels = if start.layout == Layout::Stereo { 2 } else { 1 };
        report.file("mixed.wav".into(), 1, 0, FileKind::Mixed, None, channels);
        report
    }

    /// Which channel of `mixed.wav` is a member's.
    pub fn channel(layout: Layout, member: &Member) -> usize {
        usize::from(layout == Layout::Stereo && member.channel == Channel::Right)
    }

    fn time(&self, sample: u64) -> Timestamp {
        time_of_sample(self.recording.start_time, sample, self.sample_rate)
    }

    /// Something other than a gap changed since the metadata was last taken.
    pub fn has_changed(&self) -> bool {
        self.changed
    }

    /// A gap was added since the metadata was last taken.
    pub fn has_gaps(&self) -> bool {
        self.gaps_changed
    }

    /// Says something once.
    pub fn warn(&mut self, wording: Wording) {
        let same = |text: &String| match wording {
            Wording::LateMark { .. } => text.starts_with("A change was known too late"),
            _ => *text == wording.to_string(),
        };
        if !self.recording.warnings.iter().any(same) && self.recording.warnings.len() < MAX_WARNINGS {
            self.recording.warnings.push(wording.to_string());
            self.changed = true;
        }
    }

    /// One more file.
    pub fn file(
        &mut self,
        file: String,
        part: u32,
        start_sample: u64,
        kind: FileKind,
        participant: Option<LegId>,
        channels: u16,
    ) {
        self.recording.media_files.push(MediaFile {
            file,
            part,
            start_sample,
            kind,
            participant,
            media_type: MEDIA_TYPE.into(),
            channels,
            sample_rate: self.sample_rate,
            samples: 0,
            size: None,
            sha256: None,
        });
        self.changed = true;
    }

    /// The files of a part end at a sample.
    pub fn close_part(&mut self, end: u64) {
        let part = self.recording.media_files.iter().map(|file| file.part).max().unwrap_or(1);
        for file in self.recording.media_files.iter_mut().filter(|file| file.part == part) {
            file.samples = end.saturating_sub(file.start_sample);
        }
    }

    /// The files of the next part, in the order of those of the part before.
    pub fn files_of_part(&mut self, specs: &[FileSpec], part: u32, start_sample: u64) {
        let before: Vec<Option<LegId>> =
            self.recording.media_files.iter().filter(|f| f.part + 1 == part).map(|f| f.participant).collect();
        for (i, spec) in specs.iter().enumerate() {
            let participant = before.get(i).copied().flatten();
            self.file(spec.name.clone(), part, start_sample, spec.kind, participant, spec.channels);
        }
    }

    /// Who is there from a sample on.
    pub fn conversation(&mut self, sample: u64, conversation: &Conversation) {
        let time = self.time(sample);
        for participant in self.recording.participants.iter_mut().filter(|p| p.left.is_none()) {
            if !conversation.members.iter().any(|member| member.leg == participant.leg_id) {
                participant.left = Some(time);
                participant.leave_cause = Some("left".into());
            }
        }
        for member in &conversation.members {
            match self.recording.participants.iter_mut().find(|p| p.leg_id == member.leg) {
                Some(known) => {
                    known.role = member.role;
                    known.left = None;
                    known.leave_cause = None;
                }
                None => {
                    self.recording.participants.push(Participant {
                        leg_id: member.leg,
                        dn: member.dn.clone(),
                        uri: member.uri.clone(),
                        role: member.role,
                        joined: time,
                        left: None,
                        leave_cause: None,
                    });
                    self.joined_with.push((member.leg, None));
                }
            }
        }
        self.changed = true;
    }

    /// Remembers the counters of legs that joined, so that only what came since then is told.
    pub fn meet(&mut self, legs: &Legs) {
        for (leg, totals) in self.joined_with.iter_mut().filter(|(_, totals)| totals.is_none()) {
            *totals = legs.get(leg).map(|leg| leg.totals());
        }
    }

    /// From a sample on, things are so. A segment begins only where one of its fields changes.
    pub fn segment(&mut self, sample: u64, conversation: &Conversation, paused: bool, layout: Layout) {
        let time = self.time(sample);
        let members = &conversation.members;
        let speaks = |member: &&Member| !paused && speech(conversation, member.leg).is_some();
        let channels = if layout == Layout::Stereo { 2 } else { 1 };
        let mut next = Segment {
            start_sample: sample,
            end_sample: sample,
            start: time,
            end: time,
            conn_id: conversation.conn_id,
            owner: conversation.owner,
            participants: members.iter().map(|member| member.leg).collect(),
            speakers: members.iter().filter(speaks).map(|member| member.leg).collect(),
            channels: vec![Vec::new(); channels],
            paused,
            held: members.iter().any(on_hold),
            consult: conversation.consult,
            early: conversation.early,
        };
        for member in members.iter().filter(|member| member.role != Role::Supervisor) {
            next.channels[Self::channel(layout, member)].push(member.leg);
        }
        let full = self.recording.segments.len() >= MAX_ROWS;
        if let Some(last) = self.recording.segments.last_mut() {
            last.end_sample = sample;
            last.end = time;
            if is_same(last, &next) {
                return;
            }
            if last.start_sample == sample {
                self.recording.segments.pop();
            } else if full {
                // The last one goes on: the list must cover the recording.
                self.warn(Wording::MoreRows { list: "segments" });
                return;
            }
        }
        if self.recording.segments.last().is_some_and(|last| is_same(last, &next)) {
            return;
        }
        self.recording.segments.push(next);
        self.changed = true;
    }

    /// Something happened.
    pub fn event(&mut self, sample: u64, name: &str, attributes: &[(Arc<str>, Arc<str>)]) {
        // A change of owner is what the segments are verified by: room is kept for it.
        let limit = if name == OWNER_CHANGED { 2 * MAX_ROWS } else { MAX_ROWS };
        if self.recording.events.len() >= limit {
            self.warn(Wording::MoreRows { list: "events" });
            return;
        }
        let attributes = attributes.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        self.recording.events.push(Event { time: self.time(sample), name: name.to_owned(), attributes });
        self.changed = true;
    }

    /// A pause begins or ends.
    pub fn mask(&mut self, sample: u64, kind: MaskKind) {
        if self.recording.masks.len() >= MAX_ROWS {
            self.warn(Wording::MoreRows { list: "masks" });
            return;
        }
        self.recording.masks.push(Mask { time: self.time(sample), kind });
        self.changed = true;
    }

    /// Speech of a participant is missing. What came late or was dropped by us says more than that it did not come in
    /// time, so it takes the place of a `network` gap of the same samples, whichever is known first.
    pub fn gap(&mut self, leg: LegId, from: u64, to: u64, cause: GapCause) {
        if !self.recording.participants.iter().any(|p| p.leg_id == leg) {
            return;
        }
        let gaps = &mut self.recording.gaps;
        let gap = Gap { leg, start_sample: from, end_sample: to, cause };
        let overlaps = |other: &Gap| other.leg == leg && other.start_sample < to && other.end_sample > from;
        let mut new = vec![];
        if cause == GapCause::Network {
            new.push(gap);
            for known in gaps.iter().filter(|other| overlaps(other)) {
                new = new.iter().flat_map(|gap| without(gap, known.start_sample, known.end_sample)).collect();
            }
        } else {
            let (replaced, kept): (Vec<Gap>, Vec<Gap>) =
                std::mem::take(gaps).into_iter().partition(|other| overlaps(other) && other.cause == GapCause::Network);
            *gaps = kept;
            new.extend(replaced.iter().flat_map(|other| without(other, from, to)));
            match gaps.iter_mut().rev().find(|other| {
                other.leg == leg && other.cause == cause && other.start_sample <= to && other.end_sample >= from
            }) {
                Some(same) => {
                    same.start_sample = same.start_sample.min(from);
                    same.end_sample = same.end_sample.max(to);
                }
                None => new.push(gap),
            }
        }
        for gap in new {
            if gaps.len() >= MAX_ROWS {
                self.warn(Wording::MoreRows { list: "gaps" });
                return;
            }
            gaps.push(gap);
        }
        self.gaps_changed = true;
    }

    /// The counters of a leg now, less those it joined with.
    pub fn measure(&mut self, leg: LegId, legs: &Legs) {
        let Some(now) = legs.get(&leg).map(|leg| leg.totals()) else { return };
        let Some((_, Some(base))) = self.joined_with.iter().find(|(id, _)| *id == leg) else { return };
        let concealed_ns = now.concealed_ns - base.concealed_ns.min(now.concealed_ns);
        let media = Media {
            leg,
            codec: now.codec.as_ref().map(ToString::to_string),
            payload_type: now.payload_type,
            ssrc: now.ssrcs,
            received: now.received - base.received,
            lost: now.lost.saturating_sub(base.lost),
            late: now.late - base.late,
            concealed: (u128::from(concealed_ns) * u128::from(self.sample_rate) / 1_000_000_000) as u64,
            duplicates: now.duplicates - base.duplicates,
            clock_skew_ppm: now.clock_skew_ppm.map(|ppm| (ppm * 10.0).round() / 10.0),
        };
        match self.recording.media.iter_mut().find(|media| media.leg == leg) {
            Some(known) => *known = media,
            None => self.recording.media.push(media),
        }
    }

    /// Everything up to a sample, of a session that goes on.
    pub fn running(&mut self, sample: u64, legs: &Legs) -> &Recording {
        self.changed = false;
        self.gaps_changed = false;
        self.bring_up_to(sample, legs);
        &self.recording
    }

    /// Everything, of a session that ended at a sample.
    pub fn finished(&mut self, end: u64, cause: StopCause, state: State, legs: &Legs) -> Recording {
        self.bring_up_to(end, legs);
        let time = self.time(end);
        if self.recording.segments.len() > 1 {
            // A change at the very end makes no segment.
            self.recording.segments.retain(|segment| segment.start_sample < segment.end_sample);
        }
        let recording = &mut self.recording;
        recording.stop_time = Some(time);
        recording.duration_ms = Some((time.as_millisecond() - recording.start_time.as_millisecond()).max(0) as u64);
        recording.recording_session.state = state;
        recording.recording_session.stop_cause = Some(cause);
        // A gap may have been noted before the end was known.
        for gap in &mut recording.gaps {
            gap.end_sample = gap.end_sample.min(end);
        }
        recording.gaps.retain(|gap| gap.start_sample < gap.end_sample);
        recording.gaps.sort_by_key(|gap| (gap.start_sample, gap.leg));
        let text = serde_json::to_value(cause).ok().and_then(|value| value.as_str().map(str::to_owned));
        for participant in recording.participants.iter_mut().filter(|p| p.left.is_none()) {
            participant.left = Some(time);
            participant.leave_cause = text.clone();
        }
        recording.clone()
    }

    fn bring_up_to(&mut self, sample: u64, legs: &Legs) {
        for i in 0..self.joined_with.len() {
            self.measure(self.joined_with[i].0, legs);
        }
        let time = self.time(sample);
        if let Some(last) = self.recording.segments.last_mut() {
            last.end_sample = sample.max(last.start_sample);
            last.end = time_of_sample(self.recording.start_time, last.end_sample, self.sample_rate).max(time);
        }
        self.close_part(sample);
    }
}

fn is_same(a: &Segment, b: &Segment) -> bool {
    let at = |segment: &Segment| Segment {
        start_sample: 0,
        end_sample: 0,
        start: Timestamp::UNIX_EPOCH,
        end: Timestamp::UNIX_EPOCH,
        ..segment.clone()
    };
    at(a) == at(b)
}

/// What is left of a gap without a range.
fn without(gap: &Gap, from: u64, to: u64) -> Vec<Gap> {
    let left = Gap { end_sample: gap.end_sample.min(from), ..gap.clone() };
    let right = Gap { start_sample: gap.start_sample.max(to), ..gap.clone() };
    [left, right].into_iter().filter(|gap| gap.start_sample < gap.end_sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{CallUuid, ConnId, RecordingId};
    use crate::record::mark::Side;
    use uuid::Uuid;

    fn conversation(legs: &[u64]) -> Conversation {
        let member = |leg: &u64| Member {
            leg: LegId(*leg),
            dn: None,
            uri: String::new(),
            role: Role::Agent,
            channel: Channel::Right,
            holds: false,
            held: false,
            muted: false,
        };
        let members = legs.iter().map(member).collect();
        Conversation { conn_id: ConnId(1), owner: LegId(1), members, consult: false, early: false, unbridged: false }
    }

    fn report() -> Report {
        let mut report = Report::new(SessionStart {
            id: RecordingId(Uuid::nil()),
            start_time: "2026-11-20T09:00:00.1239Z".parse().unwrap(),
            call_uuid: CallUuid(Uuid::nil()),
            caller_phone_number: String::new(),
            dialed_phone_number: String::new(),
            owner_leg: LegId(1),
            owner_dn: None,
            side: Side::Origination,
            trigger: "default".into(),
            rule: String::new(),
            layout: Layout::Mixed,
            sample_rate: 8_000,
            conversation: conversation(&[1, 2]),
        });
        report.conversation(0, &conversation(&[1, 2]));
        report.segment(0, &conversation(&[1, 2]), false, Layout::Mixed);
        report
    }

    fn gaps(report: &Report) -> Vec<(u64, u64, GapCause)> {
        let mut gaps: Vec<_> = report.recording.gaps.iter().map(|g| (g.start_sample, g.end_sample, g.cause)).collect();
        gaps.sort_by_key(|gap| gap.0);
        gaps
    }

    #[test]
    fn what_came_late_takes_the_place_of_a_network_gap_whichever_is_known_first() {
        let expected = [(100, 200, GapCause::Network), (200, 300, GapCause::Late), (300, 500, GapCause::Network)];
        let mut first = report();
        first.gap(LegId(1), 100, 500, GapCause::Network);
        first.gap(LegId(1), 200, 300, GapCause::Late);
        assert_eq!(gaps(&first), expected);
        let mut last = report();
        last.gap(LegId(1), 200, 300, GapCause::Late);
        last.gap(LegId(1), 100, 500, GapCause::Network);
        assert_eq!(gaps(&last), expected);
    }

    #[test]
    fn neighbouring_gaps_of_one_cause_are_one_and_those_of_other_legs_are_not() {
        let mut report = report();
        report.gap(LegId(1), 0, 160, GapCause::Late);
        report.gap(LegId(1), 160, 320, GapCause::Late);
        report.gap(LegId(2), 160, 320, GapCause::Late);
        report.gap(LegId(9), 0, 160, GapCause::Late);
        assert_eq!(gaps(&report).len(), 2);
        assert_eq!(report.recording.gaps[0].end_sample, 320);
    }

    #[test]
    fn lists_are_bounded_and_say_so_once() {
        let mut report = report();
        for i in 0..3_000 {
            report.gap(LegId(1), i * 10, i * 10 + 5, GapCause::Network);
            report.event(i, "x", &[]);
        }
        assert_eq!((report.recording.gaps.len(), report.recording.events.len()), (MAX_ROWS, MAX_ROWS));
        assert_eq!(report.recording.warnings.len(), 2);
    }

    #[test]
    fn a_segment_begins_only_where_something_changes_and_none_is_empty() {
        let mut report = report();
        report.segment(800, &conversation(&[1, 2]), false, Layout::Mixed);
        report.segment(1_600, &conversation(&[1, 3]), false, Layout::Mixed);
        report.segment(1_600, &conversation(&[1, 4]), false, Layout::Mixed);
        report.segment(2_400, &conversation(&[1, 4]), true, Layout::Mixed);
        report.segment(2_400, &conversation(&[1, 4]), false, Layout::Mixed);
        let finished = report.finished(3_200, StopCause::Released, State::Complete, &Legs::default());
        let ranges: Vec<_> = finished.segments.iter().map(|s| (s.start_sample, s.end_sample)).collect();
        assert_eq!(ranges, [(0, 1_600), (1_600, 3_200)]);
    }

    #[test]
    fn the_start_is_whole_milliseconds_and_the_stop_is_counted_in_samples() {
        let finished = report().finished(8_001, StopCause::Released, State::Complete, &Legs::default());
        assert_eq!(finished.start_time.to_string(), "2026-11-20T09:00:00.123Z");
        assert_eq!(finished.stop_time.unwrap().to_string(), "2026-11-20T09:00:01.123Z");
        assert_eq!(finished.duration_ms, Some(1_000));
    }

    #[test]
    fn a_party_that_comes_back_is_one_participant() {
        let mut report = report();
        report.conversation(800, &conversation(&[1]));
        assert_eq!(report.recording.participants[1].leave_cause.as_deref(), Some("left"));
        report.conversation(1_600, &conversation(&[1, 2]));
        assert_eq!(report.recording.participants.len(), 2);
        assert_eq!(report.recording.participants[1].left, None);
    }
}
