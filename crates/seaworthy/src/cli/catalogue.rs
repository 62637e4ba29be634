//! `catalogue rebuild`: the catalogue is a cache plus the ledger; this makes both anew, from receipts and from what the
//! repositories hold. Whatever it learns there it seals in receipts, so that every later claim can be traced to them.

use std::collections::BTreeSet;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use seaworthy_catalog::{Catalog as _, OpenMode, import};
use seaworthy_engine::Notary;
use seaworthy_engine::act::survey::{Survey, survey};
use seaworthy_interface::Cx;
use seaworthy_model::id::CopyId;
use seaworthy_model::point::RecoveryPoint;
use seaworthy_model::receipt::{Act, Found, Outcome as Ending};
use seaworthy_model::service::RepositorySpec;
use seaworthy_model::signature::{PublicKey, TrustedKeys};
use seaworthy_repository::{LockKind, Repository};
use tokio_util::sync::CancellationToken;

use crate::app::{App, Opened, reference, run_failure};
use crate::cli::args::{Catalogue, CatalogueAction, Cli};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::memory::Memory;
use crate::output::{Face, Tone, count};
use crate::render::drill::instant;
use crate::setup::{self, Setup};
use crate::state::{State, read_public_key};
use crate::wiring;

/// Rebuilds.
pub(crate) async fn run(cli: &Cli, face: &Face, arguments: &Catalogue, cancel: CancellationToken) -> Outcome {
    let CatalogueAction::Rebuild { receipts, key, ledger_only } = &arguments.action;
    let setup = if *ledger_only { None } else { Some(setup::load(cli, face)?) };
    let state = match &setup {
        Some(setup) => setup.state.clone(),
        None => setup::bare_state(cli, face)?,
    };
    let memory = if cli.global.dry_run {
        Memory::open_copy(&state, OpenMode::OrCreate).await?
    } else {
        state.open()?;
        Memory::open(&state).await?
    };
    let ledger = from_ledger(face, &state, &memory, receipts.as_deref(), key, cli.global.dry_run).await?;
    let rebuilt = if cli.global.dry_run { "would rebuild" } else { "rebuilt" };
    face.say(format!("{rebuilt} {}: {ledger} receipts", state.catalogue().display()))?;
    let Some(setup) = setup else { return Ok(Exit::Ok) };

    let mut trusted = TrustedKeys::default();
    for path in key {
        trusted.trust(read_public_key(path)?);
    }
    for receipt in memory.receipts().await? {
        if let Act::KeyChange(change) = &receipt.act
            && let Ok(key) = PublicKey::from_pem(&change.public_key)
        {
            trusted.trust(key);
        }
    }
    if cli.global.dry_run {
        if state.public_key_path().exists() {
            trusted.trust(state.public_key()?);
        }
        let surveyor = Surveyor { face, setup: &setup, memory: &memory, notary: None, trusted };
        return surveyor.every_repository(&cancel).await;
    }
    let app = App::with(setup, face, &super::silent(&cancel)).await?;
    trusted.trust(app.setup.state.public_key()?);
    let notary = Some(app.runner.notary());
    Surveyor { face, setup: &app.setup, memory: &app.memory, notary, trusted }.every_repository(&cancel).await
}

/// Takes over exported receipts and derives anew what follows from the ledger; how many receipts it holds.
async fn from_ledger(
    face: &Face,
    state: &State,
    memory: &Memory,
    exported: Option<&Path>,
    named: &[PathBuf],
    is_rehearsal: bool,
) -> Outcome<usize> {
    let mut trusted = state.trusted_keys()?;
    for path in named {
        let key = read_public_key(path)?;
        if !is_rehearsal {
            // Whoever names a key vouches for it: what it has signed counts here from now on.
            state.trust(&key)?;
        }
        trusted.trust(key);
    }
    if let Some(file) = exported {
        let beside = file.with_file_name("signing.pub");
        trusted.trust(read_public_key(&if beside.is_file() { beside } else { state.public_key_path() })?);
        let opened = std::fs::File::open(file).map_err(|error| {
            Failure::because(Exit::NotFound, format!("read `{}`", file.display()), &error)
        })?;
        let report = import(memory.catalogue(), &mut BufReader::new(opened), &trusted, None)
            .await
            .map_err(|error| {
                let failure = Failure::because(Exit::Findings, "take over the exported receipts", &error);
                if matches!(error, seaworthy_catalog::CatalogError::Diverged(_)) {
                    failure.hint(format!(
                        "the ledger here was begun without that export: to go on with the export, move {} away and run this again",
                        state.catalogue().display()
                    ))
                } else {
                    failure
                }
            })?;
        for key in report.keys.iter().filter(|_| !is_rehearsal) {
            // So does whoever takes a ledger over.
            state.trust(key)?;
        }
        face.say(format!("verified {} receipts", report.verified))?;
    }
    memory
        .catalogue()
        .rebuild()
        .await
        .map_err(|error| Failure::because(Exit::Unexpected, "rebuild the catalogue", &error))?;
    Ok(memory.receipts().await?.len())
}

