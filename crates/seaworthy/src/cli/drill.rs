//! `drill`: restore into isolation, prove, measure, seal. `drill list` and `drill show` read what was sealed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use seaworthy_engine::store::{SnapshotReader, WITNESS_BYTES_MAX, WITNESS_PATH};
use seaworthy_engine::{DrillJob, Moment, Sealed};
use seaworthy_interface::{CopyPath, CopyReader, Cx, DriverError, ErrorKind};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::id::{Digest, RepositoryId};
use seaworthy_model::objective::{Met, Objective};
use seaworthy_model::point::{PointRule, RecoveryPoint, SelectError, select};
use seaworthy_model::receipt::{Act, Drill, Receipt, Seed, Selection};
use seaworthy_model::service::{RepositorySpec, Service, ServiceSource};
use seaworthy_model::signature::sha256;
use seaworthy_model::verdict::Verdict;
use seaworthy_model::witness::Witness;
use seaworthy_repository::{Lock, LockKind, Repository};
use tokio_util::sync::CancellationToken;

use crate::app::{self, App, Opened, reference, run_failure};
use crate::cli::args::{Choice, Cli, DrillRun, ReportFormat};
use crate::cli::restore::moment;
use crate::cli::restore::until::Ground;
use crate::cli::{adopt, independent, prove, wal};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::memory::Memory;
use crate::output::{Face, Tone, count};
use crate::render::drill as render;
use crate::setup::{self, Setup};
use crate::{state, wiring};

/// A point, how it was chosen, and the repository it lies in.
pub(crate) struct Chosen {
    pub(crate) point: RecoveryPoint,
    pub(crate) selection: Selection,
    pub(crate) repository: Repository,
    pub(crate) spec: RepositorySpec,
}

impl Chosen {
    /// What was chosen, and how, for `-v`.
    pub(crate) fn words(&self) -> String {
        let copy = self.point.copy.0.get(..12).unwrap_or(&self.point.copy.0);
        format!(
            "chose copy {copy} as of {} from repository {}: `{}`, {}",
            render::instant(self.point.point),
            self.spec.name,
            self.selection.rule,
            count(usize::try_from(self.selection.candidates).unwrap_or(usize::MAX), "candidate")
        )
    }
}

/// Chooses a point of a source by the rule that a person gave.
pub(crate) async fn choose(
    setup: &Setup,
    memory: &Memory,
    cx: &Cx,
    opened: &mut Opened,
    service: &Service,
    source: &ServiceSource,
    choice: &Choice,
) -> Outcome<Chosen> {
    let specs = setup.repositories(service, choice.from.as_deref())?;
    let spec = *specs
        .first()
        .ok_or_else(|| Failure::new(Exit::Usage, format!("service `{}` has no repository", service.name)))?;
    let repository = opened.get(cx, spec).await?;
    let id = RepositoryId(repository.id().hex());
    let points = app::points(memory, &service.name, &source.name, Some(&id)).await?;
    if points.is_empty() {
        let elsewhere = app::points(memory, &service.name, &source.name, None).await?;
        if let Some(known) = elsewhere.iter().rev().find(|point| point.repository.name == spec.name) {
            let short = |id: &RepositoryId| id.0.get(..12).unwrap_or(&id.0).to_owned();
            return Err(Failure::new(
                Exit::NotFound,
                format!(
                    "what lies at {} is not the repository `{}` that the ledger knows: it is {}, the copies of {}/{} lie in {} [{}]",
                    spec.location,
                    spec.name,
                    short(&id),
                    service.name,
                    source.name,
                    short(&known.repository.id),
                    FindingCode::WrongCopyRead
                ),
            )
            .hint(FindingCode::WrongCopyRead.remedy()));
        }
    }
    let window = SignedDuration::try_from(super::span(&choice.window)?)
        .map_err(|_| Failure::new(Exit::Usage, "--window is too long"))?;
    let seed = match choice.seed {
        Some(seed) => seed,
        None => random()?,
    };
    let rule = PointRule::parse(&choice.point, window, Seed(seed))
        .map_err(|error| Failure::because(Exit::Usage, "understand --point", &error))?;
    let chosen = select(&points, &rule, Timestamp::now()).map_err(|error| {
        let exit = match error {
            SelectError::NoPoint | SelectError::NoneAllowed { .. } => Exit::NotFound,
            SelectError::Ambiguous { .. } => Exit::Usage,
        };
        Failure::because(
            exit,
            format!(
                "choose a recovery point of {}/{} in repository `{}`",
                service.name, source.name, spec.name
            ),
            &error,
        )
        .hint(format!("seaworthy points {}", service.name))
    })?;
    Ok(Chosen { point: chosen.point.clone(), selection: chosen.selection, repository, spec: spec.clone() })
}

