//! The non-INVITE client transaction (§17.1.2).

use std::time::Duration;

use super::{Step, Tell};
use crate::sip::timers::{Own, Timer};

/// The machine.
///
/// ```text
///                  start: send, E, F
///                        │
///        E: send         ▼           F: timeout, transport error   (§17.1.2.2)
///       ┌───────────[ Trying ]──────────────────────────┐
///       └────────────►   │ │ 200–699: pass, K           │
///                    1xx │ └──────────────────┐         │
///       E: send (T2)     ▼                    │         │
///       ┌───────[ Proceeding ]────────────────┼────────►│ F: timeout, transport error
///       └───────────►    │ 200–699: pass, K   │         │
///                        ▼                    │         │
///                  [ Completed ]◄─────────────┘         │
///                        │ K (0 s when reliable)        │
///                        └─────────►[ over ]◄───────────┘
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// No answer yet; `interval` is the one that runs in timer E.
    Trying { interval: Duration },
    /// 1xx has come: repeats every T2, because 1xx to non-INVITE is not repeated by itself.
    Proceeding,
    /// The final answer has come.
    Completed,
}

impl Client {
    /// Starts: send the request.
    pub fn start(timers: &mut Own<'_>) -> (Self, Step) {
        let interval = timers.intervals.t1;
        if !timers.reliable {
            timers.set(Timer::E, interval);
        }
        timers.set(Timer::F, timers.intervals.give_up());
        (Self { state: State::Trying { interval } }, Step::SEND)
    }

    /// True until a final answer.
    pub fn is_open(&self) -> bool {
        self.state != State::Completed
    }

    /// A response with this code has come.
    pub fn response(&mut self, code: u16, timers: &mut Own<'_>) -> Step {
        match (&self.state, code) {
            (State::Completed, _) => Step::NONE,
            (_, 100..=199) => {
                self.state = State::Proceeding;
                Step::PASS
            }
            _ => {
                self.stop(timers);
                self.state = State::Completed;
                if !timers.reliable {
                    timers.set(Timer::K, timers.intervals.t4);
                }
                Step { tell: Tell::Pass, over: timers.reliable, ..Step::NONE }
            }
        }
    }

    /// A timer of this machine has fired.
    pub fn timeout(&mut self, timer: Timer, timers: &mut Own<'_>) -> Step {
        match (&mut self.state, timer) {
            (State::Trying { interval }, Timer::E) => {
                *interval = timers.intervals.backed_off(*interval);
                timers.set(Timer::E, *interval);
                Step::SEND
            }
            (State::Proceeding, Timer::E) => {
                timers.set(Timer::E, timers.intervals.t2);
                Step::SEND
            }
            (State::Trying { .. } | State::Proceeding, Timer::F) => {
                timers.clear(Timer::E);
                Step::TIMED_OUT
            }
            (State::Completed, Timer::K) => Step::OVER,
            _ => Step::NONE,
        }
    }

    /// The request could not be sent.
    pub fn transport_error(&mut self, timers: &mut Own<'_>) -> Step {
        if !self.is_open() {
            return Step::NONE;
        }
        self.stop(timers);
        Step::UNSENT
    }

    fn stop(&mut self, timers: &mut Own<'_>) {
        timers.clear(Timer::E);
        timers.clear(Timer::F);
    }
}
