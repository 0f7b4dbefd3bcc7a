//! The `stickytape` program.

use std::process::ExitCode;

/// Setting a call up takes and frees hundreds of small pieces of memory, most of them half a minute apart.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    stickytape::cli::run()
}
