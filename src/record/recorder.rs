//! One recorder's whole state: tracks by leg, sessions by id; packets and marks in, frames and metadata out.
//!
//! The contract of the thread that drives it, in a loop: take `now`; hand in every mark that is queued, then the
//! watermark, then every tapped packet that arrived before `now`; call [`Recorder::commit`] with that `now`. After a
//! backlog, `commit` is called with the arrival of the next packet whenever [`Recorder::next_commit`] is earlier than
//! it, so that a thread that was late gives the same files as one that was not.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::leg::{Leg, Taken};
use super::mark::{Change, Mark, Measured, StopCause};
use super::metadata::{FileKind, Recording};
use super::mixdown::{LOOK_AHEAD_NS, Legs, Tools};
use super::session::Session;
use super::tap::TapHeader;
use super::track::QUANTUM_MS;
use crate::id::{IdMap, LegId, LegMap, RecordingId};

/// How long a packet may be later than its place (spec/recording.md §7, W).
pub const WINDOW: Duration = Duration::from_millis(500);

/// Time between two commits of one session.
pub const COMMIT_INTERVAL: Duration = Duration::from_millis(250);

/// What a recorder is made with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The instant from which [`TapHeader::arrival_ns`] counts.
    pub epoch: Instant,
    /// Bytes that no file may pass, its header included (`recording.max-file-size`).
    pub max_file_bytes: u64,
}

/// One file of a session, as it is to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSpec {
    /// Name within the session's folder: `mixed.wav`, `mixed.2.wav`, `supervisor-1.wav` … .
    pub name: String,
    /// What it holds.
    pub kind: FileKind,
    /// Interleaved channels.
    pub channels: u16,
    /// Frames of silence to write before the first frames: a file that begins later than its part.
    pub silent_frames: u64,
}

/// A session's files as they are when it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionFiles {
    /// The session.
    pub id: RecordingId,
    /// Samples per second of every file.
    pub sample_rate: u32,
    /// The files; their positions are the file indices of [`Sink::frames`].
    pub files: Vec<FileSpec>,
}

/// Where a recorder's output goes. Calls for one session come in this order: `begin`; then any of `add_file`, `frames`,
/// `roll`, `metadata`, `committed`, `measured`; `end` last. All files of a session get the same number of frames between two calls of
/// `committed`. The sink answers for its own failures: it stops a session by a [`Mark`] with
/// [`StopCause::WriteError`] or [`StopCause::DiskFull`] and ignores what still comes for it.
pub trait Sink {
    /// Create the folder, the files with their headers, and the first metadata.
    fn begin(&mut self, files: &SessionFiles, recording: &Recording);
    /// One more file; its index is the next one.
    fn add_file(&mut self, id: RecordingId, file: &FileSpec);
    /// Append whole interleaved frames to a file.
    fn frames(&mut self, id: RecordingId, file: usize, interleaved: &[i16]);
    /// Close every file and go on in these, in the same order: the largest reached `max_file_bytes`.
    fn roll(&mut self, id: RecordingId, files: &[FileSpec]);
    /// Everything of this commit has been handed over: data to the file, then the header.
    fn committed(&mut self, id: RecordingId);
    /// The metadata changed; at most once per commit.
    fn metadata(&mut self, id: RecordingId, recording: &Recording);
    /// The last second as it was written, for whoever watches; the recording does not depend on it.
    fn measured(&mut self, id: RecordingId, measured: Measured) {
        let _ = (id, measured);
    }
    /// Close the files and publish. The metadata is final but for sizes and hashes.
    fn end(&mut self, id: RecordingId, recording: Recording);
}

/// A tick: sessions and legs are spread over the ticks of [`COMMIT_INTERVAL`].
const TICK_NS: i64 = 10_000_000;

/// Ticks per [`COMMIT_INTERVAL`].
const SLOTS: i64 = COMMIT_INTERVAL.as_nanos() as i64 / TICK_NS;
const _: () = assert!(SLOTS <= u32::BITS as i64, "a bit for each");

/// What is older than this is sealed: the window, and how late a packet may be on its way from the socket to us.
const SEALED_AFTER_NS: i64 = WINDOW.as_nanos() as i64 + 20_000_000;

