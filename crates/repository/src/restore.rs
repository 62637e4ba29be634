//! A snapshot, or a part of it, into a new or empty directory.
//!
//! No name is created outside that directory: names are single components, directories are reached by descriptors with
//! O_NOFOLLOW, files are created with O_EXCL, and symbolic links come after everything that is not a link. Every blob is
//! hashed before it is written, and what was written is read back and compared. That holds of what is taken from an old place
//! instead of being fetched, too: a piece is taken where its bytes there have its hash.
//!
//! Memory is bounded by the workers and what one fetch from a pack holds, whatever the size of the snapshot. The trees are
//! walked twice: first directories and files, then links, special files, and the metadata of directories.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender};
use rustix::fs::{
    AtFlags, FallocateFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::blob::Codec;
use crate::control::{Control, POLL, Progress};
use crate::error::{Object, RepositoryError, Result};
use crate::id::{BlobKind, Id, SnapshotId};
use crate::index::{Index, Place};
use crate::packer::locked;
use crate::read::{DEPTH_MAX, RangeJob, plan_ranges};
use crate::repository::{Inner, Repository};
use crate::session::SnapshotPath;
use crate::time::Time;
use crate::tree::{Entries, Node, NodeKind, mode};

/// Files are planned together up to this much content, so that blobs of one pack are fetched together …
const BATCH_BYTES: u64 = 128 << 20;
/// … and up to this many files, directories and files of several pieces, because they are held open.
const BATCH_FILES: usize = 4096;
const BATCH_DIRECTORIES: usize = 160;
const BATCH_OPEN: usize = 96;
/// From this size on, room for a file is asked for at once.
const RESERVED_MIN: u64 = 1 << 20;
/// Places of one file that are held while it is planned.
const PLACES: usize = 4096;
/// Bytes that a worker looks for in an old place at once.
const LOOKED_FOR: u64 = 16 << 20;
/// Problems that are named; the rest is counted.
const PROBLEMS: usize = 10_000;

/// Whose files the restored files are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owners {
    /// The recorded numbers when running as root, else this process's.
    #[default]
    Auto,
    /// The recorded numbers; failing to set one is a problem.
    Keep,
    /// This process's.
    Ignore,
}

/// How a restore behaves.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// Whose files they become.
    pub owners: Owners,
    /// Leave holes where whole pieces are zeros.
    pub sparse: bool,
    /// Read back what was written and compare.
    pub verify: bool,
    /// Set extended attributes.
    pub xattrs: bool,
    /// Worker threads; 0 takes the number of processors.
    pub workers: usize,
    /// Files that are left out, by their paths below what is restored: nothing of them is fetched or made.
    pub left_out: Arc<BTreeSet<Vec<u8>>>,
    /// An old place that is laid out like what is restored: pieces that lie there, in the file of the same path and where they
    /// belong, are not fetched. It is only read, and nothing is followed out of it.
    pub reuse: Option<std::path::PathBuf>,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self {
            owners: Owners::Auto,
            sparse: false,
            verify: true,
            xattrs: true,
            workers: 0,
            left_out: Arc::default(),
            reuse: None,
        }
    }
}

/// Why one entry is not there as it was.
#[derive(Debug)]
pub struct RestoreProblem {
    /// Its path below the target, raw bytes.
    pub path: Vec<u8>,
    /// What happened. A file whose content could not be restored whole is not left behind.
    pub error: RepositoryError,
}

/// What a restore has done.
#[derive(Debug, Default)]
pub struct RestoreSummary {
    /// Regular files restored whole, hard links not counted.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Further names of files.
    pub hardlinks: u64,
    /// Devices and pipes.
    pub specials: u64,
    /// Bytes fetched from the store.
    pub bytes_read: u64,
    /// Bytes of content that an old place had.
    pub bytes_reused: u64,
    /// What is not as it was; at most 10,000 are named.
    pub problems: Vec<RestoreProblem>,
    /// How many there are.
    pub problem_count: u64,
}

impl RestoreSummary {
    /// Is everything there as it was?
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.problem_count == 0
    }
}

/// One file while its pieces arrive.
struct FileState {
    directory: Arc<OwnedFd>,
    name: CString,
    path: Vec<u8>,
    node: Node,
    file: Mutex<Option<Arc<OwnedFd>>>,
    left: AtomicUsize,
    size: AtomicU64,
    failed: AtomicBool,
}

