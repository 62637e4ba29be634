//! Writing one snapshot: streams and directories in, one commit out.
//!
//! Nothing is visible before [`Session::commit`] returns, and nothing incomplete ever: a stream that was not finished, a
//! write that failed, a stop that was asked for each make the commit refuse. What remains then are unreferenced packs,
//! which every client ignores.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use crate::blob::Codec;
use crate::chunker::{Cuts, Cutter};
use crate::control::{Control, POLL, Progress};
use crate::error::{RepositoryError, Result};
use crate::id::{BlobKind, Id, SnapshotId};
use crate::lock::{Lock, LockKind, hostname, username};
use crate::names::Names;
use crate::packer::{Packer, PackerOptions, locked};
use crate::repository::Repository;
use crate::snapshot::{Snapshot, SnapshotSummary};
use crate::store::FileKind;
use crate::time::Time;
use crate::tree::{Node, NodeKind, mode, name_is_safe};
use crate::treewriter::TreeWriter;

/// Pieces are handed to a worker once this many bytes of them are together.
const BATCH: usize = 512 << 10;

/// How long a file must have been left alone, when the parent was begun, to be taken over from it without being read.
///
/// Equal times do not show equal content by themselves: what is written in the same tick of the clock shows the same time, what is
/// written through a mapping shows it only where its page was not waiting to be written back, and the clock of a file server is not
/// ours. Linux writes such pages back after 30 s, and looks for them every 5 s; 60 s hold that, and the seconds by which clocks differ.
/// A file that was touched later is read once more, by the next backup.
pub const SETTLED: Duration = Duration::from_secs(60);

/// From which snapshot unchanged files of real trees are taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ParentUse {
    /// The newest snapshot of the same host whose paths contain all of this session's.
    #[default]
    Automatic,
    /// None: every file is read.
    None,
    /// This one.
    Snapshot(SnapshotId),
}

/// What a session's snapshot will say, and how it is made.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// The host; with `paths` it is the identity for retention and parents.
    pub hostname: String,
    /// The user.
    pub username: String,
    /// What is backed up: absolute, cleaned.
    pub paths: Vec<String>,
    /// Tags; no commas.
    pub tags: Vec<String>,
    /// Exclude patterns, as a record.
    pub excludes: Vec<String>,
    /// The snapshot's instant; `None` takes the begin of the session.
    pub time: Option<Time>,
    /// The program, as `seaworthy x.y.z`.
    pub program_version: String,
    /// Whose unchanged files are taken over.
    pub parent: ParentUse,
    /// How long these must have been left alone when the parent was begun. Less than [`SETTLED`] only where nothing is written within
    /// a tick of the clock, and nothing through a mapping.
    pub settled: Duration,
    /// Target size of a pack in bytes.
    pub pack_size: usize,
    /// zstd level.
    pub compression_level: i32,
    /// Worker threads; 0 takes the number of processors.
    pub workers: usize,
    /// Open every box again before it is stored, and compare.
    pub verify: bool,
    /// Read each pack that would be relied on, and store again what is in those that are not what their names say: for a repository that
    /// is known to be damaged.
    pub distrust: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            hostname: hostname(),
            username: username(),
            paths: Vec::new(),
            tags: Vec::new(),
            excludes: Vec::new(),
            time: None,
            program_version: concat!("seaworthy ", env!("CARGO_PKG_VERSION")).into(),
            parent: ParentUse::Automatic,
            settled: SETTLED,
            pack_size: 16 << 20,
            compression_level: DEFAULT_LEVEL,
            workers: 0,
            verify: true,
            distrust: false,
        }
    }
}

/// Measured on two cores, CPU seconds and size of the repository at level 1 and 3: a PostgreSQL data directory of 1.5 GB
/// 3.4 s, 101 MB and 3.7 s, 90 MB; mixed files of 0.75 GB 4.4 s, 506 MB and 4.5 s, 500 MB; 100,000 small files 3.4 s,
/// 162 MB and 3.8 s, 163 MB. Level 2 gains nothing over 1. A tenth of the time buys a tenth of the database's size.
pub(crate) const DEFAULT_LEVEL: i32 = 3;

/// A place inside a snapshot: components of raw bytes, none of them `.`, `..`, empty, or with `/` or NUL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotPath(Vec<Vec<u8>>);

