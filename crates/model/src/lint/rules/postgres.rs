//! PostgreSQL's own tools: what they refuse, and what they let pass.

use super::{
    DUMP_VALUED, PSQL_VALUED, RESTORE_VALUED, all, is_restore, is_scratch, is_script, quoted,
    speaks_of_copies, speaks_of_recovery,
};
use crate::finding::FindingCode;
use crate::lint::call::Call;
use crate::lint::read::{Document, Kind, Script};
use crate::lint::words::is_refusal;
use crate::lint::{Draft, Out};

/// pg_basebackup's short options with a value.
const BASE_VALUED: &str = "DFrTXclZhpUdsS";

pub(super) fn apply(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    encrypted_input(text, document, out);
    listing_as_proof(text, document, out);
    options(text, document, out);
    recovery_conf(text, document, out);
    errors_passed(text, document, out);
    restore_over(text, document, out);
    restored_twice(text, document, out);
    counted(text, document, out);
    archive_command(text, document, out);
}

fn encrypted_input(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    const ENDINGS: [&str; 5] = [".gpg", ".age", ".enc", ".asc", ".pgp"];
    for (_, _, _, call) in all(document) {
        let reads: Vec<&crate::lint::shell::Word> = match call.program.as_str() {
            "pg_restore" => call.operands(
                RESTORE_VALUED,
                &[
                    "--dbname",
                    "--file",
                    "--use-list",
                    "--jobs",
                    "--table",
                    "--schema",
                    "--host",
                    "--username",
                    "--port",
                ],
            ),
            "psql" | "mysql" | "mariadb" | "sqlite3" | "mongorestore" => call.input().into_iter().collect(),
            "gunzip" | "zcat" | "unzstd" | "zstdcat" | "unzip" => call.words.iter().collect(),
            "gzip" | "zstd"
                if call.has_short('d', "")
                    || call.has_short('t', "")
                    || call.has(&["--decompress", "--test"]) =>
            {
                call.words.iter().collect()
            }
            "tar" if super::tar_does(call, 'x', "--extract") || super::tar_does(call, 't', "--list") => {
                if call.texts().any(|word| {
                    word.contains("gpg") && !ENDINGS.iter().any(|ending| word.ends_with(ending))
                        || word.starts_with("-I")
                        || word.starts_with("--use-compress")
                }) {
                    continue;
                }
                call.words.iter().collect()
            }
            _ => continue,
        };
        let Some(word) = reads.into_iter().find(|word| {
            !word.text.starts_with('-')
                && ENDINGS.iter().any(|ending| word.text.to_ascii_lowercase().ends_with(ending))
        }) else {
            continue;
        };
        let ending = word.text.rsplit('.').next().unwrap_or_default();
        Draft::new(FindingCode::LintEncryptedInput, text, call.program_span.start..word.span.end, &call.program)
            .says(format!("`{}` cannot read {}: it is encrypted", call.program, quoted(&word.text)))
            .because("seen with PostgreSQL 15: pg_restore ends with 1, \"input file does not appear to be a valid archive\"; the other tools refuse their input in the same way")
            .mend(match ending {
                "age" => format!("age --decrypt -i KEY {} | {} …", word.text, call.program),
                "enc" => format!("decrypt it first, into a pipe: openssl enc -d … | {} …", call.program),
                _ => format!("gpg --decrypt {} | {} …", word.text, call.program),
            })
            .report(out);
    }
}

