//! What documents claim, and what the same documents say elsewhere.

use std::ops::Range;

use super::{Promises, all, quoted};
use crate::finding::FindingCode;
use crate::lint::read::{Document, Kind};
use crate::lint::words::{cells, foreign_regions, has_word, is_refusal, spans};
use crate::lint::{Draft, Out};

pub(super) fn apply(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    if document.kind != Kind::Prose {
        return;
    }
    kept_periods(text, document, out);
    not_measured(text, document, out);
    keep_and_clean(text, document, out);
    same_account(text, document, out);
    logs_local(text, document, out);
    control_titles(text, document, out);
    not_offsite(text, document, out);
    verdict_against_rows(text, document, out);
    expected_without_source(text, document, out);
}

/// The first line of prose that satisfies a question: its number and the stretch of it.
fn first(document: &Document<'_>, asks: impl Fn(&str) -> bool) -> Option<(usize, Range<usize>)> {
    document
        .prose_lines()
        .find(|index| asks(document.lower(*index)))
        .map(|index| (index, line_span(document, index)))
}

/// A line without the marks of lists and the blanks around it.
fn line_span(document: &Document<'_>, index: usize) -> Range<usize> {
    let line = document.line(index);
    let start = document.lines.get(index).map_or(0, |line| line.span.start);
    let lead = line.len() - line.trim_start_matches([' ', '\t', '-', '*', '>', '|', '✓', '✅']).len();
    let end = line.trim_end().trim_end_matches('|').trim_end().len();
    start + lead..start + end.max(lead)
}

fn kept_periods(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    let call = all(document).map(|(_, _, _, call)| call).find(|call| {
        ((call.is(&["borg"]) && call.says(&["prune"]))
            || (call.is(&["restic"]) && call.words.iter().any(|word| word.text == "forget")))
            && call
                .words
                .iter()
                .any(|word| word.text.starts_with("--keep-monthly") || word.text.starts_with("--keep-yearly"))
    });
    let Some(call) = call else { return };
    let mut draft: Option<Draft> = None;
    for index in document.prose_lines() {
        let lower = document.lower(index);
        let of_first = [
            "1st of",
            "first of the month",
            "first of each month",
            "first of every month",
            "first day of",
            "january 1st",
            "1 january",
            "january 1 ",
            "jan 1",
        ]
        .iter()
        .any(|word| lower.contains(word));
        let keeps = ["promot", "kept", "keep", "retain", "becomes"].iter().any(|word| lower.contains(word));
        if of_first && keeps && !is_refusal(lower) {
            draft = Some(match draft {
                None => Draft::new(FindingCode::LintKeptPeriods, text, line_span(document, index), &call.program)
                    .says(format!("the first copy of a period is to be kept, and `{}` keeps the last one", call.program))
                    .because("seen with borg 1.2.4 and restic 0.14: of Nov 1, Nov 30, Dec 1 and Dec 31, --keep-monthly keeps Nov 30 and Dec 31 and removes Dec 1")
                    .mend("say that the last copy of a period is kept; or use a tool that keeps the first one: seaworthy retain does")
                    .with(text, call.span(), format!("`{}` decides here", call.program)),
                Some(draft) => draft.with(text, line_span(document, index), ""),
            });
        }
    }
    if let Some(draft) = draft {
        draft.report(out);
    }
}

