//! Three checkers that real organisations rely on, run for real on the same copy with stock tools.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use seaworthy_testkit::product::{PASSWORD, wait};
use sha2::{Digest as _, Sha256};

use crate::Outcome;
use crate::case::{Ask, Kind, Naive, Naives};
use crate::stage::{Counts, Stage, count_postgres, count_sqlite, count_tree, remove};

/// How long a stock tool may take for an estate of this size.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks all three about the newest copy in the repository; where the product was asked for a moment behind it, about that.
pub(crate) fn ask(stage: &Stage, asked: &Ask) -> Outcome<Naives> {
    let checksum = checksums(&stage.product.repository())?;
    let place = stage.product.path().join("naive");
    remove(&place)?;
    let mut restic = stage.stock(&stage.restic);
    restic
        .args(["--no-cache", "--no-lock", "-r"])
        .arg(stage.product.repository())
        .args(["restore", "latest", "--target"])
        .arg(&place)
        .env("RESTIC_PASSWORD", PASSWORD);
    let mut child = restic.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    // On a damaged repository it tries again for many minutes; a restore of a few kilobytes that does not end is an alarm.
    let ended = wait(&mut child, PATIENCE)?;
    if ended.is_none() {
        child.kill()?;
        child.wait()?;
    }
    let restored = ended.is_some_and(|status| status.success());
    let (exit, counts) = if restored { content(stage, &place, asked)? } else { (Naive::Alarm, Naive::Alarm) };
    remove(&place)?;
    Ok(Naives { exit, checksum, counts })
}

/// What a checker says of something that failed.
fn naive(is_good: bool) -> Naive {
    if is_good { Naive::Pass } else { Naive::Alarm }
}

/// `sha256sum -c`: every object hashes to its name.
fn checksums(repository: &Path) -> Outcome<Naive> {
    let mut open = vec![
        repository.join("data"),
        repository.join("index"),
        repository.join("snapshots"),
        repository.join("keys"),
    ];
    open.extend(Some(repository.join("journal")).filter(|journal| journal.exists()));
    let mut seen = 0;
    while let Some(directory) = open.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Naive::Alarm),
            Err(error) => return Err(error.into()),
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
                continue;
            }
            seen += 1;
            let digest = Sha256::digest(fs::read(entry.path())?);
            let text: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            if entry.file_name().to_str() != Some(&text) {
                return Ok(Naive::Alarm);
            }
        }
    }
    Ok(naive(seen > 0))
}

/// Whether the tools end with success, and whether what came back counts as many as the source.
fn content(stage: &Stage, place: &Path, asked: &Ask) -> Outcome<(Naive, Naive)> {
    match stage.kind {
        Kind::Postgres => {
            let server = stage.server()?;
            let archive = place.join("database");
            open_up(place)?;
            let archive = archive.to_string_lossy().into_owned();
            let listed = server.run("pg_restore", &["--list", &archive], "").is_ok();
            server.sql("postgres", "DROP DATABASE IF EXISTS naive WITH (FORCE)")?;
            server.create("naive", &["-T", "template0"])?;
            let restored = server.run("pg_restore", &["-d", "naive", &archive], "").is_ok();
            let counts = count_postgres(server, "naive")?;
            server.sql("postgres", "DROP DATABASE naive WITH (FORCE)")?;
            Ok((naive(listed && restored), naive(agree(&counts, &stage.counts))))
        }
        Kind::Cluster => cluster(stage, place, ""),
        Kind::Log => {
            let archive = place.join("archive");
            crate::journal::archive(stage, &archive)?;
            fs::write(place.join("data/recovery.signal"), "")?;
            cluster(stage, place, &crate::journal::recovery(asked, &archive))
        }
        Kind::Sqlite => {
            let Some(file) = first_database(place)? else { return Ok((Naive::Alarm, Naive::Alarm)) };
            let opened = rusqlite::Connection::open(&file).and_then(|connection| {
                connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))
            });
            let counts = count_sqlite(&file).is_ok_and(|counts| agree(&counts, &stage.counts));
            Ok((naive(opened.is_ok()), naive(counts)))
        }
        Kind::Files => {
            let root = place.join(stage.source.strip_prefix("/")?);
            let counts = count_tree(&root).is_ok_and(|counts| counts == stage.counts);
            Ok((Naive::Pass, naive(counts)))
        }
    }
}

/// Whether a server starts on what came back with these settings, and whether its tables count as many rows.
fn cluster(stage: &Stage, place: &Path, settings: &str) -> Outcome<(Naive, Naive)> {
    let server = stage.server()?;
    let data = place.join("data");
    let as_server = server.path().join("data").display().to_string();
    let own = ["-R", "--reference", &as_server, &place.display().to_string()].map(str::to_owned);
    if !std::process::Command::new("chown").args(own).status()?.success() {
        return Err("what came back cannot be given to the server's user".into());
    }
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700))?;
    // As a person would who has the files and nothing else.
    fs::write(data.join("postgresql.auto.conf"), settings)?;
    let socket = server.host();
    let options = format!("-p 5099 -k {socket} -c listen_addresses= -c fsync=off");
    let (data, log) = (data.display().to_string(), place.join("log").display().to_string());
    let start = ["-D", &data, "-o", &options, "-l", &log, "-t", "8", "-w", "-s", "start"];
    let is_in_recovery = || {
        server.run("psql", &["-XAt", "-p", "5099", "-d", "postgres", "-c", "SELECT pg_is_in_recovery()"], "")
    };
    let mut started = server.run("pg_ctl", &start, "").and_then(|_| is_in_recovery());
    let began = Instant::now();
    // It lets people in before it is at the end.
    while started.as_ref().is_ok_and(|said| said.trim() == "t") && began.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(50));
        started = is_in_recovery();
    }
    let is_open = started.is_ok_and(|said| said.trim() == "f");
    let count = || {
        let list = stage.counts.keys().map(|table| format!("SELECT '{table}', count(*) FROM {table}"));
        let sql = list.collect::<Vec<_>>().join(" UNION ALL ");
        server.run("psql", &["-XAt", "-p", "5099", "-d", "shop", "-c", &sql], "")
    };
    let counts = count().is_ok_and(|said| {
        let found: Counts = said
            .lines()
            .filter_map(|line| line.rsplit_once('|'))
            .filter_map(|(table, count)| Some((table.to_owned(), count.parse().ok()?)))
            .collect();
        agree(&found, &stage.counts)
    });
    // It may not have started, or not have ended by now.
    server.run("pg_ctl", &["-D", &data, "-m", "immediate", "-s", "stop"], "").ok();
    Ok((naive(is_open), naive(counts)))
}

/// Every table of the source is there with as many rows. A table too many is nobody's business.
fn agree(found: &Counts, wanted: &Counts) -> bool {
    wanted.iter().all(|(table, count)| found.get(table) == Some(count))
}

fn first_database(place: &Path) -> Outcome<Option<PathBuf>> {
    let mut open = vec![place.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "sqlite") {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}

/// Lets the server's user read what was restored.
fn open_up(place: &Path) -> Outcome {
    use std::os::unix::fs::PermissionsExt as _;
    let mut open = vec![place.to_path_buf()];
    while let Some(directory) = open.pop() {
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))?;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            } else if entry.file_type()?.is_file() {
                fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o644))?;
            }
        }
    }
    Ok(())
}
