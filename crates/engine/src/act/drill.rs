//! The drill: restore one copy into isolation, ask what the witness asks, damage the restore and ask again.
//!
//! Nothing here decides that a drill is good: [`judge`] does, from the list of checks that the witness asks for and the
//! list that was carried out. The evidence is complete only after the sandbox is gone.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use seaworthy_interface::{
    CopyReader, Cx, DriverError, ErrorKind, Restored, Sandbox, SandboxFacts, SandboxProvider, Source, Stop,
};
use seaworthy_model::check::UserCheck;
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::id::RunId;
use seaworthy_model::objective::{Met, RecoveryObjective};
use seaworthy_model::receipt::{Independence, is_found};
use seaworthy_model::verdict::{Assurance, CheckOutcome, CheckReport, Verdict, judge};
use seaworthy_model::wal::{MOMENT, Reached, Target};
use seaworthy_model::witness::Witness;

use crate::runner::Moment;

use super::moment::go_on;
use super::{Phase, Stopwatch, blames_the_copy, finding_of, report_of};

/// What is drilled, and how.
#[derive(Debug)]
pub struct DrillRequest {
    /// The run.
    pub run: RunId,
    /// The instant that the copy brings the source back to.
    pub point: Timestamp,
    /// The truth at that instant; without it the drill can reach A3 at most.
    pub witness: Option<Witness>,
    /// Questions of the user's.
    pub checks: Vec<UserCheck>,
    /// The promise that the measurements are held against.
    pub objective: RecoveryObjective,
    /// Bytes that the restore needs.
    pub needed_bytes: u64,
    /// When the drill is given up. Longer than the RTO, so that a miss is measured.
    pub deadline: Duration,
    /// Chooses the damage of the control line.
    pub control_seed: u64,
    /// Identity of the live source's engine, which the scratch engine must not have.
    pub source_identity: Option<String>,
    /// Whether the user's questions are asked again after the damage, which every other seed then makes large enough for
    /// them: evidence that they can fail.
    pub doubts_checks: bool,
    /// A moment that is to be recovered, too; `None` where the copy's own is all.
    pub onward: Option<Moment>,
}

/// The control line: a damage made on purpose, and whether the checks saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// What was done to what.
    pub damage: String,
    /// Codes of which one had to be found.
    pub expected: Vec<FindingCode>,
    /// How many checks were carried out again.
    pub executed: u64,
    /// The checks that then did not pass.
    pub failed: Vec<CheckReport>,
    /// Whether they saw it.
    pub caught: bool,
    /// What the user's questions were answered then, where they were asked again.
    pub answers: Vec<CheckReport>,
    /// Names of the checks of which one had to see it; empty where any would do.
    pub checks: Vec<String>,
}

/// What a drill has shown.
#[derive(Debug)]
pub struct DrillDone {
    /// The worst of the checks.
    pub verdict: Verdict,
    /// Names of the checks that had to be carried out.
    pub expected: Vec<String>,
    /// The checks that were carried out.
    pub checks: Vec<CheckReport>,
    /// The control line; `None` when the proof line was not a pass.
    pub control: Option<Control>,
    /// Everything found, beyond the checks' own findings.
    pub findings: Vec<Finding>,
    /// Phases in order.
    pub phases: Vec<Phase>,
    /// From the start to the last check answered; `None` when the restore never got that far.
    pub rto: Option<Duration>,
    /// Where a recovery that went on behind the copy has ended.
    pub reached: Option<Reached>,
    /// The newest instant inside the restored data.
    pub newest: Option<Timestamp>,
    /// What the sandbox has shown about itself.
    pub sandbox: Option<SandboxFacts>,
    /// What was started, for people.
    pub engine: String,
    /// The scratch engine's own identity.
    pub engine_identity: Option<String>,
    /// Stored bytes fetched from the repository.
    pub fetched_bytes: u64,
    /// Bytes removed with the sandbox; `None` when its removal could not be shown.
    pub removed_bytes: Option<u64>,
}

/// Name of the step that restores; it is a check like any other.
pub(super) const RESTORE: &str = "restore";
/// Name of the check that the scratch engine is new and is not the source's.
pub(super) const FRESH: &str = "fresh-engine";
/// Name of the check that an application could write.
pub(super) const WRITE: &str = "write-probe";

