//! What people read, drawn from receipts.

pub(crate) mod comply;
pub(crate) mod drill;
pub(crate) mod kit;
