//! The witness: the truth about a source at the backup's own snapshot, so that equality with a restore is exact.
//!
//! Taken by the driver while it captures, and taken again, by the same code, of what was restored. The comparison is
//! pure and lives here, one for each kind: whoever measured a restore asks for it. A witness holds counts, hashes, names and definitions; never a row's value.

pub mod content;
pub mod files;
pub mod physical;
pub mod postgres;
mod report;
pub mod sqlite;

use serde::{Deserialize, Serialize};

pub use files::FilesWitness;
pub use physical::{BaseFacts, Between, FileOfLog, PhysicalFacts, PhysicalSeen};
pub use postgres::PostgresWitness;
pub use sqlite::SqliteWitness;

/// The truth about one source at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
// Adjacent, not internal: an internal tag makes serde keep the members as loose values, in which a map whose keys are
// numbers cannot be read back.
#[serde(rename_all = "kebab-case", tag = "kind", content = "witness")]
pub enum Witness {
    /// Of a PostgreSQL database.
    Postgres(Box<PostgresWitness>),
    /// Of a SQLite database.
    Sqlite(Box<SqliteWitness>),
    /// Of trees of files.
    Files(Box<FilesWitness>),
}

impl Witness {
    /// The kind's word, equal to that of the source's spec.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "postgres",
            Self::Sqlite(_) => "sqlite",
            Self::Files(_) => "files",
        }
    }

    /// Names of the checks that a drill must carry out; the executed list is compared with this one.
    #[must_use]
    pub fn checks(&self) -> Vec<String> {
        match self {
            Self::Postgres(witness) => witness.checks(),
            Self::Sqlite(witness) => witness.checks(),
            Self::Files(witness) => witness.checks(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_witness_is_known_by_the_word_of_its_kind_and_asks_for_the_checks_of_it() {
        let sqlite = SqliteWitness {
            version: 1,
            file: "a".to_owned(),
            image: content::Content::of_pieces([]),
            properties: Default::default(),
            objects: Vec::new(),
            tables: Vec::new(),
            sequences: Default::default(),
            integrity: sqlite::Integrity::Sound,
            orphans: sqlite::Orphans::Counted { by_reference: Default::default() },
            may_be_empty: false,
        };
        let files = FilesWitness {
            version: 2,
            roots: Vec::new(),
            exclude: Vec::new(),
            one_file_system: false,
            may_be_empty: false,
            manifest: files::ManifestAt::Text(String::new()),
            digest: String::new(),
            totals: files::Totals::default(),
            held: Vec::new(),
            left_out: Vec::new(),
            left_out_count: 0,
            problems: Vec::new(),
            problem_count: 0,
        };
        let (of_sqlite, of_files) =
            (Witness::Sqlite(Box::new(sqlite.clone())), Witness::Files(Box::new(files)));
        assert_eq!((of_sqlite.kind(), of_files.kind()), ("sqlite", "files"));
        assert_eq!(of_sqlite.checks(), sqlite.checks());
        assert_eq!(
            of_sqlite.checks(),
            ["image", "properties", "schema", "sequences", "integrity", "foreign-keys"]
        );
        assert_eq!(
            of_files.checks(),
            ["entries", "types-and-links", "content", "metadata", "owners", "hardlinks", "scope"]
        );
    }
}
