//! One recording session: marks on its sample grid, the files they make, and what the metadata says of them.
//!
//! Two positions: `summed`, up to which marks have been applied and samples taken, and the frames written, which are
//! later by the limiter's look-ahead. Pauses are the very last stage, so they are kept by written position.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Instant;

use super::leg::{Missing, grid, ns_of};
use super::mark::{Change, Conversation, Layout, Measured, Role, SessionStart, StopCause};
use super::metadata::{FileKind, GapCause, MaskKind, State};
use super::meter::Meters;
use super::mixdown::{Legs, MAX_BLOCK, Mixdown, Plan, Tools};
use super::recorder::{FileSpec, SessionFiles, Sink};
use super::report::{Report, Wording};
use super::speech::{Speech, speech};
use crate::id::{LegId, RecordingId};

/// A pause is silence from this much before it to this much after it (spec/recording.md §4.7).
const MASK_MARGIN_MS: i64 = 20;

/// spec/recording.md §4.6.
const MAX_SUPERVISOR_FILES: usize = 8;

/// spec/recording.md §4.6.
const MAX_PARTY_FILES: usize = 32;

/// Marks that wait for their sample. A session with more within half a second is not a call.
const MAX_PENDING: usize = 256;

/// Bytes of a WAV header.
const HEADER_BYTES: u64 = 44;

/// Commits between two writes of the metadata when nothing but a gap or a counter changed.
const QUIET_COMMITS: u32 = 20;

/// A file besides `mixed.wav`.
#[derive(Debug)]
struct OwnFile {
    /// Its party: a DN keeps its file when it comes back with another leg.
    party: Party,
    kind: FileKind,
    number: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Party {
    Dn(String),
    Leg(LegId),
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    id: RecordingId,
    rate: u32,
    layout: Layout,
    t0: Instant,
    /// Position of sample 0 on the grid that counts from the epoch.
    origin: i64,
    t0_ns: i64,
    conversation: Conversation,
    paused: bool,
    plan: Plan,
    mixdown: Mixdown,
    meters: Meters,
    own: Vec<OwnFile>,
    /// Marks by the sample at which they take effect.
    pending: VecDeque<(i64, Change)>,
    /// Samples that are to be silent; the last may be open.
    masks: VecDeque<Range<i64>>,
    /// Where the last pause begins.
    paused_from: i64,
    end: Option<(i64, StopCause)>,
    summed: i64,
    part: u32,
    /// First sample of the present part, and how many it may have.
    part_start: i64,
    part_frames: i64,
    report: Report,
    slot: i64,
    begun: bool,
    quiet_commits: u32,
}

impl Session {
    /// A session that begins at `t0`, `t0_ns` after the epoch. No file passes `max_file_bytes`.
    pub fn new(start: SessionStart, t0: Instant, t0_ns: i64, max_file_bytes: u64) -> Self {
        let channels = if start.layout == Layout::Stereo { 2 } else { 1 };
        let rate = start.sample_rate;
        let frames = max_file_bytes.saturating_sub(HEADER_BYTES) / (2 * channels as u64);
        let mut session = Self {
            id: start.id,
            rate,
            layout: start.layout,
            t0,
            origin: rounded(t0_ns, rate),
            t0_ns,
            conversation: start.conversation.clone(),
            paused: false,
            plan: Plan::default(),
            mixdown: Mixdown::new(rate, channels),
            meters: Meters::new(rate),
            own: Vec::new(),
            pending: VecDeque::new(),
            masks: VecDeque::new(),
            paused_from: 0,
            end: None,
            summed: 0,
            part: 1,
            part_start: 0,
            // A part holds at least a second, however small the limit.
            part_frames: (frames.min(i64::MAX as u64) as i64).max(i64::from(rate)),
            slot: (start.call_uuid.0.as_u128() % 1_000) as i64,
            report: Report::new(start),
            begun: false,
            quiet_commits: 0,
        };
        session.enter_conversation(0);
        session
    }

    /// Its id.
    pub fn id(&self) -> RecordingId {
        self.id
    }

    /// When it began.
    pub fn began(&self) -> Instant {
        self.t0
    }

    /// Which of so many commit slots is its own. The sessions of one call share one, so that a leg that several of them
    /// read is sealed in large pieces.
    pub fn slot(&self, slots: i64) -> i64 {
        self.slot.rem_euclid(slots)
    }

    /// The instant (ns after the epoch) up to which it has read its legs.
    pub fn read_ns(&self) -> i64 {
        self.t0_ns + ns_of(self.summed, self.rate)
    }

