//! Transfers: one party leaves, another takes its place (spec/recording.md §4.2, spec/sip.md §5).
//!
//! ```text
//!             202 or request accepted        2xx of the target             on one media thread
//!   (none) ──────────────────────► Dialing ───────────────────► Moving ────────────────► done: bridged
//!                                     │ failure, ring timeout      ▲
//!                                     ▼                            │ REFER with Replaces, complete-transfer:
//!                        restored, or over when `by` has left      └── the target talks already
//! ```
//! A target that hangs up before it is bridged has failed, too.
//! From the beginning to the outcome nobody is bridged: all are silent in recordings, the participants unchanged.

use super::call::{Call, Ending, State, mapped};
use super::core::{Core, Timer};
use super::dial::{Dial, DialId, Head};
use super::directory::Destination;
use super::fact::{self, Party, ReleaseCause, What};
use super::headers::passed_failure;
use super::leg::{Leg, carries_sound};
use super::refer::Report;
use super::talk::Doing;
use crate::id::{ConnId, LegId};
use crate::record::mark::{Channel, StopCause};
use crate::sdp::Terms;
use crate::sip::headers::Headers;
use crate::sip::message::Response;
use crate::sip::name::Name;
use crate::sip::values::{NameAddr, Uri, reason_phrase};

/// A running transfer.
#[derive(Debug)]
pub(super) struct Transfer {
    /// The transferor.
    pub by: LegId,
    /// It has hung up before the outcome.
    pub is_gone: bool,
    /// A second dialog of the transferor that ends with it.
    pub second: Option<LegId>,
    /// Who is transferred.
    pub stays: LegId,
    pub to: Party,
    /// The channel of the target: the transferor's.
    pub channel: Channel,
    pub how: fact::Transfer,
    pub phase: Phase,
    /// Whom the outcome is reported to.
    pub report: Report,
    /// The consult call that ends with it.
    pub consult: Option<ConnId>,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// The target is being called.
    Dialing(Box<Dial>),
    /// The target talks; the one that stays is offered its codecs.
    Fitting(LegId),
    /// The target talks; its leg is on its way to the media thread of the one that stays.
    Moving(LegId),
}

/// What a transfer is told at its beginning.
pub(super) struct Order {
    pub by: LegId,
    pub destination: Destination,
    /// The number called.
    pub number: String,
    pub how: fact::Transfer,
    pub report: Report,
    pub max_forwards: u8,
    /// Referred-By as the transferor gave it.
    pub referred_by: Option<bytes::Bytes>,
    /// Replaces, and Require with it, for the target: the dialog is one of its own.
    pub replaces: Headers,
}

impl Transfer {
    /// Who is in the conversation of an owner until the outcome. Of two calls that are joined each keeps its own two.
    pub(super) fn members_of(&self, owner: LegId, members: &[LegId]) -> Vec<LegId> {
        match &self.phase {
            Phase::Moving(target) | Phase::Fitting(target) if owner == *target || self.second == Some(owner) => {
                self.second.into_iter().chain([*target]).collect()
            }
            // What a target has said ahead of its answer is recorded as its own.
            Phase::Dialing(dial) if dial.branches.iter().any(|branch| branch.leg == owner) => vec![owner],
            _ => members.to_vec(),
        }
    }

    /// The target, once it has answered.
    pub(super) fn target(&self) -> Option<LegId> {
        match self.phase {
            Phase::Dialing(_) => None,
            Phase::Fitting(target) | Phase::Moving(target) => Some(target),
        }
    }

    pub(super) fn dial(&self) -> Option<&Dial> {
        match &self.phase {
            Phase::Dialing(dial) => Some(dial),
            Phase::Fitting(_) | Phase::Moving(_) => None,
        }
    }

    pub(super) fn dial_mut(&mut self) -> Option<&mut Dial> {
        match &mut self.phase {
            Phase::Dialing(dial) => Some(dial),
            Phase::Fitting(_) | Phase::Moving(_) => None,
        }
    }
}

