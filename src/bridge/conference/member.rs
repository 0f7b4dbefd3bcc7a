//! One leg in a room.

use std::time::{Duration, Instant};

use super::playout::{Made, Playout, Taken, Without};
use super::room::Play;
use super::{Arrived, Counters};
use crate::audio::coding::Coding;
use crate::audio::convert::{self, Converter, Kernels, MAX_CONTEXT};
use crate::audio::mix;
use crate::bridge::command::Digit;
use crate::bridge::command::mix::{Hearing, Join, MixStats};
use crate::bridge::hearing::{self, Audience};
use crate::bridge::press::Pressed;
use crate::codec::{Codec, Kind, Payload};
use crate::id::{LegId, WorkerId};
use crate::rtp::telephone_event::TelephoneEvent;

/// Samples of the longest frame: 20 ms at 16,000 Hz.
pub const MAX_FRAME: usize = 320;
/// What A-law has for zero: a frame without anything louder is silence.
const FLOOR: u16 = 8;

/// How its peer's codec is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speech {
    pub payload_type: u8,
    pub coding: Coding,
}

/// What a payload type of its peer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Audio(Coding),
    Noise,
    Event(u32),
}

/// Whether it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// No.
    Stays,
    /// Its peer hears its route again, after a last packet; what it says is mixed as before.
    StopsListening,
    /// It leaves the room, after a last packet when its peer listens.
    Leaves,
}

/// One leg in a room.
#[derive(Debug)]
pub struct Member {
    pub leg: LegId,
    pub worker: WorkerId,
    /// The room's place, and the phase in which it ticks.
    pub room: usize,
    pub phase: usize,
    /// Who sent the packet that came next, the last time.
    pub follower: usize,
    hearing: Hearing,
    /// Everybody hears it.
    is_heard: bool,
    pub listens: bool,
    pub parting: Parting,
    /// Its next packet fades in.
    pub fresh: bool,
    pub speech: Option<Speech>,
    /// What is played to it alone.
    pub play: Option<Play>,
    /// What it says in this tick, at the room's rate, unless it is where the playout buffer keeps it.
    frame: Box<[i16; MAX_FRAME]>,
    kept: Option<usize>,
    /// The largest magnitude in it.
    pub peak: u16,
    /// There is something in it.
    pub sounds: bool,
    /// A digit that has ended.
    pub pressed: Option<(Digit, Duration)>,
    meanings: Vec<(u8, Meaning)>,
    /// The last one of audio that came.
    usual: Option<(u8, Coding)>,
    playout: Playout,
    inward: Converter,
    outward: Converter,
    press: Option<Pressed>,
    /// The timestamp of the last digit that was told.
    told: Option<u32>,
    stats: MixStats,
}

/// A codec that is mixed.
fn coding(codec: &Codec) -> Option<Coding> {
    Coding::of(codec).filter(|coding| coding.sample_rate() <= 16_000)
}

/// Everybody hears who is this.
fn is_heard(hearing: Hearing) -> bool {
    hearing::audience(hearing) == Audience::Everybody
}

fn meanings(receive: &[Payload]) -> Vec<(u8, Meaning)> {
    let meaning = |codec: &Codec| match codec.kind() {
        Kind::ComfortNoise => Some(Meaning::Noise),
        Kind::TelephoneEvent => Some(Meaning::Event(codec.clock_rate)),
        _ => coding(codec).map(Meaning::Audio),
    };
    receive.iter().filter_map(|payload| Some((payload.payload_type, meaning(&payload.codec)?))).collect()
}

fn speech(send: &[Payload]) -> Option<Speech> {
    send.iter().find_map(|payload| Some(Speech { payload_type: payload.payload_type, coding: coding(&payload.codec)? }))
}

/// The fastest codec that may come.
fn fastest(meanings: &[(u8, Meaning)]) -> u32 {
    let rate = |(_, meaning): &(u8, Meaning)| match meaning {
        Meaning::Audio(coding) => coding.sample_rate(),
        Meaning::Noise | Meaning::Event(_) => 8_000,
    };
    meanings.iter().map(rate).max().unwrap_or(8_000)
}

impl Member {
    /// True when it can be heard, or can hear where it is to.
    pub fn can_be_mixed(join: &Join) -> bool {
        let heard = meanings(&join.receive).iter().any(|(_, meaning)| matches!(meaning, Meaning::Audio(_)));
        let hears = speech(&join.send).is_some();
        if join.listens { hears } else { heard || hears }
    }

