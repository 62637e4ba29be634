//! Restores a copy into a sandbox: a new engine of the recorded major, roles, the database, its archive, its settings.
//!
//! Everything here happens to a scratch engine that was made in this run, which is proven before anything is restored:
//! its identity is not the source's and it holds no database but those it was born with. What the environment cannot do
//! (a program, a locale, an extension, room) is an error with an `ENV-` code and never blames the copy.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use seaworthy_interface::{
    CopyPath, CopyReader, Cx, DriverError, ErrorKind, Exec, ExecOutcome, Sandbox, SandboxProcess,
};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::signature::sha256;
use seaworthy_model::witness::postgres::{PostgresWitness, printable};

use super::globals::Globals;
use super::loading::{self, Loads, Target};
use super::names::{conninfo_value, has_bytes, identifier, literals};
use super::restored::RestoredPostgres;
use super::session::{Address, Purpose, Session, text};
use super::tools::{self, Found, Tool, argument};
use super::{ARCHIVE, GLOBALS, GLOBALS_BYTES_MAX, MAJOR_MAX};

/// Port of the scratch engine: only the name of a socket in its private directory.
pub(super) const PORT: u16 = 5432;
/// Longest path of a Unix socket that every kernel accepts.
pub(super) const SOCKET_PATH_MAX: usize = 106;
/// How long the scratch engine may take to start: an empty one takes a tenth of a second.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause between two attempts to reach it.
const START_PAUSE: Duration = Duration::from_millis(30);
/// Most bytes kept of what a program says.
pub(super) const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// What a new cluster holds.
const BORN_WITH: &[&str] = &["postgres", "template0", "template1"];

/// Settings of a scratch engine: reachable by its socket only, nothing durable, no worker that acts by itself.
const SETTINGS: &[&str] = &[
    "listen_addresses=",
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_replication_slots=0",
    "max_logical_replication_workers=0",
    "archive_mode=off",
    "autovacuum=off",
    "max_wal_size=8GB",
    "checkpoint_timeout=1d",
    "shared_buffers=256MB",
    "maintenance_work_mem=256MB",
    // A segment under /dev/shm would outlive a killed sandbox.
    "dynamic_shared_memory_type=mmap",
    "max_connections=20",
    "jit=off",
    "ssl=off",
    "logging_collector=off",
    "log_timezone=UTC",
    "timezone=UTC",
    // A statement or a detail in the log could repeat a row.
    "log_min_error_statement=panic",
    "log_error_verbosity=terse",
];

/// An error of the environment.
pub(super) fn environment(code: FindingCode, kind: ErrorKind, context: impl Into<String>) -> DriverError {
    DriverError::new(kind, context).code(code)
}

/// Whether messages of a program say that the machine, not the copy, is at fault.
pub(super) fn environment_fault(status: i32, messages: &str) -> Option<(FindingCode, &'static str)> {
    if messages.contains("No space left on device") || messages.contains("could not extend file") {
        return Some((FindingCode::EnvDisk, "free space, or give the sandbox another directory"));
    }
    if messages.contains("could not open extension control file")
        || (messages.contains("extension \"") && messages.contains("is not available"))
        || messages.contains("could not access file")
        || messages.contains("could not load library")
    {
        return Some((FindingCode::EnvExtension, "install the package of the extension that is named"));
    }
    if messages.contains("unrecognized configuration parameter") {
        return Some((FindingCode::EnvBinary, "install the pg_restore of the server's own major"));
    }
    if messages.contains("invalid locale name") || messages.contains("could not find locale") {
        return Some((FindingCode::EnvLocale, "install the locale that is named"));
    }
    if messages.contains("out of memory") || messages.contains("Cannot allocate memory") || status == 137 {
        return Some((FindingCode::EnvOther, "give the sandbox more memory"));
    }
    if messages.contains(DEADLOCK) {
        return Some((FindingCode::EnvOther, "two statements waited for each other; run the drill again"));
    }
    if status == 126 || status == 127 {
        return Some((FindingCode::EnvBinary, "can the sandbox's user run the program?"));
    }
    if messages.contains("server closed the connection") || messages.contains("Connection refused") {
        return Some((FindingCode::EnvOther, "the scratch engine ended; look at its memory limit"));
    }
    None
}

