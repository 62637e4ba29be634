//! What holds state. One module for each kind; each implements [`seaworthy_interface::Source`].

#[cfg(any(feature = "postgres", feature = "sqlite", feature = "files"))]
mod blocking;
#[cfg(feature = "files")]
pub mod files;
#[cfg(feature = "postgres")]
pub mod lying;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "sqlite")]
pub mod sqlite;
