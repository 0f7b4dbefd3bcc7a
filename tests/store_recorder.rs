//! The recorder's threads on a real disk: a recording from its first mark to its folder, and what happens when the disk
//! is slow, full or gone.

#[path = "support/live.rs"]
mod live;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use live::{Call, Live};
use stickytape::disk::floor::Room;
use stickytape::disk::store::{Error, Store};
use stickytape::disk::{RealDisk, wav};
use stickytape::id::RecordingId;
use stickytape::record::mark::{Layout, Notice, StopCause};
use stickytape::record::metadata::{GapCause, Recording, State};
use stickytape::testing::disk::SimDisk;

fn is_begun(id: RecordingId) -> impl Fn(&Notice) -> bool {
    move |notice| matches!(notice, Notice::Begun(begun) if *begun == id)
}

fn is_published(id: RecordingId) -> impl Fn(&Notice) -> bool {
    move |notice| matches!(notice, Notice::Published(published) if *published == id)
}

fn open(dir: &tempfile::TempDir) -> Store {
    open_at(dir.path())
}

fn open_at(directory: &Path) -> Store {
    Store::new(Arc::new(RealDisk), directory.to_owned())
}

fn verified(store: &Store, call: Call) -> Recording {
    let (recording, wrong) = store.verify(call.id).unwrap();
    assert_eq!(wrong, Vec::<String>::new());
    recording
}

fn sound(store: &Store, call: Call, file: &str) -> Vec<i16> {
    let folder: PathBuf = store.find(call.id).unwrap().folder;
    wav::read(store.disk(), &folder.join(file)).unwrap().1
}

#[test]
fn a_recording_begins_with_its_files_and_ends_in_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let mut live = Live::start(dir.path(), 0, 1 << 20);
    let call = live.call(Layout::Stereo);
    live.speak(Duration::from_millis(60));
    live.wait_for("begun", is_begun(call.id));
    assert!(dir.path().join(".active").join(call.id.to_string()).join("mixed.wav").exists());
    live.speak(Duration::from_millis(1_500));
    live.stop(call, StopCause::Released);
    live.wait_for("published", is_published(call.id));
    let store = open(&dir);
    let recording = verified(&store, call);
    assert_eq!(recording.recording_session.state, State::Complete);
    assert_eq!(recording.recording_session.stop_cause, Some(StopCause::Released));
    let samples = sound(&store, call, "mixed.wav");
    let loud = samples.iter().filter(|s| s.abs() > 1_000).count();
    assert!(loud > samples.len() / 2, "{loud} of {} samples are sound", samples.len());
    live.shutdown();
    assert_eq!(store.active().unwrap(), []);
}

#[test]
fn a_shutdown_closes_and_publishes_what_still_runs() {
    let dir = tempfile::tempdir().unwrap();
    let mut live = Live::start(dir.path(), 0, 1 << 20);
    let calls = [Layout::Mixed, Layout::Stereo, Layout::Tracks].map(|layout| live.call(layout));
    live.speak(Duration::from_millis(1_000));
    live.shutdown();
    let store = open(&dir);
    for call in calls {
        let recording = verified(&store, call);
        assert_eq!(recording.recording_session.stop_cause, Some(StopCause::Shutdown));
        assert!(recording.duration_ms.unwrap() >= 980, "{:?}", recording.duration_ms);
    }
}

#[test]
fn a_recording_for_which_there_is_no_room_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut live = Live::start(dir.path(), u64::MAX / 4, 1 << 20);
    assert!(!live.keeper.room().takes_new());
    let call = live.call(Layout::Mixed);
    live.speak(Duration::from_millis(100));
    live.wait_for(
        "failed",
        |notice| matches!(notice, Notice::Failed { id, cause: StopCause::DiskFull, .. } if *id == call.id),
    );
    live.speak(Duration::from_millis(800));
    live.shutdown();
    assert!(matches!(open(&dir).find(call.id), Err(Error::NotFound(_))));
}

#[test]
fn a_disk_that_refuses_a_write_fails_its_recording_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut live = Live::start(dir.path(), 0, 1 << 20);
    let (lost, kept) = (live.call(Layout::Mixed), live.call(Layout::Mixed));
    live.speak(Duration::from_millis(1_000));
    live.wait_for("begun", is_begun(lost.id));
    // Its folder is gone: the metadata of the next change has no place.
    std::fs::remove_dir_all(dir.path().join(".active").join(lost.id.to_string())).unwrap();
    live.stop(lost, StopCause::Released);
    live.speak(Duration::from_millis(1_500));
    live.wait_for("failed", |notice| {
        matches!(notice, Notice::Failed { id, cause: StopCause::WriteError, reason } if *id == lost.id
            && !reason.contains(dir.path().to_str().unwrap()))
    });
    live.stop(kept, StopCause::Released);
    live.wait_for("published", is_published(kept.id));
    live.shutdown();
    let recording = verified(&open(&dir), kept);
    assert_eq!(recording.recording_session.state, State::Complete);
}

