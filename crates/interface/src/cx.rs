//! The context of a long call: cancellation, deadline, progress. Not `Clone`: a driver cannot keep one past its call.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Why a call ended before its work did: an outcome of the run, not a fault of the system under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Stop {
    /// Somebody asked for it.
    #[error("cancelled")]
    Cancelled,
    /// Its time was up.
    #[error("deadline exceeded")]
    DeadlineExceeded,
}

/// How far a call has come. Numbers with units; rate and remaining time are the reader's arithmetic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A named phase has begun.
    Phase(String),
    /// Bytes of the source or of the copy.
    Bytes {
        /// Bytes done.
        done: u64,
        /// Bytes in all, where known.
        total: Option<u64>,
    },
    /// Items: files, tables, checks.
    Items {
        /// Items done.
        done: u64,
        /// Items in all, where known.
        total: Option<u64>,
    },
}

/// Receives progress. Must not block.
pub type ProgressSink = Arc<dyn Fn(Progress) + Send + Sync>;

/// What every long call is given, first. Nothing stores one.
pub struct Cx {
    cancel: CancellationToken,
    deadline: Option<Instant>,
    progress: ProgressSink,
}

impl std::fmt::Debug for Cx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cx")
            .field("cancelled", &self.cancel.is_cancelled())
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl Cx {
    /// A context that ends when `cancel` is cancelled.
    #[must_use]
    pub fn new(cancel: CancellationToken, progress: ProgressSink) -> Self {
        Self { cancel, deadline: None, progress }
    }

    /// A context for tests and short tools: never cancelled, progress dropped.
    #[must_use]
    pub fn unbounded() -> Self {
        Self::new(CancellationToken::new(), Arc::new(|_| {}))
    }

    /// A narrower context: never later than this one's deadline, cancelled with it.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        let until = Instant::now() + limit;
        let deadline = self.deadline.map_or(until, |outer| outer.min(until));
        Self {
            cancel: self.cancel.child_token(),
            deadline: Some(deadline),
            progress: Arc::clone(&self.progress),
        }
    }

    /// A context that is cancelled with this one, and can be cancelled alone through the returned token.
    #[must_use]
    pub fn child(&self) -> (Self, CancellationToken) {
        let token = self.cancel.child_token();
        (Self { cancel: token.clone(), deadline: self.deadline, progress: Arc::clone(&self.progress) }, token)
    }

    /// Runs `work` until it ends, the deadline passes, or the run is cancelled. `work` is dropped when it is stopped.
    pub async fn run<T>(&self, work: impl Future<Output = T>) -> Result<T, Stop> {
        let until = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Stop::Cancelled),
            () = until => Err(Stop::DeadlineExceeded),
            result = work => Ok(result),
        }
    }

    /// Whether to stop now: for loops that do not wait.
    pub fn check(&self) -> Result<(), Stop> {
        if self.cancel.is_cancelled() {
            return Err(Stop::Cancelled);
        }
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(Stop::DeadlineExceeded),
            _ => Ok(()),
        }
    }

    /// Tells how far the call has come.
    pub fn progress(&self, progress: Progress) {
        (self.progress)(progress);
    }

    /// Tells that a named phase has begun.
    pub fn phase(&self, name: impl Into<String>) {
        self.progress(Progress::Phase(name.into()));
    }

    /// The token that blocking work, which cannot hold a `Cx`, must watch.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// The instant by which the call must have ended.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The receiver of progress, for blocking work.
    #[must_use]
    pub fn sink(&self) -> ProgressSink {
        Arc::clone(&self.progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_narrower_context_never_outlives_its_parent() {
        let outer = Cx::unbounded().within(Duration::from_secs(5));
        let inner = outer.within(Duration::from_secs(60));
        assert_eq!(inner.run(std::future::pending::<()>()).await, Err(Stop::DeadlineExceeded));
        assert!(outer.check().is_err());
    }

    #[tokio::test]
    async fn cancelling_a_child_leaves_its_parent() {
        let outer = Cx::unbounded();
        let (inner, token) = outer.child();
        token.cancel();
        assert_eq!(inner.check(), Err(Stop::Cancelled));
        assert_eq!(outer.check(), Ok(()));
    }
}
