//! The thread `event-log`: `events.file`, one line of JSON per event (NDJSON), only appended to.
//!
//! When a line would make the file longer than [`MAX_BYTES`] it is renamed to `FILE.1`, an older `FILE.1` to `FILE.2` and
//! so on; beyond [`GENERATIONS`] the oldest goes. A stalled disk delays nobody but this thread: lines wait in a bounded
//! queue, and what finds it full is counted as unwritten. A write error is logged once and again when it is over; a line
//! is in the file whole or not at all. Lines are handed to the system at once and not synced.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use super::events::Kept;

/// The longest file.
pub const MAX_BYTES: u64 = 64 << 20;

/// Older files that are kept beside the present one.
pub const GENERATIONS: u32 = 8;

/// Lines that may wait for the disk.
const QUEUE: usize = 8_192;

/// Bytes written in one go.
const BLOCK: usize = 64 << 10;

/// How long [`Writer::finish`] waits for a disk that does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The way to the file; dropped, the thread writes what waits and ends.
pub struct Log {
    lines: SyncSender<Arc<Kept>>,
    unwritten: Arc<AtomicU64>,
}

impl Log {
    /// Hands a line to the thread, without waiting.
    pub fn write(&self, kept: Arc<Kept>) {
        if self.lines.try_send(kept).is_err() {
            self.unwritten.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The running thread.
pub struct Writer {
    ended: Receiver<()>,
}

impl Writer {
    /// Waits until what was handed over is written; after five seconds without an answer of the disk it is given up.
    pub fn finish(self) {
        if self.ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            tracing::error!("the event log's disk does not answer: its last lines are missing");
        }
    }
}

/// How the file is rotated.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest file in bytes.
    pub max_bytes: u64,
    /// Older files that are kept.
    pub generations: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: MAX_BYTES, generations: GENERATIONS }
    }
}

/// Opens the file, new or to be continued, and starts its thread. Lines that are not written are counted in `unwritten`.
///
/// # Errors
/// The file cannot be opened for writing, or the thread not started.
pub fn open(path: &Path, limits: Limits, unwritten: Arc<AtomicU64>) -> io::Result<(Log, Writer)> {
    let mut file = LogFile { path: path.to_owned(), limits, open: None };
    file.reopen()?;
    let (lines, waiting) = mpsc::sync_channel(QUEUE);
    let (end, ended) = mpsc::channel();
    let counter = unwritten.clone();
    thread::Builder::new().name("event-log".to_owned()).spawn(move || {
        run(&mut file, &waiting, &counter);
        // Nobody may wait for it.
        let _ = end.send(());
    })?;
    Ok((Log { lines, unwritten }, Writer { ended }))
}

fn run(file: &mut LogFile, waiting: &Receiver<Arc<Kept>>, unwritten: &AtomicU64) {
    let mut block = Vec::with_capacity(BLOCK);
    let mut failing = false;
    while let Ok(first) = waiting.recv() {
        block.clear();
        let mut lines = 0;
        let mut next = Some(first);
        while let Some(kept) = next {
            block.extend_from_slice(kept.json.as_bytes());
            block.push(b'\n');
            lines += 1;
            next = if block.len() < BLOCK { waiting.try_recv().ok() } else { None };
        }
        match file.append(&block) {
            Ok(()) if failing => {
                failing = false;
                tracing::info!(missing = unwritten.load(Ordering::Relaxed), "the event log is written again");
            }
            Ok(()) => {}
            Err(error) => {
                unwritten.fetch_add(lines, Ordering::Relaxed);
                if !failing {
                    tracing::error!(file = %file.path.display(), %error, "the event log cannot be written");
                }
                failing = true;
            }
        }
    }
}

struct LogFile {
    path: PathBuf,
    limits: Limits,
    /// The file and its length; `None`: to be opened again.
    open: Option<(File, u64)>,
}

impl LogFile {
    /// Appends whole lines. A failure leaves none of them in the file.
    fn append(&mut self, block: &[u8]) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|(_, length)| self.is_full(*length, block)) {
            self.rotate()?;
        }
        let (file, length) = match &mut self.open {
            Some(open) => open,
            None => self.reopen()?,
        };
        let written = file.write_all(block);
        match written {
            Ok(()) => *length += block.len() as u64,
            // What a crash or this leaves of a line is ended when the file is opened again.
            Err(_) if file.set_len(*length).is_err() => self.open = None,
            Err(_) => {}
        }
        written
    }

    fn is_full(&self, length: u64, block: &[u8]) -> bool {
        length > 0 && length + block.len() as u64 > self.limits.max_bytes
    }

    fn reopen(&mut self) -> io::Result<&mut (File, u64)> {
        let mut file = OpenOptions::new().create(true).append(true).read(true).open(&self.path)?;
        let mut length = file.metadata()?.len();
        if length > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                length += 1;
            }
        }
        Ok(self.open.insert((file, length)))
    }

    /// Every file becomes one older. Should a step fail, nothing is written until it succeeds: the space is bounded.
    fn rotate(&mut self) -> io::Result<()> {
        for generation in (1..self.limits.generations).rev() {
            let aged = std::fs::rename(self.older(generation), self.older(generation + 1));
            if let Err(error) = aged
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
        }
        std::fs::rename(&self.path, self.older(1))?;
        self.open = None;
        Ok(())
    }

    fn older(&self, generation: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{generation}"));
        name.into()
    }
}
