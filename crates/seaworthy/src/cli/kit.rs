//! `kit`: a recovery kit on one page. Reads the repository, the ledger and the configuration; writes one file.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use seaworthy_catalog::OpenMode;
use seaworthy_engine::store::SnapshotReader;
use seaworthy_interface::{CopyReader, Cx};
use seaworthy_model::id::{KeyFileId, RepositoryId};
use seaworthy_model::point::{PointStanding, RecoveryPoint};
use seaworthy_model::receipt::{Act, Outcome as Ended, Receipt};
use seaworthy_model::remote::Provider;
use seaworthy_model::secret::{SecretRef, SecretRefError};
use seaworthy_model::service::{Inventory, RepositorySpec, Service, in_recovery_order};
use seaworthy_model::source::SourceSpec;
use seaworthy_repository::{Repository, RepositoryError};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::cli::args::{self, Cli};
use crate::cli::keys::one;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::memory::Memory;
use crate::output::{Face, count};
use crate::render::kit::{CopyPart, Kit, Password, Restic, ServicePart, SourcePart, markdown, page, text};
use crate::setup::{self, Setup};
use crate::state::absolute;
use crate::stock;
use crate::wiring;

/// How a kit is printed, by the end of its file's name.
fn printer(path: &Path) -> Outcome<fn(&Kit) -> String> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("html" | "htm") => Ok(page),
        Some("md") => Ok(markdown),
        Some("txt") => Ok(text),
        _ => Err(Failure::new(
            Exit::Usage,
            format!("`{}` ends in none of .html, .md and .txt", path.display()),
        )
        .hint("the end of its name says how it is printed: --output kit.html")),
    }
}

/// Writes a kit.
pub(crate) async fn run(cli: &Cli, face: &Face, arguments: &args::Kit, cancel: CancellationToken) -> Outcome {
    let cx = super::silent(&cancel);
    let print = printer(&arguments.output)?;
    let setup = setup::load(cli, face)?;
    let spec = one(&setup, arguments.repository.as_deref())?;
    let output = absolute(&arguments.output)?;
    apart(setup.inventory(), &output)?;
    if cli.global.dry_run {
        face.say(format!(
            "would write a recovery kit of repository `{}` to {}",
            spec.name,
            output.display()
        ))?;
        return Ok(Exit::Ok);
    }
    let kit = gather(&setup, spec, arguments, &cx).await?;
    write_new(&output, print(&kit).as_bytes())?;
    let sources: Vec<&SourcePart> = kit.services.iter().flat_map(|service| &service.sources).collect();
    let lacking = sources.iter().filter(|source| source.copy.is_none()).count();
    face.say(format!(
        "wrote {} (mode 0600): {} of {} have a copy in repository `{}`",
        output.display(),
        sources.len() - lacking,
        count(sources.len(), "source"),
        spec.name
    ))?;
    face.say(match &kit.password {
        Some(_) => "IT HOLDS A PASSWORD: print it, lock it away, delete the file",
        None => "it holds no password: say on it by hand where one is; print it and keep it away from this machine",
    })?;
    if lacking > 0 {
        face.say(format!(
            "warning: {} without a copy here; next: seaworthy replicate",
            count(lacking, "source")
        ))?;
        return Ok(Exit::Findings);
    }
    Ok(Exit::Ok)
}

/// Refuses a place that is lost, or copied, together with the backups.
fn apart(inventory: &Inventory, output: &Path) -> Outcome<()> {
    let directory = output.parent().unwrap_or(Path::new("/"));
    let failed = |error: std::io::Error| {
        Failure::because(Exit::Usage, format!("look at `{}`", directory.display()), &error)
            .hint("name a file in a directory that is there")
    };
    let directory = directory.canonicalize().map_err(failed)?;
    let is_in = |place: &str| {
        let place = Path::new(place);
        directory.starts_with(place) || place.canonicalize().is_ok_and(|place| directory.starts_with(place))
    };
    let refused = |what: String| {
        Err(Failure::new(Exit::Refused, format!("`{}` lies in {what} [KY-04]", output.display()))
            .hint("write it elsewhere, print it, and keep the paper in another building"))
    };
    for spec in inventory.repositories.values() {
        if spec.remote.is_none() && is_in(&spec.location) {
            return refused(format!("repository `{}`: it would be lost with it", spec.name));
        }
    }
    for service in &inventory.services {
        for source in &service.sources {
            let SourceSpec::Files(files) = &source.spec else { continue };
            if files.paths.iter().any(|root| is_in(root)) {
                return refused(format!("what is backed up as {}/{}", service.name, source.name));
            }
        }
    }
    Ok(())
}

