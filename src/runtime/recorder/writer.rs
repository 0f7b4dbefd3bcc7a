//! `writer-N`: the open files of one recorder's sessions.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use super::keeper::Keeper;
use super::publisher::{Publication, Publisher};
use super::sink::{Job, Samples};
use super::{Notices, Shared};
use crate::disk::active::Active;
use crate::disk::store::{Error, Store};
use crate::id::RecordingId;
use crate::record::mark::{Notice, StopCause};
use crate::record::metadata::Recording;

/// Buffers longer than this are not kept: a session that was late must not hold memory for ever.
const MAX_SPARE: usize = 32 * 1024;

pub(super) struct Files {
    store: Arc<Store>,
    shared: Arc<Shared>,
    sessions: HashMap<RecordingId, Session>,
    /// Tells the recorder what to stop.
    broken: mpsc::Sender<(RecordingId, StopCause)>,
    /// Gives empty buffers back.
    spare: mpsc::SyncSender<Vec<i16>>,
    publisher: Publisher,
    notices: Notices,
    /// Bytes written by all recorders.
    written: Arc<AtomicU64>,
}

enum Session {
    Open(Box<Active>),
    /// A write failed. What is on the disk is published when the recorder has ended the session.
    Broken {
        cause: StopCause,
        why: String,
    },
}

impl Files {
    pub(super) fn new(
        keeper: &Keeper,
        shared: Arc<Shared>,
        broken: mpsc::Sender<(RecordingId, StopCause)>,
        spare: mpsc::SyncSender<Vec<i16>>,
        notices: Notices,
    ) -> Self {
        Self {
            store: keeper.store().clone(),
            publisher: keeper.publisher(),
            written: keeper.written(),
            sessions: HashMap::new(),
            shared,
            broken,
            spare,
            notices,
        }
    }

    pub(super) fn run(mut self, jobs: &mpsc::Receiver<Vec<Job>>) {
        while let Ok(batch) = jobs.recv() {
            for job in batch {
                self.take(job);
            }
        }
    }

    fn take(&mut self, job: Job) {
        match job {
            Job::Begin { files, recording } => {
                let id = files.id;
                match Active::begin(self.store.clone(), &files, *recording) {
                    Ok(active) => {
                        self.sessions.insert(id, Session::Open(Box::new(active)));
                        self.notify(Notice::Begun(id));
                    }
                    // Nothing of it is on the disk, so nothing is published at its end.
                    Err(error) => drop(self.fail(id, &error)),
                }
            }
            Job::AddFile { id, file } => self.attempt(id, |active| active.add_file(&file)),
            Job::Roll { id, files } => self.attempt(id, |active| active.roll(&files)),
            Job::Commit { id, files, metadata } => self.commit(id, files, metadata),
            Job::End { id, recording } => self.end(id, *recording),
        }
    }

    fn commit(&mut self, id: RecordingId, files: Vec<Samples>, metadata: Option<Box<Recording>>) {
        let bytes: u64 = files.iter().map(Samples::bytes).sum();
        self.attempt(id, |active| {
            for (index, file) in files.iter().enumerate() {
                if file.lost_frames > 0 {
                    active.append_lost(index, file.lost_frames)?;
                }
                if !file.interleaved.is_empty() {
                    active.append(index, &file.interleaved)?;
                }
            }
            if let Some(recording) = metadata {
                active.set_metadata(*recording);
            }
            active.commit()
        });
        self.written.fetch_add(bytes, Ordering::Relaxed);
        self.shared.queued.fetch_sub(bytes, Ordering::Relaxed);
        for Samples { mut interleaved, .. } in files {
            if interleaved.capacity() <= MAX_SPARE {
                interleaved.clear();
                // Where enough are kept this one is given back to the system.
                let _ = self.spare.try_send(interleaved);
            }
        }
    }

    fn end(&mut self, id: RecordingId, recording: Recording) {
        let publication = match self.sessions.remove(&id) {
            None => return,
            Some(Session::Open(active)) => match active.close(recording.clone()) {
                Ok(recording) => Publication::Complete(recording),
                Err(error) => {
                    let (cause, why) = self.fail(id, &error);
                    Publication::Failed { recording, cause, why }
                }
            },
            Some(Session::Broken { cause, why }) => Publication::Failed { recording, cause, why },
        };
        self.publisher.publish(publication, self.shared.options.id, self.notices.clone());
    }

    /// Does something with an open session; when it fails, the session is given up.
    fn attempt(&mut self, id: RecordingId, act: impl FnOnce(&mut Active) -> Result<(), Error>) {
        let Some(Session::Open(active)) = self.sessions.get_mut(&id) else { return };
        if let Err(error) = act(active) {
            let (cause, why) = self.fail(id, &error);
            self.sessions.insert(id, Session::Broken { cause, why });
        }
    }

    /// Reports a session that the disk refused.
    fn fail(&self, id: RecordingId, error: &Error) -> (StopCause, String) {
        let cause = if error.is_disk_full() { StopCause::DiskFull } else { StopCause::WriteError };
        tracing::error!(recording = %id, %error, "a recording breaks off");
        // The recorder is gone when this is the end of a shutdown.
        let _ = self.broken.send((id, cause));
        let why = error.public_text();
        self.notify(Notice::Failed { id, cause, reason: why.clone() });
        (cause, why)
    }

    fn notify(&self, notice: Notice) {
        (self.notices)(self.shared.options.id, notice);
    }
}
