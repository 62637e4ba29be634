//! Base backups and the log of a whole PostgreSQL cluster, against `pg_basebackup` and pgBackRest.
//!
//! What `pg_basebackup` sends goes to `/dev/null`. pgBackRest has two processes and zstd, as we have two workers and zstd; it runs as the
//! server's user, because it reads the files themselves. Ours encrypts, verifies pages and records, and takes its witness: all in its time.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use seaworthy_testkit::components;
use seaworthy_testkit::postgres::{Server, server_user};

use super::archive::{self, Files};
use super::logical::{Place, build};
use super::{LIMIT, Options, cost_with, empty};
use crate::measure::Cost;
use crate::process::{self, Echo};
use crate::workspace;

type Failure = Box<dyn std::error::Error>;

/// pgbench's scale that makes a database of 1.5 GB.
const FACTOR: f64 = 100.0;
/// Settings of the server that is backed up.
const SOURCE: &[&str] = &[
    "shared_buffers=512MB",
    "max_wal_size=8GB",
    "wal_keep_size=4GB",
    "archive_mode=on",
    "archive_command=/bin/true",
];
/// Seconds for which the log is received under load.
const STREAMED_S: u64 = 30;

/// What was received of the log, under the load of pgbench.
#[derive(Debug, Clone, serde::Deserialize)]
pub(super) struct Waited {
    pub(super) median: Option<u64>,
    pub(super) p99: Option<u64>,
    pub(super) max: Option<u64>,
}

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    /// In words.
    pub(super) described: String,
    /// For each round `pg_basebackup`, pgBackRest, ours.
    pub(super) backup: Vec<[Cost; 3]>,
    /// For each round pgBackRest, ours.
    pub(super) restore: Vec<[Cost; 2]>,
    /// For each round the log file by file.
    pub(super) files: Vec<Files>,
    /// For each round a backup of the log since, after a load: what it cost, and the bytes of log.
    pub(super) log: Vec<(Cost, u64)>,
    /// For each round the stream's cost, what it received and how long that waited.
    pub(super) stream: Vec<(Cost, u64, Waited)>,
}

/// Measures; an error is a run that failed, and nothing is reported then.
pub(super) fn measure(options: &Options) -> Result<Cluster, Failure> {
    let product = build(&workspace::root())?;
    let pgbackrest = pgbackrest()?;
    // What is run like this takes servers with it that were there before.
    let said = process::capture(&pgbackrest, &["version"], Duration::from_secs(10)).unwrap_or_default();
    let source = Server::start(SOURCE)?;
    source.create("bench", &[])?;
    let factor = (FACTOR * options.scale).round().max(1.0).to_string();
    source.run("pgbench", &["-i", "-q", "-s", &factor, "bench"], "")?;
    source.sql("bench", "VACUUM (FREEZE, ANALYZE)")?;
    let bytes: u64 =
        source.sql("bench", "SELECT sum(pg_database_size(oid)) FROM pg_database")?.trim().parse()?;
    let version = source.sql("bench", "SHOW server_version")?;
    let described =
        format!("p: a cluster of {} MB on PostgreSQL {}; {}", bytes / 1_000_000, version.trim(), said.trim());
    println!("== {described}");
    let mut measured = Cluster { described, ..Cluster::default() };
    for round in 0..options.rounds {
        let place = Place { product: product.clone(), directory: options.work.join("run") };
        empty(&place.directory)?;
        fs::set_permissions(&place.directory, fs::Permissions::from_mode(0o711))?;
        let peer = Peer::prepare(&place.directory.join("peer"), &pgbackrest, &source)?;
        peer.run("stanza-create")?;
        prepare(&place, &source)?;
        let mut backups = [
            base_backup(&source)?,
            peer.command(&["--type=full", "--start-fast", "--no-archive-check", "backup"]),
            place.command(&["backup", "--quiet"]),
        ];
        let costs = in_turn(&mut backups, round, &options.work)?;
        show(round, &["pg_basebackup -Ft", "pgbackrest backup", "seaworthy backup"], &costs);
        measured.backup.push(<[Cost; 3]>::try_from(costs).map_err(|_| "a command was left out")?);

        let (to_peer, to_us) = (place.directory.join("peer/restored"), place.directory.join("restored"));
        fs::create_dir(&to_peer)?;
        owned(&to_peer)?;
        let into = to_us.display().to_string();
        let path = format!("--pg1-path={}", to_peer.display());
        let mut restores =
            [peer.command(&[&path, "restore"]), place.command(&["restore", "bench", "--to", &into])];
        let costs = in_turn(&mut restores, round, &options.work)?;
        show(round, &["pgbackrest restore", "seaworthy restore"], &costs);
        measured.restore.push(<[Cost; 2]>::try_from(costs).map_err(|_| "a command was left out")?);
        empty(&to_us)?;

        measured.files.push(archive::measure(&place, &peer, &source, round)?);
        measured.stream.push(streamed(&place, &source, options, round)?);
        let before = position(&source)?;
        load(&source, 10)?.wait()?;
        let mut command = place.command(&["backup", "--quiet"]);
        let cost = one(&mut command, &options.work)?;
        let log = position(&source)?.saturating_sub(before);
        show(round, &["backup of the log"], std::slice::from_ref(&cost));
        measured.log.push((cost, log));
        source.sql("bench", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")?;
        empty(&place.directory)?;
    }
    Ok(measured)
}

fn pgbackrest() -> Result<String, Failure> {
    if let Ok(found) = components::program("pgbackrest") {
        return Ok(found.display().to_string());
    }
    println!("   `pgbackrest` is missing: apt-get install pgbackrest");
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive");
    install.args(["-q", "-y", "--no-install-recommends", "install", "pgbackrest"]);
    let ran = process::run(&mut install, LIMIT, Echo::Quiet)?;
    if !ran.is_success() {
        return Err(format!("install pgbackrest: {}", process::last_lines(&ran.output, 3)).into());
    }
    Ok(components::program("pgbackrest")?.display().to_string())
}

pub(super) fn owned(path: &Path) -> Result<(), Failure> {
    if let Some(user) = server_user()? {
        std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid))?;
    }
    Ok(())
}

