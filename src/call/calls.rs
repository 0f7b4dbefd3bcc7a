//! All calls: inputs find their call, outputs leave in order.

use std::time::Instant;

use jiff::Timestamp;

use super::options::Options;
use super::view::CallView;
use super::{Counters, Input, Output, Reason, Seats};

/// Call control.
#[derive(Debug)]
pub struct Calls {
    options: Options,
    seats: Seats,
}

impl Calls {
    /// A machine without calls. Its first outputs ask for ports and names: poll before the first input.
    pub fn new(options: Options, seats: Seats, now: Instant) -> Self {
        let _ = now;
        Self { options, seats }
    }

    /// Takes one input; drain [`Calls::poll_output`] afterwards. `wall` is the wall-clock time of `now`.
    pub fn handle(&mut self, input: Input, now: Instant, wall: Timestamp) {
        let _ = (input, now, wall, &self.options, &self.seats);
    }

    /// The next thing to do; `None`: nothing until the next input or timeout.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }

    /// When to call `handle(Input::Timeout)`, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        None
    }

    /// The live calls, oldest first.
    pub fn snapshot(&self) -> Vec<CallView> {
        Vec::new()
    }

    /// Totals and levels.
    pub fn counters(&self) -> Counters {
        Counters::default()
    }

    /// True when nothing is left of any call: no leg, port, dialog, transaction, session.
    pub fn is_empty(&self) -> bool {
        true
    }
}
