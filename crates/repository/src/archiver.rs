//! A real directory into a snapshot: every entry is archived or reported, none is silently left out.
//!
//! One walking thread (the caller's) lists directories and looks at entries; workers read contents; trees are stored by
//! the walker as soon as all their entries are known. Nothing is followed: directories are opened by descriptor, files
//! with O_NOFOLLOW. `.gitignore` and the like mean nothing here.

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, Sender};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::blob::Codec;
use crate::chunker::{Cuts, SEGMENT, Tables};
use crate::control::POLL;
use crate::error::{RepositoryError, Result};
use crate::id::{BlobKind, Id};
use crate::names::Names;
use crate::packer::{Packer, locked};
use crate::session::{
    Incomplete, IncompleteReason, Piece, Session, SessionInner, SnapshotPath, Virtual, Worker,
};
use crate::time::Time;
use crate::tree::{self, Entries, Node, NodeKind, Xattr, mode};
use crate::treewriter::TreeWriter;

/// How often a file that changes under our hands is read again.
const ATTEMPTS: usize = 3;
/// Small files travel to a worker in groups of this many…
const BATCH_FILES: usize = 48;
/// … or of this many bytes.
const BATCH_BYTES: u64 = 2 << 20;
const READ: usize = 512 << 10;
/// Entries of a directory that are held because one before them is not known yet.
const BEHIND_MAX: usize = 1024;

/// Chooses how a file is cut, by its path below the root and its size.
pub type ChooseCuts = Arc<dyn Fn(&[u8], u64) -> Cuts + Send + Sync>;

/// How a directory is archived.
#[derive(Clone, Default)]
pub struct TreeOptions {
    /// Patterns of what is left out. One with a `/` is matched against the path below the root (or, when it begins with
    /// `/`, against the absolute path), one without against names; `*` and `?` stay within a component, `**` does not.
    pub excludes: Vec<String>,
    /// Do not descend into other file systems; their mount points are archived as empty directories.
    pub one_file_system: bool,
    /// How each file is cut, by its path below the root and its size.
    pub cuts: Option<ChooseCuts>,
    /// Where it appears in the snapshot; `None` is where it is on disk.
    pub at: Option<SnapshotPath>,
}

impl std::fmt::Debug for TreeOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TreeOptions")
            .field("excludes", &self.excludes)
            .field("one_file_system", &self.one_file_system)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

/// What became of one entry.
#[derive(Debug, Clone, Copy)]
pub enum TreeOutcome<'a> {
    /// A regular file; its pieces from the bytes read, or from the parent when it is unchanged.
    File {
        /// Lengths and hashes, in order.
        pieces: &'a [Piece],
        /// Taken over from the parent snapshot without reading.
        from_parent: bool,
        /// It changed during each of three readings; the pieces are those of the last.
        changed_while_read: bool,
        /// What the file system has allocated for it, in units of 512 bytes: less than its size where it has holes.
        blocks_512: u64,
    },
    /// A directory, after everything in it.
    Directory,
    /// A directory on which another file system is mounted: stored empty, and what is mounted there is left out on request.
    MountPoint,
    /// A symbolic link, device or named pipe.
    Special,
    /// A socket, which no backup can hold.
    SocketSkipped,
    /// Left out on request.
    Excluded,
    /// Not in the snapshot: it could not be read.
    Unreadable(&'a std::io::Error),
    /// Not in the snapshot: it was gone.
    Vanished,
}

/// One entry, reported to the observer in no promised order, except that a directory comes after its content.
#[derive(Debug, Clone, Copy)]
pub struct TreeEvent<'a> {
    /// Below the root, raw bytes, components joined by `/`; empty for the root itself.
    pub path: &'a [u8],
    /// Its metadata, as archived; `None` when it could not be looked at.
    pub node: Option<&'a Node>,
    /// What became of it.
    pub outcome: TreeOutcome<'a>,
}

/// What one directory has become.
#[derive(Clone, Debug, Default)]
pub struct TreeReport {
    /// Regular files archived.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Directories archived, those included on which something is mounted.
    pub directories: u64,
    /// Of these, those on which another file system is mounted that was left out on request.
    pub mount_points: u64,
    /// Links, devices and pipes archived.
    pub specials: u64,
    /// Sockets skipped.
    pub sockets: u64,
    /// Entries left out on request.
    pub excluded: u64,
    /// Files taken over from the parent.
    pub from_parent: u64,
    /// What is not as it should be; at most 10,000 are named.
    pub incomplete: Vec<Incomplete>,
    /// How many there are.
    pub incomplete_count: u64,
}

/// What workers need of the session; not the session itself, which they must not keep alive.
#[derive(Clone)]
struct Reading {
    packer: Arc<Packer>,
    names: Arc<Names>,
    tables: Tables,
}

#[derive(Clone)]
struct FileJob {
    frame: u64,
    slot: usize,
    directory: Arc<OwnedFd>,
    name: CString,
    seen: Stat,
    cuts: Cuts,
    had_parent: bool,
}

enum Found {
    File {
        node: Box<Node>,
        pieces: Vec<Piece>,
        changed_while_read: bool,
        blocks_512: u64,
        had_parent: bool,
    },
    Unreadable(std::io::Error),
    Vanished,
    Failed(RepositoryError),
    /// A large file changed while it was read; the number is that of the attempt.
    Again(Box<FileJob>, usize),
}

struct Done {
    frame: u64,
    slot: usize,
    name: Vec<u8>,
    found: Found,
}

impl FileJob {
    fn done(&self, found: Found) -> Done {
        Done { frame: self.frame, slot: self.slot, name: self.name.to_bytes().to_vec(), found }
    }
}

struct Frame {
    // Of the directory, below the root.
    path: Vec<u8>,
    directory: Option<Arc<OwnedFd>>,
    names: Listing,
    // What is known of its entries from slot `first` on, in the order of their names; what came before is in `tree`.
    entries: VecDeque<Slot>,
    first: usize,
    tree: TreeWriter,
    pending: usize,
    listed: bool,
    // The root is a file: this frame only carries its result.
    single: bool,
    above: Option<(u64, usize)>,
    node: Node,
    old: Old,
    old_subtree: Option<Id>,
}

