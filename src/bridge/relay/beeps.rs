//! Beeps: whoever hears that it is recorded hears it in the midst of everything else, else by packets of our own.

use std::time::{Duration, Instant};

use super::{Error, MAX_TRANSMIT, Reason, Relay, Transmit};
use crate::bridge::beep::Beep;
use crate::id::LegId;

/// Until a beep that cannot be sent is looked at again.
const LATER: Duration = Duration::from_millis(500);

impl Relay {
    /// Begins beeps towards a leg's peer, the first one at once, or ends them.
    pub fn beep(&mut self, leg: LegId, every: Option<Duration>, now: Instant) -> Result<(), Error> {
        let key = self.slot(leg)?.0;
        let leg = &mut self.legs[key];
        leg.beep = every.map(|every| Box::new(Beep::new(every, now)));
        leg.armed.disarm(Reason::Beep);
        self.arm_beep(key, now);
        Ok(())
    }

    pub(super) fn arm_beep(&mut self, key: usize, now: Instant) {
        let leg = &mut self.legs[key];
        if let Some(beep) = &leg.beep {
            self.timers.arm(&mut leg.armed, key, Reason::Beep, beep.due().max(now));
        }
    }

    pub(super) fn beep_on(&mut self, key: usize, now: Instant, out: &mut [u8; MAX_TRANSMIT]) -> Option<Transmit> {
        let leg = &mut self.legs[key];
        let (ptime, last_sent) = (leg.ptime(), leg.outgoing.sent_at());
        let can_be_sent = leg.rtp_destination().is_some() && leg.voice.is_some();
        // What is played carries it; a digit is heard first.
        let is_busy = leg.player.is_some() || leg.sounds(now);
        let beep = leg.beep.as_mut()?;
        let from = beep.alone_from(last_sent);
        let again = match () {
            () if beep.due() > now => Some(beep.due()),
            () if !can_be_sent || is_busy => {
                beep.give_way();
                Some(now + LATER)
            }
            () if from > now => Some(from),
            () => None,
        };
        if let Some(again) = again {
            self.timers.arm(&mut leg.armed, key, Reason::Beep, again);
            return None;
        }
        let steps = beep.step(ptime, now);
        let samples = self.recoder.samples(leg.ptime_ms);
        samples.fill(0);
        beep.played(samples, now);
        let next = if beep.due() > now { beep.due() } else { beep.alone_from(None) };
        self.timers.arm(&mut leg.armed, key, Reason::Beep, next);
        // A mixer that comes back goes on behind this packet.
        leg.mixed_tick = None;
        self.write_own(key, steps, now, out)
    }
}
