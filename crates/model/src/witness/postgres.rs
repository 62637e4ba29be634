//! The truth about a PostgreSQL database at one snapshot, and the comparison of two such truths.
//!
//! Holds counts, sums of hashes, names and digests of definitions. Never a row's value, never the value of a setting or
//! of an option: those can be secrets. Two truths are compared only when the same major version measured both, because
//! the text form of some types changes between majors.
//!
//! Two things may lawfully differ although nothing is wrong, and the witness says so beforehand instead of tolerating it
//! afterwards: a sequence ignores snapshots, so it is witnessed as the bracket between its position before and after
//! the dump; a definition that was changed while the dump ran is witnessed as both of its forms.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::finding::{Finding, FindingCode};
use crate::id::Digest;
use crate::verdict::{CheckOutcome, CheckReport};
use crate::witness::physical::PhysicalFacts;

/// Most names that one finding or detail repeats: enough to act on, small enough for a receipt.
const NAMED_MAX: usize = 8;

/// Version of a witness that is taken now. In 1 all columns were hashed as text.
pub const VERSION: u32 = 2;

/// Name of the check of where sequences stand.
pub const SEQUENCES: &str = "sequences";

/// Name of the check of a table's rows.
#[must_use]
pub fn rows_check(table: &str) -> String {
    format!("rows:{}", printable(table))
}

/// The truth about one PostgreSQL database at one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresWitness {
    /// Version of this shape and of how rows are hashed: [`VERSION`]. Witnesses of two versions are not compared.
    pub version: u32,
    /// What held the database.
    pub server: ServerFacts,
    /// When and where in the log the snapshot was taken.
    pub snapshot: SnapshotFacts,
    /// What was put into the copy, by which tool, with which options.
    pub scope: Scope,
    /// Properties of the database itself.
    pub database: DatabaseFacts,
    /// Each table that holds rows of its own (partitions, not their parents), by quoted `schema.table`.
    pub tables: BTreeMap<String, TableFacts>,
    /// Each object's definition, by class and by the object's identity.
    pub objects: BTreeMap<ObjectClass, BTreeMap<String, Definition>>,
    /// Each sequence's bracket, by quoted `schema.sequence`.
    pub sequences: BTreeMap<String, SequenceBracket>,
    /// Large objects.
    pub large_objects: LargeObjectFacts,
    /// Each role's attributes, memberships and comment, as a digest.
    pub roles: BTreeMap<String, String>,
    /// Each setting of the database and of roles, as a digest of its value, by `database/role/name`.
    pub settings: BTreeMap<String, String>,
    /// Whether the declaration says that holding no rows is healthy.
    pub may_be_empty: bool,
    /// Digest of each small file that lies beside the archive, for stock tools and for us. Copies made before do not say it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub beside: BTreeMap<String, Digest>,
    /// What it is a base backup of, and where recovery ends; nothing of a dump.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub physical: Option<PhysicalFacts>,
}

/// What held the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFacts {
    /// The cluster's system identifier.
    pub system_identifier: String,
    /// `server_version_num`, e.g. 150018.
    pub version_num: u32,
    /// `server_version`, for people.
    pub version: String,
    /// Name of the cluster's first superuser, which a scratch cluster is made with.
    pub bootstrap_role: String,
}

impl ServerFacts {
    /// The major version.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.version_num / 10_000
    }
}

/// When and where in the log the snapshot was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotFacts {
    /// The instant that the snapshot is of: the server's clock right before it was taken; of a standby, what it is known to have
    /// replayed until then.
    pub at: Timestamp,
    /// The write-ahead log's position then; on a standby the replayed position.
    pub lsn: String,
    /// Whether the server was a standby.
    pub on_standby: bool,
}

/// What was put into the copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Version of the `pg_dump` that wrote the archive, e.g. `15.18`.
    pub dump_version: String,
    /// The options it was given, without names of hosts, users or databases.
    pub dump_options: Vec<String>,
    /// Schemas left out on purpose.
    pub exclude_schemas: Vec<String>,
    /// Tables left out on purpose.
    pub exclude_tables: Vec<String>,
    /// What is left out by design, for people: subscriptions, passwords of roles.
    pub notes: Vec<String>,
}

/// Properties of the database itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseFacts {
    /// Its name.
    pub name: String,
    /// Encoding, e.g. `UTF8`.
    pub encoding: String,
    /// `LC_COLLATE`.
    pub collate: String,
    /// `LC_CTYPE`.
    pub ctype: String,
    /// Locale provider: `libc`, `icu`, `builtin`.
    pub provider: String,
    /// ICU or builtin locale, where the provider has one.
    pub locale: Option<String>,
    /// ICU rules, where there are some.
    pub icu_rules: Option<String>,
    /// Version of the collation's library at creation. A fact, never compared: another host lawfully has another.
    pub collation_version: Option<String>,
    /// Owner.
    pub owner: String,
    /// Connection limit; -1 for none.
    pub connection_limit: i64,
    /// Grants, normalised and sorted: `grantee=PRIVILEGE`, with `*` where it may be passed on.
    pub grants: Vec<String>,
    /// SHA-256 of its comment, where it has one.
    pub comment: Option<String>,
    /// Size on the source, which estimates the room that a restore needs.
    pub size_bytes: u64,
    /// Grants on parameters of the server (PostgreSQL 15 and newer), sorted: `parameter: grantee=PRIVILEGE`, with `*` where it may
    /// be passed on. Copies made before do not say it, and are not compared by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Vec<String>>,
    /// Names of the options of each user mapping, sorted, never their values; `None` where the role may not see them. Copies made
    /// before do not say it, and are not compared by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mappings: Option<BTreeMap<String, Option<Vec<String>>>>,
}

/// What one table holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableFacts {
    /// Rows.
    pub rows: u64,
    /// Order-independent exact sums of two independently seeded 64-bit hashes of each row; decimal.
    pub sums: [String; 2],
    /// Size of its main fork on the source, a fact that is never compared.
    pub bytes: u64,
}

/// One definition; two, where it was changed while the dump ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// SHA-256 of the canonical definition, hexadecimal; a version number for extensions.
    pub digest: String,
    /// Its other lawful form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<String>,
    /// Whether it appeared or disappeared while the dump ran, so that its absence is lawful.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_be_absent: bool,
}

impl Definition {
    /// A definition with one lawful form.
    #[must_use]
    pub fn certain(digest: impl Into<String>) -> Self {
        Self { digest: digest.into(), other: None, may_be_absent: false }
    }

    fn is_met_by(&self, observed: &Self) -> bool {
        self.digest == observed.digest || self.other.as_ref() == Some(&observed.digest)
    }
}