/// One entry of a directory while those before it are not all known.
enum Slot {
    Pending,
    Known(Box<Node>),
    // It is not in the snapshot.
    Missing,
}

impl Frame {
    /// A place for the next entry.
    fn slot(&mut self) -> usize {
        self.entries.push_back(Slot::Pending);
        self.first + self.entries.len() - 1
    }
}

/// The names in a directory, in order: many take little room.
#[derive(Default)]
struct Listing {
    // Each with its NUL.
    bytes: Vec<u8>,
    starts: std::vec::IntoIter<usize>,
}

impl Listing {
    fn of(directory: &OwnedFd) -> std::io::Result<Self> {
        let mut bytes = Vec::new();
        let mut starts = Vec::new();
        for entry in Dir::read_from(directory).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name().to_bytes_with_nul();
            if name != b".\0" && name != b"..\0" {
                starts.push(bytes.len());
                bytes.extend_from_slice(name);
            }
        }
        let name = |start: &usize| name_at(&bytes, *start);
        starts.sort_unstable_by(|one, other| name(one).cmp(name(other)));
        starts.dedup_by(|one, other| name(one) == name(other));
        Ok(Self { bytes, starts: starts.into_iter() })
    }

    fn next(&mut self) -> Option<CString> {
        let start = self.starts.next()?;
        Some(name_at(&self.bytes, start).to_owned())
    }
}

fn name_at(bytes: &[u8], start: usize) -> &CStr {
    CStr::from_bytes_until_nul(&bytes[start..]).unwrap_or_default()
}

/// The same directory in the parent snapshot, entry by entry in step with the listing.
#[derive(Default)]
struct Old {
    entries: Option<Entries>,
    next: Option<Node>,
}

impl Old {
    /// The entry of this name. Names are asked for in ascending order; of a tree that is not in order some are not found, and
    /// their files are read. So it is with the rest of one that cannot be read: a parent only saves time.
    fn take(&mut self, name: &[u8]) -> Option<Node> {
        loop {
            if self.next.is_none() {
                match self.entries.as_mut()?.next() {
                    Some(Ok(node)) => self.next = Some(node),
                    Some(Err(_)) | None => self.entries = None,
                }
            }
            let next = self.next.take()?;
            match next.name.as_slice().cmp(name) {
                Ordering::Less => {}
                Ordering::Equal => return Some(next),
                Ordering::Greater => {
                    self.next = Some(next);
                    return None;
                }
            }
        }
    }
}

impl Session {
    /// Archives a directory (or a single file) with everything below it, and reports every entry to `observer`.
    ///
    /// Entries that cannot be read, vanish, or change during three readings do not fail the call: they are reported, listed
    /// in the result and in the commit's, and the run is incomplete. A failure to *store* anything fails the session.
    pub fn tree(
        &self,
        root: &Path,
        options: &TreeOptions,
        observer: &mut dyn FnMut(TreeEvent<'_>),
    ) -> Result<TreeReport> {
        self.inner.ensure()?;
        // A commit meanwhile would not wait for it.
        let open = &self.inner.open_writers;
        open.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
        let result = Walk::run(&self.inner, root, options, observer);
        open.fetch_sub(1, std::sync::atomic::Ordering::AcqRel);
        if let Err(error @ (RepositoryError::Refused { .. } | RepositoryError::Io { .. })) = result {
            // The root itself cannot be archived: nothing has been placed, but a snapshot without it would lie.
            return self.inner.packer.guard(Err(error));
        }
        self.inner.packer.guard(result)
    }
}

struct Walk<'a> {
    session: &'a Arc<SessionInner>,
    options: &'a TreeOptions,
    observer: &'a mut dyn FnMut(TreeEvent<'_>),
    reading: Reading,
    excludes: Vec<Vec<u8>>,
    root: Vec<u8>,
    device: u64,
    settled_before: i128,
    frames: HashMap<u64, Frame>,
    stack: Vec<u64>,
    next_frame: u64,
    batch: Vec<FileJob>,
    batch_bytes: u64,
    done: (Sender<Done>, Receiver<Done>),
    outstanding: usize,
    report: TreeReport,
    finished: Option<Node>,
    at_root: bool,
    codec: Codec,
}

fn stat_time(seconds: i64, nanos: u64) -> Time {
    Time::from_unix(seconds, u32::try_from(nanos).unwrap_or(0))
}

fn io(error: Errno) -> std::io::Error {
    error.into()
}

fn kind_of(stat: &Stat) -> NodeKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => NodeKind::File,
        FileType::Directory => NodeKind::Dir,
        FileType::Symlink => NodeKind::Symlink,
        FileType::BlockDevice => NodeKind::Device,
        FileType::CharacterDevice => NodeKind::CharDevice,
        FileType::Fifo => NodeKind::Fifo,
        FileType::Socket => NodeKind::Socket,
        FileType::Unknown => NodeKind::Other("irregular".into()),
    }
}

/// Metadata as restic records it, but with times in UTC.
#[expect(clippy::useless_conversion, reason = "the fields of stat have other types on other processors")]
fn node_of(name: &[u8], stat: &Stat, names: &Names) -> Node {
    let kind = kind_of(stat);
    let mtime = stat_time(stat.st_mtime, u64::from(stat.st_mtime_nsec));
    // Not directories, pipes and sockets: restic gives them no link count.
    let links = match kind {
        NodeKind::File | NodeKind::Symlink | NodeKind::Device | NodeKind::CharDevice => {
            u64::from(stat.st_nlink)
        }
        NodeKind::Dir | NodeKind::Fifo | NodeKind::Socket | NodeKind::Other(_) => 0,
    };
    let device = matches!(kind, NodeKind::Device | NodeKind::CharDevice);
    Node {
        name: name.to_vec(),
        mode: mode::from_unix(stat.st_mode),
        mtime,
        // As restic does, so that reading a file does not change its directory's id.
        atime: mtime,
        ctime: stat_time(stat.st_ctime, u64::from(stat.st_ctime_nsec)),
        uid: stat.st_uid,
        gid: stat.st_gid,
        user: names.user(stat.st_uid).to_owned(),
        group: names.group(stat.st_gid).to_owned(),
        inode: stat.st_ino.into(),
        device_id: stat.st_dev.into(),
        links,
        device: if device { stat.st_rdev.into() } else { 0 },
        kind,
        ..Node::default()
    }
}

