//! The one place that knows drivers by name: from what the configuration says to what the engine can call.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use seaworthy_drivers::sandbox::process::{ProcessSandboxes, Settings};
use seaworthy_drivers::source::files::FilesSource;
use seaworthy_drivers::source::postgres::adopted::{AdoptedDump, Opening};
use seaworthy_drivers::source::postgres::{PostgresSource, installation};
use seaworthy_drivers::source::sqlite::SqliteSource;
use seaworthy_drivers::store::{ENVIRONMENT, Patience, Reached, StoreRequest};
use seaworthy_engine::Subject;
use seaworthy_engine::store::driver_error;
use seaworthy_interface::{Adopted, Cx, Source};
use seaworthy_model::adopt::{AdoptedKind, AdoptedSet};
use seaworthy_model::id::ServiceName;
use seaworthy_model::remote::{Credential, RemoteSpec};
use seaworthy_model::service::{Inventory, RepositorySpec, Service, ServiceSource};
use seaworthy_model::source::SourceSpec;
use seaworthy_repository::{
    Attested, Control, InitOptions, KdfParams, KeyId, Lock, OpenOptions, Repository, RepositoryError, Store,
    open_store,
};

use secrecy::SecretString;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::secrets::{Secret, resolve};
use crate::state::State;

/// Plays the sandbox's first processes when we were started as one; `None` for every other start.
pub(crate) fn sandbox_init() -> Option<ExitCode> {
    seaworthy_syscall::sandbox::enter()
}

/// Makes sandboxes below the scratch directory.
pub(crate) fn sandboxes(state: &State) -> ProcessSandboxes {
    ProcessSandboxes::new(Settings::new(&state.scratch))
}

/// The same, showing the programs that the configuration names outside `/usr`.
pub(crate) fn sandboxes_for(state: &State, inventory: &Inventory) -> ProcessSandboxes {
    let sources = inventory.services.iter().flat_map(|service| &service.sources);
    let named: BTreeSet<PathBuf> = sources
        .filter_map(|source| match &source.spec {
            SourceSpec::Postgres(postgres) => postgres.bin_dir.as_deref(),
            SourceSpec::Sqlite(_) | SourceSpec::Files(_) => None,
        })
        .chain(
            inventory
                .services
                .iter()
                .flat_map(|service| &service.adopted)
                .filter_map(|set| set.bin_dir.as_deref()),
        )
        .flat_map(|bin_dir| installation(Path::new(bin_dir)))
        .collect();
    let mut settings = Settings::new(&state.scratch);
    settings.read_only = named.into_iter().collect();
    ProcessSandboxes::new(settings)
}

/// Makes sandboxes in which stock restic finds itself, and nothing of ours: not even this program's file.
pub(crate) fn sandboxes_apart(state: &State, restic: &Path) -> Outcome<ProcessSandboxes> {
    let own = std::env::current_exe()
        .map_err(|error| Failure::because(Exit::Unexpected, "find the file of this program", &error))?;
    let mut settings = Settings::new(&state.scratch);
    // A file of its own: what lies beside it is not shown.
    if !restic.starts_with("/usr") {
        settings.read_only.push(restic.to_path_buf());
    }
    settings.hidden.push(own);
    Ok(ProcessSandboxes::new(settings))
}

/// A source, ready to be acted upon. Reads its secret.
pub(crate) fn subject(state: &State, service: &Service, source: &ServiceSource) -> Outcome<Subject> {
    Ok(Subject {
        service: service.name.clone(),
        source: source.name.clone(),
        kind: source.spec.kind().to_owned(),
        driver: driver(state, &source.spec)?,
        paths: paths(&service.name, source),
    })
}

/// Paths recorded in snapshots: with the host they are what restic groups by and looks for a parent by.
fn paths(service: &ServiceName, source: &ServiceSource) -> Vec<String> {
    match &source.spec {
        SourceSpec::Files(files) => files.paths.clone(),
        SourceSpec::Postgres(_) | SourceSpec::Sqlite(_) => vec![format!("/{service}/{}", source.name)],
    }
}

/// The driver of a source.
pub(crate) fn driver(state: &State, spec: &SourceSpec) -> Outcome<Arc<dyn Source>> {
    Ok(match spec {
        SourceSpec::Postgres(postgres) => {
            let password = match &postgres.password {
                None => None,
                Some(reference) => Some(resolve(reference)?.expose_text(reference)?.to_owned().into()),
            };
            Arc::new(PostgresSource::new(postgres.clone(), password, search_path())?)
        }
        SourceSpec::Sqlite(sqlite) => Arc::new(SqliteSource::new(sqlite.clone(), staging(state))),
        SourceSpec::Files(files) => Arc::new(FilesSource::new(files.clone(), staging(state))?),
    })
}

