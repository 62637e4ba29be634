//! `retain`: what the policies of the services keep, what would go, and why each copy stays. Nothing is removed.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZoneDatabase;
use jiff::{SignedDuration, Timestamp};
use seaworthy_model::id::{CopyId, RepositoryId};
use seaworthy_model::point::RecoveryPoint;
use seaworthy_model::retention::{
    Aside, Case, Decided, Decision, Listing, NewestRun, Plan, RetentionPolicy, Step, fresh_within, plan,
    simulate,
};
use seaworthy_model::service::{RepositorySpec, ScheduleSpec, Service, ServiceSource};
use seaworthy_repository::FileKind;
use tokio_util::sync::CancellationToken;

use crate::app::{Opened, points};
use crate::cli::args::{self, Cli};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::memory::Memory;
use crate::output::{Face, Tone, bytes, count};
use crate::render::drill::instant;
use crate::{setup, wiring};

/// Shows the plan of each source in each of its repositories.
pub(crate) async fn run(
    cli: &Cli,
    face: &Face,
    arguments: &args::Retain,
    cancel: CancellationToken,
) -> Outcome {
    let setup = setup::load(cli, face)?;
    if let Some(span) = &arguments.simulate {
        let span = super::span(span)?;
        for service in setup.services(&arguments.services)? {
            calendar(face, service, span)?;
        }
        return Ok(Exit::Ok);
    }
    let memory = Memory::open_to_read(cli, &setup.state).await?;
    let mut opened = Opened::new(&setup.state);
    let histories = memory.histories(Timestamp::MAX).await?;
    let newest_receipt = histories.iter().filter_map(|history| history.at).max();
    let mut worst = Exit::Ok;
    for service in setup.services(&arguments.services)? {
        let policy = RetentionPolicy::of(service)
            .map_err(|error| Failure::because(Exit::Usage, "read the policy", &error))?;
        for spec in setup.repositories(service, arguments.repository.as_deref())? {
            let cx = super::silent(&cancel);
            let repository = opened.get(&cx, spec).await?;
            let id = RepositoryId(repository.id().hex());
            let control = seaworthy_engine::store::control(&cx);
            // Before the listing: what is known by then is there, or has gone.
            let mut known = Vec::new();
            for source in &service.sources {
                known.push(points(&memory, &service.name, &source.name, Some(&id)).await?);
            }
            // A listing that fails ends this: it is not a shorter one.
            let listed = wiring::blocking(move || {
                repository
                    .store()
                    .list(FileKind::Snapshot, &control)
                    .map_err(|error| wiring::repository_failure("list the copies", error))
            })
            .await?;
            let listed: BTreeSet<CopyId> = listed.into_iter().map(|one| CopyId(one.id.hex())).collect();
            for (source, known) in service.sources.iter().zip(known) {
                let history = histories
                    .iter()
                    .find(|history| (&history.service, &history.source) == (&service.name, &source.name));
                let aside: BTreeMap<CopyId, Aside> = known.iter().filter_map(set_aside).collect();
                let planned = plan(&Case {
                    service: &service.name,
                    source: &source.name,
                    repository: &id,
                    points: &known,
                    policy: &policy,
                    earlier: &[],
                    fresh_within: fresh_within(service),
                    newest_run: history.map_or(NewestRun::Unknown, NewestRun::of),
                    newest_receipt,
                    listing: Listing::Whole(&listed),
                    holds: &[],
                    aside: &aside,
                    doubted: &BTreeSet::new(),
                    marks: &[],
                    approved: &BTreeSet::new(),
                    now: Timestamp::now(),
                });
                if face.json {
                    face.json(&serde_json::json!({
                        "schema": "seaworthy.retain/1", "event": "summary", "repository": spec.name,
                        "digest": planned.digest(), "plan": planned,
                    }))?;
                } else {
                    show(face, service, source, spec, &planned, arguments.all)?;
                }
                if !planned.suspended.is_empty() && worst == Exit::Ok {
                    worst = Exit::Findings;
                }
            }
        }
    }
    Ok(worst)
}

/// A copy of something that no healthy source is stands for nothing, and is looked at by a person before it goes.
fn set_aside(point: &RecoveryPoint) -> Option<(CopyId, Aside)> {
    let why = "its capture found what no healthy source has".to_owned();
    point.is_implausible.then(|| (point.copy.clone(), Aside::Quarantined(why)))
}

