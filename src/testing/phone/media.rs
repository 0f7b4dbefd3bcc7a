//! What a line says: packets out on a clock of its own, with faults on request.
//!
//! RTP is written by hand here, so that a test does not check the product's RTP code with itself.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::Action;
use crate::audio::g711;
use crate::codec::{Codec, Kind, Payload};
use crate::sdp::Negotiated;
use crate::testing::network::{Datagram, Link, Path};
use crate::testing::tones::Voice;

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
    /// We hold: music is sent instead of the voice.
    holds: bool,
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
    /// What is played to a held party, and how far it is.
    music: Option<Voice>,
    music_position: u64,
    target: Option<Target>,
    next: Option<Instant>,
    rng: StdRng,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    /// The next packet begins a talkspurt.
    marker: bool,
    press: Option<Press>,
    dtx: bool,
    faults: Link,
    skew_ppm: f64,
    stalled_until: Option<Instant>,
    path: Path,
    pub(super) sent: u64,
    pub(super) spoken: Vec<Spoken>,
}

impl Sender {
    pub(super) fn new(from: SocketAddr, voice: Voice, music: Option<Voice>, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        Self {
            from,
            voice,
            position: 0,
            music,
            music_position: 0,
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

    /// Follows what was negotiated; `None` stops. `holds`: we hold the peer, it gets music or nothing.
    pub(super) fn set_target(&mut self, negotiated: Option<&Negotiated>, holds: bool, now: Instant) {
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
                sends: negotiated.direction.sends() && negotiated.rtp.is_some() && (!holds || self.music.is_some()),
                holds,
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

    /// Another voice, or something that is wrong with the line.
    pub(super) fn change(&mut self, action: &Action, now: Instant) {
        match action {
            Action::Speak(voice) => {
                self.voice = voice.clone();
                self.position = 0;
            }
            Action::Dtx(dtx) => self.dtx = *dtx,
            Action::Faults(link) => self.faults = *link,
            Action::Skew(ppm) => self.skew_ppm = *ppm,
            Action::Stall(time) => self.stalled_until = Some(now + *time),
            _ => {}
        }
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
        let said = self.log_stretches(due, rate, length, target.sends && !target.holds);
        let on = match &self.music {
            _ if !target.sends => said,
            Some(music) if target.holds => {
                music.fill(self.music_position, rate, &mut samples);
                self.music_position += length as u64;
                true
            }
            _ => {
                self.voice.fill(self.position, rate, &mut samples);
                said
            }
        };
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

#[cfg(test)]
mod tests {
    use super::super::heard::Heard;
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
        heard.set_peer(&talk.receive, Some(FROM.parse().unwrap()));
        sender.set_target(Some(&talk), false, start);
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
        Sender::new(FROM.parse().unwrap(), voice, None, 3)
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
            1_000 => sender.set_target(Some(&hold), false, start + at),
            2_000 => sender.set_target(Some(&talk), false, start + at),
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
