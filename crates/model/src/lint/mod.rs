//! Finds known-bad commands and contradictions in the texts by which people back up and recover: runbooks, scripts, crontabs,
//! workflows, environment files, Terraform. Texts in, defects out, each with its place, the reason and what mends it.
//!
//! A text is data: nothing in it is expanded, followed or run, and the time that it takes grows with its length whatever it
//! holds. A false alarm teaches people to look away, so a rule that cannot tell says nothing: silence is no praise. Every
//! rule is a [`FindingCode`] of the family `LN`; `docs/guide/lint.md` says for each why it is there.

mod allow;
mod call;
mod read;
mod region;
mod render;
mod rules;
mod shell;
mod words;

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Serialize;

pub use allow::{Allowed, Exception};
pub use read::Kind;
pub use render::render;

use crate::config::{Origins, SourceText};
use crate::finding::{FindingCode, Severity};
use crate::service::Inventory;
use read::Document;

/// What the configuration promises, so that documents can be compared with it.
#[derive(Debug, Clone, Copy)]
pub struct Promises<'c> {
    /// The promises.
    pub inventory: &'c Inventory,
    /// Where each of them stands.
    pub origins: &'c Origins,
    /// The texts of the configuration, under the names that the origins use.
    pub texts: &'c [SourceText],
}

/// A stretch of a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Name of the text.
    pub file: String,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// Characters; of a stretch over several lines, those on the first.
    pub length: usize,
    /// What is there; may be empty.
    pub label: String,
    /// The line as it may be shown: without secrets and control characters, cut around the stretch.
    #[serde(skip)]
    pub(crate) snippet: Snippet,
    #[serde(skip)]
    text: usize,
    #[serde(skip)]
    start: usize,
}

/// One line of a text as it may be shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Snippet {
    pub(crate) line: String,
    pub(crate) start: usize,
    pub(crate) length: usize,
}

/// One thing that is wrong: what, where, why, and what mends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Defect {
    /// The rule.
    pub code: FindingCode,
    /// How much it weighs.
    pub severity: Severity,
    /// Where.
    pub place: Place,
    /// What it is about: a program, a claim, a service. Never a secret.
    pub subject: String,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// Why it is wrong: what was seen with which version, or which document says so.
    pub why: String,
    /// The command or the change that mends it.
    pub fix: String,
    /// Other places that take part.
    pub related: Vec<Place>,
}

/// Everything that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What is wrong, in the order of the texts.
    pub defects: Vec<Defect>,
    /// What would be wrong and was allowed on purpose, with the reason.
    pub allowed: Vec<Allowed>,
    /// Exceptions that allow nothing: what they were for has gone, or they stand in the wrong place.
    pub idle: Vec<Exception>,
    /// Defects that are not listed, because their text holds more than anybody reads.
    pub omitted: usize,
}

/// Most defects of one text that are listed: more are one defect, which is to be mended at its root.
const DEFECTS_MAX: usize = 500;

/// Reads all texts and finds what is wrong in each and between them.
///
/// The order of the texts decides only the order of the report. Without `promises`, what compares a text with the
/// configuration is not asked.
#[must_use]
pub fn lint(texts: &[SourceText], promises: Option<Promises<'_>>) -> Report {
    let documents: Vec<Document<'_>> = texts.iter().map(Document::read).collect();
    let mut out = Out {
        texts: texts.iter().chain(promises.map_or(&[][..], |promises| promises.texts)).collect(),
        drafts: Vec::new(),
        clock_changes: BTreeMap::new(),
    };
    rules::apply(&rules::Case { documents: &documents, promises }, &mut out);
    let mut exceptions = Vec::new();
    for (text, document) in documents.iter().enumerate() {
        allow::collect(text, document, &mut exceptions, &mut out);
    }
    let (defects, omitted) = out.finish();
    Report { omitted, ..allow::apply(defects, exceptions) }
}

/// A stretch of one of the texts, by their numbers: those that were handed over, then those of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    text: usize,
    span: Range<usize>,
    label: String,
}