/// Classes of objects; each is one check of a drill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectClass {
    /// Schemas.
    Schemas,
    /// Tables, partitioned tables, foreign tables: columns, storage, bounds, row security.
    Tables,
    /// Views.
    Views,
    /// Materialized views and whether they are populated; their content is refreshed by a restore.
    MaterializedViews,
    /// Enums, domains, composite types, ranges, base types.
    Types,
    /// Definitions of sequences; positions are another check.
    SequenceDefinitions,
    /// Constraints, and whether they are validated.
    Constraints,
    /// Indexes, and whether they are valid.
    Indexes,
    /// Triggers, and whether they fire.
    Triggers,
    /// Rewrite rules.
    Rules,
    /// Functions, procedures, window functions, aggregates.
    Routines,
    /// Event triggers.
    EventTriggers,
    /// Row security policies.
    Policies,
    /// Owners and grants.
    Privileges,
    /// Privileges that future objects will have.
    DefaultPrivileges,
    /// Comments and security labels.
    Comments,
    /// Extensions and their versions.
    Extensions,
    /// Operators, operator classes and families, casts, conversions, languages, access methods, transforms.
    Operators,
    /// Text search configurations, dictionaries, parsers, templates.
    TextSearch,
    /// Collations.
    Collations,
    /// Extended statistics.
    Statistics,
    /// Publications and what they publish.
    Publications,
    /// Foreign data wrappers, servers, user mappings.
    ForeignServers,
}

impl ObjectClass {
    /// Every class, in the order of checks.
    pub const ALL: &'static [Self] = &[
        Self::Schemas,
        Self::Tables,
        Self::Views,
        Self::MaterializedViews,
        Self::Types,
        Self::SequenceDefinitions,
        Self::Constraints,
        Self::Indexes,
        Self::Triggers,
        Self::Rules,
        Self::Routines,
        Self::EventTriggers,
        Self::Policies,
        Self::Privileges,
        Self::DefaultPrivileges,
        Self::Comments,
        Self::Extensions,
        Self::Operators,
        Self::TextSearch,
        Self::Collations,
        Self::Statistics,
        Self::Publications,
        Self::ForeignServers,
    ];

    /// The stable word in a check's name.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Schemas => "schemas",
            Self::Tables => "tables",
            Self::Views => "views",
            Self::MaterializedViews => "materialized-views",
            Self::Types => "types",
            Self::SequenceDefinitions => "sequence-definitions",
            Self::Constraints => "constraints",
            Self::Indexes => "indexes",
            Self::Triggers => "triggers",
            Self::Rules => "rules",
            Self::Routines => "routines",
            Self::EventTriggers => "event-triggers",
            Self::Policies => "policies",
            Self::Privileges => "privileges",
            Self::DefaultPrivileges => "default-privileges",
            Self::Comments => "comments",
            Self::Extensions => "extensions",
            Self::Operators => "operators",
            Self::TextSearch => "text-search",
            Self::Collations => "collations",
            Self::Statistics => "statistics",
            Self::Publications => "publications",
            Self::ForeignServers => "foreign-servers",
        }
    }

    /// Name of its check.
    #[must_use]
    pub fn check(self) -> String {
        format!("objects:{}", self.word())
    }

    /// Code of an object that is defined otherwise.
    #[must_use]
    pub fn differs_code(self) -> FindingCode {
        match self {
            Self::Schemas
            | Self::Tables
            | Self::Views
            | Self::MaterializedViews
            | Self::Types
            | Self::SequenceDefinitions
            | Self::Comments
            | Self::Operators
            | Self::TextSearch
            | Self::Collations
            | Self::Statistics
            | Self::Publications
            | Self::ForeignServers => FindingCode::DefinitionDiffers,
            Self::Constraints | Self::Indexes => FindingCode::ConstraintOrIndex,
            Self::Triggers | Self::Rules | Self::Routines | Self::EventTriggers => {
                FindingCode::RoutineOrTrigger
            }
            Self::Policies | Self::Privileges | Self::DefaultPrivileges => FindingCode::OwnersOrGrants,
            Self::Extensions => FindingCode::Extension,
        }
    }

    /// Code of an object that is missing or unknown.
    #[must_use]
    pub fn missing_code(self) -> FindingCode {
        match self.differs_code() {
            FindingCode::DefinitionDiffers if self != Self::Comments => FindingCode::RelationMissing,
            code => code,
        }
    }
}

/// Where a sequence stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequencePosition {
    /// `last_value`.
    pub last_value: i64,
    /// Whether that value has been handed out.
    pub is_called: bool,
}

impl SequencePosition {
    /// A number that grows with every value handed out by an ascending sequence.
    fn ordinal(self) -> i128 {
        i128::from(self.last_value) * 2 + i128::from(self.is_called)
    }
}

/// Where a sequence stood before and after the dump. They are equal when nobody used it meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceBracket {
    /// Before the dump began.
    pub before: SequencePosition,
    /// After it ended.
    pub after: SequencePosition,
    /// Whether it starts again at its other end, so that it may lawfully stand outside an inverted bracket.
    pub cycles: bool,
    /// Its step.
    pub increment: i64,
}

impl SequenceBracket {
    /// A sequence that stands still.
    #[must_use]
    pub fn still(at: SequencePosition, cycles: bool, increment: i64) -> Self {
        Self { before: at, after: at, cycles, increment }
    }

    /// Whether a restore may lawfully stand at `position`.
    #[must_use]
    pub fn covers(&self, position: SequencePosition) -> bool {
        // A descending sequence is an ascending one seen in a mirror; `is_called` counts forward in both.
        let ordinal = |at: SequencePosition| {
            if self.increment < 0 {
                SequencePosition { last_value: at.last_value.saturating_neg(), ..at }.ordinal()
            } else {
                at.ordinal()
            }
        };
        let (before, after, at) = (ordinal(self.before), ordinal(self.after), ordinal(position));
        if before <= after {
            (before..=after).contains(&at)
        } else if self.cycles {
            at >= before || at <= after
        } else {
            // Somebody set it back while the dump ran.
            (after..=before).contains(&at)
        }
    }
}

/// Large objects.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LargeObjectFacts {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// SHA-256 over each one's id, size and content, in order of id.
    pub content: String,
    /// SHA-256 over each one's id, owner, grants and comment, in order of id.
    pub metadata: String,
    /// Each one's digest of content and of metadata, where there are few enough to name them.
    pub each: BTreeMap<u32, [String; 2]>,
}

/// Makes a name safe for a line of a log and for a check's name: control characters are escaped, and so is what stands for
/// a byte that is no UTF-8 (U+10FF80 to U+10FFFF for 0x80 to 0xff).
#[must_use]
pub fn printable(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for character in name.chars() {
        if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}') {
            text.extend(character.escape_default());
        } else if let byte @ 0x10_ff80..=0x10_ffff = u32::from(character) {
            // The driver's stand-in for a byte that is no UTF-8.
            write!(text, "\\x{:02x}", byte & 0xff).expect("writing to a String cannot fail");
        } else {
            text.push(character);
        }
    }
    text
}

