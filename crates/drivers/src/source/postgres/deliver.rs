//! Restores a copy for people: to a directory, or to a new database on a server of theirs. Never to one that exists.
//!
//! On a server for people nothing but the new database is touched: no role is made or changed there. Where the copy's
//! roles are missing, everything belongs to the role that restores, and a finding says so.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use seaworthy_interface::copy::Written;
use seaworthy_interface::{
    CopyPath, CopyReader, Cx, Delivered, DriverError, ErrorKind, NewTarget, Opening, Restoring,
};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::witness::postgres::{PostgresWitness, printable};

use super::archive::ArchiveFacts;
use super::capture::client_environment;
use super::globals::{self, Globals};
use super::loading::{self, Loads, Target};
use super::names::{conninfo_value, identifier, is_local, literal, split_qualified, text_of};
use super::restore::{
    DEADLOCK, archive_path, blocking, exit_on_error, is_excused, read_globals, without_setting,
};
use super::restored::{observe, view_of};
use super::session::{Address, Purpose, Session};
use super::tools::{self, Tool, argument};
use super::{ARCHIVE, MAJOR_MAX, PostgresSource, physical};

/// Most bytes of a small file beside the archive.
const SMALL_BYTES_MAX: u64 = 64 << 20;
/// Files beside the archive.
const BESIDE: &[&str] = &["globals.sql", "globals.json", "README.txt"];
/// Kinds of entries that belong to a table and come after it.
const ATTACHED: &[&str] = &[
    "TABLE DATA",
    "DEFAULT",
    "SEQUENCE",
    "SEQUENCE SET",
    "SEQUENCE OWNED BY",
    "CONSTRAINT",
    "CHECK CONSTRAINT",
    "INDEX",
    "COMMENT",
    "STATISTICS",
];

/// What both sides of a restore into a new database have shown of themselves.
struct Ready {
    server: Session,
    major: u32,
    tool: tools::Found,
}

pub(super) fn of_a_cluster() -> DriverError {
    DriverError::new(
        ErrorKind::Unsupported,
        "restore a base backup into a database: it holds a whole cluster",
    )
    .hint(
        "restore it into a directory: `--to DIRECTORY`, start it there, and dump the database that is wanted",
    )
}

impl PostgresSource {
    pub(super) async fn deliver_to(
        &self,
        cx: &Cx,
        witness: &PostgresWitness,
        from: Arc<dyn CopyReader>,
        to: &NewTarget,
    ) -> Result<Delivered, DriverError> {
        if witness.physical.is_some() {
            return match to {
                NewTarget::Directory(directory) => {
                    let copies = [(witness.clone(), from)];
                    physical::deliver::deliver(
                        cx,
                        &copies,
                        None,
                        directory,
                        &seaworthy_model::wal::Target::Latest,
                        &Opening::Alone,
                    )
                    .await
                }
                NewTarget::Database { .. } => Err(of_a_cluster()),
            };
        }
        match to {
            NewTarget::Directory(directory) => to_directory(cx, directory, from).await,
            NewTarget::Database { tables, .. } => {
                let address = self.address_of(to)?;
                self.to_database(cx, witness, from, address, tables).await
            }
        }
    }

    /// See [`seaworthy_interface::Source::ready`].
    pub(super) async fn ready_for(
        &self,
        cx: &Cx,
        witness: &PostgresWitness,
        to: &NewTarget,
    ) -> Result<(), DriverError> {
        match to {
            NewTarget::Directory(_) => Ok(()),
            NewTarget::Database { .. } if witness.physical.is_some() => Err(of_a_cluster()),
            NewTarget::Database { .. } => {
                self.ready(cx, witness, &self.address_of(to)?).await.map(|_: Ready| ())
            }
        }
    }

    fn address_of(&self, to: &NewTarget) -> Result<Address, DriverError> {
        let NewTarget::Database { host, port, user, database, .. } = to else {
            return Err(DriverError::new(ErrorKind::Other, "take a directory for a database"));
        };
        if database.is_empty() || database.contains(['\0', '=']) || database.contains("://") {
            let context = format!("make a database named `{}`", printable(database));
            return Err(DriverError::new(ErrorKind::Refused, context));
        }
        let host = host.clone().unwrap_or_else(|| self.spec.host.clone());
        if !is_local(&host) {
            return Err(DriverError::new(ErrorKind::Unsupported, format!("restore to {host}"))
                .hint("TLS is not built in yet: use a Unix socket, or an SSH tunnel to a loopback address"));
        }
        Ok(Address {
            host,
            port: port.unwrap_or(self.spec.port),
            user: user.clone().unwrap_or_else(|| self.spec.user.clone()),
            database: database.clone(),
            password: self.password.clone(),
        })
    }

