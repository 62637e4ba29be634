//! The rules. Each is a function that looks at the documents and writes what it finds; none knows another.

mod claims;
mod copying;
mod engines;
mod habits;
mod infrastructure;
mod postgres;
mod promises;
mod schedules;
mod secrets;

use super::call::Call;
use super::read::{Document, Origin, Script};
use super::{Out, Promises};

/// What there is to look at.
pub(super) struct Case<'c, 't> {
    pub(super) documents: &'c [Document<'t>],
    pub(super) promises: Option<Promises<'c>>,
}

/// Applies all rules.
pub(super) fn apply(case: &Case<'_, '_>, out: &mut Out<'_>) {
    for (text, document) in case.documents.iter().enumerate() {
        postgres::apply(text, document, out);
        engines::apply(text, document, out);
        copying::apply(text, document, out);
        habits::apply(text, document, out);
        secrets::apply(text, document, out);
        schedules::apply(text, document, out);
        claims::apply(text, document, out);
        infrastructure::apply(text, document, out);
        promises::apply(text, document, case.promises, out);
    }
    schedules::between(case.documents, out);
    claims::between(case.documents, case.promises, out);
    promises::of_the_configuration(case.documents.len(), case.promises, out);
}

/// Words of names and headings under which copies are made or used.
const ABOUT_COPIES: [&str; 14] = [
    "backup", "back up", "back-up", "dump", "snapshot", "offsite", "off-site", "archive", "restic", "borg",
    "/bak", ".bak", "replicat", "nas:",
];

/// Whether a text (in lower case) speaks of copies.
fn speaks_of_copies(lower: &str) -> bool {
    ABOUT_COPIES.iter().any(|word| lower.contains(word))
}

/// Whether a text (in lower case) speaks of recovering.
fn speaks_of_recovery(lower: &str) -> bool {
    ["restore", "recover", "rollback", "roll back", "disaster", "failover", "incident", "runbook"]
        .iter()
        .any(|word| lower.contains(word))
}

/// Whether a call itself speaks of copies: in its words, its redirections, its assignments.
fn is_about_copies(call: &Call) -> bool {
    call.texts().any(|text| speaks_of_copies(&text.to_ascii_lowercase()))
}

/// Whether the script stands where copies are made: by the name of its file or by its heading.
fn stands_among_copies(document: &Document<'_>, script: &Script) -> bool {
    speaks_of_copies(&script.heading)
        || (document.kind != super::Kind::Prose && speaks_of_copies(&document.name.to_ascii_lowercase()))
}

/// Whether a name says of itself that nobody lives in it.
fn is_scratch(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    [
        "test",
        "scratch",
        "tmp",
        "temp",
        "restore",
        "verify",
        "drill",
        "check",
        "staging",
        "clone",
        "copy",
        "_new",
        "-new",
        "new_",
        "_old",
        "sandbox",
        "throwaway",
        "dev",
    ]
    .iter()
    .any(|word| lower.contains(word))
}

/// Programs that write a copy of something that lives.
fn is_dump(call: &Call) -> bool {
    if call.has(&["--version", "--help", "-V"]) {
        return false;
    }
    match call.program.as_str() {
        "pg_dump" | "pg_dumpall" | "pg_basebackup" | "mysqldump" | "mariadb-dump" | "mongodump"
        | "xtrabackup" | "mariabackup" => true,
        "sqlite3" => call
            .words
            .iter()
            .any(|word| word.text.trim_start().starts_with(".dump") || word.text.contains(".backup")),
        "tar" => tar_does(call, 'c', "--create"),
        "etcdctl" => call.words.iter().any(|word| word.text == "save"),
        "vault" => call.says(&["operator", "raft", "snapshot", "save"]),
        "redis-cli" => call.has(&["--rdb"]),
        _ => false,
    }
}

/// Programs that carry copies elsewhere, or into a repository.
fn is_transport(call: &Call) -> bool {
    match call.program.as_str() {
        "borg" => {
            call.says(&["create"])
                || call.says(&["prune"])
                || call.says(&["check"])
                || call.says(&["compact"])
                || call.says(&["extract"])
        }
        "restic" => call.words.iter().any(|word| {
            matches!(word.text.as_str(), "backup" | "forget" | "prune" | "check" | "restore" | "copy")
        }),
        "aws" => {
            call.says(&["s3"])
                && call.words.iter().any(|word| matches!(word.text.as_str(), "cp" | "sync" | "mv"))
        }
        "rclone" => call
            .words
            .iter()
            .any(|word| matches!(word.text.as_str(), "copy" | "copyto" | "sync" | "move" | "check")),
        "gsutil" => call.words.iter().any(|word| matches!(word.text.as_str(), "cp" | "rsync" | "mv")),
        "rsync" | "scp" | "azcopy" | "s3cmd" | "kopia" | "duplicity" => !call.has(&["--version", "--help"]),
        _ => false,
    }
}