fn listed<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let mut text = String::new();
    let mut count = 0_usize;
    for name in names {
        if count < NAMED_MAX {
            let separator = if count == 0 { "" } else { ", " };
            text.push_str(separator);
            text.push_str(&printable(name));
        }
        count += 1;
    }
    if count > NAMED_MAX {
        write!(text, " and {} more", count - NAMED_MAX).expect("writing to a String cannot fail");
    }
    text
}

fn report(name: String, detail: String, findings: Vec<Finding>) -> CheckReport {
    let outcome = if findings.is_empty() { CheckOutcome::Passed } else { CheckOutcome::Failed };
    CheckReport { name, outcome, detail, findings }
}

impl PostgresWitness {
    /// Names of the checks that a drill of this witness must carry out, in order: one for each table, one for each
    /// class of objects, and the rest.
    #[must_use]
    pub fn checks(&self) -> Vec<String> {
        let mut names: Vec<String> = self.physical.iter().flat_map(PhysicalFacts::checks).collect();
        names.extend(self.tables.keys().map(|name| rows_check(name)));
        names.extend(ObjectClass::ALL.iter().map(|class| class.check()));
        names.extend([SEQUENCES, "large-objects", "roles", "database", "settings"].map(str::to_owned));
        names.extend(self.physical.iter().flat_map(PhysicalFacts::checks_of_others));
        names
    }

    /// All rows of all tables.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.values().map(|table| table.rows).sum()
    }

    /// What is implausible about this witness by itself: a database that should hold rows and holds none.
    #[must_use]
    pub fn plausibility(&self) -> Vec<Finding> {
        if self.may_be_empty || self.rows() > 0 {
            return Vec::new();
        }
        let facts = format!(
            "{} tables with 0 rows in all; if that is right, declare `may_be_empty = true`",
            self.tables.len()
        );
        vec![Finding::new(FindingCode::PointImplausible, printable(&self.database.name), facts)]
    }

    /// Compares what was observed in a restore with this witness: one report for each of [`Self::checks`], in order; but for
    /// those of a base backup, which [`PhysicalFacts::compare`] makes, and those of its other databases.
    ///
    /// Another major version, or another shape of the witness, cannot be compared: every check is then inconclusive.
    #[must_use]
    pub fn compare(&self, observed: &Self) -> Vec<CheckReport> {
        if self.server.major() != observed.server.major() || self.version != observed.version {
            let detail = format!(
                "a witness of PostgreSQL {} (shape {}) cannot be compared with one of {} (shape {})",
                self.server.major(),
                self.version,
                observed.server.major(),
                observed.version
            );
            let all = self.checks();
            let others = self.physical.as_ref().map_or(0, |physical| physical.checks_of_others().len());
            return all[..all.len() - others]
                .iter()
                .skip(self.physical.as_ref().map_or(0, |physical| physical.checks().len()))
                .map(|name| CheckReport {
                    name: name.clone(),
                    outcome: CheckOutcome::Inconclusive,
                    detail: detail.clone(),
                    findings: vec![Finding::new(FindingCode::EnvBinary, name, detail.clone())],
                })
                .collect();
        }
        let mut reports = Vec::new();
        for (name, expected) in &self.tables {
            reports.push(compare_table(name, expected, observed.tables.get(name)));
        }
        for class in ObjectClass::ALL {
            let none = BTreeMap::new();
            let expected = self.objects.get(class).unwrap_or(&none);
            let found = observed.objects.get(class).unwrap_or(&none);
            let mut checked = compare_objects(*class, expected, found);
            if *class == ObjectClass::Tables {
                self.add_unknown_tables(observed, &mut checked);
            }
            if *class == ObjectClass::ForeignServers {
                self.add_mapping_options(observed, &mut checked);
            }
            reports.push(checked);
        }
        reports.push(self.compare_sequences(observed));
        reports.push(self.compare_large_objects(observed));
        reports.push(compare_digests(
            "roles",
            "role",
            FindingCode::OwnersOrGrants,
            &self.roles,
            &observed.roles,
        ));
        reports.push(self.compare_database(observed));
        reports.push(compare_digests(
            "settings",
            "setting",
            FindingCode::SettingsDiffer,
            &self.settings,
            &observed.settings,
        ));
        reports
    }

    /// A table with rows that this witness does not know has no check of its own; it fails the check of tables.
    fn add_unknown_tables(&self, observed: &Self, checked: &mut CheckReport) {
        for name in observed.tables.keys().filter(|name| !self.tables.contains_key(*name)) {
            if checked.findings.iter().any(|finding| finding.subject == printable(name)) {
                continue;
            }
            checked.outcome = CheckOutcome::Failed;
            checked.findings.push(Finding::new(
                FindingCode::RelationMissing,
                printable(name),
                "holds rows in the restore and is not in the witness",
            ));
        }
    }

    /// A user mapping that has come back without its options connects as nobody. What one side could not see is not compared.
    fn add_mapping_options(&self, observed: &Self, checked: &mut CheckReport) {
        let (Some(expected), Some(found)) = (&self.database.mappings, &observed.database.mappings) else {
            return;
        };
        for (name, options) in expected {
            let (Some(options), Some(Some(found))) = (options, found.get(name)) else { continue };
            if options == found {
                continue;
            }
            let shown = |options: &Vec<String>| {
                if options.is_empty() { "none".to_owned() } else { listed(options) }
            };
            checked.outcome = CheckOutcome::Failed;
            checked.findings.push(Finding::new(
                ObjectClass::ForeignServers.differs_code(),
                printable(name),
                format!("options expected: {}; found: {}", shown(options), shown(found)),
            ));
        }
    }

    fn compare_sequences(&self, observed: &Self) -> CheckReport {
        let mut findings = Vec::new();
        for (name, bracket) in &self.sequences {
            let detail = match observed.sequences.get(name) {
                None => "is missing".to_owned(),
                Some(found) if bracket.covers(found.before) => continue,
                Some(found) => format!(
                    "stands at {} (called: {}); at the backup it stood between {} (called: {}) and {} (called: {})",
                    found.before.last_value,
                    found.before.is_called,
                    bracket.before.last_value,
                    bracket.before.is_called,
                    bracket.after.last_value,
                    bracket.after.is_called
                ),
            };
            findings.push(Finding::new(FindingCode::SequencePosition, printable(name), detail));
        }
        for name in observed.sequences.keys().filter(|name| !self.sequences.contains_key(*name)) {
            findings.push(Finding::new(
                FindingCode::SequencePosition,
                printable(name),
                "is not in the witness",
            ));
        }
        let moved = self.sequences.values().filter(|bracket| bracket.before != bracket.after).count();
        let detail = format!("{} sequences, {moved} of them in use during the backup", self.sequences.len());
        report(SEQUENCES.to_owned(), detail, findings)
    }

    fn compare_large_objects(&self, observed: &Self) -> CheckReport {
        let (expected, found) = (&self.large_objects, &observed.large_objects);
        let detail = format!(
            "{} large objects with {} bytes expected, {} with {} bytes found",
            expected.count, expected.bytes, found.count, found.bytes
        );
        let mut findings = Vec::new();
        if (expected.count, expected.bytes, &expected.content) != (found.count, found.bytes, &found.content) {
            let named = differing_large_objects(expected, found, 0);
            findings.push(Finding::new(
                FindingCode::LargeObjects,
                "large objects",
                format!("{detail}{named}"),
            ));
        }
        if expected.metadata != found.metadata && expected.count == found.count {
            let named = differing_large_objects(expected, found, 1);
            let facts = format!("owner, grants or comment differ{named}");
            findings.push(Finding::new(FindingCode::LargeObjects, "large objects", facts));
        }
        report("large-objects".to_owned(), detail, findings)
    }

    fn compare_database(&self, observed: &Self) -> CheckReport {
        let (expected, found) = (&self.database, &observed.database);
        let mut findings = self.plausibility();
        let optional = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
        let mut differ = |code: FindingCode, what: &str, expected: String, found: String| {
            if expected != found {
                let facts = format!("{what}: expected {}, found {}", printable(&expected), printable(&found));
                findings.push(Finding::new(code, printable(&self.database.name), facts));
            }
        };
        let text = |value: &String| value.clone();
        let locale = FindingCode::EncodingOrLocale;
        differ(locale, "encoding", text(&expected.encoding), text(&found.encoding));
        differ(locale, "collate", text(&expected.collate), text(&found.collate));
        differ(locale, "ctype", text(&expected.ctype), text(&found.ctype));
        differ(locale, "locale provider", text(&expected.provider), text(&found.provider));
        differ(locale, "locale", optional(&expected.locale), optional(&found.locale));
        differ(locale, "ICU rules", optional(&expected.icu_rules), optional(&found.icu_rules));
        let grants = FindingCode::OwnersOrGrants;
        differ(grants, "owner", text(&expected.owner), text(&found.owner));
        differ(grants, "grants", expected.grants.join(" "), found.grants.join(" "));
        if let (Some(expected), Some(found)) = (&expected.parameters, &found.parameters) {
            differ(grants, "grants on parameters", expected.join(", "), found.join(", "));
        }
        let settings = FindingCode::SettingsDiffer;
        let limit = |facts: &DatabaseFacts| facts.connection_limit.to_string();
        differ(settings, "connection limit", limit(expected), limit(found));
        differ(settings, "comment (SHA-256)", optional(&expected.comment), optional(&found.comment));
        let detail = format!(
            "encoding {}, collate {}, ctype {}, provider {}; {} tables with {} rows",
            expected.encoding,
            expected.collate,
            expected.ctype,
            expected.provider,
            self.tables.len(),
            self.rows()
        );
        report("database".to_owned(), detail, findings)
    }
}

