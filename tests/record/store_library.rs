//! The folder of recordings as the shell and the HTTP listener see it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use stickytape::disk::list::Filter;
use stickytape::disk::store::{Error, Store};
use stickytape::disk::{Disk, RealDisk};
use stickytape::id::RecordingId;
use stickytape::record::mark::StopCause;
use stickytape::record::metadata::{Event, Mask, MaskKind, Recording, State, time_of_sample};
use stickytape::testing::disk::SimDisk;

use crate::support::{RATE, Session, recording, segment, store};

fn publish(store: &Arc<Store>, recording: Recording) -> RecordingId {
    let mut session = Session::begin(store, recording).unwrap();
    session.step().unwrap();
    store.publish(session.end(StopCause::Released).unwrap()).unwrap().id
}

fn write(disk: &SimDisk, path: &str, content: &[u8]) {
    let path = Path::new(path);
    disk.create_dir_all(path.parent().unwrap()).unwrap();
    disk.create(path).unwrap().write_at(content, 0).unwrap();
}

fn ids(store: &Store, filter: &Filter) -> Vec<RecordingId> {
    store.list(filter, 100, None).unwrap().recordings.iter().map(|r| r.id).collect()
}

#[test]
fn a_published_recording_stands_in_the_folder_of_the_utc_date_of_its_start_and_verifies() {
    let store = store(SimDisk::new());
    let id = publish(&store, recording(1, "2026-11-20T23:59:59.999Z"));
    let found = store.find(id).unwrap();
    assert!(found.published);
    assert_eq!(found.folder, PathBuf::from(format!("/recordings/2026/11/20/{id}")));
    assert_eq!(found.recording.recording_session.state, State::Complete);
    assert_eq!(store.verify(id).unwrap().1, Vec::<String>::new());
    assert_eq!(store.active().unwrap(), []);
    let names: Vec<String> = store.disk().list(&found.folder).unwrap().into_iter().map(|e| e.name).collect();
    assert_eq!(names, ["mixed.wav", "recording.json", "supervisor-1.wav"]);
}

#[test]
fn lists_are_newest_first_and_hold_running_recordings_too() {
    let store = store(SimDisk::new());
    let old = publish(&store, recording(1, "2025-12-31T23:59:59Z"));
    let long_call = Session::begin(&store, recording(2, "2026-01-01T00:00:01Z")).unwrap();
    let noon = publish(&store, recording(3, "2026-01-01T12:00:00Z"));
    let new = publish(&store, recording(4, "2026-01-02T00:00:00Z"));
    let running = long_call.recording.id;
    assert_eq!(ids(&store, &Filter::default()), [new, noon, running, old]);
    assert!(!store.find(running).unwrap().published);
}

#[test]
fn pages_follow_each_other_without_gap_or_repetition_while_new_recordings_come() {
    let store = store(SimDisk::new());
    for number in 0..23 {
        // Several start in the same instant.
        publish(&store, recording(number, &format!("2026-03-{:02}T10:00:00.250Z", number / 3 + 1)));
    }
    for limit in [1, 2, 5, 23, 24] {
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let page = store.list(&Filter::default(), limit, cursor.as_deref()).unwrap();
            assert!(page.recordings.len() <= limit);
            seen.extend(page.recordings.iter().map(|r| (r.start_time, r.id)));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), 23, "limit {limit}");
        assert!(seen.is_sorted_by(|a, b| a > b), "limit {limit}");
    }
    let first = store.list(&Filter::default(), 2, None).unwrap();
    publish(&store, recording(100, "2026-04-01T00:00:00Z"));
    let second = store.list(&Filter::default(), 2, first.next.as_deref()).unwrap();
    assert!(second.recordings[0].start_time <= first.recordings[1].start_time);
    assert_ne!(second.recordings[0].id, first.recordings[1].id);
}

#[test]
fn a_cursor_that_is_not_ours_counts_as_none() {
    let store = store(SimDisk::new());
    publish(&store, recording(1, "2026-01-01T00:00:00Z"));
    for cursor in ["", "_", "x_y", "../../etc/passwd", "2026-01-01T00:00:00Z_"] {
        assert_eq!(store.list(&Filter::default(), 5, Some(cursor)).unwrap().recordings.len(), 1, "{cursor}");
    }
}

