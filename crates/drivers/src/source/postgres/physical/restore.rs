//! Recovers a base backup in a sandbox, to the record at which the copy ends and not a byte further.
//!
//! The cluster that comes back is the source's own, with its identity and with everything that it was told to do: archive, follow a
//! primary, call home by subscriptions, load libraries. None of this may happen. Every setting is given on the command line, which
//! wins over every file; the file that the cluster changes by itself is taken away; so are the signals that it left behind.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use seaworthy_interface::copy::{Restoring, Written};
use seaworthy_interface::{
    CopyReader, Cx, Damage, DriverError, ErrorKind, Restored, Sandbox, SandboxProcess, Stop,
};
use seaworthy_model::check::UserCheck;
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::verdict::{CheckOutcome, CheckReport};
use seaworthy_model::wal::{History, Lsn, Timeline};
use seaworthy_model::witness::physical::of_database;
use seaworthy_model::witness::postgres::{PostgresWitness, printable};
use seaworthy_model::witness::{PhysicalFacts, PhysicalSeen, Witness};

use super::super::own_witness;
use super::super::restore::{
    Filled, PORT, SOCKET_PATH_MAX, blocking, environment, environment_fault, exec, room,
};
use super::super::restored::{RestoredPostgres, observe};
use super::super::session::{Address, Purpose, Session, flag, parsed, text};
use super::super::tools::{self, Found, Tool, argument};
use super::{BETWEEN, DATA, SPACES, data_path, named, space_path, verify};

/// Settings of a recovering scratch engine, beside those that the copy asks for.
const SETTINGS: &[&str] = &[
    "listen_addresses=",
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "synchronous_standby_names=",
    "wal_level=replica",
    "max_replication_slots=4",
    "max_logical_replication_workers=0",
    "primary_conninfo=",
    "primary_slot_name=",
    "archive_mode=off",
    "archive_command=",
    "archive_cleanup_command=",
    "recovery_end_command=",
    "shared_preload_libraries=",
    "autovacuum=off",
    "max_wal_size=8GB",
    "checkpoint_timeout=1d",
    "shared_buffers=256MB",
    "maintenance_work_mem=256MB",
    "huge_pages=off",
    "dynamic_shared_memory_type=mmap",
    "jit=off",
    "ssl=off",
    "logging_collector=off",
    "log_destination=stderr",
    "log_timezone=UTC",
    "timezone=UTC",
    "log_min_error_statement=panic",
    "log_error_verbosity=terse",
    "hot_standby=on",
    "restart_after_crash=off",
    // Where the log ends is said by its files alone: there is no archive to ask.
    "restore_command=/bin/false",
    "recovery_target_inclusive=on",
    "recovery_target_action=pause",
];
/// Files of the data directory that must not speak for a scratch engine.
const SILENCED: &[&str] =
    &["postgresql.auto.conf", "standby.signal", "recovery.signal", "postmaster.pid", "postmaster.opts"];
/// Pause between two questions to a recovering engine.
const PAUSE: Duration = Duration::from_millis(30);
/// Longest history of a timeline.
const HISTORY_BYTES_MAX: u64 = 1 << 20;
/// How long an engine that has fallen may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How long an engine may take to open after recovery has ended.
const PROMOTE_TIMEOUT: Duration = Duration::from_secs(120);

pub(super) fn physical_of(witness: &PostgresWitness) -> Result<&PhysicalFacts, DriverError> {
    witness.physical.as_ref().ok_or_else(|| {
        DriverError::new(ErrorKind::Refused, "recover a dump: it is no base backup")
            .code(FindingCode::WrongSource)
    })
}

