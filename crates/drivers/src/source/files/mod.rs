//! Trees of files: archived as the writer sees them, audited by a second look, measured again after a restore.
//!
//! The content's digests come from the pieces that were stored, so that nothing is read twice. What the archive holds is
//! not taken on trust: a second walk, of names and inodes only, looks for entries that were there before the archive
//! began and are there still, and that it does not know. What could not be read, or changed under the reader, makes the
//! run incomplete and is named.
//!
//! A restored tree is hostile: it is walked by descriptors, symbolic links are never followed, devices are never opened.
//! Labels that the kernel's own policy sets (SELinux, IMA, EVM) belong to a place, not to a file, and are not compared.

mod capture;
mod compare;
mod damage;
mod links;
mod ordered;
mod sorted;
mod walk;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use rustix::fs::{AtFlags, CWD, FileType, Stat, Timespec, Timestamps};
use rustix::io::Errno;
use seaworthy_interface::copy::Written;
use seaworthy_interface::{
    Captured, CopyPath, CopyReader, CopyWriter, Cx, Damage, Delivered, DriverError, EntryKind, ErrorKind,
    Exec, NewTarget, Restored, Restoring, Sandbox, Source, SourceFacts, TreeOptions,
};
use seaworthy_model::check::{Question, UserCheck};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::source::FilesSpec;
use seaworthy_model::verdict::{CheckOutcome, CheckReport};
use seaworthy_model::witness::content::hex;
use seaworthy_model::witness::files::{FileKind, unescape};
use seaworthy_model::witness::{FilesWitness, Witness};
use sha2::{Digest as _, Sha256};

use self::walk::{Met, Place, Walk};
use super::blocking::{Watch, blocking};

/// Findings of a capture that name an entry each; the rest is counted in one more.
const NAMED_MAX: usize = 20;

/// How long a probe may walk to estimate a size.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// Trees of files as a source.
#[derive(Debug, Clone)]
pub struct FilesSource {
    spec: FilesSpec,
    roots: Vec<PathBuf>,
    scratch: PathBuf,
}

impl FilesSource {
    /// The trees that `spec` names.
    ///
    /// Roots are absolute, are not `/` itself, hold no `..`, and lie in one another only where file systems are not
    /// left; else the same file would be archived twice. Lists that are longer than memory should hold are sorted below
    /// `scratch`, in files without names.
    pub fn new(spec: FilesSpec, scratch: impl Into<PathBuf>) -> Result<Self, DriverError> {
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
        Ok(Self { spec, roots, scratch: scratch.into() })
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

/// The types of `stat` fields differ between architectures.
fn stat_i64(value: impl TryInto<i64>) -> Option<i64> {
    value.try_into().ok()
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
        log_bytes_per_hour: None,
        findings: problems,
    })
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
) -> Result<Vec<(Place, FileKind)>, DriverError> {
    let mut placed = Vec::new();
    for (number, (root, held)) in witness.roots.iter().zip(witness.held()).enumerate() {
        let refused = || DriverError::new(ErrorKind::Refused, format!("restore `{root}`"));
        let root = unescape(root).ok_or_else(refused)?;
        // A root that could not be read has nothing to restore; the check of the scope says so.
        let Some(kind) = held.kind else { continue };
        let inside = root.strip_prefix(b"/").and_then(CopyPath::new).ok_or_else(refused)?;
        placed.push((Place { at: place(number, inside.as_bytes()), root }, kind));
    }
    Ok(placed)
}

fn restoring(witness: &FilesWitness) -> Restoring {
    Restoring { keeps_holes: witness.totals.sparse > 0, ..Restoring::default() }
}

fn restore_to(
    from: &dyn CopyReader,
    placed: &[(Place, FileKind)],
    how: &Restoring,
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
        let part = from.restore(&inside, into, how)?;
        written.files += part.files;
        written.bytes += part.bytes;
    }
    Ok(written)
}

#[async_trait]
impl Source for FilesSource {
    async fn probe(&self, cx: &Cx) -> Result<SourceFacts, DriverError> {
        let source = self.clone();
        blocking(&cx.within(Duration::from_secs(10)), move |watch| probe(&source, watch)).await
    }

    async fn capture(&self, cx: &Cx, to: Arc<dyn CopyWriter>) -> Result<Captured, DriverError> {
        let source = self.clone();
        blocking(cx, move |watch| capture::capture(&source, to.as_ref(), watch)).await
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
        let copy = Arc::clone(&from);
        // The tree is not given to the sandbox's user: its owners are part of what is compared.
        let placed = blocking(cx, move |watch| {
            let place =
                |number: usize, inside: &[u8]| base.join(number.to_string()).join(OsStr::from_bytes(inside));
            let placed = places(&expected, &place)?;
            restore_to(from.as_ref(), &placed, &restoring(&expected), watch)?;
            Ok(placed.into_iter().map(|(placed, _)| placed).collect::<Vec<_>>())
        })
        .await?;
        Ok(Box::new(RestoredFiles { placed, sandbox: into, copy, scratch: self.scratch.clone() }))
    }