#[test]
fn every_field_of_a_filter_must_agree() {
    let store = store(SimDisk::new());
    let first = publish(&store, recording(1, "2026-01-01T00:00:00Z"));
    let other = Recording {
        caller_phone_number: "5".into(),
        dialed_phone_number: "6".into(),
        ..recording(2, "2026-01-02T00:00:00Z")
    };
    let second = publish(&store, other);
    let text = |s: &str| Some(s.to_owned());
    let time = |s: &str| Some(s.parse().unwrap());
    for (filter, expected) in [
        (Filter { caller: text("5"), ..Filter::default() }, &[second][..]),
        (Filter { caller: text("+4930123"), ..Filter::default() }, &[first]),
        (Filter { caller: text("5"), dialed: text("2001"), ..Filter::default() }, &[]),
        (Filter { dialed: text("2001"), ..Filter::default() }, &[first]),
        (Filter { dn: text("2001"), ..Filter::default() }, &[second, first]),
        (Filter { dn: text("2002"), ..Filter::default() }, &[]),
        (Filter { from: time("2026-01-02T00:00:00Z"), ..Filter::default() }, &[second]),
        (Filter { to: time("2026-01-02T00:00:00Z"), ..Filter::default() }, &[first]),
        (Filter { state: Some(State::Complete), ..Filter::default() }, &[second, first]),
        (Filter { state: Some(State::Recovered), ..Filter::default() }, &[]),
    ] {
        assert_eq!(ids(&store, &filter), expected, "{filter:?}");
    }
}

#[test]
fn what_does_not_belong_in_the_folder_is_skipped() {
    let disk = SimDisk::new();
    let store = store(disk.clone());
    assert_eq!(ids(&store, &Filter::default()), [], "a folder that does not exist is empty");
    let id = publish(&store, recording(1, "2026-01-01T00:00:00Z"));
    let stranger = recording(9, "2026-01-01T00:00:00Z").id;
    for junk in [
        "/recordings/README".into(),
        "/recordings/2026/99/01/x/recording.json".into(),
        "/recordings/2026/01/xx/recording.json".into(),
        "/recordings/2026/01/01/notes.txt".into(),
        "/recordings/.active/tmp/recording.json".into(),
        format!("/recordings/2026/01/01/{stranger}/recording.json"),
        format!("/recordings/2026/01/01/.{stranger}.gone/recording.json"),
    ] {
        write(&disk, &junk, b"{ this is no JSON");
    }
    // A copy of another recording's metadata under a wrong id is not that recording.
    let other = recording(8, "2026-01-01T00:00:00Z").id;
    let text = disk.read(Path::new(&format!("/recordings/2026/01/01/{id}/recording.json"))).unwrap();
    write(&disk, &format!("/recordings/2026/01/01/{other}/recording.json"), &text);
    assert_eq!(ids(&store, &Filter::default()), [id]);
    assert_eq!(store.active().unwrap(), []);
    assert!(matches!(store.find(stranger), Err(Error::Metadata { .. })));
    assert!(store.published().unwrap().contains(&stranger), "verify must not pass over it");
}

#[test]
fn deleting_removes_a_published_recording_and_refuses_a_running_one() {
    let disk = SimDisk::new();
    let store = store(disk.clone());
    let id = publish(&store, recording(1, "2026-01-01T00:00:00Z"));
    let running = Session::begin(&store, recording(2, "2026-01-01T00:00:00Z")).unwrap().recording.id;
    assert!(matches!(store.delete(running), Err(Error::Running(_))));
    store.delete(id).unwrap();
    assert!(matches!(store.find(id), Err(Error::NotFound(_))));
    assert!(matches!(store.delete(id), Err(Error::NotFound(_))));
    assert_eq!(disk.list(Path::new("/recordings/2026/01/01")).unwrap(), []);
}

