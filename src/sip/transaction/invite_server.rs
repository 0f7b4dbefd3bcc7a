//! The INVITE server transaction (§17.2.1, RFC 6026 §8.7).

use std::time::Duration;

use super::{Send, Step, Tell};
use crate::sip::timers::{Own, Timer};

/// The machine. It begins when the INVITE has come and 100 is sent.
///
/// ```text
///      INVITE: repeat last 1xx ┌──[ Proceeding ]──┐ 1xx from user: send; every minute again (§13.3.1.1)
///                (§17.2.1)     └──►   │   │   ◄───┘
///         2xx from user: send, L      │   │   300–699 from user: send, G, H
///              (RFC 6026 §8.7)  ┌─────┘   └────┐
///                               ▼              ▼
///         INVITE: absorbed ┌[ Accepted ]   [ Completed ]─┐ INVITE, G: repeat
///              ACK: pass   └──► │              │   │ ◄───┘
///                               │          ACK │   │ H: timeout
///                               │              ▼   │
///                               │       [ Confirmed ] ACK: absorbed
///                               │ L            │ I (0 s when reliable)
///                               └───►[ over ]◄─┴───┘
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteServer {
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// No final answer yet.
    Proceeding,
    /// Answered 2xx; its user repeats the 2xx.
    Accepted,
    /// Refused; `interval` is the one that runs in timer G.
    Completed { interval: Duration },
    /// Refused and acknowledged.
    Confirmed,
}

/// How often a provisional answer is repeated (§13.3.1.1).
const PROGRESS: Duration = Duration::from_secs(60);

impl InviteServer {
    /// Begins in Proceeding: send 100.
    pub fn start() -> (Self, Step) {
        (Self { state: State::Proceeding }, Step::SEND)
    }

    /// True until a final answer.
    pub fn is_open(&self) -> bool {
        self.state == State::Proceeding
    }

    /// True once it was answered 2xx.
    pub fn is_accepted(&self) -> bool {
        self.state == State::Accepted
    }

    /// The user answers with this code; only while [`Self::is_open`].
    pub fn respond(&mut self, code: u16, timers: &mut Own<'_>) -> Step {
        if self.state != State::Proceeding {
            return Step::NONE;
        }
        match code {
            100 => {}
            101..=199 => timers.set(Timer::Progress, PROGRESS),
            200..=299 => {
                timers.clear(Timer::Progress);
                timers.set(Timer::L, timers.intervals.give_up());
                self.state = State::Accepted;
            }
            _ => {
                timers.clear(Timer::Progress);
                let interval = timers.intervals.t1;
                if !timers.reliable {
                    timers.set(Timer::G, interval);
                }
                timers.set(Timer::H, timers.intervals.give_up());
                self.state = State::Completed { interval };
            }
        }
        Step::SEND
    }

    /// The same INVITE has come again.
    pub fn repeated(&self) -> Step {
        match self.state {
            State::Proceeding | State::Completed { .. } => Step::SEND,
            State::Accepted | State::Confirmed => Step::NONE,
        }
    }

    /// An ACK of this transaction has come.
    pub fn ack(&mut self, timers: &mut Own<'_>) -> Step {
        match self.state {
            State::Completed { .. } => {
                timers.clear(Timer::G);
                timers.clear(Timer::H);
                if timers.reliable {
                    return Step::OVER;
                }
                timers.set(Timer::I, timers.intervals.t4);
                self.state = State::Confirmed;
                Step::NONE
            }
            State::Accepted => Step::PASS,
            State::Proceeding | State::Confirmed => Step::NONE,
        }
    }

    /// A timer of this machine has fired.
    pub fn timeout(&mut self, timer: Timer, timers: &mut Own<'_>) -> Step {
        match (&mut self.state, timer) {
            (State::Proceeding, Timer::Progress) => {
                timers.set(Timer::Progress, PROGRESS);
                Step::SEND
            }
            (State::Completed { interval }, Timer::G) => {
                *interval = timers.intervals.backed_off(*interval);
                timers.set(Timer::G, *interval);
                Step::SEND
            }
            (State::Completed { .. }, Timer::H) => {
                timers.clear(Timer::G);
                Step { send: Send::Nothing, tell: Tell::Timeout, over: true }
            }
            (State::Confirmed, Timer::I) | (State::Accepted, Timer::L) => Step::OVER,
            _ => Step::NONE,
        }
    }
}
