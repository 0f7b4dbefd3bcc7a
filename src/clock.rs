//! The only reader of the clocks. Everything else takes `now` as an argument.

use std::time::Instant;

/// Monotonic time.
#[allow(clippy::disallowed_methods, reason = "the one home of the monotonic clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Wall-clock time, for people and file names. Never used to compute an interval.
#[allow(clippy::disallowed_methods, reason = "the one home of the wall clock")]
pub fn wall() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
