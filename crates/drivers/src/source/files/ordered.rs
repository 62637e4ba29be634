//! Work that is shared out to all cores and taken back in order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use seaworthy_interface::{DriverError, ErrorKind};

use super::{Watch, locked};

/// Jobs that may be under way or done and not yet taken, for each worker: enough that none waits for a slow one, few
/// enough that memory stays bounded.
const AHEAD_PER_WORKER: u64 = 16;

/// Longest that anybody sleeps before it looks whether it was stopped.
const LOOK: Duration = Duration::from_millis(50);

struct State<J, R> {
    ready: VecDeque<(u64, J)>,
    done: BTreeMap<u64, R>,
    made: u64,
    taken: u64,
    is_over: bool,
    error: Option<DriverError>,
}

/// Carries out the jobs that `next` makes, on all cores, and gives what came of them to `take` in the order of the jobs.
///
/// The first error of anybody, or a stop, ends everything. All threads are joined.
pub(super) fn in_order<J: Send, R: Send>(
    watch: &Watch,
    mut next: impl FnMut() -> Result<Option<J>, DriverError> + Send,
    work: impl Fn(J) -> Result<R, DriverError> + Sync,
    mut take: impl FnMut(R) -> Result<(), DriverError>,
) -> Result<(), DriverError> {
    let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).min(8);
    let ahead = AHEAD_PER_WORKER * workers as u64;
    let state = Mutex::new(State {
        ready: VecDeque::new(),
        done: BTreeMap::new(),
        made: 0,
        taken: 0,
        is_over: false,
        error: None,
    });
    let wake = Condvar::new();
    let stop = |error: DriverError| {
        locked(&state).error.get_or_insert(error);
        wake.notify_all();
    };
    // A thread that panics leaves a job that nobody will ever finish.
    let guard = || OnPanic(|| stop(DriverError::new(ErrorKind::Other, "finish the work: a thread panicked")));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _guard = guard();
            loop {
                {
                    let mut state = locked(&state);
                    while state.error.is_none() && state.made - state.taken >= ahead {
                        state = wait(&wake, state);
                    }
                    if state.error.is_some() {
                        return;
                    }
                }
                let made = watch.check().map_err(DriverError::from).and_then(|()| next());
                match made {
                    Ok(Some(job)) => {
                        let mut state = locked(&state);
                        let number = state.made;
                        state.ready.push_back((number, job));
                        state.made += 1;
                    }
                    Ok(None) => {
                        locked(&state).is_over = true;
                        wake.notify_all();
                        return;
                    }
                    Err(error) => return stop(error),
                }
                wake.notify_all();
            }
        });
        for _ in 0..workers {
            scope.spawn(|| {
                let _guard = guard();
                loop {
                    let (number, job) = {
                        let mut state = locked(&state);
                        loop {
                            if state.error.is_some() {
                                return;
                            }
                            match state.ready.pop_front() {
                                Some(job) => break job,
                                None if state.is_over => return,
                                None => state = wait(&wake, state),
                            }
                        }
                    };
                    match work(job) {
                        Ok(result) => {
                            locked(&state).done.insert(number, result);
                            wake.notify_all();
                        }
                        Err(error) => return stop(error),
                    }
                }
            });
        }
        loop {
            let result = {
                let mut state = locked(&state);
                loop {
                    if state.error.is_some() {
                        return;
                    }
                    let number = state.taken;
                    if let Some(result) = state.done.remove(&number) {
                        state.taken += 1;
                        break result;
                    }
                    if state.is_over && state.taken == state.made {
                        return;
                    }
                    if let Err(stopped) = watch.check() {
                        state.error.get_or_insert(stopped.into());
                        wake.notify_all();
                        return;
                    }
                    state = wait(&wake, state);
                }
            };
            wake.notify_all();
            if let Err(error) = take(result) {
                return stop(error);
            }
        }
    });
    let error = locked(&state).error.take();
    error.map_or(Ok(()), Err)
}

/// Carries out what it holds when its thread panics.
struct OnPanic<F: Fn()>(F);

impl<F: Fn()> Drop for OnPanic<F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0)();
        }
    }
}

fn wait<'a, T>(wake: &Condvar, state: std::sync::MutexGuard<'a, T>) -> std::sync::MutexGuard<'a, T> {
    // Bounded, so that a stop by a thread that has just looked is not slept through.
    wake.wait_timeout(state, LOOK).unwrap_or_else(std::sync::PoisonError::into_inner).0
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use seaworthy_interface::Cx;

    use super::*;
    use crate::source::blocking::blocking;

    async fn run(count: u64, fails_at: Option<u64>, slow: u64) -> Result<(Vec<u64>, u64), DriverError> {
        blocking(&Cx::unbounded(), move |watch| {
            let (mut made, taken, most) = (0, AtomicU64::new(0), AtomicU64::new(0));
            let mut out = Vec::new();
            in_order(
                watch,
                || {
                    most.fetch_max(made - taken.load(Ordering::SeqCst), Ordering::SeqCst);
                    made += 1;
                    Ok((made <= count).then_some(made))
                },
                |job| {
                    if Some(job) == fails_at {
                        return Err(DriverError::new(ErrorKind::Other, "fail"));
                    }
                    if job == slow {
                        std::thread::sleep(Duration::from_millis(100));
                    }
                    Ok(job * 2)
                },
                |result| {
                    taken.fetch_add(1, Ordering::SeqCst);
                    out.push(result);
                    Ok(())
                },
            )?;
            Ok((out, most.into_inner()))
        })
        .await
    }

    #[tokio::test]
    async fn results_come_in_order_and_nobody_runs_far_ahead() {
        let (out, most) = run(10_000, None, 1).await.unwrap();
        assert_eq!(out, (1..=10_000).map(|job| job * 2).collect::<Vec<_>>());
        assert!(most <= AHEAD_PER_WORKER * 8 + 1, "{most} ahead");
        assert_eq!(run(0, None, 0).await.unwrap().0, Vec::<u64>::new());
    }

    #[tokio::test]
    async fn the_first_error_ends_everything() {
        assert_eq!(run(10_000, Some(777), 0).await.unwrap_err().context, "fail");
    }
}
