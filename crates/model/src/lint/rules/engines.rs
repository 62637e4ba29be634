//! Other engines: SQLite, MySQL, Vault, etcd, Redis, and the files of any of them.

use super::{all, is_stopped, quoted, speaks_of_copies, stands_among_copies};
use crate::finding::FindingCode;
use crate::lint::call::Call;
use crate::lint::read::Document;
use crate::lint::shell::Word;
use crate::lint::{Draft, Out};

pub(super) fn apply(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    live_files(text, document, out);
    cluster_token(text, document, out);
    mysqldump(text, document, out);
    vault(text, document, out);
    unseen_snapshots(text, document, out);
}

/// Directories that an engine writes to while it runs.
const DATA: [(&str, &str); 11] = [
    ("/var/lib/postgresql", "pg_basebackup --format=tar …, or seaworthy backup"),
    ("/pgdata", "pg_basebackup --format=tar …, or seaworthy backup"),
    ("/var/lib/pgsql", "pg_basebackup --format=tar …, or seaworthy backup"),
    ("/var/lib/mysql", "mariabackup or xtrabackup, or mysqldump --single-transaction"),
    ("/var/lib/mariadb", "mariabackup, or mariadb-dump --single-transaction"),
    ("/var/lib/mongodb", "mongodump --oplog"),
    ("/data/db", "mongodump --oplog"),
    ("/var/lib/etcd", "etcdctl snapshot save"),
    ("/var/lib/vault", "vault operator raft snapshot save"),
    ("/var/lib/clickhouse", "BACKUP DATABASE … TO …"),
    ("/var/lib/influxdb", "influx backup"),
];

/// What a call copies: its source operands. `None` where it copies nothing.
fn copied(call: &Call) -> Option<Vec<&Word>> {
    match call.program.as_str() {
        "cp" | "rsync" | "scp" | "install" => {
            let operands = call.operands(
                "StmogeB",
                &[
                    "--target-directory",
                    "--exclude",
                    "--rsh",
                    "--bwlimit",
                    "--include",
                    "--backup-dir",
                    "--link-dest",
                ],
            );
            let (_, sources) = operands.split_last()?;
            Some(sources.to_vec())
        }
        "tar" if super::tar_does(call, 'c', "--create") => Some(call.words.iter().skip(1).collect()),
        "zip" | "7z" => Some(call.words.iter().skip(1).collect()),
        "restic" if call.words.iter().any(|word| word.text == "backup") => Some(call.words.iter().collect()),
        "borg" if call.says(&["create"]) => Some(call.words.iter().skip(1).collect()),
        "rclone" if call.words.iter().any(|word| matches!(word.text.as_str(), "copy" | "sync")) => {
            Some(call.words.iter().filter(|word| !word.text.starts_with('-')).skip(1).take(1).collect())
        }
        "gzip" | "zstd" if call.output().is_some() || call.has(&["-k", "--keep", "-c"]) => {
            Some(call.words.iter().collect())
        }
        "aws" if call.says(&["s3", "cp"]) || call.says(&["s3", "sync"]) => {
            Some(call.words.iter().filter(|word| !word.text.starts_with('-')).skip(2).take(1).collect())
        }
        _ => None,
    }
}

/// Whether a path is a SQLite database by its name, and not one of the files that only look like it.
fn is_sqlite(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let name = lower.rsplit('/').next().unwrap_or_default();
    let is_named = [".sqlite", ".sqlite3", ".db3"].iter().any(|ending| name.ends_with(ending));
    let is_db = name.ends_with(".db")
        && ![
            "aliases.db",
            "transport.db",
            "virtual.db",
            "access.db",
            "thumbs.db",
            "generic.db",
            "mailertable.db",
            "relay.db",
            "trust.db",
            "sasl_passwd.db",
            "canonical.db",
            "sender_access.db",
        ]
        .contains(&name);
    // A name with a date in it, or in a place of copies, is a copy already.
    let is_copy = speaks_of_copies(&lower)
        || name.contains("copy")
        || name.contains("$(")
        || lower.starts_with("/tmp")
        || lower.starts_with("/mnt");
    (is_named || is_db) && !is_copy
}

