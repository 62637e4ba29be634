//! `cargo xtask sabotage`: the product as it is released, against everything that can be wrong, beside naive checkers.
//!
//! Builds the product and the harness (`crates/sabotage`) and runs the latter. A whole run writes its figures into
//! `docs/reliability.md`; a part of one writes nothing but its trials.

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
    let mut harness = std::process::Command::new(built.join("seaworthy-sabotage"));
    harness.arg("--program").arg(built.join("seaworthy"));
    harness.arg("--json").arg(built.join("sabotage.json"));
    let has = |name: &str| options.harness.iter().any(|word| word.split('=').next() == Some(name));
    if !["--only", "--kind", "--list"].into_iter().any(has) {
        harness.arg("--kept").arg(built.join("sabotage.kept.json"));
        harness.arg("--page").arg(root.join("docs/reliability.md"));
    }
    if let Some(place) = memory().filter(|_| !has("--place")) {
        harness.args(["--place", place]);
    }
    harness.args(&options.harness).current_dir(&root);
    harness.envs(found.environment.iter().map(|(name, value)| (name, value)));
    let ran = process::run(&mut harness, LIMIT, Echo::Shown)?;
    Ok(if ran.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
