//! The runner: commits the slot, carries out the act, seals what came of it. An act that was begun always ends in a
//! receipt: its own, or `Abandoned` by whoever comes next.

mod adopted;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use seaworthy_interface::copy::Written;
use seaworthy_interface::{
    CopyPath, CopyReader, Cx, Delivered, DriverError, EntryKind, ErrorKind, Journal, NewTarget, Opening,
    Restoring, SandboxProvider, Source,
};
use seaworthy_model::check::UserCheck;
use seaworthy_model::custody::Custody;
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::id::{CopyId, Digest, KeyFileId, KeyName, RunId, ServiceName, SourceName};
use seaworthy_model::objective::RecoveryObjective;
use seaworthy_model::point::RecoveryPoint;
use seaworthy_model::receipt::{
    Act, ActKind, Backup, Control, Drill, Due, Engine, Independence, Measured, Moved, Observed, Outcome,
    Phase, Receipt, RecoveryPointMeasured, Replicate, RepositoryRef, Restore, Seed, Selection, Sizes,
    Teardown, Tool,
};
use seaworthy_model::retention::{Plan, PolicyInForce, Retain};
use seaworthy_model::signature::sha256;
use seaworthy_model::verdict::Verdict;
use seaworthy_model::wal::Target;
use seaworthy_model::witness::Witness;
use seaworthy_repository::Repository;
use tokio::time::Instant;

use crate::act::backup::{BackupDone, BackupRequest, KnownPlace, another_system, backup};
use crate::act::drill::{Before, DrillDone, DrillRequest, drill, drill_after};
use crate::act::independent::{Bringing, bring};
use crate::act::replicate::{ReadBack, Replicated, replicate};
use crate::act::retain::Locked;
use crate::act::{self, finding_of};
use crate::notary::{Notary, NotaryError};

pub use adopted::AdoptedJob;

/// Who and what carries out runs here.
#[derive(Debug, Clone)]
pub struct Executor {
    /// `user@host`, or the name given by a person.
    pub name: String,
    /// Host recorded in copies.
    pub host: String,
    /// `seaworthy 0.1.0`.
    pub program: String,
}

/// One source of one service, ready to be acted upon.
pub struct Subject {
    /// Service.
    pub service: ServiceName,
    /// Source.
    pub source: SourceName,
    /// `postgres`, `sqlite`, `files`.
    pub kind: String,
    /// The driver.
    pub driver: Arc<dyn Source>,
    /// Paths recorded in snapshots.
    pub paths: Vec<String>,
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subject")
            .field("service", &self.service)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// A receipt and what it says.
#[derive(Debug)]
pub struct Sealed<T> {
    /// The receipt.
    pub receipt: Receipt,
    /// What it says.
    pub body: T,
    /// Why the act ended in an error, for people; `None` where it did not.
    pub error: Option<DriverError>,
    /// What else a person is told.
    pub summary: String,
}

/// What a drill is to do.
pub struct DrillJob {
    /// The copy.
    pub copy: CopyId,
    /// Sequence of the receipt of the backup that made it.
    pub backup: Option<u64>,
    /// The instant that it brings the source back to.
    pub point: Timestamp,
    /// How it was chosen.
    pub selection: Selection,
    /// The truth, and its digest; `None` when the copy has none that can be believed.
    pub witness: Option<(Witness, Digest)>,
    /// What was found while the witness was looked for.
    pub witness_findings: Vec<Finding>,
    /// Questions of the user's.
    pub checks: Vec<UserCheck>,
    /// The promise.
    pub objective: RecoveryObjective,
    /// When the drill is given up.
    pub deadline: Duration,
    /// Bytes that the restore needs.
    pub needed_bytes: u64,
    /// Identity of the live source, where it is known.
    pub source_identity: Option<String>,
    /// The copy's reader.
    pub reader: Arc<dyn CopyReader>,
    /// Chooses the damage of the control line.
    pub control_seed: u64,
    /// Whether the user's questions are asked again after the damage: evidence that they can fail.
    pub doubts_checks: bool,
    /// A moment that is to be recovered, too; `None` where the copy's own is all.
    pub onward: Option<Moment>,
    /// When the next drill is due, where a schedule says so.
    pub next_due: Option<Timestamp>,
    /// How long a proof counts: without a schedule, the next drill after a pass is due when it no longer does.
    pub proof_valid: SignedDuration,
}

impl std::fmt::Debug for DrillJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DrillJob")
            .field("copy", &self.copy)
            .field("point", &self.point)
            .finish_non_exhaustive()
    }
}

