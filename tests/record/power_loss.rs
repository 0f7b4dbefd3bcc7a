//! The power is cut, or the process killed, at every operation of a recording's life, of its publishing and of its
//! repair. Afterwards every file plays, nothing older than the promise is lost, and the repaired metadata verifies.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stickytape::disk::store::Store;
use stickytape::disk::{Disk, wav};
use stickytape::id::RecordingId;
use stickytape::record::mark::StopCause;
use stickytape::record::metadata::{Recording, State};
use stickytape::testing::disk::SimDisk;

use crate::support::{RATE, STEP, Session, recording, sample, store};

/// What had been promised when the disk was cut.
#[derive(Debug, Clone, Copy, Default)]
struct Promise {
    /// The recording was reported as begun.
    begun: bool,
    /// Frames committed.
    committed: u64,
    /// The recording was begun when the last sync was done.
    begun_at_sync: bool,
    /// Frames committed before the last sync that was done.
    synced: u64,
    /// It was reported as published.
    published: bool,
}

const START: &str = "2026-11-20T23:59:58.500Z";

/// A life: eleven commits over three parts, a change of segment, a sync after every fourth commit, the end, publishing.
/// Stops at the first error, as a process does that is gone.
fn live(disk: &SimDisk, promise: &mut Promise) -> Result<(), stickytape::disk::store::Error> {
    let store = store(disk.clone());
    let _lock = store.lock()?;
    let mut session = Session::begin(&store, recording(1, START))?;
    promise.begun = true;
    for step in 1..=11_u64 {
        session.step()?;
        promise.committed = session.frames;
        if step % 4 == 0 {
            let (begun, frames) = (promise.begun, session.frames);
            store.sync()?;
            (promise.begun_at_sync, promise.synced) = (begun, frames);
        }
        if step == 5 || step == 9 {
            session.roll()?;
        }
        if step % 3 == 0 {
            session.change();
        }
    }
    let recording = session.end(StopCause::Released)?;
    store.publish(recording)?;
    promise.published = true;
    Ok(())
}

/// The start of the next process; it is done again after each failure.
fn restart(store: &Store) -> Result<(), stickytape::disk::store::Error> {
    let _lock = store.lock()?;
    for id in store.active()? {
        store.repair(id)?;
    }
    Ok(())
}

fn id() -> RecordingId {
    recording(1, START).id
}

fn only_recording(store: &Store) -> Option<Recording> {
    assert_eq!(store.active().unwrap(), [], "nothing is left behind");
    match store.published().unwrap()[..] {
        [] => None,
        [found] => {
            assert_eq!(found, id());
            let (recording, wrong) = store.verify(found).unwrap();
            assert_eq!(wrong, Vec::<String>::new());
            Some(recording)
        }
        ref more => panic!("one recording has become {more:?}"),
    }
}

/// Every file as it was recorded up to `kept` frames; after that sound or silence, but no other sound.
fn check_sound(store: &Store, recording: &Recording, kept: u64) {
    let folder = store.find(recording.id).unwrap().folder;
    let mut total = 0;
    for file in &recording.media_files {
        let (spec, samples) = wav::read(store.disk(), &folder.join(&file.file)).unwrap();
        assert_eq!((spec.sample_rate, spec.channels), (RATE, 1));
        assert_eq!(samples.len() as u64, file.samples);
        let index = usize::from(file.file.starts_with("supervisor"));
        for (frame, &found) in (file.start_sample..).zip(&samples) {
            let expected = sample(index, frame);
            // What was not promised may be silence, but never sound of another instant.
            let lost = frame >= kept && found == 0;
            assert!(found == expected || lost, "{} at {frame}: {found} is not {expected}", file.file);
        }
        total = total.max(file.start_sample + file.samples);
    }
    assert!(total >= kept, "{total} frames of {kept}");
}

