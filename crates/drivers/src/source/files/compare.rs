//! The comparison: the manifest out of the copy and the restored trees side by side, in order of path.
//!
//! One thread reads names and lines, all cores measure what is there, and the results are compared in order. Memory does
//! not grow with the number of entries: only names beside the way, and files with several names, which are sorted on disk.

use std::ffi::{CString, OsStr};
use std::io::{self, BufRead as _, BufReader, Read};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat};
use seaworthy_interface::{CopyPath, CopyReader, DriverError, ErrorKind, Progress};
use seaworthy_model::finding::FindingCode;
use seaworthy_model::verdict::CheckReport;
use seaworthy_model::witness::FilesWitness;
use seaworthy_model::witness::content::{Content, CutList, Measure};
use seaworthy_model::witness::files::{
    Comparison, FileEntry, FileKind, Link, ManifestAt, ManifestError, ManifestParser, MeasuredBy, path_order,
};

use super::links::{self, Inode};
use super::ordered::in_order;
use super::sorted::{Sorter, path_key, path_of};
use super::walk::{Below, Merged, Met, Ordered, Place, Step, open_beneath};
use super::{Watch, attributes, has_holes, stat_i64, stat_kind};

/// Longest line of a manifest that is read: a path, a link's target and attributes, each escaped, and the cuts of a file
/// of some terabytes.
const LINE_BYTES_MAX: u64 = 256 << 20;

/// Entries, and bytes of theirs, that one thread measures before it hands them on.
const BATCH_ENTRIES: usize = 64;
const BATCH_BYTES: u64 = 4 << 20;

/// The entries of a manifest, read out of the copy. Whoever reads them to their end knows that they are those of the witness.
pub(super) struct Lines<'a> {
    expected: &'a FilesWitness,
    lines: BufReader<Box<dyn Read + Send>>,
    parser: Option<ManifestParser>,
    line: Vec<u8>,
}

fn not_ours(error: ManifestError) -> DriverError {
    DriverError::new(ErrorKind::Corrupt, "read the manifest of the copy")
        .code(FindingCode::WitnessNotOurs)
        .because(error)
}

impl<'a> Lines<'a> {
    pub(super) fn of(expected: &'a FilesWitness, from: &dyn CopyReader) -> Result<Self, DriverError> {
        let stream: Box<dyn Read + Send> = match &expected.manifest {
            ManifestAt::Text(text) => Box::new(io::Cursor::new(text.clone().into_bytes())),
            ManifestAt::File { path, .. } => {
                let refused = || DriverError::new(ErrorKind::Refused, format!("read `{path}` of the copy"));
                from.open(&CopyPath::new(path.as_bytes()).ok_or_else(refused)?)?
            }
        };
        let lines = BufReader::with_capacity(1 << 20, stream);
        Ok(Self { expected, lines, parser: Some(ManifestParser::default()), line: Vec::new() })
    }

    /// The next entry; `None` when all of them have been read and are those of the witness.
    pub(super) fn next(&mut self) -> Result<Option<FileEntry>, DriverError> {
        let Some(parser) = &mut self.parser else { return Ok(None) };
        self.line.clear();
        let wrong = |error| DriverError::io("read the manifest of the copy", error);
        let read = (&mut self.lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut self.line).map_err(wrong)?;
        if read == 0 {
            let parser = self.parser.take().unwrap_or_default();
            return parser.finish(self.expected).map(|()| None).map_err(not_ours);
        }
        parser.line(&self.line).map(Some).map_err(not_ours)
    }
}

/// One path: what the witness says of it, and where it was found.
struct Job {
    path: Vec<u8>,
    expected: Option<FileEntry>,
    found: Option<(usize, Below)>,
    /// Why the directory of this path, which was a job before, cannot be listed.
    trouble: Option<String>,
}

