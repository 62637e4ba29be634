//! The catalogue in one SQLite file: the door in front of its thread.
//!
//! One thread owns the connection; calls are queued to it and answered. A call whose caller has stopped waiting before it
//! began is not carried out; one that has begun is finished. Other processes may use the same file at the same time.

mod schema;
mod store;

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use seaworthy_model::assess::SourceHistory;
use seaworthy_model::id::ServiceName;
use seaworthy_model::point::RecoveryPoint;
use seaworthy_model::receipt::Head;
use tokio::sync::{mpsc, oneshot};

use crate::{Catalog, CatalogError, Claim, HeldClaim, JournalEntry, PointQuery, ReceiptQuery, StoredReceipt};

/// Calls that may wait for the thread. More than there are tasks in a process; a full queue is waited for.
const QUEUE: usize = 64;

/// How long another process may hold the file before a call gives up: longer than any of our transactions, rebuild apart.
const BUSY: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// Whether to make a catalogue where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Make one, in a directory closed to others.
    OrCreate,
    /// Refuse.
    Existing,
}

/// A catalogue in one SQLite file, closed to others.
#[derive(Debug)]
pub struct SqliteCatalog {
    path: PathBuf,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// Removed with everything in it at the end, where this is a copy.
    borrowed: Option<PathBuf>,
}

impl SqliteCatalog {
    /// Opens the catalogue at `path` and brings its layout up to date.
    ///
    /// The file is made with mode 0600, its directory with 0700; ones that are open to others are refused. Blocks for
    /// milliseconds, or for as long as another process migrates.
    pub fn open(path: &Path, mode: OpenMode) -> Result<Self, CatalogError> {
        Self::start(path, mode, None)
    }

    /// Opens a private copy of the catalogue at `path`: nothing there changes, and what is written is lost with the copy.
    ///
    /// For rehearsals. Opening the catalogue itself would at least fold in its log and bring its layout up to date. Blocks
    /// for as long as copying takes; [`CatalogError::Locked`] when somebody keeps writing meanwhile.
    pub fn open_copy(path: &Path, mode: OpenMode) -> Result<Self, CatalogError> {
        let directory = borrow(path, mode)?;
        let copy = directory.join(COPY);
        let opened = Self::start(&copy, OpenMode::OrCreate, Some(directory.clone()));
        if opened.is_err() {
            give_back(&directory);
        }
        opened
    }

    fn start(path: &Path, mode: OpenMode, borrowed: Option<PathBuf>) -> Result<Self, CatalogError> {
        prepare(path, mode)?;
        let mut connection = connect(path)?;
        schema::migrate(&mut connection, path)?;
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let thread = std::thread::Builder::new()
            .name("catalogue".to_owned())
            .spawn(move || {
                while let Some(job) = queue.blocking_recv() {
                    job(&mut connection);
                }
            })
            .map_err(|source| CatalogError::Io {
                attempt: "start the thread of",
                path: path.to_owned(),
                source,
            })?;
        Ok(Self { path: path.to_owned(), jobs: Some(jobs), thread: Some(thread), borrowed })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, CatalogError> {
        let (answer, wait) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            if answer.is_closed() {
                return;
            }
            // An answer that nobody waits for any more is dropped; the caller was told so by `Catalog`.
            drop(answer.send(work(connection)));
        });
        self.jobs.as_ref().ok_or(CatalogError::Closed)?.send(job).await.map_err(|_| CatalogError::Closed)?;
        wait.await.map_err(|_| CatalogError::Closed)?
    }
}

impl Drop for SqliteCatalog {
    /// Waits for what has been queued.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed by its own hook, and there is nobody left to tell.
            drop(thread.join());
        }
        if let Some(directory) = &self.borrowed {
            give_back(directory);
        }
    }
}

/// Name of a copy in its own directory.
const COPY: &str = "catalogue.sqlite";

/// How often a copy is begun again because somebody wrote meanwhile.
const COPY_TRIES: u32 = 20;

