//! What the simulation pretends: a clock, places that hold copies, sources, sandboxes. Everything else in it is the product.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use seaworthy_engine::{Ledger, NotaryError};
use seaworthy_interface::copy::Written;
use seaworthy_interface::{
    Captured, CopyEntry, CopyPath, CopyReader, CopyWriter, Cx, Damage, Delivered, DriverError, EntryKind,
    ErrorKind, Exec, ExecOutcome, NewTarget, Restored, Restoring, Sandbox, SandboxFacts, SandboxProcess,
    SandboxProvider, Source, SourceFacts,
};
use seaworthy_model::assess::Facts;
use seaworthy_model::canonical;
use seaworthy_model::check::UserCheck;
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::id::{CopyId, Digest, RunId};
use seaworthy_model::receipt::{Head, Receipt, read_unverified};
use seaworthy_model::signature::{Envelope, sha256};
use seaworthy_model::verdict::{CheckOutcome, CheckReport};
use seaworthy_model::witness::Witness;
use seaworthy_model::witness::content::{Content, CutList};
use seaworthy_model::witness::sqlite::{Integrity, Orphans, SqliteWitness, TableContent};

/// The time of day as the controller sees it: the true time, and how far its clock is off.
#[derive(Debug)]
pub(crate) struct WallClock {
    start: Timestamp,
    origin: tokio::time::Instant,
    skew_seconds: AtomicI64,
}

impl WallClock {
    pub(crate) fn new(start: Timestamp) -> Self {
        Self { start, origin: tokio::time::Instant::now(), skew_seconds: AtomicI64::new(0) }
    }

    pub(crate) fn truth(&self) -> Timestamp {
        self.start + SignedDuration::try_from(self.origin.elapsed()).unwrap()
    }

    pub(crate) fn skew(&self) -> SignedDuration {
        SignedDuration::from_secs(self.skew_seconds.load(Ordering::SeqCst))
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.truth() + self.skew()
    }

    pub(crate) fn set_skew(&self, seconds: i64) {
        self.skew_seconds.store(seconds, Ordering::SeqCst);
    }

    /// Lets time pass until an instant of the true time.
    pub(crate) async fn pass_until(&self, instant: Timestamp) {
        if let Ok(rest) = Duration::try_from(instant.duration_since(self.truth())) {
            tokio::time::sleep(rest).await;
        }
    }
}

/// The ledger in memory, and the facts folded from it receipt by receipt.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    pub(crate) kept: Mutex<Kept>,
    /// How many appends are refused as if somebody else had been faster.
    pub(crate) contention: AtomicU64,
}

#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) envelopes: Vec<Envelope>,
    pub(crate) head: Option<Head>,
    pub(crate) facts: Facts,
    /// Receipts that nobody has looked at yet.
    pub(crate) fresh: Vec<Receipt>,
}

#[async_trait]
impl Ledger for Pages {
    async fn head(&self) -> Result<Option<Head>, NotaryError> {
        Ok(self.kept.lock().unwrap().head.clone())
    }

    async fn append(&self, expected: Option<&Head>, envelope: &Envelope) -> Result<bool, NotaryError> {
        let is_late =
            self.contention.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        let mut kept = self.kept.lock().unwrap();
        if is_late.is_ok() || kept.head.as_ref() != expected {
            return Ok(false);
        }
        let receipt = read_unverified(envelope).map_err(|error| NotaryError::Ledger(Box::new(error)))?;
        kept.head = Some(receipt.head());
        kept.facts.apply(&receipt);
        kept.fresh.push(receipt);
        kept.envelopes.push(envelope.clone());
        Ok(true)
    }
}

/// What is wrong with a copy. Nobody in the product sees this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    /// A row is missing.
    LostRow,
    /// A row is another one.
    OtherRow,
    /// The engine calls the image broken.
    BrokenImage,
    /// Bytes that the restore needs cannot be authenticated.
    Unreadable,
    /// Bytes that the restore does not need cannot be authenticated.
    RestUnreadable,
    /// The witness in the copy is another one.
    OtherWitness,
}

impl Harm {
    pub(crate) const ROT: [Self; 3] = [Self::Unreadable, Self::RestUnreadable, Self::OtherWitness];
    pub(crate) const LIES: [Self; 3] = [Self::LostRow, Self::OtherRow, Self::BrokenImage];

    /// Whether reading all of the repository finds it.
    pub(crate) fn is_in_the_bytes(self) -> bool {
        matches!(self, Self::Unreadable | Self::RestUnreadable)
    }
}

/// A copy as it lies in a repository.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) copy: CopyId,
    /// Index of its source.
    pub(crate) source: usize,
    pub(crate) run: RunId,
    /// Its number among all copies that were ever made.
    pub(crate) made: u64,
    pub(crate) point: Timestamp,
    /// When that really was.
    pub(crate) truth: Timestamp,
    pub(crate) finished: Timestamp,
    /// When it really was durable.
    pub(crate) done: Timestamp,
    pub(crate) is_complete: bool,
    pub(crate) witness: Witness,
    pub(crate) harm: Option<Harm>,
}

