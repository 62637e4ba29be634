//! Receipts: the only memory. One signed statement for each act, chained to the one before.
//!
//! An in-toto Statement (v1) whose predicate is a receipt, spelled canonically ([`crate::canonical`]) and carried in a
//! DSSE envelope ([`crate::signature`]). `previous` is the digest of the payload before, so that receipts form a chain:
//! see [`crate::ledger`]. A slot is committed as [`Act::Due`] *before* its run begins, so that a run which is missed or
//! hidden leaves a hole that everybody can see.
//!
//! What is written here is readable for ever: members are added, never renamed or given another meaning; a change that
//! an old reader would misread raises [`SCHEMA`]. `formats/v1/` holds receipts that every later version must read.
//!
//! A receipt holds names, digests, counts, times and findings; never a row's value, never a secret. Spans of time are
//! whole milliseconds of a monotonic clock (`…_ms`); instants are UTC.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::canonical::{self, CanonicalError};
use crate::custody::Custody;
use crate::finding::{Finding, FindingCode, Severity};
use crate::id::{
    CopyId, Digest, KeyFileId, KeyName, RepositoryId, RepositoryName, RunId, ServiceName, SourceName,
};
use crate::objective::{Met, Objective};
use crate::placement::Comply;
use crate::retention::{Approved, Held, Pruned, Released, Retain};
use crate::signature::{Envelope, KeyId, SignatureError, SigningKey, TrustedKeys, sha256};
use crate::verdict::{Assurance, CheckOutcome, CheckReport, Verdict, judge};
use crate::wal::{MOMENT, Reached, Target};

/// `_type` of the statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// `predicateType` of the statement.
pub const PREDICATE_TYPE: &str = "https://seaworthy.dev/receipt/v1";
/// The newest `schema` that this version writes and reads.
pub const SCHEMA: u32 = 1;

// ---------------------------------------------------------------------------------------------------- the parts

/// What an act stored, restored or read: a name and the SHA-256 that identifies it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// For people: `copy:<id>`, `witness:<service>/<source>`.
    pub name: String,
    /// Algorithm (`sha256`) and lowercase hexadecimal digits.
    pub digest: BTreeMap<String, String>,
}

impl Subject {
    /// A subject identified by a SHA-256.
    #[must_use]
    pub fn new(name: impl Into<String>, digest: &Digest) -> Self {
        let hex = digest.0.strip_prefix("sha256:").unwrap_or(&digest.0).to_owned();
        Self { name: name.into(), digest: BTreeMap::from([("sha256".to_owned(), hex)]) }
    }
}

/// A repository, as far as a receipt names it. Never its location, which may hold a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryRef {
    /// Its own identity.
    pub id: RepositoryId,
    /// Its name in the configuration.
    pub name: RepositoryName,
    /// `disk`, `object-store`, `tape`, `nas`; as configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medium: Option<String>,
    /// The place that one disaster can reach at once; as configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
}

/// One phase of a run and how long it took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// `fetch`, `provision`, `restore`, `checks`, `control`, `teardown`, …
    pub name: String,
    /// Milliseconds of a monotonic clock.
    pub took_ms: u64,
}

/// A program that took part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// `seaworthy`, `pg_dump`, `postgres`.
    pub name: String,
    /// As it says itself.
    pub version: String,
}

/// Facts whose shape belongs to whoever observed them, kept as they are. Numbers without a canonical form become text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Value", into = "Value")]
pub struct Observed(Value);

impl Observed {
    /// Nothing was observed.
    #[must_use]
    pub fn nothing() -> Self {
        Self(Value::Null)
    }

    /// The facts.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.0
    }
}

impl From<Value> for Observed {
    fn from(value: Value) -> Self {
        Self(canonical::exact(value))
    }
}

impl From<Observed> for Value {
    fn from(observed: Observed) -> Self {
        observed.0
    }
}

/// A seed of a drawing, written as 16 hexadecimal digits because JSON readers round large integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Seed(pub u64);

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl From<Seed> for String {
    fn from(seed: Seed) -> Self {
        seed.to_string()
    }
}

/// Not 16 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a seed is 16 hexadecimal digits")]
pub struct SeedError;

impl TryFrom<String> for Seed {
    type Error = SeedError;

    fn try_from(text: String) -> Result<Self, SeedError> {
        if text.len() != 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(SeedError);
        }
        u64::from_str_radix(&text, 16).map(Self).map_err(|_| SeedError)
    }
}

/// How the recovery point was chosen, so that the choice can be replayed from the ledger; see [`crate::point`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// The rule in words that [`crate::point::PointRule`] prints: `latest`, `random in PT720H`, `before …`.
    pub rule: String,
    /// The seed, where one was drawn from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<Seed>,
    /// How many points the rule allowed.
    pub candidates: u64,
    /// SHA-256 of their copy ids, in order, each followed by a line feed.
    pub candidates_digest: Digest,
}

/// A time that was measured, beside what was promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// Milliseconds; `None` where nothing could be measured.
    pub measured_ms: Option<u64>,
    /// The promise at that time.
    pub target: Objective,
    /// Whether it was kept.
    pub met: Met,
}

impl Measured {
    /// Judges a measurement against its promise; without one it is unknown, never met.
    #[must_use]
    pub fn new(measured_ms: Option<u64>, target: Objective) -> Self {
        let span = measured_ms.and_then(|ms| i64::try_from(ms).ok()).map(SignedDuration::from_millis);
        Self { measured_ms, target, met: target.judge(span) }
    }
}

/// How a run ended that makes or moves bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Everything in the declared scope.
    Complete,
    /// Something in the declared scope is missing, and the findings name it.
    Incomplete,
    /// Nothing that counts.
    Failed,
}

/// The kind of an act that has a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActKind {
    /// [`Backup`].
    Backup,
    /// [`Drill`].
    Drill,
    /// [`Restore`].
    Restore,
    /// [`Verify`].
    Verify,
    /// [`Replicate`].
    Replicate,
}

