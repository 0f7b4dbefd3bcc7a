//! WAV files that are valid at any instant: the one home of hound.
//!
//! A file is a header of 44 bytes and 16-bit frames. Frames are appended whole; [`Writer::commit`] then writes the header
//! in one piece, data first, so that a killed process leaves a file that plays up to its last commit. After a power cut
//! the two may disagree: [`mend`] makes a header from the file's length.

use std::io::{self, Read};
use std::path::Path;

use zerocopy::IntoBytes;

use super::{Disk, File};

/// Bytes before the first frame.
pub const HEADER_LEN: u64 = 44;

/// The longest file whose sizes fit the header: the RIFF size is the file's length less 8, in 32 bits.
pub const MAX_FILE_LEN: u64 = u32::MAX as u64;

// Samples are written as they lie in memory.
const _: () = assert!(cfg!(target_endian = "little"), "a processor of the other byte order needs its samples swapped");

/// What a file's frames are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Frames per second.
    pub sample_rate: u32,
    /// Samples per frame, 1 or 2.
    pub channels: u16,
}

impl Spec {
    /// Bytes of one frame.
    pub fn frame_len(self) -> u64 {
        u64::from(self.channels) * 2
    }

    /// The length of a file with so many frames.
    pub fn file_len(self, frames: u64) -> u64 {
        HEADER_LEN + frames * self.frame_len()
    }

    /// Whole frames in a file of `len` bytes.
    pub fn frames_in(self, len: u64) -> u64 {
        len.saturating_sub(HEADER_LEN) / self.frame_len()
    }

    fn hound(self) -> hound::WavSpec {
        hound::WavSpec {
            channels: self.channels,
            sample_rate: self.sample_rate,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        }
    }
}

/// The name of a part of a file: `mixed.wav`, `mixed.2.wav` … .
pub fn file_name(stem: &str, part: u32) -> String {
    match part {
        0 | 1 => format!("{stem}.wav"),
        _ => format!("{stem}.{part}.wav"),
    }
}

/// The reverse of [`file_name`]; `None` for what it never makes.
pub fn parse_name(name: &str) -> Option<(&str, u32)> {
    let name =
        name.strip_suffix(".wav").filter(|stem| !stem.is_empty() && !stem.starts_with('.') && !stem.contains('/'))?;
    match name.split_once('.') {
        None => Some((name, 1)),
        Some((stem, part)) => {
            let number: u32 = part.parse().ok().filter(|&n| n > 1)?;
            (number.to_string() == part).then_some((stem, number))
        }
    }
}

/// Appends frames to a new file. Dropping it loses nothing that was committed.
pub struct Writer {
    file: Box<dyn File>,
    spec: Spec,
    frames: u64,
    /// What the header on the disk says.
    committed: Option<u64>,
}

impl Writer {
    /// Creates the file with a header that says it is empty.
    ///
    /// # Errors
    /// The disk's own.
    pub fn create(disk: &dyn Disk, path: &Path, spec: Spec) -> io::Result<Self> {
        let mut writer = Self { file: disk.create(path)?, spec, frames: 0, committed: None };
        writer.commit()?;
        Ok(writer)
    }

    /// What its frames are.
    pub fn spec(&self) -> Spec {
        self.spec
    }

    /// Frames appended.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Appends frames; the samples of a frame stand together. They do not play until [`Writer::commit`].
    ///
    /// # Errors
    /// The disk's own; also when `interleaved` ends within a frame or the file would pass [`MAX_FILE_LEN`]: nothing of it
    /// is written then.
    pub fn append(&mut self, interleaved: &[i16]) -> io::Result<()> {
        if !interleaved.len().is_multiple_of(usize::from(self.spec.channels)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "samples end within a frame"));
        }
        let frames = self.frames + (interleaved.len() / usize::from(self.spec.channels)) as u64;
        self.check_len(frames)?;
        // Not by hound: it keeps as many bytes of memory as the longest piece had, for every file.
        self.file.write_at(interleaved.as_bytes(), self.spec.file_len(self.frames))?;
        self.frames = frames;
        Ok(())
    }

    /// Appends silence; it takes no space on a file system that knows holes.
    ///
    /// # Errors
    /// As [`Writer::append`].
    pub fn append_silence(&mut self, frames: u64) -> io::Result<()> {
        let frames = self.frames.saturating_add(frames);
        self.check_len(frames)?;
        self.file.set_len(self.spec.file_len(frames))?;
        self.frames = frames;
        Ok(())
    }

    /// Writes the header: everything appended plays from now on.
    ///
    /// # Errors
    /// The disk's own.
    pub fn commit(&mut self) -> io::Result<()> {
        if self.committed != Some(self.frames) {
            self.file.write_at(&header(self.spec, self.frames)?, 0)?;
            self.committed = Some(self.frames);
        }
        Ok(())
    }

    /// Makes everything appended durable.
    ///
    /// # Errors
    /// The disk's own.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn check_len(&self, frames: u64) -> io::Result<()> {
        match frames.checked_mul(self.spec.frame_len()).is_some_and(|len| len <= MAX_FILE_LEN - HEADER_LEN) {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::FileTooLarge, "a WAV file ends at 4 GiB")),
        }
    }
}

