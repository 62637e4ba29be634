//! Looks at what custody is judged by: key files, the files that hold passwords, mounts, and what the ledger knows of checks.
//! Reads no secret, and judges nothing: [`seaworthy_model::custody`] does.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use jiff::Timestamp;
use seaworthy_catalog::OpenMode;
use seaworthy_interface::Cx;
use seaworthy_model::custody::{CheckKnown, FileSeen, KeySeen, Sighting, Standing, judge};
use seaworthy_model::id::{KeyFileId, RepositoryId};
use seaworthy_model::receipt::{Act, KeyDeed, Receipt};
use seaworthy_model::secret::SecretRef;
use seaworthy_model::service::RepositorySpec;
use seaworthy_repository::Repository;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::memory::Memory;
use crate::secrets::file_exposure;
use crate::setup::Setup;
use crate::wiring;

/// The key files of a repository, oldest first.
pub(crate) async fn keys(cx: &Cx, spec: &RepositorySpec, repository: &Repository) -> Outcome<Vec<KeySeen>> {
    let (listing, control) = (repository.clone(), seaworthy_engine::store::control(cx));
    let what = format!("list the keys of repository `{}`", spec.name);
    wiring::blocking(move || {
        let keys = listing.keys(&control).map_err(|error| wiring::repository_failure(&what, error))?;
        Ok(keys
            .into_iter()
            .map(|key| KeySeen {
                id: KeyFileId(key.id.hex()),
                created: key.created.and_then(|time| Timestamp::from_nanosecond(time.unix_nanos()).ok()),
                made_by: format!("{}@{}", key.username, key.hostname),
                is_used: key.is_current,
            })
            .collect())
    })
    .await
}

/// Every receipt that is known here; none where nothing has run yet.
pub(crate) async fn receipts(setup: &Setup) -> Outcome<Vec<Receipt>> {
    if !setup.state.catalogue().exists() {
        return Ok(Vec::new());
    }
    Memory::open_copy(&setup.state, OpenMode::Existing).await?.receipts().await
}

/// The checks of a repository's keys, in the order of the ledger.
fn checks(receipts: &[Receipt], repository: &RepositoryId) -> Vec<CheckKnown> {
    let of = |receipt: &Receipt| {
        if let Act::Key(act) = &receipt.act
            && act.deed == KeyDeed::Checked
            && &act.repository.id == repository
        {
            let is_good = act.key.is_some() && act.findings.is_empty();
            return Some(CheckKnown {
                name: act.name.clone(),
                key: act.key.clone(),
                at: act.finished,
                is_good,
            });
        }
        // A drill in which stock restic opened the repository with a key that somebody holds has shown as much.
        let Act::Drill(drill) = &receipt.act else { return None };
        let shown = drill.independence.as_ref().filter(|_| &drill.repository.id == repository)?;
        let key = Some(shown.key.clone()?);
        Some(CheckKnown { name: shown.key_name.clone(), key, at: drill.finished, is_good: true })
    };
    receipts.iter().filter_map(of).collect()
}

/// Looks at a file that holds a secret; `None` where there is no such file here.
fn file(what: String, path: &Path, is_signing_key: bool) -> Outcome<Option<FileSeen>> {
    let failed = |error: std::io::Error| {
        Failure::because(
            Exit::Unexpected,
            format!("look at the file of {what}, `{}`", path.display()),
            &error,
        )
    };
    let exposures = match file_exposure(path) {
        Ok(exposure) => exposure.into_iter().collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let place = path.canonicalize().map_err(failed)?;
    let device = std::fs::metadata(&place).map_err(failed)?.dev();
    let path = place.display().to_string();
    Ok(Some(FileSeen { what, path, device: Some(device), exposures, is_signing_key }))
}

/// Looks at the custody of a repository, and judges it.
pub(crate) async fn look(
    cx: &Cx,
    setup: &Setup,
    spec: &RepositorySpec,
    repository: &Repository,
    receipts: &[Receipt],
) -> Outcome<Standing> {
    let mut seen = Sighting {
        keys: Some(keys(cx, spec, repository).await?),
        checks: checks(receipts, &RepositoryId(repository.id().hex())),
        ..Sighting::default()
    };
    let mut files = Vec::new();
    if let SecretRef::File(path) = &spec.password {
        files.push((format!("the password of repository {}", spec.name), path.clone()));
    }
    for key in spec.keys.values() {
        if let Some(SecretRef::File(path)) = &key.password {
            files.push((format!("the password of key {} of {}", key.name, spec.name), path.clone()));
        }
    }
    for (what, path) in files {
        seen.files.extend(file(what, Path::new(&path), false)?);
    }
    let signing = setup.state.directory.join("signing.key");
    seen.files.extend(file("the signing key".to_owned(), &signing, true)?);
    if spec.remote.is_none() {
        let failed = |error: std::io::Error| {
            Failure::because(Exit::Unexpected, format!("look at `{}`", spec.location), &error)
        };
        let place = Path::new(&spec.location).canonicalize().map_err(failed)?;
        let device = std::fs::metadata(&place).map_err(failed)?.dev();
        seen.place = Some((place.display().to_string(), Some(device)));
    }
    Ok(judge(setup.inventory(), spec, &seen, Timestamp::now()))
}
