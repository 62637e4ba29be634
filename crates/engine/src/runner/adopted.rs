//! The run of a drill of a copy that another tool has made.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use seaworthy_interface::{Adopted, Cx, SandboxProvider};
use seaworthy_model::check::UserCheck;
use seaworthy_model::finding::Finding;
use seaworthy_model::id::{CopyId, ServiceName, SourceName};
use seaworthy_model::objective::RecoveryObjective;
use seaworthy_model::receipt::{
    Act, ActKind, Control, Drill, Engine, Found, Measured, Observed, Outcome, RepositoryRef, Seed, Selection,
};
use seaworthy_model::verdict::Verdict;

use super::{RunError, Runner, Sealed, exposure, millis, phases, teardown};
use crate::act::adopt::{AdoptRequest, Judging, drill_adopted};

/// A copy that was chosen from a set, and how it is drilled.
pub struct AdoptedJob<'a> {
    /// Service.
    pub service: ServiceName,
    /// The set, which stands where a source does.
    pub set: SourceName,
    /// The set's kind.
    pub kind: String,
    /// The set's place, which stands where a repository does.
    pub place: RepositoryRef,
    /// The copy's reader.
    pub copy: &'a dyn Adopted,
    /// SHA-256 of its bytes, in hexadecimal digits: its id.
    pub sha256: String,
    /// Stored bytes.
    pub stored_bytes: u64,
    /// Sequence of the receipt by which the copy is known.
    pub known_by: Option<u64>,
    /// The instant that it is of.
    pub point: Timestamp,
    /// How it was chosen.
    pub selection: Selection,
    /// What was found while it was chosen.
    pub findings: Vec<Finding>,
    /// Names of the checks that `judging` answers.
    pub judged: Vec<String>,
    /// Judges what was read.
    pub judging: Judging,
    /// Questions of the user's.
    pub checks: Vec<UserCheck>,
    /// The promise.
    pub objective: RecoveryObjective,
    /// When the drill is given up.
    pub deadline: Duration,
    /// Bytes that the restore needs, as far as can be told.
    pub needed_bytes: u64,
    /// Chooses the damage of the control line.
    pub control_seed: u64,
    /// When the next drill is due, where a schedule says so.
    pub next_due: Option<Timestamp>,
    /// How long a proof counts.
    pub proof_valid: SignedDuration,
}

impl std::fmt::Debug for AdoptedJob<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdoptedJob")
            .field("service", &self.service)
            .field("set", &self.set)
            .field("point", &self.point)
            .finish_non_exhaustive()
    }
}

impl Runner {
    /// Seals that a copy of a set was found in its place; returns the receipt's sequence.
    pub async fn found(&self, job: &AdoptedJob<'_>) -> Result<u64, RunError> {
        let found = Found {
            service: job.service.clone(),
            source: job.set.clone(),
            run: seaworthy_model::id::RunId(format!("adopted-{}", job.sha256.get(..16).unwrap_or_default())),
            repository: job.place.clone(),
            copy: CopyId(job.sha256.clone()),
            point: job.point,
            finished: job.point,
            outcome: Outcome::Complete,
            restore_bytes: job.stored_bytes,
            stored_bytes: job.stored_bytes,
            witness: None,
            source_identity: None,
            executor: self.executor.name.clone(),
        };
        Ok(self.notary.commit(&Act::Found(Box::new(found)), (self.clock)()).await?.sequence)
    }

    /// Drills one copy of an adopted set.
    pub async fn drill_adopted(
        &self,
        cx: &Cx,
        provider: &dyn SandboxProvider,
        job: AdoptedJob<'_>,
    ) -> Result<Sealed<Drill>, RunError> {
        let (run, due, started) = self.due(ActKind::Drill, &job.service, &job.set).await?;
        let request = AdoptRequest {
            run: run.clone(),
            point: job.point,
            sha256: job.sha256.clone(),
            judged: job.judged,
            judging: job.judging,
            checks: job.checks,
            needed_bytes: job.needed_bytes,
            deadline: job.deadline,
            control_seed: job.control_seed,
        };
        let done = drill_adopted(cx, job.copy, provider, request, job.findings).await;
        let finished = (self.clock)();
        let next_due = job.next_due.or_else(|| match done.verdict {
            Verdict::Pass(_) => finished.checked_add(job.proof_valid).ok(),
            Verdict::Fail | Verdict::Inconclusive => None,
        });
        let body = Drill {
            run,
            due: Some(due),
            service: job.service,
            source: job.set,
            source_kind: job.kind,
            repository: job.place,
            copy: CopyId(job.sha256),
            backup: job.known_by,
            point: job.point,
            selection: job.selection,
            started,
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
                answers: Vec::new(),
                checks: control.checks.clone(),
            }),
            verdict: done.verdict,
            rto: Measured::new(done.rto.map(millis), job.objective.rto),
            rpo: exposure(&done, job.point, started, job.objective),
            findings: done.findings.clone(),
            fetched_bytes: done.fetched_bytes,
            restored_bytes: if done.rto.is_some() { job.stored_bytes } else { 0 },
            witness: None,
            tools: self.tools(Some(&done.engine)),
            executor: self.executor.name.clone(),
            teardown: teardown(&done),
            next_due,
            independence: None,
            until: None,
            reached: None,
        }
        // The receipt's own facts have the last word: a pass that they deny becomes inconclusive.
        .settled();
        let receipt = self.notary.commit(&Act::Drill(Box::new(body.clone())), (self.clock)()).await?;
        Ok(Sealed { receipt, body, error: None, summary: String::new() })
    }
}
