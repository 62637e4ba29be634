//! `cargo xtask mutants`: the code that decides, changed in every way that a tool can think of; the tests must notice each.
//!
//! What is changed, and what is left alone for which reason, stands in `.cargo/mutants.toml`.

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
    /// Only mutants whose description matches this regular expression; then no figures are written.
    #[arg(long)]
    only: Option<String>,
    /// Only those that a run before this one has not caught; then no figures are written.
    #[arg(long)]
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
    let output = workspace::metadata(&root)?.target_directory;
    let mut command = process::cargo();
    command.args(["mutants", "--colors", "never", "-p", "seaworthy-model", "--jobs"]);
    command.arg(options.jobs.to_string()).arg("--output").arg(&output);
    if let Some(only) = &options.only {
        command.args(["--re", only]);
    }
    if options.again {
        command.arg("--iterate");
    }
    let (commit, began) = (workspace::head(&root)?, Instant::now());
    let ran = process::run(command.current_dir(&root), LIMIT, Echo::Shown)?;
    // 0: all found; 2: some survive; 3: some never end. Anything else is no run of mutants at all.
    let code = if let process::Ended::By(status) = ran.ended { status.code() } else { None };
    if !matches!(code, Some(0 | 2 | 3)) {
        return Ok(ExitCode::FAILURE);
    }
    let ended = Ended::read(&output.join("mutants.out"))?;
    println!("{}", ended.words());
    if options.only.is_none() && !options.again {
        let section = format!(
            "\n## Mutants\n\nMeasured {} by `cargo xtask mutants`, of {}, in {} minutes.\n\n- Machine: {}\n- {}\n{}\n\
             Every function, operator and constant of the code that decides (`.cargo/mutants.toml` names it, and what is left \
             alone for which reason) is exchanged, one at a time; the tests of its crate must fail, or end within a minute.\n\n",
            jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC"),
            commit,
            began.elapsed().as_secs().div_ceil(60),
            machine(),
            ended.words(),
            ended.missed.iter().map(|mutant| format!("- survives: {mutant}\n")).collect::<String>(),
        );
        let page = root.join("docs/reliability.md");
        workspace::write(&page, &put_section(&workspace::read(&page)?, "mutants", &section))?;
        println!("written to docs/reliability.md");
    }
    Ok(if ended.missed.is_empty() && ended.caught > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