fn not_measured(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    // By its own words: nothing was restored.
    let denial = first(document, |lower| {
        let is_restore = lower.contains("restore") || lower.contains("drill");
        let is_wish = ["need to", "should", "perform ", "todo", "consider", "must still"]
            .iter()
            .any(|word| lower.contains(word));
        // Only a real one that is wished for says that there was none; a drill that is due again says nothing.
        let is_real =
            ["actual", "real restore", "real drill", "live drill"].iter().any(|word| lower.contains(word));
        let is_pending =
            ["drill pending", "not yet executed", "restore pending", "not yet done", "no restore was"]
                .iter()
                .any(|word| lower.contains(word));
        is_restore && ((is_wish && is_real) || is_pending)
    });
    // Shorter than any restore: a minute.
    let instant = document.prose_lines().find_map(|index| {
        let lower = document.lower(index);
        let is_duration = lower.contains("duration")
            && ["drill", "total", "duration:", "duration**"].iter().any(|word| lower.contains(word))
            && !lower.contains('|');
        let seconds = spans(lower).first().map(|(_, seconds)| *seconds).filter(|_| is_duration)?;
        let unit_is_seconds = lower.contains("second");
        (seconds < 60 && unit_is_seconds).then(|| (line_span(document, index), seconds))
    });
    let speaks_of_drills = document.says(&["drill", "restore test", "exercise"]);
    if !speaks_of_drills {
        return;
    }
    let mut draft: Option<Draft> = None;
    for index in document.prose_lines() {
        let lower = document.lower(index);
        let is_claim =
            ["validated", "✓", "✅", "proven", "confirmed", "tested"].iter().any(|word| lower.contains(word));
        let of_time = (has_word(lower, "rto")
            || document.heading(index).contains("rto")
            || lower.contains("recovery time")
            || lower.contains("restore:"))
            && !spans(lower).is_empty();
        let is_denied = ["not ", "pending", "estimated", "todo", "target", "should", "need to"]
            .iter()
            .any(|word| lower.contains(word));
        if !(is_claim && of_time) || is_denied {
            continue;
        }
        draft = Some(match draft {
            Some(draft) => draft.with(text, line_span(document, index), ""),
            None => {
                let base = Draft::new(FindingCode::LintNotMeasured, text, line_span(document, index), "RTO")
                    .mend("restore for real and measure: seaworthy drill SERVICE; its receipt holds start, end and digest of what was restored");
                match (&instant, &denial) {
                    (Some((place, seconds)), denial) => {
                        let base = base
                            .says(format!("a recovery time is called validated by a run of {seconds} s"))
                            .because("a restore that was not done was not timed; a procedure on paper has no recovery time")
                            .with(text, place.clone(), format!("the whole run took {seconds} s"));
                        match denial {
                            Some((_, place)) => base.with(text, place.clone(), "a real restore is still to be done, says the same text"),
                            None => base,
                        }
                    }
                    (None, Some((_, place))) => base
                        .says("a recovery time is called validated, and no restore was done by the words of the same text")
                        .because("a restore that was not done was not timed; a procedure on paper has no recovery time")
                        .with(text, place.clone(), "a real restore is still to be done"),
                    (None, None) => return claimed_tests(text, document, denial.as_ref(), out),
                }
            }
        });
    }
    if let Some(draft) = draft {
        draft.report(out);
    }
    claimed_tests(text, document, denial.as_ref(), out);
}

/// A test that is said to run daily, in a text by which no restore was done yet.
fn claimed_tests(
    text: usize,
    document: &Document<'_>,
    denial: Option<&(usize, Range<usize>)>,
    out: &mut Out<'_>,
) {
    let Some((denial_line, denial)) = denial else { return };
    let claim = first(document, |lower| {
        [
            "daily automated restore test",
            "automated restore test",
            "daily restore test",
            "restores are tested",
            "restore tests run",
            "tested daily",
            "tested weekly",
        ]
        .iter()
        .any(|word| lower.contains(word))
            && !["consider", "should", "need to", "implement", "todo", "planned", "not "]
                .iter()
                .any(|word| lower.contains(word))
    });
    if let Some((_, span)) = claim.filter(|(line, _)| line != denial_line) {
        Draft::new(FindingCode::LintNotMeasured, text, span, "restore test")
            .says("a restore test is said to run, and the same text says that a real restore is still to be done")
            .because("one of the two is not true; who relies on the first one finds out on the worst day")
            .mend("seaworthy drill list shows which restores were done, each with its receipt")
            .with(text, denial.clone(), "still to be done")
            .report(out);
    }
}

