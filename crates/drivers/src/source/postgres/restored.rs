//! A database that was restored into a sandbox: measured again, asked, probed, damaged on purpose.
//!
//! After a damage, tables larger than a few megabytes that the damage did not touch are not measured again. That is
//! sound because of what the measurement is for: the control line asks whether *this* damage is found, the damage is one
//! statement of ours with triggers switched off, and it names the one table it changes. The proof itself never reuses
//! a measurement: before a damage every call measures everything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use seaworthy_interface::{Cx, Damage, DriverError, ErrorKind, Restored, Sandbox, SandboxProcess};
use seaworthy_model::check::{Question, UserCheck};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::receipt::CLOCK_STEP;
use seaworthy_model::verdict::{CheckOutcome, CheckReport};
use seaworthy_model::witness::Witness;
use seaworthy_model::witness::postgres::{
    ObjectClass, PostgresWitness, SEQUENCES, SequencePosition, ServerFacts, SnapshotFacts, TableFacts,
    printable, rows_check,
};

use super::catalog::{self, View, own};
use super::globals::{self, Globals};
use super::measure;
use super::names::{identifier, literal, split_qualified};
use super::own_witness;
use super::restore::{Filled, exec};
use super::session::{Address, Purpose, Session, flag, optional, parsed, state_of, text};

/// Sessions that measure rows.
const WORKERS: usize = 2;
/// Smallest table whose measurement is reused after a damage elsewhere: below it, measuring takes milliseconds.
const REUSED_BYTES_MIN: u64 = 8 << 20;
/// Largest table that is damaged, where there is a choice: it must be measured again.
const DAMAGED_BYTES_MAX: u64 = 64 << 20;
/// Tables that a damage is chosen among.
const DAMAGED_CHOICES: usize = 16;
/// Columns of times that one reading of a table looks at.
const NEWEST_AT_ONCE: usize = 200;
/// Tables of the application that the write probe touches.
const PROBED_TABLES_MAX: usize = 8;

#[derive(Default)]
struct State {
    measured: BTreeMap<String, TableFacts>,
    /// Tables that a damage has touched; `None` before there was one.
    damaged: Option<BTreeSet<String>>,
}

/// A restored database and its engine.
pub(super) struct RestoredPostgres {
    sandbox: Arc<dyn Sandbox>,
    process: Box<dyn SandboxProcess>,
    address: Address,
    point: Timestamp,
    filled: Filled,
    state: Mutex<State>,
}

impl fmt::Debug for RestoredPostgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestoredPostgres").field("address", &self.address).finish_non_exhaustive()
    }
}

/// One choice after another from a seed (SplitMix64): a damage must be repeatable from the receipt.
struct Choice(u64);

impl Choice {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let count = u64::try_from(count.max(1)).unwrap_or(1);
        usize::try_from(mixed % count).unwrap_or(0)
    }
}

/// What is looked at of a restore.
pub(super) fn view_of(expected: &PostgresWitness) -> View {
    match expected.physical {
        Some(_) => super::physical::view(),
        None => View { with_invalid_indexes: true, ..View::default() },
    }
}

