//! Habits of scripts by which a failure is not heard of.

use super::{
    all, is_about_copies, is_dump, is_restore, is_script, is_transport, speaks_of_copies, speaks_of_recovery,
};
use crate::finding::FindingCode;
use crate::lint::call::Call;
use crate::lint::read::{Document, Kind, Origin};
use crate::lint::shell::Then;
use crate::lint::{Draft, Out};

pub(super) fn apply(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    pipes(text, document, out);
    ignored(text, document, out);
    errors_off(text, document, out);
    cron_percent(text, document, out);
    unknown_peers(text, document, out);
    json_lines(text, document, out);
}

fn pipes(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    // GitHub runs `shell: bash` with pipefail.
    if document.says(&["pipestatus"])
        || (document.kind == Kind::Yaml && document.says(&["shell: bash", "pipefail"]))
    {
        return;
    }
    for (_, script, _, call) in all(document) {
        let is_heard = script.origin.is_unattended()
            || script.has_shebang
            || matches!(call.then, Then::And | Then::Or)
            || call.is_condition;
        let is_fed = call.stage + 1 < call.stages;
        if !is_fed || !is_heard || script.has_pipefail || script.origin == Origin::Inline || !is_dump(call) {
            continue;
        }
        Draft::new(FindingCode::LintPipeHidesFailure, text, call.span(), &call.program)
            .says(format!("when `{}` fails, this pipe still ends with 0: the exit code is that of its last command", call.program))
            .because("seen with dash and gzip: `false | gzip > FILE` ends with 0 and leaves 20 bytes that `gzip -t` calls good")
            .mend("set -o pipefail (bash; not in sh) before it; or write to a file first, then compress it")
            .report(out);
    }
}

/// Whether a call makes, carries or restores copies, so that its failure must be heard of.
fn matters(call: &Call) -> bool {
    is_dump(call)
        || is_transport(call)
        || is_restore(call)
        || (is_script(&call.program)
            && (speaks_of_copies(&call.program) || speaks_of_recovery(&call.program)))
}

fn ignored(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    for script in &document.scripts {
        if script.origin == Origin::Inline {
            continue;
        }
        for (index, call) in script.calls.iter().enumerate() {
            if !matters(call) {
                continue;
            }
            // `rsync` and `scp` carry anything; here only what speaks of copies counts.
            let is_general = call.is(&["rsync", "scp", "tar", "aws", "rclone", "gsutil"])
                && !is_about_copies(call)
                && !super::stands_among_copies(document, script);
            if is_general {
                continue;
            }
            let next = script
                .calls
                .get(index + 1..)
                .and_then(|after| after.iter().take(50).find(|next| next.pipeline != call.pipeline));
            let is_swallowed = call.then == Then::Or
                && next.is_some_and(|next| {
                    next.is(&["true", ":"])
                        || (next.is(&["exit", "return"])
                            && next.words.first().is_some_and(|word| word.text == "0"))
                });
            let tolerant = match call.program.as_str() {
                "tar" => call.option(&["--ignore-failed-read"]),
                "rsync" => call.option(&["--ignore-errors"]),
                "pg_dump" | "mysqldump" | "mariadb-dump" => call.option(&["--force"]),
                _ => None,
            };
            let is_silenced = call.redirects.iter().any(|redirect| {
                redirect.target.text == "/dev/null"
                    && (redirect.descriptor == Some(2) || redirect.operator.starts_with('&'))
            }) || (call.redirects.iter().any(|redirect| {
                redirect.target.text == "/dev/null"
                    && redirect.operator == ">"
                    && redirect.descriptor.is_none_or(|one| one == 1)
            }) && call
                .redirects
                .iter()
                .any(|redirect| redirect.operator == ">&" && redirect.descriptor == Some(2)));
            let is_unheard = is_silenced
                && !call.is_condition
                && !matches!(call.then, Then::Or | Then::And)
                && script.origin.is_unattended()
                && !is_asked(document, call);
            let (what, why, fix) = if is_swallowed {
                (
                    "the failure of this command is thrown away",
                    "`|| true` makes every exit code 0",
                    "leave `|| true` out; where one code is harmless, ask for that code",
                )
            } else if let Some(option) = tolerant {
                let what = if option.text.contains("force") {
                    "this dump goes on after errors"
                } else {
                    "what could not be read is left out, and the exit code does not say so"
                };
                (
                    what,
                    "the tool's manual says so of this option",
                    "leave the option out, and let the run end with an error",
                )
            } else if is_unheard {
                (
                    "what this command has to say about its failure goes to /dev/null",
                    "nobody reads the exit code of a job; the message was all that was left",
                    "write it to a log that somebody reads, or let the scheduler send it",
                )
            } else {
                continue;
            };
            Draft::new(FindingCode::LintFailureIgnored, text, call.span(), &call.program)
                .says(what)
                .because(why)
                .mend(fix)
                .report(out);
        }
    }
}

/// Whether what stands behind a call asks for its exit code.
fn is_asked(document: &Document<'_>, call: &Call) -> bool {
    // 200: two lines or so.
    let from = call.span().end;
    document
        .text
        .as_bytes()
        .get(from..)
        .is_some_and(|rest| rest.iter().take(200).zip(rest.iter().skip(1)).any(|pair| pair == (&b'$', &b'?')))
}

