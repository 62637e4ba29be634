//! A SQLite database file: copied page by page out of one read transaction, and measured through SQL in the same one.
//!
//! A live database is never read as a file: its newest commits may lie in the write-ahead log, and closing a second
//! descriptor would drop the locks of this process. Pages come from the engine, by one of two routes:
//!
//! - *direct*, for WAL databases: `sqlite_dbpage` inside the read transaction. Writers go on writing, nothing is
//!   staged, memory is one page.
//! - *staged*, for rollback-journal databases, whose writers must wait for readers, and for builds without
//!   `sqlite_dbpage`: the online backup API copies into a private directory inside the read transaction, so that it
//!   never restarts; the lock is given back before the slow part, storing, begins. Room is checked first.
//!
//! A source is opened read-only and never checkpointed; only the empty `-wal` and the `-shm` that reading a database
//! which nobody has open leaves beside it are given back to SQLite to remove. Every database, restored ones above all, is treated as hostile:
//! defensive mode, untrusted schema, no extensions, no attached files, cell sizes checked. The engine that opens a
//! restore is this process's own SQLite, not a program inside the sandbox: it runs no code of the database's but its
//! expressions, with untrusted functions refused.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp, civil, tz};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _};
use seaworthy_interface::copy::Written;
use seaworthy_interface::{
    Captured, CopyPath, CopyReader, CopyWriter, Cuts, Cx, Damage, Delivered, DriverError, ErrorKind, Exec,
    NewTarget, Progress, Restored, Sandbox, Source, SourceFacts, StoredFile,
};
use seaworthy_model::check::{Question, UserCheck};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::receipt::CLOCK_STEP;
use seaworthy_model::source::SqliteSpec;
use seaworthy_model::verdict::{CheckOutcome, CheckReport};
use seaworthy_model::witness::content::{Content, Measure, hex};
use seaworthy_model::witness::files::unescape;
use seaworthy_model::witness::sqlite::{
    IMAGE, Integrity, Orphans, RowSum, SCHEMA, SchemaObject, TableContent, rows_check, shown,
};
use seaworthy_model::witness::{SqliteWitness, Witness};
use sha2::{Digest as _, Sha256};

use super::blocking::{Watch, blocking};

/// Version of the witness's shape and of how rows are hashed.
const WITNESS_VERSION: u32 = 1;

/// Pages copied between two looks at the clock while staging.
const PAGES_PER_STEP: i32 = 1024;

/// Instructions of SQLite's virtual machine between two looks at the clock: some milliseconds.
const OPS_PER_LOOK: i32 = 20_000;

/// Kept free on the scratch file system beside a staged copy.
const SPARE_BYTES: u64 = 64 << 20;

/// How long SQLite waits for a lock before this program looks at the clock again.
const BUSY_STEP: Duration = Duration::from_millis(200);

/// Messages of `integrity_check` that are kept.
const MESSAGES_MAX: usize = 20;

/// How pages leave a live database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PageRoute {
    /// Direct for WAL databases where this build can, else staged.
    #[default]
    Automatic,
    /// Through `sqlite_dbpage`; an error where this build lacks it.
    Direct,
    /// Through the online backup API and a private file.
    Staged,
}

/// A SQLite database file as a source.
#[derive(Debug, Clone)]
pub struct SqliteSource {
    spec: SqliteSpec,
    scratch: PathBuf,
    route: PageRoute,
}

impl SqliteSource {
    /// The database that `spec` names; a staged copy, where one is needed, lies below `scratch`.
    #[must_use]
    pub fn new(spec: SqliteSpec, scratch: impl Into<PathBuf>) -> Self {
        Self { spec, scratch: scratch.into(), route: PageRoute::Automatic }
    }

    /// With the route of pages fixed.
    #[must_use]
    pub fn with_route(mut self, route: PageRoute) -> Self {
        self.route = route;
        self
    }

    /// Opens the database and begins the read transaction that everything is taken in.
    ///
    /// Waits for a writer's commit at most as long as the spec allows. The instant lies before the transaction: what was
    /// committed by then is in the copy, what came later need not be.
    fn open_source(&self, watch: &Watch) -> Result<(Connection, Timestamp), DriverError> {
        let path = Path::new(&self.spec.path);
        if !path.is_absolute() {
            return Err(DriverError::new(ErrorKind::Refused, format!("open `{}`", self.spec.path))
                .hint("name the database by its absolute path"));
        }
        // SQLite's own message for all of these is "unable to open database file". Asked without opening: closing a
        // descriptor would drop the locks of any other connection of this process.
        let context = || format!("open `{}`", self.spec.path);
        let metadata = fs::metadata(path).map_err(|error| DriverError::io(context(), error))?;
        if !metadata.is_file() {
            return Err(DriverError::new(ErrorKind::Refused, context()).hint("it is not a regular file"));
        }
        rustix::fs::access(path, rustix::fs::Access::READ_OK)
            .map_err(|error| DriverError::io(context(), error.into()))?;
        refuse_to_leave_foreign_files(path, &metadata)?;
        let limit = Duration::try_from(self.spec.busy_timeout).unwrap_or(Duration::ZERO);
        let began = Instant::now();
        loop {
            let point = Timestamp::now();
            let opened = connect(path, Access::ReadOnly, BUSY_STEP, watch)
                .and_then(|connection| begin_snapshot(&connection).map(|()| connection));
            let error = match opened {
                Ok(connection) => return Ok((connection, point)),
                Err(error) => error,
            };
            watch.check()?;
            let is_busy = matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
            );
            if !is_busy || began.elapsed() >= limit {
                return Err(failed(context(), error, watch));
            }
        }
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    PathBuf::from(path)
}

/// Reading a WAL database that nobody has open makes `-wal` and `-shm` beside it, which its owner must be able to write.
///
/// Root's are given to the owner by SQLite, the owner's are his own; any other user's could keep the application out.
fn refuse_to_leave_foreign_files(path: &Path, metadata: &fs::Metadata) -> Result<(), DriverError> {
    let user = rustix::process::geteuid();
    let directory = path.parent().unwrap_or(path);
    let makes_them = !beside(path, "-shm").exists()
        && !user.is_root()
        && user.as_raw() != metadata.uid()
        && rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).is_ok();
    if !makes_them {
        return Ok(());
    }
    let context = || format!("open `{}`", path.display());
    let mut header = [0; 20];
    let read = File::open(path).and_then(|file| file.read_at(&mut header, 0));
    let is_wal = read.map_err(|error| DriverError::io(context(), error))? == 20 && header[18..] == [2, 2];
    if is_wal {
        return Err(DriverError::new(ErrorKind::Refused, context())
            .hint("its application is not running: run the backup as the file's owner or as root"));
    }
    Ok(())
}

/// What lay beside a database before it was opened.
struct Surroundings {
    path: PathBuf,
    was_alone: bool,
}

impl Surroundings {
    fn of(path: &Path) -> Self {
        let was_alone = !beside(path, "-wal").exists() && !beside(path, "-shm").exists();
        Self { path: path.to_owned(), was_alone }
    }

    /// Takes away the empty `-wal` and the `-shm` that a read-only connection makes and cannot remove.
    ///
    /// By SQLite itself, under its own locks: a connection that may write, and is the last one, removes them when it is
    /// closed. They are never unlinked by hand, for an application may have begun to use them.
    fn tidy(&self, watch: &Watch) -> Result<(), DriverError> {
        let is_ours = self.was_alone
            && fs::metadata(beside(&self.path, "-wal")).is_ok_and(|metadata| metadata.len() == 0);
        if !is_ours {
            return Ok(());
        }
        let connection = open_untrusted(&self.path, Access::Write, Duration::ZERO, watch)?;
        let looked = connection.query_row("PRAGMA main.schema_version", [], |_| Ok(()));
        match looked.and(connection.close().map_err(|(_, error)| error)) {
            Ok(()) => Ok(()),
            // Somebody else has it by now, or it may not be written: then the files are theirs, or stay.
            Err(error)
                if matches!(
                    error.sqlite_error_code(),
                    Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::ReadOnly)
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(failed(format!("tidy up beside `{}`", self.path.display()), error, watch)),
        }
    }
}

/// What a connection may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    ReadOnly,
    /// A scratch copy of ours.
    Write,
}

