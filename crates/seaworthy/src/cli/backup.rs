//! `backup`: every source of the services asked for, into the first of their repositories that takes it, and from there into the others.

use std::collections::BTreeMap;

use seaworthy_engine::act::replicate::is_damaged;
use seaworthy_engine::{Earlier, KnownPlace};
use seaworthy_interface::ErrorKind;
use seaworthy_model::finding::Severity;
use seaworthy_model::id::RepositoryName;
use seaworthy_model::point::{RecoveryPoint, to_build_upon};
use seaworthy_model::receipt::{Backup, Outcome as Ending};
use seaworthy_model::service::{RepositorySpec, Service, ServiceSource};
use tokio_util::sync::CancellationToken;

use crate::app::{self, App, Opened, reference, run_failure};
use crate::cli::args::{self, Cli};
use crate::cli::replicate;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::output::{Face, Tone, bytes, duration};
use crate::render::drill::instant;
use crate::wiring;

/// Backs up; the exit code is the worst of all runs.
pub(crate) async fn run(
    cli: &Cli,
    face: &Face,
    arguments: &args::Backup,
    cancel: CancellationToken,
) -> Outcome {
    let cx = super::silent(&cancel);
    if cli.global.dry_run {
        return plan(cli, face, arguments);
    }
    let app = App::open(cli, face, &cx).await?;
    let mut opened = Opened::new(&app.setup.state);
    let mut worst = Exit::Ok;
    let services = app.setup.services(&arguments.services)?;
    let sources: usize = services.iter().map(|service| service.sources.len()).sum();
    // What was captured into a repository, and is to be replicated into the others of its service.
    let mut captured: BTreeMap<RepositoryName, Vec<&Service>> = BTreeMap::new();
    for service in &services {
        for source in &service.sources {
            let subject = format!("{}/{}", service.name, source.name);
            let places = app.setup.repositories(service, arguments.repository.as_deref())?;
            let is_only = sources == 1 && places.len() == 1;
            // The first that takes it: a source is not read twice where once is enough.
            for spec in places {
                let result = one(&app, face, &mut opened, service, source, spec, &cancel).await;
                let is_stored = matches!(result, Ok(Exit::Ok | Exit::Incomplete));
                let exit = match result {
                    Ok(exit) => exit,
                    // Only where nothing else is to be tried: the second repository must not suffer from the first.
                    Err(failure) if is_only => return Err(failure),
                    Err(failure) => {
                        face.fail(&subject, &face.paint(Tone::Bad, "✗ FAILED"), &failure)?;
                        failure.exit
                    }
                };
                worst = worse(worst, exit);
                if cancel.is_cancelled() {
                    return Err(Failure::new(
                        Exit::Interrupted,
                        "interrupted: no copy of the source in hand was made visible",
                    ));
                }
                if is_stored {
                    let of = captured.entry(spec.name.clone()).or_default();
                    if of.last().is_none_or(|last| last.name != service.name) {
                        of.push(service);
                    }
                    break;
                }
            }
        }
    }
    if arguments.repository.is_none() && !arguments.no_replicate {
        let exit = replicate::after(&app, face, &mut opened, &captured, &cancel).await?;
        if cancel.is_cancelled() {
            return Err(Failure::new(
                Exit::Interrupted,
                "interrupted: the backup is safe; `seaworthy replicate` does the rest",
            ));
        }
        worst = worse(worst, exit);
    }
    if worst == Exit::Ok && !face.json {
        face.say(format!(
            "next: seaworthy drill{}",
            arguments.services.first().map_or_else(String::new, |name| format!(" {}", printable(name)))
        ))?;
    }
    Ok(worst)
}

/// The worse of two endings: an unexpected error before an incomplete copy, anything before none.
pub(crate) fn worse(one: Exit, other: Exit) -> Exit {
    match (one, other) {
        (Exit::Ok, other) | (Exit::Incomplete, other) if other != Exit::Ok => other,
        (one, _) => one,
    }
}

fn plan(cli: &Cli, face: &Face, arguments: &args::Backup) -> Outcome {
    let setup = crate::setup::load(cli, face)?;
    for service in setup.services(&arguments.services)? {
        let places = setup.repositories(service, arguments.repository.as_deref())?;
        let Some((first, others)) = places.split_first() else { continue };
        let others: Vec<&str> = others.iter().map(|spec| spec.name.as_str()).collect();
        let then = match others.as_slice() {
            [] => String::new(),
            _ if arguments.no_replicate => String::new(),
            others => format!(", then replicate it into {}", others.join(" and ")),
        };
        for source in &service.sources {
            face.data(format!(
                "would back up {}/{} ({}) into {}{then}",
                service.name,
                source.name,
                source.spec.kind(),
                first.name
            ))?;
        }
    }
    Ok(Exit::Ok)
}

