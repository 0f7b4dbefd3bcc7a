//! One recording.json, made by live threads on a real disk, key by key against spec/recording.md §6, and who may read it.

#[path = "support/live.rs"]
mod live;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use live::Live;
use serde_json::Value;
use stickytape::clock;
use stickytape::disk::RealDisk;
use stickytape::disk::store::Store;
use stickytape::record::mark::{Change, Layout, Mark, Notice, StopCause};

/// What a value must be.
type Is = fn(&Value) -> bool;

/// UTC, RFC 3339, milliseconds.
fn time(value: &Value) -> bool {
    let Some(text) = value.as_str() else { return false };
    text.len() == 24 && text.as_bytes()[19] == b'.' && text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok()
}

fn legs(value: &Value) -> bool {
    value.as_array().is_some_and(|legs| legs.iter().all(number_of_leg))
}

fn number_of_leg(value: &Value) -> bool {
    value.is_u64() || value.is_string()
}

fn text_or_null(value: &Value) -> bool {
    value.is_string() || value.is_null()
}

/// Exactly these keys, each with such a value.
fn assert_object(what: &str, value: &Value, keys: &[(&str, Is)]) {
    let object = value.as_object().unwrap_or_else(|| panic!("{what} is no object: {value}"));
    for (key, is) in keys {
        let found = object.get(*key).unwrap_or_else(|| panic!("{what} has no {key}"));
        assert!(is(found), "{what}.{key} is {found}");
    }
    let more: Vec<&String> = object.keys().filter(|key| !keys.iter().any(|(known, _)| known == key)).collect();
    assert!(more.is_empty(), "{what} has keys that the specification does not name: {more:?}");
}

fn assert_rows(what: &str, json: &Value, keys: &[(&str, Is)]) {
    let rows = json[what].as_array().unwrap_or_else(|| panic!("{what} is no list"));
    assert!(!rows.is_empty(), "{what} is empty, so this test says nothing");
    rows.iter().for_each(|row| assert_object(what, row, keys));
}

/// Two seconds, with a pause from 0.6 s to 1.2 s, an event, and a stretch without packets.
fn record(directory: &Path) -> (Store, live::Call) {
    let mut live = Live::start(directory, 0, 1 << 20);
    let call = live.call(Layout::Tracks);
    live.speak(Duration::from_millis(600));
    live.recorder.mark(Mark { at: clock::now(), change: Change::Pause(call.id) });
    let attributes = [("code".into(), "486".into())].into();
    let event = Change::Event { id: call.id, name: "TransferFailed".into(), attributes };
    live.recorder.mark(Mark { at: clock::now(), change: event });
    live.speak(Duration::from_millis(600));
    live.recorder.mark(Mark { at: clock::now(), change: Change::Resume(call.id) });
    live.speak(Duration::from_millis(800));
    // Nobody speaks: a gap.
    live.recorder.watermark(clock::now());
    std::thread::sleep(Duration::from_millis(400));
    live.stop(call, StopCause::Released);
    live.wait_for("published", |notice| matches!(notice, Notice::Published(id) if *id == call.id));
    live.shutdown();
    (Store::new(Arc::new(RealDisk), directory.to_owned()), call)
}

#[test]
fn recording_json_has_the_keys_of_the_specification_and_no_others_and_nobody_else_may_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().join("recordings");
    let (store, call) = record(&directory);
    let (_, wrong) = store.verify(call.id).unwrap();
    assert_eq!(wrong, Vec::<String>::new());
    let folder = store.find(call.id).unwrap().folder;
    let json: Value = serde_json::from_slice(&std::fs::read(folder.join("recording.json")).unwrap()).unwrap();
    assert_top(&json);
    assert_lists(&json);
    assert_consistent(&json);

    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path) & !0o640, 0, "{} is {:o}", path.display(), mode(&path));
        assert!(!path.file_name().unwrap().to_str().unwrap().starts_with('.'), "{} is left over", path.display());
    }
    for path in folder.ancestors().take_while(|path| path.starts_with(&directory)) {
        assert_eq!(mode(path) & !0o750, 0, "{} is {:o}", path.display(), mode(path));
    }
}