fn differing_large_objects(expected: &LargeObjectFacts, found: &LargeObjectFacts, which: usize) -> String {
    let part = |each: Option<&[String; 2]>| each.map(|digests| digests[which].clone());
    let names: Vec<String> = expected
        .each
        .keys()
        .chain(found.each.keys().filter(|id| !expected.each.contains_key(id)))
        .filter(|id| part(expected.each.get(id)) != part(found.each.get(id)))
        .map(u32::to_string)
        .collect();
    if names.is_empty() { String::new() } else { format!(": {}", listed(&names)) }
}

fn compare_table(name: &str, expected: &TableFacts, observed: Option<&TableFacts>) -> CheckReport {
    let subject = printable(name);
    let check = format!("rows:{subject}");
    let Some(found) = observed else {
        let finding = Finding::new(
            FindingCode::RelationMissing,
            subject,
            format!("was not restored; {} rows expected", expected.rows),
        );
        return report(check, "the table is missing".to_owned(), vec![finding]);
    };
    let detail = format!("{} rows expected, {} found", expected.rows, found.rows);
    let mut findings = Vec::new();
    if expected.rows != found.rows {
        findings.push(Finding::new(FindingCode::RowCount, subject, detail.clone()));
    } else if expected.sums != found.sums {
        let facts = format!("{} rows as expected, but their content differs", expected.rows);
        findings.push(Finding::new(FindingCode::RowContent, subject, facts));
    }
    let content = if expected.sums == found.sums { "equal" } else { "different" };
    report(check, format!("{detail}; content {content}"), findings)
}

fn compare_objects(
    class: ObjectClass,
    expected: &BTreeMap<String, Definition>,
    observed: &BTreeMap<String, Definition>,
) -> CheckReport {
    let mut findings = Vec::new();
    let mut newer = Vec::new();
    for (name, definition) in expected {
        let (code, facts) = match observed.get(name) {
            None if definition.may_be_absent => continue,
            None => (class.missing_code(), "is missing".to_owned()),
            Some(found) if definition.is_met_by(found) => continue,
            Some(found) if class == ObjectClass::Extensions => {
                let facts = format!("version {} expected, {} found", definition.digest, found.digest);
                if is_newer(&found.digest, &definition.digest) {
                    // A newer minor of the extension is what a restore on a maintained host gets; say it, pass it.
                    newer.push(format!("{} {facts}", printable(name)));
                    continue;
                }
                (class.differs_code(), facts)
            }
            Some(_) => (class.differs_code(), "is defined otherwise".to_owned()),
        };
        findings.push(Finding::new(code, printable(name), facts));
    }
    for name in observed.keys().filter(|name| !expected.contains_key(*name)) {
        findings.push(Finding::new(class.missing_code(), printable(name), "is not in the witness"));
    }
    let mut detail = format!("{} expected, {} found", expected.len(), observed.len());
    if !newer.is_empty() {
        detail = format!("{detail}; newer than recorded: {}", listed(&newer));
    }
    if !findings.is_empty() {
        let names: Vec<String> = findings.iter().map(|finding| finding.subject.clone()).collect();
        detail = format!("{detail}; {} differ: {}", names.len(), listed(&names));
    }
    report(class.check(), detail, findings)
}

/// Whether dotted version `found` is newer than `expected`; what is not made of numbers is never newer.
fn is_newer(found: &str, expected: &str) -> bool {
    let numbers =
        |text: &str| text.split('.').map(|part| part.parse::<u64>().ok()).collect::<Option<Vec<_>>>();
    match (numbers(found), numbers(expected)) {
        (Some(found), Some(expected)) => found > expected,
        _ => false,
    }
}

