//! Trees of files: archived as the writer sees them, audited by a second look, measured again after a restore.
//!
//! The content's digests come from the pieces that were stored, so that nothing is read twice. What the archive holds is
//! not taken on trust: a second walk, of names and inodes only, looks for entries that were there before the archive
//! began and are there still, and that it does not know. What could not be read, or changed under the reader, makes the
//! run incomplete and is named.
//!
//! A restored tree is hostile: it is walked by descriptors, symbolic links are never followed, devices are never opened.
//! Labels that the kernel's own policy sets (SELinux, IMA, EVM) belong to a place, not to a file, and are not compared.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::{CString, OsStr};
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use seaworthy_interface::copy::{EntryState, Written};
use seaworthy_interface::{
    Captured, CopyPath, CopyReader, CopyWriter, Cx, Damage, Delivered, DriverError, EntryKind, ErrorKind,
    Exec, NewTarget, Progress, Restored, Sandbox, Source, SourceFacts, TreeEntry, TreeOptions,
};
use seaworthy_model::check::{Question, UserCheck};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::source::FilesSpec;
use seaworthy_model::verdict::{CheckOutcome, CheckReport};
use seaworthy_model::witness::content::{Content, CutList, Measure, hex};
use seaworthy_model::witness::files::{
    FileEntry, FileKind, LISTED_MAX, Link, Manifest, MeasuredBy, Outside, OutsideState, escape, unescape,
    with_groups,
};
use seaworthy_model::witness::{FilesWitness, Witness};
use sha2::{Digest as _, Sha256};

use super::blocking::{Watch, blocking};

/// Version of the witness's shape and of how content is measured.
const WITNESS_VERSION: u32 = 1;

/// Names that one job of a walk holds: small enough that both cores share a large directory.
const NAMES_PER_JOB: usize = 256;

/// An entry whose inode changed this shortly before an archive began may be new to it: coarser than any kernel's clock.
const SETTLED: Duration = Duration::from_millis(100);

/// Findings of a capture that name an entry each; the rest is counted in one more.
const NAMED_MAX: usize = 20;

/// How long a probe may walk to estimate a size.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// Trees of files as a source.
#[derive(Debug, Clone)]
pub struct FilesSource {
    spec: FilesSpec,
    roots: Vec<PathBuf>,
}

impl FilesSource {
    /// The trees that `spec` names.
    ///
    /// Roots are absolute, are not `/` itself, hold no `..`, and lie in one another only where file systems are not
    /// left; else the same file would be archived twice.
    pub fn new(spec: FilesSpec) -> Result<Self, DriverError> {
        let refused = |path: &str, hint: &str| {
            Err(DriverError::new(ErrorKind::Refused, format!("use `{}` as a root", path.escape_debug()))
                .hint(hint))
        };
        let mut roots: Vec<PathBuf> = Vec::new();
        for path in &spec.paths {
            let trimmed = path.trim_end_matches('/');
            let inside = trimmed.strip_prefix('/').and_then(CopyPath::new);
            if inside.is_none() {
                return refused(path, "name an absolute path below `/`, without `.` and `..`");
            }
            let root = PathBuf::from(trimmed);
            let is_nested = |other: &PathBuf| root.starts_with(other) || other.starts_with(&root);
            if roots.contains(&root) || (!spec.one_file_system && roots.iter().any(is_nested)) {
                return refused(path, "it lies in another root, or the other way round: name each tree once");
            }
            roots.push(root);
        }
        if roots.is_empty() {
            return Err(
                DriverError::new(ErrorKind::Refused, "archive no root").hint("name at least one path")
            );
        }
        Ok(Self { spec, roots })
    }

    fn options(&self) -> TreeOptions {
        TreeOptions { exclude: self.spec.exclude.clone(), one_file_system: self.spec.one_file_system }
    }
}

