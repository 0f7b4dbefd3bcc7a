//! The scheduling of threads that must not be late, and of those that may be.

use std::time::Duration;

use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// Where in SCHED_RR's range of 1…99 such threads stand, in percent: above ordinary real-time work, below the kernel's.
const PERCENT: u8 = 20;

/// Asks for SCHED_RR for the calling thread; where the system refuses it, it stays as it is and the log says so.
pub fn ask(thread: &str) {
    let percent = ThreadPriorityValue::try_from(PERCENT).map_or(ThreadPriority::Min, ThreadPriority::Crossplatform);
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::RoundRobin);
    if let Err(error) = set_thread_priority_and_policy(thread_native_id(), percent, policy) {
        tracing::warn!(thread, ?error, "no real-time priority: under load packets will be late or lost");
    }
}

/// How far a thread steps back: it still gets a ninth of a core that others would like to have whole.
const BEHIND: i32 = 10;

/// Lets all other threads go before the calling one; where the system refuses it, it stays as it is and the log says so.
pub fn step_back(thread: &str) {
    // On Linux this is the thread's own value.
    if let Err(error) = rustix::process::nice(BEHIND) {
        tracing::warn!(thread, %error, "it cannot be put behind the others");
    }
}

/// The CPU time that the system has charged the calling thread. A system call; not for every packet.
pub fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