impl Drop for FileState {
    /// A file that is still open here has not all of its pieces: the restore was ended before, by a stop or a full disk,
    /// which is its error. A part of a file must not pass for the file.
    fn drop(&mut self) {
        let file = self.file.get_mut().unwrap_or_else(PoisonError::into_inner);
        if file.take().is_some() {
            rustix::fs::unlinkat(&*self.directory, self.name.as_c_str(), AtFlags::empty()).ok();
        }
    }
}

/// A piece's place in a file, with the length that its place was computed from.
struct Target {
    state: Arc<FileState>,
    offset: u64,
    length: u32,
    is_last: bool,
}

/// What a worker does.
enum Job {
    /// Fetch pieces.
    Fetch(RangeJob<Target>),
    /// Look for pieces in an old place, and fetch the others.
    Here(Vec<(Place, Target)>),
}

struct Shared {
    inner: Arc<Inner>,
    index: Arc<Index>,
    control: Control,
    options: RestoreOptions,
    owners: bool,
    files: AtomicU64,
    bytes: AtomicU64,
    /// The old place.
    reuse: Option<OwnedFd>,
    reused: AtomicU64,
    problems: Mutex<(Vec<RestoreProblem>, u64)>,
    fatal: Mutex<Option<RepositoryError>>,
    stop: AtomicBool,
}

impl Shared {
    fn problem(&self, path: &[u8], error: RepositoryError) {
        if error.stop().is_some() || matches!(error, RepositoryError::NoSpace { .. }) {
            locked(&self.fatal).get_or_insert(error);
            self.stop.store(true, Ordering::Release);
            return;
        }
        let mut problems = locked(&self.problems);
        problems.1 += 1;
        if problems.0.len() < PROBLEMS {
            problems.0.push(RestoreProblem { path: path.to_vec(), error });
        }
    }

    fn ensure(&self) -> Result<()> {
        if self.stop.load(Ordering::Acquire)
            && let Some(fatal) = locked(&self.fatal).take()
        {
            return Err(fatal);
        }
        self.control.check()
    }
}

fn failed(action: &'static str, path: &[u8], error: Errno) -> RepositoryError {
    RepositoryError::io(action, crate::quote::quote(path), io::Error::from(error))
}

const CREATE: OFlags =
    OFlags::RDWR.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn timestamps(node: &Node) -> Timestamps {
    let spec = |time: Time| Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanos) };
    Timestamps { last_access: spec(node.atime), last_modification: spec(node.mtime) }
}

