//! What a restored dump is asked, without a witness: every row of every table, that the dump holds what it should of each
//! table and sequence, that no sequence would hand out a used value, and the engine's own checks.
//!
//! None of this can show that rows are missing that were missing before the dump was written.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use jiff::Timestamp;
use seaworthy_interface::{AdoptedRestore, Cx, DriverError, ErrorKind, Progress, Restored as _};
use seaworthy_model::check::UserCheck;
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::verdict::{CheckOutcome, CheckReport};
use seaworthy_model::witness::postgres::printable;

use super::super::names::{identifier, split_qualified};
use super::super::restored::RestoredPostgres;
use super::super::session::{Address, Purpose, Session, flag, optional, parsed, text};
use super::play::{Name, Played};
use super::wire::Wire;

const ROWS: &str = "rows";
const SCOPE: &str = "scope";
const SEQUENCES: &str = "sequences";
const CONSTRAINTS: &str = "constraints";
const INDEXES: &str = "indexes";
/// Names of the checks, in order.
pub(super) const CHECKS: [&str; 5] = [ROWS, SCOPE, SEQUENCES, CONSTRAINTS, INDEXES];
/// Findings of one check that are named one by one.
const NAMED_MAX: usize = 20;
/// Databases that every server has and no application uses.
const OWN_DATABASES: [&str; 2] = ["template1", "postgres"];

/// What the dump itself is known to hold.
#[derive(Debug)]
pub(super) struct Contents {
    /// The databases that were restored to, in order.
    pub(super) databases: Vec<String>,
    /// Roles that it names and does not hold.
    pub(super) roles: BTreeSet<String>,
    held: Held,
}

#[derive(Debug)]
enum Held {
    /// The lines of an archive's table of contents, without their numbers.
    Archive(BTreeSet<String>),
    Script {
        copied: BTreeMap<(String, Name), u64>,
        set: BTreeSet<(String, Name)>,
        has_inserts: bool,
    },
}

impl Contents {
    pub(super) fn of_script(played: Played) -> Self {
        // A dump with `--create`, or of a cluster, leaves the database in which it began as it was.
        let mut databases = played.databases;
        let is_used = |name: &String| played.copied.keys().any(|(database, _)| database == name);
        if databases.len() > 1 {
            let others: Vec<String> = databases
                .iter()
                .skip(1)
                .filter(|name| !OWN_DATABASES.contains(&name.as_str()) || is_used(name))
                .cloned()
                .collect();
            if !others.is_empty() && !is_used(&databases[0]) {
                databases = others;
            }
        }
        Self {
            databases,
            roles: played.roles,
            held: Held::Script { copied: played.copied, set: played.set, has_inserts: played.has_inserts },
        }
    }

    pub(super) fn of_archive(database: &str, list: &str, roles: BTreeSet<String>) -> Self {
        let lines = list.lines().filter(|line| !line.starts_with(';')).filter_map(|line| {
            // `3421; 0 16386 TABLE DATA public orders owner`
            let (_, rest) = line.split_once("; ")?;
            let mut words = rest.splitn(3, ' ');
            words.nth(2).map(|entry| format!("{entry} "))
        });
        Self { databases: vec![database.to_owned()], roles, held: Held::Archive(lines.collect()) }
    }

    fn has_entry(entries: &BTreeSet<String>, kind: &str, name: &[String]) -> bool {
        let [schema, object] = name else { return false };
        // pg_restore prints a name's line ends as blanks.
        let begin = format!("{kind} {schema} {object} ").replace(['\n', '\r'], " ");
        entries.range(begin.clone()..).next().is_some_and(|entry| entry.starts_with(&begin))
    }

    /// Whether the dump holds the rows of a table, be they none; `None` where that cannot be told.
    fn has_rows_of(&self, database: &str, table: &Name) -> Option<bool> {
        match &self.held {
            Held::Archive(entries) => Some(
                Self::has_entry(entries, "TABLE DATA", table)
                    || Self::has_entry(entries, "MATERIALIZED VIEW DATA", table),
            ),
            Held::Script { copied, has_inserts, .. } => {
                let is_copied = copied.contains_key(&(database.to_owned(), table.clone()));
                // A table without rows leaves no trace among INSERTs.
                (is_copied || !has_inserts).then_some(is_copied)
            }
        }
    }

    fn sets(&self, database: &str, sequence: &Name) -> bool {
        match &self.held {
            Held::Archive(entries) => Self::has_entry(entries, "SEQUENCE SET", sequence),
            Held::Script { set, .. } => set.contains(&(database.to_owned(), sequence.clone())),
        }
    }

