//! What marks do to a session: who is heard, where it begins and ends, what its metadata says (spec/recording.md §2, §4).

use std::time::Duration;

use crate::record_support::*;
use stickytape::id::LegId;
use stickytape::record::mark::{Change, Conversation, Layout, Role, StopCause};
use stickytape::record::metadata::{FileKind, Gap, GapCause, MaskKind, Recording, State};

const START: Duration = Duration::from_millis(1_500);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// T0 plus so much.
fn t(after_t0_ms: u64) -> Duration {
    T0 + ms(after_t0_ms)
}

/// Sample of T0 plus so much, at 8,000 Hz.
fn n(after_t0_ms: u64) -> usize {
    after_t0_ms as usize * 8
}

/// What D1 and D2 (and D3) say without a pause, far longer than a test.
fn said(leg: LegId) -> Vec<i16> {
    speech(leg.0 as i32 * 37, 8_000 * 20)
}

/// A session in which the given legs talk from before T0 on.
fn talk(layout: Layout, rate: u32, conversation: Conversation, legs: &[LegId]) -> Studio {
    talk_with(Studio::new(), layout, rate, conversation, legs)
}

fn talk_with(mut studio: Studio, layout: Layout, rate: u32, conversation: Conversation, legs: &[LegId]) -> Studio {
    for leg in legs {
        studio.leg(*leg);
        studio.send(Sender::new(*leg).packets(START, &said(*leg)));
    }
    studio.run_until(T0 + ms(3));
    studio.start(session(layout, rate, conversation));
    studio
}

/// Ends it `after_t0_ms`; its metadata.
fn end(studio: &mut Studio, after_t0_ms: u64) -> Recording {
    studio.run_until(t(after_t0_ms) + ms(2));
    studio.stop(t(after_t0_ms), id(1), StopCause::Released);
    studio.run_until(t(after_t0_ms) + ms(1_500));
    studio.written(id(1)).recording().clone()
}

/// What a leg says at samples of the session's grid.
fn heard(leg: LegId, from_ms: u64, to_ms: u64) -> Vec<i16> {
    let first = n(from_ms) as i64 - sample_at(START, 8_000);
    said(leg)[first as usize..first as usize + n(to_ms) - n(from_ms)].to_vec()
}

fn channel(studio: &Studio, channel: usize) -> Vec<i16> {
    studio.written(id(1)).file("mixed.wav").iter().skip(channel).step_by(2).copied().collect()
}

fn change(conversation: Conversation) -> Change {
    Change::Conversation { id: id(1), conversation }
}

fn added(a: &[i16], b: &[i16]) -> Vec<i16> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn speakers(recording: &Recording) -> Vec<(u64, u64, Vec<u64>)> {
    recording
        .segments
        .iter()
        .map(|s| (s.start_sample, s.end_sample, s.speakers.iter().map(|leg| leg.0).collect()))
        .collect()
}

#[test]
fn the_file_is_the_sum_of_both_from_t0_to_the_end_sample_by_sample() {
    let mut studio = talk(Layout::Mixed, 8_000, two(), &[D1, D2]);
    let recording = end(&mut studio, 3_333);
    let file = studio.written(id(1)).file("mixed.wav").to_vec();
    assert_eq!(file.len(), n(3_333));
    assert_eq!(file, added(&heard(D1, 0, 3_333), &heard(D2, 0, 3_333)));
    assert_eq!(speakers(&recording), [(0, n(3_333) as u64, vec![1, 2])]);
    assert_eq!(recording.duration_ms, Some(3_333));
    assert_eq!(recording.stop_time.unwrap().to_string(), "2026-11-20T09:00:03.333Z");
    assert_eq!(recording.recording_session.state, State::Complete);
    assert_eq!(recording.recording_session.stop_cause, Some(StopCause::Released));
    assert_eq!(recording.media_files[0].samples, n(3_333) as u64);
    assert_eq!(recording.warnings, Vec::<String>::new());
}