/// Measures a restored or delivered database by the code that measured its source.
pub(super) async fn observe(
    cx: &Cx,
    address: &Address,
    purpose: Purpose,
    view: &View,
    expected: &PostgresWitness,
    reuse: &BTreeMap<String, TableFacts>,
) -> Result<PostgresWitness, DriverError> {
    let catalogue = Session::open(cx, address, purpose).await?;
    let beside = match purpose {
        Purpose::Scratch => measure::Beside::Nothing,
        Purpose::Source | Purpose::Target => measure::Beside::Others,
    };
    let tables = measure::tables(cx, &catalogue, view, beside).await?;
    let (again, kept): (Vec<_>, Vec<_>) =
        tables.into_iter().partition(|table| !reuse.contains_key(&table.name));
    let mut sessions = Vec::new();
    for _ in 0..WORKERS.min(again.iter().map(measure::Table::parts).sum()) {
        sessions.push(Session::open(cx, address, purpose).await?);
    }
    let mut rows = measure::rows(cx, &sessions, &again).await?;
    for table in kept {
        if let Some(facts) = reuse.get(&table.name) {
            rows.insert(table.name, facts.clone());
        }
    }
    let database = globals::database(cx, &catalogue).await?;
    let globals = Globals::read(cx, &catalogue, database.clone()).await?;
    let row = catalogue
        .row(
            cx,
            "ask the engine who it is",
            "SELECT (SELECT system_identifier::text FROM pg_control_system()), current_setting('server_version'), \
             to_char(statement_timestamp(), 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
        )
        .await?;
    let at = text(&row, 2)?;
    Ok(PostgresWitness {
        version: expected.version,
        server: ServerFacts {
            system_identifier: text(&row, 0)?,
            version_num: catalogue.version,
            version: text(&row, 1)?,
            bootstrap_role: globals::bootstrap_role(cx, &catalogue).await?,
        },
        snapshot: SnapshotFacts {
            at: at.parse().map_err(|error: jiff::Error| {
                DriverError::new(ErrorKind::Corrupt, format!("read the engine's clock `{at}`")).because(error)
            })?,
            lsn: "0/0".to_owned(),
            on_standby: false,
        },
        scope: expected.scope.clone(),
        database,
        tables: rows,
        objects: catalog::objects(cx, &catalogue, view).await?,
        sequences: measure::sequences(cx, &catalogue, view).await?,
        large_objects: measure::large_objects(cx, &catalogue).await?,
        roles: globals.role_digests(),
        settings: globals.setting_digests(),
        may_be_empty: expected.may_be_empty,
        // Of the copy, not of what was restored: the restore has compared them.
        beside: expected.beside.clone(),
        physical: expected.physical.clone(),
    })
}

impl RestoredPostgres {
    pub(super) fn new(
        sandbox: Arc<dyn Sandbox>,
        process: Box<dyn SandboxProcess>,
        address: Address,
        point: Timestamp,
        filled: Filled,
    ) -> Self {
        Self { sandbox, process, address, point, filled, state: Mutex::default() }
    }

    /// The newest instant inside the data that is not after `until`. Every column of times is looked at, by its index or by reading its table
    /// once: what was left out might hold a newer one, and data that are said to be older than they are raise a false alarm.
    pub(super) async fn newest_until(
        &self,
        cx: &Cx,
        until: Timestamp,
    ) -> Result<Option<Timestamp>, DriverError> {
        let session = self.open(cx).await?;
        let sql = format!(
            "SELECT format('%I.%I', n.nspname, c.relname), quote_ident(a.attname), format_type(a.atttypid, NULL), \
             EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indkey[0] = a.attnum AND i.indpred IS NULL)::text \
             FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped \
             AND a.atttypid IN ('timestamp'::regtype, 'timestamptz'::regtype) AND {} ORDER BY 1, 2",
            View::default().schema()
        );
        let point = literal(&until.to_string());
        // What lies after the recovery point is a plan (an expiry, an appointment), not a record.
        let is_record =
            |column: &str, of: &str| format!("{column} <= {point}::{of} AND {column} > '1970-01-02'");
        const FORM: &str = "'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'";
        let (mut asked, mut scanned) = (Vec::new(), BTreeMap::<String, Vec<String>>::new());
        for row in session.query(cx, "list the columns of times", &sql).await? {
            let (table, column, of) = (text(&row, 0)?, text(&row, 1)?, text(&row, 2)?);
            let is_record = is_record(&column, &of);
            if flag(&row, 3)? {
                asked.push(format!(
                    "SELECT to_char(max({column}), {FORM}) FROM ONLY {table} WHERE {is_record}"
                ));
            } else {
                let newest = format!("to_char(max({column}) FILTER (WHERE {is_record}), {FORM})");
                scanned.entry(table).or_default().push(newest);
            }
        }
        for (table, columns) in &scanned {
            for part in columns.chunks(NEWEST_AT_ONCE) {
                asked.push(format!("SELECT {} FROM ONLY {table}", part.join(", ")));
            }
        }
        let mut newest: Option<Timestamp> = None;
        for sql in asked {
            let row = session.row(cx, "look for the newest value", &sql).await?;
            for column in 0..row.len() {
                let found = optional(&row, column)?.and_then(|found| found.parse::<Timestamp>().ok());
                newest = newest.max(found);
            }
        }
        Ok(newest)
    }