    async fn ready(
        &self,
        cx: &Cx,
        witness: &PostgresWitness,
        address: &Address,
    ) -> Result<Ready, DriverError> {
        let maintenance = Address { database: "postgres".to_owned(), ..address.clone() };
        let server = Session::open(cx, &maintenance, Purpose::Target).await?;
        let major = server.version / 10_000;
        if major < witness.server.major() {
            return Err(DriverError::new(
                ErrorKind::Unsupported,
                format!("restore a copy of PostgreSQL {} to PostgreSQL {major}", witness.server.major()),
            )
            .hint("restore to a server of the same major, or of a newer one"));
        }
        let name = &address.database;
        let exists = format!("SELECT 1 FROM pg_database WHERE datname = {}", literal(name));
        if !server.query(cx, "look for the database", &exists).await?.is_empty() {
            return Err(DriverError::new(
                ErrorKind::Conflict,
                format!("restore to `{}`: it exists", printable(name)),
            )
            .code(FindingCode::LiveTarget)
            .hint("name a database that does not exist; a live one is never written to"));
        }
        let dump_major = witness.scope.dump_version.split('.').next().and_then(|major| major.parse().ok());
        let oldest = dump_major.unwrap_or(major).max(witness.server.major());
        let tool =
            tools::find(cx, Tool::PgRestore, oldest..=MAJOR_MAX, &self.programs, FindingCode::EnvBinary)
                .await?;
        Ok(Ready { server, major, tool })
    }

    async fn to_database(
        &self,
        cx: &Cx,
        witness: &PostgresWitness,
        from: Arc<dyn CopyReader>,
        address: Address,
        tables: &[String],
    ) -> Result<Delivered, DriverError> {
        let name = address.database.clone();
        let Ready { server, major, tool } = self.ready(cx, witness, &address).await?;
        let globals = read_globals(cx, &from).await?;
        cx.phase("fetch");
        let failed = |error| DriverError::io("make a private directory for the archive", error);
        let staging = tempfile::Builder::new().prefix("seaworthy-").tempdir().map_err(failed)?;
        let archive = staging.path().join(ARCHIVE);
        let facts = loading::contents(cx, &from).await?;
        let wanted = if tables.is_empty() { None } else { Some(chosen(&facts, tables)?) };
        let loads = loading::fetch(cx, &from, &archive, &facts, wanted.as_ref()).await?;
        let mut options: Vec<String> =
            ["--format=directory", "--no-password", "--no-tablespaces", "--no-subscriptions"]
                .map(str::to_owned)
                .to_vec();
        options.extend(exit_on_error(&tool, major).map(str::to_owned));
        let mut findings = Vec::new();
        let missing = missing_roles(cx, &server, &facts).await?;
        if !missing.is_empty() {
            options.extend(["--no-owner".to_owned(), "--no-privileges".to_owned()]);
            findings.push(Finding::new(
                FindingCode::OwnersOrGrants,
                printable(&name),
                format!(
                    "everything belongs to {}, without grants: the server has no role {}",
                    address.user,
                    printable(&missing.join(", "))
                ),
            ));
        }
        options.push(format!("--dbname=dbname={}", conninfo_value(&name)));

        cx.phase("restore");
        let create = globals.create_database(&name, server.version);
        // One worker where two have come to wait for each other's locks; see the restore of a drill.
        for jobs in [2, 1] {
            server.execute(cx, "make the new database", &create).await?;
            let options: Vec<String> =
                std::iter::once(format!("--jobs={jobs}")).chain(options.iter().cloned()).collect();
            let (is_whole, copy) = (tables.is_empty(), (&from, &loads, &*archive));
            let filled = self.fill_database(cx, &address, &tool, &options, &globals, is_whole, copy).await;
            let error = match filled {
                Ok(more) => {
                    findings.extend(more);
                    break;
                }
                Err(error) => error,
            };
            // Half a database must not look like a whole one. It was made by this call, so it is ours to drop.
            let drop = format!("DROP DATABASE {} WITH (FORCE)", identifier(&name));
            let dropped = server.execute(&Cx::unbounded(), "drop the unfinished database", &drop).await;
            if dropped.is_err() {
                let hint = format!("the unfinished database `{}` is left; drop it", printable(&name));
                return Err(error.hint(hint));
            }
            if jobs == 1 || error.kind != ErrorKind::Conflict {
                return Err(error);
            }
            cx.phase("restore with one worker: two waited for each other's locks");
        }
        if tables.is_empty() {
            findings.extend(verify(cx, &address, witness, missing.is_empty()).await?);
        }
        Ok(Delivered {
            written: loads.written(),
            summary: format!(
                "restored {} to database {} on {}:{}; next: psql --host={} --port={} --dbname={}",
                if tables.is_empty() { "everything".to_owned() } else { printable(&tables.join(", ")) },
                printable(&name),
                address.host,
                address.port,
                address.host,
                address.port,
                printable(&name)
            ),
            findings,
        })
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one call, split off only so that a failure drops the database"
    )]
    async fn fill_database(
        &self,
        cx: &Cx,
        address: &Address,
        tool: &tools::Found,
        options: &[String],
        globals: &Globals,
        is_whole: bool,
        (from, loads, archive): (&Arc<dyn CopyReader>, &Loads, &Path),
    ) -> Result<Vec<Finding>, DriverError> {
        let inside = Session::open(cx, address, Purpose::Target).await?;
        if is_whole && !globals.has_public {
            inside.execute(cx, "drop the schema that a new database has", "DROP SCHEMA public").await?;
        }
        drop(inside);
        let environment = client_environment(address)?;
        let archive = argument(archive)?;
        let is_alone = options.first().is_some_and(|option| option == "--jobs=1");
        let (program, variables) = (&*tool.path, &environment.variables);
        let made = Made { address, program, options, archive, variables, is_alone };
        loads.restore(cx, from, &made).await?;
        let session = Session::open(cx, address, Purpose::Target).await?;
        let findings = globals.restore_database_settings(cx, &session, &address.database).await?;
        cx.phase("analyze");
        session.execute(cx, "collect statistics", "ANALYZE").await?;
        Ok(findings)
    }
}

