//! What one leg's peer said: packets in, tracks out. It belongs to no session; any number of them read it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::metadata::GapCause;
use super::run::{Run, Start};
use super::stream::{Coding, Packet, Stream};
use super::tap::TapHeader;
use super::timeline::Held;
use super::track::{Origin, Track, quantum};
use crate::audio::resample::Stretch;
use crate::codec::{Codec, Kind, Payload};

/// Payload tables whose packets may still be on their way.
const MAX_TABLES: usize = 8;

/// Streams followed at a time. A peer that changes its SSRC more often than its packets are late loses nothing by it.
const MAX_STREAMS: usize = 4;

/// SSRCs named in the metadata.
const MAX_SSRCS: usize = 32;

/// Stretches that we dropped and whose holes have not been seen yet.
const MAX_DROPPED: usize = 16;

/// Samples of the longest payload that is decoded: a whole datagram of G.711.
const MAX_SAMPLES: usize = 2_048;

/// A packet's place may precede its arrival by W, and the hole that it leaves is seen later still.
const DROPPED_BEFORE_NS: i64 = 500_000_000;

/// What a packet was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Placed, held, or without audio.
    Yes,
    /// Its payload type is in no table of its time: perhaps the table is still on its way.
    UnknownPayload,
}

/// Missing speech in ns after the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// Beginning.
    pub start_ns: i64,
    /// End.
    pub end_ns: i64,
    /// Why.
    pub cause: GapCause,
}

/// Totals since the leg began.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Totals {
    /// The codec of the latest audio packet.
    pub codec: Option<Codec>,
    /// Its payload type.
    pub payload_type: Option<u8>,
    /// In order of appearance.
    pub ssrcs: Vec<u32>,
    /// Packets.
    pub received: u64,
    /// Missing by sequence number.
    pub lost: u64,
    /// Packets that came too late, in part or whole.
    pub late: u64,
    /// Packets that came before.
    pub duplicates: u64,
    /// Concealed time in ns.
    pub concealed_ns: u64,
    /// Of the stream heard last.
    pub clock_skew_ppm: Option<f64>,
}

/// See the module.
#[derive(Debug)]
pub struct Leg {
    /// Packets that follow one another and have not been worked out. Its stream and track know of them as soon as anybody
    /// else asks.
    run: Run,
    streams: Vec<Stream>,
    tracks: Vec<Track>,
    /// Oldest first.
    tables: Vec<Table>,
    next_table: u32,
    /// The table and payload type that `totals.codec` is of.
    named: Option<(u32, u8)>,
    next_stream: u32,
    totals: Totals,
    /// Of streams that are gone.
    lost_before: u64,
    dropped: VecDeque<(i64, i64)>,
    missing: Vec<Missing>,
    /// Everything before this instant (ns) has been sealed.
    sealed_ns: i64,
}

impl Leg {
    /// A leg that is sealed up to `sealed_ns` and has no table yet.
    pub fn new(sealed_ns: i64) -> Self {
        Self {
            run: Run::default(),
            streams: Vec::new(),
            tracks: Vec::new(),
            tables: Vec::new(),
            next_table: 0,
            named: None,
            next_stream: 0,
            totals: Totals::default(),
            lost_before: 0,
            dropped: VecDeque::new(),
            missing: Vec::new(),
            sealed_ns,
        }
    }

    /// From `at` (ns) on, arrivals are read with this table.
    pub fn payloads(&mut self, at: i64, table: Arc<[Payload]>) {
        self.settle();
        self.run.end();
        let i = self.tables.partition_point(|table| table.from <= at);
        let meanings = table.iter().map(|payload| (payload.payload_type, meaning(&payload.codec))).collect();
        // Most legs never have another table, stream or rate.
        self.tables.reserve_exact(1);
        self.tables.insert(i, Table { from: at, number: self.next_table, payloads: table, meanings });
        self.next_table = self.next_table.wrapping_add(1);
        if self.tables.len() > MAX_TABLES {
            self.tables.remove(0);
        }
    }

