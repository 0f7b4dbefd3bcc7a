//! Reading the folder of recordings: newest first, a page at a time, tolerant of what does not belong there.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::civil::Date;

use super::File;
use super::store::{Error, METADATA, Store};
use crate::id::RecordingId;
use crate::record::metadata::{MediaFile, Recording, State};

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

/// A media file of a recording, opened for reading.
pub struct OpenMedia {
    /// What the metadata says of it.
    pub media: MediaFile,
    /// Its bytes.
    pub file: Box<dyn File>,
}

/// The place of a recording in a list: newest first, and no two alike.
type Place = (Timestamp, RecordingId);

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
    /// At most `limit` recordings (at least 1) after `cursor` (a [`Page::next`]; one that is not ours counts as none),
    /// newest first, running ones included.
    ///
    /// # Errors
    /// The folder cannot be read. What does not belong there or cannot be parsed is skipped.
    pub fn list(&self, filter: &Filter, limit: usize, cursor: Option<&str>) -> Result<Page, Error> {
        let limit = limit.max(1);
        let after = cursor.and_then(parse_cursor);
        let mut found = Vec::new();
        for id in self.active()? {
            found.extend(self.read_metadata(&self.active_dir(id).join(METADATA), id).ok());
        }
        retain_wanted(&mut found, filter, after);
        let mut days = self.days()?;
        days.sort_by_key(|(date, _)| std::cmp::Reverse(*date));
        for (date, path) in days {
            if !may_hold(date, filter, after) {
                continue;
            }
            // Whatever is in this day or before it is older than what stands from the next day on.
            if found.iter().filter(|r| utc_date(r.start_time) > date).count() > limit {
                break;
            }
            let mut day = self.read_day(&path)?;
            retain_wanted(&mut day, filter, after);
            found.extend(day);
        }
        found.sort_by_key(|r| std::cmp::Reverse(place(r)));
        // One that is being moved is seen twice.
        found.dedup_by_key(|r| r.id);
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(cursor_of);
        Ok(Page { recordings: found, next })
    }

    /// One recording, running or published.
    ///
    /// # Errors
    /// [`Error::NotFound`], or its metadata cannot be read.
    pub fn find(&self, id: RecordingId) -> Result<Found, Error> {
        // The second look is for one that has been published between the looks into `.active` and into its day.
        for _ in 0..2 {
            for (folder, published) in self.places_of(id)? {
                match self.read_metadata(&folder.join(METADATA), id) {
                    Ok(recording) => return Ok(Found { recording, folder, published }),
                    Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Err(Error::NotFound(id))
    }

    /// Opens a media file for reading, running or published; `None` when the metadata names no such file. Nothing else in
    /// the folder, and nothing outside, can be opened by this.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such recording, or it cannot be read.
    pub fn open_media(&self, id: RecordingId, name: &str) -> Result<Option<OpenMedia>, Error> {
        // The second look is for one that is published between reading its metadata and opening its file.
        let mut missing = None;
        for _ in 0..2 {
            let found = self.find(id)?;
            let media = found.recording.media_files.into_iter().find(|media| media.file == name);
            let Some(media) = media.filter(|media| is_plain(&media.file)) else { return Ok(None) };
            let path = found.folder.join(&media.file);
            match self.disk().open_read(&path) {
                Ok(file) => return Ok(Some(OpenMedia { media, file })),
                Err(error) => missing = Some(Error::io("open", &path)(error)),
            }
        }
        Err(missing.unwrap_or(Error::NotFound(id)))
    }

    /// Removes a published recording. It vanishes from lists at once and whole.
    ///
    /// # Errors
    /// [`Error::Running`] while it is not published.
    pub fn delete(&self, id: RecordingId) -> Result<(), Error> {
        let found = self.find(id)?;
        if !found.published {
            return Err(Error::Running(id));
        }
        let hidden = found.folder.with_file_name(format!(".{id}.gone"));
        self.disk().rename(&found.folder, &hidden).map_err(Error::io("delete", &found.folder))?;
        self.remove_folder(&hidden)?;
        match hidden.parent() {
            Some(day) => self.disk().sync_dir(day).map_err(Error::io("sync", day)),
            None => Ok(()),
        }
    }

    /// Copies a published recording's folder to `<to>/<id>`; answers that path.
    ///
    /// # Errors
    /// [`Error::Running`] while it is not published; the disk's own, also when the target exists.
    pub fn export(&self, id: RecordingId, to: &Path) -> Result<PathBuf, Error> {
        let found = self.find(id)?;
        if !found.published {
            return Err(Error::Running(id));
        }
        let target = to.join(id.to_string());
        if self.exists(&target)? {
            return Err(Error::io("export to", &target)(std::io::ErrorKind::AlreadyExists.into()));
        }
        self.disk().create_dir_all(&target).map_err(Error::io("create", &target))?;
        for entry in self.entries(&found.folder)?.into_iter().filter(|e| !e.is_dir) {
            self.copy_file(&found.folder.join(&entry.name), &target.join(&entry.name))?;
        }
        self.disk().sync_dir(&target).map_err(Error::io("sync", &target))?;
        Ok(target)
    }

    /// Ids of all published recordings, also of those whose metadata cannot be read, newest day first.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn published(&self) -> Result<Vec<RecordingId>, Error> {
        let mut days = self.days()?;
        days.sort_by_key(|(date, _)| std::cmp::Reverse(*date));
        let mut ids = Vec::new();
        for (_, day) in days {
            ids.extend(
                self.entries(&day)?.iter().filter(|e| e.is_dir).filter_map(|e| e.name.parse::<RecordingId>().ok()),
            );
        }
        Ok(ids)
    }

    fn places_of(&self, id: RecordingId) -> Result<Vec<(PathBuf, bool)>, Error> {
        let active = self.active_dir(id);
        if self.exists(&active)? {
            return Ok(vec![(active, false)]);
        }
        let name = id.to_string();
        let mut places = Vec::new();
        for (_, day) in self.days()? {
            let folder = day.join(&name);
            if self.exists(&folder)? {
                places.push((folder, true));
            }
        }
        Ok(places)
    }

    /// The folders of days that there are, in no order.
    fn days(&self) -> Result<Vec<(Date, PathBuf)>, Error> {
        let mut days = Vec::new();
        for (year, path) in self.numbered(self.directory(), 4)? {
            for (month, path) in self.numbered(&path, 2)? {
                for (day, path) in self.numbered(&path, 2)? {
                    let date = Date::new(year, i8::try_from(month).unwrap_or(0), i8::try_from(day).unwrap_or(0));
                    days.extend(date.ok().map(|date| (date, path)));
                }
            }
        }
        Ok(days)
    }

    /// Folders whose names are numbers of so many digits.
    fn numbered(&self, dir: &Path, digits: usize) -> Result<Vec<(i16, PathBuf)>, Error> {
        let entries = self.entries(dir)?.into_iter().filter(|e| e.is_dir && e.name.len() == digits);
        Ok(entries.filter_map(|e| Some((e.name.parse().ok()?, dir.join(e.name)))).collect())
    }

    fn read_day(&self, day: &Path) -> Result<Vec<Recording>, Error> {
        let entries = self.entries(day)?.into_iter().filter(|e| e.is_dir);
        let ids = entries.filter_map(|e| e.name.parse::<RecordingId>().ok());
        Ok(ids.filter_map(|id| self.read_metadata(&day.join(id.to_string()).join(METADATA), id).ok()).collect())
    }
}

/// True for the name of a file in the folder itself, whatever a damaged recording.json says.
fn is_plain(name: &str) -> bool {
    !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}

fn place(recording: &Recording) -> Place {
    (recording.start_time, recording.id)
}

fn retain_wanted(recordings: &mut Vec<Recording>, filter: &Filter, after: Option<Place>) {
    recordings.retain(|r| after.is_none_or(|after| place(r) < after) && filter.matches(r));
}

fn utc_date(time: Timestamp) -> Date {
    time.to_zoned(jiff::tz::TimeZone::UTC).date()
}

/// False when nothing of that day can be in the list.
fn may_hold(date: Date, filter: &Filter, after: Option<Place>) -> bool {
    after.is_none_or(|(time, _)| date <= utc_date(time))
        && filter.from.is_none_or(|from| date >= utc_date(from))
        && filter.to.is_none_or(|to| date <= utc_date(to))
}

fn cursor_of(recording: &Recording) -> String {
    format!("{:.3}_{}", recording.start_time, recording.id)
}

fn parse_cursor(text: &str) -> Option<Place> {
    let (time, id) = text.split_once('_')?;
    Some((time.parse().ok()?, id.parse().ok()?))
}
