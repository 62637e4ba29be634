//! Copies on their way: deletions that are followed, ages that decide, names that are overwritten, keys that travel along.

use super::{ABOUT_COPIES, all, is_dump, quoted, speaks_of_copies, stands_among_copies};
use crate::finding::FindingCode;
use crate::lint::read::{Document, Kind, Script};
use crate::lint::shell::{Then, Word};
use crate::lint::{Draft, Out};

pub(super) fn apply(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    deletes_by_age(text, document, out);
    follows_deletions(text, document, out);
    compares_sizes(text, document, out);
    overwrites(text, document, out);
    key_with_copies(text, document, out);
    key_readable(text, document, out);
}

fn deletes_by_age(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    for script in &document.scripts {
        let stops_on_error = script.calls.iter().any(|call| {
            call.is(&["set"])
                && call.words.iter().any(|word| {
                    word.text == "errexit" || (word.text.starts_with('-') && word.text.contains('e'))
                })
        });
        // A look for something newer, or a count, before anything goes.
        let looks = script.calls.iter().any(|call| {
            (call.is(&["find"]) && call.words.windows(2).any(|pair| {
                matches!(pair, [flag, value] if (matches!(flag.text.as_str(), "-mtime" | "-mmin" | "-ctime") && value.text.starts_with('-')) || flag.text == "-newer" || flag.text == "-newermt")
            })) || (call.is(&["tail"]) && call.texts().any(|word| word.starts_with('+')))
                || (call.is(&["wc"]) && call.has(&["-l"]))
        });
        let mut has_backed_up = false;
        for (index, call) in script.calls.iter().enumerate() {
            has_backed_up |= is_dump(call) || super::is_transport(call);
            if !call.is(&["find"]) {
                continue;
            }
            let is_old = call.words.windows(2).any(|pair| {
                matches!(pair, [flag, value] if matches!(flag.text.as_str(), "-mtime" | "-mmin" | "-ctime" | "-cmin") && (value.text.starts_with('+') || value.has_expansion))
            });
            let removes = call.has(&["-delete"])
                || call.words.windows(2).any(|pair| matches!(pair, [flag, value] if flag.text.starts_with("-exec") && value.text == "rm"))
                || script.calls.get(index + 1).is_some_and(|next| next.pipeline == call.pipeline && next.is(&["rm"]));
            let named: String =
                call.words.iter().map(|word| word.text.to_ascii_lowercase()).collect::<Vec<_>>().join(" ");
            let is_of_copies = (speaks_of_copies(&named)
                || [".sql", ".tar", ".gpg", ".dump", ".zst"].iter().any(|ending| named.contains(ending))
                || stands_among_copies(document, script))
                && !named.contains(".log")
                && !named.contains("/logs")
                && !named.contains(".tmp")
                && !named.contains(".part");
            // `… && find`: what went before has just succeeded.
            let follows_success = script
                .calls
                .get(..index)
                .and_then(|before| {
                    before.iter().rev().take(50).find(|before| before.pipeline != call.pipeline)
                })
                .is_some_and(|before| before.then == Then::And);
            if is_old
                && removes
                && is_of_copies
                && !looks
                && !follows_success
                && !(stops_on_error && has_backed_up)
                && !call.is_condition
            {
                Draft::new(FindingCode::LintDeletesByAge, text, call.span(), "find -mtime")
                    .says("copies are deleted by age alone: when backups have stopped, the last one goes too")
                    .because("`find -mtime` does not ask whether anything newer is there, nor whether it is good")
                    .mend("delete only after a newer good copy was seen: seaworthy retain keeps the newest good and the newest proven copy whatever the policy; by hand: BACKUP && find …")
                    .report(out);
            }
        }
    }
}