pub(crate) fn random() -> Outcome<u64> {
    getrandom::u64().map_err(|error| Failure::new(Exit::Unexpected, format!("get random bytes: {error}")))
}

/// The bytes of a copy's witness.
async fn witness_bytes(reader: &Arc<dyn CopyReader>) -> Result<Vec<u8>, Finding> {
    let from = Arc::clone(reader);
    let read = tokio::task::spawn_blocking(move || {
        let path = CopyPath::new(WITNESS_PATH)
            .ok_or_else(|| DriverError::new(ErrorKind::Other, "name the witness"))?;
        from.read(&path, WITNESS_BYTES_MAX)
    })
    .await;
    match read {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => Err(seaworthy_engine::act::finding_of(&error, "witness")),
        Err(error) => Err(Finding::new(FindingCode::EnvOther, "witness", error.to_string())),
    }
}

/// What a copy that was found says of itself, signed by nobody whom we know: enough to restore it, never to prove it.
pub(crate) async fn witness_unsigned(reader: &Arc<dyn CopyReader>, point: &RecoveryPoint) -> Option<Witness> {
    if !point.was_found || point.witness.is_some() {
        return None;
    }
    serde_json::from_slice(&witness_bytes(reader).await.ok()?).ok()
}

/// Reads the witness of a copy and compares its digest with the one in the backup's receipt.
pub(crate) async fn witness(
    reader: &Arc<dyn CopyReader>,
    point: &RecoveryPoint,
) -> (Option<(Witness, Digest)>, Vec<Finding>) {
    let bytes = match witness_bytes(reader).await {
        Ok(bytes) => bytes,
        Err(finding) => return (None, vec![finding]),
    };
    let digest = sha256(&bytes);
    match &point.witness {
        Some(expected) if *expected == digest => {}
        Some(expected) => {
            return (
                None,
                vec![Finding::new(
                    FindingCode::WitnessNotOurs,
                    "witness",
                    format!("the copy's witness is {digest}, the backup's receipt says {expected}"),
                )],
            );
        }
        None => {
            return (
                None,
                vec![Finding::new(
                    FindingCode::NoWitness,
                    "witness",
                    "no receipt names a witness of this copy",
                )],
            );
        }
    }
    match serde_json::from_slice(&bytes) {
        Ok(witness) => (Some((witness, digest)), Vec::new()),
        Err(error) => (
            None,
            vec![Finding::new(
                FindingCode::NoWitness,
                "witness",
                format!("this version cannot read the witness: {error}"),
            )],
        ),
    }
}

/// Why a call that was to drill has drilled nothing: that is never a pass.
fn nothing(services: &[&Service], arguments: &DrillRun) -> Failure {
    let sources: usize = services.iter().map(|service| service.sources.len()).sum();
    let sets: usize = services.iter().map(|service| service.adopted.len()).sum();
    let names = services.iter().map(|service| format!("`{}`", service.name)).collect::<Vec<_>>().join(", ");
    let (why, hint) = if sources + sets == 0 {
        (
            format!(
                "{names} declares no source and no adopted set of copies, so that there is nothing to restore"
            ),
            "declare a source in seaworthy.toml, or name another service: seaworthy status",
        )
    } else if arguments.until.is_some() && sources > 0 {
        (
            format!("no source of {names} holds a log, so that no moment between two copies can be restored"),
            "PostgreSQL sources with mode = \"continuous\" do; drill the copies themselves: seaworthy drill",
        )
    } else if arguments.prove_the_drill.is_some() && sources == 0 {
        (
            format!(
                "{names} has adopted copies only: without a witness nothing could notice a damage made on purpose"
            ),
            "drill them without --prove-the-drill, or back the source up with seaworthy backup",
        )
    } else {
        (format!("nothing of {names} was asked for"), "seaworthy drill --dry-run")
    };
    Failure::new(Exit::Unknown, format!("drilled nothing: {why} [{}]", FindingCode::NothingChecked))
        .hint(hint)
}

