//! A drill's receipt, for people: on a terminal, in Markdown, on one self-contained page. All from the same facts.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Unit};
use seaworthy_model::finding::Finding;
use seaworthy_model::id::KeyFileId;
use seaworthy_model::objective::{Met, Objective};
use seaworthy_model::receipt::{Drill, Independence, Measured, Receipt};
use seaworthy_model::verdict::{Assurance, CheckOutcome, CheckReport, Verdict};
use seaworthy_model::wal::{Reached, Target};

use crate::failure::printable;
use crate::output::{Face, Tone, bytes, count, duration};

/// Most checks of one kind that are listed one by one when they passed.
const LISTED_MAX: usize = 12;

/// `2026-11-21T03:00:00Z`, whole seconds.
pub(crate) fn instant(at: Timestamp) -> String {
    at.round(Unit::Second).map_or_else(|_| at.to_string(), |at| at.to_string())
}

fn millis(ms: u64) -> String {
    duration(Duration::from_millis(ms))
}

/// `41m12s of 2h00m, met`.
fn against(measured: &Measured) -> String {
    let value = measured.measured_ms.map_or_else(|| "not measured".to_owned(), millis);
    let target = match measured.target {
        Objective::Within(bound) => {
            format!(" of {}", duration(Duration::try_from(bound).unwrap_or_default()))
        }
        Objective::NotApplicable => String::new(),
    };
    let word = match measured.met {
        Met::Met => "met",
        Met::Missed => "MISSED",
        Met::Unknown => "UNKNOWN",
        Met::NotApplicable => "no objective applies",
    };
    format!("{value}{target}, {word}")
}

/// `PASS  A5 Usable`.
pub(crate) fn verdict(verdict: Verdict) -> String {
    match verdict {
        Verdict::Pass(level) => format!("PASS {level}"),
        Verdict::Inconclusive | Verdict::Fail => verdict.word().to_owned(),
    }
}

fn tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Pass(_) => Tone::Good,
        Verdict::Inconclusive => Tone::Warn,
        Verdict::Fail => Tone::Bad,
    }
}

fn glyph(outcome: CheckOutcome) -> (&'static str, &'static str, Tone) {
    match outcome {
        CheckOutcome::Passed => ("✓", "passed", Tone::Good),
        CheckOutcome::Inconclusive => ("?", "inconclusive", Tone::Warn),
        CheckOutcome::Failed => ("✗", "FAILED", Tone::Bad),
    }
}

fn worst(drill: &Drill) -> Option<&Finding> {
    let failed = |wanted: CheckOutcome| {
        drill.checks.iter().filter(move |check| check.outcome == wanted).flat_map(|check| &check.findings)
    };
    failed(CheckOutcome::Failed)
        .next()
        .or_else(|| failed(CheckOutcome::Inconclusive).next())
        .or_else(|| drill.findings.first())
}

/// The moment that was reached, and how it was named where that is not the moment itself.
fn moment(reached: &Reached) -> String {
    match &reached.target {
        Target::Time(_) => instant(reached.at),
        target => format!("{} ({})", instant(reached.at), printable(&target.to_string())),
    }
}

/// One sentence: could the service be recovered?
pub(crate) fn sentence(drill: &Drill) -> String {
    let what = format!("{}/{}", drill.service, drill.source);
    match drill.verdict {
        Verdict::Pass(level) => {
            let took = drill.rto.measured_ms.map_or_else(String::new, |ms| format!(" in {}", millis(ms)));
            let moment = drill
                .reached
                .as_ref()
                .map_or_else(String::new, |reached| format!(" and with its log to {}", moment(reached)));
            format!("{what} could be recovered to {}{moment}{took} ({level})", instant(drill.point))
        }
        Verdict::Fail if !drill.blames_the_copy() => format!(
            "{what} could NOT be recovered to {}: {}; its copy of {} is good",
            drill.until.as_ref().map_or_else(String::new, |until| printable(&until.to_string())),
            worst(drill).map_or_else(String::new, |worst| format!(
                "{} ({})",
                printable(&worst.detail),
                worst.code
            )),
            instant(drill.point)
        ),
        Verdict::Fail => match worst(drill) {
            Some(finding) => format!(
                "{what} could NOT be recovered from this copy: {} ({})",
                printable(&finding.detail),
                finding.code
            ),
            None => format!("{what} could NOT be recovered from this copy"),
        },
        Verdict::Inconclusive => match worst(drill) {
            Some(finding) => format!(
                "whether {what} could be recovered is not known: {} ({})",
                printable(&finding.detail),
                finding.code
            ),
            None => format!("whether {what} could be recovered is not known"),
        },
    }
}

