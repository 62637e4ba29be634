//! PostgreSQL, captured logically: `pg_dump` on an exported snapshot, split into a directory archive while it passes,
//! and a witness taken by the server itself in the same snapshot.
//!
//! The source is only ever read: its sessions are read-only, row security is off (so that it fails instead of
//! filtering), nothing is staged on disk, and no statement is made of anything but quoted names. What is restored is
//! hostile: it is run by `pg_restore` over a connection of its own, inside a sandbox; `psql` and shells never see it.
//!
//! In a copy: `database/` (a directory archive for `pg_restore -j`), `globals.json`, `globals.sql` and `README.txt`.
//!
//! A least-privileged backup role: `LOGIN`, `CONNECT` on the database and `GRANT pg_read_all_data TO role` (PostgreSQL
//! 14 and newer); `BYPASSRLS` where tables have row security; large objects need `SELECT` each, or a superuser; on a standby
//! `pg_read_all_stats`, without which nobody can tell it whether the standby still hears from its primary.

pub mod adopted;
pub mod archive;
mod capture;
mod catalog;
mod deliver;
mod globals;
mod loading;
mod meanwhile;
mod measure;
mod names;
mod physical;
pub mod relation;
pub mod replication;
mod restore;
mod restored;
mod session;
mod standby;
mod tools;
pub mod wal;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use seaworthy_interface::{
    Captured, CopyPath, CopyReader, CopyWriter, Cx, Delivered, DriverError, ErrorKind, Handed, Journal,
    LogFile, NewTarget, Opening, Pushed, Restored, Sandbox, Source, SourceFacts, Streamed,
};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::source::{PostgresMode, PostgresSpec, Tls};
use seaworthy_model::wal::Target;
use seaworthy_model::witness::Witness;
use seaworthy_model::witness::postgres::{PostgresWitness, printable};
use secrecy::SecretString;

use self::session::{Address, Purpose, Session, flag, optional, parsed, text};
use self::tools::Tool;
pub use self::tools::installation;

/// The newest major that the archive's format is known of.
const MAJOR_MAX: u32 = 18;
/// The oldest major that is read.
const MAJOR_MIN: u32 = 13;
/// Longest that a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Path of the archive inside a copy.
const ARCHIVE: &str = "database";
/// Path of the globals inside a copy.
const GLOBALS: &str = "globals.json";
/// Most bytes of `globals.json`: thousands of roles.
const GLOBALS_BYTES_MAX: u64 = 64 << 20;

/// One PostgreSQL database.
#[derive(Debug)]
pub struct PostgresSource {
    spec: PostgresSpec,
    password: Option<SecretString>,
    programs: Vec<PathBuf>,
}

impl PostgresSource {
    /// Connects to the server for physical replication, as the same role.
    pub async fn replication(&self, cx: &Cx) -> Result<replication::Replication, DriverError> {
        replication::Replication::open(cx, &self.address()).await
    }
}

impl PostgresSource {
    /// A source that is reached as `spec` says, with the password that its reference led to.
    ///
    /// `programs` are directories in which PostgreSQL's programs are looked for besides the usual ones, in order: what
    /// the caller has from `PATH`, for example. A driver does not read the environment.
    pub fn new(
        spec: PostgresSpec,
        password: Option<SecretString>,
        programs: Vec<PathBuf>,
    ) -> Result<Self, DriverError> {
        let unusable = |what: &str| {
            DriverError::new(ErrorKind::Refused, format!("use `{}` as {what}", printable(&spec.database)))
        };
        for (value, what) in [(&spec.host, "a host"), (&spec.user, "a role"), (&spec.database, "a database")]
        {
            if value.is_empty() || value.contains('\0') {
                return Err(DriverError::new(
                    ErrorKind::Refused,
                    format!("use `{}` as {what}", printable(value)),
                )
                .hint("it is empty or holds a NUL"));
            }
        }
        if spec.database.contains('=') || spec.database.contains("://") || spec.database.starts_with('-') {
            return Err(
                unusable("a database").hint("a database is given by its name, not by a connection string")
            );
        }
        match spec.tls {
            Tls::LocalOnly if !names::is_local(&spec.host) => {
                return Err(DriverError::new(ErrorKind::Refused, format!("connect to {} without TLS", spec.host))
                    .hint("use a Unix socket or a loopback address (for example an SSH tunnel), or `tls = \"verify-full\"`"));
            }
            Tls::LocalOnly => {}
            Tls::VerifyFull => {
                return Err(DriverError::new(
                    ErrorKind::Unsupported,
                    format!("connect to {} with TLS", spec.host),
                )
                .hint("TLS is not built in yet: use a Unix socket, or an SSH tunnel to a loopback address"));
            }
        }
        for table in &spec.exclude_tables {
            if names::split_qualified(table).is_none_or(|parts| parts.len() != 2) {
                return Err(DriverError::new(
                    ErrorKind::Refused,
                    format!("exclude the table `{}`", printable(table)),
                )
                .hint("write it as schema.table; quote a part that holds a dot"));
            }
        }
        let mut directories: Vec<PathBuf> = spec.bin_dir.iter().map(PathBuf::from).collect();
        directories.extend(programs);
        Ok(Self { spec, password, programs: directories })
    }