#[test]
fn commits_come_every_quarter_second_and_reach_within_0_85_s_of_now() {
    let mut studio = talk(Layout::Mixed, 8_000, two(), &[D1, D2]);
    studio.run_until(t(10_000));
    let commits = studio.written(id(1)).commits.clone();
    assert!(commits.len() >= 36, "{}", commits.len());
    let mut oldest = 0;
    for step in 0..50 {
        studio.run_until(t(10_005 + step * 5));
        let frames = studio.written(id(1)).files[0].len();
        oldest = oldest.max(n(10_005 + step * 5) - frames);
    }
    assert!(oldest <= 850 * 8, "{} ms", oldest / 8);
}

#[test]
fn stereo_keeps_the_origination_side_left() {
    let mut studio = talk(Layout::Stereo, 8_000, two(), &[D1, D2]);
    let recording = end(&mut studio, 1_000);
    assert_eq!(channel(&studio, 0), heard(D1, 0, 1_000));
    assert_eq!(channel(&studio, 1), heard(D2, 0, 1_000));
    assert_eq!(recording.segments[0].channels, [[D1], [D2]]);
    assert_eq!(recording.media_files[0].channels, 2);
}

#[test]
fn tracks_adds_a_file_for_each_party_aligned_from_sample_0_also_for_one_that_joins() {
    let mut studio = talk(Layout::Tracks, 8_000, two(), &[D1, D2, D3]);
    studio.run_until(t(1_005));
    let mut three = two();
    three.members.push(member(D3, Role::Agent));
    studio.mark(t(1_000), change(three));
    let recording = end(&mut studio, 2_000);
    let written = studio.written(id(1));
    assert_eq!(written.file("party-1.wav"), heard(D1, 0, 2_000));
    assert_eq!(written.file("party-2.wav"), heard(D2, 0, 2_000));
    let third = written.file("party-3.wav");
    assert!(third[..n(1_000)].iter().all(|s| *s == 0));
    assert_eq!(third[n(1_000)..], heard(D3, 1_000, 2_000));
    let kinds: Vec<_> = recording.media_files.iter().map(|f| (f.kind, f.participant, f.samples)).collect();
    let all = n(2_000) as u64;
    assert_eq!(
        kinds,
        [
            (FileKind::Mixed, None, all),
            (FileKind::Party, Some(D1), all),
            (FileKind::Party, Some(D2), all),
            (FileKind::Party, Some(D3), all)
        ]
    );
    let joined: Vec<String> = recording.participants.iter().map(|p| p.joined.to_string()).collect();
    assert_eq!(joined[2], "2026-11-20T09:00:01Z");
}

#[test]
fn a_supervisor_is_in_its_own_file_and_never_in_the_mix_and_continues_it_when_it_comes_back() {
    let mut studio = talk(Layout::Mixed, 8_000, two(), &[D1, D2, D3, LegId(4)]);
    let with = |leg| {
        let mut supervised = two();
        let mut observer = member(leg, Role::Supervisor);
        observer.dn = Some("300".into());
        supervised.members.push(observer);
        supervised
    };
    for (at, conversation) in [(500, with(D3)), (1_000, two()), (1_500, with(LegId(4)))] {
        studio.run_until(t(at) + ms(10));
        studio.mark(t(at), change(conversation));
    }
    let recording = end(&mut studio, 2_000);
    let written = studio.written(id(1));
    assert_eq!(written.file("mixed.wav"), added(&heard(D1, 0, 2_000), &heard(D2, 0, 2_000)));
    let own = written.file("supervisor-1.wav");
    assert!(own[..n(500)].iter().chain(&own[n(1_000)..n(1_500)]).all(|s| *s == 0));
    assert_eq!(own[n(500)..n(1_000)], heard(D3, 500, 1_000));
    assert_eq!(own[n(1_500)..], heard(LegId(4), 1_500, 2_000));
    assert_eq!(recording.media_files.len(), 2);
    assert_eq!(recording.segments.len(), 4);
    assert_eq!(recording.segments[1].participants, [D1, D2, D3]);
    assert_eq!(recording.segments[1].channels, [[D1, D2]]);
}

