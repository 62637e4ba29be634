//! Bridges the store and the doors: a session of the repository is a [`CopyWriter`], a snapshot of it a [`CopyReader`].
//!
//! The repository blocks; whoever calls it from here does so on a blocking thread.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use seaworthy_interface::{
    CopyEntry, CopyFile, CopyPath, CopyReader, CopyWriter, Cuts, Cx, DriverError, EarlierCopy, EntryKind,
    ErrorKind, Journal, Piece, Progress, Restoring, Stop, StoredFile, TreeEntry, TreeOptions,
};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::id::{CopyId, ServiceName, SourceName};
use seaworthy_model::signature::sha256;
use seaworthy_model::witness::Witness;
use seaworthy_repository::{
    Control, FileMeta, FileReader, FileWriter, NodeKind, Repository, RepositoryError, RestoreOptions,
    SessionOptions, SnapshotId, SnapshotPath, Step, StoreFault,
};

use crate::act::backup::{BackupRequest, Earlier};
use crate::journal::RepositoryJournal;

/// What the repository is given of a context.
#[must_use]
pub fn control(cx: &Cx) -> Control {
    let sink = cx.sink();
    Control {
        cancel: cx.token(),
        deadline: cx.deadline().map(tokio::time::Instant::into_std),
        progress: Some(Arc::new(move |progress: seaworthy_repository::Progress| {
            sink(Progress::Bytes { done: progress.bytes, total: progress.bytes_total });
        })),
    }
}

/// An error of the repository at a door: its kind, its code, and what a person can do.
#[must_use]
pub fn driver_error(context: impl Into<String>, error: RepositoryError) -> DriverError {
    let context = context.into();
    let (kind, code, hint) = classify(&error);
    let mut at_door = DriverError::new(kind, context).because(error);
    if let Some(code) = code {
        at_door = at_door.code(code);
    }
    if let Some(hint) = hint {
        at_door = at_door.hint(hint);
    }
    at_door
}

fn classify(error: &RepositoryError) -> (ErrorKind, Option<FindingCode>, Option<&'static str>) {
    match error {
        RepositoryError::NotFound { .. } => (
            ErrorKind::NotFound,
            Some(FindingCode::Unreachable),
            Some("check the location, or make the repository: seaworthy init --missing-repositories"),
        ),
        RepositoryError::WrongKey { .. } => (
            ErrorKind::Unauthenticated,
            Some(FindingCode::WrongKey),
            Some("check the reference of the repository's password"),
        ),
        RepositoryError::Locked { .. } => (
            ErrorKind::Conflict,
            Some(FindingCode::EnvOther),
            Some("wait for its holder; if it is gone, `restic unlock` removes locks of dead processes"),
        ),
        RepositoryError::Missing { .. } => (ErrorKind::NotFound, Some(FindingCode::ObjectMissing), None),
        RepositoryError::Damaged { .. } => (ErrorKind::Corrupt, Some(FindingCode::ObjectDamaged), None),
        RepositoryError::Inconsistent { .. } => {
            (ErrorKind::Corrupt, Some(FindingCode::IndexInconsistent), None)
        }
        RepositoryError::Unsupported { .. } => (ErrorKind::Unsupported, Some(FindingCode::EnvOther), None),
        RepositoryError::NoSpace { .. } => (
            ErrorKind::Exhausted,
            Some(FindingCode::NoSpace),
            Some("free space, or move the repository or the scratch directory"),
        ),
        RepositoryError::Stopped(stop) => (ErrorKind::Stopped(stopped(*stop)), None, None),
        RepositoryError::Refused { .. } => (ErrorKind::Refused, Some(FindingCode::EnvOther), None),
        RepositoryError::Failed { cause } => classify(cause),
        RepositoryError::Io { .. } => (ErrorKind::Other, Some(FindingCode::ReadFailed), None),
        RepositoryError::Store { fault, .. } => refused(*fault),
        // The repository may learn new ways to say no; each of them is an error that blames nobody until it is named here.
        _ => (ErrorKind::Other, Some(FindingCode::EnvOther), None),
    }
}

