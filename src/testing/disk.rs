//! A disk in memory that keeps what was not synced volatile and can be cut at any operation.
//!
//! Names survive a power cut as journaling file systems promise: a prefix of the changes, in their order, at least up to
//! the last sync that covers them. Contents do not: of every write that was not synced, each block may have reached the
//! disk or not, and so may the file's new length.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::disk::{Disk, Entry, File, Guard, Space};

/// Bytes that reach the disk together or not at all.
const BLOCK: usize = 512;

/// See the module. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    /// Told when [`State::hangs`] is over.
    answers: Arc<Condvar>,
}

#[derive(Default)]
struct State {
    names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
    /// Changes of names since [`State::durable_names`].
    journal: Vec<Change>,
    inodes: HashMap<u64, Inode>,
    next_inode: u64,
    locks: Arc<Mutex<Vec<PathBuf>>>,
    /// Operations done.
    operations: u64,
    /// Those of them that synced the whole disk.
    syncs: u64,
    /// The first operation that fails, and with what.
    fails_from: Option<(u64, io::ErrorKind)>,
    /// Folders on file systems of their own.
    mounts: Vec<PathBuf>,
    free: Option<u64>,
    /// Every operation waits.
    hangs: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Dir,
    File(u64),
}

#[derive(Debug, Clone)]
enum Change {
    Set(PathBuf, Node),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
    Exchange(PathBuf, PathBuf),
}