impl Call {
    /// Calls the target. The state has been checked: two members, nothing else going on.
    pub(super) fn start_transfer(&mut self, core: &mut Core, order: Order) {
        let Order { by, destination, number, how, report, max_forwards, referred_by, replaces } = order;
        let Some(stays) = self.talk().and_then(|t| t.opposite(by)) else { return };
        let to = destination.identity.party(number);
        let channel = self.leg(by).map_or(Channel::Right, |l| l.channel);
        let Some(mut head) = self.head_for(stays, by, max_forwards, referred_by) else { return };
        replaces.lines().iter().for_each(|line| head.extra.push_line(line.clone()));
        let dial = self.dial_for(core, stays, head, destination);
        let id = dial.id;
        let transfer = Transfer {
            by,
            is_gone: false,
            second: None,
            stays,
            to: to.clone(),
            channel,
            how,
            phase: Phase::Dialing(Box::new(dial)),
            report,
            consult: None,
        };
        self.set_doing(Doing::Transfer(Box::new(transfer)));
        self.fact(core, What::TransferStarted { by, to, how });
        core.arm(self.key, Timer::Ring(id), core.options.sip.ring_timeout);
        self.settle(core);
        self.go_on(core, id);
    }

    pub(super) fn set_doing(&mut self, doing: Doing) {
        if let Some(talk) = self.talk_mut() {
            talk.doing = doing;
        }
    }

    /// A dial for a party of this call: it is offered what `party` uses first.
    pub(super) fn dial_for(&self, core: &mut Core, party: LegId, head: Head, destination: Destination) -> Dial {
        let leg = self.leg(party);
        let wants = self.shown(core, party);
        let codecs = self.allowed.as_deref().unwrap_or(&core.options.media.codecs);
        let mut terms = match (&self.allowed, leg.and_then(|l| l.sdp.terms())) {
            (None, Some(terms)) => terms.clone().with_direction(wants),
            _ => Terms::of(codecs, wants),
        };
        if let Some(used) = leg.and_then(Leg::codec).filter(|c| carries_sound(c)) {
            terms = terms.preferring(used);
        }
        let worker = leg.map_or(crate::id::WorkerId(0), |l| l.worker);
        Dial::new(core.next_dial(), head, terms, destination, worker)
    }

    /// What the INVITE to a target says that talks to `party` in place of `replaced` (spec/sip.md §4).
    fn head_for(
        &self,
        party: LegId,
        replaced: LegId,
        max_forwards: u8,
        referred_by: Option<bytes::Bytes>,
    ) -> Option<Head> {
        let (party, replaced) = (self.leg(party)?, self.leg(replaced)?);
        let own = |leg: &Leg| NameAddr::new(Uri::sip(Some(leg.number.as_bytes()), leg.local.sip));
        let mut extra = Headers::new();
        extra.push(Name::ReferredBy, referred_by.unwrap_or_else(|| own(replaced).encode()));
        let mut diversion = own(replaced).encode().to_vec();
        diversion.extend_from_slice(b";reason=deflection");
        extra.push(Name::Diversion, diversion);
        let (same_class, channel) = (replaced.role, replaced.channel);
        Some(Head { max_forwards, extra, same_class, channel, ..Head::of_party(party) })
    }

    /// A provisional answer of a target, for whoever has asked for it.
    pub(super) fn report_progress(&mut self, core: &mut Core, dial: DialId, response: &Response) {
        let is_it = |d: &Dial| d.id == dial;
        let transfer = self.transfer().filter(|t| t.dial().is_some_and(is_it)).map(|t| &t.report);
        let invited = || self.talk()?.invited.iter().find(|i| is_it(&i.dial)).map(|i| &i.report);
        let report = transfer.or_else(invited).cloned();
        if let Some(report) = report {
            self.notify(core, &report, response.code, &response.reason);
        }
    }

    /// The target has answered and is acknowledged. Where the two that are to talk share no codec and we cannot transcode,
    /// the one that stays is offered the target's first: refused, the call is as before.
    pub(super) fn transfer_answered(&mut self, core: &mut Core, target: LegId) {
        if self.transfer().is_some_and(|t| !matches!(t.phase, Phase::Fitting(_))) && self.fit(core, target) {
            return;
        }
        let Some(transfer) = self.transfer_mut() else { return };
        transfer.phase = Phase::Moving(target);
        let stays = transfer.stays;
        let thread = self.leg(stays).map(|l| l.worker);
        if let Some(worker) = thread.filter(|worker| self.leg(target).is_some_and(|l| l.worker != *worker)) {
            // Until it arrives nobody is bridged.
            self.settle(core);
            if let Some(target) = self.leg_mut(target) {
                target.move_to(core, worker);
            }
            return;
        }
        self.go_on_transfer(core);
    }