fn open_untrusted(
    path: &Path,
    access: Access,
    busy: Duration,
    watch: &Watch,
) -> Result<Connection, DriverError> {
    connect(path, access, busy, watch)
        .map_err(|error| failed(format!("open `{}`", path.display()), error, watch))
}

/// A connection that trusts nothing that it reads.
fn connect(path: &Path, access: Access, busy: Duration, watch: &Watch) -> rusqlite::Result<Connection> {
    let mode = match access {
        Access::ReadOnly => OpenFlags::SQLITE_OPEN_READ_ONLY,
        Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
    };
    let mut connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(busy)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, access == Access::ReadOnly)?;
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    connection.set_limit(Limit::SQLITE_LIMIT_WORKER_THREADS, 0)?;
    let watch = watch.clone();
    connection.progress_handler(OPS_PER_LOOK, Some(move || watch.check().is_err()))?;
    connection
        .execute_batch("PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0; PRAGMA cache_size = -16384;")?;
    Ok(connection)
}

/// Translates SQLite's codes: what stopped it, who can help.
fn failed(context: impl Into<String>, error: rusqlite::Error, watch: &Watch) -> DriverError {
    if let Err(stop) = watch.check() {
        return stop.into();
    }
    let context = context.into();
    let extended = error.sqlite_error().map_or(0, |error| error.extended_code);
    let described = |kind| DriverError::new(kind, context.clone());
    let translated = match error.sqlite_error_code() {
        // SQLITE_READONLY_RECOVERY, _ROLLBACK and _CANTINIT: a crash left work that only a writer may finish.
        Some(ErrorCode::ReadOnly) if matches!(extended, 264 | 776 | 1288) => described(ErrorKind::Conflict)
            .hint("a crash left a journal behind: open the database once with its application, which finishes it"),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => described(ErrorKind::Conflict)
            .hint("another connection holds the database exclusively: raise `busy_timeout`, or look for it"),
        Some(ErrorCode::NotADatabase) => {
            described(ErrorKind::Corrupt).code(FindingCode::Corruption).hint("is it encrypted, or another format?")
        }
        Some(ErrorCode::DatabaseCorrupt) => described(ErrorKind::Corrupt).code(FindingCode::Corruption),
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => described(ErrorKind::PermissionDenied),
        Some(ErrorCode::CannotOpen) => described(ErrorKind::PermissionDenied)
            .hint("a WAL database needs a directory that this user may write to, or a running application"),
        Some(ErrorCode::DiskFull) => described(ErrorKind::Exhausted).code(FindingCode::NoSpace),
        Some(ErrorCode::OutOfMemory) => described(ErrorKind::Exhausted),
        Some(ErrorCode::SystemIoFailure) => described(ErrorKind::Other).code(FindingCode::ReadFailed),
        Some(_) | None => described(ErrorKind::Other),
    };
    translated.because(error)
}

fn is_interrupt(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Text of a value that need not be UTF-8.
fn lossy(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
    }
}

/// Begins the read transaction that everything is taken in.
fn begin_snapshot(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN")?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
}

fn pragma_text(connection: &Connection, name: &str) -> rusqlite::Result<String> {
    connection.query_row(&format!("PRAGMA main.{name}"), [], |row| Ok(lossy(row.get_ref(0)?)))
}

fn pragma_number(connection: &Connection, name: &str) -> rusqlite::Result<u64> {
    let number: i64 = connection.query_row(&format!("PRAGMA main.{name}"), [], |row| row.get(0))?;
    Ok(u64::try_from(number).unwrap_or(0))
}

fn properties(connection: &Connection) -> rusqlite::Result<BTreeMap<String, String>> {
    let mut properties = BTreeMap::new();
    for name in ["application_id", "user_version", "page_size", "page_count", "encoding", "auto_vacuum"] {
        properties.insert(name.to_owned(), pragma_text(connection, name)?);
    }
    // Among the rollback modes the choice is the connection's, not the file's.
    let is_wal = pragma_text(connection, "journal_mode")? == "wal";
    properties.insert("journal".to_owned(), if is_wal { "wal" } else { "rollback" }.to_owned());
    Ok(properties)
}

/// What SQL says of the snapshot. The same code measures the source and the restore.
struct Measured {
    properties: BTreeMap<String, String>,
    objects: Vec<SchemaObject>,
    tables: Vec<TableContent>,
    sequences: BTreeMap<String, i64>,
    orphans: Orphans,
}

fn measure(connection: &Connection, watch: &Watch) -> Result<Measured, DriverError> {
    let wrong = |what: &str| {
        let context = format!("read {what}");
        move |error| failed(context, error, watch)
    };
    let properties = properties(connection).map_err(wrong("the database's properties"))?;
    let (objects, stored) = objects(connection).map_err(wrong("the schema"))?;
    let mut tables = Vec::with_capacity(stored.len());
    for (done, name) in stored.iter().enumerate() {
        watch.check()?;
        watch.progress(Progress::Items { done: done as u64, total: Some(stored.len() as u64) });
        tables.push(measure_table(connection, name, watch)?);
    }
    let sequences = sequences(connection, &stored).map_err(wrong("sqlite_sequence"))?;
    let orphans = orphans(connection, watch)?;
    Ok(Measured { properties, objects, tables, sequences, orphans })
}

/// Every object, and the names of the tables that store rows.
fn objects(connection: &Connection) -> rusqlite::Result<(Vec<SchemaObject>, BTreeSet<String>)> {
    let mut statement =
        connection.prepare("SELECT type, name, tbl_name, sql, rootpage FROM main.sqlite_schema")?;
    let mut rows = statement.query([])?;
    let mut objects = Vec::new();
    let mut stored = BTreeSet::new();
    while let Some(row) = rows.next()? {
        let (kind, name) = (lossy(row.get_ref(0)?), lossy(row.get_ref(1)?));
        let definition = match row.get_ref(3)? {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Sha256::digest(bytes),
            ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => Sha256::digest(b""),
        };
        let is_stored = matches!(row.get_ref(4)?, ValueRef::Integer(page) if page != 0);
        if kind == "table" && is_stored {
            stored.insert(name.clone());
        }
        let table = lossy(row.get_ref(2)?);
        objects.push(SchemaObject { kind, name, table, definition: hex(&definition), is_usable: true });
    }
    for object in objects.iter_mut().filter(|object| object.kind == "view") {
        object.is_usable =
            connection.prepare(&format!("SELECT * FROM main.{}", quoted(&object.name))).is_ok();
    }
    objects.sort();
    Ok((objects, stored))
}

fn measure_table(connection: &Connection, name: &str, watch: &Watch) -> Result<TableContent, DriverError> {
    match sum_rows(connection, name) {
        Ok(sum) => Ok(TableContent {
            name: name.to_owned(),
            rows: Some(sum.rows),
            sum: sum.text(),
            unreadable: None,
        }),
        Err(error) => {
            watch.check()?;
            if is_interrupt(&error) {
                return Err(failed(format!("read table {}", shown(name)), error, watch));
            }
            // Damage inside one table must not hide the others: it is that table's answer.
            Ok(TableContent {
                name: name.to_owned(),
                rows: None,
                sum: String::new(),
                unreadable: Some(error.to_string()),
            })
        }
    }
}

/// The columns that a table stores: virtual generated ones are their definition, and hold code.
fn stored_columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(&format!("PRAGMA main.table_xinfo({})", quoted(table)))?;
    let mut rows = statement.query([])?;
    let mut columns = Vec::new();
    while let Some(row) = rows.next()? {
        let hidden: i64 = row.get(6)?;
        if hidden != 2 {
            columns.push(lossy(row.get_ref(1)?));
        }
    }
    Ok(columns)
}

/// The name that reaches a table's rowid; `None` where it has none or where columns have taken all three names.
fn rowid_name(connection: &Connection, table: &str) -> rusqlite::Result<Option<&'static str>> {
    let mut statement = connection.prepare(&format!("PRAGMA main.table_xinfo({})", quoted(table)))?;
    let taken: Vec<String> =
        statement.query_map([], |row| Ok(lossy(row.get_ref(1)?)))?.collect::<rusqlite::Result<_>>()?;
    let is_without: bool = connection
        .query_row("SELECT wr FROM pragma_table_list(?1) WHERE schema = 'main'", [table], |row| row.get(0))
        .optional()?
        .unwrap_or(false);
    let free = ["rowid", "_rowid_", "oid"]
        .into_iter()
        .find(|name| !taken.iter().any(|column| column.eq_ignore_ascii_case(name)));
    Ok(if is_without { None } else { free })
}

