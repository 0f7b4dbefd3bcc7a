//! What recording costs without sockets: CPU time of the pure recorder from packets to the samples of WAV files, and with
//! `hound` writing those to files in a temporary folder.
//!
//! Two-party PCMU calls, 50 packets a second and direction, through `record::Recorder` in virtual time. The goal for all of
//! recording is 0.10 CPU-ms per call-second, which is 1,000 ns a packet. With a thousand calls no call's state is in the
//! cache when its packet comes.
//!
//! `-- --json FILE`: the figures for machines as well. `-- --count 3 400`: a conference of three for 400 ticks and nothing
//! else, untimed, to be counted by valgrind.

mod steps;

use std::collections::HashMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hound::{SampleFormat, WavSpec, WavWriter};
use serde_json::json;
use steps::{Nowhere, cpu_ns, payloads, write_json};
use stickytape::clock;
use stickytape::id::{CallUuid, ConnId, LegId, RecordingId};
use stickytape::record::mark::{Change, Channel, Conversation, Layout, Mark, Member, Role, SessionStart, Side};
use stickytape::record::metadata::Recording;
use stickytape::record::recorder::{FileSpec, Options, Recorder, SessionFiles, Sink};
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

/// Writes WAV files as `hound` does it by itself, every commit to its end.
struct Files {
    folder: PathBuf,
    open: HashMap<(RecordingId, usize), WavWriter<BufWriter<File>>>,
    samples: u64,
}

impl Sink for Files {
    fn begin(&mut self, files: &SessionFiles, _: &Recording) {
        for (n, file) in files.files.iter().enumerate() {
            let (channels, sample_rate) = (file.channels, files.sample_rate);
            let spec = WavSpec { channels, sample_rate, bits_per_sample: 16, sample_format: SampleFormat::Int };
            let path = self.folder.join(format!("{}-{n}.wav", files.id));
            self.open.insert((files.id, n), WavWriter::create(path, spec).expect("a file in the temporary folder"));
        }
    }
    fn add_file(&mut self, _: RecordingId, _: &FileSpec) {}
    fn frames(&mut self, id: RecordingId, file: usize, interleaved: &[i16]) {
        let writer = self.open.get_mut(&(id, file)).expect("it has begun");
        let mut samples = writer.get_i16_writer(interleaved.len() as u32);
        interleaved.iter().for_each(|sample| samples.write_sample(*sample));
        samples.flush().expect("the disk takes it");
        self.samples += interleaved.len() as u64;
    }
    fn roll(&mut self, _: RecordingId, _: &[FileSpec]) {}
    fn committed(&mut self, id: RecordingId) {
        self.open.get_mut(&(id, 0)).expect("it has begun").flush().expect("the disk takes it");
    }
    fn metadata(&mut self, _: RecordingId, _: &Recording) {}
    fn end(&mut self, _: RecordingId, _: Recording) {}
}

/// Before this, in seconds, calls begin and nothing is measured.
const WARM_UP: u64 = 2;
const ROUNDS: usize = 3;

/// What the calls are like.
#[derive(Clone, Copy)]
struct Calls {
    calls: u64,
    layout: Layout,
    loud: bool,
    /// How fast the senders' clocks are.
    ppm: f64,
    seconds: u64,
}

