//! A phone's sound: packets out on a clock of its own with faults on request, packets in with a record of everything.
//!
//! RTP is written and read by hand here, so that a test does not check the product's RTP code with itself.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::audio::g711;
use crate::codec::{Codec, Kind, Payload};
use crate::sdp::Negotiated;
use crate::testing::network::{Datagram, Link, Path};
use crate::testing::tones::Voice;

/// Most packets that a phone keeps; later ones are only counted.
pub const MAX_HEARD: usize = 500_000;
/// Length of a key press in packets of 20 ms.
const PRESS_PACKETS: u32 = 8;

/// A stretch of sound that was said, by the sender's clock: the instant at which its first sample's packet is due plus
/// the sample's place in it. [`Voice::is_on`] decides what counts as sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spoken {
    /// Its beginning.
    pub start: Instant,
    /// Its end; `None` while it goes on.
    pub end: Option<Instant>,
}

/// Where and how packets go.
#[derive(Debug, Clone, PartialEq)]
struct Target {
    to: SocketAddr,
    sound: Payload,
    event: Option<Payload>,
    /// False while held: the clock runs on, nothing is sent.
    sends: bool,
    ptime: Duration,
}

/// A key press under way.
#[derive(Debug, Clone, Copy)]
struct Press {
    event: u8,
    timestamp: u32,
    packets: u32,
}

/// Sends what a party says.
pub(super) struct Sender {
    from: SocketAddr,
    voice: Voice,
    position: u64,
    target: Option<Target>,
    next: Option<Instant>,
    rng: StdRng,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    /// The next packet begins a talkspurt.
    marker: bool,
    press: Option<Press>,
    pub(super) dtx: bool,
    pub(super) faults: Link,
    pub(super) skew_ppm: f64,
    pub(super) stalled_until: Option<Instant>,
    path: Path,
    pub(super) sent: u64,
    pub(super) spoken: Vec<Spoken>,
}

impl Sender {
    pub(super) fn new(from: SocketAddr, voice: Voice, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        Self {
            from,
            voice,
            position: 0,
            target: None,
            next: None,
            ssrc: rng.random(),
            sequence: rng.random(),
            timestamp: rng.random(),
            path: Path::new(rng.random()),
            rng,
            marker: true,
            press: None,
            dtx: false,
            faults: Link::IDEAL,
            skew_ppm: 0.0,
            stalled_until: None,
            sent: 0,
            spoken: Vec::new(),
        }
    }

    /// Follows what was negotiated; `None` stops.
    pub(super) fn set_target(&mut self, negotiated: Option<&Negotiated>, now: Instant) {
        let target = negotiated.and_then(|negotiated| {
            let sound = negotiated.send.iter().find(|payload| payload.codec.is_decodable())?;
            let event = negotiated.send.iter().find(|payload| {
                payload.codec.kind() == Kind::TelephoneEvent && payload.codec.clock_rate == sound.codec.clock_rate
            });
            Some(Target {
                // The null address takes nothing; the place of the peer is then of no matter.
                to: negotiated.rtp.unwrap_or(self.from),
                sound: sound.clone(),
                event: event.cloned(),
                sends: negotiated.direction.sends() && negotiated.rtp.is_some(),
                ptime: Duration::from_millis(u64::from(negotiated.ptime_ms)),
            })
        });
        if target.is_none() {
            self.close_stretch(now);
            self.next = None;
        } else if self.next.is_none() {
            self.next = Some(now);
            self.marker = true;
        }
        self.target = target;
    }

    /// Says something else from the next packet on.
    pub(super) fn speak(&mut self, voice: Voice) {
        self.voice = voice;
        self.position = 0;
    }

    pub(super) fn press(&mut self, key: char) -> bool {
        let event = match key.to_ascii_uppercase() {
            digit @ '0'..='9' => digit as u8 - b'0',
            '*' => 10,
            '#' => 11,
            letter @ 'A'..='D' => letter as u8 - b'A' + 12,
            _ => return false,
        };
        let possible = self.press.is_none() && self.target.as_ref().is_some_and(|target| target.event.is_some());
        if possible {
            self.press = Some(Press { event, timestamp: self.timestamp, packets: 0 });
        }
        possible
    }

    pub(super) fn new_source(&mut self) {
        self.ssrc = self.rng.random();
        self.sequence = self.rng.random();
        self.timestamp = self.rng.random();
        self.marker = true;
    }