/// A pause silences this much before its mark, so marks must be complete that much further.
const MARKS_AHEAD_NS: i64 = 25_000_000;

/// How long after its end a leg is kept for its last packets and for the sessions that read it.
const LEG_LINGERS_NS: i64 = 3 * SEALED_AFTER_NS;

/// Packets kept until the mark arrives that says how to read them.
const MAX_WAITING: usize = 1_024;

/// See the module.
#[derive(Debug)]
pub struct Recorder {
    options: Options,
    legs: Legs,
    /// Which sessions read a leg, and when it ended (ns).
    readers: LegMap<Readers>,
    sessions: Sessions,
    /// Who is due in which slot: a thousand calls are not all looked at for the forty that are.
    slots: [Slot; SLOTS as usize],
    /// Sessions whose files have not been asked for yet.
    new_sessions: Vec<RecordingId>,
    /// Packets of a leg or payload type that no mark has named yet, with their arrival.
    waiting: VecDeque<(TapHeader, Vec<u8>)>,
    /// The last tick that was worked on; `None` while idle.
    tick: Option<i64>,
    watermark_ns: i64,
    /// Scratch.
    members: Vec<LegId>,
    tools: Box<Tools>,
}

/// By ids of ours, which are random: nobody can choose some that fall on one place.
type Sessions = IdMap<RecordingId, Session>;

/// The sessions and legs of one slot; those that have ended are found out when they are due.
#[derive(Debug, Default)]
struct Slot {
    sessions: Vec<RecordingId>,
    legs: Vec<LegId>,
}

#[derive(Debug, Default)]
struct Readers {
    sessions: Vec<RecordingId>,
    ended_ns: Option<i64>,
}