impl fmt::Display for ActKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backup => "backup",
            Self::Drill => "drill",
            Self::Restore => "restore",
            Self::Verify => "verify",
            Self::Replicate => "replicate",
        })
    }
}

// ----------------------------------------------------------------------------------------------------- the acts

/// A slot, committed before its run begins: whatever happens, an ending is owed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// The run that will fill it.
    pub run: RunId,
    /// Service.
    pub service: ServiceName,
    /// Source.
    pub source: SourceName,
    /// What is due.
    pub act: ActKind,
    /// When it was due; the instant of the request where a person asked.
    pub due_at: Timestamp,
}

/// How much a backup read and wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sizes {
    /// Bytes that a restore needs.
    pub restore_bytes: u64,
    /// Bytes read from the source.
    pub read_bytes: u64,
    /// Bytes that were new to the repository, before compression.
    pub added_bytes: u64,
    /// Bytes written to the repository.
    pub stored_bytes: u64,
    /// Files, tables or streams.
    pub items: u64,
}

/// A backup that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// The run.
    pub run: RunId,
    /// Sequence of its [`Due`] receipt.
    pub due: Option<u64>,
    /// Service.
    pub service: ServiceName,
    /// Source.
    pub source: SourceName,
    /// Kind of the source: `postgres`, `sqlite`, `files`.
    pub source_kind: String,
    /// Identity of what holds the state, e.g. a cluster's system identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_identity: Option<String>,
    /// Where the copy lies.
    pub repository: RepositoryRef,
    /// The copy; `None` where nothing was committed.
    pub copy: Option<CopyId>,
    /// The instant that the copy brings the source back to, by the source's clock.
    pub point: Option<Timestamp>,
    /// When the run began.
    pub started: Timestamp,
    /// When the copy was durable, or the run gave up.
    pub finished: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// Digest of the witness.
    pub witness: Option<Digest>,
    /// How much was read and written.
    pub sizes: Sizes,
    /// What is incomplete, and what is wrong with the source itself.
    pub findings: Vec<Finding>,
    /// Programs that took part.
    pub tools: Vec<Tool>,
    /// Phases in order.
    pub phases: Vec<Phase>,
    /// Who ran it: user and host.
    pub executor: String,
}

/// The control line: a damage made on purpose, and whether the checks noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// Chooses the damage.
    pub seed: Seed,
    /// What was done to what.
    pub damage: String,
    /// Codes of which at least one must be found.
    pub expected: Vec<FindingCode>,
    /// How many checks were carried out again.
    pub executed: u64,
    /// The checks that then did not pass.
    pub failed: Vec<CheckReport>,
    /// Whether the damage was found under an expected code.
    pub caught: bool,
    /// How the user's own questions were answered after the damage, where the drill was to show that they can fail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<CheckReport>,
    /// Names of the checks of which one must find the damage; empty where any may, and in receipts from before it was said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<String>,
}

impl Control {
    /// Whether the recorded checks show that the damage was found; recomputed, whatever [`Control::caught`] says.
    #[must_use]
    pub fn is_caught(&self) -> bool {
        is_found(&self.failed, &self.expected, &self.checks)
    }
}

/// Whether a damage was found: one of these checks (any, where none is named) has failed under one of these codes. Anything else
/// that has gone wrong meanwhile is no sign that the damage was seen.
#[must_use]
pub fn is_found(failed: &[CheckReport], codes: &[FindingCode], checks: &[String]) -> bool {
    failed.iter().any(|check| {
        check.outcome == CheckOutcome::Failed
            && (checks.is_empty() || checks.contains(&check.name))
            && check.findings.iter().any(|finding| codes.contains(&finding.code))
    })
}

/// Clocks that are set to the right time step by seconds; what lies so far apart is of one moment.
pub const CLOCK_STEP: SignedDuration = SignedDuration::from_mins(2);

/// What became of the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Teardown {
    /// Whether it was looked for afterwards and nothing was left.
    pub proven: bool,
    /// Bytes removed.
    pub removed_bytes: u64,
    /// What was left, or why nobody could look; empty where proven.
    pub detail: String,
}

/// How much would have been lost, as the restore itself shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryPointMeasured {
    /// The newest instant found inside the restored data, where they carry one.
    pub newest: Option<Timestamp>,
    /// From that instant (the recovery point where the data carry none) to the start of the drill.
    pub exposure: Measured,
}

/// A drill that ended: a point restored into isolation, checked, damaged, checked again, torn down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drill {
    /// The run.
    pub run: RunId,
    /// Sequence of its [`Due`] receipt.
    pub due: Option<u64>,
    /// Service.
    pub service: ServiceName,
    /// Source.
    pub source: SourceName,
    /// Kind of the source: `postgres`, `sqlite`, `files`.
    pub source_kind: String,
    /// Where the copy was read from.
    pub repository: RepositoryRef,
    /// The copy.
    pub copy: CopyId,
    /// Sequence of the receipt of the backup that made it; `None` for a copy without one.
    pub backup: Option<u64>,
    /// The instant that the copy brings the source back to.
    pub point: Timestamp,
    /// How it was chosen.
    pub selection: Selection,
    /// When the run began; the RTO counts from here.
    pub started: Timestamp,
    /// When the sandbox was gone.
    pub finished: Timestamp,
    /// Phases in order.
    pub phases: Vec<Phase>,
    /// What the sandbox showed about itself.
    pub sandbox: Observed,
    /// The scratch engine, for people; its own identity, which is not the source's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// Names of the checks that had to be carried out: those of the witness, and the user's.
    pub expected_checks: Vec<String>,
    /// The checks that were carried out.
    pub checks: Vec<CheckReport>,
    /// The control line; `None` where there was no pass to doubt.
    pub control: Option<Control>,
    /// What it has shown.
    pub verdict: Verdict,
    /// Start to verified, against the promise.
    pub rto: Measured,
    /// What would have been lost, against the promise.
    pub rpo: RecoveryPointMeasured,
    /// What is wrong, and what kept the drill from deciding.
    pub findings: Vec<Finding>,
    /// Bytes fetched from the repository.
    pub fetched_bytes: u64,
    /// Bytes restored.
    pub restored_bytes: u64,
    /// Digest of the witness that the restore was compared with.
    pub witness: Option<Digest>,
    /// Programs that took part.
    pub tools: Vec<Tool>,
    /// Who ran it: user and host.
    pub executor: String,
    /// What became of the sandbox.
    pub teardown: Teardown,
    /// When the next drill is due, where a schedule says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_due: Option<Timestamp>,
    /// How the copy was brought back without this program's own engine; `None` where it was brought back with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub independence: Option<Independence>,
    /// The moment behind the copy to which the log was to lead; `None` where the copy's own instant was all that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Target>,
    /// Where that ended; `None` where it did not get there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<Reached>,
}