async fn one(
    app: &App,
    face: &Face,
    opened: &mut Opened,
    service: &Service,
    source: &ServiceSource,
    spec: &RepositorySpec,
    cancel: &CancellationToken,
) -> Outcome {
    let name = format!("{}/{}", service.name, source.name);
    let watch = face.watch(&name);
    let cx = super::context(cancel, watch.sink());
    let repository = opened.get(&cx, spec).await?;
    let subject = wiring::subject(&app.setup.state, service, source)?;
    let place = reference(spec, &repository);
    let points = app::points(&app.memory, &service.name, &source.name, Some(&place.id)).await?;
    let mut earlier = earlier(&points);
    if let (Some(earlier), Some(upon)) = (&mut earlier, to_build_upon(&points).0) {
        earlier.source_identity = app.memory.source_identity(upon.sequence).await?;
    }
    let in_there = app.memory.points_in(&place.id).await?;
    let known = KnownPlace { earlier, distrust: is_damaged(&in_there, &place.id) };
    if known.distrust {
        face.say(format!(
            "note: {} is known to be damaged: what is relied on in it is read, and stored again where it must be",
            place.name
        ))?;
    }
    let sealed = app
        .runner
        .backup(&cx, &subject, &repository, place, known)
        .await
        .map_err(|error| run_failure(&error))?;
    watch.sealed(&sealed.receipt, &sealed.body.phases);
    drop(watch);
    if face.json {
        face.json(&serde_json::json!({
            "schema": "seaworthy.backup/1", "event": "summary", "receipt": sealed.receipt.sequence,
            "digest": sealed.receipt.digest, "backup": sealed.body,
        }))?;
    } else if !face.is_quiet() || sealed.error.is_some() || !is_whole(&sealed.body) {
        report(face, &name, &sealed.body, &sealed.receipt.digest.0)?;
    }
    match sealed.error {
        None if is_whole(&sealed.body) => Ok(Exit::Ok),
        None => Ok(Exit::Incomplete),
        Some(error) => {
            let is_locked = error.kind == ErrorKind::Conflict;
            let mut failure = Failure::from(error);
            if is_locked && failure.exit == Exit::Unexpected {
                failure.exit = Exit::Locked;
            }
            if failure.exit == Exit::NotFound {
                // The repository is open: it is the source that is not there, and 10 speaks of repositories.
                failure.exit = Exit::Unexpected;
                failure.hint.get_or_insert_with(|| "is it mounted, and is its path right? seaworthy config show --origin says where it is written".to_owned());
            }
            failure.chain.insert(0, format!("back up {name}: no copy was made"));
            Err(failure)
        }
    }
}

/// The copy that a new one may build upon.
pub(crate) fn earlier(points: &[RecoveryPoint]) -> Option<Earlier> {
    let (upon, newest_bad) = to_build_upon(points);
    let upon = upon?;
    Some(Earlier {
        copy: upon.copy.clone(),
        witness: upon.witness.clone()?,
        newest_bad,
        source_identity: None,
    })
}

/// Whether the copy holds what it should. An empty directory is captured in full, and is still not what anybody wants.
fn is_whole(backup: &Backup) -> bool {
    backup.outcome == Ending::Complete
        && backup.findings.iter().all(|finding| finding.code.severity() < Severity::Critical)
}

/// What happened, for people.
pub(crate) fn report(face: &Face, name: &str, backup: &Backup, digest: &str) -> Outcome<()> {
    let took =
        std::time::Duration::try_from(backup.finished.duration_since(backup.started)).unwrap_or_default();
    match (&backup.copy, backup.outcome) {
        (Some(copy), outcome) => {
            let (mark, word, tone) = match outcome {
                Ending::Complete if is_whole(backup) => ("✓", "backed up", Tone::Good),
                Ending::Complete => ("!", "backed up, IMPLAUSIBLE:", Tone::Warn),
                Ending::Incomplete | Ending::Failed => ("!", "backed up, INCOMPLETE:", Tone::Warn),
            };
            face.data(format!(
                "{} {word} {name} as of {} in {}: {} read, {} new, {} stored; copy {} in {}",
                face.paint(tone, mark),
                backup.point.map_or_else(|| "an unknown instant".to_owned(), instant),
                duration(took),
                bytes(backup.sizes.read_bytes),
                bytes(backup.sizes.added_bytes),
                bytes(backup.sizes.stored_bytes),
                copy.0.get(..12).unwrap_or(&copy.0),
                backup.repository.name,
            ))?;
        }
        (None, _) => face.data(format!("{} no copy of {name} was made", face.paint(Tone::Bad, "✗")))?,
    }
    for finding in backup.findings.iter().take(20) {
        face.data(format!("    {}", face.paint(Tone::Warn, &printable(&finding.to_string()))))?;
        if finding.code.severity() == Severity::Critical && backup.copy.is_some() {
            face.data(format!("      → {}", finding.code.remedy()))?;
        }
    }
    if backup.findings.len() > 20 {
        face.data(format!("    and {} more findings in the receipt", backup.findings.len() - 20))?;
    }
    face.say(format!("    receipt {digest}"))
}