fn sum_rows(connection: &Connection, table: &str) -> rusqlite::Result<RowSum> {
    let mut columns: Vec<String> =
        stored_columns(connection, table)?.iter().map(|column| quoted(column)).collect();
    if let Some(rowid) = rowid_name(connection, table)? {
        columns.insert(0, rowid.to_owned());
    }
    if columns.is_empty() {
        columns.push("NULL".to_owned());
    }
    // NOT INDEXED: a covering index could answer in the table's stead and hide what is wrong with the table.
    let query = format!("SELECT {} FROM main.{} NOT INDEXED", columns.join(", "), quoted(table));
    let mut statement = connection.prepare(&query)?;
    let width = statement.column_count();
    let mut rows = statement.query([])?;
    let mut sum = RowSum::default();
    while let Some(row) = rows.next()? {
        let mut hash = Sha256::new();
        for column in 0..width {
            hash_value(&mut hash, row.get_ref(column)?);
        }
        let digest: [u8; 32] = hash.finalize().into();
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        sum.add(u128::from_le_bytes(half));
    }
    Ok(sum)
}

/// Type, length and bytes: no two different rows are the same text.
fn hash_value(hash: &mut Sha256, value: ValueRef<'_>) {
    let mut header = [0; 9];
    match value {
        ValueRef::Null => hash.update([0]),
        ValueRef::Integer(number) => {
            header[0] = 1;
            header[1..].copy_from_slice(&number.to_le_bytes());
            hash.update(header);
        }
        ValueRef::Real(number) => {
            header[0] = 2;
            header[1..].copy_from_slice(&number.to_bits().to_le_bytes());
            hash.update(header);
        }
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            header[0] = if matches!(value, ValueRef::Text(_)) { 3 } else { 4 };
            header[1..].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
            hash.update(header);
            hash.update(bytes);
        }
    }
}

fn sequences(connection: &Connection, stored: &BTreeSet<String>) -> rusqlite::Result<BTreeMap<String, i64>> {
    if !stored.contains("sqlite_sequence") {
        return Ok(BTreeMap::new());
    }
    let mut statement = connection.prepare("SELECT name, seq FROM main.sqlite_sequence")?;
    let mut rows = statement.query([])?;
    let mut sequences = BTreeMap::new();
    while let Some(row) = rows.next()? {
        // An application may have put anything here; only a number is a position.
        if let ValueRef::Integer(position) = row.get_ref(1)? {
            sequences.insert(lossy(row.get_ref(0)?), position);
        }
    }
    Ok(sequences)
}

fn orphans(connection: &Connection, watch: &Watch) -> Result<Orphans, DriverError> {
    let ask = || -> rusqlite::Result<BTreeMap<String, u64>> {
        let mut statement = connection.prepare("PRAGMA main.foreign_key_check")?;
        let mut rows = statement.query([])?;
        let mut found: BTreeMap<String, u64> = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let reference = format!("{} -> {}", lossy(row.get_ref(0)?), lossy(row.get_ref(2)?));
            *found.entry(reference).or_default() += 1;
        }
        Ok(found)
    };
    match ask() {
        Ok(by_reference) => Ok(Orphans::Counted { by_reference }),
        Err(error) => {
            watch.check()?;
            Ok(Orphans::Unknown { reason: error.to_string() })
        }
    }
}

fn integrity(connection: &Connection, watch: &Watch) -> Result<Integrity, DriverError> {
    let ask = || -> rusqlite::Result<Vec<String>> {
        let mut statement = connection.prepare("PRAGMA main.integrity_check(1000)")?;
        statement.query_map([], |row| Ok(lossy(row.get_ref(0)?)))?.collect()
    };
    match ask() {
        Ok(messages) if messages == ["ok"] => Ok(Integrity::Sound),
        Ok(messages) if messages.is_empty() => {
            Ok(Integrity::Unknown { reason: "integrity_check said nothing".to_owned() })
        }
        // What an application brings along (a tokenizer, a collation) is not here: that is no verdict on the database.
        Ok(messages) if messages.iter().all(|message| wants_application(message)) => {
            Ok(Integrity::Unknown { reason: messages.into_iter().take(3).collect::<Vec<_>>().join("; ") })
        }
        Ok(messages) => {
            let count = messages.len() as u64;
            Ok(Integrity::Broken { messages: messages.into_iter().take(MESSAGES_MAX).collect(), count })
        }
        Err(error) => {
            watch.check()?;
            let is_corrupt = matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
            );
            let message = error.to_string();
            if is_corrupt && !wants_application(&message) {
                Ok(Integrity::Broken { messages: vec![message], count: 1 })
            } else {
                Ok(Integrity::Unknown { reason: message })
            }
        }
    }
}

fn wants_application(message: &str) -> bool {
    ["no such module", "no such tokenizer", "no such collation", "no such function", "unsafe use of"]
        .iter()
        .any(|words| message.contains(words))
}

/// `application_id` and its friends never hold a quote; a file name may hold anything.
fn name_in_copy(path: &Path) -> Result<CopyPath, DriverError> {
    let mut name = path.file_stem().unwrap_or(OsStr::new("database")).as_bytes().to_vec();
    name.extend_from_slice(b".sqlite");
    CopyPath::new(name)
        .ok_or_else(|| DriverError::new(ErrorKind::Refused, format!("store `{}`", path.display())))
}

fn has_dbpage(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT sqlite_compileoption_used('ENABLE_DBPAGE_VTAB')", [], |row| row.get(0))
}

/// Streams the snapshot's pages out of the open read transaction.
fn store_direct(
    connection: &Connection,
    (page_bytes, page_count): (u32, u64),
    path: &CopyPath,
    to: &dyn CopyWriter,
    watch: &Watch,
) -> Result<StoredFile, DriverError> {
    let wrong = |error| failed("read the database's pages", error, watch);
    let size_bytes = page_count * u64::from(page_bytes);
    let mut file = to.begin(path, Cuts::Pages { page_bytes, size_bytes })?;
    if page_count == 0 {
        return file.finish();
    }
    let mut statement = connection.prepare("SELECT pgno, data FROM sqlite_dbpage('main')").map_err(wrong)?;
    let mut rows = statement.query([]).map_err(wrong)?;
    let mut next = 1_u64;
    let total = Some(page_count * u64::from(page_bytes));
    while let Some(row) = rows.next().map_err(wrong)? {
        let number: i64 = row.get(0).map_err(wrong)?;
        let page = row.get_ref(1).map_err(wrong)?;
        let bytes = page.as_blob().map_err(|error| wrong(error.into()))?;
        if u64::try_from(number) != Ok(next) || bytes.len() != page_bytes as usize {
            return Err(DriverError::new(ErrorKind::Corrupt, format!("read page {next} of the database")));
        }
        file.write(bytes)?;
        if next.is_multiple_of(1024) {
            watch.check()?;
            watch.progress(Progress::Bytes { done: next * u64::from(page_bytes), total });
        }
        next += 1;
    }
    if next != page_count + 1 {
        let context = format!("read {page_count} pages of the database, {} came", next - 1);
        return Err(DriverError::new(ErrorKind::Corrupt, context));
    }
    file.finish()
}

/// A private directory with a copy of the snapshot.
struct Staged {
    _place: tempfile::TempDir,
    path: PathBuf,
}

