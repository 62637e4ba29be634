//! Sources: what holds state.

#[cfg(feature = "postgres")]
pub mod postgres;
