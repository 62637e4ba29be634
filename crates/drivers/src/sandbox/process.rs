//! Process sandboxes: kernel namespaces and an unprivileged user on this machine; no container engine.
//!
//! Each program runs in namespaces of its own (network, processes, mounts, IPC, host name; as an ordinary user also a user
//! namespace) and sees system programs, the private directory and nothing else; `seaworthy_syscall::sandbox` is the
//! mechanism. Programs of one sandbox meet in the private directory: a Unix socket there works between them and for the
//! caller. They do not see each other's processes, so a server is stopped through [`SandboxProcess::stop`], not by a
//! client program that looks for its process id.
//!
//! Layout of a sandbox in the scratch directory; only `r` is visible inside:
//!
//! ```text
//! sw-1f2e3d4c5b/        0700, the caller's
//!   owner               run id, process and start time of the owner; locked while the sandbox is open
//!   v/                  mount point of the private view
//!   r/                  0700, the program user's: the private directory
//! ```
//!
//! What opens a sandbox closes it. If it dies first, the kernel kills what ran, and [`SandboxProvider::reap`] removes the
//! directory. The scratch directory must be on a local file system: liveness is a file lock.
//!
//! A caller's `main` must begin with `seaworthy_syscall::sandbox::enter()`.
//!
//! Never here: a shell, a connection, a decision about what a failure means for a copy.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use seaworthy_interface::cx::Cx;
use seaworthy_interface::error::{DriverError, ErrorKind};
use seaworthy_interface::sandbox::{
    Exec, ExecOutcome, Sandbox, SandboxFacts, SandboxProcess, SandboxProvider,
};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::id::RunId;
use seaworthy_syscall::sandbox::{self as syscall, Limits, Mode, Order, User};

mod isolation;
mod place;
mod running;
mod tree;

use place::Place;
use running::{Keep, Running};

/// How long what was killed may take to be gone. Killing is the kernel's work and takes milliseconds; a machine that swaps
/// takes longer.
const KILL_PATIENCE: Duration = Duration::from_secs(15);

/// How the process sandbox is set up on this machine.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Directory that sandboxes are made in: ours alone, on a local file system with room. Made if it is not there.
    pub scratch: PathBuf,
    /// User that programs run as when we are root. Never used otherwise.
    pub user: String,
    /// Directories shown to programs besides the system's: where tools are installed outside `/usr`.
    pub read_only: Vec<PathBuf>,
    /// Files that programs find empty, although they lie in a directory that is shown.
    pub hidden: Vec<PathBuf>,
    /// Bounds on what programs may use.
    pub limits: Limits,
    /// Room on the scratch disk that programs must leave free; they are killed when they do not.
    pub reserve_bytes: u64,
    /// Memory that programs must leave available on this machine; they are killed when they do not.
    pub memory_reserve_bytes: u64,
    /// The program that plays keeper and init.
    pub program: PathBuf,
}

impl Settings {
    /// Sandboxes below `scratch`, with the usual bounds.
    #[must_use]
    pub fn new(scratch: impl Into<PathBuf>) -> Self {
        Self {
            scratch: scratch.into(),
            user: "nobody".into(),
            read_only: Vec::new(),
            hidden: Vec::new(),
            limits: Limits {
                open_files: 8192,
                // Enough for a parallel restore; far below what exhausts a machine.
                processes: 1024,
                file_bytes: None,
                memory_bytes: None,
                // 24 h of one processor: longer than any drill's deadline, and not for ever.
                cpu_seconds: Some(24 * 60 * 60),
                // 256 MiB: parallel queries pass rows through /dev/shm.
                temporary_bytes: 256 << 20,
            },
            // 512 MiB: what a fast disk takes in the time between two looks at it, several times over.
            reserve_bytes: 512 << 20,
            // 128 MiB: enough for everybody else to go on; the kernel's own last resort comes much later.
            memory_reserve_bytes: 128 << 20,
            program: "/proc/self/exe".into(),
        }
    }
}

/// Makes process sandboxes.
#[derive(Debug, Clone)]
pub struct ProcessSandboxes {
    settings: Settings,
}

