//! This program on one core and what it measures on others, where there are two and `taskset`.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

static PINNED: OnceLock<()> = OnceLock::new();

/// Puts this process on core 1.
pub fn pin_myself() {
    pin_myself_to(1);
}

/// Puts this process on this core.
pub fn pin_myself_to(core: u8) {
    if has_taskset() {
        let pid = std::process::id().to_string();
        let pinned = Command::new("taskset").args(["-cp", &core.to_string(), &pid]).stdout(Stdio::null()).status();
        if pinned.is_ok_and(|status| status.success()) {
            let _ = PINNED.set(());
        }
    }
}

/// A program that will run on a core of its own.
pub fn pinned(program: &str, core: u8) -> Command {
    pinned_to(program, &core.to_string())
}

/// A program that will run on these cores only (`0,1`).
pub fn pinned_to(program: &str, cores: &str) -> Command {
    if !has_taskset() {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.args(["-c", cores, program]);
    command
}

fn has_taskset() -> bool {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // Our own mask has one core after `pin_myself`; two were there before.
    (cores > 1 || PINNED.get().is_some()) && std::path::Path::new("/usr/bin/taskset").exists()
}
