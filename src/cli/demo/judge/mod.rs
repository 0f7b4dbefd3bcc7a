//! Compares each recording with what the phones of its scene have said, sample by sample: in every second everybody who
//! is due must be heard, and nobody else. Where there is a supervisor, what each phone has heard is held to the same.
//!
//! A party is due while the phones tell that it talks to somebody whose call is recorded: from the answer to a hold, a
//! REFER or the end. What it says besides, to a call that is being transferred for one, must be absent.

mod expected;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

pub(super) use self::expected::likeness;
use self::expected::{Expected, Tolerance};
use super::story::{AGENT, CUSTOMER, SUPERVISOR, Scene};
use crate::codec::Direction;
use crate::disk::list::Filter;
use crate::disk::store::{Error, Store};
use crate::disk::{RealDisk, wav};
use crate::record::mark::StopCause;
use crate::record::metadata::{FileKind, Recording};
use crate::testing::phone::{Happened, Happening, Heard, Spoken};

/// Samples per second of the recordings and of what is said.
const RATE: usize = 8_000;
/// How far a recording's beginning and end may be from what the phones saw.
const EDGE: Duration = Duration::from_millis(300);

/// One instant on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    /// Monotonic.
    pub now: Instant,
    /// UTC.
    pub wall: Timestamp,
}

/// What the phones of a scene have seen, said and heard.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Who (place in the cast) and what, in the order of time.
    pub story: Vec<(usize, Happened)>,
    /// When each of them spoke.
    pub spoken: Vec<Vec<Spoken>>,
    /// What each of them heard.
    pub heard: Vec<Heard>,
    /// From asking for it to the answer: the supervisor no longer coaches, everybody hears it.
    pub connected: Option<Range<Instant>>,
}

/// The outcome.
#[derive(Debug)]
pub struct Judged {
    /// What is wrong, one line each.
    pub wrong: Vec<String>,
    /// For each recording who is heard in which second.
    pub strips: String,
}

/// Two who are connected.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Talk {
    who: [usize; 2],
    from: Instant,
    to: Instant,
}

/// Judges what is published in `directory` from `since` on: one recording for each scene.
///
/// # Errors
/// The folder cannot be read.
pub fn judge(directory: &Path, since: Timestamp, clocks: Clocks, played: &[(&Scene, Seen)]) -> Result<Judged, Error> {
    let store = Store::new(Arc::new(RealDisk), directory.to_owned());
    let page = store.list(&Filter { from: Some(since), ..Filter::default() }, usize::MAX, None)?;
    let mut judged = Judged { wrong: Vec::new(), strips: String::new() };
    for (scene, seen) in played {
        let caller = &scene.cast[CUSTOMER];
        let mut mine = page.recordings.iter().filter(|recording| recording.caller_phone_number == caller.number);
        let (Some(recording), None) = (mine.next(), mine.next()) else {
            judged.wrong.push(format!("{}'s call did not leave one recording", caller.name));
            continue;
        };
        let folder = store.published_dir(recording);
        let supervisor = || read(&folder, recording, FileKind::Supervisor, 1);
        let files = read(&folder, recording, FileKind::Mixed, 2)
            .and_then(|mixed| Ok((mixed, scene.supervision.map(|_| supervisor()).transpose()?)));
        match files {
            Ok((mixed, supervisor)) => judged.one(scene, seen, recording, clocks, &mixed, supervisor.as_deref()),
            Err(wrong) => judged.wrong.push(wrong),
        }
    }
    if page.recordings.len() > played.len() {
        judged.wrong.push(format!("{} recordings were expected, {} were made", played.len(), page.recordings.len()));
    }
    Ok(judged)
}

/// The samples of the first file of a kind.
fn read(folder: &Path, recording: &Recording, kind: FileKind, channels: u16) -> Result<Vec<i16>, String> {
    let Some(file) = recording.media_files.iter().find(|file| file.kind == kind) else {
        return Err(format!("{} has no file of the kind {kind:?}", folder.display()));
    };
    let file = folder.join(&file.file);
    match wav::read(&RealDisk, &file) {
        Ok((spec, samples)) if spec.channels == channels && spec.sample_rate as usize == RATE => Ok(samples),
        Ok(_) => Err(format!("{} has not {channels} channel(s) at 8,000 Hz", file.display())),
        Err(error) => Err(format!("{} cannot be read: {error}", file.display())),
    }
}