fn listing_as_proof(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    let mut is_restored = false;
    let mut is_read_back = false;
    let mut has_list = false;
    let mut reads_data = false;
    for (_, _, _, call) in all(document) {
        let is_of_postgres = call.is(&["pg_restore", "psql"])
            || (is_script(&call.program) && call.program.contains("restore"));
        is_restored |= is_restore(call) && is_of_postgres;
        is_read_back |= is_restore(call) && !call.is(&["pg_restore", "psql", "mysql", "mariadb", "vault"]);
        has_list |=
            call.is(&["pg_restore"]) && (call.has(&["--use-list"]) || call.has_short('L', RESTORE_VALUED));
        reads_data |= call.is(&["restic"])
            && (call.has(&["--read-data", "--read-data-subset"])
                || call.words.iter().any(|word| word.text == "dump" || word.text == "mount"));
    }
    for (_, script, _, call) in all(document) {
        let is_list = call.is(&["pg_restore"])
            && (call.has(&["--list"]) || call.has_short('l', RESTORE_VALUED))
            && call.output().is_none()
            && !call.is_nested;
        if is_list && !is_restored && !has_list {
            Draft::new(FindingCode::LintListIsNoProof, text, call.span(), "pg_restore --list")
                .says("`pg_restore --list` reads the table of contents, not the data, and nothing here restores")
                .because("seen with PostgreSQL 15: of an archive cut to a third it lists every table and ends with 0; the restore of it ends with 1, \"end of file\"")
                .mend("seaworthy drill SERVICE; or createdb scratch && pg_restore --exit-on-error -d scratch FILE, and compare")
                .report(out);
        }
        let is_structure = call.is(&["restic"]) && call.words.iter().any(|word| word.text == "check");
        // A page that explains the tool shows the command too; a job that relies on it is meant.
        let is_relied_on = script.origin.is_unattended() || script.heading.contains("verif");
        if is_structure && is_relied_on && !reads_data && !is_read_back {
            Draft::new(FindingCode::LintListIsNoProof, text, call.span(), "restic check")
                .says("`restic check` reads the structure, not the data, and nothing here reads it or restores")
                .because("seen with restic 0.14: with three bytes of a pack overwritten, `check` ends with 0 and `check --read-data` with 1")
                .mend("restic check --read-data-subset=10% (or --read-data), and a restore: seaworthy drill")
                .report(out);
        }
    }
}

