//! What the repository promises, against real stores, real directories and stock restic.
//!
//! restic is looked for on `PATH` and in `SEAWORTHY_TEST_RESTIC` (several, separated by colons); none is a failure.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test as the tests themselves do")]

mod attest;
mod common;
mod copy;
mod crash;
mod damage;
mod failures;
mod forget;
mod frail;
mod golden;
mod hostile;
mod interop;
mod journal;
mod large;
mod locks_and_keys;
mod lying;
mod prune;
mod reuse;
mod takeover;
mod traps;
mod whole;
