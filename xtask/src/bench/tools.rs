//! The tools that are compared, and how each is asked for each operation.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use seaworthy_testkit::components;

use super::{Operation, Options};
use crate::process::{self, Echo};
use crate::workspace;

const PASSWORD: &str = "bench-only";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Ours,
    Restic,
    Rustic,
    Borg,
}

/// One program in one version.
#[derive(Debug, Clone)]
pub(super) struct Tool {
    /// Short and unique, e.g. `restic-0.14`.
    pub(super) name: String,
    /// What it says about itself.
    pub(super) version: String,
    program: PathBuf,
    family: Family,
}

/// Our engine and every peer that is installed. Ours must be there; a benchmark without it says nothing.
pub(super) fn find(root: &Path, options: &Options) -> Result<Vec<Tool>, Box<dyn std::error::Error>> {
    let ours = match &options.ours {
        Some(program) => program.clone(),
        None => build(root)?,
    };
    if !ours.is_file() {
        return Err(format!("`{}` is not there: name our program with --ours", ours.display()).into());
    }
    let mut found = vec![Tool {
        name: "seaworthy".to_owned(),
        version: version(&ours, &["--version"]),
        program: ours,
        family: Family::Ours,
    }];
    let cached = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .map(|cache| cache.join("seaworthy/components/restic-trixie/root/usr/bin/restic"))
        .filter(|path| path.is_file());
    let installed = components::program("restic").ok();
    for program in installed.into_iter().chain(options.newer_restic.clone().or(cached)) {
        let said = version(&program, &["version"]);
        let short = said.split_whitespace().nth(1).unwrap_or("unknown").to_owned();
        let name = format!("restic-{}", short.split('.').take(2).collect::<Vec<_>>().join("."));
        if !found.iter().any(|tool: &Tool| tool.name == name) {
            found.push(Tool { name, version: said, program, family: Family::Restic });
        }
    }
    for (name, family) in [("rustic", Family::Rustic), ("borg", Family::Borg)] {
        match components::program(name) {
            Ok(program) => {
                let version = version(&program, &["--version"]);
                found.push(Tool { name: name.to_owned(), version, program, family });
            }
            Err(missing) => println!("   not compared: {missing}"),
        }
    }
    Ok(found)
}

fn build(root: &Path) -> Result<PathBuf, Box<dyn std::error::Error>> {
    println!("   building our engine's example, optimised");
    let mut cargo = process::cargo();
    cargo
        .args([
            "build",
            "--release",
            "--locked",
            "--package",
            "seaworthy-repository",
            "--example",
            "seaworthy-repo",
        ])
        .current_dir(root);
    let ran = process::run(&mut cargo, Duration::from_secs(1200), Echo::Quiet)?;
    if !ran.is_success() {
        return Err(format!("build {}: {}", ran.describe(), process::last_lines(&ran.output, 5)).into());
    }
    Ok(workspace::metadata(root)?.target_directory.join("release/examples/seaworthy-repo"))
}

fn version(program: &Path, arguments: &[&str]) -> String {
    process::capture(&program.to_string_lossy(), arguments, Duration::from_secs(30))
        .ok()
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(|| "does not tell its version".to_owned())
}

impl Tool {
    /// Whether it is ours.
    pub(super) fn is_ours(&self) -> bool {
        self.family == Family::Ours
    }

    /// What makes an empty repository; not measured, because it is mostly the cost of the key.
    pub(super) fn prepare(&self, place: &Path) -> Vec<Command> {
        let mut command = self.base(place);
        match self.family {
            Family::Ours | Family::Restic | Family::Rustic => command.arg("init"),
            Family::Borg => {
                command.args(["init", "--encryption", "repokey-blake2"]).arg(place.join("repository"))
            }
        };
        vec![command]
    }

    /// The measured command.
    pub(super) fn command(&self, operation: Operation, data: &Path, place: &Path, target: &Path) -> Command {
        let mut command = self.base(place);
        let repository = place.join("repository");
        let archive = |name: &str| format!("{}::{name}", repository.display());
        match (self.family, operation) {
            (Family::Ours, Operation::Initial | Operation::Unchanged | Operation::OnePercent) => {
                command.arg("backup").arg(data);
                // A database's files are cut at pages, as the product cuts them.
                if is_database(data) {
                    command.arg("--pages");
                }
            }
            (Family::Ours, Operation::Restore) => {
                command.args(["restore", "latest"]).arg(target);
            }
            (Family::Ours | Family::Restic | Family::Rustic, Operation::Check) => {
                command.args(["check", "--read-data"]);
            }
            (
                Family::Restic | Family::Rustic,
                Operation::Initial | Operation::Unchanged | Operation::OnePercent,
            ) => {
                command.arg("backup").arg(data);
            }
            (Family::Restic, Operation::Restore) => {
                command.args(["restore", "latest", "--target"]).arg(target);
            }
            (Family::Rustic, Operation::Restore) => {
                command.args(["restore", "latest"]).arg(target);
            }
            (Family::Borg, Operation::Initial | Operation::Unchanged | Operation::OnePercent) => {
                let name = match operation {
                    Operation::Unchanged => "n2",
                    Operation::OnePercent => "n3",
                    _ => "n1",
                };
                command.args(["create", "--compression", "zstd,3"]).arg(archive(name)).arg(data);
            }
            (Family::Borg, Operation::Restore) => {
                // The database's newest archive is the third; the others hold the same as the second.
                let newest = archive(if is_database(data) { "n3" } else { "n2" });
                command.arg("extract").arg(newest).current_dir(target);
            }
            (Family::Borg, Operation::Check) => {
                command.args(["check", "--verify-data"]).arg(&repository);
            }
        }
        command
    }

    /// The program with its password, repository and a home of its own, so that no cache of another round helps.
    fn base(&self, place: &Path) -> Command {
        let mut command = Command::new(&self.program);
        let (home, repository) = (place.join("home"), place.join("repository"));
        command.env("HOME", &home).env("XDG_CACHE_HOME", home.join("cache"));
        match self.family {
            Family::Ours => command.env("SEAWORTHY_REPO_PASSWORD", PASSWORD).arg(repository),
            Family::Restic => command.env("RESTIC_PASSWORD", PASSWORD).env("RESTIC_REPOSITORY", repository),
            Family::Rustic => command.env("RUSTIC_PASSWORD", PASSWORD).env("RUSTIC_REPOSITORY", repository),
            Family::Borg => command.env("BORG_PASSPHRASE", PASSWORD).env("BORG_BASE_DIR", home),
        };
        command
    }
}

fn is_database(data: &Path) -> bool {
    data.join("PG_VERSION").exists()
}