/// A defect being written; reaches the report with [`Draft::report`].
#[must_use = "a draft that is not reported is a defect that nobody hears of"]
#[derive(Debug)]
struct Draft {
    code: FindingCode,
    mark: Mark,
    subject: String,
    message: String,
    why: String,
    fix: String,
    related: Vec<Mark>,
    /// Stretches of the marked line that hold a secret.
    secrets: Vec<Range<usize>>,
}

impl Draft {
    fn new(code: FindingCode, text: usize, span: Range<usize>, subject: impl Into<String>) -> Self {
        Self {
            code,
            mark: Mark { text, span, label: String::new() },
            subject: subject.into(),
            message: String::new(),
            why: String::new(),
            fix: code.remedy().to_owned(),
            related: Vec::new(),
            secrets: Vec::new(),
        }
    }

    fn says(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    fn because(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    fn mend(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }

    fn with(mut self, text: usize, span: Range<usize>, label: impl Into<String>) -> Self {
        // 5: enough to see what is meant; a document may say the same a thousand times.
        if self.related.len() < 5 {
            self.related.push(Mark { text, span, label: label.into() });
        }
        self
    }

    fn hide(mut self, secret: Range<usize>) -> Self {
        self.secrets.push(secret);
        self
    }

    fn report(self, out: &mut Out<'_>) {
        out.drafts.push(self);
    }
}

/// Collects what the rules find.
struct Out<'t> {
    texts: Vec<&'t SourceText>,
    drafts: Vec<Draft>,
    /// What changes of clocks do to a time of day in a zone.
    clock_changes: BTreeMap<(String, i8, i8), Option<String>>,
}

impl Out<'_> {
    fn finish(mut self) -> (Vec<Defect>, usize) {
        self.drafts.sort_by(|a, b| {
            let key = |draft: &Draft| (draft.mark.text, draft.mark.span.start, draft.code);
            key(a).cmp(&key(b))
        });
        // One command may be read twice, as a line and as a block.
        self.drafts.dedup_by(|a, b| {
            (a.code, a.mark.text, a.mark.span.start) == (b.code, b.mark.text, b.mark.span.start)
        });
        // A secret that one rule has found is hidden wherever its line is shown, also by a rule that knows nothing of it.
        let mut secrets: Vec<Vec<Range<usize>>> = vec![Vec::new(); self.texts.len()];
        for draft in &mut self.drafts {
            if let Some(known) = secrets.get_mut(draft.mark.text) {
                known.append(&mut draft.secrets);
            }
        }
        let before = self.drafts.len();
        let mut counts = vec![0_usize; self.texts.len()];
        self.drafts.retain(|draft| {
            counts.get_mut(draft.mark.text).is_some_and(|count| {
                *count += 1;
                *count <= DEFECTS_MAX
            })
        });
        let omitted = before - self.drafts.len();
        let starts: Vec<Vec<usize>> = self.texts.iter().map(|text| render::line_starts(&text.text)).collect();
        let place = |mark: &Mark| {
            let secrets = secrets.get(mark.text).map(Vec::as_slice).unwrap_or_default();
            let text = self.texts.get(mark.text);
            let (name, content) = text.map_or(("", ""), |text| (text.name.as_str(), text.text.as_str()));
            let starts = starts.get(mark.text).map(Vec::as_slice).unwrap_or_default();
            render::locate(name, content, starts, mark, secrets)
        };
        let drafts = std::mem::take(&mut self.drafts);
        let defects = drafts
            .into_iter()
            .map(|draft| Defect {
                code: draft.code,
                severity: draft.code.severity(),
                place: place(&draft.mark),
                subject: render::clean(&draft.subject),
                message: render::clean(&draft.message),
                why: render::clean(&draft.why),
                fix: render::clean(&draft.fix),
                related: draft.related.iter().map(&place).collect(),
            })
            .collect();
        (defects, omitted)
    }
}