/// The report for a terminal.
pub(crate) fn terminal(face: &Face, receipt: &Receipt, drill: &Drill) -> String {
    let mut text = String::new();
    let mut line = |words: String| {
        text.push_str(&words);
        text.push('\n');
    };
    let words = sentence(drill);
    // The level stands before the sentence already.
    let words = match drill.verdict {
        Verdict::Pass(level) => words.strip_suffix(&format!(" ({level})")).unwrap_or(&words).to_owned(),
        Verdict::Fail | Verdict::Inconclusive => words,
    };
    line(format!(
        "{}  {}",
        face.paint(tone(drill.verdict), &verdict(drill.verdict)),
        face.paint(Tone::Bold, &words)
    ));
    line(format!(
        "  copy       {} of {}, repository {}",
        short(&drill.copy.0),
        instant(drill.point),
        drill.repository.name
    ));
    if let Some(engine) = &drill.engine {
        line(format!("  restored   {} ({} fetched)", printable(&engine.summary), bytes(drill.fetched_bytes)));
    }
    if let Some(shown) = &drill.independence {
        line(format!("  brought    {}", printable(&brought(shown))));
        for reason in not_independent(drill, shown) {
            line(format!("             {} {}", face.paint(Tone::Warn, "not A6:"), printable(&reason)));
        }
    }
    line(format!("  RTO        {}", against(&drill.rto)));
    line(format!(
        "  RPO        {}{}",
        against(&drill.rpo.exposure),
        drill.rpo.newest.map_or_else(String::new, |at| format!(", newest data {}", instant(at)))
    ));
    line(format!(
        "  phases     {}",
        drill
            .phases
            .iter()
            .map(|phase| format!("{} {}", phase.name, millis(phase.took_ms)))
            .collect::<Vec<_>>()
            .join(" · ")
    ));
    let passed = drill.checks.iter().filter(|check| check.outcome == CheckOutcome::Passed).count();
    line(format!("  proof      {passed} of {} checks passed", drill.expected_checks.len()));
    for check in shown(&drill.checks) {
        let (mark, _, tone) = glyph(check.outcome);
        line(format!(
            "    {} {}  {}",
            face.paint(tone, mark),
            printable(&check.name),
            face.paint(Tone::Dim, &printable(&check.detail))
        ));
        for finding in &check.findings {
            line(format!("        {}", face.paint(Tone::Bad, &printable(&finding.to_string()))));
        }
    }
    let hidden = drill.checks.len() - shown(&drill.checks).count();
    if hidden > 0 {
        line(format!("    {} and {hidden} more that passed", face.paint(Tone::Good, "✓")));
    }
    match &drill.control {
        Some(control) => {
            let (mark, word, tone) = if control.caught {
                ("✓", "caught", Tone::Good)
            } else {
                ("✗", "NOT NOTICED", Tone::Bad)
            };
            let codes: Vec<String> = control
                .failed
                .iter()
                .flat_map(|check| &check.findings)
                .map(|finding| finding.code.to_string())
                .collect();
            line(format!(
                "  control    {} {word}: {} → {}",
                face.paint(tone, mark),
                printable(&control.damage),
                unique(codes).join(", ")
            ));
        }
        None => line("  control    not carried out: there was no pass to doubt".to_owned()),
    }
    for finding in &drill.findings {
        line(format!("  finding    {}", face.paint(Tone::Warn, &printable(&finding.to_string()))));
        line(format!("             {}", finding.code.remedy()));
    }
    line(format!(
        "  teardown   {}",
        if drill.teardown.proven {
            format!("sandbox gone, {} removed", bytes(drill.teardown.removed_bytes))
        } else {
            printable(&drill.teardown.detail)
        }
    ));
    line(format!("  next       due {}", next_due(drill)));
    line(format!("  receipt    {} {}", receipt.sequence, receipt.digest));
    text
}

