//! What a line hears: every packet with its instant, and what a test asks of them.
//!
//! RTP is read by hand here, so that a test does not check the product's RTP code with itself.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::audio::g711;
use crate::codec::{Codec, Kind, Payload};
use crate::testing::network::Datagram;
use crate::testing::tones::{self, SILENCE_DBFS};

/// Most packets that a line keeps; later ones are only counted.
pub const MAX_HEARD: usize = 500_000;
/// How long after a call packets may still be on their way.
const LATE: Duration = Duration::from_millis(500);
/// How long a packet may wait for those before it: jitter, not a new beginning.
const JITTER: Duration = Duration::from_millis(200);
/// How far timestamp and arrival may disagree about a pause.
const PAUSE_TOLERANCE: Duration = Duration::from_millis(100);
/// The length over which levels are measured.
const WINDOW: Duration = Duration::from_millis(100);
/// The loudest sample of silence: −60 dBFS. A-law has no zero, its least is 8.
const SILENT: u16 = 32;

/// One packet that was received.
#[derive(Debug, Clone, PartialEq)]
pub struct Packet {
    /// When it came.
    pub at: Instant,
    /// From where.
    pub from: SocketAddr,
    /// RTP sequence number.
    pub sequence: u16,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Source.
    pub ssrc: u32,
    /// Payload type.
    pub payload_type: u8,
    /// Marker bit.
    pub marker: bool,
    /// True when it came from an address that no description of the peer has named in this call.
    pub is_foreign: bool,
    /// The codec that was negotiated for the payload type; `None`: not negotiated.
    pub codec: Option<Codec>,
    /// The decoded samples; none for events and comfort noise.
    pub samples: Vec<i16>,
    /// The payload as it came.
    pub payload: Bytes,
}

/// Everything that a line has heard.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// The packets in order of arrival, at most [`MAX_HEARD`].
    pub packets: Vec<Packet>,
    /// Packets beyond that.
    pub uncounted: u64,
    /// Datagrams on the RTP port that are not RTP of version 2.
    pub not_rtp: u64,
    /// Packets that came without a call, or more than 500 ms after its end.
    pub strays: u64,
    payloads: Vec<Payload>,
    /// Where the peer's descriptions in this call wanted RTP: it sends from there.
    peers: Vec<SocketAddr>,
    is_in_call: bool,
    ended: Option<Instant>,
    /// The first packet of the last call, and the strays before it.
    call: (usize, u64),
}

/// What a line received in its last call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamReport {
    /// Packets.
    pub packets: usize,
    /// SSRCs in order of appearance.
    pub sources: Vec<u32>,
    /// Payload types in order of appearance.
    pub payload_types: Vec<u8>,
    /// Sequence numbers that never came, between the first and the last of each source.
    pub lost: u64,
    /// Packets that came more than once.
    pub duplicates: u64,
    /// Packets that came after a later one of their source.
    pub reordered: u64,
    /// Sound whose timestamp goes on neither by the packets between nor, within 100 ms, by the time between.
    pub timestamp_jumps: u64,
    /// Packets with a payload type that was not negotiated.
    pub unknown: u64,
    /// Packets from an address that no description of the peer named.
    pub foreign: u64,
    /// Packets that came more than 500 ms after the call's end.
    pub strays: u64,
    /// The longest time without a packet, between the first and the last.
    pub longest_gap: Duration,
}

/// Whether a stream went on without a break.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Continuity {
    /// Packets.
    pub packets: usize,
    /// Different SSRCs, in order of appearance.
    pub sources: Vec<u32>,
    /// Payload types, in order of appearance.
    pub payload_types: Vec<u8>,
    /// Packets missing by sequence number.
    pub missing: u64,
    /// Packets whose sequence number is not after the one before.
    pub backwards: u64,
    /// Timestamps that go back although the sequence goes on (within one SSRC).
    pub timestamp_backwards: u64,
    /// Steps of the timestamp that are not the length of the packets between, on sound without a marker.
    pub timestamp_steps: u64,
    /// Packets with a payload type that was not negotiated.
    pub unknown: u64,
}

