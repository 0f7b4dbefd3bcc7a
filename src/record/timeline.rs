//! RTP time → place on the local monotonic clock (spec/recording.md §7).
//!
//! One timeline per stream (SSRC and RTP clock). *Transit* is arrival minus timestamp / clock, so it contains an unknown
//! constant, the delay of the path, and the difference of the two clocks:
//!
//! ```text
//!  transit │        ·  ·      · late packets: jitter, stalls
//!          │   · ·       ·  ·  · ·
//!          │ ─·──·───·─────·────·──·   lower envelope: constant + skew · time  = the place
//!          └──────────────────────────→ time
//! ```
//!
//! ```text
//!             first packet                first window over                disagreement > W
//!  (nothing) ──────────────→ Anchoring ───────────────────────→ Anchored ────────────────────→ Anchored, holding
//!                            all held       held are placed      ↑   ↑       a packet agrees        │   │
//!                                                                │   └──── held placed as before ───┘   │
//!                                                                └── steady 200 ms: anchored anew ──────┘
//! ```
//!
//! The envelope's minima, one per block of about a second, feed a two-state Kalman filter (offset, skew). Minima rather
//! than all packets, because jitter only ever adds. A minimum that leaves what the filter can explain is a change of the
//! path, not of a clock: it is subtracted from then on and moves nothing.

/// W: what a packet may be later or earlier than its place, in nanoseconds.
pub const WINDOW_NS: i64 = 500_000_000;

/// A new anchor is taken once the disagreement has stayed within ±40 ms …
const STEADY_RANGE_NS: i64 = 80_000_000;

/// … for this long by arrival.
const STEADY_FOR_NS: i64 = 200_000_000;

/// A stream that holds this many packets decides with what it has.
pub const MAX_HELD: usize = 128;

/// Least length of a block, and packets in it. A stream in DTX needs longer for as many.
const BLOCK_NS: i64 = 1_000_000_000;
const BLOCK_PACKETS: u32 = 25;

/// After this much silence the clocks may have parted, so the first few packets make a block.
const GAP_NS: i64 = 5_000_000_000;
const BLOCK_PACKETS_AFTER_GAP: u32 = 5;

/// A minimum further than this from the line, and than five standard deviations, is a change of the path.
const PATH_CHANGE: f64 = 6e-3;

/// What may be believed of a clock.
const MAX_SKEW: f64 = 3_000e-6;

/// Standard deviation of clocks before anything is known.
const SKEW_PRIOR: f64 = 500e-6;

/// Scheduling noise of arrivals without any jitter, in seconds.
const LEAST_NOISE: f64 = 0.2e-3;

/// Random walk of the offset (20 µs in a second) and of the skew (1 ppm in a minute), variances per second.
const OFFSET_WALK: f64 = 4e-10;
const SKEW_WALK: f64 = 1.7e-14;

/// The skew is told once it rests on this much.
const SKEW_KNOWN_NS: i64 = 10_000_000_000;

/// What to do with a packet and with those held before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The packets held so far.
    pub held: Held,
    /// Keep this packet with them (`true`), or place it now (`false`).
    pub hold: bool,
}

/// What becomes of held packets, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Nothing yet.
    Keep,
    /// Place them by [`Timeline::place`].
    Place,
    /// The stream is anchored anew. Those before this position belong to no timeline; place the others.
    PlaceFrom(usize),
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Timeline {
    clock_rate: u32,
    /// Where that is whole: no division.
    ns_per_tick: Option<i64>,
    state: State,
    line: Line,
}

#[derive(Debug, Clone)]
enum State {
    Empty,
    /// Looking for the first window's least transit.
    Anchoring(Anchoring),
    Anchored {
        /// Extended timestamp whose place is `base_ns`.
        base_ts: i64,
        base_ns: i64,
        holding: Option<Holding>,
    },
}

