//! One capture: a snapshot, a dump of it, a witness of it, side by side.
//!
//! | what            | when                          | in the snapshot |
//! |-----------------|-------------------------------|-----------------|
//! | definitions     | before it, and after the dump | the server's deparser ignores it, hence twice |
//! | sequences       | before the dump, and after it | sequences ignore it, hence a bracket |
//! | rows            | during the dump               | yes             |
//! | large objects   | during the dump               | yes             |
//! | roles, settings | before the dump               | yes             |

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use seaworthy_interface::{
    Captured, CopyFile, CopyPath, CopyWriter, Cuts, Cx, DriverError, ErrorKind, Progress, Stop,
};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::id::Digest;
use seaworthy_model::signature::sha256;
use seaworthy_model::witness::Witness;
use seaworthy_model::witness::postgres::{
    DatabaseFacts, Definition, LargeObjectFacts, ObjectClass, PostgresWitness, Scope, SequenceBracket,
    ServerFacts, SnapshotFacts, TableFacts, VERSION, printable,
};
use secrecy::ExposeSecret as _;
use tokio::io::AsyncReadExt as _;

use super::archive::{self, ArchiveError, ArchiveFacts, ArchiveSink};
use super::catalog::{self, View, own};
use super::globals::{self, Globals};
use super::meanwhile;
use super::measure::{self, Beside, Table};
use super::names::{bytes_of, identifier, literal, passfile_field, split_qualified};
use super::session::{Address, Purpose, Session, flag, parsed, text, text_bytes};
use super::standby;
use super::tools::{self, Found, Tool};
use super::{ARCHIVE, GLOBALS, MAJOR_MAX, MAJOR_MIN, PostgresSource, flaws};

/// Sessions that measure rows beside the dump.
const WORKERS: usize = 2;
/// Most bytes kept of what `pg_dump` says.
const MESSAGES_BYTES_MAX: u64 = 64 << 10;
/// How long the splitting thread is given to notice that its pipe was closed.
const SPLITTER_GRACE: Duration = Duration::from_secs(5);
/// Bytes that the pipe from `pg_dump` holds: fewer wake-ups of either side. More is denied to ordinary users.
const PIPE_BYTES: usize = 1 << 20;
/// How long a reader that is ahead of its writer waits: at a gigabyte a second the pipe is then full.
const PAUSE: Duration = Duration::from_micros(1_000);

pub(super) type Objects = BTreeMap<ObjectClass, BTreeMap<String, Definition>>;

/// The environment of a client's program, and the private directory that its password lies in.
pub(super) struct ClientEnvironment {
    pub(super) variables: Vec<(String, String)>,
    /// Removed when the program has ended.
    _directory: Option<tempfile::TempDir>,
}

/// Everything a client's program is told by its environment, because arguments can be read by everybody.
pub(super) fn client_environment(address: &Address) -> Result<ClientEnvironment, DriverError> {
    let mut variables: Vec<(String, String)> = [
        ("LC_ALL", "C"),
        ("PGHOST", &address.host),
        ("PGPORT", &address.port.to_string()),
        ("PGUSER", &address.user),
        ("PGDATABASE", &address.database),
        ("PGAPPNAME", "seaworthy"),
        ("PGCONNECT_TIMEOUT", "10"),
        ("PGSSLMODE", "disable"),
        ("PGGSSENCMODE", "disable"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    let (file, directory) = match &address.password {
        None => ("/dev/null".to_owned(), None),
        Some(password) => {
            let failed = |error| DriverError::io("make a private directory for the password", error);
            let directory = tempfile::Builder::new().prefix("seaworthy-").tempdir().map_err(failed)?;
            let path = directory.path().join("pgpass");
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .map_err(failed)?;
            let line = secrecy::SecretString::from(format!(
                "*:*:*:*:{}\n",
                passfile_field(password.expose_secret())
            ));
            file.write_all(line.expose_secret().as_bytes()).map_err(failed)?;
            (tools::argument(&path)?, Some(directory))
        }
    };
    variables.push(("PGPASSFILE".to_owned(), file));
    Ok(ClientEnvironment { variables, _directory: directory })
}

/// A pipe that is read in large pieces although its writer writes small ones: a reader that is faster than the writer
/// would otherwise be woken, and the processor switched, for every piece.
struct Paced<R> {
    from: R,
    /// Whether the pipe holds what comes while we pause.
    is_roomy: bool,
    /// Whether the last reading found little.
    is_ahead: bool,
}

impl<R: std::io::Read> std::io::Read for Paced<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.is_ahead {
            std::thread::sleep(PAUSE);
        }
        let count = self.from.read(into)?;
        self.is_ahead = self.is_roomy && count < into.len() / 2;
        Ok(count)
    }
}