fn failed(what: &str, path: &Path) -> impl Fn(io::Error) -> DriverError + use<> {
    let context = format!("{what} `{}`", path.display());
    move |error| DriverError::io(context.clone(), error)
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A root that may be archived: there, and not a link to somewhere else.
fn look_at_root(root: &Path) -> Result<Stat, DriverError> {
    let stat = rustix::fs::lstat(root).map_err(|error| failed("look at", root)(error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        return Err(DriverError::new(ErrorKind::Refused, format!("archive `{}`", root.display()))
            .hint("it is a symbolic link, and only the link would be archived: name what it leads to"));
    }
    Ok(stat)
}

/// An entry, and its inode where that has more than one link.
type Found = (FileEntry, Option<(u64, u64)>);

/// What the archive reports, gathered from whichever thread reports it.
#[derive(Default)]
struct Observed {
    /// Of the root that is being archived.
    entries: Vec<Found>,
    /// Of the roots that are done.
    done: Vec<FileEntry>,
    left_out: Vec<Outside>,
    left_out_count: u64,
    problems: Vec<Outside>,
    problem_count: u64,
    /// Paths that the archive knows, by hash.
    known: HashSet<u64>,
    /// Directories that it knows and did not enter.
    closed: HashSet<Vec<u8>>,
}

impl Observed {
    fn problem(&mut self, path: &[u8], state: OutsideState, reason: String) {
        self.problem_count += 1;
        if self.problems.len() < LISTED_MAX {
            self.problems.push(Outside { path: escape(path), state, reason });
        }
    }

    fn leave_out(&mut self, path: &[u8], reason: String) {
        self.left_out_count += 1;
        if self.left_out.len() < LISTED_MAX {
            self.left_out.push(Outside { path: escape(path), state: OutsideState::Excluded, reason });
        }
    }

    fn take(&mut self, entry: TreeEntry, spec: &FilesSpec) {
        self.known.insert(path_hash(&entry.path));
        match &entry.state {
            EntryState::Stored => {}
            EntryState::ChangedWhileRead => {
                let reason = "three readings differ; the last one is stored".to_owned();
                self.problem(&entry.path, OutsideState::Torn, reason);
            }
            EntryState::Unreadable(reason) => {
                self.problem(&entry.path, OutsideState::Unreadable, reason.clone());
                self.closed.insert(entry.path);
                return;
            }
            EntryState::Vanished => {
                self.problem(&entry.path, OutsideState::Vanished, "listed and then gone".to_owned());
                self.closed.insert(entry.path);
                return;
            }
            EntryState::Excluded(reason) => {
                let is_socket = entry.kind == EntryKind::Socket;
                if !is_socket && spec.exclude.is_empty() && !spec.one_file_system {
                    // Nothing was declared: whatever left this out had no right to.
                    let reason = format!("left out though nothing was declared: {reason}");
                    self.problem(&entry.path, OutsideState::Omitted, reason);
                } else {
                    self.leave_out(&entry.path, reason.clone());
                }
                self.closed.insert(entry.path);
                return;
            }
        }
        let Some(kind) = file_kind(entry.kind) else {
            self.leave_out(&entry.path, "is a socket".to_owned());
            return;
        };
        let inode = (kind == FileKind::File && entry.inode.2 > 1).then_some((entry.inode.1, entry.inode.0));
        let is_file = kind == FileKind::File;
        let content = is_file
            .then(|| Content::of_pieces(entry.pieces.iter().map(|piece| (piece.length, piece.sha256))));
        if content.as_ref().is_some_and(|content| content.size != entry.size) {
            let reason = "the archive stored another number of bytes than it read".to_owned();
            self.problem(&entry.path, OutsideState::Torn, reason);
        }
        let seconds = i64::try_from(entry.mtime_ns.div_euclid(1_000_000_000)).unwrap_or(i64::MAX);
        let nanos = u32::try_from(entry.mtime_ns.rem_euclid(1_000_000_000)).unwrap_or(0);
        let entry = FileEntry {
            kind,
            // Linux gives every link the same mode, and other systems ignore it.
            mode: if kind == FileKind::Symlink { 0 } else { entry.mode & 0o7777 },
            uid: entry.uid,
            gid: entry.gid,
            mtime: (seconds, nanos),
            has_holes: is_file && has_holes(entry.size, entry.blocks_512),
            content,
            link: match kind {
                FileKind::Symlink => Link::Target(entry.link_target.unwrap_or_default()),
                FileKind::CharDevice | FileKind::BlockDevice => Link::Device(entry.rdev),
                FileKind::File | FileKind::Directory | FileKind::Fifo => Link::None,
            },
            attributes: attributes(entry.xattrs),
            path: entry.path,
        };
        self.entries.push((entry, inode));
    }

    /// Groups the hard links of the root that has just been archived.
    fn finish_root(&mut self) {
        let entries = std::mem::take(&mut self.entries);
        self.done.extend(with_groups(entries));
    }
}

fn path_hash(path: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

/// Small files may lie in their inode or in a shared block; a hole is at least a page.
fn has_holes(size: u64, blocks_512: u64) -> bool {
    blocks_512.saturating_mul(512).saturating_add(4096) <= size
}

fn file_kind(kind: EntryKind) -> Option<FileKind> {
    Some(match kind {
        EntryKind::File => FileKind::File,
        EntryKind::Directory => FileKind::Directory,
        EntryKind::Symlink => FileKind::Symlink,
        EntryKind::Fifo => FileKind::Fifo,
        EntryKind::CharDevice => FileKind::CharDevice,
        EntryKind::BlockDevice => FileKind::BlockDevice,
        EntryKind::Socket => return None,
    })
}

fn stat_kind(stat: &Stat) -> Option<FileKind> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Some(FileKind::File),
        FileType::Directory => Some(FileKind::Directory),
        FileType::Symlink => Some(FileKind::Symlink),
        FileType::Fifo => Some(FileKind::Fifo),
        FileType::CharacterDevice => Some(FileKind::CharDevice),
        FileType::BlockDevice => Some(FileKind::BlockDevice),
        FileType::Socket | FileType::Unknown => None,
    }
}

fn attributes(found: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<(Vec<u8>, String)> {
    const OF_THE_PLACE: [&[u8]; 3] = [b"security.selinux", b"security.ima", b"security.evm"];
    let mut attributes: Vec<(Vec<u8>, String)> = found
        .into_iter()
        .filter(|(name, _)| !OF_THE_PLACE.contains(&name.as_slice()))
        .map(|(name, value)| (name, hex(&Sha256::digest(value))))
        .collect();
    attributes.sort();
    attributes
}

/// One entry met by a walk.
struct Met<'a> {
    /// The open directory that it lies in.
    directory: BorrowedFd<'a>,
    /// Its name there.
    name: &'a CString,
    /// Its path: the walk's root as it was given, and what lies below.
    path: &'a [u8],
    stat: &'a Stat,
}

enum Job {
    Directory(Vec<u8>),
    Names(Vec<u8>, Vec<CString>),
}

type Trouble<'a> = dyn Fn(&[u8], io::Error) -> Result<(), DriverError> + Sync + 'a;

struct Walk<'a> {
    /// Where the root lies now.
    at: &'a Path,
    /// The path that is reported for the root.
    named: &'a [u8],
    /// Called for every entry, from several threads; whether to enter it, for directories.
    visit: &'a (dyn Fn(&Met<'_>) -> Result<bool, DriverError> + Sync),
    /// Called for what cannot be listed or looked at.
    trouble: &'a Trouble<'a>,
    watch: &'a Watch,
}

struct Queue {
    jobs: Vec<Job>,
    busy: usize,
}