impl SnapshotPath {
    /// From an absolute or relative path; empty components are skipped, `.` and `..` refused.
    pub fn new(path: impl AsRef<[u8]>) -> Result<Self> {
        let path = path.as_ref();
        let parts = path.split(|b| *b == b'/').filter(|part| !part.is_empty()).map(<[u8]>::to_vec);
        Self::from_components(parts)
    }

    /// From components.
    pub fn from_components(parts: impl IntoIterator<Item = Vec<u8>>) -> Result<Self> {
        let parts: Vec<Vec<u8>> = parts.into_iter().collect();
        if let Some(bad) = parts.iter().find(|part| !name_is_safe(part)) {
            let why = format!("\"{}\" is not a path component", crate::quote::quote(bad));
            return Err(RepositoryError::refused(why));
        }
        Ok(Self(parts))
    }

    /// The components, root first.
    #[must_use]
    pub fn components(&self) -> &[Vec<u8>] {
        &self.0
    }
}

impl std::fmt::Display for SnapshotPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        self.0.iter().try_for_each(|part| write!(f, "/{}", crate::quote::quote(part)))
    }
}

/// Metadata of a file that has no inode: a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMeta {
    /// Permission bits of the kernel, setuid and the like included.
    pub mode: u32,
    /// Modification time; `None` takes the snapshot's.
    pub mtime: Option<Time>,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Owner's name, may be empty.
    pub user: String,
    /// Group's name, may be empty.
    pub group: String,
}

impl Default for FileMeta {
    fn default() -> Self {
        Self { mode: 0o600, mtime: None, uid: 0, gid: 0, user: String::new(), group: String::new() }
    }
}

impl FileMeta {
    pub(crate) fn node(&self, name: &[u8], kind: NodeKind, now: Time) -> Node {
        let time = self.mtime.unwrap_or(now);
        let bits = if kind == NodeKind::Dir { 0o040_000 } else { 0o100_000 };
        Node {
            name: name.to_vec(),
            mode: mode::from_unix(bits | self.mode & 0o7777),
            kind,
            mtime: time,
            atime: time,
            ctime: time,
            uid: self.uid,
            gid: self.gid,
            user: self.user.clone(),
            group: self.group.clone(),
            ..Node::default()
        }
    }
}

/// One piece of a file: its length and its SHA-256, which is also its blob's id.
pub type Piece = (u32, [u8; 32]);

/// What a finished file has become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// Bytes written.
    pub size: u64,
    /// Its pieces, in order.
    pub pieces: Vec<Piece>,
}

/// Why an entry of a real tree is not in the snapshot as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incomplete {
    /// Path as archived.
    pub path: Vec<u8>,
    /// What happened.
    pub why: IncompleteReason,
}

/// The reasons for an incomplete run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IncompleteReason {
    /// It could not be read; it is not in the snapshot.
    Unreadable(String),
    /// It changed while it was read, three times; the last reading is in the snapshot.
    ChangedWhileRead,
    /// It was gone when it was opened; it is not in the snapshot.
    Vanished,
}

/// What a commit has made durable.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The snapshot.
    pub id: SnapshotId,
    /// What it counts.
    pub summary: SnapshotSummary,
    /// Packs stored.
    pub packs: u64,
    /// Pieces that were there already.
    pub duplicate_blobs: u64,
    /// Entries that are not as they should be; empty for a complete run. At most 10,000 are named.
    pub incomplete: Vec<Incomplete>,
    /// How many there are in all.
    pub incomplete_count: u64,
    /// The parent whose files were taken over.
    pub parent: Option<SnapshotId>,
}

impl Committed {
    /// Is everything that was asked for in the snapshot?
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.incomplete_count == 0
    }
}

pub(crate) enum Virtual {
    Leaf(Box<Node>),
    Dir(Box<Node>, BTreeMap<Vec<u8>, Virtual>),
}

pub(crate) type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// What a worker keeps between jobs.
pub(crate) struct Worker {
    pub(crate) codec: Codec,
    pub(crate) buffer: Vec<u8>,
}