/// The header of a file with so many frames.
fn header(spec: Spec, frames: u64) -> io::Result<[u8; HEADER_LEN as usize]> {
    let mut out = [0; HEADER_LEN as usize];
    let writer = hound::WavWriter::new(io::Cursor::new(&mut out[..]), spec.hound()).map_err(into_io)?;
    writer.finalize().map_err(into_io)?;
    let data = frames * spec.frame_len();
    let (Ok(riff), Ok(data)) = (u32::try_from(data + HEADER_LEN - 8), u32::try_from(data)) else {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "a WAV file ends at 4 GiB"));
    };
    out[4..8].copy_from_slice(&riff.to_le_bytes());
    out[40..44].copy_from_slice(&data.to_le_bytes());
    Ok(out)
}

/// What a file says of itself and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// Rate and channels by the header.
    pub spec: Spec,
    /// Frames by the header.
    pub frames: u64,
    /// Bytes before the first frame; 44 in files of ours.
    pub data_offset: u64,
    /// Bytes of the file.
    pub len: u64,
}

/// Reads a file's header.
///
/// # Errors
/// The disk's own; `InvalidData` when the header is none, or not one of 16-bit PCM.
pub fn inspect(disk: &dyn Disk, path: &Path) -> io::Result<Info> {
    let file = disk.open_read(path)?;
    let len = file.len()?;
    let reader = hound::WavReader::new(Reader { file, position: 0 }).map_err(into_io)?;
    let (spec, frames) = (reader.spec(), u64::from(reader.duration()));
    if spec.bits_per_sample != 16 || spec.sample_format != hound::SampleFormat::Int || spec.channels == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not 16-bit PCM"));
    }
    let spec = Spec { sample_rate: spec.sample_rate, channels: spec.channels };
    Ok(Info { spec, frames, data_offset: reader.into_inner().position, len })
}

/// All samples of a file, interleaved, as its header says.
///
/// # Errors
/// As [`inspect`]; `UnexpectedEof` when the file is shorter than its header says.
pub fn read(disk: &dyn Disk, path: &Path) -> io::Result<(Spec, Vec<i16>)> {
    let info = inspect(disk, path)?;
    let mut samples = Vec::new();
    read_frames(disk, path, &info, 0..info.frames, |chunk| {
        samples.extend_from_slice(chunk);
        true
    })?;
    Ok((info.spec, samples))
}

/// The first frame of `frames` that is not digital silence in every channel.
///
/// # Errors
/// As [`read`].
pub fn first_sound(disk: &dyn Disk, path: &Path, frames: std::ops::Range<u64>) -> io::Result<Option<u64>> {
    let info = inspect(disk, path)?;
    let (mut at, mut found) = (frames.start, None);
    read_frames(disk, path, &info, frames, |chunk| {
        found = chunk.iter().position(|&s| s != 0).map(|i| at + (i / usize::from(info.spec.channels)) as u64);
        at += (chunk.len() / usize::from(info.spec.channels)) as u64;
        found.is_none()
    })?;
    Ok(found)
}