/// The recorder at their end, and the ns of CPU that it took for each packet.
fn run(of: Calls, sink: &mut impl Sink) -> (Recorder, f64) {
    let Calls { calls, layout, loud, ppm, seconds } = of;
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
    let mut began = 0;
    for tick in 0..(WARM_UP + seconds) * 50 {
        if tick == WARM_UP * 50 {
            began = cpu_ns();
        }
        let base = t0.as_nanos() as f64 + tick as f64 * 20e6 / (1.0 + ppm * 1e-6);
        for leg in 0..2 * calls {
            let header = TapHeader {
                leg: LegId(leg),
                arrival_ns: base as u64 + leg % 20 * 1_000_000,
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
            recorder.commit(now, sink);
        }
    }
    let spent = cpu_ns() - began;
    (recorder, spent as f64 / (calls * seconds * 100) as f64)
}

/// Samples that such calls have for certain.
fn least_samples(of: Calls) -> u64 {
    of.calls * (of.seconds + WARM_UP - 1) * 8_000 * if of.layout == Layout::Stereo { 2 } else { 1 }
}

/// The least of several rounds without files.
fn samples_only(of: Calls) -> f64 {
    let round = |_| {
        let mut sink = Nowhere::default();
        let ns = run(of, &mut sink).1;
        assert!(sink.samples >= least_samples(of), "everything was recorded");
        ns
    };
    (0..ROUNDS).map(round).fold(f64::MAX, f64::min)
}

/// With files, once: what is written stays in memory until the kernel finds time.
fn to_files(of: Calls) -> f64 {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut sink = Files { folder: folder.path().to_owned(), open: HashMap::new(), samples: 0 };
    let ns = run(of, &mut sink).1;
    assert!(sink.samples >= least_samples(of), "everything was recorded");
    ns
}

fn main() {
    let count: Vec<String> = std::env::args().skip_while(|argument| argument != "--count").skip(1).collect();
    if let [parties, ticks, ..] = &count[..] {
        let parties = parties.parse().expect("a number of parties");
        return steps::record(parties, parties, ticks.parse().expect("a number of ticks"), |_| ());
    }
    let mut rows = vec![];
    println!("CPU ns per packet of 20 ms, and MB of samples in files per CPU second");
    println!("{:>30} {:>6} {:>14} {:>8} {:>14} {:>8}", "", "calls", "samples: ns", "MB/s", "files: ns", "MB/s");
    let mut row = |name: &str, of: Calls| {
        // A packet of each direction is 320 bytes of file, or half as much of a mixed one.
        let bytes = if of.layout == Layout::Mixed { 160.0 } else { 320.0 };
        let (alone, files) = (samples_only(of), to_files(of));
        let rate = |ns: f64| bytes * 1e3 / ns;
        let (calls, alone_rate, files_rate) = (of.calls, rate(alone), rate(files));
        println!("{name:>30} {calls:>6} {alone:>14.0} {alone_rate:>8.0} {files:>14.0} {files_rate:>8.0}");
        rows.push(json!({
            "case": name, "calls": of.calls, "nsPerPacket": alone, "mbPerSecond": alone_rate,
            "nsPerPacketToFiles": files, "mbPerSecondToFiles": files_rate,
        }));
    };
    for (name, layout) in [("stereo", Layout::Stereo), ("mixed", Layout::Mixed)] {
        for (calls, seconds) in [(1, 400), (200, 10), (1_000, 4)] {
            row(name, Calls { calls, layout, loud: false, ppm: 0.0, seconds });
        }
    }
    let (loud, calls, seconds) = (false, 200, 10);
    row("mixed, limiter always at work", Calls { calls, layout: Layout::Mixed, loud: true, ppm: 0.0, seconds });
    row("stereo, clocks 1,000 ppm off", Calls { calls, layout: Layout::Stereo, loud, ppm: 1_000.0, seconds });
    let held = |layout| {
        let of = Calls { calls: 50, layout, loud, ppm: 0.0, seconds: 5 };
        let mut sink = Nowhere::default();
        let counted = allocation_counter::measure(|| std::mem::forget(run(of, &mut sink)));
        counted.bytes_current as f64 / 1e3 / 50.0
    };
    let (stereo, mixed) = (held(Layout::Stereo), held(Layout::Mixed));
    println!("kB that it holds for a call: stereo {stereo:.1}, mixed {mixed:.1}");
    write_json(&json!({ "rows": rows, "heldKb": { "stereo": stereo, "mixed": mixed } }));
}
