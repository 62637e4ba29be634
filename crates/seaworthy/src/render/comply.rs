//! Where the copies are, for people: on a terminal, in Markdown, on one self-contained page. All from one receipt.

use std::cmp::Reverse;
use std::time::Duration;

use comfy_table::{Table, presets};
use seaworthy_model::finding::Severity;
use seaworthy_model::id::RepositoryName;
use seaworthy_model::objective::{Met, Objective};
use seaworthy_model::placement::{
    Answer, Comply, Disaster, DisasterKind, Fate, Look, Looked, Place, Placed, ReadBack, Row, Rule, Seen,
};
use seaworthy_model::receipt::Receipt;

use crate::failure::{Outcome, printable};
use crate::output::{Face, Tone, bytes, count, duration};
use crate::render::drill::{STYLE, html_text, instant};

fn tone(answer: Answer) -> Tone {
    match answer {
        Answer::Met => Tone::Good,
        Answer::Unknown => Tone::Warn,
        Answer::Violated => Tone::Bad,
    }
}

fn mark(answer: Answer) -> &'static str {
    match answer {
        Answer::Met => "✓",
        Answer::Unknown => "?",
        Answer::Violated => "✗",
    }
}

fn age(ms: Option<u64>) -> String {
    ms.map_or_else(|| "–".to_owned(), |ms| duration(Duration::from_millis(ms)))
}

/// One sentence: are the copies where one disaster cannot reach them all?
pub(crate) fn sentence(comply: &Comply) -> String {
    let of =
        |answer: Answer| comply.sources.iter().filter(|source| source.placement.answer == answer).count();
    let all = count(comply.sources.len(), "source");
    let words = match comply.answer {
        Answer::Met => format!("the copies of {all} are where the policy asks for them"),
        Answer::Unknown => format!(
            "whether the copies of {} of {all} are where the policy asks for them is not known",
            of(Answer::Unknown)
        ),
        Answer::Violated => {
            let unknown = of(Answer::Unknown);
            let more =
                if unknown > 0 { format!(", and of {unknown} it is not known") } else { String::new() };
            format!(
                "the copies of {} of {all} are NOT where the policy asks for them{more}",
                of(Answer::Violated)
            )
        }
    };
    format!("3-2-1 {}: {words}", comply.answer.word())
}

/// What was seen in a repository, in a few words.
fn seen(look: &Look, row: &Row) -> String {
    let read = || {
        let copy = look.copies.iter().find(|copy| Some(&copy.copy) == row.copy.as_ref())?;
        match &copy.read {
            ReadBack::Authentic { bytes: length } => Some(format!("read back {}", bytes(*length))),
            ReadBack::Damaged(_) | ReadBack::NotRead(_) => None,
        }
    };
    match (&look.seen, row.counts) {
        (Seen::Silent(_), _) => "? did not answer".to_owned(),
        (Seen::Answered, Answer::Met) => format!("✓ {}", read().unwrap_or_default()),
        (Seen::Answered, answer) => format!("{} {}", mark(answer), row.why),
    }
}

fn word(word: Option<&String>) -> String {
    word.map_or_else(|| "not said".to_owned(), |word| printable(word))
}

fn places(place: &Place) -> [String; 4] {
    let site = place.site.as_ref().filter(|site| *site != seaworthy_model::placement::UNNAMED_SITE);
    [word(place.medium.as_ref()), word(site), word(place.region.as_ref()), word(place.account.as_ref())]
}

const COPIES: [&str; 9] = ["COPY", "MEDIUM", "SITE", "REGION", "ACCOUNT", "POINT", "AGE", "LEVEL", "SEEN"];

/// A line for the live data, and one for each repository.
fn copies(placed: &Placed) -> Vec<[String; 9]> {
    let [medium, site, region, account] = places(&placed.case.production);
    let dash = || "–".to_owned();
    let mut lines =
        vec![["live data".to_owned(), medium, site, region, account, dash(), dash(), dash(), dash()]];
    for (look, row) in placed.case.looks.iter().zip(&placed.placement.rows) {
        let [medium, site, region, account] = places(&look.place);
        let has_copy = row.copy.is_some();
        lines.push([
            look.repository.to_string(),
            medium,
            site,
            region,
            account,
            row.point.map_or_else(dash, instant),
            age(row.age_ms),
            if has_copy { format!("{:?}", row.level) } else { dash() },
            printable(&seen(look, row)),
        ]);
    }
    lines
}

