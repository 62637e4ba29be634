//! `cargo xtask crash`: the long form of the tests that kill the product, fail its disk and cut its power, and of those that follow a
//! server's log for long.
//!
//! The suite runs the same tests with few moments every time. What each of them has done is told by itself, in lines that
//! begin with `figure:`; what has held is written into a section of its own of `docs/reliability.md`, with date and commit, unless less
//! was asked for than usual.
//!
//! Some run at a time, and what has held is kept: a sweep of hours may be cut off, and go on with `--go-on`.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use seaworthy_testkit::page::{figures, machine, put_section};
use serde::{Deserialize, Serialize};

use crate::process::{self, Echo};
use crate::sabotage::memory;
use crate::{TaskResult, components, workspace};

/// The options of `cargo xtask crash`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    sweep: Sweep,
    /// Only tests whose name holds this, or one of these.
    #[arg(long)]
    only: Vec<String>,
    /// Go on with a sweep of the same numbers that was cut off: what held then is not run again.
    #[arg(long)]
    go_on: bool,
    /// Tests at once. They wait more than they compute: two left a machine of two cores idle for 57 % of the time.
    #[arg(long, default_value_t = 4)]
    jobs: usize,
    /// Run this one test and keep nothing: what this command runs as many times at once as it has jobs. What a test leaves
    /// running can be told from what another one runs by the process that began it.
    #[arg(long, hide = true)]
    alone: Option<String>,
}

/// How much is swept.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
struct Sweep {
    /// Random moments at which each act is killed.
    #[arg(long, default_value_t = 1000)]
    kills: u64,
    /// Calls at which each act is killed, and at which its disk fails; all of them where there are fewer.
    #[arg(long, default_value_t = 2000)]
    calls: u64,
    /// Faults of the network between the product and a source.
    #[arg(long, default_value_t = 400)]
    faults: u64,
    /// Losses of power.
    #[arg(long, default_value_t = 200)]
    cuts: u64,
    /// How often what a standby holds is compared with what is restored to the same place of the log.
    #[arg(long, default_value_t = 100)]
    rounds: u64,
    /// Seconds for which whoever writes, receives, archives and copies a log is killed.
    #[arg(long, default_value_t = 3600)]
    load_s: u64,
    /// Chooses the moments.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Sweep {
    /// Whether it is as long as what the page tells of.
    fn is_whole(&self) -> bool {
        let is_long = self.rounds >= 100 && self.load_s >= 3600;
        is_long && self.kills >= 1000 && self.calls >= 2000 && self.faults >= 400 && self.cuts >= 200
    }
}

/// A test that has held.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Part {
    test: String,
    figures: String,
    took_s: u64,
    /// The commit that was checked out.
    version: String,
    date: String,
}

/// What of a sweep has held.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    sweep: Sweep,
    parts: Vec<Part>,
}

/// 12 h: several times what a whole run takes on two cores.
const LIMIT: Duration = Duration::from_secs(43_200);

/// The command that runs the tests, without what is to be run.
fn tests(root: &Path, options: &Options, found: &components::Found) -> Command {
    let mut command = process::cargo();
    command.args(["test", "--release", "--locked", "-p", "seaworthy"]);
    command.args(["--test", "crash", "--test", "power", "--test", "network", "--test", "endure"]);
    command.args(["--features", "seaworthy-testkit/sqlite", "--no-fail-fast", "--"]).current_dir(root);
    command.envs(found.environment.iter().map(|(name, value)| (name, value)));
    let Sweep { kills, calls, faults, cuts, rounds, load_s, seed } = options.sweep;
    for (name, value) in [
        ("SEAWORTHY_KILLS", kills),
        ("SEAWORTHY_CALLS", calls),
        ("SEAWORTHY_CUTS", cuts),
        ("SEAWORTHY_FAULTS", faults),
        ("SEAWORTHY_ROUNDS", rounds),
        ("SEAWORTHY_LOAD_S", load_s),
        ("SEAWORTHY_SEED", seed),
    ] {
        command.env(name, value.to_string());
    }
    if let Some(place) = memory() {
        // What is killed leaves behind what it has written, whether a disk holds it or not; a loss of power has a disk of its own.
        command.env("SEAWORTHY_TEST_PLACE", place).env("TMPDIR", place);
    }
    command
}

/// The names of the tests, from what the test programs list.
fn listed(output: &str, only: &[String]) -> Vec<String> {
    let names = output.lines().filter_map(|line| line.strip_suffix(": test"));
    let is_wanted = |name: &&str| only.is_empty() || only.iter().any(|only| name.contains(only.as_str()));
    names.filter(is_wanted).map(str::to_owned).collect()
}

fn kept(place: &Path, sweep: &Sweep) -> Result<Kept, Box<dyn std::error::Error>> {
    let fresh = Kept { sweep: sweep.clone(), parts: Vec::new() };
    if !place.exists() {
        return Ok(fresh);
    }
    let kept: Kept = serde_json::from_str(&workspace::read(place)?)?;
    Ok(if kept.sweep == *sweep { kept } else { fresh })
}