impl Shared {
    /// Owner, attributes, mode, times, in this order: each may be undone by the one before.
    fn metadata_of_fd(&self, fd: &OwnedFd, node: &Node, path: &[u8]) {
        if self.owners
            && let Err(e) =
                rustix::fs::fchown(fd, Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)))
        {
            self.problem(path, failed("set the owner of", path, e));
        }
        if self.options.xattrs {
            for xattr in &node.xattrs {
                if let Err(e) =
                    rustix::fs::fsetxattr(fd, xattr.name.as_str(), &xattr.value, XattrFlags::empty())
                {
                    self.problem(path, failed("set an attribute of", path, e));
                }
            }
        }
        let permissions = Mode::from_raw_mode(mode::to_unix_permissions(node.mode));
        if let Err(e) = rustix::fs::fchmod(fd, permissions) {
            self.problem(path, failed("set the mode of", path, e));
        }
        if let Err(e) = rustix::fs::futimens(fd, &timestamps(node)) {
            self.problem(path, failed("set the times of", path, e));
        }
    }

    /// The same for what cannot be opened.
    fn metadata_of_name(&self, directory: &OwnedFd, name: &CString, node: &Node, path: &[u8]) {
        let link = AtFlags::SYMLINK_NOFOLLOW;
        if self.owners {
            let owner = (Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)));
            if let Err(e) = rustix::fs::chownat(directory, name.as_c_str(), owner.0, owner.1, link) {
                self.problem(path, failed("set the owner of", path, e));
            }
        }
        if self.options.xattrs {
            let mut full = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
            full.extend_from_slice(name.to_bytes());
            for xattr in &node.xattrs {
                let set =
                    rustix::fs::lsetxattr(&full[..], xattr.name.as_str(), &xattr.value, XattrFlags::empty());
                if let Err(e) = set {
                    self.problem(path, failed("set an attribute of", path, e));
                }
            }
        }
        if node.kind != NodeKind::Symlink {
            // Just created by us and not a link, so nothing is followed.
            let permissions = Mode::from_raw_mode(mode::to_unix_permissions(node.mode));
            if let Err(e) = rustix::fs::chmodat(directory, name.as_c_str(), permissions, AtFlags::empty()) {
                self.problem(path, failed("set the mode of", path, e));
            }
        }
        if let Err(e) = rustix::fs::utimensat(directory, name.as_c_str(), &timestamps(node), link) {
            self.problem(path, failed("set the times of", path, e));
        }
    }

    fn create(&self, state: &FileState) -> Result<Arc<OwnedFd>> {
        let mut file = locked(&state.file);
        if let Some(file) = &*file {
            return Ok(Arc::clone(file));
        }
        let private = Mode::from_raw_mode(0o600);
        let created = rustix::fs::openat(&*state.directory, state.name.as_c_str(), CREATE, private)
            .map_err(|e| failed("create", &state.path, e))?;
        let created = Arc::new(created);
        // Known from here on, so that it is removed when there is no room for it.
        *file = Some(Arc::clone(&created));
        self.reserve(&created, state)?;
        Ok(created)
    }

    /// Asks for the room of a large file at once: a full disk is met before anything is written, and the file system has less
    /// to do for each piece. Where that cannot be had, room is found piece by piece.
    fn reserve(&self, file: &OwnedFd, state: &FileState) -> Result<()> {
        let size = state.size.load(Ordering::Acquire);
        if size < RESERVED_MIN || self.options.sparse {
            return Ok(());
        }
        // The size stays: should the content be shorter than declared, nothing is appended to it.
        match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, size) {
            Err(full @ (Errno::NOSPC | Errno::DQUOT)) => Err(failed("make room for", &state.path, full)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn give_up(&self, state: &FileState, error: RepositoryError) {
        // Only the first reason is told, and only what we created is removed.
        if state.failed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.problem(&state.path, error);
    }

    fn piece(&self, target: &Target, plain: Result<&[u8]>, scratch: &mut Vec<u8>) {
        let state = &*target.state;
        if !state.failed.load(Ordering::Acquire) {
            let written = plain.and_then(|plain| {
                if plain.len() != target.length as usize {
                    if !target.is_last {
                        let why = "the index declares another length for one of its pieces";
                        let path = crate::quote::quote(&state.path);
                        return Err(RepositoryError::inconsistent(Object::Path, path, why));
                    }
                    state.size.store(target.offset + plain.len() as u64, Ordering::Release);
                }
                self.write(state, target.offset, plain, scratch)
            });
            if let Err(error) = written {
                self.give_up(state, error);
            }
        }
        if state.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.conclude(state);
        }
    }

    fn write(&self, state: &FileState, offset: u64, plain: &[u8], scratch: &mut Vec<u8>) -> Result<()> {
        let file = self.create(state)?;
        if self.options.sparse && plain.iter().all(|b| *b == 0) {
            self.bytes.fetch_add(plain.len() as u64, Ordering::Relaxed);
            return Ok(());
        }
        let mut done = 0;
        while done < plain.len() {
            match rustix::io::pwrite(&*file, &plain[done..], offset + done as u64) {
                Ok(0) => return Err(failed("write", &state.path, Errno::IO)),
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(e) => return Err(failed("write", &state.path, e)),
            }
        }
        if self.options.verify {
            // In steps that stay in the processor's cache.
            const STEP: usize = 256 << 10;
            if scratch.len() < STEP {
                scratch.resize(STEP, 0);
            }
            let mut at = 0;
            while at < plain.len() {
                let want = STEP.min(plain.len() - at);
                let n = match rustix::io::pread(&*file, &mut scratch[..want], offset + at as u64) {
                    Ok(n) => n,
                    Err(Errno::INTR) => continue,
                    Err(e) => return Err(failed("read back", &state.path, e)),
                };
                if n == 0 || scratch[..n] != plain[at..at + n] {
                    let why = format!("what was written at {} reads back differently", offset + at as u64);
                    return Err(RepositoryError::damaged(
                        Object::Path,
                        crate::quote::quote(&state.path),
                        why,
                    ));
                }
                at += n;
            }
        }
        let bytes = self.bytes.fetch_add(plain.len() as u64, Ordering::Relaxed) + plain.len() as u64;
        if plain.len() > 64 << 10 {
            let files = self.files.load(Ordering::Relaxed);
            self.control.report(Progress { files, bytes, files_total: None, bytes_total: None });
        }
        Ok(())
    }

    fn conclude(&self, state: &FileState) {
        let Some(file) = locked(&state.file).take() else { return };
        if !state.failed.load(Ordering::Acquire)
            && self.options.sparse
            && let Err(e) = rustix::fs::ftruncate(&*file, state.size.load(Ordering::Acquire))
        {
            self.give_up(state, failed("set the size of", &state.path, e));
        }
        if state.failed.load(Ordering::Acquire) {
            // A part of a file must not pass for the file.
            if let Err(e) = rustix::fs::unlinkat(&*state.directory, state.name.as_c_str(), AtFlags::empty()) {
                self.problem(&state.path, failed("remove what could not be restored", &state.path, e));
            }
            return;
        }
        self.metadata_of_fd(&file, &state.node, &state.path);
        self.files.fetch_add(1, Ordering::Relaxed);
        // Trap 2: the content counts; a size that says otherwise is told.
        let size = state.size.load(Ordering::Acquire);
        if state.node.size != 0 && state.node.size != size {
            let why = format!("its size is recorded as {}, its pieces have {size}", state.node.size);
            self.problem(
                &state.path,
                RepositoryError::inconsistent(Object::Path, crate::quote::quote(&state.path), why),
            );
        }
    }

    /// A file of the old place; nothing where there is none that could be read.
    fn old(&self, path: &[u8]) -> Option<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let file = rustix::fs::openat2(self.reuse.as_ref()?, path, flags, Mode::empty(), beneath).ok()?;
        let is_file =
            |stat: &rustix::fs::Stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        rustix::fs::fstat(&file).ok().filter(is_file).map(|_| file)
    }

    /// Takes what the old place has; what is left is to be fetched.
    fn here(&self, wanted: Vec<(Place, Target)>, scratch: &mut Vec<u8>) -> Vec<(Place, Target)> {
        let (mut left, mut plain) = (Vec::new(), Vec::new());
        let mut open: Option<(Arc<FileState>, Option<OwnedFd>)> = None;
        for (place, target) in wanted {
            if !open.as_ref().is_some_and(|(of, _)| Arc::ptr_eq(of, &target.state)) {
                open = Some((Arc::clone(&target.state), self.old(&target.state.path)));
            }
            let file = open.as_ref().and_then(|(_, file)| file.as_ref());
            let is_there = file.is_some_and(|file| {
                plain.resize(target.length as usize, 0);
                read_exactly(file, &mut plain, target.offset) && Id::of(&plain) == place.blob.id
            });
            if is_there {
                self.reused.fetch_add(plain.len() as u64, Ordering::Relaxed);
                self.piece(&target, Ok(&plain), scratch);
            } else {
                left.push((place, target));
            }
        }
        left
    }

    fn work(&self, jobs: &Receiver<Job>) {
        let mut codec = match self.inner.codec(1) {
            Ok(codec) => codec,
            Err(e) => {
                locked(&self.fatal).get_or_insert(e);
                self.stop.store(true, Ordering::Release);
                return;
            }
        };
        let mut scratch = Vec::new();
        while let Ok(job) = jobs.recv() {
            if self.stop.load(Ordering::Acquire) {
                continue;
            }
            let fetched = match job {
                Job::Fetch(job) => self.fetch(&job, &mut codec, &mut scratch),
                Job::Here(wanted) => self.control.check().and_then(|()| {
                    let left = self.here(wanted, &mut scratch);
                    plan_ranges(left).iter().try_for_each(|job| self.fetch(job, &mut codec, &mut scratch))
                }),
            };
            if let Err(e) = fetched {
                locked(&self.fatal).get_or_insert(e);
                self.stop.store(true, Ordering::Release);
            }
        }
    }

    fn fetch(&self, job: &RangeJob<Target>, codec: &mut Codec, scratch: &mut Vec<u8>) -> Result<()> {
        self.inner.run_range(&self.index, job, codec, &self.control, |targets, plain| {
            match plain {
                Ok(plain) => {
                    for target in targets {
                        self.piece(target, Ok(plain), scratch);
                    }
                }
                Err(e) => {
                    let cause = Arc::new(e);
                    for target in targets {
                        let e = RepositoryError::Failed { cause: Arc::clone(&cause) };
                        self.piece(target, Err(e), scratch);
                    }
                }
            }
            Ok(())
        })
    }
}