/// Name of the check that all of the copy was read, and not only what the restore needed.
const INTACT: &str = "copy-intact";

/// Longest wait for a small sandbox to be taken down, or for an engine to end, after which the reaper has to.
pub(super) const TEARDOWN: Duration = Duration::from_secs(60);

/// Longest wait for a sandbox to be taken down that took this long to fill: millions of files are not removed in a minute.
/// Removing a million files took up to 3.5 times as long as making them (ext4, which makes them in memory and looks each up on
/// disk to remove it).
pub(super) fn teardown_limit(phases: &[Phase]) -> Duration {
    let filling: Duration =
        phases.iter().filter(|phase| phase.name == "restore").map(|phase| phase.took).sum();
    TEARDOWN.saturating_add(filling.saturating_mul(10))
}

/// Carries out a drill. Always ends in a [`DrillDone`]: what could not be done is a finding in it.
///
/// `findings` are what was found before, while the copy was looked at. Cancelled or out of time, the verdict is INCONCLUSIVE with `EV-10`, and the sandbox is taken down all the same.
pub async fn drill(
    cx: &Cx,
    source: &dyn Source,
    reader: Arc<dyn CopyReader>,
    provider: &dyn SandboxProvider,
    request: DrillRequest,
    findings: Vec<Finding>,
) -> DrillDone {
    drill_after(cx, source, reader, provider, &request, findings, Before::default()).await
}

/// What has happened before a drill begins, when another program has brought the copy back.
#[derive(Debug, Default)]
pub(crate) struct Before {
    /// Its phases, which are part of the recovery time.
    pub(crate) phases: Vec<Phase>,
    /// How it was brought back; `None` where our own engine reads it.
    pub(crate) independence: Option<Independence>,
}

/// Carries out a drill of a copy that something was done with before.
pub(crate) async fn drill_after(
    cx: &Cx,
    source: &dyn Source,
    reader: Arc<dyn CopyReader>,
    provider: &dyn SandboxProvider,
    request: &DrillRequest,
    findings: Vec<Finding>,
    before: Before,
) -> DrillDone {
    let went = match (&request.onward, &request.witness) {
        (Some(moment), Some(witness)) => {
            Some(go_on(cx, source, (witness, &reader), provider, request, moment).await)
        }
        _ => None,
    };
    // What is fetched for the moment is no sign that the copy itself was.
    let fetched_before = if went.is_some() { reader.fetched_bytes() } else { 0 };
    let mut watch = Stopwatch::start_after(before.phases);
    let mut done = DrillDone {
        verdict: Verdict::Inconclusive,
        expected: expected_checks(request),
        checks: went.iter().map(|went| went.report.clone()).collect(),
        control: None,
        findings,
        phases: Vec::new(),
        rto: None,
        reached: None,
        newest: None,
        sandbox: None,
        engine: String::new(),
        engine_identity: None,
        fetched_bytes: 0,
        removed_bytes: None,
    };
    let bounded = cx.within(request.deadline);

    bounded.phase("provision");
    let opened = watch
        .measure("provision", bounded.run(provider.open(&bounded, &request.run, request.needed_bytes)))
        .await;
    match opened.map_err(DriverError::from).and_then(|opened| opened) {
        Ok(sandbox) => {
            done.sandbox = Some(sandbox.facts().clone());
            proof_and_control(&bounded, source, &reader, &sandbox, request, &mut watch, &mut done).await;
            // The sandbox is taken down even when the run was cancelled: with a context of its own.
            let teardown = Cx::unbounded().within(teardown_limit(&watch.phases));
            cx.phase("teardown");
            match watch.measure("teardown", sandbox.close(&teardown)).await {
                Ok(removed) => done.removed_bytes = Some(removed),
                Err(error) => done.findings.push(finding_of(&error, "teardown")),
            }
        }
        Err(error) => done.checks.push(inconclusive(RESTORE, &error)),
    }

    if done.rto.is_none() {
        done.fetched_bytes = reader.fetched_bytes();
    }
    done.fetched_bytes = done.fetched_bytes.saturating_sub(fetched_before);
    if done.rto.is_some() && done.fetched_bytes == 0 {
        done.findings.push(Finding::new(
            FindingCode::WrongCopyRead,
            "repository",
            "no byte was fetched from the named copy",
        ));
    }
    done.phases = watch.phases;
    if let Some(went) = went {
        done.phases.insert(0, Phase { name: MOMENT, took: went.all });
        // The promise is held against the slower of both: either may be what a disaster asks for.
        done.rto = done.rto.zip(went.took).map(|(own, moment)| own.max(moment));
        done.removed_bytes = done.removed_bytes.zip(went.removed_bytes).map(|(one, other)| one + other);
        if went.reached.as_ref().is_some_and(|reached| reached.target == Target::Latest) {
            done.newest = went.newest.or(done.newest);
        }
        done.reached = went.reached;
    }
    done.verdict = verdict(request, &done, before.independence.as_ref());
    done
}

