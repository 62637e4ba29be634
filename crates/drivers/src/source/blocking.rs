//! Blocking work under a [`Cx`]: told to stop by token and deadline, and joined.

use std::time::Duration;

use seaworthy_interface::cx::{ProgressSink, Stop};
use seaworthy_interface::{Cx, DriverError, ErrorKind, Progress};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a stopped thread may take to notice: it looks between reads of at most a few mebibytes.
const GRACE: Duration = Duration::from_secs(5);

/// What blocking work, which cannot hold a [`Cx`], looks at.
#[derive(Clone)]
pub(crate) struct Watch {
    token: CancellationToken,
    deadline: Option<Instant>,
    sink: ProgressSink,
}

impl Watch {
    /// Whether to stop now.
    pub(crate) fn check(&self) -> Result<(), Stop> {
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(Stop::DeadlineExceeded),
            Some(_) | None if self.token.is_cancelled() => Err(Stop::Cancelled),
            Some(_) | None => Ok(()),
        }
    }

    /// Tells how far the work has come.
    pub(crate) fn progress(&self, progress: Progress) {
        (self.sink)(progress);
    }
}

/// Runs `work` on a blocking thread and waits for its end; dropping the future tells it to stop.
///
/// Work that is stuck in the kernel beyond five seconds after being stopped is left to itself.
pub(crate) async fn blocking<T: Send + 'static>(
    cx: &Cx,
    work: impl FnOnce(&Watch) -> Result<T, DriverError> + Send + 'static,
) -> Result<T, DriverError> {
    cx.check()?;
    let (_, token) = cx.child();
    let guard = token.clone().drop_guard();
    let watch = Watch { token, deadline: cx.deadline(), sink: cx.sink() };
    let mut thread = tokio::task::spawn_blocking(move || work(&watch));
    let joined = match cx.run(&mut thread).await {
        Ok(joined) => joined,
        Err(stop) => {
            drop(guard);
            match tokio::time::timeout(GRACE, thread).await {
                // What ended just before it was stopped has still ended.
                Ok(Ok(Ok(done))) => return Ok(done),
                Ok(_) | Err(_) => return Err(stop.into()),
            }
        }
    };
    joined.unwrap_or_else(|error| Err(DriverError::new(ErrorKind::Other, "finish the work").because(error)))
}