/// Drills; the exit code is the worst of all runs. A call that leads to no run at all is no pass.
pub(crate) async fn run(cli: &Cli, face: &Face, arguments: &DrillRun, cancel: CancellationToken) -> Outcome {
    let cx = super::silent(&cancel);
    let until = moment(arguments.until.as_deref())?;
    if cli.global.dry_run {
        return plan(cli, face, arguments).await;
    }
    let app = App::open(cli, face, &cx).await?;
    let mut opened = Opened::new(&app.setup.state);
    let mut worst = Exit::Ok;
    let mut runs = 0_usize;
    adopt::known(&app.setup, arguments)?;
    let services = app.setup.services(&arguments.services)?;
    for service in &services {
        for source in service.sources.iter().filter(|_| arguments.adopted.is_none()) {
            if cancel.is_cancelled() {
                return Err(Failure::new(
                    Exit::Interrupted,
                    "interrupted between two drills; the finished ones are sealed",
                ));
            }
            if until.is_some() && !source.spec.holds_log() {
                let subject = format!("{}/{}", service.name, source.name);
                if arguments.services.is_empty() {
                    face.say(format!("left out {subject}: its copies hold one instant each, and no log"))?;
                    continue;
                }
                return Err(Failure::new(
                    Exit::Usage,
                    format!("drill {subject} to a moment: its copies hold one instant each, and no log"),
                )
                .hint(
                    "PostgreSQL sources with mode = \"continuous\" hold every moment between their copies",
                ));
            }
            let failed = |failure: Failure| -> Outcome {
                let subject = format!("{}/{}", service.name, source.name);
                face.fail(&subject, &face.paint(Tone::Warn, "? NOT DRILLED"), &failure)?;
                Ok(failure.exit)
            };
            runs += 1;
            if let Some(times) = arguments.prove_the_drill {
                let ended =
                    prove::run(&app, face, &mut opened, service, source, arguments, times, &cancel).await;
                worst = worse(worst, ended.or_else(failed)?);
                continue;
            }
            let ended = if arguments.independent {
                independent::one(&app, face, &mut opened, service, source, arguments, &cancel).await
            } else {
                one(&app, face, &mut opened, service, source, arguments, None, &cancel).await
            };
            let sealed = match ended {
                Ok(sealed) => sealed,
                Err(failure) => {
                    worst = worse(worst, failed(failure)?);
                    continue;
                }
            };
            if let Some(directory) = &arguments.report {
                write_reports(face, directory, &sealed)?;
            }
            if face.json {
                face.json(&serde_json::json!({
                    "schema": "seaworthy.drill/1", "event": "summary", "receipt": sealed.receipt.sequence,
                    "digest": sealed.receipt.digest, "drill": sealed.body,
                }))?;
            } else if !face.is_quiet() || ending(&sealed.body) != Exit::Ok {
                face.data(render::terminal(face, &sealed.receipt, &sealed.body).trim_end())?;
            }
            worst = worse(worst, ending(&sealed.body));
        }
        for set in service.adopted.iter().filter(|set| adopt::is_wanted(set, arguments)) {
            if arguments.prove_the_drill.is_some() {
                let subject = adopt::subject(&service.name, set);
                face.say(format!("left out {subject}: without a witness nothing could notice a damage"))?;
                continue;
            }
            runs += 1;
            let ended = match adopt::drill(&app, face, service, set, arguments, &cancel).await {
                Ok(sealed) => told(face, arguments, &sealed)?,
                Err(failure) if cancel.is_cancelled() => return Err(failure),
                Err(failure) => {
                    let subject = adopt::subject(&service.name, set);
                    face.fail(&subject, &face.paint(Tone::Warn, "? NOT DRILLED"), &failure)?;
                    failure.exit
                }
            };
            worst = worse(worst, ended);
        }
    }
    if runs == 0 { Err(nothing(&services, arguments)) } else { Ok(worst) }
}