/// What a sandbox that did not open amounts to: never the copy's fault.
pub(super) fn inconclusive(name: &str, error: &DriverError) -> CheckReport {
    let finding = match error.kind {
        ErrorKind::NotFound => Finding::new(FindingCode::EnvOther, name, super::chain(error)),
        _ => finding_of(error, name),
    };
    CheckReport {
        name: name.to_owned(),
        outcome: CheckOutcome::Inconclusive,
        detail: finding.detail.clone(),
        findings: vec![finding],
    }
}

/// The names of the checks that must be carried out: derived from the witness, never from what was carried out.
fn expected_checks(request: &DrillRequest) -> Vec<String> {
    let mut names = vec![RESTORE.to_owned(), FRESH.to_owned()];
    if let Some(witness) = &request.witness {
        names.extend(witness.checks());
    }
    names.extend(request.onward.as_ref().map(|_| MOMENT.to_owned()));
    names.extend(request.checks.iter().map(|check| format!("user:{}", check.name)));
    names.push(WRITE.to_owned());
    names.push(INTACT.to_owned());
    names
}

async fn proof_and_control(
    cx: &Cx,
    source: &dyn Source,
    reader: &Arc<dyn CopyReader>,
    sandbox: &Arc<dyn Sandbox>,
    request: &DrillRequest,
    watch: &mut Stopwatch,
    done: &mut DrillDone,
) {
    let Some(witness) = &request.witness else {
        // A witness that is damaged or not ours shows that the copy is; one that was never there shows nothing.
        let blaming: Vec<Finding> =
            done.findings.iter().filter(|finding| blames_the_copy(finding.code)).cloned().collect();
        if done.findings.is_empty() {
            done.findings.push(Finding::new(FindingCode::NoWitness, "copy", "the copy carries no witness"));
        }
        done.checks.push(CheckReport {
            name: RESTORE.to_owned(),
            outcome: if blaming.is_empty() { CheckOutcome::Inconclusive } else { CheckOutcome::Failed },
            detail: "without a witness this version does not know how the copy was made".to_owned(),
            findings: blaming,
        });
        return;
    };

    cx.phase("restore");
    let restoring = source.restore(cx, witness, Arc::clone(reader), Arc::clone(sandbox));
    let restored = watch
        .measure("restore", cx.run(restoring))
        .await
        .map_err(DriverError::from)
        .and_then(|restored| restored);
    let restored = match restored {
        Ok(restored) => restored,
        Err(error) => {
            done.checks.push(report_of(RESTORE, &error));
            return;
        }
    };
    done.engine = restored.summary();
    done.engine_identity = restored.engine_identity();
    let messages = restored.findings();
    let outcome = if messages.is_empty() { CheckOutcome::Passed } else { CheckOutcome::Failed };
    done.checks.push(CheckReport {
        name: RESTORE.to_owned(),
        outcome,
        detail: format!("restored; {}", done.engine),
        findings: messages,
    });
    done.checks.push(fresh(restored.as_ref(), request));

    cx.phase("checks");
    let proof = watch.measure("checks", prove(cx, restored.as_ref(), witness, request)).await;
    done.checks.extend(proof.checks);
    done.newest = proof.newest;
    done.findings.extend(proof.findings);
    done.rto = Some(watch.elapsed());
    // What the restore itself has fetched, before the rest is read.
    done.fetched_bytes = reader.fetched_bytes();

    cx.phase("rest");
    done.checks.push(watch.measure("rest", intact(cx, reader)).await);

    if matches!(judge(&done.expected, &done.checks, Assurance::A4), Verdict::Pass(_)) {
        cx.phase("control");
        match watch.measure("control", control(cx, restored.as_ref(), witness, request)).await {
            Ok(control) => {
                if !control.caught {
                    done.findings.push(Finding::new(
                        FindingCode::CheckerBlind,
                        "control line",
                        format!("the checks did not notice this damage: {}", control.damage),
                    ));
                }
                done.control = Some(control);
            }
            Err(error) => {
                done.findings.push(Finding::new(
                    FindingCode::CheckerBlind,
                    "control line",
                    format!("the control line could not be carried out: {}", super::chain(&error)),
                ));
            }
        }
    }
    let closing = Cx::unbounded().within(TEARDOWN);
    if let Err(error) = restored.close(&closing).await {
        done.findings.push(finding_of(&error, "engine shutdown"));
    }
}