/// What a refusal of an object store asks of a person. None of them blames a copy.
fn refused(fault: StoreFault) -> (ErrorKind, Option<FindingCode>, Option<&'static str>) {
    let (kind, code, hint) = match fault {
        StoreFault::Unreachable => (
            ErrorKind::Unreachable,
            FindingCode::Unreachable,
            Some(
                "check the endpoint, the network and the resolver; then run this again: what was stored is not stored twice",
            ),
        ),
        StoreFault::Busy => (
            ErrorKind::Unreachable,
            FindingCode::Unreachable,
            Some(
                "the service is throttling or failing; run this again later: what was stored is not stored twice",
            ),
        ),
        StoreFault::Unauthenticated => (
            ErrorKind::Unauthenticated,
            FindingCode::AuthDenied,
            Some(
                "the credentials are wrong or have expired: check what the repository's references and the environment hold",
            ),
        ),
        StoreFault::Denied => (
            ErrorKind::PermissionDenied,
            FindingCode::AuthDenied,
            Some(
                "these credentials may not do this: a backup needs to list, read and create; only `prune` needs to delete",
            ),
        ),
        StoreFault::NoBucket => (
            ErrorKind::NotFound,
            FindingCode::Unreachable,
            Some("check the bucket's name and account, or make it: it is never made for you"),
        ),
        StoreFault::ClockSkew => (
            ErrorKind::Refused,
            FindingCode::ClockSkew,
            Some("set this machine's clock right, then run this again"),
        ),
        StoreFault::WrongRegion => (
            ErrorKind::Unsupported,
            FindingCode::Unreachable,
            Some("give the bucket's own region as region = \"…\" of the repository"),
        ),
        StoreFault::Full => {
            (ErrorKind::Exhausted, FindingCode::NoSpace, Some("raise the quota, or choose another bucket"))
        }
        StoreFault::Forgotten => (
            ErrorKind::Other,
            FindingCode::ReadFailed,
            Some("do not trust this store: it acknowledges what it does not keep"),
        ),
        _ => (ErrorKind::Other, FindingCode::ReadFailed, None),
    };
    (kind, Some(code), hint)
}

fn stopped(stop: seaworthy_repository::Stop) -> Stop {
    match stop {
        seaworthy_repository::Stop::Cancelled => Stop::Cancelled,
        seaworthy_repository::Stop::DeadlineExceeded => Stop::DeadlineExceeded,
    }
}

/// Where the witness lies in every copy.
pub const WITNESS_PATH: &str = ".seaworthy/witness.json";

/// Damaged packs that a backup names; of the others it tells how many there are.
const PACKS_NAMED: usize = 20;

/// Longest witness: one of a tree of a million files takes about this much.
pub const WITNESS_BYTES_MAX: u64 = 1 << 30;

/// Where every copy says, signed, whose it is and of which instant.
pub const STATEMENT_PATH: &str = ".seaworthy/witness.dsse.json";

/// A copy being written, under the repository's shared lock.
pub struct Session {
    writer: Arc<SessionWriter>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// What a commit has made durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The copy.
    pub copy: CopyId,
    /// Bytes read from the source.
    pub read_bytes: u64,
    /// Bytes that were new to the repository, before compression.
    pub added_bytes: u64,
    /// Bytes written to the repository.
    pub stored_bytes: u64,
    /// Files.
    pub items: u64,
}

/// Carries out blocking work of the store. The work watches its own control, so that it ends soon after a stop.
pub async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, DriverError> + Send + 'static,
) -> Result<T, DriverError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(DriverError::new(ErrorKind::Other, what).because(error)),
    }
}

/// What tells the copies of a source from those of every other one.
#[must_use]
pub fn lineage(host: &str, service: &ServiceName, source: &SourceName) -> String {
    format!("{host}/{service}/{source}")
}