fn blocks_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0)
}

fn same(a: &Stat, b: &Stat) -> bool {
    a.st_dev == b.st_dev
        && a.st_ino == b.st_ino
        && a.st_size == b.st_size
        && a.st_mtime == b.st_mtime
        && a.st_mtime_nsec == b.st_mtime_nsec
        && a.st_ctime == b.st_ctime
        && a.st_ctime_nsec == b.st_ctime_nsec
}

/// All attributes of an open file. A file system without attributes has none.
fn xattrs(
    list: impl Fn(&mut Vec<u8>) -> rustix::io::Result<usize>,
    get: impl Fn(&CStr, &mut Vec<u8>) -> rustix::io::Result<usize>,
) -> std::io::Result<Vec<Xattr>> {
    let read = |call: &dyn Fn(&mut Vec<u8>) -> rustix::io::Result<usize>| -> rustix::io::Result<Vec<u8>> {
        // The kernel's limit for one list and one value is 64 KiB.
        let mut buffer = vec![0u8; 256];
        loop {
            match call(&mut buffer) {
                Ok(n) => {
                    buffer.truncate(n);
                    return Ok(buffer);
                }
                Err(Errno::RANGE) if buffer.len() < 1 << 16 => buffer = vec![0; 1 << 16],
                Err(e) => return Err(e),
            }
        }
    };
    let names = match read(&list) {
        Ok(names) => names,
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let mut found = Vec::new();
    for name in names.split_inclusive(|b| *b == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        match read(&|buffer| get(name, buffer)) {
            Ok(value) => found.push(Xattr { name: name.to_string_lossy().into_owned(), value }),
            // Removed between list and get.
            Err(Errno::NODATA) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(found)
}

fn xattrs_of_fd(fd: &OwnedFd) -> std::io::Result<Vec<Xattr>> {
    xattrs(
        |buffer| rustix::fs::flistxattr(fd, &mut buffer[..]),
        |name, buffer| rustix::fs::fgetxattr(fd, name, &mut buffer[..]),
    )
}

fn xattrs_of_name(directory: &OwnedFd, name: &CStr) -> std::io::Result<Vec<Xattr>> {
    use std::os::fd::AsRawFd as _;
    // There is no `…at` call for links; the descriptor's own path does not resolve any name above it.
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    let path = CString::new(path).map_err(std::io::Error::other)?;
    let result = xattrs(
        |buffer| rustix::fs::llistxattr(path.as_c_str(), &mut buffer[..]),
        |name, buffer| rustix::fs::lgetxattr(path.as_c_str(), name, &mut buffer[..]),
    );
    match result {
        // Without /proc, or gone meanwhile: links have no attributes that an ordinary program can set.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

const OPEN_FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);
const OPEN_DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::DIRECTORY);

enum ReadError {
    Source(std::io::Error),
    Store(RepositoryError),
}

/// Reads from `offset` up to `end` (or the end of the file), cutting and storing on the way.
fn read_pieces(
    reading: &Reading,
    worker: &mut Worker,
    file: &OwnedFd,
    cuts: Cuts,
    mut offset: u64,
    end: u64,
    expected: u64,
) -> Result<Vec<Piece>, ReadError> {
    let mut cutter = reading.tables.cutter(cuts, offset).ok_or_else(|| {
        ReadError::Store(RepositoryError::refused(
            "the repository has no chunker polynomial, so there are no Rabin cuts",
        ))
    })?;
    let longest = cutter.longest();
    let Worker { codec, buffer } = worker;
    let mut pieces = Vec::new();
    // The current piece begins at `start`; `filled` is where the next bytes go.
    let (mut start, mut filled) = (0usize, 0usize);
    let mut store = |id: Id, piece: &[u8]| -> Result<(), ReadError> {
        let id = reading.packer.store_as(codec, BlobKind::Data, id, piece).map_err(ReadError::Store)?;
        let length = u32::try_from(piece.len())
            .map_err(|_| ReadError::Store(RepositoryError::refused("a piece is too long")))?;
        pieces.push((length, id.0));
        Ok(())
    };
    while offset < end {
        // One byte more than expected tells a file that has grown.
        let left = usize::try_from((end - offset).min(expected.saturating_sub(offset).saturating_add(1)))
            .unwrap_or(READ);
        // Files of /proc and the like have content but no size.
        let want = if expected == 0 && offset > 0 { READ } else { left.clamp(1, READ) };
        if buffer.len() < filled + want {
            if start > 0 {
                buffer.copy_within(start..filled, 0);
                filled -= start;
                start = 0;
            }
            let room = if expected <= READ as u64 {
                filled + want
            } else {
                (filled + want).max((longest + READ).min(4 * READ))
            };
            if buffer.len() < room {
                buffer.resize(room, 0);
            }
        }
        let n = loop {
            match rustix::io::pread(file, &mut buffer[filled..filled + want], offset) {
                Ok(n) => break n,
                Err(Errno::INTR) => {}
                Err(e) => return Err(ReadError::Source(io(e))),
            }
        };
        if n == 0 {
            break;
        }
        offset += n as u64;
        let mut from = filled;
        filled += n;
        // A whole piece that waits for the next one, so that both are hashed at once.
        let mut waiting: Option<&[u8]> = None;
        while let Some(cut) = cutter.next_cut(&buffer[from..filled]) {
            let piece = &buffer[start..from + cut];
            match waiting.take() {
                None => waiting = Some(piece),
                Some(first) => {
                    let [first_id, id] = Id::of_two(first, piece);
                    store(first_id, first)?;
                    store(id, piece)?;
                }
            }
            start = from + cut;
            from = start;
        }
        if let Some(last) = waiting {
            store(Id::of(last), last)?;
        }
        if expected > 0 && offset > expected {
            // It has grown: reading on could go on for ever, and the second fstat tells anyway.
            break;
        }
        if n < want && offset >= expected && expected > 0 {
            // A short read at the size that fstat promised; the second fstat will tell whether that was the end.
            break;
        }
    }
    if filled > start {
        let last = &buffer[start..filled];
        store(Id::of(last), last)?;
    }
    Ok(pieces)
}

fn total(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|(length, _)| u64::from(*length)).sum()
}

fn size_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

fn open_failed(error: Errno) -> Found {
    match error {
        Errno::NOENT => Found::Vanished,
        error => Found::Unreadable(io(error)),
    }
}

/// The whole of one file that is not large.
fn read_file(reading: &Reading, worker: &mut Worker, job: &FileJob) -> Found {
    let mut changed = false;
    let mut attempt = 0;
    loop {
        attempt += 1;
        let file = match rustix::fs::openat(&*job.directory, job.name.as_c_str(), OPEN_FILE, Mode::empty()) {
            Ok(file) => file,
            Err(e) => return open_failed(e),
        };
        let before = match rustix::fs::fstat(&file) {
            Ok(stat) => stat,
            Err(e) => return Found::Unreadable(io(e)),
        };
        if kind_of(&before) != NodeKind::File {
            // Replaced between looking and opening; what it is now was never looked at.
            return Found::Unreadable(std::io::Error::other("it is no longer a regular file"));
        }
        let expected = size_of(&before);
        let pieces = match read_pieces(reading, worker, &file, job.cuts, 0, u64::MAX, expected) {
            Ok(pieces) => pieces,
            Err(ReadError::Source(e)) => return Found::Unreadable(e),
            Err(ReadError::Store(e)) => return Found::Failed(e),
        };
        let xattrs = match xattrs_of_fd(&file) {
            Ok(xattrs) => xattrs,
            Err(e) => return Found::Unreadable(e),
        };
        let after = match rustix::fs::fstat(&file) {
            Ok(stat) => stat,
            Err(e) => return Found::Unreadable(io(e)),
        };
        // Files of /proc and the like have content but no size.
        if !same(&before, &after) || (total(&pieces) != expected && expected != 0) {
            if attempt < ATTEMPTS {
                continue;
            }
            changed = true;
        }
        return Found::File {
            node: finish_node(job.name.to_bytes(), &before, xattrs, &pieces, reading),
            pieces,
            changed_while_read: changed,
            blocks_512: blocks_of(&after),
            had_parent: job.had_parent,
        };
    }
}

/// The node of a file that was read, with the metadata of before the reading: whatever was written during it shows other times
/// than these, and the next backup reads the file again. With those of afterwards, torn pieces would look like the file that is
/// there now, and be taken over as unchanged for ever.
fn finish_node(
    name: &[u8],
    before: &Stat,
    xattrs: Vec<Xattr>,
    pieces: &[Piece],
    reading: &Reading,
) -> Box<Node> {
    let mut node = node_of(name, before, &reading.names);
    node.xattrs = xattrs;
    // Trap 2: the bytes that were read, whatever stat says.
    node.size = total(pieces);
    node.content = Some(pieces.iter().map(|(_, id)| Id(*id)).collect());
    Box::new(node)
}

struct Segments {
    left: usize,
    pieces: Vec<Vec<Piece>>,
    failure: Option<ReadError>,
}

/// A large file, read by several workers at once.
struct LargeFile {
    job: FileJob,
    file: OwnedFd,
    before: Stat,
    attempt: usize,
    segments: Mutex<Segments>,
    reading: Reading,
    done: Sender<Done>,
}

impl LargeFile {
    fn read_segment(self: &Arc<Self>, number: usize, count: usize, worker: &mut Worker) {
        let offset = number as u64 * SEGMENT;
        // The last one reads to the end, to notice growth.
        let end = if number + 1 == count { u64::MAX } else { offset + SEGMENT };
        let size = size_of(&self.before);
        let expected = if number + 1 == count { size } else { u64::MAX };
        let result = read_pieces(&self.reading, worker, &self.file, self.job.cuts, offset, end, expected);
        let mut segments = locked(&self.segments);
        match result {
            Ok(pieces) => segments.pieces[number] = pieces,
            Err(e) => {
                segments.failure.get_or_insert(e);
            }
        }
        segments.left -= 1;
        if segments.left > 0 {
            return;
        }
        let lists = std::mem::take(&mut segments.pieces);
        let error = segments.failure.take();
        drop(segments);
        let found = self.conclude(lists, error);
        // Nobody listens any more when the walk has failed.
        self.done.send(self.job.done(found)).ok();
    }

    fn conclude(&self, lists: Vec<Vec<Piece>>, error: Option<ReadError>) -> Found {
        match error {
            Some(ReadError::Source(e)) => return Found::Unreadable(e),
            Some(ReadError::Store(e)) => return Found::Failed(e),
            None => {}
        }
        let pieces: Vec<Piece> = lists.into_iter().flatten().collect();
        let xattrs = match xattrs_of_fd(&self.file) {
            Ok(xattrs) => xattrs,
            Err(e) => return Found::Unreadable(e),
        };
        let after = match rustix::fs::fstat(&self.file) {
            Ok(stat) => stat,
            Err(e) => return Found::Unreadable(io(e)),
        };
        let changed = !same(&self.before, &after) || total(&pieces) != size_of(&self.before);
        if changed && self.attempt < ATTEMPTS {
            return Found::Again(Box::new(self.job.clone()), self.attempt);
        }
        Found::File {
            node: finish_node(self.job.name.to_bytes(), &self.before, xattrs, &pieces, &self.reading),
            pieces,
            changed_while_read: changed,
            blocks_512: blocks_of(&after),
            had_parent: self.job.had_parent,
        }
    }
}

impl<'a> Walk<'a> {
    fn run(
        session: &'a Arc<SessionInner>,
        root: &Path,
        options: &'a TreeOptions,
        observer: &'a mut dyn FnMut(TreeEvent<'_>),
    ) -> Result<TreeReport> {
        let absolute =
            std::path::absolute(root).map_err(|e| RepositoryError::io("find", root.display(), e))?;
        let bytes = absolute.as_os_str().as_bytes().to_vec();
        let place = match &options.at {
            Some(at) => at.clone(),
            None => SnapshotPath::new(&bytes)?,
        };
        let inner = &session.repository.inner;
        let mut walk = Walk {
            session,
            options,
            observer,
            reading: Reading {
                packer: Arc::clone(&session.packer),
                names: Arc::new(session.names.clone()),
                tables: inner.tables.clone(),
            },
            excludes: options.excludes.iter().map(|pattern| pattern.as_bytes().to_vec()).collect(),
            root: bytes,
            device: 0,
            settled_before: session.settled_before(),
            frames: HashMap::new(),
            stack: Vec::new(),
            next_frame: 0,
            batch: Vec::new(),
            batch_bytes: 0,
            // Not bounded, because workers must never wait for the walker; what can be in it is bounded by the job queue.
            done: crossbeam_channel::unbounded(),
            outstanding: 0,
            report: TreeReport::default(),
            finished: None,
            at_root: place.components().is_empty(),
            codec: inner.codec(session.options.compression_level)?,
        };
        walk.archive(&absolute, &place)?;
        Ok(walk.report)
    }

    fn archive(&mut self, root: &Path, place: &SnapshotPath) -> Result<()> {
        let failed = |e: Errno| RepositoryError::io("open", root.display(), io(e));
        // The root itself may be reached through a link, as a user would expect of a path.
        let root_fd =
            rustix::fs::open(root, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
                .map_err(failed)?;
        let stat = rustix::fs::fstat(&root_fd).map_err(failed)?;
        self.device = stat.st_dev;
        let name = place.components().last().cloned().unwrap_or_default();
        let above = self.above(root, place)?;
        let old = self.old_node(place)?;
        match kind_of(&stat) {
            NodeKind::Dir => {}
            NodeKind::File => return self.archive_single(root, place, &stat, &above, old.is_some()),
            other => {
                return Err(RepositoryError::refused(format!("{} is a {}", root.display(), other.word())));
            }
        }
        let node = node_of(&name, &stat, &self.reading.names);
        self.push_frame(Vec::new(), root_fd, node, None, old.as_ref().and_then(|node| node.subtree))
            .map_err(|e| RepositoryError::io("list", root.display(), e))?;
        while let Some(top) = self.stack.last().copied() {
            self.session.ensure()?;
            self.drain(false)?;
            self.step(top)?;
        }
        self.send_batch()?;
        while self.finished.is_none() {
            self.session.ensure()?;
            self.drain(true)?;
        }
        let node = self.finished.take().ok_or_else(|| RepositoryError::refused("the walk has no result"))?;
        if place.components().is_empty() {
            // Its entries have been placed one by one.
            return Ok(());
        }
        self.session.place(place, Virtual::Leaf(Box::new(node)), &above)
    }

    fn archive_single(
        &mut self,
        root: &Path,
        place: &SnapshotPath,
        stat: &Stat,
        above: &[Node],
        had_parent: bool,
    ) -> Result<()> {
        let parent = root.parent().unwrap_or(Path::new("/"));
        let failed = |e: Errno| RepositoryError::io("open", root.display(), io(e));
        let canonical =
            std::fs::canonicalize(root).map_err(|e| RepositoryError::io("find", root.display(), e))?;
        let directory = canonical.parent().unwrap_or(parent);
        let file_name = canonical.file_name().unwrap_or_default();
        let directory =
            rustix::fs::open(directory, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY, Mode::empty())
                .map_err(failed)?;
        let frame = self.next_frame;
        self.next_frame += 1;
        let name =
            CString::new(file_name.as_bytes()).map_err(|_| RepositoryError::refused("a name has a NUL"))?;
        let job = FileJob {
            frame,
            slot: 0,
            directory: Arc::new(directory),
            name,
            seen: *stat,
            cuts: self.cuts(b"", size_of(stat)),
            had_parent,
        };
        let node = node_of(b"", stat, &self.reading.names);
        self.frames.insert(
            frame,
            Frame {
                path: Vec::new(),
                directory: None,
                names: Listing::default(),
                entries: VecDeque::from([Slot::Pending]),
                first: 0,
                tree: TreeWriter::default(),
                pending: 1,
                listed: false,
                single: true,
                above: None,
                node,
                old: Old::default(),
                old_subtree: None,
            },
        );
        self.enqueue(job)?;
        self.send_batch()?;
        while self.frames.get(&frame).is_some_and(|frame| frame.pending > 0) {
            self.session.ensure()?;
            self.drain(true)?;
        }
        let entry = self.frames.remove(&frame).and_then(|mut frame| frame.entries.pop_front());
        let Some(Slot::Known(mut node)) = entry else { return Ok(()) };
        node.name = place.components().last().cloned().unwrap_or_default();
        self.session.place(place, Virtual::Leaf(node), above)
    }

    /// The metadata of the directories above the root, as restic records them.
    fn above(&self, root: &Path, place: &SnapshotPath) -> Result<Vec<Node>> {
        if self.options.at.is_some() {
            return Ok(Vec::new());
        }
        let mut nodes = Vec::new();
        let mut ancestors: Vec<&Path> = root.ancestors().skip(1).collect();
        ancestors.reverse();
        for (path, name) in ancestors.iter().skip(1).zip(place.components()) {
            let stat =
                rustix::fs::stat(*path).map_err(|e| RepositoryError::io("look at", path.display(), io(e)))?;
            nodes.push(node_of(name, &stat, &self.reading.names));
        }
        Ok(nodes)
    }

    fn old_node(&mut self, place: &SnapshotPath) -> Result<Option<Node>> {
        let Some((_, parent)) = &self.session.parent else { return Ok(None) };
        let Some(tree) = parent.tree else { return Ok(None) };
        let packer = &self.session.packer;
        if place.components().is_empty() {
            return Ok(Some(Node { kind: NodeKind::Dir, subtree: Some(tree), ..Node::default() }));
        }
        match self.session.repository.find(&packer.index, &tree, place, &mut self.codec, &packer.control) {
            Ok(node) => Ok(node),
            Err(e) if e.stop().is_some() => Err(e),
            // A parent only saves time; one that cannot be read saves none.
            Err(_) => Ok(None),
        }
    }

    fn cuts(&self, path: &[u8], size: u64) -> Cuts {
        self.options.cuts.as_ref().map_or(Cuts::ContentDefined, |choose| choose(path, size))
    }

    fn push_frame(
        &mut self,
        path: Vec<u8>,
        directory: OwnedFd,
        mut node: Node,
        above: Option<(u64, usize)>,
        old_subtree: Option<Id>,
    ) -> std::io::Result<()> {
        node.xattrs = xattrs_of_fd(&directory)?;
        let names = Listing::of(&directory)?;
        let packer = &self.session.packer;
        let mut old = Old::default();
        if let Some(subtree) = &old_subtree {
            let inner = &self.session.repository.inner;
            // As above: a parent that cannot be read is no parent.
            old.entries = inner.read_tree(&packer.index, subtree, &mut self.codec, &packer.control).ok();
        }
        let number = self.next_frame;
        self.next_frame += 1;
        self.frames.insert(
            number,
            Frame {
                path,
                directory: Some(Arc::new(directory)),
                names,
                entries: VecDeque::new(),
                first: 0,
                tree: TreeWriter::default(),
                pending: 0,
                listed: false,
                single: false,
                above,
                node,
                old,
                old_subtree,
            },
        );
        self.stack.push(number);
        Ok(())
    }

    /// Waits while too many entries are known behind one that is not: a large file among small ones, or one that changed among
    /// many that did not.
    fn hold_back(&mut self, number: u64) -> Result<()> {
        let is_behind =
            |walk: &Self| walk.frames.get(&number).is_some_and(|frame| frame.entries.len() > BEHIND_MAX);
        if !is_behind(self) {
            return Ok(());
        }
        // The one that is waited for may be in it.
        self.send_batch()?;
        while is_behind(self) {
            self.session.ensure()?;
            if self.outstanding == 0 {
                return Err(RepositoryError::refused(
                    "an entry is waited for that nobody reads; this is a bug",
                ));
            }
            self.drain(true)?;
        }
        Ok(())
    }

    /// One entry of the directory on top of the stack.
    fn step(&mut self, number: u64) -> Result<()> {
        self.hold_back(number)?;
        let frame = self.frames.get_mut(&number).expect("frames on the stack exist");
        let Some(name) = frame.names.next() else {
            frame.listed = true;
            frame.directory = None;
            frame.old = Old::default();
            self.stack.pop();
            return self.complete(number);
        };
        let directory =
            Arc::clone(frame.directory.as_ref().expect("a directory stays open until it is listed"));
        let mut path = frame.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        if self.is_excluded(&path, name.to_bytes()) {
            self.report.excluded += 1;
            (self.observer)(TreeEvent { path: &path, node: None, outcome: TreeOutcome::Excluded });
            return Ok(());
        }
        let stat = match rustix::fs::statat(&*directory, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return self.missing(&path, None),
            Err(e) => return self.missing(&path, Some(&io(e))),
        };
        let kind = kind_of(&stat);
        let frame = self.frames.get_mut(&number).expect("frames on the stack exist");
        let old = frame.old.take(name.to_bytes()).filter(|old| old.kind == kind);
        match kind {
            NodeKind::File => {
                let slot = frame.slot();
                if let Some(old) = &old
                    && let Some(pieces) = unchanged(old, &stat, self.settled_before, &self.session.packer)?
                {
                    let mut node = node_of(name.to_bytes(), &stat, &self.reading.names);
                    node.xattrs = old.xattrs.clone();
                    node.size = old.size;
                    node.content = old.content.clone();
                    let outcome = TreeOutcome::File {
                        pieces: &pieces,
                        from_parent: true,
                        changed_while_read: false,
                        blocks_512: blocks_of(&stat),
                    };
                    self.count_file(&path, &node, outcome);
                    return self.known(number, slot, Slot::Known(Box::new(node)));
                }
                frame.pending += 1;
                let cuts = self.cuts(&path, size_of(&stat));
                self.enqueue(FileJob {
                    frame: number,
                    slot,
                    directory,
                    name,
                    seen: stat,
                    cuts,
                    had_parent: old.is_some(),
                })
            }
            NodeKind::Dir => {
                let node = node_of(name.to_bytes(), &stat, &self.reading.names);
                let opened = rustix::fs::openat(&*directory, name.as_c_str(), OPEN_DIRECTORY, Mode::empty());
                let opened = match opened {
                    Ok(opened) => opened,
                    Err(Errno::NOENT) => return self.missing(&path, None),
                    Err(e) => return self.missing(&path, Some(&io(e))),
                };
                if self.options.one_file_system && stat.st_dev != self.device {
                    let mut node = node;
                    node.subtree =
                        Some(self.reading.packer.store(&mut self.codec, BlobKind::Tree, tree::EMPTY)?);
                    self.report.directories += 1;
                    self.report.mount_points += 1;
                    (self.observer)(TreeEvent {
                        path: &path,
                        node: Some(&node),
                        outcome: TreeOutcome::MountPoint,
                    });
                    return self.known_next(number, node);
                }
                let slot = self.frames.get_mut(&number).expect("frames on the stack exist").slot();
                match self.push_frame(
                    path.clone(),
                    opened,
                    node,
                    Some((number, slot)),
                    old.and_then(|old| old.subtree),
                ) {
                    Ok(()) => {
                        self.frames.get_mut(&number).expect("frames on the stack exist").pending += 1;
                        Ok(())
                    }
                    Err(e) => {
                        self.missing(&path, Some(&e))?;
                        self.known(number, slot, Slot::Missing)
                    }
                }
            }
            NodeKind::Socket => {
                self.report.sockets += 1;
                let node = node_of(name.to_bytes(), &stat, &self.reading.names);
                (self.observer)(TreeEvent {
                    path: &path,
                    node: Some(&node),
                    outcome: TreeOutcome::SocketSkipped,
                });
                Ok(())
            }
            NodeKind::Symlink | NodeKind::Device | NodeKind::CharDevice | NodeKind::Fifo => {
                let mut node = node_of(name.to_bytes(), &stat, &self.reading.names);
                if kind == NodeKind::Symlink {
                    match rustix::fs::readlinkat(&*directory, name.as_c_str(), Vec::new()) {
                        Ok(target) => node.linktarget = target.into_bytes(),
                        Err(Errno::NOENT) => return self.missing(&path, None),
                        Err(e) => return self.missing(&path, Some(&io(e))),
                    }
                }
                match xattrs_of_name(&directory, &name) {
                    Ok(xattrs) => node.xattrs = xattrs,
                    Err(e) => return self.missing(&path, Some(&e)),
                }
                self.report.specials += 1;
                (self.observer)(TreeEvent { path: &path, node: Some(&node), outcome: TreeOutcome::Special });
                self.known_next(number, node)
            }
            NodeKind::Other(_) => {
                self.missing(&path, Some(&std::io::Error::other("it is of an unknown type")))
            }
        }
    }

    fn missing(&mut self, path: &[u8], error: Option<&std::io::Error>) -> Result<()> {
        let (outcome, why) = match error {
            None => (TreeOutcome::Vanished, IncompleteReason::Vanished),
            Some(e) => (TreeOutcome::Unreadable(e), IncompleteReason::Unreadable(e.to_string())),
        };
        (self.observer)(TreeEvent { path, node: None, outcome });
        self.note(path, why);
        Ok(())
    }

    fn note(&mut self, path: &[u8], why: IncompleteReason) {
        let mut full = self.root.clone();
        if !path.is_empty() {
            full.push(b'/');
            full.extend_from_slice(path);
        }
        self.session.note_incomplete(&full, why.clone());
        self.report.incomplete_count += 1;
        if self.report.incomplete.len() < 10_000 {
            self.report.incomplete.push(Incomplete { path: full, why });
        }
    }

    fn count_file(&mut self, path: &[u8], node: &Node, outcome: TreeOutcome<'_>) {
        use std::sync::atomic::Ordering;
        self.report.files += 1;
        self.report.bytes += node.size;
        self.session.count_file(node.size);
        if matches!(outcome, TreeOutcome::File { from_parent: true, .. }) {
            self.report.from_parent += 1;
            self.session.files.unmodified.fetch_add(1, Ordering::Relaxed);
        }
        (self.observer)(TreeEvent { path, node: Some(node), outcome });
        if matches!(outcome, TreeOutcome::File { changed_while_read: true, .. }) {
            self.note(path, IncompleteReason::ChangedWhileRead);
        }
    }

    fn is_excluded(&self, path: &[u8], name: &[u8]) -> bool {
        self.excludes.iter().any(|pattern| {
            if pattern.first() == Some(&b'/') {
                let mut full = self.root.clone();
                full.push(b'/');
                full.extend_from_slice(path);
                glob(pattern, &full)
            } else if pattern.contains(&b'/') {
                glob(pattern, path)
            } else {
                glob(pattern, name)
            }
        })
    }

    fn enqueue(&mut self, job: FileJob) -> Result<()> {
        self.outstanding += 1;
        let size = size_of(&job.seen);
        if size > SEGMENT && job.cuts != Cuts::Rabin {
            return self.start_large(job, 1);
        }
        self.batch.push(job);
        self.batch_bytes += size;
        if self.batch.len() >= BATCH_FILES || self.batch_bytes >= BATCH_BYTES {
            self.send_batch()?;
        }
        Ok(())
    }

    fn send_batch(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let jobs = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let reading = self.reading.clone();
        let done = self.done.0.clone();
        self.session.submit(Box::new(move |worker| {
            for job in jobs {
                let found = read_file(&reading, worker, &job);
                done.send(job.done(found)).ok();
            }
        }))
    }

    fn start_large(&mut self, job: FileJob, attempt: usize) -> Result<()> {
        let fail = |walk: &mut Self, job: &FileJob, found| {
            let sent = walk.done.0.send(job.done(found));
            sent.map_err(|_| RepositoryError::refused("the walk's own channel is gone"))
        };
        let file = match rustix::fs::openat(&*job.directory, job.name.as_c_str(), OPEN_FILE, Mode::empty()) {
            Ok(file) => file,
            Err(e) => return fail(self, &job, open_failed(e)),
        };
        let before = match rustix::fs::fstat(&file) {
            Ok(stat) if kind_of(&stat) == NodeKind::File => stat,
            Ok(_) => {
                let e = std::io::Error::other("it is no longer a regular file");
                return fail(self, &job, Found::Unreadable(e));
            }
            Err(e) => return fail(self, &job, Found::Unreadable(io(e))),
        };
        let count = usize::try_from(size_of(&before).div_ceil(SEGMENT).max(1))
            .map_err(|_| RepositoryError::refused("a file is too large for this machine"))?;
        let large = Arc::new(LargeFile {
            job,
            file,
            before,
            attempt,
            segments: Mutex::new(Segments { left: count, pieces: vec![Vec::new(); count], failure: None }),
            reading: self.reading.clone(),
            done: self.done.0.clone(),
        });
        for number in 0..count {
            let large = Arc::clone(&large);
            self.session.submit(Box::new(move |worker| large.read_segment(number, count, worker)))?;
            self.drain(false)?;
        }
        Ok(())
    }

    /// Takes the results that are there; with `wait`, waits a moment for one.
    fn drain(&mut self, wait: bool) -> Result<()> {
        if wait && self.outstanding > 0 {
            match self.done.1.recv_timeout(POLL) {
                Ok(done) => self.take(done)?,
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => return Ok(()),
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => {
                    return Err(RepositoryError::refused("the walk's own channel is gone"));
                }
            }
        }
        while let Ok(done) = self.done.1.try_recv() {
            self.take(done)?;
        }
        Ok(())
    }

    fn take(&mut self, done: Done) -> Result<()> {
        use std::sync::atomic::Ordering;
        let Done { frame: number, slot, name, found } = done;
        let found = match found {
            Found::Again(job, attempt) => return self.start_large(*job, attempt + 1),
            Found::Failed(e) => return Err(e),
            other => other,
        };
        self.outstanding -= 1;
        let frame = self.frames.get_mut(&number).expect("a frame stays until nothing is pending");
        frame.pending -= 1;
        let mut path = frame.path.clone();
        if !frame.single {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
        }
        match found {
            Found::File { node, pieces, changed_while_read, blocks_512, had_parent } => {
                let counter = if had_parent { &self.session.files.changed } else { &self.session.files.new };
                counter.fetch_add(1, Ordering::Relaxed);
                let outcome =
                    TreeOutcome::File { pieces: &pieces, from_parent: false, changed_while_read, blocks_512 };
                self.count_file(&path, &node, outcome);
                self.known(number, slot, Slot::Known(node))?;
            }
            Found::Unreadable(e) => {
                self.missing(&path, Some(&e))?;
                self.known(number, slot, Slot::Missing)?;
            }
            Found::Vanished => {
                self.missing(&path, None)?;
                self.known(number, slot, Slot::Missing)?;
            }
            Found::Again(..) | Found::Failed(_) => {}
        }
        self.complete(number)
    }

    fn known_next(&mut self, number: u64, node: Node) -> Result<()> {
        let slot = self.frames.get_mut(&number).expect("frames on the stack exist").slot();
        self.known(number, slot, Slot::Known(Box::new(node)))
    }

    /// Takes what has become of an entry, and gives to the tree all entries before which none is pending.
    fn known(&mut self, number: u64, slot: usize, known: Slot) -> Result<()> {
        let frame = self.frames.get_mut(&number).expect("a frame stays until nothing is pending");
        frame.entries[slot - frame.first] = known;
        if frame.single {
            return Ok(());
        }
        let level = self.session.options.compression_level;
        while let Some(Slot::Known(_) | Slot::Missing) = frame.entries.front() {
            frame.first += 1;
            let Some(Slot::Known(node)) = frame.entries.pop_front() else { continue };
            frame.tree.push(&node, &self.reading.packer, level).map_err(|e| match e {
                RepositoryError::Refused { why } => RepositoryError::refused(format!(
                    "directory \"{}\": {why}",
                    crate::quote::quote(&frame.path)
                )),
                other => other,
            })?;
            if self.at_root && frame.above.is_none() {
                // `/` itself: what is in it becomes the root of the snapshot.
                let place = SnapshotPath::from_components([node.name.clone()])?;
                self.session.place(&place, Virtual::Leaf(node), &[])?;
            }
        }
        Ok(())
    }

    /// Stores the directory once everything in it is known, and so on upwards.
    fn complete(&mut self, mut number: u64) -> Result<()> {
        use std::sync::atomic::Ordering;
        loop {
            let ready = self.frames.get(&number).is_some_and(|frame| frame.listed && frame.pending == 0);
            if !ready {
                return Ok(());
            }
            let frame = self.frames.remove(&number).expect("looked up above");
            let id = frame.tree.finish(&self.reading.packer, &mut self.codec)?;
            let files = &self.session.files;
            match frame.old_subtree {
                None => &files.dirs_new,
                Some(old) if old == id => &files.dirs_unmodified,
                Some(_) => &files.dirs_changed,
            }
            .fetch_add(1, Ordering::Relaxed);
            let mut node = frame.node;
            node.subtree = Some(id);
            self.report.directories += 1;
            (self.observer)(TreeEvent {
                path: &frame.path,
                node: Some(&node),
                outcome: TreeOutcome::Directory,
            });
            match frame.above {
                None => {
                    self.finished = Some(node);
                    return Ok(());
                }
                Some((above, slot)) => {
                    self.known(above, slot, Slot::Known(Box::new(node)))?;
                    let frame = self.frames.get_mut(&above).expect("a frame stays until nothing is pending");
                    frame.pending -= 1;
                    number = above;
                }
            }
        }
    }
}

/// The pieces of a file that need not be read: everything that would change with its content is as in the parent, it was last
/// touched before `settled_before` (see [`crate::SETTLED`]), and all its blobs are indexed.
fn unchanged(old: &Node, stat: &Stat, settled_before: i128, packer: &Packer) -> Result<Option<Vec<Piece>>> {
    let Some(content) = &old.content else { return Ok(None) };
    let is_settled = old.mtime.unix_nanos() < settled_before && old.ctime.unix_nanos() < settled_before;
    let fresh = is_settled
        && old.size == size_of(stat)
        && old.inode == stat.st_ino
        && old.mtime.unix_nanos() == stat_time(stat.st_mtime, stat.st_mtime_nsec).unix_nanos()
        && old.ctime.unix_nanos() == stat_time(stat.st_ctime, stat.st_ctime_nsec).unix_nanos();
    if !fresh {
        return Ok(None);
    }
    let mut pieces = Vec::with_capacity(content.len());
    for id in content {
        let Some(length) = packer.stored_length(BlobKind::Data, id)? else { return Ok(None) };
        pieces.push((length, id.0));
    }
    Ok((total(&pieces) == old.size).then_some(pieces))
}

/// Shell patterns: `*` and `?` within a component, `**` across components.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    // The last star seen, and where in the text it may be extended to; two kinds, because `**` may also pass `/`.
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    let mut double: Option<(usize, usize)> = None;
    loop {
        if pattern[p..].starts_with(b"**") {
            p += 2;
            if pattern.get(p) == Some(&b'/')
                && (p == 2 || pattern[p - 3] == b'/')
                && glob(&pattern[p + 1..], &text[t..])
            {
                return true;
            }
            double = Some((p, t));
            star = None;
        } else if pattern.get(p) == Some(&b'*') {
            p += 1;
            star = Some((p, t));
        } else if t < text.len()
            && p < pattern.len()
            && (pattern[p] == text[t] || (pattern[p] == b'?' && text[t] != b'/'))
        {
            p += 1;
            t += 1;
        } else if t == text.len() && p == pattern.len() {
            return true;
        } else if let Some((after, at)) = star
            && at < text.len()
            && text[at] != b'/'
        {
            star = Some((after, at + 1));
            (p, t) = (after, at + 1);
        } else if let Some((after, at)) = double
            && at < text.len()
        {
            double = Some((after, at + 1));
            star = None;
            (p, t) = (after, at + 1);
        } else {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stay_within_components_unless_doubled() {
        for (pattern, text, matches) in [
            ("*.o", "a.o", true),
            ("*.o", "a.oo", false),
            ("a/*.o", "a/b.o", true),
            ("a/*.o", "a/b/c.o", false),
            ("a/**/c.o", "a/b/d/c.o", true),
            ("a/**", "a/b/c", true),
            ("**/cache", "x/y/cache", true),
            ("**/cache", "cache", true),
            ("?", "a", true),
            ("?", "/", false),
            ("", "", true),
            ("*", "", true),
            ("a*b*c", "axxbyybzc", true),
            ("a*b*c", "axxbyybz", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), matches, "{pattern} {text}");
        }
    }
}
