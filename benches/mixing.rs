//! What a conference costs without sockets, in CPU ns per party and 20 ms frame, and what concealment is worth.
//!
//! `cargo bench --bench mixing`; with `RUSTFLAGS="--cfg baseline"` the kernels are built for the least processor (SSE2 on
//! x86-64). The goal for mixer and recorder together is 150 ns with AVX2 and 350 ns with SSE2.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stickytape::audio::{conceal, g711};
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

/// Party-frames that one measurement takes, about.
const FRAMES: u64 = 400_000;
const ROUNDS: usize = 5;
const TICK_NS: u64 = 20_000_000;

/// Time that this thread has had on a processor (Linux).
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("a Linux kernel with schedstat");
    text.split(' ').next().and_then(|ns| ns.parse().ok()).expect("nanoseconds")
}

fn payloads() -> Vec<Payload> {
    vec![Payload { payload_type: 0, codec: Codec::pcmu() }]
}

/// 20 ms of each of 64 moments of speech.
fn voice() -> Vec<[u8; 160]> {
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

/// The mixer's step for a room in which `speaking` of `parties` say something.
fn mixer(parties: u64, speaking: u64) -> f64 {
    let epoch = clock::now();
    let options = conference::Options { mixer: MixerId(0), epoch, max_members: 256 };
    let mut mixer = Mixer::new(options, epoch);
    mixer.command(MixCommand::Open { room: RoomId(1), sample_rate: 8_000, digits: RoomDigits::Pass }, epoch);
    for leg in 0..parties {
        let join = Join {
            room: RoomId(1),
            leg: LegId(leg),
            worker: WorkerId(0),
            hearing: Hearing::MEMBER,
            listens: true,
            receive: payloads(),
            send: payloads(),
        };
        mixer.command(MixCommand::Join(Box::new(join)), epoch);
    }
    let voice = voice();
    let (ticks, mut bytes, mut packets) = (FRAMES / parties, 0, 0);
    let mut begun = 0;
    for tick in 0..ticks {
        if tick == 50 {
            begun = cpu_ns();
        }
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
        while let Some(due) =
            mixer.poll_timeout().filter(|due| *due <= epoch + Duration::from_nanos((tick + 1) * TICK_NS))
        {
            mixer.tick(due, |_, output| {
                if let Output::Audio(_, packet) = output {
                    bytes += black_box(packet.payload).len();
                    packets += 1;
                }
            });
        }
        while mixer.poll_notice().is_some() {}
    }
    let spent = cpu_ns() - begun;
    assert!(packets >= (ticks - 2) * parties && bytes as u64 == 160 * packets, "every party heard every frame");
    spent as f64 / ((ticks - 50) * parties) as f64
}

/// Counts frames and forgets them.
#[derive(Default)]
struct Nowhere {
    samples: u64,
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

fn session(parties: u64) -> SessionStart {
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

/// The recorder's step for the same room.
fn recorder(parties: u64) -> f64 {
    let epoch = clock::now();
    let mut recorder = Recorder::new(recorder::Options { epoch, max_file_bytes: 1 << 32 });
    let table: Arc<[Payload]> = payloads().into();
    let start = Duration::from_secs(1);
    for leg in 0..parties {
        recorder.mark(Mark { at: epoch, change: Change::Payloads { leg: LegId(leg), payloads: table.clone() } });
    }
    recorder.mark(Mark { at: epoch + start, change: Change::Start(Box::new(session(parties))) });
    let (voice, mut sink, ticks) = (voice(), Nowhere::default(), FRAMES / parties);
    let mut begun = 0;
    for tick in 0..ticks {
        if tick == 50 {
            begun = cpu_ns();
        }
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
            recorder.packet(&header, &voice[((tick + 7 * leg) % 64) as usize]);
        }
        let now = epoch + Duration::from_nanos(at + TICK_NS);
        recorder.watermark(now);
        recorder.commit(now, &mut sink);
    }
    let spent = cpu_ns() - begun;
    assert!(sink.samples > (ticks - 60) * 160, "everything was written");
    spent as f64 / ((ticks - 50) * parties) as f64
}

/// Least and median of several rounds.
fn rounds(measure: impl Fn() -> f64) -> (f64, f64) {
    let mut all: Vec<f64> = (0..ROUNDS).map(|_| measure()).collect();
    all.sort_unstable_by(f64::total_cmp);
    (all[0], all[ROUNDS / 2])
}

/// Packets lost in bursts: one in twenty, two at a time on the average.
fn lost(frames: usize) -> Vec<bool> {
    let (mut rng, mut bad) = (StdRng::seed_from_u64(5), false);
    let next = |_| {
        // 1/38 into a burst and 1/2 out of it: 5 % of the time within one.
        bad = if bad { rng.random_bool(0.5) } else { rng.random_bool(1.0 / 38.0) };
        bad
    };
    (0..frames).map(next).collect()
}

/// Segmental SNR in dB over the frames that were lost and those right behind them, each kept within −10…35 dB.
fn segmental(said: &[i16], heard: &[i16], lost: &[bool]) -> f64 {
    let mut values = vec![];
    for (n, (said, heard)) in said.chunks_exact(160).zip(heard.chunks_exact(160)).enumerate() {
        let signal: f64 = said.iter().map(|s| f64::from(*s).powi(2)).sum();
        // Silence says nothing of concealment.
        if signal < 160.0 * 100.0_f64.powi(2) || !(lost[n] || n > 0 && lost[n - 1]) {
            continue;
        }
        let noise: f64 = said.iter().zip(heard).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
        values.push((10.0 * (signal / noise.max(1.0)).log10()).clamp(-10.0, 35.0));
    }
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// What is heard of a voice whose `lost` packets are silence.
fn silenced(said: &[i16], lost: &[bool]) -> Vec<i16> {
    let mut heard = said.to_vec();
    heard.chunks_exact_mut(160).zip(lost).filter(|(_, lost)| **lost).for_each(|(frame, _)| frame.fill(0));
    heard
}

/// The last packet once more, at half its level each time.
fn repeated(said: &[i16], lost: &[bool]) -> Vec<i16> {
    let mut heard = said.to_vec();
    for n in (1..lost.len()).filter(|n| lost[*n]) {
        for i in 0..160 {
            let fades = if n > 1 && lost[n - 1] { 2 } else { 1 };
            heard[160 * n + i] = heard[160 * (n - 1) + i] / fades;
        }
    }
    heard
}

fn concealed(said: &[i16], lost: &[bool]) -> Vec<i16> {
    let (mut heard, mut concealer) = (said.to_vec(), conceal::Concealer::new(8_000));
    for (n, lost) in lost.iter().enumerate() {
        let (before, rest) = heard.split_at_mut(160 * n);
        if *lost {
            if !concealer.is_active() {
                concealer.begin(before, false);
            }
            concealer.fill(&mut rest[..160]);
        } else {
            concealer.resume(&mut rest[..160]);
        }
    }
    heard
}

fn concealment() {
    let phrases = [speech::HELLO, speech::HEAR_YOU, speech::HOLD, speech::BYE];
    let voices = [Speaker::LOW, Speaker::HIGH];
    let said: Vec<i16> = (0..10)
        .flat_map(|_| {
            phrases.iter().flat_map(|phrase| voices.iter().flat_map(|voice| speech::say(*voice, phrase).to_vec()))
        })
        .collect();
    let said = &said[..said.len() / 160 * 160];
    let lost = lost(said.len() / 160);
    let share = lost.iter().filter(|lost| **lost).count() as f64 / lost.len() as f64;
    println!("\nsegmental SNR over lost packets and those behind them, {:.1} % lost in bursts:", 100.0 * share);
    let ways: [(&str, fn(&[i16], &[bool]) -> Vec<i16>); 3] =
        [("silence", silenced), ("repetition", repeated), ("concealment", concealed)];
    for (name, way) in ways {
        println!("  {name:<12} {:>6.2} dB", segmental(said, &way(said, &lost), &lost));
    }
}

fn main() {
    let kernels = if cfg!(baseline) { "built for the least processor" } else { "chosen at run time" };
    println!("CPU ns per party and 20 ms frame, PCMU, all speak (least and median of {ROUNDS}); kernels {kernels}");
    println!("{:>8} {:>16} {:>16} {:>16} {:>14}", "parties", "mixer", "recorder", "together", "3 speak, mixer");
    for parties in [3, 8, 32, 128, 256] {
        let (mix, mix_median) = rounds(|| mixer(parties, parties));
        let (record, record_median) = rounds(|| recorder(parties));
        let (few, _) = rounds(|| mixer(parties, 3));
        println!(
            "{parties:>8} {:>16} {:>16} {:>16} {few:>14.0}",
            format!("{mix:.0} / {mix_median:.0}"),
            format!("{record:.0} / {record_median:.0}"),
            format!("{:.0} / {:.0}", mix + record, mix_median + record_median),
        );
    }
    concealment();
}