const DISASTERS: [&str; 6] = ["", "IF", "LIVE DATA", "LEFT IN", "WOULD LOSE", "LEVEL"];

/// Whether a disaster is worth a line where there is little room: what the policy asks about, what strikes the live data, and
/// passwords.
fn is_told(disaster: &Disaster) -> bool {
    disaster.is_judged || disaster.production != Fate::Kept || disaster.kind == DisasterKind::Password
}

fn disaster(placed: &Placed, disaster: &Disaster) -> [String; 6] {
    let live = match disaster.production {
        Fate::Kept => "left",
        Fate::Unknown => "not known",
        Fate::Lost => "lost",
    };
    let perhaps = disaster.left.is_none();
    let left = disaster.left.as_ref().or(disaster.perhaps.as_ref());
    let place = match (left, perhaps) {
        (Some(left), false) => left.repository.to_string(),
        (Some(left), true) => format!("{}, perhaps", left.repository),
        (None, _) if disaster.is_unseen => "not known".to_owned(),
        (None, _) => "nothing".to_owned(),
    };
    let loses = match (disaster.production, left) {
        (Fate::Kept, _) => "nothing".to_owned(),
        (Fate::Lost | Fate::Unknown, Some(left)) => {
            let promised = match (placed.case.rpo, disaster.rpo) {
                (Objective::Within(bound), Met::Missed) => {
                    format!(", promised {}", duration(Duration::try_from(bound).unwrap_or_default()))
                }
                (Objective::Within(_) | Objective::NotApplicable, _) => String::new(),
            };
            format!("{}{promised}", age(Some(left.age_ms)))
        }
        (Fate::Lost | Fate::Unknown, None) if disaster.answer == Answer::Unknown => "not known".to_owned(),
        (Fate::Lost | Fate::Unknown, None) => "everything".to_owned(),
    };
    let level = left.map_or_else(|| "–".to_owned(), |left| format!("{:?}", left.level));
    let mark = if disaster.is_judged { mark(disaster.answer) } else { "" };
    [mark.to_owned(), printable(&disaster.to_string()), live.to_owned(), place, loses, level]
}

/// What the newest recovery point is, and where.
fn newest(placed: &Placed) -> String {
    match &placed.placement.newest {
        None => "no copy is known to be there and fresh".to_owned(),
        Some(newest) => {
            let names: Vec<&str> = newest.repositories.iter().map(RepositoryName::as_str).collect();
            format!("newest point {} in {}", instant(newest.point), names.join(", "))
        }
    }
}

/// A repository that was looked at, in one line.
fn repository(looked: &Looked) -> String {
    let took = duration(Duration::from_millis(looked.took_ms));
    let mut words = match &looked.seen {
        Seen::Silent(finding) => format!("did not answer ({}, after {took})", finding.code),
        Seen::Answered => format!(
            "{} in it, {} read in {took}",
            count(usize::try_from(looked.snapshots).unwrap_or(usize::MAX), "snapshot"),
            bytes(looked.read_bytes)
        ),
    };
    match &looked.space {
        Some(space) => {
            let grows = match (space.grows_bytes_a_day, space.days_left) {
                (Some(grows), Some(days)) => {
                    format!(", grows by {} a day: full in {}", bytes(grows), days_of(days))
                }
                (Some(_), None) => ", does not grow".to_owned(),
                (None, _) => ", growth not known yet".to_owned(),
            };
            let health = if space.health.is_some() { "" } else { "; disk health not known" };
            let (free, total) = (bytes(space.free_bytes), bytes(space.total_bytes));
            words.push_str(&format!("; {free} of {total} free{grows}{health}"));
        }
        None => words.push_str("; room not known"),
    }
    words
}

fn days_of(days: u64) -> String {
    // Beyond ten years it is no forecast.
    if days > 3_650 {
        "more than 10 years".to_owned()
    } else {
        count(usize::try_from(days).unwrap_or(0), "day")
    }
}

