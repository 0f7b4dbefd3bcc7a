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

/// Monotonic time, and the nanoseconds that the kernel's own monotonic clock (CLOCK_MONOTONIC) shows then: what BPF programs
/// stamp with.
pub fn monotonic() -> (Instant, u64) {
    let kernel = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (now(), kernel.tv_sec as u64 * 1_000_000_000 + kernel.tv_nsec as u64)
}