/// A copy brought back by stock restic with the password that somebody else holds, and what was shown of that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Independence {
    /// The program, and its version as it says itself; `None` where none could be started.
    pub program: Option<Tool>,
    /// SHA-256 of the program's file.
    pub program_digest: Option<Digest>,
    /// The key that its password has opened, as the program says itself; `None` where it opened none.
    pub key: Option<KeyFileId>,
    /// The name of that key in the register.
    pub key_name: Option<KeyName>,
    /// What the register says of its custody.
    pub custody: Option<Custody>,
    /// The key by which this program opens the repository.
    pub production_key: KeyFileId,
    /// Whether the password was another one than the one that this program uses.
    pub is_other_password: bool,
    /// The place that one disaster reaches together with the source: that of the service's first repository.
    pub home_site: Option<String>,
    /// The place that the copy was taken from.
    pub copy_site: Option<String>,
    /// What was looked for where the program ran, and was not there: the state directory, the password, this program's file.
    pub absent: Vec<Absence>,
    /// Files that the program has restored, and their bytes.
    pub restored_files: u64,
    /// Bytes of them.
    pub restored_bytes: u64,
}

/// Something that was looked for where stock restic ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absence {
    /// What: `state directory`, `catalogue`, `signing key`, `production password`, `this program`.
    pub what: String,
    /// Whether it could not be reached there.
    pub is_shown: bool,
}

/// What has to be out of reach where stock restic runs, for a drill to be independent of this program.
pub const ABSENT: [&str; 5] =
    ["state directory", "catalogue", "signing key", "production password", "this program"];

impl Independence {
    /// Why this is less than A6 asks for, each reason in words; empty where nothing is missing.
    ///
    /// What is not known is missing.
    #[must_use]
    pub fn shortfalls(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        match (&self.program, &self.program_digest) {
            (Some(_), Some(_)) => {}
            _ => reasons.push("which program restored it is not known".to_owned()),
        }
        match (&self.copy_site, &self.home_site) {
            (Some(copy), Some(home)) if copy != home => {}
            (Some(copy), Some(_)) => {
                reasons
                    .push(format!("the copy lies at `{copy}`, where the service's first repository is too"));
            }
            _ => reasons.push("at which site the copy lies is not known".to_owned()),
        }
        match &self.key {
            None => reasons.push("which key opened the repository is not known".to_owned()),
            Some(key) if *key == self.production_key => {
                reasons.push("the password opened the key that this program itself uses".to_owned());
            }
            Some(_) if !self.is_other_password => {
                reasons.push("the password is the one that this program itself uses".to_owned());
            }
            Some(_) => match self.custody {
                Some(Custody::Escrow | Custody::Recovery) => {}
                Some(Custody::Online) => {
                    reasons.push("the register says that the key is online, not in escrow".to_owned());
                }
                None => reasons
                    .push("the register names no holder of the key that opened the repository".to_owned()),
            },
        }
        for what in ABSENT {
            if !self.absent.iter().any(|absence| absence.what == what && absence.is_shown) {
                reasons.push(format!("it was not shown that the {what} was out of reach"));
            }
        }
        if self.restored_files == 0 {
            reasons.push("the program restored no file".to_owned());
        }
        reasons
    }
}

/// The engine that ran inside the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    /// For people: `PostgreSQL 15.18 on a Unix socket`.
    pub summary: String,
    /// Its own identity.
    pub identity: Option<String>,
}