/// Reads what the restore did not need: the papers, and what stock tools restore with.
async fn intact(cx: &Cx, reader: &Arc<dyn CopyReader>) -> CheckReport {
    let from = Arc::clone(reader);
    let reading = crate::store::blocking("read the rest of the copy", move || from.read_rest());
    match stoppable(cx, reading).await {
        Ok(rest) => CheckReport {
            name: INTACT.to_owned(),
            outcome: CheckOutcome::Passed,
            detail: format!(
                "all of the copy was read and authenticated; {} files of {} bytes were left after the restore",
                rest.files, rest.bytes
            ),
            findings: Vec::new(),
        },
        Err(error) => report_of(INTACT, &error),
    }
}

/// Asserts that the scratch engine is not the source's.
pub(super) fn fresh(restored: &dyn Restored, request: &DrillRequest) -> CheckReport {
    let passed = |detail: String| CheckReport {
        name: FRESH.to_owned(),
        outcome: CheckOutcome::Passed,
        detail,
        findings: Vec::new(),
    };
    match (restored.engine_identity(), &request.source_identity) {
        (Some(scratch), Some(live)) if &scratch == live => CheckReport {
            name: FRESH.to_owned(),
            outcome: CheckOutcome::Inconclusive,
            detail: "the scratch engine has the identity of the source".to_owned(),
            findings: vec![Finding::new(
                FindingCode::LiveTarget,
                "engine",
                "the scratch engine has the identity of the source",
            )],
        },
        (Some(scratch), _) => passed(format!("scratch engine {scratch}, made by this run")),
        (None, _) => passed("restored into a directory made by this run".to_owned()),
    }
}

struct Proof {
    checks: Vec<CheckReport>,
    newest: Option<Timestamp>,
    findings: Vec<Finding>,
}

async fn prove(cx: &Cx, restored: &dyn Restored, witness: &Witness, request: &DrillRequest) -> Proof {
    let mut proof = Proof { checks: Vec::new(), newest: None, findings: Vec::new() };
    match stoppable(cx, restored.compare(cx, witness)).await {
        Ok(reports) => proof.checks.extend(reports),
        Err(error) => {
            // One report carries the reason; the others are missing, and a missing check is never a pass.
            proof.checks.push(report_of(&first_check(witness), &error));
        }
    }
    let total = request.checks.len() as u64;
    for (index, check) in request.checks.iter().enumerate() {
        cx.progress(seaworthy_interface::Progress::Items { done: index as u64, total: Some(total) });
        proof.checks.push(answer(cx, restored, check, request.point).await);
    }
    match stoppable(cx, restored.newest(cx)).await {
        Ok(newest) => proof.newest = newest,
        Err(error) => proof.findings.push(finding_of(&error, "newest data")),
    }
    let written = match stoppable(cx, restored.write_probe(cx)).await {
        Ok(report) => CheckReport { name: WRITE.to_owned(), ..report },
        Err(error) => report_of(WRITE, &error),
    };
    proof.checks.push(written);
    proof
}