#[derive(Default)]
pub(crate) struct FileCounters {
    pub(crate) new: AtomicU64,
    pub(crate) changed: AtomicU64,
    pub(crate) unmodified: AtomicU64,
    pub(crate) dirs_new: AtomicU64,
    pub(crate) dirs_changed: AtomicU64,
    pub(crate) dirs_unmodified: AtomicU64,
    pub(crate) files: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

pub(crate) struct SessionInner {
    pub(crate) repository: Repository,
    pub(crate) options: SessionOptions,
    pub(crate) packer: Arc<Packer>,
    pub(crate) parent: Option<(SnapshotId, Snapshot)>,
    damaged: Vec<SnapshotId>,
    pub(crate) names: Names,
    pub(crate) time: Time,
    pub(crate) files: FileCounters,
    pub(crate) workers: usize,
    started: Time,
    lock: Mutex<Option<Lock>>,
    confirming: Mutex<Option<JoinHandle<Result<Lock>>>>,
    root: Mutex<BTreeMap<Vec<u8>, Virtual>>,
    jobs: Mutex<Option<Sender<Job>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    spare_workers: Mutex<Vec<Worker>>,
    // Shared by itself: a job that held the session could be the one that drops it, and would wait for its own thread.
    spare_buffers: Arc<Mutex<Vec<Vec<u8>>>>,
    pub(crate) open_writers: AtomicUsize,
    closed: AtomicBool,
    incomplete: Mutex<(Vec<Incomplete>, u64)>,
}

/// A snapshot being written. Cheap to clone; all methods block and may be called from several threads at once.
#[derive(Clone)]
pub struct Session {
    pub(crate) inner: Arc<SessionInner>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("repository", &self.inner.repository).finish_non_exhaustive()
    }
}

/// What a new snapshot finds among those that are there.
#[derive(Default)]
struct Kin {
    /// The one whose unchanged files are taken over.
    parent: Option<(SnapshotId, Snapshot)>,
    /// Those that are damaged.
    damaged: Vec<SnapshotId>,
}

impl Repository {
    /// Begins a snapshot under a shared lock. Refuses version 1, which is only read.
    pub fn begin(&self, mut options: SessionOptions, control: &Control) -> Result<Session> {
        if self.version() != 2 {
            return Err(RepositoryError::Unsupported { what: "writing to a repository of version 1".into() });
        }
        if let Some(tag) = options.tags.iter().find(|tag| tag.contains(',')) {
            return Err(RepositoryError::refused(format!("tag {tag:?} has a comma")));
        }
        if options.program_version.starts_with("restic ") {
            return Err(RepositoryError::refused("the program version must not claim to be restic"));
        }
        let started = Time::now();
        let pending = self.lock_begin(LockKind::Shared, control)?;
        let time = options.time.unwrap_or(started);
        // The snapshots before the index: whatever they refer to is in an index that is read later.
        let Kin { parent, damaged } = self.find_parent(&options, &time, control)?;
        let index = self.index(control)?;
        let workers = match options.workers {
            0 => std::thread::available_parallelism().map_or(2, usize::from).min(16),
            n => n,
        };
        options.workers = workers;
        let packer = Packer::start(
            Arc::clone(&self.inner),
            index,
            // A child: this session may have to stop what its caller did not cancel.
            control.child(),
            PackerOptions {
                verify: options.verify,
                pack_size: options.pack_size,
                read_back: false,
                believe: None,
                // Enough to keep the uploaders busy, and 16 MiB.
                waiting: 1,
                index_packs: usize::MAX,
                look: true,
                distrust: options.distrust,
            },
        )?;
        let (sender, receiver) = crossbeam_channel::bounded::<Job>(workers * 2);
        // The second look at competing locks comes 200 ms after the first; the work need not wait for it, because until
        // the commit nothing refers to anything.
        let for_confirming = packer.control.clone();
        let confirming = std::thread::Builder::new()
            .name("repository-confirm".into())
            .spawn(move || pending.confirm(&for_confirming))
            .map_err(|e| RepositoryError::io("start", "the thread that confirms a lock", e))?;
        let inner = Arc::new(SessionInner {
            repository: self.clone(),
            packer,
            parent,
            damaged,
            names: Names::load(),
            time,
            files: FileCounters::default(),
            workers,
            started,
            lock: Mutex::new(None),
            confirming: Mutex::new(Some(confirming)),
            root: Mutex::default(),
            jobs: Mutex::new(Some(sender)),
            threads: Mutex::default(),
            spare_workers: Mutex::default(),
            spare_buffers: Arc::default(),
            open_writers: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            incomplete: Mutex::default(),
            options,
        });
        for n in 0..workers {
            let mut worker = inner.new_worker()?;
            let receiver: Receiver<Job> = receiver.clone();
            let packer = Arc::clone(&inner.packer);
            let thread = std::thread::Builder::new()
                .name(format!("repository-work-{n}"))
                .spawn(move || {
                    while let Ok(job) = receiver.recv() {
                        if std::panic::catch_unwind(AssertUnwindSafe(|| job(&mut worker))).is_err() {
                            packer.fail(RepositoryError::refused("a worker panicked; this is a bug"));
                        }
                    }
                })
                .map_err(|e| RepositoryError::io("start", "a worker thread", e))?;
            locked(&inner.threads).push(thread);
        }
        Ok(Session { inner })
    }