/// Whether the last operand is a place for copies, or another machine's; a restore the other way is another matter.
fn goes_to_copies(operands: &[&Word]) -> bool {
    let Some((target, sources)) = operands.split_last() else { return false };
    let is_place = |word: &Word| {
        let lower = word.text.to_ascii_lowercase();
        ABOUT_COPIES.iter().any(|about| lower.contains(about))
            || lower.contains("mirror")
            || lower.starts_with("/mnt")
            || lower.starts_with("/media")
            || lower.starts_with("/volume")
    };
    let is_remote =
        target.text.contains("://") || target.text.split('/').next().is_some_and(|first| first.contains(':'));
    is_place(target) || (is_remote && sources.iter().any(|word| is_place(word)))
}

fn follows_deletions(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    for (_, script, _, call) in all(document) {
        let verb = |name: &str| call.words.iter().take(4).any(|word| word.text == name);
        let (is_following, what, fix) = match call.program.as_str() {
            "rsync" => (
                call.words.iter().any(|word| word.text == "--del" || word.text.starts_with("--delete"))
                    && !call.has(&["--backup", "--backup-dir", "--link-dest", "-b"]),
                "rsync --delete",
                "leave --delete out; or add --backup --backup-dir=REMOVED/$(date +%F)",
            ),
            "rclone" => (
                verb("sync") && !call.has(&["--backup-dir", "--max-delete"]),
                "rclone sync",
                "rclone copy; or add --backup-dir REMOTE:removed",
            ),
            "aws" => (
                call.says(&["s3", "sync"]) && call.has(&["--delete"]),
                "aws s3 sync --delete",
                "leave --delete out, and let a lifecycle rule of a versioned bucket expire",
            ),
            "gsutil" => (
                verb("rsync")
                    && call.words.iter().any(|word| {
                        word.text.starts_with('-') && !word.text.starts_with("--") && word.text.contains('d')
                    }),
                "gsutil rsync -d",
                "leave -d out",
            ),
            "mc" => (verb("mirror") && call.has(&["--remove"]), "mc mirror --remove", "leave --remove out"),
            "azcopy" => (
                verb("sync")
                    && call
                        .option(&["--delete-destination"])
                        .is_some_and(|word| !word.text.ends_with("false")),
                "azcopy sync --delete-destination",
                "leave --delete-destination out",
            ),
            "s3cmd" => (
                verb("sync") && call.has(&["--delete-removed"]),
                "s3cmd sync --delete-removed",
                "leave --delete-removed out",
            ),
            _ => continue,
        };
        if !is_following {
            continue;
        }
        let operands = call.operands(
            "efTB",
            &[
                "--exclude",
                "--include",
                "--rsh",
                "--bwlimit",
                "--filter",
                "--exclude-from",
                "--log-file",
                "--transfers",
                "--region",
                "--profile",
            ],
        );
        let operands: Vec<&Word> = if call.is(&["rsync"]) {
            operands
        } else {
            operands
                .into_iter()
                .filter(|word| !matches!(word.text.as_str(), "s3" | "sync" | "rsync" | "mirror"))
                .collect()
        };
        // Of one operand nothing can be told, and a website is no copy.
        if operands.len() < 2
            || !(goes_to_copies(&operands)
                || (stands_among_copies(document, script)
                    && speaks_of_copies(document.name)
                    && operands.last().is_some_and(|word| word.text.contains(':'))))
        {
            continue;
        }
        Draft::new(FindingCode::LintFollowsDeletions, text, call.span(), what)
            .says(format!("`{what}` deletes there what was deleted here: a mistake or an extortionist reaches both copies at once"))
            .because("a copy that follows deletions protects against a broken disk, not against a deletion")
            .mend(format!("{fix}; or seaworthy replicate, which removes nothing"))
            .report(out);
    }
}

