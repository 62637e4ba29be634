//! How a caller stops a long call and watches it.
//!
//! Every long call takes a [`Control`]; every wait inside looks at it at least ten times a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::error::{RepositoryError, Result, Stop};

/// The longest time for which any wait goes without asking whether it should stop.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// The time of a small act: see [`Control::brief`].
pub(crate) const BRIEF: Duration = Duration::from_secs(30);

/// What a long call has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Files finished.
    pub files: u64,
    /// Bytes of content finished.
    pub bytes: u64,
    /// Files expected in all, when known.
    pub files_total: Option<u64>,
    /// Bytes expected in all, when known.
    pub bytes_total: Option<u64>,
}

/// Cancellation, deadline and progress of one call.
#[derive(Clone, Default)]
pub struct Control {
    /// Cancelling this stops the call.
    pub cancel: CancellationToken,
    /// The call stops at this instant.
    pub deadline: Option<Instant>,
    /// Called from time to time, from any thread.
    pub progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control")
            .field("cancelled", &self.cancel.is_cancelled())
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl Control {
    /// A control that never stops anything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, with an end.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Returns the outcome `Stopped` once the caller cancelled or the deadline passed.
    pub fn check(&self) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(RepositoryError::Stopped(Stop::Cancelled));
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(RepositoryError::Stopped(Stop::DeadlineExceeded));
        }
        Ok(())
    }

    /// The same deadline and progress, with a cancellation of its own that this one's cancellation implies.
    pub(crate) fn child(&self) -> Self {
        Self { cancel: self.cancel.child_token(), deadline: self.deadline, progress: self.progress.clone() }
    }

    /// For small acts that must happen even when the caller has stopped, such as removing a lock; a store that hangs does
    /// not hold them for ever.
    pub(crate) fn brief() -> Self {
        Self::new().with_deadline(Instant::now() + BRIEF)
    }

    pub(crate) fn report(&self, progress: Progress) {
        if let Some(report) = &self.progress {
            report(progress);
        }
    }
}