fn options(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    let mut refuse = |call: &Call, code: FindingCode, what: String, why: &str, fix: &str| {
        Draft::new(code, text, call.span(), &call.program).says(what).because(why).mend(fix).report(out);
    };
    for (_, _, _, call) in all(document) {
        match call.program.as_str() {
            "pg_basebackup" => {
                let format = call.value(&["--format"], Some('F'), BASE_VALUED).unwrap_or_default();
                let method = call.value(&["--compress"], Some('Z'), BASE_VALUED);
                let is_gzip = call.has(&["--gzip"]) || call.has_short('z', BASE_VALUED);
                let is_compressed = is_gzip
                    || method.as_deref().is_some_and(|method| {
                        !matches!(method, "0" | "none" | "") && !method.starts_with("server-")
                    });
                if is_compressed && !matches!(format.as_str(), "t" | "tar") {
                    refuse(
                        call,
                        FindingCode::LintBaseBackupFormat,
                        "`pg_basebackup` compresses only tar files, and is not told to write any".to_owned(),
                        "seen with PostgreSQL 15: it ends with 1, \"only tar mode backups can be compressed\"; 15 and newer do it with `server-gzip`",
                        "add --format=tar, or write --compress=server-gzip",
                    );
                }
            }
            "pg_restore" => {
                if call.has_short('D', RESTORE_VALUED) || call.has(&["--pgdata"]) {
                    refuse(
                        call,
                        FindingCode::LintOptionUnknown,
                        "`pg_restore` has no option -D: it does not restore the files of a cluster"
                            .to_owned(),
                        "seen with PostgreSQL 15 and 17: it ends with 1, \"invalid option -- 'D'\"",
                        "unpack what pg_basebackup wrote into an empty data directory, set restore_command, make an empty recovery.signal, start",
                    );
                }
                let operands = call.operands(
                    RESTORE_VALUED,
                    &[
                        "--dbname",
                        "--file",
                        "--use-list",
                        "--jobs",
                        "--table",
                        "--schema",
                        "--host",
                        "--username",
                        "--port",
                    ],
                );
                let jobs = call.value(&["--jobs"], Some('j'), RESTORE_VALUED);
                if jobs.is_some_and(|jobs| jobs != "1")
                    && operands.is_empty()
                    && (call.stage > 0 || call.input().is_some())
                {
                    refuse(
                        call,
                        FindingCode::LintOptionUnknown,
                        "`pg_restore` cannot work in parallel on what it reads from a pipe".to_owned(),
                        "seen with PostgreSQL 15: it ends with 1, \"parallel restore from standard input is not supported\"",
                        "give it a file, or leave --jobs out",
                    );
                }
                let plain = operands.iter().find(|word| {
                    let lower = word.text.to_ascii_lowercase();
                    [".sql", ".sql.gz", ".sql.zst", ".sql.bz2", ".sql.xz"]
                        .iter()
                        .any(|ending| lower.ends_with(ending))
                });
                if let Some(plain) = plain {
                    refuse(
                        call,
                        FindingCode::LintWrongRestorer,
                        format!("`pg_restore` does not read SQL: {} goes into psql", quoted(&plain.text)),
                        "seen with PostgreSQL 15: it ends with 1, \"input file appears to be a text format dump. Please use psql.\"",
                        "psql --set ON_ERROR_STOP=1 --single-transaction -d NEW_DATABASE < FILE; or dump with --format=custom",
                    );
                }
            }
            "pg_dump" => {
                let format = call.value(&["--format"], Some('F'), DUMP_VALUED).unwrap_or_default();
                let is_directory = matches!(format.as_str(), "d" | "directory");
                let jobs = call.value(&["--jobs"], Some('j'), DUMP_VALUED);
                if jobs.is_some_and(|jobs| jobs != "1" && !jobs.is_empty())
                    && !is_directory
                    && !format.contains('$')
                {
                    refuse(
                        call,
                        FindingCode::LintOptionUnknown,
                        "`pg_dump` works in parallel only into a directory".to_owned(),
                        "seen with PostgreSQL 15: it ends with 1, \"parallel backup only supported by the directory format\"",
                        "add --format=directory --file=DIRECTORY, or leave --jobs out",
                    );
                } else if is_directory && call.value(&["--file"], Some('f'), DUMP_VALUED).is_none() {
                    refuse(
                        call,
                        FindingCode::LintOptionUnknown,
                        "`pg_dump` is told to write a directory and not which".to_owned(),
                        "seen with PostgreSQL 15: it ends with 1, \"no output directory specified\"",
                        "add --file=DIRECTORY",
                    );
                }
            }
            "pg_dumpall" => {
                let format = call.value(&["--format"], Some('F'), "defhlpUS");
                if format.is_some_and(|format| !matches!(format.as_str(), "p" | "plain")) {
                    refuse(
                        call,
                        FindingCode::LintOptionUnknown,
                        "`pg_dumpall` writes SQL and has no other format".to_owned(),
                        "seen with PostgreSQL 15 and 17: it ends with 1, \"invalid option -- 'F'\"",
                        "pg_dumpall --globals-only for the roles, and pg_dump --format=custom for each database",
                    );
                }
            }
            "borg"
                if !call.says(&["init"])
                    && !call.says(&["rcreate"])
                    && !call.says(&["repo-create"])
                    && call.has(&["--encryption"]) =>
            {
                let verb = call
                    .words
                    .iter()
                    .find(|word| !word.text.starts_with('-'))
                    .map_or("create", |word| word.text.as_str());
                refuse(
                    call,
                    FindingCode::LintOptionUnknown,
                    format!(
                        "`borg {verb}` has no option --encryption: a repository is encrypted when it is made"
                    ),
                    "seen with borg 1.2.4: \"argument ARCHIVE: \"repokey\": No archive specified\", and nothing is backed up",
                    "borg init --encryption=repokey-blake2 REPOSITORY, once; and leave it out here",
                );
            }
            _ => {}
        }
    }
}

