//! `receipts`: the ledger, as it is.

use crate::cli::args::{Cli, Receipts, ReceiptsAction};
use crate::cli::keys;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::memory::{self, Memory};
use crate::output::{Face, bytes};
use crate::render::drill::{instant, sentence};
use crate::{setup, state};

use seaworthy_model::receipt::{Act, Receipt};

/// One line about a receipt.
fn line(receipt: &Receipt) -> String {
    let words = match &receipt.act {
        Act::Due(due) => format!("a {} of {}/{} begins", due.act, due.service, due.source),
        Act::Backup(backup) => format!(
            "{}/{} into {}: {:?}",
            backup.service, backup.source, backup.repository.name, backup.outcome
        )
        .to_lowercase(),
        Act::Drill(drill) => sentence(drill),
        Act::Restore(restore) => format!("{}/{} to {}", restore.service, restore.source, restore.target),
        Act::Verify(verify) => format!("repository {} read back", verify.repository.name),
        Act::Abandoned(abandoned) => {
            format!("a {} of {}/{}: {}", abandoned.act, abandoned.service, abandoned.source, abandoned.reason)
        }
        Act::KeyChange(change) => format!("from here on {} signs", change.introduces.0),
        Act::Found(found) => format!(
            "a copy of {}/{} as of {} in {}, which no receipt had made",
            found.service,
            found.source,
            instant(found.point),
            found.repository.name
        ),
        Act::Replicate(replicate) => format!(
            "{}/{} as of {} from {} {} {}",
            replicate.service,
            replicate.source,
            instant(replicate.point),
            replicate.from.name,
            if replicate.copy.is_some() { "to" } else { "NOT to" },
            replicate.repository.name
        ),
        Act::Key(act) => keys::sentence(act),
        Act::Comply(comply) => crate::render::comply::sentence(comply),
        Act::Gone(gone) => format!(
            "copy {} of {}/{} is no longer in {}",
            gone.copy.0.get(..12).unwrap_or(&gone.copy.0),
            gone.service,
            gone.source,
            gone.repository.name
        ),
        Act::Retain(retain) => format!(
            "{}/{} in {}: {} kept, {} marked, {} unmarked, {} to be removed",
            retain.service,
            retain.source,
            retain.repository.name,
            retain.kept,
            retain.marked.len(),
            retain.unmarked.len(),
            retain.removing.len()
        ),
        Act::Hold(held) => format!("{} is held: {}", held.hold.thing, held.hold.reason),
        Act::Release(released) => format!("hold {} has ended: {}", released.hold, released.reason),
        Act::Approve(approved) => format!(
            "more than a fifth of {}/{} in {} may go: {}",
            approved.service, approved.source, approved.repository.name, approved.reason
        ),
        Act::Prune(pruned) => format!(
            "repository {}: {} removed, {} go later",
            pruned.repository.name,
            bytes(pruned.removed_bytes),
            bytes(pruned.doomed_bytes)
        ),
    };
    let digest = receipt.digest.0.trim_start_matches("sha256:");
    format!(
        "{:>6}  {}  {:<9}  {}  {}",
        receipt.sequence,
        instant(receipt.at),
        receipt.act.word(),
        digest.get(..12).unwrap_or(digest),
        printable(&words)
    )
}

/// Lists, shows or exports.
pub(crate) async fn run(cli: &Cli, face: &Face, arguments: &Receipts) -> Outcome {
    let state = setup::bare_state(cli, face)?;
    match arguments.action.as_ref().unwrap_or(&ReceiptsAction::List) {
        ReceiptsAction::List => {
            let memory = Memory::open_to_read(cli, &state).await?;
            let mut rows = Vec::new();
            for receipt in memory.receipts().await? {
                if face.json {
                    rows.push(serde_json::json!({ "sequence": receipt.sequence, "at": receipt.at, "digest": receipt.digest, "act": receipt.act.word(), "run": receipt.act.run() }));
                } else {
                    face.data(line(&receipt))?;
                }
            }
            if face.json {
                face.json(&serde_json::json!({ "schema": "seaworthy.receipts/1", "data": rows }))?;
            }
        }
        ReceiptsAction::Show { receipt: wanted } => {
            let memory = Memory::open_to_read(cli, &state).await?;
            let prefix = wanted.trim_start_matches("sha256:");
            let found: Vec<Receipt> = memory
                .receipts()
                .await?
                .into_iter()
                .filter(|receipt| {
                    receipt.sequence.to_string() == *wanted
                        || (prefix.len() >= 4
                            && receipt.digest.0.trim_start_matches("sha256:").starts_with(prefix))
                })
                .collect();
            let [receipt] = found.as_slice() else {
                return Err(Failure::new(
                    Exit::NotFound,
                    format!("{} receipts are `{}`", found.len(), printable(wanted)),
                )
                .hint("seaworthy receipts list"));
            };
            let document = serde_json::json!({ "schema": "seaworthy.receipt/1", "sequence": receipt.sequence, "at": receipt.at, "digest": receipt.digest, "previous": receipt.previous, "act": receipt.act });
            let text = if face.json {
                document.to_string()
            } else {
                serde_json::to_string_pretty(&document)
                    .map_err(|error| Failure::because(Exit::Unexpected, "print the receipt", &error))?
            };
            face.data(text)?;
        }
        ReceiptsAction::Export { file } => {
            if cli.global.dry_run {
                face.say(format!("would write the ledger to {}", file.display()))?;
                return Ok(Exit::Ok);
            }
            let text = memory::export_text(&state, false)?;
            state::write_durably(file, text.as_bytes(), 0o644)?;
            let key = file.with_file_name("signing.pub");
            let pem = state.public_key()?.to_pem();
            state::write_durably(&key, pem.as_bytes(), 0o644)?;
            face.say(format!(
                "wrote {} receipts to {} and the public key to {}",
                text.lines().count(),
                file.display(),
                key.display()
            ))?;
            face.say(format!(
                "verify them anywhere: seaworthy verify {} --key {}",
                file.display(),
                key.display()
            ))?;
        }
    }
    Ok(Exit::Ok)
}