/// Writes a file that was not there, readable by us alone; nothing is left of it where that fails.
fn write_new(path: &Path, bytes: &[u8]) -> Outcome<()> {
    let failed = |error: std::io::Error| {
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            return Failure::new(Exit::Refused, format!("`{}` is there already", path.display()))
                .hint("a kit is never overwritten: name another file, or remove it yourself");
        }
        Failure::because(Exit::Unexpected, format!("write `{}`", path.display()), &error)
    };
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|error| match std::fs::remove_file(path) {
        Ok(()) => failed(error),
        Err(_) => failed(error).hint(format!("a part of it is left in `{}`: remove it", path.display())),
    })
}

async fn gather(setup: &Setup, spec: &RepositorySpec, arguments: &args::Kit, cx: &Cx) -> Outcome<Kit> {
    let repository = wiring::open_repository(cx, spec, None).await?;
    let id = RepositoryId(repository.id().hex());
    let password = match &arguments.with_password {
        None => None,
        Some(text) => Some(password(spec, text, &repository, cx).await?),
    };
    let (points, receipts) = if setup.state.catalogue().exists() {
        let memory = Memory::open_copy(&setup.state, OpenMode::Existing).await?;
        (memory.points_in(&id).await?, memory.receipts().await?)
    } else {
        (Vec::new(), Vec::new())
    };
    let mut services = Vec::new();
    for service in in_order(setup.inventory(), spec) {
        services.push(part(service, &repository, &points, &receipts, cx).await?);
    }
    let public_key =
        if setup.state.public_key_path().exists() { Some(setup.state.public_key()?) } else { None };
    let restic = match stock::find(arguments.restic.as_deref()) {
        Ok(program) => Some(stock::look(&program)?),
        // A kit without it is still a kit; one that was named has to be there.
        Err(failure) if arguments.restic.is_some() => return Err(failure),
        Err(_) => None,
    };
    let mut whereabouts = vec![
        ("configured as".to_owned(), spec.location.clone()),
        ("site".to_owned(), spec.site.clone()),
        ("medium".to_owned(), spec.medium.clone()),
    ];
    let account = spec.remote.as_ref().and_then(|remote| remote.storage_account.clone());
    for (name, value) in [("region", &spec.region), ("account", &spec.account), ("storage account", &account)]
    {
        whereabouts.extend(value.as_ref().map(|value| (name.to_owned(), value.clone())));
    }
    Ok(Kit {
        repository: spec.name.to_string(),
        id: id.0,
        location: for_restic(spec),
        is_directory: spec.remote.is_none(),
        whereabouts,
        access: access(spec),
        keys: spec.keys.values().cloned().collect(),
        password,
        restic: restic.map(|found| Restic { version: found.version, sha256: found.sha256 }),
        services,
        public_key,
        head: receipts.last().map(Receipt::head),
        made: Timestamp::now(),
        by: wiring::executor(),
    })
}

/// A password that is to be printed: one that opens the repository now, and nothing else.
async fn password(spec: &RepositorySpec, text: &str, repository: &Repository, cx: &Cx) -> Outcome<Password> {
    let reference: SecretRef = text.to_owned().try_into().map_err(|error: SecretRefError| {
        Failure::because(Exit::Usage, "understand --with-password", &error)
    })?;
    let secret = crate::secrets::resolve(&reference)?;
    let printed = Zeroizing::new(secret.expose_text(&reference)?.to_owned());
    if printed.chars().any(char::is_control) {
        return Err(Failure::new(
            Exit::Usage,
            format!("the password at `{reference}` holds a control character"),
        )
        .hint("nobody can type it from paper: add a key with another password, seaworthy keys add"));
    }
    let (of, control) = (spec.clone(), seaworthy_engine::store::control(cx));
    let opened = wiring::blocking(move || wiring::open_with(&of, &secret, None, &control)).await?;
    let opened = opened.map_err(|error| match error {
        RepositoryError::WrongKey { .. } => Failure::new(
            Exit::WrongKey,
            format!("the password at `{reference}` does not open repository `{}` [KY-01]", spec.name),
        )
        .hint("a kit with a wrong password is worse than none: give the one in escrow"),
        error => wiring::repository_failure("try the password", error),
    })?;
    debug_assert_eq!(opened.id(), repository.id());
    let key = KeyFileId(opened.key_id().hex());
    let entry = spec.keys.values().find(|entry| entry.id.as_ref().is_some_and(|prefix| prefix.is_of(&key)));
    Ok(Password { text: printed, entry: entry.cloned(), key })
}

/// The services whose copies are here, each after what it needs.
fn in_order<'s>(inventory: &'s Inventory, spec: &RepositorySpec) -> Vec<&'s Service> {
    let here: Vec<&Service> =
        inventory.services.iter().filter(|service| service.repositories.contains(&spec.name)).collect();
    in_recovery_order(&here)
}