/// What is replicated, from where, and where to.
#[derive(Debug)]
pub struct ReplicateJob {
    /// Where the originals lie.
    pub from: (Repository, RepositoryRef),
    /// Where the replicas are stored.
    pub to: (Repository, RepositoryRef),
    /// The originals, each with the identity of what held its state.
    pub points: Vec<(RecoveryPoint, Option<String>)>,
    /// How they are read back.
    pub read_back: ReadBack,
}

/// What came of a replication.
#[derive(Debug)]
pub struct ReplicateEnded {
    /// What was sealed of each copy.
    pub sealed: Vec<Sealed<Replicate>>,
    /// Copies that lie in the second repository and whose snapshot files cannot be read there.
    pub damaged: BTreeSet<CopyId>,
}

/// Tells the time of day: when runs begin and end, and when receipts are sealed. What a copy is of is dated by its source; how
/// long something took is told by tokio's clock.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Carries out runs and seals what came of them.
pub struct Runner {
    notary: Notary,
    executor: Executor,
    clock: Clock,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").field("executor", &self.executor).finish_non_exhaustive()
    }
}

/// A new run's id: sorts by time, cannot collide within a host.
pub fn run_id(act: impl std::fmt::Display, at: Timestamp) -> Result<RunId, getrandom::Error> {
    let random = getrandom::u32()?;
    let stamp = at.strftime("%Y%m%dT%H%M%SZ");
    Ok(RunId(format!("{act}-{stamp}-{random:08x}")))
}

fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

fn phases(phases: &[act::Phase]) -> Vec<Phase> {
    phases.iter().map(|phase| Phase { name: phase.name.to_owned(), took_ms: millis(phase.took) }).collect()
}