impl Drill {
    /// Why the stated verdict does not follow from what the receipt itself records; empty when it follows.
    ///
    /// A pass needs all of: every expected check carried out once and passed; from A4 upwards a witness and a control
    /// line; that line caught; bytes fetched; the sandbox shown to be gone; an end that is not before its start by more than a
    /// clock steps when it is set right; no critical finding. A verdict that is worse than the facts is believed: only a pass has to be earned.
    #[must_use]
    pub fn contradictions(&self) -> Vec<Finding> {
        let Verdict::Pass(level) = self.verdict else { return Vec::new() };
        let subject = self.run.to_string();
        let mut findings = Vec::new();
        let mut add = |code, detail: String| findings.push(Finding::new(code, subject.clone(), detail));
        if self.checks.is_empty() {
            add(FindingCode::NothingChecked, "a pass without a check".to_owned());
        } else if judge(&self.expected_checks, &self.checks, level) != Verdict::Pass(level) {
            add(
                FindingCode::ChecksMissing,
                format!(
                    "a pass that its checks do not bear out: {} expected, {} carried out, {} passed",
                    self.expected_checks.len(),
                    self.checks.len(),
                    self.checks.iter().filter(|check| check.outcome == CheckOutcome::Passed).count()
                ),
            );
        }
        match &self.control {
            Some(control) if control.caught && control.is_caught() => {}
            Some(_) => add(
                FindingCode::CheckerBlind,
                "a pass whose checks did not notice a damage made on purpose".to_owned(),
            ),
            // Without a witness there is nothing that a damage could be told from.
            None if level < Assurance::A4 => {}
            None => add(FindingCode::CheckerBlind, format!("{level:?} without a control line")),
        }
        if level < Assurance::A3 {
            add(
                FindingCode::NothingChecked,
                format!("a drill cannot show less than A3, this one says {level:?}"),
            );
        }
        if level >= Assurance::A6 {
            for reason in self.independence.as_ref().map_or_else(
                || vec!["it was restored by this program's own engine".to_owned()],
                Independence::shortfalls,
            ) {
                add(FindingCode::NotIndependent, format!("{level:?}, but {reason}"));
            }
            if !self.checks.iter().any(|check| check.name.starts_with("user:")) {
                add(FindingCode::ChecksMissing, format!("{level:?} without a question of the user's"));
            }
            if !matches!(self.rto.met, Met::Met | Met::NotApplicable) {
                add(FindingCode::RtoMissed, format!("{level:?} beside a recovery time that was not met"));
            }
        }
        if level >= Assurance::A4 && self.witness.is_none() {
            add(FindingCode::NoWitness, format!("{level:?} without a witness"));
        }
        if self.until.is_some() {
            if !self.expected_checks.iter().any(|check| check == MOMENT) {
                add(
                    FindingCode::ChecksMissing,
                    "a moment was asked for, and nothing was to show it".to_owned(),
                );
            }
            if self.reached.as_ref().map(|reached| &reached.target) != self.until.as_ref() {
                add(FindingCode::MomentMissed, "a pass that does not say where recovery ended".to_owned());
            }
        }
        if self.fetched_bytes == 0 {
            add(FindingCode::WrongCopyRead, "nothing was fetched from the repository".to_owned());
        }
        if !self.teardown.proven {
            add(FindingCode::ScratchNotFresh, "the sandbox was not shown to be gone".to_owned());
        }
        if self.started.duration_since(self.finished) > CLOCK_STEP {
            add(FindingCode::ClockSkew, "the run ended before it began".to_owned());
        }
        if let Some(finding) =
            self.findings.iter().find(|finding| finding.code.severity() == Severity::Critical)
        {
            add(finding.code, format!("a pass beside a critical finding: {}", finding.detail));
        }
        findings
    }

    /// Whether it shows that the copy itself is bad. A log behind it that leads nowhere leaves the copy as good as it was.
    #[must_use]
    pub fn blames_the_copy(&self) -> bool {
        let is_of_copy = |check: &CheckReport| check.outcome == CheckOutcome::Failed && check.name != MOMENT;
        self.verdict == Verdict::Fail
            && (self.until.is_none() || self.checks.iter().any(is_of_copy) || self.checks.is_empty())
    }

    /// Whether it shows that what was captured is wrong, and with it every copy of the capture: only damaged bytes are one copy's own.
    ///
    /// Where nothing critical is named nobody knows, and that is no reason to rely on the others.
    #[must_use]
    pub fn blames_the_capture(&self) -> bool {
        let codes = || self.findings.iter().map(|finding| finding.code);
        let mut critical = codes().filter(|code| code.severity() == Severity::Critical).peekable();
        self.blames_the_copy()
            && (critical.peek().is_none() || critical.any(|code| !code.is_of_stored_bytes()))
    }

    /// The same drill with a verdict that its own facts bear out: a pass that they deny becomes inconclusive, and the
    /// contradictions become findings. To be called before it is sealed; [`seal`] refuses an undeserved pass.
    #[must_use]
    pub fn settled(mut self) -> Self {
        let contradictions = self.contradictions();
        if !contradictions.is_empty() {
            self.verdict = Verdict::Inconclusive;
            self.findings.extend(contradictions);
        }
        self
    }

    /// The level that this receipt proves; `None` unless it is a pass that its own facts bear out.
    #[must_use]
    pub fn proves(&self) -> Option<Assurance> {
        match self.verdict {
            Verdict::Pass(level) if self.contradictions().is_empty() => Some(level),
            Verdict::Pass(_) | Verdict::Inconclusive | Verdict::Fail => None,
        }
    }
}

/// A restore for people that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// The run.
    pub run: RunId,
    /// Sequence of its [`Due`] receipt.
    pub due: Option<u64>,
    /// Service.
    pub service: ServiceName,
    /// Source.
    pub source: SourceName,
    /// Kind of the source: `postgres`, `sqlite`, `files`.
    pub source_kind: String,
    /// Where the copy was read from.
    pub repository: RepositoryRef,
    /// The copy.
    pub copy: CopyId,
    /// Sequence of the receipt of the backup that made it.
    pub backup: Option<u64>,
    /// The instant that the copy brings the source back to.
    pub point: Timestamp,
    /// The moment that was asked for, where it is another one than the copy's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Target>,
    /// How it was chosen.
    pub selection: Selection,
    /// Where it was restored to, for people; no credential.
    pub target: String,
    /// The tables or files that were asked for; everything where empty.
    pub scope: Vec<String>,
    /// When the run began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// Phases in order.
    pub phases: Vec<Phase>,
    /// How it ended.
    pub outcome: Outcome,
    /// Files written.
    pub written_files: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Bytes fetched from the repository.
    pub fetched_bytes: u64,
    /// What a person must know before using it.
    pub findings: Vec<Finding>,
    /// Programs that took part.
    pub tools: Vec<Tool>,
    /// Who ran it: user and host.
    pub executor: String,
}

/// A copy of which every byte was read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedCopy {
    /// The copy.
    pub copy: CopyId,
    /// Service and source; `None` for a copy that somebody else made.
    pub of: Option<SourceRef>,
    /// Sequence of the receipt of the backup that made it.
    pub backup: Option<u64>,
    /// The instant that it brings the source back to.
    pub point: Timestamp,
    /// Whether every byte is authentic.
    pub intact: bool,
}

