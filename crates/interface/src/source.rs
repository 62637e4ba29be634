//! The door to something that holds state: probe it, capture it, restore it, measure what came back.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use seaworthy_model::check::UserCheck;
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::verdict::CheckReport;
use seaworthy_model::wal::{Lsn, Reached, Target, Timeline};
use seaworthy_model::witness::Witness;
use serde::{Deserialize, Serialize};

use crate::copy::{CopyPath, CopyReader, CopyWriter, Written};
use crate::cx::Cx;
use crate::error::{DriverError, ErrorKind};
use crate::journal::{Handed, Journal, Pushed, Streamed};
use crate::sandbox::Sandbox;

/// What a source says of itself without being read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFacts {
    /// For people: `PostgreSQL 15.18, database shop, 1.5 GB, 41 tables`.
    pub summary: String,
    /// Identity of what holds the state (a cluster's system identifier, a file's device and inode): two sources with
    /// the same one are the same.
    pub identity: String,
    /// Bytes that a restore needs, estimated.
    pub size_bytes: u64,
    /// Bytes of a database's log that are written in an hour, on average; unknown where nothing counts them, or not for long enough.
    pub log_bytes_per_hour: Option<u64>,
    /// What stands in the way of a backup or of a drill here, and what the source itself has wrong.
    pub findings: Vec<Finding>,
}

/// What a capture has put into the copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// The instant that the copy brings the source back to.
    pub point: Timestamp,
    /// The truth at that instant.
    pub witness: Witness,
    /// What is incomplete or wrong with the source; scope, torn files, invalid indexes.
    pub findings: Vec<Finding>,
    /// Whether everything in the declared scope is in the copy; if not, the run is INCOMPLETE (exit 3).
    pub is_complete: bool,
    /// Bytes that a restore needs.
    pub size_bytes: u64,
    /// Time spent on the witness beyond what the copy itself took, for people and receipts.
    pub witness_took: Duration,
    /// What the journal holds of this is held by earlier copies, which have been durable since: it may go.
    pub released: Option<Released>,
}

/// Which part of a log earlier copies hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Released {
    /// The cluster.
    pub system: u64,
    /// The timeline.
    pub timeline: Timeline,
    /// Everything from here on: what lies before may lead on from a copy behind which there is a hole, and is nowhere else.
    pub from: Lsn,
    /// Everything before this.
    pub before: Lsn,
}

/// A file of a server's log, as the server names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// Its name: 24 hexadecimal digits, with `.partial` or `.backup`, or `00000002.history`.
    pub name: String,
    /// The cluster whose server asks; unknown where it does not say.
    pub system: Option<u64>,
}

/// A damage made on purpose in a scratch restore: the control line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// What was done to what; no row values.
    pub description: String,
    /// Codes of which at least one must now be found.
    pub expected: Vec<FindingCode>,
    /// Names of the checks of which one must find it: those of what was damaged. Empty where any may.
    pub checks: Vec<String>,
}

/// A source restored into a sandbox, with its engine running.
#[async_trait]
pub trait Restored: fmt::Debug + Send + Sync {
    /// For people: `PostgreSQL 15.18 on a Unix socket`.
    fn summary(&self) -> String;

    /// What went wrong while restoring without ending it, e.g. messages of `pg_restore`.
    fn findings(&self) -> Vec<Finding>;

    /// The scratch engine's own identity, which must not be that of the source; `None` where there is no engine.
    fn engine_identity(&self) -> Option<String>;

    /// Where it ended, of a restore to a moment ([`Source::restore_until`]).
    fn reached(&self) -> Option<Reached> {
        None
    }

    /// Measures what was restored by the same code as in [`Source::capture`], and compares it with the witness: one report
    /// for each of [`Witness::checks`], in that order; of a restore to a moment, of which there is no witness, what can be said of it all the
    /// same. The judgement is the model's; a driver brings both sides together.
    async fn compare(&self, cx: &Cx, expected: &Witness) -> Result<Vec<CheckReport>, DriverError>;

    /// The newest instant found inside the data, where the data carry one.
    async fn newest(&self, cx: &Cx) -> Result<Option<Timestamp>, DriverError>;

    /// Answers one question of the user's.
    async fn answer(&self, cx: &Cx, check: &UserCheck, point: Timestamp) -> Result<CheckReport, DriverError>;