impl Walk<'_> {
    /// Visits the root and everything below it; a symbolic link is an entry, never a way.
    fn run(&self) -> Result<(), DriverError> {
        let (Some(parent), Some(name)) = (self.at.parent(), self.at.file_name()) else {
            return Err(DriverError::new(ErrorKind::Refused, format!("walk `{}`", self.at.display())));
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::openat(CWD, parent, flags, Mode::empty())
            .map_err(|error| failed("open", parent)(error.into()))?;
        let name = CString::new(name.as_bytes())
            .map_err(|error| DriverError::new(ErrorKind::Refused, "walk a root").because(error))?;
        let stat = match rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(error) => return (self.trouble)(self.named, error.into()),
        };
        let met = Met { directory: parent.as_fd(), name: &name, path: self.named, stat: &stat };
        if !(self.visit)(&met)? || stat_kind(&stat) != Some(FileKind::Directory) {
            return Ok(());
        }
        let flags = flags | OFlags::NOFOLLOW;
        let root = match rustix::fs::openat(&parent, &name, flags, Mode::empty()) {
            Ok(root) => root,
            Err(error) => return (self.trouble)(self.named, error.into()),
        };
        let queue = Mutex::new(Queue { jobs: vec![Job::Directory(Vec::new())], busy: 0 });
        let (wake, stop) = (Condvar::new(), AtomicBool::new(false));
        let first_error: Mutex<Option<DriverError>> = Mutex::new(None);
        let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).min(8);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    if let Err(error) = self.work(root.as_fd(), &queue, &wake, &stop) {
                        stop.store(true, Ordering::SeqCst);
                        locked(&first_error).get_or_insert(error);
                        wake.notify_all();
                    }
                });
            }
        });
        first_error.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn work(
        &self,
        root: BorrowedFd<'_>,
        queue: &Mutex<Queue>,
        wake: &Condvar,
        stop: &AtomicBool,
    ) -> Result<(), DriverError> {
        loop {
            let mut state = locked(queue);
            let job = loop {
                if stop.load(Ordering::SeqCst) {
                    return Ok(());
                }
                match state.jobs.pop() {
                    Some(job) => break job,
                    None if state.busy == 0 => {
                        wake.notify_all();
                        return Ok(());
                    }
                    None => {
                        // Bounded, so that a stop by a thread that has just looked is not slept through.
                        state = wake
                            .wait_timeout(state, Duration::from_millis(50))
                            .unwrap_or_else(PoisonError::into_inner)
                            .0;
                    }
                }
            };
            state.busy += 1;
            drop(state);
            let made = self.job(root, job);
            let mut state = locked(queue);
            state.busy -= 1;
            state.jobs.extend(made?);
            drop(state);
            wake.notify_all();
        }
    }

    /// Carries out one job; gives back those that follow from it.
    fn job(&self, root: BorrowedFd<'_>, job: Job) -> Result<Vec<Job>, DriverError> {
        self.watch.check()?;
        match job {
            Job::Directory(below) => {
                let names = open_beneath(root, &below).and_then(|directory| list(&directory));
                match names {
                    Ok(names) if names.len() <= NAMES_PER_JOB => self.names(root, &below, &names),
                    Ok(names) => Ok(names
                        .chunks(NAMES_PER_JOB)
                        .map(|part| Job::Names(below.clone(), part.to_vec()))
                        .collect()),
                    Err(error) => {
                        (self.trouble)(&self.path(&below), error)?;
                        Ok(Vec::new())
                    }
                }
            }
            Job::Names(below, names) => self.names(root, &below, &names),
        }
    }

    fn path(&self, below: &[u8]) -> Vec<u8> {
        if below.is_empty() { self.named.to_vec() } else { join(self.named, below) }
    }

    fn names(&self, root: BorrowedFd<'_>, below: &[u8], names: &[CString]) -> Result<Vec<Job>, DriverError> {
        let directory = match open_beneath(root, below) {
            Ok(directory) => directory,
            Err(error) => {
                (self.trouble)(&self.path(below), error)?;
                return Ok(Vec::new());
            }
        };
        let mut jobs = Vec::new();
        for name in names {
            self.watch.check()?;
            let inside =
                if below.is_empty() { name.to_bytes().to_vec() } else { join(below, name.to_bytes()) };
            let path = join(self.named, &inside);
            match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    let met = Met { directory: directory.as_fd(), name, path: &path, stat: &stat };
                    let enters = (self.visit)(&met)?;
                    if enters && stat_kind(&stat) == Some(FileKind::Directory) {
                        jobs.push(Job::Directory(inside));
                    }
                }
                Err(error) => (self.trouble)(&path, error.into())?,
            }
        }
        Ok(jobs)
    }
}

fn join(above: &[u8], below: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(above.len() + 1 + below.len());
    path.extend_from_slice(above);
    path.push(b'/');
    path.extend_from_slice(below);
    path
}

/// Opens a directory below `root` one component at a time: no symbolic link, no `..`, no limit on the path's length.
fn open_beneath(root: BorrowedFd<'_>, below: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut directory = rustix::fs::openat(root, c".", flags, Mode::empty())?;
    for name in below.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        if name == b".." {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        directory = rustix::fs::openat(&directory, name, flags, Mode::empty())?;
    }
    Ok(directory)
}

fn list(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.as_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

/// Looks for what was there before the archive began, is there still, and is not known to the archive.
fn audit(
    root: &Path,
    began: Timestamp,
    observed: &Mutex<Observed>,
    one_file_system: bool,
    watch: &Watch,
) -> Result<(), DriverError> {
    let before = SignedDuration::try_from(SETTLED).unwrap_or(SignedDuration::ZERO);
    let settled = began.checked_sub(before).unwrap_or(began);
    let device = look_at_root(root)?.st_dev;
    // Below a directory that was renamed meanwhile, names are new though inodes are old.
    let unsettled: Mutex<HashSet<Vec<u8>>> = Mutex::new(HashSet::new());
    let visit = |met: &Met<'_>| {
        let parent = met.path.iter().rposition(|byte| *byte == b'/').map_or(&[][..], |cut| &met.path[..cut]);
        let mut observed = locked(observed);
        if observed.closed.contains(met.path) || (one_file_system && met.stat.st_dev != device) {
            return Ok(false);
        }
        let is_old = changed_at(met.stat).is_some_and(|changed| changed < settled);
        let is_known = observed.known.contains(&path_hash(met.path));
        let mut unsettled = locked(&unsettled);
        let is_settled = is_old && !unsettled.contains(parent);
        let is_directory = stat_kind(met.stat) == Some(FileKind::Directory);
        if is_known {
            return Ok(is_directory);
        }
        if is_settled {
            let reason = "it was there before the backup began and is there still".to_owned();
            observed.problem(met.path, OutsideState::Omitted, reason);
            return Ok(false);
        }
        if is_directory {
            unsettled.insert(met.path.to_vec());
        }
        Ok(is_directory)
    };
    // What cannot be looked at here could not be read by the archive either, and was named then; or it is gone.
    let trouble = |_: &[u8], _: io::Error| Ok(());
    let named = root.as_os_str().as_bytes();
    Walk { at: root, named, visit: &visit, trouble: &trouble, watch }.run()
}

fn changed_at(stat: &Stat) -> Option<Timestamp> {
    Timestamp::new(stat_i64(stat.st_ctime)?, i32::try_from(stat.st_ctime_nsec).ok()?).ok()
}

/// The types of `stat` fields differ between architectures.
fn stat_i64(value: impl TryInto<i64>) -> Option<i64> {
    value.try_into().ok()
}