/// The new database on a server for people.
struct Made<'a> {
    address: &'a Address,
    program: &'a Path,
    options: &'a [String],
    archive: String,
    variables: &'a [(String, String)],
    is_alone: bool,
}

#[async_trait]
impl Target for Made<'_> {
    async fn open(&self, cx: &Cx) -> Result<Session, DriverError> {
        Session::open(cx, self.address, Purpose::Target).await
    }

    async fn run(&self, cx: &Cx, options: &[String]) -> Result<(), DriverError> {
        let options: Vec<String> =
            self.options.iter().chain(options).chain([&self.archive]).cloned().collect();
        let output = tools::run(cx, self.program, &options, self.variables).await?;
        let messages = String::from_utf8_lossy(&output.stderr);
        if output.status.success() || (output.status.code() == Some(1) && is_excused(&messages)) {
            return Ok(());
        }
        Err(not_restored(&without_setting(&messages)))
    }

    fn is_alone(&self) -> bool {
        self.is_alone
    }
}

/// What `pg_restore` said, as an error.
fn not_restored(messages: &str) -> DriverError {
    let said = messages.lines().find(|line| line.contains("error:")).unwrap_or("it said nothing");
    let context = format!("restore the archive: pg_restore: {}", printable(said.trim()));
    if messages.contains(DEADLOCK) {
        return DriverError::new(ErrorKind::Conflict, context).hint("run it again");
    }
    let error = DriverError::new(ErrorKind::Other, context);
    if said.contains(" role \"") && said.contains("does not exist") {
        // A policy or a user mapping is for a role, whoever owns things.
        error.hint("make the roles first: restore to a directory and run its globals.sql, or CREATE ROLE")
    } else {
        error
    }
}

async fn to_directory(
    cx: &Cx,
    directory: &Path,
    from: Arc<dyn CopyReader>,
) -> Result<Delivered, DriverError> {
    let context = || format!("restore to {}", directory.display());
    match std::fs::read_dir(directory) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(DriverError::new(ErrorKind::Conflict, format!("{}: it is not empty", context()))
                    .code(FindingCode::LiveTarget)
                    .hint("name a directory that does not exist or is empty"));
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::create_dir(directory).map_err(|error| DriverError::io(context(), error))?;
        }
        Err(error) => return Err(DriverError::io(context(), error)),
    }
    cx.phase("fetch");
    let (into, under) = (directory.to_path_buf(), archive_path()?);
    let written = blocking(cx, move || {
        let mut written: Written = from.restore(&under, &into.join(ARCHIVE), &Restoring::default())?;
        for name in BESIDE {
            let path =
                CopyPath::new(*name).ok_or_else(|| DriverError::new(ErrorKind::Other, "name a file"))?;
            let bytes = from.read(&path, SMALL_BYTES_MAX)?;
            std::fs::write(into.join(name), &bytes)
                .map_err(|error| DriverError::io(format!("write {name}"), error))?;
            written.files += 1;
            written.bytes += bytes.len() as u64;
        }
        Ok(written)
    })
    .await?;
    let place = directory.display();
    Ok(Delivered {
        written,
        summary: format!(
            "{} files in {place}; next: psql --file={place}/globals.sql, then pg_restore --format=directory --jobs=2 \
             --dbname=<new database> {place}/{ARCHIVE}",
            written.files
        ),
        findings: Vec::new(),
    })
}

