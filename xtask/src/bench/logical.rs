//! The main job on PostgreSQL against the plain tools: a backup with its witness against `pg_dump`, a drill with proof and
//! control line against `pg_restore`.
//!
//! The plain tool's output goes to `/dev/null`, and its scratch server is there already and has the settings of ours. What
//! we do besides is in our time: key, snapshot, witness, encryption, repository, receipt; and in a drill decryption, a
//! new cluster, every check twice, the damage between, and the removal of everything.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use seaworthy_testkit::components;
use seaworthy_testkit::postgres::Server;

use super::{LIMIT, Options, cost_of, empty};
use crate::measure::Cost;
use crate::process::{self, Echo};
use crate::workspace;

type Failure = Box<dyn std::error::Error>;

/// pgbench's scale that makes a database of 1.5 GB.
const FACTOR: f64 = 100.0;
/// Settings of the server that is backed up.
const SOURCE: &[&str] = &["shared_buffers=512MB", "max_wal_size=8GB"];
/// Settings of the scratch server of `pg_restore`: those of ours.
const SCRATCH: &[&str] = &[
    "full_page_writes=off",
    "synchronous_commit=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "autovacuum=off",
    "max_wal_size=8GB",
    "checkpoint_timeout=1d",
    "shared_buffers=256MB",
    "maintenance_work_mem=256MB",
    "jit=off",
];

/// What was measured: for each round the plain tool and ours.
#[derive(Debug, Default)]
pub(super) struct Logical {
    /// In words.
    pub(super) described: String,
    /// `pg_dump`, our backup.
    pub(super) backup: Vec<[Cost; 2]>,
    /// `pg_restore`, our drill.
    pub(super) drill: Vec<[Cost; 2]>,
}

/// Measures; an error is a run that failed, and nothing is reported then.
pub(super) fn measure(options: &Options) -> Result<Logical, Failure> {
    let product = build(&workspace::root())?;
    let source = Server::start(SOURCE)?;
    source.create("bench", &[])?;
    let factor = (FACTOR * options.scale).round().max(1.0).to_string();
    source.run("pgbench", &["-i", "-q", "-s", &factor, "bench"], "")?;
    source.sql("bench", "VACUUM (FREEZE, ANALYZE)")?;
    let bytes: u64 = source.sql("bench", "SELECT pg_database_size('bench')")?.trim().parse()?;
    let version = source.sql("bench", "SHOW server_version")?;
    let described =
        format!("l: a pgbench database of {} MB on PostgreSQL {}", bytes / 1_000_000, version.trim());
    println!("== {described}");
    let scratch = Server::start(SCRATCH)?;
    let programs = components::postgres_bin()?;
    let mut measured = Logical { described, ..Logical::default() };
    for round in 0..options.rounds {
        let place = Place { product: product.clone(), directory: options.work.join("run") };
        empty(&place.directory)?;
        fs::set_permissions(&place.directory, fs::Permissions::from_mode(0o711))?;
        let address = format!("postgres@{}:{}/bench", source.host(), source.port());
        let repository = place.directory.join("repository").display().to_string();
        place.run(&["init", "--non-interactive", "--repository", &repository, "--postgres", &address])?;
        let mut backups = [dump(&programs, &source), place.command(&["backup", "--quiet"])];
        let pair = in_turn(&mut backups, round, &options.work)?;
        show(round, ["pg_dump -Fc -Z0", "seaworthy backup"], &pair);
        measured.backup.push(pair);

        let archive = place.directory.join("restored");
        let to = archive.display().to_string();
        place.run(&["restore", "bench", "--to", &to])?;
        scratch.create("bench", &[])?;
        let mut drills = [
            restore(&programs, &scratch, &archive.join("database")),
            place.command(&["drill", "bench", "--quiet"]),
        ];
        let pair = in_turn(&mut drills, round, &options.work)?;
        scratch.sql("postgres", "DROP DATABASE bench")?;
        show(round, ["pg_restore -j2", "seaworthy drill"], &pair);
        measured.drill.push(pair);
        empty(&place.directory)?;
    }
    Ok(measured)
}

/// Where one round's repository, state and configuration lie. Root's sandbox passes through it as another user.
pub(super) struct Place {
    pub(super) product: PathBuf,
    pub(super) directory: PathBuf,
}

impl Place {
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.product);
        command
            .args(arguments)
            .arg("--config")
            .arg(self.directory.join("seaworthy.toml"))
            .arg("--state-dir")
            .arg(self.directory.join("state"))
            .arg("--scratch-dir")
            .arg(self.directory.join("scratch"))
            .env("HOME", &self.directory)
            // What a service on this machine knows nobody by.
            .env("BENCH_KEY", "test")
            .current_dir(&self.directory);
        command
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Result<(), Failure> {
        let ran = process::run_keeping_servers(&mut self.command(arguments), LIMIT, Echo::Quiet)?;
        if ran.is_success() {
            return Ok(());
        }
        let said = process::last_lines(&ran.output, 3);
        Err(format!("seaworthy {}: {}: {said}", arguments.join(" "), ran.describe()).into())
    }
}

/// Runs the two commands; which is first changes from round to round.
fn in_turn(commands: &mut [Command; 2], round: u32, work: &Path) -> Result<[Cost; 2], Failure> {
    let mut costs = [None, None];
    for turn in 0..2 {
        let which = (turn + round as usize) % 2;
        let (cost, failure) = cost_of(&commands[which], &work.join("cost.json"))?;
        if let Some(why) = failure {
            return Err(format!("{}: {why}", commands[which].get_program().display()).into());
        }
        costs[which] = Some(cost);
    }
    let [Some(plain), Some(ours)] = costs else { return Err("a command was left out".into()) };
    Ok([plain, ours])
}

fn show(round: u32, names: [&str; 2], costs: &[Cost; 2]) {
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

fn client(programs: &Path, name: &str, server: &Server) -> Command {
    let mut command = Command::new(programs.join(name));
    command
        .env("PGHOST", server.host())
        .env("PGPORT", server.port().to_string())
        .env("PGUSER", "postgres")
        .current_dir("/");
    command
}

fn dump(programs: &Path, server: &Server) -> Command {
    let mut command = client(programs, "pg_dump", server);
    command.args(["-Fc", "-Z0", "--no-sync", "--file=/dev/null", "bench"]);
    command
}

fn restore(programs: &Path, server: &Server, archive: &Path) -> Command {
    let mut command = client(programs, "pg_restore", server);
    command.args(["--format=directory", "-j2", "--dbname=bench"]).arg(archive);
    command
}

pub(super) fn build(root: &Path) -> Result<PathBuf, Failure> {
    println!("   building the product, optimised");
    let mut cargo = process::cargo();
    cargo.args(["build", "--release", "--locked", "--package", "seaworthy"]).current_dir(root);
    let ran = process::run(&mut cargo, Duration::from_secs(1200), Echo::Quiet)?;
    if !ran.is_success() {
        return Err(format!("build {}: {}", ran.describe(), process::last_lines(&ran.output, 5)).into());
    }
    Ok(workspace::metadata(root)?.target_directory.join("release/seaworthy"))
}