    /// Arrivals in this stretch (ns) may have been dropped by us.
    pub fn dropped(&mut self, from: i64, until: i64) {
        if let Some(last) = self.dropped.back_mut()
            && from <= last.1
        {
            last.0 = last.0.min(from);
            last.1 = last.1.max(until);
            return;
        }
        if self.dropped.len() == MAX_DROPPED {
            // The two oldest become one: too long a stretch rather than a hole blamed on the network.
            let (from, _) = self.dropped.pop_front().unwrap_or_default();
            if let Some(next) = self.dropped.front_mut() {
                next.0 = from;
            }
        }
        self.dropped.push_back((from, until));
    }

    /// Takes a packet.
    pub fn packet(&mut self, header: &TapHeader, payload: &[u8]) -> Taken {
        let arrival = header.arrival_ns.min(i64::MAX as u64) as i64;
        if self.run.is_full() {
            self.settle();
            self.go_on();
        }
        if self.run.goes_on_with(header, arrival, payload.len()) {
            let (at, len, coding) = self.run.note(arrival);
            self.tracks[self.run.track].append(at, len, coding, payload);
            return Taken::Yes;
        }
        self.settle();
        self.run.end();
        self.unexpected(header, payload, arrival)
    }

    /// Works out what is to be known of the packets of the run. Then it either ends or goes on.
    fn settle(&mut self) {
        let (packets, samples) = (self.run.noted(), self.run.samples());
        if packets == 0 {
            return;
        }
        let stream = &mut self.streams[self.run.stream];
        for arrival in self.run.arrivals() {
            stream.newest += samples;
            stream.timeline.follow(stream.newest, arrival);
            stream.last_arrival = arrival;
        }
        stream.timestamps.extend(self.run.last_timestamp());
        stream.arrivals.note_next(packets);
        let origin = Origin { stream: stream.id, sequence: stream.arrivals.highest().0 };
        let at = self.run.position() - samples;
        let track = &mut self.tracks[self.run.track];
        track.appended(samples * i64::from(packets), origin);
        if let Some(place) = stream.exact_place(stream.newest) {
            track.want_shift(place - at as f64);
        }
        self.totals.received += u64::from(packets);
    }

    /// The run, which is settled, goes on as far as there is room now.
    fn go_on(&mut self) {
        let (stream, track) = (&self.streams[self.run.stream], &self.tracks[self.run.track]);
        let origin = Origin { stream: stream.id, sequence: stream.arrivals.highest().0 };
        let room = track.room_behind(self.run.position(), origin, self.run.coding(), self.run.samples());
        match stream.timeline.place(stream.newest + self.run.samples()) {
            Some(expected) if room > 0 => self.run.go_on(room, expected),
            _ => self.run.end(),
        }
    }

    /// Begins a run behind a packet that has been placed, if it is the newest in every regard.
    fn begin_run(&mut self, i: usize, packet: &Packet, header: &TapHeader, since: i64) {
        let stream = &self.streams[i];
        let samples = packet.coding.samples(packet.len);
        let newest =
            stream.newest == packet.timestamp && stream.arrivals.highest() == (packet.sequence, header.sequence);
        let track = self.tracks.iter().position(|track| track.rate() == stream.rate);
        let (Some(track), Some(offset)) = (track.filter(|_| newest && samples <= MAX_SAMPLES), stream.offset) else {
            return;
        };
        let position = packet.timestamp + offset + samples as i64;
        let step_ns = stream.timeline.ns(samples as i64);
        let start =
            Start { stream: i, track, samples: samples as u32, coding: packet.coding, position, step_ns, since };
        self.run.begin(header, packet.len, start);
        self.go_on();
    }

