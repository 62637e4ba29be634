//! The drill of a copy that another tool has made: hash it, restore it into isolation, ask the engine about all of it, damage
//! the copy and see the restore fail.
//!
//! There is no witness, so the control line is another one than that of our own copies: not the restored data are damaged but
//! the copy itself (in the sandbox), and restoring it must then fail. What is shown is A3, never more.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use seaworthy_interface::{
    Adopted, AdoptedRestore, Cx, DriverError, ErrorKind, Fetched, Sandbox, SandboxProvider,
};
use seaworthy_model::adopt::is_beside;
use seaworthy_model::check::UserCheck;
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::id::RunId;
use seaworthy_model::receipt::is_found;
use seaworthy_model::verdict::{Assurance, CheckOutcome, CheckReport, Verdict, judge};

use super::drill::{
    Control, DrillDone, FRESH, RESTORE, TEARDOWN, WRITE, inconclusive, stoppable, teardown_limit,
};
use super::{Stopwatch, blames_the_copy, chain, finding_of};

/// Judges what was read of a copy, before it is restored: its digest beside it, its date. One report for each name.
pub type Judging = Box<dyn Fn(&Fetched) -> (Vec<CheckReport>, Vec<Finding>) + Send + Sync>;

/// What is drilled, and how.
pub struct AdoptRequest {
    /// The run.
    pub run: RunId,
    /// The instant that the copy is of, as far as its name says.
    pub point: Timestamp,
    /// Digest of the copy as it was seen when it was chosen.
    pub sha256: String,
    /// Names of the checks that `judging` answers.
    pub judged: Vec<String>,
    /// Judges what was read.
    pub judging: Judging,
    /// Questions of the user's.
    pub checks: Vec<UserCheck>,
    /// Bytes that the restore needs.
    pub needed_bytes: u64,
    /// When the drill is given up.
    pub deadline: Duration,
    /// Chooses the damage of the control line.
    pub control_seed: u64,
}

impl std::fmt::Debug for AdoptRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdoptRequest")
            .field("run", &self.run)
            .field("point", &self.point)
            .finish_non_exhaustive()
    }
}

/// Name of the check that the copy is still the one that was chosen.
const UNCHANGED: &str = "copy-unchanged";