    /// Writes, reads back and undoes something the way an application would; passes when the restore can be used.
    async fn write_probe(&self, cx: &Cx) -> Result<CheckReport, DriverError>;

    /// Damages the restore in a way chosen by `seed`. The restore is worthless afterwards.
    async fn damage(&self, cx: &Cx, expected: &Witness, seed: u64) -> Result<Damage, DriverError>;

    /// Damages the restore so that a person's own question should notice: every row of a table is gone, one that a question
    /// names where one does. Where a driver knows nothing of the kind, what [`Self::damage`] does.
    async fn ruin(
        &self,
        cx: &Cx,
        expected: &Witness,
        checks: &[UserCheck],
        seed: u64,
    ) -> Result<Damage, DriverError> {
        // Only a driver knows which table a question is about.
        let _: &[UserCheck] = checks;
        self.damage(cx, expected, seed).await
    }

    /// Stops the engine.
    async fn close(self: Box<Self>, cx: &Cx) -> Result<(), DriverError>;
}

/// A new place for people to restore to; never a live one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewTarget {
    /// A directory that does not exist or is empty.
    Directory(PathBuf),
    /// A database that does not exist, on a server reached with the source's own settings or those given.
    Database {
        /// Host or socket directory; the source's own where omitted.
        host: Option<String>,
        /// Port; the source's own where omitted.
        port: Option<u16>,
        /// Role; the source's own where omitted.
        user: Option<String>,
        /// Name of the database to be made.
        database: String,
        /// Only these tables, `schema.table`; everything where empty.
        tables: Vec<String>,
    },
}

/// What a server does that is started on what was restored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Opening {
    /// It recovers to the moment, opens, and goes on by itself.
    #[default]
    Alone,
    /// It goes on to recover what another server writes, until it is promoted.
    Standby(Following),
}

/// Where a standby gets what its primary writes; from somewhere at least.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Following {
    /// How it connects to the primary, as libpq reads it; without a password.
    pub primary: Option<String>,
    /// Its replication slot there.
    pub slot: Option<String>,
    /// The command that hands it a file of the log, `restore_command`.
    pub fetch: Option<String>,
}

/// What a restore for people has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// What was written.
    pub written: Written,
    /// For people, with the next command.
    pub summary: String,
    /// What a person must know before using it.
    pub findings: Vec<Finding>,
}

/// One thing holding state. Never written to by any method here.
#[async_trait]
pub trait Source: fmt::Debug + Send + Sync {
    /// Asks what it is, and what would stand in the way. Reads nothing large; at most ten seconds.
    async fn probe(&self, cx: &Cx) -> Result<SourceFacts, DriverError>;

    /// Puts its state, as of one instant, into `to`, and takes the witness in the same snapshot.
    ///
    /// `Err` means that the copy must not be committed. After cancellation nothing of the source is held.
    async fn capture(&self, cx: &Cx, to: Arc<dyn CopyWriter>) -> Result<Captured, DriverError>;

    /// Restores a copy into an empty sandbox, with the real engine of the recorded version, and starts it.
    async fn restore(
        &self,
        cx: &Cx,
        witness: &Witness,
        from: Arc<dyn CopyReader>,
        into: Arc<dyn Sandbox>,
    ) -> Result<Box<dyn Restored>, DriverError>;

    /// Restores the first of these copies into an empty sandbox, as of a moment that its log holds, or that the logs of the copies behind
    /// it and the journal lead to: what [`Source::deliver_until`] does for people. Where the log is damaged or has a hole before the moment the error
    /// is `Corrupt` with `TM-11`; where it holds no such moment, `Refused` with the same.
    async fn restore_until(
        &self,
        cx: &Cx,
        copies: &[(Witness, Arc<dyn CopyReader>)],
        journal: Arc<dyn Journal>,
        into: Arc<dyn Sandbox>,
        until: &Target,
    ) -> Result<Box<dyn Restored>, DriverError> {
        drop((journal, into));
        let _ = copies;
        cx.check()?;
        Err(DriverError::new(
            ErrorKind::Unsupported,
            format!("restore to {until}: copies of this source hold no log"),
        )
        .hint("without --until a copy is drilled as of its own instant"))
    }