#[derive(Debug, Clone, Copy)]
struct Anchoring {
    first_arrival: i64,
    first_ts: i64,
    /// Of arrival − ticks since `first_ts`.
    least: i64,
    sum: i64,
    least_ts: i64,
    packets: u32,
}

/// Packets that disagree with the anchor.
#[derive(Debug, Clone, Copy)]
struct Holding {
    packets: usize,
    /// The steady stretch at the end.
    steady: Steady,
}

#[derive(Debug, Clone, Copy)]
struct Steady {
    from: usize,
    since: i64,
    least: i64,
    most: i64,
}

/// The envelope relative to the anchor: offset at `at` plus skew · time, in seconds.
#[derive(Debug, Clone)]
struct Line {
    offset: f64,
    skew: f64,
    /// Stream time after the anchor at which `offset` holds.
    at: f64,
    /// Covariance.
    p00: f64,
    p01: f64,
    p11: f64,
    /// Lasting changes of the path, which are not places.
    path: f64,
    block: Block,
    /// Mean of what packets come later than the envelope.
    excess: f64,
    /// Arrivals that the skew rests on.
    observed_ns: i64,
    last_arrival: i64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Block {
    started: i64,
    packets: u32,
    least: f64,
    least_at: f64,
    sum: f64,
    after_gap: bool,
}

impl Timeline {
    /// For an RTP clock in Hz.
    pub fn new(clock_rate: u32) -> Self {
        let clock_rate = clock_rate.max(1);
        let ns_per_tick = 1_000_000_000_u32.is_multiple_of(clock_rate).then(|| 1_000_000_000 / i64::from(clock_rate));
        Self { clock_rate, ns_per_tick, state: State::Empty, line: Line::new() }
    }

    /// A packet with its extended timestamp and its arrival in ns after the epoch.
    pub fn packet(&mut self, ts: i64, arrival: i64) -> Verdict {
        match self.state {
            State::Empty => {
                let first = Anchoring {
                    first_arrival: arrival,
                    first_ts: ts,
                    least: arrival,
                    sum: 0,
                    least_ts: ts,
                    packets: 1,
                };
                self.state = State::Anchoring(first);
                Verdict { held: Held::Keep, hold: true }
            }
            State::Anchoring(ref mut anchoring) => {
                let transit = arrival - ticks_to_ns(ts - anchoring.first_ts, self.clock_rate);
                let strange = (transit - anchoring.least).abs() > WINDOW_NS;
                if strange || arrival - anchoring.first_arrival >= WINDOW_NS {
                    self.anchor();
                    let verdict = self.packet(ts, arrival);
                    // Nothing is held by an anchor just taken, so the verdict is about this packet only.
                    return Verdict { held: Held::Place, hold: verdict.hold };
                }
                if transit < anchoring.least {
                    anchoring.least = transit;
                    anchoring.least_ts = ts;
                }
                anchoring.sum += transit - anchoring.first_arrival;
                anchoring.packets += 1;
                if anchoring.packets as usize > MAX_HELD {
                    self.anchor();
                    return Verdict { held: Held::Place, hold: false };
                }
                Verdict { held: Held::Keep, hold: true }
            }
            State::Anchored { .. } => self.anchored_packet(ts, arrival),
        }
    }

    /// Ends the search for the anchor with what has come, because its first places are about to be committed. True when
    /// it was still being looked for: then held packets are to be placed.
    pub fn anchor(&mut self) -> bool {
        let State::Anchoring(found) = self.state else { return false };
        let packets = f64::from(found.packets);
        let least = found.least - found.first_arrival;
        let excess = seconds(found.sum) / packets - seconds(least);
        self.line.restart(excess.max(0.0), packets, found.first_arrival);
        self.state = State::Anchored { base_ts: found.first_ts, base_ns: found.least, holding: None };
        true
    }

    /// While the anchor is being looked for: the place of the first packet as far as one can tell.
    pub fn tentative_place(&self) -> Option<i64> {
        match self.state {
            State::Anchoring(ref found) => Some(found.least),
            _ => None,
        }
    }

