//! Two calls become one: an attended transfer joins the party that its transferor has on one dialog with the party on
//! the other one (RFC 5589 §7, spec/sip.md §5).
//!
//! The call that goes on is the one that was there first: the consult call ends in it. A leg whose media lives on another
//! thread moves there first.

use super::Calls;
use super::attempt::Attempt;
use super::call::{Call, Ending, Purpose, State};
use super::core::{Core, Join, Key, Timer};
use super::dial::Dial;
use super::fact::{self, What};
use super::refer::{self, Report};
use super::talk::Doing;
use super::transfer::{Phase, Transfer};
use super::waiting::{LONGEST, Waiting};
use crate::id::{ConnId, LegId};
use crate::record::mark::Channel;
use crate::sip::endpoint::{DialogId, Reply};
use crate::sip::headers::Headers;
use crate::sip::name::Name;

/// One of the two calls as the transferor stands in it.
pub(super) struct End {
    pub call: Call,
    pub by: LegId,
}

impl Calls {
    /// Carries out the joins that the input in hand has asked for, and lets into rooms who may enter.
    pub(super) fn join_calls(&mut self) {
        while let Some(join) = self.core.joins.pop_front() {
            self.join(join);
        }
        self.enter_rooms();
        self.take_home();
        self.ask_across();
    }

    /// A dialog is the referrer's (spec/sip.md §5).
    fn is_own(&self, key: Key, by: LegId, named: Option<Key>, dialog: DialogId) -> bool {
        let referrer = self.calls.get(&key).and_then(|call| call.leg(by));
        let call = named.and_then(|named| self.calls.get(&named));
        let leg = call.and_then(|call| call.leg(call.leg_of(dialog)?));
        referrer.zip(leg).is_some_and(|(a, b)| a.identity.is_same_party(&b.identity))
    }

    fn join(&mut self, join: Join) {
        let named = self.core.index.dialogs.get(&join.other).copied();
        if !self.calls.contains_key(&join.key) {
            // Its call has ended while it waited.
            return self.core.answer(join.tx, None, Reply::new(481));
        }
        let is_own = self.is_own(join.key, join.by, named, join.other);
        let open = [Some(join.key), named].into_iter().flatten();
        let mut open = open.filter(|key| self.calls.get(key).is_some_and(Call::has_open_offer));
        if let Some(open) = open.next().filter(|_| is_own && join.since + LONGEST > self.core.now) {
            let join = Waiting::Join(Box::new(join));
            return self.with(Some(open), |call, core| call.wait(core, join));
        }
        let Join { key, by, tx, report, other, read, .. } = join;
        if !is_own {
            // Only the referrer's own dialogs count: this one is for the target to know.
            return self.with(Some(key), |call, core| call.refer_out(core, tx, by, *read, report));
        }
        // To replace the very dialog that the REFER came in makes no sense.
        let named = named.filter(|named| *named != key);
        let Some(named) = named else { return self.core.answer(tx, None, Reply::new(481)) };
        let early_only = read.refer.replaces.is_some_and(|replaces| replaces.early_only);
        let Some(first) = self.calls.remove(&key) else { return self.core.answer(tx, None, Reply::new(481)) };
        let Some(second) = self.calls.remove(&named) else {
            self.calls.insert(key, first);
            return self.core.answer(tx, None, Reply::new(481));
        };
        match joinable(&first, by, &second, other, early_only) {
            Ok(second_by) => {
                refer::accept(&mut self.core, tx, &report);
                let (first, second) = (End { call: first, by }, End { call: second, by: second_by });
                self.merge(first, second, report);
            }
            Err(code) => {
                self.core.answer(tx, None, Reply::new(code));
                self.calls.insert(first.key, first);
                self.calls.insert(second.key, second);
            }
        }
    }

    /// Makes one call of two and gives its ConnID. The consult call ends in the one that is held; of other calls the
    /// second one ends.
    pub(super) fn merge(&mut self, first: End, second: End, report: Report) -> ConnId {
        let swap = self.core.pairs.main_of(first.by) == Some(second.by);
        let (mut main, end) = if swap { (second, first) } else { (first, second) };
        let conn_id = main.call.conn_id;
        main.call.absorb(&mut self.core, main.by, end, report);
        main.call.announce(&mut self.core);
        if !main.call.is_over() {
            self.calls.insert(main.call.key, main.call);
        }
        conn_id
    }

    /// Makes one conference of two calls of a DN and gives its ConnID. The consult call ends in the one that is held, and
    /// every call in a room; of other calls the second one ends.
    pub(super) fn merge_conference(&mut self, first: End, second: End) -> ConnId {
        let swap = second.call.is_room() || self.core.pairs.main_of(first.by) == Some(second.by);
        let (mut main, end) = if swap { (second, first) } else { (first, second) };
        let (key, conn_id) = (main.call.key, main.call.conn_id);
        main.call.absorb_members(&mut self.core, main.by, end);
        self.calls.insert(key, main.call);
        self.with(Some(key), |_, _| {});
        conn_id
    }
}

/// The transferor's leg in the second call; else the code that refuses the join.
fn joinable(first: &Call, by: LegId, second: &Call, named: DialogId, early_only: bool) -> Result<LegId, u16> {
    let leg = second.leg_of(named).ok_or(481_u16)?;
    if early_only && second.talk().is_some() {
        return Err(486);
    }
    match can_join((first, by), (second, leg)) {
        true => Ok(leg),
        false => Err(491),
    }
}

/// Both calls, each with the transferor's leg there, are in a state that allows it. In the second one it may be calling.
pub(super) fn can_join((first, by): (&Call, LegId), (second, leg): (&Call, LegId)) -> bool {
    let talks = || second.talks_to_one(leg) && !second.has_open_offer();
    first.talks_to_one(by) && (second.is_called_by(leg) || talks())
}

