//! Locks as restic takes and respects them.
//!
//! | wanted    | tolerates           | conflicts with        |
//! |-----------|---------------------|-----------------------|
//! | shared    | other shared locks  | any exclusive lock    |
//! | exclusive | nothing             | any lock              |
//!
//! A stale lock stops everybody until somebody removes it, so what a crash of ours left is reaped: a lock of this host
//! whose process is dead, or that is older than 30 minutes. A lock of another host is respected, however old.
//!
//! Stock restic asks whether the holder of a lock on its own host lives by sending it SIGHUP (`restic unlock` does). A
//! process that has no handler for it dies of the question: see [`survive_hangup`].

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::blob::{open_unpacked, seal_unpacked};
use crate::control::{BRIEF, Control, POLL};
use crate::crypto::Key;
use crate::error::{Object, RepositoryError, Result, Stop};
use crate::fault::{StoreFault, StoreWords};
use crate::id::Id;
use crate::json;
use crate::snapshot::{LockFile, LockJson};
use crate::store::{FileKind, Store};
use crate::time::Time;

const REFRESH: Duration = Duration::from_secs(5 * 60);
const STALE: i128 = 30 * 60 * 1_000_000_000;
/// After this long without a refresh another client may soon think us dead, so the work stops.
const LOST: Duration = Duration::from_secs(22 * 60 + 30);
/// How long after writing a lock the others are listed again, as restic does: time for a listing that lags behind.
///
/// Where listings do not lag nobody needs to wait. Each of two writes its lock before it looks for the other's, so that
/// the one who looks last sees both, and restic as the other waits for the same reason that it always does.
const SETTLE: Duration = Duration::from_millis(200);

/// Makes this process survive SIGHUP, with which `restic unlock` asks whether the holder of a lock lives.
///
/// It holds for the whole process and until its end, so it is the program's decision and not made by taking a lock. Call it
/// once, early; a program that handles SIGHUP anyway need not.
pub fn survive_hangup() -> Result<()> {
    let failed = |e| RepositoryError::io("install", "a handler for SIGHUP", e);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let _entered = runtime.enter();
    // The handler stays installed when the stream and the runtime are gone; only nobody listens.
    let stream = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).map_err(failed)?;
    drop(stream);
    Ok(())
}

/// How a lock excludes others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// For reading and for adding.
    Shared,
    /// For removing.
    Exclusive,
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockHolder {
    /// The lock file.
    pub id: Id,
    /// Its host; empty when the lock cannot be read.
    pub hostname: String,
    /// Its user.
    pub username: String,
    /// Its process.
    pub pid: i64,
    /// When it was last refreshed.
    pub time: Time,
    /// Exclusive or shared.
    pub exclusive: bool,
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.hostname.is_empty() {
            return write!(f, "lock {} cannot be read", self.id);
        }
        let kind = if self.exclusive { "exclusively" } else { "shared" };
        write!(
            f,
            "{kind} by {} on {}, process {}, since {}",
            self.username, self.hostname, self.pid, self.time
        )
    }
}

#[derive(Clone)]
pub(crate) struct LockContext {
    pub(crate) store: Store,
    pub(crate) key: Key,
    pub(crate) version: u32,
}

/// A lock in force. It is refreshed in the background and removed when dropped.
pub struct Lock {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").finish_non_exhaustive()
    }
}

struct Shared {
    context: LockContext,
    kind: LockKind,
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    id: Id,
    refreshed: Instant,
    written: Instant,
    stop: bool,
    lost: bool,
}

/// A lock that has been written, but whose competitors have not been looked at a second time.
pub(crate) struct PendingLock(Option<Lock>);

fn is_alive(pid: i64) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else { return false };
    // "Not permitted" still means that it lives.
    !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}

pub(crate) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

pub(crate) fn username() -> String {
    let uid = rustix::process::geteuid().as_raw();
    crate::names::Names::load().user(uid).to_owned()
}

