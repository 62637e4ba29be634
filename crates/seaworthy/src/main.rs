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

/// Whether a command line asks for a file of the log, as far as that can be told without understanding it.
fn asks_for_log(words: impl Iterator<Item = std::ffi::OsString>) -> bool {
    let mut verbs = words.filter(|word| word == "wal" || word == "get");
    verbs.next().is_some_and(|word| word == "wal") && verbs.next().is_some_and(|word| word == "get")
}

/// A server takes every code up to 125 of its `restore_command` for the end of the log, is promoted there and accepts connections: of
/// `wal get` only a deliberate 1 may say that.
fn withheld(code: u8) -> u8 {
    match code {
        0 | 1 => code,
        _ => Exit::Withheld.number(),
    }
}

fn main() -> ExitCode {
    seaworthy_syscall::heap::keep_heap_small();
    if let Some(code) = wiring::sandbox_init() {
        return code;
    }
    if !asks_for_log(std::env::args_os().skip(1)) {
        return ExitCode::from(carry_out().0);
    }
    // A panic ends with 101.
    let (code, is_deliberate) =
        std::panic::catch_unwind(carry_out).unwrap_or((Exit::Withheld.number(), false));
    ExitCode::from(if is_deliberate {
        withheld(code)
    } else if code == 0 {
        0
    } else {
        Exit::Withheld.number()
    })
}

/// Does what is asked. The exit code, and whether the verb itself has chosen it: anything else is a failure.
fn carry_out() -> (u8, bool) {
    // A core dump would hold every password that was read; sandboxes have rules of their own.
    if let Err(error) = seaworthy_syscall::secrecy::keep_memory_private() {
        let failure =
            failure::Failure::because(Exit::Unexpected, "keep this process's memory private", &error);
        // Without an error stream there is nobody to tell.
        drop(writeln!(std::io::stderr().lock(), "{}", failure.render()));
        return (Exit::Unexpected.number(), false);
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
            return (if is_help && is_read { Exit::Ok } else { Exit::Usage }.number(), false);
        }
    };
    let face = Face::new(&cli.global);
    match cli::run(&cli, &face) {
        Ok(exit) => (exit.number(), true),
        Err(failure) => {
            let mut out = std::io::stderr().lock();
            if face.json {
                let document = serde_json::json!({
                    "schema": "seaworthy.error/1", "event": "exit_error", "exit": failure.exit.number(),
                    "error": failure.chain, "hint": failure.hint,
                });
                if writeln!(std::io::stdout().lock(), "{document}").is_err() {
                    return (failure.exit.number(), false);
                }
            }
            if writeln!(out, "{}", failure.render()).is_err() {
                return (failure.exit.number(), false);
            }
            (failure.exit.number(), false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_deliberate_one_is_the_end_of_the_log() {
        let asks = |line: &str| asks_for_log(line.split(' ').map(std::ffi::OsString::from));
        assert!(asks("wal get shop 00000002.history pg_wal/RECOVERYHISTORY"));
        assert!(asks("--config /etc/seaworthy.toml wal --json get --no-such-option"));
        for other in ["wal push shop pg_wal/000000010000000000000007", "backup", "get wal", "wal"] {
            assert!(!asks(other), "{other}");
        }
        assert_eq!((withheld(0), withheld(1), withheld(2), withheld(130)), (0, 1, 200, 200));
    }
}
