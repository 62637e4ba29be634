//! `status` and `points`: what may be claimed, from the ledger alone. Nothing is probed; nothing is written.

use std::cmp::Reverse;
use std::time::Duration;

use comfy_table::{Cell, ColumnConstraint, Table, presets};
use jiff::Timestamp;
use seaworthy_model::assess::{ServiceAssessment, Standing};
use seaworthy_model::finding::{FindingCode, Severity};
use seaworthy_model::objective::{Met, Objective};
use seaworthy_model::placement::{Answer, LastLook};
use seaworthy_model::point::PointStanding;
use seaworthy_model::receipt::Outcome as Ending;

use crate::cli::args::{self, Cli};
use crate::exit::Exit;
use crate::failure::{Outcome, printable};
use crate::memory::Memory;
use crate::output::{Face, Tone, bytes, count as plural, duration};
use crate::render::drill::{instant, verdict};
use crate::{app, setup};

fn target(objective: Objective) -> String {
    match objective {
        Objective::Within(bound) => duration(Duration::try_from(bound).unwrap_or_default()),
        Objective::NotApplicable => "n/a".to_owned(),
    }
}

fn word(met: Met) -> &'static str {
    match met {
        Met::Met => "ok",
        Met::Missed => "LATE",
        Met::Unknown => "UNKNOWN",
        Met::NotApplicable => "n/a",
    }
}

fn span(ms: Option<u64>) -> String {
    ms.map_or_else(|| "–".to_owned(), |ms| duration(Duration::from_millis(ms)))
}

/// One line per service; the exit code says whether all of them could be recovered.
pub(crate) async fn run(cli: &Cli, face: &Face, arguments: &args::Status) -> Outcome {
    let now = super::as_of(cli)?;
    let setup = setup::load(cli, face)?;
    let memory = Memory::open_to_read(cli, &setup.state).await?;
    let services = setup.services(&arguments.services)?;
    // Asked about the past, what came later is unknown; asked about now, a receipt that is yet to come is a finding.
    let known_by = if cli.global.as_of.is_some() { now } else { Timestamp::MAX };
    let assessed = app::assessments(&memory, &services, known_by, now).await?;
    let worst = assessed.iter().map(|service| service.standing).max().unwrap_or(Standing::Unproven);
    let placement = LastLook::of(&memory.looks(known_by).await?, &services, now);
    if face.json {
        face.json(&serde_json::json!({ "schema": "seaworthy.status/1", "as_of": now, "status": worst, "data": assessed, "placement": placement }))?;
    } else {
        table(face, &assessed, now)?;
        face.data(placed(face, placement.as_ref()))?;
    }
    Ok(match worst {
        Standing::Ready | Standing::Nothing => Exit::Ok,
        Standing::Attention | Standing::Broken => Exit::Findings,
        Standing::Unproven => Exit::Unknown,
    })
}

/// What the last look at all copies has shown; the exit code is about recovery, and this is evidence beside it.
fn placed(face: &Face, look: Option<&LastLook>) -> String {
    let Some(look) = look else {
        return face.paint(Tone::Warn, "3-2-1: never looked at  → run `seaworthy comply`");
    };
    let (age, receipt) = (span(look.age_ms), look.sequence);
    if !look.is_valid {
        let code = FindingCode::EvidenceOld;
        let words = format!(
            "3-2-1: not known: the last look is {age} old (receipt {receipt}); allowed are {} ({code})  → {}",
            span(look.valid_ms),
            code.remedy()
        );
        return face.paint(Tone::Warn, &words);
    }
    let words = format!("3-2-1: {}, looked at {age} ago (receipt {receipt})", look.answer.word());
    match look.answer {
        Answer::Met => words,
        Answer::Unknown => face.paint(Tone::Warn, &format!("{words}  → run `seaworthy comply`")),
        Answer::Violated => face.paint(Tone::Bad, &format!("{words}  → run `seaworthy comply`")),
    }
}