fn capture(source: &FilesSource, to: &dyn CopyWriter, watch: &Watch) -> Result<Captured, DriverError> {
    let options = source.options();
    for root in &source.roots {
        look_at_root(root)?;
    }
    let point = Timestamp::now();
    let observed = Mutex::new(Observed::default());
    let (seen, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut witness_took = Duration::ZERO;
    for root in &source.roots {
        watch.check()?;
        watch.progress(Progress::Phase(format!("archive {}", root.display())));
        to.tree(root, &options, &|entry| {
            let done = bytes.fetch_add(entry.size, Ordering::Relaxed) + entry.size;
            if seen.fetch_add(1, Ordering::Relaxed).is_multiple_of(256) {
                watch.progress(Progress::Bytes { done, total: None });
            }
            locked(&observed).take(entry, &source.spec);
        })?;
        let began = Instant::now();
        locked(&observed).finish_root();
        audit(root, point, &observed, source.spec.one_file_system, watch)?;
        witness_took += began.elapsed();
    }
    watch.check()?;
    let began = Instant::now();
    let observed = observed.into_inner().unwrap_or_else(PoisonError::into_inner);
    let manifest = Manifest::of(observed.done);
    let witness = FilesWitness {
        version: WITNESS_VERSION,
        roots: source.roots.iter().map(|root| escape(root.as_os_str().as_bytes())).collect(),
        exclude: source.spec.exclude.clone(),
        one_file_system: source.spec.one_file_system,
        may_be_empty: source.spec.may_be_empty,
        manifest: manifest.text,
        digest: manifest.digest,
        totals: manifest.totals,
        left_out: observed.left_out,
        left_out_count: observed.left_out_count,
        problems: observed.problems,
        problem_count: observed.problem_count,
        measured_by: None,
    };
    witness_took += began.elapsed();
    Ok(Captured {
        point,
        findings: findings(&witness),
        is_complete: witness.problem_count == 0,
        size_bytes: witness.totals.bytes,
        witness: Witness::Files(Box::new(witness)),
        witness_took,
    })
}

/// What a capture has to tell: every problem up to a bound, the rest by number.
fn findings(witness: &FilesWitness) -> Vec<Finding> {
    let mut problems: Vec<&Outside> = witness.problems.iter().collect();
    // The worst kinds are named first.
    problems.sort_by_key(|problem| match problem.state {
        OutsideState::Omitted => 0,
        OutsideState::Unreadable => 1,
        OutsideState::Torn => 2,
        OutsideState::Vanished | OutsideState::Excluded => 3,
    });
    let mut findings: Vec<Finding> =
        problems.iter().take(NAMED_MAX).map(|problem| problem.finding()).collect();
    let named = findings.len() as u64;
    if witness.problem_count > named
        && let Some(first) = problems.first()
    {
        let detail =
            format!("{} more entries are not in the copy for certain", witness.problem_count - named);
        findings.push(Finding::new(first.finding().code, "files", detail));
    }
    if witness.one_file_system {
        // Patterns say what they leave out; a mounted file system nobody named.
        let mounts = witness.left_out.iter().filter(|outside| outside.reason.contains("file system"));
        findings.extend(mounts.take(NAMED_MAX).map(Outside::finding));
    }
    for root in witness.empty_roots() {
        let detail = "holds nothing and is not declared `may_be_empty`";
        findings.push(Finding::new(FindingCode::PointImplausible, root, detail));
    }
    findings
}

fn probe(source: &FilesSource, watch: &Watch) -> Result<SourceFacts, DriverError> {
    let mut identity = Vec::new();
    let mut problems = Vec::new();
    let (bytes, entries) = (AtomicU64::new(0), AtomicU64::new(0));
    let began = Instant::now();
    let is_partial = AtomicBool::new(false);
    let unreadable: Mutex<Vec<Finding>> = Mutex::new(Vec::new());
    for root in &source.roots {
        let stat = look_at_root(root)?;
        identity.push(format!("{}:{}", stat.st_dev, stat.st_ino));
        if let Err(error) = rustix::fs::access(root, rustix::fs::Access::READ_OK) {
            problems.push(Finding::new(
                FindingCode::FileUnreadable,
                root.display().to_string(),
                io::Error::from(error).to_string(),
            ));
        }
        let visit = |met: &Met<'_>| {
            if began.elapsed() > PROBE_LIMIT {
                is_partial.store(true, Ordering::Relaxed);
                return Ok(false);
            }
            entries.fetch_add(1, Ordering::Relaxed);
            if stat_kind(met.stat) == Some(FileKind::File) {
                bytes.fetch_add(u64::try_from(met.stat.st_size).unwrap_or(0), Ordering::Relaxed);
            }
            Ok(!source.spec.one_file_system || met.stat.st_dev == stat.st_dev)
        };
        let trouble = |path: &[u8], error: io::Error| {
            let mut unreadable = locked(&unreadable);
            if unreadable.len() < NAMED_MAX {
                let subject = String::from_utf8_lossy(path).escape_debug().to_string();
                unreadable.push(Finding::new(FindingCode::FileUnreadable, subject, error.to_string()));
            }
            Ok(())
        };
        let named = root.as_os_str().as_bytes();
        Walk { at: root, named, visit: &visit, trouble: &trouble, watch }.run()?;
    }
    problems.extend(unreadable.into_inner().unwrap_or_else(PoisonError::into_inner));
    let (entries, bytes) = (entries.into_inner(), bytes.into_inner());
    let at_least = if is_partial.into_inner() { "at least " } else { "" };
    Ok(SourceFacts {
        summary: format!("{} trees, {at_least}{entries} entries, {bytes} bytes", source.roots.len()),
        identity: format!("files:{}", identity.join(",")),
        size_bytes: bytes,
        findings: problems,
    })
}

/// A root, and where a restore has put it.
#[derive(Debug, Clone)]
struct Placed {
    /// Its path on the source.
    root: Vec<u8>,
    /// Where it lies now.
    at: PathBuf,
}

impl Placed {
    /// The open directory and the name of an entry of the restore.
    fn find(&self, path: &[u8]) -> io::Result<Option<(OwnedFd, CString)>> {
        let Some(below) = path.strip_prefix(self.root.as_slice()) else { return Ok(None) };
        let (parent, name) = match below.strip_prefix(b"/") {
            Some(below) => {
                let cut = below.iter().rposition(|byte| *byte == b'/');
                let (above, name) = cut.map_or((&[][..], below), |cut| (&below[..cut], &below[cut + 1..]));
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let root = rustix::fs::openat(CWD, &self.at, flags, Mode::empty())?;
                (open_beneath(root.as_fd(), above)?, name.to_vec())
            }
            None if below.is_empty() => {
                let (Some(parent), Some(name)) = (self.at.parent(), self.at.file_name()) else {
                    return Ok(None);
                };
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                (rustix::fs::openat(CWD, parent, flags, Mode::empty())?, name.as_bytes().to_vec())
            }
            None => return Ok(None),
        };
        let name = CString::new(name).map_err(io::Error::other)?;
        Ok(Some((parent, name)))
    }
}

