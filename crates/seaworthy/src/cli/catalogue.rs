//! `catalogue rebuild`: the catalogue is a cache plus the ledger; this makes both anew.

use std::io::BufReader;

use seaworthy_catalog::{Catalog as _, import};
use seaworthy_model::signature::TrustedKeys;
use tokio_util::sync::CancellationToken;

use crate::cli::args::{Catalogue, CatalogueAction, Cli};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::memory::Memory;
use crate::output::Face;
use crate::setup;
use crate::state::read_public_key;

/// Rebuilds.
pub(crate) async fn run(
    cli: &Cli,
    face: &Face,
    arguments: &Catalogue,
    _cancel: CancellationToken,
) -> Outcome {
    let state = setup::bare_state(cli, face)?;
    let CatalogueAction::Rebuild { receipts } = &arguments.action;
    if cli.global.dry_run {
        face.say(format!("would rebuild {}", state.catalogue().display()))?;
        return Ok(Exit::Ok);
    }
    state.open()?;
    let memory = Memory::open(&state).await?;
    if let Some(file) = receipts {
        let beside = file.with_file_name("signing.pub");
        let key = read_public_key(&if beside.is_file() { beside } else { state.public_key_path() })?;
        let opened = std::fs::File::open(file).map_err(|error| {
            Failure::because(Exit::NotFound, format!("read `{}`", file.display()), &error)
        })?;
        let report = import(memory.catalogue(), &mut BufReader::new(opened), &TrustedKeys::of([key]), None)
            .await
            .map_err(|error| Failure::because(Exit::Findings, "take over the exported receipts", &error))?;
        face.say(format!("verified {} receipts", report.verified))?;
    }
    memory
        .catalogue()
        .rebuild()
        .await
        .map_err(|error| Failure::because(Exit::Unexpected, "rebuild the catalogue", &error))?;
    let derived = memory
        .catalogue()
        .derived()
        .await
        .map_err(|error| Failure::because(Exit::Unexpected, "read the catalogue", &error))?;
    let lines = derived.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
    face.say(format!(
        "rebuilt {}: {} receipts, {lines} derived rows",
        state.catalogue().display(),
        memory.receipts().await?.len()
    ))?;
    Ok(Exit::Ok)
}