    fn address(&self) -> Address {
        Address {
            host: self.spec.host.clone(),
            port: self.spec.port,
            user: self.spec.user.clone(),
            database: self.spec.database.clone(),
            password: self.password.clone(),
        }
    }
}

/// The witness as one of this kind.
fn own_witness(witness: &Witness) -> Result<&PostgresWitness, DriverError> {
    match witness {
        Witness::Postgres(witness) => Ok(witness),
        Witness::Sqlite(_) | Witness::Files(_) => Err(DriverError::new(
            ErrorKind::Refused,
            format!("restore a {} witness as PostgreSQL", witness.kind()),
        )
        .code(FindingCode::WrongSource)),
    }
}

/// What a database holds that is wrong already: a restore repeats it.
async fn flaws(cx: &Cx, session: &Session, view: &catalog::View) -> Result<Vec<Finding>, DriverError> {
    let mut findings = Vec::new();
    let invalid = format!(
        "SELECT format('%I.%I', n.nspname, ix.relname) FROM pg_index i JOIN pg_class ix ON ix.oid = i.indexrelid \
         JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE NOT (i.indisvalid AND i.indisready) AND {} AND {} ORDER BY 1",
        view.schema(),
        view.relation("c.oid")
    );
    for row in session.query(cx, "look for invalid indexes", &invalid).await? {
        findings.push(Finding::new(
            FindingCode::SourceFlawed,
            printable(&text(&row, 0)?),
            "is an invalid index; a dump leaves it out, so a restore will not have it",
        ));
    }
    let unvalidated = format!(
        "SELECT format('%s: %I', c.oid::regclass, k.conname) FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid \
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT k.convalidated AND {} AND {} ORDER BY 1",
        view.schema(),
        view.relation("c.oid")
    );
    for row in session.query(cx, "look for constraints that are not validated", &unvalidated).await? {
        findings.push(Finding::new(
            FindingCode::SourceFlawed,
            printable(&text(&row, 0)?),
            "is NOT VALID: rows older than it may break it",
        ));
    }
    Ok(findings)
}

/// How much log the server writes in an hour, on average since it counts; unknown before version 14, of a standby, and for the first ten minutes.
async fn log_rate(cx: &Cx, session: &Session) -> Result<Option<u64>, DriverError> {
    if session.version < 140_000 {
        return Ok(None);
    }
    let sql = "SELECT CASE WHEN NOT pg_is_in_recovery() AND now() - stats_reset > interval '10 minutes' \
               THEN round(wal_bytes * 3600 / extract(epoch FROM now() - stats_reset))::text END FROM pg_stat_wal";
    let row = session.row(cx, "ask how much log is written", sql).await?;
    Ok(optional(&row, 0)?.and_then(|text| text.parse().ok()))
}

impl PostgresSource {
    /// Whether its copies hold the log, so that what is kept of it leads on from one.
    fn has_log(&self, what: &str) -> Result<(), DriverError> {
        if matches!(self.spec.mode, PostgresMode::Continuous { .. }) {
            return Ok(());
        }
        Err(DriverError::new(
            ErrorKind::Unsupported,
            format!("{what}: the mode is {}", self.spec.mode.word()),
        )
        .hint("write mode = \"continuous\", and take a copy, of which the log goes on"))
    }
}

