//! `comply`: looks into every repository, side by side, and says where the copies are and what each disaster would leave.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::fs::StatVfsMountFlags;
use seaworthy_engine::act::comply::{Glance, SeenSource, Wanted, damaged, glance, run_id};
use seaworthy_interface::{Cx, Stop};
use seaworthy_model::canonical::INTEGER_MAX;
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::id::{RepositoryId, RepositoryName, ServiceName, SourceName};
use seaworthy_model::placement::{
    Answer, Case, Comply, Look, Looked, Placed, RULES, ReadBack, Seen, Space, place,
};
use seaworthy_model::receipt::{Act, ActKind, RepositoryRef, SourceRef};
use seaworthy_model::secret::SecretRef;
use seaworthy_model::service::{RepositorySpec, Service, ServiceSource};
use seaworthy_model::source::SourceSpec;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::app::{App, run_failure};
use crate::cli::args::{self, Cli};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::memory::Memory;
use crate::output::{Face, duration};
use crate::render::comply as render;
use crate::setup::Setup;
use crate::{setup, state, wiring};

/// Looks, judges, seals, and tells; the exit code is the answer.
pub(crate) async fn run(
    cli: &Cli,
    face: &Face,
    arguments: &args::Comply,
    cancel: CancellationToken,
) -> Outcome {
    let within = super::span(&arguments.within)?;
    let setup = setup::load(cli, face)?;
    let asked = asked(&setup, &arguments.services)?;
    if cli.global.dry_run {
        for (name, sources) in &asked {
            face.data(format!(
                "would look into repository {name} for at most {}: list its copies, and read a random piece of the newest of {}",
                duration(within),
                crate::output::count(sources.len(), "source")
            ))?;
        }
        face.data("would judge them by the policy, and seal a receipt")?;
        return Ok(Exit::Ok);
    }
    let app = App::with(setup, face, &super::silent(&cancel)).await?;
    let started = Timestamp::now();
    let run = run_id(started)
        .map_err(|error| Failure::new(Exit::Unexpected, format!("get random bytes: {error}")))?;
    let looked = look(&app, face, asked, within, &cancel).await?;
    if cancel.is_cancelled() {
        return Err(Failure::new(Exit::Interrupted, "interrupted: nothing was sealed; run it again"));
    }
    let mut sources = Vec::new();
    for service in app.setup.services(&arguments.services)? {
        for source in &service.sources {
            let case = case(&app, service, source, &looked).await?;
            sources.push(Placed { placement: place(&case), case });
        }
    }
    let findings = looked
        .iter()
        .filter_map(|(name, looked)| Some(looked.space.as_ref()?.findings(name)))
        .flatten()
        .collect();
    let body = Comply {
        run,
        rules: RULES,
        answer: Comply::worst(&sources),
        repositories: looked.iter().map(|(name, looked)| looked.told(name)).collect(),
        sources,
        findings,
        started,
        finished: Timestamp::now(),
        executor: wiring::executor(),
    };
    seal_damage(&app, face, &body).await?;
    let receipt = app
        .runner
        .notary()
        .commit(&Act::Comply(Box::new(body.clone())), Timestamp::now())
        .await
        .map_err(|error| run_failure(&seaworthy_engine::RunError::from(error)))?;
    if face.json {
        face.json(&serde_json::json!({
            "schema": "seaworthy.comply/1", "event": "summary", "answer": body.answer, "receipt": receipt.sequence,
            "digest": receipt.digest, "comply": body,
        }))?;
    } else {
        render::terminal(face, &receipt, &body)?;
    }
    if let Some(directory) = &arguments.report {
        write_reports(face, directory, &receipt, &body)?;
    }
    Ok(match body.answer {
        Answer::Met => Exit::Ok,
        Answer::Violated => Exit::Findings,
        Answer::Unknown => Exit::Unknown,
    })
}

/// Each repository once, with the sources that are looked for in it.
type Asked = BTreeMap<RepositoryName, Vec<(ServiceName, SourceName)>>;

fn asked(setup: &Setup, services: &[String]) -> Outcome<Asked> {
    let mut asked = Asked::new();
    for service in setup.services(services)? {
        for name in &service.repositories {
            let sources = service.sources.iter().map(|source| (service.name.clone(), source.name.clone()));
            asked.entry(name.clone()).or_default().extend(sources);
        }
    }
    if asked.values().all(Vec::is_empty) {
        return Err(Failure::new(
            Exit::Usage,
            "there is nothing to look for: none of the services has a source",
        ));
    }
    Ok(asked)
}