/// Fetches data directory and tablespaces.
async fn fetch(
    cx: &Cx,
    physical: &PhysicalFacts,
    from: &Arc<dyn CopyReader>,
    root: &Path,
) -> Result<Written, DriverError> {
    let mut parts = vec![(data_path()?, root.join(DATA))];
    for oid in physical.tablespaces.keys() {
        parts.push((space_path(*oid)?, root.join(SPACES).join(oid.to_string())));
    }
    if physical.between.as_ref().is_some_and(|between| !between.log.is_empty()) {
        parts.push((named(BETWEEN)?, root.join(BETWEEN)));
    }
    let reader = Arc::clone(from);
    let spaces = root.join(SPACES);
    let has_spaces = !physical.tablespaces.is_empty();
    blocking(cx, move || {
        if has_spaces {
            std::fs::create_dir(&spaces)
                .map_err(|error| DriverError::io("make a directory for tablespaces", error))?;
        }
        let mut written = Written::default();
        for (under, into) in parts {
            let part = reader.restore(&under, &into, &Restoring::default())?;
            written.files += part.files;
            written.bytes += part.bytes;
        }
        Ok(written)
    })
    .await
}

/// Asks on a blocking thread whether to go on.
pub(super) fn stopping(cx: &Cx) -> impl Fn() -> Result<(), DriverError> + Send + Sync + 'static {
    let (token, deadline) = (cx.token(), cx.deadline());
    move || {
        if token.is_cancelled() {
            return Err(Stop::Cancelled.into());
        }
        let is_late = deadline.is_some_and(|deadline| tokio::time::Instant::now() >= deadline);
        if is_late { Err(Stop::DeadlineExceeded.into()) } else { Ok(()) }
    }
}

/// Reads what was fetched.
async fn verified(cx: &Cx, physical: &PhysicalFacts, root: &Path) -> Result<PhysicalSeen, DriverError> {
    let (root, physical, stopped) = (root.to_path_buf(), physical.clone(), stopping(cx));
    blocking(cx, move || verify::verify(&root, &physical, &stopped)).await
}

pub(super) fn written(path: &Path, text: &str, mode: u32) -> Result<(), DriverError> {
    let failed = |error| DriverError::io(format!("write {}", path.display()), error);
    use std::io::Write as _;
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

pub(super) fn removed(path: &Path) -> Result<(), DriverError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(DriverError::io(format!("remove {}", path.display()), error)),
    }
}

/// Tells the server where its tablespaces lie now.
pub(super) fn remap(root: &Path, physical: &PhysicalFacts) -> Result<(), DriverError> {
    let at = root.join(DATA).join("tablespace_map");
    removed(&at)?;
    if physical.tablespaces.is_empty() {
        return Ok(());
    }
    let mut map = String::new();
    for oid in physical.tablespaces.keys() {
        let place = argument(&root.join(SPACES).join(oid.to_string()))?;
        // A server reads a backslash before the end of a line as a part of the name.
        let place = place.replace('\\', "\\\\").replace('\n', "\\\n");
        map.push_str(&format!("{oid} {place}\n"));
    }
    written(&at, &map, 0o600)
}

/// Makes a scratch cluster of what was fetched.
fn silence(root: &Path, physical: &PhysicalFacts) -> Result<(), DriverError> {
    let data = root.join(DATA);
    for name in SILENCED {
        removed(&data.join(name))?;
    }
    remap(root, physical)?;
    written(&data.join("recovery.signal"), "", 0o600)?;
    let own = root.join("conf");
    std::fs::create_dir(&own).map_err(|error| DriverError::io("make a directory for settings", error))?;
    written(&own.join("postgresql.conf"), "", 0o600)?;
    written(&own.join("pg_hba.conf"), "local all all trust\n", 0o600)?;
    written(&own.join("pg_ident.conf"), "", 0o600)?;
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(&data, private)
        .map_err(|error| DriverError::io("make the data directory private", error))
}

