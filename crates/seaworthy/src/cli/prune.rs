//! `prune`: what no copy needs is taken out of repositories.

use std::collections::BTreeSet;

use jiff::Timestamp;
use seaworthy_engine::runner::run_id;
use seaworthy_model::id::RepositoryId;
use seaworthy_model::receipt::Act;
use seaworthy_model::retention::Pruned;
use seaworthy_model::service::RepositorySpec;
use seaworthy_repository::{FileKind, PruneOptions, PruneReport};
use tokio_util::sync::CancellationToken;

use crate::app::{App, Opened, reference, run_failure};
use crate::books::Books;
use crate::cli::args::{self, Cli};
use crate::cli::backup::worse;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{Face, Tone, bytes, count};
use crate::render::drill::instant;
use crate::setup::Setup;
use crate::{setup, wiring};

/// Prunes one repository after the other; the exit code is the worst of all.
pub(crate) async fn run(
    cli: &Cli,
    face: &Face,
    arguments: &args::Prune,
    cancel: CancellationToken,
) -> Outcome {
    let setup = setup::load(cli, face)?;
    let max_unused = super::check::percent(&arguments.max_unused)?;
    let options = PruneOptions { dry_run: cli.global.dry_run, max_unused, ..PruneOptions::default() };
    // A name that is none is told before anything is opened.
    chosen(&setup, arguments)?;
    if cli.global.dry_run {
        let mut opened = Opened::new(&setup.state);
        for spec in chosen(&setup, arguments)? {
            let watch = face.watch(spec.name.as_str());
            let cx = super::context(&cancel, watch.sink());
            let repository = opened.get(&cx, spec).await?;
            let report = pruned(&cx, &repository, spec, options).await?;
            drop(watch);
            tell(face, spec, &report)?;
        }
        return Ok(Exit::Ok);
    }
    let app = App::with(setup, face, &super::silent(&cancel)).await?;
    let books = Books::open(&app.memory, app.setup.state.trusted_keys()?).await?;
    let mut opened = Opened::new(&app.setup.state);
    let chosen = chosen(&app.setup, arguments)?;
    let mut worst = Exit::Ok;
    for spec in &chosen {
        let exit = match one(&app, face, &books, &mut opened, spec, options, &cancel).await {
            Ok(()) => Exit::Ok,
            Err(failure) if chosen.len() == 1 || failure.exit == Exit::Interrupted => return Err(failure),
            Err(failure) => {
                face.fail(spec.name.as_str(), &face.paint(Tone::Bad, "✗ NOT PRUNED"), &failure)?;
                failure.exit
            }
        };
        worst = worse(worst, exit);
        if cancel.is_cancelled() {
            return Err(Failure::new(Exit::Interrupted, "interrupted: the next prune ends the work"));
        }
    }
    Ok(worst)
}

fn chosen<'a>(setup: &'a Setup, arguments: &args::Prune) -> Outcome<Vec<&'a RepositorySpec>> {
    if arguments.repositories.is_empty() {
        return Ok(setup.inventory().repositories.values().collect());
    }
    arguments.repositories.iter().map(|name| setup.repository(name)).collect()
}

async fn pruned(
    cx: &seaworthy_interface::Cx,
    repository: &seaworthy_repository::Repository,
    spec: &RepositorySpec,
    options: PruneOptions,
) -> Outcome<PruneReport> {
    cx.phase("prune");
    let (repository, control) = (repository.clone(), seaworthy_engine::store::control(cx));
    let what = format!("prune repository `{}`", spec.name);
    wiring::blocking(move || {
        repository.prune(&options, &control).map_err(|error| wiring::repository_failure(&what, error))
    })
    .await
}

