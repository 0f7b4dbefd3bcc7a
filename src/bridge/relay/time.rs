//! What the relay does by itself: reports, playback, inactivity, counters.

use std::time::{Duration, Instant};

use super::{Channel, MAX_TRANSMIT, Reason, Relay, Slot, Transmit};
use crate::bridge::command::Notice;
use crate::bridge::outgoing::Steps;
use crate::bridge::playback;
use crate::rtp::rtcp::{self, Report};
use crate::rtp::view::FIXED_LEN;

/// Between two [`Notice::Stats`] of a leg.
pub(super) const STATS_INTERVAL: Duration = Duration::from_secs(1);

impl Relay {
    /// When to call [`Relay::poll_transmit`] next, and why; it may turn out that nothing is due.
    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        self.timers.next()
    }

    /// Does what is due and returns the next packet of our own, written to `out`; drain until `None`.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut [u8; MAX_TRANSMIT]) -> Option<Transmit> {
        while let Some((at, reason, key)) = self.timers.pop(now) {
            let Some(leg) = self.legs.get_mut(key) else { continue };
            if !leg.armed.fire(reason, at) {
                continue;
            }
            let transmit = match reason {
                Reason::Play => self.play_on(key, now, out),
                Reason::Digit => self.digits_on(key, now, out),
                Reason::Beep => self.beep_on(key, now, out),
                Reason::Report => {
                    let first = !leg.reported;
                    let next = rtcp::next_report(now, first, &mut self.options.rng);
                    let next = self.options.together(next);
                    self.timers.arm(&mut leg.armed, key, Reason::Report, next);
                    self.write_report(key, false, now, out)
                }
                Reason::Watch => {
                    self.look(key, now);
                    None
                }
                Reason::Stats => {
                    let (leg_id, stats) = (leg.id, leg.stats());
                    self.timers.arm(&mut leg.armed, key, Reason::Stats, self.options.together(now + STATS_INTERVAL));
                    self.notices.push_back(Notice::Stats { leg: leg_id, stats });
                    None
                }
            };
            if transmit.is_some() {
                return transmit;
            }
        }
        None
    }

    /// What signaling should know; drain until `None`.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    fn play_on(&mut self, key: usize, now: Instant, out: &mut [u8; MAX_TRANSMIT]) -> Option<Transmit> {
        let leg = &mut self.legs[key];
        let (ptime, ptime_ms) = (leg.ptime(), leg.ptime_ms);
        if leg.tone.as_ref().is_some_and(|tone| tone.is_over(now)) {
            leg.tone = None;
        }
        let is_heard = leg.rtp_destination().is_some() && leg.voice.is_some() && !leg.presses.speaks();
        let tone = leg.tone.as_mut().map(|tone| &mut tone.player);
        let is_tone = tone.is_some();
        let player = tone.or(leg.player.as_mut())?;
        let steps = player.step(ptime, now);
        self.timers.arm(&mut leg.armed, key, Reason::Play, player.next());
        if !is_heard {
            player.interrupt();
            return None;
        }
        let samples = self.recoder.samples(ptime_ms);
        if !player.fill(samples) {
            self.stop_playing(key);
            return None;
        }
        let mut tap = None;
        if !is_tone {
            let tick = player.next() - ptime;
            let copy: &mut [u8; playback::MAX_COPY] = out.last_chunk_mut()?;
            tap = leg.played.as_mut().and_then(|tap| tap.copy(samples, tick, steps, copy));
            leg.beep.iter_mut().for_each(|beep| beep.played(samples, now));
        }
        self.write_own(key, steps, now, out).map(|transmit| Transmit { tap, ..transmit })
    }

    /// A packet of the samples that stand ready in the recoder.
    pub(super) fn write_own(
        &mut self,
        key: usize,
        steps: Steps,
        now: Instant,
        out: &mut [u8; MAX_TRANSMIT],
    ) -> Option<Transmit> {
        let leg = &mut self.legs[key];
        let (to, voice, ptime_ms) = (leg.rtp_destination()?, leg.voice?, leg.ptime_ms);
        if steps == Steps::First {
            leg.converter.reset();
        }
        let header = leg.outgoing.own(voice.payload_type, voice.clock_rate(), voice.ticks(ptime_ms), steps, now);
        let (fixed, payload) = out.split_at_mut(FIXED_LEN);
        fixed.copy_from_slice(&header.encode());
        let len = self.recoder.encode(ptime_ms, voice.coding, &mut leg.converter, payload.first_chunk_mut()?);
        leg.outgoing.count(len);
        Some(Transmit { slot: Slot(key), channel: Channel::Rtp, to, len: FIXED_LEN + len, tap: None })
    }

    pub(super) fn write_report(
        &mut self,
        key: usize,
        bye: bool,
        now: Instant,
        out: &mut [u8; MAX_TRANSMIT],
    ) -> Option<Transmit> {
        let since_epoch = now.saturating_duration_since(self.options.epoch);
        let fraction = (u64::from(since_epoch.subsec_nanos()) << 32) / 1_000_000_000;
        let ntp = self.options.epoch_ntp.wrapping_add((since_epoch.as_secs() << 32) + fraction);
        let leg = &mut self.legs[key];
        let to = leg.rtcp_destination()?;
        let last_sr = leg.last_sr.map(|(middle, at)| (middle, now.saturating_duration_since(at)));
        let block = leg.source.as_mut().filter(|source| !source.has_ended()).map(|source| source.report(last_sr));
        let sender = leg.outgoing.report(ntp, now);
        let report = Report { ssrc: leg.outgoing.ssrc(), sender, block, cname: &leg.cname, bye };
        let len = report.write(out.first_chunk_mut()?);
        leg.reported = true;
        let channel = if leg.rtcp_mux { Channel::Rtp } else { Channel::Rtcp };
        Some(Transmit { slot: Slot(key), channel, to, len, tap: None })
    }

    fn look(&mut self, key: usize, now: Instant) {
        let leg = &mut self.legs[key];
        if leg.watchdog.expired(now) {
            self.notices.push_back(Notice::Inactive { leg: leg.id });
        } else if let Some(deadline) = leg.watchdog.deadline() {
            self.timers.arm(&mut leg.armed, key, Reason::Watch, deadline);
        }
    }
}