fn keep_and_clean(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    let is_about_git = |lower: &str| lower.contains("git");
    let kept = first(document, |lower| {
        let keeps = [
            "immutable",
            "keep all",
            "kept forever",
            "keep forever",
            "never deleted",
            "all snapshots",
            "kept for ever",
            "retained indefinitely",
            "keep everything",
        ]
        .iter()
        .any(|word| lower.contains(word));
        let of_copies =
            ["snapshot", "backup", "retention", "copies", "archive"].iter().any(|word| lower.contains(word));
        keeps && of_copies && !is_about_git(lower) && !lower.contains("object lock")
    });
    let Some((_, kept)) = kept else { return };
    let removed = first(document, |lower| {
        let removes = [
            "removes backups older",
            "remove backups older",
            "deletes backups older",
            "delete backups older",
            "removes all backups older",
            "removes snapshots older",
            "deletes snapshots older",
            "removes copies older",
            "deletes copies older",
            "backups older than retention",
            "purges backups",
            "retention_days",
        ]
        .iter()
        .any(|word| lower.contains(word));
        removes && !["except", "not ", "unless", "other than"].iter().any(|word| lower.contains(word))
    });
    let removed = removed.map(|(_, span)| span).or_else(|| {
        (0..document.lines.len())
            .find(|index| document.lower(*index).trim_start().starts_with("retention_days="))
            .map(|index| line_span(document, index))
    });
    if let Some(removed) = removed {
        Draft::new(FindingCode::LintKeepAndClean, text, kept, "retention")
            .says("copies are called immutable here, and removed by age elsewhere in this text")
            .because("a cleanup that goes by age does not know which copies were promised for ever")
            .mend("leave them out of the cleanup, hold them, or lock them where they are stored; and say how long the rest is kept")
            .with(text, removed, "this removes by age")
            .report(out);
    }
}

fn same_account(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    if document.says(&[
        "second account",
        "separate account",
        "another account",
        "other account",
        "different account",
        "cross-account",
        "cross account",
        "backup account",
        "own account",
        "dedicated account",
    ]) {
        return;
    }
    let stored = document
        .text
        .match_indices("s3://")
        .map(|(at, _)| at)
        .next()
        .or_else(|| document.lower.find("s3_bucket"));
    let Some(stored) = stored else { return };
    let claim = document.prose_lines().find_map(|index| {
        let lower = document.lower(index);
        let at = [
            "survives aws account",
            "survives account",
            "survives the account",
            "survive account",
            "survives an account",
            "survives a compromise of the account",
            "survives the loss of the account",
        ]
        .iter()
        .find_map(|words| lower.find(words))?;
        let start = document.lines.get(index).map_or(0, |line| line.span.start);
        let words: usize =
            lower.get(at..)?.split_inclusive([',', '.', ';']).next()?.trim_end_matches([',', '.', ';']).len();
        (!lower.contains("does not survive")).then_some(start + at..start + at + words)
    });
    if let Some(span) = claim {
        let line = document.line_of(stored);
        Draft::new(FindingCode::LintSameAccount, text, span, "account")
            .says("a copy is said to survive the account, and nothing in this text names a second one")
            .because("who takes over an account, or closes it, reaches every bucket and every snapshot in it")
            .mend("store it in an account of its own, under another login, and say so here; in seaworthy.toml each repository names its `account`")
            .with(text, line_span(document, line), "it is stored here")
            .report(out);
    }
}

/// The table that a line stands in: its header's cells in lower case.
fn header_of(document: &Document<'_>, index: usize) -> Vec<String> {
    // 200: longer than a table of a document; the search for its head has to end.
    let mut top = index;
    while top > 0 && index - top < 200 && document.line(top - 1).trim_start().starts_with('|') {
        top -= 1;
    }
    let line = document.lower(top);
    cells(line)
        .unwrap_or_default()
        .into_iter()
        .map(|cell| line.get(cell).unwrap_or_default().to_owned())
        .collect()
}

