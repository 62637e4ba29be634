//! `cargo xtask mutants`: the code that decides, changed in every way that a tool can think of; the tests must notice each.
//!
//! What is changed, and what is left alone for which reason, stands in `.cargo/mutants.toml`. Each file writes its figures into
//! a section of its own of `docs/reliability.md`, with date and commit: all of them take hours, and may be run apart.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use seaworthy_testkit::page::{machine, put_section};

use crate::process::{self, Echo};
use crate::{TaskResult, components, workspace};

/// The options of `cargo xtask mutants`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Mutants at once.
    #[arg(long, default_value_t = 2)]
    jobs: u32,
    /// Only files whose path holds this; may be given several times.
    #[arg(long)]
    file: Vec<String>,
    /// Only mutants whose description matches this regular expression; then no figures are written.
    #[arg(long, conflicts_with = "file")]
    only: Option<String>,
    /// Only those that a run before this one has not caught; then no figures are written.
    #[arg(long, conflicts_with = "file")]
    again: bool,
}

/// 30 min: a cold build of the tool.
const BUILD_LIMIT: Duration = Duration::from_secs(1800);
/// 8 h: several times what all mutants take on two cores.
const LIMIT: Duration = Duration::from_secs(28_800);

/// Runs the mutants. The exit code is 0 only when none survived.
pub(crate) fn run(options: &Options) -> TaskResult {
    let root = workspace::root();
    if components::find("cargo-mutants").is_none() {
        println!("   `cargo-mutants` is missing: cargo install cargo-mutants");
        let mut install = process::cargo();
        install.args(["install", "cargo-mutants", "--locked"]);
        if !process::run(&mut install, BUILD_LIMIT, Echo::Shown)?.is_success() {
            return Ok(ExitCode::FAILURE);
        }
    }
    if options.only.is_some() || options.again {
        let Some(ended) = mutate(&root, options, options.only.as_deref())? else {
            return Ok(ExitCode::FAILURE);
        };
        println!("{}", ended.words());
        return Ok(ended.code());
    }
    let page = root.join("docs/reliability.md");
    let commit = workspace::head(&root)?;
    let mut is_success = true;
    for file in files(&root, &options.file)? {
        let began = Instant::now();
        // Descriptions begin with the file; `--file` would add to what the configuration names.
        let only = format!("^{}:", file.replace('.', "\\."));
        let Some(ended) = mutate(&root, options, Some(&only))? else {
            return Ok(ExitCode::FAILURE);
        };
        println!("{file}: {}", ended.words());
        is_success &= ended.code() == ExitCode::SUCCESS;
        let section = format!(
            "\n- `{file}`: {} ({}, of {commit}, in {} minutes; {})\n{}\n",
            ended.words(),
            jiff::Timestamp::now().strftime("%Y-%m-%d"),
            began.elapsed().as_secs().div_ceil(60),
            machine(),
            ended.missed.iter().map(|mutant| format!("  - survives: {mutant}\n")).collect::<String>(),
        );
        let name = format!("mutants-{}", section_name(&file));
        workspace::write(&page, &put_section(&workspace::read(&page)?, &name, &section))?;
    }
    Ok(if is_success { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `crates/model/src/witness/files/mod.rs` without what all of them begin and end with, as a word.
fn section_name(file: &str) -> String {
    let name = file.strip_prefix("crates/model/src/").unwrap_or(file);
    name.strip_suffix(".rs").unwrap_or(name).replace('/', "-")
}

/// The files that the configuration names and that hold something to change, in order; those that were asked for.
fn files(root: &Path, asked: &[String]) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let mut command = process::cargo();
    command.args(["mutants", "--colors", "never", "-p", "seaworthy-model", "--list"]).current_dir(root);
    let listed = process::run(&mut command, BUILD_LIMIT, Echo::Quiet)?;
    let mut files: Vec<String> = listed
        .output
        .lines()
        .filter_map(|line| Some(line.split_once(".rs:")?.0))
        .map(|file| format!("{file}.rs"))
        .filter(|file| asked.is_empty() || asked.iter().any(|part| file.contains(part.as_str())))
        .collect();
    files.sort();
    files.dedup();
    if !listed.is_success() || files.is_empty() {
        return Err(format!("no file with anything to change:\n{}", listed.output).into());
    }
    Ok(files)
}

/// Runs those whose description matches, all where nothing is given. Nothing: the tool itself has failed.
fn mutate(
    root: &Path,
    options: &Options,
    only: Option<&str>,
) -> Result<Option<Ended>, Box<dyn std::error::Error>> {
    let output = workspace::metadata(root)?.target_directory;
    let mut command = process::cargo();
    command.args(["mutants", "--colors", "never", "-p", "seaworthy-model", "--jobs"]);
    command.arg(options.jobs.to_string()).arg("--output").arg(&output);
    if let Some(only) = only {
        command.args(["--re", only]);
    }
    if options.again {
        command.arg("--iterate");
    }
    let ran = process::run(command.current_dir(root), LIMIT, Echo::Shown)?;
    // 0: all found; 2: some survive; 3: some never end. Anything else is no run of mutants at all.
    let code = if let process::Ended::By(status) = ran.ended { status.code() } else { None };
    if !matches!(code, Some(0 | 2 | 3)) {
        return Ok(None);
    }
    Ok(Some(Ended::read(&output.join("mutants.out"))?))
}

/// How mutants ended, from the lists that the tool leaves.
struct Ended {
    caught: usize,
    endless: usize,
    unviable: usize,
    missed: Vec<String>,
}

impl Ended {
    fn read(directory: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let lines = |name: &str| -> Result<Vec<String>, Box<dyn std::error::Error>> {
            let path: PathBuf = directory.join(name);
            Ok(workspace::read(&path)?.lines().map(str::to_owned).collect())
        };
        Ok(Self {
            caught: lines("caught.txt")?.len(),
            endless: lines("timeout.txt")?.len(),
            unviable: lines("unviable.txt")?.len(),
            missed: lines("missed.txt")?,
        })
    }

    fn code(&self) -> ExitCode {
        if self.missed.is_empty() && self.caught > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn words(&self) -> String {
        format!(
            "{} mutants: {} found by a test, {} never end and are found by that, {} do not compile, {} survive",
            self.caught + self.endless + self.unviable + self.missed.len(),
            self.caught,
            self.endless,
            self.unviable,
            self.missed.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_has_a_section_of_its_own() {
        assert_eq!(section_name("crates/model/src/witness/files/mod.rs"), "witness-files-mod");
        assert_ne!(
            section_name("crates/model/src/wal/mod.rs"),
            section_name("crates/model/src/retention/mod.rs")
        );
    }
}