/// A setting that `pg_restore` sets from major 17 on, and that no older server knows.
const NEWER_SETTING: &str = "Command was: SET transaction_timeout = 0;";
/// The major that brought it.
const NEWER_SETTING_SINCE: u32 = 17;
/// What the server says when it ends one of two who wait for each other.
pub(super) const DEADLOCK: &str = "deadlock detected";

/// The option that stops `pg_restore` at its first error, unless it would stop at the setting that `server` does not know.
///
/// `pg_restore` has no option to leave the setting out. Where it goes on, `is_excused` looks at what it said.
pub(super) fn exit_on_error(pg_restore: &Found, server: u32) -> Option<&'static str> {
    let is_stopped_by_setting =
        pg_restore.version.major >= NEWER_SETTING_SINCE && server < NEWER_SETTING_SINCE;
    (!is_stopped_by_setting).then_some("--exit-on-error")
}

/// Whether a `pg_restore` that went on after errors came to its end and met no error but the setting.
///
/// Its two workers write at once, so that lines can be mixed; what one call writes is whole. Were an error to hide in a
/// name, what it left out would be missed by the comparison with the witness.
pub(super) fn is_excused(messages: &str) -> bool {
    let errors = messages.matches("error: ").count();
    messages.contains("errors ignored on restore: ")
        && errors > 0
        && errors == messages.matches(NEWER_SETTING).count()
}

/// What a program said, without the lines about the setting.
pub(super) fn without_setting(messages: &str) -> String {
    messages.lines().filter(|line| !line.contains("transaction_timeout")).fold(
        String::new(),
        |mut kept, line| {
            kept.push_str(line);
            kept.push('\n');
            kept
        },
    )
}

/// The end of `pg_restore` as an error, unless all went well.
fn restored_well(outcome: &ExecOutcome) -> Result<(), DriverError> {
    let messages = String::from_utf8_lossy(&outcome.stderr);
    if outcome.status == 1 && outcome.dropped_bytes == 0 && is_excused(&messages) {
        return Ok(());
    }
    let stderr = without_setting(&messages).into_bytes();
    let outcome = ExecOutcome { stderr, ..outcome.clone() };
    ended_well(&outcome, "restore the archive: pg_restore", FindingCode::RelationMissing)
}

/// A program's end as an error, unless it was a success.
pub(super) fn ended_well(
    outcome: &ExecOutcome,
    what: &str,
    otherwise: FindingCode,
) -> Result<(), DriverError> {
    if outcome.status == 0 {
        return Ok(());
    }
    let messages = String::from_utf8_lossy(&outcome.stderr);
    let said = messages
        .lines()
        .find(|line| line.contains("error:") || line.contains("ERROR:") || line.contains("FATAL:"))
        .or_else(|| messages.lines().last())
        .unwrap_or("it said nothing");
    let context = format!("{what}: status {}: {}", outcome.status, printable(said.trim()));
    match environment_fault(outcome.status, &messages) {
        Some((code, hint)) => Err(environment(code, ErrorKind::Unsupported, context).hint(hint)),
        None if messages.contains("could not read") || messages.contains("unexpected end of file") => {
            Err(DriverError::new(ErrorKind::Corrupt, context).code(FindingCode::ArchiveTruncated))
        }
        None => Err(DriverError::new(ErrorKind::Corrupt, context).code(otherwise)),
    }
}

/// A blocking call of a copy's, on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    cx: &Cx,
    work: impl FnOnce() -> Result<T, DriverError> + Send + 'static,
) -> Result<T, DriverError> {
    cx.run(tokio::task::spawn_blocking(work))
        .await?
        .map_err(|error| DriverError::new(ErrorKind::Other, "read the copy").because(error))?
}