impl Call {
    /// Takes over what is left of another call, and transfers `by`'s counterpart to the other call's.
    fn absorb(&mut self, core: &mut Core, by: LegId, end: End, report: Report) {
        let End { call: mut other, by: second } = end;
        let Some(stays) = self.talk().and_then(|t| t.opposite(by)) else { return };
        let was_away = self.come_back(core, by, second, &mut other);
        let observers = other.dissolve(core);
        let state = std::mem::replace(&mut other.state, State::Over);
        let (phase, target) = match state {
            State::Calling(attempt) => (Phase::Dialing(self.take_dial(core, other.key, *attempt)), None),
            State::Talking(talk) => match talk.opposite(second) {
                Some(target) => (Phase::Moving(target), Some(target)),
                None => return,
            },
            State::Over => return,
        };
        self.adopt(core, &mut other);
        if let Some(talk) = self.talk_mut() {
            talk.observers.extend(observers);
        }
        let called = match &phase {
            Phase::Dialing(dial) => self.called_by(dial),
            Phase::Moving(target) | Phase::Fitting(target) => self.leg(*target).map(Self::party),
        };
        let number = other.dialed_number.clone();
        let to = called.unwrap_or(fact::Party { dn: None, trunk: None, number });
        let started = to.clone();
        let channel = self.leg(by).map_or(Channel::Right, |l| l.channel);
        let transfer = Transfer {
            by,
            is_gone: false,
            second: target.map(|_| second),
            stays,
            to,
            channel,
            how: fact::Transfer::Consulted,
            phase,
            report: report.clone(),
            consult: Some(other.conn_id),
        };
        self.set_doing(Doing::Transfer(Box::new(transfer)));
        if target.is_none() {
            // Its INVITE has had its answer: nothing is left of it.
            self.part(core, second, Some(stays), &Report::Nobody);
        }
        self.notify(core, &report, 100, b"");
        if was_away {
            // Where media moves first, the consultation is over all the same.
            self.update_conversations(core);
        }
        match target {
            Some(target) => self.transfer_answered(core, target),
            None => {
                self.fact(core, What::TransferStarted { by, to: started, how: fact::Transfer::Consulted });
                self.settle(core);
            }
        }
    }

    /// Takes over the other call's parties but `by`'s leg there: all are in one conference.
    fn absorb_members(&mut self, core: &mut Core, by: LegId, end: End) {
        let End { call: mut other, by: second } = end;
        self.come_back(core, by, second, &mut other);
        let observers = other.dissolve(core);
        let State::Talking(talk) = std::mem::replace(&mut other.state, State::Over) else { return };
        let joining: Vec<LegId> = talk.members.iter().copied().filter(|member| *member != second).collect();
        self.adopt(core, &mut other);
        if let Some(talk) = self.talk_mut() {
            talk.observers.extend(observers);
        }
        self.part(core, second, None, &Report::Nobody);
        core.index.conns.remove(&other.conn_id);
        for leg in self.legs.iter_mut().filter(|l| l.id == by || joining.contains(&l.id)) {
            leg.on_hold = false;
        }
        for (n, leg) in joining.into_iter().enumerate() {
            self.leg_mut(leg).into_iter().for_each(|leg| leg.channel = Channel::Right);
            let consult = (n == 0).then_some(other.conn_id);
            self.join_member(core, leg, by, consult);
        }
    }

    /// Takes over the branches of a call that rings; its caller's INVITE gets its final answer.
    fn take_dial(&self, core: &mut Core, other: Key, mut attempt: Attempt) -> Box<Dial> {
        let id = attempt.dial.id;
        for timer in [Timer::Attempt(id), Timer::Ring(id)] {
            core.hand_timer(other, self.key, timer);
        }
        let mut answer_headers = Headers::new();
        answer_headers.push(Name::Reason, "SIP;cause=200;text=\"Call completed elsewhere\"");
        attempt.refuse_caller(core, Ending { answer_headers, ..Ending::code(487) });
        attempt.upstream.clear();
        for branch in &attempt.dial.branches {
            core.index.invites.insert(branch.invite, self.key);
            for fork in &branch.forks {
                core.index.dialogs.insert(fork.dialog, self.key);
            }
        }
        Box::new(attempt.dial)
    }

    /// The other call's legs, dialogs, requests and sessions are this one's from now on.
    pub(super) fn adopt(&mut self, core: &mut Core, other: &mut Call) {
        // What has recorded it is told anew where it goes on.
        other.give_all_back(core);
        for leg in other.legs.drain(..) {
            core.index.legs.insert(leg.id, self.key);
            if let Some(dialog) = leg.dialog {
                core.index.dialogs.insert(dialog, self.key);
            }
            self.legs.push(leg);
        }
        for (request, purpose) in other.pending.drain(..) {
            if let Purpose::PassOffer { tx, .. } | Purpose::Pass { tx } = purpose {
                core.index.requests.remove(&request);
                core.index.txs.remove(&tx);
                core.answer(tx, None, Reply::new(491));
            } else {
                core.index.requests.insert(request, self.key);
                self.pending.push((request, purpose));
            }
        }
        self.away.append(&mut other.away);
        for session in other.recording.sessions.drain(..) {
            core.index.recordings.insert(session.id, self.key);
            self.recording.sessions.push(session);
        }
        self.recording.required |= other.recording.required;
        for dialog in other.parting.drain(..) {
            core.index.dialogs.remove(&dialog);
            core.bye(dialog, Headers::new(), None);
        }
        core.disarm(other.key, Timer::Parting);
    }
}
