//! Large files of an archive, passed to `pg_restore` through pipes while they are fetched: what is restored lies on the
//! disk once, and loading begins at once.
//!
//! `pg_restore` weighs the files when it begins, and loads the heaviest first, so that its workers end at about the same
//! time; a pipe weighs nothing. So each pipe of a table is first represented by a file of holes of the same size, and a
//! lock on `pg_class` makes `pg_restore` wait when it makes the first table. It has weighed everything by then, and has
//! opened nothing: the pipes take their places, and the lock is given back. Large objects need no table, and are not
//! weighed one by one: their pipes are in place from the beginning.
//!
//! What runs in a scratch engine may be hostile and owns the directory. A pipe is therefore written to through the handle
//! of what was made here, never by its name.

use std::cmp::Reverse;
use std::ffi::CString;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use seaworthy_interface::copy::Written;
use seaworthy_interface::cx::ProgressSink;
use seaworthy_interface::{CopyPath, CopyReader, Cx, DriverError, EntryKind, ErrorKind, Progress, Restoring};
use seaworthy_model::finding::FindingCode;
use tokio_util::sync::CancellationToken;

use super::restore::{archive_path, blocking};
use super::session::{Session, parsed};

/// Smallest file that is worth a pipe: a smaller one is fetched in some milliseconds.
const STREAMED_BYTES_MIN: u64 = 8 << 20;
/// Most pipes: each holds a descriptor and is looked at again and again. The smaller files of a larger archive are fetched.
const STREAMED_MAX: usize = 256;
/// Most pipes that are written to at once: the two workers', and two that are about to end. Bounds memory and threads,
/// whoever opens pipes.
const WRITERS_MAX: usize = 4;
/// What a pipe may hold, and is read and written at once.
const PIPE_BYTES: usize = 1 << 20;
/// Pause between two looks at what has been opened, and at whether `pg_restore` waits.
const PAUSE: Duration = Duration::from_millis(5);
/// Longest wait for a pipe to have room, after which a stop is looked for.
const POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// Where the pipes of tables lie until they take their places.
const PIPES: &str = "pipes";
/// How the name of a large object's file begins.
const LARGE_OBJECT: &[u8] = b"blob_";

/// Pipes in the places of an archive's large files.
#[derive(Debug)]
pub(super) struct Streams {
    archive: OwnedFd,
    waiting: OwnedFd,
    pipes: Arc<Vec<Pipe>>,
    is_placed: AtomicBool,
    /// What was written without a pipe.
    written: Written,
}

#[derive(Debug)]
struct Pipe {
    path: CopyPath,
    name: CString,
    size: u64,
    is_weighed: bool,
    /// Whether all of the file went through it.
    is_poured: AtomicBool,
    /// The pipe itself, whatever its name leads to.
    handle: OwnedFd,
}

/// Fetches the archive of a copy into `archive`, but for its large files, for which pipes are made.
///
/// Whoever is to read it must be given everything below `archive` afterwards.
pub(super) async fn fetch(
    cx: &Cx,
    from: &Arc<dyn CopyReader>,
    archive: &Path,
) -> Result<Streams, DriverError> {
    let (from, archive) = (Arc::clone(from), archive.to_path_buf());
    let under = archive_path()?;
    blocking(cx, move || {
        let mut large: Vec<(CopyPath, CString, u64)> = from
            .list(Some(&under))?
            .into_iter()
            .filter(|entry| entry.kind == EntryKind::File && entry.size >= STREAMED_BYTES_MIN)
            .filter_map(|entry| {
                let name = entry.path.as_bytes().strip_prefix(under.as_bytes())?.strip_prefix(b"/")?;
                let is_data = name.ends_with(b".dat") && name != b"toc.dat" && !name.contains(&b'/');
                let name = is_data.then(|| CString::new(name).ok()).flatten()?;
                Some((entry.path, name, entry.size))
            })
            .collect();
        large.sort_by_key(|(.., size)| Reverse(*size));
        large.truncate(STREAMED_MAX);
        let left_out = large.iter().map(|(path, ..)| path.clone()).collect();
        let how = Restoring { left_out, ..Restoring::default() };
        let written = from.restore(&under, &archive, &how)?;
        make(&archive, large, written)
            .map_err(|error| DriverError::io(format!("make pipes in {}", archive.display()), error.into()))
    })
    .await
}