    pub(super) fn jump_timestamp(&mut self, by: u32) {
        self.timestamp = self.timestamp.wrapping_add(by);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.next, self.path.next_arrival()].into_iter().flatten().min()
    }

    /// Makes the packets that are due and puts them on the access line.
    pub(super) fn timeout(&mut self, now: Instant) {
        while let Some(due) = self.next.filter(|due| *due <= now) {
            let Some(target) = self.target.clone() else {
                return;
            };
            self.frame(&target, due);
            // A fast sound clock makes packets early.
            self.next = Some(due + target.ptime.mul_f64(1.0 / (1.0 + self.skew_ppm / 1e6)));
        }
    }

    /// The next packet that has left the access line.
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<Datagram> {
        self.path.receive(now)
    }

    fn frame(&mut self, target: &Target, due: Instant) {
        let rate = target.sound.codec.clock_rate;
        let length = (target.ptime.as_secs_f64() * f64::from(rate)).round() as usize;
        let mut samples = vec![0; length];
        self.voice.fill(self.position, rate, &mut samples);
        let on = self.log_stretches(due, rate, length, target.sends);
        self.position += length as u64;
        if !target.sends {
            self.marker = true;
            self.press = None;
        } else if let (Some(press), Some(event)) = (self.press, &target.event) {
            self.send_event(target, event.payload_type, press, length as u32, due);
        } else if on || !self.dtx {
            let body = encode(&target.sound.codec, &samples);
            self.send(target.to, target.sound.payload_type, self.timestamp, &body, due);
            self.marker = false;
        } else {
            self.marker = true;
        }
        self.timestamp = self.timestamp.wrapping_add(length as u32);
    }

    /// One of the packets of a key press; the last is sent three times (RFC 4733 §2.5.1.4).
    fn send_event(&mut self, target: &Target, payload_type: u8, press: Press, length: u32, due: Instant) {
        let packets = press.packets + 1;
        let duration = (packets * length).min(u32::from(u16::MAX)) as u16;
        let last = packets == PRESS_PACKETS;
        let flags = if last { 0x80 | 10 } else { 10 };
        let body = [press.event, flags, (duration >> 8) as u8, duration as u8];
        // All packets of one press carry the timestamp of its beginning, the first one the marker.
        self.marker = press.packets == 0;
        for _ in 0..if last { 3 } else { 1 } {
            self.send(target.to, payload_type, press.timestamp, &body, due);
        }
        self.press = (!last).then_some(Press { packets, ..press });
        self.marker = last;
    }

    fn send(&mut self, to: SocketAddr, payload_type: u8, timestamp: u32, body: &[u8], due: Instant) {
        let mut bytes = Vec::with_capacity(12 + body.len());
        bytes.extend([0x80, payload_type | if self.marker { 0x80 } else { 0 }]);
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(timestamp.to_be_bytes());
        bytes.extend(self.ssrc.to_be_bytes());
        bytes.extend(body);
        self.sequence = self.sequence.wrapping_add(1);
        let leaves = self.stalled_until.map_or(due, |until| until.max(due));
        self.sent += 1;
        self.path.send(Datagram { from: self.from, to, bytes: bytes.into() }, &self.faults, leaves);
    }

    /// Notes where sound begins and ends in a frame; true when the frame has any.
    fn log_stretches(&mut self, due: Instant, rate: u32, length: usize, sends: bool) -> bool {
        let mut any = false;
        for offset in 0..length {
            let on = sends && self.voice.is_on(self.position + offset as u64, rate);
            any |= on;
            let open = self.spoken.last().is_some_and(|spoken| spoken.end.is_none());
            let at = due + Duration::from_secs_f64(offset as f64 / f64::from(rate));
            match (open, on) {
                (false, true) => self.spoken.push(Spoken { start: at, end: None }),
                (true, false) => self.close_stretch(at),
                _ => {}
            }
        }
        any
    }

    fn close_stretch(&mut self, at: Instant) {
        if let Some(open) = self.spoken.last_mut().filter(|spoken| spoken.end.is_none()) {
            open.end = Some(at);
        }
    }
}

