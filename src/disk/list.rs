//! Reading the folder of recordings: newest first, a page at a time, tolerant of what does not belong there.

use std::path::PathBuf;

use jiff::Timestamp;

use super::store::{Error, Store};
use crate::id::RecordingId;
use crate::record::metadata::{Recording, State};

/// Which recordings; every field that is set must agree.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// `callerPhoneNumber`, exactly.
    pub caller: Option<String>,
    /// `dialedPhoneNumber`, exactly.
    pub dialed: Option<String>,
    /// The owner's or a participant's directory number.
    pub dn: Option<String>,
    /// Started at or after.
    pub from: Option<Timestamp>,
    /// Started before.
    pub to: Option<Timestamp>,
    /// `recordingSession.state`.
    pub state: Option<State>,
}

/// Some recordings, newest first.
#[derive(Debug, Default)]
pub struct Page {
    /// Each as its recording.json says.
    pub recordings: Vec<Recording>,
    /// To be passed on for what comes after; `None` at the end.
    pub next: Option<String>,
}

/// A recording found on the disk.
#[derive(Debug)]
pub struct Found {
    /// Its metadata.
    pub recording: Recording,
    /// Its folder.
    pub folder: PathBuf,
    /// False while it is under `.active`.
    pub published: bool,
}
impl Filter {
    /// True when `recording` is asked for.
    pub fn matches(&self, recording: &Recording) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
        same(&self.caller, &recording.caller_phone_number)
            && same(&self.dialed, &recording.dialed_phone_number)
            && self.dn.as_deref().is_none_or(|dn| {
                recording.recording_session.owner_dn.as_deref() == Some(dn)
                    || recording.participants.iter().any(|p| p.dn.as_deref() == Some(dn))
            })
            && self.from.is_none_or(|from| recording.start_time >= from)
            && self.to.is_none_or(|to| recording.start_time < to)
            && self.state.is_none_or(|state| recording.recording_session.state == state)
    }
}

impl Store {
    /// At most `limit` recordings after `cursor` (a [`Page::next`]; one that is not ours counts as none), newest first,
    /// running ones included.
    ///
    /// # Errors
    /// The folder cannot be read. What does not belong there or cannot be parsed is skipped.
    pub fn list(&self, filter: &Filter, limit: usize, cursor: Option<&str>) -> Result<Page, Error> {
        let _ = (filter, limit, cursor);
        Ok(Page::default())
    }

    /// One recording, running or published.
    ///
    /// # Errors
    /// [`Error::NotFound`], or its metadata cannot be read.
    pub fn find(&self, id: RecordingId) -> Result<Found, Error> {
        Err(Error::NotFound(id))
    }

    /// Removes a published recording. It vanishes from lists at once and whole.
    ///
    /// # Errors
    /// [`Error::Running`] while it is not published.
    pub fn delete(&self, id: RecordingId) -> Result<(), Error> {
        Err(Error::NotFound(id))
    }
}