/// Copies the open snapshot into a private directory below `scratch`.
fn stage(connection: &Connection, bytes: u64, scratch: &Path, watch: &Watch) -> Result<Staged, DriverError> {
    fs::create_dir_all(scratch)
        .map_err(|error| DriverError::io(format!("make `{}`", scratch.display()), error))?;
    let room = rustix::fs::statvfs(scratch)
        .map_err(|error| DriverError::io(format!("look at `{}`", scratch.display()), error.into()))?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    if free < bytes.saturating_add(SPARE_BYTES) {
        let context = format!("stage {bytes} bytes below `{}`, {free} are free", scratch.display());
        return Err(DriverError::new(ErrorKind::Exhausted, context).code(FindingCode::NoSpace));
    }
    let place = tempfile::Builder::new()
        .prefix("sqlite-")
        .tempdir_in(scratch)
        .map_err(|error| DriverError::io(format!("make a directory below `{}`", scratch.display()), error))?;
    let path = place.path().join("staged.sqlite");
    let wrong = |error| failed("stage the database", error, watch);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let mut target =
        Connection::open_with_flags(&path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(wrong)?;
    // Thrown away whatever happens: neither a journal nor a flush is of use.
    target.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;").map_err(wrong)?;
    let backup = Backup::new(connection, &mut target).map_err(wrong)?;
    loop {
        watch.check()?;
        match backup.step(PAGES_PER_STEP).map_err(wrong)? {
            StepResult::Done => break,
            StepResult::More => {
                let progress = backup.progress();
                let page = |count: i32| u64::try_from(count).unwrap_or(0);
                let (total, left) = (page(progress.pagecount), page(progress.remaining));
                watch.progress(Progress::Bytes {
                    done: bytes.saturating_mul(total - left.min(total)) / total.max(1),
                    total: Some(bytes),
                });
            }
            // The read transaction is already open, so only another use of our own file could be in the way.
            StepResult::Busy | StepResult::Locked | _ => {
                return Err(DriverError::new(ErrorKind::Conflict, "stage the database: it is locked"));
            }
        }
    }
    drop(backup);
    target.close().map_err(|(_, error)| wrong(error))?;
    Ok(Staged { _place: place, path })
}

fn store_staged(
    staged: &Staged,
    page_bytes: u32,
    path: &CopyPath,
    to: &dyn CopyWriter,
    watch: &Watch,
) -> Result<StoredFile, DriverError> {
    let wrong = |error| DriverError::io("read the staged database", error);
    let mut source = File::open(&staged.path).map_err(wrong)?;
    let size_bytes = source.metadata().map_err(wrong)?.len();
    let mut file = to.begin(path, Cuts::Pages { page_bytes, size_bytes })?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        watch.check()?;
        let read = source.read(&mut buffer).map_err(wrong)?;
        if read == 0 {
            return file.finish();
        }
        file.write(&buffer[..read])?;
    }
}

fn capture(source: &SqliteSource, to: &dyn CopyWriter, watch: &Watch) -> Result<Captured, DriverError> {
    let surroundings = Surroundings::of(Path::new(&source.spec.path));
    let captured = capture_snapshot(source, to, watch);
    // After a failure too; the first failure is the one that is told.
    let tidied = surroundings.tidy(watch);
    let captured = captured?;
    tidied.map(|()| captured)
}

fn capture_snapshot(
    source: &SqliteSource,
    to: &dyn CopyWriter,
    watch: &Watch,
) -> Result<Captured, DriverError> {
    let path = name_in_copy(Path::new(&source.spec.path))?;
    watch.progress(Progress::Phase("snapshot".to_owned()));
    let (connection, point) = source.open_source(watch)?;
    let wrong = |what: &'static str| move |error| failed(what, error, watch);
    let page_size = pragma_number(&connection, "page_size").map_err(wrong("read the page size"))?;
    let page_count = pragma_number(&connection, "page_count").map_err(wrong("count the pages"))?;
    let is_wal = pragma_text(&connection, "journal_mode").map_err(wrong("read the journal mode"))? == "wal";
    let page_bytes = u32::try_from(page_size)
        .map_err(|_| DriverError::new(ErrorKind::Corrupt, format!("read pages of {page_size} bytes")))?;
    let is_direct = match source.route {
        // A file of no bytes is a database without pages; the backup API would write one.
        _ if page_count == 0 => true,
        PageRoute::Staged => false,
        PageRoute::Automatic => is_wal && has_dbpage(&connection).map_err(wrong("ask for sqlite_dbpage"))?,
        PageRoute::Direct => true,
    };
    let (stored, measured, integrity, witness_took);
    if is_direct {
        watch.progress(Progress::Phase("pages".to_owned()));
        stored = store_direct(&connection, (page_bytes, page_count), &path, to, watch)?;
        watch.progress(Progress::Phase("witness".to_owned()));
        let began = Instant::now();
        measured = measure(&connection, watch)?;
        integrity = self::integrity(&connection, watch)?;
        witness_took = began.elapsed();
        connection.close().map_err(|(_, error)| failed("close the database", error, watch))?;
    } else {
        watch.progress(Progress::Phase("staging".to_owned()));
        let staged = stage(&connection, page_size * page_count, &source.scratch, watch)?;
        watch.progress(Progress::Phase("witness".to_owned()));
        let began = Instant::now();
        measured = measure(&connection, watch)?;
        // From here on writers of a rollback-journal database no longer wait for us.
        connection.close().map_err(|(_, error)| failed("close the database", error, watch))?;
        let image = open_untrusted(&staged.path, Access::ReadOnly, Duration::ZERO, watch)?;
        integrity = self::integrity(&image, watch)?;
        image.close().map_err(|(_, error)| failed("close the staged database", error, watch))?;
        witness_took = began.elapsed();
        watch.progress(Progress::Phase("pages".to_owned()));
        stored = store_staged(&staged, page_bytes, &path, to, watch)?;
    }
    if stored.size != page_size * page_count {
        let context =
            format!("store {page_count} pages of {page_size} bytes; {} bytes were stored", stored.size);
        return Err(DriverError::new(ErrorKind::Corrupt, context));
    }
    let witness = SqliteWitness {
        version: WITNESS_VERSION,
        file: path.to_string(),
        image: Content::of_pieces(stored.pieces.iter().map(|piece| (piece.length, piece.sha256))),
        properties: measured.properties,
        objects: measured.objects,
        tables: measured.tables,
        sequences: measured.sequences,
        integrity,
        orphans: measured.orphans,
        may_be_empty: source.spec.may_be_empty,
    };
    Ok(Captured {
        point,
        findings: flaws(&witness, &source.spec.path),
        is_complete: true,
        size_bytes: stored.size,
        witness: Witness::Sqlite(Box::new(witness)),
        witness_took,
        released: None,
    })
}

/// What the source itself has wrong, which the copy repeats.
fn flaws(witness: &SqliteWitness, path: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let flawed = |detail: String| Finding::new(FindingCode::SourceFlawed, path, detail);
    match &witness.integrity {
        Integrity::Sound => {}
        Integrity::Broken { messages, count } => {
            let first = messages.first().map_or("", String::as_str);
            findings
                .push(flawed(format!("integrity_check of the source says {count} things, first: {first}")));
        }
        Integrity::Unknown { reason } => findings.push(Finding::new(
            FindingCode::NoWitness,
            path,
            format!("integrity_check could not be carried out: {reason}"),
        )),
    }
    match &witness.orphans {
        Orphans::Counted { by_reference } => {
            for (reference, rows) in by_reference.iter().take(MESSAGES_MAX) {
                findings.push(flawed(format!("{}: {rows} rows without a parent", shown(reference))));
            }
        }
        Orphans::Unknown { reason } => findings.push(Finding::new(
            FindingCode::NoWitness,
            path,
            format!("foreign_key_check could not be carried out: {reason}"),
        )),
    }
    for table in &witness.tables {
        if let Some(reason) = &table.unreadable {
            let detail = format!("the source's own table cannot be read: {reason}");
            findings.push(Finding::new(FindingCode::SourceFlawed, shown(&table.name), detail));
        }
    }
    if witness.is_empty() && !witness.may_be_empty {
        findings.push(Finding::new(
            FindingCode::PointImplausible,
            path,
            "the database holds no rows and is not declared `may_be_empty`",
        ));
    }
    findings
}