fn check(store: &Store, promised: bool, kept: u64, promise: &Promise) {
    let found = only_recording(store);
    let Some(recording) = found else {
        assert!(!promised, "a recording that had been promised is gone");
        return;
    };
    check_sound(store, &recording, kept);
    if promise.published {
        assert_eq!(recording.recording_session.state, State::Complete);
        assert_eq!(recording.recording_session.stop_cause, Some(StopCause::Released));
    }
    let session = &recording.recording_session;
    match session.stop_cause {
        Some(StopCause::Crash) => assert_eq!(session.state, State::Recovered),
        Some(StopCause::Released) => assert_ne!(session.state, State::Recording),
        other => panic!("stop cause {other:?}"),
    }
}

/// Runs a life with an error at each operation in turn; hands the disk to `then` until a life needs no more operations.
fn at_every_operation(disk: impl Fn() -> SimDisk, mut then: impl FnMut(u64, SimDisk, Promise)) -> u64 {
    for cut in 0.. {
        let disk = disk();
        disk.fail_from(cut, ErrorKind::Other);
        let mut promise = Promise::default();
        let whole = live(&disk, &mut promise).is_ok();
        then(cut, disk, promise);
        if whole {
            return cut;
        }
    }
    unreachable!("a life ends")
}

fn across_file_systems() -> SimDisk {
    let disk = SimDisk::new();
    disk.mount(Path::new("/recordings/2026"));
    disk
}