    /// Looks for the parent. A snapshot that is damaged is none, and keeps no new one from being made.
    fn find_parent(&self, options: &SessionOptions, time: &Time, control: &Control) -> Result<Kin> {
        match options.parent {
            ParentUse::None => return Ok(Kin::default()),
            ParentUse::Snapshot(id) => {
                let parent = Some((id, self.snapshot(&id, control)?));
                return Ok(Kin { parent, damaged: Vec::new() });
            }
            ParentUse::Automatic => {}
        }
        let mut kin = Kin::default();
        for listed in self.store().list(FileKind::Snapshot, control)? {
            let snapshot = match self.snapshot(&listed.id, control) {
                Ok(snapshot) => snapshot,
                Err(RepositoryError::Damaged { .. } | RepositoryError::Inconsistent { .. }) => {
                    kin.damaged.push(listed.id);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let order = |snapshot: &Snapshot, id: SnapshotId| (snapshot.time.unix_nanos(), id);
            let is_kin = snapshot.hostname == options.hostname
                && !options.paths.is_empty()
                && options.paths.iter().all(|path| snapshot.paths.contains(path))
                && snapshot.time.unix_nanos() <= time.unix_nanos();
            let is_newer =
                kin.parent.as_ref().is_none_or(|(id, best)| order(best, *id) < order(&snapshot, listed.id));
            if is_kin && is_newer {
                kin.parent = Some((listed.id, snapshot));
            }
        }
        Ok(kin)
    }
}

impl SessionInner {
    fn new_worker(&self) -> Result<Worker> {
        let codec = self.repository.inner.codec(self.options.compression_level)?;
        Ok(Worker { codec, buffer: Vec::new() })
    }

    /// Lends the caller's thread a worker's contexts.
    pub(crate) fn with_worker<T>(&self, work: impl FnOnce(&mut Worker) -> Result<T>) -> Result<T> {
        let spare = locked(&self.spare_workers).pop();
        let mut worker = match spare {
            Some(worker) => worker,
            None => self.new_worker()?,
        };
        let result = work(&mut worker);
        let mut spare = locked(&self.spare_workers);
        if spare.len() < self.workers {
            spare.push(worker);
        }
        result
    }

    /// What was touched at this time or later may have been written again since the parent has read it, and show the same times.
    /// In nanoseconds since 1970; without a parent nothing is taken over.
    pub(crate) fn settled_before(&self) -> i128 {
        let margin = i128::try_from(self.options.settled.as_nanos()).unwrap_or(i128::MAX);
        let began = self.parent.as_ref().map_or(i128::MIN, |(_, parent)| parent.began().unix_nanos());
        began.saturating_sub(margin)
    }

    pub(crate) fn ensure(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(RepositoryError::refused("the session is closed"));
        }
        self.packer.ensure()?;
        if locked(&self.confirming).as_ref().is_some_and(JoinHandle::is_finished) {
            self.confirm_lock()?;
        }
        if let Some(lock) = &*locked(&self.lock) {
            let held = lock.ensure();
            self.packer.guard(held)?;
        }
        Ok(())
    }

    /// Waits for the second look at competing locks; a conflict is the session's failure.
    fn confirm_lock(&self) -> Result<()> {
        let mut confirming = locked(&self.confirming);
        let Some(thread) = confirming.take() else { return Ok(()) };
        let confirmed = thread.join().unwrap_or_else(|_| {
            Err(RepositoryError::refused("the thread that confirms a lock died; this is a bug"))
        });
        *locked(&self.lock) = Some(self.packer.guard(confirmed)?);
        Ok(())
    }

    pub(crate) fn submit(&self, mut job: Job) -> Result<()> {
        let Some(jobs) = locked(&self.jobs).clone() else {
            return Err(RepositoryError::refused("the session is closed"));
        };
        loop {
            match jobs.send_timeout(job, POLL) {
                Ok(()) => return Ok(()),
                Err(crossbeam_channel::SendTimeoutError::Timeout(back)) => {
                    self.ensure()?;
                    job = back;
                }
                Err(crossbeam_channel::SendTimeoutError::Disconnected(_)) => {
                    return Err(RepositoryError::refused("the workers are gone"));
                }
            }
        }
    }

    pub(crate) fn note_incomplete(&self, path: &[u8], why: IncompleteReason) {
        let mut incomplete = locked(&self.incomplete);
        incomplete.1 += 1;
        if incomplete.0.len() < 10_000 {
            incomplete.0.push(Incomplete { path: path.to_vec(), why });
        }
    }

    pub(crate) fn count_file(&self, bytes: u64) {
        let files = self.files.files.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = self.files.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // Small files come by the ten thousand; nobody wants a call for each.
        if files.is_multiple_of(64) || bytes > 1 << 20 {
            self.packer.control.report(Progress { files, bytes, files_total: None, bytes_total: None });
        }
    }

    /// Puts a node at its place; what is there already is refused, except that directories merge.
    pub(crate) fn place(&self, path: &SnapshotPath, value: Virtual, above: &[Node]) -> Result<()> {
        let Some((last, parents)) = path.0.split_last() else {
            return Err(RepositoryError::refused("the root of a snapshot is a directory"));
        };
        let mut root = locked(&self.root);
        let mut at = &mut *root;
        for (depth, name) in parents.iter().enumerate() {
            let entry = at.entry(name.clone()).or_insert_with(|| {
                let node = above.get(depth).cloned().unwrap_or_else(|| {
                    FileMeta { mode: 0o755, ..FileMeta::default() }.node(name, NodeKind::Dir, self.time)
                });
                Virtual::Dir(Box::new(node), BTreeMap::new())
            });
            match entry {
                Virtual::Dir(_, children) => at = children,
                Virtual::Leaf(_) => {
                    return Err(RepositoryError::refused(format!(
                        "{path} lies below something that is not a directory"
                    )));
                }
            }
        }
        match at.entry(last.clone()) {
            Entry::Vacant(vacant) => {
                vacant.insert(value);
                Ok(())
            }
            Entry::Occupied(mut occupied) => match (occupied.get_mut(), value) {
                // A directory that was only implied gets its own metadata.
                (Virtual::Dir(node, _), Virtual::Dir(fresh, children)) if children.is_empty() => {
                    *node = fresh;
                    Ok(())
                }
                _ => Err(RepositoryError::refused(format!("{path} is in the snapshot already"))),
            },
        }
    }

    fn store_tree(&self, level: BTreeMap<Vec<u8>, Virtual>, worker: &mut Worker) -> Result<Id> {
        let mut tree = TreeWriter::default();
        let compression_level = self.options.compression_level;
        for (_, entry) in level {
            let node = match entry {
                Virtual::Leaf(node) => node,
                Virtual::Dir(mut node, children) => {
                    self.files.dirs_new.fetch_add(1, Ordering::Relaxed);
                    node.subtree = Some(self.store_tree(children, worker)?);
                    node
                }
            };
            let pushed = tree.push(&node, &self.packer, compression_level);
            self.packer.guard(pushed)?;
        }
        tree.finish(&self.packer, &mut worker.codec)
    }

    fn shut(&self) {
        locked(&self.jobs).take();
        for thread in std::mem::take(&mut *locked(&self.threads)) {
            if thread.join().is_err() {
                self.packer.fail(RepositoryError::refused("a worker died"));
            }
        }
        self.packer.stop();
    }
}

impl Drop for SessionInner {
    fn drop(&mut self) {
        if !self.closed.load(Ordering::Acquire) {
            self.packer.fail(RepositoryError::refused("the session was dropped"));
            self.packer.control.cancel.cancel();
        }
        self.shut();
        // A lock that is confirmed now is dropped with this session.
        self.confirm_lock().ok();
    }
}

impl Session {
    /// Begins a file whose content comes from the caller.
    ///
    /// Dropping the writer before [`FileWriter::finish`] fails the session: a stream that broke off is never stored as
    /// if it were whole. Streams are never compared with a parent; they are always read.
    pub fn file(&self, path: &SnapshotPath, meta: FileMeta, cuts: Cuts) -> Result<FileWriter> {
        let inner = &self.inner;
        inner.ensure()?;
        if path.components().is_empty() {
            return Err(RepositoryError::refused("a file needs a name"));
        }
        let cutter = inner.repository.inner.tables.cutter(cuts, 0).ok_or_else(|| {
            RepositoryError::refused("the repository has no chunker polynomial, so there are no Rabin cuts")
        })?;
        inner.open_writers.fetch_add(1, Ordering::AcqRel);
        Ok(FileWriter {
            session: Arc::clone(inner),
            path: path.clone(),
            meta,
            cutter,
            buffer: Vec::new(),
            lengths: Vec::new(),
            piece: 0,
            size: 0,
            batches: 0,
            results: Arc::new((Mutex::new(Batches { done: BTreeMap::new(), failed: false }), Condvar::new())),
            finished: false,
        })
    }