#[test]
fn what_a_slow_disk_has_no_room_for_is_silence_of_the_exact_length_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    // No buffer at all: every sample finds it full.
    let mut live = Live::start(dir.path(), 0, 0);
    let call = live.call(Layout::Stereo);
    live.speak(Duration::from_millis(1_200));
    live.stop(call, StopCause::Released);
    live.wait_for("published", is_published(call.id));
    live.shutdown();
    let store = open(&dir);
    let recording = verified(&store, call);
    assert!(sound(&store, call, "mixed.wav").iter().all(|&sample| sample == 0));
    let dropped = recording.gaps.iter().filter(|gap| gap.cause == GapCause::DroppedByUs);
    assert_eq!(dropped.clone().count(), 2, "one stretch for each leg: {:?}", recording.gaps);
    let total = recording.media_files[0].samples;
    assert!(dropped.clone().all(|gap| gap.start_sample == 0 && gap.end_sample == total), "{:?}", recording.gaps);
    assert!(recording.warnings.iter().any(|w| w.contains("too slow")), "{:?}", recording.warnings);
}

#[test]
fn a_disk_that_hangs_for_seconds_stops_nothing_and_what_it_missed_is_silence_of_the_exact_length() {
    let disk = SimDisk::new();
    // Room for about a second.
    let mut live = Live::start_on(Arc::new(disk.clone()), Path::new("/recordings"), 0, 1 << 14);
    let call = live.call(Layout::Mixed);
    live.speak(Duration::from_millis(1_500));
    live.wait_for("begun", is_begun(call.id));
    disk.hang();
    // Each packet must find room in the ring, which a recorder that waits for the disk would not make.
    live.speak(Duration::from_millis(3_000));
    assert!(live.recorder.queued_bytes() <= 1 << 14, "{} bytes wait", live.recorder.queued_bytes());
    disk.resume();
    live.speak(Duration::from_millis(1_500));
    live.stop(call, StopCause::Released);
    live.wait_for("published", is_published(call.id));
    live.shutdown();

    let store = Store::new(Arc::new(disk), "/recordings".into());
    let recording = verified(&store, call);
    assert_eq!(recording.recording_session.state, State::Complete);
    let samples = sound(&store, call, "mixed.wav");
    assert!((5_980..6_300).contains(&recording.duration_ms.unwrap()), "{:?}", recording.duration_ms);
    let lost: Vec<(u64, u64, u64)> = recording
        .gaps
        .iter()
        .filter(|gap| gap.cause == GapCause::DroppedByUs)
        .map(|gap| (gap.leg.0, gap.start_sample, gap.end_sample))
        .collect();
    let [(1, from, until), (2, from_too, until_too)] = lost[..] else { panic!("{:?}", recording.gaps) };
    assert_eq!((from, until), (from_too, until_too));
    assert!(until - from > 8_000, "from {from} to {until}: it did not fill the buffer");
    let (from, until) = (from as usize, until as usize);
    assert!(samples[from..until].iter().all(|&sample| sample == 0), "what is listed as lost is silence");
    assert!(samples[800..from].iter().all(|&sample| sample != 0), "what was kept before is there");
    let after = samples[until..samples.len() - 2_400].iter();
    assert!(after.clone().len() > 4_000 && after.into_iter().all(|&sample| sample != 0), "it goes on behind it");
    assert!(recording.warnings.iter().any(|w| w.contains("too slow")), "{:?}", recording.warnings);
}

#[test]
fn a_second_server_on_the_same_folder_is_refused_and_repairs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut live = Live::start(dir.path(), 0, 1 << 20);
    let call = live.call(Layout::Mixed);
    live.speak(Duration::from_millis(300));
    live.wait_for("begun", is_begun(call.id));
    assert!(matches!(open(&dir).lock(), Err(Error::InUse(_))));
    let program = env!("CARGO_BIN_EXE_stickytape");
    let config = dir.path().join("config.toml");
    std::fs::write(&config, format!("[recording]\ndirectory = {:?}\n", dir.path())).unwrap();
    let repair = std::process::Command::new(program).args(["recordings", "repair", "--config"]).arg(&config).output();
    let repair = repair.unwrap();
    assert_eq!(repair.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&repair.stderr).contains("in use by a running stickytape serve"), "{repair:?}");
    live.shutdown();
    verified(&open(&dir), call);
}

