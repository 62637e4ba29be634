//! Bridges the store and the doors: a session of the repository is a [`CopyWriter`], a snapshot of it a [`CopyReader`].
//!
//! The repository blocks; whoever calls it from here does so on a blocking thread.

use seaworthy_interface::{Cx, DriverError, ErrorKind, Progress, Stop};
use seaworthy_model::finding::FindingCode;
use seaworthy_repository::{Control, RepositoryError};
use std::sync::Arc;

/// What the repository is given of a context.
#[must_use]
pub fn control(cx: &Cx) -> Control {
    let sink = cx.sink();
    Control {
        cancel: cx.token(),
        deadline: cx.deadline().map(tokio::time::Instant::into_std),
        progress: Some(Arc::new(move |progress: seaworthy_repository::Progress| {
            sink(Progress::Bytes { done: progress.bytes, total: progress.bytes_total });
        })),
    }
}

/// An error of the repository at a door: its kind, its code, and what a person can do.
#[must_use]
pub fn driver_error(context: impl Into<String>, error: RepositoryError) -> DriverError {
    let context = context.into();
    let (kind, code, hint) = classify(&error);
    let mut at_door = DriverError::new(kind, context).because(error);
    if let Some(code) = code {
        at_door = at_door.code(code);
    }
    if let Some(hint) = hint {
        at_door = at_door.hint(hint);
    }
    at_door
}

fn classify(error: &RepositoryError) -> (ErrorKind, Option<FindingCode>, Option<&'static str>) {
    match error {
        RepositoryError::NotFound { .. } => {
            (ErrorKind::NotFound, Some(FindingCode::EnvOther), Some("check the location, or make the repository with `seaworthy init`"))
        }
        RepositoryError::WrongKey { .. } => (ErrorKind::Unauthenticated, Some(FindingCode::WrongKey), Some("check the reference of the repository's password")),
        RepositoryError::Locked { .. } => {
            (ErrorKind::Conflict, Some(FindingCode::EnvOther), Some("wait for its holder; if it is gone, `restic unlock` removes locks of dead processes"))
        }
        RepositoryError::Missing { .. } => (ErrorKind::NotFound, Some(FindingCode::ObjectMissing), None),
        RepositoryError::Damaged { .. } => (ErrorKind::Corrupt, Some(FindingCode::ObjectDamaged), None),
        RepositoryError::Inconsistent { .. } => (ErrorKind::Corrupt, Some(FindingCode::IndexInconsistent), None),
        RepositoryError::Unsupported { .. } => (ErrorKind::Unsupported, Some(FindingCode::EnvOther), None),
        RepositoryError::NoSpace { .. } => (ErrorKind::Exhausted, Some(FindingCode::NoSpace), Some("free space, or move the repository or the scratch directory")),
        RepositoryError::Stopped(stop) => (ErrorKind::Stopped(stopped(*stop)), None, None),
        RepositoryError::Refused { .. } => (ErrorKind::Refused, Some(FindingCode::EnvOther), None),
        RepositoryError::Failed { cause } => classify(cause),
        RepositoryError::Io { .. } | RepositoryError::Store { .. } => (ErrorKind::Other, Some(FindingCode::ReadFailed), None),
        // The repository may learn new ways to say no; each of them is an error that blames nobody until it is named here.
        _ => (ErrorKind::Other, Some(FindingCode::EnvOther), None),
    }
}

fn stopped(stop: seaworthy_repository::Stop) -> Stop {
    match stop {
        seaworthy_repository::Stop::Cancelled => Stop::Cancelled,
        seaworthy_repository::Stop::DeadlineExceeded => Stop::DeadlineExceeded,
    }
}

/// Where the witness lies in every copy.
pub const WITNESS_PATH: &str = ".seaworthy/witness.json";
