//! How many calls the port range and the descriptor limit carry.

use std::ops::RangeInclusive;

/// No more than this without being asked for by number.
pub const AUTO_LIMIT: usize = 4_000;

/// Descriptors beside the calls': SIP sockets and connections, HTTP, epoll, logs, the store, port pairs that are bound
/// ahead of need or that cool down.
const RESERVE: u64 = 1_536;

/// Descriptors of one call: RTP and RTCP of two legs, and the files of two recordings in layout `mixed`.
const PER_CALL: u64 = 4 + 2;

/// TCP connections that the limit is raised for beside the calls.
const CONNECTIONS: u64 = 10_000;

/// The numbers cannot be brought together. Exit code 64.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CapacityError {
    /// The range is too small.
    #[error(
        "sip.max-calls = {calls} needs {needed} media ports (two pairs a call), media.ports has {available}; \
         widen the range or write at most {possible}"
    )]
    Ports {
        /// As configured.
        calls: usize,
        /// Ports that they take.
        needed: usize,
        /// Ports in whole pairs.
        available: usize,
        /// Calls that the range carries.
        possible: usize,
    },
    /// The descriptor limit is too low and may not be raised.
    #[error(
        "sip.max-calls = {calls} needs {needed} file descriptors, the limit is {available} (ulimit -Hn, LimitNOFILE=); \
         raise it to {needed} or write at most {possible}"
    )]
    Descriptors {
        /// As configured.
        calls: usize,
        /// Descriptors that they take.
        needed: u64,
        /// The hard limit.
        available: u64,
        /// Calls that the limit carries.
        possible: usize,
    },
    /// The limit could not be raised to what the calls need.
    #[error("cannot raise the limit of file descriptors to {needed}: {reason}")]
    Raise {
        /// What was asked for.
        needed: u64,
        /// What the system said.
        reason: String,
    },
}

/// `sip.max-calls`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MaxCalls {
    /// What can be carried, at most [`AUTO_LIMIT`].
    #[default]
    Auto,
    /// This many or exit 64.
    Exactly(usize),
}

/// Port pairs in a range: RTP on an even port, RTCP on the next (RFC 3550 §11).
pub fn pairs(ports: &RangeInclusive<u16>) -> usize {
    let first = u32::from(*ports.start()).next_multiple_of(2);
    ((u32::from(*ports.end()) + 1).saturating_sub(first) / 2) as usize
}

/// How many recordings' files one call may keep open beside [`PER_CALL`]: layout `tracks` has a file per party.
fn descriptors(calls: usize, files_per_recording: u64) -> u64 {
    RESERVE + calls as u64 * (PER_CALL + 2 * files_per_recording.saturating_sub(1))
}

/// The calls to accept. `hard_limit` is the highest descriptor limit that this process may set for itself.
pub fn max_calls(
    wish: MaxCalls,
    ports: &RangeInclusive<u16>,
    files_per_recording: u64,
    hard_limit: u64,
) -> Result<usize, CapacityError> {
    let by_ports = pairs(ports) / 2;
    let per_call = descriptors(1, files_per_recording) - RESERVE;
    let by_descriptors = usize::try_from(hard_limit.saturating_sub(RESERVE) / per_call).unwrap_or(usize::MAX);
    match wish {
        MaxCalls::Exactly(calls) if calls > by_ports => {
            Err(CapacityError::Ports { calls, needed: calls * 4, available: pairs(ports) * 2, possible: by_ports })
        }
        MaxCalls::Exactly(calls) if calls > by_descriptors => Err(too_few(calls, by_descriptors, per_call, hard_limit)),
        MaxCalls::Exactly(calls) => Ok(calls),
        MaxCalls::Auto => match by_ports.min(by_descriptors).min(AUTO_LIMIT) {
            0 => Err(too_few(1, 0, per_call, hard_limit)),
            calls => Ok(calls),
        },
    }
}

fn too_few(calls: usize, possible: usize, per_call: u64, available: u64) -> CapacityError {
    CapacityError::Descriptors { calls, needed: RESERVE + calls as u64 * per_call, available, possible }
}

/// The highest limit of open descriptors that this process may set for itself.
pub fn hard_limit() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// Raises the limit of open descriptors to what `calls` need, and for 10,000 TCP connections beside them where
/// the hard limit allows it; never lowers it.
pub fn raise_limit(calls: usize, files_per_recording: u64) -> Result<(), CapacityError> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let needed = descriptors(calls, files_per_recording);
    let limit = getrlimit(Resource::Nofile);
    let wanted = (needed + CONNECTIONS).min(limit.maximum.unwrap_or(u64::MAX)).max(needed);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).map_err(|error| CapacityError::Raise { needed, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: u64 = 1 << 20;

    #[test]
    fn a_pair_is_an_even_port_and_the_next() {
        assert_eq!(pairs(&(10_000..=32_767)), 11_384);
        assert_eq!(pairs(&(10_001..=10_004)), 1);
        assert_eq!(pairs(&(10_001..=10_002)), 0);
        assert_eq!(pairs(&(65_534..=65_535)), 1);
    }

    #[test]
    fn auto_stops_at_four_thousand_and_below_what_ports_and_descriptors_carry() {
        assert_eq!(max_calls(MaxCalls::Auto, &(10_000..=32_767), 1, PLENTY), Ok(4_000));
        assert_eq!(max_calls(MaxCalls::Auto, &(10_000..=10_039), 1, PLENTY), Ok(10));
        assert_eq!(max_calls(MaxCalls::Auto, &(10_000..=32_767), 1, RESERVE + 100 * PER_CALL), Ok(100));
    }

    #[test]
    fn a_number_beyond_the_ports_is_refused_with_the_number_needed() {
        let error = max_calls(MaxCalls::Exactly(11), &(10_000..=10_039), 1, PLENTY).unwrap_err();
        assert_eq!(error, CapacityError::Ports { calls: 11, needed: 44, available: 40, possible: 10 });
    }

    #[test]
    fn a_number_beyond_the_descriptors_is_refused_with_the_number_needed() {
        let error = max_calls(MaxCalls::Exactly(1_000), &(10_000..=32_767), 3, 4_096).unwrap_err();
        assert!(error.to_string().contains(&format!("raise it to {}", RESERVE + 10_000)), "{error}");
    }

    #[test]
    fn a_machine_without_descriptors_is_refused_even_by_auto() {
        assert!(max_calls(MaxCalls::Auto, &(10_000..=32_767), 1, 256).is_err());
    }
}