/// The path of the archive inside a copy.
pub(super) fn archive_path() -> Result<CopyPath, DriverError> {
    CopyPath::new(ARCHIVE).ok_or_else(|| DriverError::new(ErrorKind::Other, "name the archive"))
}

/// The globals of a copy.
pub(super) async fn read_globals(cx: &Cx, from: &Arc<dyn CopyReader>) -> Result<Globals, DriverError> {
    let reader = Arc::clone(from);
    let json = blocking(cx, move || {
        let path =
            CopyPath::new(GLOBALS).ok_or_else(|| DriverError::new(ErrorKind::Other, "name the globals"))?;
        reader.read(&path, GLOBALS_BYTES_MAX)
    })
    .await?;
    let globals: Globals = serde_json::from_slice(&json).map_err(|error| {
        DriverError::new(ErrorKind::Corrupt, format!("read {GLOBALS}"))
            .because(error)
            .code(FindingCode::ObjectSwapped)
    })?;
    if globals.version != 1 {
        return Err(DriverError::new(
            ErrorKind::Unsupported,
            format!("read {GLOBALS} of shape {}", globals.version),
        )
        .hint("use a newer Seaworthy"));
    }
    Ok(globals)
}

/// What is wrong with the small files beside the archive: a person who restores with stock tools begins with them.
pub(super) async fn beside(
    cx: &Cx,
    witness: &PostgresWitness,
    from: &Arc<dyn CopyReader>,
) -> Result<Vec<Finding>, DriverError> {
    let (reader, expected) = (Arc::clone(from), witness.beside.clone());
    blocking(cx, move || {
        let mut findings = Vec::new();
        for (name, digest) in expected {
            let path = CopyPath::new(name.as_str()).ok_or_else(|| {
                DriverError::new(ErrorKind::Other, format!("name the file {}", printable(&name)))
            })?;
            match reader.read(&path, GLOBALS_BYTES_MAX) {
                Ok(bytes) if sha256(&bytes) == digest => {}
                Ok(bytes) => findings.push(Finding::new(
                    FindingCode::ObjectSwapped,
                    name,
                    format!("is {}, the witness says {digest}", sha256(&bytes)),
                )),
                Err(error) if error.kind == ErrorKind::NotFound => {
                    findings.push(Finding::new(FindingCode::ObjectMissing, name, error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(findings)
    })
    .await
}

/// Room ran out while restoring: the environment's fault.
pub(super) fn room(error: DriverError) -> DriverError {
    if error.kind == ErrorKind::Exhausted && error.code.is_none() {
        error.code(FindingCode::EnvDisk)
    } else {
        error
    }
}

/// Restores `witness`'s copy into `sandbox` and leaves its engine running.
pub(super) async fn restore(
    cx: &Cx,
    witness: &PostgresWitness,
    from: Arc<dyn CopyReader>,
    sandbox: Arc<dyn Sandbox>,
    programs: &[PathBuf],
) -> Result<RestoredPostgres, DriverError> {
    let major = witness.server.major();
    let dump_major =
        witness.scope.dump_version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(major);
    let missing = FindingCode::EnvBinary;
    let engine = tools::find(cx, Tool::Postgres, major..=major, programs, missing).await?;
    let pg_restore =
        tools::find(cx, Tool::PgRestore, dump_major.max(major)..=MAJOR_MAX, programs, missing).await?;
    let root = sandbox.root().to_path_buf();
    let socket = root.join(format!(".s.PGSQL.{PORT}"));
    if socket.as_os_str().len() > SOCKET_PATH_MAX {
        return Err(environment(
            FindingCode::EnvOther,
            ErrorKind::Unsupported,
            format!("make a socket below {}", root.display()),
        )
        .hint(format!(
            "the sandbox's path must be shorter: a socket's has at most {SOCKET_PATH_MAX} bytes"
        )));
    }
    let globals = read_globals(cx, &from).await?;
    let beside = beside(cx, witness, &from).await?;
    if has_bytes(&witness.server.bootstrap_role) || has_bytes(&witness.database.name) {
        return Err(environment(
            FindingCode::EnvOther,
            ErrorKind::Unsupported,
            "make a scratch cluster whose first superuser or database has a name that is not UTF-8",
        ));
    }

    let archive = root.join("copy");
    let address = Address {
        host: argument(&root)?,
        port: PORT,
        user: witness.server.bootstrap_role.clone(),
        database: "template1".to_owned(),
        password: None,
    };
    cx.phase("fetch and provision");
    let (within, token) = cx.child();
    let fetching = async {
        let fetched = async {
            let facts = loading::contents(cx, &from).await?;
            let loads = loading::fetch(cx, &from, &archive, &facts, None).await.map_err(room)?;
            sandbox.own(cx, &archive).await?;
            Ok::<_, DriverError>(loads)
        }
        .await;
        if fetched.is_err() {
            token.cancel();
        }
        fetched
    };
    // An engine that cannot begin waits for the fetch to end: what is written to a sandbox must be over before it is removed.
    let (fetched, begun) = tokio::join!(
        fetching,
        begin_engine(&within, &engine, &witness.server.bootstrap_role, &*sandbox, &root)
    );
    let (loads, mut process) = (fetched?, begun?);
    let copy = Archive { from: &from, loads: &loads, path: &archive };
    match fill(cx, witness, &globals, &address, &*sandbox, &mut process, &pg_restore, &copy).await {
        Ok(mut filled) => {
            filled.findings.extend(beside);
            Ok(RestoredPostgres::new(
                Arc::clone(&sandbox),
                process,
                Address { database: witness.database.name.clone(), ..address },
                witness.snapshot.at,
                filled,
            ))
        }
        Err(error) => {
            // The sandbox kills what is left; asking first keeps the engine from writing while it is removed.
            let stopped = process.stop(&Cx::unbounded(), 3, Duration::from_secs(2)).await;
            Err(if stopped.is_err() {
                error.hint("the scratch engine did not stop; its sandbox ends it")
            } else {
                error
            })
        }
    }
}

/// Makes a new cluster below `root`, a directory of the sandbox, and starts its engine, whose socket lies there, too.
pub(super) async fn begin_engine(
    cx: &Cx,
    engine: &Found,
    bootstrap_role: &str,
    sandbox: &dyn Sandbox,
    root: &Path,
) -> Result<Box<dyn SandboxProcess>, DriverError> {
    let data = argument(&root.join("data"))?;
    let (program, username, pgdata) = (
        argument(&engine.sibling("initdb"))?,
        format!("--username={bootstrap_role}"),
        format!("--pgdata={data}"),
    );
    let initdb = [
        &*program,
        "--no-sync",
        "--auth=trust",
        // No encoding: names of roles and values of settings are made again as the bytes that they were.
        "--encoding=SQL_ASCII",
        "--locale=C",
        &username,
        &pgdata,
    ];
    let outcome = sandbox.exec(cx, exec(&initdb, root, &[])?).await.map_err(room)?;
    ended_well(&outcome, "make a scratch cluster", FindingCode::EnvOther)?;
    let mut arguments = vec![
        engine.argument()?,
        "-D".to_owned(),
        data,
        "-k".to_owned(),
        argument(root)?,
        "-p".to_owned(),
        PORT.to_string(),
    ];
    for setting in SETTINGS {
        arguments.extend(["-c".to_owned(), (*setting).to_owned()]);
    }
    let argv: Vec<&str> = arguments.iter().map(String::as_str).collect();
    sandbox.spawn(cx, exec(&argv, root, &[])?).await
}

/// The archive of a copy in a sandbox.
struct Archive<'a> {
    from: &'a Arc<dyn CopyReader>,
    loads: &'a Loads,
    path: &'a Path,
}

/// What is known of a scratch engine after it was filled.
#[derive(Debug)]
pub(super) struct Filled {
    pub(super) identity: String,
    pub(super) version: String,
    pub(super) findings: Vec<Finding>,
}

pub(super) async fn started(
    cx: &Cx,
    address: &Address,
    process: &mut Box<dyn SandboxProcess>,
) -> Result<Session, DriverError> {
    let limited = cx.within(START_TIMEOUT);
    loop {
        let error = match Session::open(&limited, address, Purpose::Scratch).await {
            Ok(session) => return Ok(session),
            Err(error) => error,
        };
        if !process.is_running() {
            let tail = process.stderr_tail();
            let tail = String::from_utf8_lossy(&tail);
            let said = tail.lines().last().unwrap_or("it said nothing");
            return Err(environment(
                FindingCode::EnvOther,
                ErrorKind::Other,
                format!("start the scratch engine: it ended: {}", printable(said)),
            ));
        }
        let is_late = limited.check().is_err();
        if cx.check().is_ok() && is_late {
            return Err(environment(
                FindingCode::EnvTimeout,
                ErrorKind::Unreachable,
                "start the scratch engine",
            )
            .because(error));
        }
        cx.check()?;
        cx.run(tokio::time::sleep(START_PAUSE)).await?;
    }
}

#[expect(clippy::too_many_arguments, reason = "one call, split off only so that a failure stops the engine")]
async fn fill(
    cx: &Cx,
    witness: &PostgresWitness,
    globals: &Globals,
    address: &Address,
    sandbox: &dyn Sandbox,
    process: &mut Box<dyn SandboxProcess>,
    pg_restore: &Found,
    archive: &Archive<'_>,
) -> Result<Filled, DriverError> {
    let name = &witness.database.name;
    let session = started(cx, address, process).await?;
    let identity = prove_fresh(cx, &session, Some(&witness.server.system_identifier)).await?;
    let version =
        text(&session.row(cx, "ask the version", "SELECT current_setting('server_version')").await?, 0)?;
    check_extensions(cx, &session, globals).await?;

    cx.phase("restore");
    globals.restore_roles(cx, &session, &witness.server.bootstrap_role).await?;
    if BORN_WITH.contains(&name.as_str()) && name != "template0" && name != "template1" {
        let drop = format!("DROP DATABASE {}", identifier(name));
        session.execute(cx, "replace the database that a new cluster has", &drop).await?;
    }
    // Two workers of pg_restore can come to wait for each other's locks, whereupon the server ends one: that says nothing
    // about the copy, and one worker waits for nobody.
    for jobs in [2, 1] {
        drop(make_database(cx, witness, globals, address, &session).await?);
        let inside = Address { database: name.clone(), ..address.clone() };
        let scratch = Scratch { witness, address: &inside, sandbox, pg_restore, archive: archive.path, jobs };
        match archive.loads.restore(cx, archive.from, &scratch).await {
            Err(error) if jobs > 1 && error.kind == ErrorKind::Conflict => {
                let drop = format!("DROP DATABASE {} WITH (FORCE)", identifier(name));
                session.execute(cx, "drop what two workers have begun", &drop).await?;
                cx.phase("restore with one worker: two waited for each other's locks");
            }
            ended => {
                ended?;
                break;
            }
        }
    }
    let findings = globals.restore_properties(cx, &session, name).await?;
    Ok(Filled { identity, version, findings })
}

/// The error of a program whose workers waited for each other is a conflict: one worker waits for nobody.
fn deadlock(mut error: DriverError, outcome: &ExecOutcome) -> DriverError {
    if String::from_utf8_lossy(&outcome.stderr).contains(DEADLOCK) {
        error.kind = ErrorKind::Conflict;
    }
    error
}

/// What a scratch engine says to our own COPY, judged as what it says to `pg_restore` is.
fn scratch_fault(error: DriverError) -> DriverError {
    if error.code.is_some() || matches!(error.kind, ErrorKind::Stopped(_)) {
        return error;
    }
    let said = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    match environment_fault(1, &said) {
        Some((code, hint)) => {
            environment(code, ErrorKind::Unsupported, error.context.clone()).because(error).hint(hint)
        }
        None if error.kind == ErrorKind::Exhausted => error.code(FindingCode::EnvDisk),
        None if error.kind == ErrorKind::Unreachable => {
            error.code(FindingCode::EnvOther).hint("the scratch engine ended; look at its memory limit")
        }
        None => {
            let context = error.context.clone();
            DriverError::new(ErrorKind::Corrupt, context).because(error).code(FindingCode::RelationMissing)
        }
    }
}

/// Makes the database that the archive is restored to, without what every new database has and the source had not.
/// Returns a session in it.
async fn make_database(
    cx: &Cx,
    witness: &PostgresWitness,
    globals: &Globals,
    address: &Address,
    session: &Session,
) -> Result<Session, DriverError> {
    let name = &witness.database.name;
    let create = globals.create_database(name, session.version);
    session.execute(cx, "make the scratch database", &create).await.map_err(|error| {
        let reason = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        if reason.contains("locale") || reason.contains("collation") || reason.contains("ICU") {
            error.code(FindingCode::EnvLocale).hint(format!(
                "install the locale (collate {}, ctype {}, provider {})",
                witness.database.collate, witness.database.ctype, witness.database.provider
            ))
        } else {
            error.code(FindingCode::EnvOther)
        }
    })?;
    let inside = Address { database: name.clone(), ..address.clone() };
    let target = Session::open(cx, &inside, Purpose::Scratch).await?;
    if !globals.has_public || witness.scope.exclude_schemas.iter().any(|schema| schema == "public") {
        target.execute(cx, "drop the schema that a new database has", "DROP SCHEMA public").await?;
    }
    if !globals.extensions.iter().any(|(name, _)| name == "plpgsql") {
        target.execute(cx, "drop the extension that a new database has", "DROP EXTENSION plpgsql").await?;
    }
    Ok(target)
}

/// The new database in a sandbox.
struct Scratch<'a> {
    witness: &'a PostgresWitness,
    address: &'a Address,
    sandbox: &'a dyn Sandbox,
    pg_restore: &'a Found,
    archive: &'a Path,
    jobs: u32,
}

#[async_trait]
impl Target for Scratch<'_> {
    async fn open(&self, cx: &Cx) -> Result<Session, DriverError> {
        Session::open(cx, self.address, Purpose::Scratch).await
    }

    async fn run(&self, cx: &Cx, options: &[String]) -> Result<(), DriverError> {
        let outcome = self.sandbox.exec(cx, restore_command(self, options)?).await.map_err(room)?;
        restored_well(&outcome).map_err(|error| deadlock(error, &outcome))
    }

    fn is_alone(&self) -> bool {
        self.jobs == 1
    }

    fn fault(&self, error: DriverError) -> DriverError {
        scratch_fault(error)
    }
}

fn restore_command(scratch: &Scratch<'_>, options: &[String]) -> Result<Exec, DriverError> {
    let Scratch { witness, address, sandbox, pg_restore, archive, jobs } = *scratch;
    let jobs = format!("--jobs={jobs}");
    let (program, dbname, archive) = (
        pg_restore.argument()?,
        format!("--dbname=dbname={}", conninfo_value(&address.database)),
        argument(archive)?,
    );
    let mut arguments = vec![
        &*program,
        "--format=directory",
        &jobs,
        "--no-password",
        "--no-tablespaces",
        "--no-subscriptions",
        &dbname,
    ];
    arguments.extend(exit_on_error(pg_restore, witness.server.major()));
    arguments.extend(options.iter().map(String::as_str));
    arguments.push(&archive);
    exec(
        &arguments,
        sandbox.root(),
        &[("PGHOST", &address.host), ("PGPORT", &PORT.to_string()), ("PGUSER", &address.user)],
    )
}

/// Shows that the engine was made in this run: another identity than the source's, and nothing in it.
pub(super) async fn prove_fresh(
    cx: &Cx,
    session: &Session,
    source_identity: Option<&str>,
) -> Result<String, DriverError> {
    let row = session
        .row(
            cx,
            "ask the scratch engine who it is",
            "SELECT (SELECT system_identifier::text FROM pg_control_system()), \
             (SELECT string_agg(datname::text, ',' ORDER BY datname::text COLLATE \"C\") FROM pg_database)",
        )
        .await?;
    let (identity, databases) = (text(&row, 0)?, text(&row, 1)?);
    let not_fresh = |what: String| {
        DriverError::new(ErrorKind::Refused, format!("use the scratch engine: {what}"))
            .code(FindingCode::ScratchNotFresh)
    };
    if source_identity == Some(identity.as_str()) {
        return Err(not_fresh("it has the source's own identity".to_owned()));
    }
    if databases != BORN_WITH.join(",") {
        return Err(not_fresh(format!("it holds databases already: {}", printable(&databases))));
    }
    Ok(identity)
}

/// An extension that is not installed here is the environment's fault, and is named before anything is restored.
async fn check_extensions(cx: &Cx, session: &Session, globals: &Globals) -> Result<(), DriverError> {
    let names: Vec<String> = globals.extensions.iter().map(|(name, _)| name.clone()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "SELECT DISTINCT name FROM pg_available_extension_versions WHERE name IN ({})",
        literals(&names)
    );
    let mut available = Vec::new();
    for row in session.query(cx, "list the extensions that can be had", &sql).await? {
        available.push(text(&row, 0)?);
    }
    let missing: Vec<String> = names.into_iter().filter(|name| !available.contains(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing = printable(&missing.join(", "));
    Err(environment(
        FindingCode::EnvExtension,
        ErrorKind::Unsupported,
        format!("restore here: extensions are not installed: {missing}"),
    )
    .hint("install their packages for the scratch engine's major version"))
}

/// A program's run in a sandbox, with nothing inherited.
pub(super) fn exec(argv: &[&str], root: &Path, environment: &[(&str, &str)]) -> Result<Exec, DriverError> {
    let mut env: Vec<(String, String)> = vec![
        ("LC_ALL".to_owned(), "C".to_owned()),
        ("TZ".to_owned(), "UTC".to_owned()),
        ("HOME".to_owned(), argument(root)?),
        ("PGPASSFILE".to_owned(), "/dev/null".to_owned()),
        ("PGAPPNAME".to_owned(), "seaworthy".to_owned()),
    ];
    env.extend(environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    Ok(Exec {
        argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
        env,
        cwd: None,
        stdin: None,
        output_bytes_max: OUTPUT_BYTES_MAX,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTING: &str = "pg_restore: error: could not execute query: ERROR:  unrecognized configuration parameter \
                           \"transaction_timeout\"\nCommand was: SET transaction_timeout = 0;\n";
    const END: &str = "pg_restore: warning: errors ignored on restore: 1\n";

    #[test]
    fn only_the_setting_of_a_newer_client_is_excused() {
        assert!(is_excused(&format!("{SETTING}{END}")));
        assert!(is_excused(&format!("{SETTING}{SETTING}{SETTING}{END}")), "each worker says it");
        let mixed = format!(
            "pg_restore: error: {SETTING}could not execute query: ERROR:  unrecognized configuration \
                             parameter \"transaction_timeout\"\nCommand was: SET transaction_timeout = 0;\n{END}"
        );
        assert!(is_excused(&mixed), "two workers write at once");
        assert!(!is_excused(SETTING), "it did not come to its end");
        assert!(!is_excused(END) && !is_excused(""));
        let other = "pg_restore: error: could not execute query: ERROR:  type \"x\" does not exist\n\
                     Command was: CREATE TABLE t (a x);\n";
        assert!(!is_excused(&format!("{SETTING}{other}{END}")));
        assert_eq!(without_setting(&format!("{SETTING}{other}")), other, "what is told is the other one");
    }

    #[test]
    fn errors_are_passed_over_only_where_the_setting_is_not_known() {
        let tool = |major| Found { path: PathBuf::from("/x"), version: tools::Version { major, minor: 20 } };
        for (client, server, option) in [
            (15, 15, Some("--exit-on-error")),
            (17, 17, Some("--exit-on-error")),
            (16, 13, Some("--exit-on-error")),
            (17, 15, None),
            (18, 16, None),
        ] {
            assert_eq!(exit_on_error(&tool(client), server), option, "{client} to {server}");
        }
    }
}