/// A source of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SourceRef {
    /// Service.
    pub service: ServiceName,
    /// Source.
    pub source: SourceName,
}

/// A repository whose bytes were read back and authenticated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verify {
    /// The run.
    pub run: RunId,
    /// Sequence of its [`Due`] receipt.
    pub due: Option<u64>,
    /// The repository.
    pub repository: RepositoryRef,
    /// Copies that were looked at whole. Each says whose it is, so that damage is not forgotten with another receipt.
    pub copies: Vec<VerifiedCopy>,
    /// Share of the stored bytes that was read, in percent; 0 where only the structure was.
    pub read_percent: u32,
    /// Bytes read.
    pub read_bytes: u64,
    /// When the run began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Who ran it: user and host.
    pub executor: String,
}

/// The ending of a slot whose run never wrote one: killed, crashed, given up. Written by whoever noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abandoned {
    /// The run.
    pub run: RunId,
    /// Sequence of its [`Due`] receipt.
    pub due: Option<u64>,
    /// Service.
    pub service: ServiceName,
    /// Source.
    pub source: SourceName,
    /// What it was.
    pub act: ActKind,
    /// What is known of it.
    pub reason: String,
}

/// A key that signs from the next receipt on. Signed by a key that was trusted until then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChange {
    /// The new key's name.
    pub introduces: KeyId,
    /// The new key, SPKI PEM.
    pub public_key: String,
    /// The key that is no longer trusted from the next receipt on.
    pub retires: Option<KeyId>,
    /// Why.
    pub reason: String,
}

/// A copy that lies in a repository and that no receipt of this ledger had made. What is said of it is what the copy says
/// of itself; nothing has been shown of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Service.
    pub service: ServiceName,
    /// Source.
    pub source: SourceName,
    /// The run that made it.
    pub run: RunId,
    /// Where it lies.
    pub repository: RepositoryRef,
    /// The copy.
    pub copy: CopyId,
    /// The instant that it brings the source back to, by the source's clock.
    pub point: Timestamp,
    /// When it was durable, by the clock of whoever made it.
    pub finished: Timestamp,
    /// Whether all of the declared scope is in it; incomplete where it does not say.
    pub outcome: Outcome,
    /// Bytes that a restore needs.
    pub restore_bytes: u64,
    /// Bytes that it added to the repository.
    pub stored_bytes: u64,
    /// Digest of its witness; `None` where nobody who is trusted here has signed it.
    pub witness: Option<Digest>,
    /// Identity of what held the state, e.g. a cluster's system identifier: a drill's engine must be another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_identity: Option<String>,
    /// Who looked: user and host.
    pub executor: String,
}

/// A copy that is no longer in its repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// Service.
    pub service: ServiceName,
    /// Source.
    pub source: SourceName,
    /// Where it lay.
    pub repository: RepositoryRef,
    /// The copy.
    pub copy: CopyId,
    /// Sequence of the receipt by which it was known.
    pub known_by: u64,
    /// The newest complete copy that remains; `None` where none does.
    pub newest: Option<Remaining>,
    /// Who looked: user and host.
    pub executor: String,
}

/// The newest complete copy of a source after another one has gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remaining {
    /// Sequence of the receipt by which it is known.
    pub sequence: u64,
    /// Where it lies.
    pub repository: RepositoryId,
    /// The copy.
    pub copy: CopyId,
    /// The instant that it brings the source back to; when its run began where the source dated it after its end, and when it was
    /// durable where that is not known.
    pub point: Timestamp,
}

/// A replication of one copy into another repository that ended.
///
/// The replica holds the same trees, and is another copy: it may be lost, damaged and proven by itself, so nothing that was shown of
/// the original is said of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replicate {
    /// The run.
    pub run: RunId,
    /// Sequence of its [`Due`] receipt.
    pub due: Option<u64>,
    /// Service.
    pub service: ServiceName,
    /// Source.
    pub source: SourceName,
    /// Where the original was read from.
    pub from: RepositoryRef,
    /// The original.
    pub original: CopyId,
    /// Sequence of the receipt by which the original is known.
    pub known_by: u64,
    /// The run that captured it.
    pub captured_by: RunId,
    /// Where the replica was stored.
    pub repository: RepositoryRef,
    /// The replica; `None` when none was stored.
    pub copy: Option<CopyId>,
    /// Whether it was there already, without a receipt.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_there: bool,
    /// The instant that it brings the source back to, by the source's clock.
    pub point: Timestamp,
    /// When the run that captured it began, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture_began: Option<Timestamp>,
    /// When the original was durable.
    pub captured: Timestamp,
    /// What the original holds: all of the declared scope, or not; failed where no replica was stored.
    pub outcome: Outcome,
    /// Whether the capture found something that no healthy source has.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_implausible: bool,
    /// Whether the original was dated by a clock that ran ahead, so that the age of both is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_doubted: bool,
    /// Bytes that a restore needs.
    pub restore_bytes: u64,
    /// What the run has moved, for all copies that it replicated together.
    pub moved: Moved,
    /// Digest of the witness.
    pub witness: Option<Digest>,
    /// Identity of what held the state, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_identity: Option<String>,
    /// When the run began.
    pub started: Timestamp,
    /// When the replica was durable and read back as far as [`Replicate::moved`] says.
    pub finished: Timestamp,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Who ran it: user and host.
    pub executor: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_none(count: &u64) -> bool {
    *count == 0
}

/// What a replication has moved and read back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Copies that this is the sum of.
    pub copies: u64,
    /// Bytes fetched from the repository that the originals lie in.
    pub read_bytes: u64,
    /// Bytes stored in the other one.
    pub stored_bytes: u64,
    /// Packs stored.
    pub packs: u64,
    /// Of these, packs that were read back whole and have the SHA-256 that is their name, and those of which the place that they were
    /// stored in told that SHA-256.
    pub packs_verified: u64,
    /// Of the verified ones, those of which it was told and nothing was read: the word of that place. Absent is none.
    #[serde(default, skip_serializing_if = "is_none")]
    pub packs_attested: u64,
    /// Pieces of content that were sent; the others were there.
    pub blobs: u64,
    /// Of these, pieces that were found by the other repository's index, read back, decrypted and hashed.
    pub blobs_verified: u64,
}