/// Begins a copy.
pub async fn begin(
    cx: &Cx,
    repository: &Repository,
    request: &BackupRequest,
    is_left: bool,
) -> Result<Session, DriverError> {
    let repository = repository.clone();
    let earlier = request.known.earlier.clone();
    let lineage = lineage(&request.host, &request.service, &request.source);
    let control = control(cx);
    let options = SessionOptions {
        hostname: request.host.clone(),
        paths: request.paths.clone(),
        tags: vec![
            "seaworthy".to_owned(),
            format!("service={}", request.service),
            format!("source={}", request.source),
            format!("run={}", request.run),
        ],
        program_version: request.program.clone(),
        distrust: request.known.distrust,
        ..SessionOptions::default()
    };
    blocking("begin a copy", move || {
        let session =
            repository.begin(options, &control).map_err(|error| driver_error("begin a copy", error))?;
        Ok(Session {
            writer: Arc::new(SessionWriter { session, control, repository, lineage, earlier, is_left }),
        })
    })
    .await
}

impl Session {
    /// Where a source puts what it captures.
    #[must_use]
    pub fn writer(&self) -> Arc<dyn CopyWriter> {
        Arc::<SessionWriter>::clone(&self.writer)
    }

    /// What is wrong with other copies, as far as it was seen: none of it keeps this one from being made.
    #[must_use]
    pub fn damage_beside(&self) -> Vec<Finding> {
        let session = &self.writer.session;
        let copies = session.damaged_snapshots().iter().map(|id| {
            Finding::new(
                FindingCode::ReadFailed,
                format!("copy {}", id.hex()),
                "its snapshot in the repository is damaged; run `seaworthy check --read-data`",
            )
        });
        let packs = session.damaged_packs();
        let named = packs.iter().take(PACKS_NAMED).map(|id| {
            Finding::new(
                FindingCode::ReadFailed,
                format!("pack {}", id.hex()),
                "it is damaged: what this copy needs of it was stored again, and earlier copies may lack it; run `seaworthy check --read-data`",
            )
        });
        let more = packs.len().saturating_sub(PACKS_NAMED);
        let rest = (more > 0).then(|| {
            let detail = "further damaged packs; run `seaworthy check --read-data`";
            Finding::new(FindingCode::ReadFailed, format!("{more} packs"), detail)
        });
        copies.chain(named).chain(rest).collect()
    }

    /// Makes the copy durable and visible: packs, then index, then snapshot. An error leaves nothing visible.
    pub async fn commit(self, cx: &Cx) -> Result<Committed, DriverError> {
        let control = control(cx);
        blocking("commit the copy", move || {
            let done = self
                .writer
                .session
                .commit(&control)
                .map_err(|error| driver_error("commit the copy", error))?;
            Ok(Committed {
                copy: CopyId(done.id.hex()),
                read_bytes: done.summary.total_bytes_processed,
                added_bytes: done.summary.data_added,
                stored_bytes: done.summary.data_added_packed,
                items: done.summary.total_files_processed,
            })
        })
        .await
    }

    /// Gives the copy up. Packs that were stored are garbage, which a later prune removes.
    pub async fn abort(self) -> Result<(), DriverError> {
        blocking("give up the copy", move || {
            self.writer.session.abort().map_err(|error| driver_error("give up the copy", error))
        })
        .await
    }
}

struct SessionWriter {
    session: seaworthy_repository::Session,
    control: Control,
    repository: Repository,
    lineage: String,
    earlier: Option<Earlier>,
    /// Whether the copy has to stand alone.
    is_left: bool,
}

/// An earlier snapshot, and the session that takes over from it.
struct EarlierSnapshot {
    repository: Repository,
    session: seaworthy_repository::Session,
    control: Control,
    snapshot: SnapshotId,
    witness: Witness,
    newest_bad: Option<Timestamp>,
    is_left: bool,
}

impl EarlierCopy for EarlierSnapshot {
    fn witness(&self) -> &Witness {
        &self.witness
    }

    fn newest_bad(&self) -> Option<Timestamp> {
        self.newest_bad
    }

    fn is_left(&self) -> bool {
        self.is_left
    }

    fn read(&self, path: &CopyPath, limit_bytes: u64) -> Result<Vec<u8>, DriverError> {
        self.repository
            .read_file(&self.snapshot, &snapshot_path(path)?, limit_bytes, &self.control)
            .map_err(|error| driver_error(format!("read `{path}` of the copy before"), error))
    }