impl ProcessSandboxes {
    /// A provider with these settings. Touches nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// How and as whom programs will run.
    fn identity(&self) -> Result<(Mode, User), DriverError> {
        let me = syscall::user_self().map_err(|error| DriverError::io("look up our own user", error))?;
        if me.uid != 0 {
            return Ok((Mode::UserNamespace, me));
        }
        let name = &self.settings.user;
        let found = syscall::user_named(name)
            .map_err(|error| DriverError::io(format!("look up the sandbox user {name}"), error))?;
        match found {
            Some(user) if user.uid != 0 && user.gid != 0 => Ok((Mode::Root, user)),
            Some(_) => Err(DriverError::new(ErrorKind::Refused, format!("run restored code as {name}"))
                .because("that user or its group is 0")
                .hint("name an unprivileged user for the sandbox")
                .code(FindingCode::EnvPermission)),
            None => Err(DriverError::new(ErrorKind::NotFound, format!("run restored code as {name}"))
                .because("this machine has no such user")
                .hint("name an existing unprivileged user for the sandbox")
                .code(FindingCode::EnvPermission)),
        }
    }
}

#[async_trait]
impl SandboxProvider for ProcessSandboxes {
    async fn open(&self, cx: &Cx, run: &RunId, needed_bytes: u64) -> Result<Arc<dyn Sandbox>, DriverError> {
        let (mode, user) = self.identity()?;
        let settings = self.settings.clone();
        let (run, owner) = (run.clone(), user.clone());
        let place = blocking(cx, move || {
            let scratch = place::prepare(&settings.scratch)?;
            place::check_room(&scratch, needed_bytes, settings.reserve_bytes)?;
            Place::create(&scratch, &run, mode, &owner)
        })
        .await?;
        let mut sandbox = ProcessSandbox::new(place, mode, user, self.settings.clone());
        match isolation::prove(cx, &sandbox).await {
            Ok(facts) => {
                sandbox.facts = facts;
                Ok(Arc::new(sandbox))
            }
            Err(mut error) => {
                // A fresh context: the caller's may be the reason why we are here.
                if let Err(left) = sandbox.close(&Cx::unbounded().within(KILL_PATIENCE * 2)).await {
                    error.context.push_str(&format!("; and {left} failed, which is left to the reaper"));
                }
                Err(error)
            }
        }
    }

    async fn reap(&self, cx: &Cx, live: &[RunId]) -> Result<usize, DriverError> {
        let (scratch, live, token) = (self.settings.scratch.clone(), live.to_vec(), cx.token());
        blocking(cx, move || place::reap(&scratch, &live, &token)).await
    }

    async fn probe(&self, cx: &Cx) -> Result<Vec<Finding>, DriverError> {
        // The truest answer is to do it.
        let attempt = async {
            let sandbox = self.open(cx, &RunId("probe".into()), 0).await?;
            sandbox.close(cx).await
        };
        match attempt.await {
            Ok(_) => Ok(Vec::new()),
            Err(error) if matches!(error.kind, ErrorKind::Stopped(_)) => Err(error),
            Err(error) => {
                let code = error.code.unwrap_or(FindingCode::EnvOther);
                let mut detail = error.to_string();
                let mut cause = std::error::Error::source(&error);
                while let Some(inner) = cause {
                    detail.push_str(&format!(": {inner}"));
                    cause = inner.source();
                }
                if let Some(hint) = &error.hint {
                    detail.push_str(&format!(" ({hint})"));
                }
                Ok(vec![Finding::new(code, "process sandbox", detail)])
            }
        }
    }
}

/// Runs `work`, which blocks, away from the runtime. When the context stops first, `work` goes on alone; what it makes is
/// dropped, and what it leaves is the reaper's.
async fn blocking<T: Send + 'static>(
    cx: &Cx,
    work: impl FnOnce() -> Result<T, DriverError> + Send + 'static,
) -> Result<T, DriverError> {
    cx.check()?;
    match cx.run(tokio::task::spawn_blocking(work)).await? {
        Ok(result) => result,
        Err(error) => Err(DriverError::new(ErrorKind::Other, "run a blocking task").because(error)),
    }
}