fn encode(codec: &Codec, samples: &[i16]) -> Vec<u8> {
    let mut bytes = vec![0; samples.len()];
    match codec.kind() {
        Kind::Pcma => g711::encode_alaw(samples, &mut bytes),
        Kind::L16 => bytes = samples.iter().flat_map(|sample| sample.to_be_bytes()).collect(),
        _ => g711::encode_ulaw(samples, &mut bytes),
    }
    bytes
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
    /// The codec that was negotiated for the payload type; `None`: not negotiated.
    pub codec: Option<Codec>,
    /// The decoded samples; none for events and comfort noise.
    pub samples: Vec<i16>,
    /// The payload as it came.
    pub payload: Bytes,
}

/// Everything that a phone has heard.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// The packets in order of arrival, at most [`MAX_HEARD`].
    pub packets: Vec<Packet>,
    /// Packets beyond that.
    pub uncounted: u64,
    /// Datagrams on the RTP port that are not RTP of version 2.
    pub not_rtp: u64,
    payloads: Vec<Payload>,
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
    pub(super) fn set_payloads(&mut self, payloads: &[Payload]) {
        self.payloads = payloads.to_vec();
    }

    pub(super) fn receive(&mut self, datagram: &Datagram, now: Instant) {
        let bytes = &datagram.bytes;
        if bytes.len() < 12 || bytes[0] >> 6 != 2 {
            self.not_rtp += 1;
            return;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Direction;
    use crate::testing::tones;

    const FROM: &str = "10.0.0.1:4000";
    const TO: &str = "10.0.0.2:5000";

    fn negotiated(codec: Codec, direction: Direction) -> Negotiated {
        let payloads =
            vec![Payload { payload_type: 97, codec }, Payload { payload_type: 101, codec: Codec::telephone_event() }];
        Negotiated {
            rtp: Some(TO.parse().unwrap()),
            rtcp: None,
            rtcp_mux: false,
            receive: payloads.clone(),
            send: payloads,
            direction,
            ptime_ms: 20,
        }
    }

    fn bursts() -> Voice {
        let (on, off) = (Duration::from_millis(200), Duration::from_millis(300));
        Voice::Bursts { hz: 700.0, dbfs: -15.0, on, off }
    }

    /// Runs a sender for a while, with a change at times; what a listener with the same payloads has heard.
    fn run(
        sender: &mut Sender,
        codec: Codec,
        start: Instant,
        time: Duration,
        mut change: impl FnMut(&mut Sender, Duration),
    ) -> Heard {
        let mut heard = Heard::default();
        let talk = negotiated(codec, Direction::SendRecv);
        heard.set_payloads(&talk.receive);
        sender.set_target(Some(&talk), start);
        while let Some(now) = sender.poll_timeout().filter(|now| *now < start + time) {
            change(sender, now - start);
            sender.timeout(now);
            while let Some(packet) = sender.poll_transmit(now) {
                heard.receive(&packet, now);
            }
        }
        heard
    }

    fn sender(voice: Voice) -> Sender {
        Sender::new(FROM.parse().unwrap(), voice, 3)
    }

    #[test]
    fn what_is_said_is_heard_in_every_codec_where_the_log_says() {
        for codec in [Codec::pcmu(), Codec::pcma(), Codec::new("L16", 8_000, 1), Codec::new("L16", 16_000, 1)] {
            let start = crate::clock::now();
            let mut sender = sender(bursts());
            let rate = codec.clock_rate;
            let heard = run(&mut sender, codec, start, Duration::from_secs(2), |_, _| {});
            let continuity = heard.continuity();
            assert_eq!((continuity.packets, continuity.sources.len(), continuity.missing), (100, 1, 0));
            assert_eq!((continuity.timestamp_steps, continuity.unknown, continuity.backwards), (0, 0, 0));
            let found = tones::bursts(&heard.samples(start, rate), rate, 700.0, -30.0);
            assert_eq!(found.len(), sender.spoken.len());
            for (burst, spoken) in found.iter().zip(&sender.spoken) {
                let said = (spoken.start - start).as_secs_f64();
                assert!((burst.start as f64 / f64::from(rate) - said).abs() < 0.001, "{burst:?} {said}");
            }
        }
    }

    #[test]
    fn a_held_sender_is_silent_and_its_clock_runs_on() {
        let start = crate::clock::now();
        let mut sender = sender(Voice::Tone { hz: 700.0, dbfs: -15.0 });
        let hold = negotiated(Codec::pcmu(), Direction::RecvOnly);
        let talk = negotiated(Codec::pcmu(), Direction::SendRecv);
        let heard = run(&mut sender, Codec::pcmu(), start, Duration::from_secs(3), |sender, at| match at.as_millis() {
            1_000 => sender.set_target(Some(&hold), start + at),
            2_000 => sender.set_target(Some(&talk), start + at),
            _ => {}
        });
        let continuity = heard.continuity();
        assert_eq!((continuity.packets, continuity.missing, continuity.timestamp_backwards), (100, 0, 0));
        assert!(heard.packets[50].marker);
        assert_eq!(heard.packets[50].timestamp.wrapping_sub(heard.packets[0].timestamp), 16_000);
        let ms: Vec<_> = sender
            .spoken
            .iter()
            .flat_map(|spoken| [Some(spoken.start), spoken.end])
            .map(|at| at.map(|at| (at - start).as_millis()))
            .collect();
        assert_eq!(ms, [Some(0), Some(1_000), Some(2_000), None]);
    }

    #[test]
    fn faults_are_what_was_asked_for() {
        let time = Duration::from_secs(20);
        let start = crate::clock::now();
        let faulty = |fault: fn(&mut Sender, Duration)| {
            let mut sender = sender(bursts());
            run(&mut sender, Codec::pcmu(), start, time, fault).continuity()
        };
        let lossy = faulty(|sender, _| sender.faults = Link { loss: 0.1, ..Link::IDEAL });
        assert!((50..150).contains(&lossy.missing), "{lossy:?}");
        let jittery = faulty(|sender, _| {
            sender.faults = Link { jitter: Duration::from_millis(80), reorder: true, ..Link::IDEAL };
        });
        assert!(jittery.backwards > 50, "{jittery:?}");
        let quiet = faulty(|sender, _| sender.dtx = true);
        assert_eq!((quiet.packets, quiet.missing, quiet.timestamp_steps), (400, 0, 0), "{quiet:?}");
        let jumped = faulty(|sender, at| {
            if at.as_millis() == 1_000 {
                sender.jump_timestamp(80_000);
            }
        });
        assert_eq!(jumped.timestamp_steps, 1, "{jumped:?}");
        let changed = faulty(|sender, at| {
            if at.as_millis() == 1_000 {
                sender.new_source();
            }
        });
        assert_eq!(changed.sources.len(), 2, "{changed:?}");
    }

    #[test]
    fn a_stall_ends_in_one_burst() {
        let start = crate::clock::now();
        let mut sender = sender(bursts());
        let heard = run(&mut sender, Codec::pcmu(), start, Duration::from_secs(2), |sender, at| {
            if at.as_millis() == 500 {
                sender.stalled_until = Some(start + at + Duration::from_millis(400));
            }
        });
        let at = |index: usize| (heard.packets[index].at - start).as_millis();
        assert_eq!((at(24), at(25), at(45), at(46)), (480, 900, 900, 920));
        assert_eq!(heard.continuity().missing, 0);
    }

    #[test]
    fn skew_changes_the_number_of_packets() {
        let start = crate::clock::now();
        let mut fast = sender(bursts());
        fast.skew_ppm = 2_000.0;
        let heard = run(&mut fast, Codec::pcmu(), start, Duration::from_secs(100), |_, _| {});
        assert_eq!(heard.packets.len(), 5_010);
    }

    #[test]
    fn a_key_press_is_one_event_with_three_ends() {
        let start = crate::clock::now();
        let mut sender = sender(Voice::Silence);
        let heard = run(&mut sender, Codec::pcmu(), start, Duration::from_secs(1), |sender, at| {
            match at.as_millis() {
                100 => assert!(sender.press('7')),
                500 => assert!(sender.press('#')),
                700 => assert!(!sender.press('x')),
                _ => {}
            };
        });
        assert_eq!(heard.keys(), "7#");
        let events: Vec<_> = heard.packets.iter().filter(|packet| packet.payload_type == 101).collect();
        assert_eq!(events.len(), 2 * 10);
        assert_eq!(events.iter().filter(|packet| packet.marker).count(), 2);
        assert_eq!(events.iter().filter(|packet| packet.payload[1] & 0x80 != 0).count(), 6);
        assert_eq!(events[9].payload[2..], 1_280u16.to_be_bytes());
    }
}
