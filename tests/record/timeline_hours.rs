//! Eight hours through the whole recorder, in virtual time: two clocks 400 ppm apart, jitter of 80 ms, every sample of the
//! file compared (spec/recording.md §7 "Promise").

use std::time::Duration;

use crate::record_support::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stickytape::clock;
use stickytape::codec::Payload;
use stickytape::id::{LegId, RecordingId};
use stickytape::record::mark::{Change, Layout, Mark, StopCause};
use stickytape::record::metadata::Recording;
use stickytape::record::recorder::{FileSpec, Options, Recorder, SessionFiles, Sink};
use stickytape::record::tap::TapHeader;

const HOURS: u64 = 8;

/// A talk spurt of 12 packets begins every 5 s of the sender's clock; between them nothing is sent.
const SPURT: u64 = 5_000;
const PACKETS: u64 = 12;

/// Sample `i` of spurt `n`: loud from the first sample on, never silent enough to be cut.
fn said(leg: u64, n: u64, i: usize) -> i16 {
    let mixed = (n * 31 + leg * 17 + i as u64).wrapping_mul(0x9e37_79b9) >> 7;
    3_000 + (mixed % 9_000) as i16
}

/// One side: when its packets come, in order of arrival within a spurt.
struct Side {
    leg: LegId,
    ppm: f64,
    rng: StdRng,
    /// Next spurt, and its packets not yet handed in, latest first.
    spurt: u64,
    waiting: Vec<(u64, u64)>,
}

impl Side {
    fn sent_ns(&self, spurt: u64, packet: u64) -> u64 {
        let local = (spurt * SPURT + packet * 20) as f64 / (1.0 + self.ppm * 1e-6);
        (T0 + Duration::from_millis(100)).as_nanos() as u64 + (local * 1e6) as u64
    }

    /// Hands in what arrives before `now`.
    fn deliver(&mut self, now: u64, recorder: &mut Recorder) {
        loop {
            if self.waiting.is_empty() {
                let spurt = self.spurt;
                for packet in 0..PACKETS {
                    let arrival = self.sent_ns(spurt, packet) + self.rng.random_range(0..80_000_000);
                    self.waiting.push((arrival, packet));
                }
                self.waiting.sort_by_key(|(arrival, _)| std::cmp::Reverse(*arrival));
            }
            let Some((arrival, packet)) = self.waiting.last().copied().filter(|(arrival, _)| *arrival < now) else {
                return;
            };
            self.waiting.pop();
            let number = self.spurt * PACKETS + packet;
            let header = TapHeader {
                leg: self.leg,
                arrival_ns: arrival,
                timestamp: ((self.spurt * SPURT + packet * 20) * 8) as u32,
                ssrc: self.leg.0 as u32,
                sequence: number as u16,
                len: 320,
                payload_type: 97,
                marker: packet == 0,
            };
            let mut payload = [0; 320];
            for (i, pair) in payload.chunks_exact_mut(2).enumerate() {
                pair.copy_from_slice(&said(self.leg.0, self.spurt, packet as usize * 160 + i).to_be_bytes());
            }
            recorder.packet(&header, &payload);
            if self.waiting.is_empty() {
                self.spurt += 1;
            }
        }
    }
}

/// Follows one channel of the file.
struct Ear {
    leg: LegId,
    ppm: f64,
    at: u64,
    /// Spurts heard so far, and the sample expected next within the present one.
    heard: u64,
    inside: usize,
    worst_ms: f64,
    /// Spurts in which a sample differed, because the clock was followed within them.
    bent: u64,
    differs: bool,
}

impl Ear {
    fn new(leg: LegId, ppm: f64) -> Self {
        Self { leg, ppm, at: 0, heard: 0, inside: 0, worst_ms: 0.0, bent: 0, differs: false }
    }

