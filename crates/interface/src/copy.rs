//! What a driver sees of a copy: somewhere to put files while capturing, somewhere to take them from while restoring.
//!
//! Calls here block and are meant for blocking threads; several may run at once. They watch the cancellation token and
//! deadline of the session that they belong to and return [`crate::ErrorKind::Stopped`].

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use seaworthy_model::witness::Witness;

use crate::error::DriverError;
use crate::journal::Journal;

/// A path inside a copy: relative, `/`-separated, bytes; no empty component, `.`, `..` or NUL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CopyPath(Vec<u8>);

impl CopyPath {
    /// Accepts a path that stays inside the copy; `None` otherwise.
    #[must_use]
    pub fn new(path: impl Into<Vec<u8>>) -> Option<Self> {
        let path = path.into();
        let is_sound = path
            .split(|byte| *byte == b'/')
            .all(|part| !part.is_empty() && part != b"." && part != b".." && !part.contains(&0));
        is_sound.then_some(Self(path))
    }

    /// This path with a component (or a relative path) below it; `None` where that would leave the copy.
    #[must_use]
    pub fn join(&self, below: impl AsRef<[u8]>) -> Option<Self> {
        let mut path = self.0.clone();
        path.push(b'/');
        path.extend_from_slice(below.as_ref());
        Self::new(path)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for CopyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// Where a stored file is cut into pieces. Any cut can be restored; the choice decides what a small change costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cuts {
    /// By content: for files, dumps, text.
    ContentDefined,
    /// At multiples of a database's page size: for relation files and database files.
    Pages {
        /// Bytes of a page.
        page_bytes: u32,
        /// Bytes of the file, as far as is known: of a very large one the pieces are larger, for each costs memory.
        size_bytes: u64,
    },
}

/// A piece of a stored file, in order: its length and the SHA-256 of its plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Bytes.
    pub length: u32,
    /// SHA-256 of these bytes.
    pub sha256: [u8; 32],
}

/// What was stored of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// Bytes written, which is what a restore must yield.
    pub size: u64,
    /// The pieces, in order; their lengths add up to `size`.
    pub pieces: Vec<Piece>,
}

/// A file being stored. Dropping one without [`CopyFile::finish`] spoils the copy: it can then never be committed.
pub trait CopyFile: Send {
    /// Appends. Blocks while the pipeline is full.
    fn write(&mut self, bytes: &[u8]) -> Result<(), DriverError>;

    /// Declares the file complete: call it only when the producer's end is known to be good.
    fn finish(self: Box<Self>) -> Result<StoredFile, DriverError>;
}

/// Kind of an entry of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Socket: reported, never stored.
    Socket,
}

/// What became of an entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryState {
    /// Stored as seen.
    Stored,
    /// Could not be read; nothing of it is stored. The reason, for people.
    Unreadable(String),
    /// Changed while it was read, three times; the last reading is stored.
    ChangedWhileRead,
    /// Was listed and then gone; nothing of it is stored.
    Vanished,
    /// A directory on which another file system is mounted: stored empty, and what is mounted there is left out.
    MountPoint,
    /// Left out.
    Excluded(LeftOut),
}

/// Why an entry is left out of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// An exclude pattern matches it.
    Pattern,
    /// It is a socket, which no copy can hold.
    Socket,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pattern => "an exclude pattern matches it",
            Self::Socket => "a socket, which no copy can hold",
        })
    }
}

/// One entry of an archived tree, as it was seen and stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// Absolute path on the source, bytes.
    pub path: Vec<u8>,
    /// Its kind.
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid, sticky (`0o7777`).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, nanoseconds since 1970 (may be negative).
    pub mtime_ns: i128,
    /// Bytes read, for files.
    pub size: u64,
    /// Inode, device and number of links.
    pub inode: (u64, u64, u64),
    /// Target of a symbolic link, bytes.
    pub link_target: Option<Vec<u8>>,
    /// Device number, for devices.
    pub rdev: u64,
    /// Extended attributes: name and value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes that the file system has allocated, in units of 512.
    pub blocks_512: u64,
    /// Pieces stored, for files.
    pub pieces: Vec<Piece>,
    /// What became of it.
    pub state: EntryState,
}

/// How a tree is archived.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TreeOptions {
    /// Glob patterns left out on purpose, matched against the path below the root.
    pub exclude: Vec<String>,
    /// Whether to stay on the root's file system.
    pub one_file_system: bool,
}

/// The newest earlier copy of the same source in the same repository: what has not changed since can be taken over from it.
pub trait EarlierCopy: Send + Sync {
    /// What it holds, as its receipt says.
    fn witness(&self) -> &Witness;

    /// The newest instant of a copy of this source in this repository that was shown to be bad.
    fn newest_bad(&self) -> Option<Timestamp>;