/// Runs the tests. The exit code is 0 only when all of them held.
pub(crate) fn run(options: &Options) -> TaskResult {
    let root = workspace::root();
    let found = components::provide(&root, true);
    if !found.missing.is_empty() {
        return Err(found.missing.join("; ").into());
    }
    if let Some(test) = &options.alone {
        let mut command = tests(&root, options, &found);
        command.args(["--nocapture", "--exact", test]);
        let is_success = process::run(&mut command, LIMIT, Echo::Shown)?.is_success();
        return Ok(if is_success { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let mut list = tests(&root, options, &found);
    let ran = process::run(list.args(["--list", "--format", "terse"]), LIMIT, Echo::Quiet)?;
    let all = listed(&ran.output, &options.only);
    if !ran.is_success() || all.is_empty() {
        return Err(format!("no tests could be listed:\n{}", ran.output).into());
    }
    let place: PathBuf = workspace::metadata(&root)?.target_directory.join("crash.kept.json");
    let mut done = if options.go_on {
        kept(&place, &options.sweep)?
    } else {
        Kept { sweep: options.sweep.clone(), parts: Vec::new() }
    };
    let version = workspace::head(&root)?;
    let is_done = |name: &String| done.parts.iter().any(|part| part.test == *name);
    let mut left: Vec<String> = all.iter().filter(|name| !is_done(name)).cloned().collect();
    if left.len() < all.len() {
        println!("{} of {} tests have held before", all.len() - left.len(), all.len());
    }
    // The last one is taken first.
    left.reverse();
    let (left, done) = (Mutex::new(left), Mutex::new(&mut done));
    let worker = || -> Result<bool, String> {
        let mut has_failed = false;
        while let Some(test) = locked(&left)?.pop() {
            let began = Instant::now();
            let (is_success, output) = alone(&options.sweep, &test).map_err(|error| error.to_string())?;
            if !is_success {
                println!("{test} has not held");
                has_failed = true;
                continue;
            }
            let part = Part {
                test,
                figures: figures(&output),
                took_s: began.elapsed().as_secs(),
                version: version.clone(),
                date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
            };
            if options.sweep.is_whole() {
                let mut done = locked(&done)?;
                keep(&root, &place, &mut done, part).map_err(|error| error.to_string())?;
            }
        }
        Ok(has_failed)
    };
    let ended: Vec<Result<bool, String>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs.max(1)).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| Err("a worker has panicked".to_owned())))
            .collect()
    });
    let mut has_failed = false;
    for ended in ended {
        has_failed |= ended?;
    }
    Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Runs a test in a process of its own; whether it held, and what it said, which is shown meanwhile. The process ends by itself
/// at [`LIMIT`].
fn alone(sweep: &Sweep, test: &str) -> std::io::Result<(bool, String)> {
    let Sweep { kills, calls, faults, cuts, rounds, load_s, seed } = sweep;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["crash", "--alone", test]).stdin(Stdio::null()).stdout(Stdio::piped());
    for (name, value) in [
        ("--kills", kills),
        ("--calls", calls),
        ("--faults", faults),
        ("--cuts", cuts),
        ("--rounds", rounds),
        ("--load-s", load_s),
        ("--seed", seed),
    ] {
        command.args([name, &value.to_string()]);
    }
    let mut child = command.spawn()?;
    let mut output = String::new();
    for line in child.stdout.take().into_iter().flat_map(|stdout| BufReader::new(stdout).lines()) {
        let line = line?;
        println!("{line}");
        output.push_str(&line);
        output.push('\n');
    }
    Ok((child.wait()?.success(), output))
}

fn locked<T>(of: &Mutex<T>) -> Result<MutexGuard<'_, T>, String> {
    of.lock().map_err(|_| "a worker has panicked".to_owned())
}

/// Keeps what has held, and puts it into the page.
fn keep(root: &Path, place: &Path, done: &mut Kept, part: Part) -> Result<(), Box<dyn std::error::Error>> {
    let page = root.join("docs/reliability.md");
    let text = put_section(&workspace::read(&page)?, &format!("crash-{}", part.test), &section(&part));
    workspace::write(&page, &text)?;
    done.parts.push(part);
    Ok(workspace::write(place, &serde_json::to_string_pretty(done)?)?)
}

fn section(part: &Part) -> String {
    let Part { figures, took_s, version, date, .. } = part;
    let mut text = String::from("\n");
    for figure in figures.lines() {
        let minutes = took_s.div_ceil(60);
        text.push_str(&format!("{figure} ({date}, of {version}, in {minutes} minutes; {})\n", machine()));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_listed_by_name() {
        let output = "     Running tests/crash.rs\na_backup: test\nb_drill: test\nnot one: bench\n\n";
        assert_eq!(listed(output, &[]), ["a_backup", "b_drill"]);
        assert_eq!(listed(output, &["nothing".to_owned(), "drill".to_owned()]), ["b_drill"]);
    }

    #[test]
    fn every_figure_says_when_and_of_what_it_is() {
        let part = Part {
            test: "a".to_owned(),
            figures: "- backup: killed\n- drill: killed\n".to_owned(),
            took_s: 61,
            version: "abc".to_owned(),
            date: "2026-12-01".to_owned(),
        };
        let text = section(&part);
        assert!(text.contains("\n- backup: killed (2026-12-01, of abc, in 2 minutes; "), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("- ")).count(), 2);
    }
}