#[test]
fn a_hold_is_silence_of_the_exact_length_in_both_directions() {
    let mut studio = talk(Layout::Stereo, 8_000, two(), &[D1, D2]);
    let mut held = two();
    held.members[1].holds = true;
    studio.run_until(t(510));
    studio.mark(t(500), change(held));
    studio.run_until(t(910));
    studio.mark(t(900), change(two()));
    let recording = end(&mut studio, 1_500);
    for (side, leg) in [(0, D1), (1, D2)] {
        let file = channel(&studio, side);
        assert_eq!(file[..n(500)], heard(leg, 0, 500));
        assert!(file[n(500)..n(900)].iter().all(|s| *s == 0));
        assert_eq!(file[n(900)..], heard(leg, 900, 1_500));
    }
    let held: Vec<bool> = recording.segments.iter().map(|s| s.held).collect();
    assert_eq!(held, [false, true, false]);
    assert_eq!(speakers(&recording)[1], (n(500) as u64, n(900) as u64, vec![]));
}

#[test]
fn a_pause_is_digital_silence_20_ms_wider_on_both_sides_in_every_file() {
    let mut studio = talk(Layout::Tracks, 8_000, two(), &[D1, D2]);
    studio.run_until(t(710));
    studio.mark(t(700), Change::Pause(id(1)));
    studio.run_until(t(1_010));
    studio.mark(t(1_000), Change::Resume(id(1)));
    let recording = end(&mut studio, 1_500);
    let written = studio.written(id(1));
    let (d1, d2) = (heard(D1, 0, 1_500), heard(D2, 0, 1_500));
    for (name, expected) in [("mixed.wav", added(&d1, &d2)), ("party-1.wav", d1), ("party-2.wav", d2)] {
        let file = written.file(name);
        assert_eq!(file[..n(680)], expected[..n(680)], "{name}");
        assert!(file[n(680)..n(1_020)].iter().all(|s| *s == 0), "{name}");
        assert_eq!(file[n(1_020)..], expected[n(1_020)..], "{name}");
    }
    let paused: Vec<_> = recording.segments.iter().map(|s| (s.start_sample, s.paused)).collect();
    assert_eq!(paused, [(0, false), (n(700) as u64, true), (n(1_000) as u64, false)]);
    let masks: Vec<_> = recording.masks.iter().map(|m| (m.kind, m.time.to_string())).collect();
    assert_eq!(masks[0], (MaskKind::Paused, "2026-11-20T09:00:00.7Z".to_owned()));
    assert_eq!(masks[1].0, MaskKind::Resumed);
}

#[test]
fn a_pause_survives_hold_and_transfer_until_it_is_resumed() {
    let mut studio = talk(Layout::Mixed, 8_000, two(), &[D1, D2, D3]);
    studio.run_until(t(300));
    studio.mark(t(290), Change::Pause(id(1)));
    let mut held = two();
    held.members[0].held = true;
    studio.mark(t(400), change(held));
    studio.run_until(t(600));
    studio.mark(t(590), change(conversation(vec![member(D1, Role::Customer), member(D3, Role::Agent)])));
    let recording = end(&mut studio, 1_000);
    let file = studio.written(id(1)).file("mixed.wav");
    assert!(file[n(270)..].iter().all(|s| *s == 0));
    assert_eq!(recording.segments.iter().filter(|s| s.paused).count(), 3);
}

