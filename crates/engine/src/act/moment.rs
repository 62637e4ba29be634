//! The part of a drill that goes on to a moment: what `restore --until` would do, in isolation, in a sandbox of its own.
//!
//! There is no witness of such a moment. What is shown of it is one check of the drill: that the log leads there and recovery ended at its record,
//! that files, pages, tables and indexes are sound, that the user's questions are answered, and that an application could write. That
//! the copy holds what its source held is shown by the rest of the drill.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use seaworthy_interface::{CopyReader, Cx, DriverError, ErrorKind, SandboxProvider, Source};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::verdict::{CheckOutcome, CheckReport};
use seaworthy_model::wal::{MOMENT, Reached};
use seaworthy_model::witness::Witness;
use tokio::time::Instant;

use super::drill::{DrillRequest, RESTORE, TEARDOWN, WRITE, answer, fresh, stoppable};
use super::{blames_the_copy, chain, finding_of};
use crate::runner::Moment;

/// Most findings that the check repeats.
const FINDINGS_MAX: usize = 8;

/// What going on has shown.
#[derive(Debug)]
pub(super) struct Went {
    /// The check.
    pub(super) report: CheckReport,
    /// Where it ended.
    pub(super) reached: Option<Reached>,
    /// The newest instant inside the data.
    pub(super) newest: Option<Timestamp>,
    /// From its start to the last answer; `None` where the restore never got that far.
    pub(super) took: Option<Duration>,
    /// All of it, the end of its sandbox included.
    pub(super) all: Duration,
    /// Bytes that were removed with the sandbox; `None` when its removal could not be shown.
    pub(super) removed_bytes: Option<u64>,
}

/// The one check that several make.
fn summed(reports: Vec<CheckReport>, reached: Option<&Reached>) -> CheckReport {
    let count = reports.len();
    let outcome = match reached {
        _ if reports.iter().any(|report| report.outcome == CheckOutcome::Failed) => CheckOutcome::Failed,
        Some(_) if reports.iter().all(|report| report.outcome == CheckOutcome::Passed) => {
            CheckOutcome::Passed
        }
        Some(_) | None => CheckOutcome::Inconclusive,
    };
    let mut findings = Vec::new();
    let mut detail = reached.map_or_else(String::new, |reached| {
        format!(
            "recovered to {}, as of {}, by {} bytes of log; {count} checks there",
            reached.position, reached.at, reached.bytes
        )
    });
    if outcome != CheckOutcome::Passed {
        let bad = reports.into_iter().filter(|report| report.outcome != CheckOutcome::Passed);
        let (mut first, mut all) = (None, Vec::new());
        for report in bad {
            first.get_or_insert(format!("{}: {}", report.name, report.detail));
            all.extend(report.findings);
        }
        detail = first.unwrap_or_else(|| "it is not known where recovery ended".to_owned());
        findings.push(Finding::new(FindingCode::MomentMissed, MOMENT, detail.clone()));
        findings.extend(all.into_iter().filter(|finding| finding.code != FindingCode::MomentMissed));
        findings.truncate(FINDINGS_MAX);
    }
    CheckReport { name: MOMENT.to_owned(), outcome, detail, findings }
}

/// What an error amounts to: failed where what was kept is not what was kept, undecided otherwise.
fn of_error(error: &DriverError) -> CheckReport {
    let finding = finding_of(error, RESTORE);
    let is_bad = match finding.code {
        FindingCode::MomentMissed => error.kind == ErrorKind::Corrupt,
        code => blames_the_copy(code),
    };
    CheckReport {
        name: RESTORE.to_owned(),
        outcome: if is_bad { CheckOutcome::Failed } else { CheckOutcome::Inconclusive },
        detail: chain(error),
        findings: vec![finding],
    }
}

/// What went wrong while restoring without ending it.
fn messages(findings: Vec<Finding>) -> Option<CheckReport> {
    let detail = findings.first()?.detail.clone();
    Some(CheckReport { name: RESTORE.to_owned(), outcome: CheckOutcome::Failed, detail, findings })
}

/// A restore of which nothing was said.
fn nothing_compared() -> CheckReport {
    let detail = "nothing was looked at".to_owned();
    CheckReport {
        name: RESTORE.to_owned(),
        outcome: CheckOutcome::Inconclusive,
        findings: vec![Finding::new(FindingCode::NothingChecked, MOMENT, detail.clone())],
        detail,
    }
}

