//! The common end of a check: how many subjects are named, and what that makes of it.

use std::collections::BTreeSet;

use crate::finding::Finding;
use crate::verdict::{CheckOutcome, CheckReport};

/// Most subjects that one check names; the rest is counted.
pub(super) const NAMED_MAX: usize = 20;

/// Collects findings, of which at most [`NAMED_MAX`] and at least one of every code are kept.
#[derive(Debug, Default)]
pub(super) struct Findings {
    kept: Vec<Finding>,
    seen: BTreeSet<&'static str>,
    count: u64,
}

impl Findings {
    pub(super) fn push(&mut self, finding: Finding) {
        self.count += 1;
        // One of every code is kept beyond the bound, so that no kind of damage goes unnamed.
        if self.seen.insert(finding.code.as_str()) || self.kept.len() < NAMED_MAX {
            self.kept.push(finding);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// A check carried out: passed without findings, failed with them.
    pub(super) fn report(self, name: &str, detail: impl Into<String>) -> CheckReport {
        let outcome = if self.is_empty() { CheckOutcome::Passed } else { CheckOutcome::Failed };
        self.conclude(name, outcome, detail)
    }

    /// A check with this outcome.
    pub(super) fn conclude(
        self,
        name: &str,
        outcome: CheckOutcome,
        detail: impl Into<String>,
    ) -> CheckReport {
        let mut detail = detail.into();
        if self.count > self.kept.len() as u64 {
            detail = format!("{detail}; {} findings, {} named", self.count, self.kept.len());
        }
        CheckReport { name: name.to_owned(), outcome, detail, findings: self.kept }
    }
}

impl FromIterator<Finding> for Findings {
    fn from_iter<T: IntoIterator<Item = Finding>>(findings: T) -> Self {
        let mut collected = Self::default();
        findings.into_iter().for_each(|finding| collected.push(finding));
        collected
    }
}

/// What every check says that did not pass, word for word.
#[cfg(test)]
pub(super) fn told(reports: Vec<CheckReport>) -> Vec<String> {
    let open = reports.into_iter().filter(|report| report.outcome != CheckOutcome::Passed);
    open.flat_map(|report| {
        let (name, outcome) = (report.name, report.outcome);
        report.findings.into_iter().map(move |finding| format!("{name} {outcome:?} {finding}"))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::FindingCode;

    fn of(codes: &[(FindingCode, usize)]) -> CheckReport {
        let each = codes.iter().flat_map(|(code, times)| std::iter::repeat_n(*code, *times));
        let findings: Findings = each.map(|code| Finding::new(code, "x", "y")).collect();
        findings.report("rows:x", "compared")
    }

    #[test]
    fn without_findings_a_check_has_passed_and_with_them_it_has_failed() {
        assert_eq!((of(&[]).outcome, of(&[]).detail.as_str()), (CheckOutcome::Passed, "compared"));
        let one = of(&[(FindingCode::RowCount, 1)]);
        assert_eq!((one.outcome, one.name.as_str(), one.findings.len()), (CheckOutcome::Failed, "rows:x", 1));
    }

    #[test]
    fn twenty_are_named_and_one_of_every_code_beyond() {
        let twenty = of(&[(FindingCode::RowCount, 20)]);
        assert_eq!((twenty.findings.len(), twenty.detail.as_str()), (20, "compared"));
        let more = of(&[(FindingCode::RowCount, 21), (FindingCode::RowContent, 2)]);
        assert_eq!((more.findings.len(), more.detail.as_str()), (21, "compared; 23 findings, 21 named"));
        assert_eq!(more.findings[20].code, FindingCode::RowContent);
    }
}