fn table(face: &Face, assessed: &[ServiceAssessment], now: Timestamp) -> Outcome<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "SERVICE",
        "READY",
        "RECOVERY POINT",
        "RPO NOW/TARGET",
        "LAST DRILL",
        "RTO/TARGET",
        "FINDINGS",
    ]);
    for service in assessed {
        let mark = match service.standing {
            Standing::Nothing => "·",
            Standing::Ready => "●",
            Standing::Attention => "▲",
            Standing::Unproven => "○",
            Standing::Broken => "✗",
        };
        let said = service.standing.word();
        let ready = match service.standing {
            Standing::Nothing => format!("{mark} {said}"),
            Standing::Ready | Standing::Attention | Standing::Unproven | Standing::Broken => {
                format!("{mark} {said} {:?}", service.level)
            }
        };
        let drill = service.last_drill.as_ref().map_or_else(
            || "never".to_owned(),
            |drill| {
                format!(
                    "{} {} ago",
                    verdict(drill.verdict).split_whitespace().next().unwrap_or_default(),
                    span(drill.age_ms)
                )
            },
        );
        let codes: Vec<String> = service
            .findings
            .iter()
            .filter(|finding| finding.code.severity() > Severity::Note)
            .map(|finding| finding.code.to_string())
            .collect();
        let mut codes = codes;
        codes.sort();
        codes.dedup();
        table.add_row([
            Cell::new(service.service.as_str()),
            Cell::new(ready),
            Cell::new(service.point.map_or_else(|| "none".to_owned(), instant)),
            Cell::new(format!(
                "{}/{} {}",
                span(service.exposure_ms),
                target(service.rpo_target),
                word(service.rpo)
            )),
            Cell::new(drill),
            Cell::new(format!(
                "{}/{} {}",
                span(service.rto_ms),
                target(service.rto_target),
                word(service.rto)
            )),
            Cell::new(if codes.is_empty() { "–".to_owned() } else { codes.join(" ") }),
        ]);
    }
    if face.is_narrow()
        && let Some(point) = table.column_mut(2)
    {
        // The exposure beside it says the same.
        point.set_constraint(ColumnConstraint::Hidden);
    }
    face.table(&mut table)?;
    let count = |standing: Standing| assessed.iter().filter(|service| service.standing == standing).count();
    let stateless = match count(Standing::Nothing) {
        0 => String::new(),
        number => format!(", {number} without state"),
    };
    face.data(format!(
        "{}: {} ready, {} need attention, {} not yet proven, {} broken{stateless}.   (as of {})",
        plural(assessed.len(), "service"),
        count(Standing::Ready),
        count(Standing::Attention),
        count(Standing::Unproven),
        count(Standing::Broken),
        instant(now)
    ))?;
    for service in assessed.iter().filter(|service| service.standing > Standing::Ready).take(5) {
        // The first of the worst: what is said of the copy comes before what is said of its proof.
        let worst = service.findings.iter().min_by_key(|finding| Reverse(finding.code.severity()));
        if let Some(finding) = worst {
            face.data(format!(
                "  {}  → {}",
                face.paint(Tone::Warn, &printable(&finding.to_string())),
                finding.code.remedy()
            ))?;
        }
    }
    Ok(())
}

/// `points`: every recovery point known, newest last.
pub(crate) async fn points(cli: &Cli, face: &Face, arguments: &args::Points) -> Outcome {
    let setup = setup::load(cli, face)?;
    let memory = Memory::open_to_read(cli, &setup.state).await?;
    let now = super::as_of(cli)?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "SERVICE/SOURCE",
        "POINT",
        "AGE",
        "COPY",
        "REPOSITORY",
        "SIZE",
        "STORED",
        "STATE",
    ]);
    let mut rows = Vec::new();
    for service in setup.services(&arguments.services)? {
        for source in super::source_names(service) {
            for point in app::points(&memory, &service.name, source, None).await? {
                if cli.global.as_of.is_some() && point.point > now {
                    continue;
                }
                let proven = match &point.standing {
                    PointStanding::Unproven => "not proven yet".to_owned(),
                    PointStanding::Proven { level, .. } => level.to_string(),
                    PointStanding::Gone { .. } => "GONE from its repository".to_owned(),
                    PointStanding::Failed { codes, .. } => format!(
                        "FAILED {}",
                        codes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
                    ),
                };
                let age = Duration::try_from(now.duration_since(point.point))
                    .map_or_else(|_| "in the future".to_owned(), duration);
                table.add_row([
                    format!("{}/{source}", service.name),
                    instant(point.point),
                    age,
                    point.copy.0.get(..12).unwrap_or(&point.copy.0).to_owned(),
                    point.repository.name.to_string(),
                    bytes(point.restore_bytes),
                    bytes(point.stored_bytes),
                    match point.outcome {
                        Ending::Complete => proven,
                        Ending::Incomplete | Ending::Failed => format!("INCOMPLETE, {proven}"),
                    },
                ]);
                rows.push(serde_json::json!(point));
            }
        }
    }
    if face.json {
        face.json(&serde_json::json!({ "schema": "seaworthy.points/1", "as_of": now, "data": rows }))?;
    } else if rows.is_empty() {
        face.data("no recovery points yet: seaworthy backup")?;
    } else {
        if face.is_narrow() {
            for at in [2, 4, 6] {
                if let Some(column) = table.column_mut(at) {
                    column.set_constraint(ColumnConstraint::Hidden);
                }
            }
        }
        face.table(&mut table)?;
    }
    Ok(Exit::Ok)
}