/// One path, measured.
struct Seen {
    path: Vec<u8>,
    expected: Option<FileEntry>,
    found: Option<FileEntry>,
    inode: Option<Inode>,
    /// Why it could not be measured.
    trouble: Option<String>,
    /// Why what lies below it, which was a path before, cannot be listed.
    unlisted: Option<String>,
}

/// Joins the lines of the manifest with the names that are there.
struct Jobs<'a> {
    lines: Lines<'a>,
    next: Option<FileEntry>,
    names: Merged,
}

impl Jobs<'_> {
    fn job(&mut self) -> Result<Option<Job>, DriverError> {
        let order = match (&self.next, self.names.peek()) {
            (None, None) => return Ok(None),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(entry), Some((path, _))) => path_order(&entry.path, path),
        };
        let mut job = Job { path: Vec::new(), expected: None, found: None, trouble: None };
        if order.is_ge()
            && let Some((step, root)) = self.names.next()
        {
            match step {
                Step::Name { path, below, .. } => {
                    job.path = path;
                    job.found = Some((root, below));
                }
                Step::Trouble { path, error } => {
                    // What is gone was not restored; the entries that are missing say so.
                    let is_gone = error.kind() == io::ErrorKind::NotFound;
                    job.path = path;
                    job.trouble = (!is_gone).then(|| error.to_string());
                    return Ok(Some(job));
                }
            }
        }
        if order.is_le() {
            let entry = std::mem::replace(&mut self.next, self.lines.next()?);
            if let Some(entry) = &entry {
                job.path.clone_from(&entry.path);
            }
            job.expected = entry;
        }
        Ok(Some(job))
    }

    fn batch(&mut self) -> Result<Option<Vec<Job>>, DriverError> {
        let (mut jobs, mut bytes) = (Vec::new(), 0);
        while jobs.len() < BATCH_ENTRIES && bytes < BATCH_BYTES {
            let Some(job) = self.job()? else { break };
            let content = job.expected.as_ref().and_then(|entry| entry.content.as_ref());
            bytes += content.map_or(0, |content| content.size);
            jobs.push(job);
        }
        Ok((!jobs.is_empty()).then_some(jobs))
    }
}

/// Measures restored trees the way their source was measured, and compares them. Also gives the entries that were found.
pub(super) fn compare(
    expected: &FilesWitness,
    from: &dyn CopyReader,
    placed: &[Place],
    scratch: &Path,
    watch: &Watch,
) -> Result<(Vec<CheckReport>, u64), DriverError> {
    let mut jobs = Jobs {
        lines: Lines::of(expected, from)?,
        next: None,
        names: Merged::new(placed.iter().map(|place| Ordered::new(place.clone(), None))),
    };
    jobs.next = jobs.lines.next()?;
    let mut roots = Vec::new();
    for place in placed {
        roots.push(open_root(place));
    }
    let by = MeasuredBy {
        uid: rustix::process::geteuid().as_raw(),
        keeps_attributes: placed.iter().all(|place| keeps_attributes(&place.at)),
    };
    let mut comparison = Comparison::new(by);
    let mut linked = Sorter::new(scratch);
    // Groups that differ, to be told in order of path.
    let mut differing = Sorter::new(scratch);
    let mut found_count = 0;
    let done = AtomicU64::new(0);
    in_order(
        watch,
        || jobs.batch(),
        |batch| {
            let mut looker = Looker { placed, roots: &roots, directory: None };
            batch.into_iter().map(|job| looker.look(job, &done, expected.totals.bytes, watch)).collect()
        },
        |batch: Vec<Seen>| {
            for seen in batch {
                found_count += u64::from(seen.found.is_some());
                take(&mut comparison, &seen, &mut linked, &mut differing)?;
            }
            Ok(())
        },
    )?;
    links::each(linked.finish()?, |path, is, value| {
        let Some(was) = group_of(value) else { return Ok(()) };
        if was == is {
            comparison.group(path, was, is);
            return Ok(());
        }
        differing.push(&path_key(path), &[spell(was), spell(is)].concat())
    })?;
    let mut differing = differing.finish()?;
    while let Some((key, value)) = differing.next()? {
        let (was, is) = pair_of(&value);
        comparison.group(&path_of(&key), was, is);
    }
    Ok((comparison.finish(expected), found_count))
}

