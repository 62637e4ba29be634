//! Infrastructure that throws copies away together with what they belong to.

use super::{all, speaks_of_copies, speaks_of_recovery};
use crate::finding::FindingCode;
use crate::lint::read::{Document, Kind};
use crate::lint::{Draft, Out};

pub(super) fn apply(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    terraform(text, document, out);
    volumes(text, document, out);
}

fn terraform(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    if document.kind != Kind::Terraform {
        return;
    }
    let mut resource = String::new();
    for index in 0..document.lines.len() {
        let lower = document.lower(index);
        let trimmed = lower.trim();
        if trimmed.starts_with("resource ") || trimmed.starts_with("module ") {
            trimmed.clone_into(&mut resource);
            // A name longer than this is none.
            resource.truncate(resource.char_indices().nth(200).map_or(resource.len(), |(at, _)| at));
        }
        let Some((key, value)) = trimmed.split_once('=') else { continue };
        let value = value.split('#').next().unwrap_or_default().trim();
        let of_copies = speaks_of_copies(&resource) || resource.contains("state");
        let (what, why, fix) = match (key.trim(), value) {
            ("skip_final_snapshot", "true") => (
                "the last snapshot of this database is not taken when it is destroyed",
                "`terraform destroy`, or a change that replaces it, leaves nothing",
                "skip_final_snapshot = false, and a final_snapshot_identifier",
            ),
            ("backup_retention_period", "0") => (
                "the provider's own backups of this database are turned off",
                "0 days is how they are turned off",
                "backup_retention_period = 7, and a copy of your own",
            ),
            ("delete_automated_backups", "true") => (
                "the provider's backups go with the database",
                "who deletes the database deletes its copies in the same act",
                "delete_automated_backups = false",
            ),
            ("force_destroy", "true") if of_copies => (
                "this bucket is removed with everything in it",
                "without force_destroy, a bucket that is not empty cannot be destroyed by mistake",
                "force_destroy = false, and prevent_destroy in its lifecycle",
            ),
            ("status", "\"suspended\"" | "\"disabled\"") if resource.contains("versioning") && of_copies => (
                "versions of this bucket are turned off",
                "what is overwritten or deleted in it cannot be had back",
                "status = \"Enabled\"",
            ),
            _ => continue,
        };
        let start = document.lines.get(index).map_or(0, |line| line.span.start);
        let lead = lower.len() - lower.trim_start().len();
        Draft::new(
            FindingCode::LintThrownAway,
            text,
            start + lead..start + lower.trim_end().len(),
            key.trim(),
        )
        .says(what)
        .because(why)
        .mend(fix)
        .report(out);
    }
}

/// `docker compose down -v` in a text of recovery: what it removes is what is to be recovered.
fn volumes(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    let name = document.name.to_ascii_lowercase();
    if name.contains("workflows") || name.contains("test") || name.contains("ci/") {
        return;
    }
    for (_, script, _, call) in all(document) {
        let is_recovery = speaks_of_recovery(&script.heading)
            || speaks_of_copies(&script.heading)
            || speaks_of_recovery(&name)
            || speaks_of_copies(&name);
        let is_compose = (call.is(&["docker", "podman"])
            && call.words.iter().take(6).any(|word| word.text == "compose"))
            || call.is(&["docker-compose", "podman-compose"]);
        let removes = is_compose
            && call.words.iter().any(|word| word.text == "down")
            && (call.has(&["--volumes"]) || call.words.iter().any(|word| word.text == "-v"));
        let prunes = call.is(&["docker", "podman"]) && call.says(&["volume", "prune"]);
        if is_recovery && (removes || prunes) && !document.refuses(document.line_of(call.program_span.start))
        {
            Draft::new(FindingCode::LintThrownAway, text, call.span(), "volumes")
                .says("the volumes of the services are removed here, with the data in them")
                .because("in a recovery they are the only current copy, damaged or not")
                .mend("leave -v out; keep the old volumes until the restored service was looked at")
                .report(out);
        }
    }
}