    async fn open(&self, cx: &Cx) -> Result<Session, DriverError> {
        Session::open(cx, &self.address, Purpose::Scratch).await
    }

    /// Measurements that may stand: none before a damage.
    fn reusable(&self) -> BTreeMap<String, TableFacts> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &state.damaged {
            None => BTreeMap::new(),
            Some(damaged) => state
                .measured
                .iter()
                .filter(|(name, facts)| facts.bytes >= REUSED_BYTES_MIN && !damaged.contains(*name))
                .map(|(name, facts)| (name.clone(), facts.clone()))
                .collect(),
        }
    }

    /// Asks one question; the session has an application's settings instead of the pinned ones.
    async fn ask(
        &self,
        cx: &Cx,
        question: &Question,
        point: Timestamp,
    ) -> Result<(bool, String), DriverError> {
        let session = self.open(cx).await?;
        session.execute(cx, "prepare the question", "RESET ALL").await?;
        // How long it may take is the check's own: limits that were restored with the database or the role are for its users.
        session.unbound(cx).await?;
        session.execute(cx, "prepare the question", "BEGIN READ ONLY").await?;
        match question {
            Question::Sql { database, query, expect } => {
                if database.as_ref().is_some_and(|database| *database != self.address.database) {
                    return Err(DriverError::new(
                        ErrorKind::Unsupported,
                        "ask a database that is not in this copy",
                    ));
                }
                let found = session.one_value(cx, "ask the query", query).await?;
                let is_met = match (found.as_deref(), expect.as_deref()) {
                    (Some("t"), None | Some("true" | "t")) | (Some("f"), Some("false" | "f")) => true,
                    (Some("true"), None) => true,
                    (Some(found), Some(expect)) => found == expect,
                    (Some(_) | None, _) => false,
                };
                let detail =
                    if is_met { "the query answers as expected" } else { "the query answers otherwise" };
                Ok((is_met, detail.to_owned()))
            }
            Question::MinimumRows { table, rows } => {
                let table = quoted(table)?;
                let sql = format!("SELECT count(*)::text FROM {table}");
                let count: u64 = parsed(&session.row(cx, "count the rows", &sql).await?, 0)?;
                Ok((count >= *rows, format!("{count} rows, at least {rows} wanted")))
            }
            Question::Freshness { table, column, within } => {
                let column = identifier(column);
                // What lies after the recovery point is a plan (an expiry, an appointment), not a record: it keeps nothing fresh.
                let until = point.saturating_add(CLOCK_STEP).unwrap_or(Timestamp::MAX);
                let sql = format!(
                    "SELECT extract(epoch FROM ({}::timestamptz - max({column})::timestamptz))::bigint::text FROM {} \
                     WHERE {column}::timestamptz <= {}::timestamptz",
                    literal(&point.to_string()),
                    quoted(table)?,
                    literal(&until.to_string())
                );
                let age = optional(&session.row(cx, "look for the newest row", &sql).await?, 0)?;
                let Some(age) = age.and_then(|age| age.parse::<i64>().ok()) else {
                    return Ok((
                        false,
                        "the column holds no value that is not after the recovery point".to_owned(),
                    ));
                };
                let detail = format!(
                    "the newest value is {age} s older than the recovery point, at most {} s allowed",
                    within.as_secs()
                );
                Ok((age <= within.as_secs(), detail))
            }
            Question::Migration { tool, revision } => {
                let Some(sql) = migration_query(tool) else {
                    return Err(DriverError::new(
                        ErrorKind::Unsupported,
                        format!("ask for a migration of `{tool}`"),
                    )
                    .hint("known are alembic, sqlx, flyway, diesel, django and rails"));
                };
                let mut found = Vec::new();
                for row in session.query(cx, "ask for the newest migration", sql).await? {
                    found.push(text(&row, 0)?);
                }
                let is_met = found.contains(revision);
                let newest = found.iter().map(|revision| printable(revision)).collect::<Vec<_>>().join(", ");
                Ok((is_met, format!("newest revision {newest}, {} wanted", printable(revision))))
            }
            Question::Command { argv } => {
                let arguments: Vec<&str> = argv.iter().map(String::as_str).collect();
                let port = self.address.port.to_string();
                let run = exec(
                    &arguments,
                    self.sandbox.root(),
                    &[
                        ("PGHOST", &self.address.host),
                        ("PGPORT", &port),
                        ("PGUSER", &self.address.user),
                        ("PGDATABASE", &self.address.database),
                    ],
                )?;
                let outcome = self.sandbox.exec(cx, run).await?;
                Ok((outcome.status == 0, format!("the program ended with status {}", outcome.status)))
            }
            Question::Http { .. } => {
                Err(DriverError::new(ErrorKind::Unsupported, "ask a database over HTTP")
                    .hint("an HTTP check belongs to a service that runs in the sandbox"))
            }
        }
    }
}