/// The command that recovers.
fn command(
    engine: &Found,
    physical: &PhysicalFacts,
    root: &Path,
    nonce: &str,
) -> Result<Vec<String>, DriverError> {
    let own = root.join("conf");
    let mut settings: Vec<String> = SETTINGS.iter().map(|setting| (*setting).to_owned()).collect();
    for (name, file) in
        [("config_file", "postgresql.conf"), ("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf")]
    {
        settings.push(format!("{name}={}", argument(&own.join(file))?));
    }
    settings.push(format!("recovery_target_lsn={}", physical.last));
    settings.push(format!("recovery_target_timeline={}", physical.timeline));
    settings.push(format!("cluster_name={nonce}"));
    for name in super::AT_LEAST {
        let wanted = physical.settings.get(name).and_then(|value| value.parse::<u32>().ok()).unwrap_or(0);
        let at_least = if name == "max_connections" { 20 } else { 2 };
        settings.push(format!("{name}={}", wanted.max(at_least)));
    }
    let mut arguments = vec![
        engine.argument()?,
        "-D".to_owned(),
        argument(&root.join(DATA))?,
        "-k".to_owned(),
        argument(root)?,
        "-p".to_owned(),
        PORT.to_string(),
    ];
    for setting in settings {
        arguments.extend(["-c".to_owned(), setting]);
    }
    Ok(arguments)
}

/// Why a recovering engine ended.
fn ended(tail: &[u8], seen: &PhysicalSeen) -> DriverError {
    let messages = String::from_utf8_lossy(tail);
    let said = messages
        .lines()
        .rfind(|line| line.contains("FATAL:") || line.contains("PANIC:"))
        .or_else(|| messages.lines().last())
        .unwrap_or("it said nothing");
    let context = format!("recover the base backup: the engine ended: {}", printable(said.trim()));
    let wrong = [&seen.log_wrong, &seen.files_wrong, &seen.pages_wrong].into_iter().flatten().next();
    match (wrong, environment_fault(1, &messages)) {
        (Some(wrong), _) => DriverError::new(ErrorKind::Corrupt, context)
            .code(wrong.code)
            .hint(format!("{}: {}", wrong.subject, wrong.detail)),
        (None, Some((code, hint))) => environment(code, ErrorKind::Unsupported, context).hint(hint),
        (None, None) => DriverError::new(ErrorKind::Corrupt, context).code(FindingCode::RecoveryEnded),
    }
}

/// Waits until recovery has ended and the engine has opened. Returns a session, and what it said of itself while it paused.
async fn recovered(
    cx: &Cx,
    address: &Address,
    process: &mut Box<dyn SandboxProcess>,
    seen: &PhysicalSeen,
) -> Result<Session, DriverError> {
    let mut resumed: Option<tokio::time::Instant> = None;
    loop {
        cx.check()?;
        if !process.is_running() {
            return Err(ended(&process.stderr_tail(), seen));
        }
        if resumed.is_some_and(|since| since.elapsed() > PROMOTE_TIMEOUT) {
            return Err(environment(
                FindingCode::EnvTimeout,
                ErrorKind::Unreachable,
                "open the scratch engine after its recovery",
            ));
        }
        if let Ok(session) = Session::open(cx, address, Purpose::Scratch).await {
            let sql = "SELECT pg_is_in_recovery()::text, \
                       (CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END)::text";
            // The engine may end a session that it opened while it recovered.
            if let Ok(row) = session.row(cx, "ask how far recovery is", sql).await {
                if !flag(&row, 0)? {
                    return Ok(session);
                }
                if flag(&row, 1)? && resumed.is_none() {
                    session.execute(cx, "end recovery", "SELECT pg_wal_replay_resume()").await?;
                    resumed = Some(tokio::time::Instant::now());
                }
            }
        }
        cx.run(tokio::time::sleep(PAUSE)).await?;
    }
}