    /// Offers the one that stays the codecs of the target, if it hears none of them otherwise. False: nothing is in the way,
    /// or another offer is.
    fn fit(&mut self, core: &mut Core, target: LegId) -> bool {
        let Some(stays) = self.transfer().map(|t| t.stays) else { return false };
        if self.has_open_offer() || self.can_talk(stays, target) || !self.offer_codecs_of(core, stays, target) {
            return false;
        }
        if let Some(transfer) = self.transfer_mut() {
            transfer.phase = Phase::Fitting(target);
        }
        self.settle(core);
        true
    }

    /// A transfer waits for the one that stays to take the target's codecs.
    pub(super) fn is_fitting(&self) -> bool {
        self.transfer().is_some_and(|t| matches!(t.phase, Phase::Fitting(_)))
    }

    /// The one that stays has answered the offer of the target's codecs.
    pub(super) fn fitted(&mut self, core: &mut Core, taken: bool) {
        let Some(Transfer { phase: Phase::Fitting(target), .. }) = self.transfer() else { return };
        let target = *target;
        if taken {
            return self.transfer_answered(core, target);
        }
        let dialog = self.leg_mut(target).and_then(|l| l.dialog.take());
        if let Some(dialog) = dialog {
            core.index.dialogs.remove(&dialog);
            core.bye(dialog, Headers::new(), None);
        }
        self.drop_leg(core, target);
        self.transfer_failed(core, ReleaseCause::Rejected(488), &Response::new(488, reason_phrase(488)));
    }

    /// All legs are on one media thread: the one that stays and the target are bridged, the transferor leaves.
    pub(super) fn go_on_transfer(&mut self, core: &mut Core) {
        let Some(Transfer { phase: Phase::Moving(target), .. }) = self.transfer() else { return self.settle(core) };
        let target = *target;
        let Some(talk) = self.talk_mut() else { return };
        let Doing::Transfer(transfer) = std::mem::replace(&mut talk.doing, Doing::Nothing) else { return };
        talk.members = vec![transfer.stays, target];
        talk.again = None;
        let Some(party) = self.leg(target).map(Self::party) else { return };
        for leg in &mut self.legs {
            leg.on_hold = false;
        }
        let Transfer { by, second, stays, channel, how, report, consult, .. } = *transfer;
        if let Some(leg) = self.leg_mut(target) {
            leg.channel = channel;
            if how != fact::Transfer::SingleStep {
                // Its INVITE has named the one who consulted it.
                leg.announced.partner.get_or_insert(by);
            }
        }
        // The owner rule: who has left takes its sessions along; both dialogs of the transferor before the recorder is
        // told who talks now.
        for leaving in std::iter::once(by).chain(second) {
            self.hand_over(core, leaving, Some(stays));
        }
        // Before the transferor's supervisors leave with it: that is why they do.
        self.note(core, "transferred", by);
        self.fact(core, What::Transferred { by, stays, target, party, how, consult });
        self.part(core, by, Some(stays), &report);
        if let Some(second) = second {
            self.part(core, second, Some(stays), &report);
        }
        if let Some(consult) = consult {
            core.index.conns.remove(&consult);
        }
        if !self.start_own_of(core, stays, target) {
            return self.refuse_unrecorded(core);
        }
        self.notify(core, &report, 200, b"OK");
        self.settle(core);
        self.rebridge(core, target);
    }

    /// A leg leaves while the call goes on with `stays`: its sessions end, its media too, and its dialog with a BYE: at
    /// once, or after a moment for the transferor's own.
    pub(super) fn part(&mut self, core: &mut Core, leg: LegId, stays: Option<LegId>, report: &Report) {
        let Some(at) = self.legs.iter().position(|l| l.id == leg) else { return };
        self.forget_leg(core, leg);
        let leg = self.legs.remove(at);
        self.hand_over(core, leg.id, stays);
        let (id, dialog) = (leg.id, leg.dialog);
        self.let_end(core, leg);
        self.agent_left(core, id);
        let Some(dialog) = dialog else { return };
        if report.dialog() == Some(dialog) {
            core.index.dialogs.insert(dialog, self.key);
            self.parting.push(dialog);
            core.arm(self.key, Timer::Parting, super::refer::PATIENCE);
        } else {
            core.bye(dialog, Headers::new(), None);
        }
    }