/// Refuses where a copy that should be there is not: its snapshot was removed by somebody else, and what it needs, which is still
/// there, would be taken for unneeded.
async fn ensure_expected(
    cx: &seaworthy_interface::Cx,
    books: &Books,
    repository: &seaworthy_repository::Repository,
    spec: &RepositorySpec,
) -> Outcome<()> {
    let id = RepositoryId(repository.id().hex());
    let (listing, control) = (repository.clone(), seaworthy_engine::store::control(cx));
    let listed = wiring::blocking(move || {
        listing
            .store()
            .list(FileKind::Snapshot, &control)
            .map_err(|error| wiring::repository_failure("list the copies", error))
    })
    .await?;
    let listed: BTreeSet<String> = listed.into_iter().map(|one| one.id.hex()).collect();
    let lacking: Vec<_> =
        books.ground().expected(&id).filter(|point| !listed.contains(&point.copy.0)).collect();
    let Some(first) = lacking.first() else { return Ok(()) };
    Err(Failure::new(
        Exit::Refused,
        format!(
            "{} that should be in repository `{}` is not listed, the first of {}/{} as of {}: what it needs may still be there, and would be taken out",
            count(lacking.len(), "copy"),
            spec.name,
            first.service,
            first.source,
            instant(first.point)
        ),
    )
    .hint("find out who removed them; once they are given up: seaworthy catalogue rebuild, then prune again"))
}

async fn one(
    app: &App,
    face: &Face,
    books: &Books,
    opened: &mut Opened,
    spec: &RepositorySpec,
    options: PruneOptions,
    cancel: &CancellationToken,
) -> Outcome<()> {
    let watch = face.watch(spec.name.as_str());
    let cx = super::context(cancel, watch.sink());
    let repository = opened.get(&cx, spec).await?;
    ensure_expected(&cx, books, &repository, spec).await?;
    let started = Timestamp::now();
    let report = pruned(&cx, &repository, spec, options).await?;
    drop(watch);
    let run = run_id("prune", started)
        .map_err(|error| Failure::new(Exit::Unexpected, format!("get random bytes: {error}")))?;
    let act = Act::Prune(Box::new(Pruned {
        run,
        repository: reference(spec, &repository),
        copies: report.snapshots,
        removed_bytes: report.removed.bytes + report.unlisted.bytes,
        doomed_bytes: report.doomed.bytes + report.waiting.bytes,
        repacked_bytes: report.repacked.bytes,
        unused_bytes: report.unused_bytes,
        started,
        finished: Timestamp::now(),
        executor: wiring::executor(),
    }));
    tell(face, spec, &report)?;
    let receipt = app.runner.notary().commit(&act, Timestamp::now()).await;
    let receipt = receipt.map_err(|error| run_failure(&seaworthy_engine::RunError::from(error)))?;
    face.say(format!("  receipt {}", receipt.digest))
}

fn tell(face: &Face, spec: &RepositorySpec, report: &PruneReport) -> Outcome<()> {
    let (removed, doomed) =
        (report.removed.bytes + report.unlisted.bytes, report.doomed.bytes + report.waiting.bytes);
    if face.json {
        return face.json(&serde_json::json!({
            "schema": "seaworthy.prune/1", "event": "summary", "repository": spec.name, "rehearsal": report.is_dry_run,
            "snapshots": report.snapshots, "needed_bytes": report.needed_bytes, "removed_bytes": removed, "doomed_bytes": doomed,
            "repacked_bytes": report.repacked.bytes, "unused_bytes": report.unused_bytes, "absent_packs": report.absent,
            "unlisted_young_bytes": report.unlisted_young.bytes, "spoilt_copies": report.spoilt,
        }));
    }
    let would = if report.is_dry_run { "would be " } else { "" };
    face.data(format!(
        "{} {}: {}, {} needed; {} {would}removed, {} out of the index and {would}removed a day later, {} {would}written anew",
        face.paint(Tone::Good, "✓"),
        spec.name,
        count(usize::try_from(report.snapshots).unwrap_or(usize::MAX), "snapshot"),
        bytes(report.needed_bytes),
        bytes(removed),
        bytes(doomed),
        bytes(report.repacked.bytes),
    ))?;
    if report.unused_bytes > 0 {
        face.say(format!(
            "  {} that nobody needs stay, in packs that others need",
            bytes(report.unused_bytes)
        ))?;
    }
    if report.spoilt > 0 {
        face.say(format!(
            "  damaged, and not kept in place of a sound one: {} of what is needed; hint: seaworthy check {} --read-data",
            count(usize::try_from(report.spoilt).unwrap_or(usize::MAX), "copy"),
            spec.name
        ))?;
    }
    if report.unlisted_young.bytes > 0 {
        face.say(format!(
            "  {} that no index names stay for now: a backup may be writing them",
            bytes(report.unlisted_young.bytes)
        ))?;
    }
    Ok(())
}