/// Puts the files of an archive into a copy.
struct CopySink {
    to: Arc<dyn CopyWriter>,
    open: Option<Box<dyn CopyFile>>,
}

fn store(error: DriverError) -> ArchiveError {
    ArchiveError::Store(Box::new(error))
}

impl ArchiveSink for CopySink {
    fn begin(&mut self, name: &str) -> Result<(), ArchiveError> {
        let path = in_archive(name).map_err(store)?;
        self.open = Some(self.to.begin(&path, Cuts::ContentDefined).map_err(store)?);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        match &mut self.open {
            Some(file) if !bytes.is_empty() => file.write(bytes).map_err(store),
            Some(_) | None => Ok(()),
        }
    }

    fn finish(&mut self) -> Result<(), ArchiveError> {
        match self.open.take() {
            Some(file) => file.finish().map(drop).map_err(store),
            None => Err(ArchiveError::Malformed("a file was finished that was not begun".to_owned())),
        }
    }
}

fn path(text: &str) -> Result<CopyPath, DriverError> {
    CopyPath::new(text)
        .ok_or_else(|| DriverError::new(ErrorKind::Corrupt, format!("use `{}` as a path", printable(text))))
}

fn in_archive(name: &str) -> Result<CopyPath, DriverError> {
    path(&format!("{ARCHIVE}/{name}"))
}

fn archive_failed(error: ArchiveError) -> DriverError {
    match error {
        ArchiveError::Store(inner) => match inner.downcast::<DriverError>() {
            Ok(error) => *error,
            Err(other) => DriverError::new(ErrorKind::Other, "store the archive").because(other),
        },
        ArchiveError::Truncated(_) | ArchiveError::DataMissing(_) => {
            DriverError::new(ErrorKind::Corrupt, "read the dump")
                .because(error)
                .code(FindingCode::StreamUnfinished)
        }
        ArchiveError::Read(_) | ArchiveError::Unknown(_) | ArchiveError::Malformed(_) => {
            DriverError::new(ErrorKind::Corrupt, "read the dump")
                .because(error)
                .code(FindingCode::StreamUnfinished)
        }
    }
}

/// What `pg_dump` said last, and what it amounts to.
fn dump_failed(status: std::process::ExitStatus, messages: &str) -> DriverError {
    let said = messages.lines().rfind(|line| line.contains("error:")).unwrap_or("it said nothing");
    let said = printable(said.trim());
    let context = format!("dump the database: pg_dump ended with {status}: {said}");
    if messages.contains("row-level security") {
        return DriverError::new(ErrorKind::PermissionDenied, context)
            .code(FindingCode::RowsFiltered)
            .hint("run `ALTER ROLE <backup role> BYPASSRLS`: row security would hide rows from the backup");
    }
    if messages.contains("permission denied") {
        return DriverError::new(ErrorKind::PermissionDenied, context)
            .code(FindingCode::ScopeNarrow)
            .hint("run `GRANT pg_read_all_data TO <backup role>`, or declare an exclusion");
    }
    if messages.contains("lock timeout") || messages.contains("could not obtain lock") {
        return DriverError::new(ErrorKind::Conflict, context)
            .hint("a lock was held for longer than `lock_timeout`; which session holds it?");
    }
    if messages.contains("connection to server") || messages.contains("server closed the connection") {
        return DriverError::new(ErrorKind::Unreachable, context).code(FindingCode::StreamUnfinished);
    }
    DriverError::new(ErrorKind::Other, context).code(FindingCode::StreamUnfinished)
}

/// The dump's own part of a capture.
struct Dumped {
    archive: ArchiveFacts,
    ended: Instant,
}

/// The witness's own part of a capture.
pub(super) struct Measured {
    pub(super) rows: BTreeMap<String, TableFacts>,
    pub(super) large_objects: LargeObjectFacts,
    ended: Instant,
}