/// What came of looking into one repository.
struct Found {
    spec: RepositorySpec,
    at: Timestamp,
    took: Duration,
    id: Option<RepositoryId>,
    seen: Seen,
    glance: Glance,
    device: Option<String>,
    space: Option<Space>,
}

impl Found {
    fn told(&self, name: &RepositoryName) -> Looked {
        Looked {
            repository: name.clone(),
            id: self.id.clone(),
            seen: self.seen.clone(),
            took_ms: u64::try_from(self.took.as_millis()).unwrap_or(INTEGER_MAX),
            snapshots: self.glance.snapshots,
            read_bytes: self.glance.read_bytes,
            space: self.space.clone(),
        }
    }
}

/// Looks into all of them at once, each for so long at most: one that is dead keeps nobody waiting but its own look.
async fn look(
    app: &App,
    face: &Face,
    asked: Asked,
    within: Duration,
    cancel: &CancellationToken,
) -> Outcome<BTreeMap<RepositoryName, Found>> {
    let seed = super::drill::random()?;
    let watch = face.watch("comply");
    let scratch = wiring::staging(&app.setup.state);
    let mut looks = JoinSet::new();
    for (name, sources) in asked {
        let spec = app.setup.repository(name.as_str())?.clone();
        let cx = super::context(cancel, watch.sink()).within(within);
        looks.spawn(look_into(cx, spec, scratch.clone(), app.memory.clone(), sources, seed, within));
    }
    let mut found = BTreeMap::new();
    while let Some(joined) = looks.join_next().await {
        let one: Found = joined
            .map_err(|error| Failure::because(Exit::Unexpected, "look into a repository", &error))??;
        found.insert(one.spec.name.clone(), one);
    }
    Ok(found)
}

async fn look_into(
    cx: Cx,
    spec: RepositorySpec,
    scratch: PathBuf,
    memory: Memory,
    sources: Vec<(ServiceName, SourceName)>,
    seed: u64,
    within: Duration,
) -> Outcome<Found> {
    let began = Instant::now();
    let mut found = Found {
        at: Timestamp::now(),
        took: Duration::ZERO,
        id: None,
        seen: Seen::Answered,
        glance: Glance::default(),
        device: None,
        space: None,
        spec,
    };
    cx.phase(format!("look into {}", found.spec.name));
    let looked = try_to_look(&cx, &mut found, &scratch, &memory, sources, seed).await;
    found.took = began.elapsed();
    found.at = Timestamp::now();
    if let Err(failure) = looked {
        if cx.token().is_cancelled() && found.took < within {
            return Err(failure);
        }
        found.seen = Seen::Silent(silence(&found.spec, &failure, found.took >= within, within));
    }
    Ok(found)
}

async fn try_to_look(
    cx: &Cx,
    found: &mut Found,
    scratch: &Path,
    memory: &Memory,
    sources: Vec<(ServiceName, SourceName)>,
    seed: u64,
) -> Outcome<()> {
    let stopped = |stop: Stop| Failure::from(seaworthy_interface::DriverError::from(stop));
    if found.spec.remote.is_none() {
        let path = PathBuf::from(&found.spec.location);
        let looked = cx.run(wiring::blocking(move || Ok(room(&path)))).await.map_err(stopped)??;
        (found.device, found.space) = looked;
    }
    let opened = wiring::open_repository(cx, &found.spec, Some(scratch));
    let repository = cx.run(opened).await.map_err(stopped)??;
    let id = RepositoryId(repository.id().hex());
    found.id = Some(id.clone());
    // Before the listing: what is known by then is there, or has gone.
    let points = memory.points_in(&id).await?;
    if let Some(space) = &mut found.space {
        let health = space.health.take();
        *space = Space {
            health,
            ..Space::forecast(space.free_bytes, space.total_bytes, &points, Timestamp::now())
        };
    }
    let wanted = sources.into_iter().map(|(service, source)| {
        let own = points.iter().filter(|point| (&point.service, &point.source) == (&service, &source));
        Wanted { points: own.cloned().collect(), service, source }
    });
    found.glance = glance(cx, &repository, wanted.collect(), seed).await?;
    Ok(())
}