/// What was done with a key of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyDeed {
    /// A key was added, and then shown to open the repository.
    Added,
    /// A key was removed.
    Removed,
    /// Whoever holds a key was asked to show that it opens the repository.
    Checked,
}

impl fmt::Display for KeyDeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Checked => "checked",
        })
    }
}

/// Something that was done with a key of a repository, or asked of its holder. Never its password, nor where that is read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryKey {
    /// The repository.
    pub repository: RepositoryRef,
    /// What was done.
    pub deed: KeyDeed,
    /// The key: the one that was added or removed, or that opened the repository; `None` where a check opened none.
    pub key: Option<KeyFileId>,
    /// The key that it takes the place of, or that took its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<KeyFileId>,
    /// Its name in the register.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<KeyName>,
    /// What the register said of its custody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custody: Option<Custody>,
    /// Who held it, by the register.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// What was read with it, so that it is more than a guess that it can: `snapshot <id>`, or that there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<String>,
    /// The key files that were there afterwards.
    pub keys: Vec<KeyFileId>,
    /// What is wrong; empty where nothing is.
    pub findings: Vec<Finding>,
    /// When.
    pub finished: Timestamp,
    /// Who did it: user and host.
    pub executor: String,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// A slot was committed.
    Due(Due),
    /// A backup ended.
    Backup(Box<Backup>),
    /// A drill ended.
    Drill(Box<Drill>),
    /// A restore ended.
    Restore(Box<Restore>),
    /// A verification of a repository ended.
    Verify(Box<Verify>),
    /// A run was given up by somebody else.
    Abandoned(Abandoned),
    /// The signing key changed.
    KeyChange(KeyChange),
    /// A copy without a receipt was found in a repository.
    Found(Box<Found>),
    /// A copy is no longer in its repository.
    Gone(Box<Gone>),
    /// A replication ended.
    Replicate(Box<Replicate>),
    /// It was decided which copies go.
    Retain(Box<Retain>),
    /// Something is held.
    Hold(Held),
    /// A hold ended.
    Release(Released),
    /// A person let more go at once.
    Approve(Box<Approved>),
    /// What no copy needs was taken out of a repository.
    Prune(Box<Pruned>),
    /// A key of a repository was added, removed or checked.
    Key(Box<RepositoryKey>),
    /// Somebody looked where all copies are, and judged it.
    Comply(Box<Comply>),
}