fn recovery_conf(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    const NAME: &str = "recovery.conf";
    // Who speaks of an old server, or knows what came after, is not misled.
    let knows = |lower: &str| {
        is_refusal(lower)
            || [
                "recovery.signal",
                "postgresql 9",
                "postgresql 10",
                "postgresql 11",
                "postgresql/9",
                "postgresql/10",
                "postgresql/11",
                "before 12",
                "until 11",
                "older than 12",
                "pgbouncer",
                "migrat",
            ]
            .iter()
            .any(|word| lower.contains(word))
    };
    if !document.lower.contains(NAME)
        || document.says(&[
            "postgresql/9.",
            "postgresql/10/",
            "postgresql/11/",
            "postgres:9",
            "postgres:10",
            "postgres:11",
        ])
    {
        return;
    }
    let mut first: Option<Draft> = None;
    for index in 0..document.lines.len() {
        let lower = document.lower(index);
        let Some(at) = lower.find(NAME) else { continue };
        if knows(lower) {
            continue;
        }
        let start = document.lines.get(index).map_or(0, |line| line.span.start) + at;
        let span = start..start + NAME.len();
        first = Some(match first {
            None => Draft::new(FindingCode::LintRecoveryConf, text, span, NAME)
                .says("PostgreSQL 12 and newer do not start with a recovery.conf")
                .because("seen with PostgreSQL 15: FATAL, \"using recovery command file \"recovery.conf\" is not supported\"")
                .mend("put restore_command and recovery_target_time into postgresql.auto.conf, and make an empty `recovery.signal`"),
            Some(draft) => draft.with(text, span, ""),
        });
    }
    if let Some(draft) = first {
        draft.report(out);
    }
}

/// Whether what is fed to a client is a dump: by its name, by the heading, by the name of the script.
fn feeds_a_dump(document: &Document<'_>, script: &Script, name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    speaks_of_copies(&lower)
        || speaks_of_recovery(&lower)
        || [".sql.gz", ".sql.zst", ".sql.xz", ".sql.bz2"].iter().any(|ending| lower.contains(ending))
        || speaks_of_recovery(&script.heading)
        || (document.kind != Kind::Prose && speaks_of_recovery(&document.name.to_ascii_lowercase()))
}

fn errors_passed(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    if document.says(&["on_error_stop"]) && document.kind == Kind::Shell {
        return;
    }
    for (number, script, index, call) in all(document) {
        if call.is(&["mysql", "mariadb"])
            && (call.has(&["--force"]) || call.has_short('f', "DeEhPpuSw"))
            && (call.input().is_some() || call.stage > 0)
        {
            Draft::new(FindingCode::LintErrorsPassed, text, call.span(), &call.program)
                .says(format!(
                    "`{} --force` goes on after an error, so half a restore looks like a whole one",
                    call.program
                ))
                .because("the manual of mysql: \"--force: continue even if an SQL error occurs\"")
                .mend("leave --force out, and restore into a new database")
                .report(out);
        }
        if !call.is(&["psql"]) || call.texts().any(|word| word.to_ascii_uppercase().contains("ON_ERROR_STOP"))
        {
            continue;
        }
        let fed = if let Some(file) = call.value(&["--file"], Some('f'), PSQL_VALUED) {
            Some(file)
        } else if let Some(input) = call.input() {
            Some(input.text.clone())
        } else if call.stage > 0 {
            let before = document
                .scripts
                .get(number)
                .and_then(|script| index.checked_sub(1).and_then(|before| script.calls.get(before)));
            before.filter(|before| before.pipeline == call.pipeline).and_then(|before| {
                let is_source = matches!(
                    before.program.as_str(),
                    "gunzip"
                        | "zcat"
                        | "gzip"
                        | "zstd"
                        | "zstdcat"
                        | "unzstd"
                        | "cat"
                        | "gpg"
                        | "age"
                        | "openssl"
                        | "aws"
                        | "rclone"
                        | "bzcat"
                        | "bunzip2"
                        | "xzcat"
                        | "pv"
                        | "pg_dump"
                        | "pg_dumpall"
                        | "lz4"
                );
                is_source.then(|| {
                    before.words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ") + " dump"
                })
            })
        } else {
            None
        };
        let Some(fed) = fed.filter(|fed| fed != "-" && feeds_a_dump(document, script, fed)) else { continue };
        if fed.starts_with("<(…)") && !is_restore(call) {
            continue;
        }
        let is_single = call.has(&["--single-transaction"]) || call.has_short('1', PSQL_VALUED);
        Draft::new(FindingCode::LintErrorsPassed, text, call.span(), "psql")
            .says(if is_single {
                "`psql --single-transaction` alone ends with 0 even when everything was rolled back"
            } else {
                "`psql` goes on after an error and ends with 0"
            })
            .because("seen with PostgreSQL 15: a dump read into a database that was not empty gave 3 errors and exit code 0; where tables have no key, every run doubles the rows")
            .mend("psql --no-psqlrc --set ON_ERROR_STOP=1 --single-transaction -d NEW_DATABASE …; or seaworthy restore SERVICE --to postgres:NEW_DATABASE")
            .report(out);
    }
}