/// Random bytes, or a slot, could not be had; nothing was begun.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The ledger.
    #[error(transparent)]
    Notary(#[from] NotaryError),
    /// The system's randomness.
    #[error("get random bytes for the run's id")]
    Random(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Runner {
    /// A runner that seals with `notary` and dates by the clock of this host.
    #[must_use]
    pub fn new(notary: Notary, executor: Executor) -> Self {
        Self::with_clock(notary, executor, Arc::new(Timestamp::now))
    }

    /// A runner that dates by another clock.
    #[must_use]
    pub fn with_clock(notary: Notary, executor: Executor, clock: Clock) -> Self {
        Self { notary, executor, clock }
    }

    /// The notary.
    #[must_use]
    pub fn notary(&self) -> &Notary {
        &self.notary
    }

    /// Commits the slot of a run that begins now.
    async fn due(
        &self,
        act: ActKind,
        service: &ServiceName,
        source: &SourceName,
    ) -> Result<(RunId, u64, Timestamp), RunError> {
        let at = (self.clock)();
        let run = run_id(act, at).map_err(|error| RunError::Random(Box::new(error)))?;
        let due = Due { run: run.clone(), service: service.clone(), source: source.clone(), act, due_at: at };
        let receipt = self.notary.commit(&Act::Due(due), at).await?;
        Ok((run, receipt.sequence, at))
    }

    fn tools(&self, engine: Option<&str>) -> Vec<Tool> {
        let (name, version) = self.executor.program.split_once(' ').unwrap_or((&self.executor.program, ""));
        let mut tools = vec![Tool { name: name.to_owned(), version: version.to_owned() }];
        if let Some(engine) = engine.filter(|engine| !engine.is_empty()) {
            tools.push(Tool { name: "engine".to_owned(), version: engine.to_owned() });
        }
        tools
    }

    /// Backs up one source into one repository.
    pub async fn backup(
        &self,
        cx: &Cx,
        subject: &Subject,
        repository: &Repository,
        place: RepositoryRef,
        known: KnownPlace,
    ) -> Result<Sealed<Backup>, RunError> {
        self.backup_by(cx, subject, place, known, async |request| {
            backup(cx, subject.driver.as_ref(), repository, request).await
        })
        .await
    }

    /// Seals what `act` has made of a backup of one source: its copy, or why there is none. An outage is waited for.
    pub async fn backup_by(
        &self,
        cx: &Cx,
        subject: &Subject,
        place: RepositoryRef,
        known: KnownPlace,
        act: impl AsyncFn(&BackupRequest) -> Result<BackupDone, DriverError>,
    ) -> Result<Sealed<Backup>, RunError> {
        let (run, due, started) = self.due(ActKind::Backup, &subject.service, &subject.source).await?;
        let facts = match cx.run(subject.driver.probe(&cx.within(PROBE))).await {
            Ok(Ok(facts)) => Some(facts),
            // A source that cannot be probed will say why when it is captured; the identity is then unknown.
            Ok(Err(_)) | Err(_) => None,
        };
        let request = BackupRequest {
            run: run.clone(),
            service: subject.service.clone(),
            source: subject.source.clone(),
            host: self.executor.host.clone(),
            paths: subject.paths.clone(),
            program: self.executor.program.clone(),
            source_identity: facts.as_ref().map(|facts| facts.identity.clone()),
            key: self.notary.key(),
            started,
            known,
        };
        let (result, retries) = patiently(cx, || act(&request)).await;
        let mut body = Backup {
            run,
            due: Some(due),
            service: subject.service.clone(),
            source: subject.source.clone(),
            source_kind: subject.kind.clone(),
            source_identity: facts.as_ref().map(|facts| facts.identity.clone()),
            repository: place,
            copy: None,
            point: None,
            started,
            finished: (self.clock)(),
            outcome: Outcome::Failed,
            witness: None,
            sizes: Sizes::default(),
            findings: Vec::new(),
            tools: self.tools(facts.as_ref().map(|facts| facts.summary.as_str())),
            phases: Vec::new(),
            executor: self.executor.name.clone(),
        };
        let error = match result {
            Ok(done) => {
                body.copy = Some(done.copy);
                body.point = Some(done.captured.point);
                body.outcome =
                    if done.captured.is_complete { Outcome::Complete } else { Outcome::Incomplete };
                body.witness = Some(done.witness);
                body.sizes = Sizes {
                    restore_bytes: done.captured.size_bytes,
                    read_bytes: done.read_bytes,
                    added_bytes: done.added_bytes,
                    stored_bytes: done.stored_bytes,
                    items: done.items,
                };
                body.findings = done.captured.findings;
                body.findings.extend(another_system(
                    &subject.kind,
                    &format!("{}/{}", subject.service, subject.source),
                    request.known.earlier.as_ref(),
                    request.source_identity.as_deref(),
                ));
                body.phases = phases(&done.phases);
                body.phases
                    .push(Phase { name: "witness".to_owned(), took_ms: millis(done.captured.witness_took) });
                body.phases.extend(retries);
                None
            }
            Err(error) => {
                let mut finding = finding_of(&error, &format!("{}/{}", subject.service, subject.source));
                if error.code.is_none() && error.kind == ErrorKind::NotFound {
                    // It is the source that is not there, not an object of the repository.
                    finding.code = FindingCode::ReadFailed;
                }
                body.findings.push(finding);
                Some(error)
            }
        };
        let receipt = self.notary.commit(&Act::Backup(Box::new(body.clone())), (self.clock)()).await?;
        Ok(Sealed { receipt, body, error, summary: String::new() })
    }

    /// Replicates copies of one repository into another: together, and one by one where that fails, so that one that is damaged keeps
    /// no other from being safe. Each has its own slot and its own receipt.
    pub async fn replicate(&self, cx: &Cx, job: ReplicateJob) -> Result<ReplicateEnded, RunError> {
        let mut begun = Vec::with_capacity(job.points.len());
        for (point, identity) in job.points {
            let (run, due, started) = self.due(ActKind::Replicate, &point.service, &point.source).await?;
            begun.push((point, identity, run, due, started));
        }
        let (from, to, read_back) = (&job.from.0, &job.to.0, job.read_back);
        let all: Vec<&CopyId> = begun.iter().map(|(point, ..)| &point.copy).collect();
        let (together, _) = patiently(cx, || replicate(cx, from, to, &all, read_back)).await;
        // Where one copy is at fault the others are tried without it; where the way there is, all have failed.
        let is_alone = begun.len() == 1;
        let blames_one =
            |error: &DriverError| !is_alone && error.code.is_some_and(FindingCode::is_of_stored_bytes);
        let mut sealed = Vec::with_capacity(begun.len());
        let mut damaged: BTreeSet<CopyId> =
            together.iter().flat_map(|done| done.damaged.iter().cloned()).collect();
        for (point, source_identity, run, due, started) in begun {
            let of = |done: &Replicated| (done.copies.get(&point.copy).cloned(), done.moved);
            let result = match &together {
                Ok(done) => Ok(of(done)),
                Err(error) if blames_one(error) => {
                    let alone = replicate(cx, from, to, &[&point.copy], read_back).await;
                    damaged.extend(alone.iter().flat_map(|done| done.damaged.iter().cloned()));
                    alone.map(|done| of(&done))
                }
                Err(error) => {
                    let mut same = DriverError::new(error.kind, error.context.clone());
                    if let Some(cause) = std::error::Error::source(error) {
                        same = same.because(act::chain(cause));
                    }
                    (same.code, same.hint) = (error.code, error.hint.clone());
                    Err(same)
                }
            };
            let mut body = Replicate {
                run,
                due: Some(due),
                service: point.service.clone(),
                source: point.source.clone(),
                from: job.from.1.clone(),
                original: point.copy.clone(),
                known_by: point.sequence,
                captured_by: point.run.clone(),
                repository: job.to.1.clone(),
                copy: None,
                was_there: false,
                point: point.point,
                capture_began: point.started,
                captured: point.finished,
                outcome: Outcome::Failed,
                is_implausible: point.is_implausible,
                is_doubted: point.is_doubted,
                restore_bytes: point.restore_bytes,
                moved: Moved::default(),
                witness: point.witness.clone(),
                source_identity,
                started,
                finished: (self.clock)(),
                findings: Vec::new(),
                executor: self.executor.name.clone(),
            };
            let subject = format!("{}/{} of {}", point.service, point.source, point.point);
            let error = match result {
                Ok((Some((copy, was_there)), moved)) => {
                    (body.copy, body.was_there, body.moved, body.outcome) =
                        (Some(copy), was_there, moved, point.outcome);
                    None
                }
                Ok((None, _)) => Some(
                    DriverError::new(ErrorKind::Other, "replicate a copy")
                        .because("the repository did not say what became of it: this is a bug"),
                ),
                Err(error) => Some(error),
            };
            if let Some(error) = &error {
                body.findings.push(finding_of(error, &subject));
            }
            let receipt = self.notary.commit(&Act::Replicate(Box::new(body.clone())), (self.clock)()).await?;
            sealed.push(Sealed { receipt, body, error, summary: String::new() });
        }
        Ok(ReplicateEnded { sealed, damaged })
    }

    /// Seals what a plan says about the copies of one source in a locked repository. Nothing of it is done yet.
    pub async fn decide(
        &self,
        locked: &Locked,
        plan: &Plan,
        policy: PolicyInForce,
    ) -> Result<Sealed<Retain>, RunError> {
        let at = (self.clock)();
        let run = run_id("retain", at).map_err(|error| RunError::Random(Box::new(error)))?;
        let body = Retain::of(plan, run, locked.place().clone(), policy, &self.executor.name);
        let receipt = self.notary.commit(&Act::Retain(Box::new(body.clone())), at).await?;
        Ok(Sealed { receipt, body, error: None, summary: String::new() })
    }

    /// Removes the copies that a sealed decision names, and seals of each one that it has gone.
    ///
    /// `known` are all copies of the source, in whatever repository: what is left of it is told with each that has gone. An error is
    /// told after what has gone in spite of it; what an interrupted run leaves unsaid, [`Runner::settle`] says.
    pub async fn remove(
        &self,
        cx: &Cx,
        locked: &mut Locked,
        decided: &Retain,
        known: &[RecoveryPoint],
    ) -> Result<(Vec<Receipt>, Option<DriverError>), RunError> {
        let (removed, error) = locked.remove(cx, decided).await;
        let mut sealed = Vec::with_capacity(removed.len());
        for gone in act::retain::gone(locked, &removed, known, &self.executor.name) {
            sealed.push(self.notary.commit(&Act::Gone(Box::new(gone)), (self.clock)()).await?);
        }
        Ok((sealed, error))
    }

    /// Seals what an interrupted run has removed and could not say.
    pub async fn settle(
        &self,
        locked: &Locked,
        owed: &[RecoveryPoint],
        known: &[RecoveryPoint],
    ) -> Result<Vec<Receipt>, RunError> {
        let mut sealed = Vec::new();
        for gone in locked.owed(owed, known, &self.executor.name) {
            sealed.push(self.notary.commit(&Act::Gone(Box::new(gone)), (self.clock)()).await?);
        }
        Ok(sealed)
    }

    /// Drills one copy of one source.
    pub async fn drill(
        &self,
        cx: &Cx,
        subject: &Subject,
        provider: &dyn SandboxProvider,
        place: RepositoryRef,
        mut job: DrillJob,
    ) -> Result<Sealed<Drill>, RunError> {
        let slot = self.slot(subject).await?;
        let (witness, digest) = job.witness.take().unzip();
        let findings = std::mem::take(&mut job.witness_findings);
        let until = job.onward.as_ref().map(|onward| onward.until.clone());
        let request = request(&slot.run, &mut job, witness);
        let reader = Arc::clone(&job.reader);
        let done = drill(cx, subject.driver.as_ref(), reader, provider, request, findings).await;
        self.drilled(subject, place, job, done, slot, (digest, None, until)).await
    }

    /// Drills a copy that stock restic brings back, with a password that somebody else holds: `apart` says how.
    ///
    /// The witness is the one that restic restores, and counts where its digest is that of `job`. The job's own reader is the
    /// second opinion: where what restic restored fails, what our engine reads is drilled, too, and only what passes there is not
    /// the copy's fault.
    pub async fn drill_apart(
        &self,
        cx: &Cx,
        subject: &Subject,
        provider: &dyn SandboxProvider,
        place: RepositoryRef,
        mut job: DrillJob,
        apart: Apart<'_>,
    ) -> Result<Sealed<Drill>, RunError> {
        let slot = self.slot(subject).await?;
        let mut findings = std::mem::take(&mut job.witness_findings);
        let expected = job.witness.take().map(|(_, digest)| digest);
        let mut shown = apart.shown;
        let bounded = cx.within(job.deadline);
        let brought = bring(&bounded, apart.provider, &slot.run, &apart.bringing).await;
        shown.program = brought.version.map(|version| Tool { name: "restic".to_owned(), version });
        shown.key.clone_from(&brought.key);
        let entry = brought.key.as_ref().and_then(|key| (apart.register)(key));
        (shown.key_name, shown.custody) = entry.unzip();
        shown.absent = brought.absent;
        (shown.restored_files, shown.restored_bytes) = (brought.files, brought.bytes);
        let (reader, witness): (Arc<dyn CopyReader>, _) = match brought.result {
            Ok((tree, bytes)) => {
                let (witness, finding) = believed(&bytes, expected.as_ref());
                findings.extend(finding.filter(|_| findings.is_empty()));
                (tree, witness.filter(|_| findings.is_empty()))
            }
            Err(error) => {
                findings.push(finding_of(&error, "stock restic"));
                (Arc::clone(&job.reader), None)
            }
        };
        let digest = witness.as_ref().and(expected);
        let request = request(&slot.run, &mut job, witness);
        let before = Before { phases: brought.phases, independence: Some(shown.clone()) };
        let mut done =
            drill_after(&bounded, subject.driver.as_ref(), reader, provider, &request, findings, before)
                .await;
        if let Some(sandbox) = brought.sandbox
            && let Err(error) = sandbox.close(&Cx::unbounded().within(CLOSING)).await
        {
            done.findings.push(finding_of(&error, "teardown"));
            done.removed_bytes = None;
            if matches!(done.verdict, Verdict::Pass(_)) {
                done.verdict = Verdict::Inconclusive;
            }
        }
        if done.verdict == Verdict::Fail {
            cx.phase("second opinion");
            let (limited, own) = (cx.within(job.deadline), Arc::clone(&job.reader));
            let is_the_programs = if request.witness.is_none() {
                // Nothing came back: it is said of the stored bytes that they are wrong, and reading them answers that.
                let reading =
                    crate::store::blocking("read the copy with our own engine", move || own.read_rest());
                matches!(limited.run(reading).await, Ok(Ok(_)))
            } else {
                let second = drill_after(
                    &limited,
                    subject.driver.as_ref(),
                    own,
                    provider,
                    &request,
                    Vec::new(),
                    Before::default(),
                );
                act::independent::is_the_programs(&done.checks, &second.await.checks)
            };
            if is_the_programs {
                done.verdict = Verdict::Inconclusive;
                done.findings.push(Finding::new(
                    FindingCode::EnvOther,
                    "stock restic",
                    "what it makes of the copy is wrong, and what our own engine reads of it is not: it is the program, not the copy",
                ));
            }
        }
        self.drilled(subject, place, job, done, slot, (digest, Some(shown), None)).await
    }

    async fn slot(&self, subject: &Subject) -> Result<Slot, RunError> {
        let (run, due, started) = self.due(ActKind::Drill, &subject.service, &subject.source).await?;
        Ok(Slot { run, due, started })
    }

    /// Seals what a drill has shown.
    async fn drilled(
        &self,
        subject: &Subject,
        place: RepositoryRef,
        job: DrillJob,
        done: DrillDone,
        slot: Slot,
        (digest, independence, until): (Option<Digest>, Option<Independence>, Option<Target>),
    ) -> Result<Sealed<Drill>, RunError> {
        let finished = (self.clock)();
        let next_due = job.next_due.or_else(|| match done.verdict {
            Verdict::Pass(_) => finished.checked_add(job.proof_valid).ok(),
            // Without a proof there is nothing that could run out: it is due now.
            Verdict::Fail | Verdict::Inconclusive => None,
        });
        let mut tools = self.tools(Some(&done.engine));
        tools.extend(independence.as_ref().and_then(|shown| shown.program.clone()));
        let body = Drill {
            run: slot.run,
            due: Some(slot.due),
            service: subject.service.clone(),
            source: subject.source.clone(),
            source_kind: subject.kind.clone(),
            repository: place,
            copy: job.copy,
            backup: job.backup,
            point: job.point,
            selection: job.selection,
            started: slot.started,
            finished,
            phases: phases(&done.phases),
            sandbox: done
                .sandbox
                .as_ref()
                .and_then(|facts| serde_json::to_value(facts).ok())
                .map_or_else(Observed::nothing, Observed::from),
            engine: (!done.engine.is_empty())
                .then(|| Engine { summary: done.engine.clone(), identity: done.engine_identity.clone() }),
            expected_checks: done.expected.clone(),
            checks: done.checks.clone(),
            control: done.control.as_ref().map(|control| Control {
                seed: Seed(job.control_seed),
                damage: control.damage.clone(),
                expected: control.expected.clone(),
                executed: control.executed,
                failed: control.failed.clone(),
                caught: control.caught,
                answers: control.answers.clone(),
                checks: control.checks.clone(),
            }),
            verdict: done.verdict,
            rto: Measured::new(done.rto.map(millis), job.objective.rto),
            rpo: exposure(&done, job.point, slot.started, job.objective),
            until,
            reached: done.reached.clone(),
            findings: done.findings.clone(),
            fetched_bytes: done.fetched_bytes,
            restored_bytes: if done.rto.is_some() { job.needed_bytes } else { 0 },
            witness: digest,
            tools,
            executor: self.executor.name.clone(),
            teardown: teardown(&done),
            next_due,
            independence,
        }
        // The receipt's own facts have the last word: a pass that they deny becomes inconclusive.
        .settled();
        let receipt = self.notary.commit(&Act::Drill(Box::new(body.clone())), (self.clock)()).await?;
        Ok(Sealed { receipt, body, error: None, summary: String::new() })
    }
}

/// Longest wait for the place that stock restic ran in to be taken down: it holds a repository and a restore of it.
const CLOSING: Duration = Duration::from_secs(600);

/// The slot of a run.
struct Slot {
    run: RunId,
    due: u64,
    started: Timestamp,
}

/// How a copy is brought back without our own engine.
pub struct Apart<'a> {
    /// Makes the place in which stock restic runs.
    pub provider: &'a dyn SandboxProvider,
    /// What it is to do.
    pub bringing: Bringing,
    /// What is known before: the program's digest, the sites, the key and password of this program.
    pub shown: Independence,
    /// The name and the custody of a key, by the register.
    pub register: &'a (dyn Fn(&KeyFileId) -> Option<(KeyName, Custody)> + Send + Sync),
}

impl std::fmt::Debug for Apart<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Apart").field("bringing", &self.bringing).finish_non_exhaustive()
    }
}