    /// Everybody in the conversation now or by a mark to come.
    pub fn members(&self) -> impl Iterator<Item = LegId> + '_ {
        let coming = self.pending.iter().filter_map(|(_, change)| match change {
            Change::Conversation { conversation, .. } => Some(conversation),
            _ => None,
        });
        std::iter::once(&self.conversation).chain(coming).flat_map(|c| c.members.iter().map(|member| member.leg))
    }

    /// Takes a mark of this session, decided `at` (ns after the epoch).
    pub fn mark(&mut self, at: i64, change: Change) {
        let exact = rounded(at - self.t0_ns, self.rate).max(0);
        let margin = i64::from(self.rate) * MASK_MARGIN_MS / 1_000;
        let earliest = match change {
            // A pause that is known too late is silent from the next frame on, and its segment begins where the margin
            // says that it was asked for.
            Change::Pause(_) if exact - margin < self.written() && self.summed > 0 => self.written() + margin,
            // Where a pause took effect late, its end cannot come before it.
            Change::Resume(_) => self.summed.max(self.paused_from),
            _ => self.summed,
        };
        let sample = exact.max(earliest);
        if sample > exact {
            self.report.warn(Wording::LateMark { ms: (sample - exact) * 1_000 / i64::from(self.rate) });
        }
        match &change {
            Change::Stop { cause, .. } => {
                if self.end.is_none_or(|(end, _)| sample < end) {
                    self.end = Some((sample, *cause));
                }
                return;
            }
            Change::Pause(_) if self.masks.back().is_none_or(|mask| mask.end < i64::MAX) => {
                self.masks.push_back(sample - margin..i64::MAX);
                self.paused_from = sample;
            }
            Change::Resume(_) => {
                if let Some(mask) = self.masks.back_mut().filter(|mask| mask.end == i64::MAX) {
                    mask.end = sample + margin;
                }
            }
            _ => {}
        }
        if self.pending.len() == MAX_PENDING {
            self.report.warn(Wording::TooManyMarks);
            // The latest state matters most: what it replaces is given up.
            self.pending.pop_front();
        }
        let i = self.pending.partition_point(|(other, _)| *other <= sample);
        self.pending.insert(i, (sample, change));
    }

    /// A leg is about to be forgotten.
    pub fn leg_gone(&mut self, leg: LegId, legs: &Legs) {
        self.report.measure(leg, legs);
    }

    /// Speech of a leg is missing.
    pub fn missing(&mut self, leg: LegId, missing: &Missing) {
        let sample = |ns: i64| rounded(ns - self.t0_ns, self.rate);
        let end = self.end.map_or(i64::MAX, |(end, _)| end);
        let (from, to) = (sample(missing.start_ns).max(0), sample(missing.end_ns).min(end));
        if from < to {
            self.report.gap(leg, from as u64, to as u64, missing.cause);
        }
    }

    /// Takes everything before `until_ns` (after the epoch): legs are sealed and marks complete up to there. True when the
    /// session has ended.
    pub fn commit(&mut self, until_ns: i64, legs: &Legs, tools: &mut Tools, sink: &mut impl Sink) -> bool {
        self.report.meet(legs);
        if !self.begun {
            self.begun = true;
            let files = SessionFiles { id: self.id, sample_rate: self.rate, files: self.file_specs() };
            sink.begin(&files, self.report.running(0, legs));
        }
        let until = grid(until_ns - self.t0_ns, self.rate);
        let before = self.written();
        while self.summed < until || self.is_due(until) {
            let mark = self.pending.front().map_or(i64::MAX, |(sample, _)| *sample);
            let end = self.end.map_or(i64::MAX, |(end, _)| end.max(self.summed));
            let stop = until.min(mark).min(end);
            self.note_overruns(legs);
            self.render(stop, legs, tools, sink);
            if stop == end {
                self.tell_last_events(end);
                self.finish(legs, tools, sink);
                return true;
            }
            while self.pending.front().is_some_and(|(sample, _)| *sample <= self.summed) {
                let Some((_, change)) = self.pending.pop_front() else { break };
                self.apply(change, sink);
            }
        }
        if self.written() > before {
            sink.committed(self.id);
            self.tell_levels(legs, sink);
        }
        self.quiet_commits += 1;
        if self.report.has_changed() || (self.quiet_commits >= QUIET_COMMITS && self.report.has_gaps()) {
            self.quiet_commits = 0;
            sink.metadata(self.id, self.report.running(self.written() as u64, legs));
        }
        false
    }

