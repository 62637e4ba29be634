//! One program in a sandbox, seen from outside: started, listened to, ended.
//!
//! Three threads per program: two that drain its output, one that reads the line from init, reaps the keeper and then
//! says that all is over. They end when the program's namespace does, and dropping a [`Running`] ends that.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use seaworthy_interface::error::{DriverError, ErrorKind};
use seaworthy_interface::sandbox::ExecOutcome;
use seaworthy_model::finding::FindingCode;
use seaworthy_syscall::sandbox::{FailureKind, Order, Reply, Request, VERB_KEEPER, receive, send};
use tokio::sync::watch;

/// Which part of an output is kept.
#[derive(Debug, Clone, Copy)]
pub(super) enum Keep {
    /// The first bytes.
    First(usize),
    /// The last bytes.
    Last(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Starting,
    Running,
    Finished,
}

#[derive(Debug, Default)]
struct Output {
    bytes: Vec<u8>,
    dropped: u64,
}

#[derive(Debug, Default)]
struct Record {
    stdout: Output,
    stderr: Output,
    end: Option<Reply>,
    closed_descriptors: u32,
    took: Duration,
}

#[derive(Debug)]
pub(super) struct Running {
    program: String,
    line: UnixStream,
    keeper: Arc<Mutex<Child>>,
    record: Arc<Mutex<Record>>,
    phase: watch::Receiver<Phase>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is under these locks is only appended to or assigned whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Running {
    pub(super) fn start(program: &Path, order: Order, keep: Keep) -> Result<Self, DriverError> {
        let name = order.argv.first().cloned().unwrap_or_default();
        let failed = |error| DriverError::io(format!("start the sandbox for {name}"), error);
        let (line, theirs) = UnixStream::pair().map_err(failed)?;
        let mut command = Command::new(program);
        command.arg0("seaworthy-sandbox").arg(VERB_KEEPER).arg(&order.root).env_clear();
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::piped()).stderr(Stdio::piped());
        // `command` holds our copy of their end of the line; it must be gone before we wait for the line to close.
        let mut keeper = command.spawn().map_err(failed)?;
        drop(command);

        let record = Arc::new(Mutex::new(Record::default()));
        let drains = [
            keeper
                .stdout
                .take()
                .map(|pipe| drain(pipe, keep, Arc::clone(&record), |record| &mut record.stdout)),
            keeper
                .stderr
                .take()
                .map(|pipe| drain(pipe, keep, Arc::clone(&record), |record| &mut record.stderr)),
        ];
        let keeper = Arc::new(Mutex::new(keeper));
        let (said, phase) = watch::channel(Phase::Starting);
        let ours = line.try_clone().map_err(failed)?;
        let supervised = (Arc::clone(&keeper), Arc::clone(&record));
        std::thread::spawn(move || {
            let (keeper, record) = supervised;
            supervise(ours, &order, &keeper, &record, drains, &said);
        });
        Ok(Self { program: name, line, keeper, record, phase })
    }

    /// Waits until the program runs, or says why it does not.
    pub(super) async fn started(&self) -> Result<(), DriverError> {
        let mut phase = self.phase.clone();
        // The sender is dropped after it has said `Finished`.
        let reached = phase.wait_for(|phase| *phase >= Phase::Running).await.map(|phase| *phase);
        match reached {
            Ok(Phase::Running) => Ok(()),
            // It ran and has ended already: that is the caller's to notice.
            _ if matches!(locked(&self.record).end, Some(Reply::Ended { .. })) => Ok(()),
            _ => self.outcome().map(|_| ()),
        }
    }

    /// Waits until the program and everything it started are gone.
    pub(super) async fn finished(&self) {
        let mut phase = self.phase.clone();
        // An error means that the sender is gone, and it goes after it has said `Finished`.
        drop(phase.wait_for(|phase| *phase == Phase::Finished).await.map(|phase| *phase));
    }

    pub(super) fn is_running(&self) -> bool {
        *self.phase.borrow() != Phase::Finished
    }

    /// Closes the line: init ends, and the kernel kills all that runs with it.
    pub(super) fn kill(&self) {
        // Fails when the other end is gone, which is what was wanted.
        self.line.shutdown(std::net::Shutdown::Write).unwrap_or_default();
    }