    /// The place of a timestamp in ns after the epoch; `None` before there is an anchor.
    pub fn place(&self, ts: i64) -> Option<i64> {
        let State::Anchored { base_ts, base_ns, .. } = self.state else { return None };
        let since = self.ns(ts - base_ts);
        Some(base_ns + since + (self.line.at(seconds(since)) * 1e9) as i64)
    }

    /// The sender's clock against ours in parts per million, positive when it runs fast; `None` until ten seconds have
    /// been seen.
    pub fn skew_ppm(&self) -> Option<f64> {
        (self.line.observed_ns >= SKEW_KNOWN_NS).then(|| -self.line.skew / (1.0 + self.line.skew) * 1e6)
    }

    /// A packet that agrees with the anchor beyond doubt, so that it was placed without a verdict: only the line learns of
    /// it.
    pub fn follow(&mut self, ts: i64, arrival: i64) {
        let State::Anchored { base_ts, base_ns, .. } = self.state else { return };
        let since = self.ns(ts - base_ts);
        let line = self.line.at(seconds(since));
        let disagreement = arrival - base_ns - since - (line * 1e9) as i64;
        self.line.observe(seconds(since), seconds(disagreement), arrival);
    }

    /// The time of so many ticks.
    pub fn ns(&self, ticks: i64) -> i64 {
        match self.ns_per_tick.and_then(|each| ticks.checked_mul(each)) {
            Some(ns) => ns.clamp(i64::MIN / 4, i64::MAX / 4),
            None => ticks_to_ns(ticks, self.clock_rate),
        }
    }

    fn anchored_packet(&mut self, ts: i64, arrival: i64) -> Verdict {
        let State::Anchored { base_ts, base_ns, .. } = self.state else {
            return Verdict { held: Held::Keep, hold: true };
        };
        let since = self.ns(ts - base_ts);
        let State::Anchored { ref mut holding, .. } = self.state else {
            return Verdict { held: Held::Keep, hold: true };
        };
        let line = self.line.at(seconds(since));
        let disagreement = arrival - base_ns - since - (line * 1e9) as i64;
        if disagreement.abs() <= WINDOW_NS {
            let held = if holding.take().is_some() { Held::Place } else { Held::Keep };
            self.line.observe(seconds(since), seconds(disagreement), arrival);
            return Verdict { held, hold: false };
        }
        let held = holding.get_or_insert(Holding { packets: 0, steady: Steady::from(0, disagreement, arrival) });
        held.packets += 1;
        let index = held.packets - 1;
        held.steady = held.steady.and(index, disagreement, arrival);
        let steady = held.steady;
        if arrival - steady.since < STEADY_FOR_NS && held.packets <= MAX_HELD {
            return Verdict { held: Held::Keep, hold: true };
        }
        // The least disagreement of the steady stretch becomes zero: that is the new anchor.
        let anchor_ns = base_ns + since + (line * 1e9) as i64 + steady.least;
        self.state = State::Anchored { base_ts: ts, base_ns: anchor_ns, holding: None };
        let excess = seconds(steady.most - steady.least) / 2.0;
        self.line.restart(excess, (index + 1 - steady.from) as f64, arrival);
        Verdict { held: Held::PlaceFrom(steady.from), hold: false }
    }
}

impl Steady {
    fn from(index: usize, disagreement: i64, arrival: i64) -> Self {
        Self { from: index, since: arrival, least: disagreement, most: disagreement }
    }

    fn and(self, index: usize, disagreement: i64, arrival: i64) -> Self {
        let least = self.least.min(disagreement);
        let most = self.most.max(disagreement);
        if most - least > STEADY_RANGE_NS {
            return Self::from(index, disagreement, arrival);
        }
        Self { least, most, ..self }
    }
}

impl Line {
    fn new() -> Self {
        Self {
            offset: 0.0,
            skew: 0.0,
            at: 0.0,
            p00: LEAST_NOISE * LEAST_NOISE,
            p01: 0.0,
            p11: SKEW_PRIOR * SKEW_PRIOR,
            path: 0.0,
            block: Block::default(),
            excess: 0.0,
            observed_ns: 0,
            last_arrival: 0,
        }
    }

