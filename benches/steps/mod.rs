//! What benches measure and `tests/instructions.rs` counts: the pure parts on the path of a packet and of a message, driven
//! with the same input every time.
#![allow(dead_code, reason = "each program uses its part")]

pub mod phone;
pub mod pinning;
pub mod relay;
pub mod sip;
pub mod told;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use stickytape::audio::mix::{self, Gain};
use stickytape::audio::{g711, sum};
use stickytape::bridge::command::mix::{Hearing, Join, MixCommand, RoomDigits};
use stickytape::bridge::conference::{self, Arrived, Mixer, Output};
use stickytape::clock;
use stickytape::codec::{Codec, Payload};
use stickytape::id::{CallUuid, ConnId, LegId, MixerId, RecordingId, RoomId, WorkerId};
use stickytape::record::mark::{Change, Channel, Conversation, Layout, Mark, Member, Role, SessionStart, Side};
use stickytape::record::metadata::Recording;
use stickytape::record::recorder::{self, FileSpec, Recorder, SessionFiles, Sink};
use stickytape::record::tap::TapHeader;
use stickytape::testing::speech::{self, Speaker};
use uuid::Uuid;

/// Between two packets of a party.
pub const TICK_NS: u64 = 20_000_000;

/// Time that this thread has had on a processor, to the nanosecond: what procfs says is renewed at ticks of the kernel.
pub fn cpu_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Nanoseconds on a CPU by the thread's name, as the scheduler counts them.
pub fn cpu_by_thread(pid: u32) -> BTreeMap<String, u64> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", pid)).expect("procfs");
    let of_task = |path: std::path::PathBuf| {
        let schedstat = std::fs::read_to_string(path.join("schedstat")).ok()?;
        let name = std::fs::read_to_string(path.join("comm")).ok()?;
        Some((name.trim().to_owned(), schedstat.split_whitespace().next()?.parse::<u64>().ok()?))
    };
    let mut threads = BTreeMap::new();
    for (name, spent) in tasks.flatten().filter_map(|task| of_task(task.path())) {
        *threads.entry(name).or_default() += spent;
    }
    threads
}

/// Writes the rows where `--json FILE` says, if it does, as [`told::document`].
pub fn write_json(rows: &serde_json::Value) {
    if let Some(path) = std::env::args().skip_while(|argument| argument != "--json").nth(1) {
        std::fs::write(path, format!("{:#}\n", told::document(rows))).expect("the JSON file can be written");
    }
}

/// PCMU and nothing else.
pub fn payloads() -> Vec<Payload> {
    vec![Payload { payload_type: 0, codec: Codec::pcmu() }]
}

pub fn join(room: u64, leg: u64) -> Join {
    Join {
        room: RoomId(room),
        leg: LegId(leg),
        worker: WorkerId(0),
        hearing: Hearing::MEMBER,
        listens: true,
        receive: payloads(),
        send: payloads(),
    }
}

/// 20 ms of each of 64 moments of speech.
pub fn voice() -> Vec<[u8; 160]> {
    let said = speech::say(Speaker::LOW, speech::HELLO);
    let frames = said.chunks_exact(160).take(64);
    let mut voice: Vec<[u8; 160]> = frames
        .map(|samples| {
            // Halved, as several people's levels are: sums seldom leave the range.
            let samples: Vec<i16> = samples.iter().map(|sample| sample / 2).collect();
            let mut bytes = [0; 160];
            g711::encode_ulaw(&samples, &mut bytes);
            bytes
        })
        .collect();
    voice.resize(64, [0xff; 160]);
    voice
}

/// A room of a mixer for `ticks` ticks, in which `speaking` of `parties` say something. `each` is called before every tick.
pub fn mix(parties: u64, speaking: u64, ticks: u64, mut each: impl FnMut(u64)) {
    let epoch = clock::now();
    let options = conference::Options { mixer: MixerId(0), epoch, max_members: 256 };
    let mut mixer = Mixer::new(options, epoch);
    mixer.command(MixCommand::Open { room: RoomId(1), sample_rate: 8_000, digits: RoomDigits::Pass }, epoch);
    (0..parties).for_each(|leg| mixer.command(MixCommand::Join(Box::new(join(1, leg))), epoch));
    let voice = voice();
    let (mut bytes, mut packets) = (0, 0);
    for tick in 0..ticks {
        each(tick);
        for leg in 0..parties {
            let arrived = Arrived {
                leg: LegId(leg),
                worker: WorkerId(0),
                arrival_ns: tick * TICK_NS + 5_000_000 + leg % 64 * 100_000,
                timestamp: (tick * 160) as u32,
                ssrc: leg as u32,
                payload_type: 0,
            };
            let payload = if leg < speaking { &voice[((tick + 7 * leg) % 64) as usize] } else { &[0xff; 160] };
            mixer.packet(&arrived, payload);
        }
        let now = epoch + Duration::from_nanos((tick + 1) * TICK_NS);
        while let Some(due) = mixer.poll_timeout().filter(|due| *due <= now) {
            mixer.tick(due, |_, output| {
                if let Output::Audio(_, packet) = output {
                    bytes += black_box(packet.payload).len();
                    packets += 1;
                }
            });
        }
        while mixer.poll_notice().is_some() {}
    }
    assert!(packets >= (ticks - 2) * parties && bytes as u64 == 160 * packets, "every party heard every frame");
}

