//! Exceptions on purpose: `seaworthy: allow LN-05 because …` in a comment. Without a reason nothing is allowed.

use serde::Serialize;

use super::read::{Document, Kind};
use super::{Defect, Draft, Out, Report};
use crate::finding::FindingCode;

/// The words that begin an exception.
const WORDS: &str = "seaworthy: allow";

/// An exception that somebody wrote into a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exception {
    /// The rules that it is for.
    pub codes: Vec<FindingCode>,
    /// Why.
    pub reason: String,
    /// The text.
    pub file: String,
    /// Its line, counted from 1.
    pub line: usize,
    /// Lines that it covers, counted from 1, the last one included.
    #[serde(skip)]
    covers: (usize, usize),
    #[serde(skip)]
    text: usize,
}

/// A defect that an exception covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Allowed {
    /// The rule.
    pub code: FindingCode,
    /// The text.
    pub file: String,
    /// Line of the defect.
    pub line: usize,
    /// The exception's reason.
    pub reason: String,
}

/// Reads the exceptions of a text; one that names no known code or no reason is a defect itself.
pub(super) fn collect(
    text: usize,
    document: &Document<'_>,
    exceptions: &mut Vec<Exception>,
    out: &mut Out<'_>,
) {
    if !document.text.contains(WORDS) {
        return;
    }
    for index in 0..document.lines.len() {
        let line = document.line(index);
        let Some(at) = line.find(WORDS) else { continue };
        let before = line.get(..at).unwrap_or_default().trim_end();
        let is_comment = ["#", "<!--", "//", "--", ";"].iter().any(|mark| before.ends_with(mark));
        if !is_comment {
            continue;
        }
        let said = line.get(at + WORDS.len()..).unwrap_or_default();
        let said = said.split("-->").next().unwrap_or_default();
        let (names, reason) = said.split_once("because").unwrap_or((said, ""));
        let words: Vec<&str> = names
            .split([' ', ','])
            .map(str::trim)
            .filter(|word| !word.is_empty() && *word != "and")
            .collect();
        let codes: Vec<FindingCode> =
            FindingCode::ALL.iter().copied().filter(|code| words.contains(&code.as_str())).collect();
        let reason = reason.trim().trim_matches(['.', '…']).trim();
        let base = document.lines.get(index).map_or(0, |line| line.span.start);
        let span = base + at..base + line.trim_end().len();
        let wrong = if codes.is_empty() || codes.len() != words.len() {
            Some("an exception that does not name a rule by its code")
        } else if reason.chars().filter(|c| c.is_alphabetic()).count() < 3 {
            Some("an exception without a reason")
        } else {
            None
        };
        if let Some(wrong) = wrong {
            Draft::new(FindingCode::LintExceptionIncomplete, text, span, WORDS)
                .says(format!("{wrong} allows nothing"))
                .because("who reads it in a year has to know whether it still holds")
                .mend("write `seaworthy: allow LN-05 because …`, with the code and the reason")
                .report(out);
            continue;
        }
        let is_alone = before
            .trim_matches(|c: char| c.is_whitespace() || matches!(c, '#' | '<' | '!' | '-' | '/' | ';'))
            .is_empty();
        let last = if is_alone { covered(document, index) } else { index };
        exceptions.push(Exception {
            codes,
            reason: reason.to_owned(),
            file: document.name.to_owned(),
            line: index + 1,
            covers: (index + 1, last + 1),
            text,
        });
    }
}

/// The last line of what an exception on a line of its own covers: the next command, or in a document the next block.
fn covered(document: &Document<'_>, from: usize) -> usize {
    let count = document.lines.len();
    let is_code = |index: usize| document.lines.get(index).is_some_and(|line| line.is_code);
    let is_blank = |index: usize| document.line(index).trim().is_empty();
    let Some(first) =
        (from + 1..count).find(|index| !is_blank(*index) && !document.line(*index).contains(WORDS))
    else {
        return from;
    };
    if document.kind == Kind::Prose && !is_code(from) {
        let mut last = first;
        // A block of code whole, whatever blank lines are in it; else a paragraph or a table.
        while last + 1 < count && if is_code(first) { is_code(last + 1) } else { !is_blank(last + 1) } {
            last += 1;
        }
        return last;
    }
    let mut last = first;
    while last + 1 < count && document.line(last).trim_end().ends_with('\\') {
        last += 1;
    }
    last
}

/// Parts what is allowed from what is not.
pub(super) fn apply(defects: Vec<Defect>, exceptions: Vec<Exception>) -> Report {
    let mut used = vec![false; exceptions.len()];
    let mut report = Report::default();
    for defect in defects {
        let mut by = None;
        for (number, exception) in exceptions.iter().enumerate() {
            let (first, last) = exception.covers;
            if exception.text == defect.place.text
                && exception.codes.contains(&defect.code)
                && (first..=last).contains(&defect.place.line)
            {
                if let Some(used) = used.get_mut(number) {
                    *used = true;
                }
                by = by.or(Some(exception));
            }
        }
        match by {
            Some(exception) => report.allowed.push(Allowed {
                code: defect.code,
                file: defect.place.file,
                line: defect.place.line,
                reason: exception.reason.clone(),
            }),
            None => report.defects.push(defect),
        }
    }
    report.idle =
        exceptions.into_iter().zip(used).filter(|(_, used)| !used).map(|(exception, _)| exception).collect();
    report
}