impl PostgresSource {
    /// Options of the dump, without the snapshot's name. Part of the witness: what was left out, and nothing else.
    fn dump_options(&self, owned: &[String]) -> Vec<String> {
        let mut options: Vec<String> = [
            "--format=custom",
            "--compress=0",
            "--no-password",
            // A restored subscription would reach its publisher.
            "--no-subscriptions",
        ]
        .map(str::to_owned)
        .to_vec();
        options.push(format!("--lock-wait-timeout={}ms", self.lock_timeout_ms()));
        for schema in &self.spec.exclude_schemas {
            options.push(format!("--exclude-schema={}", identifier(schema)));
        }
        options.extend(owned.iter().map(|relation| format!("--exclude-table={relation}")));
        options
    }

    /// At least a millisecond, because zero would wait for ever.
    fn lock_timeout_ms(&self) -> i128 {
        self.spec.lock_timeout.as_millis().clamp(1, i128::from(i32::MAX))
    }

    /// Reading a view's definition locks what it reads from, as reading a table does.
    async fn bound_locks(&self, cx: &Cx, session: &Session) -> Result<(), DriverError> {
        let sql = format!("SET lock_timeout TO '{}ms'", self.lock_timeout_ms());
        session.execute(cx, "bound the wait for locks", &sql).await
    }

