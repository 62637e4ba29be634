//! `cargo xtask simulate`: years of estates with everything that happens to them, and every claim compared with the truth.
//!
//! The suite runs a short form of the same test (`crates/engine/tests/simulation`) every time. What a run has done is told by
//! the test itself, in lines that begin with `figure:`; a whole run writes them into `docs/reliability.md`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use seaworthy_testkit::page::{figures, machine, put_section};

use crate::process::{self, Echo};
use crate::{TaskResult, workspace};

/// The options of `cargo xtask simulate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many estates.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// How many years of each.
    #[arg(long, default_value_t = 10)]
    years: u64,
    /// How many services each has.
    #[arg(long, default_value_t = 4)]
    services: u64,
    /// The first estate. With this, nothing is written: one estate again.
    #[arg(long)]
    seed: Option<u64>,
}

/// 6 h: several times what a whole run takes.
const LIMIT: Duration = Duration::from_secs(21_600);

/// Runs the simulation. The exit code is 0 only when every claim was what had happened.
pub(crate) fn run(options: &Options) -> TaskResult {
    let root = workspace::root();
    let mut command = process::cargo();
    command.args(["test", "--release", "--locked", "-p", "seaworthy-engine", "--test", "simulation"]);
    command.args(["--", "--nocapture"]).current_dir(&root);
    for (name, value) in [
        ("SEAWORTHY_SEED", options.seed.unwrap_or(1)),
        ("SEAWORTHY_SEEDS", if options.seed.is_some() { 1 } else { options.seeds }),
        ("SEAWORTHY_YEARS", options.years),
        ("SEAWORTHY_SERVICES", options.services),
    ] {
        command.env(name, value.to_string());
    }
    let (commit, began) = (workspace::head(&root)?, Instant::now());
    let ran = process::run(&mut command, LIMIT, Echo::Shown)?;
    if options.seed.is_none() && ran.is_success() {
        let page = root.join("docs/reliability.md");
        let section = format!(
            "\n## Simulation\n\nMeasured {} by `cargo xtask simulate`, seeds 1 to {}, of {}, in {} minutes.\n\n- Machine: {}\n{}\n\
             A simulated world, and the product's own runs, verdicts, receipts, points and judgements in it: see \
             `crates/engine/tests/simulation`. After every event what is claimed of two services (level, exposure, recovery time, \
             READY or not, silence or not) is what an independent reading of the true story says; where the story holds wrong \
             dates, that READY is not claimed untruly; no sound copy fails and no wrong one passes; half a year apart the ledger verifies, a ledger that was touched does not, and at the end the \
             catalogue on disk derives the same. One estate again: `cargo xtask simulate --seed N`.\n\n",
            jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC"),
            options.seeds,
            commit,
            began.elapsed().as_secs().div_ceil(60),
            machine(),
            figures(&ran.output)
        );
        workspace::write(&page, &put_section(&workspace::read(&page)?, "simulation", &section))?;
        println!("written to docs/reliability.md");
    }
    Ok(if ran.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
