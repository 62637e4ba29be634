//! `cargo xtask mutants`: the code that decides, changed in every way that a tool can think of; the tests must notice each.
//!
//! What is changed, and what is left alone for which reason, stands in `.cargo/mutants.toml`. Each file writes its figures into
//! a section of its own of `docs/reliability.md`, with date and commit: all of them take hours, and may be run apart.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use seaworthy_testkit::page::{machine, put_section};

use crate::process::{self, Echo};
use crate::{TaskResult, components, workspace};

/// The options of `cargo xtask mutants`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Mutants at once.
    #[arg(long, default_value_t = 2)]
    jobs: u32,
    /// Change the files where they lie and put them back, one mutant at a time: nothing is built anew first.
    #[arg(long)]
    in_place: bool,
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
        let how = if options.again { How::Again } else { How::First(EVERYTHING) };
        let Some(ended) = mutate(&root, options, how, options.only.as_deref())? else {
            return Ok(ExitCode::FAILURE);
        };
        println!("{}", ended.words());
        return Ok(ended.code());
    }
    let page = root.join("docs/reliability.md");
    let commit = workspace::head(&root)?;
    let files = files(&root, &options.file)?;
    let mut ended = Ended::default();
    for (tests, files) in by_tests(&files) {
        // One run for many files: each run begins with a build. Descriptions begin with the file; `--file` would add to what the
        // configuration names.
        let only = files.iter().map(|file| file.replace('.', "\\.")).collect::<Vec<_>>().join("|");
        let only = format!("^({only}):");
        let Some(mut part) = mutate(&root, options, How::First(tests), Some(&only))? else {
            return Ok(ExitCode::FAILURE);
        };
        if !part.missed.is_empty() {
            // What those tests have not noticed, all others may.
            let Some(again) = mutate(&root, options, How::Again, Some(&only))? else {
                return Ok(ExitCode::FAILURE);
            };
            part = part.then(again);
        }
        ended.add(part);
    }
    let mut text = workspace::read(&page)?;
    for file in &files {
        let ended = ended.of(file);
        println!("{file}: {}", ended.words());
        let section = format!(
            "\n- `{file}`: {} ({}, of {commit}; {})\n{}\n",
            ended.words(),
            jiff::Timestamp::now().strftime("%Y-%m-%d"),
            machine(),
            ended.missed.iter().map(|mutant| format!("  - survives: {mutant}\n")).collect::<String>(),
        );
        text = put_section(&text, &format!("mutants-{}", section_name(file)), &section);
    }
    workspace::write(&page, &text)?;
    println!("{}", ended.words());
    Ok(ended.code())
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

/// Every test that may notice a mutant.
const EVERYTHING: &[&str] = &[
    "--lib",
    "--test=assess",
    "--test=frozen",
    "--test=frozen_retention",
    "--test=ground",
    "--test=ledger",
    "--test=retention",
];

/// The tests of a file: they are asked first, and what they do not notice is given to all others. Building all of them for each mutant takes
/// twice as long.
fn tests_of(file: &str) -> &'static [&'static str] {
    match file.strip_prefix("crates/model/src/").unwrap_or(file) {
        "assess.rs" => &["--test=assess"],
        "ledger.rs" | "receipt.rs" => &["--test=ledger"],
        file if file.starts_with("retention/") => &["--test=retention", "--test=ground"],
        _ => &["--lib"],
    }
}

/// The files that have the same tests, beside each other.
fn by_tests(files: &[String]) -> BTreeMap<&'static [&'static str], Vec<&str>> {
    let mut groups: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for file in files {
        groups.entry(tests_of(file)).or_default().push(file);
    }
    groups
}

/// Which mutants are tried, and by which tests.
#[derive(Clone, Copy)]
enum How {
    /// All, by these.
    First(&'static [&'static str]),
    /// Those that the run before this one has not caught, by every test.
    Again,
}

