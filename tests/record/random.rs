//! Random calls over random networks: nothing panics, and what is recorded satisfies every invariant that
//! `recordings verify` checks.

use std::time::Duration;

use crate::record_support::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stickytape::id::{ConnId, LegId};
use stickytape::record::mark::{Change, Conversation, Layout, Role, StopCause};
use stickytape::record::verify::{FileFacts, silent_ranges, verify};

const LEGS: u64 = 5;
const SECONDS: u64 = 12;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A stream that loses, doubles, delays and reorders packets, jumps and changes its codec and SSRC.
fn packets(rng: &mut StdRng, leg: LegId) -> Vec<Sent> {
    let mut sender = Sender::new(leg);
    let mut sent = Vec::new();
    let mut at = ms(rng.random_range(0..3_000));
    while at < ms(3_000 + SECONDS * 1_000) {
        let said = speech(rng.random_range(0..100), rng.random_range(1..100) * 160);
        let mut part = sender.packets(at, &said);
        at += ms(said.len() as u64 / 8);
        let jitter = rng.random_range(0.0..120.0);
        part.retain(|_| rng.random_range(0..100) >= 2);
        part = delayed(part, |_| rng.random_range(0.0..=jitter));
        if rng.random_range(0..4) == 0
            && let Some(again) = part.last().cloned()
        {
            part.push(again);
        }
        sent.extend(part);
        match rng.random_range(0..8) {
            0 => sender.pause(rng.random()),
            1 => {
                let silence = rng.random_range(0..1_000);
                sender.pause(silence * 8);
                at += ms(u64::from(silence));
            }
            2 => at += ms(rng.random_range(0..1_500)),
            3 => sender.ssrc = rng.random(),
            4 => sender.sequence = rng.random(),
            5 => sender.payload_type = [0, 8, 13, 96, 97, 101, 33][rng.random_range(0..7)],
            6 => sender.frame = [1, 37, 80, 160, 240, 480][rng.random_range(0..6)],
            _ => {}
        }
    }
    sent
}

fn random_conversation(rng: &mut StdRng) -> Conversation {
    let mut members = vec![member(D1, Role::Customer)];
    for leg in 2..=LEGS {
        if rng.random_range(0..2) == 0 {
            let roles = [Role::Agent, Role::Consulted, Role::Supervisor, Role::System];
            members.push(member(LegId(leg), roles[rng.random_range(0..4)]));
        }
    }
    for member in &mut members {
        member.holds = rng.random_range(0..8) == 0;
        member.held = rng.random_range(0..8) == 0;
        member.muted = rng.random_range(0..8) == 0;
    }
    Conversation {
        conn_id: ConnId(rng.random_range(1..3)),
        owner: D1,
        members,
        consult: rng.random_range(0..8) == 0,
        early: false,
        unbridged: rng.random_range(0..8) == 0,
    }
}

fn one_call(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut studio = Studio::with_max_file(if rng.random_range(0..2) == 0 { 1 << 40 } else { 44 + 60_000 });
    for leg in 1..=LEGS {
        studio.leg(LegId(leg));
        let packets = packets(&mut rng, LegId(leg));
        studio.send(packets);
    }
    studio.run_until(T0 + ms(20));
    let layout = [Layout::Mixed, Layout::Stereo, Layout::Tracks][rng.random_range(0..3)];
    let rate = [8_000, 16_000, 48_000][rng.random_range(0..3)];
    studio.start(session(layout, rate, random_conversation(&mut rng)));
    let mut paused = false;
    let mut at = T0;
    loop {
        at += ms(rng.random_range(1..700));
        if at > T0 + ms(SECONDS * 1_000) {
            break;
        }
        // Some marks are known long after their packets, a few after everything was committed.
        let known = at + ms([0, 30, 200, 2_000][rng.random_range(0..4)]);
        studio.run_until(known.max(Duration::from_nanos(studio.now)));
        let change = match rng.random_range(0..4) {
            0 => {
                paused = !paused;
                if paused { Change::Pause(id(1)) } else { Change::Resume(id(1)) }
            }
            _ => Change::Conversation { id: id(1), conversation: random_conversation(&mut rng) },
        };
        studio.mark(at, change);
    }
    let end = Duration::from_nanos(studio.now);
    studio.stop(end, id(1), StopCause::Released);
    studio.run_until(end + ms(2_000));

    let written = studio.written(id(1));
    let recording = written.recording();
    let total = written.files[0].len() / usize::from(written.specs[0].channels);
    assert_eq!(total as i64, sample_at(end, rate));
    let silent = silent_ranges(recording);
    let facts: Vec<FileFacts> = recording
        .media_files
        .iter()
        .map(|file| {
            // Files of later parts have the index of their first part: names differ by the part's number only.
            let stem = file.file.split('.').next().unwrap();
            let i = written.specs.iter().position(|spec| spec.name.split('.').next() == Some(stem)).unwrap();
            let channels = usize::from(file.channels);
            let from = file.start_sample as usize * channels;
            let samples = &written.files[i][from..from + file.samples as usize * channels];
            let sound = (0..file.samples).find(|frame| {
                let at = file.start_sample + frame;
                let frame = *frame as usize * channels;
                silent.iter().any(|range| range.contains(&at))
                    && samples[frame..frame + channels].iter().any(|s| *s != 0)
            });
            FileFacts {
                file: file.file.clone(),
                unreadable: None,
                sample_rate: rate,
                channels: file.channels,
                frames: file.samples,
                frames_on_disk: file.samples,
                size: 44 + samples.len() as u64 * 2,
                sha256: Some(String::new()),
                sound_in_pause: sound,
            }
        })
        .collect();
    let mut recording = recording.clone();
    for (file, facts) in recording.media_files.iter_mut().zip(&facts) {
        file.size = Some(facts.size);
        file.sha256 = Some(String::new());
    }
    let wrong = verify(&recording, &facts);
    assert_eq!(wrong, Vec::<String>::new(), "seed {seed}, {layout:?} at {rate} Hz");
}

#[test]
fn random_calls_over_random_networks_satisfy_every_invariant() {
    for seed in 0..20 {
        one_call(seed);
    }
}