fn probe(source: &SqliteSource, watch: &Watch) -> Result<SourceFacts, DriverError> {
    let surroundings = Surroundings::of(Path::new(&source.spec.path));
    let (connection, _) = source.open_source(watch)?;
    let wrong = |error| failed(format!("look at `{}`", source.spec.path), error, watch);
    let properties = properties(&connection).map_err(wrong)?;
    let (_, stored) = objects(&connection).map_err(wrong)?;
    let number = |name: &str| properties.get(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let size_bytes = number("page_size") * number("page_count");
    let is_wal = properties.get("journal").is_some_and(|journal| journal == "wal");
    let is_direct = is_wal && has_dbpage(&connection).map_err(wrong)?;
    connection.close().map_err(|(_, error)| wrong(error))?;
    surroundings.tidy(watch)?;
    let metadata = fs::metadata(&source.spec.path)
        .map_err(|error| DriverError::io(format!("look at `{}`", source.spec.path), error))?;
    let mut findings = Vec::new();
    if !is_direct && let Ok(room) = rustix::fs::statvfs(&source.scratch) {
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        if free < size_bytes.saturating_add(SPARE_BYTES) {
            let detail = format!("staging needs {size_bytes} bytes, {free} are free");
            findings.push(Finding::new(FindingCode::NoSpace, source.scratch.display().to_string(), detail));
        }
    }
    Ok(SourceFacts {
        summary: format!(
            "SQLite {} database, {size_bytes} bytes, {} tables, {}",
            rusqlite::version(),
            stored.len(),
            if is_wal { "WAL" } else { "rollback journal: writers wait while it is copied" },
        ),
        identity: format!("file:{}:{}", metadata.dev(), metadata.ino()),
        size_bytes,
        log_bytes_per_hour: None,
        findings,
    })
}

fn expect_sqlite(witness: &Witness) -> Result<&SqliteWitness, DriverError> {
    match witness {
        Witness::Sqlite(witness) => Ok(witness),
        Witness::Postgres(_) | Witness::Files(_) => Err(DriverError::new(
            ErrorKind::Refused,
            format!("restore a copy of kind {} as SQLite", witness.kind()),
        )),
    }
}

/// Writes the stored image to `target`, which must not exist; never more than the witness says it has.
fn fetch(
    witness: &SqliteWitness,
    from: &dyn CopyReader,
    target: &Path,
    watch: &Watch,
) -> Result<Written, DriverError> {
    // The witness shows the path with escapes; only a name that needed none is taken back.
    let path = unescape(&witness.file).and_then(CopyPath::new).ok_or_else(|| {
        DriverError::new(ErrorKind::Refused, format!("read `{}` of the copy", witness.file))
    })?;
    let wrong = |error| DriverError::io(format!("write `{}`", target.display()), error);
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(target).map_err(wrong)?;
    let mut stream = from.open(&path)?;
    let mut buffer = vec![0; 1 << 20];
    let mut written = 0_u64;
    loop {
        watch.check()?;
        let read = stream
            .read(&mut buffer)
            .map_err(|error| DriverError::io(format!("read `{path}` of the copy"), error))?;
        if read == 0 {
            break;
        }
        written += read as u64;
        if written > witness.image.size {
            let context = format!("restore more than the {} bytes of the witness", witness.image.size);
            return Err(DriverError::new(ErrorKind::Corrupt, context).code(FindingCode::LimitExceeded));
        }
        file.write_all(&buffer[..read]).map_err(wrong)?;
        watch.progress(Progress::Bytes { done: written, total: Some(witness.image.size) });
    }
    Ok(Written { files: 1, bytes: written })
}

#[async_trait]
impl Source for SqliteSource {
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
        let expected = expect_sqlite(witness)?.clone();
        let path = into.root().join("restored.sqlite");
        let target = path.clone();
        blocking(cx, move |watch| {
            fetch(&expected, from.as_ref(), &target, watch)?;
            // The engine must start and answer: a file that merely lies there is not restored.
            let connection = open_untrusted(&target, Access::ReadOnly, Duration::ZERO, watch)?;
            begin_snapshot(&connection)
                .map_err(|error| failed("open the restored database", error, watch))?;
            connection.close().map_err(|(_, error)| failed("close the restored database", error, watch))
        })
        .await?;
        into.own(cx, &path).await?;
        Ok(Box::new(RestoredSqlite { path, sandbox: into }))
    }

    async fn deliver(
        &self,
        cx: &Cx,
        witness: &Witness,
        from: Arc<dyn CopyReader>,
        to: &NewTarget,
    ) -> Result<Delivered, DriverError> {
        let expected = expect_sqlite(witness)?.clone();
        let directory = match to {
            NewTarget::Directory(directory) => directory.clone(),
            NewTarget::Database { database, .. } => {
                return Err(DriverError::new(
                    ErrorKind::Unsupported,
                    format!("restore into database {database}"),
                )
                .hint("a SQLite database is restored to a new directory: --to DIRECTORY"));
            }
        };
        let name = Path::new(&self.spec.path).file_name().unwrap_or(OsStr::new("restored.sqlite")).to_owned();
        blocking(cx, move |watch| deliver(&expected, from.as_ref(), &directory, &name, watch)).await
    }
}

fn deliver(
    expected: &SqliteWitness,
    from: &dyn CopyReader,
    directory: &Path,
    name: &OsStr,
    watch: &Watch,
) -> Result<Delivered, DriverError> {
    let wrong = |what: &str| {
        let context = format!("{what} `{}`", directory.display());
        move |error| DriverError::io(context, error)
    };
    fs::create_dir_all(directory).map_err(wrong("make"))?;
    if fs::read_dir(directory).map_err(wrong("list"))?.next().is_some() {
        return Err(DriverError::new(ErrorKind::Conflict, format!("restore into `{}`", directory.display()))
            .code(FindingCode::LiveTarget)
            .hint("it holds something: name a directory that is new or empty"));
    }
    // Complete or absent: the final name appears last.
    let mut partial = name.to_owned();
    partial.push(".partial");
    let (partial, target) = (directory.join(partial), directory.join(name));
    let written = fetch(expected, from, &partial, watch)?;
    let observed = observe(&partial, expected, watch)?;
    for leftover in ["-wal", "-shm"] {
        let mut path = partial.clone().into_os_string();
        path.push(leftover);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(wrong("tidy")(error)),
        }
    }
    File::open(&partial).and_then(|file| file.sync_all()).map_err(wrong("flush"))?;
    fs::rename(&partial, &target).map_err(wrong("finish"))?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(wrong("flush"))?;
    let findings: Vec<Finding> =
        expected.compare(&observed).into_iter().flat_map(|report| report.findings).collect();
    let verdict = if findings.is_empty() { "equal to its witness" } else { "NOT equal to its witness" };
    Ok(Delivered {
        written,
        summary: format!(
            "{} ({} rows in {} tables), {verdict}",
            target.display(),
            observed.rows(),
            observed.tables.len()
        ),
        findings,
    })
}

/// Measures a database file of ours by the same code as the source.
fn observe(path: &Path, expected: &SqliteWitness, watch: &Watch) -> Result<SqliteWitness, DriverError> {
    let wrong = |error| DriverError::io(format!("read `{}`", path.display()), error);
    // The bytes first, while no connection is open: closing this descriptor drops the process's locks on the file.
    let mut file = File::open(path).map_err(wrong)?;
    let mut image = Measure::new(Some(&expected.image.cuts));
    let mut buffer = vec![0; 1 << 20];
    loop {
        watch.check()?;
        let read = file.read(&mut buffer).map_err(wrong)?;
        if read == 0 {
            break;
        }
        image.feed(&buffer[..read]);
    }
    drop(file);
    let image = image.finish();
    let (measured, integrity) = match ask_sqlite(path, watch) {
        Ok(answers) => answers,
        // Other bytes than those that were stored: that SQLite makes nothing of them blames them and nobody else.
        Err(error) if image != expected.image && !matches!(error.kind, ErrorKind::Stopped(_)) => {
            let context = format!(
                "measure a database image of {} bytes that is not the stored one of {} bytes",
                image.size, expected.image.size
            );
            return Err(DriverError::new(ErrorKind::Corrupt, context)
                .code(FindingCode::FileContent)
                .because(error));
        }
        Err(error) => return Err(error),
    };
    Ok(SqliteWitness {
        version: WITNESS_VERSION,
        file: expected.file.clone(),
        image,
        properties: measured.properties,
        objects: measured.objects,
        tables: measured.tables,
        sequences: measured.sequences,
        integrity,
        orphans: measured.orphans,
        may_be_empty: expected.may_be_empty,
    })
}

/// What a database file of ours says through SQL.
fn ask_sqlite(path: &Path, watch: &Watch) -> Result<(Measured, Integrity), DriverError> {
    let connection = open_untrusted(path, Access::ReadOnly, Duration::from_secs(5), watch)?;
    begin_snapshot(&connection).map_err(|error| failed("begin a read transaction", error, watch))?;
    let measured = measure(&connection, watch)?;
    let integrity = integrity(&connection, watch)?;
    connection.close().map_err(|(_, error)| failed("close the restored database", error, watch))?;
    Ok((measured, integrity))
}