    fn take_over(
        &self,
        under: &CopyPath,
        keeps: &dyn Fn(&[u8]) -> bool,
    ) -> Result<seaworthy_interface::copy::Written, DriverError> {
        let taken = self
            .session
            .take_over(&self.snapshot, &snapshot_path(under)?, keeps, &self.control)
            .map_err(|error| driver_error(format!("take over `{under}` of the copy before"), error))?;
        Ok(seaworthy_interface::copy::Written { files: taken.files, bytes: taken.bytes })
    }
}

fn snapshot_path(path: &CopyPath) -> Result<SnapshotPath, DriverError> {
    SnapshotPath::new(path.as_bytes())
        .map_err(|error| driver_error(format!("name `{path}` in the copy"), error))
}

fn store_cuts(cuts: Cuts) -> seaworthy_repository::Cuts {
    match cuts {
        Cuts::ContentDefined => seaworthy_repository::Cuts::ContentDefined,
        Cuts::Pages { page_bytes, size_bytes } => seaworthy_repository::Cuts::Pages {
            page: page_bytes,
            pages_per_piece: pages_per_piece(page_bytes, size_bytes),
        },
    }
}

/// Pages of a database file in one piece: a changed page costs the whole piece, an unchanged one costs its id in a tree.
const PAGES_PER_PIECE: u32 = 4;

/// Pieces of one file before they become larger. Each costs about 200 bytes of memory while the file is stored: its hash in
/// binary and, in the tree, in text, which restic's format keeps in one object.
const PIECES_MAX: u64 = 1 << 19;

/// Twice the pages for every doubling beyond what [`PIECES_MAX`] pieces hold, so that a file that grows keeps its cuts until
/// it has doubled: 8 GiB of pages of 4 KiB.
fn pages_per_piece(page_bytes: u32, size_bytes: u64) -> u32 {
    let mut pages = PAGES_PER_PIECE;
    while u64::from(page_bytes.max(1)) * u64::from(pages) * PIECES_MAX < size_bytes && pages < 1 << 16 {
        pages *= 2;
    }
    pages
}

impl CopyWriter for SessionWriter {
    fn earlier(&self) -> Result<Option<Arc<dyn EarlierCopy>>, DriverError> {
        let Some(earlier) = &self.earlier else { return Ok(None) };
        let what = "read the witness of the copy before";
        let unsound = || DriverError::new(ErrorKind::Corrupt, what).code(FindingCode::WitnessNotOurs);
        let snapshot = SnapshotId::parse(&earlier.copy.0).ok_or_else(unsound)?;
        let path = SnapshotPath::new(WITNESS_PATH).map_err(|error| driver_error(what, error))?;
        let bytes = self
            .repository
            .read_file(&snapshot, &path, WITNESS_BYTES_MAX, &self.control)
            .map_err(|error| driver_error(what, error))?;
        if sha256(&bytes) != earlier.witness {
            return Err(unsound());
        }
        let witness = serde_json::from_slice(&bytes).map_err(|error| unsound().because(error))?;
        Ok(Some(Arc::new(EarlierSnapshot {
            repository: self.repository.clone(),
            session: self.session.clone(),
            control: self.control.clone(),
            snapshot,
            witness,
            newest_bad: earlier.newest_bad,
            is_left: self.is_left,
        })))
    }

    fn journal(&self) -> Option<Arc<dyn Journal>> {
        let journal = RepositoryJournal::with(&self.repository, self.control.clone(), self.lineage.clone());
        Some(Arc::new(journal))
    }

    fn lineage(&self) -> String {
        self.lineage.clone()
    }

    fn begin(&self, path: &CopyPath, cuts: Cuts) -> Result<Box<dyn CopyFile>, DriverError> {
        self.control.check().map_err(|error| driver_error("store a file", error))?;
        let name = path.to_string();
        let file = self
            .session
            .file(&snapshot_path(path)?, FileMeta::default(), store_cuts(cuts))
            .map_err(|error| driver_error(format!("store `{name}`"), error))?;
        Ok(Box::new(SessionFile { file, name }))
    }

    fn directory(&self, path: &CopyPath, mode: u32) -> Result<(), DriverError> {
        let name = path.to_string();
        let meta = FileMeta { mode, ..FileMeta::default() };
        self.session
            .directory(&snapshot_path(path)?, &meta)
            .map_err(|error| driver_error(format!("store the directory `{name}`"), error))
    }