/// Whether `tar` is told to do one thing: `-c`, `c…` as its first word, or by the long word.
fn tar_does(call: &Call, letter: char, long: &str) -> bool {
    call.has(&[long])
        || call.words.first().is_some_and(|word| {
            !word.text.starts_with("--")
                && word
                    .text
                    .trim_start_matches('-')
                    .chars()
                    .take_while(char::is_ascii_alphabetic)
                    .any(|c| c == letter)
        })
        || call.words.iter().any(|word| {
            word.text.strip_prefix('-').is_some_and(|letters| {
                !letters.starts_with('-') && letters.contains(letter) && letters.len() < 8
            })
        })
}

/// Programs and scripts that bring something back.
fn is_restore(call: &Call) -> bool {
    match call.program.as_str() {
        "pg_restore" => call.value(&["--dbname"], Some('d'), RESTORE_VALUED).is_some(),
        "mongorestore" => true,
        "psql" | "mysql" | "mariadb" => {
            call.input().is_some()
                || call.stage > 0
                || (call.program == "psql" && call.value(&["--file"], Some('f'), PSQL_VALUED).is_some())
        }
        "borg" => call.says(&["extract"]),
        "restic" => call.words.iter().any(|word| word.text == "restore"),
        "vault" => call.says(&["operator", "raft", "snapshot", "restore"]),
        name => {
            is_script(name)
                && (name.starts_with("restore") || name.contains("-restore") || name.contains("_restore"))
        }
    }
}

/// Whether a program is a script of the user's own.
fn is_script(name: &str) -> bool {
    [".sh", ".py", ".bash", ".pl", ".rb"].iter().any(|extension| name.ends_with(extension))
}

/// pg_restore's short options with a value.
const RESTORE_VALUED: &str = "dfFhIjLnNpPStTU";
/// psql's short options with a value.
const PSQL_VALUED: &str = "cdfFhLopPRTUv";
/// pg_dump's short options with a value.
const DUMP_VALUED: &str = "deEfFhjnNpStTUZ";

/// The number of the first call of a script that stops what writes, or freezes it. Looked for once.
fn first_stop(script: &Script) -> Option<usize> {
    *script.first_stop.get_or_init(|| script.calls.iter().position(stops))
}

/// Whether a call stops a service, freezes a file system, or takes a snapshot of one.
fn stops(call: &Call) -> bool {
    let any = |words: &[&str]| call.words.iter().any(|word| words.contains(&word.text.as_str()));
    match call.program.as_str() {
        "systemctl" | "service" | "rc-service" | "supervisorctl" | "pg_ctl" | "pg_ctlcluster"
        | "invoke-rc.d" | "launchctl" => any(&["stop", "kill", "disable"]),
        "docker" | "podman" | "docker-compose" | "podman-compose" | "nerdctl" => {
            any(&["stop", "down", "pause", "kill"])
        }
        "kubectl" | "oc" => any(&["scale", "delete", "drain"]),
        "lvcreate" => call.has(&["-s", "--snapshot"]) || any(&["-s"]),
        "zfs" | "btrfs" => any(&["snapshot"]),
        "fsfreeze" | "xfs_freeze" => true,
        "psql" => {
            call.texts().any(|text| text.contains("pg_backup_start") || text.contains("pg_start_backup"))
        }
        "mysqladmin" => any(&["shutdown"]),
        "redis-cli" => any(&["SHUTDOWN", "shutdown"]),
        name => name.contains("killall") || (is_script(name) && name.contains("stop")),
    }
}

/// Whether something was stopped before call `index` of script `number`: in it, or in one before it under the same heading.
fn is_stopped(document: &Document<'_>, number: usize, index: usize) -> bool {
    let Some(script) = document.scripts.get(number) else { return false };
    if first_stop(script).is_some_and(|stop| stop < index) {
        return true;
    }
    // 20: the steps of one heading; a document of a thousand commands must not cost their square.
    document.scripts.get(number.saturating_sub(20)..number).unwrap_or_default().iter().any(|before| {
        before.heading == script.heading
            && script.origin != Origin::Cron
            && before.origin != Origin::Cron
            && first_stop(before).is_some()
    })
}

/// All calls of a document: number of the script, the script, number of the call, the call.
fn all<'d>(document: &'d Document<'_>) -> impl Iterator<Item = (usize, &'d Script, usize, &'d Call)> {
    document.scripts.iter().enumerate().flat_map(|(number, script)| {
        script.calls.iter().enumerate().map(move |(index, call)| (number, script, index, call))
    })
}

/// A text as a message quotes it: short, between backticks.
fn quoted(text: &str) -> String {
    // 60: a longer one pushes the words of the message off the screen, and the line below shows it anyway.
    const LONGEST: usize = 60;
    // A password in a URL, or what follows `password=`, is not repeated.
    let secret = text.find("://").and_then(|at| Some((at + 3, at + 3 + text.get(at + 3..)?.find('@')?)));
    let masked = match secret {
        Some((from, to)) => {
            format!("{}…{}", text.get(..from).unwrap_or_default(), text.get(to..).unwrap_or_default())
        }
        None => match text.to_ascii_lowercase().find("password=") {
            Some(at) => format!("{}…", text.get(..at + 9).unwrap_or_default()),
            None => text.to_owned(),
        },
    };
    let text = masked.as_str();
    let mut shown: String = text.trim().chars().take(LONGEST).collect();
    if text.trim().chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}
