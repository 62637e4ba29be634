//! What the database holds: rows, positions of sequences, large objects; each measured by the server itself, so that the
//! witness is another view of the snapshot than the dump's bytes.
//!
//! A row's hash is a chain over its columns in order of their names, because a child table that was attached with another
//! order of columns is restored with its parents'. Each column's hash is the seed of the next one's, so that moving a
//! value to another row or column changes the result. Two chains with seeds of their own make 128 bits; each is summed
//! exactly: a sum does not depend on order, and unlike XOR it does not let duplicates cancel.
//!
//! Columns of the commonest types are hashed as they are, by the functions that the server's hash partitioning uses
//! (`hashint4extended` and its like, lookup3 inside); all others as one text, made once for each row. Types are on the
//! first list only where equal hashes mean equal values: not `numeric` (1.0 and 1.00), floats (0 and -0), `citext`, nor
//! `int8` and timestamps by their own functions, which fold 64 bits into 32.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use seaworthy_interface::{Cx, DriverError, ErrorKind, Progress};
use seaworthy_model::witness::postgres::{
    LargeObjectFacts, SequenceBracket, SequencePosition, TableFacts, printable,
};
use sha2::{Digest as _, Sha256};

use super::catalog::{View, digest, grants, own, role};
use super::names::literal;
use super::session::{Session, flag, optional, parsed, text};

/// Seeds of the two chains: fractions of the square roots of 2 and 3, so that they share no structure.
const SEEDS: [i64; 2] = [0x6a09_e667_f3bc_c908, 0x3b67_ae85_84ca_a73b];
/// What a null flips in the seed that its column is hashed with: a fraction of the square root of 5.
const NULL_FLIP: i64 = 0x3c6e_f372_fe94_f82b;
/// Most columns that are hashed as they are: a chain is an expression as deep as it is long, and the server's stack has
/// a limit.
const LINKS_MAX: usize = 64;
/// Pages of a large table that one worker measures at once (128 MiB), so that the last table of a run does not leave
/// the other worker idle.
const PAGES_AT_ONCE: u64 = 16_384;
/// Bytes of a page.
const PAGE_BYTES: u64 = 8_192;
/// Sequences asked for in one statement: each costs the parser a branch of a union.
const SEQUENCES_AT_ONCE: usize = 100;
/// Bytes of a large object hashed at once on the server: bounds its memory.
const LARGE_OBJECT_CHUNK: u64 = 1 << 20;
/// Large objects that a witness names one by one; above it only their sum is kept.
const LARGE_OBJECTS_NAMED_MAX: usize = 10_000;

/// One table that holds rows of its own.
#[derive(Debug, Clone)]
pub(super) struct Table {
    /// Quoted `schema.table`.
    pub(super) name: String,
    /// Its oid.
    pub(super) oid: u32,
    /// Size of its main fork.
    pub(super) bytes: u64,
    /// The statements that measure it, each a part of its pages; their results add up.
    statements: Vec<String>,
    /// Whether the dump counts the same rows: not for an extension's table, of which a part is dumped.
    pub(super) is_whole: bool,
}

impl Table {
    /// How many workers could measure it at once.
    pub(super) fn parts(&self) -> usize {
        self.statements.len()
    }
}

/// A column: how it is written, the oid of its type, the type's modifier.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
struct Column(String, u32, i32);

/// The types whose own hash tells every two values apart. Their oids are the same in every server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    /// `text` and `varchar`, by their bytes.
    Text,
    /// `char(n)`: its hash ignores the blanks at its end, of which it always has as many as fill it.
    Blanks,
    Uuid,
}

impl Link {
    fn of(type_oid: u32, modifier: i32) -> Option<Self> {
        Some(match type_oid {
            16 => Self::Bool,
            20 => Self::Int8,
            21 => Self::Int2,
            23 => Self::Int4,
            25 | 1043 => Self::Text,
            26 => Self::Oid,
            1042 if modifier > 4 => Self::Blanks,
            2950 => Self::Uuid,
            _ => return None,
        })
    }