    /// Waits for what was killed; uses force when it does not go.
    pub(super) async fn gone(&self, patience: Duration) -> Result<(), DriverError> {
        if tokio::time::timeout(patience / 2, self.finished()).await.is_ok() {
            return Ok(());
        }
        // Init is tied to the keeper's life by the kernel. A keeper that is reaped already refuses, which is fine.
        locked(&self.keeper).kill().unwrap_or_default();
        tokio::time::timeout(patience / 2, self.finished()).await.map_err(|_| {
            DriverError::new(ErrorKind::Other, format!("end {}", self.program))
                .because(format!("it is still there {} s after it was killed", patience.as_secs()))
                .hint("look for a process in uninterruptible sleep (state D)")
                .code(FindingCode::EnvOther)
        })
    }

    pub(super) fn signal(&self, signal: i32) -> Result<(), DriverError> {
        if !self.is_running() {
            return Ok(());
        }
        match send(&mut &self.line, &Request::Signal(signal)) {
            Ok(()) => Ok(()),
            // It ended meanwhile.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                Ok(())
            }
            Err(error) => Err(DriverError::io(format!("signal {}", self.program), error)),
        }
    }

    pub(super) fn stderr(&self) -> Vec<u8> {
        locked(&self.record).stderr.bytes.clone()
    }

    /// Descriptors that we had leaked and the keeper closed.
    pub(super) fn closed_descriptors(&self) -> u32 {
        locked(&self.record).closed_descriptors
    }

