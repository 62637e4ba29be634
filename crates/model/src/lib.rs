//! The trade in types, and every judgement.
//!
//! Facts in, judgement out: what a backup promised ([`witness`]), what a restore was found to hold, what differs and
//! under which code ([`finding`]), how far a copy has been proven ([`verdict`]), what was signed ([`receipt`]), which copies
//! may go ([`retention`]).
//!
//! This crate never waits, never touches a disk, a network, the clock, the environment or a source of randomness:
//! whatever it needs arrives as an argument, so that every judgement can be recomputed from receipts alone.

pub mod adopt;
pub mod advice;
pub mod assess;
pub mod canonical;
pub mod check;
pub mod config;
pub mod custody;
pub mod example;
pub mod finding;
pub mod forecast;
pub mod id;
pub mod ledger;
pub mod lint;
pub mod objective;
pub mod placement;
pub mod point;
pub mod posture;
pub mod receipt;
pub mod remote;
pub mod retention;
pub mod secret;
pub mod service;
pub mod signature;
pub mod source;
pub mod verdict;
pub mod wal;
pub mod witness;