    fn copied(&self, database: &str, table: &Name) -> Option<u64> {
        match &self.held {
            Held::Archive(_) => None,
            Held::Script { copied, .. } => copied.get(&(database.to_owned(), table.clone())).copied(),
        }
    }
}

/// What the configuration says of the set's scope.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) without_rows: Vec<String>,
    pub(super) may_be_empty: bool,
}

/// A restored dump.
#[derive(Debug)]
pub(super) struct Restore {
    pub(super) restored: RestoredPostgres,
    pub(super) address: Address,
    pub(super) contents: Contents,
    pub(super) scope: Scope,
    pub(super) findings: Vec<Finding>,
    pub(super) dumped_from: Option<String>,
}

/// Findings of one check, of all databases.
#[derive(Debug, Default)]
struct Gathered {
    findings: Vec<Finding>,
    /// How many there are; all of them count, the first are named.
    count: usize,
    is_failed: bool,
    is_open: bool,
}

impl Gathered {
    fn add(&mut self, outcome: CheckOutcome, code: FindingCode, subject: String, detail: String) {
        self.count += 1;
        self.is_failed |= outcome == CheckOutcome::Failed;
        self.is_open |= outcome == CheckOutcome::Inconclusive;
        if self.findings.len() < NAMED_MAX {
            self.findings.push(Finding::new(code, subject, detail));
        }
    }

    fn report(self, name: &str, detail: String) -> CheckReport {
        let outcome = if self.is_failed {
            CheckOutcome::Failed
        } else if self.is_open {
            CheckOutcome::Inconclusive
        } else {
            CheckOutcome::Passed
        };
        CheckReport { name: name.to_owned(), outcome, detail, findings: self.findings }
    }
}

/// A relation that holds rows.
struct Table {
    quoted: String,
    name: Name,
    root: Option<Name>,
    is_partitioned: bool,
    is_view: bool,
    is_extensions: bool,
}

/// What lies outside the server's own schemas.
const OWN_SCHEMAS: &str = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";

impl Restore {
    async fn open(&self, cx: &Cx, database: &str) -> Result<Session, DriverError> {
        let inside = Address { database: database.to_owned(), ..self.address.clone() };
        Session::open(cx, &inside, Purpose::Scratch).await
    }

    async fn tables(cx: &Cx, session: &Session) -> Result<Vec<Table>, DriverError> {
        let sql = format!(
            "SELECT n.nspname, c.relname, c.relkind::text, rn.nspname, rc.relname, \
             EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid \
             AND d.deptype = 'e')::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             LEFT JOIN pg_class rc ON rc.oid = (CASE WHEN c.relispartition THEN pg_partition_root(c.oid) END) \
             LEFT JOIN pg_namespace rn ON rn.oid = rc.relnamespace \
             WHERE (c.relkind IN ('r', 'p') OR (c.relkind = 'm' AND c.relispopulated)) \
             AND c.relpersistence <> 't' AND {OWN_SCHEMAS} ORDER BY 1, 2"
        );
        let mut tables = Vec::new();
        for row in session.query(cx, "list the tables", &sql).await? {
            let name = vec![text(&row, 0)?, text(&row, 1)?];
            let kind = text(&row, 2)?;
            let root = match (optional(&row, 3)?, optional(&row, 4)?) {
                (Some(schema), Some(table)) => Some(vec![schema, table]),
                _ => None,
            };
            tables.push(Table {
                quoted: name.iter().map(|part| identifier(part)).collect::<Vec<_>>().join("."),
                name,
                root,
                is_partitioned: kind == "p",
                is_view: kind == "m",
                is_extensions: flag(&row, 5)?,
            });
        }
        Ok(tables)
    }

