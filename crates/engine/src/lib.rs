//! The acts: back up, drill, restore. Each ends in facts that go into a receipt; none of them judges what it did.
//!
//! The engine knows the doors, the store and the ledger. It knows no driver's name and reads neither configuration,
//! environment nor terminal.

pub mod act;
pub mod store;


pub use act::drill::{Control, DrillDone, DrillRequest, drill};