/// Tells one path, and keeps what its hard links are to be judged by.
fn take(
    comparison: &mut Comparison,
    seen: &Seen,
    linked: &mut Sorter,
    differing: &mut Sorter,
) -> Result<(), DriverError> {
    let (expected, found) = (seen.expected.as_ref(), seen.found.as_ref());
    if let Some(reason) = &seen.unlisted {
        comparison.unlisted(&seen.path, reason);
        return Ok(());
    }
    if let Some(reason) = &seen.trouble {
        comparison.unread(expected, &seen.path, reason);
        return Ok(());
    }
    comparison.pair(expected, found);
    if found.is_none_or(|found| found.kind != FileKind::File) {
        return Ok(());
    }
    let was = expected.filter(|entry| entry.kind == FileKind::File).map(|entry| match &entry.link {
        Link::Group(first) => Some(first.as_slice()),
        Link::None | Link::Target(_) | Link::Device(_) => None,
    });
    let key = path_key(&seen.path);
    match (seen.inode, was) {
        // What does not belong here may still be the first name of a file that does.
        (Some(inode), None) => linked.push(&inode.key(&key), b""),
        (Some(inode), Some(was)) => linked.push(&inode.key(&key), &spell(was)),
        (None, Some(Some(was))) => differing.push(&key, &[spell(Some(was)), spell(None)].concat()),
        (None, Some(None) | None) => Ok(()),
    }
}

/// The first path of a group, or that there is none, as bytes.
fn spell(group: Option<&[u8]>) -> Vec<u8> {
    let Some(first) = group else { return vec![0] };
    let length = u32::try_from(first.len()).unwrap_or(u32::MAX);
    [&[1], length.to_le_bytes().as_slice(), first].concat()
}

/// Takes back what [`spell`] wrote; `None` of nothing.
fn group_of(value: &[u8]) -> Option<Option<&[u8]>> {
    (!value.is_empty()).then(|| pair_of(value).0)
}

fn pair_of(value: &[u8]) -> (Option<&[u8]>, Option<&[u8]>) {
    let (was, rest) = first_of(value);
    (was, first_of(rest).0)
}

fn first_of(value: &[u8]) -> (Option<&[u8]>, &[u8]) {
    match value {
        [1, a, b, c, d, rest @ ..] => {
            let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
            let (first, rest) = rest.split_at(length.min(rest.len()));
            (Some(first), rest)
        }
        [_, rest @ ..] => (None, rest),
        [] => (None, &[]),
    }
}

fn open_root(place: &Place) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, &place.at, flags, Mode::empty())?)
}

fn keeps_attributes(root: &Path) -> bool {
    !matches!(xattr::list(root), Err(error) if error.kind() == io::ErrorKind::Unsupported)
}

/// Looks at paths; the directory of the last one stays open for the next.
struct Looker<'a> {
    placed: &'a [Place],
    roots: &'a [io::Result<OwnedFd>],
    directory: Option<(usize, Arc<[u8]>, OwnedFd)>,
}