    /// A new anchor: the offset is zero there; what is known of the skew stays.
    fn restart(&mut self, excess: f64, packets: f64, arrival: i64) {
        self.offset = 0.0;
        self.at = 0.0;
        self.path = 0.0;
        self.excess = excess;
        self.p00 = noise(excess, packets);
        self.p01 = 0.0;
        self.block = Block::default();
        self.last_arrival = arrival;
    }

    fn at(&self, since: f64) -> f64 {
        self.offset + self.skew * (since - self.at)
    }

    fn observe(&mut self, since: f64, disagreement: f64, arrival: i64) {
        let error = disagreement - self.path;
        let pause = arrival - self.last_arrival;
        self.last_arrival = arrival;
        if self.block.packets == 0 {
            self.block = Block { started: arrival, least: f64::MAX, after_gap: pause > GAP_NS, ..Block::default() };
        }
        let block = &mut self.block;
        if error < block.least {
            block.least = error;
            block.least_at = since;
        }
        block.sum += error;
        block.packets += 1;
        self.observed_ns += pause.clamp(0, BLOCK_NS);
        let complete = if block.after_gap {
            block.packets >= BLOCK_PACKETS_AFTER_GAP
        } else {
            block.packets >= BLOCK_PACKETS && arrival - block.started >= BLOCK_NS
        };
        if complete {
            self.correct();
        }
    }