/// pgBackRest with a repository of its own.
pub(super) struct Peer {
    program: String,
    config: String,
}

impl Peer {
    fn prepare(directory: &Path, program: &str, source: &Server) -> Result<Self, Failure> {
        for name in ["", "repository", "log", "lock", "spool"] {
            fs::create_dir_all(directory.join(name))?;
            owned(&directory.join(name))?;
        }
        let at = |name: &str| directory.join(name).display().to_string();
        let config = at("pgbackrest.conf");
        fs::write(
            &config,
            format!(
                "[global]\nrepo1-path={}\nlog-path={}\nlock-path={}\nspool-path={}\nlog-level-console=warn\nlog-level-file=off\n\
                 process-max=2\ncompress-type=zst\ncompress-level=3\nrepo1-retention-full=2\n\n\
                 [main]\npg1-path={}\npg1-socket-path={}\npg1-port={}\npg1-user=postgres\n",
                at("repository"),
                at("log"),
                at("lock"),
                at("spool"),
                source.path().join("data").display(),
                source.host(),
                source.port()
            ),
        )?;
        Ok(Self { program: program.to_owned(), config })
    }

    /// How a shell runs it.
    pub(super) fn words(&self) -> String {
        format!("{} --config={} --stanza=main", self.program, self.config)
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match server_user() {
            Ok(Some(user)) => {
                let mut command = Command::new("setpriv");
                command.arg(format!("--reuid={}", user.uid)).arg(format!("--regid={}", user.gid));
                command.arg("--clear-groups").arg(&self.program);
                command
            }
            Ok(None) | Err(_) => Command::new(&self.program),
        };
        command
            .arg(format!("--config={}", self.config))
            .arg("--stanza=main")
            .args(arguments)
            .current_dir("/");
        command
    }

    fn run(&self, action: &str) -> Result<(), Failure> {
        let ran = process::run_keeping_servers(&mut self.command(&[action]), LIMIT, Echo::Quiet)?;
        if ran.is_success() {
            return Ok(());
        }
        Err(format!("pgbackrest {action}: {}", process::last_lines(&ran.output, 3)).into())
    }
}