/// By what a copy was brought back, and with whose key.
fn brought(shown: &Independence) -> String {
    let program = shown.program.as_ref().map_or("stock restic", |program| {
        // `restic 0.18.0 compiled with go1.24.4 on linux/amd64`
        program.version.split(" compiled").next().unwrap_or(&program.version)
    });
    let key = match (&shown.key, &shown.key_name, shown.custody) {
        (Some(key), Some(name), Some(custody)) => format!("key {} ({name}, {custody})", short_key(key)),
        (Some(key), _, _) => format!("key {}, which the register does not name", short_key(key)),
        (None, _, _) => "no key".to_owned(),
    };
    let site = shown.copy_site.as_deref().unwrap_or("an unknown site");
    let absent: Vec<&str> =
        shown.absent.iter().filter(|one| one.is_shown).map(|one| one.what.as_str()).collect();
    let absent = if absent.is_empty() { "nothing".to_owned() } else { absent.join(", ") };
    format!(
        "without us by {program} with {key} from {site}: {} of {}; out of its reach: {absent}",
        count(usize::try_from(shown.restored_files).unwrap_or(usize::MAX), "file"),
        bytes(shown.restored_bytes),
    )
}

fn short_key(key: &KeyFileId) -> &str {
    key.0.get(..8).unwrap_or(&key.0)
}

/// Why a drill that was to be independent of us has not shown A6; empty where it has, or where there was no pass.
fn not_independent(drill: &Drill, shown: &Independence) -> Vec<String> {
    let Verdict::Pass(level) = drill.verdict else { return Vec::new() };
    if level >= Assurance::A6 {
        return Vec::new();
    }
    let mut reasons = shown.shortfalls();
    if drill.witness.is_none() {
        reasons.push("no witness to compare with".to_owned());
    }
    if !drill.checks.iter().any(|check| check.name.starts_with("user:")) {
        reasons.push("you have no check of your own".to_owned());
    }
    if !matches!(drill.rto.met, Met::Met | Met::NotApplicable) {
        reasons.push("the recovery time was not met".to_owned());
    }
    reasons
}