/// Prints one drill, writes its reports, and says how it ended.
fn told(face: &Face, arguments: &DrillRun, sealed: &Sealed<Drill>) -> Outcome {
    if let Some(directory) = &arguments.report {
        write_reports(face, directory, sealed)?;
    }
    let is_stale = sealed.body.findings.iter().any(|finding| finding.code == FindingCode::Stale);
    let is_closed = sealed
        .body
        .checks
        .iter()
        .flat_map(|check| &check.findings)
        .any(|finding| finding.code == FindingCode::WrongKey);
    let ended = match ending(&sealed.body) {
        Exit::Ok if is_stale => Exit::ObjectiveMissed,
        Exit::Unknown if is_closed => Exit::WrongKey,
        ended => ended,
    };
    if face.json {
        face.json(&serde_json::json!({
            "schema": "seaworthy.drill/1", "event": "summary", "receipt": sealed.receipt.sequence,
            "digest": sealed.receipt.digest, "drill": sealed.body,
        }))?;
    } else if !face.is_quiet() || ended != Exit::Ok {
        face.data(render::terminal(face, &sealed.receipt, &sealed.body).trim_end())?;
    }
    Ok(ended)
}

/// The exit code of one drill.
pub(crate) fn ending(drill: &Drill) -> Exit {
    match drill.verdict {
        Verdict::Fail => Exit::DrillFailed,
        Verdict::Inconclusive => Exit::Unknown,
        Verdict::Pass(_) if drill.rto.met == Met::Missed || drill.rpo.exposure.met == Met::Missed => {
            Exit::ObjectiveMissed
        }
        Verdict::Pass(_) => Exit::Ok,
    }
}

/// FAIL before any error, an error before INCONCLUSIVE, that before a missed objective, that before success.
pub(crate) fn worse(one: Exit, other: Exit) -> Exit {
    let rank = |exit: Exit| match exit {
        Exit::DrillFailed => 4,
        Exit::Ok => 0,
        Exit::ObjectiveMissed => 1,
        Exit::Unknown => 2,
        Exit::Unexpected
        | Exit::Usage
        | Exit::Incomplete
        | Exit::Findings
        | Exit::NotFound
        | Exit::Locked
        | Exit::WrongKey
        | Exit::Refused
        | Exit::Interrupted
        | Exit::Withheld => 3,
    };
    if rank(other) > rank(one) { other } else { one }
}

async fn plan(cli: &Cli, face: &Face, arguments: &DrillRun) -> Outcome {
    let setup = setup::load(cli, face)?;
    adopt::known(&setup, arguments)?;
    let cx = super::silent(&CancellationToken::new());
    let services = setup.services(&arguments.services)?;
    let sets = services.iter().flat_map(|service| service.adopted.iter().map(move |set| (service, set)));
    for (service, set) in sets.filter(|(_, set)| adopt::is_wanted(set, arguments)) {
        adopt::plan(face, &cx, service, set).await?;
    }
    if arguments.adopted.is_some() || services.iter().all(|service| service.sources.is_empty()) {
        return Ok(Exit::Ok);
    }
    let memory = Memory::open_to_read(cli, &setup.state).await?;
    for service in services {
        for source in &service.sources {
            let points = memory.points(&service.name, &source.name).await?;
            let to = arguments.until.as_ref().map_or_else(String::new, |until| {
                if source.spec.holds_log() {
                    format!(", recovered to {}", printable(until))
                } else {
                    String::new()
                }
            });
            face.data(format!(
                "would drill {}/{}: point `{}` of {} known{to}, {} checks of your own, deadline {}",
                service.name,
                source.name,
                printable(&arguments.choice.point),
                points.len(),
                source.checks.len(),
                crate::output::duration(deadline(service))
            ))?;
        }
    }
    Ok(Exit::Ok)
}