/// Carries out a drill of an adopted copy. Always ends in a [`DrillDone`]: what could not be done is a finding in it.
///
/// Cancelled or out of time, the verdict is INCONCLUSIVE with `EV-10`, and the sandbox is taken down all the same.
pub async fn drill_adopted(
    cx: &Cx,
    copy: &dyn Adopted,
    provider: &dyn SandboxProvider,
    request: AdoptRequest,
    findings: Vec<Finding>,
) -> DrillDone {
    let mut watch = Stopwatch::start();
    let mut done = DrillDone {
        verdict: Verdict::Inconclusive,
        expected: expected_checks(copy, &request),
        checks: Vec::new(),
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
    done.findings.push(Finding::new(
        FindingCode::NoWitness,
        "copy",
        "another tool made it: what was filtered out, changed or lost before it was written cannot be noticed",
    ));
    let bounded = cx.within(request.deadline);
    bounded.phase("provision");
    let opened = watch
        .measure("provision", bounded.run(provider.open(&bounded, &request.run, request.needed_bytes)))
        .await;
    match opened.map_err(DriverError::from).and_then(|opened| opened) {
        Ok(sandbox) => {
            done.sandbox = Some(sandbox.facts().clone());
            proof_and_control(&bounded, copy, &sandbox, &request, &mut watch, &mut done).await;
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
    done.phases = watch.phases;
    done.verdict = verdict(&done);
    done
}

/// The names of the checks that must be carried out: from the copy's kind and the configuration, never from what was done.
fn expected_checks(copy: &dyn Adopted, request: &AdoptRequest) -> Vec<String> {
    let mut names = vec![UNCHANGED.to_owned()];
    names.extend(request.judged.iter().cloned());
    names.extend([RESTORE.to_owned(), FRESH.to_owned()]);
    names.extend(copy.checks());
    names.extend(request.checks.iter().map(|check| format!("user:{}", check.name)));
    names.push(WRITE.to_owned());
    names
}

/// The report of a step that ended in an error. A file that is gone from its place says nothing about what it held.
fn report_of(name: &str, error: &DriverError) -> CheckReport {
    let mut finding = finding_of(error, name);
    if error.code.is_none() && error.kind == ErrorKind::NotFound {
        finding.code = FindingCode::ReadFailed;
    }
    let is_at_fault = blames_the_copy(finding.code) || finding.code == FindingCode::ForeignCommand;
    let outcome = if is_at_fault { CheckOutcome::Failed } else { CheckOutcome::Inconclusive };
    CheckReport { name: name.to_owned(), outcome, detail: finding.detail.clone(), findings: vec![finding] }
}

fn passed(name: &str, detail: impl Into<String>) -> CheckReport {
    CheckReport {
        name: name.to_owned(),
        outcome: CheckOutcome::Passed,
        detail: detail.into(),
        findings: Vec::new(),
    }
}

fn unchanged(request: &AdoptRequest, fetched: &Fetched) -> CheckReport {
    if fetched.sha256 == request.sha256 {
        return passed(UNCHANGED, format!("{} bytes were read, SHA-256 {}", fetched.bytes, fetched.sha256));
    }
    let detail = format!("when it was chosen it had SHA-256 {}, now {}", request.sha256, fetched.sha256);
    CheckReport {
        name: UNCHANGED.to_owned(),
        outcome: CheckOutcome::Inconclusive,
        detail: detail.clone(),
        findings: vec![Finding::new(FindingCode::WrongCopyRead, "copy", detail)],
    }
}

async fn proof_and_control(
    cx: &Cx,
    copy: &dyn Adopted,
    sandbox: &Arc<dyn Sandbox>,
    request: &AdoptRequest,
    watch: &mut Stopwatch,
    done: &mut DrillDone,
) {
    cx.phase("fetch");
    let fetching = stoppable(cx, copy.fetch(cx, Arc::clone(sandbox)));
    let fetched = match watch.measure("fetch", fetching).await {
        Ok(fetched) => fetched,
        Err(error) => {
            done.checks.push(report_of(RESTORE, &error));
            return;
        }
    };
    done.fetched_bytes = fetched.bytes;
    done.checks.push(unchanged(request, &fetched));
    let (reports, findings) = (request.judging)(&fetched);
    done.checks.extend(reports);
    done.findings.extend(findings);

    cx.phase("restore");
    let restoring = stoppable(cx, copy.restore(cx, Arc::clone(sandbox)));
    let restored = match watch.measure("restore", restoring).await {
        Ok(restored) => restored,
        Err(error) => {
            done.checks.push(report_of(RESTORE, &error));
            return;
        }
    };
    done.engine = restored.summary();
    done.engine_identity = restored.engine_identity();
    done.findings.extend(restored.findings());
    done.checks.push(passed(RESTORE, format!("restored without an error; {}", done.engine)));
    done.checks.push(match restored.engine_identity() {
        Some(identity) => passed(FRESH, format!("scratch engine {identity}, made by this run and empty")),
        None => passed(FRESH, "restored into a directory made by this run"),
    });

    cx.phase("checks");
    watch.measure("checks", prove(cx, restored.as_ref(), request, done)).await;
    done.rto = Some(watch.elapsed());
    let closing = Cx::unbounded().within(TEARDOWN);
    if let Err(error) = restored.close(&closing).await {
        done.findings.push(finding_of(&error, "engine shutdown"));
        return;
    }

    if matches!(judge(&done.expected, &done.checks, Assurance::A3), Verdict::Pass(_)) {
        cx.phase("control");
        match watch.measure("control", control(cx, copy, sandbox, request)).await {
            Ok(control) => {
                if !control.caught {
                    done.findings.push(Finding::new(
                        FindingCode::CheckerBlind,
                        "control line",
                        format!("the restore did not notice this damage: {}", control.damage),
                    ));
                }
                done.control = Some(control);
            }
            Err(error) => done.findings.push(Finding::new(
                FindingCode::CheckerBlind,
                "control line",
                format!("the control line could not be carried out: {}", chain(&error)),
            )),
        }
    }
}

async fn prove(cx: &Cx, restored: &dyn AdoptedRestore, request: &AdoptRequest, done: &mut DrillDone) {
    match stoppable(cx, restored.examine(cx)).await {
        Ok(reports) => done.checks.extend(reports),
        // One report carries the reason; the others are missing, and a missing check is never a pass.
        Err(error) => done.checks.push(report_of("examine", &error)),
    }
    for check in &request.checks {
        let limit = Duration::try_from(check.timeout).unwrap_or(Duration::from_secs(60));
        let bounded = cx.within(limit);
        let name = format!("user:{}", check.name);
        done.checks.push(match stoppable(&bounded, restored.answer(&bounded, check, request.point)).await {
            Ok(report) => CheckReport { name, ..report },
            Err(error) => report_of(&name, &error),
        });
    }
    match stoppable(cx, restored.newest(cx, request.point)).await {
        Ok(newest) => done.newest = newest,
        Err(error) => done.findings.push(finding_of(&error, "newest data")),
    }
    done.checks.push(match stoppable(cx, restored.write_probe(cx)).await {
        Ok(report) => CheckReport { name: WRITE.to_owned(), ..report },
        Err(error) => report_of(WRITE, &error),
    });
}

/// Damages the copy and restores it again: one of the reports must say so, under a code that the damage calls for.
async fn control(
    cx: &Cx,
    copy: &dyn Adopted,
    sandbox: &Arc<dyn Sandbox>,
    request: &AdoptRequest,
) -> Result<Control, DriverError> {
    let damage = stoppable(cx, copy.damage(cx, Arc::clone(sandbox), request.control_seed)).await;
    let (damage, reports) = match damage {
        Ok(damage) => match stoppable(cx, copy.restore(cx, Arc::clone(sandbox))).await {
            Ok(restored) => {
                let mut reports = vec![passed(RESTORE, "restored without an error")];
                match stoppable(cx, restored.examine(cx)).await {
                    Ok(more) => reports.extend(more),
                    Err(error) => reports.push(report_of("examine", &error)),
                }
                restored.close(&Cx::unbounded().within(TEARDOWN)).await?;
                (damage, reports)
            }
            Err(error) => (damage, vec![report_of(RESTORE, &error)]),
        },
        Err(error) => return Err(error),
    };
    let executed = reports.len() as u64;
    let failed: Vec<CheckReport> =
        reports.into_iter().filter(|check| check.outcome != CheckOutcome::Passed).collect();
    let caught = is_found(&failed, &damage.expected, &damage.checks);
    Ok(Control {
        damage: damage.description,
        expected: damage.expected,
        executed,
        failed,
        caught,
        answers: Vec::new(),
        checks: damage.checks,
    })
}

/// Judges: the checks, then the control line, then whatever else was found. Only ever lowers.
fn verdict(done: &DrillDone) -> Verdict {
    let by_checks = judge(&done.expected, &done.checks, Assurance::A3);
    if !matches!(by_checks, Verdict::Pass(_)) {
        return by_checks;
    }
    let is_caught = done.control.as_ref().is_some_and(|control| control.caught);
    let is_clean = done.findings.iter().all(|finding| is_beside(finding.code));
    if is_caught && is_clean && done.removed_bytes.is_some() && done.fetched_bytes > 0 {
        by_checks
    } else {
        Verdict::Inconclusive
    }
}