    fn old_places(&self, witness: &Witness, old: &Path) -> Vec<(CopyPath, PathBuf)> {
        let Ok(expected) = expect_files(witness) else { return Vec::new() };
        let place = |_: usize, inside: &[u8]| old.join(OsStr::from_bytes(inside));
        let Ok(placed) = places(expected, &place) else { return Vec::new() };
        let is_single = placed.len() == 1;
        let part = |(placed, kind): (Place, FileKind)| {
            // As it is delivered: one tree is the directory itself, several keep their paths below it.
            let at = match kind {
                _ if is_single => old.to_path_buf(),
                FileKind::Directory => placed.at.clone(),
                _ => placed.at.parent()?.to_path_buf(),
            };
            Some((placed.root.strip_prefix(b"/").and_then(CopyPath::new)?, at))
        };
        placed.into_iter().filter_map(part).collect()
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
        let scratch = self.scratch.clone();
        blocking(cx, move |watch| deliver(&expected, from.as_ref(), &directory, &scratch, watch)).await
    }
}

fn deliver(
    expected: &FilesWitness,
    from: &dyn CopyReader,
    directory: &Path,
    scratch: &Path,
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
    let written = restore_to(from, &placed, &restoring(expected), watch)?;
    let placed: Vec<Place> = placed.into_iter().map(|(placed, _)| placed).collect();
    let (reports, entries) = compare::compare(expected, from, &placed, scratch, watch)?;
    let findings: Vec<Finding> = reports.into_iter().flat_map(|report| report.findings).collect();
    let verdict = if findings.is_empty() { "equal to its witness" } else { "NOT equal to its witness" };
    Ok(Delivered {
        written,
        summary: format!("{}: {entries} entries, {verdict}", directory.display()),
        findings,
    })
}

/// Trees of files restored into a sandbox.
struct RestoredFiles {
    placed: Vec<Place>,
    sandbox: Arc<dyn Sandbox>,
    /// The copy, which holds the manifest.
    copy: Arc<dyn CopyReader>,
    scratch: PathBuf,
}

impl std::fmt::Debug for RestoredFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestoredFiles").field("placed", &self.placed).finish_non_exhaustive()
    }
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

    async fn compare(&self, cx: &Cx, expected: &Witness) -> Result<Vec<CheckReport>, DriverError> {
        let expected = expect_files(expected)?.clone();
        let (placed, copy, scratch) = (self.placed.clone(), Arc::clone(&self.copy), self.scratch.clone());
        blocking(cx, move |watch| Ok(compare::compare(&expected, copy.as_ref(), &placed, &scratch, watch)?.0))
            .await
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
        let (placed, copy) = (self.placed.clone(), Arc::clone(&self.copy));
        blocking(cx, move |watch| damage::damage(&expected, copy.as_ref(), &placed, seed, watch)).await
    }

    async fn close(self: Box<Self>, _cx: &Cx) -> Result<(), DriverError> {
        // Nothing runs; the sandbox removes the files.
        Ok(())
    }
}

/// A restore that nobody can write to is wrong; a machine that has no room, or fails, says nothing of it.
fn probe_failed(error: &io::Error) -> CheckReport {
    let is_permission =
        error.kind() == io::ErrorKind::PermissionDenied && !rustix::process::geteuid().is_root();
    let (outcome, code) = match Errno::from_io_error(error) {
        _ if is_permission => (CheckOutcome::Inconclusive, FindingCode::EnvPermission),
        Some(Errno::NOSPC | Errno::DQUOT) => (CheckOutcome::Inconclusive, FindingCode::EnvDisk),
        Some(
            Errno::ROFS | Errno::IO | Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::INTR | Errno::AGAIN,
        ) => (CheckOutcome::Inconclusive, FindingCode::EnvOther),
        Some(_) | None => (CheckOutcome::Failed, FindingCode::FileMetadata),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_cannot_do_is_no_fault_of_the_restore() {
        let of = |errno: Errno| {
            let report = probe_failed(&io::Error::from(errno));
            (report.outcome, report.findings[0].code)
        };
        for errno in [Errno::NOSPC, Errno::DQUOT] {
            assert_eq!(of(errno), (CheckOutcome::Inconclusive, FindingCode::EnvDisk));
        }
        for errno in
            [Errno::ROFS, Errno::IO, Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::INTR, Errno::AGAIN]
        {
            assert_eq!(of(errno), (CheckOutcome::Inconclusive, FindingCode::EnvOther));
        }
        for errno in [Errno::NOTDIR, Errno::NOENT, Errno::LOOP] {
            assert_eq!(of(errno), (CheckOutcome::Failed, FindingCode::FileMetadata));
        }
    }
}