#[derive(Debug, Clone, Default)]
struct Inode {
    content: Vec<u8>,
    durable: Vec<u8>,
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        let disk = Self::default();
        disk.state().names.insert(PathBuf::from("/"), Node::Dir);
        disk.state().durable_names.insert(PathBuf::from("/"), Node::Dir);
        disk
    }

    /// Operations that were asked for so far.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Syncs of the whole disk so far.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Every operation from number `operation` on (counted from 0) fails with `kind`. A write that is the first to fail
    /// writes a part of its bytes.
    pub fn fail_from(&self, operation: u64, kind: io::ErrorKind) {
        self.state().fails_from = Some((operation, kind));
    }

    /// No operation fails any more.
    pub fn heal(&self) {
        self.state().fails_from = None;
    }

    /// Every operation from now on waits, as on a network file system whose server is gone, until [`SimDisk::resume`].
    pub fn hang(&self) {
        self.state().hangs = true;
    }

    /// Operations that wait, and those to come, are done.
    pub fn resume(&self) {
        self.state().hangs = false;
        self.answers.notify_all();
    }

    /// `path` is on a file system of its own: nothing is renamed into it or out of it.
    pub fn mount(&self, path: &Path) {
        self.state().mounts.push(path.to_owned());
    }

    /// So many bytes are free from now on.
    pub fn set_free(&self, bytes: u64) {
        self.state().free = Some(bytes);
    }

    /// What the process left when it was killed: everything that was done, synced or not; its locks are gone.
    pub fn after_kill(&self) -> Self {
        let state = self.state();
        let copy = State {
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            journal: state.journal.clone(),
            inodes: state.inodes.clone(),
            next_inode: state.next_inode,
            mounts: state.mounts.clone(),
            free: state.free,
            ..State::default()
        };
        Self { state: Arc::new(Mutex::new(copy)), ..Self::default() }
    }

    /// What a power cut leaves; chance decides about everything that was not synced.
    pub fn after_power_cut(&self, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let state = self.state();
        let mut names = state.durable_names.clone();
        let reached = rng.random_range(0..=state.journal.len());
        state.journal[..reached].iter().for_each(|change| apply(&mut names, change));
        // In a stable order, so that a seed means one outcome.
        let mut numbers: Vec<u64> = state.inodes.keys().copied().collect();
        numbers.sort_unstable();
        let inodes = numbers.into_iter().map(|number| {
            let content = after_cut(&state.inodes[&number], &mut rng);
            (number, Inode { durable: content.clone(), content })
        });
        let copy = State {
            durable_names: names.clone(),
            names,
            inodes: inodes.collect(),
            next_inode: state.next_inode,
            mounts: state.mounts.clone(),
            free: state.free,
            ..State::default()
        };
        Self { state: Arc::new(Mutex::new(copy)), ..Self::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, unless this operation is one that fails.
    fn operation(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.when_it_answers();
        state.begin()?;
        Ok(state)
    }

    fn when_it_answers(&self) -> MutexGuard<'_, State> {
        let waited = self.answers.wait_while(self.state(), |state| state.hangs);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    fn open_file(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let state = self.operation()?;
        match state.names.get(path) {
            Some(Node::File(inode)) => Ok(Box::new(SimFile { disk: self.clone(), inode: *inode })),
            Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// One file's content after the power was cut.
fn after_cut(inode: &Inode, rng: &mut StdRng) -> Vec<u8> {
    let (old, new) = (&inode.durable, &inode.content);
    if old == new {
        return new.clone();
    }
    let len = match rng.random_range(0..4) {
        0 => old.len(),
        1 => new.len(),
        _ => rng.random_range(old.len().min(new.len())..=old.len().max(new.len())),
    };
    let mut out = vec![0; len];
    for (index, block) in out.chunks_mut(BLOCK).enumerate() {
        let from = if rng.random_bool(0.5) { old } else { new };
        let start = (index * BLOCK).min(from.len());
        let end = (start + block.len()).min(from.len());
        block[..end - start].copy_from_slice(&from[start..end]);
    }
    out
}

fn apply(names: &mut BTreeMap<PathBuf, Node>, change: &Change) {
    match change {
        Change::Set(path, node) => drop(names.insert(path.clone(), *node)),
        Change::Remove(path) => drop(names.remove(path)),
        Change::Rename(from, to) => {
            let moved: Vec<_> = names.keys().filter(|path| path.starts_with(from)).cloned().collect();
            for path in moved {
                let (Some(node), Ok(rest)) = (names.remove(&path), path.strip_prefix(from)) else { continue };
                let target = if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) };
                names.insert(target, node);
            }
        }
        Change::Exchange(one, other) => {
            if let (Some(node), Some(second)) = (names.get(one).copied(), names.get(other).copied()) {
                names.insert(one.clone(), second);
                names.insert(other.clone(), node);
            }
        }
    }
}

impl State {
    fn begin(&mut self) -> io::Result<()> {
        let number = self.operations;
        self.operations += 1;
        match self.fails_from {
            Some((from, kind)) if number >= from => Err(kind.into()),
            _ => Ok(()),
        }
    }

    /// True for the one operation that is the first to fail.
    fn is_first_failure(&self) -> bool {
        self.fails_from.is_some_and(|(from, _)| self.operations == from + 1)
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.names, &change);
        self.journal.push(change);
    }

    /// Makes the first `changes` of the journal durable.
    fn settle(&mut self, changes: usize) {
        let settled: Vec<Change> = self.journal.drain(..changes).collect();
        settled.iter().for_each(|change| apply(&mut self.durable_names, change));
    }

    fn parent_exists(&self, path: &Path) -> io::Result<()> {
        match path.parent().and_then(|parent| self.names.get(parent)) {
            Some(Node::Dir) => Ok(()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn children<'a>(&'a self, dir: &'a Path) -> impl Iterator<Item = (&'a PathBuf, &'a Node)> {
        self.names.iter().filter(move |(path, _)| path.parent() == Some(dir))
    }

    fn mount_of(&self, path: &Path) -> Option<&PathBuf> {
        self.mounts.iter().find(|mount| path.starts_with(mount))
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut state = self.operation()?;
        state.parent_exists(path)?;
        let inode = match state.names.get(path).copied() {
            Some(Node::Dir) => return Err(io::ErrorKind::IsADirectory.into()),
            Some(Node::File(inode)) => {
                state.inodes.entry(inode).or_default().content.clear();
                inode
            }
            None => {
                let inode = state.next_inode;
                state.next_inode += 1;
                state.inodes.insert(inode, Inode::default());
                state.change(Change::Set(path.to_owned(), Node::File(inode)));
                inode
            }
        };
        Ok(Box::new(SimFile { disk: self.clone(), inode }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.open_file(path)
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.open_file(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.operation()?;
        let mut missing: Vec<&Path> = path.ancestors().take_while(|p| !state.names.contains_key(*p)).collect();
        while let Some(dir) = missing.pop() {
            state.change(Change::Set(dir.to_owned(), Node::Dir));
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.operation()?;
        state.parent_exists(to)?;
        if state.mount_of(from) != state.mount_of(to) {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        match (state.names.get(from), state.names.get(to)) {
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
            (Some(Node::Dir), Some(Node::File(_))) => return Err(io::ErrorKind::NotADirectory.into()),
            (Some(Node::File(_)), Some(Node::Dir)) => return Err(io::ErrorKind::IsADirectory.into()),
            (Some(Node::Dir), Some(Node::Dir)) if state.children(to).next().is_some() => {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            _ => {}
        }
        state.change(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.operation()?;
        match (state.names.get(from), state.names.get(to)) {
            (Some(Node::File(_)), Some(Node::File(_))) => {
                state.change(Change::Exchange(from.to_owned(), to.to_owned()));
                state.begin()?;
                state.change(Change::Remove(from.to_owned()));
                Ok(())
            }
            _ => {
                drop(state);
                self.rename(from, to)
            }
        }
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.operation()?;
        state.parent_exists(to)?;
        if state.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let node = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.change(Change::Set(to.to_owned(), node));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.operation()?;
        match state.names.get(path) {
            Some(Node::File(_)) => state.change(Change::Remove(path.to_owned())),
            Some(Node::Dir) => return Err(io::ErrorKind::IsADirectory.into()),
            None => return Err(io::ErrorKind::NotFound.into()),
        }
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.operation()?;
        if state.children(path).next().is_some() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        match state.names.get(path) {
            Some(Node::Dir) => state.change(Change::Remove(path.to_owned())),
            Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
            None => return Err(io::ErrorKind::NotFound.into()),
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let state = self.operation()?;
        match state.names.get(path) {
            Some(Node::Dir) => {}
            Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
            None => return Err(io::ErrorKind::NotFound.into()),
        }
        let entries = state.children(path).filter_map(|(path, node)| {
            let name = path.file_name()?.to_str()?.to_owned();
            Some(Entry { name, is_dir: *node == Node::Dir })
        });
        Ok(entries.collect())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.operation()?;
        if state.names.get(path) != Some(&Node::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let concerns = |change: &Change| match change {
            Change::Set(p, _) | Change::Remove(p) => p.parent() == Some(path),
            Change::Rename(one, other) | Change::Exchange(one, other) => {
                one.parent() == Some(path) || other.parent() == Some(path)
            }
        };
        let last = state.journal.iter().rposition(concerns);
        state.settle(last.map_or(0, |index| index + 1));
        Ok(())
    }

    fn sync_all(&self, _path: &Path) -> io::Result<()> {
        let mut state = self.operation()?;
        state.syncs += 1;
        let all = state.journal.len();
        state.settle(all);
        state.inodes.values_mut().for_each(|inode| inode.durable.clone_from(&inode.content));
        Ok(())
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let state = self.operation()?;
        Ok(Space { free: state.free.unwrap_or(1 << 40), total: 1 << 40 })
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Guard>>> {
        let state = self.operation()?;
        let mut held = state.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if held.iter().any(|p| p == path) {
            return Ok(None);
        }
        held.push(path.to_owned());
        Ok(Some(Box::new(SimLock { held: state.locks.clone(), path: path.to_owned() })))
    }

    fn modified(&self, path: &Path) -> io::Result<Timestamp> {
        let state = self.operation()?;
        match state.names.contains_key(path) {
            true => Ok(Timestamp::UNIX_EPOCH),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.operation()?.names.contains_key(path))
    }
}

struct SimLock {
    held: Arc<Mutex<Vec<PathBuf>>>,
    path: PathBuf,
}

impl Guard for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).retain(|p| *p != self.path);
    }
}

struct SimFile {
    disk: SimDisk,
    inode: u64,
}

impl SimFile {
    fn with<R>(&self, act: impl FnOnce(&mut Inode) -> R) -> io::Result<R> {
        Ok(act(self.disk.operation()?.inodes.entry(self.inode).or_default()))
    }
}

impl File for SimFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.when_it_answers();
        let result = state.begin();
        let torn = result.is_err() && state.is_first_failure();
        let bytes = match (&result, torn) {
            (Ok(()), _) => bytes,
            (Err(_), true) => &bytes[..bytes.len() / 2],
            (Err(_), false) => return result,
        };
        let content = &mut state.inodes.entry(self.inode).or_default().content;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start + bytes.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[start..end].copy_from_slice(bytes);
        result
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|inode| {
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(inode.content.len());
            let len = out.len().min(inode.content.len() - start);
            out[..len].copy_from_slice(&inode.content[start..start + len]);
            len
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|inode| inode.content.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        self.with(|inode| inode.content.resize(len, 0))
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|inode| inode.durable.clone_from(&inode.content))
    }
}