    fn tree(
        &self,
        root: &Path,
        options: &TreeOptions,
        observe: &(dyn Fn(TreeEntry) + Send + Sync),
    ) -> Result<(), DriverError> {
        crate::tree::archive(&self.session, root, options, observe)
    }
}

struct SessionFile {
    file: FileWriter,
    name: String,
}

impl CopyFile for SessionFile {
    fn write(&mut self, bytes: &[u8]) -> Result<(), DriverError> {
        self.file.write(bytes).map_err(|error| driver_error(format!("store `{}`", self.name), error))
    }

    fn finish(self: Box<Self>) -> Result<StoredFile, DriverError> {
        let stored =
            self.file.finish().map_err(|error| driver_error(format!("store `{}`", self.name), error))?;
        let pieces = stored.pieces.into_iter().map(|(length, sha256)| Piece { length, sha256 }).collect();
        Ok(StoredFile { size: stored.size, pieces })
    }
}

/// A copy being read. Takes no lock: whoever drills holds a shared one, see [`crate::act`].
pub struct SnapshotReader {
    repository: Repository,
    snapshot: SnapshotId,
    control: Control,
    before: u64,
    seen: Arc<Mutex<Seen>>,
    /// Where parts of the copy lie already, by their paths in it.
    old: Vec<(CopyPath, PathBuf)>,
    reused: Arc<AtomicU64>,
}

/// What has been read to its end.
#[derive(Debug, Clone, Default)]
struct Seen {
    files: BTreeSet<Vec<u8>>,
    /// Everything at and below a path, but for what was left out.
    trees: Vec<(Vec<u8>, BTreeSet<Vec<u8>>)>,
}

impl Seen {
    /// How the search for what is left goes on at an entry, and whether the entry itself is left.
    fn step(&self, path: &[u8], is_directory: bool) -> (Step, bool) {
        let covering = self.trees.iter().filter(|(root, _)| {
            path.strip_prefix(root.as_slice()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        });
        // One restore that left nothing out here is enough.
        let mut is_covered = false;
        for (_, left_out) in covering {
            let below = [path, b"/"].concat();
            let is_hole = left_out.contains(path)
                || left_out.range(below.clone()..).next().is_some_and(|left| left.starts_with(&below));
            is_covered |= !is_hole;
        }
        match (is_covered, is_directory) {
            (true, _) => (Step::Pass, false),
            (false, true) => (Step::Enter, false),
            (false, false) => (Step::Pass, !self.files.contains(path)),
        }
    }
}

impl SnapshotReader {
    /// A reader of `copy`. Bytes fetched are counted from here.
    pub fn new(cx: &Cx, repository: &Repository, copy: &CopyId) -> Result<Self, DriverError> {
        let snapshot = SnapshotId::parse(&copy.0).ok_or_else(|| {
            DriverError::new(
                ErrorKind::NotFound,
                format!("find the copy `{copy}`: this is not the id of one"),
            )
        })?;
        Ok(Self {
            repository: repository.clone(),
            snapshot,
            control: control(cx),
            before: repository.bytes_read(),
            seen: Arc::default(),
            old: Vec::new(),
            reused: Arc::default(),
        })
    }

    /// Takes what these old places have, piece by piece where its hash is right, instead of fetching it. A place that is not there has
    /// nothing. What is taken like this is not counted as read from the repository.
    #[must_use]
    pub fn reusing(mut self, old: Vec<(CopyPath, PathBuf)>) -> Self {
        self.old = old;
        self
    }

    /// Bytes of content that old places had, counted while it is restored.
    #[must_use]
    pub fn reused(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.reused)
    }

    fn path(under: Option<&CopyPath>) -> Result<SnapshotPath, DriverError> {
        under.map_or_else(
            || SnapshotPath::new("").map_err(|error| driver_error("name the root of the copy", error)),
            snapshot_path,
        )
    }
}