/// A SQLite database restored into a sandbox.
#[derive(Debug)]
struct RestoredSqlite {
    path: PathBuf,
    sandbox: Arc<dyn Sandbox>,
}

impl RestoredSqlite {
    /// Runs `work` with a connection to the restore.
    async fn with<T: Send + 'static>(
        &self,
        cx: &Cx,
        access: Access,
        work: impl FnOnce(Connection, &Watch) -> Result<T, DriverError> + Send + 'static,
    ) -> Result<T, DriverError> {
        let path = self.path.clone();
        blocking(cx, move |watch| {
            let connection = open_untrusted(&path, access, Duration::from_secs(5), watch)?;
            work(connection, watch)
        })
        .await
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
impl Restored for RestoredSqlite {
    fn summary(&self) -> String {
        format!("SQLite {} reading {}", rusqlite::version(), self.path.display())
    }

    fn findings(&self) -> Vec<Finding> {
        Vec::new()
    }

    fn engine_identity(&self) -> Option<String> {
        let metadata = fs::metadata(&self.path).ok()?;
        Some(format!("file:{}:{}", metadata.dev(), metadata.ino()))
    }

    async fn compare(&self, cx: &Cx, expected: &Witness) -> Result<Vec<CheckReport>, DriverError> {
        let expected = expect_sqlite(expected)?.clone();
        let path = self.path.clone();
        blocking(cx, move |watch| Ok(expected.compare(&observe(&path, &expected, watch)?))).await
    }

    async fn newest(&self, _cx: &Cx) -> Result<Option<Timestamp>, DriverError> {
        // SQLite has no time type: which number or text is one is the user's knowledge (a freshness check).
        Ok(None)
    }

    async fn answer(&self, cx: &Cx, check: &UserCheck, point: Timestamp) -> Result<CheckReport, DriverError> {
        let name = format!("user:{}", check.name);
        let limit = Duration::try_from(check.timeout).unwrap_or(Duration::ZERO);
        let inner = cx.within(limit);
        let given = match &check.question {
            Question::Command { argv } => self.run(&inner, &name, argv).await,
            Question::Http { .. } => Ok(answered(
                &name,
                CheckOutcome::Inconclusive,
                "a database file has no service that answers requests",
                FindingCode::EnvOther,
            )),
            question @ (Question::Sql { .. }
            | Question::MinimumRows { .. }
            | Question::Freshness { .. }
            | Question::Migration { .. }) => {
                let (question, asked) = (question.clone(), name.clone());
                self.with(&inner, Access::ReadOnly, move |connection, watch| {
                    ask(&connection, &asked, &question, point, watch)
                })
                .await
            }
        };
        match given {
            // The whole drill was stopped: that is no answer.
            Err(error) if matches!(error.kind, ErrorKind::Stopped(_)) => {
                cx.check()?;
                let detail = format!("took longer than {limit:?}");
                Ok(answered(&name, CheckOutcome::Inconclusive, detail, FindingCode::EnvTimeout))
            }
            given => given,
        }
    }

    async fn write_probe(&self, cx: &Cx) -> Result<CheckReport, DriverError> {
        self.with(cx, Access::Write, |connection, watch| {
            let attempt = || -> rusqlite::Result<bool> {
                connection.execute_batch(
                    "BEGIN IMMEDIATE;
                     CREATE TABLE seaworthy_write_probe(id INTEGER PRIMARY KEY, word TEXT);
                     INSERT INTO seaworthy_write_probe(word) VALUES ('afloat');",
                )?;
                let read: String =
                    connection.query_row("SELECT word FROM seaworthy_write_probe", [], |row| row.get(0))?;
                connection.execute_batch("ROLLBACK")?;
                let left: i64 = connection.query_row(
                    "SELECT count(*) FROM sqlite_schema WHERE name = 'seaworthy_write_probe'",
                    [],
                    |row| row.get(0),
                )?;
                Ok(read == "afloat" && left == 0)
            };
            let outcome = attempt();
            watch.check()?;
            Ok(match outcome {
                Ok(true) => answered(
                    "write-probe",
                    CheckOutcome::Passed,
                    "a table was made, written, read back and rolled back",
                    FindingCode::ObjectUnusable,
                ),
                Ok(false) => answered(
                    "write-probe",
                    CheckOutcome::Failed,
                    "what was written was not read back",
                    FindingCode::ObjectUnusable,
                ),
                Err(error) => {
                    let (outcome, code) = match (of_machine(&error), error.sqlite_error_code()) {
                        (Some(code), _) => (CheckOutcome::Inconclusive, code),
                        (None, Some(ErrorCode::ReadOnly)) => {
                            (CheckOutcome::Inconclusive, FindingCode::EnvPermission)
                        }
                        (None, Some(_) | None) => (CheckOutcome::Failed, FindingCode::ObjectUnusable),
                    };
                    answered("write-probe", outcome, error.to_string(), code)
                }
            })
        })
        .await
    }

    async fn damage(&self, cx: &Cx, expected: &Witness, seed: u64) -> Result<Damage, DriverError> {
        let expected = expect_sqlite(expected)?.clone();
        let path = self.path.clone();
        blocking(cx, move |watch| damage(&path, &expected, seed, watch)).await
    }

    async fn ruin(
        &self,
        cx: &Cx,
        expected: &Witness,
        checks: &[UserCheck],
        seed: u64,
    ) -> Result<Damage, DriverError> {
        let expected = expect_sqlite(expected)?.clone();
        let (path, checks) = (self.path.clone(), checks.to_vec());
        blocking(cx, move |watch| match empty_table(&path, &expected, &checks, seed, watch)? {
            Some(damage) => Ok(damage),
            None => damage(&path, &expected, seed, watch),
        })
        .await
    }

    async fn close(self: Box<Self>, _cx: &Cx) -> Result<(), DriverError> {
        // Every connection ends with the call that opened it.
        Ok(())
    }
}

impl RestoredSqlite {
    async fn run(&self, cx: &Cx, name: &str, argv: &[String]) -> Result<CheckReport, DriverError> {
        let exec = Exec {
            argv: argv.to_vec(),
            env: vec![("SEAWORTHY_DATABASE".to_owned(), self.path.display().to_string())],
            cwd: Some(self.sandbox.root().to_owned()),
            stdin: None,
            output_bytes_max: 64 << 10,
        };
        let ended = self.sandbox.exec(cx, exec).await?;
        let outcome = if ended.status == 0 { CheckOutcome::Passed } else { CheckOutcome::Failed };
        Ok(answered(name, outcome, format!("ended with status {}", ended.status), FindingCode::CheckFailed))
    }
}

fn ask(
    connection: &Connection,
    name: &str,
    question: &Question,
    point: Timestamp,
    watch: &Watch,
) -> Result<CheckReport, DriverError> {
    let given = match question {
        Question::Sql { database, query, expect } => {
            if database.as_deref().is_some_and(|database| database != "main") {
                return Ok(answered(
                    name,
                    CheckOutcome::Inconclusive,
                    "a SQLite source has one database, `main`",
                    FindingCode::EnvOther,
                ));
            }
            ask_sql(connection, name, query, expect.as_deref())
        }
        Question::MinimumRows { table, rows } => ask_rows(connection, name, table, *rows),
        Question::Freshness { table, column, within } => {
            ask_freshness(connection, name, (table, column), *within, point)
        }
        Question::Migration { tool, revision } => ask_migration(connection, name, tool, revision),
        Question::Command { .. } | Question::Http { .. } => Ok(answered(
            name,
            CheckOutcome::Inconclusive,
            "not a question to the database",
            FindingCode::EnvOther,
        )),
    };
    watch.check()?;
    Ok(given.unwrap_or_else(|error| {
        let (outcome, code) = match of_machine(&error) {
            Some(code) => (CheckOutcome::Inconclusive, code),
            None => (CheckOutcome::Failed, FindingCode::CheckFailed),
        };
        answered(name, outcome, error.to_string(), code)
    }))
}

/// What an error amounts to that is of the machine, which has no room or fails, and says nothing of the copy; `None` of any other.
fn of_machine(error: &rusqlite::Error) -> Option<FindingCode> {
    match error.sqlite_error_code()? {
        ErrorCode::DiskFull => Some(FindingCode::EnvDisk),
        ErrorCode::SystemIoFailure
        | ErrorCode::OutOfMemory
        | ErrorCode::CannotOpen
        | ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked => Some(FindingCode::EnvOther),
        _ => None,
    }
}

fn ask_sql(
    connection: &Connection,
    name: &str,
    query: &str,
    expect: Option<&str>,
) -> rusqlite::Result<CheckReport> {
    let mut statement = connection.prepare(query)?;
    let is_one_column = statement.column_count() == 1;
    let mut rows = statement.query([])?;
    let mut answers = Vec::new();
    while let Some(row) = rows.next()? {
        // Two are enough to know that it is not one.
        if answers.len() == 2 {
            break;
        }
        answers.push(lossy(row.get_ref(0)?));
    }
    let passes = match (answers.as_slice(), expect) {
        ([answer], Some(expect)) => is_one_column && answer == expect,
        ([answer], None) => is_one_column && matches!(answer.as_str(), "1" | "true"),
        _ => false,
    };
    let detail = match (answers.len(), is_one_column, passes) {
        (1, true, true) => "the query gave what is expected",
        (1, true, false) => "the query gave another answer than expected",
        (_, false, _) => "the query has more than one column",
        (0, ..) => "the query gave no row",
        (..) => "the query gave more than one row",
    };
    let outcome = if passes { CheckOutcome::Passed } else { CheckOutcome::Failed };
    Ok(answered(name, outcome, detail, FindingCode::CheckFailed))
}

fn table_name(table: &str) -> String {
    quoted(table.strip_prefix("main.").unwrap_or(table))
}

fn ask_rows(connection: &Connection, name: &str, table: &str, rows: u64) -> rusqlite::Result<CheckReport> {
    let query = format!("SELECT count(*) FROM main.{}", table_name(table));
    let counted: i64 = connection.query_row(&query, [], |row| row.get(0))?;
    let outcome =
        if u64::try_from(counted).unwrap_or(0) >= rows { CheckOutcome::Passed } else { CheckOutcome::Failed };
    let detail = format!("{counted} rows, at least {rows} expected");
    Ok(answered(name, outcome, detail, FindingCode::CheckFailed))
}

fn ask_freshness(
    connection: &Connection,
    name: &str,
    (table, column): (&str, &str),
    within: SignedDuration,
    point: Timestamp,
) -> rusqlite::Result<CheckReport> {
    // Without the schema's name in front, a quoted column that does not exist would be taken for a text.
    let query = format!("SELECT max(t.{}) FROM main.{} AS t", quoted(column), table_name(table));
    let mut newest = connection.query_row(&query, [], |row| {
        let value = row.get_ref(0)?;
        Ok((value == ValueRef::Null, instant(value)))
    })?;
    // What lies after the recovery point is a plan (an expiry, an appointment), not a record: it keeps nothing fresh.
    let until = point.saturating_add(CLOCK_STEP).unwrap_or(Timestamp::MAX);
    if newest.1.is_some_and(|newest| newest > until) {
        newest = newest_until(connection, (table, column), until)?;
    }
    Ok(match newest {
        (true, _) => answered(
            name,
            CheckOutcome::Failed,
            "the column holds no value that is not after the recovery point",
            FindingCode::ContentStale,
        ),
        (false, None) => answered(
            name,
            CheckOutcome::Inconclusive,
            "the newest value is not a time that is understood",
            FindingCode::EnvOther,
        ),
        (false, Some(newest)) => {
            let age = point.duration_since(newest);
            let outcome = if age <= within { CheckOutcome::Passed } else { CheckOutcome::Failed };
            let detail =
                format!("newest value {newest}, {age:#} before the recovery point; {within:#} allowed");
            answered(name, outcome, detail, FindingCode::ContentStale)
        }
    })
}

/// Whether a column holds nothing but what lies after `until`, and the newest instant that does not. Every row is read: values are
/// compared as the instants that they are, whatever SQLite takes them for.
fn newest_until(
    connection: &Connection,
    (table, column): (&str, &str),
    until: Timestamp,
) -> rusqlite::Result<(bool, Option<Timestamp>)> {
    let query = format!("SELECT t.{} FROM main.{} AS t", quoted(column), table_name(table));
    let mut statement = connection.prepare(&query)?;
    let mut rows = statement.query([])?;
    let (mut is_understood, mut newest) = (true, None);
    while let Some(row) = rows.next()? {
        let value = row.get_ref(0)?;
        let at = instant(value);
        is_understood &= at.is_some() || value == ValueRef::Null;
        newest = newest.max(at.filter(|at| *at <= until));
    }
    Ok((is_understood && newest.is_none(), newest))
}

/// An instant as SQLite's users write it: Unix time in seconds to nanoseconds, a Julian day, ISO 8601 (UTC by default).
fn instant(value: ValueRef<'_>) -> Option<Timestamp> {
    match value {
        ValueRef::Integer(number) => match number.unsigned_abs() {
            0..100_000_000_000 => Timestamp::from_second(number).ok(),
            100_000_000_000..100_000_000_000_000 => Timestamp::from_millisecond(number).ok(),
            100_000_000_000_000..100_000_000_000_000_000 => Timestamp::from_microsecond(number).ok(),
            _ => Timestamp::from_nanosecond(i128::from(number)).ok(),
        },
        ValueRef::Real(number) => {
            // 1721425.5 is the year 1; Unix times of that size fall into January 1970, which nobody's rows do.
            let seconds = if (1_721_425.5..5_373_484.5).contains(&number) {
                (number - 2_440_587.5) * 86_400.0
            } else {
                number
            };
            let duration = SignedDuration::try_from_secs_f64(seconds).ok()?;
            Timestamp::from_duration(duration).ok()
        }
        ValueRef::Text(bytes) => {
            let text = std::str::from_utf8(bytes).ok()?.trim();
            if let Ok(instant) = text.parse::<Timestamp>() {
                return Some(instant);
            }
            let civil = text
                .parse::<civil::DateTime>()
                .or_else(|_| text.parse::<civil::Date>().map(|date| date.at(0, 0, 0, 0)))
                .ok()?;
            civil.to_zoned(tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
        }
        ValueRef::Null | ValueRef::Blob(_) => None,
    }
}

fn ask_migration(
    connection: &Connection,
    name: &str,
    tool: &str,
    revision: &str,
) -> rusqlite::Result<CheckReport> {
    let query = match tool {
        "alembic" => "SELECT version_num FROM alembic_version LIMIT 2",
        "sqlx" => "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version DESC LIMIT 1",
        "flyway" => {
            "SELECT version FROM flyway_schema_history WHERE success ORDER BY installed_rank DESC LIMIT 1"
        }
        "diesel" => "SELECT version FROM __diesel_schema_migrations ORDER BY version DESC LIMIT 1",
        "django" => "SELECT app || '.' || name FROM django_migrations ORDER BY id DESC LIMIT 1",
        "rails" => "SELECT version FROM schema_migrations ORDER BY version DESC LIMIT 1",
        other => {
            let detail = format!("`{other}` is not a migration tool that is known here");
            return Ok(answered(name, CheckOutcome::Inconclusive, detail, FindingCode::EnvOther));
        }
    };
    let mut statement = connection.prepare(query)?;
    let found: Vec<String> =
        statement.query_map([], |row| Ok(lossy(row.get_ref(0)?)))?.collect::<rusqlite::Result<_>>()?;
    let outcome = if found == [revision] { CheckOutcome::Passed } else { CheckOutcome::Failed };
    let detail = format!("{tool} stands at {}, {revision} expected", found.join(" and "));
    Ok(answered(name, outcome, detail, FindingCode::CheckFailed))
}

/// Small and reproducible: the receipt's seed gives the same damage again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides.max(1)
    }
}