    /// Relations left out on purpose: the declared tables and the sequences that they own.
    async fn excluded(&self, cx: &Cx, session: &Session) -> Result<Vec<(u32, String)>, DriverError> {
        let pairs: Vec<String> = self
            .spec
            .exclude_tables
            .iter()
            .filter_map(|table| split_qualified(table))
            .map(|parts| format!("({}, {})", literal(&parts[0]), literal(&parts[1])))
            .collect();
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "WITH declared AS (SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE (n.nspname, c.relname) IN ({})) SELECT c.oid::text, format('\"%s\".\"%s\"', \
             replace(n.nspname, '\"', '\"\"'), replace(c.relname, '\"', '\"\"')) FROM pg_class c \
             JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid IN (SELECT oid FROM declared UNION \
             SELECT d.objid FROM pg_depend d WHERE d.classid = 'pg_class'::regclass \
             AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') \
             AND d.refobjid IN (SELECT oid FROM declared)) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')",
            pairs.join(", ")
        );
        let mut excluded = Vec::new();
        for row in session.query(cx, "find the excluded tables", &sql).await? {
            excluded.push((parsed(&row, 0)?, text(&row, 1)?));
        }
        Ok(excluded)
    }

    /// Options as arguments: `pg_dump` compares names in the database's encoding, which is not always UTF-8.
    async fn arguments(
        &self,
        cx: &Cx,
        session: &Session,
        options: &[String],
    ) -> Result<Vec<OsString>, DriverError> {
        let mut arguments = Vec::new();
        for option in options {
            arguments.push(if option.is_ascii() {
                OsString::from(option)
            } else {
                let converted =
                    format!("SELECT encode(convert_to({}, getdatabaseencoding()), 'hex')", literal(option));
                let row = session.row(cx, "name what is left out", &converted).await?;
                OsString::from_vec(bytes_of(&text_bytes(&row, 0)?))
            });
        }
        Ok(arguments)
    }

    /// Runs `pg_dump` on the snapshot and puts its archive into the copy.
    async fn dump(
        &self,
        cx: &Cx,
        tool: &Found,
        arguments: &[OsString],
        snapshot: &str,
        to: Arc<dyn CopyWriter>,
    ) -> Result<Dumped, DriverError> {
        let environment = client_environment(&self.address())?;
        let mut child = tokio::process::Command::new(&tool.path)
            .args(arguments)
            .arg(format!("--snapshot={snapshot}"))
            .env_clear()
            .envs(environment.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| DriverError::io(format!("run {}", tool.path.display()), error))?;
        let pipes = child.stdout.take().zip(child.stderr.take());
        let (stdout, mut stderr) =
            pipes.ok_or_else(|| DriverError::new(ErrorKind::Other, "read from pg_dump: it has no pipes"))?;
        let stdout = stdout.into_owned_fd().map_err(|error| DriverError::io("read from pg_dump", error))?;
        // A refusal costs speed, nothing else.
        let is_roomy =
            rustix::pipe::fcntl_setpipe_size(&stdout, PIPE_BYTES).is_ok_and(|size| size >= PIPE_BYTES);
        let (sink, token, deadline) = (cx.sink(), cx.token(), cx.deadline());
        // The copy's calls block, so they have a thread; it ends with the pipe, which ends with the child.
        let mut splitter = tokio::task::spawn_blocking(move || {
            let mut into = CopySink { to, open: None };
            let mut progress = |done: u64| {
                let stop = if token.is_cancelled() {
                    Some(Stop::Cancelled)
                } else if deadline.is_some_and(|deadline| tokio::time::Instant::now() >= deadline) {
                    Some(Stop::DeadlineExceeded)
                } else {
                    None
                };
                sink(Progress::Bytes { done, total: None });
                stop.map_or(Ok(()), |stop| Err(store(stop.into())))
            };
            let from = Paced { from: std::fs::File::from(stdout), is_roomy, is_ahead: false };
            archive::split(from, &mut into, &mut progress)
        });
        let ended = cx
            .run(async {
                let mut kept = Vec::new();
                let messages = async {
                    let mut limited = (&mut stderr).take(MESSAGES_BYTES_MAX);
                    let read = limited.read_to_end(&mut kept).await;
                    // What exceeds the limit is read and dropped, or pg_dump would wait for us for ever.
                    let rest = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
                    read.and(rest)
                };
                let (split, read, status) = tokio::join!(&mut splitter, messages, child.wait());
                (split, read.map(|_| kept), status)
            })
            .await;
        let (split, messages, status) = match ended {
            Ok(ended) => ended,
            Err(stop) => {
                let killed = child.start_kill();
                // It may have ended before pg_dump did, and what has been awaited must not be awaited again.
                let has_ended = splitter.is_finished()
                    || tokio::time::timeout(SPLITTER_GRACE, &mut splitter).await.is_ok();
                let error = DriverError::from(stop);
                return Err(if killed.is_err() || !has_ended {
                    error.hint("pg_dump did not end at once; it ends with its connection")
                } else {
                    error
                });
            }
        };
        let status = status.map_err(|error| DriverError::io("wait for pg_dump", error))?;
        let messages = messages.map_err(|error| DriverError::io("read what pg_dump says", error))?;
        let split =
            split.map_err(|error| DriverError::new(ErrorKind::Other, "split the archive").because(error))?;
        match (split, status.success()) {
            (Ok(archive), true) => Ok(Dumped { archive, ended: Instant::now() }),
            // The copy's own fault makes pg_dump fail too, by closing its pipe; it is the cause.
            (Err(error @ ArchiveError::Store(_)), _) => Err(archive_failed(error)),
            (_, false) => Err(dump_failed(status, &String::from_utf8_lossy(&messages))),
            (Err(error), true) => Err(archive_failed(error)),
        }
    }

    /// Measures everything that the snapshot shows.
    pub(super) async fn measure(
        &self,
        cx: &Cx,
        address: &Address,
        snapshot: &str,
        keeper: &Session,
        tables: &[Table],
    ) -> Result<Measured, DriverError> {
        let mut sessions = Vec::new();
        for _ in 0..WORKERS.min(tables.iter().map(Table::parts).sum()) {
            let session = Session::open(cx, address, Purpose::Source).await?;
            let begin = format!(
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
                literal(snapshot)
            );
            self.bound_locks(cx, &session).await?;
            // Queries of the catalogue are too short to be compiled, whatever the planner thinks; hashing a large table is
            // a sixth faster when it is, where the server's administrator has not turned that off.
            session.execute(cx, "let the server decide whether it compiles", "RESET jit").await?;
            // One whose library cannot be loaded says so once in a session, and then goes on without it.
            match session.row(cx, "ask whether it can", "SELECT pg_catalog.pg_jit_available()::text").await {
                Err(error) if matches!(error.kind, ErrorKind::Stopped(_) | ErrorKind::Unreachable) => {
                    return Err(error);
                }
                Ok(_) | Err(_) => {}
            }
            session.execute(cx, "import the snapshot", &begin).await?;
            sessions.push(session);
        }
        let rows = measure::rows(cx, &sessions, tables);
        let (rows, large_objects) = tokio::try_join!(rows, measure::large_objects(cx, keeper))?;
        // While the workers still hold what they have read, so that it cannot change any more.
        if let Some(session) = sessions.first() {
            let is_empty = |table: &&Table| rows.get(&table.name).is_some_and(|facts| facts.rows == 0);
            let empty: BTreeMap<u32, &str> =
                tables.iter().filter(is_empty).map(|table| (table.oid, &*table.name)).collect();
            let oids: Vec<u32> = empty.keys().copied().collect();
            let rewritten = meanwhile::rewritten(cx, session, &oids).await?;
            if let Some(name) = rewritten.first().and_then(|oid| empty.get(oid)) {
                let context = format!(
                    "dump {}: it was emptied or rewritten after the snapshot was taken, which shows none of its rows",
                    printable(name)
                );
                return Err(DriverError::new(ErrorKind::Conflict, context)
                    .hint("run the backup again, when nothing changes the table"));
            }
        }
        for session in &sessions {
            session.execute(cx, "end the snapshot", "COMMIT").await?;
        }
        Ok(Measured { rows, large_objects, ended: Instant::now() })
    }

    pub(super) async fn capture_into(
        &self,
        cx: &Cx,
        to: Arc<dyn CopyWriter>,
    ) -> Result<Captured, DriverError> {
        cx.phase("connect");
        let keeper = Session::open(cx, &self.address(), Purpose::Source).await?;
        let major = keeper.version / 10_000;
        if !(MAJOR_MIN..=MAJOR_MAX).contains(&major) {
            return Err(DriverError::new(ErrorKind::Unsupported, format!("back up PostgreSQL {major}"))
                .hint(format!("majors {MAJOR_MIN} to {MAJOR_MAX} are understood")));
        }
        let tool = tools::find(cx, Tool::PgDump, major..=MAJOR_MAX, &self.programs, FindingCode::ToolRefused)
            .await?;
        cx.phase("catalogue");
        self.bound_locks(cx, &keeper).await?;
        let excluded = self.excluded(cx, &keeper).await?;
        let view = View {
            exclude_schemas: self.spec.exclude_schemas.clone(),
            exclude_relations: excluded.iter().map(|(oid, _)| *oid).collect(),
            with_invalid_indexes: false,
            without_unlogged: false,
        };
        let before = catalog::objects(cx, &keeper, &view).await?;
        cx.phase("snapshot");
        // Before the snapshot, which therefore holds all that has been replayed by now.
        let standby = match standby::read(cx, &keeper).await? {
            None => None,
            Some(standby) => Some(
                standby::dated(&standby, &printable(&self.spec.database))
                    .map_err(|undated| undated.refusal("date what the standby holds"))?,
            ),
        };
        keeper.execute(cx, "begin", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        // The statement's own timestamp precedes its snapshot, so nothing older than it is missing from the copy.
        let row = keeper
            .row(
                cx,
                "export a snapshot",
                "SELECT pg_export_snapshot(), to_char(statement_timestamp(), 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), \
                 pg_is_in_recovery()::text, (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
                 ELSE pg_current_wal_lsn() END)::text, (SELECT system_identifier::text FROM pg_control_system()), \
                 current_setting('server_version')",
            )
            .await?;
        let snapshot = text(&row, 0)?;
        let at = text(&row, 1)?;
        let clock = at.parse().map_err(|error: jiff::Error| {
            DriverError::new(ErrorKind::Corrupt, format!("read the server's clock `{at}`")).because(error)
        })?;
        let (point, behind) = match standby {
            // The clock of a standby goes on when nothing reaches it any more.
            Some(dated) => (dated.point, dated.finding),
            None => (clock, None),
        };
        let server = ServerFacts {
            system_identifier: text(&row, 4)?,
            version_num: keeper.version,
            version: text(&row, 5)?,
            bootstrap_role: globals::bootstrap_role(cx, &keeper).await?,
        };
        let snapshot_facts = SnapshotFacts { at: point, lsn: text(&row, 3)?, on_standby: flag(&row, 2)? };
        keeper.execute(cx, "mark the snapshot", "SAVEPOINT catalogue").await?;
        let database = globals::database(cx, &keeper).await?;
        let globals = Globals::read(cx, &keeper, database.clone()).await?;
        let tables = measure::tables(cx, &keeper, &view, Beside::Dump).await?;
        let sequences_before = measure::sequences(cx, &keeper, &view).await?;
        let mut findings = flaws(cx, &keeper, &view).await?;
        findings.extend(behind);
        findings.extend(hidden_options(&database));
        findings.extend(rows_of_extensions(cx, &keeper, &view).await?);

        // The deparser locks what it prints, until here. Held on, such a lock and a writer's wish for an exclusive one (a
        // REFRESH, a REINDEX) would stop pg_dump behind the writer while we wait for pg_dump: nobody would ever go on.
        keeper.execute(cx, "let go of the catalogue", "ROLLBACK TO SAVEPOINT catalogue").await?;

        cx.phase("dump");
        let relations: Vec<String> = excluded.into_iter().map(|(_, name)| name).collect();
        let options = self.dump_options(&relations);
        let arguments = self.arguments(cx, &keeper, &options).await?;
        let (inner, stop) = cx.child();
        // Whichever fails first stops the other, and both are waited for.
        let dump = async {
            let result = self.dump(&inner, &tool, &arguments, &snapshot, Arc::clone(&to)).await;
            if result.is_err() {
                stop.cancel();
            }
            result
        };
        let measured = async {
            let result = self.measure(&inner, &self.address(), &snapshot, &keeper, &tables).await;
            if result.is_err() {
                stop.cancel();
            }
            result
        };
        let (dumped, measured) = tokio::join!(dump, measured);
        let is_stop = |error: &DriverError| matches!(error.kind, ErrorKind::Stopped(_));
        let (dumped, measured) = match (dumped, measured) {
            (Ok(dumped), Ok(measured)) => (dumped, measured),
            (Err(error), Err(other)) => return Err(if is_stop(&error) { other } else { error }),
            (Err(error), Ok(_)) | (Ok(_), Err(error)) => return Err(error),
        };

        cx.phase("witness");
        let sequences_after = measure::sequences(cx, &keeper, &view).await?;
        let after = catalog::objects(cx, &keeper, &view).await?;
        let mut narrow = scope_findings(cx, &keeper, &view, &dumped.archive).await?;
        narrow.extend(meanwhile::gone(cx, &keeper, &view, &after).await?);
        let is_complete = narrow.is_empty();
        findings.extend(narrow);
        keeper.execute(cx, "end the snapshot", "COMMIT").await?;
        compare_counts(&tables, &measured.rows, &dumped.archive)?;
        if measured.large_objects.count != dumped.archive.large_objects {
            let facts = format!(
                "the snapshot has {} large objects, the archive {}",
                measured.large_objects.count, dumped.archive.large_objects
            );
            return Err(DriverError::new(ErrorKind::Corrupt, facts).code(FindingCode::LargeObjects));
        }
        for name in &globals.subscriptions {
            findings.push(Finding::new(
                FindingCode::ScopeNarrow,
                printable(name),
                "is a subscription; it is not copied, because a restored one would reach its publisher",
            ));
        }
        let (objects, changed) = both_forms(before, &after);
        let mut notes = vec!["passwords of roles are not copied".to_owned()];
        if !globals.tablespaces.is_empty() {
            notes.push(format!("tablespaces are folded into one: {}", globals.tablespaces.join(", ")));
        }
        if changed > 0 {
            notes.push(format!("{changed} definitions changed while the dump ran and have two lawful forms"));
        }
        let mut witness = PostgresWitness {
            version: VERSION,
            snapshot: snapshot_facts,
            scope: Scope {
                dump_version: tool.version.to_string(),
                dump_options: options,
                exclude_schemas: self.spec.exclude_schemas.clone(),
                exclude_tables: self.spec.exclude_tables.clone(),
                notes,
            },
            tables: measured.rows,
            objects,
            sequences: brackets(sequences_before, sequences_after),
            large_objects: measured.large_objects,
            roles: globals.role_digests(),
            settings: globals.setting_digests(),
            may_be_empty: self.spec.may_be_empty,
            beside: BTreeMap::new(),
            physical: None,
            database,
            server,
        };
        findings.extend(witness.plausibility());
        witness.beside = self.put_globals(&globals, &witness, to).await?;
        Ok(Captured {
            point,
            size_bytes: witness.database.size_bytes,
            witness: Witness::Postgres(Box::new(witness)),
            findings,
            is_complete,
            witness_took: measured.ended.saturating_duration_since(dumped.ended) + dumped.ended.elapsed(),
            released: None,
        })
    }

    /// Puts the small files into the copy; their digests.
    async fn put_globals(
        &self,
        globals: &Globals,
        witness: &PostgresWitness,
        to: Arc<dyn CopyWriter>,
    ) -> Result<BTreeMap<String, Digest>, DriverError> {
        let json = serde_json::to_vec_pretty(globals)
            .map_err(|error| DriverError::new(ErrorKind::Other, "write the globals").because(error))?;
        let script = globals.script(&witness.server.bootstrap_role, witness.server.version_num);
        let readme = format!(
            "A PostgreSQL {} database as of {}.\n\n\
             database/    a directory archive, written by pg_dump {}; restore it with\n\
             \x20            pg_restore --format=directory --jobs=2 --dbname=<new database> database\n\
             globals.sql  roles, settings and properties of the database; run it first\n\
             globals.json the same, for Seaworthy\n",
            witness.server.version, witness.snapshot.at, witness.scope.dump_version
        );
        let task = tokio::task::spawn_blocking(move || {
            let files = [(GLOBALS, json), ("globals.sql", script), ("README.txt", readme.into_bytes())];
            let mut digests = BTreeMap::new();
            for (name, bytes) in files {
                to.put(&path(name)?, &bytes)?;
                digests.insert(name.to_owned(), sha256(&bytes));
            }
            Ok(digests)
        });
        task.await.map_err(|error| DriverError::new(ErrorKind::Other, "store the globals").because(error))?
    }
}

