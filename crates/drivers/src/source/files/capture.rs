//! The capture: archive every root, look a second time, and write the manifest into the copy in order of path.
//!
//! What the archive reports comes in no order and is more than memory holds. It is sorted on disk, joined with the groups
//! of hard links and with a second walk over the names that are there now, and streamed into the copy.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat};
use seaworthy_interface::copy::{EntryState, LeftOut};
use seaworthy_interface::{
    Captured, CopyPath, CopyWriter, Cuts, DriverError, ErrorKind, Progress, TreeEntry,
};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::source::FilesSpec;
use seaworthy_model::witness::content::Content;
use seaworthy_model::witness::files::{
    FileEntry, FileKind, LISTED_MAX, Link, MANIFEST_PATH, ManifestBuilder, ManifestFacts, Outside,
    OutsideState, escape,
};
use seaworthy_model::witness::{FilesWitness, Witness};

use super::links::{self, Inode};
use super::sorted::{Keyed, Sorted, Sorter, path_key, path_of};
use super::walk::{Below, Merged, Ordered, Place, Step, open_beneath};
use super::{
    FilesSource, NAMED_MAX, Watch, attributes, file_kind, has_holes, locked, look_at_root, stat_i64,
};

/// Version of the witness's shape and of how content is measured.
const WITNESS_VERSION: u32 = 2;

/// An entry whose inode changed this shortly before an archive began may be new to it: coarser than any kernel's clock.
const SETTLED: Duration = Duration::from_millis(100);

/// Lines of the manifest are handed to the copy in parts of this many bytes.
const PART_BYTES: usize = 256 << 10;

/// What the archive reports, gathered from whichever thread reports it.
struct Observed {
    /// Every path that the archive knows, as a key, and the line of what is stored.
    known: Sorter,
    /// Files with more than one link.
    links: Sorter,
    /// Number of the root that is being archived.
    root: usize,
    left_out: Vec<Outside>,
    left_out_count: u64,
    /// Of what is left out, the mounted file systems, which nobody has named; at most [`NAMED_MAX`] of them.
    mounted: Vec<Outside>,
    problems: Vec<Outside>,
    problem_count: u64,
    /// The first thing that could not be kept.
    error: Option<DriverError>,
}

impl Observed {
    fn new(source: &FilesSource) -> Self {
        Self {
            known: Sorter::new(&source.scratch),
            links: Sorter::new(&source.scratch),
            root: 0,
            left_out: Vec::new(),
            left_out_count: 0,
            mounted: Vec::new(),
            problems: Vec::new(),
            problem_count: 0,
            error: None,
        }
    }

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

    /// What is mounted on a directory is left out where that was declared, and is named: no pattern says what it is.
    fn leave_out_mounted(&mut self, path: &[u8], spec: &FilesSpec) {
        if !spec.one_file_system {
            let reason = "another file system is mounted there, and was left out though nothing was declared";
            self.problem(path, OutsideState::Omitted, reason.to_owned());
            return;
        }
        let reason = "another file system is mounted there, of which nothing is in the copy".to_owned();
        if self.mounted.len() < NAMED_MAX {
            let state = OutsideState::Excluded;
            self.mounted.push(Outside { path: escape(path), state, reason: reason.clone() });
        }
        self.leave_out(path, reason);
    }

    fn take(&mut self, entry: TreeEntry, spec: &FilesSpec) {
        if let Err(error) = self.keep(entry, spec) {
            self.error.get_or_insert(error);
        }
    }

    /// Keeps that a path is known and not in the copy; a directory is then not entered by the second look either.
    fn outside(&mut self, path: &[u8]) -> Result<(), DriverError> {
        self.known.push(&path_key(path), b"")
    }

    fn keep(&mut self, entry: TreeEntry, spec: &FilesSpec) -> Result<(), DriverError> {
        match &entry.state {
            EntryState::Stored => {}
            // The directory is stored like any other, and empty.
            EntryState::MountPoint => self.leave_out_mounted(&entry.path, spec),
            EntryState::ChangedWhileRead => {
                let reason = "three readings differ; the last one is stored".to_owned();
                self.problem(&entry.path, OutsideState::Torn, reason);
            }
            EntryState::Unreadable(reason) => {
                self.problem(&entry.path, OutsideState::Unreadable, reason.clone());
                return self.outside(&entry.path);
            }
            EntryState::Vanished => {
                self.problem(&entry.path, OutsideState::Vanished, "listed and then gone".to_owned());
                return self.outside(&entry.path);
            }
            EntryState::Excluded(reason) => {
                if *reason == LeftOut::Pattern && spec.exclude.is_empty() {
                    // Nothing was declared: whatever left this out had no right to.
                    let reason = format!("left out though nothing was declared: {reason}");
                    self.problem(&entry.path, OutsideState::Omitted, reason);
                } else {
                    self.leave_out(&entry.path, reason.to_string());
                }
                return self.outside(&entry.path);
            }
        }
        let Some(kind) = file_kind(entry.kind) else {
            self.leave_out(&entry.path, "is a socket".to_owned());
            return self.outside(&entry.path);
        };
        let is_file = kind == FileKind::File;
        let content = is_file
            .then(|| Content::of_pieces(entry.pieces.iter().map(|piece| (piece.length, piece.sha256))));
        if content.as_ref().is_some_and(|content| content.size != entry.size) {
            let reason = "the archive stored another number of bytes than it read".to_owned();
            self.problem(&entry.path, OutsideState::Torn, reason);
        }
        let seconds = i64::try_from(entry.mtime_ns.div_euclid(1_000_000_000)).unwrap_or(i64::MAX);
        let nanos = u32::try_from(entry.mtime_ns.rem_euclid(1_000_000_000)).unwrap_or(0);
        let key = path_key(&entry.path);
        if is_file && entry.inode.2 > 1 {
            let inode = Inode { root: self.root, device: entry.inode.1, number: entry.inode.0 };
            self.links.push(&inode.key(&key), b"")?;
        }
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
        self.known.push(&key, entry.line().as_bytes())
    }
}