fn spaced(face: &Face, header: &[&str], lines: &[Vec<String>]) -> Outcome<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.to_vec());
    for line in lines {
        table.add_row(line.clone());
    }
    face.table(&mut table)
}

/// The screen: a block for each source, then the repositories, then what falls short and what to do.
pub(crate) fn terminal(face: &Face, receipt: &Receipt, comply: &Comply) -> Outcome<()> {
    let is_silent = face.is_quiet();
    for placed in &comply.sources {
        let placement = &placed.placement;
        if is_silent && placement.answer == Answer::Met {
            continue;
        }
        face.data(format!(
            "{} {}  {}",
            face.paint(
                tone(placement.answer),
                &format!("{} {}", mark(placement.answer), placement.answer.word())
            ),
            face.paint(Tone::Bold, &format!("{}/{}", placed.case.service, placed.case.source)),
            newest(placed)
        ))?;
        let lines = copies(placed).into_iter().map(|line| {
            // The age beside it says the same.
            let narrow = [0, 1, 2, 3, 4, 6, 7, 8];
            narrow.into_iter().map(|at| line[at].clone()).collect::<Vec<_>>()
        });
        spaced(
            face,
            &["COPY", "MEDIUM", "SITE", "REGION", "ACCOUNT", "AGE", "LEVEL", "SEEN"],
            &lines.collect::<Vec<_>>(),
        )?;
        for rule in &placement.rules {
            face.data(format!(
                "  {} {:<15} {}",
                face.paint(tone(rule.answer), mark(rule.answer)),
                rule.rule.to_string(),
                printable(&told(rule.rule, rule.answer, &rule.facts))
            ))?;
        }
        let told: Vec<Vec<String>> = placement
            .disasters
            .iter()
            .filter(|one| is_told(one))
            .map(|one| disaster(placed, one).to_vec())
            .collect();
        spaced(face, &DISASTERS, &told)?;
        face.data("")?;
    }
    if !is_silent {
        for looked in &comply.repositories {
            face.data(format!("{}: {}", looked.repository, printable(&repository(looked))))?;
        }
    }
    let mut findings = comply.every_finding();
    findings.sort_by_key(|finding| Reverse(finding.code.severity()));
    for finding in findings {
        let tone = if finding.code.severity() == Severity::Critical { Tone::Bad } else { Tone::Warn };
        face.data(format!("  {}", face.paint(tone, &printable(&finding.to_string()))))?;
        face.data(format!("      → {}", finding.code.remedy()))?;
    }
    face.data(face.paint(tone(comply.answer), &sentence(comply)))?;
    face.say(format!("  receipt {} {}", receipt.sequence, receipt.digest))?;
    face.say(match comply.answer {
        Answer::Met => {
            "  that copies are there is not that they can be restored: seaworthy status says how far they are proven".to_owned()
        }
        Answer::Unknown | Answer::Violated => {
            "  then run `seaworthy comply` again; `seaworthy comply --report DIR` writes this for the auditor".to_owned()
        }
    })
}

/// The facts of a rule; disasters stand in their own table.
fn told(rule: Rule, answer: Answer, facts: &str) -> String {
    match (rule, answer) {
        (Rule::OneDisaster, Answer::Unknown | Answer::Violated) => {
            "not every disaster is known to leave enough; see below".to_owned()
        }
        _ => facts.to_owned(),
    }
}

const TITLE: &str = "3-2-1 report";

/// What the report is about, and what was asked.
fn facts(receipt: &Receipt, comply: &Comply) -> Vec<(&'static str, String)> {
    vec![
        ("RESULT", comply.answer.word().to_owned()),
        ("LOOKED_BY", comply.executor.clone()),
        ("DATE", format!("{} to {}", instant(comply.started), instant(comply.finished))),
        ("RUN", comply.run.to_string()),
        ("RULES", format!("version {}", comply.rules)),
        ("REPOSITORIES", comply.repositories.len().to_string()),
        ("SOURCES", comply.sources.len().to_string()),
        ("RECEIPT", format!("{} {}", receipt.sequence, receipt.digest)),
    ]
}