#[test]
fn a_transfer_keeps_the_files_and_changes_who_is_heard_at_the_exact_sample() {
    let mut studio = talk(Layout::Mixed, 8_000, two(), &[D1, D2, D3]);
    let mut ringing = two();
    ringing.unbridged = true;
    studio.run_until(t(510));
    studio.mark(t(500), change(ringing));
    studio.run_until(t(1_010));
    studio.mark(t(1_000), change(conversation(vec![member(D1, Role::Customer), member(D3, Role::Agent)])));
    let recording = end(&mut studio, 1_500);
    let file = studio.written(id(1)).file("mixed.wav");
    assert_eq!(file[..n(500)], added(&heard(D1, 0, 500), &heard(D2, 0, 500)));
    assert!(file[n(500)..n(1_000)].iter().all(|s| *s == 0));
    assert_eq!(file[n(1_000)..], added(&heard(D1, 1_000, 1_500), &heard(D3, 1_000, 1_500)));
    assert_eq!(
        speakers(&recording),
        [
            (0, n(500) as u64, vec![1, 2]),
            (n(500) as u64, n(1_000) as u64, vec![]),
            (n(1_000) as u64, n(1_500) as u64, vec![1, 3])
        ]
    );
    let left = &recording.participants[1];
    assert_eq!((left.leg_id, left.leave_cause.as_deref()), (D2, Some("left")));
    assert_eq!(left.left.unwrap().to_string(), "2026-11-20T09:00:01Z");
    assert_eq!(recording.participants[0].leave_cause.as_deref(), Some("released"));
}

#[test]
fn a_mark_that_comes_after_the_packets_it_concerns_still_takes_effect_at_its_instant() {
    let mut studio = talk(Layout::Mixed, 8_000, two(), &[D1, D2]);
    studio.watermark_lag = ms(1_200);
    let mut muted = two();
    muted.members[1].muted = true;
    studio.run_until(t(2_150));
    studio.mark(t(1_000), change(muted));
    let recording = end(&mut studio, 2_000);
    let file = studio.written(id(1)).file("mixed.wav");
    assert_eq!(file[..n(1_000)], added(&heard(D1, 0, 1_000), &heard(D2, 0, 1_000)));
    assert_eq!(file[n(1_000)..], heard(D1, 1_000, 2_000));
    assert_eq!(recording.warnings, Vec::<String>::new());
}

#[test]
fn a_mark_after_its_watermark_takes_effect_at_once_and_says_so() {
    let mut studio = talk(Layout::Mixed, 8_000, two(), &[D1, D2]);
    let mut muted = two();
    muted.members[1].muted = true;
    studio.run_until(t(3_000));
    studio.mark(t(1_000), change(muted));
    let recording = end(&mut studio, 4_000);
    let file = studio.written(id(1)).file("mixed.wav");
    assert_eq!(file[n(2_600)..], heard(D1, 2_600, 4_000));
    assert_eq!(recording.warnings.len(), 1);
}

#[test]
fn two_sessions_of_one_call_read_the_same_legs() {
    let mut studio = talk(Layout::Mixed, 8_000, two(), &[D1, D2]);
    let mut second = session(Layout::Stereo, 8_000, two());
    second.id = id(2);
    second.call_uuid.0 = uuid::Uuid::from_u128(5);
    studio.run_until(t(700));
    studio.mark(t(600), Change::Start(Box::new(second)));
    studio.run_until(t(1_200));
    studio.stop(t(1_200), id(2), StopCause::OwnerLeft);
    end(&mut studio, 2_000);
    let both = added(&heard(D1, 0, 2_000), &heard(D2, 0, 2_000));
    assert_eq!(studio.written(id(1)).file("mixed.wav"), both);
    let second = studio.written(id(2));
    let left: Vec<i16> = second.file("mixed.wav").iter().step_by(2).copied().collect();
    assert_eq!(left, heard(D1, 600, 1_200));
    assert_eq!(second.recording().recording_session.stop_cause, Some(StopCause::OwnerLeft));
    assert_eq!(studio.recorder.sessions(), 0);
}