    /// What stands for a null, whose absence from the values the seed shows.
    fn stand_in(self) -> &'static str {
        match self {
            Self::Bool => "false",
            Self::Int2 => "0::int2",
            Self::Int4 => "0",
            Self::Int8 => "0::int8",
            Self::Oid => "0::oid",
            Self::Text => "''::text",
            Self::Blanks => "''::bpchar",
            Self::Uuid => "'00000000-0000-0000-0000-000000000000'::uuid",
        }
    }

    /// The hash of `value` with a seed.
    fn hash(self, value: &str, seed: &str) -> String {
        match self {
            Self::Bool => format!("hashint4extended(({value})::int4, {seed})"),
            Self::Int2 => format!("hashint2extended({value}, {seed})"),
            Self::Int4 => format!("hashint4extended({value}, {seed})"),
            // Its own function folds the halves onto each other: 1 and 2^32 would be equal.
            Self::Int8 => format!(
                "hashint4extended(({value} >> 32)::int4, \
                 hashint4extended((({value} << 32) >> 32)::int4, {seed}))"
            ),
            Self::Oid => format!("hashoidextended({value}, {seed})"),
            Self::Text => format!("hashtextextended({value} COLLATE \"C\", {seed})"),
            Self::Blanks => format!("hashbpcharextended({value} COLLATE \"C\", {seed})"),
            Self::Uuid => format!("uuid_hash_extended({value}, {seed})"),
        }
    }
}

/// How the rows of a table are hashed. What comes out depends on names, types and values of the columns alone; whether
/// the table has values out of line changes the way, not the result. Whether a column is declared NOT NULL is not asked:
/// from PostgreSQL 18 on it may hold nulls nevertheless (`NOT VALID`), and asking each row costs nothing that was measured.
struct Hashes {
    /// What the inner query yields, where there is one.
    inner: Option<Vec<String>>,
    /// The two chains.
    chains: [String; 2],
}

impl Hashes {
    fn of(columns: &[Column], has_values_out_of_line: bool) -> Self {
        let linked: Vec<(&Column, Link)> = columns
            .iter()
            .filter_map(|column| Some((column, Link::of(column.1, column.2)?)))
            .take(LINKS_MAX)
            .collect();
        let others: Vec<&str> = columns
            .iter()
            .filter(|column| !linked.iter().any(|(other, _)| other == column))
            .map(|column| column.0.as_str())
            .collect();
        // The inner query makes once what both chains use: the text, and values that lie out of line or compressed.
        let is_nested = !others.is_empty() || has_values_out_of_line;
        let mut inner = Vec::new();
        if !others.is_empty() {
            inner.push(format!("ROW({})::text COLLATE \"C\" AS x", others.join(", ")));
        }
        let mut links = Vec::new();
        for (position, (Column(name, ..), link)) in linked.into_iter().enumerate() {
            let value = if is_nested {
                let made = if link == Link::Text && has_values_out_of_line {
                    format!("{name} || ''")
                } else {
                    name.clone()
                };
                inner.push(format!("{made} AS c{position}"));
                format!("r.c{position}")
            } else {
                name.clone()
            };
            links.push((value, link));
        }
        let chains = SEEDS.map(|seed| {
            let seed = format!("'{seed}'::int8");
            let first = if others.is_empty() { seed } else { format!("hashtextextended(r.x, {seed})") };
            // Every link is null when its value is: of a row with a null nothing is left, and it takes the longer way.
            let of_full_rows =
                links.iter().fold(first.clone(), |chain, (value, link)| link.hash(value, &chain));
            let of_rows_with_nulls = links.iter().fold(first, |chain, (value, link)| {
                let known = format!("coalesce({value}, {})", link.stand_in());
                let flip = format!("CASE WHEN {value} IS NULL THEN '{NULL_FLIP}'::int8 ELSE 0::int8 END");
                link.hash(&known, &format!("({chain} # {flip})"))
            });
            format!("coalesce({of_full_rows}, {of_rows_with_nulls})")
        });
        Self { inner: is_nested.then_some(inner), chains }
    }