/// Whether an error is of the machine that a question is asked on, and says nothing of the copy: it ran out of something (class 53
/// of SQLSTATE), somebody or something stopped it (57), its system failed (58), something was in the way.
fn is_of_machine(kind: ErrorKind, state: Option<&str>) -> bool {
    matches!(kind, ErrorKind::Exhausted | ErrorKind::Conflict)
        || state.is_some_and(|state| ["53", "57", "58"].iter().any(|class| state.starts_with(class)))
}

/// `schema.table` or `table`, quoted.
fn quoted(name: &str) -> Result<String, DriverError> {
    split_qualified(name)
        .filter(|parts| parts.len() <= 2)
        .map(|parts| parts.iter().map(|part| identifier(part)).collect::<Vec<_>>().join("."))
        .ok_or_else(|| DriverError::new(ErrorKind::Refused, format!("use `{}` as a table", printable(name))))
}

/// What each tool records as its newest revision.
fn migration_query(tool: &str) -> Option<&'static str> {
    Some(match tool {
        "alembic" => "SELECT version_num::text FROM alembic_version",
        "sqlx" => "SELECT max(version)::text FROM _sqlx_migrations WHERE success",
        "flyway" => {
            "SELECT version::text FROM flyway_schema_history WHERE success AND version IS NOT NULL \
             ORDER BY installed_rank DESC LIMIT 1"
        }
        "diesel" => "SELECT max(version)::text FROM __diesel_schema_migrations",
        "django" => {
            "SELECT v::text FROM django_migrations m, LATERAL (VALUES (m.name), (m.app || '.' || m.name)) n(v)"
        }
        "rails" => "SELECT max(version)::text FROM schema_migrations",
        _ => return None,
    })
}

/// A column whose value a damage can change, as the expression of its new value.
fn changed(column: &str, type_name: &str) -> Option<String> {
    Some(match type_name {
        "text" | "varchar" | "bpchar" | "citext" => {
            format!("CASE WHEN {column} IS DISTINCT FROM 'x' THEN 'x' ELSE 'y' END")
        }
        "int2" | "int4" | "int8" | "numeric" | "float4" | "float8" => {
            format!("CASE WHEN {column} IS DISTINCT FROM 1 THEN 1 ELSE 2 END")
        }
        "bool" => format!("NOT coalesce({column}, false)"),
        "timestamp" | "timestamptz" => format!("coalesce({column}, 'epoch') + interval '1 second'"),
        "bytea" => format!("coalesce({column}, ''::bytea) || '\\x00'::bytea"),
        "uuid" => "gen_random_uuid()".to_owned(),
        _ => return None,
    })
}

/// One damage that may be tried.
struct Attempt {
    sql: String,
    description: String,
    expected: FindingCode,
    /// Name of the check that must find it.
    check: String,
    touches: Option<String>,
}

impl RestoredPostgres {
    /// Tables that hold rows, smallest first, a bounded number of them.
    fn damageable(expected: &PostgresWitness) -> Vec<(&String, &TableFacts)> {
        let mut tables: Vec<_> = expected.tables.iter().filter(|(_, facts)| facts.rows > 0).collect();
        tables.sort_by_key(|(_, facts)| facts.bytes);
        let small = tables.iter().take_while(|(_, facts)| facts.bytes <= DAMAGED_BYTES_MAX).count();
        tables.truncate(small.max(1).min(DAMAGED_CHOICES.max(small)));
        tables
    }