/// Whether as many bytes are there as the buffer holds.
fn read_exactly(file: &OwnedFd, into: &mut [u8], offset: u64) -> bool {
    let mut done = 0;
    while done < into.len() {
        match rustix::io::pread(file, &mut into[done..], offset + done as u64) {
            Ok(0) => return false,
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            // What cannot be read there is fetched.
            Err(_) => return false,
        }
    }
    true
}

struct Level {
    directory: Arc<OwnedFd>,
    nodes: Nodes,
    // The directory's own node and path, for its metadata.
    node: Option<Node>,
    path: Vec<u8>,
}

/// The entries of a directory, or the one file that is restored.
enum Nodes {
    Tree(Entries),
    File(Option<Box<Node>>),
}

impl Iterator for Nodes {
    type Item = Result<Node>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Nodes::Tree(entries) => entries.next(),
            Nodes::File(node) => node.take().map(|node| Ok(*node)),
        }
    }
}

struct Restore<'a> {
    shared: &'a Arc<Shared>,
    jobs: Sender<Job>,
    codec: Codec,
    summary: RestoreSummary,
    wanted: Vec<(Place, Target)>,
    batch: (u64, usize, usize, usize),
    // First name and content of every inode with several names.
    inodes: HashMap<(u64, u64), (Vec<u8>, Id)>,
    // Directories that the first pass could not make; the second does not enter them.
    skipped: HashSet<Vec<u8>>,
    // Directories whose trees could not be read to their end; that was told.
    cut_short: HashSet<Vec<u8>>,
}

