//! `cargo xtask fuzz`: coverage-guided fuzzing of every parser of bytes that we did not write (`fuzz/`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use seaworthy_testkit::page::{machine, put_section};

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
    let mut figures = String::new();
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
            figures.push_str(
                &figure(target, &ran.output).ok_or("the fuzzer did not tell how many inputs it ran")?,
            );
        }
    }
    if found.is_empty() {
        if options.replay.is_none() && options.target.is_empty() {
            write_figures(&root, options.seconds, &figures)?;
        }
        println!("{} targets, nothing found", targets.len());
        return Ok(ExitCode::SUCCESS);
    }
    println!("found something: {}", found.join(", "));
    Ok(ExitCode::FAILURE)
}

/// Where a target's inputs begin: things of this kind that real tools wrote.
fn beginnings(root: &Path, target: &str) -> Vec<PathBuf> {
    match target {
        "config" => ["valid", "odd", "invalid"]
            .map(|kind| root.join("crates/model/testdata/config").join(kind))
            .to_vec(),
        _ => vec![root.join("fuzz/seeds").join(target)],
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
        "\n## Fuzzing\n\nMeasured {} by `cargo xtask fuzz --seconds {seconds}`: nothing found.\n\n- Machine: {}\n\n\
         Every parser of bytes that the product did not write, under an address sanitizer, led by coverage, begun with what real \
         tools wrote (`fuzz/seeds`). None panics, hangs, takes more than 2 GiB or breaks what its target asserts.\n\n\
         | target | inputs | edges of code reached |\n| --- | ---: | ---: |\n{figures}\n",
        jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC"),
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
