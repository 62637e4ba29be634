//! `cargo xtask crash`: the long form of the tests that kill the product, fail its disk and cut its power.
//!
//! The suite runs the same tests with few moments every time. What each of them has done is told by itself, in lines that
//! begin with `figure:`; a whole run writes them into `docs/reliability.md`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use seaworthy_testkit::page::{figures, machine, put_section};

use crate::process::{self, Echo};
use crate::sabotage::memory;
use crate::{TaskResult, components, workspace};

/// The options of `cargo xtask crash`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Random moments at which each act is killed.
    #[arg(long, default_value_t = 1000)]
    kills: u64,
    /// Calls at which each act is killed, and at which its disk fails; all of them where there are fewer.
    #[arg(long, default_value_t = 2000)]
    calls: u64,
    /// Faults of the network between the product and a source.
    #[arg(long, default_value_t = 400)]
    faults: u64,
    /// Losses of power.
    #[arg(long, default_value_t = 200)]
    cuts: u64,
    /// Chooses the moments.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only tests whose name holds this; then no figures are written.
    #[arg(long)]
    only: Option<String>,
}

/// 12 h: several times what a whole run takes on two cores.
const LIMIT: Duration = Duration::from_secs(43_200);

/// Runs the tests. The exit code is 0 only when all of them held.
pub(crate) fn run(options: &Options) -> TaskResult {
    let root = workspace::root();
    let found = components::provide(&root, true);
    if !found.missing.is_empty() {
        return Err(found.missing.join("; ").into());
    }
    let mut command = process::cargo();
    command.args([
        "test",
        "--release",
        "--locked",
        "-p",
        "seaworthy",
        "--test",
        "crash",
        "--test",
        "power",
        "--test",
        "network",
    ]);
    command.args(["--features", "seaworthy-testkit/sqlite", "--no-fail-fast", "--"]);
    command.args(&options.only).args(["--nocapture", "--test-threads=2"]).current_dir(&root);
    command.envs(found.environment.iter().map(|(name, value)| (name, value)));
    for (name, value) in [
        ("SEAWORTHY_KILLS", options.kills),
        ("SEAWORTHY_CALLS", options.calls),
        ("SEAWORTHY_CUTS", options.cuts),
        ("SEAWORTHY_FAULTS", options.faults),
        ("SEAWORTHY_SEED", options.seed),
    ] {
        command.env(name, value.to_string());
    }
    if let Some(place) = memory() {
        // What is killed leaves behind what it has written, whether a disk holds it or not; a loss of power has a disk of its own.
        command.env("SEAWORTHY_TEST_PLACE", place).env("TMPDIR", place);
    }
    let began = Instant::now();
    let ran = process::run(&mut command, LIMIT, Echo::Shown)?;
    if options.only.is_none() && ran.is_success() {
        let page = root.join("docs/reliability.md");
        let text =
            put_section(&workspace::read(&page)?, "crash", &section(options, &ran.output, began.elapsed()));
        workspace::write(&page, &text)?;
        println!("written to docs/reliability.md");
    }
    Ok(if ran.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn section(options: &Options, output: &str, took: Duration) -> String {
    let mut text = format!(
        "\n## Crashes\n\nMeasured {} by `cargo xtask crash --seed {}`, in {} minutes.\n\n- Machine: {}\n",
        jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC"),
        options.seed,
        took.as_secs().div_ceil(60),
        machine()
    );
    text.push_str(&figures(output));
    text.push_str(
        "\nAfter each of these moments: stock restic finds the repository sound, every copy that a receipt acknowledges is in it, \
         the ledger verifies, nothing is left running; the next run needs no human and leaves nothing in the scratch \
         directory; at the end every acknowledged copy restores and the newest is proven.\n\n",
    );
    text
}
