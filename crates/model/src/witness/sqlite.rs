//! The truth about a SQLite database at one instant: what its tables hold, how its objects are defined, its properties.
//!
//! Measured through SQL in the very read transaction that the pages were copied in; the image's own digest comes on top.
//! A table's content is a count and a sum, modulo 2^128, of row hashes: independent of order, and two equal rows do not
//! cancel as they would under XOR. No row's value is kept.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::content::Content;
use super::report::Findings;
use crate::finding::{Finding, FindingCode};
use crate::verdict::{CheckOutcome, CheckReport};

/// A SQLite database, measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqliteWitness {
    /// Version of this shape.
    pub version: u32,
    /// Where the database lies in its copy.
    pub file: String,
    /// Bytes of the image, cut as it was stored.
    pub image: Content,
    /// Properties that the database file carries, by name: `application_id`, `encoding`, `page_size`, …
    pub properties: BTreeMap<String, String>,
    /// Everything that `sqlite_schema` lists, in order of kind and name.
    pub objects: Vec<SchemaObject>,
    /// Every table that stores rows, shadow tables of virtual tables included, in order of name.
    pub tables: Vec<TableContent>,
    /// Positions of `AUTOINCREMENT` tables, by table.
    pub sequences: BTreeMap<String, i64>,
    /// What `PRAGMA integrity_check` said.
    pub integrity: Integrity,
    /// Rows whose foreign key finds no parent, by `child -> parent`; or why it could not be asked.
    pub orphans: Orphans,
    /// Whether a database without rows is healthy.
    pub may_be_empty: bool,
}

/// One row of `sqlite_schema`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SchemaObject {
    /// `table`, `index`, `view`, `trigger`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The table it belongs to.
    pub table: String,
    /// SHA-256 of its definition; of nothing where it has none (an automatic index).
    pub definition: String,
    /// Whether a view can be used by this library with an untrusting connection; `true` for everything else.
    pub is_usable: bool,
}

/// What one table holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableContent {
    /// Its name.
    pub name: String,
    /// Rows; `None` where it could not be read, with the reason in `unreadable`.
    pub rows: Option<u64>,
    /// Sum of the 128-bit row hashes, 32 hexadecimal digits; empty where it could not be read.
    pub sum: String,
    /// Why it could not be read; no row values.
    pub unreadable: Option<String>,
}

/// The engine's own opinion of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "answer")]
pub enum Integrity {
    /// It said `ok`.
    Sound,
    /// It found something: the first messages, and how many.
    Broken {
        /// At most twenty.
        messages: Vec<String>,
        /// All of them, as far as the engine lists them.
        count: u64,
    },
    /// It could not be asked, e.g. for want of an application's own collation.
    Unknown {
        /// Why.
        reason: String,
    },
}

/// Rows that refer to rows that are not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "answer")]
pub enum Orphans {
    /// How many, by `child -> parent`; empty is sound.
    Counted {
        /// Rows.
        by_reference: BTreeMap<String, u64>,
    },
    /// It could not be asked.
    Unknown {
        /// Why.
        reason: String,
    },
}

/// Accumulates row hashes: order does not matter, duplicates do not cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowSum {
    /// Rows so far.
    pub rows: u64,
    /// Sum of their hashes modulo 2^128.
    pub sum: u128,
}

impl RowSum {
    /// Adds the hash of one row.
    pub fn add(&mut self, row: u128) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(row);
    }

    /// The sum as it is written in a witness.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{:032x}", self.sum)
    }
}

const PROPERTIES: &str = "properties";
/// Name of the check of the file itself, byte for byte.
pub const IMAGE: &str = "image";
/// Name of the check of definitions.
pub const SCHEMA: &str = "schema";
const SEQUENCES: &str = "sequences";
const INTEGRITY: &str = "integrity";
const FOREIGN_KEYS: &str = "foreign-keys";

impl SqliteWitness {
    /// Names of the checks that a drill of this witness must carry out, in order.
    #[must_use]
    pub fn checks(&self) -> Vec<String> {
        let fixed = [IMAGE, PROPERTIES, SCHEMA, SEQUENCES, INTEGRITY, FOREIGN_KEYS];
        let tables = self.tables.iter().map(|table| rows_check(&table.name));
        fixed.into_iter().map(str::to_owned).chain(tables).collect()
    }

