//! The door to one copy that another tool has made: fetch it, restore it, examine what came back, damage it on purpose.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use seaworthy_model::adopt::recognise::DumpHead;
use seaworthy_model::check::UserCheck;
use seaworthy_model::finding::Finding;
use seaworthy_model::verdict::CheckReport;

use crate::cx::Cx;
use crate::error::DriverError;
use crate::sandbox::Sandbox;
use crate::source::Damage;

/// What was read of a copy, while it was brought into a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Stored bytes.
    pub bytes: u64,
    /// Their SHA-256 in hexadecimal digits; of a directory, that of the list of its files with theirs.
    pub sha256: String,
    /// What the copy says of itself, once it is opened; empty where it says nothing.
    pub head: DumpHead,
}

/// A copy that another tool has made, in the place where it lies. Never written to by any method here.
#[async_trait]
pub trait Adopted: fmt::Debug + Send + Sync {
    /// Names of the checks that [`AdoptedRestore::examine`] answers: known before anything is read.
    fn checks(&self) -> Vec<String>;

    /// Reads the stored bytes, once, into the sandbox, and opens what lies around the data (a compression). What is
    /// restored later is what was hashed here.
    ///
    /// An error blames the copy where it ends too early or is damaged.
    async fn fetch(&self, cx: &Cx, into: Arc<dyn Sandbox>) -> Result<Fetched, DriverError>;

    /// Restores what was fetched by a new engine in the sandbox, and leaves it running. A second call begins anew, in a
    /// place of its own; the engine of the first must have been closed.
    async fn restore(&self, cx: &Cx, into: Arc<dyn Sandbox>) -> Result<Box<dyn AdoptedRestore>, DriverError>;

    /// Damages what was fetched, in the sandbox, in a way chosen by `seed` that no whole copy can hide: what is restored next
    /// must be found to be wrong. Opens it again.
    async fn damage(&self, cx: &Cx, within: Arc<dyn Sandbox>, seed: u64) -> Result<Damage, DriverError>;
}

/// An adopted copy restored into a sandbox, with its engine running.
#[async_trait]
pub trait AdoptedRestore: fmt::Debug + Send + Sync {
    /// For people: `PostgreSQL 15.18 on a Unix socket`.
    fn summary(&self) -> String;

    /// The scratch engine's own identity; `None` where there is no engine.
    fn engine_identity(&self) -> Option<String>;

    /// What is to be said of it beside the checks, e.g. that it names roles that it does not hold.
    fn findings(&self) -> Vec<Finding>;

    /// Asks the engine's own questions of everything that was restored: one report for each of [`Adopted::checks`].
    async fn examine(&self, cx: &Cx) -> Result<Vec<CheckReport>, DriverError>;

    /// The newest instant found inside the data that is not after `point`, where the data carry one.
    async fn newest(&self, cx: &Cx, point: Timestamp) -> Result<Option<Timestamp>, DriverError>;

    /// Answers one question of the user's.
    async fn answer(&self, cx: &Cx, check: &UserCheck, point: Timestamp) -> Result<CheckReport, DriverError>;

    /// Writes, reads back and undoes something the way an application would.
    async fn write_probe(&self, cx: &Cx) -> Result<CheckReport, DriverError>;

    /// Stops the engine.
    async fn close(self: Box<Self>, cx: &Cx) -> Result<(), DriverError>;
}
