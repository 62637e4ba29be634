//! `replicate`: copies of one repository into the others of its services.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use seaworthy_engine::act::check::{Checked, lost, refuted, unlisted, unreadable};
use seaworthy_engine::act::replicate::{Missing, is_damaged, missing};
use seaworthy_engine::act::retain::listed;
use seaworthy_engine::runner::run_id;
use seaworthy_engine::{ReadBack, ReplicateJob, Runner, Sealed};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::id::{CopyId, RepositoryName};
use seaworthy_model::point::{PointStanding, RecoveryPoint};
use seaworthy_model::receipt::{Act, ActKind, Replicate, RepositoryRef};
use seaworthy_model::service::{RepositorySpec, Service};
use tokio_util::sync::CancellationToken;

use crate::app::{App, Opened, points, reference, run_failure};
use crate::cli::args::{self, Cli};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::memory::Memory;
use crate::output::{Face, Tone, bytes, count, duration};
use crate::render::drill::instant;
use crate::setup::Setup;
use crate::{setup, wiring};

/// Copies that are replicated together: their shared content is sent once, and what is durable is told before the next ones.
const TOGETHER: usize = 32;
/// Of what is sent, the share that is decrypted and hashed again at its new place; the digests of all packs are compared in any case.
const SHARE: f64 = 0.01;

/// A way from one repository to another, and the services that go it.
type Ways<'a> = BTreeMap<(RepositoryName, RepositoryName), Vec<&'a Service>>;

/// Replicates what is missing; the exit code is the worst of all ways.
pub(crate) async fn run(
    cli: &Cli,
    face: &Face,
    arguments: &args::Replicate,
    cancel: CancellationToken,
) -> Outcome {
    let setup = setup::load(cli, face)?;
    // A name that is none is told before anything is opened.
    ways(&setup, arguments)?;
    if cli.global.dry_run {
        let memory = Memory::open_to_read(cli, &setup.state).await?;
        let mut opened = Opened::new(&setup.state);
        for ((from, to), services) in &ways(&setup, arguments)? {
            let way =
                Way { setup: &setup, memory: &memory, runner: None, face, from, to, services, share: SHARE };
            way.go(&mut opened, &cancel).await?;
        }
        return Ok(Exit::Ok);
    }
    let app = App::with(setup, face, &super::silent(&cancel)).await?;
    let ways = ways(&app.setup, arguments)?;
    let mut opened = Opened::new(&app.setup.state);
    let share = super::check::percent(&arguments.read_back)?;
    let mut worst = Exit::Ok;
    for ((from, to), services) in &ways {
        let way = Way { share, ..Way::acting(&app, face, (from, to), services) };
        let exit = match way.go(&mut opened, &cancel).await {
            Ok(exit) => exit,
            Err(failure) if ways.len() == 1 => return Err(failure),
            Err(failure) => {
                face.fail(&format!("{from} to {to}"), &face.paint(Tone::Bad, "✗ NOT REPLICATED"), &failure)?;
                failure.exit
            }
        };
        worst = super::backup::worse(worst, exit);
        if cancel.is_cancelled() {
            return Err(Failure::new(
                Exit::Interrupted,
                "interrupted: what was replicated is durable; run it again for the rest",
            ));
        }
    }
    Ok(worst)
}

/// Which ways there are: from a service's first repository to its others, or as asked.
fn ways<'a>(setup: &'a Setup, arguments: &args::Replicate) -> Outcome<Ways<'a>> {
    let mut ways = Ways::new();
    let mut alone = Vec::new();
    for service in setup.services(&arguments.services)? {
        let from = match &arguments.from {
            Some(name) => setup.repositories(service, Some(name))?,
            None => setup.repositories(service, None)?.into_iter().take(1).collect(),
        };
        let Some(from) = from.first() else { continue };
        let to: Vec<&RepositorySpec> = match arguments.to.as_slice() {
            [] => setup.repositories(service, None)?,
            names => {
                let mut chosen = Vec::new();
                for name in names {
                    chosen.extend(setup.repositories(service, Some(name))?);
                }
                chosen
            }
        };
        let to: Vec<&RepositorySpec> = to.into_iter().filter(|to| to.name != from.name).collect();
        if to.is_empty() {
            alone.push(service.name.to_string());
        }
        for to in to {
            ways.entry((from.name.clone(), to.name.clone())).or_default().push(service);
        }
    }
    if ways.is_empty() {
        return Err(Failure::new(
            Exit::Usage,
            format!("nothing to replicate to: {} has one repository only", alone.join(", ")),
        )
        .hint("add a second repository at another site, and name it in the service's `repositories`"));
    }
    Ok(ways)
}