#[async_trait]
impl Source for PostgresSource {
    async fn probe(&self, cx: &Cx) -> Result<SourceFacts, DriverError> {
        let cx = &cx.within(PROBE_TIMEOUT);
        let session = Session::open(cx, &self.address(), Purpose::Source).await?;
        let row = session
            .row(
                cx,
                "ask what the database is",
                "SELECT (SELECT system_identifier::text FROM pg_control_system()), current_setting('server_version'), \
                 pg_database_size(current_database())::text, pg_size_pretty(pg_database_size(current_database())), \
                 (SELECT count(*)::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' \
                 AND n.nspname <> 'information_schema'), (SELECT rolsuper::text FROM pg_roles \
                 WHERE rolname = current_user)",
            )
            .await?;
        let mut findings = flaws(cx, &session, &catalog::View::default()).await?;
        let is_cluster = self.spec.mode.is_of_cluster();
        let log_bytes_per_hour = log_rate(cx, &session).await?;
        if is_cluster {
            findings.extend(self.obstacles(cx, &session, log_bytes_per_hour).await?);
        }
        if let Some(standby) = standby::read(cx, &session).await? {
            findings.extend(standby::outlook(&standby, &printable(&self.spec.database)));
        }
        let unreadable = session
            .query(
                cx,
                "look for tables that cannot be read",
                "SELECT format('%I.%I', n.nspname, c.relname), has_table_privilege(c.oid, 'SELECT')::text, \
                 (c.relrowsecurity AND row_security_active(c.oid))::text FROM pg_class c \
                 JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') \
                 AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
                 AND (NOT has_table_privilege(c.oid, 'SELECT') OR row_security_active(c.oid)) ORDER BY 1",
            )
            .await;
        match unreadable {
            Ok(rows) => {
                for row in rows {
                    let (code, detail) = if flag(&row, 1)? {
                        (
                            FindingCode::RowsFiltered,
                            "row security would hide rows from this role: a backup will fail",
                        )
                    } else {
                        (FindingCode::ScopeNarrow, "this role may not read it: a backup will fail")
                    };
                    findings.push(Finding::new(code, printable(&text(&row, 0)?), detail));
                }
            }
            Err(error) if matches!(error.kind, ErrorKind::Stopped(_)) => return Err(error),
            Err(error) => findings.push(Finding::new(
                FindingCode::ScopeNarrow,
                printable(&self.spec.database),
                format!("could not {error}"),
            )),
        }
        let major = session.version / 10_000;
        let tools = [
            (Tool::Postgres, major..=major),
            (Tool::PgDump, major..=MAJOR_MAX),
            (Tool::PgRestore, major..=MAJOR_MAX),
            (Tool::Initdb, major..=major),
        ];
        // A base backup is restored by the engine alone.
        let needed = if is_cluster { 1 } else { tools.len() };
        for (tool, majors) in tools.into_iter().take(needed) {
            if let Err(error) = tools::find(cx, tool, majors, &self.programs, FindingCode::EnvBinary).await {
                if matches!(error.kind, ErrorKind::Stopped(_)) {
                    return Err(error);
                }
                findings.push(Finding::new(
                    error.code.unwrap_or(FindingCode::EnvBinary),
                    format!("PostgreSQL {major}"),
                    format!("could not {error}; {}", error.hint.clone().unwrap_or_default()),
                ));
            }
        }
        let version = text(&row, 1)?;
        let version = version.split(' ').next().unwrap_or_default();
        if is_cluster {
            let sizes = "SELECT sum(pg_database_size(oid))::text, pg_size_pretty(sum(pg_database_size(oid))), \
                         count(*)::text FROM pg_database WHERE has_database_privilege(oid, 'CONNECT')";
            let sizes = session.row(cx, "ask how large the cluster is", sizes).await?;
            return Ok(SourceFacts {
                summary: format!(
                    "PostgreSQL {version}, the cluster of {} with {} in {} databases",
                    printable(&self.spec.database),
                    text(&sizes, 1)?,
                    text(&sizes, 2)?
                ),
                identity: text(&row, 0)?,
                size_bytes: parsed(&sizes, 0)?,
                log_bytes_per_hour,
                findings,
            });
        }
        Ok(SourceFacts {
            summary: format!(
                "PostgreSQL {version}, database {}, {}, {} tables",
                printable(&self.spec.database),
                text(&row, 3)?,
                text(&row, 4)?
            ),
            identity: format!("{}/{}", text(&row, 0)?, self.spec.database),
            size_bytes: parsed(&row, 2)?,
            log_bytes_per_hour,
            findings,
        })
    }

    async fn capture(&self, cx: &Cx, to: Arc<dyn CopyWriter>) -> Result<Captured, DriverError> {
        match self.spec.mode {
            PostgresMode::Logical => self.capture_into(cx, to).await,
            PostgresMode::Physical => self.capture_cluster(cx, to, None).await,
            PostgresMode::Continuous { base_every } => self.capture_cluster(cx, to, Some(base_every)).await,
        }
    }