    /// Reads every row of every table, through the functions that write its values out; the number of tables and rows.
    async fn rows(
        &self,
        cx: &Cx,
        database: &str,
        tables: &[Table],
        gathered: &mut Gathered,
    ) -> Result<(u64, u64, u64), DriverError> {
        let inside = Address { database: database.to_owned(), ..self.address.clone() };
        let mut wire = Wire::open(cx, &inside).await?;
        let (mut count, mut rows, mut bytes) = (0, 0, 0);
        let mut by_root: BTreeMap<Name, u64> = BTreeMap::new();
        let total = tables.len() as u64;
        for (index, table) in tables.iter().enumerate() {
            cx.progress(Progress::Items { done: index as u64, total: Some(total) });
            if table.is_partitioned {
                continue;
            }
            let copy = format!("COPY (SELECT * FROM ONLY {}) TO STDOUT", table.quoted);
            let answer = wire.run(cx, copy.as_bytes()).await?;
            if let Some(refused) = answer.refused {
                gathered.add(
                    CheckOutcome::Failed,
                    FindingCode::ObjectUnusable,
                    printable(&table.quoted),
                    format!("its rows cannot be read: {}", printable(&refused.shown())),
                );
                continue;
            }
            count += 1;
            rows += answer.lines;
            bytes += answer.bytes;
            if let Some(root) = &table.root {
                *by_root.entry(root.clone()).or_default() += answer.lines;
            }
            if let Some(sent) = self.contents.copied(database, &table.name)
                && sent != answer.lines
            {
                gathered.add(
                    CheckOutcome::Failed,
                    FindingCode::RowCount,
                    printable(&table.quoted),
                    format!("the dump holds {sent} rows of it, {} are there", answer.lines),
                );
            }
        }
        for table in tables.iter().filter(|table| table.is_partitioned && table.root.is_none()) {
            let there = by_root.get(&table.name).copied().unwrap_or(0);
            if let Some(sent) = self.contents.copied(database, &table.name)
                && sent > there
            {
                gathered.add(
                    CheckOutcome::Failed,
                    FindingCode::RowCount,
                    printable(&table.quoted),
                    format!("the dump holds {sent} rows of it, {there} are in its partitions"),
                );
            }
        }
        Ok((count, rows, bytes))
    }

    /// Tables of which the dump holds the definition and not the rows.
    fn scope(&self, database: &str, tables: &[Table], gathered: &mut Gathered) -> usize {
        let declared: Vec<Name> =
            self.scope.without_rows.iter().filter_map(|name| split_qualified(name)).collect();
        let mut left_out = 0;
        for table in tables {
            if table.is_partitioned || table.is_view || table.is_extensions {
                continue;
            }
            if declared.contains(&table.name) {
                left_out += 1;
                continue;
            }
            let has = |name: &Name| self.contents.has_rows_of(database, name);
            let by_root = table.root.as_ref().is_some_and(|root| has(root) == Some(true));
            if has(&table.name) == Some(false) && !by_root {
                gathered.add(
                    CheckOutcome::Inconclusive,
                    FindingCode::ScopeNarrow,
                    printable(&table.quoted),
                    "the dump holds its definition and not its rows; where that is meant, name it in `without_rows`"
                        .to_owned(),
                );
            }
        }
        left_out
    }

    /// Sequences that would hand out a value that their column holds, and that the dump does not set.
    async fn sequences(
        &self,
        cx: &Cx,
        database: &str,
        session: &Session,
        gathered: &mut Gathered,
    ) -> Result<(u64, u64), DriverError> {
        let sql = format!(
            "SELECT n.nspname, c.relname, tn.nspname, tc.relname, a.attname, (s.seqincrement > 0)::text \
             FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
             LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i') \
             AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0 \
             LEFT JOIN pg_class tc ON tc.oid = d.refobjid LEFT JOIN pg_namespace tn ON tn.oid = tc.relnamespace \
             LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid \
             WHERE {OWN_SCHEMAS} AND NOT EXISTS (SELECT 1 FROM pg_depend e WHERE e.classid = 'pg_class'::regclass \
             AND e.objid = c.oid AND e.deptype = 'e') ORDER BY 1, 2"
        );
        let (mut count, mut behind) = (0, 0);
        for row in session.query(cx, "list the sequences", &sql).await? {
            count += 1;
            let sequence = vec![text(&row, 0)?, text(&row, 1)?];
            let owner = (optional(&row, 2)?, optional(&row, 3)?, optional(&row, 4)?);
            let (Some(schema), Some(table), Some(column)) = owner else { continue };
            if !flag(&row, 5)? {
                continue;
            }
            let quoted: String = sequence.iter().map(|part| identifier(part)).collect::<Vec<_>>().join(".");
            let sql = format!(
                "SELECT coalesce(((SELECT max({column})::numeric FROM {}.{}) >= \
                 (SELECT CASE WHEN is_called THEN last_value + 1 ELSE last_value END FROM {quoted})), false)::text",
                identifier(&schema),
                identifier(&table),
                column = identifier(&column)
            );
            // A column that holds no numbers has no largest one.
            let is_behind = match session.row(cx, "compare a sequence with its column", &sql).await {
                Ok(row) => flag(&row, 0)?,
                Err(error) if matches!(error.kind, ErrorKind::Stopped(_) | ErrorKind::Unreachable) => {
                    return Err(error);
                }
                Err(_) => false,
            };
            if !is_behind {
                continue;
            }
            if self.contents.sets(database, &sequence) {
                behind += 1;
                continue;
            }
            gathered.add(
                CheckOutcome::Failed,
                FindingCode::SequencePosition,
                printable(&quoted),
                format!(
                    "the dump does not set it, and it would hand out values that column {} of {}.{} holds",
                    printable(&column),
                    printable(&schema),
                    printable(&table)
                ),
            );
        }
        Ok((count, behind))
    }