#[test]
fn a_start_finishes_what_a_former_process_left_while_new_calls_are_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let mut former = Live::start(dir.path(), 0, 1 << 20);
    let left = former.call(Layout::Mixed);
    former.speak(Duration::from_millis(1_200));
    former.wait_for("begun", is_begun(left.id));
    // As the disk looks in the middle of the call, in another folder: the former process lives on here.
    let crashed = tempfile::tempdir().unwrap();
    let folder = Path::new(".active").join(left.id.to_string());
    std::fs::create_dir_all(crashed.path().join(&folder)).unwrap();
    for entry in std::fs::read_dir(dir.path().join(&folder)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), crashed.path().join(&folder).join(entry.file_name())).unwrap();
    }
    former.shutdown();

    let mut live = Live::start(crashed.path(), 0, 1 << 20);
    let call = live.call(Layout::Mixed);
    live.speak(Duration::from_millis(600));
    live.shutdown();
    let store = open(&crashed);
    let recovered = verified(&store, left);
    assert_eq!(recovered.recording_session.state, State::Recovered);
    assert_eq!(recovered.recording_session.stop_cause, Some(StopCause::Crash));
    assert!(recovered.duration_ms.unwrap() > 200);
    verified(&store, call);
}

#[test]
fn a_disk_that_fills_up_closes_and_publishes_what_runs_and_refuses_what_comes() {
    const FLOOR: u64 = 1 << 20;
    let disk = SimDisk::new();
    let mut live = Live::start_on(Arc::new(disk.clone()), Path::new("/recordings"), FLOOR, 1 << 20);
    let running = live.call(Layout::Stereo);
    live.speak(Duration::from_millis(1_000));
    disk.set_free(FLOOR - 1);
    live.speak(Duration::from_millis(1_200));
    assert_eq!(live.keeper.room(), Room::Low);
    assert!(!live.told(|notice| matches!(notice, Notice::Failed { .. })), "what runs goes on above a quarter");
    disk.set_free(FLOOR / 4 - 1);
    live.speak(Duration::from_millis(2_200));
    live.wait_for(
        "failed",
        |notice| matches!(notice, Notice::Failed { id, cause: StopCause::DiskFull, .. } if *id == running.id),
    );
    live.wait_for("published", is_published(running.id));
    disk.set_free(FLOOR + FLOOR / 2);
    live.speak(Duration::from_millis(1_200));
    let refused = live.call(Layout::Mixed);
    live.speak(Duration::from_millis(100));
    live.wait_for("refused", |notice| matches!(notice, Notice::Failed { id, .. } if *id == refused.id));
    disk.set_free(2 * FLOOR);
    live.speak(Duration::from_millis(1_200));
    let later = live.call(Layout::Mixed);
    live.speak(Duration::from_millis(300));
    live.wait_for("begun", is_begun(later.id));
    live.shutdown();

    let store = Store::new(Arc::new(disk), "/recordings".into());
    let recording = verified(&store, running);
    assert_eq!(recording.recording_session.stop_cause, Some(StopCause::DiskFull));
    assert_eq!(recording.recording_session.state, State::Complete, "it was closed in order");
    assert!(matches!(store.find(refused.id), Err(Error::NotFound(_))));
    verified(&store, later);
}

#[test]
fn calls_that_end_together_share_syncs_and_each_is_durable_when_it_is_told_published() {
    const CALLS: usize = 100;
    let disk = SimDisk::new();
    let mut live = Live::start_on(Arc::new(disk.clone()), Path::new("/recordings"), 0, 1 << 24);
    let calls: Vec<Call> = (0..CALLS).map(|_| live.call(Layout::Stereo)).collect();
    live.speak(Duration::from_millis(300));
    let syncs = disk.syncs();
    for &call in &calls {
        live.stop(call, StopCause::Released);
    }
    let (mut durable, mut seed) = (0, 0);
    while durable < CALLS {
        assert!(seed < 1_000, "{durable} of {CALLS} recordings are published");
        live.speak(Duration::from_millis(20));
        seed += 1;
        let told: Vec<Call> = calls.iter().copied().filter(|call| live.told(is_published(call.id))).collect();
        if told.len() > durable {
            let store = Store::new(Arc::new(disk.after_power_cut(seed)), "/recordings".into());
            told.iter().for_each(|&call| drop(verified(&store, call)));
            durable = told.len();
        }
    }
    let syncs = disk.syncs() - syncs;
    // One by one they would take two each. How many go together depends on the threads' turns.
    assert!(syncs < CALLS as u64, "{syncs} syncs for {CALLS} recordings");
    live.shutdown();
}