fn errors_off(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    for script in &document.scripts {
        if !script.origin.is_unattended() {
            continue;
        }
        let mut off: Option<&Call> = None;
        for call in &script.calls {
            if call.is(&["set"]) {
                let is = |sign: char| {
                    call.words.iter().any(|word| {
                        word.text.starts_with(sign) && word.text.contains('e') && !word.text.starts_with("--")
                    })
                };
                if is('+') && !call.words.iter().any(|word| word.text == "pipefail") {
                    off = Some(call);
                } else if is('-') {
                    off = None;
                }
                continue;
            }
            let Some(set) = off else { continue };
            if (is_dump(call) || is_transport(call) || is_restore(call))
                && !call.is_condition
                && call.then != Then::Or
                && call.then != Then::And
                && !is_asked(document, call)
                && !call.is_nested
            {
                Draft::new(FindingCode::LintFailureIgnored, text, set.span(), "set +e")
                    .says(format!("after `set +e` nothing asks whether `{}` failed", call.program))
                    .because("the script goes on, and ends with the code of its last command")
                    .mend(format!("set -euo pipefail; or if ! {} …; then … exit 1; fi", call.program))
                    .with(text, call.span(), format!("`{}` runs unasked", call.program))
                    .report(out);
                break;
            }
        }
    }
}

fn cron_percent(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    for script in document.scripts.iter().filter(|script| script.origin == Origin::Cron) {
        let Some(line) = document.text.get(script.span.clone()) else { continue };
        let percent = line
            .char_indices()
            .find(|(at, c)| *c == '%' && !line.get(..*at).is_some_and(|before| before.ends_with('\\')));
        if let Some((at, _)) = percent {
            let start = script.span.start + at;
            Draft::new(FindingCode::LintCronPercent, text, start..start + 1, "%")
                .says("cron ends the command here: what follows the `%` becomes its input")
                .because("crontab(5): unless escaped with a backslash, the first `%` ends the command")
                .mend("write \\%, or put the command into a script")
                .report(out);
        }
    }
}

fn unknown_peers(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    for (_, _, _, call) in all(document) {
        let (option, fix) = match call.program.as_str() {
            "curl" if is_about_copies(call) => {
                (call.option(&["--insecure"]).or_else(|| short(call, 'k')), "curl --cacert CA.pem …")
            }
            "wget" if is_about_copies(call) => {
                (call.option(&["--no-check-certificate"]), "wget --ca-certificate=CA.pem …")
            }
            "restic" => (call.option(&["--insecure-tls"]), "restic --cacert CA.pem …"),
            "rclone" => (call.option(&["--no-check-certificate"]), "rclone --ca-cert CA.pem …"),
            "aws" | "s3cmd" => {
                (call.option(&["--no-verify-ssl", "--no-check-certificate"]), "aws --ca-bundle CA.pem …")
            }
            "ssh" | "scp" | "rsync" | "sftp" if is_about_copies(call) => (
                call.words.iter().find(|word| {
                    let lower = word.text.to_ascii_lowercase();
                    lower.contains("stricthostkeychecking=no")
                        || lower.contains("userknownhostsfile=/dev/null")
                }),
                "put the host's key into known_hosts: ssh-keyscan HOST, and compare its fingerprint",
            ),
            _ => continue,
        };
        if let Some(option) = option.filter(|_| !document.refuses(document.line_of(call.program_span.start)))
        {
            Draft::new(FindingCode::LintPeerUnknown, text, option.span.clone(), &call.program)
                .says(format!("`{}` does not ask who it speaks to", call.program))
                .because("whoever answers in its place gets the copies, or hands over other ones")
                .mend(fix)
                .report(out);
        }
    }
}

fn short(call: &Call, letter: char) -> Option<&crate::lint::shell::Word> {
    call.words.iter().find(|word| {
        word.text.strip_prefix('-').is_some_and(|cluster| {
            !cluster.starts_with('-')
                && cluster.len() < 8
                && cluster.chars().all(|c| c.is_ascii_alphabetic())
                && cluster.contains(letter)
        })
    })
}

fn json_lines(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    for script in &document.scripts {
        for (index, call) in script.calls.iter().enumerate() {
            let is_cut = call.is(&["tail", "head"]) && call.stage > 0;
            let before = index
                .checked_sub(1)
                .and_then(|before| script.calls.get(before))
                .filter(|before| before.pipeline == call.pipeline);
            let after = script.calls.get(index + 1).filter(|after| after.pipeline == call.pipeline);
            let (Some(before), Some(after)) = (before, after) else { continue };
            let is_of_documents =
                before.is(&["cat"]) && before.words.iter().any(|word| word.text.ends_with(".json"));
            if is_cut
                && is_of_documents
                && after.is(&["jq"])
                && !after.has(&["-c", "--stream", "-R", "--raw-input"])
            {
                Draft::new(FindingCode::LintJsonCut, text, before.program_span.start..after.span().end, "jq")
                    .says(format!("`{}` cuts a line out of JSON documents, which have many lines", call.program))
                    .because("seen: of documents that are written on several lines it leaves `}`, at which jq ends with an error")
                    .mend("ls -t *.json | head -n 1 | xargs cat | jq .")
                    .report(out);
            }
        }
    }
}
