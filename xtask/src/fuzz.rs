//! `cargo xtask fuzz`: coverage-guided fuzzing of every parser of bytes that we did not write (`fuzz/`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use seaworthy_testkit::page::{machine, put_section};
use serde::{Deserialize, Serialize};

use crate::process::{self, Echo};
use crate::{TaskResult, components, workspace};

/// The options of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only this target; may be given several times.
    #[arg(long)]
    target: Vec<String>,
    /// Add what these targets have found to what others have found before, for as long: once all of them are there, the figures are written.
    #[arg(long)]
    go_on: bool,
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
    let mut all: Vec<String> = Vec::new();
    for entry in fs::read_dir(root.join("fuzz/fuzz_targets"))? {
        all.extend(entry?.path().file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    all.sort();
    let is_wanted = |name: &&String| options.target.is_empty() || options.target.contains(name);
    let targets: Vec<String> = all.iter().filter(is_wanted).cloned().collect();
    if targets.is_empty() {
        return Err(format!("no target is called {}", options.target.join(" or ")).into());
    }
    let mut found = Vec::new();
    let place = workspace::metadata(&root)?.target_directory.join("fuzz.kept.json");
    if !options.go_on && options.replay.is_none() && place.exists() {
        fs::remove_file(&place)?;
    }
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
                let corpus = root.join("fuzz/corpus").join(target);
                fs::create_dir_all(&corpus)?;
                command.arg(corpus).args(beginnings(&root, target));
                let seconds = format!("-max_total_time={}", options.seconds);
                command.args(["--", &seconds, "-rss_limit_mb=2048", "-timeout=10", "-print_final_stats=1"]);
            }
        }
        let limit = BUILD_LIMIT + Duration::from_secs(u64::from(options.seconds));
        let ran = process::run(&mut command, limit, Echo::Shown)?;
        if !ran.is_success() {
            found.push(target.as_str());
            continue;
        }
        if options.replay.is_none() {
            let figure =
                figure(target, &ran.output).ok_or("the fuzzer did not tell how many inputs it ran")?;
            // Another run may be at work on other targets.
            let mut kept = Kept::read(&place, options)?;
            kept.figures.insert(target.clone(), figure);
            workspace::write(&place, &serde_json::to_string_pretty(&kept)?)?;
        }
    }
    if found.is_empty() {
        let kept = Kept::read(&place, options)?;
        if options.replay.is_none() && all.iter().all(|target| kept.figures.contains_key(target)) {
            let figures: String = kept.figures.into_values().collect();
            write_figures(&root, options.seconds, &figures)?;
        }
        println!("{} targets, nothing found", targets.len());
        return Ok(ExitCode::SUCCESS);
    }
    println!("found something: {}", found.join(", "));
    Ok(ExitCode::FAILURE)
}

/// What targets have found, by name.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    seconds: u32,
    figures: BTreeMap<String, String>,
}

impl Kept {
    /// What was kept before; nothing where it was of another length.
    fn read(place: &Path, options: &Options) -> Result<Self, Box<dyn std::error::Error>> {
        let fresh = Self { seconds: options.seconds, figures: BTreeMap::new() };
        if !place.exists() {
            return Ok(fresh);
        }
        let kept: Self = serde_json::from_str(&workspace::read(place)?)?;
        Ok(if kept.seconds == options.seconds { kept } else { fresh })
    }
}

/// Where a target's inputs begin: things of this kind that real tools wrote.
fn beginnings(root: &Path, target: &str) -> Vec<PathBuf> {
    match target {
        "config" => ["valid", "odd", "invalid"]
            .map(|kind| root.join("crates/model/testdata/config").join(kind))
            .to_vec(),
        // The fuzzer refuses a directory that is not there.
        _ => [root.join("fuzz/seeds").join(target)].into_iter().filter(|seeds| seeds.exists()).collect(),
    }
}

/// A line of the page, from what libFuzzer says at its end; `None` where it does not say it.
fn figure(target: &str, output: &str) -> Option<String> {
    let last = |before: &str, after: &str| {
        output
            .lines()
            .rev()
            .find_map(|line| line.split_once(before)?.1.split_once(after).map(|two| two.0.to_owned()))
    };
    let runs: u64 = last("Done ", " runs")?.parse().ok()?;
    let edges: u64 = last(" cov: ", " ")?.parse().ok()?;
    Some(format!("| {target} | {runs} | {edges} |\n"))
}

fn write_figures(root: &Path, seconds: u32, figures: &str) -> Result<(), Box<dyn std::error::Error>> {
    let section = format!(
        "\n## Fuzzing\n\nMeasured {} by `cargo xtask fuzz --seconds {seconds}`, of {}: nothing found.\n\n- Machine: {}\n\n\
         Every parser of bytes that the product did not write, under an address sanitizer, led by coverage, begun with what real \
         tools wrote (`fuzz/seeds`). None panics, hangs, takes more than 2 GiB or breaks what its target asserts.\n\n\
         | target | inputs | edges of code reached |\n| --- | ---: | ---: |\n{figures}\n",
        jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC"),
        workspace::head(root)?,
        machine(),
    );
    let page = root.join("docs/reliability.md");
    workspace::write(&page, &put_section(&workspace::read(&page)?, "fuzz", &section))?;
    println!("written to docs/reliability.md");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_fuzzer_is_read() {
        let output = "#131072\tpulse  cov: 310 ft: 512 corp: 50/2Kb\n#200\tDONE   cov: 321 ft: 555 corp: 51/2Kb\nDone 200123 runs in 61 second(s)\n";
        assert_eq!(figure("tree", output).as_deref(), Some("| tree | 200123 | 321 |\n"));
        assert_eq!(figure("tree", "Done many runs"), None);
    }
}
