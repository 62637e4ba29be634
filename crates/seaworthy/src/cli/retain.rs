//! `retain`: what the policies of the services keep, what goes, and why each copy stays; and letting go what may go.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZoneDatabase;
use jiff::{SignedDuration, Timestamp};
use seaworthy_engine::act::retain::Locked;
use seaworthy_interface::ErrorKind;
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::id::{CopyId, RepositoryId, RepositoryName};
use seaworthy_model::point::RecoveryPoint;
use seaworthy_model::receipt::{Act, Receipt};
use seaworthy_model::retention::{
    Approved, Asked, Decided, Decision, Ground, Listing, MARKED_FOR, Plan, PlanDigest, RetentionPolicy, Step,
    simulate,
};
use seaworthy_model::service::{RepositorySpec, ScheduleSpec, Service, ServiceSource};
use seaworthy_repository::FileKind;
use tokio_util::sync::CancellationToken;

use crate::app::{App, Opened, reference, run_failure};
use crate::books::Books;
use crate::cli::args::{self, Cli};
use crate::cli::backup::worse;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::memory::Memory;
use crate::output::{Face, Tone, bytes, count};
use crate::render::drill::instant;
use crate::setup::Setup;
use crate::{setup, wiring};

/// Repositories, and the services whose copies in them are asked about.
type Places<'a> = BTreeMap<RepositoryName, Vec<&'a Service>>;

/// Shows the plan of each source in each of its repositories, or carries it out.
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
    // A name that is none is told before anything is opened.
    places(&setup, arguments)?;
    if cli.global.dry_run || !(arguments.apply || arguments.approve.is_some()) {
        let memory = Memory::open_to_read(cli, &setup.state).await?;
        let books = Books::open(&memory, setup.state.trusted_keys()?).await?;
        return looked(face, &setup, arguments, books.ground(), &cancel).await;
    }
    let app = App::with(setup, face, &super::silent(&cancel)).await?;
    let mut books = Books::open(&app.memory, app.setup.state.trusted_keys()?).await?;
    if let Some(digest) = &arguments.approve {
        let reason = arguments.reason.as_deref().unwrap_or_default();
        return approve(&app, face, arguments, &books, (digest, reason), &cancel).await;
    }
    applied(&app, face, arguments, &mut books, &cancel).await
}

fn places<'a>(setup: &'a Setup, arguments: &args::Retain) -> Outcome<Places<'a>> {
    let mut places = Places::new();
    for service in setup.services(&arguments.services)? {
        for spec in setup.repositories(service, arguments.repository.as_deref())? {
            places.entry(spec.name.clone()).or_default().push(service);
        }
    }
    Ok(places)
}

/// One source in one repository, and what is wanted there.
struct Sources<'a> {
    service: &'a Service,
    source: &'a ServiceSource,
    policy: RetentionPolicy,
}

fn sources<'a>(services: &[&'a Service], spec: &RepositorySpec) -> Outcome<Vec<Sources<'a>>> {
    let mut all = Vec::new();
    for service in services {
        for source in &service.sources {
            let policy = RetentionPolicy::within(service, source, spec)
                .map_err(|error| Failure::because(Exit::Usage, "read the policy", &error))?;
            all.push(Sources { service, source, policy });
        }
    }
    Ok(all)
}

impl Sources<'_> {
    fn plan(&self, ground: &Ground, repository: &RepositoryId, listed: &BTreeSet<CopyId>) -> Plan {
        ground.plan(&Asked {
            service: self.service,
            source: &self.source.name,
            repository,
            policy: &self.policy,
            listing: Listing::Whole(listed),
            now: Timestamp::now(),
        })
    }

    fn known(&self, ground: &Ground) -> Vec<RecoveryPoint> {
        ground.points(&self.service.name, &self.source.name).cloned().collect()
    }
}

/// Makes every plan that is asked about, and changes nothing.
async fn plans<'a>(
    setup: &'a Setup,
    arguments: &args::Retain,
    ground: &Ground,
    cancel: &CancellationToken,
) -> Outcome<Vec<(&'a RepositorySpec, seaworthy_model::receipt::RepositoryRef, Sources<'a>, Plan)>> {
    let mut opened = Opened::new(&setup.state);
    let mut made = Vec::new();
    for (name, services) in places(setup, arguments)? {
        let spec = setup.repository(name.as_str())?;
        let cx = super::silent(cancel);
        let repository = opened.get(&cx, spec).await?;
        let place = reference(spec, &repository);
        let control = seaworthy_engine::store::control(&cx);
        // A listing that fails ends this: it is not a shorter one.
        let listed = wiring::blocking(move || {
            repository
                .store()
                .list(FileKind::Snapshot, &control)
                .map_err(|error| wiring::repository_failure("list the copies", error))
        })
        .await?;
        let listed: BTreeSet<CopyId> = listed.into_iter().map(|one| CopyId(one.id.hex())).collect();
        // What an interrupted run has removed is no doubt: the next run says so first.
        let mut settled = listed.clone();
        settled.extend(ground.owed(&place.id).map(|point| point.copy.clone()));
        for of in sources(&services, spec)? {
            let plan = of.plan(ground, &place.id, &settled);
            made.push((spec, place.clone(), of, plan));
        }
    }
    Ok(made)
}