fn kind(kind: &NodeKind) -> EntryKind {
    match kind {
        NodeKind::Dir => EntryKind::Directory,
        NodeKind::Symlink => EntryKind::Symlink,
        NodeKind::Fifo => EntryKind::Fifo,
        NodeKind::Device => EntryKind::BlockDevice,
        NodeKind::CharDevice => EntryKind::CharDevice,
        NodeKind::Socket => EntryKind::Socket,
        NodeKind::File | NodeKind::Other(_) => EntryKind::File,
    }
}

impl CopyReader for SnapshotReader {
    fn list(&self, under: Option<&CopyPath>) -> Result<Vec<CopyEntry>, DriverError> {
        let mut entries = Vec::new();
        let mut unsound = None;
        self.repository
            .list(&self.snapshot, &Self::path(under)?, &self.control, |entry| {
                let Some(path) = CopyPath::new(entry.path.join(&b'/')) else {
                    unsound = Some(entry.path.join(&b'/').escape_ascii().to_string());
                    return ControlFlow::Break(());
                };
                let modified = Timestamp::from_nanosecond(entry.node.mtime.unix_nanos())
                    .unwrap_or(Timestamp::UNIX_EPOCH);
                entries.push(CopyEntry {
                    path,
                    kind: kind(&entry.node.kind),
                    size: entry.node.size,
                    modified,
                });
                ControlFlow::Continue(())
            })
            .map_err(|error| driver_error("list the copy", error))?;
        match unsound {
            None => Ok(entries),
            Some(path) => {
                Err(DriverError::new(ErrorKind::Corrupt, format!("list the copy: `{path}` leaves it"))
                    .code(FindingCode::LimitExceeded))
            }
        }
    }

    fn kind(&self, path: &CopyPath) -> Result<EntryKind, DriverError> {
        let mut found = None;
        self.repository
            .list(&self.snapshot, &snapshot_path(path)?, &self.control, |entry| {
                found = Some(kind(&entry.node.kind));
                ControlFlow::Break(())
            })
            .map_err(|error| driver_error(format!("look at `{path}` of the copy"), error))?;
        found.ok_or_else(|| DriverError::new(ErrorKind::NotFound, format!("find `{path}` in the copy")))
    }

    fn read(&self, path: &CopyPath, limit_bytes: u64) -> Result<Vec<u8>, DriverError> {
        let bytes = self
            .repository
            .read_file(&self.snapshot, &snapshot_path(path)?, limit_bytes, &self.control)
            .map_err(|error| driver_error(format!("read `{path}` of the copy"), error))?;
        seen(&self.seen).files.insert(path.as_bytes().to_vec());
        Ok(bytes)
    }

    fn open(&self, path: &CopyPath) -> Result<Box<dyn Read + Send>, DriverError> {
        let reader = self
            .repository
            .open_file(&self.snapshot, &snapshot_path(path)?, &self.control)
            .map_err(|error| driver_error(format!("open `{path}` of the copy"), error))?;
        let at_end = Some((Arc::clone(&self.seen), path.as_bytes().to_vec()));
        Ok(Box::new(Stream { reader, window: Vec::new(), position: 0, at_end }))
    }

    fn restore(
        &self,
        under: &CopyPath,
        into: &Path,
        how: &Restoring,
    ) -> Result<seaworthy_interface::copy::Written, DriverError> {
        let inside = |path: &CopyPath| {
            path.as_bytes().strip_prefix(under.as_bytes())?.strip_prefix(b"/").map(<[u8]>::to_vec)
        };
        let options = RestoreOptions {
            left_out: Arc::new(how.left_out.iter().filter_map(inside).collect()),
            sparse: how.keeps_holes,
            reuse: self.old.iter().find(|(of, _)| of == under).map(|(_, place)| place.clone()),
            ..RestoreOptions::default()
        };
        let options = RestoreOptions { reuse: options.reuse.filter(|place| place.is_dir()), ..options };
        let from = snapshot_path(under)?;
        let (written, reused) =
            crate::tree::restore(&self.repository, &self.snapshot, &from, into, &options, &self.control)?;
        if options.reuse.is_some() {
            self.reused.fetch_add(reused, Ordering::Relaxed);
            return Ok(written);
        }
        let left_out = how.left_out.iter().map(|path| path.as_bytes().to_vec()).collect();
        seen(&self.seen).trees.push((under.as_bytes().to_vec(), left_out));
        Ok(written)
    }

