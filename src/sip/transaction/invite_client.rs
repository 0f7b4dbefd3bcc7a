//! The INVITE client transaction (§17.1.1, RFC 6026 §8.4).

use std::time::Duration;

use super::{Send, Step, Tell};
use crate::sip::timers::{Own, Timer};

/// The machine.
///
/// ```text
///                     start: send, A, B
///                            │
///            A: send         ▼        B: timeout        (§17.1.1.2)
///           ┌───────────[ Calling ]───────────────────┐
///           └────────────►   │  │ transport error      │
///                        1xx │  └─────────────────────►│
///                            ▼                         │
///           1xx: pass ┌─[ Proceeding ]────────────────►│ transport error (§17.1.1.2), cancel timeout (§9.1)
///                     └──►   │                         │
///        2xx: pass ┌─────────┴─────────┐ 300–699: pass, ACK (§17.1.1.3)
///  (RFC 6026 §8.4) ▼                   ▼               │
///  2xx: pass ┌[ Accepted ]     ┌[ Completed ]          │
///            └─►  │            └─►     │  300–699: ACK │
///                 │ M (§8.4)           │ D (0 s when reliable), transport error
///                 └───────────►[ over ]◄───────────────┘
/// ```
/// 2xx that come after a failure, and failures after a 2xx, are absorbed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteClient {
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// No answer yet; `interval` is the one that runs in timer A.
    Calling { interval: Duration },
    /// 1xx has come: no more repeats, no time limit of the transaction's own.
    Proceeding,
    /// 2xx has come.
    Accepted,
    /// A failure has come.
    Completed,
}

impl InviteClient {
    /// Starts: send the INVITE.
    pub fn start(timers: &mut Own<'_>) -> (Self, Step) {
        let interval = timers.intervals.t1;
        if !timers.reliable {
            timers.set(Timer::A, interval);
        }
        timers.set(Timer::B, timers.intervals.give_up());
        (Self { state: State::Calling { interval } }, Step::SEND)
    }

    /// True while no provisional answer has come, so that CANCEL must wait (§9.1).
    pub fn is_calling(&self) -> bool {
        matches!(self.state, State::Calling { .. })
    }

    /// True until a final answer.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Calling { .. } | State::Proceeding)
    }

    /// True once the INVITE was refused.
    pub fn is_completed(&self) -> bool {
        matches!(self.state, State::Completed)
    }

    /// A response with this code has come.
    pub fn response(&mut self, code: u16, timers: &mut Own<'_>) -> Step {
        match (&self.state, code) {
            (State::Calling { .. } | State::Proceeding, 100..=199) => {
                self.leave_calling(timers);
                self.state = State::Proceeding;
                Step::PASS
            }
            (State::Calling { .. } | State::Proceeding, 200..=299) => {
                self.leave_calling(timers);
                timers.set(Timer::M, timers.intervals.give_up());
                self.state = State::Accepted;
                Step::PASS
            }
            (State::Calling { .. } | State::Proceeding, _) => {
                self.leave_calling(timers);
                self.state = State::Completed;
                if !timers.reliable {
                    timers.set(Timer::D, timers.intervals.d());
                }
                Step { send: Send::Ack, tell: Tell::Pass, over: timers.reliable }
            }
            (State::Accepted, 200..=299) => Step::PASS,
            (State::Completed, 300..) => Step { send: Send::Ack, ..Step::NONE },
            (State::Accepted | State::Completed, _) => Step::NONE,
        }
    }

    /// A timer of this machine has fired.
    pub fn timeout(&mut self, timer: Timer, timers: &mut Own<'_>) -> Step {
        match (&mut self.state, timer) {
            (State::Calling { interval }, Timer::A) => {
                // Not bounded by T2: only non-INVITE is (§17.1.1.2).
                *interval *= 2;
                timers.set(Timer::A, *interval);
                Step::SEND
            }
            (State::Calling { .. }, Timer::B) => {
                timers.clear(Timer::A);
                Step::TIMED_OUT
            }
            (State::Calling { .. } | State::Proceeding, Timer::Cancelled) => {
                self.leave_calling(timers);
                Step::TIMED_OUT
            }
            (State::Completed, Timer::D) | (State::Accepted, Timer::M) => Step::OVER,
            _ => Step::NONE,
        }
    }

    /// A message of this transaction could not be sent.
    pub fn transport_error(&mut self, timers: &mut Own<'_>) -> Step {
        match self.state {
            State::Calling { .. } | State::Proceeding => {
                self.leave_calling(timers);
                Step::UNSENT
            }
            // What failed is an ACK; its user has its answer already.
            State::Completed => {
                timers.clear(Timer::D);
                Step::OVER
            }
            State::Accepted => Step::NONE,
        }
    }

    fn leave_calling(&mut self, timers: &mut Own<'_>) {
        timers.clear(Timer::A);
        timers.clear(Timer::B);
    }
}