    /// A transferor that has been told of its success has not hung up: we do.
    pub(super) fn on_parting(&mut self, core: &mut Core) {
        for dialog in std::mem::take(&mut self.parting) {
            core.index.dialogs.remove(&dialog);
            core.bye(dialog, Headers::new(), None);
        }
    }

    /// No target is left. The call is as before, unless the transferor has gone.
    pub(super) fn transfer_failed(&mut self, core: &mut Core, cause: ReleaseCause, answer: &Response) {
        let Some(talk) = self.talk_mut() else { return };
        let Doing::Transfer(transfer) = std::mem::replace(&mut talk.doing, Doing::Nothing) else { return };
        let answered = transfer.target().is_some();
        let Transfer { by, is_gone, second, stays, to, report, consult, .. } = *transfer;
        self.note(core, "transfer-failed", by);
        self.fact(core, What::TransferFailed { by, to, cause });
        if let Some(consult) = consult {
            core.index.conns.remove(&consult);
            core.fact(Some(consult), What::Released { cause, by: None, answered });
        }
        if let Some(second) = second {
            self.part(core, second, Some(stays), &Report::Nobody);
        }
        self.notify(core, &report, mapped(answer.code), &answer.reason);
        if is_gone {
            let mut bye_headers = passed_failure(&answer.headers, false);
            bye_headers.push(Name::Reason, format!("SIP;cause={}", answer.code));
            let ending = Ending { bye_headers, ..Ending::code(answer.code) };
            return self.release(core, cause, StopCause::Released, None, ending);
        }
        self.restore(core, stays);
    }

    /// The target has answered, and hangs up before it is bridged.
    pub(super) fn target_left(&mut self, core: &mut Core, target: LegId) {
        self.remove_leg(core, target);
        self.transfer_failed(core, ReleaseCause::Released, &Response::new(480, reason_phrase(480)));
    }

    /// The parties talk again as before.
    pub(super) fn restore(&mut self, core: &mut Core, leg: LegId) {
        self.settle(core);
        self.rebridge(core, leg);
    }

    /// The transferor hangs up before the outcome: its sessions end, the transfer goes on.
    pub(super) fn transferor_left(&mut self, core: &mut Core) {
        let Some(transfer) = self.transfer_mut() else { return };
        transfer.is_gone = true;
        let (by, stays) = (transfer.by, transfer.stays);
        if !transfer.report.outlives_its_dialog() {
            transfer.report = Report::Nobody;
        }
        if let Some(talk) = self.talk_mut() {
            talk.members.retain(|m| *m != by);
        }
        self.forget_leg(core, by);
        let Some(at) = self.legs.iter().position(|l| l.id == by) else { return };
        let leg = self.legs.remove(at);
        self.hand_over(core, by, Some(stays));
        self.let_end(core, leg);
        self.note(core, "party-left", by);
        self.fact(core, What::PartyLeft { leg: by });
        self.agent_left(core, by);
        self.settle(core);
    }

    /// The ConnID that an INVITE of a dial carries: a consultation has its own.
    pub(super) fn dialled_as(&self, dial: DialId) -> ConnId {
        match self.consult() {
            Some(consult) if consult.dial().is_some_and(|d| d.id == dial) => consult.conn_id,
            _ => {
                let invited = self.talk().and_then(|t| t.invited.iter().find(|i| i.dial.id == dial));
                invited.map_or(self.conn_id, |invited| self.told_as(invited.by))
            }
        }
    }

    /// True when the call is answered, two parties talk (or hold) and nothing else goes on. A room never is: two that are
    /// in it are not each other's, and more may come.
    pub(super) fn is_plain(&self) -> bool {
        if self.room.is_some() {
            return false;
        }
        let State::Talking(talk) = &self.state else { return false };
        let is_alone = matches!(talk.doing, Doing::Nothing) && !talk.invites_members();
        talk.members.len() == 2 && is_alone && !talk.waits_for_answer()
    }

    /// A leg is one of the two of a plain call.
    pub(super) fn talks_to_one(&self, leg: LegId) -> bool {
        self.is_plain() && self.talk().is_some_and(|talk| talk.opposite(leg).is_some())
    }
}

/// How a party is shown to those that it is connected to: its own From, else its number.
pub(super) fn named(leg: &Leg) -> NameAddr {
    match &leg.shown {
        Some(shown) => shown.clone(),
        None => NameAddr::new(Uri::sip(Some(leg.number.as_bytes()), leg.local.sip)),
    }
}
