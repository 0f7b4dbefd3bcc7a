//! What the files of a recording really are, for [`crate::record::verify`].

use std::path::Path;

use super::list::Found;
use super::store::{Error, Store};
use super::wav;
use crate::id::RecordingId;
use crate::record::metadata::Recording;
use crate::record::verify::{FileFacts, silent_ranges, verify};

impl Store {
    /// Checks a published recording against everything that its metadata says: what is wrong, one sentence each. Reads
    /// all of its files.
    ///
    /// # Errors
    /// There is no such recording, its metadata cannot be read, or it is not published yet.
    pub fn verify(&self, id: RecordingId) -> Result<(Recording, Vec<String>), Error> {
        let found = self.find(id)?;
        if !found.published {
            return Err(Error::Running(id));
        }
        let facts = self.facts(&found)?;
        let mut wrong = verify(&found.recording, &facts);
        if found.folder != self.published_dir(&found.recording) {
            wrong.push("its folder is not that of the UTC date of startTime".into());
        }
        Ok((found.recording, wrong))
    }

    /// Facts of every WAV file in a recording's folder.
    ///
    /// # Errors
    /// The folder cannot be read. A file that cannot be read says so in its facts.
    pub fn facts(&self, found: &Found) -> Result<Vec<FileFacts>, Error> {
        let mut facts = Vec::new();
        for (stem, part, path) in self.wav_files(&found.folder)? {
            let name = wav::file_name(&stem, part);
            facts.push(self.file_facts(&found.recording, name, &path));
        }
        facts.sort_by(|a, b| a.file.cmp(&b.file));
        Ok(facts)
    }

    fn file_facts(&self, recording: &Recording, file: String, path: &Path) -> FileFacts {
        let mut facts = FileFacts {
            file,
            unreadable: None,
            sample_rate: 0,
            channels: 0,
            frames: 0,
            frames_on_disk: 0,
            size: 0,
            sha256: None,
            sound_in_pause: None,
        };
        if let Err(why) = self.fill(&mut facts, recording, path) {
            facts.unreadable = Some(why);
        }
        facts
    }

    fn fill(&self, facts: &mut FileFacts, recording: &Recording, path: &Path) -> Result<(), String> {
        let info = wav::inspect(self.disk(), path).map_err(|e| e.to_string())?;
        facts.sample_rate = info.spec.sample_rate;
        facts.channels = info.spec.channels;
        facts.frames = info.frames;
        facts.frames_on_disk = info.len.saturating_sub(info.data_offset) / info.spec.frame_len();
        let (size, hash) = self.hash(path).map_err(|e| e.public_text())?;
        facts.size = size;
        facts.sha256 = Some(hash);
        let start = recording.media_files.iter().find(|f| f.file == facts.file).map_or(0, |f| f.start_sample);
        for range in silent_ranges(recording) {
            let within = range.start.saturating_sub(start)..range.end.saturating_sub(start).min(info.frames);
            if facts.sound_in_pause.is_none() && !within.is_empty() {
                facts.sound_in_pause = wav::first_sound(self.disk(), path, within).map_err(|e| e.to_string())?;
            }
        }
        Ok(())
    }
}