    /// Gives a directory of the snapshot its metadata; without this it has mode 0755 and the snapshot's time.
    pub fn directory(&self, path: &SnapshotPath, meta: &FileMeta) -> Result<()> {
        self.inner.ensure()?;
        let Some(name) = path.components().last() else {
            return Err(RepositoryError::refused("the root of a snapshot has no metadata"));
        };
        let node = meta.node(name, NodeKind::Dir, self.inner.time);
        self.inner.place(path, Virtual::Dir(Box::new(node), BTreeMap::new()), &[])
    }

    /// Snapshots that were looked at for a parent and are damaged. Whoever relies on them has to be told.
    #[must_use]
    pub fn damaged_snapshots(&self) -> &[SnapshotId] {
        &self.inner.damaged
    }

    /// Packs that are damaged, as far as it was seen since the repository was opened: what this snapshot needs of them is stored again.
    /// Whoever relies on them by an earlier one has to be told.
    #[must_use]
    pub fn damaged_packs(&self) -> Vec<Id> {
        self.inner.packer.damaged_packs()
    }

    /// The parent whose unchanged files are taken over, if there is one.
    #[must_use]
    pub fn parent(&self) -> Option<SnapshotId> {
        self.inner.parent.as_ref().map(|(id, _)| *id)
    }