    /// Takes a packet by itself.
    fn unexpected(&mut self, header: &TapHeader, payload: &[u8], arrival: i64) -> Taken {
        let Some(table) = self.table_at(arrival) else { return Taken::UnknownPayload };
        let (number, since) = (table.number, table.from);
        let Some(i) = table.meanings.iter().position(|(payload_type, _)| *payload_type == header.payload_type) else {
            return Taken::UnknownPayload;
        };
        let Meaning { coding, rate } = table.meanings[i].1;
        let coding = coding.filter(|_| !payload.is_empty());
        if coding.is_some() && self.named != Some((number, header.payload_type)) {
            self.totals.codec = Some(table.payloads[i].codec.clone());
            self.named = Some((number, header.payload_type));
        }
        self.totals.received += 1;
        let known = match coding {
            Some(_) => self.streams.iter().position(|s| s.ssrc == header.ssrc && s.rate == rate),
            None => self.streams.iter().position(|s| s.ssrc == header.ssrc),
        };
        let i = match (known, coding) {
            (Some(i), _) => i,
            (None, Some(coding)) => self.new_stream(header, rate, coding),
            // Events or noise before any audio: nothing to place, nothing to miss.
            (None, None) => return Taken::Yes,
        };
        let stream = &mut self.streams[i];
        stream.last_arrival = arrival;
        let Some(sequence) = stream.arrivals.note(header.sequence) else {
            self.totals.duplicates += 1;
            return Taken::Yes;
        };
        if let Some(coding) = coding {
            let timestamp = stream.timestamps.extend(header.timestamp);
            self.totals.payload_type = Some(header.payload_type);
            let packet = Packet { timestamp, sequence, coding, len: payload.len() };
            let placed = self.audio(i, packet, payload, arrival);
            if placed && arrival >= since && self.tables.last().is_some_and(|newest| newest.number == number) {
                self.begin_run(i, &packet, header, since);
            }
        }
        Taken::Yes
    }

    /// A packet from before the first table is read with it: the peer began to send before we had decided.
    fn table_at(&self, arrival: i64) -> Option<&Table> {
        let newest = self.tables.last().filter(|table| table.from <= arrival);
        newest.or_else(|| {
            let i = self.tables.partition_point(|table| table.from <= arrival);
            self.tables.get(i.saturating_sub(1))
        })
    }

    fn new_stream(&mut self, header: &TapHeader, rate: u32, coding: Coding) -> usize {
        if self.streams.len() == MAX_STREAMS {
            let oldest = (0..self.streams.len()).min_by_key(|i| self.streams[*i].last_arrival).unwrap_or(0);
            if self.streams[oldest].timeline.anchor() {
                self.place_held(oldest, Held::Place);
            }
            self.lost_before += self.streams.remove(oldest).arrivals.lost();
        }
        if !self.totals.ssrcs.contains(&header.ssrc) && self.totals.ssrcs.len() < MAX_SSRCS {
            self.totals.ssrcs.push(header.ssrc);
        }
        if !self.tracks.iter().any(|track| track.rate() == rate) {
            self.tracks.reserve_exact(1);
            self.tracks.push(Track::new(rate, grid(self.sealed_ns, rate), coding));
        }
        self.streams.reserve_exact(1);
        self.streams.push(Stream::new(self.next_stream, header.ssrc, rate, header.sequence));
        self.next_stream = self.next_stream.wrapping_add(1);
        self.streams.len() - 1
    }

    /// Places a packet or holds it; true when it was placed.
    fn audio(&mut self, i: usize, packet: Packet, payload: &[u8], arrival: i64) -> bool {
        let stream = &mut self.streams[i];
        let verdict = stream.timeline.packet(packet.timestamp, arrival);
        if verdict.held != Held::Keep {
            self.place_held(i, verdict.held);
        }
        if verdict.hold {
            self.streams[i].hold(packet, payload);
        } else {
            self.place(i, &packet, payload);
        }
        !verdict.hold
    }

