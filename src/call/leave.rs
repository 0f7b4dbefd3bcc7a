//! A leg leaves while its call goes on: nothing that was open with it may stay open, and what it has left unanswered to
//! others is answered (spec/sip.md §2: "408 and 481: that leg has left").

use super::call::{Call, Purpose};
use super::core::{Core, Timer};
use super::refer::Report;
use super::request::Code;
use super::talk::Exchange;
use crate::id::LegId;
use crate::sip::endpoint::{DialogId, Reply, RequestId};

impl Call {
    /// Ends what is open with a leg that leaves; its dialog ends, or has ended.
    pub(super) fn forget_leg(&mut self, core: &mut Core, leg: LegId) {
        let mut is_open = false;
        for (request, purpose) in std::mem::take(&mut self.pending) {
            match purpose {
                Purpose::PassOffer { from, to, tx, .. } if to == leg || from == leg => {
                    core.index.txs.remove(&tx);
                    // Who leaves gets its 487 with the end of its dialog.
                    core.answer(tx, None, Reply::new(487));
                    if from == leg {
                        // Answered meanwhile: then that answer is taken back.
                        let _ = core.endpoint.cancel_request(request, core.now);
                        self.pending.push((request, Purpose::Undo { from, to }));
                        self.set_exchange(Some(Exchange::Own { to }));
                    } else {
                        core.index.requests.remove(&request);
                        is_open = true;
                    }
                }
                Purpose::OwnOffer { to } | Purpose::Undo { to, .. } if to == leg => {
                    core.index.requests.remove(&request);
                    is_open = true;
                }
                Purpose::Announce(announcement) if announcement.to == leg => _ = core.index.requests.remove(&request),
                Purpose::Fetch { to, ticket, .. } if to == leg => {
                    core.index.requests.remove(&request);
                    is_open = true;
                    core.answer_request(ticket, Err(self.denied(Code::WrongState, "the phone has left")));
                }
                Purpose::Probe { leg: probed } if probed == leg => _ = core.index.requests.remove(&request),
                purpose => self.pending.push((request, purpose)),
            }
        }
        let Some(talk) = self.talk_mut() else { return };
        let open = talk.exchange;
        if is_open || matches!(open, Some(Exchange::InAck { leg: to, .. } | Exchange::Own { to }) if to == leg) {
            talk.exchange = None;
        }
        talk.next.take_if(|next| *next == leg);
        talk.unaligned.retain(|unaligned| *unaligned != leg);
        talk.fresh.take_if(|fresh| *fresh == leg);
        if talk.again.take_if(|again| *again == leg).is_some() {
            core.disarm(self.key, Timer::Glare);
        }
    }

    /// A request of ours is over because its dialog has ended. An offer stays until the leg is taken out of the call:
    /// nothing may begin between the two.
    pub(super) fn is_done_with(&mut self, core: &mut Core, request: RequestId) {
        let Some(at) = self.pending.iter().position(|(id, _)| *id == request) else { return };
        match &self.pending[at].1 {
            Purpose::Digit | Purpose::Notify | Purpose::Key | Purpose::Probe { .. } => {}
            Purpose::Pass { tx } => {
                core.index.txs.remove(tx);
                core.answer(*tx, None, Reply::new(487));
            }
            _ => return,
        }
        self.pending.swap_remove(at);
    }

    /// The party that an answered call calls, whose early dialog this is.
    pub(super) fn early_target(&self, dialog: DialogId) -> Option<LegId> {
        self.talk()?.dials().find_map(|dial| dial.leg_of(dialog))
    }

    /// A leg has vanished: the call goes on without it where it would after its BYE, else it ends.
    pub(super) fn lost_leg(&mut self, core: &mut Core, leg: Option<LegId>) {
        match leg.filter(|leg| self.goes_on_without(*leg)) {
            Some(leg) => self.end_leg(core, leg, leg),
            None => self.lost(core),
        }
    }

    /// Somebody has left: two that are left are relayed again.
    pub(super) fn go_on_without(&mut self, core: &mut Core) {
        self.settle(core);
        if let Some(first) = self.talk().and_then(|talk| talk.members.first().copied()) {
            self.rebridge(core, first);
        }
    }

    /// The transferor hangs up the dialog of its consult call before the outcome.
    pub(super) fn second_left(&mut self, core: &mut Core) {
        let Some(transfer) = self.transfer_mut() else { return };
        let (stays, second) = (transfer.stays, transfer.second.take());
        let Some(second) = second else { return };
        if let Some(leg) = self.leg_mut(second)
            && let Some(dialog) = leg.dialog.take()
        {
            // Its peer has ended it.
            core.index.dialogs.remove(&dialog);
        }
        self.part(core, second, Some(stays), &Report::Nobody);
        self.settle(core);
    }
}