impl Judged {
    fn one(
        &mut self,
        scene: &Scene,
        seen: &Seen,
        recording: &Recording,
        clocks: Clocks,
        mixed: &[i16],
        supervisor: Option<&[i16]>,
    ) {
        let caller = scene.cast[CUSTOMER].name;
        let talks = talks(scene, &seen.story);
        let since = recording.start_time.duration_since(clocks.wall).unsigned_abs();
        let start = clocks.now + since;
        let frames = mixed.len() / 2;
        let end = start + Duration::from_secs_f64(frames as f64 / RATE as f64);
        self.wrong.extend(session_wrong(scene, recording, &talks, start..end));

        let _ = writeln!(self.strips, "  {caller}'s call: {}", scene.moral);
        let due = due_in_mix(scene, &talks);
        let mut expected = Expected::new(scene, seen, &due, (start, frames), Tolerance::RECORDED);
        let mut wrong = vec![false; frames / RATE + 1];
        for channel in 0..2 {
            let heard: Vec<i16> = mixed.iter().skip(channel).step_by(2).copied().collect();
            let who: Vec<usize> = (0..scene.cast.len()).filter(|who| (*who == CUSTOMER) == (channel == 0)).collect();
            let name = format!("{caller}'s call, {}", ["left", "right"][channel]);
            self.hold(&name, &mut expected, &who, &heard, &mut wrong);
        }
        let everybody: Vec<usize> = (0..scene.cast.len()).collect();
        self.draw(scene, &expected, &wrong, &everybody, if supervisor.is_some() { "mixed.wav" } else { "" });
        if let Some(supervisor) = supervisor {
            let heard: Vec<_> = seen.heard.iter().map(|heard| heard.played(start, end).0).collect();
            self.supervised(scene, seen, start, supervisor, &heard);
        }
    }

    /// The supervisor's own file, and what each phone has heard, both from `start` on.
    fn supervised(&mut self, scene: &Scene, seen: &Seen, start: Instant, file: &[i16], heard: &[Vec<i16>]) {
        let everybody: Vec<usize> = (0..scene.cast.len()).collect();
        let Some(hearing) = Hearing::of(scene, seen) else {
            self.wrong.push(format!("{} was not in the call, or did not connect", scene.cast[SUPERVISOR].name));
            return;
        };
        let mut hold = |name: &str, due: &[Vec<Range<Instant>>], tolerance, heard: &[i16], shown: &[usize]| {
            let mut expected = Expected::new(scene, seen, due, (start, heard.len()), tolerance);
            let mut wrong = vec![false; heard.len() / RATE + 1];
            self.hold(name, &mut expected, &everybody, heard, &mut wrong);
            self.draw(scene, &expected, &wrong, shown, name);
        };
        let alone = [vec![], vec![], vec![hearing.joined..hearing.end]];
        hold("supervisor-1.wav", &alone, Tolerance::RECORDED, file, &[SUPERVISOR]);
        for (listener, (role, heard)) in scene.cast.iter().zip(heard).enumerate() {
            let due: Vec<_> = everybody.iter().map(|speaker| hearing.times(listener, *speaker)).collect();
            let others: Vec<usize> = everybody.iter().copied().filter(|who| *who != listener).collect();
            hold(&format!("as {} heard it", role.name), &due, Tolerance::HEARD, heard, &others);
        }
    }

    /// Holds a stream, on which these have their place, to what is expected; notes the seconds that are wrong.
    fn hold(&mut self, name: &str, expected: &mut Expected, who: &[usize], heard: &[i16], wrong: &mut [bool]) {
        who.iter().for_each(|who| expected.align(*who, heard));
        for (second, is_wrong) in wrong.iter_mut().enumerate() {
            if let Some(why) = expected.complaint(who, heard, second) {
                self.wrong.push(format!("{name}, second {second}: {why}"));
                *is_wrong = true;
            }
        }
    }

    /// A line for each of these, with a sign for each second.
    fn draw(&mut self, scene: &Scene, expected: &Expected, wrong: &[bool], who: &[usize], name: &str) {
        for who in who {
            let second = |(second, is_wrong): (usize, &bool)| match (is_wrong, expected.sounds(&[*who], second)) {
                (true, _) => '!',
                (false, true) => '#',
                (false, false) => '.',
            };
            let strip: String = wrong.iter().enumerate().map(second).collect();
            let line = format!("    {:<6} {strip}  {name}", scene.cast[*who].name);
            let _ = writeln!(self.strips, "{}", line.trim_end());
        }
    }
}