/// The timeline that was followed and where it was left, as the engine wrote it down; and the new one.
fn left_at(root: &Path) -> Result<Option<(Timeline, Lsn, Timeline)>, DriverError> {
    let directory = root.join(DATA).join("pg_wal");
    let failed = |error| DriverError::io("look where recovery ended", error);
    let mut newest: Option<(Timeline, PathBuf)> = None;
    for entry in std::fs::read_dir(&directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let number =
            name.to_str().and_then(|name| name.strip_suffix(".history")).filter(|text| text.len() == 8);
        let number = number.and_then(|text| u32::from_str_radix(text, 16).ok()).and_then(Timeline::new);
        if let Some(number) =
            number.filter(|number| newest.as_ref().is_none_or(|(before, _)| before < number))
        {
            newest = Some((number, entry.path()));
        }
    }
    let Some((number, path)) = newest else { return Ok(None) };
    let follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let file = std::fs::OpenOptions::new().read(true).custom_flags(follow).open(&path).map_err(failed)?;
    let mut told = String::new();
    file.take(HISTORY_BYTES_MAX).read_to_string(&mut told).map_err(failed)?;
    let Ok(history) = History::parse(number, &told) else { return Ok(None) };
    Ok(history.switches.last().map(|switch| (switch.from, switch.at, number)))
}

/// Looks at every table and B-tree index with the engine's own tool.
async fn integrity(
    cx: &Cx,
    session: &Session,
    process: &mut Box<dyn SandboxProcess>,
    seen: &mut PhysicalSeen,
) -> Result<(), DriverError> {
    let has_it = "SELECT (SELECT count(*) FROM pg_extension WHERE extname = 'amcheck')::text";
    let is_there = parsed::<u32>(&session.row(cx, "look for amcheck", has_it).await?, 0)? > 0;
    if !is_there
        && let Err(error) =
            session.execute(cx, "load amcheck", "CREATE EXTENSION amcheck SCHEMA pg_catalog").await
    {
        cx.check()?;
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        seen.checked_wrong.push(Finding::new(
            FindingCode::EnvExtension,
            "amcheck",
            format!("is not installed for this engine: {}", printable(&cause)),
        ));
        return Ok(());
    }
    let (mut tables, mut indexes) = (0, 0);
    if session.version >= 140_000 {
        let list = "SELECT c.oid::text, c.oid::regclass::text FROM pg_class c JOIN pg_am m ON m.oid = c.relam \
                    WHERE m.amname = 'heap' AND c.relkind IN ('r', 'm', 't') AND c.relpersistence = 'p' ORDER BY c.oid";
        for row in session.query(cx, "list the tables", list).await? {
            let (oid, name) = (text(&row, 0)?, text(&row, 1)?);
            let sql = format!(
                "SELECT v.blkno::text, v.msg FROM verify_heapam({oid}::oid::regclass, check_toast => true) v LIMIT 3"
            );
            match session.query(cx, "check a table", &sql).await {
                Ok(rows) => {
                    for row in rows {
                        let detail = format!("block {}: {}", text(&row, 0)?, printable(&text(&row, 1)?));
                        seen.checked_wrong.push(Finding::new(
                            FindingCode::Corruption,
                            printable(&name),
                            detail,
                        ));
                    }
                }
                Err(error) => {
                    if broken(cx, process, seen, &name, &error).await? == Engine::Gone {
                        return Ok(());
                    }
                }
            }
            tables += 1;
        }
    }
    let list = "SELECT c.oid::text, c.oid::regclass::text FROM pg_class c JOIN pg_am m ON m.oid = c.relam \
                JOIN pg_index i ON i.indexrelid = c.oid WHERE m.amname = 'btree' AND c.relkind = 'i' \
                AND c.relpersistence = 'p' AND i.indisvalid AND i.indisready ORDER BY c.oid";
    for row in session.query(cx, "list the indexes", list).await? {
        let (oid, name) = (text(&row, 0)?, text(&row, 1)?);
        let sql = format!("SELECT bt_index_check({oid}::oid::regclass, true)::text");
        if let Err(error) = session.query(cx, "check an index", &sql).await
            && broken(cx, process, seen, &name, &error).await? == Engine::Gone
        {
            return Ok(());
        }
        indexes += 1;
    }
    if !is_there {
        session.execute(cx, "unload amcheck", "DROP EXTENSION amcheck").await?;
    }
    seen.checked = Some((tables, indexes));
    Ok(())
}