fn unique(mut codes: Vec<String>) -> Vec<String> {
    codes.sort();
    codes.dedup();
    codes
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// Everything that did not pass, and the first few that did.
fn shown(checks: &[CheckReport]) -> impl Iterator<Item = &CheckReport> {
    let mut passed = 0;
    checks.iter().filter(move |check| {
        if check.outcome != CheckOutcome::Passed {
            return true;
        }
        passed += 1;
        passed <= LISTED_MAX
    })
}

/// The "Restore Test" report: the fields that an auditor of the field expects, in Markdown.
pub(crate) fn markdown(receipt: &Receipt, drill: &Drill) -> String {
    let mut text = String::new();
    let mut line = |words: String| {
        text.push_str(&words);
        text.push('\n');
    };
    let cell = |words: &str| printable(words).replace('|', "\\|").replace('<', "&lt;");
    line(format!("# Restore Test: {}/{}", drill.service, drill.source));
    line(String::new());
    line(sentence(drill));
    line(String::new());
    line("| field | value |".to_owned());
    line("|---|---|".to_owned());
    let rows = table(receipt, drill);
    for (name, value) in &rows {
        line(format!("| {name} | {} |", cell(value)));
    }
    line(String::new());
    line("## Phases".to_owned());
    line(String::new());
    line("| phase | took |".to_owned());
    line("|---|---|".to_owned());
    for phase in &drill.phases {
        line(format!("| {} | {} |", cell(&phase.name), millis(phase.took_ms)));
    }
    line(String::new());
    line("## Checks".to_owned());
    line(String::new());
    line("| check | result | detail |".to_owned());
    line("|---|---|---|".to_owned());
    for check in &drill.checks {
        let findings: String = check.findings.iter().map(|finding| format!(" · {finding}")).collect();
        line(format!(
            "| {} | {} | {}{} |",
            cell(&check.name),
            glyph(check.outcome).1,
            cell(&check.detail),
            cell(&findings)
        ));
    }
    line(String::new());
    line("## Control line".to_owned());
    line(String::new());
    line(match &drill.control {
        Some(control) => format!(
            "Damage made on purpose: {}. {}.",
            cell(&control.damage),
            if control.caught { "The checks noticed it" } else { "The checks did NOT notice it" }
        ),
        None => "Not carried out: there was no pass to doubt.".to_owned(),
    });
    line(String::new());
    line("## Claim boundary".to_owned());
    line(String::new());
    line("This report covers the copy named above, restored into isolation on one host. It says nothing about DNS, clients, or other services.".to_owned());
    line(format!(
        "Verify it offline: `seaworthy verify RECEIPT --key signing.pub` (receipt {}, `{}`).",
        receipt.sequence, receipt.digest
    ));
    text
}

/// The fields of the report (REQUIREMENTS of the field: tested by, date, database, sizes, RTO, RPO, schema, rows, …).
fn table(receipt: &Receipt, drill: &Drill) -> Vec<(&'static str, String)> {
    let answer = |prefixes: &[&str]| {
        let asked: Vec<&CheckReport> = drill
            .checks
            .iter()
            .filter(|check| prefixes.iter().any(|prefix| check.name.starts_with(prefix)))
            .collect();
        let is = |outcome: CheckOutcome| asked.iter().any(|check| check.outcome == outcome);
        if asked.is_empty() {
            "not asked".to_owned()
        } else if is(CheckOutcome::Failed) {
            "NO".to_owned()
        } else if asked.iter().all(|check| check.outcome == CheckOutcome::Passed) {
            format!("yes ({})", count(asked.len(), "check"))
        } else {
            "UNKNOWN".to_owned()
        }
    };
    let issues: Vec<String> = drill
        .checks
        .iter()
        .flat_map(|check| &check.findings)
        .chain(&drill.findings)
        .map(ToString::to_string)
        .collect();
    let mut rows = vec![
        ("TESTED_BY", drill.executor.clone()),
        ("DATE", instant(drill.started)),
        ("SERVICE", format!("{}/{} ({})", drill.service, drill.source, drill.source_kind)),
        ("BACKUP_DATE", instant(drill.point)),
        ("COPY", drill.copy.0.clone()),
        ("REPOSITORY", format!("{} {}", drill.repository.name, drill.repository.id)),
        (
            "SELECTION",
            format!(
                "{} of {}{}",
                drill.selection.rule,
                count(usize::try_from(drill.selection.candidates).unwrap_or(usize::MAX), "candidate"),
                drill.selection.seed.map_or_else(String::new, |seed| format!(", seed {seed}"))
            ),
        ),
        (
            "BACKUP_SIZE",
            format!("{} fetched, {} restored", bytes(drill.fetched_bytes), bytes(drill.restored_bytes)),
        ),
        (
            "INDEPENDENCE",
            drill.independence.as_ref().map_or_else(
                || "restored by this program's own engine".to_owned(),
                |shown| {
                    let reasons = not_independent(drill, shown);
                    let but = if reasons.is_empty() {
                        String::new()
                    } else {
                        format!("; not A6: {}", reasons.join("; "))
                    };
                    format!("{}{but}", brought(shown))
                },
            ),
        ),
        ("RTO_MEASURED", against(&drill.rto)),
        ("RPO_MEASURED", against(&drill.rpo.exposure)),
        ("SCHEMA_EQUAL", answer(&["objects", "schema"])),
        ("ROWS_EQUAL", answer(&["rows"])),
        ("FILES_EQUAL", answer(&["content", "entries", "metadata", "types-and-links"])),
        ("NEWEST_DATA", newest(drill)),
        ("APPLICATION_CHECKS", answer(&["user:"])),
        ("WRITE_PROBE", answer(&["write-probe"])),
        (
            "CONTROL_LINE",
            drill.control.as_ref().map_or_else(
                || "not carried out".to_owned(),
                |control| {
                    if control.caught { "damage noticed".to_owned() } else { "damage NOT noticed".to_owned() }
                },
            ),
        ),
        (
            "SANDBOX",
            drill
                .sandbox
                .value()
                .get("mode")
                .and_then(|mode| mode.as_str())
                .map_or_else(|| "none".to_owned(), |mode| format!("isolated ({mode}), no network")),
        ),
        ("RESULT", verdict(drill.verdict)),
        ("ISSUES", if issues.is_empty() { "none".to_owned() } else { issues.join("; ") }),
        ("NEXT_DUE", next_due(drill)),
        ("RECEIPT", format!("{} {}", receipt.sequence, receipt.digest)),
    ];
    if let Some(until) = &drill.until {
        let asked = printable(&until.to_string());
        let value = match &drill.reached {
            Some(reached) => format!(
                "{asked}: recovered to {}, as of {}, {} of log replayed",
                reached.position,
                reached.at,
                bytes(reached.bytes)
            ),
            None => format!("{asked}: NOT reached"),
        };
        rows.insert(4, ("MOMENT", value));
    }
    rows
}

/// The newest instant inside the restored data, or why there is none.
fn newest(drill: &Drill) -> String {
    match (drill.rpo.newest, drill.rto.measured_ms) {
        (Some(newest), _) => instant(newest),
        (None, Some(_)) => "the data carry no time".to_owned(),
        (None, None) => "nothing was restored".to_owned(),
    }
}

/// When the next drill is due, or why nobody has said when.
fn next_due(drill: &Drill) -> String {
    match (drill.next_due, drill.verdict) {
        (Some(next), _) => instant(next),
        (None, Verdict::Pass(_)) => "not recorded".to_owned(),
        (None, Verdict::Fail | Verdict::Inconclusive) => "now: this one has proven nothing".to_owned(),
    }
}

/// Text that is safe between tags and in attributes.
pub(crate) fn html_text(words: &str) -> String {
    printable(words)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

pub(crate) const STYLE: &str = "
:root{color-scheme:light dark;--fg:#1b2430;--dim:#5b6775;--bg:#fff;--line:#d5dbe2;--good:#14663a;--warn:#8a5300;--bad:#a3162a;--bar:#3f6fb0}
@media (prefers-color-scheme:dark){:root{--fg:#e6ebf1;--dim:#a1adba;--bg:#12181f;--line:#33404d;--good:#6fd39b;--warn:#f0b866;--bad:#ff8a97;--bar:#7aa7e6}}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:60rem;margin:2rem auto;padding:0 1rem;overflow-wrap:anywhere}
h1{font-size:1.4rem;margin:0}h2{font-size:1.05rem;margin:2rem 0 .5rem}
.verdict{font-size:1.2rem;font-weight:700;margin:.4rem 0}.good{color:var(--good)}.warn{color:var(--warn)}.bad{color:var(--bad)}
table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid var(--line);padding:.3rem .6rem .3rem 0;text-align:left;vertical-align:top}
th{font-weight:600;white-space:nowrap}.result{white-space:nowrap}code{font-size:.9em}.dim{color:var(--dim)}svg{display:block;max-width:100%}
@media screen and (max-width:40rem){body{margin:1rem auto}thead{display:none}tr,th,td{display:block}tr{border-bottom:1px solid var(--line);padding:.3rem 0}th,td{border:0;padding:0}th{font-size:.85em;color:var(--dim)}}
@media print{:root{color-scheme:light;--fg:#000;--dim:#444;--bg:#fff;--line:#bbb;--good:#14663a;--warn:#8a5300;--bad:#a3162a;--bar:#3f6fb0}body{font-size:10pt;max-width:none;margin:0;padding:0}h2{break-after:avoid}tr,svg,li{break-inside:avoid}}
@page{size:A4;margin:18mm}
";

/// One self-contained page: no script, no outside reference, light and dark, printable.
pub(crate) fn html(receipt: &Receipt, drill: &Drill) -> String {
    let class = match drill.verdict {
        Verdict::Pass(_) => "good",
        Verdict::Inconclusive => "warn",
        Verdict::Fail => "bad",
    };
    let mut page = String::with_capacity(16 * 1024);
    let title = format!("Restore test of {}/{}: {}", drill.service, drill.source, verdict(drill.verdict));
    push(
        &mut page,
        format_args!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n"
        ),
    );
    push(
        &mut page,
        format_args!(
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        ),
    );
    push(
        &mut page,
        format_args!(
            "<title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n",
            html_text(&title)
        ),
    );
    push(
        &mut page,
        format_args!(
            "<h1>Restore test of {}/{}</h1>\n<p class=\"verdict {class}\">{}</p>\n<p>{}</p>\n",
            html_text(drill.service.as_str()),
            html_text(drill.source.as_str()),
            html_text(&verdict(drill.verdict)),
            html_text(&sentence(drill))
        ),
    );
    push(&mut page, format_args!("<h2>Facts</h2>\n<table>\n"));
    for (name, value) in table(receipt, drill) {
        push(
            &mut page,
            format_args!("<tr><th scope=\"row\">{name}</th><td>{}</td></tr>\n", html_text(&value)),
        );
    }
    push(&mut page, format_args!("</table>\n<h2>Phases</h2>\n{}", waterfall(drill)));
    push(
        &mut page,
        format_args!(
            "<h2>Checks</h2>\n<table>\n<thead><tr><th scope=\"col\">check</th><th scope=\"col\">result</th><th scope=\"col\">detail</th></tr></thead>\n<tbody>\n"
        ),
    );
    for check in &drill.checks {
        let (mark, word, tone) = glyph(check.outcome);
        let class = match tone {
            Tone::Good => "good",
            Tone::Warn | Tone::Dim | Tone::Bold => "warn",
            Tone::Bad => "bad",
        };
        let findings: String = check
            .findings
            .iter()
            .map(|finding| format!("<br><span class=\"bad\">{}</span>", html_text(&finding.to_string())))
            .collect();
        push(
            &mut page,
            format_args!(
                "<tr><td><code>{}</code></td><td class=\"result {class}\">{mark} {word}</td><td>{}{findings}</td></tr>\n",
                html_text(&check.name),
                html_text(&check.detail)
            ),
        );
    }
    push(&mut page, format_args!("</tbody>\n</table>\n<h2>Control line</h2>\n<p>"));
    match &drill.control {
        Some(control) => push(
            &mut page,
            format_args!(
                "After the pass the drill damaged its own restore: {}. The checks <strong>{}</strong>.",
                html_text(&control.damage),
                if control.caught { "noticed it" } else { "did not notice it" }
            ),
        ),
        None => push(&mut page, format_args!("Not carried out: there was no pass to doubt.")),
    }
    push(&mut page, format_args!("</p>\n<h2>Findings</h2>\n"));
    if drill.findings.is_empty() {
        push(&mut page, format_args!("<p>None beyond the checks.</p>\n"));
    } else {
        push(&mut page, format_args!("<ul>\n"));
        for finding in &drill.findings {
            push(
                &mut page,
                format_args!(
                    "<li>{}<br><span class=\"dim\">{}</span></li>\n",
                    html_text(&finding.to_string()),
                    html_text(finding.code.remedy())
                ),
            );
        }
        push(&mut page, format_args!("</ul>\n"));
    }
    push(
        &mut page,
        format_args!(
            "<h2>Claim boundary</h2>\n<p>This page covers the copy named above, restored into isolation on one host. It says nothing about DNS, clients or other services. It is drawn from receipt {} <code>{}</code>; verify that one offline with <code>seaworthy verify</code>.</p>\n</main>\n</body>\n</html>\n",
            receipt.sequence,
            html_text(&receipt.digest.0)
        ),
    );
    page
}

fn push(page: &mut String, words: std::fmt::Arguments<'_>) {
    page.write_fmt(words).expect("writing to a String cannot fail");
}

/// The phases on a common time line, with a table for those who cannot see it.
fn waterfall(drill: &Drill) -> String {
    let total: u64 = drill.phases.iter().map(|phase| phase.took_ms).sum::<u64>().max(1);
    let height = drill.phases.len() * 26 + 8;
    let mut picture = format!(
        "<svg viewBox=\"0 0 800 {height}\" width=\"100%\" role=\"img\" aria-label=\"phases on a time line\">\n"
    );
    let mut before = 0_u64;
    for (row, phase) in drill.phases.iter().enumerate() {
        let left = 160.0 + 500.0 * before as f64 / total as f64;
        let width = (500.0 * phase.took_ms as f64 / total as f64).max(1.5);
        let top = row * 26 + 4;
        push(
            &mut picture,
            format_args!(
                "<text x=\"0\" y=\"{}\" fill=\"currentColor\" font-size=\"14\">{}</text>",
                top + 15,
                html_text(&phase.name)
            ),
        );
        push(
            &mut picture,
            format_args!(
                "<rect x=\"{left:.1}\" y=\"{top}\" width=\"{width:.1}\" height=\"18\" fill=\"var(--bar)\"><title>{} {}</title></rect>",
                html_text(&phase.name),
                millis(phase.took_ms)
            ),
        );
        push(
            &mut picture,
            format_args!(
                "<text x=\"{:.1}\" y=\"{}\" fill=\"currentColor\" font-size=\"13\">{}</text>\n",
                left + width + 6.0,
                top + 14,
                millis(phase.took_ms)
            ),
        );
        before += phase.took_ms;
    }
    picture.push_str("</svg>\n");
    picture
}

/// `2026-11-21`, in UTC: for file names.
pub(crate) fn day(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).date().to_string()
}