fn expect_files(witness: &Witness) -> Result<&FilesWitness, DriverError> {
    match witness {
        Witness::Files(witness) => Ok(witness),
        Witness::Postgres(_) | Witness::Sqlite(_) => Err(DriverError::new(
            ErrorKind::Refused,
            format!("restore a copy of kind {} as files", witness.kind()),
        )),
    }
}

/// Where each root shall lie: every one in a place of its own, so that restoring one never touches another.
fn places(
    witness: &FilesWitness,
    place: &dyn Fn(usize, &[u8]) -> PathBuf,
) -> Result<Vec<(Placed, FileKind)>, DriverError> {
    let mut kinds = BTreeMap::new();
    let roots: HashSet<&str> = witness.roots.iter().map(String::as_str).collect();
    for (line, entry) in witness.manifest.lines().zip(witness.entries()) {
        let entry =
            entry.map_err(|error| DriverError::new(ErrorKind::Corrupt, "read the witness").because(error))?;
        if line.rsplit('\t').next().is_some_and(|path| roots.contains(path)) {
            kinds.insert(entry.path, entry.kind);
        }
    }
    let mut placed = Vec::new();
    for (number, root) in witness.roots.iter().enumerate() {
        let refused = || DriverError::new(ErrorKind::Refused, format!("restore `{root}`"));
        let root = unescape(root).ok_or_else(refused)?;
        // A root that could not be read has nothing to restore; the check of the scope says so.
        let Some(kind) = kinds.get(&root) else { continue };
        let inside = root.strip_prefix(b"/").and_then(CopyPath::new).ok_or_else(refused)?;
        placed.push((Placed { at: place(number, inside.as_bytes()), root }, *kind));
    }
    Ok(placed)
}

fn restore_to(
    from: &dyn CopyReader,
    placed: &[(Placed, FileKind)],
    watch: &Watch,
) -> Result<Written, DriverError> {
    let mut written = Written::default();
    for (placed, kind) in placed {
        watch.check()?;
        let refused =
            || DriverError::new(ErrorKind::Refused, format!("restore to `{}`", placed.at.display()));
        let inside = placed.root.strip_prefix(b"/").and_then(CopyPath::new).ok_or_else(refused)?;
        let into = match kind {
            FileKind::Directory => placed.at.as_path(),
            FileKind::File
            | FileKind::Symlink
            | FileKind::Fifo
            | FileKind::CharDevice
            | FileKind::BlockDevice => placed.at.parent().ok_or_else(refused)?,
        };
        fs::create_dir_all(into).map_err(failed("make", into))?;
        let part = from.restore(&inside, into, &BTreeSet::new())?;
        written.files += part.files;
        written.bytes += part.bytes;
    }
    Ok(written)
}

/// Measures restored trees the way their source was measured.
fn observe(expected: &FilesWitness, placed: &[Placed], watch: &Watch) -> Result<FilesWitness, DriverError> {
    let corrupt = |error| DriverError::new(ErrorKind::Corrupt, "read the witness").because(error);
    let mut cuts: HashMap<Vec<u8>, CutList> = HashMap::new();
    for entry in expected.entries() {
        let entry = entry.map_err(corrupt)?;
        // A file of one piece needs no cuts, and most files are.
        if let Some(content) = entry.content.filter(|content| content.cuts.lengths().next().is_some()) {
            cuts.insert(entry.path, content.cuts);
        }
    }
    let keeps_attributes = AtomicBool::new(true);
    let problems: Mutex<Vec<Outside>> = Mutex::new(Vec::new());
    let done = AtomicU64::new(0);
    let mut entries = Vec::new();
    for placed in placed {
        let found: Mutex<Vec<Found>> = Mutex::new(Vec::new());
        let trouble = |path: &[u8], error: io::Error| {
            if error.kind() != io::ErrorKind::NotFound {
                let reason = error.to_string();
                locked(&problems).push(Outside {
                    path: escape(path),
                    state: OutsideState::Unreadable,
                    reason,
                });
            }
            Ok(())
        };
        let visit = |met: &Met<'_>| {
            match measure(met, cuts.get(met.path), &keeps_attributes, watch) {
                Ok(Some(entry)) => {
                    let is_linked = entry.kind == FileKind::File && met.stat.st_nlink > 1;
                    let bytes = entry.content.as_ref().map_or(0, |content| content.size);
                    let all = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
                    watch.progress(Progress::Bytes { done: all, total: Some(expected.totals.bytes) });
                    locked(&found).push((entry, is_linked.then_some((met.stat.st_dev, met.stat.st_ino))));
                }
                // A socket in a restore is nothing that was stored.
                Ok(None) => {}
                Err(MeasureError::Stopped(error)) => return Err(error),
                Err(MeasureError::Io(error)) => trouble(met.path, error)?,
            }
            Ok(true)
        };
        Walk { at: &placed.at, named: &placed.root, visit: &visit, trouble: &trouble, watch }.run()?;
        entries.extend(with_groups(found.into_inner().unwrap_or_else(PoisonError::into_inner)));
    }
    let problems = problems.into_inner().unwrap_or_else(PoisonError::into_inner);
    let manifest = Manifest::of(entries);
    Ok(FilesWitness {
        version: WITNESS_VERSION,
        roots: expected.roots.clone(),
        exclude: expected.exclude.clone(),
        one_file_system: expected.one_file_system,
        may_be_empty: expected.may_be_empty,
        manifest: manifest.text,
        digest: manifest.digest,
        totals: manifest.totals,
        left_out: Vec::new(),
        left_out_count: 0,
        problem_count: problems.len() as u64,
        problems,
        measured_by: Some(MeasuredBy {
            uid: rustix::process::geteuid().as_raw(),
            keeps_attributes: keeps_attributes.into_inner(),
        }),
    })
}

enum MeasureError {
    Io(io::Error),
    Stopped(DriverError),
}

impl From<io::Error> for MeasureError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<rustix::io::Errno> for MeasureError {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Io(error.into())
    }
}