fn live_files(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    let takes_snapshots = document.says(&["zfs snapshot", "lvcreate", "btrfs subvolume snapshot"]);
    for (number, script, index, call) in all(document) {
        let Some(sources) = copied(call) else { continue };
        // Of a container's volume: its name tells what is in it.
        let is_to_copies = super::is_about_copies(call)
            || stands_among_copies(document, script)
            || !call.is(&["cp", "install", "gzip", "zstd"]);
        if let Some(word) = sources.iter().find(|word| is_sqlite(&word.text)).filter(|_| is_to_copies) {
            if is_stopped(document, number, index)
                || script.calls.iter().take(index.min(200)).any(|call| call.is(&["sqlite3"]))
            {
                continue;
            }
            Draft::new(FindingCode::LintLiveFiles, text, call.span(), &word.text)
                .says(format!("`{}` copies the SQLite database {} while it may be written to", call.program, quoted(&word.text)))
                .because("seen with SQLite 3.40: of 5,000 rows in its write-ahead log, a copy of the file held 0, without any error")
                .mend(format!("sqlite3 {} \".backup 'COPY.db'\"; or seaworthy backup; or stop its writer first", word.text))
                .report(out);
            continue;
        }
        let data = sources.iter().find_map(|word| {
            let path = word.text.trim_end_matches('/');
            DATA.iter()
                .find(|(start, _)| {
                    path == *start
                        || path.strip_prefix(start).is_some_and(|rest| {
                            rest.starts_with('/') && !speaks_of_copies(rest) && !rest.ends_with(".conf")
                        })
                })
                .map(|(_, fix)| (word, *fix))
        });
        if let Some((word, fix)) = data {
            if takes_snapshots || is_stopped(document, number, index) {
                continue;
            }
            Draft::new(FindingCode::LintLiveFiles, text, call.span(), &word.text)
                .says(format!("`{}` copies {}, the files of a database, while it may be running", call.program, quoted(&word.text)))
                .because("the files are of many instants: pages are torn, logs are missing; the engines' manuals allow it only for a stopped server or an atomic snapshot of the file system")
                .mend(format!("{fix}; or stop it first"))
                .report(out);
        }
    }
    volumes(text, document, out);
}

/// `docker run -v pgdata:/data … tar`: a volume of a database, packed beside its server.
fn volumes(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    const NAMES: [&str; 9] =
        ["pg", "postgres", "mysql", "maria", "mongo", "database", "sqlite", "db-data", "db_data"];
    for (number, script, index, call) in all(document) {
        if !call.is(&["docker", "podman"]) || !call.says(&["run"]) {
            continue;
        }
        let packs = script.calls.get(index + 1).is_some_and(|inner| {
            inner.pipeline == call.pipeline
                && inner.behind.contains(&"docker")
                && inner.is(&["tar", "cp", "zip", "rsync"])
                && (!inner.is(&["tar"]) || super::tar_does(inner, 'c', "--create"))
        });
        let volume = call.words.windows(2).find_map(|pair| {
            let [flag, value] = pair else { return None };
            let name = value.text.split(':').next().unwrap_or_default().to_ascii_lowercase();
            let is_volume =
                matches!(flag.text.as_str(), "-v" | "--volume") && !name.contains(['/', '.', '$']);
            let is_database = NAMES.iter().any(|word| name.contains(word))
                || name == "db"
                || name.ends_with("_db")
                || name.ends_with("-db");
            (is_volume && is_database).then(|| value.clone())
        });
        if let Some(volume) = volume.filter(|_| packs && !is_stopped(document, number, index)) {
            Draft::new(FindingCode::LintLiveFiles, text, call.span(), "docker volume")
                .says(format!("the volume {} of a database is packed while its server may be running", quoted(&volume.text)))
                .because("the files are of many instants: pages are torn, logs are missing")
                .mend("dump it: docker compose exec -T SERVICE pg_dump --format=custom …; or docker compose stop SERVICE first")
                .report(out);
        }
    }
}

fn cluster_token(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    const DATABASE: &str = "rancher/k3s/server/db";
    if !document.lower.contains(DATABASE) || document.says(&["server/token"]) {
        return;
    }
    for (_, _, _, call) in all(document) {
        let reads = call.texts().any(|word| word.contains(DATABASE))
            && (copied(call).is_some() || call.is(&["sqlite3"]));
        let packs_all = call.texts().any(|word| {
            word.trim_end_matches('/').ends_with("k3s/server")
                || word.trim_end_matches('/').ends_with("rancher/k3s")
        });
        if reads && !packs_all {
            Draft::new(FindingCode::LintClusterToken, text, call.span(), "server/token")
                .says("the database of k3s is copied, and its token is not")
                .because("k3s's documentation, \"Backup and Restore\": the token file has to be backed up too; with another token the restored datastore cannot be decrypted")
                .mend("copy /var/lib/rancher/k3s/server/token too, and keep it apart from the database")
                .report(out);
            return;
        }
    }
}