impl Act {
    /// The act's word: `due`, `backup`, `drill`, `restore`, `verify`, `abandoned`, `key-change`, `found`, `gone`,
    /// `replicate`, `retain`, `hold`, `release`, `approve`, `prune`, `key`, `comply`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Due(_) => "due",
            Self::Backup(_) => "backup",
            Self::Drill(_) => "drill",
            Self::Restore(_) => "restore",
            Self::Verify(_) => "verify",
            Self::Abandoned(_) => "abandoned",
            Self::KeyChange(_) => "key-change",
            Self::Found(_) => "found",
            Self::Gone(_) => "gone",
            Self::Replicate(_) => "replicate",
            Self::Retain(_) => "retain",
            Self::Hold(_) => "hold",
            Self::Release(_) => "release",
            Self::Approve(_) => "approve",
            Self::Prune(_) => "prune",
            Self::Key(_) => "key",
            Self::Comply(_) => "comply",
        }
    }

    /// Every source that it says something about.
    #[must_use]
    pub fn concerns(&self) -> BTreeSet<SourceRef> {
        match self {
            Self::Verify(act) => act.copies.iter().filter_map(|copy| copy.of.clone()).collect(),
            // What a look says of a source is said of its places, and changes nothing of its history.
            Self::Comply(_) => BTreeSet::new(),
            Self::Due(_)
            | Self::Backup(_)
            | Self::Drill(_)
            | Self::Restore(_)
            | Self::Abandoned(_)
            | Self::KeyChange(_)
            | Self::Found(_)
            | Self::Gone(_)
            | Self::Replicate(_)
            | Self::Retain(_)
            | Self::Hold(_)
            | Self::Release(_)
            | Self::Approve(_)
            | Self::Prune(_)
            | Self::Key(_) => self
                .about()
                .map(|(service, source)| SourceRef { service: service.clone(), source: source.clone() })
                .into_iter()
                .collect(),
        }
    }

    /// What it claims and its own facts deny; see [`Drill::contradictions`] and [`Comply::contradictions`].
    #[must_use]
    pub fn contradictions(&self) -> Vec<Finding> {
        match self {
            Self::Drill(act) => act.contradictions(),
            Self::Comply(act) => act.contradictions(),
            Self::Due(_)
            | Self::Backup(_)
            | Self::Restore(_)
            | Self::Verify(_)
            | Self::Abandoned(_)
            | Self::KeyChange(_)
            | Self::Found(_)
            | Self::Gone(_)
            | Self::Replicate(_)
            | Self::Retain(_)
            | Self::Hold(_)
            | Self::Release(_)
            | Self::Approve(_)
            | Self::Prune(_)
            | Self::Key(_) => Vec::new(),
        }
    }

    /// The copy that it has made another one of.
    #[must_use]
    pub fn replicates(&self) -> Option<(&RepositoryId, &CopyId)> {
        match self {
            Self::Replicate(act) => Some((&act.from.id, &act.original)),
            Self::Due(_)
            | Self::Backup(_)
            | Self::Drill(_)
            | Self::Restore(_)
            | Self::Verify(_)
            | Self::Abandoned(_)
            | Self::KeyChange(_)
            | Self::Found(_)
            | Self::Gone(_)
            | Self::Retain(_)
            | Self::Hold(_)
            | Self::Release(_)
            | Self::Approve(_)
            | Self::Prune(_)
            | Self::Key(_)
            | Self::Comply(_) => None,
        }
    }

    /// The copies that it says something about, beyond having stored them.
    #[must_use]
    pub fn judges(&self) -> Vec<(&RepositoryId, &CopyId)> {
        match self {
            Self::Drill(act) => vec![(&act.repository.id, &act.copy)],
            Self::Verify(act) => act.copies.iter().map(|copy| (&act.repository.id, &copy.copy)).collect(),
            Self::Gone(act) => vec![(&act.repository.id, &act.copy)],
            Self::Retain(act) => {
                let leaving = act.marked.iter().chain(&act.removing).map(|one| &one.copy);
                let staying = act.unmarked.iter().map(|one| &one.copy);
                leaving.chain(staying).map(|copy| (&act.repository.id, copy)).collect()
            }
            Self::Due(_)
            | Self::Backup(_)
            | Self::Restore(_)
            | Self::Abandoned(_)
            | Self::KeyChange(_)
            | Self::Found(_)
            | Self::Replicate(_)
            | Self::Hold(_)
            | Self::Release(_)
            | Self::Approve(_)
            | Self::Prune(_)
            | Self::Key(_)
            | Self::Comply(_) => Vec::new(),
        }
    }

    /// The service and source it is about; `None` for what concerns a whole repository or the ledger.
    #[must_use]
    pub fn about(&self) -> Option<(&ServiceName, &SourceName)> {
        match self {
            Self::Due(act) => Some((&act.service, &act.source)),
            Self::Backup(act) => Some((&act.service, &act.source)),
            Self::Drill(act) => Some((&act.service, &act.source)),
            Self::Restore(act) => Some((&act.service, &act.source)),
            Self::Abandoned(act) => Some((&act.service, &act.source)),
            Self::Found(act) => Some((&act.service, &act.source)),
            Self::Gone(act) => Some((&act.service, &act.source)),
            Self::Replicate(act) => Some((&act.service, &act.source)),
            Self::Retain(act) => Some((&act.service, &act.source)),
            Self::Approve(act) => Some((&act.service, &act.source)),
            Self::Verify(_)
            | Self::KeyChange(_)
            | Self::Hold(_)
            | Self::Release(_)
            | Self::Prune(_)
            | Self::Key(_)
            | Self::Comply(_) => None,
        }
    }

    /// The run it belongs to.
    #[must_use]
    pub fn run(&self) -> Option<&RunId> {
        match self {
            Self::Due(act) => Some(&act.run),
            Self::Backup(act) => Some(&act.run),
            Self::Drill(act) => Some(&act.run),
            Self::Restore(act) => Some(&act.run),
            Self::Verify(act) => Some(&act.run),
            Self::Abandoned(act) => Some(&act.run),
            Self::Replicate(act) => Some(&act.run),
            Self::Retain(act) => Some(&act.run),
            Self::Prune(act) => Some(&act.run),
            Self::Comply(act) => Some(&act.run),
            // What was found belongs to the run that made it, and this receipt is not one of that run's.
            Self::KeyChange(_)
            | Self::Found(_)
            | Self::Gone(_)
            | Self::Hold(_)
            | Self::Release(_)
            | Self::Approve(_)
            | Self::Key(_) => None,
        }
    }

    /// The slot that it ends.
    #[must_use]
    pub fn ends(&self) -> Option<u64> {
        match self {
            Self::Backup(act) => act.due,
            Self::Drill(act) => act.due,
            Self::Restore(act) => act.due,
            Self::Verify(act) => act.due,
            Self::Abandoned(act) => act.due,
            Self::Replicate(act) => act.due,
            // What retention does has no slot: it is sealed before it is done.
            Self::Due(_)
            | Self::KeyChange(_)
            | Self::Found(_)
            | Self::Gone(_)
            | Self::Retain(_)
            | Self::Hold(_)
            | Self::Release(_)
            | Self::Approve(_)
            | Self::Prune(_)
            | Self::Key(_)
            | Self::Comply(_) => None,
        }
    }

    /// What it stored or restored; the act's own digest where it did neither, since a statement needs a subject.
    fn subjects(&self) -> Result<Vec<Subject>, CanonicalError> {
        let copy = |id: &CopyId| Subject::new(format!("copy:{id}"), &Digest(format!("sha256:{id}")));
        let witness = |digest: &Digest| Subject::new("witness", digest);
        let mut subjects = Vec::new();
        match self {
            Self::Backup(act) => {
                subjects.extend(act.copy.as_ref().map(copy));
                subjects.extend(act.witness.as_ref().map(witness));
            }
            Self::Drill(act) => {
                subjects.push(copy(&act.copy));
                subjects.extend(act.witness.as_ref().map(witness));
            }
            Self::Restore(act) => subjects.push(copy(&act.copy)),
            Self::Found(act) => {
                subjects.push(copy(&act.copy));
                subjects.extend(act.witness.as_ref().map(witness));
            }
            Self::Gone(act) => subjects.push(copy(&act.copy)),
            Self::Replicate(act) => {
                subjects.push(copy(&act.original));
                subjects.extend(act.copy.as_ref().map(copy));
                subjects.extend(act.witness.as_ref().map(witness));
            }
            Self::Verify(act) => subjects.extend(act.copies.iter().map(|one| copy(&one.copy))),
            Self::Retain(act) => subjects.extend(act.removing.iter().map(|one| copy(&one.copy))),
            Self::Hold(_)
            | Self::Release(_)
            | Self::Approve(_)
            | Self::Prune(_)
            | Self::Due(_)
            | Self::Abandoned(_)
            | Self::KeyChange(_) => {}
            // The name of a key file is the SHA-256 of its bytes.
            Self::Key(act) => subjects.extend(
                act.key
                    .as_ref()
                    .map(|key| Subject::new(format!("key:{key}"), &Digest(format!("sha256:{key}")))),
            ),
            Self::Comply(act) => subjects.extend(act.counted().iter().map(copy)),
        }
        if subjects.is_empty() {
            subjects.push(Subject::new(format!("act:{}", self.word()), &sha256(&canonical::of(self)?)));
        }
        Ok(subjects)
    }
}