/// The database that a call drops.
fn dropped(call: &Call) -> Option<String> {
    match call.program.as_str() {
        "dropdb" => call
            .operands("hpUe", &["--host", "--port", "--username", "--maintenance-db"])
            .last()
            .map(|word| word.text.clone()),
        "psql" | "mysql" | "mariadb" => {
            let statement = call
                .words
                .iter()
                .map(|word| word.text.as_str())
                .find(|text| text.to_ascii_lowercase().contains("drop database"))?;
            let at = statement.to_ascii_lowercase().find("drop database")? + "drop database".len();
            let rest = statement.get(at..)?.trim_start();
            let rest = if rest.to_ascii_lowercase().starts_with("if exists") {
                rest.get(9..)?.trim_start()
            } else {
                rest
            };
            let name: String =
                rest.chars().take_while(|c| !c.is_whitespace() && !matches!(c, ';' | '(')).collect();
            let name = name.trim_matches(['"', '`', '\\', '\'']).to_owned();
            (!name.is_empty()).then_some(name)
        }
        _ => None,
    }
}

fn restore_over(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    for (_, script, index, call) in all(document) {
        if call.is(&["pg_restore"]) && (call.has(&["--clean"]) || call.has_short('c', RESTORE_VALUED)) {
            let target = call.value(&["--dbname"], Some('d'), RESTORE_VALUED).unwrap_or_default();
            let is_new = call.has(&["--create"]) || call.has_short('C', RESTORE_VALUED);
            // Into a file, or into a cluster that is itself a scratch one.
            if target.is_empty()
                || is_scratch(&target)
                || (is_new && is_scratch(&script.heading))
                || call.texts().any(|word| word.to_ascii_lowercase().contains("scratch"))
            {
                continue;
            }
            Draft::new(FindingCode::LintRestoreOver, text, call.span(), "pg_restore --clean")
                .says(format!("`pg_restore --clean` drops what is in {} before it knows whether the archive is good", quoted(&target)))
                .because("an archive that turns out to be cut leaves neither the old data nor the new; seen with PostgreSQL 15: it goes on after errors and ends with 1 when it is too late")
                .mend("createdb NEW && pg_restore --exit-on-error -d NEW FILE; look at it; then ALTER DATABASE … RENAME TO …")
                .report(out);
            continue;
        }
        let Some(name) = dropped(call).filter(|name| !is_scratch(name)) else { continue };
        // Whoever took a copy or a rename just before has something to go back to. 40: the steps of a restore.
        let before = script.calls.get(index.saturating_sub(40)..index).unwrap_or_default();
        let is_saved = before.iter().any(|call| {
            super::is_dump(call) || call.texts().any(|text| text.to_ascii_lowercase().contains("rename to"))
        });
        let after = script.calls.get(index + 1..(index + 40).min(script.calls.len())).unwrap_or_default();
        let ends = [format!("/{name}"), format!("={name}"), format!(" {name}")];
        let is_restored = after
            .iter()
            .filter(|call| is_restore(call) || call.is(&["pg_restore", "psql", "mysql", "mariadb"]))
            .any(|call| {
                call.texts().any(|text| {
                    text.trim_matches(['"', '\'']) == name
                        || text.ends_with(&ends[0])
                        || text.ends_with(&ends[1])
                        || text.contains(&ends[2])
                })
            });
        if is_restored && !is_saved && !is_scratch(&script.heading.replace("restore", "")) {
            Draft::new(FindingCode::LintRestoreOver, text, call.span(), &call.program)
                .says(format!("database {} is dropped before the copy that is to replace it was read once", quoted(&name)))
                .because("if the copy is damaged, what was left of the database is gone too")
                .mend("restore into a new database, look at it, then exchange the names; seaworthy restore SERVICE --to postgres:NEW_DATABASE")
                .report(out);
        }
    }
}