fn measure(
    met: &Met<'_>,
    cuts: Option<&CutList>,
    keeps_attributes: &AtomicBool,
    watch: &Watch,
) -> Result<Option<FileEntry>, MeasureError> {
    let stat = met.stat;
    let Some(kind) = stat_kind(stat) else { return Ok(None) };
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
    let content = match kind {
        FileKind::File => Some(read_content(met, cuts, watch)?),
        FileKind::Directory
        | FileKind::Symlink
        | FileKind::Fifo
        | FileKind::CharDevice
        | FileKind::BlockDevice => None,
    };
    let link = match kind {
        FileKind::Symlink => {
            Link::Target(rustix::fs::readlinkat(met.directory, met.name, Vec::new())?.into_bytes())
        }
        FileKind::CharDevice | FileKind::BlockDevice => Link::Device(stat.st_rdev),
        FileKind::File | FileKind::Directory | FileKind::Fifo => Link::None,
    };
    Ok(Some(FileEntry {
        path: met.path.to_vec(),
        kind,
        mode: if kind == FileKind::Symlink { 0 } else { stat.st_mode & 0o7777 },
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (stat_i64(stat.st_mtime).unwrap_or(i64::MIN), u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        content,
        link,
        attributes: attributes(read_attributes(met, keeps_attributes)?),
        has_holes: kind == FileKind::File && has_holes(size, blocks),
    }))
}

fn read_content(met: &Met<'_>, cuts: Option<&CutList>, watch: &Watch) -> Result<Content, MeasureError> {
    // Non-blocking: should the name have become a pipe, opening it must not wait for a writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat(met.directory, met.name, flags, Mode::empty())?;
    let mut content = Measure::new(cuts);
    // One buffer for each file, no larger than it: most files are small.
    let size = usize::try_from(met.stat.st_size).unwrap_or(usize::MAX);
    let mut buffer = vec![0; size.clamp(1, 1 << 20)];
    loop {
        watch.check().map_err(|stop| MeasureError::Stopped(stop.into()))?;
        match rustix::io::read(&file, &mut buffer)? {
            0 => return Ok(content.finish()),
            read => content.feed(&buffer[..read]),
        }
    }
}

fn read_attributes(met: &Met<'_>, keeps: &AtomicBool) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    // By way of the open directory: nothing above it is looked up again, and the last component is not followed.
    let mut path = format!("/proc/self/fd/{}/", met.directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(met.name.to_bytes());
    let path = Path::new(OsStr::from_bytes(&path));
    let names = match xattr::list(path) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            keeps.store(false, Ordering::Relaxed);
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for name in names {
        if let Some(value) = xattr::get(path, &name)? {
            found.push((name.into_vec(), value));
        }
    }
    Ok(found)
}

#[async_trait]
impl Source for FilesSource {
    async fn probe(&self, cx: &Cx) -> Result<SourceFacts, DriverError> {
        let source = self.clone();
        blocking(&cx.within(Duration::from_secs(10)), move |watch| probe(&source, watch)).await
    }

    async fn capture(&self, cx: &Cx, to: Arc<dyn CopyWriter>) -> Result<Captured, DriverError> {
        let source = self.clone();
        blocking(cx, move |watch| capture(&source, to.as_ref(), watch)).await
    }

    async fn restore(
        &self,
        cx: &Cx,
        witness: &Witness,
        from: Arc<dyn CopyReader>,
        into: Arc<dyn Sandbox>,
    ) -> Result<Box<dyn Restored>, DriverError> {
        let expected = expect_files(witness)?.clone();
        let base = into.root().join("files");
        // The tree is not given to the sandbox's user: its owners are part of what is compared.
        let placed = blocking(cx, move |watch| {
            let place =
                |number: usize, inside: &[u8]| base.join(number.to_string()).join(OsStr::from_bytes(inside));
            let placed = places(&expected, &place)?;
            restore_to(from.as_ref(), &placed, watch)?;
            Ok(placed.into_iter().map(|(placed, _)| placed).collect::<Vec<_>>())
        })
        .await?;
        Ok(Box::new(RestoredFiles { placed, sandbox: into }))
    }

    async fn deliver(
        &self,
        cx: &Cx,
        witness: &Witness,
        from: Arc<dyn CopyReader>,
        to: &NewTarget,
    ) -> Result<Delivered, DriverError> {
        let expected = expect_files(witness)?.clone();
        let directory = match to {
            NewTarget::Directory(directory) => directory.clone(),
            NewTarget::Database { database, .. } => {
                let context = format!("restore files into database {database}");
                return Err(DriverError::new(ErrorKind::Unsupported, context)
                    .hint("files are restored to a new directory: --to DIRECTORY"));
            }
        };
        blocking(cx, move |watch| deliver(&expected, from.as_ref(), &directory, watch)).await
    }
}

fn deliver(
    expected: &FilesWitness,
    from: &dyn CopyReader,
    directory: &Path,
    watch: &Watch,
) -> Result<Delivered, DriverError> {
    // As it will be opened: a target given through a symbolic link is still the directory that it leads to.
    fs::create_dir_all(directory).map_err(failed("make", directory))?;
    let directory = &fs::canonicalize(directory).map_err(failed("look at", directory))?;
    if fs::read_dir(directory).map_err(failed("list", directory))?.next().is_some() {
        return Err(DriverError::new(ErrorKind::Conflict, format!("restore into `{}`", directory.display()))
            .code(FindingCode::LiveTarget)
            .hint("it holds something: name a directory that is new or empty"));
    }
    let is_single = expected.roots.len() == 1;
    let place = |_: usize, inside: &[u8]| directory.join(OsStr::from_bytes(inside));
    let mut placed = places(expected, &place)?;
    if is_single {
        // One tree becomes the directory itself; one file lies in it; several keep their paths below it.
        for (placed, kind) in &mut placed {
            placed.at = match (*kind, placed.at.file_name()) {
                (FileKind::Directory, _) | (_, None) => directory.clone(),
                (_, Some(name)) => directory.join(name),
            };
        }
    }
    let written = restore_to(from, &placed, watch)?;
    let placed: Vec<Placed> = placed.into_iter().map(|(placed, _)| placed).collect();
    let observed = observe(expected, &placed, watch)?;
    let findings: Vec<Finding> =
        expected.compare(&observed).into_iter().flat_map(|report| report.findings).collect();
    let verdict = if findings.is_empty() { "equal to its witness" } else { "NOT equal to its witness" };
    Ok(Delivered {
        written,
        summary: format!("{}: {} entries, {verdict}", directory.display(), observed.totals.entries),
        findings,
    })
}

/// Trees of files restored into a sandbox.
#[derive(Debug)]
struct RestoredFiles {
    placed: Vec<Placed>,
    sandbox: Arc<dyn Sandbox>,
}

fn answered(name: &str, outcome: CheckOutcome, detail: impl Into<String>, code: FindingCode) -> CheckReport {
    let detail = detail.into();
    let findings = match outcome {
        CheckOutcome::Passed => Vec::new(),
        CheckOutcome::Failed | CheckOutcome::Inconclusive => vec![Finding::new(code, name, detail.clone())],
    };
    CheckReport { name: name.to_owned(), outcome, detail, findings }
}

#[async_trait]
impl Restored for RestoredFiles {
    fn summary(&self) -> String {
        format!("{} trees of files below {}", self.placed.len(), self.sandbox.root().display())
    }

    fn findings(&self) -> Vec<Finding> {
        Vec::new()
    }

    fn engine_identity(&self) -> Option<String> {
        None
    }

    async fn witness(&self, cx: &Cx, expected: &Witness) -> Result<Witness, DriverError> {
        let expected = expect_files(expected)?.clone();
        let placed = self.placed.clone();
        let observed = blocking(cx, move |watch| observe(&expected, &placed, watch)).await?;
        Ok(Witness::Files(Box::new(observed)))
    }

    async fn newest(&self, cx: &Cx) -> Result<Option<Timestamp>, DriverError> {
        let placed = self.placed.clone();
        blocking(cx, move |watch| {
            let newest: Mutex<Option<Timestamp>> = Mutex::new(None);
            for placed in &placed {
                let visit = |met: &Met<'_>| {
                    if stat_kind(met.stat) == Some(FileKind::File) {
                        let nanos = i32::try_from(met.stat.st_mtime_nsec).unwrap_or(0);
                        let seconds = stat_i64(met.stat.st_mtime);
                        let modified = seconds.and_then(|seconds| Timestamp::new(seconds, nanos).ok());
                        let mut newest = locked(&newest);
                        *newest = (*newest).max(modified);
                    }
                    Ok(true)
                };
                let trouble = |path: &[u8], error: io::Error| {
                    Err(failed("look at", Path::new(OsStr::from_bytes(path)))(error))
                };
                Walk { at: &placed.at, named: &placed.root, visit: &visit, trouble: &trouble, watch }
                    .run()?;
            }
            Ok(newest.into_inner().unwrap_or_else(PoisonError::into_inner))
        })
        .await
    }

    async fn answer(
        &self,
        cx: &Cx,
        check: &UserCheck,
        _point: Timestamp,
    ) -> Result<CheckReport, DriverError> {
        let name = format!("user:{}", check.name);
        let inconclusive =
            |detail: &str| answered(&name, CheckOutcome::Inconclusive, detail, FindingCode::EnvOther);
        match &check.question {
            Question::Command { argv } => {
                let limit = Duration::try_from(check.timeout).unwrap_or(Duration::ZERO);
                let env = self.placed.iter().enumerate().map(|(number, placed)| {
                    (format!("SEAWORTHY_ROOT_{number}"), placed.at.display().to_string())
                });
                let exec = Exec {
                    argv: argv.clone(),
                    env: env.collect(),
                    cwd: Some(self.sandbox.root().to_owned()),
                    stdin: None,
                    output_bytes_max: 64 << 10,
                };
                match self.sandbox.exec(&cx.within(limit), exec).await {
                    Ok(ended) => {
                        let outcome =
                            if ended.status == 0 { CheckOutcome::Passed } else { CheckOutcome::Failed };
                        let detail = format!("ended with status {}", ended.status);
                        Ok(answered(&name, outcome, detail, FindingCode::CheckFailed))
                    }
                    Err(error) if matches!(error.kind, ErrorKind::Stopped(_)) => {
                        cx.check()?;
                        let detail = format!("took longer than {limit:?}");
                        Ok(answered(&name, CheckOutcome::Inconclusive, detail, FindingCode::EnvTimeout))
                    }
                    Err(error) => Err(error),
                }
            }
            Question::Http { .. } => Ok(inconclusive("files have no service that answers requests")),
            Question::Sql { .. }
            | Question::MinimumRows { .. }
            | Question::Freshness { .. }
            | Question::Migration { .. } => {
                Ok(inconclusive("a question for a database, and these are files"))
            }
        }
    }

    async fn write_probe(&self, cx: &Cx) -> Result<CheckReport, DriverError> {
        let placed = self.placed.clone();
        blocking(cx, move |_| {
            for placed in &placed {
                let directory = match placed.at.symlink_metadata() {
                    Ok(metadata) if metadata.is_dir() => placed.at.as_path(),
                    Ok(_) => placed.at.parent().unwrap_or(&placed.at),
                    Err(error) => return Ok(probe_failed(&error)),
                };
                if let Err(error) = write_and_undo(directory) {
                    return Ok(probe_failed(&error));
                }
            }
            let detail = "a file was made, written, renamed, read back and removed in every root";
            let outcome = if placed.is_empty() { CheckOutcome::Inconclusive } else { CheckOutcome::Passed };
            Ok(answered("write-probe", outcome, detail, FindingCode::NothingChecked))
        })
        .await
    }

    async fn damage(&self, cx: &Cx, expected: &Witness, seed: u64) -> Result<Damage, DriverError> {
        let expected = expect_files(expected)?.clone();
        let placed = self.placed.clone();
        blocking(cx, move |_| damage(&expected, &placed, seed)).await
    }

    async fn close(self: Box<Self>, _cx: &Cx) -> Result<(), DriverError> {
        // Nothing runs; the sandbox removes the files.
        Ok(())
    }
}

fn probe_failed(error: &io::Error) -> CheckReport {
    let is_permission =
        error.kind() == io::ErrorKind::PermissionDenied && !rustix::process::geteuid().is_root();
    let (outcome, code) = if is_permission {
        (CheckOutcome::Inconclusive, FindingCode::EnvPermission)
    } else {
        (CheckOutcome::Failed, FindingCode::FileMetadata)
    };
    answered("write-probe", outcome, error.to_string(), code)
}

/// Makes, writes, renames, reads and removes a file; the directory's times are put back.
fn write_and_undo(directory: &Path) -> io::Result<()> {
    const WORDS: &[u8] = b"afloat\n";
    let before = rustix::fs::lstat(directory)?;
    let nonce = getrandom::u64().map_err(io::Error::other)?;
    let first = directory.join(format!(".seaworthy-write-probe-{nonce:016x}"));
    let second = directory.join(format!(".seaworthy-write-probe-{nonce:016x}.renamed"));
    let attempt = || -> io::Result<bool> {
        let mut file = fs::File::create_new(&first)?;
        io::Write::write_all(&mut file, WORDS)?;
        file.sync_all()?;
        fs::rename(&first, &second)?;
        Ok(fs::read(&second)? == WORDS)
    };
    let outcome = attempt();
    for path in [&first, &second] {
        match fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    set_times(CWD, directory, &before)?;
    match outcome? {
        true => Ok(()),
        false => Err(io::Error::other("what was written was not read back")),
    }
}

fn set_times(directory: impl AsFd, name: impl rustix::path::Arg, stat: &Stat) -> io::Result<()> {
    let time = |seconds: Option<i64>, nanos: Option<i64>| Timespec {
        tv_sec: seconds.unwrap_or(0),
        tv_nsec: nanos.unwrap_or(0),
    };
    let times = Timestamps {
        last_access: time(stat_i64(stat.st_atime), stat_i64(stat.st_atime_nsec)),
        last_modification: time(stat_i64(stat.st_mtime), stat_i64(stat.st_mtime_nsec)),
    };
    Ok(rustix::fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Kinds of damage, each with the check that must notice it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Harm {
    Flip,
    Delete,
    Chmod,
    Retarget,
    Split,
}

impl Harm {
    fn applies(self, entry: &FileEntry) -> bool {
        let is_file = entry.kind == FileKind::File;
        match self {
            Self::Flip => is_file && entry.content.as_ref().is_some_and(|content| content.size > 0),
            Self::Delete | Self::Chmod => is_file,
            Self::Retarget => entry.kind == FileKind::Symlink,
            // Not the first of its group: that one leaving would rename the whole group.
            Self::Split => matches!(&entry.link, Link::Group(first) if *first != entry.path),
        }
    }

    fn code(self) -> FindingCode {
        match self {
            Self::Flip => FindingCode::FileContent,
            Self::Delete => FindingCode::FileMissing,
            Self::Chmod => FindingCode::FileMetadata,
            Self::Retarget => FindingCode::FileType,
            Self::Split => FindingCode::FileLinks,
        }
    }
}

/// splitmix64: the receipt's seed gives the same damage again.
fn roll(state: &mut u64, sides: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % sides.max(1)
}

fn damage(expected: &FilesWitness, placed: &[Placed], seed: u64) -> Result<Damage, DriverError> {
    let mut dice = seed;
    let mut candidates: BTreeMap<Harm, u64> = BTreeMap::new();
    let corrupt = |error| DriverError::new(ErrorKind::Corrupt, "read the witness").because(error);
    for entry in expected.entries() {
        let entry = entry.map_err(corrupt)?;
        for harm in [Harm::Flip, Harm::Delete, Harm::Chmod, Harm::Retarget, Harm::Split] {
            *candidates.entry(harm).or_default() += u64::from(harm.applies(&entry));
        }
    }
    candidates.retain(|_, count| *count > 0);
    let turn = usize::try_from(roll(&mut dice, candidates.len() as u64)).unwrap_or(0);
    let Some((harm, count)) = candidates.into_iter().nth(turn) else {
        return add_file(placed);
    };
    let mut left = roll(&mut dice, count);
    for entry in expected.entries() {
        let entry = entry.map_err(corrupt)?;
        if !harm.applies(&entry) {
            continue;
        }
        if left > 0 {
            left -= 1;
            continue;
        }
        let wrong = |error| DriverError::io(format!("damage `{}`", entry.path.escape_ascii()), error);
        for placed in placed {
            let Some((directory, name)) = placed.find(&entry.path).map_err(wrong)? else { continue };
            let description = inflict(harm, &directory, &name, &mut dice).map_err(wrong)?;
            return Ok(Damage {
                description: format!("{description} `{}`", escape(&entry.path)),
                expected: vec![harm.code()],
            });
        }
        return Err(DriverError::new(ErrorKind::NotFound, format!("damage `{}`", escape(&entry.path))));
    }
    add_file(placed)
}

/// Where there is nothing to damage, something that does not belong there will do.
fn add_file(placed: &[Placed]) -> Result<Damage, DriverError> {
    let Some(first) = placed.first() else {
        return Err(DriverError::new(ErrorKind::NotFound, "damage a restore that holds nothing"));
    };
    let path = first.at.join("seaworthy-was-here");
    fs::File::create_new(&path).map_err(failed("make", &path))?;
    Ok(Damage {
        description: "added a file to a tree without any".to_owned(),
        expected: vec![FindingCode::FileMissing],
    })
}

/// Does one harm, and leaves every time as it was: only the check that is meant may notice.
fn inflict(harm: Harm, directory: &OwnedFd, name: &CString, dice: &mut u64) -> io::Result<&'static str> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let above = rustix::fs::fstat(directory)?;
    let owner = (Some(rustix::fs::Uid::from_raw(stat.st_uid)), Some(rustix::fs::Gid::from_raw(stat.st_gid)));
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let description = match harm {
        Harm::Flip => {
            let file = open_writable(directory, name, mode)?;
            let offset = roll(dice, u64::try_from(stat.st_size).unwrap_or(0));
            let mut byte = [0];
            rustix::io::pread(&file, &mut byte, offset)?;
            byte[0] ^= 1 << roll(dice, 8);
            rustix::io::pwrite(&file, &byte, offset)?;
            rustix::fs::fchmod(&file, mode)?;
            "flipped a bit, keeping size and time, of"
        }
        Harm::Delete => {
            rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
            "deleted"
        }
        Harm::Chmod => {
            let other = Mode::from_raw_mode((stat.st_mode & 0o7777) ^ 0o040);
            rustix::fs::chmodat(directory, name, other, AtFlags::empty())?;
            "changed the mode of"
        }
        Harm::Retarget => {
            let mut target = rustix::fs::readlinkat(directory, name, Vec::new())?.into_bytes();
            target.push(b'~');
            rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
            rustix::fs::symlinkat(target.as_slice(), directory, name)?;
            "retargeted"
        }
        Harm::Split => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut source = fs::File::from(rustix::fs::openat(directory, name, flags, Mode::empty())?);
            rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let created = rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?;
            let mut target = fs::File::from(created);
            io::copy(&mut source, &mut target)?;
            rustix::fs::fchmod(&target, mode)?;
            "split from its hard links"
        }
    };
    match harm {
        Harm::Retarget | Harm::Split => {
            let changed = rustix::fs::chownat(directory, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW);
            match changed {
                Ok(()) => {}
                Err(rustix::io::Errno::PERM) if !rustix::process::geteuid().is_root() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Harm::Flip | Harm::Delete | Harm::Chmod => {}
    }
    if harm != Harm::Delete {
        set_times(directory, name, &stat)?;
    }
    set_times(directory, c".", &above)?;
    Ok(description)
}

/// Opens a file of ours for writing, whatever its mode says.
fn open_writable(directory: &OwnedFd, name: &CString, mode: Mode) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Err(rustix::io::Errno::ACCESS) => {
            rustix::fs::chmodat(directory, name, mode | Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
            Ok(rustix::fs::openat(directory, name, flags, Mode::empty())?)
        }
        opened => Ok(opened?),
    }
}
