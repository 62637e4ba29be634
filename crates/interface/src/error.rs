//! Errors at the doors: a kind for code, words for people, a chain for both.

use std::error::Error;
use std::fmt;

use seaworthy_model::finding::FindingCode;

use crate::cx::Stop;

/// What code may branch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The other side does not answer.
    Unreachable,
    /// The other side refused the credentials.
    Unauthenticated,
    /// The other side knows us and refuses.
    PermissionDenied,
    /// It is not there.
    NotFound,
    /// It is in the way: exists, locked, not empty.
    Conflict,
    /// Somebody else uses it, and will not for ever.
    Busy,
    /// It is there and wrong.
    Corrupt,
    /// It cannot be done with what is installed here.
    Unsupported,
    /// Space, memory or descriptors ran out.
    Exhausted,
    /// The run was stopped.
    Stopped(Stop),
    /// A safety rule forbids it.
    Refused,
    /// It cannot be built upon an earlier copy; one that stands alone can be made.
    Unfollowable,
    /// Anything else.
    Other,
}

impl ErrorKind {
    /// Whether trying again may help. Asked by one retry loop, in the engine.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unreachable | Self::Busy)
    }
}

/// A call at a door that could not be carried out.
#[derive(Debug)]
pub struct DriverError {
    /// For code.
    pub kind: ErrorKind,
    /// What was attempted, on what: `connect to /run/postgresql:5432`. Lower case, no full stop, no secret.
    pub context: String,
    /// What a person can do about it.
    pub hint: Option<String>,
    /// The finding it amounts to in a drill or a backup; `None` lets the engine choose by kind.
    pub code: Option<FindingCode>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl DriverError {
    /// An error of `kind` while attempting `context`.
    #[must_use]
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), hint: None, code: None, source: None }
    }

    /// With its cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// With what a person can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With the finding it amounts to.
    #[must_use]
    pub fn code(mut self, code: FindingCode) -> Self {
        self.code = Some(code);
        self
    }

    /// From an input/output error while attempting `context`; the kind follows from the error's.
    ///
    /// A stream of a copy can only fail with an input/output error. Where that one carries a `DriverError`, what it knows
    /// (kind, code, hint) is kept: a damaged blob stays damage, whoever reads the stream.
    #[must_use]
    pub fn io(context: impl Into<String>, error: std::io::Error) -> Self {
        if let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()) {
            let (kind, code, hint) = (inner.kind, inner.code, inner.hint.clone());
            return Self { code, hint, ..Self::new(kind, context).because(error) };
        }
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            std::io::ErrorKind::AlreadyExists => ErrorKind::Conflict,
            std::io::ErrorKind::StorageFull
            | std::io::ErrorKind::QuotaExceeded
            | std::io::ErrorKind::OutOfMemory => ErrorKind::Exhausted,
            std::io::ErrorKind::ConnectionRefused
            | std::io::ErrorKind::ConnectionReset
            | std::io::ErrorKind::ConnectionAborted
            | std::io::ErrorKind::NotConnected
            | std::io::ErrorKind::TimedOut => ErrorKind::Unreachable,
            _ => ErrorKind::Other,
        };
        Self::new(kind, context).because(error)
    }
}

impl From<Stop> for DriverError {
    fn from(stop: Stop) -> Self {
        Self::new(ErrorKind::Stopped(stop), "stopped")
    }
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)
    }
}

impl Error for DriverError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_stays_damage_on_its_way_through_a_stream() {
        let damaged = DriverError::new(ErrorKind::Corrupt, "read a blob")
            .code(FindingCode::ObjectDamaged)
            .hint("another copy");
        let seen = DriverError::io("copy the stream", std::io::Error::other(damaged));
        assert_eq!(
            (seen.kind, seen.code, seen.hint.as_deref()),
            (ErrorKind::Corrupt, Some(FindingCode::ObjectDamaged), Some("another copy"))
        );
        assert_eq!(seen.context, "copy the stream");
    }
}