    /// Once a second: what that second was like.
    fn tell_levels(&mut self, legs: &Legs, sink: &mut impl Sink) {
        if !self.meters.is_due() {
            return;
        }
        let Self { meters, own, part, conversation, .. } = self;
        let levels = meters.read(|file| match file.checked_sub(1).and_then(|i| own.get(i)) {
            Some(own) => file_name(own.kind, own.number, *part),
            None => file_name(FileKind::Mixed, 0, *part),
        });
        let skew = |leg: LegId| Some((leg, legs.get(&leg)?.clock_skew_ppm()?));
        let clock_skew_ppm = conversation.members.iter().filter_map(|member| skew(member.leg)).collect();
        sink.measured(self.id, Measured { levels, clock_skew_ppm });
    }

    /// What happened at the very end is told, too: often it is the reason.
    fn tell_last_events(&mut self, end: i64) {
        for (sample, change) in std::mem::take(&mut self.pending) {
            if let Change::Event { name, attributes, .. } = change
                && sample <= end
            {
                self.report.event(end as u64, &name, &attributes);
            }
        }
    }

    /// What speakers said while this session was too late to read it is a gap of ours.
    fn note_overruns(&mut self, legs: &Legs) {
        let speakers = self.plan.mixed.iter().flatten().chain(self.plan.own.iter().flatten());
        for (id, leg) in speakers.filter_map(|id| Some((*id, legs.get(id)?))) {
            for track in leg.tracks().iter().filter(|track| track.overrun() > 0) {
                let lost = rounded(ns_of(track.overrun(), track.rate()) - self.t0_ns, self.rate);
                if lost > self.summed {
                    self.report.gap(id, self.summed as u64, lost as u64, GapCause::DroppedByUs);
                }
            }
        }
    }

    /// A mark or the end lies exactly where we are.
    fn is_due(&self, until: i64) -> bool {
        let next = self.pending.front().map(|(sample, _)| *sample);
        let end = self.end.map(|(end, _)| end);
        [next, end].into_iter().flatten().any(|sample| sample <= until && sample <= self.summed)
    }

    /// Frames that every file has, over all parts.
    fn written(&self) -> i64 {
        (self.summed - self.mixdown.delay() as i64).max(0)
    }

    fn apply(&mut self, change: Change, sink: &mut impl Sink) {
        match change {
            Change::Conversation { conversation, .. } => {
                self.conversation = conversation;
                let known = self.own.len();
                self.enter_conversation(self.summed);
                for file in known..self.own.len() {
                    let spec = self.own_spec(file, self.written() - self.part_start);
                    sink.add_file(self.id, &spec);
                }
            }
            Change::Pause(_) | Change::Resume(_) => {
                let paused = matches!(change, Change::Pause(_));
                if paused != self.paused {
                    self.paused = paused;
                    let kind = if paused { MaskKind::Paused } else { MaskKind::Resumed };
                    self.report.mask(self.summed as u64, kind);
                    self.report.segment(self.summed as u64, &self.conversation, self.paused, self.layout);
                }
            }
            Change::Event { name, attributes, .. } => self.report.event(self.summed as u64, &name, &attributes),
            // Not of a session, or taken when they came.
            Change::Payloads { .. } | Change::LegEnded(_) | Change::Start(_) | Change::Stop { .. } => {}
        }
    }

    /// Files, plan and segment for the present conversation.
    fn enter_conversation(&mut self, sample: i64) {
        for i in 0..self.conversation.members.len() {
            self.give_file(i);
        }
        let channels = if self.layout == Layout::Stereo { 2 } else { 1 };
        let mut plan = Plan { mixed: vec![Vec::new(); channels], own: vec![None; self.own.len()] };
        for member in &self.conversation.members {
            let Some(speech) = speech(&self.conversation, member.leg) else { continue };
            if speech == Speech::Mixed {
                plan.mixed[Report::channel(self.layout, member)].push(member.leg);
            }
            let party = party(member);
            if let Some(i) = self.own.iter().position(|own| own.party == party) {
                plan.own[i] = Some(member.leg);
            }
        }
        self.plan = plan;
        self.report.conversation(sample as u64, &self.conversation);
        self.report.segment(sample as u64, &self.conversation, self.paused, self.layout);
    }

    /// A supervisor has a file of its own; with layout `tracks` every party has one.
    fn give_file(&mut self, member: usize) {
        let member = &self.conversation.members[member];
        let (kind, most) = match member.role {
            Role::Supervisor => (FileKind::Supervisor, MAX_SUPERVISOR_FILES),
            Role::System => return,
            _ if self.layout == Layout::Tracks => (FileKind::Party, MAX_PARTY_FILES),
            _ => return,
        };
        let party = party(member);
        if self.own.iter().any(|own| own.party == party) {
            return;
        }
        let number = self.own.iter().filter(|own| own.kind == kind).count() + 1;
        if number > most {
            self.report.warn(Wording::NoMoreFiles { kind });
            return;
        }
        self.own.push(OwnFile { party, kind, number });
        self.mixdown.add_file();
        let name = file_name(kind, number, self.part);
        self.report.file(name, self.part, self.part_start as u64, kind, Some(member.leg), 1);
    }