impl Repository {
    /// Restores what lies at `under` into `into`, which must be absent or an empty directory: the content of a directory
    /// becomes the content of `into` (which also gets its metadata), a file becomes a file in it.
    ///
    /// Single entries that fail are listed as problems and the rest goes on; a full disk, a stop or an unusable target is
    /// an error. Nothing is followed out of `into`, whatever the snapshot says.
    pub fn restore(
        &self,
        snapshot: &SnapshotId,
        under: &SnapshotPath,
        into: &Path,
        options: &RestoreOptions,
        control: &Control,
    ) -> Result<RestoreSummary> {
        let tree = self.root(snapshot, control)?;
        let index = self.index(control)?;
        let mut codec = self.inner.codec(1)?;
        let node = self.find(&index, &tree, under, &mut codec, control)?;
        let target = open_target(into)?;
        let owners = match options.owners {
            Owners::Keep => true,
            Owners::Ignore => false,
            Owners::Auto => rustix::process::geteuid().is_root(),
        };
        let reuse = options.reuse.as_deref().map(open_old).transpose()?;
        let before = self.bytes_read();
        let shared = Arc::new(Shared {
            inner: Arc::clone(&self.inner),
            index,
            control: control.clone(),
            options: options.clone(),
            owners,
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            reuse,
            reused: AtomicU64::new(0),
            problems: Mutex::default(),
            fatal: Mutex::new(None),
            stop: AtomicBool::new(false),
        });
        let workers = match options.workers {
            0 => std::thread::available_parallelism().map_or(2, usize::from).min(8),
            n => n,
        };
        let (sender, receiver) = crossbeam_channel::bounded(workers * 2);
        let (node, file) = match node {
            Some(node) if node.kind == NodeKind::Dir => (node, None),
            Some(node) => (Node { kind: NodeKind::Dir, ..Node::default() }, Some(node)),
            None => (Node { kind: NodeKind::Dir, subtree: Some(tree), ..Node::default() }, None),
        };
        let has_metadata = file.is_none() && !under.components().is_empty();
        let mut restore = Restore {
            shared: &shared,
            jobs: sender,
            codec,
            summary: RestoreSummary::default(),
            wanted: Vec::new(),
            batch: (0, 0, 0, 0),
            inodes: HashMap::new(),
            skipped: HashSet::new(),
            cut_short: HashSet::new(),
        };
        let inner = &self.inner;
        let level = |codec: &mut Codec| -> Result<Level> {
            let nodes = match &file {
                Some(file) => Nodes::File(Some(Box::new(file.clone()))),
                None => {
                    let subtree = node.subtree.ok_or_else(|| {
                        RepositoryError::inconsistent(Object::Path, under, "a directory without a tree")
                    })?;
                    Nodes::Tree(inner.read_tree(&shared.index, &subtree, codec, control)?)
                }
            };
            Ok(Level {
                directory: Arc::clone(&target),
                nodes,
                node: has_metadata.then(|| node.clone()),
                path: Vec::new(),
            })
        };
        let top = level(&mut restore.codec)?;
        let first = std::thread::scope(|scope| {
            for _ in 0..workers {
                let receiver = receiver.clone();
                let shared = Arc::clone(&shared);
                scope.spawn(move || shared.work(&receiver));
            }
            drop(receiver);
            let result = restore.files(top);
            if result.is_err() {
                shared.stop.store(true, Ordering::Release);
            }
            // Without a sender the workers end.
            drop(std::mem::replace(&mut restore.jobs, crossbeam_channel::bounded(1).0));
            result
        });
        if let Some(fatal) = locked(&shared.fatal).take() {
            return Err(fatal);
        }
        first?;
        let top = level(&mut restore.codec)?;
        restore.links(top)?;
        shared.ensure()?;
        let mut summary = restore.summary;
        summary.files = shared.files.load(Ordering::Relaxed);
        summary.bytes = shared.bytes.load(Ordering::Relaxed);
        summary.bytes_read = self.bytes_read() - before;
        summary.bytes_reused = shared.reused.load(Ordering::Relaxed);
        (summary.problems, summary.problem_count) = std::mem::take(&mut *locked(&shared.problems));
        Ok(summary)
    }
}

