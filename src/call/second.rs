//! A consultation over a dialog of its own: a phone holds one call and places another one (spec/recording.md §4.4).
//!
//! | | the held call, *main* | the consult call, *second* |
//! |---|---|---|
//! | legs | the held party D1, the device's leg B1 | the device's leg B2, the consulted party D3 |
//! | recordings | B1's and its supervisors' follow the device, if their owners' DNs say so | none of its own while the main call lives |
//! | supervisors | B1's come along, if its DN says so ([`super::companions`]) | D3's, if its DN says so |
//!
//! The owner of a recording is the device: what it says in the second call is recorded under the name of B1, and B1's
//! own packets (the music of a phone that holds) go to no recorder meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Calls;
use super::call::{Call, State};
use super::core::{Core, Key};
use super::directory::Identity;
use super::leg::Leg;
use super::pairs::{Device, Left};
use super::recording::{Session, conversation, held_conversation};
use crate::codec::Codec;
use crate::id::{CallUuid, ConnId, LegId, RecorderId, WorkerId};
use crate::record::mark::{Change, Conversation, Member, Role, StopCause};

/// What recordings of the main call are told while a device consults over another dialog.
#[derive(Debug)]
pub(super) struct Away {
    /// The device's leg in the main call.
    pub main: LegId,
    /// Sessions record the consult call: its packets come under the names of this one.
    is_recorded: bool,
    /// Of each owner that is not in the main call. Of one whose DN does not let its recordings follow: the main call,
    /// silent.
    told: Vec<(LegId, Conversation)>,
}

impl Away {
    /// What the recordings of a supervisor are told that has gone with the device.
    pub(super) fn of_supervisor(main: LegId, supervisor: LegId, conversation: Conversation) -> Self {
        Self { main, is_recorded: false, told: vec![(supervisor, conversation)] }
    }

    /// The supervisor is back in the main call.
    pub(super) fn forget(&mut self, supervisor: LegId) {
        self.told.retain(|(told, _)| *told != supervisor);
    }

    pub(super) fn told(&self, owner: LegId) -> Option<&Conversation> {
        self.told.iter().find(|(told, _)| *told == owner).map(|(_, conversation)| conversation)
    }
}

/// A consult call whose legs sessions of the main call record.
#[derive(Debug)]
pub(super) struct Lent {
    /// The consulting device's leg.
    leg: LegId,
    lending: Lending,
}

impl Lent {
    /// All of those sessions are paused.
    pub(super) fn is_paused(&self) -> bool {
        self.lending.is_paused
    }

    /// The recorders of sessions that a leg owns in the call that its device holds.
    pub(super) fn recorders_of(&self, leg: LegId) -> &[RecorderId] {
        if self.leg == leg { &self.lending.own } else { &[] }
    }
}

/// The sessions that record a consult call.
#[derive(Debug)]
struct Lending {
    recorders: Vec<RecorderId>,
    /// Those of sessions that the device owns: what it hears is recorded, too.
    own: Vec<RecorderId>,
    is_paused: bool,
}

/// The call that a DN holds while it places another one.
pub(super) struct Held {
    /// Its leg there.
    pub leg: LegId,
    pub conn_id: ConnId,
    pub uuid: CallUuid,
    pub worker: WorkerId,
    pub recorder: RecorderId,
    pub allowed: Option<Arc<[Codec]>>,
}

/// The established call that a DN holds, by its device or by request: of several the one that it has held last, and
/// one that is no consult call itself before others.
pub(super) fn held_by(core: &Core, calls: &BTreeMap<Key, Call>, caller: &Identity) -> Option<Held> {
    let legs = core.index.dns.get(caller.dn.as_ref()?)?;
    let held = legs.iter().filter_map(|id| {
        let call = calls.get(core.index.legs.get(id)?)?;
        let leg = call.leg(*id).filter(|leg| leg.has_hold() && leg.dialog.is_some())?;
        // Who only observes a call holds nobody in it.
        call.talks_to_one(leg.id).then_some((call.consults.is_none(), leg.held_since, call, leg))
    });
    let (_, _, call, leg) = held.max_by_key(|(is_main, since, ..)| (*is_main, *since))?;
    Some(Held {
        leg: leg.id,
        conn_id: call.conn_id,
        uuid: call.uuid,
        worker: leg.worker,
        recorder: call.recording.recorder,
        allowed: call.allowed.clone(),
    })
}

