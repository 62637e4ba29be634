//! Development only: the sabotage harness.
//!
//! A small estate is backed up; then something is made wrong where real life makes it wrong (in the source's dump, in the
//! tool, in the repository, in the witness, in the ledger, in the keys, with the clock); then the product is asked, and so
//! are three naive checkers that real organisations rely on. What the product must say is in the case. A healthy variation
//! is a case too: there it must say nothing.
//!
//! Every trial is named by its case and its seed and can be replayed alone.

pub mod case;
mod cluster;
mod evidence;
mod files;
mod forge;
mod healthy;
mod hostile;
mod journal;
mod naive;
mod postgres;
pub mod report;
mod repository;
pub mod run;
mod secrets;
mod sqlite;
mod stage;
mod tools;

/// Why a trial could not be carried out: never a result.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// What a step of a trial comes to.
pub type Outcome<T = ()> = Result<T, Fault>;