#[test]
fn an_export_is_a_whole_copy_and_overwrites_nothing() {
    let disk = SimDisk::new();
    let store = store(disk.clone());
    let id = publish(&store, recording(1, "2026-01-01T00:00:00Z"));
    let target = store.export(id, Path::new("/else/where")).unwrap();
    let folder = store.find(id).unwrap().folder;
    for entry in disk.list(&folder).unwrap() {
        assert_eq!(disk.read(&folder.join(&entry.name)).unwrap(), disk.read(&target.join(&entry.name)).unwrap());
    }
    assert!(matches!(store.export(id, Path::new("/else/where")), Err(Error::Io { .. })));
}

#[test]
fn two_servers_cannot_hold_one_folder() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Store::new(Arc::new(RealDisk), dir.path().to_owned());
    let (first, second) = (open(), open());
    let lock = first.lock().unwrap();
    let refused = second.lock().err().unwrap();
    assert!(refused.to_string().ends_with("is in use by a running stickytape serve"), "{refused}");
    drop(lock);
    assert!(second.lock().is_ok());
}

#[test]
fn a_changed_byte_a_missing_file_and_an_added_one_are_found() {
    let disk = SimDisk::new();
    let store = store(disk.clone());
    let id = publish(&store, recording(1, "2026-01-01T00:00:00Z"));
    let folder = store.find(id).unwrap().folder;
    disk.open(&folder.join("mixed.wav")).unwrap().write_at(&[0x55], 300).unwrap();
    disk.remove_file(&folder.join("supervisor-1.wav")).unwrap();
    write(&disk, folder.join("party-1.wav").to_str().unwrap(), b"RIFF");
    let wrong = store.verify(id).unwrap().1.join("\n");
    for expected in ["mixed.wav was changed", "supervisor-1.wav is missing", "party-1.wav is in the folder"] {
        assert!(wrong.contains(expected), "{wrong}");
    }
}

#[test]
fn a_recording_without_metadata_is_rebuilt_from_its_files_with_a_warning() {
    for content in [None, Some(&b"{\"id\": \"torn"[..])] {
        let disk = SimDisk::new();
        let store = store(disk.clone());
        let mut session = Session::begin(&store, recording(1, "2026-01-01T00:00:00Z")).unwrap();
        session.step().unwrap();
        session.roll().unwrap();
        session.step().unwrap();
        let (id, frames) = (session.recording.id, session.frames);
        drop(session);
        for entry in disk.list(&store.active_dir(id)).unwrap() {
            if entry.name.contains("json") {
                disk.remove_file(&store.active_dir(id).join(entry.name)).unwrap();
            }
        }
        if let Some(content) = content {
            write(&disk, store.active_dir(id).join("recording.json").to_str().unwrap(), content);
        }
        let repaired = store.repair(id).unwrap().unwrap();
        assert_eq!(store.verify(id).unwrap().1, Vec::<String>::new());
        assert_eq!(repaired.recording_session.state, State::Recovered);
        assert_eq!(repaired.recording_session.stop_cause, Some(StopCause::Crash));
        assert_eq!(repaired.duration_ms, Some(frames / 8));
        assert!(repaired.warnings.iter().any(|w| w.contains("rebuilt")), "{:?}", repaired.warnings);
        assert_eq!(repaired.media_files.len(), 4);
    }
}

#[test]
fn a_recording_that_ended_but_was_not_published_keeps_its_stop_cause() {
    let store = store(SimDisk::new());
    let mut session = Session::begin(&store, recording(1, "2026-01-01T00:00:00Z")).unwrap();
    session.step().unwrap();
    let id = session.end(StopCause::OwnerLeft).unwrap().id;
    let repaired = store.repair(id).unwrap().unwrap();
    assert_eq!(repaired.recording_session.stop_cause, Some(StopCause::OwnerLeft));
    assert_eq!(repaired.recording_session.state, State::Recovered);
    assert_eq!(store.verify(id).unwrap().1, Vec::<String>::new());
}