    pub fn new(join: &Join, (room, phase): (usize, usize)) -> Self {
        let meanings = meanings(&join.receive);
        Self {
            leg: join.leg,
            worker: join.worker,
            room,
            phase,
            follower: usize::MAX,
            hearing: join.hearing,
            is_heard: is_heard(join.hearing),
            listens: join.listens,
            parting: Parting::Stays,
            fresh: true,
            speech: speech(&join.send),
            play: None,
            frame: Box::new([0; MAX_FRAME]),
            kept: None,
            peak: 0,
            sounds: false,
            pressed: None,
            playout: Playout::new(fastest(&meanings)),
            meanings,
            usual: None,
            inward: Converter::new(),
            outward: Converter::new(),
            press: None,
            told: None,
            stats: MixStats::default(),
        }
    }

    /// It is here already and joins another room, or joins again before it has left.
    pub fn rejoin(&mut self, join: &Join, (room, phase): (usize, usize)) {
        (self.room, self.phase) = (room, phase);
        self.worker = join.worker;
        self.set_hearing(join.hearing);
        self.parting = Parting::Stays;
        self.play = None;
        self.describe(&join.receive, &join.send);
        self.listen(join.listens);
    }

    pub fn describe(&mut self, receive: &[Payload], send: &[Payload]) {
        let before = fastest(&self.meanings);
        self.meanings = meanings(receive);
        self.usual = None;
        self.speech = speech(send);
        if fastest(&self.meanings) > before {
            self.playout = Playout::new(fastest(&self.meanings));
        }
    }

    pub fn hearing(&self) -> Hearing {
        self.hearing
    }

    pub fn set_hearing(&mut self, hearing: Hearing) {
        (self.hearing, self.is_heard) = (hearing, is_heard(hearing));
    }

    pub fn listen(&mut self, listens: bool) {
        match (self.listens, listens) {
            (false, true) => (self.listens, self.fresh) = (true, true),
            (true, false) if self.parting == Parting::Stays => self.parting = Parting::StopsListening,
            (true, true) if self.parting == Parting::StopsListening => self.parting = Parting::Stays,
            _ => {}
        }
    }

    /// A packet came; false when it has ended a digit ([`Member::pressed`]).
    #[inline]
    pub fn packet(
        &mut self,
        arrived: &Arrived,
        payload: &[u8],
        until_tick_ns: i64,
        epoch: Instant,
        counters: &mut Counters,
    ) -> bool {
        let usual = self.usual.filter(|(payload_type, _)| *payload_type == arrived.payload_type);
        let Some((_, coding)) = usual.or_else(|| self.unusual(arrived, payload, epoch, counters)) else {
            return self.pressed.is_none();
        };
        self.stats.received += 1;
        match self.playout.insert(arrived.ssrc, arrived.timestamp, coding, payload, until_tick_ns) {
            Taken::Kept => {}
            Taken::Late => {
                self.stats.late += 1;
                counters.late += 1;
            }
            Taken::Overflow => self.stats.overflowed += 1,
        }
        true
    }

    /// What a packet is that is not as the one of audio before it: audio from now on, or what is done here.
    #[cold]
    fn unusual(
        &mut self,
        arrived: &Arrived,
        payload: &[u8],
        epoch: Instant,
        counters: &mut Counters,
    ) -> Option<(u8, Coding)> {
        let known = self.meanings.iter().find(|(payload_type, _)| *payload_type == arrived.payload_type);
        match known.map(|(_, meaning)| *meaning) {
            Some(Meaning::Audio(coding)) => {
                self.usual = Some((arrived.payload_type, coding));
                return self.usual;
            }
            // An empty packet of noise says nothing of its level.
            Some(Meaning::Noise) => self.playout.comfort_noise(payload.first().map_or(127, |level| level & 0x7f)),
            Some(Meaning::Event(clock_rate)) => {
                self.playout.event();
                self.event(arrived, payload, clock_rate, epoch + Duration::from_nanos(arrived.arrival_ns));
            }
            None => counters.unmixable += 1,
        }
        None
    }