/// A configuration with a continuous source.
fn prepare(place: &Place, source: &Server) -> Result<(), Failure> {
    let address = format!("postgres@{}:{}/bench", source.host(), source.port());
    let repository = place.directory.join("repository").display().to_string();
    place.run(&["init", "--non-interactive", "--repository", &repository, "--postgres", &address])?;
    let path = place.directory.join("seaworthy.toml");
    let text = fs::read_to_string(&path)?;
    fs::write(&path, text.replace("kind = \"postgres\"", "kind = \"postgres\"\nmode = \"continuous\""))?;
    Ok(())
}

fn base_backup(source: &Server) -> Result<Command, Failure> {
    let mut command = Command::new(components::postgres_bin()?.join("pg_basebackup"));
    command.args(["-h", &source.host(), "-p", &source.port().to_string(), "-U", "postgres"]);
    command.args(["-c", "fast", "-Ft", "-X", "fetch", "-D", "-"]).current_dir("/");
    Ok(command)
}

fn one(command: &mut Command, work: &Path) -> Result<Cost, Failure> {
    let (cost, failure) = cost_with(command, &work.join("cost.json"), Some(Path::new("/dev/null")))?;
    match failure {
        None => Ok(cost),
        Some(why) => Err(format!("{}: {why}", command.get_program().display()).into()),
    }
}

/// Runs the commands; which is first changes from round to round.
fn in_turn(commands: &mut [Command], round: u32, work: &Path) -> Result<Vec<Cost>, Failure> {
    let mut costs = vec![None; commands.len()];
    for turn in 0..commands.len() {
        let which = (turn + round as usize) % commands.len();
        costs[which] = Some(one(&mut commands[which], work)?);
    }
    Ok(costs.into_iter().flatten().collect())
}

fn show(round: u32, names: &[&str], costs: &[Cost]) {
    for (name, cost) in names.iter().zip(costs) {
        println!(
            "   round {} {name:<18} {:>7.2}s wall {:>7.2}s cpu {:>6.0} MiB peak",
            round + 1,
            cost.wall_s,
            cost.user_s + cost.system_s,
            cost.peak_rss_mib
        );
    }
}

/// As many transactions as the server can take.
pub(super) fn load(source: &Server, seconds: u64) -> Result<std::process::Child, Failure> {
    let mut command = Command::new(components::postgres_bin()?.join("pgbench"));
    command.args([
        "-h",
        &source.host(),
        "-p",
        &source.port().to_string(),
        "-U",
        "postgres",
        "-n",
        "-c",
        "4",
        "-j",
        "2",
    ]);
    command.args(["-T", &seconds.to_string(), "bench"]).stdout(std::process::Stdio::null());
    command.stderr(std::process::Stdio::null()).current_dir("/");
    Ok(command.spawn()?)
}

fn position(source: &Server) -> Result<u64, Failure> {
    Ok(source.sql("bench", "SELECT (pg_current_wal_flush_lsn() - '0/0')::text")?.trim().parse()?)
}

/// Receives the log while the server writes as much as it can.
fn streamed(
    place: &Place,
    source: &Server,
    options: &Options,
    round: u32,
) -> Result<(Cost, u64, Waited), Failure> {
    let told = place.directory.join("told.json");
    let stream = place.command(&["wal", "stream", "bench", "--json", "--quiet"]);
    let mut command = Command::new("timeout");
    command.args(["-s", "TERM", &STREAMED_S.to_string()]).arg(&place.product).args(stream.get_args());
    for (name, value) in stream.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command.current_dir(&place.directory);
    let before = position(source)?;
    let mut writers = load(source, STREAMED_S)?;
    let (cost, _) = cost_with(&command, &options.work.join("cost.json"), Some(&told))?;
    let bytes = position(source)?.saturating_sub(before);
    writers.wait()?;
    let text = fs::read_to_string(&told)?;
    let line =
        text.lines().rfind(|line| line.contains("waited_ms")).ok_or("the stream did not say how it ended")?;
    let waited: Waited =
        serde_json::from_value(serde_json::from_str::<serde_json::Value>(line)?["waited_ms"].take())?;
    println!(
        "   round {} wal stream         {} MB in {STREAMED_S} s, waited {:?} ms, {:.0} MiB peak",
        round + 1,
        bytes / 1_000_000,
        waited,
        cost.peak_rss_mib
    );
    Ok((cost, bytes, waited))
}
