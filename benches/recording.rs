//! What recording costs without sockets and disks: CPU time of the pure recorder per recorded call and second.
//!
//! Two-party PCMU calls, 50 packets a second and direction, through `record::Recorder` in virtual time. The goal for all of
//! recording is 0.10 CPU-ms per call-second.

mod steps;

use std::sync::Arc;
use std::time::Duration;

use steps::{Nowhere, cpu_ns, payloads};
use stickytape::clock;
use stickytape::id::{CallUuid, ConnId, LegId, RecordingId};
use stickytape::record::mark::{Change, Channel, Conversation, Layout, Mark, Member, Role, SessionStart, Side};
use stickytape::record::recorder::{Options, Recorder};
use stickytape::record::tap::TapHeader;
use uuid::Uuid;

fn conversation(call: u64) -> Conversation {
    let member = |leg, role, channel| Member {
        leg: LegId(leg),
        dn: None,
        uri: String::new(),
        role,
        channel,
        holds: false,
        held: false,
        muted: false,
    };
    let members =
        vec![member(2 * call, Role::Customer, Channel::Left), member(2 * call + 1, Role::Agent, Channel::Right)];
    Conversation {
        conn_id: ConnId(call),
        owner: LegId(2 * call),
        members,
        consult: false,
        early: false,
        unbridged: false,
    }
}

fn session(call: u64, layout: Layout) -> SessionStart {
    SessionStart {
        id: RecordingId(Uuid::from_u128(u128::from(call))),
        start_time: clock::wall(),
        call_uuid: CallUuid(Uuid::from_u128(u128::from(call))),
        caller_phone_number: String::new(),
        dialed_phone_number: String::new(),
        owner_leg: LegId(2 * call),
        owner_dn: None,
        side: Side::Origination,
        trigger: "default".into(),
        rule: String::new(),
        layout,
        sample_rate: 8_000,
        conversation: conversation(call),
    }
}

/// So many calls for so long: the recorder at their end, and the µs of CPU per call and second.
fn run(calls: u64, layout: Layout, loud: bool, ppm: f64, seconds: u64) -> (Recorder, f64) {
    let epoch = clock::now();
    let mut recorder = Recorder::new(Options { epoch, max_file_bytes: 1 << 32 });
    let payloads: Arc<[_]> = payloads().into();
    let t0 = Duration::from_secs(1);
    for call in 0..calls {
        for leg in [2 * call, 2 * call + 1] {
            let change = Change::Payloads { leg: LegId(leg), payloads: payloads.clone() };
            recorder.mark(Mark { at: epoch, change });
        }
        recorder.mark(Mark { at: epoch + t0, change: Change::Start(Box::new(session(call, layout))) });
    }
    let level = if loud { 30_000.0 } else { 6_000.0 };
    let samples: [i16; 160] = std::array::from_fn(|i| (level * (i as f64 * 0.157).sin()) as i16);
    let mut payload = [0; 160];
    stickytape::audio::g711::encode_ulaw(&samples, &mut payload);
    let mut sink = Nowhere::default();
    let began = cpu_ns();
    for tick in 0..seconds * 50 {
        let base = t0.as_nanos() as f64 + tick as f64 * 20e6 / (1.0 + ppm * 1e-6);
        for leg in 0..2 * calls {
            let arrival = base as u64 + leg % 20 * 1_000_000;
            let header = TapHeader {
                leg: LegId(leg),
                arrival_ns: arrival,
                timestamp: (tick * 160) as u32,
                ssrc: leg as u32,
                sequence: tick as u16,
                len: 160,
                payload_type: 0,
                marker: false,
            };
            recorder.packet(&header, &payload);
        }
        for half in [10, 20] {
            let now = epoch + Duration::from_nanos(base as u64) + Duration::from_millis(half);
            recorder.watermark(now);
            recorder.commit(now, &mut sink);
        }
    }
    let spent = cpu_ns() - began;
    assert!(sink.samples > calls * (seconds - 2) * 8_000);
    (recorder, spent as f64 / 1e3 / (calls * seconds) as f64)
}

fn main() {
    println!("µs of CPU per call and second of the pure recorder (least of 5 runs)");
    for (name, layout, loud, ppm) in [
        ("stereo", Layout::Stereo, false, 0.0),
        ("mixed", Layout::Mixed, false, 0.0),
        ("mixed, limiter always at work", Layout::Mixed, true, 0.0),
        ("tracks", Layout::Tracks, false, 0.0),
        ("stereo, clocks 1,000 ppm off", Layout::Stereo, false, 1_000.0),
    ] {
        let least = (0..5).map(|_| run(200, layout, loud, ppm, 10).1).fold(f64::MAX, f64::min);
        println!("{name:>30}: {least:6.1}");
    }
    let held = |layout| {
        let counted = allocation_counter::measure(|| std::mem::forget(run(50, layout, false, 0.0, 5)));
        counted.bytes_current as f64 / 1e3 / 50.0
    };
    println!("kB that it holds for a call: stereo {:.1}, mixed {:.1}", held(Layout::Stereo), held(Layout::Mixed));
}
