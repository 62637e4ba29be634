//! Walks over trees that may be hostile: by descriptors, one component at a time, never through a symbolic link.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use seaworthy_interface::{DriverError, ErrorKind};
use seaworthy_model::witness::files::{FileKind, path_order};

use super::{Watch, failed, locked, stat_kind};

/// Names that one job of a walk holds: small enough that both cores share a large directory.
const NAMES_PER_JOB: usize = 256;

/// Directories that an ordered walk keeps open; those further up are opened again when it comes back to them.
const OPEN_MAX: usize = 64;

/// One entry met by a walk.
pub(super) struct Met<'a> {
    /// The open directory that it lies in.
    pub(super) directory: BorrowedFd<'a>,
    /// Its name there.
    pub(super) name: &'a CString,
    /// Its path: the walk's root as it was given, and what lies below.
    pub(super) path: &'a [u8],
    pub(super) stat: &'a Stat,
}

enum Job {
    Directory(Vec<u8>),
    Names(Vec<u8>, Vec<CString>),
}

pub(super) type Trouble<'a> = dyn Fn(&[u8], io::Error) -> Result<(), DriverError> + Sync + 'a;

/// Visits a tree with all cores, in no particular order.
pub(super) struct Walk<'a> {
    /// Where the root lies now.
    pub(super) at: &'a Path,
    /// The path that is reported for the root.
    pub(super) named: &'a [u8],
    /// Called for every entry, from several threads; whether to enter it, for directories.
    pub(super) visit: &'a (dyn Fn(&Met<'_>) -> Result<bool, DriverError> + Sync),
    /// Called for what cannot be listed or looked at.
    pub(super) trouble: &'a Trouble<'a>,
    pub(super) watch: &'a Watch,
}

struct Queue {
    jobs: Vec<Job>,
    busy: usize,
}