fn compare_digests(
    check: &str,
    what: &str,
    code: FindingCode,
    expected: &BTreeMap<String, String>,
    observed: &BTreeMap<String, String>,
) -> CheckReport {
    let mut findings = Vec::new();
    for (name, digest) in expected {
        let facts = match observed.get(name) {
            None => "is missing",
            Some(found) if found == digest => continue,
            Some(_) => "differs",
        };
        findings.push(Finding::new(code, printable(name), format!("{what} {facts}")));
    }
    for name in observed.keys().filter(|name| !expected.contains_key(*name)) {
        findings.push(Finding::new(code, printable(name), format!("{what} is not in the witness")));
    }
    let detail = format!("{} expected, {} found", expected.len(), observed.len());
    report(check.to_owned(), detail, findings)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn witness() -> PostgresWitness {
        let table = TableFacts { rows: 3, sums: ["10".to_owned(), "-4".to_owned()], bytes: 8192 };
        PostgresWitness {
            version: VERSION,
            server: ServerFacts {
                system_identifier: "7000".to_owned(),
                version_num: 150_018,
                version: "15.18".to_owned(),
                bootstrap_role: "postgres".to_owned(),
            },
            snapshot: SnapshotFacts { at: Timestamp::UNIX_EPOCH, lsn: "0/0".to_owned(), on_standby: false },
            scope: Scope {
                dump_version: "15.18".to_owned(),
                dump_options: Vec::new(),
                exclude_schemas: Vec::new(),
                exclude_tables: Vec::new(),
                notes: Vec::new(),
            },
            database: DatabaseFacts {
                name: "shop".to_owned(),
                encoding: "UTF8".to_owned(),
                collate: "C".to_owned(),
                ctype: "C".to_owned(),
                provider: "libc".to_owned(),
                locale: None,
                icu_rules: None,
                collation_version: None,
                owner: "shop".to_owned(),
                connection_limit: -1,
                grants: vec!["PUBLIC=CONNECT".to_owned()],
                comment: None,
                size_bytes: 1,
                parameters: None,
                mappings: None,
            },
            tables: BTreeMap::from([("public.a".to_owned(), table)]),
            objects: BTreeMap::from([(
                ObjectClass::Indexes,
                BTreeMap::from([("public.a_idx".to_owned(), Definition::certain("d"))]),
            )]),
            sequences: BTreeMap::new(),
            large_objects: LargeObjectFacts::default(),
            roles: BTreeMap::from([("shop".to_owned(), "r".to_owned())]),
            settings: BTreeMap::new(),
            may_be_empty: false,
            beside: BTreeMap::new(),
            physical: None,
        }
    }

    fn codes(expected: &PostgresWitness, observed: &PostgresWitness) -> Vec<FindingCode> {
        let reports = expected.compare(observed);
        let names: Vec<String> = reports.iter().map(|report| report.name.clone()).collect();
        assert_eq!(names, expected.checks(), "the executed list is the derived list");
        reports.iter().flat_map(|report| report.findings.iter().map(|finding| finding.code)).collect()
    }

    #[test]
    fn a_witness_equals_itself() {
        assert_eq!(codes(&witness(), &witness()), []);
        assert!(witness().compare(&witness()).iter().all(|report| report.outcome == CheckOutcome::Passed));
    }

    #[test]
    fn each_difference_has_its_code() {
        let expected = witness();
        let mut counted = witness();
        counted.tables.get_mut("public.a").unwrap().rows = 2;
        assert_eq!(codes(&expected, &counted), [FindingCode::RowCount]);
        let mut content = witness();
        content.tables.get_mut("public.a").unwrap().sums[1] = "-5".to_owned();
        assert_eq!(codes(&expected, &content), [FindingCode::RowContent]);
        let mut missing = witness();
        missing.tables.clear();
        assert_eq!(codes(&expected, &missing), [FindingCode::RelationMissing]);
        let mut extra = witness();
        let table = extra.tables["public.a"].clone();
        extra.tables.insert("public.b".to_owned(), table);
        assert_eq!(codes(&expected, &extra), [FindingCode::RelationMissing]);
        let mut index = witness();
        index.objects.clear();
        assert_eq!(codes(&expected, &index), [FindingCode::ConstraintOrIndex]);
        let mut roles = witness();
        roles.roles.clear();
        assert_eq!(codes(&expected, &roles), [FindingCode::OwnersOrGrants]);
        let mut encoding = witness();
        encoding.database.encoding = "LATIN1".to_owned();
        assert_eq!(codes(&expected, &encoding), [FindingCode::EncodingOrLocale]);
        let mut objects = witness();
        objects.large_objects.count = 1;
        assert_eq!(codes(&expected, &objects), [FindingCode::LargeObjects]);
    }

    #[test]
    fn an_empty_database_is_implausible_unless_declared() {
        let mut empty = witness();
        empty.tables.clear();
        assert_eq!(codes(&empty, &empty), [FindingCode::PointImplausible]);
        empty.may_be_empty = true;
        assert_eq!(codes(&empty, &empty), []);
    }

    #[test]
    fn another_major_is_inconclusive_and_never_equal() {
        let mut other = witness();
        other.server.version_num = 160_001;
        let reports = witness().compare(&other);
        assert!(reports.iter().all(|report| report.outcome == CheckOutcome::Inconclusive));
    }

    #[test]
    fn what_earlier_witnesses_do_not_say_is_compared_only_between_those_that_do() {
        let mapping = "mapping of shop on far";
        let with = |parameters: Option<&[&str]>, options: Option<Option<&[&str]>>| {
            let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
            let mut witness = witness();
            witness.database.parameters = parameters.map(texts);
            witness.database.mappings =
                options.map(|options| BTreeMap::from([(mapping.to_owned(), options.map(texts))]));
            witness
        };
        let (before, none) = (with(None, None), with(Some(&[]), Some(Some(&[]))));
        let (granted, hidden) =
            (with(Some(&["work_mem: a=SET"]), Some(Some(&["password", "user"]))), with(None, Some(None)));
        for (expected, observed) in [
            (&before, &granted),
            (&granted, &before),
            (&hidden, &granted),
            (&granted, &hidden),
            (&granted, &granted),
        ] {
            assert_eq!(codes(expected, observed), []);
        }
        let both = [FindingCode::DefinitionDiffers, FindingCode::OwnersOrGrants];
        assert_eq!(codes(&granted, &none), both);
        assert_eq!(codes(&none, &granted), both);
        let reports = granted.compare(&none);
        let wrong: Vec<&str> = reports
            .iter()
            .filter(|report| report.outcome == CheckOutcome::Failed)
            .map(|report| &*report.name)
            .collect();
        assert_eq!(wrong, ["objects:foreign-servers", "database"]);
        // A receipt of an earlier version reads back as it was.
        let text = serde_json::to_string(&before).unwrap();
        assert!(!text.contains("parameters") && !text.contains("mappings"), "{text}");
    }

    #[test]
    fn a_newer_extension_passes_and_an_older_one_does_not() {
        let with = |version: &str| {
            let mut witness = witness();
            let extension = BTreeMap::from([("hstore".to_owned(), Definition::certain(version))]);
            witness.objects.insert(ObjectClass::Extensions, extension);
            witness
        };
        assert_eq!(codes(&with("1.9"), &with("1.10")), []);
        assert_eq!(codes(&with("1.10"), &with("1.9")), [FindingCode::Extension]);
    }

    #[test]
    fn a_definition_that_changed_during_the_dump_may_have_either_form() {
        let mut expected = witness();
        let changed = Definition { digest: "d".to_owned(), other: Some("e".to_owned()), may_be_absent: true };
        expected.objects.insert(ObjectClass::Indexes, BTreeMap::from([("public.a_idx".to_owned(), changed)]));
        let mut second = witness();
        second.objects.get_mut(&ObjectClass::Indexes).unwrap().get_mut("public.a_idx").unwrap().digest =
            "e".to_owned();
        assert_eq!(codes(&expected, &second), []);
        let mut gone = witness();
        gone.objects.clear();
        assert_eq!(codes(&expected, &gone), []);
    }

    #[test]
    fn a_sequence_may_stand_anywhere_it_stood_during_the_dump() {
        let at = |last_value, is_called| SequencePosition { last_value, is_called };
        let mut bracket =
            SequenceBracket { before: at(5, true), after: at(9, true), cycles: false, increment: 1 };
        assert!(bracket.covers(at(5, true)) && bracket.covers(at(7, true)) && bracket.covers(at(9, true)));
        assert!(
            !bracket.covers(at(4, true)) && !bracket.covers(at(5, false)) && !bracket.covers(at(10, true))
        );
        bracket = SequenceBracket { before: at(-5, true), after: at(-9, true), cycles: false, increment: -1 };
        assert!(
            bracket.covers(at(-7, true)) && !bracket.covers(at(-4, true)) && !bracket.covers(at(-5, false))
        );
        bracket = SequenceBracket { before: at(98, true), after: at(3, true), cycles: true, increment: 1 };
        assert!(bracket.covers(at(99, true)) && bracket.covers(at(1, true)) && !bracket.covers(at(50, true)));
        let still = SequenceBracket::still(at(1, false), false, 1);
        assert!(still.covers(at(1, false)) && !still.covers(at(1, true)));
        // The next value is the same, and the state is another one.
        assert!(!SequenceBracket::still(at(5, true), false, 1).covers(at(6, false)));
        // Only a step below zero descends.
        bracket = SequenceBracket { before: at(5, true), after: at(9, true), cycles: false, increment: 0 };
        assert!(bracket.covers(at(7, true)) && !bracket.covers(at(4, true)));
    }

    #[test]
    fn hostile_names_stay_on_their_line() {
        assert_eq!(printable("a\nb\u{202e}\"é😀"), "a\\nb\\u{202e}\"é😀");
    }

    /// What every check says that did not pass, word for word.
    fn told(change: impl FnOnce(&mut PostgresWitness)) -> Vec<String> {
        let mut observed = witness();
        change(&mut observed);
        compared(&witness(), &observed)
    }

    fn compared(expected: &PostgresWitness, observed: &PostgresWitness) -> Vec<String> {
        crate::witness::report::told(expected.compare(observed))
    }

    #[test]
    fn a_difference_is_told_with_what_is_and_what_was() {
        fn database(change: fn(&mut DatabaseFacts)) -> Vec<String> {
            told(|w| change(&mut w.database))
        }
        assert_eq!(
            told(|w| w.tables.clear()),
            ["rows:public.a Failed CT-03 public.a: was not restored; 3 rows expected"]
        );
        assert_eq!(
            told(|w| w.tables.get_mut("public.a").unwrap().rows = 2),
            ["rows:public.a Failed CT-01 public.a: 3 rows expected, 2 found"]
        );
        assert_eq!(
            told(|w| w.tables.get_mut("public.a").unwrap().sums[0] = "11".to_owned()),
            ["rows:public.a Failed CT-02 public.a: 3 rows as expected, but their content differs"]
        );
        let other = TableFacts { rows: 1, sums: ["1".to_owned(), "1".to_owned()], bytes: 0 };
        assert_eq!(
            told(|w| drop(w.tables.insert("public.b".to_owned(), other))),
            ["objects:tables Failed CT-03 public.b: holds rows in the restore and is not in the witness"]
        );
        assert_eq!(told(|w| w.objects.clear()), ["objects:indexes Failed CT-05 public.a_idx: is missing"]);
        let defined =
            |digest: &str| BTreeMap::from([("public.a_idx".to_owned(), Definition::certain(digest))]);
        assert_eq!(
            told(|w| drop(w.objects.insert(ObjectClass::Indexes, defined("e")))),
            ["objects:indexes Failed CT-05 public.a_idx: is defined otherwise"]
        );
        assert_eq!(
            told(|w| drop(w.objects.insert(ObjectClass::Views, defined("e")))),
            ["objects:views Failed CT-03 public.a_idx: is not in the witness"]
        );
        assert_eq!(told(|w| w.roles.clear()), ["roles Failed CT-11 shop: role is missing"]);
        assert_eq!(
            told(|w| drop(w.roles.insert("shop".to_owned(), "s".to_owned()))),
            ["roles Failed CT-11 shop: role differs"]
        );
        assert_eq!(
            told(|w| drop(w.roles.insert("new".to_owned(), "s".to_owned()))),
            ["roles Failed CT-11 new: role is not in the witness"]
        );
        assert_eq!(
            told(|w| drop(w.settings.insert("work_mem".to_owned(), "s".to_owned()))),
            ["settings Failed CT-16 work_mem: setting is not in the witness"]
        );
        assert_eq!(
            database(|d| d.encoding = "LATIN1".to_owned()),
            ["database Failed CT-14 shop: encoding: expected UTF8, found LATIN1"]
        );
        assert_eq!(
            database(|d| d.collate = "x".to_owned()),
            ["database Failed CT-14 shop: collate: expected C, found x"]
        );
        assert_eq!(
            database(|d| d.ctype = "x".to_owned()),
            ["database Failed CT-14 shop: ctype: expected C, found x"]
        );
        assert_eq!(
            database(|d| d.provider = "icu".to_owned()),
            ["database Failed CT-14 shop: locale provider: expected libc, found icu"]
        );
        assert_eq!(
            database(|d| d.locale = Some("de".to_owned())),
            ["database Failed CT-14 shop: locale: expected none, found de"]
        );
        assert_eq!(
            database(|d| d.icu_rules = Some("&a\n".to_owned())),
            ["database Failed CT-14 shop: ICU rules: expected none, found &a\\n"]
        );
        assert_eq!(
            database(|d| d.owner = "eve".to_owned()),
            ["database Failed CT-11 shop: owner: expected shop, found eve"]
        );
        assert_eq!(
            database(|d| d.grants.clear()),
            ["database Failed CT-11 shop: grants: expected PUBLIC=CONNECT, found "]
        );
        assert_eq!(
            database(|d| d.connection_limit = 5),
            ["database Failed CT-16 shop: connection limit: expected -1, found 5"]
        );
        assert_eq!(
            database(|d| d.comment = Some("5e".to_owned())),
            ["database Failed CT-16 shop: comment (SHA-256): expected none, found 5e"]
        );
        assert_eq!(database(|d| d.collation_version = Some("2.36".to_owned())), Vec::<String>::new());
    }

    #[test]
    fn what_was_compared_is_counted() {
        let details: Vec<String> =
            witness().compare(&witness()).into_iter().map(|report| report.detail).collect();
        assert_eq!(details[0], "3 rows expected, 3 found; content equal");
        assert_eq!(details[1], "0 expected, 0 found");
        assert_eq!(details[8], "1 expected, 1 found");
        assert_eq!(
            details[24..],
            [
                "0 sequences, 0 of them in use during the backup",
                "0 large objects with 0 bytes expected, 0 with 0 bytes found",
                "1 expected, 1 found",
                "encoding UTF8, collate C, ctype C, provider libc; 1 tables with 3 rows",
                "0 expected, 0 found",
            ]
        );
        let many = |digest: &str| {
            let mut witness = witness();
            let all = (0..25).map(|n| (format!("i{n:02}"), Definition::certain(digest))).collect();
            witness.objects.insert(ObjectClass::Indexes, all);
            witness
        };
        let report = many("d").compare(&many("e")).swap_remove(8);
        let named: Vec<String> = (0..NAMED_MAX).map(|n| format!("i{n:02}")).collect();
        assert_eq!(
            report.detail,
            format!("25 expected, 25 found; 25 differ: {} and 17 more", named.join(", "))
        );
        let eight = |digest: &str| {
            let mut witness = many(digest);
            let indexes = witness.objects.get_mut(&ObjectClass::Indexes).unwrap();
            indexes.retain(|name, _| name.as_str() < "i08");
            witness
        };
        let report = eight("d").compare(&eight("e")).swap_remove(8);
        assert!(report.detail.ends_with("i06, i07"), "{}", report.detail);
        let other = witness().compare(&{
            let mut other = witness();
            other.tables.get_mut("public.a").unwrap().sums[1] = "0".to_owned();
            other
        });
        assert_eq!(other[0].detail, "3 rows expected, 3 found; content different");
        let gone = witness().compare(&PostgresWitness { tables: BTreeMap::new(), ..witness() });
        assert_eq!(gone[0].detail, "the table is missing");
    }

    #[test]
    fn a_table_that_nobody_knows_is_told_once() {
        let mut observed = witness();
        let table = observed.tables["public.a"].clone();
        observed.tables.insert("public.b".to_owned(), table);
        let defined = BTreeMap::from([("public.b".to_owned(), Definition::certain("d"))]);
        observed.objects.insert(ObjectClass::Tables, defined);
        assert_eq!(
            compared(&witness(), &observed),
            ["objects:tables Failed CT-03 public.b: is not in the witness"]
        );
        let table = observed.tables["public.a"].clone();
        observed.tables.insert("public.c".to_owned(), table);
        assert_eq!(compared(&witness(), &observed).len(), 2);
    }

    #[test]
    fn sequences_are_told_where_they_stand_and_stood() {
        let at = |last_value, is_called| SequencePosition { last_value, is_called };
        let with = |sequences: &[(&str, SequenceBracket)]| {
            let sequences = sequences.iter().map(|(name, bracket)| ((*name).to_owned(), *bracket)).collect();
            PostgresWitness { sequences, ..witness() }
        };
        let moving =
            SequenceBracket { before: at(5, true), after: at(9, false), cycles: false, increment: 1 };
        let still = SequenceBracket::still(at(7, true), false, 1);
        let expected = with(&[("a", moving), ("b", still)]);
        assert_eq!(compared(&expected, &with(&[("a", still), ("b", still)])), Vec::<String>::new());
        let detail = expected.compare(&expected).swap_remove(24).detail;
        assert_eq!(detail, "2 sequences, 1 of them in use during the backup");
        let wrong = SequenceBracket::still(at(4, false), false, 1);
        assert_eq!(
            compared(&expected, &with(&[("a", wrong), ("c", still)])),
            [
                "sequences Failed CT-07 a: stands at 4 (called: false); at the backup it stood between 5 (called: true) and 9 (called: false)",
                "sequences Failed CT-07 b: is missing",
                "sequences Failed CT-07 c: is not in the witness",
            ]
        );
    }

    #[test]
    fn a_bracket_is_closed_on_both_sides_whichever_way_a_sequence_runs() {
        let at = |last_value, is_called| SequencePosition { last_value, is_called };
        let covered = |before: i64, after: i64, cycles: bool, increment: i64, stands: i64| {
            SequenceBracket { before: at(before, true), after: at(after, true), cycles, increment }
                .covers(at(stands, true))
        };
        let from_to = |before, after, cycles, increment| -> Vec<i64> {
            (-12..=12).filter(|stands| covered(before, after, cycles, increment, *stands)).collect()
        };
        assert_eq!(from_to(3, 6, false, 1), [3, 4, 5, 6]);
        assert_eq!(from_to(-3, -6, false, -2), [-6, -5, -4, -3]);
        // Set back while the dump ran.
        assert_eq!(from_to(6, 3, false, 1), [3, 4, 5, 6]);
        assert_eq!(from_to(10, -11, true, 1), [-12, -11, 10, 11, 12]);
        assert_eq!(from_to(-10, 11, true, -1), [-12, -11, -10, 11, 12]);
        assert_eq!(from_to(5, 5, false, 0), [5]);
        let least = SequenceBracket::still(at(i64::MIN, true), false, -1);
        assert!(least.covers(at(i64::MIN, true)) && !least.covers(at(0, true)));
    }

    #[test]
    fn large_objects_are_told_by_number_where_they_are_few() {
        let facts = |each: &[(u32, &str, &str)]| LargeObjectFacts {
            count: each.len() as u64,
            bytes: 10,
            content: each.iter().map(|one| one.1).collect(),
            metadata: each.iter().map(|one| one.2).collect(),
            each: each.iter().map(|one| (one.0, [one.1.to_owned(), one.2.to_owned()])).collect(),
        };
        let of = |was: LargeObjectFacts, is: LargeObjectFacts| {
            let with = |large_objects| PostgresWitness { large_objects, ..witness() };
            compared(&with(was), &with(is))
        };
        let was = || facts(&[(7, "a", "x"), (8, "b", "x")]);
        assert_eq!(of(was(), was()), Vec::<String>::new());
        let begin = "large-objects Failed CT-10 large objects: ";
        let two = "2 large objects with 10 bytes expected, 2 with 10 bytes found";
        assert_eq!(of(was(), facts(&[(7, "a", "x"), (8, "c", "x")])), [format!("{begin}{two}: 8")]);
        assert_eq!(
            of(was(), facts(&[(7, "a", "x"), (8, "b", "y")])),
            [format!("{begin}owner, grants or comment differ: 8")]
        );
        assert_eq!(
            of(was(), facts(&[(7, "a", "x")])),
            [format!("{begin}2 large objects with 10 bytes expected, 1 with 10 bytes found: 8")]
        );
        assert_eq!(
            of(was(), facts(&[(7, "a", "x"), (9, "b", "x")])),
            Vec::<String>::new(),
            "their digests are equal"
        );
        let nameless = LargeObjectFacts { each: BTreeMap::new(), ..was() };
        let shorter = LargeObjectFacts { bytes: 9, ..nameless.clone() };
        assert_eq!(
            of(nameless, shorter),
            [format!("{begin}2 large objects with 10 bytes expected, 2 with 9 bytes found")]
        );
        let new = facts(&[(7, "a", "x"), (8, "b", "x"), (9, "c", "x")]);
        assert!(of(was(), new)[0].ends_with(": 9"));
    }

    #[test]
    fn another_shape_or_major_is_told_and_never_compared() {
        let mut other = witness();
        other.version += 1;
        let told = compared(&witness(), &other);
        assert_eq!(told.len(), witness().checks().len());
        let words = |version: u32, shape: u32, major: u32, other: u32| {
            format!(
                "rows:public.a Inconclusive ENV-BINARY rows:public.a: a witness of PostgreSQL {version} (shape {shape}) \
                 cannot be compared with one of {major} (shape {other})"
            )
        };
        assert_eq!(told[0], words(15, VERSION, 15, VERSION + 1));
        let mut newer = witness();
        newer.server.version_num = 160_001;
        assert_eq!(compared(&witness(), &newer)[0], words(15, VERSION, 16, VERSION));
    }

    #[test]
    fn versions_of_extensions_are_numbers_with_dots() {
        assert!(is_newer("1.10", "1.9") && is_newer("2", "1.9") && is_newer("1.9.1", "1.9"));
        assert!(!is_newer("1.9", "1.9") && !is_newer("1.9", "1.10"));
        assert!(!is_newer("unpackaged", "1.0") && !is_newer("2.0", "1.0dev"));
        let with = |version: &str| {
            let mut witness = witness();
            let extension = BTreeMap::from([("hstore".to_owned(), Definition::certain(version))]);
            witness.objects.insert(ObjectClass::Extensions, extension);
            witness
        };
        let position =
            ObjectClass::ALL.iter().position(|class| *class == ObjectClass::Extensions).unwrap() + 1;
        let newer = with("1.9").compare(&with("1.10")).swap_remove(position);
        assert_eq!(
            newer.detail,
            "1 expected, 1 found; newer than recorded: hstore version 1.9 expected, 1.10 found"
        );
        assert_eq!(
            compared(&with("1.9"), &with("1.8")),
            ["objects:extensions Failed CT-12 hstore: version 1.9 expected, 1.8 found"]
        );
    }

    #[test]
    fn every_class_has_its_word_and_its_codes() {
        let table: Vec<String> = ObjectClass::ALL
            .iter()
            .map(|class| format!("{} {} {}", class.word(), class.missing_code(), class.differs_code()))
            .collect();
        assert_eq!(
            table,
            [
                "schemas CT-03 CT-04",
                "tables CT-03 CT-04",
                "views CT-03 CT-04",
                "materialized-views CT-03 CT-04",
                "types CT-03 CT-04",
                "sequence-definitions CT-03 CT-04",
                "constraints CT-05 CT-05",
                "indexes CT-05 CT-05",
                "triggers CT-17 CT-17",
                "rules CT-17 CT-17",
                "routines CT-17 CT-17",
                "event-triggers CT-17 CT-17",
                "policies CT-11 CT-11",
                "privileges CT-11 CT-11",
                "default-privileges CT-11 CT-11",
                "comments CT-04 CT-04",
                "extensions CT-12 CT-12",
                "operators CT-03 CT-04",
                "text-search CT-03 CT-04",
                "collations CT-03 CT-04",
                "statistics CT-03 CT-04",
                "publications CT-03 CT-04",
                "foreign-servers CT-03 CT-04",
            ]
        );
    }

    #[test]
    fn the_checks_of_a_database_are_its_tables_every_class_and_the_rest() {
        let witness = crate::witness::Witness::Postgres(Box::new(witness()));
        assert_eq!(witness.kind(), "postgres");
        let checks = witness.checks();
        assert_eq!(checks.len(), 1 + ObjectClass::ALL.len() + 5);
        assert_eq!(checks[..3], ["rows:public.a", "objects:schemas", "objects:tables"]);
        assert_eq!(checks[24..], ["sequences", "large-objects", "roles", "database", "settings"]);
    }

    #[test]
    fn an_empty_database_says_how_many_tables_it_has() {
        let mut empty = witness();
        empty.tables.get_mut("public.a").unwrap().rows = 0;
        assert_eq!(
            compared(&empty, &empty),
            [
                "database Failed RP-11 shop: 1 tables with 0 rows in all; if that is right, declare `may_be_empty = true`"
            ]
        );
        assert_eq!(witness().rows(), 3);
        assert_eq!(witness().plausibility(), []);
    }

    #[test]
    fn bytes_that_are_no_utf8_and_marks_of_direction_are_escaped() {
        assert_eq!(printable("a\u{10ff80}\u{10ffff}\u{10ff7f}"), "a\\x80\\xff\u{10ff7f}");
        assert_eq!(
            printable("\u{2028}\u{2029}\u{202a}\u{2027}\u{202f}"),
            "\\u{2028}\\u{2029}\\u{202a}\u{2027}\u{202f}"
        );
    }

    #[test]
    fn certain_definitions_and_uncertain_ones_are_written_as_short_as_they_can_be() {
        let certain = serde_json::to_string(&Definition::certain("d")).unwrap();
        assert_eq!(certain, r#"{"digest":"d"}"#);
        let changed = Definition { digest: "d".to_owned(), other: Some("e".to_owned()), may_be_absent: true };
        let text = serde_json::to_string(&changed).unwrap();
        assert_eq!(text, r#"{"digest":"d","other":"e","may_be_absent":true}"#);
        let again: Definition = serde_json::from_str(&text).unwrap();
        assert_eq!(again, changed);
    }

    #[test]
    fn a_witness_survives_serialisation() {
        let text = serde_json::to_string(&witness()).unwrap();
        assert_eq!(serde_json::from_str::<PostgresWitness>(&text).unwrap(), witness());
    }
}