/// Runs those whose description matches, all where nothing is given. Nothing: the tool itself has failed.
fn mutate(
    root: &Path,
    options: &Options,
    how: How,
    only: Option<&str>,
) -> Result<Option<Ended>, Box<dyn std::error::Error>> {
    let output = workspace::metadata(root)?.target_directory;
    let mut command = process::cargo();
    command.args(["mutants", "--colors", "never", "-p", "seaworthy-model"]).arg("--output").arg(&output);
    if options.in_place {
        command.arg("--in-place");
    } else {
        command.arg("--jobs").arg(options.jobs.to_string());
    }
    if let Some(only) = only {
        command.args(["--re", only]);
    }
    let tests = match how {
        How::First(tests) => tests,
        How::Again => {
            command.arg("--iterate");
            EVERYTHING
        }
    };
    command.args(tests.iter().map(|test| format!("--cargo-arg={test}")));
    let ran = process::run(command.current_dir(root), LIMIT, Echo::Shown)?;
    // 0: all found; 2: some survive; 3: some never end. Anything else is no run of mutants at all.
    let code = if let process::Ended::By(status) = ran.ended { status.code() } else { None };
    if !matches!(code, Some(0 | 2 | 3)) {
        return Ok(None);
    }
    Ok(Some(Ended::read(&output.join("mutants.out"))?))
}

/// How mutants ended, from the lists that the tool leaves.
#[derive(Default)]
struct Ended {
    caught: Vec<String>,
    endless: Vec<String>,
    unviable: Vec<String>,
    missed: Vec<String>,
}

impl Ended {
    fn read(directory: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let lines = |name: &str| -> Result<Vec<String>, Box<dyn std::error::Error>> {
            let path: PathBuf = directory.join(name);
            Ok(workspace::read(&path)?.lines().map(str::to_owned).collect())
        };
        Ok(Self {
            caught: lines("caught.txt")?,
            endless: lines("timeout.txt")?,
            unviable: lines("unviable.txt")?,
            missed: lines("missed.txt")?,
        })
    }

    /// What is known after those that had not been caught were tried once more.
    fn then(mut self, again: Self) -> Self {
        let is_new = |mutant: &String| {
            ![&again.caught, &again.endless, &again.unviable, &again.missed]
                .iter()
                .any(|list| list.contains(mutant))
        };
        self.endless.retain(is_new);
        self.missed.clear();
        self.add(again);
        self
    }

    fn add(&mut self, other: Self) {
        self.caught.extend(other.caught);
        self.endless.extend(other.endless);
        self.unviable.extend(other.unviable);
        self.missed.extend(other.missed);
    }

    /// Those of one file.
    fn of(&self, file: &str) -> Self {
        let of = |lines: &[String]| {
            let is_of = |line: &&String| line.strip_prefix(file).is_some_and(|rest| rest.starts_with(':'));
            lines.iter().filter(is_of).cloned().collect()
        };
        Self {
            caught: of(&self.caught),
            endless: of(&self.endless),
            unviable: of(&self.unviable),
            missed: of(&self.missed),
        }
    }

    fn code(&self) -> ExitCode {
        if self.missed.is_empty() && !self.caught.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn words(&self) -> String {
        format!(
            "{} mutants: {} found by a test, {} never end and are found by that, {} do not compile, {} survive",
            self.caught.len() + self.endless.len() + self.unviable.len() + self.missed.len(),
            self.caught.len(),
            self.endless.len(),
            self.unviable.len(),
            self.missed.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_file_is_of_that_file_alone() {
        let ended = Ended {
            caught: vec!["a/mod.rs:1:2: replace".into(), "a/mod.rs.old:1:2: replace".into()],
            endless: vec!["b.rs:1:2: replace".into()],
            unviable: Vec::new(),
            missed: vec!["a/mod.rs:9:2: replace".into()],
        };
        let of = ended.of("a/mod.rs");
        assert_eq!((of.caught.len(), of.endless.len(), of.missed.len()), (1, 0, 1));
        assert_eq!(of.code(), ExitCode::FAILURE);
    }

    #[test]
    fn what_a_second_run_has_caught_does_not_survive() {
        let of = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let first = Ended {
            caught: of(&["a"]),
            endless: of(&["b", "c"]),
            unviable: of(&["d"]),
            missed: of(&["e", "f"]),
        };
        let again = Ended { caught: of(&["c", "e"]), missed: of(&["f"]), ..Ended::default() };
        let known = first.then(again);
        assert_eq!(
            (known.caught, known.endless, known.unviable, known.missed),
            (of(&["a", "c", "e"]), of(&["b"]), of(&["d"]), of(&["f"]))
        );
    }

    #[test]
    fn every_file_has_a_section_of_its_own() {
        assert_eq!(section_name("crates/model/src/witness/files/mod.rs"), "witness-files-mod");
        assert_ne!(
            section_name("crates/model/src/wal/mod.rs"),
            section_name("crates/model/src/retention/mod.rs")
        );
    }
}