/// An open process sandbox.
#[derive(Debug)]
struct ProcessSandbox {
    shared: Arc<Shared>,
    facts: SandboxFacts,
}

/// What the sandbox, its programs and the guard of its disk share.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    mode: Mode,
    user: User,
    place: Place,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    programs: Vec<Weak<Running>>,
    /// Set once, when programs were killed because they left too little room.
    exhausted: Option<Exhausted>,
    closing: bool,
    removed: bool,
}

/// What there was too little of.
#[derive(Debug, Clone)]
struct Exhausted {
    code: FindingCode,
    detail: String,
    hint: &'static str,
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Every change under this lock is a single assignment, so a panic elsewhere cannot leave it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn programs(&self) -> Vec<Arc<Running>> {
        let mut state = self.state();
        state.programs.retain(|program| program.strong_count() > 0);
        state.programs.iter().filter_map(Weak::upgrade).collect()
    }

    /// Looks at what is left of disk and memory, and remembers when it was too little.
    fn measure(&self) {
        let disk = |detail| Exhausted {
            code: FindingCode::EnvDisk,
            detail,
            hint: "free space, or set another scratch directory",
        };
        let memory = |detail| Exhausted {
            code: FindingCode::EnvOther,
            detail,
            hint: "run the drill where more memory is free",
        };
        let short = |what: &str, left: u64, reserve: u64| {
            (left < reserve).then(|| format!("{left} bytes of {what} were left, {reserve} are to stay free"))
        };
        // Unknown is not enough.
        let found = match (place::free_bytes(&self.place.outer), place::available_memory()) {
            (Err(error), _) => Some(disk(format!("cannot {error}"))),
            (_, Err(error)) => Some(memory(format!("cannot read the available memory: {error}"))),
            (Ok(free), Ok(available)) => short("disk", free, self.settings.reserve_bytes)
                .map(disk)
                .or_else(|| short("memory", available, self.settings.memory_reserve_bytes).map(memory)),
        };
        if let Some(found) = found {
            self.state().exhausted.get_or_insert(found);
        }
    }

    fn check_room(&self) -> Result<(), DriverError> {
        match self.state().exhausted.clone() {
            None => Ok(()),
            Some(Exhausted { code, detail, hint }) => Err(DriverError::new(
                ErrorKind::Exhausted,
                format!("run in the sandbox on {}", self.place.outer.display()),
            )
            .because(detail)
            .hint(hint)
            .code(code)),
        }
    }
}

/// Looks at disk and memory ten times a second while the sandbox exists, and kills what runs there before others suffer. A
/// thread, because it must see a disk fill up in a second however busy the runtime is. It ends with the sandbox.
fn guard(shared: &Arc<Shared>) {
    let shared = Arc::downgrade(shared);
    std::thread::spawn(move || {
        while let Some(shared) = shared.upgrade() {
            if shared.state().closing {
                return;
            }
            let programs = shared.programs();
            if programs.iter().any(|program| program.is_running()) {
                shared.measure();
                if shared.state().exhausted.is_some() {
                    programs.iter().for_each(|program| program.kill());
                }
            }
            drop((programs, shared));
            std::thread::sleep(Duration::from_millis(100));
        }
    });
}

impl ProcessSandbox {
    fn new(place: Place, mode: Mode, user: User, settings: Settings) -> Self {
        let facts = SandboxFacts {
            provider: "process".into(),
            mode: String::new(),
            uid: user.uid,
            interfaces: Vec::new(),
            refused_connections: Vec::new(),
            limits: Vec::new(),
            inherited_descriptors: 0,
        };
        let shared = Arc::new(Shared { settings, mode, user, place, state: Mutex::default() });
        guard(&shared);
        Self { shared, facts }
    }

