//! Recording by request: start, pause, resume, stop (spec/recording.md §3, §4.7).

use super::call::{Call, State};
use super::core::Core;
use super::fact::What;
use super::leg::Leg;
use super::owners::Owner;
use super::recording::Unable;
use super::request::{Accepted, Ask, Code, Denied, OwnerWish};
use crate::id::{LegId, RecordingId};
use crate::record::mark::{Change, Side, StopCause};

impl Call {
    /// Decides a recording request of `by`, the requester's leg, if it has one in the call.
    pub(super) fn decide_recording(
        &mut self,
        core: &mut Core,
        by: Option<LegId>,
        ask: &Ask,
    ) -> Result<Accepted, Denied> {
        let mut accepted = Accepted::new(self.conn_id);
        match ask {
            Ask::RecordStart { owner } => {
                accepted.recording = Some(self.ask_start(core, by, owner)?);
                return Ok(accepted);
            }
            Ask::RecordPause { recording } => {
                for id in self.named(by, *recording)? {
                    self.pause(core, id, true);
                }
            }
            Ask::RecordResume { recording } => {
                for id in self.named(by, *recording)? {
                    self.pause(core, id, false);
                }
            }
            Ask::RecordStop { recording } => {
                for id in self.named(by, *recording)? {
                    self.stop_by_request(core, id);
                }
            }
            _ => return Err(self.denied(Code::WrongState, "not a recording request")),
        }
        accepted.still_recording = self.recording.sessions.iter().filter(|s| !s.is_paused).map(|s| s.id).collect();
        Ok(accepted)
    }

    fn ask_start(&mut self, core: &mut Core, by: Option<LegId>, owner: &OwnerWish) -> Result<RecordingId, Denied> {
        if !matches!(self.state, State::Talking(_)) || self.make().is_some() {
            return Err(self.denied(Code::WrongState, "the call is not answered"));
        }
        let leg = self.owner_wished(by, owner)?;
        if let Some(running) = self.recording.sessions.iter().find(|s| s.owner == leg) {
            return Ok(running.id);
        }
        let consulted = self.consulted() == Some(leg) && self.talk().is_some_and(|t| !t.members.contains(&leg));
        let consulted = consulted || self.consulting(core).is_some_and(|(second, _)| second != leg);
        if consulted || self.leg(leg).is_none_or(|l| l.dialog.is_none()) {
            return Err(self.denied(Code::ConsultedOwner, "a party that is only consulted or called owns no recording"));
        }
        let side = self.leg(leg).map_or(Side::Origination, |l| l.side);
        let named = match owner {
            OwnerWish::Source => "source",
            OwnerWish::Destination => "destination",
            OwnerWish::Dn(_) => "OtherDN",
        };
        let owner = Owner { side, trigger: "request", rule: format!("request record-start, owner: {named}") };
        self.record(core, leg, owner).map_err(|why| match why {
            Unable::Codec => self.denied(Code::Codec, "the call has no codec that can be decoded"),
            Unable::NoSpace => self.denied(Code::NoSpace, "the disk has no room for another recording"),
        })
    }

    pub(super) fn owner_wished(&self, by: Option<LegId>, owner: &OwnerWish) -> Result<LegId, Denied> {
        let required = |detail| self.denied(Code::OwnerRequired, detail);
        match owner {
            OwnerWish::Source => by.ok_or_else(|| required("ThisDN has no leg in the call: name the owner by OtherDN")),
            OwnerWish::Destination if self.consult().is_some_and(|c| Some(c.by) == by && c.is_active) => {
                Err(self.denied(Code::ConsultedOwner, "the other party is only consulted"))
            }
            OwnerWish::Destination => by
                .and_then(|by| self.talk()?.opposite(by))
                .ok_or_else(|| required("not one other party: name the owner by OtherDN")),
            OwnerWish::Dn(dn) => {
                let is_dn = |l: &&Leg| l.identity.dn.as_ref() == Some(dn);
                // A party behind a trunk is named by its number, as events name it.
                let has_number = |l: &&Leg| l.identity.dn.is_none() && l.number == *dn;
                let leg = self.legs.iter().find(is_dn).or_else(|| self.legs.iter().find(has_number));
                leg.map(|l| l.id).ok_or_else(|| required("OtherDN has no leg in the call"))
            }
        }
    }

    /// The sessions that a request names: one by its id, else all that the requester owns.
    fn named(&self, by: Option<LegId>, recording: Option<RecordingId>) -> Result<Vec<RecordingId>, Denied> {
        let sessions = self.recording.sessions.iter();
        let found: Vec<RecordingId> = match recording {
            Some(id) => sessions.filter(|s| s.id == id).map(|s| s.id).collect(),
            None => sessions.filter(|s| Some(s.owner) == by).map(|s| s.id).collect(),
        };
        match found.is_empty() {
            true => Err(self.denied(Code::UnknownRecording, "no such recording runs in this call")),
            false => Ok(found),
        }
    }

    pub(super) fn pause(&mut self, core: &mut Core, id: RecordingId, pause: bool) {
        let Some(session) = self.recording.sessions.iter_mut().find(|s| s.id == id) else { return };
        if session.is_paused == pause {
            return;
        }
        session.is_paused = pause;
        core.pairs.look_at(session.owner);
        let change = if pause { Change::Pause(id) } else { Change::Resume(id) };
        core.mark(session.recorder, change);
        self.fact(core, if pause { What::RecordingPaused { id } } else { What::RecordingResumed { id } });
    }

    /// A stop by request holds against automatic triggers for that leg until it leaves the call.
    pub(super) fn stop_by_request(&mut self, core: &mut Core, id: RecordingId) {
        let Some(at) = self.recording.sessions.iter().position(|s| s.id == id) else { return };
        let session = self.recording.sessions.remove(at);
        if let Some(leg) = self.leg_mut(session.owner) {
            leg.is_stopped = true;
        }
        self.end_session(core, &session, StopCause::Stopped);
        self.settle(core);
    }
}
