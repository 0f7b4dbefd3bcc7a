//! The configuration: as typed (`raw`), then checked, in the types of the modules that use it.
//!
//! Key names, defaults and meanings: spec/interface.md §2. Every mistake of a file is reported at once, with its line, its
//! key and what to write instead; nothing is bound and nothing is written before all of it is right. Paths are relative to
//! the working directory of the process. Secrets come from a file or an environment variable and are never printed.

pub mod capacity;
mod conference;
pub mod error;
mod plan;
mod raw;
mod sections;
mod unbuilt;
mod values;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use capacity::MaxCalls;
pub use error::{ConfigError, Problem};

use crate::audio::signal::Ringback;
use crate::call::options::{Listener, MediaOptions, Plan, RecordingOptions, Secret, SipOptions};
use crate::record::mark::Layout;
use crate::runtime::media::Priority;

/// The file that `serve` and `check` read when none is named and it exists.
pub const DEFAULT_FILE: &str = "stickytape.toml";

/// Everything the program is configured with, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it was read from; `None`: built-in defaults.
    pub file: Option<PathBuf>,
    /// `sip.listen`: at least one.
    pub listen: Vec<Listener>,
    /// `[sip]` for call control. `max_calls` holds what [`Config::carried_calls`] answers once that was asked.
    pub sip: SipOptions,
    /// `sip.max-calls` as it was written.
    pub max_calls: MaxCalls,
    /// `[media]` for call control.
    pub media: MediaOptions,
    /// What `media.ringback` and `media.hold-audio` say.
    pub sounds: Sounds,
    /// `[media]` for the media threads.
    pub threads: Threads,
    /// `[recording]` for call control.
    pub recording: RecordingOptions,
    /// `[recording]` for the recorder threads and the disk.
    pub storage: Storage,
    /// DNs, trunks, routes, rooms and `--to`.
    pub plan: Plan,
    /// `[api]`.
    pub api: Api,
    /// `[events]`.
    pub events: Events,
    /// `[ivr]`; `busy` is in [`SipOptions`].
    pub ivr: Ivr,
    /// `[interaction]`.
    pub interaction: Interaction,
}

/// The sounds of `[media]` as they were written; their samples are in [`MediaOptions`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sounds {
    /// `ringback`.
    pub ringback: Sound,
    /// `hold-audio`; `None`: silence.
    pub hold_audio: Option<PathBuf>,
}

/// `ringback`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sound {
    /// A tone of ours.
    Tone(Ringback),
    /// A WAV file.
    File(PathBuf),
}

/// `[media]` for the media threads.
#[derive(Debug, Clone)]
pub struct Threads {
    /// `ports`: RTP on the even ones, RTCP on the next.
    pub ports: RangeInclusive<u16>,
    /// `port-cooldown`.
    pub cooldown: Duration,
    /// `workers`; 0: one per core.
    pub workers: usize,
    /// `batch-interval`.
    pub batch_interval: Duration,
    /// `priority`.
    pub priority: Priority,
    /// `kernel-forwarding`: the interfaces on which the kernel sends steady streams on; empty: on none.
    pub kernel_forwarding: Vec<String>,
}

impl Threads {
    /// Media threads to start: `workers`, or one per core that this process may use.
    pub fn count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MAX_WORKERS)),
            workers => workers,
        }
    }
}

/// No more media threads than a [`crate::id::WorkerId`] can name, with room.
pub const MAX_WORKERS: usize = 64;

/// `[recording]` for the recorder threads and the disk.
#[derive(Debug, Clone)]
pub struct Storage {
    /// `directory`.
    pub directory: PathBuf,
    /// `min-free-space` in bytes.
    pub min_free_space: u64,
    /// `max-file-size` in bytes, header included.
    pub max_file_size: u64,
    /// `buffer` in bytes, for all calls.
    pub buffer: u64,
}

/// `[api]`.
#[derive(Debug, Clone)]
pub struct Api {
    /// `listen`; `None` when it says `"off"`.
    pub listen: Option<SocketAddr>,
    /// The content of `token-file`.
    pub token: Option<Secret>,
}

/// `[events]`.
#[derive(Debug, Clone)]
pub struct Events {
    /// `file`: every event as a line of JSON.
    pub file: Option<PathBuf>,
    /// `keep`: events kept in memory for replay.
    pub keep: usize,
}

/// `[ivr]`.
#[derive(Debug, Clone)]
pub struct Ivr {
    /// `listen`; `None`: there is no such interface.
    pub listen: Option<SocketAddr>,
}

/// `[interaction]`.
#[derive(Debug, Clone)]
pub struct Interaction {
    /// `invitation-timeout`: an agent that has not answered an invitation by then is invited no more.
    pub invitation_timeout: Duration,
}

impl Config {
    /// Reads `file`; without one [`DEFAULT_FILE`] if it exists, else the built-in defaults. `to` is `--to HOST:PORT`.
    pub fn load(file: Option<&Path>, to: Option<&str>) -> Result<Self, ConfigError> {
        let default = Path::new(DEFAULT_FILE);
        let mut config = match file.or_else(|| default.exists().then_some(default)) {
            Some(file) => Self::read(file)?,
            None => Self::default(),
        };
        if let Some(text) = to {
            let to = values::peer(text).map_err(|reason| ConfigError::To { text: text.to_owned(), reason })?;
            config.plan.to = Some(to);
            config.plan.to_alone = config.file.is_none();
        }
        Ok(config)
    }

    /// Reads and checks one file.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(file).map_err(|source| ConfigError::Read { file: file.to_owned(), source })?;
        let mut config =
            Self::parse(&text).map_err(|problems| ConfigError::Wrong { file: file.to_owned(), problems })?;
        config.file = Some(file.to_owned());
        Ok(config)
    }

    /// Checks a configuration's text. `Err` has every mistake found, in the order of the text.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let mut problems = raw::Problems::default();
        let config = raw::parse(text, &mut problems).map(|document| {
            let mut document = raw::Document::new(&document);
            let config = sections::read(&mut document, &mut problems);
            document.finish(&mut problems);
            config
        });
        match (config, problems.into_lines(text)) {
            (Some(config), problems) if problems.is_empty() => Ok(config),
            (_, problems) => Err(problems),
        }
    }

    /// The calls to accept on this machine; `Err` when `max-calls` asks for more than ports and descriptors carry.
    pub fn carried_calls(&self) -> Result<usize, ConfigError> {
        let limit = capacity::hard_limit();
        Ok(capacity::max_calls(self.max_calls, &self.threads.ports, self.files_per_recording(), limit)?)
    }

    /// Fixes `sip.max_calls` and raises the limit of open descriptors to what that takes.
    pub fn claim_capacity(&mut self) -> Result<(), ConfigError> {
        self.sip.max_calls = self.carried_calls()?;
        capacity::raise_limit(self.sip.max_calls, self.files_per_recording())?;
        Ok(())
    }

    fn files_per_recording(&self) -> u64 {
        match self.recording.layout {
            Layout::Mixed | Layout::Stereo => 1,
            Layout::Tracks => 3,
        }
    }
}

impl Default for Config {
    /// The built-in defaults: those of an empty file.
    fn default() -> Self {
        // An empty text has no key that could be wrong; a test holds it.
        Self::parse("").expect("defaults are valid")
    }
}

#[cfg(test)]
mod tests;