/// What was asked of one source.
fn policy(placed: &Placed) -> String {
    let policy = &placed.case.policy;
    let regions = if policy.regions.is_empty() { "any".to_owned() } else { policy.regions.join(", ") };
    let rpo = match placed.case.rpo {
        Objective::Within(bound) => duration(Duration::try_from(bound).unwrap_or_default()),
        Objective::NotApplicable => "none".to_owned(),
    };
    format!(
        "copies {} (the live data among them), media {}, offsite {}, in another account {}, in another region {}, immutable {}; \
         regions: {regions}; RPO {rpo}; a copy is stale after {}",
        policy.copies,
        policy.media,
        policy.offsite,
        policy.other_account,
        policy.other_region,
        policy.immutable,
        duration(Duration::try_from(placed.case.fresh_within).unwrap_or_default())
    )
}

const BOUNDARY: &str = "This report says where copies were seen, and that a random piece of each that counts was read back and \
    authenticated. That a copy can be restored is said by the receipts of drills alone; LEVEL is what they have shown of that copy: A1 is \
    nothing beyond its presence. Sites, regions and accounts are as the configuration says them, except where what was seen contradicts it. A \
    password is named by the repositories that have it from one place.";

/// How somebody else repeats the judgement.
fn how(receipt: &Receipt) -> [String; 3] {
    [
        format!("This report is drawn from receipt {}, {}.", receipt.sequence, receipt.digest),
        "Export the ledger and its public key: `seaworthy receipts export ledger.jsonl`.".to_owned(),
        "Verify it offline, on any machine: `seaworthy verify ledger.jsonl --key signing.pub`. The receipt holds everything that was seen; \
         verifying judges it again, and a result that the facts do not bear out is found."
            .to_owned(),
    ]
}

/// The report in Markdown.
pub(crate) fn markdown(receipt: &Receipt, comply: &Comply) -> String {
    let mut text = String::new();
    let mut line = |words: String| {
        text.push_str(&words);
        text.push('\n');
    };
    let cell = |words: &str| printable(words).replace('|', "\\|").replace('<', "&lt;");
    let row = |cells: &[String]| {
        format!("| {} |", cells.iter().map(|words| cell(words)).collect::<Vec<_>>().join(" | "))
    };
    let head = |cells: &[&str]| format!("| {} |\n|{}", cells.join(" | "), "---|".repeat(cells.len()));
    line(format!("# {TITLE}\n\n{}\n", cell(&sentence(comply))));
    line(head(&["field", "value"]));
    for (name, value) in facts(receipt, comply) {
        line(row(&[name.to_owned(), value]));
    }
    for placed in &comply.sources {
        let placement = &placed.placement;
        line(format!("\n## {}/{}: {}\n", placed.case.service, placed.case.source, placement.answer.word()));
        line(format!("{}. Asked for: {}.\n", cell(&newest(placed)), cell(&policy(placed))));
        line(head(&COPIES));
        copies(placed).iter().for_each(|cells| line(row(cells)));
        line(String::new());
        line(head(&["rule", "answer", "facts"]));
        for rule in &placement.rules {
            line(row(&[rule.rule.to_string(), rule.answer.word().to_owned(), rule.facts.clone()]));
        }
        line(String::new());
        line(head(&DISASTERS));
        placement.disasters.iter().for_each(|one| line(row(&disaster(placed, one))));
    }
    line("\n## Repositories\n".to_owned());
    line(head(&["repository", "identity", "what was seen"]));
    for looked in &comply.repositories {
        let id = looked.id.as_ref().map_or_else(|| "not known".to_owned(), ToString::to_string);
        line(row(&[looked.repository.to_string(), id, repository(looked)]));
    }
    line("\n## Findings\n".to_owned());
    let findings = comply.every_finding();
    if findings.is_empty() {
        line("None.".to_owned());
    }
    for finding in findings {
        line(format!("- {}  \n  {}", cell(&finding.to_string()), cell(finding.code.remedy())));
    }
    line(format!("\n## Claim boundary\n\n{BOUNDARY}\n\n## How to verify\n"));
    how(receipt).into_iter().for_each(|words| line(format!("- {words}")));
    text
}

fn class(answer: Answer) -> &'static str {
    match answer {
        Answer::Met => "good",
        Answer::Unknown => "warn",
        Answer::Violated => "bad",
    }
}