impl Stored {
    pub(crate) fn witness_digest(&self) -> Digest {
        sha256(&canonical::of(&self.witness).unwrap())
    }
}

/// A repository.
#[derive(Debug, Default)]
pub(crate) struct Place {
    pub(crate) copies: Vec<Stored>,
}

/// The witness of a source that holds so many rows with this sum.
pub(crate) fn witness(rows: u64, sum: u128) -> Witness {
    Witness::Sqlite(Box::new(SqliteWitness {
        version: 1,
        file: "state.sqlite".to_owned(),
        image: Content { size: 0, cuts: CutList::default(), digest: String::new() },
        properties: BTreeMap::new(),
        objects: Vec::new(),
        tables: vec![TableContent {
            name: "booking".to_owned(),
            rows: Some(rows),
            sum: format!("{sum:032x}"),
            unreadable: None,
        }],
        sequences: BTreeMap::new(),
        integrity: Integrity::Sound,
        orphans: Orphans::Counted { by_reference: BTreeMap::new() },
        may_be_empty: false,
    }))
}

/// What goes wrong around a drill, through no fault of the copy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Weather {
    pub(crate) takes: Duration,
    pub(crate) no_sandbox: bool,
    pub(crate) teardown_fails: bool,
    /// The damage of the control line does nothing.
    pub(crate) is_blind: bool,
    /// The scratch engine does not answer.
    pub(crate) engine_is_gone: bool,
    /// The answer to the user's question.
    pub(crate) question_fails: bool,
}

impl Weather {
    /// Whether a sound copy cannot be proven in it.
    pub(crate) fn is_foul(&self) -> bool {
        self.no_sandbox || self.teardown_fails || self.is_blind || self.engine_is_gone
    }
}

/// The driver, the sandbox and its provider of one drill.
#[derive(Debug, Clone)]
pub(crate) struct Double {
    pub(crate) weather: Weather,
    pub(crate) stored: Option<Stored>,
    pub(crate) clock: Arc<WallClock>,
    /// Seconds by which the clock is off from the middle of the run on.
    pub(crate) steps_to: Option<i64>,
}

#[derive(Debug)]
struct Scratch {
    weather: Weather,
    facts: SandboxFacts,
}

#[derive(Debug)]
struct Engine {
    weather: Weather,
    stored: Stored,
    is_damaged: AtomicBool,
}

fn unsupported<T>(what: &str) -> Result<T, DriverError> {
    Err(DriverError::new(ErrorKind::Unsupported, what))
}

/// A copy's reader: what is unreadable in it cannot be read.
#[derive(Debug)]
pub(crate) struct Reader(pub(crate) Stored);

impl CopyReader for Reader {
    fn kind(&self, _: &CopyPath) -> Result<EntryKind, DriverError> {
        unsupported("tell the kind")
    }
    fn list(&self, _: Option<&CopyPath>) -> Result<Vec<CopyEntry>, DriverError> {
        Ok(Vec::new())
    }
    fn read(&self, _: &CopyPath, _: u64) -> Result<Vec<u8>, DriverError> {
        unsupported("read")
    }
    fn open(&self, _: &CopyPath) -> Result<Box<dyn Read + Send>, DriverError> {
        unsupported("open")
    }
    fn restore(&self, _: &CopyPath, _: &Path, _: &Restoring) -> Result<Written, DriverError> {
        unsupported("restore")
    }
    fn read_rest(&self) -> Result<Written, DriverError> {
        match self.0.harm {
            Some(Harm::RestUnreadable | Harm::Unreadable) => {
                Err(DriverError::new(ErrorKind::Corrupt, "read the rest").code(FindingCode::ObjectDamaged))
            }
            _ => Ok(Written { files: 3, bytes: 500 }),
        }
    }
    fn fetched_bytes(&self) -> u64 {
        4096
    }
}