impl Heard {
    /// A call begins.
    pub(super) fn begin(&mut self) {
        self.peers.clear();
        self.payloads.clear();
        self.is_in_call = true;
        self.call = (self.packets.len(), self.strays);
    }

    /// The call is over.
    pub(super) fn end(&mut self, now: Instant) {
        if self.is_in_call {
            self.ended = Some(now);
        }
        self.is_in_call = false;
    }

    /// What the peer may send besides.
    pub(super) fn expect(&mut self, payloads: impl Iterator<Item = Payload>) {
        for payload in payloads {
            if self.payloads.iter().all(|known| known.payload_type != payload.payload_type) {
                self.payloads.push(payload);
            }
        }
    }

    /// What the peer may send, and from where.
    pub(super) fn set_peer(&mut self, payloads: &[Payload], from: Option<SocketAddr>) {
        self.payloads = payloads.to_vec();
        if let Some(from) = from.filter(|from| !self.peers.contains(from)) {
            self.peers.push(from);
        }
    }

    pub(super) fn receive(&mut self, datagram: &Datagram, now: Instant) {
        let bytes = &datagram.bytes;
        if bytes.len() < 12 || bytes[0] >> 6 != 2 {
            self.not_rtp += 1;
            return;
        }
        let is_late = self.ended.is_some_and(|ended| now <= ended + LATE);
        self.strays += u64::from(!self.is_in_call && !is_late);
        if self.packets.len() >= MAX_HEARD {
            self.uncounted += 1;
            return;
        }
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let payload_type = bytes[1] & 0x7f;
        let codec = self.payloads.iter().find(|payload| payload.payload_type == payload_type);
        let start = (12 + 4 * usize::from(bytes[0] & 0x0f)).min(bytes.len());
        let payload = bytes.slice(start..);
        self.packets.push(Packet {
            at: now,
            from: datagram.from,
            sequence: u16::from_be_bytes([bytes[2], bytes[3]]),
            timestamp: word(4),
            ssrc: word(8),
            payload_type,
            marker: bytes[1] & 0x80 != 0,
            // Before there is a description of the peer, nobody has said where its packets come from.
            is_foreign: !self.peers.is_empty() && !self.peers.contains(&datagram.from),
            samples: codec.map(|known| decode(&known.codec, &payload)).unwrap_or_default(),
            codec: codec.map(|known| known.codec.clone()),
            payload,
        });
    }

    /// Whether what came is one stream without a break.
    pub fn continuity(&self) -> Continuity {
        let mut result = Continuity { packets: self.packets.len(), ..Continuity::default() };
        for (index, packet) in self.packets.iter().enumerate() {
            if !result.sources.contains(&packet.ssrc) {
                result.sources.push(packet.ssrc);
            }
            if !result.payload_types.contains(&packet.payload_type) {
                result.payload_types.push(packet.payload_type);
            }
            result.unknown += u64::from(packet.codec.is_none());
            let Some(before) = index.checked_sub(1).map(|i| &self.packets[i]).filter(|p| p.ssrc == packet.ssrc) else {
                continue;
            };
            let step = packet.sequence.wrapping_sub(before.sequence);
            if step == 0 || step > 0x8000 {
                result.backwards += 1;
                continue;
            }
            result.missing += u64::from(step - 1);
            let time = packet.timestamp.wrapping_sub(before.timestamp);
            let sound = !packet.samples.is_empty() && !before.samples.is_empty();
            if time > 0x8000_0000 {
                result.timestamp_backwards += 1;
            } else if sound && !packet.marker && time != u32::from(step) * before.samples.len() as u32 {
                result.timestamp_steps += 1;
            }
        }
        result
    }