/// Who talked to whom, as the phones saw it; a supervisor talks to nobody.
fn talks(scene: &Scene, story: &[(usize, Happened)]) -> Vec<Talk> {
    let mut talks = Vec::new();
    let (mut pair, mut since) = ([CUSTOMER, AGENT], None);
    let parties = story.iter().filter(|(who, _)| scene.supervision.is_none() || *who != SUPERVISOR);
    for (who, happened) in parties {
        let opens = match &happened.what {
            Happening::Established if *who > 0 => {
                pair = [0, *who];
                true
            }
            Happening::Agreed { direction: Direction::SendRecv } => true,
            Happening::Agreed { .. } | Happening::Referred { .. } => false,
            Happening::Ended { .. } if pair.contains(who) => false,
            _ => continue,
        };
        let closed = if opens { since.replace(happened.at) } else { since.take() };
        talks.extend(closed.map(|from| Talk { who: pair, from, to: happened.at }));
    }
    talks
}

/// When each of the cast is due in `mixed.wav`: a supervisor never.
fn due_in_mix(scene: &Scene, talks: &[Talk]) -> Vec<Vec<Range<Instant>>> {
    let of = |who: usize| talks.iter().filter(|talk| talk.who.contains(&who)).map(|talk| talk.from..talk.to).collect();
    (0..scene.cast.len()).map(of).collect()
}

/// Who hears whom while there is a supervisor, first coaching, then connected (spec/recording.md §4.6).
struct Hearing {
    answered: Instant,
    joined: Instant,
    connected: Range<Instant>,
    end: Instant,
}

impl Hearing {
    fn of(scene: &Scene, seen: &Seen) -> Option<Self> {
        let talks = talks(scene, &seen.story);
        let joins =
            |(who, happened): &&(usize, Happened)| *who == SUPERVISOR && happened.what == Happening::Established;
        let joined = seen.story.iter().find(joins)?.1.at;
        let (first, last) = (talks.first()?, talks.last()?);
        Some(Self { answered: first.from, joined, connected: seen.connected.clone()?, end: last.to })
    }

    /// When a speaker is heard by a listener. Two times that meet: something changes there.
    fn times(&self, listener: usize, speaker: usize) -> Vec<Range<Instant>> {
        match (listener, speaker) {
            (CUSTOMER, AGENT) | (AGENT, CUSTOMER) => vec![self.answered..self.joined, self.joined..self.end],
            (AGENT, SUPERVISOR) => vec![self.joined..self.connected.start, self.connected.end..self.end],
            (CUSTOMER, SUPERVISOR) => vec![self.connected.end..self.end],
            (SUPERVISOR, CUSTOMER | AGENT) => vec![self.joined..self.end],
            _ => Vec::new(),
        }
    }
}

/// What is wrong with the session: its owner, its beginning and end.
fn session_wrong(scene: &Scene, recording: &Recording, talks: &[Talk], is: Range<Instant>) -> Vec<String> {
    let caller = scene.cast[CUSTOMER].name;
    let session = &recording.recording_session;
    let mut wrong = Vec::new();
    if (session.side, session.stop_cause) != (scene.owner, Some(scene.stop)) {
        wrong.push(format!("{caller}'s call: owned by {:?}, ended by {:?}", session.side, session.stop_cause));
    }
    let from = talks.first().map(|talk| talk.from);
    let to = match scene.stop {
        StopCause::OwnerLeft => talks.iter().find(|talk| talk.who == [0, 2]).map(|talk| talk.from),
        _ => talks.last().map(|talk| talk.to),
    };
    let apart = |a: Instant, b: Instant| a.max(b) - a.min(b) > EDGE;
    match (from, to) {
        (Some(from), Some(to)) if !apart(from, is.start) && !apart(to, is.end) => {}
        (Some(from), Some(to)) => {
            let length = (is.end - is.start).as_secs_f64();
            wrong.push(format!("{caller}'s call: {length:.2} s recorded, {:.2} s due", (to - from).as_secs_f64()));
        }
        _ => wrong.push(format!("{caller}'s call: nobody talked")),
    }
    wrong
}
