//! `drill --independent`: the rehearsal of the day on which this program is not there. Stock restic brings the copy back, with
//! a password that this program does not use, where neither its state nor its key nor itself can be reached.

use std::path::{Path, PathBuf};

use seaworthy_engine::{Apart, Bringing, Sealed};
use seaworthy_model::custody::{Custody, KeySpec};
use seaworthy_model::id::{Digest, KeyFileId, KeyName, RepositoryId};
use seaworthy_model::receipt::{ABSENT, Drill, Independence};
use seaworthy_model::secret::{SecretRef, SecretRefError};
use seaworthy_model::service::{RepositorySpec, Service, ServiceSource};
use tokio_util::sync::CancellationToken;

use crate::app::{App, Opened, reference, run_failure};
use crate::cli::args::{Choice, DrillRun};
use crate::cli::{drill, keys};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::output::Face;
use crate::secrets::{Secret, resolve};
use crate::{stock, wiring};

/// One independent drill.
pub(super) async fn one(
    app: &App,
    face: &Face,
    opened: &mut Opened,
    service: &Service,
    source: &ServiceSource,
    arguments: &DrillRun,
    cancel: &CancellationToken,
) -> Outcome<Sealed<Drill>> {
    let spec = chosen_repository(app, service, arguments.choice.from.as_deref())?.clone();
    if spec.remote.is_some() {
        return Err(Failure::new(
            Exit::Usage,
            format!("repository `{}` is not a directory: where restic runs there is no network", spec.name),
        )
        .hint("mirror it to a disk with the provider's own tools, and configure that directory as a repository at its own site"));
    }
    let restic = stock::look(&stock::find(arguments.restic.as_deref())?)?;
    let secret = password(&spec, arguments.password.as_deref())?;
    let text = std::str::from_utf8(secret.expose()).map_err(|_| {
        Failure::new(Exit::Usage, "the password is not valid UTF-8: restic could not be given it")
    })?;

    let watch = face.watch(&format!("{}/{}", service.name, source.name));
    let cx = super::context(cancel, watch.sink());
    let choice = Choice { from: Some(spec.name.to_string()), ..arguments.choice.clone() };
    let chosen = drill::choose(&app.setup, &app.memory, &cx, opened, service, source, &choice).await?;
    watch.step(&chosen.words());
    let subject = wiring::subject(&app.setup.state, service, source)?;
    let lock = drill::lock(&cx, &chosen).await?;
    let place = reference(&chosen.spec, &chosen.repository);
    let home = service.repositories.first().and_then(|name| app.setup.inventory().repositories.get(name));
    let shown = Independence {
        program: None,
        program_digest: Some(Digest(format!("sha256:{}", restic.sha256))),
        key: None,
        key_name: None,
        custody: None,
        production_key: KeyFileId(chosen.repository.key_id().hex()),
        is_other_password: is_other(&spec, &secret)?,
        home_site: home.map(|home| home.site.clone()),
        copy_site: Some(spec.site.clone()),
        absent: Vec::new(),
        restored_files: 0,
        restored_bytes: 0,
    };
    let bringing = Bringing {
        program: restic.program.clone(),
        repository: canonical(Path::new(&spec.location))?,
        id: RepositoryId(chosen.repository.id().hex()),
        password: text.to_owned(),
        copy: chosen.point.copy.clone(),
        needed_bytes: chosen.point.restore_bytes,
        absent: ABSENT
            .iter()
            .map(|what| Ok((*what, out_of_reach(app, &spec, what)?)))
            .collect::<Outcome<_>>()?,
    };
    let stage = wiring::sandboxes_apart(&app.setup.state, &restic.program)?;
    let register = |key: &KeyFileId| -> Option<(KeyName, Custody)> {
        let entry = spec.keys.values().find(|entry| entry.id.as_ref().is_some_and(|id| id.is_of(key)))?;
        Some((entry.name.clone(), entry.custody))
    };
    let job = drill::job(app, &cx.within(drill::deadline(service)), service, source, chosen, None).await?;
    let apart = Apart { provider: &stage, bringing, shown, register: &register };
    let sealed = app
        .runner
        .drill_apart(&cx, &subject, &app.sandboxes, place, job, apart)
        .await
        .map_err(|error| run_failure(&error))?;
    watch.sealed(&sealed.receipt, &sealed.body.phases);
    wiring::unlock(lock).await?;
    Ok(sealed)
}

