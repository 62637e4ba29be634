//! Providers of isolated places for restores.

#[cfg(feature = "process")]
pub mod process;
