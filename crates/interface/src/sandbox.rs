//! The door to an isolated place that a restore may write to.
//!
//! What is restored is hostile: the place must hold even against a superuser inside a scratch engine. No route, an
//! unprivileged user, private directories, limits, no inherited descriptors.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use seaworthy_model::finding::Finding;
use seaworthy_model::id::RunId;
use serde::{Deserialize, Serialize};

use crate::cx::Cx;
use crate::error::DriverError;

/// What to run. No shell is ever started; `argv[0]` is an absolute path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exec {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The whole environment; nothing is inherited.
    pub env: Vec<(String, String)>,
    /// Working directory; the sandbox's root where omitted.
    pub cwd: Option<PathBuf>,
    /// A file given as standard input; nothing where omitted.
    pub stdin: Option<PathBuf>,
    /// Most bytes kept of standard output and of standard error, each; the rest is counted and dropped.
    pub output_bytes_max: usize,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutcome {
    /// Exit status; 128 + signal where a signal ended it.
    pub status: i32,
    /// Standard output, as far as kept.
    pub stdout: Vec<u8>,
    /// Standard error, as far as kept.
    pub stderr: Vec<u8>,
    /// Bytes of either that were not kept; not zero means that neither may be taken for the whole.
    pub dropped_bytes: u64,
    /// How long it ran.
    pub took: Duration,
}

/// What a sandbox has shown about itself; part of the receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxFacts {
    /// `process`, `container`, `kubernetes`.
    pub provider: String,
    /// How it is isolated: `root`, `user-namespace`.
    pub mode: String,
    /// User that restored code runs as, outside view.
    pub uid: u32,
    /// Network interfaces inside, besides a loopback that is down.
    pub interfaces: Vec<String>,
    /// Attempts to connect out that were made and failed, with their errors.
    pub refused_connections: Vec<String>,
    /// Limits in force, for people.
    pub limits: Vec<String>,
    /// Descriptors inherited besides the standard three; must be zero.
    pub inherited_descriptors: u32,
}

/// A running program in a sandbox.
#[async_trait]
pub trait SandboxProcess: fmt::Debug + Send + Sync {
    /// Whether it still runs.
    fn is_running(&mut self) -> bool;

    /// Asks it to end (`signal`, e.g. 2 for SIGINT), waits for at most `grace`, then kills it. Returns its status.
    async fn stop(&mut self, cx: &Cx, signal: i32, grace: Duration) -> Result<i32, DriverError>;

    /// The last bytes of its standard error.
    fn stderr_tail(&self) -> Vec<u8>;
}

/// An isolated place. Whoever opens one closes it; what a crash leaves, [`SandboxProvider::reap`] removes.
#[async_trait]
pub trait Sandbox: fmt::Debug + Send + Sync {
    /// The private directory that restores are written to: 0700, and belonging to the user that programs run as.
    fn root(&self) -> &Path;

    /// What it has shown about itself when it was opened.
    fn facts(&self) -> &SandboxFacts;

    /// Gives everything below `path` (inside the root) to the user that programs run as.
    async fn own(&self, cx: &Cx, path: &Path) -> Result<(), DriverError>;

    /// Runs a program to its end.
    async fn exec(&self, cx: &Cx, exec: Exec) -> Result<ExecOutcome, DriverError>;

    /// Starts a program that keeps running.
    async fn spawn(&self, cx: &Cx, exec: Exec) -> Result<Box<dyn SandboxProcess>, DriverError>;

    /// Kills what runs, removes everything, and says how many bytes were removed. A second call removes nothing.
    /// Forgetting it is forgiven by the reaper.
    async fn close(&self, cx: &Cx) -> Result<u64, DriverError>;
}

/// Makes sandboxes.
#[async_trait]
pub trait SandboxProvider: fmt::Debug + Send + Sync {
    /// Opens an empty sandbox with at least `needed_bytes` of room, proven isolated; otherwise an error with an `ENV-`
    /// or `EV-11` code.
    async fn open(&self, cx: &Cx, run: &RunId, needed_bytes: u64) -> Result<Arc<dyn Sandbox>, DriverError>;

    /// Removes what runs other than `live` left behind: processes, directories. Returns how many were removed.
    async fn reap(&self, cx: &Cx, live: &[RunId]) -> Result<usize, DriverError>;

    /// What would keep [`SandboxProvider::open`] from working here; empty when nothing would.
    async fn probe(&self, cx: &Cx) -> Result<Vec<Finding>, DriverError>;
}
