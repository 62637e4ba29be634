//! `keys`: who can open a repository.

use seaworthy_repository::{KdfParams, KeyId};
use tokio_util::sync::CancellationToken;

use crate::cli::args::{Cli, Keys, KeysAction};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::output::Face;
use crate::secrets::resolve;
use crate::{setup, wiring};

/// Lists, adds or removes keys.
pub(crate) async fn run(cli: &Cli, face: &Face, arguments: &Keys, cancel: CancellationToken) -> Outcome {
    let setup = setup::load(cli, face)?;
    let spec = match &arguments.repository {
        Some(name) => setup.repository(name)?,
        None => {
            let mut all = setup.inventory().repositories.values();
            match (all.next(), all.next()) {
                (Some(only), None) => only,
                _ => {
                    return Err(Failure::new(Exit::Usage, "there are several repositories")
                        .hint("name one with --repository NAME"));
                }
            }
        }
    };
    let cx = super::silent(&cancel);
    let repository = wiring::open_repository(&cx, spec, None).await?;
    let control = seaworthy_engine::store::control(&cx);
    let name = spec.name.to_string();
    match &arguments.action {
        KeysAction::List => {
            let listing = repository.clone();
            let what = format!("list the keys of `{name}`");
            let keys = wiring::blocking(move || {
                listing.keys(&control).map_err(|error| wiring::repository_failure(&what, error))
            })
            .await?;
            let current = repository.key_id();
            if face.json {
                let rows: Vec<_> = keys
                    .iter()
                    .map(|key| serde_json::json!({ "id": key.id.hex(), "username": key.username, "hostname": key.hostname, "current": key.id == current }))
                    .collect();
                return face.json(&serde_json::json!({ "schema": "seaworthy.keys/1", "repository": name, "data": rows })).map(|()| Exit::Ok);
            }
            for key in keys {
                let mark = if key.id == current { "*" } else { " " };
                face.data(format!(
                    "{mark} {}  {}@{}",
                    &key.id.hex()[..16],
                    printable(&key.username),
                    printable(&key.hostname)
                ))?;
            }
            face.say("* opened the repository just now")?;
        }
        KeysAction::Add { password } => {
            let reference =
                password.clone().try_into().map_err(|error: seaworthy_model::secret::SecretRefError| {
                    Failure::because(Exit::Usage, "understand --password", &error)
                })?;
            if cli.global.dry_run {
                face.say(format!("would add a key to repository `{name}`"))?;
                return Ok(Exit::Ok);
            }
            let secret = resolve(&reference)?;
            let what = format!("add a key to `{name}`");
            let id = wiring::blocking(move || {
                repository
                    .add_key(secret.expose(), KdfParams::default(), &control)
                    .map_err(|error| wiring::repository_failure(&what, error))
            })
            .await?;
            face.say(format!("added key {} to repository `{name}`", &id.hex()[..16]))?;
        }
        KeysAction::Remove { id } => {
            let listing = repository.clone();
            let listing_control = control.clone();
            let what = format!("remove a key of `{name}`");
            let keys = {
                let what = what.clone();
                wiring::blocking(move || {
                    listing.keys(&listing_control).map_err(|error| wiring::repository_failure(&what, error))
                })
                .await?
            };
            let matching: Vec<KeyId> =
                keys.iter().map(|key| key.id).filter(|key| key.hex().starts_with(id.as_str())).collect();
            let [only] = matching.as_slice() else {
                return Err(Failure::new(
                    Exit::Usage,
                    format!("`{}` is the beginning of {} keys of `{name}`", printable(id), matching.len()),
                )
                .hint("seaworthy keys list"));
            };
            let only = *only;
            if cli.global.dry_run {
                face.say(format!("would remove key {} of repository `{name}`", &only.hex()[..16]))?;
                return Ok(Exit::Ok);
            }
            wiring::blocking(move || {
                repository
                    .remove_key(&only, &control)
                    .map_err(|error| wiring::repository_failure(&what, error))
            })
            .await?;
            face.say(format!("removed key {} of repository `{name}`; whoever has seen the master key can still read what it protects", &only.hex()[..16]))?;
        }
    }
    Ok(Exit::Ok)
}