/// A dump that shows another number of rows than its own snapshot is not a copy of it.
fn compare_counts(
    tables: &[Table],
    rows: &BTreeMap<String, TableFacts>,
    archive: &ArchiveFacts,
) -> Result<(), DriverError> {
    for table in tables.iter().filter(|table| table.is_whole) {
        let expected = rows.get(&table.name).map(|facts| facts.rows);
        let found = archive.rows.get(&table.oid).copied();
        if expected != found {
            let show = |count: Option<u64>| count.map_or("none".to_owned(), |count| count.to_string());
            return Err(DriverError::new(
                ErrorKind::Corrupt,
                format!(
                    "dump {}: its snapshot shows {} rows, the archive {}",
                    printable(&table.name),
                    show(expected),
                    show(found)
                ),
            )
            .code(if found.is_none() { FindingCode::RelationMissing } else { FindingCode::RowCount })
            .hint(
                "pg_dump left rows out and told nobody: see with -v which pg_dump it was, and back up again",
            ));
        }
    }
    Ok(())
}

/// User mappings that are dumped without their options, because the server hides these from the role.
fn hidden_options(database: &DatabaseFacts) -> Vec<Finding> {
    let hidden = database.mappings.iter().flatten().filter(|(_, options)| options.is_none());
    hidden
        .map(|(name, _)| {
            Finding::new(
                FindingCode::ScopeNarrow,
                printable(name),
                "is copied without its options, which this role may not see: they are shown to a superuser, to the mapping's own \
                 role, and those of PUBLIC to the owner of the server; write them down elsewhere, or back up as one who sees them",
            )
        })
        .collect()
}