    /// Rows in all tables that could be read.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.iter().filter_map(|table| table.rows).sum()
    }

    /// Whether it holds nothing: no rows besides the engine's own.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables
            .iter()
            .filter(|table| !table.name.starts_with("sqlite_"))
            .all(|table| table.rows == Some(0))
    }

    /// Compares what was observed in a restore with this witness: one report for each of [`Self::checks`], in order.
    #[must_use]
    pub fn compare(&self, observed: &Self) -> Vec<CheckReport> {
        let mut reports = vec![
            self.compare_image(observed),
            self.compare_properties(observed),
            self.compare_schema(observed),
            self.compare_sequences(observed),
            compare_integrity(&observed.integrity),
            compare_orphans(&self.orphans, &observed.orphans),
        ];
        let found: BTreeMap<&str, &TableContent> =
            observed.tables.iter().map(|table| (table.name.as_str(), table)).collect();
        reports.extend(
            self.tables.iter().map(|table| compare_table(table, found.get(table.name.as_str()).copied())),
        );
        reports
    }

    fn compare_image(&self, observed: &Self) -> CheckReport {
        let mut findings = Vec::new();
        if self.image != observed.image {
            findings.push(Finding::new(
                FindingCode::FileContent,
                &self.file,
                format!(
                    "the image has {} bytes of other content; stored were {}",
                    observed.image.size, self.image.size
                ),
            ));
        }
        report(IMAGE, format!("{} bytes compared by digest", self.image.size), findings)
    }

    fn compare_properties(&self, observed: &Self) -> CheckReport {
        let names: BTreeSet<&String> = self.properties.keys().chain(observed.properties.keys()).collect();
        let mut findings = Vec::new();
        for name in &names {
            let (expected, found) = (self.properties.get(*name), observed.properties.get(*name));
            if expected != found {
                let code = match name.as_str() {
                    "encoding" => FindingCode::EncodingOrLocale,
                    _ => FindingCode::SettingsDiffer,
                };
                let text = |value: Option<&String>| value.map_or("absent".to_owned(), ToString::to_string);
                findings.push(Finding::new(
                    code,
                    name.as_str(),
                    format!("is {}, was {}", text(found), text(expected)),
                ));
            }
        }
        if self.is_empty() && !self.may_be_empty {
            findings.push(Finding::new(
                FindingCode::PointImplausible,
                &self.file,
                "the database holds no rows and is not declared `may_be_empty`",
            ));
        }
        report(PROPERTIES, format!("{} properties compared", names.len()), findings)
    }

    fn compare_schema(&self, observed: &Self) -> CheckReport {
        let key = |object: &SchemaObject| (object.kind.clone(), object.name.clone());
        let found: BTreeMap<_, &SchemaObject> =
            observed.objects.iter().map(|object| (key(object), object)).collect();
        let expected: BTreeMap<_, &SchemaObject> =
            self.objects.iter().map(|object| (key(object), object)).collect();
        let mut findings = Vec::new();
        for (name, object) in &expected {
            let subject = subject(object);
            match found.get(name) {
                None => findings.push(Finding::new(missing_code(&object.kind), subject, "was not restored")),
                Some(other) => {
                    if other.definition != object.definition || other.table != object.table {
                        let code = differs_code(&object.kind);
                        findings.push(Finding::new(
                            code,
                            subject,
                            "is defined otherwise than in the witness",
                        ));
                    } else if object.is_usable && !other.is_usable {
                        findings.push(Finding::new(
                            FindingCode::ObjectUnusable,
                            subject,
                            "was usable at the backup and is not now",
                        ));
                    }
                }
            }
        }
        for (name, object) in &found {
            if !expected.contains_key(name) {
                findings.push(Finding::new(
                    FindingCode::RelationMissing,
                    subject(object),
                    "was restored and is not in the witness",
                ));
            }
        }
        report(SCHEMA, format!("{} objects compared", expected.len()), findings)
    }

    fn compare_sequences(&self, observed: &Self) -> CheckReport {
        let names: BTreeSet<&String> = self.sequences.keys().chain(observed.sequences.keys()).collect();
        let mut findings = Vec::new();
        for name in &names {
            let (expected, found) = (self.sequences.get(*name), observed.sequences.get(*name));
            if expected != found {
                let text = |value: Option<&i64>| value.map_or("absent".to_owned(), ToString::to_string);
                findings.push(Finding::new(
                    FindingCode::SequencePosition,
                    shown(name),
                    format!("stands at {}, stood at {}", text(found), text(expected)),
                ));
            }
        }
        report(SEQUENCES, format!("{} sequences compared", names.len()), findings)
    }
}