fn show(
    face: &Face,
    service: &Service,
    source: &ServiceSource,
    spec: &RepositorySpec,
    planned: &Plan,
    is_all: bool,
) -> Outcome<()> {
    let of =
        |is: &dyn Fn(&Decision) -> bool| planned.decisions.iter().filter(|one| is(&one.decision)).count();
    let (kept, expiring, refused) = (
        of(&|decision| matches!(decision, Decision::Keep(_))),
        of(&|decision| matches!(decision, Decision::Expire(_))),
        of(&|decision| matches!(decision, Decision::Refused { .. })),
    );
    let freed: u64 = planned
        .decisions
        .iter()
        .filter(|one| matches!(one.decision, Decision::Expire(_)))
        .map(|one| one.stored_bytes)
        .sum();
    face.data(format!(
        "{}/{} in {}: {} kept, {expiring} may go (at most {}), {refused} stay by a rule",
        service.name,
        source.name,
        spec.name,
        count(kept, "copy"),
        bytes(freed),
    ))?;
    for suspension in &planned.suspended {
        face.data(format!(
            "  {} nothing goes: {}  [{}]",
            face.paint(Tone::Warn, "!"),
            suspension.why,
            suspension.rule
        ))?;
    }
    for one in planned.decisions.iter().rev() {
        if is_all || !matches!(one.decision, Decision::Keep(_) | Decision::Absent) {
            face.data(format!("  {}", line(face, one)))?;
        }
    }
    Ok(())
}

fn line(face: &Face, one: &Decided) -> String {
    let mark = match (&one.decision, one.step) {
        (Decision::Keep(_), _) => face.paint(Tone::Good, "✓"),
        (Decision::Expire(_), _) => face.paint(Tone::Warn, "−"),
        (Decision::Refused { .. }, _) => face.paint(Tone::Good, "="),
        (Decision::Absent, _) => " ".to_owned(),
    };
    let then = match one.step {
        Some(Step::Mark) => "; would be marked, and go a day later at the earliest",
        Some(Step::Wait { .. }) => "; marked less than a day ago",
        Some(Step::Delete { .. }) => "; marked a day ago: it would go",
        Some(Step::Unmark) => "; its mark would be taken away",
        None => "",
    };
    let short = |copy: &CopyId| copy.0.get(..12).unwrap_or(&copy.0).to_owned();
    let why = match &one.decision {
        Decision::Expire(newer) => {
            let level = newer.level.map_or_else(|| "not yet proven".to_owned(), |level| level.to_string());
            format!("may go: {} is newer ({level})", short(&newer.copy))
        }
        other => other.to_string(),
    };
    format!("{mark} {}  {}  {why}{then}", instant(one.at), short(&one.copy))
}

/// What would be left after some time of good copies, a line a month, a mark a day.
fn calendar(face: &Face, service: &Service, span: std::time::Duration) -> Outcome<()> {
    let usage = |error: &dyn std::error::Error| {
        Failure::new(Exit::Usage, format!("simulate {}: {error}", service.name))
    };
    let policy = RetentionPolicy::of(service).map_err(|error| usage(&error))?;
    let daily = || ScheduleSpec { cron: "0 3 * * *".to_owned(), zone: "UTC".to_owned() };
    let schedule = service.schedule.clone().unwrap_or_else(daily);
    let from = Timestamp::now();
    let to = SignedDuration::try_from(span).ok().and_then(|span| from.checked_add(span).ok()).ok_or_else(
        || {
            Failure::new(Exit::Usage, "this is too far ahead")
                .hint("simulate e.g. 10 years: --simulate 3650d")
        },
    )?;
    let left = simulate(&policy, &schedule, from, to).map_err(|error| usage(&error))?;
    if face.json {
        return face.json(&serde_json::json!({
            "schema": "seaworthy.retain-calendar/1", "service": service.name, "schedule": schedule, "at": to, "left": left,
        }));
    }
    // The zones of this program, which the policy was read with.
    let zone = TimeZoneDatabase::bundled().get(&schedule.zone).map_err(|error| usage(&error))?;
    face.data(format!(
        "{}: {} left at {} of those that `{}` makes from now on",
        service.name,
        count(left.len(), "copy"),
        instant(to),
        schedule.cron
    ))?;
    let mut months: BTreeMap<(i16, i8), [char; 31]> = BTreeMap::new();
    for survivor in &left {
        let day = survivor.at.to_zoned(zone.clone()).date();
        let row = months.entry((day.year(), day.month())).or_insert(['·'; 31]);
        let place = usize::from(day.day().unsigned_abs()).saturating_sub(1);
        if let Some(cell) = row.get_mut(place) {
            *cell = if *cell == '·' { '●' } else { '◉' };
        }
    }
    for ((year, month), row) in months {
        let days: String = row.iter().collect();
        face.data(format!("  {year}-{month:02}  {days}"))?;
    }
    face.say("  ● a copy on that day, ◉ more than one; months without any are left out")
}