impl Calls {
    /// Makes the recordings and supervisors of consulting devices follow them, and those that have come back go on in the
    /// main call.
    pub(super) fn follow_calls(&mut self) {
        self.take_home();
        for note in std::mem::take(&mut self.core.pairs.notes) {
            let key = self.core.index.legs.get(&note.main);
            if let Some(call) = key.and_then(|key| self.calls.get_mut(key)) {
                call.on_note(&mut self.core, &note);
            }
        }
        for device in std::mem::take(&mut self.core.pairs.devices) {
            self.go_on_as(device);
        }
        for left in std::mem::take(&mut self.core.pairs.left) {
            self.go_on_in(left);
        }
        while let Some(second) = self.core.pairs.parted.pop_first() {
            self.settle_down(second);
            self.lend(second, None);
        }
        while let Some(main) = self.core.pairs.changed.pop_first() {
            self.follow(main);
        }
        for (recorder, leg) in std::mem::take(&mut self.core.pairs.ended) {
            // One whose name was lent may be known there by itself by now.
            let lives = self.call_with(leg).and_then(|call| call.leg(leg));
            if !lives.is_some_and(|leg| leg.is_known_to(recorder)) {
                self.core.mark(recorder, Change::LegEnded(leg));
            }
        }
    }

    /// A device goes on in its consult call, which is an ordinary call from now on, as the leg that sessions know.
    fn go_on_as(&mut self, device: Device) {
        let Device { second, recorded, known, channel } = device;
        let core = &mut self.core;
        let call = core.index.legs.get(&second).and_then(|key| self.calls.get_mut(key));
        let Some(call) = call.filter(|call| call.leg(second).is_some()) else {
            return known.into_iter().for_each(|(recorder, leg)| core.pairs.end_later(recorder, leg));
        };
        call.lent.retain(|lent| lent.leg != second);
        for leg in &mut call.legs {
            leg.channel = if leg.id == second { channel } else { channel.opposite() };
        }
        if let Some(leg) = call.leg_mut(second) {
            leg.take_known(core, recorded, known);
        }
    }

    /// A session goes on in the consult call of its owner.
    fn go_on_in(&mut self, left: Left) {
        let Left { owner, mut session, required, conn_id, cause } = left;
        let core = &mut self.core;
        let call = core.index.legs.get(&owner).and_then(|key| self.calls.get_mut(key));
        let Some(call) = call.filter(|call| call.leg(owner).is_some()) else {
            return core.end_session(Some(conn_id), &session, cause);
        };
        session.owner = owner;
        core.index.recordings.insert(session.id, call.key);
        call.recording.required |= required;
        call.recording.sessions.push(session);
        call.settle_taps(core);
        call.update_conversations(core);
    }

    /// First what ends, then what begins: no packet of one call gets into the recording of the other.
    fn follow(&mut self, main: LegId) {
        let Some(key) = self.core.index.legs.get(&main).copied() else { return };
        let active = self.active_second(main);
        self.accompany(main, active);
        let away = self.away(main, active);
        let recorded = away.as_ref().filter(|(away, _)| away.is_recorded).and(active);
        for second in self.seconds_of(main) {
            if Some(second) != recorded {
                self.lend(second, None);
            }
        }
        let Some(call) = self.calls.get_mut(&key) else { return };
        if away.is_none() && !call.away.iter().any(|away| away.main == main) {
            return;
        }
        call.away.retain(|away| away.main != main);
        let (away, lent) = away.unzip();
        if away.is_some() {
            // What is told of the held call is told anew only after something has happened in it.
            call.legs.iter_mut().for_each(Leg::lend);
        }
        call.away.extend(away);
        call.settle_taps(&mut self.core);
        if let Some((second, lent)) = recorded.zip(lent) {
            self.lend(second, Some((main, lent)));
        }
        // What the device hears there may have got a name by that.
        let again = self.away(main, active).map(|(away, _)| away);
        if let Some(call) = self.calls.get_mut(&key) {
            call.away.retain(|away| away.main != main);
            call.away.extend(again);
            call.update_conversations(&mut self.core);
        }
    }

    pub(super) fn seconds_of(&self, main: LegId) -> Vec<LegId> {
        self.core.pairs.seconds.get(&main).cloned().unwrap_or_default()
    }

    pub(super) fn call_with(&self, leg: LegId) -> Option<&Call> {
        self.calls.get(self.core.index.legs.get(&leg)?)
    }

    /// The leg of a device that holds its main call in the consult call in which it talks.
    fn active_second(&self, main: LegId) -> Option<LegId> {
        let call = self.call_with(main)?;
        call.leg(main).filter(|leg| leg.has_hold() && call.talks_to_one(main))?;
        let talks = |second: &LegId| {
            let call = self.call_with(*second)?;
            Some(call.talk().is_some() && !call.leg(*second)?.has_hold())
        };
        self.seconds_of(main).into_iter().find(|second| talks(second) == Some(true))
    }