impl Walk<'_> {
    /// Visits the root and everything below it; a symbolic link is an entry, never a way.
    pub(super) fn run(&self) -> Result<(), DriverError> {
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

pub(super) fn join(above: &[u8], below: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(above.len() + 1 + below.len());
    path.extend_from_slice(above);
    path.push(b'/');
    path.extend_from_slice(below);
    path
}

/// Opens a directory below `root` one component at a time: no symbolic link, no `..`, no limit on the path's length.
pub(super) fn open_beneath(root: BorrowedFd<'_>, below: &[u8]) -> io::Result<OwnedFd> {
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

/// Where a name lies: the root of its walk, or a name in a directory below it.
#[derive(Debug, Clone)]
pub(super) enum Below {
    /// The root itself.
    Root,
    /// In this directory, a path below the root; empty for the root's own directory.
    In(Arc<[u8]>, CString),
}

/// What an ordered walk comes upon.
pub(super) enum Step {
    /// A name; nothing is said about it.
    Name {
        /// Its path: the walk's root as it was given, and what lies below.
        path: Vec<u8>,
        /// Where it is.
        below: Below,
    },
    /// A directory that was a name before, and cannot be listed.
    Trouble {
        /// Its path.
        path: Vec<u8>,
        /// Why.
        error: io::Error,
    },
}

impl Step {
    pub(super) fn path(&self) -> &[u8] {
        match self {
            Self::Name { path, .. } | Self::Trouble { path, .. } => path,
        }
    }
}

/// Goes through a tree in the order of a manifest, and holds no more than the names beside its way.
pub(super) struct Ordered {
    /// Where the root lies now, and the path that is reported for it.
    place: Place,
    root: Option<OwnedFd>,
    /// Device that must not be left.
    device: Option<u64>,
    stack: Vec<Frame>,
    pending: Option<Vec<u8>>,
    is_begun: bool,
}

/// A root: where it lies, and the path that is reported for it.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Where it lies now.
    pub(super) at: std::path::PathBuf,
    /// Its path on the source.
    pub(super) root: Vec<u8>,
}

struct Frame {
    below: Arc<[u8]>,
    directory: Option<OwnedFd>,
    names: std::vec::IntoIter<(CString, FileType)>,
}

impl Ordered {
    /// A walk that has not begun; with `device`, directories of other devices are not entered.
    pub(super) fn new(place: Place, device: Option<u64>) -> Self {
        Self { place, root: None, device, stack: Vec::new(), pending: None, is_begun: false }
    }

    /// The next name, or a directory that cannot be listed; `None` at the end.
    pub(super) fn next(&mut self) -> Option<Step> {
        if !self.is_begun {
            self.is_begun = true;
            return self.begin();
        }
        loop {
            if let Some(below) = self.pending.take() {
                if let Err(error) = self.enter(&below) {
                    return Some(Step::Trouble { path: self.path(&below), error });
                }
                continue;
            }
            let frame = self.stack.last_mut()?;
            let Some((name, kind)) = frame.names.next() else {
                self.stack.pop();
                continue;
            };
            let above = Arc::clone(&frame.below);
            let inside =
                if above.is_empty() { name.to_bytes().to_vec() } else { join(&above, name.to_bytes()) };
            let is_directory = match kind {
                FileType::Directory => true,
                // Some file systems do not say; only a look at it does.
                FileType::Unknown => self.is_directory(&above, &name),
                _ => false,
            };
            let path = self.path(&inside);
            self.pending = is_directory.then_some(inside);
            return Some(Step::Name { path, below: Below::In(above, name) });
        }
    }

    /// Does not enter the directory that came last.
    pub(super) fn skip(&mut self) {
        self.pending = None;
    }

    fn path(&self, below: &[u8]) -> Vec<u8> {
        if below.is_empty() { self.place.root.clone() } else { join(&self.place.root, below) }
    }

    fn begin(&mut self) -> Option<Step> {
        let path = self.place.root.clone();
        match rustix::fs::lstat(&self.place.at) {
            Err(rustix::io::Errno::NOENT) => None,
            Err(error) => Some(Step::Trouble { path, error: error.into() }),
            Ok(stat) => {
                let is_directory = stat_kind(&stat) == Some(FileKind::Directory);
                self.pending = is_directory.then(Vec::new);
                Some(Step::Name { path, below: Below::Root })
            }
        }
    }

    /// The directory at a path below the root: by the one above it where that is open.
    fn open(&mut self, below: &[u8]) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if below.is_empty() {
            let root = rustix::fs::openat(CWD, &self.place.at, flags, Mode::empty())?;
            let again = root.try_clone()?;
            self.root = Some(again);
            return Ok(root);
        }
        if let Some(above) = self.stack.last().and_then(|frame| frame.directory.as_ref()) {
            let name = below.iter().rposition(|byte| *byte == b'/').map_or(below, |cut| &below[cut + 1..]);
            return Ok(rustix::fs::openat(above, name, flags, Mode::empty())?);
        }
        let root = self.root.as_ref().ok_or_else(|| io::Error::other("the root is not open"))?;
        open_beneath(root.as_fd(), below)
    }

    fn enter(&mut self, below: &[u8]) -> io::Result<()> {
        let directory = self.open(below)?;
        if let Some(device) = self.device
            && rustix::fs::fstat(&directory)?.st_dev != device
        {
            return Ok(());
        }
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push((entry.file_name().to_owned(), entry.file_type()));
            }
        }
        names.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        // A directory that changes while it is listed may give a name twice, and so do some file systems.
        names.dedup_by(|one, other| one.0 == other.0);
        if let Some(far) = self.stack.len().checked_sub(OPEN_MAX) {
            self.stack[far].directory = None;
        }
        self.stack.push(Frame { below: below.into(), directory: Some(directory), names: names.into_iter() });
        Ok(())
    }

    fn is_directory(&self, above: &[u8], name: &CString) -> bool {
        let Some(root) = &self.root else { return false };
        let stat = open_beneath(root.as_fd(), above)
            .and_then(|above| Ok(rustix::fs::statat(above, name, AtFlags::SYMLINK_NOFOLLOW)?));
        stat.is_ok_and(|stat| stat_kind(&stat) == Some(FileKind::Directory))
    }
}

/// Several ordered walks as one, in order of path.
pub(super) struct Merged {
    walks: Vec<(Ordered, Option<Step>)>,
    /// The walk that the last step came from.
    last: usize,
}