/// The repository that was named; else the first at another site than the service's first one, else that.
fn chosen_repository<'a>(
    app: &'a App,
    service: &Service,
    named: Option<&str>,
) -> Outcome<&'a RepositorySpec> {
    let specs = app.setup.repositories(service, named)?;
    let home = specs.first().map(|spec| spec.site.as_str());
    let away = specs.iter().find(|spec| Some(spec.site.as_str()) != home && spec.remote.is_none());
    away.or_else(|| specs.first())
        .copied()
        .ok_or_else(|| Failure::new(Exit::Usage, format!("service `{}` has no repository", service.name)))
}

/// The password that somebody else holds.
fn password(spec: &RepositorySpec, given: Option<&str>) -> Outcome<Secret> {
    if let Some(text) = given {
        let reference: SecretRef = text.to_owned().try_into().map_err(|error: SecretRefError| {
            Failure::because(Exit::Usage, "understand --password", &error)
        })?;
        return resolve(&reference);
    }
    let held: Vec<&KeySpec> = spec.keys.values().filter(|key| key.custody != Custody::Online).collect();
    let readable: Vec<&SecretRef> = held.iter().filter_map(|key| key.password.as_ref()).collect();
    match (readable.as_slice(), held.as_slice()) {
        ([only], _) => resolve(only),
        ([], [only]) => keys::typed(spec, only),
        ([], []) => Err(Failure::new(
            Exit::Usage,
            format!("the register of repository `{}` names no key in escrow", spec.name),
        )
        .hint("seaworthy keys add --password REFERENCE, then name its holder; or give --password REFERENCE")),
        _ => {
            let names: Vec<&str> = held.iter().map(|key| key.name.as_str()).collect();
            Err(Failure::new(
                Exit::Usage,
                format!("repository `{}` has several keys in escrow: {}", spec.name, names.join(", ")),
            )
            .hint("say whose with --password REFERENCE"))
        }
    }
}

/// Whether this is another password than the one that this program uses.
fn is_other(spec: &RepositorySpec, secret: &Secret) -> Outcome<bool> {
    Ok(resolve(&spec.password)?.expose() != secret.expose())
}

fn canonical(path: &Path) -> Outcome<PathBuf> {
    path.canonicalize()
        .map_err(|error| Failure::because(Exit::NotFound, format!("find `{}`", path.display()), &error))
}

/// Where that lies which restic must not reach; `None` where it is no file, and the empty environment is what keeps it away.
fn out_of_reach(app: &App, spec: &RepositorySpec, what: &str) -> Outcome<Option<PathBuf>> {
    let state = &app.setup.state;
    Ok(match what {
        "state directory" => Some(state.directory.clone()),
        "catalogue" => Some(state.catalogue()),
        "signing key" => Some(state.directory.join("signing.key")),
        "production password" => match &spec.password {
            SecretRef::File(path) => Some(PathBuf::from(path)),
            SecretRef::Env(_) | SecretRef::Cmd(_) | SecretRef::Systemd(_) | SecretRef::Vault { .. } => None,
        },
        "this program" => {
            Some(std::env::current_exe().map_err(|error| {
                Failure::because(Exit::Unexpected, "find the file of this program", &error)
            })?)
        }
        other => {
            return Err(Failure::new(
                Exit::Unexpected,
                format!("where `{}` lies is not known", printable(other)),
            ));
        }
    })
}