#[test]
fn all_files_roll_at_the_same_sample_and_nothing_is_lost() {
    // One and a half seconds of stereo per part.
    let studio = Studio::with_max_file(44 + 2 * 2 * 12_000);
    let mut supervised = two();
    supervised.members.push(member(D3, Role::Supervisor));
    let mut studio = talk_with(studio, Layout::Stereo, 8_000, supervised, &[D1, D2, D3]);
    let recording = end(&mut studio, 4_000);
    assert_eq!(studio.written(id(1)).parts, [12_000, 12_000]);
    let (left, right) = (heard(D1, 0, 4_000), heard(D2, 0, 4_000));
    let frames: Vec<i16> = left.iter().zip(&right).flat_map(|(l, r)| [*l, *r]).collect();
    assert_eq!(studio.written(id(1)).files[0], frames);
    assert_eq!(studio.written(id(1)).files[1], heard(D3, 0, 4_000));
    let files: Vec<_> =
        recording.media_files.iter().map(|f| (f.file.as_str(), f.part, f.start_sample, f.samples)).collect();
    assert_eq!(
        files,
        [
            ("mixed.wav", 1, 0, 12_000),
            ("supervisor-1.wav", 1, 0, 12_000),
            ("mixed.2.wav", 2, 12_000, 12_000),
            ("supervisor-1.2.wav", 2, 12_000, 12_000),
            ("mixed.3.wav", 3, 24_000, 8_000),
            ("supervisor-1.3.wav", 3, 24_000, 8_000)
        ]
    );
}

#[test]
fn loud_sums_are_limited_and_never_clipped_and_single_voices_are_exact() {
    let mut studio = Studio::new();
    let loud =
        |sign: i16| -> Vec<i16> { (0..8_000 * 4).map(|i| sign * (20_000 + i16::from(i % 50 < 25) * 9_000)).collect() };
    for leg in [D1, D2] {
        studio.leg(leg);
        studio.send(Sender::new(leg).packets(START, &loud(1)));
    }
    studio.run_until(t(3));
    studio.start(session(Layout::Mixed, 8_000, two()));
    let mut muted = two();
    muted.members[1].muted = true;
    studio.run_until(t(1_005));
    studio.mark(t(1_000), change(muted));
    end(&mut studio, 2_000);
    let file = studio.written(id(1)).file("mixed.wav");
    assert!(file[n(10)..n(1_000)].iter().all(|s| (1..=32_767).contains(s)));
    let first = (n(1_000) as i64 - sample_at(START, 8_000)) as usize;
    assert_eq!(file[n(1_000)..], loud(1)[first..first + n(1_000)]);
}

#[test]
fn the_lowest_sample_of_all_stands_in_a_party_s_own_file_as_it_was_said() {
    let mut studio = Studio::new();
    let low: Vec<i16> = (0..8_000 * 4).map(|i| if i % 50 < 25 { i16::MIN } else { 1_000 }).collect();
    studio.leg(D1);
    studio.leg(D2);
    studio.send(Sender::new(D1).packets(START, &low));
    studio.run_until(t(3));
    studio.start(session(Layout::Tracks, 8_000, two()));
    end(&mut studio, 1_000);
    let first = -sample_at(START, 8_000) as usize;
    assert_eq!(studio.written(id(1)).file("party-1.wav"), &low[first..first + n(1_000)]);
}

#[test]
fn sessions_of_16_and_48_khz_hold_the_same_speech_at_the_same_place() {
    for rate in [16_000, 48_000] {
        let mut studio = talk(Layout::Stereo, rate, two(), &[D1, D2]);
        let recording = end(&mut studio, 1_000);
        let left = channel(&studio, 0);
        assert_eq!(left.len(), rate as usize);
        let step = rate as usize / 8_000;
        let expected = heard(D1, 0, 1_000);
        // The session's grid is finer than the leg's; samples that lie on both are equal.
        let on_both = |shift: usize| {
            let found = left[100 * step - step + shift..].iter().step_by(step);
            found.zip(&expected[100..]).take(500).all(|(a, b)| a == b)
        };
        assert!((0..2 * step).any(on_both), "{rate} Hz");
        assert_eq!(recording.media_files[0].sample_rate, rate);
        assert_eq!(recording.segments[0].end_sample, u64::from(rate));
    }
}