/// Two restores into one place, of which the second one is of the newest copy: what the first one was for goes, and with it
/// all that was written since that copy.
fn restored_twice(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    for script in &document.scripts {
        let restores: Vec<&Call> = script
            .calls
            .iter()
            .filter(|call| is_script(&call.program) && call.program.starts_with("restore"))
            .collect();
        for pair in restores.windows(2) {
            let [first, second] = pair else { continue };
            let is_newest = |call: &Call| {
                call.words.iter().any(|word| {
                    let lower = word.text.to_ascii_lowercase();
                    lower.contains("ls -t") || lower.contains("latest") || lower.contains("newest")
                })
            };
            let has_target = |call: &Call| {
                call.words.len() > 1 || call.words.iter().any(|word| word.text.starts_with("--"))
            };
            if first.program == second.program
                && !is_newest(first)
                && is_newest(second)
                && !has_target(first)
                && !has_target(second)
            {
                Draft::new(FindingCode::LintRestoreOver, text, second.span(), &second.program)
                    .says("the newest copy is restored over the live database: what was written since it was made is lost")
                    .because("the first of the two restores has already replaced the live database, so there is no current one to go back to")
                    .mend("restore the older copy beside it, and take the rows over: seaworthy restore SERVICE --point before:TIME --table TABLE --to postgres:NEW_DATABASE")
                    .with(text, first.span(), "the first restore goes into the same place")
                    .report(out);
            }
        }
    }
}