/// Tables of extensions that hold rows and that no extension declares as data of its users: a dump leaves them out.
async fn rows_of_extensions(cx: &Cx, session: &Session, view: &View) -> Result<Vec<Finding>, DriverError> {
    let sql = format!(
        "SELECT format('%I.%I', n.nspname, c.relname), quote_ident(x.extname), \
         (has_table_privilege(c.oid, 'SELECT') AND NOT row_security_active(c.oid))::text \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0 AND d.deptype = 'e' \
         JOIN pg_extension x ON d.refclassid = 'pg_extension'::regclass AND x.oid = d.refobjid \
         WHERE c.relkind = 'r' AND {} AND {} AND {} AND NOT c.oid = ANY (coalesce(x.extconfig, ARRAY[]::oid[])) \
         AND pg_relation_size(c.oid) > 0 ORDER BY 1",
        view.kept(),
        view.schema(),
        view.relation("c.oid")
    );
    let mut findings = Vec::new();
    for row in session.query(cx, "look for rows that belong to extensions", &sql).await? {
        let (name, extension) = (text(&row, 0)?, text(&row, 1)?);
        let holds = if flag(&row, 2)? {
            let sql = format!("SELECT EXISTS (SELECT 1 FROM ONLY {name})::text");
            if !flag(&session.row(cx, "look for rows that belong to an extension", &sql).await?, 0)? {
                continue;
            }
            "holds"
        } else {
            "may hold"
        };
        findings.push(Finding::new(
            FindingCode::ScopeNarrow,
            printable(&name),
            format!(
                "{holds} rows that a dump leaves out: it belongs to the extension {}, which does not declare them as yours \
                 (pg_extension_config_dump); a restore has what CREATE EXTENSION puts there",
                printable(&extension)
            ),
        ));
    }
    Ok(findings)
}