impl Merged {
    /// None of them has begun.
    pub(super) fn new(walks: impl IntoIterator<Item = Ordered>) -> Self {
        let walks = walks
            .into_iter()
            .map(|mut walk| {
                let first = walk.next();
                (walk, first)
            })
            .collect();
        Self { walks, last: 0 }
    }

    /// The path of the next step, and the number of its walk.
    pub(super) fn peek(&mut self) -> Option<(&[u8], usize)> {
        self.refill();
        let first = self.first()?;
        let (_, step) = &self.walks[first];
        step.as_ref().map(|step| (step.path(), first))
    }

    /// The next step, and the number of its walk.
    pub(super) fn next(&mut self) -> Option<(Step, usize)> {
        self.refill();
        let first = self.first()?;
        self.last = first;
        // The walk goes on only when it is asked again, so that the directory that came can still be left alone.
        self.walks[first].1.take().map(|step| (step, first))
    }

    /// Does not enter the directory that came last.
    pub(super) fn skip(&mut self) {
        if let Some((walk, None)) = self.walks.get_mut(self.last) {
            walk.skip();
        }
    }

    fn refill(&mut self) {
        if let Some((walk, step @ None)) = self.walks.get_mut(self.last) {
            *step = walk.next();
        }
    }

    fn first(&self) -> Option<usize> {
        let steps = self.walks.iter().enumerate().filter_map(|(n, (_, step))| Some((n, step.as_ref()?)));
        steps.min_by(|(_, one), (_, other)| path_order(one.path(), other.path())).map(|(number, _)| number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(root: &Path, skips: &[u8]) -> Vec<String> {
        let place = Place { at: root.to_owned(), root: b"/r".to_vec() };
        let mut walk = Merged::new([Ordered::new(place, None)]);
        let mut paths = Vec::new();
        while let Some((step, _)) = walk.next() {
            if step.path() == skips {
                walk.skip();
            }
            match step {
                Step::Name { path, .. } => paths.push(String::from_utf8(path).unwrap()),
                Step::Trouble { path, error } => panic!("{}: {error}", path.escape_ascii()),
            }
        }
        paths
    }

    #[test]
    fn an_ordered_walk_goes_in_the_order_of_a_manifest() {
        let root = tempfile::tempdir().unwrap();
        for directory in ["a/x", "a-b", "b"] {
            std::fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        for file in ["a!", "a/x/y", "a/z", "a-b/c", "c"] {
            std::fs::write(root.path().join(file), b"").unwrap();
        }
        std::os::unix::fs::symlink("/etc", root.path().join("b/link")).unwrap();
        let all = paths(root.path(), b"");
        let expected = [
            "/r",
            "/r/a",
            "/r/a/x",
            "/r/a/x/y",
            "/r/a/z",
            "/r/a!",
            "/r/a-b",
            "/r/a-b/c",
            "/r/b",
            "/r/b/link",
            "/r/c",
        ];
        assert_eq!(all, expected);
        let skipped = paths(root.path(), b"/r/a");
        assert_eq!(skipped, [&expected[..2], &expected[5..]].concat());
    }

    #[test]
    fn a_deep_tree_needs_few_descriptors() {
        let root = tempfile::tempdir().unwrap();
        let mut directory = root.path().to_owned();
        for number in 0..3 * OPEN_MAX {
            directory.push(format!("d{number}"));
            std::fs::create_dir(&directory).unwrap();
            std::fs::write(directory.join("beside"), b"").unwrap();
            std::fs::create_dir(directory.join("zz")).unwrap();
        }
        let place = Place { at: root.path().to_owned(), root: b"/r".to_vec() };
        let mut walk = Ordered::new(place, None);
        let (mut names, mut most) = (0, 0);
        while let Some(step) = walk.next() {
            assert!(matches!(step, Step::Name { .. }));
            names += 1;
            most = most.max(walk.stack.iter().filter(|frame| frame.directory.is_some()).count());
        }
        assert_eq!(names, 1 + 3 * 3 * OPEN_MAX);
        assert!(most <= OPEN_MAX + 1, "{most} open");
    }
}