    /// What came in the last call.
    pub fn report(&self) -> StreamReport {
        let packets = &self.packets[self.call.0..];
        let mut report =
            StreamReport { packets: packets.len(), strays: self.strays - self.call.1, ..StreamReport::default() };
        for pair in packets.windows(2) {
            report.longest_gap = report.longest_gap.max(pair[1].at.saturating_duration_since(pair[0].at));
        }
        for packet in packets {
            report.unknown += u64::from(packet.codec.is_none());
            report.foreign += u64::from(packet.is_foreign);
            if !report.sources.contains(&packet.ssrc) {
                report.sources.push(packet.ssrc);
            }
            if !report.payload_types.contains(&packet.payload_type) {
                report.payload_types.push(packet.payload_type);
            }
        }
        for ssrc in report.sources.clone() {
            report.add_source(packets.iter().filter(|packet| packet.ssrc == ssrc));
        }
        report
    }

    /// The packets that came within a time.
    pub fn between(&self, from: Instant, to: Instant) -> &[Packet] {
        let place = |at: Instant| self.packets.partition_point(|packet| packet.at < at);
        &self.packets[place(from)..place(to).max(place(from))]
    }

    /// Mean level of a tone, in dBFS: the mean of its power in windows of 100 ms. What did not come is silence.
    pub fn level(&self, hz: f64, from: Instant, to: Instant) -> f64 {
        let levels = self.levels(hz, from, to);
        let power: f64 = levels.iter().map(|level| 10f64.powf(level / 10.0)).sum();
        (10.0 * (power / levels.len().max(1) as f64).log10()).max(SILENCE_DBFS)
    }

    /// Level of a tone in the window of 100 ms in which it is loudest, in dBFS: low when it is absent throughout.
    pub fn highest_level(&self, hz: f64, from: Instant, to: Instant) -> f64 {
        self.levels(hz, from, to).into_iter().fold(SILENCE_DBFS, f64::max)
    }

    /// Level of a tone in the window of 100 ms in which it is quietest, in dBFS: high when it is present throughout.
    pub fn lowest_level(&self, hz: f64, from: Instant, to: Instant) -> f64 {
        self.levels(hz, from, to).into_iter().reduce(f64::min).unwrap_or(SILENCE_DBFS)
    }

    /// True when no sample within a time is over −60 dBFS.
    pub fn is_silent(&self, from: Instant, to: Instant) -> bool {
        self.played(from, to).0.iter().all(|sample| sample.unsigned_abs() <= SILENT)
    }

    /// Level of a tone in every window of 100 ms; the last one takes the rest too.
    pub fn levels(&self, hz: f64, from: Instant, to: Instant) -> Vec<f64> {
        let (windows, rate) = self.windows(from, to);
        windows.iter().map(|window| tones::tone_level(window, rate, hz)).collect()
    }

    fn windows(&self, from: Instant, to: Instant) -> (Vec<Vec<i16>>, u32) {
        let (samples, rate) = self.played(from, to);
        let length = (WINDOW.as_secs_f64() * f64::from(rate)) as usize;
        let count = (samples.len() / length).max(1);
        let window = |index: usize| {
            let end = if index + 1 == count { samples.len() } else { (index + 1) * length };
            samples[index * length..end].to_vec()
        };
        ((0..count).map(window).collect(), rate)
    }

    /// What came out of the loudspeaker within a time, and its rate: a packet is played when it comes, or right after
    /// the one before it where its timestamp says so. What did not come is zeros.
    pub fn played(&self, from: Instant, to: Instant) -> (Vec<i16>, u32) {
        // A packet that came before may last into it.
        let before = from.checked_sub(2 * JITTER).unwrap_or(from);
        let packets = || self.between(before, to).iter().filter(|packet| !packet.samples.is_empty());
        let clock = |packet: &Packet| packet.codec.as_ref().map_or(8_000, |codec| codec.clock_rate);
        let rate = packets().next().map_or(8_000, clock);
        let seconds = |time: Duration| (time.as_secs_f64() * f64::from(rate)).round() as i64;
        let mut result = vec![0; seconds(to.saturating_duration_since(from)) as usize];
        let mut next: Option<(u32, u32, i64)> = None;
        for packet in packets() {
            let came = match packet.at.checked_duration_since(from) {
                Some(after) => seconds(after),
                None => -seconds(from.saturating_duration_since(packet.at)),
            };
            let start = match next {
                Some((ssrc, timestamp, place))
                    if (ssrc, timestamp) == (packet.ssrc, packet.timestamp)
                        && (came..=came + seconds(JITTER)).contains(&place) =>
                {
                    place
                }
                _ => came,
            };
            let own = clock(packet);
            let length = packet.samples.len() as i64 * i64::from(rate) / i64::from(own);
            for offset in 0..length {
                let sample = packet.samples.get((offset * i64::from(own) / i64::from(rate)) as usize);
                let place = usize::try_from(start + offset).ok().and_then(|place| result.get_mut(place));
                if let (Some(sample), Some(place)) = (sample, place) {
                    *place = *sample;
                }
            }
            next = Some((packet.ssrc, packet.timestamp.wrapping_add(packet.samples.len() as u32), start + length));
        }
        (result, rate)
    }