    /// Renders up to a sample.
    fn render(&mut self, until: i64, legs: &Legs, tools: &mut Tools, sink: &mut impl Sink) {
        while self.summed < until {
            let delay = self.mixdown.delay() as i64;
            let first = self.summed - delay;
            let room = self.part_start + self.part_frames - first;
            if room == 0 {
                self.roll(sink);
                continue;
            }
            let len = (until - self.summed).min(MAX_BLOCK as i64).min(room);
            self.block(self.summed, len as usize, legs, tools, sink);
            self.summed += len;
        }
    }

    /// Takes `len` samples from `summed` on and writes what leaves the limiter.
    fn block(&mut self, summed: i64, len: usize, legs: &Legs, tools: &mut Tools, sink: &mut impl Sink) {
        let first = summed - self.mixdown.delay() as i64;
        let kept = (-first).clamp(0, len as i64) as usize..len;
        while self.masks.front().is_some_and(|mask| mask.end <= first) {
            self.masks.pop_front();
        }
        let inside = |sample: i64| sample.saturating_sub(first).clamp(0, len as i64) as usize;
        let mut masked: [Range<usize>; 8] = Default::default();
        for (range, mask) in masked.iter_mut().zip(&self.masks) {
            *range = inside(mask.start)..inside(mask.end);
        }
        // More than seven pauses within a block of a quarter second: silence from the eighth to the end.
        if let Some(mask) = self.masks.get(7) {
            masked[7] = inside(mask.start)..len;
        }
        let at = self.origin + summed;
        let (id, meters) = (self.id, &mut self.meters);
        let of_mixed = if self.layout == Layout::Stereo { 2 } else { 1 };
        self.mixdown.render(legs, &self.plan, at, len, kept, &masked, tools, |file, frames| {
            if !frames.is_empty() {
                meters.take(file, if file == 0 { of_mixed } else { 1 }, frames);
                sink.frames(id, file, frames);
            }
        });
    }

    /// Every file goes on in a new one.
    fn roll(&mut self, sink: &mut impl Sink) {
        self.report.close_part(self.written() as u64);
        self.part += 1;
        self.part_start = self.written();
        let specs = self.file_specs();
        self.report.files_of_part(&specs, self.part, self.part_start as u64);
        sink.roll(self.id, &specs);
    }

    fn file_specs(&self) -> Vec<FileSpec> {
        let mixed = FileSpec {
            name: file_name(FileKind::Mixed, 0, self.part),
            kind: FileKind::Mixed,
            channels: if self.layout == Layout::Stereo { 2 } else { 1 },
            silent_frames: 0,
        };
        std::iter::once(mixed).chain((0..self.own.len()).map(|i| self.own_spec(i, 0))).collect()
    }

    fn own_spec(&self, i: usize, silent_frames: i64) -> FileSpec {
        let own = &self.own[i];
        FileSpec {
            name: file_name(own.kind, own.number, self.part),
            kind: own.kind,
            channels: 1,
            silent_frames: silent_frames as u64,
        }
    }

    /// The end is reached: what is still in the limiter, then the final metadata.
    fn finish(&mut self, legs: &Legs, tools: &mut Tools, sink: &mut impl Sink) {
        let end = self.summed;
        // After the end nobody speaks; the delayed frames come out.
        for channel in &mut self.plan.mixed {
            channel.clear();
        }
        self.plan.own.fill(None);
        self.render(end + self.mixdown.delay() as i64, legs, tools, sink);
        self.summed = end;
        let cause = self.end.map_or(StopCause::Released, |(_, cause)| cause);
        let state = if cause == StopCause::WriteError { State::Failed } else { State::Complete };
        sink.committed(self.id);
        sink.end(self.id, self.report.finished(end as u64, cause, state, legs));
    }
}

fn party(member: &super::mark::Member) -> Party {
    member.dn.clone().map_or(Party::Leg(member.leg), Party::Dn)
}

fn file_name(kind: FileKind, number: usize, part: u32) -> String {
    let stem = match kind {
        FileKind::Mixed => "mixed".to_owned(),
        FileKind::Supervisor => format!("supervisor-{number}"),
        FileKind::Party => format!("party-{number}"),
    };
    if part == 1 { format!("{stem}.wav") } else { format!("{stem}.{part}.wav") }
}

/// Samples in a time of `ns`, to the nearest.
pub fn rounded(ns: i64, rate: u32) -> i64 {
    let (seconds, rest) = (ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000));
    seconds * i64::from(rate) + (rest * i64::from(rate) + 500_000_000) / 1_000_000_000
}