fn logs_local(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    let promise = first(document, |lower| {
        let of_logs = ["wal", "pitr", "point-in-time", "binlog"].iter().any(|word| has_word(lower, word))
            || lower.contains("critical");
        let is_short = spans(lower).iter().any(|(_, seconds)| *seconds <= 3600);
        of_logs && is_short && (has_word(lower, "rpo") || lower.contains("< 1 hour") || lower.contains("<1h"))
    });
    let Some((_, promise)) = promise else { return };
    for index in document.prose_lines() {
        let lower = document.lower(index);
        let Some(row) = cells(lower) else { continue };
        let cell = |at: usize| row.get(at).and_then(|cell| lower.get(cell.clone())).unwrap_or_default();
        let is_of_logs =
            has_word(cell(0), "wal") || cell(0).contains("binlog") || cell(0).contains("transaction log");
        if !is_of_logs {
            continue;
        }
        let header = header_of(document, index);
        let Some(storage) = header.iter().position(|name| {
            ["storage", "location", "where", "stored"].iter().any(|word| name.contains(word))
        }) else {
            continue;
        };
        if matches!(cell(storage), "local" | "local disk" | "same host" | "local only" | "on the host") {
            let start = document.lines.get(index).map_or(0, |line| line.span.start);
            let span = row.get(storage).map_or(start..start, |cell| start + cell.start..start + cell.end);
            Draft::new(FindingCode::LintLogsLocal, text, span, "WAL")
                .says("the write-ahead log is kept on one site, and a loss of at most an hour is promised")
                .because("with the site the log goes too; then the newest recoverable data is that of the last offsite copy")
                .mend("archive to an offsite place as segments are written (pgBackRest, WAL-G, pg_receivewal), or promise what the offsite copies can keep")
                .with(text, promise, "this is promised")
                .report(out);
            return;
        }
    }
}

fn control_titles(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    const TITLES: [(&str, &str); 6] = [
        ("5.29", "information security during disruption"),
        ("5.30", "ict readiness for business continuity"),
        ("8.13", "information backup"),
        ("8.14", "redundancy of information processing facilities"),
        ("5.33", "protection of records"),
        ("8.24", "use of cryptography"),
    ];
    const OLD: [(&str, &str); 4] =
        [("a.12.3.1", "A.8.13"), ("a.17.1.1", "A.5.29"), ("a.17.1.2", "A.5.29"), ("a.17.2.1", "A.8.14")];
    let knows_old = document.says(&["27001:2013", "2013 edition", "27002:2013"]);
    for index in document.prose_lines() {
        let lower = document.lower(index);
        if !lower.contains("a.") {
            continue;
        }
        let start = document.lines.get(index).map_or(0, |line| line.span.start);
        for (number, title) in TITLES {
            let name = format!("a.{number}");
            let Some(at) = lower.find(&name) else { continue };
            let rest = lower.get(at + name.len()..).unwrap_or_default();
            let said = rest.trim_start_matches([' ', ':', '-', '–', '—', '(', '|', '`', '*']);
            // The title of another control, and not only in passing: right behind the number.
            let wrong = TITLES.iter().find(|(other, wrong)| {
                *other != number && said.starts_with(wrong) && !said.starts_with(title)
            });
            if let Some((right_number, wrong)) =
                wrong.filter(|_| !rest.starts_with(|c: char| c.is_ascii_digit()))
            {
                let from = at + name.len() + (rest.len() - said.len());
                Draft::new(
                    FindingCode::LintControlTitle,
                    text,
                    start + at..start + from + wrong.len(),
                    format!("A.{number}"),
                )
                .says(format!("A.{number} is \"{}\", not \"{}\"", capital(title), capital(wrong)))
                .because(format!("ISO/IEC 27001:2022, Annex A: \"{}\" is A.{right_number}", capital(wrong)))
                .mend(format!("write A.{number} {}", capital(title)))
                .report(out);
            }
        }
        for (old, new) in OLD {
            if let Some(at) = lower.find(old).filter(|_| !knows_old && !is_refusal(lower)) {
                Draft::new(
                    FindingCode::LintControlTitle,
                    text,
                    start + at..start + at + old.len(),
                    old.to_ascii_uppercase(),
                )
                .says(format!("{} is a number of the edition of 2013", old.to_ascii_uppercase()))
                .because(
                    "certificates of that edition ended in October 2025; the 2022 edition counts otherwise",
                )
                .mend(format!("write {new}"))
                .report(out);
            }
        }
    }
}