    /// How the program ended, once it has.
    pub(super) fn outcome(&self) -> Result<ExecOutcome, DriverError> {
        let mut record = locked(&self.record);
        match record.end.clone() {
            Some(Reply::Ended { status }) => Ok(ExecOutcome {
                status,
                stdout: std::mem::take(&mut record.stdout.bytes),
                stderr: record.stderr.bytes.clone(),
                dropped_bytes: record.stdout.dropped + record.stderr.dropped,
                took: record.took,
            }),
            Some(Reply::Failed { kind, step, errno, error }) => {
                Err(failure(&self.program, kind, &step, errno, &error))
            }
            Some(Reply::Started { .. }) | None => {
                let said = String::from_utf8_lossy(&record.stderr.bytes).trim().to_owned();
                Err(DriverError::new(ErrorKind::Other, format!("run {} in the sandbox", self.program))
                    .because(format!("the sandbox's own process ended without a word {said}").trim().to_owned())
                    .hint("the program that plays init must call `seaworthy_syscall::sandbox::enter` first in main")
                    .code(FindingCode::EnvOther))
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

fn supervise(
    mut line: UnixStream,
    order: &Order,
    keeper: &Mutex<Child>,
    record: &Mutex<Record>,
    drains: [Option<JoinHandle<()>>; 2],
    said: &watch::Sender<Phase>,
) {
    let mut begun = Instant::now();
    let mut end = None;
    // Once for the keeper, once for init. When one of them dies early, what it said is waiting to be read.
    let sent = send(&mut line, order).and_then(|()| send(&mut line, order));
    loop {
        match receive::<Reply>(&mut line) {
            Ok(Some(Reply::Started { closed_descriptors, .. })) => {
                begun = Instant::now();
                locked(record).closed_descriptors = closed_descriptors;
                said.send_replace(Phase::Running);
            }
            Ok(Some(reply)) => {
                // The first word counts: a keeper that reports after init knows less.
                locked(record).took = begun.elapsed();
                end.get_or_insert(reply);
            }
            Ok(None) | Err(_) => break,
        }
    }
    if let (None, Err(error)) = (&end, sent) {
        end = Some(Reply::Failed {
            kind: FailureKind::Order,
            step: "send the order".into(),
            errno: error.raw_os_error(),
            error: error.to_string(),
        });
    }
    // The line is closed, so the keeper is ending; it ends after init, and init after everything else. Never held while
    // waiting, so that `gone` can use force.
    while let Ok(None) = locked(keeper).try_wait() {
        std::thread::sleep(Duration::from_millis(2));
    }
    for drain in drains.into_iter().flatten() {
        // A drain that panicked has kept what it had.
        drain.join().unwrap_or_default();
    }
    {
        let mut record = locked(record);
        if record.took.is_zero() {
            record.took = begun.elapsed();
        }
        // Killed, with init: nobody was left to say it.
        let killed = *said.borrow() == Phase::Running && end.is_none();
        record.end = if killed { Some(Reply::Ended { status: 128 + 9 }) } else { end };
    }
    said.send_replace(Phase::Finished);
}

fn drain(
    mut pipe: impl Read + Send + 'static,
    keep: Keep,
    record: Arc<Mutex<Record>>,
    which: fn(&mut Record) -> &mut Output,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = match pipe.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            let mut record = locked(&record);
            let output = which(&mut record);
            keep.add(output, &buffer[..count]);
        }
    })
}

impl Keep {
    fn add(self, output: &mut Output, new: &[u8]) {
        match self {
            Self::First(max) => {
                let room = max.saturating_sub(output.bytes.len()).min(new.len());
                output.bytes.extend_from_slice(&new[..room]);
                output.dropped += (new.len() - room) as u64;
            }
            Self::Last(max) => {
                output.bytes.extend_from_slice(new);
                let excess = output.bytes.len().saturating_sub(max);
                output.bytes.drain(..excess);
                output.dropped += excess as u64;
            }
        }
    }
}

fn failure(program: &str, kind: FailureKind, step: &str, errno: Option<i32>, error: &str) -> DriverError {
    const ENOENT: i32 = rustix::io::Errno::NOENT.raw_os_error();
    const EACCES: i32 = rustix::io::Errno::ACCESS.raw_os_error();
    match kind {
        FailureKind::Isolation => DriverError::new(ErrorKind::Unsupported, format!("isolate {program}"))
            .because(format!("{step}: {error}"))
            .hint(namespace_hint())
            .code(FindingCode::EnvNamespace),
        FailureKind::NotIsolated => DriverError::new(ErrorKind::Refused, format!("isolate {program}"))
            .because(format!("{step}: {error}"))
            .hint("run `seaworthy doctor`")
            .code(FindingCode::NotIsolated),
        FailureKind::Start if errno == Some(ENOENT) => {
            DriverError::new(ErrorKind::NotFound, format!("run {program} in the sandbox"))
                .because(format!("{step}: {error}"))
                .hint("programs outside /usr must be named in the sandbox's read-only directories")
                .code(FindingCode::EnvBinary)
        }
        FailureKind::Start if errno == Some(EACCES) => {
            DriverError::new(ErrorKind::PermissionDenied, format!("run {program} in the sandbox"))
                .because(format!("{step}: {error}"))
                .hint("the sandbox's user must be allowed to read and execute it")
                .code(FindingCode::EnvPermission)
        }
        FailureKind::Start | FailureKind::Order => {
            DriverError::new(ErrorKind::Other, format!("run {program} in the sandbox"))
                .because(format!("{step}: {error}"))
                .code(FindingCode::EnvOther)
        }
    }
}

/// Which switch keeps an ordinary user from making namespaces here.
fn namespace_hint() -> String {
    let read = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let switches = [
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces=10000"),
        ("/proc/sys/user/max_net_namespaces", "0", "user.max_net_namespaces=10000"),
    ];
    for (path, bad, remedy) in switches {
        if read(path).as_deref() == Some(bad) {
            return format!("run as root, or `sysctl -w {remedy}`");
        }
    }
    "run as root, or allow unprivileged user namespaces (sysctl user.max_user_namespaces and, on Debian and Ubuntu, \
     kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns); in a container, it must be \
     started with the right to unshare namespaces"
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_bounded_and_what_is_dropped_is_counted() {
        let mut first = Output::default();
        Keep::First(4).add(&mut first, b"abc");
        Keep::First(4).add(&mut first, b"def");
        assert_eq!((first.bytes.as_slice(), first.dropped), (b"abcd".as_slice(), 2));
        let mut last = Output::default();
        Keep::Last(4).add(&mut last, b"abc");
        Keep::Last(4).add(&mut last, b"def");
        assert_eq!((last.bytes.as_slice(), last.dropped), (b"cdef".as_slice(), 2));
    }
}