    async fn row_attempts(
        &self,
        cx: &Cx,
        session: &Session,
        expected: &PostgresWitness,
        choice: &mut Choice,
        is_deletion: bool,
    ) -> Result<Vec<Attempt>, DriverError> {
        let tables = Self::damageable(expected);
        let mut attempts = Vec::new();
        let first = choice.below(tables.len());
        for offset in 0..tables.len().min(DAMAGED_CHOICES) {
            let (name, facts) = tables[(first + offset) % tables.len()];
            let row = choice.below(usize::try_from(facts.rows.min(1000)).unwrap_or(1));
            let one = format!("ctid = (SELECT ctid FROM ONLY {name} OFFSET {row} LIMIT 1)");
            if is_deletion {
                attempts.push(Attempt {
                    sql: format!("DELETE FROM ONLY {name} WHERE {one}"),
                    description: format!("deleted one row of {}", printable(name)),
                    expected: FindingCode::RowCount,
                    check: rows_check(name),
                    touches: Some(name.clone()),
                });
                continue;
            }
            let sql = format!(
                "SELECT quote_ident(a.attname), t.typname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
                 WHERE a.attrelid = {}::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' \
                 AND a.attidentity <> 'a' ORDER BY a.attnum DESC",
                literal(name)
            );
            for column in session.query(cx, "list the columns to damage", &sql).await? {
                let (column, type_name) = (text(&column, 0)?, text(&column, 1)?);
                if let Some(value) = changed(&column, &type_name) {
                    attempts.push(Attempt {
                        sql: format!("UPDATE ONLY {name} SET {column} = {value} WHERE {one}"),
                        description: format!(
                            "changed column {} of one row of {}",
                            printable(&column),
                            printable(name)
                        ),
                        expected: FindingCode::RowContent,
                        check: rows_check(name),
                        touches: Some(name.clone()),
                    });
                }
            }
        }
        Ok(attempts)
    }

    async fn definition_attempts(
        &self,
        cx: &Cx,
        session: &Session,
        is_index: bool,
    ) -> Result<Vec<Attempt>, DriverError> {
        let scope = View::default().schema();
        let sql = if is_index {
            format!(
                "SELECT format('DROP INDEX %I.%I', n.nspname, ix.relname), format('index %I.%I', n.nspname, ix.relname) \
                 FROM pg_index i JOIN pg_class ix ON ix.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid \
                 JOIN pg_namespace n ON n.oid = c.relnamespace WHERE ix.relkind = 'i' AND NOT ix.relispartition \
                 AND c.relkind IN ('r', 'm') AND {scope} AND {} AND NOT EXISTS (SELECT 1 FROM pg_constraint k \
                 WHERE k.conindid = i.indexrelid) ORDER BY 2",
                own("pg_class", "c.oid")
            )
        } else {
            format!(
                "SELECT format('ALTER TABLE %I.%I DROP CONSTRAINT %I', n.nspname, c.relname, k.conname), \
                 format('constraint %I of %I.%I', k.conname, n.nspname, c.relname) FROM pg_constraint k \
                 JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE k.contype IN ('c', 'f', 'u') AND k.conparentid = 0 AND k.coninhcount = 0 AND k.conislocal \
                 AND c.relkind = 'r' AND {scope} AND {} ORDER BY 2",
                own("pg_class", "c.oid")
            )
        };
        let mut attempts = Vec::new();
        for row in session.query(cx, "list what can be dropped", &sql).await? {
            attempts.push(Attempt {
                sql: text(&row, 0)?,
                description: format!("dropped {}", printable(&text(&row, 1)?)),
                expected: FindingCode::ConstraintOrIndex,
                check: if is_index { ObjectClass::Indexes } else { ObjectClass::Constraints }.check(),
                touches: None,
            });
        }
        Ok(attempts)
    }

