//! `verify`: receipts, offline, from the public key alone.

use std::path::{Path, PathBuf};

use seaworthy_model::id::Digest;
use seaworthy_model::ledger::{Known, verify_export};
use seaworthy_model::receipt::{Act, verify_one};
use seaworthy_model::signature::{Envelope, TrustedKeys};

use crate::cli::args::{Cli, Verify};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::output::{Face, Tone};
use crate::render::drill::{instant, sentence};
use crate::state::read_public_key;
use crate::{memory, setup};

/// Verifies a receipt, an exported ledger, or the ledger of the state directory.
pub(crate) fn run(cli: &Cli, face: &Face, arguments: &Verify) -> Outcome {
    let (lines, key_path, what) = match &arguments.file {
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(|error| {
                Failure::because(Exit::NotFound, format!("read `{}`", file.display()), &error)
            })?;
            (text, arguments.key.clone().map_or_else(|| beside(file), Ok)?, file.display().to_string())
        }
        None => {
            let state = setup::bare_state(cli, face)?;
            let text = memory::export_text(&state, cli.global.dry_run)?;
            (text, arguments.key.clone().unwrap_or_else(|| state.public_key_path()), "the ledger".to_owned())
        }
    };
    let keys = match (&arguments.file, &arguments.key) {
        // Our own ledger may hold one that was taken over.
        (None, None) if key_path.is_file() => setup::bare_state(cli, face)?.trusted_keys()?,
        _ => TrustedKeys::of([read_public_key(&key_path)?]),
    };
    if let Ok(envelope) = Envelope::from_json(lines.trim().as_bytes()) {
        return single(face, arguments, &envelope, &keys, &what);
    }
    let report = verify_export(&lines, &keys, &Known::default());
    let mut findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    let mut is_sound = report.is_sound();
    let head = report.head.as_ref().map(|head| head.digest.clone());
    if let Some(wanted) = &arguments.head {
        let wanted = digest(wanted);
        if head.as_ref() != Some(&wanted) {
            is_sound = false;
            let found = head.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string);
            findings.push(format!(
                "EV-06 ledger: its newest receipt is {found}, not {wanted}: it was cut, or it has grown"
            ));
        }
    }
    if report.verified == 0 && findings.is_empty() {
        findings.push("EV-06 ledger: there is no receipt in it".to_owned());
    }
    if face.json {
        face.json(&serde_json::json!({
            "schema": "seaworthy.verify/1", "subject": what, "verified": report.verified, "seen": report.seen,
            "head": report.head, "open": report.open.len(), "sound": is_sound,
            "findings": findings,
        }))?;
    } else {
        // A clock that was wrong is told, and takes nothing from what was signed.
        let (bad, note) = (face.paint(Tone::Bad, "✗"), face.paint(Tone::Warn, "!"));
        for finding in &findings {
            face.data(format!("{} {}", if is_sound { &note } else { &bad }, printable(finding)))?;
        }
        let mark = if is_sound { face.paint(Tone::Good, "✓") } else { bad };
        face.data(format!(
            "{mark} {what}: {} of {} receipts verified with {}",
            report.verified,
            report.seen,
            key_path.display()
        ))?;
        if let Some(head) = &report.head {
            face.data(format!("  head {} {}", head.sequence, head.digest))?;
        }
        for (sequence, due) in &report.open {
            face.data(format!(
                "  open: receipt {sequence} promises a {} of {}/{} that has not ended",
                due.act, due.service, due.source
            ))?;
        }
    }
    Ok(if is_sound { Exit::Ok } else { Exit::Findings })
}

fn digest(text: &str) -> Digest {
    Digest(if text.starts_with("sha256:") { text.to_owned() } else { format!("sha256:{text}") })
}

fn single(face: &Face, arguments: &Verify, envelope: &Envelope, keys: &TrustedKeys, what: &str) -> Outcome {
    let receipt = match verify_one(envelope, keys) {
        Ok(receipt) => receipt,
        Err(error) => {
            return Err(Failure::because(
                Exit::Findings,
                format!("{what}: this receipt does not verify [EV-07]"),
                &error,
            )
            .hint("treat it as altered, or name the right public key with --key"));
        }
    };
    let words = match &receipt.act {
        Act::Drill(drill) => sentence(drill),
        Act::Comply(comply) => crate::render::comply::sentence(comply),
        act => act.word().to_owned(),
    };
    let mut findings: Vec<String> = receipt.act.contradictions().iter().map(ToString::to_string).collect();
    // An export that was cut down to its first line looks like a single receipt.
    if let Some(wanted) = arguments.head.as_deref().map(digest).filter(|wanted| *wanted != receipt.digest) {
        findings.push(format!(
            "EV-06 ledger: its newest receipt is {}, not {wanted}: it was cut, or it has grown",
            receipt.digest
        ));
    }
    if face.json {
        face.json(&serde_json::json!({ "schema": "seaworthy.verify/1", "subject": what, "verified": 1, "seen": 1, "sequence": receipt.sequence, "digest": receipt.digest, "act": receipt.act, "findings": findings }))?;
    } else {
        face.data(format!(
            "{} {what}: receipt {} of {} verifies",
            face.paint(Tone::Good, "✓"),
            receipt.sequence,
            instant(receipt.at)
        ))?;
        face.data(format!("  {}", printable(&words)))?;
        face.data(format!("  {}", receipt.digest))?;
        for finding in &findings {
            face.data(format!("  {} {}", face.paint(Tone::Bad, "✗"), printable(finding)))?;
        }
    }
    Ok(if findings.is_empty() { Exit::Ok } else { Exit::Findings })
}

/// The public key that lies beside an export.
fn beside(file: &Path) -> Outcome<PathBuf> {
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let key = directory.join("signing.pub");
    if key.is_file() {
        return Ok(key);
    }
    Err(Failure::new(Exit::Usage, format!("there is no public key at `{}`", key.display()))
        .hint("name it with --key FILE"))
}
