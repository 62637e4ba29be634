//! What can go wrong, told apart by who must act on it.
//!
//! Cancelled and out of time are outcomes, not faults: they are [`RepositoryError::Stopped`], and nothing partial is left
//! visible. "Missing", "damaged" and "inconsistent" are different: a missing object may be found elsewhere, a damaged one
//! proves that its storage changed bytes, an inconsistent one that its writer was wrong.

use std::io;
use std::sync::Arc;

use crate::fault::{StoreFault, StoreWords};
use crate::lock::LockHolder;

/// Why a long call ended before its work was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Somebody asked for it.
    Cancelled,
    /// Its deadline passed.
    DeadlineExceeded,
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Stop::Cancelled => "cancelled",
            Stop::DeadlineExceeded => "deadline exceeded",
        })
    }
}

/// What kind of stored thing an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    /// The `config` file.
    Config,
    /// A key file.
    Key,
    /// An index file.
    Index,
    /// A snapshot file.
    Snapshot,
    /// A lock file.
    Lock,
    /// An entry of the journal.
    Journal,
    /// A pack file.
    Pack,
    /// A piece of a file.
    DataBlob,
    /// A directory.
    Tree,
    /// A path inside a snapshot.
    Path,
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Object::Config => "config",
            Object::Key => "key",
            Object::Index => "index",
            Object::Snapshot => "snapshot",
            Object::Lock => "lock",
            Object::Journal => "journal entry",
            Object::Pack => "pack",
            Object::DataBlob => "data blob",
            Object::Tree => "tree",
            Object::Path => "path",
        })
    }
}

/// Every way in which the repository says no.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepositoryError {
    /// There is no repository at this place.
    #[error("no repository at `{location}`")]
    NotFound {
        /// Where it was looked for.
        location: String,
    },
    /// No key file opens with this password.
    #[error("wrong password: none of {tried} keys opens with it")]
    WrongKey {
        /// How many key files were tried.
        tried: usize,
    },
    /// Somebody else holds a lock that excludes ours.
    #[error("repository is locked: {holder}")]
    Locked {
        /// Who holds it.
        holder: Box<LockHolder>,
    },
    /// Something that is referred to is not there.
    #[error("{what} {id} is missing")]
    Missing {
        /// What kind of thing.
        what: Object,
        /// Its name.
        id: String,
    },
    /// Something is there, but its bytes are not what was written.
    #[error("{what} {id} is damaged: {why}")]
    Damaged {
        /// What kind of thing.
        what: Object,
        /// Its name.
        id: String,
        /// What showed it.
        why: String,
    },
    /// Authentic bytes contradict each other, or break a rule of the format.
    #[error("{what} {id} is inconsistent: {why}")]
    Inconsistent {
        /// What kind of thing.
        what: Object,
        /// Its name.
        id: String,
        /// The contradiction.
        why: String,
    },
    /// The repository or the input needs something that is not implemented.
    #[error("unsupported: {what}")]
    Unsupported {
        /// What it needs.
        what: String,
    },
    /// The operating system refused.
    #[error("{action} `{path}`")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The object store refused.
    #[error("{action} `{path}`")]
    Store {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: String,
        /// Why not, in terms to act upon.
        fault: StoreFault,
        /// Why not, in its own words.
        #[source]
        source: StoreWords,
    },
    /// There is no room left, or a quota is reached.
    #[error("no space left: {action} `{path}`")]
    NoSpace {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: String,
    },
    /// Cancelled, or out of time.
    #[error("{0}")]
    Stopped(Stop),
    /// The request itself is not acceptable; nothing was changed.
    #[error("refused: {why}")]
    Refused {
        /// Why.
        why: String,
    },
    /// An earlier failure has made this session or call worthless.
    #[error("an earlier step failed")]
    Failed {
        /// The failure.
        #[source]
        cause: Arc<RepositoryError>,
    },
}

/// The result of nearly everything here.
pub type Result<T, E = RepositoryError> = std::result::Result<T, E>;

impl RepositoryError {
    pub(crate) fn io(action: &'static str, path: impl std::fmt::Display, source: io::Error) -> Self {
        let path = path.to_string();
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Self::NoSpace { action, path };
        }
        Self::Io { action, path, source }
    }

    pub(crate) fn random(source: getrandom::Error) -> Self {
        Self::io("read random bytes from", "the system", io::Error::other(source.to_string()))
    }

    pub(crate) fn refused(why: impl Into<String>) -> Self {
        Self::Refused { why: why.into() }
    }

    pub(crate) fn damaged(what: Object, id: impl std::fmt::Display, why: impl std::fmt::Display) -> Self {
        Self::Damaged { what, id: id.to_string(), why: why.to_string() }
    }

    pub(crate) fn inconsistent(
        what: Object,
        id: impl std::fmt::Display,
        why: impl std::fmt::Display,
    ) -> Self {
        Self::Inconsistent { what, id: id.to_string(), why: why.to_string() }
    }

    pub(crate) fn missing(what: Object, id: impl std::fmt::Display) -> Self {
        Self::Missing { what, id: id.to_string() }
    }

    /// Is this the outcome "stopped on request or out of time"?
    #[must_use]
    pub fn stop(&self) -> Option<Stop> {
        match self {
            Self::Stopped(stop) => Some(*stop),
            Self::Failed { cause } => cause.stop(),
            _ => None,
        }
    }

    /// The first failure behind this one.
    #[must_use]
    pub fn root(&self) -> &RepositoryError {
        match self {
            Self::Failed { cause } => cause.root(),
            other => other,
        }
    }

    /// Could the same request succeed later without anybody changing anything?
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self.root() {
            Self::Locked { .. } => true,
            Self::Store { fault, .. } => fault.is_transient(),
            Self::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::Interrupted | io::ErrorKind::TimedOut | io::ErrorKind::ResourceBusy
            ),
            _ => false,
        }
    }
}
