//! `cargo xtask bench`: our engine against restic, rustic and borg on the same data, and the product against `pg_dump` and
//! `pg_restore`; alternating, in one run.
//!
//! Every operation of every tool is a process of its own, with wall time, CPU time and peak memory taken by the kernel.
//! A restore counts only when what came back is compared, byte for byte, with what went in. A tool that fails is in the
//! table as failed; nothing is dropped. Caches stay warm: the question is the tool's work, not the disk's.

mod archive;
mod cluster;
mod data;
mod logical;
mod many;
mod report;
mod stores;
mod tools;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;
use std::{fs, io};

use rustix::fs::IFlags;

use data::{ChangedPages, Data, Set};
use tools::Tool;

use crate::measure::Cost;
use crate::process::{self, Echo};
use crate::{TaskResult, workspace};

/// The options of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Which data sets: a mixed files, b a PostgreSQL data directory, d 100,000 small files, l a live PostgreSQL database,
    /// m very many files and blobs, r replication into object stores, p a live PostgreSQL cluster as it lies on disk.
    #[arg(long, value_delimiter = ',', default_value = "a,b,d,l,m")]
    data: Vec<Set>,
    /// The size of the data, 1 is about 2 GB (a, b) and 100,000 files (d).
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// How often everything is done; medians are reported.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Our program, when it is not the repository's example, which is built otherwise.
    #[arg(long)]
    ours: Option<PathBuf>,
    /// The product, when it is not to be built. For r.
    #[arg(long)]
    product: Option<PathBuf>,
    /// A newer restic, when it is not the one that `cargo xtask test` fetched.
    #[arg(long, env = "SEAWORTHY_TEST_RESTIC")]
    newer_restic: Option<PathBuf>,
    /// Leave these tools out, by name.
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
    /// Where data, repositories and restores go: about 8 GB at scale 1.
    #[arg(long, default_value = "/var/tmp/seaworthy-bench")]
    work: PathBuf,
    /// Where the report goes [default: docs/benchmarks.md, docs/benchmarks-replication.md for r alone,
    /// and docs/benchmarks-cluster.md for p alone]
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Options {
    fn page(&self) -> PathBuf {
        let usual = match self.data.as_slice() {
            [Set::Stores] => "docs/benchmarks-replication.md",
            [Set::Cluster] => "docs/benchmarks-cluster.md",
            _ => "docs/benchmarks.md",
        };
        self.out.clone().unwrap_or_else(|| usual.into())
    }
}

/// One operation, in the order in which a round does them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Operation {
    /// Into a new repository.
    Initial,
    /// Again, nothing changed.
    Unchanged,
    /// Again, after 1 % of the 8 KiB pages changed. Only for the database.
    OnePercent,
    /// The newest snapshot into a new directory.
    Restore,
    /// Everything is read and authenticated.
    Check,
}

impl Operation {
    const ALL: [Self; 5] = [Self::Initial, Self::Unchanged, Self::OnePercent, Self::Restore, Self::Check];

    fn name(self) -> &'static str {
        match self {
            Self::Initial => "initial backup",
            Self::Unchanged => "unchanged re-backup",
            Self::OnePercent => "backup, 1 % of pages changed",
            Self::Restore => "restore",
            Self::Check => "check --read-data",
        }
    }
}

/// What was measured of one tool doing one operation once.
#[derive(Debug, Clone)]
struct Sample {
    cost: Cost,
    /// Bytes of the repository afterwards.
    repository_bytes: u64,
    /// Why it does not count, if so.
    failure: Option<String>,
}

/// Everything measured.
#[derive(Debug, Default)]
struct Measured {
    /// By data set, operation and tool, in order of rounds.
    samples: BTreeMap<(Set, Operation, String), Vec<Sample>>,
    /// What the changed pages of the database compress to.
    changed_pages: Option<ChangedPages>,
    /// The whole product on a live database.
    logical: Option<logical::Logical>,
    /// Memory at sizes beyond those of the other sets.
    many: Option<many::Many>,
    /// Replication into object stores.
    stores: Option<stores::Stores>,
    /// A PostgreSQL cluster as it lies on disk.
    cluster: Option<cluster::Cluster>,
}