    async fn sequence_attempts(
        &self,
        cx: &Cx,
        session: &Session,
        expected: &PostgresWitness,
    ) -> Result<Vec<Attempt>, DriverError> {
        let sql = "SELECT format('%I.%I', n.nspname, c.relname), s.seqmin::text, s.seqmax::text FROM pg_sequence s \
                   JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 1";
        let mut attempts = Vec::new();
        for row in session.query(cx, "list the sequences", sql).await? {
            let (name, least, most): (String, i64, i64) =
                (text(&row, 0)?, parsed(&row, 1)?, parsed(&row, 2)?);
            let Some(bracket) = expected.sequences.get(&name) else { continue };
            let places = [least, most, least.midpoint(most)];
            let Some(place) = places
                .into_iter()
                .find(|place| !bracket.covers(SequencePosition { last_value: *place, is_called: false }))
            else {
                continue;
            };
            attempts.push(Attempt {
                sql: format!("SELECT setval({}, {place}, false)", literal(&name)),
                description: format!("set sequence {} elsewhere", printable(&name)),
                expected: FindingCode::SequencePosition,
                check: SEQUENCES.to_owned(),
                touches: None,
            });
        }
        Ok(attempts)
    }
}

#[async_trait]
impl Restored for RestoredPostgres {
    fn summary(&self) -> String {
        let version = self.filled.version.split(' ').next().unwrap_or_default();
        format!("PostgreSQL {version} on a Unix socket")
    }

    fn findings(&self) -> Vec<Finding> {
        self.filled.findings.clone()
    }

    fn engine_identity(&self) -> Option<String> {
        Some(self.filled.identity.clone())
    }

    async fn compare(&self, cx: &Cx, expected: &Witness) -> Result<Vec<CheckReport>, DriverError> {
        let expected = own_witness(expected)?;
        let reuse = self.reusable();
        let observed =
            observe(cx, &self.address, Purpose::Scratch, &view_of(expected), expected, &reuse).await?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.measured.clone_from(&observed.tables);
        drop(state);
        Ok(expected.compare(&observed))
    }

    async fn newest(&self, cx: &Cx) -> Result<Option<Timestamp>, DriverError> {
        self.newest_until(cx, self.point).await
    }

    async fn answer(&self, cx: &Cx, check: &UserCheck, point: Timestamp) -> Result<CheckReport, DriverError> {
        let name = format!("user:{}", check.name);
        let limit = Duration::try_from(check.timeout).unwrap_or(Duration::ZERO);
        let limited = cx.within(limit);
        let code = match check.question {
            Question::Freshness { .. } => FindingCode::ContentStale,
            Question::Sql { .. }
            | Question::MinimumRows { .. }
            | Question::Migration { .. }
            | Question::Command { .. }
            | Question::Http { .. } => FindingCode::CheckFailed,
        };
        let report = |outcome, code, detail: String| CheckReport {
            findings: match outcome {
                CheckOutcome::Passed => Vec::new(),
                CheckOutcome::Failed | CheckOutcome::Inconclusive => {
                    vec![Finding::new(code, name.clone(), detail.clone())]
                }
            },
            name: name.clone(),
            outcome,
            detail,
        };
        match self.ask(&limited, &check.question, point).await {
            Ok((true, detail)) => Ok(report(CheckOutcome::Passed, code, detail)),
            Ok((false, detail)) => Ok(report(CheckOutcome::Failed, code, detail)),
            Err(error) if matches!(error.kind, ErrorKind::Stopped(_)) => {
                cx.check()?;
                let detail = format!("not answered within {} s", limit.as_secs());
                Ok(report(CheckOutcome::Inconclusive, FindingCode::EnvTimeout, detail))
            }
            Err(error) if error.kind == ErrorKind::Unsupported => {
                Ok(report(CheckOutcome::Inconclusive, FindingCode::EnvOther, format!("could not {error}")))
            }
            Err(error) if error.kind == ErrorKind::Unreachable => Err(error),
            Err(error) => {
                let reason = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                let detail = format!("could not {error}: {}", printable(&reason));
                Ok(if is_of_machine(error.kind, state_of(&error)) {
                    report(CheckOutcome::Inconclusive, FindingCode::EnvOther, detail)
                } else {
                    report(CheckOutcome::Failed, FindingCode::CheckFailed, detail)
                })
            }
        }
    }