    async fn constraints(cx: &Cx, session: &Session) -> Result<(u64, u64), DriverError> {
        let sql = format!(
            "SELECT count(*)::text, count(*) FILTER (WHERE NOT k.convalidated)::text FROM pg_constraint k \
             JOIN pg_namespace n ON n.oid = k.connamespace WHERE {OWN_SCHEMAS}"
        );
        let row = session.row(cx, "count the constraints", &sql).await?;
        Ok((parsed(&row, 0)?, parsed(&row, 1)?))
    }

    /// Every index is valid, and where the engine's own checker is installed it finds each row of its table in each index.
    async fn indexes(
        cx: &Cx,
        session: &Session,
        gathered: &mut Gathered,
    ) -> Result<(u64, bool), DriverError> {
        let sql = format!(
            "SELECT format('%I.%I', n.nspname, c.relname), (i.indisvalid AND i.indisready)::text, \
             (am.amname = 'btree' AND c.relkind = 'i')::text, i.indexrelid::text FROM pg_index i \
             JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
             JOIN pg_am am ON am.oid = c.relam WHERE c.relpersistence <> 't' AND {OWN_SCHEMAS} ORDER BY 1"
        );
        let indexes = session.query(cx, "list the indexes", &sql).await?;
        let available = "SELECT (count(*) > 0)::text FROM pg_available_extensions WHERE name = 'amcheck'";
        let has_checker = flag(&session.row(cx, "look for amcheck", available).await?, 0)?;
        session.execute(cx, "begin to check indexes", "BEGIN").await?;
        if has_checker {
            let make = "CREATE SCHEMA seaworthy_amcheck; CREATE EXTENSION IF NOT EXISTS amcheck SCHEMA seaworthy_amcheck";
            session.execute(cx, "load amcheck", make).await?;
        }
        let place = "SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace \
                     WHERE e.extname = 'amcheck'";
        let schema = match session.query(cx, "find amcheck", place).await?.first() {
            Some(row) => Some(text(row, 0)?),
            None => None,
        };
        for row in &indexes {
            let name = text(row, 0)?;
            if !flag(row, 1)? {
                gathered.add(
                    CheckOutcome::Inconclusive,
                    FindingCode::SourceFlawed,
                    printable(&name),
                    "is an invalid index: a part of it was not in the dump, or it was invalid at the source"
                        .to_owned(),
                );
                continue;
            }
            if let (Some(schema), true) = (&schema, flag(row, 2)?) {
                session.execute(cx, "mark a place to return to", "SAVEPOINT one").await?;
                let sql = format!("SELECT {schema}.bt_index_check({}::oid::regclass, true)", text(row, 3)?);
                match session.query(cx, "check an index", &sql).await {
                    Ok(_) => {}
                    Err(error) if matches!(error.kind, ErrorKind::Stopped(_) | ErrorKind::Unreachable) => {
                        return Err(error);
                    }
                    Err(error) => {
                        let reason =
                            std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                        // Words about what the index holds may hold a value.
                        let is_corrupt = reason.contains("XX00");
                        let (outcome, code) = if is_corrupt {
                            (CheckOutcome::Failed, FindingCode::Corruption)
                        } else {
                            (CheckOutcome::Inconclusive, FindingCode::EnvOther)
                        };
                        gathered.add(outcome, code, printable(&name), "amcheck could not pass it".to_owned());
                    }
                }
                session.execute(cx, "return to the mark", "ROLLBACK TO SAVEPOINT one").await?;
            }
        }
        session.execute(cx, "end the check of indexes", "ROLLBACK").await?;
        Ok((indexes.len() as u64, schema.is_some()))
    }
}