/// Asks one question of the user's.
pub(super) async fn answer(
    cx: &Cx,
    restored: &dyn Restored,
    check: &UserCheck,
    point: Timestamp,
) -> CheckReport {
    let limit = Duration::try_from(check.timeout).unwrap_or(Duration::from_secs(60));
    let bounded = cx.within(limit);
    let name = format!("user:{}", check.name);
    match stoppable(&bounded, restored.answer(&bounded, check, point)).await {
        Ok(report) => CheckReport { name, ..report },
        Err(error) => report_of(&name, &error),
    }
}

/// The check that carries the reason why nothing could be measured.
fn first_check(witness: &Witness) -> String {
    witness.checks().into_iter().next().unwrap_or_else(|| "witness".to_owned())
}

async fn control(
    cx: &Cx,
    restored: &dyn Restored,
    witness: &Witness,
    request: &DrillRequest,
) -> Result<Control, DriverError> {
    let seed = request.control_seed;
    let damage = if request.doubts_checks && !seed.is_multiple_of(2) {
        stoppable(cx, restored.ruin(cx, witness, &request.checks, seed)).await?
    } else {
        stoppable(cx, restored.damage(cx, witness, seed)).await?
    };
    // Damage may leave nothing to measure. That is judged as it would be in the proof: an error that blames what was
    // restored is a failed check (that of what was damaged), any other leaves the control line undrawn.
    let reports = match stoppable(cx, restored.compare(cx, witness)).await {
        Ok(reports) => reports,
        Err(error) => {
            let name = damage.checks.first().cloned().unwrap_or_else(|| first_check(witness));
            let report = report_of(&name, &error);
            if report.outcome != CheckOutcome::Failed {
                return Err(error);
            }
            vec![report]
        }
    };
    let executed = reports.len() as u64;
    let failed: Vec<CheckReport> =
        reports.into_iter().filter(|check| check.outcome != CheckOutcome::Passed).collect();
    let caught = is_found(&failed, &damage.expected, &damage.checks);
    let mut answers = Vec::new();
    if request.doubts_checks {
        for check in &request.checks {
            answers.push(answer(cx, restored, check, request.point).await);
        }
    }
    Ok(Control {
        damage: damage.description,
        expected: damage.expected,
        executed,
        failed,
        caught,
        answers,
        checks: damage.checks,
    })
}

pub(super) async fn stoppable<T>(
    cx: &Cx,
    work: impl Future<Output = Result<T, DriverError>>,
) -> Result<T, DriverError> {
    cx.run(work).await.unwrap_or_else(|stop: Stop| Err(DriverError::from(stop)))
}

/// Judges: the checks, then the control line, then whatever else was found. Only ever lowers.
fn verdict(request: &DrillRequest, done: &DrillDone, independence: Option<&Independence>) -> Verdict {
    let level = level(request, done, independence);
    let by_checks = judge(&done.expected, &done.checks, level);
    if !matches!(by_checks, Verdict::Pass(_)) {
        return by_checks;
    }
    let is_caught = done.control.as_ref().is_some_and(|control| control.caught);
    if !is_caught || done.removed_bytes.is_none() || !done.findings.is_empty() {
        return Verdict::Inconclusive;
    }
    by_checks
}

/// The level that passing checks add up to: A5 needs a question of the user's and the RTO kept, A6 that nothing of ours was
/// needed to bring the copy back.
fn level(request: &DrillRequest, done: &DrillDone, independence: Option<&Independence>) -> Assurance {
    let took = done.rto.and_then(|took| jiff::SignedDuration::try_from(took).ok());
    let is_fast = matches!(request.objective.rto.judge(took), Met::Met | Met::NotApplicable);
    if request.witness.is_none() {
        Assurance::A3
    } else if request.checks.is_empty() || !is_fast {
        Assurance::A4
    } else if independence.is_some_and(|shown| shown.shortfalls().is_empty()) {
        Assurance::A6
    } else {
        Assurance::A5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_long_to_fill_has_long_to_be_removed() {
        let phase = |name, seconds| Phase { name, took: Duration::from_secs(seconds) };
        assert_eq!(teardown_limit(&[phase("provision", 9)]), TEARDOWN);
        let filled = [phase("provision", 9), phase("restore", 3_600), phase("checks", 5)];
        assert_eq!(teardown_limit(&filled), TEARDOWN + Duration::from_secs(36_000));
    }
}