    /// What was heard as samples at `rate` (the clock of the codec in use) from `origin` on: each SSRC begins where its
    /// first packet came, later packets stand by their timestamp.
    pub fn samples(&self, origin: Instant, rate: u32) -> Vec<i16> {
        let mut result: Vec<i16> = Vec::new();
        let mut anchors: Vec<(u32, u32, usize)> = Vec::new();
        for packet in self.packets.iter().filter(|packet| !packet.samples.is_empty()) {
            let anchor = anchors.iter().find(|(ssrc, _, _)| *ssrc == packet.ssrc).copied().unwrap_or_else(|| {
                let at = packet.at.saturating_duration_since(origin).as_secs_f64() * f64::from(rate);
                let anchor = (packet.ssrc, packet.timestamp, at.round() as usize);
                anchors.push(anchor);
                anchor
            });
            let offset = packet.timestamp.wrapping_sub(anchor.1) as i32;
            let Ok(start) = usize::try_from(anchor.2 as i64 + i64::from(offset)) else {
                continue;
            };
            let end = start + packet.samples.len();
            // An hour and more ahead is a jumped timestamp, not sound.
            if end > result.len() + 3_600 * rate as usize {
                continue;
            }
            result.resize(result.len().max(end), 0);
            result[start..end].copy_from_slice(&packet.samples);
        }
        result
    }

    /// The key presses that were heard (RFC 4733), each once.
    pub fn keys(&self) -> String {
        let mut presses: Vec<(u32, u32)> = Vec::new();
        let mut keys = String::new();
        let events = |packet: &&Packet| packet.codec.as_ref().is_some_and(|c| c.kind() == Kind::TelephoneEvent);
        for packet in self.packets.iter().filter(events) {
            let press = (packet.ssrc, packet.timestamp);
            if presses.contains(&press) {
                continue;
            }
            presses.push(press);
            let key = packet.payload.first().and_then(|event| b"0123456789*#ABCD".get(usize::from(*event)));
            keys.extend(key.map(|key| char::from(*key)));
        }
        keys
    }
}

impl StreamReport {
    /// True for one stream without a break, from where it should come and nothing after the end.
    pub fn is_unbroken(&self) -> bool {
        let broken = self.lost + self.timestamp_jumps + self.unknown + self.foreign + self.strays;
        self.sources.len() == 1 && broken == 0
    }

    fn add_source<'a>(&mut self, packets: impl Iterator<Item = &'a Packet>) {
        let mut seen = BTreeSet::new();
        let mut highest: Option<i64> = None;
        let mut sound: Option<&Packet> = None;
        for packet in packets {
            // Counted on from the highest one: 16 bits wrap every 22 minutes.
            let place = highest.map_or(i64::from(packet.sequence), |highest| {
                highest + i64::from(packet.sequence.wrapping_sub(highest as u16) as i16)
            });
            self.duplicates += u64::from(!seen.insert(place));
            if highest.is_some_and(|highest| place <= highest) {
                self.reordered += u64::from(highest.is_some_and(|highest| place < highest));
                continue;
            }
            highest = Some(place);
            if packet.samples.is_empty() {
                continue;
            }
            self.timestamp_jumps += u64::from(sound.is_some_and(|before| is_jump(before, packet)));
            sound = Some(packet);
        }
        if let (Some(first), Some(last)) = (seen.first(), seen.last()) {
            self.lost += (last - first + 1) as u64 - seen.len() as u64;
        }
    }
}

