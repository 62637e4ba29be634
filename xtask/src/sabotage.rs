//! `cargo xtask sabotage`: the product as it is released, against everything that can be wrong, beside naive checkers.
//!
//! Builds the product and the harness (`crates/sabotage`) and runs the latter, one kind of source after the other. Each kind
//! writes its figures into a section of its own of `docs/reliability.md`, with date and commit; fewer cases write nothing but
//! their trials.

use std::process::ExitCode;
use std::time::Duration;

use crate::process::{self, Echo};
use crate::{TaskResult, components, workspace};

/// The options of `cargo xtask sabotage`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Options of the harness: `--seeds N`, `--first SEED`, `--only NAME`, `--kind KIND`, `--jobs N`, `--naive-seeds N`,
    /// `--place DIR`, `--list`, `--verbose`, `--go-on` with a run that was cut off. Estates lie in memory where there is enough of it, which halves the time.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    harness: Vec<String>,
}

/// 20 min: a cold build on a slow machine.
const BUILD_LIMIT: Duration = Duration::from_secs(1200);
/// 8 h: several times what all cases with all seeds take on two cores.
const LIMIT: Duration = Duration::from_secs(28_800);

/// Runs the harness. The exit code is 0 only when nothing was missed and nothing healthy raised an alarm.
pub(crate) fn run(options: &Options) -> TaskResult {
    let root = workspace::root();
    let found = components::provide(&root, true);
    if !found.missing.is_empty() {
        return Err(found.missing.join("; ").into());
    }
    let mut build = process::cargo();
    build.args(["build", "--release", "--locked", "-p", "seaworthy", "-p", "seaworthy-sabotage"]);
    build.current_dir(&root);
    if !process::run(&mut build, BUILD_LIMIT, Echo::Shown)?.is_success() {
        return Ok(ExitCode::FAILURE);
    }
    let built = workspace::metadata(&root)?.target_directory.join("release");
    let (kinds, words) = kinds(&options.harness);
    let has = |name: &str| words.iter().any(|word| word.split('=').next() == Some(name));
    let commit = workspace::head(&root)?;
    let mut is_success = true;
    for kind in kinds {
        let mut harness = std::process::Command::new(built.join("seaworthy-sabotage"));
        harness.arg("--program").arg(built.join("seaworthy")).args(["--kind", &kind]);
        harness.arg("--json").arg(built.join(format!("sabotage-{kind}.json")));
        if !has("--only") && !has("--list") {
            harness.arg("--kept").arg(built.join(format!("sabotage-{kind}.kept.json")));
            harness.arg("--page").arg(root.join("docs/reliability.md")).args(["--commit", &commit]);
        }
        if let Some(place) = memory().filter(|_| !has("--place")) {
            harness.args(["--place", place]);
        }
        harness.args(&words).current_dir(&root);
        harness.envs(found.environment.iter().map(|(name, value)| (name, value)));
        is_success &= process::run(&mut harness, LIMIT, Echo::Shown)?.is_success();
    }
    Ok(if is_success { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Every kind of source that the harness knows, in the order in which they are run.
const KINDS: [&str; 5] = ["postgres", "cluster", "log", "sqlite", "files"];

/// The kinds that were asked for, all where none was, and the words that are for the harness as they are.
fn kinds(words: &[String]) -> (Vec<String>, Vec<String>) {
    let (mut kinds, mut rest) = (Vec::new(), Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let named = match word.strip_prefix("--kind") {
            Some("") => words.next().map(String::as_str),
            Some(value) => value.strip_prefix('='),
            None => None,
        };
        match named {
            Some(named) => kinds.extend(named.split(',').map(str::to_owned)),
            None => rest.push(word.clone()),
        }
    }
    if kinds.is_empty() {
        kinds = KINDS.map(str::to_owned).to_vec();
    }
    (kinds, rest)
}

/// A file system in memory, on every Linux.
const MEMORY: &str = "/dev/shm";

/// Twice what two estates at once have taken.
const ROOM: u64 = 4 << 30;

/// A place in memory, where there is room, and programs may be run from there: tools that lie are scripts of the estate.
pub(crate) fn memory() -> Option<&'static str> {
    let is_fit = |room: rustix::fs::StatVfs| {
        let may_run = !room.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC);
        may_run && room.f_bavail.saturating_mul(room.f_frsize) >= ROOM
    };
    rustix::fs::statvfs(MEMORY).is_ok_and(is_fit).then_some(MEMORY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_taken_from_wherever_they_stand() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            kinds(&words("--seeds 2")),
            (words("postgres cluster log sqlite files"), words("--seeds 2"))
        );
        let (some, rest) = kinds(&words("--seeds 2 --kind log,files --jobs 1 --kind=sqlite --only x"));
        assert_eq!((some, rest), (words("log files sqlite"), words("--seeds 2 --jobs 1 --only x")));
    }
}