/// The witness that restic has restored, where it is the one that was sealed; why it is not believed otherwise.
fn believed(bytes: &[u8], expected: Option<&Digest>) -> (Option<Witness>, Option<Finding>) {
    let wrong = |code, detail: String| (None, Some(Finding::new(code, "witness", detail)));
    let Some(expected) = expected else {
        return wrong(FindingCode::NoWitness, "no receipt names a witness of this copy".to_owned());
    };
    let digest = sha256(bytes);
    if &digest != expected {
        return wrong(
            FindingCode::WitnessNotOurs,
            format!("the witness that restic restored is {digest}, the backup's receipt says {expected}"),
        );
    }
    match serde_json::from_slice(bytes) {
        Ok(witness) => (Some(witness), None),
        Err(error) => wrong(FindingCode::NoWitness, format!("this version cannot read the witness: {error}")),
    }
}

fn request(run: &RunId, job: &mut DrillJob, witness: Option<Witness>) -> DrillRequest {
    DrillRequest {
        run: run.clone(),
        point: job.point,
        witness,
        checks: job.checks.clone(),
        objective: job.objective,
        needed_bytes: job.needed_bytes,
        deadline: job.deadline,
        control_seed: job.control_seed,
        source_identity: job.source_identity.clone(),
        doubts_checks: job.doubts_checks,
        onward: job.onward.take(),
    }
}

