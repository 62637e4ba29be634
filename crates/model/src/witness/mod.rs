//! The witness: the truth about a source at the backup's own snapshot, so that equality with a restore is exact.
//!
//! Taken by the driver while it captures, and taken again, by the same code, of what was restored. The comparison is
//! pure and lives here, one for each kind: whoever measured a restore asks for it. A witness holds counts, hashes, names and definitions; never a row's value.

pub mod content;
pub mod files;
pub mod postgres;
mod report;
pub mod sqlite;

use serde::{Deserialize, Serialize};

pub use files::FilesWitness;
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