#[test]
fn a_kill_at_any_operation_loses_nothing_that_was_committed() {
    for disk in [SimDisk::new as fn() -> SimDisk, across_file_systems] {
        let operations = at_every_operation(disk, |_, disk, promise| {
            let store = store(disk.after_kill());
            restart(&store).unwrap();
            check(&store, promise.begun, promise.committed, &promise);
        });
        assert!(operations > 100, "{operations} operations are no life");
    }
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_that_was_synced() {
    for disk in [SimDisk::new as fn() -> SimDisk, across_file_systems] {
        at_every_operation(disk, |cut, disk, promise| {
            for seed in 0..4 {
                let store = store(disk.after_power_cut(cut * 4 + seed));
                restart(&store).unwrap();
                let kept = if promise.published { promise.committed } else { promise.synced };
                check(&store, promise.begun_at_sync || promise.published, kept, &promise);
            }
        });
    }
}

/// Three calls that end together: what of them was reported as published when the disk was cut.
fn end_together(disk: &SimDisk, published: &mut Vec<RecordingId>) -> Result<(), stickytape::disk::store::Error> {
    let store = store(disk.clone());
    let _lock = store.lock()?;
    let mut ended = Vec::new();
    for number in 1..=3 {
        let mut session = Session::begin(&store, recording(number, START))?;
        for _ in 0..number {
            session.step()?;
        }
        ended.push(session.end(StopCause::Released)?);
    }
    let prepared = ended.into_iter().map(|recording| store.prepare(recording)).collect::<Result<Vec<_>, _>>()?;
    store.sync()?;
    let placed = prepared.into_iter().map(|prepared| store.place(prepared)).collect::<Result<Vec<_>, _>>()?;
    store.sync()?;
    published.extend(placed.into_iter().map(|placed| placed.into_recording().id));
    Ok(())
}

#[test]
fn recordings_published_under_one_sync_are_whole_or_repaired_wherever_it_is_cut() {
    for disk in [SimDisk::new as fn() -> SimDisk, across_file_systems] {
        for cut in 0.. {
            let disk = disk();
            disk.fail_from(cut, ErrorKind::Other);
            let mut published = Vec::new();
            let whole = end_together(&disk, &mut published).is_ok();
            let left = (0..4).map(|seed| disk.after_power_cut(cut * 4 + seed)).chain([disk.after_kill()]);
            for disk in left {
                let store = store(disk);
                restart(&store).unwrap();
                assert_eq!(store.active().unwrap(), [], "nothing is left behind");
                for id in store.published().unwrap() {
                    let (found, wrong) = store.verify(id).unwrap();
                    assert_eq!(wrong, Vec::<String>::new(), "cut at {cut}");
                    if found.recording_session.state == State::Complete {
                        let frames = found.media_files.iter().map(|file| file.start_sample + file.samples).max();
                        check_sound(&store, &found, frames.unwrap());
                    }
                }
                let complete = |id| store.verify(id).unwrap().0.recording_session.state == State::Complete;
                assert!(published.iter().all(|&id| complete(id)), "cut at {cut}");
            }
            if whole {
                assert_eq!(published.len(), 3);
                break;
            }
        }
    }
}

#[test]
fn metadata_of_a_synced_recording_is_never_rebuilt_from_nothing() {
    at_every_operation(SimDisk::new, |cut, disk, promise| {
        if !promise.begun_at_sync {
            return;
        }
        let store = store(disk.after_power_cut(cut));
        restart(&store).unwrap();
        let recording = only_recording(&store).unwrap();
        assert_eq!(recording.caller_phone_number, "+4930123", "cut at {cut}");
        let changes_synced = promise.synced / (3 * STEP);
        assert!(recording.segments.len() as u64 >= changes_synced, "cut at {cut}: {}", recording.segments.len());
    });
}

/// Cuts the life at some operations, and the repair that follows at every operation, by kill or by power.
fn cut_repair_everywhere(
    disk: fn() -> SimDisk,
    after: impl Fn(&SimDisk, u64) -> SimDisk,
    kept: impl Fn(&Promise) -> u64,
) {
    let mut lives = Vec::new();
    at_every_operation(disk, |cut, disk, promise| {
        if cut % 17 == 3 {
            lives.push((cut, disk, promise));
        }
    });
    for (cut, disk, promise) in lives {
        let left = after(&disk, cut);
        for second in 0.. {
            let disk = left.after_kill();
            disk.fail_from(second, ErrorKind::Other);
            let whole = restart(&store(disk.clone())).is_ok();
            let store = store(after(&disk, second));
            restart(&store).unwrap();
            let recording = only_recording(&store);
            if let Some(recording) = recording {
                check_sound(&store, &recording, kept(&promise));
            } else {
                assert_eq!(kept(&promise), 0);
            }
            if whole {
                break;
            }
        }
    }
}

#[test]
fn repair_may_itself_be_killed_at_any_operation() {
    for disk in [SimDisk::new as fn() -> SimDisk, across_file_systems] {
        cut_repair_everywhere(disk, |disk, _| disk.after_kill(), |promise| promise.committed);
    }
}

#[test]
fn repair_may_itself_lose_power_at_any_operation() {
    for disk in [SimDisk::new as fn() -> SimDisk, across_file_systems] {
        cut_repair_everywhere(disk, |disk, seed| disk.after_power_cut(seed), |promise| promise.synced);
    }
}

#[test]
fn a_disk_that_refuses_writes_leaves_a_recording_that_can_be_published_when_it_heals() {
    at_every_operation(SimDisk::new, |cut, disk, promise| {
        disk.heal();
        if promise.published || !promise.begun {
            return;
        }
        let store: Arc<Store> = store(disk.clone());
        let mut metadata = recording(1, START);
        // The recorder's own metadata goes on to the end; what there is of the files counts.
        metadata.recording_session.stop_cause = Some(StopCause::Released);
        let first = store.active_dir(id()).join("mixed.wav");
        if !disk.exists(&first).unwrap() {
            return; // it was being moved
        }
        let found = store.publish_failed(metadata, StopCause::DiskFull, "cannot write: no space").unwrap();
        assert_eq!(found.recording_session.state, State::Failed, "cut at {cut}");
        let published = only_recording(&store).unwrap();
        assert_eq!(published.recording_session.stop_cause, Some(StopCause::DiskFull));
        check_sound(&store, &published, promise.committed);
    });
}

#[test]
fn the_simulated_disk_does_lose_what_was_not_synced() {
    let disk = SimDisk::new();
    let path = PathBuf::from("/a");
    let file = disk.create(&path).unwrap();
    disk.sync_all(&path).unwrap();
    file.write_at(&[7; 600], 0).unwrap();
    let outcomes: Vec<Vec<u8>> = (0..64).map(|seed| disk.after_power_cut(seed).read(&path).unwrap()).collect();
    assert!(outcomes.iter().any(|content| content.is_empty()));
    assert!(outcomes.iter().any(|content| *content == [7; 600]));
    assert!(outcomes.iter().any(|content| !content.is_empty() && content[0] == 0));
    file.sync().unwrap();
    assert!((0..64).all(|seed| disk.after_power_cut(seed).read(&path).unwrap() == [7; 600]));
}