/// Waits before a second and a third try when the other side did not answer. The only retries of an outage in the
/// product: whoever retries below this would hide it.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// Tries again after an error that may pass by itself; what was waited for goes into the receipt.
async fn patiently<T, F>(cx: &Cx, mut attempt: impl FnMut() -> F) -> (Result<T, DriverError>, Vec<Phase>)
where
    F: Future<Output = Result<T, DriverError>>,
{
    let mut waited = Vec::new();
    for pause in PAUSES {
        match attempt().await {
            Err(error) if error.kind.is_transient() => {
                cx.phase(format!("waiting {} s for another try: {error}", pause.as_secs()));
                if let Err(stop) = cx.run(tokio::time::sleep(pause)).await {
                    return (Err(stop.into()), waited);
                }
                waited.push(Phase { name: "retry".to_owned(), took_ms: millis(pause) });
            }
            result => return (result, waited),
        }
    }
    (attempt().await, waited)
}

/// Longest probe.
const PROBE: Duration = Duration::from_secs(10);

/// What would have been lost had the source vanished when the drill began: from the end of the log where it was recovered to that, from
/// the newest instant inside the data where they carry one, from the recovery point otherwise; unknown when nothing was restored or the clocks disagree.
fn exposure(
    done: &DrillDone,
    point: Timestamp,
    started: Timestamp,
    objective: RecoveryObjective,
) -> RecoveryPointMeasured {
    // Data newer than the point cannot have been in the copy: such a column holds dates of the future, not of writing.
    // A moment that somebody has chosen says nothing of what would be lost; the end of the log does.
    let end = done.reached.as_ref().filter(|reached| reached.target == Target::Latest);
    let newest = done.newest.filter(|newest| *newest <= end.map_or(point, |end| end.at));
    // Whoever received the log knows that nothing newer was written: data that are old are no loss then.
    let from = end.map_or_else(|| newest.unwrap_or(point), |end| end.at);
    let age: SignedDuration = started.duration_since(from);
    let measured = (done.rto.is_some() && !age.is_negative())
        .then(|| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    RecoveryPointMeasured { newest, exposure: Measured::new(measured, objective.rpo) }
}

fn teardown(done: &DrillDone) -> Teardown {
    match (done.removed_bytes, &done.sandbox) {
        (Some(removed_bytes), _) => Teardown { proven: true, removed_bytes, detail: String::new() },
        (None, None) => {
            Teardown { proven: false, removed_bytes: 0, detail: "no sandbox was opened".to_owned() }
        }
        (None, Some(_)) => {
            let why = done
                .findings
                .iter()
                .find(|finding| finding.subject == "teardown")
                .map_or("unknown", |finding| &finding.detail);
            Teardown { proven: false, removed_bytes: 0, detail: why.to_owned() }
        }
    }
}

/// A finding that the copy carries no witness that can be believed.
#[must_use]
pub fn no_witness(detail: impl Into<String>) -> Finding {
    Finding::new(FindingCode::NoWitness, "copy", detail)
}

/// What a restore for people is to do.
pub struct RestoreJob {
    /// The copy.
    pub copy: CopyId,
    /// Sequence of the receipt of the backup that made it.
    pub backup: Option<u64>,
    /// The instant that it brings the source back to.
    pub point: Timestamp,
    /// How it was chosen.
    pub selection: Selection,
    /// How it was made.
    pub witness: Witness,
    /// The copy's reader.
    pub reader: Arc<dyn CopyReader>,
    /// Where to.
    pub target: NewTarget,
    /// The same in words, without a credential.
    pub target_words: String,
    /// Only these parts of the copy; everything where empty. Directories only.
    pub paths: Vec<CopyPath>,
    /// The moment to which it is restored, where it is another one than the copy's own; and the copies behind it whose logs lead there.
    pub until: Option<Moment>,
    /// What a server does that is started there; of a copy without a log, only [`Opening::Alone`].
    pub opening: Opening,
}

/// A moment, and what leads to it behind the copy that is restored.
pub struct Moment {
    /// The moment.
    pub until: Target,
    /// The copies behind it.
    pub behind: Vec<(Witness, Arc<dyn CopyReader>)>,
    /// What is kept of the log behind all of them.
    pub journal: Arc<dyn Journal>,
}

impl std::fmt::Debug for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Moment")
            .field("until", &self.until)
            .field("behind", &self.behind.len())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for RestoreJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestoreJob")
            .field("copy", &self.copy)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl Runner {
    /// Restores one copy to a new place.
    pub async fn restore(
        &self,
        cx: &Cx,
        subject: &Subject,
        place: RepositoryRef,
        job: RestoreJob,
    ) -> Result<Sealed<Restore>, RunError> {
        let (run, due, started) = self.due(ActKind::Restore, &subject.service, &subject.source).await?;
        cx.phase("restore");
        let began = Instant::now();
        let until = job.until.as_ref().map(|moment| moment.until.clone());
        let result = if let Some(Moment { until, behind, journal }) = job.until {
            let mut copies = vec![(job.witness.clone(), Arc::clone(&job.reader))];
            copies.extend(behind);
            let work = subject.driver.deliver_until(cx, &copies, journal, &job.target, &until, &job.opening);
            cx.run(work).await.map_err(DriverError::from).and_then(|delivered| delivered)
        } else if job.opening != Opening::Alone {
            // What only recovers to its own end would open, and not follow.
            Err(DriverError::new(ErrorKind::Refused, "make a standby of a copy without its log"))
        } else if job.paths.is_empty() {
            let work = subject.driver.deliver(cx, &job.witness, Arc::clone(&job.reader), &job.target);
            cx.run(work).await.map_err(DriverError::from).and_then(|delivered| delivered)
        } else {
            parts(Arc::clone(&job.reader), &job.target, job.paths.clone()).await
        };
        let took = began.elapsed();
        let mut body = Restore {
            run,
            due: Some(due),
            service: subject.service.clone(),
            source: subject.source.clone(),
            repository: place,
            copy: job.copy,
            backup: job.backup,
            point: job.point,
            until,
            selection: job.selection,
            source_kind: subject.kind.clone(),
            target: job.target_words,
            scope: scope(&job.target, &job.paths),
            started,
            finished: (self.clock)(),
            phases: vec![Phase { name: "restore".to_owned(), took_ms: millis(took) }],
            outcome: Outcome::Failed,
            written_files: 0,
            written_bytes: 0,
            fetched_bytes: job.reader.fetched_bytes(),
            findings: Vec::new(),
            tools: self.tools(None),
            executor: self.executor.name.clone(),
        };
        let mut summary = String::new();
        let error = match result {
            Ok(delivered) => {
                body.outcome = Outcome::Complete;
                body.written_files = delivered.written.files;
                body.written_bytes = delivered.written.bytes;
                body.findings = delivered.findings;
                summary = delivered.summary;
                None
            }
            Err(error) => {
                body.findings.push(finding_of(&error, &format!("{}/{}", subject.service, subject.source)));
                Some(error)
            }
        };
        let receipt = self.notary.commit(&Act::Restore(Box::new(body.clone())), (self.clock)()).await?;
        Ok(Sealed { receipt, body, error, summary })
    }
}

/// What was asked for, where it was not everything.
fn scope(target: &NewTarget, paths: &[CopyPath]) -> Vec<String> {
    let tables: &[String] = match target {
        NewTarget::Directory(_) => &[],
        NewTarget::Database { tables, .. } => tables,
    };
    tables.iter().cloned().chain(paths.iter().map(ToString::to_string)).collect()
}

/// Restores single files and directories of a copy, each under its own name, into a new or empty directory.
async fn parts(
    reader: Arc<dyn CopyReader>,
    target: &NewTarget,
    paths: Vec<CopyPath>,
) -> Result<Delivered, DriverError> {
    let NewTarget::Directory(directory) = target else {
        return Err(DriverError::new(ErrorKind::Refused, "restore single files into a database"));
    };
    let directory = directory.clone();
    crate::store::blocking("restore single files", move || {
        use std::os::unix::ffi::OsStrExt as _;
        let failed = |error: std::io::Error| DriverError::io(format!("use `{}`", directory.display()), error);
        std::fs::create_dir_all(&directory).map_err(failed)?;
        if std::fs::read_dir(&directory).map_err(failed)?.next().is_some() {
            return Err(DriverError::new(
                ErrorKind::Refused,
                format!("restore into `{}`: it is not empty", directory.display()),
            )
            .hint("name a new directory with --to"));
        }
        let mut written = Written::default();
        for path in &paths {
            // Each in a directory of its own full name, so that two files of one name do not meet.
            let into = directory.join(std::ffi::OsStr::from_bytes(path.as_bytes()));
            let parent = into.parent().unwrap_or(&directory).to_owned();
            let is_directory = reader.kind(path)? == EntryKind::Directory;
            let place = if is_directory { into } else { parent };
            std::fs::create_dir_all(&place)
                .map_err(|error| DriverError::io(format!("make `{}`", place.display()), error))?;
            let part = reader.restore(path, &place, &Restoring::default())?;
            written.files += part.files;
            written.bytes += part.bytes;
        }
        Ok(Delivered { written, summary: String::new(), findings: Vec::new() })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn tried(failures: usize, kind: ErrorKind) -> (bool, usize, usize) {
        let mut attempts = 0;
        let (result, waited) = patiently(&Cx::unbounded(), || {
            attempts += 1;
            let fails = attempts <= failures;
            async move { if fails { Err(DriverError::new(kind, "connect")) } else { Ok(()) } }
        })
        .await;
        (result.is_ok(), attempts, waited.len())
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_waited_for_twice_and_recorded() {
        assert_eq!(tried(0, ErrorKind::Unreachable).await, (true, 1, 0));
        assert_eq!(tried(2, ErrorKind::Unreachable).await, (true, 3, 2));
        assert_eq!(tried(9, ErrorKind::Unreachable).await, (false, 3, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wrong_password_is_not_tried_again() {
        assert_eq!(tried(1, ErrorKind::Unauthenticated).await, (false, 1, 0));
    }
}