fn compares_sizes(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    for (_, _, _, call) in all(document) {
        let is_by_size = match call.program.as_str() {
            "rclone" | "rsync" | "aws" => call.has(&["--size-only"]),
            _ => false,
        };
        if is_by_size {
            Draft::new(
                FindingCode::LintSizeIsNoProof,
                text,
                call.span(),
                format!("{} --size-only", call.program),
            )
            .says(format!(
                "`{} --size-only` takes a damaged copy of the same size for a good one",
                call.program
            ))
            .because("its manual: with --size-only, contents and times are not compared")
            .mend(match call.program.as_str() {
                "rclone" => "rclone check, without --size-only",
                "rsync" => "rsync --checksum",
                _ => "leave --size-only out, and compare checksums: aws s3api get-object-attributes",
            })
            .report(out);
        }
    }
    let mut draft: Option<Draft> = None;
    for index in document.prose_lines() {
        let lower = document.lower(index);
        let Some(at) = lower.find("size") else { continue };
        let compares = ["match", "equal", "compare", "same size", "identical size"]
            .iter()
            .any(|word| lower.contains(word));
        let verifies =
            ["verif", "check", "integrity", "validat", "confirm"].iter().any(|word| lower.contains(word));
        let of_copies = ["upload", "remote", "backup", "offsite", "copy", "copies", "replicat", "local file"]
            .iter()
            .any(|word| lower.contains(word));
        let says_more =
            ["hash", "checksum", "digest", "sha256", "sha-256"].iter().any(|word| lower.contains(word))
                || crate::lint::words::is_refusal(lower);
        if compares && verifies && of_copies && !says_more {
            let start = document.lines.get(index).map_or(0, |line| line.span.start);
            let span = start + at..start + lower.trim_end().len();
            draft = Some(match draft {
                None => Draft::new(FindingCode::LintSizeIsNoProof, text, span, "size")
                    .says("a copy is called verified because its size is right")
                    .because("a copy whose bytes were changed has the same size, and a checksum that lies beside it can be exchanged with it")
                    .mend("compare with a digest that was taken at the source and is kept or signed elsewhere: seaworthy check --read-data"),
                Some(draft) => draft.with(text, span, ""),
            });
        }
    }
    if let Some(draft) = draft {
        draft.report(out);
    }
}

/// The file that a call writes its dump to: its own option, or where the pipe ends.
fn written(script: &Script, index: usize) -> Option<Word> {
    let call = script.calls.get(index)?;
    let own = match call.program.as_str() {
        "pg_dump" | "pg_dumpall" => ("--file", Some('f'), super::DUMP_VALUED),
        "mysqldump" | "mariadb-dump" => ("--result-file", Some('r'), "uhPSr"),
        "mongodump" => ("--archive", None, ""),
        _ => return None,
    };
    if let Some(value) = call.value(&[own.0], own.1, own.2) {
        return call
            .words
            .iter()
            .find(|word| word.text.ends_with(&value))
            .cloned()
            .map(|word| Word { text: value, ..word });
    }
    let last = script.calls.get(index..)?.iter().take_while(|next| next.pipeline == call.pipeline).last()?;
    last.output().map(|redirect| redirect.target.clone())
}

fn overwrites(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    for (_, script, index, call) in all(document) {
        if !script.origin.is_unattended() || call.stage != 0 {
            continue;
        }
        let Some(target) = written(script, index) else { continue };
        let lower = target.text.to_ascii_lowercase();
        let is_staged = ["tmp", "temp", "new", "part", "/dev/", "staging", ".in-progress", "fifo"]
            .iter()
            .any(|word| lower.contains(word));
        let varies = target.has_expansion || lower.contains(['$', '%', '{', '`', '*']) || lower.is_empty();
        // A step of a workflow begins with an empty directory.
        let is_fresh = document.kind == Kind::Yaml && !lower.starts_with('/');
        if varies || is_staged || is_fresh || call.has(&["--schema-only", "-s", "--no-data"]) {
            continue;
        }
        // Whatever takes the file on makes it a step of the way. 200: a script's own steps.
        let name = target.text.rsplit('/').next().unwrap_or_default();
        let after = script.calls.get(index + 1..(index + 201).min(script.calls.len())).unwrap_or_default();
        let is_taken_on = after.iter().any(|next| {
            next.pipeline != call.pipeline
                && (next.words.iter().any(|word| word.text.contains(name))
                    || super::is_transport(next)
                    || next.is(&["mv", "savelog", "logrotate", "cp"]))
        });
        let before = script.calls.get(index.saturating_sub(200)..index).unwrap_or_default();
        let was_rotated = before.iter().any(|before| before.is(&["mv", "cp", "savelog", "logrotate", "ln"]));
        if is_taken_on || was_rotated {
            continue;
        }
        Draft::new(FindingCode::LintOverwritesLast, text, target.span.clone(), &call.program)
            .says(format!("every run writes over the dump before: {} is emptied before the new one is there", quoted(&target.text)))
            .because("a run that fails half-way leaves no copy at all, and a mistake that is a day old is in the only one")
            .mend("write to a name with the date in it, under a temporary name first: … > dump-$(date +%F).part && mv …")
            .report(out);
    }
}

