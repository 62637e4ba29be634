//! Runs one program and prints what it cost as one JSON line: wall time, CPU time, peak resident memory, exit code.
//!
//! A process of its own per measured program, because the kernel keeps the peak memory of *all* children of a process
//! in one number. The line goes to the file named by `--into`, so that it cannot mix with the program's own output.

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde::{Deserialize, Serialize};

/// What one run of one program cost.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Wall-clock seconds, monotonic.
    pub(crate) wall_s: f64,
    /// User CPU seconds of the program and its waited-for children.
    pub(crate) user_s: f64,
    /// System CPU seconds of the same.
    pub(crate) system_s: f64,
    /// Largest resident set of any one of these processes.
    pub(crate) peak_rss_mib: f64,
    /// Exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where the JSON line goes.
    #[arg(long)]
    into: PathBuf,
    /// Where the program's standard output goes [default: ours]
    #[arg(long)]
    output: Option<PathBuf>,
    /// The program and its arguments.
    #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
    argv: Vec<std::ffi::OsString>,
}

/// Runs the program; ends with 0 when the measurement was written, whatever the program's own exit code.
pub(crate) fn run(options: &Options) -> ExitCode {
    match measure(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: measure: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let (program, arguments) = options.argv.split_first().ok_or("no program named")?;
    let started = Instant::now();
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    if let Some(path) = &options.output {
        command.stdout(std::fs::OpenOptions::new().write(true).create(true).truncate(true).open(path)?);
    }
    let status = command.status()?;
    let wall_s = started.elapsed().as_secs_f64();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |value: nix::sys::time::TimeVal| value.num_microseconds() as f64 / 1e6;
    let cost = Cost {
        wall_s,
        user_s: seconds(usage.user_time()),
        system_s: seconds(usage.system_time()),
        // Linux reports KiB.
        peak_rss_mib: usage.max_rss() as f64 / 1024.0,
        code: status.code(),
    };
    std::fs::write(&options.into, serde_json::to_string(&cost)?)?;
    Ok(())
}