    /// Counts and sums the rows of a table, or a part of them.
    ///
    /// Rows are counted by their hashes: a row whose hash were null would be missing from both, and be seen.
    fn statement(&self, table: &str, part: &str) -> String {
        let [first, second] = &self.chains;
        let rows = match &self.inner {
            None => format!("ONLY {table} t {part}"),
            Some(inner) => format!("(SELECT {} FROM ONLY {table} t {part} OFFSET 0) r", inner.join(", ")),
        };
        format!(
            "SELECT count(h.a)::text, coalesce(sum(h.a), 0)::text, coalesce(sum(h.b), 0)::text FROM (\
             SELECT {first} AS a, {second} AS b FROM {rows}) h"
        )
    }
}

/// What else the server does while tables are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beside {
    /// A dump of the same tables.
    Dump,
    /// What others do there.
    Others,
    /// Nothing: the server is ours alone, and may measure one table with all of its workers.
    Nothing,
}

/// The tables in view that hold rows of their own: ordinary tables and partitions, never their parents' share of them.
///
/// A generated column that is not stored is left out: reading it would run its owner's code as the backup role.
/// Of a table that belongs to an extension, only the rows that the extension declares as the user's are measured; if it
/// declares none, the table is left out, as it is from a dump.
pub(super) async fn tables(
    cx: &Cx,
    session: &Session,
    view: &View,
    beside: Beside,
) -> Result<Vec<Table>, DriverError> {
    let sql = format!(
        "SELECT format('%I.%I', n.nspname, c.relname), c.oid::text, pg_relation_size(c.oid)::text, \
         (SELECT json_agg(json_build_array(format('t.%I', a.attname), a.atttypid::int8, a.atttypmod) \
         ORDER BY a.attname::text COLLATE \"C\")::text FROM pg_attribute a \
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'), e.condition, \
         (c.relam = (SELECT m.oid FROM pg_am m WHERE m.amname = 'heap'))::text, \
         coalesce(pg_relation_size(nullif(c.reltoastrelid, 0)) > 0, false)::text \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN LATERAL (\
         SELECT x.extcondition[array_position(x.extconfig, c.oid)] AS condition FROM pg_extension x \
         WHERE c.oid = ANY (x.extconfig) LIMIT 1) e ON true \
         WHERE c.relkind = 'r' AND {} AND {} AND {} AND (e.condition IS NOT NULL OR {}) \
         ORDER BY pg_relation_size(c.oid) DESC, c.oid",
        view.kept(),
        view.schema(),
        view.relation("c.oid"),
        own("pg_class", "c.oid")
    );
    let mut found = Vec::new();
    for row in session.query(cx, "list the tables", &sql).await? {
        let name = text(&row, 0)?;
        let columns: Vec<Column> = match optional(&row, 3)? {
            None => Vec::new(),
            Some(listed) => serde_json::from_str(&listed).map_err(|error| {
                DriverError::new(ErrorKind::Corrupt, format!("read the columns of {}", printable(&name)))
                    .because(error)
            })?,
        };
        let condition = optional(&row, 4)?;
        let Some(bytes) = optional(&row, 2)?.and_then(|bytes| bytes.parse::<u64>().ok()) else {
            let context =
                format!("measure {}: it was dropped after the snapshot was taken", printable(&name));
            return Err(DriverError::new(ErrorKind::Conflict, context).hint("run the backup again"));
        };
        let hashes = Hashes::of(&columns, flag(&row, 6)?);
        let measured = |part: &str| hashes.statement(&name, part);
        // A range of pages is scanned alone from PostgreSQL 14 on; before, each part would scan everything.
        let parts = bytes / PAGE_BYTES / PAGES_AT_ONCE;
        let statements = match &condition {
            Some(condition) => vec![measured(condition)],
            None if parts < 2 || session.version < 140_000 || !flag(&row, 5)? => vec![measured("")],
            // A scan of ranges costs half as much again as a plain one. A table that is hashed faster than it is dumped
            // would not be done earlier for it, and a server that is ours alone shares a plain scan out to its own workers.
            // It would not share out an inner query.
            None if beside != Beside::Others && hashes.inner.is_none() => vec![measured("")],
            None => (0..parts)
                .map(|part| {
                    let from = format!("WHERE t.ctid >= '({},0)'::tid", part * PAGES_AT_ONCE);
                    // The last part has no upper end, wherever the table ends by now.
                    if part + 1 == parts {
                        measured(&from)
                    } else {
                        measured(&format!("{from} AND t.ctid < '({},0)'::tid", (part + 1) * PAGES_AT_ONCE))
                    }
                })
                .collect(),
        };
        found.push(Table { name, oid: parsed(&row, 1)?, bytes, statements, is_whole: condition.is_none() });
    }
    Ok(found)
}