#[test]
fn a_full_disk_breaks_a_recording_off_and_it_is_published_when_there_is_room_again() {
    let disk = SimDisk::new();
    let mut live = Live::start_on(Arc::new(disk.clone()), Path::new("/recordings"), 0, 1 << 20);
    let call = live.call(Layout::Stereo);
    live.speak(Duration::from_millis(1_500));
    disk.fail_from(disk.operations(), std::io::ErrorKind::StorageFull);
    live.speak(Duration::from_millis(1_500));
    live.wait_for(
        "failed",
        |notice| matches!(notice, Notice::Failed { id, cause: StopCause::DiskFull, .. } if *id == call.id),
    );
    assert!(!live.told(is_published(call.id)));
    disk.heal();
    live.wait_for("published", is_published(call.id));
    live.shutdown();
    let store = Store::new(Arc::new(disk), "/recordings".into());
    let recording = verified(&store, call);
    assert_eq!(recording.recording_session.state, State::Failed);
    assert_eq!(recording.recording_session.stop_cause, Some(StopCause::DiskFull));
    assert!(recording.duration_ms.unwrap() > 400, "{:?}", recording.duration_ms);
    assert!(recording.warnings.iter().any(|w| w.starts_with("cannot write")), "{:?}", recording.warnings);
}

#[test]
fn all_files_of_a_session_roll_at_the_same_sample_and_sound_goes_on_there() {
    let dir = tempfile::tempdir().unwrap();
    // Room for half a second of the stereo file.
    let mut live = Live::start_rolling(Arc::new(RealDisk), dir.path(), 0, 1 << 20, 44 + 4 * 4_000);
    let call = live.call(Layout::Tracks);
    live.speak(Duration::from_millis(2_400));
    live.shutdown();
    let store = open(&dir);
    let recording = verified(&store, call);
    let parts = recording.media_files.iter().map(|f| f.part).max().unwrap();
    assert!(parts >= 2, "{parts} parts");
    let folder = store.find(call.id).unwrap().folder;
    for file in &recording.media_files {
        assert!(file.size.unwrap() <= 44 + 4 * 4_000);
        let samples = wav::read(&RealDisk, &folder.join(&file.file)).unwrap().1;
        let loud = samples.iter().filter(|s| s.abs() > 1_000).count();
        assert!(loud * 2 > samples.len() || file.part == parts, "{loud} of {} in {}", samples.len(), file.file);
    }
}

#[test]
fn the_shell_lists_shows_verifies_exports_and_deletes() {
    let dir = tempfile::tempdir().unwrap();
    let recordings = dir.path().join("recordings");
    let mut live = Live::start(&recordings, 0, 1 << 20);
    let call = live.call(Layout::Mixed);
    live.speak(Duration::from_millis(600));
    live.shutdown();
    std::fs::write(dir.path().join("stickytape.toml"), "[recording]\ndirectory = \"recordings\"\n").unwrap();
    let shell = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_stickytape"));
        let output = command.arg("recordings").args(arguments).current_dir(dir.path()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let id = call.id.to_string();
    let (code, text, _) = shell(&["list", "--json", "--caller", "100"]);
    let list: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, list["recordings"][0]["id"].as_str()), (Some(0), Some(&*id)));
    assert!(list["next"].is_null());
    assert!(shell(&["list"]).1.contains(&id));
    assert!(shell(&["list", "--caller", "101"]).1.starts_with("no recordings in "));
    let (code, text, _) = shell(&["show", &id]);
    assert_eq!(code, Some(0));
    assert!(text.contains("mixed.wav") && text.contains("started by default: default = origination"), "{text}");
    assert_eq!(shell(&["verify"]).0, Some(0));
    let (code, text, _) = shell(&["repair"]);
    assert_eq!((code, &*text), (Some(0), "0 left behind, 0 not repaired\n"));
    assert_eq!(shell(&["export", &id, "--to", "copies"]).0, Some(0));
    assert!(dir.path().join("copies").join(&id).join("mixed.wav").exists());
    // A changed byte is found, and said in words.
    let folder = open_at(&recordings).find(call.id).unwrap().folder;
    let mut bytes = std::fs::read(folder.join("mixed.wav")).unwrap();
    bytes[1_000] ^= 1;
    std::fs::write(folder.join("mixed.wav"), bytes).unwrap();
    let (code, text, _) = shell(&["verify", &id]);
    assert_eq!(code, Some(1));
    assert!(text.contains("mixed.wav was changed"), "{text}");
    assert_eq!(shell(&["delete", &id]).0, Some(0));
    let (code, _, error) = shell(&["show", &id]);
    assert_eq!((code, error), (Some(1), format!("error: no recording {id}\n")));
}
