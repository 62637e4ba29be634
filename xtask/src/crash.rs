//! `cargo xtask crash`: the long form of the tests that kill the product, fail its disk and cut its power.
//!
//! The suite runs the same tests with few moments every time. What each of them has done is told by itself, in lines that
//! begin with `figure:`; when all of them have held, they are written into `docs/reliability.md`.
//!
//! They run two at a time, and what has held is kept: a sweep of hours may be cut off, and go on with `--go-on`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
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
    /// Only tests whose name holds this; then no figures are written.
    #[arg(long)]
    only: Option<String>,
    /// Go on with a sweep of the same numbers that was cut off: what held then is not run again.
    #[arg(long)]
    go_on: bool,
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
    /// Chooses the moments.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Tests that have held.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Part {
    tests: Vec<String>,
    figures: String,
    took_s: u64,
    /// The commit that was checked out.
    version: String,
}

/// What of a sweep has held.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    sweep: Sweep,
    parts: Vec<Part>,
}

/// 12 h: several times what a whole run takes on two cores.
const LIMIT: Duration = Duration::from_secs(43_200);
/// Tests that run at once.
const AT_ONCE: usize = 2;

/// The command that runs the tests, without what is to be run.
fn tests(root: &Path, options: &Options, found: &components::Found) -> Command {
    let mut command = process::cargo();
    command.args(["test", "--release", "--locked", "-p", "seaworthy"]);
    command.args(["--test", "crash", "--test", "power", "--test", "network"]);
    command.args(["--features", "seaworthy-testkit/sqlite", "--no-fail-fast", "--"]).current_dir(root);
    command.envs(found.environment.iter().map(|(name, value)| (name, value)));
    let Sweep { kills, calls, faults, cuts, seed } = options.sweep;
    for (name, value) in [
        ("SEAWORTHY_KILLS", kills),
        ("SEAWORTHY_CALLS", calls),
        ("SEAWORTHY_CUTS", cuts),
        ("SEAWORTHY_FAULTS", faults),
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
fn listed(output: &str, only: Option<&str>) -> Vec<String> {
    let names = output.lines().filter_map(|line| line.strip_suffix(": test"));
    names.filter(|name| only.is_none_or(|only| name.contains(only))).map(str::to_owned).collect()
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
    let mut list = tests(&root, options, &found);
    let ran = process::run(list.args(["--list", "--format", "terse"]), LIMIT, Echo::Quiet)?;
    let all = listed(&ran.output, options.only.as_deref());
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
    let is_done = |done: &Kept, name: &String| done.parts.iter().any(|part| part.tests.contains(name));
    let left: Vec<String> = all.iter().filter(|name| !is_done(&done, name)).cloned().collect();
    if left.len() < all.len() {
        println!("{} of {} tests have held before", all.len() - left.len(), all.len());
    }
    let mut has_failed = false;
    for tests_of_part in left.chunks(AT_ONCE) {
        let began = Instant::now();
        let mut command = tests(&root, options, &found);
        command.args(["--nocapture", "--exact"]).arg(format!("--test-threads={AT_ONCE}")).args(tests_of_part);
        let ran = process::run(&mut command, LIMIT, Echo::Shown)?;
        if !ran.is_success() {
            has_failed = true;
            continue;
        }
        done.parts.push(Part {
            tests: tests_of_part.to_vec(),
            figures: figures(&ran.output),
            took_s: began.elapsed().as_secs(),
            version: version.clone(),
        });
        if options.only.is_none() {
            workspace::write(&place, &serde_json::to_string_pretty(&done)?)?;
        }
    }
    if options.only.is_none() && !has_failed {
        let page = root.join("docs/reliability.md");
        let text = put_section(&workspace::read(&page)?, "crash", &section(&done));
        workspace::write(&page, &text)?;
        println!("written to docs/reliability.md");
    }
    Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn section(done: &Kept) -> String {
    let mut versions: Vec<&str> = done.parts.iter().map(|part| part.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    let minutes = done.parts.iter().map(|part| part.took_s).sum::<u64>().div_ceil(60);
    let mut text = format!(
        "\n## Crashes\n\nMeasured {} by `cargo xtask crash --seed {}`, in {minutes} minutes, of {}.\n\n- Machine: {}\n",
        jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC"),
        done.sweep.seed,
        versions.join(", "),
        machine()
    );
    let all: String = done.parts.iter().map(|part| part.figures.as_str()).collect();
    let mut lines: Vec<&str> = all.lines().collect();
    lines.sort_unstable();
    text.extend(lines.iter().map(|line| format!("{line}\n")));
    text.push_str(
        "\nAfter each of these moments: stock restic finds the repository sound, every copy that a receipt acknowledges is in it, \
         the ledger verifies, nothing is left running; the next run needs no human and leaves nothing in the scratch \
         directory; at the end every acknowledged copy restores and the newest is proven.\n\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_listed_by_name() {
        let output = "     Running tests/crash.rs\na_backup: test\nb_drill: test\nnot one: bench\n\n";
        assert_eq!(listed(output, None), ["a_backup", "b_drill"]);
        assert_eq!(listed(output, Some("drill")), ["b_drill"]);
    }

    #[test]
    fn the_page_holds_every_part_and_its_version() {
        let part = |name: &str, figure: &str, version: &str| Part {
            tests: vec![name.to_owned()],
            figures: format!("- {figure}\n"),
            took_s: 61,
            version: version.to_owned(),
        };
        let sweep = Sweep { kills: 1, calls: 2, faults: 3, cuts: 4, seed: 5 };
        let parts = vec![
            part("b", "drill: killed", "def"),
            part("a", "backup: killed", "abc"),
            part("c", "x", "abc"),
        ];
        let text = section(&Kept { sweep, parts });
        assert!(text.contains("--seed 5`, in 4 minutes, of abc, def."), "{text}");
        assert!(text.find("backup: killed") < text.find("drill: killed"), "{text}");
    }
}