impl Looker<'_> {
    fn look(&mut self, job: Job, done: &AtomicU64, total: u64, watch: &Watch) -> Result<Seen, DriverError> {
        let mut seen = Seen {
            path: job.path,
            expected: job.expected,
            found: None,
            inode: None,
            trouble: None,
            unlisted: job.trouble,
        };
        let Some((root, below)) = job.found else { return Ok(seen) };
        let cuts =
            seen.expected.as_ref().and_then(|entry| entry.content.as_ref()).map(|content| &content.cuts);
        // A file of one piece needs no cuts, and most files are.
        let cuts = cuts.filter(|cuts| cuts.lengths().next().is_some());
        match self.measure(root, &below, &seen.path, cuts, watch) {
            Ok((found, stat)) => {
                let bytes = found.as_ref().and_then(|entry| entry.content.as_ref()).map_or(0, |c| c.size);
                let all = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
                watch.progress(Progress::Bytes { done: all, total: Some(total) });
                let is_linked =
                    found.as_ref().is_some_and(|entry| entry.kind == FileKind::File) && stat.st_nlink > 1;
                seen.inode = is_linked.then_some(Inode { root, device: stat.st_dev, number: stat.st_ino });
                // A socket in a restore is nothing that was stored.
                seen.found = found;
            }
            Err(MeasureError::Stopped(error)) => return Err(error),
            Err(MeasureError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(MeasureError::Io(error)) => seen.trouble = Some(error.to_string()),
        }
        Ok(seen)
    }

    fn measure(
        &mut self,
        root: usize,
        below: &Below,
        path: &[u8],
        cuts: Option<&CutList>,
        watch: &Watch,
    ) -> Result<(Option<FileEntry>, Stat), MeasureError> {
        let parent;
        let (directory, name) = match below {
            Below::Root => {
                let (above, name) = self.placed[root].parent()?;
                parent = (above, name);
                (parent.0.as_fd(), &parent.1)
            }
            Below::In(above, name) => (self.directory(root, above)?.as_fd(), name),
        };
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let met = Met { directory, name, path, stat: &stat };
        Ok((measure(&met, cuts, watch)?, stat))
    }

    fn directory(&mut self, root: usize, below: &Arc<[u8]>) -> io::Result<&OwnedFd> {
        let is_open = matches!(&self.directory, Some((at, path, _)) if *at == root && path == below);
        if !is_open {
            let opened = match &self.roots[root] {
                Ok(root) => open_beneath(root.as_fd(), below)?,
                Err(error) => return Err(io::Error::new(error.kind(), error.to_string())),
            };
            self.directory = Some((root, Arc::clone(below), opened));
        }
        match &self.directory {
            Some((_, _, opened)) => Ok(opened),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl Place {
    /// The open directory and the name of an entry of the restore.
    pub(super) fn find(&self, path: &[u8]) -> io::Result<Option<(OwnedFd, CString)>> {
        let Some(below) = path.strip_prefix(self.root.as_slice()) else { return Ok(None) };
        let (parent, name) = match below.strip_prefix(b"/") {
            Some(below) => {
                let cut = below.iter().rposition(|byte| *byte == b'/');
                let (above, name) = cut.map_or((&[][..], below), |cut| (&below[..cut], &below[cut + 1..]));
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let root = rustix::fs::openat(CWD, &self.at, flags, Mode::empty())?;
                (open_beneath(root.as_fd(), above)?, name.to_vec())
            }
            None if below.is_empty() => return self.parent().map(Some),
            None => return Ok(None),
        };
        let name = CString::new(name).map_err(io::Error::other)?;
        Ok(Some((parent, name)))
    }

    /// The open directory that the root lies in, and its name there.
    fn parent(&self) -> io::Result<(OwnedFd, CString)> {
        let (Some(parent), Some(name)) = (self.at.parent(), self.at.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::openat(CWD, parent, flags, Mode::empty())?;
        Ok((parent, CString::new(name.as_bytes()).map_err(io::Error::other)?))
    }
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

fn measure(met: &Met<'_>, cuts: Option<&CutList>, watch: &Watch) -> Result<Option<FileEntry>, MeasureError> {
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
        attributes: attributes(read_attributes(met)?),
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

fn read_attributes(met: &Met<'_>) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    // By way of the open directory: nothing above it is looked up again, and the last component is not followed.
    let mut path = format!("/proc/self/fd/{}/", met.directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(met.name.to_bytes());
    let path = Path::new(OsStr::from_bytes(&path));
    let names = match xattr::list(path) {
        Ok(names) => names,
        // Asked for once, of each root: whether attributes are kept here is part of the comparison.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(Vec::new()),
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