/// What no mixer and no recorder can do without, in a bare loop over the same kernels: each party's packet decoded, summed,
/// its own voice taken out of the sum, encoded; then decoded once more, summed and stored for the recording. No packet is
/// looked up, ordered, timed or counted, and nothing is shared between those who hear the same.
pub fn bare(parties: u64, ticks: u64, mut each: impl FnMut(u64)) {
    let voice = voice();
    let mut frames = vec![[0_i16; 160]; parties as usize];
    let (mut total, mut mixed, mut bytes, mut decoded) = ([0_i32; 160], [0_i16; 160], [0_u8; 160], [0_i16; 160]);
    let mut gain = Gain::new(160);
    let mut stored = vec![0_i16; 160 * 50];
    for tick in 0..ticks {
        each(tick);
        let payload = |leg: usize| &voice[(tick as usize + 7 * leg) % 64];
        total.fill(0);
        for (leg, frame) in frames.iter_mut().enumerate() {
            g711::decode_ulaw(payload(leg), frame);
            sum::add(frame, &mut total);
        }
        gain.next(mix::peak(&total), 8_000);
        for frame in &frames {
            mix::minus(&total, Some(frame), &gain, &mut mixed);
            g711::encode_ulaw(&mixed, &mut bytes);
            black_box(&bytes);
        }
        total.fill(0);
        for leg in 0..frames.len() {
            g711::decode_ulaw(payload(leg), &mut decoded);
            sum::add(&decoded, &mut total);
        }
        let second = tick as usize % 50 * 160;
        mix::minus(&total, None, &gain, &mut stored[second..second + 160]);
    }
    black_box(&stored);
}

/// Counts samples and forgets them.
#[derive(Default)]
pub struct Nowhere {
    /// How many came.
    pub samples: u64,
}

impl Sink for Nowhere {
    fn begin(&mut self, _: &SessionFiles, _: &Recording) {}
    fn add_file(&mut self, _: RecordingId, _: &FileSpec) {}
    fn frames(&mut self, _: RecordingId, _: usize, interleaved: &[i16]) {
        self.samples += black_box(interleaved).len() as u64;
    }
    fn roll(&mut self, _: RecordingId, _: &[FileSpec]) {}
    fn committed(&mut self, _: RecordingId) {}
    fn metadata(&mut self, _: RecordingId, _: &Recording) {}
    fn end(&mut self, _: RecordingId, _: Recording) {}
}

pub fn session(parties: u64) -> SessionStart {
    let member = |leg| Member {
        leg: LegId(leg),
        dn: None,
        uri: String::new(),
        role: Role::Member,
        channel: Channel::Left,
        holds: false,
        held: false,
        muted: false,
    };
    SessionStart {
        id: RecordingId(Uuid::from_u128(1)),
        start_time: clock::wall(),
        call_uuid: CallUuid(Uuid::from_u128(2)),
        caller_phone_number: String::new(),
        dialed_phone_number: String::new(),
        owner_leg: LegId(0),
        owner_dn: None,
        side: Side::Origination,
        trigger: "default".into(),
        rule: String::new(),
        layout: Layout::Mixed,
        sample_rate: 8_000,
        conversation: Conversation {
            conn_id: ConnId(1),
            owner: LegId(0),
            members: (0..parties).map(member).collect(),
            consult: false,
            early: false,
            unbridged: false,
        },
    }
}

/// A recorder of the same room, mixed in one channel.
pub fn record(parties: u64, speaking: u64, ticks: u64, mut each: impl FnMut(u64)) {
    let epoch = clock::now();
    let mut recorder = Recorder::new(recorder::Options { epoch, max_file_bytes: 1 << 32 });
    let table: Arc<[Payload]> = payloads().into();
    let start = Duration::from_secs(1);
    for leg in 0..parties {
        recorder.mark(Mark { at: epoch, change: Change::Payloads { leg: LegId(leg), payloads: table.clone() } });
    }
    recorder.mark(Mark { at: epoch + start, change: Change::Start(Box::new(session(parties))) });
    let (voice, mut sink) = (voice(), Nowhere::default());
    for tick in 0..ticks {
        each(tick);
        let at = start.as_nanos() as u64 + tick * TICK_NS;
        for leg in 0..parties {
            let header = TapHeader {
                leg: LegId(leg),
                arrival_ns: at + leg % 64 * 100_000,
                timestamp: (tick * 160) as u32,
                ssrc: leg as u32,
                sequence: tick as u16,
                len: 160,
                payload_type: 0,
                marker: false,
            };
            let payload = if leg < speaking { &voice[((tick + 7 * leg) % 64) as usize] } else { &[0xff; 160] };
            recorder.packet(&header, payload);
        }
        // As often as the recorder's thread does.
        if tick % 3 == 0 {
            let now = epoch + Duration::from_nanos(at + TICK_NS);
            recorder.watermark(now);
            recorder.commit(now, &mut sink);
        }
    }
    assert!(sink.samples > (ticks - 60) * 160, "everything was written");
}