/// Owners in the archive that the server does not know.
async fn missing_roles(cx: &Cx, server: &Session, facts: &ArchiveFacts) -> Result<Vec<String>, DriverError> {
    let owners: BTreeSet<String> = facts
        .entries
        .iter()
        .filter(|entry| !entry.owner.is_empty())
        .map(|entry| text_of(&entry.owner))
        .collect();
    let known = globals::role_names(cx, server).await?;
    Ok(owners.into_iter().filter(|owner| !known.contains(owner)).collect())
}

/// The entries that restore some tables alone: the tables, what they depend on, what belongs to them. Foreign keys,
/// triggers and policies stay out: they may lead to what is not there.
fn chosen(facts: &ArchiveFacts, tables: &[String]) -> Result<BTreeSet<i64>, DriverError> {
    let mut wanted: BTreeSet<i64> = BTreeSet::new();
    let mut roots: BTreeSet<i64> = BTreeSet::new();
    for table in tables {
        let unknown = || {
            DriverError::new(
                ErrorKind::NotFound,
                format!("restore the table `{}`: the copy has none", printable(table)),
            )
            .hint("write it as schema.table")
        };
        let parts = split_qualified(table).ok_or_else(unknown)?;
        let (schema, name) = match &parts[..] {
            [schema, name] => (schema.as_bytes(), name.as_bytes()),
            [name] => (&b"public"[..], name.as_bytes()),
            _ => return Err(unknown()),
        };
        let entry = facts
            .entries
            .iter()
            .find(|entry| entry.desc == b"TABLE" && entry.namespace == schema && entry.tag == name)
            .ok_or_else(unknown)?;
        roots.insert(entry.dump_id);
    }
    let mut open: Vec<i64> = roots.iter().copied().collect();
    loop {
        while let Some(id) = open.pop() {
            if wanted.insert(id)
                && let Some(entry) = facts.entries.iter().find(|entry| entry.dump_id == id)
            {
                open.extend(entry.dependencies.iter().filter(|id| !wanted.contains(id)));
            }
        }
        // What belongs to a wanted table: its data, defaults, sequences, keys, indexes.
        open.extend(
            facts
                .entries
                .iter()
                .filter(|entry| {
                    !wanted.contains(&entry.dump_id)
                        && ATTACHED.iter().any(|kind| kind.as_bytes() == entry.desc)
                        && entry.dependencies.iter().any(|id| {
                            roots.contains(id)
                                || (wanted.contains(id)
                                    && matches!(&entry.desc[..], b"SEQUENCE SET" | b"SEQUENCE OWNED BY"))
                        })
                })
                .map(|entry| entry.dump_id),
        );
        if open.is_empty() {
            break;
        }
    }
    Ok(wanted)
}

/// Measures the new database and says what differs; what belongs to the server is not its business.
async fn verify(
    cx: &Cx,
    address: &Address,
    witness: &PostgresWitness,
    has_owners: bool,
) -> Result<Vec<Finding>, DriverError> {
    cx.phase("verify");
    let observed = match observe(
        cx,
        address,
        Purpose::Target,
        &view_of(witness),
        witness,
        &std::collections::BTreeMap::new(),
    )
    .await
    {
        Ok(observed) => observed,
        Err(error) if matches!(error.kind, ErrorKind::Stopped(_)) => return Err(error),
        Err(error) => {
            let facts = format!("restored, but not compared: could not {error}");
            return Ok(vec![Finding::new(FindingCode::EnvOther, printable(&address.database), facts)]);
        }
    };
    if observed.server.major() != witness.server.major() {
        return Ok(counted(witness, &observed));
    }
    let of_server = ["roles", "settings", "database", "objects:default-privileges"];
    Ok(witness
        .compare(&observed)
        .into_iter()
        .filter(|report| !of_server.contains(&report.name.as_str()))
        .filter(|report| {
            has_owners || !matches!(report.name.as_str(), "objects:privileges" | "objects:policies")
        })
        .flat_map(|report| report.findings)
        .collect())
}

/// What can be said across majors: the text of a value and of a definition changes from one to the next, so that neither
/// hashes nor definitions compare, but numbers of rows do.
fn counted(witness: &PostgresWitness, observed: &PostgresWitness) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, facts) in &witness.tables {
        match observed.tables.get(name) {
            Some(found) if found.rows == facts.rows => {}
            Some(found) => findings.push(Finding::new(
                FindingCode::RowCount,
                printable(name),
                format!("{} rows, {} restored", facts.rows, found.rows),
            )),
            None => findings.push(Finding::new(
                FindingCode::RelationMissing,
                printable(name),
                "is in the copy and not in the new database",
            )),
        }
    }
    findings.push(Finding::new(
        FindingCode::EnvBinary,
        printable(&observed.database.name),
        format!(
            "a copy of PostgreSQL {} is now in PostgreSQL {}: {} tables were compared by their number of rows alone",
            witness.server.major(),
            observed.server.major(),
            witness.tables.len()
        ),
    ));
    findings
}