/// One copy of an adopted set. Reads the secret that opens it.
pub(crate) fn adopted(set: &AdoptedSet, path: PathBuf) -> Outcome<Box<dyn Adopted>> {
    let opening = match &set.decrypt {
        None => None,
        Some(reference) => {
            Some(Opening { secret: resolve(reference)?.expose().to_vec().into(), iterations: set.iterations })
        }
    };
    Ok(match set.kind {
        AdoptedKind::PgDump => Box::new(AdoptedDump::new(set.clone(), path, search_path(), opening)),
    })
}

/// The directories of `PATH`, for drivers that look for programs.
fn search_path() -> Vec<PathBuf> {
    std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).filter(|path| path.is_absolute()).collect())
        .unwrap_or_default()
}

/// Where sources and repositories put what memory should not hold.
pub(crate) fn staging(state: &State) -> PathBuf {
    state.scratch.join("staging")
}

/// The store that a repository lies in. One that is not on this machine is asked whether it answers.
fn store(spec: &RepositorySpec, control: &Control) -> Outcome<Store> {
    if let Some(remote) = &spec.remote {
        let failed = |error| {
            repository_failure(&format!("reach repository `{}` at {}", spec.name, spec.location), error)
        };
        let (secrets, environment) = (credentials(remote)?, environment());
        let of = |patience| -> Outcome<Store> {
            let opened = seaworthy_drivers::store::open(&StoreRequest {
                location: &spec.location,
                region: spec.region.as_deref(),
                remote,
                secrets: secrets.clone(),
                environment: environment.clone(),
                patience,
            })?;
            match opened.digests {
                None => Store::new(opened.objects),
                Some(digests) => Store::attesting(
                    opened.objects,
                    Arc::new(move |path| {
                        let digests = digests.clone();
                        Box::pin(async move {
                            let (size, sha256) = digests.of(&path).await?;
                            Ok(Attested { size, sha256 })
                        })
                    }),
                ),
            }
            .map_err(failed)
        };
        of(Patience::Look)?.has_repository(control).map_err(failed)?;
        return of(Patience::Work);
    }
    open_store(Path::new(&spec.location))
        .map_err(|error| repository_failure(&format!("open the store of repository `{}`", spec.name), error))
}

/// What a store is asked with: its secrets, resolved.
pub(crate) struct Asking {
    secrets: BTreeMap<Credential, SecretString>,
    environment: BTreeMap<&'static str, SecretString>,
    remote: RemoteSpec,
    patience: Patience,
}

/// Resolves the secrets of a repository that lies in an object store.
pub(crate) fn request(spec: &RepositorySpec, patience: Patience) -> Outcome<Asking> {
    let remote = spec.remote.clone().unwrap_or_default();
    Ok(Asking { secrets: credentials(&remote)?, environment: environment(), remote, patience })
}

impl Asking {
    /// The request about the place of a repository.
    pub(crate) fn of<'a>(&'a self, spec: &'a RepositorySpec) -> StoreRequest<'a> {
        StoreRequest {
            location: &spec.location,
            region: spec.region.as_deref(),
            remote: &self.remote,
            secrets: self.secrets.clone(),
            environment: self.environment.clone(),
            patience: self.patience,
        }
    }
}

/// Where the store of a repository is asked; `None` of a directory. Looks at no secret.
pub(crate) fn reached(spec: &RepositorySpec) -> Option<Reached> {
    let request = StoreRequest {
        location: &spec.location,
        region: spec.region.as_deref(),
        remote: spec.remote.as_ref()?,
        secrets: BTreeMap::new(),
        environment: environment(),
        patience: Patience::Look,
    };
    Some(request.reached())
}

fn credentials(remote: &RemoteSpec) -> Outcome<BTreeMap<Credential, SecretString>> {
    let mut secrets = BTreeMap::new();
    for (credential, reference) in &remote.credentials {
        secrets.insert(*credential, resolve(reference)?.expose_text(reference)?.to_owned().into());
    }
    Ok(secrets)
}

/// The variables by which object stores are commonly reached, where they are set.
fn environment() -> BTreeMap<&'static str, SecretString> {
    let set = |name: &&'static str| Some((*name, std::env::var(name).ok()?.into()));
    ENVIRONMENT.iter().filter_map(set).collect()
}