    /// The block's minimum corrects offset and skew, or tells that the path has changed.
    fn correct(&mut self) {
        let block = std::mem::take(&mut self.block);
        let packets = f64::from(block.packets);
        let excess = block.sum / packets - block.least;
        self.excess += (excess - self.excess) / 8.0;
        let noise = noise(self.excess.max(excess), packets);

        let dt = block.least_at - self.at;
        self.offset += self.skew * dt;
        self.at = block.least_at;
        let elapsed = dt.abs();
        self.p00 += 2.0 * dt * self.p01 + dt * dt * self.p11 + OFFSET_WALK * elapsed;
        self.p01 += dt * self.p11;
        self.p11 += SKEW_WALK * elapsed;

        let innovation_variance = self.p00 + noise;
        if block.least.abs() > PATH_CHANGE.max(5.0 * innovation_variance.sqrt()) {
            self.path += block.least;
            return;
        }
        let gain0 = self.p00 / innovation_variance;
        let gain1 = self.p01 / innovation_variance;
        self.offset += gain0 * block.least;
        self.skew = (self.skew + gain1 * block.least).clamp(-MAX_SKEW, MAX_SKEW);
        self.p11 -= gain1 * self.p01;
        self.p01 -= gain0 * self.p01;
        self.p00 -= gain0 * self.p00;
    }
}

/// Variance of the least of so many packets that come `excess` late on average: its standard deviation is about the mean
/// distance of neighbours when they are sorted.
fn noise(excess: f64, packets: f64) -> f64 {
    (2.0 * excess / packets.max(1.0)).max(LEAST_NOISE).powi(2)
}

fn ticks_to_ns(ticks: i64, clock_rate: u32) -> i64 {
    if let Some(product) = ticks.checked_mul(1_000_000_000) {
        return (product / i64::from(clock_rate)).clamp(i64::MIN / 4, i64::MAX / 4);
    }
    let ns = i128::from(ticks) * 1_000_000_000 / i128::from(clock_rate);
    // 2³¹ ticks at 8,000 Hz are three days; a peer needs thousands of such jumps to leave the range, and then its place
    // is as far off as it can be, which is what the clamp says.
    ns.clamp(i128::from(i64::MIN / 4), i128::from(i64::MAX / 4)) as i64
}

fn seconds(ns: i64) -> f64 {
    ns as f64 * 1e-9
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    const MS: i64 = 1_000_000;

    /// Feeds 20 ms packets whose path delay (ms) and sender's clock (ppm fast) are given; returns the worst error of a
    /// place in ms against the ideal, from `settled` packets on.
    fn worst_error(packets: i64, ppm: f64, settled: i64, mut delay_ms: impl FnMut(i64) -> f64) -> (Timeline, f64) {
        let mut timeline = Timeline::new(8_000);
        let mut worst: f64 = 0.0;
        for i in 0..packets {
            let sent = i as f64 * 20e6 / (1.0 + ppm * 1e-6);
            let arrival = 1_000_000_000 + (sent + delay_ms(i) * 1e6) as i64;
            timeline.packet(i * 160, arrival);
            if i >= settled
                && let Some(place) = timeline.place(i * 160)
            {
                let ideal = 1e9 + sent;
                worst = worst.max((place as f64 - ideal).abs() / 1e6);
            }
        }
        (timeline, worst)
    }

    #[test]
    fn the_first_window_is_held_and_its_least_transit_is_the_anchor() {
        let mut timeline = Timeline::new(8_000);
        let delays = [40, 10, 30, 25, 60];
        for i in 0..24 {
            let arrival = i * 20 * MS + delays[i as usize % 5] * MS;
            assert_eq!(timeline.packet(i * 160, arrival), Verdict { held: Held::Keep, hold: true }, "packet {i}");
        }
        assert_eq!(timeline.place(0), None);
        let verdict = timeline.packet(28 * 160, 28 * 20 * MS + 25 * MS);
        assert_eq!(verdict, Verdict { held: Held::Place, hold: false });
        assert_eq!(timeline.place(0), Some(10 * MS));
        assert_eq!(timeline.place(28 * 160), Some((10 + 560) * MS));
    }

    #[test]
    fn a_commit_may_end_the_first_window_early() {
        let mut timeline = Timeline::new(8_000);
        assert!(!timeline.anchor());
        timeline.packet(0, 100 * MS);
        timeline.packet(160, 110 * MS);
        assert_eq!(timeline.tentative_place(), Some(90 * MS));
        assert!(timeline.anchor());
        assert_eq!(timeline.place(0), Some(90 * MS));
        assert_eq!(timeline.tentative_place(), None);
    }

    #[test]
    fn jitter_of_80_ms_and_200_ppm_stay_within_12_ms_for_an_hour() {
        for (seed, ppm) in [(1, 200.0), (2, -200.0), (3, 0.0)] {
            let mut rng = StdRng::seed_from_u64(seed);
            let (timeline, worst) = worst_error(180_000, ppm, 50, |_| rng.random_range(0.0..80.0));
            assert!(worst < 12.0, "{ppm} ppm: {worst} ms");
            let found = timeline.skew_ppm().unwrap();
            assert!((found - ppm).abs() < 15.0, "{ppm} ppm: found {found}");
        }
    }

    #[test]
    fn jitter_of_5_ms_and_2000_ppm_stay_within_8_ms() {
        for (seed, ppm) in [(4, 2_000.0), (5, -2_000.0)] {
            let mut rng = StdRng::seed_from_u64(seed);
            let (timeline, worst) = worst_error(30_000, ppm, 25, |_| rng.random_range(0.0..5.0));
            assert!(worst < 8.0, "{ppm} ppm: {worst} ms");
            let found = timeline.skew_ppm().unwrap();
            assert!((found - ppm).abs() < 5.0, "{ppm} ppm: found {found}");
        }
    }

    #[test]
    fn a_lasting_change_of_the_path_moves_nothing() {
        for change in [60.0, -60.0, 15.0] {
            let mut rng = StdRng::seed_from_u64(6);
            let (_, worst) = worst_error(20_000, 50.0, 50, |i| {
                100.0 + if i > 5_000 { change } else { 0.0 } + rng.random_range(0.0..4.0)
            });
            // The ideal of `worst_error` has no path delay, the anchor has 100 ms.
            assert!((worst - 100.0).abs() < 5.0, "{change} ms: {worst} ms");
        }
    }

    #[test]
    fn after_a_change_of_the_path_the_clock_is_still_followed() {
        for change in [60.0, -60.0] {
            let mut rng = StdRng::seed_from_u64(7);
            let (timeline, worst) = worst_error(20_000, 150.0, 50, |i| {
                100.0 + if i > 150 { change } else { 0.0 } + rng.random_range(0.0..4.0)
            });
            assert!((worst - 100.0).abs() < 8.0, "{change} ms: {worst} ms");
            assert!((timeline.skew_ppm().unwrap() - 150.0).abs() < 5.0, "{:?}", timeline.skew_ppm());
        }
    }

    #[test]
    fn a_stall_that_catches_up_moves_nothing() {
        let (_, worst) =
            worst_error(3_000, 0.0, 0, |i| if (500..520).contains(&i) { (520 - i) as f64 * 20.0 } else { 0.0 });
        assert!(worst < 0.5, "{worst}");
    }

    #[test]
    fn a_stall_longer_than_the_window_is_held_and_then_placed_as_before() {
        let mut timeline = Timeline::new(8_000);
        for i in 0..100 {
            timeline.packet(i * 160, i * 20 * MS);
        }
        // One second of silence, then fifty packets within 5 ms.
        let mut held = 0;
        for i in 100..150 {
            let verdict = timeline.packet(i * 160, 3_000 * MS + i * MS / 10);
            if verdict.hold {
                held += 1;
                assert_eq!(verdict.held, Held::Keep);
            } else if held > 0 {
                assert_eq!(verdict.held, Held::Place);
                held = 0;
            }
        }
        let place = timeline.place(150 * 160).unwrap();
        assert!((place - 3_000 * MS).abs() < MS, "{place}");
    }

    #[test]
    fn a_timestamp_jump_is_anchored_anew_once_it_has_been_steady_for_200_ms() {
        let mut timeline = Timeline::new(8_000);
        for i in 0..100 {
            timeline.packet(i * 160, i * 20 * MS);
        }
        let jump = 8_000 * 3_600;
        for i in 100..110 {
            assert!(timeline.packet(i * 160 + jump, i * 20 * MS + (i % 3) * MS).hold, "packet {i}");
        }
        let verdict = timeline.packet(110 * 160 + jump, 110 * 20 * MS + 2 * MS);
        assert_eq!(verdict, Verdict { held: Held::PlaceFrom(0), hold: false });
        let place = timeline.place(110 * 160 + jump).unwrap();
        assert!((place - 2_200 * MS).abs() < MS, "{place}");
    }

    #[test]
    fn skew_learned_before_a_long_silence_places_what_comes_after_it() {
        let mut timeline = Timeline::new(8_000);
        let sent = |i: i64| (i as f64 * 20e6 * (1.0 + 200e-6)) as i64;
        for i in 0..3_000 {
            timeline.packet(i * 160, sent(i) + (i % 7) * MS);
        }
        // Ten minutes of nothing drift by 120 ms.
        for i in 33_000..33_100 {
            timeline.packet(i * 160, sent(i) + (i % 7) * MS);
            let error = timeline.place(i * 160).unwrap() - sent(i);
            assert!(error.abs() < 15 * MS, "packet {i}: {error}");
        }
    }

    #[test]
    fn wild_timestamps_hold_a_bounded_number_of_packets_and_never_panic() {
        let mut rng = StdRng::seed_from_u64(9);
        let mut timeline = Timeline::new(8_000);
        let (mut held, mut ts) = (0_usize, 0_i64);
        for i in 0..100_000_i64 {
            ts += i64::from(rng.random::<i32>());
            let verdict = timeline.packet(ts, i * 20 * MS);
            if verdict.held != Held::Keep {
                held = 0;
            }
            held += usize::from(verdict.hold);
            assert!(held <= MAX_HELD + 1);
        }
    }
}