fn counted(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    for script in &document.scripts {
        let Some(restored) = script.calls.iter().position(is_restore) else { continue };
        let mut draft: Option<Draft> = None;
        for call in script.calls.iter().skip(restored + 1) {
            let is_count = call.is(&["psql", "mysql", "mariadb", "sqlite3"])
                && call.stages == 1
                && !call.is_nested
                && !call.is_condition
                && call.words.iter().any(|word| {
                    let lower = word.text.to_ascii_lowercase();
                    let squeezed: String = lower.chars().filter(|c| !c.is_whitespace()).collect();
                    squeezed.starts_with("selectcount(*)from") && !lower.contains(" where ")
                });
            if is_count {
                draft = Some(match draft {
                    None => Draft::new(FindingCode::LintCountIsNoProof, text, call.span(), "SELECT COUNT(*)")
                        .says("a row count that is compared with nothing shows that a table is not empty, not that it is right")
                        .because("seen with PostgreSQL 15: a dump that was read in twice passes a count greater than 0")
                        .mend("compare with the count and the content that were recorded at the backup: seaworthy drill SERVICE"),
                    Some(draft) => draft.with(text, call.span(), ""),
                });
            }
        }
        if let Some(draft) = draft {
            draft.report(out);
        }
    }
    let mut draft: Option<Draft> = None;
    for index in document.prose_lines() {
        let lower = document.lower(index);
        let Some(at) = lower
            .find("count")
            .filter(|_| lower.contains("> 0") || lower.contains("greater than 0") || lower.contains(">0"))
        else {
            continue;
        };
        if !["row", "table", "record"].iter().any(|word| lower.contains(word)) || is_refusal(lower) {
            continue;
        }
        let start = document.lines.get(index).map_or(0, |line| line.span.start);
        let span = start + at..start + lower.trim_end().len();
        draft = Some(match draft {
            None => Draft::new(FindingCode::LintCountIsNoProof, text, span, "count > 0")
                .says("a count greater than 0 is no criterion for a restore")
                .because("a restore that lost all but one row passes it, and so does one that holds every row twice")
                .mend("demand equality with what was recorded at the backup: seaworthy drill SERVICE"),
            Some(draft) => draft.with(text, span, ""),
        });
    }
    if let Some(draft) = draft {
        draft.report(out);
    }
}

fn archive_command(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    const NAME: &str = "archive_command";
    for index in 0..document.lines.len() {
        let lower = document.lower(index);
        let Some(at) = lower.find(NAME) else { continue };
        let line = document.line(index);
        let rest = line.get(at + NAME.len()..).unwrap_or_default();
        let value = rest.trim_start_matches(['"', '\'', '`', ' ', ':', '=', '\t']);
        let is_setting = rest.trim_start_matches(['"', '\'', '`', ' ', '\t']).starts_with(['=', ':'])
            || rest.to_ascii_lowercase().trim_start().starts_with("to ");
        let is_comment = lower.trim_start().starts_with('#') && document.kind != Kind::Prose;
        if !is_setting || is_comment {
            continue;
        }
        let lower_value = value.to_ascii_lowercase();
        let copies = ["cp ", "scp ", "dd ", "cat "].iter().any(|program| {
            lower_value.starts_with(program)
                || lower_value.contains(&format!(" {program}"))
                || lower_value.contains(&format!("/{program}"))
        }) && lower_value.contains("%p");
        // A temporary name that is renamed, or a sync, is what is missing otherwise.
        let is_careful = [
            "mv ",
            "sync",
            "rename",
            "pgbackrest",
            "wal-g",
            "wal-push",
            "barman",
            "archive-push",
            "pgmoneta",
        ]
        .iter()
        .any(|word| lower_value.contains(word));
        let discards = ["true", "/bin/true", "exit 0", ":"]
            .contains(&value.trim_end_matches(['"', '\'', '`', ',', ';', ' ']).trim());
        let start = document.lines.get(index).map_or(0, |line| line.span.start) + at;
        let span = start..start + line.get(at..).unwrap_or_default().trim_end().len();
        if discards && !document.says(&["archive_mode = off", "archive_mode=off"]) && !is_refusal(lower) {
            Draft::new(FindingCode::LintArchiveCommand, text, span, NAME)
                .says("this archive_command throws every segment away and reports success")
                .because("PostgreSQL removes a segment once the command has ended with 0")
                .mend("archive_mode = off where no archive is wanted")
                .report(out);
        } else if copies && !is_careful && !is_refusal(lower) {
            Draft::new(FindingCode::LintArchiveCommand, text, span, NAME)
                .says("this archive_command can leave half a segment under its final name, and does not wait for the disk")
                .because("cp writes under the final name and does not sync; after a crash the half segment stays, `test ! -f` refuses to replace it, and archiving stands still")
                .mend("archive_command = 'pgbackrest --stanza=NAME archive-push %p', or wal-g wal-push; else copy to a temporary name, sync, rename")
                .report(out);
        }
    }
}