fn open_old(place: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(place, flags, Mode::empty()).map_err(|error| {
        RepositoryError::io(
            "open the old place",
            crate::quote::quote(place.as_os_str().as_encoded_bytes()),
            error.into(),
        )
    })
}

fn open_target(into: &Path) -> Result<Arc<OwnedFd>> {
    match std::fs::DirBuilder::new().mode(0o700).create(into) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            let mut entries =
                std::fs::read_dir(into).map_err(|e| RepositoryError::io("list", into.display(), e))?;
            if entries.next().is_some() {
                return Err(RepositoryError::refused(format!("{} is not empty", into.display())));
            }
        }
        Err(e) => return Err(RepositoryError::io("create directory", into.display(), e)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let target = rustix::fs::open(into, flags, Mode::empty())
        .map_err(|e| RepositoryError::io("open", into.display(), e.into()))?;
    Ok(Arc::new(target))
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(path.len() + name.len() + 1);
    joined.extend_from_slice(path);
    if !path.is_empty() {
        joined.push(b'/');
    }
    joined.extend_from_slice(name);
    joined
}

fn content_id(node: &Node) -> Id {
    let bytes: Vec<u8> = node.content.iter().flatten().flat_map(|id| id.0).collect();
    Id::of(&bytes)
}

impl Restore<'_> {
    fn inode_of(node: &Node) -> Option<(u64, u64)> {
        // Trap 1: links without an inode mean nothing; linking them would give one file the content of another.
        (node.links > 1 && node.inode != 0).then_some((node.inode, node.device_id))
    }

    /// First pass: directories and regular files.
    fn files(&mut self, top: Level) -> Result<()> {
        let mut stack = vec![top];
        while let Some(level) = stack.last_mut() {
            self.shared.ensure()?;
            let Some(node) = level.nodes.next() else {
                stack.pop();
                continue;
            };
            let node = match node {
                Ok(node) => node,
                Err(e) => {
                    // What came before it is restored; the rest is not known.
                    self.shared.problem(&level.path, e);
                    self.cut_short.insert(std::mem::take(&mut level.path));
                    stack.pop();
                    continue;
                }
            };
            let path = join(&level.path, &node.name);
            if !node.name_is_safe() {
                let error = RepositoryError::refused("this name could leave the directory");
                self.shared.problem(&path, error);
                continue;
            }
            let directory = Arc::clone(&level.directory);
            let depth = stack.len();
            match node.kind {
                NodeKind::Dir => match self.enter(&directory, &node, &path, depth) {
                    Ok(level) => stack.push(level),
                    Err(e) if e.stop().is_some() => return Err(e),
                    Err(e) => {
                        self.shared.problem(&path, e);
                        self.skipped.insert(path);
                    }
                },
                NodeKind::File if self.shared.options.left_out.contains(&path) => {}
                NodeKind::File => self.file(directory, node, path)?,
                NodeKind::Other(ref kind) => {
                    let what = format!("an entry of type {kind:?}");
                    self.shared.problem(&path, RepositoryError::Unsupported { what });
                }
                NodeKind::Symlink
                | NodeKind::Device
                | NodeKind::CharDevice
                | NodeKind::Fifo
                | NodeKind::Socket => {}
            }
        }
        self.flush()
    }

    fn enter(&mut self, directory: &OwnedFd, node: &Node, path: &[u8], depth: usize) -> Result<Level> {
        if depth >= DEPTH_MAX {
            return Err(RepositoryError::refused("it is nested too deeply"));
        }
        let name = name_of(node)?;
        let private = Mode::from_raw_mode(0o700);
        rustix::fs::mkdirat(directory, name.as_c_str(), private)
            .map_err(|e| failed("create directory", path, e))?;
        self.summary.directories += 1;
        self.batch.2 += 1;
        self.open_level(directory, node, path)
    }

    fn open_level(&mut self, directory: &OwnedFd, node: &Node, path: &[u8]) -> Result<Level> {
        let name = name_of(node)?;
        let opened = rustix::fs::openat(directory, name.as_c_str(), DIRECTORY, Mode::empty())
            .map_err(|e| failed("open directory", path, e))?;
        let subtree = node.subtree.ok_or_else(|| {
            RepositoryError::inconsistent(
                Object::Path,
                crate::quote::quote(path),
                "a directory without a tree",
            )
        })?;
        let shared = self.shared;
        let nodes = shared.inner.read_tree(&shared.index, &subtree, &mut self.codec, &shared.control)?;
        Ok(Level {
            directory: Arc::new(opened),
            nodes: Nodes::Tree(nodes),
            node: Some(node.clone()),
            path: path.to_vec(),
        })
    }

    fn file(&mut self, directory: Arc<OwnedFd>, mut node: Node, path: Vec<u8>) -> Result<()> {
        let name = name_of(&node)?;
        if let Some(inode) = Self::inode_of(&node) {
            let content = content_id(&node);
            match self.inodes.get(&inode) {
                Some((_, same)) if *same == content => return Ok(()),
                Some(_) => {}
                None => {
                    self.inodes.insert(inode, (path.clone(), content));
                }
            }
        }
        let content = node.content.take().unwrap_or_default();
        let shared = self.shared;
        let mut size = 0;
        // Of a very large file only the first: the others are asked for again.
        let mut places = Vec::with_capacity(content.len().min(PLACES));
        for id in &content {
            match shared.index.find(BlobKind::Data, id)? {
                Some(place) => {
                    size += u64::from(place.blob.plain_length());
                    if places.len() < PLACES {
                        places.push(place);
                    }
                }
                None => {
                    shared.problem(&path, RepositoryError::missing(Object::DataBlob, id));
                    return Ok(());
                }
            }
        }
        let state = Arc::new(FileState {
            directory,
            name,
            path,
            node,
            file: Mutex::new(None),
            left: AtomicUsize::new(content.len()),
            size: AtomicU64::new(size),
            failed: AtomicBool::new(false),
        });
        if content.is_empty() {
            match self.shared.create(&state) {
                Ok(_) => self.shared.conclude(&state),
                Err(e) => self.shared.problem(&state.path, e),
            }
            return Ok(());
        }
        self.batch.1 += 1;
        self.batch.3 += usize::from(content.len() > 1);
        let mut offset = 0;
        let count = content.len();
        for (number, id) in content.iter().enumerate() {
            let place = match places.get(number) {
                Some(place) => *place,
                None => shared
                    .index
                    .find(BlobKind::Data, id)?
                    .ok_or_else(|| RepositoryError::missing(Object::DataBlob, id))?,
            };
            let length = place.blob.plain_length();
            let is_last = number + 1 == count;
            self.wanted.push((place, Target { state: Arc::clone(&state), offset, length, is_last }));
            offset += u64::from(length);
            self.batch.0 += u64::from(length);
            if self.batch.0 >= BATCH_BYTES {
                self.flush()?;
            }
        }
        let (_, files, directories, open) = self.batch;
        if files >= BATCH_FILES || directories >= BATCH_DIRECTORIES || open >= BATCH_OPEN {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.batch = (0, 0, 0, 0);
        let wanted = std::mem::take(&mut self.wanted);
        if self.shared.reuse.is_none() {
            return plan_ranges(wanted).into_iter().try_for_each(|job| self.send(Job::Fetch(job)));
        }
        let (mut part, mut bytes) = (Vec::new(), 0);
        for (place, target) in wanted {
            bytes += u64::from(target.length);
            part.push((place, target));
            if bytes >= LOOKED_FOR {
                self.send(Job::Here(std::mem::take(&mut part)))?;
                bytes = 0;
            }
        }
        if part.is_empty() { Ok(()) } else { self.send(Job::Here(part)) }
    }

    fn send(&self, mut job: Job) -> Result<()> {
        loop {
            match self.jobs.send_timeout(job, POLL) {
                Ok(()) => return Ok(()),
                Err(crossbeam_channel::SendTimeoutError::Timeout(back)) => {
                    self.shared.ensure()?;
                    job = back;
                }
                Err(crossbeam_channel::SendTimeoutError::Disconnected(_)) => {
                    self.shared.ensure()?;
                    return Err(RepositoryError::refused("the workers are gone"));
                }
            }
        }
    }

    /// Second pass: links and special files, then each directory's metadata after everything in it.
    fn links(&mut self, top: Level) -> Result<()> {
        let root = Arc::clone(&top.directory);
        let mut stack = vec![top];
        while let Some(level) = stack.last_mut() {
            self.shared.ensure()?;
            let node = match level.nodes.next() {
                Some(Ok(node)) => node,
                ended => {
                    if let Some(Err(e)) = ended
                        && !self.cut_short.contains(&level.path)
                    {
                        self.shared.problem(&level.path, e);
                    }
                    if let Some(node) = &level.node {
                        self.shared.metadata_of_fd(&level.directory, node, &level.path);
                    }
                    stack.pop();
                    continue;
                }
            };
            if !node.name_is_safe() {
                continue;
            }
            let path = join(&level.path, &node.name);
            let directory = Arc::clone(&level.directory);
            match node.kind {
                NodeKind::Dir => {
                    if self.skipped.contains(&path) {
                        continue;
                    }
                    match self.open_level(&directory, &node, &path) {
                        Ok(level) => stack.push(level),
                        Err(e) if e.stop().is_some() => return Err(e),
                        Err(e) => self.shared.problem(&path, e),
                    }
                }
                NodeKind::File => {
                    let Some((first, content)) =
                        Self::inode_of(&node).and_then(|inode| self.inodes.get(&inode))
                    else {
                        continue;
                    };
                    let is_left_out = self.shared.options.left_out.contains(&path);
                    if is_left_out || *first == path || *content != content_id(&node) {
                        continue;
                    }
                    match link(&root, first, &directory, &name_of(&node)?) {
                        Ok(()) => self.summary.hardlinks += 1,
                        Err(e) => self.shared.problem(&path, failed("link", &path, e)),
                    }
                }
                NodeKind::Symlink => self.symlink(&directory, &node, &path)?,
                NodeKind::Device | NodeKind::CharDevice | NodeKind::Fifo => {
                    self.special(&directory, &node, &path)?;
                }
                // Sockets are made by the programs that listen on them; other kinds were reported in the first pass.
                NodeKind::Socket | NodeKind::Other(_) => {}
            }
        }
        Ok(())
    }

    fn symlink(&mut self, directory: &OwnedFd, node: &Node, path: &[u8]) -> Result<()> {
        let name = name_of(node)?;
        let Ok(target) = CString::new(node.linktarget.clone()) else {
            self.shared.problem(path, RepositoryError::refused("its target has a NUL"));
            return Ok(());
        };
        match rustix::fs::symlinkat(target.as_c_str(), directory, name.as_c_str()) {
            Ok(()) => {
                self.summary.symlinks += 1;
                self.shared.metadata_of_name(directory, &name, node, path);
            }
            Err(e) => self.shared.problem(path, failed("create link", path, e)),
        }
        Ok(())
    }

    fn special(&mut self, directory: &OwnedFd, node: &Node, path: &[u8]) -> Result<()> {
        let name = name_of(node)?;
        let kind = match node.kind {
            NodeKind::Device => FileType::BlockDevice,
            NodeKind::CharDevice => FileType::CharacterDevice,
            _ => FileType::Fifo,
        };
        let private = Mode::from_raw_mode(0o600);
        match rustix::fs::mknodat(directory, name.as_c_str(), kind, private, node.device) {
            Ok(()) => {
                self.summary.specials += 1;
                self.shared.metadata_of_name(directory, &name, node, path);
            }
            Err(e) => self.shared.problem(path, failed("create", path, e)),
        }
        Ok(())
    }
}

fn name_of(node: &Node) -> Result<CString> {
    CString::new(node.name.clone()).map_err(|_| RepositoryError::refused("a name has a NUL"))
}

/// Links to a path below `root`, following nothing on the way.
fn link(root: &OwnedFd, first: &[u8], directory: &OwnedFd, name: &CString) -> Result<(), Errno> {
    let mut parts: Vec<&[u8]> = first.split(|b| *b == b'/').collect();
    let last = parts.pop().unwrap_or_default();
    let mut at: Option<OwnedFd> = None;
    for part in parts {
        let above = at.as_ref().unwrap_or(root);
        at = Some(rustix::fs::openat(above, part, DIRECTORY, Mode::empty())?);
    }
    rustix::fs::linkat(at.as_ref().unwrap_or(root), last, directory, name.as_c_str(), AtFlags::empty())
}
