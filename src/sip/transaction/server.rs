//! The non-INVITE server transaction (§17.2.2).

use super::Step;
use crate::sip::timers::{Own, Timer};

/// The machine. It begins when the request has come.
///
/// ```text
///       request: absorbed ┌──[ Trying ]─────────────────┐ J: nobody has answered
///                         └──►  │   │                   │
///              1xx from user    │   │ 200–699: send, J  │
///                               ▼   └─────┐             │
///   request: repeat ┌──[ Proceeding ]─────┼────────────►│
///                   └──►  │               │             │
///          200–699: send, J ─────►[ Completed ]─┐       │
///                         request: repeat │ ◄───┘       │
///                                         │ J (0 s when reliable)
///                                         └─►[ over ]◄──┘
/// ```
/// Timer J runs from the start too, longer than the peer's timer F, so that a request that our user never answers does
/// not stay: RFC 4320 §4.2 forbids a 408 at that time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Nothing answered yet.
    Trying,
    /// 1xx answered.
    Proceeding,
    /// Final answer given.
    Completed,
}

impl Server {
    /// Begins in Trying.
    pub fn start(timers: &mut Own<'_>) -> Self {
        timers.set(Timer::J, timers.intervals.give_up());
        Self { state: State::Trying }
    }

    /// True until a final answer.
    pub fn is_open(&self) -> bool {
        self.state != State::Completed
    }

    /// The user answers with this code; only while [`Self::is_open`].
    pub fn respond(&mut self, code: u16, timers: &mut Own<'_>) -> Step {
        if !self.is_open() {
            return Step::NONE;
        }
        if code < 200 {
            self.state = State::Proceeding;
            return Step::SEND;
        }
        self.state = State::Completed;
        if timers.reliable {
            timers.clear(Timer::J);
            return Step { over: true, ..Step::SEND };
        }
        timers.set(Timer::J, timers.intervals.give_up());
        Step::SEND
    }

    /// The same request has come again.
    pub fn repeated(&self) -> Step {
        match self.state {
            State::Trying => Step::NONE,
            State::Proceeding | State::Completed => Step::SEND,
        }
    }

    /// A timer of this machine has fired.
    pub fn timeout(&mut self, timer: Timer) -> Step {
        match timer {
            Timer::J if self.is_open() => Step::TIMED_OUT,
            Timer::J => Step::OVER,
            _ => Step::NONE,
        }
    }
}