    fn hear(&mut self, sample: i16) {
        let at = self.at;
        self.at += 1;
        if self.inside == 0 {
            if sample == 0 {
                return;
            }
            let place_ms = 100.0 + (self.heard * SPURT) as f64 / (1.0 + self.ppm * 1e-6);
            let error = at as f64 / 8.0 - place_ms;
            self.worst_ms = self.worst_ms.max(error.abs());
            assert!(error.abs() <= 20.0, "{} spurt {} is {error} ms off", self.leg, self.heard);
        }
        if sample != said(self.leg.0, self.heard, self.inside) {
            self.differs = true;
            // Stretched by a few samples: it may end a little early or late.
            if sample == 0 {
                assert!(self.inside > PACKETS as usize * 160 - 160, "{} spurt {} is cut", self.leg, self.heard);
                self.next_spurt();
                return;
            }
        }
        self.inside += 1;
        if self.inside == PACKETS as usize * 160 {
            self.next_spurt();
        }
    }

    fn next_spurt(&mut self) {
        self.heard += 1;
        self.inside = 0;
        self.bent += u64::from(std::mem::take(&mut self.differs));
    }
}

struct Ears {
    left: Ear,
    right: Ear,
    ended: Option<Recording>,
}

impl Sink for Ears {
    fn begin(&mut self, _: &SessionFiles, _: &Recording) {}
    fn add_file(&mut self, _: RecordingId, _: &FileSpec) {}
    fn frames(&mut self, _: RecordingId, _: usize, interleaved: &[i16]) {
        for frame in interleaved.chunks_exact(2) {
            self.left.hear(frame[0]);
            self.right.hear(frame[1]);
        }
    }
    fn roll(&mut self, _: RecordingId, _: &[FileSpec]) {}
    fn committed(&mut self, _: RecordingId) {}
    fn metadata(&mut self, _: RecordingId, _: &Recording) {}
    fn end(&mut self, _: RecordingId, recording: Recording) {
        self.ended = Some(recording);
    }
}

#[test]
fn after_eight_hours_with_two_wrong_clocks_every_spurt_is_within_20_ms_and_nothing_else_is_in_the_file() {
    let epoch = clock::now();
    let mut recorder = Recorder::new(Options { epoch, max_file_bytes: 1 << 40 });
    let mut sides = [(D1, 200.0, 1), (D2, -200.0, 2)].map(|(leg, ppm, seed)| Side {
        leg,
        ppm,
        rng: StdRng::seed_from_u64(seed),
        spurt: 0,
        waiting: Vec::new(),
    });
    let mut ears = Ears { left: Ear::new(D1, 200.0), right: Ear::new(D2, -200.0), ended: None };
    for leg in [D1, D2] {
        let payloads: std::sync::Arc<[Payload]> = payloads();
        recorder.mark(Mark { at: epoch, change: Change::Payloads { leg, payloads } });
    }
    let start = Change::Start(Box::new(session(Layout::Stereo, 8_000, two())));
    recorder.mark(Mark { at: epoch + T0, change: start });
    let end = T0 + Duration::from_secs(HOURS * 3_600);
    let mut now = T0;
    while ears.ended.is_none() {
        now += Duration::from_millis(125);
        if now > end && now <= end + Duration::from_millis(125) {
            recorder.mark(Mark { at: epoch + end, change: Change::Stop { id: id(1), cause: StopCause::Released } });
        }
        for side in &mut sides {
            side.deliver(now.as_nanos() as u64, &mut recorder);
        }
        recorder.watermark(epoch + now);
        recorder.commit(epoch + now, &mut ears);
    }
    for ear in [&ears.left, &ears.right] {
        assert_eq!(ear.at, HOURS * 3_600 * 8_000);
        assert!(ear.heard >= HOURS * 3_600 / 5 - 2, "{} spurts of {}", ear.heard, ear.leg);
        assert!(ear.bent * 20 < ear.heard, "{} of {} spurts were stretched", ear.bent, ear.heard);
        println!("leg {}: {} spurts, worst {:.1} ms, {} stretched", ear.leg, ear.heard, ear.worst_ms, ear.bent);
    }
    let recording = ears.ended.unwrap();
    assert_eq!(recording.gaps, []);
    for (media, ppm) in recording.media.iter().zip([200.0, -200.0]) {
        assert_eq!((media.late, media.lost), (0, 0));
        assert!((media.clock_skew_ppm.unwrap() - ppm).abs() < 3.0, "{:?}", media.clock_skew_ppm);
    }
}