async fn looked(
    face: &Face,
    setup: &Setup,
    arguments: &args::Retain,
    ground: &Ground,
    cancel: &CancellationToken,
) -> Outcome {
    let mut worst = Exit::Ok;
    for (spec, _, of, plan) in plans(setup, arguments, ground, cancel).await? {
        worst = worse(worst, tell(face, &of, spec, &plan, arguments.all)?);
    }
    if !arguments.apply {
        face.say("nothing was changed; to mark and let go: seaworthy retain --apply")?;
    }
    Ok(worst)
}

/// Seals that more than a fifth may go: exactly what one of the plans says.
async fn approve(
    app: &App,
    face: &Face,
    arguments: &args::Retain,
    books: &Books,
    (digest, reason): (&str, &str),
    cancel: &CancellationToken,
) -> Outcome {
    let wanted = digest.strip_prefix("sha256:").unwrap_or(digest);
    let hex = |digest: &PlanDigest| digest.0.0.trim_start_matches("sha256:").to_owned();
    let made = plans(&app.setup, arguments, books.ground(), cancel).await?;
    let matching: Vec<_> = made
        .iter()
        .filter(|(.., plan)| wanted.len() >= 8 && hex(&plan.digest()).starts_with(wanted))
        .collect();
    let [(spec, place, of, plan)] = matching.as_slice() else {
        return Err(Failure::new(
            Exit::NotFound,
            format!("`{}` begins the digest of {} plans that are made now", printable(digest), matching.len()),
        )
        .hint("a plan changes when a copy does: seaworthy retain shows the present ones, with at least 8 digits each"));
    };
    let waiting = plan.awaiting_approval().count();
    if waiting == 0 {
        return Err(
            Failure::new(Exit::Usage, "this plan waits for no approval").hint("seaworthy retain --apply")
        );
    }
    let approved = Approved {
        service: of.service.name.clone(),
        source: of.source.name.clone(),
        repository: place.clone(),
        plan: plan.digest(),
        reason: reason.to_owned(),
        executor: wiring::executor(),
    };
    let receipt = commit(app, Act::Approve(Box::new(approved))).await?;
    face.say(format!(
        "approved: {} of {}/{} in {} need not wait for their turn; receipt {}",
        count(waiting, "copy"),
        of.service.name,
        of.source.name,
        spec.name,
        receipt.digest
    ))?;
    face.say("next: seaworthy retain --apply, and again a day later")?;
    Ok(Exit::Ok)
}

async fn commit(app: &App, act: Act) -> Outcome<Receipt> {
    let sealed = app.runner.notary().commit(&act, Timestamp::now()).await;
    sealed.map_err(|error| run_failure(&seaworthy_engine::RunError::from(error)))
}

/// Marks, lets go, and says what has gone; a repository at a time, under its exclusive lock.
async fn applied(
    app: &App,
    face: &Face,
    arguments: &args::Retain,
    books: &mut Books,
    cancel: &CancellationToken,
) -> Outcome {
    let mut opened = Opened::new(&app.setup.state);
    let mut worst = Exit::Ok;
    let places = places(&app.setup, arguments)?;
    for (name, services) in &places {
        let spec = app.setup.repository(name.as_str())?;
        let watch = face.watch(name.as_str());
        let cx = super::context(cancel, watch.sink());
        let done = async {
            let repository = opened.get(&cx, spec).await?;
            let place = reference(spec, &repository);
            cx.phase("lock");
            let mut locked = Locked::new(&cx, repository, place).await?;
            let result = in_one(app, face, arguments, books, (spec, services), &mut locked, cancel).await;
            locked.release().await;
            result
        }
        .await;
        drop(watch);
        let exit = match done {
            Ok(exit) => exit,
            Err(failure) if places.len() == 1 || failure.exit == Exit::Interrupted => return Err(failure),
            Err(failure) => {
                face.fail(name.as_str(), &face.paint(Tone::Bad, "✗ NOTHING WENT"), &failure)?;
                failure.exit
            }
        };
        worst = worse(worst, exit);
        if cancel.is_cancelled() {
            return Err(Failure::new(
                Exit::Interrupted,
                "interrupted: what was decided is in the ledger, and the next run ends it",
            ));
        }
    }
    Ok(worst)
}