#[test]
fn a_pause_whose_end_only_the_sound_tells_is_closed_there_and_verifies() {
    let disk = SimDisk::new();
    let store = store(disk.clone());
    let mut session = Session::begin(&store, recording(1, "2026-11-20T09:00:00Z")).unwrap();
    session.step().unwrap();
    for file in 0..2 {
        session.active.append(file, &[0; 160]).unwrap();
    }
    session.frames += 160;
    session.change();
    let paused = session.frames;
    {
        let start = session.recording.start_time;
        let last = session.recording.segments.last_mut().unwrap();
        (last.paused, last.speakers) = (true, vec![]);
        let time = time_of_sample(start, paused, RATE);
        session.recording.masks.push(Mask { time, kind: MaskKind::Paused });
    }
    session.active.set_metadata(session.recording.clone());
    for file in 0..2 {
        session.active.append(file, &[0; 2_000]).unwrap();
    }
    session.active.commit().unwrap();
    // Killed between the audio of a commit and its metadata, which would have told of the end.
    for file in 0..2 {
        session.active.append(file, &[0; 160]).unwrap();
        session.active.append(file, &[77; 800]).unwrap();
    }
    session.active.commit().unwrap();
    let id = session.recording.id;
    let store = crate::support::store(disk.after_kill());
    let repaired = store.repair(id).unwrap().unwrap();
    let pauses: Vec<_> = repaired.segments.iter().map(|s| (s.start_sample, s.end_sample, s.paused)).collect();
    assert_eq!(pauses, [(0, paused, false), (paused, paused + 2_000, true), (paused + 2_000, paused + 2_960, false)]);
    assert_eq!(repaired.segments[2].speakers, repaired.segments[0].speakers);
    assert_eq!(repaired.masks.last().unwrap().kind, MaskKind::Resumed);
    assert!(repaired.warnings.iter().any(|w| w.contains("the last pause")), "{:?}", repaired.warnings);
    assert_eq!(store.verify(id).unwrap().1, Vec::<String>::new());
}

#[test]
fn metadata_ahead_of_the_audio_tells_of_nothing_after_the_end() {
    let disk = SimDisk::new();
    let store = store(disk.clone());
    let mut session = Session::begin(&store, recording(1, "2026-11-20T09:00:00Z")).unwrap();
    session.step().unwrap();
    // After a power cut the metadata may know of a second that the audio has lost.
    let start = session.recording.start_time;
    let late = time_of_sample(start, session.frames + 8_000, RATE);
    session.recording.segments[0].end_sample = session.frames + 8_000;
    session.recording.segments[0].end = late;
    let mut next = segment(start, session.frames + 8_000, session.frames + 8_000);
    next.held = true;
    session.recording.segments.push(next);
    session.recording.participants[0].left = Some(late);
    session.recording.events.push(Event { time: late, name: "held".into(), attributes: Default::default() });
    session.active.set_metadata(session.recording.clone());
    session.active.commit().unwrap();
    let (id, frames) = (session.recording.id, session.frames);
    let store = crate::support::store(disk.after_kill());
    let repaired = store.repair(id).unwrap().unwrap();
    assert_eq!(store.verify(id).unwrap().1, Vec::<String>::new());
    let segments: Vec<_> = repaired.segments.iter().map(|s| (s.start_sample, s.end_sample, s.held)).collect();
    assert_eq!(segments, [(0, frames, false)]);
    let stop = repaired.stop_time.unwrap();
    assert_eq!(repaired.segments[0].end, stop);
    assert!(repaired.participants.iter().all(|p| p.left == Some(stop)));
    assert_eq!(repaired.events[0].time, stop);
}

#[test]
fn files_of_unequal_length_are_padded_to_the_longest_and_none_is_cut() {
    let disk = SimDisk::new();
    let store = store(disk.clone());
    let mut session = Session::begin(&store, recording(1, "2026-01-01T00:00:00Z")).unwrap();
    session.step().unwrap();
    let id = session.recording.id;
    drop(session);
    // The kill came after the data of one file and before its header, in the middle of a frame of the other.
    let dir = store.active_dir(id);
    let mixed = disk.open(&dir.join("mixed.wav")).unwrap();
    mixed.write_at(&[9; 321], mixed.len().unwrap()).unwrap();
    let repaired = store.repair(id).unwrap().unwrap();
    assert!(repaired.media_files.iter().all(|f| f.samples == crate::support::STEP + 160), "{:?}", repaired.media_files);
    assert_eq!(store.verify(id).unwrap().1, Vec::<String>::new());
}
