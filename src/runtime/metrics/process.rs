//! The figures of the process itself.

use std::fmt::Write as _;

/// The figures that every Prometheus client library exports under these names; what the system does not tell is left out.
pub(super) fn write(out: &mut String) {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let cpu_seconds = used.tv_sec as f64 + used.tv_nsec as f64 / 1e9;
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "# HELP process_cpu_seconds User and system time of the process.\n# TYPE process_cpu_seconds counter\n\
         # UNIT process_cpu_seconds seconds\nprocess_cpu_seconds_total {cpu_seconds}\n"
    );
    if let Some(bytes) = resident_bytes() {
        let _ = write!(
            out,
            "# HELP process_resident_memory_bytes Resident memory.\n# TYPE process_resident_memory_bytes gauge\n\
             # UNIT process_resident_memory_bytes bytes\nprocess_resident_memory_bytes {bytes}\n"
        );
    }
    if let Ok(folder) = std::fs::read_dir("/proc/self/fd") {
        let _ = write!(
            out,
            "# HELP process_open_fds Open descriptors.\n# TYPE process_open_fds gauge\nprocess_open_fds {}\n",
            folder.count()
        );
    }
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1_024)
}