/// Why a repository did not answer, as a finding. A receipt never names a location.
fn silence(spec: &RepositorySpec, failure: &Failure, is_late: bool, within: Duration) -> Finding {
    let subject = format!("repository {}", spec.name);
    if is_late {
        let detail = format!("it did not answer within {}", duration(within));
        return Finding::new(FindingCode::Unreachable, subject, detail);
    }
    let detail = failure.chain.join(": ").replace(&spec.location, "its location");
    // A failure of the face carries its code in its words.
    let said = |code: &&FindingCode| failure.chain.iter().any(|words| words.contains(&format!("[{code}]")));
    let code = FindingCode::ALL.iter().copied().find(|code| said(&code)).unwrap_or(match failure.exit {
        Exit::WrongKey => FindingCode::WrongKey,
        Exit::NotFound | Exit::Unknown => FindingCode::Unreachable,
        _ => FindingCode::EnvOther,
    });
    Finding::new(code, subject, detail)
}

/// The device that a path lies on, and the room on it, as far as anybody may ask; blocks.
fn room(path: &Path) -> (Option<String>, Option<Space>) {
    let device = device(path);
    let Ok(facts) = rustix::fs::statvfs(path) else { return (device, None) };
    let bytes = |blocks: u64| blocks.saturating_mul(facts.f_frsize).min(INTEGER_MAX);
    let health = if facts.f_flag.contains(StatVfsMountFlags::RDONLY) {
        Some("its file system is mounted read-only: nothing can be stored there".to_owned())
    } else {
        device.as_deref().and_then(errors_of)
    };
    let space = Space {
        free_bytes: bytes(facts.f_bavail),
        total_bytes: bytes(facts.f_blocks),
        grows_bytes_a_day: None,
        days_left: None,
        health,
    };
    (device, Some(space))
}

fn device(path: &Path) -> Option<String> {
    let device = std::fs::metadata(path).ok()?.dev();
    Some(format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device)))
}

/// What ext4 has counted since it was last checked; anybody may read it. Other file systems do not say.
fn errors_of(device: &str) -> Option<String> {
    let block = std::fs::read_link(format!("/sys/dev/block/{device}")).ok()?;
    let name = block.file_name()?.to_str()?;
    let count = std::fs::read_to_string(format!("/sys/fs/ext4/{name}/errors_count")).ok()?;
    let count: u64 = count.trim().parse().ok()?;
    (count > 0).then(|| {
        format!("its file system has counted {count} errors of the device since it was last checked")
    })
}

/// Everything that is judged of one source.
async fn case(
    app: &App,
    service: &Service,
    source: &ServiceSource,
    looked: &BTreeMap<RepositoryName, Found>,
) -> Outcome<Case> {
    let keys = app.setup.state.trusted_keys()?;
    let mut looks = Vec::new();
    for name in &service.repositories {
        let Some(found) = looked.get(name) else { continue };
        let mine = |one: &&SeenSource| (&one.service, &one.source) == (&service.name, &source.name);
        let own = found.glance.sources.iter().find(mine);
        let mut copies = own.map_or_else(Vec::new, |own| own.copies.clone());
        if !copies.is_empty() {
            let points = app.memory.points(&service.name, &source.name).await?;
            for copy in &mut copies {
                let known = points
                    .iter()
                    .find(|point| point.copy == copy.copy && found.id.as_ref() == Some(&point.repository.id));
                copy.doubt = match known {
                    Some(point) => app.memory.doubts(&service.name, &source.name, point, &keys).await?,
                    None => None,
                };
            }
        }
        looks.push(Look {
            repository: name.clone(),
            id: found.id.clone(),
            place: found.spec.place(),
            at: found.at,
            seen: found.seen.clone(),
            device: found.device.clone(),
            region_seen: region_seen(found),
            immutable_until: None,
            password: sharers(&found.spec.password, looked),
            keys: matches!(found.seen, Seen::Answered).then_some(found.glance.keys),
            listed: own.map_or(0, |own| own.listed),
            vanished: own.map_or(0, |own| own.vanished),
            copies,
        });
    }
    let mut case = Case {
        service: service.name.clone(),
        source: source.name.clone(),
        production: service.placement.production.clone(),
        device: None,
        devices: BTreeSet::new(),
        is_partly_unseen: false,
        policy: service.placement.policy.clone(),
        rpo: service.objective.rpo,
        fresh_within: service.stale_after,
        proof_valid: service.drill.proof_valid,
        looks,
        now: Timestamp::now(),
    };
    case.lies_on(production_devices(&source.spec).await?);
    Ok(case)
}