/// 30 min: several times what the slowest tool needs on the largest set.
const LIMIT: Duration = Duration::from_secs(1800);

/// Trees of fewer files are removed as soon as they are compared.
const MANY_FILES: u64 = 5_000;

/// Measures and writes the report. The exit code is 0 only when nothing failed.
pub(crate) fn run(options: &Options) -> TaskResult {
    if !(options.scale > 0.0 && options.scale <= 100.0) || options.rounds == 0 {
        return Err("--scale is above 0 and at most 100, --rounds at least 1".into());
    }
    let root = workspace::root();
    fs::create_dir_all(&options.work)?;
    let needs_tools = options.data.iter().any(|set| !matches!(set, Set::Stores | Set::Cluster));
    let mut found = if needs_tools { tools::find(&root, options)? } else { Vec::new() };
    found.retain(|tool| !options.without.contains(&tool.name));
    for tool in &found {
        println!("   {:<12} {}", tool.name, tool.version);
    }
    let mut measured = Measured::default();
    let mut described = Vec::new();
    for set in &options.data {
        if *set == Set::Live {
            let logical = logical::measure(options)?;
            described.push(logical.described.clone());
            measured.logical = Some(logical);
            continue;
        }
        if *set == Set::Cluster {
            let cluster = cluster::measure(options)?;
            described.push(cluster.described.clone());
            measured.cluster = Some(cluster);
            continue;
        }
        if *set == Set::Many {
            let many = many::measure(options, &found)?;
            described.extend(many.described.iter().cloned());
            measured.many = Some(many);
            continue;
        }
        if *set == Set::Stores {
            let stores = stores::measure(options)?;
            described.extend(stores.described.iter().cloned());
            measured.stores = Some(stores);
            continue;
        }
        let data = data::provide(*set, options.scale, &options.work)?;
        println!("== {}: {}", data.set.letter(), data.describe());
        described.push(data.describe());
        let restored = options.work.join("restored");
        empty(&restored)?;
        spread(&restored);
        for round in 0..options.rounds {
            measure_round(options, &data, &found, round, &mut measured)?;
        }
        empty(&options.work.join("restored"))?;
    }
    let text = report::report(options, &found, &described, &measured);
    println!("\n{text}");
    workspace::write(&root.join(options.page()), &text)?;
    println!("written to {}", options.page().display());
    let has_failed = measured.samples.values().flatten().any(|sample| sample.failure.is_some());
    Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Does every operation with every tool; the tool that begins changes from operation to operation and round to round.
fn measure_round(
    options: &Options,
    data: &Data,
    tools: &[Tool],
    round: u32,
    measured: &mut Measured,
) -> Result<(), Box<dyn std::error::Error>> {
    let bench = options.work.join("run");
    empty(&bench)?;
    for tool in tools {
        let place = bench.join(&tool.name);
        fs::create_dir_all(place.join("home"))?;
        for command in tool.prepare(&place) {
            let mut command = command;
            let ran = process::run(&mut command, LIMIT, Echo::Quiet)?;
            if !ran.is_success() {
                return Err(format!("{} init: {}", tool.name, process::last_lines(&ran.output, 3)).into());
            }
        }
    }
    data::settle(&data.path)?;
    for (step, operation) in Operation::ALL.into_iter().enumerate() {
        if operation == Operation::OnePercent {
            if data.set != Set::Database {
                continue;
            }
            measured.changed_pages = Some(data.change_one_percent()?);
        }
        for turn in 0..tools.len() {
            let tool = &tools[(turn + round as usize + step) % tools.len()];
            let sample = measure_one(options, data, tool, operation, round)?;
            println!(
                "   round {} {:<28} {:<12} {:>7.2}s wall {:>7.2}s cpu {:>6.0} MiB peak {:>6} MB stored{}",
                round + 1,
                operation.name(),
                tool.name,
                sample.cost.wall_s,
                sample.cost.user_s + sample.cost.system_s,
                sample.cost.peak_rss_mib,
                sample.repository_bytes / 1_000_000,
                sample.failure.as_ref().map_or(String::new(), |why| format!("  FAILED: {why}")),
            );
            measured.samples.entry((data.set, operation, tool.name.clone())).or_default().push(sample);
        }
    }
    if data.set == Set::Database {
        // The same change again undoes it.
        data.change_one_percent()?;
    }
    empty(&bench)?;
    Ok(())
}

fn measure_one(
    options: &Options,
    data: &Data,
    tool: &Tool,
    operation: Operation,
    round: u32,
) -> io::Result<Sample> {
    let place = options.work.join("run").join(&tool.name);
    let target = options.work.join("restored").join(format!("{}-{round}", tool.name));
    if operation == Operation::Restore {
        empty(&target)?;
    }
    let command = tool.command(operation, &data.path, &place, &target);
    // What one tool wrote has pushed others' data out of memory: whoever comes next must not pay for it.
    if !matches!(operation, Operation::Restore | Operation::Check) {
        data.warm()?;
    }
    let (cost, mut failure) = cost_of(&command, &place.join("cost.json"))?;
    if operation == Operation::Restore {
        if failure.is_none() {
            failure = data.differs_from(&target)?;
        }
        // A file system is slow to make files where many were removed a minute ago (ext4 does not use their inodes again so
        // soon, and looks at each): trees of many files are removed when the last tool is done.
        if data.files < MANY_FILES {
            fs::remove_dir_all(&target)?;
        }
    }
    Ok(Sample { cost, repository_bytes: data::size_of(&place.join("repository"))?, failure })
}

/// Runs `command` in a process of its own and returns what it cost, and why that does not count, if so.
fn cost_of(command: &Command, into: &Path) -> io::Result<(Cost, Option<String>)> {
    cost_with(command, into, None)
}

/// The same, with the command's standard output in a file.
fn cost_with(command: &Command, into: &Path, output: Option<&Path>) -> io::Result<(Cost, Option<String>)> {
    // What earlier runs left to be written must not be paid by this one.
    rustix::fs::sync();
    let mut measured = Command::new(std::env::current_exe()?);
    measured.args(["measure", "--into"]).arg(into);
    if let Some(output) = output {
        measured.arg("--output").arg(output);
    }
    measured.arg("--").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => measured.env(name, value),
            None => measured.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        measured.current_dir(directory);
    }
    let ran = process::run_keeping_servers(&mut measured, LIMIT, Echo::Quiet)?;
    let mut failure = None;
    let cost = match fs::read_to_string(into).map(|text| serde_json::from_str::<Cost>(&text)) {
        Ok(Ok(cost)) => {
            if cost.code != Some(0) {
                let code = cost.code.map_or("a signal".to_owned(), |code| format!("exit code {code}"));
                failure = Some(format!("{code}: {}", process::last_lines(&ran.output, 2)));
            }
            fs::remove_file(into)?;
            cost
        }
        Ok(Err(_)) | Err(_) => {
            failure = Some(format!("not measured: {}", ran.describe()));
            let wall_s = ran.elapsed.as_secs_f64();
            Cost { wall_s, user_s: 0.0, system_s: 0.0, peak_rss_mib: 0.0, code: None }
        }
    };
    Ok((cost, failure))
}

/// Asks the file system to place what is made in `directory` far apart, each tree where no other was removed: ext4 looks at
/// every inode that was freed a minute ago before it takes another, which costs more than making the file.
fn spread(directory: &Path) {
    let asked = fs::File::open(directory).and_then(|opened| {
        let flags = rustix::fs::ioctl_getflags(&opened)? | IFlags::TOPDIR;
        Ok(rustix::fs::ioctl_setflags(&opened, flags)?)
    });
    if let Err(error) = asked {
        println!("   restored trees lie close together, and making files may be slow: {error}");
    }
}

/// Makes `directory` exist and hold nothing.
fn empty(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    fs::create_dir_all(directory)
}
