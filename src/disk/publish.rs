//! Active → published: hash, final metadata, sync, one rename (spec/recording.md §6).
//!
//! Every step may be the last one before a kill or a power cut; doing it all again reaches the same end.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::active::write_json;
use super::store::{Error, METADATA, METADATA_NEW, METADATA_SAFE, Store};
use super::wav;
use crate::record::metadata::{Recording, State};

/// Bytes read at once for hashing and copying.
const CHUNK: u64 = 64 * 1024;

/// A recording between [`Store::prepare`] and [`Store::place`].
#[derive(Debug)]
pub struct Prepared {
    /// With its final metadata.
    recording: Recording,
    /// It has its place already: a former try failed only later.
    moved: bool,
}

/// A recording in its place, which is published as soon as a sync has made that durable.
#[derive(Debug)]
pub struct Placed(Recording);

impl Placed {
    /// Its final metadata.
    pub fn into_recording(self) -> Recording {
        self.0
    }
}

impl Store {
    /// Publishes a recording whose files are closed and as long as its metadata says. `recording` is what
    /// [`super::active::Active::close`] answered or repair made; the final metadata is answered.
    ///
    /// # Errors
    /// The disk's own; it can be done again.
    pub fn publish(&self, recording: Recording) -> Result<Recording, Error> {
        let prepared = self.prepare(recording)?;
        let root = self.active_root();
        let sync = || self.disk().sync_all(&root).map_err(Error::io("sync", &root));
        sync()?;
        let placed = self.place(prepared)?;
        sync()?;
        Ok(placed.into_recording())
    }

    /// The first step of publishing: hashes the files and writes the final metadata beside the present one. The next step
    /// is [`Store::place`], once a sync of the whole file system that began after this is done: one for as many
    /// recordings as were prepared, for a sync of each file costs more than all of its audio.
    ///
    /// # Errors
    /// The disk's own; it can be done again.
    pub fn prepare(&self, mut recording: Recording) -> Result<Prepared, Error> {
        let dir = self.active_dir(recording.id);
        if let Some(published) = self.already_moved(&recording)? {
            return Ok(Prepared { recording: published, moved: true });
        }
        for file in &mut recording.media_files {
            let (size, hash) = self.hash(&dir.join(&file.file))?;
            file.size = Some(size);
            file.sha256 = Some(hash);
        }
        if recording.recording_session.state == State::Recording {
            recording.recording_session.state = State::Complete;
        }
        write_json(self.disk(), &dir.join(METADATA_NEW), &recording)?;
        Ok(Prepared { recording, moved: false })
    }