/// Counts and sums one part of one table.
async fn measure(
    cx: &Cx,
    session: &Session,
    table: &Table,
    statement: &str,
) -> Result<(u64, [i128; 2]), DriverError> {
    let row = session.row(cx, &format!("measure {}", table.name), statement).await?;
    Ok((parsed(&row, 0)?, [parsed(&row, 1)?, parsed(&row, 2)?]))
}

/// Measures tables on several sessions at once; each takes the largest part that is left.
pub(super) async fn rows(
    cx: &Cx,
    sessions: &[Session],
    tables: &[Table],
) -> Result<BTreeMap<String, TableFacts>, DriverError> {
    let parts: Vec<(&Table, &String)> = tables
        .iter()
        .flat_map(|table| table.statements.iter().map(move |statement| (table, statement)))
        .collect();
    let next = AtomicUsize::new(0);
    let done = AtomicUsize::new(0);
    let work = |session| {
        let (next, done, parts) = (&next, &done, &parts);
        async move {
            let mut measured = Vec::new();
            while let Some((table, statement)) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                measured.push((*table, measure(cx, session, table, statement).await?));
                let count = done.fetch_add(1, Ordering::Relaxed) + 1;
                cx.progress(Progress::Items { done: count as u64, total: Some(parts.len() as u64) });
            }
            Ok::<_, DriverError>(measured)
        }
    };
    // Two workers: one would leave the second of two cores idle, more would press on a live server.
    let measured = match sessions {
        [] => Vec::new(),
        [only] => work(only).await?,
        [first, second, ..] => {
            let (mut first, second) = tokio::try_join!(work(first), work(second))?;
            first.extend(second);
            first
        }
    };
    // Each sum is below 2^63 times the number of rows, so 128 bits hold it exactly.
    let mut sums: BTreeMap<&str, (&Table, u64, [i128; 2])> = BTreeMap::new();
    for (table, (rows, part)) in measured {
        let (_, count, sum) = sums.entry(&table.name).or_insert((table, 0, [0, 0]));
        *count += rows;
        sum[0] += part[0];
        sum[1] += part[1];
    }
    Ok(sums
        .into_iter()
        .map(|(name, (table, rows, [first, second]))| {
            let sums = [first.to_string(), second.to_string()];
            (name.to_owned(), TableFacts { rows, sums, bytes: table.bytes })
        })
        .collect())
}

