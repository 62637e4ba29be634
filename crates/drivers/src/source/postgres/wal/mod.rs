//! The write-ahead log: what its files hold.

pub mod page;
pub mod stop;
pub mod transaction;