    /// Finds what would keep [`Source::deliver`] from beginning: a program that is missing, a server that does not answer or is too
    /// old, a database that exists. Reads nothing of the copy and writes nothing.
    async fn ready(&self, cx: &Cx, witness: &Witness, to: &NewTarget) -> Result<(), DriverError> {
        // Most restores need nothing but this program and room.
        let _ = (witness, to);
        Ok(cx.check()?)
    }

    /// Receives its log all the time and keeps it in the journal, each byte `every` so often at the latest, until it is stopped or
    /// cannot go on; `told` hears how far it is. What is kept is durable; what was not when it ends is still on the server.
    async fn stream(
        &self,
        cx: &Cx,
        lineage: &str,
        journal: Arc<dyn Journal>,
        every: Duration,
        told: &(dyn Fn(Streamed) + Send + Sync),
    ) -> Result<(), DriverError> {
        drop(journal);
        let (_, _, _) = (lineage, every, told);
        cx.check()?;
        Err(DriverError::new(ErrorKind::Unsupported, "receive the log: this source has none")
            .hint("a PostgreSQL source with mode = \"continuous\" has one"))
    }

    /// Keeps a file of its log that the server hands over (`archive_command`): durable in the journal when this returns. The same again changes
    /// nothing; other bytes than are kept of it, in the journal or in one of `copies`, are an error, as is a file of another cluster.
    async fn keep_log_file(
        &self,
        cx: &Cx,
        copies: &[(Witness, Arc<dyn CopyReader>)],
        journal: Arc<dyn Journal>,
        file: &LogFile,
        bytes: Bytes,
    ) -> Result<Pushed, DriverError> {
        drop((journal, bytes));
        let (_, _) = (copies, file);
        cx.check()?;
        Err(DriverError::new(ErrorKind::Unsupported, "keep a file of the log: this source has none")
            .hint("a PostgreSQL source with mode = \"continuous\" has one"))
    }

    /// Hands a file of its log to a server that recovers (`restore_command`), from `copies` and the journal, read record by record. It is
    /// [`Handed::Beyond`] only where nothing of it, and nothing behind it, is kept; a hole is an error.
    ///
    /// `copies` are those that may hold it, and the newest one of the log's history; `of` is the instant of the copy that is recovered, where the
    /// log that is wanted is not the newest one.
    async fn log_file(
        &self,
        cx: &Cx,
        copies: &[(Witness, Arc<dyn CopyReader>)],
        journal: Arc<dyn Journal>,
        file: &LogFile,
        of: Option<Timestamp>,
    ) -> Result<Handed, DriverError> {
        drop(journal);
        let (_, _, _) = (copies, file, of);
        cx.check()?;
        Err(DriverError::new(ErrorKind::Unsupported, "hand a file of the log over: this source has none")
            .hint("a PostgreSQL source with mode = \"continuous\" has one"))
    }

    /// What of a directory in which this source lay, or lies, each part of a copy belongs to: the part's path in the copy, and where the same is
    /// laid out in the same way. Nothing where a copy is not laid out as its source is.
    fn old_places(&self, witness: &Witness, old: &Path) -> Vec<(CopyPath, PathBuf)> {
        let (_, _) = (witness, old);
        Vec::new()
    }

    /// Restores the first of these copies to a new place for people, as of a moment that its log holds, or that the logs of the copies
    /// behind it and the journal lead to; a standby goes on from there. Refuses a place that holds anything, and a moment that none of them holds, before anything
    /// else is fetched.
    async fn deliver_until(
        &self,
        cx: &Cx,
        copies: &[(Witness, Arc<dyn CopyReader>)],
        journal: Arc<dyn Journal>,
        to: &NewTarget,
        until: &Target,
        opening: &Opening,
    ) -> Result<Delivered, DriverError> {
        drop(journal);
        let (_, _, _) = (copies, to, opening);
        cx.check()?;
        Err(DriverError::new(
            ErrorKind::Unsupported,
            format!("restore to {until}: copies of this source hold no log"),
        )
        .hint("without --until a copy is restored as of its own instant"))
    }

    /// Restores a copy to a new place for people. Refuses a place that holds anything.
    async fn deliver(
        &self,
        cx: &Cx,
        witness: &Witness,
        from: Arc<dyn CopyReader>,
        to: &NewTarget,
    ) -> Result<Delivered, DriverError>;
}