    /// Makes everything durable: packs, then index, then the snapshot, in this order. Acknowledged means restorable.
    ///
    /// Refuses when anything failed before, when a file is still open, when the lock was lost, and when a pack that the
    /// snapshot relies on has been deleted meanwhile. After an error no snapshot exists, with one exception: a store that
    /// fails or hangs during the very last write may have kept it, and then it is whole.
    pub fn commit(&self, control: &Control) -> Result<Committed> {
        let inner = &self.inner;
        inner.ensure()?;
        control.check()?;
        if inner.open_writers.load(Ordering::Acquire) > 0 {
            return Err(RepositoryError::refused(
                "a file or directory of this session is still being written",
            ));
        }
        if inner.closed.swap(true, Ordering::AcqRel) {
            return Err(RepositoryError::refused("the session is closed"));
        }
        let result = self.watched(control, || self.commit_inner(control));
        if let Err(error) = &result {
            inner.packer.fail(RepositoryError::refused(format!("the commit failed: {error}")));
        }
        inner.shut();
        // Only after a failure is there anything left to confirm; then its result no longer matters.
        inner.confirm_lock().ok();
        let released = locked(&inner.lock).take().map_or(Ok(()), Lock::release);
        let committed = result?;
        // The snapshot is durable: a lock file that stays is no reason to call it failed. It is reaped later.
        released.ok();
        Ok(committed)
    }