    async fn write_probe(&self, cx: &Cx) -> Result<CheckReport, DriverError> {
        let session = self.open(cx).await?;
        let mut findings = Vec::new();
        session.execute(cx, "begin the write probe", "BEGIN").await?;
        // In replica mode neither the user's triggers nor event triggers answer for our own table.
        let own_table = "SET LOCAL session_replication_role = replica; CREATE SCHEMA seaworthy_probe; \
             CREATE TABLE seaworthy_probe.probe (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, word text); \
             INSERT INTO seaworthy_probe.probe (word) VALUES ('a'), ('b'), ('c'); \
             UPDATE seaworthy_probe.probe SET word = word || 'x' WHERE id = 2; \
             DELETE FROM seaworthy_probe.probe WHERE id = 3; SET LOCAL session_replication_role = origin";
        if let Err(error) = session.execute(cx, "write to a table of our own", own_table).await {
            if matches!(error.kind, ErrorKind::Stopped(_) | ErrorKind::Unreachable) {
                return Err(error);
            }
            findings.push(unusable("a new table", &error));
        } else {
            let sql = "SELECT string_agg(word, ',' ORDER BY id) FROM seaworthy_probe.probe";
            let found = optional(&session.row(cx, "read back what was written", sql).await?, 0)?;
            if found.as_deref() != Some("a,bx") {
                let detail = "what was written was not read back";
                findings.push(Finding::new(FindingCode::ObjectUnusable, "a new table", detail));
            }
        }
        let mut written = 0_usize;
        let mut refused = 0_usize;
        if findings.is_empty() {
            let sql = format!(
                "SELECT format('%I.%I', n.nspname, c.relname), (SELECT quote_ident(a.attname) FROM pg_attribute a \
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' \
                 AND a.attidentity <> 'a' ORDER BY a.attnum DESC LIMIT 1) FROM pg_class c \
                 JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND c.relpersistence = 'p' \
                 AND {} AND {} AND pg_relation_size(c.oid) > 0 ORDER BY c.relhastriggers DESC, pg_relation_size(c.oid) \
                 LIMIT {PROBED_TABLES_MAX}",
                View::default().schema(),
                own("pg_class", "c.oid")
            );
            for row in session.query(cx, "list tables to write to", &sql).await? {
                let name = text(&row, 0)?;
                let Some(column) = optional(&row, 1)? else { continue };
                let update = format!(
                    "UPDATE ONLY {name} SET {column} = {column} WHERE ctid = (SELECT ctid FROM ONLY {name} LIMIT 1)"
                );
                session.execute(cx, "mark a place to return to", "SAVEPOINT probe").await?;
                match session.change(cx, "write to a restored table", &update).await {
                    Ok(_) => written += 1,
                    Err(error) if matches!(error.kind, ErrorKind::Stopped(_) | ErrorKind::Unreachable) => {
                        return Err(error);
                    }
                    Err(error) => {
                        // A trigger may lawfully refuse an update; what does not exist or does not load may not.
                        let reason =
                            std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                        let is_unusable = ["(SQLSTATE 42", "(SQLSTATE 58", "(SQLSTATE XX"]
                            .iter()
                            .any(|class| reason.contains(class));
                        // A publication whose columns or condition do not cover the replica identity refuses every update, on
                        // the source as here.
                        let is_publications = reason.contains("(SQLSTATE 42P10)");
                        if is_unusable && !is_publications {
                            findings.push(unusable(&printable(&name), &error));
                        } else {
                            refused += 1;
                        }
                    }
                }
                session.execute(cx, "return to the mark", "ROLLBACK TO SAVEPOINT probe").await?;
            }
        }
        session.execute(cx, "undo the write probe", "ROLLBACK").await?;
        let outcome = if findings.is_empty() { CheckOutcome::Passed } else { CheckOutcome::Failed };
        let detail = format!(
            "wrote, changed and deleted rows of a new table, changed a row in each of {written} restored tables \
             ({refused} refused by their own rules), and undid it"
        );
        Ok(CheckReport { name: "write-probe".to_owned(), outcome, detail, findings })
    }

