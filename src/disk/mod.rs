//! WAV files and the folder of recordings.
//!
//! Everything here reaches files through [`Disk`], so that a test can put a simulated disk underneath and cut its power
//! at every operation. [`RealDisk`] is the one that a server uses.

use std::io;
use std::path::Path;

use jiff::Timestamp;

mod real;

pub mod active;
pub mod facts;
pub mod floor;
pub mod list;
pub mod publish;
pub mod repair;
pub mod sound;
pub mod store;
pub mod wav;

pub use real::RealDisk;

/// A file system, as much of it as recordings need. Errors are the operating system's own.
///
/// Nothing is durable before [`File::sync`] (content and length), [`Disk::sync_dir`] (names) or [`Disk::sync_all`] (both,
/// for everything) has returned. Names change in the order of the calls, as journaling file systems promise.
pub trait Disk: Send + Sync + 'static {
    /// Creates or empties a file, readable and writable.
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Creates a folder and whatever is missing above it.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Moves a file (replacing one of the new name) or a folder (the new name must be free or an empty folder).
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// As [`Disk::rename`] of a file, for one whose content need not be durable before its name: what stood under the new
    /// name may be found under the old one after a crash. The operating system's own rename may write the content to the
    /// disk first, and the caller waits for it.
    fn replace(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name; fails with `AlreadyExists` when that name is taken.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty folder.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// The entries of a folder, in no order; names that are not UTF-8 are left out, for nothing of ours has one.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes everything on the file system that holds `path` durable (`syncfs`).
    fn sync_all(&self, path: &Path) -> io::Result<()>;
    /// Free and total bytes of the file system that holds `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;
    /// Takes an exclusive lock by way of a file that it creates; `None` when somebody else holds it. It is released when
    /// the guard is dropped or the process ends, however it ends.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Guard>>>;

    /// The whole content of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open_read(path)?;
        let mut out = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
        let read = read_full(&*file, &mut out, 0)?;
        out.truncate(read);
        Ok(out)
    }

    /// Opens an existing file for reading only.
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn File>>;

    /// When a file was last written; only to guess what nothing else tells.
    fn modified(&self, path: &Path) -> io::Result<Timestamp>;

    /// True when there is a file or folder of that name.
    fn exists(&self, path: &Path) -> io::Result<bool>;
}

/// An open file; offsets in bytes from its start.
pub trait File: Send + Sync {
    /// Writes all of `bytes` at `offset`; what lies between the former end and `offset` reads as zeros.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Reads at most `out.len()` bytes; 0 at the end.
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// True when its length is 0.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Sets the length; what is added reads as zeros and takes no space until written.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes content and length durable.
    fn sync(&self) -> io::Result<()>;
}

/// A held lock.
pub trait Guard: Send + Sync {}

/// One name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The last part of its path.
    pub name: String,
    /// A folder (symbolic links are followed).
    pub is_dir: bool,
}

/// Room on a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What we may still write.
    pub free: u64,
    /// All there is.
    pub total: u64,
}

/// Reads until `out` is full or the file ends; answers how much.
pub fn read_full(file: &dyn File, out: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < out.len() {
        match file.read_at(&mut out[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}