/// Name of the check of a table's rows; one line, whatever the table is called.
#[must_use]
pub fn rows_check(table: &str) -> String {
    format!("rows:{}", shown(table))
}

/// A name as it is shown: one line, control characters escaped.
#[must_use]
pub fn shown(name: &str) -> String {
    name.escape_debug().to_string()
}

fn subject(object: &SchemaObject) -> String {
    format!("{} {}", shown(&object.kind), shown(&object.name))
}

fn missing_code(kind: &str) -> FindingCode {
    match kind {
        "index" => FindingCode::ConstraintOrIndex,
        "trigger" => FindingCode::RoutineOrTrigger,
        _ => FindingCode::RelationMissing,
    }
}

fn differs_code(kind: &str) -> FindingCode {
    match kind {
        "index" => FindingCode::ConstraintOrIndex,
        "trigger" => FindingCode::RoutineOrTrigger,
        _ => FindingCode::DefinitionDiffers,
    }
}

fn compare_table(expected: &TableContent, found: Option<&TableContent>) -> CheckReport {
    let name = rows_check(&expected.name);
    let subject = shown(&expected.name);
    let Some(found) = found else {
        let finding = Finding::new(FindingCode::RelationMissing, subject, "was not restored");
        return report(&name, "the table is not there".to_owned(), vec![finding]);
    };
    match (expected.rows, found.rows) {
        (Some(expected_rows), Some(rows)) if expected_rows != rows => {
            let finding = Finding::new(
                FindingCode::RowCount,
                subject,
                format!("{rows} rows, the witness has {expected_rows}"),
            );
            report(&name, format!("{rows} rows, {expected_rows} expected"), vec![finding])
        }
        (Some(_), Some(rows)) if expected.sum != found.sum => {
            let finding =
                Finding::new(FindingCode::RowContent, subject, format!("{rows} rows, but their sum differs"));
            report(&name, format!("{rows} rows compared by hash"), vec![finding])
        }
        (Some(_), Some(rows)) => report(&name, format!("{rows} rows compared by hash"), Vec::new()),
        (Some(_), None) => {
            let reason = found.unreadable.as_deref().unwrap_or("unknown");
            let finding = Finding::new(
                FindingCode::Corruption,
                subject,
                format!("could be read at the backup and cannot be now: {reason}"),
            );
            report(&name, "the table cannot be read".to_owned(), vec![finding])
        }
        (None, _) => {
            let reason = expected.unreadable.as_deref().unwrap_or("unknown");
            let finding = Finding::new(
                FindingCode::NoWitness,
                subject,
                format!("could not be read when the backup was taken: {reason}"),
            );
            CheckReport {
                name,
                outcome: CheckOutcome::Inconclusive,
                detail: "the table has no witness".to_owned(),
                findings: vec![finding],
            }
        }
    }
}

fn compare_integrity(found: &Integrity) -> CheckReport {
    match found {
        Integrity::Sound => report(INTEGRITY, "integrity_check: ok".to_owned(), Vec::new()),
        Integrity::Broken { messages, count } => {
            let findings = messages.iter().map(|message| {
                let code = if is_about_virtual_table(message) {
                    FindingCode::ObjectUnusable
                } else {
                    FindingCode::Corruption
                };
                Finding::new(code, "integrity_check", message)
            });
            report(INTEGRITY, format!("integrity_check: {count} messages"), findings.collect())
        }
        Integrity::Unknown { reason } => undecided(INTEGRITY, reason),
    }
}

/// A full-text or spatial index out of step with its table is reported by its module, not by the b-tree layer.
fn is_about_virtual_table(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["inverted index", "fts3", "fts4", "fts5", "rtree", "virtual table"]
        .iter()
        .any(|word| message.contains(word))
}

fn compare_orphans(expected: &Orphans, found: &Orphans) -> CheckReport {
    match (expected, found) {
        (Orphans::Counted { by_reference: expected }, Orphans::Counted { by_reference: found }) => {
            let references: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
            let mut findings = Vec::new();
            for reference in references {
                let was = expected.get(reference).copied().unwrap_or(0);
                let is = found.get(reference).copied().unwrap_or(0);
                if was != is {
                    findings.push(Finding::new(
                        FindingCode::ReferenceBroken,
                        shown(reference),
                        format!("{is} rows without a parent, {was} when the backup was taken"),
                    ));
                }
            }
            let known: u64 = expected.values().sum();
            let mut detail = "foreign_key_check compared".to_owned();
            if known > 0 {
                detail.push_str(&format!("; the source itself has {known} rows without a parent"));
            }
            report(FOREIGN_KEYS, detail, findings)
        }
        (Orphans::Unknown { reason }, _) | (_, Orphans::Unknown { reason }) => {
            undecided(FOREIGN_KEYS, reason)
        }
    }
}

