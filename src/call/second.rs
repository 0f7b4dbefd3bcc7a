//! A consultation over a dialog of its own: a phone holds one call and places another one (spec/recording.md §4.4).
//!
//! | | the held call, *main* | the consult call, *second* |
//! |---|---|---|
//! | legs | the held party D1, the device's leg B1 | the device's leg B2, the consulted party D3 |
//! | recordings | B1's follow the device, if its DN says so | none of its own while the main call lives |
//!
//! The owner of a recording is the device: what it says in the second call is recorded under the name of B1, and B1's
//! own packets (the music of a phone that holds) go to no recorder meanwhile.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::Calls;
use super::call::{Call, State};
use super::core::{Core, Key};
use super::directory::Identity;
use super::leg::Leg;
use super::recording::{Session, conversation};
use super::request::{Request, Ticket};
use crate::codec::Codec;
use crate::id::{CallUuid, ConnId, LegId, LegMap, RecorderId, WorkerId};
use crate::record::mark::{Change, Channel, Conversation, Member, Role, StopCause};

/// The legs of devices that consult over a second dialog.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    /// Of a leg in a consult call the leg in the call that is held.
    mains: LegMap<LegId>,
    /// The other way round, oldest first.
    seconds: LegMap<Vec<LegId>>,
    /// Main legs whose recordings may be in another place by now.
    changed: BTreeSet<LegId>,
    /// Second legs whose main leg is gone.
    parted: BTreeSet<LegId>,
    /// Legs of consult calls that have ended: told once no session of the main call names them any more.
    ended: Vec<(RecorderId, LegId)>,
    /// Second legs whose calls have been answered.
    talking: BTreeSet<LegId>,
    /// Sessions of devices whose main call has ended.
    left: Vec<Left>,
    /// Requests that concern two calls.
    pub asked: VecDeque<Across>,
}

/// A request that concerns two calls of its DN.
#[derive(Debug)]
pub(super) enum Across {
    /// Complete, alternate, reconnect. `fetched`: its leg in the other call, which the phone holds no more.
    Two { ticket: Ticket, request: Box<Request>, fetched: Option<LegId> },
    /// A recording of the consulting device: it belongs to its leg in the call that is held.
    Recording { ticket: Ticket, request: Box<Request>, main: LegId },
}

/// Where the recordings of a party are that consults over another dialog.
#[derive(Debug)]
pub(super) struct Away {
    pub owner: LegId,
    /// The consultation with the device under the name of `owner`.
    pub conversation: Conversation,
}

/// A consult call whose legs sessions of the main call record.
#[derive(Debug)]
pub(super) struct Lent {
    /// The consulting device's leg.
    leg: LegId,
    recorders: Vec<RecorderId>,
    /// All of those sessions are paused.
    pub is_paused: bool,
}

/// A session whose call has ended while its device goes on in the consult call.
#[derive(Debug)]
struct Left {
    /// The device's leg there.
    second: LegId,
    session: Session,
    /// Under which leg recorders know the device, and which of them do.
    recorded: LegId,
    known: Vec<(RecorderId, LegId)>,
    channel: Channel,
    required: bool,
    conn_id: ConnId,
    cause: StopCause,
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
        call.is_plain().then_some((call.consults.is_none(), leg.held_since, call, leg))
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

impl Pairs {
    /// A device consults: `second` is its leg in the consult call.
    pub(super) fn link(&mut self, main: LegId, second: LegId) {
        self.mains.insert(second, main);
        self.seconds.entry(main).or_default().push(second);
        self.changed.insert(main);
    }

    /// The leg of a consulting device in the call that it holds.
    pub(super) fn main_of(&self, second: LegId) -> Option<LegId> {
        self.mains.get(&second).copied()
    }

    /// A leg's call has changed: where the recordings of its device are is looked at when the input in hand is done.
    pub(super) fn look_at(&mut self, leg: LegId) {
        let main = self.main_of(leg).or_else(|| self.seconds.contains_key(&leg).then_some(leg));
        self.changed.extend(main);
    }

    /// A leg ends, or its two calls become one.
    pub(super) fn forget(&mut self, leg: LegId) {
        self.changed.remove(&leg);
        self.parted.remove(&leg);
        self.talking.remove(&leg);
        if let Some(main) = self.mains.remove(&leg) {
            self.changed.insert(main);
            if let Some(seconds) = self.seconds.get_mut(&main) {
                seconds.retain(|second| *second != leg);
                if seconds.is_empty() {
                    self.seconds.remove(&main);
                }
            }
        }
        for second in self.seconds.remove(&leg).unwrap_or_default() {
            self.mains.remove(&second);
            self.parted.insert(second);
        }
    }