fn assert_top(json: &Value) {
    assert_object(
        "recording",
        json,
        &[
            ("id", Value::is_string),
            ("callUuid", Value::is_string),
            ("callerPhoneNumber", Value::is_string),
            ("dialedPhoneNumber", Value::is_string),
            ("startTime", time),
            ("stopTime", time),
            ("durationMs", Value::is_u64),
            ("recordingSession", Value::is_object),
            ("participants", Value::is_array),
            ("segments", Value::is_array),
            ("mediaFiles", Value::is_array),
            ("media", Value::is_array),
            ("gaps", Value::is_array),
            ("masks", Value::is_array),
            ("events", Value::is_array),
            ("warnings", Value::is_array),
        ],
    );
    assert_object(
        "recordingSession",
        &json["recordingSession"],
        &[
            ("ownerDn", text_or_null),
            ("ownerLeg", number_of_leg),
            ("side", |v| v == "origination"),
            ("trigger", Value::is_string),
            ("rule", Value::is_string),
            ("state", |v| v == "complete"),
            ("stopCause", |v| v == "released"),
        ],
    );
}

fn assert_lists(json: &Value) {
    assert_rows(
        "participants",
        json,
        &[
            ("legId", number_of_leg),
            ("dn", text_or_null),
            ("uri", Value::is_string),
            ("role", |v| v == "customer"),
            ("joined", time),
            ("left", time),
            ("leaveCause", |v| v == "released"),
        ],
    );
    assert_rows(
        "segments",
        json,
        &[
            ("startSample", Value::is_u64),
            ("endSample", Value::is_u64),
            ("start", time),
            ("end", time),
            ("connId", |v| v.as_str().is_some_and(|text| text.len() == 16)),
            ("owner", number_of_leg),
            ("participants", legs),
            ("speakers", legs),
            ("channels", |v| v.as_array().is_some_and(|channels| channels.iter().all(legs))),
            ("paused", Value::is_boolean),
            ("held", Value::is_boolean),
            ("consult", Value::is_boolean),
            ("early", Value::is_boolean),
        ],
    );
    assert_rows(
        "mediaFiles",
        json,
        &[
            ("file", Value::is_string),
            ("part", |v| v == 1),
            ("startSample", |v| v == 0),
            ("kind", |v| v == "mixed" || v == "party"),
            ("participant", |v| v.is_null() || number_of_leg(v)),
            ("type", |v| v == "audio/wav"),
            ("channels", Value::is_u64),
            ("sampleRate", |v| v == 8_000),
            ("samples", Value::is_u64),
            ("size", Value::is_u64),
            ("sha256", |v| v.as_str().is_some_and(|text| text.len() == 64)),
        ],
    );
    assert_rows(
        "media",
        json,
        &[
            ("leg", number_of_leg),
            ("codec", |v| v == "PCMU/8000"),
            ("payloadType", |v| v == 0),
            ("ssrc", |v| v.as_array().is_some_and(|list| list.len() == 1 && list[0].is_u64())),
            ("received", |v| v == 100),
            ("lost", |v| v == 0),
            ("late", |v| v == 0),
            ("concealed", Value::is_u64),
            ("duplicates", |v| v == 0),
            ("clockSkewPpm", |v| v.is_null() || v.is_number()),
        ],
    );
    assert_rows("masks", json, &[("time", time), ("type", |v| v == "paused" || v == "resumed")]);
    assert_rows(
        "events",
        json,
        &[("time", time), ("name", |v| v == "TransferFailed"), ("attributes", |v| v["code"] == "486")],
    );
    for gap in json["gaps"].as_array().unwrap() {
        let sample: Is = Value::is_u64;
        let keys: &[(&str, Is)] =
            &[("leg", number_of_leg), ("startSample", sample), ("endSample", sample), ("cause", Value::is_string)];
        assert_object("gaps", gap, keys);
    }
}

/// Times and samples of different lists agree.
fn assert_consistent(json: &Value) {
    assert_eq!(json["events"].as_array().unwrap().len(), 1, "no event twice");
    let segments = json["segments"].as_array().unwrap();
    let paused: Vec<bool> = segments.iter().map(|segment| segment["paused"].as_bool().unwrap()).collect();
    assert_eq!(paused, [false, true, false]);
    assert_eq!(segments[1]["speakers"], Value::Array(vec![]));
    assert_eq!(json["masks"][0]["time"], segments[1]["start"]);
    assert_eq!(json["masks"][1]["time"], segments[1]["end"]);
    let last = &segments[2];
    assert_eq!(json["stopTime"], last["end"]);
    for file in json["mediaFiles"].as_array().unwrap() {
        assert_eq!(file["samples"], last["endSample"]);
        let frame = 2 * file["channels"].as_u64().unwrap();
        assert_eq!(file["size"], 44 + frame * file["samples"].as_u64().unwrap());
    }
    assert_eq!(json["durationMs"], last["endSample"].as_u64().unwrap() / 8);
    for participant in json["participants"].as_array().unwrap() {
        assert_eq!((&participant["joined"], &participant["left"]), (&json["startTime"], &json["stopTime"]));
    }
}