/// From a repository to another, for some services.
pub(crate) struct Way<'a> {
    setup: &'a Setup,
    memory: &'a Memory,
    /// Carries it out; `None` in a rehearsal.
    runner: Option<&'a Runner>,
    face: &'a Face,
    from: &'a RepositoryName,
    to: &'a RepositoryName,
    services: &'a [&'a Service],
    /// Of what is sent, the share that is read back in full.
    share: f64,
}

impl Way<'_> {
    /// One that is carried out, with the usual share read back.
    fn acting<'a>(
        app: &'a App,
        face: &'a Face,
        (from, to): (&'a RepositoryName, &'a RepositoryName),
        services: &'a [&'a Service],
    ) -> Way<'a> {
        let (setup, memory, runner) = (&app.setup, &app.memory, Some(&app.runner));
        Way { setup, memory, runner, face, from, to, services, share: SHARE }
    }

    /// Replicates everything that is missing, newest first. A replica that should be there and is not, or cannot be read, is told,
    /// and sent again.
    pub(crate) async fn go(&self, opened: &mut Opened, cancel: &CancellationToken) -> Outcome {
        let (first, met) = self.once(opened, cancel).await?;
        if met == 0 {
            return Ok(first);
        }
        // What was found to be damaged on the way is known to be bad now, and therefore missing.
        let (second, _) = self.once(opened, cancel).await?;
        Ok(super::backup::worse(first, second))
    }

    /// The same once; how many copies were found to be damaged on the way.
    async fn once(&self, opened: &mut Opened, cancel: &CancellationToken) -> Outcome<(Exit, usize)> {
        let watch = self.face.watch(&format!("{} to {}", self.from, self.to));
        let cx = super::context(cancel, watch.sink());
        let (from, to) =
            (self.setup.repository(self.from.as_str())?, self.setup.repository(self.to.as_str())?);
        let (from_repository, to_repository) = (opened.get(&cx, from).await?, opened.get(&cx, to).await?);
        let places = (reference(from, &from_repository), reference(to, &to_repository));
        if places.0.id == places.1.id {
            return Err(Failure::new(
                Exit::Refused,
                format!(
                    "`{}` and `{}` are one repository: a copy in itself is no second copy",
                    self.from, self.to
                ),
            ));
        }
        // What receipts say is there is looked for: before it is listed and after, so that what comes or goes meanwhile is no loss.
        let before = self.memory.points_in(&places.1.id).await?;
        cx.phase("list");
        let began = Timestamp::now();
        let there = listed(&cx, &to_repository).await.map_err(|error| {
            let mut failure = Failure::from(error);
            failure.chain.insert(0, format!("see what is in {}", self.to));
            failure
        })?;
        let mut known = Vec::new();
        for service in self.services {
            for source in &service.sources {
                known.extend(points(self.memory, &service.name, &source.name, None).await?);
            }
        }
        let gone: Vec<&RecoveryPoint> = unlisted(&before, &known, &places.1.id, &there);
        let (mut worst, mut met) = (Exit::Ok, 0);
        let told: Vec<_> =
            gone.iter().filter(|point| is_believed(point)).map(|point| (*point, lost(point))).collect();
        if self.blame(&told, &places.1, began).await? > 0 {
            worst = Exit::Findings;
        }
        let gone: BTreeSet<CopyId> = gone.into_iter().map(|point| point.copy.clone()).collect();
        let missing = missing(&known, &places.0.id, &places.1.id, &gone);
        self.tell(&missing)?;
        let in_there = self.memory.points_in(&places.1.id).await?;
        let distrust = !told.is_empty() || is_damaged(&in_there, &places.1.id);
        if distrust {
            self.face.say(format!(
                "note: {} is known to be damaged: what is relied on in it is read, and sent again where it must be",
                self.to
            ))?;
        }
        let Some(runner) = self.runner.filter(|_| !missing.wanted.is_empty()) else {
            return Ok((worst, met));
        };
        let seed = super::drill::random()?;
        for together in missing.wanted.chunks(TOGETHER) {
            let mut job = ReplicateJob {
                from: (from_repository.clone(), places.0.clone()),
                to: (to_repository.clone(), places.1.clone()),
                points: Vec::new(),
                read_back: ReadBack { share: self.share, seed, distrust },
            };
            for point in together {
                let identity = self.memory.source_identity(point.sequence).await?;
                job.points.push(((*point).clone(), identity));
            }
            cx.phase("copy");
            let ended = runner.replicate(&cx, job).await.map_err(|error| run_failure(&error))?;
            // Of each once: what is sealed here is not believed when the next ones are sent.
            let now_there = self.memory.points_in(&places.1.id).await?;
            let is_of_these = |point: &&RecoveryPoint| {
                self.services.iter().any(|service| service.name == point.service)
                    && ended.damaged.contains(&point.copy)
            };
            let damaged = now_there.iter().filter(is_of_these).filter(|point| is_believed(point));
            let damaged: Vec<_> = damaged.map(|point| (point, unreadable(point))).collect();
            let found = self.blame(&damaged, &places.1, began).await?;
            if found > 0 {
                worst = super::backup::worse(worst, Exit::Findings);
                met += found;
            }
            let mut failed = None;
            for one in ended.sealed {
                self.report(&one)?;
                failed = failed.or(one.error);
            }
            if let Some(error) = failed {
                let is_of_one = error.code.is_some_and(FindingCode::is_of_stored_bytes);
                let mut failure = Failure::from(error);
                failure.chain.insert(0, format!("replicate from {} to {}", self.from, self.to));
                if together.len() == missing.wanted.len() {
                    return Err(failure);
                }
                // One copy is at fault, and keeps no other from being safe; where the way itself is closed, the rest would wait as long.
                if !is_of_one {
                    return Err(failure);
                }
                self.face.fail(
                    self.to.as_str(),
                    &self.face.paint(Tone::Bad, "✗ NOT REPLICATED"),
                    &failure,
                )?;
                worst = super::backup::worse(failure.exit, worst);
            }
        }
        Ok((worst, met))
    }

    /// Tells of copies that are not what their receipts say, and seals that, so that nothing relies on them; how many those are.
    async fn blame(
        &self,
        bad: &[(&RecoveryPoint, Finding)],
        place: &RepositoryRef,
        began: Timestamp,
    ) -> Outcome<usize> {
        for (point, finding) in bad {
            if self.face.json {
                self.face.json(&serde_json::json!({
                    "schema": "seaworthy.replicate/1", "event": "finding", "repository": self.to, "copy": point.copy,
                    "finding": finding,
                }))?;
                continue;
            }
            self.face.data(format!(
                "{} {}/{} as of {} is NOT in {} any more: {}",
                self.face.paint(Tone::Bad, "✗"),
                point.service,
                point.source,
                instant(point.point),
                self.to,
                printable(&finding.to_string())
            ))?;
        }
        if !bad.is_empty() {
            self.face.say(format!(
                "hint: whatever has removed or damaged it may have met others: seaworthy check --read-data {}",
                self.to
            ))?;
        }
        let Some(runner) = self.runner else { return Ok(bad.len()) };
        let run = run_id(ActKind::Verify, began)
            .map_err(|error| Failure::new(Exit::Unexpected, format!("get random bytes: {error}")))?;
        let executor = wiring::executor();
        let seen =
            Checked { run, place: place.clone(), started: began, finished: Timestamp::now(), executor };
        if let Some(act) = refuted(bad, seen) {
            let receipt = runner
                .notary()
                .commit(&Act::Verify(Box::new(act)), Timestamp::now())
                .await
                .map_err(|error| run_failure(&seaworthy_engine::RunError::from(error)))?;
            self.face.say(format!("    receipt {}", receipt.digest))?;
        }
        Ok(bad.len())
    }

    /// What is to be done, and what is left alone.
    fn tell(&self, missing: &Missing<'_>) -> Outcome<()> {
        for bad in &missing.bad {
            self.face.say(format!(
                "note: copy {} of {}/{} is known to be bad and is not replicated",
                short(bad),
                bad.service,
                bad.source
            ))?;
        }
        if !missing.let_go.is_empty() {
            self.face.say(format!(
                "note: {} of {} that retention has let go in {} {} not sent there again",
                count(missing.let_go.len(), "copy"),
                self.from,
                self.to,
                if missing.let_go.len() == 1 { "is" } else { "are" }
            ))?;
        }
        if missing.wanted.is_empty() {
            let beside = if missing.let_go.is_empty() { "" } else { " and was not let go there" };
            let words = format!(
                "{} {} has everything that is in {}{beside}",
                self.face.paint(Tone::Good, "✓"),
                self.to,
                self.from
            );
            return if self.face.json { Ok(()) } else { self.face.data(words) };
        }
        for ((service, source), lag) in &missing.lag {
            let behind = match lag {
                None => "has no copy yet".to_owned(),
                Some(lag) => format!("is {} behind", span(*lag)),
            };
            self.face.say(format!("{service}/{source}: {} {behind}", self.to))?;
        }
        if self.runner.is_none() {
            for point in &missing.wanted {
                self.face.data(format!(
                    "would replicate {}/{} as of {}, copy {}, from {} to {}",
                    point.service,
                    point.source,
                    instant(point.point),
                    short(point),
                    self.from,
                    self.to
                ))?;
            }
        }
        Ok(())
    }

    fn report(&self, sealed: &Sealed<Replicate>) -> Outcome<()> {
        let body = &sealed.body;
        if self.face.json {
            return self.face.json(&serde_json::json!({
                "schema": "seaworthy.replicate/1", "event": "summary", "receipt": sealed.receipt.sequence,
                "digest": sealed.receipt.digest, "replicate": body,
            }));
        }
        let name = format!("{}/{} as of {}", body.service, body.source, instant(body.point));
        let Some(copy) = &body.copy else {
            self.face.data(format!("{} {name} is NOT in {}", self.face.paint(Tone::Bad, "✗"), self.to))?;
            for finding in &body.findings {
                self.face
                    .data(format!("    {}", self.face.paint(Tone::Warn, &printable(&finding.to_string()))))?;
            }
            return self.face.say(format!("    receipt {}", sealed.receipt.digest));
        };
        let took = Duration::try_from(body.finished.duration_since(body.started)).unwrap_or_default();
        let moved = &body.moved;
        let how = if body.was_there {
            "was there already".to_owned()
        } else {
            let with =
                if moved.copies > 1 { format!(" with {} others", moved.copies - 1) } else { String::new() };
            let told = match moved.packs_attested {
                0 => String::new(),
                told => format!(" (of {told} others {} tells the right SHA-256)", self.to),
            };
            format!(
                "{} stored{with} in {}; {} of {} packs{told} and {} of {} pieces read back",
                bytes(moved.stored_bytes),
                duration(took),
                moved.packs_verified.saturating_sub(moved.packs_attested),
                moved.packs,
                moved.blobs_verified,
                moved.blobs
            )
        };
        if !self.face.is_quiet() {
            self.face.data(format!(
                "{} replicated {name} to {}: {how}; copy {}",
                self.face.paint(Tone::Good, "✓"),
                self.to,
                copy.0.get(..12).unwrap_or(&copy.0)
            ))?;
        }
        self.face.say(format!("    receipt {}", sealed.receipt.digest))
    }
}

