//! One module per act.

pub mod adopt;
pub mod backup;
pub mod check;
pub mod comply;
pub mod drill;
pub mod independent;
mod moment;
pub mod replicate;
pub mod retain;
pub mod survey;

use std::time::Duration;

use seaworthy_interface::{DriverError, ErrorKind};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::verdict::{CheckOutcome, CheckReport};
use tokio::time::Instant;

/// A phase of a run and how long it took, by a monotonic clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// `provision`, `restore`, `checks`, …
    pub name: &'static str,
    /// How long.
    pub took: Duration,
}

/// Measures phases one after the other.
#[derive(Debug)]
struct Stopwatch {
    began: Instant,
    before: Duration,
    phases: Vec<Phase>,
}

impl Stopwatch {
    fn start() -> Self {
        Self::start_after(Vec::new())
    }

    /// Goes on after phases that have ended.
    fn start_after(phases: Vec<Phase>) -> Self {
        let before = phases.iter().map(|phase| phase.took).sum();
        Self { began: Instant::now(), before, phases }
    }

    fn elapsed(&self) -> Duration {
        self.before.saturating_add(self.began.elapsed())
    }

    async fn measure<T>(&mut self, name: &'static str, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let result = work.await;
        self.phases.push(Phase { name, took: began.elapsed() });
        result
    }
}

/// The finding that an error at a door amounts to. Without a code of its own, an error never blames the copy unless it
/// says that stored bytes are wrong.
#[must_use]
pub fn finding_of(error: &DriverError, subject: &str) -> Finding {
    let code = error.code.unwrap_or(match error.kind {
        ErrorKind::Corrupt => FindingCode::ObjectDamaged,
        ErrorKind::NotFound => FindingCode::ObjectMissing,
        ErrorKind::Stopped(_) => FindingCode::Interrupted,
        ErrorKind::Unreachable => FindingCode::Unreachable,
        ErrorKind::Unauthenticated => FindingCode::AuthDenied,
        ErrorKind::PermissionDenied => FindingCode::EnvPermission,
        ErrorKind::Exhausted => FindingCode::EnvDisk,
        ErrorKind::Unsupported => FindingCode::EnvBinary,
        ErrorKind::Conflict => FindingCode::ScratchNotFresh,
        ErrorKind::Refused => FindingCode::LiveTarget,
        ErrorKind::Unfollowable | ErrorKind::Busy | ErrorKind::Other => FindingCode::EnvOther,
    });
    Finding::new(code, subject, chain(error))
}

/// An error and its causes, in one line.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}

/// Whether a finding shows that what was restored is wrong, rather than that it could not be decided.
#[must_use]
pub fn blames_the_copy(code: FindingCode) -> bool {
    let text = code.as_str();
    ["RP-", "CT-", "FS-"].iter().any(|family| text.starts_with(family)) && code != FindingCode::NoWitness
}

/// The report of a step that ended in an error: failed when the error blames the copy, inconclusive otherwise.
fn report_of(name: &str, error: &DriverError) -> CheckReport {
    let finding = finding_of(error, name);
    let outcome =
        if blames_the_copy(finding.code) { CheckOutcome::Failed } else { CheckOutcome::Inconclusive };
    CheckReport { name: name.to_owned(), outcome, detail: finding.detail.clone(), findings: vec![finding] }
}