/// Goes on to `moment`, and looks at what is there.
pub(super) async fn go_on(
    cx: &Cx,
    source: &dyn Source,
    (witness, reader): (&Witness, &Arc<dyn CopyReader>),
    provider: &dyn SandboxProvider,
    request: &DrillRequest,
    moment: &Moment,
) -> Went {
    let began = Instant::now();
    let mut went = Went {
        report: summed(Vec::new(), None),
        reached: None,
        newest: None,
        took: None,
        all: Duration::ZERO,
        removed_bytes: None,
    };
    let bounded = cx.within(request.deadline);
    cx.phase("moment");
    let opened =
        stoppable(&bounded, async { provider.open(&bounded, &request.run, request.needed_bytes).await })
            .await;
    let sandbox = match opened {
        Ok(sandbox) => sandbox,
        Err(error) => {
            went.report = summed(vec![super::drill::inconclusive(RESTORE, &error)], None);
            (went.all, went.removed_bytes) = (began.elapsed(), Some(0));
            return went;
        }
    };
    let mut copies = vec![(witness.clone(), Arc::clone(reader))];
    copies.extend(moment.behind.iter().cloned());
    let journal = Arc::clone(&moment.journal);
    let restoring = source.restore_until(&bounded, &copies, journal, Arc::clone(&sandbox), &moment.until);
    let mut reports = Vec::new();
    match stoppable(&bounded, restoring).await {
        Err(error) => reports.push(of_error(&error)),
        Ok(restored) => {
            went.reached = restored.reached();
            let point = went.reached.as_ref().map_or(request.point, |reached| reached.at);
            reports.push(fresh(restored.as_ref(), request));
            reports.extend(messages(restored.findings()));
            match stoppable(&bounded, restored.compare(&bounded, witness)).await {
                Ok(compared) if compared.is_empty() => reports.push(nothing_compared()),
                Ok(compared) => reports.extend(compared),
                Err(error) => reports.push(of_error(&error)),
            }
            for check in &request.checks {
                reports.push(answer(&bounded, restored.as_ref(), check, point).await);
            }
            match stoppable(&bounded, restored.newest(&bounded)).await {
                Ok(newest) => went.newest = newest,
                Err(error) => reports.push(of_error(&error)),
            }
            reports.push(match stoppable(&bounded, restored.write_probe(&bounded)).await {
                Ok(report) => CheckReport { name: WRITE.to_owned(), ..report },
                Err(error) => of_error(&error),
            });
            went.took = Some(began.elapsed());
            let closing = Cx::unbounded().within(TEARDOWN);
            if let Err(error) = restored.close(&closing).await {
                reports.push(of_error(&error));
            }
        }
    }
    let teardown = Cx::unbounded().within(TEARDOWN.saturating_add(began.elapsed().saturating_mul(10)));
    match sandbox.close(&teardown).await {
        Ok(removed) => went.removed_bytes = Some(removed),
        Err(error) => reports.push(of_error(&error)),
    }
    went.report = summed(reports, went.reached.as_ref());
    if went.report.outcome != CheckOutcome::Passed {
        went.reached = None;
    }
    went.all = began.elapsed();
    went
}

#[cfg(test)]
mod tests {
    use seaworthy_model::wal::{Lsn, Target};

    use super::*;

    fn report(name: &str, outcome: CheckOutcome) -> CheckReport {
        let findings = match outcome {
            CheckOutcome::Passed => Vec::new(),
            _ => vec![Finding::new(FindingCode::Corruption, name, "x"); 20],
        };
        CheckReport { name: name.to_owned(), outcome, detail: "y".to_owned(), findings }
    }

    #[test]
    fn one_check_is_the_worst_of_all_and_never_a_pass_without_an_end() {
        use CheckOutcome::{Failed, Inconclusive, Passed};
        let reached =
            Reached { target: Target::Latest, at: Timestamp::UNIX_EPOCH, position: Lsn(7), bytes: 3 };
        let of = |outcomes: &[CheckOutcome], reached: Option<&Reached>| {
            let reports = outcomes.iter().map(|outcome| report("a", *outcome)).collect();
            let summed = summed(reports, reached);
            assert_eq!(summed.findings.is_empty(), summed.outcome == Passed, "{summed:?}");
            assert!(summed.findings.len() <= FINDINGS_MAX);
            if let Some(first) = summed.findings.first() {
                assert_eq!(first.code, FindingCode::MomentMissed);
            }
            summed.outcome
        };
        assert_eq!(of(&[Passed, Passed], Some(&reached)), Passed);
        assert_eq!(of(&[Passed, Passed], None), Inconclusive);
        assert_eq!(of(&[], None), Inconclusive);
        assert_eq!(of(&[Passed, Inconclusive], Some(&reached)), Inconclusive);
        assert_eq!(of(&[Inconclusive, Failed, Passed], Some(&reached)), Failed);
        assert_eq!(of(&[Failed], None), Failed);
    }

    #[test]
    fn only_what_is_damaged_fails() {
        let missed = |kind| DriverError::new(kind, "x").code(FindingCode::MomentMissed);
        assert_eq!(of_error(&missed(ErrorKind::Corrupt)).outcome, CheckOutcome::Failed);
        assert_eq!(of_error(&missed(ErrorKind::Refused)).outcome, CheckOutcome::Inconclusive);
        assert_eq!(of_error(&DriverError::new(ErrorKind::Corrupt, "x")).outcome, CheckOutcome::Failed);
        assert_eq!(
            of_error(&DriverError::new(ErrorKind::Unreachable, "x")).outcome,
            CheckOutcome::Inconclusive
        );
        assert_eq!(
            of_error(&DriverError::new(ErrorKind::Exhausted, "x")).outcome,
            CheckOutcome::Inconclusive
        );
    }
}
