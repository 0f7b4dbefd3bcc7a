//! The `stickytape` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    stickytape::cli::run()
}
