//! The ladder of assurance and the algebra of verdicts: a conjunction, never a ratio.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::finding::Finding;

/// How far a copy has been proven. A level is earned by a signed receipt, never by a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Assurance {
    /// In the inventory, or a document says so.
    A0,
    /// The copy exists where it should and is fresh.
    A1,
    /// Every byte was read back and authenticated.
    A2,
    /// Restored in isolation by the real engine, which started and answered.
    A3,
    /// Content equals the witness taken at the backup's own snapshot.
    A4,
    /// A4, and the application's own smoke and write probes pass within the measured RTO.
    A5,
    /// A5 from an offsite copy with the escrowed key, on a host without the production key, catalogue or this binary.
    A6,
}

impl Assurance {
    /// Every level, the lowest first.
    pub const ALL: [Self; 7] = [Self::A0, Self::A1, Self::A2, Self::A3, Self::A4, Self::A5, Self::A6];

    /// The level's word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::A0 => "Declared",
            Self::A1 => "Present",
            Self::A2 => "Intact",
            Self::A3 => "Restored",
            Self::A4 => "Equal",
            Self::A5 => "Usable",
            Self::A6 => "Independent",
        }
    }
}

impl fmt::Display for Assurance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?} {}", self.word())
    }
}

/// The answer of one check. A check that could not be carried out has no answer; see [`CheckReport::outcome`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckOutcome {
    /// Carried out, and what was restored is right.
    Passed,
    /// Could not be decided: the environment, a deadline, a missing tool.
    Inconclusive,
    /// Carried out, and what was restored is wrong.
    Failed,
}

/// One check of a drill, as it goes into the receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Stable name, e.g. `rows:public.orders`, `schema`, `user:orders-exist`.
    pub name: String,
    /// The answer.
    pub outcome: CheckOutcome,
    /// What was compared, with numbers; no row values.
    pub detail: String,
    /// What was found wrong, or why it could not be decided. Not empty unless passed.
    pub findings: Vec<Finding>,
}

/// What a drill has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "word", content = "level")]
pub enum Verdict {
    /// Every required check ran and passed; the level is what they add up to.
    Pass(Assurance),
    /// Something could not be decided.
    Inconclusive,
    /// Something is wrong with what was restored.
    Fail,
}

impl Verdict {
    /// The word printed for people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass(_) => "PASS",
            Self::Inconclusive => "INCONCLUSIVE",
            Self::Fail => "FAIL",
        }
    }
}

/// Judges a drill: the worst of its checks, and INCONCLUSIVE when the executed list is not the expected one.
///
/// `expected` is the list derived from the witness; an empty one, a missing, doubled or unexpected check can never
/// pass. `reached` is the level that the drill's shape allows (A3 without a witness, A4 with one, A5 with probes).
#[must_use]
pub fn judge(expected: &[String], executed: &[CheckReport], reached: Assurance) -> Verdict {
    if executed.iter().any(|check| check.outcome == CheckOutcome::Failed) {
        return Verdict::Fail;
    }
    let mut wanted: Vec<&str> = expected.iter().map(String::as_str).collect();
    let mut ran: Vec<&str> = executed.iter().map(|check| check.name.as_str()).collect();
    wanted.sort_unstable();
    ran.sort_unstable();
    let all_passed =
        executed.iter().all(|check| check.outcome == CheckOutcome::Passed && check.findings.is_empty());
    if wanted.is_empty() || wanted != ran || !all_passed {
        return Verdict::Inconclusive;
    }
    Verdict::Pass(reached)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, outcome: CheckOutcome) -> CheckReport {
        CheckReport { name: name.to_owned(), outcome, detail: String::new(), findings: Vec::new() }
    }

    #[test]
    fn nothing_ran_is_not_a_pass() {
        assert_eq!(judge(&[], &[], Assurance::A4), Verdict::Inconclusive);
    }

    #[test]
    fn a_check_that_did_not_run_is_not_a_pass() {
        let expected = vec!["schema".to_owned(), "rows:a".to_owned()];
        assert_eq!(
            judge(&expected, &[check("schema", CheckOutcome::Passed)], Assurance::A4),
            Verdict::Inconclusive
        );
        let both = [check("rows:a", CheckOutcome::Passed), check("schema", CheckOutcome::Passed)];
        assert_eq!(judge(&expected, &both, Assurance::A4), Verdict::Pass(Assurance::A4));
    }

    #[test]
    fn only_the_expected_list_once_each_and_without_a_finding_passes() {
        let expected = vec!["a".to_owned(), "b".to_owned()];
        let passed = |name| check(name, CheckOutcome::Passed);
        let of = |ran: &[CheckReport]| judge(&expected, ran, Assurance::A5);
        assert_eq!(of(&[passed("a"), passed("b")]), Verdict::Pass(Assurance::A5));
        assert_eq!(of(&[passed("a"), passed("b"), passed("b")]), Verdict::Inconclusive, "twice");
        assert_eq!(of(&[passed("a"), passed("a")]), Verdict::Inconclusive);
        assert_eq!(of(&[passed("a"), passed("b"), passed("c")]), Verdict::Inconclusive, "one too many");
        assert_eq!(of(&[passed("a"), check("b", CheckOutcome::Inconclusive)]), Verdict::Inconclusive);
        let mut noted = passed("b");
        noted.findings.push(Finding::new(crate::finding::FindingCode::SourceFlawed, "b", ""));
        assert_eq!(of(&[passed("a"), noted]), Verdict::Inconclusive, "passed, and something was found");
        assert_eq!(judge(&[], &[passed("a")], Assurance::A4), Verdict::Inconclusive);
    }

    #[test]
    fn levels_and_verdicts_have_their_words() {
        let words: Vec<String> = Assurance::ALL.iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "A0 Declared",
                "A1 Present",
                "A2 Intact",
                "A3 Restored",
                "A4 Equal",
                "A5 Usable",
                "A6 Independent"
            ]
        );
        assert!(Assurance::ALL.is_sorted());
        let verdicts =
            [Verdict::Pass(Assurance::A4), Verdict::Inconclusive, Verdict::Fail].map(Verdict::word);
        assert_eq!(verdicts, ["PASS", "INCONCLUSIVE", "FAIL"]);
    }

    #[test]
    fn one_failure_outweighs_everything() {
        let expected = vec!["schema".to_owned()];
        let ran = [check("schema", CheckOutcome::Failed), check("x", CheckOutcome::Inconclusive)];
        assert_eq!(judge(&expected, &ran, Assurance::A4), Verdict::Fail);
    }
}