/// What became of an engine that stumbled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    There,
    Gone,
}

/// How the kernel ends a process that follows damaged pages to where nothing is, in the words of the engine.
const FAULTS: &[&str] = &["signal 11", "signal 7", "signal 6", "signal 8", "PANIC:"];

/// What the tool stumbled over is a finding, unless we were stopped, or the machine ended the engine.
async fn broken(
    cx: &Cx,
    process: &mut Box<dyn SandboxProcess>,
    seen: &mut PhysicalSeen,
    name: &str,
    error: &DriverError,
) -> Result<Engine, DriverError> {
    cx.check()?;
    if error.kind == ErrorKind::Unreachable {
        // The session ends before the engine has written down why.
        let until = tokio::time::Instant::now() + LAST_WORDS;
        while process.is_running() && tokio::time::Instant::now() < until {
            cx.run(tokio::time::sleep(PAUSE)).await?;
        }
        let tail = process.stderr_tail();
        let said = String::from_utf8_lossy(&tail);
        if !FAULTS.iter().any(|fault| said.contains(fault)) {
            return Err(environment(FindingCode::EnvOther, ErrorKind::Unreachable, error.to_string())
                .hint("the scratch engine ended; look at its memory limit"));
        }
        let detail = "the engine fell over it when it was read".to_owned();
        seen.checked_wrong.push(Finding::new(FindingCode::Corruption, printable(name), detail));
        seen.checked = Some((0, 0));
        return Ok(Engine::Gone);
    }
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    seen.checked_wrong.push(Finding::new(FindingCode::Corruption, printable(name), printable(&cause)));
    Ok(Engine::There)
}

/// A scratch engine that recovers what was fetched and read.
pub(super) struct Started {
    root: PathBuf,
    pub(super) address: Address,
    pub(super) process: Box<dyn SandboxProcess>,
    nonce: String,
    /// What was seen of the files, and then of the engine.
    pub(super) seen: PhysicalSeen,
}

impl Started {
    /// Ends it after an error.
    pub(super) async fn give_up(&mut self, error: DriverError) -> DriverError {
        // The sandbox kills what is left; asking first keeps the engine from writing while it is removed.
        let stopped = self.process.stop(&Cx::unbounded(), 3, Duration::from_secs(2)).await;
        if stopped.is_err() {
            error.hint("the scratch engine did not stop; its sandbox ends it")
        } else {
            error
        }
    }
}

/// Finds the engine for a copy, and whether it could run in a sandbox, before anything is fetched.
pub(super) async fn engine(
    cx: &Cx,
    witness: &PostgresWitness,
    sandbox: &Arc<dyn Sandbox>,
    programs: &[PathBuf],
) -> Result<Found, DriverError> {
    let major = witness.server.major();
    let engine = tools::find(cx, Tool::Postgres, major..=major, programs, FindingCode::EnvBinary).await?;
    let root = sandbox.root();
    if root.join(format!(".s.PGSQL.{PORT}")).as_os_str().len() > SOCKET_PATH_MAX {
        return Err(environment(
            FindingCode::EnvOther,
            ErrorKind::Unsupported,
            format!("make a socket below {}", root.display()),
        )
        .hint(format!(
            "the sandbox's path must be shorter: a socket's has at most {SOCKET_PATH_MAX} bytes"
        )));
    }
    Ok(engine)
}