    /// Runs `work` while `control` can stop everything that the session waits for.
    fn watched<T>(&self, control: &Control, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let packer = &self.inner.packer;
        let (done, over) = crossbeam_channel::bounded::<()>(0);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while over.recv_timeout(POLL) == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
                    if let Err(stop) = control.check() {
                        packer.fail(stop);
                        packer.control.cancel.cancel();
                        return;
                    }
                }
            });
            let result = work();
            drop(done);
            result
        })
    }

    fn commit_inner(&self, control: &Control) -> Result<Committed> {
        let inner = &self.inner;
        let packer = &inner.packer;
        let root = std::mem::take(&mut *locked(&inner.root));
        if root.is_empty() {
            return Err(RepositoryError::refused("nothing was backed up"));
        }
        let tree = inner.with_worker(|worker| inner.store_tree(root, worker))?;
        packer.flush()?;
        control.check()?;
        inner.confirm_lock()?;
        packer.ensure_packs_exist()?;
        match &*locked(&inner.lock) {
            Some(lock) => lock.ensure_now(control)?,
            None => return Err(RepositoryError::refused("the session has no lock")),
        }
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let summary = SnapshotSummary {
            backup_start: inner.started,
            backup_end: Time::now(),
            files_new: get(&inner.files.new),
            files_changed: get(&inner.files.changed),
            files_unmodified: get(&inner.files.unmodified),
            dirs_new: get(&inner.files.dirs_new),
            dirs_changed: get(&inner.files.dirs_changed),
            dirs_unmodified: get(&inner.files.dirs_unmodified),
            data_blobs: get(&packer.counters.data_blobs),
            tree_blobs: get(&packer.counters.tree_blobs),
            data_added: get(&packer.counters.data_added),
            data_added_packed: get(&packer.counters.data_added_packed),
            total_files_processed: get(&inner.files.files),
            total_bytes_processed: get(&inner.files.bytes),
        };
        let options = &inner.options;
        let snapshot = Snapshot {
            time: inner.time,
            parent: self.parent(),
            tree: Some(tree),
            paths: options.paths.clone(),
            hostname: options.hostname.clone(),
            username: options.username.clone(),
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            excludes: options.excludes.clone(),
            tags: options.tags.clone(),
            original: None,
            program_version: options.program_version.clone(),
            summary: Some(summary.clone()),
        };
        let id = inner.repository.inner.write_unpacked(FileKind::Snapshot, &snapshot.encode(), control)?;
        let (incomplete, incomplete_count) = locked(&inner.incomplete).clone();
        Ok(Committed {
            id,
            summary,
            packs: get(&packer.counters.packs),
            duplicate_blobs: get(&packer.counters.duplicate_blobs),
            incomplete,
            incomplete_count,
            parent: self.parent(),
        })
    }

    /// Ends the session without a snapshot and removes its lock.
    pub fn abort(&self) -> Result<()> {
        let inner = &self.inner;
        if inner.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        inner.packer.fail(RepositoryError::refused("the session was aborted"));
        inner.packer.control.cancel.cancel();
        inner.shut();
        // The thread has been cancelled, and drops the lock, unless it was done.
        inner.confirm_lock().ok();
        locked(&inner.lock).take().map_or(Ok(()), Lock::release)
    }
}

struct Batches {
    done: BTreeMap<usize, Vec<Piece>>,
    failed: bool,
}

/// A file whose content comes from the caller, piece by piece.
pub struct FileWriter {
    session: Arc<SessionInner>,
    path: SnapshotPath,
    meta: FileMeta,
    cutter: Cutter,
    // Whole pieces, of `lengths`, then the beginning of the next one.
    buffer: Vec<u8>,
    lengths: Vec<u32>,
    piece: usize,
    size: u64,
    batches: usize,
    results: Arc<(Mutex<Batches>, Condvar)>,
    finished: bool,
}

impl std::fmt::Debug for FileWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileWriter")
            .field("path", &self.path)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

fn store_pieces(packer: &Packer, codec: &mut Codec, mut bytes: &[u8], lengths: &[u32]) -> Result<Vec<Piece>> {
    let mut pieces = Vec::with_capacity(lengths.len());
    for lengths in lengths.chunks(2) {
        match *lengths {
            [one, other] => {
                let (first, rest) = bytes.split_at(one as usize);
                let (second, rest) = rest.split_at(other as usize);
                let [first_id, second_id] = Id::of_two(first, second);
                pieces.push((one, packer.store_as(codec, BlobKind::Data, first_id, first)?.0));
                pieces.push((other, packer.store_as(codec, BlobKind::Data, second_id, second)?.0));
                bytes = rest;
            }
            ref last => {
                for length in last {
                    let (piece, rest) = bytes.split_at(*length as usize);
                    pieces.push((*length, packer.store(codec, BlobKind::Data, piece)?.0));
                    bytes = rest;
                }
            }
        }
    }
    Ok(pieces)
}

impl FileWriter {
    /// Takes the next bytes of the file. An error means that the session is lost.
    pub fn write(&mut self, mut data: &[u8]) -> Result<()> {
        self.session.ensure()?;
        self.size += data.len() as u64;
        while !data.is_empty() {
            if self.buffer.capacity() == 0 {
                self.buffer = locked(&self.session.spare_buffers).pop().unwrap_or_default();
            }
            match self.cutter.next_cut(data) {
                None => {
                    self.buffer.extend_from_slice(data);
                    self.piece += data.len();
                    data = &[];
                }
                Some(n) => {
                    self.buffer.extend_from_slice(&data[..n]);
                    self.end_piece(n)?;
                    data = &data[n..];
                    if self.buffer.len() >= BATCH {
                        self.dispatch()?;
                    }
                }
            }
        }
        Ok(())
    }