/// Copies the catalogue and its log into a new directory of ours alone.
fn borrow(path: &Path, mode: OpenMode) -> Result<PathBuf, CatalogError> {
    let failed = |attempt, path: &Path| {
        let path = path.to_owned();
        move |source| CatalogError::Io { attempt, path, source }
    };
    let is_there = path.try_exists().map_err(failed("look for", path))?;
    if !is_there && mode == OpenMode::Existing {
        return Err(CatalogError::Missing(path.to_owned()));
    }
    if is_there {
        closed(path)?;
    }
    let place = std::env::temp_dir();
    let directory = (0..COPY_TRIES)
        .find_map(|attempt| {
            let directory = place.join(format!("seaworthy-look-{}-{attempt}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&directory) {
                Ok(()) => Some(Ok(directory)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => None,
                Err(error) => Some(Err(error)),
            }
        })
        .unwrap_or_else(|| Err(std::io::ErrorKind::AlreadyExists.into()))
        .map_err(failed("make a directory in", &place))?;
    let log = |path: &Path| {
        let mut name = path.as_os_str().to_owned();
        name.push("-wal");
        PathBuf::from(name)
    };
    let copied = || -> std::io::Result<bool> {
        for _ in 0..COPY_TRIES {
            let before = (stamp(path)?, stamp(&log(path))?);
            let copy = directory.join(COPY);
            for (from, to) in [(path.to_owned(), copy.clone()), (log(path), log(&copy))] {
                match std::fs::copy(&from, &to) {
                    Ok(_) => {}
                    // A log that is not there must not be left from the try before.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                        match std::fs::remove_file(&to) {
                            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                            Ok(()) | Err(_) => {}
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
            if before == (stamp(path)?, stamp(&log(path))?) {
                return Ok(true);
            }
        }
        Ok(false)
    };
    match copied() {
        Ok(true) => Ok(directory),
        Ok(false) => {
            give_back(&directory);
            Err(CatalogError::Locked)
        }
        Err(source) => {
            give_back(&directory);
            Err(CatalogError::Io { attempt: "copy", path: path.to_owned(), source })
        }
    }
}

/// What changes when somebody writes to a file; `None` for one that is not there.
fn stamp(path: &Path) -> std::io::Result<Option<(u64, u64, i64, i64)>> {
    match std::fs::metadata(path) {
        Ok(facts) => Ok(Some((facts.ino(), facts.size(), facts.mtime(), facts.mtime_nsec()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a copy. What cannot be removed is a private file in the directory of temporary files, which the system clears.
fn give_back(directory: &Path) {
    drop(std::fs::remove_dir_all(directory));
}

fn prepare(path: &Path, mode: OpenMode) -> Result<(), CatalogError> {
    let failed = |attempt, path: &Path| {
        let path = path.to_owned();
        move |source| CatalogError::Io { attempt, path, source }
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    if !path.try_exists().map_err(failed("look for", path))? {
        match mode {
            OpenMode::Existing => return Err(CatalogError::Missing(path.to_owned())),
            OpenMode::OrCreate => {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(directory)
                    .map_err(failed("make the directory", directory))?;
                closed(directory)?;
                // Not create_new: another process may be faster, and its file serves as well.
                OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .mode(0o600)
                    .open(path)
                    .map_err(failed("make", path))?;
                File::open(directory)
                    .and_then(|directory| directory.sync_all())
                    .map_err(failed("sync", directory))?;
            }
        }
    }
    closed(directory)?;
    closed(path)
}

fn closed(path: &Path) -> Result<(), CatalogError> {
    let metadata = std::fs::metadata(path).map_err(|source| CatalogError::Io {
        attempt: "look at",
        path: path.to_owned(),
        source,
    })?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(CatalogError::Exposed { path: path.to_owned(), mode });
    }
    Ok(())
}

fn connect(path: &Path) -> Result<Connection, CatalogError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    let journal: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if journal != "wal" {
        return Err(CatalogError::Damaged(format!("its journal mode is `{journal}` and cannot be WAL here")));
    }
    // FULL: in WAL mode anything less may lose an acknowledged receipt when the power fails.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

impl From<rusqlite::Error> for CatalogError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => Self::Locked,
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                Self::Damaged(error.to_string())
            }
            _ => Self::Sqlite(error),
        }
    }
}

#[async_trait]
impl Catalog for SqliteCatalog {
    async fn head(&self) -> Result<Option<Head>, CatalogError> {
        self.call(|connection| store::head(connection)).await
    }

    async fn append(
        &self,
        expected: Option<&Head>,
        lines: Vec<String>,
        claim: Option<&Claim>,
    ) -> Result<Head, CatalogError> {
        let (expected, claim) = (expected.cloned(), claim.cloned());
        self.call(move |connection| store::append(connection, expected, &lines, claim.as_ref())).await
    }

    async fn receipts(&self, query: &ReceiptQuery) -> Result<Vec<StoredReceipt>, CatalogError> {
        let query = query.clone();
        self.call(move |connection| store::receipts(connection, &query)).await
    }

    async fn points(&self, query: &PointQuery) -> Result<Vec<RecoveryPoint>, CatalogError> {
        let query = query.clone();
        self.call(move |connection| store::points(connection, &query)).await
    }

    async fn histories(
        &self,
        service: Option<&ServiceName>,
    ) -> Result<(Option<Head>, Vec<SourceHistory>), CatalogError> {
        let service = service.cloned();
        self.call(move |connection| store::histories(connection, service.as_ref())).await
    }

    async fn claim(
        &self,
        name: &str,
        holder: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Claim, CatalogError> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        self.call(move |connection| store::claim(connection, name, &holder, now, until)).await
    }

    async fn renew(&self, claim: &Claim, until: Timestamp) -> Result<(), CatalogError> {
        let claim = claim.clone();
        self.call(move |connection| store::renew(connection, &claim, until)).await
    }

    async fn release(&self, claim: &Claim) -> Result<(), CatalogError> {
        let claim = claim.clone();
        self.call(move |connection| store::release(connection, &claim)).await
    }

    async fn claims(&self) -> Result<Vec<HeldClaim>, CatalogError> {
        self.call(|connection| store::claims(connection)).await
    }

    async fn journal(&self, claim: &Claim, event: &[u8]) -> Result<(), CatalogError> {
        let (claim, event) = (claim.clone(), event.to_owned());
        self.call(move |connection| store::journal(connection, &claim, &event)).await
    }

    async fn journal_of(&self, name: &str) -> Result<Vec<JournalEntry>, CatalogError> {
        let name = name.to_owned();
        self.call(move |connection| store::journal_of(connection, &name)).await
    }

    async fn rebuild(&self) -> Result<(), CatalogError> {
        self.call(store::rebuild).await
    }

    async fn derived(&self) -> Result<Vec<u8>, CatalogError> {
        self.call(|connection| store::derived(connection)).await
    }
}