/// Amazon's own S3 answers only requests that are signed for the bucket's region; of other services nobody knows.
fn region_seen(found: &Found) -> Option<String> {
    let remote = found.spec.remote.as_ref()?;
    let is_amazon = found.spec.location.starts_with("s3://") && remote.endpoint.is_none();
    let has_answered = matches!(found.seen, Seen::Answered);
    found.spec.region.clone().filter(|_| is_amazon && has_answered)
}

/// The repositories that have their password from the same place.
fn sharers(password: &SecretRef, looked: &BTreeMap<RepositoryName, Found>) -> BTreeSet<RepositoryName> {
    looked
        .iter()
        .filter(|(_, found)| found.spec.password == *password)
        .map(|(name, _)| name.clone())
        .collect()
}

/// Longest wait for the file system of a source to say what it lies on.
const STAT: Duration = Duration::from_secs(5);

/// The devices that the parts of the live data lie on, where they can be asked without a server; `None` of a part that could not.
async fn production_devices(spec: &SourceSpec) -> Outcome<Vec<Option<String>>> {
    let paths: Vec<PathBuf> = match spec {
        SourceSpec::Postgres(_) => return Ok(Vec::new()),
        SourceSpec::Sqlite(sqlite) => vec![PathBuf::from(&sqlite.path)],
        SourceSpec::Files(files) => files.paths.iter().map(PathBuf::from).collect(),
    };
    let asked = wiring::blocking(move || Ok(paths.iter().map(|path| device(path)).collect()));
    match tokio::time::timeout(STAT, asked).await {
        Ok(answer) => answer,
        Err(_) => Ok(vec![None]),
    }
}

/// What was found to be damaged is sealed by itself too, so that `status` tells of it and nothing relies on that copy.
async fn seal_damage(app: &App, face: &Face, body: &Comply) -> Outcome<()> {
    for Placed { case, .. } in &body.sources {
        for look in &case.looks {
            let Some(id) = &look.id else { continue };
            for copy in &look.copies {
                let ReadBack::Damaged(finding) = &copy.read else { continue };
                let place = RepositoryRef {
                    id: id.clone(),
                    name: look.repository.clone(),
                    medium: look.place.medium.clone(),
                    site: look.place.site.clone(),
                };
                let of = SourceRef { service: case.service.clone(), source: case.source.clone() };
                let run = seaworthy_engine::runner::run_id(ActKind::Verify, body.started)
                    .map_err(|error| Failure::new(Exit::Unexpected, format!("get random bytes: {error}")))?;
                let when = (body.started, body.finished);
                let act = damaged(run, place, of, copy, finding, when, &body.executor);
                let receipt = app
                    .runner
                    .notary()
                    .commit(&Act::Verify(Box::new(act)), Timestamp::now())
                    .await
                    .map_err(|error| run_failure(&seaworthy_engine::RunError::from(error)))?;
                face.say(format!("    damage sealed as receipt {} {}", receipt.sequence, receipt.digest))?;
            }
        }
    }
    Ok(())
}

fn write_reports(
    face: &Face,
    directory: &Path,
    receipt: &seaworthy_model::receipt::Receipt,
    body: &Comply,
) -> Outcome<()> {
    std::fs::create_dir_all(directory).map_err(|error| {
        Failure::because(Exit::Unexpected, format!("make `{}`", directory.display()), &error)
    })?;
    let stem = format!("three-two-one-{}-{}", crate::render::drill::day(body.started), receipt.sequence);
    let json = serde_json::to_string_pretty(
        &serde_json::json!({ "sequence": receipt.sequence, "receipt": receipt.digest, "comply": body }),
    )
    .map_err(|error| Failure::because(Exit::Unexpected, "spell the report", &error))?;
    let documents =
        [("html", render::html(receipt, body)), ("md", render::markdown(receipt, body)), ("json", json)];
    for (extension, text) in documents {
        let path = directory.join(format!("{stem}.{extension}"));
        state::write_durably(&path, text.as_bytes(), 0o644)?;
        face.say(format!("wrote {}", path.display()))?;
    }
    Ok(())
}