/// What is needed to look through repositories; without a notary it is a rehearsal.
struct Surveyor<'a> {
    face: &'a Face,
    setup: &'a Setup,
    memory: &'a Memory,
    notary: Option<&'a Notary>,
    trusted: TrustedKeys,
}

impl Surveyor<'_> {
    /// Every repository of the configuration; one that cannot be looked through does not keep the others from it.
    async fn every_repository(&self, cancel: &CancellationToken) -> Outcome {
        // Two at once could each take what the other is about to mark gone for what is left.
        let _alone = match self.notary {
            Some(_) => Some(alone(&self.setup.state)?),
            None => None,
        };
        let mut opened = Opened::new(&self.setup.state);
        let mut worst = Exit::Ok;
        for spec in self.setup.inventory().repositories.values() {
            let watch = self.face.watch(&format!("repository {}", spec.name));
            let cx = super::context(cancel, watch.sink());
            let exit = match self.one(&cx, &mut opened, spec).await {
                Ok(exit) => exit,
                Err(failure) if failure.exit == Exit::Interrupted => return Err(failure),
                Err(failure) => {
                    let mark = self.face.paint(Tone::Bad, "✗ NOT LOOKED THROUGH");
                    self.face.fail(&format!("repository {}", spec.name), &mark, &failure)?;
                    failure.exit
                }
            };
            drop(watch);
            // A repository that could not be looked through outweighs one in which something was found.
            if worst == Exit::Ok || (worst == Exit::Findings && exit != Exit::Ok) {
                worst = exit;
            }
        }
        Ok(worst)
    }

    async fn one(&self, cx: &Cx, opened: &mut Opened, spec: &RepositorySpec) -> Outcome {
        let repository = opened.get(cx, spec).await?;
        // So that a prune waits. A rehearsal leaves nothing in the repository, not even a lock.
        let lock = match self.notary {
            None => None,
            Some(_) => {
                let (locked, control) = (repository.clone(), seaworthy_engine::store::control(cx));
                let what = format!("lock repository `{}` for reading", spec.name);
                let locking = move || {
                    locked
                        .lock(LockKind::Shared, &control)
                        .map_err(|error| wiring::repository_failure(&what, error))
                };
                Some(wiring::blocking(locking).await?)
            }
        };
        let result = self.locked(cx, &repository, spec).await;
        if let Some(lock) = lock {
            wiring::unlock(lock).await?;
        }
        result
    }

    async fn locked(&self, cx: &Cx, repository: &Repository, spec: &RepositorySpec) -> Outcome {
        let place = reference(spec, repository);
        // Before the snapshots are listed, so that a backup that ends meanwhile is not taken for gone.
        let before = self.memory.points_in(&place.id).await?;
        let known: BTreeSet<CopyId> =
            before.iter().filter(|point| !point.is_gone()).map(|point| point.copy.clone()).collect();
        let executor = wiring::executor();
        cx.phase("list");
        let mut surveyed = survey(cx, repository, &place, known, &self.trusted, &executor).await?;
        // And after it, so that a backup that has ended meanwhile is not entered as found.
        let after = self.memory.points_in(&place.id).await?;
        surveyed
            .found
            .retain(|found| !after.iter().any(|point| point.copy == found.copy && !point.is_gone()));
        for found in &surveyed.found {
            self.seal(Act::Found(Box::new(found.clone()))).await?;
        }
        let gone = surveyed.gone(&place, &before, &self.memory.every_point().await?, &executor);
        for gone in &gone {
            self.seal(Act::Gone(Box::new(gone.clone()))).await?;
        }
        let is_gone =
            |point: &&RecoveryPoint| gone.iter().any(|gone| gone.copy == point.copy && !point.is_gone());
        let gone: Vec<&RecoveryPoint> = before.iter().filter(is_gone).collect();
        self.report(spec, &surveyed, &gone)?;
        Ok(if surveyed.findings.is_empty() { Exit::Ok } else { Exit::Findings })
    }

    async fn seal(&self, act: Act) -> Outcome<()> {
        if let Some(notary) = self.notary {
            notary
                .commit(&act, Timestamp::now())
                .await
                .map_err(|error| run_failure(&seaworthy_engine::RunError::from(error)))?;
        }
        Ok(())
    }

    fn report(&self, spec: &RepositorySpec, surveyed: &Survey, gone: &[&RecoveryPoint]) -> Outcome<()> {
        let face = self.face;
        if face.json {
            return face.json(&serde_json::json!({
                "schema": "seaworthy.rebuild/1", "event": "summary", "repository": spec.name, "rehearsal": self.notary.is_none(),
                "snapshots": surveyed.present.len(), "found": surveyed.found, "gone": gone, "foreign": surveyed.foreign,
                "unknown_keys": surveyed.strangers, "findings": surveyed.findings,
            }));
        }
        let (entered, marked) = match self.notary {
            Some(_) => ("entered", "marked gone"),
            None => ("would be entered", "would be marked gone"),
        };
        face.data(format!(
            "repository {}: {}; {} {entered}, {} {marked}, {} of other programs left alone",
            spec.name,
            count(surveyed.present.len(), "snapshot"),
            surveyed.found.len(),
            gone.len(),
            surveyed.foreign,
        ))?;
        for found in &surveyed.found {
            face.data(format!("  {entered}: {}", line(self.setup, found)))?;
        }
        for point in gone {
            face.data(format!(
                "  {marked}: {}/{} as of {}, copy {}",
                point.service,
                point.source,
                instant(point.point),
                short(&point.copy)
            ))?;
        }
        for finding in &surveyed.findings {
            face.data(format!("  {}", face.paint(Tone::Warn, &printable(&finding.to_string()))))?;
        }
        for (key, copies) in &surveyed.strangers {
            face.say(format!(
                "note: {} of these signed by {}, which is not known here: they can be restored, and a drill has nothing to compare with",
                count(usize::try_from(*copies).unwrap_or(usize::MAX), "copy"),
                key.0
            ))?;
            face.say("hint: name its public key (signing.pub, beside an exported ledger) with --key FILE")?;
        }
        Ok(())
    }
}

/// The lock of whoever looks through repositories with this state directory.
fn alone(state: &State) -> Outcome<std::fs::File> {
    let path = state.directory.join("rebuild.lock");
    let what = format!("lock `{}`", path.display());
    let file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(|error| Failure::because(Exit::Unexpected, &what, &error))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(Failure::new(Exit::Locked, "another `catalogue rebuild` is looking through the repositories")
                .hint("wait for it to end, then run this again"))
        }
        Err(error) => Err(Failure::because(Exit::Unexpected, &what, &std::io::Error::from(error))),
    }
}

fn short(copy: &CopyId) -> &str {
    copy.0.get(..12).unwrap_or(&copy.0)
}

fn line(setup: &Setup, found: &Found) -> String {
    let is_configured = setup
        .inventory()
        .service(&found.service)
        .is_some_and(|service| service.sources.iter().any(|source| source.name == found.source));
    let mut line = format!(
        "{}/{} as of {}, copy {}",
        found.service,
        found.source,
        instant(found.point),
        short(&found.copy)
    );
    if found.outcome != Ending::Complete {
        line.push_str(", INCOMPLETE");
    }
    if !is_configured {
        line.push_str(" (not in the configuration, which a restore needs)");
    }
    line
}