/// What the catalogue shows and the archive does not have.
async fn scope_findings(
    cx: &Cx,
    session: &Session,
    view: &View,
    archive: &ArchiveFacts,
) -> Result<Vec<Finding>, DriverError> {
    let held: BTreeSet<(u32, u32)> =
        archive.entries.iter().map(|entry| (entry.table_oid, entry.oid)).collect();
    let schema = view.schema();
    let sql = format!(
        "SELECT 'pg_class'::regclass::oid::text, c.oid::text, format('%I.%I', n.nspname, c.relname) FROM pg_class c \
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') \
         AND c.relpersistence <> 't' AND {schema} AND {} AND {} \
         UNION ALL SELECT 'pg_proc'::regclass::oid::text, p.oid::text, p.oid::regprocedure::text FROM pg_proc p \
         JOIN pg_namespace n ON n.oid = p.pronamespace WHERE {schema} AND {} AND NOT EXISTS (SELECT 1 FROM pg_depend i \
         WHERE i.classid = 'pg_proc'::regclass AND i.objid = p.oid AND i.deptype = 'i') \
         UNION ALL SELECT 'pg_type'::regclass::oid::text, t.oid::text, format('%I.%I', n.nspname, t.typname) \
         FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid \
         WHERE t.typtype IN ('e', 'd', 'c', 'r', 'b') AND (t.typrelid = 0 OR c.relkind = 'c') \
         AND NOT EXISTS (SELECT 1 FROM pg_type ar WHERE ar.typarray = t.oid) AND {schema} AND {}",
        view.relation("c.oid"),
        own("pg_class", "c.oid"),
        own("pg_proc", "p.oid"),
        own("pg_type", "t.oid")
    );
    let mut findings = Vec::new();
    for row in session.query(cx, "compare the archive with the catalogue", &sql).await? {
        if !held.contains(&(parsed(&row, 0)?, parsed(&row, 1)?)) {
            findings.push(Finding::new(
                FindingCode::ScopeNarrow,
                printable(&text(&row, 2)?),
                "is in the database and not in the archive",
            ));
        }
    }
    Ok(findings)
}

/// Definitions before and after the dump as one: what changed meanwhile has two lawful forms, or may be absent.
pub(super) fn both_forms(mut before: Objects, after: &Objects) -> (Objects, usize) {
    let mut changed = 0;
    for (class, later) in after {
        let objects = before.entry(*class).or_default();
        for (identity, definition) in objects.iter_mut() {
            match later.get(identity) {
                Some(same) if same.digest == definition.digest => continue,
                Some(other) => definition.other = Some(other.digest.clone()),
                None => definition.may_be_absent = true,
            }
            changed += 1;
        }
        for (identity, definition) in later {
            if !objects.contains_key(identity) {
                objects.insert(identity.clone(), Definition { may_be_absent: true, ..definition.clone() });
                changed += 1;
            }
        }
    }
    (before, changed)
}

pub(super) fn brackets(
    before: BTreeMap<String, SequenceBracket>,
    after: BTreeMap<String, SequenceBracket>,
) -> BTreeMap<String, SequenceBracket> {
    let mut brackets = before;
    for (name, later) in after {
        brackets.entry(name).and_modify(|bracket| bracket.after = later.before).or_insert(later);
    }
    brackets
}
