//! The acts: back up, drill, restore. Each ends in facts that go into a receipt; none of them judges what it did.
//!
//! The engine knows the doors, the store and the ledger. It knows no driver's name and reads neither configuration,
//! environment nor terminal.

pub mod act;
pub mod journal;
pub mod notary;
pub mod runner;
pub mod store;
mod tree;

pub use act::backup::{BackupDone, BackupRequest, Earlier, KnownPlace};
pub use act::drill::{DrillDone, DrillRequest, drill};
pub use act::independent::Bringing;
pub use act::replicate::ReadBack;
pub use notary::{Ledger, Notary, NotaryError};
pub use runner::{
    AdoptedJob, Apart, Clock, DrillJob, Executor, Moment, ReplicateEnded, ReplicateJob, RestoreJob, RunError,
    Runner, Sealed, Subject,
};