    /// Places what the stream holds.
    fn place_held(&mut self, i: usize, verdict: Held) {
        if matches!(verdict, Held::PlaceFrom(_)) {
            self.streams[i].offset = None;
        }
        let (packets, bytes, skipped) = self.streams[i].release(verdict);
        self.totals.late += skipped as u64;
        let mut at = 0;
        for packet in packets {
            self.place(i, &packet, &bytes[at..at + packet.len]);
            at += packet.len;
        }
    }

    /// Decodes a packet to its place.
    fn place(&mut self, i: usize, packet: &Packet, payload: &[u8]) {
        let stream = &mut self.streams[i];
        let Some(track) = self.tracks.iter_mut().find(|track| track.rate() == stream.rate) else { return };
        let Some(place) = stream.exact_place(packet.timestamp) else { return };
        let offset = *stream.offset.get_or_insert_with(|| {
            stream.newest = i64::MIN;
            place.round() as i64 - track.shift() - packet.timestamp
        });
        let at = packet.timestamp + offset;
        if packet.timestamp > stream.newest {
            stream.newest = packet.timestamp;
            track.want_shift(place - at as f64);
        }
        let len = packet.coding.samples(payload.len()).min(MAX_SAMPLES);
        let written = track.write(at, len, stream.origin(packet), packet.coding, payload);
        self.totals.late += u64::from(written.late > 0 || written.astray);
        if written.refused {
            // Its hole will be seen as missing samples of a packet that came: say now that it was us.
            let ns = |position: i64| ns_of(position + track.shift(), track.rate());
            let (start_ns, end_ns) = (ns(at), ns(at + len as i64));
            self.missing.push(Missing { start_ns, end_ns, cause: GapCause::DroppedByUs });
        } else if written.late > 0 {
            let ns = |position: i64| ns_of(position + track.shift(), track.rate());
            let (start_ns, end_ns) = (ns(at), ns(at + written.late as i64));
            self.missing.push(Missing { start_ns, end_ns, cause: GapCause::Late });
        }
    }

    /// Seals everything before `until_ns`. What lies before `keep_ns` has been read by every session.
    pub fn advance(&mut self, until_ns: i64, keep_ns: i64, stretch: &Stretch) {
        self.settle();
        for i in 0..self.streams.len() {
            let due = self.streams[i].timeline.tentative_place().is_some_and(|place| place < until_ns + MARGIN_NS);
            if due && self.streams[i].timeline.anchor() {
                self.place_held(i, Held::Place);
            }
        }
        let streams = &self.streams;
        for track in &mut self.tracks {
            let rate = track.rate();
            let missing = |a: Origin, b: Origin| {
                let stream = streams.iter().find(|stream| stream.id == a.stream);
                stream.map_or(0, |stream| stream.arrivals.missing_between(a.sequence, b.sequence))
            };
            track.advance(grid(until_ns, rate), grid(keep_ns, rate), missing, stretch);
            for loss in track.take_losses() {
                let (start_ns, end_ns) = (ns_of(loss.start, rate), ns_of(loss.end, rate));
                let by_us =
                    self.dropped.iter().any(|(from, until)| start_ns < *until && end_ns > *from - DROPPED_BEFORE_NS);
                let cause = if by_us { GapCause::DroppedByUs } else { GapCause::Network };
                self.missing.push(Missing { start_ns, end_ns, cause });
            }
        }
        if self.run.is_on() {
            self.go_on();
        }
        self.sealed_ns = self.sealed_ns.max(until_ns);
        while self.dropped.front().is_some_and(|(_, until)| *until < self.sealed_ns - 20 * DROPPED_BEFORE_NS) {
            self.dropped.pop_front();
        }
    }

    /// Every session has read everything before this instant (ns).
    pub fn have_read(&mut self, until_ns: i64) {
        for track in &mut self.tracks {
            track.have_read(grid(until_ns, track.rate()));
        }
    }