    /// The leg with which a device goes on when its main call ends.
    fn heir(&self, main: LegId) -> Option<LegId> {
        let seconds = self.seconds.get(&main)?;
        seconds.iter().copied().find(|second| self.talking.contains(second))
    }

    /// A leg of a consult call has ended.
    pub(super) fn end_later(&mut self, recorder: RecorderId, leg: LegId) {
        self.ended.push((recorder, leg));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.mains.is_empty()
            && self.seconds.is_empty()
            && self.talking.is_empty()
            && self.left.is_empty()
            && self.asked.is_empty()
            && self.ended.is_empty()
    }
}

impl Calls {
    /// Makes the recordings of consulting devices follow them, and those that have come back record the main call.
    pub(super) fn follow_calls(&mut self) {
        for left in std::mem::take(&mut self.core.pairs.left) {
            self.go_on_in(left);
        }
        while let Some(second) = self.core.pairs.parted.pop_first() {
            self.lend(second, None);
        }
        while let Some(main) = self.core.pairs.changed.pop_first() {
            self.follow(main);
        }
        for (recorder, leg) in std::mem::take(&mut self.core.pairs.ended) {
            self.core.mark(recorder, Change::LegEnded(leg));
        }
    }

    /// A session goes on in the consult call of its device, which is an ordinary call from now on.
    fn go_on_in(&mut self, left: Left) {
        let Left { second, mut session, recorded, known, channel, required, conn_id, cause } = left;
        let core = &mut self.core;
        let call = core.index.legs.get(&second).and_then(|key| self.calls.get_mut(key));
        let Some(call) = call.filter(|call| call.leg(second).is_some()) else {
            core.end_session(Some(conn_id), &session, cause);
            return known.into_iter().for_each(|(recorder, leg)| core.mark(recorder, Change::LegEnded(leg)));
        };
        call.lent = None;
        for leg in &mut call.legs {
            leg.channel = if leg.id == second { channel } else { channel.opposite() };
        }
        if let Some(leg) = call.leg_mut(second) {
            leg.take_known(core, recorded, known);
        }
        session.owner = second;
        core.index.recordings.insert(session.id, call.key);
        call.recording.required |= required;
        call.recording.sessions.push(session);
        call.settle_taps(core);
        call.update_conversations(core);
    }

    /// First what ends, then what begins: no packet of one call gets into the recording of the other.
    fn follow(&mut self, main: LegId) {
        let Some(key) = self.core.index.legs.get(&main).copied() else { return };
        let seconds = self.core.pairs.seconds.get(&main).cloned().unwrap_or_default();
        let recorders = self.calls.get(&key).and_then(|call| call.recorders_away(main));
        let active = recorders.and_then(|recorders| {
            let found = seconds.iter().find_map(|second| Some((*second, self.talks_in(main, *second)?)));
            found.map(|(second, conversation)| (second, conversation, recorders))
        });
        let talks = active.as_ref().map(|(second, ..)| *second);
        for second in seconds.iter().filter(|second| Some(**second) != talks) {
            self.lend(*second, None);
        }
        let mut away = None;
        let mut lent = None;
        if let Some((second, conversation, recorders)) = active {
            away = Some(Away { owner: main, conversation });
            lent = Some((second, recorders));
        }
        let Some(call) = self.calls.get_mut(&key) else { return };
        let is_paused = call.recording.sessions.iter().filter(|s| s.owner == main).all(|s| s.is_paused);
        let was_away = call.away.iter().any(|away| away.owner == main);
        if away.is_none() && !was_away {
            return;
        }
        call.away.retain(|away| away.owner != main);
        call.away.extend(away);
        call.settle_taps(&mut self.core);
        if let Some((second, recorders)) = lent {
            self.lend(second, Some((main, recorders, is_paused)));
        }
        if let Some(call) = self.calls.get_mut(&key) {
            call.update_conversations(&mut self.core);
        }
    }

    /// The conversation in a consult call, as a recording of the main leg tells it, while its device talks there.
    fn talks_in(&self, main: LegId, second: LegId) -> Option<Conversation> {
        let own = self.calls.get(self.core.index.legs.get(&main)?)?.leg(main)?;
        let call = self.calls.get(self.core.index.legs.get(&second)?)?;
        let leg = call.leg(second).filter(|leg| !leg.has_hold())?;
        call.talk()?;
        // In a consultation the consulted party takes the channel that its consulting party does not have.
        let channel = own.channel.opposite();
        let told = conversation(call, second);
        let member = |member: Member| match member.leg == leg.recorded() {
            true => Member {
                leg: own.recorded(),
                dn: own.identity.dn.clone(),
                uri: own.uri.clone(),
                role: own.role,
                channel: own.channel,
                holds: leg.holds(),
                held: leg.on_hold,
                ..member
            },
            false => Member { role: Role::Consulted, channel, ..member },
        };
        let members = told.members.into_iter().map(member).collect();
        Some(Conversation { owner: own.recorded(), members, consult: true, ..told })
    }