    /// What the recordings of those are told that are not in the main call, and which of them record the consult call.
    fn away(&self, main: LegId, active: Option<LegId>) -> Option<(Away, Lending)> {
        let call = self.call_with(main)?;
        let own = call.leg(main)?;
        let sessions = &call.recording.sessions;
        let talk = |owner| self.talk_in(own, active?, owner);
        let mut told = Vec::new();
        let mut following = Vec::new();
        let goes = own.identity.record_consult && sessions.iter().any(|session| session.owner == main);
        if let Some(talk) = active.filter(|_| goes).and_then(talk) {
            following.push(main);
            told.push((main, talk));
        }
        for (supervisor, _) in self.core.pairs.companions.iter().filter(|(_, home)| **home == main) {
            let Some(leg) = self.call_with(*supervisor).and_then(|call| call.leg(*supervisor)) else { continue };
            let is_there = active.is_some_and(|second| self.is_in_call_of(*supervisor, second));
            let talk = Some(leg.id).filter(|_| is_there && leg.identity.record_consult).and_then(talk);
            following.extend(talk.is_some().then_some(leg.id));
            told.push((leg.id, talk.unwrap_or_else(|| held_conversation(call, main, leg))));
        }
        let recorders_of = |owners: &[LegId]| {
            let owned = sessions.iter().filter(|session| owners.contains(&session.owner));
            owned.map(|session| session.recorder).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
        };
        let own = if following.contains(&main) { recorders_of(&[main]) } else { Vec::new() };
        let recorders = recorders_of(&following);
        let is_paused = sessions.iter().filter(|s| following.contains(&s.owner)).all(|session| session.is_paused);
        let is_recorded = !recorders.is_empty();
        (!told.is_empty()).then_some((Away { main, is_recorded, told }, Lending { recorders, own, is_paused }))
    }

    fn is_in_call_of(&self, leg: LegId, other: LegId) -> bool {
        let legs = &self.core.index.legs;
        legs.get(&leg).is_some_and(|key| legs.get(&other) == Some(key))
    }

    /// The conversation of an owner in a consult call, with the device as its main leg.
    fn talk_in(&self, own: &Leg, second: LegId, owner: LegId) -> Option<Conversation> {
        let owner = if owner == own.id { second } else { owner };
        let call = self.call_with(second)?;
        let leg = call.leg(second)?;
        // In a consultation the consulted party takes the channel that its consulting party does not have.
        let channel = own.channel.opposite();
        let told = conversation(call, owner);
        let member = |member: Member| match member.role {
            _ if member.leg == leg.recorded() => {
                Member { holds: leg.holds(), held: leg.on_hold, muted: member.muted, ..own.as_member() }
            }
            Role::Supervisor => member,
            Role::System => Member { channel, ..member },
            _ => Member { role: Role::Consulted, channel, ..member },
        };
        let members = told.members.into_iter().map(member).collect();
        let owner = if told.owner == leg.recorded() { own.recorded() } else { told.owner };
        Some(Conversation { owner, members, consult: true, ..told })
    }

    /// The recorders of the main call's sessions get the packets of a consult call, or get them no more.
    fn lend(&mut self, second: LegId, to: Option<(LegId, Lending)>) {
        let core = &mut self.core;
        let mut recorded = |(main, lending): (LegId, Lending)| {
            let main = self.calls.get_mut(core.index.legs.get(&main)?)?.leg_mut(main)?;
            main.lend();
            Some((main.recorded(), lending))
        };
        let to = to.and_then(&mut recorded);
        let call = core.index.legs.get(&second).and_then(|key| self.calls.get_mut(key));
        let Some(call) = call else { return };
        match to {
            Some((recorded, lending)) => {
                let is_new =
                    call.leg_mut(second).is_some_and(|leg| leg.borrow_name(core, recorded, &lending.recorders));
                if is_new {
                    call.look_at_others(core, second);
                }
                call.lent.retain(|lent| lent.leg != second);
                call.lent.push(Lent { leg: second, lending });
                call.settle_taps(core);
                for leg in &mut call.legs {
                    leg.lend();
                    leg.announce(core);
                }
            }
            None => {
                call.give_back(core, second);
                call.settle_taps(core);
            }
        }
        // Its own ones, of a supervisor of who is consulted, name the device as it is recorded now.
        call.update_conversations(core);
        call.announce(core);
    }
}

impl Call {
    /// What each leg's packets are wanted for, and whether what is not wanted any more ends at once.
    pub(super) fn wanted_taps(&self) -> Vec<(Vec<RecorderId>, bool)> {
        let own = match self.make() {
            // What comes ahead of the answer is recorded, too.
            Some(_) if self.recording.is_wanted() => self.recorders_with(self.recording.recorder),
            _ => self.recorders(),
        };
        let mut all = own;
        for recorder in self.lent.iter().flat_map(|lent| &lent.lending.recorders) {
            if !all.contains(recorder) {
                all.push(*recorder);
            }
        }
        let wanted = |leg: &Leg| {
            let is_elsewhere = self.away.iter().any(|away| away.is_recorded && away.main == leg.id);
            // Its music has a name of its own.
            match is_elsewhere && !leg.music.is_sent() {
                true => (Vec::new(), true),
                false => (all.clone(), self.lent.iter().any(|lent| lent.leg == leg.id)),
            }
        };
        self.legs.iter().map(wanted).collect()
    }