/// Where each sequence stands now. Sequences ignore snapshots.
pub(super) async fn sequences(
    cx: &Cx,
    session: &Session,
    view: &View,
) -> Result<BTreeMap<String, SequenceBracket>, DriverError> {
    let sql = format!(
        "SELECT format('%I.%I', n.nspname, c.relname), s.seqcycle::text, s.seqincrement::text FROM pg_sequence s \
         JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE {} AND {} AND {} AND {} ORDER BY 1",
        view.kept(),
        view.schema(),
        view.relation("c.oid"),
        own("pg_class", "c.oid")
    );
    let mut listed = Vec::new();
    for row in session.query(cx, "list the sequences", &sql).await? {
        listed.push((text(&row, 0)?, flag(&row, 1)?, parsed::<i64>(&row, 2)?));
    }
    let mut found = BTreeMap::new();
    for part in listed.chunks(SEQUENCES_AT_ONCE) {
        let branches: Vec<String> = part
            .iter()
            .map(|(name, ..)| {
                format!("SELECT {}, last_value::text, is_called::text FROM {name}", literal(name))
            })
            .collect();
        let rows = session.query(cx, "read the sequences", &branches.join(" UNION ALL ")).await?;
        for row in rows {
            let name = text(&row, 0)?;
            let at = SequencePosition { last_value: parsed(&row, 1)?, is_called: flag(&row, 2)? };
            if let Some((_, cycles, increment)) = part.iter().find(|(listed, ..)| *listed == name) {
                found.insert(name, SequenceBracket::still(at, *cycles, *increment));
            }
        }
    }
    Ok(found)
}

/// Large objects: number, bytes, contents, owners, grants, comments.
pub(super) async fn large_objects(cx: &Cx, session: &Session) -> Result<LargeObjectFacts, DriverError> {
    let count: u64 = parsed(
        &session
            .row(cx, "count the large objects", "SELECT count(*)::text FROM pg_largeobject_metadata")
            .await?,
        0,
    )?;
    if count == 0 {
        return Ok(LargeObjectFacts::default());
    }
    // A size is found by opening an object and seeking to its end. Subqueries fix the order of the three calls.
    let sql = format!(
        "SELECT m.oid::text, m.size::text, (SELECT encode(sha256(coalesce(string_agg(sha256(\
         lo_get(m.oid, g * {LARGE_OBJECT_CHUNK}, {LARGE_OBJECT_CHUNK})), ''::bytea ORDER BY g), ''::bytea)), 'hex') \
         FROM generate_series(0, (m.size - 1) / {LARGE_OBJECT_CHUNK}) g WHERE m.size > 0), \
         m.owner, m.acl, m.comment FROM (SELECT f.*, CASE WHEN lo_close(f.fd) = 0 THEN f.end_at END AS size \
         FROM (SELECT o.*, lo_lseek64(o.fd, 0, 2) AS end_at FROM (SELECT l.oid, lo_open(l.oid, 262144) AS fd, \
         {} AS owner, {} AS acl, \
         obj_description(l.oid, 'pg_largeobject') AS comment FROM pg_largeobject_metadata l OFFSET 0) o OFFSET 0) f \
         OFFSET 0) m ORDER BY m.oid",
        role("l.lomowner"),
        grants("l.lomacl", "L", "l.lomowner")
    );
    let mut facts = LargeObjectFacts { count, ..LargeObjectFacts::default() };
    let (mut contents, mut metadata) = (Sha256::new(), Sha256::new());
    for row in session.query(cx, "measure the large objects", &sql).await? {
        let oid: u32 = parsed(&row, 0)?;
        let size: u64 = parsed(&row, 1)?;
        let content = optional(&row, 2)?.unwrap_or_default();
        let about = format!(
            "{}\u{1f}{}\u{1f}{}",
            text(&row, 3)?,
            optional(&row, 4)?.unwrap_or_default(),
            optional(&row, 5)?.unwrap_or_default()
        );
        facts.bytes += size;
        let digests = [digest(format!("{size} {content}").as_bytes()), digest(about.as_bytes())];
        contents.update(format!("{oid} {}\n", digests[0]));
        metadata.update(format!("{oid} {}\n", digests[1]));
        if facts.count <= LARGE_OBJECTS_NAMED_MAX as u64 {
            facts.each.insert(oid, digests);
        }
    }
    let hexadecimal =
        |hash: Sha256| hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    facts.content = hexadecimal(contents);
    facts.metadata = hexadecimal(metadata);
    Ok(facts)
}