fn key_with_copies(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    for (_, _, _, call) in all(document) {
        if !call.is(&["cp", "scp", "rsync", "aws", "rclone", "gsutil", "mc", "s3cmd", "azcopy"]) {
            continue;
        }
        let operands = call.operands("ePiF", &["--exclude", "--rsh", "--region", "--profile", "--include"]);
        let Some((target, sources)) = operands.split_last() else { continue };
        let key = sources.iter().find(|word| {
            let lower = word.text.to_ascii_lowercase();
            let name = lower.rsplit('/').next().unwrap_or_default();
            let is_key = [
                ".key",
                "keyfile",
                "passphrase",
                "encryption-key",
                "backup-key",
                ".agekey",
                "repo-password",
                "repokey",
            ]
            .iter()
            .any(|ending| name.ends_with(ending));
            is_key && !name.contains("pub") && !name.ends_with(".crt")
        });
        let to_copies = speaks_of_copies(&target.text.to_ascii_lowercase());
        let is_apart = ["escrow", "safe", "vault", "key"]
            .iter()
            .any(|word| target.text.to_ascii_lowercase().contains(word));
        if let Some(key) = key.filter(|_| to_copies && !is_apart) {
            Draft::new(FindingCode::LintKeyWithCopies, text, call.span(), &key.text)
                .says(format!(
                    "the key {} goes to {}, where the copies are",
                    quoted(&key.text),
                    quoted(&target.text)
                ))
                .because("whoever gets the place gets both; and who loses it has neither")
                .mend("keep the key elsewhere: another account, another building, paper in a safe")
                .report(out);
        }
    }
}

fn key_readable(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    for (_, _, _, call) in all(document) {
        if !call.is(&["chmod"]) {
            continue;
        }
        let Some(mode) = call.words.iter().find(|word| !word.text.starts_with('-')) else { continue };
        let digits: Vec<u32> = mode.text.chars().filter_map(|c| c.to_digit(8)).collect();
        let is_open = (matches!(digits.len(), 3 | 4)
            && digits.len() == mode.text.len()
            && digits.last().is_some_and(|other| other & 4 != 0))
            || ["a+r", "o+r", "+r", "ugo+r", "go+r"].iter().any(|open| mode.text.contains(open));
        let key = call.words.iter().find(|word| {
            let lower = word.text.to_ascii_lowercase();
            let name = lower.rsplit('/').next().unwrap_or_default();
            (name.ends_with(".key")
                || name.ends_with(".pgpass")
                || name.contains("passphrase")
                || name.contains("backup-key")
                || name.contains("encryption-key"))
                && !name.contains("pub")
        });
        if let Some(key) = key.filter(|_| is_open) {
            Draft::new(FindingCode::LintKeyReadable, text, call.span(), &key.text)
                .says(format!("everybody on this machine can read {}", quoted(&key.text)))
                .because(format!("mode {} gives others the right to read", mode.text))
                .mend(format!("chmod 600 {}", key.text))
                .report(out);
        }
    }
}