fn is_jump(before: &Packet, packet: &Packet) -> bool {
    let clock = |packet: &Packet| packet.codec.as_ref().map_or(8_000, |codec| codec.clock_rate);
    if clock(before) != clock(packet) {
        return false;
    }
    let step = packet.timestamp.wrapping_sub(before.timestamp) as i32;
    let between = u32::from(packet.sequence.wrapping_sub(before.sequence)) * before.samples.len() as u32;
    let elapsed = packet.at.saturating_duration_since(before.at).as_secs_f64();
    let off = f64::from(step) / f64::from(clock(packet)) - elapsed;
    i64::from(step) != i64::from(between) && off.abs() > PAUSE_TOLERANCE.as_secs_f64()
}

fn decode(codec: &Codec, bytes: &[u8]) -> Vec<i16> {
    let mut samples = vec![0; bytes.len()];
    match codec.kind() {
        Kind::Pcmu => g711::decode_ulaw(bytes, &mut samples),
        Kind::Pcma => g711::decode_alaw(bytes, &mut samples),
        Kind::L16 => samples = bytes.chunks_exact(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]])).collect(),
        _ => samples.clear(),
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "10.0.0.1:4000";

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A listener to whom packets of 20 ms come: (when in ms, sequence, timestamp, SSRC).
    fn listen(start: Instant, packets: &[(u64, u16, u32, u32)]) -> Heard {
        let mut heard = Heard::default();
        heard.begin();
        let payload = |payload_type, codec| Payload { payload_type, codec };
        let known = [payload(0, Codec::pcmu()), payload(101, Codec::telephone_event())];
        heard.set_peer(&known, Some(PEER.parse().unwrap()));
        for (at, sequence, timestamp, ssrc) in packets {
            heard.receive(&datagram(0, *sequence, *timestamp, *ssrc), start + ms(*at));
        }
        heard
    }

    fn datagram(payload_type: u8, sequence: u16, timestamp: u32, ssrc: u32) -> Datagram {
        let mut bytes = vec![0x80, payload_type];
        bytes.extend(sequence.to_be_bytes());
        bytes.extend(timestamp.to_be_bytes());
        bytes.extend(ssrc.to_be_bytes());
        // About −5 dBFS.
        bytes.extend([0x90; 160]);
        Datagram { from: PEER.parse().unwrap(), to: PEER.parse().unwrap(), bytes: bytes.into() }
    }

    /// Whole numbers of packets after a beginning shortly before all counters wrap.
    fn in_step(numbers: &[u16]) -> Vec<(u64, u16, u32, u32)> {
        let place =
            |n: &u16| (u64::from(*n) * 20, n.wrapping_add(u16::MAX - 1), (u32::from(*n) * 160).wrapping_sub(320), 7);
        numbers.iter().map(place).collect()
    }

    #[test]
    fn a_stream_that_goes_on_is_unbroken_also_where_counters_wrap() {
        let heard = listen(crate::clock::now(), &in_step(&[0, 1, 2, 3, 4, 5]));
        let report = heard.report();
        assert!(report.is_unbroken(), "{report:?}");
        assert_eq!((report.packets, report.longest_gap), (6, ms(20)));
        assert_eq!((&report.sources[..], &report.payload_types[..]), (&[7][..], &[0][..]));
    }

    #[test]
    fn loss_repeats_and_disorder_are_told_apart() {
        let start = crate::clock::now();
        let told = |numbers: &[u16]| {
            let mut packets = in_step(numbers);
            // They come in this order, whatever their place.
            for (n, packet) in packets.iter_mut().enumerate() {
                packet.0 = n as u64 * 20;
            }
            let report = listen(start, &packets).report();
            (report.lost, report.duplicates, report.reordered, report.timestamp_jumps, report.is_unbroken())
        };
        assert_eq!(told(&[0, 1, 4, 5]), (2, 0, 0, 0, false));
        assert_eq!(told(&[0, 1, 1, 2]), (0, 1, 0, 0, true));
        assert_eq!(told(&[0, 2, 1, 3]), (0, 0, 1, 0, true));
        assert_eq!(told(&[1, 0, 2, 2, 5]), (2, 1, 1, 0, false), "the first one is not the least");
    }

    #[test]
    fn a_timestamp_jumps_when_neither_packets_nor_time_explain_it() {
        let start = crate::clock::now();
        let jumps = |packets: &[(u64, u16, u32, u32)]| listen(start, packets).report().timestamp_jumps;
        assert_eq!(jumps(&[(0, 1, 0, 7), (20, 2, 160, 7), (1_020, 3, 8_160, 7)]), 0, "a pause of a second");
        assert_eq!(jumps(&[(0, 1, 0, 7), (1_020, 2, 160, 7)]), 0, "a stall of a second");
        assert_eq!(jumps(&[(0, 1, 0, 7), (20, 2, 8_160, 7), (40, 3, 8_320, 7)]), 1);
        assert_eq!(jumps(&[(0, 1, 8_000, 7), (20, 2, 0, 7)]), 1, "backwards");
        assert_eq!(jumps(&[(0, 1, 0, 7), (20, 1, 90_000, 8), (40, 2, 90_160, 8)]), 0, "another source");
    }

    #[test]
    fn sources_unknown_payloads_and_strangers_are_counted() {
        let start = crate::clock::now();
        let mut heard = listen(start, &[(0, 1, 0, 7), (20, 1, 90_000, 8)]);
        assert_eq!(heard.report().sources, [7, 8]);
        assert!(!heard.report().is_unbroken());
        heard.receive(&datagram(9, 2, 90_160, 8), start + ms(40));
        heard.receive(&Datagram { from: "10.0.0.9:4".parse().unwrap(), ..datagram(0, 3, 90_320, 8) }, start + ms(60));
        assert_eq!((heard.report().unknown, heard.report().foreign), (1, 1));
        heard.end(start + ms(100));
        heard.receive(&datagram(0, 4, 90_480, 8), start + ms(600));
        heard.receive(&datagram(0, 5, 90_640, 8), start + ms(601));
        assert_eq!((heard.report().strays, heard.strays), (1, 1));
        heard.begin();
        assert_eq!(heard.report(), StreamReport::default());
    }

    #[test]
    fn packets_are_played_when_they_come_one_after_the_other_and_a_pause_is_silence() {
        let start = crate::clock::now();
        let heard = listen(start, &[(0, 1, 0, 7), (70, 2, 160, 7), (75, 3, 320, 7), (500, 4, 4_000, 7)]);
        let (samples, rate) = heard.played(start, start + ms(1_000));
        assert_eq!((samples.len(), rate), (8_000, 8_000));
        let on: Vec<usize> = (0..8_000).filter(|place| samples[*place] != 0).collect();
        let expected: Vec<usize> = (0..160).chain(560..880).chain(4_000..4_160).collect();
        assert_eq!(on, expected);
        assert!(heard.is_silent(start + ms(110), start + ms(500)));
        assert!(!heard.is_silent(start + ms(110), start + ms(501)), "the last one has begun");
        assert!(!heard.is_silent(start + ms(80), start + ms(85)), "the packets that came before it last");
        assert!(heard.is_silent(start + ms(50), start + ms(60)), "nobody hears what has not come");
        assert_eq!(heard.between(start + ms(70), start + ms(75)).len(), 1);
        assert_eq!(heard.level(0.0, start, start), SILENCE_DBFS);
        assert_eq!(heard.levels(0.0, start, start + ms(99)).len(), 1);
        assert_eq!(heard.levels(0.0, start, start + ms(299)).len(), 2);
    }
}
