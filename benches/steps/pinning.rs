//! This program on one core and what it measures on another, where there are two and `taskset`.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

static PINNED: OnceLock<()> = OnceLock::new();

/// Puts this process on core 1.
pub fn pin_myself() {
    if has_taskset() {
        let pid = std::process::id().to_string();
        let pinned = Command::new("taskset").args(["-cp", "1", &pid]).stdout(Stdio::null()).status();
        if pinned.is_ok_and(|status| status.success()) {
            let _ = PINNED.set(());
        }
    }
}

/// A program that will run on a core of its own.
pub fn pinned(program: &str, core: u8) -> Command {
    if !has_taskset() {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string(), program]);
    command
}

fn has_taskset() -> bool {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // Our own mask has one core after `pin_myself`; two were there before.
    (cores > 1 || PINNED.get().is_some()) && std::path::Path::new("/usr/bin/taskset").exists()
}
