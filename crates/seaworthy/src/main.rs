//! Seaworthy: backs up services, restores them in isolation, proves that what came back equals what was backed up, and
//! signs a receipt for it.
//!
//! This crate is the face: only it reads the configuration, the environment and the terminal. What is done and what is
//! judged lies below it.

mod app;
mod books;
mod cli;
mod custody;
mod demo;
mod discover;
mod exit;
mod failure;
mod memory;
mod output;
mod render;
mod secrets;
mod setup;
mod state;
mod stock;
mod wiring;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::args::Cli;
use crate::exit::Exit;
use crate::output::Face;

fn main() -> ExitCode {
    seaworthy_syscall::heap::keep_heap_small();
    if let Some(code) = wiring::sandbox_init() {
        return code;
    }
    // A core dump would hold every password that was read; sandboxes have rules of their own.
    if let Err(error) = seaworthy_syscall::secrecy::keep_memory_private() {
        let failure =
            failure::Failure::because(Exit::Unexpected, "keep this process's memory private", &error);
        // Without an error stream there is nobody to tell.
        drop(writeln!(std::io::stderr().lock(), "{}", failure.render()));
        return ExitCode::from(Exit::Unexpected.number());
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let is_help = !error.use_stderr();
            let printed = error.print();
            // `seaworthy --help | head` closes our output; that is the reader's decision.
            let is_read = match &printed {
                Ok(()) => true,
                Err(error) => error.kind() == std::io::ErrorKind::BrokenPipe,
            };
            return ExitCode::from(if is_help && is_read { Exit::Ok } else { Exit::Usage }.number());
        }
    };
    let face = Face::new(&cli.global);
    match cli::run(&cli, &face) {
        Ok(exit) => ExitCode::from(exit.number()),
        Err(failure) => {
            let mut out = std::io::stderr().lock();
            if face.json {
                let document = serde_json::json!({
                    "schema": "seaworthy.error/1", "event": "exit_error", "exit": failure.exit.number(),
                    "error": failure.chain, "hint": failure.hint,
                });
                if writeln!(std::io::stdout().lock(), "{document}").is_err() {
                    return ExitCode::from(failure.exit.number());
                }
            }
            if writeln!(out, "{}", failure.render()).is_err() {
                return ExitCode::from(failure.exit.number());
            }
            ExitCode::from(failure.exit.number())
        }
    }
}