    fn end_piece(&mut self, more: usize) -> Result<()> {
        let length = u32::try_from(self.piece + more)
            .map_err(|_| RepositoryError::refused("a piece of 4 GiB or more cannot be stored"))?;
        self.lengths.push(length);
        self.piece = 0;
        Ok(())
    }

    fn dispatch(&mut self) -> Result<()> {
        let bytes = std::mem::take(&mut self.buffer);
        let lengths = std::mem::take(&mut self.lengths);
        let number = self.batches;
        self.batches += 1;
        let packer = Arc::clone(&self.session.packer);
        let results = Arc::clone(&self.results);
        let (spare, most) = (Arc::clone(&self.session.spare_buffers), self.session.workers * 2);
        self.session.submit(Box::new(move |worker| {
            let report = Report { results, number: Some(number) };
            if let Ok(pieces) = store_pieces(&packer, &mut worker.codec, &bytes, &lengths) {
                report.done(pieces);
            }
            let mut bytes = bytes;
            bytes.clear();
            let mut spare = locked(&spare);
            if spare.len() < most {
                spare.push(bytes);
            }
        }))
    }

    /// Ends the file: everything written is stored (durable only with the commit) and it has its place in the snapshot.
    pub fn finish(mut self) -> Result<StoredFile> {
        let result = self.finish_inner();
        // Whatever the result, it has been told; only a drop without this call is an abandoned stream.
        self.finished = true;
        let session = Arc::clone(&self.session);
        session.packer.guard(result)
    }

    fn finish_inner(&mut self) -> Result<StoredFile> {
        self.session.ensure()?;
        if self.piece > 0 {
            self.end_piece(0)?;
        }
        if !self.lengths.is_empty() {
            if self.batches == 0 && self.buffer.len() < BATCH {
                // A small file is not worth a change of threads.
                let (bytes, lengths) = (std::mem::take(&mut self.buffer), std::mem::take(&mut self.lengths));
                let session = &self.session;
                let pieces =
                    session.with_worker(|w| store_pieces(&session.packer, &mut w.codec, &bytes, &lengths))?;
                self.batches = 1;
                locked(&self.results.0).done.insert(0, pieces);
            } else {
                self.dispatch()?;
            }
        }
        let (state, changed) = &*self.results;
        let mut batches = locked(state);
        while batches.done.len() < self.batches {
            if batches.failed {
                drop(batches);
                self.session.ensure()?;
                return Err(RepositoryError::refused("a piece was not stored"));
            }
            batches = changed.wait_timeout(batches, POLL).unwrap_or_else(PoisonError::into_inner).0;
            self.session.packer.ensure()?;
        }
        let pieces: Vec<Piece> = std::mem::take(&mut batches.done).into_values().flatten().collect();
        drop(batches);
        let sum: u64 = pieces.iter().map(|(length, _)| u64::from(*length)).sum();
        if sum != self.size {
            return Err(RepositoryError::refused(format!(
                "{} bytes were written, {sum} stored; this is a bug",
                self.size
            )));
        }
        let name = self.path.components().last().expect("checked when the file was begun");
        let mut node = self.meta.node(name, NodeKind::File, self.session.time);
        // Traps 1 and 2: the size is that of the bytes read; without an inode there are no links.
        node.size = self.size;
        node.content = Some(pieces.iter().map(|(_, id)| Id(*id)).collect());
        self.session.place(&self.path, Virtual::Leaf(Box::new(node)), &[])?;
        self.session.files.new.fetch_add(1, Ordering::Relaxed);
        self.session.count_file(self.size);
        Ok(StoredFile { size: self.size, pieces })
    }
}

/// Tells the writer about its batch, also when the worker panics.
struct Report {
    results: Arc<(Mutex<Batches>, Condvar)>,
    number: Option<usize>,
}

impl Report {
    fn done(mut self, pieces: Vec<Piece>) {
        if let Some(number) = self.number.take() {
            locked(&self.results.0).done.insert(number, pieces);
            self.results.1.notify_all();
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if self.number.is_some() {
            locked(&self.results.0).failed = true;
            self.results.1.notify_all();
        }
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        if !self.finished {
            let why = format!("the stream of {} ended before it was finished", self.path);
            self.session.packer.fail(RepositoryError::refused(why));
        }
        self.session.open_writers.fetch_sub(1, Ordering::AcqRel);
    }
}