/// Whether nothing says yet that a copy is bad, gone or going.
fn is_believed(point: &RecoveryPoint) -> bool {
    let is_going = point.mark.as_ref().is_some_and(|mark| mark.is_being_removed);
    !is_going
        && match point.standing {
            PointStanding::Unproven | PointStanding::Proven { .. } => true,
            PointStanding::Failed { .. } | PointStanding::Gone { .. } => false,
        }
}

fn short(point: &RecoveryPoint) -> &str {
    point.copy.0.get(..12).unwrap_or(&point.copy.0)
}

fn span(lag: SignedDuration) -> String {
    duration(Duration::try_from(lag).unwrap_or_default())
}

/// What a replication after a backup ends with, told and not returned: the backup itself is safe.
pub(crate) async fn after(
    app: &App,
    face: &Face,
    opened: &mut Opened,
    captured: &BTreeMap<RepositoryName, Vec<&Service>>,
    cancel: &CancellationToken,
) -> Outcome {
    let mut worst = Exit::Ok;
    for (from, services) in captured {
        let mut ways: BTreeMap<&RepositoryName, Vec<&Service>> = BTreeMap::new();
        for service in services {
            for to in service.repositories.iter().filter(|to| *to != from) {
                ways.entry(to).or_default().push(service);
            }
        }
        for (to, services) in ways {
            let way = Way::acting(app, face, (from, to), &services);
            let exit = match way.go(opened, cancel).await {
                Ok(exit) => exit,
                Err(failure) => {
                    let subject = format!("{from} to {to}");
                    face.fail(&subject, &face.paint(Tone::Bad, "✗ NOT REPLICATED"), &failure)?;
                    failure.exit
                }
            };
            worst = super::backup::worse(worst, exit);
            if cancel.is_cancelled() {
                return Ok(Exit::Interrupted);
            }
        }
    }
    Ok(worst)
}