async fn in_one(
    app: &App,
    face: &Face,
    arguments: &args::Retain,
    books: &mut Books,
    (spec, services): (&RepositorySpec, &[&Service]),
    locked: &mut Locked,
    cancel: &CancellationToken,
) -> Outcome {
    let cx = super::silent(cancel);
    let id = locked.place().id.clone();
    // Under the lock: what others have sealed of this repository by now is all there will be.
    books.catch_up(&app.memory).await?;
    settle(app, face, books, locked, spec).await?;
    let mut worst = Exit::Ok;
    let mut has_gone = false;
    for of in sources(services, spec)? {
        let plan = of.plan(books.ground(), &id, locked.listed());
        worst = worse(worst, tell(face, &of, spec, &plan, arguments.all)?);
        if plan.decisions.is_empty() {
            continue;
        }
        if let Err(error) = locked.ensure_newer(&cx, &plan).await {
            // That it could not be looked at says nothing of what is there; nothing goes either way.
            if !matches!(error.kind, ErrorKind::Corrupt | ErrorKind::NotFound) {
                return Err(Failure::from(error));
            }
            let finding = Finding::new(
                FindingCode::NewerNotWhole,
                format!("{}/{} in {}", of.service.name, of.source.name, spec.name),
                seaworthy_engine::act::chain(&error),
            );
            if face.json {
                face.json(&serde_json::json!({
                    "schema": "seaworthy.retain/1", "event": "refused", "repository": spec.name, "finding": finding,
                }))?;
            } else {
                let mark = face.paint(Tone::Bad, "✗ NOTHING GOES");
                face.data(format!("  {mark} {}", printable(&finding.to_string())))?;
                face.say(format!("  next: {}", finding.code.remedy()))?;
            }
            worst = worse(worst, Exit::Findings);
            continue;
        }
        let sealed = app
            .runner
            .decide(locked, &plan, of.policy.in_force())
            .await
            .map_err(|error| run_failure(&error))?;
        books.catch_up(&app.memory).await?;
        let mut decided = sealed.body;
        // Somebody may have said no while we were deciding: what the plan would not let go now stays.
        let again = of.plan(books.ground(), &id, locked.listed());
        let still: BTreeSet<&CopyId> = again.deleted().map(|one| &one.copy).collect();
        decided.removing.retain(|one| still.contains(&one.copy));
        let known = of.known(books.ground());
        let removed =
            app.runner.remove(&cx, locked, &decided, &known).await.map_err(|error| run_failure(&error))?;
        books.catch_up(&app.memory).await?;
        let (gone, error) = removed;
        has_gone |= !gone.is_empty();
        if face.json {
            face.json(&serde_json::json!({
                "schema": "seaworthy.retain/1", "event": "sealed", "repository": spec.name, "receipt": sealed.receipt.digest,
                "marked": decided.marked, "unmarked": decided.unmarked, "waiting": decided.waiting, "removed": gone.len(),
            }))?;
        } else {
            face.data(format!(
                "  {} sealed in receipt {}: {} marked, {} unmarked, {} waiting, {} removed",
                face.paint(Tone::Good, "✓"),
                sealed.receipt.sequence,
                decided.marked.len(),
                decided.unmarked.len(),
                decided.waiting,
                gone.len(),
            ))?;
        }
        if let Some(at) = Timestamp::now().checked_add(MARKED_FOR).ok().filter(|_| !decided.marked.is_empty())
        {
            face.say(format!("  what was marked goes at the earliest at {}", instant(at)))?;
        }
        if let Some(error) = error {
            let failure = Failure::from(error);
            let what = format!("{}/{} in {}", of.service.name, of.source.name, spec.name);
            face.fail(&what, &face.paint(Tone::Bad, "✗ NOT ALL HAVE GONE"), &failure)?;
            worst = worse(worst, failure.exit);
        }
    }
    if has_gone {
        face.say(format!("  the space that they took is given back by: seaworthy prune {}", spec.name))?;
    }
    Ok(worst)
}

/// Says what an interrupted run has removed and could not say.
async fn settle(
    app: &App,
    face: &Face,
    books: &mut Books,
    locked: &Locked,
    spec: &RepositorySpec,
) -> Outcome<()> {
    let id = locked.place().id.clone();
    let owed: Vec<RecoveryPoint> = books.ground().owed(&id).cloned().collect();
    let known: Vec<RecoveryPoint> = owed
        .iter()
        .map(|point| (&point.service, &point.source))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .flat_map(|(service, source)| books.ground().points(service, source).cloned())
        .collect();
    let sealed = app.runner.settle(locked, &owed, &known).await.map_err(|error| run_failure(&error))?;
    if !sealed.is_empty() {
        face.say(format!(
            "note: {} in {} had gone before a run was interrupted; recorded now",
            count(sealed.len(), "copy"),
            spec.name
        ))?;
        books.catch_up(&app.memory).await?;
    }
    Ok(())
}