fn mysqldump(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    for (_, _, _, call) in all(document) {
        if !call.is(&["mysqldump", "mariadb-dump"]) {
            continue;
        }
        let is_consistent = call.has(&[
            "--single-transaction",
            "--lock-all-tables",
            "--no-data",
            "--master-data",
            "--source-data",
            "--dump-slave",
            "--dump-replica",
            "--version",
            "--help",
            "--print-defaults",
        ]) || call.has_short('x', "uphPSrw")
            || call.has_short('d', "uphPSrw")
            || call
                .words
                .iter()
                .any(|word| word.text.contains('$') && word.text.to_ascii_lowercase().contains("opt"));
        let has_subject = !call
            .operands(
                "uphPSrw",
                &[
                    "--user",
                    "--host",
                    "--port",
                    "--socket",
                    "--result-file",
                    "--where",
                    "--ignore-table",
                    "--defaults-file",
                ],
            )
            .is_empty()
            || call.has(&["--all-databases", "--databases", "-A", "-B"]);
        if !is_consistent && has_subject {
            Draft::new(FindingCode::LintDumpNotOneInstant, text, call.span(), &call.program)
                .says(if call.has(&["--skip-lock-tables", "--skip-opt"]) {
                    format!("`{}` without locks and without --single-transaction reads each table at another instant", call.program)
                } else {
                    format!("`{}` without --single-transaction keeps writers out while it runs, and several databases are of several instants", call.program)
                })
                .because("the manual of mysqldump: --lock-tables, which is the default, locks the tables of one database at a time; --single-transaction reads all of InnoDB at one instant and locks nothing")
                .mend(format!("{} --single-transaction --routines --triggers --events …", call.program))
                .report(out);
        }
    }
}

fn vault(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    // `unseal keys` are things; `unseal` is a step.
    let has_step = document.lower.match_indices("unseal").any(|(at, word)| {
        let rest = document.lower.get(at + word.len()..).unwrap_or_default();
        !rest.starts_with(" key") && !rest.starts_with("-key") && !rest.starts_with("_key")
    }) || document.says(&[
        "auto-unseal",
        "auto_unseal",
        "seal \"awskms\"",
        "seal \"transit\"",
        "seal \"gcpckms\"",
        "seal \"azurekeyvault\"",
    ]);
    if has_step {
        return;
    }
    for (_, _, _, call) in all(document) {
        if call.is(&["vault", "bao"]) && call.says(&["operator", "raft", "snapshot", "restore"]) {
            Draft::new(FindingCode::LintNoUnseal, text, call.span(), "vault operator raft snapshot restore")
                .says("Vault is restored here, and never unsealed")
                .because("after a restore Vault is sealed with the keys of the cluster that took the snapshot; `vault status` says so, and nothing can be read")
                .mend("vault operator unseal (once for each key share, of the cluster of the snapshot), then vault status and a secret that is known")
                .report(out);
            return;
        }
    }
}

fn unseen_snapshots(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    let looks_at_etcd = document.says(&["snapshot status", "snapshot restore"]);
    let looks_at_redis = document.says(&[
        "lastsave",
        "rdb_bgsave_in_progress",
        "--rdb",
        "redis-cli save",
        " save\n",
        "shutdown save",
    ]);
    for (number, _, index, call) in all(document) {
        if call.is(&["etcdctl"]) && call.says(&["snapshot", "save"]) && !looks_at_etcd {
            Draft::new(FindingCode::LintSnapshotUnseen, text, call.span(), "etcdctl snapshot save")
                .says("nobody looks at this snapshot of etcd before it counts as a copy")
                .because("`snapshot save` may be cut off by a full disk or a lost connection; `snapshot status` reads it and tells its hash, revision and size")
                .mend("etcdutl snapshot status FILE --write-out=table, and note the revision")
                .report(out);
        }
        let dump = copied(call)
            .and_then(|sources| sources.into_iter().find(|word| word.text.ends_with("dump.rdb")).cloned());
        if let Some(word) = dump.filter(|word| {
            !looks_at_redis && !speaks_of_copies(&word.text.to_ascii_lowercase().replace("dump.rdb", ""))
        }) && !is_stopped(document, number, index)
            && !document.refuses(document.line_of(call.program_span.start))
        {
            Draft::new(FindingCode::LintSnapshotUnseen, text, call.span(), "dump.rdb")
                .says(format!("{} is as old as the last time that Redis saved, and nothing here says when that was", quoted(&word.text)))
                .because("Redis writes it by its own `save` rules; BGSAVE returns before it has been written, and LASTSAVE says when it was")
                .mend("redis-cli --rdb FILE, which takes a new one and waits for it")
                .report(out);
        }
    }
}