    /// Sessions of the main call of the device with this leg record the call no more.
    pub(super) fn give_back(&mut self, core: &mut Core, second: LegId) {
        let before = self.lent.len();
        self.lent.retain(|lent| lent.leg != second);
        if self.lent.len() < before
            && let Some(leg) = self.leg_mut(second)
        {
            leg.give_name_back(core);
            self.look_at_others(core, second);
        }
    }

    /// The same for all devices that consult in it.
    pub(super) fn give_all_back(&mut self, core: &mut Core) {
        for second in self.lent.iter().map(|lent| lent.leg).collect::<Vec<_>>() {
            self.give_back(core, second);
        }
    }

    /// Recordings of other devices that consult in the call are to be told of one by another name.
    fn look_at_others(&self, core: &mut Core, second: LegId) {
        self.lent.iter().filter(|lent| lent.leg != second).for_each(|lent| core.pairs.look_at(lent.leg));
    }

    /// The two calls of a consulting device become one: nothing follows it any more. True when recordings did.
    pub(super) fn come_back(&mut self, core: &mut Core, main: LegId, second: LegId, other: &mut Call) -> bool {
        core.pairs.forget(main);
        core.pairs.forget(second);
        other.are_home(core, main);
        let before = self.away.len();
        self.away.retain(|away| away.main != main);
        other.give_back(core, second);
        self.away.len() < before
    }

    /// Both legs of a device are in this call, which has become one with the other in some way: it consults nobody.
    pub(super) fn unlink_pairs(&mut self, core: &mut Core) {
        let pairs = self.legs.iter().filter_map(|leg| Some((leg.id, core.pairs.main_of(leg.id)?)));
        let pairs: Vec<(LegId, LegId)> = pairs.filter(|(_, main)| self.leg(*main).is_some()).collect();
        for (second, main) in pairs {
            core.pairs.forget(second);
            self.are_home(core, main);
            self.away.retain(|away| away.main != main);
            self.give_back(core, second);
        }
    }

    /// Notes since when each leg holds, and that the recordings of consulting devices are to be looked at.
    pub(super) fn settle_pairs(&mut self, core: &mut Core) {
        for leg in &mut self.legs {
            match leg.has_hold() {
                true => _ = leg.held_since.get_or_insert(core.now),
                false => leg.held_since = None,
            }
            core.pairs.look_at(leg.id);
            if core.pairs.main_of(leg.id).is_some() {
                core.pairs.talking.insert(leg.id);
            }
        }
    }

    /// The call ends while devices that own recordings of it go on in consult calls of theirs: so do the recordings
    /// (spec/recording.md §2: the owner is the device).
    pub(super) fn leave_to_devices(&mut self, core: &mut Core, cause: StopCause) {
        let (required, conn_id) = (self.recording.required, self.conn_id);
        let goes_on = |owner| core.pairs.heir(owner).is_some() || core.pairs.companions.contains_key(&owner);
        let (leaving, staying): (Vec<Session>, _) =
            std::mem::take(&mut self.recording.sessions).into_iter().partition(|session| goes_on(session.owner));
        self.recording.sessions = staying;
        let away = std::mem::take(&mut self.away);
        if !leaving.is_empty() {
            // A session that goes on names them until it is told of its new call.
            self.legs.iter_mut().for_each(Leg::lend);
        }
        let is_known = |leg| away.iter().any(|away| away.is_recorded && away.main == leg);
        for leg in self.legs.iter_mut() {
            let Some(second) = core.pairs.heir(leg.id) else { continue };
            if is_known(leg.id) || leaving.iter().any(|session| session.owner == leg.id) {
                let (recorded, known, channel) = (leg.recorded(), leg.leave_known(), leg.channel);
                core.pairs.devices.push(Device { second, recorded, known, channel });
            }
        }
        for session in leaving {
            // A supervisor in a consult call is the same leg there.
            let owner = core.pairs.heir(session.owner).unwrap_or(session.owner);
            core.pairs.left.push(Left { owner, session, required, conn_id, cause });
        }
    }

    /// It is a consultation of a device that has its main call still.
    pub(super) fn consulting(&self, core: &Core) -> Option<(LegId, LegId)> {
        self.consults?;
        self.legs.iter().find_map(|leg| Some((leg.id, core.pairs.main_of(leg.id)?)))
    }

    /// It rings for this leg.
    pub(super) fn is_called_by(&self, leg: LegId) -> bool {
        matches!(self.state, State::Calling(_)) && self.legs.first().is_some_and(|caller| caller.id == leg)
    }
}