    /// The second step: the final metadata takes its name, the folder its place. What [`Store::prepare`] did is durable,
    /// or a power cut leaves metadata that calls itself final and is not. It is published when another sync of the whole
    /// file system, begun after this, is done.
    ///
    /// # Errors
    /// The disk's own; all of it, from [`Store::prepare`] on, can be done again.
    pub fn place(&self, prepared: Prepared) -> Result<Placed, Error> {
        let Prepared { recording, moved } = prepared;
        if !moved {
            let dir = self.active_dir(recording.id);
            let current = dir.join(METADATA);
            self.disk().rename(&dir.join(METADATA_NEW), &current).map_err(Error::io("replace", &current))?;
            match self.disk().remove_file(&dir.join(METADATA_SAFE)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io("remove", &dir)(e)),
                _ => {}
            }
            self.move_to_its_day(&recording)?;
        }
        Ok(Placed(recording))
    }

    /// What was renamed in a former try that failed only later.
    pub(super) fn already_moved(&self, recording: &Recording) -> Result<Option<Recording>, Error> {
        let published = self.published_dir(recording);
        if self.exists(&self.active_dir(recording.id))? || !self.exists(&published)? {
            return Ok(None);
        }
        let recording = self.read_metadata(&published.join(METADATA), recording.id)?;
        self.sync_day(&self.day_dir(&recording))?;
        Ok(Some(recording))
    }

    fn move_to_its_day(&self, recording: &Recording) -> Result<(), Error> {
        let (from, to, day) = (self.active_dir(recording.id), self.published_dir(recording), self.day_dir(recording));
        let rename = || self.disk().rename(&from, &to);
        // The day's folder is there for all but the first of a day.
        let renamed = match rename() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.disk().create_dir_all(&day).map_err(Error::io("create", &day))?;
                rename()
            }
            other => other,
        };
        match renamed {
            Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {
                self.copy_to_its_day(recording)?;
                self.remove_published_source(recording)
            }
            other => other.map_err(Error::io("publish", &from)),
        }
    }

    /// The day's folder may be on another file system: a copy appears under its name only when it is whole.
    fn copy_to_its_day(&self, recording: &Recording) -> Result<(), Error> {
        let (from, to, day) = (self.active_dir(recording.id), self.published_dir(recording), self.day_dir(recording));
        let hidden = day.join(format!(".{}.new", recording.id));
        self.remove_folder(&hidden)?;
        self.disk().create_dir_all(&hidden).map_err(Error::io("create", &hidden))?;
        let names = recording.media_files.iter().map(|f| f.file.as_str()).chain([METADATA]);
        for name in names {
            self.copy_file(&from.join(name), &hidden.join(name))?;
        }
        self.disk().sync_dir(&hidden).map_err(Error::io("sync", &hidden))?;
        self.disk().rename(&hidden, &to).map_err(Error::io("publish", &hidden))?;
        self.sync_day(&day)
    }

    /// Removes the folder under `.active` of a recording whose published copy is whole and durable.
    pub(super) fn remove_published_source(&self, recording: &Recording) -> Result<(), Error> {
        let root = self.active_root();
        self.remove_folder(&self.active_dir(recording.id))?;
        self.disk().sync_dir(&root).map_err(Error::io("sync", &root))
    }

    /// Makes the names from the day up to the folder of recordings durable, for any of them may be new.
    pub(super) fn sync_day(&self, day: &Path) -> Result<(), Error> {
        for dir in day.ancestors().take_while(|dir| dir.starts_with(self.directory())) {
            self.disk().sync_dir(dir).map_err(Error::io("sync", dir))?;
        }
        Ok(())
    }

    /// Size and lowercase hexadecimal SHA-256 of a file.
    ///
    /// # Errors
    /// The disk's own.
    pub fn hash(&self, path: &Path) -> Result<(u64, String), Error> {
        let mut hasher = Sha256::new();
        let size = self.chunks(path, |chunk, _| {
            hasher.update(chunk);
            Ok(())
        })?;
        let mut text = String::with_capacity(64);
        for byte in hasher.finalize() {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Ok((size, text))
    }

    /// Copies one file and makes the copy durable.
    pub(crate) fn copy_file(&self, from: &Path, to: &Path) -> Result<(), Error> {
        let copy = self.disk().create(to).map_err(Error::io("create", to))?;
        self.chunks(from, |chunk, offset| copy.write_at(chunk, offset).map_err(Error::io("write", to)))?;
        copy.sync().map_err(Error::io("sync", to))
    }

    /// Hands on a file's content, as long as it is when this begins; answers its length.
    fn chunks(&self, path: &Path, mut take: impl FnMut(&[u8], u64) -> Result<(), Error>) -> Result<u64, Error> {
        let file = self.disk().open_read(path).map_err(Error::io("open", path))?;
        let len = file.len().map_err(Error::io("read", path))?;
        // No larger than the file: for a short one, clearing the buffer would cost more than hashing.
        let mut buffer = vec![0; usize::try_from(len.min(CHUNK)).unwrap_or(usize::MAX)];
        let mut offset = 0;
        while offset < len {
            // No further than to its end: looking for the end takes a call of its own.
            let wanted = usize::try_from(len - offset).unwrap_or(usize::MAX).min(buffer.len());
            let read = super::read_full(&*file, &mut buffer[..wanted], offset).map_err(Error::io("read", path))?;
            if read == 0 {
                break;
            }
            take(&buffer[..read], offset)?;
            offset += read as u64;
        }
        Ok(offset)
    }

    /// The WAV files of a folder as `(stem, part, path)`, in no order.
    pub(super) fn wav_files(&self, dir: &Path) -> Result<Vec<(String, u32, PathBuf)>, Error> {
        let entries = self.entries(dir)?;
        let wavs = entries.into_iter().filter(|e| !e.is_dir).filter_map(|e| {
            let (stem, part) = wav::parse_name(&e.name)?;
            Some((stem.to_owned(), part, dir.join(e.name)))
        });
        Ok(wavs.collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::RealDisk;
    use super::*;

    #[test]
    fn size_and_hash_are_those_of_the_whole_file_whatever_its_length() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(Arc::new(RealDisk), folder.path().into());
        let (path, chunk) = (folder.path().join("mixed.wav"), CHUNK as usize);
        for len in [0, 1, chunk - 1, chunk, chunk + 1, 3 * chunk + 44] {
            let content: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
            std::fs::write(&path, &content).unwrap();
            let expected: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(store.hash(&path).unwrap(), (len as u64, expected), "{len} bytes");
        }
    }
}
