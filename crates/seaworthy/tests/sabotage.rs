//! What was altered behind the product's back is found under the code that names it, and nothing healthy raises an alarm:
//! one seed of every mutation and variation of SQLite and of files, of every second of base backups, of every third of received logs, and of every fourth of
//! PostgreSQL.
//!
//! `cargo xtask sabotage` is the whole: every case, many seeds, and naive checkers beside it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::path::Path;
use std::sync::Mutex;

use seaworthy_sabotage::case::{Case, Kind, Trial};
use seaworthy_sabotage::run::{Options, run};

/// Runs the cases; every one that did not end as it should is told.
fn holds(kind: Kind, every: usize) {
    let seed =
        std::env::var("SEAWORTHY_SEED").map_or(1, |text| text.parse().expect("SEAWORTHY_SEED is a number"));
    let options = Options {
        kinds: vec![kind],
        seeds: vec![seed],
        only: Vec::new(),
        every,
        naive: Vec::new(),
        jobs: 1,
        place: "/var/tmp".into(),
    };
    let wrong = Mutex::new(Vec::new());
    let tell = |case: &Case, trial: &Trial| {
        let is_right = !trial.is_wrong(case) && (case.is_healthy() || trial.is_attributed(case));
        if !is_right {
            wrong.lock().unwrap().push(format!("{} wants {:?}: {:#?}", case.name, case.expected, trial.said));
        }
    };
    let program = Path::new(env!("CARGO_BIN_EXE_seaworthy"));
    let trials = run(program, &options, Vec::new(), &tell, &|_, _| Ok(())).unwrap().trials;
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "seed {seed}, {} of {}:\n{}", wrong.len(), trials.len(), wrong.join("\n"));
    let least = match kind {
        Kind::Log => 9,
        Kind::Cluster => 15,
        Kind::Postgres | Kind::Sqlite | Kind::Files => 40,
    };
    assert!(trials.len() > least, "only {} cases", trials.len());
}

#[test]
fn sabotage_of_files_is_found_and_nothing_healthy_is_called_wrong() {
    holds(Kind::Files, 1);
}

#[test]
fn sabotage_of_base_backups_is_found_and_nothing_healthy_is_called_wrong() {
    holds(Kind::Cluster, 2);
}

#[test]
fn sabotage_of_a_received_log_is_found_and_nothing_healthy_is_called_wrong() {
    holds(Kind::Log, 3);
}

#[test]
fn sabotage_of_sqlite_is_found_and_nothing_healthy_is_called_wrong() {
    holds(Kind::Sqlite, 1);
}

#[test]
fn sabotage_of_postgres_is_found_and_nothing_healthy_is_called_wrong() {
    holds(Kind::Postgres, 4);
}
