//! What the database holds: rows, positions of sequences, large objects; each measured by the server itself, so that the
//! witness is another view of the snapshot than the dump's bytes.
//!
//! A row's hash is taken of its columns' text in order of their names, because a child table that was attached with
//! another order of columns is restored with its parents'. The text is made once for each row, hashed with two seeds, and
//! summed exactly: a sum does not depend on order, and unlike XOR it does not let duplicates cancel.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use seaworthy_interface::{Cx, DriverError, ErrorKind, Progress};
use seaworthy_model::witness::postgres::{LargeObjectFacts, SequenceBracket, SequencePosition, TableFacts};
use sha2::{Digest as _, Sha256};

use super::catalog::{View, digest, grants, own, role};
use super::names::literal;
use super::session::{Session, flag, optional, parsed, text};

/// Seed of the second hash: the golden ratio, so that it shares no structure with the first one's zero.
const SECOND_SEED: i64 = 0x1e37_79b9_7f4a_7c15;
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

/// The tables in view that hold rows of their own: ordinary tables and partitions, never their parents' share of them.
///
/// A generated column that is not stored is left out: reading it would run its owner's code as the backup role.
/// Of a table that belongs to an extension, only the rows that the extension declares as the user's are measured; if it
/// declares none, the table is left out, as it is from a dump.
pub(super) async fn tables(cx: &Cx, session: &Session, view: &View) -> Result<Vec<Table>, DriverError> {
    let sql = format!(
        "SELECT format('%I.%I', n.nspname, c.relname), c.oid::text, pg_relation_size(c.oid)::text, \
         (SELECT string_agg(format('t.%I', a.attname), ', ' ORDER BY a.attname::text COLLATE \"C\") FROM pg_attribute a \
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'), e.condition, \
         (c.relam = (SELECT m.oid FROM pg_am m WHERE m.amname = 'heap'))::text \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN LATERAL (\
         SELECT x.extcondition[array_position(x.extconfig, c.oid)] AS condition FROM pg_extension x \
         WHERE c.oid = ANY (x.extconfig) LIMIT 1) e ON true \
         WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND {} AND {} AND (e.condition IS NOT NULL OR {}) \
         ORDER BY pg_relation_size(c.oid) DESC, c.oid",
        view.schema(),
        view.relation("c.oid"),
        own("pg_class", "c.oid")
    );
    let mut found = Vec::new();
    for row in session.query(cx, "list the tables", &sql).await? {
        let name = text(&row, 0)?;
        let columns = optional(&row, 3)?.unwrap_or_default();
        let condition = optional(&row, 4)?;
        let Some(bytes) = optional(&row, 2)?.and_then(|bytes| bytes.parse::<u64>().ok()) else {
            let context = format!("measure {name}: it was dropped after the snapshot was taken");
            return Err(DriverError::new(ErrorKind::Conflict, context).hint("run the backup again"));
        };
        let measured = |part: &str| {
            format!(
                "SELECT count(*)::text, coalesce(sum(h.a), 0)::text, coalesce(sum(h.b), 0)::text FROM (\
                 SELECT hashtextextended(r.x, 0) AS a, hashtextextended(r.x, {SECOND_SEED}) AS b FROM (\
                 SELECT ROW({columns})::text COLLATE \"C\" AS x FROM ONLY {name} t {part} OFFSET 0) r) h"
            )
        };
        // A range of pages is scanned alone from PostgreSQL 14 on; before, each part would scan everything.
        let parts = bytes / PAGE_BYTES / PAGES_AT_ONCE;
        let statements = match &condition {
            Some(condition) => vec![measured(condition)],
            None if parts < 2 || session.version < 140_000 || !flag(&row, 5)? => vec![measured("")],
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
         WHERE c.relpersistence <> 't' AND {} AND {} AND {} ORDER BY 1",
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