    async fn damage(&self, cx: &Cx, expected: &Witness, seed: u64) -> Result<Damage, DriverError> {
        let expected = own_witness(expected)?;
        let session = self.open(cx).await?;
        let mut choice = Choice(seed);
        let first = choice.below(5);
        for offset in 0..5 {
            let mut attempts = match (first + offset) % 5 {
                0 => self.row_attempts(cx, &session, expected, &mut choice, false).await?,
                1 => self.row_attempts(cx, &session, expected, &mut choice, true).await?,
                2 => self.definition_attempts(cx, &session, true).await?,
                3 => self.definition_attempts(cx, &session, false).await?,
                _ => self.sequence_attempts(cx, &session, expected).await?,
            };
            if attempts.is_empty() {
                continue;
            }
            let start = choice.below(attempts.len());
            attempts.rotate_left(start);
            for attempt in attempts {
                // Replica mode: no trigger, no cascade, no event trigger; only what the statement names is changed.
                session
                    .execute(cx, "begin a damage", "BEGIN; SET LOCAL session_replication_role = replica")
                    .await?;
                match session.change(cx, "damage the restore", &attempt.sql).await {
                    Ok(count) if count == 1 || attempt.touches.is_none() => {
                        session.execute(cx, "keep the damage", "COMMIT").await?;
                        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                        state.damaged.get_or_insert_default().extend(attempt.touches);
                        return Ok(Damage {
                            description: attempt.description,
                            expected: vec![attempt.expected],
                            checks: vec![attempt.check],
                        });
                    }
                    Err(error) if matches!(error.kind, ErrorKind::Stopped(_) | ErrorKind::Unreachable) => {
                        return Err(error);
                    }
                    // A constraint forbids this one, or there is no such row any more; the next one is tried.
                    Ok(_) | Err(_) => session.execute(cx, "undo a damage", "ROLLBACK").await?,
                }
            }
        }
        Err(DriverError::new(
            ErrorKind::Unsupported,
            "damage the restore: it holds nothing that can be damaged",
        )
        .code(FindingCode::CheckerBlind))
    }

    async fn ruin(
        &self,
        cx: &Cx,
        expected: &Witness,
        checks: &[UserCheck],
        seed: u64,
    ) -> Result<Damage, DriverError> {
        let full = Self::damageable(own_witness(expected)?);
        let asked: Vec<_> = full
            .iter()
            .copied()
            .filter(|(name, _)| {
                let parts = split_qualified(name).unwrap_or_default();
                let [schema, table] = parts.as_slice() else { return false };
                checks.iter().any(|check| check.is_about(schema, table, split_qualified))
            })
            .collect();
        // Every other time whatever there is, for questions that do not name what they are about.
        let candidates = if asked.is_empty() || seed / 2 % 2 == 1 { full } else { asked };
        if candidates.is_empty() {
            return self.damage(cx, expected, seed).await;
        }
        let (name, facts) = candidates[Choice(seed).below(candidates.len())];
        let session = self.open(cx).await?;
        session.execute(cx, "begin a damage", "BEGIN; SET LOCAL session_replication_role = replica").await?;
        match session.change(cx, "damage the restore", &format!("DELETE FROM ONLY {name}")).await {
            Ok(count) if count > 0 => session.execute(cx, "keep the damage", "COMMIT").await?,
            Err(error) if matches!(error.kind, ErrorKind::Stopped(_) | ErrorKind::Unreachable) => {
                return Err(error);
            }
            // A trigger or a rule that fires always forbids it: a smaller damage will do.
            Ok(_) | Err(_) => {
                session.execute(cx, "undo a damage", "ROLLBACK").await?;
                return self.damage(cx, expected, seed).await;
            }
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.damaged.get_or_insert_default().insert(name.clone());
        Ok(Damage {
            description: format!("deleted all {} rows of {}", facts.rows, printable(name)),
            expected: vec![FindingCode::RowCount],
            checks: vec![rows_check(name)],
        })
    }

    async fn close(self: Box<Self>, cx: &Cx) -> Result<(), DriverError> {
        let mut process = self.process;
        // SIGQUIT: immediate shutdown. Nothing is kept, so that what is in memory need not be written first.
        process.stop(cx, 3, Duration::from_secs(5)).await.map(drop)
    }
}

fn unusable(what: &str, error: &DriverError) -> Finding {
    let reason = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    Finding::new(FindingCode::ObjectUnusable, what, format!("could not {error}: {}", printable(&reason)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_chooses_the_same() {
        let choices = |seed| {
            (0..8)
                .map({
                    let mut choice = Choice(seed);
                    move |_| choice.below(10)
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(choices(7), choices(7));
        assert_ne!(choices(7), choices(8));
        assert_eq!(Choice(1).below(0), 0);
    }
}