fn damage(path: &Path, expected: &SqliteWitness, seed: u64, watch: &Watch) -> Result<Damage, DriverError> {
    let mut dice = Dice(seed);
    let wrong = |error| failed("damage the restored database", error, watch);
    let connection = open_untrusted(path, Access::Write, Duration::from_secs(5), watch)?;
    connection.execute_batch("PRAGMA ignore_check_constraints = ON").map_err(wrong)?;
    // Each kind in turn, beginning at random: not every database has an index, or a row that may be changed.
    let first = dice.roll(4);
    let mut done = None;
    for turn in 0..3 {
        watch.check()?;
        done = match (first + turn) % 4 {
            0 => change_value(&connection, expected, &mut dice).map_err(wrong)?,
            1 => delete_row(&connection, expected, &mut dice).map_err(wrong)?,
            2 => drop_index(&connection, expected, &mut dice).map_err(wrong)?,
            _ => break,
        };
        if done.is_some() {
            break;
        }
    }
    // With a checkpoint, so that the damage lies in the file and not beside it.
    connection.close().map_err(|(_, error)| wrong(error))?;
    match done {
        Some(damage) => Ok(damage),
        None => flip_byte(path, &mut dice),
    }
}

/// Deletes every row of a table, one that a question names where one does; `None` where no table can be emptied.
fn empty_table(
    path: &Path,
    expected: &SqliteWitness,
    checks: &[UserCheck],
    seed: u64,
    watch: &Watch,
) -> Result<Option<Damage>, DriverError> {
    let wrong = |error| failed("damage the restored database", error, watch);
    let mut full: Vec<(&str, u64)> = Vec::new();
    for table in &expected.tables {
        if let Some(rows) = table.rows.filter(|rows| *rows > 0 && !table.name.starts_with("sqlite_")) {
            full.push((&table.name, rows));
        }
    }
    let asked: Vec<(&str, u64)> = full
        .iter()
        .copied()
        .filter(|(table, _)| {
            let table = table.to_ascii_lowercase();
            let parts = |asked: &str| {
                let asked = asked.to_ascii_lowercase();
                Some(vec![asked.strip_prefix("main.").unwrap_or(&asked).to_owned()])
            };
            checks.iter().any(|check| check.is_about("main", &table, parts))
        })
        .collect();
    // Every other time whatever there is, for questions that do not name what they are about.
    let mut candidates = if asked.is_empty() || seed / 2 % 2 == 1 { full } else { asked };
    let connection = open_untrusted(path, Access::Write, Duration::from_secs(5), watch)?;
    let mut dice = Dice(seed);
    let mut done = None;
    while done.is_none() && !candidates.is_empty() {
        watch.check()?;
        let turn = usize::try_from(dice.roll(candidates.len() as u64)).unwrap_or(0);
        let (table, rows) = candidates.swap_remove(turn);
        // A trigger or a virtual table may refuse; then another table will do.
        let delete = format!("DELETE FROM main.{}", quoted(table));
        if matches!(connection.execute(&delete, []), Ok(1..)) {
            done = Some(Damage {
                description: format!("deleted all {rows} rows of {}", shown(table)),
                expected: vec![FindingCode::RowCount],
                checks: vec![rows_check(table)],
            });
        }
    }
    connection.close().map_err(|(_, error)| wrong(error))?;
    Ok(done)
}

