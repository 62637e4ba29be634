//! What the verbs that act share: the configuration, the ledger, the runner, sandboxes, opened repositories.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use seaworthy_catalog::CatalogError;
use seaworthy_drivers::sandbox::process::ProcessSandboxes;
use seaworthy_engine::{Executor, Notary, NotaryError, RunError, Runner};
use seaworthy_interface::{Cx, SandboxProvider as _};
use seaworthy_model::assess::{Judged, Policy, ServiceAssessment, assess};
use seaworthy_model::id::{RepositoryId, RepositoryName, RunId, ServiceName, SourceName};
use seaworthy_model::point::RecoveryPoint;
use seaworthy_model::receipt::{Act, RepositoryRef};
use seaworthy_model::service::{RepositorySpec, Service};
use seaworthy_repository::Repository;

use crate::cli::args::Cli;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::memory::Memory;
use crate::output::Face;
use crate::setup::{self, Setup};
use crate::state::State;
use crate::wiring;

/// Everything that an acting verb works with.
pub(crate) struct App {
    /// What is promised, and where we keep what we remember.
    pub(crate) setup: Setup,
    /// The ledger and what is derived from it.
    pub(crate) memory: Memory,
    /// Carries out runs.
    pub(crate) runner: Runner,
    /// Makes sandboxes.
    pub(crate) sandboxes: ProcessSandboxes,
    /// Held while anything runs, so that whoever comes next knows whose slots are open.
    _running: File,
}

/// A failure of the notary or of what a run needs before it begins.
pub(crate) fn run_failure(error: &RunError) -> Failure {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut exit = Exit::Unexpected;
    while let Some(error) = cause {
        if let Some(CatalogError::Locked | CatalogError::Held { .. }) = error.downcast_ref::<CatalogError>() {
            exit = Exit::Locked;
        }
        cause = error.source();
    }
    let hint = if exit == Exit::Locked {
        "another seaworthy holds the ledger: wait for it to end, then run this again"
    } else {
        "without a receipt this run does not count; is the state directory full or read-only? Make room and run it again"
    };
    Failure::because(exit, "write the run into the ledger", error).hint(hint)
}

impl App {
    /// Opens the state directory and heals what a crash has left: open slots, sandboxes.
    pub(crate) async fn open(cli: &Cli, face: &Face, cx: &Cx) -> Outcome<Self> {
        let setup = setup::load(cli, face)?;
        Self::with(setup, face, cx).await
    }

    /// The same, for a configuration that was read before.
    pub(crate) async fn with(setup: Setup, face: &Face, cx: &Cx) -> Outcome<Self> {
        setup.state.open()?;
        let key = Arc::new(setup.state.signing_key()?);
        let memory = Memory::open(&setup.state).await?;
        let notary = Notary::new(memory.ledger(), key);
        let (running, alone) = running(&setup)?;
        let sandboxes = wiring::sandboxes_for(&setup.state, setup.inventory());
        if alone {
            heal(&memory, &notary, &sandboxes, face, cx).await?;
        }
        // Whether alone or not, what follows runs beside others.
        flock(&running, FlockOperation::LockShared)
            .map_err(|error| Failure::because(Exit::Unexpected, "share the state directory", &error))?;
        let executor =
            Executor { name: wiring::executor(), host: wiring::host(), program: wiring::program() };
        Ok(Self { setup, memory, runner: Runner::new(notary, executor), sandboxes, _running: running })
    }
}

/// What is claimed of each service at `now`, from the receipts sealed until `known_by`.
pub(crate) async fn assessments(
    memory: &Memory,
    services: &[&Service],
    known_by: Timestamp,
    now: Timestamp,
) -> Outcome<Vec<ServiceAssessment>> {
    let histories = memory.histories(known_by).await?;
    Ok(services
        .iter()
        .map(|service| {
            let sources = service
                .sources
                .iter()
                .map(|source| Judged { source: &source.name, repositories: &service.repositories });
            let adopted = service.adopted.iter().map(|set| Judged::from(&set.name));
            assess(&service.name, sources.chain(adopted), &Policy::from(*service), &histories, now)
        })
        .collect())
}

/// The file whose lock says that somebody runs; whether we are alone.
fn running(setup: &Setup) -> Outcome<(File, bool)> {
    let path = setup.state.directory.join("running.lock");
    let failed = |error: std::io::Error| {
        Failure::because(Exit::Unexpected, format!("lock `{}`", path.display()), &error)
    };
    let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok((file, true)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok((file, false)),
        Err(error) => Err(failed(error.into())),
    }
}

/// Ends the slots that a crash left open and removes its sandboxes. Nobody else runs while this does.
async fn heal(
    memory: &Memory,
    notary: &Notary,
    sandboxes: &ProcessSandboxes,
    face: &Face,
    cx: &Cx,
) -> Outcome<()> {
    let now = Timestamp::now();
    // All that is known, of whatever date: a slot that has ended is not open because the clock says that its end is yet to come.
    for history in memory.histories(Timestamp::MAX).await? {
        for abandoned in history.cut_off() {
            let run = abandoned.run.clone();
            notary.commit(&Act::Abandoned(abandoned), now).await.map_err(|error: NotaryError| {
                Failure::because(Exit::Unexpected, "record an abandoned run", &error)
            })?;
            face.say(format!(
                "note: {} of {}/{} was cut off; recorded as abandoned",
                run, history.service, history.source
            ))?;
        }
    }
    let live: [RunId; 0] = [];
    let removed = sandboxes.reap(cx, &live).await?;
    if removed > 0 {
        face.say(format!(
            "note: removed {removed} sandbox{} that a crash had left",
            if removed == 1 { "" } else { "es" }
        ))?;
    }
    Ok(())
}

/// Repositories opened by this run, so that each password is asked for once.
#[derive(Debug)]
pub(crate) struct Opened {
    scratch: PathBuf,
    open: BTreeMap<RepositoryName, Repository>,
}

impl Opened {
    /// None yet; what memory should not hold goes to the scratch directory.
    pub(crate) fn new(state: &State) -> Self {
        Self { scratch: wiring::staging(state), open: BTreeMap::new() }
    }

    /// The repository, opened now or before.
    pub(crate) async fn get(&mut self, cx: &Cx, spec: &RepositorySpec) -> Outcome<Repository> {
        if let Some(repository) = self.open.get(&spec.name) {
            return Ok(repository.clone());
        }
        cx.phase(format!("open repository {}", spec.name));
        let repository = wiring::open_repository(cx, spec, Some(&self.scratch)).await?;
        self.open.insert(spec.name.clone(), repository.clone());
        Ok(repository)
    }
}

/// How a receipt names a repository.
pub(crate) fn reference(spec: &RepositorySpec, repository: &Repository) -> RepositoryRef {
    RepositoryRef {
        id: RepositoryId(repository.id().hex()),
        name: spec.name.clone(),
        medium: Some(spec.medium.clone()),
        site: Some(spec.site.clone()),
    }
}

/// Points of one source in one repository.
pub(crate) async fn points(
    memory: &Memory,
    service: &ServiceName,
    source: &SourceName,
    repository: Option<&RepositoryId>,
) -> Outcome<Vec<RecoveryPoint>> {
    let mut points = memory.points(service, source).await?;
    points.retain(|point| repository.is_none_or(|id| &point.repository.id == id));
    Ok(points)
}
