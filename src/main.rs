//! The `stickytape` program.

use std::process::ExitCode;

/// Keeps resident memory flat over weeks of calls, which threads hand from one to the other.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    stickytape::cli::run()
}
