//! `cargo xtask fuzz`: coverage-guided fuzzing of every parser of bytes that we did not write (`fuzz/`).

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::process::{self, Echo};
use crate::{TaskResult, components, workspace};

/// The options of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only this target; may be given several times.
    #[arg(long)]
    target: Vec<String>,
    /// How long each target runs.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Run this one input instead.
    #[arg(long)]
    replay: Option<PathBuf>,
}

/// 30 min: a cold build with sanitizers, or of cargo-fuzz itself.
const BUILD_LIMIT: Duration = Duration::from_secs(1800);

/// Runs the targets. The exit code is 0 only when none of them found anything.
pub(crate) fn run(options: &Options) -> TaskResult {
    let root = workspace::root();
    if components::find("cargo-fuzz").is_none() {
        println!("   `cargo-fuzz` is missing: cargo install cargo-fuzz");
        let mut install = process::cargo();
        install.args(["install", "cargo-fuzz", "--locked"]);
        if !process::run(&mut install, BUILD_LIMIT, Echo::Shown)?.is_success() {
            return Ok(ExitCode::FAILURE);
        }
    }
    let mut targets: Vec<String> = Vec::new();
    for entry in fs::read_dir(root.join("fuzz/fuzz_targets"))? {
        let name = entry?.path().file_stem().map(|name| name.to_string_lossy().into_owned());
        targets.extend(name.filter(|name| options.target.is_empty() || options.target.contains(name)));
    }
    targets.sort();
    if targets.is_empty() {
        return Err(format!("no target is called {}", options.target.join(" or ")).into());
    }
    let mut found = Vec::new();
    for target in &targets {
        println!("== {target}");
        let mut command = process::cargo();
        // Sanitizers are not stable; the compiler takes them all the same when it is told that we know.
        command.current_dir(&root).env("RUSTC_BOOTSTRAP", "1").args(["fuzz", "run", target]);
        match &options.replay {
            Some(input) => {
                command.arg(input);
            }
            None => {
                let seconds = format!("-max_total_time={}", options.seconds);
                command.args(["--", &seconds, "-rss_limit_mb=2048", "-timeout=10"]);
            }
        }
        let limit = BUILD_LIMIT + Duration::from_secs(u64::from(options.seconds));
        if !process::run(&mut command, limit, Echo::Shown)?.is_success() {
            found.push(target.as_str());
        }
    }
    if found.is_empty() {
        println!("{} targets, nothing found", targets.len());
        return Ok(ExitCode::SUCCESS);
    }
    println!("found something: {}", found.join(", "));
    Ok(ExitCode::FAILURE)
}
