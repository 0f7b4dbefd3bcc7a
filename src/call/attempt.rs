//! The caller's INVITE while D2 is being called: early dialogs towards D1 (spec/sip.md §3).
//!
//! Each downstream early dialog with SDP is an early dialog towards D1 with its own To-tag.

use super::call::Ending;
use super::core::Core;
use super::dial::Dial;
use super::options::RouteRecord;
use crate::id::LegId;
use crate::sdp::{self, Session};
use crate::sip::endpoint::{DialogId, Flow, Reply, ServerTx};

/// D2 is being called for D1.
#[derive(Debug)]
pub(super) struct Attempt {
    pub dial: Dial,
    /// D1's INVITE.
    pub tx: ServerTx,
    /// Where D1's INVITE came from.
    pub flow: Flow,
    /// D1's offer; `None`: we make one.
    pub offer: Option<Session>,
    pub route: (Option<RouteRecord>, bool),
    /// Early dialogs towards D1, oldest first.
    pub upstream: Vec<Upstream>,
}

/// An early dialog towards D1.
#[derive(Debug)]
pub(super) struct Upstream {
    pub dialog: DialogId,
    /// The fork whose SDP it carries; `None` while it has carried none.
    pub fork: Option<DialogId>,
    pub sdp: sdp::Local,
}

impl Attempt {
    /// The dialog of the other side that has the word, for requests in an early dialog.
    pub(super) fn counterpart(&self, dialog: DialogId) -> Option<DialogId> {
        if let Some(upstream) = self.upstream.iter().find(|u| u.dialog == dialog) {
            let last = || self.dial.branches.iter().flat_map(|b| &b.forks).last().map(|f| f.dialog);
            return upstream.fork.or_else(last);
        }
        let own = self.upstream.iter().find(|u| u.fork == Some(dialog)).or(self.upstream.first());
        own.map(|u| u.dialog)
    }

    /// Our description in an early dialog.
    pub(super) fn sdp_mut(&mut self, dialog: DialogId) -> Option<&mut sdp::Local> {
        if let Some(upstream) = self.upstream.iter_mut().find(|u| u.dialog == dialog) {
            return Some(&mut upstream.sdp);
        }
        self.dial.sdp_mut(dialog)
    }

    /// The leg whose early dialog this is; the caller's leg is `caller`.
    pub(super) fn leg_of(&self, dialog: DialogId, caller: LegId) -> Option<LegId> {
        if self.upstream.iter().any(|u| u.dialog == dialog) {
            return Some(caller);
        }
        self.dial.leg_of(dialog)
    }

    /// Gives up: D1 gets its final answer, D2 CANCEL.
    pub(super) fn end(mut self, core: &mut Core, ending: Ending) {
        self.dial.close_branches(core, &ending.bye_headers, |_| true);
        self.refuse_caller(core, ending);
    }

    /// D1 gets its final answer.
    pub(super) fn refuse_caller(&self, core: &mut Core, ending: Ending) {
        self.forget_upstream(core);
        core.index.txs.remove(&self.tx);
        let code = if ending.code == 0 { 500 } else { ending.code };
        let reply = Reply { code, reason: ending.reason, headers: ending.answer_headers, body: ending.answer_body };
        core.answer(self.tx, None, reply);
    }

    fn forget_upstream(&self, core: &mut Core) {
        for upstream in &self.upstream {
            core.index.dialogs.remove(&upstream.dialog);
        }
    }

    /// The early dialogs that did not win are gone.
    pub(super) fn forget_losers(&self, core: &mut Core, winner: DialogId) {
        self.forget_upstream(core);
        self.dial.forget_losers(core, winner);
    }
}