fn make(archive: &Path, large: Vec<(CopyPath, CString, u64)>, written: Written) -> Result<Streams, Errno> {
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let archive = rustix::fs::open(archive, directory, Mode::empty())?;
    rustix::fs::mkdirat(&archive, PIPES, Mode::RWXU)?;
    let waiting = rustix::fs::openat(&archive, PIPES, directory, Mode::empty())?;
    let mut pipes = Vec::new();
    for (path, name, size) in large {
        let is_weighed = !name.to_bytes().starts_with(LARGE_OBJECT);
        let place = if is_weighed { &waiting } else { &archive };
        rustix::fs::mknodat(place, &name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        let handle = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = rustix::fs::openat(place, &name, handle, Mode::empty())?;
        if is_weighed {
            let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            // Nobody may read it: holes must never pass for content.
            let weight = rustix::fs::openat(&archive, &name, create, Mode::empty())?;
            rustix::fs::ftruncate(&weight, size)?;
        }
        pipes.push(Pipe { path, name, size, is_weighed, is_poured: AtomicBool::new(false), handle });
    }
    let is_placed = AtomicBool::new(!pipes.iter().any(|pipe| pipe.is_weighed));
    Ok(Streams { archive, waiting, pipes: Arc::new(pipes), is_placed, written })
}

/// Says that `pg_restore` has ended, also when nobody waits for it any more.
struct Ended(Arc<AtomicBool>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Streams {
    /// What was handed to `pg_restore` so far, as files and through pipes.
    pub(super) fn written(&self) -> Written {
        let poured = self.pipes.iter().filter(|pipe| pipe.is_poured.load(Ordering::Acquire));
        poured.fold(self.written, |written, pipe| Written {
            files: written.files + 1,
            bytes: written.bytes + pipe.size,
        })
    }

    /// Carries out `work`, which is one `pg_restore`, and feeds it from the copy.
    ///
    /// `inside` is a session in the database that is restored to; where its role may not lock the catalogue, the files are
    /// not weighed. When the copy cannot be read, `work` is cancelled, and the error is the copy's.
    pub(super) async fn feed<T>(
        &self,
        cx: &Cx,
        from: &Arc<dyn CopyReader>,
        inside: &Session,
        work: impl AsyncFnOnce(&Cx) -> Result<T, DriverError>,
    ) -> Result<T, DriverError> {
        if self.pipes.is_empty() {
            return work(cx).await;
        }
        let is_held = !self.is_placed.load(Ordering::Acquire) && hold(cx, inside).await?;
        if !is_held {
            self.place()?;
        }
        let (within, token) = cx.child();
        let is_over = Arc::new(AtomicBool::new(false));
        let ended = Ended(Arc::clone(&is_over));
        let working = async {
            let done = work(&within).await;
            drop(ended);
            done
        };
        let feeding = async {
            let fed = async {
                if is_held {
                    self.weigh(cx, inside, &is_over).await?;
                }
                let feeder = Feeder {
                    pipes: Arc::clone(&self.pipes),
                    from: Arc::clone(from),
                    is_over: Arc::clone(&is_over),
                    token: token.clone(),
                    sink: cx.sink(),
                    total: self.pipes.iter().map(|pipe| pipe.size).sum(),
                    done: AtomicU64::new(0),
                    writers: AtomicUsize::new(0),
                    failure: Mutex::new(None),
                };
                tokio::task::spawn_blocking(move || feeder.run())
                    .await
                    .map_err(|error| DriverError::new(ErrorKind::Other, "feed pg_restore").because(error))?
            }
            .await;
            if fed.is_err() {
                token.cancel();
            }
            fed
        };
        let (done, fed) = tokio::join!(working, feeding);
        match fed {
            Err(error) if !matches!(error.kind, ErrorKind::Stopped(_)) => Err(error),
            Ok(()) | Err(_) => done,
        }
    }

    /// Waits until `pg_restore` is held back, puts the pipes into their places, and lets it go on.
    async fn weigh(&self, cx: &Cx, session: &Session, is_over: &AtomicBool) -> Result<(), DriverError> {
        while !is_over.load(Ordering::Acquire) {
            let held: u64 = parsed(&session.row(cx, "look for who is held back", HELD).await?, 0)?;
            if held > 0 {
                break;
            }
            cx.run(tokio::time::sleep(PAUSE)).await?;
        }
        self.place()?;
        session.execute(cx, "let the first table be made", "COMMIT").await
    }

    fn place(&self) -> Result<(), DriverError> {
        if self.is_placed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        for pipe in self.pipes.iter().filter(|pipe| pipe.is_weighed) {
            rustix::fs::renameat(&self.waiting, &pipe.name, &self.archive, &pipe.name).map_err(|error| {
                DriverError::io(format!("put a pipe in the place of {}", pipe.path), error.into())
            })?;
        }
        Ok(())
    }
}

/// Whether the first table is held back now.
async fn hold(cx: &Cx, inside: &Session) -> Result<bool, DriverError> {
    match inside.execute(cx, "hold the first table back", HOLD).await {
        Ok(()) => Ok(true),
        Err(error) if error.kind == ErrorKind::PermissionDenied => {
            inside.execute(cx, "hold nothing back", "ROLLBACK").await?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Nobody makes a table, a view or an index while this is held; everybody may look.
const HOLD: &str = "BEGIN; LOCK TABLE pg_catalog.pg_class IN SHARE MODE";
/// How many wait for it.
const HELD: &str = "SELECT count(*)::text FROM pg_catalog.pg_locks WHERE NOT granted \
                    AND relation = 'pg_catalog.pg_class'::pg_catalog.regclass \
                    AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())";

struct Feeder {
    pipes: Arc<Vec<Pipe>>,
    from: Arc<dyn CopyReader>,
    is_over: Arc<AtomicBool>,
    token: CancellationToken,
    sink: ProgressSink,
    total: u64,
    done: AtomicU64,
    writers: AtomicUsize,
    failure: Mutex<Option<DriverError>>,
}

impl Feeder {
    /// Writes each pipe once, when somebody reads it, until `pg_restore` is over or a file cannot be read.
    fn run(self) -> Result<(), DriverError> {
        std::thread::scope(|scope| {
            let mut waiting: Vec<&Pipe> = self.pipes.iter().collect();
            while !waiting.is_empty() && !self.is_stopped() {
                let mut kept = Vec::new();
                for pipe in waiting {
                    let is_full = self.writers.load(Ordering::Acquire) >= WRITERS_MAX;
                    match if is_full { Ok(None) } else { open(pipe) } {
                        Ok(None) => kept.push(pipe),
                        Ok(Some(into)) => {
                            self.writers.fetch_add(1, Ordering::AcqRel);
                            let feeder = &self;
                            scope.spawn(move || feeder.write(pipe, into));
                        }
                        Err(error) => {
                            let context = format!("write {} to pg_restore", pipe.path);
                            self.fail(DriverError::io(context, error.into()));
                            kept.push(pipe);
                        }
                    }
                }
                waiting = kept;
                std::thread::sleep(PAUSE);
            }
        });
        self.failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn is_stopped(&self) -> bool {
        self.is_over.load(Ordering::Acquire) || self.token.is_cancelled()
    }

    fn fail(&self, error: DriverError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.token.cancel();
    }

    fn write(&self, pipe: &Pipe, into: OwnedFd) {
        if let Err(error) = self.pour(pipe, &into) {
            self.fail(error);
            // An end of the pipe would look like the end of the file to whoever reads it.
            while !self.is_over.load(Ordering::Acquire) {
                std::thread::sleep(PAUSE);
            }
        }
        drop(into);
        self.writers.fetch_sub(1, Ordering::AcqRel);
    }

    fn pour(&self, pipe: &Pipe, into: &OwnedFd) -> Result<(), DriverError> {
        let context = || format!("read {} of the copy", pipe.path);
        let mut source = self.from.open(&pipe.path)?;
        let mut buffer = vec![0; PIPE_BYTES];
        let mut size = 0;
        loop {
            let length = source.read(&mut buffer).map_err(|error| DriverError::io(context(), error))?;
            if length == 0 {
                break;
            }
            if !self.push(pipe, into, &buffer[..length])? {
                return Ok(());
            }
            size += length as u64;
            let done = self.done.fetch_add(length as u64, Ordering::Relaxed) + length as u64;
            (self.sink)(Progress::Bytes { done, total: Some(self.total) });
        }
        if size == pipe.size {
            pipe.is_poured.store(true, Ordering::Release);
            return Ok(());
        }
        let why = format!("its size is recorded as {}, its content has {size} bytes", pipe.size);
        Err(DriverError::new(ErrorKind::Corrupt, context()).because(why).code(FindingCode::ArchiveTruncated))
    }

    /// Whether it was all taken: a reader that went away, or a stop, is told by the end of `pg_restore`.
    fn push(&self, pipe: &Pipe, into: &OwnedFd, bytes: &[u8]) -> Result<bool, DriverError> {
        let mut left = bytes;
        while !left.is_empty() {
            if self.is_stopped() {
                return Ok(false);
            }
            match rustix::io::write(into, left) {
                Ok(written) => left = &left[written..],
                Err(Errno::PIPE) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let mut ready = [PollFd::new(into, PollFlags::OUT)];
                    match rustix::event::poll(&mut ready, Some(&POLL)) {
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(error) => {
                            let context = format!("wait for pg_restore to take {}", pipe.path);
                            return Err(DriverError::io(context, error.into()));
                        }
                    }
                }
                Err(error) => {
                    return Err(DriverError::io(format!("write {} to pg_restore", pipe.path), error.into()));
                }
            }
        }
        Ok(true)
    }
}

/// The end of a pipe that is written to; `None` while nobody reads it.
fn open(pipe: &Pipe) -> Result<Option<OwnedFd>, Errno> {
    let path = format!("/proc/self/fd/{}", pipe.handle.as_raw_fd());
    match rustix::fs::openat(CWD, path, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()) {
        Ok(opened) => {
            // A refusal costs speed, nothing else.
            rustix::pipe::fcntl_setpipe_size(&opened, PIPE_BYTES).ok();
            Ok(Some(opened))
        }
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error),
    }
}
