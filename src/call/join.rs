//! Two calls become one: an attended transfer joins the party that its transferor has on one dialog with the party on
//! the other one (RFC 5589 §7, spec/sip.md §5).
//!
//! The call that goes on is the one that was there first: the consult call ends in it. A leg whose media lives on another
//! thread moves there first.

use std::sync::Arc;

use super::Calls;
use super::call::{Call, Ending, Purpose, State};
use super::core::{Core, Join, Timer};
use super::fact;
use super::leg::Leg;
use super::refer::Report;
use super::talk::Doing;
use super::transfer::{Phase, Transfer};
use crate::id::{ConnId, LegId};
use crate::record::mark::Channel;
use crate::sip::endpoint::{DialogId, Reply, ServerTx};
use crate::sip::headers::Headers;
use crate::sip::name::Name;

/// One of the two calls as the transferor stands in it.
pub(super) struct End {
    pub call: Call,
    pub by: LegId,
}

impl Calls {
    /// Carries out the joins that the input in hand has asked for.
    pub(super) fn join_calls(&mut self) {
        while let Some(join) = self.core.joins.pop_front() {
            self.join(join);
        }
        self.ask_across();
    }

    fn join(&mut self, join: Join) {
        let Join { key, by, tx, report, other } = join;
        let named = self.core.index.dialogs.get(&other).copied().filter(|named| *named != key);
        let Some(named) = named else { return self.core.answer(tx, None, Reply::new(481)) };
        let (Some(first), Some(second)) = (self.calls.remove(&key), self.calls.remove(&named)) else { return };
        match joinable(&first, by, &second, other) {
            Ok(second_by) => {
                first.accept(&mut self.core, tx, &report);
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
}

/// The transferor's leg in the second call; else the code that refuses the join.
fn joinable(first: &Call, by: LegId, second: &Call, named: DialogId) -> Result<LegId, u16> {
    let leg = second.leg_of(named).ok_or(481_u16)?;
    let (a, b) = (first.leg(by).ok_or(481_u16)?, second.leg(leg).ok_or(481_u16)?);
    // A dialog of somebody else is none of the referrer's (spec/sip.md §5).
    let same = |a: &Leg, b: &Leg| match (&a.identity.dn, &a.identity.trunk) {
        (Some(dn), _) => b.identity.dn.as_ref() == Some(dn),
        (None, Some(trunk)) => b.identity.trunk.as_ref() == Some(trunk),
        (None, None) => Arc::ptr_eq(&a.identity, &b.identity) || a.identity.sources == b.identity.sources,
    };
    if !same(a, b) {
        return Err(481);
    }
    let calling = second.is_called_by(leg);
    if !can_join(first, second, calling) {
        return Err(491);
    }
    Ok(leg)
}

/// Both are in a state that allows it. `calling`: the transferor calls in the second.
pub(super) fn can_join(first: &Call, second: &Call, calling: bool) -> bool {
    first.is_plain() && (calling || second.is_plain() && !second.has_open_offer())
}

impl Call {
    fn accept(&self, core: &mut Core, tx: ServerTx, report: &Report) {
        let mut reply = Reply::new(202);
        if matches!(report, Report::Refer { is_subscribed: false, .. }) {
            reply.headers.push(Name::ReferSub, "false");
        }
        core.answer(tx, None, reply);
    }

    /// Takes over what is left of another call, and transfers `by`'s counterpart to the other call's.
    fn absorb(&mut self, core: &mut Core, by: LegId, end: End, report: Report) {
        let End { call: mut other, by: second } = end;
        let Some(stays) = self.talk().and_then(|t| t.opposite(by)) else { return };
        for leg in [by, second] {
            core.pairs.forget(leg);
        }
        self.away.retain(|away| away.owner != by);
        other.give_back(core);
        other.refuse_all_waiting(core);
        for timer in [Timer::Glare, Timer::Untap] {
            core.disarm(other.key, timer);
        }
        let state = std::mem::replace(&mut other.state, State::Over);
        let (phase, target) = match state {
            State::Calling(mut attempt) => {
                let id = attempt.dial.id;
                for timer in [Timer::Attempt(id), Timer::Ring(id)] {
                    core.hand_timer(other.key, self.key, timer);
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
                (Phase::Dialing(Box::new(attempt.dial)), None)
            }
            State::Talking(talk) => match talk.opposite(second) {
                Some(target) => (Phase::Moving(target), Some(target)),
                None => return,
            },
            State::Over => return,
        };
        self.adopt(core, &mut other);
        if target.is_none() {
            // Its INVITE has had its answer: nothing is left of it.
            self.part(core, second, Some(stays), &Report::Nobody);
        }
        let to = target.and_then(|t| self.leg(t)).map(Self::party).unwrap_or(fact::Party {
            dn: None,
            trunk: None,
            number: other.dialed_number.clone(),
        });
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
        self.notify(core, &report, 100, b"");
        // Whose media moves first is silent meanwhile.
        self.update_conversations(core);
        match target {
            Some(target) => self.transfer_answered(core, target),
            None => self.settle(core),
        }
    }

    /// The other call's legs, dialogs, requests and sessions are this one's from now on.
    fn adopt(&mut self, core: &mut Core, other: &mut Call) {
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
