//! What recorders know of a leg: who gets its packets, under which name, and what they may hold.
//!
//! A leg is recorded under its own id. The leg of a device in a consult call is recorded as that device's leg in the call
//! that it holds ([`crate::call::second`]): lent for a time, or for good when that call ends.

use std::sync::Arc;

use super::Leg;
use crate::bridge::command::Command;
use crate::call::core::Core;
use crate::codec::Payload;
use crate::id::{LegId, RecorderId};
use crate::record::mark::Change;

/// What recorders know of one leg.
#[derive(Debug, Default)]
pub(super) struct Tapped {
    /// The recorders that get its packets.
    taps: Vec<RecorderId>,
    /// The recorders that have been told of it under its own name.
    known: Vec<RecorderId>,
    /// What they were told last.
    payloads: Option<Arc<[Payload]>>,
    /// The leg of the same device that its packets are recorded as.
    recorded_as: Option<LegId>,
    /// The recorders that this name is only lent for: that leg ends there by itself.
    lent_for: Vec<RecorderId>,
    /// Names of legs that its packets are recorded as, and that end with it.
    ends_too: Vec<(RecorderId, LegId)>,
    /// Sessions of another call name it, or have named it.
    is_lent: bool,
}

impl Leg {
    /// Copies of its packets go to these recorders from now on.
    pub(in crate::call) fn tap(&mut self, core: &mut Core, recorders: &[RecorderId]) {
        if self.tapped.taps == recorders {
            return;
        }
        let before = std::mem::replace(&mut self.tapped.taps, recorders.to_vec());
        core.media(self.worker, Command::Tap { leg: self.id, recorders: recorders.to_vec() });
        if let Some(payloads) = self.tapped.payloads.clone() {
            let new: Vec<RecorderId> = recorders.iter().copied().filter(|r| !before.contains(r)).collect();
            self.tell_payloads(core, &new, &payloads);
        }
    }

    /// Its packets are recorded as those of another leg of its device from now on; `None`: as its own. No recorder gets
    /// any while that changes.
    pub(in crate::call) fn record_as(&mut self, core: &mut Core, leg: Option<LegId>) {
        if self.tapped.recorded_as != leg {
            self.tap(core, &[]);
            self.tapped.payloads = None;
            self.tapped.recorded_as = leg;
            self.music.interrupt();
            core.media(self.worker, Command::TapAs { leg: self.id, name: leg });
        }
    }

    /// It is recorded as another leg of its device while that one's sessions, of these recorders, follow it. True: it was
    /// recorded under another name before.
    pub(in crate::call) fn borrow_name(&mut self, core: &mut Core, leg: LegId, recorders: &[RecorderId]) -> bool {
        let is_new = self.tapped.recorded_as != Some(leg);
        self.record_as(core, Some(leg));
        self.tapped.lent_for = recorders.to_vec();
        is_new
    }

    /// It has its own name again.
    pub(in crate::call) fn give_name_back(&mut self, core: &mut Core) {
        let name = self.tapped.recorded_as;
        self.record_as(core, None);
        let lent_for = std::mem::take(&mut self.tapped.lent_for);
        let (ending, staying) = self.tapped.ends_too.drain(..).partition(|(_, leg)| Some(*leg) == name);
        self.tapped.ends_too = staying;
        let ending: Vec<(RecorderId, LegId)> = ending;
        for (recorder, leg) in ending.into_iter().filter(|(recorder, _)| !lent_for.contains(recorder)) {
            core.pairs.end_later(recorder, leg);
        }
    }

    /// The leg of its device that its packets are recorded as.
    pub(in crate::call) fn recorded_as(&self) -> Option<LegId> {
        self.tapped.recorded_as
    }

    /// Under which leg recorders know it.
    pub(in crate::call) fn recorded(&self) -> LegId {
        self.tapped.recorded_as.unwrap_or(self.id)
    }

    /// It ends, but not for recorders: another leg of its device goes on as this one.
    pub(in crate::call) fn leave_known(&mut self) -> Vec<(RecorderId, LegId)> {
        let own = self.tapped.known.drain(..).map(|recorder| (recorder, self.id));
        self.tapped.ends_too.drain(..).chain(own).collect()
    }

    /// It goes on as a leg of its device that has ended.
    pub(in crate::call) fn take_known(&mut self, core: &mut Core, leg: LegId, known: Vec<(RecorderId, LegId)>) {
        self.tapped.lent_for.clear();
        let known = known.into_iter().filter(|known| !self.tapped.ends_too.contains(known)).collect::<Vec<_>>();
        self.tapped.ends_too.extend(known);
        self.record_as(core, Some(leg));
    }

    /// What recorders know that its peer may send.
    pub(in crate::call) fn payloads(&self) -> &[Payload] {
        self.tapped.payloads.as_deref().unwrap_or_default()
    }

    /// Recorders that get its packets.
    pub(in crate::call) fn taps(&self) -> &[RecorderId] {
        &self.tapped.taps
    }

    /// The recorder must know the leg before a session names it, also while its payload types are only offered.
    pub(in crate::call) fn announce(&mut self, core: &mut Core) {
        if self.tapped.payloads.is_some() {
            return;
        }
        let payloads: Vec<Payload> = match (self.sdp.negotiated(), self.sdp.terms()) {
            (Some(negotiated), _) => negotiated.receive.clone(),
            (None, Some(terms)) => {
                terms.formats.iter().map(|f| Payload { payload_type: f.payload_type, codec: f.codec.clone() }).collect()
            }
            (None, None) => Vec::new(),
        };
        self.mark_payloads(core, &payloads);
    }

    pub(super) fn mark_payloads(&mut self, core: &mut Core, payloads: &[Payload]) {
        if self.tapped.taps.is_empty() {
            // Who gets its packets later is told what holds then.
            self.tapped.payloads = None;
            return;
        }
        if self.tapped.payloads.as_deref() == Some(payloads) {
            return;
        }
        let payloads: Arc<[Payload]> = payloads.into();
        self.tapped.payloads = Some(payloads.clone());
        let recorders = self.tapped.taps.clone();
        self.tell_payloads(core, &recorders, &payloads);
    }

    fn tell_payloads(&mut self, core: &mut Core, recorders: &[RecorderId], payloads: &Arc<[Payload]>) {
        let leg = self.recorded();
        for recorder in recorders {
            match self.tapped.recorded_as {
                None if !self.tapped.known.contains(recorder) => self.tapped.known.push(*recorder),
                Some(name)
                    if !self.tapped.lent_for.contains(recorder)
                        && !self.tapped.ends_too.contains(&(*recorder, name)) =>
                {
                    self.tapped.ends_too.push((*recorder, name));
                }
                _ => {}
            }
            core.mark(*recorder, Change::Payloads { leg, payloads: payloads.clone() });
        }
    }

    /// Sessions of another call name it: recorders are told of its end when those name it no more.
    pub(in crate::call) fn lend(&mut self) {
        self.tapped.is_lent = true;
    }

    /// This recorder knows it under its own name.
    pub(in crate::call) fn is_known_to(&self, recorder: RecorderId) -> bool {
        self.tapped.known.contains(&recorder)
    }

    /// Recorders are told that it ends.
    pub(super) fn end_recorded(&self, core: &mut Core) {
        for recorder in &self.tapped.known {
            match self.tapped.is_lent {
                true => core.pairs.end_later(*recorder, self.id),
                false => core.mark(*recorder, Change::LegEnded(self.id)),
            }
        }
        for (recorder, leg) in &self.tapped.ends_too {
            core.mark(*recorder, Change::LegEnded(*leg));
        }
    }
}