// ------------------------------------------------------------------------------------------------- the statement

#[derive(Serialize, Deserialize)]
struct Statement<A> {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Predicate<A>,
}

#[derive(Serialize, Deserialize)]
struct Predicate<A> {
    schema: u32,
    sequence: u64,
    previous: Option<Digest>,
    at: Timestamp,
    act: A,
}

/// The end of a ledger: whoever knows it notices what was cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Sequence of the last receipt; the first is 1.
    pub sequence: u64,
    /// Digest of its payload.
    pub digest: Digest,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.sequence, self.digest)
    }
}

/// A receipt, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Its place in the ledger; the first is 1.
    pub sequence: u64,
    /// Digest of the receipt before; `None` for the first.
    pub previous: Option<Digest>,
    /// When it was sealed, by the clock of whoever sealed it.
    pub at: Timestamp,
    /// What it is about.
    pub subject: Vec<Subject>,
    /// What was done.
    pub act: Act,
    /// Digest of its own payload.
    pub digest: Digest,
}

impl Receipt {
    /// The head of a ledger that ends with it.
    #[must_use]
    pub fn head(&self) -> Head {
        Head { sequence: self.sequence, digest: self.digest.clone() }
    }
}

/// Why a receipt cannot be sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It has no canonical form.
    #[error("seal a receipt")]
    Canonical(#[from] CanonicalError),
    /// A pass that its own facts deny; see [`Drill::settled`].
    #[error("seal a pass that its own facts deny: {0}")]
    Undeserved(Finding),
}

/// Why a receipt cannot be read or believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// The envelope or its signature.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Not a receipt, or one that nobody here has written.
    #[error("this is not a receipt: {0}")]
    NotAReceipt(String),
    /// Signed, but not spelled canonically.
    #[error("the payload is not canonical JSON")]
    NotCanonical,
    /// A receipt of a later version of this program: its place in the chain can be verified, its act cannot be read.
    #[error("receipt {sequence} (schema {schema}) holds what this version cannot read: {detail}")]
    TooNew {
        /// Its place.
        sequence: u64,
        /// Its schema.
        schema: u32,
        /// What was not understood.
        detail: String,
    },
}

/// Signs what was done as the receipt after `after`; the first of a ledger where that is `None`.
///
/// A pass that its own facts deny is refused: whatever goes wrong before, a false PASS is not signed.
pub fn seal(act: &Act, at: Timestamp, after: Option<&Head>, key: &SigningKey) -> Result<Envelope, SealError> {
    if let Some(contradiction) = act.contradictions().into_iter().next() {
        return Err(SealError::Undeserved(contradiction));
    }
    let statement = Statement {
        kind: STATEMENT_TYPE.to_owned(),
        subject: act.subjects()?,
        predicate_type: PREDICATE_TYPE.to_owned(),
        predicate: Predicate {
            schema: SCHEMA,
            sequence: after.map_or(1, |head| head.sequence + 1),
            previous: after.map(|head| head.digest.clone()),
            at,
            act,
        },
    };
    Ok(Envelope::sign(&canonical::of(&statement)?, key))
}

/// Reads a receipt once its signature by a trusted key, its spelling and its form have been verified.
///
/// Says nothing about what may be missing before or after it; see [`crate::ledger::verify_chain`].
pub fn verify_one(envelope: &Envelope, keys: &TrustedKeys) -> Result<Receipt, ReceiptError> {
    read(&envelope.verified_payload(keys)?.0)
}

/// Reads a receipt that one has written oneself; the signature is NOT verified.
pub fn read_unverified(envelope: &Envelope) -> Result<Receipt, ReceiptError> {
    read(&envelope.payload_unverified()?)
}

/// Where a receipt says that it belongs; readable even where its act is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) sequence: u64,
    pub(crate) previous: Option<Digest>,
    pub(crate) at: Timestamp,
    pub(crate) digest: Digest,
}

/// The place and, separately, the act: a chain can be followed through receipts of later versions.
pub(crate) fn read_parts(payload: &[u8]) -> Result<(Place, Result<Receipt, ReceiptError>), ReceiptError> {
    let wrong = |error: serde_json::Error| ReceiptError::NotAReceipt(error.to_string());
    let value: Value = serde_json::from_slice(payload).map_err(wrong)?;
    if canonical::to_bytes(&value).ok().as_deref() != Some(payload) {
        return Err(ReceiptError::NotCanonical);
    }
    let statement: Statement<Value> = serde_json::from_value(value).map_err(wrong)?;
    if statement.kind != STATEMENT_TYPE || statement.predicate_type != PREDICATE_TYPE {
        return Err(ReceiptError::NotAReceipt(format!(
            "it is a `{}` with a `{}`",
            statement.kind, statement.predicate_type
        )));
    }
    let Predicate { schema, sequence, previous, at, act } = statement.predicate;
    let place = Place { sequence, previous, at, digest: sha256(payload) };
    let too_new = |detail: String| ReceiptError::TooNew { sequence, schema, detail };
    let act = if schema > SCHEMA {
        Err(too_new(format!("this version reads schemas up to {SCHEMA}")))
    } else {
        serde_json::from_value::<Act>(act).map_err(|error| too_new(error.to_string()))
    };
    let receipt = act.map(|act| Receipt {
        sequence,
        previous: place.previous.clone(),
        at,
        subject: statement.subject,
        act,
        digest: place.digest.clone(),
    });
    Ok((place, receipt))
}

fn read(payload: &[u8]) -> Result<Receipt, ReceiptError> {
    read_parts(payload)?.1
}
