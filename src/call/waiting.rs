//! What comes while an offer is open in a call waits for its end, five seconds at most (spec/sip.md §2). BYE never
//! waits.

use std::time::{Duration, Instant};

use super::call::Call;
use super::core::{Core, Join, Timer};
use super::refer::From;
use super::replaces::Newcomer;
use super::request::{self, Code, Ticket};
use crate::sip::endpoint::{Reply, ServerTx};
use crate::sip::message;

/// The longest wait.
pub(super) const LONGEST: Duration = Duration::from_secs(5);
/// Most that wait in one call; a further one is refused.
const MAX: usize = 16;

/// One that waits.
#[derive(Debug)]
pub(super) enum Waiting {
    /// A REFER.
    Refer { tx: ServerTx, from: From, request: Box<message::Request> },
    /// A REFER that names a dialog of this call, or of its own one: both must have nothing open.
    Join(Box<Join>),
    /// An INVITE with Replaces.
    Newcomer(Box<Newcomer>),
    /// A request from outside.
    Request { ticket: Ticket, request: Box<request::Request> },
}

impl Call {
    /// Lets something wait.
    pub(super) fn wait(&mut self, core: &mut Core, waiting: Waiting) {
        if let Waiting::Newcomer(newcomer) = &waiting {
            core.index.txs.insert(newcomer.arrival.tx, self.key);
        }
        if self.waiting.len() >= MAX {
            return self.refuse_waiting(core, waiting);
        }
        if self.waiting.is_empty() {
            core.arm(self.key, Timer::Waiting, LONGEST);
        }
        self.waiting.push_back((core.now + LONGEST, waiting));
    }

    /// Takes up what waits, once nothing is open any more.
    pub(super) fn take_waiting(&mut self, core: &mut Core) {
        while !self.waiting.is_empty() && !self.has_open_offer() && !self.is_over() {
            let Some((_, waiting)) = self.waiting.pop_front() else { break };
            match waiting {
                Waiting::Refer { tx, from, request } => self.on_refer(core, tx, from, &request),
                Waiting::Join(join) => core.joins.push_back(*join),
                Waiting::Newcomer(newcomer) => {
                    core.index.txs.remove(&newcomer.arrival.tx);
                    self.on_newcomer(core, *newcomer);
                }
                Waiting::Request { ticket, request } => {
                    core.asked = Some(super::policy::asked(&request));
                    self.on_asked(core, ticket, *request);
                    core.asked = None;
                }
            }
        }
        self.arm_waiting(core);
    }

    /// An INVITE that waited has been cancelled. False: none waited.
    pub(super) fn waits_no_more(&mut self, core: &mut Core, cancelled: ServerTx) -> bool {
        let is_cancelled = |w: &Waiting| matches!(w, Waiting::Newcomer(newcomer) if newcomer.arrival.tx == cancelled);
        let Some(at) = self.waiting.iter().position(|(_, waiting)| is_cancelled(waiting)) else { return false };
        self.waiting.remove(at);
        self.arm_waiting(core);
        true
    }

    /// What has waited too long is refused.
    pub(super) fn on_waiting(&mut self, core: &mut Core) {
        let now: Instant = core.now;
        while self.waiting.front().is_some_and(|(until, _)| *until <= now) {
            if let Some((_, waiting)) = self.waiting.pop_front() {
                self.refuse_waiting(core, waiting);
            }
        }
        self.arm_waiting(core);
    }

    fn arm_waiting(&self, core: &mut Core) {
        match self.waiting.front() {
            Some((until, _)) => core.arm(self.key, Timer::Waiting, until.saturating_duration_since(core.now)),
            None => core.disarm(self.key, Timer::Waiting),
        }
    }

    /// Refuses all that waits: the call ends or another one takes its place.
    pub(super) fn refuse_all_waiting(&mut self, core: &mut Core) {
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            self.refuse_waiting(core, waiting);
        }
        core.disarm(self.key, Timer::Waiting);
    }

    fn refuse_waiting(&mut self, core: &mut Core, waiting: Waiting) {
        match waiting {
            Waiting::Refer { tx, .. } => core.answer(tx, None, Reply::new(491)),
            Waiting::Join(join) => core.answer(join.tx, None, Reply::new(491)),
            Waiting::Newcomer(newcomer) => {
                core.index.txs.remove(&newcomer.arrival.tx);
                core.answer(newcomer.arrival.tx, None, Reply::new(491));
            }
            Waiting::Request { ticket, .. } => {
                let denied = self.denied(Code::Busy, "an exchange of SIP in the call has not ended");
                core.answer_request(ticket, Err(denied));
            }
        }
    }
}