/// Starts an engine on what was fetched and read: it recovers to the last record of `physical`.
pub(super) async fn start(
    cx: &Cx,
    engine: &Found,
    witness: &PostgresWitness,
    physical: &PhysicalFacts,
    sandbox: &Arc<dyn Sandbox>,
    seen: PhysicalSeen,
) -> Result<Started, DriverError> {
    let root = sandbox.root().to_path_buf();
    silence(&root, physical).map_err(room)?;
    sandbox.own(cx, &root).await?;
    cx.phase("recover");
    let nonce = format!("seaworthy-{:016x}", nonce());
    let arguments = command(engine, physical, &root, &nonce)?;
    let argv: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let process = sandbox.spawn(cx, exec(&argv, &root, &[])?).await?;
    let address = Address {
        host: argument(&root)?,
        port: PORT,
        user: witness.server.bootstrap_role.clone(),
        database: witness.database.name.clone(),
        password: None,
    };
    Ok(Started { root, address, process, nonce, seen })
}

/// Recovers `witness`'s copy in `sandbox` and leaves its engine running.
pub(in super::super) async fn restore(
    cx: &Cx,
    witness: &PostgresWitness,
    from: Arc<dyn CopyReader>,
    sandbox: Arc<dyn Sandbox>,
    programs: &[PathBuf],
) -> Result<RestoredCluster, DriverError> {
    let physical = physical_of(witness)?.clone();
    let engine = engine(cx, witness, &sandbox, programs).await?;
    let root = sandbox.root().to_path_buf();
    cx.phase("fetch");
    fetch(cx, &physical, &from, &root).await.map_err(room)?;
    cx.phase("verify");
    let seen = verified(cx, &physical, &root).await?;
    let beside = super::super::restore::beside(cx, witness, &from).await?;
    let mut started = start(cx, &engine, witness, &physical, &sandbox, seen).await?;
    match opened(cx, witness, &mut started).await {
        Ok(filled) => {
            let Started { address, process, seen, .. } = started;
            let filled = Filled { findings: beside, ..filled };
            let at = witness.snapshot.at;
            let inner = RestoredPostgres::new(Arc::clone(&sandbox), process, address.clone(), at, filled);
            Ok(RestoredCluster { inner, physical, seen, address, others: tokio::sync::Mutex::new(None) })
        }
        Err(error) => Err(started.give_up(error).await),
    }
}

fn nonce() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::process::id())
}

/// Waits for the engine to open, and looks who it is, where it ended, and at what its files hold.
pub(super) async fn opened(
    cx: &Cx,
    witness: &PostgresWitness,
    started: &mut Started,
) -> Result<Filled, DriverError> {
    let Started { root, address, process, nonce, seen } = started;
    let session = recovered(cx, address, process, seen).await?;
    let row = session
        .row(
            cx,
            "ask the scratch engine who it is",
            "SELECT (SELECT system_identifier::text FROM pg_control_system()), current_setting('server_version'), \
             current_setting('cluster_name')",
        )
        .await?;
    if text(&row, 2)? != *nonce {
        return Err(DriverError::new(
            ErrorKind::Refused,
            "use the scratch engine: it was not made by this run",
        )
        .code(FindingCode::ScratchNotFresh));
    }
    let system = text(&row, 0)?;
    if system != witness.server.system_identifier {
        return Err(DriverError::new(
            ErrorKind::Corrupt,
            format!("recover the base backup: it is of the cluster {system}"),
        )
        .code(FindingCode::WrongSource));
    }
    let place = root.clone();
    let left = blocking(cx, move || left_at(&place)).await?;
    seen.ended = left.map(|(timeline, at, _)| (timeline, at));
    let line = left.map_or_else(|| "unknown".to_owned(), |(_, _, new)| new.to_string());
    cx.phase("integrity");
    integrity(cx, &session, process, seen).await?;
    Ok(Filled {
        identity: format!("{system} timeline {line} {nonce}"),
        version: text(&row, 1)?,
        findings: Vec::new(),
    })
}

/// A cluster that was recovered in a sandbox.
#[derive(Debug)]
pub(in super::super) struct RestoredCluster {
    inner: RestoredPostgres,
    physical: PhysicalFacts,
    seen: PhysicalSeen,
    address: Address,
    /// What the other databases were found to be. A damage on purpose is one statement in the database that is named.
    others: tokio::sync::Mutex<Option<Vec<CheckReport>>>,
}