/// When a drill is given up: a multiple of the RTO, so that a miss is measured.
pub(crate) fn deadline(service: &Service) -> Duration {
    let by_policy = Duration::try_from(service.drill.deadline).unwrap_or(Duration::from_secs(3600));
    match service.objective.rto {
        Objective::Within(rto) => {
            let rto = Duration::try_from(rto).unwrap_or(by_policy);
            rto.checked_mul(service.drill.deadline_percent).map_or(by_policy, |scaled| scaled / 100)
        }
        Objective::NotApplicable => by_policy,
    }
}

/// One drill. With a seed for its damage, the user's own checks are asked again after it.
#[expect(clippy::too_many_arguments, reason = "what is drilled, with what, and how")]
pub(crate) async fn one(
    app: &App,
    face: &Face,
    opened: &mut Opened,
    service: &Service,
    source: &ServiceSource,
    arguments: &DrillRun,
    damage: Option<u64>,
    cancel: &CancellationToken,
) -> Outcome<Sealed<Drill>> {
    let watch = face.watch(&format!("{}/{}", service.name, source.name));
    let cx = super::context(cancel, watch.sink());
    let until = moment(arguments.until.as_deref())?;
    let ground = Ground {
        face,
        setup: &app.setup,
        memory: &app.memory,
        cx: &cx,
        service,
        source,
        choice: &arguments.choice,
    };
    let (chosen, behind) = match &until {
        Some(until) => ground.choose(opened, until).await?,
        None => {
            let choice = &arguments.choice;
            (choose(&app.setup, &app.memory, &cx, opened, service, source, choice).await?, Vec::new())
        }
    };
    watch.step(&chosen.words());
    let subject = wiring::subject(&app.setup.state, service, source)?;
    let lock = lock(&cx, &chosen).await?;
    let place = reference(&chosen.spec, &chosen.repository);
    let journal = wal::journal(&cx, &chosen.repository, service, source);
    // Each of two restores has the deadline to itself; they are read through one reader.
    let limit = deadline(service).saturating_mul(1 + u32::from(until.is_some()));
    let mut job = job(app, &cx.within(limit), service, source, chosen, damage).await?;
    job.onward = until.map(|until| Moment { until, behind, journal });
    let sealed = app
        .runner
        .drill(&cx, &subject, &app.sandboxes, place, job)
        .await
        .map_err(|error| run_failure(&error))?;
    watch.sealed(&sealed.receipt, &sealed.body.phases);
    wiring::unlock(lock).await?;
    Ok(sealed)
}

/// Held while a drill reads, so that a prune waits.
pub(super) async fn lock(cx: &Cx, chosen: &Chosen) -> Outcome<Lock> {
    let locked = chosen.repository.clone();
    let control = seaworthy_engine::store::control(cx);
    let what = format!("lock repository `{}` for reading", chosen.spec.name);
    wiring::blocking(move || {
        locked.lock(LockKind::Shared, &control).map_err(|error| wiring::repository_failure(&what, error))
    })
    .await
}

/// What the drill of a chosen copy is to do, whoever brings it back. The copy is read for as long as `cx` allows.
pub(super) async fn job(
    app: &App,
    cx: &Cx,
    service: &Service,
    source: &ServiceSource,
    chosen: Chosen,
    damage: Option<u64>,
) -> Outcome<DrillJob> {
    let reader: Arc<dyn CopyReader> =
        Arc::new(SnapshotReader::new(cx, &chosen.repository, &chosen.point.copy)?);
    let (witness, witness_findings) = match app
        .memory
        .doubts(&service.name, &source.name, &chosen.point, &app.setup.state.trusted_keys()?)
        .await?
    {
        // A witness that nobody vouches for is none.
        Some(doubt) => (None, vec![doubt]),
        None => witness(&reader, &chosen.point).await,
    };
    Ok(DrillJob {
        copy: chosen.point.copy.clone(),
        backup: Some(chosen.point.sequence),
        point: chosen.point.point,
        selection: chosen.selection,
        witness,
        witness_findings,
        checks: source.checks.clone(),
        objective: service.objective,
        deadline: deadline(service),
        needed_bytes: chosen.point.restore_bytes,
        source_identity: app.memory.source_identity(chosen.point.sequence).await?,
        reader,
        control_seed: match damage {
            Some(seed) => seed,
            None => random()?,
        },
        doubts_checks: damage.is_some(),
        onward: None,
        next_due: service.drill.schedule.as_ref().and_then(|schedule| schedule.next_after(Timestamp::now())),
        proof_valid: service.drill.proof_valid,
    })
}