/// Hands on the frames of a range, a chunk at a time, until `take` says no.
fn read_frames(
    disk: &dyn Disk,
    path: &Path,
    info: &Info,
    frames: std::ops::Range<u64>,
    mut take: impl FnMut(&[i16]) -> bool,
) -> io::Result<()> {
    const CHUNK: u64 = 16_384;
    let file = disk.open_read(path)?;
    let mut bytes = vec![0; (CHUNK * info.spec.frame_len()) as usize];
    let mut samples = Vec::with_capacity(bytes.len() / 2);
    let mut at = frames.start;
    while at < frames.end {
        let wanted = ((frames.end - at).min(CHUNK) * info.spec.frame_len()) as usize;
        let offset = info.data_offset + at * info.spec.frame_len();
        if super::read_full(&*file, &mut bytes[..wanted], offset)? < wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        samples.clear();
        samples.extend(bytes[..wanted].chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])));
        if !take(&samples) {
            return Ok(());
        }
        at += wanted as u64 / info.spec.frame_len();
    }
    Ok(())
}

/// Gives a file exactly `frames` frames and a header that says so, and makes it durable. What is missing becomes
/// silence; a file that does not exist is made. Callers never ask for less than the whole frames it holds, so only a
/// torn frame is cut. Cut short itself, it can be done again.
///
/// # Errors
/// The disk's own.
pub fn mend(disk: &dyn Disk, path: &Path, spec: Spec, frames: u64) -> io::Result<()> {
    let file = match disk.open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => disk.create(path)?,
        other => other?,
    };
    let header = header(spec, frames)?;
    let mut found = [0; HEADER_LEN as usize];
    let read = super::read_full(&*file, &mut found, 0)?;
    let len = file.len()?;
    let whole = spec.file_len(spec.frames_in(len));
    if len > whole {
        // Half a sample before the silence would be a click.
        file.set_len(whole)?;
    }
    if len.min(whole) != spec.file_len(frames) {
        file.set_len(spec.file_len(frames))?;
    }
    if read < found.len() || found != header {
        file.write_at(&header, 0)?;
    }
    file.sync()
}

/// Reads a file from its start.
struct Reader {
    file: Box<dyn File>,
    position: u64,
}