// ----------------------------------------------------------------------------------------------------- the screen

/// What a plan finds that a person has to know.
fn findings(of: &Sources<'_>, spec: &RepositorySpec, plan: &Plan) -> Vec<Finding> {
    let subject = format!("{}/{} in {}", of.service.name, of.source.name, spec.name);
    let suspended = plan.suspended.iter().map(|suspension| {
        let detail = format!("{}: {}", suspension.rule, suspension.why);
        Finding::new(FindingCode::RetentionSuspended, subject.clone(), detail)
    });
    let stuck = plan.stuck().count();
    let first = plan.stuck().next();
    let stuck = first.map(|one| {
        let detail = format!(
            "{} no policy wants {}, and no run will let go: {} {}",
            count(stuck, "copy"),
            if stuck == 1 { "it" } else { "them" },
            short(&one.copy),
            one.decision
        );
        Finding::new(FindingCode::KeptTooLong, subject.clone(), detail)
    });
    suspended.chain(stuck).collect()
}

fn tell(face: &Face, of: &Sources<'_>, spec: &RepositorySpec, plan: &Plan, is_all: bool) -> Outcome {
    let findings = findings(of, spec, plan);
    if face.json {
        face.json(&serde_json::json!({
            "schema": "seaworthy.retain/1", "event": "summary", "repository": spec.name,
            "digest": plan.digest(), "plan": plan, "findings": findings,
        }))?;
    } else {
        show(face, of, spec, plan, &findings, is_all)?;
    }
    Ok(if findings.is_empty() { Exit::Ok } else { Exit::Findings })
}

fn show(
    face: &Face,
    of: &Sources<'_>,
    spec: &RepositorySpec,
    planned: &Plan,
    findings: &[Finding],
    is_all: bool,
) -> Outcome<()> {
    let number =
        |is: &dyn Fn(&Decision) -> bool| planned.decisions.iter().filter(|one| is(&one.decision)).count();
    let (kept, expiring, refused) = (
        number(&|decision| matches!(decision, Decision::Keep(_))),
        number(&|decision| matches!(decision, Decision::Expire(_))),
        number(&|decision| matches!(decision, Decision::Refused { .. })),
    );
    let freed: u64 = planned
        .decisions
        .iter()
        .filter(|one| matches!(one.decision, Decision::Expire(_)))
        .map(|one| one.stored_bytes)
        .sum();
    face.data(format!(
        "{}/{} in {}: {} kept, {expiring} may go (at most {}), {refused} stay by a rule",
        of.service.name,
        of.source.name,
        spec.name,
        count(kept, "copy"),
        bytes(freed),
    ))?;
    for finding in findings {
        face.data(format!("  {} {}", face.paint(Tone::Warn, "!"), printable(&finding.to_string())))?;
    }
    for one in planned.decisions.iter().rev() {
        if is_all || !matches!(one.decision, Decision::Keep(_) | Decision::Absent) {
            face.data(format!("  {}", line(face, one)))?;
        }
    }
    let waiting = planned.awaiting_approval().count();
    if waiting > 0 && !planned.is_approved() {
        let digest = planned.digest().0.0;
        let digest = digest.trim_start_matches("sha256:");
        face.say(format!(
            "  {} for their turn: a fifth at most is on the way out at once. To let all of this plan go: seaworthy retain {} --approve {} --reason TEXT",
            if waiting == 1 { "1 copy waits".to_owned() } else { format!("{waiting} copies wait") },
            of.service.name,
            digest.get(..12).unwrap_or(digest),
        ))?;
    }
    Ok(())
}

fn short(copy: &CopyId) -> &str {
    copy.0.get(..12).unwrap_or(&copy.0)
}

fn line(face: &Face, one: &Decided) -> String {
    let mark = match (&one.decision, one.step) {
        (Decision::Keep(_), _) => face.paint(Tone::Good, "✓"),
        (Decision::Expire(_), _) => face.paint(Tone::Warn, "−"),
        (Decision::Refused { .. }, _) => face.paint(Tone::Good, "="),
        (Decision::Absent, _) => " ".to_owned(),
    };
    let then = match one.step {
        Some(Step::Mark) => "; not marked yet".to_owned(),
        Some(Step::Wait { since }) => match since.checked_add(MARKED_FOR) {
            Ok(at) => format!("; marked, and goes at the earliest at {}", instant(at)),
            Err(_) => "; marked".to_owned(),
        },
        Some(Step::Delete { .. }) => "; marked for a day: its time is over".to_owned(),
        Some(Step::Unmark) => "; its mark is taken away".to_owned(),
        None => String::new(),
    };
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
