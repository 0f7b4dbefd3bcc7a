//! stickytape serve: runs the proxy.

use std::process::ExitCode;

use clap::Args;

use super::{ConfigFile, exit, refuse};
use crate::app::{self, StartError};

/// `stickytape serve`.
#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    config: ConfigFile,
    /// Send every call to this address, before all routes.
    #[arg(long, value_name = "HOST:PORT")]
    to: Option<String>,
}

/// Runs until SIGTERM or SIGINT has ended every call.
pub fn run(args: &Serve) -> ExitCode {
    let mut config = match args.config.load(args.to.as_deref()) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    if let Err(error) = config.claim_capacity() {
        return refuse(&error);
    }
    match app::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(match error {
                StartError::Recordings(_)
                | StartError::Bind(_)
                | StartError::EventLog { .. }
                | StartError::Kernel(_) => exit::UNAVAILABLE,
                StartError::Media(_) | StartError::Mixer(_) | StartError::Recorder(_) | StartError::Runtime(_) => {
                    exit::FAILED
                }
            })
        }
    }
}