    /// The recorders of the main call's sessions get the packets of a consult call, or get them no more.
    fn lend(&mut self, second: LegId, to: Option<(LegId, Vec<RecorderId>, bool)>) {
        let core = &mut self.core;
        let recorded = |(main, recorders, is_paused): (LegId, Vec<RecorderId>, bool)| {
            let main = self.calls.get(core.index.legs.get(&main)?)?.leg(main)?;
            Some((main.recorded(), recorders, is_paused))
        };
        let to = to.and_then(recorded);
        let call = core.index.legs.get(&second).and_then(|key| self.calls.get_mut(key));
        let Some(call) = call else { return };
        match to {
            Some((recorded, recorders, is_paused)) => {
                if let Some(leg) = call.leg_mut(second) {
                    leg.record_as(core, Some(recorded));
                }
                call.lent = Some(Lent { leg: second, recorders, is_paused });
                call.settle_taps(core);
                for leg in &mut call.legs {
                    leg.is_lent = true;
                    leg.announce(core);
                }
            }
            None => {
                call.give_back(core);
                call.settle_taps(core);
            }
        }
        call.announce(core);
    }
}

impl Call {
    /// The recorders of the sessions that follow a leg into its consultation; `None`: it has none that does, or it
    /// does not hold this call.
    fn recorders_away(&self, main: LegId) -> Option<Vec<RecorderId>> {
        let leg = self.leg(main).filter(|leg| leg.has_hold() && leg.identity.record_consult)?;
        let sessions = self.recording.sessions.iter().filter(|session| session.owner == leg.id);
        let mut recorders: Vec<RecorderId> = sessions.map(|session| session.recorder).collect();
        recorders.sort();
        recorders.dedup();
        (self.is_plain() && !recorders.is_empty()).then_some(recorders)
    }

    /// What each leg's packets are wanted for, and whether what is not wanted any more ends at once.
    pub(super) fn wanted_taps(&self) -> Vec<(Vec<RecorderId>, bool)> {
        let own = match self.make() {
            // What comes ahead of the answer is recorded, too.
            Some(_) if self.recording.is_wanted() => self.recorders_with(self.recording.recorder),
            _ => self.recorders(),
        };
        let wanted = |leg: &Leg| match &self.lent {
            // Its music has a name of its own.
            _ if self.away.iter().any(|away| away.owner == leg.id) && !leg.music.is_sent() => (Vec::new(), true),
            Some(lent) if lent.leg == leg.id => (lent.recorders.clone(), true),
            Some(lent) => {
                let more = lent.recorders.iter().filter(|recorder| !own.contains(recorder));
                (own.iter().chain(more).copied().collect(), false)
            }
            None => (own.clone(), false),
        };
        self.legs.iter().map(wanted).collect()
    }

    /// Sessions of the main call record this one no more.
    pub(super) fn give_back(&mut self, core: &mut Core) {
        if let Some(lent) = self.lent.take()
            && let Some(leg) = self.leg_mut(lent.leg)
        {
            leg.record_as(core, None);
        }
    }

    /// The two calls of a consulting device become one: nothing follows it any more. True when its recordings did.
    pub(super) fn come_back(&mut self, core: &mut Core, main: LegId, second: LegId, other: &mut Call) -> bool {
        core.pairs.forget(main);
        core.pairs.forget(second);
        let before = self.away.len();
        self.away.retain(|away| away.owner != main);
        other.give_back(core);
        self.away.len() < before
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
        let (leaving, staying): (Vec<Session>, _) = std::mem::take(&mut self.recording.sessions)
            .into_iter()
            .partition(|session| core.pairs.heir(session.owner).is_some());
        self.recording.sessions = staying;
        self.away.clear();
        if !leaving.is_empty() {
            // A session that goes on names them until it is told of its new call.
            self.legs.iter_mut().for_each(|leg| leg.is_lent = true);
        }
        for session in leaving {
            let Some(second) = core.pairs.heir(session.owner) else { continue };
            let Some(leg) = self.leg_mut(session.owner) else { continue };
            let (recorded, known, channel) = (leg.recorded(), leg.leave_known(), leg.channel);
            core.pairs.left.push(Left { second, session, recorded, known, channel, required, conn_id, cause });
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
