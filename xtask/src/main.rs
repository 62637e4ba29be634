//! Development tasks, run as `cargo xtask <task>`.
//!
//! `test` installs what the tests need and runs everything that continuous integration runs; `tidy` enforces what the
//! compiler cannot; `gen` writes the generated reference pages; `bench` measures against other tools.
//!
//! This crate is never part of the product and nothing of the product depends on it. It runs no shell.

/// The command line of the product, for its reference: the very file, so that the page cannot disagree with it.
#[expect(dead_code, reason = "only the tree of commands is read here, never what was given")]
#[path = "../../crates/seaworthy/src/cli/args.rs"]
mod args;
mod bench;
mod commands;
mod components;
mod crash;
/// The exit codes of the product, likewise.
#[path = "../../crates/seaworthy/src/exit.rs"]
mod exit;
mod fuzz;
mod generate;
mod measure;
mod mutants;
mod process;
mod readme;
mod sabotage;
mod simulate;
mod suite;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    about = "Development tasks of this workspace",
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what the tests need, then run every check and every test.
    Test(suite::Options),
    /// Check what the compiler cannot: dependency arrows, banned words, links, licences, counts.
    Tidy,
    /// Write the generated pages (docs/reference, docs/dependencies.md).
    Gen(generate::Options),
    /// Measure our engine against restic, rustic and borg on the same data in the same run.
    Bench(bench::Options),
    /// Make everything wrong that can be, and count what the product and naive checkers notice.
    Sabotage(sabotage::Options),
    /// Kill the product at every moment, fail its disk, cut its power: the long form of those tests.
    Crash(crash::Options),
    /// Feed every parser of foreign bytes with what is most likely to break it.
    Fuzz(fuzz::Options),
    /// Change the code that decides in every way, and see whether a test notices.
    Mutants(mutants::Options),
    /// Let years of estates pass, and compare every claim with the truth.
    Simulate(simulate::Options),
    /// Run one program and report its resources as one JSON line. Used by `bench`.
    #[command(hide = true)]
    Measure(measure::Options),
}

fn main() -> ExitCode {
    let task = Arguments::parse().task;
    let outcome = match &task {
        Task::Test(options) => suite::run(options),
        Task::Tidy => tidy::run(),
        Task::Gen(options) => generate::run(options),
        Task::Bench(options) => bench::run(options),
        Task::Sabotage(options) => sabotage::run(options),
        Task::Crash(options) => crash::run(options),
        Task::Fuzz(options) => fuzz::run(options),
        Task::Mutants(options) => mutants::run(options),
        Task::Simulate(options) => simulate::run(options),
        Task::Measure(options) => return measure::run(options),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprint!("error: {error}");
            let mut source = std::error::Error::source(&*error);
            while let Some(cause) = source {
                eprint!(": {cause}");
                source = cause.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

/// What every task returns: its exit code, or why it could not be carried out.
pub(crate) type TaskResult = Result<ExitCode, Box<dyn std::error::Error>>;