    fn read_rest(&self) -> Result<seaworthy_interface::copy::Written, DriverError> {
        let known = seen(&self.seen).clone();
        let mut left = Vec::new();
        self.repository
            .walk(&self.snapshot, &Self::path(None)?, &self.control, |entry| {
                let path = entry.path.join(&b'/');
                let (step, is_left) = known.step(&path, entry.node.kind == NodeKind::Dir);
                if is_left && entry.node.kind == NodeKind::File {
                    left.push(path);
                }
                step
            })
            .map_err(|error| driver_error("look for what was not read yet", error))?;
        let mut rest = seaworthy_interface::copy::Written::default();
        for path in left {
            let name = path.escape_ascii().to_string();
            let failed = |error| driver_error(format!("read `{name}` of the copy"), error);
            let path = SnapshotPath::new(&path).map_err(failed)?;
            let mut reader =
                self.repository.open_file(&self.snapshot, &path, &self.control).map_err(failed)?;
            while let Some(window) = reader.next_window().map_err(failed)? {
                rest.bytes += window.len() as u64;
            }
            rest.files += 1;
        }
        Ok(rest)
    }

    fn fetched_bytes(&self) -> u64 {
        self.repository.bytes_read().saturating_sub(self.before)
    }
}

/// What has been read: nobody panics while it is held.
fn seen(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Stream {
    reader: FileReader,
    window: Vec<u8>,
    position: usize,
    /// Where it is noted that the file was read to its end.
    at_end: Option<(Arc<Mutex<Seen>>, Vec<u8>)>,
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.position == self.window.len() {
            match self
                .reader
                .next_window()
                .map_err(|error| io::Error::other(driver_error("read from the repository", error)))?
            {
                None => {
                    if let Some((all, path)) = self.at_end.take() {
                        seen(&all).files.insert(path);
                    }
                    return Ok(0);
                }
                Some(window) => {
                    self.window = window;
                    self.position = 0;
                }
            }
        }
        let count = into.len().min(self.window.len() - self.position);
        into[..count].copy_from_slice(&self.window[self.position..self.position + count]);
        self.position += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_to_read_is_what_no_restore_and_no_stream_has_read() {
        let bytes = |text: &str| text.as_bytes().to_vec();
        let seen = Seen {
            files: BTreeSet::from([bytes("papers/a")]),
            trees: vec![
                (bytes("database"), BTreeSet::from([bytes("database/7.dat"), bytes("database/in/8.dat")])),
                (bytes("home/x"), BTreeSet::new()),
            ],
        };
        let left = |path: &str| seen.step(path.as_bytes(), false) == (Step::Pass, true);
        let entered = |path: &str| seen.step(path.as_bytes(), true).0 == Step::Enter;
        assert!(!left("papers/a") && left("papers/b") && left("database2/x"));
        assert!(!left("database/toc.dat") && left("database/7.dat") && left("database/in/8.dat"));
        assert!(entered("papers") && entered("database") && entered("database/in") && entered("home"));
        assert!(!entered("database/out") && !entered("home/x") && !entered("home/x/y"));
        // A file that was left out and then read as a stream is not left.
        let streamed = Seen { files: BTreeSet::from([bytes("database/7.dat")]), ..seen };
        assert_eq!(streamed.step(b"database/7.dat", false), (Step::Pass, false));
    }

    #[test]
    fn pieces_of_a_database_grow_only_beyond_half_a_million() {
        let gib = 1_u64 << 30;
        for (page_bytes, size_bytes, pages) in [
            (4096, 0, 4),
            (4096, 8 * gib, 4),
            (4096, 8 * gib + 1, 8),
            (4096, 16 * gib, 8),
            (4096, 1024 * gib, 512),
            (8192, 16 * gib, 4),
            (65536, 128 * gib, 4),
            (512, u64::MAX, 1 << 16),
        ] {
            assert_eq!(pages_per_piece(page_bytes, size_bytes), pages, "{page_bytes} {size_bytes}");
        }
    }
}