fn capital(title: &str) -> String {
    let title = title.replace("ict ", "ICT ");
    let mut letters = title.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn not_offsite(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    const NEAR: [&str; 10] = [
        "nas",
        "local disk",
        "usb disk",
        "usb drive",
        "second disk",
        "same rack",
        "same building",
        "same server",
        "same host",
        "external drive",
    ];
    const FAR: [&str; 14] = [
        "remote",
        "another site",
        "other site",
        "second site",
        "data center",
        "datacenter",
        "data centre",
        "different building",
        "other building",
        "another building",
        "another city",
        "cloud",
        "s3",
        "colocation",
    ];
    for index in document.prose_lines() {
        let lower = document.lower(index);
        let Some(at) = ["offsite", "off-site"].iter().find_map(|word| lower.find(word)) else { continue };
        let is_denied = ["no off", "not off", "missing", "gap", "fail", "without off", "isn't", "is no "]
            .iter()
            .any(|word| lower.contains(word))
            || is_refusal(lower);
        // `from the NAS to the offsite bucket` goes the other way.
        let near = NEAR.iter().find(|word| {
            ["to ", "to the ", "on ", "on the ", "onto ", "to a ", ": ", "to local "]
                .iter()
                .any(|before| has_word(lower, &format!("{before}{word}")))
        });
        let row = cells(lower);
        // In a table the first cell names what the row is; in a sentence what is offsite comes first.
        let is_named = match &row {
            Some(row) => row.first().is_some_and(|cell| {
                lower
                    .get(cell.clone())
                    .is_some_and(|cell| cell.contains("offsite") || cell.contains("off-site"))
            }),
            None => near.is_some_and(|near| lower.find(near).is_some_and(|place| at < place)),
        };
        if let Some(near) =
            near.filter(|_| is_named && !is_denied && !FAR.iter().any(|word| lower.contains(word)))
        {
            Draft::new(FindingCode::LintNotOffsite, text, line_span(document, index), "offsite")
                .says(format!("what is called offsite goes to {}", quoted(near)))
                .because("one fire, one flood or one thief takes everything that stands on a site")
                .mend("copy it to another site, or call it a second local copy; in seaworthy.toml each repository names its `site`")
                .report(out);
        }
    }
}

fn verdict_against_rows(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    let verdict = first(document, |lower| {
        let is_whole = ["overall", "verdict", "certification result:", "final result"]
            .iter()
            .any(|word| lower.contains(word));
        // `PASS | FAIL` is a form to be filled in.
        is_whole
            && has_word(lower, "pass")
            && !has_word(lower, "fail")
            && !lower.contains("{")
            && cells(lower).is_none_or(|row| row.len() <= 3)
    });
    let Some((verdict_line, verdict)) = verdict else { return };
    let has_rule = (0..document.lines.len()).any(|index| {
        let lower = document.lower(index);
        index != verdict_line
            && (lower.contains("conditional pass") || lower.contains("overall"))
            && ["means", "if ", "when ", "decided by", "rule", "allowed with"]
                .iter()
                .any(|word| lower.contains(word))
    });
    let rows: Vec<usize> = document
        .prose_lines()
        .filter(|index| {
            let lower = document.lower(*index);
            cells(lower).is_some_and(|row| {
                row.len() >= 2
                    && row.iter().skip(1).any(|cell| {
                        let cell = document
                            .lines
                            .get(*index)
                            .and_then(|line| {
                                document.text.get(line.span.start + cell.start..line.span.start + cell.end)
                            })
                            .unwrap_or_default();
                        let cell = cell.trim_start_matches(['*', ' ', '❌', '✗', '`']);
                        cell.starts_with("FAIL") && !cell.contains('/')
                    })
            })
        })
        .take(10)
        .collect();
    if rows.is_empty() || has_rule {
        return;
    }
    let mut draft = Draft::new(FindingCode::LintVerdictAgainstRows, text, verdict, "verdict")
        .says(format!("this passes as a whole while {} of its rows fail{}", rows.len(), if rows.len() == 1 { "s" } else { "" }))
        .because("no rule in this text says how rows make a verdict, so the verdict is an opinion")
        .mend("let the worst row decide, or write the rule down; a verdict of seaworthy is the worst of its checks");
    for row in rows {
        draft = draft.with(text, line_span(document, row), "");
    }
    draft.report(out);
}

fn expected_without_source(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    let mut draft: Option<Draft> = None;
    for index in document.prose_lines() {
        let lower = document.lower(index);
        let Some(at) = lower.find("row count") else { continue };
        let has_source = [
            "witness",
            "manifest",
            "recorded",
            "at backup time",
            "at the backup",
            "source database",
            "from the source",
            "of the source",
            "in the backup",
            "snapshot",
            "receipt",
        ]
        .iter()
        .any(|word| lower.contains(word));
        let is_expected = lower.contains("expected") || lower.contains("as expected");
        if is_expected && !has_source && !is_refusal(lower) {
            let start = document.lines.get(index).map_or(0, |line| line.span.start);
            let span = start + at..start + lower.trim_end().len();
            draft = Some(match draft {
                None => Draft::new(FindingCode::LintExpectedWithoutSource, text, span, "row count")
                    .says("row counts are compared with expected ones, and nothing says where those come from")
                    .because("counts that are asked of the live database later are of another instant; counts that are asked of the restore agree with everything")
                    .mend("record them inside the backup's own snapshot; seaworthy backup does, for every table and with the content"),
                Some(draft) => draft.with(text, span, ""),
            });
        }
    }
    if let Some(draft) = draft {
        draft.report(out);
    }
}

/// Between all texts and the configuration: copies in a region that is ruled out.
pub(super) fn between(documents: &[Document<'_>], promises: Option<Promises<'_>>, out: &mut Out<'_>) {
    let mut rule: Option<(usize, Range<usize>)> = None;
    for (text, document) in documents.iter().enumerate() {
        let found = document.prose_lines().find_map(|index| {
            let lower = document.lower(index);
            let at = [
                "eu only",
                "eu-only",
                "only in the eu",
                "within the eu",
                "inside the eu",
                "outside eu",
                "outside the eu",
                "eu zones only",
            ]
            .iter()
            .find_map(|words| lower.find(words))?;
            let start = document.lines.get(index).map_or(0, |line| line.span.start);
            Some(start + at..start + at + 7)
        });
        if let Some(span) = found {
            rule = Some((text, span));
            break;
        }
    }
    let Some((rule_text, rule)) = rule else { return };
    let draft = |text: usize, span: Range<usize>, region: &str| {
        Draft::new(FindingCode::LintRegions, text, span, region)
            .says(format!("copies go to {}, and only the European Union is allowed", quoted(region)))
            .because("where a copy lies decides whose law holds for it")
            .mend("choose a region inside, e.g. eu-central-1; or write down which data this rule is for")
            .with(rule_text, rule.clone(), "this is the rule")
    };
    for (text, document) in documents.iter().enumerate() {
        let mut seen: Vec<(String, Draft)> = Vec::new();
        for index in 0..document.lines.len() {
            let lower = document.lower(index);
            // Of copies: a region alone may be a customer's.
            if !lower.contains('-') && !lower.contains("us") {
                continue;
            }
            if document.kind == Kind::Prose && document.refuses(index) {
                continue;
            }
            let start = document.lines.get(index).map_or(0, |line| line.span.start);
            for span in foreign_regions(lower) {
                let region = lower.get(span.clone()).unwrap_or_default().to_owned();
                let place = start + span.start..start + span.end;
                match seen.iter().position(|(other, _)| *other == region) {
                    Some(position) => {
                        let (region, draft) = seen.swap_remove(position);
                        seen.push((region, draft.with(text, place, "")));
                    }
                    // 50: there are no more regions.
                    None if seen.len() < 50 => {
                        let made = draft(text, place, &region);
                        seen.push((region, made));
                    }
                    None => {}
                }
            }
        }
        let of_copies = document.says(&["backup", "offsite", "snapshot", "restore"]);
        for (_, draft) in seen.into_iter().filter(|_| of_copies) {
            draft.report(out);
        }
    }
    if let Some(promises) = promises {
        for (name, repository) in &promises.inventory.repositories {
            let Some(region) = repository
                .region
                .as_deref()
                .filter(|region| !foreign_regions(&region.to_ascii_lowercase()).is_empty())
            else {
                continue;
            };
            if let Some((text, span)) =
                super::promises::origin(documents.len(), promises, &format!("repositories.{name}.region"))
            {
                draft(text, span, region).report(out);
            }
        }
    }
}
