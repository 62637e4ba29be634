//! What people read, drawn from receipts.

pub(crate) mod drill;