impl LockContext {
    fn write(&self, kind: LockKind) -> Result<Id> {
        let file = LockFile {
            time: Time::now().to_string(),
            exclusive: kind == LockKind::Exclusive,
            hostname: hostname(),
            username: username(),
            pid: i64::from(std::process::id()),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        };
        let json = serde_json::to_vec(&file)
            .map_err(|e| RepositoryError::io("write", "a lock", std::io::Error::other(e)))?;
        let boxed = seal_unpacked(&self.key, self.version, &json)?;
        let id = Id::of(&boxed);
        in_time("write", &id, self.store.write(FileKind::Lock, &id, Bytes::from(boxed), &Control::brief()))?;
        Ok(id)
    }

    /// The locks of others; those that vanish while being read are gone.
    fn others(&self, own: Option<Id>, control: &Control) -> Result<Vec<LockHolder>> {
        let mut holders = Vec::new();
        for listed in self.store.list(FileKind::Lock, control)? {
            if Some(listed.id) == own || listed.size == 0 {
                continue;
            }
            let mut attempt = 0;
            let holder = loop {
                let Some(boxed) = self.store.read(FileKind::Lock, &listed.id, control)? else { break None };
                let lock = open_unpacked(&self.key, self.version, &boxed)
                    .and_then(|json| json::parse::<LockJson>(&json).map_err(|e| e.to_string()));
                match lock {
                    Ok(lock) => {
                        break Some(LockHolder {
                            id: listed.id,
                            hostname: lock.hostname,
                            username: lock.username,
                            pid: lock.pid,
                            time: lock.time,
                            exclusive: lock.exclusive,
                        });
                    }
                    // A store may show a file before it is whole.
                    Err(_) if attempt < 4 => {
                        attempt += 1;
                        pause(Duration::from_millis(250), control)?;
                    }
                    Err(_) => {
                        break Some(LockHolder {
                            id: listed.id,
                            hostname: String::new(),
                            username: String::new(),
                            pid: 0,
                            time: Time::default(),
                            exclusive: true,
                        });
                    }
                }
            };
            holders.extend(holder);
        }
        Ok(holders)
    }

    /// Removes what a crash on this host left; returns the others that conflict.
    fn conflict(&self, kind: LockKind, own: Option<Id>, control: &Control) -> Result<Option<LockHolder>> {
        let host = hostname();
        for holder in self.others(own, control)? {
            if !holder.hostname.is_empty() && holder.hostname == host {
                let age = Time::now().unix_nanos() - holder.time.unix_nanos();
                if !is_alive(holder.pid) || age > STALE {
                    match self.store.delete(FileKind::Lock, &holder.id, control) {
                        // Who may not delete leaves it to those who may: its process is dead, and it holds nothing.
                        Ok(()) | Err(RepositoryError::Store { fault: StoreFault::Denied, .. }) => continue,
                        Err(error) => return Err(error),
                    }
                }
            }
            if kind == LockKind::Exclusive || holder.exclusive {
                return Ok(Some(holder));
            }
        }
        Ok(None)
    }

    pub(crate) fn begin(self, kind: LockKind, control: &Control) -> Result<PendingLock> {
        self.begin_with(kind, control, REFRESH, LOST)
    }

    pub(crate) fn begin_with(
        self,
        kind: LockKind,
        control: &Control,
        refresh: Duration,
        lost: Duration,
    ) -> Result<PendingLock> {
        if let Some(holder) = self.conflict(kind, None, control)? {
            return Err(RepositoryError::Locked { holder: Box::new(holder) });
        }
        let id = self.write(kind)?;
        let now = Instant::now();
        let shared = Arc::new(Shared {
            context: self,
            kind,
            state: Mutex::new(State { id, refreshed: now, written: now, stop: false, lost: false }),
            wake: Condvar::new(),
        });
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("repository-lock".into())
            .spawn(move || for_thread.keep(refresh, lost));
        match thread {
            Ok(thread) => Ok(PendingLock(Some(Lock { shared, thread: Some(thread) }))),
            Err(e) => {
                shared.remove()?;
                Err(RepositoryError::io("start", "the thread that refreshes a lock", e))
            }
        }
    }
}

/// A store that does not get a small act done in its time is out of reach; nobody's deadline has passed.
fn in_time<T>(action: &'static str, lock: &Id, result: Result<T>) -> Result<T> {
    result.map_err(|error| match error {
        RepositoryError::Stopped(Stop::DeadlineExceeded) => RepositoryError::Store {
            action,
            path: format!("locks/{lock}"),
            fault: StoreFault::Unreachable,
            source: StoreWords::new(format!("it was not done within {} s", BRIEF.as_secs())),
        },
        error => error,
    })
}

