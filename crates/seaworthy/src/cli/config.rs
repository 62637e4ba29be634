//! `config`: check, show, describe.

use seaworthy_model::config;

use crate::cli::args::Cli;
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::output::{Face, Tone, count};
use crate::setup;

/// Reports every problem at once. Warnings exit with 4, errors with 2.
pub(crate) fn check(cli: &Cli, face: &Face) -> Outcome {
    let setup = setup::load(cli, face)?;
    let warnings = &setup.parsed.warnings;
    let inventory = setup.inventory();
    if face.json {
        let problems: Vec<_> = warnings.iter().map(|problem| serde_json::json!(problem)).collect();
        face.json(&serde_json::json!({
            "schema": "seaworthy.config-check/1", "file": setup.path, "services": inventory.services.len(),
            "repositories": inventory.repositories.len(), "warnings": problems,
        }))?;
    } else {
        if !warnings.is_empty() {
            face.data(config::render(warnings, face.colour()))?;
        }
        face.data(format!(
            "{} {}: {}, {}, {}",
            face.paint(
                if warnings.is_empty() { Tone::Good } else { Tone::Warn },
                if warnings.is_empty() { "✓" } else { "!" }
            ),
            setup.path.display(),
            count(inventory.services.len(), "service"),
            count(inventory.repositories.len(), "repository"),
            count(warnings.len(), "warning")
        ))?;
    }
    Ok(if warnings.is_empty() { Exit::Ok } else { Exit::Findings })
}

/// Prints every value in force.
pub(crate) fn show(cli: &Cli, face: &Face, origin: bool) -> Outcome {
    let setup = setup::load(cli, face)?;
    if face.json {
        let origins = origin.then(|| serde_json::json!(setup.parsed.origins));
        face.json(&serde_json::json!({ "schema": "seaworthy.config/1", "inventory": setup.inventory(), "origins": origins }))?;
    } else {
        face.data(config::show(&setup.parsed, origin).trim_end())?;
    }
    Ok(Exit::Ok)
}

/// Prints the JSON schema.
pub(crate) fn schema(face: &Face) -> Outcome {
    let schema = serde_json::to_string_pretty(&config::schema())
        .map_err(|error| crate::failure::Failure::because(Exit::Unexpected, "print the schema", &error))?;
    face.data(schema)?;
    Ok(Exit::Ok)
}
