//! What holds state, and how it is reached. Parsed once; a spec that exists is usable.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::secret::SecretRef;

/// One thing holding state, as the configuration describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum SourceSpec {
    /// A PostgreSQL database, or the cluster that it belongs to.
    Postgres(PostgresSpec),
    /// A SQLite database file.
    Sqlite(SqliteSpec),
    /// Trees of files.
    Files(FilesSpec),
}

impl SourceSpec {
    /// Whether copies hold every moment between them, and not only their own.
    #[must_use]
    pub fn holds_log(&self) -> bool {
        matches!(self, Self::Postgres(spec) if matches!(spec.mode, PostgresMode::Continuous { .. }))
    }

    /// The kind's word: `postgres`, `sqlite`, `files`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "postgres",
            Self::Sqlite(_) => "sqlite",
            Self::Files(_) => "files",
        }
    }
}

/// What of a PostgreSQL server is copied, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PostgresMode {
    /// One database, by `pg_dump`: restored into any server of the same major or a newer one.
    #[default]
    Logical,
    /// The whole cluster, by a base backup and its log: restored as it lies on disk, by the same major.
    Physical,
    /// The whole cluster, by a base backup now and then and, in every other backup, the log since the one before: restored like a
    /// base backup, to its end or to any moment since the base backup.
    Continuous {
        /// A backup takes a new base backup when the last one is older than this: what is restored has so much log to replay at most.
        base_every: SignedDuration,
    },
}

impl PostgresMode {
    /// The word in the configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Logical => "logical",
            Self::Physical => "physical",
            Self::Continuous { .. } => "continuous",
        }
    }

    /// Whether copies are of the whole cluster.
    #[must_use]
    pub fn is_of_cluster(self) -> bool {
        match self {
            Self::Logical => false,
            Self::Physical | Self::Continuous { .. } => true,
        }
    }
}

/// How a PostgreSQL database is reached and what of it is copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresSpec {
    /// Host name, address, or absolute directory of a Unix socket.
    pub host: String,
    /// Port; also the suffix of the socket's name.
    pub port: u16,
    /// Role that reads.
    pub user: String,
    /// What is copied, and how.
    #[serde(default)]
    pub mode: PostgresMode,
    /// Database; a name, never a connection string (no `=`, no `://`, no leading `-`).
    pub database: String,
    /// Where the password is to be had; none for peer or trust authentication.
    pub password: Option<SecretRef>,
    /// Whether TLS is required. Plain TCP is refused except to loopback.
    pub tls: Tls,
    /// Schemas left out on purpose; recorded in the witness as declared scope.
    pub exclude_schemas: Vec<String>,
    /// Tables left out on purpose, `schema.table`; recorded in the witness as declared scope.
    pub exclude_tables: Vec<String>,
    /// Longest wait for a table lock.
    pub lock_timeout: SignedDuration,
    /// Directory with the client's binaries; searched for where omitted.
    pub bin_dir: Option<String>,
    /// Whether an empty database is healthy.
    pub may_be_empty: bool,
}

/// Transport security.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tls {
    /// Unix socket or loopback only.
    LocalOnly,
    /// Certificate and host name verified.
    VerifyFull,
}

/// Where a SQLite database lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqliteSpec {
    /// Absolute path of the database file.
    pub path: String,
    /// Longest wait for a busy database.
    pub busy_timeout: SignedDuration,
    /// Whether a database without rows is healthy.
    pub may_be_empty: bool,
}

/// Which trees of files are copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesSpec {
    /// Absolute paths of the roots.
    pub paths: Vec<String>,
    /// Glob patterns left out on purpose, matched against the path below its root; recorded in the witness.
    pub exclude: Vec<String>,
    /// Whether to stay on each root's file system.
    pub one_file_system: bool,
    /// Whether an empty tree is healthy.
    pub may_be_empty: bool,
}