#[test]
fn a_wideband_leg_is_converted_to_the_sessions_rate_at_its_place() {
    let mut studio = Studio::new();
    studio.leg(D1);
    studio.leg(D2);
    let (narrow, _) = bursts(8_000 * 5, 8_000, 8_000);
    let mut packets = Sender::new(D1).packets(START, &narrow);
    // The same bursts at 16,000 Hz: every sample twice, twice the timestamps.
    for (i, packet) in packets.iter_mut().enumerate() {
        packet.header.payload_type = 96;
        packet.header.timestamp = (i * 320) as u32;
        packet.payload = packet.payload.chunks(2).flat_map(|s| [s[0], s[1], s[0], s[1]]).collect();
        packet.header.len = packet.payload.len() as u16;
    }
    studio.send(packets);
    studio.run_until(t(3));
    studio.start(session(Layout::Stereo, 8_000, two()));
    end(&mut studio, 3_000);
    let found = onsets(&channel(&studio, 0));
    let expected: Vec<i64> = (1..4).map(|i| sample_at(START, 8_000) + i * 8_000).filter(|at| *at > 0).collect();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((*found as i64 - expected).abs() <= 4, "{found} {expected}");
    }
}

#[test]
fn a_session_that_is_stopped_at_once_has_no_frames_and_complete_metadata() {
    let mut studio = talk(Layout::Mixed, 8_000, two(), &[D1, D2]);
    let recording = end(&mut studio, 0);
    assert_eq!(studio.written(id(1)).file("mixed.wav").len(), 0);
    assert_eq!((recording.duration_ms, recording.segments.len()), (Some(0), 1));
}

#[test]
fn silence_of_the_exact_length_is_recorded_when_no_packet_ever_comes() {
    let mut studio = talk(Layout::Mixed, 8_000, two(), &[]);
    end(&mut studio, 2_500);
    assert_eq!(studio.written(id(1)).file("mixed.wav"), vec![0; n(2_500)]);
}

#[test]
fn late_packets_are_still_taken_after_the_end() {
    let mut studio = Studio::new();
    studio.leg(D1);
    studio.leg(D2);
    let packets = Sender::new(D1).packets(START, &said(D1));
    let end_of = t(2_000).as_nanos() as u64;
    studio.send(delayed(packets, |i| {
        if (START.as_nanos() as u64 + i as u64 * 20 * MS) > end_of - 100 * MS { 350.0 } else { 0.0 }
    }));
    studio.run_until(t(3));
    studio.start(session(Layout::Mixed, 8_000, two()));
    end(&mut studio, 2_000);
    assert_eq!(studio.written(id(1)).file("mixed.wav"), heard(D1, 0, 2_000));
}

#[test]
fn a_leg_that_ends_is_forgotten_and_its_counters_stay() {
    let mut studio = talk(Layout::Mixed, 8_000, two(), &[D1, D2, D3]);
    studio.run_until(t(1_010));
    studio.mark(t(1_000), change(conversation(vec![member(D1, Role::Customer), member(D3, Role::Agent)])));
    studio.mark(t(1_000), Change::LegEnded(D2));
    assert_eq!(studio.recorder.legs(), 3);
    studio.run_until(t(5_000));
    assert_eq!(studio.recorder.legs(), 2);
    let recording = end(&mut studio, 6_000);
    let media = recording.media.iter().find(|m| m.leg == D2).unwrap();
    assert!(media.received > 45, "{}", media.received);
    for leg in [D1, D3] {
        studio.mark(t(7_000), Change::LegEnded(leg));
    }
    studio.run_until(t(12_000));
    assert_eq!((studio.recorder.legs(), studio.recorder.sessions()), (0, 0));
    assert_eq!(studio.recorder.next_commit(), None);
}