#[async_trait]
impl SandboxProvider for Double {
    async fn open(&self, _: &Cx, _: &RunId, _: u64) -> Result<Arc<dyn Sandbox>, DriverError> {
        if self.weather.no_sandbox {
            return Err(DriverError::new(ErrorKind::Exhausted, "open a sandbox").code(FindingCode::EnvDisk));
        }
        let facts = SandboxFacts {
            provider: "double".to_owned(),
            mode: "none".to_owned(),
            uid: 1,
            interfaces: Vec::new(),
            refused_connections: Vec::new(),
            limits: Vec::new(),
            inherited_descriptors: 0,
        };
        Ok(Arc::new(Scratch { weather: self.weather.clone(), facts }))
    }
    async fn reap(&self, _: &Cx, _: &[RunId]) -> Result<usize, DriverError> {
        Ok(0)
    }
    async fn probe(&self, _: &Cx) -> Result<Vec<Finding>, DriverError> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Sandbox for Scratch {
    fn root(&self) -> &Path {
        Path::new("/nowhere")
    }
    fn facts(&self) -> &SandboxFacts {
        &self.facts
    }
    async fn own(&self, _: &Cx, _: &Path) -> Result<(), DriverError> {
        Ok(())
    }
    async fn exec(&self, _: &Cx, _: Exec) -> Result<ExecOutcome, DriverError> {
        unsupported("run a program")
    }
    async fn spawn(&self, _: &Cx, _: Exec) -> Result<Box<dyn SandboxProcess>, DriverError> {
        unsupported("start a program")
    }
    async fn close(&self, _: &Cx) -> Result<u64, DriverError> {
        match self.weather.teardown_fails {
            true => Err(DriverError::new(ErrorKind::Other, "remove the sandbox")),
            false => Ok(4096),
        }
    }
}

#[async_trait]
impl Source for Double {
    async fn probe(&self, _: &Cx) -> Result<SourceFacts, DriverError> {
        Ok(SourceFacts {
            summary: "a double".to_owned(),
            identity: "live".to_owned(),
            size_bytes: 4096,
            log_bytes_per_hour: None,
            findings: Vec::new(),
        })
    }
    async fn capture(&self, _: &Cx, _: Arc<dyn CopyWriter>) -> Result<Captured, DriverError> {
        unsupported("capture")
    }
    async fn restore(
        &self,
        _: &Cx,
        _: &Witness,
        _: Arc<dyn CopyReader>,
        _: Arc<dyn Sandbox>,
    ) -> Result<Box<dyn Restored>, DriverError> {
        tokio::time::sleep(self.weather.takes / 2).await;
        if let Some(seconds) = self.steps_to {
            self.clock.set_skew(seconds);
        }
        tokio::time::sleep(self.weather.takes - self.weather.takes / 2).await;
        let stored = self.stored.clone().ok_or_else(|| DriverError::new(ErrorKind::NotFound, "restore"))?;
        if stored.harm == Some(Harm::Unreadable) {
            return Err(DriverError::new(ErrorKind::Corrupt, "restore").code(FindingCode::ObjectDamaged));
        }
        Ok(Box::new(Engine { weather: self.weather.clone(), stored, is_damaged: AtomicBool::new(false) }))
    }
    async fn deliver(
        &self,
        _: &Cx,
        _: &Witness,
        _: Arc<dyn CopyReader>,
        _: &NewTarget,
    ) -> Result<Delivered, DriverError> {
        unsupported("deliver")
    }
}

fn report(name: &str, outcome: CheckOutcome) -> CheckReport {
    CheckReport { name: name.to_owned(), outcome, detail: String::new(), findings: Vec::new() }
}

#[async_trait]
impl Restored for Engine {
    fn summary(&self) -> String {
        "a double".to_owned()
    }
    fn findings(&self) -> Vec<Finding> {
        Vec::new()
    }
    fn engine_identity(&self) -> Option<String> {
        Some("scratch".to_owned())
    }
    async fn compare(&self, _: &Cx, expected: &Witness) -> Result<Vec<CheckReport>, DriverError> {
        if self.weather.engine_is_gone {
            return Err(DriverError::new(ErrorKind::Unreachable, "ask the scratch engine"));
        }
        let (Witness::Sqlite(expected), Witness::Sqlite(truth)) = (expected, &self.stored.witness) else {
            return unsupported("compare another kind");
        };
        let mut observed = truth.clone();
        let table = &mut observed.tables[0];
        let lost = u64::from(self.stored.harm == Some(Harm::LostRow))
            + u64::from(self.is_damaged.load(Ordering::SeqCst));
        table.rows = table.rows.map(|rows| rows - lost);
        if self.stored.harm == Some(Harm::OtherRow) {
            table.sum = format!("{:032x}", 1);
        }
        if self.stored.harm == Some(Harm::BrokenImage) {
            observed.integrity =
                Integrity::Broken { messages: vec!["row missing from index".to_owned()], count: 1 };
        }
        Ok(expected.compare(&observed))
    }
    async fn newest(&self, _: &Cx) -> Result<Option<Timestamp>, DriverError> {
        Ok(None)
    }
    async fn answer(&self, _: &Cx, _: &UserCheck, _: Timestamp) -> Result<CheckReport, DriverError> {
        let outcome = if self.weather.question_fails { CheckOutcome::Failed } else { CheckOutcome::Passed };
        Ok(report("answer", outcome))
    }
    async fn write_probe(&self, _: &Cx) -> Result<CheckReport, DriverError> {
        Ok(report("write", CheckOutcome::Passed))
    }
    async fn damage(&self, _: &Cx, _: &Witness, _: u64) -> Result<Damage, DriverError> {
        self.is_damaged.store(!self.weather.is_blind, Ordering::SeqCst);
        Ok(Damage {
            description: "deleted one row".to_owned(),
            expected: vec![FindingCode::RowCount],
            checks: Vec::new(),
        })
    }
    async fn close(self: Box<Self>, _: &Cx) -> Result<(), DriverError> {
        Ok(())
    }
}