/// A table: its head, its lines, and the class of a line's first cell.
fn html_table(page: &mut String, header: &[&str], lines: &[(Vec<String>, &str)]) {
    page.push_str("<table>\n<thead><tr>");
    for title in header {
        let title = if title.is_empty() { "answer" } else { title };
        page.push_str(&format!("<th scope=\"col\">{}</th>", html_text(&title.to_lowercase())));
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for (cells, class) in lines {
        page.push_str("<tr>");
        for (at, cell) in cells.iter().enumerate() {
            let class = if at == 0 && !class.is_empty() {
                format!(" class=\"result {class}\"")
            } else {
                String::new()
            };
            page.push_str(&format!("<td{class}>{}</td>", html_text(cell)));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table>\n");
}

/// One self-contained page: no script, no outside reference, light and dark, printable.
pub(crate) fn html(receipt: &Receipt, comply: &Comply) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{TITLE}: {}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{TITLE}</h1>\n\
         <p class=\"verdict {}\">{} {}</p>\n<p>{}</p>\n<h2>Facts</h2>\n<table>\n",
        comply.answer.word(),
        class(comply.answer),
        mark(comply.answer),
        comply.answer.word(),
        html_text(&sentence(comply)),
    );
    for (name, value) in facts(receipt, comply) {
        page.push_str(&format!("<tr><th scope=\"row\">{name}</th><td>{}</td></tr>\n", html_text(&value)));
    }
    page.push_str("</table>\n");
    for placed in &comply.sources {
        let placement = &placed.placement;
        page.push_str(&format!(
            "<h2>{}/{}: <span class=\"{}\">{}</span></h2>\n<p>{}.</p>\n<p class=\"dim\">Asked for: {}.</p>\n",
            html_text(placed.case.service.as_str()),
            html_text(placed.case.source.as_str()),
            class(placement.answer),
            placement.answer.word(),
            html_text(&newest(placed)),
            html_text(&policy(placed))
        ));
        let lines: Vec<(Vec<String>, &str)> =
            copies(placed).into_iter().map(|cells| (cells.to_vec(), "")).collect();
        html_table(&mut page, &COPIES, &lines);
        let rules: Vec<(Vec<String>, &str)> = placement
            .rules
            .iter()
            .map(|rule| {
                let answer = format!("{} {}", mark(rule.answer), rule.answer.word());
                (vec![answer, rule.rule.to_string(), rule.facts.clone()], class(rule.answer))
            })
            .collect();
        html_table(&mut page, &["", "rule", "facts"], &rules);
        let disasters: Vec<(Vec<String>, &str)> = placement
            .disasters
            .iter()
            .map(|one| (disaster(placed, one).to_vec(), if one.is_judged { class(one.answer) } else { "" }))
            .collect();
        html_table(&mut page, &DISASTERS, &disasters);
    }
    page.push_str("<h2>Repositories</h2>\n");
    let repositories: Vec<(Vec<String>, &str)> = comply
        .repositories
        .iter()
        .map(|looked| {
            let id = looked.id.as_ref().map_or_else(|| "not known".to_owned(), ToString::to_string);
            (vec![looked.repository.to_string(), id, repository(looked)], "")
        })
        .collect();
    html_table(&mut page, &["repository", "identity", "what was seen"], &repositories);
    page.push_str("<h2>Findings</h2>\n");
    let findings = comply.every_finding();
    if findings.is_empty() {
        page.push_str("<p>None.</p>\n");
    } else {
        page.push_str("<ul>\n");
        for finding in findings {
            page.push_str(&format!(
                "<li>{}<br><span class=\"dim\">{}</span></li>\n",
                html_text(&finding.to_string()),
                html_text(finding.code.remedy())
            ));
        }
        page.push_str("</ul>\n");
    }
    page.push_str(&format!(
        "<h2>Claim boundary</h2>\n<p>{}</p>\n<h2>How to verify</h2>\n<ul>\n",
        html_text(BOUNDARY)
    ));
    for words in how(receipt) {
        page.push_str(&format!("<li>{}</li>\n", html_text(&words)));
    }
    page.push_str("</ul>\n</main>\n</body>\n</html>\n");
    page
}