fn pause(duration: Duration, control: &Control) -> Result<()> {
    let end = Instant::now() + duration;
    loop {
        control.check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(POLL));
    }
}

impl PendingLock {
    /// Looks a second time; on a conflict ours is removed.
    pub(crate) fn confirm(mut self, control: &Control) -> Result<Lock> {
        let lock = self.0.take().expect("confirmed once, by value");
        let (own, written) = {
            let state = lock.shared.lock();
            (state.id, state.written)
        };
        if !lock.shared.context.store.lists_at_once() {
            pause(SETTLE.saturating_sub(written.elapsed()), control)?;
        }
        if let Some(holder) = lock.shared.context.conflict(lock.shared.kind, Some(own), control)? {
            // Who holds it is what matters; a lock of ours that stays is dead when we are.
            lock.release().ok();
            return Err(RepositoryError::Locked { holder: Box::new(holder) });
        }
        Ok(lock)
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self) -> Result<()> {
        let id = self.lock().id;
        in_time("delete", &id, self.context.store.delete(FileKind::Lock, &id, &Control::brief()))
    }

    fn keep(&self, refresh: Duration, lost: Duration) {
        let mut wait = refresh;
        loop {
            {
                let state = self.lock();
                let (state, _) = self
                    .wake
                    .wait_timeout_while(state, wait, |state| !state.stop)
                    .unwrap_or_else(PoisonError::into_inner);
                if state.stop {
                    return;
                }
            }
            let old = self.lock().id;
            // Somebody who removed our lock thinks us dead: what we rely on may be deleted by now.
            let held = match self.context.store.read(FileKind::Lock, &old, &Control::brief()) {
                Ok(Some(_)) => true,
                Ok(None) => {
                    self.lock().lost = true;
                    return;
                }
                Err(_) => false,
            };
            let fresh = if held {
                self.context.write(self.kind)
            } else {
                Err(RepositoryError::refused("unreadable"))
            };
            if let Ok(fresh) = fresh {
                let mut state = self.lock();
                state.id = fresh;
                state.refreshed = Instant::now();
                drop(state);
                // A second lock of ours harms nobody; it is stale as soon as this process ends.
                self.context.store.delete(FileKind::Lock, &old, &Control::brief()).ok();
                wait = refresh;
            } else {
                let mut state = self.lock();
                if state.refreshed.elapsed() > lost {
                    state.lost = true;
                    return;
                }
                wait = refresh / 10;
            }
        }
    }
}

impl Lock {
    /// Returns an error once the lock could not be refreshed in time, or was removed by somebody else.
    pub fn ensure(&self) -> Result<()> {
        if self.shared.lock().lost {
            return Err(RepositoryError::missing(Object::Lock, self.shared.lock().id));
        }
        Ok(())
    }

    /// The same, after looking whether the lock file still exists.
    pub fn ensure_now(&self, control: &Control) -> Result<()> {
        self.ensure()?;
        // The refresher may replace the file between the two looks, hence twice.
        for _ in 0..2 {
            let id = self.shared.lock().id;
            if self.shared.context.store.read(FileKind::Lock, &id, control)?.is_some() {
                return Ok(());
            }
        }
        Err(RepositoryError::missing(Object::Lock, self.shared.lock().id))
    }

    /// Shared or exclusive.
    #[must_use]
    pub fn kind(&self) -> LockKind {
        self.shared.kind
    }

    /// The lock file's present name; it changes with every refresh.
    #[must_use]
    pub fn id(&self) -> Id {
        self.shared.lock().id
    }

    /// Removes the lock, and says so if that fails.
    pub fn release(mut self) -> Result<()> {
        self.stop();
        self.shared.remove()
    }

    fn stop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            // It never panics on purpose; if it did, there is nothing left to refresh.
            thread.join().ok();
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop();
            // Best effort: a lock that stays is reaped by the next run on this host.
            self.shared.remove().ok();
        }
    }
}