fn write_reports(face: &Face, directory: &Path, sealed: &Sealed<Drill>) -> Outcome<()> {
    std::fs::create_dir_all(directory).map_err(|error| {
        Failure::because(Exit::Unexpected, format!("make `{}`", directory.display()), &error)
    })?;
    let stem = format!(
        "restore-test-{}-{}-{}-{}",
        render::day(sealed.body.started),
        sealed.body.service,
        sealed.body.source,
        sealed.receipt.sequence
    );
    let json = serde_json::to_string_pretty(
        &serde_json::json!({ "receipt": sealed.receipt.digest, "drill": sealed.body }),
    )
    .map_err(|error| Failure::because(Exit::Unexpected, "spell the report", &error))?;
    let documents = [
        ("html", render::html(&sealed.receipt, &sealed.body)),
        ("md", render::markdown(&sealed.receipt, &sealed.body)),
        ("json", json),
    ];
    for (extension, text) in documents {
        let path = directory.join(format!("{stem}.{extension}"));
        state::write_durably(&path, text.as_bytes(), 0o644)?;
        face.say(format!("wrote {}", path.display()))?;
    }
    Ok(())
}

/// `drill list`.
pub(crate) async fn list(cli: &Cli, face: &Face, service: Option<&str>) -> Outcome {
    let state = setup::bare_state(cli, face)?;
    let memory = Memory::open_to_read(cli, &state).await?;
    let mut rows = Vec::new();
    for receipt in memory.receipts().await? {
        let Act::Drill(drill) = &receipt.act else { continue };
        if service.is_some_and(|wanted| wanted != drill.service.as_str()) {
            continue;
        }
        if face.json {
            rows.push(serde_json::json!({ "receipt": receipt.sequence, "run": drill.run, "service": drill.service, "source": drill.source, "started": drill.started, "verdict": drill.verdict, "rto": drill.rto }));
        } else {
            face.data(format!(
                "{:>6}  {}  {:<40}  {}",
                receipt.sequence,
                render::instant(drill.started),
                drill.run.to_string(),
                render::sentence(drill)
            ))?;
        }
    }
    if face.json {
        face.json(&serde_json::json!({ "schema": "seaworthy.drills/1", "data": rows }))?;
    }
    Ok(Exit::Ok)
}

/// `drill show`.
pub(crate) async fn show(cli: &Cli, face: &Face, run: &str, format: ReportFormat) -> Outcome {
    let state = setup::bare_state(cli, face)?;
    let memory = Memory::open_to_read(cli, &state).await?;
    let found: Vec<Receipt> = memory
        .receipts()
        .await?
        .into_iter()
        .filter(|receipt| matches!(&receipt.act, Act::Drill(drill) if drill.run.0.starts_with(run)))
        .collect();
    let [receipt] = found.as_slice() else {
        return Err(Failure::new(
            Exit::NotFound,
            format!("{} drills begin with `{}`", found.len(), printable(run)),
        )
        .hint("seaworthy drill list"));
    };
    let Act::Drill(drill) = &receipt.act else {
        return Err(Failure::new(Exit::Unexpected, "a drill's receipt is none"));
    };
    let format = if face.json { ReportFormat::Json } else { format };
    match format {
        ReportFormat::Terminal => face.data(render::terminal(face, receipt, drill).trim_end())?,
        ReportFormat::Markdown => face.data(render::markdown(receipt, drill).trim_end())?,
        ReportFormat::Html => face.data(render::html(receipt, drill).trim_end())?,
        ReportFormat::Json => face.json(&serde_json::json!({ "schema": "seaworthy.drill/1", "receipt": receipt.sequence, "digest": receipt.digest, "drill": drill }))?,
    }
    Ok(Exit::Ok)
}