pub(super) fn capture(
    source: &FilesSource,
    to: &dyn CopyWriter,
    watch: &Watch,
) -> Result<Captured, DriverError> {
    let options = source.options();
    let mut devices = Vec::new();
    for root in &source.roots {
        devices.push(look_at_root(root)?.st_dev);
    }
    let point = Timestamp::now();
    let observed = Mutex::new(Observed::new(source));
    let (seen, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
    for (number, root) in source.roots.iter().enumerate() {
        watch.check()?;
        watch.progress(Progress::Phase(format!("archive {}", root.display())));
        locked(&observed).root = number;
        to.tree(root, &options, &|entry| {
            let done = bytes.fetch_add(entry.size, Ordering::Relaxed) + entry.size;
            if seen.fetch_add(1, Ordering::Relaxed).is_multiple_of(256) {
                watch.progress(Progress::Bytes { done, total: None });
            }
            locked(&observed).take(entry, &source.spec);
        })?;
    }
    watch.check()?;
    watch.progress(Progress::Phase("witness".to_owned()));
    let began = Instant::now();
    let mut observed = observed.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = observed.error.take() {
        return Err(error);
    }
    let total = seen.into_inner();
    let facts = write_manifest(source, &devices, point, &mut observed, to, total, watch)?;
    let witness = FilesWitness {
        version: WITNESS_VERSION,
        roots: source.roots.iter().map(|root| escape(root.as_os_str().as_bytes())).collect(),
        exclude: source.spec.exclude.clone(),
        one_file_system: source.spec.one_file_system,
        may_be_empty: source.spec.may_be_empty,
        manifest: facts.at(MANIFEST_PATH),
        digest: facts.digest,
        totals: facts.totals,
        held: facts.held,
        left_out: observed.left_out,
        left_out_count: observed.left_out_count,
        problems: observed.problems,
        problem_count: observed.problem_count,
    };
    Ok(Captured {
        point,
        findings: findings(&witness, &observed.mounted),
        is_complete: witness.problem_count == 0,
        size_bytes: witness.totals.bytes,
        witness: Witness::Files(Box::new(witness)),
        witness_took: began.elapsed(),
        released: None,
    })
}

/// Streams the manifest into the copy, and names what the archive passed over.
fn write_manifest(
    source: &FilesSource,
    devices: &[u64],
    point: Timestamp,
    observed: &mut Observed,
    to: &dyn CopyWriter,
    total: u64,
    watch: &Watch,
) -> Result<ManifestFacts, DriverError> {
    let fresh = || Sorter::new(&source.scratch);
    let mut known = std::mem::replace(&mut observed.known, fresh()).finish()?;
    let mut groups = fresh();
    let found = std::mem::replace(&mut observed.links, fresh()).finish()?;
    links::each(found, |path, first, _| match first {
        Some(first) => groups.push(&path_key(path), first),
        // A file whose other links lie outside the tree is on its own.
        None => Ok(()),
    })?;
    let mut groups = Peeked::of(groups.finish()?)?;
    let roots = source.roots.iter().map(|root| root.as_os_str().as_bytes().to_vec());
    let mut builder = ManifestBuilder::new(roots.clone());
    let mut audit = Audit::of(source, devices, point);
    let path = CopyPath::new(MANIFEST_PATH)
        .ok_or_else(|| DriverError::new(ErrorKind::Other, "name the manifest in the copy"))?;
    let mut file = to.begin(&path, Cuts::ContentDefined)?;
    let mut part = Vec::with_capacity(PART_BYTES + 4096);
    let mut done = 0_u64;
    while let Some((key, line)) = known.next()? {
        let is_outside = line.is_empty();
        audit.until(Some((&path_of(&key), is_outside)), observed);
        done += 1;
        if done.is_multiple_of(1024) {
            watch.check()?;
            watch.progress(Progress::Items { done, total: Some(total) });
        }
        if is_outside {
            continue;
        }
        let spoiled = || DriverError::new(ErrorKind::Other, "read back the sorted list of entries");
        let mut entry = std::str::from_utf8(&line).ok().and_then(FileEntry::parse).ok_or_else(spoiled)?;
        if entry.kind == FileKind::File
            && let Some(first) = groups.take(&key)?
        {
            entry.link = Link::Group(first);
        }
        let line = builder.push(&entry).map_err(|error| spoiled().because(error))?;
        part.extend_from_slice(line.as_bytes());
        if part.len() >= PART_BYTES {
            file.write(&part)?;
            part.clear();
        }
    }
    audit.until(None, observed);
    watch.check()?;
    file.write(&part)?;
    let (stored, facts) = (file.finish()?, builder.finish());
    if stored.size != facts.size_bytes {
        let context =
            format!("store {} bytes of the manifest, {} were stored", facts.size_bytes, stored.size);
        return Err(DriverError::new(ErrorKind::Corrupt, context));
    }
    Ok(facts)
}

/// Sorted records with the next one in view.
struct Peeked {
    records: Sorted,
    next: Option<Keyed>,
}

impl Peeked {
    fn of(mut records: Sorted) -> Result<Self, DriverError> {
        let next = records.next()?;
        Ok(Self { records, next })
    }

    /// The value of `key`, where keys are asked for in order.
    fn take(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, DriverError> {
        while self.next.as_ref().is_some_and(|(next, _)| next.as_slice() < key) {
            self.next = self.records.next()?;
        }
        match self.next.take_if(|(next, _)| next.as_slice() == key) {
            None => Ok(None),
            Some((_, value)) => {
                self.next = self.records.next()?;
                Ok(Some(value))
            }
        }
    }
}

/// Looks for what was there before the archive began, is there still, and is not known to the archive: a second walk, of
/// names only. What cannot be listed here could not be read by the archive either, and was named then; or it is gone.
struct Audit {
    places: Vec<Place>,
    live: Merged,
    settled: Timestamp,
}

impl Audit {
    fn of(source: &FilesSource, devices: &[u64], point: Timestamp) -> Self {
        let before = SignedDuration::try_from(SETTLED).unwrap_or(SignedDuration::ZERO);
        let places: Vec<Place> = source
            .roots
            .iter()
            .map(|root| Place { at: root.clone(), root: root.as_os_str().as_bytes().to_vec() })
            .collect();
        let bound = |device: &u64| source.spec.one_file_system.then_some(*device);
        let walks =
            places.iter().zip(devices).map(|(place, device)| Ordered::new(place.clone(), bound(device)));
        Self { live: Merged::new(walks), places, settled: point.checked_sub(before).unwrap_or(point) }
    }

    /// Goes on to the next path that the archive knows, or to the end; what it knows and left outside is not entered.
    fn until(&mut self, known: Option<(&[u8], bool)>, observed: &mut Observed) {
        use seaworthy_model::witness::files::path_order;
        while let Some((path, _)) = self.live.peek() {
            let order = known.map_or(std::cmp::Ordering::Less, |(known, _)| path_order(path, known));
            if order.is_gt() {
                return;
            }
            let Some((step, number)) = self.live.next() else { return };
            let Step::Name { path, below } = step else { continue };
            if order.is_eq() {
                if known.is_some_and(|(_, is_outside)| is_outside) {
                    self.live.skip();
                }
                continue;
            }
            // Below a directory that is new, or that was renamed meanwhile, names are new though inodes may be old.
            self.live.skip();
            let changed = look(&self.places[number], &below).ok().as_ref().and_then(changed_at);
            if changed.is_some_and(|changed| changed < self.settled) {
                let reason = "it was there before the backup began and is there still".to_owned();
                observed.problem(&path, OutsideState::Omitted, reason);
            }
        }
    }
}

fn look(place: &Place, below: &Below) -> io::Result<Stat> {
    match below {
        Below::Root => Ok(rustix::fs::lstat(&place.at)?),
        Below::In(above, name) => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let root = rustix::fs::openat(CWD, &place.at, flags, Mode::empty())?;
            let above = open_beneath(root.as_fd(), above)?;
            Ok(rustix::fs::statat(above, name, AtFlags::SYMLINK_NOFOLLOW)?)
        }
    }
}

fn changed_at(stat: &Stat) -> Option<Timestamp> {
    Timestamp::new(stat_i64(stat.st_ctime)?, i32::try_from(stat.st_ctime_nsec).ok()?).ok()
}

/// What a capture has to tell: every problem up to a bound, the rest by number, and what is mounted and left out.
fn findings(witness: &FilesWitness, mounted: &[Outside]) -> Vec<Finding> {
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
    // Patterns say what they leave out; a mounted file system nobody named.
    findings.extend(mounted.iter().map(Outside::finding));
    for root in witness.empty_roots() {
        let detail = "holds nothing and is not declared `may_be_empty`";
        findings.push(Finding::new(FindingCode::PointImplausible, root, detail));
    }
    findings
}
