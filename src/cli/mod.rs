//! The command line: serve · demo · check · recordings · calls · request. Logs go to stderr, results to stdout.

pub mod calls;
pub mod check;
pub mod client;
pub mod demo;
pub mod recordings;
pub mod request;
pub mod serve;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::config::{Config, ConfigError};

/// Exit codes of the program, as `--help` and the README tell them.
pub mod exit {
    /// It could not do what it was asked, a request was refused, or a recording is wrong.
    pub const FAILED: u8 = 1;
    /// The configuration is wrong, or asks for more than this machine carries (EX_USAGE of sysexits.h).
    pub const CONFIG: u8 = 64;
    /// An address, a port or the folder of recordings cannot be had, or the server that is asked does not answer
    /// (EX_UNAVAILABLE of sysexits.h).
    pub const UNAVAILABLE: u8 = 69;
}

const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   failed, a request was refused, or a recording is wrong
  2   the command line is wrong
  64  the configuration is wrong: file, line, key and a suggestion are on stderr
  69  an address, a port or the folder of recordings cannot be had, or the server that is asked does not answer";

/// A call-recording media proxy for SIP and RTP.
#[derive(Debug, Parser)]
#[command(name = "stickytape", version, after_help = EXIT_CODES, max_term_width = 100)]
struct Root {
    /// How log lines on stderr are written; RUST_LOG filters them.
    #[arg(long, global = true, value_enum, default_value_t)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy.
    Serve(serve::Serve),
    /// Record a call between two phones on this machine: nothing else is needed.
    Demo(demo::Demo),
    /// Check the configuration and print what it means.
    Check(check::Check),
    /// List, show, verify, repair, export and delete recordings.
    Recordings(Library),
    /// List, show and follow the live calls of a running server.
    Calls(calls::Calls),
    /// Ask something of a live call: hold, transfer, record, release.
    Request(request::Request),
}

/// `stickytape recordings` and the configuration that names the folder.
#[derive(Debug, Args)]
struct Library {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    recordings: recordings::Recordings,
}

/// Which configuration a command reads.
#[derive(Debug, Clone, Args)]
pub struct ConfigFile {
    /// The configuration; without it ./stickytape.toml if it exists, else built-in defaults.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl ConfigFile {
    /// Reads it.
    pub fn load(&self, to: Option<&str>) -> Result<Config, ConfigError> {
        Config::load(self.config.as_deref(), to)
    }
}

/// The whole program.
pub fn run() -> ExitCode {
    let root = Root::parse();
    // The demo tells its story itself; only what is wrong interrupts it.
    let level = if matches!(root.command, Command::Demo(_)) { "warn" } else { "info" };
    start_log(root.log_format, level);
    match root.command {
        Command::Serve(args) => serve::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Recordings(library) => match library.config.load(None) {
            Ok(config) => recordings::run(library.recordings, &config.storage.directory),
            Err(error) => refuse(&error),
        },
        Command::Calls(args) => calls::run(args),
        Command::Request(args) => request::run(args),
    }
}

/// The answer to a wrong configuration.
fn refuse(error: &ConfigError) -> ExitCode {
    eprintln!("{error}");
    ExitCode::from(exit::CONFIG)
}

/// Log lines go to stderr from here on: warnings and lives of calls, unless RUST_LOG says otherwise.
fn start_log(format: LogFormat, level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Root::command().debug_assert();
    }

    #[test]
    fn every_documented_form_is_understood() {
        for line in [
            "serve",
            "serve --config a.toml --to 127.0.0.1:5070",
            "demo --dir /tmp/demo",
            "check --config a.toml",
            "recordings list --json",
            "recordings --config a.toml verify",
            "recordings repair",
            "calls list --json",
            "calls show 00000000000000AB --api http://127.0.0.1:9000",
            "calls --token-file t follow --dn 2001 --after 0",
            "calls events --dn 2001 --after 17 --json",
            "calls events --follow",
            "request hold-call 00000000000000AB --this-dn 2001",
            "request record-start AB --this-dn 2001 --extension record=destination --reference-id r --json",
        ] {
            let arguments = std::iter::once("stickytape").chain(line.split(' '));
            assert!(Root::try_parse_from(arguments).is_ok(), "{line}");
        }
    }

    #[test]
    fn the_exit_codes_of_the_help_are_those_of_the_code() {
        for code in [exit::FAILED, exit::CONFIG, exit::UNAVAILABLE] {
            assert!(EXIT_CODES.contains(&format!("\n  {code:<4}")), "{code}");
        }
    }
}