fn undecided(name: &str, reason: &str) -> CheckReport {
    CheckReport {
        name: name.to_owned(),
        outcome: CheckOutcome::Inconclusive,
        detail: "could not be asked here".to_owned(),
        findings: vec![Finding::new(FindingCode::EnvOther, name, reason)],
    }
}

/// A check carried out: passed without findings, failed with them.
fn report(name: &str, detail: String, findings: Vec<Finding>) -> CheckReport {
    findings.into_iter().collect::<Findings>().report(name, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, rows: u64, sum: u128) -> TableContent {
        let sum = RowSum { rows, sum }.text();
        TableContent { name: name.to_owned(), rows: Some(rows), sum, unreadable: None }
    }

    fn object(kind: &str, name: &str) -> SchemaObject {
        SchemaObject {
            kind: kind.to_owned(),
            name: name.to_owned(),
            table: "t".to_owned(),
            definition: "d".to_owned(),
            is_usable: true,
        }
    }

    fn witness() -> SqliteWitness {
        SqliteWitness {
            version: 1,
            file: "shop.sqlite".to_owned(),
            image: Content::of_pieces([(4096, [1; 32])]),
            properties: BTreeMap::from([
                ("encoding".to_owned(), "UTF-8".to_owned()),
                ("user_version".to_owned(), "7".to_owned()),
            ]),
            objects: vec![
                object("index", "i"),
                object("table", "t"),
                object("trigger", "g"),
                object("view", "v"),
            ],
            tables: vec![table("line\nbreak", 0, 0), table("t", 2, 5)],
            sequences: BTreeMap::from([("t".to_owned(), 2)]),
            integrity: Integrity::Sound,
            orphans: Orphans::Counted { by_reference: BTreeMap::new() },
            may_be_empty: false,
        }
    }

    fn codes(change: impl FnOnce(&mut SqliteWitness)) -> Vec<String> {
        let expected = witness();
        let mut observed = witness();
        change(&mut observed);
        let reports = expected.compare(&observed);
        let names: Vec<String> = reports.iter().map(|report| report.name.clone()).collect();
        assert_eq!(names, expected.checks());
        let failed = reports.iter().filter(|report| report.outcome == CheckOutcome::Failed);
        failed.flat_map(|report| &report.findings).map(|finding| finding.code.to_string()).collect()
    }

    #[test]
    fn an_equal_restore_passes_every_check() {
        let reports = witness().compare(&witness());
        assert!(
            reports.iter().all(|report| report.outcome == CheckOutcome::Passed && report.findings.is_empty())
        );
        assert_eq!(reports.len(), 8);
    }

    #[test]
    fn every_difference_has_its_code() {
        assert_eq!(codes(|w| w.tables[1] = table("t", 1, 5)), ["CT-01"]);
        assert_eq!(codes(|w| w.tables[1] = table("t", 2, 6)), ["CT-02"]);
        assert_eq!(codes(|w| drop(w.tables.remove(1))), ["CT-03"]);
        assert_eq!(codes(|w| drop(w.objects.remove(0))), ["CT-05"]);
        assert_eq!(codes(|w| drop(w.objects.remove(1))), ["CT-03"]);
        assert_eq!(codes(|w| drop(w.objects.remove(2))), ["CT-17"]);
        assert_eq!(codes(|w| w.objects[1].definition.push('x')), ["CT-04"]);
        assert_eq!(codes(|w| w.objects[3].is_usable = false), ["CT-15"]);
        assert_eq!(codes(|w| w.objects.push(object("table", "new"))), ["CT-03"]);
        assert_eq!(codes(|w| w.sequences = BTreeMap::from([("t".to_owned(), 1)])), ["CT-07"]);
        assert_eq!(
            codes(|w| drop(w.properties.insert("encoding".to_owned(), "UTF-16le".to_owned()))),
            ["CT-14"]
        );
        assert_eq!(codes(|w| drop(w.properties.remove("user_version"))), ["CT-16"]);
        assert_eq!(codes(|w| w.image = Content::of_pieces([(4096, [2; 32])])), ["FS-02"]);
        let broken = |text: &str| Integrity::Broken { messages: vec![text.to_owned()], count: 1 };
        assert_eq!(codes(|w| w.integrity = broken("row 3 missing from index i")), ["CT-13"]);
        assert_eq!(
            codes(|w| w.integrity = broken("malformed inverted index for FTS5 table main.f")),
            ["CT-15"]
        );
        let orphans = BTreeMap::from([("a -> b".to_owned(), 1)]);
        assert_eq!(codes(|w| w.orphans = Orphans::Counted { by_reference: orphans }), ["CT-06"]);
    }

    /// What every check says that did not pass, word for word.
    fn told(change: impl FnOnce(&mut SqliteWitness)) -> Vec<String> {
        let mut observed = witness();
        change(&mut observed);
        compared(&witness(), &observed)
    }

    fn compared(expected: &SqliteWitness, observed: &SqliteWitness) -> Vec<String> {
        crate::witness::report::told(expected.compare(observed))
    }

    #[test]
    fn a_difference_is_told_with_what_is_and_what_was() {
        assert_eq!(
            told(|w| w.image = Content::of_pieces([(8192, [1; 32])])),
            ["image Failed FS-02 shop.sqlite: the image has 8192 bytes of other content; stored were 4096"]
        );
        assert_eq!(
            told(|w| drop(w.properties.remove("user_version"))),
            ["properties Failed CT-16 user_version: is absent, was 7"]
        );
        assert_eq!(
            told(|w| drop(w.properties.insert("new".to_owned(), "1".to_owned()))),
            ["properties Failed CT-16 new: is 1, was absent"]
        );
        assert_eq!(told(|w| drop(w.objects.remove(0))), ["schema Failed CT-05 index i: was not restored"]);
        assert_eq!(
            told(|w| w.objects[0].table.push('x')),
            ["schema Failed CT-05 index i: is defined otherwise than in the witness"]
        );
        assert_eq!(
            told(|w| w.objects[2].definition.push('x')),
            ["schema Failed CT-17 trigger g: is defined otherwise than in the witness"]
        );
        assert_eq!(
            told(|w| w.objects[3].is_usable = false),
            ["schema Failed CT-15 view v: was usable at the backup and is not now"]
        );
        assert_eq!(
            told(|w| w.objects.push(object("view", "new"))),
            ["schema Failed CT-03 view new: was restored and is not in the witness"]
        );
        assert_eq!(
            told(|w| w.sequences = BTreeMap::from([("t".to_owned(), 3)])),
            ["sequences Failed CT-07 t: stands at 3, stood at 2"]
        );
        assert_eq!(told(|w| w.sequences.clear()), ["sequences Failed CT-07 t: stands at absent, stood at 2"]);
        assert_eq!(
            told(|w| w.tables.clear()),
            [
                "rows:line\\nbreak Failed CT-03 line\\nbreak: was not restored",
                "rows:t Failed CT-03 t: was not restored",
            ]
        );
        assert_eq!(
            told(|w| w.tables[1] = table("t", 1, 5)),
            ["rows:t Failed CT-01 t: 1 rows, the witness has 2"]
        );
        assert_eq!(
            told(|w| w.tables[1] = table("t", 2, 6)),
            ["rows:t Failed CT-02 t: 2 rows, but their sum differs"]
        );
        let unreadable =
            || TableContent { rows: None, unreadable: Some("malformed".to_owned()), ..table("t", 0, 0) };
        assert_eq!(
            told(|w| w.tables[1] = unreadable()),
            ["rows:t Failed CT-13 t: could be read at the backup and cannot be now: malformed"]
        );
        let mut without = witness();
        without.tables[1] = unreadable();
        for observed in [&witness(), &without] {
            assert_eq!(
                compared(&without, observed),
                ["rows:t Inconclusive CT-18 t: could not be read when the backup was taken: malformed"]
            );
        }
        let broken = |text: &str| Integrity::Broken { messages: vec![text.to_owned()], count: 1 };
        for (message, code) in [
            ("row 3 missing from index i", "CT-13"),
            ("malformed inverted index for FTS5 table main.f", "CT-15"),
            ("unable to validate the inverted index for FTS4", "CT-15"),
            ("fts3: x", "CT-15"),
            ("In RTree main.r", "CT-15"),
            ("virtual table x", "CT-15"),
        ] {
            assert_eq!(
                told(|w| w.integrity = broken(message)),
                [format!("integrity Failed {code} integrity_check: {message}")]
            );
        }
        let counted =
            |rows: u64| Orphans::Counted { by_reference: BTreeMap::from([("a -> b".to_owned(), rows)]) };
        assert_eq!(
            told(|w| w.orphans = counted(2)),
            ["foreign-keys Failed CT-06 a -> b: 2 rows without a parent, 0 when the backup was taken"]
        );
        let flawed = SqliteWitness { orphans: counted(2), ..witness() };
        assert_eq!(compared(&flawed, &flawed), Vec::<String>::new());
        assert_eq!(
            flawed.compare(&flawed)[5].detail,
            "foreign_key_check compared; the source itself has 2 rows without a parent"
        );
        let unknown = || Orphans::Unknown { reason: "no such collation".to_owned() };
        assert_eq!(
            told(|w| w.orphans = unknown()),
            ["foreign-keys Inconclusive ENV-OTHER foreign-keys: no such collation"]
        );
        let unasked = SqliteWitness { orphans: unknown(), ..witness() };
        assert_eq!(compared(&unasked, &witness()).len(), 1);
    }

    #[test]
    fn a_view_that_was_not_usable_need_not_become_so() {
        let mut unusable = witness();
        unusable.objects[3].is_usable = false;
        assert_eq!(compared(&unusable, &unusable), Vec::<String>::new());
        assert_eq!(compared(&unusable, &witness()), Vec::<String>::new());
    }

    #[test]
    fn what_was_compared_is_counted() {
        let details: Vec<String> =
            witness().compare(&witness()).into_iter().map(|report| report.detail).collect();
        assert_eq!(
            details,
            [
                "4096 bytes compared by digest",
                "2 properties compared",
                "4 objects compared",
                "1 sequences compared",
                "integrity_check: ok",
                "foreign_key_check compared",
                "0 rows compared by hash",
                "2 rows compared by hash",
            ]
        );
        assert_eq!(witness().rows(), 2);
        let mut fewer = witness();
        fewer.tables[1] = table("t", 1, 5);
        assert_eq!(witness().compare(&fewer)[7].detail, "1 rows, 2 expected");
        fewer.integrity = Integrity::Broken { messages: Vec::new(), count: 3 };
        assert_eq!(witness().compare(&fewer)[4].detail, "integrity_check: 3 messages");
        let mut sum = RowSum::default();
        sum.add(0x5e);
        assert_eq!(sum.text(), format!("{:032x}", 0x5e));
    }

    #[test]
    fn an_empty_database_is_one_without_rows_of_its_own() {
        let mut empty = witness();
        empty.tables = vec![table("sqlite_stat1", 3, 9)];
        assert!(empty.is_empty());
        empty.tables.push(table("t", 0, 0));
        assert!(empty.is_empty());
        assert_eq!(
            compared(&empty, &empty),
            [
                "properties Failed RP-11 shop.sqlite: the database holds no rows and is not declared `may_be_empty`"
            ]
        );
        empty.tables.push(table("u", 1, 0));
        assert!(!empty.is_empty());
    }

    #[test]
    fn what_could_not_be_asked_is_inconclusive() {
        let mut observed = witness();
        observed.integrity = Integrity::Unknown { reason: "no such collation sequence".to_owned() };
        let reports = witness().compare(&observed);
        assert!(reports.iter().any(|report| report.outcome == CheckOutcome::Inconclusive));
    }

    #[test]
    fn an_empty_database_fails_unless_declared() {
        let mut empty = witness();
        empty.tables = vec![table("t", 0, 0), table("sqlite_stat1", 3, 9)];
        let failed = |witness: &SqliteWitness| {
            witness.compare(witness).iter().any(|report| {
                report.outcome == CheckOutcome::Failed
                    && report.findings[0].code == FindingCode::PointImplausible
            })
        };
        assert!(failed(&empty));
        empty.may_be_empty = true;
        assert!(!failed(&empty));
    }

    #[test]
    fn duplicates_do_not_cancel() {
        let mut sum = RowSum::default();
        sum.add(u128::MAX);
        sum.add(u128::MAX);
        assert_eq!((sum.rows, sum.sum), (2, u128::MAX - 1));
    }

    #[test]
    fn a_witness_survives_being_written_and_read() {
        let witness = super::super::Witness::Sqlite(Box::new(witness()));
        let text = serde_json::to_string(&witness).unwrap();
        assert_eq!(serde_json::from_str::<super::super::Witness>(&text).unwrap(), witness);
    }
}