#[test]
fn packets_that_overtake_the_mark_that_names_them_wait_for_it() {
    let mut studio = Studio::new();
    studio.watermark_lag = ms(60);
    studio.send(Sender::new(D1).packets(START, &said(D1)));
    studio.leg(D2);
    studio.run_until(START + ms(50));
    studio.mark(START - ms(1), Change::Payloads { leg: D1, payloads: payloads() });
    studio.run_until(t(3));
    studio.start(session(Layout::Mixed, 8_000, two()));
    end(&mut studio, 1_000);
    assert_eq!(studio.written(id(1)).file("mixed.wav"), heard(D1, 0, 1_000));
}

#[test]
fn events_and_running_metadata_are_told_while_it_runs() {
    let mut studio = talk(Layout::Mixed, 8_000, two(), &[D1, D2]);
    studio.run_until(t(500));
    let attributes = vec![("code".into(), "486".into())];
    studio.mark(t(490), Change::Event { id: id(1), name: "TransferFailed".into(), attributes });
    studio.run_until(t(2_000));
    let running = studio.written(id(1)).running.clone().unwrap();
    assert_eq!(running.recording_session.state, State::Recording);
    assert_eq!(running.events[0].name, "TransferFailed");
    assert_eq!(running.events[0].attributes["code"], "486");
    assert_eq!(running.stop_time, None);
}

#[test]
fn a_server_that_stops_ends_every_session_there() {
    let mut studio = talk(Layout::Mixed, 8_000, two(), &[D1, D2]);
    studio.run_until(t(1_000));
    let at = studio.at(t(1_000));
    studio.recorder.stop_all(at, StopCause::Shutdown);
    studio.run_until(t(2_000));
    let written = studio.written(id(1));
    assert_eq!(written.file("mixed.wav").len(), n(1_000));
    assert_eq!(written.recording().recording_session.stop_cause, Some(StopCause::Shutdown));
}

#[test]
fn of_two_stops_the_earlier_one_counts() {
    for (first, second) in [(1_000, 1_100), (1_100, 1_000)] {
        let mut studio = talk(Layout::Mixed, 8_000, two(), &[D1, D2]);
        studio.run_until(t(1_105));
        studio.stop(t(first), id(1), StopCause::Released);
        studio.stop(t(second), id(1), StopCause::Released);
        studio.run_until(t(3_000));
        assert_eq!(studio.written(id(1)).file("mixed.wav").len(), n(1_000));
    }
}

#[test]
fn a_thread_that_was_late_by_two_seconds_loses_nothing() {
    let mut studio = talk(Layout::Mixed, 8_000, two(), &[D1, D2]);
    studio.run_until(t(1_000));
    // The signaling task stalls: no watermark for two seconds, packets keep coming.
    studio.watermark_lag = ms(2_500);
    studio.run_until(t(3_000));
    studio.watermark_lag = ms(30);
    let recording = end(&mut studio, 4_000);
    assert_eq!(studio.written(id(1)).file("mixed.wav"), added(&heard(D1, 0, 4_000), &heard(D2, 0, 4_000)));
    assert_eq!(recording.gaps, []);
}

#[test]
fn what_could_not_be_kept_for_a_late_session_is_a_gap_of_ours() {
    let mut studio = talk(Layout::Mixed, 8_000, two(), &[D1, D2]);
    studio.run_until(t(1_000));
    studio.watermark_lag = Duration::from_secs(13);
    studio.run_until(t(13_000));
    studio.watermark_lag = ms(30);
    let recording = end(&mut studio, 14_000);
    assert_eq!(studio.written(id(1)).file("mixed.wav").len(), n(14_000));
    let ours: Vec<&Gap> = recording.gaps.iter().filter(|gap| gap.cause == GapCause::DroppedByUs).collect();
    assert!(!ours.is_empty(), "{:?}", recording.gaps);
    let file = studio.written(id(1)).file("mixed.wav");
    for gap in ours {
        assert!(file[gap.start_sample as usize..gap.end_sample as usize].iter().all(|s| *s == 0));
    }
}