    async fn start(&self, cx: &Cx, exec: Exec, keep: Keep) -> Result<Arc<Running>, DriverError> {
        cx.check()?;
        let shared = &self.shared;
        shared.check_room()?;
        if shared.state().closing {
            return Err(
                DriverError::new(ErrorKind::Conflict, "start a program").because("the sandbox is closed")
            );
        }
        let program = exec.argv.first().cloned().unwrap_or_default();
        if !Path::new(&program).is_absolute() {
            return Err(DriverError::new(ErrorKind::Refused, format!("start `{program}`"))
                .because("a program is named by its absolute path"));
        }
        let order = Order {
            mode: shared.mode,
            uid: shared.user.uid,
            gid: shared.user.gid,
            user_name: shared.user.name.clone(),
            root: shared.place.root.clone(),
            view: shared.place.view.clone(),
            read_only: shared.settings.read_only.clone(),
            hidden: shared.settings.hidden.clone(),
            limits: shared.settings.limits.clone(),
            argv: exec.argv,
            env: exec.env,
            cwd: exec.cwd,
            stdin: exec.stdin,
        };
        let running = Arc::new(Running::start(&shared.settings.program, order, keep)?);
        {
            // Checked again under the lock: a close that began meanwhile has not seen this program, so it is ours to end.
            let mut state = shared.state();
            if state.closing {
                return Err(DriverError::new(ErrorKind::Conflict, "start a program")
                    .because("the sandbox is closing"));
            }
            state.programs.push(Arc::downgrade(&running));
        }
        Ok(running)
    }
}

#[async_trait]
impl Sandbox for ProcessSandbox {
    fn root(&self) -> &Path {
        &self.shared.place.root
    }

    fn facts(&self) -> &SandboxFacts {
        &self.facts
    }

    async fn own(&self, cx: &Cx, path: &Path) -> Result<(), DriverError> {
        if self.shared.mode != Mode::Root {
            return Ok(());
        }
        let (root, path, token) = (self.shared.place.root.clone(), path.to_owned(), cx.token());
        let (uid, gid) = (self.shared.user.uid, self.shared.user.gid);
        blocking(cx, move || tree::own(&root, &path, uid, gid, &token)).await
    }

    async fn exec(&self, cx: &Cx, exec: Exec) -> Result<ExecOutcome, DriverError> {
        let keep = Keep::First(exec.output_bytes_max);
        let running = self.start(cx, exec, keep).await?;
        if let Err(stop) = cx.run(running.finished()).await {
            running.kill();
            running.gone(KILL_PATIENCE).await?;
            return Err(stop.into());
        }
        let outcome = running.outcome();
        // A program that failed because the disk was full says so in a hundred ways; the disk says it in one.
        if outcome.as_ref().map_or(true, |outcome| outcome.status != 0) {
            self.shared.measure();
        }
        self.shared.check_room()?;
        outcome
    }

    async fn spawn(&self, cx: &Cx, exec: Exec) -> Result<Box<dyn SandboxProcess>, DriverError> {
        let keep = Keep::Last(exec.output_bytes_max);
        let running = self.start(cx, exec, keep).await?;
        // Dropped when stopped here, and killed with that.
        cx.run(running.started()).await??;
        Ok(Box::new(Program { running }))
    }

    async fn close(&self, cx: &Cx) -> Result<u64, DriverError> {
        self.shared.state().closing = true;
        if self.shared.state().removed {
            return Ok(0);
        }
        let programs = self.shared.programs();
        programs.iter().for_each(|program| program.kill());
        for program in &programs {
            program.gone(KILL_PATIENCE).await?;
        }
        let (shared, token) = (Arc::clone(&self.shared), cx.token());
        blocking(cx, move || {
            let bytes = shared.place.remove(&token)?;
            shared.state().removed = true;
            Ok(bytes)
        })
        .await
    }
}

/// A program that keeps running. Dropping it kills it.
#[derive(Debug)]
struct Program {
    running: Arc<Running>,
}

#[async_trait]
impl SandboxProcess for Program {
    fn is_running(&mut self) -> bool {
        self.running.is_running()
    }

    async fn stop(&mut self, cx: &Cx, signal: i32, grace: Duration) -> Result<i32, DriverError> {
        self.running.signal(signal)?;
        let waited = cx.run(tokio::time::timeout(grace, self.running.finished())).await;
        if !matches!(waited, Ok(Ok(()))) {
            self.running.kill();
            self.running.gone(KILL_PATIENCE).await?;
        }
        waited?.unwrap_or_default();
        Ok(self.running.outcome()?.status)
    }

    fn stderr_tail(&self) -> Vec<u8> {
        self.running.stderr()
    }
}