    /// Everything before this instant (ns) is sealed.
    pub fn sealed_ns(&self) -> i64 {
        self.sealed_ns
    }

    /// Takes what has been found missing since the last call.
    pub fn take_missing(&mut self) -> Vec<Missing> {
        std::mem::take(&mut self.missing)
    }

    /// Its samples, one track per audio rate.
    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// How much faster the clock of the stream heard last is than ours, once that is known.
    pub fn clock_skew_ppm(&self) -> Option<f64> {
        self.streams.iter().max_by_key(|stream| stream.last_arrival)?.timeline.skew_ppm()
    }

    /// Counters so far.
    pub fn totals(&self) -> Totals {
        let concealed = |track: &Track| track.concealed() * 1_000_000_000 / u64::from(track.rate());
        Totals {
            lost: self.lost_before + self.streams.iter().map(|stream| stream.arrivals.lost()).sum::<u64>(),
            received: self.totals.received + u64::from(self.run.noted()),
            concealed_ns: self.tracks.iter().map(concealed).sum(),
            clock_skew_ppm: self.clock_skew_ppm(),
            ..self.totals.clone()
        }
    }
}

/// An anchor is taken this much before the first place is sealed.
const MARGIN_NS: i64 = 30_000_000;

/// What a payload type means.
#[derive(Debug, Clone, Copy)]
struct Meaning {
    /// How it is decoded; `None` when it holds no samples for us.
    coding: Option<Coding>,
    /// The RTP clock.
    rate: u32,
}

/// The payload types from some arrival on.
#[derive(Debug)]
struct Table {
    /// That arrival (ns).
    from: i64,
    /// Its name within the leg.
    number: u32,
    payloads: Arc<[Payload]>,
    /// Of each payload, so that no packet compares names.
    meanings: Box<[(u8, Meaning)]>,
}

fn meaning(codec: &Codec) -> Meaning {
    let coding = match codec.kind() {
        Kind::Pcmu => Some(Coding::Ulaw),
        Kind::Pcma => Some(Coding::Alaw),
        Kind::L16 => Some(Coding::Linear),
        Kind::TelephoneEvent | Kind::ComfortNoise | Kind::Other => None,
    };
    Meaning { coding: coding.filter(|_| codec.is_decodable()), rate: codec.clock_rate }
}

/// The grid position at or after an instant, in whole quanta when the instant is one.
pub fn grid(ns: i64, rate: u32) -> i64 {
    debug_assert!(quantum(rate) > 0);
    let (seconds, rest) = (ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000));
    seconds * i64::from(rate) + rest * i64::from(rate) / 1_000_000_000
}