#[async_trait]
impl AdoptedRestore for Restore {
    fn summary(&self) -> String {
        let engine = self.restored.summary();
        match &self.dumped_from {
            Some(version) => {
                format!("{engine}, dumped from {}", printable(version.split(' ').next().unwrap_or_default()))
            }
            None => engine,
        }
    }

    fn engine_identity(&self) -> Option<String> {
        self.restored.engine_identity()
    }

    fn findings(&self) -> Vec<Finding> {
        self.findings.clone()
    }

    async fn examine(&self, cx: &Cx) -> Result<Vec<CheckReport>, DriverError> {
        let mut gathered: [Gathered; CHECKS.len()] = Default::default();
        let [rows, scope, sequences, _, indexes] = &mut gathered;
        let (mut tables_read, mut rows_read, mut bytes_read, mut left_out) = (0, 0, 0, 0);
        let (mut of_sequences, mut behind, mut of_constraints, mut unvalidated) = (0, 0, 0, 0);
        let (mut of_indexes, mut is_checked) = (0, true);
        for database in &self.contents.databases {
            let session = self.open(cx, database).await?;
            let tables = Self::tables(cx, &session).await?;
            let (count, lines, bytes) = self.rows(cx, database, &tables, rows).await?;
            (tables_read, rows_read, bytes_read) =
                (tables_read + count, rows_read + lines, bytes_read + bytes);
            left_out += self.scope(database, &tables, scope);
            let (count, late) = self.sequences(cx, database, &session, sequences).await?;
            (of_sequences, behind) = (of_sequences + count, behind + late);
            let (count, open) = Self::constraints(cx, &session).await?;
            (of_constraints, unvalidated) = (of_constraints + count, unvalidated + open);
            let (count, with_checker) = Self::indexes(cx, &session, indexes).await?;
            of_indexes += count;
            is_checked &= with_checker;
        }
        if rows_read == 0 && !self.scope.may_be_empty {
            scope.add(
                CheckOutcome::Failed,
                FindingCode::PointImplausible,
                "dump".to_owned(),
                format!(
                    "it holds {tables_read} tables and not one row; where that is healthy, set `may_be_empty`"
                ),
            );
        }
        let details = [
            format!("{rows_read} rows of {tables_read} tables were read whole, {bytes_read} bytes"),
            format!(
                "the dump holds the rows of every table that it defines{}",
                if left_out > 0 { format!(", but of {left_out} left out on purpose") } else { String::new() }
            ),
            format!(
                "of {of_sequences} sequences none that the dump leaves unset would hand out a used value; {behind} would as \
                 the dump sets them"
            ),
            format!(
                "{of_constraints} constraints, {unvalidated} of them NOT VALID in the dump; the others held while it was \
                 restored"
            ),
            format!(
                "{of_indexes} indexes are valid{}",
                if is_checked {
                    ", B-trees checked row by row by amcheck"
                } else {
                    "; amcheck is not installed here"
                }
            ),
        ];
        let reports = CHECKS.iter().zip(gathered).zip(details).map(|((name, gathered), detail)| {
            let detail = match gathered.count {
                0 => detail,
                count => format!("{count} findings"),
            };
            gathered.report(name, detail)
        });
        Ok(reports.collect())
    }

    async fn newest(&self, cx: &Cx, point: Timestamp) -> Result<Option<Timestamp>, DriverError> {
        self.restored.newest_until(cx, point).await
    }

    async fn answer(&self, cx: &Cx, check: &UserCheck, point: Timestamp) -> Result<CheckReport, DriverError> {
        self.restored.answer(cx, check, point).await
    }

    async fn write_probe(&self, cx: &Cx) -> Result<CheckReport, DriverError> {
        self.restored.write_probe(cx).await
    }

    async fn close(self: Box<Self>, cx: &Cx) -> Result<(), DriverError> {
        Box::new(self.restored).close(cx).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archives_list_is_read() {
        let list = "; Archive created at 2026-11-29\n;\n215; 1259 16386 TABLE public orders shop\n\
                    3421; 0 16386 TABLE DATA public orders shop\n3430; 0 0 SEQUENCE SET public orders_id_seq shop\n";
        let contents = Contents::of_archive("restored", list, BTreeSet::new());
        let name = |object: &str| vec!["public".to_owned(), object.to_owned()];
        assert_eq!(contents.has_rows_of("restored", &name("orders")), Some(true));
        assert_eq!(contents.has_rows_of("restored", &name("order")), Some(false));
        assert!(contents.sets("restored", &name("orders_id_seq")));
        assert!(!contents.sets("restored", &name("orders")));
    }
}