    fn event(&mut self, arrived: &Arrived, payload: &[u8], clock_rate: u32, now: Instant) {
        let Some(event) = TelephoneEvent::parse(payload) else { return };
        if self.told == Some(arrived.timestamp) {
            return;
        }
        let Some(mut heard) = Pressed::of(self.leg, event, arrived.timestamp, clock_rate, now) else { return };
        match self.press.take() {
            Some(before) if before.timestamp == heard.timestamp => heard.length = heard.length.max(before.length),
            // Its end was lost.
            Some(before) => self.tell(&before),
            None => {}
        }
        match event.end {
            true => self.tell(&heard),
            false => self.press = Some(heard),
        }
    }

    /// A digit whose end does not come any more.
    pub fn overdue_press(&mut self, now: Instant) -> Option<(Digit, Duration)> {
        let over = self.press.take_if(|press| press.until <= now)?;
        self.tell(&over);
        self.pressed.take()
    }

    fn tell(&mut self, press: &Pressed) {
        self.told = Some(press.timestamp);
        self.pressed = Some((press.digit, press.length));
    }

    /// Makes [`Member::said`] for this tick.
    #[inline]
    pub fn render(&mut self, rate: u32, without: Without, meters: bool, kernels: &Kernels, counters: &mut Counters) {
        let n = rate as usize / 50;
        let own = self.playout.frame_len();
        let made = match own == n {
            true => self.playout.frame(&mut self.frame[..n], without),
            false => self.converted(own, n, without, kernels),
        };
        self.kept = made.kept;
        self.stats.concealed += u64::from(made.concealed);
        counters.concealed += u64::from(made.concealed);
        self.stats.stretched += u64::from(made.stretched);
        self.peak = match made.peak {
            Some(peak) => peak,
            // A converter is behind by a little: what it still holds is heard.
            None if made.sound || own != n => mix::loudest(self.said(n)),
            None => 0,
        };
        self.sounds = self.peak > FLOOR;
        if meters {
            self.stats.peak = self.stats.peak.max(self.peak);
        }
    }

    /// The next frame, at the room's rate.
    #[inline(never)]
    fn converted(&mut self, own: usize, n: usize, without: Without, kernels: &Kernels) -> Made {
        let mut frame = [0; MAX_FRAME];
        let made = self.playout.frame(&mut frame[..own], without);
        let said = made.kept.map_or(&frame[..own], |at| self.playout.kept(at, own));
        convert(&mut self.inward, kernels, said, &mut self.frame[..n]);
        Made { kept: None, peak: None, ..made }
    }

    /// What it says in this tick, of so many samples at the room's rate.
    #[inline]
    pub fn said(&self, samples: usize) -> &[i16] {
        self.kept.map_or(&self.frame[..samples], |at| self.playout.kept(at, samples))
    }

    /// The tick was left out.
    pub fn skip(&mut self) {
        let samples = self.playout.rate() as usize / 50;
        self.playout.skip(samples);
        self.play.iter_mut().for_each(Play::skip);
    }

    /// True when everybody hears what it says in this tick.
    pub fn is_in_sum(&self) -> bool {
        self.sounds && self.is_heard
    }

    /// To the rate of its peer's codec.
    pub fn convert_for_peer(&mut self, kernels: &Kernels, mixed: &[i16], out: &mut [i16]) {
        convert(&mut self.outward, kernels, mixed, out);
    }

    pub fn count_sent(&mut self) {
        self.stats.sent += 1;
    }

    /// True when nothing has come to its end for it, nor will without being told.
    pub fn goes_on(&self) -> bool {
        self.play.is_none() && self.press.is_none() && self.parting == Parting::Stays
    }

    /// True once when what was played to it alone has come to its end.
    pub fn ended_playing(&mut self) -> bool {
        self.play.take_if(|play| play.has_ended()).is_some()
    }

    /// Totals; the peak begins anew.
    pub fn take_stats(&mut self) -> MixStats {
        let stats = MixStats { delay_ms: self.playout.delay_ms(), ..self.stats };
        self.stats.peak = 0;
        stats
    }
}

/// A frame to the other rate.
fn convert(converter: &mut Converter, kernels: &Kernels, frame: &[i16], out: &mut [i16]) {
    let rate = |samples: usize| 50 * samples as u32;
    let Some(kernel) = kernels.get(rate(frame.len()), rate(out.len())) else { return };
    let mut input = [0; MAX_CONTEXT + MAX_FRAME];
    let context = convert::context(kernel);
    let input = &mut input[..context + frame.len()];
    input[context..].copy_from_slice(frame);
    converter.run(kernel, input, out);
}