async fn part(
    service: &Service,
    repository: &Repository,
    points: &[RecoveryPoint],
    receipts: &[Receipt],
    cx: &Cx,
) -> Outcome<ServicePart> {
    let mut sources = Vec::new();
    for source in &service.sources {
        let own = points.iter().filter(|point| {
            (&point.service, &point.source) == (&service.name, &source.name)
                && point.outcome == Ended::Complete
                && !matches!(point.standing, PointStanding::Gone { .. } | PointStanding::Failed { .. })
        });
        let newest = own.clone().max_by_key(|point| point.point);
        let level = |point: &RecoveryPoint| match &point.standing {
            PointStanding::Proven { level, .. } => Some(*level),
            PointStanding::Unproven | PointStanding::Failed { .. } | PointStanding::Gone { .. } => None,
        };
        let proven =
            own.filter(|point| level(point).is_some()).max_by_key(|point| (level(point), point.point));
        let chosen = proven.or(newest);
        let newer = newest.filter(|newest| chosen.is_some_and(|chosen| chosen.point < newest.point));
        let witness = match chosen {
            None => None,
            Some(point) => {
                let reader: Arc<dyn CopyReader> = Arc::new(SnapshotReader::new(cx, repository, &point.copy)?);
                let (witness, findings) = super::drill::witness(&reader, point).await;
                if let Some(finding) =
                    findings.first().filter(|_| witness.is_none() && point.witness.is_some())
                {
                    return Err(Failure::new(
                        Exit::Findings,
                        format!("the witness of copy {} cannot be read: {finding}", &point.copy.0[..12]),
                    )
                    .hint(finding.code.remedy()));
                }
                witness.map(|(witness, _)| witness)
            }
        };
        sources.push(SourcePart {
            name: source.name.to_string(),
            kind: source.spec.kind().to_owned(),
            copy: chosen.map(|point| copy(point, receipts)),
            newer: newer.map(|point| copy(point, receipts)),
            witness,
        });
    }
    Ok(ServicePart {
        name: service.name.to_string(),
        owner: printable(&service.owner),
        needs: service.depends_on.iter().map(ToString::to_string).collect(),
        rto: service.objective.rto,
        sources,
    })
}

fn copy(point: &RecoveryPoint, receipts: &[Receipt]) -> CopyPart {
    let proof = match &point.standing {
        PointStanding::Proven { level, sequence, .. } => Some((*level, *sequence)),
        PointStanding::Unproven | PointStanding::Failed { .. } | PointStanding::Gone { .. } => None,
    };
    let rto_ms = proof.and_then(|(_, sequence)| {
        let receipt = receipts.iter().find(|receipt| receipt.sequence == sequence)?;
        if let Act::Drill(drill) = &receipt.act { drill.rto.measured_ms } else { None }
    });
    CopyPart { copy: point.copy.clone(), point: point.point, bytes: point.restore_bytes, proof, rto_ms }
}

/// How restic is told where a repository lies.
pub(crate) fn for_restic(spec: &RepositorySpec) -> String {
    let Some((provider, bucket, prefix)) = Provider::of(&spec.location) else { return spec.location.clone() };
    let prefix = prefix.trim_matches('/');
    let below = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
    match provider {
        Provider::S3 => {
            let endpoint = spec.remote.as_ref().and_then(|remote| remote.endpoint.clone());
            let host = endpoint.unwrap_or_else(|| match &spec.region {
                Some(region) => format!("https://s3.{region}.amazonaws.com"),
                None => "https://s3.amazonaws.com".to_owned(),
            });
            format!("s3:{}/{bucket}{below}", host.trim_end_matches('/'))
        }
        Provider::Google => format!("gs:{bucket}:{}", if below.is_empty() { "/" } else { &below }),
        Provider::Azure => format!("azure:{bucket}:{}", if below.is_empty() { "/" } else { &below }),
    }
}

/// The variables by which restic reaches it, and what goes into each.
fn access(spec: &RepositorySpec) -> Vec<(String, String)> {
    let of = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, what)| ((*name).to_owned(), (*what).to_owned())).collect::<Vec<_>>()
    };
    match Provider::of(&spec.location).map(|(provider, ..)| provider) {
        None => Vec::new(),
        Some(Provider::S3) => of(&[
            ("AWS_ACCESS_KEY_ID", "id of an access key that may list and read the bucket"),
            ("AWS_SECRET_ACCESS_KEY", "its secret"),
        ]),
        Some(Provider::Google) => of(&[
            ("GOOGLE_PROJECT_ID", "number of the project"),
            ("GOOGLE_APPLICATION_CREDENTIALS", "path of a file with a service account's key"),
        ]),
        Some(Provider::Azure) => of(&[
            ("AZURE_ACCOUNT_NAME", "the storage account above"),
            ("AZURE_ACCOUNT_KEY", "its key, or AZURE_ACCOUNT_SAS with a signature"),
        ]),
    }
}
