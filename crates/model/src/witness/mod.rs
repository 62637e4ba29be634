//! The witness: the truth about a source at the backup's own snapshot, so that equality with a restore is exact.
//!
//! Taken by the driver while it captures, and taken again, by the same code, of what was restored. The comparison is
//! pure and lives here. A witness holds counts, hashes, names and definitions; never a row's value.

pub mod content;
pub mod files;
pub mod postgres;
mod report;
pub mod sqlite;

use serde::{Deserialize, Serialize};

use crate::verdict::{CheckOutcome, CheckReport};

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

    /// Compares a restore's witness with this one: one report for each of [`Self::checks`], in that order.
    ///
    /// Witnesses of different kinds cannot be compared: every check is then inconclusive.
    #[must_use]
    pub fn compare(&self, observed: &Self) -> Vec<CheckReport> {
        match (self, observed) {
            (Self::Postgres(expected), Self::Postgres(observed)) => expected.compare(observed),
            (Self::Sqlite(expected), Self::Sqlite(observed)) => expected.compare(observed),
            (Self::Files(expected), Self::Files(observed)) => expected.compare(observed),
            (Self::Postgres(_) | Self::Sqlite(_) | Self::Files(_), other) => self
                .checks()
                .into_iter()
                .map(|name| CheckReport {
                    name,
                    outcome: CheckOutcome::Inconclusive,
                    detail: format!(
                        "a witness of kind {} cannot be compared with one of kind {}",
                        self.kind(),
                        other.kind()
                    ),
                    findings: Vec::new(),
                })
                .collect(),
        }
    }
}