/// The instant of a grid position.
pub fn ns_of(position: i64, rate: u32) -> i64 {
    let rate = i64::from(rate);
    (position / rate).wrapping_mul(1_000_000_000).wrapping_add(position % rate * 1_000_000_000 / rate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::LegId;

    const MS: i64 = 1_000_000;

    fn table(entries: &[(u8, Codec)]) -> Arc<[Payload]> {
        entries
            .iter()
            .map(|(payload_type, codec)| Payload { payload_type: *payload_type, codec: codec.clone() })
            .collect()
    }

    fn header(ssrc: u32, n: u16, payload_type: u8) -> TapHeader {
        TapHeader {
            leg: LegId(1),
            arrival_ns: 1_000_000_000 + u64::from(n) * 20_000_000,
            timestamp: u32::from(n) * 160,
            ssrc,
            sequence: n,
            len: 160,
            payload_type,
            marker: false,
        }
    }

    /// What a leg says of a stretch of local positions.
    fn heard(leg: &Leg, at: i64, len: usize) -> Vec<i16> {
        let mut samples = vec![0; len];
        leg.tracks()[0].read(at, &mut samples);
        samples
    }

    #[test]
    fn a_packet_is_read_with_the_table_that_was_in_force_when_it_arrived() {
        let mut leg = Leg::new(0);
        leg.payloads(0, table(&[(0, Codec::pcmu())]));
        for n in 0..30 {
            assert_eq!(leg.packet(&header(1, n, 0), &[0x80; 160]), Taken::Yes);
        }
        // The number means another codec from 1.3 s on; packets from before come after the table.
        leg.payloads(1_300 * MS, table(&[(0, Codec::pcma())]));
        leg.packet(&header(1, 14, 0), &[0x80; 160]);
        leg.packet(&header(1, 30, 0), &[0x80; 160]);
        leg.advance(2_000 * MS, 0, &Stretch::new());
        assert_eq!(heard(&leg, 8_000 + 14 * 160, 1), [32_124]);
        assert_eq!(heard(&leg, 8_000 + 30 * 160, 1), [5_504]);
        assert_eq!(leg.totals().codec, Some(Codec::pcma()));
    }

    #[test]
    fn an_unknown_payload_type_is_left_for_the_table_that_may_come() {
        let mut leg = Leg::new(0);
        assert_eq!(leg.packet(&header(1, 0, 0), &[0; 160]), Taken::UnknownPayload);
        leg.payloads(0, table(&[(0, Codec::pcmu())]));
        assert_eq!(leg.packet(&header(1, 0, 96), &[0; 160]), Taken::UnknownPayload);
        assert_eq!(leg.totals().received, 0);
    }

    #[test]
    fn codecs_that_cannot_be_decoded_are_counted_and_silent() {
        let mut leg = Leg::new(0);
        leg.payloads(0, table(&[(18, Codec::new("G729", 8_000, 1)), (11, Codec::new("L16", 44_100, 1))]));
        assert_eq!(leg.packet(&header(1, 0, 18), &[0; 20]), Taken::Yes);
        assert_eq!(leg.packet(&header(1, 1, 11), &[0; 20]), Taken::Yes);
        assert!(leg.tracks().is_empty());
        assert_eq!(leg.totals().received, 2);
    }

    #[test]
    fn a_new_ssrc_with_every_packet_costs_bounded_memory_and_no_sample() {
        let mut leg = Leg::new(0);
        leg.payloads(0, table(&[(0, Codec::pcmu())]));
        for n in 0..200 {
            leg.packet(&header(u32::from(n), n, 0), &[0x80; 160]);
            leg.advance(1_000 * MS + i64::from(n) * 20 * MS - 520 * MS, 0, &Stretch::new());
        }
        assert!(leg.streams.len() <= MAX_STREAMS && leg.totals().ssrcs.len() == MAX_SSRCS);
        assert_eq!(leg.totals().late, 0);
        assert_eq!(heard(&leg, 8_000 + 160 * 160, 160), [32_124; 160]);
    }

    #[test]
    fn dropped_stretches_merge_and_stay_bounded() {
        let mut leg = Leg::new(0);
        leg.dropped(0, 10);
        leg.dropped(5, 20);
        assert_eq!(leg.dropped, [(0, 20)]);
        for i in 1..100 {
            leg.dropped(i * 100, i * 100 + 1);
        }
        assert_eq!(leg.dropped.len(), MAX_DROPPED);
        assert_eq!(leg.dropped.front().map(|(from, _)| *from), Some(0));
    }

    #[test]
    fn an_empty_or_overlong_payload_does_no_harm() {
        let mut leg = Leg::new(0);
        leg.payloads(0, table(&[(0, Codec::pcmu())]));
        leg.packet(&header(1, 0, 0), &[]);
        for n in 1..40 {
            leg.packet(&header(1, n, 0), &[0x80; 9_000]);
        }
        leg.advance(1_500 * MS, 0, &Stretch::new());
        assert_eq!(heard(&leg, 8_000 + 160, 1), [32_124]);
    }
}