impl Recorder {
    /// Without legs and sessions.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            legs: Legs::default(),
            readers: LegMap::default(),
            sessions: Sessions::default(),
            slots: Default::default(),
            new_sessions: Vec::new(),
            waiting: VecDeque::new(),
            tick: None,
            watermark_ns: 0,
            members: Vec::new(),
            tools: Tools::new(),
        }
    }

    /// Takes a mark. It takes effect at its own instant, also when that is in the past of packets already handed in.
    pub fn mark(&mut self, mark: Mark) {
        let at = self.ns(mark.at);
        match mark.change {
            Change::Payloads { leg, payloads } => {
                let sealed = sealed_at(at);
                let slots = &mut self.slots;
                let begin = || {
                    slots[slot_of(leg)].legs.push(leg);
                    Leg::new(sealed)
                };
                self.legs.entry(leg).or_insert_with(begin).payloads(at, payloads);
                self.readers.entry(leg).or_default();
                self.retry_waiting();
            }
            Change::LegEnded(leg) => {
                if let Some(readers) = self.readers.get_mut(&leg) {
                    readers.ended_ns.get_or_insert(at);
                }
            }
            Change::Start(start) => {
                let id = start.id;
                if self.sessions.contains_key(&id) {
                    return;
                }
                let session = Session::new(*start, mark.at, at, self.options.max_file_bytes);
                self.slots[session.slot(SLOTS) as usize].sessions.push(id);
                self.sessions.insert(id, session);
                self.new_sessions.push(id);
                self.read_members(id);
            }
            Change::Conversation { id, .. }
            | Change::Event { id, .. }
            | Change::Stop { id, .. }
            | Change::Pause(id)
            | Change::Resume(id) => {
                let Some(session) = self.sessions.get_mut(&id) else { return };
                session.mark(at, mark.change);
                self.read_members(id);
            }
        }
    }

    /// Every mark before this instant has been handed in. Nothing later than it is committed.
    pub fn watermark(&mut self, before: Instant) {
        self.watermark_ns = self.watermark_ns.max(self.ns(before));
        self.retry_waiting();
    }

    /// Takes a tapped packet.
    pub fn packet(&mut self, header: &TapHeader, payload: &[u8]) {
        if self.try_packet(header, payload) || self.watermark_ns > header.arrival_ns.min(i64::MAX as u64) as i64 {
            return;
        }
        if self.waiting.len() == MAX_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back((*header, payload.to_vec()));
    }

    fn try_packet(&mut self, header: &TapHeader, payload: &[u8]) -> bool {
        self.legs.get_mut(&header.leg).is_some_and(|leg| leg.packet(header, payload) == Taken::Yes)
    }

    /// Packets whose mark has come are read; those for which none can come any more are not for us.
    fn retry_waiting(&mut self) {
        for _ in 0..self.waiting.len() {
            let Some((header, payload)) = self.waiting.pop_front() else { break };
            if !self.try_packet(&header, &payload) && header.arrival_ns as i64 >= self.watermark_ns {
                self.waiting.push_back((header, payload));
            }
        }
    }

    /// A tap ring was full for arrivals in this stretch: what is missing there was dropped by us, not by the network.
    /// `None`: any leg of the ring may be concerned.
    pub fn dropped(&mut self, leg: Option<LegId>, from: Instant, until: Instant) {
        let (from, until) = (self.ns(from), self.ns(until));
        match leg {
            Some(id) => self.legs.get_mut(&id).into_iter().for_each(|leg| leg.dropped(from, until)),
            None => self.legs.values_mut().for_each(|leg| leg.dropped(from, until)),
        }
    }

    /// Begins, continues and ends what is due at `now`.
    pub fn commit(&mut self, now: Instant, sink: &mut impl Sink) {
        let now = self.ns(now);
        let sealed = sealed_at(now);
        for id in std::mem::take(&mut self.new_sessions) {
            self.commit_session(id, sealed, sink);
        }
        if self.legs.is_empty() && self.sessions.is_empty() {
            self.tick = None;
            return;
        }
        let tick = now / TICK_NS;
        let from = self.tick.map_or(tick, |last| last + 1).max(tick - SLOTS + 1);
        if from > tick {
            return;
        }
        self.tick = Some(tick);
        let slots = (from..=tick).fold(0_u32, |slots, tick| slots | 1 << (tick % SLOTS));
        bits(slots).for_each(|slot| self.commit_sessions(slot, sealed, sink));
        bits(slots).for_each(|slot| self.tend_legs(slot, sealed));
    }

    fn commit_sessions(&mut self, slot: usize, sealed: i64, sink: &mut impl Sink) {
        let mut at = 0;
        while let Some(id) = self.slots[slot].sessions.get(at).copied() {
            self.commit_session(id, sealed, sink);
            if self.sessions.contains_key(&id) {
                at += 1;
            } else {
                self.slots[slot].sessions.swap_remove(at);
            }
        }
    }

    fn tend_legs(&mut self, slot: usize, sealed: i64) {
        let mut at = 0;
        while let Some(id) = self.slots[slot].legs.get(at).copied() {
            self.tend_leg(id, sealed);
            if self.legs.contains_key(&id) {
                at += 1;
            } else {
                self.slots[slot].legs.swap_remove(at);
            }
        }
    }

    /// When to call [`Recorder::commit`] again; `None` while there is nothing to record. Marks may make it earlier.
    pub fn next_commit(&self) -> Option<Instant> {
        if let Some(session) = self.new_sessions.first().and_then(|id| self.sessions.get(id)) {
            return Some(session.began());
        }
        if self.legs.is_empty() && self.sessions.is_empty() {
            return None;
        }
        let tick = self.tick.map_or(0, |tick| tick + 1);
        Some(self.options.epoch + Duration::from_nanos((tick * TICK_NS) as u64))
    }

    /// Stops every running session at `at`. Their ends come with the commits of the following [`WINDOW`].
    pub fn stop_all(&mut self, at: Instant, cause: StopCause) {
        let at = self.ns(at);
        for (id, session) in &mut self.sessions {
            session.mark(at, Change::Stop { id: *id, cause });
        }
    }

    /// Sessions that have not ended yet.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Legs that are known.
    pub fn legs(&self) -> usize {
        self.legs.len()
    }

    fn ns(&self, at: Instant) -> i64 {
        at.saturating_duration_since(self.options.epoch).as_nanos().min(i64::MAX as u128) as i64
    }

    /// Notes that a session reads the legs of its conversation.
    fn read_members(&mut self, id: RecordingId) {
        let Some(session) = self.sessions.get(&id) else { return };
        for leg in session.members() {
            let readers = self.readers.entry(leg).or_default();
            if !readers.sessions.contains(&id) {
                readers.sessions.push(id);
            }
        }
    }

    /// Seals a session's legs and lets it take what is sealed.
    fn commit_session(&mut self, id: RecordingId, sealed: i64, sink: &mut impl Sink) {
        let Some(session) = self.sessions.get(&id) else { return };
        let mut members = std::mem::take(&mut self.members);
        members.clear();
        members.extend(session.members());
        for leg in &members {
            self.seal_leg(*leg, sealed);
        }
        if let Some(session) = self.sessions.get_mut(&id) {
            let until = (sealed - LOOK_AHEAD_NS).min(self.watermark_ns - MARKS_AHEAD_NS);
            let ended = session.commit(until, &self.legs, &mut self.tools, sink);
            self.let_go(&members);
            if ended {
                self.forget_session(id);
            }
        }
        self.members = members;
    }

    /// Legs need not keep what every session has read.
    fn let_go(&mut self, members: &[LegId]) {
        for id in members {
            let Some(leg) = self.legs.get_mut(id) else { continue };
            let readers = self.readers.get(id).map_or(&[][..], |readers| &readers.sessions);
            if let Some(unread) = unread(&self.sessions, readers) {
                leg.have_read(unread);
            }
        }
    }

    fn forget_session(&mut self, id: RecordingId) {
        self.sessions.remove(&id);
        self.readers.retain(|leg, readers| {
            readers.sessions.retain(|reader| *reader != id);
            !readers.sessions.is_empty() || self.legs.contains_key(leg)
        });
    }

    /// Seals a leg and tells its readers what is missing.
    fn seal_leg(&mut self, id: LegId, sealed: i64) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let readers = self.readers.get(&id).map_or(&[][..], |readers| &readers.sessions);
        let unread = unread(&self.sessions, readers).unwrap_or(sealed);
        leg.advance(sealed, unread, &self.tools.stretch);
        for missing in leg.take_missing() {
            for reader in readers {
                if let Some(session) = self.sessions.get_mut(reader) {
                    session.missing(id, &missing);
                }
            }
        }
    }

    /// Seals a leg that no session committed lately; forgets one that ended.
    fn tend_leg(&mut self, id: LegId, sealed: i64) {
        let Some(leg) = self.legs.get(&id) else { return };
        if leg.sealed_ns() < sealed {
            self.seal_leg(id, sealed);
        }
        let Some(readers) = self.readers.get(&id) else { return };
        let Some(ended) = readers.ended_ns else { return };
        let over = ended + LEG_LINGERS_NS;
        let is_read = |reader| self.sessions.get(reader).is_none_or(|session: &Session| session.read_ns() >= over);
        if sealed < over || !readers.sessions.iter().all(is_read) {
            return;
        }
        for reader in &readers.sessions {
            if let Some(session) = self.sessions.get_mut(reader) {
                session.leg_gone(id, &self.legs);
            }
        }
        self.legs.remove(&id);
        self.readers.remove(&id);
    }
}

/// The first instant (ns) of a leg that one of its readers may still look at.
fn unread(sessions: &Sessions, readers: &[RecordingId]) -> Option<i64> {
    let read = readers.iter().filter_map(|reader| sessions.get(reader)).map(Session::read_ns).min()?;
    Some(read - LOOK_AHEAD_NS)
}

/// The numbers of the bits that are set.
fn bits(of: u32) -> impl Iterator<Item = usize> {
    let rest = std::iter::successors(Some(of), |bits| Some(bits & bits.wrapping_sub(1)));
    rest.take_while(|bits| *bits != 0).map(|bits| bits.trailing_zeros() as usize)
}

/// Where a leg is tended.
fn slot_of(leg: LegId) -> usize {
    (leg.0 % SLOTS as u64) as usize
}

/// What is sealed at an instant, in whole quanta of every track.
fn sealed_at(now: i64) -> i64 {
    let quantum = QUANTUM_MS * 1_000_000;
    (now - SEALED_AFTER_NS).div_euclid(quantum) * quantum
}