    async fn restore(
        &self,
        cx: &Cx,
        witness: &Witness,
        from: Arc<dyn CopyReader>,
        into: Arc<dyn Sandbox>,
    ) -> Result<Box<dyn Restored>, DriverError> {
        let witness = own_witness(witness)?;
        if witness.physical.is_some() {
            return Ok(Box::new(physical::restore::restore(cx, witness, from, into, &self.programs).await?));
        }
        Ok(Box::new(restore::restore(cx, witness, from, into, &self.programs).await?))
    }

    async fn restore_until(
        &self,
        cx: &Cx,
        copies: &[(Witness, Arc<dyn CopyReader>)],
        journal: Arc<dyn Journal>,
        into: Arc<dyn Sandbox>,
        until: &Target,
    ) -> Result<Box<dyn Restored>, DriverError> {
        let copies = clusters(copies, until)?;
        let done = physical::onward::restore(cx, &copies, journal, into, &self.programs, until).await?;
        Ok(Box::new(done))
    }

    async fn ready(&self, cx: &Cx, witness: &Witness, to: &NewTarget) -> Result<(), DriverError> {
        self.ready_for(cx, own_witness(witness)?, to).await
    }

    async fn stream(
        &self,
        cx: &Cx,
        lineage: &str,
        journal: Arc<dyn Journal>,
        every: Duration,
        told: &(dyn Fn(Streamed) + Send + Sync),
    ) -> Result<(), DriverError> {
        self.has_log("receive the log")?;
        self.stream_log(cx, lineage, journal, every, told).await
    }

    async fn keep_log_file(
        &self,
        cx: &Cx,
        copies: &[(Witness, Arc<dyn CopyReader>)],
        journal: Arc<dyn Journal>,
        file: &LogFile,
        bytes: Bytes,
    ) -> Result<Pushed, DriverError> {
        self.has_log("keep a file of the log")?;
        let (copies, file) = (logged(copies)?, file.clone());
        restore::blocking(cx, move || physical::archived::keep(&copies, &journal, &file, &bytes)).await
    }

    async fn log_file(
        &self,
        cx: &Cx,
        copies: &[(Witness, Arc<dyn CopyReader>)],
        journal: Arc<dyn Journal>,
        file: &LogFile,
        of: Option<Timestamp>,
    ) -> Result<Handed, DriverError> {
        let (copies, file) = (logged(copies)?, file.clone());
        restore::blocking(cx, move || physical::archived::hand(&copies, &journal, &file, of)).await
    }

    fn old_places(&self, witness: &Witness, old: &Path) -> Vec<(CopyPath, PathBuf)> {
        own_witness(witness)
            .map_or_else(|_| Vec::new(), |witness| physical::deliver::old_places(witness, old))
    }

    async fn deliver_until(
        &self,
        cx: &Cx,
        copies: &[(Witness, Arc<dyn CopyReader>)],
        journal: Arc<dyn Journal>,
        to: &NewTarget,
        until: &Target,
        opening: &Opening,
    ) -> Result<Delivered, DriverError> {
        let copies = clusters(copies, until)?;
        match to {
            NewTarget::Directory(directory) => {
                physical::deliver::deliver(cx, &copies, Some(journal), directory, until, opening).await
            }
            NewTarget::Database { .. } => Err(deliver::of_a_cluster()),
        }
    }

    async fn deliver(
        &self,
        cx: &Cx,
        witness: &Witness,
        from: Arc<dyn CopyReader>,
        to: &NewTarget,
    ) -> Result<Delivered, DriverError> {
        self.deliver_to(cx, own_witness(witness)?, from, to).await
    }
}

/// Those copies that hold a log.
fn logged(copies: &[(Witness, Arc<dyn CopyReader>)]) -> Result<Vec<physical::deliver::Copy>, DriverError> {
    let mut logged = Vec::new();
    for (witness, from) in copies {
        let witness = own_witness(witness)?;
        if witness.physical.is_some() {
            logged.push((witness.clone(), Arc::clone(from)));
        }
    }
    Ok(logged)
}

fn clusters(
    copies: &[(Witness, Arc<dyn CopyReader>)],
    until: &Target,
) -> Result<Vec<physical::deliver::Copy>, DriverError> {
    let own = |(witness, from): &(Witness, Arc<dyn CopyReader>)| {
        let witness = own_witness(witness)?;
        if witness.physical.is_none() {
            return Err(DriverError::new(
                ErrorKind::Unsupported,
                format!("restore to {until}: a dump holds one instant and no log"),
            )
            .hint("continuous copies do: `mode = \"continuous\"` of the source"));
        }
        Ok((witness.clone(), Arc::clone(from)))
    };
    copies.iter().map(own).collect()
}