/// A table whose rows can be reached by number, chosen among those that hold some.
fn pick_row(
    connection: &Connection,
    expected: &SqliteWitness,
    dice: &mut Dice,
) -> rusqlite::Result<Option<(String, &'static str, i64)>> {
    let mut candidates: Vec<(String, u64)> = Vec::new();
    for table in &expected.tables {
        let is_ordinary: Option<bool> = connection
            .query_row(
                "SELECT type = 'table' FROM pragma_table_list(?1) WHERE schema = 'main'",
                [&table.name],
                |row| row.get(0),
            )
            .optional()?;
        match table.rows {
            Some(rows) if rows > 0 && is_ordinary == Some(true) && !table.name.starts_with("sqlite_") => {
                candidates.push((table.name.clone(), rows));
            }
            Some(_) | None => {}
        }
    }
    if candidates.is_empty() {
        return Ok(None);
    }
    let (table, rows) =
        candidates.swap_remove(usize::try_from(dice.roll(candidates.len() as u64)).unwrap_or(0));
    let Some(rowid) = rowid_name(connection, &table)? else { return Ok(None) };
    let offset = i64::try_from(dice.roll(rows)).unwrap_or(0);
    let query = format!("SELECT {rowid} FROM main.{} NOT INDEXED LIMIT 1 OFFSET ?1", quoted(&table));
    let row: Option<i64> = connection.query_row(&query, [offset], |row| row.get(0)).optional()?;
    Ok(row.map(|row| (table, rowid, row)))
}

fn change_value(
    connection: &Connection,
    expected: &SqliteWitness,
    dice: &mut Dice,
) -> rusqlite::Result<Option<Damage>> {
    let Some((table, rowid, row)) = pick_row(connection, expected, dice)? else { return Ok(None) };
    let mut columns = stored_columns(connection, &table)?;
    let turn = usize::try_from(dice.roll(columns.len() as u64)).unwrap_or(0);
    let columns_len = columns.len();
    columns.rotate_left(turn.min(columns_len));
    for column in columns {
        let (column_sql, table_sql) = (quoted(&column), quoted(&table));
        let update = format!(
            "UPDATE main.{table_sql} SET {column_sql} = CASE typeof({column_sql})
                WHEN 'integer' THEN {column_sql} + 1
                WHEN 'real' THEN {column_sql} + 1.0
                WHEN 'text' THEN {column_sql} || 'x'
                WHEN 'blob' THEN zeroblob(length({column_sql}) + 1)
                ELSE 1 END
             WHERE {rowid} = ?1"
        );
        // A unique column, a generated one or a strict type may refuse; then another column will do.
        if matches!(connection.execute(&update, [row]), Ok(1)) {
            return Ok(Some(Damage {
                description: format!("changed one value in column {} of {}", shown(&column), shown(&table)),
                expected: vec![FindingCode::RowContent],
                checks: vec![rows_check(&table)],
            }));
        }
    }
    Ok(None)
}

fn delete_row(
    connection: &Connection,
    expected: &SqliteWitness,
    dice: &mut Dice,
) -> rusqlite::Result<Option<Damage>> {
    let Some((table, rowid, row)) = pick_row(connection, expected, dice)? else { return Ok(None) };
    let delete = format!("DELETE FROM main.{} WHERE {rowid} = ?1", quoted(&table));
    Ok(matches!(connection.execute(&delete, [row]), Ok(1)).then(|| Damage {
        description: format!("deleted one row of {}", shown(&table)),
        expected: vec![FindingCode::RowCount],
        checks: vec![rows_check(&table)],
    }))
}

fn drop_index(
    connection: &Connection,
    expected: &SqliteWitness,
    dice: &mut Dice,
) -> rusqlite::Result<Option<Damage>> {
    // An automatic index belongs to a constraint and cannot be dropped.
    let indexes: Vec<&SchemaObject> = expected
        .objects
        .iter()
        .filter(|object| object.kind == "index" && !object.name.starts_with("sqlite_"))
        .collect();
    let Some(index) = indexes.get(usize::try_from(dice.roll(indexes.len() as u64)).unwrap_or(0)) else {
        return Ok(None);
    };
    let drop = format!("DROP INDEX main.{}", quoted(&index.name));
    Ok(connection.execute_batch(&drop).is_ok().then(|| Damage {
        description: format!("dropped index {}", shown(&index.name)),
        expected: vec![FindingCode::ConstraintOrIndex],
        checks: vec![SCHEMA.to_owned()],
    }))
}

fn flip_byte(path: &Path, dice: &mut Dice) -> Result<Damage, DriverError> {
    let wrong = |error| DriverError::io("damage the restored database", error);
    let file = fs::OpenOptions::new().read(true).write(true).open(path).map_err(wrong)?;
    let size = file.metadata().map_err(wrong)?.len();
    // An empty database is an empty file: one byte more is damage enough.
    let offset = dice.roll(size);
    let mut byte = [0];
    if size > 0 {
        file.read_exact_at(&mut byte, offset).map_err(wrong)?;
    }
    byte[0] ^= 1 << dice.roll(8);
    file.write_all_at(&byte, offset).map_err(wrong)?;
    Ok(Damage {
        description: format!("flipped a bit of byte {offset} of the database file"),
        expected: vec![FindingCode::FileContent],
        checks: vec![IMAGE.to_owned()],
    })
}