impl Read for Reader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(out, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

fn into_io(error: hound::Error) -> io::Error {
    match error {
        hound::Error::IoError(e) => e,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

#[cfg(test)]
mod tests {
    use super::super::RealDisk;
    use super::*;

    const STEREO: Spec = Spec { sample_rate: 8_000, channels: 2 };

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn ramp(samples: usize) -> Vec<i16> {
        (0..samples).map(|i| (i as i16).wrapping_mul(31) | 1).collect()
    }

    #[test]
    fn a_new_file_is_valid_and_empty_at_once() {
        let dir = folder();
        let path = dir.path().join("a.wav");
        let _writer = Writer::create(&RealDisk, &path, STEREO).unwrap();
        let info = inspect(&RealDisk, &path).unwrap();
        assert_eq!(info, Info { spec: STEREO, frames: 0, data_offset: HEADER_LEN, len: HEADER_LEN });
    }

    #[test]
    fn a_file_plays_up_to_its_last_commit_while_it_is_written() {
        let dir = folder();
        let path = dir.path().join("a.wav");
        let mut writer = Writer::create(&RealDisk, &path, STEREO).unwrap();
        writer.append(&ramp(400)).unwrap();
        writer.commit().unwrap();
        writer.append(&ramp(400)).unwrap();
        assert_eq!(inspect(&RealDisk, &path).unwrap().frames, 200);
        assert_eq!(read(&RealDisk, &path).unwrap().1, ramp(400));
        writer.commit().unwrap();
        assert_eq!(read(&RealDisk, &path).unwrap().1, [ramp(400), ramp(400)].concat());
    }

    #[test]
    fn a_writer_that_is_dropped_does_not_touch_the_file_again() {
        let dir = folder();
        let path = dir.path().join("a.wav");
        let mut writer = Writer::create(&RealDisk, &path, STEREO).unwrap();
        writer.append(&ramp(40)).unwrap();
        drop(writer);
        assert_eq!(inspect(&RealDisk, &path).unwrap().frames, 0);
    }

    #[test]
    fn silence_has_its_exact_length_and_sound_goes_on_after_it() {
        let dir = folder();
        let path = dir.path().join("a.wav");
        let mut writer = Writer::create(&RealDisk, &path, STEREO).unwrap();
        writer.append(&ramp(4)).unwrap();
        writer.append_silence(100).unwrap();
        writer.append(&ramp(6)).unwrap();
        writer.commit().unwrap();
        assert_eq!(writer.frames(), 105);
        assert_eq!(read(&RealDisk, &path).unwrap(), (STEREO, [ramp(4), vec![0; 200], ramp(6)].concat()));
        assert_eq!(first_sound(&RealDisk, &path, 2..105).unwrap(), Some(102));
        assert_eq!(first_sound(&RealDisk, &path, 2..102).unwrap(), None);
    }

    #[test]
    fn half_a_frame_is_refused_and_nothing_of_it_written() {
        let dir = folder();
        let path = dir.path().join("a.wav");
        let mut writer = Writer::create(&RealDisk, &path, STEREO).unwrap();
        assert!(writer.append(&ramp(3)).is_err());
        writer.append(&ramp(2)).unwrap();
        writer.commit().unwrap();
        assert_eq!(read(&RealDisk, &path).unwrap().1, ramp(2));
    }

    #[test]
    fn a_file_ends_before_its_sizes_would_wrap() {
        let dir = folder();
        let path = dir.path().join("a.wav");
        let mut writer = Writer::create(&RealDisk, &path, STEREO).unwrap();
        let most = STEREO.frames_in(MAX_FILE_LEN);
        assert_eq!(STEREO.file_len(most), MAX_FILE_LEN - 3);
        writer.append_silence(most).unwrap();
        assert_eq!(writer.append(&[1, 1]).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        writer.commit().unwrap();
        assert_eq!(inspect(&RealDisk, &path).unwrap().frames, most);
    }

    #[test]
    fn a_file_name_reads_back_as_stem_and_part() {
        for (stem, part) in [("mixed", 1), ("mixed", 2), ("supervisor-1", 1), ("party-12", 4_000)] {
            assert_eq!(parse_name(&file_name(stem, part)), Some((stem, part)));
        }
        for junk in [
            "mixed.1.wav",
            "mixed.0.wav",
            "mixed.02.wav",
            "mixed.x.wav",
            ".wav",
            ".mixed.wav",
            "mixed",
            "a.b.2.wav",
            "/a.wav",
            "../a.wav",
        ] {
            assert_eq!(parse_name(junk), None, "{junk}");
        }
    }

    #[test]
    fn mending_keeps_every_whole_frame_cuts_a_torn_one_and_pads() {
        let dir = folder();
        let path = dir.path().join("a.wav");
        let mut writer = Writer::create(&RealDisk, &path, STEREO).unwrap();
        writer.append(&ramp(200)).unwrap();
        drop(writer);
        let len = std::fs::metadata(&path).unwrap().len();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len + 3).unwrap();
        assert_eq!(STEREO.frames_in(len + 3), 100);
        mend(&RealDisk, &path, STEREO, 100).unwrap();
        assert_eq!(read(&RealDisk, &path).unwrap().1, ramp(200));
        mend(&RealDisk, &path, STEREO, 130).unwrap();
        assert_eq!(read(&RealDisk, &path).unwrap().1, [ramp(200), vec![0; 60]].concat());
    }

    #[test]
    fn nothing_of_a_torn_frame_is_left_before_the_silence() {
        let dir = folder();
        let path = dir.path().join("a.wav");
        let mut writer = Writer::create(&RealDisk, &path, STEREO).unwrap();
        writer.append(&ramp(4)).unwrap();
        drop(writer);
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(44 + 7).unwrap();
        mend(&RealDisk, &path, STEREO, 5).unwrap();
        assert_eq!(read(&RealDisk, &path).unwrap().1, [ramp(2), vec![0; 8]].concat());
    }

    #[test]
    fn mending_makes_a_header_where_there_is_none() {
        let dir = folder();
        for content in [&b""[..], b"RIFF", &[0; 48]] {
            let path = dir.path().join("a.wav");
            std::fs::write(&path, content).unwrap();
            assert!(inspect(&RealDisk, &path).is_err());
            mend(&RealDisk, &path, STEREO, 1).unwrap();
            assert_eq!(read(&RealDisk, &path).unwrap().1, [0, 0]);
        }
        mend(&RealDisk, &dir.path().join("missing.wav"), STEREO, 2).unwrap();
        assert_eq!(read(&RealDisk, &dir.path().join("missing.wav")).unwrap().1, [0; 4]);
    }

    #[test]
    fn a_file_shorter_than_its_header_says_is_an_error_to_read() {
        let dir = folder();
        let path = dir.path().join("a.wav");
        let mut writer = Writer::create(&RealDisk, &path, STEREO).unwrap();
        writer.append(&ramp(200)).unwrap();
        writer.commit().unwrap();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100).unwrap();
        assert_eq!(read(&RealDisk, &path).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