    /// Whether the copy that is being made has to stand alone: an attempt to build it upon this one came to nothing.
    fn is_left(&self) -> bool;

    /// A whole small file of it; refuses one larger than `limit_bytes`.
    fn read(&self, path: &CopyPath, limit_bytes: u64) -> Result<Vec<u8>, DriverError>;

    /// Takes over those entries of its directory `under` whose names `keeps` says yes to, each with everything below it, to the same
    /// place in the copy that is being made. Nothing is read, and nothing is taken where anything of it is missing.
    fn take_over(&self, under: &CopyPath, keeps: &dyn Fn(&[u8]) -> bool) -> Result<Written, DriverError>;
}

/// Somewhere to put what is captured. Nothing becomes visible until the engine commits the copy.
pub trait CopyWriter: Send + Sync {
    /// The earlier copy, where there is one that is not known to be bad.
    fn earlier(&self) -> Result<Option<Arc<dyn EarlierCopy>>, DriverError> {
        Ok(None)
    }

    /// What is kept of the source's log until a copy holds it.
    fn journal(&self) -> Option<Arc<dyn Journal>> {
        None
    }

    /// What tells the copies of this source from those of every other one, for what a server keeps for them until the next copy.
    fn lineage(&self) -> String {
        String::new()
    }

    /// Begins a file. Several may be open at once.
    fn begin(&self, path: &CopyPath, cuts: Cuts) -> Result<Box<dyn CopyFile>, DriverError>;

    /// Makes a directory, which needs none of it where it is not empty: with these permission bits (`0o7777`).
    fn directory(&self, path: &CopyPath, mode: u32) -> Result<(), DriverError>;

    /// Archives a directory tree, or a single file, of this machine under its own absolute path.
    ///
    /// `observe` is called once for each entry, in no particular order, possibly from another thread.
    fn tree(
        &self,
        root: &Path,
        options: &TreeOptions,
        observe: &(dyn Fn(TreeEntry) + Send + Sync),
    ) -> Result<(), DriverError>;

    /// Stores a small file at once.
    fn put(&self, path: &CopyPath, bytes: &[u8]) -> Result<StoredFile, DriverError> {
        let mut file = self.begin(path, Cuts::ContentDefined)?;
        file.write(bytes)?;
        file.finish()
    }
}

/// One entry of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyEntry {
    /// Where it lies.
    pub path: CopyPath,
    /// Its kind.
    pub kind: EntryKind,
    /// Bytes, for files.
    pub size: u64,
    /// Modification time.
    pub modified: Timestamp,
}

/// How a part of a copy is restored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Restoring {
    /// Files that are neither fetched nor made.
    pub left_out: BTreeSet<CopyPath>,
    /// Whether runs of zeros become holes; where not, room for large files is asked for at once.
    pub keeps_holes: bool,
}

/// How much of a copy was written or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Somewhere to take a copy from. Every byte that is handed out has been authenticated.
pub trait CopyReader: Send + Sync {
    /// Everything below `under` (or everything), in order of path.
    fn list(&self, under: Option<&CopyPath>) -> Result<Vec<CopyEntry>, DriverError>;

    /// What lies at `path`; an error where nothing does.
    fn kind(&self, path: &CopyPath) -> Result<EntryKind, DriverError>;

    /// A whole small file; refuses one larger than `limit_bytes`.
    fn read(&self, path: &CopyPath, limit_bytes: u64) -> Result<Vec<u8>, DriverError>;

    /// A file as a stream.
    fn open(&self, path: &CopyPath) -> Result<Box<dyn Read + Send>, DriverError>;

    /// Restores everything below `under` into the new or empty directory `into`; the paths below `under` are kept.
    ///
    /// Where `under` is a directory, `into` also takes its owner, mode, attributes and times; where it is anything
    /// else, it is restored as `into/<its name>`.
    fn restore(&self, under: &CopyPath, into: &Path, how: &Restoring) -> Result<Written, DriverError>;

    /// Reads and authenticates every file that no call on this reader has read to its end: after it, all of the copy was
    /// read, papers and scripts for stock tools included. Says how much was left to read.
    ///
    /// An error blames the copy where a stored object is missing or damaged.
    fn read_rest(&self) -> Result<Written, DriverError>;

    /// Stored bytes fetched from the repository so far.
    fn fetched_bytes(&self) -> u64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_leave_its_copy() {
        for hostile in ["", "/", "/etc", "a//b", "a/../b", "..", ".", "a/.", "a/", "a\0b"] {
            assert!(CopyPath::new(hostile).is_none(), "{hostile:?}");
        }
        let base = CopyPath::new("database").expect("sound");
        assert!(base.join("../x").is_none());
        assert_eq!(base.join("toc.dat").expect("sound").as_bytes(), b"database/toc.dat");
    }
}
