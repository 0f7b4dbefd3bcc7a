//! What is wrong with a configuration, in words that lead to the place and the remedy.

use std::fmt;
use std::path::PathBuf;

/// One mistake in the configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1.
    pub line: usize,
    /// The key with its section, `trunk[2].address`; the section alone when the section is meant; empty for syntax.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub suggestion: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, "; {suggestion}")?;
        }
        Ok(())
    }
}

/// Why there is no configuration to run with. Exit code 64, before any port is bound.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is wrong: every mistake found, in the order of the file.
    #[error("{}", list(file, problems))]
    Wrong {
        /// The file.
        file: PathBuf,
        /// At least one.
        problems: Vec<Problem>,
    },
    /// `--to` is not HOST:PORT.
    #[error("--to {text:?}: {reason}")]
    To {
        /// As it was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// This machine or the port range cannot carry what `sip.max-calls` asks for.
    #[error("{0}")]
    Capacity(#[from] super::capacity::CapacityError),
}

/// `FILE:LINE: problem`, a line each, as compilers write it.
fn list(file: &std::path::Path, problems: &[Problem]) -> String {
    let lines: Vec<_> = problems.iter().map(|p| format!("{}:{}: {p}", file.display(), p.line)).collect();
    lines.join("\n")
}