/// Opens a repository. Blocks; call it from a thread that may.
pub(crate) fn open(
    spec: &RepositorySpec,
    scratch: Option<PathBuf>,
    control: &Control,
) -> Outcome<Repository> {
    let secret = resolve(&spec.password)?;
    let options = OpenOptions { scratch, ..OpenOptions::default() };
    Repository::open(&store(spec, control)?, secret.expose(), &options, control).map_err(|error| {
        repository_failure(&format!("open repository `{}` at {}", spec.name, spec.location), error)
    })
}

/// Opens a repository with another password than the configured one; tries the key of this id first. Blocks.
pub(crate) fn open_with(
    spec: &RepositorySpec,
    secret: &Secret,
    key_hint: Option<KeyId>,
    control: &Control,
) -> Outcome<Result<Repository, RepositoryError>> {
    let options = OpenOptions { key_hint, ..OpenOptions::default() };
    Ok(Repository::open(&store(spec, control)?, secret.expose(), &options, control))
}

/// Makes a repository, or finishes one that an earlier start of this had begun. Blocks.
pub(crate) fn init(spec: &RepositorySpec, secret: &Secret, control: &Control) -> Outcome<Repository> {
    make(spec, secret, &InitOptions::default(), control)
}

/// Makes a repository whose password is hashed with `kdf`. Blocks.
pub(crate) fn init_with(spec: &RepositorySpec, secret: &Secret, kdf: KdfParams) -> Outcome<Repository> {
    make(spec, secret, &InitOptions { kdf, ..InitOptions::default() }, &Control::new())
}

fn make(
    spec: &RepositorySpec,
    secret: &Secret,
    options: &InitOptions,
    control: &Control,
) -> Outcome<Repository> {
    Repository::init(&store(spec, control)?, secret.expose(), options, control).map_err(|error| {
        // There is no config to open yet: the keys are those of an `init` that was cut off.
        let is_unfinished = matches!(error, RepositoryError::WrongKey { .. });
        let failure =
            repository_failure(&format!("make repository `{}` at {}", spec.name, spec.location), error);
        if is_unfinished {
            failure.hint(
                "an earlier init was cut off here: there is a key, and neither a config nor data. Give the password that it \
                 was begun with; or remove that directory, in which nothing is stored, and run init again",
            )
        } else {
            failure
        }
    })
}

/// A failure of a repository with the exit code that it stands for.
pub(crate) fn repository_failure(what: &str, error: RepositoryError) -> Failure {
    let exit = match &error {
        RepositoryError::NotFound { .. } => Some(Exit::NotFound),
        RepositoryError::Locked { .. } => Some(Exit::Locked),
        RepositoryError::WrongKey { .. } => Some(Exit::WrongKey),
        RepositoryError::Refused { .. } => Some(Exit::Refused),
        _ => None,
    };
    let failure = Failure::from(driver_error(what, error));
    Failure { exit: exit.unwrap_or(failure.exit), ..failure }
}

/// Runs blocking work of the face on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Failure::because(Exit::Unexpected, "carry out blocking work", &error))?
}

/// Lets a lock go. What it protected is done and sealed: a file that cannot be removed, for want of the right or of an answer, is
/// taken for dead by whoever comes next, and is no reason to call the work failed.
pub(crate) async fn unlock(lock: Lock) -> Outcome<()> {
    blocking(move || {
        lock.release().ok();
        Ok(())
    })
    .await
}

/// Opens a repository without blocking the runtime.
///
/// `scratch` is where lists go that memory should not hold; without one, memory holds them.
pub(crate) async fn open_repository(
    cx: &Cx,
    spec: &RepositorySpec,
    scratch: Option<&Path>,
) -> Outcome<Repository> {
    let (spec, scratch) = (spec.clone(), scratch.map(Path::to_path_buf));
    let control = seaworthy_engine::store::control(cx);
    blocking(move || open(&spec, scratch, &control)).await
}

/// Name of this host, as recorded in copies.
pub(crate) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Who runs this: `user@host`.
pub(crate) fn executor() -> String {
    let user = std::env::var("USER")
        .or_else(|_| std::env::var("LOGNAME"))
        .unwrap_or_else(|_| format!("uid {}", rustix::process::geteuid().as_raw()));
    format!("{user}@{}", host())
}

/// This program and its version.
pub(crate) fn program() -> String {
    format!("seaworthy {}", env!("CARGO_PKG_VERSION"))
}

/// An absolute path below which a repository of the first run is made.
pub(crate) fn default_repository(state: &State) -> PathBuf {
    state.directory.join("repository")
}