/// Reports of checks that could not be carried out.
fn undone(names: impl Iterator<Item = String>, why: &str) -> Vec<CheckReport> {
    names
        .map(|name| CheckReport {
            findings: vec![Finding::new(FindingCode::ChecksMissing, name.clone(), why)],
            name,
            outcome: CheckOutcome::Inconclusive,
            detail: why.to_owned(),
        })
        .collect()
}

pub(super) fn why(error: &DriverError) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {}", printable(&cause))
}

impl RestoredCluster {
    /// Compares the databases beside the one that is named, once.
    async fn compare_others(
        &self,
        cx: &Cx,
        expected: &PhysicalFacts,
    ) -> Result<Vec<CheckReport>, DriverError> {
        let mut known = self.others.lock().await;
        if let Some(reports) = &*known {
            return Ok(reports.clone());
        }
        let mut reports = Vec::new();
        for (name, witness) in &expected.others {
            let address = Address { database: name.clone(), ..self.address.clone() };
            let observed =
                observe(cx, &address, Purpose::Scratch, &super::view(), witness, &BTreeMap::new()).await;
            let compared = match observed {
                Ok(observed) => witness.compare(&observed),
                Err(error) => {
                    cx.check()?;
                    undone(witness.checks().into_iter(), &why(&error))
                }
            };
            reports.extend(compared.into_iter().map(|mut report| {
                report.name = of_database(name, &report.name);
                for finding in &mut report.findings {
                    finding.subject = format!("{}: {}", printable(name), finding.subject);
                }
                report
            }));
        }
        *known = Some(reports.clone());
        Ok(reports)
    }
}

#[async_trait]
impl Restored for RestoredCluster {
    fn summary(&self) -> String {
        format!("{}, recovered to {}", self.inner.summary(), self.physical.until)
    }

    fn findings(&self) -> Vec<Finding> {
        self.inner.findings()
    }

    fn engine_identity(&self) -> Option<String> {
        self.inner.engine_identity()
    }

    async fn compare(&self, cx: &Cx, expected: &Witness) -> Result<Vec<CheckReport>, DriverError> {
        let physical = physical_of(own_witness(expected)?)?;
        let mut reports = physical.compare(&self.seen);
        let others = physical.checks_of_others().len();
        match self.inner.compare(cx, expected).await {
            Ok(compared) => reports.extend(compared),
            Err(error) => {
                cx.check()?;
                // What is wrong with its files is the better answer than that an engine stumbled over them.
                if reports.iter().all(|report| report.findings.is_empty()) {
                    return Err(error);
                }
                let names = expected.checks();
                let (own, done) = (names.len() - others, reports.len());
                reports.extend(undone(names.into_iter().take(own).skip(done), &why(&error)));
            }
        }
        reports.extend(self.compare_others(cx, physical).await?);
        Ok(reports)
    }

    async fn newest(&self, cx: &Cx) -> Result<Option<Timestamp>, DriverError> {
        self.inner.newest(cx).await
    }

    async fn answer(&self, cx: &Cx, check: &UserCheck, point: Timestamp) -> Result<CheckReport, DriverError> {
        self.inner.answer(cx, check, point).await
    }

    async fn write_probe(&self, cx: &Cx) -> Result<CheckReport, DriverError> {
        self.inner.write_probe(cx).await
    }

    async fn damage(&self, cx: &Cx, expected: &Witness, seed: u64) -> Result<Damage, DriverError> {
        self.inner.damage(cx, expected, seed).await
    }

    async fn ruin(
        &self,
        cx: &Cx,
        expected: &Witness,
        checks: &[UserCheck],
        seed: u64,
    ) -> Result<Damage, DriverError> {
        self.inner.ruin(cx, expected, checks, seed).await
    }

    async fn close(self: Box<Self>, cx: &Cx) -> Result<(), DriverError> {
        Box::new(self.inner).close(cx).await
    }
}
